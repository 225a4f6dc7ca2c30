"""Sweeps as SLURM jobs: what is asked of the scheduler, through commands that stand in for it; and,
marked, a real one.

pytest -m slurm -n 0 (after apt-get install slurm-wlm munge; starts a cluster of one node, and ends
it)
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import submitit
from small_runs import MODEL, wait_for, write_text_corpus
from stand_ins import STARTED, Study

from posenc_jax import config, storage, sweep
from posenc_jax.errors import Stopped, UserError
from posenc_jax.storage import REPOSITORY
from posenc_jax.sweep import slurm, subprocesses
from posenc_jax.sweep.plan import PlannedRun
from posenc_jax.training import run_dir

RUN = """
import sys
from pathlib import Path
from posenc_jax import cli, sweep
from posenc_jax.sweep import slurm
slurm.POLL, slurm.QUEUE_POLL = 0.2, 1.0
cli.main(lambda argv: sweep.sweep(argv[0], argv[1], {}, tuple(map(Path, argv[2:])), 1, 'slurm'))
"""
# The commands keep what they are asked in files beside them. Jobs end at once and do nothing, so
# their runs fail; those in `queue` stay.
SBATCH = """#!/bin/sh
here=$(dirname "$0"); n=$(ls "$here" | grep -c ^batch_)
if grep -q partition=none "$1"; then
  echo 'sbatch: error: invalid partition specified: none' >&2; exit 1
