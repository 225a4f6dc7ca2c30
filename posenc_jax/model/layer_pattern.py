"""Which encoding each layer of a model has."""

import functools

import jax
from flax import nnx

from posenc_jax import encodings
from posenc_jax.model.layer_sharing import Layered

PATTERN = 'pattern'  # the name of an encoding section that names one encoding a layer
# of a layer in a pattern; some encodings have a hyperparameter called `window`
WINDOW = 'attention_window'


class Pattern(nnx.Module):
  """The encodings of all layers: one for all, or several in an order that repeats over the layers.

  Layers of equal encodings are one kind, whatever their windows, and share what that encoding
    shares: three layers of
  `t5` have one table. kinds: a `Layered` each. order: the kind of each layer of a period. windows:
  how many tokens each of them sees, None: as attention does elsewhere.
  """

  def __init__(self, make, encoding: dict, layers: int, share: str):
    """`make(**spec)` builds an encoding of one layer. Raises ValueError with one line for what is
    no pattern.
    """
    kinds, self.order, self.windows = specs(encoding)
    for spec in kinds:  # before a hyperparameter can pass for a size of the model
      encodings.check(spec['name'], {key: value for key, value in spec.items() if key != 'name'})
    if len(self.order) > layers:
      allowed = f'at most model.layers={layers}'
      raise ValueError(
        f'encoding.layers: a pattern of {len(self.order)} layers; allowed: {allowed}'
      )
    numbers = [
      sum(self.order[n % len(self.order)] == kind for n in range(layers))
      for kind in range(len(kinds))
    ]
    self.kinds = nnx.List(
      Layered(functools.partial(make, **spec), n, share)
      for spec, n in zip(kinds, numbers, strict=True)
    )

  @property
  def first(self) -> list:
    """Of each kind, the encoding as the first of its layers has it."""
    return [kind.layer(0) for kind in self.kinds]

  def periods(self, layers):
    """(layers, own parameters of the encodings by kind): as whole periods, [M, layers a period,
    ...], and the rest.

    `layers`: a pytree of [N, ...], parameters of all layers.
    """
    own, period = [kind.split()[0] for kind in self.kinds], len(self.order)
    whole = len(jax.tree.leaves(layers)[0]) // period

    def periods(tree, size):
      return jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), tree)

    def rest(tree, size):
      return jax.tree.map(lambda x: x[whole * size :], tree)

    sizes = [self.order.count(kind) for kind in range(len(self.kinds))]
    cut = lambda part: (
      part(layers, period),
      [part(tree, size) for tree, size in zip(own, sizes, strict=True)],
    )
    return cut(periods), cut(rest)

  def encodings(self, own: list, layers: int):
    """(kind, encoding, window) of the first so many layers of a period, given what they have of
    their own, by kind.
    """
    for n, kind in enumerate(self.order[:layers]):
      slot = self.order[:n].count(kind)
      yield kind, self.kinds[kind].split()[1]([leaf[slot] for leaf in own[kind]]), self.windows[n]


def specs(encoding: dict) -> tuple[list[dict], tuple[int, ...], tuple[int | None, ...]]:
  """Of an encoding section: names and hyperparameters of its kinds; kind and window of each layer
  of a period.
  """
  if encoding['name'] != PATTERN:
    return [dict(encoding)], (0,), (None,)
  if unknown := encoding.keys() - {'name', 'layers'}:
    raise ValueError(f'encoding pattern has no hyperparameter {min(unknown)!r}; it has: layers')
  layers = {'layers': (), **encoding}['layers']
  named = layers.split(',') if isinstance(layers, str) else layers
  each = [{'name': spec} if isinstance(spec, str) else dict(spec) for spec in named]
  if not each or any(spec.setdefault('name', PATTERN) == PATTERN for spec in each):
    allowed = f"names of encodings, or dicts of a name, hyperparameters and {WINDOW}: ('rope', 'rope', 'nope')"
    raise ValueError(f'encoding.layers={layers!r}; allowed: {allowed}')
  windows = tuple(spec.pop(WINDOW, None) for spec in each)
  for window in windows:
    if window is not None and (type(window) is not int or window < 1):
      raise ValueError(f'encoding.layers: {WINDOW}={window!r}; allowed: 1 or more tokens')
  kinds = [spec for n, spec in enumerate(each) if spec not in each[:n]]
  return kinds, tuple(map(kinds.index, each)), windows
