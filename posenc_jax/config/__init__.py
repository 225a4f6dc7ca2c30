"""Run configurations: loading, overriding, checking, saving and comparing them. Imports no jax.

A configuration is a locked `ml_collections.ConfigDict`, all fields and defaults in
`configs/base.py`. An override is `{'dotted.path': value}`. A study takes another file as its base
by `load(pathlib.Path(__file__).with_name('base.py'), {'train.steps': 400})`.
"""

from posenc_jax.config.command_line import REQUIRED, encoding_of, main, parse_args, split
from posenc_jax.config.grids import chain, product, vary, zipped
from posenc_jax.config.loading import load, load_study, overlay
from posenc_jax.config.schema import CONTROLS, PROTOCOLS, validate
from posenc_jax.config.seeds import seed_workdir, single_seed_runs
from posenc_jax.config.serialization import (
  config_hash,
  decides_results,
  differing_keys,
  flat,
  from_json,
  saved_config,
  to_json,
  training_part,
)

__all__ = [
  'CONTROLS',
  'PROTOCOLS',
  'REQUIRED',
  'chain',
  'config_hash',
  'decides_results',
  'differing_keys',
  'encoding_of',
  'flat',
  'from_json',
  'load',
  'load_study',
  'main',
  'overlay',
  'parse_args',
  'product',
  'saved_config',
  'seed_workdir',
  'single_seed_runs',
  'split',
  'to_json',
  'training_part',
  'validate',
  'vary',
  'zipped',
]
