"""The package as others install it: its exports, and that it needs no file of the repository."""

import ast
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import posenc_jax
from posenc_jax.config import load

ROOT = Path(__file__).parent.parent
BASE = ROOT / 'configs' / 'base.py'


def test_exports_come_from_their_modules():
  from posenc_jax import ENCODINGS, Encoding, attend, attention, encodings, make, score
  from posenc_jax.evaluation import scoring

  assert attend is attention.attend
  assert make is encodings.make
  assert score is scoring.score
  assert Encoding is encodings.Encoding
  assert ENCODINGS is encodings.ENCODINGS
  assert {'ENCODINGS', 'Encoding', 'attend', 'make'} <= set(posenc_jax.__all__)
  assert set(posenc_jax.__all__) <= set(dir(posenc_jax))


def test_every_export_is_there_and_type_checkers_see_it():
  tree = ast.parse(Path(posenc_jax.__file__).read_text())
  (block,) = (node for node in tree.body if isinstance(node, ast.If))
  seen = {name.asname: node.module for node in block.body for name in node.names}
  assert seen == posenc_jax._MODULES
  assert all(hasattr(posenc_jax, name) for name in posenc_jax.__all__)


def test_the_version_is_that_of_the_citation():
  assert f'\nversion: {posenc_jax.__version__}\n' in (ROOT / 'CITATION.cff').read_text()


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="module 'posenc_jax' has no attribute 'atend'"):
    posenc_jax.atend  # noqa: B018


@pytest.fixture(scope='module')
def run_installed(tmp_path_factory):
  """(code, *arguments) runs Python code where posenc_jax stands alone, as pip would install it."""
  site, elsewhere = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('elsewhere')
  ignored = shutil.ignore_patterns('__pycache__')
  shutil.copytree(ROOT / 'posenc_jax', site / 'posenc_jax', ignore=ignored)

  def run(code, *arguments):
    is_the_copy = f'import posenc_jax; assert posenc_jax.__file__.startswith({str(site)!r})\n'
    return subprocess.run(
      [sys.executable, '-c', is_the_copy + code, *arguments],
      cwd=elsewhere,
      env=os.environ | {'PYTHONPATH': str(site)},
      capture_output=True,
      text=True,
      timeout=240,
    )

  return run


def test_importing_the_package_imports_no_jax(run_installed):
  done = run_installed(
    'import sys\n'
    'import posenc_jax.reporting, posenc_jax.sweep, posenc_jax.config\n'
    "assert not {'jax', 'flax', 'matplotlib'} & sys.modules.keys()\n"
  )
  assert done.returncode == 0, done.stderr


MODEL = """
import json
import sys

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import attend, make
from posenc_jax.evaluation import protocols
from posenc_jax.model.decoder import LM
from posenc_jax.model.token_nll import token_nll

enc = make('alibi', model_dim=16, heads=2, head_dim=8, train_length=8, rngs=nnx.Rngs(0))
q = jnp.ones((1, 8, 2, 8))
assert attend(q, q, q, enc).shape == q.shape

config = ConfigDict(json.loads(sys.argv[1]))
model = LM(config, {'name': 'rope'}, vocab=32, train_length=8, rngs=nnx.Rngs(0))
tokens = np.arange(12, dtype=np.int32)
assert model(tokens[None]).shape == (1, 12, 32)
nll = lambda tokens_BT: np.asarray(token_nll(model, tokens_BT), np.float64)
(nats,) = protocols.sliding(nll, [tokens], 8, 4, 16)
assert nats.shape == (12,) and np.isfinite(nats).all()
(last,) = protocols.last_k(nll, [tokens[:8]], 8, 4, 16)
np.testing.assert_allclose(last, nats[4:8], rtol=1e-5)
"""


def test_attention_model_and_protocols_need_no_file_of_the_repository(run_installed):
  fields = {'layers': 1, 'model_dim': 16, 'heads': 2, 'head_dim': 8, 'mlp_dim': 32}
  config = load(BASE, {f'model.{name}': value for name, value in fields.items()})
  done = run_installed(MODEL, json.dumps(config.model.to_dict()))
  assert done.returncode == 0, done.stderr


def test_what_jax_warns_of_on_a_tpu_vm_ends_no_session():
  """At its import, and so in conftest.py; other warnings are errors."""
  warnings.warn('Transparent hugepages are not enabled. TPU runtime startup', stacklevel=1)
  with pytest.raises(UserWarning, match='hugepages'):
    warnings.warn('Other hugepages', stacklevel=1)
