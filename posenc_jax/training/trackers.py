"""Who gets the rows of metrics.jsonl and timing.jsonl too: TensorBoard, Weights & Biases. The files
are written always.

A logger is anything with `write(kind, row)`, where kind is 'training', 'validation' or 'timing',
and `close()`.
"""

import importlib.util
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from posenc_jax.errors import UserError

LIBRARIES = {'tensorboard': 'tensorboardX', 'wandb': 'wandb'}


def require(names: Iterable[str]) -> None:
  """Raises UserError where the library of a logger is not installed."""
  for name in names:
    if importlib.util.find_spec(LIBRARIES[name]) is None:
      raise UserError(
        f'config.train.trackers={tuple(names)}: {LIBRARIES[name]} is not installed; '
        "allowed: after pip install 'posenc_jax[logging]'"
      )


def make(names: Iterable[str], workdir: Path, start: int, config: dict) -> list:
  """The loggers of a run that goes on after step `start`. Raises UserError where one cannot
  begin.
  """
  return [KINDS[name](workdir, start, config) for name in names]


def numbers(kind: str, row: dict) -> dict[str, float]:
  """{'kind/name': value} of a row, without its step and what is no number."""
  return {
    f'{kind}/{name}': v for name, v in row.items() if name != 'step' and isinstance(v, int | float)
  }


class TensorBoard:
  """Event files in `workdir/tensorboard`; steps that are made again replace what was logged of
  them.
  """

  def __init__(self, workdir: Path, start: int, config: dict):
    from tensorboardX import SummaryWriter

    del config
    self._writer = SummaryWriter(str(workdir / 'tensorboard'), purge_step=start + 1)

  def write(self, kind: str, row: dict) -> None:
    for name, value in numbers(kind, row).items():
      self._writer.add_scalar(name, value, row['step'])

  def close(self) -> None:
    self._writer.close()


class WandB:
  """One run of wandb for the directory, however often it is interrupted: its id stands in
  `workdir/wandb_id.txt`.

  Project, entity and mode are wandb's own: WANDB_PROJECT (by default posenc_jax), WANDB_ENTITY,
  WANDB_MODE=offline. Steps are a column: rows of steps that are made again, equal to the first
  ones, stand there twice.
  """

  def __init__(self, workdir: Path, start: int, config: dict):
    import wandb

    del start
    path = workdir / 'wandb_id.txt'
    if not path.exists():
      path.write_text(secrets.token_hex(8))
    try:
      self._run = wandb.init(
        project=os.environ.get('WANDB_PROJECT', 'posenc_jax'),
        dir=str(workdir),
        id=path.read_text(),
        resume='allow',
        name=workdir.name,
        group=workdir.resolve().parent.name,
        config=config,
        settings=wandb.Settings(silent=True, console='off'),  # the run's output stands in its log
      )
    except wandb.errors.Error as error:
      words = ' '.join(str(error).split())
      raise UserError(
        f"config.train.trackers: 'wandb': {words}; allowed: that, or WANDB_MODE=offline"
      ) from None
    self._run.define_metric('step')
    self._run.define_metric('*', step_metric='step')

  def write(self, kind: str, row: dict) -> None:
    self._run.log({'step': row['step'], **numbers(kind, row)})

  def close(self) -> None:
    self._run.finish()


KINDS = {'tensorboard': TensorBoard, 'wandb': WandB}
