"""Causal attention without an encoding, its backward written by hand: what the generic engine is
held to.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

MASKED = -1e30
BLOCK = (256, 256)  # query rows, key columns


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def attention(q_BTHK, k_BTHK, v_BTHK, block=BLOCK):
  """softmax(q k / sqrt(K)) v over keys up to each query: o [B, T, H, K]. ValueError where blocks do
  not divide T.
  """
  return _forward(q_BTHK, k_BTHK, v_BTHK, block)[0]


def _cut(x_BTHK, n: int):
  """[blocks, B H, n, K]."""
  B, T, H, K = x_BTHK.shape
  return x_BTHK.reshape(B, T // n, n, H, K).transpose(1, 0, 3, 2, 4).reshape(T // n, B * H, n, K)


def _join(x_NHTK, like_BTHK):
  (B, _, H, K), (N, _, n, _) = like_BTHK.shape, x_NHTK.shape
  joined = x_NHTK.reshape(N, B, H, n, K).transpose(1, 0, 3, 2, 4)
  return joined.reshape(like_BTHK.shape).astype(like_BTHK.dtype)


def _dot(formula: str, a, b):
  return jnp.einsum(formula, a, b.astype(a.dtype), preferred_element_type=jnp.float32)


def _columns(p_HTS, x_HTK):
  """sum_t p_ts x_t, the narrow factor turned first: see products.py."""
  turned = lax.optimization_barrier(x_HTK.swapaxes(1, 2))
  return lax.optimization_barrier(_dot('hkt,hts->hks', turned, p_HTS)).swapaxes(1, 2)


def _scores(q_HTK, k_HSK, a, b):
  """Of query block a and key block b: q is scaled before it is cut."""
  n, m = q_HTK.shape[1], k_HSK.shape[1]
  seen_TS = (a * n + jnp.arange(n))[:, None] >= (b * m + jnp.arange(m))[None]
  return jnp.where(seen_TS[None], _dot('htk,hsk->hts', q_HTK, k_HSK), MASKED)


def _forward(q_BTHK, k_BTHK, v_BTHK, block):
  T, K = q_BTHK.shape[1], q_BTHK.shape[-1]
  n, m = (min(size, T) for size in block)
  if T % n or T % m:
    raise ValueError(f'{T} tokens are not whole blocks of {n} x {m}')
  q, k, v = _cut(q_BTHK * K**-0.5, n), _cut(k_BTHK, m), _cut(v_BTHK, m)

  def one_row(args):
    a, q_a = args

    def one_block(b, so_far):
      o, sums, top = so_far
      # else its product is repeated for the exponentials
      s = lax.optimization_barrier(_scores(q_a, k[b], a, b))
      new_top = jnp.maximum(top, s.max(axis=-1))
      p = lax.optimization_barrier(jnp.exp(s - new_top[..., None]))
      old = jnp.exp(top - new_top)
      o = o * old[..., None] + _dot('hts,hsk->htk', p.astype(v.dtype), v[b])
      return o, sums * old + p.sum(axis=-1), new_top

    zeros = jnp.zeros(q_a.shape, jnp.float32)
    o, sums, top = lax.fori_loop(
      0, ((a + 1) * n - 1) // m + 1, one_block, (zeros, zeros[..., 0], zeros[..., 0] + MASKED)
    )
    return o / sums[..., None], top + jnp.log(sums)

  o, lse = lax.map(one_row, (jnp.arange(T // n), q))
  return _join(o, v_BTHK), (q, k, v, o, lse, (q_BTHK, k_BTHK, v_BTHK))


def _backward(block, residuals, do_BTHK):
  del block
  q, k, v, o, lse, likes = residuals
  n, m = q.shape[2], k.shape[2]
  do = _cut(do_BTHK, n)
  delta = (do * o).sum(axis=-1)

  def one_column(dq, args):
    b, k_b, v_b = args

    def one_block(a, so_far):
      dq, dk, dv = so_far
      p = jnp.exp(_scores(q[a], k_b, a, b) - lse[a][..., None])
      ds = p * (_dot('htk,hsk->hts', do[a], v_b) - delta[a][..., None])
      p, ds = (x.astype(q.dtype) for x in lax.optimization_barrier((p, ds)))
      dv += _columns(p, do[a])
      dk += _columns(ds, q[a])
      return dq.at[a].add(_dot('hts,hsk->htk', ds, k_b)), dk, dv

    zeros = jnp.zeros(k_b.shape, jnp.float32)
    dq, dk, dv = lax.fori_loop(b * m // n, len(q), one_block, (dq, zeros, zeros))
    return dq, (dk, dv)

  dq, (dk, dv) = lax.scan(one_column, jnp.zeros(q.shape, jnp.float32), (jnp.arange(len(k)), k, v))
  return tuple(
    _join(d, like) for d, like in zip((dq * q.shape[-1] ** -0.5, dk, dv), likes, strict=True)
  )


attention.defvjp(_forward, _backward)
