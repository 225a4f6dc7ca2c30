"""Settings of every test: CPU, strict shapes, quick compiles. Set before jax starts."""

import gc
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile far more than they run. jax 0.10 can write kernels to LLVM itself, in a fourth of
# the time that it takes through MLIR; later versions cannot.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
  if metadata.version('jaxlib').startswith('0.10.')
  else '--xla_backend_optimization_level=0',
)
os.environ['MPLBACKEND'] = 'Agg'
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture
def orbax_cleans_up():
  """Orbax leaves coroutines of failed reads and writes behind: collected here, not in the middle of
  another test.
  """
  yield
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    gc.collect()
