"""Curves in numbers: what both renderers, matplotlib and the HTML page, draw of scores."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Collection, Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.colors import GREY, Look, looks
from posenc_jax.reporting.scores.collecting import collect_windows
from posenc_jax.reporting.scores.score import UNSEEN, Scores
from posenc_jax.reporting.tasks.chance import chance_scores
from posenc_jax.rows.row_schema import N_GRAM


@dataclasses.dataclass(frozen=True)
class Curve:
  """One line of a plot.

  Attributes:
    label: the name of its line, with the number of seeds that have learned where not all have.
    x: where the columns stand.
    values: the scores of the seeds that have learned at each x; [] where a mean would flatter, as
      in tables.
    by_seed: {seed: its score at each x, or the status in the place of a score}.
  """

  label: str
  x: list[float]
  values: list[list[float]]
  by_seed: dict[int, list[float | str]]

  @property
  def mean(self) -> list[float | None]:
    return [statistics.fmean(values) if values else None for values in self.values]

  @property
  def mean_or_status(self) -> list[float | str]:
    """The mean at each x; where there is none 'missing', if no seed has been asked, or 'failed'."""
    at_each = zip(*self.by_seed.values(), strict=True)
    return [
      ('missing' if all(some in UNSEEN for some in scores) else 'failed') if mean is None else mean
      for mean, scores in zip(self.mean, at_each, strict=True)
    ]

  @property
  def spread(self) -> list[float | None]:
    """One standard deviation over seeds; 0 of a single seed."""
    return [
      (statistics.stdev(values) if len(values) > 1 else 0.0) if values else None
      for values in self.values
    ]

  @property
  def band(self) -> list[tuple[float, float] | None]:
    """(low, high) of one standard deviation about each mean.

    A logarithmic axis has no place for 0 or less: a band that would go there ends at the lowest
    seed.
    """
    ends = []
    for mean, spread, values in zip(self.mean, self.spread, self.values, strict=True):
      if mean is None:
        ends.append(None)
      else:
        ends.append((mean - spread if spread < mean else min(values), mean + spread))
    return ends


@dataclasses.dataclass(frozen=True)
class Series:
  """The curves of one protocol under one control, by one metric.

  Attributes:
    title: of a figure that shows these curves alone.
    x_title: title of the axis along which the curves go.
    chance: {x: what guessing scores}.
  """

  scores: Scores
  title: str
  x_title: str
  curves: dict[str, Curve]
  chance: dict[float, float] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """The name of its scores: 'copy, exact match'."""
    return self.scores.name

  @property
  def y_title(self) -> str:
    return self.scores.metric.title.lower()


def references_of(series: Series, labels: Collection[str] = ()) -> set[str]:
  """The lines that are there to compare others with: n-grams, and those of these labels.

  None where that would be all lines.
  """
  rows = series.scores.exemplar_row
  found = {
    line for line, row in rows.items() if row['encoding'] == N_GRAM or row['label'] in labels
  }
  return found if len(found) < len(rows) else set()


def lengths_of_most(series: Series, lines: Collection[str]) -> list[int]:
  """The lengths at which more than half of these lines were evaluated, whatever came of it."""
  scores = series.scores
  is_evaluated = lambda line, length: any(
    scores.by_seed[line, seed, length].status not in UNSEEN for seed in scores.seeds
  )
  return [
    length
    for length in scores.columns
    if 2 * sum(is_evaluated(line, length) for line in lines) > len(lines)
  ]


def looks_of(shown: Iterable[Series], labels: Collection[str] = ()) -> dict[str, Look]:
  """The look of every line of these series; references, as `references_of` has them, are grey."""
  label_of, grey = {}, set()
  for series in shown:
    label_of |= {line: row['label'] for line, row in series.scores.exemplar_row.items()}
    grey |= references_of(series, labels)
  return {
    line: look._replace(color=GREY) if line in grey else look
    for line, look in looks(label_of).items()
  }


def multiple_of(length: float, train_length: float = 1) -> str:
  """The length in training lengths: 'L', '0.75 L', '32 L'."""
  number = f'{round(length / train_length, 2):g}'
  return 'L' if number == '1' else f'{number} L'


def length_series(scores: Scores, rows: Iterable[dict]) -> Series:
  """Score against evaluation length; `rows` may hold what guessing scores."""
  chance = chance_scores(rows, scores)
  return Series(
    scores,
    f'Extrapolation, {scores.title}',
    'evaluation length (tokens)',
    _curves(scores, scores.columns),
    {length: value for length, value in chance.items() if value is not None},
  )


def position_series(
  rows: Iterable[dict],
  runs: Iterable[str],
  metric: str,
  length: int | None,
  labels: Collection[str] = (),
) -> list[Series]:
  """Score against the position in windows of `length` tokens, None: the longest that most runs
  have; then controls.

  A position is the geometric middle of a bin, tokens counted from 1. `labels`: as for
  `collecting.collect`.
  """
  found, length = _by_position(rows, runs, 'by_position', metric, length, labels)
  made = []
  for scores in found:
    ends = [*scores.columns[1:], length]
    middles = [
      math.sqrt((first + 1) * end) for first, end in zip(scores.columns, ends, strict=True)
    ]
    made.append(
      Series(
        scores,
        f'Loss by position in windows of {length} tokens',
        'position in the window, from 1',
        _curves(scores, middles),
      )
    )
  return made


def gradient_series(
  rows: Iterable[dict], runs: Iterable[str], length: int | None, labels: Collection[str] = ()
) -> Series:
  """Share of the gradient that the nearest x tokens have, for seeds that have all distances."""
  found, length = _by_position(rows, runs, 'receptive_field', 'gradient', length, labels)
  scores = found[0]
  ends = [*scores.columns[1:], length - 1]  # of bins; the first of the window's inputs is BOS
  curves = {}
  for line in scores.lines:
    by_seed = {}
    for seed in scores.seeds:
      shares = [scores.by_seed[line, seed, column] for column in scores.columns]
      if all(share.status == 'ok' for share in shares):
        values = [share.value(scores.metric) for share in shares]
        by_seed[seed] = list(itertools.accumulate(values))
    values = list(map(list, zip(*by_seed.values(), strict=True))) or [[] for _ in ends]
    curves[line] = Curve(line, ends, values, by_seed)
  return Series(scores, 'Empirical receptive field', 'nearest tokens', curves)


def _curves(scores: Scores, x: list[float]) -> dict[str, Curve]:
  curves = {}
  for line in scores.lines:
    by_seed = {}
    for seed in scores.seeds:
      seed_scores = [scores.by_seed[line, seed, column] for column in scores.columns]
      values = [score.value(scores.metric) for score in seed_scores]
      by_seed[seed] = [
        score.status if value is None else value
        for score, value in zip(seed_scores, values, strict=True)
      ]
    values = [scores.seed_scores(line, column) for column in scores.columns]
    curves[line] = Curve(scores.label(line), x, values, by_seed)
  return curves


def _by_position(
  rows: Iterable[dict],
  runs: Iterable[str],
  protocol: str,
  metric: str,
  length: int | None,
  labels: Collection[str],
) -> tuple[list[Scores], int]:
  """The scores by position in windows of one length, and that length."""
  rows = [row for row in rows if row['protocol'] == protocol and row['position'] is not None]
  lengths = sorted({row['length'] for row in rows})
  if not rows:
    allowed = f'a study with {protocol} in eval.protocols'
    raise UserError(f'figure: no rows of {protocol}; allowed: {allowed}')
  if length is not None and length not in lengths:
    raise UserError(f'figure: no rows of {length} tokens; allowed: {", ".join(map(str, lengths))}')
  return collect_windows(rows, runs, protocol, metric, length, lambda row: row['position'], labels)
