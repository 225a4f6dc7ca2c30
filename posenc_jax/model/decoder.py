"""A bare decoder language model. Every extra is a named flag that is off."""

import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from posenc_jax.attention import CHECKPOINT_NAME, check_backend
from posenc_jax.attention.arguments import check_softcap
from posenc_jax.attention.positions import check_length, check_positions, positions_of_model
from posenc_jax.distributed import mesh
from posenc_jax.encodings.core.base import Dims, in_32_bits, is_readable
from posenc_jax.encodings.core.parameters import normal, stream
from posenc_jax.model.layer import Layer, Norm
from posenc_jax.model.layer_pattern import LayerPattern, combine_masks
from posenc_jax.xla_ops import matmul

# What is kept of a layer for the backward pass besides its input, by `model.remat`.
_of_attention = jax.checkpoint_policies.save_only_these_names(CHECKPOINT_NAME)
REMAT_POLICIES = {
  'products': jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _of_attention
  ),
  'attention': _of_attention,
  'layer': jax.checkpoint_policies.nothing_saveable,
}


def check_tokens(tokens, vocab: int) -> None:
  """Raises ValueError, one line, for tokens that are no symbols, of which JAX would read others or
  NaN. Traced ones, and those that lie with other processes, too, are not looked at.
  """
  if not is_readable(tokens) or not np.size(tokens):
    return
  known = np.asarray(tokens)
  low, high = int(known.min()), int(known.max())
  if low < 0 or high >= vocab:
    allowed = f'symbols, from 0 to {vocab - 1}'
    raise ValueError(f'token {low if low < 0 else high}; allowed: {allowed}')


