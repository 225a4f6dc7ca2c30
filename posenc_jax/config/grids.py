"""A small algebra over sweeps: lists of overrides `{'dotted.path': value}`."""

import itertools
from collections.abc import Iterable

from posenc_jax.errors import UserError


def vary(path: str, *values: object) -> list[dict]:
  """One override for each value: `vary('seed', 0, 1, 2)`."""
  return [{path: value} for value in values]


def product(*sweeps: Iterable[dict]) -> list[dict]:
  """Every combination; the last sweep varies fastest. Raises `UserError` if two set one path."""
  return [_merge(overrides) for overrides in itertools.product(*sweeps)]


def zipped(*sweeps: Iterable[dict]) -> list[dict]:
  """The first with the first, the second with the second, and so on.

  Raises `UserError` if the sweeps differ in length, or if two set one path.
  """
  sweeps = [list(sweep) for sweep in sweeps]
  lengths = [len(sweep) for sweep in sweeps]
  if len(set(lengths)) > 1:
    raise UserError(f'zipped: sweeps of {lengths} runs; allowed: equal numbers of runs')
  return [_merge(overrides) for overrides in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[dict]) -> list[dict]:
  """One sweep after another."""
  return list(itertools.chain(*sweeps))


def _merge(overrides: Iterable[dict]) -> dict:
  merged = {}
  for override in overrides:
    if twice := merged.keys() & override.keys():
      paths = ', '.join(sorted(twice))
      raise UserError(f'sweep: {paths} set by two factors; allowed: each path once')
    merged |= override
  return merged
