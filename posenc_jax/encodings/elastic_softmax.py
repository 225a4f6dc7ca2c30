"""Softmax less a share that each key has to earn."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import LOWEST_SEEN, WHOLE_ROWS, Dims, Encoding


class ElasticSoftmax(Encoding):
  """p_ij = relu(softmax(s)_ij + tau_h / n_i), tau a head, n_i keys that i sees (Fu et al. 2026).

  Elastic-Softmax of Lazy Attention. tau is learned, every layer has its own, and it starts at -1:
  a key with less weight than the mean of its row has none, and a row of equal scores, such as that
  of a token which sees no other, has none at all. Rows need not sum to 1; above 0 tau adds to all
  keys that are seen, and to no other. The released code divides by the number of tokens up to the
  query; here n_i is that, but within windows and packed documents it is as many keys as there are.
  To be chained behind an encoding of positions: ('rope', 'elastic_softmax'). Lazy Attention has
  RoPE and a learned bias, from 0, a head and layer at each distance below 512, and 0 farther away:
  ('rope', 't5', 'elastic_softmax') with `t5` as its docstring has DIET-REL, whose farthest
  distances share a number, and a table a layer. A row must be whole: `dense` alone takes it.
  """

  paper = 'Fu et al. 2026, arXiv:2601.00919'
  parameter_summary = 'a number a head a layer'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'
  per_layer = ('tau',)

  def __init__(self, dims: Dims, rngs):
    super().__init__(dims, rngs)
    self.tau = nnx.Param(jnp.full(dims.heads, -1.0, jnp.float32))

  def normalize(self, s_BHTS, tile):
    n_BHT1 = (s_BHTS > LOWEST_SEEN).sum(axis=-1, keepdims=True, dtype=jnp.float32)
    n_BHT1 = jnp.maximum(n_BHT1, 1)
    p_BHTS = jax.nn.softmax(s_BHTS, axis=-1) + self.tau[...][None, :, None, None] / n_BHT1
    return jax.nn.relu(p_BHTS)
