"""Encodings against numbers of other implementations (scripts/maintenance/conformance.py)."""

import ast
import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.attention import attend
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.rope_types import read_scaling
from posenc_jax.errors import UserError
from scripts.maintenance.conformance import command, exports, libraries, pretrained, repositories
from scripts.maintenance.conformance.cases import CASES, ROPE_TYPES, cotangent, fill, parameters

FILES = {
  'rope_types': ROPE_TYPES,
  'attention': CASES,
  'gradients': command.GRADIENTS,
  'pretrained': pretrained.MODELS,
  'exports': exports.EXPORTS,
}
GOLDEN = {file: json.loads((command.GOLDEN / f'{file}.json').read_text()) for file in FILES}


def test_golden_files_hold_all_cases():
  for file, cases in FILES.items():
    assert set(GOLDEN[file]) == {*cases, 'made by'}
    assert set(GOLDEN[file]['made by']) == {*cases}
  assert set(command.REFERENCES) == set(CASES)


def test_only_what_is_computed_is_stamped(tmp_path, monkeypatch):
  monkeypatch.setattr(command, 'GOLDEN', tmp_path)
  path = tmp_path / 'some.json'
  for versions, entries in (('torch 1', {'a': [0.1], 'b': [2]}), ('torch 2', {'b': [3], 'c': [4]})):
    monkeypatch.setattr(command, 'versions', lambda versions=versions: versions)
    command.write('some.json', entries)
  made = {'a': 'torch 1', 'b': 'torch 2', 'c': 'torch 2'}
  assert json.loads(path.read_text()) == {'a': [0.1], 'b': [3], 'c': [4], 'made by': made}
  before = path.read_bytes()
  monkeypatch.setattr(command, 'versions', lambda: 'torch 3')
  command.write('some.json', {})
  command.write('other.json', {})
  assert path.read_bytes() == before
  assert [file.name for file in tmp_path.iterdir()] == ['some.json']


def test_an_unknown_entry_is_named_before_anything_is_computed():
  with pytest.raises(UserError, match="blom: no such entry; did you mean 'bloom'"):
    command.main(['blom'])


@pytest.mark.parametrize('module', [libraries, repositories])
def test_references_call_functions_of_this_repository_as_these_are_defined(module):
  """No test calls them: torch and the code of others are needed."""
  for node in ast.walk(ast.parse(inspect.getsource(module))):
    function = getattr(module, node.func.id, None) if is_plain_call(node) else None
    if getattr(function, '__module__', '').startswith('scripts.'):
      names = {word.arg: None for word in node.keywords}
      inspect.signature(function).bind(*node.args, **names)


def is_plain_call(node) -> bool:
  """Whether a node calls a name, and says each of its arguments."""
  is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
  unpacks = lambda part: isinstance(part, ast.Starred) or getattr(part, 'arg', '') is None
  return is_call and not any(map(unpacks, (*node.args, *node.keywords)))


@pytest.mark.parametrize('name', ROPE_TYPES)
def test_rope_types(name):
  """transformers computes in float32."""
  scaling, share, base, length, original = ROPE_TYPES[name]
  K = round(20 * share)
  scaled = read_scaling({**scaling, 'rope_theta': base}, K, base, share, original)
  frequencies, factor = (
    (rope_frequencies(K, base), 1.0) if scaled is None else scaled(K, base, length)
  )
  np.testing.assert_allclose(frequencies, GOLDEN['rope_types'][name]['frequencies'], rtol=1e-6)
  assert factor == pytest.approx(GOLDEN['rope_types'][name]['attention_factor'], abs=1e-8)


def run_layer(case, enc, weights, x_SD, **options):
  """The output of a case's layer, [S, H * K]."""
  x_BSD = jnp.asarray(x_SD)[None]
  q, k, v = (jnp.einsum('bsd,dhk->bshk', x_BSD, weights[n]) for n in 'qkv')
  output = attend(q, k, v, enc, x=x_BSD, is_causal=case.causal, **options)
  return output[0].reshape(x_BSD.shape[1], -1)


@pytest.mark.parametrize('name', [name for name in CASES if name not in command.GRADIENTS])
def test_layers(name):
  """By the dense backend, which laws tie to the others."""
  case = CASES[name]
  enc, weights = case.build()
  run = jax.jit(lambda enc, w: run_layer(case, enc, w, w['x'], backend='dense'))
  np.testing.assert_allclose(run(enc, weights), GOLDEN['attention'][name], rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', command.GRADIENTS)
def test_layers_and_gradients(name):
  """By the layer's input and by each parameter of the encoding."""
  case = CASES[name]
  enc, weights = case.build()

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def gradients(enc, x):
    output = run_layer(case, enc, weights, x, backend='dense')
    return (output * cotangent(output.shape)).sum(), output

  (of_enc, of_x), output = gradients(enc, weights['x'])
  np.testing.assert_allclose(output, GOLDEN['attention'][name], rtol=0, atol=1e-5)
  golden = GOLDEN['gradients'][name]
  for key, gradient in {'x': of_x, **parameters(of_enc)}.items():
    np.testing.assert_allclose(gradient, golden.pop(key), rtol=1e-5, atol=2e-5)
  assert not golden


def test_fill_is_spread_as_a_normal_deviate():
  x = fill('x', (60, 50))
  assert abs(x.mean()) < 0.05
  assert x.std() == pytest.approx(1, abs=0.02)
  assert np.abs(np.corrcoef(x)[np.triu_indices(60, 1)]).max() < 0.7
  assert np.abs(x - fill('y', (60, 50))).max() > 1
