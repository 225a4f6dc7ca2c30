"""sweep --status: states and time left, from what is on disk."""

import fcntl
import os
import socket

import pytest
from stand_ins import STARTED, Study

from posenc_jax import config, storage, sweep
from posenc_jax.errors import UserError
from posenc_jax.sweep import status, subprocesses
from posenc_jax.training import run_dir


@pytest.fixture
def study(tmp_path, monkeypatch):
  """A study of four runs; the third starts from the first, and the fourth from the third."""
  monkeypatch.setattr(status, 'BETWEEN_COMMANDS', 0.0)
  study = Study(tmp_path, ['rope'])
  study.path.write_text(STARTED)
  study.runs = sweep.plan(study.path, study.out, {}, study.scripts)
  for run in study.runs:
    run.workdir.mkdir(parents=True)
  return study


def timed(run, *rows):
  storage.append_rows(run.workdir / 'timing.jsonl', [{'step': 0, 'compile_seconds': 9.0}])
  storage.append_rows(
    run.workdir / 'timing.jsonl', [{'step': step, 'seconds_per_step': s} for step, s in rows]
  )


def test_every_state_is_told_apart_and_nothing_is_changed(study, capsys):
  done, third, fourth, alone = study.runs
  run_dir.mark_finished(done.workdir, config.config_hash(done.config))
  done.write_state('ended', seconds={'train': 60.0, 'eval': 30.0}, reason='')
  timed(done, (1, 50.0), (20, 0.5), (40, 0.5), (60, 0.5))
  third.write_state('failed', reason='exit code 1: bad luck')
  process = subprocesses.run_process(['sleep', '60'], alone.workdir / 'log.txt')
  try:
    alone.write_state('running', job='12_3', seconds={})
    timed(alone, (1, 50.0), (20, 1.0), (40, 1.0))
    before = {path: path.stat().st_mtime_ns for path in study.out.rglob('*')}
    assert [status.read_status(run).state for run in study.runs] == [
      'done',
      'failed',
      'waiting',
      'running',
    ]
    assert sweep.print_status(study.path, study.out, {}) == 0
    assert before == {path: path.stat().st_mtime_ns for path in study.out.rglob('*')}
  finally:
    process.kill()
    process.wait()
  lines = capsys.readouterr().out.splitlines()
  line = {run.name: next(line for line in lines if line.startswith(run.name)) for run in study.runs}
  assert line[done.name].split()[1:] == ['done', '60/60']
  assert 'exit code 1: bad luck' in line[third.name]
  assert f'starts from {third.name}' in line[fourth.name]
  assert line[alone.name].split()[1:5] == ['running', '40/60', '20', 's']
  assert f'on {socket.gethostname()}, job 12_3' in line[alone.name]
  # Waiting: 60 steps at 0.75 s, the median of runs; running: 20 at its own 1 s; 30 s of evaluation
  # each.
  assert lines[-1].startswith(
    '4 runs: 1 done, 1 running, 1 failed, 1 waiting; about 2 min left with 1 at a time'
  )
  assert status.time_left([status.read_status(run) for run in study.runs]) == (
    60 * 0.75 + 30 + 60 * 1.0 + 30,
    True,
  )  # stopped: from 0
  assert status.read_status(alone).state == 'stopped'


def test_runs_between_two_commands_are_waited_for_together(study, monkeypatch, capsys):
  first, second, third, _ = study.runs
  for run in (first, second, third):
    run.write_state('running')
  started, waits = [], []

  def start(seconds):
    waits.append(seconds)
    if not started:
      started.append(subprocesses.run_process(['sleep', '60'], second.log))

  with monkeypatch.context() as patch:
    patch.setattr(status.time, 'sleep', start)
    assert sweep.print_status(study.path, study.out, {}) == 0
  for process in started:
    process.kill()
    process.wait()
  assert waits == [status.BETWEEN_COMMANDS]
  states = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:-1]]
  assert states == ['stopped', 'running', 'stopped', 'waiting']


def test_what_is_stopped_goes_on_from_what_is_saved(study):
  run = study.runs[0]
  run.write_state('running', seconds={})
  (run.workdir / 'log.txt').write_text('')
  timed(run, (20, 2.0), (40, 2.0))
  (run.workdir / 'checkpoints' / '30').mkdir(parents=True)
  (run.workdir / 'checkpoints' / '40.damaged').mkdir()
  found = status.read_status(run)
  assert (found.state, found.step, found.training_left(None)) == (
    'stopped',
    30,
    pytest.approx(60.0),
  )


def test_locks_may_not_reach_from_another_machine(study, monkeypatch):
  run = study.runs[0]
  monkeypatch.setattr(socket, 'gethostname', lambda: 'node7')
  run.write_state('running', seconds={})
  monkeypatch.undo()
  (run.workdir / 'log.txt').write_text('step 1')
  assert (status.read_status(run).state, status.read_status(run).note) == ('running', 'on node7')
  monkeypatch.setattr(status, 'SILENCE', -1.0)
  monkeypatch.setattr(status, 'BETWEEN_COMMANDS', 0.0)
  assert status.read_status(run).state == 'stopped'


