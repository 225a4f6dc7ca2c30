"""The figure of the board: the cost of a step against bits at L, marked by how far lines hold."""

from collections.abc import Iterable

from posenc_jax.reporting.board.lines import Line
from posenc_jax.reporting.colors import looks
from posenc_jax.reporting.mpl.axes import shorten, strip_spines

# Training lengths up to which a line holds at least, the largest first, and the marker for that.
MARKERS = ((32, 'P'), (8, 's'), (4, 'D'), (2, '^'), (1, 'o'))


def draw(lines: Iterable[Line], corpus: str):
  """The `matplotlib.figure.Figure` of the lines that have a score, a step time and no reference."""
  from matplotlib.figure import Figure
  from matplotlib.lines import Line2D

  shown = [
    line for line in lines if line.mean is not None and line.cost.step and not line.is_reference
  ]
  figure = Figure(figsize=(8.5, 5.2), layout='constrained')
  axes = figure.subplots()
  strip_spines(axes)
  color_of = {name: look.color for name, look in looks({x.name: x.label for x in shown}).items()}
  best = float('inf')
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
    axes.annotate(
      shorten(line.name),
      (line.cost.step, line.mean),
      (6, 4),
      textcoords='offset points',
      fontsize=8,
      fontweight='bold' if is_best else 'normal',
    )
  axes.set_xlabel('time of a training step, relative to rope')
  axes.set_ylabel('bits per byte at L')
  axes.set_title(f'{corpus}: quality at L against cost; outlined: nothing is better and cheaper')
  handles = [
    Line2D(
      [], [], linestyle='', marker=marker, color='#555555', label=f'holds to {least} L or more'
    )
    for least, marker in MARKERS[:-1]
  ]
  handles.append(Line2D([], [], linestyle='', marker='o', color='#555555', label='fails past L'))
  axes.legend(handles=handles, fontsize=8, frameon=False)
  return figure


def _marker(line: Line) -> str:
  length = 0 if line.holds_to is None else line.holds_to.length / line.train_length
  return next((marker for least, marker in MARKERS if length >= least), MARKERS[-1][1])
