"""Compiled programs are read right, and programs compile for a TPU that is not there."""

import dataclasses
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import answer_of, on
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType

from posenc_jax import config, data, target
from posenc_jax.attention import BACKENDS, auto_backend
from posenc_jax.attention.choice import Backend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.config import BASE
from posenc_jax.distributed import mesh as meshes
from posenc_jax.encodings import make
from posenc_jax.errors import UserError
from scripts.aot import command, hlo, programs, targets
from scripts.aot.cases import CASES


def cost_of(function, *shapes) -> hlo.Cost:
  """The cost of a function that is compiled for this CPU, at 1 FLOP/s and 1 byte/s."""
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  text = jax.jit(function).lower(*arguments).compile().as_text()
  return hlo.Program(text, 1.0, 1.0).cost()


def test_bodies_of_loops_count_as_often_as_they_turn():
  """Products too; a loop whose end is traced turns (n + 1) / 2 times in one that turns n times."""
  n, size = 7, 16

  def inner(x, stop):
    return jax.lax.fori_loop(0, stop, lambda _, x: jnp.sin(x @ x), x)

  def outer(x, stop_of_turn):
    return jax.lax.scan(lambda x, stop: (inner(x, stop), None), x, stop_of_turn)[0]

  flops = 2 * size**3
  assert cost_of(lambda x: inner(x, n), (size, size)).flops == n * flops
  arguments = jnp.zeros((size, size)), jnp.zeros(n, int)
  text = jax.jit(outer).lower(*arguments).compile().as_text()
  assert hlo.Program(text, 1.0, 1.0).cost().flops == n * (n + 1) / 2 * flops


def test_a_slice_reads_no_more_than_the_slice():
  """Nor does an update in place write more than its part: n rows, one in every turn."""
  n, width = 64, 128

  def fill(x):
    write = lambda i, x: x.at[i].set(jnp.sin(x[n - 1 - i]) + 1)
    return jax.lax.fori_loop(0, n, write, x)

  assert cost_of(fill, (n, width)).bytes < 8 * n * width * 4


@pytest.mark.parametrize(
  ('attributes', 'left', 'right', 'out', 'products'),
  [
    ('dim_labels=bf_io->bf', (8, 16), (16, 32), (8, 32), 8 * 16 * 32),
    # 2 products of 256 x 64 x 256 as a convolution over their number, dilated: taps meet zeros
    (
      'window={size=2 lhs_dilate=2}, dim_labels=0bf_0oi->0bf',
      *((2, 256, 64), (2, 256, 64), (2, 256, 256)),
      2 * 256 * 64 * 256,
    ),
    ('window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f', (1, 5, 2), (3, 2, 4), (1, 5, 4), 13 * 8),
  ],
)
def test_flops_of_convolutions(attributes, left, right, out, products):
  assert hlo.convolution_flops(attributes, left, right, out) == 2 * products


def test_collectives_name_what_they_exchange():
  text = """\
HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

ENTRY %main (x: bf16[2,8]) -> bf16[8,8] {
  %x = bf16[2,8]{1,0:T(8,128)S(1)} parameter(0)
  %g = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%x), dimensions={0}
  %k = bf16[8,8]{1,0} custom-call(%x), custom_call_target="mine"
  ROOT %d = bf16[8,8]{1,0} all-gather-done(%g)
}
"""
  cost = hlo.Program(text, 1.0, 1.0).cost()
  gathered = hlo.Array('bf16', (8, 8), True)
  assert dict(cost.collectives) == {('all-gather', gathered): 1}
  assert dict(cost.uncounted) == {'mine': 1}
  assert command.exchanged(cost) == '1 all-gather (bf16[8,8]), uncounted: 1 mine'


def test_a_program_goes_on_behind_a_kernel_that_has_lines_of_its_own():
  """As XLA for TPUs writes what splash attention says of its kernels."""
  text = """\
HloModule m

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %k = f32[8,8]{1,0} custom-call(%x), custom_call_target="mine", attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="kernel"}, backend_config={"estimated_cycles":"3"}
  ROOT %d = f32[8,8]{1,0} add(%k, %x), backend_config={"estimated_cycles":"4"}
}
"""
  cost = hlo.Program(text, 1.0, 1.0).cost()
  assert (cost.launches, cost.cycles, dict(cost.uncounted)) == (2, 7, {'mine': 1})
  assert not cost.untimed


