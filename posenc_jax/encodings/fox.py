"""The Forgetting Transformer's gates: scores fall by what tokens on the way forget."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_one_of, check_unread
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.running_sums import ENDS_OF_SUMS, difference_of_sums, running_sum
from posenc_jax.xla_ops import exact_matmul

GATES = ('data', 'learned', 'fixed')


class FoX(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + c_i - c_j, c_t = sum_(l <= t) log sigmoid(w_h . x_l + b_h).

  Lin et al. 2025. x is the layer's normalized input; every layer has its own gates. A token is not
  forgotten by itself: the sum is over j+1..i. As in the released code b starts at 0; w is a
  projection and starts at fan-in scale like every other, theirs from N(0, 0.02^2). This is the gate
  alone: the paper's "Pro" block (output gate, QK-norm, shifted keys and values, output norm) is not
  in it. Not built either: adaptive computation pruning (arXiv:2504.06949), which leaves out the
  tiles whose weights are next to nothing by a bound on |q . k|; here gates leave out none. Without
  w the gates do not depend on the data: b is learned, or fixed (ALiBi, if by its slopes). They
  start at e^(-1/T_h), T_h spaced evenly in log from `shortest` to `longest`; the code has no
  defaults for these two. What Veisi et al. 2025 released as CABLE is this gate beside products
  q . k that are not divided by sqrt(K) (`cable` is the formula of their paper).

  With `both_ways`, for attention without a causal mask, each head has a second gate, g, of keys
  behind the query: where j > i, s_ij gets the sum of log sigmoid(g_l) over l in i+1..j, as in
  x-transformers' data-dependent ALiBi.
  """

  paper = 'Lin et al. 2025, arXiv:2503.02130'
  parameter_summary = 'a gate a head a layer'
  reported_extrapolation = 'RULER at 2 L: 29.5, RoPE 1.3 (760M, Yang et al. 2025)'
  limit = ENDS_OF_SUMS
  position_kind = None
  bias_in_scale = False
  causal_only = True
  needs_inputs = True
  per_layer = ('w_f', 'b_f')
  parameters_depend_on = ('gate',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    gate: str = 'data',
    start: float | None = None,
    shortest: float | None = None,
    longest: float | None = None,
    bias_in_scale: bool = False,
    both_ways: bool = False,
  ):
    """Builds the gates.

    Args:
      gate: the data make the gates, or they are learned or fixed numbers: one of GATES.
      start: b at first with gate 'data', 0 if None; larger gates forget less (5: hardly at all).
      shortest, longest: tokens after which the first and the last head remember 1/e with the other
        gates; None: 2, and the training length. A lone head has `longest`, as that of ALiBi
        has the smallest slope.
      bias_in_scale: 1/sqrt(K) multiplies c too, as in released PaTH-FoX (a chain with `path`).
      both_ways: keys behind the query have gates of their own, which start like the others.
    """
    super().__init__(dims, rngs)
    check_one_of(GATES, gate=gate)
    if gate == 'data':
      check_unread("gate is 'learned' or 'fixed'", shortest=shortest, longest=longest)
    else:
      check_unread("gate is 'data'", start=start)
    longest = dims.train_length if longest is None else longest
    if dims.heads == 1:
      check_unread('there are several heads', shortest=shortest)
      shortest = longest
    shortest = 2.0 if shortest is None else shortest
    check_above(0, longest=longest, shortest=shortest)
    self.bias_in_scale = self.applies_scale = bias_in_scale
    self.gate, self.both_ways = gate, both_ways
    self.needs_inputs, self.causal_only = gate == 'data', not both_ways
    of_heads = tuple(float(t) for t in np.geomspace(shortest, longest, dims.heads))
    self.times = of_heads * (2 if both_ways else 1)
    if gate == 'data':
      self.w_f = normal(rngs, (dims.model_dim, len(self.times)), dims.model_dim**-0.5)
      self.b_f = nnx.Param(jnp.full(len(self.times), start or 0.0, jnp.float32))
    elif gate == 'learned':
      rates = 1 / np.array(self.times)  # of which expm1 may overflow
      self.b_f = nnx.Param(jnp.asarray(-rates - np.log(-np.expm1(-rates)), jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """c as (whole, rest), float32 [B|1, S, H] each: see `running_sum`. `both_ways`: two of them."""
    if self.gate == 'data':
      logits_BSN = exact_matmul(x_BSD.astype(jnp.float32), self.w_f[...])
      log_f = jax.nn.log_sigmoid(logits_BSN + self.b_f[...][None, None])
    else:
      if self.gate == 'learned':
        log_f_N = jax.nn.log_sigmoid(self.b_f[...])
      else:
        log_f_N = -1 / jnp.array(self.times, jnp.float32)
      log_f = jnp.broadcast_to(log_f_N, (1, position_ids.shape[1], len(self.times)))
    c = running_sum(log_f)
    if not self.both_ways:
      return c
    return tuple(zip(*(jnp.split(part, 2, axis=2) for part in c), strict=True))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    if self.both_ways:
      earlier, later = (difference_of_sums(tile, *c) for c in zip(tile.i, tile.j, strict=True))
      is_earlier_BHTS = tile.index_distance[None, None] >= 0
      forgotten_BHTS = jnp.where(is_earlier_BHTS, earlier, -later)
    else:
      forgotten_BHTS = difference_of_sums(tile, tile.i, tile.j)
    if self.bias_in_scale:
      forgotten_BHTS = self.scale(self.dims.head_dim) * forgotten_BHTS
    return s_BHTS + forgotten_BHTS
