"""The measurements that a config asks for: documents, protocols and lengths."""

import functools
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data
from posenc_jax.data import planted
from posenc_jax.distributed.devices import MANY_SYMBOLS
from posenc_jax.errors import UserError
from posenc_jax.evaluation import long_ppl, text_tasks, windows
from posenc_jax.evaluation.controls import Inputs, Originals, inputs_under
from posenc_jax.evaluation.long_ppl_evaluator import Evaluator
from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.evaluation.model_functions import gradient_norms, predictions
from posenc_jax.evaluation.predictions import predict_answers
from posenc_jax.evaluation.whole_windows import WholeWindows
from posenc_jax.inspection import attention_weights
from posenc_jax.protocols import PROTOCOLS, SHUFFLED_FAR, TEXT_TASKS, is_asked, short_context
from posenc_jax.rows.row_schema import NO_KEY_TOKENS, NO_WEIGHT
from posenc_jax.tasks import Example

FEW_SYMBOLS = 2**9  # bytes and marks: logits of whole windows take less than compiling them apart
HEADS_OF_LAYER = 1000  # rows number heads so: 2003 is head 3 of layer 2, both counted from 0


def plan(config: ConfigDict, corpus: data.Corpus) -> list[Measurement]:
  """Returns the measurements of text that `config.eval` asks for, shortest windows first; of one
  model, which reads once what several of them score. Raises `UserError` where documents are too
  short or too few.
  """
  planner = Planner(config, corpus)
  return [
    measurement
    for length in sorted(config.eval.lengths)
    for protocol in config.eval.protocols
    for measurement in planner.measurements(protocol, length)
  ]


