"""Several seeds in one program: `jax.vmap` over a first axis [seeds] of every array."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from posenc_jax.distributed import mesh
from posenc_jax.errors import UserError
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.run_dir import checkpoint_steps


def stack(trees: list, seeds: tuple[int, ...]):
  """Stacks the pytrees of the seeds on a new first axis; without seeds, returns the only one."""
  if not seeds:
    return trees[0]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def vmap_seeds(function: Callable, in_axes=0) -> Callable:
  """`jax.vmap` over seeds, sharded along the mesh's axis of seeds where the mesh splits them."""
  spmd_axis = mesh.SEEDS if mesh.splits_seeds() else None
  axes = dict(axis_name=mesh.SEEDS_AT_ONCE, spmd_axis_name=spmd_axis)
  return jax.vmap(function, in_axes=in_axes, **axes)


def check_no_single_seed_checkpoints(folders: list[Path], latest_step: int) -> None:
  """Raises UserError where a seed has checkpoints of its own before all seeds are trained.

  Those up to `latest_step`, where all seeds are, came of an earlier end of a run that is extended.
  """
  for folder in folders:
    if any(step > latest_step for step in checkpoint_steps(folder)):
      raise UserError(f'{folder} holds checkpoints of a run by itself; allowed: another workdir')


def split_checkpoint(folders: list[Path], step: int, model, opt_state) -> None:
  """Saves in the directory of each seed the checkpoint that a run of that seed alone ends with."""
  for index, folder in enumerate(folders):
    with Checkpoints(folder, max_to_keep=1) as checkpoints:
      if checkpoints.latest != step:
        seed_state = jax.tree.map(lambda leaf, index=index: leaf[index], (model, opt_state))
        checkpoints.save(step, *seed_state)
