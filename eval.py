"""Evaluates a trained run and appends rows to its eval.jsonl; what is there already is not measured
again.

  python eval.py --workdir=runs/base --config.eval.k=32

Without --config, the run's own config is evaluated, with the overrides given.
"""

from posenc_jax import config
from posenc_jax.distributed import devices


def main(argv):
  flags, overrides = config.parse_args(argv, {'workdir': config.REQUIRED, 'config': None})
  if flags.config is None:
    run = config.saved_config(flags.workdir)
    config.overlay(run, overrides)
  else:
    run = config.load(flags.config, overrides)
  config.validate(run)

  from posenc_jax.data.corpora import cache_folder
  from posenc_jax.evaluation import evaluate

  devices.enable_compilation_cache(cache_folder('') / 'compiled')
  devices.announce_devices()
  evaluate.evaluate(run, flags.workdir)


if __name__ == '__main__':
  config.main(main)
