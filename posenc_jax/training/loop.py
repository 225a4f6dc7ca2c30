"""The training loop, on one page. `setup` prepares what it needs, `step` has what it computes."""

import collections
import contextlib
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import single_seed_runs, to_json, validate
from posenc_jax.data.batches import BETWEEN
from posenc_jax.distributed.devices import announce_symbols, kinds_of_devices
from posenc_jax.distributed.memory import memory_errors
from posenc_jax.distributed.processes import (
  SignalConsensus,
  is_primary,
  primary_context,
  run_on_primary,
)
from posenc_jax.errors import disk_errors
from posenc_jax.model.token_nll import BITS
from posenc_jax.rows import sessions
from posenc_jax.training import mfu, multi_seed, setup, trackers
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.log import Log, continued_rows, is_logged, is_validated
from posenc_jax.training.profiler import Profiler
from posenc_jax.training.run_dir import (
  check_can_begin,
  check_same_config,
  locked_run_dir,
  takes_parameters,
)
from posenc_jax.training.stop_signal import StopRequest, stopped_by
from posenc_jax.training.taken_parameters import write_taken

LESS_MEMORY = (
  'mesh.fsdp, which cuts parameters and optimizer over devices; in another workdir fewer '
  'train.trained_parameters, or, for activations, more train.grad_accum_steps or model.remat=layer'
)


@disk_errors()
@memory_errors(LESS_MEMORY)
def train(config: ConfigDict, workdir: str | Path) -> None:
  """Trains a run to its last step, from the last checkpoint in `workdir` if there is one.

  Writes config.json, metrics.jsonl, timing.jsonl, sessions.jsonl and checkpoints/ there; a run of
  no steps that takes all of its parameters from the run that it starts from saves none. Two runs
  of one config, interrupted or not, have equal metrics.jsonl, bit for bit, with the same code and
  packages on one kind of processor (on a GPU with XLA_FLAGS=--xla_gpu_deterministic_ops=true, which
  has not been tried); on another kind or mesh, up to rounding. With `config.seeds`, each seed has a
  directory beside `workdir` with what a run of its own writes; where seeds are trained in one
  program, equal up to rounding.

  Where `config` differs from that of the run in more `train.steps` alone, the run goes on, also one
  that was finished. With a constant learning rate (`optim.final_fraction` of 1) it ends as a run of
  so many steps from the start does, and its metrics.jsonl has the rows of its earlier last step
  besides. With any other, learning rates from the last checkpoint on are those of the new length.

  Raises:
    UserError: the config or the directory cannot be used; raised before anything is compiled, but
      of what lies in the directory of a later seed only when its turn comes, after those before it
      were trained. Kept tokens are damaged; raised when they are read.
    Stopped: a device has too little memory, of which the message says what takes less; or the loss
      is not finite, the disk is full or read-only, or SIGTERM, SIGHUP or Ctrl-C came, and the same
      command goes on from the last checkpoint.
  """
  validate(config)
  trackers.check(config.train.trackers)
  runs = single_seed_runs(config, workdir)
  if config.seeds:
    for run, folder in ((config, Path(workdir)), *runs):
      run_on_primary(check_same_config, folder, run)
  run_on_primary(check_can_begin, config, Path(workdir))  # the last seed, too, before the first
  if config.seeds and not config.vmap_seeds:
    # What cannot be trained is refused here, before the directory of all seeds is claimed.
    training = setup.prepare(*runs[0])
    with primary_context(locked_run_dir(workdir, config)):
      for following in runs[1:]:
        if stop_signal := _train_one(training, (config, workdir)):
          raise stopped_by(stop_signal, config.train.steps)
        del training  # so that its parameters are not held beside those of the next
        training = setup.prepare(*following)
      _train_one(training, (config, workdir))
    return
  _train_one(setup.prepare(config, Path(workdir)))


