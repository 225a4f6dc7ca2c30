"""Kernels: interpreted they equal `dense`, values and gradients; for TPUs they compile."""

import dataclasses
import functools
import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import (
  Bent,
  answer_of,
  cases_of,
  check_constant_tiles,
  check_equal,
  check_equal_to_dense,
  check_lowers,
  gradients,
  gradients_of_layer,
  on,
  with_all_gradients,
  with_gradient_by,
  within,
)
from flax import nnx
from jax.experimental import pallas as pl
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from kinds import daily_if
from test_laws import DIMS, S, build, close, inputs, layer

from posenc_jax.attention import BACKENDS, attend, auto_backend
from posenc_jax.attention.backends import fused, splash
from posenc_jax.attention.kernels.program import TileProgram
from posenc_jax.attention.kernels.tpu.relative_shift import (
  relative_shift,
  relative_shift_transpose,
  spread,
)
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.attention.tiled.geometry import TileGrid
from posenc_jax.encodings import ENCODINGS, Encoding, make
from scripts.aot import targets

# Encodings that no kernel takes, and the reason: whole rows, a lookup, a scan.
REFUSED = {
  **dict.fromkeys(('entmax', 'dape_v2', 'adaptive_temperature', 'urpe'), 'whole rows'),
  **dict.fromkeys(('softpick', 'selective', 'lssar', 'talking_heads', 'mta'), 'whole rows'),
  **dict.fromkeys(('elastic_softmax', 'cog'), 'whole rows'),
  **dict.fromkeys(('cope', 'swin'), 'by an index'),
  **dict.fromkeys(('path', 'wall', 'hyperbolic_rope', 'jordan_rope'), 'chunks of keys'),
}
KERNELS = [name for name in ENCODINGS if name not in REFUSED]
# One for each way in which a kernel gets at what it needs: numbers by distance (with tiles that no
# query sees), coordinates, vectors by distance read by queries and keys, sums along keys.
EACH_WAY = {
  't5': 'last_queries_sinks',
  'fox': 'packed',
  'deberta': 'causal',
  'stick_breaking': 'causal',
}
# And with keys to the right.
IN_FEW = [*EACH_WAY.items(), ('shaw', 'prefix')]
DAILY = ('fox', 'deberta', 'stick_breaking')
ON_A_TPU = [('splash', 'rope'), *(('fused', name) for name in ('nope', *EACH_WAY))]
# Encodings whose tiles differ, for which kernels are compiled at full length; the tiles of all
# others are that of `nope`.
COMPILED = (
  *('nope', 'alibi', 'fox', 't5', 'shaw', 'deberta', 'transformer_xl', 'stick_breaking', 'fire'),
  *('kerple_log', 'dape', 'xpos', 'rerope', 'grape_ap', 'grape_a', 'scale_invariant', 'string'),
  *('relative_projection', 'dca', 'music_transformer', 'heads', 'sink', 'rope_pp', 'tupe', 'chain'),
  *('cable', 'tapa'),
)


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    *(
      pytest.param(*case, marks=() if case[0] in DAILY else (pytest.mark.ci, pytest.mark.fused))
      for case in IN_FEW
    ),
    *(
      pytest.param(*case, marks=pytest.mark.fused)
      for case in cases_of(KERNELS)
      if case not in IN_FEW
    ),
  ],
)
def test_interpreted_kernels_equal_dense(name, mode):
  """Output and all gradients, with 11 queries in tiles of 4 x 8 and two heads for each of keys."""
  tile = (2, 2) if mode == 'last_queries_sinks' else (4, 8)
  check_equal_to_dense('fused_interpret', name, mode, tile)


@pytest.mark.parametrize(
  ('name', 'tokens', 'is_causal'),
  [
    ('shaw_clipped', 11, True),
    *(
      pytest.param(*case, marks=pytest.mark.fused)
      for case in (
        *(('t5_small', 24, True), ('t5_bidirectional', 24, False)),
        ('deberta_clamped', 11, True),
        ('hard_alibi_first', 11, True),  # whose numbers differ right before they are constant
      )
    ),
  ],
)
def test_tiles_over_which_tables_are_constant(name, tokens, is_causal):
  """One row of a table serves all of their queries, keys and weights, or one number of it."""
  check_constant_tiles('fused_interpret', name, tokens, is_causal)


@pytest.mark.fused
def test_several_tiles_in_bfloat16():
  check_equal('fused_interpret', build('t5'), 24, (8, 8), 'bfloat16', within(1e-2))


