"""A run's directory: it belongs to one config, and one training at a time works in it."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import (
  CHECKPOINT_FIELDS,
  NOT_TRAINING,
  check_one_seed,
  config_hash,
  differing_keys,
  flat,
  from_json,
  overlay,
  saved_config,
  single_seed_runs,
  to_json,
  training_part,
)
from posenc_jax.errors import Damaged, UserError, user_errors

FINISHED = 'finished.json'  # holds the hashes of the configs of which all is done
# What a run of no steps has in the place of checkpoints where all its parameters are another run's.
TAKEN = 'checkpoints/taken.json'
# What is said of the parameters that the checkpoints hold: it would pass for that of others.
OF_PARAMETERS = ('eval.jsonl', FINISHED)
STARTS_FROM, STARTS_AT = 'config.train.init_from', 'config.train.init_step'
FINISHED_RUN = 'allowed: the directory of a run that train.py finished'


@contextlib.contextmanager
def locked_run_dir(workdir: str | Path, config: ConfigDict) -> Iterator[None]:
  """Claims the directory for `config` and locks out other trainings.

  Raises `UserError` where the directory holds a run of another config, or a training works there.
  """
  workdir = Path(workdir)
  check_same_config(workdir, config)  # first, so that no lock file is left in another's directory
  _make_folder(workdir)
  with user_errors(BlockingIOError), storage.file_lock(workdir / 'train.lock'):
    claim_run_dir(workdir, config)
    yield


def checkpoint_steps(workdir: str | Path) -> list[int]:
  """The steps of the checkpoints in a run's directory, as far as names there say it. Where its
  parameters are those of another run, that is one, of step 0.
  """
  return _own_steps(workdir) or [0] * storage.exists(Path(workdir) / TAKEN)


def _own_steps(workdir: str | Path) -> list[int]:
  names = [path.name for path in Path(workdir).glob('checkpoints/*')]
  return [int(name) for name in names if name.isdecimal()]


def takes_parameters(workdir: str | Path) -> bool:
  """Whether the parameters of a run are those of another: it has made no step, and saved none."""
  return storage.exists(Path(workdir) / TAKEN) and not _own_steps(workdir)


def check_can_begin(config: ConfigDict, workdir: Path, has_start: bool = True) -> None:
  """Raises `UserError` where the run, or one of its seeds, has not begun and cannot: there are
  scores of parameters that are gone, or no finished training where it starts from.

  Args:
    has_start: whether the run that `train.init_from` names should be there already.
  """
  for run, folder in single_seed_runs(config, workdir):
    if checkpoint_steps(folder) or (config.vmap_seeds and checkpoint_steps(workdir)):
      continue
    _check_no_scores(folder)
    if run.train.init_from and has_start:
      finished_config(run.train.init_from, run.train.init_step)


def finished_config(start: str | Path, at: int = 0) -> ConfigDict:
  """The config of the run in `start` that another one starts from. Raises `UserError` where no
  training has ended there, or there is no checkpoint of the step `at` that is not 0, as far as
  names of checkpoints say it.
  """
  field = f'{STARTS_FROM}={str(start)!r}'
  if not storage.exists(Path(start) / 'config.json'):
    raise UserError(f'{field}: no config.json there; {FINISHED_RUN}')
  of_model = 'model', 'attention', 'encoding.name', 'train.length'
  saved = saved_config(start, 'seeds', 'train.steps', *of_model)
  check_one_seed(field, saved, start)
  steps = checkpoint_steps(start)
  if at and at not in steps:
    kept = ', '.join(map(str, sorted(steps))) or 'a run that was trained'
    problem = f'{STARTS_AT}={at}: {start} has no checkpoint of that step'
    raise UserError(f'{problem}; allowed: 0, for its last one, {kept}')
  if not at:
    check_finished(start, saved, max(steps, default=None))
  return saved


def check_finished(start: str | Path, saved: ConfigDict, step: int | None) -> None:
  """Raises `UserError` where the last checkpoint, of `step`, is not of the end of the training."""
  if step is None or step < saved.train.steps:
    where = f'its training is at step {step or 0} of {saved.train.steps}'
    raise UserError(f'{STARTS_FROM}={str(start)!r}: {where}; {FINISHED_RUN}')


def _check_no_scores(folder: Path) -> None:
  """Raises `UserError` where a directory without checkpoints has scores: those of the parameters
  that are gone would stand as those of the ones to be trained.
  """
  if there := [name for name in OF_PARAMETERS if storage.exists(folder / name)]:
    names = ' and '.join(there)
    problem = f'its checkpoints are gone, but {names} are of the model that they held'
    allowed = f'another workdir, or without {names} there to train it anew'
    raise UserError(f'workdir={str(folder)!r}: {problem}; allowed: {allowed}')


def claim_run_dir(workdir: str | Path, config: ConfigDict) -> None:
  """Writes `config.json`, or compares the fields that decide training with the one there.

  Raises `UserError` naming the fields that differ. `eval` and `label` may differ: the file keeps
  what it was made with, and a line says so. More `train.steps` may be asked for, which `extend`
  writes. The file gets where the run that it starts from lies now.
  """
  workdir = Path(workdir)
  _make_folder(workdir)
  check_same_config(workdir, config)
  if not storage.exists(workdir / 'config.json'):
    storage.write_json(workdir / 'config.json', to_json(config))
    return
  saved = saved_config(workdir)
  changed = [key for key in differing_keys(saved, config) if key.split('.')[0] in NOT_TRAINING]
  if others := [key for key in changed if key in flat(saved)]:
    print(f'{workdir}: {", ".join(others)} as the run was begun; give others to eval.py')
  if saved.train.init_from != config.train.init_from:
    saved.train.init_from = config.train.init_from
    storage.write_json(workdir / 'config.json', to_json(saved))


def is_extended(workdir: Path, config: ConfigDict) -> bool:
  """Whether `config` asks the run that the directory holds for more steps than it was begun with.

  Raises `UserError` where its config cannot be read.
  """
  if not storage.exists(workdir / 'config.json'):
    return False
  fields = flat(saved_config(workdir))
  steps = fields.get('train.steps')
  return type(steps) is int and config.train.steps > steps


def extend(workdir: str | Path, config: ConfigDict) -> None:
  """Writes a larger number of steps into config.json, if `config` asks for one, and says what
  becomes of learning rates.
  """
  workdir = Path(workdir)
  if not is_extended(workdir, config):
    return
  saved, steps = saved_config(workdir), config.train.steps
  before = saved.train.steps
  # first, so that no directory ever says of a training that goes on that it is finished
  (workdir / FINISHED).unlink(missing_ok=True)
  overlay(saved, {'train.steps': steps})
  storage.write_json(workdir / 'config.json', to_json(saved))
  if config.optim.final_fraction == 1:
    rates = f'its rate is constant, so it ends as a run of {steps} steps from the start does'
  else:
    rates = f'learning rates from here on are those of a schedule of {steps}, before of {before}'
  print(f'{workdir}: extended from {before} to {steps} steps; {rates}')


def check_same_config(workdir: Path, config: ConfigDict, allowed: str = 'another workdir') -> None:
  """Raises `UserError` where the directory holds a run of another config, naming what differs.

  A run that differs in nothing but in fewer `train.steps` is the same one: it can be extended. One
  that keeps other checkpoints, or whose folder of text is named in another way, is the same, too.
  """
  field = f'workdir={str(workdir)!r}'
  if storage.exists(workdir / 'config.json'):
    here, there = (flat(training_part(c)) for c in (config, saved_config(workdir)))
    keys = [key for key in differing_keys(here, there) if key not in CHECKPOINT_FIELDS]
    if 'data.corpus' in keys and are_one_corpus(here.get('data.corpus'), there.get('data.corpus')):
      keys.remove('data.corpus')
    sources = (fields.get('train.init_from') for fields in (here, there))
    if 'train.init_from' in keys and _are_one_run(workdir, *map(str, sources)):
      keys.remove('train.init_from')
    is_imported = str(there.get('train.init_from')).startswith('sha256:')
    if is_imported and is_extended(workdir, config):
      problem = 'holds an imported model, which has no training to go on with'
      raise UserError(
        f'{field} {problem}; allowed: another workdir, with train.init_from={workdir}'
      )
    if keys and not (keys == ['train.steps'] and is_extended(workdir, config)):
      differing = [f'{key} (there {there.get(key)!r}, here {here.get(key)!r})' for key in keys]
      problem = f'holds a run of another config: {", ".join(differing)}'
      if keys == ['data.corpus'] and _is_gone(there.get('data.corpus')):
        allowed += ', or the same text there again, such as by a link'
      raise UserError(f'{field} {problem}; allowed: {allowed}')
  else:
    for name in ('checkpoints', 'metrics.jsonl'):
      if storage.exists(workdir / name):
        raise UserError(f'{field} holds {name} but no config.json; allowed: {allowed}')


def as_begun(config: ConfigDict, workdir: str | Path) -> ConfigDict:
  """The config with its folder of text named as the run in `workdir` names it, if there is one and
  the folder is the same: rows and hashes of configs have the name.
  """
  if not storage.exists(Path(workdir) / 'config.json'):
    return config
  fields = flat(saved_config(workdir))
  return with_corpus_named(config, [fields.get('data.corpus')])


def with_corpus_named(config: ConfigDict, names: Iterable[object]) -> ConfigDict:
  """The config with its folder of text under the first of these names that is of the same folder,
  if there is one.
  """
  is_same = lambda name: are_one_corpus(config.data.corpus, name)
  name = next(filter(is_same, names), config.data.corpus)
  if name == config.data.corpus:
    return config
  named = from_json(to_json(config))
  named.data.corpus = name
  return named


def are_one_corpus(here: object, there: object) -> bool:
  """Whether two names of corpora are equal, or those of one folder of text."""
  if here == there:
    return True
  try:
    return Path(here).is_dir() and Path(here).resolve() == Path(there).resolve(strict=True)
  except (TypeError, OSError):  # what a stranger's config has, or what is no folder
    return False


def _is_gone(corpus: object) -> bool:
  """Whether a corpus was a folder, by an absolute path where nothing is now."""
  return isinstance(corpus, str) and corpus.startswith('/') and not storage.exists(Path(corpus))


def _are_one_run(workdir: Path, here: str, there: str) -> bool:
  """Whether two paths lead to one run; `there` is from when it may have lain elsewhere, but beside
  `workdir` as it does now.
  """
  if not here or not there:
    return False
  here, there = Path(here).resolve(), Path(there).resolve()
  has_moved = here.parent == workdir.resolve().parent and not storage.exists(there)
  return here == there or (has_moved and here.name == there.name)


def _make_folder(workdir: Path) -> None:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    allowed = 'a folder, or where one can be made'
    raise UserError(f'workdir={str(workdir)!r}: {error.strerror}; allowed: {allowed}') from None


def check_planned(config: ConfigDict, workdir: str | Path, planned: str) -> None:
  """Raises `UserError` where the config is not the one of the hash `planned`, '' for any: a sweep
  has planned another one, and its tables would leave this run out.
  """
  if planned and planned != (found := config_hash(as_begun(config, workdir))):
    raise UserError(
      f'--planned={planned}: the config has the hash {found}: the study was edited after its sweep '
      'began, or a field was added; allowed: the same sweep again, or without --planned'
    )


def is_finished(workdir: str | Path, config_hash: str) -> bool:
  """Whether all that a config of this hash asks for, training and evaluation, is done.

  A damaged finished.json counts for nothing: the same commands see what there is, and write it
  anew.
  """
  return config_hash in _finished(workdir)


def mark_finished(workdir: str | Path, config_hash: str) -> None:
  """Adds a config to those of which all is done: they differ in what they evaluate."""
  if config_hash not in (finished := _finished(workdir)):
    hashes = [*finished, config_hash]
    storage.write_json(Path(workdir) / FINISHED, {'config_hashes': hashes})


def _finished(workdir: str | Path) -> list[str]:
  try:
    return finished_hashes(workdir)
  except (FileNotFoundError, NotADirectoryError, Damaged):
    return []


def finished_hashes(workdir: str | Path) -> list[str]:
  """The hashes that finished.json holds. Raises Damaged or OSError."""
  file, remedy = Path(workdir) / FINISHED, 'the same sweep again, which writes it anew'
  hashes = storage.read_json(file, {'config_hashes': list}, remedy)['config_hashes']
  if not all(isinstance(value, str) for value in hashes):
    raise Damaged(f'{file} is damaged: its hashes are not all text; allowed: {remedy}')
  return hashes
