"""AdamW with linear warm-up and a cosine schedule: plain optax on the model as a pytree."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def learning_rate(optim: ConfigDict, steps: int, step):
  """The learning rate of update `step`, which counts from 1 to `steps`.

  It rises linearly to its peak at `warmup`, then falls as a cosine to `final_fraction` of the peak.
  """
  rise = jnp.minimum(step / max(optim.warmup, 1), 1.0)
  progress = jnp.clip((step - optim.warmup) / max(steps - optim.warmup, 1), 0.0, 1.0)
  cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
  fall = optim.final_fraction + (1 - optim.final_fraction) * cosine
  return (optim.learning_rate * rise * fall).astype(jnp.float32)


def make_optimizer(optim: ConfigDict, steps: int) -> optax.GradientTransformation:
  """Chains clipping by the global norm, Adam, decoupled weight decay and the learning rate.

  The moments are float32, as the parameters are.
  """
  return optax.chain(
    optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
    optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2),
    optax.add_decayed_weights(optim.weight_decay, mask=weight_decay_mask),
    optax.scale_by_learning_rate(lambda count: learning_rate(optim, steps, count + 1)),
  )


def weight_decay_mask(model):
  """A tree of bools: True for the matrices of the network, on which weight decay acts.

  These are token embeddings and projections. Parameters in `layers` are stacked, so their first
  axis does not count: the norms [N, D] are no matrix. An encoding's parameters never decay: zero
  means "no position" in one encoding and something else in the next, so decay would confound the
  comparison.
  """

  def is_decayed(path, leaf):
    part = path[0].name
    ndim = leaf.ndim - 1 if part == 'layers' else leaf.ndim
    return part != 'encodings' and ndim >= 2

  return jax.tree_util.tree_map_with_path(is_decayed, model)
