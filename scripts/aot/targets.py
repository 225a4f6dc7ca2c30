"""The cards that programs are compiled for, though none of them is there."""

import importlib.util
import math
import os
from pathlib import Path
from typing import NamedTuple

from posenc_jax.errors import UserError
from posenc_jax.training import mfu

# Bytes a second from main memory, by jax's `device_kind`, from the makers' data sheets; what they
# say of arithmetic stands in `mfu.PEAKS`.
BANDWIDTHS = {
  'TPU v4': 1228e9,
  'TPU v5 lite': 819e9,
  'TPU v5e': 819e9,
  'TPU v5': 2765e9,
  'TPU v5p': 2765e9,
  'TPU v6 lite': 1640e9,
  'NVIDIA H100 80GB HBM3': 3352e9,
}
GPUS = {'h100': Path(__file__).with_name('h100.txtpb')}
# libtpu asks no machine who it is, says nothing about that, and locks no file.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1',  # of CUDA's libraries, some of which ask the driver
}
ALLOWED = 'tpu:TOPOLOGY, such as tpu:v5e:2x2 or tpu:v6e:2x2, or cuda:h100'


class Peaks(NamedTuple):
  """What a card can reach: FLOP/s of matrix products in a dtype, bytes/s from main memory.

  FLOP/s are infinite where nobody says them, as of float32 in several passes.
  """

  flops: float
  bytes: float

  def __str__(self):
    return f'{self.flops / 1e12:g} TFLOP/s, {self.bytes / 1e9:g} GB/s'.replace('inf', 'unknown')


def set_environment(target: str) -> None:
  """Sets what jax and libtpu read when they start, and checks that the compiler is installed.

  Raises UserError for a target that is not known, and for one whose compiler is missing.
  """
  maker, _, name = target.partition(':')
  if not (maker == 'tpu' and name) and not (maker == 'cuda' and name in GPUS):
    raise UserError(f'--target={target}; allowed: {ALLOWED}')
  if reason := missing(maker):
    raise UserError(f'--target={target}: {reason}')
  os.environ |= ENVIRONMENT


def missing(maker: str) -> str | None:
  """What has to be installed to compile for 'tpu' or 'cuda', or None."""
  modules = {'tpu': ('libtpu',), 'cuda': ('jax_cuda13_plugin', 'jax_cuda12_plugin')}[maker]
  if any(importlib.util.find_spec(module) for module in modules):
    return None
  return f"{modules[0]} is not installed: pip install -e '.[aot-{maker}]'"


def devices(target: str, number: int) -> list:
  """At least so many devices of a target. Raises UserError where its topology has fewer."""
  from jax.errors import JaxRuntimeError
  from jax.experimental import topologies

  maker, _, name = target.partition(':')
  try:
    if maker == 'tpu':
      found = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
    else:
      config = GPUS[name].read_text(encoding='utf-8')
      found = topologies.get_topology_desc(
        platform='cuda', topology_name=name, topology=f'1x1x{number}', target_config=config
      ).devices
  except (JaxRuntimeError, ValueError, NotImplementedError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'--target={target}: {reason}; allowed: {ALLOWED}') from error
  if len(found) < number:
    raise UserError(f'--target={target}: has {len(found)} devices, the mesh needs {number}')
  return found


def peaks(device_kind: str, dtype: str, precision: str) -> Peaks:
  """What a kind of device can reach. Raises UserError for one whose bandwidth is not known here."""
  if device_kind not in BANDWIDTHS:
    known = ', '.join(BANDWIDTHS)
    raise UserError(f'--target: the bandwidth of {device_kind} is not known; allowed: {known}')
  flops = mfu.peak_flops(device_kind, dtype, precision)
  return Peaks(math.inf if flops is None else flops, BANDWIDTHS[device_kind])
