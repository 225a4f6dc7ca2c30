"""What is compiled: attention with its gradients, and the training step of a config."""

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import cli, data, tasks
from posenc_jax.attention import attend
from posenc_jax.distributed import mesh as meshes
from posenc_jax.encodings import make
from posenc_jax.model import decoder
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns


def trace_attention(mesh, spec: str, backend: str, sizes: dict, block_sizes=None):
  """Attention forward and backward: to q, k, v, the layer's input and all parameters.

  Args:
    mesh: with the axes of a run.
    spec: 'NAME/hyper=value'.
    sizes: batch, length, heads, head_dim and dtype.
  """
  B, T, H, K = (sizes[name] for name in ('batch', 'length', 'heads', 'head_dim'))
  dims = {'model_dim': H * K, 'heads': H, 'head_dim': K, 'train_length': T}
  hyper = cli.encoding_of(spec)
  enc = jax.eval_shape(lambda: make(**hyper, **dims, rngs=nnx.Rngs(0)))
  enc = jax.tree.map(lambda x: _shape(x, jax.NamedSharding(mesh, jax.P())), enc)
  tokens = jax.NamedSharding(mesh, meshes.TOKENS)
  q = jax.ShapeDtypeStruct((B, T, H, K), sizes['dtype'], sharding=tokens)
  x = jax.ShapeDtypeStruct((B, T, H * K), sizes['dtype'], sharding=tokens)

  def loss(enc, q, k, v, x):
    options = {'backend': backend, 'block_sizes': block_sizes, 'outer_hooks_applied': True}
    q, k, v = enc.enter_attention(q, k, v, enc.initial_state(jnp.arange(T)[None], B))
    o = attend(q, k, v, enc, x=x, **options)
    return (o.astype(jnp.float32) ** 2).sum()

  with jax.set_mesh(mesh):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4))).trace(enc, q, q, q, x)


def trace_step(mesh, c: ConfigDict):
  """The training step of a config, traced for the devices of a mesh."""
  step, shapes = step_and_shapes(mesh, c)
  with jax.set_mesh(mesh), jax.default_matmul_precision(c.train.matmul_precision):
    return step.trace(*shapes)


def step_and_shapes(mesh, c: ConfigDict):
  """The jitted training step of a config, and the shapes that it takes, on the devices of a mesh.

  No data are read, but for the examples of a task. Seeds are those that are trained in one program;
  where they are trained one after another, it is the step of one.
  """
  if not c.vmap_seeds:
    c = c.copy_and_resolve_references()
    c.seeds = ()
  optimizer = make_optimizer(c.optim, c.train.steps, c.train.trained_parameters)
  model = decoder.shapes(c, data.vocab(c.data))
  state = model, jax.eval_shape(optimizer.init, model)
  batch, largest_position = data.Batch(jnp.zeros((c.train.batch, c.train.length), int)), None
  if tasks.is_task(c.data.corpus):
    corpus = data.source(c.data, 'train')
    batch = corpus.batches(c.train.length, c.train.batch, c.seed)[0]
    largest_position = corpus.largest_position(c.train.length)
  tokens = meshes.TOKENS
  if c.seeds:
    add_axis = lambda x: jax.ShapeDtypeStruct((len(c.seeds), *x.shape), x.dtype)
    state, batch = jax.tree.map(add_axis, (state, batch))
    tokens = meshes.SEED_TOKENS
  shardings = meshes.parameter_shardings(mesh, state, has_seed_axis=bool(c.seeds))
  state = jax.tree.map(_shape, state, shardings)
  batch = jax.tree.map(lambda x: _shape(x, jax.NamedSharding(mesh, tokens)), batch)
  step, _ = make_step_fns(c, optimizer, largest_position)
  return step, (*state, batch)


def _shape(x, sharding):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
