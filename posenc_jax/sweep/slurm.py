"""Runs as jobs of a SLURM cluster, through submitit: arrays, requeued where SLURM takes their node
away.

A job is the same commands as anywhere else, and these go on from the last checkpoint: so a job that
SLURM starts again, for whatever reason, goes on by itself. Whatever is told of a run stands in its
directory, which all nodes must see.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from posenc_jax.errors import UserError
from posenc_jax.sweep import local, subprocesses
from posenc_jax.sweep.plan import Run

POLL = 2.0  # seconds between looks at the directories
ASK = 15.0  # seconds between questions to the scheduler
PATIENCE = 60.0  # seconds until a file that a node wrote is seen here
WARNING = 120  # seconds between SLURM's warning (SIGUSR2) and the end of a job's time
RESTARTS = 100  # times that a job may run out of time


def check() -> None:
  """Raises UserError where no job can be submitted from this machine."""
  if missing := [name for name in ('sbatch', 'squeue', 'srun') if shutil.which(name) is None]:
    raise UserError(
      f'--launcher=slurm: no {missing[0]} on this machine; allowed: inline, local, or a node of a cluster'
    )
  try:
    import submitit  # noqa: F401
  except ImportError:
    raise UserError(
      '--launcher=slurm: submitit is not installed; allowed: after pip install submitit'
    ) from None


class Task:
  """What each task of a job executes. When SLURM warns it, submitit calls the first one's
  `checkpoint`, and queues the job again.

  The first task executes the run's commands and notes how they do. The others (log.1.txt and so on)
  are there for its training, which is then of several processes (posenc_jax.processes): it ends in
  all of them, or in none.
  """

  def __call__(self, run: Run) -> None:
    """Raises RuntimeError where the run fails, for the job to be a failed one."""
    import submitit

    if rank := submitit.JobEnvironment().global_rank:
      training = subprocesses.run_process(run.commands[0], run.workdir / f'log.{rank}.txt')
      signal.signal(signal.SIGTERM, lambda *_: _wait_for_the_end(training))
      training.wait()
      return
    number = '_'.join(
      os.environ[n] for n in ('SLURM_ARRAY_JOB_ID', 'SLURM_ARRAY_TASK_ID') if n in os.environ
    )
    where = {'job': number or os.environ['SLURM_JOB_ID']} if 'SLURM_JOB_ID' in os.environ else {}
    self.job = local.Job(run, None, **where)
    signal.signal(signal.SIGTERM, self._told_to_end)
    while not self.job.is_over():
      time.sleep(local.POLL)
    if self.job.failure:
      raise RuntimeError(self.job.failure)

  def _told_to_end(self, number, frame):
    del number, frame
    self._stop()
    _wait_for_the_end(self.job.process)

  def checkpoint(self, run: Run):
    """Lets the training save its state; returns what submitit is to start when the job is at work
    again.
    """
    import submitit

    subprocesses.stop([self.job.process], patience=WARNING - 20)
    self._stop()
    return submitit.helpers.DelayedSubmission(Task(), run)

  def _stop(self) -> None:
    self.job.process.wait()
    if not self.job.run.is_finished:
      self.job.run.note('queued', reason='told to end by SLURM')


def _wait_for_the_end(process: subprocess.Popen) -> None:
  """SLURM has told all processes of the job to end, and the training saves its state.

  Whether the job is cancelled, requeued, or preempted with time to spare SLURM knows: a job that
    ended by itself now
  would not be started again.
  """
  process.wait()
  while True:
    signal.pause()


def execute(runs: list[Run], out: Path, console: Console) -> dict[str, str]:
  """Submits what is neither finished nor in the queue and waits for all; returns {failed run's
  name: why}.

  Raises Stopped after Ctrl-C, SIGTERM or SIGHUP: the jobs stay, and the same command waits for them
  again. UserError: SLURM takes no such job.
  """
  waiting = [run for run in runs if not run.is_finished]
  folder = out / 'submitit'
  jobs, queue = _read(folder), (_queue() if waiting else set())
  if queue is None:
    raise UserError('--launcher=slurm: squeue does not answer; allowed: when the cluster does')
  held = {
    r.name: jobs[r.name]
    for r in waiting
    if jobs.get(r.name) in queue and r.noted.get('state') != 'failed'
  }
  if held:
    console.print(f'{len(held)} runs are in the queue already')
  for group in _groups(waiting, held):
    held |= _submit(group, held, folder)
    _write(folder, jobs | held)
  return _wait(waiting, held, folder, console)


def _groups(waiting: list[Run], held: dict[str, str]) -> list[list[Run]]:
  """Job arrays of what is to be submitted: of one start and the same resources, after that which
  has their start.
  """
  by_workdir = {run.workdir: run for run in waiting}

  def depth(run):
    return 0 if run.start not in by_workdir else 1 + depth(by_workdir[run.start])

  def kind(run):
    return depth(run), str(run.start if depth(run) else ''), json.dumps(vars(run.launch))

  to_submit = sorted((run for run in waiting if run.name not in held), key=kind)
  return [list(group) for _, group in itertools.groupby(to_submit, key=kind)]


def _submit(group: list[Run], held: dict[str, str], folder: Path) -> dict[str, str]:
  """Submits one array; returns {run's name: job}. It waits for the end of the job, in `held`, of
  the run's start.
  """
  import submitit

  options, first = group[0].launch, group[0]
  executor = submitit.SlurmExecutor(folder, max_num_timeout=RESTARTS)
  parameters = {
    'partition': options.partition,
    'account': options.account,
    'gpus_per_node': options.gpus,
  }
  # if it fails, this one's training says so
  if first.start is not None and first.start.name in held:
    parameters['dependency'] = f'afterany:{held[first.start.name]}'
  more = (option.partition('=') for option in options.options)
  executor.update_parameters(
    job_name=folder.parent.name,
    time=options.minutes,
    nodes=options.nodes,
    ntasks_per_node=options.tasks_per_node,
    cpus_per_task=options.cpus,
    mem=f'{options.memory_gb}GB',
    array_parallelism=options.max_concurrent or len(group),
    setup=list(options.setup),
    signal_delay_s=WARNING,
    stderr_to_stdout=True,
    # srun does not take CPUs from sbatch; and the first task evaluates while the others are over.
    srun_args=[f'--cpus-per-task={options.cpus}', '--wait=0'],
    additional_parameters={
      'requeue': True,
      **{name: value if equals else True for name, equals, value in more},
    },
    **{name: value for name, value in parameters.items() if value},  # else the cluster's default
  )
  for run in group:
    run.workdir.mkdir(parents=True, exist_ok=True)
    run.note('queued', reason='')
  try:
    submitted = executor.map_array(Task(), group)
  except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
    lines = str(error).splitlines()
    words = ' '.join([line for line in lines if line.startswith('sbatch: ')] or lines)
    raise UserError(
      f'{words}; allowed: what the cluster takes in config.launch={vars(options)}'
    ) from None
  return {run.name: job.job_id for run, job in zip(group, submitted, strict=True)}


def _wait(
  waiting: list[Run], held: dict[str, str], folder: Path, console: Console
) -> dict[str, str]:
  left, failed, missing = list(waiting), {}, {}
  queue, asked = set(held.values()), time.monotonic()
  message = (
    f'the jobs stay in the queue (scancel takes them out); wait again with {local.same_command()}'
  )

  def screen():
    running = sum(run.noted['state'] == 'running' for run in left)
    return Text(
      f'{len(waiting) - len(left)}/{len(waiting)} runs are over, {running} are running', 'dim'
    )

  live = Live(get_renderable=screen, console=console, auto_refresh=False, transient=True)
  with local.interruptible(message), live:
    while left:
      # the queue first: who is in it no more has written all that it will
      if time.monotonic() - asked >= ASK:
        answer, asked = _queue(), time.monotonic()
        queue = queue if answer is None else answer
      for run in list(left):
        noted, job = run.noted, held[run.name]
        if run.is_finished:
          failure = ''
        elif noted['state'] == 'failed':
          failure = noted['reason']
        elif job in queue:
          missing.pop(run.name, None)
          continue
        elif time.monotonic() - missing.setdefault(run.name, time.monotonic()) < PATIENCE:
          continue
        else:
          failure = f'job {job} has left the queue before its end ({folder}/{job}_0_log.out)'
        left.remove(run)
        if failure:
          failed[run.name] = failure
        seconds = sum(noted.get('seconds', {'': 0}).values())
        local.say_over(console, run, f'{seconds / 60:.1f} min', failure)
      live.refresh()
      time.sleep(POLL)
  return failed


def _queue() -> set[str] | None:
  """The user's jobs that SLURM has not ended; None where it does not answer."""
  command = ['squeue', '--noheader', '--array', '--me', '--format=%i']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return None if done.returncode else set(done.stdout.split())


def _read(folder: Path) -> dict[str, str]:
  path = folder / 'jobs.json'
  return json.loads(path.read_text()) if path.exists() else {}


def _write(folder: Path, jobs: dict[str, str]) -> None:
  new = folder / 'jobs.json.new'
  new.write_text(json.dumps(jobs, indent=2) + '\n')
  os.replace(new, folder / 'jobs.json')
