"""Announcing the devices, advice on the extra for a GPU, and the cache of compiled functions; the
meshes of devices that are on several hosts.
"""

import dataclasses
import importlib.util
import math
import os
import re
import subprocess
import sys
import types
from unittest import mock

import jax
import numpy as np
import pytest

from posenc_jax import data
from posenc_jax.distributed import devices, memory, mesh
from posenc_jax.errors import Stopped, UserError


@pytest.mark.parametrize(
  ('nodes', 'driver', 'visible', 'extra'),
  [
    ([], None, None, None),
    (['/dev/nvidia0'], None, None, 'cuda12'),
    (
      ['/dev/nvidia0'],
      'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19',
      None,
      'cuda12',
    ),
    (
      ['/dev/nvidia0'],
      'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release',
      None,
      'cuda13',
    ),
    (
      ['/dev/nvidia0'],
      'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release',
      '',
      None,
    ),
    (['/dev/nvidia0'], None, '0', 'cuda12'),
  ],
)
def test_the_extra_that_a_gpu_needs(nodes, driver, visible, extra, tmp_path, monkeypatch):
  if driver:
    (tmp_path / 'version').write_text(driver)
  monkeypatch.setattr(devices, 'NVIDIA_DRIVER', tmp_path / 'version')
  monkeypatch.setattr(devices.glob, 'glob', lambda pattern: nodes)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  if visible is not None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  assert devices.gpu_extra() == extra


@pytest.mark.parametrize(
  ('extra', 'platforms'), [('cuda13', None), ('cuda13', 'cpu'), (None, None)]
)
def test_devices_are_announced_and_an_unused_gpu_is_warned_of(
  extra, platforms, monkeypatch, capsys
):
  monkeypatch.setattr(devices, 'gpu_extra', lambda: extra)
  monkeypatch.delenv('JAX_PLATFORMS')
  if platforms:
    monkeypatch.setenv('JAX_PLATFORMS', platforms)
  devices.announce_devices()
  out, err = capsys.readouterr()
  assert out.startswith('jax ')
  assert out.endswith(' on 1 x cpu\n')
  assert ("pip install -e '.[cuda13]'" in err) == (extra is not None and platforms is None)


@pytest.mark.parametrize(
  ('cpus', 'given', 'threads'),
  [
    ({0}, {}, '2'),
    ({0, 1}, {}, None),
    ({0}, {'PJRT_NPROC': '1'}, '1'),
    ({0}, {'NPROC': '1'}, None),
  ],
)
def test_a_process_of_one_cpu_gets_two_threads(cpus, given, threads, monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: cpus, raising=False)
  monkeypatch.setattr(os, 'environ', dict(given))
  devices.start_two_threads()
  assert os.environ.get('PJRT_NPROC') == threads


@pytest.mark.parametrize(
  ('mesh', 'said'),
  [
    ({'seeds': 1, 'data': 1, 'context': 1}, '; uses 1 of 8 devices; --config.mesh.data=8 uses all'),
    ({'seeds': 1, 'data': 1, 'context': 2}, '; uses 2 of 8 devices; --config.mesh.data=4 uses all'),
    ({'seeds': 3, 'data': 2, 'context': 1}, '; uses 6 of 8 devices'),
    ({'seeds': 2, 'data': 4, 'context': 1}, ''),
    (None, ''),
  ],
)
def test_devices_that_idle_are_announced(mesh, said, monkeypatch, capsys):
  monkeypatch.setattr(jax, 'devices', lambda: [mock.Mock(device_kind='H100', platform='gpu')] * 8)
  devices.announce_devices(mesh)
  assert capsys.readouterr().out == f'jax {jax.__version__} on 8 x H100{said}\n'


