"""Scores of any model on any documents, without a run directory.

  import numpy as np
  from posenc_jax import score

  def nats(tokens_BT):  # any model: the nats of each token, given those before it in its window
    return np.full(tokens_BT.shape, np.log(256))

  documents = [b'To be, or not to be: that is the question.' * 9, b'Once more unto the breach!' * 9]
  for length in (32, 128):
    found = score(nats, documents, 'last_k', length=length, target_context=128, k=16)
    print(length, found.num_tokens, found.ppl, found.bits_a_byte())
  loss_T = np.mean(score(nats, documents, 'by_position', length=128).nats, axis=0)

`model` may also be `load_run(WORKDIR)`, a trained run, whose tokenizer cuts documents that are
bytes, or an `LM` of this package, with keyword arguments of `LM.__call__` such as `window=128`.
What protocols do is said in `evaluation.windows`; rows of eval.py are made by the same functions.
"""

import functools
import math
import mmap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from posenc_jax import data, tasks
from posenc_jax.data.tokenizers import BYTES, Bytes, Cut, Unread
from posenc_jax.distributed.devices import MANY_SYMBOLS
from posenc_jax.encodings.core.base import in_32_bits
from posenc_jax.errors import nearest
from posenc_jax.evaluation import long_ppl, windows
from posenc_jax.evaluation.runs import Run
from posenc_jax.evaluation.windows import TokenFunction
from posenc_jax.model.decoder import LM, check_tokens
from posenc_jax.model.token_nll import BITS, token_nll

Document = Sequence[int] | jax.Array | np.ndarray | bytes  # tokens_T, or text: bytes of any kind
Arrays = Sequence[np.ndarray]  # of each document, or of each part that is scored
# What protocols return: nats of the scored parts, and what takes these parts from documents.
Scored = tuple[list[np.ndarray], Callable[[Arrays], Arrays]]
# Arguments of `LM.hidden` that are no arrays.
NO_ARRAYS = (
  *('window', 'chunk', 'sink_tokens', 'max_position_distance', 'softcap', 'backend'),
  *('block_sizes', 'logits_dtype'),
)


class Score(NamedTuple):
  """The nats of single tokens, so that whoever adds them up divides once.

  Attributes:
    nats: float64 arrays: one a document (sliding, non_overlapping), a target (last_k), or a window
      (by_position, long_ppl: of its key tokens, perhaps none).
    tokens: the scored tokens, integers in arrays of the same shapes.
    bytes: how many bytes each of them stands for, likewise; None where that is not known.
  """

  nats: list[np.ndarray]
  tokens: list[np.ndarray]
  bytes: list[np.ndarray] | None

  @property
  def num_tokens(self) -> int:
    """How many tokens were scored."""
    return sum(tokens.size for tokens in self.tokens)

  @property
  def nats_a_token(self) -> float:
    """The mean nats of a token; NaN where none was scored."""
    total = math.fsum(float(nats.sum()) for nats in self.nats)
    return total / self.num_tokens if self.num_tokens else math.nan

  @property
  def ppl(self) -> float:
    """Perplexity of a token."""
    return float(np.exp(self.nats_a_token))

  def bits_a_byte(self, bytes_V: np.ndarray | None = None) -> float:
    """Bits of all tokens over their bytes. `bytes_V`: the bytes of each symbol; None: as `bytes`
    says. Raises ValueError where neither is known.
    """
    sizes = self.bytes if bytes_V is None else [np.asarray(bytes_V)[x] for x in self.tokens]
    if sizes is None:
      raise ValueError('bytes_V=None; allowed: bytes of each symbol, or documents that are bytes')
    num_bytes = sum(int(size.sum()) for size in sizes)
    return self.nats_a_token * BITS * self.num_tokens / num_bytes if num_bytes else math.nan


