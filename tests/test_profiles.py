"""Profiles of encodings: what position adds to a score, of every encoding in every form."""

import numpy as np
import pytest
from flax import nnx
from kinds import daily_if, representatives
from test_laws import DIMS, VARIANTS, make_variant

from posenc_jax.encodings import make
from posenc_jax.inspection.profiles import against_distance, from_spec, profile, thin


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in representatives())) for v in VARIANTS]
)
def test_every_encoding_has_a_profile_where_heads_share_keys(variant):
  """A curve of each head that comes out, also of hyperparameters that change what a score reads."""
  enc = make_variant(variant)
  assert enc.dims.kv_heads < enc.dims.heads
  for mean_RH, spread_RH in against_distance(enc, 9, samples=2, seed=0).values():
    assert mean_RH.shape == (9, enc.heads_out_per_head * DIMS.heads)
    assert spread_RH is None or spread_RH.shape == mean_RH.shape
    assert not np.isinf(mean_RH).any()


@pytest.mark.parametrize('taker', [(), ('rope',)])
def test_what_takes_several_positions_of_the_data_has_a_profile(taker):
  coupling = {'name': 'position_coupling', 'levels': 2, 'max_length': 9}
  encoding = {'name': 'chain', 'members': (coupling, *taker)} if taker else coupling
  sizes = dict(model_dim=32, heads=4, kv_heads=2, head_dim=8, train_length=9)
  enc = make(**encoding, **sizes, rngs=nnx.Rngs(0))
  for mean_RH, _ in against_distance(enc, 9, samples=2, seed=0).values():
    assert mean_RH.shape == (9, 4)


@pytest.mark.parametrize(('spec', 'reads'), [('bipe/places=9', True), ('learned', False)])
def test_a_profile_says_that_it_has_no_tokens_to_read_positions_off(spec, reads):
  enc = from_spec(spec, heads=2, head_dim=4, train_length=9, seed=0)
  notes = profile(enc, 9, samples=2, seed=0).notes
  assert any('reads positions off tokens' in note for note in notes) == reads


@pytest.mark.parametrize('average', [True, False])
@pytest.mark.parametrize('length', [1, 2, 3, 4, 6, 17, 128])
def test_thinned_places_are_distances_and_an_average_is_one_of_all(length, average):
  values_RH = np.arange(length, dtype=float)[:, None]
  places, thinned_RH = thin(values_RH, average)
  assert list(places) == list(thinned_RH[:, 0])
  assert list(places) == sorted({*places})
  assert places[0] == 0
  assert places[-1] < length


def test_thinning_keeps_near_distances_and_means():
  values_RH = np.random.default_rng(0).standard_normal((512, 2))
  for average in (True, False):
    places, thin_RH = thin(values_RH, average)
    assert places[:8].tolist() == list(range(8))
    assert np.array_equal(thin_RH[:8], values_RH[:8])
    assert len(places) == len(thin_RH) < 110
    assert average or np.array_equal(thin_RH, values_RH[places])
  assert np.all(np.diff(places) > 0)
  line_R = np.arange(512.0)
  places, means_RH = thin(line_R[:, None], average=True)
  np.testing.assert_allclose(means_RH[:, 0], places)
