"""The classic figures: the sinusoid, RoPE's long-term decay, ALiBi and KERPLE, T5's buckets.

`python scripts/figures.py --classic --out=DIR` draws them.
"""

import numpy as np

from posenc_jax.reporting.colors import COLORS, GREY, TEXT_GREY
from posenc_jax.reporting.mpl.axes import write_notes
from posenc_jax.reporting.mpl.panels import distance_axis, label_axes, panels


def note(figure, text: str) -> None:
  """Writes a text below the figure."""
  write_notes(figure, [text], int(15 * figure.get_figwidth()))


def draw_sinusoid():
  """Why 10000^(2m/D): wavelengths from a few tokens to more than a text has, and products that fall
  all the way.
  """
  from posenc_jax.inspection import classic_curves  # it needs jax, and rows do not

  figure, (waves, products) = panels(
    'Sinusoid: why 10000', ['Wavelengths', 'Likeness of two positions']
  )
  width, far = 512, 20_000
  distances = np.unique(np.geomspace(1, far, 1200).astype(int))
  slow_pairs = []
  for color, base in zip(COLORS, (100.0, 10_000.0, 1e6), strict=False):
    style = dict(color=color, label=f'base {base:,.0f}')
    turns = classic_curves.wavelengths(width, base)
    waves.plot(turns, linewidth=1.5, **style)
    likeness = classic_curves.sinusoid_products(distances, width, base)
    products.plot(distances, likeness, linewidth=0.9, **style)
    slow_pairs.append(f'{np.mean(turns > 4096):.0%} at base {base:,.0f}')
  waves.set_yscale('log')
  waves.axhline(4096, color=GREY, linestyle=':', linewidth=1.2)
  place = dict(xytext=(2, 3), textcoords='offset points')
  waves.annotate('4096 tokens', (0, 4096), **place, color=TEXT_GREY, fontsize=9)
  label_axes(waves, 'pair of channels m', 'tokens a turn, 2π base^(2m/D)')
  label_axes(products, 'distance r (tokens)', 'P[t + r] · P[t], over its value at r = 0')
  products.set_xscale('log')
  waves.legend(frameon=False)
  note(
    figure,
    f'Vaswani et al. 2017, section 3.5; D = {width}. With a small base even the slowest pair soon '
    'comes round, and the product says nothing about far positions; with a large one fewer pairs '
    'are left that tell near positions apart. Pairs that do not turn once in 4096 tokens: '
    f'{", ".join(slow_pairs)}.',
  )
  return figure


def draw_rope_decay():
  """The long-term decay of RoPE: the paper's bound, and what it bounds."""
  from posenc_jax.inspection import classic_curves  # it needs jax, and rows do not

  figure, (bound, score) = panels(
    "RoPE's long-term decay", ["The paper's bound", 'The expected score']
  )
  width, distances = 128, np.arange(257)
  bound_R, expected_R = classic_curves.rope_decay(distances, width)
  bound.plot(distances, bound_R, color=COLORS[0], linewidth=1.5)
  bound.set_ylim(bottom=0)
  deviation = width**-0.5
  style = dict(color=GREY, alpha=0.2, linewidth=0)
  score.axhspan(-deviation, deviation, **style, label='unrelated: 0 ± one st. dev.')
  score.plot(distances, expected_R, color=COLORS[1], linewidth=1.5, label='alike: mean of cos(r f)')
  label_axes(bound, 'distance r (tokens)', 'mean of |S_m|, m = 1 .. K/2')
  label_axes(score, 'distance r (tokens)', 'q · R k, over q · q')
  score.legend(frameon=False)
  note(
    figure,
    f'Su et al. 2021; K = {width}, base 10,000. Both panels are in units of the score of a query '
    'with itself. The bound is that of |q · R k| for q = k = 1, S_m = sum of e^(i r f_l) over '
    'l < m. What it bounds is far below it, and falls, not monotonically, where the key is the '
    'query. For unrelated ones the size of a score does not depend on r.',
  )
  return figure


def draw_alibi_kerple():
  """The slopes of ALiBi and the curves of KERPLE, a line a head."""
  from posenc_jax.inspection import profiles  # it needs jax, and rows do not

  names = {'alibi': 'ALiBi', 'kerple_log': 'KERPLE, logarithmic', 'kerple_power': 'KERPLE, power'}
  figure, axes_of = panels('ALiBi and KERPLE', names.values())
  for axes, name in zip(axes_of, names, strict=True):
    enc = profiles.from_spec(name, heads=8, head_dim=64, train_length=512, seed=0)
    bias_RH, _ = profiles.against_distance(enc, 512, 1, 0)['bias']
    for head, color in enumerate(COLORS[:8]):
      if name == 'alibi':
        label = f'slope 1/{-1 / bias_RH[1, head]:g}'
      else:
        label = f'p {enc.p[head]:.2f}, a {enc.a[head]:.2f}'
      axes.plot(bias_RH[:, head], color=color, linewidth=1.5, label=label)
    distance_axis(axes, 512, 'added to a score' if axes is axes_of[0] else '')
    axes.set_ylim(-10, 0.3)
    axes.legend(frameon=False, fontsize=8, loc='lower left')
  note(
    figure,
    'Press et al. 2021; Chi et al. 2022. Eight heads: -2^-h |r|; -p log(1 + a |r|); -a |r|^p. The '
    'slopes of ALiBi are fixed; p and a are learned, here as they start (seed 0). At -10 a key has '
    'e^-10 = 0.00005 of its weight left.',
  )
  return figure


def draw_t5_buckets():
  """Which distances share a bias in T5."""
  from posenc_jax.inspection import classic_curves  # it needs jax, and rows do not

  figure, (causal, both) = panels('T5 buckets', ['Causal, 32 buckets', 'Bidirectional, 32 buckets'])
  for color, most in zip(COLORS, (128, 512, 2048), strict=False):
    style = dict(color=color, linewidth=1.5, drawstyle='steps-post', label=f'max_distance {most:,}')
    causal.plot(classic_curves.t5_buckets(np.arange(4097), max_distance=most), **style)
  distance_axis(causal, 4097, 'bucket')
  causal.legend(frameon=False, loc='lower right')
  distances = np.arange(-150, 151)
  style = dict(color=COLORS[0], linewidth=1.5, drawstyle='steps-mid')
  for side in (distances[:150], distances[150:]):
    both.plot(side, classic_curves.t5_buckets(side, bidirectional=True), **style)
  label_axes(both, 'distance i - j (tokens); below 0 the key is later', 'bucket')
  note(
    figure,
    'Raffel et al. 2020. The first half of the buckets have one distance each, the others widen '
    'logarithmically; the last has no end and starts before max_distance, causal at 113 for 128. '
    'Bidirectional: half of them for later keys, and the last of a side starts at 91.',
  )
  return figure


CLASSIC = {
  'sinusoid': draw_sinusoid,
  'rope_decay': draw_rope_decay,
  'alibi_kerple': draw_alibi_kerple,
  't5_buckets': draw_t5_buckets,
}
