"""Learned absolute positions."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding, input_positions
from posenc_jax.encodings.core.bounds import check_at_least, check_one_of, check_unread
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.xla_ops import add_rounded_once

EXTENSIONS = ('none', 'repeat', 'group', 'interpolate', 'hierarchical')
ALPHA = 0.4  # a of 'hierarchical'


def rows_at(table_LX, positions):
  """The table's rows at integer positions; NaN outside the table: an index is never clamped."""
  # JAX would read a negative index from the table's end.
  outside = jnp.where(positions < 0, table_LX.shape[0], positions)
  return jnp.take(table_LX, outside, axis=0, mode='fill', fill_value=jnp.nan)


class Learned(Encoding):
  """x_t = E[token_t] + P[t], P learned with L = `max_length` rows (Gehring et al. 2017, sect. 3.1).

  As published, P starts as large as the token embeddings: like theirs, its entries have standard
  deviation D^-1/2, are read times sqrt(D) and reach the model with unit variance. Positions outside
  the table give NaN, but where `extend` makes rows of its own for more, also in evaluation of a run
  that was trained without:

    repeat:        P[t mod L]
    group:         P[floor(t / s)], s = ceil(T / L), for T = `extend_to` positions
    interpolate:   at t (L - 1) / (T - 1), linear between the two rows around it
    hierarchical:  P[i L + j] = a u_i + (1 - a) u_j, u_i = (P_i - a P_0) / (1 - a), a = 0.4

  The last is of Su 2020 (kexue.fm/archives/7947) and reaches L^2; it and 'repeat' leave the first L
  rows as they are. 'group' and 'interpolate' give all positions rows near those of others.

  Where a token has several positions, `axes`, each has a table of its own, and x_t = E[token_t] +
  sum_n P_n[t_n]: the factorized positions of NaViT (Dehghani et al. 2023), of rows and columns of
  patches. Their sum starts with variance `axes`. Without positions, all of them are the token's
  index.
  """

  paper = (
    'Gehring et al. 2017, arXiv:1705.03122; Devlin et al. 2018, arXiv:1810.04805; '
    'Dehghani et al. 2023, arXiv:2307.06304'
  )
  parameter_summary = 'a row a position and axis'
  reported_extrapolation = 'none: its table ends, unless `extend`ed'
  relative = False

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_length: int | None = None,
    extend: str = 'none',
    extend_to: int | None = None,
    axes: int = 1,
  ):
    """Draws the tables.

    Args:
      max_length: rows of a table; the training length if None.
      extend: how positions past a table get rows, one of EXTENSIONS.
      extend_to: T, the number of positions that 'group' and 'interpolate' make of a table; None
        with others.
      axes: how many positions a token has, with a table each.
    """
    super().__init__(dims, rngs)
    L = dims.train_length if max_length is None else max_length
    check_at_least(1, max_length=L, axes=axes)
    self.positions_per_token = axes
    check_one_of(EXTENSIONS, extend=extend)
    if extend not in ('group', 'interpolate'):
      check_unread("extend is 'group' or 'interpolate'", extend_to=extend_to)
    elif extend_to is None or extend_to < L:
      raise ValueError(f'extend_to={extend_to}; allowed: at least the {L} rows of the table')
    ends = {'none': L, 'repeat': None, 'hierarchical': L**2}
    self.extend, self.max_length = extend, ends.get(extend, extend_to)
    shape = (L, dims.model_dim) if axes == 1 else (axes, L, dims.model_dim)
    self.rows = normal(rngs, shape, dims.model_dim**-0.5)

  def add_to_input(self, x_BTD, position_ids):
    axes = self.positions_per_token
    position_ids = input_positions(x_BTD, position_ids, axes)
    if axes == 1:
      sum_BTD = self._rows_at(self.rows[...], position_ids)
    else:
      sum_BTD = sum(self._rows_at(self.rows[n], position_ids[..., n]) for n in range(axes))
    return add_rounded_once(x_BTD, self.dims.model_dim**0.5 * sum_BTD)

  def _rows_at(self, rows_LD, positions):
    """The rows of positions, NaN outside of what the table is extended to."""
    L, T = len(rows_LD), self.max_length
    if self.extend == 'none':
      return rows_at(rows_LD, positions)
    if self.extend == 'repeat':
      return rows_at(rows_LD, jnp.where(positions < 0, positions, positions % L))
    if self.extend == 'group':
      return rows_at(rows_LD, jnp.where(positions < T, positions // math.ceil(T / L), L))
    if self.extend == 'hierarchical':  # the formula, solved: exactly P_j where i is 0
      above = rows_at(rows_LD, positions // L) - rows_LD[None, :1]
      return rows_at(rows_LD, positions % L) + ALPHA / (1 - ALPHA) * above
    place_T = np.linspace(0, L - 1, T)
    is_inside = (positions >= 0) & (positions < T)
    below = jnp.where(is_inside, jnp.asarray(place_T.astype(np.int32))[positions], L)
    share = jnp.asarray(place_T % 1, jnp.float32)[positions][..., None]
    above = rows_at(rows_LD, jnp.minimum(below + 1, L - 1))
    return (1 - share) * rows_at(rows_LD, below) + share * above