def score(
  model: LM | Run | TokenFunction,
  documents: Iterable[Document],
  protocol: str = 'last_k',
  *,
  length: int,
  batch_tokens: int = 8192,
  attention: dict | None = None,
  **settings,
) -> Score:
  """Scores documents by a protocol in windows of `length` tokens.

  Args:
    model: an `LM`, a `Run`, or any function (tokens_BT) -> nats_BT: the nats of every token given
      those before it in its window, of the first token, too, before which a model has a BOS. It is
      called with int32 [max(1, batch_tokens // length), length], and as it is: pass one that is
      jitted. Zeros fill short and missing windows, so it must be causal. Where it reads how long a
      call is, as dynamic scaling of RoPE does, that is `length` of short windows, too.
    documents: integers tokens_T each, or bytes. A run (also its function `nats`) cuts bytes by its
      tokenizer, one of a task takes none; of any other model each byte is a token, and a token a
      byte.
    protocol: what is scored, and by which settings:
      last_k: the last `k` tokens (64) of windows that end at `spans` targets (1) of each document.
        Up to a target it has `target_context` tokens (`length`); with one value for all lengths
        these have the same targets.
      sliding: every token once, in windows that lie `stride` tokens apart.
      non_overlapping: every token once, in windows side by side.
      by_position: all tokens of whole windows; `np.mean(nats, axis=0)` is the loss by position.
      long_ppl: of whole windows the tokens that need more than the last `context` tokens, as
        `evaluator` finds (the model itself; a run must have the tokenizer that cuts documents, or
        be of the task of the model), by `stride`, `alpha` and `beta`.
    attention: of an `LM`: keyword arguments of `LM.__call__` but dtype, such as {'window': 128}; no
      `mask`, and no `prefix` or else that shows a token those after it, which it is asked for.
    settings: those of the protocol, by name.

  Returns:
    A Score: `.bits_a_byte()`, `.ppl`, `.nats_a_token`, and the nats of single tokens.
  Raises:
    ValueError: an unknown protocol, settings out of range, documents that are too short, tokens
      that are no symbols of a run or an LM, nats of another shape than their tokens, an
      evaluator with another tokenizer or of another task, or nats of long_ppl that are not finite.
  """
  if protocol not in SCORERS:
    raise ValueError(f'protocol={protocol!r}; {nearest(protocol, SCORERS)}')
  run, evaluator = (getattr(x, '__self__', x) for x in (model, settings.get('evaluator')))
  tokenizer = run.tokenizer if isinstance(run, Run) else BYTES
  documents = [_as_bytes(document) for document in documents]
  # integers for a function may be of any tokenizer
  is_known = isinstance(run, Run) or any(isinstance(document, bytes) for document in documents)
  if is_known and isinstance(evaluator, Run):
    there, here = map(_name, (evaluator.tokenizer, tokenizer))
    if there != here:
      allowed = f'a run with that of the documents, {here}'
      raise ValueError(f'evaluator: its tokenizer is {there}; allowed: {allowed}')
    if tokenizer is None and (there := _symbols(evaluator)) != (here := _symbols(run)):
      allowed = f'a run of the task of the model, {here}'
      raise ValueError(f'evaluator: its task is {there}; allowed: {allowed}')
  cuts = [_cut(document, tokenizer) for document in documents]
  texts, sizes = [cut.tokens_T for cut in cuts], [cut.bytes_T for cut in cuts]
  if tokenizer is not None:
    size = sum(len(document) for document in documents if isinstance(document, bytes))
    unknown, replaced = (sum(getattr(cut, n) for cut in cuts) for n in ('unknown', 'replaced'))
    example = next((cut.example for cut in cuts if cut.example), '')
    tokenizer.check_unread(Unread(unknown, replaced, size, example))
  lm = run.model if isinstance(run, Run) else run
  if isinstance(lm, LM):
    for tokens_T in texts:
      check_tokens(tokens_T, lm.vocab)
  nll, takes_last = _likelihoods(model, attention)
  nats, parts_of = SCORERS[protocol](nll, texts, length, batch_tokens, takes_last, **settings)
  has_sizes = not any(bytes_T is None for bytes_T in sizes)
  return Score(nats, list(parts_of(texts)), list(parts_of(sizes)) if has_sizes else None)


def _as_bytes(document: Document) -> Document:
  """The text of a document that is bytes of another kind, such as a file in memory."""
  is_text = isinstance(document, bytearray | mmap.mmap)
  is_text |= isinstance(document, memoryview) and document.format == 'B'
  return bytes(document) if is_text else document


def _name(tokenizer: Bytes | None) -> str:
  """Tells a tokenizer from others; None: that of a task."""
  return 'none' if tokenizer is None else (tokenizer.sha256 or 'bytes')[:16]


