"""`attend` as the attention function of Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.attention.attend import attend
from posenc_jax.encodings import Encoding
from posenc_jax.errors import shown


def attention_fn(enc: Encoding, *, is_causal: bool = False, **options) -> 'FlaxAttention':
  """The attention of an encoding, as `nnx.MultiHeadAttention` and
  `linen.MultiHeadDotProductAttention` take it: `attention_fn=attention_fn(enc, is_causal=True)`.

  Queries are multiplied by `enc.query_scale`. In NNX the encoding is a part of the layer, so that
  its parameters are trained with it; make it once for layers that share it.

  Args:
    enc: an encoding from `posenc_jax.make`, of as many heads as the layer.
    is_causal: whether keys to the right are hidden; so they are where the layer is told
      `is_causal=True`. As elsewhere in Flax they are not by default.
    options: what else `attend` is told, such as `window` and `mask`; of arrays, such as
      `segment_ids`, where the function is made in each call, as in a Linen module.
  """
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
  ):
    """The outputs of attention, [B, T, H, K].

    Args:
      mask: True, or not 0, where a query sees a key, [1 or B, 1, T, S]; it takes memory of all
        scores, which `is_causal` and the options of `attend` do not.
      input_positions: `position_ids` of `attend`.

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
    if module is not None:
      allowed = 'False, for attend keeps no weights: posenc_jax.weights_of_heads computes them'
      raise ValueError(f'sow_weights=True; allowed: {allowed}')
    if query.shape[-3] != key.shape[-3]:
      problem = f'{query.shape[-3]} queries for {key.shape[-3]} keys'
      allowed = 'as many, for a cache of Flax fills up on the wrong side: see GUIDE, "Decoding"'
      raise ValueError(f'{problem}; allowed: {allowed}')
    options = self.arrays | dict(self.options)
    options['is_causal'] |= is_causal
    if mask is not None:
      options['mask'] = _mask_of_pairs(mask, options.get('mask'))
    if input_positions is not None:
      options['position_ids'] = input_positions
    if dtype is not None:
      query, key, value = (x.astype(dtype) for x in (query, key, value))
    return attend(query * self.encoding.query_scale, key, value, self.encoding, **options)


def _mask_of_pairs(mask, own):
  """A mask of Flax as `attend` takes it. Raises ValueError where it differs from head to head, or
  there is another one.
  """
  if own is not None:
    raise ValueError('mask; allowed: one, of the layer or of attention_fn')
  if mask.ndim != 4 or mask.shape[1] != 1:
    allowed = '[1 or B, 1, T, S], for all heads see the same keys'
    raise ValueError(f'mask has shape {mask.shape}; allowed: {allowed}')
  return jnp.asarray(mask[:, 0], bool)
