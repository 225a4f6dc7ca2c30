"""Curves, one line an encoding, drawn from `posenc_jax.reporting.series`; figures by position."""

import math
from collections.abc import Collection, Iterable

from posenc_jax.protocols import CONTROLS, WINDOWED
from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.colors import GREY, TEXT_GREY
from posenc_jax.reporting.mpl.axes import (
  Name,
  check_number,
  name_lines,
  new_figure,
  strip_spines,
  write_notes,
)
from posenc_jax.reporting.scores.score import UNSEEN
from posenc_jax.reporting.series import Curve, Series, gradient_series, looks_of, position_series
from posenc_jax.rows.row_schema import SHARES

MARKED = 12  # a curve of more points has markers at about so many of them
COVERED = 0.99  # the share of the gradient that is called the receptive field
OF_CONTROLS = {'markersize': 3.5, 'linewidth': 1.2}
# The lines of controls, in the order in which a figure names them: what a note calls them.
DASHES = {'--': 'Dashed', '-.': 'Dash-dotted', (0, (6, 1.5, 1, 1.5, 1, 1.5)): 'Dash-dot-dotted'}


def positions(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  metric: str = 'bpb',
  length: int | None = None,
  drawn_controls: Collection[str] = (WINDOWED,),
  labels: Collection[str] = (),
):
  """Score against the position in the window: FoX's and KERPLE's figures of loss by position.

  Args:
    length: the length of windows in tokens; None: the longest that most runs have.
    drawn_controls, labels: as `extrapolation.lengths` has them.
  """
  series, *controls = position_series(rows, runs, metric, length, labels)
  looks = line_looks(series)
  figure, axes = _figure()
  ends = draw_curves(axes, series, looks)
  of_controls = {some.scores.control: some.curves for some in named(controls, drawn_controls)}
  notes = draw_controls(axes, of_controls, looks)
  _position_axis(axes, series)
  score_axis(axes, series)
  names = {line: Name(series.curves[line].label, end[1], end) for line, end in ends.items()}
  return _finish(figure, axes, series, looks, names, notes)


def receptive_field(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  length: int | None = None,
  labels: Collection[str] = (),
):
  """Share of the last token's gradient that the nearest tokens have: Sandwich's receptive field.

  Names say how many tokens have 99 % of it, rounded up to the end of a bin. `length` and
  `labels` are those of `positions`.
  """
  series = gradient_series(rows, runs, length, labels)
  looks = line_looks(series)
  figure, axes = _figure()
  names = {}
  for line, end in draw_curves(axes, series, looks).items():
    curve = series.curves[line]
    names[line] = Name(f'{curve.label} ({_covered(curve)})', end[1], end)
  _position_axis(axes, series)
  axes.set_ylabel(series.y_title)
  axes.set_ylim(0, 1.03)
  notes = [f'In brackets: the nearest tokens that have {COVERED:.0%} of it.'.replace('%', ' %')]
  return _finish(figure, axes, series, looks, names, notes)


def _covered(curve: Curve) -> int | str:
  covered = [
    end for end, share in zip(curve.x, curve.mean, strict=True) if share and share >= COVERED
  ]
  return covered[0] if covered else f'over {curve.x[-1]}'


def _figure():
  figure = new_figure(8, 5.2)
  return figure, figure.add_subplot()


def _finish(
  figure, axes, series: Series, looks: dict[str, dict], names: dict[str, Name], notes: list[str]
):
  """Adds what figures by position have in common; returns the figure."""
  strip_spines(axes)
  shade_training(axes, series.scores.train_lengths)
  name_lines(axes, names, looks)
  # the title stands above the name of the training length
  axes.set_title(series.title, loc='left', fontweight='bold', pad=20)
  write_notes(figure, [curve_caption(series), *notes, *series.scores.notes])
  return figure


def _position_axis(axes, series: Series) -> None:
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_formatter('{x:g}')
  axes.set_xlabel(f'{series.x_title} (logarithmic)')


def curve_caption(series: Series) -> str:
  """The caption of a figure of these curves."""
  spread = 'bands: one standard deviation'
  if series.scores.metric.shows_seeds:
    spread = 'thin: each seed'
  return caption(series.scores, drawn=f'Lines: means over {{}}; {spread}')


def line_looks(series: Series, references: Collection[str] = ()) -> dict[str, dict]:
  """{line: its color and marker as matplotlib takes them}; those of these labels are grey.

  Raises UserError for more lines than a figure has room for.
  """
  check_number(list(series.curves))
  return {
    line: dict(color=look.color, marker=look.marker, markersize=6.5)
    for line, look in looks_of([series], references).items()
  }


def named(controls: Iterable[Series], names: Collection[str]) -> list[Series]:
  """The series of the controls of these names, in the order of the names; of some there is none."""
  found = {series.scores.control: series for series in controls}
  return [found[name] for name in names if name in found]


