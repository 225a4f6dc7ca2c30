"""The ground floor: one-line errors, and the one place that guesses what a misspelt name means."""

import errno
import inspect
import os
import re
import sys
from pathlib import Path

import pytest

from posenc_jax import errors

NAMES = ['rope', 'alibi', 't5']


def test_a_misspelt_name_is_met_with_the_nearest_or_with_all():
  assert errors.nearest('alibbi', NAMES) == "did you mean 'alibi'?"
  assert errors.nearest('xyz', NAMES) == 'allowed: alibi, rope, t5'
  assert errors.nearest('xyz', []) == 'allowed: none'
  assert errors.hint('xyz', NAMES) == ''
  assert (errors.closest('ropee', iter(NAMES)), errors.closest(None, NAMES)) == ('rope', None)


def test_errors_of_a_kind_become_one_line_and_others_pass():
  line = inspect.currentframe().f_lineno + 2
  with pytest.raises(errors.UserError) as raised, errors.user_errors(ValueError):
    raise ValueError('a\n  b')
  assert str(raised.value) == f'a b ({os.path.relpath(__file__)}:{line})'
  with pytest.raises(KeyError), errors.user_errors(ValueError):
    raise KeyError('a')


def test_a_file_whose_name_begins_as_that_of_a_folder_of_the_package_is_the_users_own(monkeypatch):
  monkeypatch.setattr(os.path, 'isfile', lambda path: True)
  folder, places = Path(errors.__file__).parents[1], []
  for name in ('scripts_mine.py', os.path.join('scripts', 'mine.py')):
    with pytest.raises(ZeroDivisionError) as raised:
      exec(compile('1 / 0', str(folder / name), 'exec'))
    places.append(os.path.basename(errors.place_of(raised.value)).partition(':')[0])
  assert places == ['scripts_mine.py', os.path.basename(__file__)]


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO, errno.EACCES, errno.ENAMETOOLONG])
def test_an_error_of_the_system_about_a_file_is_one_line(number):
  words = r'^rows.jsonl: why; what was written before is whole'
  with pytest.raises(errors.Stopped, match=words), errors.disk_errors():
    raise OSError(number, 'why', 'rows.jsonl')


def test_a_full_disk_may_leave_no_room_for_the_output_and_what_is_about_no_file_passes():
  with pytest.raises(errors.Stopped, match=r'^output: full$'), errors.disk_errors(remedy=''):
    raise OSError(errno.ENOSPC, 'full')
  with pytest.raises(errors.Stopped, match=r'^output: full; what was'), errors.disk_errors():
    raise OSError(errno.ENOSPC, 'full')
  with pytest.raises(ConnectionResetError), errors.disk_errors():
    raise ConnectionResetError(errno.ECONNRESET, 'reset')


@pytest.mark.parametrize(
  ('text', 'shown'),
  [
    ('größe 中文 ± †', 'größe 中文 ± †'),
    ('a\nb\tc\r', r'a\nb\tc\r'),
    ('\x1b[31m\x07\x9b', r'\x1b[31m\x07\x9b'),
    ('a\u202eb\u2066c\u200b', r'a\u202eb\u2066c\u200b'),
    ('\0\ud800\U000e0001', r'\x00\ud800\U000e0001'),
  ],
)
def test_what_cannot_be_printed_is_shown_as_an_escape(text, shown):
  assert errors.visible(text) == shown
  assert str(errors.UserError(text)) == str(errors.Stopped(text)) == shown


def test_a_value_of_any_size_is_short_in_a_message():
  deep = []
  for _ in range(900):
    deep = [deep]
  for value in (10**1000, 'x' * 10**6, [deep], {'x': deep}, [1] * 10**6, print):
    assert len(errors.shown(value)) < 200
  assert errors.shown({'a': [1, 'b']}) == "{'a': [1, 'b']}"


def test_the_last_line_is_the_error_and_not_what_jax_writes_below_it():
  note = 'For simplicity, JAX has removed its internal frames from the traceback.'
  text = f'Traceback ...\n  x = 1\nValueError: bad luck\n{"-" * 20}\n{note}\n\n'
  assert errors.last_line(text) == 'ValueError: bad luck'
  assert errors.last_line('\n') == ''


def test_a_name_in_other_letters_is_near():
  assert errors.closest('RoPE', ['nope', 'pope', 'rope']) == 'rope'


FOLDER = 'a folder that happens to have the name of the package'


@pytest.mark.parametrize(
  ('source', 'says'),
  [
    (None, "own_package is not installed; allowed: after pip install -e '.[hf]'"),
    ('import no_such_module', "own_package cannot be imported: No module named 'no_such_module'"),
    ('raise ImportError("no\\nlibz.so")', 'own_package cannot be imported: no libz.so'),
    (
      '',
      "own_package cannot be imported: No module named 'own_package.part'; 'own_package' is not",
    ),
    (FOLDER, "own_package is not installed; allowed: after pip install -e '.[hf]'"),
  ],
)
def test_a_package_that_is_there_and_broken_is_not_missing(source, says, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  for name in ('own_package', 'own_package.part'):  # of the case before
    monkeypatch.delitem(sys.modules, name, raising=False)
  if source == FOLDER:
    (tmp_path / 'own_package' / 'part').mkdir(parents=True)
  elif source is not None:
    (tmp_path / 'own_package.py').write_text(source)
  with pytest.raises(errors.UserError, match=f'^{re.escape(f"--source: {says}")}'):
    errors.imported('own_package.part', '--source', 'hf')