class Nearest(Encoding):
  """Hides far keys by -inf, as one does in PyTorch."""

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return jnp.where(tile.index_distance[None, None] < 3, s_BHTS, -jnp.inf)


def test_scores_that_hide_all_keys_of_a_tile():
  """Rows meet tiles of -inf alone, before and after those that they see."""
  enc, (x, weights, cotangent) = Nearest(DIMS, nnx.Rngs(0)), inputs()

  def by(backend, sizes):
    run = lambda weights, x: layer(enc, weights, x, backend=backend, block_sizes=sizes)
    return gradients(run, cotangent, weights, x)

  jax.tree.map(close, by('fused_interpret', (4, 4)), by('dense', None))


class OwnVectors(Encoding):
  """A score that reads vectors of its own by distance, by the queries or by the keys."""

  def __init__(self, table: str, reads: str):
    super().__init__(DIMS, nnx.Rngs(0))
    self.table, self.reads = table, reads

  def tables(self, r_R):
    channels = jnp.arange(1.0, 1 + self.dims.head_dim)
    return {self.table: jnp.sin(r_R[:, None, None] / channels[None, None])}

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    k_BHSK = jnp.repeat(k_BGSK, q_BHTK.shape[1] // k_BGSK.shape[1], axis=1)
    x = q_BHTK if self.reads == 'query_dot' else k_BHSK
    return s_BHTS + getattr(tile.reader, self.reads)(x, tile.tables[self.table])


@pytest.mark.parametrize(
  ('table', 'reads', 'reason'),
  [
    ('mine', 'query_dot', None),
    ('relative_queries', 'key_dot', None),
    ('mine', 'key_dot', 'OwnVectors lets keys read vectors other than `relative_queries`'),
    ('relative_queries', 'query_dot', 'OwnVectors has vectors called `relative_queries` that keys'),
  ],
)
def test_vectors_that_a_score_reads_lie_in_the_order_of_their_readers(table, reads, reason):
  enc, (x, weights, _) = OwnVectors(table, reads), inputs()
  by = lambda backend, tile=None: layer(enc, weights, x, backend=backend, block_sizes=tile)
  if reason is None:
    close(by('fused_interpret', (4, 8)), by('dense'))
    return
  with pytest.raises(NotImplementedError, match=f'backend fused_interpret: {reason}'):
    by('fused_interpret', (4, 8))


@pytest.mark.fused
def test_vectors_that_keys_read_of_a_later_member_of_a_chain():
  """Its terms are among the chain's own tables."""
  enc, (x, weights, _) = make_chain('fox', 'deberta'), inputs()
  by = lambda backend, tile=None: layer(enc, weights, x, backend=backend, block_sizes=tile)
  close(by('fused_interpret', (4, 8)), by('dense'))


def make_chain(*members):
  return make('chain', **dataclasses.asdict(DIMS), members=members, rngs=nnx.Rngs(0))


@pytest.mark.parametrize('name', REFUSED)
def test_reasons_of_the_mathematics(name):
  enc, (x, weights, _) = build(name), inputs()
  with pytest.raises(NotImplementedError, match=f'backend fused_interpret: .*{REFUSED[name]}'):
    layer(enc, weights, x, backend='fused_interpret')


@pytest.mark.parametrize('backend', ['fused_interpret', 'triton_interpret'])
def test_explicit_positions_with_tables_are_refused(backend):
  enc, (x, weights, _) = build('t5'), inputs()
  with pytest.raises(NotImplementedError, match='with explicit positions each pair'):
    layer(enc, weights, x, position_ids=np.arange(S)[None], backend=backend)


@pytest.mark.parametrize('name', ['t5', 'shaw'])
def test_sides_that_cannot_be_halved_are_refused(name):
  enc, (x, weights, _) = build(name), inputs()
  with pytest.raises(NotImplementedError, match='a power of 2, not 12'):
    layer(enc, weights, x, backend='fused_interpret', block_sizes=(12, 12))


def test_a_cpu_is_told_that_kernels_need_a_tpu():
  q = jnp.ones((1, 8, 4, 8))
  for backend in ('fused', 'splash'):
    with pytest.raises(NotImplementedError, match=f'backend {backend}: jax runs on cpu, .* a TPU'):
      attend(q, q, q, make_for(8, 'nope'), backend=backend)


def make_for(head_dim: int, name: str, heads: int = 4, **hyper):
  """An encoding for heads of this width."""
  dims = {'model_dim': 16, 'heads': heads, 'head_dim': head_dim, 'train_length': 64}
  return make(name, **dims, rngs=nnx.Rngs(0), **hyper)


PACKED_ROWS = {'T': 2**14, 'S': 2**14, 'packed': True, 'rows': 512, 'block_sizes': (128, 128)}


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    ({}, None),
    ({'T': 64, 'S': 64}, 'at least 128 queries and 128 keys, not 64 and 64'),
    ({'block_sizes': (64, 128)}, 'multiples of 128, not 64 and 128'),
    ({'block_sizes': (128, 384)}, 'a power of 2, not 384'),
    ({'T': 128}, None),
    ({'T': 2**16, 'S': 2**16}, None),
    ({'T': 2**16, 'S': 2**16, 'packed': True}, None),
    (PACKED_ROWS, 'takes 1.13 MiB'),
    (PACKED_ROWS | {'devices': 8}, None),
    ({'T': 2**17, 'S': 2**17}, None),
    (
      {'T': 2**17, 'S': 2**17, 'block_sizes': (256, 256)},
      'of 131072 x 131072 lie takes 2.00 MiB, and a TPU has 1 MiB',
    ),
    ({'T': 2**18, 'S': 2**18}, 'of 262144 x 262144 lie takes 2.00 MiB, and a TPU has 1 MiB'),
    ({'kind': 'TPU v5 lite'}, None),
    ({'kind': 'TPU v4'}, 'a TPU v4 cannot gather as these kernels do; a v5 or later can'),
    ({'heads': 96}, None),
    ({'heads': 102}, 'a tile of 128 queries and 128 keys of 102 heads 8 wide takes more than'),
    ({'heads': 64, 'kind': 'TPU v5'}, None),
    ({'heads': 66, 'kind': 'TPU v5'}, 'of 66 heads 8 wide takes more than the memory of these'),
    ({'block_sizes': (1024, 1024)}, 'a tile of 1024 queries and 1024 keys of 4 heads 8 wide takes'),
    ({'heads': 64, 'head_dim': 256}, None),
    ({'heads': 48, 'head_dim': 256, 'dtype': jnp.float32}, None),
    ({'heads': 64, 'head_dim': 192, 'dtype': jnp.float32}, 'of 64 heads 192 wide takes more than'),
    ({'heads': 48, 'head_dim': 128, 'dtype': jnp.float32, 'kind': 'TPU v5'}, None),
    (
      {'heads': 64, 'head_dim': 128, 'dtype': jnp.float32, 'kind': 'TPU v5'},
      'of 64 heads 128 wide takes more than the memory',
    ),
    ({'dtype': jnp.float16}, 'kernels for TPU take float32 or bfloat16, not float16'),
    ({'precision': 'high'}, "jax before 0.11.1 has no products at 'high' in kernels for TPU"),
    ({'precision': 'high', 'jax': (0, 11, 1)}, None),
    ({'precision': 'highest'}, None),
    ({'backend': splash}, None),
    ({'backend': splash, 'dtype': jnp.float16}, 'take float32 or bfloat16, not float16'),
    ({'backend': splash, 'precision': 'high'}, "jax before 0.11.1 has no products at 'high'"),
    ({'backend': splash, 'kind': 'TPU v3'}, 'a TPU v3 multiplies no bfloat16; a v4 or later does'),
    ({'backend': splash, 'kind': 'TPU v3', 'dtype': jnp.float32}, None),
    ({'backend': splash, 'kind': 'TPU v4'}, None),
    ({'backend': splash, 'T': 2**17, 'S': 2**17}, None),
    (
      {'backend': splash, 'T': 2**17 + 128, 'S': 2**17 + 128},
      'blocks of 128 tokens takes 3.01 MiB, and a TPU has 1 MiB',
    ),
    (
      {'backend': splash, 'T': 2**17 + 128, 'S': 2**17 + 128, 'window': 2**16},
      'blocks of 128 tokens takes 1.50 MiB, and a TPU has 1 MiB',
    ),
    ({'backend': splash, 'T': 2**17 + 128, 'S': 2**17 + 128, 'window': 2**15}, None),
  ],
)
def test_reasons_on_a_tpu(monkeypatch, change, reason):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  T, keys = change.get('T', 256), change.get('S', 256)
  monkeypatch.setattr(jax, '__version_info__', change.get('jax', (0, 11, 0)))
  dtype, backend = change.get('dtype', jnp.bfloat16), change.get('backend', fused)
  rows, heads, K = change.get('rows', 1), change.get('heads', 4), change.get('head_dim', 8)
  enc = make_for(K, 'rope' if backend is splash else 'alibi', heads)

  def ask(q, k):
    options = {'segment_ids': jnp.zeros((rows, keys), int)} if 'packed' in change else {}
    options |= {'mask': Mask(window=change.get('window'))}
    request = build_request(q, k, k, enc, block_sizes=change.get('block_sizes'), **options)
    return backend.refuse(request)

  with (
    on('tpu', change.get('kind', 'cpu'), data=change.get('devices', 1)),
    jax.default_matmul_precision(change.get('precision', 'default')),
  ):
    answer = answer_of(ask, *((rows, n, heads, K) for n in (T, keys)), dtype=dtype)
  assert answer is None if reason is None else reason in answer


