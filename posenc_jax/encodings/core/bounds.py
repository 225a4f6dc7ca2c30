"""Bounds of hyperparameters. Each raises ValueError, one line, for the first value outside of it; a
value of None was not given.
"""

from collections.abc import Callable, Collection

from posenc_jax.errors import shown


def check_at_least(least: float, **values: float | None) -> None:
  """Refuses values below `least`."""
  _check(lambda value: value >= least, f'at least {least}', values)


def check_above(low: float, **values: float | None) -> None:
  """Refuses values that are not greater than `low`."""
  _check(lambda value: value > low, f'greater than {low}', values)


def check_between(low: float, high: float, **values: float | None) -> None:
  """Refuses values below `low` or above `high`."""
  _check(lambda value: low <= value <= high, f'from {low} to {high}', values)


def check_even(least: int, **values: int | None) -> None:
  """Refuses numbers that are odd or below `least`."""
  _check(lambda value: value >= least and value % 2 == 0, f'even, at least {least}', values)


def check_divides(number: int, what: str, **values: int | None) -> None:
  """Refuses numbers that do not divide the number of something, such as pairs of channels."""
  _check(lambda value: number % value == 0, f'a divisor of the {number} {what}', values)


def check_unread(unless: str, **values: object) -> None:
  """Refuses values that were given though nothing reads them, `unless` something is so."""
  _check(lambda value: False, f'None, unless {unless}', values)


def check_one_of(names: Collection[str], **values: str | None) -> None:
  """Refuses text that is none of these names."""
  _check(lambda value: value in names, ', '.join(names), values)


def _check(is_allowed: Callable[[object], bool], allowed: str, values: dict) -> None:
  """Raises ValueError for the first value that is not allowed, in words."""
  for name, value in values.items():
    if value is not None and not is_allowed(value):
      raise ValueError(f'{name}={shown(value)}; allowed: {allowed}')
