"""The log-sum-exp that `attend` returns: that of float64 loops, with gradients; parts of the keys,
merged by it, are the whole.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if
from test_laws import DIMS, SEGMENTS, check_with_oracle
from test_masks import TILES, holes, takes

from posenc_jax.attention import attend, auto_backend
from posenc_jax.attention.request import build_request
from posenc_jax.encodings import make


def parts_of(enc, weights, x_BSD, *, T=None, backend, block_sizes, segment_ids=None, **options):
  """(o, log-sum-exp) of a first layer."""
  q, k, v = (jnp.einsum('bsd,dhk->bshk', x_BSD, weights[n]) for n in 'qkv')
  S = x_BSD.shape[1]
  return attend(
    q[:, S - (T or S) :],
    k,
    v,
    enc,
    x=x_BSD,
    segment_ids=None if segment_ids is None else jnp.asarray(segment_ids),
    backend=backend,
    block_sizes=block_sizes,
    return_logsumexp=True,
    **options,
  )


def joined(*args, with_lse: bool, **options):
  """The output with the log-sum-exp as one channel more."""
  o_BTHK, lse_BTH = parts_of(*args, **options)
  assert lse_BTH.dtype == jnp.float32
  return jnp.concatenate([o_BTHK, lse_BTH[..., None]], axis=-1)


def merged(*args, mask, **options):
  """Three parts of the keys, merged as the docstring of `attend` says from the right: there the
  first queries see no key of two parts.
  """

  def of_part(n):
    here = lambda i, j: mask(i, j) & (jnp.minimum(j // 2, 2) == n)
    return parts_of(*args, mask=here, **options)

  def merge(one, other):
    (o_a, a), (o_b, b) = one, other
    lse = jnp.logaddexp(a, b)
    most = jnp.where(lse > -jnp.inf, lse, 0.0)
    return jnp.exp(a - most)[..., None] * o_a + jnp.exp(b - most)[..., None] * o_b, lse

  return functools.reduce(merge, map(of_part, (2, 1, 0)))[0]


MODES = {
  'causal': {},
  'packed': {'segment_ids': SEGMENTS},
  'softcap': {'softcap': 0.7},
  'last_queries': {'T': 5},
}
# One for each way in which an encoding acts where weights are made of scores.
NAMES = ('nope', 't5', 'fire', 'fox', 'cope', 'shaw', 'sink', 'path', 'rope_pp')
DAILY = (
  *(('dense', 'sink', 'softcap'), ('blockwise', 'sink', 'packed'), ('diagonals', 'shaw', 'causal')),
  *(('fused_interpret', 'sink', 'causal'), ('triton_interpret', 'nope', 'packed')),
)
CASES = [
  (backend, name, mode)
  for backend in ('dense', *TILES)
  for n, name in enumerate(NAMES)
  for mode in ('causal', [*MODES][1 + n % 3])
  if takes(backend, name, mode)
]


def marked(cases, daily):
  return [
    pytest.param(*case, marks=daily_if(case in daily, 'fused' if 'interpret' in case[0] else 'ci'))
    for case in dict.fromkeys((*daily, *cases))
  ]


@pytest.mark.parametrize(('backend', 'name', 'mode'), marked(CASES, DAILY))
def test_the_log_sum_exp_is_that_of_the_oracle(backend, name, mode):
  """Its gradient and that of the output, of all inputs."""
  options = MODES[mode] | {'with_lse': True}
  check_with_oracle(name, options, backend, TILES.get(backend), layer=joined)


# Whose scores do not depend on which other keys are seen; a sink would count twice.
MERGED = ('nope', 't5', 'shaw', 'fire', 'fox', 'path', 'rope_pp', 'vo_rope')
OF_PARTS = [
  (backend, name, 'packed' if n % 2 else 'causal')
  for backend in ('dense', *TILES)
  for n, name in enumerate(MERGED)
  if takes(backend, name, 'causal')
]


@pytest.mark.parametrize(
  ('backend', 'name', 'mode'),
  marked(OF_PARTS, (('dense', 't5', 'packed'), ('blockwise', 't5', 'packed'))),
)
def test_parts_of_the_keys_are_the_whole(backend, name, mode):
  """Values and gradients, where queries see no key of one part, of two, or of any."""
  options = MODES[mode] | {'mask': holes}
  check_with_oracle(name, options, backend, TILES.get(backend), layer=merged)


def small(name='nope', S=11):
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((1, S, heads, 8)), jnp.float32) for heads in (4, 2, 2))
  return q, k, v, make(name, **vars(DIMS), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('backend', ['dense', 'blockwise', 'diagonals'])
def test_of_a_query_that_sees_no_key_it_is_minus_infinity(backend):
  """And the gradients of all others are finite, which merge them with others."""
  q, k, v, enc = small()

  def both(q, k, v):
    o, lse = attend(q, k, v, enc, mask=holes, backend=backend, return_logsumexp=True)
    weight = jnp.exp(lse - jnp.logaddexp(lse, 0.5))  # beside a part that all see
    return (weight[..., None] * o).sum() + jnp.logaddexp(lse, 0.5).sum(), lse

  gradients, lse = jax.jit(jax.grad(both, argnums=(0, 1, 2), has_aux=True))(q, k, v)
  assert (np.isneginf(lse).all(axis=(0, 2)) == np.isin(np.arange(11), [0, 6])).all()
  assert not np.isnan(lse).any()
  assert all(np.isfinite(g).all() for g in gradients)


def test_where_there_is_no_softmax_it_is_refused():
  q, k, v, enc = small('sigmoid')
  message = 'return_logsumexp=True; allowed: False, for Sigmoid'
  with pytest.raises(ValueError, match=message):
    attend(q, k, v, enc, return_logsumexp=True)


def test_kernels_that_keep_it_to_themselves_say_so():
  q, k, v, enc = small()
  for backend in ('cudnn', 'splash'):
    with pytest.raises(NotImplementedError, match='this kernel does not return the log-sum-exp'):
      attend(q, k, v, enc, return_logsumexp=True, backend=backend)

  def ask(q, k, v):
    assert auto_backend(build_request(q, k, v, enc, wants_lse=True)) == 'dense'
    return q

  jax.eval_shape(ask, q, k, v)
