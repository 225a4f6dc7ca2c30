"""The tables of the board: one for each corpus of text, one of what is recalled, one of tasks."""

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from posenc_jax.reporting.board import lines as board_lines
from posenc_jax.reporting.board.lines import FAR, ROPE, Line
from posenc_jax.reporting.board.recall import recall_tables
from posenc_jax.reporting.board.smallest import (
  SMALLEST_BETWEEN,
  SMALLEST_SHOWN,
  fewest_text,
  smallest_line,
  smallest_marked,
  smallest_shown,
  smallest_text,
)
from posenc_jax.reporting.captions import examples_scored, join_unique
from posenc_jax.reporting.comparisons.difference_tables import cell
from posenc_jax.reporting.metrics import DASH, MARGIN, SLACK
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.series import multiple_of
from posenc_jax.reporting.table import Cell, RowGroup, Table
from posenc_jax.reporting.tasks import learned
from posenc_jax.reporting.tasks.chance import CHANCE, chance_scores
from posenc_jax.rows import clusters

UNSTABLE = '~'
signed_bits = '{:+.3f}'.format
HEADER = ('parameters', 'step', 'memory', 'bits at L')
# What the columns of text say, below the table; {alike}: which documents are taken as one.
LEGEND = (
  f'encoding: those that hold to {FAR} L come first, by bits at L, then the others likewise, then '
  f'references. "{SMALLEST_SHOWN}": at L the smallest difference from {ROPE} that these seeds mark '
  'in four of five cases, the median over lines; past L the smallest change whose interval leaves '
  f'out 0 as often, the median over those lines that hold to {FAR} L and are not marked =.',
  'verdict: by a fixed rule for each line alone, of the seeds that it has. "Uses text past L": '
  f'every seed is better at {FAR} L than at L, and that gain, the difference from the placebo '
  f'("{FAR} L, other text") and that from the own score at {FAR} L with attention windowed at L '
  f'("{FAR} L, window of L") have intervals below 0. "Holds to": as in the column of that name. '
  f'"Fails by": the first length at which the interval of the change from L lies above +{SLACK:g}, '
  'or the score of a seed is not finite. "Holds with a window of L", of lines that do not hold to '
  'the longest length: with attention windowed at L that interval ends at '
  f'+{SLACK:g} or below at the longest length, and no seed is more than {SLACK:g} bits worse than '
  'at L at any length past it; "fails with a window of L": at the longest length it lies above '
  f'+{SLACK:g}. {UNSTABLE}: the verdict would be another with one seed fewer, or with intervals '
  f'moved by {board_lines.MOVED:g} of their width, as other resamples might; or there is one seed.',
  f'parameters: those of the whole model, relative to {ROPE}; rows for later keys, which a causal '
  "model never reads, count, too: about half of the rows of deberta's and shaw's tables.",
  'step, memory: time of a training step, and its temporary memory as XLA counts it, without '
  f'parameters, moments and batch, relative to {ROPE} of the same folder; time as '
  'scripts/step_times.py has measured it, line after line on one machine, or without that as each '
  'training took it where it ran; memory of trainings of one seed on one device alone.',
  f'bits at L: its mark compares with {ROPE}. Marks, here and in other columns, are about '
  f'other seeds: * better, † worse, = within {MARGIN:g}.',
  'at n L: difference from the own score at L; in brackets the 95 % interval over '
  'documents{alike}. Its mark compares with the own score, too.',
  'window of L: that difference with attention windowed at L.',
  f'{FAR} L, other text: the score at {FAR} L minus that where tokens farther back than L from the '
  "first target are another document's, the placebo, which may do harm of its own.",
  f'{FAR} L, window of L: the score at {FAR} L minus that at the same length with attention '
  'windowed at L, which may do harm of its own, too.',
  f'{FAR} L, {ROPE} with window: the score at {FAR} L minus that of {ROPE} there with attention '
  'windowed at L, what any model of it has for nothing. Its mark compares these two.',
  f'holds to: the largest length up to which, at every length, no seed is more than {SLACK:g} '
  f'bits worse than at L and the interval of the change ends at +{SLACK:g} or below; ≥: no longer '
  'one was evaluated.',
  'seeds: how many the line has.',
)
# What they say of the tables of further corpora.
AS_ABOVE = ('Columns are those of the first table.',)


