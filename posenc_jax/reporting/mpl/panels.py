"""How pictures look: panels side by side, axes, notes below."""

import textwrap

import numpy as np

from posenc_jax.reporting.mpl.style import GREY

LOWEST = -16.0  # scores below are not drawn: e^-16 is 1e-7
LONG = 128  # distances from which their axis is logarithmic
PER_OCTAVE = 12  # points that what is noisy is drawn at


def panels(title: str, names):
  """A figure with a panel for each name, and those."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(max(7.5, 5 * len(names)), 4.4), layout='constrained')
  figure.get_layout_engine().set(wspace=0.05)
  axes_of = figure.subplots(1, len(names), squeeze=False)[0]
  figure.suptitle(title, x=0.01, ha='left', fontweight='bold')
  for axes, name in zip(axes_of, names, strict=True):
    axes.set_title(name, loc='left', fontsize=10)
  return figure, axes_of


def labels(axes, x: str, y: str) -> None:
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def distances(axes, length: int, y: str) -> bool:
  """Distances 0 .. length - 1 along x, logarithmic but for the first where there are many. Whether
  LOWEST cuts.
  """
  from matplotlib.ticker import MaxNLocator, NullLocator

  labels(axes, 'distance i - j (tokens)', y)
  if length >= LONG:
    axes.set_xscale('symlog', base=2, linthresh=1)
    ticks = [0, *(2**n for n in range(0, length.bit_length(), 1 if length <= 1024 else 2))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
  else:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlim(0, length)
  if np.isclose(axes.dataLim.ymin, axes.dataLim.ymax, atol=1e-6):
    axes.set_ylim(axes.dataLim.ymin - 1, axes.dataLim.ymax + 1)
  if cuts := axes.dataLim.ymin < LOWEST:
    axes.set_ylim(LOWEST, axes.dataLim.ymax + 0.04 * (axes.dataLim.ymax - LOWEST))
  return cuts


def thin(values_RH, average: bool):
  """Places and values of every distance near by, and of PER_OCTAVE an octave where they are more.

  Of a group of far distances the mean, or the value in its middle: a mean of what is unlike from
    one distance to the
  next would look like a decay.
  """
  length = len(values_RH)
  edges = np.unique(np.round(2 ** np.arange(0, np.log2(length), 1 / PER_OCTAVE)).astype(int))
  edges = np.concatenate([[0], edges[edges < length]])
  sizes = np.diff(np.append(edges, length))
  if not average:
    return edges + sizes // 2, values_RH[edges + sizes // 2]
  return edges + (sizes - 1) / 2, np.add.reduceat(values_RH, edges, axis=0) / sizes[:, None]


def notes(figure, text: str) -> None:
  wide = int(15 * figure.get_figwidth())
  figure.supxlabel(textwrap.fill(text, wide), x=0.01, ha='left', fontsize=8, color=GREY)
