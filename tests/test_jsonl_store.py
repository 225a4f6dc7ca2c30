"""Rows on disk: a kill at any byte loses at most the row it tore, no key is written twice, scores
are defined once.
"""

import errno
import gzip
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posenc_jax import jsonl_store
from posenc_jax.evaluation import row_schema

FIELDS = dict(run='r', encoding='rope', label='rope', seed=0, step=10, corpus='sotu', split='test')
FIELDS |= dict(train_length=8, protocol='last_k', length=16)
SCORE = dict(nats=4.0, tokens=2, bytes=5)


def rows(number):
  return [row_schema.row(**FIELDS, document=str(i), **SCORE) for i in range(number)]


def test_a_row_has_the_fields_of_the_contract_and_one_definition_of_scores():
  row = row_schema.row(**FIELDS, **SCORE)
  key = 'run, encoding, label, seed, step, corpus, split, train_length, protocol, control'
  key += ', length, stride, k, position'
  values = 'status, nats, tokens, bytes, ppl, bpb, metric, value'
  assert ', '.join(row) == f'{key}, document, overrides, {values}'
  assert row['ppl'] == pytest.approx(math.exp(4 / 2))
  assert row['bpb'] == pytest.approx(4 / 5 / math.log(2))
  assert (row['status'], row['stride']) == ('ok', None)


