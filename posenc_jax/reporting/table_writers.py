"""Writing tables: Markdown, LaTeX, comma-separated values, and a form for the terminal."""

import csv
import io
import re
from collections.abc import Collection
from pathlib import Path

import rich.box
import rich.cells
import rich.console
import rich.constrain
import rich.table
import rich.text
import tabulate

from posenc_jax import storage
from posenc_jax.errors import visible
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, Table


def write(tables: list[Table], out: str | Path, study: str) -> None:
  """Writes `table.md`, `table.tex` and `table.csv` into `out`, each whole or not at all; labels of
  LaTeX begin with `study`.
  """
  text = io.StringIO()
  csv.writer(text).writerows(csv_lines(tables))
  storage.atomic_write(Path(out) / 'table.md', '\n'.join(map(markdown, tables)))
  labels = latex_labels([table.title for table in tables], study)
  storage.atomic_write(Path(out) / 'table.tex', '\n'.join(map(latex, tables, labels)))
  storage.atomic_write(Path(out) / 'table.csv', text.getvalue())


def markdown(table: Table) -> str:
  """A section: caption, a table for each group of lines, notes, and the scores of each seed."""
  parts = [f'## {escape_markdown(table.title)}', _paragraph(table.caption)]
  for group in table.groups:
    if group.name:
      parts.append(f'*{escape_markdown(group.name)}*')
    parts.append(_pipe_table(table.header, [list(map(_in_markdown, line)) for line in group.lines]))
  if table.notes:
    parts.append('\n'.join(f'- {_paragraph(note)}' for note in table.notes))
  for title, header, lines in table.per_seed:
    cells = [list(map(escape_markdown, line)) for line in lines]
    parts += [_paragraph(title), _pipe_table(header, cells)]
  return '\n\n'.join(parts) + '\n'


def _pipe_table(header: list[str], lines: list[list[str]]) -> str:
  header = list(map(escape_markdown, header))
  align = ['left', *['right'] * (len(header) - 1)]
  return tabulate.tabulate(lines, header, tablefmt='pipe', disable_numparse=True, colalign=align)


def _in_markdown(cell: Cell) -> str:
  text = escape_markdown(cell.text)
  return (f'**{text}**' if cell.is_best else text) + cell.mark.replace('*', r'\*')


# What Markdown, as GitHub reads it, would take for more than text; not what it leaves alone: a '_'
# within a word, a '<' or '*' between spaces, brackets that make no link.
MARKDOWN = re.compile(
  r"""
    [|`~$]                            # ends of cells, code, strikes, formulas
  | \\(?=[!-/:-@\[-`{-~]|$)           # escapes
  | (?<!\s)\* | \*(?!\s)              # emphasis
  | (?<![^\W_])_ | _(?![^\W_])
  | <(?=[A-Za-z/!?])                  # tags
  | &(?=\#?\w+;)                      # entities
  | (?<=\])[\[(:] | \[(?=\^) | !(?=\[) # links, footnotes, pictures
  | :(?=//) | (?<=www)\.              # addresses
  """,
  re.VERBOSE | re.IGNORECASE,
)
# Within the text of a link no bracket is left alone.
LINK_TEXT = re.compile(MARKDOWN.pattern + r'| [\[\]]', MARKDOWN.flags)


def escape_markdown(text: str) -> str:
  """Markdown that shows this text in one line, wherever in a paragraph but at its beginning."""
  return MARKDOWN.sub(lambda match: f'\\{match[0]}', visible(text))


def markdown_link(text: str, address: str) -> str:
  """Markdown of a link with this text to an address whose characters are those of addresses."""
  escaped = LINK_TEXT.sub(lambda match: f'\\{match[0]}', visible(text))
  return f'[{escaped}]({address})'


def _paragraph(text: str) -> str:
  """The text where a line of its own begins: it is no heading, quote or list."""
  return re.sub(r'^(\d*)(?=[#>=+.)-])', r'\1\\', escape_markdown(text).lstrip())


LATEX = {c: f'\\{c}' for c in '&%$#_{}'} | {
  '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$',
  DASH: '---', '†': r'\textsuperscript{\textdagger}', '*': r'\textsuperscript{*}', '[': '{[}',
  ']': '{]}', '<': '$<$', '>': '$>$', '|': r'\textbar{}',
  '≥': r'$\geq$',
}  # fmt: skip


SHRUNK = r'\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{'


def latex_labels(titles: list[str], study: str) -> list[str]:
  """A label for each title, 'tab:board-extrapolation-last-k', with a number where titles repeat; a
  document may have tables of several studies.
  """
  labels = []
  for title in titles:
    words = re.sub('[^a-z0-9]+', '-', f'{study} {title}'.lower()).strip('-')
    first, number = f'tab:{words}', 1
    label = first
    while label in labels:
      number += 1
      label = f'{first}-{number}'
    labels.append(label)
  return labels


def latex(table: Table, label: str) -> str:
  """A `table` environment with its title as caption, and all else that is said of it below.

  The document needs `booktabs` and `graphicx`, and where names have letters outside ASCII XeLaTeX
  or LuaLaTeX and a font that has them. A table wider than the page is made smaller.
  """
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
    f'\\caption{{{_escape_latex(table.title)}}}',
    f'\\label{{{label}}}',
    f'{SHRUNK}\\begin{{tabular}}{{l{"r" * (width - 1)}}}',
    r'\toprule',
    _latex_line(map(Cell, table.header)),
    *body,
    r'\bottomrule',
    r'\end{tabular}}',
    r'\par\smallskip',
    r'\begin{minipage}{\linewidth}',
    r'\footnotesize',
    '\n\n'.join(map(_escape_latex, (table.caption, *table.notes))),
    r'\end{minipage}',
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
  escaped = ''.join(LATEX.get(character, character) for character in visible(text))
  return re.sub(r'(?<!\w)-(?=\d)', '$-$', escaped)  # a minus is no hyphen


