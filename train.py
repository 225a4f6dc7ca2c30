"""Trains one run, or goes on with it: the same command resumes from the last checkpoint.

python train.py --config=configs/base.py --workdir=runs/base --config.encoding.name=alibi
"""

from posenc_jax import config
from posenc_jax.distributed import devices


def main(argv):
  flags, overrides = config.parse_args(
    argv, {'config': config.REQUIRED, 'workdir': config.REQUIRED}
  )
  run = config.load(flags.config, overrides)
  config.validate(run)

  from posenc_jax.distributed import processes
  from posenc_jax.training import loop  # jax takes seconds to import: after the check

  devices.enable_compilation_cache(config.cache_folder('') / 'compiled')
  with processes.distributed_context():
    devices.announce_devices()
    loop.train(run, flags.workdir)


if __name__ == '__main__':
  config.main(main)
