"""Corpora and batches: what is promised of the embedded corpus, purity in (seed, step), and one line for bad input."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from posenc_jax.config import UserError
from posenc_jax.data import BOS, VOCAB, Batches, Corpus, corpora, corpus, sotu
from posenc_jax.data.corpora import SPLITS

ROOT = Path(__file__).parent.parent
SIZES = (5, 64, 31, 200, 32, 96, 97, 33)  # bytes of documents: shorter than a window, equal, multiples, one more


def synthetic(sizes=SIZES):
  random = np.random.default_rng(0)
  documents = [random.integers(0, 256, n, np.uint8).tobytes() for n in sizes]
  return Corpus('synthetic', 'train', [f'd{i}' for i in range(len(sizes))], documents)


def places(documents, tokens_BT):
  """(document, start) of each window; random bytes make it unique."""
  found = []
  for window in tokens_BT.astype(np.uint8):
    spots = [(i, text.find(window.tobytes())) for i, text in enumerate(documents) if window.tobytes() in text]
    assert len(spots) == 1, 'a window lies within one document'
    found += spots
  return found


def run_python(code, *args, **env):
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)} | env,
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
  assert batches.skipped == sum(n < length for n in SIZES)
  steps = range(epoch * batches.windows_per_epoch, (epoch + 1) * batches.windows_per_epoch)
  tokens_BT = np.concatenate([batches[step] for step in steps])
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
  length, data = 16, synthetic((16 * 9 + 1,))
  batches = Batches(data, length, 10, seed=0)
  assert batches.windows_per_epoch == 10
  starts = Counter(start for epoch in range(200) for _, start in places(data.documents, batches[epoch]))
  inner = {start: times for start, times in starts.items() if length < start < 8 * length}
  assert {start % length for start in inner} == set(range(length))
  assert max(inner.values()) < 40  # 12.5 expected


def test_batches_depend_on_seed_and_step_alone():
  data, steps = synthetic(), [7, 0, 31, 7, 1000003]
  first, second = Batches(data, 16, 4, seed=5), Batches(synthetic(), 16, 4, seed=5)
  for step, other in zip(steps, [second[step] for step in reversed(steps)][::-1], strict=True):
    np.testing.assert_array_equal(first[step], other)
  flat = np.concatenate([first[step] for step in range(40)])
  wide = np.concatenate([Batches(data, 16, 32, seed=5)[step] for step in range(5)])
  np.testing.assert_array_equal(flat, wide)  # the stream of windows does not depend on the batch size


def test_seeds_and_epochs_have_orders_of_their_own():
  data = synthetic()
  n = Batches(data, 16, 1, 0).windows_per_epoch
  orders = {Batches(data, 16, n, seed)[epoch].tobytes() for seed in range(4) for epoch in range(4)}
  assert len(orders) == 16  # seed 0, epoch 1 is not seed 1, epoch 0


def test_batches_stay_the_same_over_versions():
  """Of Python, NumPy and Grain: a change of this number makes runs incomparable with earlier ones."""
  batches = Batches(synthetic(), 16, 8, seed=3)
  digest = hashlib.sha256(b''.join(batches[step].astype('<i4').tobytes() for step in range(50))).hexdigest()
  assert digest == 'GOLDEN'


@pytest.mark.parametrize(
  ('length', 'size', 'seed', 'says'),
  [(201, 1, 0, ['length=201', '200']), (0, 1, 0, ['length=0']), (8, 0, 0, ['size=0']), (8, 1, -1, ['seed=-1'])],
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
print(hashlib.sha256(b''.join(batches[step].tobytes() for step in (0, 5000))).hexdigest())
assert 'tensorflow' not in sys.modules
"""


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """Built by two processes at once, neither of which imports TensorFlow; their batches are kept beside it."""
  folder = tmp_path_factory.mktemp('cache')
  processes = [run_python(PROBE, folder) for _ in range(2)]
  outputs = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  (folder / 'digests.json').write_text(json.dumps([out for out, _ in outputs]))
  return folder


