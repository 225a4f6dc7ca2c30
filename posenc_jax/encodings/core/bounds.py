"""Bounds of hyperparameters. Each raises ValueError, one line, for the first value outside of it; a
value of None was not given.
"""

from collections.abc import Collection

from posenc_jax.errors import shown


def check_at_least(least: float, **values: float | None) -> None:
  """Refuses values below `least`."""
  for name, value in values.items():
    if value is not None and not value >= least:
      raise ValueError(f'{name}={shown(value)}; allowed: at least {least}')


def check_above(low: float, **values: float | None) -> None:
  """Refuses values that are not greater than `low`."""
  for name, value in values.items():
    if value is not None and not value > low:
      raise ValueError(f'{name}={shown(value)}; allowed: greater than {low}')


def check_between(low: float, high: float, **values: float | None) -> None:
  """Refuses values below `low` or above `high`."""
  for name, value in values.items():
    if value is not None and not low <= value <= high:
      raise ValueError(f'{name}={shown(value)}; allowed: from {low} to {high}')


def check_unread(unless: str, **values: object) -> None:
  """Refuses values that were given though nothing reads them, `unless` something is so."""
  for name, value in values.items():
    if value is not None:
      raise ValueError(f'{name}={shown(value)}; allowed: None, unless {unless}')


def check_one_of(names: Collection[str], **values: str) -> None:
  """Refuses text that is none of these names."""
  for name, value in values.items():
    if value not in names:
      raise ValueError(f'{name}={shown(value)}; allowed: {", ".join(names)}')
