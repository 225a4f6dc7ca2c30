"""Products of matrices and the shift along diagonals, with gradients in forms that XLA is fast at
on CPUs.

Under plain autodiff the gradient of a product's second factor contracts the rows of both its
factors, which takes up to 2.5 times as long as the product itself, and that of a shift pads in two
directions at once, element by element. Here the narrower factor is transposed first, and padding is
two steps. `materialize_on_cpu` keeps XLA from undoing either. LOG/040 and LOG/041 have figures.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax import target


def materialize_on_cpu(x):
  """x, on a CPU computed once and as written; elsewhere compilers and kernels know better."""
  return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


def varying_axes(tree) -> frozenset[str]:
  """The axes of a `jax.shard_map` along which any array of a pytree differs between devices."""
  arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
  return frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in arrays))


def vary(tree, axes: frozenset[str]):
  """The arrays of a pytree, each taken to differ along these axes of a `jax.shard_map`."""

  def of_leaf(x):
    lacking = tuple(axes - jax.typeof(x).manual_axis_type.varying)
    return lax.pcast(x, lacking, to='varying') if lacking else x

  return jax.tree.map(of_leaf, tree) if axes else tree


def zeros(shape: tuple[int, ...], dtype, like):
  """Zeros that differ between devices as the array `like` does, so that a loop may add to them."""
  return vary(jnp.zeros(shape, dtype), varying_axes(like))


def with_gradient(forward, backward, nondiff_argnums: tuple[int, ...] = ()):
  """A decorator: `jax.custom_vjp` with these two rules.

  All three are traced at the precision of products that is set where the function is called, at
  which gradients of jax's own products are computed, too. Jax traces the rules when it
  differentiates, by when a `jax.default_matmul_precision` around the call may have ended.
  """

  def at_precision(rule):
    def run(precision, *args):
      with jax.default_matmul_precision(precision):
        return rule(*args)

    return run

  def decorate(function):
    numbers = (0, *(n + 1 for n in nondiff_argnums))
    own = jax.custom_vjp(at_precision(function), nondiff_argnums=numbers)
    own.defvjp(at_precision(forward), at_precision(backward))
    call = lambda *args: own(jax.config.jax_default_matmul_precision, *args)
    return functools.wraps(function)(call)

  return decorate


def _product(subscripts: str, x, y):
  """The product that an einsum names, in float32, at the precision that is set.

  Numbers of fewer bits are multiplied at the default one, which is exact for them: Mosaic knows no
  other.
  """
  precision = None if jnp.result_type(x, y).itemsize >= 4 else lax.Precision.DEFAULT
  return jnp.einsum(subscripts, x, y, precision=precision, preferred_element_type=jnp.float32)


def _weighted_sum_of_rows(p_TS, x_TK):
  """sum_t p_ts x_t: [..., S, K]."""
  p_TS = p_TS.astype(x_TK.dtype)
  x_KT = materialize_on_cpu(x_TK.swapaxes(-1, -2))
  return materialize_on_cpu(_product('...kt,...ts->...ks', x_KT, p_TS)).swapaxes(-1, -2)


def _scaled_dot_backward(scale, factors, d_TS):
  x_TK, y_SK = factors
  d_TS = d_TS.astype(x_TK.dtype)  # the scale multiplies the narrow results, not each pair
  d_x_TK = scale * weighted_sum(d_TS, y_SK.astype(jnp.result_type(d_TS, y_SK)))
  d_y_SK = scale * _weighted_sum_of_rows(d_TS, x_TK)
  return d_x_TK.astype(x_TK.dtype), d_y_SK.astype(y_SK.dtype)


def _weighted_sum_backward(factors, d_TK):
  p_TS, y_SK = factors
  d_TK = d_TK.astype(y_SK.dtype)
  return scaled_dot(d_TK, y_SK).astype(p_TS.dtype), _weighted_sum_of_rows(p_TS, d_TK).astype(
    y_SK.dtype
  )


def scaled_dot(x_TK, y_SK, scale: float = 1.0):
  """scale * x_t . y_s: [..., T, S], float32. Leading axes are one batch."""
  return _scaled_dot(x_TK, y_SK, scale)


@with_gradient(
  lambda x, y, scale: (scaled_dot(x, y, scale), (x, y)), _scaled_dot_backward, nondiff_argnums=(2,)
)
def _scaled_dot(x_TK, y_SK, scale):
  s_TS = _product('...tk,...sk->...ts', x_TK, y_SK)
  return s_TS if scale == 1 else scale * s_TS


@with_gradient(lambda p, y: (weighted_sum(p, y), (p, y)), _weighted_sum_backward)
def weighted_sum(p_TS, y_SK):
  """sum_s p_ts y_s: [..., T, K], float32. Leading axes are one batch.

  The product takes p in the dtype of y; the gradient of p has p's own, for softmax takes from it a
  number that may be almost as large.
  """
  p_TS = p_TS.astype(y_SK.dtype)
  return _product('...ts,...sk->...tk', p_TS, y_SK)


def _if_any_on_cpu(function, is_read, *arrays):
  """function(*arrays); on a CPU zeros, which take no time, if `is_read` is nowhere True."""

  def nothing(*arrays):
    result = jax.eval_shape(function, *arrays)
    return jax.tree.map(lambda x: zeros(x.shape, x.dtype, arrays), result)

  return lax.platform_dependent(
    *(is_read, *arrays),
    cpu=lambda is_read, *arrays: lax.cond(is_read.any(), function, nothing, *arrays),
    default=lambda is_read, *arrays: function(*arrays),
  )


def _scaled_dot_if_any_backward(factors, d_TS):
  is_read, x_TK, y_SK = factors
  backward = lambda x_TK, y_SK, d_TS: _scaled_dot_backward(1.0, (x_TK, y_SK), d_TS)
  return None, *_if_any_on_cpu(backward, is_read, x_TK, y_SK, d_TS)


@with_gradient(
  lambda is_read, x, y: (scaled_dot_if_any(is_read, x, y), (is_read, x, y)),
  _scaled_dot_if_any_backward,
)
def scaled_dot_if_any(is_read, x_TK, y_SK):
  """`scaled_dot`; on a CPU zeros, which take no time, if nothing of it is read. A kernel would hold
  both.

  It has a gradient of its own: where jax (0.12) differentiates a `lax.cond`, branches return
  `lax.empty` for what others alone keep, and Mosaic cannot compile that.

  `is_read`: bools of any shape.
  """
  return _if_any_on_cpu(scaled_dot, is_read, x_TK, y_SK)


def _matmul_backward(factors, g):
  x, w = factors
  g = materialize_on_cpu(g)  # computed once, not again inside each product
  if target.sequence_shards() > 1:
    # As rows [N, ...], tokens of several sequences would not stay cut: each device would gather all
    # of them and compute all of d_w.
    leading = tuple(range(x.ndim - 1))
    return g @ w.T, jnp.tensordot(x, g, (leading, leading))
  x_ND, g_NF = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
  d_w = (
    materialize_on_cpu(x_ND.T) @ g_NF
    if w.shape[0] <= w.shape[1]
    else materialize_on_cpu(materialize_on_cpu(g_NF.T) @ x_ND).T
  )
  return g @ w.T, d_w


@with_gradient(lambda x, w: (x @ w, (x, w)), _matmul_backward)
def matmul(x, w):
  """x [..., D] @ w [D, F]."""
  return x @ w


def exact_matmul(x, y):
  """x @ y in all bits of float32, whatever the precision that is set."""
  return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


def exact_einsum(subscripts: str, x, y):
  """The product that an einsum names in all bits of float32, whatever the precision that is set."""
  return jnp.einsum(subscripts, x, y, precision=lax.Precision.HIGHEST)


def exactly(product):
  """`product`, such as `scaled_dot`, of float32 in all its bits, whatever the precision that is
  set.
  """

  def run(x, y):
    with jax.default_matmul_precision('highest'):
      return product(x, y)

  return run


def outer(x, y):
  """x * y of every pair: [*x.shape, *y.shape].

  `jnp.multiply.outer` merges the axes of x, so that tokens of several sequences would not stay cut:
  each device would gather all of them.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  return x.reshape(*x.shape, *[1] * y.ndim) * y.reshape(*[1] * x.ndim, *y.shape)


