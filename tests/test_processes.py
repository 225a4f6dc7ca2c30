"""Two processes, connected over loopback, train as one process does, and end together.

They are forks of one process that has imported everything, but uses no device yet.
"""

import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from orbax.checkpoint import multihost
from small_runs import BASE, STEPS, tiny, write_text_corpus
from test_trainer import damage_arrays, metrics, parameters

from posenc_jax import config
from posenc_jax.distributed import devices, processes
from posenc_jax.errors import Stopped, UserError
from posenc_jax.storage import REPOSITORY
from posenc_jax.training import checkpoints, loop

FSDP = {'mesh__fsdp': 2}
FIELDS = {'encoding.name': 't5', 'train.log_every': 1, 'train.validate_every': 6}

# Each phase is two processes, which run its trainings one after another. `signal` is [process,
# step, number]: the process sends itself signal `number` at that step.
PAIRS = """
import json, os, sys
from posenc_jax import cli, config, data
from posenc_jax.distributed import processes
from posenc_jax.training import loop
import jax

address, folder = sys.argv[1:]
phases = json.load(open(folder + '/phases.json'))
jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_compilation_cache_dir', folder + '/compiled')
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
os.environ |= {'JAX_COORDINATOR_ADDRESS': address, 'JAX_COORDINATOR_BIND_ADDRESS': address}
os.environ['JAX_NUM_PROCESSES'] = '2'
processes.ERROR_SECONDS = processes.SEE_SECONDS = 2
read = data.Batches.__getitem__

def together(number, runs):
  with processes.distributed_context():
    for run in runs:
      who, step, sent = run.get('signal', (None, None, None))
      def getitem(batches, n):
        if (who, step) == (number, n + 1):
          os.kill(os.getpid(), sent)
        return read(batches, n)
      data.Batches.__getitem__ = getitem
      if 'apart' in run:  # a disk of each host
        os.chdir(folder + f'/{number}')
      loop.train(config.from_json(run['config']), run['workdir'])

for name, runs in phases.items():
  children = []
  for number in range(2):
    if child := os.fork():
      children.append(child)
      continue
    os.environ['JAX_PROCESS_ID'] = str(number)
    for fd, kind in ((1, 'out'), (2, 'err')):
      os.dup2(os.open(f'{folder}/{name}.{number}.{kind}', os.O_WRONLY | os.O_CREAT), fd)
    cli.main(lambda argv: together(number, runs))
  codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
  print(name, *codes, flush=True)
"""


@pytest.fixture(scope='module')
def make(corpus):
  """make(a__b=value) returns a config with the field a.b set."""
  return lambda **fields: tiny({'data.corpus': corpus, **FIELDS}, **fields)


@pytest.fixture(scope='module')
def on_one(make, tmp_path_factory):
  """The directory of a training in one process."""
  workdir = tmp_path_factory.mktemp('one') / 'run'
  loop.train(make(), workdir)
  return workdir


def start(folder, phases):
  """Runs the phases; returns `folder` and {phase: [exit code of either]}."""
  (folder / 'phases.json').write_text(json.dumps(phases))
  # another program does not get this port meanwhile; the coordinator shares it
  with socket.socket() as held:
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(('127.0.0.1', 0))
    arguments = [f'127.0.0.1:{held.getsockname()[1]}', str(folder)]
    done = subprocess.run(
      [sys.executable, '-c', PAIRS, *arguments], capture_output=True, text=True, timeout=300
    )
  lines = [line.split() for line in done.stdout.splitlines()]
  assert [name for name, *_ in lines] == list(phases), done.stdout + done.stderr
  return folder, {name: list(map(int, codes)) for name, *codes in lines}


@pytest.fixture(scope='module')
def run(make):
  """run(workdir, signal, **fields) -> one training of a phase."""

  def one(workdir, sent=None, **fields):
    signalled = {'signal': sent} if sent else {}
    return {'workdir': str(workdir), 'config': config.to_json(make(**fields)), **signalled}

  return one


