"""What a config asks to be measured: documents, protocols, lengths; and what of it a row must
say.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.config import decides_results, differing_keys, flat
from posenc_jax.errors import UserError
from posenc_jax.evaluation import protocols
from posenc_jax.evaluation.protocols import Nll
from posenc_jax.tasks import PREFIX

WINDOWED = 'windowed'  # a row's `control`: attention limited to the row's `train_length` tokens
# tokens more than `train_length` before the first scored one are another document's
SHUFFLED_FAR = 'shuffled_far'

TRAINED = ('seed', 'train', 'optim')  # sections that evaluation cannot change any more
# a row has fields for them
KEYED = ('label', 'data.corpus', 'eval.split', 'eval.k', 'eval.stride', 'eval.protocols')
HARMLESS = ('eval.controls', 'eval.batch_tokens', 'model.unroll')  # change no number


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The rows of one protocol at one length, measured with one compiled function.

  Attributes:
    questions: for each row, the fields of its key that set it apart.
    score: (function, numbers of rows) -> the fields of these rows that say what came out.
    function: 'nll', 'norms' or 'answers', what `score` is given.
    window: tokens that attention sees; None: as the config says.
    metric: of the rows, where it is no likelihood.
  """

  length: int
  questions: list[dict]
  score: Callable[[Nll, list[int]], list[dict]]
  function: str = 'nll'
  window: int | None = None
  metric: str | None = None

  @property
  def name(self) -> str:
    """Of its row in the table that is shown: 'last_k', 'last_k windowed', 'non_overlapping'."""
    question = self.questions[0]
    return ' '.join(filter(None, (question['protocol'], question['control'])))


def plan(
  config: ConfigDict, documents: list[tuple[str, np.ndarray]], bytes_V: np.ndarray
) -> Iterator[Measurement]:
  """The measurements of `config.eval`, shortest windows first.

  Args:
    documents: (name, tokens_T) each.
    bytes_V: how many bytes each token stands for.
  """
  planner = Planner(config, documents, bytes_V)
  for length in sorted(config.eval.lengths):
    for protocol in config.eval.protocols:
      yield from getattr(planner, protocol)(length)


class Planner:
  """A method a protocol: length -> its measurements."""

  def __init__(
    self, config: ConfigDict, documents: list[tuple[str, np.ndarray]], bytes_V: np.ndarray
  ):
    e = self.eval = config.eval
    self.train_length, self.bytes_V = config.train.length, bytes_V
    self.names, self.texts = (
      [name for name, _ in documents],
      [tokens_T for _, tokens_T in documents],
    )
    self.starts = [tokens_T[: e.document_tokens or None] for tokens_T in self.texts]
    self.targets = protocols.choose_targets(
      [len(tokens_T) for tokens_T in self.texts], max(e.lengths), e.spans
    )

  def scores(self, nats: np.ndarray, tokens: np.ndarray) -> dict:
    """Fields of a row that scored these tokens."""
    return {
      'nats': float(nats.sum()),
      'tokens': tokens.size,
      'bytes': int(self.bytes_V[tokens].sum()),
    }

  def non_overlapping(self, length: int) -> Iterator[Measurement]:
    yield self._documents('non_overlapping', length, length)

  def sliding(self, length: int) -> Iterator[Measurement]:
    yield self._documents('sliding', length, self.eval.stride)

  def _documents(self, protocol: str, length: int, stride: int) -> Measurement:
    question = {'protocol': protocol, 'control': None, 'length': length}
    question |= {'stride': stride} if protocol == 'sliding' else {}

    def score(nll, rows):
      texts = [self.starts[i] for i in rows]
      nats = protocols.sliding(nll, texts, length, stride, self.eval.batch_tokens)
      return [self.scores(nats_T, tokens_T) for nats_T, tokens_T in zip(nats, texts, strict=True)]

    return Measurement(length, [question | {'document': name} for name in self.names], score)

  def last_k(self, length: int) -> Iterator[Measurement]:
    for control in (None, *self.eval.controls):
      yield self._last_k(length, control)

  def _last_k(self, length: int, control: str | None) -> Measurement:
    k = self.eval.k
    # the first scored token still sees its near ones
    near = self.train_length + k if control == SHUFFLED_FAR else None
    question = {'protocol': 'last_k', 'control': control, 'length': length, 'k': k}

    def score(nll, rows):
      targets = [self.targets[i] for i in rows]
      windows = protocols.target_windows(self.texts, targets, length, near)
      nats = protocols.last_k(nll, windows, length, k, self.eval.batch_tokens)
      tokens = (self.texts[document][end - k : end] for document, end in targets)
      return [self.scores(nats_K, tokens_K) for nats_K, tokens_K in zip(nats, tokens, strict=True)]

    questions = [
      question | {'document': self.names[d], 'position': end - k} for d, end in self.targets
    ]
    return Measurement(length, questions, score, window=self._window(length, control))

  def _window(self, length: int, control: str | None) -> int | None:
    return self.train_length if control == WINDOWED and length > self.train_length else None

  def by_position(self, length: int) -> Iterator[Measurement]:
    bins = protocols.log_bins(length)

    def score(nll, rows):
      tokens_NT = protocols.whole_windows(self.starts, length)
      nats_NT = protocols.by_position(nll, tokens_NT, self.eval.batch_tokens)
      slices = [slice(*bins[i]) for i in rows]
      return [self.scores(nats_NT[:, some], tokens_NT[:, some]) for some in slices]

    for control in (None, *(control for control in self.eval.controls if control == WINDOWED)):
      question = {'protocol': 'by_position', 'control': control, 'length': length}
      questions = [question | {'position': first} for first, _ in bins]
      yield Measurement(length, questions, score, window=self._window(length, control))

  def receptive_field(self, length: int) -> Iterator[Measurement]:
    """Of rows that say what share of the gradient lies at `position` to the next row's: their
    values add up to 1.
    """
    bins = protocols.log_bins(length - 1)

    def score(norms, rows):
      windows = protocols.target_windows(self.texts, self.targets, length)
      share_R = np.mean(
        list(protocols.receptive_field(norms, windows, length, self.eval.batch_tokens)), axis=0
      )
      return [{'value': float(share_R[slice(*bins[i])].sum())} for i in rows]

    question = {'protocol': 'receptive_field', 'control': None, 'length': length}
    questions = [question | {'position': first} for first, _ in bins]
    yield Measurement(length, questions, score, function='norms', metric='gradient')


