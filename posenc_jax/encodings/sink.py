"""A learned logit in the denominator of softmax."""

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal


class Sink(Encoding):
  """p_ij = exp(s_ij) / (exp(sigma_h) + sum_l exp(s_il)), a learned sigma a head (gpt-oss 2025).

  A head may attend to nothing: what would be a weight on the first token goes to a logit that has
  no key and no value. Every layer has its own. To be chained with an encoding of positions, as
  gpt-oss has it beside RoPE: ('rope', 'sink'). The logit is not scaled.
  """

  paper = 'gpt-oss, in Hugging Face transformers'
  parameter_summary = 'a number a head a layer'
  position_kind = None
  reads_window_alone = True
  per_layer = ('logits',)

  def __init__(self, dims: Dims, rngs, *, std: float = 0.02):
    """`std`: sigma starts at N(0, std^2); 0.02 as every parameter of gpt-oss."""
    super().__init__(dims, rngs)
    check_at_least(0, std=std)
    self.logits = normal(rngs, (dims.heads,), std)

  def sink(self, q_BTHK, i):
    return self.logits[...][None, None]
