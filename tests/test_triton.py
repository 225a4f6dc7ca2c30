"""Kernels for NVIDIA GPUs: interpreted they equal `dense`, values and gradients; they compile."""

import importlib
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import (
  Bent,
  answer_of,
  cases_of,
  check_equal,
  check_equal_to_dense,
  check_lowers,
  check_on_a_gpu,
  on,
  with_gradient_by,
  within,
)
from flax import nnx
from kinds import daily_if
from test_aot import BASE
from test_laws import build, close, inputs, layer

from posenc_jax import config
from posenc_jax.attention import attend
from posenc_jax.attention.backends import triton
from posenc_jax.attention.kernels.gpu import passes
from posenc_jax.attention.kernels.gpu.head_program import HeadProgram
from posenc_jax.attention.kernels.gpu.kernel import Walks
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.attention.tiled.geometry import TileGrid
from posenc_jax.distributed import mesh as meshes
from posenc_jax.encodings import ENCODINGS, make
from posenc_jax.encodings.core.base import Dims, Encoding
from scripts.aot import programs, targets

# Encodings that these kernels do not take, and the reason.
VECTORS, SUMS = 'vectors by distance', 'sums along the keys'
REFUSED = {
  **dict.fromkeys(('shaw', 'transformer_xl', 'deberta', 'music_transformer', 'wavelet'), VECTORS),
  **dict.fromkeys(('relative_projection', 'compact_relative'), VECTORS),
  **dict.fromkeys(('cope', 'stick_breaking', 'path', 'grape_ap', 'row_gates'), SUMS),
  'wall': 'chunks of keys',
  'hyperbolic_rope': 'parts of arrays',
  'fire': 'cannot score one head alone',
  'dape': 'cannot score one head alone',
  'grape_a': 'cannot score one head alone',
  'screening': 'cannot score one head alone',
  **dict.fromkeys(('swin', 'swin_v2', 'jordan_rope'), 'cannot score one head alone'),
  **dict.fromkeys(('entmax', 'dape_v2', 'adaptive_temperature', 'urpe'), 'whole rows'),
  **dict.fromkeys(('softpick', 'selective', 'lssar', 'talking_heads', 'mta'), 'whole rows'),
  **dict.fromkeys(('elastic_softmax', 'cog'), 'whole rows'),
}
KERNELS = [name for name in ENCODINGS if name not in REFUSED]
# One for each way in which a program gets at what it needs: numbers by distance, and coordinates of
# heads.
DAILY = [('t5', 'last_queries_sinks'), ('fox', 'packed'), ('t5', 'bidirectional')]


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    *DAILY,
    *(
      pytest.param(*case, marks=pytest.mark.fused)
      for case in cases_of(KERNELS)
      if case not in DAILY
    ),
  ],
)
def test_interpreted_kernels_equal_dense(name, mode):
  """Output and all gradients, with 11 queries in tiles of 4 x 8 and two heads for each of keys."""
  tile = (2, 2) if mode == 'last_queries_sinks' else (4, 8)
  check_equal_to_dense('triton_interpret', name, mode, tile)


@pytest.mark.fused
def test_several_tiles_in_bfloat16():
  check_equal('triton_interpret', build('t5'), 24, (8, 8), 'bfloat16', within(1e-2))


def test_what_triton_lacks_is_put_differently():
  """Products with axes of 1, parts of arrays and their adjoint, calls, a choice of platform."""
  rng = np.random.default_rng(0)
  x, y = (rng.standard_normal((1, 1, 4, 8)).astype('f4') for _ in range(2))

  second = lambda y: jax.lax.slice_in_dim(y, 2, 4, axis=3)  # it says strides, of 1

  def tile(a, b, inputs):
    def sums(x):
      first, last = jax.nn.softplus(x[..., :2]), x[..., 6:]
      s = jnp.einsum('bhtk,bhsk->bhts', first, second(inputs['y'])) + last @ last.mT
      s = jax.lax.platform_dependent(s, cpu=lambda s: 0 * s, default=lambda s: s + a - b)
      return jnp.cos(s) + x[:, :, :1, :4]

    out, pull_back = jax.vjp(sums, inputs['x'])
    return out, pull_back(jnp.ones_like(out))

  program = HeadProgram(tile, {'x': x, 'y': y})
  program.check()
  found = program([], 5, 2, [x, y], [])
  of_gpu = lambda *args, **branches: branches['default'](*args)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.lax, 'platform_dependent', of_gpu)
    expected = jax.tree.leaves(tile(5, 2, {'x': x, 'y': y}))
  jax.tree.map(close, found, expected)
  lacking = [
    ('sort', jnp.sort),
    ('slice', lambda x: x[..., 1:4]),
    ('slice', lambda x: x[..., ::2]),
    ('rev', lambda x: x[..., ::-1]),
  ]
  for primitive, function in lacking:
    program = HeadProgram(lambda a, b, inputs, f=function: f(inputs['x']), {'x': x})
    with pytest.raises(NotImplementedError, match=rf'\({primitive}\)'):
      program.check()


