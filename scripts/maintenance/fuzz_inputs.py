"""Gives the commands wrong inputs by the hundred, and counts how each of them ends.

  python scripts/maintenance/fuzz_inputs.py                 # all, a few minutes
  python scripts/maintenance/fuzz_inputs.py --count=200 --kinds=flags,tasks

Every input must be named in one line, or be taken because it is allowed; a traceback, a hang, a
message of several lines, or a file that is left although the input was refused makes the exit code
1. The commands run in this process, with their work left out: a training ends once its model was
built and its evaluation planned, and nothing is drawn or timed.

--count: how many inputs, drawn evenly from all kinds; 0: all. --seed: of the draw. --kinds: names
of kinds, with commas between them. --seconds: after these an input counts as a hang.
"""

import collections
import contextlib
import functools
import importlib
import io
import json
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import cli, config, data, encodings, errors, sweep, tasks
from posenc_jax.config import BASE
from posenc_jax.config.fields import FIELDS
from posenc_jax.distributed import devices
from posenc_jax.evaluation import evaluate, preflight
from posenc_jax.inspection import profiles
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.reporting.mpl import figures as mpl_figures
from posenc_jax.reporting.mpl import profile_figure
from posenc_jax.sweep import lr_grid, sweeping
from posenc_jax.training import loop, trackers

LONGEST_MESSAGE = 2000  # characters; more is no line that anyone reads
ENDS = ('one line', 'taken', 'many lines', 'traceback', 'hang', 'left files')
GOOD_ENDS = ENDS[:2]
DEEP = 400  # brackets: more than Python's parser takes

# Values as they stand on a command line.
WORDS = (
  '', ' ', 'abc', 'None', 'True', '()', '[]', '{}', '...', '1j', "b'x'", '{1, 2}', '"', '(1,', '[',
  '0', '-1', '1.5', '1e999', 'nan', 'inf', '-0.0', '1e-320', '2147483648', '9' * 30, '9' * 400,
  '-' + '9' * 5000, '(1, 1)', '(0,)', '(-1, "x")', '(1, (2, (3,)))', "{'a': {'b': [1]}}", '1,2',
  "{'name': 'rope'}", "('rope', 5)", '{5: 5}', "{'a.b': 1}", "{'items': 1}", '1e308', '$(ls)',
  'a\0b', 'a\nb', '\x1b[31mred', '\ud800', 'é' * 10, 'x' * 300, 'x' * 20_000, '/' * 300,
  '~nobody/x', '[' * DEEP, '[' * 90 + ']' * 90, '-' * 9000 + '1', '/proc/nothing/x', '../..',
  '/dev/null',
)  # fmt: skip
# Values as a study or a config.json can have them.
OBJECTS = (
  None, True, 0, -1, 1.5, float('nan'), float('inf'), 10**30, 10**400, 2**31, '', 'abc', 'a\0b',
  'a\nb', '\ud800', 'x' * 20_000, (), (1, 1), ('a', 1), ((1,), [2]), [], [[]], {}, {'a': 1},
  {'name': 'rope'}, {'a': {'b': ()}}, (float('nan'),), ({},), (None,), ('',), (10**400,), object(),
  {1, 2}, b'x', 1j, len, np.int64(3), np.zeros(2), {1: 2}, ({1: 2},), ConfigDict(),
  functools.reduce(lambda inner, _: (inner,), range(3000), ()),
  functools.reduce(lambda inner, _: {'a': inner}, range(300), {}),
)  # fmt: skip
PATHS = (
  '', '.', '..', 'train', 'train.', '.train', 'train..steps', 'train.stepz', 'train.steps.x',
  'encoding', 'encoding.', 'encoding..x', 'encoding.items', 'encoding.__class__', 'encoding.a b',
  'encoding.' + 'a.' * 2000 + 'b', 'encoding.name.x', 'encoding.x\0', '\ud800', 'x' * 5000,
  'encoding.lock', 'items', 'eval.lengths.0', 'encoding.\n', 'encoding.x.y.z', 'seed.seed', '1',
  'é',
)  # fmt: skip


