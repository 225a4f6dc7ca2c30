"""Runs as jobs of a SLURM cluster, through submitit: arrays, requeued when SLURM takes their node.

A job executes the same commands as anywhere else, and these go on from the last checkpoint. So a
job that SLURM starts again, for whatever reason, goes on by itself. What is known of a run
stands in its directory, which all nodes must see.

Jobs are waited for by squeue, not by submitit's `Job.done`: that asks sacct, which needs a database
of accounts that small clusters lack, and takes a job that sacct does not know for one yet to come.
"""

import itertools
import math
import shutil
import signal
import subprocess
import time
from pathlib import Path

import submitit
from ml_collections import ConfigDict
from rich.console import Console
from rich.live import Live
from rich.text import Text

from posenc_jax import config, storage
from posenc_jax.cli.process import held_back, same_command
from posenc_jax.config.serialization import ADDED, flat
from posenc_jax.errors import Damaged, UserError
from posenc_jax.sweep import local, subprocesses
from posenc_jax.sweep.plan import PlannedRun
from posenc_jax.sweep.status import duration
from posenc_jax.training.run_dir import is_finished

POLL = 2.0  # seconds between looks at the directories
QUEUE_POLL = 15.0  # seconds between questions to the scheduler
PATIENCE = 90.0  # seconds until a file that a node wrote is seen here: NFS may hide it for 60
MARGIN = 20  # seconds of `launch.warning_seconds` that are for all else than to save
MAX_TASKS = 1000  # of an array: SLURM's MaxArraySize is 1001 unless a cluster sets another
RESTARTS = 100  # how often a job may run out of time


def check_available(out: Path) -> None:
  """Raises UserError if no job can be submitted from this machine, or none with logs in `out`."""
  if missing := [name for name in ('sbatch', 'squeue', 'srun') if shutil.which(name) is None]:
    allowed = 'local, or a node of a cluster'
    raise UserError(f'--launcher=slurm: no {missing[0]} on this machine; allowed: {allowed}')
  if '%' in str(out.absolute()) or not str(out.absolute()).isprintable():
    allowed = 'a path without % and control characters, which sbatch would take for something else'
    raise UserError(f'--out={str(out)!r} with --launcher=slurm; allowed: {allowed}')


class Task:
  """What each task of a job executes.

  The first task executes the run's commands and writes its state. The others, with the logs
  log.1.txt and so on, only train: the training is then of several processes
  (posenc_jax.distributed.processes), and ends in all of them or in none. Each first waits for the
  process of an earlier start that is still at work, on a node that SLURM has lost sight of, as far
  as locks reach.
  """

  def __call__(self, run: PlannedRun) -> None:
    """Raises RuntimeError if the run fails, so that the job is a failed one."""
    environment = submitit.JobEnvironment()
    if rank := environment.global_rank:
      training = _start_when_free(run.commands[0], run.workdir / f'log.{rank}.txt')
      signal.signal(signal.SIGTERM, lambda *_: _wait_for_slurm(training))
      training.wait()
      return
    self.job = local.Job(run, cpus=None, job=environment.job_id)
    signal.signal(signal.SIGTERM, self._on_sigterm)
    while not self.job.is_over():
      time.sleep(local.POLL)
    if self.job.failure:
      raise RuntimeError(self.job.failure)

  def checkpoint(self, run: PlannedRun):
    """Lets the training save its state; submitit calls this in the first task on SLURM's warning
    (SIGUSR2), `launch.warning_seconds` before the end of a job's time.

    Returns what submitit queues again.
    """
    if self.job.process:
      # a job that was queued before the field came has the config of then
      fields = ADDED | flat(run.config)
      left = fields['launch.warning_seconds'] - MARGIN
      subprocesses.stop([self.job.process], patience=left)
    self._write_queued()
    return submitit.helpers.DelayedSubmission(Task(), run)

  def _on_sigterm(self, *_) -> None:
    self._write_queued()
    _wait_for_slurm(self.job.process)

  def _write_queued(self) -> None:
    if self.job.process:
      self.job.process.wait()
    if not self.job.run.is_finished:
      self.job.write_state('queued', reason='told to end by SLURM')