def tables(
  rows: Iterable[dict],
  planned: Sequence[Sequence[str]],
  costs: Iterable[dict],
  references: Collection[str] = (),
) -> tuple[list[Table], dict[str, list[Line]]]:
  """All tables of the board, and the lines of each corpus. Raises UserError where no corpus has
  rows of `lines.PROTOCOL`.

  Args:
    planned: the runs that there should be, of each study.
    references: labels of lines that are there to compare others with.
  """
  rows, costs = list(rows), list(costs)
  made, lines_of = [], {}
  legend = [note.replace('{alike}', clusters.taken_as_one(_alike(rows))) for note in LEGEND]
  for corpus in board_lines.corpora(rows):
    runs = _runs_of_studies(planned, board_lines.of_corpus(rows, corpus), rows)
    notes = []
    lines_of[corpus] = board_lines.lines(rows, runs, costs, corpus, references, notes)
    notes = [*score_notes.of_missing(runs, rows), *notes, *legend]
    made.append(text_table(rows, lines_of[corpus], corpus, notes))
    legend = AS_ABOVE
  # a line of several corpora stands where it does in the first table
  order = list(dict.fromkeys(line.name for of_one in lines_of.values() for line in of_one))
  return made + recall_tables(rows, costs, order) + task_tables(rows, planned, order), lines_of


def _alike(rows: list[dict]) -> list[str]:
  """The `clusters.kinds_of` all documents of text."""
  of_text = [row for row in rows if row['protocol'] == board_lines.PROTOCOL]
  return clusters.kinds_of(
    {(row['corpus'], row['document']) for row in of_text if row['document'] is not None}
  )


def _runs_of_studies(
  planned: Sequence[Sequence[str]], rows: list[dict], every_row: list[dict]
) -> list[str]:
  """The runs of the studies that have some of these rows, and of those that have no row at all."""
  here, anywhere = ({row['run'] for row in some} for some in (rows, every_row))
  studies = [runs for runs in planned if here & {*runs} or not anywhere & {*runs}]
  return list(dict.fromkeys(run for runs in studies for run in runs))


def text_table(rows: list[dict], of_corpus: list[Line], corpus: str, notes: Sequence[str]) -> Table:
  """The board of one corpus of text; `of_corpus`: its lines, `notes`: what stands below it."""
  of_text = board_lines.of_corpus(rows, corpus)
  L = board_lines.usual_length(of_text)
  past = sorted({length for line in of_corpus for length in line.changes})
  rows_of = defaultdict(list)
  for row in of_text:
    rows_of[row['label']].append(row)
  body, unstable = [], []
  for line in of_corpus:
    verdict = line.verdict
    read = [row for label in dict.fromkeys((ROPE, line.label)) for row in rows_of[label]]
    others = board_lines.other_verdicts(line, read, corpus, L)
    if others:
      verdict = f'{UNSTABLE} {verdict}'
    if others and len(line.seeds) > 1:
      unstable.append(f'{line.name} would be: {_by_verdict(others)}')
    body.append(list(_cells(line, past, verdict)))
  header = [
    'encoding',
    'verdict',
    *HEADER,
    *(f'at {multiple_of(length, L)}' for length in past),
    f'window of L, at {multiple_of(past[-1], L)}' if past else 'window of L',
    f'{FAR} L, other text',
    f'{FAR} L, window of L',
    f'{FAR} L, {ROPE} with window',
    'holds to',
    'seeds',
  ]
  documents = len({row['document'] for row in of_text if _is_as_planned(row)} - {None})
  caption = (
    f'{corpus}: bits per byte of the same targets in {documents} documents at every length, mean ± '
    f'standard deviation over seeds; L = {L}. Below: what is missing, then what the columns say; '
    'what holds at this scale need not hold at another.'
  )
  body += _smallest_cells(of_corpus, past)
  return Table(f'Board, {corpus}', caption, header, [RowGroup('', body)], [*unstable, *notes])


