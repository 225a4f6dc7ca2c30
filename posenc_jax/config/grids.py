"""A small algebra over sweeps: lists of overrides `{'dotted.path': value}`."""

import itertools
from collections.abc import Iterable

from posenc_jax.errors import UserError


def vary(path: str, *values: object) -> list[dict]:
  """One override a value: `vary('seed', 0, 1, 2)`."""
  return [{path: value} for value in values]


def product(*sweeps: Iterable[dict]) -> list[dict]:
  """Every combination, the last sweep varying fastest. Raises `UserError` where two set the same
  path.
  """
  return [_merge(parts) for parts in itertools.product(*sweeps)]


def zipped(*sweeps: Iterable[dict]) -> list[dict]:
  """First with first, second with second. Raises `UserError` where the sweeps differ in length or
  set one path.
  """
  sweeps = [list(sweep) for sweep in sweeps]
  if len({len(sweep) for sweep in sweeps}) > 1:
    raise UserError(
      f'zipped: sweeps of {[len(s) for s in sweeps]} runs; allowed: equal numbers of runs'
    )
  return [_merge(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[dict]) -> list[dict]:
  """One sweep after another."""
  return list(itertools.chain(*sweeps))


def _merge(parts: Iterable[dict]) -> dict:
  merged = {}
  for part in parts:
    if twice := merged.keys() & part.keys():
      raise UserError(
        f'sweep: {", ".join(sorted(twice))} set by two factors; allowed: each path once'
      )
    merged |= part
  return merged
