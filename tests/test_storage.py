"""Rows on disk: a kill at any byte loses at most the row it tore, scores are defined once."""

import contextlib
import errno
import gzip
import itertools
import json
import math
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import needs_git

from posenc_jax import storage
from posenc_jax.errors import Damaged, UserError
from posenc_jax.rows import row_schema

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
  storage.append_rows(tmp_path / 'f', [row])  # as JSON, which has no NaN


@pytest.mark.parametrize('score', [{}, {'nats': 1.0}, {'metric': 'accuracy'}])
def test_ok_needs_a_score(score):
  with pytest.raises(ValueError, match='has no score'):
    row_schema.row(**FIELDS, **score)


@pytest.mark.parametrize('row', [{}, {'a': 1}, {'a': {'crc': '0a1b2c3d'}}, {'crc': '0a1b2c3d'}])
def test_the_check_of_a_row_is_looked_for_at_its_end(row, tmp_path):
  path, line = tmp_path / 'eval.jsonl', line_of(row)
  path.write_bytes(line)
  assert storage.read_rows(path) == [row]
  for more in (b'}', b' ', line[:-1]):
    path.write_bytes(line[:-1] + more + b'\n')
    with pytest.raises(Damaged, match=r'eval\.jsonl:1: the line is damaged'):
      storage.read_rows(path)


def test_rows_come_back_and_appending_keeps_what_was_there(tmp_path):
  path, all_rows = tmp_path / 'eval.jsonl', rows(5)
  assert storage.read_rows(path) == []
  storage.append_rows(path, all_rows[:2])
  before = path.read_bytes()
  storage.append_rows(path, all_rows[2:])
  assert path.read_bytes().startswith(before)
  assert storage.read_rows(path) == all_rows
  (tmp_path / 'rows.jsonl.gz').write_bytes(gzip.compress(path.read_bytes()))
  assert storage.read_rows(tmp_path / 'rows.jsonl.gz') == all_rows


def test_all_rows_share_the_texts_of_their_keys(tmp_path):
  storage.append_rows(tmp_path / 'eval.jsonl', [{'a': {'key': i}} for i in range(2)])
  keys = [key for row in storage.read_rows(tmp_path / 'eval.jsonl') for key in row['a']]
  assert keys[0] is keys[1]


def test_after_a_kill_at_any_byte_all_whole_rows_are_there_and_one_can_go_on(tmp_path):
  path, all_rows = tmp_path / 'eval.jsonl', [{'a': 'é', 'b': i} for i in range(3)]
  storage.append_rows(path, all_rows)
  data = path.read_bytes()
  ends = [0, *(i + 1 for i, byte in enumerate(data) if byte == ord('\n'))]
  for size in range(len(data) + 1):
    path.write_bytes(data[:size])
    whole = sum(end - 1 <= size for end in ends[1:])  # a row is whole without its line break
    assert storage.read_rows(path) == all_rows[:whole]
    storage.append_rows(path, [{'new': 1}])
    assert storage.read_rows(path) == [*all_rows[:whole], {'new': 1}]


def line_of(row):
  """The line of a row in a file, with its check and line break."""
  return storage._line(row)


@pytest.mark.parametrize(
  ('line', 'fault'),
  [
    (b'{"a": 1', 'ends too early'),
    (b'[1]', 'it holds list, where an object must be'),
    (b'\x00\x00', 'it is no JSON'),
    (b'{"a":NaN}', 'it holds NaN, where a number must be'),
    (b'{"a":"\xff"}', 'byte 6 is not UTF-8'),
    (b'{"a":' + 100_000 * b'[', 'nested too deeply'),
    (b'{"a":1}', 'it does not end with its check'),
    (b'{"a":2,"crc":"3dd5e4d1"}', 'its check differs'),
    (line_of({'a': 1})[:-1] + line_of({'a': 2})[:-1], 'its check differs'),
  ],
)
def test_a_damaged_line_that_is_not_the_torn_last_one_is_named(line, fault, tmp_path):
  path = tmp_path / 'eval.jsonl'
  path.write_bytes(line_of({'a': 1}) + line + b'\n' + line_of({'a': 2}))
  with pytest.raises(Damaged, match=rf'eval\.jsonl:2: the line is damaged: .*{fault}'):
    storage.read_rows(path)