fi
cp "$1" "$here/batch_$n"; echo "Submitted batch job 10$n"
"""
SQUEUE = """#!/bin/sh
here=$(dirname "$0"); [ -e "$here/down" ] && exit 1; [ ! -e "$here/queue" ] || cat "$here/queue"
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
  """make(names, seeds) -> Study."""
  for name, value in (('POLL', 0.01), ('QUEUE_POLL', 0.0), ('PATIENCE', 0.05)):
    monkeypatch.setattr(slurm, name, value)
  return lambda names, seeds=(0,): Study(tmp_path, names, seeds)


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
  """The folder of commands that stand in for SLURM's."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  for name, text in {'sbatch': SBATCH, 'squeue': SQUEUE, 'srun': '#!/bin/sh\n'}.items():
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:/usr/bin:/bin')
  monkeypatch.setattr(submitit.SlurmExecutor, '_throttle', lambda self: None)
  return folder


def batches(folder):
  """{flag: value} of what was submitted, in order."""
  files = sorted(folder.glob('batch_*'), key=lambda path: int(path.name.partition('_')[2]))
  flags = [
    [line[len('#SBATCH --') :] for line in path.read_text().splitlines() if line[:7] == '#SBATCH']
    for path in files
  ]
  return [
    {name: value for name, _, value in (flag.partition('=') for flag in some)} for some in flags
  ]


def test_runs_of_one_start_and_one_size_are_an_array_that_waits_for_its_start(
  study, scheduler, capsys
):
  run = study(['rope'])
  run.path.write_text(STARTED)
  asked = {
    'launch.partition': 'fast',
    'launch.gpus': 2,
    'launch.cpus': 3,
    'launch.max_concurrent': 1,
    'launch.minutes': 50,
    'launch.warning_seconds': 600,
  }
  more = {
    'launch.options': ('qos=high', 'exclusive'),
    'launch.setup': ('module load x',),
    'launch.memory_gb': 7,
  }
  spread = {'launch.nodes': 2, 'launch.tasks_per_node': 2, 'mesh.data': 4}
  code, calls = run({**asked, **more, **spread}, launcher='slurm')
  assert (code, calls) == (1, {})
  first, third, fourth = batches(scheduler)
  assert first['array'] == '0-1%1'  # that which others start from, and that which stands alone
  assert 'dependency' not in first
  assert (third['dependency'], fourth['dependency']) == ('afterany:100_0', 'afterany:101')
  for flags in (first, third, fourth):
    assert (
      flags.items()
      >= {
        'partition': 'fast',
        'gpus-per-node': '2',
        'nodes': '2',
        'ntasks-per-node': '2',
        'cpus-per-task': '3',
        'mem': '7GB',
        'time': '50',
        'qos': 'high',
        'exclusive': '',
        'requeue': '',
        'open-mode': 'append',
        'signal': 'USR2@600',
      }.items()
    )
    assert 'account' not in flags
  text = (scheduler / 'batch_0').read_text()
  assert '\nmodule load x\n' in text
  assert {'--cpus-per-task=3', '--wait=0'} <= {*text.partition('\nsrun ')[2].split()}
  printed = capsys.readouterr().out
  assert 'failed: encoding.name=rope,seed=1: job 100_0 has left the queue before its end' in printed


@pytest.mark.parametrize(
  ('most', 'arrays'),
  [
    (1000, [('1', '0-2%3'), ('2', '0-2%3')]),
    (2, [('1', '0-1%2'), ('1', None), ('2', '0-1%2'), ('2', None)]),  # one run needs no array
  ],
)
def test_runs_of_other_sizes_and_more_than_an_array_may_have_are_arrays_of_their_own(
  study, scheduler, monkeypatch, most, arrays
):
  monkeypatch.setattr(slurm, 'MAX_TASKS', most)
  run = study(['rope'])
  text = run.path.read_text().partition('def sweep')[0]
  runs = [{'launch.gpus': gpus, 'seed': seed} for seed in range(3) for gpus in (1, 2)]
  run.path.write_text(f'{text}def sweep():\n  return {runs!r}\n')
  run(launcher='slurm')
  assert [(flags['gpus-per-node'], flags.get('array')) for flags in batches(scheduler)] == arrays


def test_what_is_in_the_queue_is_waited_for_and_not_submitted_again(
  study, scheduler, monkeypatch, capsys
):
  run = study(['rope', 'alibi'])
  (scheduler / 'queue').write_text('100_0\n100_1\n')
  looks = []

  def interrupt(seconds):
    looks.append(seconds)
    if len(looks) == 3:
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(slurm.time, 'sleep', interrupt)
    with pytest.raises(
      Stopped,
      match=r'the jobs stay in the queue \(scancel takes them out\); wait again with the same',
    ):
      run(launcher='slurm')
  assert len(batches(scheduler)) == 1
  (scheduler / 'queue').write_text('100_1\n')  # 100_0 was cancelled meanwhile
  rope, alibi = sweep.plan(run.path, run.out, {}, run.scripts)
  real = slurm.time.sleep

  def finish_alibi(seconds):
    if len(batches(scheduler)) == 2 and not alibi.is_finished:
      write_finished(alibi)
    real(seconds)

  monkeypatch.setattr(slurm.time, 'sleep', finish_alibi)
  assert run(launcher='slurm')[0] == 1
  printed = capsys.readouterr().out
  assert '1 runs are in the queue already' in printed
  assert f'✓ {alibi.name}  0 s over all starts' in printed
  assert len(batches(scheduler)) == 2
  assert 'array' not in batches(scheduler)[1]
  assert storage.read_json(run.out / 'submitit' / 'jobs.json') == {
    rope.name: '101',
    alibi.name: '100_1',
  }


def test_ctrl_c_while_jobs_are_submitted_loses_none(study, scheduler, monkeypatch):
  run = study(['rope', 'alibi'])
  sbatch = scheduler / 'sbatch'
  # A terminal sends it to sbatch, too. Where sh is dash, it would lift the block that it inherits.
  early = SBATCH.replace('bin/sh', 'bin/bash').replace('echo "Sub', 'kill -INT $$ $PPID; echo "Sub')
  sbatch.write_text(f'{early}\nkill -INT $PPID')
  before = signal.signal(signal.SIGINT, lambda *_: pytest.fail('nothing waits for the answer'))
  try:
    with pytest.raises(Stopped, match='the jobs stay in the queue'):
      run(launcher='slurm')
  finally:
    signal.signal(signal.SIGINT, before)
  sbatch.write_text(SBATCH)
  (scheduler / 'queue').write_text('100_0\n100_1\n')
  monkeypatch.setattr(slurm.time, 'sleep', lambda _: (scheduler / 'queue').write_text(''))
  assert run(launcher='slurm')[0] == 1
  assert len(batches(scheduler)) == 1


def test_a_run_that_failed_is_named_with_its_reason_and_submitted_again(
  study, scheduler, monkeypatch, capsys
):
  run = study(['rope'])
  (scheduler / 'queue').write_text('100\n101\n')
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  monkeypatch.setattr(
    slurm.time,
    'sleep',
    lambda seconds: planned.write_state('failed', reason='exit code 1: bad luck'),
  )
  for number in (1, 2):
    assert run(launcher='slurm')[0] == 1
    assert f'failed: {planned.name}: exit code 1: bad luck' in capsys.readouterr().out
    assert len(batches(scheduler)) == number


@pytest.mark.parametrize(
  ('content', 'fault'),
  [(b'{', 'it is no JSON'), (b'{}', 'its check differs'), ({'a': 1}, "the job of 'a' is int")],
)
def test_damaged_numbers_of_jobs_are_one_line(study, scheduler, content, fault):
  run = study(['rope'])
  (run.out / 'submitit').mkdir(parents=True)
  path = run.out / 'submitit' / 'jobs.json'
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    storage.write_json(path, content)
  with pytest.raises(UserError, match=rf'jobs.json is damaged: {fault}.*; allowed: without this'):
    run(launcher='slurm')
  assert not batches(scheduler)


def test_a_damaged_state_of_a_job_is_one_yet_to_come(study, scheduler, monkeypatch):
  run = study(['rope'])
  (scheduler / 'queue').write_text('100\n')
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  looks = []

  def damage_and_finish(seconds):
    (planned.workdir / 'state.json').write_text('{"state": 1}')
    if len(looks) == 2:
      write_finished(planned)
    looks.append(seconds)

  monkeypatch.setattr(slurm.time, 'sleep', damage_and_finish)
  run(launcher='slurm')
  assert len(looks) > 2  # the damage did not end the waiting


def test_a_look_at_a_run_reads_its_state_once_and_makes_no_hash(study, scheduler, monkeypatch):
  run = study(['rope'])
  (scheduler / 'queue').write_text('100\n')
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  read_state, config_hash, calls, looks = PlannedRun.read_state, config.config_hash, [], []
  monkeypatch.setattr(
    PlannedRun, 'read_state', lambda run: calls.append('state') or read_state(run)
  )
  monkeypatch.setattr(config, 'config_hash', lambda c: calls.append('hash') or config_hash(c))

  def finish(seconds):
    looks.append(calls.copy())
    if len(looks) == 3:
      write_finished(planned)
    calls.clear()

  monkeypatch.setattr(slurm.time, 'sleep', finish)
  run(launcher='slurm')
  assert looks[1:] == 3 * [['state']]


def write_finished(run):
  run_dir.mark_finished(run.workdir, config.config_hash(run.config))


def test_a_task_waits_for_the_process_of_an_earlier_start(study, tmp_path):
  """As where SLURM requeues a job whose node it has lost sight of, and which works on."""
  run = study(['rope'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  earlier = subprocesses.run_process(['sleep', '60'], planned.log)
  job = submitit.LocalExecutor(tmp_path / 'jobs').submit(slurm.Task(), planned)
  wait_for(job.paths.stdout, 'Loading pickle')
  time.sleep(3)  # imports, and the 0.75 s for which `run_process` tries again
  assert run.calls() == {}
  assert not job.done()
  earlier.kill()
  earlier.wait()
  assert job.result() is None
  assert run.calls() == {planned.name: ['train', 'eval']}


def test_what_cannot_be_submitted_is_one_line(study, scheduler, monkeypatch):
  run = study(['rope', 'alibi'])
  with pytest.raises(
    UserError,
    match=r"^sbatch: error: invalid partition specified: none; allowed: .*'partition': 'none'",
  ):
    run({'launch.partition': 'none'}, launcher='slurm')
  (scheduler / 'down').write_text('')
  with pytest.raises(UserError, match='squeue does not answer'):
    run(launcher='slurm')
  shutil.rmtree(run.out)
  with pytest.raises(
    UserError, match=r'--jobs=2 with --launcher=slurm; allowed: 1; --config.launch.max_concurrent'
  ):
    run(jobs=2, launcher='slurm')
  with pytest.raises(UserError, match=r"--launcher=slrum; did you mean 'slurm'\?"):
    run(launcher='slrum')
  spread = {'launch.nodes': 2, 'launch.tasks_per_node': 2, 'launch.gpus': 4}
  with pytest.raises(
    UserError, match=r'^config.launch.gpus=4; allowed: 0 or launch.tasks_per_node=2'
  ):
    run(spread, launcher='slurm')
  one_a_node = spread | {'launch.tasks_per_node': 1}  # each has all GPUs of its node
  config.validate(config.load(config.BASE, one_a_node))
  for mesh, allowed in [
    (spread | {'launch.gpus': 2}, r'4, the GPUs of launch.nodes=2 with launch.gpus=2'),
    ({'launch.gpus': 1, 'mesh.data': 2}, 'at most 1, the GPUs of'),
  ]:
    with pytest.raises(UserError, match=rf'^config.mesh: a product of [12]; allowed: {allowed}'):
      run(mesh, launcher='slurm')
    shutil.rmtree(run.out)
  monkeypatch.setenv('PATH', '/nowhere')
  with pytest.raises(UserError, match='no sbatch on this machine; allowed: local, or a node'):
    run(launcher='slurm')
  assert not run.out.exists()


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('partition', 'fast\ntouch /tmp/x'),
    ('account', 'a\r'),
    ('partition', 'a\x85b'),
    ('setup', ('module load x\ntouch /tmp/x',)),
    ('setup', ('#SBATCH --job-name=x',)),
    ('setup', (1,)),
    ('options', ('--qos=x',)),
    ('options', ('qos=high\n#SBATCH --time=1',)),
    ('options', ('comment=a\u2028b',)),
    ('options', ('job-name=x',)),
    ('options', ('time=5',)),
    ('options', ('tim=5',)),  # sbatch takes beginnings of names, too
    ('options', ('exclusive', 'array=0-9')),
    ('options', ('outp=/tmp/x',)),
    ('options', ('no-requeue',)),
    ('options', ('chdir=/tmp',)),
    ('options', ('parsable',)),
    ('options', ('mem-per-cpu=1G',)),
  ],
)
def test_what_would_change_the_script_of_a_job_is_refused(study, scheduler, field, value):
  run = study(['rope'])
  with pytest.raises(UserError, match=rf'^config.launch.{field}=.*; allowed: '):
    run({f'launch.{field}': value}, launcher='slurm')
  assert not run.out.exists()


def test_what_submitit_writes_by_itself_no_option_may_replace(study, scheduler):
  run = study(['rope', 'alibi'])
  run.path.write_text(run.path.read_text().replace("'train.steps': 60", "'launch.partition': 'a'"))
  run({'launch.account': 'b', 'launch.gpus': 1}, launcher='slurm')
  (flags,) = batches(scheduler)
  for flag in flags.keys() - {'wckey'}:
    with pytest.raises(UserError, match=r'config\.launch\.options='):
      run({'launch.options': (f'{flag}=1',)}, launcher='slurm')


@pytest.mark.parametrize('name', ['a\nb', 'a%jb'])
def test_a_folder_that_would_change_the_script_of_a_job_is_refused(study, scheduler, name):
  run = study(['rope'])
  run.out = run.out / name
  with pytest.raises(UserError, match=r'^--out=.* with --launcher=slurm; allowed: a path without'):
    run(launcher='slurm')
  assert not run.out.exists()


def test_the_shell_reads_no_value_of_a_job_but_setup(study, scheduler):
  run = study(['rope'])
  words = "a b; $(c) 'd' \\"
  options = {'launch.partition': words, 'launch.options': (f'comment={words}',)}
  run({**options, 'launch.setup': ('echo $HOME',)}, launcher='slurm')
  lines = (scheduler / 'batch_0').read_text().splitlines()
  for flag in ('partition', 'comment'):
    assert f'#SBATCH --{flag}={shlex.quote(words)}' in lines
  assert 'echo $HOME' in lines


def test_a_job_that_is_warned_saves_goes_back_to_the_queue_and_goes_on(study, tmp_path):
  """With submitit's own executor of local processes in the place of SLURM's."""
  run = study(['slow'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  planned.write_state('queued', seconds={'train': 10.0})  # of an earlier start
  job = submitit.LocalExecutor(tmp_path / 'jobs').submit(slurm.Task(), planned)
  wait_for(planned.workdir / 'log.txt', 'half way')
  wait_for(planned.workdir / 'state.json', '"running"')
  (said,) = re.findall('half way ([0-9]+) ([0-9]+)', (planned.workdir / 'log.txt').read_text())
  for pid in map(int, said):  # training and task: SLURM signals all processes of a job
    os.kill(pid, signal.SIGUSR2)
  assert job.result() is None
  assert planned.is_finished
  assert run.calls() == {planned.name: ['train', 'train', 'eval']}
  assert planned.read_state().state == 'ended'
  seconds = planned.read_state().seconds
  assert seconds.keys() == {'train', 'eval'}
  # half way, while it saved, and what was left
  assert seconds['train'] > 10.0 + 0.4


def test_a_warned_training_has_the_seconds_of_its_config_to_save(study, monkeypatch):
  run, given = study(['rope']), []
  (planned,) = sweep.plan(run.path, run.out, {'launch.warning_seconds': 300}, run.scripts)
  monkeypatch.setattr(subprocesses, 'stop', lambda processes, patience: given.append(patience))
  task = slurm.Task()
  task.job = mock.Mock()
  task.checkpoint(planned)
  assert given == [280]
  with planned.config.unlocked():
    del planned.config.launch.warning_seconds  # as of a job that waits since before the field came
  task.checkpoint(planned)
  assert given == [280, 100]


def test_seconds_of_a_run_stay_where_it_is_submitted_again(study, scheduler, tmp_path):
  run = study(['rope'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  planned.workdir.mkdir(parents=True)
  planned.write_state('failed', reason='bad luck', seconds={'train': 10.0})
  run(launcher='slurm')
  assert planned.read_state().seconds == {'train': 10.0}


def test_a_job_whose_run_fails_is_a_failed_job(study, tmp_path):
  run = study(['broken_train'])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  job = submitit.LocalExecutor(tmp_path / 'jobs').submit(slurm.Task(), planned)
  with pytest.raises(submitit.core.utils.FailedJobError, match='exit code 1: bad luck'):
    job.result()
  assert (planned.read_state().state, planned.read_state().reason) == (
    'failed',
    'exit code 1: bad luck',
  )


@pytest.mark.parametrize(
  ('name', 'calls', 'state'),
  [('rope', ['train', 'train', 'eval'], 'ended'), ('broken_train', ['train', 'train'], 'failed')],
)
def test_of_two_tasks_both_train_and_the_first_evaluates_and_tells(
  study, tmp_path, name, calls, state
):
  run = study([name])
  (planned,) = sweep.plan(run.path, run.out, {}, run.scripts)
  executor = submitit.LocalExecutor(tmp_path / 'jobs')
  executor.update_parameters(tasks_per_node=2)
  planned.workdir.mkdir(parents=True)  # as before a job is submitted
  job = executor.submit(slurm.Task(), planned)
  second, first = job.task(1).exception(), job.task(0).exception()
  assert second is None
  assert (first is None) == (state == 'ended')
  (started,) = run.calls().values()
  assert sorted(started) == sorted(calls)  # the tasks run side by side
  assert planned.read_state().state == state
  logs = [(planned.workdir / name).read_text().splitlines()[0] for name in ('log.txt', 'log.1.txt')]
  assert logs[0] == logs[1] == '$ ' + shlex.join(planned.commands[0])


DRIVER = """
import json, subprocess, sys, time
from pathlib import Path
out, *command = sys.argv[1:]
process, out = subprocess.Popen(command), Path(out)
jobs = out / 'submitit' / 'jobs.json'
logs = [out / f'encoding.name=slow,seed={seed}' / 'log.txt' for seed in (0, 1)]
while not (jobs.exists() and all(log.exists() and 'half way' in log.read_text() for log in logs)):
  assert process.poll() is None
  time.sleep(0.1)
