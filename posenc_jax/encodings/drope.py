"""What is left of RoPE after DroPE: no position, and a temperature past the training length."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.temperature import VisibleKeys


class DroPE(VisibleKeys):
  """q_i (1 + c log(max(1, n_i / L))), n_i the number of keys that i sees: NoPE up to L tokens.

  Gelberg et al. 2025 train with RoPE, then for the last part of the training without any encoding
  (DroPE: here a second run, of `nope`, that starts from the first by `train.init_from`). This
  encoding replaces `nope` at evaluation past L. The paper multiplies logits by 1 + c log(S / L) for
  a context of S tokens; here each query has its own n_i, so that no result depends on later tokens.
  The paper's c is 0.412 for models trained from scratch, and 0.103 for SmolLM.
  """

  paper = 'Gelberg et al. 2025, arXiv:2512.12167'

  def __init__(self, dims: Dims, rngs, *, length: int | None = None, c: float = 0.412):
    """`length`: L, after which the factor rises; None: the training length. `c`: by how much."""
    super().__init__(dims, rngs)
    self.length, self.c = dims.train_length if length is None else length, c
    check_at_least(1, length=self.length)
    check_at_least(0, c=c)

  def factor(self, i):
    return 1 + self.c * jnp.log(jnp.maximum(i[..., None] / self.length, 1.0))
