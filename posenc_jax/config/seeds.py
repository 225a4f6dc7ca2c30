"""The runs of a config with several seeds: each in a directory of its own, as if it had been started by itself."""

from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax.config.loading import overlay
from posenc_jax.config.saving import from_json, saved_config, to_json


def of_seed(workdir: str | Path, seed: int) -> Path:
  """The directory of one of several seeds."""
  return Path(f'{Path(workdir)},seed={seed}')


def runs(config: ConfigDict, workdir: str | Path) -> list[tuple[ConfigDict, Path]]:
  """(config, directory) of each run: of one seed these two; of several, for each a config that knows no other seed.

  Where `train.start_from` has several seeds too, each starts from its own.
  """
  if not config.seeds:
    return [(config, Path(workdir))]
  start = config.train.start_from
  there = saved_config(start) if start and (Path(start) / 'config.json').exists() else {}
  has_seeds = 'seeds' in there and there.seeds  # runs of an earlier version have none
  split = []
  for seed in config.seeds:
    one = from_json(to_json(config))
    overlay(one, {'seed': seed, 'seeds': (), 'seeds_at_once': False, 'mesh.seeds': 1})
    if has_seeds:
      one.train.start_from = str(of_seed(start, seed))
    split.append((one, of_seed(workdir, seed)))
  return split
