"""The plot of several series on one axis: a line an encoding, with what a reader may switch.

Every switch changes something of its own: the menu 'solid' the places of lines and bands, 'dashed'
those of dashed lines, 'log' and 'linear' the axis, 'bands' their filling (of tasks, 'seeds' the
width of their lines), the legend what is visible. So they go together in any order.
"""

import math
from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from posenc_jax.reporting.colors import Look
from posenc_jax.reporting.comparisons.own_changes import train_lengths_of
from posenc_jax.reporting.html import style
from posenc_jax.reporting.metrics import Metric
from posenc_jax.reporting.series import Series, looks_of, multiple_of, references_of
from posenc_jax.rows.row_schema import OUTCOMES

NOTHING = 'nothing'
LEFT = 46  # pixels left of the plot: an axis title and its numbers
SEED_WIDTH = 1.0  # pixels, the width of a seed's line
HOVER = '%{text}<extra></extra>'


def axis_title(series: Series) -> str:
  """Series of one axis title are drawn in one plot: all accuracies together."""
  return 'accuracy' if series.scores.metric.is_accuracy else series.y_title


def draw(shown: Sequence[Series], references: Collection[str] = ()) -> go.Figure:
  """A plot of the first series; a reader may choose any, and any other, dashed, beside it.

  Pointing at a line shows its mean, deviation and every seed. `references`: labels of lines that
  are there to compare others with; they are grey, as n-grams are.
  """
  looks = looks_of(shown, references)
  lines = list(looks)
  figure = style.figure(500 + 9 * len(lines), showlegend=True)
  for rank, line in enumerate(lines):
    figure.add_traces(_traces(shown[0], line, rank, looks[line]))
  has_chance = any(series.chance for series in shown)
  if has_chance:
    dots = dict(color=style.MUTED, width=1.4, dash='dot')
    trace = dict(name='chance', mode='lines', line=dots, hovertemplate=HOVER)
    figure.add_trace(go.Scatter(**chance_trace(shown[0]), **trace))
  legend = dict(orientation='h', x=0, y=-0.19, yanchor='top', font=dict(size=12), itemwidth=30)
  figure.update_layout(
    updatemenus=_menus(shown, lines, has_chance),
    legend=dict(tracegroupgap=0, **legend),
    margin=dict(l=LEFT, r=14, t=132, b=8),
  )
  _axes(figure, shown, references)
  return figure


def _traces(series: Series, line: str, rank: int, look: Look) -> list[go.Scatter]:
  """Band or seeds, line, and dashed line: a group of the legend, which come and go together."""
  group = dict(legendgroup=str(rank), name=style.text(line))
  spread = dict(fill='toself', fillcolor=style.fade(look.color, 0.15), line=dict(width=0))
  if series.scores.metric.shows_seeds:
    spread = dict(line=dict(color=style.fade(look.color, 0.5), width=SEED_WIDTH))
  spread |= dict(mode='lines', hoverinfo='skip', showlegend=False)
  solid = dict(
    mode='lines+markers',
    line=dict(color=look.color, width=2.2),
    marker=dict(symbol=style.SYMBOLS[look.marker], size=8, line=dict(color='white', width=0.8)),
    hovertemplate=HOVER,
  )
  dashes = dict(color=look.color, width=1.6, dash='dash')
  dashed = dict(mode='lines', line=dashes, hovertemplate=HOVER, showlegend=False)
  return [
    go.Scatter(**spread_trace(series, line), **group, **spread),
    go.Scatter(**mean_trace(series, line), **group, **solid),
    go.Scatter(**mean_trace(None, line), **group, **dashed),
  ]


def seed_text(metric: Metric, score: float | str) -> str:
  """One seed's score as it is printed, or why there is none."""
  return OUTCOMES.get(score, score) if isinstance(score, str) else metric.text([score])