@pytest.mark.parametrize('nats', [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_a_named_outcome(nats, tmp_path):
  row = row_schema.row(**FIELDS, **SCORE | {'nats': nats})
  assert (row['status'], row['nats'], row['ppl'], row['bpb']) == ('not_finite', None, None, None)
  jsonl_store.append(tmp_path / 'f', [row])  # as JSON, which has no NaN


@pytest.mark.parametrize('score', [{}, {'nats': 1.0}, {'metric': 'accuracy'}])
def test_ok_needs_a_score(score):
  with pytest.raises(ValueError, match='has no score'):
    row_schema.row(**FIELDS, **score)


def test_rows_come_back_and_appending_keeps_what_was_there(tmp_path):
  path, all_rows = tmp_path / 'eval.jsonl', rows(5)
  assert jsonl_store.read(path) == []
  jsonl_store.append(path, all_rows[:2])
  before = path.read_bytes()
  jsonl_store.append(path, all_rows[2:])
  assert path.read_bytes().startswith(before)
  assert jsonl_store.read(path) == all_rows
  (tmp_path / 'rows.jsonl.gz').write_bytes(gzip.compress(path.read_bytes()))
  assert jsonl_store.read(tmp_path / 'rows.jsonl.gz') == all_rows


def test_after_a_kill_at_any_byte_all_whole_rows_are_there_and_one_can_go_on(tmp_path):
  path, all_rows = tmp_path / 'eval.jsonl', [{'a': 'é', 'b': i} for i in range(3)]
  jsonl_store.append(path, all_rows)
  data = path.read_bytes()
  ends = [0, *(i + 1 for i, byte in enumerate(data) if byte == ord('\n'))]
  for size in range(len(data) + 1):
    path.write_bytes(data[:size])
    whole = sum(end - 1 <= size for end in ends[1:])  # a row is whole without its line break
    assert jsonl_store.read(path) == all_rows[:whole]
    jsonl_store.append(path, [{'new': 1}])
    assert jsonl_store.read(path) == [*all_rows[:whole], {'new': 1}]


@pytest.mark.parametrize('line', ['{"a": 1', '[1]', '\x00\x00'])
def test_a_damaged_line_that_is_not_the_torn_last_one_is_named(line, tmp_path):
  path = tmp_path / 'eval.jsonl'
  path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
  with pytest.raises(ValueError, match=r'eval\.jsonl:2: not a JSON object'):
    jsonl_store.read(path)


def test_a_key_is_never_written_twice(tmp_path):
  path, first = tmp_path / 'eval.jsonl', rows(3)
  again = [row | {'nats': 99.0} for row in first]  # a value is no part of the key
  assert row_schema.append_missing(path, first[:2]) == 2
  assert row_schema.append_missing(path, [*again, *first]) == 1
  assert jsonl_store.read(path) == [*first[:2], again[2]]
  assert row_schema.append_missing(path, again) == 0


def test_every_key_field_tells_rows_apart():
  base = rows(1)[0]
  changed = [base | {name: 'other'} for name in (*row_schema.KEY, 'metric')]
  for a, b in itertools.combinations([base, *changed], 2):
    assert row_schema.key(a) != row_schema.key(b)
  for name in set(row_schema.VALUES) - {'metric'}:
    assert row_schema.key(base | {name: 'other'}) == row_schema.key(base)
  ordered, reversed_ = (
    {'overrides': dict(pairs)} for pairs in ([('a', 1), ('b', 2)], [('b', 2), ('a', 1)])
  )
  assert row_schema.key(base | ordered) == row_schema.key(base | reversed_)
  assert json.loads(json.dumps(base)) == base


HOLD = """
import sys, time
from posenc_jax import jsonl_store
with jsonl_store.file_lock(sys.argv[1]):
  print(flush=True)
  time.sleep(60)
"""


def test_a_lock_lives_as_long_as_its_process(tmp_path):
  path, environment = (
    tmp_path / 'train.lock',
    {'PYTHONPATH': str(Path(jsonl_store.__file__).parents[1])},
  )
  command = [sys.executable, '-c', HOLD, str(path)]
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    process.stdout.readline()
    words = rf'at work there \(process {process.pid} on '
    with pytest.raises(BlockingIOError, match=words), jsonl_store.file_lock(path):
      pass
    process.kill()
  with (
    jsonl_store.file_lock(path),
    pytest.raises(BlockingIOError, match='at work there'),
    jsonl_store.file_lock(path),
  ):
    pass
  with jsonl_store.file_lock(path):
    pass


def test_a_file_system_without_locks_is_named_and_other_errors_are_not_hidden(
  tmp_path, monkeypatch, capsys
):
  def flock(number):
    def refuse(*_):
      raise OSError(number, os.strerror(number))

    return refuse

  monkeypatch.setattr(jsonl_store.fcntl, 'flock', flock(errno.ENOLCK))
  with jsonl_store.file_lock(tmp_path / 'train.lock'):
    assert 'train.lock: no lock on this file system (No locks available)' in capsys.readouterr().out
  monkeypatch.setattr(jsonl_store.fcntl, 'flock', flock(errno.EIO))
  with (
    pytest.raises(OSError, match=r'train\.lock') as error,
    jsonl_store.file_lock(tmp_path / 'train.lock'),
  ):
    pass
  assert error.value.errno == errno.EIO


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'finished.json'
  jsonl_store.atomic_write_json(path, {'a': 1})
  monkeypatch.setattr(os, 'fsync', lambda fd: os.pread(-1, 1, 0))  # fails
  with pytest.raises(OSError, match=r'finished\.json'):
    jsonl_store.atomic_write_json(path, {'a': 2})
  assert json.loads(path.read_text()) == {'a': 1}


def test_a_row_that_a_disk_takes_piece_by_piece_is_whole(tmp_path, monkeypatch):
  path, write = tmp_path / 'eval.jsonl', os.write
  monkeypatch.setattr(os, 'write', lambda fd, data: write(fd, data[:7]))
  jsonl_store.append(path, rows(2))
  assert jsonl_store.read(path) == rows(2)


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'replace', lambda *_: os.pread(-1, 1, 0))  # fails
  with pytest.raises(OSError, match=r'finished\.json'):
    jsonl_store.atomic_write(tmp_path / 'finished.json', b'{}')
  assert list(tmp_path.iterdir()) == []


def test_rows_that_are_rewritten_are_as_if_appended(tmp_path):
  jsonl_store.append(tmp_path / 'a', rows(3)[:2])
  jsonl_store.append(tmp_path / 'b', rows(3))
  jsonl_store.rewrite(tmp_path / 'b', jsonl_store.read(tmp_path / 'b')[:2])
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_lock_is_seen_and_passes_to_the_processes_that_inherit_the_file(tmp_path):
  path = tmp_path / 'log.txt'
  assert not jsonl_store.is_locked(path)
  with open(path, 'w') as file:
    jsonl_store.lock(file.fileno(), path)
    child = subprocess.Popen(['sleep', '60'], stdout=file)
  assert jsonl_store.is_locked(path)
  child.kill()
  child.wait()
  assert not jsonl_store.is_locked(path)


@pytest.mark.parametrize('word', ['fcntl', 'os.replace', 'os.rename'])
def test_no_other_module_locks_or_replaces_files(word):
  """sotu.py moves a whole folder; checkpoints.py sets a damaged one aside."""
  package = Path(jsonl_store.__file__).parent
  found = {str(p.relative_to(package)) for p in package.rglob('*.py') if word in p.read_text()}
  folders = {'os.replace': {'training/checkpoints.py'}, 'os.rename': {'data/sotu.py'}}
  assert found - folders.get(word, set()) <= {'jsonl_store.py'}
