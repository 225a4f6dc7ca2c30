"""The figure of scores by evaluation length; of most likelihoods also of their change from L on."""

import math
import textwrap
from collections.abc import Collection, Iterable

from posenc_jax.protocols import CHOSEN_BY_MODEL, FEWER_STARTS, WINDOWED, of_rows
from posenc_jax.reporting.colors import GREY
from posenc_jax.reporting.comparisons.own_changes import (
  base_length,
  finding,
  go_beyond,
  own_changes,
  train_lengths_of,
)
from posenc_jax.reporting.metrics import SLACK
from posenc_jax.reporting.mpl.axes import (
  Name,
  name_lines,
  new_figure,
  strip_spines,
  with_room,
  write_notes,
)
from posenc_jax.reporting.mpl.curves import (
  DASHES,
  curve_caption,
  draw_controls,
  draw_curves,
  fill_band,
  line_looks,
  named,
  plot_numbers,
  score_axis,
  shade_training,
)
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import Curve, Series, length_series, multiple_of, references_of

LOWEST, HIGHEST = -0.05, 0.3  # bits a byte, of the panel of changes
DEEPEST = -1.0  # where a line gains more than LOWEST, the panel reaches down to here
TICK = 0.52  # inches that a tick's name needs
MOST_NAMED = 10  # dashed lines of a control beyond the panel that the caption names


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str = 'last_k',
  metric: str = 'bpb',
  drawn_controls: Collection[str] = (WINDOWED,),
  references: Collection[str] = (),
  labels: Collection[str] = (),
):
  """Score against evaluation length, shaded up to the shortest training length: a `Figure`.

  Of likelihoods a second panel shows what becomes of each line's own score at L, in bits a byte
  near 0, and the title says what it shows; key tokens of LongPPL are others at each length, so that
  there is none of these. Bands are one standard deviation over seeds; of accuracies each seed is a
  thin line instead. Chance, where rows have it, is dotted.

  Args:
    drawn_controls: names of the controls that are drawn beside each line, in dashes, where rows
      have them.
    references: labels of lines that nothing is found about, such as that of a model trained at the
      longest length; they are grey, as n-grams are.
    labels: as `figures.draw` has them.
  Raises:
    UserError: as `collecting.collect` does.
  """
  rows, runs = list(rows), list(runs)
  series, *controls = _all_series(rows, runs, protocol, metric, labels)
  grey = references_of(series, references)
  looks = line_looks(series, references)
  controls = named(controls, drawn_controls)
  bits, bits_controls = series, controls
  if series.scores.metric.denominator and metric != 'bpb':
    bits, *bits_controls = _all_series(rows, runs, protocol, 'bpb', labels)
    bits_controls = named(bits_controls, drawn_controls)
  has_changes = series.scores.metric.denominator and protocol not in CHOSEN_BY_MODEL
  changes = own_changes(bits, grey) if has_changes else {}
  goes_beyond = go_beyond(changes, grey)
  height = max(5.2, 2.2 + 0.135 * len(series.curves))  # inches: names stand below each other
  figure = new_figure(11.5 if goes_beyond else 8, height)
  left, *right = figure.subplots(1, 2 if goes_beyond else 1, squeeze=False)[0]
  found = finding(bits, grey)
  notes = _draw_scores(left, series, looks, grey, 4 if goes_beyond else 5.5)
  if goes_beyond:
    of_controls = {some.scores.control: own_changes(some, grey, bits) for some in bits_controls}
    notes += _draw_changes(right[0], bits, changes, of_controls, looks, grey, found)
  elif controls:
    of_controls = {some.scores.control: some.curves for some in controls}
    notes += draw_controls(left, of_controls, looks)
    score_axis(left, series)
  title = '\n'.join(textwrap.wrap(found or series.title, 115 if goes_beyond else 84))
  figure.suptitle(title, x=0.01, ha='left', fontsize=12, fontweight='bold')
  if grey:
    notes.append('Grey: references.')
  width = 172 if goes_beyond else 118
  write_notes(figure, [curve_caption(series), ' '.join(notes), *series.scores.notes], width)
  return figure


