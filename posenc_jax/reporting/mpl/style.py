"""What figures have in common: colors, the names at the right, the caption below."""

import itertools
import math
import textwrap

# Paul Tol's 'muted' scheme, made for color-blind readers. Markers tell lines apart in grey, and
# beyond ten lines.
COLORS = (
  '#332288',
  '#cc6677',
  '#117733',
  '#88ccee',
  '#882255',
  '#c9b450',
  '#44aa99',
  '#aa4499',
  '#999933',
  '#555555',
)
MARKERS = 'osD^vPX<>phd'
GREY = '#777777'


def styles(lines: list[str]) -> dict[str, dict]:
  """The look of each line."""
  looks = zip(lines, itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False)
  return {line: dict(color=color, marker=marker, markersize=6.5) for line, color, marker in looks}


def bare(axes) -> None:
  axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def caption(figure, notes: list[str], width: int = 118) -> None:
  text = '\n'.join(textwrap.fill(note, width) for note in notes)
  figure.supxlabel(text, x=0.01, ha='left', fontsize=8, color=GREY)


def name_lines(axes, ends: dict[str, tuple[float, float, str]], looks: dict[str, dict]) -> None:
  """Names each line at the right, as near to its end as the names above and below allow, with its
  marker.

  Args:
    ends: a line's last x, last y and name. A leader goes from ends at the right border to their
      names.
  """
  if not ends:
    return
  transform, right = axes.get_yscale() == 'log', max(x for x, _, _ in ends.values())
  scale = math.log if transform else float
  low, high = map(scale, axes.get_ylim())
  heights = {line: (scale(y) - low) / (high - low) for line, (_, y, _) in ends.items()}
  order = sorted(heights, key=heights.get)
  for line, at in zip(
    order, apart([heights[line] for line in order], min(0.052, 1 / len(looks))), strict=True
  ):
    x, y, name = ends[line]
    if x == right:
      leader = dict(
        arrowstyle='-', color=looks[line]['color'], linewidth=0.8, alpha=0.6, shrinkA=4, shrinkB=0
      )
      axes.annotate('', (1.03, at), (x, y), 'axes fraction', 'data', leader, annotation_clip=False)
    axes.plot(
      [1.045], [at], transform=axes.transAxes, clip_on=False, markeredgecolor='white', **looks[line]
    )
    axes.text(1.065, at, name, transform=axes.transAxes, va='center', fontsize=10)


def apart(heights: list[float], gap: float) -> list[float]:
  """Ascending heights moved as little as keeps them `gap` apart: groups that touch are centred on
  their mean.
  """
  groups = []  # [centre, size]
  for height in heights:
    groups.append([height, 1])
    while (
      len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2
    ):
      (centre, size), (other, others) = groups.pop(), groups.pop()
      groups.append([(centre * size + other * others) / (size + others), size + others])
  return [centre + gap * (i - (size - 1) / 2) for centre, size in groups for i in range(size)]
