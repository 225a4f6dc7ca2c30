"""A temperature for each row of scores, by its entropy."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import WHOLE_ROWS, Encoding

COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)  # of h^4 first
LEAST_ENTROPY = 0.5  # nats


class AdaptiveTemperature(Encoding):
  """p = softmax(b s) of whole rows, sharper where attention is spread (Velickovic et al. 2024).

    b = max(1, -0.037 h^4 + 0.481 h^3 - 2.3 h^2 + 4.917 h - 1.791) where h > 0.5, else 1

  h is the entropy of softmax(s) in nats. The paper fits the polynomial to one task and applies it
  to trained models at evaluation; in a model that is trained with it, gradients pass through b.
  Past h = 5.9 or so the polynomial is below 1, and b is 1 again. To be chained with an encoding of
  positions. A row must be whole: `dense` alone takes it.
  """

  paper = 'Velickovic et al. 2024, arXiv:2410.01104'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'

  def normalize(self, s_BHTS, tile):
    log_p_BHTS = jax.nn.log_softmax(s_BHTS, axis=-1)
    # Masked keys have no weight and a logarithm of some -1e30.
    terms_BHTS = jnp.where(tile.mask[:, None], jnp.exp(log_p_BHTS) * log_p_BHTS, 0.0)
    h_BHT1 = -terms_BHTS.sum(axis=-1, keepdims=True)
    b_BHT1 = jnp.maximum(jnp.polyval(jnp.array(COEFFICIENTS, jnp.float32), h_BHT1), 1.0)
    return jax.nn.softmax(jnp.where(h_BHT1 > LEAST_ENTROPY, b_BHT1, 1.0) * s_BHTS, axis=-1)
