"""The runs of a config with several seeds: each in a directory of its own, as if it had been
started by itself.
"""

from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax.config.loading import overlay
from posenc_jax.config.serialization import flat, from_json, saved_config, to_json


def seed_workdir(workdir: str | Path, seed: int) -> Path:
  """The directory of one of several seeds."""
  return Path(f'{Path(workdir)},seed={seed}')


def single_seed_runs(config: ConfigDict, workdir: str | Path) -> list[tuple[ConfigDict, Path]]:
  """(config, directory) of each run: of one seed these two; of several, for each a config that
  knows no other seed.

  Where `train.init_from` has several seeds too, each starts from its own; one that is there, from
  what it did start from, which may be gone.
  """
  if not config.seeds:
    return [(config, Path(workdir))]
  start = config.train.init_from
  there = saved_config(start) if start and (Path(start) / 'config.json').exists() else {}
  has_seeds = 'seeds' in there and there.seeds  # runs of an earlier version have none
  split = []
  for seed in config.seeds:
    one, folder, own = (
      from_json(to_json(config)),
      seed_workdir(workdir, seed),
      str(seed_workdir(start, seed)),
    )
    overlay(one, {'seed': seed, 'seeds': (), 'vmap_seeds': False, 'mesh.seeds': 1})
    started = _started_from(folder)
    if started == own or (has_seeds and started != start):
      one.train.init_from = own
    split.append((one, folder))
  return split


def _started_from(workdir: Path) -> str | None:
  """The `train.init_from` of the run in the directory; None: there is none, or of a version
  without that field.
  """
  fields = flat(saved_config(workdir)) if (workdir / 'config.json').exists() else {}
  return fields.get('train.init_from')
