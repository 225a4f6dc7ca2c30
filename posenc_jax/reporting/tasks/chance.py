"""The score of guessing in a task, as the rows of a metric's `chance` say it."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable

from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.table import Cell

CHANCE = 'chance'  # the name of its line in a table


def chance_scores(rows: Iterable[dict], scores: Scores) -> dict[int, float | None]:
  """{length: score of guessing}; None where runs or corpora disagree. {} without such rows, and of
  a metric for which there are none.
  """
  if not scores.metric.chance:
    return {}
  wanted = (scores.metric.chance, scores.protocol, scores.control)
  by_length = defaultdict(lambda: defaultdict(list))
  for row in rows:
    if row['status'] == 'ok' and (row['metric'], row['protocol'], row['control']) == wanted:
      asked = row['run'], row['corpus'], row['split'], str(row['overrides'])
      by_length[row['length']][asked].append(row['value'])
  found = {}
  for length, values_of in sorted(by_length.items()):
    means = [statistics.fmean(values) for values in values_of.values()]
    found[length] = means[0] if math.isclose(min(means), max(means)) else None
  return found


def chance_lines(rows: Iterable[dict], scores: Scores) -> list[list[Cell]]:
  """The line 'chance' of a table, in a list; [] without such rows."""
  found = chance_scores(rows, scores)
  if not found:
    return []
  values = [found.get(length) for length in scores.columns]
  texts = [DASH if value is None else scores.metric.form.format(value) for value in values]
  return [[Cell(CHANCE), *map(Cell, texts)]]
