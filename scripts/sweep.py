"""Trains and evaluates every run of a study, then makes its tables and figures; the same command goes on after a stop.

python scripts/sweep.py --config=configs/quick.py
python scripts/sweep.py --config=configs/classic.py --out=runs/mine --jobs=2 --config.train.steps=1000

--out: folder of the runs, by default runs/NAME of the study. --jobs: runs at a time, each on its share of the CPUs.
"""

from pathlib import Path

from posenc_jax import config, sweep


def main(argv):
  flags, overrides = config.parse_args(argv, {'config': config.REQUIRED, 'out': '', 'jobs': 1})
  return sweep.sweep(flags.config, flags.out or Path('runs') / Path(flags.config).stem, overrides, flags.jobs)


if __name__ == '__main__':
  config.main(main)
