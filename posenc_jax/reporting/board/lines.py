"""What the board says of each encoding on one corpus, from rows and costs, and the verdict."""

import dataclasses
import statistics
from collections.abc import Collection, Iterable, Iterator

from posenc_jax.errors import UserError
from posenc_jax.protocols import WINDOWED
from posenc_jax.reporting import costs
from posenc_jax.reporting.comparisons import effective_length
from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.comparisons.contrast import (
  BASELINE,
  BASELINE_WINDOWED,
  OWN,
  OWN_SHUFFLED,
  OWN_WINDOWED,
  Difference,
  Reference,
)
from posenc_jax.reporting.metrics import METRICS, SLACK
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.series import multiple_of
from posenc_jax.rows.row_schema import N_GRAM

PROTOCOL = 'last_k'  # the same targets at every length
FAR = 4  # training lengths of context, at which use of far context is told
MOVED = 0.01  # of an interval's width: two to three times what other resamples move its ends
NO_VERDICT = 'none'  # what is left of a line of one seed without it
ROPE = 'rope'  # the label of the line that costs and scores at L are relative to


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the board.

  Attributes:
    runs: the names of its runs.
    is_reference: whether it stands there to compare others with: an n-gram, a model that was
      trained at another length, or one that the study names as a reference.
    own: the bits a byte of each seed at L.
    at_L: their difference from ROPE.
    changes: {length: difference from the own score at L}, without intervals of n-grams and of
      models trained at another length.
    longest: the longest length that the line has rows of.
    windowed: with attention windowed at L, the difference of the score at `longest` from that at L.
    holds_windowed: True: that interval ends at SLACK or below, and with attention windowed at L no
      seed is worse by more at any length past L. False: the interval lies above SLACK. None:
      undecided.
    beyond_window: at FAR training lengths, the difference from the own score there with attention
      windowed at L.
    beyond_shuffled: likewise, from the own score where tokens more than L before the first target
      are of another document.
    beyond_default: the difference from ROPE with attention windowed at L, at FAR times the length
      that lines of the board were trained at, whatever this one was.
    holds_to: the largest length up to which, at every length, no seed is worse by more than SLACK
      than at L, and the interval of the change ends at SLACK or below. None: there is no score at
      L.
    fails_by: the shortest length at which that interval lies above SLACK, or a score of a seed is
      not finite; None: there is none.
    all_gain: whether every seed is better at FAR training lengths than at L.
  """

  name: str
  label: str
  runs: frozenset[str]
  is_reference: bool
  train_length: int
  seeds: tuple[int, ...]
  own: tuple[float, ...]
  at_L: Difference | None
  changes: dict[int, Difference]
  longest: int
  windowed: Difference | None
  holds_windowed: bool | None
  beyond_window: Difference | None
  beyond_shuffled: Difference | None
  beyond_default: Difference | None
  holds_to: int | None
  fails_by: int | None
  all_gain: bool
  cost: costs.Cost

  @property
  def mean(self) -> float | None:
    """Bits a byte at L, the mean over seeds."""
    return statistics.fmean(self.own) if self.own else None

  @property
  def is_longest(self) -> bool:
    """Whether no longer length was evaluated than the one that the line holds to."""
    return self.holds_to == self.longest

  @property
  def holds_far(self) -> bool:
    """Whether it holds to FAR training lengths."""
    return self.holds_to is not None and self.holds_to >= FAR * self.train_length

  @property
  def uses_far(self) -> bool:
    """Whether text past L is used.

    At FAR training lengths every seed must be better than at L, and three intervals over documents
    must lie below 0. The first alone might come of text within L, of which the first targets see
    less at L; `beyond_shuffled`, of harm that another document does; `beyond_window`, of harm that
    the window does.
    """
    gain = self.changes.get(FAR * self.train_length)
    return self.all_gain and all(
      some is not None and some.interval is not None and some.interval[1] < 0
      for some in (gain, self.beyond_window, self.beyond_shuffled)
    )

  @property
  def verdict(self) -> str:
    """A few words, by a fixed rule."""
    if self.is_reference:
      return 'reference'
    if self.holds_to is None:
      return 'no score at L'
    if not self.changes and self.fails_by is None:
      return 'no score past L'
    words = ['uses text past L'] if self.uses_far else []
    if self.holds_to > self.train_length:
      words.append(f'holds to {multiple_of(self.holds_to, self.train_length)}')
    if self.fails_by is not None:
      words.append(f'fails by {multiple_of(self.fails_by, self.train_length)}')
    if not self.is_longest and self.holds_windowed is not None:
      words.append(f'{"holds" if self.holds_windowed else "fails"} with a window of L')
    return '; '.join(words) or 'undecided'


def corpora(rows: Iterable[dict]) -> list[str]:
  """The corpora of text that the board has a section for, in the order of their rows. Raises
  UserError where there is none.
  """
  found = list(
    dict.fromkeys(
      row['corpus'] for row in rows if row['protocol'] == PROTOCOL and row['encoding'] != N_GRAM
    )
  )
  if not found:
    allowed = 'folders with models evaluated so'
    raise UserError(f'board: no rows of {PROTOCOL}; allowed: {allowed}')
  return found


def usual_length(rows: Iterable[dict]) -> int:
  """The length that most of the models of these rows were trained at: L of their board."""
  rows = list(rows)
  models = [row for row in rows if row['encoding'] != N_GRAM] or rows
  return statistics.mode({row['run']: row['train_length'] for row in models}.values())


def of_corpus(rows: Iterable[dict], corpus: str) -> list[dict]:
  """The rows that the board's section of a corpus is made from."""
  return [row for row in rows if (row['corpus'], row['protocol']) == (corpus, PROTOCOL)]