@pytest.mark.parametrize(
  ('said', 'platform', 'words'),
  [
    ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.', 'gpu', 'allocate 9'),
    ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\n Used 17G', 'tpu', 'hbm. Used'),
    ('INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory', 'gpu', 'INTERNAL'),
    ('RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.', 'tpu', None),
    ('RESOURCE_EXHAUSTED: Shared memory size limit exceeded', 'gpu', None),
    ('INTERNAL: something else', 'gpu', None),
  ],
)
def test_a_full_device_is_told_in_one_line(said, platform, words, monkeypatch):
  """Not what one tile of a kernel takes within a core, which no smaller batch mends."""
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  for name in devices.MEMORY_FRACTIONS:
    monkeypatch.delenv(name, raising=False)
  for name in ('', *devices.MEMORY_FRACTIONS):
    if name:
      monkeypatch.setenv(name, '0.45')
    raised = pytest.raises(jax.errors.JaxRuntimeError if words is None else Stopped)
    with raised as error, memory.memory_errors('smaller batches'):
      raise jax.errors.JaxRuntimeError(said)
    if words:
      line = str(error.value)
      assert words in line
      assert '; to take less: smaller batches' in line
      assert '\n' not in line
      assert ('MEM_FRACTION=0.95' in line) == (platform == 'gpu' and not name)
      told = f'takes 0.45 of a GPU by {name}, set by you or'
      assert (told in line) == (platform == 'gpu' and bool(name))
    if name:
      monkeypatch.delenv(name)


@pytest.mark.parametrize(
  ('platform', 'fields', 'digits'),
  [
    ('cpu', ('float32', 'default'), None),
    ('gpu', ('float32', 'default'), 'TensorFloat-32'),
    ('tpu', ('float32', 'default'), 'bfloat16'),
    ('gpu', ('float32', 'highest'), None),
    ('tpu', ('bfloat16', 'default'), None),
  ],
)
def test_it_is_said_where_float32_has_fewer_digits(platform, fields, digits, monkeypatch, capsys):
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  devices.announce_precision(*fields)
  out = capsys.readouterr().out
  assert out.count('\n') == (digits is not None)
  assert digits is None or f'have the digits of {digits} here; --config.train.matmul_prec' in out


@pytest.mark.parametrize(
  ('platform', 'symbols', 'rows'),
  [
    ('gpu', 50258, 50304),
    ('gpu', 50304, None),
    ('gpu', 50264, None),
    ('gpu', data.VOCAB, None),
    ('cpu', 50258, None),
  ],
)
def test_it_is_said_where_many_symbols_are_slow(platform, symbols, rows, monkeypatch, capsys):
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  devices.announce_symbols(symbols)
  said = f'{symbols:,} symbols are no multiple of 8, at which GPUs are faster'
  line = f'{said}; --config.model.vocab={rows} is one, for a new workdir\n'
  assert capsys.readouterr().out == ('' if rows is None else line)


@pytest.mark.parametrize(
  ('capability', 'compute_dtype', 'said'),
  [
    ('7.5', 'float32', ''),
    ('7.5', 'bfloat16', 'this GPU, of compute capability 7.5, has no units for bfloat16; --config'),
    ('8.0', 'bfloat16', ''),
    ('gfx942', 'float32', ''),
    ('gfx942', 'bfloat16', ''),
  ],
)
def test_gpus_without_tensorfloat_have_all_digits_and_may_have_no_bfloat16(
  capability, compute_dtype, said, monkeypatch, capsys
):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  device = types.SimpleNamespace(compute_capability=capability)
  monkeypatch.setattr(jax, 'devices', lambda: [device])
  devices.announce_precision(compute_dtype, 'default')
  out = capsys.readouterr().out
  assert out.startswith(said)
  assert out.count('\n') == bool(said)


DAMAGED_CACHE = """
import sys
from pathlib import Path
import jax
from posenc_jax.distributed import devices
folder = Path(sys.argv[1])
devices.enable_compilation_cache(folder)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
for entry in folder.glob('*-cache'):
  if len(sys.argv) > 2:
    entry.write_bytes(entry.read_bytes()[:100])
for number in range(3):
  print(jax.jit(lambda x: x + number)(1.0))
"""


