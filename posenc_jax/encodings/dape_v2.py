"""A static bias adapted by the scores of a key and of its neighbors."""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.core.base import LOWEST_SEEN, WHOLE_ROWS
from posenc_jax.encodings.dape import AdaptedBias
from posenc_jax.xla_ops import exact_einsum


class DAPEV2(AdaptedBias):
  """s = a + b + W_2 * f(W_1 * [a; b] + c), * a convolution along keys over all heads (version 2).

    a_ij = q_i . k_j / sqrt(K),   b the bias of another encoding,   f LeakyReLU

  Zheng et al. 2024. A kernel is three keys wide; a and b are 0 where a key is hidden. Every layer
  has its own kernels. They and c start from U(-1/sqrt(fan-in), 1/sqrt(fan-in)), fan-in 3 x 2H and
  3 x hidden, as the convolutions of the released code do. The bias after the second one is left
  out: alike for all keys, it changes no softmax. Hidden units stand at the keys that a query sees
  and at the key after each. So the last row of a text, which there has nothing after it, is here as
  the rows before, and decoding token by token gives what training does. As in `dape`, FIRE and
  KERPLE are those of this repository. A row must be whole: `dense` alone takes it.
  """

  paper = 'Zheng et al. 2024, arXiv:2410.04798'
  parameter_summary = 'two convolutions a layer'
  taps = 3  # the key before, the key itself and the one after
  limit = WHOLE_ROWS
  causal_only = True
  normalizer = 'rows'
  adapts_scores = True

  def normalize(self, s_BHTS, tile):
    is_seen_BHTS, S = s_BHTS > LOWEST_SEEN, s_BHTS.shape[-1]
    seen_B1TS = is_seen_BHTS.any(axis=1, keepdims=True)
    b_BHTS = self.inner_bias(s_BHTS, tile)
    both = (jnp.where(is_seen_BHTS, x_BHTS, 0.0) for x_BHTS in (s_BHTS, b_BHTS))
    both_BCTS = jnp.concatenate([*both], axis=1)
    products_nBFTS = exact_einsum('nfc,bcts->nbfts', self.w_in[...], both_BCTS)
    # Hidden units are at S + 1 keys, of which the last is the one after a row.
    hidden = sum(at_next_keys(x, n) for n, x in enumerate(products_nBFTS))
    hidden = jax.nn.leaky_relu(hidden + self.b_in[...][None, :, None, None], self.negative_slope)
    hidden = jnp.where(at_next_keys(seen_B1TS, 1) | at_next_keys(seen_B1TS, 0), hidden, 0.0)
    hidden = jnp.pad(hidden, ((0, 0), (0, 0), (0, 0), (1, 0)))
    near_nBFTS = jnp.stack([hidden[..., n : n + S] for n in range(self.taps)])
    change_BHTS = exact_einsum('nhf,nbfts->bhts', self.w_out[...], near_nBFTS)
    return jax.nn.softmax(s_BHTS + b_BHTS + change_BHTS, axis=-1)


def at_next_keys(x_BFTS, n: int):
  """x of the key j + n - 1 at the place j, 0 beyond the ends: [..., S + 1]."""
  zero = jnp.zeros((), x_BFTS.dtype)
  return lax.pad(x_BFTS, zero, [(0, 0, 0)] * 3 + [(1 - n, n, 0)])