ids = json.loads(jobs.read_text())
subprocess.run(['scontrol', 'requeue', ids['encoding.name=slow,seed=0']], check=True)
subprocess.run(['scancel', '--signal=USR2', ids['encoding.name=slow,seed=1']], check=True)
sys.exit(process.wait())
"""


def test_a_box_that_does_not_start_cancels_no_jobs_of_another_cluster(tmp_path):
  stubs = {'munged': 'exit 1', 'scancel': 'echo "$SLURM_CONF" >> "${0%/*}/asked"'}
  for name in ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scancel', 'squeue'):
    (tmp_path / name).write_text(f'#!/bin/sh\n{stubs.get(name, "")}\n')
    (tmp_path / name).chmod(0o755)
  path = f'{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin'
  size = {'SLURM_BOX_CPUS': '1', 'SLURM_BOX_MB': '1000'}
  environment = {**os.environ, **size, 'PATH': path, 'SLURM_CONF': '/etc/slurm/slurm.conf'}
  command = [REPOSITORY / 'scripts' / 'slurm_in_a_box.sh', 'true']
  assert subprocess.run(command, env=environment, check=False).returncode == 1
  (asked,) = map(Path, (tmp_path / 'asked').read_text().splitlines())
  assert asked.match('/tmp/slurm_box.*/slurm.conf')
  assert not asked.parent.exists()


@pytest.mark.slurm
def test_a_real_cluster_requeues_a_run_and_the_table_is_complete(tmp_path, monkeypatch):
  """One run is requeued by the scheduler and one warned, as before its time ends; another starts
  from the former.
  """
  monkeypatch.setenv('SLURM_BOX_CPUS', str(max(2, os.cpu_count())))
  run = Study(tmp_path, ['slow'])
  text = run.path.read_text().partition('def sweep')[0]
  small = "{'train.steps': 60, 'launch.cpus': 1, 'launch.memory_gb': 1, 'launch.minutes': 60}"
  sweep_of_four = """
