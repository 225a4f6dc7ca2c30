"""Heads without positions beside heads with linear biases."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_between


class NAPE(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - |i - j| / h for heads h = 1, 2, .. n; the other heads are NoPE.

  Vasylenko et al. 2025, with the slopes 1/h of the released code. There the NoPE heads have a
  temperature besides, `asentmax_temperature`: in `heads`, beside a `nape` whose heads are all of
  the first kind. The paper has alpha-entmax in the place of softmax: a chain with `entmax`.
  """

  paper = 'Vasylenko et al. 2025, arXiv:2506.16640'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, *, alibi_heads: int | None = None):
    """`alibi_heads`: n; None: half of the heads, rounded down."""
    super().__init__(dims, rngs)
    self.alibi_heads = dims.heads // 2 if alibi_heads is None else alibi_heads
    check_between(0, dims.heads, alibi_heads=self.alibi_heads)

  def bias(self, r_R):
    slopes_H = [1 / (h + 1) if h < self.alibi_heads else 0.0 for h in range(self.dims.heads)]
    return -jnp.multiply.outer(jnp.abs(r_R).astype(jnp.float32), jnp.array(slopes_H, jnp.float32))
