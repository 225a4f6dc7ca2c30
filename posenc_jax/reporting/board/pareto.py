"""The figure of the board: the cost of a step against bits at L, marked by how far lines hold."""

import math
from collections.abc import Collection, Iterable

from posenc_jax.reporting.board.lines import Line
from posenc_jax.reporting.board.smallest import smallest_marked
from posenc_jax.reporting.colors import looks
from posenc_jax.reporting.mpl.axes import as_text, new_figure, shorten, strip_spines

# Training lengths up to which a line holds at least, the largest first, and the marker for that.
MARKERS = ((32, 'P'), (8, 's'), (4, 'D'), (2, '^'), (1, 'o'))

TICKS = (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3, 4, 5, 7, 10, 20, 50)
# Where a label may stand, in points from its own: on circles around it, the nearest first.
ANGLES = (30, -30, 150, -150, 0, 180, 90, -90, 60, -60, 120, -120)
PLACES = tuple(
  (round(radius * math.cos(math.radians(angle))), round(radius * math.sin(math.radians(angle))))
  for radius in (8, 14, 22, 32, 44, 58, 74, 92)
  for angle in ANGLES
)


def draw(lines: Collection[Line], corpus: str):
  """The `matplotlib.figure.Figure` of the lines that have a score, a step time and are no
  reference; None where there are none.
  """
  shown = [
    line for line in lines if line.mean is not None and line.cost.step and not line.is_reference
  ]
  if not shown:
    return None
  with as_text():
    return _drawn(shown, f'{corpus}: quality at L against cost\n{_outlined(lines)}')


def _drawn(shown: list[Line], title: str):
  from matplotlib.lines import Line2D

  figure = new_figure(8.5, 5.2)
  axes = figure.subplots()
  strip_spines(axes)
  color_of = {name: look.color for name, look in looks({x.name: x.label for x in shown}).items()}
  best, labels, steps = float('inf'), [], [line.cost.step for line in shown]
  for line in sorted(shown, key=lambda line: (line.cost.step, line.mean)):
    is_best, best = line.mean < best, min(line.mean, best)
    axes.plot(
      line.cost.step,
      line.mean,
      _marker(line),
      color=color_of[line.name],
      markersize=11 if is_best else 8,
      markeredgecolor='black' if is_best else color_of[line.name],
    )
    labels.append(
      axes.annotate(
        shorten(line.name),
        (line.cost.step, line.mean),
        PLACES[0],
        textcoords='offset points',
        fontsize=8,
        fontweight='bold' if is_best else 'normal',
        verticalalignment='center',
        arrowprops={'arrowstyle': '-', 'color': '#aaaaaa', 'linewidth': 0.6, 'shrinkB': 3},
      )
    )
  axes.set_xscale('log')
  axes.set_xticks(
    [tick for tick in TICKS if min(steps) * 0.95 < tick < max(steps) * 1.1], minor=False
  )
  axes.xaxis.set_major_formatter('{x:g}')
  axes.minorticks_off()
  axes.set_xlabel('time of a training step, relative to rope')
  axes.set_ylabel('bits per byte at L')
  axes.set_title(title, fontsize=10)
  handles = [
    Line2D(
      [], [], linestyle='', marker=marker, color='#555555', label=f'holds to {least} L or more'
    )
    for least, marker in MARKERS[:-1]
  ]
  handles.append(
    Line2D([], [], linestyle='', marker='o', color='#555555', label='less, or not told')
  )
  axes.legend(handles=handles, fontsize=8, frameon=False)
  _part(figure, axes, labels)
  return figure


def _outlined(lines: Iterable[Line]) -> str:
  """What an outline says, and which difference seeds find."""
  text = 'outlined: nothing is better and cheaper, by the means'
  smallest = smallest_marked(lines)
  if smallest is None:
    return text
  return f'{text}\nthese seeds find a difference from rope of {smallest:.3f} in four of five cases'


def _part(figure, axes, labels) -> None:
  """Moves labels to the first place beside their point where they cover nothing, if any."""
  from matplotlib.text import Text
  from matplotlib.transforms import Bbox

  figure.draw_without_rendering()
  points = [axes.transData.transform(label.xy) for label in labels]
  taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in points]
  taken.append(axes.get_legend().get_window_extent())
  for label, own in zip(labels, list(taken), strict=False):
    others = [box for box in taken if box is not own]
    for place in (*PLACES, PLACES[0]):
      label.set_position(place)
      label.set_horizontalalignment(
        'left' if place[0] > 0 else 'right' if place[0] < 0 else 'center'
      )
      box = Text.get_window_extent(label)  # without its line
      is_inside = axes.bbox.x0 < box.x0 and box.x1 < figure.bbox.x1
      is_inside &= axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
      if is_inside and not any(box.overlaps(other) for other in others):
        break
    taken.append(Text.get_window_extent(label))


def _marker(line: Line) -> str:
  length = 0 if line.holds_to is None else line.holds_to / line.train_length
  return next((marker for least, marker in MARKERS if length >= least), MARKERS[-1][1])