def products(jaxpr, in_kernel=False):
  """(dtypes of both factors, precision) of each product in the kernels of a program."""
  for equation in jaxpr.eqns:
    if in_kernel and equation.primitive.name == 'dot_general':
      yield {str(x.aval.dtype) for x in equation.invars}, equation.params['precision']
    for parameter in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(parameter, 'jaxpr', parameter)
      if hasattr(inner, 'eqns'):
        yield from products(inner, in_kernel or equation.primitive.name == 'pallas_call')


@pytest.mark.parametrize(
  ('backend', 'name'),
  [('splash', 'rope'), ('fused', 'rope'), *(('fused', name) for name in EACH_WAY)],
)
def test_kernels_multiply_bfloat16_at_the_default_precision(monkeypatch, backend, name):
  """At 'highest', at which everything is evaluated, Mosaic does not compile such a product."""
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  q, x = jnp.zeros((1, 256, 4, 64), jnp.bfloat16), jnp.zeros((1, 256, 16), jnp.bfloat16)

  def loss(enc, q, x):
    out = attend(q, q, q, enc, x=x, backend=backend, outer_hooks_applied=True)
    return out.astype(jnp.float32).sum()

  with on('tpu', 'TPU v5 lite'), jax.default_matmul_precision('highest'):
    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(make_for(64, name), q, x)
  of_bfloat16 = [at for dtypes, at in products(traced.jaxpr) if 'bfloat16' in dtypes]
  assert len(of_bfloat16) >= 7
  assert {*of_bfloat16} == {(jax.lax.Precision.DEFAULT,) * 2}