class Input(NamedTuple):
  """A wrong input: its kind, its words, and what is done with it in an empty folder."""

  kind: str
  words: str
  run: Callable[[Path], object]


class Hang(BaseException):
  """An input took too long."""


def tiny(folder: Path) -> dict[str, object]:
  """Overrides of a small run whose corpus lies in `folder`."""
  model = {'layers': 1, 'model_dim': 8, 'heads': 2, 'head_dim': 4, 'mlp_dim': 8}
  training = {'length': 8, 'batch': 2, 'steps': 4}
  evaluation = {'lengths': (8, 16), 'k': 4, 'stride': 4, 'documents': 2, 'document_tokens': 16}
  evaluation['target_context'] = 16
  sections = {'model': model, 'train': training, 'eval': evaluation}
  fields = {f'{name}.{key}': v for name, tree in sections.items() for key, v in tree.items()}
  return {**fields, 'optim.warmup': 1, 'data.corpus': str(folder)}


def flags_of(overrides: dict[str, object]) -> list[str]:
  return [f'--config.{path}={value}' for path, value in overrides.items()]


def good_corpus(folder: Path) -> Path:
  """Makes a corpus of three documents for each split."""
  for split in ('train', 'validation', 'test'):
    (folder / split).mkdir(parents=True)
    for name in 'abc':
      (folder / split / f'{name}.txt').write_text('to be or not to be, that is the question')
  return folder


def check(run: ConfigDict, *_) -> None:
  """Does what a training does until it computes: builds the model as shapes and passes tokens."""
  config.validate(run)
  trackers.check(run.train.trackers)
  if run.train.init_from:
    config.saved_config(run.train.init_from)
  preflight.check_model(run)
  preflight.check_training_data(run)
  preflight.check_evaluation(run)
  if run.train.length > 64:
    return  # tracing takes long for what has many tiles

  def forward():
    model = build(run, data.vocab(run.data), nnx.Rngs(0))
    return token_nll(model, jnp.zeros((1, run.train.length), jnp.int32))

  with errors.user_errors(NotImplementedError, encodings.LengthError):
    jax.eval_shape(forward)


def main_of(script: str) -> Callable[[list[str]], object]:
  """The function of a script that takes its arguments; imported when it is first needed."""
  name = script.removesuffix('.py').replace('/', '.')
  return importlib.import_module('scripts.bench.command' if name == 'scripts.bench' else name).main


def flags_taken(script: str, words: list[str]) -> list[str]:
  """The names of the flags for which a script that is given these words looks."""
  names = []

  def parse_args(argv, flags, *_, **__):
    names.extend(flags)
    raise errors.Stopped('no more is asked of it')

  with mock.patch.object(cli, 'parse_args', parse_args), contextlib.suppress(errors.Stopped):
    main_of(script)(words)
  return names


def inputs(corpus: Path) -> Iterator[Input]:
  """All inputs, with a good corpus beside what is wrong."""
  good = [f'--config={BASE}', *flags_of(tiny(corpus))]

  def call(script, *arguments):
    return lambda folder: main_of(script)([word.replace('OUT', str(folder)) for word in arguments])

  train = functools.partial(call, 'train.py', *good, '--workdir=OUT/run')
  for path in FIELDS:
    for word in WORDS:
      if not (path == 'data.corpus' and set(word) == {'/'}):  # the whole disk is a corpus
        yield Input('fields', f'--config.{path}={word}', train(f'--config.{path}={word}'))
  for path in PATHS:
    yield Input('fields', f'--config.{path}=1', train(f'--config.{path}=1'))
    yield Input('fields', f'--config.{path}', train(f'--config.{path}'))

  yield from _of_configs(corpus)
  yield from _of_hyperparameters(corpus)
  yield from _of_flags(call, good)
  yield from _of_tasks(train)


