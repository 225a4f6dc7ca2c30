"""Makes the figures of a folder of runs again, from their rows alone; or draws encodings.

python scripts/figures.py runs/quick
python scripts/figures.py results/classic --config=configs/classic.py --out=runs/figures
python scripts/figures.py --encoding=rope/base=500000 --out=runs/figures
python scripts/figures.py --workdir=runs/a --layer=2 --out=runs/figures
python scripts/figures.py --classic --out=runs/figures

The figures of a folder are those that `figures()` of its study gave when the sweep ran; --config: a
study that says it instead, which is executed; --out: the folder to write to, where DIR is not to
be. Each is written as PNG and, for papers, as PDF.
--encoding: any, with hyperparameters as in NAME/hyper=value: what position adds to a score, against
distance, one line per head, at initialization; of your own with --config=STUDY.py, the file that
registers it. Its sizes: --length (the largest distance), --heads, --head_dim, --train_length,
--samples (draws of tokens) and --seed.
--workdir: the same of the encoding that a run has trained, in --layer, counted from 0; with
--length, --samples and --seed, and --config.encoding.FIELD=VALUE and --config=STUDY.py as for
eval.py.
--classic: the sinusoid, RoPE's long-term decay, ALiBi and KERPLE, T5's buckets.
"""

import functools
import re
from pathlib import Path

from posenc_jax import cli
from posenc_jax.config import load_study, saved_config
from posenc_jax.errors import UserError
from posenc_jax.reporting import study
from posenc_jax.reporting.mpl import classic_figures, figures, profile_figure

SIZES = {'length': 512, 'heads': 8, 'head_dim': 64, 'train_length': 512, 'samples': 256, 'seed': 0}
OF_PROFILES = ('length', 'samples', 'seed')
MOST = {
  'length': 2**17,
  'heads': 256,
  'head_dim': 4096,
  'train_length': 2**24,
  'samples': 2**14,
  'seed': 2**31 - 1,
}


def main(argv):
  if not argv:
    raise UserError(
      'no arguments; allowed: DIR, such as runs/quick, --config=STUDY and --out=DIR; '
      '--encoding=NAME --out=DIR; --workdir=RUN --out=DIR; --classic --out=DIR'
    )
  flags = {word.partition('=')[0] for word in argv if word.startswith('-')}
  if {'--encoding', '--workdir', '--classic'} & flags or (
    len(flags) == len(argv) and '--config' not in flags
  ):
    draw_encodings(argv)
  else:
    study.of_arguments(argv).write_figures()


def draw_encodings(argv: list[str]) -> None:
  """Draws the encoding, that of a run, or the classic figures, into the folder --out. Raises
  UserError.
  """
  ways = {'encoding': '', 'workdir': '', 'classic': False}
  of_runs = {'layer': 0, 'config': ''}
  flags, overrides = cli.parse_args(argv, {**ways, **of_runs, 'out': cli.REQUIRED, **SIZES})
  sizes = {name: getattr(flags, name) for name in SIZES}
  for name, size in sizes.items():
    least = 0 if name == 'seed' else 1
    if not least <= size <= MOST[name]:
      raise UserError(f'--{name}={size}; allowed: {least} to {MOST[name]}')
  if overrides and not flags.workdir:
    raise UserError(
      f'--config.{next(iter(overrides))}: hyperparameters stand in --encoding=NAME/hyper=value'
    )
  given = [way for way in ways if getattr(flags, way)]
  if len(given) != 1:
    raise UserError('--encoding=NAME, --workdir=RUN or --classic: one of them must be given')
  of_ways = {'encoding': (*SIZES, 'config'), 'workdir': (*OF_PROFILES, *of_runs), 'classic': ()}
  taken = of_ways[given[0]]
  starts = {**of_runs, **SIZES}
  if changed := [n for n in starts if n not in taken and getattr(flags, n) != starts[n]]:
    raise UserError(f'--{changed[0]}: does not go with --{given[0]}')
  if flags.config:
    load_study(flags.config, needs_config=False)
  if flags.encoding:
    name = re.sub(r'[^\w.=-]+', '_', flags.encoding)
    drawers = {name: functools.partial(profile_figure.draw, flags.encoding, **sizes)}
  elif flags.workdir:
    sizes = {name: sizes[name] for name in OF_PROFILES}
    name = f'{Path(flags.workdir).resolve().name}-layer-{flags.layer}'
    draw = functools.partial(draw_layer, flags.workdir, flags.layer, overrides, **sizes)
    drawers = {name: draw}
  else:
    drawers = classic_figures.CLASSIC
  cli.check_folder(f'--out={flags.out}', flags.out)
  for name, draw in drawers.items():
    figure, path = draw(), Path(flags.out) / name
    cli.make_folder(path.parent)
    figures.save(figure, path)


def draw_layer(workdir: str, layer: int, overrides: dict, **sizes: int):
  """A matplotlib `Figure` of the encoding in a layer of a trained run. Raises UserError."""
  from posenc_jax.evaluation.runs import check_registered, load_run  # they need jax, rows do not
  from posenc_jax.model.layer_pattern import read_pattern

  check_registered(saved_config(workdir), overrides)
  run = load_run(workdir, overrides)
  layers = run.config.model.layers
  if not 0 <= layer < layers:
    raise UserError(f'--layer={layer}; allowed: 0 to {layers - 1}')
  _, enc, _ = list(run.model.encodings.all_layers(layers))[layer]
  encodings, order, _ = read_pattern(run.config.encoding.to_dict())
  name = encodings[order[layer % len(order)]]['name']
  title = f'{name}, layer {layer} of {Path(workdir).resolve().name}'
  return profile_figure.draw_encoding(title, enc, **sizes, state=f'As trained, step {run.step}')


if __name__ == '__main__':
  cli.main(main)
