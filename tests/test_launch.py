"""Starting processes: their environment, their CPUs, their log, their end."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from small_runs import wait_for
from stand_ins import needs_linux

from posenc_jax import storage
from posenc_jax.distributed import devices
from posenc_jax.errors import Stopped
from posenc_jax.sweep import local, subprocesses

python = [sys.executable, '-c']


def test_the_environment_adds_and_never_overrides(monkeypatch):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  monkeypatch.setattr(sys, 'platform', 'linux')
  assert 'glibc.malloc.hugetlb=1' in subprocesses.environment()['GLIBC_TUNABLES']
  monkeypatch.setenv('GLIBC_TUNABLES', 'mine')
  assert 'GLIBC_TUNABLES' not in subprocesses.environment()
  monkeypatch.delenv('GLIBC_TUNABLES')
  monkeypatch.setattr(sys, 'platform', 'darwin')
  assert 'GLIBC_TUNABLES' not in subprocesses.environment()


def test_processes_side_by_side_share_the_memory_of_a_gpu(monkeypatch, tmp_path):
  fraction, *others = names = (*devices.MEMORY_FRACTIONS, devices.PREALLOCATE)
  for name in names:
    monkeypatch.delenv(name, raising=False)
  assert fraction not in subprocesses.environment()
  code = f'import os; print("share", os.environ["{fraction}"])'
  assert subprocesses.run_process([*python, code], tmp_path / 'log', jobs=2).wait() == 0
  assert 'share 0.4500' in (tmp_path / 'log').read_text().splitlines()
  for name in names:
    monkeypatch.setenv(name, 'mine')
    assert not {fraction, *others} & subprocesses.environment(jobs=2).keys()
    monkeypatch.delenv(name)


@pytest.mark.parametrize('jobs', [1, 2, 3, 7])
@pytest.mark.parametrize('cpus', [{0}, {0, 1}, {1, 3, 5, 7, 8}])
def test_cpus_are_shared_out(jobs, cpus, monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: cpus, raising=False)
  shares = subprocesses.cpu_partition(jobs)
  if jobs == 1:
    assert shares == [None]
    return
  assert len(shares) == jobs
  assert set().union(*shares) == cpus
  assert all(shares)
  if jobs <= len(cpus):
    assert sum(map(len, shares)) == len(cpus)


@needs_linux
def test_a_process_gets_its_cpus_and_its_environment_and_appends_to_its_log(tmp_path, monkeypatch):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  monkeypatch.setenv('MINE', 'kept')
  log, before = tmp_path / 'log.txt', os.sched_getaffinity(0)
  log.write_text('before\n')
  script = tmp_path / 'script.py'
  script.write_text(
    'import os\n'
    'print(sorted(os.sched_getaffinity(0)), os.getsid(0) == os.getpid())\n'
    'print(os.environ["GLIBC_TUNABLES"], os.environ["MINE"])\n'
    '1 / 0\n'
  )
  process = subprocesses.run_process([sys.executable, str(script)], log, {min(before)})
  assert os.sched_getaffinity(0) == before
  assert process.wait() == 1
  lines = log.read_text().splitlines()
  assert lines[:2] == ['before', f'$ {sys.executable} {script}']
  assert lines[2] == f'[{min(before)}] True'  # a session of its own
  assert lines[3] == f'{subprocesses.GLIBC_TUNABLES} kept'
  assert lines[-1] == 'ZeroDivisionError: division by zero'


def test_a_log_has_one_process_at_a_time_even_when_its_starter_is_gone(tmp_path):
  log = tmp_path / 'log.txt'
  worker = 'import os, time; print("worker", os.getpid()); time.sleep(60)'
  starter = (
    'import os; from posenc_jax.sweep import subprocesses; '
    f'subprocesses.run_process({[*python, worker]!r}, {str(log)!r}); os._exit(0)'
  )
  subprocess.run(
    [*python, starter], check=True, env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  )
  wait_for(log, '\nworker')
  with pytest.raises(BlockingIOError):
    subprocesses.run_process([*python, ''], log)
  os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)
  for _ in range(500):  # nobody waits for an orphan
    with contextlib.suppress(BlockingIOError):
      assert subprocesses.run_process([*python, ''], log).wait() == 0
      return
    time.sleep(0.01)
  raise AssertionError('the lock outlived its process')


def test_processes_are_asked_to_stop_and_then_made_to(tmp_path):
  polite = (
    'import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); '
    'print("ready"); time.sleep(60)'
  )
  deaf = polite.replace('lambda *_: sys.exit(7)', 'signal.SIG_IGN')
  logs = [tmp_path / name for name in ('polite', 'deaf', 'done')]
  processes = [
    subprocesses.run_process([*python, code], log)
    for code, log in zip((polite, deaf, ''), logs, strict=True)
  ]
  for log in logs[:2]:
    wait_for(log, '\nready')
  processes[2].wait()
  subprocesses.stop([processes[0], processes[2]], patience=60.0)
  subprocesses.stop([processes[1]], patience=0.1)
  assert [process.returncode for process in processes] == [7, -signal.SIGKILL, 0]


def test_what_a_killed_process_has_started_ends_with_it(tmp_path):
  """Else it would hold the lock of the log, and no sweep could start the run again."""
  log = tmp_path / 'log.txt'
  code = (
    'import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
    'subprocess.Popen(["sleep", "60"]); print("ready"); time.sleep(60)'
  )
  process = subprocesses.run_process([*python, code], log)
  wait_for(log, '\nready')
  subprocesses.stop([process], patience=0.1)
  deadline = time.monotonic() + 10
  while storage.is_locked(log) and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not storage.is_locked(log)


def test_a_sweep_waits_for_a_step_however_long_it_takes():
  done = []

  class Process:
    terminate = lambda self: done.append('terminate')
    kill = lambda self: done.append('kill')
    wait = lambda self, timeout=None: done.append(timeout)

  console = Console()
  with console.capture() as shown:
    local._stop([], {'log.txt': Process()}, console)
  assert done == ['terminate', None, 'kill', None]
  assert 'asking 1 processes to stop' in shown.get()
  assert 'Ctrl-C again kills them' in shown.get()


@needs_linux
def test_an_orphan_is_known_by_its_lock_and_reached_by_its_output(tmp_path):
  log = tmp_path / 'log.txt'
  code = "import time; print('ready'); time.sleep(60)"
  with subprocesses.run_process([*python, code], log) as process:
    wait_for(log, '\nready')
    orphan = subprocesses.Orphan(log)
    with open(log, 'rb') as file, subprocess.Popen(['sleep', '60'], stdin=file) as reader:
      assert orphan.poll() is None
      assert orphan.is_within_reach()
      with pytest.raises(subprocess.TimeoutExpired):
        orphan.wait(0.1)
      subprocesses.stop([orphan])
      assert process.wait() == -signal.SIGTERM
      assert orphan.poll() == 0
      assert reader.poll() is None  # it read the log, and led no session
      reader.kill()
  with open(log, 'ab') as file:
    other = subprocess.Popen(['sleep', '60'], stdout=file, start_new_session=True)
  assert not orphan.is_within_reach()  # no lock: not what was started for the run
  orphan.kill()
  assert other.poll() is None
  other.kill()
  other.wait()


def test_a_system_that_starts_no_process_is_one_line_and_no_lock(tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')

  monkeypatch.setattr(subprocess, 'Popen', refuse)
  with pytest.raises(Stopped, match='x: cannot be started: Resource temporarily unavailable'):
    subprocesses.run_process(['x'], tmp_path / 'log.txt')
  assert not storage.is_locked(tmp_path / 'log.txt')


def test_a_file_system_without_locks_is_one_where_nobody_is_at_work(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  (tmp_path / 'log.txt').write_text('')
  monkeypatch.setattr(storage.fcntl, 'flock', refuse)
  assert not storage.is_locked(tmp_path / 'log.txt')