def test_a_kernel_costs_what_it_says_of_itself():
  """It may read an operand often; the compiler estimates no cycles of it, as libtpu has it."""
  text = """\
HloModule m

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %k = f32[8,8]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"500","transcendentals":"70",\
"bytes_accessed":"9000","remote_bytes_transferred":"0"}}}
  ROOT %d = f32[8,8]{1,0} add(%k, %x), backend_config={"estimated_cycles":"4"}
}
"""
  cost = hlo.Program(text, 0.1, 1.0).cost()
  assert (cost.flops, cost.bytes, cost.cycles) == (500, 9000 + 3 * 8 * 8 * 4, 4)
  assert cost.seconds == 9000 + 3 * 8 * 8 * 4
  assert (dict(cost.uncounted), dict(cost.untimed)) == ({}, {'tpu_custom_call': 1})


def test_what_is_started_costs_what_it_does_once():
  """Its operands, which stand among its results, are not counted again."""
  text = """\
HloModule m

ENTRY %main (x: f32[8,8]) -> f32[32,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %r = OPERATION
  %s = (f32[8,8]{1,0:S(1)}, f32[8,8]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %t = f32[8,8]{1,0:S(1)} copy-done(%s)
  %u = ((f32[8,8]{1,0}), f32[4,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:4], [0:8]}
  %v = f32[4,8]{1,0:S(1)} slice-done(%u)
  ROOT %d = f32[32,8]{1,0} add(%x, %x)
}
"""
  whole = 8 * 8 * 4
  of_others = whole + whole / 2 + (2 * whole + 4 * whole)  # the copy, the slice, the sum
  for operation in (
    'f32[32,8]{1,0} all-gather(%x), dimensions={0}',
    '(f32[8,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%x), dimensions={0}',
  ):
    cost = hlo.Program(text.replace('OPERATION', operation), 1.0, 1.0).cost()
    assert cost.launches == 4
    assert cost.bytes == whole + 4 * whole + of_others
  reduced = '(f32[8,8]{1,0}) all-reduce-start(%x), to_apply=%add'
  cost = hlo.Program(text.replace('OPERATION', reduced), 1.0, 1.0).cost()
  assert cost.bytes == 2 * whole + of_others


def test_a_fusion_inside_of_one_reads_what_it_cuts():
  """As XLA for TPUs nests them."""
  text = """\
HloModule m

%cut (all: f32[64,8], n: s32[]) -> f32[1,8] {
  %all = f32[64,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[1,8]{1,0} dynamic-slice(%all, %n, %zero), dynamic_slice_sizes={1,8}
}

%outer (x: f32[64,8], m: s32[]) -> f32[1,8] {
  %x = f32[64,8]{1,0} parameter(0)
  %m = s32[] parameter(1)
  %inner = f32[1,8]{1,0} fusion(%x, %m), kind=kLoop, calls=%cut
  ROOT %twice = f32[1,8]{1,0} add(%inner, %inner)
}

ENTRY %main (a: f32[64,8], i: s32[]) -> f32[1,8] {
  %a = f32[64,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = f32[1,8]{1,0} fusion(%a, %i), kind=kLoop, calls=%outer
}
"""
  assert (
    hlo.Program(text, 1.0, 1.0).cost().bytes == (8 + 8) * 4 + 4
  )  # a row in, one out, its number


def test_scratch_of_products_is_not_counted():
  text = """\
HloModule m

ENTRY %main (x: f32[8,4]) -> (f32[8,8], s8[4194304]) {
  %x = f32[8,4]{1,0} parameter(0)
  ROOT %d = (f32[8,8]{1,0}, s8[4194304]{0}) custom-call(%x, %x), \
custom_call_target="__cublas$gemm", backend_config={"lhs_contracting_dimensions":["1"]}
}
"""
  cost = hlo.Program(text, 1.0, 1.0).cost()
  assert (cost.flops, cost.bytes) == (2 * 8 * 8 * 4, (2 * 8 * 4 + 8 * 8) * 4)


def test_of_a_conditional_the_dearest_branch_is_a_bound():
  many, few = (
    lambda x, n=n: jax.lax.fori_loop(0, n, lambda _, x: jnp.sin(x @ x), x) for n in (9, 2)
  )
  choose = lambda other: lambda x: jax.lax.cond(x[0, 0] > 0, many, other, x)
  shape = (16, 16)
  cost = cost_of(choose(few), shape)
  assert cost.is_bound
  assert cost.flops == cost_of(many, shape).flops
  assert not cost_of(many, shape).is_bound