def _start_when_free(command: list[str], log: Path) -> subprocess.Popen:
  """Starts a command once no other process holds the lock of `log`."""
  while True:
    try:
      return subprocesses.run_process(command, log)
    except BlockingIOError:
      time.sleep(local.POLL)


def _wait_for_slurm(process: subprocess.Popen | None) -> None:
  """Waits for the training to save its state, and then for SLURM to end this process.

  Only SLURM knows whether the job is cancelled, requeued, or preempted with time to spare. A job
  that ended by itself now would not be started again.
  """
  if process:
    process.wait()
  while True:
    signal.pause()


def execute(runs: list[PlannedRun], out: Path, console: Console) -> dict[str, str]:
  """Submits the runs that are neither finished nor in the queue, and waits for all that are to end.

  Returns {failed run's name: why}. Raises Stopped after Ctrl-C, SIGTERM or SIGHUP: then the jobs
  stay, and the same command waits for them again. Raises UserError if SLURM does not answer, or
  takes no such job, or a mesh does not fit the GPUs that are asked for.
  """
  waiting = [run for run in runs if not run.is_finished]
  for run in waiting:
    _check_mesh(run.config)
  folder = out / 'submitit'
  path = folder / 'jobs.json'
  jobs = _submitted_before(path)
  queue = _queue() if waiting else set()
  if queue is None:
    raise UserError('--launcher=slurm: squeue does not answer; allowed: when the cluster does')
  submitted = {
    run.name: jobs[run.name]
    for run in waiting
    if jobs.get(run.name) in queue and run.read_state().state != 'failed'
  }
  if submitted:
    console.print(f'{len(submitted)} runs are in the queue already')
  message = f'the jobs stay in the queue (scancel takes them out); wait again with {same_command()}'
  with local.interruptible(message):
    for group in _groups(waiting, submitted):
      with held_back(*local.SIGNALS):  # a job that is not written down would be submitted again
        submitted |= _submit(group, submitted, folder)
        storage.write_json(path, jobs | submitted)
    return _wait(waiting, submitted, folder, console)


def _check_mesh(c: ConfigDict) -> None:
  """Raises UserError for a mesh that `make_mesh` would refuse on the node, after the queue."""
  launch, wanted = c.launch, math.prod(c.mesh.values())
  if not launch.gpus:
    return  # how many devices a process has then, the cluster says
  all_gpus = launch.nodes * launch.gpus
  is_spread = launch.nodes * launch.tasks_per_node > 1
  if wanted > all_gpus or (is_spread and wanted < all_gpus):
    problem = f'config.mesh: a product of {wanted}'
    asked = f'launch.nodes={launch.nodes} with launch.gpus={launch.gpus}'
    amount = all_gpus if is_spread else f'at most {all_gpus}'
    raise UserError(f'{problem}; allowed: {amount}, the GPUs of {asked}')


def _submitted_before(path: Path) -> dict[str, str]:
  """{run's name: job} in jobs.json; {} if there is no such file.

  Raises Damaged: without it, jobs that are in the queue would be submitted again.
  """
  remedy = 'without this file, once none of its jobs is in the queue'
  try:
    jobs = storage.read_json(path, remedy=remedy)
  except (FileNotFoundError, NotADirectoryError):
    return {}
  for name, job in jobs.items():
    if not isinstance(job, str):
      problem = f'the job of {name!r} is {type(job).__name__}, where str must be'
      raise Damaged(f'{path} is damaged: {problem}; allowed: {remedy}')
  return jobs


def _groups(waiting: list[PlannedRun], submitted: dict[str, str]) -> list[list[PlannedRun]]:
  """The job arrays to submit, in order: runs that start from one run and ask for the same, at most
  MAX_TASKS of them.

  The array of that one run comes before.
  """
  by_workdir = {run.workdir: run for run in waiting}

  def depth(run):
    return 1 + depth(by_workdir[run.init_from]) if run.init_from in by_workdir else 0

  def kind(run):
    return depth(run), str(run.init_from if depth(run) else ''), run.config.launch.to_json()

  to_submit = sorted((run for run in waiting if run.name not in submitted), key=kind)
  groups = [list(group) for _, group in itertools.groupby(to_submit, key=kind)]
  starts = lambda group: range(0, len(group), MAX_TASKS)
  return [group[start : start + MAX_TASKS] for group in groups for start in starts(group)]


