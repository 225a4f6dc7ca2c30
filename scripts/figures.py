"""Makes the figures of a folder of runs again, from their rows alone; or draws encodings.

python scripts/figures.py runs/quick
python scripts/figures.py results/classic --config=configs/classic.py --out=runs/figures
python scripts/figures.py --encoding=rope/base=500000 --out=runs/figures
python scripts/figures.py --classic --out=runs/figures

The figures of a folder are those that `figures()` of its study gave when the sweep ran; --config: a
study that says it instead, which is executed; --out: the folder to write to, where DIR is not to
be. Each is written as PNG and, for papers, as PDF.
--encoding: any, with hyperparameters as in NAME/hyper=value: what position adds to a score, against
distance, one line per head, at initialization. Its sizes: --length (the largest distance), --heads,
--head_dim, --train_length, --samples (draws of tokens) and --seed.
--classic: the sinusoid, RoPE's long-term decay, ALiBi and KERPLE, T5's buckets.
"""

import functools
import re
from pathlib import Path

from posenc_jax import cli
from posenc_jax.errors import UserError
from posenc_jax.reporting import study
from posenc_jax.reporting.mpl import classic_figures, figures, profile_figure

ROOT = Path(__file__).resolve().parent.parent
SIZES = {'length': 512, 'heads': 8, 'head_dim': 64, 'train_length': 512, 'samples': 256, 'seed': 0}
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
      '--encoding=NAME --out=DIR; --classic --out=DIR'
    )
  flags = {word.partition('=')[0] for word in argv if word.startswith('-')}
  if {'--encoding', '--classic'} & flags or (len(flags) == len(argv) and '--config' not in flags):
    draw_encodings(argv)
  else:
    study.of_arguments(argv, ROOT).write_figures()


def draw_encodings(argv: list[str]) -> None:
  """Draws the encoding, or the classic figures, into the folder --out. Raises UserError."""
  flags, overrides = cli.parse_args(
    argv, {'encoding': '', 'classic': False, 'out': cli.REQUIRED, **SIZES}
  )
  sizes = {name: getattr(flags, name) for name in SIZES}
  for name, size in sizes.items():
    least = 0 if name == 'seed' else 1
    if not least <= size <= MOST[name]:
      raise UserError(f'--{name}={size}; allowed: {least} to {MOST[name]}')
  if overrides:
    raise UserError(
      f'--config.{next(iter(overrides))}: hyperparameters stand in --encoding=NAME/hyper=value'
    )
  if bool(flags.encoding) == flags.classic:
    raise UserError('--encoding=NAME or --classic: one of them must be given')
  if changed := [name for name in SIZES if flags.classic and sizes[name] != SIZES[name]]:
    raise UserError(f'--{changed[0]}: goes with --encoding only')
  if flags.encoding:
    name = re.sub(r'[^\w.=-]+', '_', flags.encoding)
    drawers = {name: functools.partial(profile_figure.draw, flags.encoding, **sizes)}
  else:
    drawers = classic_figures.CLASSIC
  cli.check_folder(f'--out={flags.out}', flags.out)
  for name, draw in drawers.items():
    figure, path = draw(), Path(flags.out) / name
    cli.make_folder(path.parent)
    figures.save(figure, path)


if __name__ == '__main__':
  cli.main(main)
