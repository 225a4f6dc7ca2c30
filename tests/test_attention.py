"""The attention interface: shifts and their adjoints, memory, refusals, arguments, and an encoding
added by a user.
"""

import dataclasses
import functools
import inspect
import itertools
import re
import sys
import typing
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import check_on_a_gpu, gradients, on
from flax import nnx
from half_precision import sums_in_half_precision
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from kinds import in_ci, slow

from posenc_jax import target
from posenc_jax.attention import BACKENDS, attend
from posenc_jax.attention.backends import cudnn
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.positions import contiguous_positions
from posenc_jax.attention.request import build_request, known_max_position_distance
from posenc_jax.attention.tiled import carry, distance_readers
from posenc_jax.attention.tiled.carry import GROUP, suffix_sum
from posenc_jax.attention.tiled.distance_readers import STRIP, GatherDistance, ToeplitzDistance
from posenc_jax.attention.tiled.distance_tables import Scalars, spread
from posenc_jax.attention.tiled.geometry import TileGrid
from posenc_jax.attention.tiled.schedule import TileSchedule, cut_into_tiles
from posenc_jax.config.relations import WITHOUT_TILES
from posenc_jax.encodings import ENCODINGS, Encoding, make
from posenc_jax.encodings.core import base
from posenc_jax.encodings.core.base import MASKED, check_numbers_of_positions
from posenc_jax.encodings.hard_alibi import HardALiBi
from posenc_jax.model.decoder import check_tokens
from posenc_jax.xla_ops import (
  matmul,
  relative_shift,
  relative_shift_transpose,
  scaled_dot,
  weighted_sum,
)

rng = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
SIZES = {'model_dim': 32, 'heads': 4, 'head_dim': 8, 'train_length': 16}


@pytest.fixture(autouse=True)
def same_draws():
  """A test draws the same numbers, whichever tests came before it."""
  rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


def build(name, **hyper):
  return make(name, **SIZES | {'rngs': nnx.Rngs(0)} | hyper)


def test_types_say_what_attend_returns_with_the_arguments_that_it_has():
  """A type checker reads the overloads alone."""
  flag, own = 'return_logsumexp', dict(inspect.signature(attend).parameters)
  assert own.pop(flag).default is False
  returned = {}
  for overload in typing.get_overloads(attend):
    signature = inspect.signature(overload)
    arguments = dict(signature.parameters)
    chosen = arguments.pop(flag)
    assert arguments == own
    returned[chosen.annotation, chosen.default] = signature.return_annotation
  assert returned == {
    (typing.Literal[False], False): jax.Array,
    (typing.Literal[True], inspect.Parameter.empty): tuple[jax.Array, jax.Array],
    (bool, inspect.Parameter.empty): jax.Array | tuple[jax.Array, jax.Array],
  }


@pytest.mark.parametrize(
  ('T', 'S', 'H'),
  [
    *((5, 3, 3), pytest.param(4, 4, 1, marks=pytest.mark.slow), (1, 6, 1), (6, 1, 3)),
    *((2 * STRIP, 3, 3), (3, 2 * STRIP, 1)),
  ],
)
def test_diagonals_pick_the_row_of_their_distance(T, S, H):
  """Row m of a block's table belongs to t - s = m - S, in each strip of the block; lookups agree,
  for shared rows (H = 1) and for rows a head.
  """
  q, k, values = normal(2, 3, T, 4), normal(2, 3, S, 4), normal(3, T + S)
  p = normal(2, 3, T, S) / S**0.5  # sums over the keys are no larger where there are many
  r = np.arange(T)[None, :, None] - np.arange(S)[None, None]
  row = r[0] + S
  np.testing.assert_array_equal(spread(values[:, ::-1], T, S), values[:, row])
  gather = GatherDistance.of_range(jnp.asarray(r), -S, T - 1)
  np.testing.assert_array_equal(gather.terms_of_tile(Scalars(values.T))[0], values[:, row])

  @jax.jit
  def read(table):
    rows = jnp.moveaxis(table, 1, 0)
    by_pair = jnp.broadcast_to(table, (T + S, 3, 4))[row]
    return [
      (distances.query_dot(q, rows), distances.key_dot(k, rows), distances.sum_by_distance(p, rows))
      for distances in (ToeplitzDistance(T, S), gather)
    ], (
      jnp.einsum('bhtk,tshk->bhts', q, by_pair),
      jnp.einsum('bhsk,tshk->bhts', k, by_pair),
      jnp.einsum('bhts,tshk->bhtk', p, by_pair),
    )

  ways, desired = read(normal(T + S, H, 4))
  for way in ways:
    for actual, wanted in zip(way, desired, strict=True):
      np.testing.assert_allclose(actual, wanted, atol=1e-5)


@pytest.mark.parametrize('name', ['shaw', in_ci('deberta'), in_ci('cope')])
def test_tiles_of_several_strips_and_groups_equal_dense(name, monkeypatch):
  """Values and all gradients. Tiles of the default size have two strips and 16 groups of keys, and
  those of other tests one strip and no group.
  """
  monkeypatch.setattr(distance_readers, 'STRIP', 2)
  monkeypatch.setattr(carry, 'GROUP', 2)
  enc = jax.tree.map(lambda p: p + normal(*p.shape), build(name, kv_heads=2))
  arrays = normal(2, 11, 4, 8), normal(2, 11, 2, 8), normal(2, 11, 2, 8)
  weight = normal(2, 11, 4, 8)

  def run(backend, block_sizes=None):
    attention = functools.partial(attend, backend=backend, block_sizes=block_sizes)
    return gradients(lambda enc, *qkv: attention(*qkv, enc), weight, enc, *arrays)

  def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))

  jax.tree.map(close, run('blockwise', (4, 4)), run('dense'))


@pytest.mark.parametrize(('n', 'width'), [(4, 5), (1, 3)])
def test_relative_shift_transpose_is_the_adjoint_of_relative_shift(n, width):
  """<relative_shift g, x> = <g, relative_shift_transpose x>; and each is the other's gradient."""
  g, x = normal(2, n, n + width), normal(2, n, width)
  np.testing.assert_allclose(
    jnp.vdot(relative_shift(g, width), x), jnp.vdot(g, relative_shift_transpose(x)), rtol=1e-5
  )
  np.testing.assert_array_equal(
    jax.vjp(lambda g: relative_shift(g, width), g)[1](x)[0], relative_shift_transpose(x)
  )
  np.testing.assert_array_equal(
    jax.vjp(lambda x: relative_shift_transpose(x), x)[1](g)[0], relative_shift(g, width)
  )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_of_products_are_those_of_autodiff(dtype):
  """Our forms of the gradients of scaled_dot, mix and matmul, wide and narrow, equal what jax
  derives from the formula."""
  x, y, p, z = normal(2, 5, 4), normal(2, 7, 4), normal(2, 5, 7), normal(2, 7, 3)
  pairs = [
    (scaled_dot, lambda x, y: jnp.einsum('btk,bsk->bts', x, y), x, y),
    (weighted_sum, lambda p, y: jnp.einsum('bts,bsk->btk', p, y), p, z),
    (matmul, jnp.matmul, x, normal(4, 9)),
    (matmul, jnp.matmul, x, normal(4, 3)),
  ]
  tolerance = {'float32': 1e-5, 'bfloat16': 0.03}[dtype]
  for ours, formula, a, b in pairs:
    desired, pull = jax.vjp(formula, a, b)
    actual, own_pull = jax.vjp(ours, a.astype(dtype), b.astype(dtype))
    g = normal(*desired.shape)
    for one, other in zip(
      (actual, *own_pull(g.astype(actual.dtype))), (desired, *pull(g)), strict=True
    ):
      np.testing.assert_allclose(
        one.astype(jnp.float32), other, atol=tolerance * np.abs(other).max()
      )


def test_relative_shift_is_a_reshape():
  """No gather: it costs a copy."""
  assert 'gather' not in str(jax.make_jaxpr(lambda g: relative_shift(g, 5))(jnp.zeros((2, 4, 9))))


@functools.cache
def gradient_memory(name: str, T: int, S: int, window: int | None = None) -> int:
  """Temporary bytes of the gradient of one sequence, 8 heads of 64."""
  sizes = {'model_dim': 512, 'heads': 8, 'head_dim': 64, 'rngs': nnx.Rngs(0)}
  enc = make(name, **sizes, train_length=512)
  if enc.max_length is not None:
    enc = make(name, **sizes, train_length=S)
  run = functools.partial(attend, window=window, backend='blockwise', outer_hooks_applied=True)
  loss = lambda enc, q, k, v, x: (run(q, k, v, enc, x=x) ** 2).sum()
  q, k = (jax.ShapeDtypeStruct((1, n, 8, 64), jnp.float32) for n in (T, S))
  x = jax.ShapeDtypeStruct((1, S, 512), jnp.float32)
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(enc, q, k, k, x).compile()
  return compiled.memory_analysis().temp_size_in_bytes


# of each something
OF_HOOKS = ('shaw', 'cope', 'path')


IN_TILES = [name for name in ENCODINGS if ENCODINGS[name].normalizer != 'rows']


def others_are_slow(names):
  return [pytest.param(name, marks=[] if name in OF_HOOKS else pytest.mark.slow) for name in names]


@pytest.mark.parametrize('name', [name if name == 'shaw' else slow(name) for name in IN_TILES])
def test_gradient_of_blockwise_attention_is_linear_in_memory(name):
  """From 2048 to 32,768 tokens, where one row of the score matrix of all heads is 1 MiB and all of
  it 32 GiB.
  """
  short, long = (gradient_memory(name, T, T) for T in (2048, 32_768))
  assert long < 2 * 2**30
  assert np.log(long / short) / np.log(16) < 1.1


def test_gradients_of_keys_and_values_are_not_turned_in_each_tile():
  """They are added up as the products leave them: no step that adds to a total transposes."""
  loss = lambda *qkv: attend(*qkv, build('nope'), backend='blockwise', block_sizes=(16, 16)).sum()
  q = jnp.ones((1, 64, 4, 8))
  program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q).compile().as_text()
  computations = program.split('\n}\n')
  adding = [text for text in computations if ' dynamic-update-slice(' in text]
  assert adding
  assert not [text for text in adding if ' transpose(' in text]