def test_functions_that_gradients_alone_need_are_refused():
  q, enc = jnp.ones((1, 16, 4, 8)), Bent(with_gradient_by(jax.lax.erf))
  with pytest.raises(NotImplementedError, match=r'Bent applies a function \(erf\) in every tile'):
    attend(q, q, q, enc, backend='triton_interpret')


@pytest.mark.parametrize('name', REFUSED)
def test_reasons_of_encodings(name):
  enc, (x, weights, _) = build(name), inputs()
  with pytest.raises(NotImplementedError, match=f'backend triton_interpret: .*{REFUSED[name]}'):
    layer(enc, weights, x, backend='triton_interpret')


@pytest.mark.parametrize(
  ('kibibytes', 'width', 'dtype', 'side'),
  [
    # an H100, and what is not there
    *((227, 128, jnp.bfloat16, 64), (227, 128, jnp.float32, 32), (227, 136, jnp.float32, 32)),
    *((None, 64, jnp.float32, 64), (None, 256, jnp.bfloat16, 32), (None, 512, jnp.float32, 16)),
    # an A100
    *((163, 128, jnp.bfloat16, 64), (163, 64, jnp.float32, 64), (163, 128, jnp.float32, 32)),
    # an RTX 3090, 4090 or 5090, an L4, an A10
    *((99, 64, jnp.bfloat16, 64), (99, 128, jnp.bfloat16, 32), (99, 64, jnp.float32, 32)),
    *((99, 128, jnp.float32, 32), (99, 256, jnp.float32, 16)),
  ],
)
def test_tiles_are_as_large_as_the_shared_memory_of_the_gpu_allows(
  kibibytes, width, dtype, side, monkeypatch
):
  """The limit is that of the GPU that is there, though the mesh tells its kind alone."""
  here = {} if kibibytes is None else {'shared_memory_per_block_optin': kibibytes * 2**10}
  here = SimpleNamespace(device_kind='any', **here)
  monkeypatch.setattr(jax, 'local_devices', lambda: [here])
  grid_of = lambda q: triton.schedule_of(build_request(q, q, q, make_for(width, 'alibi'))).grid
  with on('gpu'):
    grid = answer_of(grid_of, (1, 256, 4, width), dtype=dtype)
  assert (grid.block_q, grid.block_k) == (side, side)


@pytest.mark.parametrize('side', [32, 16])
def test_small_tiles_of_a_small_gpu_equal_dense(side, monkeypatch):
  rng = np.random.default_rng(0)
  enc = make_for(16, 't5')
  enc = jax.tree.map(lambda x: x + jnp.asarray(rng.standard_normal(x.shape), x.dtype), enc)
  monkeypatch.setattr(triton, 'SIDES', ((side, side),))
  check_equal('triton_interpret', enc, 70)


def test_a_cpu_is_told_that_kernels_need_a_gpu():
  q = jnp.ones((1, 16, 4, 8))
  with pytest.raises(NotImplementedError, match=r'backend triton: jax runs on cpu, .* NVIDIA GPU'):
    attend(q, q, q, make_for(8, 'nope'), backend='triton')


