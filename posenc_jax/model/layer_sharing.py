"""Which parameters of an encoding the layers of a model share."""

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings import Encoding

SHARING = ('paper', 'all', 'none')


class StackedEncoding(nnx.Module):
  """An encoding for some layers: parameters that each has of its own are stacked, [N, ...].

  All other parameters are there once. Attribute `encoding` is the encoding with stacked parameters.
  """

  def __init__(self, make: Callable[[], Encoding], layers: int, share: str, field: str = 'share'):
    """Builds the encoding of each layer and stacks what is not shared.

    Args:
      make: `make()` builds the encoding of one layer, with parameters of its own.
      layers: how many layers.
      share: 'paper' (the parameters in the encoding's `per_layer` are each layer's own), 'all' (one
        set) or 'none' (each layer its own set).
      field: what errors call `share`, where it comes from a config.
    Raises:
      ValueError: an unknown `share`; no layer; or 'none' for parameters that act once, at the
        input.
    """
    if layers < 1:
      raise ValueError(f'layers={layers}; allowed: 1 or more')
    if share not in SHARING:
      raise ValueError(f'{field}={share!r}; allowed: {", ".join(SHARING)}')
    first, *others = (make() for _ in range(layers))
    once = [type(e).__name__ for e in first.parts() if e.has('add_to_input') and jax.tree.leaves(e)]
    if share == 'none' and once:
      raise ValueError(f"{field}='none': {once[0]} acts once, at the input, for all layers")
    self.share, self.num_layers = share, layers
    self.per_layer = first.per_layer
    self.encoding = jax.tree_util.tree_map_with_path(
      lambda path, *leaves: jnp.stack(leaves) if self.is_stacked(path) else leaves[0],
      first,
      *others,
    )

  def is_stacked(self, path) -> bool:
    """Whether every layer has a parameter of its own at this path of the encoding."""
    is_own = self.share == 'paper' and is_below(path, self.per_layer)
    return self.share == 'none' or is_own

  def stacked_parameters(self) -> list:
    """The stacked parameters, each [N, ...]: for `lax.scan` over layers."""
    leaves = jax.tree_util.tree_leaves_with_path(self.encoding)
    return [leaf for path, leaf in leaves if self.is_stacked(path)]

  def with_parameters(self, own: list) -> Encoding:
    """The encoding of one layer, from the layer's slices of `stacked_parameters`."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(self.encoding)
    slices = iter(own)
    return jax.tree.unflatten(
      tree, [next(slices) if self.is_stacked(path) else leaf for path, leaf in leaves]
    )

  def constrain_parameters(self) -> Self:
    """The same with the encoding's parameters back in their domain, after an update."""
    own = jax.tree.map(lambda leaf: leaf, self)
    own.encoding = self.encoding.constrain_parameters()
    return own

  def layer(self, n: int) -> Encoding:
    """The encoding as the n-th of its layers has it, from 0. Raises ValueError for an integer out
    of range.
    """
    if not isinstance(n, jax.core.Tracer) and not 0 <= n < self.num_layers:
      raise ValueError(f'layer {n}; allowed: 0 to {self.num_layers - 1}')
    return self.with_parameters([leaf[n] for leaf in self.stacked_parameters()])


def is_below(path, names) -> bool:
  """Whether a path in a pytree is, or begins with, one of these names: 'rows', 'members.1.w_f'."""
  steps = f'{jax.tree_util.keystr(path, simple=True, separator=".")}.'
  return any(steps.startswith(f'{name}.') for name in names)
