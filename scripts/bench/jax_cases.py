"""The cases in jax: attention through each backend, the trainer's step, and evaluation.

A case that cannot be measured raises `Unsupported`, or NotImplementedError of a backend.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from posenc_jax import data
from posenc_jax.attention import attend
from posenc_jax.cli import encoding_of
from posenc_jax.encodings import make
from posenc_jax.evaluation.model_functions import compiled as compiled_for_evaluation
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model.decoder import build as build_model
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import mfu, multi_seed
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

from . import memory
from .cases import (
  JAX_PEERS,
  LARGE_MATMUL_SIZE,
  LARGE_MATMULS,
  MATMUL_SIZE,
  SCORED_TOKENS,
  TRAIN_LENGTH,
  Case,
  step_config,
  tokens,
)
from .work import Unsupported, Work


def describe() -> dict:
  device = jax.devices()[0]
  return {
    'framework': 'jax',
    'version': f'{jax.__version__} (flax {importlib.metadata.version("flax")})',
    'platform': device.platform,
    'device': device.device_kind,
  }


def normal(seed: int, *shape: int, dtype: str):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def matmul(case: Case) -> Work:
  if jax.default_backend() == 'cpu':
    a = normal(0, MATMUL_SIZE, MATMUL_SIZE, dtype=case.dtype)
    product = jax.jit(jnp.matmul)
    return Work(lambda: product(a, a).block_until_ready(), {'temporary_bytes': None})
  size, times = LARGE_MATMUL_SIZE, LARGE_MATMULS
  a = normal(0, size, size, dtype=case.dtype) / size**0.5  # so that products are as large
  products = jax.jit(lambda a: lax.fori_loop(0, times, lambda _, x: x @ a, a))
  facts = {'temporary_bytes': None, 'operations': 2.0 * times * size**3}
  return Work(lambda: products(a).block_until_ready(), facts)


def attention(case: Case) -> Work:
  """`attend`, forward or with the gradients of all its arguments but x."""
  H, K = case.heads, case.head_dim
  sizes = {'model_dim': H * K, 'heads': H, 'head_dim': K, 'train_length': TRAIN_LENGTH}
  # a peer that computes none of the encodings asked for computes attention without one
  enc = make(**encoding_of(case.encoding or 'nope'), **sizes, rngs=nnx.Rngs(0))
  if enc.acts_on() == ('input',):
    raise Unsupported('acts on the input of the model: its attention is that of nope')
  shape = (case.batch, case.length, H, K)
  q, k, v = (normal(seed, *shape, dtype=case.dtype) for seed in range(3))
  x = normal(4, case.batch, case.length, H * K, dtype=case.dtype)
  peer = peer_of_attention(case.method) if case.method in JAX_PEERS else None

  def forward(enc, q, k, v, x):
    if peer is not None:
      return peer(q, k, v)
    state = enc.initial_state(jnp.arange(case.length)[None], case.batch)
    q, k, v = enc.enter_attention(q, k, v, state)
    o = attend(q, k, v, enc, x=x, backend=case.method, outer_hooks_applied=True)
    return enc.leave_attention(o, state)[0]

  def both(enc, q, k, v, x, cotangent):
    o, pullback = jax.vjp(lambda *arguments: forward(*arguments, x), enc, q, k, v)
    return o, pullback(cotangent)

  function, arguments = forward, (enc, q, k, v, x)
  if case.passes == 'both':
    o = jax.eval_shape(forward, *arguments)  # an encoding may make more heads than there are
    function, arguments = both, (*arguments, normal(3, *o.shape, dtype=o.dtype))
  compiled, facts = compile_within_memory(jax.jit(function), *arguments)
  facts['operations'] = case.operations * enc.heads_out_per_head
  return Work(lambda: jax.block_until_ready(compiled(*arguments)), facts)


def peer_of_attention(name: str) -> Callable:
  """(q_BTHK, k_BTHK, v_BTHK) -> o_BTHK of causal attention by the kernels of others, which choose
  among them themselves. Raises `Unsupported` where they are not installed.
  """
  if importlib.util.find_spec(name) is None:
    raise Unsupported(f'not installed: pip install {name}')
  return functools.partial(importlib.import_module(name).dot_product_attention, is_causal=True)


def step(case: Case) -> Work:
  """The step of a case."""
  return step_of_config(step_config(case), data.Batch(tokens(case)))


def step_of_config(config, batch: data.Batch, largest_position: int | None = None) -> Work:
  """The trainer's own step on the same batch again and again; `largest_position`: as for
  `make_step_fns`.

  With several seeds one call makes a step of each of them: in one program if `config.vmap_seeds`,
  else one after another.
  """
  optimizer = make_optimizer(config.optim, config.train.steps, config.train.trained_parameters)
  seeds = config.seeds or (config.seed,)
  models = [build_model(config, data.vocab(config.data), nnx.Rngs(seed)) for seed in seeds]
  states = [(model, optimizer.init(model)) for model in models]
  if config.vmap_seeds:
    states = [multi_seed.stack(states, seeds)]
    batch = multi_seed.stack([batch] * len(seeds), seeds)
  else:
    config = config.copy_and_resolve_references()
    config.seeds = ()
  with jax.default_matmul_precision(config.train.matmul_precision):
    train_step, _ = make_step_fns(config, optimizer, largest_position)
    compiled, facts = compile_within_memory(train_step, *states[0], batch)

  def call():
    losses = []
    for n, state in enumerate(states):
      *states[n], metrics = jax.block_until_ready(compiled(*state, batch))
      losses.append(np.mean(metrics['loss']))
    return float(np.mean(losses))

  parameters = sum(leaf.size for leaf in jax.tree.leaves(models[0]))
  operations = len(seeds) * mfu.model_flops(config, models[0])
  kind, c = jax.devices()[0].device_kind, config.train
  peak = mfu.peak_flops(kind, c.compute_dtype, c.matmul_precision)
  facts |= {'parameters': parameters, 'operations': operations, 'device_flops': peak}
  return Work(call, facts)


def evaluation(case: Case) -> Work:
  """The nats of the last tokens of a window, by the function that eval.py calls for last_k."""
  run = load_run(case.folder, {'eval.compute_dtype': case.dtype})
  arguments = run.model, tokens(case)
  with jax.default_matmul_precision('highest'):
    function = compiled_for_evaluation(token_nll, run.config)
    program, facts = compile_within_memory(function, *arguments, last=SCORED_TOKENS)

  def call():
    facts['nats'] = np.asarray(program(*arguments)).ravel()

  return Work(call, facts)


def compile_within_memory(jitted, *arguments, **static):
  """A compiled function and the memory that it takes beyond its arguments, None where its compiler
  does not say. Raises `Unsupported` if a process may not take that much. The function does not take
  the `static` arguments again.
  """
  compiled = jitted.lower(*arguments, **static).compile()
  if (sizes := compiled.memory_analysis()) is None:
    return compiled, {'temporary_bytes': None}
  temporary = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  if jax.default_backend() == 'cpu' and (reason := memory.excess(temporary)):
    raise Unsupported(reason)
  return compiled, {'temporary_bytes': temporary}
