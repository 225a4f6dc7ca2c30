"""The devices that jax runs on, announced, and its cache of compiled functions."""

import collections
import glob
import os
import re
import shutil
import sys
from pathlib import Path

NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')
CUDA13_DRIVER = 580  # the first major version of the NVIDIA driver that runs CUDA 13


def announce_devices() -> None:
  """Prints what jax runs on; warns on stderr where it leaves a visible GPU unused."""
  import jax

  devices = jax.devices()
  kinds = collections.Counter(device.device_kind for device in devices)
  print(
    f'jax {jax.__version__} on {", ".join(f"{number} x {kind}" for kind, number in kinds.items())}'
  )
  extra = gpu_extra()
  if devices[0].platform == 'cpu' and extra and 'JAX_PLATFORMS' not in os.environ:
    print(
      f"warning: this machine has an NVIDIA GPU, but jax runs on the CPU: pip install -e '.[{extra}]' to use it",
      file=sys.stderr,
    )


def gpu_extra() -> str | None:
  """The extra of this project that this machine's NVIDIA GPU needs; None where there is none or it
  is hidden.
  """
  if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
    return None
  in_wsl = Path('/dev/dxg').exists() and shutil.which('nvidia-smi')
  if not (glob.glob('/dev/nvidia[0-9]*') or in_wsl):
    return None
  driver = (
    re.search(r'\s(\d{3,})\.\d', NVIDIA_DRIVER.read_text()) if NVIDIA_DRIVER.exists() else None
  )
  return 'cuda13' if driver and int(driver[1]) >= CUDA13_DRIVER else 'cuda12'


def keep_compiled(folder: Path) -> None:
  """Lets jax keep compiled functions in `folder`, unless JAX_COMPILATION_CACHE_DIR names
  another.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
