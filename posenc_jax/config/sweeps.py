"""A small algebra over sweeps: lists of overrides `{'dotted.path': value}`."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, shown

RATE = 'optim.learning_rate'


def vary(path: str, *values: object) -> list[dict]:
  """One override for each value: `vary('seed', 0, 1, 2)`."""
  return [{path: value} for value in values]


def product(*sweeps: Iterable[dict]) -> list[dict]:
  """Every combination of the overrides of sweeps, of which the last varies fastest. Raises
  `UserError` if two set one path.
  """
  return [_merge(overrides) for overrides in itertools.product(*sweeps)]


def line_name(overrides: dict[str, object]) -> str:
  """The name under which a file of learning rates has a line of a study."""
  return ','.join(f'{path}={value}' for path, value in sorted(overrides.items())) or 'all'


def with_rates(lines: Iterable[dict], path: str | Path) -> list[dict]:
  """Each line with the learning rate that scripts/lr_grid.py has chosen for it and written to a
  file. `with_rates(lines(), Path(__file__).with_name('STUDY_rates.json'))` reads the one beside the
  study STUDY.py; a path alone is one from the current folder.

  Raises `UserError` where the file is not there or has no rate for a line.
  """
  remedy = (
    'python scripts/lr_grid.py --config=STUDY.py, of a study with a function lines(), makes '
    "STUDY_rates.json beside it, which is Path(__file__).with_name('STUDY_rates.json') there"
  )
  try:
    chosen = storage.read_json(path, {'lines': dict}, remedy)['lines']
  except FileNotFoundError:
    raise UserError(f'rates: no file {str(path)!r}; allowed: {remedy}') from None
  found = []
  for line in lines:
    entry = chosen.get(line_name(line))
    rate = entry.get('rate') if isinstance(entry, dict) else None
    if not isinstance(rate, float):
      raise UserError(
        f'rates: {path} has {shown(rate)} for {line_name(line)}; allowed: a rate; {remedy}'
      )
    found.append(_merge((line, {RATE: rate})))
  return found


def _merge(overrides: Iterable[dict]) -> dict:
  merged = {}
  for override in overrides:
    if twice := merged.keys() & override.keys():
      paths = ', '.join(sorted(twice))
      raise UserError(f'sweep: {paths} set by two factors; allowed: each path once')
    merged |= override
  if {'encoding', 'encoding.name'} <= merged.keys():
    raise UserError('sweep: encoding and encoding.name; allowed: one of them')
  return merged
