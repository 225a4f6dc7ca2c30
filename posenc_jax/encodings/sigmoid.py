"""Sigmoid attention: a weight for each key by itself, without a sum over keys."""

import math

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.stick_breaking import log_sigmoids


class Sigmoid(Encoding):
  """p_ij = sigmoid(s_ij + b), b = -log L, not normalized (Ramapuram et al. 2024, section 2).

  With the training length L, weights of L keys sum to about 1 at the start. Past it b stays, and
  more keys have more weight together. `score` returns logarithms of weights. To be chained behind
  an encoding of positions, as the released code has it beside ALiBi or RoPE: ('alibi', 'sigmoid').
  A learned b is a number a head, and every layer has its own; in the released code it is fixed.
  """

  paper = 'Ramapuram et al. 2024, arXiv:2409.04431'
  parameter_summary = 'none, or a number a head a layer'
  position_kind = None
  bias_in_scale = False
  normalizer = 'none'
  per_layer = ('offsets',)

  def __init__(self, dims: Dims, rngs, *, bias: float | None = None, learned: bool = False):
    """Sets b.

    Args:
      bias: b, or where it starts; None: -log L.
      learned: b is learned.
    """
    super().__init__(dims, rngs)
    self.start = -math.log(dims.train_length) if bias is None else float(bias)
    self.learned = learned
    if learned:
      self.offsets = nnx.Param(jnp.full(dims.heads, self.start, jnp.float32))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    z_BHTS = s_BHTS + (self.offsets[...][None, :, None, None] if self.learned else self.start)
    return log_sigmoids(z_BHTS)[0]
