"""Questions about what is hidden in text: what stands where, in any tokens, and what is scored."""

import collections
import functools
import hashlib
import itertools
import re

import numpy as np
import pytest
from small_runs import tiny

from posenc_jax import data, storage
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.data.tokenizers import BYTES
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, model_functions, plan, text_tasks
from posenc_jax.protocols import TEXT_TASKS

TEXT = np.frombuffer(b'once upon a time there was a king ' * 40, np.uint8)
HIDDEN = b' The pass key is 48213. Remember it: 48213 is the pass key. '
ASKED = b' What is the pass key? The pass key is 48213'
PASSKEY = text_tasks.Prompt((HIDDEN.decode(),), ASKED[:-6].decode(), '48213')


def text_of(task: str, length: int = 1200, depth: float = 0.4, seed: str = 'a 0.4'):
  """(text before the answer, the answer) of a window in bytes, which the prompt says, too."""
  prompt = text_tasks.prompt_of(task, seed)
  tokens_T, scored = text_tasks.window(BYTES.encode, TEXT, length, depth, prompt)
  assert len(tokens_T) == length
  text = bytes(tokens_T.tolist()).decode()
  assert text.endswith(f'{prompt.question} {prompt.answer}')
  assert scored == len(prompt.answer)
  return text[: -scored - len(prompt.question) - 1], prompt.answer


