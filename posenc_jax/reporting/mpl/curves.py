"""Figures of curves, one line an encoding, drawn from `posenc_jax.reporting.series`."""

import math
from collections.abc import Iterable

from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.colors import GREY
from posenc_jax.reporting.mpl.axes import (
  check_number,
  name_lines,
  strip_spines,
  styles,
  write_notes,
)
from posenc_jax.reporting.scores import collect
from posenc_jax.reporting.series import (
  Curve,
  Series,
  gradient_series,
  length_series,
  position_series,
)

MANY = 12  # a curve of more points has no markers, and its axis no tick for each
COVERED = 0.99  # the share of the gradient that is called the receptive field
DASHED = {'marker': '', 'linewidth': 1.2, 'linestyle': '--'}


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str = 'last_k',
  metric: str = 'ppl',
  windowed: bool = False,
):
  """Score against evaluation length, up to the training length shaded: a matplotlib `Figure`.

  Bands are one standard deviation over seeds; of accuracies each seed is a thin line instead.
  Dashed lines are the windowed control; chance, where rows have it, is dotted. A line ends where
  its encoding has no value. Raises UserError as `scores.collect` does.
  """
  rows = list(rows)
  series, *controls = (
    length_series(scores, rows) for scores in collect(rows, runs, [protocol], metric)
  )
  figure, axes, looks = _figure(series)
  ends = _draw(axes, series, looks)
  notes = _draw_windowed(axes, controls, looks) if windowed else []
  if series.scores.metric.shows_seeds and len(series.scores.seeds) > 1:
    notes.append('Thin: each seed, in the place of the deviation.')
  if chance := series.chance:
    style = dict(color=GREY, linestyle=':', linewidth=1.2, zorder=1)
    axes.plot(list(chance), list(chance.values()), **style)
    notes.append('Dotted: chance.')
  last = series.scores.columns[-1]
  named = {}
  for line, (x, y) in ends.items():
    label = series.curves[line].label
    named[line] = (x, y, label if x == last else f'{label} (to {x})')
  _length_axis(axes, series)
  _score_axis(axes, series)
  return _finish(figure, axes, series, looks, named, notes)


def positions(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  metric: str = 'ppl',
  length: int | None = None,
  smooth: int = 0,
  windowed: bool = True,
):
  """Score against the position in the window: FoX's and KERPLE's figures of loss by position.

  Args:
    length: the length of windows in tokens; None: the longest that rows have.
    smooth: bins on either side that are added up with a bin before its score is taken.
    windowed: whether the control of windowed attention is drawn, dashed, where rows have it.
  """
  series, *controls = position_series(rows, runs, metric, length, smooth)
  figure, axes, looks = _figure(series)
  ends = _draw(axes, series, looks)
  notes = _draw_windowed(axes, controls, looks) if windowed else []
  if smooth:
    notes.append(f'Each point adds up {2 * smooth + 1} neighboring bins.')
  named = {line: (*end, line) for line, end in ends.items()}
  _position_axis(axes, series)
  _score_axis(axes, series)
  return _finish(figure, axes, series, looks, named, notes)


def receptive_field(rows: Iterable[dict], runs: Iterable[str] = (), length: int | None = None):
  """Share of the last token's gradient that the nearest tokens have: Sandwich's receptive field.

  Names say how many tokens have 99 % of it, rounded up to the end of a bin. `length` is that of
  `positions`.
  """
  series = gradient_series(rows, runs, length)
  figure, axes, looks = _figure(series)
  ends = _draw(axes, series, looks)
  named = {line: (*end, f'{line} ({_covered(series.curves[line])})') for line, end in ends.items()}
  _position_axis(axes, series)
  axes.set_ylabel(series.y_title)
  axes.set_ylim(0, 1.03)
  notes = [f'In brackets: the nearest tokens that have {COVERED:.0%} of it.'.replace('%', ' %')]
  return _finish(figure, axes, series, looks, named, notes)


def _covered(curve: Curve) -> int | str:
  covered = [
    end for end, share in zip(curve.x, curve.mean, strict=True) if share and share >= COVERED
  ]
  return covered[0] if covered else f'over {curve.x[-1]}'


def _figure(series: Series):
  # not pyplot: it would want a display, and figures would share state
  from matplotlib.figure import Figure

  check_number(list(series.curves))
  figure = Figure(figsize=(8, 5.2), layout='constrained')
  return figure, figure.add_subplot(), styles(list(series.curves))