@pytest.mark.parametrize(
  ('message', 'reason'),
  [
    (
      'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory '
      'required for HLO temporaries (31.23G) exceeds available HBM (15.75G)...',
      'out of memory: temporaries take 31.23G, there are 15.75G',
    ),
    ('two\nlines', 'two lines'),
    ('x' * 200, 'x' * 160),
  ],
)
def test_reasons_are_one_line(message, reason):
  assert command.reason(RuntimeError(message)) == reason


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ('--target=tpu', '--target=tpu; allowed: tpu:TOPOLOGY'),
    ('--target=cuda:h1', '--target=cuda:h1; allowed: '),
    ('--attention', '--target: must be given'),
    ('--target=tpu:v5e:2x2', '--config: must be given'),
    ('--target=tpu:v5e:2x2 --attention --length=0', '--length=0; allowed: 1 or more'),
    ('--target=tpu:v5e:2x2 --attention --dtype=f8', '--dtype=f8; allowed: bfloat16, float32'),
    ('--target=tpu:v5e:2x2 --attention --block_sizes=4', '--block_sizes=4; allowed: QUERIES,KEYS'),
    ('--target=tpu:v5e:2x2 --attention --encodings=alib', "--encodings=alib: .*'alibi'"),
    ('--target=tpu:v5e:2x2 --attention --backends=rin', "--backends=rin: .*'ring'"),
    ('--target=tpu:v5e:2x2 --attention --config.seed=1', '--config.seed: '),
    ('--target=tpu:v5e:2x2 --attention --cases=windw', "--cases=windw: .*'window'"),
    ('--target=tpu:v5e:2x2 --config=any.py --cases=all', "--cases='all': .* with --attention"),
    ('--target=tpu:v5e:2x2 --config=any.py --heads=2', '--heads=2: .* with --attention'),
    ('--target=tpu:v5e:2x2 --attention --only=rope', "--only='rope': .* without --attention"),
  ],
)
def test_flags_that_cannot_be(flags, words, monkeypatch):
  monkeypatch.setattr(targets, 'missing', lambda maker: None)
  monkeypatch.setattr(targets, 'ENVIRONMENT', {})
  with pytest.raises(UserError, match=words):
    command.main(flags.split())


def names_of_runs(study, only, monkeypatch):
  """The runs of a study that are compiled."""
  mesh = SimpleNamespace(devices=np.array(SimpleNamespace(device_kind='any')))
  monkeypatch.setattr(command, 'make_mesh', lambda target, sizes: mesh)
  monkeypatch.setattr(command, 'compiled', lambda name, *rest: name)
  monkeypatch.setattr(targets, 'peaks', lambda *of: None)
  return command.step_rows(SimpleNamespace(config=str(study), only=only, target=''), {})[0]


@pytest.mark.parametrize('study', ['drope', 'extension', 'studies/claims/pose'])
def test_runs_that_start_from_others_are_compiled(study, monkeypatch):
  file = Path(config.BASE).parent / f'{study}.py'
  names = names_of_runs(file, '', monkeypatch)
  starts = [run for run in config.load_study(file).sweep() if 'train.init_from' not in run]
  assert len(names) > len(starts) > 0
  assert not [name for name in names if 'init_from' in name or 'train.steps=0' in name]


def test_the_run_that_its_help_names_is_there(monkeypatch):
  root = Path(config.BASE).parents[1]
  text = (root / 'scripts' / 'aot.py').read_text()
  ((study, only),) = re.findall(r'one of (\S+) is\s+(\S+)', text)
  assert names_of_runs(root / study, only, monkeypatch) == [only]


def test_a_compiler_that_is_missing_is_named(monkeypatch):
  monkeypatch.setattr(targets.importlib.util, 'find_spec', lambda name: None)
  for maker, name in (('tpu', 'v5e:2x2'), ('cuda', 'h100')):
    with pytest.raises(UserError, match=rf"pip install -e '.\[aot-{maker}\]'"):
      command.main([f'--target={maker}:{name}', '--attention'])


