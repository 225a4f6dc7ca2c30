"""Writing tables: Markdown, LaTeX, comma-separated values, and a form for the terminal."""

import csv
import io
import re
from pathlib import Path

import rich.box
import rich.console
import rich.table
import rich.text
import tabulate

from posenc_jax import storage
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, Table


def write(tables: list[Table], out: str | Path) -> None:
  """Writes `table.md`, `table.tex` and `table.csv` into `out`, each whole or not at all."""
  text = io.StringIO()
  csv.writer(text).writerows(csv_lines(tables))
  storage.atomic_write(Path(out) / 'table.md', '\n'.join(map(markdown, tables)))
  storage.atomic_write(Path(out) / 'table.tex', '\n'.join(map(latex, tables)))
  storage.atomic_write(Path(out) / 'table.csv', text.getvalue())


def markdown(table: Table) -> str:
  """A section: caption, a table for each group of lines, notes, and the scores of each seed."""
  parts = [f'## {table.title}', table.caption]
  for group in table.groups:
    if group.name:
      parts.append(f'*{group.name}*')
    parts.append(_pipe_table(table.header, [list(map(_in_markdown, line)) for line in group.lines]))
  if table.notes:
    parts.append('\n'.join(f'- {note}' for note in table.notes))
  for title, header, lines in table.per_seed:
    parts += [title, _pipe_table(header, [list(map(_escape_pipe, line)) for line in lines])]
  return '\n\n'.join(parts) + '\n'


def _pipe_table(header: list[str], lines: list[list[str]]) -> str:
  align = ['left', *['right'] * (len(header) - 1)]
  return tabulate.tabulate(lines, header, tablefmt='pipe', disable_numparse=True, colalign=align)


def _in_markdown(cell: Cell) -> str:
  text = _escape_pipe(cell.text)
  return (f'**{text}**' if cell.is_best else text) + cell.mark.replace('*', r'\*')


def _escape_pipe(text: str) -> str:
  return text.replace('|', r'\|')


LATEX = {c: f'\\{c}' for c in '&%$#_{}'} | {
  '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$',
  DASH: '---', '†': r'\textsuperscript{\textdagger}', '*': r'\textsuperscript{*}', '[': '{[}',
  ']': '{]}', '<': '$<$', '>': '$>$',
}  # fmt: skip


def latex(table: Table) -> str:
  """A `table` environment; the document needs `booktabs`."""
  width, body = len(table.header), []
  for group in table.groups:
    body.append(r'\midrule')
    if group.name:
      name = _escape_latex(group.name)
      body.append(f'\\multicolumn{{{width}}}{{l}}{{\\emph{{{name}}}}} \\\\')
    body += map(_latex_line, group.lines)
  lines = [
    r'\begin{table}',
    r'\centering',
    f'\\caption{{{_escape_latex(table.caption)}}}',
    f'\\begin{{tabular}}{{l{"r" * (width - 1)}}}',
    r'\toprule',
    _latex_line(map(Cell, table.header)),
    *body,
    r'\bottomrule',
    r'\end{tabular}',
    *(f'\\par\\footnotesize {_escape_latex(note)}' for note in table.notes),
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


def _latex_line(cells) -> str:
  texts = []
  for cell in cells:
    text = _escape_latex(cell.text)
    text = f'\\textbf{{{text}}}' if cell.is_best else text
    # A mark has no width, so that digits stand below digits.
    mark = f'\\rlap{{{_escape_latex(cell.mark)}}}' if cell.mark else ''
    texts.append(text + mark)
  return ' & '.join(texts) + r' \\'


def _escape_latex(text: str) -> str:
  escaped = ''.join(LATEX.get(character, character) for character in text)
  return re.sub(r'(?<!\w)-(?=\d)', '$-$', escaped)  # a minus is no hyphen


def csv_lines(tables: list[Table]) -> list[list]:
  """The records of all tables under all columns that any has; the first line names the columns."""
  records = [record for table in tables for record in table.records]
  names = list(dict.fromkeys(name for record in records for name in record))
  return [names, *([record.get(name, '') for name in names] for record in records)]


def on_screen(table: Table) -> rich.console.Group:
  """For a terminal: the table, and its caption and notes below."""
  drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
  for index, name in enumerate(table.header):
    drawn.add_column(name, justify='right' if index else 'left', no_wrap=True)
  for group in table.groups:
    if group.name:
      drawn.add_section()
      drawn.add_row(rich.text.Text(group.name, 'italic'))
    for line in group.lines:
      drawn.add_row(*map(_on_screen, line))
  notes = [rich.text.Text(note, 'yellow') for note in table.notes]
  title, caption = rich.text.Text(table.title, 'bold'), rich.text.Text(table.caption, 'dim')
  return rich.console.Group(title, drawn, caption, *notes)


def _on_screen(cell: Cell) -> rich.text.Text:
  text = f'{cell.text}{cell.mark}'.replace(' [', '\n[')  # an interval stands below its difference
  return rich.text.Text(text, 'bold green' if cell.is_best else '')