def _by_verdict(others: dict[str, str]) -> str:
  """The other verdicts of a line in words, each with all that leads to it."""
  causes = {}
  for what, verdict in others.items():
    causes.setdefault(verdict, []).append(what)
  return '. '.join(f'{", ".join(whats)}: {verdict}' for verdict, whats in causes.items())


def _is_as_planned(row: dict) -> bool:
  """Whether a row is of no control, and of no other evaluation than that of the run's config."""
  changed = row['overrides'] or {}
  return row['control'] is None and not any(field.startswith('eval.') for field in changed)


def _cells(line: Line, past: list[int], verdict: str):
  yield Cell(line.name)
  yield Cell(verdict)
  yield Cell(DASH if line.cost.parameters is None else f'{line.cost.parameters - 1:+.1%}')
  for ratio in (line.cost.step, line.cost.memory):
    yield Cell(DASH if ratio is None else f'{ratio:.2f}')
  spread = f' ± {statistics.stdev(line.own):.3f}' if len(line.own) > 1 else ''
  mark = line.at_L.mark if line.at_L else ''
  yield Cell(DASH if line.mean is None else f'{line.mean:.3f}{spread}', mark=mark)
  for length in past:
    yield cell(line.changes.get(length), signed_bits)
  # The head of the column names the longest length of all lines.
  yield cell(line.windowed if past and line.longest == past[-1] else None, signed_bits)
  yield cell(line.beyond_shuffled, signed_bits)
  yield cell(line.beyond_window, signed_bits)
  yield cell(line.beyond_default, signed_bits)
  if line.holds_to is None or line.is_reference:
    yield Cell(DASH)
  else:
    at_least = '≥ ' if line.is_longest else ''
    yield Cell(f'{at_least}{multiple_of(line.holds_to, line.train_length)}')
  yield Cell(str(len(line.seeds)))


def _smallest_cells(of_corpus: list[Line], past: list[int]) -> list[list[Cell]]:
  """The line with the smallest difference that each column tells from 0, if seeds mark any at L.

  Past L it is that of documents, by which verdicts go there, and of lines that hold to FAR: those
  that fail have wide intervals, and nobody weighs them. Of seeds single lines have a few degrees of
  freedom each, and a median of that says little.
  """
  marked = smallest_marked(of_corpus)
  if marked is None:
    return []
  longest = past[-1] if past else None
  holding = [line for line in of_corpus if line.holds_far and not line.is_reference]
  columns = [
    *([line.changes.get(length) for line in holding] for length in past),
    [line.windowed for line in holding if line.longest == longest],
    [line.beyond_shuffled for line in holding],
    [line.beyond_window for line in holding],
    [line.beyond_default for line in holding],
  ]
  smallest = [marked, *map(smallest_shown, columns)]
  texts = [DASH if some is None else f'{some:.3f}' for some in smallest]
  return smallest_line(['', *[DASH] * 3, *texts, '', ''])


class _Column(NamedTuple):
  """A column of the table of tasks: {line: its text}, and what stands below the lines."""

  name: str
  texts: dict[str, str]
  guessing: str
  smallest: str