@pytest.mark.parametrize(
  ('row', 'words'),
  [
    ({'seconds_per_step': 1.0}, 'step=None'),
    ({'step': 'x', 'seconds_per_step': 1.0}, "step='x'"),
    ({'step': -1, 'seconds_per_step': 1.0}, 'step=-1'),
    ({'step': 2, 'seconds_per_step': '1'}, "seconds_per_step='1'"),
    ({'step': 2, 'seconds_per_step': None}, 'seconds_per_step=None'),
    ({'step': 2, 'seconds_per_step': 10**400}, 'seconds_per_step=1000'),
    ({'step': 2, 'seconds_per_step': -0.5}, 'seconds_per_step=-0.5'),
  ],
)
def test_a_damaged_file_makes_one_run_unknown_and_is_named(study, capsys, row, words):
  path = study.runs[0].workdir / 'timing.jsonl'
  storage.append_rows(path, [row])
  assert sweep.print_status(study.path, study.out, {}) == 0
  lines = capsys.readouterr().out.splitlines()
  (line,) = (line for line in lines if 'unknown' in line and line.startswith(study.runs[0].name))
  assert f'{path}:1: the line is damaged: ' in line
  assert words in line
  assert lines[-1] == '4 runs: 3 waiting, 1 unknown'


def test_status_needs_nothing_that_only_a_start_needs(study, capsys, monkeypatch):
  """Neither need the folder take files nor a tracker be installed, and what is wrong with one run's
  config is said of that run.
  """
  monkeypatch.setattr(os, 'access', lambda *given: False)
  monkeypatch.setattr('importlib.util.find_spec', lambda *given: None)
  path = study.runs[1].workdir / 'config.json'
  path.write_text('{')
  other = study.runs[3]
  run_dir.claim_run_dir(other.workdir, config.load(study.path, {'optim.clip': 2.0}))
  overrides = {'train.trackers': ('wandb',)}
  assert sweep.print_status(study.path, study.out, overrides) == 0
  lines = capsys.readouterr().out.splitlines()
  (line,) = (line for line in lines if 'unknown' in line and line.startswith(study.runs[1].name))
  assert f'{path} is damaged: ' in line
  (line,) = (line for line in lines if 'unknown' in line and line.startswith(other.name))
  assert 'holds a run of another config: encoding.name (there' in line
  assert lines[-1] == '4 runs: 2 waiting, 2 unknown'
  with pytest.raises(UserError, match='cannot be written to'):
    sweep.plan(study.path, study.out, overrides)


def test_what_cannot_be_read_is_named_too(study, capsys):
  first, second, third, fourth = (run.workdir for run in study.runs)
  (first / 'timing.jsonl').mkdir()
  (second / 'state.json').mkdir()
  (third / 'finished.json').mkdir()
  (fourth / 'timing.jsonl').write_bytes(b'\x00\n\n')
  assert sweep.print_status(study.path, study.out, {}) == 0
  lines = capsys.readouterr().out.splitlines()
  for run, name in zip(study.runs, ('timing', 'state', 'finished', 'timing'), strict=True):
    (line,) = (line for line in lines if line.startswith(run.name))
    assert f'{run.workdir}/{name}.json' in line


def test_a_state_without_its_log_is_told_and_shows_no_control_characters(study):
  run = study.runs[0]
  run.write_state('running', host='elsewhere')
  assert status.read_status(run).state == 'stopped'
  run.write_state('failed', reason='\x1b]0;title\x07two\nlines ' + 'x' * 10**6)
  note = status.read_status(run).note
  assert note.startswith('\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}two lines xx')
  assert len(note) < 500


def test_without_any_speed_no_time_is_guessed(study, capsys):
  assert sweep.print_status(study.path, study.out, {}) == 0
  assert capsys.readouterr().out.splitlines()[-1] == '4 runs: 4 waiting'


def test_states_of_a_run_that_fails_and_goes_on(tmp_path, capsys):
  run = Study(tmp_path, ['rope', 'broken_eval'])
  assert run()[0] == 1
  assert 'bad luck' in capsys.readouterr().out.partition('✗')[2]  # what the run itself wrote
  rope, broken = sweep.plan(run.path, run.out, {}, run.scripts)
  assert [status.read_status(r).state for r in (rope, broken)] == ['done', 'failed']
  assert rope.read_state().seconds.keys() == broken.read_state().seconds.keys() == {'train', 'eval'}
  (broken.workdir / 'mended').write_text('')
  assert run()[0] == 0
  assert [status.read_status(r).state for r in (rope, broken)] == ['done', 'done']


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
  run = Study(tmp_path, ['rope'])
  with pytest.raises(UserError, match='is no folder; allowed: where a sweep ran'):
    sweep.print_status(run.path, run.out, {})


@pytest.mark.parametrize(
  ('seconds', 'words'), [(0, '0 s'), (89, '89 s'), (90, '2 min'), (5399, '90 min'), (9000, '2.5 h')]
)
def test_durations(seconds, words):
  assert status.duration(seconds) == words


def test_a_look_at_a_lock_keeps_no_process_from_starting(tmp_path, monkeypatch):
  log = tmp_path / 'log.txt'
  assert not storage.is_locked(log)
  log.write_text('')
  with open(log, 'rb') as file:
    fcntl.flock(file, fcntl.LOCK_SH)
    monkeypatch.setattr(subprocesses.time, 'sleep', lambda _: fcntl.flock(file, fcntl.LOCK_UN))
    assert subprocesses.run_process(['true'], log).wait() == 0
  assert not storage.is_locked(log)
