"""Runs that go out to transformers: what it loaded, and the logits that it gave, are theirs."""

import ast
import inspect
import json

import jax
import numpy as np
import pytest
from compiled_models import logits
from kinds import daily_if

from configs import base
from posenc_jax.config import overlay
from posenc_jax.model import decoder
from posenc_jax.model.decoder import attention_options
from posenc_jax.pretrained import exported_fields, families
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


def test_there_is_a_run_of_every_family_that_runs_go_out_as():
  tree = ast.parse(inspect.getsource(exported_fields._nearest))
  words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
  kinds = {RECORDS[name]['config']['model_type'] for name in exports.RUNS}
  assert kinds == words & families.FAMILIES.keys()


@pytest.mark.parametrize(
  ('changes', 'kind'),
  [
    ({'encoding': exports.NEIGHBORS | {'fraction': 0.5}}, 'glm'),
    ({'encoding': exports.NEIGHBORS, 'model.bias': 'qkv'}, 'glm'),
    (exports.LAYER_NORM | {'attention.window': 5}, 'starcoder2'),
    (exports.LAYER_NORM | {'model.kv_heads': 3}, 'gpt_neox'),
  ],
)
def test_a_run_goes_out_as_a_family_that_has_all_of_its_form(changes, kind):
  config = base.get_config()
  overlay(config, exports.OWN | {'model.embedding_scale': 1.0} | changes)
  fields, _ = exported_fields.fields_of(config, exports.VOCAB, exports.BOS, None)
  assert fields['model_type'] == kind
