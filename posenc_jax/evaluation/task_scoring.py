"""Scores tasks: at each answer the model sees everything that stands before it, and its likeliest
token is right or wrong. Other tokens are not scored.

All answers of an example are right in this sense if and only if greedy decoding gives all of them:
decoding departs from the example at its first wrong answer and no earlier, and up to there both see
the same tokens. So one forward pass scores what decoding needs a pass a token for.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.evaluation import model_functions
from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.evaluation.plan import Originals, inputs_under
from posenc_jax.tasks import Example, Task, chance

# tokens_BT, and the positions that they carry if they do -> (right_BT, nats_BT)
Predict = Callable[..., tuple[np.ndarray, np.ndarray]]

# exact_match: the share of examples with all answers right; without_end: with all but the last.
# token_accuracy: the share of answers right. symbol_nats: the mean nats of an answer. Exact match
# of n answers falls as the n-th power of the share right, even where no answer gets harder.
# chance, token_chance, nats_chance: the exact match, the token accuracy and the nats of guessing.
METRICS = (
  *('exact_match', 'exact_match_without_end', 'token_accuracy', 'symbol_nats'),
  *('chance', 'token_chance', 'nats_chance'),
)


class Prediction(NamedTuple):
  """The model's predictions at the A answers of an example: whether each is right, bool, and the
  nats of the answer, float64.
  """

  example: Example
  right_A: np.ndarray
  nats_A: np.ndarray


def metrics(task: Task) -> list[str]:
  """The names in METRICS that are measured of a task: `exact_match_without_end` only where it has
  an end.
  """
  return [name for name in METRICS if task.ends or name != 'exact_match_without_end']


def metric_values(predictions: list[Prediction]) -> dict[str, float]:
  """Returns the value of each metric in METRICS."""
  guessing = chance([prediction.example for prediction in predictions])
  return {
    'exact_match': float(np.mean([p.right_A.all() for p in predictions])),
    'exact_match_without_end': float(np.mean([p.right_A[:-1].all() for p in predictions])),
    'token_accuracy': float(np.mean(np.concatenate([p.right_A for p in predictions]))),
    'symbol_nats': float(np.mean(np.concatenate([p.nats_A for p in predictions]))),
    'chance': guessing.exact_match,
    'token_chance': guessing.token_accuracy,
    'nats_chance': guessing.symbol_nats,
  }


def plan(config: ConfigDict, corpus: data.TaskCorpus) -> list[Measurement]:
  """Returns the measurements of a task, shortest first. Raises `UserError`.

  The protocol of a row is the task's name. Where examples have a depth, each depth has its own rows
  and `position` is the depth in per cent.
  """
  e, measurements, originals = config.eval, [], Originals()
  for length in sorted(e.lengths):
    examples = corpus.examples(e.examples, length)
    depths = sorted({example.depth for example in examples}, key=lambda depth: depth or 0)
    for control in (None, *e.controls):
      fields = {'protocol': corpus.protocol, 'control': control, 'length': length}
      key_fields = [
        fields | {'position': depth, 'metric': metric}
        for depth in depths
        for metric in metrics(corpus.task)
      ]
      inputs = inputs_under(control, length, config)
      given = inputs.context or length
      measurement = Measurement(
        length,
        key_fields,
        functools.partial(_score, examples, key_fields, given, e.batch_tokens),
        function=model_functions.predictions,
        metric='exact_match',
        largest_position=corpus.largest_position(length),
        input_length=given,
        **inputs.mask,
      )
      measurements.append(originals.refer(measurement, length, inputs))
  return measurements


def _score(
  examples: list[Example],
  key_fields: list[dict],
  length: int,
  batch_tokens: int,
  predict: Predict,
  rows: list[int],
) -> list[dict]:
  """The `Measurement.score` of a task."""
  predictions_by_depth = {}
  for prediction in run(predict, examples, length, batch_tokens):
    predictions_by_depth.setdefault(prediction.example.depth, []).append(prediction)
  values = {depth: metric_values(found) for depth, found in predictions_by_depth.items()}
  scores = []
  for depth, metric in ((key_fields[i]['position'], key_fields[i]['metric']) for i in rows):
    tokens = sum(len(prediction.right_A) for prediction in predictions_by_depth[depth])
    scores.append({'value': values[depth][metric], 'tokens': tokens})
  return scores


def run(
  predict: Predict, examples: Iterable[Example], length: int, batch_tokens: int
) -> Iterator[Prediction]:
  """Yields the prediction of each example, in `windows_of` at most `length` tokens; all calls have
  one shape.
  """
  examples = list(examples)
  windows_of_examples = [windows_of(example, length) for example in examples]
  windows = [window for some in windows_of_examples for window in some]
  predicted = _predict_windows(predict, windows, length, batch_tokens)
  for example, some in zip(examples, windows_of_examples, strict=True):
    right_A, nats_A = zip(*itertools.islice(predicted, len(some)), strict=True)
    yield Prediction(example, np.concatenate(right_A), np.concatenate(nats_A))


def _predict_windows(
  predict: Predict, windows: list[Example], length: int, batch_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields (right_A, nats_A) of each window of at most `length` tokens; see `Prediction`."""
  size = max(1, batch_tokens // length)
  for start in range(0, len(windows), size):
    chosen = windows[start : start + size]
    batch = data.pad_examples(chosen, size, length)
    positions = () if batch.position_ids is None else (batch.position_ids,)
    right_BT, nats_BT = map(np.asarray, predict(batch.tokens_BT, *positions))
    for row, window in enumerate(chosen):
      places = np.flatnonzero(window.answers_T)
      yield right_BT[row, places], nats_BT[row, places].astype(np.float64)


def windows_of(example: Example, length: int) -> list[Example]:
  """Cuts an example into windows of at most `length` tokens, half of that apart and counted from
  its end; an example that is no longer is its only window.

  Each answer belongs to the first window that has it, so it has at least length / 2 tokens of the
  example before it, or all. The last window is the last `length` tokens of the example. Windows
  without an answer are left out.
  """
  stride, total = max(1, length // 2), len(example.tokens_T)
  windows = []
  for end in range(total, min(total, length) - stride, -stride):
    start = max(0, end - length)
    scored_from = end - stride if start else 0
    choices_T = example.choices_T[start:end].copy()
    choices_T[: scored_from - start] = 0
    if choices_T.any():
      positions_T = example.positions_T
      cut = None if positions_T is None else positions_T[start:end]
      windows.append(Example(example.tokens_T[start:end], choices_T, example.depth, cut))
  return windows[::-1]


def summary(rows: list[dict]) -> str:
  """The rows of one measurement in short: '0.912 exact match, ...'."""

  def mean(metric):
    return np.mean([row['value'] for row in rows if row['metric'] == metric])

  return (
    f'{mean("exact_match"):.3f} exact match (chance {mean("chance"):.2g}), '
    f'{mean("token_accuracy"):.3f} of answers right (chance {mean("token_chance"):.2g}), '
    f'{mean("symbol_nats"):.3f} nats an answer (chance {mean("nats_chance"):.3g})'
  )
