"""The look that figures share: markers, axes, the names at the right, the notes below."""

import itertools
import math
import textwrap

from posenc_jax.errors import UserError
from posenc_jax.reporting.colors import COLORS, GREY

MARKERS = 'osD^vPX<>phd'
MOST_LINES = 200  # of a figure
MOST_NOTE_LINES = 14
LONGEST_NAME = 60  # characters: a longer name leaves no room for the curves


def styles(lines: list[str]) -> dict[str, dict]:
  """The color and marker of each line. Markers tell lines apart in grey, and beyond ten lines."""
  looks = zip(lines, itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False)
  return {line: dict(color=color, marker=marker, markersize=6.5) for line, color, marker in looks}


def shorten(name: str) -> str:
  """The name as a figure has room for it, its middle left out where it is too long."""
  half = LONGEST_NAME // 2
  return name if len(name) <= LONGEST_NAME else f'{name[: half - 1]}…{name[-half:]}'


def check_number(lines: list[str]) -> None:
  """Raises UserError for more lines than a figure has room for."""
  if len(lines) > MOST_LINES:
    raise UserError(f'figure: {len(lines)} lines; allowed: at most {MOST_LINES}')


def strip_spines(axes) -> None:
  """Leaves the axes a light horizontal grid, and no frame above and at the right."""
  axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def write_notes(figure, notes: list[str], width: int = 118) -> None:
  """Writes the notes, each wrapped to `width` characters, below the figure.

  More than MOST_NOTE_LINES would leave no room for the curves: then the last of these says so.
  """
  lines = [line for note in notes for line in textwrap.wrap(note, width)]
  if len(lines) > MOST_NOTE_LINES:
    lines = [*lines[: MOST_NOTE_LINES - 1], '... and more, which stands below the table.']
  text = '\n'.join(lines)
  figure.supxlabel(text, x=0.01, ha='left', fontsize=8, color=GREY)


def name_lines(axes, ends: dict[str, tuple[float, float, str]], looks: dict[str, dict]) -> None:
  """Names each line at the right, beside its marker, as near to its end as other names allow.

  Args:
    ends: the last x, last y and name of each line. A leader goes from the ends that lie at the
      right border to their names.
  """
  if not ends:
    return
  scale = math.log if axes.get_yscale() == 'log' else float
  right = max(x for x, _, _ in ends.values())
  low, high = map(scale, axes.get_ylim())
  heights = {line: (scale(y) - low) / (high - low) for line, (_, y, _) in ends.items()}
  order = sorted(heights, key=heights.get)
  spread = spread_labels([heights[line] for line in order], min(0.052, 1 / len(looks)))
  for line, height in zip(order, spread, strict=True):
    x, y, name = ends[line]
    if x == right:
      leader = dict(
        arrowstyle='-', color=looks[line]['color'], linewidth=0.8, alpha=0.6, shrinkA=4, shrinkB=0
      )
      end = (1.03, height)
      axes.annotate('', end, (x, y), 'axes fraction', 'data', leader, annotation_clip=False)
    look = dict(transform=axes.transAxes, clip_on=False, markeredgecolor='white', **looks[line])
    axes.plot([1.045], [height], **look)
    axes.text(1.065, height, shorten(name), transform=axes.transAxes, va='center', fontsize=10)


def spread_labels(heights: list[float], gap: float) -> list[float]:
  """Ascending heights, moved as little as keeps them `gap` apart.

  Heights that would touch become a group, which is centered on the mean of its members.
  """
  groups = []  # [center, size]
  for height in heights:
    groups.append([height, 1])
    while len(groups) > 1:
      (below, number_below), (above, number_above) = groups[-2:]
      if above - below >= gap * (number_above + number_below) / 2:
        break
      number = number_below + number_above
      groups[-2:] = [[(below * number_below + above * number_above) / number, number]]
  return [center + gap * (i - (size - 1) / 2) for center, size in groups for i in range(size)]
