"""Sinusoidal absolute positions."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding, input_positions
from posenc_jax.encodings.core.bounds import check_above, check_at_least, check_one_of
from posenc_jax.xla_ops import add_rounded_once, outer

LAYOUTS = ('interleaved', 'half', 'tensor2tensor')


def sinusoid(positions, width: int, *, layout: str = 'interleaved', base: float = 10_000.0):
  """Sines and cosines [..., width] of positions [...], float32; an odd width ends in a zero.

  'interleaved': P[t, 2m] = sin(t / base^(2m/D)), P[t, 2m+1] = cos(same) (Vaswani et al. 2017,
  section 3.5). 'half': [sin | cos] with the same frequencies (Transformer-XL).
  'tensor2tensor': [sin | cos] with frequencies base^(-m / (D/2 - 1)): the longest wavelength is
  exactly 2 pi base.
  """
  half = width // 2
  if layout == 'tensor2tensor':
    frequencies = base ** (-np.arange(half) / max(half - 1, 1))
  else:
    frequencies = base ** (-2 * np.arange(half) / width)
  angles = outer(jnp.asarray(positions, jnp.float32), jnp.asarray(frequencies, jnp.float32))
  sin, cos = jnp.sin(angles), jnp.cos(angles)
  if layout == 'interleaved':
    waves = jnp.stack([sin, cos], axis=-1).reshape(*angles.shape[:-1], 2 * half)
  else:
    waves = jnp.concatenate([sin, cos], axis=-1)
  return jnp.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(0, width - 2 * half)])


class Sinusoidal(Encoding):
  """x_t = sqrt(D) E[token_t] + P[t], P fixed sines and cosines (Vaswani et al. 2017, section 3.5).

    P[t, 2m] = sin(t / base^(2m/D)),   P[t, 2m + 1] = cos(t / base^(2m/D))

  Other layouts: see `sinusoid`. P is defined for every t, also past the training length. The model
  multiplies token embeddings by sqrt(D), as the original does (section 3.4). With `learned_scale`
  it is sqrt(D) (E[token_t] + c P[t]), c a number that starts at D^-1/2, where nothing is changed:
  as x-transformers has it, where P comes as [sin | cos] and nothing is multiplied by sqrt(D).

  Where a token has several positions, `axes`, each has D/axes channels, one after another, whose
  waves are those of that width. In vision transformers such a P of rows and columns is added to
  patches: with `layout` 'half' in MAE (He et al. 2021) and DiT (Peebles and Xie 2022), with
  'tensor2tensor' in SimpleViT (Beyer et al. 2022). Without positions, all of them are the token's
  index.
  """

  paper = 'Vaswani et al. 2017, arXiv:1706.03762'
  parameter_summary = 'none, or a number'
  reported_extrapolation = 'best at L + 20 to 50 (Press et al. 2021)'
  limit = 'angles are float32: a million positions out, waves are off by some 0.06'
  position_kind = 'floats'
  relative = False

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    layout: str = 'interleaved',
    base: float = 10_000.0,
    learned_scale: bool = False,
    axes: int = 1,
  ):
    """Keeps the hyperparameters.

    Args:
      layout: the order of sines and cosines, one of LAYOUTS.
      base: of the wavelengths.
      learned_scale: whether P is multiplied by a learned number.
      axes: how many positions a token has.
    """
    super().__init__(dims, rngs)
    check_at_least(1, axes=axes)
    if axes > 1 and dims.model_dim % (2 * axes):
      allowed = f'1, or a divisor of half of model_dim={dims.model_dim}'
      raise ValueError(f'axes={axes}; allowed: {allowed}')
    self.positions_per_token = axes
    check_one_of(LAYOUTS, layout=layout)
    check_above(1, base=base)
    self.layout, self.base, self.learned_scale = layout, base, learned_scale
    if learned_scale:
      self.c = nnx.Param(jnp.float32(dims.model_dim**-0.5))

  def add_to_input(self, x_BTD, position_ids):
    D, axes = x_BTD.shape[-1], self.positions_per_token
    position_ids = input_positions(x_BTD, position_ids, axes)
    p = sinusoid(position_ids, D // axes, layout=self.layout, base=self.base)
    p_BTD = p.reshape(*position_ids.shape[:2], D)  # the axes' channels one after another
    if self.learned_scale:
      p_BTD = self.dims.model_dim**0.5 * self.c[...] * p_BTD
    return add_rounded_once(x_BTD, p_BTD)
