"""Several processes that train as one: how they connect, which one writes, what they agree on.

Each process holds some of the devices of one mesh, and all run the same program: they make the same
batches from seed and step, compute the same metrics, and end at the same step. The primary process
(index 0) alone writes and prints. In a run of a single process nothing here communicates.
"""

import contextlib
import functools
import importlib.util
import os
import pickle
import sys
import threading
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

from posenc_jax.distributed.devices import ONE_CHIP, on_one_chip
from posenc_jax.errors import Stopped, UserError

# jax itself reads the first of these.
ENVIRONMENT = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
CONNECT_SECONDS = 300  # how long a process waits for the others when it starts
# Until which a network's file system shows a new file to all: a client of NFS may believe for up to
# 60 s (acdirmax) that there is none.
SEE_SECONDS = 90
ERROR_SECONDS = 10  # how long a process with an error waits to see whether all have it
BLOCK_BYTES = 2**26  # of an array, on its way to the host


@contextlib.contextmanager
def distributed_context(connect_seconds: int = CONNECT_SECONDS) -> Iterator[None]:
  """Connects this process to the others, before jax knows its devices, if it is one of several.

  An error that all processes raise is printed by the primary one. A process that fails alone prints
  its error and exits; the others end as soon as a connection to it breaks, or when jax misses its
  heartbeat, after 100 s. A save that one process cannot write ends all of them after Orbax's
  timeout of 20 minutes. Raises UserError where the variables of ENVIRONMENT do not fit together.
  """
  options = _initialize_options()
  if options is None:
    yield
    return
  # On CPUs, which have no queues, the collectives of two programs at once would be mixed up.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  # jax's preemption service would take the SIGTERM that stop_signal.StopRequest waits for.
  jax.config.update('jax_enable_preemption_service', False)
  _connect(options, connect_seconds)
  _compile_alike()
  if not is_primary():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (until the process ends)
  try:
    yield
  except Exception as error:
    _exit_after(error)
    raise


def _initialize_options() -> dict | None:
  """Arguments for `jax.distributed.initialize`; None where this process was started alone."""
  detection = 'cluster_detection_method'
  given = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
  if 'JAX_NUM_PROCESSES' in given or 'JAX_PROCESS_ID' in given:
    if given.get('JAX_NUM_PROCESSES') == '1':
      return None
    count, index = (given.get(name, '') for name in ENVIRONMENT[1:])
    are_numbers = count.isdecimal() and index.isdecimal()
    if len(given) < len(ENVIRONMENT) or not are_numbers or int(index) >= int(count):
      values = ' '.join(f'{name}={given.get(name, "")}' for name in ENVIRONMENT)
      allowed = 'HOST:PORT, the number of processes, and 0 to that number - 1; or none of them'
      raise UserError(f'{values}; allowed: {allowed}')
    return {'num_processes': int(count), 'process_id': int(index), detection: 'deactivate'}
  # SLURM_NTASKS would not do: in a shell with one task it can be that of the whole job.
  if (tasks := int(os.environ.get('SLURM_STEP_NUM_TASKS', 1))) > 1:
    return {detection: 'slurm'} | _gpus_of_task(tasks)
  cluster = _slice_of_hosts()
  return None if cluster is None else {detection: cluster.name}


def _gpus_of_task(tasks: int) -> dict:
  """Which GPUs a task of SLURM takes, as an argument for `jax.distributed.initialize`, unless the
  one that has its number on the node, as jax would by itself. Raises UserError where some GPUs of a
  node would then be left.
  """
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '')
  on_cpus = os.environ.get('JAX_PLATFORMS') == 'cpu'
  if not visible or on_cpus or 'JAX_LOCAL_DEVICE_IDS' in os.environ:
    return {}
  gpus, nodes = visible.count(',') + 1, int(os.environ.get('SLURM_STEP_NUM_NODES', 1))
  # 'a100:2', say, with `srun --gpus-per-task`: a task sees its own alone, counted from 0
  *_, of_task = os.environ.get('SLURM_GPUS_PER_TASK', '').split(':')
  if gpus == 1 or tasks == nodes or of_task == str(gpus):
    return {'local_device_ids': [*range(gpus)]}
  if tasks < nodes * gpus:
    values = f'SLURM_STEP_NUM_TASKS={tasks} SLURM_STEP_NUM_NODES={nodes}'
    allowed = 'one task a node, one a GPU, or JAX_LOCAL_DEVICE_IDS, the GPUs of each task'
    raise UserError(f'{values} CUDA_VISIBLE_DEVICES={visible}: some are left; allowed: {allowed}')
  return {}


