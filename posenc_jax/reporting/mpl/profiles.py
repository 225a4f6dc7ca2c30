"""The picture of any encoding: what position adds to a score, against distance."""

import numpy as np

from posenc_jax.evaluation.profiles import against_distance, build
from posenc_jax.reporting.mpl import panels
from posenc_jax.reporting.mpl.style import COLORS

ADDED = 'score minus the score without position'
WHAT = {
  'bias': ('Bias', 'added to a score'),
  'any': ('Any key', ADDED),
  'unrelated': ('Key unrelated to the query', ADDED),
  'alike': ('Key with the content of the query', ADDED),
}


def draw(
  spec: str, length: int, heads: int, head_dim: int, train_length: int, samples: int, seed: int
):
  """A `matplotlib.figure.Figure` of `against_distance`, one line a head. Raises UserError."""
  enc = build(spec, heads, head_dim, train_length, seed)
  curves = against_distance(enc, length, samples, seed)
  notes = [f'{enc.paper}. At initialization, seed {seed}; {heads} heads of {head_dim} channels.']
  if 'bias' not in curves:
    notes.append(
      f'Lines: mean over {samples} draws of tokens of unit variance. Bands: one standard deviation.'
    )
  thinned = length >= panels.LONG and ('bias' not in curves or not enc.relative)
  if thinned:
    how = 'averages over' if enc.relative else 'one of each'
    notes.append(f'Far distances: {how} 1/{panels.PER_OCTAVE} octave.')
  if not enc.relative:
    notes.append(f'It depends on absolute positions too: here the query stands at {length - 1}.')
  figure, axes_of = panels.panels(spec, [WHAT[what][0] for what in curves])
  cuts = False
  for axes, (what, curve) in zip(axes_of, curves.items(), strict=True):
    places = np.arange(length)
    if thinned:
      places = panels.thin(places[:, None], enc.relative)[0]
      curve = [
        values if values is None else panels.thin(values, enc.relative)[1] for values in curve
      ]
    _lines(axes, places, *curve)
    cuts |= panels.distances(axes, length, WHAT[what][1] if axes is axes_of[0] else '')
  if cuts:
    notes.append(f'What is below {panels.LOWEST:g} is not drawn.')
  figure.legend(
    *axes_of[0].get_legend_handles_labels(), loc='outside right upper', frameon=False, fontsize=9
  )
  panels.notes(figure, ' '.join(notes))
  return figure


def _lines(axes, places, mean_RH, spread_RH) -> None:
  heads = mean_RH.shape[1]
  same = np.array_equal(mean_RH, np.broadcast_to(mean_RH[:, :1], mean_RH.shape), equal_nan=True)
  for head in range(1 if same else heads):
    style = dict(
      color=COLORS[head % len(COLORS)], linestyle=('-', '--', ':', '-.')[head // len(COLORS) % 4]
    )
    axes.plot(
      places,
      mean_RH[:, head],
      linewidth=1.4,
      label='every head' if same else f'head {head + 1}',
      **style,
    )
    if spread_RH is not None:
      low, high = (mean_RH[:, head] + sign * spread_RH[:, head] for sign in (-1, 1))
      axes.fill_between(places, low, high, color=style['color'], alpha=0.5 / heads, linewidth=0)