def mean_trace(series: Series | None, line: str) -> dict[str, list]:
  """x, mean and label at every length; nothing where the series has no such line."""
  points = {'x': [], 'y': [], 'text': []}
  if series is None or line not in series.curves:
    return points
  curve, metric = series.curves[line], series.scores.metric
  for index, (length, mean, values) in enumerate(
    zip(curve.x, curve.mean, curve.values, strict=True)
  ):
    head = f'<b>{style.text(curve.label)}</b>, {style.text(series.name)}, {length:,} tokens'
    seeds = [
      style.text(f'seed {seed}: {seed_text(metric, scores[index])}')
      for seed, scores in curve.by_seed.items()
    ]
    points['x'].append(length)
    points['y'].append(mean)
    points['text'].append('<br>'.join([head, f'<b>{metric.text(values)}</b>', *seeds]))
  return points


def chance_trace(series: Series) -> dict[str, list]:
  """What guessing scores at every length; nothing where that is not known."""
  text = [
    f'chance in {style.text(series.name)}, {length:,} tokens<br><b>{value:.3g}</b>'
    for length, value in series.chance.items()
  ]
  return {'x': [*series.chance], 'y': [*series.chance.values()], 'text': text}


def spread_trace(series: Series, line: str) -> dict[str, list]:
  """The seeds of a task, because seeds learn it or do not; else the band of deviations."""
  shows_seeds = series.scores.metric.shows_seeds
  return seed_traces(series, line) if shows_seeds else std_band(series, line)


def seed_traces(series: Series, line: str) -> dict[str, list]:
  """One trace with a line for each seed, apart; nothing of one seed."""
  points = {'x': [], 'y': [], 'text': []}
  if line in series.curves and len(series.curves[line].by_seed) > 1:
    curve = series.curves[line]
    for scores in curve.by_seed.values():
      points['x'] += [*curve.x, None]
      points['y'] += [*(None if isinstance(score, str) else score for score in scores), None]
  return points


def std_band(series: Series, line: str) -> dict[str, list]:
  """The outline of one standard deviation about the means, closed for each stretch with scores."""
  outline, stretch = {'x': [], 'y': [], 'text': []}, []
  curve = series.curves.get(line)
  points = [*zip(curve.x, curve.band, strict=True), (None, None)] if curve else []
  for length, ends in points:
    if ends:
      stretch.append((length, *ends))
    elif stretch:
      back = stretch[::-1]
      outline['x'] += [*(n for n, _, _ in stretch), *(n for n, _, _ in back), None]
      outline['y'] += [*(low for _, low, _ in stretch), *(high for _, _, high in back), None]
      stretch = []
  return outline


def train_lengths_of_all(shown: Sequence[Series], references: Collection[str]) -> list[int]:
  """The training lengths of the lines of these series that are no references, in order."""
  of_series = (train_lengths_of(series, references_of(series, references)) for series in shown)
  return sorted(set().union(*of_series))