def add_rounded_once(x, y):
  """x + y in the dtype of x, added in float32.

  Where y has fewer axes of tokens than x, its gradient is a sum over them, in the dtype in which
  the two are added.
  """
  return (x.astype(jnp.float32) + y).astype(x.dtype)


@jax.custom_vjp
def add_bias(x, b):
  """`add_rounded_once` of x [..., F] and b [F]."""
  return add_rounded_once(x, b.reshape((1,) * (x.ndim - 1) + (-1,)))


def _add_bias_backward(b, g):
  g = materialize_on_cpu(g)  # else it would be computed once more, for the sum
  return g, g.astype(jnp.float32).sum(axis=range(g.ndim - 1)).astype(b.dtype)


add_bias.defvjp(lambda x, b: (add_bias(x, b), b), _add_bias_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relative_shift(g, width: int):
  """out[..., a, b] = g[..., a, n - 1 - a + b] for b < width: a reshape, since a row less one slides
  by one.

  g is [..., n, n + width].
  """
  *lead, n, columns = g.shape
  flat = g.reshape(*lead, n * columns)[..., n - 1 : n - 1 + n * (columns - 1)]
  return flat.reshape(*lead, n, columns - 1)[..., :width]


@jax.custom_vjp
def relative_shift_transpose(x):
  """The adjoint of `relative_shift`: [..., n, n + width] with x at its places, zeros elsewhere."""
  *lead, n, width = x.shape
  zeros = lambda *shape: jnp.zeros((*lead, *shape), x.dtype)
  body = materialize_on_cpu(jnp.concatenate([x, zeros(n, n - 1)], axis=-1)).reshape(*lead, -1)
  return jnp.concatenate([zeros(n - 1), body, zeros(1)], axis=-1).reshape(*lead, n, n + width)


relative_shift.defvjp(
  lambda g, width: (relative_shift(g, width), None),
  lambda width, _, d: (relative_shift_transpose(d),),
)
relative_shift_transpose.defvjp(
  lambda x: (relative_shift_transpose(x), None),
  lambda _, d: (relative_shift(d, d.shape[-1] - d.shape[-2]),),
)


def per_kv_head(product, x_BHTn, y_BGSK):
  """product(x, y) where H / G heads share a y: their rows are stacked, and y is read once.

  `product` takes [B, G, H/G T, n] and [B, G, S, K], such as `scaled_dot` and `weighted_sum`.
  """
  (B, H, T, n), G = x_BHTn.shape, y_BGSK.shape[1]
  return product(x_BHTn.reshape(B, G, H // G * T, n), y_BGSK).reshape(B, H, T, -1)
