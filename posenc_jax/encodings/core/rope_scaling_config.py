"""Context extension of RoPE by name, read from dicts in the form of Hugging Face's
`rope_scaling`.
"""

import dataclasses
import difflib
import inspect

from posenc_jax.encodings.core.rope_scaling import (
  dynamic,
  linear,
  llama3,
  longrope,
  ntk,
  proportional,
)
from posenc_jax.encodings.core.yarn import yarn, yarn_paper

# (K, base, keys of the call, *, fields) -> (frequencies, attention factor); see rope_types.py.
SCALINGS = {
  'linear': linear,
  'ntk': ntk,
  'dynamic': dynamic,
  'yarn': yarn,
  'yarn_paper': yarn_paper,
  'longrope': longrope,
  'llama3': llama3,
  'proportional': proportional,
}
ORIGINAL = 'original_max_position_embeddings'
AT_LEAST = {'factor': 1, ORIGINAL: 2}
RISING = (('beta_slow', 'beta_fast'), ('low_freq_factor', 'high_freq_factor'))


@dataclasses.dataclass(frozen=True)
class Scaling:
  """A type and its fields: hashable, as a hyperparameter of a module has to be."""

  rope_type: str
  fields: tuple[tuple[str, object], ...]

  def __call__(self, K: int, base: float, length: int):
    """Frequencies [K / 2] and attention factor for a call of `length` keys."""
    return SCALINGS[self.rope_type](K, base, length, **dict(self.fields))


def read(scaling, K: int, base: float, fraction: float, train_length: int) -> Scaling | None:
  """The checked form of a dict with `rope_type` (or `type`) and the fields of that type; None is
  none, as is 'default'.

  A field that is None counts as left out. `original_max_position_embeddings` is the training length
  where it is left out. `rope_theta` and `partial_rotary_factor`, which Hugging Face keeps in the
  same dict, must say what `base` and `fraction` of RoPE say. Raises ValueError, one line, for an
  unknown type, an unknown, missing or bad field.
  """
  if scaling is None:
    return None
  fields = {name: scaling[name] for name in scaling if scaling[name] is not None}
  named = [fields.pop(key) for key in ('rope_type', 'type') if key in fields] or [None]
  rope_type = named[0]
  if any(name not in ('default', *SCALINGS) or name != rope_type for name in named):
    near = difflib.get_close_matches(str(rope_type or ''), SCALINGS, cutoff=0.5) or list(SCALINGS)
    said = (
      f'={"/".join(map(str, named))!r} is unknown; nearest' if rope_type else ' is missing; one of'
    )
    raise ValueError(f'rope: scaling.rope_type{said}: {", ".join(near)}')

  signature = inspect.signature(SCALINGS[rope_type]).parameters if rope_type != 'default' else {}
  known = {p.name: p.default for p in signature.values() if p.kind is p.KEYWORD_ONLY}
  for field, own, value in (
    ('rope_theta', 'base', base),
    ('partial_rotary_factor', 'fraction', fraction),
  ):
    if field in fields and field not in known and fields.pop(field) != value:
      raise ValueError(f'rope: scaling.{field}={scaling[field]!r} must be {own}={value!r} of rope')
  for name in fields:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or list(known)
      raise ValueError(
        f'rope: scaling.{name} is no field of {rope_type}; nearest: {", ".join(near) or "none"}'
      )
  if rope_type == 'default':
    return None
  if ORIGINAL in known:
    fields.setdefault(ORIGINAL, train_length)
  for name, default in known.items():
    if default is inspect.Parameter.empty and name not in fields:
      raise ValueError(f'rope: scaling.{name} is missing: {rope_type} needs it')
  _check(
    {name: value for name, value in known.items() if value is not inspect.Parameter.empty} | fields,
    K,
  )
  fields = {
    name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
  }
  read = Scaling(rope_type, tuple(sorted(fields.items())))
  read(K, base, train_length)  # what its function refuses
  return read


def _check(fields: dict[str, object], K: int) -> None:
  def require(name, holds, what):
    if not holds:
      raise ValueError(f'rope: scaling.{name}={fields[name]!r} must be {what}')

  number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
  for name, value in fields.items():
    if name == 'truncate':
      require(name, isinstance(value, bool), 'True or False')
    elif name in ('short_factor', 'long_factor'):
      numbers = (
        isinstance(value, list | tuple)
        and len(value) == K // 2
        and all(number(v) and v > 0 for v in value)
      )
      require(name, numbers, f'{K // 2} numbers greater than 0: one a frequency')
    elif value is not None:
      low = AT_LEAST.get(name)
      enough = number(value) and (value > 0 if low is None else value >= low)
      require(name, enough, 'more than 0' if low is None else f'{low} or more')
  for low, high in RISING:
    if low in fields:
      require(low, fields[low] < fields[high], f'less than {high}={fields[high]!r}')