def _of_configs(corpus: Path) -> Iterator[Input]:
  """Wrong values in what a study's get_config() returns, and in a config.json."""
  others = ('extra', 'train.extra', 'encoding.base', 'encoding.scaling', 'model', 'eval')
  for path in (*FIELDS, *others):
    for number, value in enumerate(OBJECTS):

      def returned(_, path=path, value=value):
        run = config.load(BASE, tiny(corpus))
        section = run
        *sections, key = path.split('.')
        for name in sections:
          section = section[name]
        with section.unlocked(), section.ignore_type():
          if key in section:
            del section[key]  # else ConfigDict casts the value
          section[key] = value
        check(run)

      yield Input('configs', f'{path}=object {number}', returned)

      def saved(folder, path=path, value=value):
        tree = config.to_json(config.load(BASE, tiny(corpus)))
        section = tree
        *sections, key = path.split('.')
        for name in sections:
          section = section[name]
        section[key] = value
        run_dir = folder.parent / 'saved'
        run_dir.mkdir()
        try:
          text = json.dumps(tree, skipkeys=True, default=str)
        except RecursionError:  # Python 3.11 writes no JSON as deep as the deepest of OBJECTS
          text = '[' * DEEP
        (run_dir / 'config.json').write_text(text)
        main_of('eval.py')([f'--workdir={run_dir}'])

      if number % 2:  # half of them: most values are no JSON, or the same as above
        yield Input('saved runs', f'{path}=object {number}', saved)


def _of_hyperparameters(corpus: Path) -> Iterator[Input]:
  """Wrong hyperparameters of every encoding, alone and inside others."""

  def built(section):
    return lambda _: check(config.load(BASE, {**tiny(corpus), 'encoding': section}))

  values = (
    None, True, -1, 0, 1, 3, 2**31 - 1, 10**400, -1.5, 0.0, 1e38, 1e-38, float('nan'), 'x', '', (),
    (1,), ('rope', 5), {}, {'name': 'rope'}, {'name': 'x'}, {'rope_type': 'yarn'}, 'chain', 'rope',
    {'rope_type': 'yarn', 'factor': -1}, {'type': 5}, {'rope_type': [], 'factor': 'x'}, (None,),
  )  # fmt: skip
  others = ('nothing', 'heads', 'rngs', 'self', 'dims', 'name_')
  for name in encodings.ENCODINGS:
    for key in (*encodings.hyperparameters(name), *others):
      for value in values:
        section = {'name': name, key: value}
        yield Input('hyperparameters', errors.shown(section), built(section))
  specs = (
    5, None, 'x', '', {}, {'name': 5}, {'name': 'rope', 'base': 'x'}, {'base': 5}, 'chain', [], 1.5,
    {'name': 'pattern'}, {'name': 'rope', 'attention_window': -1}, {'name': 'rope', 5: 5}, 'pose',
  )  # fmt: skip
  for spec in specs:
    for holder in (spec, (spec,), ['rope', spec], (spec, spec), {'a': spec}):
      for section in (
        {'name': 'pattern', 'layers': holder},
        {'name': 'chain', 'members': holder},
        {'name': 'pose', 'inner': holder},
        {'name': 'random_positions', 'inner': holder},
        {'name': 'pattern', 'layers': ({'name': 'chain', 'members': holder}, 'rope')},
      ):
        yield Input('compositions', errors.shown(section), built(section))


