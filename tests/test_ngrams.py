"""N-gram models against dictionaries of counts, and what the history of a document is worth against
a loop over it.
"""

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import BASE, write_text_corpus

from posenc_jax import config, data, storage
from posenc_jax.data import ngrams, overlap
from posenc_jax.data.ngrams import SMOOTHINGS, NGrams
from posenc_jax.data.ngrams_with_history import CACHE_CONTEXT, bits_by_width, counted
from posenc_jax.errors import UserError
from posenc_jax.evaluation import ngram_line
from posenc_jax.reporting.study import Report
from posenc_jax.rows import row_schema, sessions
from scripts import prepare_data

VOCAB = 5  # tokens 0 to 3, and BOS
BOS = VOCAB - 1


def texts(seed=0, sizes=(40, 1, 3, 0, 60)):
  rng = np.random.default_rng(seed)
  return [rng.choice(4, size, p=(0.6, 0.2, 0.15, 0.05)) for size in sizes]


def counters(some, context):
  """For each k, {(context of k tokens, next token): times}; BOS fills what lies before a text."""
  found = [Counter() for _ in range(context + 1)]
  for text in some:
    padded = [BOS] * context + text.tolist()
    for end in range(context, len(padded)):
      for k in range(context + 1):
        found[k][tuple(padded[end - k : end]), padded[end]] += 1
  return found


def brute_force(some, context, smoothing, before, token):
  """The probability of a token after the tokens `before`."""
  found, discounts = counters(some, context), [None] * (context + 1)
  if smoothing == 'kneser_ney':
    longest = found[context]
    found = [Counter((seen[1:], token) for seen, token in found[k + 1]) for k in range(context)]
    found.append(longest)
    for k, counts in enumerate(found):
      once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
      discounts[k] = once / (once + 2 * twice) if once else 0.5
  p = 1 / (VOCAB - 1)
  for k in range(min(context, len(before)) + 1):
    of_context = {
      nxt: count
      for (seen, nxt), count in found[k].items()
      if seen == tuple(before[len(before) - k :])
    }
    total, types, count = sum(of_context.values()), len(of_context), of_context.get(token, 0)
    if not total:
      continue
    if discounts[k] is None:
      p = (count + types * p) / (total + types)
    else:
      p = (max(count - discounts[k], 0) + discounts[k] * types * p) / total
  return p


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
@pytest.mark.parametrize('context', [0, 1, 3])
def test_probabilities_are_those_of_dictionaries_of_counts(context, smoothing):
  model = NGrams(texts(), context, VOCAB, smoothing)
  windows = np.random.default_rng(1).integers(0, 4, (3, 9))
  expected = [
    [brute_force(texts(), context, smoothing, row[:t].tolist(), row[t]) for t in range(9)]
    for row in windows
  ]
  np.testing.assert_allclose(model.probabilities(windows), expected, rtol=1e-12)
  np.testing.assert_allclose(model.nats(windows), -np.log(expected), rtol=1e-12)


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_probabilities_of_all_tokens_add_up_to_one(smoothing):
  model = NGrams(texts(), 4, VOCAB, smoothing)
  start = np.random.default_rng(2).integers(0, 4, (30, 6))
  ends = [np.concatenate([start, np.full((30, 1), token)], 1) for token in range(VOCAB - 1)]
  p_CBT = np.array([model.probabilities(end) for end in ends])
  np.testing.assert_allclose(p_CBT[:, :, -1].sum(0), 1, rtol=1e-12)
  assert p_CBT.min() > 0


def test_a_window_shortens_contexts():
  windows = np.random.default_rng(3).integers(0, 4, (2, 20))
  model, shorter = NGrams(texts(), 3, VOCAB), NGrams(texts(), 2, VOCAB)
  np.testing.assert_array_equal(
    model.probabilities(windows, window=2), shorter.probabilities(windows)
  )
  assert not np.array_equal(model.probabilities(windows), shorter.probabilities(windows))


def test_many_symbols_are_counted_as_few_are():
  """Above 2**16 symbols, sorting takes another way."""
  window = texts(4, (50,))[0][None]
  few, many = (NGrams(texts(), 3, vocab).find(window) for vocab in (VOCAB, 2**17))
  for one, other in zip(few, many, strict=True):
    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_array_equal(one.types, other.types)


def test_impossible_models_are_refused():
  with pytest.raises(ValueError, match="smoothing='laplace'; allowed: witten_bell, kneser_ney"):
    NGrams(texts(), 1, VOCAB, 'laplace')
  with pytest.raises(ValueError, match='n-grams of no text'):
    NGrams([np.zeros(0, int)], 1, VOCAB)