def task_tables(
  rows: list[dict], planned: Sequence[Sequence[str]] = (), order: Sequence[str] = ()
) -> list[Table]:
  """The table of tasks, in a list; [] of rows without any.

  Args:
    planned: as for `tables`.
    order: names of lines, which stand so; others follow.
  """
  rows = learned.mark(rows)
  of_tasks = [row for row in rows if row['metric'] == learned.ACCURACY and row['control'] is None]
  if not of_tasks:
    return []
  columns, notes = [], []
  for task in sorted({row['protocol'] for row in of_tasks}):
    of_task = [row for row in of_tasks if row['protocol'] == task]
    for scores in collect(of_task, (), [task], learned.ACCURACY):
      L = statistics.mode(row['train_length'] for row in scores.exemplar_row.values())
      corpora = join_unique(row['corpus'] for row in of_task)
      known = {line: learned.known_seeds(_rows_of(scores, line)) for line in scores.lines}
      more = examples_scored(scores), learned.close_seeds(known)
      more += tuple(learned.notes_of_other_tasks(known))
      notes.append('; '.join(filter(None, (f'{task}: {corpora}, L = {L}', *more))))
      columns += _task_columns(scores, L, chance_scores(rows, scores))
  rank = {name: place for place, name in enumerate(order)}
  lines = dict.fromkeys(line for column in columns for line in column.texts)
  body = [
    [Cell(line), *(Cell(column.texts.get(line, DASH)) for column in columns)]
    for line in sorted(lines, key=lambda line: rank.get(line, len(rank)))
  ]
  if any(column.guessing != DASH for column in columns):
    body.append([*map(Cell, (CHANCE, *(column.guessing for column in columns)))])
  if smallest := smallest_line([column.smallest for column in columns]):
    body += smallest
    notes.append(SMALLEST_BETWEEN)
  bounds = defaultdict(set)
  for row in rows:
    if row['learned'] is not None and not row['learned'].corpus:  # of another, by its own rows
      bounds[f'{row["learned"].bound:.3f}'].add(row['protocol'])
  caption = (
    'Tasks: how many seeds have learned one at L, and the share of answers right past it, mean ± '
    'standard deviation over those that have.'
  )
  if bounds:
    said = '; '.join(f'{bound} ({join_unique(bounds[bound])})' for bound in sorted(bounds))
    caption += (
      ' A seed has learned one where its share of answers right at its training length exceeds '
      f'{said}. A dash: no score, or no length past its own training length.'
    )
  notes += score_notes.of_missing(_runs_of_studies(planned, of_tasks, rows), rows)
  header = ['encoding', *(column.name for column in columns)]
  return [Table('Tasks', caption, header, [RowGroup('', body)], notes)]


def _task_columns(scores: Scores, L: int, guessing: dict[int, float | None]) -> list[_Column]:
  """The columns of one task: who has learned it, and a column for each length past L.

  `guessing`: {length: the share of answers that guessing gets right}.
  """
  task, form = scores.protocol, scores.metric.form
  judged = {line: _judged_seeds(scores, line) for line in scores.lines}
  judged = {line: seeds for line, seeds in judged.items() if seeds}
  learned_by = {line: seeds - scores.unlearned[line].keys() for line, seeds in judged.items()}
  counts = {line: f'{len(learned_by[line])} of {len(seeds)}' for line, seeds in judged.items()}
  fewest = fewest_text(map(len, judged.values()))
  columns = [_Column(f'{task}, learned', counts, DASH, fewest)]
  for length in (length for length in scores.columns if length > L):
    past = {
      line: scores.seed_scores(line, length)
      for line in scores.lines
      if length > scores.exemplar_row[line]['train_length']
    }
    columns.append(
      _Column(
        f'{task} at {multiple_of(length, L)}',
        {line: scores.metric.text(values) for line, values in past.items()},
        DASH if guessing.get(length) is None else form.format(guessing[length]),
        smallest_text(past.values(), form),
      )
    )
  return columns


def _judged_seeds(scores: Scores, line: str) -> set[int]:
  """The seeds of a line of which it is known whether they have learned: at L of the task, or of
  that of their training.
  """
  return {*learned.known_seeds(_rows_of(scores, line))}


def _rows_of(scores: Scores, line: str) -> list[dict]:
  """The rows of the scores of a line."""
  places = ((seed, column) for seed in scores.seeds for column in scores.columns)
  return [row for place in places for row in scores.by_seed[line, *place].rows]
