"""Runs that go out to transformers: what it loaded, and the logits that it gave, are theirs."""

import json

import jax
import numpy as np
import pytest
from compiled_models import logits
from kinds import daily_if

from posenc_jax.model import decoder
from posenc_jax.model.decoder import attention_options
from posenc_jax.training.checkpoints import leaves_by_path
from scripts.maintenance.conformance import exports
from scripts.maintenance.conformance.pretrained import GOLDEN, TOKENS

RECORDS = json.loads((GOLDEN / 'exports.json').read_text())
DAILY = ('llama_longrope', 'gpt2')


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY, 'ci')) for name in exports.EXPORTS]
)
def test_an_export_is_what_transformers_loaded_and_has_the_logits_of_its_run(name, tmp_path):
  golden = RECORDS[name]
  said, shapes = exports.export(name, tmp_path / 'out')
  assert said == golden['config']
  assert exports.digest(shapes) == golden['shapes']
  config, _ = exports.run(name)
  model = decoder.shapes(config, exports.VOCAB)
  leaves = exports.parameters(config)
  filled = [jax.numpy.asarray(leaves[path]) for path in leaves_by_path(model)]
  model = jax.tree.unflatten(jax.tree.structure(model), filled)
  expected = np.array(golden['logits'])
  with jax.default_matmul_precision('highest'):
    found = logits(model, TOKENS, **attention_options(config))[:, -1]
  np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