def check_one_host() -> None:
  """Raises UserError on a host of a TPU slice of several: alone, jax would wait for the others."""
  if not jax.distributed.is_initialized() and (cluster := _slice_of_hosts()) is not None:
    hosts = f'a TPU slice of {cluster.get_process_count()} hosts'
    raise UserError(f'{hosts}; allowed: one chip, with {on_one_chip(0)}')


def _slice_of_hosts() -> type | None:
  """jax's detector of the TPU slice that this host is one of several of, or None."""
  has_tpu = importlib.util.find_spec('libtpu') and 'tpu' in (jax.config.jax_platforms or 'tpu')
  if not has_tpu or ONE_CHIP.items() <= os.environ.items():
    return None
  present = next((cluster for cluster in _tpu_clusters() if cluster.is_env_present()), None)
  return present if present and present.get_process_count() > 1 else None


def _tpu_clusters() -> tuple[type, ...]:
  """jax's detectors of TPU clusters: it has no public way to ask for the number of processes."""
  from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster, GkeTpuCluster

  return GkeTpuCluster, GceTpuCluster


def _connect(options: dict, seconds: int) -> None:
  """Connects to the other processes; exits with one line if they have not come in time.

  A timer exits before jax's own timeout, at which jax would abort with a stack trace.
  """

  def give_up():
    names = (*ENVIRONMENT, 'SLURM_STEP_NODELIST', 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID')
    values = ' '.join(f'{name}={os.environ[name]}' for name in names if name in os.environ)
    program = Path(sys.argv[0]).name
    print(f'{program}: {values}: after {seconds} s, not all processes have met', file=sys.stderr)
    os._exit(1)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(**options, initialization_timeout=seconds + 60)
  finally:
    timer.cancel()


def _compile_alike() -> None:
  """Keeps no compiled programs where processes on GPUs may not all find them.

  Those processes share out the search for the fastest kernels: who compiles a program waits, up to
  a day, for what each of the others finds. Who has it from the cache finds nothing, and the primary
  process alone writes the cache, which by default is in the user's folder on its own host, perhaps.
  With JAX_COMPILATION_CACHE_DIR a user says that the folder is one for all.
  """
  if jax.default_backend() == 'gpu' and 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_enable_compilation_cache', False)


def _exit_after(error: Exception) -> None:
  """Exits at once where this process alone has an error; silently where the primary prints it.

  Returns where `error` is to be raised and printed: in the primary process, and where it is a bug.
  """
  code = getattr(error, 'code', 1)
  everyone = set(range(jax.process_count()))
  try:
    multihost.sync_global_processes('all have failed', timeout=ERROR_SECONDS, processes=everyone)
  except jax.errors.JaxRuntimeError:
    message = error
    try:
      if not isinstance(error, UserError | Stopped | OSError):
        traceback.print_exception(error)
        message = 'failed alone, or lost another; the same command goes on from the last checkpoint'
      process = f'process {jax.process_index()} of {jax.process_count()}'
      print(f'{process}: {message}', file=sys.stderr, flush=True)
    finally:
      os._exit(code)  # sys.exit would wait for the others
  if not is_primary() and isinstance(error, UserError | Stopped | OSError):
    sys.exit(code)


def is_multiprocess() -> bool:
  return jax.process_count() > 1


def is_primary() -> bool:
  return jax.process_index() == 0


def device_put_global(tree, shardings):
  """`jax.device_put` of arrays that every process holds whole, onto the devices of all."""
  if not is_multiprocess():
    return jax.device_put(tree, shardings)

  def put(x, sharding):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(put, tree, jax.tree.broadcast(shardings, tree))


def blocks_on_host(x) -> Iterator[np.ndarray]:
  """The bytes of a whole array, in its order, in blocks on this host; whichever devices hold its
  shards. Call it in all processes.

  A block of a jax.Array has BLOCK_BYTES at most. jax keeps the copy of an array on the host as long
  as the array, and an array that is gathered is whole on each device: there may be no room.
  """
  if not isinstance(x, jax.Array) or x.nbytes <= BLOCK_BYTES:
    yield _on_host(x)
    return
  row_bytes = x.nbytes // len(x)
  if row_bytes > BLOCK_BYTES:
    for row in range(len(x)):
      yield from blocks_on_host(_rows(x, row, 1)[0])
    return
  size = BLOCK_BYTES // row_bytes
  for start in range(0, len(x), size):
    yield _on_host(_rows(x, start, min(size, len(x) - start)))


@functools.partial(jax.jit, static_argnames='number')
def _rows(x: jax.Array, start: int, number: int) -> jax.Array:
  """x[start : start + number] as unsigned integers of the same bits. Where devices hold parts of
  the rows, XLA adds what each has, which changes no integer; of a slice it would gather all of x.
  """
  bits = jax.lax.bitcast_convert_type(x, f'uint{8 * x.dtype.itemsize}')
  return jnp.take(bits, start + jnp.arange(number), axis=0, mode='clip')


def _on_host(x) -> np.ndarray:
  if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
    x = multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)


