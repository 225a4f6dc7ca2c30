"""The run that finds the key tokens of LongPPL for all that are compared, where
`eval.long_ppl_evaluator` names one.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data, storage
from posenc_jax.config import check_one_seed, check_version, config_hash, saved_config
from posenc_jax.distributed.devices import MANY_SYMBOLS
from posenc_jax.errors import Damaged, UserError, user_errors
from posenc_jax.evaluation import long_ppl
from posenc_jax.evaluation.model_functions import compiled, on_devices
from posenc_jax.evaluation.runs import check_corpus, check_registered, restore
from posenc_jax.evaluation.windows import TokenFunction
from posenc_jax.model import decoder
from posenc_jax.model.token_nll import token_nll
from posenc_jax.protocols import short_context
from posenc_jax.rows.overrides import EVALUATOR
from posenc_jax.training.built_in import check_built_in
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.own_tokenizer import check_same_tokenizer
from posenc_jax.training.provenance import check_code
from posenc_jax.training.run_dir import checkpoint_steps
from posenc_jax.training.taken_parameters import parameters_in

KEPT = 'key_tokens'  # the folder, in that of the evaluator, of what it has found


def check_evaluator(config: ConfigDict, corpus: data.Corpus) -> None:
  """Raises `UserError` where `eval.long_ppl_evaluator` is no run, one whose encoding was edited or
  is not registered, or one that cannot read the text: it has other symbols or another tokenizer, or
  its positions end before the longest window does.
  """
  workdir = config.eval.long_ppl_evaluator
  if not workdir or 'long_ppl' not in config.eval.protocols:
    return
  name, longest = 'config.eval.long_ppl_evaluator', max(config.eval.lengths)
  field = f'{name}={workdir!r}'
  if storage.exists(Path(workdir) / 'config.json'):
    saved = saved_config(workdir)
    check_version(workdir, saved)
    check_one_seed(field, saved, workdir)
  if not checkpoint_steps(workdir):
    raise UserError(f'{field}: no checkpoints there; allowed: the directory of a trained run')
  evaluator = saved_config(workdir)
  check_registered(evaluator, field=field)
  vocab, own_vocab = data.vocab(evaluator.data), data.vocab(config.data)
  if vocab != own_vocab:
    raise UserError(f'{field}: has {vocab} symbols; allowed: a run with {own_vocab}, as this one')
  check_same_tokenizer(
    workdir, corpus.tokenizer_sha256, name, 'a run with the tokenizer of this one'
  )
  instead = 'another long_ppl_evaluator'
  check_code(workdir, user_code_hashes(evaluator), name, instead)
  check_built_in(workdir, evaluator, name, instead)
  with user_errors(ValueError):
    end = decoder.shapes(evaluator, vocab).max_length
  if end is not None and end < longest:
    raise UserError(f'{field}: its positions end at {end}; allowed: a run that reads {longest}')


def evaluator_of(config: ConfigDict, corpus: data.Corpus | data.TaskCorpus) -> dict[str, object]:
  """{field: what rows say of the run that `eval.long_ppl_evaluator` names}, where it is asked.

  They say which one it is now, since its path stays when it is trained on; and the short context
  where that is the training length of the run that is evaluated: with another one there are other
  key tokens. A context that `eval.long_ppl_context` says is in `overrides_between` where it is not
  that of the run's own config; so rows of runs whose own configs say different ones look alike.
  Raises `UserError`.
  """
  workdir = config.eval.long_ppl_evaluator
  if not workdir or 'long_ppl' not in config.eval.protocols:
    return {}
  check_evaluator(config, corpus)
  digest, step = config_hash(saved_config(workdir))[:8], max(checkpoint_steps(workdir))
  run = Path(workdir).resolve().name  # one run, whichever link leads to it
  said = {'run': run, 'step': step, 'config': digest}
  if not config.eval.long_ppl_context:
    said['context'] = short_context(config)
  return {EVALUATOR: said}


class Evaluator:
  """The run that finds key tokens, as one that is evaluated asks it.

  It reads each text once, however many models are compared: the nats by which it decides stay in
  its folder, unless this process may not write there.
  """

  def __init__(self, config: ConfigDict, corpus: data.Corpus):
    """Restores nothing yet. `config` and `corpus` are those of the run that is evaluated."""
    self._config, self._corpus = config, corpus
    self._workdir = Path(config.eval.long_ppl_evaluator)

  def deciding_nats(self, documents: Sequence[np.ndarray], context: int) -> np.ndarray:
    """The run's nats of whole windows and of short contexts, for `long_ppl.key_tokens`: float32
    [2, W, T], of the W windows of all documents, one after another.

    Raises UserError where it cannot read the text, its nats are no numbers, or what it has kept is
    damaged.

    Args:
      documents: the windows [., T] of each.
    """
    folder = self._workdir / KEPT
    if storage.is_writable(self._workdir):
      folder.mkdir(exist_ok=True)
    paths = [folder / f'{name}.npy' for name in self._names(documents, context)]
    windows_of = dict(zip(paths, documents, strict=True))
    found = _kept(windows_of)
    if found.keys() < windows_of.keys():
      lock = folder / 'lock'
      keeps = storage.is_writable(folder) and (not storage.exists(lock) or os.access(lock, os.W_OK))
      with storage.file_lock(lock, wait=True) if keeps else contextlib.nullcontext():
        found |= _kept(windows_of)  # another process may have read them by now
        new = {path: some for path, some in windows_of.items() if path not in found}
        for path, nats_2WT in self._new_nats(new, context).items():
          found[path] = nats_2WT
          if keeps:
            file = io.BytesIO()
            np.save(file, nats_2WT)
            storage.atomic_write(path, file.getvalue())
    return np.concatenate([found[path] for path in paths], axis=1)

  def _new_nats(self, windows_of: dict[Path, np.ndarray], context: int) -> dict[Path, np.ndarray]:
    """{path: float32 [2, W, T]} of the windows of each path, which the run reads."""
    if not windows_of:
      return {}
    windows_WT = np.concatenate([*windows_of.values()])
    e, ends = self._config.eval, np.cumsum([len(some) for some in windows_of.values()])[:-1]
    try:
      asked = self._nll, windows_WT, context, e.stride, e.batch_tokens
      takes_last = self._corpus.vocab >= MANY_SYMBOLS
      found = long_ppl.deciding_nats(*asked, takes_last=takes_last)
    except long_ppl.NotFinite as error:
      field = f'config.eval.long_ppl_evaluator={str(self._workdir)!r}'
      raise UserError(f'{field}: {error}; allowed: another run, or shorter windows') from None
    nats_2WT = np.stack(found).astype(np.float32)  # as the model has them
    return dict(zip(windows_of, np.split(nats_2WT, ends, axis=1), strict=True))

  def _names(self, documents: Sequence[np.ndarray], context: int) -> list[str]:
    """A name for the windows of each document, another one for other windows or contexts, and once
    the run has other parameters.
    """
    config, held = saved_config(self._workdir), parameters_in(self._workdir, as_shapes=True)
    run = [config_hash(config), held.step, held.checksum]

    def name(windows_WT):
      text = hashlib.sha256(windows_WT.astype('<i8').tobytes()).hexdigest()
      asked = [*run, text, windows_WT.shape, context, self._config.eval.stride]
      return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    return list(map(name, documents))

  @functools.cached_property
  def _nll(self) -> TokenFunction:
    """The likelihoods of the run, which is restored once for all lengths, on the devices that
    `mesh_of_evaluation` gives it, in the `eval.compute_dtype` of its own config: so it finds the
    same key tokens for all, whatever each is evaluated in.
    """
    check_evaluator(self._config, self._corpus)
    saved = saved_config(self._workdir)
    dtype, own = self._config.eval.compute_dtype, saved.eval.compute_dtype
    if own != dtype:
      about = f'finds key tokens in {own}, the eval.compute_dtype of its own config'
      print(f'{self._workdir}: {about}; the evaluation is in {dtype}')
    check_corpus(saved, self._config, self._corpus, self._workdir)
    model, _ = restore(saved, self._corpus, self._workdir, holds_half=True, on_all=True)
    return on_devices(compiled(token_nll, saved), model)


def _kept(windows_of: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
  """What is kept at these paths, of windows of these shapes. Raises Damaged."""
  there = {path: some.shape for path, some in windows_of.items() if storage.exists(path)}
  return {path: _read(path, (2, *shape)) for path, shape in there.items()}


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
