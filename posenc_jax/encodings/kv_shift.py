"""Keys and values mixed with those of the token before."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_one_of
from posenc_jax.encodings.core.parameters import normal, uniform

GATES = ('data', 'learned')


class KVShift(Encoding):
  """k_t becomes a_t k_(t-1) + (1 - a_t) k_t, a_t = sigmoid(w . x_t); v_t too.

  It is in FoX's "Pro" block (Lin et al. 2025) and beside GRAPE (ICLR 2026), whose code this
  was compared with. x is the layer's normalized input. Keys and values each have a projection w for
  every key/value head, in every layer; they start with variance 1/D, where GRAPE's code has a
  quarter of it and FoX's 0.02^2. The first token of a segment keeps 1 - a_t of itself. To be
  chained before an encoding of positions: ('kv_shift', 'rope'). Unlike in the released code, keys
  are shifted behind their norm where `model.qk_norm` is on.

  "KV Shifting Attention" (Xu et al. 2024), which Baichuan-M1 has, is gate='learned': k_t becomes
  a k_(t-1) + b k_t with numbers a and b of each key/value head, whatever the data, and v_t by two
  of its own. As there a starts from U(0, 1) and b at 1 - a, and their sum is free.
  """

  paper = (
    'Lin et al. 2025, arXiv:2503.02130; GRAPE, ICLR 2026, arXiv:2512.07805; '
    'Xu et al. 2024, arXiv:2411.19574'
  )
  parameter_summary = 'two projections a layer, or four numbers a head'
  position_kind = None
  changes_queries = False
  needs_inputs = True
  per_layer = ('w_k', 'w_v')

  def __init__(self, dims: Dims, rngs, *, gate: str = 'data'):
    """`gate`: the data make the shares, or they are learned numbers: one of GATES."""
    super().__init__(dims, rngs)
    check_one_of(GATES, gate=gate)
    self.gate, self.needs_inputs = gate, gate == 'data'
    D, G = dims.model_dim, dims.kv_heads
    if gate == 'data':
      self.w_k, self.w_v = (normal(rngs, (D, G), D**-0.5) for _ in range(2))
    else:
      before = [uniform(rngs, (1, G), 0.0, 1.0)[...] for _ in range(2)]
      self.w_k, self.w_v = (nnx.Param(jnp.concatenate([a_1G, 1 - a_1G])) for a_1G in before)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """The shares of the token before and of the token itself, of keys and of values: [B|1, S, G]
    each.
    """
    has_before_BS = (index_BS > 0).astype(jnp.float32)

    def shares(w):
      if self.gate == 'data':
        before_BSG = jax.nn.sigmoid(x_BSD.astype(jnp.float32) @ w)
        own_BSG = 1 - before_BSG
      else:
        shape = 1, index_BS.shape[1], self.dims.kv_heads
        before_BSG, own_BSG = (jnp.broadcast_to(share_G, shape) for share_G in w)
      return before_BSG * has_before_BS[:, :, None], own_BSG

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
