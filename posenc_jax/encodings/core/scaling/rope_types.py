"""Context extension of RoPE by name, from dicts in the form of Hugging Face's `rope_scaling`."""

import dataclasses
import inspect
import types

from posenc_jax.encodings.core.scaling.alpha_rope import alpha_rope
from posenc_jax.encodings.core.scaling.formulas import (
  dynamic,
  dynamic_steps,
  linear,
  llama3,
  longrope,
  ntk,
  ntk_mixed,
  power,
  proportional,
  riflex,
  theta_scale,
  truncated,
)
from posenc_jax.encodings.core.scaling.mrrope import mrrope_pro, mrrope_uni
from posenc_jax.encodings.core.scaling.yarn import dynamic_yarn, yarn, yarn_log, yarn_paper
from posenc_jax.errors import nearest, nearest_of_all, shown

# (K, base, keys of the call, *, fields) -> (frequencies, attention factor); see formulas.py.
# None can be added from outside, for rows would not name its code: that takes a subclass of RoPE.
SCALINGS = types.MappingProxyType(
  {
    'linear': linear,
    'ntk': ntk,
    'dynamic': dynamic,
    'yarn': yarn,
    'yarn_paper': yarn_paper,
    'dynamic_yarn': dynamic_yarn,
    'longrope': longrope,
    'llama3': llama3,
    'proportional': proportional,
    'power': power,
    'truncated': truncated,
    'ntk_mixed': ntk_mixed,
    'mrrope_uni': mrrope_uni,
    'mrrope_pro': mrrope_pro,
    'alpha_rope': alpha_rope,
    'dynamic_steps': dynamic_steps,
    'theta_scale': theta_scale,
    'yarn_log': yarn_log,
    'riflex': riflex,
  }
)
# Types whose frequencies depend on the number of keys of the call.
OF_CALLS = ('dynamic', 'dynamic_yarn', 'dynamic_steps', 'longrope')
ORIGINAL = 'original_max_position_embeddings'
LEAST, MOST = 1e-9, 1e9  # of numbers: no formula overflows there
AT_LEAST = {'factor': 1, 'k': 1, 'mscale': 0, 'mscale_all_dim': 0, 'extrapolation_factor': 0}
RISING = (('beta_slow', 'beta_fast'), ('low_freq_factor', 'high_freq_factor'))


@dataclasses.dataclass(frozen=True)
class Scaling:
  """A rope type and its fields: hashable, as a hyperparameter of a module has to be."""

  rope_type: str
  fields: tuple[tuple[str, object], ...]

  def __call__(self, K: int, base: float, length: int):
    """Frequencies [K / 2] and attention factor for a call of `length` keys."""
    return SCALINGS[self.rope_type](K, base, length, **dict(self.fields))


def read_scaling(
  scaling, K: int, base: float, fraction: float, train_length: int | None
) -> Scaling | None:
  """Checks a dict with `rope_type` (or `type`) and the fields of that type; None for no scaling.

  The type 'default' is no scaling too. A field that is None counts as left out.
  `original_max_position_embeddings` is the training length where it is left out, and types that
  have no use for it do not read it; with `train_length` None it must be said. `rope_theta` and
  `partial_rotary_factor`, which Hugging Face keeps in the same dict, must say what `base` and
  `fraction` of RoPE say. Raises ValueError, one line, for an unknown type, an unknown, missing or
  bad field.
  """
  if scaling is None:
    return None
  fields = {name: scaling[name] for name in scaling if scaling[name] is not None}
  rope_type = _pop_type(fields)
  signature = inspect.signature(SCALINGS[rope_type]).parameters if rope_type != 'default' else {}
  known = {p.name: p.default for p in signature.values() if p.kind is p.KEYWORD_ONLY}
  said_elsewhere = {'rope_theta': ('base', base), 'partial_rotary_factor': ('fraction', fraction)}
  for field, (own, value) in said_elsewhere.items():
    if field in fields and field not in known and fields.pop(field) != value:
      said = f'scaling.{field}={shown(scaling[field])}'
      raise ValueError(f'{said}; allowed: {own}={value!r} of rope')
  if ORIGINAL not in known:
    fields.pop(ORIGINAL, None)
  for name in fields:
    if name not in known:
      raise ValueError(f'scaling.{name} is no field of {rope_type}; {nearest_of_all(name, known)}')
  if rope_type == 'default':
    return None
  if ORIGINAL in known:
    fields.setdefault(ORIGINAL, train_length)
  required = inspect.Parameter.empty
  for name, default in known.items():
    if default is required and name not in fields:
      raise ValueError(f'scaling.{name} is missing: {rope_type} needs it')
  defaults = {name: value for name, value in known.items() if value is not required}
  _check_fields(defaults | fields, K)
  frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
  checked = Scaling(rope_type, tuple(sorted(frozen.items())))
  checked(K, base, train_length or 1)  # raises ValueError for what the formula refuses
  return checked


def check_of_all_calls(scaling: Scaling | None) -> None:
  """Raises ValueError for frequencies that depend on the number of keys of a call."""
  if scaling is not None and scaling.rope_type in OF_CALLS:
    reads = f'scaling.rope_type={scaling.rope_type!r} reads how many keys there are'
    raise ValueError(f'{reads}; allowed: types that do not')


def _pop_type(fields: dict) -> str:
  named = [fields.pop(key) for key in ('rope_type', 'type') if key in fields]
  if not named:
    raise ValueError(f'scaling.rope_type is missing; allowed: {", ".join(SCALINGS)}')
  if any(name not in ('default', *SCALINGS) or name != named[0] for name in named):
    said = '/'.join(map(shown, named))
    raise ValueError(f'scaling.rope_type={said}; {nearest(named[0], SCALINGS)}')
  return named[0]


def _is_number(value) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _check_fields(fields: dict[str, object], K: int) -> None:
  def require(name, holds, what):
    if not holds:
      raise ValueError(f'scaling.{name}={shown(fields[name])}; allowed: {what}')

  for name, value in fields.items():
    if name == 'truncate':
      require(name, isinstance(value, bool), 'True or False')
    elif name in ('short_factor', 'long_factor'):
      is_list = isinstance(value, list | tuple) and len(value) == K // 2
      holds = is_list and all(_is_number(v) and LEAST <= v <= MOST for v in value)
      require(name, holds, f'{K // 2} numbers from {LEAST:g} to {MOST:g}: one a frequency')
    elif name == ORIGINAL:
      holds = type(value) is int and 2 <= value <= MOST
      require(name, holds, f'a whole number from 2 to {MOST:.0f}')
    elif name == 'partial_rotary_factor':
      require(name, _is_number(value) and 0 < value <= 1, 'more than 0 and at most 1')
    elif value is not None:
      least = AT_LEAST.get(name, LEAST)
      is_more = _is_number(value) and value > MOST  # formulas may have lower bounds of their own
      holds = _is_number(value) and least <= value <= MOST
      require(name, holds, f'at most {MOST:g}' if is_more else f'{least:g} or more')
  for low, high in RISING:
    if low in fields:
      require(low, fields[low] < fields[high], f'less than {high}={fields[high]!r}')
