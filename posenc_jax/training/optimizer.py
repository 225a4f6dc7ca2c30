"""AdamW with linear warm-up and a cosine, as raw optax over the model as a plain pytree."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def learning_rate(optim: ConfigDict, steps: int, step):
  """The rate of update `step` = 1..steps: linear to the peak at `warmup`, then a cosine to
  `final_fraction` of it.
  """
  warm = jnp.minimum(step / max(optim.warmup, 1), 1.0)
  progress = jnp.clip((step - optim.warmup) / max(steps - optim.warmup, 1), 0.0, 1.0)
  cosine = optim.final_fraction + (1 - optim.final_fraction) * 0.5 * (
    1 + jnp.cos(jnp.pi * progress)
  )
  return (optim.learning_rate * warm * cosine).astype(jnp.float32)


def make_optimizer(optim: ConfigDict, steps: int) -> optax.GradientTransformation:
  """Clipping by global norm, Adam, decoupled weight decay, learning rate; the moments are float32,
  as the model is.
  """
  return optax.chain(
    optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
    optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2),
    optax.add_decayed_weights(optim.weight_decay, mask=decayed),
    optax.scale_by_learning_rate(lambda count: learning_rate(optim, steps, count + 1)),
  )


def decayed(model):
  """A tree of bools: which parameters weight decay acts on.

  Matrices of the network: token embeddings and projections. A parameter of `layers` is a stack over
    layers, so its
  first axis does not count: a norm's [N, D] is no matrix. An encoding's parameters never decay:
    their zero means "no
  position" for one encoding and something else for the next, which would confound the comparison.
  """

  def is_matrix(path, leaf):
    part = path[0].name
    return part != 'encodings' and leaf.ndim - (part == 'layers') >= 2

  return jax.tree_util.tree_map_with_path(is_matrix, model)