def test_a_jax_without_pallas_for_triton(monkeypatch):
  """It has announced that it will drop that. Everything else is as it was."""
  monkeypatch.setitem(sys.modules, 'jax.experimental.pallas.triton', None)
  monkeypatch.delattr(jax.experimental.pallas, 'triton', raising=False)
  ours = ('posenc_jax.attention.kernels.gpu.', 'posenc_jax.attention.backends.triton')
  for name in [name for name in sys.modules if name.startswith(ours)]:
    folder, _, own = name.rpartition('.')
    monkeypatch.setattr(sys.modules[folder], own, sys.modules[name])  # to be put back
    monkeypatch.delitem(sys.modules, name)
  anew = importlib.import_module(ours[1])
  assert anew is not triton
  q = jnp.ones((1, 16, 4, 8))
  request = build_request(q, q, q, make_for(8, 'nope'))
  assert anew.refuse_interpreted(request) == 'this version of jax has no Pallas for Triton'
  assert anew.refuse(request).startswith('jax runs on cpu')


def make_for(head_dim: int, name: str, kv_heads: int = 4):
  """An encoding for four heads of this width."""
  dims = {'model_dim': 4 * head_dim, 'heads': 4, 'head_dim': head_dim, 'train_length': 64}
  return make(name, **dims, kv_heads=kv_heads, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ('T', 'width', 'block_sizes', 'reason'),
  [
    (64, 24, None, None),
    (64, 24, (16, 128), None),
    (8, 24, None, 'at least 16 queries and 16 keys, not 8 and 64'),
    (64, 8, None, 'at least 16 wide, not 8'),
    (64, 24, (48, 64), 'a power of 2 and at least 16, not 48'),
    (64, 24, (64, 8), 'a power of 2 and at least 16, not 8'),
    (128, 128, (128, 64), None),
    (64, 128, (128, 128), None),
    (
      128,
      128,
      (128, 128),
      '128 queries and 128 keys in rows of 256 bytes takes more than the shared',
    ),
    (64, 256, (64, 64), 'rows of 512 bytes takes more than the shared memory of a GPU, 227 KiB'),
    (64, 256, (64, 32), None),
    (128, 256, (16, 128), '16 queries and 128 keys in rows of 512 bytes takes more than'),
    (64, 512, (64, 32), 'in rows of 1024 bytes'),
    (64, 512, (32, 32), None),
    (64, 2048, None, '16 queries and 16 keys in rows of 4096 bytes'),
  ],
)
def test_reasons_on_a_gpu(monkeypatch, T, width, block_sizes, reason):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  q, k = (jax.ShapeDtypeStruct((1, n, 4, width), jnp.bfloat16) for n in (T, max(T, 64)))
  answers = []

  def ask(q, k):
    request = build_request(q, k, k, make_for(width, 'alibi'), block_sizes=block_sizes)
    answers.append(triton.refuse(request))

  jax.eval_shape(ask, q, k)
  assert answers == [None] if reason is None else reason in answers[0]


@pytest.mark.parametrize(('kind', 'longest'), [('row', None), ('column', None), ('diagonal', 3)])
def test_programs_visit_every_tile_once_and_no_long_walk(kind, longest):
  """Programs of one row (column, diagonal) have its tiles and no others; some have none."""
  grid = TileGrid(64, 96, 8, 8, Mask(window=40), 0, False, -100, 16)
  visits = Visits.forward(grid)
  count = {'row': 8, 'column': 12, 'diagonal': grid.diagonals}[kind]
  walks = Walks.along(visits, kind, count, longest)
  seen = []
  for number, start, stop in zip(walks.number, walks.start, walks.stop, strict=True):
    tiles = range(start, stop)
    assert longest is None or len(tiles) <= longest
    assert {getattr(walks.visits, kind)[n] for n in tiles} <= {number}
    seen += tiles
  assert seen == [*range(len(visits.row))]
  assert sorted({*walks.number}) == [*range(count)]
  assert longest is None or len(walks.number) > count


def test_gradients_of_tables_are_added_up_over_programs():
  """T5's table, of tiles that are so far apart that several programs share them."""
  rng = np.random.default_rng(0)
  dims = {'model_dim': 32, 'heads': 4, 'head_dim': 8, 'train_length': 64}
  enc = make('t5', **dims, max_distance=8, buckets=8, rngs=nnx.Rngs(0))
  enc = jax.tree.map(lambda x: x + jnp.asarray(rng.standard_normal(x.shape), x.dtype), enc)
  check_equal('triton_interpret', enc, 40, (2, 2))


