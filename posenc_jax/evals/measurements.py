"""What a config asks to be measured: documents, protocols, lengths; and what of it a row must say."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.config import UserError, differing_keys, flat
from posenc_jax.evals.protocols import Nll, blocks, choose_targets, last_k

WINDOWED = 'windowed'  # a row's `control`: attention limited to the row's `train_length` tokens

TRAINED = ('seed', 'train', 'optim')  # sections that evaluation cannot change any more
KEYED = ('label', 'data.corpus', 'eval.split', 'eval.k', 'eval.protocols')  # have fields of their own in a row
HARMLESS = ('data.cache', 'eval.windowed', 'eval.batch_tokens', 'model.unroll')  # change no number


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The rows of one protocol at one length, measured with one compiled function.

  Attributes:
    window: tokens that attention sees; None: as the config says.
    questions: for each row, the fields of its key that set it apart.
    score: (nll, numbers of rows) -> their (nats, tokens).
  """

  length: int
  window: int | None
  questions: list[dict]
  score: Callable[[Nll, list[int]], list[tuple[float, int]]]

  @property
  def name(self) -> str:
    """Of its row in the table that is shown: 'last_k', 'last_k windowed', 'blocks'."""
    question = self.questions[0]
    return ' '.join(filter(None, (question['protocol'], question['control'])))


def plan(config: ConfigDict, documents: list[tuple[str, np.ndarray]]) -> Iterator[Measurement]:
  """The measurements of `config.eval` over documents (name, tokens_T), shortest windows first."""
  e, L = config.eval, config.train.length
  names, texts = [name for name, _ in documents], [tokens_T for _, tokens_T in documents]
  starts = [tokens_T[: e.document_tokens or None] for tokens_T in texts]
  targets = choose_targets([len(tokens_T) for tokens_T in texts], max(e.lengths), e.spans)

  def score_blocks(length, nll, _):
    return [blocks(nll, starts, length, e.batch_tokens)]

  def score_last_k(length, nll, rows):
    return [(nats, e.k) for nats in last_k(nll, texts, [targets[i] for i in rows], length, e.k, e.batch_tokens)]

  for length in sorted(e.lengths):
    if 'blocks' in e.protocols:
      question = {'protocol': 'blocks', 'control': None, 'length': length}
      yield Measurement(length, None, [question], functools.partial(score_blocks, length))
    if 'last_k' in e.protocols:
      for control in (None, WINDOWED) if e.windowed else (None,):
        questions = [
          {
            'protocol': 'last_k',
            'control': control,
            'length': length,
            'k': e.k,
            'document': names[document],
            'position': end - e.k,
          }
          for document, end in targets
        ]
        window = L if control and length > L else None
        yield Measurement(length, window, questions, functools.partial(score_last_k, length))


def choose_documents(config: ConfigDict) -> list[tuple[str, np.ndarray]]:
  """The first `eval.documents` documents (name, tokens_T) of at least max(eval.lengths) tokens. Raises `UserError`."""
  e, longest = config.eval, max(config.eval.lengths)
  corpus = data.corpus(config.data.corpus, e.split, config.data.text_field, config.data.cache)
  enough = [i for i, size in enumerate(corpus.sizes) if size >= longest]
  where = f'documents of {corpus.name!r} ({e.split}) have {longest} tokens'
  if not enough:
    allowed = f'at most {corpus.sizes.max()}, the longest'
    raise UserError(f'config.eval.lengths={tuple(e.lengths)!r}: no {where}; allowed: {allowed}')
  if e.documents > len(enough):
    allowed = f'1 to {len(enough)}, or 0 for all of them'
    raise UserError(f'config.eval.documents={e.documents}: only {len(enough)} {where}; allowed: {allowed}')
  chosen = enough[: e.documents or None]
  return [(corpus.names[i], np.frombuffer(corpus.documents[i], np.uint8)) for i in chosen]


def overrides(saved: ConfigDict, config: ConfigDict) -> dict[str, object]:
  """What evaluation changes in the run's saved config, without what a row says anyway and what changes no number.

  Documents and targets follow from the longest length, so a change of that counts. Raises `UserError` for a field that
  is trained in.
  """
  before, after = flat(saved), flat(config)
  changed = {key: after.get(key) for key in differing_keys(saved, config)}
  for key in changed:
    if key.partition('.')[0] in TRAINED:
      raise UserError(f'config.{key}={changed[key]!r}: the run was trained with {before.get(key)!r}; allowed: that')
  lengths = changed.pop('eval.lengths', None)
  if lengths and max(lengths) != max(before['eval.lengths']):
    changed['max(eval.lengths)'] = max(lengths)
  return {key: value for key, value in changed.items() if key not in KEYED + HARMLESS}