def test_products_of_scores_in_several_passes_are_of_smaller_tiles():
  """Compiled for a v5e, FIRE's in tiles of 256 x 256 took more memory than there is."""

  def rows_and_columns(name, precision):
    grid_of = lambda q: fused.schedule_of(build_request(q, q, q, make_for(8, name))).grid
    with jax.default_matmul_precision(precision):
      grid = answer_of(grid_of, (1, 512, 4, 8))
    return [grid.block_q, grid.block_k]

  assert rows_and_columns('fire', 'default') == [256, 256]
  assert rows_and_columns('fire', 'highest') == [128, 256]
  assert rows_and_columns('fire', 'float32') == [128, 256]
  assert rows_and_columns('dape', 'default') == [128, 256]
  assert rows_and_columns('alibi', 'highest') == [256, 256]


@pytest.mark.parametrize(
  ('kind', 'heads', 'width', 'dtype', 'sides'),
  [
    ('TPU v5', 12, 128, jnp.bfloat16, [128, 256]),
    ('TPU v5', 12, 768, jnp.bfloat16, [128, 128]),
    ('TPU v5 lite', 12, 768, jnp.bfloat16, [128, 256]),
    ('TPU v5 lite', 16, 768, jnp.float32, [128, 128]),
  ],
)
def test_tiles_of_wide_heads_have_room(kind, heads, width, dtype, sides):
  """`fused` takes such requests, so the tile that it chooses has to fit."""
  check_sides(kind, heads, width, dtype, 512, sides)


@pytest.mark.parametrize(
  ('heads', 'tokens', 'sides'),
  [
    *((8, 2**16, [256, 256]), (8, 92_000, [256, 256]), (8, 93_000, [512, 512])),
    # which have no room for 512 x 512
    *((16, 2**15, [128, 256]), (16, 80_000, [256, 256])),
  ],
)
def test_tiles_are_larger_where_they_would_be_too_many(heads, tokens, sides):
  check_sides('TPU v5 lite', heads, 64, jnp.bfloat16, tokens, sides)


def check_sides(kind, heads, width, dtype, tokens, sides):
  """Which tiles `fused` chooses on a TPU of a kind."""

  def ask(q):
    request = build_request(q, q, q, make_for(width, 'nope', heads))
    return fused.refuse(request), fused.schedule_of(request).grid

  with on('tpu', kind):
    refused, grid = answer_of(ask, (1, tokens, heads, width), dtype=dtype)
  assert (refused, [grid.block_q, grid.block_k]) == (None, sides)