def test_what_a_compiler_cannot_do_is_a_failure_and_a_refusal_is_none():
  """Whatever either raises; the table has a line for both."""

  def refuse():
    raise NotImplementedError('backend fused: no')

  def lower():
    raise NotImplementedError('no lowering\nfor this')

  rows = [
    command.compiled(name, trace, None, None)
    for name, trace in (('a', refuse), ('b', lambda: SimpleNamespace(lower=lower)))
  ]
  assert [(row.status, row.reason) for row in rows] == [
    ('refused', 'backend fused: no'),
    ('failed', 'no lowering for this'),
  ]


SMALL = {'batch': 2, 'length': 64, 'heads': 2, 'head_dim': 8, 'dtype': 'float32'}


@pytest.mark.parametrize('name', ['nope', 't5', 'fox'])
def test_every_case_is_one_that_tiles_take(name):
  """But for floats and for keys to the right, where the encoding is defined for neither."""
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh)
  refused = set()
  for case in CASES:
    try:
      programs.attention_program(mesh, name, 'blockwise', SMALL, (16, 16), CASES[case])
    except ValueError:
      refused.add(case)
  ahead = {'prefix', 'non_causal', 'non_causal_window', 'function_of_tokens'}
  assert refused == {'nope': set(), 't5': {'float_positions'}, 'fox': ahead}[name]