def run_on_primary(function: Callable, *args):
  """Calls function(*args) in the primary process; all return its result or raise its user error."""
  if not is_multiprocess():
    return function(*args)
  result, error = None, None
  if is_primary():
    try:
      result = function(*args)
    except (UserError, Stopped, OSError) as raised:
      error = raised
  data = np.frombuffer(pickle.dumps((result, error)), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.array(data.size)))
  buffer = data if is_primary() else np.zeros(size, np.uint8)
  result, error = pickle.loads(multihost_utils.broadcast_one_to_all(buffer).tobytes())
  if error is not None:
    raise error
  return result


def check_shared(folder: Path) -> None:
  """Raises UserError, in all processes, where one does not see what the primary one writes into the
  folder.
  """
  if not is_multiprocess():
    return
  token = folder / run_on_primary(_write_token, folder)
  deadline = time.monotonic() + SEE_SECONDS
  while not (sees := token.exists()) and time.monotonic() < deadline:
    time.sleep(0.2)
  all_see = multihost_utils.process_allgather(np.array(sees))
  run_on_primary(token.unlink)
  if not all_see.all():
    who = f'process {all_see.argmin()} of {jax.process_count()}'
    allowed = 'a folder that the hosts of all processes share'
    raise UserError(f'workdir={str(folder)!r}: {who} does not see it; allowed: {allowed}')


def check_alike(values: dict[str, object]) -> None:
  """Raises UserError, in all processes, where one has another value than the primary one under a
  name; the error names both.
  """
  if not is_multiprocess():
    return
  checks = np.array([zlib.crc32(repr(value).encode()) for value in values.values()], np.uint32)
  all_checks = multihost_utils.process_allgather(checks)
  differing = np.argwhere(all_checks != all_checks[0])
  if len(differing):
    process, number = differing[0]
    problem = f'process {process} of {jax.process_count()} has another than the first'
    raise UserError(f'{list(values)[number]}: {problem}; allowed: the same in all processes')


def _write_token(folder: Path) -> str:
  """Makes an empty file in the folder, of a name that nobody has asked for; returns the name."""
  name = f'.seen_by_all_{uuid.uuid4().hex}'
  (folder / name).touch()
  return name


@contextlib.contextmanager
def primary_context(context: contextlib.AbstractContextManager) -> Iterator[None]:
  """Enters `context` in the primary process; all processes raise its error at the start."""
  with contextlib.ExitStack() as stack:
    run_on_primary(stack.enter_context, context)
    yield


class SignalConsensus:
  """Tells all processes, at the same step, which signal any of them has got.

  It does not wait for the devices: they reduce the numbers after the step that was dispatched last,
  and the result is read one step later.
  """

  def __init__(self, mesh: Mesh):
    self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    self._max = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    self._num_devices = mesh.size
    self._pending = None

  def __call__(self, signal: int | None) -> int | None:
    """The largest signal that any process passed one call ago; `signal` in a run of one process."""
    if not is_multiprocess():
      return signal
    local = np.full(1, signal or 0, np.int32)
    signals = jax.make_array_from_callback((self._num_devices,), self._sharding, lambda _: local)
    previous, self._pending = self._pending, self._max(signals)
    return None if previous is None else int(previous) or None
