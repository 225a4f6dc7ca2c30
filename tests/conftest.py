"""Settings of every test: CPU, strict shapes, quick compiles. Set before jax starts."""

import gc
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile far more than they run.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0'
os.environ['MPLBACKEND'] = 'Agg'
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture
def orbax_cleans_up():
  """Orbax leaves coroutines of failed reads and writes behind: collected here, not in the middle of another test."""
  yield
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    gc.collect()
