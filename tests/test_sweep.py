"""Sweeps on this machine, with stand-ins for train.py and eval.py that need no jax."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from stand_ins import ROOT, STARTED, Study

from posenc_jax import config, sweep
from posenc_jax.errors import UserError
from posenc_jax.reporting import study as studies


@pytest.fixture
def study(tmp_path, monkeypatch):
  """make(names, seeds) -> Study."""
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setattr(sweep.local, 'POLL', 0.01)
  return lambda names, seeds=(0,): Study(tmp_path, names, seeds)


def test_every_run_is_trained_and_evaluated_and_reported_once(study, capsys):
  run = study(['rope', 'alibi'])
  code, calls = run()
  assert code == 0
  assert calls == {f'encoding.name={name},seed=0': ['train', 'eval'] for name in ('rope', 'alibi')}
  printed = capsys.readouterr().out
  assert '✓ encoding.name=rope,seed=0' in printed
  assert '1.443' in printed  # 10 nats of 10 bytes
  names = ('table.md', 'table.tex', 'table.csv', 'extrapolation.png', 'study.json')
  assert all((run.out / name).stat().st_size > 0 for name in names)
  assert '$ ' in (run.out / 'encoding.name=rope,seed=0' / 'log.txt').read_text()

  assert run() == (0, calls)  # all is finished: nothing runs again
  assert '2 of them finished before' in capsys.readouterr().out


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
  assert "not made: tables: table: baseline='broken_train' has no rows; allowed: rope\n" in printed
  assert (
    "not made: figure first: no rows of protocols=['non_overlapping']; allowed: last_k\n" in printed
  )
  assert (run.out / 'second.png').exists()
  assert run({'encoding.name': 'rope'})[0] == 1  # no run failed


def test_two_jobs_share_the_cpus_and_make_the_same_table(study):
  one, names = study(['rope', 'alibi'], (0, 1)), ('table.md', 'table.csv')
  assert one()[0] == 0
  made = [(one.out / name).read_text() for name in names]
  shutil.rmtree(one.out)
  assert one(jobs=2)[0] == 0
  assert [(one.out / name).read_text() for name in names] == made
  shares = [
    call.split()[1:] for p in one.out.glob('*/calls.txt') for call in p.read_text().splitlines()
  ]
  cpus = sorted(os.sched_getaffinity(0))
  assert {len(share) for share in shares} <= {max(1, len(cpus) // 2), (len(cpus) + 1) // 2}
  if len(cpus) > 1:
    assert {tuple(share) for share in shares} == {
      tuple(map(str, half)) for half in (cpus[: len(cpus) // 2], cpus[len(cpus) // 2 :])
    }


@pytest.mark.parametrize('jobs', [1, 2])
def test_a_run_waits_for_the_one_that_it_starts_from(study, jobs):
  run = study(['rope'])
  run.path.write_text(STARTED.format(base=str(ROOT / 'configs' / 'base.py')))
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


def test_a_run_must_come_after_the_one_that_it_starts_from(study):
  run = study(['rope'])
  text = STARTED.format(base=str(ROOT / 'configs' / 'base.py'))
  run.path.write_text(text.replace('[first, third,', '[third, first,'))
  with pytest.raises(
    UserError, match=r"sweep: train.init_from=\{'encoding.name': 'rope', 'seed': 1\}; allowed: the"
  ):
    run()
  assert not run.out.exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_lets_the_run_save_leaves_nothing_behind_and_says_how_to_go_on(number, study):
  run = study(['rope', 'slow', 'alibi'])
  heard = 'signal.default_int_handler' if number == signal.SIGINT else 'signal.SIG_DFL'
  code = (
    'import signal, sys\n'
    'from pathlib import Path\n'
    f'signal.signal({int(number)}, {heard})\n'  # also where these tests run under nohup
    'from posenc_jax import config, sweep\n'
    'config.main(lambda argv: sweep.sweep(argv[0], argv[1], {}, tuple(map(Path, argv[2:]))))\n'
  )
  command = [sys.executable, '-c', code, str(run.path), str(run.out), *map(str, run.scripts)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  process = subprocess.Popen(command, **pipes)
  log = run.out / 'encoding.name=slow,seed=0' / 'log.txt'
  while not (log.exists() and 'half way' in log.read_text()):
    assert process.poll() is None, process.communicate()
    time.sleep(0.02)
  process.send_signal(number)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 130
  assert 'go on with the same command: python' in err
  assert 'Traceback' not in err
  assert (log.parent / 'saved').exists()
  assert not (run.out / 'encoding.name=alibi,seed=0').exists()

  exit_code, calls = run()
  assert exit_code == 0
  # resumed by the same command
  assert calls['encoding.name=slow,seed=0'] == ['train', 'train', 'eval']
  assert calls['encoding.name=rope,seed=0'] == ['train', 'eval']


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


def test_what_is_only_evaluated_otherwise_goes_through_both_scripts_again(study):
  run = study(['rope'])
  run()
  code, calls = run({'eval.k': 32})
  assert (code, calls) == (0, {'encoding.name=rope,seed=0': ['train', 'eval'] * 2})


def test_overrides_win_and_runs_that_become_equal_are_one(study):
  run = study(['rope', 'alibi'], (0, 1, 2))
  code, calls = run({'seed': 5, 'encoding.base': 5.0, 'encoding.name': 'rope'})
  assert (code, list(calls)) == (0, ['encoding.name=rope,seed=5'])
  saved = json.loads((run.out / 'encoding.name=rope,seed=5' / 'config.json').read_text())
  assert (saved['seed'], saved['encoding'], saved['train']['steps']) == (
    5,
    {'name': 'rope', 'base': 5.0},
    60,
  )


@pytest.mark.parametrize(
  ('overrides', 'jobs', 'message'),
  [
    ({'train.stps': 1}, 1, r"did you mean 'train.steps'\?"),
    ({'train.steps': 0}, 1, 'config.train.steps=0'),
    ({'eval.k': 'x'}, 1, 'eval.k'),
    ({}, 0, r'--jobs=0; allowed: 1 or more'),
  ],
)
def test_bad_input_is_one_line_before_anything_is_written(overrides, jobs, message, study):
  run = study(['rope'])
  with pytest.raises(UserError, match=message):
    run(overrides, jobs)
  assert not run.out.exists()


def test_a_run_that_another_process_is_at_work_on_fails_and_is_left_alone(study):
  run = study(['rope'])
  workdir = run.out / 'encoding.name=rope,seed=0'
  workdir.mkdir(parents=True)
  with open(workdir / 'log.txt', 'a') as log:
    fcntl.flock(log, fcntl.LOCK_EX)
    assert run() == (1, {})
  assert run()[0] == 0


def test_without_the_scripts_of_a_clone_one_line_says_where_they_are(study, tmp_path):
  run = study(['rope'])
  for scripts in ((), (tmp_path / 'site-packages' / 'train.py',)):
    with pytest.raises(UserError, match=r'no part of the package; allowed: .* in a clone') as error:
      sweep.sweep(run.path, run.out, {}, scripts)
    assert '\n' not in str(error.value)
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
    assert len(name) <= sweep.NAME_LENGTH
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| \'()')
    assert name not in ('.', '..')


@pytest.mark.parametrize(('name', 'runs'), [('quick', 9), ('classic', 27), ('extension', 72)])
def test_the_studies_of_this_repository_are_sound(name, runs, tmp_path):
  path = ROOT / 'configs' / f'{name}.py'
  planned = sweep.plan(path, tmp_path / name, {})
  assert len({run.workdir for run in planned}) == runs
  studies.of_study(path, tmp_path)
  assert f'--config=configs/{name}.py' in config.load_study(path).__doc__


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config=configs/quick.py', '--jbos=2'], "did you mean '--jobs'"),
    (['--config=configs/base.py'], 'has no sweep()'),
    (
      ['--config=configs/quick.py', '--config.encoding.nam=x', '--out={out}', '--config.seed=-1'],
      'config.seed=-1',
    ),
    (['--config=configs/quick.py', '--out={out}/file/below'], 'file'),
  ],
)
def test_the_script_turns_bad_input_into_one_line_and_exit_code_2(arguments, message, tmp_path):
  (tmp_path / 'file').write_text('')
  command = [
    sys.executable,
    'scripts/sweep.py',
    *(argument.format(out=tmp_path) for argument in arguments),
  ]
  done = subprocess.run(command, cwd=ROOT, env={'PYTHONPATH': '.'}, capture_output=True, text=True)
  assert done.returncode == 2
  assert message in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_a_sweep_imports_no_jax():
  code = (
    "import sys, posenc_jax.sweep; assert not {'jax', 'flax', 'matplotlib'} & sys.modules.keys()"
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env={'PYTHONPATH': '.'}, check=True)