def lines(
  rows: Iterable[dict],
  runs: Iterable[str],
  spent: Iterable[dict],
  corpus: str,
  references: Collection[str] = (),
  notes: list[str] | None = None,
) -> list[Line]:
  """The lines of one corpus, the best first: those that hold to FAR training lengths by bits at L,
  then the others likewise, then references.

  Args:
    rows: of all corpora. runs: the runs that should be there. spent: rows of costs.jsonl.
    corpus: one of `corpora(rows)`.
    references: labels of lines that are there to compare others with, beside n-grams and models
      trained at another length.
    notes: what is missing or was not compared is added to it.
  """
  return next(_lines_moved(rows, runs, spent, corpus, references, notes))


def _lines_moved(
  rows: Iterable[dict],
  runs: Iterable[str],
  spent: Iterable[dict],
  corpus: str,
  references: Collection[str] = (),
  notes: list[str] | None = None,
  usual: int | None = None,
  only: str | None = None,
  shifts: Iterable[float] = (0.0,),
) -> Iterator[list[Line]]:
  """Yields what `lines` returns, once for each of `shifts`, of rows that are compared once.

  Args:
    usual: L of the board; None: that of these rows.
    only: the name of the line that is made, if there is one; None: all.
    shifts: parts of its width that every interval is moved by.
  """
  rows = of_corpus(rows, corpus)
  present = {row['run'] for row in rows}
  found = collect(rows, [run for run in runs if run in present], [PROTOCOL])
  usual = usual or usual_length(rows)
  is_base = lambda row: (row['label'], row['train_length']) == (ROPE, usual)
  baseline = ROPE if any(is_base(row) for row in rows if row['control'] is None) else None
  names_of = lambda row: (ROPE,) if is_base(row) else ()
  wanted = None if only is None else {only}
  compared = compare_all(found, baseline=baseline, names_of=names_of, lines=wanted)
  found_in = [(x, x.differences) for some in compared for x in some.contrasts]
  by_control = {some.scores.control: some for some in compared}
  plain = by_control[None].scores
  if notes is not None:
    notes += dict.fromkeys((*plain.notes, *by_control[None].left_out))
  base_runs = {row['run'] for row in rows if is_base(row)}
  cost_of = costs.relative_costs(spent, plain.runs_of, base_runs)
  if baseline is None:  # another line of that encoding is no measure
    contrasts = by_control[None].contrasts
    by_control[None].contrasts = [contrast for contrast in contrasts if not contrast.baseline]
  for shift in shifts:
    for contrast, differences in found_in:
      contrast.differences = {place: _moved(x, shift) for place, x in differences.items()}
    made = [
      _line(line, plain, by_control, usual, cost_of[line], references)
      for line in plain.lines
      if only in (None, line)
    ]
    yield sorted(made, key=_rank)


def _line(
  name: str,
  plain: Scores,
  by_control: dict,
  usual: int,
  cost: costs.Cost,
  references: Collection[str],
) -> Line:
  row = plain.exemplar_row[name]
  L, metric = row['train_length'], METRICS['bpb']
  is_of_L = row['encoding'] != N_GRAM and usual == L
  values = effective_length.values_of_seeds(plain, name, metric)
  own = tuple(by_length[usual] for by_length in values.values() if by_length.get(usual) is not None)
  changes = _differences(by_control[None], OWN, name) if is_of_L else _plain_changes(values, usual)
  past = [n for n in plain.columns if n > L and _statuses(plain, name, n) != {'missing'}]
  longest = past[-1] if past else L
  windowed, holds_windowed = None, None
  if WINDOWED in by_control and is_of_L:
    windowed = _differences(by_control[WINDOWED], OWN, name).get(longest)
    holds_windowed = _holds_windowed(windowed, by_control[WINDOWED].scores, plain, name, L)
  of_far = lambda reference: _differences(by_control[None], reference, name).get(FAR * usual)
  far = [(seed.get(L), seed.get(FAR * L)) for seed in values.values()]
  at_L = {seed: by_length.get(L) for seed, by_length in values.items()}
  held = effective_length.holds_to(L, values, at_L, changes)
  fails = lambda length: (
    _is_above(changes.get(length)) or 'not_finite' in _statuses(plain, name, length)
  )
  return Line(
    name=name,
    label=row['label'],
    runs=frozenset(plain.runs_of[name]),
    is_reference=not is_of_L or row['label'] in references,
    train_length=L,
    seeds=tuple(values),
    own=own,
    at_L=_differences(by_control[None], BASELINE, name).get(usual),
    changes=changes,
    longest=longest,
    windowed=windowed,
    holds_windowed=holds_windowed,
    beyond_window=of_far(OWN_WINDOWED) if usual == L else None,
    beyond_shuffled=of_far(OWN_SHUFFLED) if usual == L else None,
    beyond_default=of_far(BASELINE_WINDOWED),
    holds_to=(held.length if held else L) if own else None,
    fails_by=next((length for length in past if fails(length)), None),
    all_gain=bool(far) and all(None not in pair and pair[1] < pair[0] for pair in far),
    cost=cost,
  )


