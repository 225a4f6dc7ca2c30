"""Rotary embedding without its lowest frequencies."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.rope import LAYOUTS, rotate


class PRoPE(Encoding):
  """RoPE of which only the fastest floor(p K/2) pairs of channels turn (Barbero et al. 2024,
  p-RoPE).

  The pairs and their frequencies base^(-2m/K) are those of RoPE over the whole head: unlike `rope`
  with `fraction`, no spectrum is squeezed into fewer channels. p = 1 is RoPE, p = 0 NoPE. Hugging
  Face calls it `proportional`.
  """

  paper = 'Barbero et al. 2024, arXiv:2410.06205'
  weights, claims = 'none', None

  def __init__(
    self, dims: Dims, rngs, *, p: float = 0.75, base: float = 10_000.0, layout: str = 'half'
  ):
    """`p`: the share of pairs that turn: 0.75 is the paper's best, 0.25 Gemma 4's. `base`,
    `layout`: as for `rope`.
    """
    super().__init__(dims, rngs)
    if dims.head_dim % 2:
      raise ValueError(f'p_rope: head_dim={dims.head_dim} must be even')
    if not 0 <= p <= 1:
      raise ValueError(f'p_rope: p={p} must be from 0 to 1')
    if base <= 1:
      raise ValueError(f'p_rope: base={base} must be greater than 1')
    if layout not in LAYOUTS:
      raise ValueError(f'p_rope: layout={layout!r} must be one of {", ".join(LAYOUTS)}')
    self.p, self.base, self.layout = p, base, layout

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [K/2], fastest first, then zeros."""
    pair = np.arange(self.dims.head_dim // 2)
    return np.where(
      pair < int(self.p * len(pair)), self.base ** (-2 * pair / self.dims.head_dim), 0.0
    )

  def transform(self, q_BTHK, k_BSGK, i, j):
    frequencies = jnp.asarray(self.frequencies(), jnp.float32)
    turn = lambda x, position: rotate(x, jnp.multiply.outer(position, frequencies), self.layout)
    return turn(q_BTHK, i), turn(k_BSGK, j)