@pytest.mark.parametrize('tile', [(16, 16), (64, 16), (16, 64)])
@pytest.mark.parametrize('case', ['causal', 'window', 'chunk', 'last_queries'])
def test_products_are_those_of_the_tiles_that_are_visited(case, tile):
  """Seven of each, forward and backward; which they are, the mask says."""
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh)
  S = 4 * SMALL['length']
  asked = mesh, 'nope', 'blockwise', SMALL | {'length': S}, tile, CASES[case]
  program = programs.attention_program(*asked)
  text = program.lower().compile().as_text()
  found = hlo.Program(text, 1.0, 1.0, program.unknown_turns).cost().flops
  i, j = jnp.arange(S - CASES[case].queries(S), S), jnp.arange(S)
  (visible_TS,) = Mask(**CASES[case].mask(S)).visible(i[:, None] - j[None], i[None], j[None])
  (rows, columns), (B, H, K) = tile, (SMALL[name] for name in ('batch', 'heads', 'head_dim'))
  tiles = visible_TS.reshape(len(i) // rows, rows, S // columns, columns).any((1, 3)).sum()
  assert found == 7 * 2 * B * H * K * rows * columns * tiles


@pytest.mark.parametrize(
  ('tile', 'window', 'visits'),
  [
    # the last of four devices waits for none: 4 * 5 / 2 tiles of its own shard, 4 * 4 of others
    ((16, 16), None, [4 * 5 / 2, 16, 16, 16]),
    ((16, 64), None, [4, 4, 4, 4]),
    ((64, 16), None, [4, 4, 4, 4]),
    ((16, 16), 65, [4 * 5 / 2, 4 * 5 / 2]),  # of the shard before, those on and above the diagonal
  ],
)
def test_on_a_ring_a_step_takes_what_the_device_with_the_most_tiles_visits(tile, window, visits):
  def ask(q):
    request = build_request(q, q, q, enc, mask=Mask(window=window), block_sizes=tile)
    return programs.visits_of_row(request, 'ring')

  enc = make('nope', model_dim=16, heads=2, head_dim=8, train_length=8, rngs=nnx.Rngs(0))
  with on(context=4):
    found = answer_of(ask, (1, 256, 2, 8))
  assert found == sum(visits) / len(visits) / (64 // tile[0])


def test_what_goes_wrong_behind_a_refusal_is_a_failure(monkeypatch):
  """Such as what jax says of cuDNN for an odd number of tokens once it is asked for a gradient."""

  def run(request):
    raise NotImplementedError('Unsupported sequence length')

  monkeypatch.setitem(BACKENDS, 'dense', Backend(lambda request: None, run))
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh)
  statuses = []
  for backend, name in (('dense', 'nope'), ('blockwise', 'entmax')):
    trace = lambda backend=backend, name=name: programs.attention_program(
      mesh, name, backend, SMALL
    )
    statuses.append(command.compiled('a', trace, None, None).status)
  assert statuses == ['failed', 'refused']


def test_cases_are_a_table_for_each_backend_with_numbered_reasons():
  row = lambda status, reason, served_by, *asked: command.Row(
    'a', status, reason, asked=asked, served_by=served_by
  )
  rows = [
    row('yes', '', 'fused', 'fused', 'window', 't5'),
    row('refused', 'no floats', '', 'fused', 'packed', 't5'),
    row('failed', 'odd', '', 'fused', 'ragged', 't5'),
    row('yes', '', 'splash', 'auto', 'window', 't5'),
    row('refused', 'no floats', '', 'auto', 'packed', 't5'),
    row('yes', '', 'dense', 'auto', 'ragged', 't5'),
  ]
  lines = [' '.join(line.split()) for line in command.tables_of_cases(rows).splitlines()]
  assert [line for line in lines if line and '--' not in line] == [
    *('| fused | t5 |', '| window | yes |', '| packed | 1 |', '| ragged | failed: 2 |'),
    *('| auto | t5 |', '| window | splash |', '| packed | 1 |', '| ragged | dense |'),
    *('1. refused: no floats', '2. failed: odd'),
  ]
  of_two = [row('yes', '', 'fused', 'fused', 'window', name) for name in ('t5', 'fox')]
  lines = [' '.join(line.split()) for line in command.tables_of_cases(of_two).splitlines()]
  assert (lines[0], lines[2:]) == ('| fused | window |', ['| t5 | yes |', '| fox | yes |'])


def row_of(**cost):
  cost = hlo.Cost(flops=2e9, bytes=3e9, seconds=4e-3, launches=5.0, cycles=6e6, **cost)
  return command.Row('a', 'yes', memory=(2**20, 2**21), kernels=7, cost=cost)


@pytest.mark.parametrize(
  ('row', 'cells'),
  [
    (row_of(), '1 | 2 | 2 | 3 | 7 | 5 | 4 | 6 |'),
    (row_of(is_bound=True), '1 | 2 | ≤ 2 | ≤ 3 | 7 | ≤ 5 | ≤ 4 | ≤ 6 |'),
    (row_of(uncounted=Counter(k=1)), '1 | 2 | | | 7 | 5 | | | uncounted: 1 k |'),
    (row_of(untimed=Counter(k=1)), '1 | 2 | 2 | 3 | 7 | 5 | 4 | |'),
    (dataclasses.replace(row_of(), has_roofline=False), '1 | 2 | 2 | 3 | 7 | 5 | | 6 |'),
  ],
)
def test_figures_say_what_is_left_out_and_what_is_a_bound(row, cells):
  line = command.table([row]).splitlines()[-1]
  assert f'| a | yes | {cells}' in ' '.join(line.split())


def test_peaks_are_those_of_the_precision():
  peaks = lambda precision: targets.peaks('TPU v5 lite', 'float32', precision)
  assert str(peaks('default')) == '197 TFLOP/s, 819 GB/s'
  assert str(peaks('highest')) == 'unknown TFLOP/s, 819 GB/s'
  with pytest.raises(UserError, match='the bandwidth of TPU v9 is not known; allowed: TPU v4, '):
    targets.peaks('TPU v9', 'float32', 'default')


def test_a_mesh_that_fits_no_topology_is_one_line(monkeypatch):
  def make_mesh(*_):
    raise AssertionError('jax_devices=[...]')

  monkeypatch.setattr(targets, 'devices', lambda target, number: [])
  monkeypatch.setattr(meshes, 'make_mesh', make_mesh)
  with pytest.raises(UserError, match='--target=tpu:v5e:2x2: a mesh of 3 fits no part'):
    command.make_mesh('tpu:v5e:2x2', config.load(BASE, {'mesh.context': 3}).mesh)


def test_a_mesh_may_split_the_axes_of_a_network(monkeypatch):
  arrange = meshes.mesh_utils.create_device_mesh

  def create_device_mesh(shape, devices, allow_split_physical_axes=False):
    if not allow_split_physical_axes:
      raise NotImplementedError('Failed to find assignment for logical_axis_index 1 with size 2')
    return arrange(shape, devices, allow_split_physical_axes=True)

  monkeypatch.setattr(meshes.mesh_utils, 'create_device_mesh', create_device_mesh)
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh)
  assert mesh.axis_names == meshes.AXES
  assert set(mesh.axis_types) == {AxisType.Auto}
  assert mesh.devices.shape == (1,) * 4


@pytest.mark.aot
@pytest.mark.usefixtures('libtpu')
@pytest.mark.parametrize('topology', ['v5e:4x4', 'v6e:4x4', 'v5p:2x2x4'])
def test_every_mesh_of_as_many_devices_is_one(topology):
  for batch, fsdp in ((16, 1), (8, 2), (4, 4), (2, 8), (1, 16)):
    sizes = config.load(BASE, {'mesh.data': batch, 'mesh.fsdp': fsdp}).mesh
    mesh = meshes.make_mesh(sizes, targets.devices(f'tpu:{topology}', 16))
    assert mesh.devices.shape == (1, batch, fsdp, 1)
    assert len({*mesh.devices.flat}) == 16


