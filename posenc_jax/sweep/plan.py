"""The runs of a study: their names, directories, commands and states."""

import dataclasses
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from posenc_jax import cli, config, storage
from posenc_jax.errors import Damaged, Stopped, UserError, last_line, shown
from posenc_jax.rows.overrides import HARMLESS, IN_ROWS
from posenc_jax.training import trackers
from posenc_jax.training.provenance import BUILT_IN_VALUES, OWN_ENCODINGS
from posenc_jax.training.run_dir import (
  as_begun,
  check_can_begin,
  check_same_config,
  is_extended,
  is_finished,
  with_corpus_named,
)

NAME_LENGTH = 120  # characters of a directory's name
STATES = ('queued', 'running', 'failed', 'ended')
MAX_SECONDS = 1e9  # more is no duration
MAX_CHARACTERS = 400  # of a line that is shown


@dataclasses.dataclass
class RunState:
  """What the launcher of a run said last, in its state.json.

  It serves people and `--status`, and decides nothing: a damaged file is one that says nothing, and
  the next write replaces it.

  Attributes:
    state: one of STATES, or '': nothing is known. A launcher that is killed leaves 'running': then
      the lock of the log tells.
    host: the machine of the launcher.
    job: the job of a cluster, if it is one.
    reason: why the run is in this state, in one line.
    seconds: how long each of its scripts took, {'train': 60.0}, over all starts of the run, but for
      a command that was killed together with its launcher, or outlived it.
  """

  state: str = ''
  host: str = ''
  job: str = ''
  reason: str = ''
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class PlannedRun:
  """A directory, and the commands that fill it one after another.

  `fields` is what it overrides of the study's config. `init_from` is the directory of the run of
  this study that it starts from, and so waits for.
  """

  workdir: Path
  config: ConfigDict
  fields: dict[str, object]
  init_from: Path | None
  commands: list[list[str]] = dataclasses.field(default_factory=list)

  @property
  def name(self) -> str:
    return self.workdir.name

  @property
  def results(self) -> list[Path]:
    """The directories that get rows: if the run has several seeds, one for each."""
    folders = [config.seed_workdir(self.workdir, seed) for seed in self.config.seeds]
    return folders or [self.workdir]

  @property
  def hashes(self) -> dict[str, str]:
    """{name of each of `results`: hash of the config that it is to be finished with}."""
    seed_runs = config.single_seed_runs(self.config, self.workdir)
    return {folder.name: config.config_hash(run_config) for run_config, folder in seed_runs}

  @property
  def steps(self) -> int:
    """Updates of all seeds together."""
    return self.config.train.steps * len(self.results)

  @property
  def is_finished(self) -> bool:
    return is_finished(self.workdir, config.config_hash(self.config))

  @property
  def log(self) -> Path:
    """The file that gets the output of the run's commands, and whose lock the one at work holds."""
    return self.workdir / 'log.txt'

  def is_at_work(self) -> bool:
    """Whether a command of the run is at work, whoever started it, as far as is seen here."""
    return storage.is_locked(self.log)

  def read_state(self) -> RunState:
    """What `write_state` wrote last, as far as it can be trusted. Raises OSError where the file
    cannot be read.
    """
    needed = {'state': str, 'host': str}
    try:
      found = RunState(**storage.read_json(self.workdir / 'state.json', needed))
    except (FileNotFoundError, NotADirectoryError, Damaged, TypeError):
      return RunState()
    words = (found.host, found.job, found.reason)
    if found.state not in STATES or not all(isinstance(word, str) for word in words):
      return RunState()
    is_duration = lambda value: type(value) in (int, float) and 0 <= value < MAX_SECONDS
    if not isinstance(found.seconds, dict) or not all(map(is_duration, found.seconds.values())):
      return RunState()
    found.host, found.job, found.reason = map(printable, words)
    return found

  def write_state(self, state: str, **fields: object) -> None:
    """Writes state.json with what the launcher knows of the run, fields of `RunState`; seconds that
    are not given stay.
    """
    seconds = self.read_state().seconds
    fields = {'state': state, 'host': socket.gethostname(), 'seconds': seconds, **fields}
    known = {name: value for name, value in fields.items() if value}
    storage.write_json(self.workdir / 'state.json', known)

  def last_log_line(self) -> str:
    """The last line of the run's log, as a terminal shows it; '' if there is none."""
    try:
      with open(self.log, 'rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
        text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', file.read().decode(errors='replace'))
    except FileNotFoundError:
      return ''
    return printable(last_line(text))


def printable(text: str) -> str:
  """The text as one line of limited length, without what would control a terminal."""
  line = ' '.join(text[: 4 * MAX_CHARACTERS].split())
  line = ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in line)
  return line if len(line) <= MAX_CHARACTERS else f'{line[:MAX_CHARACTERS]} ...'


