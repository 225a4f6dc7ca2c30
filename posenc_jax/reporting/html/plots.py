"""The curves of one axis: score against evaluation length, a line per encoding, with what a reader
may switch.

Every switch changes something of its own: the menu 'solid' the places of lines and bands, 'dashed'
those of dashed lines, 'log' and 'linear' the axis, 'bands' their filling (of shares, 'seeds' the
width of their lines), the legend what is visible. So they go together in any order.
"""

import math
import statistics
from collections.abc import Sequence

import plotly.graph_objects as go

from posenc_jax.reporting.html import style
from posenc_jax.reporting.html.measured import Measured
from posenc_jax.reporting.mpl.style import COLORS

OFF = 'nothing'
MARGIN = 46  # pixels left of the plot: an axis title and its numbers
SEED = 1.0  # pixels, the width of a seed's line


def draw(tables: Sequence[Measured]) -> go.Figure:
  """The first table is shown; any may be shown, and any dashed beside it. Hover: mean, deviation
  and every seed.
  """
  lines = list(dict.fromkeys(line for table in tables for line in table.lines))
  figure = style.figure(500 + 9 * len(lines), showlegend=True)
  for i, line in enumerate(lines):
    figure.add_traces(_traces(tables[0], line, i))
  has_chance = any(table.chance for table in tables)
  if has_chance:
    dots = dict(
      line=dict(color=style.GREY, width=1.4, dash='dot'), hovertemplate='%{text}<extra></extra>'
    )
    figure.add_trace(go.Scatter(**level(tables[0]), name='chance', mode='lines', **dots))
  figure.update_layout(
    updatemenus=_menus(tables, lines, has_chance),
    legend=dict(
      orientation='h',
      x=0,
      y=-0.15,
      yanchor='top',
      font=dict(size=12),
      tracegroupgap=0,
      itemwidth=30,
    ),
    margin=dict(l=MARGIN, r=14, t=132, b=8),
  )
  _axes(figure, tables)
  return figure


def _menus(tables: Sequence[Measured], lines: list[str], has_chance: bool) -> list[dict]:
  """Shares have no choice of axis, for 0 has no logarithm, and no bands."""
  bands, solid, dashed = ([*range(first, 3 * len(lines), 3)] for first in range(3))
  guesses = [3 * len(lines)] if has_chance else []
  curves = lambda table: [curve(table, line) for line in lines]
  shown = lambda table: [
    *(behind(table, line) for line in lines),
    *curves(table),
    *(level(table) for _ in guesses),
  ]
  if is_share(tables):
    lowest = [
      [_look('seeds', 'line.width', SEED, bands), _look('no seeds', 'line.width', 0, bands)]
    ]
  else:
    lowest = [
      [_axis('log'), _axis('linear')],
      [_look('bands', 'fill', 'toself', bands), _look('no bands', 'fill', 'none', bands)],
    ]
  return [
    _menu([_switch('solid', t, shown(t), [*bands, *solid, *guesses]) for t in tables], 0, 2),
    _menu([_switch('dashed', t, curves(t), dashed) for t in [None, *tables]], 0, 1),
    *(_menu(buttons, 160 * n, 0) for n, buttons in enumerate(lowest)),
  ]


def _axes(figure: go.Figure, tables: Sequence[Measured]) -> None:
  """Lengths, those up to the training length shaded, and scores: shares from 0 to 1."""
  lengths, trained = (
    sorted({n for t in tables for n in getattr(t, name)}) for name in ('lengths', 'train_lengths')
  )
  low, high = (math.log10(end([*lengths, *trained])) for end in (min, max))
  room = 0.04 * (high - low) or 0.1
  figure.update_xaxes(
    type='log',
    range=[low - room, high + room],
    title_text='evaluation length (tokens' + ('; k: 1,024)' if lengths[-1] >= 10_000 else ')'),
    tickvals=lengths,
    ticktext=[f'{n // 1024}k' if n >= 10_000 and n % 1024 == 0 else str(n) for n in lengths],
    tickangle=0,
  )
  kind = dict(type='linear', range=[-0.03, 1.05]) if is_share(tables) else dict(type='log')
  figure.update_yaxes(title_text=tables[0].axis, tickformat='~g', **kind)
  for length in trained:
    figure.add_vrect(10 ** (low - room), length, fillcolor=style.SEEN, line_width=0, layer='below')
    figure.add_vline(length, line=dict(color=style.GREY, dash='dot', width=1.5), layer='below')
    # its x is that of the axis, which is logarithmic; that of the line is not
    figure.add_annotation(
      x=math.log10(length), y=1, yref='paper', yanchor='bottom', xanchor='left', xshift=-4, showarrow=False,
      text=f'trained at {length:,} tokens', font=dict(size=12, color=style.GREY),
    )  # fmt: skip


