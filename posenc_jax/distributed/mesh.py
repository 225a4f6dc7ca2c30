"""The devices of a run as a mesh, and what lies where on it.

Seeds at once are cut along `seeds`, batches along `data` and `fsdp`, sequences along `context`, and
parameters and the optimizer's state along `fsdp`. jax derives the communication. Where no mesh is
set, everything is on one device.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SEEDS = 'seeds'
AXES = (SEEDS, 'data', 'fsdp', 'context')
TOKENS = PartitionSpec(('data', 'fsdp'), 'context')  # of [B, T, ...]
TOKENS_OF_SEEDS = PartitionSpec(SEEDS, *TOKENS)  # of [S, B, T, ...]


def make(sizes) -> Mesh:
  """The mesh of a config's section `mesh`, of the first devices. ValueError, one line, where there
  are too few.
  """
  shape, devices = (sizes.seeds, sizes.data, sizes.fsdp, sizes.context), jax.devices()
  needed = int(np.prod(shape))
  asked = ', '.join(f'mesh.{axis}={size}' for axis, size in zip(AXES, shape, strict=True))
  if needed > len(devices):
    raise ValueError(
      f'{asked}: their product must be at most the number of devices, {len(devices)}'
    )
  if jax.process_count() > 1 and needed < len(devices):  # else a process might have none of them
    raise ValueError(
      f'{asked}: their product must be {len(devices)}, the devices of all {jax.process_count()} processes'
    )
  return jax.make_mesh(
    shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:needed]
  )


def spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
  """Of a parameter: cut along its longest axis that can be, the last of equals; vectors are
  everywhere.
  """
  axis = max(
    (n for n in range(len(shape)) if shape[n] % fsdp == 0),
    key=lambda n: (shape[n], n),
    default=None,
  )
  if len(shape) < 2 or axis is None:
    return PartitionSpec()
  return PartitionSpec(*[None] * axis, 'fsdp')


def shardings(mesh: Mesh, tree, of_seeds: bool = False):
  """Where each array of parameters, or of a state made of such, lies; `of_seeds`: their first axis
  is that of seeds.
  """
  first = int(of_seeds)
  axes = lambda x: (*[SEEDS] * first, *spec(x.shape[first:], mesh.shape['fsdp']))
  return jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec(*axes(x))), tree)


def is_set() -> bool:
  """Whether it is a run's."""
  return jax.sharding.get_abstract_mesh().axis_names == AXES


def cuts_seeds() -> bool:
  """Whether one is set that gives seeds devices of their own."""
  return is_set() and jax.sharding.get_abstract_mesh().shape[SEEDS] > 1


def tokens(x_BTn):
  """An array of tokens or activations, to be cut as batches and sequences are. Itself where no mesh
  is set.
  """
  return jax.lax.with_sharding_constraint(x_BTn, TOKENS) if is_set() else x_BTn


def parameters(tree):
  """Parameters, or a state made of such, to be cut as `shardings` says. Itself where no mesh is
  set.
  """
  if not is_set():
    return tree
  fsdp = jax.sharding.get_abstract_mesh().shape['fsdp']
  return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec(x.shape, fsdp)), tree)


def everywhere(tree):
  """Arrays that every process is to read, whole on each device. Itself where no mesh is set."""
  return (
    jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)
    if is_set()
    else tree
  )
