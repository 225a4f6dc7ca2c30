"""Several processes that train as one: how they find each other, who writes, and what they agree
on.

Each holds some of the devices of one mesh, and all run the same program: they make the same batches
from seed and step, compute the same metrics, and end at the same step. The first alone writes and
prints. Of a process that is alone, all of this asks nothing.
"""

import contextlib
import importlib.util
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

from posenc_jax.errors import Stopped, UserError

# jax itself reads the first
BY_HAND = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
PATIENCE = 300  # seconds until all must have come
FAREWELL = 10  # seconds until an error is taken for this process's alone


@contextlib.contextmanager
def joined(patience: int = PATIENCE) -> Iterator[None]:
  """Makes this process one of several, where it was started so, before jax knows its devices.

  An error that all have alike is told by the first. A process that fails alone says so and leaves
  without waiting for the others. These end as soon as a connection to it breaks, or by jax, which
  misses its heartbeat after 100 s. A save that one of them cannot write ends all after Orbax's 20
  minutes.

  Raises:
    UserError: the variables of BY_HAND are not what they must be.
  """
  if (started := _as_started()) is None:
    yield
    return
  # Collectives of programs that run side by side on a CPU would be mixed up; accelerators have
  # queues.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  # it takes SIGTERM, which logs.StopRequest waits for
  jax.config.update('jax_enable_preemption_service', False)
  _initialize(started, patience)
  if not is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (until the process ends)
  try:
    yield
  except Exception as error:
    _end(error)
    raise


def _as_started() -> dict | None:
  """What `jax.distributed.initialize` is to be told; None: this process is alone."""
  given = {name: os.environ[name] for name in BY_HAND if name in os.environ}
  if 'JAX_NUM_PROCESSES' in given or 'JAX_PROCESS_ID' in given:
    if given.get('JAX_NUM_PROCESSES') == '1':
      return None
    said = ' '.join(f'{name}={given.get(name, "")}' for name in BY_HAND)
    numbers = [given.get(name, '') for name in BY_HAND[1:]]
    if len(given) < 3 or not all(map(str.isdecimal, numbers)) or int(numbers[1]) >= int(numbers[0]):
      raise UserError(
        f'{said}; allowed: HOST:PORT, the number of processes, and 0 to that number - 1; or none of them'
      )
    count, number = map(int, numbers)
    return {'num_processes': count, 'process_id': number, 'cluster_detection_method': 'deactivate'}
  # SLURM_NTASKS may be the job's, of a shell with one task
  if int(os.environ.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
    return {'cluster_detection_method': 'slurm'}
  if importlib.util.find_spec('libtpu') and 'tpu' in (jax.config.jax_platforms or 'tpu'):
    # jax names no public way to ask first
    from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster, GkeTpuCluster

    for cluster in (GkeTpuCluster, GceTpuCluster):
      if cluster.is_env_present():
        return (
          {'cluster_detection_method': cluster.name} if cluster.get_process_count() > 1 else None
        )
  return None


def _initialize(started: dict, patience: int) -> None:
  """Meets the others. When its own time is up, jax aborts with a stack trace: a timer comes before
  it.
  """

  def give_up():
    names = (*BY_HAND, 'SLURM_STEP_NODELIST', 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID')
    said = ' '.join(f'{name}={os.environ[name]}' for name in names if name in os.environ)
    print(
      f'{Path(sys.argv[0]).name}: {said}: after {patience} s, not all processes have met',
      file=sys.stderr,
    )
    os._exit(1)

  timer = threading.Timer(patience, give_up)
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(**started, initialization_timeout=patience + 60)
  finally:
    timer.cancel()


def _end(error: Exception) -> None:
  """Ends the process without a word where the first tells the same error, and at once where the
  others have none.
  """
  code = getattr(error, 'code', 1)
  try:
    multihost.sync_global_processes(
      'all have failed', timeout=FAREWELL, processes=set(range(jax.process_count()))
    )
  except jax.errors.JaxRuntimeError:
    said = error
    try:
      if not isinstance(error, UserError | Stopped | OSError):
        traceback.print_exception(error)
        said = 'failed alone, or lost another; the same command goes on from the last checkpoint'
      print(
        f'process {jax.process_index()} of {jax.process_count()}: {said}',
        file=sys.stderr,
        flush=True,
      )
    finally:
      os._exit(code)  # else it would wait for the others
  if not is_first() and isinstance(error, UserError | Stopped):
    sys.exit(code)


def are_several() -> bool:
  return jax.process_count() > 1


def is_first() -> bool:
  return jax.process_index() == 0


def place(tree, shardings):
  """`jax.device_put` of what every process has whole: each puts what its devices are to hold."""
  if not are_several():
    return jax.device_put(tree, shardings)

  def put(x, sharding):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda piece: x[piece])

  return jax.tree.map(put, tree, jax.tree.broadcast(shardings, tree))


def whole(x) -> np.ndarray:
  """An array, whichever devices hold its pieces. All processes must ask for it at once."""
  if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
    x = multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)


def first(function: Callable, *args):
  """function(*args) in the first process alone; all return what it returned, or raise what it
  raised to the user.
  """
  if not are_several():
    return function(*args)
  answer, error = None, None
  if is_first():
    try:
      answer = function(*args)
    except (UserError, Stopped, OSError) as raised:
      error = raised
  data = np.frombuffer(pickle.dumps((answer, error)), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.array(data.size)))
  padded = data if is_first() else np.zeros(size, np.uint8)
  answer, error = pickle.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
  if error is not None:
    raise error
  return answer


@contextlib.contextmanager
def held_by_first(context: contextlib.AbstractContextManager) -> Iterator[None]:
  """`with context` in the first process, whose errors at its start all raise."""
  with contextlib.ExitStack() as stack:

    def enter():
      stack.enter_context(context)

    first(enter)
    yield


class Agreement:
  """What signal any process has got, said to all at the same step and without waiting for the
  device.

  The numbers are reduced by the devices, after the step that was dispatched last, and read one step
  later.
  """

  def __init__(self, mesh: Mesh):
    self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    self._size, self._before = mesh.size, None

  def __call__(self, signal: int | None) -> int | None:
    """The largest of what all gave at the last call; of a process that is alone, `signal`."""
    if not are_several():
      return signal
    shape, mine = (self._size,), np.full(1, signal or 0, np.int32)
    told = self._largest(jax.make_array_from_callback(shape, self._sharding, lambda _: mine))
    before, self._before = self._before, told
    return None if before is None else int(before) or None
