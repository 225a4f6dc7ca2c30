"""The measurements that a config asks for: documents, protocols and lengths."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.config import CONTROLS, decides_results, differing_keys, flat
from posenc_jax.errors import UserError
from posenc_jax.evaluation import attention_weights, long_ppl, protocols
from posenc_jax.evaluation.model_functions import gradient_norms
from posenc_jax.evaluation.protocols import TokenFunction
from posenc_jax.evaluation.runs import evaluator_nll
from posenc_jax.model.token_nll import token_nll
from posenc_jax.tasks import PREFIX

WINDOWED, SHUFFLED_FAR = CONTROLS  # row_schema says what they are

TRAINED = ('seed', 'train', 'optim')  # sections of the config that evaluation cannot change
# Fields that rows state by themselves, and fields that change no number.
IN_ROWS = (
  *('label', 'data.corpus', 'eval.split', 'eval.k', 'eval.stride', 'eval.protocols'),
  'eval.sink_rate_tokens',
)
HARMLESS = ('eval.controls', 'eval.batch_tokens', 'model.unroll')
HEADS_OF_LAYER = 1000  # rows number heads so: 2003 is head 3 of layer 2, both counted from 0


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The rows of one protocol at one length, which are measured with one compiled function.

  Attributes:
    key_fields: for each row, the fields that set it apart from other rows of the run.
    score: (token function, indices of rows) -> for each of these rows, the fields of its score.
    function: the function of the model that `score` needs: `token_nll` or one of
      `model_functions`.
    window: the number of tokens that attention sees, or None for what the config says.
    metric: the metric of all rows that do not state one; None for a likelihood.
    largest_position: a bound on the positions that its batches carry; None: they carry none.
  """

  length: int
  key_fields: list[dict]
  score: Callable[[TokenFunction, list[int]], list[dict]]
  function: Callable = token_nll
  window: int | None = None
  metric: str | None = None
  largest_position: int | None = None

  @property
  def num_positions(self) -> int:
    """How many positions a model needs for it."""
    return self.length if self.largest_position is None else self.largest_position + 1

  @property
  def name(self) -> str:
    """The name of its line in the printed table: 'last_k', 'last_k windowed', 'non_overlapping'."""
    fields = self.key_fields[0]
    return ' '.join(filter(None, (fields['protocol'], fields['control'])))


def plan(config: ConfigDict, corpus: data.Corpus) -> list[Measurement]:
  """Returns the measurements of text that `config.eval` asks for, shortest windows first. Raises
  `UserError` where documents are too short or too few.
  """
  planner = Planner(config, corpus)
  return [
    measurement
    for length in sorted(config.eval.lengths)
    for protocol in config.eval.protocols
    for measurement in getattr(planner, protocol)(length)
  ]


def control_window(control: str | None, length: int, train_length: int) -> int | None:
  """The `Measurement.window` of a control at a length."""
  return train_length if control == WINDOWED and length > train_length else None


