"""Several seeds in one program: the functions of one by `jax.vmap`, arrays with a first axis
[S].
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from posenc_jax.distributed import mesh
from posenc_jax.errors import UserError
from posenc_jax.training.checkpoints import Checkpoints


def stack(trees: list, seeds: tuple[int, ...]):
  """The trees of all seeds as one; of a run of one seed (`seeds` is empty), its own."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if seeds else trees[0]


def over(function, in_axes=0):
  """The function of one seed as one of all, its arrays cut along the axis of seeds of the mesh that
  is set.
  """
  return jax.vmap(
    function, in_axes=in_axes, spmd_axis_name=mesh.SEEDS if mesh.cuts_seeds() else None
  )


def refuse_alone(folders: list[Path], start: int, steps: int) -> None:
  """Raises UserError where a seed has been trained by itself: all of them are at `start` of `steps`
  steps.
  """
  for folder in folders:
    if start < steps and any((folder / 'checkpoints').glob('[0-9]*')):
      raise UserError(
        f'{folder} holds checkpoints of a run by itself; allowed: config.vmap_seeds=False'
      )


def hand_out(folders: list[Path], step: int, model, opt_state) -> None:
  """Gives each seed the checkpoint that a run by itself ends with."""
  for n, folder in enumerate(folders):
    with Checkpoints(folder, keep=1) as own:
      if own.latest != step:
        own.save(step, *jax.tree.map(lambda leaf, n=n: leaf[n], (model, opt_state)))