def test_counts_of_the_history_are_those_of_a_loop():
  model, widths = NGrams(texts(), 2, VOCAB), [0, 7, 30]
  text, places = texts(5, (80,))[0], range(45, 50)
  found = counted(model, [(text, places)], widths)
  static = counters(texts(), 2)
  for n, place in enumerate(places):
    for k in range(CACHE_CONTEXT + 1):
      context = tuple(text[place - k : place].tolist())
      if k <= 2:
        assert found.counts_NK[n, k] == static[k][context, text[place]]
        of_context = [count for (seen, _), count in static[k].items() if seen == context]
        assert found.totals_NK[n, k] == sum(of_context)
        assert found.types_NK[n, k] == len(of_context)
      else:
        assert found.totals_NK[n, k] == 0
      for w, width in enumerate(widths):
        ends = [
          end
          for end in range(place - width + k, place)
          if tuple(text[end - k : end].tolist()) == context
        ]
        assert found.cache_totals_NKW[n, k, w] == len(ends)
        assert found.cache_counts_NKW[n, k, w] == sum(text[end] == text[place] for end in ends)


def test_a_history_that_nothing_reaches_is_said_and_what_its_weight_is_tuned_on(
  monkeypatch, capsys
):
  short, long = bytes(range(100, 120)) * 5, bytes(range(100, 120)) * 20
  for splits, words in (
    ((long, long, short), ('no history: no document of the test split has 209 bytes',)),
    ((long, short, long), ('best on the test split itself', '\nhistory ')),
    ((long, long, long), ('\nhistory ',)),
  ):
    of_split = dict(zip(prepare_data.SPLITS, splits, strict=True))
    found = lambda data, split, of_split=of_split: SimpleNamespace(
      tokens=[np.frombuffer(of_split[split], np.uint8)], vocab=256
    )
    monkeypatch.setattr(prepare_data, 'text', found)
    prepare_data.describe_history(None)
    said = capsys.readouterr().out
    known = 'no history', 'best on the test split itself', '\nhistory '
    assert [x for x in known if x in said] == [x for x in known if any(x in w for w in words)]
    assert all(word in said for word in words)


def test_a_history_is_counted_beside_texts_from_all_of_a_large_training_split(monkeypatch):
  splits = {'train': [np.full(40, n, np.uint8) for n in range(50)], 'validation': [], 'test': []}
  found = lambda data, split: SimpleNamespace(tokens=splits[split], vocab=256)
  monkeypatch.setattr(prepare_data, 'text', found)
  monkeypatch.setattr(prepare_data, 'MAX_TRAINING_TOKENS', 400)
  taken = []
  monkeypatch.setattr(prepare_data, 'NGrams', lambda texts, *more: taken.extend(texts))
  prepare_data.describe_history(None)
  assert len(taken) == 10
  assert max(text[0] for text in taken) > 30


def test_a_history_that_repeats_itself_pays():
  """Each text is one random word of 100 tokens again and again: 128 tokens hold it, 64 do not."""
  rng = np.random.default_rng(6)
  several = [np.tile(rng.integers(0, 4, 100), 50) for _ in range(4)]
  model = NGrams([rng.integers(0, 4, 3000)], 2, VOCAB)
  bits = bits_by_width(model, several[:2], several[2:], num_documents=2, span=60)
  assert [*bits] == [0, 64, 128, 256, 512, 1024, 2048, 4096]
  assert bits[0] == pytest.approx(2, abs=0.1)
  assert bits[64] > 1.8
  assert bits[128] < 0.8
  assert bits[4096] < 0.2
  assert [*bits_by_width(model, [], [several[0][:500]], 2, 60)] == [0, 64, 128, 256]
  assert bits_by_width(model, [], [several[0][:50]], 2, 60) == {}


# Overlap of splits


def test_overlap_is_the_share_of_sequences_that_the_other_split_has(monkeypatch):
  monkeypatch.setattr(overlap, 'SAMPLED', np.uint64(1))
  rng = np.random.default_rng(7)
  train = [rng.integers(0, 256, 300, np.uint8).tobytes() for _ in range(2)]
  new = rng.integers(0, 256, 60, np.uint8).tobytes()
  test = [new + train[0][100:140], train[1][:70], b'short']
  known = {
    length: {text[i : i + length] for text in train for i in range(300 - length + 1)}
    for length in overlap.LENGTHS
  }
  for length, share in overlap.shared(train, test).items():
    sought = [t[i : i + length] for t in test for i in range(len(t) - length + 1)]
    if sought:
      assert share == np.mean([sequence in known[length] for sequence in sought])
    else:
      assert np.isnan(share)
  assert overlap.shared(train, test)[16] > 0.5


