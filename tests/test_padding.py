"""Padding of the last tiles reaches no gradient, whatever a score makes of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import gradients, gradients_of_layer
from flax import nnx
from kinds import daily_if
from test_laws import DIMS, close

from posenc_jax.attention import attend
from posenc_jax.encodings import ENCODINGS, Encoding, make

UNNORMALIZED = [name for name, kind in ENCODINGS.items() if kind.normalizer == 'none']
NOT_IN_TRITON = [(name, 'triton_interpret') for name in ('stick_breaking', 'screening')]
# 11 queries and keys are no whole number of any.
SIZES = {
  'blockwise': (3, 5),
  'diagonals': (4, 4),
  'fused_interpret': (4, 4),
  'triton_interpret': (4, 8),
}


def chain_of(*members):
  return make('chain', **dataclasses.asdict(DIMS), members=members, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ('term', 'name', 'backend'),
  [
    pytest.param(
      term, name, backend, marks=daily_if((name, backend) == ('relu', 'blockwise'), 'ci')
    )
    for term in ('t5', 'fox')
    for name in UNNORMALIZED
    for backend in SIZES
    if (name, backend) not in NOT_IN_TRITON
    if (term, name) != ('t5', 'screening')  # of which each sets the factor of q . k
  ],
)
def test_weights_that_are_not_normalized_behind_terms_that_need_no_query(term, name, backend):
  """A query of zeros has scores above 0 there; it sees as many keys as the last token does."""
  enc = chain_of(term, name)
  desired = gradients_of_layer(enc, 'causal', 'dense')
  jax.tree.map(close, gradients_of_layer(enc, 'causal', backend, SIZES[backend]), desired)


class Cosine(Encoding):
  """Scores are q . k over both norms: of queries and keys of zeros they have no gradient."""

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    q_BHT, k_BGS = (jnp.sqrt((x * x).sum(axis=-1)) for x in (q_BHTK, k_BGSK))
    k_BHS = jnp.repeat(k_BGS, q_BHT.shape[1] // k_BGS.shape[1], axis=1)
    return s_BHTS / (q_BHT[..., None] * k_BHS[:, :, None])


@pytest.mark.parametrize(('backend', 'tile'), SIZES.items())
def test_scores_that_divide_by_norms_of_queries_and_keys(backend, tile):
  enc = Cosine(DIMS, nnx.Rngs(0))
  desired = gradients_of_layer(enc, 'causal', 'dense')
  jax.tree.map(close, gradients_of_layer(enc, 'causal', backend, tile), desired)


def test_rows_of_diagonals_that_meet_no_column():
  """A loop goes over two diagonals of 8 rows of tiles; the first row has a tile on one alone."""
  enc = Cosine(DIMS, nnx.Rngs(0))
  shapes = [(1, 32, n, DIMS.head_dim) for n in (DIMS.heads, DIMS.kv_heads, DIMS.kv_heads)]
  rng = np.random.default_rng(0)
  q, k, v, weight = (rng.standard_normal(shape).astype('f4') for shape in (*shapes, shapes[0]))

  def by(backend, tile=None):
    run = lambda *qkv: attend(*qkv, enc, backend=backend, block_sizes=tile)
    return gradients(run, weight, q, k, v)

  jax.tree.map(close, by('diagonals', (4, 4)), by('dense'))