class Planner:
  """Makes the measurements of protocols. Each public method but `measurements` is the protocol of
  its name, of PROTOCOLS without TEXT_TASKS: given a length, it yields measurements.
  """

  def __init__(self, config: ConfigDict, corpus: data.Corpus):
    self._config, self._corpus = config, corpus
    self._eval = config.eval
    self._train_length = config.train.length
    chosen = choose_indices(config, corpus)
    self._names = [corpus.names[i] for i in chosen]
    self._folders = [corpus.folder(i) for i in chosen]
    self._tokens = [corpus.tokens[i] for i in chosen]
    self._bytes = [corpus.token_bytes[i] for i in chosen]  # of each token
    self._excerpts, self._excerpt_bytes = (
      [windows.excerpt(array_T, self._eval.document_tokens) for array_T in arrays]
      for arrays in (self._tokens, self._bytes)
    )
    self._originals = Originals()
    # Of few symbols, logits take less than compiling another program does.
    self._takes_last = corpus.vocab >= MANY_SYMBOLS
    size = self._eval.batch_tokens
    self._whole_windows = WholeWindows(self._excerpts, size, self._takes_last)

  def measurements(self, protocol: str, length: int) -> Iterator[Measurement]:
    """Yields the measurements of a protocol at a length."""
    if protocol in TEXT_TASKS:
      return self._text_task(protocol, length)
    return getattr(self, protocol)(length)

  def _controls(self, protocol: str) -> list[str | None]:
    """The controls that are asked of a protocol; None, without any, comes first."""
    return [None, *(name for name in self._eval.controls if name in PROTOCOLS[protocol].controls)]

  def _targets(self, scored: int) -> list[tuple[int, int]]:
    """The targets (document, end), of which each scores so many tokens."""
    e, sizes = self._eval, list(map(len, self._tokens))
    return windows.choose_targets(sizes, e.target_context, e.spans, scored)

  def _score(self, nats: np.ndarray, num_bytes: np.ndarray) -> dict:
    """The score of a row that covers tokens of so many nats and bytes."""
    return {'nats': float(nats.sum()), 'tokens': nats.size, 'bytes': int(num_bytes.sum())}

  def non_overlapping(self, length: int) -> Iterator[Measurement]:
    fields = {'protocol': 'non_overlapping', 'control': None, 'length': length}
    yield self._by_document(fields, length)

  def sliding(self, length: int) -> Iterator[Measurement]:
    stride = self._eval.stride
    fields = {'protocol': 'sliding', 'control': None, 'length': length, 'stride': stride}
    yield self._by_document(fields, stride)

  def _by_document(self, fields: dict, stride: int) -> Measurement:
    """A row a document: the excerpt of each, in windows `stride` apart."""
    length = fields['length']

    def score(nll, indices):
      if stride == length and self._whole_windows.keeps:
        nats = self._whole_windows.nats_with_rests(nll, length, indices)
      else:
        texts = [self._excerpts[i] for i in indices]
        asked = nll, texts, length, stride, self._eval.batch_tokens, self._takes_last
        nats = windows.sliding(*asked)
      num_bytes = (self._excerpt_bytes[i][:] for i in indices)
      return [self._score(*pair) for pair in zip(nats, num_bytes, strict=True)]

    return Measurement(length, [fields | {'document': name} for name in self._names], score)

  def last_k(self, length: int) -> Iterator[Measurement]:
    for control in self._controls('last_k'):
      yield self._last_k(length, control)

  def _last_k(self, length: int, control: str | None) -> Measurement:
    k, targets = self._eval.k, self._targets(self._eval.k)
    inputs = inputs_under(control, length, self._config)
    # The first scored token still sees `train_length` tokens of its own document.
    near, others = None, ()
    if control == SHUFFLED_FAR:
      near = self._train_length + k
      others = windows.next_of_other_folder(self._folders)

    def score(nll, indices):
      chosen = [targets[i] for i in indices]
      at_targets = windows.target_windows(self._tokens, chosen, inputs.length, near, others)
      nats = windows.last_k(nll, at_targets, inputs.length, k, self._eval.batch_tokens)
      num_bytes = (self._bytes[document][end - k : end] for document, end in chosen)
      return [self._score(*pair) for pair in zip(nats, num_bytes, strict=True)]

    fields = {'protocol': 'last_k', 'control': control, 'length': length, 'k': k}
    key_fields = [
      fields | {'document': self._names[document], 'position': end - k} for document, end in targets
    ]
    measurement = Measurement(
      length,
      key_fields,
      score,
      last=None if self._corpus.vocab <= FEW_SYMBOLS else k,
      rows_at_a_time=max(1, self._eval.batch_tokens // inputs.length),
      **inputs.fields,
    )
    is_shuffled = near is not None and length > near
    return self._originals.refer(measurement, 'last_k', inputs, is_shuffled)

  def by_position(self, length: int) -> Iterator[Measurement]:
    places = {first: (slice(None), slice(first, end)) for first, end in windows.log_bins(length)}
    for control in self._controls('by_position'):
      yield self._by_place('by_position', length, control, places)

  def planted(self, length: int) -> Iterator[Measurement]:
    """Letters of planted names, by the distance to what decides them; see `data.planted`. A row's
    `position` is the shortest distance of an octave; 0: the names that are new in a window; None:
    the text between names.
    """
    as_bytes = lambda tokens_T: tokens_T.astype(np.uint8).tobytes()
    windows_WT = windows.whole_windows(self._excerpts, length)
    places = windows.by_octave(np.stack([planted.distances(as_bytes(w)) for w in windows_WT]))
    if not places:
      raise UserError(f'config.eval.lengths: no name in windows of {length}; allowed: longer ones')
    # told apart in whole documents: excerpts and windows begin and end within names, too
    of_text = [planted.is_text(as_bytes(tokens_T)) for tokens_T in self._tokens]
    size = self._eval.document_tokens
    places[None] = windows.whole_windows([windows.excerpt(t, size) for t in of_text], length)
    for control in self._controls('planted'):
      yield self._by_place('planted', length, control, places)

  def _by_place(
    self, protocol: str, length: int, control: str | None, places: dict[int | None, object]
  ) -> Measurement:
    """The measurement of whole windows with a row for each position in `places`, which says where
    in the array [W, T] of all windows its tokens are.
    """
    inputs = inputs_under(control, length, self._config)

    def score(nll, indices):
      bytes_WT = windows.whole_windows(self._excerpt_bytes, length)
      documents = range(len(self._names))
      nats_WT = np.concatenate(self._whole_windows.nats(nll, length, inputs, documents))
      chosen = [list(places.values())[i] for i in indices]
      return [self._score(nats_WT[where], bytes_WT[where]) for where in chosen]

    fields = {'protocol': protocol, 'control': control, 'length': length}
    key_fields = [fields | {'position': position} for position in places]
    measurement = Measurement(length, key_fields, score, **inputs.fields)
    return self._originals.refer(measurement, protocol, length, inputs)

  def _text_task(self, task: str, length: int) -> Iterator[Measurement]:
    """Prompts with sentences hidden in each document at `eval.spans` depths; a row's `position` is
    its depth in per cent, and its bytes are those of the answer.
    """
    e, encode = self._eval, self._corpus.tokenizer.encode
    depths = [(2 * n + 1) / (2 * e.spans) for n in range(e.spans)]
    asked = [(document, depth) for document in range(len(self._tokens)) for depth in depths]
    prompts = [text_tasks.prompt_of(task, f'{self._names[i]} {depth}') for i, depth in asked]
    sizes = [text_tasks.sizes(encode, prompt) for prompt in prompts]
    least, last = map(max, zip(*sizes, strict=True))
    fewest = min(scored for _, scored in sizes)
    text_tasks.check_known(task, prompts, fewest, self._corpus.tokenizer)
    if length < least:
      raise UserError(f'config.eval.lengths: {length} tokens for {task}; allowed: {least} or more')

    def example(number):
      document, depth = asked[number]
      prompt = text_tasks.prompt_of(task, f'{self._names[document]} {depth}')
      tokens_T, scored = text_tasks.window(encode, self._tokens[document], length, depth, prompt)
      choices_T = np.zeros(length, np.int32)
      choices_T[-scored:] = self._corpus.vocab
      return Example(tokens_T, choices_T)

    fields = {'protocol': task, 'control': None, 'length': length}
    key_fields = [
      fields | {'document': self._names[document], 'position': round(100 * depth), 'metric': metric}
      for document, depth in asked
      for metric in text_tasks.PROMPT_METRICS
    ]
    per_prompt = len(text_tasks.PROMPT_METRICS)

    def score(predict, indices):
      numbers = sorted({row // per_prompt for row in indices})
      found = predict_answers(predict, map(example, numbers), length, e.batch_tokens)
      by_number = dict(zip(numbers, found, strict=True))
      scores = []
      for row in indices:
        number = row // per_prompt
        right_A, nats_A = by_number[number].right_A, by_number[number].nats_A
        if key_fields[row]['metric'] is None:
          size = len(prompts[number].answer)
          own = {'nats': float(nats_A.sum()), 'tokens': nats_A.size, 'bytes': size}
        else:
          own = {'value': float(right_A.all()), 'tokens': right_A.size}
        scores.append(own)
      return scores

    yield Measurement(
      length,
      key_fields,
      score,
      function=predictions,
      last=last,
      rows_at_a_time=per_prompt * max(1, e.batch_tokens // length),
    )

  def receptive_field(self, length: int) -> Iterator[Measurement]:
    """A row's value is the share of the gradient from its `position` to that of the next row, so
    the values of a length add up to 1.
    """
    bins, targets = windows.log_bins(length - 1), self._targets(1)

    def score(norms, indices):
      at_targets = windows.target_windows(self._tokens, targets, length)
      shares = windows.receptive_field(norms, at_targets, length, self._eval.batch_tokens)
      share_R = np.mean(list(shares), axis=0)
      return [{'value': float(share_R[slice(*bins[i])].sum())} for i in indices]

    fields = {'protocol': 'receptive_field', 'control': None, 'length': length}
    key_fields = [fields | {'position': first} for first, _ in bins]
    yield Measurement(length, key_fields, score, function=gradient_norms, metric='gradient')

  def long_ppl(self, length: int) -> Iterator[Measurement]:
    """Yields nothing for a length that the short context reaches as well. A row is all documents;
    or one, where `eval.long_ppl_evaluator` finds the same key tokens for all models.
    """
    e = self._eval
    context = short_context(self._config)
    if length <= context + e.stride:
      return
    by_document = bool(e.long_ppl_evaluator)

    def score(nll, indices):
      documents = indices if by_document else range(len(self._names))
      texts, sizes = (
        [arrays[i] for i in documents] for arrays in (self._excerpts, self._excerpt_bytes)
      )
      windows_WT, bytes_WT = (windows.whole_windows(some, length) for some in (texts, sizes))
      own = Inputs(length)
      nats_WT = np.concatenate(self._whole_windows.nats(nll, length, own, documents))
      ends = np.cumsum([len(text) // length for text in texts])[:-1] if by_document else []
      if by_document:
        deciding = self._evaluator.deciding_nats(np.split(windows_WT, ends), context)
      else:
        asked = nll, windows_WT, context, e.stride, e.batch_tokens, nats_WT, self._takes_last
        try:
          deciding = long_ppl.deciding_nats(*asked)
        except long_ppl.NotFinite:
          return [{'status': 'not_finite'}]
      is_key_WT = long_ppl.key_tokens(*deciding, context, e.long_ppl_alpha, e.long_ppl_beta)
      of_rows = (np.split(array_WT, ends) for array_WT in (nats_WT, bytes_WT, is_key_WT))
      return list(map(self._score_of_keys, *of_rows))

    fields = {'protocol': 'long_ppl', 'control': None, 'length': length, 'stride': e.stride}
    names = self._names if by_document else [None]
    yield Measurement(
      length,
      [fields | {'document': name} for name in names],
      score,
      rows_at_a_time=max(1, e.batch_tokens // max(map(len, self._excerpts))),
    )

  @functools.cached_property
  def _evaluator(self) -> Evaluator:
    return Evaluator(self._config, self._corpus)

  def _score_of_keys(
    self, nats_WT: np.ndarray, bytes_WT: np.ndarray, is_key_WT: np.ndarray
  ) -> dict:
    """The score of a row that covers the key tokens of these windows; none where these begin no
    character, either.
    """
    if not np.isfinite(nats_WT).all():
      return {'status': 'not_finite'}
    if not bytes_WT[is_key_WT].any():
      return {'status': NO_KEY_TOKENS}
    return self._score(nats_WT[is_key_WT], bytes_WT[is_key_WT])

  def sink_rate(self, length: int) -> Iterator[Measurement]:
    """Yields one measurement, at the shortest length: it has a length of its own."""
    e = self._eval
    if length > min(e.lengths):
      return

    def score(sums, indices):
      windows_WT = windows.whole_windows(self._excerpts, e.sink_rate_tokens)
      sums_WNHC = windows.sums_of_windows(sums, windows_WT, e.sink_rate_tokens, e.batch_tokens)
      return [{'value': attention_weights.sink_rate(sums_WNHC, e.sink_rate_epsilon)}] * len(indices)

    fields = {'protocol': 'sink_rate', 'control': None, 'length': e.sink_rate_tokens}
    function = attention_weights.weight_sums
    yield Measurement(e.sink_rate_tokens, [fields], score, function, metric='sink_rate')

  def attention_distance(self, length: int) -> Iterator[Measurement]:
    """A row is a head of a layer; its `position` is HEADS_OF_LAYER x layer + head. Heads that weigh
    nothing but the first key have no distance.
    """
    size = self._eval.batch_tokens
    heads = attention_weights.count_heads(self._config, self._corpus.vocab)
    places = list(np.ndindex(self._config.model.layers, heads))

    def score(sums, rows):
      windows_WT = windows.whole_windows(self._excerpts, length)
      sums_WNHC = windows.sums_of_windows(sums, windows_WT, length, size)
      if not np.isfinite(sums_WNHC).all():
        return [{'status': 'not_finite'}] * len(rows)
      distance_NH = attention_weights.mean_distances(sums_WNHC)
      distances = [float(distance_NH[places[i]]) for i in rows]
      return [{'status': NO_WEIGHT} if np.isnan(x) else {'value': x} for x in distances]

    fields = {'protocol': 'attention_distance', 'control': None, 'length': length}
    key_fields = [fields | {'position': HEADS_OF_LAYER * layer + head} for layer, head in places]
    function = attention_weights.weight_sums
    yield Measurement(length, key_fields, score, function, metric='attention_distance')


def choose_indices(config: ConfigDict, corpus: data.Corpus) -> list[int]:
  """Returns the indices of `eval.documents` documents, spread evenly over those of the split that
  have at least `eval.target_context` tokens. Raises `UserError`.
  """
  e = config.eval
  long_enough = [i for i, count in enumerate(corpus.counts) if count >= e.target_context]
  available = f'documents of {corpus.name!r} ({e.split}) have {e.target_context} tokens'
  if not long_enough:
    most = corpus.counts.max()
    raise UserError(
      f'config.eval.target_context={e.target_context}: no {available}; '
      f'allowed: at most {most}, the longest, and eval.lengths of at most that'
    )
  if e.documents > len(long_enough):
    raise UserError(
      f'config.eval.documents={e.documents}: only {len(long_enough)} {available}; '
      f'allowed: 1 to {len(long_enough)}, or 0 for all of them'
    )
  is_shuffled = is_asked(SHUFFLED_FAR, e.protocols, e.controls)
  if is_shuffled and len(long_enough) < 2:
    raise UserError(
      f'config.eval.controls={tuple(e.controls)!r}: only 1 of the {available}; '
      'allowed: without shuffled_far'
    )
  chosen = windows.spread_evenly(len(long_enough), e.documents or len(long_enough))
  chosen = [long_enough[i] for i in chosen]
  folders = {corpus.folder(i) for i in chosen}
  if is_shuffled and len(folders) < 2:
    raise UserError(
      f'config.eval.controls={tuple(e.controls)!r}: all of the {len(chosen)} documents lie in '
      f'{folders.pop()!r}; allowed: without shuffled_far, or eval.documents of two folders or more'
    )
  return chosen
