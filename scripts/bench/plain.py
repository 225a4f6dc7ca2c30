"""Causal attention without an encoding, with a backward pass written by hand.

It is the yardstick for the generic engine.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

MASKED = -1e30
BLOCK_SIZES = (256, 256)  # query rows, key columns


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def attention(q_BTHK, k_BTHK, v_BTHK, block_sizes=BLOCK_SIZES):
  """softmax(q k / sqrt(K)) v over the keys up to each query: o [B, T, H, K].

  Raises ValueError if the blocks do not divide T.
  """
  return _forward(q_BTHK, k_BTHK, v_BTHK, block_sizes)[0]


def _to_blocks(x_BTHK, n: int):
  """[blocks, B H, n, K]."""
  B, T, H, K = x_BTHK.shape
  return x_BTHK.reshape(B, T // n, n, H, K).transpose(1, 0, 3, 2, 4).reshape(T // n, B * H, n, K)


def _from_blocks(x_NHTK, like_BTHK):
  """Undoes `_to_blocks`: the shape and dtype of `like_BTHK`."""
  (B, _, H, K), (N, _, n, _) = like_BTHK.shape, x_NHTK.shape
  joined = x_NHTK.reshape(N, B, H, n, K).transpose(1, 0, 3, 2, 4)
  return joined.reshape(like_BTHK.shape).astype(like_BTHK.dtype)


def _dot(formula: str, a, b):
  return jnp.einsum(formula, a, b.astype(a.dtype), preferred_element_type=jnp.float32)


def _sum_over_queries(p_HTS, x_HTK):
  """sum_t p_ts x_t. The narrow factor is transposed first, as posenc_jax.xla_ops explains."""
  x_HKT = lax.optimization_barrier(x_HTK.swapaxes(1, 2))
  return lax.optimization_barrier(_dot('hkt,hts->hks', x_HKT, p_HTS)).swapaxes(1, 2)


def _scores(q_HTK, k_HSK, a, b):
  """Masked scores of query block a, which is scaled already, and key block b."""
  n, m = q_HTK.shape[1], k_HSK.shape[1]
  visible_TS = (a * n + jnp.arange(n))[:, None] >= (b * m + jnp.arange(m))[None]
  return jnp.where(visible_TS[None], _dot('htk,hsk->hts', q_HTK, k_HSK), MASKED)


def _forward(q_BTHK, k_BTHK, v_BTHK, block_sizes):
  T, K = q_BTHK.shape[1], q_BTHK.shape[-1]
  n, m = (min(size, T) for size in block_sizes)
  if T % n or T % m:
    raise ValueError(f'{T} tokens are not whole blocks of {n} x {m}')
  q, k, v = _to_blocks(q_BTHK * K**-0.5, n), _to_blocks(k_BTHK, m), _to_blocks(v_BTHK, m)

  def one_row(args):
    a, q_a = args

    def one_block(b, carry):
      o, denominator, maximum = carry
      # Without the barriers XLA repeats the product inside the exponential.
      s = lax.optimization_barrier(_scores(q_a, k[b], a, b))
      new_maximum = jnp.maximum(maximum, s.max(axis=-1))
      p = lax.optimization_barrier(jnp.exp(s - new_maximum[..., None]))
      decay = jnp.exp(maximum - new_maximum)
      o = o * decay[..., None] + _dot('hts,hsk->htk', p.astype(v.dtype), v[b])
      return o, denominator * decay + p.sum(axis=-1), new_maximum

    zeros = jnp.zeros(q_a.shape, jnp.float32)
    start = (zeros, zeros[..., 0], zeros[..., 0] + MASKED)
    blocks = ((a + 1) * n - 1) // m + 1
    o, denominator, maximum = lax.fori_loop(0, blocks, one_block, start)
    return o / denominator[..., None], maximum + jnp.log(denominator)

  o, lse = lax.map(one_row, (jnp.arange(T // n), q))
  return _from_blocks(o, v_BTHK), (q, k, v, o, lse, (q_BTHK, k_BTHK, v_BTHK))


def _backward(block_sizes, residuals, do_BTHK):
  del block_sizes
  q, k, v, o, lse, inputs = residuals
  n, m = q.shape[2], k.shape[2]
  do = _to_blocks(do_BTHK, n)
  delta = (do * o).sum(axis=-1)

  def one_column(dq, args):
    b, k_b, v_b = args

    def one_block(a, carry):
      dq, dk, dv = carry
      p = jnp.exp(_scores(q[a], k_b, a, b) - lse[a][..., None])
      ds = p * (_dot('htk,hsk->hts', do[a], v_b) - delta[a][..., None])
      p, ds = (x.astype(q.dtype) for x in lax.optimization_barrier((p, ds)))
      dv += _sum_over_queries(p, do[a])
      dk += _sum_over_queries(ds, q[a])
      return dq.at[a].add(_dot('hts,hsk->htk', ds, k_b)), dk, dv

    zeros = jnp.zeros(k_b.shape, jnp.float32)
    dq, dk, dv = lax.fori_loop(b * m // n, len(q), one_block, (dq, zeros, zeros))
    return dq, (dk, dv)

  dq, (dk, dv) = lax.scan(one_column, jnp.zeros(q.shape, jnp.float32), (jnp.arange(len(k)), k, v))
  gradients = (dq * q.shape[-1] ** -0.5, dk, dv)
  return tuple(_from_blocks(d, like) for d, like in zip(gradients, inputs, strict=True))


attention.defvjp(_forward, _backward)
