"""What a table is written as: Markdown, LaTeX, comma-separated values, and a table for the
terminal.
"""

import csv
import re
from pathlib import Path

import rich.box
import rich.console
import rich.table
import rich.text
import tabulate

from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Field, Table


def write(tables: list[Table], out: str | Path) -> None:
  """Writes `table.md`, `table.tex` and `table.csv` into the folder `out`."""
  out = Path(out)
  (out / 'table.md').write_text('\n'.join(map(markdown, tables)), encoding='utf-8')
  (out / 'table.tex').write_text('\n'.join(map(latex, tables)), encoding='utf-8')
  with open(out / 'table.csv', 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(csv_lines(tables))


def markdown(table: Table) -> str:
  """A section: caption, a table for each block, notes and, where there are several seeds, the score
  of every seed.
  """

  def pipes(header, lines):
    align = ['left', *['right'] * (len(header) - 1)]
    return tabulate.tabulate(lines, header, tablefmt='pipe', disable_numparse=True, colalign=align)

  def style(field):
    text = field.text.replace('|', r'\|')
    return (f'**{text}**' if field.is_best else text) + field.mark.replace('*', r'\*')

  parts = [f'## {table.title}', table.caption]
  for block in table.blocks:
    parts += [f'*{block.name}*'] if block.name else []
    parts.append(pipes(table.header, [list(map(style, line)) for line in block.lines]))
  if table.notes:
    parts.append('\n'.join(f'- {note}' for note in table.notes))
  for title, header, lines in table.every:
    parts += [title, pipes(header, [[text.replace('|', r'\|') for text in line] for line in lines])]
  return '\n\n'.join(parts) + '\n'


LATEX = {c: f'\\{c}' for c in '&%$#_{}'} | {
  '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$', DASH: '---',
  '†': r'\textsuperscript{\textdagger}', '*': r'\textsuperscript{*}', '[': '{[}', ']': '{]}', '<': '$<$', '>': '$>$',
}  # fmt: skip


def latex(table: Table) -> str:
  """A `table` environment; the document needs `booktabs`."""

  def style(field):
    text, mark = (''.join(LATEX.get(c, c) for c in some) for some in (field.text, field.mark))
    text = re.sub(r'(?<!\w)-(?=\d)', '$-$', text)
    # A mark without width, so that digits stand below digits.
    return (f'\\textbf{{{text}}}' if field.is_best else text) + (mark and f'\\rlap{{{mark}}}')

  row = lambda fields: ' & '.join(map(style, fields)) + r' \\'
  width, body = len(table.header), []
  for block in table.blocks:
    body.append(r'\midrule')
    body += (
      [f'\\multicolumn{{{width}}}{{l}}{{\\emph{{{style(Field(block.name))}}}}} \\\\']
      if block.name
      else []
    )
    body += map(row, block.lines)
  lines = [
    r'\begin{table}',
    r'\centering',
    f'\\caption{{{style(Field(table.caption))}}}',
    f'\\begin{{tabular}}{{l{"r" * (width - 1)}}}',
    r'\toprule',
    row(map(Field, table.header)),
    *body,
    r'\bottomrule',
    r'\end{tabular}',
    *(f'\\par\\footnotesize {style(Field(note))}' for note in table.notes),
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


def csv_lines(tables: list[Table]) -> list[list]:
  """The tables' records under all columns that any has; the first line names the columns."""
  records = [record for table in tables for record in table.records]
  names = list(dict.fromkeys(name for record in records for name in record))
  return [names, *([record.get(name, '') for name in names] for record in records)]


def on_screen(table: Table) -> rich.console.Group:
  """For a terminal: the table, and its caption and notes below."""
  drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
  for index, name in enumerate(table.header):
    drawn.add_column(name, justify='right' if index else 'left', no_wrap=True)
  for block in table.blocks:
    if block.name:
      drawn.add_section()
      drawn.add_row(rich.text.Text(block.name, 'italic'))
    for line in block.lines:
      # an interval below its difference
      texts = (f'{f.text}{f.mark}'.replace(' [', '\n[') for f in line)
      drawn.add_row(
        *(
          rich.text.Text(t, 'bold green' if f.is_best else '')
          for t, f in zip(texts, line, strict=True)
        )
      )
  notes = [rich.text.Text(note, 'yellow') for note in table.notes]
  return rich.console.Group(
    rich.text.Text(table.title, 'bold'), drawn, rich.text.Text(table.caption, 'dim'), *notes
  )
