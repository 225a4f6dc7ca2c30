"""A table as it is printed: caption, groups of lines, notes. Forms make it."""

import dataclasses
import itertools
from collections import defaultdict
from typing import NamedTuple

from posenc_jax.protocols import CHOSEN_BY_MODEL
from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.comparisons.samples import sample
from posenc_jax.reporting.comparisons.significance import ROUNDING
from posenc_jax.reporting.metrics import DASH, LIKELIHOODS, METRICS
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.rows import clusters
from posenc_jax.rows.overrides import EVALUATOR

# Fields that forms give rows whose column is no length: the bytes back to what decides a character;
# the depth in the text, in per cent.
PLACES = DISTANCE, DEPTH = 'distance', 'depth_percent'


class _Text(int):
  """The column of the text between names: it stands before those of distances within names."""

  def __str__(self) -> str:
    return 'text'


TEXT = _Text(-1)


class Cell(NamedTuple):
  text: str
  is_best: bool = False
  mark: str = ''  # of posenc_jax.reporting.comparisons.contrast


class RowGroup(NamedTuple):
  """Lines of a table under a heading, which is '' where there is one group."""

  name: str
  lines: list[list[Cell]]


@dataclasses.dataclass
class Table:
  """A table in the form of a paper.

  Attributes:
    per_seed: tables of each seed's scores, for Markdown and the HTML page: (title, header, lines).
      [] for one seed. A seed that a line has no rows of stands in a note alone.
    is_scored: whether it shows scores of the runs here, so that its caption names their scale.
    records: one dict a line for a file of comma-separated values, of any columns.
  """

  title: str
  caption: str
  header: list[str]
  groups: list[RowGroup]
  notes: list[str] = dataclasses.field(default_factory=list)
  per_seed: list[tuple[str, list[str], list[list[str]]]] = dataclasses.field(default_factory=list)
  is_scored: bool = True
  records: list[dict] = dataclasses.field(default_factory=list)


def from_scores(
  scores: Scores,
  kinds: dict[object, list[list[str]]],
  title: str,
  corner: str,
  groups: list[RowGroup],
  sentences: str = '',
) -> Table:
  """A table of one `Scores`: lines down, its columns across.

  Args:
    kinds: `kinds_of` the scores.
    corner: the heading of the column with the names of lines.
    sentences: what the caption says after what was scored and what is bold.
  """
  return Table(
    f'{title}, {scores.name}',
    caption(scores) + _bold_sentence(scores, kinds) + _error_sentence(scores) + sentences,
    [corner, *header(scores)],
    groups,
    scores.notes,
    per_seed=per_seed_tables(scores),
    records=records(scores),
  )


def _bold_sentence(scores: Scores, kinds: dict[object, list[list[str]]]) -> str:
  """The sentence that says what is bold, with a space before it, or ''."""
  if scores.metric.best is None:
    return ''
  has_several = any(len(some) > 1 for some in kinds.values())
  among = ', among those that score the same tokens,' * has_several
  return f' The best of each column{among} is bold.'


def _error_sentence(scores: Scores) -> str:
  """The sentence that says what stands in parentheses, with a space before it, or ''."""
  if not any(score.documents > 1 for score in scores.by_seed.values()):
    return ''
  alike = clusters.taken_as_one(scores.alike)
  unknown = '; a dash where all have the same share right' * scores.metric.is_accuracy
  return f' In parentheses: the standard error over documents{alike}{unknown}.'


def header(scores: Scores) -> list[str]:
  """The names of columns: '128 (L)', '256', ...; (L) is the training length if lines have one. A
  depth has no length.
  """
  of_depths = any(DEPTH in row for row in scores.exemplar_row.values())
  return [
    f'{column} (L)' if [column] == scores.train_lengths and not of_depths else str(column)
    for column in scores.columns
  ]


def cells(scores: Scores, kinds: dict[object, list[list[str]]]) -> list[list[Cell]]:
  """The cells of each line, the best of a column bold: of lines that score the same tokens, each
  kind of `kinds_of` apart; then one that is alone of its kind is no best.
  """
  columns = []
  for column in scores.columns:
    values = {line: scores.seed_scores(line, column) for line in scores.lines}
    bests = set()
    for kind in kinds[column]:
      if len(kind) > 1 or len(kinds[column]) == 1:
        are_best = scores.metric.bests([values[line] for line in kind])
        bests |= set(itertools.compress(kind, are_best))
    columns.append(
      [
        Cell(scores.metric.text(some) + _document_error(scores, line, column), line in bests)
        for line, some in values.items()
      ]
    )
  return [list(line) for line in zip(*columns, strict=True)]