def draw_curves(axes, series: Series, looks: dict[str, dict]) -> dict[str, tuple[float, float]]:
  """Draws each curve with its band or, of accuracies, its seeds; returns the last points."""
  ends = {}
  for line, curve in series.curves.items():
    points = [point for point in zip(curve.x, curve.mean, strict=True) if point[1] is not None]
    color, shows_seeds = looks[line]['color'], series.scores.metric.shows_seeds
    if shows_seeds:
      # Seeds learn a task or do not, and a deviation would hide which.
      for values in curve.by_seed.values():
        plot_numbers(axes, curve.x, values, color=color, linewidth=0.9, alpha=0.5, zorder=1.5)
        # the name of a line without a mean, as no seed has learned, stands beside a seed
        scored = [(x, y) for x, y in zip(curve.x, values, strict=True) if isinstance(y, float)]
        ends |= {line: scored[-1]} if scored else {}
    if points:
      # a single point would be hidden by the lines that go on
      over = {'zorder': 4} if len(points) == 1 else {}
      plot_numbers(axes, curve.x, curve.mean_or_status, label=line, **looks[line], **over)
      ends[line] = points[-1]
    if points and not shows_seeds:
      fill_band(axes, curve, curve.band, color=color, alpha=0.15)
  return ends


def draw_controls(
  axes, of_controls: dict[str, dict[str, Curve]], looks: dict[str, dict]
) -> list[str]:
  """Draws the curves of each control in dashes of its own, those of lines that have a look; returns
  what the caption says of it.
  """
  notes = []
  for (dashes, words), (control, curves) in zip(DASHES.items(), of_controls.items(), strict=False):
    for line, curve in curves.items():
      if line in looks:
        style = looks[line] | OF_CONTROLS | {'linestyle': dashes}
        plot_numbers(axes, curve.x, curve.mean_or_status, label=line, **style)
    notes.append(f'{words}: {CONTROLS[control].words.removeprefix("; ")}.')
  return notes


def fill_band(axes, curve: Curve, band: list[tuple[float, float] | None], **style) -> None:
  """Fills the band about a curve, with a gap where the line has one."""
  ends_at = dict(zip(curve.x, band, strict=True))
  xs = [x for x, _ in _points(curve.x, curve.mean_or_status)]
  low, high = zip(*(ends_at[x] or (math.nan, math.nan) for x in xs), strict=True)
  axes.fill_between(xs, low, high, linewidth=0, **style)


def _points(xs: list[float], values: list[float | str]) -> list[tuple[float, float]]:
  """The points of a line from its first number to its last: nan where a seed failed; what nobody
  asked for is left out.
  """
  numbers = [index for index, value in enumerate(values) if isinstance(value, float)]
  return [
    (xs[index], math.nan if isinstance(values[index], str) else values[index])
    for index in range(numbers[0], numbers[-1] + 1)
    if values[index] not in UNSEEN
  ]


def plot_numbers(axes, xs: list[float], values: list[float | str], **style) -> None:
  """Draws a line through the values that are numbers, with a gap where a seed failed."""
  if any(isinstance(value, float) for value in values):
    points = _points(xs, values)
    style = {'linewidth': 1.8, 'markeredgecolor': 'white', 'markeredgewidth': 0.7} | style
    axes.plot(*zip(*points, strict=True), markevery=_marked([y for _, y in points]), **style)


def _marked(ys: list[float]) -> list[int]:
  """The indices of the points with a marker: about MARKED of them, and those between two gaps,
  which no line would show.
  """
  step, around = math.ceil(len(ys) / MARKED), [math.nan, *ys, math.nan]
  alone = lambda index: math.isnan(around[index]) and math.isnan(around[index + 2])
  return [index for index in range(len(ys)) if index % step == 0 or alone(index)]


def shade_training(axes, train_lengths: list[int]) -> None:
  """Shades what every line saw in training, and dots the training lengths, without making the axis
  any longer.

  A training length beyond the axis has no line and no name: the name would push the axes away.
  """
  left, right = axes.get_xlim()
  name = 'training length' if len(train_lengths) == 1 else 'L = {}'
  seen = min(train_lengths[0], right)
  if seen > left:
    axes.axvspan(left, seen, color='#f1f1f1', linewidth=0, zorder=-1)
  for length in train_lengths:
    if not left <= length <= right:
      continue
    axes.axvline(length, color=GREY, linestyle=':', linewidth=1.4, zorder=0)
    # above the axes, where no curve is; at their right end it would reach the names of the lines
    is_last = axes.transLimits.transform(axes.transScale.transform((length, 1)))[0] > 0.85
    side = dict(xytext=(3, 3), ha='right') if is_last else dict(xytext=(-3, 3))
    place = dict(xycoords=axes.get_xaxis_transform(), textcoords='offset points', **side)
    axes.annotate(name.format(length), (length, 1), **place, color=TEXT_GREY, fontsize=9)
  axes.set_xlim(left, right)


def score_axis(axes, series: Series) -> None:
  """Makes the y axis one from 0 to 1 for shares, from 0 for other scores of tasks, else logarithmic
  if all that is drawn is above 0.
  """
  from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

  axes.set_ylabel(series.y_title)
  if series.scores.metric.name in SHARES:
    axes.set_ylim(-0.02, 1.04)
    return
  if series.scores.metric.shows_seeds:
    axes.set_ylim(bottom=0)  # a model that is sure of all answers has 0 nats
    return
  means = [mean for curve in series.curves.values() for mean in curve.mean if mean is not None]
  if any(mean <= 0 for mean in means):
    return
  axes.set_ylabel(f'{series.y_title} (logarithmic)')
  axes.set_yscale('log')
  low, high = axes.get_ylim()
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
  mantissas = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5)
  round_numbers = [m * 10.0**decade for decade in decades for m in mantissas]
  ticks = round_numbers if high > 2 * low else MaxNLocator(5).tick_values(low, high)
  axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
  axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
  axes.yaxis.set_minor_locator(NullLocator())
