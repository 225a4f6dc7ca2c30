"""Evaluation of a trained run: measures what its config asks for and appends rows to eval.jsonl."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from posenc_jax import data, jsonl_store
from posenc_jax.config import config_hash, saved_config, single_seed_runs, validate
from posenc_jax.errors import UserError, disk_errors, user_errors
from posenc_jax.evaluation import row_schema, task_scoring
from posenc_jax.evaluation.plan import Measurement, choose_documents, overrides, plan
from posenc_jax.model.decoder import attention_options, build
from posenc_jax.model.token_nll import nats_of, token_logits, token_nll
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.run_dir import check_tokenizer, is_finished, mark_finished

__all__ = ['evaluate', 'measure']


@disk_errors()
def evaluate(config: ConfigDict, workdir: str | Path) -> None:
  """Measures what `config.eval` asks of the last checkpoint in `workdir`, and prints a table; of
  each of its seeds.

  What eval.jsonl holds already is not measured again. Once it holds all and the training is
  finished, finished.json gets the hash of `config`. All is float32, with matrix products at
  'highest'.

  Args:
    config: the run's saved config, perhaps with other values in `eval`, or in `encoding` (context
      extension): rows say what differs, in `overrides`.
  Raises:
    UserError: no trained run there, a config that its checkpoint cannot take, documents too short,
      a backend's refusal.
    Stopped: the disk is full or read-only; the same command goes on.
  """
  validate(config)
  if config.seeds:
    each = single_seed_runs(config, workdir)
    for one, folder in each:
      evaluate(one, folder)
    if all(is_finished(folder, config_hash(one)) for one, folder in each):
      mark_finished(workdir, config_hash(config))
    return
  workdir = Path(workdir)
  saved = saved_config(workdir)
  changed, corpus = overrides(saved, config), data.source(config.data, config.eval.split)
  if (there := data.vocab(saved.data)) != corpus.vocab:
    allowed = f'what has {there}, as {saved.data.corpus!r}, which the run was trained on'
    raise UserError(
      f'config.data.corpus={config.data.corpus!r}: has {corpus.vocab} symbols; allowed: {allowed}'
    )
  check_tokenizer(workdir, corpus.sha256)
  if isinstance(corpus, data.TaskCorpus):
    # what cannot be drawn is said before anything is measured
    measurements = list(task_scoring.plan(config, corpus))
  else:
    measurements = plan(config, choose_documents(config, corpus), corpus.tokenizer.lengths)
  with user_errors(ValueError):
    model = build(config, corpus.vocab, nnx.Rngs(config.seed))
  with Checkpoints(workdir) as checkpoints:
    restored, step = checkpoints.restore(model=model)
    if checkpoints.latest is None:
      raise UserError(
        f'workdir={str(workdir)!r}: no checkpoint; allowed: the directory of a run that train.py has trained'
      )
  if step < config.train.steps:
    print(f'{workdir}: evaluating step {step}; its training ends at step {config.train.steps}')

  row = functools.partial(
    row_schema.row,
    run=workdir.resolve().name,
    encoding=config.encoding.name,
    label=config.label or config.encoding.name,
    seed=config.seed,
    step=step,
    corpus=config.data.corpus,
    split=config.eval.split,
    train_length=config.train.length,
    overrides=changed or None,
  )
  shown = []
  lock, errors = (
    jsonl_store.file_lock(workdir / 'eval.lock'),
    user_errors(NotImplementedError, BlockingIOError),
  )
  with errors, lock, jax.default_matmul_precision('highest'):
    functions = make_functions(config)
    for measurement in measurements:
      started = time.perf_counter()
      function = functools.partial(functions[measurement.function], restored['model'])
      rows, new = measure(measurement, row, function, model.max_length, workdir)
      shown.append((measurement, rows))
      if new:
        seconds = time.perf_counter() - started
        print(f'{measurement.name} at {measurement.length}: {outcome(rows)} ({seconds:.1f} s)')
  show(workdir.name, shown)
  if step == config.train.steps:
    mark_finished(workdir, config_hash(config))


def make_functions(config: ConfigDict) -> dict[str, Callable]:
  """The jitted functions of an evaluation, each of (model, tokens_BT, window=None), in float32.

  'nll' -> nats_BT; 'norms' -> norms_BT of the gradient of each row's last nats by the embedding of
  each input, BOS and the first T - 1 tokens; 'answers' -> whether each token is the likeliest,
  bool, and nats_BT. `window` None: the config's.
  """
  options = attention_options(config)

  def within(window):
    seen = [tokens for tokens in (window, options['window']) if tokens]
    return {**options, 'dtype': 'float32', 'window': min(seen, default=None)}

  def nll(model, tokens_BT, window=None, **added):
    return token_nll(model, tokens_BT, **within(window), **added)

  def answers(model, tokens_BT, window=None):
    logits_BTV = token_logits(model, tokens_BT, **within(window))
    return logits_BTV.argmax(-1) == tokens_BT, nats_of(logits_BTV, tokens_BT)

  def norms(model, tokens_BT, window=None):
    zeros_BTD = jnp.zeros((*tokens_BT.shape, model.embedding.shape[1]))
    last = lambda added_BTD: nll(model, tokens_BT, window, added_BTD=added_BTD)[:, -1].sum()
    return jnp.linalg.norm(jax.grad(last)(zeros_BTD), axis=-1)

  functions = {'nll': nll, 'norms': norms, 'answers': answers}
  return {name: jax.jit(f, static_argnames='window') for name, f in functions.items()}


def measure(
  measurement: Measurement,
  row: Callable[..., dict],
  function: Callable,
  max_length: int | None,
  workdir: Path,
) -> tuple[list[dict], int]:
  """Makes the rows that eval.jsonl lacks; returns all rows of the measurement and how many are new.

  Args:
    row: `row_schema.row` with the fields of the run.
    function: what the measurement asks for, (tokens_BT, window=) -> a number a token.
    max_length: tokens that the model has positions for; beyond it rows have the status
      'beyond_table' and no score, under the windowed control too, whose positions go as far.
  """
  path, row = workdir / 'eval.jsonl', functools.partial(row, metric=measurement.metric)
  with user_errors(ValueError):
    present = {row_schema.key(r): r for r in jsonl_store.read(path)}
  keys = [row_schema.key(row(status='asked', **question)) for question in measurement.questions]
  missing = [i for i, key in enumerate(keys) if key not in present]
  if not missing:
    new = []
  elif max_length is not None and measurement.length > max_length:
    new = [row(status='beyond_table', **measurement.questions[i]) for i in missing]
  else:
    scores = measurement.score(functools.partial(function, window=measurement.window), missing)
    new = [
      row(**score, **measurement.questions[i]) for i, score in zip(missing, scores, strict=True)
    ]
  row_schema.append_missing(path, new)
  present |= {row_schema.key(r): r for r in new}
  return [present[key] for key in keys], len(new)


def outcome(rows: list[dict]) -> str:
  """'... bits/byte' of all rows together, how far the gradient reaches, or the status of a row that
  has no score.
  """
  for r in rows:
    if r['status'] != 'ok':
      return r['status']
  if 'exact_match' in {r['metric'] for r in rows}:
    return task_scoring.outcome(rows)
  if rows[0]['metric'] == 'gradient':
    covered = np.cumsum([r['value'] for r in rows])
    ends = [r['position'] for r in rows[1:]] + [rows[0]['length'] - 1]
    return f'99 % of the gradient reaches {ends[int(np.argmax(covered > 0.99))]} tokens back'
  return f'{sum(r["bpb"] * r["bytes"] for r in rows) / sum(r["bytes"] for r in rows):.3f} bits/byte'


def show(title: str, measured: list[tuple[Measurement, list[dict]]]) -> None:
  """Prints bits per byte by protocol and length; a dash where there is no score."""
  measured = [(measurement, rows) for measurement, rows in measured if measurement.metric is None]
  if not measured:
    return
  lengths = sorted({measurement.length for measurement, _ in measured})
  cells = {
    (measurement.name, measurement.length): outcome(rows).split() for measurement, rows in measured
  }
  table = Table('bits/byte', *map(str, lengths), title=title)
  for name in dict.fromkeys(measurement.name for measurement, _ in measured):
    table.add_row(
      name,
      *(cells[name, length][0] if len(cells[name, length]) == 2 else '—' for length in lengths),
    )
  Console().print(table)