@pytest.mark.aot
@pytest.mark.usefixtures('libtpu')
@pytest.mark.parametrize('axes', [{'data': 8}, {'data': 2, 'fsdp': 4}, {'fsdp': 8}])
def test_two_slices_are_the_halves_of_a_mesh(axes):
  of_two = {'platform': 'tpu', 'topology_name': 'v6e:2x2', 'num_slices': 2}
  devices = topologies.get_topology_desc(**of_two).devices
  sizes = config.load(BASE, {f'mesh.{axis}': size for axis, size in axes.items()}).mesh
  mesh = meshes.make_mesh(sizes, devices[::-1])
  assert [device.slice_index for device in mesh.devices.flat] == [0] * 4 + [1] * 4
  assert {*mesh.devices.flat} == {*devices}


@pytest.mark.parametrize(
  ('platform', 'name', 'length', 'backend', 'side'),
  [
    ('cpu', 'nope', 512, 'dense', 256),
    ('cpu', 'nope', 513, 'blockwise', 256),
    ('cpu', 'shaw', 512, 'blockwise', 256),
    ('gpu', 'nope', 512, 'cudnn', 512),
    ('gpu', 'shaw', 1024, 'dense', 1024),
    ('gpu', 'shaw', 1025, 'diagonals', 1024),
    ('tpu', 'shaw', 512, 'fused', 512),
    ('tpu', 'nope', 512, 'splash', 512),
    ('tpu', 'shaw', 64, 'blockwise', 64),
  ],
)
def test_the_mesh_says_for_what_a_program_is_traced(platform, name, length, backend, side):
  """Not the machine that traces it, which is a CPU here; so `auto` and tiles are the target's."""
  enc = make(name, model_dim=16, heads=2, head_dim=8, train_length=8, rngs=nnx.Rngs(0))

  def chosen(q):
    request = build_request(q, q, q, enc)
    grid = TileSchedule.of_request(request).grid
    return request.platform, target.platform(), auto_backend(request), grid.block_q, grid.block_k

  with on(platform):
    answer = answer_of(chosen, (1, length, 2, 8))
  assert answer == (platform, platform, backend, side, side)
  assert target.platform() == jax.default_backend() == 'cpu'


TINY = {
  'model.layers': 1,
  'model.model_dim': 128,
  'model.heads': 2,
  'model.head_dim': 64,
  'model.mlp_dim': 256,
  'train.length': 512,
  'train.batch': 4,
  'attention.backend': 'auto',
}


@pytest.fixture(scope='module')
def tpu(libtpu):
  """The devices of four TPU v5e chips that are not there."""
  return targets.devices('tpu:v5e:2x2', 4)


# One of each kind of work: a bias, vectors by distance, coordinates from content, sums along keys,
# tables that `score` mixes, a product of matrices a key, and more heads out than in.
KINDS = ('alibi', 'deberta', 'fox', 'cope', 'dape', 'path', 'rope_pp')


@pytest.mark.aot
@pytest.mark.parametrize('name', KINDS)
def test_attention_compiles_for_a_tpu(tpu, name):
  """Forward and backward, in tiles; nothing as large as the matrix of scores is there."""
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, tpu)
  T, H = 1024, 2
  sizes = {'batch': 1, 'length': T, 'heads': H, 'head_dim': 64, 'dtype': 'bfloat16'}
  compiled = programs.attention_program(mesh, name, 'blockwise', sizes).lower().compile()
  cost = hlo.Program(compiled.as_text(), 1.0, 1.0).cost()
  assert cost.flops >= 7 * H * T**2 * 64  # the seven products of visible pairs
  assert cost.cycles > 0
  assert not cost.collectives
  assert not cost.uncounted


# What `auto` takes of `nope` where it is not `splash`, and of `t5` where it is not `fused`: for 512
# keys then dense.
INDEXED = (
  *('window_sinks', 'chunk', 'window_chunk_sinks', 'prefix', 'packed_window_sinks'),
  *('function', 'function_of_tokens'),
)
RAGGED = ('ragged', 'ragged_packed_window_grouped', 'last_queries', 'narrow_values')
TAKEN = {'nope': dict.fromkeys((*INDEXED, *RAGGED), 'fused'), 't5': {'positions': 'dense'}}
OF_KERNELS = {'batch': 2, 'length': 512, 'heads': 2, 'head_dim': 128, 'dtype': 'bfloat16'}


