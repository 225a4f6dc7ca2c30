"""Makes all that is made of rows in results/ again: tables, figures, and the board.

python scripts/maintenance/remake.py [--settings]

With --settings it first writes each study.json anew: the settings of tables and figures as the
study wants them now, and the hashes of its runs. That is asked for by an edit of a study and by a
new field, of which all kept results have the default.

It runs scripts/table.py and scripts/figures.py on each folder there that has a study.json, and
scripts/board.py on those of BOARD; `git diff results` then says whether anything has changed.
Tables and the board come out byte for byte; figures do where matplotlib is of the version that
drew them.
"""

import subprocess
import sys
from pathlib import Path

from posenc_jax import cli, sweep
from posenc_jax.errors import Stopped, UserError
from posenc_jax.reporting import study

ROOT = Path(__file__).resolve().parents[2]
OF_EACH_FOLDER = ('table', 'figures')
# The folders whose rows stand on the board; its figure is of the first.
BOARD = ('results/board', 'results/board_code', 'results/board_tasks')


def main(argv):
  flags, _ = cli.parse_args(argv, {'settings': False}, takes_overrides=False)
  if flags.settings:
    for folder in folders():
      renew_settings(ROOT / 'results' / folder)
  for words in commands():
    print('python', *words, flush=True)
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    if ended.returncode:
      raise Stopped(f'{" ".join(words)}: exit status {ended.returncode}; see above')


def folders() -> list[str]:
  """The names of the folders of results that a study made."""
  return sorted(path.parent.name for path in ROOT.glob(f'results/*/{study.FILE}'))


def renew_settings(folder: Path) -> None:
  """Writes study.json of kept results as its study is now; its runs stay."""
  kept = study.load(folder, with_settings=False)
  path = ROOT / kept.study
  report = study.of_study(path, folder, kept.runs)
  report.overrides = kept.overrides
  try:
    planned = sweep.plan(path, 'out', {})
  except UserError as error:  # an imported model that the study starts from is not here
    print(f'{folder}: hashes stay as they are: {error}', file=sys.stderr)
    report.hashes = kept.hashes
  else:
    hashes = {name: value for run in planned for name, value in run.hashes.items()}
    if gone := [name for name in kept.runs if name not in hashes]:
      raise UserError(
        f'{folder}: {kept.study} has no run {gone[0]}; allowed: a study with all runs'
      )
    report.hashes = {name: hashes[name] for name in kept.runs}  # it may have more by now
  study.save(report, path)


def commands() -> list[tuple[str, ...]]:
  """The commands in their order, each without the interpreter, from the root of the repository."""
  made = [(f'scripts/{script}.py', f'results/{x}') for x in folders() for script in OF_EACH_FOLDER]
  return [*made, ('scripts/board.py', *BOARD)]


if __name__ == '__main__':
  cli.main(main)
