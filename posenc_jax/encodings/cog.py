"""Softmax of the sizes of scores, with their signs."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import LOWEST_SEEN, MASKED, WHOLE_ROWS, Encoding


class Cog(Encoding):
  """p_ij = sign(s_ij) softmax_j(|s_ij|): weights may be below 0 (Lv et al. 2024).

  Cog Attention: a score far below 0 takes the value of a key away, where softmax would leave it
  out. Sizes of weights sum to 1, and a score near 0 has the least, of either sign. To be chained
  behind an encoding of positions, as the released code has it behind RoPE: ('rope', 'cog'). There
  the first layer and the last keep softmax, which is a pattern here. A row must be whole: `dense`
  alone takes it.
  """

  paper = 'Lv et al. 2024, arXiv:2411.07176'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'

  def normalize(self, s_BHTS, tile):
    is_seen_BHTS = s_BHTS > LOWEST_SEEN
    sizes_BHTS = jax.nn.softmax(jnp.where(is_seen_BHTS, jnp.abs(s_BHTS), MASKED), axis=-1)
    return jnp.sign(s_BHTS) * sizes_BHTS
