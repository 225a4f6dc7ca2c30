"""What a program is traced for: the platform that runs it, and how many devices share a sequence.

The mesh that is set says both, so that a program can be compiled for devices which this machine
does not have. Where none is set, it is what jax runs on here. Nothing else in the package asks for
the devices of this machine while it is traced, but `cudnn` for the widest head that jax gives it.
"""

import jax

SEQUENCE_AXIS = 'context'  # the axis of a mesh along which sequences are cut


def platform() -> str:
  """'cpu', 'gpu' or 'tpu', as jax.default_backend() names it."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def device_kind() -> str:
  """Which device of the platform, as jax names it: 'TPU v4', say."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.devices()[0].device_kind if device is None else device.device_kind


def sequence_shards() -> int:
  """How many devices a sequence is cut over; 1 where no mesh that is set has such an axis."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.shape[SEQUENCE_AXIS] if SEQUENCE_AXIS in mesh.axis_names else 1
