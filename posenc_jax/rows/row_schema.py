"""The rows of eval.jsonl. One row is one measurement of one run."""

import json
import math
import re
from collections.abc import Callable, Collection

from posenc_jax.errors import UserError, shown
from posenc_jax.protocols import PLANTED, POSITIONAL

FULL = 'float32'  # the dtype of rows that name none
N_GRAM = 'n-gram'  # the encoding of rows of an n-gram, where there is no model
N_GRAM_FILE = 'ngram.json'  # what an n-gram was counted from; beside its rows
NO_KEY_TOKENS, NO_WEIGHT = 'no_key_tokens', 'no_weight'
# What stands in `status` in place of a score, and the words that say so to a reader.
OUTCOMES = {
  'beyond_table': 'longer than the table of positions',
  'not_finite': 'not finite',
  NO_KEY_TOKENS: 'no token is better by far for the whole context',
  NO_WEIGHT: 'a head weighs no key but the first',
  'no_bytes': 'the scored tokens begin no character',
}
STATUSES = ('ok', *OUTCOMES)
# Metrics that are shares of something, and so lie between 0 and 1.
SHARES = (
  *('exact_match', 'exact_match_without_end', 'token_accuracy'),
  *('chance', 'token_chance', 'gradient', 'sink_rate'),
)
MAX_COUNT = 2**53  # whole numbers up to here are exact as floats
MAX_NUMBER = 1e300
MAX_EXPONENT = 709  # exp of more is no float
# Of a field of rows: whether a value may stand there, and what may.
FieldCheck = tuple[Callable[[object], bool], str]
NAME = re.compile(r'[A-Za-z][\w.-]{0,99}', re.ASCII)


def is_count(value: object, least: int = 0) -> bool:
  """Whether a value that was read is a whole number, from `least` to what a float can hold."""
  return type(value) is int and least <= value <= MAX_COUNT


def is_number(value: object) -> bool:
  """Whether a value is a finite number that can be computed with; a float64 of NumPy is a float."""
  is_one = type(value) is int or isinstance(value, float)
  return is_one and -MAX_NUMBER <= value <= MAX_NUMBER


def is_text(value: object, longest: int) -> bool:
  """Whether a value that was read is a text of 1 to `longest` characters."""
  return type(value) is str and 0 < len(value) <= longest


def _is_sha256(value: object) -> bool:
  return type(value) is str and re.fullmatch('[0-9a-f]{64}', value) is not None


def _is_name(value: object) -> bool:
  return type(value) is str and NAME.fullmatch(value) is not None


def _are_overrides(value: object) -> bool:
  if type(value) is not dict or not value or not _is_shallow(value, 20):
    return False
  return len(json.dumps(value)) <= 100_000


def _is_shallow(tree: object, levels: int) -> bool:
  """Whether JSON data has at most so many levels of objects and lists in each other."""
  if not isinstance(tree, dict | list):
    return True
  parts = tree.values() if isinstance(tree, dict) else tree
  return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _or_null(holds: Callable[[object], bool]) -> Callable[[object], bool]:
  return lambda value: value is None or holds(value)


def text(longest: int) -> FieldCheck:
  """Takes a text of 1 to `longest` characters."""
  return lambda value: is_text(value, longest), f'a text of 1 to {longest} characters'


COUNT = is_count, f'a whole number from 0 to {MAX_COUNT}'
COUNT_OR_NULL = _or_null(is_count), f'null or {COUNT[1]}'
LENGTH = lambda value: is_count(value, 1), f'a whole number from 1 to {MAX_COUNT}'
LENGTH_OR_NULL = _or_null(LENGTH[0]), f'null or {LENGTH[1]}'
WORD = _is_name, 'a name of letters, digits and _.-'
WORD_OR_NULL = _or_null(_is_name), f'null or {WORD[1]}'
SCORE = lambda value: True, 'what `_fault_of_score` says'
MODEL = (
  lambda value: (
    type(value) is dict
    and value.keys() == {'run', 'step'}
    and is_text(value['run'], 255)
    and is_count(value['step'])
  ),
  "an object with the name of a 'run' and a 'step'",
)
SHA256 = _is_sha256, '64 hexadecimal digits'
NUMBER = lambda value: isinstance(value, float) or is_number(value), 'an int or a float'

