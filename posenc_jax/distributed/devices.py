"""Announces the devices that jax runs on, and sets how jax starts: threads, compiled functions."""

import builtins
import collections
import glob
import importlib.metadata
import importlib.util
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from posenc_jax.errors import UserError

NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')
CUDA13_DRIVER = 580  # the first major version of the NVIDIA driver that runs CUDA 13
# What products of float32 become at the precision 'default', by platform.
DIGITS_OF_FLOAT32 = {'gpu': 'TensorFloat-32', 'tpu': 'bfloat16'}
# From so many symbols on, the products that logits are take much of a training step.
MANY_SYMBOLS = 2**13
# With these, and TPU_VISIBLE_DEVICES, a process has one chip of its host's TPU, and meets no other
# host of a slice.
ONE_CHIP = {'TPU_PROCESS_BOUNDS': '1,1,1', 'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1'}

# What decides how much of a GPU's memory jax takes: the variable, its earlier name, with which jax
# finds no GPU if both are set, and whether it takes that at once.
MEMORY_FRACTIONS = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')
PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'


def announce_devices(mesh: Mapping[str, int] | None = None) -> None:
  """Prints the devices that jax has, and how many of them are used if not all are; warns on stderr
  where jax leaves a visible GPU unused.

  `mesh`: {axis: size}, the section of a config; None for what uses all devices.
  """
  import jax

  devices = jax.devices()
  print(f'jax {jax.__version__} on {kinds_of_devices()}{_used(len(devices), mesh)}')
  extra = gpu_extra()
  if devices[0].platform == 'cpu' and extra and 'JAX_PLATFORMS' not in os.environ:
    print(
      'warning: this machine has an NVIDIA GPU, but jax runs on the CPU: '
      f"pip install -e '.[{extra}]' to use it",
      file=sys.stderr,
    )


def announce_precision(compute_dtype: str, matmul_precision: str) -> None:
  """Prints which digits matrix products of a training have, where a config says float32 and the
  devices that jax has make less of it; and that a GPU has no units for bfloat16.
  """
  import jax

  digits = DIGITS_OF_FLOAT32.get(jax.default_backend())
  capability = str(getattr(jax.devices()[0], 'compute_capability', ''))
  if capability.startswith('gfx'):  # GPUs of AMD
    return
  if capability and float(capability) < 8:  # NVIDIA's before Ampere: no TensorFloat-32 either
    if compute_dtype == 'bfloat16':
      has_none = f'this GPU, of compute capability {capability}, has no units for bfloat16'
      print(f'{has_none}; --config.train.compute_dtype=float32 has more digits and may be as fast')
    return
  if digits and (compute_dtype, matmul_precision) == ('float32', 'default'):
    remedy = '--config.train.matmul_precision=highest has all, and takes longer'
    print(f'matrix products of float32 have the digits of {digits} here; {remedy}')


def announce_symbols(symbols: int) -> None:
  """Prints how many rows the embedding of a new model had better have where jax runs on GPUs, whose
  matrix units want multiples of 8, and there are many and not so many.
  """
  import jax

  if jax.default_backend() == 'gpu' and symbols >= MANY_SYMBOLS and symbols % 8:
    remedy = f'--config.model.vocab={-(-symbols // 128) * 128} is one, for a new workdir'
    print(f'{symbols:,} symbols are no multiple of 8, at which GPUs are faster; {remedy}')


def on_one_chip(number: int | str) -> str:
  """The variables that give a process this chip of its host's TPU alone, as a shell takes them."""
  settings = ONE_CHIP | {'TPU_VISIBLE_DEVICES': number}
  return ' '.join(f'{name}={value}' for name, value in settings.items())


def start_two_threads() -> None:
  """Lets jax start two threads where the process has a single CPU, unless the user said how many.

  To be called before jax is asked for devices. With one thread XLA:CPU holds more memory the longer
  a loop is: SmolLM2 took 3.1 GB for 16,384 tokens, and with a second thread 1.4 (LOG/161).
  """
  cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  if cpus == 1 and not {'PJRT_NPROC', 'NPROC'} & os.environ.keys():
    os.environ['PJRT_NPROC'] = '2'