def test_few_queries_on_many_keys_take_little_memory():
  """Their blocks are short and ragged: tables must not grow with the number of corners."""
  assert gradient_memory('t5', 255, 8192) < 100 * 2**20


@pytest.mark.parametrize('name', ['alibi', 'transformer_xl'])
def test_tables_end_where_a_window_does(name):
  """Memory of tables grows with the window: of 32,768 distances 512 are seen, and a bias of all of
  them, spread over tiles, would take 512 MiB.
  """
  memory = functools.partial(gradient_memory, T=32_768, S=32_768, window=512)
  assert memory(name) < memory('nope') + 64 * 2**20


@pytest.mark.parametrize('backend', ['blockwise', 'diagonals'])
def test_tables_spread_over_tiles_are_not_kept_for_the_backward_pass(backend):
  """Else a model would hold those of every layer that has a bias of its own."""
  enc, q = build('tisa'), normal(1, 64, 4, 8)
  attention = lambda enc, q: attend(q, q, q, enc, backend=backend, block_sizes=(16, 16))
  kept = jax.eval_shape(lambda *given: jax.vjp(attention, *given)[1], enc, q)
  assert max(leaf.size for leaf in jax.tree.leaves(kept)) == q.size


@pytest.mark.parametrize('name', ['cope', 'path'])
def test_what_is_carried_is_kept_for_as_many_tiles_as_a_row_visits(name):
  """Else each row would make room for that of all columns, 16 here, where a window shows 3."""
  run = functools.partial(attend, window=3, backend='blockwise', block_sizes=(4, 2))
  loss = lambda enc, q, k, x: (run(q, k, k, enc, x=x, outer_hooks_applied=True) ** 2).sum()
  given = normal(1, 32, 4, 8), normal(1, 32, 4, 8), normal(1, 32, 32)
  program = str(jax.make_jaxpr(jax.grad(loss, argnums=range(4)))(build(name), *given))
  assert 'f32[3,1,4,4' in program
  assert 'f32[16,1,4,4' not in program


@pytest.mark.parametrize('name', ENCODINGS)
def test_terms_are_constant_beyond_the_declared_distance(name):
  end = nnx.eval_shape(lambda: build(name)).max_relative_distance
  if end is not None:
    terms = jax.jit(build(name).distance_terms)
    for side in (-1, 1):
      far = jax.tree.leaves(terms(side * (end + np.arange(5))))
      assert far
      for table in far:
        np.testing.assert_array_equal(table, np.broadcast_to(table[:1], table.shape))


@pytest.mark.parametrize(
  'block', [(4, 8), (3, 5), *(pytest.param(b, marks=pytest.mark.slow) for b in ((4, 4), (8, 4)))]
)
@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    ('shaw', {'max_distance': 3}),
    ('t5', {'buckets': 8, 'max_distance': 11, 'bidirectional': True}),
  ],
)
def test_blocks_beyond_the_reach_on_either_side(name, hyper, block):
  """Blocks in a line with the reach and not: beyond it on the right, too, tables are what they are
  at it.
  """
  enc = jax.tree.map(lambda p: p + normal(*p.shape), build(name, **hyper))
  q = normal(1, 48, 4, 8)
  run = jax.jit(
    lambda backend, block: attend(
      q, q, q, enc, backend=backend, block_sizes=block, is_causal=False
    ),
    static_argnums=(0, 1),
  )
  np.testing.assert_allclose(run('blockwise', block), run('dense', None), atol=2e-5)


MASKS = {
  'causal': Mask(),
  'window': Mask(window=7),
  'both sides': Mask(is_causal=False, window=5),
  'chunk': Mask(chunk=6),
  'chunk, both sides': Mask(is_causal=False, chunk=7),
  'window of a chunk': Mask(window=3, chunk=9),
  'sink tokens': Mask(window=4, sink_tokens=3),
  'sink tokens, both sides': Mask(is_causal=False, window=3, sink_tokens=9),
  'sink tokens of chunks': Mask(chunk=5, sink_tokens=4),
  'prefix': Mask(prefix=9),
  'prefix in a window': Mask(prefix=12, window=4),
  'all': Mask(prefix=8, window=6, chunk=9, sink_tokens=5),
}


@pytest.mark.parametrize('sizes', [(4, 4), (4, 8), (8, 4), (3, 5)])
@pytest.mark.parametrize('T', [24, 9])
@pytest.mark.parametrize('name', MASKS)
def test_tiles_are_visited_once_if_anything_in_them_is_visible(name, T, sizes):
  """And no others, from left to right; also of a part of the columns, as a ring meets them."""
  mask, S, (rows, columns) = MASKS[name], 24, sizes
  index = np.arange(S)
  seen_TS = np.asarray(
    mask.visible(jnp.asarray(index[S - T :, None] - index[None]), index[None, S - T :], index[None])
  )[0]
  sink_columns = -(-mask.sink_tokens // columns)
  grid = TileGrid(T, S, rows, columns, mask, sink_columns, False, 0, S - 1)
  parts = ((0, grid.tile_columns), (1, 2))
  for a, (first, count) in itertools.product(range(grid.tile_rows), parts):
    seen_S = seen_TS[a * rows : (a + 1) * rows].any(axis=0)
    columns_of_part = range(first, first + count)
    seen = [b - first for b in columns_of_part if seen_S[b * columns : (b + 1) * columns].any()]
    visits = grid.visits(a, first, count)
    assert [int(visits.column(n)) for n in range(int(visits.start), int(visits.stop))] == seen


@pytest.mark.parametrize('name', MASKS)
def test_tables_hold_the_distances_of_visited_tiles(name):
  """Each visible pair finds its own, up to the reach of the encoding; and a window those of no tile
  beyond it.
  """
  mask, S, index = MASKS[name], 24, np.arange(24)
  visible = mask.visible(index[:, None] - index, index[None], index[None])
  t_of_pair, s = np.nonzero(np.asarray(visible)[0])
  for T, reach, (rows, columns) in itertools.product((24, 9), (3, 23), ((4, 4), (4, 8), (8, 4))):
    sink_columns = -(-mask.sink_tokens // columns)
    grid = TileGrid(T, S, rows, columns, mask, sink_columns, False, -reach, reach)
    is_query = t_of_pair >= S - T
    t, key = t_of_pair[is_query] - (S - T), s[is_query]
    a, b = t // rows, key // columns
    read = grid.first_corner + grid.diagonal(a, b) * grid.stride + t % rows - key % columns
    clip = lambda distance, reach=reach: np.clip(distance, -reach, reach)
    np.testing.assert_array_equal(clip(read), clip(S - T + t - key))
    corners = grid.corner(a, b)
    beyond = (corners > grid.last_corner) | (corners < grid.first_corner)
    assert not beyond.any() or grid.has_constant_tiles
    if name in ('window', 'both sides'):
      assert grid.first_corner >= corners.min()
      assert grid.last_corner <= corners.max()
      assert grid.has_constant_tiles == beyond.any()


@pytest.mark.parametrize('segments', [None, [[4] * 11 + [7] * 2 + [4] + [9] * 10, [3] * 24]])
@pytest.mark.parametrize('name', MASKS)
def test_visible_keys_are_counted(name, segments):
  """As many as the mask shows, of the last queries, too, and in each document of a packed row."""
  mask, segment_ids = MASKS[name], None if segments is None else jnp.asarray(segments)

  class Count(Encoding):
    needs_num_visible = True

    def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
      return num_visible_BS.astype(jnp.float32)

  q = jnp.zeros((2, 9, 4, 8))
  k = jnp.zeros((2, 24, 4, 8))
  enc = Count(build('nope').dims, nnx.Rngs(0))
  request = build_request(q, k, k, enc, mask=mask, segment_ids=segment_ids)
  document = np.zeros((2, 24), int) if segments is None else np.asarray(segments)
  index = np.asarray(contiguous_positions(24, segment_ids)) + np.zeros((2, 1), int)
  start = np.arange(24) - index
  same = (start[:, :, None] == start[:, None]) & (document[:, :, None] == document[:, None])
  distance = np.arange(24)[:, None] - np.arange(24)[None]
  seen = mask.visible(jnp.asarray(distance), jnp.asarray(index), jnp.asarray(index))
  desired = (np.asarray(seen) & same).sum(axis=-1)
  np.testing.assert_array_equal(request.j + np.zeros((2, 1), int), desired)
  np.testing.assert_array_equal(request.i, request.j[:, 15:])


def test_padding_is_of_the_last_segment():
  """Else a ragged last row of tiles would have the first document in common with every other."""
  q, segment_ids = normal(1, 9, 4, 8), jnp.array([[0, 0, 0, 0, 0, 0, 1, 1, 2]])

  @jax.jit
  def ids_of_tiles(q):
    request = build_request(q, q, q, build('nope'), segment_ids=segment_ids, block_sizes=(4, 8))
    return cut_into_tiles(TileSchedule.of_request(request), request)[1]

  ids = ids_of_tiles(q)
  assert ids['row']['segment'][-1].tolist() == [[2] * 4]
  assert ids['column']['segment'][-1].tolist() == [[2] * 8]


def check_unread(enc, q, k, v, start, end, *, own=0, backend='blockwise', rtol=1e-5, **options):
  """With NaN in keys and values from `start` to `end`, a backend in tiles of 4 x 4 equals dense, of
  the tokens from `own` on; so nothing there is read, forward or backward.
  """

  def run(k, v, backend):
    attention = functools.partial(attend, backend=backend, block_sizes=(4, 4), **options)
    loss = lambda *qkv: (attention(*qkv, enc)[:, own:] ** 2).sum()
    value, found = jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)
    return value, [x[:, own:] for x in found]

  run = jax.jit(run, static_argnums=2)
  hidden = (x.at[:, start:end].set(jnp.nan) for x in (k, v))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)
  jax.tree.map(close, run(*hidden, backend), run(k, v, 'dense'))


def test_tiles_between_sink_tokens_and_a_window_are_not_read():
  enc, q, k, v = build('rope'), normal(1, 8, 4, 8), normal(1, 64, 4, 8), normal(1, 64, 4, 8)
  check_unread(enc, q, k, v, 4, 48, window=9, sink_tokens=3)