@pytest.mark.parametrize(
  ('bend', 'primitive'),
  [
    (jax.nn.elu, 'expm1'),
    (jax.scipy.special.erfc, 'erfc'),
    (with_gradient_by(jnp.sinh), 'sinh'),
    (lambda s: s + s.prod(axis=-1, keepdims=True), 'reduce_prod'),
    (lambda s: jnp.cumsum(s, axis=-1), 'cumsum'),
    (lambda s: s[..., ::-1], 'rev'),
    (jax.nn.softplus, None),
    (jax.scipy.special.erf, None),
  ],
)
def test_functions_that_mosaic_does_not_have_are_refused(bend, primitive):
  """Forward or backward; `auto` then takes tiles without a kernel."""

  def ask(q):
    request = build_request(q, q, q, Bent(bend))
    return fused.refuse(request), auto_backend(request)

  with on('tpu', 'TPU v5 lite'):
    reason, taken = answer_of(ask, (1, 1024, 4, 8), dtype=jnp.float32)
  if primitive is None:
    assert (reason, taken) == (None, 'fused')
  else:
    assert f'in every tile ({primitive}), which Mosaic does not compile' in reason
    assert taken == 'blockwise'


def test_auto_on_a_tpu_takes_splash_then_fused_then_blockwise(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  taken = []
  for backend in ('splash', 'fused', 'blockwise'):
    run = lambda request, backend=backend: taken.append(backend) or request.v_BSGK
    monkeypatch.setitem(BACKENDS, backend, BACKENDS[backend]._replace(run=run))
  q = jax.ShapeDtypeStruct((1, 1024, 4, 8), jnp.bfloat16)
  for name in ('rope', 'alibi', 'cope'):
    jax.eval_shape(lambda q, name=name: attend(q, q, q, make_for(8, name)), q)
  assert taken == ['splash', 'fused', 'blockwise']


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('nope', dict.fromkeys(('attention', 'attention_d_row', 'attention_d_column'), 'parallel')),
    (
      'fire',
      {
        **dict.fromkeys(('attention', 'attention_d_column'), 'parallel'),
        'attention_d_row': 'arbitrary',
      },
    ),
    (
      'alibi',
      {
        **dict.fromkeys(('attention', 'attention_d_row', 'attention_d_column'), 'parallel'),
        'attention_d_diagonal': 'arbitrary',
      },
    ),
  ],
)
def test_cores_share_rows_of_the_batch_whose_gradients_are_their_own(name, expected, monkeypatch):
  """FIRE's parameters add up those of all rows of the batch, and so do tables by distance."""
  q, enc = jnp.ones((2, 16, 4, 8)), make_for(8, name)
  run = lambda q, enc: attend(q, q, q, enc, backend='fused_interpret', block_sizes=(8, 8)).sum()
  found, call = {}, pl.pallas_call

  def look(*args, name, compiler_params, **options):
    found[name], of_tiles = compiler_params.dimension_semantics
    assert of_tiles == 'arbitrary'
    return call(*args, name=name, compiler_params=compiler_params, **options)

  monkeypatch.setattr(pl, 'pallas_call', look)
  jax.make_jaxpr(jax.grad(run, argnums=(0, 1)))(q, enc)
  assert found == expected


OF_SOFTMAX = {'attention': 2, 'attention_d_row': 3, 'attention_d_column': 4}