def test_overlap_of_a_sample_is_that_of_all(monkeypatch):
  rng = np.random.default_rng(8)
  train = rng.integers(0, 256, 40_000, np.uint8).tobytes()
  test = train[:10_000] + rng.integers(0, 256, 10_000, np.uint8).tobytes()
  assert overlap.shared([train], [test])[64] == pytest.approx(0.5, abs=0.05)


# Lines of tables


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """A config of text in a folder: 12 windows of 20 bytes to train on, each of which is known."""
  folder = tmp_path_factory.mktemp('text')
  rng = np.random.default_rng(9)
  sizes = {'train': (130, 130), 'validation': (50,), 'test': (90, 70, 80)}
  texts = {
    split: [bytes(rng.choice(list(b'abc '), size).tolist()) for size in some]
    for split, some in sizes.items()
  }
  changes = {
    'data.corpus': write_text_corpus(folder, texts),
    'train.length': 20,
    'train.batch': 4,
    'train.steps': 3,
    'optim.warmup': 0,
    'eval.lengths': (20, 40),
    'eval.target_context': 40,
    'eval.k': 8,
    'eval.documents': 0,
    'eval.document_tokens': 0,
    'eval.protocols': ('last_k', 'non_overlapping', 'receptive_field'),
  }
  return config.load(BASE, changes)


def test_an_ngram_is_scored_as_runs_are(study, tmp_path, capsys):
  seeds = config.load(BASE, {**config.flat(study), 'seeds': (0, 1)})
  for _ in range(2):
    ngram_line.evaluate_ngram(seeds, tmp_path / 'ngram', 2, 'witten_bell', False)
  for seed in (0, 1):
    folder = tmp_path / f'ngram,seed={seed}'
    assert (folder / 'finished.json').exists()
    assert [row['work'] for row in sessions.of_run(folder)] == [sessions.EVALUATION]
    rows = storage.read_rows(folder / 'eval.jsonl', row_schema.fault)
    assert {row['label'] for row in rows} == {'n-gram (2 bytes)'}
    assert len({row_schema.key(row) for row in rows}) == len(rows)
    protocols = {(row['protocol'], row['control'], row['length']) for row in rows}
    expected = {(p, None, n) for p in ('last_k', 'non_overlapping') for n in (20, 40)}
    assert protocols == expected | {('last_k', 'windowed', n) for n in (20, 40)}
    batches = data.opened(study.data, 'train').batches(20, 4, seed)
    windows = [window for step in range(3) for window in batches[step].tokens_BT]
    model = ngrams.NGrams(windows, 2, 257)
    test = data.opened(study.data, 'test')
    for row in rows:
      if row['protocol'] == 'last_k':
        text = np.array(test.tokens[list(test.names).index(row['document'])])
        end = row['position'] + 8
        nats = model.nats(text[None, end - row['length'] : end])[0, -8:]
        assert row['nats'] == pytest.approx(nats.sum(), rel=1e-12)
  assert 'receptive_field: not of an n-gram' in capsys.readouterr().out
  report = Report(tmp_path)
  assert 'n-gram (2 bytes)' in report.all_tables()[0].groups[0].lines[0][0].text


def test_an_ngram_counts_each_window_of_an_epoch_once_at_most(study):
  """An epoch has 14 windows; the last of three batches of five begins the next one."""
  changes = {'train.steps': 9, 'train.batch': 5}
  longer = config.load(BASE, {**config.flat(study), **changes})
  counted = ngram_line._texts(longer, data.opened(study.data, 'train'), False)
  assert len({text.tobytes() for text in counted}) == len(counted) == 14
  assert {text.size for text in counted} == {20}