def test_a_damaged_compiled_program_is_replaced_with_one_line(tmp_path):
  environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)}

  def start(*arguments):
    command = [sys.executable, '-c', DAMAGED_CACHE, str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout, done.stderr

  numbers, said = start()
  assert said == ''
  assert list(tmp_path.glob('*-cache'))
  line = f'{tmp_path}: a compiled program is not whole there: it is compiled and kept anew\n'
  assert start('damage') == (numbers, line)
  assert start() == (numbers, '')


@pytest.mark.parametrize('named', [None, 'elsewhere'])
def test_compiled_functions_are_kept_unless_another_folder_is_named(named, tmp_path):
  fields = 'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs'
  before = {field: getattr(jax.config, field) for field in fields}
  try:
    jax.config.update('jax_compilation_cache_dir', named)
    devices.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == (named or str(tmp_path))
  finally:
    for field, value in before.items():
      jax.config.update(field, value)


@pytest.mark.parametrize(('number', 'is_tpu'), [('0x0063', True), ('0x0042', False)])
def test_a_network_card_of_googles_is_no_tpu(number, is_tpu, tmp_path, monkeypatch):
  for name, value in (('vendor', '0x1ae0'), ('device', number)):
    folder = tmp_path / '0000:00:04.0'
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'{value}\n')
  monkeypatch.setattr(devices.glob, 'glob', lambda pattern: [f'{folder}/vendor'])
  find_spec = importlib.util.find_spec
  for has_libtpu in (False, True):
    specs = {'jax': find_spec('jax'), 'libtpu': find_spec('jax') if has_libtpu else None}
    monkeypatch.setattr(devices.importlib.util, 'find_spec', specs.get)
    assert devices.has_tpu() == (is_tpu and has_libtpu)


@pytest.mark.parametrize('names', [(), ('hardware_utils.py',)])
def test_a_jax_that_looks_elsewhere_for_a_tpu_is_named(names, tmp_path, monkeypatch):
  (tmp_path / '_src').mkdir()
  for name in names:
    (tmp_path / '_src' / name).touch()
  spec = types.SimpleNamespace(submodule_search_locations=[tmp_path])
  monkeypatch.setattr(devices.importlib.util, 'find_spec', lambda name: spec)
  said = f'jax {jax.__version__} looks for TPUs in a way that is not known here; allowed: an earl'
  with pytest.raises(UserError, match=f'^{re.escape(said)}ier jax$'):
    devices.has_tpu()


@dataclasses.dataclass(frozen=True)
class StandIn:
  """What arranging asks of a device: GPUs of a host, or chips of a TPU in a row, are a slice."""

  id: int
  platform: str
  slice_index: int
  core_on_chip: int = 0

  @property
  def device_kind(self):
    return {'gpu': 'NVIDIA H100 80GB HBM3', 'tpu': 'TPU v6 lite'}[self.platform]

  @property
  def process_index(self):
    return self.slice_index

  @property
  def coords(self):
    return (self.id % 2, 0, 0)


