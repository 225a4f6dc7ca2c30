"""Sink rates and attention distances against weights that are computed pair by pair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if
from oracles import RECORDS
from test_evaluation import BASE, TINY, chosen_documents, overlaid, rows_of
from test_model import VOCAB, config

from posenc_jax.attention import BACKENDS, attend
from posenc_jax.attention.request import build_request
from posenc_jax.config import load, overlay, validate
from posenc_jax.encodings import ENCODINGS, Encoding
from posenc_jax.encodings.core.base import delegate_to_inner
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, windows
from posenc_jax.evaluation.model_functions import compiled
from posenc_jax.inspection import attention_weights
from posenc_jax.inspection.recorder import Recorder
from posenc_jax.model.decoder import build

WINDOW = 5
TOKENS = np.random.default_rng(0).integers(0, VOCAB - 1, (3, 12)).astype(np.int32)


def model_of(encoding: dict, **overrides):
  """A model away from its initial values, so that heads are sharp and differ."""
  c = config(model__layers=2, model__kv_heads=2, model__head_dim=8, **overrides)
  overlay(c, {'encoding': encoding})
  model = build(c, VOCAB, nnx.Rngs(0))
  rng = np.random.default_rng(1)
  moved = jax.tree.map(
    lambda p: jnp.asarray(p + 0.3 * rng.standard_normal(p.shape), jnp.float32), model
  )
  return moved.constrain_parameters()


class RowRecorder(Recorder):
  """The encoding `inner`; `record(weights)` is called with the weights that it makes of rows."""

  def has(self, hook: str) -> bool:
    return self.inner.has(hook)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return self.inner.score(s_BHTS, q_BHTK, k_BGSK, tile)

  def normalize(self, s_BHTS, tile):
    p_BHTS = self.inner.normalize(s_BHTS, tile)
    self.record(p_BHTS)
    return p_BHTS


delegate_to_inner(RowRecorder, ('score', 'normalize'))


def dense_scores(layer, x_BTD, enc, options):
  """The scores of a layer [B, H, T, T], and those of its sink [B, T, H], or None.

  Of an encoding that turns whole rows of scores into weights, the weights.
  """
  y_BTD = layer.block_input(x_BTD, 'attention')
  q, k, _ = enc.enter_attention(*layer.project_heads(y_BTD, enc), options.pop('state', None))
  recorded, v = [], jnp.zeros_like(k)
  options |= {'backend': 'dense', 'outer_hooks_applied': True}
  recorder = RowRecorder if enc.normalizer == 'rows' else Recorder
  attend(q, k, v, recorder(enc, recorded.append), x=y_BTD, **options)
  if not enc.has('sink'):
    return recorded[-1], None
  ids = options['position_ids']
  request = build_request(q, k, v, enc, x=y_BTD, position_ids=ids, outer_hooks_applied=True)
  return recorded[-1], request.sink_BTH


def dense_weights(scores_BHTS, sink_BTH, enc, options) -> np.ndarray:
  """The weights of a layer, float64 [B, H, T, T], from what `dense_scores` returns."""
  scores_BHTS = np.asarray(scores_BHTS, np.float64)
  if enc.normalizer == 'rows':
    return scores_BHTS
  T = scores_BHTS.shape[-1]
  distance_TS = np.arange(T)[:, None] - np.arange(T)[None]
  is_seen = (distance_TS >= 0) & (distance_TS < (options.get('window') or T))
  exp_BHTS = np.where(is_seen, np.exp(np.minimum(scores_BHTS, 700)), 0.0)
  if enc.normalizer == 'none':
    return exp_BHTS
  total_BHT = exp_BHTS.sum(axis=-1)
  if sink_BTH is not None:
    total_BHT = total_BHT + np.exp(np.asarray(sink_BTH, np.float64)).swapaxes(1, 2)
  return exp_BHTS / total_BHT[..., None]


def weights_by_layer(model, **options) -> np.ndarray:
  """The weights of all layers, [B, N, H, T, T], each from the input that the layer has."""
  static = {}

  def observe(layer, x_BTD, enc, own_options):
    del layer, enc
    static.update({k: v for k, v in own_options.items() if not isinstance(v, jax.Array)})
    return x_BTD, {k: v for k, v in own_options.items() if isinstance(v, jax.Array)}

  inputs = jnp.pad(TOKENS[:, :-1], ((0, 0), (1, 0)), constant_values=VOCAB - 1)
  _, (x_NBTD, arrays) = jax.jit(functools.partial(model, observe=observe, **options))(inputs)
  scores = jax.jit(lambda *args: dense_scores(*args[:3], static | args[3]))
  weights = []
  for n, x_BTD in enumerate(x_NBTD):
    layer = jax.tree.map(lambda leaf, n=n: leaf[n], model.layers)
    own = jax.tree.map(lambda leaf, n=n: leaf[n], arrays)
    enc = model.encodings.variants[0].layer(n)
    weights.append(dense_weights(*scores(layer, x_BTD, enc, own), enc, static))
  return np.stack(weights, axis=1)


def expected(weights_BNHTS):
  """(weight on the first key, distance to others by weight), [B, N, H] and [N, H], pair by pair."""
  B, N, H, T, _ = weights_BNHTS.shape
  first_BNH, distance_NH = np.zeros((B, N, H)), np.zeros((N, H))
  for n, h in np.ndindex(N, H):
    total = mass = 0.0
    for b, i in np.ndindex(B, T):
      first_BNH[b, n, h] += weights_BNHTS[b, n, h, i, 0] / T
      for j in range(1, i + 1):
        mass += weights_BNHTS[b, n, h, i, j]
        total += weights_BNHTS[b, n, h, i, j] * (i - j)
    distance_NH[n, h] = total / mass if mass else np.nan
  return first_BNH, distance_NH


# Of each way in which an encoding meets weights and values one.
DAILY = ('sink', 'stick_breaking', 'vo_rope', 'xsa')


@pytest.mark.parametrize('backend', ['blockwise', pytest.param('dense', marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY)) for name in ENCODINGS]
)
def test_statistics_of_heads_are_those_of_the_matrix_of_weights(name, backend):
  model = model_of({'name': name, **RECORDS[name].hyper})
  if model.encodings.first_layers[0].normalizer == 'rows' and backend == 'blockwise':
    pytest.skip('tiles refuse it')
  options = {'window': WINDOW if name in ('rope', 'sink') else None, 'block_sizes': (4, 4)}
  first_BNH, distance_NH = expected(weights_by_layer(model, **options))
  sums = functools.partial(attention_weights.weight_sums, model, backend=backend, **options)
  sums_BNHC = windows.sums_of_windows(jax.jit(sums), TOKENS, 12, 24)
  np.testing.assert_allclose(sums_BNHC[..., 0], first_BNH, rtol=2e-4, atol=2e-5)
  found_NH = attention_weights.mean_distances(sums_BNHC)
  np.testing.assert_allclose(found_NH, distance_NH, rtol=2e-4, atol=2e-5)
  if model.encodings.first_layers[0].normalizer == 'softmax':
    is_whole = not model.encodings.first_layers[0].has('sink')
    assert np.allclose(sums_BNHC[..., :2].sum(axis=-1), 1, atol=1e-5) == is_whole


@pytest.mark.parametrize('T', [16, 256])
def test_a_sink_is_no_distance(T):
  """A head that weighs the first key and the token before is 1 token away, whatever the length."""

  class HalfSink(Encoding):
    position_kind = None

    def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
      is_either = (tile.index_distance == 1) | (jnp.arange(T)[None] == 0)
      return jnp.broadcast_to(jnp.where(is_either, 0.0, -jnp.inf)[None, None], s_BHTS.shape)

  c = config(model__layers=1)
  model = build(c, VOCAB, nnx.Rngs(0))
  layer = jax.tree.map(lambda leaf: leaf[0], model.layers)
  x_BTD = jax.random.normal(jax.random.key(0), (1, T, model.embedding.shape[1]))
  enc = HalfSink(model.encodings.variants[0].layer(0).dims, nnx.Rngs(0))
  sums_BHC = attention_weights.head_sums(layer, x_BTD, enc, {})
  found_NH = attention_weights.mean_distances(np.asarray(sums_BHC)[:, None])
  np.testing.assert_allclose(found_NH, 1, atol=0.01)


def test_heads_without_weight_have_no_distance(make_run, capsys, monkeypatch):
  c, workdir, _ = make_run(**STATISTICS)
  of_heads = attention_weights.mean_distances
  dead = lambda sums_WNHC: np.where([True, False], np.nan, of_heads(sums_WNHC))
  monkeypatch.setattr(attention_weights, 'mean_distances', dead)
  evaluate.evaluate(c, workdir)
  rows = [r for r in rows_of(workdir) if r['protocol'] == 'attention_distance']
  assert {r['position'] for r in rows if r['status'] == 'no_weight'} == {0, 1000}
  assert 'tokens from a query to its keys but BOS' in capsys.readouterr().out


def test_weights_that_are_no_numbers_have_no_statistics(make_run, monkeypatch):
  c, workdir, _ = make_run(**STATISTICS)
  sums_of_windows = windows.sums_of_windows

  def one_is_nan(*args):
    sums_WNHC = sums_of_windows(*args)
    sums_WNHC[0, 1, 1] = np.nan
    return sums_WNHC

  monkeypatch.setattr(windows, 'sums_of_windows', one_is_nan)
  evaluate.evaluate(c, workdir)
  rows = rows_of(workdir)
  assert {r['protocol'] for r in rows} == {*STATISTICS['eval__protocols']}
  assert {r['status'] for r in rows} == {'not_finite'}


def test_kernels_that_take_no_narrow_values_have_statistics(monkeypatch):
  """A kernel that a run names computes its layers, and the measurement takes another backend."""
  kernel, widths = BACKENDS['triton_interpret'], set()

  def refuse(request):
    widths.add(width := request.v_BSGK.shape[-1])
    return f'a head is 8 wide, not {width}' if width != 8 else kernel.refuse(request)

  monkeypatch.setitem(BACKENDS, 'triton_interpret', kernel._replace(refuse=refuse))
  model = model_of({'name': 'rope'})
  sums = functools.partial(attention_weights.weight_sums, model, TOKENS)
  found, expected = (
    jax.jit(functools.partial(sums, **options))()
    for options in ({'backend': 'triton_interpret', 'block_sizes': (4, 4)}, {'backend': 'dense'})
  )
  assert widths == {8}
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


STATISTICS = {'eval__protocols': ('sink_rate', 'attention_distance'), 'eval__sink_rate_tokens': 10}


def test_rows_are_the_statistics_of_a_run(make_run, capsys):
  """`rope_pp` has two heads of weights for each head of queries."""
  c, workdir, model = make_run(**STATISTICS, eval__sink_rate_epsilon=0.3, encoding__name='rope_pp')
  evaluate.evaluate(c, workdir)
  texts = [windows.excerpt(text, 40) for text in chosen_documents(c).values()]
  sums = compiled(attention_weights.weight_sums, c)
  rows = {}
  for row in rows_of(workdir):
    assert (row['protocol'], row['status']) == (row['metric'], 'ok')
    rows[row['metric'], row['length'], row['position']] = row['value']
  short_WT = windows.whole_windows(texts, 10).astype(np.int32)
  first_WNH = np.asarray(sums(model, short_WT), np.float64)[..., 0]
  assert rows.pop(('sink_rate', 10, None)) == pytest.approx(np.mean(first_WNH > 0.3))
  assert 0 < np.mean(first_WNH > 0.3) < 1
  for length in (16, 32):
    windows_WT = windows.whole_windows(texts, length).astype(np.int32)
    sums_WNHC = np.asarray(sums(model, windows_WT), np.float64)
    distance_NH = sums_WNHC[..., 2].sum(axis=0) / sums_WNHC[..., 1].sum(axis=0)
    for n, h in np.ndindex(2, 4):
      found = rows.pop(('attention_distance', length, 1000 * n + h))
      assert found == pytest.approx(distance_NH[n, h], rel=1e-5)
  assert not rows
  out = capsys.readouterr().out
  assert 'of heads have a sink' in out
  assert 'attention_distance at 32: ' in out


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'eval__sink_rate_tokens': 33}, r'eval.sink_rate_tokens=33; allowed: at most the longest of'),
    ({'eval__sink_rate_tokens': 1}, 'eval.sink_rate_tokens=1; allowed: 2 or more'),
    ({'eval__sink_rate_epsilon': 1.0}, 'sink_rate_epsilon=1.0; allowed: more than 0, less than 1'),
    ({'model__heads': 251}, 'model.heads=251; allowed: at most 250 for attention_distance'),
  ],
)
def test_bad_settings_are_one_line(overrides, words):
  with pytest.raises(UserError, match=words):
    validate(overlaid(load(BASE, TINY), **STATISTICS | overrides))


def test_the_sink_rate_asks_for_excerpts_of_its_own_windows():
  overrides = {'eval__protocols': ('sink_rate',), 'eval__sink_rate_tokens': 10}
  of_tokens = lambda tokens: overlaid(load(BASE, TINY), **overrides, eval__document_tokens=tokens)
  validate(of_tokens(10))
  with pytest.raises(UserError, match=r'document_tokens=9; allowed: 10 or more .*\(sink_rate\)'):
    validate(of_tokens(9))


def test_memory_is_linear_in_the_window():
  """From 1024 to 8192 tokens, of which one matrix of weights of all heads is 1 GiB."""
  model = model_of({'name': 'rope'})
  sizes = []
  for T in (1024, 8192):
    tokens_BT = jax.ShapeDtypeStruct((1, T), jnp.int32)
    sums = functools.partial(attention_weights.weight_sums, backend='blockwise')
    compiled_sums = jax.jit(sums).lower(model, tokens_BT).compile()
    sizes.append(compiled_sums.memory_analysis().temp_size_in_bytes)
  assert sizes[1] < 10 * sizes[0]
  assert sizes[1] < 2**27
