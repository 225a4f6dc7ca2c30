"""Position encodings: what names and hyperparameters there are, and building one. `registry.py`
lists them all.
"""

import dataclasses
import difflib
import inspect

from posenc_jax.encodings.core.base import Dims, Encoding, LengthError
from posenc_jax.encodings.core.hyperparameters import fits, in_words
from posenc_jax.encodings.core.registry import ENCODINGS

__all__ = [
  'ENCODINGS',
  'Dims',
  'Encoding',
  'LengthError',
  'check',
  'hyperparameters',
  'make',
  'make_members',
]


def hyperparameters(name: str) -> dict[str, object]:
  """The hyperparameters of an encoding and their defaults; ValueError for an unknown name."""
  return {p.name: p.default for p in _signature(name)}


def _signature(name: str) -> list[inspect.Parameter]:
  if not isinstance(name, str) or name not in ENCODINGS:
    near = difflib.get_close_matches(str(name), ENCODINGS, cutoff=0.5) or list(ENCODINGS)
    raise ValueError(f'encoding.name={name!r} is unknown; nearest: {", ".join(near)}')
  parameters = inspect.signature(ENCODINGS[name].__init__, eval_str=True).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def check(name: str, hyper: dict[str, object]) -> None:
  """Raises ValueError, one line, for an unknown encoding or hyperparameter and for a value of a
  wrong type.
  """
  known = {p.name: p.annotation for p in _signature(name)}
  for key, value in hyper.items():
    if key not in known:
      near = difflib.get_close_matches(str(key), known, cutoff=0.5) or list(known)
      raise ValueError(
        f'encoding {name} has no hyperparameter {key!r}; it has: {", ".join(near) or "none"}'
      )
    if not fits(value, known[key]):
      raise ValueError(f'{name}: {key}={value!r} must be {in_words(known[key])}')


def make(
  name: str,
  *,
  model_dim: int,
  heads: int,
  kv_heads: int | None = None,
  head_dim: int,
  train_length: int,
  rngs,
  **hyper,
) -> Encoding:
  """Builds an encoding of one layer: D, H, G (H if None), K and L, and the hyperparameters of the
  encoding.

  Initial parameters are drawn from `rngs`. Every encoding builds without hyperparameters. Raises
  ValueError for an unknown name or hyperparameter (the nearest are listed) and for a value of a
  wrong type or out of range.
  """
  check(name, hyper)
  dims = Dims(model_dim, heads, heads if kv_heads is None else kv_heads, head_dim, train_length)
  for field, size in dataclasses.asdict(dims).items():
    if size < 1:
      raise ValueError(f'{field}={size} must be at least 1')
  if heads % dims.kv_heads:
    raise ValueError(f'heads={heads} must be a multiple of kv_heads={kv_heads}')
  return ENCODINGS[name](dims, rngs, **hyper)


def make_members(members, dims: Dims, rngs) -> tuple[list[str], list[Encoding]]:
  """The members of a chain: their names, and they. Raises ValueError.

  `members`: names, or dicts of a name and hyperparameters; or names in a text, with commas.
  """
  each = members.split(',') if isinstance(members, str) else members
  specs = [dict(member) if hasattr(member, 'keys') else {'name': member} for member in each]
  names = [spec.pop('name', None) for spec in specs]
  if not names or not all(isinstance(name, str) and name != 'chain' for name in names):
    raise ValueError(
      f'chain: members={members!r} must be names, or dicts with a name, of encodings but chain'
    )
  if drawing := [name for name in names if getattr(ENCODINGS.get(name), 'draw', None)]:
    raise ValueError(
      f'chain: {drawing[0]} draws positions once for all: it goes around a chain, over=dict(...)'
    )
  for name, hyper in zip(names, specs, strict=True):
    check(name, hyper)
  return names, [
    make(n, **dataclasses.asdict(dims), rngs=rngs, **h) for n, h in zip(names, specs, strict=True)
  ]
