"""Evaluation of a trained run: measures what its config asks for and appends rows to eval.jsonl."""

import collections
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from posenc_jax import cli, data, storage
from posenc_jax.config import config_hash, saved_config, single_seed_runs, validate
from posenc_jax.distributed.devices import kinds_of_devices
from posenc_jax.distributed.memory import memory_errors
from posenc_jax.distributed.processes import check_one_host
from posenc_jax.errors import disk_errors, user_errors
from posenc_jax.evaluation import task_scoring
from posenc_jax.evaluation.long_ppl_evaluator import evaluator_of
from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.evaluation.model_functions import compiled, on_devices
from posenc_jax.evaluation.plan import plan
from posenc_jax.evaluation.runs import (
  READ,
  check_corpus,
  check_kept_hyperparameters,
  parameters_of,
  restore,
)
from posenc_jax.protocols import PLANTED
from posenc_jax.rows import clusters, row_schema, sessions
from posenc_jax.rows.overrides import DOCUMENTS, overrides_between, overrides_of
from posenc_jax.training.own_encodings import code_laid_over, user_code_hashes
from posenc_jax.training.own_tokenizer import kept_tokenizer
from posenc_jax.training.provenance import MadeOf, claim, source_of
from posenc_jax.training.run_dir import are_one_corpus, as_begun, is_finished, mark_finished

__all__ = ['evaluate', 'measure']


# Seconds of measuring after which rows are written. A kill costs these, and the rows that are being
# measured: all of a measurement, unless it says how many of them it scores at a time.
WRITTEN_EVERY = 2.0
LESS_MEMORY = (
  'fewer eval.batch_tokens, eval.compute_dtype=bfloat16, or shorter eval.lengths: a window is on '
  'one device'
)


@disk_errors()
@memory_errors(LESS_MEMORY)
def evaluate(config: ConfigDict, workdir: str | Path, at: int | None = None) -> None:
  """Measures what `config.eval` asks of the last checkpoint in `workdir`, or of each of its seeds,
  and prints a table.

  Rows that eval.jsonl holds already are not measured again. Once it holds all and the training is
  finished, the hash of `config` joins finished.json. Everything is computed in float32, but for
  what `eval.compute_dtype` says of activations, with matrix products at 'highest'.

  Args:
    config: the run's saved config, perhaps with other values in `eval`, or in `encoding` (context
      extension); the field `overrides` of rows states what differs. A folder of text that is named
      in another way is the run's own: rows have the run's name of it. Of any other folder they
      state which documents it has, so that once these have changed all is measured anew.
    at: the step of the checkpoint to measure in the place of the last one; rows have its step, so
      tables show it as a line of its own.
  Raises:
    UserError: there is no trained run, its checkpoint does not fit the config, documents are too
      short, or a backend refuses.
    Stopped: a device has too little memory, of which the message says what takes less; or the disk
      is full or read-only, and the same command goes on.
  """
  config = as_begun(config, workdir)
  validate(config, is_trained=True)
  if config.seeds:
    seed_runs = single_seed_runs(config, workdir)
    for seed_config, folder in seed_runs:
      evaluate(seed_config, folder, at)
    if all(is_finished(folder, config_hash(seed_config)) for seed_config, folder in seed_runs):
      mark_finished(workdir, config_hash(config))
    return

  workdir = Path(workdir)
  saved = saved_config(workdir, *READ)
  check_kept_hyperparameters(saved, config)  # before its text is read
  changed = overrides_between(saved, config) | code_laid_over(saved, config)
  corpus = data.opened(config.data, config.eval.split, kept_tokenizer(workdir, config.data))
  check_corpus(saved, config, corpus, workdir)
  is_own = are_one_corpus(config.data.corpus, saved.data.corpus)
  if corpus.listing is not None and not is_own:
    changed[DOCUMENTS] = corpus.listing.sha256[:8]  # the run does not keep what it was
  changed |= evaluator_of(config, corpus)
  plan_corpus = task_scoring.plan if isinstance(corpus, data.TaskCorpus) else plan
  measurements = plan_corpus(config, corpus)
  if left_out := corpus.left_out(config.eval.target_context):
    print(f'{corpus.split}: {left_out} (eval.target_context)')
  check_one_host()
  model, step = restore(config, corpus, workdir, at=at, holds_half=True, on_all=True)
  source = source_of(workdir)
  row = functools.partial(
    row_schema.row,
    run=storage.name_of(workdir),
    encoding=config.encoding.name,
    label=config.label or saved.encoding.name,
    seed=config.seed,
    step=step,
    corpus=config.data.corpus,
    split=config.eval.split,
    train_length=config.train.length,
    source=source,
    tokenizer=None if source else corpus.tokenizer_sha256,
    dtype=config.eval.compute_dtype,
    parameters=parameters_of(workdir),
  )
  if of_encoding := {key: value for key, value in changed.items() if key.startswith('encoding.')}:
    text = row_schema.overrides_text(of_encoding)
    print(f'{workdir}: evaluated under an encoding that it was not trained with: {text}')
  devices = len(jax.tree.leaves(model)[0].sharding.device_set)
  announce_idle(measurements, config.eval.batch_tokens, devices)
  functions = {f: compiled(f, config) for f in {m.function for m in measurements}}
  measured = []
  with (
    user_errors(NotImplementedError, BlockingIOError),
    storage.file_lock(workdir / 'eval.lock'),
    jax.default_matmul_precision('highest'),
  ):
    listings = [corpus.listing] if is_own else []  # a test split is opened here first
    code = dict(user_code_hashes(config).items() & user_code_hashes(saved).items())
    claim(workdir, MadeOf(corpus.tokenizer_sha256, listings=listings, code=code), begins=False)
    kept = KeptRows(workdir, recorder(workdir))
    for measurement in measurements:
      started = time.perf_counter()
      function = on_devices(functions[measurement.function], model)
      rows, num_new = measure(measurement, row, changed, function, model.max_length, kept)
      measured.append((measurement, rows))
      if num_new:
        seconds = time.perf_counter() - started
        print(f'{measurement.name} at {measurement.length}: {summary(rows)} ({seconds:.1f} s)')
  title = f'{workdir.name} ({row_schema.overrides_text(changed)})' if changed else workdir.name
  title += '' if at is None else f' at step {at}'
  if step == config.train.steps:
    mark_finished(workdir, config_hash(config))
  show(title, measured)


