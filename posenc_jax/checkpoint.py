"""What is kept on disk to go on from: a run's config and checkpoints, and compiled functions."""

import functools
import json
import os
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from posenc_jax.config import UserError, differing_keys, flat, saved_config, to_json, training_part


def claim(workdir: str | Path, config: ConfigDict) -> None:
  """Makes the directory this config's: writes `config.json`, or compares what decides training with the one there.

  Raises `UserError` naming the fields that differ. `eval`, `label` and `mesh` may: the file keeps what it was made
  with.
  """
  workdir = Path(workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'workdir={str(workdir)!r}: {error.strerror}; allowed: a folder, or where one can be made'
    ) from None
  if (workdir / 'config.json').exists():
    here, there = training_part(config), training_part(saved_config(workdir))
    mine, theirs = flat(here), flat(there)
    if keys := differing_keys(here, there):
      parts = ', '.join(f'{key} (there {theirs.get(key)!r}, here {mine.get(key)!r})' for key in keys)
      raise UserError(f'workdir={str(workdir)!r} holds a run of another config: {parts}; allowed: another workdir')
    return
  if left := [name for name in ('checkpoints', 'metrics.jsonl') if (workdir / name).exists()]:
    raise UserError(f'workdir={str(workdir)!r} holds {left[0]} but no config.json; allowed: another workdir')
  write_json(workdir / 'config.json', to_json(config))


def write_json(path: Path, tree: dict) -> None:
  """Writes the whole file or, if killed meanwhile, nothing."""
  new = path.with_name(path.name + '.new')
  new.write_text(json.dumps(tree, indent=2) + '\n')
  os.replace(new, path)


def finished_parameters(workdir: str | Path, model):
  """`model` with the parameters that the run in `workdir` has at its end; its config may be another.

  Raises `UserError` where no training has ended there, or its parameters have other shapes.
  """
  where, allowed = f'config.train.start_from={str(workdir)!r}', 'allowed: the directory of a run that train.py finished'
  if not (Path(workdir) / 'config.json').exists():
    raise UserError(f'{where}: no config.json there; {allowed}')
  steps = saved_config(workdir).train.steps
  with Checkpoints(workdir) as checkpoints:
    restored, step = checkpoints.restore(model=model)
    if checkpoints.latest is None or step < steps:
      raise UserError(f'{where}: its training is at step {step} of {steps}; {allowed}')
  return restored['model']


class Checkpoints:
  """The checkpoints of a run: `workdir/checkpoints/STEP` holds model and optimiser after STEP updates.

  Each tree is stored as one plain dict `{'path/of/leaf': array}`, so that checkpoints outlive renamed classes.
  """

  def __init__(self, workdir: str | Path, keep: int | None = None):
    """`keep`: how many of the latest checkpoints stay; None: the folder is only read, nothing there is changed."""
    self._folder = Path(workdir).resolve() / 'checkpoints'
    self._keep = keep
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    writes = self._keep is not None
    options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=writes, cleanup_tmp_directories=writes)
    handlers = {name: ocp.StandardCheckpointHandler() for name in ('model', 'opt_state')}
    handlers['checksums'] = ocp.JsonCheckpointHandler()
    return ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step: int, model, opt_state) -> None:
    """Starts to save in the background; the arrays may be donated at once. `close` waits until it is on the disk."""
    trees = {'model': _leaves(model), 'opt_state': _leaves(opt_state)}
    saves = {name: ocp.args.StandardSave(leaves) for name, leaves in trees.items()}
    saves['checksums'] = ocp.args.JsonSave({name: _checksum(leaves) for name, leaves in trees.items()})
    if not self._manager.save(step, args=ocp.args.Composite(**saves)):
      raise RuntimeError(f'{self._folder}: step {step} was not saved')

  def restore(self, **trees) -> tuple[dict, int]:
    """The latest readable checkpoint, as `restore(model=model, opt_state=opt_state)`; either may be left out.

    A damaged checkpoint is named, set aside as `STEP.damaged` (unless the folder is only read), and the one before it
    taken.

    Args:
      **trees: give structure, shapes and dtypes.
    Returns:
      ({name: tree as restored}, step); (trees, 0) where there is no checkpoint.
    Raises:
      UserError: all are damaged, or hold parameters of another shape.
    """
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        metadata = self._manager.item_metadata(step)
        stored = {name: {path: tuple(leaf.shape) for path, leaf in metadata[name].tree.items()} for name in trees}
        # Compared first: Orbax reports a wrong shape and damage with the same words.
        self._compare_shapes(step, stored, trees)
        restored = self._read(step, trees)
      except UserError:
        raise
      except Exception as error:  # Orbax raises Exception itself, and whatever its damaged JSON leads to
        print(f'{self._folder}: the checkpoint of step {step} is damaged ({type(error).__name__})')
        damaged.append(step)
        continue
      self._set_aside(damaged)
      return restored, step
    if damaged:
      raise UserError(
        f'{self._folder}: every checkpoint is damaged (step {", ".join(map(str, damaged))}); allowed: remove the '
        'folder to train from the start (config.train.keep=2 would have kept one more)'
      )
    return trees, 0

  def _compare_shapes(self, step: int, stored: dict, trees: dict) -> None:
    for name, tree in trees.items():
      wanted = {path: leaf.shape for path, leaf in _leaves(tree).items()}
      for path in sorted(wanted.keys() | stored[name].keys()):
        there, here = stored[name].get(path), wanted.get(path)
        if there != here:
          raise UserError(
            f'{self._folder}: step {step} holds {name} {path} of shape {there}, but the config asks for {here}; '
            'allowed: the config that the checkpoint was made with'
          )

  def _read(self, step: int, trees: dict) -> dict:
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trees)
    wanted = {name: ocp.args.StandardRestore(_leaves(tree)) for name, tree in abstract.items()}
    wanted['checksums'] = ocp.args.JsonRestore()
    stored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
    for name in trees:
      if _checksum(stored[name]) != stored['checksums'][name]:
        raise ValueError(f'{name}: checksum differs')
    return {
      name: jax.tree.unflatten(jax.tree.structure(tree), [stored[name][path] for path in _leaves(tree)])
      for name, tree in trees.items()
    }

  def _set_aside(self, steps: list[int]) -> None:
    if steps and self._keep is not None:  # else these steps could not be saved again
      self._manager.close()
      for step in steps:
        os.replace(self._folder / str(step), self._folder / f'{step}.damaged')
      self._manager = self._open()

  def close(self) -> None:
    """Waits until the last save is on the disk."""
    self._manager.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def _leaves(tree) -> dict[str, object]:
  flat_tree, _ = jax.tree_util.tree_flatten_with_path(tree)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return {name(path).removesuffix('/value'): leaf for path, leaf in flat_tree}  # '/value': inside an nnx.Param


def _checksum(leaves: dict) -> int:
  """CRC-32 over all bytes: Orbax notices most damage, but not a flipped byte of an array that does not compress."""
  crc = 0
  for path in sorted(leaves):
    crc = zlib.crc32(np.ascontiguousarray(leaves[path]), crc)
  return crc


def keep_compiled(folder: Path) -> None:
  """Lets jax keep compiled functions in `folder`, unless JAX_COMPILATION_CACHE_DIR names another."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
