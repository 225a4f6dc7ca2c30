"""The board as a README and as an HTML page: the same tables, the same bytes for the same rows."""

import hashlib
import html
import json
from collections.abc import Iterable
from pathlib import Path

from posenc_jax.reporting.layouts.differences import SMALLEST
from posenc_jax.reporting.table import Cell, Table
from posenc_jax.reporting.table_writers import markdown

TEMPLATE = Path(__file__).with_name('board.html')
INTRODUCTION = """# The board

Which position encoding, and what happens past the training length: every line is an encoding that
was trained here, but for references on the same data and for as long as the others, and evaluated
past its training length L. {about}

Made by `{command}` from the rows of {runs} runs in [{folder}]({folder_link}) (SHA-256 {sha256});
the study is [{study}]({study_link}).
"""
ADDING = """## Add your encoding

One file and two commands: write a study that takes the board's config and sweep with your encoding
(README, "Write a study of your own" and "Add an encoding of your own"), run

```
python scripts/sweep.py --config=my_study.py --out=runs/mine --jobs=2
python scripts/board.py {folder} runs/mine --out=runs/board
```

and `runs/board/README.md` is this page with your line in it.
"""


def sha256(rows: Iterable[dict]) -> str:
  """The first 12 digits of a hash of the rows, in any order."""
  texts = sorted(json.dumps(row, sort_keys=True) for row in rows)
  return hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:12]


def readme(tables: Iterable[Table], figure: str, facts: dict[str, str]) -> str:
  """The text of README.md. `figure`: the file name of the figure. `facts`: fields of the texts."""
  parts = [INTRODUCTION.format(**facts), f'![What a step costs against bits at L]({figure})\n']
  return '\n'.join([*parts, *map(markdown, tables), ADDING.format(**facts)])


def page(tables: Iterable[Table], figure: str, facts: dict[str, str]) -> str:
  """The text of board.html: tables whose columns sort at a click."""
  sections = '\n'.join(map(_section, tables))
  names = {'sections': sections, 'figure': html.escape(figure)}
  names |= {name: html.escape(fact) for name, fact in facts.items()}
  text = TEMPLATE.read_text()
  for name, value in names.items():
    text = text.replace(f'{{{{ {name} }}}}', value)
  return text


def _entry(tag: str, name: str, text: str) -> str:
  """An entry of the column with this name; the class says which columns are ordered as text."""
  is_text = ' class="text"' if name in ('encoding', 'verdict') else ''
  return f'<{tag}{is_text}>{html.escape(text)}</{tag}>'


def _row(table: Table, line: list[Cell]) -> str:
  is_summary = ' class="summary"' if line[0].text == SMALLEST else ''
  cells = (_entry('td', name, c.text + c.mark) for name, c in zip(table.header, line, strict=True))
  return f'<tr{is_summary}>{"".join(cells)}</tr>'


def _section(table: Table) -> str:
  head = ''.join(_entry('th', name, name) for name in table.header)
  body = '\n'.join(_row(table, line) for group in table.groups for line in group.lines)
  notes = ''.join(f'<li>{html.escape(note)}</li>' for note in table.notes)
  return (
    f'<h2>{html.escape(table.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
    f'</tbody></table>\n<p class="caption">{html.escape(table.caption)}</p>'
    + (f'<ul class="caption">{notes}</ul>' if notes else '')
  )
