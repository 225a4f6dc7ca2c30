"""Biases by the distances in each of several positions, as in a grid."""

import math

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import ENDS_OF_COORDINATES, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.hyperparameters import has_type
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.encodings.pape import by_axis, differences_by_axis
from posenc_jax.errors import shown

LARGEST = 16.0  # what a bias of `swin_v2` stays below
FINENESS = 8.0  # its units of distance within the window


class Swin(Encoding):
  """A learned bias by the distances in all positions of a token, rows and columns of a grid.

    s_ij = q_i . k_j / sqrt(K) + B[d_1, .., d_n, h],   d_a = clip(i_a - j_a, 1 - W_a, W_a - 1)

  Relative position bias of Swin (Liu et al. 2021, eq. 4). W are the `sizes` of a window, one for
  each position of a token: of two B has (2 W_1 - 1) (2 W_2 - 1) numbers a head, of three it is that
  of videos (Liu et al. 2021, arXiv:2106.13230). Every layer has its own table, which starts from
  N(0, 0.02^2), as in the released code. BEiT (Bao et al. 2021) has one that starts from 0, and
  three numbers more for its class token, which stands in no grid. A window there has no offset
  beyond the table; here these have the number at its edge, as positions may be farther apart.
  Shifted windows are not in it: `attend` takes a mask. Without positions, as on text, all of them
  are the token's index.
  """

  paper = 'Liu et al. 2021, arXiv:2103.14030; Bao et al. 2021, arXiv:2106.08254'
  parameter_summary = 'a table a layer'
  limit = ENDS_OF_COORDINATES
  bias_in_scale = False
  per_layer = ('table',)

  def __init__(self, dims: Dims, rngs, *, sizes: tuple = (7, 7)):
    """`sizes`: how many places a window has along each axis; a token has so many positions."""
    super().__init__(dims, rngs)
    self.sizes = sizes_of_axes(1, sizes)
    self.positions_per_token = len(sizes)
    self.table = normal(rngs, (*(2 * n - 1 for n in sizes), dims.heads), 0.02)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return by_axis(position_ids)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    place = tuple(
      jnp.clip(d_B1TS[:, 0], 1 - n, n - 1).astype(jnp.int32) + n - 1
      for d_B1TS, n in zip(differences_by_axis(tile, tile.i, tile.j), self.sizes, strict=True)
    )
    return s_BHTS + jnp.moveaxis(self.table[...][place], 3, 1)


class SwinV2(Encoding):
  """A bias that a small network computes of the distances in all positions of a token.

    s_ij = q_i . k_j / sqrt(K) + 16 sigmoid(f(u)_h),   f: an MLP axes -> hidden -> H with ReLU
    u_a = sign(i_a - j_a) log2(1 + 8 |i_a - j_a| / (W_a - 1)) / log2(8)

  Log-spaced continuous position bias of Swin V2 (Liu et al. 2021, section 3.3), with what the
  released code has beside it: W, 8, and the sigmoid. W are the `sizes` of the window in training,
  also where grids are larger. Every layer has its own MLP; as released its weights start from
  N(0, 0.02^2) and its offsets from 0, and there is none behind the last product. Queries and keys
  have unit length there. Without positions, as on text, all of them are the token's index.
  """

  paper = 'Liu et al. 2021, arXiv:2111.09883'
  parameter_summary = 'an MLP a layer'
  limit = ENDS_OF_COORDINATES
  position_kind = 'floats'
  bias_in_scale = False
  per_layer = ('w_in', 'b_in', 'w_out')
  parameters_depend_on = ('sizes',)

  def __init__(self, dims: Dims, rngs, *, sizes: tuple = (8, 8), hidden: int = 512):
    """Draws the MLP.

    Args:
      sizes: how many places a window has along each axis in training; a token has so many
        positions.
      hidden: width of the hidden layer.
    """
    super().__init__(dims, rngs)
    self.sizes = sizes_of_axes(2, sizes)
    check_at_least(1, hidden=hidden)
    self.positions_per_token = len(sizes)
    self.w_in, self.b_in = normal(rngs, (len(sizes), hidden), 0.02), zeros(hidden)
    self.w_out = normal(rngs, (hidden, dims.heads), 0.02)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return by_axis(position_ids)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    u_aN = jnp.stack(
      [
        jnp.sign(d_B1TS).ravel() * jnp.log1p(FINENESS / (n - 1) * jnp.abs(d_B1TS).ravel())
        for d_B1TS, n in zip(differences_by_axis(tile, tile.i, tile.j), self.sizes, strict=True)
      ]
    ) / math.log(FINENESS)
    hidden_FN = jax.nn.relu(self.w_in[...].T @ u_aN + self.b_in[...][:, None])
    bias_HBTS = (self.w_out[...].T @ hidden_FN).reshape(self.dims.heads, -1, *s_BHTS.shape[2:])
    return s_BHTS + LARGEST * jax.nn.sigmoid(bias_HBTS.swapaxes(0, 1))

  def elements_per_pair(self, sequences, i):
    return self.w_in.shape[1] * (1 if i[0].shape[0] == 1 else sequences)


def sizes_of_axes(least: int, sizes: tuple) -> tuple[int, ...]:
  """Sizes of windows; raises ValueError, one line, for others than whole numbers of `least` or
  more.
  """
  if not sizes or not all(has_type(n, int) and n >= least for n in sizes):
    allowed = f'a whole number of {least} or more for each position of a token'
    raise ValueError(f'sizes={shown(sizes)}; allowed: {allowed}')
  return tuple(sizes)