def test_processes_that_build_at_once_agree(cache):
  batches = Batches(corpus('sotu', 'train', 'text', str(cache)), 128, 32, seed=1)
  digest = hashlib.sha256(b''.join(batches[step].tobytes() for step in (0, 5000))).hexdigest()
  assert json.loads((cache / 'digests.json').read_text()) == [f'{digest}\n'] * 2
  assert sorted(path.name for path in cache.iterdir()) == ['digests.json', 'sotu']


def test_embedded_corpus_is_what_the_design_promises(cache):
  splits = {split: corpus('sotu', split, 'text', str(cache)) for split in SPLITS}
  assert {split: len(data) for split, data in splits.items()} == {'train': 167, 'validation': 21, 'test': 49}
  years = {split: [int(name[:4]) for name in data.names] for split, data in splits.items()}
  assert all(a.isdisjoint(b) for a, b in itertools.combinations(map(set, years.values()), 2))
  assert all(list(data.names) == sorted(data.names) for data in splits.values())
  long = [year for year, size in zip(years['test'], splits['test'].sizes, strict=True) if size >= 16385]
  assert len(long) >= 40
  assert all(sum(start <= year < start + 40 for year in long) >= 4 for start in range(1790, 2027, 40))
  document = splits['test'].documents[-1]
  assert isinstance(document, bytes)
  assert document == splits['test'].documents[len(splits['test']) - 1]
  assert document.decode().isprintable() or '\n' in document.decode()
  assert VOCAB == BOS + 1 == 257


def test_changed_corpus_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
  rows = sotu._package_rows()
  name, year, text = rows[100]
  monkeypatch.setattr(sotu, '_package_rows', lambda: [*rows[:100], (name, year, text + b'.'), *rows[101:]])
  with pytest.raises(UserError, match='SHA-256') as error:
    corpus('sotu', 'test', 'text', str(tmp_path))
  assert 'sotu' in one_line(error)
  assert list(tmp_path.iterdir()) == []


def test_interrupted_build_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(sotu.os, 'rename', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    sotu.prepare(tmp_path)
  (tmp_path / '.building-killed' / 'sotu').mkdir(parents=True)
  assert len(corpus('sotu', 'test', 'text', str(tmp_path))) == 49
  shard = next((tmp_path / 'sotu' / '1.0.0').glob('*train.array_record*'))
  shard.write_bytes(shard.read_bytes()[:100000])
  with pytest.raises(UserError, match='damaged') as error:
    corpus('sotu', 'test', 'text', str(tmp_path))
  assert 'delete' in one_line(error)


def test_prepared_corpus_is_verified_whenever_it_is_opened(cache, monkeypatch):
  monkeypatch.setattr(sotu, 'SHA256', '0' * 64)
  with pytest.raises(UserError, match='SHA-256') as error:
    corpus('sotu', 'test', 'text', str(cache))
  one_line(error)


def test_cache_folder(monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
  assert corpora.cache_folder('') == Path('/somewhere/posenc_jax')
  assert corpora.cache_folder('here') == Path('here')
  monkeypatch.delenv('XDG_CACHE_HOME')
  assert corpora.cache_folder('') == Path.home() / '.cache' / 'posenc_jax'


def test_prepare_data_counts_without_jax(cache):
  code = (
    'import runpy, sys\n'
    'try: runpy.run_path(sys.argv[1], run_name="__main__")\n'
    'finally: assert not {"jax", "tensorflow"} & set(sys.modules)'
  )
  script = ROOT / 'scripts' / 'prepare_data.py'
  process = run_python(f'import sys; sys.argv = [sys.argv[1], *sys.argv[1:]]\n{code}', script)
  _, error = process.communicate()
  assert process.returncode == 2
  assert len(error.splitlines()) == 1
  process = run_python(code, script, XDG_CACHE_HOME=str(cache))
  process.kill()
