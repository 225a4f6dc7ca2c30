"""The sessions of a run: when, by which code and packages and on which device it was worked on.

A row for each command that has trained or evaluated it, in its sessions.jsonl; no number depends on
them. Kept results have those of all their runs in one file, where `run` says which.
"""

import contextlib
import datetime
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path

import posenc_jax
from posenc_jax import storage
from posenc_jax.errors import disk_errors, visible
from posenc_jax.rows.row_schema import FieldCheck, fault_of, is_text, text

FILE = 'sessions.jsonl'
TRAINING, EVALUATION = 'training', 'evaluation'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'grain')
# Those that read text or cut it into tokens, named where they are installed.
OF_TEXT = ('datasets', 'sentencepiece', 'tensorflow-datasets', 'tokenizers')
CODE = ('posenc_jax', 'train.py', 'eval.py')  # what numbers come from, beside a run's own config
# What names another repository in the environment, as in a hook of git.
OTHER_REPOSITORY = ('GIT_DIR', 'GIT_WORK_TREE', 'GIT_INDEX_FILE')
MOST_COMMITS = 5  # that a sentence names

CHECKS: dict[str, FieldCheck] = {
  # what the command did
  'work': (lambda value: value in (TRAINING, EVALUATION), f'{TRAINING} or {EVALUATION}'),
  # when it began, in UTC
  'began': (
    lambda value: is_text(value, 40) and re.match(r'\d{4}-\d\d-\d\dT', value) is not None,
    'a time such as 2026-11-28T19:50:00+00:00',
  ),
  # the commit of the repository; null where it is none, or git does not say
  'commit': (
    lambda value: value is None or (is_text(value, 64) and value.isalnum()),
    'null or the hash of a commit',
  ),
  # whether the code was edited since that commit; null as there
  'is_edited': (lambda value: value is None or type(value) is bool, 'null, true or false'),
  # the beginning of the hash of the package's files
  'code': (
    lambda value: is_text(value, 16) and re.fullmatch('[0-9a-f]{16}', value) is not None,
    '16 hexadecimal digits, the first of `package_hash`',
  ),
  # the version of Python
  'python': (lambda value: is_text(value, 40), 'a version'),
  # {package: version} of this one and of those that numbers depend on
  'packages': (
    lambda value: (
      type(value) is dict and all(is_text(text, 80) for pair in value.items() for text in pair)
    ),
    '{package: version}',
  ),
  # what JAX computed on
  'device': text(200),
  # the kind of processor, see `processor`
  'processor': text(200),
}
OPTIONAL = {'code', 'processor'}  # sessions of earlier versions lack it

CPU_INFO = Path('/proc/cpuinfo')
# What Linux knows of a kind of processor. Virtual machines may hide its name, and Arm has none.
OF_KIND = ('cpu family', 'model', 'CPU implementer', 'CPU part')


def now() -> str:
  """The time in UTC, as sessions have it."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def add(workdirs: Iterable[str | Path], work: str, device: str, began: str | None = None) -> None:
  """Adds a session to those of each run; `began`: from `now`, None: it begins now."""
  row = {'work': work, 'began': began or now(), **_made_by()}
  row |= {'device': device, 'processor': processor()}
  for workdir in workdirs:
    # a training and an evaluation have locks of their own, and may begin at once
    storage.append_rows(Path(workdir) / FILE, [row], is_shared=True)


def change(workdir: str | Path, work: str | None = None) -> str:
  """By which code and packages a run was worked on last, and by which it is from now on; '' where
  these are the same, or where no session says. Raises Damaged or OSError.

  Args:
    work: it is the last session of this work that counts; None: of any.
  """
  rows = [row for row in of_run(workdir) if work in (None, row['work'])]
  if not rows:
    return ''
  then, here = rows[-1], _made_by()
  # a commit may change no code, and edits are of no commit: where there is a hash, it decides
  fields = ('code',) if 'code' in then else ('commit', 'is_edited')
  both = then['packages'].keys() & here['packages'].keys()
  others = [name for name in sorted(both) if then['packages'][name] != here['packages'][name]]
  if not others and all(then[field] == here[field] for field in fields):
    return ''
  name = lambda row: ', '.join(
    [f'commit {_commit_of(row)}', *(f'{package} {row["packages"][package]}' for package in others)]
  )
  return f'until now by {name(then)}; from now on by {name(here)}'


def _made_by() -> dict:
  """What a session states of the code and the packages that are at work here."""
  commit, is_edited = code()
  return {
    'commit': commit,
    'is_edited': is_edited,
    'code': package_hash()[:16],
    'python': platform.python_version(),
    'packages': {'posenc_jax': posenc_jax.__version__} | _versions(),
  }


def _versions() -> dict[str, str]:
  """{package: its version}."""
  versions = {name: metadata.version(name) for name in PACKAGES}
  for name in OF_TEXT:
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return versions


def package_hash() -> str:
  """The hash of the package's files, as they lie where this process takes them from."""
  digest, root = hashlib.sha256(), Path(posenc_jax.__file__).parent
  for path in sorted(root.rglob('*.py')):
    digest.update(f'{path.relative_to(root).as_posix()}\n'.encode() + path.read_bytes())
  return digest.hexdigest()


