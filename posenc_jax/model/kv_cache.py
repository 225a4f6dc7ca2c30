"""The forward pass with a cache: tokens come one after another, and see those that came before."""

import dataclasses

import jax
import jax.numpy as jnp

from posenc_jax.attention import attend
from posenc_jax.attention.positions import check_length, positions_of_model
from posenc_jax.model.decoder import LM
from posenc_jax.model.layer import Layer
from posenc_jax.model.layer_pattern import combine_masks
from posenc_jax.model.token_nll import last_tokens

# Pairs of a query and a key up to which attention is by `dense`, which compiles faster: a number a
# head for each is little memory.
FEW_PAIRS = 2**20
IDS = ('segment_ids', 'position_ids')  # of `attend`, [B|1, S]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """What layers keep of the tokens so far, in S slots of which the last ones are taken.

  The newest token is always in the last slot, as `attend` has its queries. To attention the empty
  slots are another document. A layer whose queries never see the first of S slots may have fewer.

  Attributes:
    count: int32, how many slots are taken.
    tokens_BS: int32, for encodings that read positions off tokens.
    layers: for each layer, keys and values as `attend` is given them, 'k' and 'v', [B, S, G, K] and
      [B, S, G, K + added_value_channels]; 'x', its normalized input [B, S, D], where the encoding
      reads it; and 'q', queries [B, S, H, K], where it needs all. A state that an encoding carries
      needs no slot: keys and values have it.
  """

  count: jax.Array
  tokens_BS: jax.Array
  layers: tuple[dict[str, jax.Array], ...]

  @property
  def size(self) -> int:
    """S."""
    return self.tokens_BS.shape[1]


def empty_cache(model: LM, batch: int, size: int, *, part: int | None = None, **options) -> Cache:
  """A cache of `size` tokens for B = `batch` texts, float32.

  Args:
    model: with its layers: before `take_layers`.
    part: the most tokens of a call of `decode`; then layers with a window have slots for what
      their queries see, where the encoding reads no more. None: any number.
    options: those of these calls.
  Raises:
    LengthError: an encoding's table has fewer positions.
  """
  for enc in model.encodings.first_layers:
    check_length(enc, size)
  H, G, K = model.layers.sizes
  layers = []
  for _, enc, mask in model.encodings.all_layers(model.num_layers):
    slots = size if part is None else _slots(enc, combine_masks(options, mask), size, part)
    shapes = {'k': (batch, slots, G, K), 'v': (batch, slots, G, K + enc.added_value_channels)}
    shapes |= {'x': (batch, slots, model.embedding.shape[1])} if enc.needs_inputs else {}
    shapes |= {'q': (batch, slots, H, K)} if enc.needs_all_queries else {}
    layers.append({name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()})
  count, tokens_BS = jnp.zeros((), jnp.int32), jnp.zeros((batch, size), jnp.int32)
  return Cache(count, tokens_BS, tuple(layers))


def _slots(enc, mask: dict, size: int, part: int) -> int:
  """The slots of a layer's keys and values, of the `size` tokens of all."""
  hides = 'window' in mask and not mask.keys() & {'chunk', 'sink_tokens'}
  if not (hides and enc.relative and enc.reads_window_alone):
    return size
  return min(size, mask['window'] - 1 + part)


def take_layers(model: LM) -> tuple[Layer, ...]:
  """Takes the layers out of a model, one by one as `decode` has them beside the rest.

  A step of one token reads every parameter once. If it had to cut the layers out of the stack, it
  would write and read each once more. The model has no layers afterwards: their stacked parameters
  are given up one after another, so that few are held twice.
  """
  numbers = range(model.num_layers)
  stacked, structure = jax.tree.flatten(model.layers)
  del model.layers
  cut = []
  while stacked:
    leaf = stacked.pop()
    cut.append([leaf[n] for n in numbers])
  return tuple(jax.tree.unflatten(structure, layer) for layer in zip(*reversed(cut), strict=True))


