"""Attention along a path of Householder transformations that tokens choose."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal, uniform, zeros
from posenc_jax.encodings.core.running_sums import causal_conv
from posenc_jax.xla_ops import exact_einsum, exact_matmul, exactly, scaled_dot, weighted_sum

TAPS = 3
CHUNK = 64  # keys of one triangular system
# A path that forgets nothing carries the rounding of its products to all keys before.
exact_dot, exact_sum = exactly(scaled_dot), exactly(weighted_sum)


class PaTH(Encoding):
  """s_ij = k_j^T H_(j+1) ... H_i q_i / sqrt(K), H_t = I - beta_t w_t w_t^T (Yang et al. 2025).

    beta_t = 2 sigmoid(u . x_t + b), w_t = unit(silu(conv(A_2 A_1 x)_t))

  x is the layer's normalized input; conv, depthwise and causal over 3 tokens, does not reach back
  into the segment before. Every layer has its own, one path a key/value head. b starts at 0;
  projections start at fan-in scale like every other, conv at U(-1/sqrt(3), 1/sqrt(3)), theirs all
  from N(0, 0.02^2). PaTH-FoX is a chain of this and `fox`, with `bias_in_scale` as in the released
  code. Scores are float32 whatever the dtype of q is.
  """

  paper = 'Yang et al. 2025, arXiv:2505.16381'
  parameter_summary = 'a path a key/value head a layer'
  reported_extrapolation = 'RULER at 2 L: 34.8, RoPE 1.3 (760M, its authors)'
  position_kind = None
  bias_in_scale = True
  causal_only = True
  needs_inputs = True
  reads_qk = True
  recomputes_scores = True
  per_layer = ('w_1', 'w_2', 'conv', 'u', 'b')

  def __init__(self, dims: Dims, rngs, *, rank: int = 32):
    """Builds the projections.

    Args:
      rank: of the projection to w; 0: not factored, as released where key/value heads are fewer
        than heads.
    """
    super().__init__(dims, rngs)
    check_at_least(0, rank=rank)
    D, G, K = dims.model_dim, dims.kv_heads, dims.head_dim
    width = rank or D
    if rank:
      self.w_1 = normal(rngs, (D, rank), D**-0.5)
    self.w_2 = normal(rngs, (width, G, K), width**-0.5)
    taps = uniform(rngs, (TAPS, G, K), -1, 1)
    self.conv = nnx.Param(TAPS**-0.5 * taps[...])
    self.u, self.b = normal(rngs, (D, G), D**-0.5), zeros(G)
    self.scans_keys = ((K,),)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """v = sqrt(beta) w, so that H = I - v v^T: float32 [B, S, G, K]."""
    x_BSD = x_BSD.astype(jnp.float32)
    low_BSR = exact_matmul(x_BSD, self.w_1[...]) if hasattr(self, 'w_1') else x_BSD
    w_BSGK = exact_einsum('bsr,rgk->bsgk', low_BSR, self.w_2[...])
    w_BSGK = jax.nn.silu(causal_conv(w_BSGK, self.conv[...], index_BS))
    w_BSGK *= lax.rsqrt((w_BSGK**2).sum(axis=-1, keepdims=True) + 1e-6)
    logits_BSG = exact_matmul(x_BSD, self.u[...])
    # Half the logarithm, since a root has no slope at 0.
    half_log_BSG = jax.nn.log_sigmoid(logits_BSG + self.b[...][None, None]) / 2
    return (2**0.5 * jnp.exp(half_log_BSG))[..., None] * w_BSGK

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    """Visits the keys leftwards, chunk by chunk: a query y_i arrives after H of all later keys.

    Within a chunk H_(t+1) ... H_i y_i = y_i - sum_(u > t) a_iu v_u, where a_it = v_t . H_(t+1) ...
    H_i y_i for t <= i, else 0. So A (I + L) = R with L_ut = v_u . v_t below the diagonal and
    R_it = v_t . y_i for t <= i. All queries share the matrix, and only k and v are solved for.
    Nothing is ever longer than the query, whatever a mask hides.
    """
    (B, H, T, K), (_, G, S, _) = q_BHTK.shape, k_BGSK.shape
    by_path = (B, G, H // G * T, K)  # the heads that share a path
    q_BGTK = (self.scale(K) * q_BHTK.astype(jnp.float32)).reshape(by_path)
    k_BGSK, v_BGSK = k_BGSK.astype(jnp.float32), tile.j.swapaxes(1, 2)
    is_past_TS = jnp.tile(tile.index_distance >= 0, (H // G, 1))
    width = min(CHUNK, 1 << (S - 1).bit_length())

    def chunks(x, axis):
      x = jnp.pad(x, [(-S % width if n == axis else 0, 0) for n in range(x.ndim)])
      return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, width, *x.shape[axis + 1 :]), axis, 0)

    k_NBGSK, v_NBGSK = chunks(k_BGSK, 2), chunks(v_BGSK, 2)
    solution_NBGSS = lower_inverse(exact_dot(v_NBGSK, v_NBGSK))
    keys_NBGSS = exact_sum(solution_NBGSS, jnp.tril(exact_dot(v_NBGSK, k_NBGSK), -1))
    steps_NBGSK = exact_sum(solution_NBGSS, v_NBGSK)

    def one_chunk(y_BGTK, columns):
      k_BGSK, v_BGSK, keys_BGSS, steps_BGSK, is_past_TS = columns
      r_BGTS = jnp.where(is_past_TS[None, None], exact_dot(y_BGTK, v_BGSK), 0.0)
      s_BGTS = scaled_dot(y_BGTK, k_BGSK) - exact_sum(r_BGTS, keys_BGSS)
      return y_BGTK - exact_sum(r_BGTS, steps_BGSK), s_BGTS

    def visit_keys(turned_BHTK):
      columns = k_NBGSK, v_NBGSK, keys_NBGSS, steps_NBGSK, chunks(is_past_TS, 1)
      start_BGTK = q_BGTK + turned_BHTK.reshape(by_path)
      y_BGTK, s_NBGTS = lax.scan(one_chunk, start_BGTK, columns, reverse=True)
      s_BGTS = jnp.moveaxis(s_NBGTS, 0, -2).reshape(*by_path[:3], -1)[..., -S % width :]
      return s_BGTS.reshape(B, H, T, S), (y_BGTK - q_BGTK).reshape(B, H, T, K)

    return tile.scan_keys(visit_keys)


@jax.custom_vjp
def lower_inverse(x_SS):
  """The inverse of I + what x has below its diagonal: [..., n, n], n a power of 2, by halves.

  Exact where the inverse is of moderate size. Made of products: on CPUs the threads of LAPACK would
  fight those of XLA.
  """
  n = x_SS.shape[-1]
  if n == 1:
    return jnp.ones_like(x_SS)
  first, last = slice(n // 2), slice(n // 2, n)
  upper, lower = lower_inverse(jnp.stack([x_SS[..., first, first], x_SS[..., last, last]]))
  corner = exact_matmul(exact_matmul(-lower, x_SS[..., last, first]), upper)
  top, bottom = (upper, jnp.zeros_like(upper)), (corner, lower)
  return jnp.concatenate([jnp.concatenate(halves, axis=-1) for halves in (top, bottom)], axis=-2)


def _lower_inverse_forward(x):
  y = lower_inverse(x)
  return y, y


def _lower_inverse_backward(y, d):
  y_transposed = y.swapaxes(-1, -2)
  return (-jnp.tril(exact_matmul(exact_matmul(y_transposed, d), y_transposed), -1),)


lower_inverse.defvjp(_lower_inverse_forward, _lower_inverse_backward)