# What was measured: rows of one folder that agree in all of these and in `metric` are the same
# measurement.
KEY_FIELDS: dict[str, FieldCheck] = {
  # name of the run's directory
  'run': text(255),
  # `encoding.name` as evaluated, of encodings in each other the outermost ('chain' of a chain), or
  # N_GRAM where there is no model; lines are told apart by label and overrides
  'encoding': text(200),
  # name of the run's line in tables and figures
  'label': text(200),
  # seed of the training
  'seed': COUNT,
  # training steps of the checkpoint; of an n-gram those of the config beside it, as `train_length`
  'step': COUNT,
  # the corpus or task, as in config.data.corpus
  'corpus': text(4096),
  # the split that was measured
  'split': WORD,
  # tokens that the run was trained on at a time
  'train_length': LENGTH,
  # how tokens were scored (posenc_jax.protocols.PROTOCOLS), or the name of a task
  'protocol': WORD,
  # null, or what was changed at a `length` beyond `train_length` (posenc_jax.protocols.CONTROLS)
  'control': WORD_OR_NULL,
  # tokens of a window; under the control 'truncated', of what windows are cut from
  'length': LENGTH,
  # tokens from one window to the next; null where the protocol has none
  'stride': LENGTH_OR_NULL,
  # tokens scored at the end of each window; null where the protocol has none
  'k': LENGTH_OR_NULL,
  # where the scored tokens begin: the token in the document (last_k) or in the window
  # (by_position), the distance in tokens (receptive_field; planted: to where the name stood before,
  # 0 for a name that is new, null for the text between names), the depth in per cent (tasks;
  # text_..., see `text_tasks.window`), 1000 x layer + head, both from 0 (attention_distance); null
  # elsewhere. A row of by_position, receptive_field or planted reaches to the position of the next
  'position': COUNT_OR_NULL,
  # name of the document; null where a row covers several. Rows of several documents are to be
  # added up
  'document': (_or_null(lambda value: is_text(value, 4096)), 'null or a text'),
  # {field: value} that evaluation changed in the config of the training, and what is stated besides
  # (posenc_jax/rows/overrides.py); null: nothing. Null in two studies does not mean the same
  # targets: the configs of their trainings may differ
  'overrides': (_or_null(_are_overrides), 'null or an object of at most 100,000 characters'),
}
# What came out.
SCORE_FIELDS: dict[str, FieldCheck] = {
  # 'ok', or the outcome in place of a score; OUTCOMES says what each means. Only rows that are 'ok'
  # may be added up, and a score of which a row is anything else, but NO_KEY_TOKENS or NO_WEIGHT, is
  # none
  'status': (lambda value: value in STATUSES, f'one of {", ".join(STATUSES)}'),
  # negative log-likelihood, summed over the scored tokens
  'nats': SCORE,
  # number of scored tokens (tasks: of answers; long_ppl: of key tokens)
  'tokens': COUNT_OR_NULL,
  # bytes that the scored tokens stand for
  'bytes': COUNT_OR_NULL,
  # perplexity of a token, exp(nats / tokens)
  'ppl': SCORE,
  # bits a byte, nats / bytes / ln 2
  'bpb': SCORE,
  # null for a likelihood, or what `value` is: 'gradient' (a share of the gradient, 0 to 1),
  # 'sink_rate' (a share of windows, layers and heads), 'attention_distance' (in tokens) or a metric
  # of tasks (`task_scoring.TASK_METRICS`)
  'metric': WORD_OR_NULL,
  # the value of `metric`
  'value': SCORE,
}
# What a score that is 'ok' is made from; it may come out as not finite.
OF_LIKELIHOOD: dict[str, FieldCheck] = {'nats': NUMBER, 'tokens': LENGTH, 'bytes': COUNT}
OF_METRIC: dict[str, FieldCheck] = {'value': NUMBER}
FIELDS = KEY_FIELDS | SCORE_FIELDS
NULLABLE = tuple(name for name, (holds, _) in KEY_FIELDS.items() if holds(None))
SOURCE, TOKENIZER, DTYPE, PARAMETERS = 'source', 'tokenizer', 'dtype', 'parameters'
# Fields that some rows have beside KEY_FIELDS and those of the score.
OPTIONAL: dict[str, FieldCheck] = {
  # the SHA-256 of what a pretrained model was imported from, where a run's parameters come from one
  SOURCE: SHA256,
  # the SHA-256 of the tokenizer, where tokens were not bytes and there is no `source`, which has
  # its own
  TOKENIZER: SHA256,
  # 'bfloat16' where activations were that; without it they were float32
  DTYPE: (lambda value: value == 'bfloat16', 'bfloat16'),
  # {'run', 'step'} whose parameters these are, where the run itself trained none (step 0). Rows of
  # earlier versions lack it
  PARAMETERS: MODEL,
}


