"""The corpus `planted`: what it is, and its protocol against loops over single letters."""

import itertools
import re
import shutil

import jax
import numpy as np
import pytest
import synthetic
from small_runs import BASE, MODEL

from posenc_jax import config, data, storage
from posenc_jax.data import corpora, planted, sotu
from posenc_jax.errors import UserError
from posenc_jax.evaluation import plan, windows
from posenc_jax.model.token_nll import token_nll
from posenc_jax.protocols import BY_DEPTH, PROTOCOLS, TEXT_TASKS
from posenc_jax.reporting.board.recall import EXACT_BITS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.training import loop, setup
from posenc_jax.training.init_from import finished_parameters

TEXT = b'It is the duty of every one of us to say what a name is. ' * 1500


@pytest.fixture(scope='module')
def document():
  return planted.plant('1790-Washington-1', TEXT)


def names(text):
  """(start, name) of every name, by a search that is not the module's."""
  return [
    (i, text[i : i + 12]) for i in range(len(text)) if re.match(rb'<[A-Za-z0-9]{10}> ', text[i:])
  ]


def test_without_its_names_the_text_is_what_it_was(document):
  assert re.sub(rb'<[A-Za-z0-9]{10}> ', b'', document) == TEXT
  assert all(document[start - 1 : start] == b' ' for start, _ in names(document))
  assert len(document) / len(names(document)) == pytest.approx(50, abs=10)
  assert planted.plant('1790-Washington-1', TEXT) == document
  assert planted.plant('1790-Washington-2', TEXT) != document


def test_a_name_that_comes_again_is_decided_by_its_first_letters_alone(document):
  """The last name that began so is the same, and every distance occurs about equally often."""
  last, begins, distances = {}, {}, []
  for start, name in names(document):
    if name in last:
      assert begins[name[:3]] == name
      distances.append(start - last[name])
    last[name] = start
    begins[name[:3]] = name
  assert min(distances) >= planted.NEAREST
  assert max(distances) < planted.FARTHEST + 96
  octaves = np.histogram(distances, 2 ** np.arange(5, 12))[0]
  assert octaves.min() > 0.7 * octaves.max()
  letters = b''.join(name[3:11] for name in set(last))
  assert len(set(letters)) == 62
  assert max(map(letters.count, set(letters))) < 0.04 * len(letters)


def test_distances_of_letters_are_those_of_a_loop(document):
  window = document[1003:5003]
  expected, last = np.full(len(window), -1), {}
  for start, name in names(window):
    for letter in range(3, 11):
      expected[start + letter] = start - last.get(name, start)
    last[name] = start
  np.testing.assert_array_equal(planted.distances(window), expected)
  assert {*np.sign(expected)} == {-1, 0, 1}


def test_text_is_what_stands_outside_of_names():
  """Also of names in lists, which have 4 to 15 characters."""
  text = b'<0123456789> a<b <abcd>c <abcdefghijklmno>'
  assert bytes(np.frombuffer(text, np.uint8)[planted.is_text(text)]) == b' a<b c '


def test_octaves():
  places = windows.by_octave(np.array([[-1, 0, 1, 2], [3, 4, 1023, 1024]]))
  assert {octave: where.nonzero() for octave, where in places.items()}.keys() == {
    *(0, 1, 2, 4, 512, 1024)
  }
  np.testing.assert_array_equal(
    places[2], [[False, False, False, True], [True, False, False, False]]
  )
  assert places[512].sum() == places[0].sum() == 1


class Stub:
  """Nats that depend on all tokens of a window up to each one."""

  def __call__(self, tokens_BT, **_):
    return np.cumsum(tokens_BT, 1) % 1009 / 64


