"""`attend` as the attention function of Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.attention.attend import attend
from posenc_jax.attention.request import check_encoding
from posenc_jax.encodings import Encoding
from posenc_jax.errors import shown


def attention_fn(enc: Encoding, *, is_causal: bool = False, **options) -> 'FlaxAttention':
  """The attention of an encoding, as `nnx.MultiHeadAttention` and
  `linen.MultiHeadDotProductAttention` take it: `attention_fn=attention_fn(enc, is_causal=True)`.

  Queries are multiplied by `enc.query_scale`. In NNX the encoding is a part of the layer, so that
  its parameters are trained with it; make it once for layers that share it. Queries and keys are
  of one sequence: `attend` takes another one where no position counts.

  Args:
    enc: an encoding from `posenc_jax.make`, of as many heads as the layer.
    is_causal: whether keys to the right are hidden; so they are where the layer is told
      `is_causal=True`. As elsewhere in Flax they are not by default.
    options: other arguments of `attend`, such as `window` and `mask`. Arrays of one call, such as
      `segment_ids`, or `x` where `enc.needs_inputs`, can be given only where attention_fn is called
      anew for each call, as in the `__call__` of a Linen module, not in a layer of NNX. Nor does a
      layer of NNX take encodings that make more heads (`heads_per_query` above 1); Linen's does.

  Raises:
    ValueError: `enc` is no encoding, or the log-sum-exp is asked for.
  """
  check_encoding(enc)
  if options.get('return_logsumexp'):
    allowed = 'False, for layers of Flax take outputs alone: call attend'
    raise ValueError(f'return_logsumexp=True; allowed: {allowed}')
  return FlaxAttention(enc, options | {'is_causal': is_causal})


class FlaxAttention(nnx.Module):
  """`attention_fn` of an encoding, called as Flax calls `dot_product_attention`."""

  def __init__(self, enc: Encoding, options: dict):
    self.encoding = enc
    is_array = lambda option: isinstance(option, jax.Array | np.ndarray)
    self.arrays = nnx.data({name: x for name, x in options.items() if is_array(x)})
    self.options = nnx.static(tuple((n, x) for n, x in options.items() if not is_array(x)))

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
  ):
    """The outputs of attention, [B, T, H, K].

    Args:
      mask: True, or not 0, where a query sees a key, [1 or B, 1, T, S], or 1 in the place of T or
        S; it takes memory of all scores, which `is_causal` and the options of `attend` do not.
      input_positions: `position_ids` of `attend`; layers of NNX hand them on in later versions of
        Flax (0.12.12 does, 0.12.8 does not).

    Raises:
      ValueError: another argument is given than by default, and what serves in its place.
    """
    del broadcast_dropout
    if bias is not None:
      raise ValueError('bias; allowed: None, for what is added to scores is a hook of the encoding')
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
    if query.shape[-3] != key.shape[-3]:
      problem = f'{query.shape[-3]} queries for {key.shape[-3]} keys'
      allowed = 'as many, of one sequence; for a cache (docs/attend.md) or another, call attend'
      raise ValueError(f'{problem}; allowed: {allowed}')
    options = self.arrays | dict(self.options)
    options['is_causal'] |= is_causal
    if mask is not None:
      if options.get('mask') is not None:
        raise ValueError('mask; allowed: one, of the layer or of attention_fn')
      B, T, S = query.shape[0], query.shape[-3], key.shape[-3]
      options['mask'] = _mask_of_pairs(mask, B, T, S)
    if input_positions is not None:
      if options.get('position_ids') is not None:
        allowed = 'one of it and position_ids of attention_fn'
        raise ValueError(f'input_positions; allowed: {allowed}')
      options['position_ids'] = input_positions
    if dtype is not None:
      query, key, value = (x.astype(dtype) for x in (query, key, value))
    return attend(query * self.encoding.query_scale, key, value, self.encoding, **options)


def _mask_of_pairs(mask, B: int, T: int, S: int):
  """A mask of Flax as `attend` takes it. Raises ValueError where it has another shape, as where it
  differs from head to head.
  """
  sizes = B, 1, T, S
  if mask.ndim != 4 or any(n not in (1, size) for n, size in zip(mask.shape, sizes, strict=True)):
    allowed = f'{sizes}, or 1 in the place of any, for all heads see the same keys'
    raise ValueError(f'mask has shape {mask.shape}; allowed: {allowed}')
  return jnp.broadcast_to(jnp.asarray(mask[:, 0], bool), (len(mask), T, S))
