"""One more in the denominator of softmax."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Encoding


class SoftmaxPlusOne(Encoding):
  """p_ij = exp(s_ij) / (1 + sum_l exp(s_il)): a sink at logit 0 (Miller 2023).

  To be chained with an encoding of positions: ('rope', 'softmax_plus_one'). `sink` learns it.
  """

  paper = 'Miller 2023, evanmiller.org/attention-is-off-by-one.html'
  position_kind = None

  def sink(self, q_BTHK, i):
    return jnp.zeros((1, 1, self.dims.heads), jnp.float32)
