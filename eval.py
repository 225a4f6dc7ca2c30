"""Evaluates a trained run and appends rows to its eval.jsonl; what is there is not measured again.

  python eval.py --workdir=runs/base [--step=N] --config.eval.k=32

With --step it measures the checkpoint of that step in the place of the last one, if the run keeps
it (config.train.max_to_keep and keep_every).

What is evaluated is the run's own config, as saved in its directory, with the overrides given.
--config=STUDY.py is needed only for an encoding that the study registers: the file is executed, so
that its encodings are known, and nothing else of it is read. --planned=HASH is as for train.py.
"""

from posenc_jax import cli, config
from posenc_jax.distributed import devices
from posenc_jax.training import run_dir


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'workdir': cli.REQUIRED, 'config': '', 'step': -1, 'planned': ''}, lists_fields=True
  )
  if flags.config:
    config.load_study(flags.config, needs_config=False)
  run = config.trained_config(flags.workdir, overrides)
  run_dir.check_planned(run, flags.workdir, flags.planned)

  from posenc_jax.distributed import processes
  from posenc_jax.evaluation import evaluate, runs  # jax takes seconds to import: after the check

  processes.check_one_host()
  if not flags.config:
    runs.check_registered(run, overrides)
  cli.keep_compiled_programs()
  devices.start_two_threads()
  devices.announce_devices()
  evaluate.evaluate(run, flags.workdir, at=None if flags.step == -1 else flags.step)


if __name__ == '__main__':
  cli.main(main)
