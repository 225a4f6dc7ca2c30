"""The Python in README and GUIDE runs as it stands there."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Run after each block of GUIDE, plain JAX, NNX and Linen: gradients reach the encoding.
AFTER_GUIDE = (
  """
def moved(eps):
  return loss(jax.tree.map(lambda leaf: leaf + eps, parameters), q, k, v)

slope = (moved(0.05) - moved(-0.05)) / 0.1
total = sum(leaf.sum() for leaf in jax.tree.leaves(gradients[0]))
assert abs(slope - total) < 0.02 * abs(total), (slope, total)
""",
  "assert abs(gradients['encoding']['table'][...]).max() > 1e-6",
  "assert abs(gradients['params']['encoding']['table'][...]).max() > 1e-6",
)


@pytest.mark.parametrize('name', ['README.md', 'GUIDE.md'])
def test_python_blocks_run(name):
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / name).read_text(), re.DOTALL)
  assert len(blocks) == 3
  if name == 'GUIDE.md':
    blocks = [block + check for block, check in zip(blocks, AFTER_GUIDE, strict=True)]
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(blocks)], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def tables_of(text: str) -> list[dict]:
  """Every table of a Markdown text: {first cell of a line: {head of a column: cell}}."""
  tables, lines = [], [line.strip().strip('|') for line in text.splitlines()]
  for line, below in itertools.pairwise(lines):
    cells = [cell.strip() for cell in line.split('|')]
    if re.fullmatch('[-:| ]+', below) and '-' in below and '|' in line:
      heads, found = cells, {}
      tables.append(found)
    elif tables and not re.fullmatch('[-:| ]*', line) and len(cells) == len(heads):
      found[cells[0]] = dict(zip(heads[1:], cells[1:], strict=True))
  return tables


def titled(folder: str) -> dict[str, dict]:
  """{title: table} of the tables of a folder of results, which are made from its rows."""
  text = (ROOT / 'results' / folder / 'table.md').read_text()
  parts = re.split('^## (.*)$', text, flags=re.MULTILINE)
  return {title: tables_of(part)[0] for title, part in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_readme_has_the_numbers_of_the_classic_encodings():
  """Its table is that of results/classic, without the mark of what is worse and some columns."""
  (shown,) = (t for t in tables_of((ROOT / 'README.md').read_text()) if 'transformer_xl' in t)
  tables = titled('classic')
  own = tables['Differences from their own score at L, last_k']
  windowed = tables['Differences from their own score at L, last_k, windowed']
  columns = ((own, '256'), (own, '512'), (own, '4096'), (windowed, '4096'))
  assert len(shown) == 9
  for name, cells in shown.items():
    at_L, *changes = cells.values()
    assert at_L == tables['Extrapolation, last_k'][name]['128 (L)'].split(' ±')[0].strip('*')
    if name == 'learned':
      assert changes == ['its table ends', '', '', '']
      continue
    for change, (table, length) in zip(changes, columns, strict=True):
      assert change.replace(' ', '') == table[name][length].replace(' ', '').removesuffix('†')


def test_the_readme_has_the_numbers_of_the_pretrained_model():
  """Its sentences have the numbers of the table in results/pretrained."""
  scores = titled('pretrained')['Extrapolation, last_k']
  text = ' '.join((ROOT / 'README.md').read_text().replace('**', '').split())
  for words, line, length in (
    (r'breaks down: ([\d.]+) bits a byte at 2 L', 'none', '16384'),
    (r'where it has ([\d.]+) at L', 'none', '8192 (L)'),
    (r'Self-Extend or dual chunk attention, ([\d.]+) at 2 L', 'self_extend', '16384'),
    (r'Self-Extend or dual chunk attention, ([\d.]+) at 2 L', 'dca', '16384'),
    (r'or YaRN, ([\d.]+),', 'yarn', '16384'),
  ):
    (found,) = re.findall(words, text)
    assert found == scores[f'{line}, 2 L'][length].strip('*').split(' ')[0]