def row(
  *,
  status: str = 'ok',
  nats: float | None = None,
  tokens: int | None = None,
  bytes: int | None = None,
  metric: str | None = None,
  value: float | None = None,
  source: str | None = None,
  tokenizer: str | None = None,
  dtype: str = FULL,
  parameters: dict | None = None,
  **key_fields: object,
) -> dict:
  """Makes a row from KEY_FIELDS, of which those that can be null may be left out, and a score.
  `ppl` and `bpb` are computed here and nowhere else. A score that is not finite becomes the status
  'not_finite', one of no bytes 'no_bytes'. The status 'asked', which no file has, is for a row
  of which only the `key` is needed: its values are not checked.

  Raises:
    UserError: for a status 'ok' without a score, and for what a reader of the row would refuse.
    TypeError: for a field that is missing or unknown.
  """
  fields = {**dict.fromkeys(NULLABLE), **key_fields}
  if wrong := fields.keys() ^ KEY_FIELDS.keys():
    raise TypeError(f'row: missing or unknown fields {sorted(wrong)}')
  fields |= {'status': status, 'nats': nats, 'tokens': tokens, 'bytes': bytes}
  fields |= {'metric': metric, 'value': value}
  needed = OF_METRIC if metric is not None else OF_LIKELIHOOD
  score = [fields[name] for name in needed]
  if status == 'ok' and any(x is None for x in score):
    raise UserError(
      f"row: status='ok' of {fields['run']!r} has no score; "
      'allowed: nats, tokens and bytes, or metric and value'
    )
  if status == 'ok' and metric is None and bytes == 0:
    fields.update(status='no_bytes', nats=None)
  elif status == 'ok' and (wrong := fault_of(fields, needed)):
    raise UserError(f'row: {wrong}')
  elif status == 'ok' and not _is_finite(score, metric):
    fields.update(status='not_finite', nats=None, value=None)
  has_likelihood = fields['status'] == 'ok' and metric is None
  fields['ppl'] = math.exp(nats / tokens) if has_likelihood else None
  fields['bpb'] = nats / bytes / math.log(2) if has_likelihood else None
  more = {SOURCE: source, TOKENIZER: tokenizer, PARAMETERS: parameters}
  more = {name: value for name, value in more.items() if value is not None}
  more |= {} if dtype == FULL else {DTYPE: dtype}
  made = {name: fields[name] for name in FIELDS} | more
  if status != 'asked' and (wrong := fault(made)):
    raise UserError(f'row: {wrong}')
  return made


def without_empty(rows: list[dict]) -> list[dict]:
  """The rows of one measurement without those of documents that have no key tokens, or of heads
  without weight, which add nothing to its score; all of them where there are no others.
  """
  return [row for row in rows if row['status'] not in (NO_KEY_TOKENS, NO_WEIGHT)] or rows


def score_of(row: dict) -> dict:
  """The fields of a row that `row` makes another one of, which has the same score."""
  return {name: row[name] for name in ('status', 'nats', 'tokens', 'bytes', 'value')}


def is_of_model(path: str) -> bool:
  """Whether a field that evaluation overrode makes another model of the one that was trained; the
  other fields say what is measured.
  """
  return path.startswith(('encoding.', 'attention.', 'model.'))