def announce_idle(measurements: list[Measurement], batch_tokens: int, devices: int) -> None:
  """Prints how many of the devices have work in windows of each length at which some have none: of
  9 rows 8 devices take 2 each, so that 5 have some.
  """

  def working(length, tokens):
    rows = max(1, tokens // length)
    return math.ceil(rows / math.ceil(rows / devices))

  lengths = sorted({m.input_length or m.length for m in measurements})
  at_work = {length: working(length, batch_tokens) for length in lengths}
  if idle := {length: number for length, number in at_work.items() if number < devices}:
    # Every length has room at a common multiple of all, if not before.
    some = (n * devices * lengths[-1] for n in itertools.count(1))
    fitting = (n for n in some if all(working(length, n) == devices for length in lengths))
    enough = next(n for n in fitting if n > batch_tokens)
    (first, number), *longer = idle.items()
    work = f'{number} of {devices} devices {"has" if number == 1 else "have"} work'
    work += ''.join(f', of {length:,}: {number}' for length, number in longer)
    remedy = f'--config.eval.batch_tokens={enough} has work for all'
    print(f'windows of {first:,} tokens: {work}; {remedy}')


def recorder(workdir: Path) -> Callable[[], None]:
  """A function that adds this evaluation, which begins now, to sessions.jsonl when it is called
  first, and prints whether the session before was of other code; then it does nothing.

  Raises Damaged at once if sessions.jsonl is damaged, before rows are measured that could not be
  written.
  """
  sessions.of_run(workdir)
  work = [workdir], sessions.EVALUATION, kinds_of_devices(), sessions.now()

  @functools.cache  # since `KeptRows` calls it before all that it writes
  def record():
    if change := sessions.change(workdir):
      print(f'{workdir}: {change}')
    sessions.add(*work)

  return record


class KeptRows:
  """The rows of a run in its eval.jsonl, for the holder of eval.lock: they are read once, since no
  other process adds any.

  Attributes:
    path: the file.
    by_key: {key: row} of those that are there, or soon will be.
  """

  def __init__(self, workdir: Path, before_rows: Callable[[], None] = lambda: None):
    """`before_rows` is called before rows are written. Raises UserError where some are damaged."""
    self.path, self._before_rows = workdir / 'eval.jsonl', before_rows
    with user_errors(ValueError):
      rows = storage.read_rows(self.path, row_schema.fault)
    run = storage.name_of(workdir)  # what rows say of it is of before the folder was renamed
    self.by_key = {row_schema.key(r | {'run': run}): r for r in rows}
    self._waiting, self._written = [], time.monotonic()

  def add(self, rows: list[dict]) -> None:
    """Adds rows, and writes them unless others were written just before: that may take longer than
    to measure them.
    """
    self.by_key |= {row_schema.key(r): r for r in rows}
    self._waiting += rows
    if time.monotonic() - self._written >= WRITTEN_EVERY:
      self.write()

  def write(self) -> None:
    """Writes the rows that wait. Rows of a write that fails wait no longer: some may be there."""
    rows, self._waiting = self._waiting, []
    if rows:
      self._before_rows()
      storage.append_rows(self.path, rows)
    self._written = time.monotonic()


def measure(
  measurement: Measurement,
  row: Callable[..., dict],
  changed: dict[str, object],
  function: Callable,
  max_length: int | None,
  kept: KeptRows,
) -> tuple[list[dict], int]:
  """Measures the rows that eval.jsonl lacks and appends them, also those that were measured before
  an error or Ctrl-C; returns all rows of the measurement and how many are new.

  Args:
    row: `row_schema.row` with the fields of the run.
    changed: what `overrides_between` returns, and what rows state besides: of code that was laid
      over the run, documents that it does not keep, and the run that finds key tokens.
    function: the compiled function of the measurement, (tokens_BT, ...) -> what its `score` needs;
      of its keyword arguments (`model_functions.compiled`) it gets those that the measurement has.
    max_length: the number of positions that the model has, or None. Rows of windows that need more
      get the status 'beyond_table' and no score, also under the windowed control: its positions go
      as far.
  """

  def made(fields, **score):
    own = overrides_of(changed, fields['protocol'], fields['control'])
    return row(**{'metric': measurement.metric, 'overrides': own} | score | fields)

  def keys_of(some):
    return [row_schema.key(made(fields, status='asked')) for fields in some.key_fields]

  present = kept.by_key
  keys = keys_of(measurement)
  missing = [i for i, key in enumerate(keys) if key not in present]
  if missing:
    storage.append_rows(kept.path, [])  # a disk that refuses should do so before the work
  originals = keys_of(measurement.same_as) if measurement.same_as else []
  if not missing:
    parts = []
  elif originals and all(originals[i] in present for i in missing):
    parts = [(missing, [row_schema.score_of(present[originals[i]]) for i in missing])]
  elif max_length is not None and measurement.num_positions > max_length:
    parts = [(missing, [{'status': 'beyond_table'}] * len(missing))]
  else:
    options = {'window': measurement.window, 'sink_tokens': measurement.sink_tokens}
    if measurement.last is not None:
      options['last'] = measurement.last
    if measurement.largest_position is not None:
      options['max_position_distance'] = measurement.largest_position
    parts = measurement.scored_in_parts(functools.partial(function, **options), missing)
  try:
    for part, scores in parts:
      pairs = zip(part, scores, strict=True)
      kept.add([made(measurement.key_fields[i], **score) for i, score in pairs])
  finally:
    kept.write()
  return [present[key] for key in keys], len(missing)


def summary(rows: list[dict]) -> str:
  """The rows of one measurement in short: the bits a byte of all together and their standard error;
  what a metric says, in words of its own, or else its mean; or why a row has no score.
  """
  every, rows = rows, row_schema.without_empty(rows)
  for r in rows:
    if r['status'] != 'ok':
      return row_schema.OUTCOMES[r['status']]
  if rows[0]['metric'] == 'gradient':
    covered = np.cumsum([r['value'] for r in rows])
    ends = [r['position'] for r in rows[1:]] + [rows[0]['length'] - 1]
    return f'99 % of the gradient reaches {ends[int(np.argmax(covered > 0.99))]} tokens back'
  if rows[0]['metric'] == 'sink_rate':
    return f'{rows[0]["value"]:.3f} of heads have a sink'
  if rows[0]['metric'] == 'attention_distance':
    distance = np.mean([r['value'] for r in rows])
    return f'{distance:.1f} tokens from a query to its keys but BOS, mean over heads'
  if rows[0]['metric'] in task_scoring.TASK_METRICS:
    return task_scoring.summary(rows)
  if (metric := rows[0]['metric']) is not None:
    return f'{np.mean([r["value"] for r in rows]):.4g} {metric}'
  scored = _likelihoods(rows)
  if not scored:
    return 'no name comes again in its window'
  bits, error, documents = bits_a_byte(scored, _documents(every))
  text = f'{bits:.3f} bits/byte' + ' of recalled names' * (rows[0]['protocol'] == PLANTED)
  if given := [r['value'] for r in rows if r['metric'] == 'exact_match']:
    text = f'{np.mean(given):.3f} exact match, {text}'
  if rows[0]['protocol'] == 'long_ppl':
    tokens = sum(r['tokens'] for r in rows)
    ppl = math.exp(math.fsum(r['nats'] for r in rows) / tokens)
    text += f', LongPPL {ppl:.2f} over {tokens} key tokens'
  if error is None:
    return text
  return f'{text}, standard error {error:.3f} over {documents} documents{_alike(every)}'


def _likelihoods(rows: list[dict]) -> list[dict]:
  """The rows that the bits a byte of a measurement are of: of planted names those that come again,
  as nothing tells what one is that is new in its window.
  """
  is_told = lambda row: row['protocol'] != PLANTED or row['position']
  return [row for row in rows if row['metric'] is None and is_told(row)]


def _documents(rows: list[dict]) -> set[str]:
  return {row['document'] for row in rows} - {None}


def _alike(rows: list[dict]) -> str:
  """', those of one year taken as one', or '' where each document counts by itself."""
  places = {(row['corpus'], row['document']) for row in rows if row['document'] is not None}
  return clusters.taken_as_one(clusters.kinds_of(places))


def bits_a_byte(
  rows: list[dict], documents: Collection[str] = ()
) -> tuple[float, float | None, int]:
  """Returns (bits a byte of all rows together, its standard error over documents, the number of
  documents that rows name).

  The error is that of a ratio of sums, to first order: it says what other documents would do to the
  score, not what another training would. Documents that are alike count as one (`clusters_of`),
  as in tables. None where rows do not tell two documents apart.

  Args:
    documents: those of the measurement, by which it is decided which are alike; (): those of rows.
  """
  bits, size = collections.Counter(), collections.Counter()
  cluster_of, named = {None: None}, _documents(rows)
  if named:
    cluster_of |= clusters.clusters_of(named.union(documents), rows[0]['corpus'])
  for r in rows:
    cluster = cluster_of[r['document']]
    bits[cluster] += r['nats'] / math.log(2)
    size[cluster] += r['bytes']
  score = math.fsum(bits.values()) / size.total()
  if None in size or len(size) < 2:
    return score, None, len(named)
  squares = math.fsum((bits[name] - score * size[name]) ** 2 for name in size)
  error = math.sqrt(squares * len(size) / (len(size) - 1)) / size.total()
  return score, error, len(named)


def show(title: str, measured: list[tuple[Measurement, list[dict]]]) -> None:
  """Prints bits a byte by protocol and length, and the standard error over documents; a dash stands
  where there is no score, or where a protocol has none at a length. Planted names have none: how
  many of them stood how far back changes with the length.
  """
  cells = {}
  for measurement, rows in measured:
    if measurement.metric is not None:
      continue
    text, scored = '—', row_schema.without_empty(rows)
    is_scored = all(r['status'] == 'ok' for r in scored)
    if is_scored and scored[0]['protocol'] != PLANTED:
      bits, error, _ = bits_a_byte(_likelihoods(scored), _documents(rows))
      text = f'{bits:.3f}' if error is None else f'{bits:.3f} ± {error:.3f}'
    cells[measurement.name, measurement.length] = text
  if not cells:
    return
  lengths = sorted({length for _, length in cells})
  has_errors = any('±' in text for text in cells.values())
  table = Table(title=Text(title))  # no markup: names may have brackets
  table.add_column('bits/byte', overflow='fold')
  for length in lengths:
    table.add_column(str(length), overflow='fold')
  if has_errors:
    alike = _alike([row for _, rows in measured for row in rows])
    table.caption = f'± standard error over documents{alike}'
  for name in dict.fromkeys(name for name, _ in cells):
    table.add_row(name, *(cells.get((name, length), '—') for length in lengths))
  cli.wide_console(140).print(table)