def mesh_of_slices(platform, **sizes):
  """{axis: size} -> the ids of the devices of a mesh, two of each of two slices."""
  there = [StandIn(number, platform, number // 2) for number in range(4)]
  sizes = types.SimpleNamespace(**dict.fromkeys(mesh.AXES, 1) | sizes)
  made = mesh.make_mesh(sizes, there[::-1] if platform == 'gpu' else there)
  assert made.axis_names == mesh.AXES
  assert set(made.axis_types) == {jax.sharding.AxisType.Auto}
  return [[device.id for device in row] for row in made.devices.reshape(-1, 2)]


@pytest.mark.parametrize(
  'sizes',
  [{'data': 4}, {'fsdp': 4}, {'data': 2, 'fsdp': 2}, {'seeds': 2, 'context': 2}, {'context': 4}],
)
def test_gpus_of_several_hosts_are_a_mesh(sizes):
  """The first axes cross hosts, of which jax says that each is a slice of its own."""
  assert mesh_of_slices('gpu', **sizes) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
  ('sizes', 'ids'),
  [
    ({'data': 4}, [[0, 1], [2, 3]]),
    ({'data': 2, 'fsdp': 2}, [[0, 1], [2, 3]]),
    ({'data': 2, 'context': 2}, [[0, 1], [2, 3]]),
    ({'fsdp': 4}, [[0, 1], [2, 3]]),
    ({'context': 4}, None),
  ],
)
def test_slices_of_a_tpu_are_crossed_by_what_exchanges_little(sizes, ids):
  if ids is not None:
    assert mesh_of_slices('tpu', **sizes) == ids
    return
  with pytest.raises(ValueError, match=r'mesh\.context=4: a TPU of 2 slices; allowed: mesh'):
    mesh_of_slices('tpu', **sizes)


@pytest.mark.parametrize(
  ('stats', 'cards', 'used', 'said'),
  [
    (None, 4, {'data': 4}, ''),
    ({}, 4, {'data': 4}, ''),
    ({'bytes_limit': 200}, 4, {'data': 4}, ''),
    ({'bytes_limit': 199}, 4, {'fsdp': 4}, ''),
    ({'bytes_limit': 200}, 7, {'data': 7}, ''),
    ({'bytes_limit': 199}, 7, {'fsdp': 5}, '; 5 of 7 share it and work, '),
    ({'bytes_limit': 199}, 3, {'fsdp': 2}, '; 2 of 3 share it and work, '),
    ({'bytes_limit': 199}, 3, {'data': 3}, ', and 3 divide no width of it; '),  # of [5, 5]
    ({'bytes_limit': 199}, 1, {}, ''),
  ],
)
def test_an_evaluation_cuts_parameters_that_fill_half_of_a_device(
  stats, cards, used, said, monkeypatch, capsys
):
  """A card of another kind has no part in it. A line says if all cards together divide no width."""
  there = [StandIn(number, 'gpu', 0) for number in range(cards)]
  monkeypatch.setattr(StandIn, 'memory_stats', lambda self: stats, raising=False)
  monkeypatch.setattr(jax, 'local_devices', lambda: [*there, StandIn(cards, 'tpu', 0)])
  is_odd = used == {'data': 3}
  w = np.zeros((5, 5), np.float32) if is_odd else np.zeros((4, 25), np.int8)
  made = mesh.mesh_of_evaluation({'w': w})
  number = math.prod(used.values())
  assert [*made.devices.flat] == there[:number]
  assert {name: size for name, size in made.shape.items() if size > 1} == used
  out = capsys.readouterr().out
  assert out.startswith(f'the model takes more than half of a device{said}') if said else not out


@pytest.mark.parametrize(('cards', 'used'), [(8, 8), (7, 4), (6, 4), (3, 3)])
def test_an_evaluation_has_the_devices_with_which_each_holds_least(cards, used, monkeypatch):
  """The shapes are those of Qwen3 8B: six devices divide its 36 layers, no table of symbols."""
  there = [StandIn(number, 'gpu', 0) for number in range(cards)]
  memory = lambda self: {'bytes_limit': 24e9}
  monkeypatch.setattr(StandIn, 'memory_stats', memory, raising=False)
  monkeypatch.setattr(jax, 'local_devices', lambda: there)
  layers = ((4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), *[(4096, 12288)] * 3)
  shapes = [*[(151936, 4096)] * 2, *((36, *shape) for shape in layers)]
  made = mesh.mesh_of_evaluation([np.broadcast_to(np.float16(0), shape) for shape in shapes])
  assert dict(made.shape) == dict.fromkeys(mesh.AXES, 1) | {'fsdp': used}