def _submit(group: list[PlannedRun], submitted: dict[str, str], folder: Path) -> dict[str, str]:
  """Submits one array, which waits for the job of the run that it starts from.

  Returns {run's name: job}.
  """
  launch, init_from = group[0].config.launch, group[0].init_from
  executor = submitit.SlurmExecutor(folder, max_num_timeout=RESTARTS)
  options = {'partition': launch.partition, 'account': launch.account, 'gpus_per_node': launch.gpus}
  if init_from is not None and init_from.name in submitted:
    # if that job fails, the training of these runs says so
    options['dependency'] = f'afterany:{submitted[init_from.name]}'
  more = (option.partition('=') for option in launch.options)
  executor.update_parameters(
    job_name=folder.parent.name,
    time=launch.minutes,
    nodes=launch.nodes,
    ntasks_per_node=launch.tasks_per_node,
    cpus_per_task=launch.cpus,
    mem=f'{launch.memory_gb}GB',
    array_parallelism=launch.max_concurrent or len(group),
    setup=list(launch.setup),
    signal_delay_s=launch.warning_seconds,
    stderr_to_stdout=True,
    # srun does not take CPUs from sbatch; and the first task evaluates while the others are over
    srun_args=[f'--cpus-per-task={launch.cpus}', '--wait=0'],
    additional_parameters={'requeue': True}
    | {name: value if equals else True for name, equals, value in more},
    **{name: value for name, value in options.items() if value},  # else the cluster's default
  )
  for run in group:
    run.workdir.mkdir(parents=True, exist_ok=True)
    run.write_state('queued', reason='')
  try:
    jobs = executor.map_array(Task(), group)
  except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
    lines = str(error).splitlines()
    words = ' '.join([line for line in lines if line.startswith('sbatch: ')] or lines)
    for run in group:
      run.write_state('failed', reason=words)
    allowed = f'what the cluster takes in config.launch={launch.to_dict()}'
    raise UserError(f'{words}; allowed: {allowed}') from None
  return {run.name: job.job_id for run, job in zip(group, jobs, strict=True)}


def _wait(
  waiting: list[PlannedRun], submitted: dict[str, str], folder: Path, console: Console
) -> dict[str, str]:
  left, failed, gone_since = list(waiting), {}, {}
  hashes = {run.name: config.config_hash(run.config) for run in waiting}
  queue, asked = set(submitted.values()), time.monotonic()
  with Live(console=console, auto_refresh=False, transient=True) as live:
    while left:
      # the queue first: a run that is no longer in it has written all that it will
      if time.monotonic() - asked >= QUEUE_POLL:
        answer, asked = _queue(), time.monotonic()
        queue = queue if answer is None else answer
      running = 0
      for run in list(left):
        state, job = run.read_state(), submitted[run.name]
        if is_finished(run.workdir, hashes[run.name]):
          failure = ''
        elif state.state == 'failed':
          failure = state.reason
        elif job in queue:
          gone_since.pop(run.name, None)
          running += state.state == 'running'
          continue
        elif time.monotonic() - gone_since.setdefault(run.name, time.monotonic()) < PATIENCE:
          continue
        else:
          failure = f'job {job} has left the queue before its end ({folder}/{job}_0_log.out)'
        left.remove(run)
        if failure:
          failed[run.name] = failure
        spent = f'{duration(sum(state.seconds.values()))} over all starts'
        local.print_end(console, run, spent, failure)
      over = len(waiting) - len(left)
      line = f'{over}/{len(waiting)} runs are over, {running} are running'
      live.update(Text(line, 'dim'), refresh=True)
      time.sleep(POLL)
  return failed


def _queue() -> set[str] | None:
  """The user's jobs that SLURM has not ended; None if it does not answer."""
  command = ['squeue', '--noheader', '--array', '--me', '--format=%i']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return None if done.returncode else set(done.stdout.split())
