"""Which parameters of an encoding the layers of a model share."""

import jax
import jax.numpy as jnp
from flax import nnx

SHARING = ('paper', 'all', 'none')


class Layered(nnx.Module):
  """An encoding for some layers: what each of them has of its own is stacked [N, ...], all else is
  there once.

  `share` is 'paper' (the class's `per_layer` are each layer's own), 'all' (one set) or 'none' (each
  layer its own set). Raises ValueError for an unknown `share`, and for 'none' with parameters that
  act once, at the input.
  """

  def __init__(self, make, layers: int, share: str):
    """`make()` builds the encoding of one layer, with parameters of its own."""
    if share not in SHARING:
      raise ValueError(f'model.share_encoding={share!r} must be one of {", ".join(SHARING)}')
    first, *others = (make() for _ in range(layers))
    parts = getattr(first, 'members', [first])
    once = [type(e).__name__ for e in parts if 'input' in e.places() and jax.tree.leaves(e)]
    if share == 'none' and once:
      raise ValueError(
        f"model.share_encoding='none': {once[0]} acts once, at the input, for all layers"
      )
    self.share, self.layers = share, layers
    self.own = first.per_layer
    self.encoding = jax.tree_util.tree_map_with_path(
      lambda path, *leaves: jnp.stack(leaves) if self.is_own(path) else leaves[0], first, *others
    )

  def is_own(self, path) -> bool:
    """Whether the parameter at this path of the encoding is stacked: a name in `per_layer`, or
    below one.
    """
    return self.share == 'none' or (self.share == 'paper' and is_below(path, self.own))

  def split(self):
    """The stacked parameters, a list for `lax.scan`, and the function that makes a layer's encoding
    from its slices.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(self.encoding)

    def layer(own: list) -> nnx.Module:
      slices = iter(own)
      return jax.tree.unflatten(
        tree, [next(slices) if self.is_own(path) else leaf for path, leaf in leaves]
      )

    return [leaf for path, leaf in leaves if self.is_own(path)], layer

  def layer(self, n: int) -> nnx.Module:
    """The encoding as the n-th of its layers has it."""
    own, layer = self.split()
    return layer([leaf[n] for leaf in own])


def is_below(path, names) -> bool:
  """Whether the path in a pytree is, or begins with, one of these names: 'rows', 'over',
  'members.1.w_f'.
  """
  steps = f'{jax.tree_util.keystr(path, simple=True, separator=".")}.'
  return any(steps.startswith(f'{name}.') for name in names)
