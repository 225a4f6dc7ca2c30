"""Attention by diagonals equals `dense`, and its loops are those that a GPU wants."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import answer_of, check_constant_tiles, check_equal_to_dense, check_on_a_gpu, on
from flax import nnx
from kinds import daily_if, slow
from test_aot import BASE, KINDS
from test_laws import MODES, build, declared, is_wanted

from configs import own_text
from posenc_jax import config
from posenc_jax.attention import attend, auto_backend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.attention.tiled.diagonal_passes import is_visited, stretches
from posenc_jax.attention.tiled.schedule import TileRange, TileSchedule
from posenc_jax.distributed import mesh as meshes
from posenc_jax.encodings import ENCODINGS, make
from posenc_jax.training import multi_seed
from scripts.aot import hlo, programs, targets
from scripts.explain import ask_backends

# One for each way in which a tile gets at what it needs: vectors by distance, sums along keys, keys
# to the right;
DAILY = (('shaw', 'window'), ('cope', 'causal'), ('nope', 'prefix'))
# numbers by distance, vectors that are constant far away, coordinates, distances of each pair.
IN_CI = (
  ('t5', 'last_queries'),
  ('shaw_clipped', 'bidirectional'),
  ('fox', 'packed'),
  ('alibi', 'positions'),
)
IN_TILES = [name for name in ENCODINGS if ENCODINGS[name].normalizer != 'rows']


def cases():
  """Every encoding causally and in two other modes in turn; a plain score in all. What is refused
  is left out.
  """
  others = [mode for mode in MODES if mode not in ('causal', 'float_positions')]
  for n, name in enumerate(IN_TILES):
    enc = declared(name)
    if any(enc.scans_keys):
      continue
    wanted = [
      mode
      for mode in others
      if is_wanted(name, mode)
      and 'sink_tokens' not in MODES[mode]
      and not ('position_ids' in MODES[mode] and enc.has_vector_tables)
    ]
    two = [wanted[(n + step) % len(wanted)] for step in (0, len(wanted) // 2)]
    modes = wanted if name == 'nope' else two
    yield from ((name, mode) for mode in ('causal', *dict.fromkeys(modes)))
  yield 'shaw_clipped', 'causal'


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    *(pytest.param(*case, marks=daily_if(case in DAILY, 'ci')) for case in (*DAILY, *IN_CI)),
    *(slow(*case) for case in dict.fromkeys(cases()) if case not in (*DAILY, *IN_CI)),
  ],
)
def test_diagonals_equal_dense(name, mode):
  """Output and all gradients, with 11 keys in tiles of 4 x 4 and two heads for each of keys."""
  check_equal_to_dense('diagonals', name, mode, (4, 4))


@pytest.mark.parametrize(
  ('name', 'is_causal'),
  [
    ('shaw_clipped', True),
    pytest.param('shaw_clipped', False, marks=pytest.mark.ci),
    *map(slow, ('shaw_keys', 'deberta_clamped'), (True, True)),
  ],
)
def test_diagonals_over_which_tables_are_constant(name, is_causal):
  """They are in no loop with others: one row of a table serves all of their pairs."""
  check_constant_tiles('diagonals', name, 11, is_causal)


@pytest.mark.parametrize(
  ('mask', 'T'),
  [
    (Mask(), 200),
    (Mask(), 30),
    (Mask(window=9), 200),
    (Mask(chunk=20), 200),
    (Mask(is_causal=False), 200),
    (Mask(is_causal=False, window=11), 50),
    (Mask(prefix=17), 200),
  ],
)
def test_stretches_have_every_visible_pair_once(mask, T):
  """Rows have their tiles from right to left, and causal ones few that they do not need."""
  S, side = 200, 8
  q, k = jnp.zeros((1, T, 4, 8)), jnp.zeros((1, S, 2, 8))
  request = build_request(q, k, k, build('nope'), mask=mask)
  tiles = TileRange.whole(TileSchedule.of_square_tiles(request, side))
  grid = tiles.schedule.grid
  order, visited = np.full((grid.tile_rows, grid.tile_columns), -1), 0
  for n, stretch in enumerate(stretches(tiles, False)):
    for step in range(stretch.count):
      a = np.arange(stretch.start, stretch.stop)
      b = a + stretch.shift - step
      visited += len(a)
      inside = is_visited(tiles, a, b)
      assert (order[a[inside], b[inside]] == -1).all()
      order[a[inside], b[inside]] = 1000 * n + step
  i, j = np.arange(S - T, S), np.arange(S)
  visible = np.asarray(mask.visible(i[:, None] - j[None], i[None], j[None])[0])
  needed = np.zeros_like(order, bool)
  np.logical_or.at(needed, ((i[:, None] - i[0]) // side, j[None] // side), visible)
  assert (order[needed] >= 0).all()
  for row, is_needed in zip(order, needed, strict=True):
    assert (np.diff(row[is_needed]) < 0).all()
  if mask == Mask() and T == S:
    assert needed.sum() <= visited <= 1.25 * needed.sum()


@pytest.mark.parametrize('name', [*map(slow, ('nope', 'shaw_clipped')), 'stick_breaking'])
def test_loops_turn_as_often_as_the_compiler_knows(name):
  """And nothing in them asks which of two ways to go: a GPU would wait for the answer."""
  enc, q = build(name), jnp.ones((1, 32, 4, 8))
  k = jnp.ones((1, 32, 2, 8))

  def loops_and_choices(backend):
    loss = lambda *args: attend(*args, backend=backend, block_sizes=(4, 4)).sum()
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(q, k, k, enc).compile().as_text()
    loops = re.findall(r'^.* while\(.*$', program, re.MULTILINE)
    return len(loops), sum('known_trip_count' not in loop for loop in loops) + len(
      re.findall(r' conditional\(', program)
    )

  loops, unknown = loops_and_choices('diagonals')
  assert loops >= 2
  assert unknown == 0
  assert loops_and_choices('blockwise')[1] > 0


@pytest.mark.parametrize(
  ('name', 'options', 'reason'),
  [
    ('nope', {'block_sizes': (4, 8)}, r'block_sizes=\(4, 8\), where tiles must be square'),
    ('path', {}, 'PaTH carries vectors along the keys'),
    ('shaw', {'position_ids': np.arange(8)[None]}, 'Shaw has vectors by distance'),
    ('nope', {'window': 4, 'sink_tokens': 1}, 'sink tokens from outside of a window'),
    ('entmax', {}, 'Entmax makes weights of whole rows'),
  ],
)
def test_what_diagonals_refuse(name, options, reason):
  q, k, x = jnp.ones((1, 8, 4, 8)), jnp.ones((1, 8, 2, 8)), jnp.ones((1, 8, 12))
  with pytest.raises(NotImplementedError, match=f'^backend diagonals: {reason}'):
    attend(q, k, k, build(name), x=x, backend='diagonals', **options)


@pytest.mark.parametrize(
  ('batch', 'queries', 'keys', 'backend'),
  [
    *((1, 8192, 8192, 'diagonals'), (64, 8192, 8192, 'blockwise'), (1, 256, 8192, 'blockwise')),
    # up to 2^26 scores, of 4 heads
    *((16, 1024, 1024, 'dense'), (17, 1024, 1024, 'diagonals'), (17, 256, 1024, 'dense')),
    # fewer queries than a tile has
    (65, 256, 1024, 'blockwise'),
  ],
)
def test_auto_on_a_gpu_goes_by_the_number_of_scores_and_tiles(batch, queries, keys, backend):
  shapes = (batch, queries, 4, 8), (batch, keys, 2, 8)
  chosen = lambda q, k: auto_backend(build_request(q, k, k, build('alibi')))
  with on('gpu'):
    assert answer_of(chosen, *shapes, dtype=jnp.float32) == backend


@pytest.mark.parametrize(
  ('name', 'batch', 'tokens', 'backend'),
  [
    *(('alibi', 1, 2**17, 'diagonals'), ('fire', 1, 2**14, 'diagonals')),
    *(('fire', 1, 2**17, 'blockwise'), ('fire', 8, 2**14, 'diagonals')),
    *(('dape', 1, 2**14, 'diagonals'), ('dape', 2, 2**14, 'blockwise')),
    *(('chain_fire', 1, 2**15, 'blockwise'), ('random_positions', 1, 2**15, 'blockwise')),
    # each layer of `dense` would keep them
    *(('fire', 2, 1024, 'dense'), ('dape', 2, 1024, 'dense'), ('dape', 3, 1024, 'diagonals')),
  ],
)
def test_auto_on_a_gpu_counts_hidden_units_of_pairs(name, batch, tokens, backend):
  """32 of each pair, beside 4 scores: of FIRE for all sequences alike, of DAPE for each."""
  sizes = {'model_dim': 32, 'heads': 4, 'head_dim': 8, 'train_length': 64, 'rngs': nnx.Rngs(0)}
  inside = {
    'chain_fire': {'members': ('rope', 'fire')},
    'random_positions': {'inner': 'fire', 'longest': 2**15},
  }
  enc = make(name.removesuffix('_fire'), **sizes, **inside.get(name, {}))
  chosen = lambda q: auto_backend(build_request(q, q, q, enc, outer_hooks_applied=True))
  with on('gpu'):
    assert answer_of(chosen, (batch, tokens, 4, 8), dtype=jnp.float32) == backend


@pytest.mark.parametrize(
  ('mesh_seeds', 'batch', 'tokens', 'backend'),
  [
    *((1, 4, 1024, 'dense'), (1, 5, 1024, 'diagonals'), (4, 16, 1024, 'dense')),
    *((1, 4, 8192, 'diagonals'), (1, 5, 8192, 'blockwise'), (4, 16, 8192, 'diagonals')),
  ],
)
def test_auto_on_a_gpu_counts_the_seeds_of_one_program(mesh_seeds, batch, tokens, backend):
  """Each device has its share of the four seeds; also in a loop over layers, and with gradients."""

  def layer(q, _):
    assert auto_backend(build_request(q, q[:, :, :2], q[:, :, :2], build('alibi'))) == backend
    return q, None

  loss = lambda q: jax.lax.scan(jax.checkpoint(layer), q, None, length=2)[0].sum()
  with on('gpu', **dict.fromkeys(meshes.AXES, 1) | {'seeds': mesh_seeds}):
    shape = jax.ShapeDtypeStruct((4, batch, tokens, 4, 8), jnp.float32)
    jax.eval_shape(multi_seed.vmap_seeds(jax.grad(loss)), shape)


@pytest.mark.parametrize(
  ('platform', 'name', 'shape', 'options', 'side'),
  [
    ('cpu', 'nope', (1, 8192, 8), {}, 256),
    ('tpu', 'nope', (1, 8192, 8), {}, 512),
    ('gpu', 'nope', (1, 8192, 32), {}, 1024),
    # 2^25 scores of a tile
    ('gpu', 'nope', (1, 8192, 36), {}, 512),
    ('gpu', 'nope', (16, 8192, 8), {}, 512),
    ('gpu', 'nope', (17, 8192, 8), {}, 256),
    ('gpu', 'fire', (4, 8192, 8), {}, 1024),
    ('gpu', 'dape', (4, 8192, 8), {}, 512),
    # no more than the sequence, and two in a window
    ('gpu', 'nope', (1, 600, 8), {}, 1024),
    ('gpu', 'nope', (1, 300, 8), {}, 512),
    ('gpu', 'nope', (1, 8192, 8), {'window': 2048}, 1024),
    ('gpu', 'nope', (1, 8192, 8), {'window': 1024}, 512),
    ('gpu', 'nope', (1, 8192, 8), {'chunk': 512}, 256),
    # 2^28 numbers by distance, of which T5 has few that differ
    ('gpu', 'alibi', (1, 32768, 8), {}, 1024),
    ('gpu', 'alibi', (1, 65536, 8), {}, 512),
    ('gpu', 'alibi', (1, 131072, 8), {}, 256),
    ('gpu', 't5', (1, 131072, 8), {}, 1024),
  ],
)
def test_tiles_on_a_gpu_are_as_large_as_memory_allows(platform, name, shape, options, side):
  """Each is a dozen kernels, one after another."""
  sizes = {'model_dim': 8 * shape[2], 'heads': shape[2], 'head_dim': 8, 'train_length': 64}
  enc = make(name, **sizes, rngs=nnx.Rngs(0))

  def grid_of(q):
    return TileSchedule.of_request(build_request(q, q, q, enc, mask=Mask(**options))).grid

  with on(platform):
    grid = answer_of(grid_of, (*shape, 8))
  assert (grid.block_q, grid.block_k) == (side, side)


@pytest.mark.parametrize('name', own_text.NAMES)
def test_on_a_gpu_the_study_of_ones_own_text_keeps_no_weights(name):
  """`dense` would keep those of all 12 layers for the backward pass, more than a card has."""
  c = config.load(BASE.parent / 'own_text.py', {'encoding.name': name})
  sizes = {field: c.model[field] for field in ('model_dim', 'heads', 'head_dim')}
  enc = make(name, **sizes, train_length=c.train.length, rngs=nnx.Rngs(0))
  _, taken = ask_backends(c, enc, Mask(), 'gpu')
  assert taken == ('cudnn' if name in ('rope', 'nope') else 'diagonals')


@pytest.mark.parametrize(
  ('axes', 'manual', 'backend'),
  [
    ({'data': 4, 'fsdp': 2}, '', 'diagonals'),
    ({'seeds': 8}, '', 'blockwise'),
    ({'data': 8}, 'data', 'blockwise'),
  ],
)
def test_auto_counts_the_devices_that_share_the_batch(axes, manual, backend):
  """Not those that seeds are shared over, nor, within jax.shard_map, what shares it already."""
  shapes = [(32, 8192, heads, 8) for heads in (4, 2)]  # 2 * LARGEST
  chosen = lambda q, k: auto_backend(build_request(q, k, k, build('alibi')))
  with on('gpu', manual=manual, **axes):
    assert answer_of(chosen, *shapes, dtype=jnp.float32) == backend


@pytest.mark.aot
@pytest.mark.skipif(targets.missing('cuda') is not None, reason='needs the CUDA plugin of jax')
@pytest.mark.parametrize('name', [name for name in KINDS if name != 'path'])
def test_an_h100_launches_fewer_kernels_than_for_tiles(name, monkeypatch):
  """A tenth or less of what tiles of 256 take at 8192 tokens, forward and backward, and nothing as
  large as all scores. The tiles that `blockwise` takes of itself are larger there.
  """
  for variable, value in targets.ENVIRONMENT.items():
    monkeypatch.setenv(variable, value)
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, targets.devices('cuda:h100', 1))
  T, H = 8192, 2
  sizes = {'batch': 1, 'length': T, 'heads': H, 'head_dim': 64, 'dtype': 'bfloat16'}
  of_a_pair = 32 if name == 'dape' else H  # numbers: DAPE has its hidden layer beside the scores
  launches = {}
  for backend, tile in (('blockwise', (256, 256)), ('diagonals', None)):
    compiled = programs.attention_program(mesh, name, backend, sizes, tile).lower().compile()
    launches[backend] = hlo.Program(compiled.as_text(), 1.0, 1.0).cost().launches
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * of_a_pair * T**2
  assert launches['diagonals'] < launches['blockwise'] / 10


@pytest.mark.gpu
@pytest.mark.parametrize('name', ['t5', 'shaw_clipped', 'fox', 'stick_breaking'])
def test_diagonals_equal_dense_on_a_gpu(name):
  """In tiles with ragged ends."""
  check_on_a_gpu('diagonals', build(name), 1100)
