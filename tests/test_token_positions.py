"""Positions that a model reads off its tokens: laws of the hook, and BiPE's segments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import logits, nll
from flax import nnx
from oracles import bilevel_positions
from test_laws import VARIANTS
from test_model import VOCAB, model, tokens

from posenc_jax import attend, config
from posenc_jax.config import BASE
from posenc_jax.encodings import ENCODINGS, Dims, Encoding, make
from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.errors import UserError
from posenc_jax.evaluation import preflight

DIMS = Dims(model_dim=16, heads=4, kv_heads=2, head_dim=6, train_length=16)
SEPARATORS = (3, 7, 12)
DOCUMENTS = np.array([[0] * 5 + [1] * 1 + [2] * 6, [4] * 12])
IN_ORDER = np.array([[0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5], range(12)])


def build(name, **hyper):
  return make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0), **hyper)


READERS = [
  variant
  for variant, (name, _) in VARIANTS.items()
  if ENCODINGS[name].positions_of_tokens is not Encoding.positions_of_tokens
]


def bipe_model(**hyper):
  """A model with BiPE and a table of few places, and one with its inner encoding alone."""
  hyper = {'separators': SEPARATORS, 'places': 3} | hyper
  both = model(encoding={'name': 'bipe', **hyper})
  alone = model(encoding={'name': hyper.get('inner', 'rope')})
  for name in ('embedding', 'norm', 'layers'):
    setattr(alone, name, getattr(both, name))
  return both, alone


def read(enc, x_BT, in_order=IN_ORDER):
  return tuple(map(np.asarray, jax.jit(enc.positions_of_tokens)(x_BT, jnp.asarray(in_order))))


def test_there_is_an_encoding_that_reads_tokens():
  assert {VARIANTS[variant][0] for variant in READERS} == {'bipe'}


@pytest.mark.parametrize('variant', READERS)
def test_laws_of_positions_of_tokens(variant):
  """Whole numbers from 0 on, those of attention less than T apart. They look neither ahead nor at
  other documents, and only for the tokens that are declared.
  """
  name, hyper = VARIANTS[variant]
  enc, rng = build(name, **hyper), np.random.default_rng(0)
  looked_for = np.array(tuple(enc.tokens_read))
  draw = lambda: rng.choice([*looked_for, *range(60, 63)], (2, 12))
  x_BT = draw()
  found = np.stack(read(enc, x_BT))
  assert found.shape == (2, 2, 12)
  assert found.dtype == np.int32
  assert found.min() >= 0
  assert np.ptp(found[1], axis=1).max() < 12
  other_end = np.where(np.arange(12) < 8, x_BT, draw())
  np.testing.assert_array_equal(np.stack(read(enc, other_end))[..., :8], found[..., :8])
  is_last = DOCUMENTS[:, -1:] == DOCUMENTS
  other_documents = np.where(is_last, x_BT, draw())
  np.testing.assert_array_equal(np.stack(read(enc, other_documents))[:, is_last], found[:, is_last])
  others = np.where(np.isin(x_BT, looked_for), x_BT, 10 + x_BT)
  np.testing.assert_array_equal(read(enc, others), found)
  for token in looked_for:
    assert (np.stack(read(enc, np.full((2, 12), token))) != read(enc, np.full((2, 12), 60))).any()


@pytest.mark.parametrize('density', [0.0, 0.2, 1.0])
def test_segments_and_places_are_those_of_a_loop(density):
  enc, rng = build('bipe', separators=SEPARATORS), np.random.default_rng(1)
  x_BT = np.where(rng.random((2, 12)) < density, rng.choice(SEPARATORS, (2, 12)), 5)
  for in_order in (IN_ORDER, IN_ORDER[1:]):
    rows = zip(x_BT, np.broadcast_to(in_order, (2, 12)) == 0, strict=True)
    expected = [bilevel_positions(row, begins, SEPARATORS) for row, begins in rows]
    np.testing.assert_array_equal(np.stack(read(enc, x_BT, in_order), axis=1), expected)


def test_a_separator_belongs_to_the_segment_that_it_ends():
  enc = build('bipe')
  text = np.frombuffer(b'a. b\n\nc', np.uint8)[None]
  place_1T, segment_1T = read(enc, text, np.arange(7)[None])
  assert place_1T.tolist() == [[0, 1, 0, 1, 2, 0, 0]]
  assert segment_1T.tolist() == [[0, 0, 1, 1, 1, 2, 3]]


@pytest.mark.parametrize(
  ('inner', 'factor', 'documents'),
  [
    ('rope', 1, None),
    ('alibi', 96, DOCUMENTS),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        ('rope', 1, DOCUMENTS),
        ('alibi', 96, None),
        ('t5', 1, None),
        ('t5', 1, DOCUMENTS),
      )
    ),
  ],
)
def test_a_model_is_its_inner_one_at_segments_with_rows_of_places(inner, factor, documents):
  """Farther places share the last row; each document begins anew."""
  both, alone = bipe_model(inner=inner)
  enc = both.encodings.first_layers[0]
  held = alone.encodings.variants[0]
  held.encoding = jax.tree.unflatten(jax.tree.structure(held.encoding), jax.tree.leaves(enc.inner))
  assert enc.bias_factor == factor
  x_BT = tokens()
  assert np.isin(x_BT, SEPARATORS).any(axis=1).all()
  in_order = IN_ORDER if documents is not None else np.broadcast_to(np.arange(12), (2, 12))
  rows = zip(np.asarray(x_BT), in_order == 0, strict=True)
  place_BT, segment_BT = map(
    np.array, zip(*(bilevel_positions(*row, SEPARATORS) for row in rows), strict=True)
  )
  assert place_BT.max() > 2
  rows = np.asarray(enc.rows[...]) * np.array([1, 1, 0])[:, None]  # the last row counts for nothing
  added_BTD = 4.0 * rows[np.minimum(place_BT, 2)]
  segment_ids = None if documents is None else jnp.asarray(documents)
  run = jax.jit(
    lambda m, **own: m(x_BT, segment_ids=segment_ids, max_position_distance=99 * 12, **own)
  )
  expected = run(alone, position_ids=factor * segment_BT, added_BTD=added_BTD)
  np.testing.assert_allclose(run(both), expected, atol=3e-5)
  assert np.abs(run(alone) - expected).max() > 1e-3


def test_alibi_in_a_chain_has_the_slopes_of_bipe_alibi():
  """By a factor of its own, also beside a score, among whose tables it is; or those of ALiBi."""
  chain = lambda *members: {'name': 'chain', 'members': members}
  steep, r_R = {'name': 'alibi', 'factor': 1 / 96}, jnp.arange(9)
  expected = build('bipe', inner='alibi').bias(r_R)
  np.testing.assert_allclose(build('bipe', inner=chain('kv_shift', steep)).bias(r_R), expected)
  tables = build('bipe', inner=chain('fox', steep)).tables(r_R)
  np.testing.assert_allclose(tables[1]['bias'], expected)
  for members in (('kv_shift', 'alibi'), ('alibi', 'fox')):
    plain = build('bipe', inner=chain(*members), bias_factor=1.0)
    np.testing.assert_allclose(96 * plain.bias(r_R), expected)


def test_packed_documents_are_as_alone():
  both, _ = bipe_model()
  x_BT = tokens()
  packed = logits(both, x_BT, segment_ids=jnp.asarray(DOCUMENTS))
  for begin, end in ((0, 5), (5, 6), (6, 12)):
    np.testing.assert_allclose(
      packed[0, begin:end], logits(both, x_BT[:1, begin:end])[0], atol=2e-5
    )


def test_a_model_reads_its_inputs_bos_first():
  """And past its training length, where places and segments go on."""
  both, _ = bipe_model()
  x_BT = tokens(T=40)
  inputs_BT = jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0)), constant_values=VOCAB - 1)
  at = read(both.encodings.first_layers[0], inputs_BT, np.arange(40)[None])[1]
  assert at.max() > 2
  log_p = jax.nn.log_softmax(logits(both, inputs_BT))
  expected = -jnp.take_along_axis(log_p, x_BT[..., None], axis=-1)[..., 0]
  np.testing.assert_allclose(nll(both, x_BT), expected, atol=2e-5)


def test_attention_alone_says_what_it_would_lose():
  enc, q = build('bipe'), jnp.ones((1, 4, 4, 6))
  with pytest.raises(ValueError, match=r'^BiPE reads positions off tokens: pass the second of enc'):
    attend(q, q[:, :, :2], q[:, :, :2], enc)


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('bipe', {'separators': ()}, r'bipe: separators=\(\); allowed: ids of tokens, from 0 to 167'),
    ('bipe', {'separators': (10**10,)}, r'bipe: separators=\(1\d+,\); allowed: ids of tokens'),
    ('bipe', {'separators': (-1,)}, r'bipe: separators=\(-1,\); allowed: ids of tokens'),
    ('bipe', {'separators': ('.',)}, r"bipe: separators=\('.',\); allowed: ids of tokens"),
    ('bipe', {'separators': (True,)}, r'bipe: separators=\(True,\); allowed: ids of tokens'),
    ('bipe', {'places': 0}, 'bipe: places=0; allowed: at least 1'),
    ('bipe', {'inner': 'alibi', 'bias_factor': 0}, 'bipe: bias_factor=0.0; allowed: greater'),
    *(
      ('bipe', {'inner': inner, 'bias_factor': 96.0}, 'bipe: bias_factor=96.0 for inner=')
      for inner in ('rope', 'fire', 'hard_alibi', {'name': 'chain', 'members': 'fox,alibi'})
    ),
    *(
      (
        'bipe',
        {'inner': {'name': kind, 'members': members}},
        r"multiplies by 96; allowed: {'name': 'alibi', 'factor': 0.0104166667} in its place",
      )
      for kind, members in (
        ('chain', 'kv_shift,alibi'),
        ('chain', 'alibi,fox'),
        ('heads', 'nope,alibi'),
      )
    ),
    ('bipe', {'inner': 'sinusoidal'}, "bipe: inner='sinusoidal' acts on the input; allowed: one"),
    ('bipe', {'inner': 'pose'}, "bipe: inner='pose' samples positions itself; allowed: an enc"),
    ('bipe', {'inner': 'bipe'}, "bipe: inner='bipe' reads positions off tokens; allowed: one that"),
    ('random_positions', {'inner': 'bipe'}, 'reads positions off tokens; allowed: one that does'),
    (
      'heads',
      {'members': 'bipe,rope'},
      'heads: bipe reads positions off tokens for all heads; allowed: it goes around `heads`',
    ),
    (
      'heads',
      {'members': 'rope,pose'},
      'heads: pose samples positions for all heads; allowed: it goes around `heads`',
    ),
    (
      'heads',
      {'members': 'abacus,rope'},
      'heads: abacus samples positions for all heads; allowed: a chain of it and `heads`',
    ),
    (
      'chain',
      {'members': 'bipe,fox'},
      'chain: bipe reads positions off tokens for all: it goes around a chain',
    ),
  ],
)
def test_what_does_not_go_together_is_said(name, hyper, message):
  with pytest.raises(ValueError, match=message):
    build(name, **hyper)


def test_a_chain_inside_stands_at_segments():
  """Here RoPE beside a sink; and heads, which BiPE is no member of."""
  enc = build('bipe', inner={'name': 'chain', 'members': ('rope', 'sink')})
  assert enc.acts_on() == ('input', 'queries and keys', 'softmax')
  enc = build('bipe', inner={'name': 'heads', 'members': 'rope,alibi'}, bias_factor=96.0)
  assert enc.acts_on() == ('input', 'queries and keys', 'scores')


class Parity(ALiBi):
  """ALiBi at positions that a token of odd id shares with the one before."""

  def positions_of_tokens(self, tokens_BT, position_ids):
    place_BT = jnp.cumsum(tokens_BT % 2 == 0, axis=1)
    return place_BT, place_BT


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('heads', {'members': 'own,rope'}, 'heads: own reads positions off tokens for all heads'),
    ('dape', {'inner': 'own'}, "dape: inner='own' is no bias alone"),
    ('dape_v2', {'inner': 'own'}, "dape_v2: inner='own' is no bias alone"),
  ],
)
def test_what_reads_tokens_and_adds_nothing_to_the_input_is_not_lost_inside(
  name, hyper, message, monkeypatch
):
  monkeypatch.setitem(ENCODINGS, 'own', Parity)
  with pytest.raises(ValueError, match=message):
    build(name, **hyper)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'encoding.separators': (46, 257)}, 'BiPE looks for token 257; allowed: below 257'),
    (
      {'data.tokenizer': 'sentencepiece', 'data.vocab': 300},
      r"config.data: its tokens are no bytes, and BiPE looks for the bytes b'.\n'; allowed: ids of",
    ),
    ({'data.corpus': 'task:copy'}, 'its tokens are no bytes, and BiPE looks for the bytes'),
    (
      {
        'data.corpus': 'task:addition/reverse=True/pad=True/positions=abacus',
        'encoding.separators': (1,),
      },
      'carries positions, and BiPE reads its own; allowed: one without the other',
    ),
  ],
)
def test_what_a_run_cannot_read_is_refused_before_it_starts(fields, words):
  with pytest.raises(UserError) as error:
    preflight.check_model(config.load(BASE, {'encoding.name': 'bipe', **fields}))
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def test_tokens_of_another_tokenizer_or_of_a_task_are_given():
  own = {'encoding.name': 'bipe', 'encoding.separators': (5,)}
  preflight.check_model(config.load(BASE, {**own, 'data.corpus': 'task:copy'}))
  other = {'data.tokenizer': 'sentencepiece', 'data.vocab': 300}
  preflight.check_model(config.load(BASE, {**own, **other}))
