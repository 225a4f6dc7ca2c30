"""What becomes of each line's own score beyond the training length, and the sentence about it."""

from collections.abc import Collection

from posenc_jax.reporting.metrics import MARGIN, SHARE
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
  without scores at L and beyond, where training lengths differ, and of other scores than bits per
  byte and accuracies.
  """
  train_lengths = train_lengths_of(series, references)
  lengths = lengths_of_most(series, _counted(series, references))
  if len(train_lengths) != 1 or not lengths or lengths[-1] <= train_lengths[0]:
    return ''
  if series.scores.metric.is_accuracy:
    return _of_accuracies(series, references, lengths)
  if series.scores.metric.name != 'bpb':
    return ''
  changes = {
    line: _at(curve, {length / train_lengths[0] for length in lengths})
    for line, curve in own_changes(series, references).items()
  }
  return _of_bits(series, changes, references) if go_beyond(changes, references) else ''


def _at(curve: Curve, xs: Collection[float]) -> Curve:
  """The curve at these x alone."""
  kept = [i for i, x in enumerate(curve.x) if x in xs]
  values_at = lambda values: [values[i] for i in kept]
  by_seed = {seed: values_at(scores) for seed, scores in curve.by_seed.items()}
  return Curve(curve.label, values_at(curve.x), values_at(curve.values), by_seed)


def _of_bits(series: Series, changes: dict[str, Curve], references: Collection[str]) -> str:
  """The sentence on bits per byte.

  A line keeps its score if the mean over its seeds is at most MARGIN above its own score at L at
  every length; it gains if the mean is more than MARGIN below at one of them. A line
  without a score at all lengths does not keep it.
  """
  rows = _counted(series, references)
  farthest = max(changes[line].x[-1] for line in rows if line in changes)
  keeping, gaining = [], []
  for line in rows:
    means = changes[line].mean if line in changes else [None]
    known = [mean for mean in means if mean is not None]
    if len(known) == len(means) and changes[line].x[-1] == farthest and max(known) <= MARGIN:
      keeping.append(line)
    if known and min(known) < -MARGIN:
      gaining.append(line)
  bits = f'{MARGIN:g} bits per byte'
  if len(rows) == 1:
    most = 'at most' if keeping else 'more than'
    loses = f'{next(iter(rows))} loses {most} {bits} up to {multiple_of(farthest)}'
    return loses + '; at some length it gains more' * len(gaining)
  return (
    f'Of {_number(rows)}, {_count(keeping, "lose")} at most {bits} up to {multiple_of(farthest)}; '
    f'{_count(gaining, "gain")} more at {"some" if gaining else "any"} length'
  )


def _of_accuracies(series: Series, references: Collection[str], lengths: list[int]) -> str:
  """The sentence on how many lines keep SHARE of their accuracy at L at those of `lengths` past it.

  Means are over the seeds that have learned; a line that is no better than guessing at L has
  nothing to keep.
  """
  columns, rows = series.scores.columns, _counted(series, references)
  (base,) = train_lengths_of(series, references)
  if base not in columns:
    return ''
  beyond = [columns.index(length) for length in lengths if length > base]
  knowing, keeping = [], []
  for line in rows:
    mean = series.curves[line].mean
    own, others = mean[columns.index(base)], [mean[i] for i in beyond]
    if own is None or own <= series.chance.get(base, 0):
      continue
    knowing.append(line)
    if None not in others and min(others) >= SHARE * own:
      keeping.append(line)
  kept = f'{SHARE:.0%} of {"its" if len(keeping) < 2 else "their"}'.replace('%', ' %')
  known = '' if len(knowing) == len(rows) else f'{_count(knowing, "learn")} it and '
  return (
    f'{series.scores.title}: of {_number(rows)}, {known}{_count(keeping, "keep")} {kept} '
    f'{series.y_title} at L up to {multiple_of(lengths[-1], base)}'
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
