"""The device mesh of a run, and how its arrays are sharded over it.

Seeds that are trained in one program are sharded along the axis `seeds`, batches along `data` and
`fsdp`, sequences along `context`, parameters and the optimizer's state along `fsdp` and `context`.
jax derives the communication. Where no such mesh is set, functions that shard return their argument
unchanged.
"""

import functools
import math
from collections.abc import Mapping
from types import SimpleNamespace

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from posenc_jax.target import SEQUENCE_AXIS

SEEDS = 'seeds'
SEEDS_AT_ONCE = 'seeds_at_once'  # the axis of jax.vmap that seeds in one program have
AXES = (SEEDS, 'data', 'fsdp', SEQUENCE_AXIS)
TOKENS = PartitionSpec(('data', 'fsdp'), SEQUENCE_AXIS)  # of [B, T, ...]
SEED_TOKENS = PartitionSpec(SEEDS, *TOKENS)  # of [seeds, B, T, ...]
OF_PARAMETERS = ('fsdp', SEQUENCE_AXIS)  # the axes over which parameters are cut


def make_mesh(sizes, devices=None) -> Mesh:
  """Makes the mesh that the section `mesh` of a config asks for, of the first devices.

  `devices`: those to choose from, such as of a machine that is not there; None: what jax runs on.
  Raises ValueError, in one line, where there are too few devices, where one of several processes
  could be left without any, or where no axis can cross the slices of a TPU.
  """
  shape = sizes.seeds, sizes.data, sizes.fsdp, sizes.context  # in the order of AXES
  devices = jax.devices() if devices is None else devices
  needed = math.prod(shape)
  if needed > len(devices):
    at_most = f'at most the number of devices, {len(devices)}'
    raise ValueError(f'{_asked(shape)}: their product must be {at_most}')
  if jax.process_count() > 1 and needed < len(devices):
    everyone = f'the devices of all {jax.process_count()} processes'
    raise ValueError(f'{_asked(shape)}: their product must be {len(devices)}, {everyone}')
  return Mesh(_arranged(shape, devices[:needed]), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _asked(shape: tuple[int, ...]) -> str:
  return ', '.join(f'mesh.{axis}={size}' for axis, size in zip(AXES, shape, strict=True))


def _arranged(shape: tuple[int, ...], devices) -> np.ndarray:
  """The devices as an array of this shape, in which neighbors are near one another in the network.

  jax.make_mesh would refuse devices of several slices, and each host of GPUs is a slice of its own.
  GPUs stand in the order of their ids, host by host, so that the first axes cross hosts.
  """
  arrange = functools.partial(mesh_utils.create_device_mesh, shape)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if devices[0].platform == 'tpu' and slices > 1:
    # between slices the network is slow: an axis crosses it that exchanges little
    crossing = next((axis for axis in AXES[:3] if shape[AXES.index(axis)] % slices == 0), None)
    if crossing is None:
      allowed = f'mesh.seeds, mesh.data or mesh.fsdp a multiple of {slices}'
      raise ValueError(f'{_asked(shape)}: a TPU of {slices} slices; allowed: {allowed}')
    across = [slices if axis == crossing else 1 for axis in AXES]
    within = [size // number for size, number in zip(shape, across, strict=True)]
    arrange = functools.partial(mesh_utils.create_hybrid_device_mesh, within, across)
  try:
    return arrange(devices)
  except NotImplementedError:  # an axis is a part of one of the network's
    return arrange(devices, allow_split_physical_axes=True)


def mesh_of_evaluation(parameters) -> Mesh:
  """Makes a mesh of this process' devices, which share out batches, and parameters only where these
  take more than half of the memory of one: then it has the number of devices with which each holds
  least of the model, of those that cut half of it. A line says if these are not all, or if there
  are none. It leaves out devices of another kind than the first, such as a small card for the
  screen.

  `parameters`: a tree of what has their shapes and dtypes.
  """
  first, *others = jax.local_devices()
  devices = [first, *(d for d in others if d.device_kind == first.device_kind)]
  memory = (first.memory_stats() or {}).get('bytes_limit', math.inf)  # of a CPU nobody says
  number, axis = len(devices), 'data'
  if number > 1 and sum(x.nbytes for x in jax.tree.leaves(parameters)) > memory / 2:
    problem = 'the model takes more than half of a device'
    cutting = [n for n in range(number, 1, -1) if _is_cut(parameters, _sizes(fsdp=n))]
    if not cutting:
      print(f'{problem}, and {number} divide no width of it; each holds all of it')
    else:
      best = min(cutting, key=lambda n: _held_bytes(parameters, _sizes(fsdp=n)))
      if best < number:
        print(f'{problem}; {best} of {number} share it and work, since each holds least of it so')
      number, axis = best, 'fsdp'
  return make_mesh(SimpleNamespace(**_sizes(**{axis: number})), devices)


def _held_bytes(parameters, sizes: Mapping[str, int]) -> int:
  """Bytes of parameters that each device of `fsdp` holds, where no other axis cuts them."""
  pieces = lambda x: sizes['fsdp'] if parameter_spec(x.shape, sizes) != PartitionSpec() else 1
  return sum(x.nbytes // pieces(x) for x in jax.tree.leaves(parameters))


def _sizes(**given: int) -> dict[str, int]:
  """{axis: size} of a mesh, 1 where none is given."""
  return dict.fromkeys(AXES, 1) | given


def devices_of_batch() -> int:
  """How many devices share the batch of the arrays that a call is given, which within jax.shard_map
  are one device's already. Seeds that are trained together are not counted.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(mesh.shape[name] for name in batch_axes() if name not in mesh.manual_axes)


def seeds_of_device() -> int:
  """How many seeds a device computes at once with each array that a call is given, whose shape does
  not say so within jax.vmap; 1 where seeds are not trained in one program.
  """
  try:
    seeds = jax.lax.axis_size(SEEDS_AT_ONCE)
  except NameError:  # no such axis
    return 1
  return seeds // jax.sharding.get_abstract_mesh().shape.get(SEEDS, 1)


def batch_axes() -> tuple[str, ...]:
  """The axes of the mesh that is set over which batches are shared."""
  shape = jax.sharding.get_abstract_mesh().shape
  return tuple(name for name in TOKENS[0] if shape.get(name, 1) > 1)


def cuts_parameters(mesh: Mesh) -> bool:
  """Whether several devices of a mesh share parameters."""
  return any(mesh.shape[axis] > 1 for axis in OF_PARAMETERS)


def parameter_spec(shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
  """The sharding of a parameter on a mesh of these {axis: size}: along its longest axis that all
  devices of `fsdp` and `context` together divide; where there is none, that those of `fsdp` divide.

  Of equally long axes the last one is taken. Vectors, and parameters without such an axis, are
  replicated.
  """
  for axes in (OF_PARAMETERS, ('fsdp',)):
    number = math.prod(sizes[name] for name in axes)
    divisible = [axis for axis, size in enumerate(shape) if size % number == 0]
    if len(shape) > 1 and divisible:
      longest = max(divisible, key=lambda axis: (shape[axis], axis))
      return PartitionSpec(*[None] * longest, axes)
  return PartitionSpec()


def check_cut(parameters, sizes: Mapping[str, int]) -> None:
  """Raises ValueError, in one line, where more than half of a model's parameters have no axis that
  the devices of `fsdp` divide: each would hold them whole, and the optimizer's state of them.
  """
  if not _is_cut(parameters, sizes):
    whole, total = _whole_and_all(parameters, sizes)
    problem = f'mesh.fsdp={sizes["fsdp"]}: divides no axis of {whole:,} of {total:,} parameters'
    allowed = 'a divisor of model.model_dim and of other widths'
    raise ValueError(f'{problem}, which every device would hold whole; allowed: {allowed}')


def _is_cut(parameters, sizes: Mapping[str, int]) -> bool:
  whole, total = _whole_and_all(parameters, sizes)
  return 2 * whole <= total


def _whole_and_all(parameters, sizes: Mapping[str, int]) -> tuple[int, int]:
  """How many numbers of a model are in parameters that the devices of `fsdp` do not cut, and how
  many it has.
  """
  leaves = jax.tree.leaves(parameters)
  whole = sum(x.size for x in leaves if parameter_spec(x.shape, sizes) == PartitionSpec())
  return whole, sum(x.size for x in leaves)


def parameter_shardings(mesh: Mesh, tree, has_seed_axis: bool = False):
  """The sharding of each array in a tree of parameters, or in the optimizer's state of one.

  `has_seed_axis`: the first axis of each array is that of seeds.
  """
  first_axes = (SEEDS,) if has_seed_axis else ()

  def sharding(x):
    spec = parameter_spec(x.shape[len(first_axes) :], mesh.shape)
    return NamedSharding(mesh, PartitionSpec(*first_axes, *spec))

  return jax.tree.map(sharding, tree)


def is_run_mesh() -> bool:
  """Whether the active mesh has the axes of a run."""
  return jax.sharding.get_abstract_mesh().axis_names == AXES


def splits_seeds() -> bool:
  """Whether the active mesh gives seeds devices of their own."""
  return is_run_mesh() and jax.sharding.get_abstract_mesh().shape[SEEDS] > 1


def shard_tokens(tree):
  """Shards tokens or activations [B, T, ...] as batches and sequences are."""
  return _constrain(tree, lambda x, sizes: [TOKENS])


def shard_parameters(tree):
  """Shards parameters, or the optimizer's state of them, as `parameter_shardings` does."""
  return _constrain(tree, lambda x, sizes: [parameter_spec(x.shape, sizes)])


def share_out_stacks(tree):
  """Shards parameters that are stacks [N, ...] along N, as far as `fsdp` and `data` divide it."""
  return _constrain(tree, _stack_specs)


def gather_stacks(tree):
  """Shards what `share_out_stacks` made as parameters are."""
  return _constrain(tree, lambda x, sizes: _stack_specs(x, sizes)[::-1])


def _stack_specs(x, sizes: Mapping[str, int]) -> list[PartitionSpec]:
  """From the sharding of a parameter that is a stack to one along its first axis. XLA knows a short
  way only from each to the next.
  """
  spec = parameter_spec(x.shape, sizes)
  specs = [spec, PartitionSpec(*(axes and 'fsdp' for axes in spec))]
  for axes in (('fsdp',), ('fsdp', 'data')):
    if len(x) % math.prod(sizes[axis] for axis in axes) == 0:
      specs.append(PartitionSpec(axes))
  return specs


def replicate(tree):
  """Puts whole arrays on every device, so that every process can read them."""
  return _constrain(tree, lambda x, sizes: [PartitionSpec()])


def whole_for_sequences(x):
  """Puts a whole table of symbols, which is a parameter, on every device where sequences are cut:
  for one that is cut as well XLA would gather sequences.
  """
  if not is_run_mesh() or jax.sharding.get_abstract_mesh().shape[SEQUENCE_AXIS] == 1:
    return x
  return replicate(x)


def _constrain(tree, specs_of):
  """`specs_of`: (array, {axis: size}) -> the shardings that it has, one after another."""
  if not is_run_mesh():
    return tree
  sizes = jax.sharding.get_abstract_mesh().shape
  constrain = jax.lax.with_sharding_constraint
  return jax.tree.map(lambda x: functools.reduce(constrain, specs_of(x, sizes), x), tree)
