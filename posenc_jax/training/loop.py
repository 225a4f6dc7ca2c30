"""The training loop, on one page."""

import contextlib
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from posenc_jax import data, encodings
from posenc_jax.config import single_seed_runs, to_json, validate
from posenc_jax.distributed import mesh, processes
from posenc_jax.errors import disk_errors, user_errors
from posenc_jax.model.decoder import attention_options, build
from posenc_jax.model.token_nll import BITS, token_nll
from posenc_jax.training import mfu, multi_seed, trackers
from posenc_jax.training import optimizer as optimizers
from posenc_jax.training.checkpoints import Checkpoints, finished_parameters, has_checkpoint
from posenc_jax.training.metrics import Log
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.profiler import Trace
from posenc_jax.training.run_dir import check_tokenizer, claim_tokenizer, claimed
from posenc_jax.training.stop_signal import StopRequest


@disk_errors()
def train(config: ConfigDict, workdir: str | Path) -> None:
  """Trains a run to its last step, from the last checkpoint in `workdir` if there is one.

  Writes config.json, metrics.jsonl, timing.jsonl and checkpoints/ there. Two runs of one config,
  interrupted or not, have equal metrics.jsonl, bit for bit, on one machine; on another mesh, to
  rounding. With `config.seeds`, each has a directory beside `workdir` with what a run of its own
  writes, and where they are trained at once, equal to rounding.

  Raises:
    UserError: what the config or the directory cannot be, before anything is compiled.
    Stopped: the loss is not finite, the disk is full or read-only, or SIGTERM or Ctrl-C came; the
      same command goes on from the last checkpoint.
  """
  validate(config)
  trackers.require(config.train.trackers)
  if config.seeds and not config.vmap_seeds:
    with processes.held_by_first(claimed(workdir, config)):
      for one, folder in single_seed_runs(config, workdir):
        train(one, folder)
  else:
    _train(config, Path(workdir), single_seed_runs(config, workdir))


def _train(config: ConfigDict, workdir: Path, members: list[tuple[ConfigDict, Path]]) -> None:
  """Of one program: `members` are the (config, directory) of each seed, and `workdir` has the
  checkpoints of all.
  """
  c, seeds, folders = config.train, config.seeds, [folder for _, folder in members]
  stack = functools.partial(multi_seed.stack, seeds=seeds)

  # Data: a batch is a pure function of seed and step, so resuming needs no iterator.
  corpus = data.source(config.data, 'train')
  batches = [corpus.batches(c.length, c.batch, one.seed) for one, _ in members]
  # the same for all seeds
  validation = data.source(config.data, 'validation').batches(c.length, c.batch, seed=0)

  # Model and optimizer.
  with user_errors(ValueError):
    devices = mesh.make(config.mesh)
    models = [build(one, corpus.vocab, nnx.Rngs(one.seed)) for one, _ in members]
  if c.init_from and not has_checkpoint(workdir):  # once it has, what it started from may be gone
    for one, _ in members:
      check_tokenizer(one.train.init_from, corpus.sha256)
    models = [
      finished_parameters(one.train.init_from, model)
      for (one, _), model in zip(members, models, strict=True)
    ]
  parts = {'parameters': models[0], 'encoding_parameters': models[0].encodings}
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in parts.items()}
  windows, optimizer = models[0].encodings.windows, make_optimizer(config.optim, c.steps)
  state = stack([(model, optimizer.init(model)) for model in models])
  model, opt_state = processes.place(state, mesh.shardings(devices, state, of_seeds=bool(seeds)))
  del models, parts, state
  place = functools.partial(processes.place, shardings=NamedSharding(devices, mesh.TOKENS))
  where = NamedSharding(devices, mesh.TOKENS_OF_SEEDS if seeds else mesh.TOKENS)
  place_all = lambda some: processes.place(stack(some), where)
  batch_of = lambda step: [of_seed[step - 1] for of_seed in batches]
  refusals = user_errors(encodings.LengthError, NotImplementedError)
  with refusals, jax.set_mesh(devices), jax.default_matmul_precision(c.matmul_precision):
    step_fn, nats_fn = functions(config, optimizer)
    step_lowered = step_fn.lower(model, opt_state, place_all(batch_of(1)))
    nats_lowered = nats_fn.lower(model, place(validation[0]))

  # Restore.
  with contextlib.ExitStack() as held:
    held.enter_context(processes.held_by_first(claimed(workdir, config)))
    for one, folder in members if seeds else ():
      held.enter_context(processes.held_by_first(claimed(folder, one)))
    checkpoints = held.enter_context(Checkpoints(workdir, c.max_to_keep))
    for folder in folders:
      processes.first(claim_tokenizer, folder, corpus.sha256)
    state, start = checkpoints.restore(model=model, opt_state=opt_state)
    model, opt_state = state['model'], state['opt_state']
    if seeds:
      processes.first(multi_seed.refuse_alone, folders, start, c.steps)
    if start == c.steps:
      if checkpoints.latest is None:  # no steps: it ends as it starts
        checkpoints.save(start, model, opt_state)
      if seeds:
        checkpoints.close()
        multi_seed.hand_out(folders, start, model, opt_state)
      print(
        f'{workdir}: training is finished ({c.steps} steps); next: python eval.py --workdir={workdir}'
      )
      return
    if start:
      print(f'{workdir}: going on from step {start}')
    told, traced = (c.trackers, c.profile_steps) if processes.is_first() else ((), ())
    listeners = [trackers.make(told, folder, start, to_json(one)) for one, folder in members]

    clock = time.perf_counter()
    step_fn, nats_fn = step_lowered.compile(), nats_lowered.compile()
    del state, step_lowered, nats_lowered

    # The loop. Step n is dispatched before the metrics of n - 1 are read, so the device never
    # waits.
    flops = mfu.model_flops(config, corpus.vocab, windows)
    peak = mfu.peak_flops(jax.devices()[0].device_kind, c.compute_dtype, c.matmul_precision)
    peak = None if peak is None else peak * devices.size
    sizes |= {'model_flops_per_step': flops, 'peak_flops_per_second': peak}
    tokens = c.batch * c.length
    log = Log(
      workdir,
      start,
      c.steps,
      c.log_every,
      tokens,
      corpus.unit,
      c.max_nonfinite_updates,
      folders if seeds else None,
    )
    with log, Trace(workdir, traced) as trace, StopRequest() as stop:
      agreed = processes.Agreement(devices)
      log.tell(listeners, flops, peak)
      temporary = step_fn.memory_analysis().temp_size_in_bytes
      log.timing(
        step=start, compile_seconds=time.perf_counter() - clock, temporary_bytes=temporary, **sizes
      )
      log.restart_clock(start)
      for step in range(start + 1, c.steps + 1):
        batch = batch_of(step)
        trace.before(step)
        model, opt_state, metrics = step_fn(model, opt_state, place_all(batch))
        log.push(step, metrics, [corpus.bytes_per_token(one) for one in batch])
        if trace.after(step, metrics):
          log.flush()
          log.restart_clock(step)
        checkpoints.check()
        last = step == c.steps
        if last or (c.validate_every and step % c.validate_every == 0):
          log.flush()
          some = [validation[i] for i in range(c.validate_batches)]
          nats = [nats_fn(model, place(batch)) for batch in some]
          of_each = sum(np.atleast_1d(np.float64(x)) for x in nats)
          log.validation(step, list(of_each / sum(map(corpus.bytes_per_token, some)) * BITS))
        signal = agreed(stop.signal)
        if last or signal or step % c.checkpoint_every == 0:
          log.flush()  # parameters that are not finite must not be saved
          checkpoints.save(step, model, opt_state)
          log.restart_clock(step)
        if signal and not last:
          checkpoints.close()
          stop.signal = signal  # it may be another process's
          raise stop.error(step)
    if seeds:
      checkpoints.close()
      multi_seed.hand_out(folders, c.steps, model, opt_state)