def _symbols(run: Run) -> str:
  """Tells the symbols of a run of a task from those of others."""
  name, _ = tasks.parse(run.config.data.corpus.removeprefix(tasks.PREFIX))
  return f'{name}, of {data.vocab(run.config.data)} symbols'


def _cut(document: Document, tokenizer: Bytes | None) -> Cut:
  """The tokens of a document and the bytes that each stands for, None if they are not known. Raises
  ValueError for what is no document. `tokenizer`: None where the model is one of a task.
  """
  if isinstance(document, bytes) and tokenizer:
    (cut,) = tokenizer.cut([document])
    return cut
  tokens_T = np.asarray(document)
  if tokens_T.ndim != 1 or not np.issubdtype(tokens_T.dtype, np.integer):
    allowed = 'integers [T], or bytes' if tokenizer else 'integers [T]'
    raise ValueError(f'a document of shape {tokens_T.shape}, {tokens_T.dtype}; allowed: {allowed}')
  if tokenizer in (BYTES, None):
    return Cut(tokens_T, np.ones(len(tokens_T), int))
  if tokenizer.lengths is None:
    return Cut(tokens_T, None)
  check_tokens(tokens_T, len(tokenizer.lengths))
  return Cut(tokens_T, tokenizer.lengths[tokens_T])


def _likelihoods(
  model: LM | Run | TokenFunction, attention: dict | None
) -> tuple[TokenFunction, bool]:
  """The function (tokens_BT) -> nats_BT of a model, of an `LM` in float32, at 'highest'; and
  whether it takes `last` as `token_nll` does and, with its many symbols, had better be asked so.
  """
  if not isinstance(model, LM):
    if attention is not None:
      raise ValueError(f'attention={attention!r}; allowed: None, unless the model is an LM')
    nll = model.nats if isinstance(model, Run) else model
    run = getattr(nll, '__self__', None)
    if isinstance(run, Run) and nll == run.nats:
      return nll, run.model.vocab >= MANY_SYMBOLS
    return functools.partial(_nats_of_each, nll), False
  for name, plain, reason in (
    ('dtype', 'none', 'an LM is float32'),
    ('prefix', 0, 'tokens would see what they are asked for'),
    ('is_causal', True, 'tokens would see what they are asked for'),
    ('mask', None, 'another one in a function (tokens_BT) -> nats_BT of your own'),
  ):
    if attention and attention.get(name, plain) is not plain:
      raise ValueError(f'attention: {name}={attention[name]!r}; allowed: {plain}, for {reason}')

  options = {
    name: tuple(given) if isinstance(given, list) else given
    for name, given in (attention or {}).items()
    if name not in ('prefix', 'is_causal', 'mask')
  }
  if (ids := options.get('position_ids')) is not None:  # arguments of a compiled function
    options['position_ids'] = in_32_bits(np.asarray(ids))
    options.setdefault('max_position_distance', int(np.ptp(np.asarray(ids, float), axis=1).max()))

  def nll(tokens_BT, last=None):
    check_tokens(tokens_BT, model.vocab)
    with jax.default_matmul_precision('highest'):
      return _nats_of_model(model, tokens_BT, last=last, **options)

  return nll, model.vocab >= MANY_SYMBOLS


def _nats_of_each(function: TokenFunction, tokens_BT: np.ndarray) -> jax.Array | np.ndarray:
  """What a function returns. Raises ValueError unless that is a number for each token."""
  nats_BT = function(tokens_BT)
  if np.shape(nats_BT) != tokens_BT.shape:
    problem = f'nats of shape {np.shape(nats_BT)} for tokens of shape {tokens_BT.shape}'
    raise ValueError(f'{problem}; allowed: one for each token, for the first of a window, too')
  return nats_BT


# one function for all calls of `score`: what a call compiles serves those after it
@functools.partial(jax.jit, static_argnames=('last', *NO_ARRAYS))
def _nats_of_model(model: LM, tokens_BT, last: int | None, **attention):
  return token_nll(model, tokens_BT, last=last, dtype='float32', **attention)


