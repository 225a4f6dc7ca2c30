"""The training loop, on one page."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from posenc_jax import data, encodings, loggers, mesh, optim, processes, utilisation
from posenc_jax.checkpoint import Checkpoints, finished_parameters
from posenc_jax.config import disk_errors, to_json, user_errors, validate
from posenc_jax.logs import BITS, Log, StopRequest, Trace
from posenc_jax.model import attention_options, build, token_nll
from posenc_jax.workdir import check_tokeniser, claim_tokeniser, claimed


@disk_errors()
def train(config: ConfigDict, workdir: str | Path) -> None:
  """Trains a run to its last step, from the last checkpoint in `workdir` if there is one.

  Writes config.json, metrics.jsonl, timing.jsonl and checkpoints/ there. Two runs of one config, interrupted or not,
  have equal metrics.jsonl, bit for bit, on one machine; on another mesh, to rounding.

  Raises:
    UserError: what the config or the directory cannot be, before anything is compiled.
    Stopped: the loss is not finite, the disk is full or read-only, or SIGTERM or Ctrl-C came; the same command goes on
      from the last checkpoint.
  """
  workdir, c = Path(workdir), config.train
  validate(config)
  loggers.require(c.loggers)

  # Data: a batch is a pure function of seed and step, so resuming needs no iterator.
  corpus = data.source(config.data, 'train')
  batches = corpus.batches(c.length, c.batch, config.seed)
  validation = data.source(config.data, 'validation').batches(c.length, c.batch, seed=0)  # the same for all seeds

  # Model and optimiser.
  with user_errors(ValueError):
    devices = mesh.make(config.mesh)
    model = build(config, corpus.vocab, nnx.Rngs(config.seed))
  if c.start_from:
    check_tokeniser(c.start_from, corpus.sha256)
    model = finished_parameters(c.start_from, model)
  parts = {'parameters': model, 'encoding_parameters': model.encodings}
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in parts.items()}
  optimiser = optim.make(config.optim, c.steps)
  opt_state = optimiser.init(model)
  model, opt_state = processes.place((model, opt_state), mesh.shardings(devices, (model, opt_state)))
  place = functools.partial(processes.place, shardings=NamedSharding(devices, mesh.TOKENS))
  step_fn, nats_fn = functions(config, optimiser)
  refusals = user_errors(encodings.LengthError, NotImplementedError)
  with refusals, jax.set_mesh(devices), jax.default_matmul_precision(c.matmul_precision):
    step_lowered = step_fn.lower(model, opt_state, place(batches[0]))
    nats_lowered = nats_fn.lower(model, place(batches[0]))

  # Restore.
  with processes.held_by_first(claimed(workdir, config)), Checkpoints(workdir, c.keep) as checkpoints:
    processes.first(claim_tokeniser, workdir, corpus.sha256)
    state, start = checkpoints.restore(model=model, opt_state=opt_state)
    model, opt_state = state['model'], state['opt_state']
    if start == c.steps:
      if checkpoints.latest is None:  # no steps: it ends as it starts
        checkpoints.save(start, model, opt_state)
      print(f'{workdir}: training is finished ({c.steps} steps); next: python eval.py --workdir={workdir}')
      return
    if start:
      print(f'{workdir}: going on from step {start}')
    listeners = loggers.make(c.loggers, workdir, start, to_json(config)) if processes.is_first() else []

    clock = time.perf_counter()
    step_fn, nats_fn = step_lowered.compile(), nats_lowered.compile()
    del state, step_lowered, nats_lowered

    # The loop. Step n is dispatched before the metrics of n - 1 are read, so the device never waits.
    flops = utilisation.model_flops(config, corpus.vocab, model.encodings.windows)
    peak = utilisation.peak_flops(jax.devices()[0].device_kind, c.compute_dtype, c.matmul_precision)
    peak = None if peak is None else peak * devices.size
    sizes |= {'model_flops_per_step': flops, 'peak_flops_per_second': peak}
    tokens = c.batch * c.length
    log = Log(workdir, start, c.steps, c.log_every, tokens, corpus.unit, c.skip_not_finite)
    with log, Trace(workdir, c.profile) as trace, StopRequest() as stop:
      agreed = processes.Agreement(devices)
      log.tell(listeners, flops, peak)
      temporary = step_fn.memory_analysis().temp_size_in_bytes
      log.timing(step=start, compile_seconds=time.perf_counter() - clock, temporary_bytes=temporary, **sizes)
      log.restart_clock(start)
      for step in range(start + 1, c.steps + 1):
        batch = batches[step - 1]
        trace.before(step)
        model, opt_state, metrics = step_fn(model, opt_state, place(batch))
        log.push(step, metrics, corpus.bytes_per_token(batch))
        if trace.after(step, metrics):
          log.flush()
          log.restart_clock(step)
        checkpoints.check()
        last = step == c.steps
        if last or (c.validate_every and step % c.validate_every == 0):
          log.flush()
          some = [validation[i] for i in range(c.validate_batches)]
          nats = [nats_fn(model, place(batch)) for batch in some]
          log.validation(step, sum(map(float, nats)) / sum(map(corpus.bytes_per_token, some)) * BITS)
        signal = agreed(stop.signal)
        if last or signal or step % c.checkpoint_every == 0:
          log.flush()  # parameters that are not finite must not be saved
          checkpoints.save(step, model, opt_state)
          log.restart_clock(step)
        if signal and not last:
          checkpoints.close()
          stop.signal = signal  # it may be another process's
          raise stop.error(step)


def functions(config: ConfigDict, optimiser: optax.GradientTransformation):
  """The two jitted functions of a training.

  Returns:
    step(model, opt_state, batch) -> (model, opt_state, metrics), which donates model and optimiser state;
    nats(model, batch) -> mean nats a token that counts in the `data.Batch`.

  What encodings draw at a step is, like its batch, a function of seed and step.
  """

  def nats(model, batch, key=None):
    options = attention_options(config)
    nats_BT = token_nll(model, batch.tokens_BT, key=key, dtype=config.train.compute_dtype, **options)
    return jnp.average(nats_BT, weights=batch.scored_BT)

  def step(model, opt_state, batch):
    rate = optim.learning_rate(config.optim, config.train.steps, opt_state[-1].count + 1)
    key = jax.random.fold_in(jax.random.key(config.seed), opt_state[-1].count)
    loss, grads = accumulated(jax.value_and_grad(nats), model, batch, key, config.train.accumulate)
    updates, new_opt_state = optimiser.update(grads, opt_state, model)
    new_model = optax.apply_updates(model, updates).project()
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    if config.train.skip_not_finite:  # all stays as it was but the last state, which counts steps
      is_finite = jnp.isfinite(loss) & jnp.isfinite(metrics['grad_norm'])
      new, old = (new_model, new_opt_state[:-1]), (model, opt_state[:-1])
      new_model, moments = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new, old)
      new_opt_state = (*moments, new_opt_state[-1])
    return *mesh.parameters((new_model, new_opt_state)), metrics

  return jax.jit(step, donate_argnames=('model', 'opt_state')), jax.jit(nats)


def accumulated(function, model, batch: data.Batch, key, parts: int):
  """function(model, batch, key), a pytree of means over the tokens that count, by so many parts one after another.

  A part is every `parts`-th row, so that what a device holds of a batch it holds of each part. Parts have keys of
  their own, and the weight of the tokens that count in them.
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