def _train_one(
  training: setup.Training, of_all_seeds: tuple[ConfigDict, str | Path] | None = None
) -> int | None:
  """Trains a run, or seeds at once; returns the signal that came while it ended, if one did.

  `of_all_seeds`: as for `setup.restored`.
  """
  config, workdir = training.config, training.workdir
  steps, stop_signal = config.train.steps, None
  with setup.restored(training, of_all_seeds) as checkpoints:
    if training.start_step < steps:
      stop_signal = _train_loop(training, checkpoints)
    else:
      continued_rows(training.seed_dirs, config.train, steps)
      if training.taken:
        run_on_primary(write_taken, workdir, config.train.init_from, *training.taken)
      elif checkpoints.latest is None and not run_on_primary(takes_parameters, workdir):
        # a run of no steps ends as it starts
        checkpoints.save(training.start_step, training.model, training.opt_state)
    if config.seeds:
      checkpoints.close()
      multi_seed.split_checkpoint(training.seed_dirs, steps, training.model, training.opt_state)
  print(f'{workdir}: training is finished ({steps} steps)')
  return stop_signal


def _train_loop(training: setup.Training, checkpoints: Checkpoints) -> int | None:
  """Trains from `training.start_step` to the last step, and leaves the final state in `training`.

  Returns the signal that came too late to stop it, or None.

  Step n is dispatched before the metrics of step n - 1 are read, so that the device never waits.
  """
  workdir, start_step, c = training.workdir, training.start_step, training.config.train
  _announce(training)
  # first, since it raises where the rows of before are damaged
  log = Log(workdir, c, start_step, training.corpus.unit, training.seed_dirs)
  tracker_names, profile_steps = (c.trackers, c.profile_steps) if is_primary() else ((), ())
  with contextlib.ExitStack() as stack:
    stack.enter_context(log)
    log.attach_trackers(
      trackers.make_trackers(tracker_names, seed_dir, start_step, to_json(seed_config))
      for seed_config, seed_dir in training.seed_runs
    )
    run_on_primary(sessions.add, training.seed_dirs, sessions.TRAINING, kinds_of_devices())
    compile_start = time.perf_counter()
    training.compile()
    compile_seconds = time.perf_counter() - compile_start
    profiler = stack.enter_context(Profiler(workdir, profile_steps))
    stop_request = stack.enter_context(StopRequest())
    model, opt_state = training.model, training.opt_state
    signal_consensus = SignalConsensus(training.mesh)
    log.start(start_step, {'compile_seconds': compile_seconds, **_costs(training)})
    for step, seed_batches in training.train_iter():
      profiler.before_step(step)
      batch = training.put_train_batch(seed_batches)
      model, opt_state, metrics = training.train_step(model, opt_state, batch)
      read = training.train_batches if is_logged(step, c) else []
      number = training.batch_number(step)
      log.push(step, metrics, [batches.bytes_per_token(number) for batches in read])
      if profiler.after_step(step, metrics):
        log.flush()
        log.restart_clock(step)
      checkpoints.check_last_save()
      is_last = step == c.steps
      if is_validated(step, c):
        log.flush()
        log.validation(step, _validate(training, model))
      stop_signal = signal_consensus(stop_request.signal)
      if is_last or stop_signal or step % c.checkpoint_every == 0:
        log.flush()  # it raises if the metrics are not finite: such parameters must not be saved
        checkpoints.save(step, model, opt_state)
        log.restart_clock(step)
      if stop_signal and not is_last:
        checkpoints.close()
        raise stopped_by(stop_signal, step)
    checkpoints.close()  # here, where a signal meanwhile is heard
    for _ in range(2):  # with several processes, it tells what was given to it one call before
      late_signal = signal_consensus(stop_request.signal)
  training.model, training.opt_state = model, opt_state
  return late_signal


