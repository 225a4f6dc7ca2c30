"""The protocol text_passkey: what is hidden where, in any tokens, and what is scored."""

import functools

import numpy as np
import pytest
from test_evaluation import corpus, measured  # noqa: F401 fixtures

from posenc_jax.data.tokenizers import BYTES
from posenc_jax.errors import UserError
from posenc_jax.evaluation import text_passkey

TEXT = np.frombuffer(b'once upon a time there was a king ' * 20, np.uint8)
HIDDEN = b' The pass key is 48213. Remember it: 48213 is the pass key. '
ASKED = b' What is the pass key? The pass key is 48213'


@pytest.mark.parametrize(('depth', 'before'), [(0, 0), (0.25, 15), (1, 60)])
def test_the_key_is_hidden_at_its_depth_and_the_middle_of_the_text_is_around_it(depth, before):
  length = 60 + len(HIDDEN) + len(ASKED)
  tokens_T, scored = text_passkey.window(BYTES.encode, TEXT, length, depth, '48213')
  text = TEXT[(len(TEXT) - 60) // 2 :][:60].tobytes()
  assert bytes(tokens_T.tolist()) == text[:before] + HIDDEN + text[before:] + ASKED
  assert bytes(tokens_T[-scored:].tolist()) == b'48213'


def test_a_space_that_is_joined_with_digits_is_scored_with_them():
  """As byte pairs of GPT-2 have it: each token is a word with the space before it."""
  words = functools.cache(lambda word: len(word) + 1000)

  def encode(text):
    return np.array([words(word) for word in text.split(b' ')[1:] if word])

  tokens_T, scored = text_passkey.window(encode, TEXT, 40, 0.5, '48213')
  assert len(tokens_T) == 40
  assert scored == 1


def test_keys_are_five_digits_and_their_own():
  keys = {text_passkey.draw_key(f'{name} {depth}') for name in 'abc' for depth in (0.25, 0.75)}
  assert len(keys) == 6
  assert all(len(key) == 5 and key.isdigit() for key in keys)
  assert text_passkey.draw_key('a 0.5') == '46692'


def test_rows_are_those_of_each_document_and_depth(measured, monkeypatch):  # noqa: F811
  monkeypatch.setattr(text_passkey, 'KEY', ' {key} ')
  monkeypatch.setattr(text_passkey, 'QUESTION', ' ?')
  monkeypatch.setattr(text_passkey, 'MOST_SCORED', 6)
  fields = {'eval__protocols': ('text_passkey',), 'eval__lengths': (24, 32)}
  _, rows = measured(**fields, eval__controls=())
  places = [(r['length'], r['document'], r['position']) for r in rows]
  assert places == [
    (n, d, p) for n in (24, 32) for d in ('a.txt', 'd.txt', 'e.txt') for p in (25, 75)
  ]
  assert {(r['tokens'], r['bytes'], r['status']) for r in rows} == {(5, 5, 'ok')}


def test_depths_are_whole_per_cents(measured):  # noqa: F811
  message = r'eval\.spans=51; allowed: 1 to 50 depths for text_passkey'
  with pytest.raises(UserError, match=message):
    measured(eval__protocols=('text_passkey',), eval__spans=51)


def test_windows_without_text_are_refused(measured):  # noqa: F811
  message = r'eval\.lengths: 32 tokens for a hidden key; allowed: 112 or more'
  with pytest.raises(UserError, match=message):
    measured(eval__protocols=('text_passkey',), eval__lengths=(32,), eval__controls=())
