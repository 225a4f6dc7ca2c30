"""Notes on what a table's scores lack: which runs have no rows, which lines failed where."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.rows import row_schema

MOST_NAMED = 5  # runs without rows that a note names; status says which are open


def of_missing(planned: list[str], rows: Iterable[dict], what: str = 'rows') -> list[str]:
  """The note that names the planned runs that have none of these rows, or how many they are beside
  the first, in a list; [] where all have some. `what`: the noun of such rows.
  """
  present = {row['run'] for row in rows}
  runs = [run for run in planned if run not in present]
  if len(runs) > MOST_NAMED:
    return [f'no {what} of {len(runs)} of {len(planned)} runs: {runs[0]} and others']
  if len(runs) > 1:
    return [f'no {what} of {len(runs)} runs: {"; ".join(runs)}']
  return [f'no {what} of run {run}' for run in runs]


def of_labels(labels: Iterable[str], rows: Iterable[dict]) -> list[str]:
  """Notes that name the labels that none of the rows has."""
  present = {row['label'] for row in rows}
  return [f'no rows of label {label}' for label in labels if label not in present]


def joined(found: dict[str, Scores]) -> list[str]:
  """The notes that all `Scores` have once, then the others, each under the name of its scores."""
  first, *others = found.values()
  shared = [note for note in first.notes if all(note in scores.notes for scores in others)]
  return shared + [
    f'{name}: {note}'
    for name, scores in found.items()
    for note in scores.notes
    if note not in shared
  ]


def of_statuses(scores: Scores, is_expected: Callable) -> list[str]:
  """Notes that name what has no score, and why: 'not finite: rope seed 1 at 256, 512; ...'."""
  seeds_of = defaultdict(lambda: defaultdict(list))
  for line, row in scores.exemplar_row.items():
    columns = [
      column
      for column in scores.columns
      if is_expected(row, column)
      or any(scores.by_seed[line, seed, column].status != 'missing' for seed in scores.seeds)
    ]
    is_n_gram = row['encoding'] == row_schema.N_GRAM  # counts are the same with every seed
    for seed in scores.seeds_of(line) if is_n_gram else scores.seeds:
      columns_of = defaultdict(list)
      for column in columns:
        columns_of[scores.by_seed[line, seed, column].status].append(column)
      columns_of.pop('ok', None)
      for status, where in columns_of.items():
        seeds_of[status][line, tuple(where)].append(seed)

  notes = []
  for status, places in seeds_of.items():
    lines_of = defaultdict(list)
    for (line, where), seeds in places.items():
      lines_of[where, tuple(seeds)].append(line)
    named = '; '.join(_describe(scores, place, lines) for place, lines in lines_of.items())
    notes.append(f'{row_schema.OUTCOMES.get(status, status)}: {named}')
  return notes


def _describe(scores: Scores, place: tuple, lines: list[str]) -> str:
  """'rope seed 1 at 16; t5 seed 1 at 16' of `place`: columns and seeds. Where that would name more
  lines than there are others, 'seed 1 at 16 of all lines but alibi'.
  """
  columns, seeds = place
  seed = '' if list(seeds) == scores.seeds else f' seed {join_unique(seeds)}'
  places = join_unique(map(_name, columns))
  where = seed + ('' if list(columns) == scores.columns else f' at {places}')
  others = [line for line in scores.lines if line not in lines]
  if len(lines) > MOST_NAMED and len(others) < len(lines):
    but = f' but {", ".join(map(repr, others))}' if others else ''
    return f'{where.strip()} of all lines{but}'.removeprefix(' of ')
  return '; '.join(line + where for line in lines)


def _name(column: object) -> str:
  """A length, or '512 (depth 50 %)' of a length and a depth."""
  return '{} (depth {} %)'.format(*column) if isinstance(column, tuple) else str(column)
