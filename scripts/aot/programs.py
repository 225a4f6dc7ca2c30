"""What is compiled: attention with its gradients, and the training step of a config."""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import cli, data, tasks
from posenc_jax.attention import attend, resolve_backend
from posenc_jax.attention.backends.ring_walk import num_steps, tiles_of_device
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import AttentionRequest, build_request
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.distributed import mesh as meshes
from posenc_jax.encodings import make
from posenc_jax.model import decoder
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

from .cases import CASES, Case


@dataclasses.dataclass(frozen=True)
class AttentionProgram:
  """Attention forward and backward, which a backend has said that it takes.

  Attributes:
    backend: the one that serves it, also where `auto` was asked for.
    unknown_turns: as for `hlo.Program`.
  """

  backend: str
  unknown_turns: float | None
  mesh: jax.sharding.Mesh
  function: Callable
  arguments: tuple

  def lower(self):
    """The program, traced and lowered for the devices of its mesh."""
    with jax.set_mesh(self.mesh):
      return jax.jit(self.function).lower(*self.arguments)


def attention_program(
  mesh, spec: str, backend: str, sizes: dict, block_sizes=None, case: Case = CASES['causal']
) -> AttentionProgram:
  """Attention forward and backward: to q, k, v, the layer's input and all parameters.

  Args:
    mesh: with the axes of a run.
    spec: 'NAME/hyper=value'.
    sizes: batch, length, heads, head_dim and dtype.

  Raises NotImplementedError or ValueError, one line, where the backend or the encoding refuses.
  Whatever its `lower` raises is no refusal.
  """
  B, H, K = (sizes[name] for name in ('batch', 'heads', 'head_dim'))
  S, G = case.cut(sizes['length']), H // case.groups
  if H % case.groups:
    raise ValueError(f'{H} heads are no multiple of {case.groups}')
  dims = {'model_dim': H * K, 'heads': H, 'kv_heads': G, 'head_dim': K}
  hyper = cli.encoding_of(spec)
  enc = jax.eval_shape(
    lambda: make(**hyper, **dims, train_length=sizes['length'], rngs=nnx.Rngs(0))
  )
  is_cut = S % mesh.shape[SEQUENCE_AXIS] == 0  # else `attend` pads and cuts
  tokens = jax.NamedSharding(mesh, meshes.TOKENS if is_cut else jax.P(meshes.TOKENS[0]))
  of_tokens = lambda dtype, *shape: jax.ShapeDtypeStruct((B, S, *shape), dtype, sharding=tokens)
  of_heads = lambda heads, width: of_tokens(sizes['dtype'], heads, width)
  arguments = (
    jax.tree.map(lambda x: _shape(x, jax.NamedSharding(mesh, jax.P())), enc),
    *(of_heads(H, K), of_heads(G, K), of_heads(G, case.values(K))),
    of_tokens(sizes['dtype'], H * K),
    _ids(case, enc, of_tokens),
  )
  mask, options = case.mask(sizes['length']), {'softcap': case.softcap, 'block_sizes': block_sizes}
  if case.positions:
    options['max_position_distance'] = S - 1

  def given(enc, q, k, v, x, ids):
    q, k, v = enc.enter_attention(q, k, v, enc.initial_state(jnp.arange(S)[None], B))
    others = options | ids | {'x': x, 'outer_hooks_applied': True}
    return (q[:, S - case.queries(S) :], k, v, enc), others

  def loss(*arguments):
    qkv_and_enc, others = given(*arguments)
    o = attend(*qkv_and_enc, backend=backend, mask=case.function, **mask, **others)
    return (o.astype(jnp.float32) ** 2).sum()

  serving, visits = '', None

  def ask(*arguments):
    nonlocal serving, visits
    qkv_and_enc, others = given(*arguments)
    request = build_request(*qkv_and_enc, mask=Mask(**mask, function=case.function), **others)
    serving = resolve_backend(request, backend)
    visits = visits_of_row(request, serving)

  with jax.set_mesh(mesh):
    jax.eval_shape(ask, *arguments)
  function = jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4))
  return AttentionProgram(serving, visits, mesh, function, arguments)


def visits_of_row(request: AttentionRequest, backend: str) -> float | None:
  """How many tiles a row of tiles visits in the mean; on a ring in each step, of the device that
  visits the most then. None: of a backend without such loops.
  """
  if backend not in ('blockwise', 'ring'):
    return None
  devices = sequence_shards() if backend == 'ring' else 1
  schedule = TileSchedule.of_request(request, devices)
  grid = schedule.grid
  rows, columns, steps = grid.tile_rows, grid.tile_columns, 1
  if backend == 'ring':
    rows, columns = tiles_of_device(schedule)
    steps = num_steps(schedule, devices, columns)
  here, visited = np.arange(devices)[:, None], 0
  for step in range(steps):
    first_column = (here - step) % devices * columns
    visits = grid.visits(here * rows + np.arange(rows), first_column, columns)
    of_rows = np.broadcast_to(visits.stop - visits.start, (devices, rows))
    visited += of_rows.sum(axis=1).max()
  return visited / (steps * rows)


def _ids(case: Case, enc, of_tokens) -> dict:
  """The segments, positions and what a mask reads of tokens, that a case gives as data."""
  ids = {}
  if case.function is not None and len(inspect.signature(case.function).parameters) == 4:
    ids['mask_ids'] = of_tokens(jnp.int32)
  if case.packed:
    ids['segment_ids'] = of_tokens(jnp.int32)
  if case.positions:
    each = () if enc.positions_per_token == 1 else (enc.positions_per_token,)
    dtype = jnp.int32 if case.positions == 'integers' else jnp.float32
    ids['position_ids'] = of_tokens(dtype, *each)
  return ids


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
  batch, largest_position = first_batch(c, jnp.zeros((c.train.batch, c.train.length), int))
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


def first_batch(c: ConfigDict, tokens_BT) -> tuple[data.Batch, int | None]:
  """(the first batch of a task, or one of these tokens of text, a bound on its positions)."""
  if tasks.is_task(c.data.corpus):  # whose batches may carry positions
    corpus = data.opened(c.data, 'train')
    batch = corpus.batches(c.train.length, c.train.batch, c.seed)[0]
    return batch, corpus.largest_position(c.train.length)
  segments_BT = jnp.zeros_like(tokens_BT) if c.data.packing == 'separate' else None
  return data.Batch(tokens_BT, segments_BT=segments_BT), None


def _shape(x, sharding):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
