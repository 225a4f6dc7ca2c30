"""The checkpoints of a run: saving in the background, restoring the last one that is whole."""

import errno
import functools
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from posenc_jax import storage
from posenc_jax.distributed import processes
from posenc_jax.errors import Stopped, UserError, not_finite, user_errors
from posenc_jax.training.orbax_workarounds import disk_errors_as_oserror

# What an OSError says where files of a checkpoint are missing or are others; None: Orbax raises it.
OF_DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
WHICH_ARE_KEPT = (
  '(config.train.max_to_keep and keep_every say which a run keeps; after config.vmap_seeds a seed '
  'has its last one)'
)


def latest_step(workdir: str | Path) -> int | None:
  """Step of the latest checkpoint of a run, or None. Call it in all processes."""
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.latest


class Checkpoints:
  """The checkpoints in `workdir/checkpoints/STEP`: model and optimizer state after STEP updates.

  Each tree is stored as one plain dict `{'path/of/leaf': array}`, so that checkpoints outlive
  renamed classes. In a run of several processes, the primary one decides which checkpoint is read,
  each process reads all of it, and each writes the shards that it holds.
  """

  def __init__(self, workdir: str | Path, max_to_keep: int | None = None, keep_every: int = 0):
    """Opens the checkpoints.

    Args:
      max_to_keep: how many of the latest checkpoints stay; None opens the folder for reading.
      keep_every: those of steps that are multiples of it stay, too; 0: of none.
    Raises:
      UserError: Orbax cannot write the name of the folder, which is not UTF-8. OSError: the folder
        cannot be read or made.
    """
    self._folder = Path(workdir).resolve() / 'checkpoints'
    with user_errors(UnicodeEncodeError):
      str(self._folder).encode()
    self._is_read_only = max_to_keep is None
    multiples = [EveryNSteps(keep_every)] if keep_every else []
    self._kept = AnyPreservationPolicy([LatestN(max_to_keep), *multiples])
    self._is_saving, self._is_shared = False, not processes.is_multiprocess()
    self._disk_errors = functools.partial(disk_errors_as_oserror, self._folder)
    with self._disk_errors():
      if not self._is_read_only and processes.is_primary():
        self._folder.mkdir(parents=True, exist_ok=True)
      self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    """Opens Orbax's manager: for this process alone, or shared, in all processes at once.

    To read, a process opens it alone and waits for no other; the first save opens it shared.
    """
    group = set(range(jax.process_count())) if self._is_shared else {jax.process_index()}
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self._kept,
      create=False,
      lightweight_initialize=True,  # else it reads times that nobody needs, and fails if damaged
      cleanup_tmp_directories=not self._is_read_only and self._is_shared,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=min(group), active_processes=group
      ),
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ('model', 'opt_state')}
    handlers['checksums'] = ocp.JsonCheckpointHandler()
    registry = ocp.handlers.create_default_handler_registry(**handlers)
    return ocp.CheckpointManager(self._folder, options=options, handler_registry=registry)

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint, or None."""
    return processes.run_on_primary(self._manager.latest_step)

  def save(self, step: int, model, opt_state) -> None:
    """Starts to save in the background; the arrays may be donated at once.

    `close` waits until the checkpoint is on the disk. An older one is removed only after that.

    Raises:
      Stopped: a parameter is not finite.
      OSError: the disk refuses this checkpoint or, noticed only now, the one before.
    """
    trees = {'model': leaves_by_path(model), 'opt_state': leaves_by_path(opt_state)}
    are_finite = _are_finite(trees['model'])  # where they are: each is gathered once, below
    for path in trees['model']:
      if not are_finite[path]:
        raise not_finite(f'step {step}: {path} is not finite')
    items = {name: ocp.args.StandardSave(leaves) for name, leaves in trees.items()}
    checksums = {name: _checksum(leaves) for name, leaves in trees.items()}
    items['checksums'] = ocp.args.JsonSave(checksums)
    with self._disk_errors():
      if not self._is_shared:
        self._manager.close()
        self._is_shared = True
        self._manager = self._open()
      if not self._manager.save(step, args=ocp.args.Composite(**items)):
        raise RuntimeError(f'{self._folder}: step {step} was not saved')
    self._is_saving = True

  def check_last_save(self) -> None:
    """Raises OSError if the disk has refused the save in the background; waits for nothing."""
    if self._is_saving and not self._manager.is_saving_in_progress():
      self._is_saving = False
      with self._disk_errors():
        self._manager.wait_until_finished()  # Orbax's check_for_errors would miss some

  def restore(self, **trees) -> tuple[dict, int]:
    """Restores the latest readable checkpoint: `restore(model=model, opt_state=opt_state)`.

    Either may be left out; they give structure, shapes, dtypes and shardings. Of step 0 the
    optimizer is the new one that is given: a run of no steps saves none. A damaged checkpoint is
    named, renamed to `STEP.damaged` (unless opened for reading), and the one before it is taken.

    Returns:
      ({name: restored tree}, step), or (trees, 0) where there is no checkpoint.
    Raises:
      UserError: every checkpoint is damaged, or the latest has arrays of other shapes.
    """

    def read(step):
      saved = trees if step else {name: trees[name] for name in trees if name != 'opt_state'}
      # Shapes come first: Orbax reports a wrong shape and damage with the same words.
      self._check_shapes(step, saved)
      return self._read(step, saved)

    restored, step = self._restore(read)
    if restored is None:
      return trees, 0
    shardings = jax.tree.map(lambda x: x.sharding, {name: trees[name] for name in restored})
    return trees | processes.device_put_global(restored, shardings), step

  def as_saved(
    self, name: str, as_shapes: bool = False, at: int | None = None
  ) -> tuple[dict, int, int]:
    """One tree of the latest readable checkpoint as it was saved, on the host, and its checksum.

    Args:
      as_shapes: gives shapes in the place of arrays, which are not read: they may be damaged.
      at: the step of the checkpoint that is to be read in the place of the latest.
    Returns:
      ({'path/of/leaf': array}, step, checksum), or ({}, 0, 0) where there is no checkpoint.
    Raises:
      UserError: every checkpoint is damaged, or the one `at` that step; it is not there.
    """

    def read(step):
      leaves = self._shapes(step, name)
      if not as_shapes:
        leaves = self._read(step, {name: leaves})[name]
      items = ocp.args.Composite(checksums=ocp.args.JsonRestore())
      return leaves, self._manager.restore(step, args=items)['checksums'][name]

    restored, step = self._restore(read, at)
    leaves, checksum = restored or ({}, 0)
    return leaves, step, checksum

  def _shapes(self, step: int, name: str) -> dict[str, jax.ShapeDtypeStruct]:
    leaves = self._manager.metadata(step).item_metadata[name].tree.items()
    return {path: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype) for path, leaf in leaves}

  def _restore(
    self, read: Callable[[int], object], at: int | None = None
  ) -> tuple[object | None, int]:
    """What `read` makes of the step of the latest readable checkpoint, and the step; or (None, 0).
    With `at`, of that step.

    The primary process decides which one that is.
    """
    cache = {}
    step = processes.run_on_primary(self._latest_readable, read, cache, at)
    if step is None:
      return None, 0
    return (cache[step] if processes.is_primary() else read(step)), step

  def _latest_readable(
    self, read: Callable[[int], dict], cache: dict, at: int | None = None
  ) -> int | None:
    """Step of the latest readable checkpoint, or of the one `at` a step, read into `cache`; None:
    there is no checkpoint.
    """
    damaged = []
    steps = sorted(self._manager.all_steps(), reverse=True)
    if at is not None and at not in steps:
      kept = ', '.join(map(str, sorted(steps))) or 'a run that was trained'
      raise UserError(
        f'{self._folder}: no checkpoint of step {at}; allowed: {kept} {WHICH_ARE_KEPT}'
      )
    for step in steps if at is None else [at]:
      try:
        with self._disk_errors():
          cache[step] = read(step)
      except (UserError, MemoryError):
        raise
      except Exception as error:  # of any kind: Orbax raises whatever damaged JSON leads to
        if not storage.exists(self._folder / str(step)):
          # A training that goes on meanwhile has saved a later one and removed this one.
          self.close()
          self._manager = self._open()
          return self._latest_readable(read, cache, at)
        # what the system does not give is unknown, and must not be called damaged
        storage.check_all_readable(self._folder / str(step))
        if isinstance(error, OSError) and error.errno not in OF_DAMAGE:
          raise  # it could not be read a moment ago: the system, not the checkpoint, is to blame
        problem = f'the checkpoint of step {step} is damaged ({type(error).__name__})'
        print(f'{self._folder}: {problem}', file=sys.stderr)  # text or JSON goes to stdout
        damaged.append(step)
      else:
        self._set_aside(damaged)
        return step
    if damaged and at is not None:
      raise UserError(f'{self._folder}: the one of step {at} is damaged; allowed: another step')
    if damaged:
      problem = f'every checkpoint is damaged (step {", ".join(map(str, damaged))})'
      of_import = 'import the model anew, if it was imported; else ' if damaged == [0] else ''
      raise UserError(
        f'{self._folder}: {problem}; allowed: {of_import}remove the folder, and eval.jsonl and '
        f'finished.json beside it, to train from the start {WHICH_ARE_KEPT}'
      )
    return None

  def _check_shapes(self, step: int, trees: dict) -> None:
    metadata = self._manager.metadata(step).item_metadata
    for name, tree in trees.items():
      check_shapes(f'{self._folder}: step {step}', name, metadata[name].tree, leaves_by_path(tree))

  def _read(self, step: int, trees: dict) -> dict:
    """Reads the trees on this host. Raises ValueError where a checksum differs."""
    items = {'checksums': ocp.args.JsonRestore()}
    for name, tree in trees.items():
      abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
      items[name] = ocp.args.StandardRestore(leaves_by_path(abstract))
    stored = self._manager.restore(step, args=ocp.args.Composite(**items))
    restored = {}
    for name, tree in trees.items():
      if _checksum(stored[name]) != stored['checksums'][name]:
        raise ValueError(f'{name}: checksum differs')
      leaves = [stored[name][path] for path in leaves_by_path(tree)]
      restored[name] = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return restored

  def _set_aside(self, steps: list[int]) -> None:
    """Renames damaged checkpoints, so that these steps can be saved again."""
    if steps and not self._is_read_only:
      self._manager.close()
      for step in steps:
        names = (f'{step}.damaged{number}' for number in ('', *range(2, 1000)))
        free = next(name for name in names if not storage.exists(self._folder / name))
        os.replace(self._folder / str(step), self._folder / free)
      self._manager = self._open()

  def close(self) -> None:
    """Waits until the last save is on the disk. Raises OSError where the disk refuses it."""
    with self._disk_errors():
      self._manager.close()

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    """Closes, except at Ctrl-C or where it might wait for processes that this error has lost."""
    every_process_ends = kind is None or issubclass(kind, UserError | Stopped)
    would_wait = kind is KeyboardInterrupt or processes.is_multiprocess()
    if every_process_ends or not would_wait:
      self.close()


def leaves_by_path(tree) -> dict[str, object]:
  """{'path/of/leaf': leaf}, without the '/value' at the end of the path of an nnx.Param."""
  path_of = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {path_of(path).removesuffix('/value'): leaf for path, leaf in leaves}


def check_shapes(where: str, name: str, stored: dict, wanted: dict) -> None:
  """Raises `UserError` where leaves of a tree, {path: what has a shape}, are not those wanted."""
  stored, wanted = (
    {path: tuple(leaf.shape) for path, leaf in leaves.items()} for leaves in (stored, wanted)
  )
  for path in sorted(wanted.keys() | stored.keys()):
    if stored.get(path) != wanted.get(path):
      leaf = f'{name} {path} of shape {stored.get(path)}'
      raise UserError(
        f'{where} holds {leaf}, but the config asks for {wanted.get(path)}; allowed: the config '
        'that the checkpoint was made with, or the code: sessions.jsonl names commit and packages'
      )


@jax.jit
def _are_finite(leaves: dict) -> dict:
  """{'path/of/leaf': whether all of its numbers are finite}."""
  return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), leaves)


def _checksum(leaves: dict) -> int:
  """CRC-32 over the bytes of all arrays.

  Orbax notices most damage, but not a flipped byte of an array that does not compress.
  """
  crc = 0
  for path in sorted(leaves):
    for block in processes.blocks_on_host(leaves[path]):
      crc = zlib.crc32(np.ascontiguousarray(block), crc)
  return crc
