"""The rows of eval.jsonl: their fields, what they are keyed by, and appending those that a file
lacks.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import jsonl_store

MODEL = ('run', 'encoding', 'label', 'seed', 'step', 'corpus', 'split', 'train_length')
QUESTION = ('protocol', 'control', 'length', 'stride', 'k', 'position', 'document', 'overrides')
KEY = MODEL + QUESTION
VALUES = ('status', 'nats', 'tokens', 'bytes', 'ppl', 'bpb', 'metric', 'value')


def row(
  *,
  run: str,
  encoding: str,
  label: str,
  seed: int,
  step: int,
  corpus: str,
  split: str,
  train_length: int,
  protocol: str,
  length: int,
  control: str | None = None,
  stride: int | None = None,
  k: int | None = None,
  position: int | None = None,
  document: str | int | None = None,
  overrides: dict | None = None,
  status: str = 'ok',
  nats: float | None = None,
  tokens: int | None = None,
  bytes: int | None = None,
  metric: str | None = None,
  value: float | None = None,
) -> dict:
  """One measurement of `eval.jsonl`: the fields KEY say what was measured, VALUES what came out.

  Args:
    run: name of the run's directory.
    control: None, or what was changed to see whether far context is used ('windowed': attention
      limited to `train_length` tokens; 'shuffled_far': tokens more than `train_length` before the
      first scored one are another document's).
    length, stride, k: in tokens; None where the protocol has none, as for `position` and
      `document`.
    position: where the scored tokens begin: in the document (last_k) or in the window
      (by_position); a distance (receptive_field). A row of the latter two goes as far as the next
      one begins.
    document: where a row is of one document: rows of several are to be added up.
    overrides: what evaluation changed in the trained model's config.
    status: 'ok', or the outcome that stands in the place of a score, such as 'beyond_table'.
    nats, tokens, bytes: sums over the scored tokens; `ppl` (a token) and `bpb` follow from them
      here, nowhere else.
    metric, value: of what has no likelihood, such as 'gradient' (its share, of receptive_field).
  Raises:
    ValueError: for a status 'ok' without a score. A score that is not finite gets the status
      'not_finite'.
  """
  fields = dict(locals())
  score = (nats, tokens, bytes) if metric is None else (value,)
  if status == 'ok' and None in score:
    raise ValueError(
      f"row: status='ok' of {run!r} has no score; allowed: nats, tokens and bytes, or metric and value"
    )
  if status == 'ok' and not all(map(math.isfinite, score)):
    fields.update(status='not_finite', nats=None, value=None)
  has_likelihood = fields['status'] == 'ok' and metric is None
  fields['ppl'] = math.exp(nats / tokens) if has_likelihood else None
  fields['bpb'] = nats / bytes / math.log(2) if has_likelihood else None
  return {name: fields[name] for name in KEY + VALUES}


def key(row: dict) -> str:
  """What the row measured: equal for two rows if and only if they answer the same question."""
  return json.dumps([row[name] for name in (*KEY, 'metric')], sort_keys=True)


def append_missing(path: str | Path, rows: Iterable[dict]) -> int:
  """Appends the rows whose `key` the file does not hold yet, each key once; returns how many."""
  seen = {key(r) for r in jsonl_store.read(path)}
  # reversed: the first of equal keys stays
  new = {k: r for r in reversed(list(rows)) if (k := key(r)) not in seen}
  jsonl_store.append(path, reversed(new.values()))
  return len(new)
