"""Scores tasks: at each answer the model sees everything that stands before it, and its likeliest
token is right or wrong. Other tokens are not scored.

All answers of an example are right in this sense if and only if greedy decoding gives all of them:
decoding departs from the example at its first wrong answer and no earlier, and up to there both see
the same tokens. So one forward pass scores what decoding needs a pass a token for.
"""

import functools

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.evaluation import model_functions
from posenc_jax.evaluation.controls import Originals, inputs_under
from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.evaluation.predictions import Predict, Prediction, predict_answers
from posenc_jax.tasks import Example, Task, chance

# exact_match: the share of examples with all answers right; without_end: with all but the last.
# token_accuracy: the share of answers right. symbol_nats: the mean nats of an answer. Exact match
# of n answers falls as the n-th power of the share right, even where no answer gets harder.
# chance, token_chance, nats_chance: the exact match, the token accuracy and the nats of guessing.
TASK_METRICS = (
  *('exact_match', 'exact_match_without_end', 'token_accuracy', 'symbol_nats'),
  *('chance', 'token_chance', 'nats_chance'),
)


def metrics(task: Task) -> list[str]:
  """The names in TASK_METRICS that are measured of a task: `exact_match_without_end` only where it
  has an end.
  """
  return [name for name in TASK_METRICS if task.ends or name != 'exact_match_without_end']


def metric_values(predictions: list[Prediction]) -> dict[str, float]:
  """Returns the value of each metric in TASK_METRICS."""
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
      measurement = Measurement(
        length,
        key_fields,
        functools.partial(_score, examples, key_fields, inputs.length, e.batch_tokens),
        function=model_functions.predictions,
        metric='exact_match',
        largest_position=corpus.largest_position(length),
        **inputs.fields,
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
  for prediction in predict_answers(predict, examples, length, batch_tokens):
    predictions_by_depth.setdefault(prediction.example.depth, []).append(prediction)
  values = {depth: metric_values(found) for depth, found in predictions_by_depth.items()}
  scores = []
  for depth, metric in ((key_fields[i]['position'], key_fields[i]['metric']) for i in rows):
    tokens = sum(len(prediction.right_A) for prediction in predictions_by_depth[depth])
    scores.append({'value': values[depth][metric], 'tokens': tokens})
  return scores


def summary(rows: list[dict]) -> str:
  """The rows of one measurement in short: '0.912 exact match, ...'."""

  def mean(metric):
    return np.mean([row['value'] for row in rows if row['metric'] == metric])

  return (
    f'{mean("exact_match"):.3f} exact match (chance {mean("chance"):.2g}), '
    f'{mean("token_accuracy"):.3f} of answers right (chance {mean("token_chance"):.2g}), '
    f'{mean("symbol_nats"):.3f} nats an answer (chance {mean("nats_chance"):.3g})'
  )