def _axes(figure: go.Figure, shown: Sequence[Series], references: Collection[str]) -> None:
  """Lengths, shaded up to the shortest training length, and scores: accuracies from 0 to 1."""
  lengths = sorted({length for series in shown for length in series.scores.columns})
  train_lengths = train_lengths_of_all(shown, references)
  low, high = (math.log10(end([*lengths, *train_lengths])) for end in (min, max))
  room = 0.04 * (high - low) or 0.1
  title, names = shown[0].x_title, [str(length) for length in lengths]
  if lengths[-1] >= 10_000:
    title = title.replace(')', '; k: 1,024)')
    names = [f'{n // 1024}k' if n >= 10_000 and n % 1024 == 0 else str(n) for n in lengths]
  if len(train_lengths) == 1:
    title = title.replace('(', '(training lengths L, ')
    names = [
      f'{multiple_of(n, *train_lengths)}<br>{name}' for n, name in zip(lengths, names, strict=True)
    ]
  figure.update_xaxes(
    type='log',
    range=[low - room, high + room],
    title_text=title,
    tickvals=lengths,
    ticktext=names,
    tickangle=0,
  )
  metric = shown[0].scores.metric
  scale = dict(type='log')
  if metric.shows_seeds:
    extent = dict(range=[-0.03, 1.05]) if metric.is_accuracy else dict(rangemode='tozero')
    scale = dict(type='linear', **extent)
  figure.update_yaxes(title_text=axis_title(shown[0]), tickformat='~g', **scale)
  shade = dict(fillcolor=style.SHADE, line_width=0, layer='below')
  figure.add_vrect(10 ** (low - room), train_lengths[0], **shade)
  for length in train_lengths:
    side = 'left' if math.log10(length) < (low + high) / 2 else 'right'  # in sight on a phone
    figure.add_vline(length, line=dict(color=style.MUTED, dash='dot', width=1.5), layer='below')
    figure.add_annotation(
      x=math.log10(length),  # that of a logarithmic axis, unlike the x of the line
      y=1,
      yref='paper',
      yanchor='bottom',
      xanchor=side,
      xshift=-4 if side == 'left' else 4,
      showarrow=False,
      text=f'trained at {length:,} tokens',
      font=dict(size=12, color=style.MUTED),
    )


def _menus(shown: Sequence[Series], lines: list[str], has_chance: bool) -> list[dict]:
  """Scores of tasks have no choice of axis, because 0 has no logarithm, and no bands."""
  spread, solid, dashed = ([*range(first, 3 * len(lines), 3)] for first in range(3))
  chance = [3 * len(lines)] if has_chance else []
  choices, dashed_choices = [], [_switch('dashed', None, _means(None, lines), dashed)]
  for series in shown:
    spreads = [spread_trace(series, line) for line in lines]
    means = _means(series, lines)
    points = [*spreads, *means, *(chance_trace(series) for _ in chance)]
    choices.append(_switch('solid', series, points, [*spread, *solid, *chance]))
    dashed_choices.append(_switch('dashed', series, means, dashed))
  width = [
    _restyle('seeds', 'line.width', SEED_WIDTH, spread),
    _restyle('no seeds', 'line.width', 0, spread),
  ]
  fill = [_restyle('bands', 'fill', 'toself', spread), _restyle('no bands', 'fill', 'none', spread)]
  shows_seeds = shown[0].scores.metric.shows_seeds
  buttons = [width] if shows_seeds else [[_axis_type('log'), _axis_type('linear')], fill]
  return [
    _menu(choices, 0, 2),
    _menu(dashed_choices, 0, 1),
    *(_menu(some, 160 * number, 0) for number, some in enumerate(buttons)),
  ]


def _means(series: Series | None, lines: list[str]) -> list[dict]:
  return [mean_trace(series, line) for line in lines]


def _switch(what: str, series: Series | None, points: list[dict], traces: list[int]) -> dict:
  data = {name: [some[name] for some in points] for name in ('x', 'y', 'text')}
  name = style.text(series.name) if series else NOTHING
  return dict(label=f'{what}: {name}', method='restyle', args=[data, traces])


def _axis_type(kind: str) -> dict:
  change = {'yaxis.type': kind, 'yaxis.autorange': True}
  return dict(label=f'{kind} axis', method='relayout', args=[change])


def _restyle(label: str, what: str, value: str | float, traces: list[int]) -> dict:
  return dict(label=label, method='restyle', args=[{what: value}, traces])


def _menu(buttons: list[dict], left: int, row: int) -> dict:
  """A menu at `left` pixels in a row above the plot: a list, or in the lowest row buttons."""
  kind = dict(type='dropdown', direction='down') if row else dict(type='buttons', direction='right')
  place = dict(x=0, xanchor='left', y=1, yanchor='bottom')
  room = dict(l=left - LEFT, b=24 + 36 * row)
  look = dict(bgcolor='white', bordercolor='#bbbbbb', font=dict(size=12, color=style.INK))
  return dict(buttons=buttons, active=0, showactive=True, pad=room, **kind, **place, **look)
