"""Experiment trackers, which get the rows of metrics.jsonl and timing.jsonl as well.

The files are always written. A tracker has `library`, what it imports; `write(kind, row)`, where
kind is 'training', 'validation' or 'timing'; and `close()`. TRACKERS names them all: what
`config.train.trackers` may hold.
"""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, imported, nearest_of_all, one_line


class TensorBoard:
  """Writes event files in `workdir/tensorboard`. Steps that are made again replace the old ones."""

  library = 'tensorboardX'

  def __init__(self, workdir: Path, start_step: int, config: dict):
    from tensorboardX import SummaryWriter

    del config
    self._writer = SummaryWriter(str(workdir / 'tensorboard'), purge_step=start_step + 1)

  def write(self, kind: str, row: dict) -> None:
    for name, value in scalars(kind, row).items():
      self._writer.add_scalar(name, value, row['step'])

  def close(self) -> None:
    self._writer.close()


class WandB:
  """Logs to one wandb run for the directory, however often the training is interrupted.

  `workdir/wandb_id.txt` keeps its id. Project, entity and mode are wandb's own: WANDB_PROJECT (by
  default posenc_jax), WANDB_ENTITY, WANDB_MODE=offline. Steps are a column: rows of steps that are
  made again, equal to the first ones, appear twice.
  """

  library = 'wandb'

  def __init__(self, workdir: Path, start_step: int, config: dict):
    import wandb

    del start_step
    path = workdir / 'wandb_id.txt'
    if not storage.exists(path):
      storage.atomic_write(path, secrets.token_hex(8))
    try:
      self._run = wandb.init(
        project=os.environ.get('WANDB_PROJECT', 'posenc_jax'),
        dir=str(workdir),
        id=path.read_text(encoding='utf-8'),
        resume='allow',
        reinit='create_new',  # of several seeds in one program, each has a run of its own
        name=workdir.name,
        group=workdir.resolve().parent.name,
        config=config,
        settings=wandb.Settings(silent=True, console='off'),  # the output has a log of its own
      )
    except wandb.errors.Error as error:
      message = f"'wandb': {one_line(error)}"
      allowed = 'that, or WANDB_MODE=offline'
      raise UserError(f'config.train.trackers: {message}; allowed: {allowed}') from None
    self._run.define_metric('step')
    self._run.define_metric('*', step_metric='step')

  def write(self, kind: str, row: dict) -> None:
    self._run.log({'step': row['step'], **scalars(kind, row)})

  def close(self) -> None:
    self._run.finish()


TRACKERS = {'tensorboard': TensorBoard, 'wandb': WandB}


def check(names: Iterable[str]) -> None:
  """Raises UserError for a tracker that does not exist, or whose library cannot be imported."""
  for name in names:
    if name not in TRACKERS:
      raise UserError(f'config.train.trackers={name!r}; {nearest_of_all(name, TRACKERS)}')
    imported(TRACKERS[name].library, f'config.train.trackers={tuple(names)}', 'logging')


def make_trackers(names: Iterable[str], workdir: Path, start_step: int, config: dict) -> list:
  """Starts the trackers of a run that continues after `start_step`. May raise UserError."""
  return [TRACKERS[name](workdir, start_step, config) for name in names]


def scalars(kind: str, row: dict) -> dict[str, float]:
  """{'kind/name': value} of the numbers in a row, without its step."""
  numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
  return {f'{kind}/{name}': value for name, value in numbers.items() if name != 'step'}
