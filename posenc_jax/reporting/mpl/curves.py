"""Figures of curves, one line an encoding: scores by length, loss by position, gradient by
distance.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.layouts.lengths import chance
from posenc_jax.reporting.mpl.style import GREY, bare, caption, name_lines, styles
from posenc_jax.reporting.scores import VARIANT, Cell, Scores, collect

POINTS = 12  # a curve of more has no markers, and its axis no tick for each
COVERED = 0.99  # of the gradient: the receptive field ends here


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str = 'last_k',
  metric: str = 'ppl',
  windowed: bool = False,
):
  """Score against evaluation length, up to the training length shaded: a
  `matplotlib.figure.Figure`.

  Bands are one standard deviation over seeds, or of shares each seed is a thin line; dashed lines
  are the windowed control; chance, where rows have it, is dotted. A line ends where its encoding
  has no value. Raises UserError as `tables.scores.collect` does.
  """
  rows = list(rows)
  scores, *controls = collect(rows, runs, [protocol], metric)
  figure, axes, looks = _figure(scores)
  ends = {line: _plot(axes, scores, line, looks[line]) for line in scores.lines}
  notes = _windowed(axes, controls, looks) if windowed else []
  guesses = {length: value for length, value in chance(rows, scores).items() if value is not None}
  if scores.metric.best is max and len(scores.seeds) > 1:
    notes.append('Thin: each seed, in the place of the deviation.')
  if guesses:
    axes.plot(
      list(guesses), list(guesses.values()), color=GREY, linestyle=':', linewidth=1.2, zorder=1
    )
    notes.append('Dotted: chance.')
  _lengths_axis(axes, scores.columns)
  _scores_axis(axes, scores)
  _shade(axes, scores)
  label = lambda line, x: line if x == scores.columns[-1] else f'{line} (to {x})'
  name_lines(axes, {line: (*end, label(line, end[0])) for line, end in ends.items() if end}, looks)
  return _finish(figure, axes, scores, f'Extrapolation, {scores.title}', notes)


def positions(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  metric: str = 'ppl',
  length: int | None = None,
  smooth: int = 0,
  windowed: bool = True,
):
  """Score against the position in the window: FoX's loss by position, KERPLE's position-wise
  figure.

  Args:
    length: of windows, in tokens; None: the longest that rows have.
    smooth: bins on either side that are added up with a bin before its score is taken.
    windowed: also, dashed, the control of attention windowed at the training length, where rows
      have it.
  """
  scores, *controls = _by_position(rows, runs, 'by_position', metric, length)
  length = next(iter(scores.first.values()))['length']
  figure, axes, looks = _figure(scores)
  middles = _middles(scores.columns, length)
  ends = {
    line: _plot(axes, _smooth(scores, smooth), line, looks[line], middles) for line in scores.lines
  }
  dashed = [_smooth(control, smooth) for control in controls if windowed]
  notes = _windowed(axes, dashed, looks, middles)
  if smooth:
    notes.append(f'Each point adds up {2 * smooth + 1} neighbouring bins.')
  _position_axis(axes, 'position in the window, from 1')
  _scores_axis(axes, scores)
  _shade(axes, scores)
  name_lines(axes, {line: (*end, line) for line, end in ends.items() if end}, looks)
  return _finish(figure, axes, scores, f'Loss by position in windows of {length} tokens', notes)


def receptive_field(rows: Iterable[dict], runs: Iterable[str] = (), length: int | None = None):
  """Share of the gradient of the last token's loss that the nearest tokens have: Sandwich's
  empirical receptive field.

  Names say how many tokens have 99 % of it, rounded up to the end of a bin. `length` as for
  `positions`.
  """
  scores = _by_position(rows, runs, 'receptive_field', 'gradient', length)[0]
  length = next(iter(scores.first.values()))['length']
  figure, axes, looks = _figure(scores)
  ends = [*scores.columns[1:], length - 1]  # of bins; the first of the window's inputs is BOS
  named = {}
  for line in scores.lines:
    of_seeds = [
      [scores.cells[line, seed, column] for column in scores.columns] for seed in scores.seeds
    ]
    shares = [
      [cell.scores(scores.metric)[0] for cell in some]
      for some in of_seeds
      if all(c.rows for c in some)
    ]
    sums = zip(*map(itertools.accumulate, shares), strict=True)
    points = {end: list(some) for end, some in zip(ends, sums, strict=True)} if shares else {}
    if last := _curve(axes, points, looks[line]):
      covered = [end for end, some in points.items() if statistics.fmean(some) >= COVERED]
      named[line] = (*last, f'{line} ({covered[0] if covered else f"over {length - 1}"})')
  _position_axis(axes, 'nearest tokens')
  axes.set_ylabel('share of the gradient')
  axes.set_ylim(0, 1.03)
  _shade(axes, scores)
  name_lines(axes, named, looks)
  notes = [f'In brackets: the nearest tokens that have {COVERED:.0%} of it.'.replace('%', ' %')]
  return _finish(figure, axes, scores, 'Empirical receptive field', notes)


def _by_position(
  rows: Iterable[dict], runs: Iterable[str], protocol: str, metric: str, length: int | None
):
  rows = [row for row in rows if row['protocol'] == protocol]
  lengths_of = sorted({row['length'] for row in rows})
  if length is not None and length not in lengths_of:
    raise UserError(
      f'figure: no rows of {length} tokens; allowed: {", ".join(map(str, lengths_of))}'
    )
  rows = [row for row in rows if row['length'] == (length or lengths_of[-1])]
  return collect(
    rows, runs, [protocol], metric, across=lambda row: row['position'], variant=(*VARIANT, 'length')
  )


def _smooth(scores: Scores, bins: int) -> Scores:
  """Each cell with the rows of its neighbours."""

  def cell(line, seed, index):
    near = scores.columns[max(0, index - bins) : index + bins + 1]
    cells = [scores.cells[line, seed, column] for column in near]
    outcomes = [cell.status for cell in cells if cell.status != 'ok']
    return (
      Cell(outcomes[0])
      if outcomes
      else Cell('ok', tuple(row for cell in cells for row in cell.rows))
    )

  places = itertools.product(scores.lines, scores.seeds, enumerate(scores.columns))
  cells = {(line, seed, column): cell(line, seed, index) for line, seed, (index, column) in places}
  return dataclasses.replace(scores, cells=cells)


def _middles(firsts: list[int], length: int) -> dict[int, float]:
  """Of bins, on a logarithmic axis, tokens counted from 1."""
  ends = zip(firsts, [*firsts[1:], length], strict=True)
  return {first: math.sqrt((first + 1) * end) for first, end in ends}


def _figure(scores: Scores):
  # not pyplot: it would want a display, and figures would share state
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 5.2), layout='constrained')
  return figure, figure.add_subplot(), styles(scores.lines)


def _plot(
  axes, scores: Scores, line: str, look: dict, at: dict | None = None, **style
) -> tuple[float, float] | None:
  """Draws a line and its band; returns its last point. `at` says where columns lie, if not at their
  values.

  In the place of the band, of shares: a thin line for each seed. Tasks are learnt or not, and
    deviations hide which.
  """
  points = {
    at[column] if at else column: some
    for column in scores.columns
    if (some := scores.of(line, column))
  }
  if scores.metric.best is not max:
    return _curve(axes, points, {'label': line, **look}, **style)
  if style.get('band', True):
    for seed in scores.seeds:
      seen = [
        (column, *scores.cells[line, seed, column].scores(scores.metric))
        for column in scores.columns
      ]
      xs_ys = zip(*(point for point in seen if len(point) == 2), strict=True)
      axes.plot(*xs_ys, color=look['color'], linewidth=0.9, alpha=0.5, zorder=1.5)
  return _curve(axes, points, {'label': line, **look}, **style | {'band': 0.0})


def _curve(
  axes, points: dict[float, list[float]], look: dict, band: float = 0.15, **style
) -> tuple | None:
  """Draws means, and standard deviations as a band of that opacity, of {x: seeds' values}; returns
  the last point.
  """
  if not points:
    return None
  means = [statistics.fmean(some) for some in points.values()]
  spreads = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in points.values()]
  style = {'linewidth': 1.8, 'markeredgecolor': 'white', 'markeredgewidth': 0.7, **look, **style}
  axes.plot(list(points), means, **style | ({'marker': ''} if len(points) > POINTS else {}))
  low, high = (
    [mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1)
  )
  if band:
    axes.fill_between(list(points), low, high, color=look['color'], alpha=band, linewidth=0)
  return list(points)[-1], means[-1]


def _windowed(
  axes, controls: list[Scores], looks: dict[str, dict], at: dict | None = None
) -> list[str]:
  """Draws the windowed control; returns what the caption says of it."""
  for control in [control for control in controls if control.control == 'windowed']:
    for line in [line for line in control.lines if line in looks]:
      _plot(
        axes,
        control,
        line,
        looks[line] | {'marker': ''},
        at,
        band=0.0,
        linewidth=1.2,
        linestyle='--',
      )
    return ['Dashed: attention windowed at the training length.']
  return []


def _shade(axes, scores: Scores) -> None:
  """What was seen in training, and no more of the axis than there was."""
  left, right = axes.get_xlim()
  name = 'training length' if len(scores.train_lengths) == 1 else 'L = {}'
  for length in scores.train_lengths:
    axes.axvspan(left, length, color='#f1f1f1', linewidth=0, zorder=-1)
    axes.axvline(length, color=GREY, linestyle=':', linewidth=1.4, zorder=0)
    place = dict(xycoords=axes.get_xaxis_transform(), xytext=(-3, 3), textcoords='offset points')
    # above, where no curve is
    axes.annotate(name.format(length), (length, 1), **place, color=GREY, fontsize=9)
  axes.set_xlim(left, right)


def _lengths_axis(axes, ticks: list[int]) -> None:
  from matplotlib.ticker import MaxNLocator, NullLocator

  if ticks[-1] >= 8 * ticks[0]:
    axes.set_xscale('log', base=2)
  if len(ticks) <= POINTS:
    axes.set_xticks(ticks, [str(length) for length in ticks])
  else:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter('{x:g}')
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel('evaluation length (tokens)')


def _position_axis(axes, label: str) -> None:
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_formatter('{x:g}')
  axes.set_xlabel(f'{label} (logarithmic)')
  bare(axes)


def _scores_axis(axes, scores: Scores) -> None:
  """Logarithmic where less is better, from 0 to 1 where it is a share."""
  from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

  axes.set_ylabel(scores.metric.title.lower())
  bare(axes)
  if scores.metric.best is max:
    axes.set_ylim(-0.02, 1.04)
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


def _finish(figure, axes, scores: Scores, title: str, notes: list[str]):
  # the training length is named below it
  axes.set_title(title, loc='left', fontweight='bold', pad=20)
  caption(figure, [scores.caption, *notes, *scores.notes])
  return figure
