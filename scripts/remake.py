"""Makes all that is made of rows in results/ again: tables, figures, and the board.

python scripts/remake.py

It runs scripts/table.py and scripts/figures.py on each folder there that has a study.json, and
scripts/board.py on results/board; `git diff results` then says whether anything has changed.
Tables and the board come out byte for byte; figures do where matplotlib is of the version that
drew them.
"""

import subprocess
import sys
from pathlib import Path

from posenc_jax import cli
from posenc_jax.errors import Stopped
from posenc_jax.reporting import study

ROOT = Path(__file__).resolve().parent.parent
OF_EACH_FOLDER = ('table', 'figures')


def main(argv):
  cli.parse_args(argv, {}, takes_overrides=False)
  for words in commands():
    print('python', *words, flush=True)
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    if ended.returncode:
      raise Stopped(f'{" ".join(words)}: exit status {ended.returncode}; see above')


def commands() -> list[tuple[str, ...]]:
  """The commands in their order, each without the interpreter, from the root of the repository."""
  folders = sorted(path.parent.name for path in ROOT.glob(f'results/*/{study.FILE}'))
  made = [(f'scripts/{script}.py', f'results/{x}') for x in folders for script in OF_EACH_FOLDER]
  return [*made, ('scripts/board.py', 'results/board')]


if __name__ == '__main__':
  cli.main(main)
