"""Trains one run, or goes on with it: the same command resumes from the last checkpoint.

python train.py --config=configs/base.py --workdir=runs/base --config.encoding.name=alibi
"""

from posenc_jax import config


def main(argv):
  flags, overrides = config.parse_args(argv, {'config': config.REQUIRED, 'workdir': config.REQUIRED})
  run = config.load(flags.config, overrides)
  config.validate(run)

  from posenc_jax import checkpoint, launch, processes, trainer  # jax takes seconds to import: after the check
  from posenc_jax.data.corpora import cache_folder

  checkpoint.keep_compiled(cache_folder('') / 'compiled')
  with processes.joined():
    launch.announce_devices()
    trainer.train(run, flags.workdir)


if __name__ == '__main__':
  config.main(main)