def overrides_text(overrides: dict) -> str:
  """What evaluation changed in a config, in short: 'scaling.factor=4, eval.documents=5'. Another
  encoding is 'evaluated as rerope'.
  """

  def said(key, value):
    if key == 'encoding.name':
      return f'evaluated as {value}'
    return f'{key.removeprefix("encoding.")}={json.dumps(value)}'.replace('"', '')

  # the name of another encoding stands before its hyperparameters
  keys = sorted(overrides, key=lambda key: (key != 'encoding.name', key))
  return ', '.join(said(key, overrides[key]) for key in keys)


def _is_finite(score: list, metric: str | None) -> bool:
  """Whether the score is a number, and the perplexity of a likelihood is one, too."""
  if not all(map(math.isfinite, score)):
    return False
  return metric is not None or score[0] / score[1] <= MAX_EXPONENT


def fault(row: dict) -> str | None:
  """What is wrong with the fields of a row that was read, or None.

  A field that is not known is refused, too: it may say that two rows which look alike are not the
  same measurement.
  """
  if row.keys() - OPTIONAL.keys() != FIELDS.keys():
    return _wrong_names(row)
  if wrong := fault_of(row, FIELDS) or fault_of(row, OPTIONAL):
    return wrong
  if row['position'] is None and row['protocol'] in POSITIONAL and row['protocol'] != PLANTED:
    return _refusal(row, 'position', f'a number for the protocol {row["protocol"]}')
  return _fault_of_score(row)


def fault_of(
  row: dict, checks: dict[str, FieldCheck], required: Collection[str] = ()
) -> str | None:
  """What is wrong with the fields of a row that have checks, or None. A field that the row lacks is
  wrong if it is `required`.
  """
  for name, (holds, allowed) in checks.items():
    if (name in row or name in required) and not holds(row.get(name)):
      return _refusal(row, name, allowed)
  return None


def _wrong_names(row: dict) -> str:
  lacking = sorted(FIELDS.keys() - row.keys())
  if lacking:
    return f'it lacks {", ".join(lacking)}'
  unknown = min(row.keys() - FIELDS.keys() - OPTIONAL.keys())
  return f'it has a field {shown(unknown)}, which rows do not have'


def _refusal(row: dict, name: str, allowed: str) -> str:
  return f'{name}={shown(row.get(name))}, where {allowed} must be'


def _fault_of_score(row: dict) -> str | None:
  """What is wrong with how status, metric and score go together, or None."""
  is_ok, metric = row['status'] == 'ok', row['metric']
  if not is_ok or metric is not None:
    for name in ('nats', 'ppl', 'bpb'):
      if row[name] is not None:
        return _refusal(row, name, f'null, with status={row["status"]} and metric={metric},')
  if not is_ok or metric is None:
    if row['value'] is not None:
      return _refusal(row, 'value', f'null, with status={row["status"]} and metric={metric},')
    return _fault_of_likelihood(row) if is_ok else None
  if not is_number(row['value']):
    return _refusal(row, 'value', 'a finite number')
  if metric in SHARES and not -1e-6 <= row['value'] <= 1 + 1e-6:
    return _refusal(row, 'value', f'a share of 0 to 1, with metric={metric},')
  return None


def _fault_of_likelihood(row: dict) -> str | None:
  for name in ('nats', 'ppl', 'bpb'):
    if not is_number(row[name]):
      return _refusal(row, name, 'a finite number')
  for name in ('tokens', 'bytes'):
    if not row[name]:
      return _refusal(row, name, 'a whole number from 1 on')
  nats_a_token = row['nats'] / row['tokens']
  if not -1e-3 <= nats_a_token <= MAX_EXPONENT:  # rounding may give a little less than nothing
    return _refusal(row, 'nats', f'0 to {MAX_EXPONENT} a token')
  computed = {'ppl': math.exp(nats_a_token), 'bpb': row['nats'] / row['bytes'] / math.log(2)}
  for name, value in computed.items():
    if not math.isclose(row[name], value, rel_tol=1e-9, abs_tol=1e-12):
      return _refusal(row, name, f'{value!r}, as nats, tokens and bytes say,')
  return None


def key(row: dict) -> str:
  """A text that is equal for two rows if and only if they are the same measurement."""
  return _encode([row[name] for name in (*KEY_FIELDS, 'metric')])


# One for all: reports ask for the keys of hundreds of thousands of rows several times.
_encode = json.JSONEncoder(sort_keys=True).encode
