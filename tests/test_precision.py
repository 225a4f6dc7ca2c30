"""Errors of encodings where accelerators round products: by default TPUs multiply float32 in
bfloat16, and GPUs in TF32.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from kinds import daily_if
from test_laws import DIMS, VARIANTS, build, declared, positions_of

from posenc_jax.attention import attend
from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.path import lower_inverse
from posenc_jax.inspection.recorder import Recorder, recorded_scores

# A CPU rounds nothing at any precision; the fixture `rounding` does at this one, which no other
# test sets, for jax keeps what it has traced.
LOW = 'BF16_BF16_F32'
S, T = 2048, 16
# The largest error of a score, or of their spread if that is more than 1: five times that of NoPE.
MOST = 0.1
# Large queries, or logarithms of almost nothing, magnify what is lost of q . k itself.
MAGNIFYING = ('asentmax_temperature', 'qassmax', 'screening')
# Products of which are no sums along tokens, no angles, and nothing that distances multiply.
ROUNDED = (
  *('relative_projection', 'compact_relative', 'grape_ap', 'row_gates', 'gated_t5', 'kv_shift'),
)
# Behind a bias, what mixes scores mixes large numbers far out.
BEHIND_BIAS = ('chain_alibi_mta', 'chain_alibi_talking_heads')
DAILY = ('nope', 'dape', 'dape_v2', 'path', 'tapa', *BEHIND_BIAS)


@pytest.fixture
def rounding(monkeypatch):
  """Rounds the factors of products to bfloat16 at the precision LOW, as a TPU does by default."""
  bind = lax.dot_general_p.bind

  def rounded(*factors, precision, **options):
    if precision == lax.DotAlgorithmPreset[LOW]:
      factors = [lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7) for x in factors]
    return bind(*factors, precision=precision, **options)

  monkeypatch.setattr(lax.dot_general_p, 'bind', rounded)


class AdaptedScores(Recorder):
  """Records logarithms of weights, too, where these are made of other scores."""

  def normalize(self, s_BHTS, tile):
    p_BHTS = self.inner.normalize(s_BHTS, tile)
    if self.inner.adapts_scores:
      self.record(jnp.log(p_BHTS + 1e-30))
    return p_BHTS


def scores_at(precision: str, enc, x_BSD, q_BSHK, k_BSGK):
  """The scores of the last T queries, [H, T, S]."""

  def run(enc, x_BSD, q_BSHK, k_BSGK):
    recorded, S = [], x_BSD.shape[1]
    state = enc.initial_state(jnp.arange(S)[None], 1)
    q, k, v = enc.enter_attention(q_BSHK, k_BSGK, k_BSGK, state)
    recorder = AdaptedScores(enc, recorded.append)
    q = q if enc.needs_all_queries else q[:, S - T :]
    attend(q, k, v, recorder, x=x_BSD, backend='dense', outer_hooks_applied=True)
    return recorded[-1][0, :, -T:]

  with jax.default_matmul_precision(precision):
    return np.asarray(jax.jit(run)(enc, x_BSD, q_BSHK, k_BSGK))


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in DAILY, 'ci'))
    for v in (*ENCODINGS, *BEHIND_BIAS)
    if v not in MAGNIFYING
  ],
)
def test_scores_are_off_by_little_more_than_their_products(variant, rounding):
  """Only keys that have weight count; what all scores of a query share changes no weight."""
  enc, rng = build(variant, 1), np.random.default_rng(0)
  if variant == 'path':  # beta is nearly 2: it forgets nothing
    enc.b = nnx.Param(jnp.full_like(enc.b[...], 6.0))
  keys = min(512 if enc.needs_all_queries else S, enc.max_length or S)
  heads = (DIMS.heads, DIMS.head_dim), (DIMS.kv_heads, DIMS.head_dim)
  inputs = [rng.standard_normal((1, keys, *shape)) for shape in ((DIMS.model_dim,), *heads)]
  inputs = [x.astype(np.float32) for x in inputs]
  exact, rounded = (scores_at(precision, enc, *inputs) for precision in ('highest', LOW))
  weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
  has_weight = weights > 1e-4 * weights.sum(axis=-1, keepdims=True)
  exact, error = (np.ma.masked_where(~has_weight, x) for x in (exact, rounded - exact))
  exact, error = (x - x.mean(axis=-1, keepdims=True) for x in (exact, error))
  error = np.abs(error).max(axis=(1, 2)) / np.maximum(1, exact.std(axis=(1, 2)))
  assert error.max() < MOST


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in ENCODINGS and declared(v).needs_inputs, 'ci'))
    for v in VARIANTS
  ],
)
def test_products_of_coordinates_stay_exact_at_any_precision(variant):
  """Angles and gates that are added up along tokens, and what distances multiply."""
  enc, ids = declared(variant), jnp.arange(8)[None]
  x = jax.ShapeDtypeStruct((1, 8, DIMS.model_dim), jnp.bfloat16)
  run = lambda enc, x: enc.coordinates(x, positions_of(enc, ids), ids + 1, ids)
  with jax.default_matmul_precision('default'):
    text = str(jax.make_jaxpr(run)(enc, x))
  is_rounded = text.count('dot_general[') > text.count('precision=(Precision.HIGHEST')
  of_inputs = [part for part in enc.parts() if part.needs_inputs]
  assert is_rounded == any(isinstance(part, ENCODINGS[n]) for part in of_inputs for n in ROUNDED)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=daily_if(n in ('dape', 'fire', 'talking_heads'), 'ci'))
    for n in ENCODINGS
    if declared(n).has('score')
  ],
)
def test_exact_products_of_scores_are_declared(name):
  """They stand in the program as those of all 3 x 11 pairs."""
  d, enc = DIMS, declared(name)
  shapes = (1, 11, d.model_dim), (1, 3, d.heads, d.head_dim), (1, 11, d.kv_heads, d.head_dim)
  x, q, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  run = lambda enc, x, q, k: recorded_scores(enc, q, k, x=x)
  with jax.default_matmul_precision('default'):
    text = str(jax.make_jaxpr(run)(enc, x, q, k))
  exact = re.findall(r'\[([\d,]+)\] = dot_general\[\n.*\n +precision=\(Precision.HIGHEST', text)
  assert enc.exact_products == any('33' in shape.split(',') for shape in exact)


def test_products_that_stay_exact_are_so_at_any_precision():
  """The inverse of PaTH, and its gradient: on accelerators the default rounds."""
  program = jax.make_jaxpr(jax.value_and_grad(lambda x: lower_inverse(x).sum()))
  with jax.default_matmul_precision('default'):
    text = str(program(jnp.zeros((8, 8))))
  assert text.count('dot_general[') == text.count('precision=(Precision.HIGHEST') >= 8
