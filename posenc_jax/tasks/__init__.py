"""Tasks that perplexity cannot see, by name. Adding one: a class in a file of its family and a line
in TASKS.

Examples are pure functions of (split, seed, index); splits are disjoint by the hash of instances.
Needs only NumPy.
"""

import ast
import inspect
from collections.abc import Callable, Sequence

from posenc_jax.errors import nearest
from posenc_jax.tasks.addition import Addition
from posenc_jax.tasks.automata import FlipFlop, ModularArithmetic, Parity
from posenc_jax.tasks.base import Example, Task, chance
from posenc_jax.tasks.copying import Copy, Reverse, Sort
from posenc_jax.tasks.counting import Counting
from posenc_jax.tasks.needles import Hops, Needle
from posenc_jax.tasks.passkey import Passkey
from posenc_jax.tasks.recall import MQAR, Induction, NBack
from posenc_jax.tasks.selective_copy import SelectiveCopy

__all__ = ['PREFIX', 'TASKS', 'Example', 'Task', 'chance', 'make', 'options', 'parse']

PREFIX = 'task:'  # what the name of a task begins with where it stands for a corpus
TASKS = {
  'passkey': Passkey,
  'mqar': MQAR,
  'n_back': NBack,
  'induction': Induction,
  'copy': Copy,
  'reverse': Reverse,
  'sort': Sort,
  'selective_copy': SelectiveCopy,
  'addition': Addition,
  'parity': Parity,
  'modular_arithmetic': ModularArithmetic,
  'flip_flop': FlipFlop,
  'counting': Counting,
  'needle': Needle,
  'hops': Hops,
}


def options(name: str) -> dict[str, object]:
  """The options of a task and their defaults. Raises ValueError for an unknown name."""
  if name not in TASKS:
    raise ValueError(f'no task {name!r}; {nearest(name, TASKS)}')
  signature = inspect.signature(TASKS[name].__init__)
  return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def parse(text: str) -> tuple[str, dict[str, object]]:
  """'mqar/pairs=4/power=1.0' as the name and options. Raises ValueError for what is not of that
  form.
  """
  name, *settings = text.split('/')
  chosen = {}
  for setting in settings:
    key, equals, value = setting.partition('=')
    if not equals or key in chosen:
      raise ValueError(f'{setting!r} in {text!r}; allowed: NAME/option=value, each option once')
    try:
      chosen[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      chosen[key] = value
  return name, chosen


def make(text: str, texts: Callable[[], Sequence[bytes]]) -> Task:
  """The task that 'NAME/option=value' says.

  Args:
    texts: gives the documents of the split, for a task in natural text; called for such a task
      alone.
  Raises:
    ValueError: for an unknown name or option (the nearest are listed) and for a value out of range.
  """
  name, chosen = parse(text)
  known = options(name)
  for key in chosen:
    if key not in known:
      raise ValueError(f'task {name} has no option {key!r}; {nearest(key, known)}')
  needs_text = 'texts' in inspect.signature(TASKS[name].__init__).parameters
  return TASKS[name](*([texts()] if needs_text else []), **chosen)
