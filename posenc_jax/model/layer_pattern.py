"""Which encoding each layer of a model has."""

import functools

import jax
from flax import nnx

from posenc_jax import encodings
from posenc_jax.errors import shown
from posenc_jax.model.layer_sharing import StackedEncoding

PATTERN = 'pattern'  # the name of an encoding section that names one encoding a layer
# The window of a layer in a pattern; some encodings have a hyperparameter called `window`.
WINDOW = 'attention_window'


class LayerPattern(nnx.Module):
  """The encodings of all layers: one for all, or several in an order that repeats over the layers.

  Layers of equal encodings are one variant, whatever their windows, and share what that encoding
  shares: three layers of `t5` have one table.

  Attributes:
    variants: a StackedEncoding each.
    order: the variant of each layer of a period.
    windows: how many tokens each of these layers sees; None: as attention does elsewhere.
  """

  def __init__(self, make, encoding: dict, layers: int, share: str):
    """`make(**spec)` builds the encoding of one layer. Raises ValueError for a bad pattern."""
    variants, self.order, self.windows = read_pattern(encoding)
    for spec in variants:  # before a hyperparameter can pass for a size of the model
      hyper = {key: value for key, value in spec.items() if key != 'name'}
      encodings.check(spec['name'], hyper)
    if len(self.order) > layers:
      allowed = f'at most model.layers={layers}'
      raise ValueError(
        f'encoding.layers: a pattern of {len(self.order)} layers; allowed: {allowed}'
      )
    variant_of_layer = [self.order[n % len(self.order)] for n in range(layers)]
    self.variants = nnx.List(
      StackedEncoding(functools.partial(make, **spec), variant_of_layer.count(n), share)
      for n, spec in enumerate(variants)
    )

  @property
  def first_layers(self) -> list:
    """For each variant, the encoding as the first of its layers has it."""
    return [variant.layer(0) for variant in self.variants]

  def split_periods(self, layers):
    """The parameters of layers as whole periods, [M, layers a period, ...], and those left over.

    Args:
      layers: a pytree of [N, ...], parameters of all layers.
    Returns:
      For both, (parameters of layers, what the layers of each variant have of their own).
    """
    own = [variant.stacked_parameters() for variant in self.variants]
    period = len(self.order)
    sizes = [self.order.count(n) for n in range(len(self.variants))]
    whole = len(jax.tree.leaves(layers)[0]) // period

    def in_periods(tree, size):
      return jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), tree)

    def left_over(tree, size):
      return jax.tree.map(lambda x: x[whole * size :], tree)

    def split(part):
      return part(layers, period), [part(*pair) for pair in zip(own, sizes, strict=True)]

    return split(in_periods), split(left_over)

  def layers_of_period(self, own: list, count: int):
    """(variant, encoding, window) of the first `count` layers of a period.

    Args:
      own: for each variant, the parameters that its layers in this period have of their own.
    """
    for n, variant in enumerate(self.order[:count]):
      slot = self.order[:n].count(variant)
      encoding = self.variants[variant].with_parameters([leaf[slot] for leaf in own[variant]])
      yield variant, encoding, self.windows[n]


def read_pattern(encoding: dict) -> tuple[list[dict], tuple[int, ...], tuple[int | None, ...]]:
  """Reads the section `encoding` of a config, a pattern of layers or one encoding for all.

  Returns:
    Name and hyperparameters of each variant; the variant and the window of each layer of a period.
  """
  if encoding['name'] != PATTERN:
    return [dict(encoding)], (0,), (None,)
  if unknown := encoding.keys() - {'name', 'layers'}:
    raise ValueError(f'encoding pattern has no hyperparameter {min(unknown)!r}; it has: layers')
  layers = {'layers': (), **encoding}['layers']
  named = layers.split(',') if isinstance(layers, str) else layers
  is_list = isinstance(named, list | tuple) and named
  if not is_list or not all(isinstance(spec, str) or hasattr(spec, 'keys') for spec in named):
    _refuse_layers(layers)
  specs = [{'name': spec} if isinstance(spec, str) else dict(spec) for spec in named]
  if any(spec.setdefault('name', PATTERN) == PATTERN for spec in specs):
    _refuse_layers(layers)
  windows = tuple(spec.pop(WINDOW, None) for spec in specs)
  for window in windows:
    if window is not None and (type(window) is not int or window < 1):
      raise ValueError(f'encoding.layers: {WINDOW}={window!r}; allowed: 1 or more tokens')
  variants = [spec for n, spec in enumerate(specs) if spec not in specs[:n]]
  return variants, tuple(map(variants.index, specs)), windows


def _refuse_layers(layers: object) -> None:
  allowed = f'names of encodings, or dicts of a name, hyperparameters and {WINDOW}'
  raise ValueError(f"encoding.layers={shown(layers)}; allowed: {allowed}: ('rope', 'rope', 'nope')")