def run_name(overrides: dict[str, object]) -> str:
  """A directory's name that says the overrides, with a hash if it has to leave something out."""
  full = ','.join(f'{path}={value}' for path, value in config.flat(overrides).items())
  name = re.sub(r'[^\w.=,+-]+', '-', full, flags=re.ASCII)
  if name == full and len(name) <= NAME_LENGTH:
    return name or 'run'
  return f'{name[: NAME_LENGTH - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}'


def plan(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  scripts: tuple[Path, ...] = (),
  swept_runs: list[dict] | None = None,
) -> list[PlannedRun]:
  """The runs of a study as they are to be started in the folder `out`, with their commands.

  `scripts` are those of `sweep`, all else is as for `runs_of`. Raises `UserError`, before anything
  is written, for what `runs_of` refuses, for a folder that cannot be written to and for a directory
  in it that holds the run of another config.
  """
  runs = runs_of(path, out, overrides, swept_runs)
  cli.check_folder(f'--out={out}', out)
  by_workdir = {run.workdir: run for run in runs}
  has_begun = lambda run: storage.exists(run.workdir / 'config.json')
  for run in runs:
    run.config = as_begun(run.config, run.workdir)
  names = dict.fromkeys(run.config.data.corpus for run in runs if has_begun(run))
  for run in runs:
    if not has_begun(run):  # it names a folder of text as those do that have begun
      named = with_corpus_named(run.config, names)
      if named is not run.config:
        run.config, run.fields['data.corpus'] = named, named.data.corpus
    _check_startable(run, by_workdir.get(run.init_from))
    planned = config.config_hash(run.config)
    flags = [f'--config={path}', f'--workdir={run.workdir}', f'--planned={planned}']
    fields = {**run.fields, **_edited(run.config, run.workdir)}
    run.commands = [
      [sys.executable, str(script), *flags, *_flags_of(script, fields)] for script in scripts
    ]
  return runs