class Planner:
  """Its public methods are the protocols of `config.PROTOCOLS`: length -> measurements."""

  def __init__(self, config: ConfigDict, corpus: data.Corpus):
    self._config, self._corpus = config, corpus
    self._eval = config.eval
    self._train_length = config.train.length
    self._bytes_V = corpus.tokenizer.lengths
    documents = choose_documents(config, corpus)
    self._names = [name for name, _ in documents]
    self._texts = [tokens_T for _, tokens_T in documents]
    self._starts = [tokens_T[: self._eval.document_tokens or None] for tokens_T in self._texts]
    sizes = [len(tokens_T) for tokens_T in self._texts]
    self._targets = protocols.choose_targets(sizes, max(self._eval.lengths), self._eval.spans)

  def _score_fields(self, nats: np.ndarray, tokens: np.ndarray) -> dict:
    """The score of a row that covers these tokens."""
    num_bytes = int(self._bytes_V[tokens].sum())
    return {'nats': float(nats.sum()), 'tokens': tokens.size, 'bytes': num_bytes}

  def non_overlapping(self, length: int) -> Iterator[Measurement]:
    fields = {'protocol': 'non_overlapping', 'control': None, 'length': length}
    yield self._whole_documents(fields, length)

  def sliding(self, length: int) -> Iterator[Measurement]:
    stride = self._eval.stride
    fields = {'protocol': 'sliding', 'control': None, 'length': length, 'stride': stride}
    yield self._whole_documents(fields, stride)

  def _whole_documents(self, fields: dict, stride: int) -> Measurement:
    length = fields['length']

    def score(nll, rows):
      texts = [self._starts[i] for i in rows]
      nats = protocols.sliding(nll, texts, length, stride, self._eval.batch_tokens)
      return [self._score_fields(*pair) for pair in zip(nats, texts, strict=True)]

    return Measurement(length, [fields | {'document': name} for name in self._names], score)

  def last_k(self, length: int) -> Iterator[Measurement]:
    for control in (None, *self._eval.controls):
      yield self._last_k(length, control)

  def _last_k(self, length: int, control: str | None) -> Measurement:
    k = self._eval.k
    # The first scored token still sees `train_length` tokens of its own document.
    near = self._train_length + k if control == SHUFFLED_FAR else None

    def score(nll, rows):
      targets = [self._targets[i] for i in rows]
      windows = protocols.target_windows(self._texts, targets, length, near)
      nats = protocols.last_k(nll, windows, length, k, self._eval.batch_tokens)
      tokens = (self._texts[document][end - k : end] for document, end in targets)
      return [self._score_fields(*pair) for pair in zip(nats, tokens, strict=True)]

    fields = {'protocol': 'last_k', 'control': control, 'length': length, 'k': k}
    key_fields = [
      fields | {'document': self._names[document], 'position': end - k}
      for document, end in self._targets
    ]
    window = control_window(control, length, self._train_length)
    return Measurement(length, key_fields, score, window=window)

  def by_position(self, length: int) -> Iterator[Measurement]:
    bins = protocols.log_bins(length)

    def score(nll, rows):
      tokens_NT = protocols.whole_windows(self._starts, length)
      nats_NT = protocols.by_position(nll, tokens_NT, self._eval.batch_tokens)
      slices = [slice(*bins[i]) for i in rows]
      return [self._score_fields(nats_NT[:, places], tokens_NT[:, places]) for places in slices]

    controls = [control for control in self._eval.controls if control == WINDOWED]
    for control in (None, *controls):
      fields = {'protocol': 'by_position', 'control': control, 'length': length}
      key_fields = [fields | {'position': first} for first, _ in bins]
      window = control_window(control, length, self._train_length)
      yield Measurement(length, key_fields, score, window=window)

  def receptive_field(self, length: int) -> Iterator[Measurement]:
    """A row's value is the share of the gradient from its `position` to that of the next row, so
    the values of a length add up to 1.
    """
    bins = protocols.log_bins(length - 1)

    def score(norms, rows):
      windows = protocols.target_windows(self._texts, self._targets, length)
      shares = protocols.receptive_field(norms, windows, length, self._eval.batch_tokens)
      share_R = np.mean(list(shares), axis=0)
      return [{'value': float(share_R[slice(*bins[i])].sum())} for i in rows]

    fields = {'protocol': 'receptive_field', 'control': None, 'length': length}
    key_fields = [fields | {'position': first} for first, _ in bins]
    yield Measurement(length, key_fields, score, function=gradient_norms, metric='gradient')

  def long_ppl(self, length: int) -> Iterator[Measurement]:
    """Yields nothing for a length that the short context reaches as well."""
    e = self._eval
    context = e.long_ppl_context or self._train_length
    if length <= context:
      return

    def score(nll, rows):
      windows_NT = protocols.whole_windows(self._starts, length)
      judge = evaluator_nll(self._config, self._corpus) if e.long_ppl_evaluator else nll
      is_key_NT = long_ppl.key_tokens(
        judge, windows_NT, context, e.stride, e.long_ppl_alpha, e.long_ppl_beta, e.batch_tokens
      )
      if not is_key_NT.any():
        return [{'status': 'no_key_tokens'}] * len(rows)
      nats_NT = protocols.by_position(nll, windows_NT, e.batch_tokens)
      return [self._score_fields(nats_NT[is_key_NT], windows_NT[is_key_NT])] * len(rows)

    fields = {'protocol': 'long_ppl', 'control': None, 'length': length, 'stride': e.stride}
    yield Measurement(length, [fields], score)

  def sink_rate(self, length: int) -> Iterator[Measurement]:
    """Yields one measurement, at the shortest length: it has a length of its own."""
    e = self._eval
    if length > min(e.lengths):
      return

    def score(sums, rows):
      windows_NT = protocols.whole_windows(self._starts, e.sink_rate_tokens)
      sums_WNHC = np.stack(
        list(attention_weights.over_windows(sums, windows_NT, e.sink_rate_tokens, e.batch_tokens))
      )
      return [{'value': attention_weights.sink_rate(sums_WNHC, e.sink_rate_epsilon)}] * len(rows)

    fields = {'protocol': 'sink_rate', 'control': None, 'length': e.sink_rate_tokens}
    function = attention_weights.weight_sums
    yield Measurement(e.sink_rate_tokens, [fields], score, function, metric='sink_rate')

  def attention_distance(self, length: int) -> Iterator[Measurement]:
    """A row is a head of a layer; its `position` is HEADS_OF_LAYER x layer + head."""
    size = self._eval.batch_tokens
    heads = attention_weights.count_heads(self._config, self._corpus.vocab)
    places = list(np.ndindex(self._config.model.layers, heads))

    def score(sums, rows):
      windows_NT = protocols.whole_windows(self._starts, length)
      sums_WNHC = np.stack(list(attention_weights.over_windows(sums, windows_NT, length, size)))
      distance_NH = attention_weights.mean_distances(sums_WNHC)
      return [{'value': float(distance_NH[places[i]])} for i in rows]

    fields = {'protocol': 'attention_distance', 'control': None, 'length': length}
    key_fields = [fields | {'position': HEADS_OF_LAYER * layer + head} for layer, head in places]
    function = attention_weights.weight_sums
    yield Measurement(length, key_fields, score, function, metric='attention_distance')