@pytest.mark.ci
def test_keys_beyond_what_all_heads_of_an_encoding_see_are_not_read():
  """With a head that sees all, all are read. Of a chain the least is seen, of heads the most."""
  q, k, v = normal(1, 8, 4, 8), normal(1, 32, 4, 8), normal(1, 32, 4, 8)
  hard = lambda *windows: {'name': 'hard_alibi', 'windows': windows}
  of = lambda name, *members: {'name': name, 'members': members}
  for spec, unread in (
    (hard(5, 1, 3, 5), 20),
    (hard(5, 1, 3), 0),
    (of('chain', 'alibi', hard(5, 1, 3, 5)), 20),
    (of('chain', 'cope', hard(9, 9, 9, 9), hard(5, 1, 3, 5)), 20),
    (of('chain', 'alibi', hard(5, 1, 3)), 0),
    (of('heads', hard(1, 3), of('chain', 'alibi', hard(5, 2))), 20),
    (of('heads', hard(1, 3), 'nope'), 0),
  ):
    check_unread(build(**spec), q, k, v, 0, unread)


def test_an_own_bias_hides_nothing_that_it_does_not_say():
  class Wider(HardALiBi):
    def bias(self, r_R):
      return super().bias(r_R // 4)

  enc = Wider(build('nope').dims, nnx.Rngs(0), windows=(5, 1, 3, 5))
  q, k, v = normal(1, 32, 4, 8), normal(1, 32, 4, 8), normal(1, 32, 4, 8)
  tiles, whole = (
    attend(q, k, v, enc, backend=backend, block_sizes=sizes)
    for backend, sizes in (('blockwise', (4, 4)), ('dense', None))
  )
  np.testing.assert_allclose(tiles, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize('backend', ['fused_interpret', 'triton_interpret'])
def test_kernels_do_not_compute_tiles_of_other_documents(backend):
  qkv, document = (normal(1, 16, 4, 8) for _ in range(3)), (np.arange(16) >= 8).astype(int)[None]
  check_unread(build('rope'), *qkv, 0, 8, own=8, backend=backend, segment_ids=document)


def test_walks_end_where_no_weight_is_left():
  """A broken stick: blocks further left are not even read, and the result is that of dense."""
  q = jnp.full((1, 8, 4, 8), 2.0)
  k, v = jnp.full((1, 64, 4, 8), 2.0), normal(1, 64, 4, 8)  # each key takes 11 nats off the stick
  check_unread(build('stick_breaking'), q, k, v, 0, 32, rtol=1e-6)


def test_compiled_size_does_not_grow_with_length():
  def lines(T):
    x = jax.ShapeDtypeStruct((1, T, 4, 8), jnp.float32)
    loss = lambda q: attend(q, q, q, build('t5'), backend='blockwise').sum()
    return len(jax.jit(jax.grad(loss)).lower(x).as_text().splitlines())

  assert lines(2048) == lines(8192)


@pytest.mark.parametrize(('name', 'stride'), [slow('alibi', 1), in_ci('rope', 15), ('shaw', 1)])
def test_bfloat16_is_rounding_away_from_float32(name, stride):
  """Positions, tables and accumulators stay float32: distances above 256 are not exact in
  bfloat16, and frequencies that are not turn by other angles far out.
  """
  enc = build(name)
  ids = {} if stride == 1 else {'position_ids': stride * jnp.arange(300)[None]}
  q, k, v, w = (normal(1, 300, 4, 8) for _ in range(4))

  def run(dtype, backend):
    def loss(*qkv):
      out = attend(*qkv, enc, backend=backend, block_sizes=(64, 128), **ids)
      return (out.astype(jnp.float32) * w).sum(), out

    inputs = [a.astype(dtype) for a in (q, k, v)]
    grads, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)
    return [out, *grads]

  run = jax.jit(run, static_argnums=(0, 1))
  exact = run(jnp.float32, 'dense')
  for backend in ('dense', 'blockwise'):
    for rounded, full in zip(run(jnp.bfloat16, backend), exact, strict=True):
      assert rounded.dtype == jnp.bfloat16
      assert np.abs(rounded.astype(jnp.float32) - full).max() < 0.02 * np.abs(full).max()


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
@pytest.mark.parametrize('name', ['t5', *map(in_ci, ('shaw', 'fox', 'deberta'))])
def test_parameters_in_half_precision_are_read_in_float32(name, backend):
  """Their terms, and the sums over pairs of which their gradients are made."""
  enc = jax.tree.map(lambda p: p.astype(jnp.bfloat16), build(name))
  q, k, v, x = normal(1, 40, 4, 8), normal(1, 40, 4, 8), normal(1, 40, 4, 8), normal(1, 40, 32)

  def run(enc):
    return attend(q, k, v, enc, x=x, backend=backend, block_sizes=(16, 16))

  same = jax.jit(run)
  exact = jax.tree.map(lambda p: p.astype(jnp.float32), enc)
  np.testing.assert_array_equal(same(enc), same(exact))
  gradient = jax.grad(lambda enc: (run(enc) ** 2).sum())
  assert sums_in_half_precision(gradient, enc) == []
  assert {g.dtype for g in jax.tree.leaves(jax.eval_shape(gradient, enc))} == {
    jnp.dtype('bfloat16')
  }


def test_what_all_values_share_does_not_blur_the_gradient_of_scores():
  """It cancels in the gradient of softmax: weights' gradients, in which it does not, stay float32.
  In bfloat16 they would be 6% off here.
  """
  q, k, v, w = (normal(1, 96, 4, 8) for _ in range(4))
  rounded = [x.astype(jnp.bfloat16) for x in (q, k, v + 10)]
  enc, options = build('nope'), {'backend': 'blockwise', 'block_sizes': (32, 32)}
  loss = lambda *qkv: (attend(*qkv, enc, **options).astype(jnp.float32) * w).sum()
  run = jax.jit(jax.grad(loss, argnums=(0, 1)))
  w = w.astype(jnp.bfloat16).astype(jnp.float32)
  exact = run(*(x.astype(jnp.float32) for x in rounded))
  for found, desired in zip(run(*rounded), exact, strict=True):
    assert np.abs(found - desired).max() < 0.02 * np.abs(desired).max()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_products_of_two_dtypes_have_gradients_of_their_own(dtype):
  """Each as exact as float32, but for the rounding of the factor that it belongs to."""
  x, y, g = normal(2, 5, 4), normal(2, 7, 4).astype(dtype), normal(2, 5, 7)
  for given in ((x, y), (y[:, :5], normal(2, 7, 4))):
    found = jax.vjp(scaled_dot, *given)[1](g.astype(given[0].dtype).astype(jnp.float32))
    exact = (a.astype(jnp.float32) for a in given)
    desired = jax.vjp(scaled_dot, *exact)[1](g.astype(given[0].dtype).astype(jnp.float32))
    for one, other, factor in zip(found, desired, given, strict=True):
      assert one.dtype == factor.dtype
      step = float(jnp.finfo(factor.dtype).eps)
      np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=step, atol=1e-6)


# Scores of asentmax_temperature reach a thousand here, where numbers of bfloat16 are 4 apart.
@pytest.mark.parametrize(
  'name', others_are_slow([name for name in IN_TILES if name != 'asentmax_temperature'])
)
def test_bfloat16_far_out_is_as_near_to_float32_as_its_rounding(name):
  """The last of 8192 tokens: within 4 times 2^-8 of the largest output, and as much more as an
  encoding makes products of queries and keys larger (by 2 in coca and fope), since these are
  exponents. bfloat16 has every 32nd position there.
  """
  S, sizes = 8192, {'model_dim': 16, 'heads': 2, 'head_dim': 16, 'rngs': nnx.Rngs(0)}
  enc = make(name, **sizes, train_length=512)
  if enc.max_length is not None:
    enc = make(name, **sizes, train_length=S)
  rounded = [
    normal(*shape).astype(jnp.bfloat16)
    for shape in ((1, 64, 2, 16), *[(1, S, 2, 16)] * 2, (1, S, 16))
  ]
  run = jax.jit(
    lambda q, k, v, x: attend(
      q, k, v, enc, x=x, backend='blockwise', outer_hooks_applied=True
    ).astype(jnp.float32)
  )
  q, k, v, x = (a.astype(jnp.float32) for a in rounded)
  full = run(q, k, v, x)

  def largest_product(enc):
    request = build_request(q, k, v, enc, x=x, outer_hooks_applied=True)
    k_BSHK = jnp.repeat(request.k_BSGK, request.q_BTHK.shape[2] // request.k_BSGK.shape[2], axis=2)
    return request.scale * jnp.einsum('bthk,bshk->bhts', request.q_BTHK, k_BSHK).max()

  growth = max(1, largest_product(enc) / largest_product(make('nope', **sizes, train_length=512)))
  assert np.abs(run(*rounded) - full).max() < 4 * 2**-8 * growth * np.abs(full).max()


# Arguments.


@pytest.mark.ci
def test_positions_under_tracing():
  """Tables need a static length: named where missing; NaN, never another distance's value, where
  too short.
  """
  q, positions = normal(1, 6, 4, 8), np.array([[0, 1, 2, 3, 4, 9]])
  run = lambda name, **options: jax.jit(
    lambda p: attend(q, q, q, build(name), position_ids=p, **options)
  )(positions)
  known = jax.jit(
    lambda name: attend(q, q, q, build(name), position_ids=positions, backend='dense'),
    static_argnums=0,
  )
  with pytest.raises(ValueError, match='traced positions need a static max_position_distance'):
    run('alibi')
  # a table that ends by itself needs no length
  np.testing.assert_allclose(
    run('t5', backend='blockwise', block_sizes=(4, 4)), known('t5'), atol=1e-5
  )
  for name in ('alibi', 'shaw'):
    for backend in ('dense', 'blockwise'):
      short = run(name, max_position_distance=8, backend=backend, block_sizes=(4, 4))
      assert np.isfinite(short[:, :5]).all()
      assert np.isnan(short[:, 5]).all()
    np.testing.assert_allclose(run(name, max_position_distance=9), known(name), atol=1e-5)
  assert np.isfinite(run('rope')).all()


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_tables_are_no_longer_than_encodings_reach(backend):
  """Positions far apart, of which a table of all distances would take 80 GB."""
  q, enc = normal(1, 6, 4, 8), build('shaw', max_distance=4)
  far, near = (np.array([[0, 1, 2, 3, 4, last]]) for last in (2**30, 8))
  options = {'backend': backend, 'block_sizes': (4, 4)}
  run = lambda ids: jax.jit(lambda q: attend(q, q, q, enc, position_ids=ids, **options))(q)
  np.testing.assert_allclose(run(far), run(near), atol=1e-6)


@pytest.mark.parametrize(('name', 'backend'), [('rope', 'dense'), ('fire', 'blockwise')])
def test_no_gradient_reaches_positions(name, backend):
  """The same on all backends: tiles know positions as data."""
  q, enc = normal(1, 6, 4, 8), build(name)
  ids = jnp.linspace(0.0, 20.0, 6)[None]
  options = {'backend': backend, 'block_sizes': (4, 4), 'max_position_distance': 20}
  value = lambda ids: (attend(q, q, q, enc, position_ids=ids, **options) ** 2).sum()
  assert not jax.jit(jax.grad(value))(ids).any()


@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'float32'])
def test_distances_are_exact_whatever_the_dtype_of_positions(dtype):
  q, enc = normal(1, 6, 4, 8), build('fire')
  ids = jnp.array([[0, 1, 2, 100, 101, 127]])
  if dtype == 'int8':
    ids = ids - 100
  run = lambda ids: jax.jit(lambda q: attend(q, q, q, enc, position_ids=ids))(q)
  np.testing.assert_array_equal(run(ids.astype(dtype)), run(ids))