def runs_of(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  swept_runs: list[dict] | None = None,
) -> list[PlannedRun]:
  """The runs of a study, each config checked, without commands; what is in `out` is not looked at.

  `overrides` are laid over what the study sweeps; `swept_runs` take the place of what its `sweep()`
  gives.

  An override of `seed` leaves the runs that the sweep itself has with this seed, and what they
  start from, with the seed that the sweep gives it. Where it has none, as with an override of
  `seeds`, one run is left of those that differ in their seed alone. Another override that would
  make runs equal is refused. A run may start from one that comes before it in the sweep: then its
  `train.init_from` is the dict of overrides of that run, and becomes its directory. An override
  `seeds` takes the place of every `seed` in the sweep.

  Raises `UserError` for a bad config.
  """
  study = config.load_study(path)
  if swept_runs is None:
    swept_runs = swept_by(study, path)
  for swept in (*swept_runs, overrides):
    for field, value in swept.items():
      config.check_tree(field, value)
  _check_sweep(str(path), swept_runs)
  _check_sections(overrides, swept_runs)
  laid_over = overrides
  if 'seed' in overrides:
    of_seed = _of_seed(swept_runs, overrides['seed'], config.load(study).seed)
    if of_seed:
      # All have this seed already but what they start from, which keeps its own: in sweeps of one
      # seed each it is the same run.
      laid_over = {field: value for field, value in overrides.items() if field != 'seed'}
      swept_runs = of_seed
  runs, names = {}, {}
  for swept in swept_runs:
    fields, init_from = _fields(swept, laid_over), None
    workdir = Path(out, _name(swept, laid_over))
    if isinstance(earlier := fields.get('train.init_from'), dict):
      init_from = Path(out, _name(earlier, laid_over))
      if init_from not in runs:
        allowed = 'the overrides of a run that comes before'
        raise UserError(f'sweep: train.init_from={shown(earlier)}; allowed: {allowed}')
      fields['train.init_from'] = str(init_from)
    run = PlannedRun(workdir, config.load(study, fields), fields, init_from)
    config.validate(run.config)
    if workdir in runs and config.differing_keys(runs[workdir].config, run.config):
      problem = f'two different runs have one name, {run.name}'
      raise UserError(f'config: {path}: sweep(): {problem}; allowed: values that differ as text')
    if (other := names.setdefault(run.name.casefold(), run.name)) != run.name:
      # to some file systems both are one folder
      problem = f'{other} and {run.name} differ in case alone'
      raise UserError(f'config: {path}: sweep(): {problem}; allowed: names that differ otherwise')
    runs[workdir] = run
  _check_overrides(overrides, swept_runs, len(runs))
  return list(runs.values())


def _fields(swept: dict, overrides: dict[str, object]) -> dict[str, object]:
  """What the run of one element of a sweep overrides."""
  fields = {**swept, **overrides}
  if overrides.get('seeds'):
    fields.pop('seed', None)
  return fields


def _name(swept: dict, overrides: dict[str, object]) -> str:
  fields = _fields(swept, overrides)
  return run_name({field: fields[field] for field in swept if field in fields})


def _check_startable(run: PlannedRun, start: PlannedRun | None) -> None:
  """Raises `UserError` where a run cannot be started here, or not in its directory.

  `start`: the run of this study that it starts from, or None.
  """
  workdir = run.workdir
  trackers.check(run.config.train.trackers)
  seed_runs = config.single_seed_runs(run.config, workdir) if run.config.seeds else []
  for one_config, folder in [(run.config, workdir), *seed_runs]:
    check_same_config(folder, one_config, 'another --out')
  if not run.is_finished:
    check_can_begin(run.config, workdir, has_start=start is None)
  if start is not None and storage.exists(workdir / 'config.json'):
    _check_not_extended(start, workdir)


def swept_by(study: ModuleType, path: str | Path) -> list[dict]:
  """What `sweep()` of a study gives. Raises `UserError` where it has none."""
  if not hasattr(study, 'sweep'):
    allowed = 'a study such as configs/quick.py'
    raise UserError(f'config: {str(path)!r} has no sweep(); allowed: {allowed}')
  return study.sweep()


def leave_out(runs: list[PlannedRun], kept: set[str]) -> list[PlannedRun]:
  """The runs without those of which all results are among `kept`, names of directories, but with
  those that a run which is left starts from: it needs their parameters.
  """
  left, starts = [], set()
  for run in reversed(runs):
    if run.workdir in starts or not all(folder.name in kept for folder in run.results):
      left.append(run)
      starts.add(run.init_from)
  return left[::-1]


