"""Functions of the model that measurements need besides `token_nll`: predictions and gradient
norms; what `observed` makes of a function of layers; and how all of these are compiled.

A function takes (model, tokens_BT, **options), options being those of `LM.__call__`, and returns
numbers for each token of each window, or pairs of them; one from `observed`, what it observes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from posenc_jax.distributed.mesh import TOKENS
from posenc_jax.model.decoder import options_on_one_device
from posenc_jax.model.token_nll import nats_of_logits, token_hidden, token_logits, token_nll


def predictions(model, tokens_BT, *, last: int | None = None, **options):
  """Returns (right_BT, nats_BT): whether each token is the likeliest one, bool, and its nats; of
  the `last` tokens of each window alone, unless that is None.
  """
  logits_BTV = token_logits(model, tokens_BT, last=last, **options)
  tokens_BT = tokens_BT if last is None else tokens_BT[:, -last:]
  nats_BT = nats_of_logits(logits_BTV, tokens_BT)
  # of logits that are no numbers, the first would be the largest
  return (logits_BTV.argmax(-1) == tokens_BT) & jnp.isfinite(nats_BT), nats_BT


def gradient_norms(model, tokens_BT, **options):
  """Returns norms_BT: the norm of the gradient of a window's last nats by the embedding of each
  input. The inputs are BOS and the first T - 1 tokens. Layers are computed twice, whatever
  `model.remat` says, so that the activations of one at a time are held.
  """
  model = jax.tree.map(lambda leaf: leaf, model)  # the caller's stays as it is
  model.remat = 'layer'

  def last_nats(added_BTD):
    return token_nll(model, tokens_BT, added_BTD=added_BTD, last=1, **options).sum()

  zeros_BTD = jnp.zeros((*tokens_BT.shape, model.embedding.shape[1]))
  return jnp.linalg.norm(jax.grad(last_nats)(zeros_BTD), axis=-1)


def observed(function: Callable) -> Callable:
  """Returns (model, tokens_BT, **options) -> what `LM.hidden` returns of this `observe`."""

  def call(model, tokens_BT, **options):
    return token_hidden(model, tokens_BT, observe=function, **options)[1]

  return call


def compiled(function: Callable, config: ConfigDict) -> Callable:
  """Returns (model, tokens_BT, positions=None, window=None, sink_tokens=0,
  max_position_distance=None, last=None) -> the function's numbers, compiled by jit, with the
  config's attention. Activations are of `eval.compute_dtype`, logits float32. Layers are looped
  over, so that one is compiled and not all, unless `model.unroll` says how many are unrolled.

  `positions` are those that tokens carry, no two of them farther apart than
  `max_position_distance`. `window` limits attention to so many tokens and does not widen the
  config's own window. `sink_tokens` lets it see so many of the first inputs from everywhere, in
  layers with a shorter window of their own, too, and does not hide the config's own sink tokens.
  `last` is that of `token_nll`; `predictions` takes it, too, and no other function.
  """
  dtypes = {'dtype': config.eval.compute_dtype, 'logits_dtype': 'float32'}
  options = options_on_one_device(config) | dtypes

  def call(
    model,
    tokens_BT,
    positions=None,
    window=None,
    sink_tokens=0,
    max_position_distance=None,
    last=None,
  ):
    windows = [tokens for tokens in (window, options['window']) if tokens]
    own = {
      'window': min(windows, default=None),
      'sink_tokens': max(sink_tokens, options['sink_tokens']),
      'token_positions': positions,
      'max_position_distance': max_position_distance,
    }
    if last is not None:
      own['last'] = last
    model = jax.tree.map(lambda leaf: leaf, model)  # the caller's stays as it is
    model.unroll = config.model.unroll or 1
    return function(model, tokens_BT, **{**options, **own})

  return jax.jit(call, static_argnames=('window', 'sink_tokens', 'max_position_distance', 'last'))


def on_devices(function: Callable, model) -> Callable:
  """Returns (tokens_BT, *positions, **options) -> the numbers of `function`, one from `compiled`.

  The devices of the mesh that the model is on compute equally many rows of a batch each: what they
  do not divide gets rows of zeros.
  """
  mesh = jax.tree.leaves(model)[0].sharding.mesh
  if mesh.size == 1:
    on_one = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, model)
    return functools.partial(function, on_one)

  def call(*batch, **options):
    rows = len(batch[0])
    more = -rows % mesh.size
    padded = [np.pad(x, ((0, more), *[(0, 0)] * (x.ndim - 1))) for x in batch]
    with jax.set_mesh(mesh):
      numbers = function(model, *jax.device_put(padded, NamedSharding(mesh, TOKENS)), **options)
    return jax.tree.map(lambda x: np.asarray(x)[:rows], numbers)

  return call
