"""What the values of hyperparameters may be, as their annotations say."""

import math
import numbers
import types
import typing

# By annotation: in words, and whether a value is that.
KINDS = {
  int: ('an integer', lambda value: isinstance(value, numbers.Integral)),
  float: (
    'a finite number',
    lambda value: isinstance(value, numbers.Real) and abs(value) < math.inf,
  ),
  bool: ('True or False', lambda value: isinstance(value, bool)),
  str: ('text', lambda value: isinstance(value, str)),
  tuple: ('a tuple', lambda value: isinstance(value, tuple | list)),
  dict: ('a dict', lambda value: hasattr(value, 'keys')),
  types.NoneType: ('None', lambda value: value is None),
}


def is_known(annotation: object) -> bool:
  """Whether an annotation is a key of KINDS or a union of some."""
  return all(kind in KINDS for kind in _kinds(annotation))


def has_type(value: object, annotation: object) -> bool:
  """Whether a value is what an annotation says: a key of KINDS, or a union of some. An int fits
  float, but no bool.
  """
  is_flag = isinstance(value, bool)
  return any(KINDS[kind][1](value) and (kind is bool or not is_flag) for kind in _kinds(annotation))


def stands_for_float(value: object, annotation: object) -> bool:
  """Whether a value that has this type is an integer and the type takes it as a float alone."""
  fits_as_it_is = any(kind is not float and KINDS[kind][1](value) for kind in _kinds(annotation))
  return isinstance(value, numbers.Integral) and not fits_as_it_is


def describe_type(annotation: object) -> str:
  """'an integer or None'."""
  return ' or '.join(KINDS[kind][0] for kind in _kinds(annotation))


def _kinds(annotation) -> list[type]:
  is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
  return [
    typing.get_origin(kind) or kind
    for kind in (typing.get_args(annotation) if is_union else (annotation,))
  ]
