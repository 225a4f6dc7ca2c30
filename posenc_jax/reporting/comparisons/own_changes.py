"""What becomes of each line's own score beyond the training length, and the sentence about it."""

import dataclasses
from collections.abc import Collection

from posenc_jax.protocols import UNLIKE_LENGTHS
from posenc_jax.reporting.comparisons import effective_length
from posenc_jax.reporting.comparisons.compare import changes_from
from posenc_jax.reporting.metrics import METRICS, SHARE, SLACK
from posenc_jax.reporting.series import Curve, Series, lengths_of_most, multiple_of


def base_length(series: Series, line: str, references: Collection[str] = ()) -> int:
  """The length that a line's scores are compared with: its training length.

  A reference, which may have been trained at another length, is compared with its score at the
  training length of the other lines, if they have one.
  """
  train_lengths = train_lengths_of(series, references)
  if line in references and len(train_lengths) == 1:
    return train_lengths[0]
  return series.scores.exemplar_row[line]['train_length']


def train_lengths_of(series: Series, references: Collection[str] = ()) -> list[int]:
  """The training lengths of the lines that are no references, in order."""
  return sorted({row['train_length'] for row in _counted(series, references).values()})


def own_changes(
  series: Series, references: Collection[str] = (), plain: Series | None = None
) -> dict[str, Curve]:
  """{line: its score minus its own at the base length, against the multiple of that length}.

  So `x` of these curves is 1 or more, in base lengths, where that of a series by length is in
  tokens. Seeds are subtracted one by one. Lengths below the base length are left out, and so are
  lines that have no score there.

  Args:
    plain: the series that own scores are taken from; None: `series`. A control is compared with the
      score of the model as it is.
  """
  columns, found = series.scores.columns, {}
  for line, curve in series.curves.items():
    base = base_length(series, line, references)
    own = (plain or series).curves.get(line)
    if own is None or base not in own.x or not own.values[own.x.index(base)]:
      continue
    at_base = own.x.index(base)
    by_seed = {
      seed: [_minus(score, own.by_seed[seed][at_base]) for score in scores]
      for seed, scores in curve.by_seed.items()
      if seed in own.by_seed
    }
    learned = [seed for seed in series.scores.learned_seeds(line) if seed in by_seed]
    beyond = [i for i, length in enumerate(columns) if length >= base]
    values = [
      [by_seed[seed][i] for seed in learned if isinstance(by_seed[seed][i], float)]
      if curve.values[i]
      else []
      for i in beyond
    ]
    found[line] = Curve(
      curve.label,
      [columns[i] / base for i in beyond],
      values,
      {seed: [seed_values[i] for i in beyond] for seed, seed_values in by_seed.items()},
    )
  return found


def _minus(score: float | str, own: float | str) -> float | str:
  """The difference of two scores, or the status in the place of one."""
  statuses = [some for some in (score, own) if isinstance(some, str)]
  return statuses[0] if statuses else score - own


def go_beyond(changes: dict[str, Curve], references: Collection[str] = ()) -> bool:
  """Whether a line that is no reference has a score beyond its training length."""
  return any(
    x > 1 and mean is not None
    for line, curve in changes.items()
    if line not in references
    for x, mean in zip(curve.x, curve.mean, strict=True)
  )


def finding(series: Series, references: Collection[str] = ()) -> str:
  """A sentence on how many lines keep their score beyond L, by a fixed rule; references are not
  counted.

  It is of the lengths at which most of them were evaluated. '' where there is nothing to say:
  without scores at L and beyond, where training lengths differ, where lengths are unlike
  (`protocols.UNLIKE_LENGTHS`), and of what is neither a likelihood nor an accuracy.
  """
  if series.scores.protocol in UNLIKE_LENGTHS:
    return ''
  train_lengths = train_lengths_of(series, references)
  lengths = lengths_of_most(series, _counted(series, references))
  if len(train_lengths) != 1 or not lengths or lengths[-1] <= train_lengths[0]:
    return ''
  if series.scores.metric.is_accuracy:
    return _of_accuracies(series, references, lengths)
  return _of_bits(series, references, lengths) if series.scores.metric.denominator else ''


