"""Keys and values mixed with those of the token before."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal


class KVShift(Encoding):
  """k_t becomes a_t k_(t-1) + (1 - a_t) k_t, a_t = sigmoid(w . x_t); v_t too.

  It is in FoX's "Pro" block (Lin et al. 2025) and beside GRAPE (ICLR 2026), whose code this
  was compared with. x is the layer's normalized input. Keys and values each have a projection w for
  every key/value head, in every layer; they start with variance 1/D, where GRAPE's code has a
  quarter of it and FoX's 0.02^2. The first token of a segment keeps 1 - a_t of itself. To be
  chained before an encoding of positions: ('kv_shift', 'rope'). Unlike in the released code, keys
  are shifted behind their norm where `model.qk_norm` is on. "KV Shifting Attention" (Xu et al.
  2024, arXiv:2411.19574) mixes by a few learned numbers a head, whatever the data: not this one.
  """

  paper = 'Lin et al. 2025, arXiv:2503.02130; GRAPE, ICLR 2026, arXiv:2512.07805'
  parameter_summary = 'two projections to key/value heads a layer'
  position_kind = None
  changes_queries = False
  needs_inputs = True
  per_layer = ('w_k', 'w_v')

  def __init__(self, dims: Dims, rngs):
    super().__init__(dims, rngs)
    shape = dims.model_dim, dims.kv_heads
    self.w_k, self.w_v = (normal(rngs, shape, dims.model_dim**-0.5) for _ in range(2))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """The shares of the token before and of the token itself, of keys and of values: [B, S, G]."""

    def shares(w_DG):
      before_BSG = jax.nn.sigmoid(x_BSD.astype(jnp.float32) @ w_DG)
      has_before_BS = (index_BS > 0).astype(jnp.float32)
      return before_BSG * has_before_BS[:, :, None], 1 - before_BSG

    return {'keys': shares(self.w_k[...]), 'values': shares(self.w_v[...])}

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return q_BTHK, _mix(k_BSGK, *j['keys'])

  def transform_values(self, v_BSGK, j):
    return _mix(v_BSGK, *j['values'])


def token_before(x_BSGK):
  """x of the token before each, of whatever segment; 0 before the first."""
  return jnp.pad(x_BSGK, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def _mix(x_BSGK, before_BSG, own_BSG):
  mixed_BSGK = before_BSG[..., None] * token_before(x_BSGK) + own_BSG[..., None] * x_BSGK
  return mixed_BSGK.astype(x_BSGK.dtype)