# How a formula begins; the last four are the same in full width, which some programs read as well.
FORMULA = ('=', '+', '-', '@', '\t', '\r', '\uff1d', '\uff0b', '\uff0d', '\uff20')


def csv_lines(tables: list[Table]) -> list[list]:
  """The records of all tables under all columns that any has; the first line names the columns."""
  records = [record for table in tables for record in table.records]
  names = list(dict.fromkeys(name for record in records for name in record))
  return [names, *([_in_csv(record.get(name, '')) for name in names] for record in records)]


def _in_csv(value: object) -> object:
  """The value of a field. A text that a spreadsheet would compute gets an apostrophe before it."""
  if not isinstance(value, str):
    return value
  return f"'{visible(value)}" if value.startswith(FORMULA) else visible(value)


LEAST_NAME = 8  # columns for the names of lines, however wide the others are
CAPTION = 140  # columns of a caption or a note on screen: longer lines are hard to follow


def on_screen(table: Table, width: int) -> rich.console.Group:
  """For a terminal of so many columns: the table, and its caption and notes below.

  Nothing is cut off: cells break at spaces, and columns that have no room beside the others stand
  below them, beside the names of the lines again.
  """
  columns = [_texts(table, index, name) for index, name in enumerate(table.header)]
  blocks = [_block(table, columns, shown, width) for shown in _blocks(columns, width)]
  notes = [rich.text.Text(visible(note), 'yellow') for note in table.notes]
  title, caption = (
    rich.text.Text(visible(text), style)
    for text, style in ((table.title, 'bold'), (table.caption, 'dim'))
  )
  narrow = lambda text: rich.constrain.Constrain(text, CAPTION)
  return rich.console.Group(narrow(title), *blocks, *map(narrow, (caption, *notes)))


def _texts(table: Table, index: int, name: str) -> list[rich.text.Text]:
  """The head of a column, and its cells; in the first column the name of a group before them."""
  texts = [rich.text.Text(visible(name))]
  for group in table.groups:
    if group.name:
      texts.append(rich.text.Text('' if index else visible(group.name), 'italic'))
    texts += [_on_screen(line[index]) for line in group.lines]
  return texts


def _on_screen(cell: Cell) -> rich.text.Text:
  text = visible(f'{cell.text}{cell.mark}')
  text = text.replace(' [', '\n[')  # an interval stands below its difference
  return rich.text.Text(text, 'bold green' if cell.is_best else '')


def _broken(text: rich.text.Text) -> rich.text.Text:
  """The text with a deviation below its mean, where both have no room in a line."""
  return rich.text.Text(text.plain.replace(' ± ', '\n± '), text.style)


def _narrowest(column: list[rich.text.Text]) -> int:
  """The width of the longest word; a deviation and its sign are one."""
  words = (word for text in column for word in re.split(r'(?<!±)\s', text.plain))
  return max(map(rich.cells.cell_len, words))


def _widest(column: list[rich.text.Text]) -> int:
  """The width of the longest line; 0 of no text."""
  lines = (line for text in column for line in text.plain.split('\n'))
  return max(map(rich.cells.cell_len, lines), default=0)


def _taken(widths: Collection[int]) -> int:
  """What columns of these widths take, with the spaces about them."""
  return sum(widths) + 3 * len(widths) + 1


def _narrowest_of_all(columns: list[list[rich.text.Text]], width: int) -> list[int]:
  """The least width of each column: its longest words, but of names no more than leaves room for
  any one of the others.
  """
  names, *others = map(_narrowest, columns)
  room = width - _taken([0, max(others, default=0)])
  return [min(names, max(room, LEAST_NAME)), *others]


def _blocks(columns: list[list[rich.text.Text]], width: int) -> list[list[int]]:
  """The columns that stand beside each other, as many as have room for their longest words: the
  first one, in every block, and those that follow those of the block before.
  """
  blocks, least = [[0]], _narrowest_of_all(columns, width)
  for index in range(1, len(columns)):
    if len(blocks[-1]) > 1 and _taken([least[i] for i in (*blocks[-1], index)]) > width:
      blocks.append([0])
    blocks[-1].append(index)
  return blocks


def _block(
  table: Table, columns: list[list[rich.text.Text]], shown: list[int], width: int
) -> rich.table.Table:
  """The table of the shown columns; if they lack room, the widest break their lines first."""
  least = _narrowest_of_all(columns, width)
  limits = [(least[index], _widest(columns[index])) for index in shown]
  for most in range(width, 0, -1):
    widths = [min(widest, max(narrowest, most)) for narrowest, widest in limits]
    if _taken(widths) <= width:
      break
  drawn, bodies = rich.table.Table(box=rich.box.SIMPLE_HEAD), []
  for index, column_width in zip(shown, widths, strict=True):
    head, *cells = columns[index]
    justify = 'right' if index else 'left'
    drawn.add_column(head, justify=justify, width=column_width, overflow='fold')
    bodies.append(cells if column_width >= _widest(cells) else list(map(_broken, cells)))
  lines = iter(zip(*bodies, strict=True))
  for group in table.groups:
    if group.name:
      drawn.add_section()
    for _ in range(bool(group.name) + len(group.lines)):
      drawn.add_row(*next(lines))
  return drawn
