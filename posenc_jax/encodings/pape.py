"""Parabolas of the distance, which the query's token bends and moves."""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import ENDS_OF_COORDINATES, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import uniform
from posenc_jax.xla_ops import exact_einsum, exact_matmul


class PaPE(Encoding):
  """Parabolas of the distance, which tokens bend and move.

    s_ij = (q_i . k_j + sum_n [b_in (p_in - p_jn) - a_in (p_in - p_jn)^2]) / sqrt(K)

  Parabolic position encoding, Øhrstrøm et al. 2026. p_tn = w_hn . t, a direction in the `axes`
  positions t of a token for each of `parabolas` and each head, so that p is a multiple of the
  position where there is one; a_in = softplus(A_hn . x_i) and b_in = B_hn . x_i, x the layer's
  normalized input. The highest score lies b / (2 a) from the query, wherever it wants to look. Each
  layer has its own w, A and B, which start as in the released code, from U(-1/sqrt(fan-in),
  1/sqrt(fan-in)). It was made for images and videos, where positions are counted in patches. Text
  has long distances: at the start most heads see hardly more than a few tokens.

  The released code puts it into wider queries and keys, as expanded squares. Here differences of
  positions are squared, so that no digits are lost far out.
  """

  paper = 'Øhrstrøm et al. 2026, arXiv:2602.01418'
  parameter_summary = 'directions and two projections a layer'
  limit = ENDS_OF_COORDINATES
  position_kind = 'floats'
  bias_in_scale = True
  applies_scale = True
  needs_inputs = True
  per_layer = ('w_p', 'w_a', 'w_b')

  def __init__(self, dims: Dims, rngs, *, parabolas: int = 50, axes: int = 1):
    """Draws the directions and projections.

    Args:
      parabolas: how many each head has.
      axes: how many positions a token has.
    """
    super().__init__(dims, rngs)
    check_at_least(1, parabolas=parabolas, axes=axes)
    self.positions_per_token = axes
    D, H = dims.model_dim, dims.heads
    self.w_p = uniform(rngs, (axes, H, parabolas), -(axes**-0.5), axes**-0.5)
    shape = D, H, parabolas
    self.w_a, self.w_b = (uniform(rngs, shape, -(D**-0.5), D**-0.5) for _ in range(2))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Positions by axis, [B|1, S] each; by axis and by two of them, [B, S, H] each, what parabolas
    add up to: sum_n b_n w_n and sum_n a_n w_n w_n^T.
    """
    product = lambda w: exact_einsum('bsd,dhn->bshn', x_BSD.astype(jnp.float32), w[...])
    add_up = lambda y_BSHN, w_HN: exact_einsum('bshn,hn->bsh', y_BSHN, w_HN)
    a_BSHN, b_BSHN, w_p = jax.nn.softplus(product(self.w_a)), product(self.w_b), self.w_p[...]
    slopes = [add_up(b_BSHN, w_HN) for w_HN in w_p]
    curvatures = [[add_up(a_BSHN, w_HN * v_HN) for v_HN in w_p] for w_HN in w_p]
    return by_axis(position_ids), slopes, curvatures

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    positions, slopes, curvatures = tile.i
    differences = differences_by_axis(tile, positions, tile.j[0])
    bias_BHTS = 0.0
    for d_BHTS, slope_BTH, curvatures_BTH in zip(differences, slopes, curvatures, strict=True):
      steep_BHTS = _of_queries(slope_BTH)
      for e_BHTS, curvature_BTH in zip(differences, curvatures_BTH, strict=True):
        steep_BHTS -= _of_queries(curvature_BTH) * e_BHTS
      bias_BHTS += steep_BHTS * d_BHTS
    return s_BHTS + self.scale(self.dims.head_dim) * bias_BHTS


class PaPERI(Encoding):
  """Parabolas of the distance, which tokens bend, alike in all directions of the plane.

    s_ij = (q_i . k_j - a_ih c_h^2 |t_i - t_j|^2) / sqrt(K),   a_ih = softplus(A_h . x_i)

  PaPE-RI, the form of `pape` that rotations of the plane do not change: t are the `axes` positions
  of a token, and c_h is random and not trained, from U(-1/sqrt(axes), 1/sqrt(axes)). Each layer has
  its own A, which starts from U(-1/sqrt(D), 1/sqrt(D)). All layers have the same c; in the released
  code each layer draws its own.
  """

  paper = PaPE.paper
  parameter_summary = 'a projection a layer, fixed factors'
  limit = ENDS_OF_COORDINATES
  position_kind = 'floats'
  bias_in_scale = True
  applies_scale = True
  needs_inputs = True
  per_layer = ('w_a',)
  parameters_depend_on = ('seed',)  # of the factors that w_a is trained beside

  def __init__(self, dims: Dims, rngs, *, axes: int = 1, seed: int = 0):
    """`axes`: how many positions a token has. `seed`: of the factors c, also of all runs: vary
    encoding.seed with seed.
    """
    super().__init__(dims, rngs)
    check_at_least(1, axes=axes)
    check_at_least(0, seed=seed)
    self.positions_per_token, self.seed = axes, seed
    largest = dims.model_dim**-0.5
    self.w_a = uniform(rngs, (dims.model_dim, dims.heads), -largest, largest)

  def factors(self) -> np.ndarray:
    """c: float64 [H]."""
    largest = self.positions_per_token**-0.5
    return np.random.default_rng(self.seed).uniform(-largest, largest, self.dims.heads)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Positions by axis, [B|1, S] each, and a c^2, [B, S, H]."""
    logits_BSH = exact_matmul(x_BSD.astype(jnp.float32), self.w_a[...])
    squares_H = jnp.asarray(self.factors() ** 2, jnp.float32)
    return by_axis(position_ids), jax.nn.softplus(logits_BSH) * squares_H[None, None]

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    positions, curvature_BTH = tile.i
    squares = [d**2 for d in differences_by_axis(tile, positions, tile.j[0])]
    return s_BHTS - self.scale(self.dims.head_dim) * _of_queries(curvature_BTH) * sum(squares)


def by_axis(position_ids) -> list:
  """The positions of tokens, float32 [B|1, S] for each that a token has."""
  positions = position_ids.astype(jnp.float32)
  return [positions] if positions.ndim == 2 else list(jnp.moveaxis(positions, 2, 0))


def differences_by_axis(tile, i: list, j: list) -> list:
  """i - j of every pair, [B|1, 1, T', S'] for each axis."""
  return [tile.difference(x[..., None], y[..., None]) for x, y in zip(i, j, strict=True)]


def _of_queries(x_BTH):
  return x_BTH.swapaxes(1, 2)[..., None]
