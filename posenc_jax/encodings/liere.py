"""Rotations of whole blocks of channels, the exponentials of learned matrices times positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.encodings.cayley_string import antisymmetric
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import (
  check_above,
  check_at_least,
  check_divides,
  check_one_of,
)
from posenc_jax.encodings.core.parameters import normal, uniform
from posenc_jax.xla_ops import exact_einsum, exact_matmul

GENERATORS = ('free', 'dependent', 'partition')
CHUNK = 2**20  # entries of the matrices of all tokens that are rotated at a time
LARGEST = 2.0**16  # radians, at which these are as coarse as float32
TERMS, DOUBLINGS = 6, 18


class LieRE(Encoding):
  """q_i and k_j rotate by R(x) = exp(sum_a x_a A_a / length), x_a the `axes` positions of a token.

  LieRE, Ostmeier et al. 2025, section 4. Each A_a is skew-symmetric and learned, in blocks of
  `block` channels, for every layer and head of its own (a key/value head where there are fewer).
  Their entries start from U(0, 2 pi), as in the released code, which this was compared with at
  equal positions. With one axis positions are divided by n, how many there are in training, unless
  told otherwise; the release divides those of each axis by its own n - 1, so that the last is 1.
  Published are blocks of 8 and of all channels; with blocks of 2 it is RoPE-Mixed.
  Larger matrices of several axes do not commute: R(x)^T R(y) depends on more than y - x. With one
  axis it depends on nothing else, and all this is `grape_m` with frequencies of each head, in a
  learned basis.

  Matrices of ComRoPE (Yu et al. 2025) commute. `generators='dependent'`, its LD: A_a is theta_a A,
  with a theta for every axis and block, from N(0, 1), which heads share. 'partition', its AP: block
  n rotates by the axis n mod `axes` alone. Entries start from N(0, 2) in both. Without positions,
  all coordinates of a token are its index.

  Each call makes a matrix for every token and head of keys: no other rotation here is as slow.
  """

  paper = 'Ostmeier et al. 2025, arXiv:2406.10322; Yu et al. 2025, arXiv:2506.03737'
  parameter_summary = 'skew-symmetric matrices an axis, head and layer'
  limit = (
    'a token whose matrix may rotate by more than 65,536 radians is NaN: at the start, in a block '
    'of 64 channels, one past some 400 training lengths'
  )
  position_kind = 'floats'
  rotates_qk = True
  per_layer = ('angles', 'thetas')
  parameters_depend_on = ('generators', 'axes')  # by `partition` one axis or another moves a block

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    axes: int = 1,
    block: int | None = None,
    generators: str = 'free',
    length: float | None = None,
  ):
    """Draws the matrices.

    Args:
      axes: how many positions a token has.
      block: channels that rotate together; None: all of a head.
      generators: how the matrices of the axes are made, one of GENERATORS.
      length: what positions are divided by, those of all axes; None: the training length, with one
        axis. As in the release are positions from 0 to 1 along each axis with length=1.
    """
    super().__init__(dims, rngs)
    block = dims.head_dim if block is None else block
    check_at_least(1, axes=axes)
    check_at_least(2, block=block)
    check_one_of(GENERATORS, generators=generators)
    if dims.head_dim % block:
      raise ValueError(f'block={block}; allowed: divisors of head_dim={dims.head_dim}')
    blocks = dims.head_dim // block
    if generators == 'partition':
      check_divides(blocks, 'blocks of a head', axes=axes)
    if length is None and axes > 1:  # the tokens of a grid are more than the places of an axis
      allowed = 'a number greater than 0, such as the places of an axis less 1'
      raise ValueError(f'length=None with axes={axes}; allowed: {allowed}')
    # `angles` go on at another length: positions are interpolated, as where it follows training
    self.length = dims.train_length if length is None else length
    check_above(0, length=self.length)
    self.positions_per_token, self.block, self.generators = axes, block, generators
    is_free = generators == 'free'
    self.relative = not is_free or axes == 1 or block == 2
    shape = axes if is_free else 1, dims.kv_heads, blocks, block * (block - 1) // 2
    self.angles = uniform(rngs, shape, 0, 2 * math.pi) if is_free else normal(rngs, shape, 2**0.5)
    if generators == 'dependent':
      self.thetas = normal(rngs, (axes, blocks), 1.0)

  def matrices(self):
    """A, float32 [axes, G, blocks, block, block]."""
    a_nGNcc = antisymmetric(self.angles[...], self.block)
    axes, blocks = self.positions_per_token, a_nGNcc.shape[2]
    if self.generators == 'dependent':
      return a_nGNcc * self.thetas[...][:, None, :, None, None]
    if self.generators == 'partition':
      is_own = np.arange(blocks) % axes == np.arange(axes)[:, None]
      return a_nGNcc * is_own[:, None, :, None, None].astype(np.float32)
    return a_nGNcc

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    T, S, a_nGNcc = q_BTHK.shape[1], k_BSGK.shape[1], self.matrices()
    x_BSn = j.reshape(*j.shape[:2], -1) / self.length
    # The queries are the last T of the tokens: what is before them is cut off again.
    q_BSHK = jnp.pad(q_BTHK, ((0, 0), (S - T, 0), (0, 0), (0, 0)))

    @jax.checkpoint
    def turn(token):
      x_Bn, q_BHK, k_BGK = token
      e_BGNcc = expm1_skew(exact_einsum('bn,n...->b...', x_Bn, a_nGNcc))
      return [_turned(y_BHK, e_BGNcc) for y_BHK in (q_BHK, k_BGK)]

    tokens = jax.tree.map(lambda y: y.swapaxes(0, 1), (x_BSn, q_BSHK, k_BSGK))
    chunk = max(CHUNK // (len(x_BSn) * a_nGNcc[0].size), 1)
    q_SBHK, k_SBGK = lax.map(turn, tokens, batch_size=min(chunk, S))
    return q_SBHK.swapaxes(0, 1)[:, S - T :], k_SBGK.swapaxes(0, 1)


def expm1_skew(a):
  """exp(a) - I of skew-symmetric a [..., c, c]; NaN where it may rotate by more than LARGEST.

  exp(a / n) - I for a large n, and from it e = exp(2 x) - I as 2 e + e e: e has all the bits of a
  small number, where a square of exp(x) itself would lose one.
  """
  # half the squares of all entries, no less than that of the largest angle
  square = (a**2).sum(axis=(-2, -1), keepdims=True) / 2
  small = jnp.where(square <= LARGEST**2, a, jnp.nan) * 2.0**-DOUBLINGS
  e = small
  for n in range(TERMS, 1, -1):
    e = small + exact_matmul(small, e) / n
  for _ in range(DOUBLINGS):
    e = 2 * e + exact_matmul(e, e)
  return e


def _turned(y_BHK, e_BGNcc):
  """y + e y, block by block; H / G heads in succession share a set of blocks."""
  _, G, N, c, _ = e_BGNcc.shape
  y_BGhNc = y_BHK.astype(jnp.float32).reshape(len(y_BHK), G, -1, N, c)
  e_BGNcc = jnp.broadcast_to(e_BGNcc, (len(y_BHK), *e_BGNcc.shape[1:]))
  turned = y_BGhNc + exact_einsum('bgncd,bghnd->bghnc', e_BGNcc, y_BGhNc)
  return turned.reshape(y_BHK.shape).astype(y_BHK.dtype)