def kinds_of(scores: Scores) -> dict[object, list[list[str]]]:
  """{column: the lines, those together that scored the same tokens there}; [] of a metric without a
  best.
  """
  has_best = scores.metric.best is not None
  texts = scores.by_tokens
  return {column: _kinds(scores, column, texts) if has_best else [] for column in scores.columns}


def _kinds(scores: Scores, column, texts: list[list[str]]) -> list[list[str]]:
  """The lines, those together that scored the same tokens in a column, as comparisons ask it: of
  likelihoods by the bytes that these spell, too. One without a score there is of the kind of the
  others on its text, if these are of one that is not of a line alone. `texts`: those of
  `Scores.by_tokens`.
  """
  metrics = {scores.metric, METRICS['bpb']} if scores.metric.denominator else {scores.metric}
  found, unscored = defaultdict(list), defaultdict(list)
  text_of = {line: number for number, lines in enumerate(texts) for line in lines}
  for line, row in scores.exemplar_row.items():
    text = text_of[line]
    if not scores.seed_scores(line, column):
      unscored[text].append(line)
      continue
    samples = [sample(scores, line, column, metric) for metric in metrics]
    has_own = scores.protocol in CHOSEN_BY_MODEL and EVALUATOR not in (row['overrides'] or {})
    # tokens that a model chose, or that differ from seed to seed, are those of no other line
    is_alone = None in samples or has_own
    kind = line if is_alone else tuple(frozenset(some.sizes.items()) for some in samples)
    found[text, kind].append(line)
  for text, lines in unscored.items():
    kinds = [key for key in found if key[0] == text and not isinstance(key[1], str)]
    found[kinds[0] if len(kinds) == 1 else (text, '')] += lines
  return list(found.values())


def _document_error(scores: Scores, line: str, column) -> str:
  """The standard error over documents, in parentheses with a space before it, or ''; a dash in its
  place where all documents have the same share right, which tells nothing of others.
  """
  metric = scores.metric
  found = sample(scores, line, column, metric)
  error = found and found.standard_error(metric)
  if error is None:
    return ''
  is_known = error > ROUNDING or not metric.is_accuracy
  return f' ({metric.form.format(error) if is_known else DASH})'


def per_seed_tables(scores: Scores) -> list[tuple[str, list[str], list[list[str]]]]:
  """`Table.per_seed`."""
  if len(scores.seeds) < 2:
    return []
  lines = []
  for line in scores.lines:
    for seed in scores.seeds_of(line):
      of_seed = [scores.by_seed[line, seed, column] for column in scores.columns]
      values = [score.value(scores.metric) for score in of_seed]
      texts = [scores.metric.text([] if value is None else [value]) for value in values]
      lines.append([line, str(seed), *texts])
  return [('Every seed:', ['encoding', 'seed', *header(scores)], lines)]


def record_keys(scores: Scores, kind: str) -> dict:
  """The columns that every record of `scores` begins with; `kind`: what it is a record of."""
  return {'table': kind, 'protocol': scores.protocol, 'control': scores.control or ''}


def column_record(scores: Scores, line: str, column) -> dict:
  """The fields of a record that say what its column is: a length of windows, or a place there; ''
  where text has no distance.
  """
  row = scores.exemplar_row[line]
  place = {name: '' if column is TEXT else column for name in PLACES if name in row}
  return {'length': row['length'] if place else column} | place


def records(scores: Scores) -> list[dict]:
  """`Table.records`: each seed's sums and scores; where it has none, the status alone. None of a
  seed that a line has no rows of.
  """
  metric, made = scores.metric, []
  seeds_of = {line: scores.seeds_of(line) for line in scores.lines}
  for (line, seed, column), score in scores.by_seed.items():
    if seed not in seeds_of[line]:
      continue
    record = record_keys(scores, 'scores') | {'encoding': line, 'seed': seed}
    record |= column_record(scores, line, column) | {'status': score.status}
    is_learned = scores.has_learned(line, seed)
    record |= {'learned': '' if is_learned is None else is_learned}
    if metric.denominator:
      record |= {name: '' for name in LIKELIHOODS}
    else:
      record |= {'metric': metric.name, 'value': ''}
    if score.status == 'ok' and metric.denominator:
      record |= {name: score.value(METRICS[name]) for name in LIKELIHOODS}
      record |= {name: getattr(score, name) for name in ('nats', 'tokens', 'bytes', 'documents')}
    elif score.status == 'ok':
      record |= {'value': score.value(metric), 'documents': score.documents}
    made.append(record)
  return made