@pytest.fixture(scope='module')
def pairs(run, tmp_path_factory):
  """The folder and exit codes of the phases that most tests look at. `.ci/run` has those tests that
  look at nothing else.
  """
  folder = tmp_path_factory.mktemp('pairs')
  stopped = folder / 'stopped'
  phases = {
    'whole': [run(folder / 'fsdp', **FSDP), run(stopped, (1, 6, signal.SIGTERM), **FSDP)],
    'again': [run(stopped, **FSDP), run(folder / 'fsdp', **FSDP, seed=1)],
  }
  return start(folder, phases)


def said(folder, name):
  """Lines of stderr of each process, without those of jax itself."""
  texts = [(folder / f'{name}.{number}.err').read_text() for number in range(2)]
  return [[line for line in text.splitlines() if not line.startswith('[Gloo]')] for text in texts]


def losses(workdir):
  return [row['loss'] for row in map(json.loads, metrics(workdir).splitlines()) if 'loss' in row]


@pytest.mark.ci
def test_losses_are_those_of_one_process(pairs, on_one):
  assert losses(on_one)[-1] < losses(on_one)[0] - 1
  np.testing.assert_allclose(losses(pairs[0] / 'fsdp'), losses(on_one), rtol=2e-6)


@pytest.mark.slow
def test_a_ring_of_two_processes_has_the_losses_of_one(run, on_one, tmp_path):
  start(tmp_path, {'whole': [run(tmp_path / 'context', mesh__context=2)]})
  np.testing.assert_allclose(losses(tmp_path / 'context'), losses(on_one), rtol=2e-6)


@pytest.mark.ci
def test_the_first_alone_writes_and_prints(pairs):
  folder, _ = pairs
  assert sorted(path.name for path in (folder / 'fsdp').iterdir()) == [
    'built_in.json',
    'checkpoints',
    'config.json',
    'documents.json',
    'metrics.jsonl',
    'sessions.jsonl',
    'timing.jsonl',
    'train.lock',
  ]
  steps = [
    row['step'] for row in map(json.loads, metrics(folder / 'fsdp').splitlines()) if 'loss' in row
  ]
  assert steps == list(range(1, STEPS + 1))
  first, second = ((folder / f'whole.{number}.out').read_text().splitlines() for number in range(2))
  assert sum('step 12/12  loss' in line for line in first) == 1
  assert [line for line in second if not line.startswith('[Gloo]')] == []


@pytest.mark.ci
def test_a_signal_to_one_stops_both_at_one_step_and_is_told_once(pairs):
  folder, codes = pairs
  assert codes['whole'] == [128 + signal.SIGTERM] * 2
  first, second = said(folder, 'whole')
  assert len(first) == 1
  assert 'SIGTERM: step 7 is saved; go on with the same command' in first[0]
  assert second == []


def assert_same_run(a, b, c):
  assert metrics(a) == metrics(b)
  jax.tree.map(np.testing.assert_array_equal, parameters(a, c), parameters(b, c))


@pytest.mark.ci
def test_the_same_command_goes_on_and_ends_with_the_same_bits(pairs, make):
  folder, _ = pairs
  assert f'{folder}/stopped: going on from step 7' in (folder / 'again.0.out').read_text()
  assert_same_run(folder / 'stopped', folder / 'fsdp', make())


@pytest.mark.ci
def test_a_process_that_is_killed_ends_the_other_and_the_same_command_goes_on(
  pairs, run, make, tmp_path
):
  killed = tmp_path / 'killed'
  phases = {
    'killed': [run(killed, (1, 10, signal.SIGKILL), **FSDP)],
    'again': [run(killed, **FSDP)],
  }
  folder, codes = start(tmp_path, phases)
  assert codes == {'killed': [1, -signal.SIGKILL], 'again': [0, 0]}
  failed = 'process 0 of 2: failed alone, or lost another'
  line = f'{failed}; the same command goes on from the last checkpoint'
  assert line in said(folder, 'killed')[0]
  assert f'{killed}: going on from step' in (folder / 'again.0.out').read_text()
  assert_same_run(killed, pairs[0] / 'fsdp', make())


