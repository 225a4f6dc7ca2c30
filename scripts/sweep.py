"""Trains and evaluates every run of a study, then makes its tables and figures; the same command
goes on after a stop.

  python scripts/sweep.py --config=configs/quick.py
  python scripts/sweep.py --config=configs/classic.py --out=runs/mine --jobs=2
  python scripts/sweep.py --config=configs/classic.py --launcher=slurm --config.launch.partition=gpu
  python scripts/sweep.py --config=configs/classic.py --status

--out: the folder of the runs, by default runs/NAME of the study.
--launcher: 'local', --jobs runs at a time, each on its share of the CPUs, which write to their
log.txt; 'slurm', every run a job of the cluster, with what config.launch asks for.
--kept: a folder of results that scripts/keep.py made, also of another study: runs whose rows it has
are left out, and these rows stand in the tables.
--part: 'N/M', such as 1/4, makes a part of the runs alone, with those that they start from: on each
machine or GPU another one, into a folder of its own; scripts/keep.py joins them.
--status: prints how far the runs are, those in --kept among them, and starts nothing.
"""

from pathlib import Path

from posenc_jax import cli, sweep

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (ROOT / 'train.py', ROOT / 'eval.py')


def main(argv):
  defaults = {'config': cli.REQUIRED, 'out': '', 'jobs': 1, 'launcher': 'local'}
  defaults |= {'kept': '', 'part': '', 'status': False}
  flags, overrides = cli.parse_args(argv, defaults, lists_fields=True)
  out = flags.out or Path('runs') / Path(flags.config).stem
  parts = {'kept': flags.kept, 'part': flags.part}
  if flags.status:
    return sweep.print_status(flags.config, out, overrides, **parts)
  return sweep.sweep(flags.config, out, overrides, SCRIPTS, flags.jobs, flags.launcher, **parts)


if __name__ == '__main__':
  cli.main(main)
