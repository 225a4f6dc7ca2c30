"""The runs of a study: their directories, commands and names, and what stands on disk of how they
do.
"""

import dataclasses
import hashlib
import json
import os
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

from posenc_jax import config as configs
from posenc_jax.errors import UserError
from posenc_jax.training import trackers
from posenc_jax.training.run_dir import check_same_config, is_finished

SCRIPTS = tuple(Path(__file__).resolve().parents[2] / name for name in ('train.py', 'eval.py'))
NAME_LENGTH = 120  # characters of a directory's name
START = 'train.init_from'


@dataclasses.dataclass
class Run:
  """One directory and the commands that fill it, one after another; each goes on where it was
  interrupted.
  """

  workdir: Path
  commands: list[list[str]]
  config_hash: str
  steps: int  # of all its seeds together
  tokens_per_step: int  # of one
  # the directory of a run of the same study, which must have ended before
  start: Path | None = None
  seeds: tuple[int, ...] = ()  # its own, each with a directory beside this one
  launch: SimpleNamespace | None = None  # the section of that name in its config

  @property
  def name(self) -> str:
    return self.workdir.name

  @property
  def results(self) -> list[Path]:
    """The directories with rows."""
    return [configs.seed_workdir(self.workdir, seed) for seed in self.seeds] or [self.workdir]

  @property
  def is_finished(self) -> bool:
    return is_finished(self.workdir, self.config_hash)

  @property
  def noted(self) -> dict:
    """What `note` wrote last; {} before the first time."""
    path = self.workdir / 'state.json'
    return json.loads(path.read_text()) if path.exists() else {}

  def note(self, state: str, **fields) -> None:
    """Writes state.json, for `sweep --status`: what whoever runs the commands knows of them.

    Args:
      state: 'queued', 'running', 'failed' or 'ended'. A driver that is killed leaves 'running': the
        lock tells.
    """
    path = self.workdir / 'state.json'
    new = path.with_name(path.name + '.new')
    new.write_text(json.dumps({'state': state, 'host': socket.gethostname(), **fields}) + '\n')
    os.replace(new, path)

  @property
  def last_words(self) -> str:
    """The last line of the run's log, as a terminal shows it."""
    with open(self.workdir / 'log.txt', 'rb') as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
      text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', file.read().decode(errors='replace'))
    return ([line.strip() for line in re.split(r'[\r\n]', text) if line.strip()] or [''])[-1]


def name_of(overrides: dict[str, object]) -> str:
  """A directory's name that says its overrides; with a hash where it had to leave something out."""
  full = ','.join(f'{path}={value}' for path, value in configs.flat(overrides).items())
  name = re.sub(r'[^\w.=,+-]+', '-', full, flags=re.ASCII)
  if name == full and len(name) <= NAME_LENGTH:
    return name or 'run'
  return f'{name[: NAME_LENGTH - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}'


def plan(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  scripts: tuple[Path, ...] = SCRIPTS,
) -> list[Run]:
  """The runs of a study, each config loaded and checked, `overrides` laid over what the study
  sweeps.

  Runs that `overrides` make equal are one. A run may start from one before it in the sweep: its
  train.init_from is then that one's dict of overrides, and becomes its directory. An override
  `seeds` takes the place of every `seed` in the sweep. Raises UserError, before anything is
  written, for a bad config and for a directory in `out` that holds the run of another.
  """
  study = configs.load_study(path)
  if not hasattr(study, 'sweep'):
    raise UserError(
      f'config: {str(path)!r} has no sweep(); allowed: a study such as configs/quick.py'
    )
  runs = {}

  unused = {'seed'} if overrides.get('seeds') else set()

  def directory(swept):
    return Path(out) / name_of(
      {field: {**swept, **overrides}[field] for field in swept if field not in unused}
    )

  for swept in study.sweep():
    settings, workdir, start = {**swept, **overrides}, directory(swept), None
    settings = {field: value for field, value in settings.items() if field not in unused}
    if isinstance(earlier := settings.get(START), dict):
      start = directory(earlier)
      if start not in runs:
        raise UserError(
          f'sweep: {START}={earlier!r}; allowed: the overrides of a run that comes before'
        )
      settings[START] = str(start)
    config = configs.load(path, settings)
    configs.validate(config)
    trackers.check(config.train.trackers)
    for one, folder in [(config, workdir), *configs.single_seed_runs(config, workdir)]:
      check_same_config(folder, one, 'another --out')
    flags = [f'--config={path}', f'--workdir={workdir}', *map(_flag, settings.items())]
    commands = [[sys.executable, str(script), *flags] for script in scripts]
    t = config.train
    sizes = {
      'steps': t.steps * max(1, len(config.seeds)),
      'tokens_per_step': t.batch * t.length,
      'launch': SimpleNamespace(**configs.to_json(config.launch)),
    }
    runs[workdir] = Run(
      workdir, commands, configs.config_hash(config), start=start, seeds=config.seeds, **sizes
    )
  return list(runs.values())


def _flag(override: tuple[str, object]) -> str:
  path, value = override
  is_word = (
    isinstance(value, str) and value.isidentifier() and value not in ('None', 'True', 'False')
  )
  return f'--config.{path}={value if is_word else repr(value)}'
