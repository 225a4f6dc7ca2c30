"""The board in Markdown and as an HTML page: the same tables, the same bytes for the same rows."""

import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path

from posenc_jax.errors import visible
from posenc_jax.reporting.board.smallest import SMALLEST_SHOWN
from posenc_jax.reporting.table import Cell, RowGroup, Table
from posenc_jax.reporting.table_writers import escape_markdown, markdown
from posenc_jax.reporting.tasks.chance import CHANCE

TEMPLATE = Path(__file__).with_name('board.html')
ALTERNATIVE = 'What a step costs against bits at L'  # the words in the place of the figure
LINES = (
  'Each line is an encoding that was trained here, on the same data and for as many steps as the '
  'others of its table but where the notes below that say otherwise; lines called reference are '
  'there to compare with. All were evaluated past their training length L.'
)
INTRODUCTION = """# The board

Which position encoding, and what happens past the training length? {lines} {about}

Made by `{command}` from the rows of {runs} runs in {folder_links} (SHA-256 {sha256}); studies:
{study_links}. {sessions}
"""
# A study with an encoding of its own, to start from.
STUDY = '''"""The study of the board with an encoding of mine."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax import Encoding, register
from posenc_jax.config import load_study

board = load_study('configs/studies/board.py')


class Mine(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - rate_h log(1 + |i - j|), a learned rate per head."""

  bias_in_scale = False  # added after 1/sqrt(K)

  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.rates = nnx.Param(jnp.ones(dims.heads))

  def bias(self, r_R):
    return -jnp.log1p(jnp.abs(r_R))[:, None] * self.rates[...][None]


register('mine', Mine)


def get_config():
  return board.get_config()


def sweep():
  for seed in range(3):
    yield {'seed': seed, 'label': 'mine', 'encoding': board.with_kv_shift('mine')}
'''
ADDING = """## Add your encoding

One file and two commands. Save this as `my_study.py` in the clone of the repository and put your
formula in the place of that of `Mine` (README, "Add an encoding of your own"):

```python
{study}```

Then run

```
python scripts/sweep.py --config=my_study.py --out=runs/mine --jobs=2
python scripts/board.py {folders} runs/mine --out=runs/board
```

and `runs/board/BOARD.md` is this page with your line in it. Its column `step` is filled by

```
python scripts/step_times.py --config=my_study.py --beside=configs/studies/board.py --out=runs/mine
```

before the second command: it times the board's `rope` in turn with your line.
"""


def sha256(rows: Iterable[dict]) -> str:
  """The first 12 digits of a hash of the rows, in any order."""
  texts = sorted(json.dumps(row, sort_keys=True) for row in rows)
  return hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:12]


def in_markdown(tables: Iterable[Table], figure: str | None, facts: dict[str, str]) -> str:
  """The text of BOARD.md.

  Args:
    figure: the file name of the figure; None: there is none.
    facts: fields of the texts. Of these `about` and `sessions` are what folders of anyone say.
  """
  escaped = {name: escape_markdown(facts[name]) for name in ('about', 'sessions')}
  parts = [INTRODUCTION.format(lines=LINES, **facts | escaped)]
  if figure:
    parts.append(f'![{ALTERNATIVE}]({figure})\n')
  return '\n'.join([*parts, *map(markdown, tables), ADDING.format(study=STUDY, **facts)])


def in_html(tables: Iterable[Table], figure: str | None, facts: dict[str, str]) -> str:
  """The text of board.html: tables whose columns sort at a click."""
  image = f'<img src="{html.escape(figure)}" alt="{ALTERNATIVE}">' if figure else ''
  names = {'sections': '\n'.join(map(_section, tables)), 'image': image}
  facts = facts | {'lines': LINES}
  names |= {name: html.escape(visible(fact)) for name, fact in facts.items()}
  template = TEMPLATE.read_text(encoding='utf-8')
  # at once: what a name or a fact says is no field
  return re.sub(r'\{\{ (\w+) \}\}', lambda match: names[match[1]], template)


def _class(name: str) -> str:
  """The class of entries of the column with this name: which columns are ordered as text."""
  return ' class="text"' if name in ('encoding', 'verdict') else ''


def _row(table: Table, line: list[Cell]) -> str:
  is_summary = ' class="summary"' if line[0].text in (CHANCE, SMALLEST_SHOWN) else ''
  tags = ['th scope="row"', *['td'] * (len(line) - 1)]
  cells = (
    f'<{tag}{_class(name)}>{html.escape(cell.text + cell.mark)}</{tag[:2]}>'
    for tag, name, cell in zip(tags, table.header, line, strict=True)
  )
  return f'<tr{is_summary}>{"".join(cells)}</tr>'


def _group(table: Table, group: RowGroup) -> str:
  """A table of its own for a group of lines, below its heading."""
  heads = ''.join(
    f'<th scope="col"{_class(name)}><button>{html.escape(name)}</button></th>'
    for name in table.header
  )
  body = '\n'.join(_row(table, line) for line in group.lines)
  name = f'<h3>{html.escape(group.name)}</h3>\n' if group.name else ''
  return (
    f'{name}<div class="wide"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n'
    '</tbody></table></div>\n'
  )


def _section(table: Table) -> str:
  groups = ''.join(_group(table, group) for group in table.groups)
  notes = ''.join(f'<li>{html.escape(note)}</li>' for note in table.notes)
  return (
    f'<h2>{html.escape(table.title)}</h2>\n<p class="caption">{html.escape(table.caption)}</p>\n'
    + groups
    + (f'<ul class="caption">{notes}</ul>' if notes else '')
  )
