"""Run configurations: loading, overriding, checking, saving and comparing them. Imports no jax.

A configuration is a locked `ml_collections.ConfigDict`, all fields and defaults in
`configs/base.py`. An override is `{'dotted.path': value}`. A study takes another file as its base
by `load(pathlib.Path(__file__).with_name('base.py'), {'train.steps': 400})`.
"""

from posenc_jax.config.loading import (
  BASE,
  WITHOUT_START,
  check_laid_over,
  check_version,
  load,
  load_study,
  scaling_type,
  scalings,
  trained_config,
)
from posenc_jax.config.notes import notes, notes_of_all
from posenc_jax.config.overlays import overlay
from posenc_jax.config.schema import check_tree, validate, validate_data
from posenc_jax.config.seeds import check_one_seed, seed_workdir, single_seed_runs
from posenc_jax.config.serialization import (
  CHECKPOINT_FIELDS,
  NO_RESULT,
  NOT_TRAINING,
  config_hash,
  decides_results,
  differing_keys,
  flat,
  from_json,
  saved_config,
  to_json,
  training_part,
)
from posenc_jax.config.sweeps import line_name, product, vary, with_rates

__all__ = [
  'BASE',
  'CHECKPOINT_FIELDS',
  'NOT_TRAINING',
  'NO_RESULT',
  'WITHOUT_START',
  'check_laid_over',
  'check_one_seed',
  'check_tree',
  'check_version',
  'config_hash',
  'decides_results',
  'differing_keys',
  'flat',
  'from_json',
  'line_name',
  'load',
  'load_study',
  'notes',
  'notes_of_all',
  'overlay',
  'product',
  'saved_config',
  'scaling_type',
  'scalings',
  'seed_workdir',
  'single_seed_runs',
  'to_json',
  'trained_config',
  'training_part',
  'validate',
  'validate_data',
  'vary',
  'with_rates',
]