def test_what_an_ngram_counts_is_named(study, tmp_path):
  ngram_line.evaluate_ngram(study, tmp_path / 'a', 1, 'kneser_ney', True)
  counted = storage.read_json(tmp_path / 'a' / row_schema.N_GRAM_FILE)
  assert {name: counted[name] for name in ('context', 'tokens')} == {'context': 1, 'tokens': 260}
  rows = storage.read_rows(tmp_path / 'a' / 'eval.jsonl')
  assert rows[0]['label'] == 'n-gram (1 byte, Kneser-Ney, whole split)'
  other = config.load(BASE, {**config.flat(study), 'eval.spans': 2, 'eval.lengths': (20,)})
  with pytest.raises(UserError, match=r'another n-gram: eval\.spans \(there 4, here 2\); allowed'):
    ngram_line.evaluate_ngram(other, tmp_path / 'a', 1, 'kneser_ney', True)
  window = config.load(BASE, {**config.flat(study), 'attention.window': 8})
  with pytest.raises(UserError, match=r'another n-gram: attention\.window \(there 0, here 8\)'):
    ngram_line.evaluate_ngram(window, tmp_path / 'a', 1, 'kneser_ney', True)
  with pytest.raises(UserError, match=r'holds another n-gram: context \(there 1, here 2\)'):
    ngram_line.evaluate_ngram(study, tmp_path / 'a', 2, 'kneser_ney', True)
  del counted['attention.window']  # as an earlier version wrote it
  storage.write_json(tmp_path / 'a' / row_schema.N_GRAM_FILE, counted)
  for of_any_window in (study, window):
    ngram_line.evaluate_ngram(of_any_window, tmp_path / 'a', 1, 'kneser_ney', True)
  del counted['data.packing'], counted['eval.spans']  # as another version may have it
  storage.write_json(tmp_path / 'a' / row_schema.N_GRAM_FILE, counted | {'data.packed': False})
  with pytest.raises(UserError, match=r'another n-gram: eval\.spans \(there None, here 4\); allow'):
    ngram_line.evaluate_ngram(study, tmp_path / 'a', 1, 'kneser_ney', True)
  storage.write_json(tmp_path / 'config.json', {})
  with pytest.raises(UserError, match='holds a trained run; allowed: another workdir'):
    ngram_line.evaluate_ngram(study, tmp_path, 2, 'kneser_ney', True)
  task = config.load(BASE, {'data.corpus': 'task:copy', 'eval.protocols': ('answers',)})
  unread = config.load(BASE, {**config.flat(study), 'train.steps': 0, 'train.init_from': 'runs/a'})
  for args, words in (
    ((study, tmp_path / 'b', -1, 'witten_bell', True), '--context=-1; allowed: 0 to'),
    ((study, tmp_path / 'b', 1, 'laplace', True), "--smoothing='laplace'; allowed: witten_bell"),
    ((task, tmp_path / 'b', 1, 'witten_bell', True), "config.data.corpus='task:copy'; allowed"),
    ((unread, tmp_path / 'b', 1, 'witten_bell', False), 'no batches to count; allowed: --whole_sp'),
  ):
    with pytest.raises(UserError, match=words):
      ngram_line.evaluate_ngram(*args)
  assert not (tmp_path / 'b').exists()


def test_an_ngram_of_a_folder_that_has_changed_is_refused(study, tmp_path, capsys):
  shutil.copytree(study.data.corpus, tmp_path / 'texts')
  c = config.load(BASE, {**config.flat(study), 'data.corpus': str(tmp_path / 'texts')})
  arguments = c, tmp_path / 'a', 1, 'kneser_ney', True
  for _ in range(2):
    ngram_line.evaluate_ngram(*arguments)
  (tmp_path / 'a' / 'documents.json').unlink()  # as one of an earlier version
  ngram_line.evaluate_ngram(*arguments)
  assert capsys.readouterr().out.count('documents.json: is new; it has') == 1
  rows = (tmp_path / 'a' / 'eval.jsonl').read_bytes()
  (tmp_path / 'texts' / 'test' / 'more.txt').write_text('a ' * 40)
  with pytest.raises(UserError, match=r"'.*a': documents in test of data\.corpus: \d+ when"):
    ngram_line.evaluate_ngram(*arguments)
  assert (tmp_path / 'a' / 'eval.jsonl').read_bytes() == rows


def test_prepare_data_prints_overlap_and_history(study, tmp_path, capsys):
  rng = np.random.default_rng(10)
  word = bytes(rng.integers(97, 123, 700, np.uint8).tolist())
  other = lambda: bytes(rng.permutation(list(word)).tolist())
  texts = {'train': [word * 3], 'validation': [other() * 3], 'test': [other() * 3]}
  prepare_data.main([f'--corpus={write_text_corpus(tmp_path, texts)}', '--history', '--overlap'])
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert ['test', '0.0000', '0.0000', '0.0000', '0.0000'] in lines
  bits = {
    line[0]: float(line[1]) for line in lines if len(line) == 3 and line[0] in ('none', '1024')
  }
  assert bits['none'] > 4.5
  assert bits['1024'] < 2