TABLES = (
  *(('learned', {'extend': extend}) for extend in ('none', 'repeat', 'hierarchical')),
  *(('learned', {'extend': extend, 'extend_to': 600}) for extend in ('group', 'interpolate')),
  ('position_coupling', {}),
  ('bipe', {}),
)


@pytest.mark.parametrize('dtype', ['int8', 'uint8'])
@pytest.mark.parametrize('rows', [256, 300])
@pytest.mark.parametrize(('name', 'options'), TABLES)
def test_rows_are_those_of_positions_whatever_their_dtype(name, options, rows, dtype):
  enc = build(name, **options, **{'places' if name == 'bipe' else 'max_length': rows})
  x, ids = normal(1, 6, 32), np.array([[1, 2, 44, 100, 127, -1]]).astype(dtype)
  expected = enc.add_to_input(x, jnp.asarray(ids, jnp.int32))
  for short in (ids, jnp.asarray(ids)):
    np.testing.assert_array_equal(enc.add_to_input(x, short), expected)
  assert np.isfinite(expected[0, :5]).all()
  assert np.isnan(expected[0, 5]).all() == (dtype == 'int8')
  if name == 'position_coupling':
    moved = lambda ids: enc.sample_positions(ids, 1, jax.random.key(0))
    np.testing.assert_array_equal(moved(jnp.asarray(ids)), moved(jnp.asarray(ids, jnp.int32)))


FAR = np.array([[0, 1, 2, 3, 4, 3_000_000_000]])


@pytest.mark.parametrize(
  ('ids', 'said'),
  [
    (FAR, 'from 0 to 3000000000'),
    (-FAR, 'from -3000000000 to 0'),
    (np.uint64(2**62) * FAR.astype(bool), f'from 0 to {2**62}'),
    (FAR // 2 - (FAR == 0), None),
    (FAR // 2 - 2**30 * (FAR == 0), f'from {-(2**30)} to 1500000000'),
    (jnp.array([[0, 0, 0, 0, -1, 2**31 - 1]]), f'from -1 to {2**31 - 1}'),
  ],
)
def test_distances_that_int32_does_not_hold_are_refused(ids, said):
  """JAX would wrap them, and keys far behind would be keys far ahead."""
  q, x = normal(1, 6, 4, 8), normal(1, 6, 32)
  run = lambda: attend(q, q, q, build('t5'), position_ids=ids)
  if said is None:
    assert np.isfinite(run()).all()
    return
  message = f'position_ids go {said}; allowed: values of int32, less than 2^31 apart'
  for refused in (run, lambda: build('sinusoidal').add_to_input(x, ids)):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
      refused()
  traced = jax.eval_shape(lambda ids: attend(q, q, q, build('t5'), position_ids=ids), ids)
  assert traced.shape == q.shape


def test_tables_of_too_many_distances_are_refused():
  """Of times in seconds, say; not where a table ends by itself, nor where there is none."""
  q, ids = normal(1, 6, 4, 8), np.array([[0, 5, 9, 20, 30, 2**26 + 1]])
  run = lambda name, **options: attend(q, q, q, build(name), position_ids=ids, **options)
  message = f'max_position_distance, are up to {2**26 + 1} apart; allowed: up to {2**26}, for ALiBi'
  with pytest.raises(
    ValueError, match=f'{message} has a row for each distance: count them in a coarser'
  ):
    run('alibi')
  for name in ('t5', 'rope'):
    assert np.isfinite(run(name)).all()
  assert jax.eval_shape(lambda: run('alibi', max_position_distance=2**26)).shape == q.shape


@pytest.mark.parametrize('axes', [1, 2])
def test_times_that_float32_does_not_tell_apart_are_refused(axes):
  """Seconds since 1970 have steps of 128 there; counted from the first of a row they are exact."""
  q, x = normal(1, 6, 4, 8), normal(1, 6, 32)
  enc = build('rope') if axes == 1 else build('axial_rope')
  times = 1.7e9 + np.array([[0.0, 0.5, 2.0, 2.0, 300.0, 900.0]])
  times = times if axes == 1 else np.stack([0 * times, times], axis=-1)
  run = lambda ids: attend(q, q, q, enc, position_ids=ids)
  asked = [run]
  if axes == 1:
    asked.append(lambda ids: build('sinusoidal').add_to_input(x, ids))
  step = 'position_ids of float64 have a step of 0.5, which float32 loses'
  for refused in asked:
    with pytest.raises(ValueError, match=f'^{step}; allowed: counted from the first of each row'):
      refused(times)
    assert np.isfinite(refused(times.astype(np.float32))).all()
    from_first = times - times[:, :1]
    np.testing.assert_array_equal(refused(from_first), refused(from_first.astype(np.float32)))


def test_numbers_that_lie_with_other_processes_are_not_read():
  """Only a part of them is here; to read them is an error of JAX."""
  cut = SimpleNamespace(is_fully_addressable=False, dtype=jnp.dtype('int32'), size=4)
  assert check_numbers_of_positions(cut) is None
  assert check_tokens(cut, 4) is None
  assert known_max_position_distance(build('t5'), cut) is None


def test_a_call_checks_its_positions_once(monkeypatch):
  reads = []
  monkeypatch.setattr(base, 'is_readable', lambda array: bool(reads.append(array)))
  q, ids = normal(1, 6, 4, 8), jnp.arange(6)[None]
  attend(q, q, q, build('rope'), position_ids=ids)
  assert len(reads) == 1


def test_few_queries_take_dense_whatever_the_keys():
  """Tiles of one row would have a corner, and a table, for each distance."""
  enc = build('alibi')
  shapes = [jax.ShapeDtypeStruct((1, n, 4, 8), jnp.float32) for n in (1, 2**17, 2**17)]
  compiled = jax.jit(lambda *qkv: attend(*qkv, enc)).lower(*shapes).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 40 * 2**20


@pytest.mark.parametrize(('name', 'backend'), [('logn', 'dense'), ('alibi', 'blockwise')])
def test_sizes_of_masks_beyond_all_keys_hide_nothing(name, backend):
  """Such as the largest int32, which many write for 'no window'."""
  q, enc = normal(1, 6, 4, 8), build(name)
  segments = jnp.array([[0, 0, 0, 1, 1, 1]])
  options = {'segment_ids': segments, 'backend': backend, 'block_sizes': (4, 4)}
  sizes = ('window', 'chunk', 'sink_tokens', 'prefix')
  run = jax.jit(functools.partial(attend, q, q, q, enc, **options), static_argnames=sizes)
  most, plain = 10**12, run()
  for n in (6, 2**31 - 1, most):  # programs are equal where masks are
    assert {Mask(**{size: n}).cut(6) for size in ('window', 'chunk', 'sink_tokens')} == {Mask()}
    assert Mask(is_causal=False, window=n).cut(6) == Mask(is_causal=False)
    assert Mask(window=2, sink_tokens=n, prefix=n).cut(6) == Mask(True, 2, None, 6, 6)
  assert Mask(window=5, chunk=4, sink_tokens=1, prefix=1).cut(6) == Mask(True, 5, 4, 1)
  close = functools.partial(np.testing.assert_allclose, atol=1e-6)
  close(run(window=most, chunk=most), plain)
  close(run(window=2, sink_tokens=most), plain)
  close(run(prefix=most), run(prefix=3))


def test_values_are_as_wide_as_those_that_the_encoding_adds():
  q = normal(1, 6, 4, 8)
  with pytest.raises(
    ValueError, match=r'^v has shape \(1, 6, 4, 4\); allowed: \(1, 6, 4, 8\), for Sh'
  ):
    attend(q, q, q[..., :4], build('shaw'))
  out = jax.eval_shape(lambda q: attend(q, q, q[..., :4], build('rope')), q)
  assert out.shape == (1, 6, 4, 4)


def test_contiguous_positions_restart_with_segments():
  np.testing.assert_array_equal(contiguous_positions(4), [[0, 1, 2, 3]])
  np.testing.assert_array_equal(
    contiguous_positions(5, jnp.array([[7, 7, 2, 2, 2], [1, 2, 3, 3, 1]]))[1], [0, 0, 0, 1, 0]
  )


class SeesIntegers(Encoding):
  """Takes hooks at their word: what they say is int32 is combined as only int32 can be."""

  bias_in_scale = False

  def bias(self, r_R):
    return jax.lax.rem(r_R, jnp.int32(3))[:, None].astype(jnp.float32)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    by_index, by_position = (
      jax.lax.rem(x, jnp.int32(5)) for x in (tile.index_distance[None], tile.distance)
    )
    return s_BHTS + (by_index + by_position)[:, None].astype(jnp.float32)


@pytest.mark.parametrize('backend', ['blockwise', in_ci('dense'), in_ci('diagonals')])
def test_what_is_said_to_be_int32_is_under_enable_x64(backend):
  assert contiguous_positions(4).dtype == jnp.int32
  q, enc = normal(1, 12, 4, 8), SeesIntegers(build('nope').dims, nnx.Rngs(0))
  options = dict(mask=lambda i, j: jax.lax.rem(i - j, jnp.int32(4)) == 0, backend=backend)
  run = functools.partial(attend, block_sizes=(4, 4), **options)
  expected = run(q, q, q, enc)
  with jax.enable_x64(True):
    assert contiguous_positions(4, jnp.zeros((1, 4), int)).dtype == jnp.int32
    np.testing.assert_array_equal(run(q, q, q, enc), expected)


def test_an_argument_that_says_whether_attention_is_causal_is_static():
  q, enc = normal(1, 6, 4, 8), build('nope')
  run = jax.jit(lambda is_causal: attend(q, q, q, enc, is_causal=is_causal))
  with pytest.raises(ValueError, match=r'^is_causal=.*; allowed: True or False, static under jax'):
    run(True)
  attend(q, q, q, enc, is_causal=np.bool_(True))


OF_POSITIONS = 'position_ids has dtype bool; allowed: integers, or floats'
OF_SOFT_CAPS = 'a finite number more than 0, or None'


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('nope', {'backend': 'blokwise'}, "backend='blokwise'; did you mean 'blockwise'?"),
    ('nope', {'is_causal': None}, 'is_causal=None; allowed: True or False, static under jax.jit'),
    ('nope', {'is_causal': 0}, 'is_causal=0; allowed: True or False'),
    ('nope', {'window': 0}, 'window=0; allowed: at least 1'),
    ('nope', {'window': 2.5}, 'window=2.5; allowed: a whole number'),
    ('nope', {'window': float('nan')}, 'window=nan; allowed: a whole number'),
    ('nope', {'chunk': 0}, 'chunk=0; allowed: at least 1, for a token sees itself'),
    ('nope', {'chunk': True}, 'chunk=True; allowed: a whole number'),
    ('nope', {'sink_tokens': -1}, 'sink_tokens=-1; allowed: at least 0'),
    ('nope', {'sink_tokens': None}, 'sink_tokens=None; allowed: a whole number'),
    ('nope', {'prefix': -1}, 'prefix=-1; allowed: at least 0'),
    (
      'nope',
      {'prefix': 2, 'is_causal': False},
      'prefix=2; allowed: 0, for without a causal mask all see',
    ),
    ('nope', {'block_sizes': (0, 0)}, 'block_sizes=(0, 0); allowed: two whole numbers'),
    ('nope', {'block_sizes': (4,)}, 'block_sizes=(4,); allowed: two whole numbers'),
    ('nope', {'block_sizes': 128}, 'block_sizes=128; allowed: two whole numbers'),
    ('nope', {'max_position_distance': -1}, 'max_position_distance=-1; allowed: a whole number'),
    ('nope', {'position_ids': np.zeros((1, 6), bool)}, OF_POSITIONS),
    ('rope', {'position_ids': np.zeros((1, 6), bool)}, OF_POSITIONS),
    ('rope', {'softcap': 0.0}, f'softcap=0.0; allowed: {OF_SOFT_CAPS}'),
    ('rope', {'softcap': float('nan')}, f'softcap=nan; allowed: {OF_SOFT_CAPS}'),
    ('rope', {'softcap': True}, f'softcap=True; allowed: {OF_SOFT_CAPS}'),
    ('rope', {'softcap': '30'}, f"softcap='30'; allowed: {OF_SOFT_CAPS}"),
    (
      'stick_breaking',
      {'softcap': 2.0},
      'softcap=2.0; allowed: no soft-cap, for StickBreaking is not normalized by softmax',
    ),
  ],
)
def test_bad_arguments(name, options, message):
  q = normal(1, 6, 4, 8)
  with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
    attend(q, q, q, build(name), **options)


