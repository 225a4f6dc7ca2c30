"""Parameters that a run ended with, which may be those of another run: one of no steps that takes
all of them from the run that it starts from saves none, but says which ones they are.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from posenc_jax import storage
from posenc_jax.config import saved_config
from posenc_jax.distributed.processes import run_on_primary
from posenc_jax.errors import Damaged, UserError
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.provenance import source_of
from posenc_jax.training.run_dir import TAKEN, checkpoint_steps, takes_parameters

REMEDY = 'without the folder that it lies in, and eval.jsonl and finished.json, to begin anew'


class Parameters(NamedTuple):
  """What a run ended with.

  Attributes:
    leaves: {'path/of/leaf': array on the host}, or their shapes.
    step: of the last checkpoint that can be read.
    checksum: over the arrays of the run that has trained them.
  """

  leaves: dict[str, np.ndarray] | dict[str, jax.ShapeDtypeStruct]
  step: int
  checksum: int


def parameters_in(
  workdir: str | Path, as_shapes: bool = False, at: int | None = None
) -> Parameters | None:
  """The parameters of a run, its own or those that it takes from another; None: it has none yet.

  Args:
    at: the step of the checkpoint that is to be read in the place of the latest.
  Raises:
    UserError: every checkpoint is damaged, or there is none `at` that step; the run that it takes
      parameters from is gone or has changed since.
  """
  workdir = Path(workdir)
  if run_on_primary(takes_parameters, workdir):
    if at not in (None, 0):  # its rows are of step 0
      raise UserError(f'{workdir}: no checkpoint of step {at}; allowed: 0, for it makes no steps')
    return _taken(workdir, as_shapes)[1]
  with Checkpoints(workdir) as checkpoints:
    found = Parameters(*checkpoints.as_saved('model', as_shapes, at))
  return found if found.leaves else None


def write_taken(workdir: Path, start: str | Path, held: Parameters, paths: dict[str, str]) -> None:
  """Writes that a run has the parameters that the one in `start` holds: those of these paths, {path
  here: path there}. What is written already stays.
  """
  if takes_parameters(workdir):
    return
  run = os.path.relpath(Path(start).resolve(), workdir.resolve())
  (workdir / TAKEN).parent.mkdir(exist_ok=True)
  said = {'run': run, 'step': held.step, 'checksum': held.checksum, 'paths': paths}
  storage.write_json(workdir / TAKEN, said)


def start_of(workdir: Path) -> tuple[Path, int] | None:
  """(The run that this one starts from, the step that its parameters are of there); None: that run
  is gone, or this one takes all of its parameters and the other has others now. Where this one
  saves parameters of its own, it does not keep the step: then it is that at which the other ends
  now.
  """
  if takes_parameters(workdir):
    try:
      start, _ = _taken(workdir, as_shapes=True)
    except Damaged:
      raise
    except UserError:
      return None
    return start, _said(workdir)['step']
  start, at = Path(_named(workdir)), _at(workdir)
  if not storage.exists(start / 'config.json'):
    return None
  return start, at or saved_config(start, 'train.steps').train.steps


def _named(workdir: Path) -> str:
  """The run that this one starts from, as its config names it."""
  return saved_config(workdir, 'train.init_from').train.init_from


def _at(workdir: Path) -> int | None:
  """The step of the checkpoint there that this one starts from; None: the last one."""
  return saved_config(workdir).train.init_step or None


def _starts(workdir: Path) -> list[Path]:
  """Where the run may be that this one takes parameters from: as its config names it, and as it lay
  beside this one, for both may have moved, or the process be elsewhere.
  """
  named, beside = _named(workdir), _said(workdir)['run']
  starts = [Path(named), workdir.resolve() / beside]
  each = {start.resolve(): start for start in reversed(starts)}
  return [start for start in reversed(each.values()) if storage.exists(start / 'config.json')]


def _said(workdir: Path) -> dict:
  fields = {'run': str, 'step': int, 'checksum': int, 'paths': dict}
  return storage.read_json(workdir / TAKEN, fields, REMEDY)


def _taken(workdir: Path, as_shapes: bool) -> tuple[Path, Parameters]:
  """(The run that this one takes parameters from, these)."""
  said, at = _said(workdir), _at(workdir)
  problem = f'{_named(workdir)}, which is gone'
  for start in _starts(workdir):
    is_there = at is None or at in run_on_primary(checkpoint_steps, start)
    held = parameters_in(start, as_shapes=True, at=at) if is_there else None
    then = f'step {said["step"]} then'
    wanted = said['step'], said['checksum'], source_of(workdir)
    if held is None or (held.step, held.checksum, source_of(start)) != wanted:
      now = 'no checkpoint' if held is None else f'step {held.step}'
      problem = f'{start}, which has others now ({now}, {then})'
      continue
    if unknown := sorted({*said['paths'].values()} - held.leaves.keys()):
      raise Damaged(f'{workdir / TAKEN} is damaged: paths={unknown[0]}; allowed: {REMEDY}')
    if not as_shapes and (held := parameters_in(start, at=at)).step != said['step']:
      problem = f'{start}, of which step {held.step} alone can be read ({then})'
      continue
    leaves = {path: held.leaves[there] for path, there in said['paths'].items()}
    return start, Parameters(leaves, 0, held.checksum)
  where = f'workdir={str(workdir)!r}: its parameters are those of {problem}'
  raise UserError(f'{where}; allowed: that run as it was then')