@pytest.mark.aot
@pytest.mark.parametrize(('name', 'usual'), [('nope', 'splash'), ('t5', 'fused')])
def test_auto_takes_every_case_on_a_tpu(tpu, name, usual):
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, tpu)
  taken = {}
  for case in CASES:
    if (name, case) != ('t5', 'float_positions'):
      taken[case] = programs.attention_program(mesh, name, 'auto', OF_KERNELS, None, CASES[case])
  found = {case: program.backend for case, program in taken.items()}
  assert found == dict.fromkeys(found, usual) | TAKEN[name]


@pytest.mark.aot
@pytest.mark.parametrize(
  ('backend', 'name', 'case'),
  [
    *(('splash', 'nope', case) for case in ('non_causal_window', 'packed', 'grouped')),
    *(('fused', 'nope', case) for case in ('float_positions', 'narrow_values')),
    *(('fused', 't5', case) for case in ('prefix', 'last_queries', 'non_causal')),
    *(('fused', 't5', case) for case in ('function', 'function_of_tokens')),
    *(('fused', 'fox', case) for case in ('window_chunk_sinks', 'packed_window_sinks')),
    ('fused', 'shaw', 'ragged_packed_window_grouped'),
    ('fused', 'stick_breaking', 'ragged_packed_window_grouped'),
  ],
)
def test_cases_compile_for_a_tpu(tpu, backend, name, case):
  """Forward and backward, in tiles of 128 x 128; `splash` has tiles of its own."""
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, tpu)
  block_sizes = None if backend == 'splash' else (128, 128)
  asked = mesh, name, backend, OF_KERNELS, block_sizes, CASES[case]
  text = programs.attention_program(*asked).lower().compile().as_text()
  assert text.count('tpu_custom_call') >= (2 if backend == 'splash' else 3)


@pytest.mark.aot
@pytest.mark.parametrize('name', ['nope', 't5', 'shaw', 'fox'])
def test_memory_of_kernels_grows_as_the_length(tpu, name):
  """Forward and backward, at lengths of which the 128 MiB of VMEM, which are not counted, hold
  little; and all that runs says what it computes.
  """
  mesh, memory = meshes.make_mesh(config.load(BASE, {}).mesh, tpu), []
  for T in (16_384, 32_768):
    sizes = OF_KERNELS | {'batch': 1, 'length': T, 'heads': 8}
    compiled = programs.attention_program(mesh, name, 'fused', sizes).lower().compile()
    cost = hlo.Program(compiled.as_text(), 1.0, 1.0).cost()
    assert cost.flops > 9 * 8 * T**2 * 128
    assert (dict(cost.uncounted), cost.untimed['tpu_custom_call'] >= 3) == ({}, True)
    memory.append(compiled.memory_analysis().temp_size_in_bytes)
  assert memory[1] <= 2.2 * memory[0]


@pytest.mark.aot
@pytest.mark.skipif(targets.missing('cuda') is not None, reason='needs the CUDA plugin of jax')
@pytest.mark.parametrize(
  ('backend', 'name', 'case'),
  [
    *(('cudnn', 'rope', case) for case in ('window', 'ragged', 'grouped')),
    *(('triton', 't5', case) for case in ('ragged_packed_window_grouped', 'function_of_tokens')),
  ],
)
def test_cases_compile_for_an_h100(monkeypatch, backend, name, case):
  for variable, value in targets.ENVIRONMENT.items():
    monkeypatch.setenv(variable, value)
  mesh = meshes.make_mesh(config.load(BASE, {}).mesh, targets.devices('cuda:h100', 1))
  program = programs.attention_program(mesh, name, backend, OF_KERNELS, None, CASES[case])
  text = program.lower().compile().as_text()
  kernel = '__cudnn$fmha' if backend == 'cudnn' else '__gpu$xla.gpu.triton'
  assert text.count(kernel) >= (2 if backend == 'cudnn' else 3)