def _of_bits(series: Series, references: Collection[str], lengths: list[int]) -> str:
  """The sentence on bits per byte, whatever the series shows of them, of the last of `lengths`.

  A line holds by the rule of `effective_length.holds_to`; it gains if at one of the lengths the
  interval of its change lies below -SLACK. '' where no change has an interval.
  """
  scores, rows = series.scores, _counted(series, references)
  (base,) = train_lengths_of(series, references)
  changes = changes_from(dataclasses.replace(scores, notes=[]))
  intervals, holding, gaining = [], [], []
  for line in rows:
    values = effective_length.values_of_seeds(scores, line, METRICS['bpb'])
    values = {
      seed: {length: score for length, score in by_length.items() if length in (base, *lengths)}
      for seed, by_length in values.items()
    }
    at_L = {seed: by_length.get(base) for seed, by_length in values.items()}
    held = effective_length.holds_to(base, values, at_L, changes.get(line, {}))
    if held and held.length == lengths[-1]:
      holding.append(line)
    of_line = changes.get(line, {}).items()
    own = [change.interval for n, change in of_line if n in lengths and change.interval]
    intervals += own
    if any(upper < -SLACK for _, upper in own):
      gaining.append(line)
  if not intervals:
    return ''
  far, bits = multiple_of(lengths[-1], base), f'{SLACK:g} bits per byte'
  if len(rows) == 1:
    (line,) = rows
    holds = 'holds' if holding else 'is not shown to hold'
    gains = '; it gains more at some length' * len(gaining)
    return f'{line} {holds} to {far} within {bits}{gains}'
  return (
    f'Of {_number(rows)}, {_count(holding, "hold")} to {far} within {bits}; '
    f'{_count(gaining, "gain")} more at {"some" if gaining else "any"} length'
  )


def _of_accuracies(series: Series, references: Collection[str], lengths: list[int]) -> str:
  """The sentence on how many lines keep SHARE of their accuracy at L up to the last of `lengths`.

  A line does by the rule of the table of effective lengths: with every seed that has learned. One
  that is no better than guessing at L has nothing to keep.
  """
  scores, rows = series.scores, _counted(series, references)
  (base,) = train_lengths_of(series, references)
  if base not in scores.columns:
    return ''
  chance, at_L = series.chance.get(base, 0), scores.columns.index(base)
  means = {line: series.curves[line].mean[at_L] for line in rows}
  knowing = [line for line, mean in means.items() if mean is not None and mean > chance]
  keeping = []
  for line in knowing:
    of_seeds = effective_length.of_seeds(scores, line, chance)
    kept = effective_length.summary(of_seeds)
    if kept is not None and kept.length >= lengths[-1]:
      keeping.append(line)
  share = f'{SHARE:.0%} of {"its" if len(keeping) < 2 else "their"}'.replace('%', ' %')
  known = '' if len(knowing) == len(rows) else f'{_count(knowing, "learn")} it and '
  learned = ' that has learned' * any(scores.unlearned[line] for line in rows)
  seeds = f' with every seed{learned}' * (len(scores.seeds) > 1)
  return (
    f'{scores.title}: of {_number(rows)}, {known}{_count(keeping, "keep")} {share} '
    f'{series.y_title} at L up to {multiple_of(lengths[-1], base)}{seeds}'
  )


def _counted(series: Series, references: Collection[str]) -> dict[str, dict]:
  """{line: a row of it} of the lines that are no references."""
  rows = series.scores.exemplar_row
  return {line: row for line, row in rows.items() if line not in references}


def _number(rows: dict[str, dict]) -> str:
  """'9 encodings', or '9 lines' where an encoding has several."""
  are_encodings = len({row['encoding'] for row in rows.values()}) == len(rows)
  return f'{len(rows)} {"encodings" if are_encodings else "lines"}'


def _count(lines: list[str], verb: str) -> str:
  """'none stays', '1 stays', '2 stay'."""
  return f'{len(lines) or "none"} {verb}{"s" if len(lines) < 2 else ""}'
