"""Forget gates that each query sets for itself."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import uniform


class RowGates(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + factor sum_(t=j..i-1) log sigmoid(a_i . n_t / sqrt(width)).

  Data-dependent ALiBi of a row, as x-transformers has it: a_i = A_h x_i and n_t = N_h x_t, where x
  is the layer's normalized input. In `fox` all queries meet a token at the same gate; here each has
  its own, from a product of small queries and keys. A token is forgotten by its own gate, too, and
  by none at its own query. Each layer has its own A and N, which start from U(-1/sqrt(D),
  1/sqrt(D)) as there: a token then keeps about half of what is left. There is no paper.
  """

  paper = 'P. Wang, github.com/lucidrains/x-transformers'
  parameter_summary = 'two projections a layer'
  position_kind = None
  bias_in_scale = False
  causal_only = True
  needs_inputs = True
  scans_keys = ((),)
  per_layer = ('w_a', 'w_n')

  def __init__(self, dims: Dims, rngs, *, width: int = 8, factor: float = 1.0):
    """`width`: channels of a and n. `factor`: of the sum; the greater, the more is forgotten."""
    super().__init__(dims, rngs)
    check_at_least(1, width=width)
    check_above(0, factor=factor)
    self.factor = factor
    shape, largest = (dims.model_dim, dims.heads, width), dims.model_dim**-0.5
    self.w_a, self.w_n = (uniform(rngs, shape, -largest, largest) for _ in range(2))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """(a, n): float32 [B, S, H, width] each."""
    x_BSD = x_BSD.astype(jnp.float32)
    return tuple(jnp.einsum('bsd,dhw->bshw', x_BSD, w[...]) for w in (self.w_a, self.w_n))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    edges_BHTS = jnp.einsum('bthw,bshw->bhts', tile.i[0], tile.j[1]) * tile.i[0].shape[-1] ** -0.5
    is_before_BHTS = tile.index_distance[None, None] > 0
    logs_BHTS = jnp.where(is_before_BHTS, jax.nn.log_sigmoid(edges_BHTS), 0.0)
    return s_BHTS + self.factor * tile.suffix_sum(logs_BHTS)