@pytest.mark.parametrize(
  ('shapes', 'message'),
  [
    ({'k': (1, 5, 4, 8), 'v': (1, 5, 4, 8)}, '6 queries for 5 keys'),
    ({'k': (1, 6, 3, 8), 'v': (1, 6, 3, 8)}, 'k has shape (1, 6, 3, 8); allowed: (1, S, 4, 8)'),
    ({'q': (6, 4, 8)}, 'q has shape (6, 4, 8); allowed: four axes, [batch, tokens, heads, width]'),
    (
      {'q': (1, 4, 6, 8)},
      'q has shape (1, 4, 6, 8); allowed: [batch, tokens, 4 heads, 8 channels]',
    ),
    ({'k': (2, 6, 4, 8)}, 'k has shape (2, 6, 4, 8); allowed: (1, S, 4, 8)'),
    ({'v': (1, 5, 4, 8)}, 'v has shape (1, 5, 4, 8); allowed: (1, 6, 4) and any width'),
    ({'x': (1, 5, 32)}, 'x has shape (1, 5, 32); allowed: (1, 6, 32), for all keys'),
    ({'position_ids': (5,)}, 'position_ids has shape (5,); allowed: (1, 6) or (1, 6)'),
    ({'segment_ids': (1, 5)}, 'segment_ids has shape (1, 5); allowed: (1, 6)'),
    (
      dict.fromkeys('qkv', (0, 6, 4, 8)),
      'q has shape (0, 6, 4, 8); allowed: at least one sequence',
    ),
    (
      dict.fromkeys('qkv', (1, 0, 4, 8)),
      'q has shape (1, 0, 4, 8); allowed: at least one sequence',
    ),
  ],
)
def test_shapes_that_do_not_fit(shapes, message):
  """One line that names the array, its shape and the one that is needed."""
  arrays = {name: jnp.zeros(shapes.get(name, (1, 6, 4, 8))) for name in 'qkv'}
  options = {
    name: jnp.zeros(shape, jnp.float32 if name == 'x' else int)
    for name, shape in shapes.items()
    if name not in 'qkv'
  }
  with pytest.raises(ValueError, match=f'^{re.escape(message)}') as error:
    attend(*arrays.values(), build('nope'), **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'q': jnp.ones((1, 6, 4, 8), jnp.int32)}, 'q has dtype int32; allowed: float32, bfloat16 or'),
    ({'v': jnp.ones((1, 6, 4, 8), jnp.complex64)}, 'v has dtype complex64; allowed: float32'),
    ({'k': [[1.0]]}, 'k is a list; allowed: an array of jax or numpy'),
    ({'position_ids': [0, 1]}, 'position_ids is a list; allowed: an array of jax or numpy'),
    ({'enc': 'rope'}, "enc='rope'; allowed: an encoding, such as posenc_jax.make returns"),
    (
      {'position_ids': jnp.arange(6, dtype=jnp.bfloat16)[None]},
      'position_ids has dtype bfloat16; allowed: integers, or floats of 32 bits',
    ),
  ],
)
def test_what_is_no_array_and_no_encoding(change, message):
  given = {name: jnp.ones((1, 6, 4, 8)) for name in 'qkv'} | {'enc': build('rope')} | change
  q, k, v, enc = (given.pop(name) for name in ('q', 'k', 'v', 'enc'))
  with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
    attend(q, k, v, enc, **given)


@pytest.mark.parametrize('name', ['sinusoidal', 'learned', 'position_coupling'])
def test_positions_of_an_input_are_those_of_its_tokens(name):
  enc, x = build(name), normal(2, 6, 32)
  assert enc.add_to_input(x, jnp.arange(6)[None]).shape == x.shape
  wrong = {'is None': None, 'has shape (1, 9)': jnp.arange(9)[None], 'has shape ()': jnp.array(3)}
  for said, position_ids in wrong.items():
    with pytest.raises(ValueError, match=f'^{re.escape(f"position_ids {said}; allowed: (2, 6)")}'):
      enc.add_to_input(x, position_ids)
  if name == 'position_coupling':
    enc = build(name, levels=2)
    assert enc.add_to_input(x, jnp.ones((1, 6, 2), int)).shape == x.shape
    wrong = {'is None': None, 'has shape (2, 6)': jnp.ones((2, 6), int)}
    wrong |= {'has shape (2, 1, 2)': jnp.ones((2, 1, 2), int)}
    for said, position_ids in wrong.items():
      message = f'position_ids {said}; allowed: (2, 6, 2) or (1, 6, 2), those of the tokens'
      with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        enc.add_to_input(x, position_ids)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'bool'])
@pytest.mark.parametrize('name', ['sinusoidal', 'learned', 'learned_fourier', 'tape'])
def test_positions_of_an_input_are_not_rounded(name, dtype):
  enc, position_ids = build(name), jnp.arange(6)[None].astype(dtype)
  ask = functools.partial(enc.add_to_input, normal(2, 6, 32))
  if name == 'tape':
    ask = functools.partial(enc.initial_state, batch=2)
  with pytest.raises(ValueError, match=f'^position_ids has dtype {dtype}; allowed: integers, or '):
    ask(position_ids)


@pytest.mark.parametrize(('name', 'S'), [('t5', 128), in_ci('t5', 600), in_ci('shaw', 24)])
def test_a_program_for_any_batch_can_be_exported(name, S):
  enc = build(name)
  run = jax.jit(jax.grad(lambda q: attend(q, q, q, enc).var()))
  of_any_batch = jax.ShapeDtypeStruct((*export.symbolic_shape('b'), S, 4, 8), jnp.float32)
  exported = export.export(run)(of_any_batch)
  for B in (1, 3):
    q = normal(B, S, 4, 8)
    np.testing.assert_allclose(exported.call(q), run(q), atol=1e-6)


def test_a_program_for_any_batch_of_packed_rows_can_be_exported():
  enc, (b,) = build('fire'), export.symbolic_shape('b')
  run = jax.jit(lambda q, ids: attend(q, q, q, enc, segment_ids=ids))
  shapes = jax.ShapeDtypeStruct((b, 24, 4, 8), jnp.float32), jax.ShapeDtypeStruct((b, 24), 'int32')
  exported = export.export(run)(*shapes)
  q, ids = normal(3, 24, 4, 8), np.repeat([[0, 1]] * 3, 12, axis=1).astype(np.int32)
  np.testing.assert_allclose(exported.call(q, ids), run(q, ids), atol=1e-6)


