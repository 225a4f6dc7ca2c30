"""Keys of which some channels are those of the token before."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_between
from posenc_jax.encodings.kv_shift import token_before


class KeyOffset(Encoding):
  """The last `fraction` of the channels of k_t becomes that of k_(t-1).

  So a query that resembles a token reads the value of the one behind it: induction in one layer.
  The partial key offset of modded-nanogpt (record of December 2025). To be chained before an
  encoding that leaves these channels unturned, as there: ('key_offset', {'name': 'rope',
  'fraction': 0.5}), or `p_rope` with interleaved pairs. The record has it in layers with a long
  window alone, which a pattern does; in all layers its author found the loss lower still. The first
  token of a segment keeps its key, where the released code reads the document before.
  """

  paper = 'Partial key offset, 2025, github.com/KellerJordan/modded-nanogpt/pull/169'
  parameter_summary = 'none'
  position_kind = None
  changes_queries = False
  splits_channels = True

  def __init__(self, dims: Dims, rngs, *, fraction: float = 0.5):
    """`fraction`: of the channels of a head."""
    super().__init__(dims, rngs)
    check_between(0, 1, fraction=fraction)
    self.width = round(fraction * dims.head_dim)
    if self.width == 0:
      of_all = f'fraction={fraction} of head_dim={dims.head_dim}'
      raise ValueError(f'{of_all}; allowed: at least 1 channel')

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """1 where a token has one before it in its segment, else 0: float32 [B|1, S]."""
    return (index_BS > 0).astype(jnp.float32)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    kept, own = jnp.split(k_BSGK, [self.dims.head_dim - self.width], axis=-1)
    offset = jnp.where(j[:, :, None, None] > 0, token_before(own), own)
    return q_BTHK, jnp.concatenate([kept, offset], axis=-1)
