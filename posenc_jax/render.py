"""What a table is written as: Markdown, LaTeX, comma-separated values, and a table for the terminal."""

import csv
from collections.abc import Iterable
from pathlib import Path

import rich.box
import rich.console
import rich.table
import rich.text
import tabulate

from posenc_jax.tables import DASH, METRICS, Table

BOLD = 'The best of each column is bold.'


def write(tables: list[Table], out: str | Path) -> None:
  """Writes `table.md`, `table.tex` and `table.csv` into the folder `out`."""
  out = Path(out)
  (out / 'table.md').write_text('\n'.join(map(markdown, tables)), encoding='utf-8')
  (out / 'table.tex').write_text('\n'.join(map(latex, tables)), encoding='utf-8')
  with open(out / 'table.csv', 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(csv_lines(tables))


def markdown(table: Table) -> str:
  """A section: caption, table, notes and, where there are several seeds, the score of every seed."""

  def pipes(header, lines):
    align = ['left', *['right'] * (len(header) - 1)]
    return tabulate.tabulate(lines, header, tablefmt='pipe', disable_numparse=True, colalign=align)

  def style(text, is_best=False):
    text = text.replace('|', r'\|')
    return f'**{text}**' if is_best else text

  parts = [f'## {table.title}', f'{table.caption} {BOLD}', pipes(table.header(), table.body(style))]
  if table.notes:
    parts.append('\n'.join(f'- {note}' for note in table.notes))
  if len(table.seeds) > 1:
    each = [
      [style(line), str(seed), *(table.text(table.cells[line, seed, n].scores(table.metric)) for n in table.lengths)]
      for line in table.lines
      for seed in table.seeds
    ]
    parts += ['Every seed:', pipes(['encoding', 'seed', *table.header()[1:]], each)]
  return '\n\n'.join(parts) + '\n'


LATEX = {c: f'\\{c}' for c in '&%$#_{}'} | {
  '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$', DASH: '---',
}  # fmt: skip


def latex(table: Table) -> str:
  """A `table` environment; the document needs `booktabs`."""

  def style(text, is_best=False):
    text = ''.join(LATEX.get(c, c) for c in text)
    return f'\\textbf{{{text}}}' if is_best else text

  lines = [
    r'\begin{table}',
    r'\centering',
    f'\\caption{{{style(f"{table.caption} {BOLD}")}}}',
    f'\\begin{{tabular}}{{l{"r" * len(table.lengths)}}}',
    r'\toprule',
    ' & '.join(map(style, table.header())) + r' \\',
    r'\midrule',
    *(' & '.join(line) + r' \\' for line in table.body(style)),
    r'\bottomrule',
    r'\end{tabular}',
    *(f'\\par\\footnotesize {style(note)}' for note in table.notes),
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


def csv_lines(tables: list[Table]) -> Iterable[list]:
  """Every seed's sums and scores, also of what has none; the first line names the columns."""
  sums = ('nats', 'tokens', 'bytes', 'documents')
  yield ['protocol', 'control', 'encoding', 'seed', 'length', 'status', *METRICS, *sums]
  for table in tables:
    for (line, seed, length), cell in table.cells.items():
      ok = cell.status == 'ok'
      values = [*(cell.scores(metric)[0] for metric in METRICS), *(getattr(cell, name) for name in sums)] if ok else []
      yield [table.protocol, table.control or '', line, seed, length, cell.status, *values]


def on_screen(table: Table) -> rich.console.Group:
  """For a terminal: the table, and its caption and notes below."""
  drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
  for index, name in enumerate(table.header()):
    drawn.add_column(name, justify='right' if index else 'left', no_wrap=True)
  for line in table.body(lambda text, is_best: rich.text.Text(text, 'bold green' if is_best else '')):
    drawn.add_row(*line)
  notes = [rich.text.Text(note, 'yellow') for note in table.notes]
  return rich.console.Group(
    rich.text.Text(table.title, 'bold'), drawn, rich.text.Text(f'{table.caption} {BOLD}', 'dim'), *notes
  )