def _draw(axes, series: Series, looks: dict[str, dict]) -> dict[str, tuple[float, float]]:
  """Draws each curve with its band or, of accuracies, its seeds; returns the last points."""
  ends = {}
  for line, curve in series.curves.items():
    points = [point for point in zip(curve.x, curve.mean, strict=True) if point[1] is not None]
    color, shows_seeds = looks[line]['color'], series.scores.metric.shows_seeds
    if shows_seeds:
      # Seeds learn a task or do not, and a deviation would hide which.
      for values in curve.by_seed.values():
        _plot(axes, curve.x, values, color=color, linewidth=0.9, alpha=0.5, zorder=1.5)
        # the name of a line without a mean, as no seed has learned, stands beside a seed
        scored = [(x, y) for x, y in zip(curve.x, values, strict=True) if isinstance(y, float)]
        ends |= {line: scored[-1]} if scored else {}
    if points:
      _plot(axes, curve.x, curve.mean, label=line, **looks[line])
      ends[line] = points[-1]
    if points and not shows_seeds:
      low, high = zip(*(ends_of for ends_of in curve.band if ends_of), strict=True)
      xs = [x for x, _ in points]
      axes.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)
  return ends


def _draw_windowed(axes, controls: list[Series], looks: dict[str, dict]) -> list[str]:
  """Draws the windowed control dashed; returns what the caption says of it, in a list."""
  for series in controls:
    if series.scores.control == 'windowed':
      for line, curve in series.curves.items():
        if line in looks:
          _plot(axes, curve.x, curve.mean, label=line, **looks[line] | DASHED)
      return ['Dashed: attention windowed at the training length.']
  return []


def _plot(axes, xs: list, values: list, **style) -> None:
  """Draws a line through the values that are numbers."""
  points = [(x, y) for x, y in zip(xs, values, strict=True) if isinstance(y, float)]
  if points:
    style = {'linewidth': 1.8, 'markeredgecolor': 'white', 'markeredgewidth': 0.7} | style
    axes.plot(*zip(*points, strict=True), **style | ({'marker': ''} if len(points) > MANY else {}))


def _shade_training(axes, train_lengths: list[int]) -> None:
  """Shades what was seen in training, without making the axis any longer.

  A training length beyond the axis has no line and no name: the name would push the axes away.
  """
  left, right = axes.get_xlim()
  name = 'training length' if len(train_lengths) == 1 else 'L = {}'
  for length in train_lengths:
    if length > left:
      axes.axvspan(left, min(length, right), color='#f1f1f1', linewidth=0, zorder=-1)
    if not left <= length <= right:
      continue
    axes.axvline(length, color=GREY, linestyle=':', linewidth=1.4, zorder=0)
    place = dict(xycoords=axes.get_xaxis_transform(), xytext=(-3, 3), textcoords='offset points')
    # above the axes, where no curve is
    axes.annotate(name.format(length), (length, 1), **place, color=GREY, fontsize=9)
  axes.set_xlim(left, right)


def _length_axis(axes, series: Series) -> None:
  from matplotlib.ticker import MaxNLocator, NullLocator

  ticks = series.scores.columns
  if ticks[-1] >= 8 * ticks[0]:
    axes.set_xscale('log', base=2)
  if len(ticks) <= MANY:
    axes.set_xticks(ticks, [str(length) for length in ticks])
  else:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter('{x:g}')
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel(series.x_title)


def _position_axis(axes, series: Series) -> None:
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_formatter('{x:g}')
  axes.set_xlabel(f'{series.x_title} (logarithmic)')


def _score_axis(axes, series: Series) -> None:
  """From 0 to 1 for accuracies, from 0 for other scores of tasks, else logarithmic."""
  from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

  axes.set_ylabel(series.y_title)
  if series.scores.metric.is_accuracy:
    axes.set_ylim(-0.02, 1.04)
    return
  if series.scores.metric.shows_seeds:
    axes.set_ylim(bottom=0)  # a model that is sure of all answers has 0 nats
    return
  axes.set_yscale('log')
  low, high = axes.get_ylim()
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
  mantissas = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5)
  round_numbers = [m * 10.0**decade for decade in decades for m in mantissas]
  ticks = round_numbers if high > 2 * low else MaxNLocator(5).tick_values(low, high)
  axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
  axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
  axes.yaxis.set_minor_locator(NullLocator())


def _finish(figure, axes, series: Series, looks: dict[str, dict], named: dict, notes: list[str]):
  """Adds what is the same in all figures of curves; returns the figure.

  `named` has the last x, last y and name of each line, as `name_lines` takes them.
  """
  strip_spines(axes)
  _shade_training(axes, series.scores.train_lengths)
  name_lines(axes, named, looks)
  # the title stands above the name of the training length
  axes.set_title(series.title, loc='left', fontweight='bold', pad=20)
  write_notes(figure, [caption(series.scores), *notes, *series.scores.notes])
  return figure