def code() -> tuple[str | None, bool | None]:
  """The commit of the repository that this package was installed from, and whether its code has
  been edited since; (None, None) where it is no repository, or git does not say.
  """
  top = _git('rev-parse', '--show-toplevel')
  # another one is that of a user who installed this package below
  if top is None or Path(top).resolve() != storage.REPOSITORY:
    return None, None
  commit = _git('rev-parse', 'HEAD')
  changes = _git('status', '--porcelain', '--', *CODE)
  return commit, None if changes is None else bool(changes)


def processor() -> str:
  """The kind of processor that this machine has, as far as the system tells: sums of floats may
  differ between two kinds.
  """
  said = ''
  with contextlib.suppress(OSError):
    said = CPU_INFO.read_text(encoding='utf-8')
  found = dict(re.findall(r'^(\w[^\t\n:]*)\s*: (.+)$', said, re.MULTILINE))
  name = found.get('model name')
  if sys.platform == 'darwin':
    name = _answer(['sysctl', '-n', 'machdep.cpu.brand_string'])
  numbers = [f'{kind} {found[kind]}' for kind in OF_KIND if kind in found]
  return ', '.join([name or platform.machine() or 'unknown', *numbers])


def _git(*words: str) -> str | None:
  """What git answers in the repository; None where it fails, or is not there. It takes no lock that
  a user's own commands would meet.
  """
  environment = {name: x for name, x in os.environ.items() if name not in OTHER_REPOSITORY}
  command = ['git', '--no-optional-locks', '-C', str(storage.REPOSITORY), *words]
  return _answer(command, environment)


def _answer(command: list[str], environment: Mapping[str, str] | None = None) -> str | None:
  """What a command prints; None where it fails, or is not there."""
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() if done.returncode == 0 else None


def of_run(workdir: str | Path) -> list[dict]:
  """The sessions of the run in `workdir`, each with its name. Raises Damaged or OSError."""
  name = visible(Path(workdir).name)
  return [{'run': name, **row} for row in storage.read_rows(Path(workdir) / FILE, _fault)]


def kept_in(folder: str | Path) -> list[dict]:
  """The sessions that are kept in a folder of results. Raises Damaged or OSError."""
  has_run = lambda row: None if is_text(row.get('run'), 255) else 'it names no run'
  return storage.read_rows(Path(folder) / FILE, lambda row: has_run(row) or _fault(row))


def of_folder(folder: str | Path) -> list[dict]:
  """The sessions of the runs in a folder, and those that it keeps of others. Raises Damaged, or
  Stopped where it cannot be read.
  """
  with disk_errors(remedy=''):
    found = kept_in(folder)
    for file in storage.files_below(folder, FILE):
      found += of_run(file.parent)
  return [row | {'run': visible(row['run'])} for row in found]


def _fault(row: dict) -> str | None:
  """What is wrong with a row, or None."""
  return fault_of(row, CHECKS, required=CHECKS.keys() - OPTIONAL)


def sentence(rows: Iterable[dict], runs: Collection[str]) -> str:
  """A sentence on when and by which code these runs were made."""
  rows = [row for row in rows if row['run'] in runs]
  unknown = len({*runs} - {row['run'] for row in rows})
  if not rows:
    return 'When and by which code the runs were made is not on record.'
  days = sorted({row['began'][:10] for row in rows})
  when = f'on {days[0]}' if len(days) == 1 else f'from {days[0]} to {days[-1]}'
  commits = list(dict.fromkeys(map(_commit_of, sorted(rows, key=lambda row: row['began']))))
  if (more := len(commits) - MOST_COMMITS) > 0:
    commits = [*commits[:MOST_COMMITS], f'{more} more']
  packages = sorted({f'jax {row["packages"].get("jax", "of unknown version")}' for row in rows})
  devices = sorted(set(map(_device_of, rows)))
  text = f'Runs made {when} by commit {", ".join(commits)} with {", ".join(packages)} on '
  text += ', '.join(devices)
  if unknown:
    text += f'; of {unknown} of {len(runs)} runs this is not on record'
  return f'{text}.'


def _commit_of(row: dict) -> str:
  """The commit of a session; where it does not tell the code, the hash of this, too."""
  code_hash = f', code {row["code"]}' if 'code' in row else ''
  if row['commit'] is None:
    return f'unknown (version {row["packages"].get("posenc_jax", "unknown")}{code_hash})'
  return row['commit'][:10] + f' (edited{code_hash})' * bool(row['is_edited'])


def _device_of(row: dict) -> str:
  is_known = 'processor' in row and row['device'].endswith(' cpu')
  return f'{row["device"]} ({row["processor"]})' if is_known else row['device']