def _of_flags(call, good: list[str]) -> Iterator[Input]:
  """Wrong flags of the scripts."""
  study = f'--config={BASE.with_name("quick.py")}'
  scripts = {
    'train.py': [],
    'eval.py': [],
    'scripts/sweep.py': [study, '--out=OUT/out'],
    'scripts/lr_grid.py': [study, '--out=OUT/out', '--save=OUT/rates.json'],
    'scripts/generate.py': ['--workdir=OUT'],
    'scripts/table.py': [],
    'scripts/figures.py': ['--encoding=rope', '--out=OUT/out'],
    'scripts/html_report.py': ['OUT', '--out=OUT/page.html'],
    'scripts/explain.py': good,
    'scripts/prepare_data.py': [],
    'scripts/bench.py': ['--out=OUT/bench', '--attention', '--encodings=nope', '--lengths=8'],
    'scripts/step_times.py': [study, '--out=OUT/out'],
    'scripts/ngram.py': [*good, '--workdir=OUT/run'],
    'scripts/import_model.py': ['--source=OUT', '--workdir=OUT/run'],
    'scripts/export_model.py': ['--workdir=OUT', '--out=OUT/out'],
    'scripts/keep.py': ['OUT', '--out=OUT/out'],
    'scripts/board.py': ['OUT', '--out=OUT/out'],
  }
  bare = (
    '', '-', '--', '---', '-x', '--x', '--=', '--config.', '--config', '--train.steps=5', 'a\0b',
    '\x1b[0m', 'x' * 9000, '--encoding.name=rope', '--steps=5', '\ud800', 'a\nb', '--' + 'x' * 999,
  )  # fmt: skip
  for script, before in scripts.items():
    for name in flags_taken(script, before):
      for word in WORDS:
        if not (name == 'corpus' and set(word) == {'/'}):
          flag = f'--{name}={word}'
          yield Input('flags', f'{script} {flag}', call(script, *before, flag))
    for word in bare:
      yield Input('flags', f'{script} {word}', call(script, *before, word))
  specs = ('rope/', '/', 'rope/base', 'rope/base=', f'rope/base={"9" * 400}', 'rope/=3', 'x')
  for spec in (*specs, 'rope/a.b=1'):
    for script, before in (('bench', ['--attention', '--lengths=8']), ('figures', [])):
      words = [*before, '--out=OUT/x', f'--encodings={spec}' if before else f'--encoding={spec}']
      yield Input('flags', f'{script} {spec}', call(f'scripts/{script}.py', *words))
  fields = 'data.tokenizer data.vocab data.text_field data.cache eval.lengths data.corpus'
  for field in fields.split():
    for word in WORDS:
      prepared = call('scripts/prepare_data.py', *good, f'--config.{field}={word}')
      if not (field == 'data.corpus' and set(word) == {'/'}):
        yield Input('flags', f'prepare_data --config.{field}={word}', prepared)


def _of_tasks(train) -> Iterator[Input]:
  """Wrong values of every option of the tasks."""
  values = (
    '0', '-1', '1', '1.5', 'x', '', 'None', 'True', '9' * 20, '9' * 400, 'nan', '()', '1e999',
    '-' * 900,
  )  # fmt: skip
  for name in tasks.TASKS:
    for key in (*tasks.options(name), 'nothing'):
      for value in values:
        corpus = f'task:{name}/{key}={value}'
        words = [f'--config.data.corpus={corpus}', '--config.eval.protocols=answers']
        words += ['--config.train.length=64', '--config.eval.lengths=64,']
        yield Input('tasks', corpus, train(*words, '--config.eval.controls=()'))


def outcome(of: Input, seconds: float) -> tuple[str, str]:
  """How an input ends, one of ENDS, and its message."""
  with tempfile.TemporaryDirectory() as root:
    folder = Path(root) / 'in' / 'work'  # so that ../.. is within `root`
    folder.mkdir(parents=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
      with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        errors.disk_errors(),
      ):
        of.run(folder)
      end, message = 'taken', ''
    except (errors.UserError, errors.Stopped) as error:
      message = str(error)
      is_line = message.isprintable() and len(message) <= LONGEST_MESSAGE
      end = 'one line' if is_line else 'many lines'
      if any(folder.iterdir()):
        end = 'left files'
    except SystemExit as error:
      end, message = ('many lines' if isinstance(error.code, str) else 'taken'), str(error.code)
    except Hang:
      end, message = 'hang', ''
    except Exception:
      end, message = 'traceback', traceback.format_exc()
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0)
  return end, message


