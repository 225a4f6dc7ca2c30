"""Keeps the results of finished runs without the runs: their rows and costs, tables and figures.

  python scripts/keep.py runs/board --out=results/board
  python scripts/sweep.py --config=configs/studies/board.py --out=runs/board --kept=results/board

Runs that are not finished are left out, and what is kept already stays. So a long study may be run
in parts, on several machines: the second command leaves out the runs that are kept. Runs of a sweep
that --config.FIELD changed are refused, but for seed, seeds, launch, mesh, data.cache,
train.trackers and train.profile_steps.
"""

from posenc_jax import cli
from posenc_jax.errors import UserError
from posenc_jax.reporting import kept, study


def main(argv):
  folders = []
  flags, _ = cli.parse_args(argv, {'out': cli.REQUIRED}, folders, takes_overrides=False)
  if len(folders) != 1:
    allowed = 'DIR, such as runs/board, and --out=DIR'
    raise UserError(f'{" ".join(argv) or "no arguments"}; allowed: {allowed}')
  cli.check_folder(f'--out={flags.out}', flags.out)
  added, every = kept.keep(folders[0], flags.out)
  report = study.load(flags.out)
  failed = report.write_all_possible()
  print(f'{flags.out}: {every} of {len(report.runs)} runs, {added} of them new')
  for what, why in failed.items():
    print(f'not made: {what}: {why}')
  return 1 if failed else 0


if __name__ == '__main__':
  cli.main(main)