class Grid(Encoding):
  """Scores fall with the distance in both of two positions, and a slope of each head."""

  positions_per_token = 2

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    place = position_ids.astype(jnp.float32)
    return {'place': place, 'sloping': place[..., :1] * jnp.array([[[0.5, 0.25]]])}

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    apart_BTS = jnp.abs(tile.i['place'][:, :, None] - tile.j['place'][:, None]).sum(axis=-1)
    return s_BHTS - apart_BTS[:, None] - tile.difference(tile.i['sloping'], tile.j['sloping'])


def test_coordinates_as_many_as_heads_are_not_taken_for_those_of_heads():
  enc = Grid(Dims(16, 2, 2, 8, 16), nnx.Rngs(0))
  places = np.random.default_rng(0).integers(0, 5, (2, 12, 2))
  check_equal('triton_interpret', enc, 12, (4, 8), position_ids=places)


@pytest.mark.parametrize(('axes', 'most'), [(1, 12), (3, 30)])
def test_which_coordinates_are_of_heads_is_found_in_few_traces(axes, most, monkeypatch):
  """A trace for every set of n coordinates would be 2^n traces."""
  traced, q = [], jnp.ones((1, 16, 4, 8))
  dims = {'model_dim': 32, 'heads': 4, 'head_dim': 8, 'train_length': 16}
  enc = make('pape', **dims, axes=axes, rngs=nnx.Rngs(0))
  monkeypatch.setattr(passes, 'HeadProgram', lambda *x: traced.append(1) or HeadProgram(*x))
  positions = jnp.zeros((1, 16, axes) if axes > 1 else (1, 16), int)
  request = build_request(q, q, q, enc, x=jnp.ones((1, 16, 32)), position_ids=positions)
  assert triton.refuse_interpreted(request) is None
  assert len(traced) <= most


class Named(Encoding):
  """Scores fall with the distance in a coordinate that is called as ids are."""

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return {'segment': position_ids.astype(jnp.float32)}

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    apart_BTS = jnp.abs(tile.i['segment'][:, :, None] - tile.j['segment'][:, None])
    return s_BHTS - apart_BTS[:, None]


@pytest.mark.parametrize('is_packed', [False, True])
def test_coordinates_called_segment_are_not_taken_for_segments(is_packed):
  """Kernels pass over tiles whose queries and keys have no segment in common."""
  enc = Named(Dims(16, 2, 2, 8, 16), nnx.Rngs(0))
  options = {'segment_ids': (np.arange(12) >= 5).astype(int)[None]} if is_packed else {}
  check_equal('triton_interpret', enc, 12, (4, 4), **options)


@pytest.mark.gpu
@pytest.mark.parametrize('name', ['nope', 'alibi', 't5', 'fox', 'rerope'])
def test_kernels_equal_dense_on_a_gpu(name):
  check_on_a_gpu('triton', make_for(64, name), 300)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['t5', 'sink'])
def test_kernels_of_packed_rows_and_grouped_heads_equal_dense_on_a_gpu(name, dtype):
  """Under a window that is shorter than the documents."""
  packed = {'segment_ids': (np.arange(300) >= 130).astype(int)[None], 'window': 100}
  check_on_a_gpu('triton', make_for(64, name, kv_heads=2), 300, dtype, **packed)


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in ('t5', 'rerope'), 'ci')) for name in KERNELS]
)
def test_kernels_lower_for_an_h100(monkeypatch, name):
  check_lowers(monkeypatch, 'gpu', 'NVIDIA H100 80GB HBM3', name, 'triton', 64)


@pytest.mark.aot
@pytest.mark.skipif(targets.missing('cuda') is not None, reason='needs the CUDA plugin of jax')
@pytest.mark.parametrize('head_dim', [64, 128])
@pytest.mark.parametrize('name', KERNELS)
def test_kernels_compile_for_an_h100(name, head_dim):
  """Forward and backward at 8192 tokens and two heads in bfloat16, to machine code."""
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, targets.devices('cuda:h100', 1))
  sizes = {'batch': 1, 'length': 8192, 'heads': 2, 'head_dim': head_dim, 'dtype': 'bfloat16'}
  compiled = programs.attention_program(mesh, name, 'triton', sizes).lower().compile()
  assert compiled.as_text().count('__gpu$xla.gpu.triton') >= 3
  assert b'\x7fELF' in compiled.runtime_executable().serialize()
