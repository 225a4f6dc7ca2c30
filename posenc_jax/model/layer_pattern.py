"""Which encoding each layer of a model has."""

import functools

import jax
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.registry import check_name, make_from_spec
from posenc_jax.errors import shown
from posenc_jax.model.layer_sharing import StackedEncoding

PATTERN = 'pattern'  # the name of an encoding section that names one encoding a layer
# What a section `encoding` names encodings in.
HOLDERS = ('name', 'layers', 'members', 'inner')
# What a layer in a pattern says of its mask, as an argument of `attend`; some encodings have a
# hyperparameter called `window`.
MASK = {
  'attention_window': 'window',
  'attention_chunk': 'chunk',
  'attention_sink_tokens': 'sink_tokens',
}


class LayerPattern(nnx.Module):
  """The encodings of all layers: one for all, or several in an order that repeats over the layers.

  Layers of equal encodings are one variant, whatever their masks, and share what that encoding
  shares: three layers of `t5` have one table. What acts on the input, of whichever layer it is the
  encoding, acts once for all.

  Attributes:
    variants: a StackedEncoding each.
    order: the variant of each layer of a period.
    heads_out_per_head: as the encodings declare it, the same for all.
  """

  def __init__(self, encoding: dict, dims: Dims, rngs: nnx.Rngs, layers: int, share: str):
    """Builds the encoding of each layer. Raises ValueError for a bad pattern."""
    variants, self.order, masks = read_pattern(encoding)
    self._masks = tuple(tuple(mask.items()) for mask in masks)  # not as dicts, to be hashable
    if len(self.order) > layers:
      allowed = f'at most model.layers={layers}'
      raise ValueError(
        f'encoding.layers: a pattern of {len(self.order)} layers; allowed: {allowed}'
      )
    for spec in variants:
      check_name(spec['name'], 'encoding.name')
    variant_of_layer = [self.order[n % len(self.order)] for n in range(layers)]
    self.variants = nnx.List(
      StackedEncoding(
        functools.partial(make_from_spec, spec, dims, rngs),
        variant_of_layer.count(n),
        share,
        field='model.share_encoding',
      )
      for n, spec in enumerate(variants)
    )
    _check_input(self.first_layers)
    numbers = {enc.heads_out_per_head for enc in self.first_layers}
    if len(numbers) > 1:
      raise ValueError(
        f'encoding.layers: {" and ".join(map(str, sorted(numbers)))} heads out for each head of '
        'queries; allowed: the same number for all layers'
      )
    (self.heads_out_per_head,) = numbers

  @property
  def masks(self) -> tuple[dict, ...]:
    """What each layer of a period says of window, chunk and sink tokens; {}: nothing."""
    return tuple(map(dict, self._masks))

  @property
  def first_layers(self) -> list:
    """For each variant, the encoding as the first of its layers has it."""
    return [variant.layer(0) for variant in self.variants]

  def split_periods(self, layers) -> tuple[list, list]:
    """The parameters of layers as M whole periods, for `lax.scan`, and those of layers left over.

    Both begin with `layers`, a pytree of [N, ...], parameters of all layers; then comes what the
    layers of each variant have of their own. Parameters of periods are [M, layers a period, ...],
    or [M, ...] where one layer a period has them, for XLA copies what it scans if it was reshaped.
    `unstack` makes lists of layers of a period's share. Those left over are such lists.
    """
    whole, left = divmod(len(jax.tree.leaves(layers)[0]), len(self.order))
    parts = [layers, *(variant.stacked_parameters() for variant in self.variants)]
    periods, rest = [], []
    for tree, size, count in zip(
      parts, self._sizes(len(self.order)), self._sizes(left), strict=True
    ):
      shape = (whole,) if size == 1 else (whole, size)
      of_periods = lambda x, end=whole * size, shape=shape: x[:end].reshape(*shape, *x.shape[1:])
      periods.append(jax.tree.map(of_periods, tree))
      rest.append(_layers_of(jax.tree.map(lambda x, end=whole * size: x[end:], tree), count))
    return periods, rest

  def unstack(self, period: list) -> list[list]:
    """What a step of the scan over `split_periods` gets as lists of layers."""
    sizes = self._sizes(len(self.order))
    return [
      [tree] if size == 1 else _layers_of(tree, size)
      for tree, size in zip(period, sizes, strict=True)
    ]

  def _sizes(self, count: int) -> list[int]:
    """The sizes of the first `count` layers of a period: of all, then of each variant's."""
    return [count, *(self.order[:count].count(n) for n in range(len(self.variants)))]

  def layers_of_period(self, own: list[list], count: int):
    """(variant, encoding, mask) of the first `count` layers of a period.

    Args:
      own: for each variant, the parameters that each of its layers in this period has of its own.
    """
    of_variant = [iter(some) for some in own]
    for n, variant in enumerate(self.order[:count]):
      encoding = self.variants[variant].with_parameters(next(of_variant[variant]))
      yield variant, encoding, self.masks[n]

  def all_layers(self, count: int):
    """(variant, encoding, mask) of each of a model's `count` layers, one by one."""
    for n in range(count):
      period, place = divmod(n, len(self.order))
      variant = self.order[place]
      slot = period * self.order.count(variant) + self.order[:place].count(variant)
      yield variant, self.variants[variant].layer(slot), self.masks[place]


