"""Rotary position embedding."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core import rope_scaling_config
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.rope_scaling import plain

LAYOUTS = ('half', 'interleaved')


def rotate(x_BTHK, angles_BTK, layout: str, factor: float = 1.0):
  """Turns the pairs of channels of x by angles [B|1, T, K/2] in radians; float32 inside, x's dtype
  outside.

  The efficient form of the paper's eq. 34. 'half': pairs (m, m + K/2), as GPT-NeoX and Llama;
  'interleaved': pairs (2m, 2m + 1), as the paper and GPT-J. The two are one permutation of channels
  apart. All is multiplied by `factor`.
  """
  x = x_BTHK.astype(jnp.float32)
  cos, sin = (factor * wave(angles_BTK)[:, :, None] for wave in (jnp.cos, jnp.sin))
  first, second = (
    (x[..., ::2], x[..., 1::2]) if layout == 'interleaved' else jnp.split(x, 2, axis=-1)
  )
  turned = first * cos - second * sin, second * cos + first * sin
  if layout == 'interleaved':
    return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x_BTHK.dtype)
  return jnp.concatenate(turned, axis=-1).astype(x_BTHK.dtype)


class RoPE(Encoding):
  """Pair m of the channels of q and k turns by position * base^(-2m/K), so that q . k depends on i
  - j.

  Su et al. 2021, eqs. 14, 15 and 34. `fraction` < 1 turns only the first fraction * K channels, the
  whole spectrum squeezed into them (GPT-J, GPT-NeoX). `scaling` extends the context, in training or
  of a trained run: a dict in the form of Hugging Face's `rope_scaling`,
  --config.encoding.scaling.rope_type=yarn --config.encoding.scaling.factor=4 (see
  rope_scaling_config.py). Types that depend on the length take the number of keys of the call: T
  last queries of S keys see what they see among S queries, and all keys turn by the frequencies of
  this call, none by those of a shorter one before.
  """

  paper = 'Su et al. 2021, arXiv:2104.09864'
  weights = 'none'
  claims = 'best at L + 100 to 200 (Press et al. 2021); 32 L by YaRN, fine-tuned (Peng et al. 2023)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    scaling: dict | None = None,
  ):
    super().__init__(dims, rngs)
    self.width = round(fraction * dims.head_dim)
    if layout not in LAYOUTS:
      raise ValueError(f'rope: layout={layout!r} must be one of {", ".join(LAYOUTS)}')
    if base <= 1:
      raise ValueError(f'rope: base={base} must be greater than 1')
    if not 0 < fraction <= 1 or self.width % 2 or self.width == 0:
      raise ValueError(
        f'rope: fraction={fraction} of head_dim={dims.head_dim} must be an even number of channels'
      )
    self.base, self.layout = base, layout
    self.scaling = rope_scaling_config.read(scaling, self.width, base, fraction, dims.train_length)

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [width / 2], fastest first; before scaling."""
    return plain(self.width, self.base)

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    """The frequencies of a call of `length` keys, and what turned channels are multiplied by."""
    return (
      (self.frequencies(), 1.0)
      if self.scaling is None
      else self.scaling(self.width, self.base, length)
    )

  def turn(self, x_BTHK, position_BT, length: int):
    """x as at these positions of a call of `length` keys."""
    frequencies, factor = self.spectrum(length)
    angles_BTK = jnp.multiply.outer(position_BT, jnp.asarray(frequencies, jnp.float32))
    turned, rest = x_BTHK[..., : self.width], x_BTHK[..., self.width :]
    turned = rotate(turned, angles_BTK, self.layout, factor)
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned

  def transform(self, q_BTHK, k_BSGK, i, j):
    S = k_BSGK.shape[1]
    return self.turn(q_BTHK, i, S), self.turn(k_BSGK, j, S)
