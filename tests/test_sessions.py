"""What runs keep of who worked on them: commit, packages, device and time."""

import os
import platform
import shutil
import subprocess
import sys
import threading

import pytest
from small_runs import BASE, TINY, dotted
from stand_ins import needs_git

from posenc_jax import config, storage
from posenc_jax.errors import Damaged
from posenc_jax.evaluation.evaluate import evaluate
from posenc_jax.rows import sessions
from posenc_jax.training import loop


def make(**overrides):
  short = {'train.steps': 2, 'eval.protocols': ('last_k',), 'eval.lengths': (16,)}
  short |= {'eval.target_context': 16, 'eval.k': 4, 'eval.documents': 2}
  return config.load(BASE, TINY | short | dotted(overrides))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run that was trained and evaluated, each with nothing to do the second time."""
  workdir, c = tmp_path_factory.mktemp('sessions') / 'run', make()
  for _ in range(2):
    loop.train(c, workdir)
  for _ in range(2):
    evaluate(c, workdir)
  return workdir


def test_each_command_that_adds_to_a_run_is_a_session(run):
  rows = sessions.of_run(run)
  assert [row['work'] for row in rows] == ['training', 'evaluation']
  assert {row['run'] for row in rows} == {'run'}
  named = rows[0]['packages'].keys()
  assert {'posenc_jax', 'grain', *sessions.PACKAGES} <= named
  assert named - {'posenc_jax', *sessions.PACKAGES} <= {*sessions.OF_TEXT}
  assert rows[0]['device'].endswith(' x cpu')
  assert rows[0]['processor'] == sessions.processor()
  assert rows[0]['code'] == sessions.package_hash()[:16]
  assert rows[0]['began'] <= rows[1]['began']


def test_other_code_is_named_where_a_run_goes_on(run, tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  evaluate(make(eval__documents=3), workdir)
  assert 'until now' not in capsys.readouterr().out
  monkeypatch.setattr(sessions, 'package_hash', lambda: 'f' * 64)
  evaluate(make(eval__documents=3), workdir)  # it measures nothing
  assert 'until now' not in capsys.readouterr().out
  for work in (
    lambda: evaluate(make(eval__documents=4), workdir),
    lambda: loop.train(make(train__steps=3), workdir),
  ):
    work()
    assert capsys.readouterr().out.count(f'{workdir}: until now by commit ') == 1
  evaluate(make(train__steps=3), workdir)
  loop.train(make(train__steps=4), workdir)
  assert 'until now' not in capsys.readouterr().out


def test_steps_to_trace_that_a_run_is_past_are_named(run, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  loop.train(make(train__steps=3, train__profile_steps=(1, 2)), workdir)
  said = 'config.train.profile_steps=(1, 2): no trace, since the run is past these steps'
  assert f'{workdir}: {said}\n' in capsys.readouterr().out


def test_damaged_sessions_are_refused_before_anything_is_measured(run, tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  with open(workdir / sessions.FILE, 'a') as file:
    file.write('damaged\n')
  monkeypatch.setattr('posenc_jax.evaluation.evaluate.measure', lambda *_: pytest.fail('measured'))
  with pytest.raises(Damaged, match=f'{sessions.FILE}:3: '):
    evaluate(make(eval__documents=3), workdir)


def test_a_session_waits_for_another_that_is_added(tmp_path, monkeypatch):
  made_by = sessions._made_by()  # which takes git a moment
  monkeypatch.setattr(sessions, '_made_by', lambda: made_by)
  with open(tmp_path / sessions.FILE, 'w') as file:
    storage.lock(file.fileno(), file.name)
    thread = threading.Thread(target=sessions.add, args=([tmp_path], sessions.TRAINING, '1 x cpu'))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert sessions.of_run(tmp_path) == []
  thread.join()
  assert [row['work'] for row in sessions.of_run(tmp_path)] == [sessions.TRAINING]


@pytest.mark.parametrize(
  ('said', 'kind'),
  [
    (
      'cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\n',
      'AMD EPYC, cpu family 25, model 17',
    ),
    ('CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n', 'own, CPU implementer 0x41, CPU part 0xd0c'),
    ('processor\t: 0\npower management:\n\nprocessor\t: 1\n', 'own'),
    (None, 'own'),
  ],
)
def test_a_processor_has_its_name_and_its_numbers(said, kind, tmp_path, monkeypatch):
  monkeypatch.setattr(sessions, 'CPU_INFO', tmp_path / 'cpuinfo')
  monkeypatch.setattr(platform, 'machine', lambda: 'own')
  if said is not None:
    sessions.CPU_INFO.write_text(said)
  monkeypatch.setattr(sys, 'platform', 'linux')
  assert sessions.processor() == kind


@pytest.mark.parametrize(('script', 'kind'), [('echo Apple M2', 'Apple M2'), ('exit 1', 'arm64')])
def test_macos_names_its_processor_by_a_command(script, kind, tmp_path, monkeypatch):
  (tmp_path / 'sysctl').write_text(f'#!/bin/sh\n{script}\n')
  (tmp_path / 'sysctl').chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setattr(sessions, 'CPU_INFO', tmp_path / 'cpuinfo')
  monkeypatch.setattr(platform, 'machine', lambda: 'arm64')
  monkeypatch.setattr(sys, 'platform', 'darwin')
  assert sessions.processor() == kind


def test_packages_of_text_that_are_missing_are_not_named(monkeypatch):
  monkeypatch.setattr(sessions, 'OF_TEXT', ('numpy', 'no_such_package'))
  assert 'no_such_package' not in sessions._versions()


def make_repository(folder):
  """A repository with what stands for the code of this one; the hash of its one commit."""
  git = lambda *words: subprocess.run(
    ['git', '-C', str(folder), '-c', 'user.name=a', '-c', 'user.email=a@b', *words],
    check=True,
    capture_output=True,
    text=True,
  ).stdout.strip()
  (folder / 'posenc_jax').mkdir()
  for name in ('posenc_jax/model.py', 'train.py', 'eval.py'):
    (folder / name).write_text('')
  git('init')
  git('add', '.')
  git('commit', '-m', 'first')
  return git('rev-parse', 'HEAD')


@needs_git
def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
  """Whatever repository the environment names, as it does in a hook of git."""
  monkeypatch.setattr(storage, 'REPOSITORY', tmp_path)
  assert sessions.code() == (None, None)
  commit = make_repository(tmp_path)
  monkeypatch.setenv('GIT_DIR', str(tmp_path / 'none'))
  assert sessions.code() == (commit, False)
  (tmp_path / 'results.txt').write_text('')
  index, file = tmp_path / '.git' / 'index', tmp_path / 'train.py'
  os.utime(file, (1, 1))  # at which `git status` would write an index that says so
  before = index.read_bytes()
  assert sessions.code() == (commit, False)
  assert index.read_bytes() == before
  (tmp_path / 'posenc_jax' / 'notes').write_text('')
  settings = {'COUNT': '1', 'KEY_0': 'status.showUntrackedFiles', 'VALUE_0': 'no'}
  for name, value in settings.items():
    monkeypatch.setenv(f'GIT_CONFIG_{name}', value)
  assert sessions.code() == (commit, False)  # the user's settings are heard
  (tmp_path / 'posenc_jax' / 'model.py').write_text('x = 1')
  assert sessions.code() == (commit, True)
  monkeypatch.setattr(storage, 'REPOSITORY', tmp_path / 'posenc_jax')
  assert sessions.code() == (None, None)  # the repository of a user who installed it there
  monkeypatch.setattr(storage, 'REPOSITORY', tmp_path)
  monkeypatch.setenv('PATH', '')
  assert sessions.code() == (None, None)  # no git


def row(run='a', **fields):
  made = {
    'run': run,
    'work': 'training',
    'began': '2026-11-28T19:50:00+00:00',
    'commit': '0123456789abcdef',
    'is_edited': False,
    'python': '3.13.0',
    'packages': {'jax': '0.12.0'},
    'device': '1 x cpu',
  }
  return made | fields


@pytest.mark.parametrize(
  ('rows', 'runs', 'said'),
  [
    ([], 'a', 'When and by which code the runs were made is not on record.'),
    ([row('b')], 'a', 'When and by which code the runs were made is not on record.'),
    ([row()], 'a', 'Runs made on 2026-11-28 by commit 0123456789 with jax 0.12.0 on 1 x cpu.'),
    (
      [row(), row(began='2026-11-29T00:00:00+00:00', commit='fedcba9876543210', is_edited=True)],
      'ab',
      'Runs made from 2026-11-28 to 2026-11-29 by commit 0123456789, fedcba9876 (edited) with jax '
      '0.12.0 on 1 x cpu; of 1 of 2 runs this is not on record.',
    ),
    (
      [row(commit=None, is_edited=None, packages={'posenc_jax': '0.1.0'})],
      'a',
      'by commit unknown (version 0.1.0) with jax of unknown version on 1 x cpu.',
    ),
    ([row(commit=f'{n}' * 12) for n in range(7)], 'a', '4444444444, 2 more with'),
    (
      [row(is_edited=True, code='0a' * 8), row(is_edited=True, code='0b' * 8)],
      'a',
      'by commit 0123456789 (edited, code 0a0a0a0a0a0a0a0a), 0123456789 (edited, code 0b0b0b0b',
    ),
    (
      [row(commit=None, is_edited=None, packages={'posenc_jax': '0.1.0'}, code='0a' * 8)],
      'a',
      'by commit unknown (version 0.1.0, code 0a0a0a0a0a0a0a0a) with',
    ),
    (
      [row(), row(processor='B, model 1'), row(device='8 x H100', processor='B')],
      'a',
      ' on 1 x cpu, 1 x cpu (B, model 1), 8 x H100.',
    ),
  ],
)
def test_a_sentence_says_when_and_by_what(rows, runs, said):
  assert said in sessions.sentence(rows, set(runs))


HERE = {
  'commit': '0123456789abcdef',
  'is_edited': False,
  'code': '0a' * 8,
  'packages': {'jax': '0.12.0', 'numpy': '2.5.5'},
}


@pytest.mark.parametrize(
  ('rows', 'said'),
  [
    ([], ''),
    ([row()], ''),
    ([row(packages={'jax': '0.12.0', 'datasets': '5.0'})], ''),  # what only one of both has
    ([row(commit='f' * 16, code='0a' * 8)], ''),  # a commit that has not touched the code
    ([row(commit='f' * 16), row()], ''),  # the last one counts
    (
      [row(), row(commit='f' * 16)],
      'until now by commit ffffffffff; from now on by commit 0123456789',
    ),
    (
      [row(is_edited=True)],
      'until now by commit 0123456789 (edited); from now on by commit 0123456789',
    ),
    (
      [row(commit=None, is_edited=None, code='0b' * 8)],
      'until now by commit unknown (version unknown, code 0b0b0b0b0b0b0b0b); from now on by commit '
      '0123456789',
    ),
    (
      [row(code='0a' * 8, packages={'jax': '0.11.0', 'numpy': '2.5.5'})],
      'until now by commit 0123456789, jax 0.11.0; from now on by commit 0123456789, jax 0.12.0',
    ),
  ],
)
def test_what_is_other_than_in_the_last_session_is_named(rows, said, tmp_path, monkeypatch):
  monkeypatch.setattr(sessions, '_made_by', lambda: HERE)
  storage.append_rows(tmp_path / sessions.FILE, rows)
  assert sessions.change(tmp_path) == said
  storage.append_rows(tmp_path / sessions.FILE, [row(work='evaluation', code='0b' * 8)])
  assert sessions.change(tmp_path, sessions.TRAINING) == said


@pytest.mark.parametrize(
  'fields',
  [
    *({'work': 'play'}, {'began': 'today'}, {'commit': 'a/b'}, {'packages': ['jax']}),
    *({'device': ''}, {'processor': None}, {'code': 'A' * 16}),
  ],
)
def test_what_is_wrong_is_named(tmp_path, fields):
  storage.append_rows(tmp_path / sessions.FILE, [row(**fields)])
  for read in (sessions.of_run, sessions.kept_in):
    with pytest.raises(Damaged, match=f'{sessions.FILE}.*{next(iter(fields))}='):
      read(tmp_path)
