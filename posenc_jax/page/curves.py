"""The curves: score against evaluation length, one line per encoding, with what a reader may switch.

Every switch changes something of its own: the menu 'solid' the places of lines and bands, 'dashed' those of dashed
lines, the axis its type, 'bands' their filling, the legend what is visible. So they go together in any order.
"""

import math
import statistics
from collections.abc import Sequence

import plotly.graph_objects as go

from posenc_jax.figures.style import COLOURS
from posenc_jax.page import style
from posenc_jax.page.measured import Measured

OFF = 'nothing'
MARGIN = 46  # pixels left of the plot: an axis title and its numbers


def draw(tables: Sequence[Measured]) -> go.Figure:
  """The first table is shown; any may be shown, and any dashed beside it. Hover: mean, deviation and every seed."""
  lines = list(dict.fromkeys(line for table in tables for line in table.lines))
  figure = style.figure(500 + 9 * len(lines), showlegend=True)
  for i, line in enumerate(lines):
    figure.add_traces(_traces(tables[0], line, i))
  places = range(len(figure.data))
  bands, solid, dashed = ([*places[first::3]] for first in range(3))
  figure.update_layout(
    updatemenus=[
      _menu([_switch('solid', t, lines, [band, curve], [*bands, *solid]) for t in tables], 0, 2),
      _menu([_switch('dashed', t, lines, [curve], dashed) for t in [None, *tables]], 0, 1),
      _menu([_axis('log'), _axis('linear')], 0, 0),
      _menu([_fill('bands', 'toself', bands), _fill('no bands', 'none', bands)], 160, 0),
    ],
    legend=dict(orientation='h', x=0, y=-0.15, yanchor='top', font=dict(size=12), tracegroupgap=0, itemwidth=30),
    margin=dict(l=MARGIN, r=14, t=132, b=8),
  )
  lengths = sorted({length for table in tables for length in table.lengths})
  figure.update_xaxes(
    type='log',
    title_text='evaluation length (tokens' + ('; k: 1,024)' if lengths[-1] >= 10_000 else ')'),
    tickvals=lengths,
    ticktext=[f'{n // 1024}k' if n >= 10_000 and n % 1024 == 0 else str(n) for n in lengths],
    tickangle=0,
  )
  figure.update_yaxes(type='log', title_text=tables[0].what, tickformat='~g')
  for length in sorted({length for table in tables for length in table.train_lengths}):
    figure.add_vline(length, line=dict(color=style.GREY, dash='dot', width=1.5), layer='below')
    figure.add_annotation(  # its x is that of the axis, which is logarithmic; that of the line is not
      x=math.log10(length), y=1, yref='paper', yanchor='bottom', xanchor='left', xshift=-4, showarrow=False,
      text=f'trained at {length:,} tokens', font=dict(size=12, color=style.GREY),
    )  # fmt: skip
  return figure


def _traces(table: Measured, line: str, rank: int) -> list[go.Scatter]:
  """Band, line and dashed line: they come and go together, as a group of the legend."""
  colour, symbol = (some[rank % len(some)] for some in (COLOURS, style.SYMBOLS))
  group = dict(legendgroup=str(rank), name=style.text(line))
  shown = go.Scatter(
    **curve(table, line), **group, mode='lines+markers', line=dict(color=colour, width=2.2),
    marker=dict(symbol=symbol, size=8, line=dict(color='white', width=0.8)), hovertemplate='%{text}<extra></extra>',
  )  # fmt: skip
  hidden = dict(showlegend=False, **group)
  fill = dict(fill='toself', fillcolor=style.fade(colour, 0.15), line=dict(width=0), mode='lines', hoverinfo='skip')
  dashes = dict(mode='lines', line=dict(color=colour, width=1.6, dash='dash'), hovertemplate='%{text}<extra></extra>')
  return [
    go.Scatter(**band(table, line), **hidden, **fill),
    shown,
    go.Scatter(**curve(None, line), **hidden, **dashes),
  ]


def curve(table: Measured | None, line: str) -> dict[str, list]:
  """x, y and what stands in the label of every length; nothing where the table has no such line."""
  points = {'x': [], 'y': [], 'text': []}
  for length in table.lengths if table and line in table.lines else []:
    scores = table.scores[line, length]
    points['x'].append(length)
    points['y'].append(statistics.fmean(scores) if scores else None)
    head = f'<b>{style.text(line)}</b>, {style.text(table.name)}, {length:,} tokens'
    each = [style.text(f'seed {seed}: {table.text_of(line, seed, length)}') for seed in table.seeds]
    points['text'].append('<br>'.join([head, f'<b>{table.text(scores)}</b>', *each]))
  return points


def band(table: Measured, line: str) -> dict[str, list]:
  """The outline of one standard deviation about the means, a closed one for every stretch that has scores."""
  outline, stretch = {'x': [], 'y': [], 'text': []}, []
  for length in [*(table.lengths if line in table.lines else []), None]:
    if scores := table.scores.get((line, length)):
      mean, spread = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
      # An axis that is logarithmic has no place for 0 or less: a band that would go there ends at the lowest seed.
      stretch.append((length, mean - spread if spread < mean else min(scores), mean + spread))
    elif stretch:
      there, back = stretch, stretch[::-1]
      outline['x'] += [n for n, _, _ in there] + [n for n, _, _ in back] + [None]
      outline['y'] += [low for _, low, _ in there] + [high for _, _, high in back] + [None]
      stretch = []
  return outline


def _switch(what: str, table: Measured | None, lines: list[str], makers: list, traces: list[int]) -> dict:
  made = [make(table, line) for make in makers for line in lines]
  data = {name: [some[name] for some in made] for name in ('x', 'y', 'text')}
  return dict(label=f'{what}: {style.text(table.name) if table else OFF}', method='restyle', args=[data, traces])


def _axis(kind: str) -> dict:
  return dict(label=f'{kind} axis', method='relayout', args=[{'yaxis.type': kind, 'yaxis.autorange': True}])


def _fill(label: str, fill: str, traces: list[int]) -> dict:
  return dict(label=label, method='restyle', args=[{'fill': fill}, traces])


def _menu(buttons: list[dict], left: int, row: int) -> dict:
  """At `left` pixels in a row above the plot: a list to choose from, or, in the lowest row, buttons side by side."""
  kind = dict(type='dropdown', direction='down') if row else dict(type='buttons', direction='right')
  where = dict(x=0, xanchor='left', y=1, yanchor='bottom', pad=dict(l=left - MARGIN, b=24 + 36 * row))
  look = dict(bgcolor='white', bordercolor='#bbbbbb', font=dict(size=12, color=style.INK))
  return dict(buttons=buttons, active=0, showactive=True, **kind, **where, **look)
