"""Rotary position embedding with imaginary heads."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.rope import RoPE, join_pairs, split_pairs


class RoPEPP(RoPE):
  """RoPE++: each head of queries is two heads, one a quarter turn behind (Liu et al. 2025).

  With pairs of channels as complex numbers, the product of `rope` is the real part of q conj(k)
  e^(i r w) summed over pairs; the second head has the imaginary part, by the same keys and values.
  The two stand next to each other. As it is this is the paper's EC, equal cache: `model.heads`
  heads of queries, twice as many out of attention and into w_o. EH, equal heads, is the same with
  `model.heads` and `model.kv_heads` halved.
  """

  paper = 'Liu et al. 2025, arXiv:2512.07525'
  parameter_summary = 'none; the output projection is twice as wide'
  heads_out_per_head = 2

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    layout: str = 'half',
    scaling: dict | None = None,
  ):
    """Keeps the hyperparameters: as for `rope`."""
    super().__init__(dims, rngs, base=base, layout=layout, scaling=scaling)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    B, T, H, K = q_BTHK.shape
    both_BTH2K = jnp.stack([q_BTHK, turn_back(q_BTHK, self.layout)], axis=3)
    return super().transform_qk(both_BTH2K.reshape(B, T, 2 * H, K), k_BSGK, i, j)


def turn_back(x_BTHK, layout: str):
  """x with every pair of channels a quarter turn back: (a, b) becomes (b, -a)."""
  first, second = split_pairs(x_BTHK, layout)
  return join_pairs(second, -first, layout)