def in_part(runs: list[PlannedRun], part: str) -> list[PlannedRun]:
  """The runs of part 'N/M' of a study, every M-th from the N-th on, with those that they start
  from; all where `part` is ''. Raises `UserError` for a part that there is not.
  """
  if not part:
    return runs
  words = re.fullmatch(r'(\d{1,5})/(\d{1,5})', part, re.ASCII)
  number, parts = map(int, words.groups()) if words else (0, 0)
  if not 1 <= number <= parts <= len(runs):
    most = f'M at most {len(runs)}, the number of runs'
    raise UserError(f'--part={shown(part)}; allowed: N/M such as 1/4, N from 1 to M, {most}')
  others = [run for n, run in enumerate(runs) if n % parts != number - 1]
  return leave_out(runs, {folder.name for run in others for folder in run.results})


def check_same_evaluation(runs: list[PlannedRun]) -> None:
  """Raises `UserError` where a run was begun with other settings of `eval` that rows do not state:
  its rows from before would be taken for ones of the settings that runs are begun with now.
  """
  for run in runs:
    for run_config, workdir in config.single_seed_runs(run.config, run.workdir):
      if not storage.exists(workdir / 'config.json'):
        continue
      there, here = config.flat(config.saved_config(workdir)), config.flat(run_config)
      for field in config.differing_keys(there, here):
        if field.startswith('eval.') and field not in IN_ROWS + HARMLESS:
          values = f'there {there.get(field)!r}, here {here.get(field)!r}'
          problem = f'was begun with another {field} ({values}), which rows do not state'
          raise UserError(f'workdir={str(workdir)!r} {problem}; allowed: another --out')


def _check_not_extended(start: PlannedRun, workdir: Path) -> None:
  """Raises `UserError` where a run would be extended that the one in `workdir` has started from."""
  if is_extended(start.workdir, start.config):
    steps = config.saved_config(start.workdir).train.steps
    raise UserError(
      f'config.train.steps={start.config.train.steps}: {workdir.name} has started from '
      f'{start.name} as it was after {steps} steps; allowed: {steps}, or another --out'
    )


def _check_overrides(overrides: dict[str, object], swept_runs: list[dict], left: int) -> None:
  """Raises `UserError` where overrides make runs equal that differ in more than their seed."""
  is_one_seed = bool(overrides.keys() & {'seed', 'seeds'})
  different = len({repr(_without_seed(x) if is_one_seed else x) for x in swept_runs})
  if left == different:
    return
  for field in overrides.keys() - {'seed', 'seeds'}:
    if len({repr(swept.get(field)) for swept in swept_runs}) > 1:
      problem = f'makes {different} runs of the study {left}'
      allowed = 'a field that its sweep() does not vary, or config.seed'
      raise UserError(f'config.{field}={shown(overrides[field])}: {problem}; allowed: {allowed}')


def _without_seed(swept: dict) -> dict:
  """Overrides of a run, and of the run that it starts from, but for their seeds."""
  return {
    field: _without_seed(value) if field == 'train.init_from' and isinstance(value, dict) else value
    for field, value in swept.items()
    if field not in ('seed', 'seeds')
  }


def _check_sections(overrides: dict[str, object], swept_runs: list[dict]) -> None:
  """Raises `UserError` for an override of a section of which the sweep varies a field, of the name
  of an encoding that the sweep sets with its hyperparameters, and of where runs start that start
  from other runs of the sweep.
  """
  for field in overrides:
    for swept in swept_runs:
      if field == 'train.init_from' and isinstance(swept.get(field), dict):
        allowed = f'other fields; the sweep starts from its own run {shown(swept[field])}'
        raise UserError(f'config.{field}={shown(overrides[field])}; allowed: {allowed}')
      if field == 'encoding.name' and 'encoding' in swept:
        allowed = f'other fields; the sweep sets encoding={shown(swept["encoding"])} whole'
        raise UserError(f'config.{field}={shown(overrides[field])}; allowed: {allowed}')
      if within := [path for path in swept if path.startswith(f'{field}.')]:
        allowed = f'its fields by themselves, but for {within[0]}, which the sweep sets'
        raise UserError(f'config.{field}={shown(overrides[field])}; allowed: {allowed}')


