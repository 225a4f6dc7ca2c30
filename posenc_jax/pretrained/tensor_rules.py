"""How tensors of a file become parameters of the model, and back."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from posenc_jax.errors import UserError

LAYER = 'model.layers.{n}.'  # what tensors of a layer begin with in most families


@dataclasses.dataclass(frozen=True)
class Rule:
  """Some tensors of a file and the parameters that they hold; of layers, if names have {n}.

  Attributes:
    tensors: names in the file.
    leaves: paths in the model, as checkpoints have them.
    to_leaves: (tensor, ...) -> as many arrays as leaves.
    to_tensors: its inverse.
    layers: the layers that have such tensors; None: all.
  """

  tensors: tuple[str, ...]
  leaves: tuple[str, ...]
  to_leaves: Callable[..., tuple[np.ndarray, ...]]
  to_tensors: Callable[..., tuple[np.ndarray, ...]]
  layers: tuple[int, ...] | None = None

  @property
  def is_of_layers(self) -> bool:
    return any('{n}' in name for name in self.tensors)

  def numbers(self, layers: int) -> Iterable[int | None]:
    """The layers whose tensors are stacked in the parameters, of a model with this number of
    layers; one None where the tensors are of no layer.
    """
    if not self.is_of_layers:
      return (None,)
    return range(layers) if self.layers is None else self.layers


def same(leaf: str, tensor: str, layers: tuple[int, ...] | None = None) -> Rule:
  """The tensor is the parameter."""
  return Rule((tensor,), (leaf,), lambda x: (x,), lambda x: (x,), layers)


def transposed(leaf: str, tensor: str) -> Rule:
  """The tensor has outputs first, as torch's Linear does."""
  return Rule((tensor,), (leaf,), lambda x: (x.T,), lambda x: (x.T,))


def logits_rule(model: dict, tensor: str = 'lm_head.weight') -> list[Rule]:
  """The rule of the output projection in a list; [] where that is the token embedding."""
  return [] if model['tie_embeddings'] else [transposed('w_logits', tensor)]


def scaled(rule: Rule, factor: float) -> Rule:
  """The rule, and parameters are `factor` times what it gives."""
  if factor == 1:
    return rule
  return dataclasses.replace(
    rule,
    to_leaves=lambda *xs: tuple(x * np.float32(factor) for x in rule.to_leaves(*xs)),
    to_tensors=lambda *xs: rule.to_tensors(*(x / np.float32(factor) for x in xs)),
  )


def plus_one(leaf: str, tensor: str) -> Rule:
  """The tensor is the parameter less 1, as in Gemma's norms."""
  return Rule((tensor,), (leaf,), lambda x: (x + 1,), lambda x: (x - 1,))


def zeros(leaf: str, *shape: int) -> Rule:
  """The file has no such tensor: the model's form has a parameter that is zero in this family.
  `to_tensors` raises `UserError` where training has made it another.
  """

  def to_tensors(x):
    if np.any(x):
      raise UserError(f'{leaf} is not zero, and the family has no tensor for it; allowed: zeros')
    return ()

  return Rule((), (leaf,), lambda: (np.zeros(shape, np.float32),), to_tensors)


def shared(leaves: tuple[str, ...], tensor: str) -> Rule:
  """The tensor is each of several parameters. `to_tensors` raises `UserError` where training has
  made them differ.
  """

  def to_tensors(x, *others):
    if not all(np.array_equal(x, other) for other in others):
      problem = f'{" and ".join(leaves)} differ, and the family has one tensor for them'
      raise UserError(f'{problem}; allowed: equal ones, as train.trained_parameters can keep them')
    return (x,)

  return Rule((tensor,), leaves, lambda x: (x,) * len(leaves), to_tensors)


def joined(leaves: tuple[str, ...], tensor: str, widths: tuple[int, ...], axis: int) -> Rule:
  """One tensor holds several parameters one after another along `axis`; the file has outputs first
  where `axis` is 0 and inputs first where it is the last.
  """
  ends = np.cumsum(widths)[:-1]
  turn = (lambda x: x.T) if axis == 0 else (lambda x: x)
  return Rule(
    (tensor,),
    leaves,
    lambda x: tuple(turn(part) for part in np.split(x, ends, axis)),
    lambda *parts: (np.concatenate([turn(part) for part in parts], axis),),
  )


def joined_by_head(leaves: tuple[str, ...], tensor: str, heads: int) -> Rule:
  """One tensor holds queries, keys and values of head after head, outputs first, as in GPT-NeoX."""

  def to_leaves(x):
    x = x.reshape(heads, 3, -1, *x.shape[1:])
    parts = (x[:, n].reshape(-1, *x.shape[3:]) for n in range(3))
    return tuple(part.T for part in parts)

  def to_tensors(*parts):
    cut = [part.T.reshape(heads, -1, *part.T.shape[1:]) for part in parts]
    x = np.stack(cut, axis=1)
    return (x.reshape(-1, *x.shape[3:]),)

  return Rule((tensor,), leaves, to_leaves, to_tensors)
