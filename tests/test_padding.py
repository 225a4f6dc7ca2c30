"""Padding of the last tiles reaches no gradient, whatever a score makes of it."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from against_dense import check_equal, gradients_of_layer
from flax import nnx
from kinds import daily_if
from test_laws import DIMS, close

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
  check_equal('diagonals', Cosine(DIMS, nnx.Rngs(0)), 32, (4, 4))
