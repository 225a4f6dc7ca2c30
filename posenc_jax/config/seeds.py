"""Splits a config with several seeds into one run a seed, each as if it had been started alone."""

from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config.overlays import overlay
from posenc_jax.config.serialization import flat, from_json, saved_config, to_json
from posenc_jax.errors import UserError


def seed_workdir(workdir: str | Path, seed: int) -> Path:
  """The directory of one of several seeds."""
  return Path(f'{Path(workdir)},seed={seed}')


def check_one_seed(what: str, config: ConfigDict, workdir: str | Path) -> None:
  """Raises `UserError`, which begins with `what`, where `workdir` is the directory of a run with
  several seeds: each has its model in a directory of its own.
  """
  if config.seeds:
    one = seed_workdir(workdir, config.seeds[0])
    seeds = ', '.join(map(str, config.seeds))
    allowed = f'the directory of one, such as {one}'
    raise UserError(f'{what}: it holds the seeds {seeds}; allowed: {allowed}')


def single_seed_runs(config: ConfigDict, workdir: str | Path) -> list[tuple[ConfigDict, Path]]:
  """(config, directory) of each seed's run; of a config without `seeds`, itself and `workdir`.

  Where the run that `train.init_from` names has several seeds too, each seed starts from its own. A
  seed whose directory exists keeps what it started from, which may be gone.
  """
  if not config.seeds:
    return [(config, Path(workdir))]
  start = config.train.init_from
  start_has_seeds = bool(start and _saved_fields(Path(start)).get('seeds'))
  runs = []
  for seed in config.seeds:
    run_config, run_dir = from_json(to_json(config)), seed_workdir(workdir, seed)
    overlay(run_config, {'seed': seed, 'seeds': (), 'vmap_seeds': False, 'mesh.seeds': 1})
    seed_start = str(seed_workdir(start, seed))
    earlier_start = _saved_fields(run_dir).get('train.init_from')
    if earlier_start == seed_start or (start_has_seeds and earlier_start != start):
      run_config.train.init_from = seed_start
    runs.append((run_config, run_dir))
  return runs


def _saved_fields(run_dir: Path) -> dict[str, object]:
  """{'dotted.path': value} of the config of the run in `run_dir`; {} where there is no run."""
  return flat(saved_config(run_dir)) if storage.exists(run_dir / 'config.json') else {}
