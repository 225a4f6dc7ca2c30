"""The needle's heat map: how often what stood at a depth of a context of some length was found."""

import math
import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.colors import GREY
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.mpl.axes import shorten, write_notes
from posenc_jax.reporting.scores import collect

PANELS = 3  # side by side
MOST_AREA = 1200  # square inches: 48 million pixels


def heat_map(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str | None = None,
  metric: str = 'exact_match',
):
  """Depth down (`position`, in per cent), length across, a panel a line: a matplotlib `Figure`.

  Cells are means over seeds; a dash without color where there is no score. `protocol` is the name
  of the task, None: the one that has depths. Raises UserError as `scores.collect` does, and for
  rows without a depth.
  """
  from matplotlib.figure import Figure

  rows = list(rows)
  protocol = protocol or _only_task_with_depths(rows, metric)
  if any(row['protocol'] == protocol and row['position'] is None for row in rows):
    raise UserError(
      f'figure: rows of protocol={protocol!r} have no position; allowed: a task with a depth'
    )
  (scores,) = collect(
    rows,
    runs,
    [protocol],
    metric,
    controls=False,
    column_of=lambda row: (row['length'], row['position']),
  )
  lengths, depths = (sorted({column[i] for column in scores.columns}) for i in (0, 1))
  down = math.ceil(len(scores.lines) / PANELS)
  across = math.ceil(len(scores.lines) / down)
  width = 1.2 + across * max(1.8, 0.55 * len(lengths))
  height = 1.3 + down * (0.8 + 0.25 * len(depths))
  if width * height > MOST_AREA:
    raise UserError(
      f'figure: {len(scores.lines)} panels of {len(lengths)} x {len(depths)} cells; '
      f'allowed: {MOST_AREA} square inches, not {width * height:.0f}'
    )
  figure = Figure(figsize=(width, height), layout='constrained')
  panels = figure.subplots(down, across, squeeze=False, sharey=True)
  for panel in panels.flat[len(scores.lines) :]:
    panel.set_axis_off()
  spreads, measured = [], {*scores.columns}
  for line, panel in zip(scores.lines, panels.flat, strict=False):
    values = [
      [scores.seed_scores(line, (n, depth)) if (n, depth) in measured else [] for n in lengths]
      for depth in depths
    ]
    spreads += [statistics.stdev(some) for row in values for some in row if len(some) > 1]
    means = [[statistics.fmean(some) if some else math.nan for some in row] for row in values]
    image = _draw_panel(panel, means, lengths, depths)
    panel.set_title(shorten(scores.label(line)), fontsize=10)
    seen = sum(length <= scores.exemplar_row[line]['train_length'] for length in lengths)
    if 0 < seen < len(lengths):
      panel.axvline(seen - 0.5, color='#cc6677', linestyle=':', linewidth=1.6)
  figure.colorbar(image, ax=panels, shrink=0.6, label=scores.metric.title.lower())
  for panel in panels[:, 0]:
    panel.set_ylabel('depth', fontsize=10)
  title = f'{scores.title}: {scores.metric.title.lower()} by depth and length'
  figure.suptitle(title, x=0.01, ha='left', weight='bold')
  note = 'Across: length in tokens; dotted: the training length.'
  if spreads:
    note += f' Cells are means over seeds; their standard deviations reach {max(spreads):.2f}.'
  write_notes(figure, [note, caption(scores), *scores.notes], round(15 * width))
  return figure


def _only_task_with_depths(rows: list[dict], metric: str) -> str:
  with_depth = [row for row in rows if row['position'] is not None]
  found = {row['protocol'] for row in with_depth if row['metric'] == metric}
  if len(found) != 1:
    allowed = ', '.join(sorted(found)) or 'none of these rows has a depth'
    raise UserError(f'figure: protocol=None; allowed: {allowed}')
  return found.pop()


def _draw_panel(panel, means: list[list[float]], lengths: list[int], depths: list[int]):
  """Draws the means of one line, each with its number; returns the image."""
  image = panel.imshow(means, cmap='YlGnBu', vmin=0, vmax=1, aspect='auto')
  for y, of_depth in enumerate(means):
    for x, mean in enumerate(of_depth):
      text, color = f'{mean:.2f}', 'white' if mean > 0.55 else '#333333'
      if math.isnan(mean):
        text, color = DASH, GREY
      panel.text(x, y, text, ha='center', va='center', fontsize=7, color=color)
  rotation = 45 if lengths[-1] > 999 else 0
  panel.set_xticks(range(len(lengths)), list(map(str, lengths)), rotation=rotation)
  panel.set_yticks(range(len(depths)), [f'{depth} %' for depth in depths])
  panel.tick_params(length=0, labelsize=8)
  panel.spines[:].set_visible(False)
  return image