def decode(
  model: LM,
  layers: tuple[Layer, ...],
  tokens_BT,
  cache: Cache,
  *,
  last: int | None = None,
  window: int | None = None,
  chunk: int | None = None,
  sink_tokens: int = 0,
  softcap: float | None = None,
):
  """Logits of the token after each of tokens_BT, which follow those of the cache, as many in each
  row, at contiguous positions: it cannot be told others.

  They are, up to rounding, those of a call of the model with all S tokens that the cache has slots
  for: an encoding that reads how long a call is, as `dynamic` scaling of RoPE does, reads S, and
  sampled positions are those of S tokens. The caller sees to it that no more than S tokens come.
  Attention is by the backend `dense`, and by the fastest where many tokens meet many slots.

  Args:
    model: what is left of it by `take_layers`, which deletes the layers of the model it is given.
    layers: what that has returned.
    last: of how many tokens at the end logits are wanted; None: all.
    window, chunk, sink_tokens, softcap: as for `LM.__call__`.
  Returns:
    (logits [B, T, V] or [B, last, V], the cache with these tokens).
  Raises:
    ValueError: more tokens, or another mask, than a layer of the cache has slots for.
  """
  T, S = tokens_BT.shape[1], cache.size
  tokens_BS = jnp.concatenate([cache.tokens_BS[:, T:], tokens_BT], axis=1)
  count = cache.count + T
  is_taken = (jnp.arange(S) >= S - count).astype(jnp.int32)[None]
  mask = {'window': window, 'chunk': chunk, 'sink_tokens': sink_tokens}
  x_BTD = model.embed(tokens_BT, cache.layers[0]['k'].dtype)
  states, ids_of_variant = [], []
  for enc in model.encodings.first_layers:
    at_input, ids = _positions(enc, tokens_BS, count)
    x_BTD = enc.add_to_input(x_BTD, at_input[:, S - T :])
    at_layers = ids.get('position_ids', at_input)[:, S - T :]
    states.append(enc.initial_state(at_layers, tokens_BT.shape[0]))
    ids_of_variant.append(ids)
  cached = []
  for n, (variant, enc, layer_mask) in enumerate(model.encodings.all_layers(len(layers))):
    layer_mask, slots = combine_masks(mask, layer_mask), cache.layers[n]['k'].shape[1]
    if (needed := _slots(enc, layer_mask, S, T)) > slots:
      raise ValueError(f'layer {n}: {slots} slots for {T} tokens more; allowed: at least {needed}')
    ids = ids_of_variant[variant] | {'segment_ids': is_taken}
    ids |= {name: x[:, S - slots :] for name, x in ids.items() if name in IDS}
    options = ids | layer_mask

    def attend_to_cached(q_BTHK, k_BTGK, v_BTGK, y_BTD, n=n, enc=enc, options=options):
      new, before = {'q': q_BTHK, 'k': k_BTGK, 'v': v_BTGK, 'x': y_BTD}, cache.layers[n]
      kept = {name: jnp.concatenate([x[:, T:], new[name]], axis=1) for name, x in before.items()}
      cached.append(kept)
      q_BTHK = kept.get('q', q_BTHK)
      o_BTHK = attend(
        q_BTHK,
        kept['k'],
        kept['v'],
        enc,
        x=kept.get('x'),
        softcap=softcap,
        backend='dense' if q_BTHK.shape[1] * kept['k'].shape[1] <= FEW_PAIRS else 'auto',
        outer_hooks_applied=True,
        **options,
      )
      return o_BTHK[:, -T:]

    x_BTD, states[variant] = layers[n].apply(x_BTD, enc, attend_to_cached, states[variant])
  return model.logits_of_few(last_tokens(x_BTD, last)), Cache(count, tokens_BS, tuple(cached))


def _positions(enc, tokens_BS, count):
  """The positions of all slots at the input, and what `attend` is told of them: those of S tokens
  of which the first stands in the first slot that is taken.
  """
  empty = tokens_BS.shape[1] - count
  at_input, ids = positions_of_model(enc, jnp.roll(tokens_BS, -empty, axis=1), None)
  if ids:
    ids['position_ids'] = jnp.roll(ids['position_ids'], empty, axis=1)
  return jnp.roll(at_input, empty, axis=1), ids