class LM(nnx.Module):
  """A decoder: tokens to logits. The parameters of the layers are stacked: [N, ...] each.

  Rules that go by `ndim`, such as those of `optax.contrib.muon` and of many weight decay masks, are
  to count one axis less below `layers`. Parameters name no mesh axes: on devices of one's own
  choosing they are cut by `posenc_jax.distributed.mesh.parameter_shardings`, and activations on the
  mesh of `make_mesh` alone.

  Attributes:
    bos: the id of BOS, the symbol that windows begin with.
    encodings: a LayerPattern, the encodings of all layers.
    layers: a Layer whose parameters are those of all, [N, ...] each.
    embedding: [vocab, D].
  """

  def __init__(self, config, encoding: dict, vocab: int, train_length: int, rngs: nnx.Rngs):
    """Draws the parameters.

    Args:
      config: the section `model` of a run's config.
      encoding: a name and hyperparameters, as the section `encoding`.
      vocab: the number of symbols, BOS among them: the last one, unless `config.bos` names another.
      train_length: training length in tokens, which some encodings read.
      rngs: of which the stream `params` is read.
    """
    D, N = config.model_dim, config.layers
    key = rngs.params()
    self.unroll = config.unroll or N
    self.logit_softcap, self.remat = config.logit_softcap, config.remat
    self.embedding_scale = config.embedding_scale or D**0.5
    self.bos = vocab - 1 if config.bos < 0 else config.bos
    dims = Dims(D, config.heads, config.kv_heads or config.heads, config.head_dim, train_length)
    self.embedding = normal(stream(key, 'embedding'), (vocab, D), D**-0.5)
    self.encodings = LayerPattern(
      encoding, dims, stream(key, 'encodings'), N, config.share_encoding
    )
    layers_rngs = stream(key, 'layers')
    layers = [Layer(config, self.encodings.heads_out_per_head, layers_rngs) for _ in range(N)]
    norm = functools.partial(Norm, D, config.norm, config.norm_eps)
    self.embedding_norm = norm() if config.embedding_norm else None
    self.norm = norm()
    self.tied = config.tie_embeddings
    if not self.tied:
      self.w_logits = normal(stream(key, 'logits'), (D, vocab), D**-0.5)
    self.layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

  @property
  def max_length(self) -> int | None:
    """Tokens after which positions end (a learned table), or None."""
    ends = [enc.max_length for enc in self.encodings.first_layers if enc.max_length is not None]
    return min(ends, default=None)

  @property
  def num_layers(self) -> int:
    """The number of layers, N."""
    return len(jax.tree.leaves(self.layers)[0])

  @property
  def vocab(self) -> int:
    """The number of symbols."""
    return self.embedding.shape[0]

  def constrain_parameters(self) -> Self:
    """The same model with the encodings' parameters back in their domain, after an update."""
    model = jax.tree.map(lambda leaf: leaf, self)
    variants = model.encodings.variants
    for n, variant in enumerate(variants):
      variants[n] = variant.constrain_parameters()
    return model

  def __call__(self, tokens_BT, **options) -> Any:
    """Logits [B, T, V], float32, of the token after each of tokens_BT; options of `hidden`.

    Rows of tokens_BT begin with BOS, as in training. With `observe` a pair is returned: logits, and
    what it returned for each layer, stacked: [N, ...].
    """
    if options.get('observe') is None:
      return self.logits(self.hidden(tokens_BT, **options))
    x_BTD, of_layers = self.hidden(tokens_BT, **options)
    return self.logits(x_BTD), of_layers

  def hidden(
    self,
    tokens_BT,
    *,
    position_ids=None,
    segment_ids=None,
    window=None,
    chunk=None,
    sink_tokens=0,
    prefix=0,
    max_position_distance=None,
    key=None,
    added_BTD=None,
    observe=None,
    dtype='float32',
    logits_dtype=None,
    **attention,
  ) -> Any:
    """What `logits` are computed from, [B, T, D]: the output of the last layer.

    With `observe`, that and what it returned for each layer, stacked: [N, ...].

    Args:
      position_ids, segment_ids, max_position_distance: as for `attend`; position_ids None:
        contiguous, or as an encoding samples them or reads them off tokens. All encodings stand at
        given ones, but those that take the positions of the data: they do at the input alone; and
        those that move given ones, with a `key`.
      window, chunk, sink_tokens, prefix: as for `attend`. A layer of a pattern has the smaller of
        its window and this one, and of its chunk and this one, and the more sink tokens.
      key: for encodings that sample positions in training, once a call for all layers; None: as
        they do in evaluation.
      added_BTD: added to the token embeddings; the gradient of zeros here is the embeddings' own.
      observe: (layer, x_BTD that it is given, its encoding, its keyword arguments of `attend`) -> a
        pytree of arrays, of the same shapes for all layers. Where the encoding carries a state from
        layer to layer, the layer's is beside these arguments, as `state`.
      dtype: of activations.
      logits_dtype: of what is returned, and so of the product that logits are; None: `dtype`.
      **attention: is_causal, mask, mask_ids, bias, softcap, backend, block_sizes as for `attend`.
        With is_causal=False this is an encoder.

    Raises:
      LengthError: contiguous positions go beyond a learned table.
      ValueError: tokens are no symbols, or `attend` refuses positions or another argument.
    """
    x_BTD = mesh.shard_tokens(self.embed(tokens_BT, dtype))
    if added_BTD is not None:
      x_BTD += added_BTD.astype(dtype)
    ids = {
      'position_ids': position_ids,
      'segment_ids': segment_ids,
      'max_position_distance': max_position_distance,
    }
    x_BTD, states, ids_of_variant = self._place(x_BTD, tokens_BT, ids, key)
    mask = {'window': window, 'chunk': chunk, 'sink_tokens': sink_tokens, 'prefix': prefix}
    options_of_variant = [own_ids | attention for own_ids in ids_of_variant]
    x_BTD, of_layers = self._apply_layers(x_BTD, states, options_of_variant, mask, observe)
    x_BTD = x_BTD.astype(logits_dtype or dtype)
    return x_BTD if observe is None else (x_BTD, of_layers)

  def _place(self, x_BTD, tokens_BT, ids: dict, key):
    """The input of the first layer: token embeddings at their positions.

    Returns:
      (x_BTD, for each variant of encodings the state that it carries, and the ids that `attend` is
      given).
    """
    states, ids_of_variant = [], []
    for enc in self.encodings.first_layers:
      at_input, own_ids = _own_positions(enc, tokens_BT, ids, key)
      check_positions(enc.at_input, at_input, *tokens_BT.shape)
      x_BTD = enc.add_to_input(x_BTD, at_input)
      if enc.takes_carried_positions:
        own_ids = {'segment_ids': ids['segment_ids']}
      ids_of_variant.append(own_ids)
      at_layers = own_ids.get('position_ids')
      at_layers = at_input if at_layers is None else at_layers
      states.append(enc.initial_state(at_layers, tokens_BT.shape[0]))
    return x_BTD, states, ids_of_variant

  def _apply_layers(self, x_BTD, states, options_of_variant: list[dict], mask: dict, observe):
    """The output of the last layer and, of each layer, what `observe` returned: [N, ...], or None.

    Args:
      states: for each variant of encodings, the state that the first layer gets.
      options_of_variant: for each variant of encodings, keyword arguments of `attend`.
      mask: those that say which keys a query sees, as far as no layer says otherwise.
    """

    def apply_layers(carried, parameters):
      (x_BTD, states), (layers, *own) = carried, parameters
      states = [*states]
      encodings = self.encodings.layers_of_period(own, len(layers))
      observed = []
      for layer, (variant, enc, layer_mask) in zip(layers, encodings, strict=True):
        options = options_of_variant[variant] | combine_masks(mask, layer_mask)
        if observe is not None:
          state = {} if states[variant] is None else {'state': states[variant]}
          observed.append(observe(layer, x_BTD, enc, options | state))
        apply = functools.partial(Layer.__call__, **options)
        if self.remat != 'none':
          apply = jax.checkpoint(apply, policy=REMAT_POLICIES[self.remat])
        x_BTD, states[variant] = mesh.shard_tokens(apply(layer, x_BTD, enc, states[variant]))
      stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *observed) if observed else None
      return (x_BTD, states), stacked

    periods, rest = self.encodings.split_periods(self.layers)
    unroll = -(-self.unroll // len(self.encodings.order))
    apply_period = lambda carried, period: apply_layers(carried, self.encodings.unstack(period))
    carried, of_periods = lax.scan(apply_period, (x_BTD, states), periods, unroll=unroll)
    (x_BTD, _), of_rest = apply_layers(carried, rest)
    of_layers = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), of_periods)
    if of_rest is not None:
      of_layers = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), of_layers, of_rest)
    return x_BTD, of_layers

  def embed(self, tokens_BT, dtype):
    """The embeddings of tokens, [B, T, D]. Encodings add to them."""
    check_tokens(tokens_BT, self.vocab)
    table_VD = mesh.whole_for_sequences(self.embedding[...])
    of_tokens = table_VD[tokens_BT].astype(jnp.float32)  # it may be held in bfloat16
    x_BTD = (self.embedding_scale * of_tokens).astype(dtype)
    return x_BTD if self.embedding_norm is None else self.embedding_norm(x_BTD)

  def logits(self, x_BTD) -> jax.Array:
    """Logits [B, T, V], float32, of the output of the last layer."""
    w_DV = mesh.whole_for_sequences(self.embedding[...].T if self.tied else self.w_logits[...])
    return self._cap(matmul(self.norm(x_BTD), w_DV.astype(x_BTD.dtype)))

  def logits_of_few(self, x_BTD):
    """What `logits` returns, faster for a few tokens: a turned embedding is not written out."""
    if not self.tied:
      return self.logits(x_BTD)
    w_VD = self.embedding[...].astype(x_BTD.dtype)
    return self._cap(jnp.einsum('btd,vd->btv', self.norm(x_BTD), w_VD))

  def _cap(self, logits_BTV):
    """Logits in float32, within the soft-cap if there is one."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    if self.logit_softcap:
      logits_BTV = self.logit_softcap * jnp.tanh(logits_BTV / self.logit_softcap)
    return logits_BTV


def _own_positions(enc, tokens_BT, ids: dict, key) -> tuple:
  """The positions at the input, and the ids of a forward pass with those of attention: as an
  encoding makes them where none are given, or to which it moves given ones.

  Raises LengthError for contiguous positions beyond the encoding's table.
  """
  given, segment_ids = ids['position_ids'], ids['segment_ids']
  if given is None:
    check_length(enc, tokens_BT.shape[1], segment_ids)
    at_input, own_ids = positions_of_model(enc, tokens_BT, key, segment_ids)
    return at_input, ids | own_ids
  given = in_32_bits(given)
  moves_given = enc.takes_carried_positions or enc.moves_given_positions
  moves = moves_given and enc.has('sample_positions')
  moved = enc.sample_positions(given, tokens_BT.shape[0], key) if moves else None
  given = given if moved is None else moved
  return given, ids | {'position_ids': given}


def build(config, vocab: int, rngs: nnx.Rngs) -> LM:
  """The model of a run's config. Raises ValueError, one line, before anything is compiled."""
  c = config.model
  check_backend(config.attention.backend, 'attention.backend')
  needed = vocab if c.bos < 0 else vocab - 1  # the corpus' own BOS, its last symbol, is not used
  if c.vocab and c.vocab < needed:
    raise ValueError(f'model.vocab={c.vocab}: the corpus has {needed} symbols')
  vocab = c.vocab or vocab
  if c.bos >= vocab:
    raise ValueError(f'model.bos={c.bos}: there are {vocab} symbols')
  model = LM(c, dict(config.encoding), vocab, config.train.length, rngs)
  if softcap := config.attention.softcap:
    for enc in model.encodings.first_layers:
      try:
        check_softcap(enc, softcap)
      except ValueError as error:
        raise ValueError(f'attention.{error}') from error
  return model


def shapes(config, vocab: int) -> LM:
  """The model of a run's config as shapes: nothing is computed. Raises ValueError as `build`."""
  return jax.eval_shape(lambda: build(config, vocab, nnx.Rngs(0)))


def attention_options(config) -> dict:
  """The section `attention` of a config as keyword arguments of `LM.__call__` and `token_nll`."""
  a = config.attention
  return {
    'backend': a.backend,
    'window': a.window or None,
    'chunk': a.chunk or None,
    'sink_tokens': a.sink_tokens,
    'softcap': a.softcap or None,
    'block_sizes': tuple(a.block_sizes) if all(a.block_sizes) else None,
  }


def options_on_one_device(config) -> dict:
  """`attention_options` for what reads a trained model where each sequence is one device's: `auto`
  in the place of a ring, which is of sequences that several devices hold.
  """
  options = attention_options(config)
  is_ring = options['backend'].startswith('ring')
  return options | {'backend': 'auto'} if is_ring else options
