"""Rotary embedding of channels beside content: decoupled RoPE of multi-head latent attention."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.rope import RoPE


class MLARoPE(RoPE):
  """s_ij = (q_i . k_j + (R(i) W_h x_i) . (R(j) W x_j)) / sqrt(K + width): q and k do not rotate.

  DeepSeek-V2, 2024, eqs. 14 to 18, where K = 128 and width = 64. R(t) rotates as `rope` does, pairs
  interleaved as in the released code, and x is the layer's normalized input. The second product is
  set beside the first: every head of queries has its own W_h, all heads of keys share W. In the
  paper W_h reads a compressed x, which the Lite model does without. That keys and values are
  compressed, too, says nothing of positions and is no part of this encoding.

  In a chain a temperature before this one multiplies q_i . k_j alone, and one behind it both, as in
  Mistral Large 3. `scaling` acts on the rotated part alone: its attention factor, such as YaRN's,
  multiplies the second product by its square and leaves q_i . k_j as it is. DeepSeek multiplies the
  whole score by t^2, t = 0.1 m ln(factor) + 1, where m is its mscale_all_dim. For this set
  attention_factor=1.0 in `scaling`, and chain dict(name='nope_scale', scale=t**2) behind this one.
  """

  paper = 'DeepSeek-V2, 2024, arXiv:2405.04434'
  parameter_summary = 'a projection to heads and one to a key a layer'
  rotates_qk = False  # nor does any other encoding read what rotates here
  needs_inputs = True
  reads_own_queries = True
  per_layer = ('w_q', 'w_k')

  def __init__(
    self, dims: Dims, rngs, *, layout: str = 'interleaved', fraction: float | None = None, **rope
  ):
    """Draws the projections.

    Args:
      layout: as for `rope`.
      fraction: width / K; None: a half, or what makes an even width somewhat below.
      rope: the other hyperparameters of RoPE.
    """
    if fraction is None:
      fraction = 2 * max(dims.head_dim // 4, 1) / dims.head_dim
    super().__init__(dims, rngs, layout=layout, fraction=fraction, **rope)
    self.qk_width_factor = 1 + self.width / dims.head_dim
    D = dims.model_dim
    self.w_q, self.w_k = (normal(rngs, (D, n, self.width), D**-0.5) for n in (dims.heads, 1))

  def scale(self, head_dim: int) -> float:
    return (head_dim + self.width) ** -0.5

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Positions, and x: few of the tokens may be queries, and only these are projected as such."""
    return position_ids.astype(jnp.float32), x_BSD

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    S = k_BSGK.shape[1]

    def beside(y_BTHK, w_DHK, position_BT, x_BTD):
      turning = jnp.einsum('btd,dhk->bthk', x_BTD, w_DHK.astype(x_BTD.dtype))
      turning = jnp.broadcast_to(turning, (*y_BTHK.shape[:3], self.width))
      turned = self.turn(turning, position_BT, S)
      return jnp.concatenate([y_BTHK, turned.astype(y_BTHK.dtype)], axis=-1)

    return beside(q_BTHK, self.w_q[...], *i), beside(k_BSGK, self.w_k[...], *j)
