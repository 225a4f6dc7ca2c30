"""The look that figures share: markers, axes, the names at the right, the notes below."""

import math
import textwrap
from collections.abc import Callable, Iterable
from typing import NamedTuple

from posenc_jax.errors import UserError
from posenc_jax.reporting.colors import TEXT_GREY

MOST_LINES = 200  # of a figure
MOST_NOTE_LINES = 14
# Fonts for Chinese, Japanese and Korean, of those that systems have.
EAST_ASIAN = (
  'Noto Sans CJK SC', 'Noto Sans CJK JP', 'Noto Sans CJK KR', 'Source Han Sans SC',
  'WenQuanYi Micro Hei', 'Microsoft YaHei', 'Yu Gothic', 'Malgun Gothic',
  'PingFang SC', 'Hiragino Sans', 'Apple SD Gothic Neo',
)  # fmt: skip
LONGEST_NAME = 60  # characters: a longer name leaves no room for the curves


def as_text():
  """The context in which a figure is drawn: names are text, a '$' in one of them is no formula, and
  characters that the font lacks are those of EAST_ASIAN.
  """
  import matplotlib as mpl
  from matplotlib.font_manager import fontManager

  known = set(fontManager.get_font_names())
  families = [*mpl.rcParams['font.family'], *(name for name in EAST_ASIAN if name in known)]
  return mpl.rc_context({'text.parse_math': False, 'text.usetex': False, 'font.family': families})


def new_figure(width: float, height: float):
  """An empty figure of so many inches."""
  # not pyplot: it would want a display, and figures would share state
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), layout='constrained')


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


def with_room(places: Iterable[float], scale: Callable[[float], float], room: float) -> list[float]:
  """The places on an axis that are `room` apart on its scale, the first ones rather than others; in
  ascending order.
  """
  kept = []
  for place in places:
    if all(abs(scale(place) - scale(other)) >= room for other in kept):
      kept.append(place)
  return sorted(kept)


def write_notes(figure, notes: list[str], width: int = 118) -> None:
  """Writes the notes, each wrapped to `width` characters, below the figure.

  More than MOST_NOTE_LINES would leave no room for the curves: then the last of these says so.
  """
  lines = [line for note in notes for line in textwrap.wrap(note, width)]
  if len(lines) > MOST_NOTE_LINES:
    lines = [*lines[: MOST_NOTE_LINES - 1], '... and more, which stands below the table.']
  # Room for some is there; more must not take it from the curves.
  figure.set_figheight(figure.get_figheight() + 0.14 * max(0, len(lines) - 5))
  text = '\n'.join(lines)
  figure.supxlabel(text, x=0.01, ha='left', fontsize=8, color=TEXT_GREY)


class Name(NamedTuple):
  """The name of a line at the right of its axes.

  Attributes:
    y: where on the y axis the name belongs; None: below those of all other lines.
    end: the last point of the line, if a leader is to go from it to the name.
  """

  text: str
  y: float | None = None
  end: tuple[float, float] | None = None


def name_lines(axes, names: dict[str, Name], looks: dict[str, dict]) -> None:
  """Names each line at the right, beside its marker, as near to its place as other names allow."""
  if not names:
    return
  scale = math.log if axes.get_yscale() == 'log' else float
  low, high = map(scale, axes.get_ylim())
  gap = min(0.052, 1 / len(names))
  heights = {
    line: (scale(name.y) - low) / (high - low) for line, name in names.items() if name.y is not None
  }
  bottom = min([0.5, *heights.values()])
  homeless = [line for line, name in names.items() if name.y is None]
  heights |= {line: bottom - gap * (1 + rank) for rank, line in enumerate(homeless)}
  order = sorted(heights, key=heights.get)
  spread = lower_labels(spread_labels([heights[line] for line in order], gap), gap)
  for line, height in zip(order, spread, strict=True):
    name, look = names[line], looks[line]
    if name.end:
      leader = dict(
        arrowstyle='-', color=look['color'], linewidth=0.8, alpha=0.6, shrinkA=4, shrinkB=0
      )
      start = (1.03, height)
      axes.annotate('', start, name.end, 'axes fraction', 'data', leader, annotation_clip=False)
    place = dict(transform=axes.transAxes, clip_on=False, markeredgecolor='white')
    axes.plot([1.045], [height], **place, **look)
    size = max(3, min(10, 230 * gap))  # points: very many names are small, or they would overlap
    place = dict(transform=axes.transAxes, va='center', fontsize=size)
    axes.text(1.065, height, shorten(name.text), **place)


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


def lower_labels(heights: list[float], gap: float) -> list[float]:
  """Ascending heights, of which none stands above the axes any more; they stay `gap` apart."""
  lowered, highest = [], 1.0
  for height in reversed(heights):
    lowered.append(min(height, highest))
    highest = lowered[-1] - gap
  return lowered[::-1]