def sweep():
  first = {'encoding.name': 'slow', 'seed': 0}
  last = {'encoding.name': 'rope', 'train.init_from': first, 'train.steps': 0}
  return [first, {'encoding.name': 'slow', 'seed': 1}, {'encoding.name': 'alibi'}, last]
"""
  run.path.write_text(text.replace("{'train.steps': 60}", small) + sweep_of_four)
  command = [sys.executable, '-c', RUN, str(run.path), str(run.out), *map(str, run.scripts)]
  box = [
    str(REPOSITORY / 'scripts' / 'slurm_in_a_box.sh'),
    sys.executable,
    '-c',
    DRIVER,
    str(run.out),
    *command,
  ]
  done = subprocess.run(box, capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  both = ['train', 'eval']
  ends = {name[:26]: steps for name, steps in run.calls().items()}
  slow, alibi, rope = (
    'encoding.name=slow,seed={}',
    'encoding.name=alibi',
    'encoding.name=rope,train.s',
  )
  assert ends == {
    slow.format(0): ['train', *both],
    slow.format(1): ['train', *both],
    alibi: both,
    rope: both,
  }
  table = (run.out / 'table.md').read_text()
  assert 'no rows of' not in table
  assert all(name in table for name in ('slow', 'alibi', 'rope'))
  shown = subprocess.run(
    [
      sys.executable,
      REPOSITORY / 'scripts' / 'sweep.py',
      f'--config={run.path}',
      f'--out={run.out}',
      '--status',
    ],
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert '4 runs: 4 done' in shown
  assert not list(Path('/tmp').glob('slurm_box.*'))


SPREAD = """
from posenc_jax.config import load

