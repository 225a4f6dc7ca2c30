"""Checks of a class of encodings: that it declares what fits its hooks, and has no hidden state."""

import numbers
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import (
  DECLARED,
  HOOKS,
  NOT_DECLARED,
  OTHER_METHODS,
  SCORE_TERMS,
  Encoding,
)
from posenc_jax.errors import closest, shown

# What declarations with few values may be.
VALUES = {'normalizer': ('softmax', 'none', 'rows'), 'position_kind': ('integers', 'floats', None)}


def check_declared(enc: Encoding, name: str) -> None:
  """Raises ValueError, one line that begins with `name`, for declarations that fit no hooks, for
  arrays that are no parameters, also in layers that the encoding holds, and for names that look
  like a misspelt hook or declaration.
  """
  is_variable = lambda node: isinstance(node, nnx.Variable)
  for path, leaf in jax.tree_util.tree_leaves_with_path(enc, is_leaf=is_variable):
    if not (isinstance(leaf, nnx.Param) and jnp.issubdtype(leaf.dtype, jnp.floating)):
      attribute = jax.tree_util.keystr(path, simple=True, separator='.')
      kind = f'a {type(leaf).__name__} of {leaf.dtype}' if is_variable(leaf) else 'an array'
      allowed = 'a number or a tuple, or nnx.Param of floats, which is'
      raise ValueError(f'{name}: {attribute} is {kind}, and would be trained; allowed: {allowed}')
  for own, is_method in _own_names(enc):
    what, known = 'declaration', (*DECLARED, *NOT_DECLARED)
    if is_method:
      what, known = 'hook', (*HOOKS, *OTHER_METHODS)
    if near := closest(own, known, cutoff=0.85):
      allowed = f'of {"a helper" if is_method else "anything else"} another name, or _{own}'
      raise ValueError(f'{name}: {own} is no {what}; did you mean {near!r}?; allowed: {allowed}')
  if hidden := [own for own in vars(enc) if callable(vars(Encoding).get(own))]:
    problem = f'the attribute {hidden[0]} hides the method of that name'
    raise ValueError(f'{name}: {problem}; allowed: another name, or _{hidden[0]}')
  if not hasattr(enc, 'dims'):
    allowed = 'one whose __init__ calls super().__init__(dims, rngs)'
    raise ValueError(f'{name} has no dims; allowed: {allowed}')
  if not isinstance(scale := enc.scale(enc.dims.head_dim), numbers.Real):
    allowed = 'a Python number; what is learned, a temperature multiplies queries by'
    raise ValueError(f'{name}: scale is of type {type(scale).__name__}; allowed: {allowed}')
  for declaration, values in VALUES.items():
    if (value := getattr(enc, declaration)) not in values:
      allowed = ', '.join(map(repr, values))
      raise ValueError(f'{name}: {declaration}={shown(value)}; allowed: {allowed}')
  parameters = [attribute for attribute, value in vars(enc).items() if is_variable(value)]
  has_any = any(hasattr(enc, own.partition('.')[0]) for own in enc.per_layer)
  if parameters and enc.per_layer and not has_any:
    allowed = f'some of {", ".join(parameters)}, or ()'
    raise ValueError(f'{name}: per_layer={enc.per_layer} names no parameter; allowed: {allowed}')
  # Hyperparameters may leave a name out, but not where it looks like a parameter that is shared.
  shared = [attribute for attribute in parameters if attribute not in enc.per_layer]
  for own in enc.per_layer:
    if not hasattr(enc, own.partition('.')[0]) and (near := closest(own, shared)):
      problem = f'{name}: per_layer={enc.per_layer} names {own}, which is no parameter'
      raise ValueError(f'{problem}; did you mean {near!r}?; allowed: {", ".join(parameters)}')
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
  if enc.scans_keys and not enc.causal_only:
    allowed = 'causal_only = True, for what is carried along the keys ends at the query'
    raise ValueError(f'{name}: scans_keys={enc.scans_keys}; allowed: {allowed}')
  if enc.hides_from is not None and not enc.hides_keys:
    allowed = 'None, or hides_keys = True, by which no other encoding shows those keys again'
    raise ValueError(f'{name}: hides_from={enc.hides_from}; allowed: {allowed}')
  if enc.has('normalize') != (enc.normalizer == 'rows'):
    allowed = "'rows' with the hook `normalize`, and without it any other"
    raise ValueError(f'{name}: normalizer={enc.normalizer!r}; allowed: {allowed}')
  if enc.has('sink') and enc.normalizer != 'softmax':
    allowed = "'softmax', whose denominator a sink joins"
    raise ValueError(f'{name}: has a sink, and normalizer={enc.normalizer!r}; allowed: {allowed}')


def _own_names(enc: Encoding) -> Iterator[tuple[str, bool]]:
  """Public names of an encoding that are not those of all, and whether each is a method: those of
  its class, and of the Python values of the instance, which may be declarations, too.
  """
  kinds = type(enc).__mro__[: type(enc).__mro__.index(Encoding)]
  found = {name: callable(value) for kind in kinds for name, value in vars(kind).items()}
  is_python = lambda value: not (isinstance(value, nnx.Pytree | nnx.Variable) or callable(value))
  found |= {name: False for name, value in vars(enc).items() if is_python(value)}
  for name in sorted(found):
    if not (name.startswith('_') or hasattr(Encoding, name)):
      yield name, found[name]