def functions(config: ConfigDict, optimizer: optax.GradientTransformation):
  """The two jitted functions of a training.

  Returns:
    step(model, opt_state, batch) -> (model, opt_state, metrics), which donates model and optimizer
    state; nats(model, batch) -> mean nats a token that counts in the `data.Batch`.

  What encodings draw at a step is, like its batch, a function of seed and step. Of `config.seeds`,
  all but nats' batch has a first axis [S].
  """

  def nats(model, batch, key=None):
    options = attention_options(config)
    nats_BT = token_nll(
      model, batch.tokens_BT, key=key, dtype=config.train.compute_dtype, **options
    )
    return jnp.average(nats_BT, weights=batch.scored_BT)

  def step(model, opt_state, batch, seed=config.seed):
    rate = optimizers.learning_rate(config.optim, config.train.steps, opt_state[-1].count + 1)
    key = jax.random.fold_in(jax.random.key(seed), opt_state[-1].count)
    loss, grads = accumulated(
      jax.value_and_grad(nats), model, batch, key, config.train.grad_accum_steps
    )
    updates, new_opt_state = optimizer.update(grads, opt_state, model)
    new_model = optax.apply_updates(model, updates).constrain_parameters()
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    if (
      config.train.max_nonfinite_updates
    ):  # all stays as it was but the last state, which counts steps
      is_finite = jnp.isfinite(loss) & jnp.isfinite(metrics['grad_norm'])
      new, old = (new_model, new_opt_state[:-1]), (model, opt_state[:-1])
      new_model, moments = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new, old)
      new_opt_state = (*moments, new_opt_state[-1])
    return *mesh.parameters((new_model, new_opt_state)), metrics

  def step_of_each(model, opt_state, batch):
    *state, metrics = multi_seed.over(step)(
      model, opt_state, batch, np.array(config.seeds, np.uint32)
    )
    return *state, mesh.everywhere(metrics)

  def nats_of_each(model, batch):
    return mesh.everywhere(multi_seed.over(nats, in_axes=(0, None))(model, batch))

  pair = (step_of_each, nats_of_each) if config.seeds else (step, nats)
  return jax.jit(pair[0], donate_argnames=('model', 'opt_state')), jax.jit(pair[1])


def accumulated(function, model, batch: data.Batch, key, parts: int):
  """function(model, batch, key), a pytree of means over the tokens that count, by so many parts one
  after another.

  A part is every `parts`-th row, so that what a device holds of a batch it holds of each part.
  Parts have keys of their own, and the weight of the tokens that count in them.
  """
  if parts == 1:
    return function(model, batch, key)
  batches = jax.tree.map(lambda x_BT: x_BT.reshape(-1, parts, x_BT.shape[1]).swapaxes(0, 1), batch)

  def add(total, part):
    some, n = part
    count = some.tokens_BT.size if some.scored_BT is None else some.scored_BT.sum()
    means = function(model, jax.tree.map(mesh.tokens, some), jax.random.fold_in(key, n))
    return jax.tree.map(lambda x, y: x + count * y, total, (means, 1.0)), None

  shapes = jax.eval_shape(function, model, jax.tree.map(lambda x: x[0], batches), key)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), jnp.zeros(())
  (total, count), _ = lax.scan(add, zeros, (batches, jnp.arange(parts)))
  return jax.tree.map(lambda x: x / count, total)
