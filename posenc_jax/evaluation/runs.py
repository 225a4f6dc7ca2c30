"""Runs that were trained: their models, restored, and whether a corpus fits them."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data, storage, tasks
from posenc_jax.config import check_one_seed, saved_config, to_json, trained_config
from posenc_jax.config.overlays import PARTS
from posenc_jax.data.tokenizers import Bytes
from posenc_jax.distributed.mesh import mesh_of_evaluation, parameter_shardings
from posenc_jax.distributed.processes import check_one_host
from posenc_jax.encodings import ENCODINGS, hyperparameters
from posenc_jax.errors import UserError, user_errors
from posenc_jax.evaluation.model_functions import compiled, observed
from posenc_jax.model import decoder
from posenc_jax.model.fits_data import check_fits_data
from posenc_jax.model.layer_pattern import HOLDERS, MASK, PATTERN, encoding_names
from posenc_jax.model.token_nll import token_nll
from posenc_jax.rows.overrides import overrides_between
from posenc_jax.training.built_in import check_built_in
from posenc_jax.training.checkpoints import check_shapes, leaves_by_path
from posenc_jax.training.init_from import filled, moved
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.own_tokenizer import check_same_tokenizer, kept_tokenizer
from posenc_jax.training.provenance import check_code, check_documents
from posenc_jax.training.run_dir import are_one_corpus
from posenc_jax.training.taken_parameters import parameters_in, start_of

# What is read of a run's config beside the one that it is evaluated with.
READ = 'encoding.name', 'data.corpus', 'data.tokenizer', 'data.vocab'
BY_STUDY = 'with --config=STUDY.py, the file that registers it'


def check_registered(
  config: ConfigDict,
  overrides: Collection[str] = (),
  allowed: str = BY_STUDY,
  field: str = 'config.encoding',
) -> None:
  """Raises `UserError` where a run has an encoding of one's own that is not registered here.

  Args:
    overrides: fields that the command line changed; where they name another encoding, its own
      error says what is wrong with that.
    allowed: the way out that the error names.
    field: names the run in the error.
  """
  missing = [name for name in encoding_names(config.encoding) if name not in ENCODINGS]
  if missing and not any(field.rpartition('.')[2] in HOLDERS for field in overrides):
    raise UserError(f'{field}: {missing[0]!r} is not registered; allowed: {allowed}')


def check_kept_hyperparameters(saved: ConfigDict, config: ConfigDict) -> None:
  """Raises `UserError` where another encoding was laid over a run by its name, which leaves the
  rest of the section as it is, and lacks a hyperparameter that the run has there.
  """
  lost = []
  encoding = _without_lost(to_json(saved.encoding), to_json(config.encoding), lost)
  for was, name, field in lost[:1]:
    problem = f"{field} is the run's own, of {was}, and no hyperparameter of {name}"
    allowed = f'--config.encoding="{encoding}", which leaves it out'
    raise UserError(f'config.encoding.name={name!r}: {problem}; allowed: {allowed}')


def _without_lost(before: object, after: object, lost: list[tuple[str, str, str]]) -> object:
  """An encoding without the hyperparameters that it has from one of another name before it and that
  its class lacks; so, too, its layers and members.

  Args:
    before, after: sections `encoding`, or parts of them, as JSON trees.
    lost: (name before, name, hyperparameter) of each is added here.
  """
  if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
    return [_without_lost(*both, lost) for both in zip(before, after, strict=True)]
  if not (isinstance(before, dict) and isinstance(after, dict)):
    return after
  was, name = before.get('name'), after.get('name')
  if was == name:
    parts = {PARTS.get(name), 'inner'} & before.keys() & after.keys()
    return after | {part: _without_lost(before[part], after[part], lost) for part in parts}
  if name not in (PATTERN, *ENCODINGS):
    return after
  known = {'name', *MASK, *((PARTS[name],) if name == PATTERN else hyperparameters(name))}
  own = [field for field in after.keys() - known if before.get(field) == after[field]]
  lost += [(was, name, field) for field in sorted(own)]
  return {field: value for field, value in after.items() if field not in own}


def check_corpus(
  saved: ConfigDict, config: ConfigDict, corpus: data.Corpus | data.TaskCorpus, workdir: Path
) -> None:
  """Raises `UserError` where the corpus has other symbols than the run was trained on, or where it
  is the same folder of text and holds other documents now.
  """
  trained_vocab = data.vocab(saved.data)
  if trained_vocab != corpus.vocab:
    raise UserError(
      f'config.data.corpus={config.data.corpus!r}: has {corpus.vocab} symbols; allowed: what has '
      f'{trained_vocab}, as {saved.data.corpus!r}, which the run was trained on'
    )
  check_same_tokenizer(workdir, corpus.tokenizer_sha256)
  if are_one_corpus(config.data.corpus, saved.data.corpus):
    check_documents(workdir, corpus.listing)


def parameters_of(workdir: Path) -> dict | None:
  """The run and the step whose parameters a run has, as rows state them, where it has no training
  of its own (`train.steps` 0); None: it has one, what it starts from is gone or has other
  parameters now, or it is an imported model.
  """
  found = None
  while (
    saved_config(workdir, 'train.steps').train.steps == 0
    and (start := start_of(workdir)) is not None
  ):
    workdir, step = start
    found = {'run': storage.name_of(workdir), 'step': step}
  return found


def restore(
  config: ConfigDict,
  corpus: data.Corpus | data.TaskCorpus,
  workdir: Path,
  *,
  at: int | None = None,
  holds_half: bool = False,
  on_all: bool = False,
) -> tuple[decoder.LM, int]:
  """Returns the model of the last checkpoint, or of the one `at` a step, and its step. An encoding
  that evaluation has put into a chain, or taken out of another encoding, keeps its parameters where
  no other has its name. Raises `UserError`.

  Args:
    holds_half: whether, where activations of evaluation are bfloat16, matrices are held as that,
      too, which takes half the memory: those of layers, and others whose numbers all are.
    on_all: whether it is on all devices of this process, as `mesh_of_evaluation` says, or on one
      alone: the first, or jax's default device where the caller has chosen one.
  """
  check_one_seed(f'workdir={str(workdir)!r}', config, workdir)
  check_one_host()
  check_code(workdir, user_code_hashes(config))
  check_built_in(workdir, config)
  saved = saved_config(workdir, *READ)
  check_kept_hyperparameters(saved, config)
  with user_errors(ValueError):
    # as shapes: parameters that are drawn would take as much memory as those that are read
    model = decoder.shapes(config, corpus.vocab)
    check_fits_data(config, model, corpus)
  if (held := parameters_in(workdir, at=at)) is None:
    raise UserError(
      f'workdir={str(workdir)!r}: no checkpoint; '
      'allowed: the directory of a run that train.py has trained'
    )
  leaves, step = moved(held.leaves, saved.encoding, config.encoding), held.step
  del held  # it has the arrays that are given up below, one by one
  where = f'{Path(workdir).resolve() / "checkpoints"}: step {step}'
  check_shapes(where, 'model', leaves, leaves_by_path(model))
  if holds_half and config.eval.compute_dtype == 'bfloat16':
    # one after another, so that the host has not all of them twice
    leaves = {path: _half(path, leaves.pop(path)) for path in [*leaves]}
  if step < config.train.steps and at is None:
    ends = f'its training ends at step {config.train.steps}'
    print(f'{workdir}: step {step}; {ends}', file=sys.stderr)  # text goes to stdout
  if on_all:
    mesh = mesh_of_evaluation(leaves)
    shardings = parameter_shardings(mesh, model)
  else:
    one = jax.sharding.SingleDeviceSharding(_default_device())
    shardings = jax.tree.map(lambda x: one, model)
  placed = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  return filled(jax.tree.map(placed, model, shardings), leaves), step


def _default_device() -> jax.Device:
  device = jax.config.jax_default_device  # or the name of a platform, or None
  return device if isinstance(device, jax.Device) else jax.local_devices(backend=device)[0]


def _half(path: str, leaf: np.ndarray) -> np.ndarray:
  """A parameter in bfloat16, if that changes no score: a matrix of a layer, which meets nothing but
  products and is cast to the dtype of activations before each, and the embedding and `w_logits`, of
  which more is computed, if all of their numbers are bfloat16. Others are computed with in float32,
  those of encodings in ways of their own.
  """
  if leaf.dtype != np.float32 or not may_be_half(path):
    return leaf
  return leaf.astype(jnp.bfloat16) if _is_of_layer(path) or _is_bfloat16(leaf) else leaf


def may_be_half(path: str) -> bool:
  """Whether `_half` may make bfloat16 of a parameter; of a matrix of a layer it always does."""
  return _is_of_layer(path) or path in ('embedding', 'w_logits')


def _is_of_layer(path: str) -> bool:
  return path.startswith(('layers/w_', 'layers/lora/'))


def _is_bfloat16(leaf: np.ndarray) -> bool:
  """Whether all numbers of a float32 array are bfloat16."""
  numbers = leaf.reshape(-1).view(np.uint32)
  parts = range(0, numbers.size, 2**24)  # so that little memory is needed beside them
  return not any((numbers[n : n + 2**24] & 0xFFFF).any() for n in parts)


def without_bos(tokens_T: np.ndarray, bos: int) -> np.ndarray:
  """The tokens of a text without a BOS at its start, as chat templates write one; windows have one
  of their own.
  """
  return tokens_T[1:] if len(tokens_T) and tokens_T[0] == bos else tokens_T


@dataclasses.dataclass
class Run:
  """A trained run, as `load_run` gives it.

  Attributes:
    model: that of its checkpoint; `model(inputs_BT, **options)` gives logits [B, T, V]. For the
      numbers of `nats` call it under `jax.default_matmul_precision('highest')`, and with `dtype`
      and logits_dtype='float32' where `config.eval.compute_dtype` is not float32.
    step: of that checkpoint.
    config: what it was trained with, and overrides.
    tokenizer: of its text; None where it was trained on a task.
    options: what `config.attention` says, as arguments of the model.
  """

  model: decoder.LM
  step: int
  config: ConfigDict
  tokenizer: Bytes | None
  options: dict

  def inputs(self, text: bytes) -> np.ndarray:
    """Integers [1, T]: BOS, with which windows begin, and the tokens of a text, without a BOS of
    its own. Raises UserError of a run that was trained on a task.
    """
    if self.tokenizer is None:
      raise UserError(f'inputs: the run is of {self.config.data.corpus!r}; allowed: one of text')
    tokens_T = without_bos(self.tokenizer.encode(text), self.model.bos)
    return np.append(self.model.bos, tokens_T).astype(np.int32)[None]

  def examples(self, count: int, length: int) -> data.Batch:
    """The examples that evaluation has of the run's task, of at most `length` tokens, one a row:
    tokens, which of them are answers, and the positions that they carry. Raises UserError.
    """
    if self.tokenizer is not None:
      raise UserError(
        f'examples: the run is of {self.config.data.corpus!r}; allowed: one of a task'
      )
    if count < 1:
      raise UserError(f'examples: count={count}; allowed: 1 or more')
    corpus = data.opened(self.config.data, self.config.eval.split)
    return data.pad_examples(corpus.examples(count, length), count, length)

  def nats(self, tokens_BT, positions=None, last: int | None = None) -> jax.Array:
    """The loss of each token, float32 [B, T], of windows without BOS: for `score`.

    As eval.py has it: activations are of `config.eval.compute_dtype`, products at 'highest'.

    Args:
      positions: those that the tokens of a task carry: `position_ids` of `examples`.
      last: of how many tokens at the end of each window alone; None: of all.
    Raises:
      UserError: tokens are no symbols of the run, or there are no positions, where it was trained
        with some.
    """
    nll = functools.partial(self._token_nll, last=last)
    return self._of_windows(nll, tokens_BT, positions)

  def observe(self, tokens_BT, function: Callable, positions=None):
    """What a function sees in each layer, [layers, B, ...], computed as `nats` is.

    The inputs of the model are BOS and the tokens but the last. What the function returns of a
    layer is all that is kept, so that it should sum up what is large. The same function is compiled
    once for all windows of one shape.

    Args:
      function: (layer, x_BTD, enc, options) -> arrays: x is the layer's input, options those of
        `attend`, with the `state` that the encoding carries. `weights_of_heads` is one.
      positions: as for `nats`.
    """
    if function not in self._observers:
      self._observers[function] = compiled(observed(function), self.config)
    return self._of_windows(self._observers[function], tokens_BT, positions)

  @functools.cached_property
  def _token_nll(self):
    return compiled(token_nll, self.config)

  @functools.cached_property
  def _observers(self) -> dict[Callable, Callable]:
    """What was compiled for `observe`, by its functions."""
    return {}

  def _of_windows(self, function: Callable, tokens_BT, positions):
    """The numbers of a compiled function of `model_functions`. Raises UserError."""
    with user_errors(ValueError):
      decoder.check_tokens(tokens_BT, self.model.vocab)
    task = tasks.of_corpus(self.config.data.corpus)
    options = {}
    if positions is not None:
      least, most = (int(of(positions, initial=0)) for of in (np.min, np.max))  # BOS has 0
      if task is not None and task.carried_positions:  # the same for all windows of one length
        most = max(most, task.largest_position(np.shape(tokens_BT)[1]))
      options = {'positions': positions, 'max_position_distance': most - least}
    elif task is not None and task.carried_positions:
      how = 'those that its tokens carry: `position_ids` of run.examples(...)'
      raise UserError(f'positions=None: the run is of {self.config.data.corpus!r}; allowed: {how}')
    with jax.default_matmul_precision('highest'):
      return function(self.model, tokens_BT, **options)


def load_run(
  workdir: str | Path, overrides: dict[str, Any] | None = None, *, step: int | None = None
) -> Run:
  """The run that train.py or import_model.py left in `workdir`, with what evaluation changes in it:
  `{'encoding.scaling.rope_type': 'yarn', 'encoding.scaling.factor': 4}`. Raises UserError, one
  line, where there is none, its encoding is not registered, its tokenizer is no longer the one that
  it was trained with, or an override is of a field that decided the training.

  `step`: of the checkpoint that is read, if the run keeps it; None: the last one.
  """
  saved, config = saved_config(workdir), trained_config(workdir, overrides or {})
  check_registered(config, overrides or (), 'after the module that registers it is imported')
  overrides_between(saved, config)  # refuses fields that decided the training
  corpus = data.without_documents(
    config.data, config.eval.split, kept_tokenizer(workdir, config.data)
  )
  check_corpus(saved, config, corpus, Path(workdir))
  model, read = restore(config, corpus, Path(workdir), at=step)
  return Run(
    model, read, config, getattr(corpus, 'tokenizer', None), decoder.options_on_one_device(config)
  )
