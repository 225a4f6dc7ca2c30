"""The plots of an encoding's profile: what position adds to a score, against distance."""

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from posenc_jax.reporting.html import style


def draw(panel, train_length: int, lowest: float) -> go.Figure:
  """The plot of an `inspection.profiles.Panel`, cut off below the score `lowest`."""
  figure = style.figure(250, margin=dict(l=8, r=8, t=18, b=8))
  heads = len(panel.labels)
  for head, label in enumerate(panel.labels):
    (color,) = sample_colorscale('Viridis', [0.85 * head / max(1, heads - 1)])
    mean_P = panel.mean_PH[:, head]
    if panel.spread_PH is not None:
      band = _band(panel.distances_P, mean_P, panel.spread_PH[:, head], color, 0.25 / heads)
      figure.add_trace(band)
    figure.add_trace(_line(panel.distances_P, mean_P, label, color))
  far = panel.distances_P[-1]
  ticks = [0, *(4**n for n in range(16) if 4**n <= far)]
  figure.update_xaxes(
    title_text='distance i - j (tokens)',
    tickvals=_place(ticks).tolist(),
    ticktext=list(map(str, ticks)),
  )
  low, high = panel.y_range
  low = max(low, lowest)
  room = 0.05 * (high - low) or 1.0
  figure.update_yaxes(range=[low - room, high + room])
  if far >= train_length:
    dots = dict(color=style.MUTED, dash='dot', width=1.2)
    figure.add_vline(_place(train_length).item(), line=dots, layer='below')
  return figure


def _place(distances) -> np.ndarray:
  """Where distances stand on the axis: evenly by octave, and 0 has a place too."""
  return np.log2(1 + np.asarray(distances, float))


def _line(distances_P, values_P, name: str, color: str) -> go.Scatter:
  return go.Scatter(
    x=_numbers(_place(distances_P), 6),
    y=_numbers(values_P),
    customdata=distances_P.tolist(),
    name=name,
    mode='lines',
    line=dict(color=color, width=1.6),
    hovertemplate=f'<b>{name}</b>, distance %{{customdata}}<br>%{{y}}<extra></extra>',
  )


def _band(distances_P, mean_P, spread_P, color: str, opacity: float) -> go.Scatter:
  """One standard deviation about a line, where there is one."""
  seen = np.isfinite(mean_P)
  x, low, high = (
    _numbers(values_P[seen])
    for values_P in (_place(distances_P), mean_P - spread_P, mean_P + spread_P)
  )
  fill = color.replace('rgb', 'rgba').replace(')', f', {opacity:.3g})')
  outline = dict(x=x + x[::-1], y=low + high[::-1], fill='toself', fillcolor=fill, line_width=0)
  return go.Scatter(**outline, mode='lines', hoverinfo='skip')


def _numbers(values_P, digits: int = 4) -> list[float | None]:
  """The values rounded to significant digits, None where an encoding hides the key."""
  return [float(f'{value:.{digits}g}') if np.isfinite(value) else None for value in values_P]
