"""Sums and convolutions over the tokens before a token, as encodings with coordinates take them."""

import math

import jax.numpy as jnp
from jax import lax

# The `limit` of encodings that read differences of these sums.
ENDS_OF_SUMS = (
  'of a row whose gates sum to more than 2^24, near tokens may be off by 1 and more: documents '
  'packed into it count together'
)

# Rows of a tile up to which differences from its first query are near enough to be exact.
FEW_ROWS = 512


def running_sum(x_BSH):
  """Sums over tokens 0..s as whole + rest: differences of near tokens stay exact to 1e-6.

  A sum alone reaches 1e5, where neighbors in float32 are 0.008 apart. `whole` is an integer (exact
  below 2^24), `rest` at most 1/2 in size; both are float32, whatever x is. Rounding has no
  derivative, so the gradient is that of `rest`, which is the sum's.
  """
  x_BSH = x_BSH.astype(jnp.float32)

  def carry(whole, rest):
    return whole + jnp.round(rest), rest - jnp.round(rest)

  def add(a, b):
    return carry(a[0] + b[0], a[1] + b[1])

  return lax.associative_scan(add, carry(jnp.zeros_like(x_BSH), x_BSH), axis=1)


def running_angle(turns_BSGM, index_BS):
  """Angles in (-pi, pi] after tokens 0..s of a segment, each of which adds so many turns.

  They are summed in turns, of which whole ones are dropped without error. A segment begins where
  the place index_BS, [B|1, S], is 0.
  """

  def fraction(turns):
    return turns - jnp.round(turns)

  def add(a, b):
    (turns_a, begins_a), (turns_b, begins_b) = a, b
    turns = jnp.where(begins_b, turns_b, turns_a + turns_b)
    return fraction(turns), begins_a | begins_b

  begins = (index_BS == 0)[:, :, None, None]
  return 2 * math.pi * lax.associative_scan(add, (fraction(turns_BSGM), begins), axis=1)[0]


def difference_of_sums(tile, i, j):
  """c_i - c_j of every pair and head, [B|1, H, T', S'], of sums as `running_sum` gives them.

  In a tile of few rows they are taken from its first query on: those of near tokens are small then,
  and one difference a pair is exact enough. Where a tile is all of a long sequence it is not.
  """
  if i[0].shape[1] > FEW_ROWS:
    return tile.difference(i[0], j[0]) + tile.difference(i[1], j[1])
  origin = i[0][:, :1]
  c_i, c_j = (((whole - origin) + rest) for whole, rest in (i, j))
  return tile.difference(c_i, c_j)


def causal_conv(y_BSGM, taps_nGM, index_BS):
  """sum_n taps[n] y_(t - n) within a segment, in which tokens have the places index_BS."""
  out = 0.0
  for n, tap_GM in enumerate(taps_nGM):
    out += jnp.where((index_BS >= n)[:, :, None, None], y_BSGM, 0.0) * tap_GM[None, None]
    y_BSGM = jnp.pad(y_BSGM, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
  return out
