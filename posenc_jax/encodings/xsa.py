"""Attention without what it brings of the token's own value."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding

LEAST = 1e-16  # of a squared length: below it a value takes next to nothing away


class XSA(Encoding):
  """o_i - a (o_i . v_i) v_i / |v_i|^2: less of the token's own value (Zhai 2026).

  Exclusive self attention: with a = 1, as in the paper, the output is orthogonal to the value v_i
  of the query's own token, which the residual stream has anyway; a token that sees no other gets 0.
  That is BeliefFormer's form of each head, too (openreview.net/forum?id=Ard2QzPAUK).
  modded-nanogpt's records from the end of April 2026 on have a = tanh(s) with a learned s a head,
  here `learned`: every layer has its own, and they start at 0, where this does nothing. (There only
  some layers have it, which is a pattern here; later records compute s of each token.) Heads that
  share a head of values share v_i. It is v_i as the weights met it, beside `kv_shift` the mixed
  one, wherever this stands in a chain. To be chained with an encoding of positions: ('rope',
  'xsa').
  """

  paper = 'Zhai 2026, arXiv:2603.09078'
  parameter_summary = 'none, or a number a head a layer'
  position_kind = None
  per_layer = ('strengths',)

  def __init__(self, dims: Dims, rngs, *, learned: bool = False):
    """`learned`: a is learned; else it is 1."""
    super().__init__(dims, rngs)
    self.learned = learned
    if learned:
      self.strengths = nnx.Param(jnp.zeros(dims.heads, jnp.float32))

  def meet_own_values(self, o_BTHK, v_BTGK):
    B, T, H, K = o_BTHK.shape
    G = v_BTGK.shape[2]
    o_BTGNK = o_BTHK.reshape(B, T, G, H // G, K).astype(jnp.float32)  # heads by their values
    v_BTG1K = v_BTGK[:, :, :, None].astype(jnp.float32)
    square_BTG11 = (v_BTG1K * v_BTG1K).sum(axis=-1, keepdims=True)
    share_BTGN1 = (o_BTGNK * v_BTG1K).sum(axis=-1, keepdims=True)
    share_BTGN1 /= jnp.where(square_BTG11 > LEAST, square_BTG11, 1.0)
    if self.learned:
      share_BTGN1 *= jnp.tanh(self.strengths[...]).reshape(1, 1, G, H // G, 1)
    return (o_BTGNK - share_BTGN1 * v_BTG1K).reshape(B, T, H, K)