def _all_series(
  rows: list[dict], runs: list[str], protocol: str, metric: str, labels: Collection[str]
) -> list[Series]:
  found = collect(rows, runs, [protocol], metric, labels=labels)
  drawn = [row for row in rows if row['label'] in labels] if labels else rows
  return [length_series(scores, drawn) for scores in found]


def _draw_scores(
  axes, series: Series, looks: dict[str, dict], grey: Collection[str], inches: float
) -> list[str]:
  """Draws the scores of all lines at all lengths; returns what the caption says of it."""
  notes = []
  ends = draw_curves(axes, series, looks)
  if chance := series.chance:
    style = dict(color=GREY, linestyle=':', linewidth=1.2, zorder=1)
    axes.plot(list(chance), list(chance.values()), **style)
    notes.append('Dotted: chance.')
  last, names = series.scores.columns[-1], {}
  for line, (x, y) in ends.items():
    label = series.curves[line].label
    if x == last:
      names[line] = Name(label, y, (x, y))
    elif x == base_length(series, line, grey):
      names[line] = Name(f'{label} (ends at L)')
    else:
      names[line] = Name(f'{label} (to {x})')
  train_lengths = train_lengths_of(series, grey)
  _length_axis(axes, series.scores.columns, train_lengths, inches)
  score_axis(axes, series)
  strip_spines(axes)
  shade_training(axes, train_lengths)
  name_lines(axes, names, looks)
  return notes


def _draw_changes(
  axes,
  series: Series,
  changes: dict[str, Curve],
  of_controls: dict[str, dict[str, Curve]],
  looks: dict[str, dict],
  grey: Collection[str],
  found: str,
) -> list[str]:
  """Draws what becomes of each line's score from L on; returns what the caption says of it.

  `found`: the title, if it says what was found, or ''.
  """
  axes.axhspan(-SLACK, SLACK, color='#e6e6e6', linewidth=0, zorder=-1)
  axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
  lowest = min(
    mean - spread
    for curve in changes.values()
    for mean, spread in zip(curve.mean, curve.spread, strict=True)
    if mean is not None
  )
  bottom = max(DEEPEST, min(LOWEST, 1.1 * lowest))
  axes.set_ylim(bottom, HIGHEST)
  farthest = max(curve.x[-1] for curve in changes.values())
  axes.set_xscale('log', base=2)
  axes.set_xlim(0.93, 1.04 * farthest)
  names, last = {}, {}
  for line, curve in changes.items():
    points = [(x, mean) for x, mean in zip(curve.x, curve.mean, strict=True) if mean is not None]
    if len(points) < 2:
      continue  # the other panel says that it has no score past L
    color = looks[line]['color']
    plot_numbers(axes, curve.x, curve.mean_or_status, label=line, **looks[line])
    band = [
      None if mean is None else (mean - spread, mean + spread)
      for mean, spread in zip(curve.mean, curve.spread, strict=True)
    ]
    fill_band(axes, curve, band, color=color, alpha=0.1)
    xs, means = zip(*points, strict=True)
    last[line] = means[-1]
    border = min(max(means[-1], bottom), HIGHEST)
    is_gone = border != means[-1]
    if is_gone:
      _draw_arrow(axes, xs, means, border, color)
    text = f'{curve.label} {means[-1]:+.3f}'
    if xs[-1] < farthest:
      text += f' (to {xs[-1]:g} L)'
    names[line] = Name(text, border, None if is_gone else (xs[-1], means[-1]))
  # Names of one height keep their order, so that of lines that left the panel is that of changes.
  names = {line: names[line] for line in sorted(names, key=last.get)}
  control_notes = draw_controls(axes, of_controls, looks)
  control_notes += _draw_gone_controls(axes, of_controls, looks, (bottom, HIGHEST))
  _multiple_axis(axes, series, changes, grey)
  axes.set_ylabel('change from score at L (bits per byte)')
  strip_spines(axes)
  name_lines(axes, names, looks)
  notes = [
    'Right: mean of the differences between a score and the own score at L, seed by seed, with the '
    f'change at the longest length; shaded: {SLACK:g} bits per byte.'
  ]
  if series.scores.protocol in FEWER_STARTS:
    notes.append(of_rows(series.scores.protocol).own_remark.strip())
  if found:
    notes.append('The title goes by every seed and by intervals over documents.')
  return [*notes, 'Arrows: lines that go on beyond the panel.', *control_notes]


