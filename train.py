"""Trains one run, or goes on with it: the same command resumes from the last checkpoint.

python train.py --config=configs/base.py --workdir=runs/base --config.encoding.name=alibi

With --planned=HASH, which a sweep gives, it refuses another config than the one of that hash.
"""

import shlex
from pathlib import Path

from posenc_jax import cli, config, storage
from posenc_jax.distributed import devices
from posenc_jax.training import run_dir


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'config': cli.REQUIRED, 'workdir': cli.REQUIRED, 'planned': ''}, lists_fields=True
  )
  run = config.load(flags.config, overrides)
  run_dir.check_planned(run, flags.workdir, flags.planned)
  config.validate(run)
  for folder in (flags.workdir, *(config.seed_workdir(flags.workdir, seed) for seed in run.seeds)):
    cli.check_folder(f'--workdir={folder}', folder)

  from posenc_jax.distributed import processes
  from posenc_jax.encodings.core.registry import BUILT_IN
  from posenc_jax.evaluation import preflight
  from posenc_jax.model.layer_pattern import encoding_names
  from posenc_jax.training import loop  # jax takes seconds to import: after the check

  cli.keep_compiled_programs()
  with processes.distributed_context():
    # inside the context, so that several processes print its error once
    first, folder = config.single_seed_runs(run, flags.workdir)[0]
    with_tokenizer = preflight.with_own_tokenizer(first, folder)
    preflight.check_evaluation(with_tokenizer)
    preflight.check_backend(with_tokenizer)
    devices.announce_devices(run.mesh)
    devices.announce_precision(run.train.compute_dtype, run.train.matmul_precision)
    for note in config.notes(run):
      print(note)
    loop.train(run, flags.workdir)
    if not storage.exists(Path(flags.workdir) / 'state.json'):  # else a sweep evaluates it
      is_own = not BUILT_IN.keys() >= {*encoding_names(run.encoding)}
      study = [f'--config={flags.config}'] * is_own  # which registers the encoding
      command = ['python', 'eval.py', f'--workdir={flags.workdir}', *study]
      print(f'next: {shlex.join(command)}')


if __name__ == '__main__':
  cli.main(main)
