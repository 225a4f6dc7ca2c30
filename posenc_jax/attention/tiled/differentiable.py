"""Attention with gradients, of a forward and a backward pass over tiles."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from posenc_jax.attention.request import OUTPUT
from posenc_jax.attention.tiled.schedule import cast_like


def differentiable(forward, backward, *static, with_lse: bool = False):
  """attention(arrays, ids) -> o, or (o, log-sum-exp) if `with_lse`, for arrays and ids as
  `cut_into_tiles` makes them.

  o is [rows of tiles, B, H, T', K], with the K of v; log-sum-exp float32 [rows of tiles, B, H, T'].

  Args:
    forward: (*static, arrays, ids) -> (o, log-sum-exp, *kept), without a sink.
    backward: (*static, arrays, ids, per_row, *kept) -> the gradients of arrays, in any dtype.
      `per_row` is (do, d_denominator, lse): cotangents of output and denominator, and log-sum-exp,
      relative to which weights are taken. Pulled back through o = p @ v and denominator = sum(p)
      with p normalized, the cotangents give ds = p (do . v - delta).
  """

  @jax.custom_vjp
  def attention(arrays, ids):
    return keep(arrays, ids)[0]

  def keep(arrays, ids):
    o, lse, *kept = forward(*static, arrays, ids)
    o, lse = _merge_sink(o, lse, arrays['row'])
    o, lse, *kept = checkpoint_name((o, lse, *kept), OUTPUT)
    return (o, lse) if with_lse else o, (arrays, ids, o, lse, kept)

  def pull_back(residuals, d_out):
    arrays, ids, o, lse, kept = residuals
    do, d_lse = d_out if with_lse else (d_out, None)
    delta = (do.astype(jnp.float32) * o.astype(jnp.float32)).sum(axis=-1)
    is_softmax = arrays['whole'].normalizer == 'softmax'
    d_denominator = -delta if is_softmax else jnp.zeros_like(delta)
    if d_lse is not None:  # log-sum-exp changes with a score by its weight
      d_denominator += d_lse
    gradients = backward(*static, arrays, ids, (do, d_denominator, lse), *kept)
    if 'sink' in arrays['row']:  # its weight times d_denominator
      d_sink = jnp.exp(arrays['row']['sink'] - lse) * d_denominator
      gradients = gradients | {'row': gradients['row'] | {'sink': d_sink}}
    return cast_like(gradients, arrays), None

  attention.defvjp(keep, pull_back)
  return attention


def _merge_sink(o, lse, row):
  """Output and log-sum-exp of whole rows with the sink in the denominator if there is one."""
  if 'sink' not in row:
    return o, lse
  with_sink = jnp.logaddexp(lse, row['sink'])
  return (o * jnp.exp(lse - with_sink)[..., None]).astype(o.dtype), with_sink
