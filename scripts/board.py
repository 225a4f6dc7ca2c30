"""Makes the board from the rows of folders: results/BOARD.md, results/board.html and its figure.

python scripts/board.py results/board results/board_code results/board_tasks
python scripts/board.py results/board runs/mine --out=runs/board

Of several folders, such as the kept results and a study of your own, the rows stand side by side.
Runs of one name whose configs differ are told apart by their folder.
Lines that figures of a study name as references are references here, too, and get no verdict.
--out: the folder to write to, by default the one that the first folder is in. Nothing in the
folders is executed.
"""

import os
import shlex
import sys
from pathlib import Path
from urllib.parse import quote

from posenc_jax import cli, storage
from posenc_jax.errors import UserError
from posenc_jax.reporting import costs, places
from posenc_jax.reporting.board import lines, page, pareto, tables
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table_writers import markdown_link
from posenc_jax.rows import sessions

FIGURE = 'board-pareto'


def main(argv):
  folders = []
  flags, _ = cli.parse_args(argv, {'out': ''}, folders, takes_overrides=False)
  if not folders:
    allowed = 'folders of rows, such as results/board, and --out=DIR'
    raise UserError(f'{" ".join(argv) or "no arguments"}; allowed: {allowed}')
  out = Path(flags.out) if flags.out else _default_out(folders)
  cli.check_folder(f'--out={out}', out)
  texts, figure = make(folders, out)
  cli.make_folder(out)
  if figure:
    figures.save(figure, out / FIGURE)
  for name, text in texts.items():
    storage.atomic_write(out / name, text)
    print(out / name)


def make(folders: list[str], out: Path):
  """The texts of the board of these folders by file name, as they stand in `out`; its figure, None
  where there is nothing to draw.
  """
  read = places.read(folders)
  for file, why in (wrong for place in read for wrong in place.wrong.items()):
    print(f'{file} is left out: {why}', file=sys.stderr)
  reports = [place.report for place in read]
  every_row = [row for place in read for row in place.renamed(place.rows)]
  present = {row['run'] for row in every_row}
  of_text = [row for x in lines.corpora(every_row) for row in lines.of_corpus(every_row, x)]
  usual, spent = lines.usual_length(of_text), {}
  for place in read:
    of_place = costs.with_relative_steps(costs.read(place.path), place.path, (lines.ROPE, usual))
    for row in place.renamed(of_place):
      spent.setdefault(row['run'], row)
  worked = [row for place in read for row in place.renamed(sessions.of_folder(place.path))]
  planned = [place.planned for place in read]
  references = {label for report in reports for label in report.references}
  made, lines_of = tables.tables(every_row, planned, spent.values(), references)
  corpus, of_corpus = next(iter(lines_of.items()))
  figure = pareto.draw(of_corpus, corpus)
  studies = list(dict.fromkeys(report.study for report in reports if report.study))
  link = lambda name, path: markdown_link(name, quote(os.path.relpath(path, out)))
  elsewhere = [f'--out={out}'] * (out != _default_out(folders))
  facts = {
    'about': ' '.join(dict.fromkeys(report.about for report in reports if report.about)),
    'command': shlex.join(['python', 'scripts/board.py', *folders, *elsewhere]),
    'folders': shlex.join(folders),
    'folder_links': ', '.join(link(folder, folder) for folder in folders),
    'runs': str(len(present)),
    'sessions': sessions.sentence(worked, present),
    'sha256': page.sha256(row for place in read for row in place.rows),
    'studies': ', '.join(studies) or 'none',
    'study_links': ', '.join(link(path, storage.REPOSITORY / path) for path in studies) or 'none',
  }
  forms = {'BOARD.md': page.in_markdown, 'board.html': page.in_html}
  picture = f'{FIGURE}.png' if figure else None
  return {name: form(made, picture, facts) for name, form in forms.items()}, figure


def _default_out(folders: list[str]) -> Path:
  return Path(folders[0]).parent


if __name__ == '__main__':
  cli.main(main)