def last_k(
  nll: TokenFunction,
  texts: Arrays,
  length: int,
  batch_tokens: int,
  takes_last: bool,
  *,
  k: int = 64,
  target_context: int | None = None,
  spans: int = 1,
) -> Scored:
  """Scores the last k tokens of windows that end at `spans` targets of each document.

  `target_context`: tokens that documents have up to each target; one value for all lengths gives
  all the same targets. None: `length`.
  """
  for name, value in (('k', k), ('spans', spans), ('documents', len(texts))):
    if value < 1:
      raise ValueError(f'{name}={value}; allowed: 1 or more')
  target_context = length if target_context is None else target_context
  if not length <= target_context <= min(map(len, texts)):
    allowed = f'length={length} to {min(map(len, texts))}, the shortest document'
    raise ValueError(f'target_context={target_context}; allowed: {allowed}')
  targets = windows.choose_targets(list(map(len, texts)), target_context, spans, k)
  at_targets = windows.target_windows(texts, targets, length)
  nll = functools.partial(nll, last=k) if takes_last else nll
  nats = list(windows.last_k(nll, at_targets, length, k, batch_tokens))
  return nats, lambda arrays: [arrays[document][end - k : end] for document, end in targets]


def sliding(
  nll: TokenFunction,
  texts: Arrays,
  length: int,
  batch_tokens: int,
  takes_last: bool,
  *,
  stride: int,
) -> Scored:
  """Scores every token once, in windows that lie `stride` tokens apart."""
  return list(windows.sliding(nll, texts, length, stride, batch_tokens, takes_last)), list


def non_overlapping(
  nll: TokenFunction, texts: Arrays, length: int, batch_tokens: int, takes_last: bool
) -> Scored:
  """Scores every token once, in windows that do not overlap."""
  return sliding(nll, texts, length, batch_tokens, takes_last, stride=length)


def by_position(
  nll: TokenFunction, texts: Arrays, length: int, batch_tokens: int, takes_last: bool
) -> Scored:
  """Scores all tokens of the whole windows of documents: `np.mean(nats, axis=0)` is the loss by
  position.
  """
  windows_WT = windows.whole_windows(texts, length)
  nats = list(windows.by_position(nll, windows_WT, batch_tokens))
  return nats, lambda arrays: windows.whole_windows(arrays, length)


def long_perplexity(
  nll: TokenFunction,
  texts: Arrays,
  length: int,
  batch_tokens: int,
  takes_last: bool,
  *,
  context: int,
  stride: int | None = None,
  alpha: float = 2.0,
  beta: float = -2.0,
  evaluator: LM | Run | TokenFunction | None = None,
) -> Scored:
  """Scores the key tokens of the whole windows of documents: `ppl` is LongPPL.

  `context` and `stride` are those of `long_ppl.deciding_nats`, stride None: a quarter of the
  context; `alpha` and `beta` those of `long_ppl.key_tokens`. `evaluator` finds the key tokens;
  None: the model does. Raises ValueError where nats of either are not finite.
  """
  if not 1 <= context < length:
    raise ValueError(f'context={context}; allowed: 1 to less than length={length}')
  stride = max(1, context // 4) if stride is None else stride
  if stride < 1:
    raise ValueError(f'stride={stride}; allowed: 1 or more')
  windows_WT = windows.whole_windows(texts, length)
  nats_WT = windows.by_position(nll, windows_WT, batch_tokens)
  long_ppl.check_finite(nats_WT, 'the model')
  full_WT = nats_WT
  if evaluator is not None:
    (nll, takes_last), full_WT = _likelihoods(evaluator, None), None
  asked = nll, windows_WT, context, stride, batch_tokens, full_WT, takes_last
  is_key_WT = long_ppl.key_tokens(*long_ppl.deciding_nats(*asked), context, alpha, beta)

  def keys_of(all_WT):
    return [all_T[is_key_T] for all_T, is_key_T in zip(all_WT, is_key_WT, strict=True)]

  return keys_of(nats_WT), lambda arrays: keys_of(windows.whole_windows(arrays, length))


# `takes_last` of each is as for `windows.sliding`; last_k, too, asks for what it scores.
SCORERS: dict[str, Callable[..., Scored]] = {
  'last_k': last_k,
  'sliding': sliding,
  'non_overlapping': non_overlapping,
  'by_position': by_position,
  'long_ppl': long_perplexity,
}
