"""What the encodings of a page say about distance, drawn. Imports jax."""

import dataclasses
import json

import numpy as np
import plotly.graph_objects as go
from flax import nnx
from ml_collections import ConfigDict
from plotly.colors import sample_colorscale

from posenc_jax import config, encodings, errors
from posenc_jax.evaluation.profiles import against_distance
from posenc_jax.model import layer_pattern
from posenc_jax.reporting.html import style
from posenc_jax.reporting.mpl import panels
from posenc_jax.reporting.mpl.profiles import WHAT

SAMPLES, SEED = 64, 0


@dataclasses.dataclass
class Picture:
  """An encoding as a config has it: (title, what is drawn, plot) of each panel, and what is to be
  said below.
  """

  panels: list[tuple[str, str, go.Figure]]
  notes: str


def setting(c: ConfigDict) -> str:
  """All that its picture depends on, as text: configs of one setting share a picture."""
  sizes = [c.model.heads, c.model.kv_heads, c.model.head_dim, c.train.length]
  return json.dumps([config.to_json(c.encoding), *sizes], sort_keys=True)


def kinds(name: str, c: ConfigDict) -> list[tuple[str, ConfigDict]]:
  """The config, or for a pattern of layers one for each of its encodings."""
  try:
    specs, *_ = layer_pattern.specs(dict(c.encoding))
  except ValueError:
    return [(name, c)]  # drawing it says why not
  if len(specs) == 1:
    return [(name, _with(c, specs[0]))]
  return [(f'{name}: {spec["name"]}', _with(c, spec)) for spec in specs]


def _with(c: ConfigDict, encoding: dict) -> ConfigDict:
  return config.from_json({**config.to_json(c), 'encoding': config.to_json(ConfigDict(encoding))})


def draw(c: ConfigDict, length: int) -> Picture:
  """The encoding of a config, at distances below `length` or what its table has. Raises
  UserError.
  """
  m, L = c.model, c.train.length
  sizes = dict(
    model_dim=m.heads * m.head_dim, heads=m.heads, kv_heads=m.kv_heads or None, head_dim=m.head_dim
  )
  with errors.user_errors(ValueError, TypeError):
    enc = encodings.make(**dict(c.encoding), **sizes, train_length=L, rngs=nnx.Rngs(SEED))
  length = min(length, enc.max_length or length)
  curves = against_distance(enc, length, SAMPLES, SEED)
  hyper = ', '.join(
    f'{key} = {value}' for key, value in config.flat(c.encoding).items() if key != 'name'
  )
  notes = [
    f'{enc.paper}.',
    *([f'{hyper}.'] if hyper else []),
    f'{m.heads} heads of {m.head_dim} channels.',
  ]
  if 'bias' not in curves:
    notes.append(
      f'Lines: means over {SAMPLES} draws of tokens of unit variance; bands: one standard deviation.'
    )
  if enc.max_length:
    notes.append(f'Positions end at {enc.max_length:,} tokens.')
  if not enc.relative:
    notes.append(f'It depends on absolute positions too: here the query stands at {length - 1:,}.')
  thinned = length >= panels.LONG and ('bias' not in curves or not enc.relative)
  if thinned:
    how = 'averages over' if enc.relative else 'one of each'
    notes.append(f'Far distances: {how} 1/{panels.PER_OCTAVE} octave.')
  drawn = []
  for what, (mean_RH, spread_RH) in curves.items():
    places_R = np.arange(length)
    if thinned:
      places_R, mean_RH = panels.thin(mean_RH, enc.relative)
      spread_RH = None if spread_RH is None else panels.thin(spread_RH, enc.relative)[1]
    drawn.append((*WHAT[what], _plot(places_R, mean_RH, spread_RH, L)))
  if any(value < panels.LOWEST for *_, plot in drawn for value in _heights(plot)):
    notes.append(f'What is below {panels.LOWEST:g} is not drawn.')
  return Picture(drawn, ' '.join(notes))


def _place(distances):
  """Where distances stand on the axis: evenly by octave, and 0 has a place too."""
  return np.log2(1 + np.asarray(distances, float))


def _plot(places_R, mean_RH, spread_RH, L: int) -> go.Figure:
  far, heads = places_R[-1], mean_RH.shape[1]
  figure = style.figure(250, margin=dict(l=8, r=8, t=18, b=8))
  same = np.array_equal(mean_RH, np.broadcast_to(mean_RH[:, :1], mean_RH.shape), equal_nan=True)
  for head in range(1 if same else heads):
    name = 'every head' if same else f'head {head + 1}'
    (color,) = sample_colorscale('Viridis', [0.85 * head / max(1, heads - 1)])
    if spread_RH is not None:
      figure.add_trace(_band(places_R, mean_RH[:, head], spread_RH[:, head], color, 0.25 / heads))
    figure.add_trace(_line(places_R, mean_RH[:, head], name, color))
  ticks = [0, *(4**n for n in range(16) if 4**n <= far)]
  figure.update_xaxes(
    title_text='distance i - j (tokens)',
    tickvals=_place(ticks).tolist(),
    ticktext=list(map(str, ticks)),
  )
  heights = _heights(figure)
  low, high = max(min(heights), panels.LOWEST), max(heights)
  room = 0.05 * (high - low) or 1.0
  figure.update_yaxes(range=[low - room, high + room])
  if far >= L:
    figure.add_vline(
      _place(L).item(), line=dict(color=style.GREY, dash='dot', width=1.2), layer='below'
    )
  return figure


def _heights(plot: go.Figure) -> list[float]:
  return [value for trace in plot.data for value in trace.y if value is not None]


def _line(places_R, values_R, name: str, color: str) -> go.Scatter:
  points = dict(x=_numbers(_place(places_R), 6), y=_numbers(values_R), customdata=places_R.tolist())
  label = f'<b>{name}</b>, distance %{{customdata}}<br>%{{y}}<extra></extra>'
  return go.Scatter(
    **points, name=name, mode='lines', line=dict(color=color, width=1.6), hovertemplate=label
  )


def _band(places_R, mean_R, spread_R, color: str, opacity: float) -> go.Scatter:
  """One standard deviation about a line, where there is one."""
  there = np.isfinite(mean_R)
  x, low, high = (
    _numbers(v[there]) for v in (_place(places_R), mean_R - spread_R, mean_R + spread_R)
  )
  fill = color.replace('rgb', 'rgba').replace(')', f', {opacity:.3g})')
  outline = dict(x=x + x[::-1], y=low + high[::-1], fill='toself', fillcolor=fill, line_width=0)
  return go.Scatter(**outline, mode='lines', hoverinfo='skip')


def _numbers(values_R, digits: int = 4) -> list[float | None]:
  """So many digits of each, None where an encoding hides the key."""
  return [float(f'{value:.{digits}g}') if np.isfinite(value) else None for value in values_R]
