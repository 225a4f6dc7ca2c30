"""Our side: attention through each backend, and the trainer's step."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import data
from posenc_jax.attention import attend
from posenc_jax.config import encoding_of
from posenc_jax.encodings import make
from posenc_jax.model.decoder import build as build_model
from posenc_jax.training import multi_seed
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

from . import memory, plain
from .cases import MATRIX, PLAIN, TRAIN_LENGTH, Case, step_config, tokens
from .subject import Refused, Subject


def hello() -> dict:
  device = jax.devices()[0]
  version = f'{jax.__version__} (flax {importlib.metadata.version("flax")})'
  return {
    'framework': 'jax',
    'version': version,
    'platform': device.platform,
    'device': device.device_kind,
  }


def build(case: Case) -> Subject:
  """What a case measures. Raises `Refused`, or NotImplementedError of a backend."""
  if case.section == 'step':
    return step(case)
  return matrix_product(case) if case.method == 'matmul' else attention(case)


def normal(seed: int, *shape: int, dtype: str):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def matrix_product(case: Case) -> Subject:
  a = normal(0, MATRIX, MATRIX, dtype=case.dtype)
  product = jax.jit(jnp.matmul)
  return Subject(lambda: product(a, a).block_until_ready(), {'temporary_bytes': None})


def attention(case: Case) -> Subject:
  """`attend` with every argument given from outside, forward or with its gradients."""
  H, K = case.heads, case.head_dim
  hyper = encoding_of(case.encoding)
  enc = make(
    **hyper, model_dim=H * K, heads=H, head_dim=K, train_length=TRAIN_LENGTH, rngs=nnx.Rngs(0)
  )
  if enc.places() == ('input',):
    raise Refused('acts on the input of the model: its attention is that of nope')
  shape = (case.batch, case.length, H, K)
  q, k, v, cotangent = (normal(seed, *shape, dtype=case.dtype) for seed in range(4))
  x = normal(4, case.batch, case.length, H * K, dtype=case.dtype)

  def forward(enc, q, k, v, x):
    return (
      plain.attention(q, k, v)
      if case.method == PLAIN
      else attend(q, k, v, enc, x=x, backend=case.method)
    )

  def both(enc, q, k, v, x, cotangent):
    o, pull = jax.vjp(lambda *differentiated: forward(*differentiated, x), enc, q, k, v)
    return o, pull(cotangent)

  function, arguments = (forward, ()) if case.passes == 'forward' else (both, (cotangent,))
  arguments = (enc, q, k, v, x, *arguments)
  compiled, facts = compile_within_memory(jax.jit(function), *arguments)
  return Subject(lambda: jax.block_until_ready(compiled(*arguments)), facts)


def step(case: Case) -> Subject:
  """The trainer's own step, on one batch again and again; of several seeds, those of all: at once
  or in turn.
  """
  config, batch = step_config(case), data.Batch(tokens(case))
  optimizer = make_optimizer(config.optim, config.train.steps)
  models = [
    build_model(config, data.VOCAB, nnx.Rngs(seed)) for seed in config.seeds or [config.seed]
  ]
  states = [(model, optimizer.init(model)) for model in models]
  if config.vmap_seeds:
    states, batch = (
      [multi_seed.stack(states, config.seeds)],
      multi_seed.stack([batch] * len(states), config.seeds),
    )
  elif config.seeds:
    config.seeds = ()
  with jax.default_matmul_precision(config.train.matmul_precision):
    compiled, facts = compile_within_memory(make_step_fns(config, optimizer)[0], *states[0], batch)

  def call():
    losses = []
    for n, state in enumerate(states):
      *states[n], metrics = jax.block_until_ready(compiled(*state, batch))
      losses.append(np.mean(metrics['loss']))
    return float(np.mean(losses))

  return Subject(
    call, facts | {'parameters': sum(leaf.size for leaf in jax.tree.leaves(models[0]))}
  )


def compile_within_memory(jitted, *arguments):
  """The compiled function and its temporary memory; `Refused` where that is more than a process may
  take.
  """
  compiled = jitted.lower(*arguments).compile()
  temporary = compiled.memory_analysis().temp_size_in_bytes
  if jax.default_backend() == 'cpu' and (reason := memory.too_much(temporary)):
    raise Refused(reason)
  return compiled, {'temporary_bytes': temporary}