def choose_documents(config: ConfigDict, corpus: data.Corpus) -> list[tuple[str, np.ndarray]]:
  """Returns the first `eval.documents` documents (name, tokens_T) that have at least
  max(eval.lengths) tokens. Raises `UserError`.
  """
  e, longest = config.eval, max(config.eval.lengths)
  long_enough = [i for i, count in enumerate(corpus.counts) if count >= longest]
  available = f'documents of {corpus.name!r} ({e.split}) have {longest} tokens'
  if not long_enough:
    allowed = f'at most {corpus.counts.max()}, the longest'
    raise UserError(f'config.eval.lengths={tuple(e.lengths)!r}: no {available}; allowed: {allowed}')
  if e.documents > len(long_enough):
    raise UserError(
      f'config.eval.documents={e.documents}: only {len(long_enough)} {available}; '
      f'allowed: 1 to {len(long_enough)}, or 0 for all of them'
    )
  if SHUFFLED_FAR in e.controls and len(long_enough) < 2:
    raise UserError(
      f'config.eval.controls={tuple(e.controls)!r}: only 1 of the {available}; '
      'allowed: without shuffled_far'
    )
  return [(corpus.names[i], corpus.tokens[i]) for i in long_enough[: e.documents or None]]


def overrides(saved: ConfigDict, config: ConfigDict) -> dict[str, object]:
  """Returns {field: value} of what evaluation changes in the run's saved config and rows would not
  show otherwise.

  Documents and targets in text follow from the longest length, so a change of that counts. Raises
  `UserError` for a field that decided the training.
  """
  before, after = flat(saved), flat(config)
  changed = {key: after.get(key) for key in differing_keys(saved, config) if decides_results(key)}
  for key, value in changed.items():
    if key.partition('.')[0] in TRAINED:
      raise UserError(
        f'config.{key}={value!r}: the run was trained with {before.get(key)!r}; allowed: that'
      )
  lengths = changed.pop('eval.lengths', None)
  is_text = not config.data.corpus.startswith(PREFIX)
  if is_text and lengths and max(lengths) != max(before['eval.lengths']):
    changed['max(eval.lengths)'] = max(lengths)
  return {key: value for key, value in changed.items() if key not in IN_ROWS + HARMLESS}