def _draw_gone_controls(
  axes,
  of_controls: dict[str, dict[str, Curve]],
  looks: dict[str, dict],
  limits: tuple[float, float],
) -> list[str]:
  """Draws arrows where lines of controls go on beyond the panel; returns what the caption says of
  them: they have no name at the right.
  """
  notes = []
  for words, curves in zip(DASHES.values(), of_controls.values(), strict=False):
    gone = {}
    for line, curve in curves.items():
      points = [point for point in zip(curve.x, curve.mean, strict=True) if point[1] is not None]
      if line not in looks or not points:
        continue
      xs, means = zip(*points, strict=True)
      border = min(max(means[-1], limits[0]), limits[1])
      if border != means[-1]:
        _draw_arrow(axes, xs, means, border, looks[line]['color'], markersize=4)
        gone[line] = means[-1]
    names = [f'{line} {gone[line]:+.3f}' for line in sorted(gone, key=gone.get)]
    if len(names) > MOST_NAMED:
      names[MOST_NAMED:] = [f'{len(names) - MOST_NAMED} more']
    notes += [f'{words} beyond the panel: {", ".join(names)}.'] if gone else []
  return notes


def _draw_arrow(
  axes, xs: tuple[float, ...], ys: tuple[float, ...], border: float, color: str, **style
) -> None:
  """Draws an arrow where a line that ends beyond the border leaves the panel."""
  style |= dict(color=color, clip_on=False, zorder=5)
  axes.plot([_leaves(xs, ys, border)], [border], marker='^' if border > 0 else 'v', **style)


def _leaves(xs: tuple[float, ...], ys: tuple[float, ...], border: float) -> float:
  """The x at which a line, drawn on a logarithmic axis, crosses the border for good; its first x,
  where it is never on this side of it.
  """
  inside = [i for i, y in enumerate(ys) if (y > border) != (ys[-1] > border) or y == border]
  if not inside:
    return xs[0]
  i = max(inside)
  share = (border - ys[i]) / (ys[i + 1] - ys[i])
  return math.exp((1 - share) * math.log(xs[i]) + share * math.log(xs[i + 1]))


def _length_axis(axes, columns: list[int], train_lengths: list[int], inches: float) -> None:
  """Names lengths in tokens and, where all lines have one training length, in multiples of it."""
  is_log = columns[-1] >= 4 * columns[0]
  if is_log:
    axes.set_xscale('log', base=2)
  ticks = _with_room(columns, train_lengths, is_log, inches)
  names, unit = list(map(str, ticks)), 'tokens'
  if len(train_lengths) == 1:
    names = [f'{multiple_of(length, *train_lengths)}\n{length}' for length in ticks]
    unit = 'training lengths L, tokens'
  _name_lengths(axes, ticks, names, unit)


def _multiple_axis(axes, series: Series, changes: dict[str, Curve], grey: Collection[str]) -> None:
  multiples = sorted({x for curve in changes.values() for x in curve.x})
  ticks = _with_room(multiples, [1], True, 4)
  train_lengths = train_lengths_of(series, grey)
  names, unit = list(map(multiple_of, ticks)), 'training lengths L'
  if len(train_lengths) == 1:
    (base,) = train_lengths
    names = [f'{name}\n{round(x * base)}' for name, x in zip(names, ticks, strict=True)]
    unit = 'training lengths L, tokens'
  _name_lengths(axes, ticks, names, unit)


def _name_lengths(axes, ticks: list[float], names: list[str], unit: str) -> None:
  from matplotlib.ticker import NullLocator

  axes.set_xticks(ticks, names, fontsize=9)
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel(f'evaluation length ({unit})')


def _with_room(
  places: list[float], wanted: Collection[float], is_log: bool, inches: float
) -> list[float]:
  """The places on an axis of so many inches that have room for their names, those wanted first."""
  scale = math.log if is_log else float
  ends = scale(places[0]), scale(places[-1])
  room = TICK / inches * (ends[1] - ends[0])
  return with_room(sorted(places, key=lambda place: (place not in wanted, place)), scale, room)