@pytest.mark.parametrize(
  ('name', 'rows', 'options', 'products'),
  [
    ('nope', 2, {}, OF_SOFTMAX),
    ('nope', 1, {'window': 9}, OF_SOFTMAX),
    ('t5', 2, {'segment_ids': [0] * 16 + [1] * 16}, OF_SOFTMAX | {'attention_d_diagonal': 2}),
    # A tile has its 2 S' vectors by distance for keys, and as many for values.
    (
      *('shaw', 2, {'is_causal': False}),
      dict(zip((*OF_SOFTMAX, 'attention_d_diagonal'), (6, 9, 8, 10), strict=True)),
    ),
  ],
)
def test_kernels_state_what_they_copy_and_multiply(monkeypatch, name, rows, options, products):
  """Blocks by their own BlockSpecs; products with S' x K numbers a tile that the mask lets them
  visit, also of those that they pass over for their segments.
  """
  H, side, K, T = 4, 8, 16, 32
  q, enc = jnp.ones((rows, T, H, K)), make_for(K, name)
  if 'segment_ids' in options:
    options = {'segment_ids': jnp.broadcast_to(jnp.array(options['segment_ids']), (rows, T))}
  options |= {'backend': 'fused_interpret', 'block_sizes': (side, side)}
  found = {}

  def look(*_, grid_spec, out_shape, cost_estimate, name, **others):
    def call(*given):
      scalars = [np.asarray(x) for x in given[: grid_spec.num_scalar_prefetch]]
      arrays = *given[len(scalars) :], *out_shape
      size, steps = sum(x.nbytes for x in scalars), math.prod(grid_spec.grid)
      for spec, x in zip((*grid_spec.in_specs, *grid_spec.out_specs), arrays, strict=True):
        at = [spec.index_map(*step, *scalars) for step in np.ndindex(*grid_spec.grid)]
        blocks = 1 + sum(one != other for one, other in itertools.pairwise(at))
        size += blocks * math.prod(n or 1 for n in spec.block_shape) * x.dtype.itemsize
      assert cost_estimate.bytes_accessed == size
      assert cost_estimate.transcendentals == steps * H * side * side
      found[name] = cost_estimate.flops / (steps * 2 * H * side * side * K)
      return [jnp.zeros(x.shape, x.dtype) for x in out_shape]

    return call

  monkeypatch.setattr(pl, 'pallas_call', look)
  jax.grad(lambda q, k, v, enc: attend(q, k, v, enc, **options).sum(), range(4))(q, q, q, enc)
  assert found == products


def test_of_branches_that_count_a_tpu_takes_its_own_and_otherwise_the_dearest():
  def tile(a, b, x):
    of_platform = lambda x: jax.lax.platform_dependent(x, cpu=lambda x: x @ x, default=jnp.exp)
    return of_platform(x), jax.lax.cond(a > b, lambda x: x @ x @ x, jnp.sin, x)

  program = TileProgram(tile, jnp.ones((2, 3, 3)))
  assert program.operations({'tpu'}).tolist() == [2 * 2 * 2 * 27, 18 + 18]
  assert program.operations({'cpu'}).tolist() == [3 * 2 * 2 * 27, 18]


def test_what_is_carried_along_keys_is_kept_for_a_gradient_alone(monkeypatch):
  enc, q = make_for(8, 'stick_breaking'), jnp.ones((1, 32, 4, 8))
  run = lambda q: attend(q, q, q, enc, backend='fused_interpret', block_sizes=(8, 8)).sum()
  written, call = [], pl.pallas_call

  def look(*args, out_shape, **options):
    written.append([x.shape for x in out_shape])
    return call(*args, out_shape=out_shape, **options)

  monkeypatch.setattr(pl, 'pallas_call', look)
  jax.make_jaxpr(run)(q)
  of_rows, of_tiles = [(4, 1, 4, 8, 8), (4, 1, 4, 8)], (4 + 3 + 2 + 1, 1, 4, 8)
  assert written == [of_rows]
  jax.make_jaxpr(jax.grad(run))(q)
  assert written[1] == [*of_rows, of_tiles]


@pytest.mark.parametrize(
  ('options', 'dtype'),
  [
    *(({'window': 100}, 'float32'), ({'is_causal': False, 'window': 60}, 'float32')),
    (
      {'segment_ids': np.repeat([[0, 1, 2, 2], [0, 0, 1, 2]], 32, axis=1), 'softcap': 0.7},
      'float32',
    ),
    ({}, 'bfloat16'),
  ],
)
def test_splash_is_asked_for_the_same_attention(options, dtype):
  """Values and gradients; two heads share their keys, and the interpreter runs its kernels."""
  heads = (2, 1, 1, 2)
  *qkv, weight = (
    jax.random.normal(jax.random.key(n), (2, 128, H, 128)) for n, H in enumerate(heads)
  )
  qkv = [x.astype(dtype) for x in qkv]
  enc = make(
    'rope', model_dim=16, heads=2, kv_heads=1, head_dim=128, train_length=64, rngs=nnx.Rngs(0)
  )
  of_mask = {name: options[name] for name in ('is_causal', 'window') if name in options}
  others = {name: x for name, x in options.items() if name not in of_mask}

  def by_splash(*qkv):
    request = build_request(*qkv, enc, mask=Mask(**of_mask), **others)
    return splash.run(request, interpret=True).astype(jnp.float32)

  def near(found, expected):
    tolerance = (1e-5 if dtype == 'float32' else 1e-2) * np.abs(expected).max()
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=tolerance)

  by_dense = lambda *qkv: attend(*qkv, enc, backend='dense', **options)
  in_float32 = (x.astype(jnp.float32) for x in qkv)
  jax.tree.map(near, gradients(by_splash, weight, *qkv), gradients(by_dense, weight, *in_float32))


