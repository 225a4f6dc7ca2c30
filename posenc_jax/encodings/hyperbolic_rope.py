"""Hyperbolic rotary position encoding: boosts in the place of rotations."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import check_rotary
from posenc_jax.encodings.wall import fading_products


class HyperbolicRoPE(Encoding):
  """s_ij = sum_m e^(-d theta') q_i^(m) . B(d theta_m) k_j^(m) / sqrt(K), d = i - j.

    B(a) = [[cosh a, sinh a], [sinh a, cosh a]],   theta_m = base^(-2m/K)

  Dai et al. 2025, eqs. 5 to 12, who call it HoPE; x^(m) are the channels 2m and 2m + 1. theta' is
  `damping`, which has to exceed every theta_m; the largest is theta_0 = 1. So all products decay
  with the distance, most of them within a few tokens, and among distant keys, whose scores are all
  near 0, weights are equal. In the paper theta' is learned or predefined; it gives no value.

  For the sum and the difference of the two channels of a pair B is diagonal: their products decay
  by e^-(theta' - theta_m) and e^-(theta' + theta_m) a token. One factor for each query and one for
  each key would overflow, so products are computed by `fading_products` of `wall`. Scores are
  float32 whatever the dtype of q is.
  """

  paper = 'Dai et al. 2025, arXiv:2509.05218'
  parameter_summary = 'none'
  reported_extrapolation = 'perplexity 13.4 at L, 16.5 at 2 L, 110 at 6 L (its authors, 155M)'
  limit = (
    'positions may not decrease within a document: from one that does on, its row is NaN; what '
    'they grow by along a row is float32: from 2^24 on, near tokens may count as one'
  )
  bias_in_scale = True
  causal_only = True
  reads_qk = True
  recomputes_scores = True

  def __init__(self, dims: Dims, rngs, *, base: float = 10_000.0, damping: float = 1.1):
    """`base`: theta_m is base^(-2m/K). `damping`: theta', above every theta_m."""
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'interleaved')
    check_above(1, damping=damping)
    self.base, self.damping = base, damping

  def rates(self) -> np.ndarray:
    """By how much the logarithm of a factor falls a token, float64 [K]: of all sums, then of all
    differences.
    """
    theta = rope_frequencies(self.dims.head_dim, self.base)
    return np.concatenate([self.damping - theta, self.damping + theta])

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """`tokens_passed`: [B|1, S, 1, 1]."""
    return tokens_passed(position_ids, index_BS)[:, :, None, None]

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    rates = jnp.asarray(self.rates(), jnp.float32)
    i, j = (x.swapaxes(1, 2) for x in (tile.i, tile.j))

    def decay(i, j):
      # Only for pairs that are masked, and padding, is the exponent more than 0.
      return jnp.exp(jnp.minimum(jnp.multiply.outer((j - i)[..., 0], rates), 1.0))

    q_BHTK, k_BGSK = (_sums_and_differences(x) for x in (q_BHTK, k_BGSK))
    return fading_products(self.scale(q_BHTK.shape[-1]) * q_BHTK, k_BGSK, i, j, decay, tile)


def tokens_passed(position_ids, index_BS):
  """By how much positions have grown since the row began, on from one document to the next: float32
  [B|1, S], NaN from a position on that is below the one before it in its document.
  """
  steps_BS = jnp.diff(position_ids, axis=1, prepend=position_ids[:, :1]).astype(jnp.float32)
  steps_BS = jnp.where(index_BS > 0, jnp.where(steps_BS < 0, jnp.nan, steps_BS), 0.0)
  return jnp.cumsum(steps_BS, axis=1)


def _sums_and_differences(x_BHTK):
  """The sum and the difference of each pair of channels, of which products are those of x."""
  first, second = x_BHTK[..., ::2].astype(jnp.float32), x_BHTK[..., 1::2].astype(jnp.float32)
  return jnp.concatenate([first + second, first - second], axis=-1) * math.sqrt(0.5)
