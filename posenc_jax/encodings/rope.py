"""Rotary position embedding."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.base import Dims, Encoding

LAYOUTS = ('half', 'interleaved')


def rotate(x_BTHK, angles_BTK, layout: str):
  """Turns the pairs of channels of x by angles [B|1, T, K/2] in radians; float32 inside, x's dtype outside.

  The efficient form of the paper's eq. 34. 'half': pairs (m, m + K/2), as GPT-NeoX and Llama; 'interleaved': pairs
  (2m, 2m + 1), as the paper and GPT-J. The two are one permutation of channels apart.
  """
  x = x_BTHK.astype(jnp.float32)
  cos, sin = jnp.cos(angles_BTK)[:, :, None], jnp.sin(angles_BTK)[:, :, None]
  first, second = (x[..., ::2], x[..., 1::2]) if layout == 'interleaved' else jnp.split(x, 2, axis=-1)
  turned = first * cos - second * sin, second * cos + first * sin
  if layout == 'interleaved':
    return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x_BTHK.dtype)
  return jnp.concatenate(turned, axis=-1).astype(x_BTHK.dtype)


class RoPE(Encoding):
  """Pair m of the channels of q and k turns by position * base^(-2m/K), so that q . k depends on i - j.

  Su et al. 2021, eqs. 14, 15 and 34.
  `fraction` < 1 turns only the first fraction * K channels, the whole spectrum squeezed into them (GPT-J, GPT-NeoX).
  """

  paper = 'Su et al. 2021, arXiv:2104.09864'

  def __init__(self, dims: Dims, rngs, *, base: float = 10_000.0, layout: str = 'half', fraction: float = 1.0):
    super().__init__(dims, rngs)
    self.width = round(fraction * dims.head_dim)
    if layout not in LAYOUTS:
      raise ValueError(f'rope: layout={layout!r} must be one of {", ".join(LAYOUTS)}')
    if base <= 1:
      raise ValueError(f'rope: base={base} must be greater than 1')
    if not 0 < fraction <= 1 or self.width % 2 or self.width == 0:
      raise ValueError(f'rope: fraction={fraction} of head_dim={dims.head_dim} must be an even number of channels')
    self.base, self.layout = base, layout

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [width / 2], fastest first."""
    return self.base ** (-2 * np.arange(self.width // 2) / self.width)

  def transform(self, q_BTHK, k_BSGK, i, j):
    frequencies = jnp.asarray(self.frequencies(), jnp.float32)

    def turn(x, position):
      turned = rotate(x[..., : self.width], jnp.multiply.outer(position, frequencies), self.layout)
      return turned if self.width == x.shape[-1] else jnp.concatenate([turned, x[..., self.width :]], axis=-1)

    return turn(q_BTHK, i), turn(k_BSGK, j)
