"""What a program is traced for: the platform that runs it, and how many devices share a sequence.

The mesh that is set says both, so that a program can be compiled for devices which this machine
does not have. Where none is set, it is what jax runs on here. Nothing else in the package asks for
the devices of this machine while it is traced.
"""

import jax

SEQUENCE_AXIS = 'context'  # the axis of a mesh along which sequences are cut
SHARED_MEMORY = 227 * 2**10  # bytes that a program may have of a GPU that is not there: an H100's


def platform() -> str:
  """'cpu', 'gpu' or 'tpu', as jax.default_backend() names it."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def device_kind() -> str:
  """Which device of the platform, as jax names it: 'TPU v4', say."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.devices()[0].device_kind if device is None else device.device_kind


def shared_memory() -> int:
  """Bytes of the memory of a GPU's core that a program of a kernel may have there."""
  here = jax.local_devices()[0]
  # the device of a mesh says no more than its kind
  is_here = here.device_kind == device_kind()
  return getattr(here if is_here else None, 'shared_memory_per_block_optin', SHARED_MEMORY)


def compute_capability() -> str:
  """The compute capability of the GPU, such as '9.0'; an AMD's begins with 'gfx'. '' of one that is
  not there, and of what is no GPU.
  """
  here = jax.devices()[0]
  return getattr(here, 'compute_capability', '') if here.device_kind == device_kind() else ''


def sequence_shards() -> int:
  """How many devices a sequence is cut over; 1 where no mesh that is set has such an axis."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.shape[SEQUENCE_AXIS] if SEQUENCE_AXIS in mesh.axis_names else 1