@pytest.mark.ci
def test_meshes_that_say_how_arrays_are_cut():
  """As jax.make_mesh makes them, and within jax.shard_map: values and gradients stay the same, here
  on one device, and in eight_devices/mesh.py on several.
  """
  arrays = normal(2, 9, 4, 8), normal(2, 9, 2, 8), normal(2, 9, 2, 8), normal(2, 9, 32)
  enc = build('shaw', kv_heads=2)

  def run(enc, q, k, v, x):
    return attend(q, k, v, enc, x=x, backend='blockwise', block_sizes=(4, 4))

  def gradients(run, *given):
    return jax.jit(jax.grad(lambda *given: (run(*given) ** 2).sum(), (0, 1, 2, 3, 4)))(*given)

  desired = jax.tree.leaves(gradients(run, enc, *arrays))
  explicit = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Explicit,))
  cut = [jax.device_put(x, NamedSharding(explicit, PartitionSpec('data'))) for x in arrays]
  assert jax.typeof(jax.jit(run)(enc, *cut)).sharding.spec == PartitionSpec(
    'data', None, None, None
  )
  auto = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,))
  batch = PartitionSpec('data')
  by_device = jax.shard_map(
    run, mesh=auto, in_specs=(PartitionSpec(), *[batch] * 4), out_specs=batch
  )
  for found in (gradients(run, enc, *cut), gradients(by_device, enc, *arrays)):
    for one, other in zip(jax.tree.leaves(found), desired, strict=True):
      np.testing.assert_allclose(one, other, atol=3e-5)


def test_positions_that_are_constants_are_known_on_any_mesh():
  """So that terms by distance need no `max_position_distance`."""
  q, enc, position_ids = normal(2, 9, 4, 8), build('alibi'), 2 * np.arange(9)[None]
  run = lambda q: attend(q, q, q, enc, position_ids=position_ids)
  explicit = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Explicit,))
  cut = jax.device_put(q, NamedSharding(explicit, PartitionSpec('data')))
  auto = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,))
  batch = {'in_specs': PartitionSpec('data'), 'out_specs': PartitionSpec('data')}
  expected = jax.jit(run)(q)
  np.testing.assert_allclose(jax.jit(run)(cut), expected, atol=1e-6)
  by_device = jax.jit(jax.shard_map(run, mesh=auto, **batch))
  np.testing.assert_allclose(by_device(q), expected, atol=1e-6)


def test_members_take_as_many_positions_and_terms_by_distance_take_integers(monkeypatch):
  chain = build('chain', members=('sink', 'axial_rope', 'nope'))
  assert (chain.position_kind, chain.positions_per_token) == ('floats', 2)
  of_integers = build('chain', members=('rope', 'alibi'))
  assert of_integers.position_kind == 'integers'
  q, ids = normal(1, 6, 4, 8), np.arange(6)[None] / 2
  with pytest.raises(
    ValueError, match='dtype float64; allowed: integers, for ALiBi takes no other'
  ):
    attend(q, q, q, of_integers, position_ids=ids)
  assert build('chain', members=('fox', 'sink')).position_kind is None
  both = type('Both', (ENCODINGS['alibi'],), {'position_kind': 'floats'})
  monkeypatch.setitem(ENCODINGS, 'both', both)
  message = (
    r"^both: position_kind='floats', positions_per_token=1; allowed: 'integers' and 1, for it"
  )
  with pytest.raises(ValueError, match=message):
    build('both')


@pytest.mark.parametrize(
  ('spec', 'words'),
  [
    ('learned', 'Learned acts on the input of the first layer: apply {input}position_ids{there}'),
    ('random_positions', 'RandomPositions samples {of_all} {sample}'),
    (
      'shape_offset',
      'ShapeOffset samples {of_all} {sample}; it acts on the input of the first layer: apply '
      '{input}those{there}',
    ),
    (
      'abacus',
      'Abacus samples positions for the input: take those of {sample}; it acts on the input of the '
      'first layer: apply {input}those{there}',
    ),
    (
      {'name': 'bipe', 'inner': 'rope'},
      'BiPE reads positions off tokens: pass the second of enc.positions_of_tokens(tokens, '
      'position_ids); it acts on the input of the first layer: apply {input}the first{there}',
    ),
  ],
)
def test_all_that_attention_alone_would_lose_is_said(spec, words):
  """Not attention without positions in silence; it runs for a caller who has applied it."""
  spec = spec if isinstance(spec, dict) else {'name': spec}
  q, enc = normal(1, 6, 4, 8), build(**spec)
  calls = {
    'input': 'enc.add_to_input(x, ',
    'there': ') there',
    'of_all': 'positions for all layers: pass those of',
    'sample': 'enc.sample_positions(position_ids, batch, key) (None: as they are)',
  }
  with pytest.raises(ValueError, match=' ') as error:
    attend(q, q, q, enc)
  how = ', then call attend(..., outer_hooks_applied=True)'
  assert str(error.value) == words.format(**calls) + how
  out = jax.eval_shape(lambda q: attend(q, q, q, enc, outer_hooks_applied=True), q)
  assert out.shape == q.shape


def test_products_are_made_for_who_reads_them_alone():
  """An encoding that makes them itself is given None, and keys are not repeated over heads."""
  seen = []

  class Own(Encoding):
    recomputes_scores = True

    def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
      seen.append((s_BHTS, q_BHTK.shape, k_BGSK.shape))
      return jnp.zeros((1, 4, 6, 6))

  q, k = normal(1, 6, 4, 8), normal(1, 6, 2, 8)
  enc = Own(build('nope', kv_heads=2).dims, nnx.Rngs(0))
  jaxpr = jax.make_jaxpr(lambda q, k: attend(q, k, k, enc, backend='dense'))(q, k)
  assert seen == [(None, (1, 4, 6, 8), (1, 2, 6, 8))]
  assert str(jaxpr).count('dot_general') == 1  # weights times values


def test_causal_only_encodings_refuse_to_look_ahead():
  class Forward(Encoding):
    causal_only = True

  q = normal(1, 6, 4, 8)
  with pytest.raises(ValueError, match='Forward is defined for causal attention only'):
    attend(q, q, q, Forward(build('nope').dims, nnx.Rngs(0)), is_causal=False)
  with pytest.raises(ValueError, match='Forward is defined for causal attention only'):
    attend(q, q, q, Forward(build('nope').dims, nnx.Rngs(0)), prefix=3)


def test_auto_equals_named_backends():
  def program(name, tokens, backend):
    x, enc = jax.ShapeDtypeStruct((1, tokens, 4, 8), jnp.float32), build(name)
    return jax.jit(lambda x: attend(x, x, x, enc, backend=backend)).lower(x).as_text()

  for name, tokens, backend in (('t5', 500, 'dense'), ('t5', 600, 'blockwise')):
    assert program(name, tokens, 'auto') == program(name, tokens, backend)
  assert program('shaw', 500, 'auto') == program('shaw', 500, 'blockwise')


class Gate(Encoding):
  """Values times 1 + position, outputs times sigmoid(w_h . x_i) over 1 + position."""

  needs_inputs = True

  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.w = nnx.Param(normal(dims.model_dim, dims.heads))

  def transform_values(self, v_BSGK, j):
    return v_BSGK * (1 + j)[..., None, None]

  def transform_output(self, o_BTHK, i, x_BTD):
    return o_BTHK * jax.nn.sigmoid(x_BTD @ self.w[...])[..., None] / (1 + i)[..., None, None]


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_values_and_outputs_pass_their_hooks(backend):
  """Given x at the queries, the last three of the tokens; gradients reach the gate's weights."""
  enc = Gate(build('nope', kv_heads=2).dims, nnx.Rngs(0))
  q, k, v, x = normal(2, 3, 4, 8), normal(2, 9, 2, 8), normal(2, 9, 2, 8), normal(2, 9, 32)

  def formula(w, x):
    k_BSHK, v_BSHK = jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2)
    s = jnp.einsum('bthk,bshk->bhts', q, k_BSHK) / 8**0.5
    p = jax.nn.softmax(jnp.where(jnp.tri(3, 9, 6, dtype=bool)[None, None], s, -jnp.inf))
    ratio = jnp.arange(1, 10)[None] / jnp.arange(7, 10)[:, None]
    o = jnp.einsum('bhts,bshk->bthk', p * ratio[None, None], v_BSHK)
    return o * jax.nn.sigmoid(x[:, 6:] @ w)[..., None]

  def ours(w, x):
    moved = jax.tree.map(lambda _: w, enc)
    return attend(q, k, v, moved, x=x, backend=backend, block_sizes=(2, 4))

  weight = normal(2, 3, 4, 8)
  close = lambda actual, desired: np.testing.assert_allclose(actual, desired, atol=1e-5)
  jax.tree.map(close, *(gradients(f, weight, enc.w[...], x) for f in (ours, formula)))


class ContentSink(Encoding):
  """A sink a token and head: w_h . x_i + q_i . u_h."""

  needs_inputs = True

  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.w = nnx.Param(normal(dims.model_dim, dims.heads))
    self.u = nnx.Param(normal(dims.heads, dims.head_dim))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return x_BSD @ self.w[...]

  def sink(self, q_BTHK, i):
    return i + jnp.einsum('bthk,hk->bth', q_BTHK, self.u[...])


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_a_sink_of_tokens_joins_the_denominator(backend):
  """Values and all gradients; also where the sink has all the weight or none, without overflow."""
  enc = ContentSink(build('nope', kv_heads=2).dims, nnx.Rngs(0))
  q, k, v, x = normal(2, 5, 4, 8), normal(2, 9, 2, 8), normal(2, 9, 2, 8), normal(2, 9, 32)
  x = x.at[..., 0].set(1.0)

  def formula(w, u, q, k, v, x):
    k_BSHK, v_BSHK = jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2)
    s = jnp.einsum('bthk,bshk->bhts', q, k_BSHK) / 8**0.5
    s = jnp.where(jnp.tri(5, 9, 4, dtype=bool)[None, None], s, -jnp.inf)
    sink = jnp.einsum('btd,dh->bht', x[:, 4:], w) + jnp.einsum('bthk,hk->bht', q, u)
    p = jax.nn.softmax(jnp.concatenate([s, sink[..., None]], axis=-1))
    return jnp.einsum('bhts,bshk->bthk', p[..., :-1], v_BSHK)

  def ours(w, u, q, k, v, x):
    moved = jax.tree.map(lambda leaf: w if leaf.shape == w.shape else u, enc)
    return attend(q, k, v, moved, x=x, backend=backend, block_sizes=(2, 4))

  weight = normal(2, 5, 4, 8)
  close = lambda actual, desired: np.testing.assert_allclose(actual, desired, atol=2e-5)
  for height in (0.0, 300.0, -300.0):
    arguments = (enc.w[...].at[0].add(height), enc.u[...], q, k, v, x)
    jax.tree.map(close, *(gradients(f, weight, *arguments) for f in (ours, formula)))


