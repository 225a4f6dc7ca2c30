"""Checks of a class of encodings: that it declares what fits its hooks, and has no hidden state."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import HOOKS, SCORE_TERMS, Encoding
from posenc_jax.errors import closest


def check_declared(enc: Encoding, name: str) -> None:
  """Raises ValueError, one line that begins with `name`, for declarations that fit no hooks, for
  arrays that are no parameters, also in layers that the encoding holds, and for methods that look
  like a misspelt hook.
  """
  is_variable = lambda node: isinstance(node, nnx.Variable)
  for path, leaf in jax.tree_util.tree_leaves_with_path(enc, is_leaf=is_variable):
    if not (isinstance(leaf, nnx.Param) and jnp.issubdtype(leaf.dtype, jnp.floating)):
      attribute = jax.tree_util.keystr(path, simple=True, separator='.')
      kind = f'a {type(leaf).__name__} of {leaf.dtype}' if is_variable(leaf) else 'an array'
      allowed = 'a number or a tuple, or nnx.Param of floats, which is'
      raise ValueError(f'{name}: {attribute} is {kind}, and would be trained; allowed: {allowed}')
  for method in _own_methods(type(enc)):
    if near := closest(method, HOOKS, cutoff=0.85):
      allowed = f'of a helper another name, or _{method}'
      raise ValueError(f'{name}: {method} is no hook; did you mean {near!r}?; allowed: {allowed}')
  parameters = [attribute for attribute, value in vars(enc).items() if is_variable(value)]
  has_any = any(hasattr(enc, own.partition('.')[0]) for own in enc.per_layer)
  if parameters and enc.per_layer and not has_any:
    allowed = f'some of {", ".join(parameters)}, or ()'
    raise ValueError(f'{name}: per_layer={enc.per_layer} names no parameter; allowed: {allowed}')
  for term in SCORE_TERMS:
    if enc.has(term) and enc.bias_in_scale is None:
      allowed = 'True if the factor of q . k multiplies it too, or False'
      raise ValueError(f'{name}: defines {term} without bias_in_scale; allowed: {allowed}')
  if enc.has_terms and (enc.position_kind != 'integers' or enc.positions_per_token != 1):
    takes = f'position_kind={enc.position_kind!r}, positions_per_token={enc.positions_per_token}'
    raise ValueError(f"{name}: {takes}; allowed: 'integers' and 1, for it has terms by distance")
  if enc.has_terms and enc.takes_positions_per_head:
    allowed = 'False, for it has terms by distance'
    raise ValueError(f'{name}: takes_positions_per_head=True; allowed: {allowed}')
  if enc.has('normalize') != (enc.normalizer == 'rows'):
    allowed = "'rows' with the hook `normalize`, and without it any other"
    raise ValueError(f'{name}: normalizer={enc.normalizer!r}; allowed: {allowed}')
  if enc.has('sink') and enc.normalizer != 'softmax':
    allowed = "'softmax', whose denominator a sink joins"
    raise ValueError(f'{name}: has a sink, and normalizer={enc.normalizer!r}; allowed: {allowed}')


def _own_methods(kind: type) -> list[str]:
  """The public methods of a class that are not those of all encodings."""
  classes = kind.__mro__[: kind.__mro__.index(Encoding)]
  methods = {name for some in classes for name, value in vars(some).items() if callable(value)}
  public = [name for name in sorted(methods) if not name.startswith('_')]
  return [name for name in public if not hasattr(Encoding, name)]
