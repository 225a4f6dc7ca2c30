"""Scalable softmax: logits times the logarithm of the context, learned for each head."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.core.temperature import VisibleKeys


class SSMax(VisibleKeys):
  """softmax(s_h log(n_i) z_i), z_ij = q_i . k_j / sqrt(K), n_i keys seen (Nakanishi 2025).

  Every layer has an s for each head, which is learned. Queries are multiplied, so what other
  encodings add to the scores without the query is not. Under a causal mask n_i is i + 1, within
  windows and packed documents as many as there are. With `bias` the factor is s_h log(n) + b_h, a
  variant of the paper; b starts at 0. Here s starts at 1 over the mean of log n in training, so
  that logits start as large as without.
  """

  paper = 'Nakanishi 2025, arXiv:2501.19399'
  parameter_summary = 'a number a head a layer, or two'
  per_layer = ('s', 'b')

  def __init__(self, dims: Dims, rngs, *, start: float | None = None, bias: bool = False):
    """Makes the factors.

    Args:
      start: where s starts; None: L / log(L!), 0.168 at L = 1024, so that the factors of a causal
        text of L tokens are 1 on average. Without a causal mask that is 1 / log(L).
      bias: whether there is b.
    """
    super().__init__(dims, rngs)
    if start is None:
      start = 1 / np.log(np.arange(1, max(dims.train_length, 2) + 1)).mean()
    self.has_offset = bias
    self.s = nnx.Param(jnp.full(dims.heads, start, jnp.float32))
    if bias:
      self.b = zeros(dims.heads)

  def factor(self, i):
    factor_BTH = self.s[...][None, None] * jnp.log(i)[..., None]
    if self.has_offset:
      factor_BTH += self.b[...][None, None]
    return factor_BTH
