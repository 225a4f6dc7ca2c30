"""Encodings against numbers that other implementations gave (scripts/conformance.py)."""

import json
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.attention import attend
from posenc_jax.encodings.core.rope_scaling import rope_frequencies
from posenc_jax.encodings.core.rope_scaling_config import read_scaling
from posenc_jax.errors import UserError

ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / 'scripts' / 'conformance.py'))
GOLDEN = {
  file: json.loads((ROOT / 'tests' / 'golden' / f'{file}.json').read_text())
  for file in ('rope_types', 'attention')
}


def test_golden_files_hold_all_cases():
  for file, cases in (('rope_types', 'ROPE_TYPES'), ('attention', 'CASES')):
    assert set(GOLDEN[file]) == {*SCRIPT[cases], 'made by'}
  assert set(SCRIPT['REFERENCES']) == set(SCRIPT['CASES'])


def test_an_unknown_entry_is_named_before_anything_is_computed():
  with pytest.raises(UserError, match="blom: no such entry; did you mean 'bloom'"):
    SCRIPT['main'](['blom'])


@pytest.mark.parametrize('name', SCRIPT['ROPE_TYPES'])
def test_rope_types(name):
  """transformers computes in float32."""
  scaling, share, base, length, original = SCRIPT['ROPE_TYPES'][name]
  K = round(20 * share)
  scaled = read_scaling({**scaling, 'rope_theta': base}, K, base, share, original)
  frequencies, factor = (
    (rope_frequencies(K, base), 1.0) if scaled is None else scaled(K, base, length)
  )
  np.testing.assert_allclose(frequencies, GOLDEN['rope_types'][name]['frequencies'], rtol=1e-6)
  assert factor == pytest.approx(GOLDEN['rope_types'][name]['attention_factor'], abs=1e-8)


@pytest.mark.parametrize('name', SCRIPT['CASES'])
def test_layers(name):
  case = SCRIPT['CASES'][name]
  enc, weights = case.build()
  x = jnp.asarray(weights['x'])[None]

  @jax.jit
  def run(enc, weights):
    q, k, v = (jnp.einsum('bsd,dhk->bshk', x, weights[n]) for n in 'qkv')
    layer = lambda **options: attend(q, k, v, enc, x=x, is_causal=case.causal, **options)[
      0
    ].reshape(x.shape[1], -1)
    return layer(backend='dense'), layer(backend='blockwise', block_sizes=(3, 5))

  for output in run(enc, weights):
    np.testing.assert_allclose(output, GOLDEN['attention'][name], rtol=0, atol=1e-5)


def test_fill_is_spread_as_a_normal_deviate():
  x = SCRIPT['fill']('x', (60, 50))
  assert abs(x.mean()) < 0.05
  assert x.std() == pytest.approx(1, abs=0.02)
  assert np.abs(np.corrcoef(x)[np.triu_indices(60, 1)]).max() < 0.7
  assert np.abs(x - SCRIPT['fill']('y', (60, 50))).max() > 1
