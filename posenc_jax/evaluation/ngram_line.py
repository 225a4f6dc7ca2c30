"""The line of an n-gram model in a study's tables: counted from the training split, scored on the
targets, documents and protocols that the study's runs are scored on.

It tells what the nearest tokens alone are worth. A trained model that scores no better has shown
nothing about its position encoding.
"""

import functools
import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data, storage, tasks
from posenc_jax.config import config_hash, decides_results, flat, single_seed_runs, validate
from posenc_jax.config.serialization import ADDED, HASHED_ADDED, REMOVED
from posenc_jax.data.ngrams import SMOOTHINGS, NGrams
from posenc_jax.errors import UserError, disk_errors
from posenc_jax.evaluation.evaluate import KeptRows, measure, recorder, show, summary
from posenc_jax.evaluation.long_ppl_evaluator import evaluator_of
from posenc_jax.evaluation.plan import plan
from posenc_jax.model.token_nll import token_nll
from posenc_jax.rows import row_schema
from posenc_jax.rows.overrides import HARMLESS, IN_ROWS
from posenc_jax.training import provenance
from posenc_jax.training.run_dir import mark_finished

MAX_CONTEXT = 1000
WINDOW = 'attention.window'


@disk_errors()
def evaluate_ngram(
  config: ConfigDict, workdir: str | Path, context: int, smoothing: str, whole_split: bool
) -> None:
  """Appends the rows that `workdir`/eval.jsonl lacks, or, for each seed of `config.seeds`, those of
  `workdir`,seed=N; prints a table of each.

  Args:
    config: a study's config; its sections `data`, `train` and `eval` are read, `seeds`, and
      `attention.window`, since the control windowed leaves a shorter window as it is.
    context: how many tokens before a token decide what is known of it.
    smoothing: one of SMOOTHINGS.
    whole_split: whether the whole training split is counted. Otherwise the windows of the batches
      that a run of this config and seed trains on, each once at most; the first ones, whatever
      `train.first_batch` is.
  Raises:
    UserError: the config is not one of text, the directory is that of something else, or the
      documents of its folder of text are others now.
    Stopped: the disk is full or read-only.
  """
  validate(config)
  if not 0 <= context <= MAX_CONTEXT:
    raise UserError(f'--context={context}; allowed: 0 to {MAX_CONTEXT} tokens')
  if smoothing not in SMOOTHINGS:
    raise UserError(f'--smoothing={smoothing!r}; allowed: {", ".join(SMOOTHINGS)}')
  if tasks.is_task(config.data.corpus):
    raise UserError(f'config.data.corpus={config.data.corpus!r}; allowed: text, for an n-gram')
  if not (config.train.steps or whole_split):
    raise UserError('config.train.steps=0: no batches to count; allowed: --whole_split')
  for seed_config, folder in single_seed_runs(config, workdir):
    _evaluate_seed(seed_config, folder, context, smoothing, whole_split)


def _evaluate_seed(
  config: ConfigDict, workdir: Path, context: int, smoothing: str, whole_split: bool
) -> None:
  corpus = data.opened(config.data, config.eval.split)
  measurements, evaluator = plan(config, corpus), evaluator_of(config, corpus)
  train = data.opened(config.data, 'train')
  texts = _texts(config, train, whole_split)
  counted = {
    'context': context,
    'smoothing': smoothing,
    'whole_split': whole_split,
    'tokens': sum(map(len, texts)),
  }
  begins = not storage.exists(workdir / row_schema.N_GRAM_FILE)
  _claim(workdir, counted | _unseen_settings(config))
  listings = train.listing, corpus.listing
  provenance.claim(workdir, provenance.MadeOf(tokenizer=None, listings=listings), begins)
  model = NGrams(texts, context, corpus.vocab, smoothing)
  row = functools.partial(
    row_schema.row,
    run=storage.name_of(workdir),
    encoding=row_schema.N_GRAM,
    label=_label(config, context, smoothing, whole_split),
    seed=config.seed,
    step=config.train.steps,
    corpus=config.data.corpus,
    split=config.eval.split,
    train_length=config.train.length,
    tokenizer=corpus.tokenizer_sha256,
  )
  measured, left_out = [], []
  put_on_record = recorder(workdir)
  with storage.file_lock(workdir / 'eval.lock', wait=True):
    kept = KeptRows(workdir, put_on_record)
    for measurement in measurements:
      if measurement.function is not token_nll:  # only likelihoods are of an n-gram
        left_out.append(measurement.name)
        continue
      rows, _ = measure(measurement, row, evaluator, functools.partial(_nats, model), None, kept)
      measured.append((measurement, rows))
      print(f'{measurement.name} at {measurement.length}: {summary(rows)}')
  if left_out:
    print(f'{", ".join(dict.fromkeys(left_out))}: not of an n-gram')
  show(workdir.name, measured)
  mark_finished(workdir, config_hash(config))


def _nats(model: NGrams, tokens_BT: np.ndarray, window: int | None = None, **_) -> np.ndarray:
  """The nats of each token. Of what evaluation may set of attention, only a window that is
  shorter than the context changes what an n-gram sees.
  """
  return model.nats(tokens_BT, window)


def _texts(config: ConfigDict, train: data.Corpus, whole_split: bool) -> list[np.ndarray]:
  """The token sequences of the training split that are counted."""
  if whole_split:
    return list(train.tokens)
  c = config.train
  batches = train.batches(c.length, c.batch, config.seed)
  count = min(c.steps * c.batch, batches.windows_per_epoch)
  steps = range(-(-count // c.batch))
  rows = [documents for step in steps for documents in batches[step].documents()]
  return [document for documents in rows[:count] for document in documents]


def _label(config: ConfigDict, context: int, smoothing: str, whole_split: bool) -> str:
  """The name of the line: 'n-gram (5 bytes)'."""
  unit = 'byte' if config.data.tokenizer == 'bytes' else 'token'
  words = [f'{context} {unit}{"" if context == 1 else "s"}']
  if smoothing == 'kneser_ney':
    words.append('Kneser-Ney')
  if whole_split:
    words.append('whole split')
  return f'n-gram ({", ".join(words)})'


def _unseen_settings(config: ConfigDict) -> dict[str, object]:
  """{field: value} of what decides the rows of an evaluation and does not stand in them."""
  unseen = {
    field: value
    for field, value in flat(config).items()
    if field.startswith(('data.', 'eval.', WINDOW)) and decides_results(field)
    if field not in IN_ROWS + HARMLESS
  }
  return json.loads(json.dumps(unseen))  # as it will be read again


def _claim(workdir: Path, counted: dict[str, object]) -> None:
  """Makes the directory that of this n-gram. Raises `UserError` where it is another's."""
  path, field = workdir / row_schema.N_GRAM_FILE, f'workdir={str(workdir)!r}'
  if storage.exists(workdir / 'config.json'):
    raise UserError(f'{field}: holds a trained run; allowed: another workdir')
  if storage.exists(path):
    # That of another version has other fields. One of before WINDOW was among them is of any
    # window, and may have rows of several.
    lacking = ADDED | HASHED_ADDED | REMOVED | {WINDOW: counted[WINDOW]}
    there, here = lacking | storage.read_json(path), REMOVED | counted
    if differing := [name for name in here if there.get(name) != here[name]]:
      what = ', '.join(f'{name} (there {there.get(name)}, here {here[name]})' for name in differing)
      raise UserError(f'{field}: holds another n-gram: {what}; allowed: another workdir')
    return
  workdir.mkdir(parents=True, exist_ok=True)
  storage.write_json(path, counted)
