"""`attend` as the attention function of Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.attention.arguments import check_encoding
from posenc_jax.attention.attend import attend
from posenc_jax.encodings import Encoding
from posenc_jax.errors import shown


def attention_fn(enc: Encoding, *, is_causal: bool = False, **options) -> 'FlaxAttention':
  """The attention of an encoding, as `nnx.MultiHeadAttention` and
  `linen.MultiHeadDotProductAttention` take it: `attention_fn=attention_fn(enc, is_causal=True)`.

  Queries are multiplied by `enc.query_scale`. In NNX the encoding is a part of the layer, so that
  its parameters are trained with it; make it once for layers that share it. Queries and keys are
  of one sequence; for another one see docs/attend.md.

  Args:
    enc: an encoding from `posenc_jax.make`, of as many heads as the layer.
    is_causal: whether keys to the right are hidden; so they are where the layer is told
      `is_causal=True`. As elsewhere in Flax they are not by default.
    options: other arguments of `attend`, such as `window` and `mask`. Arrays of one call, such as
      `segment_ids`, or `x` where `enc.needs_inputs`, can be given only where attention_fn is called
      anew for each call, as in the `__call__` of a Linen module, not in a layer of NNX. Nor does a
      layer of NNX take encodings that make more heads (`heads_out_per_head` above 1); Linen's does.

  Raises:
    ValueError: `enc` is no encoding, or the log-sum-exp is asked for.
  """
  check_encoding(enc)
  if options.get('return_logsumexp'):
    allowed = 'False, for layers of Flax take outputs alone: call attend'
    raise ValueError(f'return_logsumexp=True; allowed: {allowed}')
  return FlaxAttention(enc, options | {'is_causal': is_causal})


OF_TOKENS = ('x', 'position_ids', 'segment_ids', 'mask_ids')  # options with batch axes as q has


class FlaxAttention(nnx.Module):
  """`attention_fn` of an encoding, called as Flax calls `dot_product_attention`."""

  def __init__(self, enc: Encoding, options: dict):
    self.encoding = enc
    is_array = lambda option: isinstance(option, jax.Array | np.ndarray)
    self.arrays = nnx.data({name: x for name, x in options.items() if is_array(x)})
    to_hash = lambda option: tuple(option) if isinstance(option, list) else option
    static = tuple((n, to_hash(x)) for n, x in options.items() if not is_array(x))
    self.options = nnx.static(static)

  def __call__(
    self,
    query,
    key,
    value,
    bias=None,
    mask=None,
    broadcast_dropout=True,
    dropout_rng=None,
    dropout_rate=0.0,
    deterministic=False,
    dtype=None,
    precision=None,
    module=None,
    is_causal=False,
    input_positions=None,
    qk_attn_weights_einsum=None,
    attn_weights_value_einsum=None,
  ) -> jax.Array:
    """The outputs of attention, [..., T, H, K]; batches may have any number of axes.

    Args:
      mask: True, or not 0, where a query sees a key, [..., 1, T, S], with 1 in the place of any
        axis; it takes memory of all pairs, which `is_causal` and the options of `attend` do not.
      bias: what is added to scores, [..., H, T, S], with 1 in the place of any axis; as large.
      input_positions: `position_ids` of `attend`; layers of NNX hand them on in later versions of
        Flax (0.12.12 does, 0.12.8 does not).

    Raises:
      ValueError: another argument is given than by default, and what serves in its place.
    """
    del broadcast_dropout
    if dropout_rate > 0 and not deterministic and dropout_rng is not None:
      allowed = '0, or deterministic=True: drop outputs of the layer, for attend drops no weights'
      raise ValueError(f'dropout_rate={shown(dropout_rate)}; allowed: {allowed}')
    if precision is not None:
      allowed = 'None: jax.default_matmul_precision holds for gradients, too'
      raise ValueError(f'precision={shown(precision)}; allowed: {allowed}')
    einsums = {
      'qk_attn_weights_einsum': qk_attn_weights_einsum,
      'attn_weights_value_einsum': attn_weights_value_einsum,
    }
    for name, einsum in einsums.items():  # Linen gives only what the signature names
      if einsum is not None:
        raise ValueError(f'{name}_cls; allowed: None, for attend has its own products')
    if module is not None:
      allowed = 'False, for attend keeps no weights: of values that are an identity it returns them'
      raise ValueError(f'sow_weights=True; allowed: {allowed}')
    *batch, T, heads, _ = query.shape
    S = key.shape[-3]
    if T != S:
      problem = f'{T} queries for {S} keys'
      allowed = 'as many, of one sequence; for a cache (docs/attend.md) or another, call attend'
      raise ValueError(f'{problem}; allowed: {allowed}')
    options = self.arrays | dict(self.options)
    options['is_causal'] |= is_causal
    for name in OF_TOKENS:
      if options.get(name) is not None:
        options[name] = _of_tokens(options[name], batch, S)
    given = {'mask': mask, 'bias': bias, 'input_positions': input_positions}
    for name, option in (('mask', 'mask'), ('bias', 'bias'), ('input_positions', 'position_ids')):
      if given[name] is not None and options.get(option) is not None:
        raise ValueError(f'{name}; allowed: one, of the layer or `{option}` of attention_fn')
    if mask is not None:
      mask = _pair_array('mask', mask, batch, (1, T, S))[:, 0]
      options['mask'] = jnp.broadcast_to(jnp.asarray(mask, bool), (len(mask), T, S))
    if bias is not None:
      own = heads * self.encoding.heads_out_per_head
      options['bias'] = _pair_array('bias', bias, batch, (own, T, S))
    if input_positions is not None:
      options['position_ids'] = _of_tokens(input_positions, batch, S)
    if dtype is not None:
      query, key, value = (x.astype(dtype) for x in (query, key, value))
    query, key, value = (_one_axis(x, batch, 3) for x in (query, key, value))
    o_BTHK = attend(query * self.encoding.query_scale, key, value, self.encoding, **options)
    return o_BTHK.reshape(*batch, *o_BTHK.shape[1:])


def _one_axis(x, batch: list[int], others: int):
  """An array of Flax with one axis in the place of its batch axes, or as it is where it has one."""
  if len(batch) == 1:
    return x
  own = x.shape[-others:]
  return jnp.broadcast_to(x, (*batch, *own)).reshape(-1, *own)


def _of_tokens(x, batch: list[int], S: int):
  """An array of tokens as `attend` takes it: [*batch, S, ...] has one axis in the place of the
  batch axes, [S] gets one, and [1, S, ...], which all sequences share, stays.
  """
  if x.ndim == 1:
    return x[None]
  has_batch = len(batch) > 1 and x.shape[: len(batch)] == tuple(batch)
  if x.shape[:2] == (1, S) and not has_batch:
    return x
  return _one_axis(x, batch, x.ndim - len(batch))


def _pair_array(name: str, x, batch: list[int], sizes: tuple[int, int, int]):
  """A mask or bias of Flax as `attend` takes it. Raises ValueError where it has another shape, such
  as a mask that differs from head to head.
  """
  allowed = *batch, *sizes
  is_size = lambda n, size: n in (1, size)
  if x.ndim != len(allowed) or not all(map(is_size, x.shape, allowed)):
    why = ', for all heads see the same keys' if name == 'mask' else ''
    raise ValueError(
      f'{name} has shape {x.shape}; allowed: {allowed}, or 1 in the place of any{why}'
    )
  return _one_axis(x, batch, 3)