def is_share(tables: Sequence[Measured]) -> bool:
  """Whether their axis is one of shares, of which more is better."""
  return tables[0].best is max


def _traces(table: Measured, line: str, rank: int) -> list[go.Scatter]:
  """Band or seeds, line and dashed line: they come and go together, as a group of the legend."""
  color, symbol = (some[rank % len(some)] for some in (COLORS, style.SYMBOLS))
  group = dict(legendgroup=str(rank), name=style.text(line))
  shown = go.Scatter(
    **curve(table, line), **group, mode='lines+markers', line=dict(color=color, width=2.2),
    marker=dict(symbol=symbol, size=8, line=dict(color='white', width=0.8)), hovertemplate='%{text}<extra></extra>',
  )  # fmt: skip
  hidden = dict(showlegend=False, **group)
  fill = dict(fill='toself', fillcolor=style.fade(color, 0.15), line=dict(width=0))
  thin = dict(line=dict(color=style.fade(color, 0.5), width=SEED))
  look = dict(mode='lines', hoverinfo='skip', **(thin if is_share([table]) else fill))
  dashes = dict(
    mode='lines',
    line=dict(color=color, width=1.6, dash='dash'),
    hovertemplate='%{text}<extra></extra>',
  )
  return [
    go.Scatter(**behind(table, line), **hidden, **look),
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


def level(table: Measured) -> dict[str, list]:
  """What guessing scores at every length; nothing where that is not known."""
  text = [
    f'chance in {style.text(table.name)}, {n:,} tokens<br><b>{value:.3g}</b>'
    for n, value in table.chance.items()
  ]
  return {'x': [*table.chance], 'y': [*table.chance.values()], 'text': text}


def behind(table: Measured, line: str) -> dict[str, list]:
  """Of shares each seed, for whole seeds learn a task or do not, and a deviation hides which; else
  a band.
  """
  return seeds(table, line) if is_share([table]) else band(table, line)


def seeds(table: Measured, line: str) -> dict[str, list]:
  """A line for each seed, apart."""
  points = {'x': [], 'y': [], 'text': []}
  for seed in table.seeds if line in table.lines and len(table.seeds) > 1 else []:
    each = [table.each[line, seed, length] for length in table.lengths]
    points['x'] += [*table.lengths, None]
    points['y'] += [*(None if isinstance(score, str) else score for score in each), None]
  return points


def band(table: Measured, line: str) -> dict[str, list]:
  """The outline of one standard deviation about the means, a closed one for every stretch that has
  scores.
  """
  outline, stretch = {'x': [], 'y': [], 'text': []}, []
  for length in [*(table.lengths if line in table.lines else []), None]:
    if scores := table.scores.get((line, length)):
      mean, spread = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
      # An axis that is logarithmic has no place for 0 or less: a band that would go there ends at
      # the lowest seed.
      stretch.append((length, mean - spread if spread < mean else min(scores), mean + spread))
    elif stretch:
      there, back = stretch, stretch[::-1]
      outline['x'] += [n for n, _, _ in there] + [n for n, _, _ in back] + [None]
      outline['y'] += [low for _, low, _ in there] + [high for _, _, high in back] + [None]
      stretch = []
  return outline


def _switch(what: str, table: Measured | None, points: list[dict], traces: list[int]) -> dict:
  data = {name: [some[name] for some in points] for name in ('x', 'y', 'text')}
  return dict(
    label=f'{what}: {style.text(table.name) if table else OFF}',
    method='restyle',
    args=[data, traces],
  )


def _axis(kind: str) -> dict:
  return dict(
    label=f'{kind} axis', method='relayout', args=[{'yaxis.type': kind, 'yaxis.autorange': True}]
  )


def _look(label: str, what: str, value: str | float, traces: list[int]) -> dict:
  return dict(label=label, method='restyle', args=[{what: value}, traces])


def _menu(buttons: list[dict], left: int, row: int) -> dict:
  """At `left` pixels in a row above the plot: a list to choose from, or, in the lowest row, buttons
  side by side.
  """
  kind = dict(type='dropdown', direction='down') if row else dict(type='buttons', direction='right')
  where = dict(
    x=0, xanchor='left', y=1, yanchor='bottom', pad=dict(l=left - MARGIN, b=24 + 36 * row)
  )
  look = dict(bgcolor='white', bordercolor='#bbbbbb', font=dict(size=12, color=style.INK))
  return dict(buttons=buttons, active=0, showactive=True, **kind, **where, **look)
