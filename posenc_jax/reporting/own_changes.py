"""What becomes of each line's own score beyond the training length, and the sentence about it."""

from collections.abc import Collection

from posenc_jax.reporting.series import Curve, Series

MARGIN = 0.01  # bits per byte: a score that is nearer than this to another is as good as it
KEPT = 0.85  # of an accuracy: what is called kept (Modarressi et al. 2025, NoLiMa)


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
  rows = series.scores.exemplar_row
  return sorted({row['train_length'] for line, row in rows.items() if line not in references})


def own_changes(
  series: Series, references: Collection[str] = (), plain: Series | None = None
) -> dict[str, Curve]:
  """{line: its score minus its own at the base length, against the multiple of that length}.

  Seeds are subtracted one by one. Lengths below the base length are left out, and so are lines that
  have no score there.

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
    beyond = [i for i, length in enumerate(columns) if length >= base]
    values = [
      [of_seed[i] for of_seed in by_seed.values() if isinstance(of_seed[i], float)]
      if curve.values[i]
      else []
      for i in beyond
    ]
    found[line] = Curve(
      curve.label,
      [columns[i] / base for i in beyond],
      values,
      {seed: [of_seed[i] for i in beyond] for seed, of_seed in by_seed.items()},
    )
  return found


def _minus(score: float | str, own: float | str) -> float | str:
  """The difference of two scores, or the status in the place of one."""
  statuses = [some for some in (score, own) if isinstance(some, str)]
  return statuses[0] if statuses else score - own


def finding(series: Series, changes: dict[str, Curve], references: Collection[str] = ()) -> str:
  """A sentence on how many lines keep their score, by a fixed rule; references are not counted.

  A line stays if the mean over its seeds is at most MARGIN above its own score at L at every length
  evaluated; it gains if the mean is more than MARGIN below at one of them. A line without a score
  at all lengths does not stay.
  """
  rows = {line: row for line, row in series.scores.exemplar_row.items() if line not in references}
  farthest = max(changes[line].x[-1] for line in rows if line in changes)
  staying, gaining = [], []
  for line in rows:
    means = changes[line].mean if line in changes else [None]
    known = [mean for mean in means if mean is not None]
    if len(known) == len(means) and changes[line].x[-1] == farthest and max(known) <= MARGIN:
      staying.append(line)
    if known and min(known) < -MARGIN:
      gaining.append(line)
  bound = f'within {MARGIN:g} bits per byte of {{}} score at L up to {farthest:g} L'
  if len(rows) == 1:
    stays = 'stays' if staying else 'does not stay'
    return f'{next(iter(rows))} {stays} {bound.format("its")}' + '; it gains' * len(gaining)
  return (
    f'{_lines(rows)}, {_count(staying, "stay")} '
    f'{bound.format("its" if len(staying) < 2 else "their")}; {_count(gaining, "gain")}'
  )


def accuracy_finding(series: Series, references: Collection[str] = ()) -> str:
  """A sentence on how many lines keep KEPT of an accuracy at L at all lengths beyond it.

  Means are over the seeds that have learned; a line that is no better than guessing at L has
  nothing to keep. '' without a length beyond L, or where training lengths differ.
  """
  train_lengths = train_lengths_of(series, references)
  columns, scores = series.scores.columns, series.scores
  if len(train_lengths) != 1 or train_lengths[0] not in columns or columns[-1] == train_lengths[0]:
    return ''
  (base,) = train_lengths
  at_base = columns.index(base)
  rows = {line: row for line, row in scores.exemplar_row.items() if line not in references}
  keeping = []
  for line in rows:
    own, *others = series.curves[line].mean[at_base:]
    if own is not None and own > series.chance.get(base, 0) and None not in others:
      keeping += [line] * (min(others) >= KEPT * own)
  verb = f'{_count(keeping, "keep")} {KEPT:.0%} of {"its" if len(keeping) < 2 else "their"}'
  return (
    f'{scores.title}: {_lines(rows).lower()}, {verb.replace("%", " %")} '
    f'{series.y_title} at L up to {columns[-1] / base:g} L'
  )


def _lines(rows: dict[str, dict]) -> str:
  """'Of 9 encodings', or 'Of 9 lines' where an encoding has several."""
  are_encodings = len({row['encoding'] for row in rows.values()}) == len(rows)
  return f'Of {len(rows)} {"encodings" if are_encodings else "lines"}'


def _count(lines: list[str], verb: str) -> str:
  """'none stays', '1 stays', '2 stay'."""
  return f'{len(lines) or "none"} {verb}{"s" if len(lines) < 2 else ""}'