@contextlib.contextmanager
def work_left_out() -> Iterator[None]:
  """Replaces what takes long after an input was taken."""

  def check_runs(path, runs, kept=''):
    del path
    if refused := preflight.check_all([(config.to_json(run.config), []) for run in runs]):
      raise errors.UserError(refused[1])

  def build_only(spec, length, samples, seed, **sizes):
    del length, samples
    profiles.from_spec(spec, seed=seed, **sizes)

  from scripts import prepare_data, step_times
  from scripts.bench import command

  nothing = lambda *_, **__: {}
  with contextlib.ExitStack() as stack:
    for owner, name, replacement in (
      (loop, 'train', check),
      (evaluate, 'evaluate', check),
      (sweeping, 'check_runs', check_runs),
      (lr_grid, 'check_runs', check_runs),
      (lr_grid, 'last_validation', lambda run: 1.0),
      (sweep.local, 'execute', nothing),
      (sweep.slurm, 'execute', nothing),
      (profile_figure, 'draw', build_only),
      (mpl_figures, 'save', nothing),
      (command, 'measure', lambda *_: sys.exit(0)),
      (step_times, 'measure', nothing),
      (prepare_data, 'describe_history', nothing),
      (prepare_data, 'describe_overlap', nothing),
      (devices, 'enable_compilation_cache', nothing),
      (devices, 'announce_devices', nothing),
    ):
      stack.enter_context(mock.patch.object(owner, name, replacement))
    yield


def run_all(
  count: int, seed: int, kinds: list[str], seconds: float
) -> tuple[collections.Counter, list]:
  """Runs `count` inputs (0: all) of these kinds ([]: all).

  Returns:
    How many inputs of each (kind, end), and (input, end, message) of those that end badly.
  """

  def on_alarm(*_):
    raise Hang

  counts, bad = collections.Counter(), []
  before = signal.signal(signal.SIGALRM, on_alarm)
  try:
    with tempfile.TemporaryDirectory() as root, work_left_out():
      chosen = list(inputs(good_corpus(Path(root) / 'corpus')))
      if unknown := {*kinds} - {of.kind for of in chosen}:
        known = {of.kind for of in chosen}
        raise errors.UserError(f'--kinds={min(unknown)}: {errors.nearest(min(unknown), known)}')
      chosen = [of for of in chosen if of.kind in (kinds or [of.kind])]
      chosen = _drawn(chosen, count, random.Random(seed)) if count else chosen
      for of in chosen:
        end, message = outcome(of, seconds)
        counts[of.kind, end] += 1
        if end not in GOOD_ENDS:
          bad.append((of, end, message))
  finally:
    signal.signal(signal.SIGALRM, before)
  return counts, bad


def _drawn(chosen: list[Input], count: int, rng: random.Random) -> list[Input]:
  """`count` inputs, as many of each kind as it has."""
  by_kind = collections.defaultdict(list)
  for of in chosen:
    by_kind[of.kind].append(of)
  for of_kind in by_kind.values():
    rng.shuffle(of_kind)
  turns = [
    of_kind[n] for n in range(len(chosen)) for of_kind in by_kind.values() if n < len(of_kind)
  ]
  return turns[:count]


def table(counts: collections.Counter) -> str:
  """The counts as text, a line a kind."""
  kinds = dict.fromkeys(kind for kind, _ in counts)
  lines = [f'{"kind":16}' + ''.join(f'{end:>12}' for end in ENDS) + f'{"all":>8}']
  for kind in (*kinds, 'all'):
    row = [
      sum(n for (k, e), n in counts.items() if e == end and kind in (k, 'all')) for end in ENDS
    ]
    lines.append(f'{kind:16}' + ''.join(f'{n:>12}' for n in row) + f'{sum(row):>8}')
  return '\n'.join(lines)


def main(argv: list[str]) -> int:
  defaults = {'count': 0, 'seed': 0, 'kinds': '', 'seconds': 20.0}
  flags, _ = cli.parse_args(argv, defaults, takes_overrides=False)
  if flags.count < 0 or flags.seconds <= 0:
    raise errors.UserError(
      f'{" ".join(argv)}; allowed: --count=0 or more, --seconds more than 0, --seed, --kinds'
    )
  kinds = [kind for kind in flags.kinds.split(',') if kind]
  counts, bad = run_all(flags.count, flags.seed, kinds, flags.seconds)
  for of, end, message in bad:
    print(f'{end}: {of.kind}: {errors.shown(of.words)}\n{message[-1500:]}')
  print(table(counts))
  return 1 if bad else 0


if __name__ == '__main__':
  cli.main(main)