def _announce(training: setup.Training) -> None:
  """Prints where the run goes on, whether by other code and past the steps to trace, which
  documents are left out or joined with nothing between, and how many epochs it is.
  """
  c = training.config.train
  if training.start_step:
    print(f'{training.workdir}: going on from step {training.start_step}')
    if change := run_on_primary(sessions.change, training.seed_dirs[0], sessions.TRAINING):
      print(f'{training.workdir}: {change}')
    is_past = c.profile_steps and c.profile_steps[1] <= training.start_step
    if is_past and not storage.exists(training.workdir / 'profile'):
      given = f'config.train.profile_steps={c.profile_steps}'
      print(f'{training.workdir}: {given}: no trace, since the run is past these steps')
  elif not c.init_from:
    announce_symbols(training.model.embedding.shape[-2])
  packing = training.config.data.packing
  for corpus in (training.corpus, training.val_corpus) if packing == 'none' else ():
    if left_out := corpus.left_out(c.length):
      print(f'{corpus.split}: {left_out}; --config.data.packing=separate joins short ones')
  if packing == 'concatenated' and not len(training.corpus.tokenizer.encode(BETWEEN)):
    print('train: nothing stands between documents: of an empty line the tokenizer makes no token')
  if windows := training.train_batches[0].windows_per_epoch:
    epochs = (c.first_batch + c.steps) * c.batch / windows
    verb = f'from batch {c.first_batch:,} on end after' if c.first_batch else 'are'
    steps = f'{c.steps:,} steps of {c.batch:,} {verb} {epochs:,.2f} epochs'
    print(f'train: {windows:,} windows of {c.length:,} tokens an epoch; {steps}')
    taken, there = c.validate_batches * c.batch, training.val_batches.windows_per_epoch
    if taken > there:
      print(f'validation: {taken:,} windows of {there:,}, so that some count more than once')


def _validate(training: setup.Training, model) -> list[dict[str, float]]:
  """What the validation batches measure, {name: value} for each seed.

  `bpb` is bits per byte. `recall_bits`, of a corpus in which something can be recalled, is bits a
  byte of what an earlier place in the same window decides. One forward pass gives both.
  """
  nats, sizes = collections.defaultdict(float), collections.defaultdict(float)
  for number in range(training.config.train.validate_batches):
    batch = training.val_batch(number)
    means = training.val_step(model, training.put_val_batch(batch))
    for name, mask_BT, mean in zip(('bpb', 'recall_bits'), batch.scored_BT, means, strict=False):
      # of text all are scored, and each batch has as many
      if count := 1 if mask_BT is None else int(mask_BT.sum()):
        nats[name] += count * np.atleast_1d(np.float64(mean))
        sizes[name] += count * training.val_batches.bytes_per_token(number)
  found = {name: nats[name] / sizes[name] * BITS for name in nats}
  return [
    {name: float(values[index]) for name, values in found.items()}
    for index in range(len(training.seed_runs))
  ]


def _costs(training: setup.Training) -> dict:
  """What a training takes of memory and FLOPs; parameters and FLOPs are those of one seed.

  Temporary bytes are those of one run on one device: None of a program of several.
  """
  config, model = training.config, training.model
  num_seeds = len(training.seed_runs)
  device_kind = jax.devices()[0].device_kind
  peak = mfu.peak_flops(device_kind, config.train.compute_dtype, config.train.matmul_precision)
  memory = training.train_step.memory_analysis()  # None where a compiler does not say
  is_of_one = memory is not None and num_seeds == training.mesh.size == 1
  return {
    'temporary_bytes': memory.temp_size_in_bytes if is_of_one else None,
    'parameters': sum(x.size for x in jax.tree.leaves(model)) // num_seeds,
    'encoding_parameters': sum(x.size for x in jax.tree.leaves(model.encodings)) // num_seeds,
    'model_flops_per_step': mfu.model_flops(config, model, num_seeds),
    'peak_flops_per_second': None if peak is None else peak * training.mesh.size,
  }