@pytest.mark.parametrize('window', [1, 2, 128, 129, 130, 300])
@pytest.mark.parametrize('is_causal', [True, False])
def test_splash_is_told_of_no_more_blocks_than_are_counted(window, is_causal):
  """By the tables that jax makes, in blocks of 128 tokens."""
  T, q = 1152, jax.ShapeDtypeStruct((1, 1152, 4, 8), jnp.float32)
  counted = []

  def ask(q):
    mask = Mask(is_causal=is_causal, window=window)
    request = build_request(q, q, q, make_for(8, 'nope'), mask=mask)
    made = splash_attention.MultiHeadMask([splash._mask(request, T)])
    info, _ = splash_attention_mask_info.process_mask(made, (128, 128))
    counted.extend((splash._most_columns(request, T), info.block_mask.shape[-1]))

  jax.eval_shape(ask, q)
  assert counted[0] == counted[1]


def test_relative_shifts_are_adjoint_and_what_they_say():
  """`relative_shift` against its formula, the other two by inner products."""
  rng = np.random.default_rng(0)
  T, R = 16, 24
  shapes = ((2, T, R), (2, T, R - T), (2, R))
  x, d, row = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)

  @jax.jit
  def run(x, d, row):
    spread_row, pull_back = jax.vjp(lambda row: spread(row, T), row)
    return relative_shift(x, R - T), relative_shift_transpose(d), spread_row, pull_back(d)[0]

  shifted, transposed, spread_row, d_row = run(x, d, row)
  t, s = np.arange(T)[:, None], np.arange(R - T)[None]
  np.testing.assert_array_equal(shifted, x[:, t, T - 1 - t + s])
  np.testing.assert_array_equal(spread_row, row[:, T - 1 - t + s])
  close((transposed * x).sum(), (d * shifted).sum())
  close((d_row * row).sum(), (d * spread_row).sum())


@pytest.mark.parametrize(
  'mask',
  [Mask(), Mask(window=5), Mask(chunk=6, sink_tokens=3), Mask(is_causal=False), Mask(prefix=7)],
)
def test_every_visible_pair_is_in_a_visited_tile(mask):
  """Rows are visited from right to left; other orders have the same tiles, each kind together."""
  grid = TileGrid(30, 30, 4, 8, mask, -(-mask.sink_tokens // 8), False, -29, 29)
  index = np.arange(30)
  visible = np.asarray(mask.visible(index[:, None] - index[None], index[None], index[None])[0])
  visits = Visits.forward(grid)
  tiles = set(zip(visits.row.tolist(), visits.column.tolist(), strict=True))
  assert len(tiles) == len(visits.row) == Visits.count(grid)
  assert tiles >= {(t // 4, s // 8) for t, s in np.argwhere(visible).tolist()}
  same_row = np.diff(visits.row) == 0
  assert np.all(np.diff(visits.column)[same_row] < 0)
  for kind in ('row', 'column', 'diagonal'):
    ordered = visits.ordered(kind)
    assert sorted(ordered.visit) == list(range(len(visits.row)))
    assert np.all(np.diff(getattr(ordered, kind)) >= 0)


@functools.cache
def tpu(topology: str):
  """(sharding on one device, its kind) of a TPU that is not there."""
  device = targets.devices(f'tpu:{topology}', 1)[0]
  sharding = NamedSharding(Mesh(np.array([device]), ('one',)), PartitionSpec())
  return sharding, device.device_kind


@pytest.mark.tpu
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('head_dim', [32, 64, 128])
@pytest.mark.parametrize('mode', ['causal', 'packed', 'window'])
@pytest.mark.parametrize(('backend', 'name'), ON_A_TPU)
def test_kernels_equal_dense_on_a_tpu(backend, name, mode, head_dim, dtype):
  """In several tiles, of `fused` with a ragged end; two heads share keys and values."""
  T = 1152 if backend == 'splash' else 1100
  options = {
    'causal': {},
    'packed': {'segment_ids': (np.arange(T) >= 500).astype(int)[None]},
    'window': {'window': 300},
  }[mode]
  enc, compare = make_for(head_dim, name, kv_heads=2), within(1e-3 if dtype == 'float32' else 3e-2)
  check_equal(backend, enc, T, dtype=dtype, compare=compare, **options)


def test_an_older_jax_has_no_kernels(monkeypatch):
  enc = make('nope', model_dim=256, heads=2, head_dim=128, train_length=512, rngs=nnx.Rngs(0))
  ask = lambda q: fused.refuse(build_request(q, q, q, enc))
  with on('tpu', 'TPU v5 lite'):
    assert answer_of(ask, (1, 512, 2, 128)) is None
    monkeypatch.setattr(fused, 'OLDEST_JAX', (99, 0, 0))
    reason = answer_of(ask, (1, 512, 2, 128))
  assert reason.endswith('compiles no such kernels for TPU; 99.0.0 does')


@pytest.mark.skipif(jax.__version_info__ < fused.OLDEST_JAX, reason='needs jax 0.11.1')
@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in (*DAILY, 'rerope'), 'ci')) for name in KERNELS]
)
def test_kernels_lower_for_a_tpu(monkeypatch, name):
  check_lowers(monkeypatch, 'tpu', 'TPU v5 lite', name, 'fused', 128)


