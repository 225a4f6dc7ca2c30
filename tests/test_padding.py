"""Padding of the last tiles reaches no gradient, whatever a score makes of it."""

import dataclasses

import jax
import pytest
from against_dense import gradients_of_layer
from flax import nnx
from kinds import daily_if
from test_laws import DIMS, close

from posenc_jax.encodings import ENCODINGS, make

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
