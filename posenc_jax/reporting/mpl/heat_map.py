"""The needle's heat map: how often what stood at a depth of a context of some length was found."""

import math
import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.mpl.style import GREY, caption
from posenc_jax.reporting.scores import collect

PANELS = 3  # side by side


def heat_map(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str | None = None,
  metric: str = 'exact_match',
):
  """Depth down (`position`, in per cent), length across, a panel for each line: a
  `matplotlib.figure.Figure`.

  Cells are means over seeds; a dash and no color where there is no score. `protocol` is the task's
  name, None: the one that has depths. Raises UserError as `tables.scores.collect` does, and for
  rows without a depth.
  """
  from matplotlib.figure import Figure

  rows = list(rows)
  if protocol is None:
    found = sorted(
      {row['protocol'] for row in rows if row['metric'] == metric and row['position'] is not None}
    )
    if len(found) != 1:
      raise UserError(
        f'figure: protocol=None; allowed: {", ".join(found) or "none of these rows has a depth"}'
      )
    (protocol,) = found
  if any(row['protocol'] == protocol and row['position'] is None for row in rows):
    raise UserError(
      f'figure: rows of protocol={protocol!r} have no position; allowed: a task with a depth'
    )
  cell = lambda row: (row['length'], row['position'])
  scores = collect(rows, runs, [protocol], metric, controls=False, across=cell)[0]
  lengths, depths = (sorted({column[i] for column in scores.columns}) for i in (0, 1))
  down = math.ceil(len(scores.lines) / PANELS)
  across = math.ceil(len(scores.lines) / down)
  width, height = (
    1.2 + across * max(1.8, 0.55 * len(lengths)),
    1.3 + down * (0.8 + 0.25 * len(depths)),
  )
  figure = Figure(figsize=(width, height), layout='constrained')
  panels = figure.subplots(down, across, squeeze=False, sharey=True)
  for panel in panels.flat[len(scores.lines) :]:
    panel.set_axis_off()
  places = [(line, column) for line in scores.lines for column in scores.columns]
  means = {place: statistics.fmean(some) for place in places if (some := scores.of(*place))}
  for line, panel in zip(scores.lines, panels.flat, strict=False):
    grid = [
      [means.get((line, (length, depth)), math.nan) for length in lengths] for depth in depths
    ]
    image = panel.imshow(grid, cmap='YlGnBu', vmin=0, vmax=1, aspect='auto')
    for y, of_depth in enumerate(grid):
      for x, mean in enumerate(of_depth):
        text, color = (
          ('—', GREY)
          if math.isnan(mean)
          else (f'{mean:.2f}', 'white' if mean > 0.55 else '#333333')
        )
        panel.text(x, y, text, ha='center', va='center', fontsize=7, color=color)
    panel.set_title(line, fontsize=10)
    panel.set_xticks(
      range(len(lengths)),
      [str(length) for length in lengths],
      rotation=45 if lengths[-1] > 999 else 0,
    )
    panel.set_yticks(range(len(depths)), [f'{depth} %' for depth in depths])
    panel.tick_params(length=0, labelsize=8)
    panel.spines[:].set_visible(False)
    seen = sum(length <= scores.first[line]['train_length'] for length in lengths)
    if 0 < seen < len(lengths):
      panel.axvline(seen - 0.5, color='#cc6677', linestyle=':', linewidth=1.6)
  figure.colorbar(image, ax=panels, shrink=0.6, label=scores.metric.title.lower())
  for panel in panels[:, 0]:
    panel.set_ylabel('depth', fontsize=10)
  title = f'{scores.title}: {scores.metric.title.lower()} by depth and length'
  figure.suptitle(title, x=0.01, ha='left', weight='bold')
  spreads = [statistics.stdev(some) for place in places if len(some := scores.of(*place)) > 1]
  said = (
    f' Cells are means over seeds; their standard deviations reach {max(spreads):.2f}.'
    if spreads
    else ''
  )
  notes = [
    f'Across: length in tokens; dotted: the training length.{said}',
    scores.caption,
    *scores.notes,
  ]
  caption(figure, notes, round(15 * width))
  return figure
