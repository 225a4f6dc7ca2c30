"""What is kept on disk to go on from: a run's checkpoints, and compiled functions."""

import contextlib
import functools
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from posenc_jax.config import saved_config
from posenc_jax.distributed import processes
from posenc_jax.errors import Stopped, UserError


def finished_parameters(workdir: str | Path, model):
  """`model` with the parameters that the run in `workdir` has at its end; its config may be
  another.

  Raises `UserError` where no training has ended there, or its parameters have other shapes.
  """
  where, allowed = (
    f'config.train.init_from={str(workdir)!r}',
    'allowed: the directory of a run that train.py finished',
  )
  if not (Path(workdir) / 'config.json').exists():
    raise UserError(f'{where}: no config.json there; {allowed}')
  steps = saved_config(workdir).train.steps
  with Checkpoints(workdir) as checkpoints:
    restored, step = checkpoints.restore(model=model)
    if checkpoints.latest is None or step < steps:
      raise UserError(f'{where}: its training is at step {step} of {steps}; {allowed}')
  return restored['model']


def has_checkpoint(workdir: str | Path) -> bool:
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.latest is not None


class Checkpoints:
  """The checkpoints of a run: `workdir/checkpoints/STEP` holds model and optimizer after STEP
  updates.

  Each tree is stored as one plain dict `{'path/of/leaf': array}`, so that checkpoints outlive
  renamed classes. Of several processes the first decides what is read, and each reads all of it;
  each writes what it holds.
  """

  def __init__(self, workdir: str | Path, keep: int | None = None):
    """`keep`: how many of the latest checkpoints stay; None: the folder is only read, nothing there
    is changed.
    """
    self._folder = Path(workdir).resolve() / 'checkpoints'
    self._keep = keep
    self._is_saving, self._is_shared = False, not processes.are_several()
    for name in ('absl', 'asyncio'):
      logging.getLogger(name).addFilter(_not_orbax)
    with self._disk_errors():
      if keep is not None and processes.is_first():
        self._folder.mkdir(parents=True, exist_ok=True)
      self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    """Of this process alone, which waits for no other, or of all, who must open it at once."""
    group = set(range(jax.process_count())) if self._is_shared else {jax.process_index()}
    options = ocp.CheckpointManagerOptions(
      max_to_keep=self._keep,
      create=False,
      cleanup_tmp_directories=self._keep is not None and self._is_shared,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=min(group), active_processes=group
      ),
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ('model', 'opt_state')}
    handlers['checksums'] = ocp.JsonCheckpointHandler()
    return ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint, or None."""
    return processes.first(self._manager.latest_step)

  def save(self, step: int, model, opt_state) -> None:
    """Starts to save in the background; the arrays may be donated at once. `close` waits until it
    is on the disk.

    An earlier checkpoint goes only once this one is whole.

    Raises:
      Stopped: a parameter is not finite. OSError: the disk refuses this one or, seen now, the one
        before.
    """
    if bad := [
      path for path, leaf in _leaves(model).items() if not np.isfinite(processes.whole(leaf)).all()
    ]:
      raise Stopped(
        f'step {step}: {bad[0]} is not finite; training stopped, and checkpoints are from steps before that'
      )
    trees = {'model': _leaves(model), 'opt_state': _leaves(opt_state)}
    saves = {name: ocp.args.StandardSave(leaves) for name, leaves in trees.items()}
    saves['checksums'] = ocp.args.JsonSave(
      {name: _checksum(leaves) for name, leaves in trees.items()}
    )
    with self._disk_errors():
      if not self._is_shared:
        self._manager.close()
        self._is_shared = True
        self._manager = self._open()
      if not self._manager.save(step, args=ocp.args.Composite(**saves)):
        raise RuntimeError(f'{self._folder}: step {step} was not saved')
    self._is_saving = True

  def check(self) -> None:
    """Raises OSError where the disk refused what was saved in the background; waits for nothing."""
    if self._is_saving and not self._manager.is_saving_in_progress():
      self._is_saving = False
      with self._disk_errors():
        self._manager.wait_until_finished()

  def restore(self, **trees) -> tuple[dict, int]:
    """The latest readable checkpoint, as `restore(model=model, opt_state=opt_state)`; either may be
    left out.

    A damaged checkpoint is named, set aside as `STEP.damaged` (unless the folder is only read), and
    the one before it taken.

    Args:
      **trees: give structure, shapes and dtypes.
    Returns:
      ({name: tree as restored}, step); (trees, 0) where there is no checkpoint.
    Raises:
      UserError: all are damaged, or hold parameters of another shape.
    """
    read = {}
    step = processes.first(self._newest, trees, read)
    if step is None:
      return trees, 0
    restored = read[step] if processes.is_first() else self._read(step, trees)
    return processes.place(restored, jax.tree.map(lambda x: x.sharding, trees)), step

  def _newest(self, trees: dict, read: dict) -> int | None:
    """The step of the latest readable checkpoint, which goes into `read`; None: there is no
    checkpoint.
    """
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        metadata = self._manager.item_metadata(step)
        stored = {
          name: {path: tuple(leaf.shape) for path, leaf in metadata[name].tree.items()}
          for name in trees
        }
        # Compared first: Orbax reports a wrong shape and damage with the same words.
        self._compare_shapes(step, stored, trees)
        read[step] = self._read(step, trees)
      except UserError:
        raise
      # Orbax raises Exception itself, and whatever its damaged JSON leads to
      except Exception as error:
        # a training goes on meanwhile, and has a later one
        if not (self._folder / str(step)).exists():
          self.close()
          self._manager = self._open()
          return self._newest(trees, read)
        print(f'{self._folder}: the checkpoint of step {step} is damaged ({type(error).__name__})')
        damaged.append(step)
        continue
      self._set_aside(damaged)
      return step
    if damaged:
      raise UserError(
        f'{self._folder}: every checkpoint is damaged (step {", ".join(map(str, damaged))}); allowed: remove the '
        'folder to train from the start (config.train.max_to_keep=2 would have kept one more)'
      )
    return None

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
    abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), trees)
    wanted = {name: ocp.args.StandardRestore(_leaves(tree)) for name, tree in abstract.items()}
    wanted['checksums'] = ocp.args.JsonRestore()
    stored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
    for name in trees:
      if _checksum(stored[name]) != stored['checksums'][name]:
        raise ValueError(f'{name}: checksum differs')
    return {
      name: jax.tree.unflatten(
        jax.tree.structure(tree), [stored[name][path] for path in _leaves(tree)]
      )
      for name, tree in trees.items()
    }

  def _set_aside(self, steps: list[int]) -> None:
    if steps and self._keep is not None:  # else these steps could not be saved again
      self._manager.close()
      for step in steps:
        os.replace(self._folder / str(step), self._folder / f'{step}.damaged')
      self._manager = self._open()

  def close(self) -> None:
    """Waits until the last save is on the disk. Raises OSError where it is not."""
    with self._disk_errors():
      self._manager.close()

  @contextlib.contextmanager
  def _disk_errors(self) -> Iterator[None]:
    """Raises as OSError what TensorStore, through Orbax, says of the disk in words."""
    try:
      yield
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(self._folder)) from error
    except ValueError as error:
      if not (code := re.search(r"OS error (\d+)|os_error_code='(\d+)'", str(error))):
        raise
      number = int(code[1] or code[2])
      raise OSError(number, os.strerror(number), str(self._folder)) from error

  def __enter__(self):
    self._excepthook, sys.excepthook = sys.excepthook, self._report
    return self

  def _report(self, kind, error, trace) -> None:
    """TensorStore's threads print tracebacks of the event loop that Orbax closed when a write
    failed.
    """
    if str(error) != 'Event loop is closed':
      self._excepthook(kind, error, trace)

  def __exit__(self, kind, *_):
    try:
      of_all = kind is None or issubclass(kind, UserError | Stopped)
      if of_all or not (kind is KeyboardInterrupt or processes.are_several()):
        # Ctrl-C before the first step waits for nothing, nor does who would wait for lost processes
        self.close()
    finally:
      sys.excepthook = self._excepthook


def _not_orbax(record: logging.LogRecord) -> bool:
  # tracebacks, several, of what it raises as well
  return 'orbax' not in record.pathname + record.getMessage()


def _leaves(tree) -> dict[str, object]:
  flat_tree, _ = jax.tree_util.tree_flatten_with_path(tree)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  # '/value': inside an nnx.Param
  return {name(path).removesuffix('/value'): leaf for path, leaf in flat_tree}


def _checksum(leaves: dict) -> int:
  """CRC-32 over all bytes: Orbax notices most damage, but not a flipped byte of an array that does
  not compress.
  """
  crc = 0
  for path in sorted(leaves):
    crc = zlib.crc32(np.ascontiguousarray(processes.whole(leaves[path])), crc)
  return crc
