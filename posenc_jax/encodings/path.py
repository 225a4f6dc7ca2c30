"""Attention along a path of Householder transformations that tokens choose."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.selective_rope import causal_conv
from posenc_jax.xla_ops import dot, lower_inverse, mix

TAPS = 3
CHUNK = 64  # keys of one triangular system


class PaTH(Encoding):
  """s_ij = k_j^T H_(j+1) ... H_i q_i / sqrt(K), H_t = I - beta_t w_t w_t^T (Yang et al. 2025).

    beta_t = 2 sigmoid(u . x_t + b), w_t = unit(silu(conv(A_2 A_1 x)_t))

  x is the layer's normalized input; conv, depthwise and causal over 3 tokens, does not reach back
  into the document before. Every layer has its own, one path a key/value head. b starts at 0;
  projections start at fan-in scale like every other, conv at U(-1/sqrt(3), 1/sqrt(3)). PaTH-FoX is
  a chain of this and `fox`, with `in_scale` as in the released code. In float32 whatever q is.
  """

  paper = 'Yang et al. 2025, arXiv:2505.16381'
  weights, claims = (
    'a path a key/value head a layer',
    'RULER at 2 L: 34.8, RoPE 1.3 (760M, its authors)',
  )
  bias_in_scale = True
  causal_only = True
  per_layer = ('w_1', 'w_2', 'conv', 'u', 'b')

  def __init__(self, dims: Dims, rngs, *, rank: int = 32):
    """`rank`: of the projection to w; 0: not factored, as released where key/value heads are fewer
    than heads.
    """
    super().__init__(dims, rngs)
    if rank < 0:
      raise ValueError(f'path: rank={rank} must be at least 0')
    (D, G), width = (dims.model_dim, dims.kv_heads), rank or dims.model_dim
    if rank:
      self.w_1 = normal(rngs, (D, rank), D**-0.5)
    self.w_2 = normal(rngs, (width, G, dims.head_dim), width**-0.5)
    taps = jax.random.uniform(rngs.params(), (TAPS, G, dims.head_dim), jnp.float32, -1, 1)
    self.conv = nnx.Param(TAPS**-0.5 * taps)
    self.u, self.b = normal(rngs, (D, G), D**-0.5), nnx.Param(jnp.zeros(G, jnp.float32))
    self.per_layer = tuple(name for name in type(self).per_layer if hasattr(self, name))

  def locate(self, x_BSD, positions_BS):
    """v = sqrt(beta) w, of which H = I - v v^T: float32 [B, S, G, K]."""
    if x_BSD is None:
      raise ValueError('PaTH reads content: attention needs x, the normalized input of the layer')
    x_BSD = x_BSD.astype(jnp.float32)
    low_BSR = x_BSD @ self.w_1[...] if hasattr(self, 'w_1') else x_BSD
    w_BSGK = jax.nn.silu(
      causal_conv(jnp.einsum('bsr,rgk->bsgk', low_BSR, self.w_2[...]), self.conv[...], positions_BS)
    )
    w_BSGK *= lax.rsqrt((w_BSGK**2).sum(axis=-1, keepdims=True) + 1e-6)
    # a root has no slope at 0
    half_log_BSG = jax.nn.log_sigmoid(x_BSD @ self.u[...] + self.b[...][None, None]) / 2
    return (2**0.5 * jnp.exp(half_log_BSG))[..., None] * w_BSGK

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    """A walk leftwards, chunk by chunk of keys: a query y_i arrives as H of all keys to the right
    of it have left it.

    Within a chunk H_(t+1) ... H_i y_i = y_i - sum_(u > t) a_iu v_u, where a_it = v_t . (that) for t
    <= i, else 0: A (I + L) = R, L_ut = v_u . v_t below the diagonal and R_it = v_t . y_i for t <=
    i. The matrix is that of all queries, and only k and v are solved for. Nothing is ever longer
    than the query, whatever a mask hides.
    """
    (B, H, T, S), (G, K) = s_BHTS.shape, block.j.shape[2:]
    rows = lambda x: x.reshape(B, G, H // G * T, -1)  # of the heads that share a path
    q_BGTK = rows(self.scale(K) * q_BTHK.swapaxes(1, 2).astype(jnp.float32))
    k_BGSK, v_BGSK = (
      k_BSHK[:, :, :: H // G].swapaxes(1, 2).astype(jnp.float32),
      block.j.swapaxes(1, 2),
    )
    met_TS = jnp.tile(block.order >= 0, (H // G, 1))
    width = min(CHUNK, 1 << (S - 1).bit_length())

    def chunks(x, axis):
      x = jnp.pad(x, [(-S % width if n == axis else 0, 0) for n in range(x.ndim)])
      return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, width, *x.shape[axis + 1 :]), axis, 0)

    k_NBGSK, v_NBGSK = chunks(k_BGSK, 2), chunks(v_BGSK, 2)
    solution_NBGSS = lower_inverse(dot(v_NBGSK, v_NBGSK))
    keys_NBGSS = mix(solution_NBGSS, jnp.tril(dot(v_NBGSK, k_NBGSK), -1))
    steps_NBGSK = mix(solution_NBGSS, v_NBGSK)

    def one_chunk(y_BGTK, columns):
      k_BGSK, v_BGSK, keys_BGSS, steps_BGSK, met_TS = columns
      r_BGTS = jnp.where(met_TS[None, None], dot(y_BGTK, v_BGSK), 0.0)
      return y_BGTK - mix(r_BGTS, steps_BGSK), dot(y_BGTK, k_BGSK) - mix(r_BGTS, keys_BGSS)

    def walk(turned_BGTK):
      columns = k_NBGSK, v_NBGSK, keys_NBGSS, steps_NBGSK, chunks(met_TS, 1)
      y_BGTK, s_NBGTS = lax.scan(one_chunk, q_BGTK + turned_BGTK, columns, reverse=True)
      s_BGTS = jnp.moveaxis(s_NBGTS, 0, -2).reshape(*q_BGTK.shape[:3], -1)[..., -S % width :]
      return s_BGTS.reshape(s_BHTS.shape), y_BGTK - q_BGTK

    return block.fold(q_BGTK.shape, walk)