def test_no_flipped_bit_of_a_row_is_overlooked(tmp_path):
  path, all_rows = tmp_path / 'eval.jsonl', rows(2)
  storage.append_rows(path, all_rows)
  data = path.read_bytes()
  lost = 0
  for index in range(8 * len(data)):
    flipped = bytearray(data)
    flipped[index // 8] ^= 1 << index % 8
    path.write_bytes(flipped)
    try:
      assert storage.read_rows(path) == all_rows, index
    except Damaged:
      lost += 1
  assert lost == 8 * len(data)


def test_a_damaged_last_line_is_neither_torn_nor_appended_to(tmp_path):
  path = tmp_path / 'eval.jsonl'
  path.write_bytes(line_of({'a': 1})[:-1] + b'*')  # the bit that was its line break
  (tmp_path / 'config.json').write_text('{}')
  allowed = f'allowed: the file without that line; .*eval.py --workdir={tmp_path}, does so again'
  for act in (storage.read_rows, lambda path: storage.append_rows(path, [{}])):
    with pytest.raises(Damaged, match=f'line is damaged: .*; {allowed}$'):
      act(path)
  other = tmp_path / 'metrics.jsonl'
  other.write_bytes(path.read_bytes())
  with pytest.raises(Damaged, match=r'; allowed: the file without that line$'):
    storage.read_rows(other)
  assert path.read_bytes() == line_of({'a': 1})[:-1] + b'*'


@pytest.mark.parametrize(
  ('content', 'fault'),
  [
    (b'', 'it is empty'),
    (b'{"a": 1', 'ends too early'),
    (b'null', 'it holds NoneType'),
    (b'{"a": 1}', 'its check differs'),
    (b'{"a": 1, "crc": "00000000"}', 'its check differs'),
    (b'{"a": 1e999}', 'not JSON compliant'),
    (b'{"a": Infinity}', 'it holds Infinity'),
    (b'\xfe{}', 'byte 0 is not UTF-8'),
    (b'{"a":' + 100_000 * b'{"a":', 'nested too deeply'),
    (b'{"a": ' + 5000 * b'1' + b'}', 'integer'),
  ],
)
def test_a_damaged_json_file_is_named_with_its_fault(content, fault, tmp_path):
  path = tmp_path / 'state.json'
  path.write_bytes(content)
  with pytest.raises(
    Damaged, match=rf'state\.json is damaged: .*{fault}.*; allowed: none'
  ) as error:
    storage.read_json(path, {'a': int}, remedy='none')
  assert r'\n' not in str(error.value)


@pytest.mark.parametrize(
  ('tree', 'fault'),
  [({'b': 1}, "it lacks the field 'a'"), ({'a': '1'}, "the field 'a' is str, where int must be")],
)
def test_a_json_file_of_another_shape_is_named_with_its_fault(tree, fault, tmp_path):
  storage.write_json(tmp_path / 'state.json', tree)
  with pytest.raises(Damaged, match=rf'state\.json is damaged: {fault}'):
    storage.read_json(tmp_path / 'state.json', {'a': int})


def test_no_flipped_bit_of_a_json_file_is_overlooked(tmp_path):
  path, tree = tmp_path / 'config.json', {'a': [1, 2.5], 'b': {'c': 'rope', 'd': None}}
  storage.write_json(path, tree)
  data = path.read_bytes()
  for index in range(8 * len(data)):
    flipped = bytearray(data)
    flipped[index // 8] ^= 1 << index % 8
    path.write_bytes(flipped)
    with contextlib.suppress(Damaged):
      assert storage.read_json(path) == tree  # the bit was in white space


def test_what_cannot_be_read_is_not_damaged(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.mkdir()
  for read in (storage.read_rows, storage.read_json):
    with pytest.raises(OSError, match=r'rows\.jsonl'):
      read(path)
  os.mkfifo(tmp_path / 'pipe')  # reading it would wait for a writer
  with pytest.raises(OSError, match='not a regular file'):
    storage.read_rows(tmp_path / 'pipe')
  (tmp_path / 'loop').symlink_to('loop')
  with pytest.raises(OSError, match='loop'):
    storage.exists(tmp_path / 'loop')
  with pytest.raises(FileNotFoundError):
    storage.read_json(tmp_path / 'none')


@pytest.mark.parametrize('damage', [lambda d: d[:-9], lambda d: b'x' + d, lambda d: b''])
def test_a_damaged_archive_is_named(damage, tmp_path):
  path = tmp_path / 'rows.jsonl.gz'
  path.write_bytes(damage(gzip.compress(b''.join(map(line_of, rows(3))))))
  with pytest.raises(Damaged, match=r'rows\.jsonl\.gz is damaged: it cannot be unpacked'):
    storage.read_rows(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(storage, 'MAX_BYTES', 1000)
  (tmp_path / 'rows.jsonl.gz').write_bytes(gzip.compress(1001 * b' '))
  with pytest.raises(Damaged, match='more than 1000 bytes'):
    storage.read_rows(tmp_path / 'rows.jsonl.gz')


def test_an_archive_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
  path, size = tmp_path / 'rows.jsonl.gz', len(b''.join(map(line_of, rows(3))))
  monkeypatch.setattr(storage, 'MAX_BYTES', size)
  storage.rewrite_rows(path, rows(3))
  assert storage.read_rows(path) == rows(3)
  before = path.read_bytes()
  with pytest.raises(UserError, match=rf'more than {size} bytes; allowed: fewer runs'):
    storage.rewrite_rows(path, rows(4))
  assert path.read_bytes() == before


def test_every_key_field_tells_rows_apart():
  base = rows(1)[0]
  changed = [base | {name: 'other'} for name in (*row_schema.KEY_FIELDS, 'metric')]
  for a, b in itertools.combinations([base, *changed], 2):
    assert row_schema.key(a) != row_schema.key(b)
  for name in set(row_schema.SCORE_FIELDS) - {'metric'}:
    assert row_schema.key(base | {name: 'other'}) == row_schema.key(base)
  ordered, reversed_ = (
    {'overrides': dict(pairs)} for pairs in ([('a', 1), ('b', 2)], [('b', 2), ('a', 1)])
  )
  assert row_schema.key(base | ordered) == row_schema.key(base | reversed_)
  assert json.loads(json.dumps(base)) == base


HOLD = """
import sys, time
from posenc_jax import storage
with storage.file_lock(sys.argv[1]):
  print(flush=True)
  time.sleep(60)
"""


def test_a_lock_lives_as_long_as_its_process(tmp_path):
  path = tmp_path / 'train.lock'
  command = [sys.executable, '-c', HOLD, str(path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    process.stdout.readline()
    words = rf'at work there \(process {process.pid} on '
    with pytest.raises(storage.Locked, match=words), storage.file_lock(path):
      pass
    process.kill()
  with (
    storage.file_lock(path),
    pytest.raises(storage.Locked, match='at work there'),
    storage.file_lock(path),
  ):
    pass
  with storage.file_lock(path):
    pass


def test_a_file_system_without_locks_is_named_and_other_errors_are_not_hidden(
  tmp_path, monkeypatch, capsys
):
  def flock(number):
    def refuse(*_):
      raise OSError(number, os.strerror(number))

    return refuse

  monkeypatch.setattr(storage.fcntl, 'flock', flock(errno.ENOLCK))
  with storage.file_lock(tmp_path / 'train.lock'):
    assert 'train.lock: no lock on this file system (No locks available)' in capsys.readouterr().err
  monkeypatch.setattr(storage.fcntl, 'flock', flock(errno.EIO))
  with (
    pytest.raises(OSError, match=r'train\.lock') as error,
    storage.file_lock(tmp_path / 'train.lock'),
  ):
    pass
  assert error.value.errno == errno.EIO


def test_a_network_volume_of_macos_without_locks_is_known(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(errno, 'ENOTSUP', 45)  # there it is another number than EOPNOTSUPP
  of_macos = runpy.run_path(storage.__file__)

  def flock(*_):
    raise OSError(errno.ENOTSUP, 'Operation not supported')

  monkeypatch.setattr(storage.fcntl, 'flock', flock)
  path = tmp_path / 'train.lock'
  with of_macos['file_lock'](path):
    assert 'no lock on this file system (Operation not supported)' in capsys.readouterr().err
    assert not of_macos['is_locked'](path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'finished.json'
  storage.write_json(path, {'a': 1})
  monkeypatch.setattr(os, 'fsync', lambda fd: os.pread(-1, 1, 0))  # fails
  with pytest.raises(OSError, match=r'finished\.json'):
    storage.write_json(path, {'a': 2})
  assert storage.read_json(path) == {'a': 1}


def test_rows_and_the_name_of_a_new_file_are_on_the_disk_before_work_goes_on(tmp_path, monkeypatch):
  synced, fsync = [], os.fsync
  monkeypatch.setattr(os, 'fsync', lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
  path = tmp_path / 'eval.jsonl'
  storage.append_rows(path, rows(2))
  assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
  storage.append_rows(path, rows(2))
  assert synced[2:] == [path.stat().st_ino]


@needs_git
def test_a_checkout_of_git_changes_no_row_whatever_its_settings(tmp_path):
  git = lambda *words: subprocess.run(
    ['git', '-C', str(tmp_path), '-c', 'core.autocrlf=true', *words], check=True
  )
  shutil.copy(Path(__file__).parents[1] / '.gitattributes', tmp_path)
  path = tmp_path / 'eval.jsonl'
  storage.append_rows(path, rows(2))
  git('init', '--quiet')
  git('add', '.')
  path.unlink()
  git('checkout', '--', path.name)
  assert storage.read_rows(path) == rows(2)


def test_a_row_that_a_disk_takes_piece_by_piece_is_whole(tmp_path, monkeypatch):
  path, write = tmp_path / 'eval.jsonl', os.write
  monkeypatch.setattr(os, 'write', lambda fd, data: write(fd, data[:7]))
  storage.append_rows(path, rows(2))
  assert storage.read_rows(path) == rows(2)


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'replace', lambda *_: os.pread(-1, 1, 0))  # fails
  with pytest.raises(OSError, match=r'finished\.json'):
    storage.atomic_write(tmp_path / 'finished.json', b'{}')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('owner', 'name', 'other'), [(os, 'getpid', 0), (socket, 'gethostname', 'another')]
)
def test_two_processes_that_write_one_file_do_not_meet(owner, name, other, tmp_path, monkeypatch):
  path, replace = tmp_path / 'model', os.replace

  def replace_after_another_process(new, target):
    with monkeypatch.context() as patch:
      patch.setattr(os, 'replace', replace)
      patch.setattr(owner, name, lambda: other)
      storage.atomic_write(path, 'other')
    assert path.read_bytes() == b'other'
    replace(new, target)

  monkeypatch.setattr(os, 'replace', replace_after_another_process)
  storage.atomic_write(path, b'\x00own')
  assert path.read_bytes() == b'\x00own'
  assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'parent' / 'run'
  ended = subprocess.Popen(['true'])
  ended.wait()
  for pid in (ended.pid, os.getpid(), 10**30):  # killed, also with the number that this one has
    left_over = tmp_path / 'parent' / f'run.unfinished.{socket.gethostname()}.{pid}'
    left_over.mkdir(parents=True)
    (left_over / 'left over').touch()
  with storage.new_folder(path) as folder:
    (folder / 'a').touch()
    assert not path.exists()
  assert [entry.name for entry in path.iterdir()] == ['a']
  with pytest.raises(KeyError), storage.new_folder(tmp_path / 'parent' / 'other'):
    raise KeyError
  with pytest.raises(OSError, match='not empty'), storage.new_folder(path):
    pass
  assert [*path.parent.iterdir()] == [path]
  target, link = tmp_path / 'target', path.parent / 'link'
  target.mkdir()
  link.symlink_to(target)
  with storage.new_folder(link) as folder:
    (folder / 'b').touch()
  assert link.is_symlink()
  assert [entry.name for entry in target.iterdir()] == ['b']


def test_two_processes_that_fill_one_folder_touch_nothing_of_each_other(tmp_path, monkeypatch):
  path = tmp_path / 'run'

  def fill(name, then=lambda: None):
    with storage.new_folder(path) as folder:
      (folder / name).touch()
      then()
      assert [entry.name for entry in folder.iterdir()] == [name]

  def fill_meanwhile():
    with monkeypatch.context() as patch:
      patch.setattr(os, 'getpid', os.getppid)
      fill('second')

  with pytest.raises(OSError, match='not empty'):
    fill('first', fill_meanwhile)
  assert [entry.name for entry in path.iterdir()] == ['second']
  assert [*tmp_path.iterdir()] == [path]


def test_rows_that_are_rewritten_are_as_if_appended(tmp_path):
  storage.append_rows(tmp_path / 'a', rows(3)[:2])
  storage.append_rows(tmp_path / 'b', rows(3))
  storage.rewrite_rows(tmp_path / 'b', storage.read_rows(tmp_path / 'b')[:2])
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_lock_is_seen_and_passes_to_the_processes_that_inherit_the_file(tmp_path):
  path = tmp_path / 'log.txt'
  assert not storage.is_locked(path)
  with open(path, 'w') as file:
    storage.lock(file.fileno(), path)
    child = subprocess.Popen(['sleep', '60'], stdout=file)
  assert storage.is_locked(path)
  child.kill()
  child.wait()
  assert not storage.is_locked(path)


@pytest.mark.parametrize('word', ['fcntl', 'os.replace', 'os.rename'])
def test_no_other_module_locks_or_replaces_files(word):
  """building.py moves a part of a folder; checkpoints.py sets a damaged one aside."""
  package = Path(storage.__file__).parent
  found = {str(p.relative_to(package)) for p in package.rglob('*.py') if word in p.read_text()}
  folders = {'os.replace': {'training/checkpoints.py'}, 'os.rename': {'data/building.py'}}
  assert found - folders.get(word, set()) <= {'storage.py'}