def test_sinks_of_members_all_join_the_denominator():
  q = normal(1, 6, 4, 8)
  chain = build('chain', members=('softmax_plus_one', 'sink', 'softmax_plus_one'))
  one = build('sink')
  one.logits[...] = jnp.log(2 + jnp.exp(chain.members[1].logits[...]))
  run = jax.jit(functools.partial(attend, q, q, q, backend='dense'))
  np.testing.assert_allclose(run(chain), run(one), rtol=1e-5, atol=1e-6)


def test_values_too_narrow_to_turn():
  q = normal(1, 6, 4, 8)
  with pytest.raises(ValueError, match=r'^VORoPE: v has 4 channels, but 8 of each head rotate$'):
    attend(q, q, q[..., :4], build('vo_rope'))
  out = jax.eval_shape(lambda q, v: attend(q, q, v, build('vo_rope')), q, normal(1, 6, 4, 12))
  assert out.shape == (1, 6, 4, 12)


# The ring is tested on devices of its own (eight_devices/ring.py).


def test_ring_refuses_where_no_mesh_is_set():
  q = normal(1, 6, 4, 8)
  with pytest.raises(
    NotImplementedError, match='backend ring: it needs a mesh with an axis context'
  ):
    attend(q, q, q, build('rope'), backend='ring')


@pytest.mark.parametrize('backend', ['fused_interpret', 'triton_interpret'])
def test_interpreted_kernels_refuse_the_meshes_that_kernels_refuse(backend):
  q = jax.ShapeDtypeStruct((2, 6, 4, 8), jnp.float32)
  run = lambda q: attend(q, q, q, build('nope'), backend=backend)
  reason = f'{backend}: kernels share out the batch alone, but the mesh has context=2'
  with on(context=2), pytest.raises(NotImplementedError, match=reason):
    jax.eval_shape(run, q)


# cuDNN: what it is asked is checked here with jax's own implementation; it runs on a GPU only.


@pytest.mark.parametrize(
  ('name', 'options', 'reason'),
  [
    ('alibi', {}, 'acts on pairs of'),
    ('sink', {}, 'sink in the softmax'),
    ('nope', {'softcap': 2.0}, 'a soft-cap acts on scores'),
    ('rope', {}, 'needs an NVIDIA GPU'),
  ],
)
def test_cudnn_refuses_with_a_reason(name, options, reason):
  q = normal(1, 6, 4, 8)
  with pytest.raises(NotImplementedError, match=f'backend cudnn: .*{reason}'):
    attend(q, q, q, build(name), backend='cudnn', **options)


def test_backends_without_tiles_refuse_sizes_but_for_dense():
  q = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
  refusing = {'dense'}

  def ask(q):
    request = build_request(q, q, q, build('nope'), block_sizes=(4, 4))
    for name, backend in BACKENDS.items():
      if (backend.refuse(request) or '').startswith('block_sizes=(4, 4), where it has tiles of'):
        refusing.add(name)

  jax.eval_shape(ask, q)
  assert refusing == {*WITHOUT_TILES}


def test_a_jax_without_splash_attention(monkeypatch):
  """It is one of Pallas' examples. Nothing but the backend of its name needs it."""
  monkeypatch.setitem(sys.modules, 'jax.experimental.pallas.ops.tpu.splash_attention', None)
  monkeypatch.setattr(target, 'platform', lambda: 'tpu')
  q = normal(1, 128, 4, 8)
  request = build_request(q, q, q, build('nope'))
  assert BACKENDS['splash'].refuse(request) == 'this version of jax has no splash attention'


@pytest.mark.parametrize('backend', ['cudnn', 'splash'])
def test_kernels_of_others_take_one_dtype(backend):
  q = normal(1, 6, 4, 8)
  with pytest.raises(NotImplementedError, match='of one dtype, not float32, float32, bfloat16'):
    attend(q, q, q.astype(jnp.bfloat16), build('nope'), backend=backend)


def test_sums_along_keys_are_exact_at_any_precision_of_products():
  """On accelerators a product at the default precision would round what it adds up."""
  x = jnp.zeros((1, 1, 4, 2 * GROUP))
  with jax.default_matmul_precision('bfloat16'):
    (product,) = (
      equation
      for equation in jax.make_jaxpr(suffix_sum)(x).eqns
      if equation.primitive.name == 'dot_general'
    )
  assert {*product.params['precision']} == {jax.lax.Precision.HIGHEST}


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
@pytest.mark.parametrize('name', ['shaw', 'fire'])
def test_the_precision_around_a_call_holds_for_its_gradient(name, backend):
  q, enc = normal(1, 8, 4, 8), build(name)

  def loss(enc, q):
    with jax.default_matmul_precision('highest'):
      out = attend(q, q, q, enc, backend=backend, block_sizes=(4, 4))
      return matmul(out, jnp.ones((8, 3))).sum()

  with jax.default_matmul_precision('default'):
    for function in (loss, jax.jit(loss), jax.checkpoint(loss)):
      program = str(jax.make_jaxpr(jax.grad(function, argnums=(0, 1)))(enc, q))
      products = re.findall(r'dot_general\[.*?\n +\]', program, re.DOTALL)
      assert len(products) > 4
      assert all('precision=(Precision.HIGHEST, Precision.HIGHEST)' in one for one in products)


def test_sums_along_keys_lose_nothing_to_larger_numbers_before_them():
  x = jnp.ones(4 * GROUP).at[0].set(1e9)
  np.testing.assert_array_equal(suffix_sum(x)[1:], np.arange(4 * GROUP - 1, 0, -1))


@pytest.mark.ci
def test_sums_that_a_branch_takes_do_not_leave_it():
  q, enc = normal(1, 8, 4, 8), build('cope', positions=2)
  with jax.checking_leaks():
    attend(q, q, q, enc, backend='blockwise', block_sizes=(4, 4)).block_until_ready()


class ShortSighted(Encoding):
  """Sums that grow leftwards are taken off scores, until they leave nothing."""

  position_kind = None
  causal_only = True
  bias_in_scale = False
  scans_keys = ((),)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS - tile.suffix_sum(jnp.full_like(s_BHTS, 200.0), inclusive=False)

  def is_exhausted(self, carried):
    return jnp.all(carried[0] > 104)


def test_a_soft_cap_leaves_every_key_a_weight():
  """Keys that are too far without it count with it, in the gradient as well."""
  q, weight = normal(1, 12, 4, 8), normal(1, 12, 4, 8)
  enc = ShortSighted(build('nope').dims, nnx.Rngs(0))

  def both(backend):
    block_sizes = (4, 2) if backend == 'blockwise' else None
    run = lambda q: attend(q, q, q, enc, backend=backend, block_sizes=block_sizes, softcap=0.5)
    return gradients(run, weight, q)

  close = lambda tiled, dense: np.testing.assert_allclose(tiled, dense, atol=2e-6)
  jax.tree.map(close, both('blockwise'), both('dense'))


@pytest.mark.parametrize(
  ('backend', 'is_causal'),
  [
    ('blockwise', True),
    *(in_ci('blockwise', False), in_ci('diagonals', True), in_ci('diagonals', False)),
    *(in_ci('fused_interpret', True), in_ci('triton_interpret', True)),
  ],
)
def test_what_has_no_second_derivative_says_so(backend, is_causal):
  q, enc = normal(1, 8, 4, 8), build('t5', bidirectional=True)
  tiles = {} if backend.endswith('interpret') else {'block_sizes': (4, 4)}
  loss = lambda q: attend(q, q, q, enc, backend=backend, is_causal=is_causal, **tiles).var()
  once = jax.grad(loss)
  with pytest.raises(NotImplementedError, match="no second derivative; backend='dense' has one"):
    jax.make_jaxpr(jax.grad(lambda q: once(q).var()))(q)
  # where a gradient is a constant there is a first one, of the value beside it, too
  step = once(q)
  expected = once(q) + once(q - step)

  def both(q):
    value, step = jax.value_and_grad(loss)(q)
    return value + loss(q - jax.lax.stop_gradient(step))

  np.testing.assert_allclose(jax.jit(jax.grad(both))(q), expected, atol=1e-6)


@pytest.mark.parametrize('name', ['t5', *map(in_ci, ('shaw', 'sink', 'cope', 'fire', 'entmax'))])
def test_the_second_derivative_of_dense(name):
  """Along a direction it is the difference of gradients there."""
  q, direction, enc = normal(1, 8, 4, 8), normal(1, 8, 4, 8), build(name)
  enc = jax.tree.map(lambda p: p + normal(*p.shape), enc)
  once = jax.jit(jax.grad(lambda q: (attend(q, q, q, enc, backend='dense') ** 2).sum()))
  twice = jax.jit(jax.grad(lambda q: (once(q) * direction).sum()))(q)
  step = 2e-3
  difference = (once(q + step * direction) - once(q - step * direction)) / (2 * step)
  np.testing.assert_allclose(twice, difference, atol=5e-3 * np.abs(difference).max())


class Hiding(Encoding):
  """Hides far keys, as one does in PyTorch, and declares nothing of it."""

  value = MASKED

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return jnp.where(tile.index_distance[None, None] < 3, s_BHTS, self.value)


@pytest.mark.parametrize('value', [MASKED, float('-inf')])
@pytest.mark.parametrize(
  'name',
  [*('entmax', 'mta'), *map(in_ci, ('adaptive_temperature', 'softpick', 'dape_v2', 'selective'))],
)
def test_weights_of_whole_rows_know_keys_that_a_score_hides(name, value, monkeypatch):
  """Values and gradients are those of a window."""
  q, weight, dims = normal(1, 12, 4, 8), normal(1, 12, 4, 8), build('nope').dims
  monkeypatch.setitem(ENCODINGS, 'hiding', Hiding)
  monkeypatch.setattr(Hiding, 'value', value)

  def both(members, window):
    enc = make('chain', **vars(dims), rngs=nnx.Rngs(0), members=members)
    return gradients(lambda q: attend(q, q, q, enc, window=window), weight, q)

  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
  jax.tree.map(close, both(('hiding', name), None), both((name,), 3))


