"""The jitted functions of a training: one optimizer step, and the loss of a validation batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from posenc_jax.data import Batch
from posenc_jax.distributed import mesh
from posenc_jax.model.decoder import attention_options
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import multi_seed, optimizer


def make_step_fns(
  config: ConfigDict, tx: optax.GradientTransformation, largest_position: int | None = None
):
  """Makes the two jitted functions of a training with the optimizer `tx`.

  Args:
    largest_position: a bound on the positions that batches carry; None: they carry none.
  Returns:
    train_step(model, opt_state, batch) -> (model, opt_state, metrics), which donates the first two;
    val_step(model, batch) -> nats per token, a mean over the tokens of `batch` that count; of a
    tuple of masks `scored_BT`, a tuple of means.

  What an encoding samples at a step depends on seed and step, whatever `train.first_batch` is, by
  which batches are numbered, and on `train.grad_accum_steps`, for each microbatch has draws of its
  own. With `config.seeds`, every array has a first axis [seeds], except the batch of `val_step`.
  """

  def mean_nats(model, batch, key=None, **options):
    nats_BT = token_nll(
      model,
      batch.tokens_BT,
      token_positions=batch.position_ids,
      token_segments=batch.segments_BT,
      max_position_distance=largest_position,
      key=key,
      dtype=config.train.compute_dtype,
      **attention_options(config),
      **options,
    )
    mean_over = lambda mask_BT: jnp.average(nats_BT, weights=mask_BT)
    return of_masks(mean_over, batch.scored_BT)

  def train_step(model, opt_state, batch, seed=config.seed):
    step = opt_state[-1].count  # the learning rate's state, last in the chain, counts all steps
    learning_rate = optimizer.learning_rate(config.optim, config.train.steps, step + 1)
    key = jax.random.fold_in(jax.random.key(seed), step)
    loss, grads = accumulate(
      jax.value_and_grad(mean_nats), model, batch, key, config.train.grad_accum_steps
    )
    grads = optimizer.only_trained(grads, config.train.trained_parameters)
    updates, new_opt_state = tx.update(grads, opt_state, model)
    new_model = optax.apply_updates(model, updates).constrain_parameters()
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), 'learning_rate': learning_rate}
    if config.train.max_nonfinite_updates:
      is_finite = jnp.isfinite(loss) & jnp.isfinite(metrics['grad_norm'])
      new_model, moments = jax.tree.map(
        lambda new, old: jnp.where(is_finite, new, old),
        (new_model, new_opt_state[:-1]),
        (model, opt_state[:-1]),
      )
      new_opt_state = (*moments, new_opt_state[-1])  # a skipped step is counted
    return *mesh.shard_parameters((new_model, new_opt_state)), metrics

  def train_step_of_seeds(model, opt_state, batch):
    seeds = np.array(config.seeds, np.uint32)
    *state, metrics = multi_seed.vmap_seeds(train_step)(model, opt_state, batch, seeds)
    return *state, mesh.replicate(metrics)

  def nats_of_validation(model, batch, key):  # logits as evaluation has them in any compute dtype
    del key  # nothing is sampled
    model = jax.tree.map(lambda leaf: leaf, model)  # the caller's stays as it is
    model.unroll = config.model.unroll or 1  # without gradients a loop is no slower
    return mean_nats(model, batch, logits_dtype='float32')

  def val_step(model, batch):  # in microbatches as in training: memory may hold no more
    key = jax.random.key(0)
    return accumulate(nats_of_validation, model, batch, key, config.train.grad_accum_steps)

  def val_step_of_seeds(model, batch):
    return mesh.replicate(multi_seed.vmap_seeds(val_step, in_axes=(0, None))(model, batch))

  train, val = (train_step_of_seeds, val_step_of_seeds) if config.seeds else (train_step, val_step)
  return jax.jit(train, donate_argnames=('model', 'opt_state')), jax.jit(val)


def accumulate(means_of: Callable, model, batch: Batch, key, microbatches: int):
  """means_of(model, batch, key), such as a loss and its gradient, computed one microbatch after
  another.

  The result is a pytree of means over the tokens that count, or a tuple of these where `scored_BT`
  is a tuple of masks. Each microbatch is weighted by the tokens that count in it, where there are
  any, and has a key of its own. It takes every `microbatches`-th row, so that a device holds an
  equal share of each.
  """
  if microbatches == 1:
    return means_of(model, batch, key)

  def split(x_BT):
    return x_BT.reshape(-1, microbatches, *x_BT.shape[1:]).swapaxes(0, 1)

  def add(totals, numbered_batch):
    microbatch, index = numbered_batch
    scored_BT = microbatch.scored_BT
    microbatch = mesh.shard_tokens(microbatch)
    means = means_of(model, microbatch, jax.random.fold_in(key, index))

    def add_up(mask_BT, total, mean):
      count = microbatch.tokens_BT.size if mask_BT is None else mask_BT.sum()
      add = lambda x, y: x + jnp.where(count > 0, count * y, 0)  # a mean over none is NaN
      return jax.tree.map(add, total, (mean, 1.0))

    return of_masks(add_up, scored_BT, totals, means), None

  stacked = jax.tree.map(split, batch)
  shapes = jax.eval_shape(means_of, model, jax.tree.map(lambda x: x[0], stacked), key)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  carry = of_masks(lambda _, zeros: (zeros, jnp.zeros(())), batch.scored_BT, zeros)
  totals, _ = lax.scan(add, carry, (stacked, jnp.arange(microbatches)))
  mean = lambda _, total: jax.tree.map(lambda x: x / total[1], total[0])
  return of_masks(mean, batch.scored_BT, totals)


def of_masks(function: Callable, scored_BT, *others):
  """What the function returns of a mask, and what others have for it, or of each in a tuple; None,
  of which all tokens count, is a mask.
  """
  return jax.tree.map(function, scored_BT, *others, is_leaf=lambda mask_BT: mask_BT is None)
