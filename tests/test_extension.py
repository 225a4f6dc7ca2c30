"""Adding an encoding costs a file and a line: a toy encoding that is registered here goes through
every backend, and what is wrong with a class is said. That a private one trains, evaluates and
stands in a table is a test of test_commands.py.
"""

import re
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from posenc_jax import encodings, load_run, storage
from posenc_jax.attention import BACKENDS, attend
from posenc_jax.encodings import Encoding
from posenc_jax.encodings.rope import ByAngles, RoPE
from posenc_jax.errors import UserError
from posenc_jax.inspection.laws import check_laws
from posenc_jax.training import provenance
from posenc_jax.training.own_encodings import user_code_hashes


class SquareRoot(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - rate_h sqrt|i - j|, with a learned rate a head."""

  paper = 'invented for this test'
  bias_in_scale = False

  def __init__(self, dims, rngs, *, rate: float = 0.5):
    super().__init__(dims, rngs)
    self.rates = nnx.Param(jnp.full(dims.heads, rate, jnp.float32))

  def bias(self, r_R):
    return -jnp.multiply.outer(jnp.sqrt(jnp.abs(r_R).astype(jnp.float32)), self.rates[...])


@pytest.fixture
def registered(monkeypatch):
  monkeypatch.setitem(encodings.ENCODINGS, 'square_root', SquareRoot)


@pytest.mark.ci
def test_through_every_backend(registered):
  enc = encodings.make(
    'square_root', model_dim=16, heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0), rate=1
  )
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 11, 2, 8)), jnp.float32) for _ in range(3))
  i, j = np.arange(11)[:, None], np.arange(11)[None]
  s = np.einsum('bthk,bshk->bhts', q, k) / np.sqrt(8) - np.sqrt(np.abs(i - j))
  p = np.where(j <= i, np.exp(s), 0)
  desired = np.einsum('bhts,bshk->bthk', p / p.sum(-1, keepdims=True), v)
  gradients = {}
  for backend in BACKENDS:
    if backend in ('cudnn', 'splash', 'fused', 'triton', 'ring', 'ring_interpret'):
      reasons = r'acts on pairs|needs a mesh|need a TPU|need an NVIDIA GPU'
      with pytest.raises(NotImplementedError, match=reasons):
        attend(q, k, v, enc, backend=backend)
      continue
    run = lambda enc, backend=backend: attend(q, k, v, enc, backend=backend, block_sizes=(4, 4))
    loss = lambda enc, run=run: (((o := run(enc)) ** 2).sum(), o)
    gradient, o = jax.jit(jax.grad(loss, has_aux=True))(enc)
    np.testing.assert_allclose(o, desired, atol=1e-5)
    gradients[backend] = gradient.rates[...]
  for backend, gradient in gradients.items():
    np.testing.assert_allclose(gradient, gradients['dense'], rtol=1e-4, err_msg=backend)


def test_a_term_must_say_whether_it_is_in_the_scale(monkeypatch):
  monkeypatch.setitem(
    encodings.ENCODINGS, 'undecided', type('Undecided', (SquareRoot,), {'bias_in_scale': None})
  )
  with pytest.raises(ValueError, match='undecided: defines bias without bias_in_scale; allowed'):
    encodings.make(
      'undecided', model_dim=16, heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0)
    )


SIZES = dict(model_dim=16, heads=2, head_dim=8, train_length=16)


class Undefaulted(SquareRoot):
  def __init__(self, dims, rngs, *, rate: float):
    super().__init__(dims, rngs, rate=rate)


class Untyped(SquareRoot):
  def __init__(self, dims, rngs, *, rate=0.5):
    super().__init__(dims, rngs, rate=rate)


class BeforeStar(SquareRoot):
  def __init__(self, dims, rngs, rate: float = 0.5):
    super().__init__(dims, rngs, rate=rate)


class OfDict(SquareRoot):
  def __init__(self, dims, rngs, *, values: int = 8):
    super().__init__(dims, rngs)


class Named(SquareRoot):
  def __init__(self, dims, rngs, *, name: str = 'mine'):
    super().__init__(dims, rngs)


class Literally(SquareRoot):
  def __init__(self, dims, rngs, *, kind: typing.Literal['a', 'b'] = 'a'):
    super().__init__(dims, rngs)


class Arrays(SquareRoot):
  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.slopes = jnp.arange(2.0)


def holding(make):
  def init(self, dims, rngs):
    SquareRoot.__init__(self, dims, rngs)
    self.held = make(rngs)

  return changed(__init__=init)


def setting(**attributes):
  """A class whose instances set these attributes themselves."""

  def init(self, dims, rngs):
    SquareRoot.__init__(self, dims, rngs)
    vars(self).update(attributes)

  return changed(__init__=init)


def changed(**attributes):
  return type('Changed', (SquareRoot,), attributes)


@pytest.mark.parametrize(
  ('kind', 'reason'),
  [
    (Undefaulted, 'own: hyperparameter rate has no default; allowed: one, such as rate: float = 1'),
    (Untyped, 'own: hyperparameter rate has no type; allowed: one, such as rate: float = 1.0'),
    (
      BeforeStar,
      r'own: hyperparameter rate stands before \*; allowed: '
      r'\(self, dims, rngs, \*, rate: float = 1\.0\)$',
    ),
    (OfDict, 'own: hyperparameter values has a name that configs have for themselves; allowed: an'),
    (Named, 'own: hyperparameter name has a name that configs have for themselves; allowed: anot'),
    (Literally, 'own: hyperparameter kind is of type .*Literal.*; allowed: int, float, bool, str'),
    (Arrays, 'own: slopes is an array, and would be trained; allowed: a number or a tuple, or nnx'),
    (holding(lambda _: np.ones(2)), 'own: held is an array, and would be trained'),
    (holding(lambda _: nnx.Variable(jnp.ones(2))), 'own: held is a Variable of float32, and wou'),
    (holding(lambda _: nnx.Param(jnp.ones(2, int))), 'own: held is a Param of int32, and would'),
    (holding(lambda rngs: rngs), 'own: held.default.count is a RngCount of uint32, and would be'),
    (
      holding(lambda rngs: nnx.List([nnx.BatchNorm(2, rngs=rngs)])),
      'own: held.0.mean is a BatchStat of float32, and would be trained; allowed: a number or',
    ),
    (
      changed(biass=lambda self, r: r),
      r"own: biass is no hook; did you mean 'bias'\?; allowed: of a helper another name, or _biass",
    ),
    (
      changed(constrain_params=lambda self: self),
      "own: constrain_params is no hook; did you mean 'constrain_parameters'",
    ),
    (
      changed(normaliser='none'),
      r"own: normaliser is no declaration; did you mean 'normalizer'\?; allowed: of anything else",
    ),
    (changed(causal_onlly=True), "own: causal_onlly is no declaration; did you mean 'causal_only'"),
    (changed(per_layers=('rates',)), "own: per_layers is no declaration; did you mean 'per_layer'"),
    (setting(needs_all_query=True), 'own: needs_all_query is no declaration; did you mean'),
    (changed(normalizer='softmx'), "own: normalizer='softmx'; allowed: 'softmax', 'none', 'rows'$"),
    (setting(position_kind='ints'), "own: position_kind='ints'; allowed: 'integers', 'floats', No"),
    (
      setting(scale=2.0),
      'own: the attribute scale hides the method of that name; allowed: another name, or _scale',
    ),
    (
      changed(scale=lambda self, head_dim: self.rates[0]),
      'own: scale is of type [A-Za-z]*; allowed: a Python number; what is learned, a temperature',
    ),
    (changed(__init__=lambda self, dims, rngs: None), 'own has no dims; allowed: one whose __init'),
    (
      changed(per_layer=('rate',)),
      r"own: per_layer=\('rate',\) names no parameter; allowed: some of rates, or \(\)",
    ),
    (
      setting(per_layer=('rates', 'gain'), gains=nnx.Param(jnp.ones(2))),
      r"own: per_layer=\('rates', 'gain'\) names gain, which is no parameter; did you mean 'gains'",
    ),
    (
      setting(per_layer=('rates', 'bias_f'), b_f=nnx.Param(jnp.ones(2))),
      r"own: per_layer=\('rates', 'bias_f'\) names bias_f, which is no parameter; did you mean ",
    ),
  ],
)
def test_what_would_be_lost_or_trained_is_refused(kind, reason, monkeypatch):
  monkeypatch.setitem(encodings.ENCODINGS, 'own', kind)
  with pytest.raises(ValueError, match=f'^{reason}'):
    encodings.make('own', **SIZES, rngs=nnx.Rngs(0))


CHECKED = """
from __future__ import annotations

from typing import TYPE_CHECKING

from posenc_jax import Encoding

if TYPE_CHECKING:
  from flax import nnx
  from posenc_jax import Dims

  Rate = float | None


class Checked(Encoding):
  def __init__(self, dims: Dims, rngs: nnx.Rngs, *, rate: float | None = None):
    super().__init__(dims, rngs)
    self.rate = rate
"""


def test_types_that_only_checkers_import(monkeypatch):
  """They may stand where nobody but these reads them, not at a hyperparameter."""
  known, unknown = ({'__name__': 'checked'} for _ in range(2))
  exec(CHECKED, known)
  exec(CHECKED.replace('rate: float | None', 'rate: Rate'), unknown)
  monkeypatch.setitem(encodings.ENCODINGS, 'own', known['Checked'])
  assert encodings.make('own', **SIZES, rngs=nnx.Rngs(0), rate=1).rate == 1.0
  with pytest.raises(ValueError, match=r"^own: rate='1'; allowed: a finite number or None$"):
    encodings.make('own', **SIZES, rngs=nnx.Rngs(0), rate='1')
  monkeypatch.setitem(encodings.ENCODINGS, 'own', unknown['Checked'])
  with pytest.raises(ValueError, match=r'^own: hyperparameter rate is of type Rate; allowed: int'):
    encodings.make('own', **SIZES, rngs=nnx.Rngs(0))


class WithLayers(SquareRoot):
  """Has private helpers named like hooks, layers in a list, and another encoding in one."""

  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.mlp = nnx.List([nnx.Linear(2, 2, rngs=rngs)])
    self.others = nnx.List([encodings.make('sandwich', **SIZES, rngs=rngs)])

  def _bias(self, r_R):
    return super().bias(r_R)

  def bias(self, r_R):
    return self._bias(r_R)


def test_private_helpers_and_layers_in_lists_are_taken(monkeypatch):
  monkeypatch.setitem(encodings.ENCODINGS, 'own', WithLayers)
  enc = encodings.make('own', **SIZES, rngs=nnx.Rngs(0))
  constrained = enc.constrain_parameters()
  jax.tree.map(np.testing.assert_array_equal, constrained, enc)


@pytest.mark.parametrize(
  ('kind', 'reason'),
  [
    (changed(bias_in_scale=None), 'Changed: defines bias without bias_in_scale'),
    (changed(normalize=lambda self, s, tile: s), "Changed: normalizer='softmax'; allowed: 'rows'"),
    (
      changed(bias=lambda self, r: r),
      'Changed: bias has shape (7,) for 7 distances; allowed: [R, 1 or 2 heads]',
    ),
    (
      changed(bias=lambda self, r: jnp.zeros((len(r), 3))),
      'Changed: bias has shape (7, 3) for 7 distances; allowed: [R, 1 or 2 heads]',
    ),
    (
      changed(bias=lambda self, r: -jnp.abs(r)[:, None]),
      'Changed: bias has dtype int32; allowed: float32, such as r_R.astype(jnp.float32)',
    ),
    (
      changed(relative_keys=lambda self, r: jnp.zeros((len(r), 1, 7))),
      'Changed: relative_keys has shape (7, 1, 7) for 7 distances; allowed: [R, 1 or 2 heads, 8 ch',
    ),
    (
      changed(tables=lambda self, r: {'own': jnp.zeros(len(r))}),
      'Changed: tables has shape (7,) for 7 distances; allowed: [R, 1 or 2 heads] or [R, 1 or 2 h',
    ),
    (
      changed(tables=lambda self, r: {'own': r[:, None]}),
      'Changed: tables has dtype int32; allowed: float32',
    ),
    (changed(bias=lambda self, r: r[None]), 'Changed: bias has shape (1, 7) for 7 distances'),
    (
      changed(score=lambda self, s, q, k, tile: s[:, :1]),
      'Changed: score has shape (1, 1, 4, 4); allowed: that of the scores, (1, 2, 4, 4)',
    ),
    (
      changed(score=lambda self, s, q, k, tile: s.astype(jnp.bfloat16)),
      'Changed: score has dtype bfloat16; allowed: float32, such as .astype(jnp.float32)',
    ),
    (
      changed(normalizer='rows', normalize=lambda self, s, tile: s.sum(axis=-1)),
      'Changed: normalize has shape (1, 2, 4); allowed: that of the scores, (1, 2, 4, 4)',
    ),
    (
      changed(normalizer='rows', normalize=lambda self, s, tile: s.astype(jnp.float16)),
      'Changed: normalize has dtype float16; allowed: float32, such as .astype(jnp.float32)',
    ),
    (
      changed(score=lambda self, s, q, k, tile: tile.suffix_sum(s)),
      'score carries more along the keys than 0 values; allowed: a shape in `scans_keys` for each',
    ),
    (
      changed(
        scans_keys=((), ()), causal_only=True, score=lambda self, s, q, k, tile: tile.suffix_sum(s)
      ),
      'Changed: score carries 1 of 2 values along the keys; allowed: all, one for each shape',
    ),
    (
      changed(scans_keys=((),), score=lambda self, s, q, k, tile: tile.suffix_sum(s)),
      'Changed: scans_keys=((),); allowed: causal_only = True, for what is carried along the keys',
    ),
    (
      changed(hides_from=5, score=lambda self, s, q, k, tile: s),
      'Changed: hides_from=5; allowed: None, or hides_keys = True, by which no other encoding',
    ),
    (
      changed(score=lambda self, s, q, k, tile: s, recomputes_scores=True),
      'Changed: defines bias, and recomputes_scores=True; allowed: no bias, for `score` is given',
    ),
    (
      changed(coordinates=lambda self, x, position_ids, visible, index: position_ids),
      'Changed: coordinates have dtype int32; allowed: float32',
    ),
    (
      changed(
        coordinates=lambda self, x, position_ids, visible, index: position_ids.astype(jnp.bfloat16),
        score=lambda self, s, q, k, tile: s,
      ),
      'Changed: coordinates have dtype bfloat16; allowed: float32',
    ),
    (changed(__init__=lambda self: None), 'Changed has no dims; allowed: one whose __init__ calls'),
  ],
)
def test_attend_says_what_is_wrong_with_a_class(kind, reason):
  """Also with one that `make` has never seen."""
  q = jnp.ones((1, 4, 2, 8))
  own = '__init__' in vars(kind)
  enc = kind() if own else kind(encodings.Dims(16, 2, 2, 8, 16), nnx.Rngs(0))
  with pytest.raises(ValueError, match=f'^{re.escape(reason)}'):
    attend(q, q, q, enc, is_causal=enc.causal_only)


def test_a_term_that_no_score_is_given_is_refused_in_a_part_of_the_heads(monkeypatch):
  """Where the term would be added to scores that are there for the other heads."""
  kind = changed(score=lambda self, s, q, k, tile: s, recomputes_scores=True)
  monkeypatch.setitem(encodings.ENCODINGS, 'own', kind)
  enc = encodings.make('heads', **SIZES, rngs=nnx.Rngs(0), members=('nope', 'own'))
  q = jnp.ones((1, 4, 2, 8))
  with pytest.raises(ValueError, match=r'^Changed: defines bias, and recomputes_scores=True; a'):
    attend(q, q, q, enc)


@pytest.mark.parametrize('backend', ['dense', 'blockwise', 'diagonals'])
def test_a_sum_that_may_be_skipped_is_declared_as_any_other(backend):
  def score(self, s, q, k, tile):
    near = lambda: s - tile.suffix_sum(jnp.ones_like(s))
    return tile.cond_saturated(9.0, near, lambda: s - 9.0)

  enc = changed(score=score, causal_only=True)(encodings.Dims(16, 2, 2, 8, 16), nnx.Rngs(0))
  q = jnp.ones((1, 4, 2, 8))
  with pytest.raises(ValueError, match=r'^score carries more along the keys than 0 values; allow'):
    attend(q, q, q, enc, backend=backend, block_sizes=(2, 2))


def counted(self, s, q, k, tile):
  """A tile has a part of the keys."""
  return s / tile.mask.sum(axis=-1, dtype=jnp.float32)[:, None, :, None]


def absolute(self, s, q, k, tile):
  return s * jnp.cos(tile.i)[:, None, :, None]


def neighbors(before: int, after: int):
  """Keys have a part of the token before or after, whatever document that is of."""

  def transform_qk(self, q, k, i, j):
    padded = jnp.pad(k, ((0, 0), (before, after), (0, 0), (0, 0)))
    return q, k + padded[:, after : after + k.shape[1]]

  return transform_qk


def in_half(self, q, k, i, j):
  """Angles in the dtype of queries: between 256 and 512 they are even numbers."""
  cosine = jnp.cos(9.7 * j.astype(q.dtype))[..., None, None]
  return q * cosine, k * cosine


def scores_in_half(self, s, q, k, tile):
  """Scores in the dtype of queries: between 32 and 64 they are quarters."""
  k = jnp.repeat(k, q.shape[1] // k.shape[1], axis=1)
  return 50 + jnp.einsum('bhtk,bhsk->bhts', q, k) * self.dims.head_dim**-0.5


def growing(self, s, q, k, tile):
  """To the right of a query it is no number."""
  return s - jnp.log1p(tile.distance.astype(jnp.float32))[:, None]


@pytest.mark.parametrize(
  ('attributes', 'broken', 'where'),
  [
    ({'score': counted}, ('tiles', 'kernel'), 'tiles: .* by .*, causal, in tiles of 16 x 16'),
    *(
      pytest.param(*case, marks=pytest.mark.ci)
      for case in (
        ({}, (), ''),
        (
          {'transform_qk': neighbors(0, 1)},
          ('packing', 'decoding', 'causality'),
          'causality: .*; gradient by later tokens differs',
        ),
        (
          {'transform_qk': neighbors(1, 0)},
          ('packing', 'decoding'),
          'packing: .*; output of token [0-9]+ differs by',
        ),
        ({'score': absolute}, ('shift',), 'shift: .*; output of token [0-9]+ differs by'),
        ({'transform_qk': in_half, 'relative': False}, ('bfloat16',), '; output of token [0-9]+ d'),
        (
          {'score': scores_in_half, 'recomputes_scores': True, 'bias': Encoding.bias},
          ('bfloat16',),
          '^FAILS +bfloat16: ',
        ),
        ({'score': growing}, ('finite',), 'finite: .*; output is nan, bidirectional'),
        ({'score': growing, 'causal_only': True}, (), ''),
      )
    ),
  ],
)
def test_laws_that_an_encoding_of_ones_own_breaks_are_named(attributes, broken, where):
  enc = changed(**attributes)(encodings.Dims(16, 2, 1, 8, 16), nnx.Rngs(0))
  verdicts = check_laws(enc)
  failed = [verdict for verdict in verdicts if verdict.holds is False]
  assert [verdict.law for verdict in failed] == [*broken], failed
  assert re.search(where, '\n'.join(map(str, failed)))


def ahead(self, s, q, k, tile):
  """To the right of a query the score is another one at another coordinate."""
  factor_BTS = jnp.where(tile.index_distance[None] < 0, jnp.cos(tile.i)[:, :, None], 1.0)
  return s * factor_BTS[:, None]


def in_row(self, x_BSD, position_ids, num_visible_BS, index_BS):
  """The place of a token in the row, whatever document it is of."""
  return jnp.arange(index_BS.shape[1], dtype=jnp.float32)[None]


@pytest.mark.parametrize(
  ('attributes', 'law'),
  [({'score': ahead}, 'shift'), ({'score': ahead, 'coordinates': in_row}, 'packing')],
)
def test_laws_are_asked_without_a_causal_mask_where_there_may_be_none(attributes, law):
  enc = changed(**attributes)(encodings.Dims(16, 2, 1, 8, 16), nnx.Rngs(0))
  (verdict,) = check_laws(enc, laws=(law,))
  absolute = '; allowed: relative = False in the class, .*' if law == 'shift' else ''
  assert re.fullmatch(f'FAILS .*; output of token .*, bidirectional{absolute}', str(verdict))
  (verdict,) = check_laws(changed(causal_only=True, **attributes)(enc.dims, None), laws=(law,))
  assert verdict.holds


def test_gradients_are_asked_at_given_positions_of_terms_that_are_causal_alone():
  """There terms are of keys ahead of their query, too, which are hidden: 0 times NaN is NaN."""
  of_causal = lambda self, r: -jnp.multiply.outer(jnp.sqrt(r.astype(jnp.float32)), self.rates[...])
  enc = changed(causal_only=True, bias=of_causal)(encodings.Dims(16, 2, 1, 8, 16), None)
  (verdict,) = check_laws(enc, laws=('finite',))
  assert str(verdict).endswith('; gradient by rates is nan, given positions')
  (verdict,) = check_laws(changed(causal_only=True)(enc.dims, None), laws=('finite',))
  assert verdict.holds


class NextKey(Encoding):
  """Keys have a part of the token behind them in their document: made for encoders."""

  def transform_qk(self, q, k, i, j):
    following = jnp.pad(k[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
    is_one = jnp.pad(j[:, 1:] > j[:, :-1], ((0, 0), (0, 1)))
    return q, k + is_one[:, :, None, None] * following


@pytest.mark.ci
@pytest.mark.parametrize(
  ('kind', 'broken'), [(NextKey, []), (changed(transform_qk=neighbors(0, 1)), ['packing'])]
)
def test_an_encoding_for_encoders_is_asked_nothing_of_causal_attention(kind, broken):
  enc = kind(encodings.Dims(16, 2, 1, 8, 16), nnx.Rngs(0))
  verdicts = check_laws(enc, is_causal=False)
  assert [verdict.law for verdict in verdicts if verdict.holds is False] == broken
  left_out = [verdict.law for verdict in verdicts if verdict.holds is None]
  assert {*left_out} - {'kernel'} == {'decoding', 'causality'}
  (verdict,) = check_laws(enc, laws=('causality',))
  assert verdict.holds is False


class TwoDistances(Encoding):
  """A learned bias by rows and one by columns, added."""

  positions_per_token = 2

  def __init__(self, dims, rngs, *, side: int):
    super().__init__(dims, rngs)
    self.side = side
    self.table = nnx.Param(rngs.params.normal((2, 2 * side - 1, dims.heads)))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    r_BTS2 = (tile.i[:, :, None] - tile.j[:, None]).astype(jnp.int32) + self.side - 1
    of_rows, of_columns = (self.table[n][r_BTS2[..., n]] for n in range(2))
    return s_BHTS + jnp.moveaxis(of_rows + of_columns, -1, 1)


def test_a_bias_by_two_distances_is_a_score_of_ones_own():
  """As ENCODINGS.md says."""
  side, H, K = 3, 2, 8
  enc = TwoDistances(encodings.Dims(16, H, H, K, 16), nnx.Rngs(0), side=side)
  q, k, v = np.random.default_rng(0).standard_normal((3, 1, side**2, H, K))
  places = np.stack(np.divmod(np.arange(side**2), side), axis=1)
  s_HTS = np.einsum('thk,shk->hts', q[0], k[0]) / K**0.5
  for h, t, s in np.ndindex(s_HTS.shape):
    row, column = places[t] - places[s] + side - 1
    s_HTS[h, t, s] += enc.table[0][row, h] + enc.table[1][column, h]
  p_HTS = np.exp(s_HTS) / np.exp(s_HTS).sum(axis=-1, keepdims=True)
  expected = np.einsum('hts,shk->thk', p_HTS, v[0])
  for backend, sizes in (('dense', None), ('blockwise', (4, 4)), ('diagonals', (4, 4))):
    options = dict(position_ids=places[None], is_causal=False, backend=backend, block_sizes=sizes)
    run = jax.jit(lambda q, k, v, options=options: attend(q, k, v, enc, **options))
    found = run(*np.float32([q, k, v]))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_what_is_causal_alone_is_no_encoding_for_encoders():
  allowed = 'True, for StickBreaking is defined for causal attention only'
  enc = encodings.make('stick_breaking', **SIZES, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match=f'^is_causal=False; allowed: {allowed}$'):
    check_laws(enc, is_causal=False)


def test_what_attention_refuses_breaks_every_law():
  enc = changed(score=lambda self, s, q, k, tile: s[:, :1])(encodings.Dims(16, 2, 2, 8, 16), None)
  for verdict in check_laws(enc):
    assert 'Changed: score has shape (' in str(verdict)
    assert verdict.holds is False


def test_a_hook_that_is_not_there_breaks_every_law():
  class NoAngles(ByAngles):
    pass

  for verdict in check_laws(NoAngles(encodings.Dims(16, 2, 2, 8, 16), None)):
    assert 'NotImplementedError' in str(verdict)
    assert verdict.holds is False


@pytest.mark.parametrize('count', [1, 3, 5])
def test_angles_and_frequencies_of_ones_own_are_one_for_each_pair(count):
  """Coordinates with fewer angles would leave the other channels as they are without a word."""

  class Angles(ByAngles):
    def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
      return jnp.ones((1, position_ids.shape[1], 1, count))

  class Frequencies(RoPE):
    def spectrum(self, length):
      return np.ones(count), 1.0

  q, k = (jnp.ones((1, 6, heads, 8)) for heads in (2, 1))
  for kind, what in ((Angles, 'coordinates has .* angles'), (Frequencies, 'spectrum has .* freq')):
    with pytest.raises(ValueError, match=rf'^{kind.__name__}: {what}.*; allowed: 4, one for each'):
      attend(q, k, k, kind(encodings.Dims(16, 2, 1, 8, 16), nnx.Rngs(0)))


def test_angles_of_ones_own_rotate_pairs_of_a_layout_that_there_is():
  with pytest.raises(ValueError, match=r"^layout='halves'; allowed: half, interleaved$"):
    ByAngles(encodings.Dims(16, 2, 1, 8, 16), nnx.Rngs(0), layout='halves')


@pytest.mark.parametrize('error', ['shapes', 'types'])
def test_a_law_that_a_hook_of_ones_own_ends_with_an_error_names_its_line(error):
  wrong = {'shapes': jnp.ones(3), 'types': 'text'}[error]
  hook = lambda self, r_R: jnp.ones((4, 2)) * jnp.add(wrong, jnp.ones(4))
  enc = changed(bias=hook)(encodings.Dims(16, 2, 2, 8, 16), None)
  place = f'test_extension.py:{hook.__code__.co_firstlineno})'
  verdicts = {verdict.law: str(verdict) for verdict in check_laws(enc)}
  assert verdicts['tiles'].startswith('FAILS')
  assert verdicts['tiles'].endswith(place)


def test_laws_are_those_of_an_encoding_with_some_positions():
  with pytest.raises(ValueError, match=r"^enc='alibi'; allowed: an encoding, such as"):
    check_laws('alibi')
  few = encodings.make('learned', **SIZES, rngs=nnx.Rngs(0), max_length=7)
  with pytest.raises(ValueError, match=r'^positions end at 7; allowed: at least 8$'):
    check_laws(few)


@pytest.fixture
def of_page(monkeypatch):
  """What docs/encodings.md defines; the names that it registers are forgotten after a test."""
  page = (Path(__file__).parent.parent / 'docs' / 'encodings.md').read_text()
  for name in ('nudged', 'slower', 'wave', 'square_root'):  # the last is README's
    monkeypatch.setitem(encodings.ENCODINGS, name, SquareRoot)
  found = {'__name__': 'my_study'}
  for block in re.findall(r'```python\n(.*?)```', page, re.DOTALL):
    exec(block, found)
  return found


@pytest.mark.ci
@pytest.mark.parametrize('name', ['nudged', 'slower', 'wave'])
def test_an_encoding_of_the_page_keeps_the_laws(name, of_page):
  verdicts = check_laws(encodings.make(name, **SIZES, rngs=nnx.Rngs(0)))
  assert [str(verdict) for verdict in verdicts if verdict.holds is False] == []
  assert sum(verdict.holds is True for verdict in verdicts) > 5


def test_what_is_added_to_the_input_without_a_declaration_is_told_which(of_page):
  undeclared = type('Undeclared', (of_page['Wave'],), {'relative': True})
  (verdict,) = check_laws(undeclared(encodings.Dims(16, 2, 2, 8, 16), None), laws=('shift',))
  allowed = 'relative = False in the class, if it means absolute positions'
  assert re.fullmatch(
    f'FAILS .*; output of token .* differs by .*; allowed: {allowed}', str(verdict)
  )


def test_a_rotation_of_the_page_is_rope_where_content_moves_nothing(of_page):
  nudged, rope = (encodings.make(n, **SIZES, rngs=nnx.Rngs(0)) for n in ('nudged', 'rope'))
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 11, 2, 8))
  x = jax.random.normal(jax.random.key(1), (1, 11, 16))
  np.testing.assert_allclose(attend(q, k, v, nudged, x=x), attend(q, k, v, rope), atol=1e-5)
  nudged.w[...] = jnp.ones(16)
  assert abs(attend(q, k, v, nudged, x=x) - attend(q, k, v, rope)).max() > 1e-2


def test_a_class_of_a_prompt_is_not_that_of_a_file_which_a_run_was_trained_with(of_page, make_run):
  """It has no file of which a hash could be compared; a run that is trained with it keeps none."""
  _, workdir, _ = make_run(encoding__name='slower')
  made_of = provenance.MadeOf(None, code=user_code_hashes(load_run(workdir).config))
  provenance.claim(workdir, made_of, begins=True)
  assert provenance.kept_code(workdir) == {}
  storage.write_json(workdir / 'encodings.json', {'sha256': {'slower': 'a' * 64}})
  of_file = "encoding 'slower' is not that of a file, as it was when its run began; allowed: after "
  with pytest.raises(UserError, match=f'{of_file}the module that registers it is imported$'):
    load_run(workdir)
  with pytest.raises(UserError, match=of_file):
    provenance.claim(workdir, made_of, begins=False)


def test_a_scaling_of_the_page_is_laid_over_a_run(of_page, make_run):
  """It keeps what the run has of RoPE."""
  _, workdir, _ = make_run(encoding__name='rope', encoding__base=500.0)
  tokens = np.arange(97, 113)[None]
  slower = load_run(workdir, {'encoding.name': 'slower', 'encoding.slower': 2.0}).nats(tokens)
  linear = {'encoding.scaling.rope_type': 'linear', 'encoding.scaling.factor': 2.0}
  np.testing.assert_allclose(slower, load_run(workdir, linear).nats(tokens), rtol=1e-6)
  assert abs(slower - load_run(workdir).nats(tokens)).max() > 1e-4