@pytest.mark.parametrize('value', [MASKED, float('-inf')])
@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_a_soft_cap_shows_no_key_that_a_score_hides(backend, value):
  """Values and gradients are those of a window."""
  q, weight = normal(1, 12, 4, 8), normal(1, 12, 4, 8)
  hiding = Hiding(build('nope').dims, nnx.Rngs(0))
  hiding.value = value

  def both(enc, window):
    options = dict(softcap=0.5, window=window, backend=backend, block_sizes=(4, 4))
    return gradients(lambda q: attend(q, q, q, enc, **options), weight, q)

  close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6)
  jax.tree.map(close, both(hiding, None), both(build('nope'), 3))


@pytest.mark.parametrize(
  'name',
  [
    *('rope', 't5', 'shaw', 'stick_breaking'),
    *('lssa', 'pope', 'coca', 'tapa', 'cope', 'transformer_xl'),
  ],
)
def test_another_scale_is_a_factor_of_queries_where_an_encoding_allows_it(name, monkeypatch):
  """As the docstring of `attend` says; where it declares otherwise, a factor is something else."""
  draw = np.random.default_rng(0).standard_normal
  enc = jax.tree.map(lambda p: p + jnp.asarray(draw(p.shape), p.dtype), build(name, head_dim=8))
  q, k, v = normal(3, 1, 12, 4, 8)
  run = lambda q: attend(q, k, v, enc, outer_hooks_applied=True)
  found = run(q * (0.1 / enc.scale(8)))
  monkeypatch.setattr(type(enc), 'scale', lambda self, head_dim: 0.1)
  is_equal = np.abs(found - run(q)).max() < 2e-6
  assert is_equal == (not (enc.needs_unscaled_queries or enc.nonlinear_in_queries))


def test_another_scale_is_a_factor_of_queries():
  """As the docstring of `attend` says."""
  enc, (q, k, v) = build('nope', head_dim=8), normal(3, 1, 12, 4, 8)
  found = attend(q * (0.1 / enc.scale(8)), k, v, enc)
  expected = jax.nn.dot_product_attention(q, k, v, scale=0.1, is_causal=True)
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    ({}, None),
    ({'dtype': jnp.float32}, 'takes bfloat16 or float16'),
    ({'T': 3}, 'as many queries as keys'),
    ({'T': 4, 'is_causal': False}, None),
    ({'T': 3, 'is_causal': False}, 'odd number of tokens, and all would see one more: 3'),
    ({'S': 7, 'T': 4, 'is_causal': False}, 'all would see one more: 7'),
    ({'T': 1, 'is_causal': False}, 'a single query'),
    ({'segment_ids': jnp.zeros((1, 6), int)}, 'segments'),
    ({'width': 20}, 'a multiple of 8 and at most 128 here, not 20'),
    ({'width': 136}, 'at most 128 here, not 136'),
    ({'window': 2}, None),
    ({'window': 2, 'is_causal': False}, 'no window to the right'),
    ({'window': 1, 'is_causal': False}, 'no window to the right'),
    ({'chunk': 3}, 'chunks'),
    ({'window': 3, 'sink_tokens': 1}, 'sink tokens'),
    ({'prefix': 2}, 'prefixes'),
    ({'gpu': '8.0'}, None),
    ({'gpu': '7.5'}, 'of compute capability 8.0 or more, not 7.5'),
    ({'gpu': 'gfx90a'}, 'an NVIDIA GPU, not an AMD gfx90a'),
    ({'gpu': '8.9', 'width': 136}, 'at most 128 here, not 136'),
    ({'gpu': '9.0', 'width': 256}, None),
    ({'gpu': '10.0', 'width': 136}, 'at most 128 here, not 136'),
    ({'gpu': '12.0', 'width': 136}, 'at most 128 here, not 136'),
    ({'S': 1, 'T': 1}, 'a single query'),
    ({'S': 7}, None),
    ({'S': 7, 'is_causal': False}, 'odd number of tokens, and all would see one more: 7'),
    ({'mesh': {'context': 2}}, 'whole sequences, but the mesh has context=2'),
    ({'mesh': {'context': 2, 'manual': 'context'}}, None),
    ({'mesh': {'heads': 2}}, None),
  ],
)
def test_cudnn_reasons_on_a_gpu(monkeypatch, change, reason):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  S = change.get('S', 6)
  q = normal(1, S, 4, change.get('width', 8)).astype(change.get('dtype', jnp.bfloat16))
  enc, queries = build('rope', head_dim=q.shape[-1]), q[:, S - change.get('T', S) :]
  options = {'segment_ids': change['segment_ids']} if 'segment_ids' in change else {}
  fields = [field.name for field in dataclasses.fields(Mask)]
  mask = Mask(**{name: change[name] for name in fields if name in change})
  request = build_request(queries, q, q, enc, mask=mask, **options)
  if 'gpu' in change:
    there_is_a_gpu(monkeypatch, change['gpu'])
  with on(**change.get('mesh', {'data': 2})):
    answer = cudnn.refuse(request)
  assert answer is None if reason is None else reason in answer


def there_is_a_gpu(monkeypatch, capability: str) -> None:
  device = SimpleNamespace(compute_capability=capability, device_kind='A')
  monkeypatch.setattr(jax, 'devices', lambda: [device])


def test_cudnn_is_asked_for_the_gpu_of_the_mesh_and_not_for_that_of_this_machine(monkeypatch):
  for capability, width in (('7.0', 128), ('9.0', 256)):
    there_is_a_gpu(monkeypatch, capability)
    with on('gpu', 'B'):
      assert (cudnn._refuse_gpu(), cudnn._max_width()) == (None, 128)
    with on('gpu', 'A'):
      assert (cudnn._refuse_gpu() is None, cudnn._max_width()) == (capability == '9.0', width)


@pytest.mark.parametrize('options', [{}, {'window': 3}, {'is_causal': False}])
@pytest.mark.parametrize('name', ['nope', in_ci('rope'), in_ci('vo_rope')])
def test_cudnn_is_asked_for_the_same_attention(name, options):
  q, k, v = normal(1, 12, 4, 8), normal(1, 12, 2, 8), normal(1, 12, 2, 8)
  check_asked_of_cudnn(name, options, q, k, v)


def test_cudnn_is_asked_for_the_same_attention_of_few_queries():
  """Without a causal mask, which cuDNN would align to the first key."""
  q, k, v = normal(1, 4, 4, 8), normal(1, 12, 2, 8), normal(1, 12, 2, 8)
  check_asked_of_cudnn('rope', {'is_causal': False}, q, k, v)


@pytest.mark.parametrize('options', [{}, {'window': 3}])
def test_cudnn_is_asked_for_an_even_number_of_tokens(monkeypatch, options):
  """jax refuses the gradient of an odd one."""
  asked, ask = [], jax.nn.dot_product_attention
  watch = lambda *qkv, **given: asked.extend(len(x[0]) for x in qkv) or ask(*qkv, **given)
  monkeypatch.setattr(jax.nn, 'dot_product_attention', watch)
  check_asked_of_cudnn('rope', options, normal(1, 11, 4, 8), *[normal(1, 11, 2, 8)] * 2)
  assert {*asked} == {12}


def check_asked_of_cudnn(name, options, q, k, v):
  """Values and gradients equal those of `dense`."""
  enc = build(name, kv_heads=2)

  def by_cudnn(q, k, v):
    request = build_request(q, k, v, enc, mask=Mask(**options))
    return enc.transform_output(cudnn.run(request, implementation='xla'), request.i, None)

  by_dense = lambda q, k, v: attend(q, k, v, enc, backend='dense', **options)
  close = lambda found, expected: np.testing.assert_allclose(found, expected, atol=1e-5)
  weight = normal(*q.shape)
  jax.tree.map(close, *(gradients(run, weight, q, k, v) for run in (by_cudnn, by_dense)))


@pytest.mark.gpu
@pytest.mark.parametrize(
  ('name', 'tokens', 'options'),
  [
    *((name, 128, {}) for name in ('nope', 'rope', 'vo_rope')),
    *(('rope', tokens, {'window': 40}) for tokens in (128, 127)),
    ('rope', 127, {}),
    ('rope', 128, {'is_causal': False}),
  ],
)
def test_cudnn_equals_dense(name, tokens, options):
  """Values and gradients, with two heads for each of keys."""
  sizes = {'model_dim': 256, 'heads': 4, 'kv_heads': 2, 'head_dim': 64, 'train_length': 128}
  enc = make(name, **sizes, rngs=nnx.Rngs(0))
  check_on_a_gpu('cudnn', enc, tokens, 'bfloat16', **options)


CHAIN = {'name': 'chain', 'members': ('mla_rope', 'kerple_log', 'fox')}


@pytest.mark.parametrize(
  ('encoding', 'reads'),
  [
    ({'name': 'mla_rope'}, [False]),
    ({'name': 'kv_shift'}, [False]),
    ({'name': 'fox'}, [True]),
    ({'name': 'entmax'}, [True]),
    (CHAIN, [False, False, True]),
    ({'name': 'random_positions', 'inner': CHAIN}, [False, False, True]),
  ],
)
def test_a_backend_is_given_the_coordinates_that_pairs_read(encoding, reads, monkeypatch):
  """Others, such as the input that MLA's rotary part projects, tiles would carry for nobody."""
  enc = make(**encoding, model_dim=8, heads=2, head_dim=4, train_length=8, rngs=nnx.Rngs(0))
  given, dense = [], BACKENDS['dense']

  def run(request):
    given.extend((request.i, request.j))
    return dense.run(request)

  monkeypatch.setitem(BACKENDS, 'dense', dense._replace(run=run))
  q, x = jnp.ones((1, 4, 2, 4)), jnp.ones((1, 4, 8))
  run_dense = lambda q, x: attend(q, q, q, enc, x=x, backend='dense', outer_hooks_applied=True)
  jax.eval_shape(run_dense, q, x)
  for coordinates in given:
    each = coordinates if len(reads) > 1 else [coordinates]
    assert [len(jax.tree.leaves(of_member)) > 0 for of_member in each] == reads
