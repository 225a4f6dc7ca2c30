"""Panels of curves against distance, side by side."""

from collections.abc import Iterable

import numpy as np

from posenc_jax.reporting.mpl.axes import new_figure, strip_spines

LONG = 128  # distances from which their axis is logarithmic


def panels(title: str, names: Iterable[str]):
  """A figure with a panel for each name, and the axes of the panels."""
  names = list(names)
  figure = new_figure(max(7.5, 5 * len(names)), 4.4)
  figure.get_layout_engine().set(wspace=0.05)
  axes_of = figure.subplots(1, len(names), squeeze=False)[0]
  figure.suptitle(title, x=0.01, ha='left', fontweight='bold')
  for axes, name in zip(axes_of, names, strict=True):
    axes.set_title(name, loc='left', fontsize=10)
  return figure, axes_of


def label_axes(axes, x: str, y: str) -> None:
  """Titles the axes and strips them."""
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  strip_spines(axes)


def distance_axis(axes, length: int, y: str, lowest: float = -np.inf) -> None:
  """Distances 0 .. length - 1 along x, logarithmic where they are many; scores from `lowest`."""
  from matplotlib.ticker import MaxNLocator, NullLocator

  label_axes(axes, 'distance i - j (tokens)', y)
  if length >= LONG:
    axes.set_xscale('symlog', base=2, linthresh=1)
    ticks = [0, *(2**n for n in range(0, length.bit_length(), 1 if length <= 1024 else 2))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
  else:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlim(0, length)
  low, high = axes.dataLim.ymin, axes.dataLim.ymax
  if not np.isfinite([low, high]).all():  # there is nothing to draw
    return
  if np.isclose(low, high, atol=1e-6):
    axes.set_ylim(low - 1, high + 1)
  if low < lowest:
    axes.set_ylim(lowest, high + 0.04 * (high - lowest))
