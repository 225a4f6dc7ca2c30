"""Attention with linear biases: scores fall with the distance, at a slope for each head."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import ENDS_OF_COORDINATES, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least

DEFAULT_EXPONENT = 8.0
CLOSEST = 1e-12  # a distance that is none


def slopes(heads: int, exponent: float = DEFAULT_EXPONENT) -> list[float]:
  """ALiBi's slopes: 2^(-exponent h/H) for h = 1..H where H is a power of two.

  Other numbers of heads take the slopes of the power of two below, then every second slope of the
  power above.
  """
  power = 1 << (heads.bit_length() - 1)
  first = [2.0 ** (-exponent * (h + 1) / power) for h in range(power)]
  between = [2.0 ** (-exponent * (2 * h + 1) / (2 * power)) for h in range(heads - power)]
  return first + between


def _flatness(heads: int) -> np.ndarray:
  """How far each slope is on the way from the steepest, 0, to the flattest, 1, in log, which does
  not depend on the exponent.
  """
  log_H = np.log(slopes(heads))
  return (log_H.max() - log_H) / np.ptp(log_H)


def balanced_slopes(heads: int) -> list[float]:
  """2^-k for k = 1..H/2, and the same below 0: with these biases grow with distance."""
  falling = [2.0**-k for k in range(1, heads // 2 + 1)]
  return falling + [-slope for slope in falling]


class ALiBi(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - m_h |i - j| / c, alike in all layers (Press et al. 2021).

  As in section 3 of the paper the slopes are m_h = 2^(-exponent h / H), h = 1 .. H, where H is a
  power of two and `exponent` is 8; for other H see `slopes`. Past the training length L biases go
  on falling. c is `factor`, 1 by default: position interpolation of a trained model (Al-Khateeb et
  al. 2023) sets c = S / L for S tokens at evaluation, so that |i - j| / c stays below L. With
  `spread` (NTK-ALiBi, github.com/keezen/ntk_alibi) the steepest slope stays and the others are
  divided by c^(log(m_1 / m_h) / log(m_1 / m_H)), m_1 the steepest and m_H the flattest, by c
  itself: for H a power of two that is c^((h - 1) / (H - 1)), as published; of other H the release
  leaves the heads between as they are. Of `learned` slopes the logarithms are learned, as
  x-transformers had it until August 2023: a few steps of Adam would take the flattest of bare
  slopes below 0.

  Balanced ALiBi (Fu et al. 2025, eqs. 3 and 4) has m_h = 2^-h in the first half of the heads, and
  the same slopes with the opposite sign in the second. There biases rise with the distance without
  a bound, so that the oldest keys get most weight: it needs `attention.window`. SWAT (eq. 5) is the
  chain of `rope`, `alibi` with balanced=True, and dict(name='sigmoid', bias=0.0), with a window.
  That is the paper's formula; the code in its repository has other biases, and softmax.

  Where a token has several positions, `axes`, |i - j| is sqrt(sum_a (i_a - j_a)^2): 2-D ALiBi of
  CROMA (Fuller et al. 2023), made for images, without a causal mask. Without positions, as on text,
  all of them are the token's index.
  """

  paper = (
    'Press et al. 2021, arXiv:2108.12409; Al-Khateeb et al. 2023, arXiv:2310.13017; '
    'Fu et al. 2025, arXiv:2502.18845; Fuller et al. 2023, arXiv:2311.00566'
  )
  parameter_summary = 'none, or its slopes'
  reads_window_alone = True
  reported_extrapolation = 'better to about 3 L, then flat; sliding windows: flat (its authors)'
  limit = f'with `axes`, {ENDS_OF_COORDINATES}'
  bias_in_scale = False
  parameters_depend_on = ('balanced',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    learned: bool = False,
    exponent: float = DEFAULT_EXPONENT,
    factor: float = 1.0,
    spread: bool = False,
    balanced: bool = False,
    axes: int = 1,
  ):
    """Computes the slopes.

    Args:
      learned: the logarithms of the slopes are parameters; they start at those of the fixed ones.
      exponent: the lowest slope is 2^-exponent where H is a power of two (MPT's alibi_bias_max).
      factor: c, which distances are divided by.
      spread: c divides the flattest slope alone, and the others the less the steeper they are.
      balanced: slopes of both signs, for an even number of heads; `exponent` says nothing then.
      axes: how many positions a token has.
    """
    super().__init__(dims, rngs)
    check_above(0, exponent=exponent, factor=factor)
    check_at_least(1, axes=axes)
    if balanced and dims.heads % 2:
      raise ValueError(f'balanced=True for heads={dims.heads}; allowed: an even number of heads')
    if balanced and exponent != DEFAULT_EXPONENT:
      allowed = f'{DEFAULT_EXPONENT:g} with balanced=True, which has slopes of its own'
      raise ValueError(f'exponent={exponent}; allowed: {allowed}')
    if spread and (balanced or dims.heads == 1):
      allowed = 'False for one head, which is the steepest and the flattest, and with balanced=True'
      raise ValueError(f'spread=True; allowed: {allowed}')
    if spread and factor == 1:
      raise ValueError('spread=True; allowed: False, unless factor is another than 1')
    self.learned, self.exponent, self.factor = learned, exponent, factor
    self.spread, self.balanced = spread, balanced
    self.positions_per_token = axes
    if axes > 1:
      self.switched_off, self.position_kind = ('bias',), 'floats'
    elif type(self).score is ALiBi.score:  # and not that of a subclass
      self.switched_off = ('score',)
    if learned:
      self.log_slopes = nnx.Param(jnp.log(jnp.abs(self._fixed_slopes())))

  def _fixed_slopes(self):
    H = self.dims.heads
    return jnp.array(balanced_slopes(H) if self.balanced else slopes(H, self.exponent), jnp.float32)

  def bias(self, r_R):
    return self._of_distances(jnp.abs(r_R).astype(jnp.float32))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    axes = [slice(n, n + 1) for n in range(self.positions_per_token)]
    squares_B1TS = sum(tile.difference(tile.i[..., n], tile.j[..., n]) ** 2 for n in axes)
    # A root has no gradient at 0, where tokens stand in one place.
    distances_BTS = jnp.sqrt(jnp.maximum(squares_B1TS, CLOSEST**2))[:, 0]
    return s_BHTS + jnp.moveaxis(self._of_distances(distances_BTS), 3, 1)

  def _of_distances(self, distances):
    """The biases of all heads, the last axis, at distances of any shape."""
    slopes_H = self._fixed_slopes()
    if self.learned:
      slopes_H = jnp.sign(slopes_H) * jnp.exp(self.log_slopes[...])
    if self.spread:
      slopes_H /= jnp.asarray(self.factor ** _flatness(self.dims.heads), jnp.float32)
    else:
      distances /= self.factor
    return -jnp.multiply.outer(distances, slopes_H)
