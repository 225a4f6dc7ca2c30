"""Attention with gradients, of a forward and a backward pass over tiles."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from posenc_jax.attention.request import CHECKPOINT_NAME
from posenc_jax.attention.tiled.schedule import cast_like
from posenc_jax.xla_ops import with_gradient


def differentiable(forward, backward, *static, with_lse: bool = False, forward_alone=None):
  """attention(arrays, ids) -> o, or (o, log-sum-exp) if `with_lse`, for arrays and ids as
  `cut_into_tiles` makes them.

  o is [rows of tiles, B, H, T', K], with the K of v; log-sum-exp float32 [rows of tiles, B, H, T'].

  Args:
    forward: (*static, arrays, ids) -> (o, log-sum-exp, *kept), without a sink.
    backward: (*static, arrays, ids, per_row, *kept) -> the gradients of arrays, in any dtype.
      `per_row` is (do, d_denominator, lse): cotangents of output and denominator, and log-sum-exp,
      relative to which weights are taken. Pulled back through o = p @ v and denominator = sum(p)
      with p normalized, the cotangents give ds = p (do . v - delta).
    forward_alone: what is called in the place of `forward` where no gradient is asked for; it need
      not return what is kept.
  """

  # Two levels: what `keep` calls has rules of its own, since an outer gradient that does not go
  # through the inner one (first-order methods) differentiates the rules of the inner one.
  def keep(arrays, ids):
    found = checkpoint_name(attend_and_keep(arrays, ids), CHECKPOINT_NAME)
    return found, (arrays, ids, *found)

  def keep_alone(arrays, ids):
    (o, lse, _), residuals = keep(arrays, ids)
    return (o, lse), residuals

  @jax.custom_vjp
  def pull_back(residuals, d_found):
    arrays, ids, o, lse, kept = residuals
    do, d_lse = d_found[:2]
    delta = (do.astype(jnp.float32) * o.astype(jnp.float32)).sum(axis=-1)
    is_softmax = arrays['whole'].normalizer == 'softmax'
    d_denominator = -delta if is_softmax else jnp.zeros_like(delta)
    if with_lse:  # it changes with a score by its weight
      d_denominator += d_lse
    gradients = backward(*static, arrays, ids, (do, d_denominator, lse), *kept)
    if 'sink' in arrays['row']:  # its weight times d_denominator
      d_sink = jnp.exp(arrays['row']['sink'] - lse) * d_denominator
      gradients = gradients | {'row': gradients['row'] | {'sink': d_sink}}
    return cast_like(gradients, arrays), None

  pull_back.defvjp(lambda *given: (pull_back(*given), None), _refuse)

  @with_gradient(keep, pull_back)
  def attend_and_keep(arrays, ids):
    """(o, log-sum-exp, what else is kept for the gradient, which has no cotangent)."""
    o, lse, *kept = forward(*static, arrays, ids)
    return *_merge_sink(o, lse, arrays['row']), kept

  @with_gradient(keep_alone, pull_back)
  def attend(arrays, ids):
    o, lse, *_ = (forward_alone or forward)(*static, arrays, ids)
    return _merge_sink(o, lse, arrays['row'])

  def attention(arrays, ids):
    o, lse = attend(arrays, ids)
    return (o, lse) if with_lse else o

  return attention


def _refuse(residuals, d_gradients):
  """Raises NotImplementedError: `backward` takes log-sum-exp as given, and what that changes with
  would be left out.
  """
  del residuals, d_gradients
  what = 'attention by tiles or kernels has no second derivative'
  raise NotImplementedError(f"{what}; backend='dense' has one")


def _merge_sink(o, lse, row):
  """Output and log-sum-exp of whole rows with the sink in the denominator if there is one."""
  if 'sink' not in row:
    return o, lse
  with_sink = jnp.logaddexp(lse, row['sink'])
  return (o * jnp.exp(lse - with_sink)[..., None]).astype(o.dtype), with_sink