@pytest.mark.aot
@pytest.mark.skipif(targets.missing('cuda') is not None, reason='needs the CUDA plugin of jax')
@pytest.mark.parametrize('axes', [{'data': 4}, {'fsdp': 4}, {'data': 2, 'fsdp': 2}])
@pytest.mark.parametrize(
  ('fields', 'rows'), [({}, 1), ({'model.kv_heads': 2}, 1), ({'seeds': (0, 1)}, 2)]
)
def test_a_step_with_cudnn_compiles_for_four_h100s(monkeypatch, axes, fields, rows):
  """Each has whole sequences of its rows of the batch, of all seeds of one program."""
  for variable, value in targets.ENVIRONMENT.items():
    monkeypatch.setenv(variable, value)
  large = {'train.length': 2048, 'model.model_dim': 256, 'model.heads': 4, 'encoding.name': 'rope'}
  large |= {'train.compute_dtype': 'bfloat16', 'vmap_seeds': 'seeds' in fields}
  sizes = {f'mesh.{axis}': size for axis, size in axes.items()}
  c = config.load(BASE, {**TINY, **sizes, **large, **fields})
  mesh = meshes.make_mesh(c.mesh, targets.devices('cuda:h100', 4))
  text = programs.trace_step(mesh, c).lower().compile().as_text()
  exchanged = hlo.Program(text, 1.0, 1.0).cost().collectives
  calls = [line for line in text.splitlines() if '__cudnn$fmha' in line]
  assert len(calls) >= 2
  assert all(f'(bf16[{rows},4,2048,64]' in line for line in calls)
  assert not [a for kind, a in exchanged if kind == 'all-gather' and 2048 in a.shape]


@pytest.mark.aot
@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
@pytest.mark.parametrize('axes', [{'fsdp': 4}, {'context': 4}, {'data': 2, 'context': 2}])
def test_a_step_compiles_for_four_tpus(tpu, axes, optimizer):
  """Sequences go round a ring, chosen by the mesh; no device gathers one."""
  sizes = {f'mesh.{axis}': size for axis, size in axes.items()}
  c = config.load(BASE, {**TINY, **sizes, 'encoding.name': 't5', 'optim.name': optimizer})
  text = programs.trace_step(meshes.make_mesh(c.mesh, tpu), c).lower().compile().as_text()
  exchanged = hlo.Program(text, 1.0, 1.0).cost().collectives
  gathered = {array for kind, array in exchanged if kind in ('all-gather', 'all-to-all')}
  assert gathered  # parameters
  assert not [array for array in gathered if c.train.length in array.shape]
  is_ring = any(kind == 'collective-permute' and len(array.shape) > 4 for kind, array in exchanged)
  assert is_ring == ('context' in axes)


@pytest.mark.aot
@pytest.mark.parametrize('axes', [{'data': 4}, {'data': 2, 'context': 2}])
def test_a_step_with_kernels_compiles_for_four_tpus(tpu, axes):
  """Kernels share out the batch, and go round the ring where sequences are cut."""
  sizes = {f'mesh.{axis}': size for axis, size in axes.items()}
  large = {'train.length': 512, 'train.batch': 4, 'model.head_dim': 128, 'encoding.name': 't5'}
  c = config.load(BASE, {**TINY, **sizes, **large})
  text = programs.trace_step(meshes.make_mesh(c.mesh, tpu), c).lower().compile().as_text()
  exchanged = hlo.Program(text, 1.0, 1.0).cost().collectives
  assert 'attention_d_row' in text
  assert ('collective-permute' in {kind for kind, _ in exchanged}) == ('context' in axes)
  assert not [a for kind, a in exchanged if kind == 'all-gather' and 512 in a.shape]


@pytest.mark.parametrize('vmap', [False, True])
def test_only_seeds_of_one_program_are_in_it(vmap):
  c = config.load(BASE, {**TINY, 'seeds': (0, 1), 'vmap_seeds': vmap})
  _, (model, *_) = programs.step_and_shapes(meshes.make_mesh(c.mesh), c)
  assert model.embedding.shape == (*(2,) * vmap, data.VOCAB, 128)


@pytest.mark.aot
@pytest.mark.parametrize('name', ['rope', 'cope', 'path'])
def test_a_step_is_exported_for_every_platform(name):
  c = config.load(BASE, {**TINY, 'encoding.name': name, 'attention.backend': 'blockwise'})
  step, arguments = programs.step_and_shapes(meshes.make_mesh(c.mesh), c)
  exported = jax.export.export(step, platforms=('cpu', 'cuda', 'tpu'))(*arguments)
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