@pytest.mark.parametrize(('depth', 'before'), [(0, 0), (0.25, 15), (1, 0)])
def test_the_key_is_hidden_at_its_depth_and_the_middle_of_the_text_is_around_it(depth, before):
  length = 60 + len(HIDDEN) + len(ASKED)
  tokens_T, scored = text_tasks.window(BYTES.encode, TEXT, length, depth, PASSKEY)
  text = TEXT[(len(TEXT) - 60) // 2 :][:60].tobytes()
  assert bytes(tokens_T.tolist()) == text[:before] + HIDDEN + text[before:] + ASKED
  assert bytes(tokens_T[-scored:].tolist()) == b'48213'


@pytest.mark.parametrize(('depth', 'before'), [(0, 0), (0.3, 18), (0.31, 21), (0.99, 60)])
def test_no_sentence_is_hidden_within_a_character(depth, before):
  text_T = np.frombuffer('日'.encode() * 20, np.uint8)
  length = 60 + len(HIDDEN) + len(ASKED)
  tokens_T, _ = text_tasks.window(BYTES.encode, text_T, length, depth, PASSKEY)
  text = text_T.tobytes()
  assert bytes(tokens_T.tolist()) == text[:before] + HIDDEN + text[before:] + ASKED


def test_a_space_that_is_joined_with_digits_is_scored_with_them():
  """As byte pairs of GPT-2 have it: each token is a word with the space before it."""
  words = functools.cache(lambda word: len(word) + 1000)

  def encode(text):
    return np.array([words(word) for word in text.split(b' ')[1:] if word])

  tokens_T, scored = text_tasks.window(encode, TEXT, 40, 0.5, PASSKEY)
  assert len(tokens_T) == 40
  assert scored == 1


@pytest.mark.parametrize('task', TEXT_TASKS)
def test_a_prompt_depends_on_its_seed_alone(task):
  same = [text_of(task, seed='a 0.25'), text_of(task, seed='a 0.25')]
  others = [text_of(task, seed=f'{name} {depth}') for name in 'bcd' for depth in (0.25, 0.75)]
  assert same[0] == same[1]
  assert len({answer for _, answer in [*same, *others]}) == 7


HASHES = {
  'text_passkey': 'd9f676ab71a0ee97',
  'text_multikey': '027d0e94038c2108',
  'text_needles': '1bf05fe37f0bab52',
  'text_multivalue': 'dbd35e3fd5527b17',
  'text_multiquery': '01968f4ee40b1608',
  'text_variables': '6f39e15aacd8f273',
  'text_frequent_words': '1700404a0402b1a8',
}


@pytest.mark.parametrize('task', TEXT_TASKS)
def test_a_prompt_stays_the_same_over_versions(task):
  """Rows of two questions under one name would be added up. Another question is another task."""
  prompt = text_tasks.prompt_of(task, 'a 0.375')
  tokens_T, _ = text_tasks.window(BYTES.encode, TEXT, 1200, 0.375, prompt)
  assert hashlib.sha256(bytes(tokens_T.tolist())).hexdigest()[:16] == HASHES[task]


def codes(text: str) -> list[tuple[str, str]]:
  return re.findall(r'code of (\w+) is (\d{5})\.', text)


def test_one_of_four_codes_is_asked_for():
  text, answer = text_of('text_multikey')
  found = codes(text)
  assert len(dict(found)) == len(found) == 4
  name = re.search(r'code of (\w+)\?', text_tasks.prompt_of('text_multikey', 'a 0.4').question)
  assert dict(found)[name[1]] == answer
  # They stand a quarter of the text apart, around its end, and what is asked for is at the depth.
  parts = [len(part) for part in re.split(r' The code of \w+ is \d+\. ', text)]
  quarter = sum(parts) / 4
  assert all(abs(size - quarter) <= 1 for size in (*parts[1:-1], parts[0] + parts[-1]))
  place = [own for own, _ in found].index(name[1])
  assert abs(sum(parts[: place + 1]) - 0.4 * sum(parts)) <= 1


def test_a_needle_stands_among_others_at_its_depth():
  text, answer = text_of('text_needles', length=4000)
  found = codes(text)
  assert len(found) > 100
  assert [code for _, code in found].count(answer) == 1
  assert abs(text.index(answer) / len(text) - 0.4) < 0.01


def test_all_values_are_asked_for_in_the_order_of_the_text():
  text, answer = text_of('text_multivalue')
  assert re.findall(r'One of the codes of \w+ is (\d{5})\.', text) == answer.split(', ')
  assert len({*answer.split(', ')}) == 4


@pytest.mark.parametrize(('task', 'number'), [('text_multivalue', 4), ('text_variables', 5)])
def test_sentences_in_order_stand_each_at_its_depth_in_an_equal_part(task, number):
  """So that at each depth all of them stand elsewhere, in their order from 0 to 100 %."""
  for depth in (0, 0.125, 0.375, 0.625, 0.875, 1):
    text, answer = text_of(task, depth=depth)
    parts = [len(part) for part in re.split(r' (?:One of the|Let)[^.]*\. ', text)]
    places = np.cumsum(parts)[:-1] / sum(parts)
    np.testing.assert_allclose(places, (np.arange(number) + depth) / number, atol=0.001)
    asked = re.findall(r'is (\d{5})\.|Let (\w+) be', text)
    assert [''.join(found) for found in asked] == answer.split(', ')


def test_all_codes_are_asked_for_in_the_order_of_the_question():
  text, answer = text_of('text_multiquery')
  question = text_tasks.prompt_of('text_multiquery', 'a 0.4').question
  names = re.search(r'codes of (.*), in this order', question)[1]
  assert [dict(codes(text))[name] for name in re.split(', | and ', names)] == answer.split(', ')


def test_each_variable_is_set_to_the_one_before_it():
  text, answer = text_of('text_variables')
  set_to = re.findall(r'Let (\w+) be (\w+)\.', text)
  value = re.search(r'stand for (\d+),', text_tasks.prompt_of('text_variables', 'a 0.4').question)
  names = [name for name, _ in set_to]
  assert [before for _, before in set_to] == [value[1], *names[:-1]]
  assert names == answer.split(', ')


def test_frequent_words_are_so():
  for seed, length in itertools.product('abc', (700, 1200, 5000)):
    text, answer = text_of('text_frequent_words', length, seed=seed)
    counts = collections.Counter(text.split())
    (first, second, third), rest = answer.split(', '), counts.most_common()[3:]
    assert counts[first] > counts[second] > counts[third] > 2 * max(count for _, count in rest)


@pytest.mark.parametrize('task', TEXT_TASKS)
def test_the_shortest_window_is_enough_and_a_shorter_one_is_refused(task):
  prompt = functools.partial(text_tasks.prompt_of, task, 'a')
  least, scored = text_tasks.sizes(BYTES.encode, prompt())
  assert scored == len(prompt().answer)
  assert len(text_tasks.window(BYTES.encode, TEXT, least, 0.5, prompt())[0]) == least
  with pytest.raises(ValueError, match=f'^length={least - 1}; allowed: {least} or more$'):
    text_tasks.window(BYTES.encode, TEXT, least - 1, 0.5, prompt())


@pytest.fixture
def asked(make_run, monkeypatch):
  """(config, its model, rows of the evaluation) of a run that is asked for a key in few letters."""

  def prompt(draw):
    key = text_tasks.number(draw)
    return text_tasks.Prompt((f' {key} ',), ' ?', key)

  monkeypatch.setitem(text_tasks.QUESTIONS, 'text_passkey', prompt)
  config, workdir, model = make_run(
    eval__protocols=('text_passkey',), eval__lengths=(24, 32), eval__controls=()
  )
  evaluate.evaluate(config, workdir)
  return config, model, storage.read_rows(workdir / 'eval.jsonl')


def test_rows_are_those_of_each_document_and_depth(asked):
  _, _, rows = asked
  places = [(r['length'], r['document'], r['position'], r['metric']) for r in rows]
  assert places == [
    (n, d, p, m)
    for n in (24, 32)
    for d in ('a.txt', 'd.txt', 'e.txt')
    for p in (25, 75)
    for m in (None, 'exact_match')
  ]
  assert {(r['tokens'], r['status']) for r in rows} == {(5, 'ok')}
  assert {r['bytes'] for r in rows if r['metric'] is None} == {5}


def test_scores_are_those_of_the_model_after_each_prefix(asked):
  config, model, rows = asked
  predict = model_functions.compiled(model_functions.predictions, config)
  corpus = data.opened(config.data, 'test')
  texts = dict(zip(corpus.names, corpus.tokens, strict=True))
  found = []
  for row in (row for row in rows if row['length'] == 24):
    depth = row['position'] / 100
    prompt = text_tasks.prompt_of('text_passkey', f'{row["document"]} {depth}')
    tokens_T, _ = text_tasks.window(BYTES.encode, texts[row['document']], 24, depth, prompt)
    nats, right = 0.0, True
    for end in range(20, 25):
      tokens_BT = np.pad(tokens_T[:end], (0, 24 - end))[None]  # what comes later says nothing
      right_BT, nats_BT = predict(model, tokens_BT)
      nats, right = nats + float(nats_BT[0, end - 1]), right and bool(right_BT[0, end - 1])
    if row['metric'] is None:
      assert row['nats'] == pytest.approx(nats, rel=1e-5)
    else:
      assert row['value'] == float(right)
    found.append(row['metric'])
  assert found.count('exact_match') == 6


def test_an_answer_of_likeliest_tokens_is_an_exact_match(asked):
  """A model that has read the key says it, and one wrong digit is wrong."""
  config, _, _ = asked
  corpus = data.opened(config.data, 'test')
  measurement = plan.plan(config, corpus)[0]

  def predict(tokens_BT):
    right_BT = np.ones((len(tokens_BT), 6), bool)
    right_BT[0, 0] = False  # before the answer
    right_BT[1, -1] = False
    return right_BT, np.full(right_BT.shape, np.log(2.0))

  scores = measurement.score(predict, [0, 1, 3])
  assert scores[0] == pytest.approx({'nats': 5 * np.log(2), 'tokens': 5, 'bytes': 5})
  assert [score['value'] for score in scores[1:]] == [1.0, 0.0]


def of_other_symbols(kind):
  """A tokenizer.json of numbers or of nucleotides, which knows no English; or no digits."""
  library = pytest.importorskip('tokenizers')
  if kind == 'numbers':
    numbers = {f'{n}': n for n in range(512)} | {'[UNK]': 512}
    made = library.Tokenizer(library.models.WordLevel(numbers, unk_token='[UNK]'))
    made.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return made
  letters = f'{HIDDEN}{ASKED}' if kind == 'no digits' else 'ACGTN'
  letters = {letter: n for n, letter in enumerate(sorted({*letters}))}
  unknown = '?' if kind == 'lacks its unknown token' else None
  made = library.Tokenizer(library.models.BPE(letters, [], unk_token=unknown))
  if kind == 'no digits':
    made.normalizer = library.normalizers.Replace(library.Regex('[0-9]'), '')
  return made


@pytest.mark.parametrize(
  ('kind', 'says'),
  [
    ('numbers', r'text_passkey: 77\.88% of what it says is unknown to the tokenizer; allowed: '),
    (
      'nucleotides',
      r'text_passkey: \d\d\.\d\d% of what it says is unknown to the tokenizer; allowed: ',
    ),
    ('no digits', 'text_passkey: its answer is unknown to the tokenizer; allowed: without text_'),
    ('lacks its unknown token', "config.data.tokenizer='some.json': cannot cut a text "),
  ],
)
def test_a_tokenizer_that_does_not_know_the_words_is_refused(kind, says, tmp_path):
  """The answer would be the unknown token, which is always right, or no token."""
  tokenizer = TokenizerJson(of_other_symbols(kind).to_str().encode(), 'some.json')
  text = {'numbers': b'1 23 456 ', 'no digits': b'the '}.get(kind, b'ACGTN')
  corpus = data.Corpus('', 'test', ['a'], [text * 400], tokenizer, cache=tmp_path)
  fields = {'eval__protocols': ('text_passkey',), 'eval__lengths': (256,), 'eval__documents': 1}
  with pytest.raises(UserError, match=says):
    plan.plan(tiny({}, eval__target_context=256, **fields), corpus)


def test_depths_are_whole_per_cents(measured):
  message = r'eval\.spans=51; allowed: 1 to 50 depths for text_passkey'
  with pytest.raises(UserError, match=message):
    measured(eval__protocols=('text_passkey',), eval__spans=51)


def test_windows_without_text_are_refused(measured):
  message = r'eval\.lengths: 32 tokens for text_passkey; allowed: 112 or more'
  with pytest.raises(UserError, match=message):
    measured(eval__protocols=('text_passkey',), eval__lengths=(32,), eval__controls=())
