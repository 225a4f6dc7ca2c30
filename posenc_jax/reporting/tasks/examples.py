"""The number of examples that a score of a task is of.

Rows of tasks state the number of answers, and what guessing scores: its exact match of an example
is exp(-nats of its answers), and `nats_chance` is the mean of these nats over answers. So the two
tell how many answers an example has, where all examples of a length have as many.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

from posenc_jax.rows.row_schema import KEY_FIELDS

EXACT, NATS = 'chance', 'nats_chance'
METRICS = ('exact_match', 'exact_match_without_end', 'token_accuracy', 'symbol_nats')
# Rows that are equal in these fields and in overrides are of the same answers, or of as many
# examples: a run has one number of them for all lengths.
SAME_ANSWERS = tuple(name for name in KEY_FIELDS if name != 'overrides')
SAME_NUMBER = tuple(name for name in SAME_ANSWERS if name != 'length')
NEAR = 1e-6  # of the number: it is whole but for rounding


def mark(rows: Iterable[dict]) -> list[dict]:
  """The rows, those of METRICS with a field `examples`: how many they are of, or None where rows do
  not say it. A row of a single document is of one question about it.

  Rows that have the field already stay as they are.
  """
  rows, guessing = list(rows), defaultdict(dict)
  for row in rows:
    if row['metric'] in (EXACT, NATS) and row['status'] == 'ok':
      guessing[_place(row, SAME_ANSWERS)][row['metric']] = row
  numbers = defaultdict(set)
  for of_guessing in guessing.values():
    if len(of_guessing) == 2:
      numbers[_place(of_guessing[NATS], SAME_NUMBER)] |= _number(**of_guessing)
  made = []
  for row in rows:
    if row['metric'] in METRICS and 'examples' not in row:
      found = {1} if row['document'] is not None else numbers[_place(row, SAME_NUMBER)]
      row = row | {'examples': min(found) if len(found) == 1 else None}
    made.append(row)
  return made


def _place(row: dict, fields: Iterable[str]) -> tuple:
  return *(row[name] for name in fields), str(row['overrides'])


def _number(chance: dict, nats_chance: dict) -> set[int]:
  """The number of examples in a set; empty where it is not known, as where the chance of very long
  ones is too small for a float.
  """
  exact, nats, answers = chance['value'], nats_chance['value'], nats_chance['tokens']
  if not (0 < exact < 1 and nats > 0 and answers):
    return set()
  number = answers * nats / -math.log(exact)
  is_possible = 0.5 < number < answers + 0.5  # rows may be anyone's
  is_whole = is_possible and abs(number - round(number)) < NEAR * number
  return {round(number)} if is_whole else set()