@pytest.mark.parametrize(('control', 'size'), [(None, 0), ('truncated', 0), (None, 1300)])
def test_the_protocol_scores_the_letters_of_each_octave(document, control, size):
  """And the text between names; also of excerpts of `size` bytes, of which one begins in a name."""
  length, train_length = 600, 200
  c = config.load(
    BASE,
    {
      'data.corpus': 'planted',
      'train.length': train_length,
      'eval.protocols': ('planted',),
      'eval.lengths': (length,),
      'eval.target_context': length,
      'eval.documents': 2,
      'eval.document_tokens': size,
      'eval.controls': ('truncated',),
    },
  )
  after_name = lambda at: document.index(b'> ', at) + 1
  start = document.index(b'<', 3000) + 5 - 350  # of 2,000 bytes the middle 1,300 begin at the 350th
  first = slice(start, start + 2000) if size else slice(after_name(2000))
  texts = [document[first], document[after_name(5000) : after_name(6300)]]
  corpus = data.Corpus('planted', 'test', ['a', 'b'], texts)
  measurement = {m.key_fields[0]['control']: m for m in plan.plan(c, corpus)}[control]
  expected = {}
  for text in texts:
    in_name = [text.rfind(b'<', 0, at + 1) > text.rfind(b'>', 0, at) for at in range(len(text))]
    cut = (len(text) - size) // 2 if 0 < size < len(text) else 0
    end = cut + size if cut else len(text)
    for start in range(cut, end - length + 1, length):
      window = text[start : start + length]
      for place, distance in enumerate(planted.distances(window)):
        if distance < 0 and in_name[start + place]:
          continue  # its brackets and first two characters, and what a window cuts
        given = window[: place + 1]
        if control and place >= train_length:  # windows of L tokens lie L / 2 apart
          half = train_length // 2
          given = given[(place - train_length) // half * half + half :]
        nats = Stub()(np.frombuffer(given, np.uint8)[None].astype(int))[0, -1]
        octave = 2 ** int(np.log2(distance)) if distance > 0 else 0
        octave = octave if in_name[start + place] else None
        expected.setdefault(octave, []).append(nats)
  scores = measurement.score(Stub(), list(range(len(measurement.key_fields))))
  found = {
    fields['position']: score for fields, score in zip(measurement.key_fields, scores, strict=True)
  }
  assert found.keys() == expected.keys()
  assert {None, 0, 32, 64} < found.keys()
  for octave, nats in expected.items():
    assert found[octave]['nats'] == pytest.approx(sum(nats), rel=1e-12)
    assert found[octave]['tokens'] == found[octave]['bytes'] == len(nats)
  assert {'windowed', 'truncated'} <= {*PROTOCOLS['planted'].controls}


@pytest.mark.parametrize(
  'changes',
  [{'data.corpus': 'sotu'}, {'data.corpus': 'planted', 'data.tokenizer': 'sentencepiece'}],
)
def test_names_are_scored_where_there_are_any(changes):
  c = config.load(BASE, {**changes, 'eval.protocols': ('planted',)})
  with pytest.raises(UserError, match=r"allowed: without planted, or with data.corpus='planted'"):
    config.validate(c)


def test_names_are_those_of_one_document():
  changes = {'data.corpus': 'planted', 'eval.protocols': ('planted',)}
  of = lambda packing: config.load(BASE, changes | {'data.packing': packing})
  config.validate(of('separate'))
  with pytest.raises(UserError, match=r"packing='concatenated'; allowed: 'none' or 'separate' wi"):
    config.validate(of('concatenated'))


def test_names_of_another_document_of_the_row_are_not_recalled():
  found = data.opened(config.load(BASE, {'data.corpus': 'planted'}).data, 'validation')
  name = b' <q7NhIb0Zke> '
  row_T = np.frombuffer(name * 3, np.uint8)
  batch = data.Batch(row_T[None].astype(np.int32))
  apart = batch._replace(segments_BT=np.repeat([0, 1], [len(name), 2 * len(name)])[None])
  scored = [found.recalled(each) for each in (batch, apart)]
  assert [int(each.sum()) for each in scored] == [16, 8]
  assert not scored[1][0, : 2 * len(name)].any()


def test_the_corpus_is_that_of_sotu_with_names(tmp_path, monkeypatch):
  for split in ('validation', 'test'):
    found, plain = (data.corpus(name, split, 'text', '') for name in ('planted', 'sotu'))
    assert list(found.names) == list(plain.names)
    assert re.sub(rb'<[A-Za-z0-9]{10}> ', b'', found.documents[3]) == plain.documents[3]
  monkeypatch.setattr(planted, 'plant', lambda name, text: text[:9])
  with pytest.raises(UserError, match=r'what is planted into sotu is not the embedded corpus: SHA'):
    planted._planted(planted._plain(corpora.cache_folder('')))


def test_in_a_cache_that_cannot_be_written_names_are_planted_in_memory(tmp_path, monkeypatch):
  cache = corpora.cache_folder('')
  copied = sotu.prepare('sotu', cache).relative_to(cache)
  shutil.copytree(cache / copied, tmp_path / copied)
  monkeypatch.setattr(storage, 'is_writable', lambda folder: False)
  before = [*tmp_path.rglob('*')]
  assert planted.prepare('planted', tmp_path) == tmp_path / copied
  assert planted._verified(tmp_path) == planted._verified.__wrapped__(cache)
  assert [*tmp_path.rglob('*')] == before


def test_names_are_planted_once_and_verified_by_every_process(tmp_path, monkeypatch):
  folder = data.prepare('planted', '')
  monkeypatch.setattr(planted, 'plant', lambda *_: pytest.fail('names were planted again'))
  monkeypatch.setattr(sotu, 'open_split', lambda *_: pytest.fail('sotu was read'))
  read = lambda: planted._verified.__wrapped__(tmp_path)  # as another process
  copy = shutil.copytree(folder, planted._folder(tmp_path))
  assert read() == planted._verified(corpora.cache_folder(''))
  text = copy / planted.TEXT
  contents = text.read_bytes()
  anew = f'delete {copy} and run again'
  for damaged in (contents[:-1], contents[:99] + b'X' + contents[100:], b''):
    text.write_bytes(damaged)
    with pytest.raises(UserError, match=f'is not the embedded corpus: SHA-256.*; allowed: {anew}'):
      read()
  text.unlink()
  with pytest.raises(UserError, match=f'documents is gone; allowed: {anew}'):
    read()
  (copy / planted.INDEX).write_text('{"documents": []}')
  with pytest.raises(UserError, match=rf'index\.json is damaged: its check .*; allowed: {anew}'):
    read()


def test_validation_measures_the_bits_of_letters_that_the_window_decides(tmp_path, monkeypatch):
  changes = {**MODEL, 'data.corpus': 'planted', 'train.length': 256, 'train.batch': 2}
  changes |= {'train.steps': 1, 'optim.warmup': 1, 'train.validate_batches': 3}
  c = config.load(BASE, changes)
  training = setup.prepare(c, tmp_path)
  put, read = setup.Training.put_val_batch, []
  record = lambda self, batch: read.append(batch) or put(self, batch)
  monkeypatch.setattr(setup.Training, 'put_val_batch', record)
  loop.train(c, tmp_path)
  assert len(read) == 1 + 3  # the first to compile; then all batches once
  (row,) = (row for row in storage.read_rows(tmp_path / 'metrics.jsonl') if 'split' in row)
  parameters = finished_parameters(tmp_path, training.model, c, lambda paths: {})
  nll = jax.jit(token_nll)
  decided, every = [], []
  for number in range(3):
    tokens_BT = training.val_batches[number].tokens_BT
    nats_BT = np.asarray(nll(parameters, tokens_BT), np.float64)
    for nats_T, tokens_T in zip(nats_BT, tokens_BT, strict=True):
      every += nats_T.tolist()
      distances_T = planted.distances(bytes(tokens_T.tolist()))
      decided += nats_T[distances_T > 0].tolist()
  assert len(decided) > 20
  assert row['recall_bits'] == pytest.approx(np.mean(decided) / np.log(2), rel=1e-5)
  assert row['bpb'] == pytest.approx(np.mean(every) / np.log(2), rel=1e-5)


def test_the_table_of_distances():
  rows = [
    synthetic.row('rope', seed, length, (length + position + seed) / 100, None, **fields)
    for seed, (length, control), position in itertools.product(
      (0, 1), ((128, None), (256, None), (256, 'truncated')), (0, 16, 64)
    )
    for fields in [{'protocol': 'planted', 'control': control, 'position': position, 'k': None}]
  ]
  tables = make_tables(rows, form='distances')
  assert [table.title for table in tables] == [
    'Bits a character by distance, planted',
    'Bits a character by distance, planted, truncated',
  ]
  assert tables[0].header == ['encoding', '0', '16', '64']
  (line,) = tables[0].groups[0].lines
  assert [cell.text.partition(' ')[0] for cell in line] == ['rope', '2.565', '2.725', '3.205']
  (shorter,) = make_tables(rows, form='distances', length=128)
  assert shorter.records[0]['bpb'] == pytest.approx(1.28)
  places = {(record['length'], record['distance']) for record in shorter.records}
  assert places == {(128, 0), (128, 16), (128, 64)}
  for some, length in ((rows, 64), ([], None)):
    with pytest.raises(UserError, match=r'no rows of planted with length=.*; allowed: '):
      make_tables(some, form='distances', length=length)


def test_the_table_of_depths():
  rows = [
    synthetic.row('rope', 0, length, (length + position) / 100, None, **fields)
    for length, position in itertools.product((128, 256), (25, 75))
    for fields in [{'protocol': 'text_passkey', 'position': position, 'k': None}]
  ]
  (table,) = make_tables(rows, form='distances', protocol='text_passkey')
  assert table.title == 'Scores by depth in 256 tokens, text_passkey'
  assert table.header == ['encoding', '25', '75']
  assert [cell.text.partition(' ')[0] for cell in table.groups[0].lines[0]][1:] == [
    '2.810',
    '3.310',
  ]
  assert [(r['length'], r['depth_percent']) for r in table.records] == [(256, 25), (256, 75)]
  assert 'stands before what is asked for' in table.caption
  for protocol, allowed in (
    ('needle', "a study with data.corpus='task:needle'"),
    ('text_needles', 'a study with text_needles in eval.protocols'),
  ):
    message = f'no rows of {protocol} with length=None; allowed: {allowed}'
    with pytest.raises(UserError, match=message):
      make_tables(rows, form='distances', protocol=protocol)
  fields = dict(protocol='copy', metric='exact_match', value=1.0)
  with pytest.raises(UserError, match="'copy' have no position; allowed: a task with a depth"):
    make_tables([synthetic.row('rope', **fields)], form='distances', protocol='copy')


def test_the_table_of_depths_of_a_task_is_of_the_seeds_that_have_learned_it():
  """The others are named, and runs of another task are not missing."""
  at_800 = {0: (0.25, 0.75, 1.0), 100: (0.75, 1.0, 1.0)}  # by seed
  of_task = dict(corpus='task:needle', protocol='needle', k=None, document=None, train_length=100)
  rows = []
  for label, seed, depth in itertools.product(('rope', 'fox'), range(3), at_800):
    at_100 = 1.0 if label == 'rope' and seed < 2 else 0.5
    for length, metric, value in (
      (100, 'token_accuracy', at_100),
      (100, 'token_chance', 1 / 16),
      (800, 'token_accuracy', at_800[depth][seed]),
    ):
      fields = of_task | dict(position=depth, metric=metric, value=value)
      rows.append(synthetic.row(label, seed, length, **fields))
  of_another = dict(corpus='task:mqar', protocol='mqar')
  rows += [row | of_another | {'run': f'mqar,{row["run"]}'} for row in rows]
  runs = [*dict.fromkeys(row['run'] for row in rows), 'encoding.name=t5,seed=0']
  settings = dict(form='distances', protocol='needle', metric='token_accuracy')
  (table,) = make_tables(rows, runs, length=800, **settings)
  assert table.title == 'Scores by depth in 800 tokens, needle, share of answers right'
  assert table.header == ['encoding', '0', '100'], 'a depth of 100 % is no length of 100 tokens'
  assert [[cell.text for cell in line] for line in table.groups[0].lines] == [
    ['rope (2 of 3 learned)', '0.500 ± 0.354', '0.875 ± 0.177'],
    ['fox (0 of 3 learned)', '—', '—'],
  ]
  assert table.notes[0] == 'no rows of run encoding.name=t5,seed=0'
  assert 'fox, 0 of 3 learned (not seed 0: 0.500, seed 1: 0.500, seed 2: 0.500)' in table.notes[1]
  assert len(table.notes) == 2


@pytest.mark.parametrize('protocol', sorted({*TEXT_TASKS, 'last_k', 'by_position'} - {*BY_DEPTH}))
def test_what_has_no_one_depth_is_in_no_table_by_depth(protocol):
  rows = [synthetic.row('rope', protocol=protocol, position=25)]
  words = f'protocol={protocol!r} has no one depth; allowed: planted, text_passkey, text_multikey, '
  with pytest.raises(UserError, match=f'^table: {words}text_needles, or a task with a depth$'):
    make_tables(rows, form='distances', protocol=protocol)
  with pytest.raises(
    UserError, match=f'^figure: {words.replace("planted, ", "")}text_needles, or '
  ):
    figures.draw(rows, form='heat_map', protocol=protocol, metric='bpb')


def bits_by_matching(letters: int, documents: list[bytes]) -> float:
  """Bits a character of names within 64 bytes, in the second halves of windows of 128, of a guess
  among what followed the same `letters` before, where that was in a name.
  """
  bits = []
  for text in documents:
    in_name = np.zeros(len(text), bool)
    for start, name in names(text):
      in_name[start : start + len(name)] = True
    for start in range(0, len(text) - 128, 128):
      window = text[start : start + 128]
      distances = planted.distances(window)
      for t in range(64, 128):
        if 0 < distances[t] < 64:
          before = window[t - letters : t]
          found = [
            window[j] == window[t]
            for j in range(letters, t)
            if window[j - letters : j] == before and in_name[start + j]
          ]
          bits.append(-np.log2(0.998 * np.mean(found) + 0.002 / 62))
  return float(np.mean(bits))


def test_names_are_known_exactly_by_two_letters_and_not_by_one():
  """What the board calls exact is out of reach of a match by one letter before (LOG/136)."""
  documents = data.corpus('planted', 'test', 'text', '').documents[:6]
  assert bits_by_matching(1, documents) > 0.35 > EXACT_BITS
  assert bits_by_matching(2, documents) < 0.05