def _statuses(scores: Scores, line: str, length: int) -> set[str]:
  return {scores.by_seed[line, seed, length].status for seed in scores.seeds}


def _differences(comparison, reference: Reference, line: str) -> dict[int, Difference]:
  """{length: the line's difference from the reference}."""
  return {
    column: difference
    for contrast in comparison.contrasts
    if contrast.reference is reference
    for (name, column), difference in contrast.differences.items()
    if name == line
  }


def _moved(difference: Difference, shift: float) -> Difference:
  """The difference with its interval, if it has one, moved by the part `shift` of its width."""
  if difference.interval is None:
    return difference
  low, high = difference.interval
  by = shift * (high - low)
  return difference._replace(interval=(low + by, high + by))


def _plain_changes(values: dict[int, dict[int, float]], base: int) -> dict[int, Difference]:
  """{length: the mean over seeds of the difference from the score at the length `base`}.

  `values`: {seed: {length: score}}; lengths that some seed has no score for are left out.
  """
  changes = {}
  for length in sorted({length for by_length in values.values() for length in by_length}):
    pairs = [(by_length.get(base), by_length.get(length)) for by_length in values.values()]
    if length > base and not any(None in pair for pair in pairs):
      mean = statistics.fmean(value - own for own, value in pairs)
      changes[length] = Difference(mean, len(pairs), None, 0)
  return changes


def _is_above(change: Difference | None) -> bool:
  """Whether the interval of the change lies above SLACK."""
  return change is not None and change.interval is not None and change.interval[0] > SLACK


def _holds_windowed(
  change: Difference | None, windowed: Scores, plain: Scores, line: str, L: int
) -> bool | None:
  """`Line.holds_windowed` from the change at the longest length, attention windowed at L."""
  if _is_above(change):
    return False
  if change is None or change.interval is None or change.interval[1] > SLACK:
    return None
  at_L = effective_length.scores_at_L(plain, line, METRICS['bpb'])
  of_window = effective_length.values_of_seeds(windowed, line, METRICS['bpb'])
  hold = all(
    None not in (value, at_L.get(seed)) and value <= at_L[seed] + SLACK
    for seed, values in of_window.items()
    for length, value in values.items()
    if length > L
  )
  return hold or None


def _rank(line: Line) -> tuple:
  return line.is_reference, not line.holds_far, line.mean is None, line.mean or 0.0, line.name


def other_verdicts(line: Line, rows: Iterable[dict], corpus: str, usual: int) -> dict[str, str]:
  """What the verdict would be without one seed, and with all intervals `MOVED` of their width lower
  or higher, by what is changed; those that are the line's own are left out. A reference has none.

  A verdict is of a line's own scores. Of other lines only ROPE's first seed is read: its rows say
  how many tokens a whole score is of.

  Args:
    rows: those of this corpus, others with them or not.
    usual: L of the board.
  """
  if line.is_reference:
    return {}
  if len(line.seeds) < 2:
    return {f'without seed {line.seeds[0]}': NO_VERDICT}
  first = min((row['seed'] for row in rows if row['label'] == ROPE), default=None)
  rows = [
    row
    for row in rows
    if row['label'] == line.label or (row['label'], row['seed']) == (ROPE, first)
  ]
  of_seed = lambda row, seed: row['run'] in line.runs and row['seed'] == seed
  changed = [
    ([row for row in rows if not of_seed(row, seed)], {f'without seed {seed}': 0.0})
    for seed in line.seeds
  ]
  changed.append((rows, {'with lower intervals': -MOVED, 'with higher intervals': MOVED}))
  others = {}
  for some, shifts in changed:
    by = shifts.values()
    of_shifts = _lines_moved(some, (), (), corpus, usual=usual, only=line.name, shifts=by)
    for what, found in zip(shifts, of_shifts, strict=True):
      # a line may be called otherwise without one of its seeds, and then none is found
      verdict = found[0].verdict if found else NO_VERDICT
      if verdict != line.verdict:
        others[what] = verdict
  return others