@pytest.mark.ci
@pytest.mark.skipif(jax.__version_info__ < fused.OLDEST_JAX, reason='needs jax 0.11.1')
def test_kernels_lower_for_tpus_that_share_out_a_sequence(monkeypatch):
  """Coordinates of fox are sums over all of it."""
  check_lowers(monkeypatch, 'tpu', 'TPU v5 lite', 'fox', 'ring', 128, context=4)


@pytest.mark.parametrize(
  'name',
  ['shaw', *(pytest.param(name, marks=pytest.mark.ci) for name in ('t5', 'kerple_log', 'fire'))],
)
def test_gradients_without_kernels_are_the_same_bits_in_every_call(name):
  """On a CPU; a GPU needs a flag (docs/attend.md). Kernels add in one order: `check_lowers`."""
  run = lambda: gradients_of_layer(build(name), 'causal', 'blockwise', (2, 4))
  jax.tree.map(np.testing.assert_array_equal, run(), run())


@pytest.mark.aot
@pytest.mark.usefixtures('libtpu')
@pytest.mark.parametrize(
  ('topology', 'backend', 'name', 'K'),
  [
    *((topology, 'fused', name, 128) for topology in ('v5e:2x2', 'v6e:2x2') for name in COMPILED),
    *(('v5e:2x2', *case, K) for case in ON_A_TPU for K in (32, 64)),
  ],
)
def test_kernels_compile_for_a_tpu(monkeypatch, topology, backend, name, K):
  """Forward and backward at 8192 tokens and two heads in bfloat16."""
  compile_for_a_tpu(monkeypatch, topology, backend, name, K)


@pytest.mark.aot
@pytest.mark.usefixtures('libtpu')
@pytest.mark.parametrize(
  'mask',
  [
    lambda i, j: (i - j) % 4 == 0,
    lambda i, j: j < 300,
    # libtpu 0.0.50.1 does not compile jnp.where of booleans, as earlier ones did
    lambda i, j: ((i < 1000) & (j % 2 == 0)) | ((i >= 1000) & (i % 3 > 0)),
  ],
)
def test_kernels_with_a_mask_and_log_sum_exp_compile_for_a_tpu(monkeypatch, mask):
  options = {'mask': mask, 'return_logsumexp': True}
  compile_for_a_tpu(monkeypatch, 'v5e:2x2', 'fused', 'fox', 128, **options)


def compile_for_a_tpu(monkeypatch, topology, backend, name, K, **options):
  """Compiles attention, forward and backward, and checks that it is in kernels."""
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  sharding, kind = tpu(topology)
  function, arguments = with_all_gradients(name, backend, 8192, K, sharding, **options)
  with on('tpu', kind):
    compiled = jax.jit(function).lower(*arguments).compile()
  assert compiled.as_text().count('tpu_custom_call') >= (2 if backend == 'splash' else 3)


@pytest.mark.parametrize(
  'name',
  [
    name
    for name, kind in ENCODINGS.items()
    if 'platform_dependent' in inspect.getsource(inspect.getmodule(kind))
  ],
)
def test_accelerators_take_another_form_of_the_same(name, monkeypatch):
  """This machine runs one branch of `lax.platform_dependent`; here it runs the other."""
  usual = gradients_of_layer(build(name), 'causal', 'dense')
  taken = []

  def of_accelerators(*args, cpu, default):
    taken.append(name)
    return default(*args)

  monkeypatch.setattr(jax.lax, 'platform_dependent', of_accelerators)
  jax.clear_caches()
  jax.tree.map(close, gradients_of_layer(build(name), 'causal', 'dense'), usual)
  assert taken