def choose_documents(config: ConfigDict, corpus: data.Corpus) -> list[tuple[str, np.ndarray]]:
  """The first `eval.documents` documents (name, tokens_T) of at least max(eval.lengths) tokens.
  Raises `UserError`.
  """
  e, longest = config.eval, max(config.eval.lengths)
  enough = [i for i, size in enumerate(corpus.counts) if size >= longest]
  where = f'documents of {corpus.name!r} ({e.split}) have {longest} tokens'
  if not enough:
    allowed = f'at most {corpus.counts.max()}, the longest'
    raise UserError(f'config.eval.lengths={tuple(e.lengths)!r}: no {where}; allowed: {allowed}')
  if e.documents > len(enough):
    allowed = f'1 to {len(enough)}, or 0 for all of them'
    raise UserError(
      f'config.eval.documents={e.documents}: only {len(enough)} {where}; allowed: {allowed}'
    )
  if SHUFFLED_FAR in e.controls and len(enough) < 2:
    raise UserError(
      f'config.eval.controls={tuple(e.controls)!r}: only 1 of the {where}; allowed: without shuffled_far'
    )
  chosen = enough[: e.documents or None]
  return [(corpus.names[i], corpus.tokens[i]) for i in chosen]


def overrides(saved: ConfigDict, config: ConfigDict) -> dict[str, object]:
  """What evaluation changes in the run's saved config, without what a row says anyway and what
  changes no number.

  Documents and targets in text follow from the longest length, so a change of that counts. Raises
  `UserError` for a field that is trained in.
  """
  before, after = flat(saved), flat(config)
  changed = {key: after.get(key) for key in differing_keys(saved, config) if decides_results(key)}
  for key in changed:
    if key.partition('.')[0] in TRAINED:
      raise UserError(
        f'config.{key}={changed[key]!r}: the run was trained with {before.get(key)!r}; allowed: that'
      )
  lengths = changed.pop('eval.lengths', None)
  is_text = not config.data.corpus.startswith(PREFIX)
  if is_text and lengths and max(lengths) != max(before['eval.lengths']):
    changed['max(eval.lengths)'] = max(lengths)
  return {key: value for key, value in changed.items() if key not in KEYED + HARMLESS}
