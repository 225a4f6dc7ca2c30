"""Generated tasks, by name: they ask for what perplexity cannot show, such as recall and copying.

To add a task, write a class in the file of its family and add a line to TASKS. This package needs
only NumPy.
"""

import ast
import inspect
from collections.abc import Callable, Sequence

from posenc_jax.errors import UserError, nearest, nearest_of_all, shown
from posenc_jax.tasks.addition import Addition
from posenc_jax.tasks.aggregation import CommonWords, FrequentWords
from posenc_jax.tasks.automata import (
  CycleNavigation,
  EvenPairs,
  FlipFlop,
  ModularArithmetic,
  Parity,
  WordProblem,
)
from posenc_jax.tasks.base import CarriedPositions, Example, Task, chance
from posenc_jax.tasks.classification import ManyShot
from posenc_jax.tasks.copying import (
  Copy,
  MissingDuplicate,
  OddsFirst,
  Palindrome,
  Reverse,
  SelectiveCopy,
  Sort,
)
from posenc_jax.tasks.counting import Counting, Mode
from posenc_jax.tasks.grids import Grid
from posenc_jax.tasks.needles import Hops, Needle, VariableTracking
from posenc_jax.tasks.passkey import Passkey
from posenc_jax.tasks.recall import MQAR, MQMTAR, IndexLookup, Induction, NBack
from posenc_jax.tasks.stacks import Dyck, Stack

__all__ = [
  'PREFIX',
  'TASKS',
  'CarriedPositions',
  'Example',
  'Task',
  'chance',
  'is_set_in_text',
  'is_task',
  'make',
  'of_corpus',
  'options',
  'parse',
]

MAX_OPTION = 100_000  # symbols, items, hops: more than any sequence needs
LONGEST_TEXT = 40  # characters of an option that is a text
PREFIX = 'task:'  # `config.data.corpus` begins with this where it names a task
TASKS = {
  'passkey': Passkey,
  'mqar': MQAR,
  'mqmtar': MQMTAR,
  'n_back': NBack,
  'index_lookup': IndexLookup,
  'induction': Induction,
  'copy': Copy,
  'reverse': Reverse,
  'palindrome': Palindrome,
  'sort': Sort,
  'odds_first': OddsFirst,
  'missing_duplicate': MissingDuplicate,
  'selective_copy': SelectiveCopy,
  'addition': Addition,
  'parity': Parity,
  'even_pairs': EvenPairs,
  'cycle_navigation': CycleNavigation,
  'modular_arithmetic': ModularArithmetic,
  'flip_flop': FlipFlop,
  'word_problem': WordProblem,
  'counting': Counting,
  'mode': Mode,
  'needle': Needle,
  'hops': Hops,
  'variable_tracking': VariableTracking,
  'common_words': CommonWords,
  'frequent_words': FrequentWords,
  'stack': Stack,
  'dyck': Dyck,
  'many_shot': ManyShot,
  'grid': Grid,
}


def is_task(corpus: str) -> bool:
  """Whether `config.data.corpus` names a task, and no text."""
  return corpus.startswith(PREFIX)


def of_corpus(corpus: str, texts: Callable[[], Sequence[bytes]] = tuple) -> Task | None:
  """The task that `config.data.corpus` names; None for text. Raises `UserError` for one that there
  is not.

  Args:
    texts: as for `make`.
  """
  if not is_task(corpus):
    return None
  try:
    return make(corpus.removeprefix(PREFIX), texts)
  except ValueError as error:
    raise UserError(f'config.data.corpus={corpus!r}: {error}') from None


def options(name: str) -> dict[str, object]:
  """The options of a task with their defaults. Raises ValueError for an unknown name."""
  if name not in TASKS:
    raise ValueError(f'no task {name!r}; {nearest(name, TASKS)}')
  parameters = inspect.signature(TASKS[name]).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def parse(text: str) -> tuple[str, dict[str, object]]:
  """Reads 'mqar/pairs=4/power=1.0' as a name and options. Raises ValueError for any other form."""
  name, *settings = text.split('/')
  chosen = {}
  for setting in settings:
    key, equals, value = setting.partition('=')
    if not equals or key in chosen:
      raise ValueError(f'{setting!r} in {text!r}; allowed: NAME/option=value, each option once')
    try:
      chosen[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
      chosen[key] = value
  return name, chosen


def _check_option(name: str, value: object, default: object) -> None:
  """Raises ValueError for no number, or one far beyond any use; the task checks the rest."""
  if isinstance(value, str) and len(value) > LONGEST_TEXT:
    raise ValueError(f'{name}={shown(value)}; allowed: at most {LONGEST_TEXT} characters')
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if isinstance(default, float) and not is_number:
    raise ValueError(f'{name}={shown(value)}; allowed: a number, such as {default!r}')
  if is_number and not abs(value) <= MAX_OPTION:
    raise ValueError(f'{name}={shown(value)}; allowed: at most {MAX_OPTION} in size')


def make(text: str, texts: Callable[[], Sequence[bytes]]) -> Task:
  """Builds the task that 'NAME/option=value' names.

  Args:
    texts: returns the documents of the split; it is called only for a task set in natural text.
  Raises:
    ValueError: for an unknown name or option and for a value that is out of range.
  """
  name, chosen = parse(text)
  known = options(name)
  for key in chosen:
    if key not in known:
      allowed = nearest_of_all(key, known) if known else 'allowed: no options'
      raise ValueError(f'task {name} has no option {key!r}; {allowed}')
    _check_option(key, chosen[key], known[key])
  return TASKS[name](texts(), **chosen) if _takes_text(name) else TASKS[name](**chosen)


def is_set_in_text(corpus: str) -> bool:
  """Whether `config.data.corpus` names a task whose examples are made of natural text."""
  name, *_ = corpus.removeprefix(PREFIX).split('/')
  return is_task(corpus) and name in TASKS and _takes_text(name)


def _takes_text(name: str) -> bool:
  return 'texts' in inspect.signature(TASKS[name]).parameters
