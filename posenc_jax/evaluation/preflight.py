"""Checks of a run before it starts: whether its encoding and model can be built, its corpus has
documents long enough to train on, and its evaluation can be made of what the corpus has.

Nothing is computed but a tokenizer that is to be learned and its tokens: models are built as
shapes. A sweep checks all its runs in one process of its own (`python -m
posenc_jax.evaluation.preflight STUDY`, with configs and directories as JSON in stdin), so that it
needs no jax itself; a training alone asks its backend, since that depends on devices.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Collection
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from posenc_jax import data, storage, tasks
from posenc_jax.config import from_json, load_study, to_json
from posenc_jax.errors import MAX_REASON, UserError, one_line, place_of, user_errors, with_place
from posenc_jax.evaluation import task_scoring
from posenc_jax.evaluation.controls import Inputs
from posenc_jax.evaluation.long_ppl_evaluator import check_evaluator
from posenc_jax.evaluation.model_functions import compiled
from posenc_jax.evaluation.plan import plan
from posenc_jax.model import decoder
from posenc_jax.model.fits_data import check_fits_data
from posenc_jax.model.token_nll import token_nll
from posenc_jax.protocols import short_context
from posenc_jax.training import optimizer, own_tokenizer, provenance
from posenc_jax.training.built_in import check_built_in
from posenc_jax.training.init_from import check_lora
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.run_dir import checkpoint_steps


def check_model(config: ConfigDict) -> None:
  """Raises `UserError` where the model of a run cannot be built, or its positions end too early."""
  with user_errors(ValueError):
    vocab = data.vocab(config.data)
    model = decoder.shapes(config, vocab)
    task = tasks.of_corpus(config.data.corpus)
    check_fits_data(config, model, task)
  if config.train.trained_parameters:
    optimizer.check_trained_parameters(config, model)
  if task and task.carried_positions:
    return
  for variant in model.encodings.variants:
    end = variant.encoding.max_length
    if end is not None and end < config.train.length:
      raise UserError(
        f'config.train.length={config.train.length}: positions of {config.encoding.name} end at '
        f'{end}; allowed: at most that'
      )


def check_training_data(config: ConfigDict) -> None:
  """Raises `UserError` where the corpus has no examples or documents of the training length. A run
  of no steps needs none.
  """
  if not config.train.steps:
    return
  for split in ('train', 'validation'):
    _corpus(config, split).batches(config.train.length, config.train.batch, seed=0)


def check_evaluation(config: ConfigDict) -> None:
  """Raises `UserError` where the corpus cannot give what `config.eval` asks for."""
  corpus = _corpus(config, config.eval.split)
  if isinstance(corpus, data.TaskCorpus):
    for length in config.eval.lengths:
      corpus.examples(1, length)
  else:
    plan(config, corpus)
    check_evaluator(config, corpus)


def check_backend(config: ConfigDict) -> None:
  """Raises `UserError` where the backend that is named refuses what the evaluation will ask of it,
  on the devices that are here.

  Nothing is compiled. Examples that carry positions of their own are left out.
  """
  name = decoder.options_on_one_device(config)['backend']
  if name == 'auto':
    return
  corpus = _corpus(config, config.eval.split)
  plan_corpus = task_scoring.plan if isinstance(corpus, data.TaskCorpus) else plan
  asked = {}
  for measurement in plan_corpus(config, corpus):
    lengths = [measurement.input_length or measurement.length]
    if measurement.key_fields[0]['protocol'] == 'long_ppl':
      lengths.append(short_context(config) + config.eval.stride)
    for length in lengths if measurement.largest_position is None else ():
      inputs = Inputs(length, measurement.window, measurement.sink_tokens)
      asked.setdefault(inputs, measurement.name)
  with user_errors(ValueError):
    model = decoder.shapes(config, corpus.vocab)
  function = compiled(token_nll, config)
  for inputs, measured in asked.items():
    if model.max_length is not None and inputs.length > model.max_length:
      continue  # rows say that it is beyond the table
    rows = max(1, config.eval.batch_tokens // inputs.length)
    tokens_BT = jax.ShapeDtypeStruct((rows, inputs.length), jnp.int32)
    options = {'window': inputs.window, 'sink_tokens': inputs.sink_tokens}
    try:
      with jax.default_matmul_precision('highest'):
        function.eval_shape(model, tokens_BT, **options)
    except NotImplementedError as error:
      problem = f'{measured} of {inputs.length} tokens: {one_line(error)}'
      allowed = (
        'other eval.lengths and eval.controls, or, in another workdir once it has begun, '
        "attention.backend='auto'"
      )
      raise UserError(f'config.attention.backend={name!r}: {problem}; allowed: {allowed}') from None


def with_own_tokenizer(config: ConfigDict, workdir: str | Path) -> ConfigDict:
  """The config of a run in `workdir` as these checks want it. Once the run keeps its tokenizer,
  neither the text that it was learned from nor the run that it starts from has to be there: then
  `train.init_from` names `workdir` itself, so that the tokenizer is read there.
  """
  begun = from_json(to_json(config))
  if storage.exists(Path(workdir) / own_tokenizer.TOKENIZER_HASH):
    begun.train.init_from = str(workdir)
  return begun


def _corpus(config: ConfigDict, split: str) -> data.Corpus | data.TaskCorpus:
  """The split. What is learned or cut into tokens for it, the training finds in the cache. A run
  that starts from another has that one's tokenizer.
  """
  return _opened(json.dumps(to_json(config.data)), split, config.train.init_from)


@functools.lru_cache(maxsize=3)
def _opened(section: str, split: str, init_from: str) -> data.Corpus | data.TaskCorpus:
  section = ConfigDict(json.loads(section))
  return data.opened(section, split, own_tokenizer.kept_tokenizer(init_from, section))


CHECKS = {
  check_model: (
    *('encoding', 'model', 'attention', 'data', 'train.length'),
    'train.trained_parameters',
  ),
  check_lora: ('model', 'train.trained_parameters', 'train.init_from', 'train.steps'),
  check_training_data: (*('data', 'train.length', 'train.batch', 'train.init_from'), 'train.steps'),
  check_evaluation: ('data', 'eval', 'train.length', 'train.init_from'),
}


def check_all(
  runs: list[tuple[dict, list[str]]], finished: Collection[int] = ()
) -> tuple[int, str] | None:
  """The number of the first run that a check refuses, and why; or None.

  Args:
    runs: of each its config as a JSON tree, of several seeds that of the first one, and the
      directories of its seeds.
    finished: the numbers of those of which it is checked only that encodings of the user's own are
      as they were and, where others are not finished, what they take from posenc_jax.
  """
  seen = set()
  for number, (tree, workdirs) in enumerate(runs):
    config = from_json(tree)
    try:
      for workdir in workdirs:
        is_kept = not storage.exists(Path(workdir) / 'config.json')  # a folder of --kept
        instead = 'another folder' if is_kept else 'that run removed and the same sweep again'
        field = '--kept' if is_kept else 'workdir'
        provenance.check_code(workdir, user_code_hashes(config), field, instead)
        # what has no checkpoint begins anew, as of now
        has_begun = is_kept or number in finished or checkpoint_steps(workdir)
        if has_begun and len(finished) < len(runs):
          check_built_in(workdir, config, field, instead)
    except UserError as error:
      return number, str(error)
    config = with_own_tokenizer(config, workdirs[0]) if workdirs else config
    for check, fields in CHECKS.items() if number not in finished else ():
      key = check.__name__, *(json.dumps(to_json({'': _field(config, name)})) for name in fields)
      if key in seen:
        continue
      seen.add(key)
      try:
        check(config)
      except UserError as error:
        return number, str(error)
      except Exception as error:
        if not place_of(error):  # no error in the user's own code
          raise
        reason = f'{type(error).__name__}: {one_line(error, MAX_REASON)}'
        return number, with_place(error, reason)
  return None


def _field(config: ConfigDict, path: str) -> object:
  return functools.reduce(lambda section, name: section[name], path.split('.'), config)


def main(study: str) -> None:
  """Prints the result of `check_all` as JSON; what the study prints goes to stderr."""
  with contextlib.redirect_stdout(sys.stderr):
    load_study(study)  # its encodings are known then
    refused = check_all(**json.load(sys.stdin))
  print(json.dumps(refused))


if __name__ == '__main__':
  main(sys.argv[1])
