"""The schema of the rows in eval.jsonl. One row is one measurement of one run.

These fields say what was measured; rows that agree in all of them and in `metric` are the same
measurement:

  run           name of the run's directory
  encoding      name of the position encoding
  label         name of the run's line in tables and figures
  seed          seed of the training
  step          training steps of the checkpoint
  corpus        the corpus or task, as in config.data.corpus
  split         the split that was measured
  train_length  tokens that the run was trained on at a time
  protocol      how tokens were scored (config.PROTOCOLS), or the name of a task
  control       null, or what was changed to see whether far context is used. 'windowed': attention
                is limited to `train_length` tokens. 'shuffled_far': tokens more than `train_length`
                before the first scored one are another document's
  length        tokens of a window
  stride        tokens from one window to the next; null where the protocol has none
  k             tokens scored at the end of each window; null where the protocol has none
  position      where the scored tokens begin: the token in the document (last_k) or in the window
                (by_position), the distance in tokens (receptive_field), the depth in per cent
                (tasks); null elsewhere. A row of by_position or receptive_field reaches to the
                position of the next row
  document      name of the document; null where a row covers several. Rows of several documents are
                to be added up
  overrides     {field: value} that evaluation changed in the config of the training, or null

These fields say what came out:

  status        'ok', or the outcome in place of a score: 'beyond_table', 'not_finite'
  nats          negative log-likelihood, summed over the scored tokens
  tokens        number of scored tokens (tasks: of answers)
  bytes         bytes that the scored tokens stand for
  ppl           perplexity of a token, exp(nats / tokens)
  bpb           bits a byte, nats / bytes / ln 2
  metric        null for a likelihood, or what `value` is: 'gradient' (a share of the gradient, 0 to
                1) or a metric of tasks (`task_scoring.METRICS`)
  value         the value of `metric`
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import storage

KEY = (
  *('run', 'encoding', 'label', 'seed', 'step', 'corpus', 'split', 'train_length'),
  *('protocol', 'control', 'length', 'stride', 'k', 'position', 'document', 'overrides'),
)
NULLABLE = ('control', 'stride', 'k', 'position', 'document', 'overrides')
VALUES = ('status', 'nats', 'tokens', 'bytes', 'ppl', 'bpb', 'metric', 'value')


def row(
  *,
  status: str = 'ok',
  nats: float | None = None,
  tokens: int | None = None,
  bytes: int | None = None,
  metric: str | None = None,
  value: float | None = None,
  **key_fields: object,
) -> dict:
  """Makes a row from the fields above; those that can be null may be left out. `ppl` and `bpb` are
  computed here and nowhere else. A score that is not finite becomes the status 'not_finite'.

  Raises:
    ValueError: for a status 'ok' without a score.
    TypeError: for a field that is missing or unknown.
  """
  fields = {**dict.fromkeys(NULLABLE), **key_fields}
  if fields.keys() != set(KEY):
    raise TypeError(f'row: missing or unknown fields {sorted(fields.keys() ^ set(KEY))}')
  fields |= {'status': status, 'nats': nats, 'tokens': tokens, 'bytes': bytes}
  fields |= {'metric': metric, 'value': value}
  score = (nats, tokens, bytes) if metric is None else (value,)
  if status == 'ok' and None in score:
    raise ValueError(
      f"row: status='ok' of {fields['run']!r} has no score; "
      'allowed: nats, tokens and bytes, or metric and value'
    )
  if status == 'ok' and not all(map(math.isfinite, score)):
    fields.update(status='not_finite', nats=None, value=None)
  has_likelihood = fields['status'] == 'ok' and metric is None
  fields['ppl'] = math.exp(nats / tokens) if has_likelihood else None
  fields['bpb'] = nats / bytes / math.log(2) if has_likelihood else None
  return {name: fields[name] for name in KEY + VALUES}


def key(row: dict) -> str:
  """A text that is equal for two rows if and only if they are the same measurement."""
  return json.dumps([row[name] for name in (*KEY, 'metric')], sort_keys=True)


def append_missing(path: str | Path, rows: Iterable[dict]) -> int:
  """Appends the rows whose `key` the file does not hold yet, each key once; returns their number.
  Of rows with equal keys the first is kept.
  """
  present = {key(r) for r in storage.read_rows(path)}
  new = {}
  for r in rows:
    if key(r) not in present:
      new.setdefault(key(r), r)
  storage.append_rows(path, new.values())
  return len(new)
