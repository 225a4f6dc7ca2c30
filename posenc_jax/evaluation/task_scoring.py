"""How a task is scored: the model says each answer given all that stands before it, and is right or
not.

Whatever else it says is not looked at. All answers of an example are right in this sense if and
only if greedy decoding gives all of them: decoding leaves the example's own tokens at its first
wrong answer and no earlier, and up to there both see the same. So one forward pass scores what
decoding takes a pass a token for.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.evaluation.plan import WINDOWED, Measurement
from posenc_jax.tasks import Example, Task, chance

Answers = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # tokens_BT -> (right_BT, nats_BT)


class Outcome(NamedTuple):
  """What a model made of an example: for each of its A answers whether it is right, bool, and its
  nats, float64.
  """

  example: Example
  right_A: np.ndarray
  nats_A: np.ndarray


def _joined(field: str, found: list[Outcome]) -> float:
  return float(np.mean(np.concatenate([getattr(outcome, field) for outcome in found])))


METRICS = {
  'exact_match': lambda found: float(np.mean([outcome.right_A.all() for outcome in found])),
  'exact_match_without_end': lambda found: float(
    np.mean([outcome.right_A[:-1].all() for outcome in found])
  ),
  'token_accuracy': functools.partial(_joined, 'right_A'),
  'digit_nats': functools.partial(_joined, 'nats_A'),
  'chance': lambda found: chance([outcome.example for outcome in found])[0],
  'token_chance': lambda found: chance([outcome.example for outcome in found])[1],
}


def metrics(task: Task) -> list[str]:
  """What is measured of a task: names in METRICS.

  `exact_match` is the share of examples with all answers right, `token_accuracy` that of all
  answers; `chance` and `token_chance` are what guessing scores in them. A task with an end has
  `exact_match_without_end` too, and one whose answers are digits `digit_nats`, the mean nats of
  one: chance is ln 10.
  """
  apply = {'exact_match_without_end': task.ends, 'digit_nats': task.in_digits}
  return [name for name in METRICS if name not in apply or apply[name]]


def plan(config: ConfigDict, corpus: data.TaskCorpus) -> Iterator[Measurement]:
  """The measurements of a task, shortest first; all need the function 'answers'. Raises
  `UserError`.

  The protocol of a row is the task's name. Where examples have a depth, each has its rows,
  `position` in per cent.
  """
  e = config.eval
  for length in sorted(e.lengths):
    examples = corpus.examples(e.examples, length)
    depths = sorted({example.depth for example in examples}, key=lambda depth: depth or 0)
    for control in (None, *e.controls):
      window = config.train.length if control == WINDOWED and length > config.train.length else None
      question = {'protocol': corpus.protocol, 'control': control, 'length': length}
      questions = [
        question | {'position': d, 'metric': m} for d in depths for m in metrics(corpus.task)
      ]
      score = functools.partial(_score, examples, questions, length, e.batch_tokens)
      yield Measurement(
        length, questions, score, function='answers', window=window, metric='exact_match'
      )


def _score(
  examples: list[Example],
  questions: list[dict],
  length: int,
  batch_tokens: int,
  answers: Answers,
  rows: list[int],
) -> list[dict]:
  outcomes = list(run(answers, examples, length, batch_tokens))
  scores = []
  for question in (questions[i] for i in rows):
    found = [outcome for outcome in outcomes if outcome.example.depth == question['position']]
    tokens = sum(len(outcome.right_A) for outcome in found)
    scores.append({'value': METRICS[question['metric']](found), 'tokens': tokens})
  return scores


def run(
  answers: Answers, examples: Iterable[Example], length: int, batch_tokens: int
) -> Iterator[Outcome]:
  """The outcome of each example of at most `length` tokens, all calls of one shape."""
  examples, size = list(examples), max(1, batch_tokens // length)
  for start in range(0, len(examples), size):
    some = examples[start : start + size]
    right_BT, nats_BT = map(np.asarray, answers(data.pad_examples(some, size, length).tokens_BT))
    for row, example in enumerate(some):
      at = np.flatnonzero(example.answers_T)
      yield Outcome(example, right_BT[row, at], nats_BT[row, at].astype(np.float64))


def outcome(rows: list[dict]) -> str:
  """Of the rows of one measurement: '0.912 exact match, ...'."""
  mean = lambda metric: np.mean([row['value'] for row in rows if row['metric'] == metric])
  exact, share, by_chance = map(mean, ('exact_match', 'token_accuracy', 'chance'))
  return f'{exact:.3f} exact match, {share:.3f} of answers right, chance {by_chance:.2g}'