@pytest.mark.slow
@pytest.mark.parametrize('axis', ['seeds', 'fsdp'])
def test_seeds_at_once_in_two_processes_are_each_as_in_one(axis, run, on_one, tmp_path):
  fields = {'seeds': (0, 1), 'vmap_seeds': True, f'mesh__{axis}': 2}
  _, codes = start(tmp_path, {'seeds': [run(tmp_path / 'run', **fields)]})
  assert codes == {'seeds': [0, 0]}
  np.testing.assert_allclose(losses(tmp_path / 'run,seed=0'), losses(on_one), rtol=2e-6)
  assert (tmp_path / 'run,seed=1' / 'checkpoints' / str(STEPS)).exists()


@pytest.mark.slow
def test_two_go_on_from_the_last_whole_checkpoint_of_one(run, on_one, tmp_path):
  workdir = tmp_path / 'of_one'
  shutil.copytree(on_one, workdir)
  damage_arrays(workdir / 'checkpoints' / str(STEPS))
  start(tmp_path, {'of_one': [run(workdir, mesh__data=2)]})
  damaged = f'{workdir}/checkpoints: the checkpoint of step 12 is damaged'
  assert damaged in (tmp_path / 'of_one.0.err').read_text()
  assert f'{workdir}: going on from step 8' in (tmp_path / 'of_one.0.out').read_text()
  assert (workdir / 'checkpoints' / '12.damaged').exists()
  np.testing.assert_allclose(losses(workdir), losses(on_one), rtol=2e-6)


@pytest.mark.ci
def test_one_goes_on_from_a_checkpoint_of_two(pairs, on_one, make, tmp_path, capsys):
  shutil.copytree(pairs[0] / 'fsdp', tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / str(STEPS))
  loop.train(make(mesh__data=1), tmp_path / 'run')
  assert 'going on from step 8' in capsys.readouterr().out
  np.testing.assert_allclose(losses(tmp_path / 'run'), losses(on_one), rtol=2e-6)


@pytest.mark.ci
def test_an_error_of_the_first_is_told_once_and_ends_both(pairs):
  folder, codes = pairs
  assert codes['again'] == [UserError.code] * 2
  (first,), second = said(folder, 'again')
  assert 'holds a run of another config: seed (there 0, here 1); allowed: another workdir' in first
  assert second == []


@pytest.mark.slow
def test_processes_without_a_shared_folder_end_before_they_train(run, tmp_path):
  for number in '01':
    (tmp_path / number).mkdir()
  folder, codes = start(tmp_path, {'apart': [run('run', mesh__data=2) | {'apart': True}]})
  assert codes == {'apart': [UserError.code] * 2}
  (first,), second = said(folder, 'apart')
  allowed = 'a folder that the hosts of all processes share'
  assert f"workdir='run': process 1 of 2 does not see it; allowed: {allowed}" in first
  assert second == []
  assert not (tmp_path / '0' / 'run' / 'checkpoints').exists()


@pytest.mark.slow
def test_processes_that_read_other_text_end_before_anything_is_written(run, tmp_path):
  for number in '01':
    write_text_corpus(tmp_path / number / 'texts', f'{number} the quick brown fox; ' * 20 + number)
    (tmp_path / number / 'texts' / 'train' / f'{number}.txt').write_text('more text ' * 9)
  one = run(tmp_path / 'run', mesh__data=2, data__corpus='texts') | {'apart': True}
  folder, codes = start(tmp_path, {'apart': [one]})
  assert codes == {'apart': [UserError.code] * 2}
  (first,), second = said(folder, 'apart')
  assert 'the text of config.data.corpus: process 1 of 2 has another' in first
  assert second == []
  assert not (tmp_path / 'run').exists()