def get_config():
  return load({base!r}, {fields!r})

def sweep():
  return [{{'encoding.name': 't5'}}]
"""
REQUEUE = """
import json, subprocess, sys, time
from pathlib import Path
from posenc_jax import storage
out, *command = sys.argv[1:]
process, out = subprocess.Popen(command), Path(out)
metrics = out / 'encoding.name=t5' / 'metrics.jsonl'
while not (metrics.exists() and '"step":4' in metrics.read_text()):
  assert process.poll() is None
  time.sleep(0.05)
(job,) = storage.read_json(out / 'submitit' / 'jobs.json').values()
subprocess.run(['scontrol', 'requeue', job], check=True)
sys.exit(process.wait())
"""


@pytest.mark.slurm
def test_a_real_cluster_trains_one_run_in_two_tasks_and_requeues_it(tmp_path, monkeypatch):
  """SLURM requeues the job of two tasks that train on one mesh; the run ends as it does in one
  process.
  """
  monkeypatch.setenv('SLURM_BOX_CPUS', str(max(2, os.cpu_count())))
  base, study, out = str(config.BASE), tmp_path / 'study.py', tmp_path / 'out'
  launch = {'tasks_per_node': 2, 'cpus': 1, 'memory_gb': 2, 'minutes': 60}
  fields = {
    **MODEL,
    'data.corpus': write_text_corpus(tmp_path / 'corpus'),
    'train.steps': 400,
    'train.log_every': 4,
    'eval.lengths': (16,),
    'eval.target_context': 16,
    'eval.documents': 0,
    'eval.k': 8,
    **{f'launch.{name}': value for name, value in launch.items()},
    **{'train.length': 16, 'train.batch': 4, 'mesh.fsdp': 2},
  }
  study.write_text(SPREAD.format(base=base, fields=fields))
  scripts = [str(REPOSITORY / name) for name in ('train.py', 'eval.py')]
  command = [sys.executable, '-c', RUN, str(study), str(out), *scripts]
  box = [
    str(REPOSITORY / 'scripts' / 'slurm_in_a_box.sh'),
    sys.executable,
    '-c',
    REQUEUE,
    str(out),
    *command,
  ]
  done = subprocess.run(box, capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  log = (out / 'encoding.name=t5' / 'log.txt').read_text()
  first, _, later = log.partition('going on from step ')
  assert ' on 2 x cpu' in first
  assert f'SIGTERM: step {later.split()[0]} is saved' in first
  assert 'eval.py' in later
  assert 'eval.py' not in (out / 'encoding.name=t5' / 'log.1.txt').read_text()
  alone = ['--config.mesh.fsdp=1', '--config.encoding.name=t5', f'--workdir={tmp_path / "alone"}']
  subprocess.run(
    [sys.executable, scripts[0], f'--config={study}', *alone], check=True, capture_output=True
  )

  def losses(workdir):
    rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return {row['step']: row['loss'] for row in rows if 'loss' in row}

  spread, whole = losses(out / 'encoding.name=t5'), losses(tmp_path / 'alone')
  assert spread.keys() == whole.keys()
  assert all(spread[step] == pytest.approx(whole[step], rel=2e-6) for step in range(4, 44, 4))
