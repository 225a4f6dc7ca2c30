"""The extrapolation figure, made from rows and nothing else: score against evaluation length, one line per encoding."""

import math
import statistics
import textwrap
from collections.abc import Iterable

from posenc_jax.tables import METRICS, Table, extrapolation

# Paul Tol's 'muted' scheme, made for colour-blind readers. Markers tell lines apart in grey, and beyond ten lines.
COLOURS = ('#332288', '#cc6677', '#117733', '#88ccee', '#882255', '#c9b450', '#44aa99', '#aa4499', '#999933', '#555555')
MARKERS = 'osD^vPX<>phd'
GREY = '#777777'


def draw(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str = 'last_k',
  metric: str = 'ppl',
  windowed: bool = False,
):
  """A `matplotlib.figure.Figure`: bands are one standard deviation over seeds, dashed lines the windowed control.

  A line ends where its encoding has no value. Raises UserError as `tables.extrapolation` does.
  """
  from matplotlib.figure import Figure  # not pyplot: it would want a display, and figures would share state

  table, *controls = extrapolation(rows, runs, [protocol], metric)
  figure = Figure(figsize=(8, 5.2), layout='constrained')
  axes = figure.add_subplot()
  styles = {
    line: dict(color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=6.5)
    for i, line in enumerate(table.lines)
  }
  ends = {line: _plot(axes, table, line, label=line, linewidth=1.8, **style) for line, style in styles.items()}
  for control in [table for table in controls if windowed and table.control == 'windowed']:
    for line in [line for line in control.lines if line in styles]:
      _plot(axes, control, line, band=0.0, linewidth=1.2, linestyle='--', color=styles[line]['color'])
  _scales(axes, table)
  _names(axes, table, {line: end for line, end in ends.items() if end}, styles)
  axes.set_title(table.title, loc='left', fontweight='bold')
  notes = [table.caption, *(['Dashed: attention windowed at the training length.'] if windowed else []), *table.notes]
  figure.supxlabel('\n'.join(textwrap.fill(note, 118) for note in notes), x=0.01, ha='left', fontsize=8, color=GREY)
  return figure


def _plot(axes, table: Table, line: str, band: float = 0.15, **style) -> tuple[int, float] | None:
  """Draws a line and its band (of that opacity); returns its last point."""
  scores = {length: some for length in table.lengths if (some := table.scores(line, length))}
  if not scores:
    return None
  lengths, means = list(scores), [statistics.fmean(some) for some in scores.values()]
  spreads = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in scores.values()]
  axes.plot(lengths, means, markeredgecolor='white', markeredgewidth=0.7, **style)
  low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
  axes.fill_between(lengths, low, high, color=style['color'], alpha=band, linewidth=0)
  return lengths[-1], means[-1]


def _scales(axes, table: Table) -> None:
  from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

  axes.set_xscale('log', base=2)
  axes.set_yscale('log')
  low, high = axes.get_ylim()
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
  mantissas = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5)
  round_numbers = [m * 10.0**decade for decade in decades for m in mantissas]
  ticks = round_numbers if high > 2 * low else MaxNLocator(5).tick_values(low, high)
  axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
  axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.set_xticks(table.lengths, [str(length) for length in table.lengths])
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel('evaluation length (tokens)')
  axes.set_ylabel(METRICS[table.metric][0].lower())
  axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  for length in table.train_lengths:
    axes.axvline(length, color=GREY, linestyle=':', linewidth=1.4, zorder=0)
    place = dict(xy=(length, 1), xycoords=axes.get_xaxis_transform(), xytext=(5, -2), textcoords='offset points')
    axes.annotate('training length', **place, color=GREY, fontsize=9, va='top')


def _names(axes, table: Table, ends: dict[str, tuple[int, float]], styles: dict[str, dict]) -> None:
  """Names each line at the right, as near to its end as the names above and below allow, with its marker."""
  low, high = map(math.log, axes.get_ylim())
  heights = {line: (math.log(score) - low) / (high - low) for line, (_, score) in ends.items()}
  order = sorted(heights, key=heights.get)
  for line, at in zip(order, _apart([heights[line] for line in order], min(0.052, 1 / len(styles))), strict=True):
    length, score = ends[line]
    if length == table.lengths[-1]:
      leader = dict(arrowstyle='-', color=styles[line]['color'], linewidth=0.8, alpha=0.6, shrinkA=4, shrinkB=0)
      axes.annotate('', (1.03, at), (length, score), 'axes fraction', 'data', leader, annotation_clip=False)
    name = line if length == table.lengths[-1] else f'{line} (to {length})'
    axes.plot([1.045], [at], transform=axes.transAxes, clip_on=False, markeredgecolor='white', **styles[line])
    axes.text(1.065, at, name, transform=axes.transAxes, va='center', fontsize=10)


def _apart(heights: list[float], gap: float) -> list[float]:
  """Ascending heights moved as little as keeps them `gap` apart: groups that touch are centred on their mean."""
  groups = []  # [centre, size]
  for height in heights:
    groups.append([height, 1])
    while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
      (centre, size), (other, others) = groups.pop(), groups.pop()
      groups.append([(centre * size + other * others) / (size + others), size + others])
  return [centre + gap * (i - (size - 1) / 2) for centre, size in groups for i in range(size)]
