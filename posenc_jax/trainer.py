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

from posenc_jax import data, encodings, mesh, optim
from posenc_jax.checkpoint import Checkpoints, claim, finished_parameters
from posenc_jax.config import user_errors, validate
from posenc_jax.logs import BITS, Log, StopRequest
from posenc_jax.model import attention_options, build, token_nll


def train(config: ConfigDict, workdir: str | Path) -> None:
  """Trains a run to its last step, from the last checkpoint in `workdir` if there is one.

  Writes config.json, metrics.jsonl, timing.jsonl and checkpoints/ there. Two runs of one config, interrupted or not,
  have equal metrics.jsonl, bit for bit, on one machine; on another mesh, to rounding.

  Raises:
    UserError: what the config or the directory cannot be, before anything is compiled.
    Stopped: the loss is not finite, or SIGTERM or Ctrl-C came; the same command goes on from the last checkpoint.
  """
  workdir, c, d = Path(workdir), config.train, config.data
  validate(config)

  # Data: a batch is a pure function of seed and step, so resuming needs no iterator.
  corpora = [data.corpus(d.corpus, split, d.text_field, d.cache) for split in ('train', 'validation')]
  batches = data.Batches(corpora[0], c.length, c.batch, config.seed)
  validation = data.Batches(corpora[1], c.length, c.batch, seed=0)  # the same for all seeds

  # Model and optimiser.
  with user_errors(ValueError):
    devices = mesh.make(config.mesh)
    model = build(config, data.VOCAB, nnx.Rngs(config.seed))
  if c.start_from:
    model = finished_parameters(c.start_from, model)
  parts = {'parameters': model, 'encoding_parameters': model.encodings}
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in parts.items()}
  optimiser = optim.make(config.optim, c.steps)
  opt_state = optimiser.init(model)
  model, opt_state = jax.device_put((model, opt_state), mesh.shardings(devices, (model, opt_state)))
  place = functools.partial(jax.device_put, device=NamedSharding(devices, mesh.TOKENS))
  step_fn, nats_fn = functions(config, optimiser)
  refusals = user_errors(encodings.LengthError, NotImplementedError)
  with refusals, jax.set_mesh(devices), jax.default_matmul_precision(c.matmul_precision):
    step_lowered = step_fn.lower(model, opt_state, place(batches[0]))
    nats_lowered = nats_fn.lower(model, place(batches[0]))

  # Restore.
  claim(workdir, config)
  with Checkpoints(workdir, c.keep) as checkpoints, StopRequest() as stop:
    state, start = checkpoints.restore(model=model, opt_state=opt_state)
    model, opt_state = state['model'], state['opt_state']
    if start == c.steps:
      if checkpoints.latest is None:  # no steps: it ends as it starts
        checkpoints.save(start, model, opt_state)
      print(f'{workdir}: training is finished ({c.steps} steps); next: python eval.py --workdir={workdir}')
      return
    if start:
      print(f'{workdir}: going on from step {start}')

    clock = time.perf_counter()
    step_fn, nats_fn = step_lowered.compile(), nats_lowered.compile()
    del state, step_lowered, nats_lowered

    # The loop. Step n is dispatched before the metrics of n - 1 are read, so the device never waits.
    with Log(workdir, start, c.steps, c.log_every, c.batch * c.length) as log:
      temporary = step_fn.memory_analysis().temp_size_in_bytes
      log.timing(step=start, compile_seconds=time.perf_counter() - clock, temporary_bytes=temporary, **sizes)
      log.restart_clock(start)
      for step in range(start + 1, c.steps + 1):
        model, opt_state, metrics = step_fn(model, opt_state, place(batches[step - 1]))
        log.push(step, metrics)
        last = step == c.steps
        if last or (c.validate_every and step % c.validate_every == 0):
          log.flush()
          nats = [nats_fn(model, place(validation[i])) for i in range(c.validate_batches)]
          log.validation(step, sum(map(float, nats)) / len(nats) * BITS)
        if last or stop.signal or step % c.checkpoint_every == 0:
          log.flush()  # parameters that are not finite must not be saved
          checkpoints.save(step, model, opt_state)
          log.restart_clock(step)
        if stop.signal and not last:
          checkpoints.close()
          raise stop.error(step)


def functions(config: ConfigDict, optimiser: optax.GradientTransformation):
  """The two jitted functions of a training.

  Returns:
    step(model, opt_state, tokens_BT) -> (model, opt_state, metrics), which donates model and optimiser state;
    nats(model, tokens_BT) -> mean nats a token.

  What encodings draw at a step is, like its batch, a function of seed and step.
  """

  def nats(model, tokens_BT, key=None):
    options = attention_options(config)
    return token_nll(model, tokens_BT, key=key, dtype=config.train.compute_dtype, **options).mean()

  def step(model, opt_state, tokens_BT):
    rate = optim.learning_rate(config.optim, config.train.steps, opt_state[-1].count + 1)
    key = jax.random.fold_in(jax.random.key(config.seed), opt_state[-1].count)
    loss, grads = accumulated(jax.value_and_grad(nats), model, tokens_BT, key, config.train.accumulate)
    updates, opt_state = optimiser.update(grads, opt_state, model)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    model = optax.apply_updates(model, updates).project()
    return *mesh.parameters((model, opt_state)), metrics

  return jax.jit(step, donate_argnames=('model', 'opt_state')), jax.jit(nats)


def accumulated(function, model, tokens_BT, key, parts: int):
  """The mean of function(model, tokens, key), a pytree, over so many parts of a batch, one after another.

  A part is every `parts`-th row, so that what a device holds of a batch it holds of each part. Parts have keys of
  their own.
  """
  if parts == 1:
    return function(model, tokens_BT, key)
  tokens_PBT = tokens_BT.reshape(-1, parts, tokens_BT.shape[1]).swapaxes(0, 1)

  def add(total, part):
    tokens_BT, n = part
    return jax.tree.map(jnp.add, total, function(model, mesh.tokens(tokens_BT), jax.random.fold_in(key, n))), None

  zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, model, tokens_PBT[0], key))
  total, _ = lax.scan(add, zeros, (tokens_PBT, jnp.arange(parts)))
  return jax.tree.map(lambda x: x / parts, total)
