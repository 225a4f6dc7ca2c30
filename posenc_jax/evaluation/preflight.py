"""Checks of a run before it starts: whether its encoding and model can be built, its corpus has
documents long enough to train on, and its evaluation can be made of what the corpus has.

Nothing is computed but a tokenizer that is to be learned: models are built as shapes. A sweep
checks all its runs in one process of its own (`python -m posenc_jax.evaluation.preflight STUDY`,
with configs as JSON in stdin), so that it needs no jax itself.
"""

import contextlib
import functools
import json
import sys

import jax
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import data, tasks
from posenc_jax.config import from_json, load_study, to_json
from posenc_jax.errors import UserError, user_errors
from posenc_jax.evaluation.plan import plan
from posenc_jax.evaluation.runs import check_evaluator
from posenc_jax.model.carried_positions import check_carried_positions
from posenc_jax.model.decoder import build
from posenc_jax.training import optimizer


def check_model(config: ConfigDict) -> None:
  """Raises `UserError` where the model of a run cannot be built, or its positions end too early."""
  with user_errors(ValueError):
    vocab = data.vocab(config.data)
    model = jax.eval_shape(lambda: build(config, vocab, nnx.Rngs(0)))
    task = data.task(config.data)
    check_carried_positions(config, model, task)
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
  """Raises `UserError` where the corpus has no examples or documents of the training length."""
  for split in ('train', 'validation'):
    corpus = _corpus(config.data, split)
    if corpus is not None:
      corpus.batches(config.train.length, config.train.batch, seed=0)


def check_evaluation(config: ConfigDict) -> None:
  """Raises `UserError` where the corpus cannot give what `config.eval` asks for."""
  corpus = _corpus(config.data, config.eval.split)
  if corpus is not None and config.data.tokenizer != 'bytes':
    # It says how many tokens documents have. It is learned now, and the training finds it.
    corpus = data.source(config.data, config.eval.split)
  if isinstance(corpus, data.TaskCorpus):
    for length in config.eval.lengths:
      corpus.examples(1, length)
  elif corpus is not None:
    plan(config, corpus)
    check_evaluator(config)


def _corpus(section: ConfigDict, split: str) -> data.Corpus | data.TaskCorpus | None:
  """The split, with bytes as tokens; None for a set that is not on disk.

  But for a space that some tokenizers put before a text, no token stands for less than a byte: a
  document that has too few bytes has too few tokens.
  """
  if section.corpus.startswith(tasks.PREFIX):
    return data.source(section, split)
  data.check_tokenizer(section)
  if not data.is_present(section.corpus, section.cache):
    return None
  return _text(section.corpus, split, section.text_field, section.cache, section.packed)


@functools.lru_cache(maxsize=3)
def _text(name: str, split: str, text_field: str, cache: str, is_packed: bool) -> data.Corpus:
  return data.corpus(name, split, text_field, cache, is_packed)


CHECKS = {
  check_model: (
    *('encoding', 'model', 'attention', 'data', 'train.length'),
    'train.trained_parameters',
  ),
  check_training_data: ('data', 'train.length', 'train.batch'),
  check_evaluation: ('data', 'eval', 'train.length'),
}


def check_all(trees: list[dict]) -> tuple[int, str] | None:
  """The number of the first run, of configs as JSON trees, that cannot be, and why; or None."""
  seen = set()
  for number, tree in enumerate(trees):
    config = from_json(tree)
    for check, fields in CHECKS.items():
      key = check.__name__, *(json.dumps(to_json({'': _field(config, name)})) for name in fields)
      if key in seen:
        continue
      seen.add(key)
      try:
        check(config)
      except UserError as error:
        return number, str(error)
  return None


def _field(config: ConfigDict, path: str) -> object:
  return functools.reduce(lambda section, name: section[name], path.split('.'), config)


def main(study: str) -> None:
  """Prints the result of `check_all` as JSON; what the study prints goes to stderr."""
  with contextlib.redirect_stdout(sys.stderr):
    load_study(study)  # its encodings are known then
    refused = check_all(json.load(sys.stdin))
  print(json.dumps(refused))


if __name__ == '__main__':
  main(sys.argv[1])
