"""AdamW or Muon with linear warm-up and decay: plain optax on the model as a pytree."""

import fnmatch
import re
from collections.abc import Collection

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from ml_collections import ConfigDict

from posenc_jax.distributed import mesh
from posenc_jax.errors import UserError
from posenc_jax.training.checkpoints import leaves_by_path

# The optimizer of a run of no steps, whose state is that no step was made.
NO_OPTIMIZER = optax.GradientTransformation(
  init=lambda model: {'count': jnp.zeros((), jnp.int32)}, update=None
)


def learning_rate(optim: ConfigDict, steps: int, step):
  """The learning rate of update `step`, which counts from 1 to `steps`.

  It rises linearly to its peak at `warmup`, stays there until the last `decay_steps`, and falls to
  `final_fraction` of the peak.
  """
  rise = jnp.minimum(step / max(optim.warmup, 1), 1.0)
  decay_steps = optim.decay_steps or steps - optim.warmup
  progress = jnp.clip((step - (steps - decay_steps)) / max(decay_steps, 1), 0.0, 1.0)
  is_linear = optim.decay == 'linear'
  left = 1 - progress if is_linear else 0.5 * (1 + jnp.cos(jnp.pi * progress))
  fall = optim.final_fraction + (1 - optim.final_fraction) * left
  return (optim.learning_rate * rise * fall).astype(jnp.float32)


def make_optimizer(
  optim: ConfigDict, steps: int, patterns: Collection[str] = ()
) -> optax.GradientTransformation:
  """Chains clipping by the global norm, Adam, decoupled weight decay and the learning rate. With
  `optim.name` of 'muon', Muon takes the place of Adam for the matrices of the layers.

  The moments are float32, as the parameters are. With `patterns`, see `trained_mask`, the others
  have no moments, and their gradients must be zero: see `only_trained`.
  """
  scale = optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2, eps=optim.epsilon)
  decayed = weight_decay_mask
  if optim.name == 'muon':
    scales = {'muon': _scale_by_muon(), 'adam': scale, 'fixed': optax.identity()}
    scale = optax.partition(scales, lambda model: _muon_labels(model, patterns))
  elif patterns:
    scale = optax.masked(scale, lambda model: trained_mask(model, patterns))
  if patterns:

    def decayed(model):
      masks = weight_decay_mask(model), trained_mask(model, patterns)
      return jax.tree.map(lambda *both: all(both), *masks)

  return optax.chain(
    optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
    scale,
    optax.add_decayed_weights(optim.weight_decay, mask=decayed),
    # a member that does nothing would change the state, and so every checkpoint of before
    *([_scale_encodings(optim.encoding_multiple)] if optim.encoding_multiple != 1 else []),
    optax.scale_by_learning_rate(lambda count: learning_rate(optim, steps, count + 1)),
  )


def _scale_by_muon() -> optax.GradientTransformation:
  """Muon of stacked matrices [N, in, out]: the momentum of each, with singular values brought near
  1 by a Newton-Schulz iteration (Jordan 2024, https://kellerjordan.github.io/posts/muon/).

  An update is then multiplied by 0.2 sqrt(max(in, out)): the root mean square of its elements is
  near 0.2, as it is with AdamW, so that learning rate and weight decay can be AdamW's (Liu et al.
  2025, arXiv:2502.16982, sect. 2.2).
  """

  def axes(stacks):
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), stacks)

  def scale(update, _):
    return update * (0.2 * max(update.shape[-2:]) ** 0.5)

  # All said here, whatever the defaults of the installed optax are.
  muon = optax.contrib.scale_by_muon(
    ns_coeffs=(3.4445, -4.775, 2.0315),
    ns_steps=5,
    beta=0.95,
    eps=1e-8,
    nesterov=True,
    preconditioning='frobenius',
    weight_dimension_numbers=axes,
  )

  def update(stacks, state, params=None):
    """Devices iterate on matrices of their own, where a mesh has several: see `mesh`."""
    stacks, mu = mesh.share_out_stacks((stacks, state.mu))
    updates, state = muon.update(stacks, state._replace(mu=mu), params)
    updates, mu = mesh.gather_stacks((updates, state.mu))
    return updates, state._replace(mu=mu)

  shared = optax.GradientTransformation(muon.init, update)
  return optax.chain(shared, optax.stateless_with_tree_map(scale))


def _muon_labels(model, patterns: Collection[str]):
  """A tree of labels: what scales the update of each parameter where the optimizer is Muon.

  That is 'muon' for the matrices of the layers, 'adam' for all else, with the token embedding, the
  output matrix and all of an encoding, and 'fixed' for parameters that do not train.
  """

  def label(path, leaf, is_trained):
    if not is_trained:
      return 'fixed'
    return 'muon' if _part(path) == 'layers' and leaf.ndim == 3 else 'adam'

  return jax.tree_util.tree_map_with_path(label, model, trained_mask(model, patterns))


def _scale_encodings(multiple: float) -> optax.GradientTransformation:
  """Multiplies the updates of an encoding's own parameters."""

  def scale(path, update):
    return update * multiple if _part(path) == 'encodings' else update

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _part(path) -> str:
  """The part of the model that a leaf belongs to: 'layers', 'encodings', ..."""
  return path[0].name


def trained_mask(model, patterns: Collection[str]):
  """A tree of bools: True for the parameters that train, whose paths one of the patterns fits.

  A path is that of checkpoints, such as 'layers/w_q' or 'encodings/variants/0/encoding/table'; in a
  pattern * stands for anything. Without patterns all train. Raises ValueError for a pattern that
  fits nothing.
  """
  paths = list(leaves_by_path(model))
  for pattern in patterns:
    if not fnmatch.filter(paths, pattern):
      parts = sorted({re.sub('/variants/.*', '/*', path) for path in paths})
      raise ValueError(f'{pattern!r} fits no parameter; allowed: {", ".join(parts)}')
  fits = [
    not patterns or any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
    for path in paths
  ]
  return jax.tree.unflatten(jax.tree.structure(model), fits)


def check_trained_parameters(config: ConfigDict, model) -> None:
  """Raises `UserError` for a pattern of the config that fits no parameter of the model."""
  patterns = config.train.trained_parameters
  try:
    trained_mask(model, patterns)
  except ValueError as error:
    raise UserError(f'config.train.trained_parameters={patterns}: {error}') from None


def only_trained(grads, patterns: Collection[str]):
  """The gradients, zero for parameters that do not train: XLA then leaves out what they need."""
  if not patterns:
    return grads
  mask = trained_mask(grads, patterns)
  return jax.tree.map(lambda g, is_trained: g if is_trained else jnp.zeros_like(g), grads, mask)


def weight_decay_mask(model):
  """A tree of bools: True for the matrices of the network, on which weight decay acts.

  These are token embeddings and projections. Parameters in `layers` are stacked, so their first
  axis does not count: the norms [N, D] are no matrix. An encoding's parameters never decay: zero
  means "no position" in one encoding and something else in the next, so decay would confound the
  comparison.
  """

  def is_decayed(path, leaf):
    part = _part(path)
    ndim = leaf.ndim - 1 if part == 'layers' else leaf.ndim
    return part != 'encodings' and ndim >= 2

  return jax.tree_util.tree_map_with_path(is_decayed, model)
