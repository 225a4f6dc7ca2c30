"""Checks of single values: what they take, and what they say is allowed where they refuse."""

from collections.abc import Callable, Collection

from posenc_jax.errors import hint

# Bounds far above what anyone needs, so that a slip of the keyboard is no hang and no overflow.
LARGEST = 2**31 - 1  # what an int32 holds
LARGEST_FLOAT = 3.4e38  # what a float32 holds
MAX_LAYERS = 1000
MAX_CHANNELS = 2**20
MAX_TOKENS = 2**24  # of a sequence
MAX_PARAMETERS = 2**36
MAX_BLOCK = 2**16  # rows or columns of a tile
MAX_MEASURED = 100_000  # documents, targets or examples of an evaluation
MAX_NUMBERED_HEADS = 250  # rows number heads up to 999; an encoding may make several of each
MAX_LABEL = 200  # characters
MAX_TEXT = 1000  # characters
MAX_DEPTH = 10  # sections within sections

# A check takes any value; it returns None, or, if the value is refused, what is allowed.
Check = Callable[[object], str | None]


def flag(value: object) -> str | None:
  """Takes True and False."""
  return None if isinstance(value, bool) else 'True or False'


def whole(least: int, most: int = LARGEST) -> Check:
  """Takes whole numbers from `least` to `most`."""

  def check(value):
    if type(value) is not int:
      return f'a whole number, {least} or more'
    if value > most:
      return f'{least} to {most}'
    return None if value >= least else f'{least} or more'

  return check


def number(holds: Callable[[float], bool], allowed: str) -> Check:
  """Takes numbers that float32 holds and that `holds` is true of."""

  def check(value):
    if not isinstance(value, float) and whole(-LARGEST)(value):
      return 'a finite number (with a point, as 1e10, if it is large)'
    if not abs(value) <= LARGEST_FLOAT:
      return 'a finite number'
    return None if holds(value) else allowed

  return check


def text(most: int = MAX_TEXT) -> Check:
  """Takes text of one line without control characters."""

  def check(value):
    if not isinstance(value, str):
      return 'text'
    if not value.isprintable():
      return 'text without line breaks, control characters and the like'
    return None if len(value) <= most else f'at most {most} characters'

  return check


def several(element: Check, allowed: str, least: int = 0, can_repeat: bool = False) -> Check:
  """Takes tuples of `least` or more elements that `element` takes."""

  def check(value):
    if not isinstance(value, tuple) or len(value) < least or any(map(element, value)):
      return allowed
    return None if can_repeat or len(set(value)) == len(value) else allowed

  return check


def one_of(names: Collection[str]) -> Check:
  """Takes one of the names; meets a misspelt one with the name that is near."""

  def check(value):
    if isinstance(value, str) and value in names:
      return None
    return '; '.join(filter(None, (', '.join(names), hint(value, names))))

  return check


def each(element: Check) -> Check:
  """Takes tuples of what `element` takes, and says what that says of the first that it refuses."""
  return lambda values: next(filter(None, map(element, values)), None)