def kinds_of_devices() -> str:
  """The devices that jax has, such as '8 x NVIDIA H100'."""
  import jax

  counts = collections.Counter(device.device_kind for device in jax.devices())
  return ', '.join(f'{count} x {kind}' for kind, count in counts.items())


def _used(count: int, mesh: Mapping[str, int] | None) -> str:
  if mesh is None or (used := math.prod(mesh.values())) >= count:
    return ''  # of more than there are, an error is told later
  others = used // mesh['data']
  remedy = f'; --config.mesh.data={count // others} uses all' if count % others == 0 else ''
  return f'; uses {used} of {count} devices{remedy}'


def has_tpu() -> bool:
  """Whether jax has what it needs for a TPU, and one is on the PCI bus, as jax looks for one: a
  network card may be Google's, too.

  jax is not imported for it, but for the one module that knows their numbers. Raises UserError
  where jax has that no more.
  """
  if importlib.util.find_spec('libtpu') is None:
    return False
  (folder,) = importlib.util.find_spec('jax').submodule_search_locations
  path = Path(folder, '_src', 'hardware_utils.py')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  hardware_utils = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(hardware_utils)
    count_chips = hardware_utils.num_available_tpu_chips_and_device_id
  except (FileNotFoundError, AttributeError):
    version = importlib.metadata.version('jax')
    problem = f'jax {version} looks for TPUs in a way that is not known here'
    raise UserError(f'{problem}; allowed: an earlier jax') from None
  return count_chips()[0] > 0


def gpu_extra() -> str | None:
  """The extra of this project that the machine's NVIDIA GPU needs: 'cuda12' or 'cuda13'.

  None where there is no GPU, or CUDA_VISIBLE_DEVICES hides it.
  """
  if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
    return None
  in_wsl = Path('/dev/dxg').exists() and shutil.which('nvidia-smi')
  if not (glob.glob('/dev/nvidia[0-9]*') or in_wsl):
    return None
  text = NVIDIA_DRIVER.read_text(encoding='utf-8') if NVIDIA_DRIVER.exists() else ''
  driver = re.search(r'\s(\d{3,})\.\d', text)
  return 'cuda13' if driver and int(driver[1]) >= CUDA13_DRIVER else 'cuda12'


def enable_compilation_cache(folder: Path) -> None:
  """Lets jax keep compiled functions in `folder`, unless JAX_COMPILATION_CACHE_DIR names one.

  What is damaged there is compiled and kept anew; one line on stderr says so.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
  warnings.showwarning = CacheWarnings(
    Path(jax.config.jax_compilation_cache_dir), warnings.showwarning
  )


class CacheWarnings:
  """A `warnings.showwarning` that mends jax's cache of compiled functions.

  jax goes on without what it cannot read, warns, and never writes it again, so that it would warn
  at every start. Here it is removed, and jax, which then compiles it, writes it.
  """

  FAILURE = re.compile(
    r"Error (?P<act>reading|writing) persistent compilation cache entry for '(?P<module>[^']*)'"
    r': (?P<error>\w+): (?P<why>.*)',
    re.DOTALL,
  )

  def __init__(self, folder: Path, show: Callable[..., None]):
    """`show` is what shows all other warnings."""
    self._folder, self._show, self._said = folder, show, set()

  def __call__(self, message, category, *place, **options):
    failure = self.FAILURE.match(str(message))
    if failure is None:
      self._show(message, category, *place, **options)
      return
    kind = getattr(builtins, failure['error'], None)
    is_unreadable = isinstance(kind, type) and issubclass(kind, OSError)
    if is_unreadable or failure['act'] == 'writing':
      self._say(f'compiled programs cannot be kept ({" ".join(failure["why"].split())[:120]})')
      return
    for entry in self._folder.glob(f'{glob.escape(failure["module"])}-*-cache'):
      entry.unlink(missing_ok=True)  # if another process is writing it now, this one's is as good
    self._say('a compiled program is not whole there: it is compiled and kept anew')

  def _say(self, line: str) -> None:
    if line not in self._said:
      self._said.add(line)
      print(f'{self._folder}: {line}', file=sys.stderr)