def _check_input(encodings: list) -> None:
  """Raises ValueError where variants would add the same to the input of the one model."""
  kinds = [
    kind
    for enc in encodings
    for kind in dict.fromkeys(type(e).__name__ for e in enc.parts() if e.has('add_to_input'))
  ]
  if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
    problem = f'{twice} would be added to the input for each of {kinds.count(twice)} encodings'
    raise ValueError(f'encoding.layers: {problem}; allowed: one of them, which adds for all layers')


def _layers_of(tree, count: int) -> list:
  """The pytrees of each of `count` layers from one of [count, ...]."""
  return [jax.tree.map(lambda x, n=n: x[n], tree) for n in range(count)]


def read_pattern(encoding: dict) -> tuple[list[dict], tuple[int, ...], tuple[dict, ...]]:
  """Reads the section `encoding` of a config, a pattern of layers or one encoding for all.

  Returns:
    Name and hyperparameters of each variant; the variant and the mask of each layer of a period.
  """
  if encoding['name'] != PATTERN:
    return [dict(encoding)], (0,), ({},)
  if unknown := encoding.keys() - {'name', 'layers'}:
    raise ValueError(
      f'encoding pattern has no hyperparameter {min(unknown)!r}; it has: layers, of which each has '
      "its own, as in {'name': 'rope', 'base': 1e6}"
    )
  layers = {'layers': (), **encoding}['layers']
  named = layers.split(',') if isinstance(layers, str) else layers
  is_list = isinstance(named, list | tuple) and named
  if not is_list or not all(isinstance(spec, str) or hasattr(spec, 'keys') for spec in named):
    _refuse_layers(layers)
  specs = [{'name': spec} if isinstance(spec, str) else dict(spec) for spec in named]
  if any(spec.setdefault('name', PATTERN) == PATTERN for spec in specs):
    _refuse_layers(layers)
  masks = tuple(_pop_mask(spec) for spec in specs)
  variants = [spec for n, spec in enumerate(specs) if spec not in specs[:n]]
  return variants, tuple(map(variants.index, specs)), masks


def _refuse_layers(layers: object) -> None:
  allowed = f'names of encodings, or dicts of a name, hyperparameters and {", ".join(MASK)}'
  raise ValueError(f"encoding.layers={shown(layers)}; allowed: {allowed}: ('rope', 'rope', 'nope')")


def _pop_mask(spec: dict) -> dict[str, int]:
  """Takes what a layer says of its mask out of its spec. Raises ValueError."""
  mask = {}
  for field, name in MASK.items():
    tokens = spec.pop(field, None)
    if tokens is None:
      continue
    if type(tokens) is not int or tokens < 1:
      raise ValueError(f'encoding.layers: {field}={tokens!r}; allowed: 1 or more tokens')
    mask[name] = tokens
  return mask


def combine_masks(of_call: dict, of_layer: dict) -> dict[str, int]:
  """Both masks as one: the smaller window and chunk, and the larger number of sink tokens.

  What is missing, None or 0 in both, is missing.
  """
  combined = dict(of_call) | dict(of_layer)
  for name, choose in (('window', min), ('chunk', min), ('sink_tokens', max)):
    sizes = [mask[name] for mask in (of_call, of_layer) if mask.get(name)]
    combined[name] = choose(sizes, default=None)
  return {name: tokens for name, tokens in combined.items() if tokens}


def encoding_names(spec: object) -> list[str]:
  """Names of the encodings that the section `encoding` of a config, or a part of it, is made of."""
  if isinstance(spec, str):
    return [name for name in spec.split(',') if name != PATTERN]
  if hasattr(spec, 'keys'):
    spec = [spec[key] for key in HOLDERS if key in spec]
  is_list = isinstance(spec, tuple | list)
  return [name for part in spec for name in encoding_names(part)] if is_list else []
