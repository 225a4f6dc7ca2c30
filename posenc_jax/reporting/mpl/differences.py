"""The figure of differences: by how much each line beats, or misses, what one would take else."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.colors import GREY, TEXT_GREY
from posenc_jax.reporting.comparisons import bootstrap
from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.comparisons.contrast import (
  BASELINE_TRUNCATED,
  BASELINE_WINDOWED,
  Contrast,
)
from posenc_jax.reporting.comparisons.difference_tables import documents_of_intervals, no_intervals
from posenc_jax.reporting.mpl.axes import check_number, new_figure, shorten, with_room, write_notes
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import multiple_of

BLUE, ORANGE = '#0072b2', '#d55e00'
# The color of a number beside a point of another: what is light is hard to read in small letters.
IN_WORDS = {BLUE: BLUE, ORANGE: '#b34700', GREY: TEXT_GREY}
WIDTH, TICK = 6.5, 0.4  # inches: about that of the axis, and that of a number below it
LEVEL = f'{bootstrap.LEVEL:.0%}'.replace('%', ' %')
LINEAR = 0.05  # bits a byte around 0 in which the axis is linear; beyond it is logarithmic


def differences(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str = 'last_k',
  baseline: str | dict[str, str] | None = None,
  length: int | None = None,
  labels: Collection[str] = (),
):
  """A point a line at `length`, its difference from the baseline that attends to a window of L, or
  without that control is given the last L tokens alone, with the interval over documents: a
  `Figure`.

  Args:
    baseline: as for `compare_all`. Lines that are compared with another one than the first, such as
      those of another training length, are named and not drawn; with labels, those that are
      compared with the first one that any of these has.
    length: None: the longest that has differences.
    labels: those of the lines that are drawn, (): all; the baseline need not be one of them.
  Raises:
    UserError: there is no such control of the baseline, or no difference of these labels or at that
      length.
  """
  found = collect(list(rows), runs, [protocol])
  contrasts = defaultdict(list)
  for comparison in compare_all(found, controls=False, baseline=baseline):
    for contrast in comparison.contrasts:
      contrasts[contrast.reference].append(contrast)
  # one for each baseline
  of_each = contrasts[BASELINE_WINDOWED] or contrasts[BASELINE_TRUNCATED]
  if not of_each:
    raise UserError(
      'figure: differences from a baseline truncated to L, or windowed; allowed: rows of that '
      'control'
    )
  label_of = {line: row['label'] for line, row in of_each[0].scores.exemplar_row.items()}
  has_labels = lambda contrast: any(label_of[line] in labels for line, _ in contrast.differences)
  contrast = next(filter(has_labels, of_each), of_each[0])
  drawn = {
    (line, column): difference
    for (line, column), difference in contrast.differences.items()
    if not labels or label_of[line] in labels
  }
  if not drawn:
    allowed = join_unique(label_of[line] for of in of_each for line, _ in of.differences)
    raise UserError(f'figure: labels={list(labels)} have no differences; allowed: {allowed}')
  length = length or max(column for _, column in drawn)
  chosen = {line: difference for (line, column), difference in drawn.items() if column == length}
  if not chosen:
    allowed = join_unique(column for _, column in drawn)
    raise UserError(f'figure: length={length} has no differences; allowed: {allowed}')
  lines = sorted(chosen, key=lambda line: -chosen[line].mean)
  check_number(lines)
  figure = new_figure(8.6, 1.9 + 0.3 * len(lines))
  axes = figure.subplots()
  for y, line in enumerate(lines):
    _draw(axes, y, chosen[line])
  axes.set_xscale('symlog', linthresh=LINEAR)
  axes.axvline(0, color='#333333', linewidth=1)
  _name_differences(axes)
  axes.set_yticks(range(len(lines)), [shorten(contrast.scores.label(line)) for line in lines])
  axes.set_ylim(-0.6, len(lines) - 0.4)
  axes.tick_params(axis='y', length=0)
  axes.grid(axis='x', color='#e6e6e6', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.set_xlabel('difference in bits per byte; left is better')
  axes.set_title(_title(contrast, chosen, length), loc='left', fontsize=11, fontweight='bold')
  absent = score_notes.of_labels(labels, contrast.scores.exemplar_row.values())
  others = [
    f'not drawn, compared with {of.baseline}: {join_unique(line for line, _ in of.differences)}'
    for of in of_each
    if of is not contrast and not labels
  ]
  write_notes(figure, [_note(contrast, length), *others, *absent], 108)
  return figure


def _draw(axes, y: int, difference) -> None:
  color = GREY
  if difference.interval is not None:
    low, high = difference.interval
    color = BLUE if high < 0 else ORANGE if low > 0 else GREY
    axes.plot([low, high], [y, y], color=color, linewidth=2.2, solid_capstyle='butt')
  axes.plot(difference.mean, y, 'o', color=color, markersize=6)
  place = {'xycoords': ('axes fraction', 'data'), 'va': 'center', 'fontsize': 9}
  place |= {'color': IN_WORDS[color], 'annotation_clip': False}
  axes.annotate(f'{difference.mean:+.3f}', (1.01, y), **place)


def _name_differences(axes) -> None:
  """Names 0 and the round differences within the axis that have room for their names."""
  from matplotlib.ticker import FixedLocator, NullLocator

  low, high = axes.get_xlim()
  scale = axes.xaxis.get_transform().transform
  room = TICK / WIDTH * (scale(high) - scale(low))
  for finest in (-2, -3, -4):
    # where there is no room for all of them: 0.1 and 1 before 0.5, and that before 0.2
    round_numbers = [m * 10.0**decade for m in (1, 5, 2) for decade in (-1, 0, 1, finest)]
    within = [x for number in (0.0, *round_numbers) for x in (number, -number) if low <= x <= high]
    if len(ticks := with_room(dict.fromkeys(within), scale, room)) > 2:
      break
  axes.xaxis.set_major_locator(FixedLocator(ticks))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter('{x:g}')
  axes.tick_params(axis='x', labelsize=9)


def _title(contrast: Contrast, chosen: dict, length: int) -> str:
  """What the figure shows, by a fixed rule: how many intervals lie below 0, and the lowest mean."""
  L = _train_length(contrast)
  better = [line for line, some in chosen.items() if some.interval and some.interval[1] < 0]
  where, number = f'At {multiple_of(length, L)}', len(chosen)
  if not any(some.interval for some in chosen.values()):
    least = min(chosen, key=lambda line: chosen[line].mean)
    return f'{where}, {shorten(least)} is lowest of {number} lines; too few documents to tell more'
  if not better:
    return f'{where}, none of {number} lines is better by its own {LEVEL} interval'
  best = min(better, key=lambda line: chosen[line].mean)
  gain = f'{shorten(best)} by the most, {-chosen[best].mean:.3f} bits a byte'
  each = f'each by its own {LEVEL} interval'
  return f'{where}, {len(better)} of {number} lines are better, {each}; {gain}'


def _train_length(contrast: Contrast) -> int:
  """The training length of the baseline: it is what the window is of."""
  return contrast.scores.exemplar_row[contrast.baseline]['train_length']


def _note(contrast: Contrast, length: int) -> str:
  L = _train_length(contrast)
  what = (
    'is given the last L tokens alone'
    if contrast.reference is BASELINE_TRUNCATED
    else 'attends to a window of L'
  )
  documents = documents_of_intervals(contrast)
  bars = (
    f'Bars: {bootstrap.LEVEL:.0%} intervals over documents ({documents}), each line by itself; '
    'blue lies below 0, orange above, grey is undecided.'
  )
  if not documents:
    bars = no_intervals(contrast)
  return (
    f'Difference at {length:,} tokens from the line "{contrast.baseline}" where it {what} '
    f'(L = {L:,}): '
    f'{contrast.scores.title}, the same targets. {bars} The axis is linear to {LINEAR:g} and '
    'logarithmic beyond.'
  ).replace('%', ' %')
