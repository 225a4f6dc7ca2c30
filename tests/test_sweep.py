"""Sweeps on this machine, with stand-ins for train.py and eval.py that need no jax."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import time

import pytest
from kinds import daily_if
from rich.console import Console
from stand_ins import CPUS, STARTED, Study, needs_linux, needs_two_cpus

from posenc_jax import config, storage, sweep
from posenc_jax.cli import parse_args
from posenc_jax.errors import Stopped, UserError
from posenc_jax.reporting import study as studies
from posenc_jax.storage import REPOSITORY
from posenc_jax.sweep import launching, subprocesses
from posenc_jax.sweep.plan import NAME_LENGTH, RunState
from posenc_jax.training.run_dir import claim_run_dir
from scripts.maintenance import torture


@pytest.fixture
def study(tmp_path):
  """make(names, seeds) -> Study."""
  return lambda names, seeds=(0,): Study(tmp_path, names, seeds)


def test_every_run_is_trained_and_evaluated_and_reported_once(study, capsys):
  run = study(['rope', 'alibi'])
  code, calls = run()
  assert code == 0
  assert calls == {f'encoding.name={name},seed=0': ['train', 'eval'] for name in ('rope', 'alibi')}
  printed = capsys.readouterr().out
  assert re.search(r'✓ encoding.name=rope,seed=0  \d+ s  ', printed)
  assert '1.443' in printed  # 10 nats of 10 bytes
  names = ('table.md', 'table.tex', 'table.csv', 'study.json')
  assert all((run.out / name).stat().st_size > 0 for name in names)
  assert '$ ' in (run.out / 'encoding.name=rope,seed=0' / 'log.txt').read_text()

  assert run() == (0, calls)  # all is finished: nothing runs again
  assert '2 of them finished before' in capsys.readouterr().out


def test_a_sweep_says_once_that_no_length_is_past_that_of_training(study, capsys):
  study(['rope', 'alibi'])({'train.length': 4096})
  said = 'eval.lengths=(128, 256, 512, 1024, 2048): none is past train.length=4096\n'
  assert capsys.readouterr().out.count(said) == 1


def test_a_section_of_which_the_sweep_sets_a_field_is_not_overridden(study):
  """All runs would be that one, under the names of the others."""
  run = study(['rope', 'alibi'])
  with pytest.raises(
    UserError, match=r"^config\.encoding={'name': 't5'}; allowed: .* but for encoding\.name"
  ):
    sweep.plan(run.path, run.out, {'encoding': {'name': 't5'}})
  with pytest.raises(
    UserError, match=r"^config\.encoding\.name='alibi'; allowed: .* encoding={'name': 'nope'} whole"
  ):
    sweep.plan(REPOSITORY / 'configs' / 'drope.py', run.out, {'encoding.name': 'alibi'})


def test_where_a_sweep_says_what_runs_start_from_that_is_not_overridden(study):
  """The last run would start from elsewhere, and not from the one before."""
  run = study(['rope'])
  with pytest.raises(
    UserError, match=r"^config\.train\.init_from='mine'; allowed: other fields; .* {'label': 'YaRN"
  ):
    sweep.plan(REPOSITORY / 'configs' / 'paper' / 'yarn.py', run.out, {'train.init_from': 'mine'})


def test_a_folder_that_an_earlier_version_began_goes_on(study):
  """Its study.json may ask for tables that are gone."""
  run = study(['rope'])
  assert run()[0] == 0
  saved = storage.read_json(run.out / 'study.json')
  storage.write_json(run.out / 'study.json', saved | {'tables': [{'form': 'ranks'}]})
  with pytest.raises(UserError, match=r"form='ranks'; .* the folder without that file"):
    studies.load(run.out)
  assert run()[0] == 0
  assert studies.load(run.out).tables == saved['tables']


def test_a_failing_run_stops_no_other_is_named_and_goes_on_later(study, capsys):
  run = study(['broken_train', 'broken_eval', 'forgetful', 'rope'])
  code, calls = run()
  assert code == 1
  ends = {name.partition('=')[2].partition(',')[0]: steps for name, steps in calls.items()}
  both = ['train', 'eval']
  assert ends == {'broken_train': ['train'], 'broken_eval': both, 'forgetful': both, 'rope': both}
  printed = capsys.readouterr().out
  for name, reason in (
    ('broken_train', 'exit code 1: bad luck'),
    ('broken_eval', 'bad luck'),
    ('forgetful', 'no finished'),
  ):
    assert any(
      f'failed: encoding.name={name}' in line and reason in line for line in printed.splitlines()
    )
    notes = [
      line
      for line in (run.out / 'table.md').read_text().splitlines()
      if line.startswith('- no rows of 3 runs: ')
    ]
    assert f'encoding.name={name},seed=0' in notes[0]

  for name in ('broken_train', 'broken_eval', 'forgetful'):
    (run.out / f'encoding.name={name},seed=0' / 'mended').write_text('')
  code, again = run()
  assert code == 1  # the forgetful one
  assert again['encoding.name=broken_train,seed=0'] == ['train', 'train', 'eval']
  assert again['encoding.name=rope,seed=0'] == both


def test_nothing_at_all_succeeding_is_exit_code_1(study):
  assert study(['broken_train'])()[0] == 1


def test_what_cannot_be_made_hides_neither_failures_nor_what_can(study, capsys):
  run = study(['broken_train', 'rope'])
  study_text = run.path.read_text()
  run.path.write_text(
    f"{study_text}\ndef table(): return dict(baseline='broken_train')\n"
    "def figures(): return {'first': dict(protocol='non_overlapping'), 'second': {}}\n"
  )
  assert run()[0] == 1
  printed = capsys.readouterr().out
  assert 'failed: encoding.name=broken_train,seed=0: exit code 1: bad luck' in printed
  why = "table: baseline='broken_train' has no rows; allowed: rope"
  assert f'not made: table 1 of 2 (form lengths): {why}\n' in printed
  assert (
    "not made: figure first: no rows of protocols=['non_overlapping']; allowed: last_k\n" in printed
  )
  assert (run.out / 'second.png').exists()
  (run.out / 'encoding.name=broken_train,seed=0' / 'mended').write_text('')
  assert run()[0] == 1  # no run failed: a figure cannot be made


def test_a_baseline_that_no_run_has_is_refused_unless_overrides_may_have_taken_it(study):
  run = study(['rope'])
  run.path.write_text(f"{run.path.read_text()}\ndef table(): return dict(baseline='ropee')\n")
  for overrides in ({}, {'launch.partition': 'night'}, {'seeds': (0, 1)}):
    with pytest.raises(UserError, match="baseline='ropee' is no label of the study"):
      run(overrides)
  assert not run.out.exists()
  assert run({'encoding.base': 5.0})[1] == {'encoding.name=rope,seed=0': ['train', 'eval']}


def test_settings_of_a_cluster_without_it_are_said_to_do_nothing(study, capsys):
  run = study(['rope'])
  run({'launch.partition': 'night'})
  assert "config.launch.partition is for SLURM's jobs: --launcher=slurm" in capsys.readouterr().out
  run()
  assert 'SLURM' not in capsys.readouterr().out


def test_two_jobs_share_the_cpus_and_make_the_same_table(study, monkeypatch):
  given, environment = [], subprocesses.environment
  monkeypatch.setattr(subprocesses, 'environment', lambda n: given.append(n) or environment(n))
  one, names = study(['rope', 'alibi'], (0, 1)), ('table.md', 'table.csv')
  assert one()[0] == 0
  made = [(one.out / name).read_text() for name in names]
  shutil.rmtree(one.out)
  assert {*given} == {1}
  given.clear()
  assert one(jobs=2)[0] == 0
  assert {*given} == {2}  # and so the memory of a GPU
  assert [(one.out / name).read_text() for name in names] == made
  shares = [
    call.split()[1:] for p in one.out.glob('*/calls.txt') for call in p.read_text().splitlines()
  ]
  assert {len(share) for share in shares} <= {max(1, len(CPUS) // 2), (len(CPUS) + 1) // 2}
  if len(CPUS) > 1:
    assert {tuple(share) for share in shares} == {
      tuple(map(str, half)) for half in (CPUS[: len(CPUS) // 2], CPUS[len(CPUS) // 2 :])
    }


@pytest.mark.parametrize('jobs', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_waits_for_the_one_that_it_starts_from(study, jobs):
  run = study(['rope'])
  run.path.write_text(STARTED)
  code, calls = run({'eval.k': 8}, jobs=jobs)
  assert (code, list(calls.values())) == (0, [['train', 'eval']] * 4)
  starts = {name: config.saved_config(run.out / name).train.init_from for name in calls}
  first, third = (
    'encoding.name=rope,seed=1',
    'label=c,train.init_from.encoding.name=rope,train.init_from.seed=1',
  )
  assert starts == {
    first: '',
    'encoding.name=alibi': '',
    f'{third},train.steps=0': str(run.out / first),
    next(name for name in calls if name.startswith('label=d')): str(
      run.out / f'{third},train.steps=0'
    ),
  }
  assert run({'eval.k': 8}, jobs=jobs) == (0, calls)
  run.out = run.out.rename(run.out.with_name('moved'))
  assert run({'eval.k': 8}, jobs=jobs) == (0, calls)


def test_a_run_must_come_after_the_one_that_it_starts_from(study):
  run = study(['rope'])
  run.path.write_text(STARTED.replace('[first, third,', '[third, first,'))
  with pytest.raises(
    UserError, match=r"sweep: train.init_from=\{'encoding.name': 'rope', 'seed': 1\}; allowed: the"
  ):
    run()
  assert not run.out.exists()


def wait_for(log, text, process):
  end = time.monotonic() + 120
  while not (log.exists() and text in log.read_text()):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end, f'{text!r} never came'
    time.sleep(0.02)


def read_until(process, text):
  return next(line for line in process.stdout if text in line)


@pytest.mark.parametrize(
  'number',
  [
    pytest.param(n, marks=daily_if(n == signal.SIGINT))
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  ],
)
def test_a_stop_lets_the_run_save_leaves_nothing_behind_and_says_how_to_go_on(number, study):
  run = study(['rope', 'slow', 'alibi'])
  process = run.start(number=number)
  log = run.out / 'encoding.name=slow,seed=0' / 'log.txt'
  wait_for(log, 'half way', process)
  process.send_signal(number)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 128 + number
  assert 'go on with the same command: python' in err
  assert 'Traceback' not in err
  assert (log.parent / 'saved').exists()
  assert not (run.out / 'encoding.name=alibi,seed=0').exists()
  slow = sweep.plan(run.path, run.out, {}, run.scripts)[1]
  seconds = slow.read_state().seconds
  assert seconds.keys() == {'train'}
  assert seconds['train'] >= 0.4  # that long it saved

  exit_code, calls = run()
  assert exit_code == 0
  # resumed by the same command
  assert calls['encoding.name=slow,seed=0'] == ['train', 'train', 'eval']
  assert calls['encoding.name=rope,seed=0'] == ['train', 'eval']
  assert slow.read_state().seconds['train'] > seconds['train']


def test_seconds_of_a_run_are_of_all_its_starts(study):
  run = study(['broken_eval'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  planned.write_state('running', seconds={'train': 100.0, 'eval': 10.0})  # cut off there
  for mended, state in ((False, 'failed'), (True, 'ended')):
    if mended:
      (planned.workdir / 'mended').write_text('')
    before = planned.read_state().seconds
    run()
    after = planned.read_state()
    assert after.state == state
    assert all(0 < after.seconds[script] - before[script] < 60 for script in ('train', 'eval'))
  # what was cut off counts where the time that is left is guessed
  done = sweep.status.read_status(planned)
  waiting = dataclasses.replace(done, state='waiting', seconds_per_token=0.0)
  assert sweep.status.time_left([done, waiting]) == (after.seconds['eval'], True)


def test_seconds_that_another_launcher_writes_while_a_run_is_waited_for_stay(study):
  run = study(['rope'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  with open(planned.log, 'ab') as file:
    storage.lock(file.fileno(), planned.log)  # a training of the other launcher
    job = sweep.local.Job(planned, None)
    assert not job.process
    planned.write_state('ended', seconds={'train': 100.0})
  while not job.is_over():
    time.sleep(0.01)
  seconds = planned.read_state().seconds
  assert 100 < seconds['train'] < 160
  assert 0 < seconds['eval'] < 60


def test_a_directory_with_another_config_is_refused_before_anything_runs(study):
  run = study(['rope', 'alibi'])
  run()
  before = {path: path.read_bytes() for path in run.out.rglob('*') if path.is_file()}
  differ = r'optim.clip \(there 1.0, here 2.0\), train.steps \(there 60, here 70\)'
  with pytest.raises(
    UserError,
    match=rf"rope,seed=0' holds a run of another config: {differ}; allowed: another --out$",
  ):
    run({'train.steps': 70, 'optim.clip': 2.0})
  assert {path: path.read_bytes() for path in run.out.rglob('*') if path.is_file()} == before
  (run.out / 'encoding.name=rope,seed=0' / 'config.json').write_text('{')
  with pytest.raises(UserError, match=r'rope,seed=0/config.json is damaged'):
    run()


def test_a_study_of_more_steps_goes_on_with_its_runs(study, capsys):
  run = study(['rope', 'alibi'])
  run()
  code, calls = run({'train.steps': 70})
  assert code == 0
  assert list(calls.values()) == [['train', 'eval', 'train', 'eval']] * 2
  assert 'mixed step, each a line of its own: 60, 70' in (run.out / 'table.md').read_text()
  with pytest.raises(UserError, match=r'another config: train.steps \(there 70, here 60\)'):
    run()
  assert run({'train.steps': 70}) == (0, calls)


def test_what_others_have_started_from_is_not_extended(study):
  run = study(['rope'])
  run.path.write_text(STARTED.replace("'train.steps': 0", "'train.steps': 55"))
  calls = run()[1]
  before = {path: path.read_bytes() for path in run.out.rglob('*') if path.is_file()}
  run.path.write_text(run.path.read_text().replace("'train.steps': 60", "'train.steps': 70"))
  refused = (
    r'config.train.steps=70: label=c,\S+ has started from encoding.name=rope,seed=1 as it was'
  )
  with pytest.raises(UserError, match=rf'{refused} after 60 steps; allowed: 60, or another --out$'):
    run()
  assert {path: path.read_bytes() for path in run.out.rglob('*') if path.is_file()} == before
  assert run.calls() == calls


def test_what_is_only_evaluated_otherwise_goes_through_both_scripts_again(study):
  run = study(['rope'])
  run()
  code, calls = run({'eval.k': 32})
  assert (code, calls) == (0, {'encoding.name=rope,seed=0': ['train', 'eval'] * 2})
  refused = r"rope,seed=0' was begun with another eval\.documents \(there 40, here 5\), which rows"
  with pytest.raises(UserError, match=rf'{refused} do not state; allowed: another --out$'):
    run({'eval.k': 32, 'eval.documents': 5})


def test_a_folder_of_text_in_another_spelling_makes_no_other_runs(study, tmp_path):
  """Neither of one that has begun nor of one that begins beside it."""
  run = study(['rope', 'alibi'])
  (tmp_path / 'texts').mkdir()
  planned = lambda name: sweep.plan(
    run.path, run.out, {'data.corpus': f'{tmp_path}/{name}'}, run.scripts
  )
  begun, other = planned('texts')
  claim_run_dir(begun.workdir, begun.config)
  for name in ('texts/', './texts', 'texts/../texts'):
    again = planned(name)
    assert [run.hashes for run in again] == [begun.hashes, other.hashes]
    _, overrides = parse_args(again[1].commands[0][5:], {})  # as train.py reads them
    assert config.load(run.path, overrides).data.corpus == str(tmp_path / 'texts')
  with pytest.raises(UserError, match=r'holds a run of another config: data\.corpus'):
    planned('.')


def test_runs_of_a_study_that_was_edited_since_it_was_planned_are_refused(tmp_path):
  """Tables would leave them out."""
  run = Study(tmp_path, ['rope', 'alibi'])
  runs = sweep.plan(run.path, run.out, {}, run.scripts)
  source = run.path.read_text()
  run.path.write_text(source.replace("{'train.steps': 60}", "{'train.steps': 61}"))
  failed = sweep.local.execute(runs, 1, Console())
  assert failed.keys() == {planned.name for planned in runs}
  reason = 'the study was edited after its sweep began, or a field was added; allowed: the same'
  assert all(reason in why for why in failed.values())
  assert run.calls() == {}

  run.path.write_text(source)
  assert run()[0] == 0
  assert all(calls == ['train', 'eval'] for calls in run.calls().values())


def test_overrides_win_and_runs_of_one_seed_are_one(study):
  run = study(['rope'], (0, 1, 2))
  code, calls = run({'seed': 5, 'encoding.base': 5.0})
  assert (code, list(calls)) == (0, ['encoding.name=rope,seed=5'])
  saved = json.loads((run.out / 'encoding.name=rope,seed=5' / 'config.json').read_text())
  assert (saved['seed'], saved['encoding'], saved['train']['steps']) == (
    5,
    {'name': 'rope', 'base': 5.0},
    60,
  )


def test_a_start_that_all_seeds_share_keeps_its_seed(study):
  """So that sweeps of one seed each can be joined: it is one run, whichever seed is asked for."""
  run = study(['rope'])
  run.path.write_text(
    STARTED[: STARTED.index('def sweep')] + "def sweep():\n  start = {'label': 'base'}\n"
    "  tuned = {'label': 'b', 'train.init_from': start}\n"
    "  return [start, *({'seed': n} | tuned for n in range(2))]\n"
  )
  planned = sweep.plan(run.path, run.out, {'seed': 1})
  assert [(of.name, of.config.seed) for of in planned] == [
    ('label=base', 0),
    ('seed=1,label=b,train.init_from.label=base', 1),
  ]
  assert planned[1].init_from == planned[0].workdir
  assert [of.config.seed for of in sweep.plan(run.path, run.out, {'seed': 5})] == [5, 5]


def test_no_jobs_at_all_are_refused_before_anything_is_written(study):
  run = study(['rope'])
  with pytest.raises(UserError, match='--jobs=0; allowed: 1 or more'):
    run({}, 0)
  assert not run.out.exists()


@pytest.mark.parametrize('platforms', [None, '', 'tpu', 'cpu'])
def test_runs_side_by_side_do_not_all_take_the_whole_tpu(platforms, study, monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS')
  if platforms is not None:
    monkeypatch.setenv('JAX_PLATFORMS', platforms)
  monkeypatch.setattr(launching, 'has_tpu', lambda: True)
  run = study(['rope', 'alibi'])
  if platforms != 'cpu':
    apart = r'TPU_PROCESS_BOUNDS=1,1,1 .* TPU_VISIBLE_DEVICES=N and --part=N\+1/M --out=OUT_N, '
    allowed = f'allowed: 1; with {apart}'
    with pytest.raises(UserError, match=f'^--jobs=2: each run would take all chips .*{allowed}'):
      run(jobs=2)
    assert not run.out.exists()
  assert run(jobs=2 if platforms == 'cpu' else 1)[0] == 0


@pytest.mark.parametrize(
  ('name', 'is_killed', 'calls'),
  [
    pytest.param('patient_train', False, ['train', 'train', 'eval'], marks=pytest.mark.slow),
    ('patient_train', True, ['train', 'train', 'eval']),
    pytest.param('patient_eval', False, ['train', 'eval'], marks=pytest.mark.slow),
    pytest.param('patient_eval', True, ['train', 'eval', 'train', 'eval'], marks=pytest.mark.slow),
  ],
)
def test_what_a_killed_sweep_left_at_work_is_waited_for_and_goes_on(study, name, is_killed, calls):
  run = study([name, 'rope'])
  workdir = run.out / f'encoding.name={name},seed=0'
  process = run.start()
  wait_for(workdir / 'log.txt', '\nhalf way', process)
  process.kill()
  process.communicate()

  process = run.start()
  assert f'{workdir.name}: waiting for the process that' in read_until(process, 'waiting')
  if is_killed:
    os.kill(int((workdir / 'log.txt').read_text().split()[-1]), signal.SIGKILL)
  (workdir / 'go').write_text('')
  out, error = process.communicate(timeout=60)
  assert (process.returncode, error) == (0, '')
  assert run.calls() == {workdir.name: calls, 'encoding.name=rope,seed=0': ['train', 'eval']}
  assert '1.443' in out


@needs_two_cpus
def test_what_was_left_at_work_keeps_its_cpus_and_others_get_the_rest(study):
  run = study(['patient_train'], (0, 1))
  workdirs = [run.out / f'encoding.name=patient_train,seed={seed}' for seed in (0, 1)]
  process = run.start(jobs=2)
  for workdir in workdirs:
    wait_for(workdir / 'log.txt', '\nhalf way', process)
  process.kill()
  process.communicate()
  os.kill(int((workdirs[0] / 'log.txt').read_text().split()[-1]), signal.SIGKILL)
  (workdirs[0] / 'go').touch()
  process = run.start(jobs=2)
  read_until(process, '✓ encoding.name=patient_train,seed=0')
  (workdirs[1] / 'go').touch()
  process.communicate(timeout=30)
  assert process.returncode == 0
  first, other = ((workdir / 'calls.txt').read_text().split('\n') for workdir in workdirs)
  assert first[0] == first[1] != other[0] == other[1]


@needs_linux
def test_ctrl_c_also_stops_what_an_earlier_sweep_left_at_work(study):
  run = study(['rope', 'slow'], (0, 1))
  logs = [run.out / f'encoding.name=slow,seed={seed}' / 'log.txt' for seed in (0, 1)]
  first = run.start(jobs=2)
  for log in logs:
    wait_for(log, 'half way', first)
  first.kill()
  first.communicate()
  second = run.start(jobs=1, number=signal.SIGINT)  # it waits for the one, the other is to come
  read_until(second, 'waiting')
  second.send_signal(signal.SIGINT)
  out, _ = second.communicate(timeout=30)
  assert second.returncode == 130
  assert 'asking 2 processes to stop' in out
  assert all((log.parent / 'saved').exists() for log in logs)
  assert not any(storage.is_locked(log) for log in logs)


def test_the_terminal_may_hang_up_twice_and_trainings_still_save(study):
  run = study(['slow'])
  process = run.start(number=signal.SIGHUP)
  log = run.out / 'encoding.name=slow,seed=0' / 'log.txt'
  wait_for(log, 'half way', process)
  for _ in range(2):
    process.send_signal(signal.SIGHUP)
    time.sleep(0.01)
  assert process.wait(timeout=30) == 129
  process.communicate()
  assert (log.parent / 'saved').exists()


def test_a_process_out_of_reach_is_left_and_named(study, monkeypatch, capsys):
  """Here, one whose output is not the log; so would be one on another machine."""
  run = study(['rope'])
  log = run.out / 'encoding.name=rope,seed=0' / 'log.txt'
  log.parent.mkdir(parents=True)

  def interrupt(seconds):
    if seconds == sweep.local.POLL:
      raise KeyboardInterrupt

  monkeypatch.setattr(sweep.local.time, 'sleep', interrupt)
  with open(log, 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(Stopped, match='go on with the same command'):
      run()
  assert f'{log}: its process is out of reach from here' in capsys.readouterr().out


def test_a_second_sweep_of_one_folder_is_refused_while_its_status_is_shown(study, capsys):
  run = study(['rope'])
  run.out.mkdir()
  with storage.file_lock(run.out / 'sweep.lock'):
    out = re.escape(str(run.out))
    words = rf'^--out={out}: another sweep is at work there \(process {os.getpid()} on .*\); allo'
    with pytest.raises(UserError, match=words):
      run()
    assert sweep.print_status(run.path, run.out, {}) == 0
  assert '1 runs: 1 waiting' in capsys.readouterr().out
  assert not run.calls()
  assert run()[0] == 0


HOSTILE_STATES = [
  '',
  '[]',
  '{"state": "ended", "host": "a"}',  # without a check
  {'state': 1, 'host': 'a'},
  {'state': 'running'},
  {'state': 'odd', 'host': 'a'},
  {'state': 'failed', 'host': 'a', 'reason': 1},
  {'state': 'ended', 'host': 'a', 'seconds': {'eval': 'x'}},
  {'state': 'ended', 'host': 'a', 'seconds': [1]},
  {'state': 'ended', 'host': 'a', 'seconds': {'eval': -1}},
  {'state': 'ended', 'host': 'a', 'seconds': {'eval': 10**400}},
  {'state': 'ended', 'host': 'a', 'self': 1},
]


@pytest.mark.parametrize('content', HOSTILE_STATES)
def test_a_damaged_state_says_nothing_and_is_replaced(study, capsys, content):
  run = study(['rope'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  path = planned.workdir / 'state.json'
  if isinstance(content, str):
    path.write_text(content)
  else:
    storage.write_json(path, content)
  assert planned.read_state() == RunState()
  assert sweep.print_status(run.path, run.out, {}) == 0
  assert 'waiting' in capsys.readouterr().out
  planned.write_state('ended')
  assert planned.read_state().state == 'ended'


def test_without_the_scripts_of_a_clone_one_line_says_where_they_are(study, tmp_path):
  run = study(['rope'])
  for scripts in ((), (tmp_path / 'site-packages' / 'train.py',)):
    with pytest.raises(UserError, match=r'no part of the package; allowed: .* in a clone') as error:
      sweep.sweep(run.path, run.out, {}, scripts)
    assert r'\n' not in str(error.value)
  assert not run.out.exists()


def test_names_are_safe_short_readable_and_tell_overrides_apart():
  several = [
    {},
    {'encoding.name': 'alibi', 'seed': 0},
    {'encoding.name': 'alibi', 'seed': 1},
    {'encoding': {'name': 'rope', 'base': 1e4}},
    {'eval.lengths': (128, 256)},
    {'eval.lengths': (128, 2, 56)},
    {'data.corpus': 'tfds:a/b'},
    {'data.corpus': 'tfds:a:b'},
    {'data.corpus': '../../x'},
    {'label': 'ä'},
    {'label': 'ö'},
    {'label': 'x' * 300},
    {'label': 'x' * 301},
  ]
  names = [sweep.run_name(overrides) for overrides in several]
  assert names[:4] == [
    'run',
    'encoding.name=alibi,seed=0',
    'encoding.name=alibi,seed=1',
    'encoding.name=rope,encoding.base=10000.0',
  ]
  assert len(set(names)) == len(names)
  for name in names:
    assert len(name) <= NAME_LENGTH
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| \'()')
    assert name not in ('.', '..')


@pytest.mark.parametrize(
  ('name', 'runs'), [('quick', 9), ('own_text', 15), ('classic', 48), ('extension', 72)]
)
def test_the_studies_of_this_repository_are_sound(name, runs, tmp_path):
  path = REPOSITORY / 'configs' / f'{name}.py'
  planned = sweep.plan(path, tmp_path / name, {})
  assert len({run.workdir for run in planned}) == runs
  studies.of_study(path, tmp_path)
  assert f'--config=configs/{name}.py' in config.load_study(path).__doc__


@pytest.mark.slow
def test_kills_of_every_kind_change_nothing(tmp_path, capsys):
  small = ['--encodings=rope', '--config.train.steps=20', '--config.optim.warmup=1']
  assert torture.main([f'--out={tmp_path / "out"}', '--kills=4', *small]) == 0
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert [*map(str, (4, 4, 0, 0, 0))] == lines[-2][1:]
  assert [line[:2] for line in lines[-6:-2]] == [[kind, '1'] for kind in torture.KINDS]
