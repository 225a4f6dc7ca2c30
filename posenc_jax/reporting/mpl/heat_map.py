"""A heat map of depth and length: how well what stands at a depth of a context is found."""

import math
from collections.abc import Collection, Iterable

from posenc_jax.errors import UserError
from posenc_jax.protocols import of_rows
from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.colors import TEXT_GREY, Look, looks
from posenc_jax.reporting.metrics import DASH, Metric, metric_of
from posenc_jax.reporting.mpl.axes import new_figure, shorten, write_notes
from posenc_jax.reporting.scores.collecting import check_depths, collect
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.series import multiple_of

PANELS = 3  # side by side
MOST_AREA = 1200  # square inches: 48 million pixels


def heat_map(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocol: str | None = None,
  metric: str = 'exact_match',
  labels: Collection[str] = (),
):
  """Depth down (`position`, in per cent), length across, a panel a line: a matplotlib `Figure`.

  A cell is the worst of the seeds, since a mean of seeds that find and seeds that do not is a score
  of none; the panel's title says how many seeds find all. A dash without color stands where there
  is no score. `protocol` is the name of the task, None: the one that has depths; `labels` as
  `figures.draw` has them. Raises UserError as `collecting.collect` does, and for rows that have
  no depth, or several things at several.
  """
  rows = list(rows)
  protocol = protocol or _only_task_with_depths(rows, metric)
  check_depths('figure', protocol)
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
    labels=labels,
  )
  lengths, depths = (sorted({column[i] for column in scores.columns}) for i in (0, 1))
  down = math.ceil(len(scores.lines) / PANELS)
  across = math.ceil(len(scores.lines) / down)
  width = 1.2 + across * max(2.6, 0.55 * len(lengths))
  height = 1.3 + down * (1.1 + 0.25 * len(depths))
  if width * height > MOST_AREA:
    raise UserError(
      f'figure: {len(scores.lines)} panels of {len(lengths)} x {len(depths)} cells; '
      f'allowed: {MOST_AREA} square inches, not {width * height:.0f}'
    )
  figure = new_figure(width, height)
  panels = figure.subplots(down, across, squeeze=False, sharey=True)
  for panel in panels.flat[len(scores.lines) :]:
    panel.set_axis_off()
  cells_of = {line: _worst(scores, line, lengths, depths) for line in scores.lines}
  highest = _highest(cells_of.values(), scores.metric)
  look_of = looks({line: row['label'] for line, row in scores.exemplar_row.items()})
  for line, panel in zip(scores.lines, panels.flat, strict=False):
    train_length = scores.exemplar_row[line]['train_length']
    _draw_cells(panel, cells_of[line], scores.metric, highest)
    _name_cells(panel, lengths, depths, train_length)
    _name_panel(panel, shorten(scores.label(line)), _whole(scores, line), look_of[line])
    seen = sum(length <= train_length for length in lengths)
    if 0 < seen < len(lengths):
      panel.axvline(seen - 0.5, color='#1a1a1a', linestyle=':', linewidth=1.6)
  for panel in panels[:, 0]:
    panel.set_ylabel('depth', fontsize=10)
  title = f'{scores.title}: {scores.metric.title.lower()} by depth and length'
  figure.suptitle(title, x=0.01, ha='left', weight='bold')
  note = 'Across: length in training lengths L and in tokens; dotted: L.'
  notes = [note, caption(scores, drawn='Cells: the worst of {}'), *scores.notes]
  write_notes(figure, notes, round(15 * width))
  return figure


def _only_task_with_depths(rows: list[dict], metric: str) -> str:
  is_asked = metric_of(metric, rows).matches
  found = {
    row['protocol']
    for row in rows
    if row['position'] is not None and is_asked(row) and of_rows(row['protocol']).is_by_depth
  }
  if len(found) != 1:
    allowed = ', '.join(sorted(found)) or 'none of these rows has a depth'
    raise UserError(f'figure: protocol=None; allowed: {allowed}')
  return found.pop()


def _worst(scores: Scores, line: str, lengths: list[int], depths: list[int]) -> list[list[float]]:
  """The worst seed's score of each cell, depth by depth; nan where there is none."""
  worst = max if scores.metric.best is min else min
  return [
    [worst(scores.seed_scores(line, (length, depth)), default=math.nan) for length in lengths]
    for depth in depths
  ]


def _whole(scores: Scores, line: str) -> str:
  """How many seeds are right in every cell that they have, of accuracies and several seeds."""
  if not scores.metric.is_accuracy or len(scores.seeds) < 2:
    return ''
  number, whole = 0, 0
  for seed in scores.seeds:
    values = [scores.by_seed[line, seed, column].value(scores.metric) for column in scores.columns]
    known = [value for value in values if value is not None]
    number += bool(known)
    whole += bool(known) and all(value == 1 for value in known)
  return f'{whole} of {number} seeds right in every cell'


def _text(value: float, metric: Metric) -> str:
  """The score of a cell: '0.83', and of accuracies '1' for what is right without exception."""
  if math.isnan(value):
    return DASH
  if not metric.is_accuracy:
    return f'{value:.2f}'
  return '1' if value == 1 else f'{min(value, 0.99):.2f}'


def _highest(panels: Iterable[list[list[float]]], metric: Metric) -> float:
  """The score at the end of the scale of colors, which all panels share."""
  scores = (cell for cells in panels for row in cells for cell in row if cell > 1)
  return 1.0 if metric.is_accuracy else max(scores, default=1.0)


def _draw_cells(panel, cells: list[list[float]], metric: Metric, highest: float) -> None:
  """Draws the cells of one line, a gap between them, each with its number."""
  colors = 'YlGnBu_r' if metric.best is min else 'YlGnBu'
  panel.imshow(cells, cmap=colors, vmin=0, vmax=highest, aspect='auto')
  for y, of_depth in enumerate(cells):
    for x, cell in enumerate(of_depth):
      darkness = cell / highest if metric.best is not min else 1 - cell / highest
      color = TEXT_GREY if math.isnan(cell) else 'white' if darkness > 0.55 else '#333333'
      panel.text(x, y, _text(cell, metric), ha='center', va='center', fontsize=7, color=color)
  panel.set_xticks([x - 0.5 for x in range(1, len(cells[0]))], minor=True)
  panel.set_yticks([y - 0.5 for y in range(1, len(cells))], minor=True)
  panel.grid(which='minor', color='white', linewidth=1.4)
  panel.tick_params(which='both', length=0, labelsize=8)
  panel.spines[:].set_visible(False)


def _name_cells(panel, lengths: list[int], depths: list[int], train_length: int) -> None:
  names = [f'{multiple_of(length, train_length)}\n{length}' for length in lengths]
  panel.set_xticks(range(len(lengths)), names)
  panel.set_yticks(range(len(depths)), [f'{depth} %' for depth in depths])


def _name_panel(panel, name: str, whole: str, look: Look) -> None:
  """Names a panel, beside the mark that its line has in other figures."""
  from matplotlib.transforms import offset_copy

  panel.set_title(name, loc='left', x=0.07, pad=18, fontsize=10, fontweight='bold')
  above = offset_copy(panel.transAxes, panel.figure, y=22, units='points')
  panel.plot([0.03], [1], color=look.color, marker=look.marker, transform=above, clip_on=False)
  place = dict(xycoords='axes fraction', xytext=(0, 5), textcoords='offset points')
  panel.annotate(whole, (0, 1), **place, fontsize=8, color=TEXT_GREY)