def test_what_differs_between_processes_is_named(monkeypatch):
  others = {'config': 'a', 'text': [None, 'c']}
  gathered = []

  def gather(checks):
    gathered.append(checks)
    return np.stack(gathered)

  processes.check_alike(others)  # of one alone, nothing is asked
  monkeypatch.setattr(processes, 'is_multiprocess', lambda: True)
  monkeypatch.setattr(processes.multihost_utils, 'process_allgather', gather)
  for _ in range(2):
    processes.check_alike(others)
  with pytest.raises(UserError, match=r'^text: process 2 of \d has another .*; allowed: the same'):
    processes.check_alike(others | {'text': [None, 'd']})


@pytest.mark.parametrize(
  'shape', [(), (0, 3), (1, 3), (7,), (7, 3), (13, 2), (3, 1, 5, 2), (2, 3, 40)], ids=str
)
def test_an_array_comes_to_the_host_in_blocks_with_its_own_bits(shape, monkeypatch):
  monkeypatch.setattr(processes, 'BLOCK_BYTES', 24)
  whole = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  whole.reshape(-1)[: whole.size // 2] *= -0.0
  x = jax.numpy.asarray(whole)
  blocks = [*processes.blocks_on_host(x)]
  assert b''.join(block.tobytes() for block in blocks) == whole.tobytes()
  assert all(block.nbytes <= 24 for block in blocks)
  (given,) = processes.blocks_on_host(whole)  # it is on the host
  assert given is whole
  sums = [checkpoints._checksum({'b': leaf, 'a': np.array(5)}) for leaf in (whole, x)]
  assert sums == [zlib.crc32(whole.tobytes(), zlib.crc32(np.array(5).tobytes()))] * 2


@pytest.mark.slow
def test_an_evaluation_that_cannot_be_is_told_once(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  arguments = [f'--config={BASE}', f'--workdir={tmp_path / "run"}', '--config.mesh.data=2']
  started = [
    subprocess.Popen(
      [sys.executable, str(REPOSITORY / 'train.py'), *arguments, '--config.eval.documents=9000'],
      env=os.environ
      | {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': index},
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in '01'
  ]
  errors = [process.communicate(timeout=100)[1] for process in started]
  assert [process.returncode for process in started] == [UserError.code] * 2
  assert sum(text.count('config.eval.documents=9000: only') for text in errors) == 1


@pytest.mark.parametrize('error', [UserError('text'), Stopped('text'), OSError('text')])
def test_an_error_of_all_is_raised_in_the_first_alone(error, monkeypatch):
  monkeypatch.setattr(processes.multihost, 'sync_global_processes', lambda *_, **__: None)
  processes._exit_after(error)
  monkeypatch.setattr(processes, 'is_primary', lambda: False)
  processes._exit_after(AttributeError('text'))  # a bug, which each may have of its own
  with pytest.raises(SystemExit) as end:
    processes._exit_after(error)
  assert end.value.code == getattr(error, 'code', 1)


def started_with(**environment):
  """Runs a process that waits two seconds for the others; returns the completed process."""
  code = """
from posenc_jax import cli
from posenc_jax.distributed import processes
cli.main(lambda argv: processes.distributed_context(2).__enter__())
"""
  return subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=100,
  )


def test_who_does_not_find_the_others_says_so_in_one_line():
  with socket.socket() as held:
    held.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{held.getsockname()[1]}'
    done = started_with(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2', JAX_PROCESS_ID='1')
  expected = (
    f'JAX_COORDINATOR_ADDRESS={address} JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=1: after 2 s, not all'
  )
  assert (done.returncode, done.stderr.count('\n')) == (1, 1), done.stderr
  assert expected in done.stderr


STEP = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_PROCID': '1',
  'SLURM_LOCALID': '0',
}
TWO_TASKS = {'SLURM_NTASKS': '2', 'SLURM_STEP_NUM_TASKS': '2'}
FOUR_TASKS = {'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_TASKS': '4'}
TWO_NODES = {'SLURM_STEP_NUM_NODES': '2'}
GIVEN = 'JAX_LOCAL_DEVICE_IDS'


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [
    ({}, None),
    ({**STEP, 'SLURM_NTASKS': '1', 'SLURM_STEP_NUM_TASKS': '1'}, None),  # a sweep's job
    # the shell of a job of two tasks
    ({**STEP, 'SLURM_NTASKS': '2', 'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({**STEP, 'SLURM_NTASKS': '2'}, None),  # its batch script
    ({**STEP, **TWO_TASKS}, {'cluster_detection_method': 'slurm'}),
    ({**STEP, **TWO_TASKS, 'CUDA_VISIBLE_DEVICES': '0,1'}, {'cluster_detection_method': 'slurm'}),
    # each task with a GPU of its own
    (
      {**STEP, **TWO_TASKS, 'CUDA_VISIBLE_DEVICES': '3'},
      {'cluster_detection_method': 'slurm', 'local_device_ids': [0]},
    ),
    # with all GPUs of a node of its own
    (
      {**STEP, **TWO_TASKS, **TWO_NODES, 'CUDA_VISIBLE_DEVICES': '0,1,2,3'},
      {'cluster_detection_method': 'slurm', 'local_device_ids': [0, 1, 2, 3]},
    ),
    # with two of a node's GPUs
    (
      {**STEP, **TWO_TASKS, 'CUDA_VISIBLE_DEVICES': '2,3', 'SLURM_GPUS_PER_TASK': 'h100:2'},
      {'cluster_detection_method': 'slurm', 'local_device_ids': [0, 1]},
    ),
    # one for each GPU of two nodes
    (
      {**STEP, **FOUR_TASKS, **TWO_NODES, 'CUDA_VISIBLE_DEVICES': '0,1'},
      {'cluster_detection_method': 'slurm'},
    ),
    (
      {**STEP, **FOUR_TASKS, **TWO_NODES, 'CUDA_VISIBLE_DEVICES': '0,1,2', GIVEN: '0,2'},
      {'cluster_detection_method': 'slurm'},
    ),
    (
      {**STEP, **TWO_TASKS, 'CUDA_VISIBLE_DEVICES': '3', GIVEN: '0'},
      {'cluster_detection_method': 'slurm'},
    ),
    ({**STEP, **TWO_TASKS, 'JAX_NUM_PROCESSES': '1'}, None),
    (
      dict(zip(processes.ENVIRONMENT, ('host:1', '2', '1'), strict=True)),
      {'num_processes': 2, 'process_id': 1, 'cluster_detection_method': 'deactivate'},
    ),
  ],
)
def test_whether_a_process_is_alone_is_seen_from_its_environment(
  environment, expected, monkeypatch
):
  only(environment, monkeypatch)
  assert processes._initialize_options() == expected


def test_tasks_on_cpus_leave_gpus_alone(monkeypatch):
  on_cpus = {'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'JAX_PLATFORMS': 'cpu'}
  only({**STEP, **TWO_TASKS, **on_cpus}, monkeypatch)
  assert processes._initialize_options() == {'cluster_detection_method': 'slurm'}


OTHERS = ('CUDA_VISIBLE_DEVICES', GIVEN, 'JAX_PLATFORMS')


def only(environment, monkeypatch):
  """Sets these of the variables that say what a process is one of, and no other."""
  for name in (*os.environ,):
    if name.startswith('SLURM_') or name in (*processes.ENVIRONMENT, *OTHERS):
      monkeypatch.delenv(name)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)


@pytest.mark.parametrize(('tasks', 'nodes'), [(TWO_TASKS, {}), (FOUR_TASKS, TWO_NODES)])
def test_tasks_that_would_leave_gpus_are_refused(tasks, nodes, monkeypatch):
  only({**STEP, **tasks, **nodes, 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, monkeypatch)
  allowed = 'one task a node, one a GPU, or JAX_LOCAL_DEVICE_IDS'
  with pytest.raises(
    UserError, match=f'VISIBLE_DEVICES=0,1,2,3: some are left; allowed: {allowed}'
  ):
    processes._initialize_options()


@pytest.mark.parametrize(
  ('platform', 'folder', 'is_kept'),
  [('gpu', None, False), ('gpu', '/of/all', True), ('tpu', None, True), ('cpu', None, True)],
)
def test_processes_on_gpus_keep_programs_where_a_folder_is_said_to_be_of_all(
  platform, folder, is_kept, monkeypatch
):
  updated = {}
  stand_in = SimpleNamespace(update=updated.__setitem__)
  monkeypatch.setattr(processes.jax, 'default_backend', lambda: platform)
  monkeypatch.setattr(processes.jax, 'config', stand_in)
  monkeypatch.setattr(processes, '_initialize_options', dict)
  monkeypatch.setattr(processes, '_connect', lambda options, seconds: None)
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  if folder:
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', folder)
  with processes.distributed_context():
    assert updated.get('jax_enable_compilation_cache', True) == is_kept


@pytest.mark.parametrize(
  'values',
  [
    (None, '2', '1'),
    ('host:1', '2', None),
    ('host:1', None, '1'),
    ('host:1', '2', '2'),
    ('host:1', 'x', '0'),
  ],
)
def test_variables_that_do_not_fit_are_named(values, monkeypatch):
  for name, value in zip(processes.ENVIRONMENT, values, strict=True):
    monkeypatch.delenv(name, raising=False)
    if value:
      monkeypatch.setenv(name, value)
  with pytest.raises(
    UserError, match=r'^JAX_COORDINATOR_ADDRESS=.*; allowed: HOST:PORT, the number of processes'
  ):
    processes._initialize_options()


@pytest.mark.parametrize(('hosts', 'environment'), [(2, {}), (2, devices.ONE_CHIP), (1, {})])
def test_a_host_of_a_slice_trains_with_the_others_and_evaluates_on_a_chip(
  hosts, environment, monkeypatch
):
  """Alone, jax would wait for the other hosts for ever."""

  class Slice:
    name = 'gcetpu'
    is_env_present = staticmethod(lambda: True)
    get_process_count = staticmethod(lambda: hosts)

  for name in (*os.environ,):
    if name.startswith('SLURM_') or name in processes.ENVIRONMENT:
      monkeypatch.delenv(name)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(processes, '_tpu_clusters', lambda: (Slice,))
  monkeypatch.setattr(processes.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr(processes.jax, 'config', SimpleNamespace(jax_platforms=None))
  if hosts == 1 or environment:
    assert processes._initialize_options() is None
    processes.check_one_host()
    return
  assert processes._initialize_options() == {'cluster_detection_method': 'gcetpu'}
  allowed = 'TPU_PROCESS_BOUNDS=1,1,1 .* TPU_VISIBLE_DEVICES=0$'
  with pytest.raises(
    UserError, match=f'^a TPU slice of 2 hosts; allowed: one chip, with {allowed}'
  ):
    processes.check_one_host()


def test_jax_and_orbax_have_the_private_and_late_api_that_is_used():
  for cluster in processes._tpu_clusters():
    assert isinstance(cluster.name, str)
    assert callable(cluster.is_env_present)
    assert callable(cluster.get_process_count)
  connect = inspect.signature(jax.distributed.initialize).parameters
  options = {'num_processes', 'process_id', 'local_device_ids', 'cluster_detection_method'}
  assert options | {'initialization_timeout'} <= connect.keys()
  assert {'timeout', 'processes'} <= inspect.signature(
    multihost.sync_global_processes
  ).parameters.keys()
  for field in ('jax_cpu_enable_async_dispatch', 'jax_enable_preemption_service'):
    assert field in jax.config.values
