"""The run that finds the key tokens of LongPPL for all that are compared, where
`eval.long_ppl_evaluator` names one.
"""

import functools
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data, storage
from posenc_jax.config import check_one_seed, config_hash, saved_config
from posenc_jax.errors import Damaged, UserError, user_errors
from posenc_jax.evaluation import windows
from posenc_jax.evaluation.runs import check_corpus, restored_run
from posenc_jax.model import decoder
from posenc_jax.rows.overrides import JUDGE
from posenc_jax.training.own_encodings import own_code
from posenc_jax.training.own_tokenizer import check_same_tokenizer
from posenc_jax.training.provenance import check_code
from posenc_jax.training.run_dir import checkpoint_steps
from posenc_jax.training.taken_parameters import parameters_in

KEPT = 'key_tokens'  # the folder, in that of the evaluator, of what it has found


def check_evaluator(config: ConfigDict, corpus: data.Corpus) -> None:
  """Raises `UserError` where `eval.long_ppl_evaluator` is no run, one whose encoding was edited, or
  one that cannot read the text: it has other symbols or another tokenizer, or its positions end
  before the longest window does.
  """
  workdir = config.eval.long_ppl_evaluator
  if not workdir or 'long_ppl' not in config.eval.protocols:
    return
  name, longest = 'config.eval.long_ppl_evaluator', max(config.eval.lengths)
  field = f'{name}={workdir!r}'
  if storage.exists(Path(workdir) / 'config.json'):
    check_one_seed(field, saved_config(workdir), workdir)
  if not checkpoint_steps(workdir):
    raise UserError(f'{field}: no checkpoints there; allowed: the directory of a trained run')
  evaluator = saved_config(workdir)
  vocab, own_vocab = data.vocab(evaluator.data), data.vocab(config.data)
  if vocab != own_vocab:
    raise UserError(f'{field}: has {vocab} symbols; allowed: a run with {own_vocab}, as this one')
  check_same_tokenizer(
    workdir, corpus.tokenizer_sha256, name, 'a run with the tokenizer of this one'
  )
  check_code(workdir, own_code(evaluator), name)
  with user_errors(ValueError):
    end = decoder.shapes(evaluator, vocab).max_length
  if end is not None and end < longest:
    raise UserError(f'{field}: its positions end at {end}; allowed: a run that reads {longest}')


def judge_of(config: ConfigDict, corpus: data.Corpus | data.TaskCorpus) -> dict[str, object]:
  """{field: what rows say of the run that `eval.long_ppl_evaluator` names}, where it is asked.

  They say which one it is now, since its path stays when it is trained on. Raises `UserError`.
  """
  workdir = config.eval.long_ppl_evaluator
  if not workdir or 'long_ppl' not in config.eval.protocols:
    return {}
  check_evaluator(config, corpus)
  digest, step = config_hash(saved_config(workdir))[:8], max(checkpoint_steps(workdir))
  run = Path(workdir).resolve().name
  return {JUDGE: {'run': run, 'step': step, 'config': digest}}


class Evaluator:
  """The run that finds key tokens, as one that is evaluated asks it.

  It reads each text once, however many models are compared: the nats by which it decides stay in
  its folder, unless this process may not write there.
  """

  def __init__(self, config: ConfigDict, corpus: data.Corpus):
    """Restores nothing yet. `config` and `corpus` are those of the run that is evaluated."""
    self._config, self._corpus = config, corpus
    self._workdir = Path(config.eval.long_ppl_evaluator)

  def deciding_nats(self, windows_WT: np.ndarray, context: int) -> np.ndarray:
    """The run's nats of whole windows and of short contexts, for `windows.key_tokens`: float32
    [2, W, T].

    Raises:
      UserError: it cannot judge, or what it has kept is damaged.
      NotFinite: its nats are no numbers.
    """
    stride, size = self._config.eval.stride, self._config.eval.batch_tokens
    path = self._workdir / KEPT / f'{self._digest(windows_WT, context, stride)}.npy'
    keeps = storage.is_writable(self._workdir)
    if keeps:
      path.parent.mkdir(exist_ok=True)
    with storage.file_lock(path.parent / 'lock', wait=True):
      if storage.exists(path):
        return _read(path, (2, *windows_WT.shape))
      found = windows.deciding_nats(self._nll, windows_WT, context, stride, size)
      nats_2WT = np.stack(found).astype(np.float32)  # as the model has them
      if keeps:
        file = io.BytesIO()
        np.save(file, nats_2WT)
        storage.atomic_write(path, file.getvalue())
      return nats_2WT

  def _digest(self, windows_WT: np.ndarray, context: int, stride: int) -> str:
    """Another one for other windows or contexts, and once the run has other parameters."""
    config, held = saved_config(self._workdir), parameters_in(self._workdir, as_shapes=True)
    text = hashlib.sha256(windows_WT.astype('<i8').tobytes()).hexdigest()
    asked = [config_hash(config), held.step, held.checksum, text, windows_WT.shape, context, stride]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

  @functools.cached_property
  def _nll(self) -> windows.TokenFunction:
    """The likelihoods of the run, which is restored once for all lengths."""
    check_evaluator(self._config, self._corpus)
    saved = saved_config(self._workdir)
    check_corpus(saved, self._config, self._corpus, self._workdir)
    return restored_run(self._workdir, saved, self._corpus, holds_half=True).nats


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
  """An array of numbers of this shape. Raises Damaged."""
  try:
    with open(path, 'rb') as file:
      array = np.load(file, allow_pickle=False)
  except (ValueError, EOFError):
    array = np.zeros(())
  if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
    raise Damaged(f'{path} is damaged; allowed: the folder without it')
  return array
