"""Chooses a learning rate for each line of a study, by bits of the validation split.

  python scripts/lr_grid.py --config=my_study.py --config.train.steps=600 --jobs=2

Each line trains at half the rate that its config states, at that rate and at its double; where the
best lies at an edge the grid goes on by factors of 2. The stated rate is kept where it is within
0.01 bits of the best. The curves are printed, and the choice is written to a file that the study
reads; the same command goes on after a stop. In the study:

  RATES = Path(__file__).with_name('my_study_rates.json')

  def lines():
    return vary('encoding.name', 'rope', 'alibi')

  def sweep():
    return product(with_rates(lines(), RATES), vary('seed', 0, 1, 2))

--out: the folder of the runs, by default runs/NAME_rates of the study. --save: the file, by default
NAME_rates.json beside the study. --seed: that of all runs, by default one that no study here
reports, since the luck of a seed would choose the rate that it is then reported with. --jobs,
--launcher: as for sweep.py. The grid sets how runs are evaluated, and refuses
what would change it.
"""

from pathlib import Path

from posenc_jax import cli
from posenc_jax.sweep import lr_grid

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (ROOT / 'train.py', ROOT / 'eval.py')
FLAGS = {'config': cli.REQUIRED, 'out': '', 'save': '', 'seed': 100, 'jobs': 1, 'launcher': 'local'}


def main(argv):
  flags, overrides = cli.parse_args(argv, FLAGS, lists_fields=True)
  study = Path(flags.config)
  out = flags.out or Path('runs') / f'{study.stem}_rates'
  save = flags.save or study.with_name(f'{study.stem}_rates.json')
  return lr_grid.choose_rates(
    study, out, save, overrides, SCRIPTS, flags.seed, flags.jobs, flags.launcher
  )


if __name__ == '__main__':
  cli.main(main)
