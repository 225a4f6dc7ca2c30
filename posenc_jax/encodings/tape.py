"""Rotary embedding whose rotations are states of tokens that every layer updates."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding, check_numbers_of_positions
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import check_rotary, turn_pairs
from posenc_jax.xla_ops import outer


class TAPE(Encoding):
  """s_ij = sum_m Re(q_im z_im conj(k_jm z_jm)) / sqrt(K), pairs m of channels as complex numbers.

  Contextualized equivariant position encoding, Zhu et al. 2025. z_t starts as RoPE's, e^(i t f_m),
  and each layer, behind attention with weights p and behind the MLP with output y, makes it

    z_t + H c_h sum_j p_tj z_j, then z_t + W_down (silu(W_y y_t) * W_up z_t)

  where W_up and W_down mix heads. All m are treated alike, so that attention depends on positions
  by i - j alone. c and W_up start at 0: the model starts as that of `rope`.

  As released, where a row of a matrix stands for c_h, of which only the sum acts: H numbers, each
  of which Adam moves as far as one, hence H c_h. There every head has its z; here a key/value head
  has it, and with fewer of these the c of all its heads of queries add up. The
  other weights start at fan-in scale, theirs from N(0, 0.02^2), and positions of the release move
  by a random number in training, which changes nothing.
  """

  paper = 'Zhu et al. 2025, arXiv:2501.00712'
  parameter_summary = 'three projections and a factor a head a layer'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.01'
  position_kind = 'floats'
  per_layer = ('c', 'w_y', 'w_up', 'w_down')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    layout: str = 'half',
    hidden: int | None = None,
  ):
    """`base`, `layout`: as for `rope`. `hidden`: rows of W_up; None: four a head, as released."""
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, layout)
    hidden = 4 * dims.heads if hidden is None else hidden
    check_at_least(1, hidden=hidden)
    self.base, self.layout, self.added_value_channels = base, layout, dims.head_dim
    self.c = zeros(dims.heads)
    self.w_y = normal(rngs, (dims.model_dim, hidden), dims.model_dim**-0.5)
    self.w_up = zeros(dims.kv_heads, hidden)
    self.w_down = normal(rngs, (hidden, dims.kv_heads), hidden**-0.5)

  def initial_state(self, position_ids, batch: int):
    """Cosines and sines, side by side: float32 [B, T, G, K]."""
    check_numbers_of_positions(position_ids)
    frequencies = jnp.asarray(rope_frequencies(self.dims.head_dim, self.base), jnp.float32)
    angles_BTM = outer(position_ids.astype(jnp.float32), frequencies)
    z_BTK = jnp.concatenate([jnp.cos(angles_BTM), jnp.sin(angles_BTM)], axis=-1)
    shape = batch, z_BTK.shape[1], self.dims.kv_heads, self.dims.head_dim
    return jnp.broadcast_to(z_BTK[:, :, None], shape)

  def enter_attention(self, q_BTHK, k_BTGK, v_BTGK, state):
    waves = jnp.split(state, 2, axis=-1)
    q_BTHK, k_BTGK = (turn_pairs(x, *waves, self.layout) for x in (q_BTHK, k_BTGK))
    return q_BTHK, k_BTGK, jnp.concatenate([v_BTGK, state.astype(v_BTGK.dtype)], axis=-1)

  def leave_attention(self, o_BTHK, state):
    K = self.added_value_channels
    o_BTHK, mixed_BTHK = o_BTHK[..., :-K], o_BTHK[..., -K:].astype(jnp.float32)
    # H numbers learn as one in the release: its sums move H times as far in a step of Adam.
    mixed_BTHK *= self.dims.heads * self.c[...][None, None, :, None]
    return o_BTHK, state + mixed_BTHK.reshape(*state.shape[:3], -1, K).sum(axis=3)

  def leave_mlp(self, y_BTD, state):
    gate_BTW = jax.nn.silu(y_BTD.astype(jnp.float32) @ self.w_y[...])
    mixes_BTGG = (gate_BTW[:, :, None] * self.w_up[...][None, None]) @ self.w_down[...]
    return state + jnp.einsum('btgk,btgh->bthk', state, mixes_BTGG)