def _check_sweep(path: str, swept_runs: list[dict]) -> None:
  """Raises `UserError` for a sweep that has the same run twice."""
  numbers = {}
  for number, swept in enumerate(swept_runs, 1):
    first = numbers.setdefault(repr(sorted(swept.items())), number)
    if first < number:
      raise UserError(
        f'config: {path}: sweep() has one run twice, as number {first} and {number}: '
        f'{shown(swept)}; allowed: each once'
      )


def check_runs(path: str | Path, runs: list[PlannedRun], kept: str | Path = '') -> None:
  """Raises `UserError` for the first run that cannot be built, trained or evaluated as it asks, or
  whose encoding has another code than that of the results in the folder `kept`.

  One process checks all that are not finished, since it needs jax and the corpus. Of finished ones
  it checks encodings of the user's own alone, which may have been edited since, and, where others
  are still to be trained, whether they were made with the defaults and texts that these will have.
  """
  has = lambda run, file: any(storage.exists(folder / file) for folder in run.results)
  finished = {run.name for run in runs if run.is_finished}
  to_do = [run for run in runs if run.name not in finished]
  files = (OWN_ENCODINGS, BUILT_IN_VALUES) if to_do else (OWN_ENCODINGS,)
  runs = [run for run in runs if run.name not in finished or any(has(run, file) for file in files)]
  if not runs:
    return
  folders = lambda run: [*map(str, run.results), *filter(None, [str(kept)])]
  # as its first seed has it: `train.init_from` is the run that this one starts from
  of_first = lambda run: config.single_seed_runs(run.config, run.workdir)[0][0]
  asked = {
    'runs': [[config.to_json(of_first(run)), folders(run)] for run in runs],
    'finished': [number for number, run in enumerate(runs) if run.name in finished],
  }
  search_path = [str(storage.REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
  ended = subprocess.run(
    [sys.executable, '-P', '-m', 'posenc_jax.evaluation.preflight', str(path)],
    input=json.dumps(asked),
    capture_output=True,
    text=True,
    errors='replace',
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(search_path), 'JAX_PLATFORMS': 'cpu'},
    check=False,
  )
  if ended.returncode:
    print(ended.stderr, file=sys.stderr)
    reason = last_line(ended.stderr) or f'exit code {ended.returncode}'
    raise Stopped(f'{path}: its runs cannot be checked: {reason}')
  if refused := json.loads(ended.stdout.splitlines()[-1]):
    number, reason = refused
    raise UserError(f'{runs[number].name}: {reason}')


def _edited(run_config: ConfigDict, workdir: Path) -> dict[str, object]:
  """Fields that differ in config.json, which eval.py reads, since the study was edited."""
  if not storage.exists(workdir / 'config.json'):
    return {}
  fields = config.flat(run_config)
  differing = config.differing_keys(config.saved_config(workdir), run_config)
  return {path: fields[path] for path in differing if path in fields}


def _of_seed(swept_runs: list[dict], seed: object, default: int) -> list[dict]:
  """The runs that a sweep has with a seed, and those that they start from."""
  left = []
  for swept in reversed(swept_runs):
    is_start = any(swept == other.get('train.init_from') for other in left)
    if is_start or swept.get('seed', default) == seed:
      left.append(swept)
  return left[::-1]


def _flags_of(script: Path, fields: dict[str, object]) -> list[str]:
  """The fields as flags of a script. eval.py gets none of the encoding: it lays them over the run's
  own config, where they have acted, and which parts of a pattern or a chain they are for is another
  question there.
  """
  is_given = lambda path: script.stem != 'eval' or path.partition('.')[0] != 'encoding'
  return [_flag(path, value) for path, value in fields.items() if is_given(path)]


def _flag(path: str, value: object) -> str:
  is_literal = value in ('None', 'True', 'False')
  is_word = isinstance(value, str) and value.isidentifier() and not is_literal
  return f'--config.{path}={value if is_word else repr(value)}'
