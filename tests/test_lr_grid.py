"""A learning rate for each line of a study: the grid, the choice, and how studies read it."""

import math
from types import SimpleNamespace

import pytest
from small_runs import BASE, TINY, dotted

from posenc_jax import storage, sweep
from posenc_jax.config import load, product, saved_config, vary, with_rates
from posenc_jax.errors import Stopped, UserError
from posenc_jax.rows import sessions
from posenc_jax.storage import REPOSITORY
from posenc_jax.sweep import lr_grid
from posenc_jax.sweep.lr_grid import RateCurve, choose_rates

NEVER = math.inf
# Trains in no time: bits by how far the rate is from the best one of the encoding; too large a rate
# diverges. It leaves what train.py and eval.py leave.
TRAIN = """
import math, sys
from pathlib import Path
from posenc_jax import cli, config, errors, storage
from posenc_jax.training import run_dir

flags, overrides = cli.parse_args(sys.argv[1:], dict.fromkeys(('config', 'workdir', 'planned'), ''))
run, workdir = config.load(flags.config, overrides), Path(flags.workdir)
storage.write_json(workdir / 'config.json', config.to_json(run))
with open(workdir / 'calls.txt', 'a') as file:
  print(run.eval.split, run.seed, file=file)
rate, best = run.optim.learning_rate, {'rope': 0.012, 'alibi': 0.0031, 'nope': 0.001}
if rate > 0.01 and run.encoding.name == 'nope':
  sys.exit(f'train.py: {errors.not_finite("step 3: loss is nan")}')
if run.encoding.name == 'broken':
  sys.exit('bad luck')
bits = 2 + 0.1 * math.log2(rate / best[run.encoding.name]) ** 2
rows = [{'step': 1, 'split': 'validation', 'bpb': 1.0}, {'step': 60, 'loss': 1.0, 'bpb': 1.0}]
rows.append({'step': run.train.steps, 'split': 'validation', 'bpb': bits})
storage.append_rows(workdir / 'metrics.jsonl', rows)
(workdir / 'checkpoints' / str(run.train.steps)).mkdir(parents=True, exist_ok=True)
run_dir.mark_finished(workdir, config.config_hash(run))
"""
STUDY = """
from posenc_jax.config import load, product, vary

def get_config():
  return load({base!r}, {{'train.steps': 60, 'optim.learning_rate': 0.003, 'seeds': (4, 5)}})

def sweep():
  return product(vary('encoding.name', *{names!r}), vary('train.batch', 2), vary('seed', 0, 1))
"""


def complete(bits_of, stated=0.004) -> RateCurve:
  """The curve when nothing is missing, of bits that are a function of the rate."""
  curve = RateCurve({'encoding.name': 'rope'}, stated)
  while missing := curve.missing():
    curve.bits |= {rate: bits_of(rate) for rate in missing}
  return curve


def test_lines_are_those_of_the_sweep_or_of_lines(tmp_path):
  board = lr_grid.lines_of(REPOSITORY / 'configs' / 'studies' / 'board.py')
  assert len(board) == 29
  assert all('seed' not in line for line in board)
  for returns, reason in (('1 / 0', 'ZeroDivisionError'), ('None', 'returns None; allowed: 1 to')):
    study = tmp_path / f'{len(reason)}.py'
    text = STUDY.format(base=str(BASE), names=('rope', 'alibi'))
    study.write_text(f'{text}\ndef lines():\n  return {returns}\n')
    with pytest.raises(UserError, match=reason):
      lr_grid.lines_of(study)


@pytest.mark.parametrize(
  ('bits', 'chosen', 'tried'),
  [
    ({1: 1.7, 2: 1.6, 4: 1.8}, 0.004, (0.002, 0.004, 0.008)),
    ({0.5: 1.7, 1: 1.691, 2: 1.7, 4: 1.8}, 0.004, (0.001, 0.002, 0.004, 0.008)),
    ({0.5: 1.7, 1: 1.689, 2: 1.7, 4: 1.8}, 0.002, (0.001, 0.002, 0.004, 0.008)),
    ({1: 1.9, 2: 1.8, 4: 1.7, 8: 1.6, 16: 1.65}, 0.016, (0.002, 0.004, 0.008, 0.016, 0.032)),
    ({1: 1.6, 2: 1.7, 4: NEVER, 0.5: 1.7}, 0.002, (0.001, 0.002, 0.004, 0.008)),
    (
      {0.25: 1.9, 0.5: 1.6, 1: NEVER, 2: NEVER, 4: NEVER},
      0.001,
      (0.0005, 0.001, 0.002, 0.004, 0.008),
    ),
    ({1: 1.7, 2: 1.7, 4: 1.7}, 0.004, (0.002, 0.004, 0.008)),
  ],
)
def test_the_grid_goes_on_at_its_edges_and_a_near_best_stated_rate_is_kept(bits, chosen, tried):
  """`bits` by multiples of half the stated rate."""
  curve = complete(lambda rate: bits[rate / 0.002])
  assert (curve.chosen, tuple(sorted(curve.bits)), curve.problem) == (chosen, tried, '')


@pytest.mark.parametrize(
  ('bits_of', 'words'),
  [
    (lambda rate: NEVER, 'encoding.name=rope: every rate from 6.25e-05 to 0.008 diverges'),
    (lambda rate: 1 / rate, 'encoding.name=rope: the best rate, 0.256, is still the last of the'),
    (lambda rate: rate, 'encoding.name=rope: the best rate, 6.25e-05, is still the last of the'),
  ],
)
def test_a_grid_without_a_best_rate_ends(bits_of, words):
  assert complete(bits_of).problem.startswith(words)


@pytest.fixture
def study(tmp_path, monkeypatch):
  """study(names, **overrides) chooses rates; its folder has study.py, out/ and rates.json."""
  monkeypatch.setattr(sweep.local, 'POLL', 0.01)
  monkeypatch.setattr(sweep.lr_grid, 'check_runs', lambda path, runs: None)
  (tmp_path / 'train.py').write_text(TRAIN)

  def choose(*names, **fields):
    path = tmp_path / 'study.py'
    path.write_text(STUDY.format(base=str(BASE), names=names))
    scripts = (tmp_path / 'train.py',)
    given = path, tmp_path / 'out', tmp_path / 'rates.json', dotted(fields), scripts
    return choose_rates(*given, seed=7, jobs=2)

  choose.folder = tmp_path
  return choose


def test_every_line_gets_a_rate_of_its_own_from_validation_alone(study, capsys):
  assert study('rope', 'alibi', 'nope') == 0
  printed = capsys.readouterr().out
  saved = storage.read_json(study.folder / 'rates.json')['lines']
  names = {name: f'encoding.name={name},train.batch=2' for name in ('rope', 'alibi', 'nope')}
  assert {name: saved[line]['rate'] for name, line in names.items()} == {
    'rope': 0.012,
    'alibi': 0.003,
    'nope': 0.00075,
  }
  assert list(saved[names['rope']]['bits']) == ['0.0015', '0.003', '0.006', '0.012', '0.024']
  calls = [path.read_text() for path in study.folder.glob('out/*/calls.txt')]
  assert calls == ['validation 7\n'] * 13
  assert '2.0000*' in printed
  assert 'kept' in printed

  assert study('rope', 'alibi', 'nope') == 0  # all is finished: nothing runs again
  assert [path.read_text() for path in study.folder.glob('out/*/calls.txt')] == calls
  assert storage.read_json(study.folder / 'rates.json')['lines'] == saved

  lines = product(vary('encoding.name', 'rope', 'alibi'), vary('train.batch', 2))
  assert with_rates(lines, study.folder / 'rates.json') == [
    {'encoding.name': 'rope', 'train.batch': 2, 'optim.learning_rate': 0.012},
    {'encoding.name': 'alibi', 'train.batch': 2, 'optim.learning_rate': 0.003},
  ]
  other = vary('encoding.name', 'rope')
  with pytest.raises(UserError, match=r'rates.json has None for encoding.name=rope; allowed: a'):
    with_rates(other, study.folder / 'rates.json')
  with pytest.raises(UserError, match=r'--out=\S+: \S+ is of fewer steps; allowed: another'):
    study('rope', train__steps=70)


def test_lines_of_other_lengths_are_evaluated_each_at_its_own_and_at_all_depths(study, tmp_path):
  """Lines on different tasks may have no length in common. The runs of one are the same beside the
  other.
  """
  path = tmp_path / 'tasks.py'
  text = f"""{STUDY.format(base=str(BASE), names=('rope',))}
def lines():
  parity = {{'data.corpus': 'task:parity', 'train.length': 20}}
  words = {{'data.corpus': 'task:common_words', 'train.length': 60}}
  needle = {{'data.corpus': 'task:needle', 'train.length': 80}}
  return product([parity, words, needle], vary('eval.protocols', ('answers',)))
"""
  scripts, out = (tmp_path / 'train.py',), tmp_path / 'out'
  given = {'encoding.name': 'rope'}
  calls = lambda: {file: file.read_text() for file in out.glob('*/calls.txt')}
  path.write_text(text.replace('[parity, words, needle]', '[parity]'))
  assert choose_rates(path, out, tmp_path / 'rates.json', given, scripts) == 0
  alone = calls()
  path.write_text(text)
  assert choose_rates(path, out, tmp_path / 'rates.json', given, scripts) == 0
  of_parity = {file: text for file, text in calls().items() if 'parity' in file.parent.name}
  assert of_parity == alone
  found = {
    (c.train.length, *c.eval.lengths, c.eval.target_context, c.eval.k, c.eval.examples)
    for c in (saved_config(file.parent) for file in out.glob('*/config.json'))
  }
  assert found == {(20, 20, 20, 20, 1), (60, 60, 60, 60, 1), (80, 80, 80, 64, 11)}


def test_where_all_diverge_the_grid_goes_down_and_a_stated_rate_may_be_given(study, monkeypatch):
  """What has diverged is not tried again, but checked: its encoding may have been edited since."""
  assert study('nope', optim__learning_rate=0.024) == 0
  (line,) = storage.read_json(study.folder / 'rates.json')['lines'].values()
  assert line['rate'] == 0.00075
  assert line['bits']['0.048'] is None
  calls = [path.read_text() for path in study.folder.glob('out/*/calls.txt')]
  checked = []
  check = lambda path, runs: checked.extend(run.config.optim.learning_rate for run in runs)
  monkeypatch.setattr(sweep.lr_grid, 'check_runs', check)
  assert study('nope', optim__learning_rate=0.024) == 0
  assert [path.read_text() for path in study.folder.glob('out/*/calls.txt')] == calls
  assert {f'{rate:g}' for rate in checked} == line['bits'].keys()


def test_what_other_code_made_diverge_is_tried_again(study, monkeypatch):
  called = lambda: sorted(
    len(path.read_text().splitlines()) for path in study.folder.glob('out/*/calls.txt')
  )
  assert study('nope', optim__learning_rate=0.006) == 0
  assert called() == [1] * 6
  sessions.add(study.folder.glob('out/*/'), sessions.TRAINING, '1 x cpu')
  assert study('nope', optim__learning_rate=0.006) == 0
  assert called() == [1] * 6
  monkeypatch.setattr(sessions, 'package_hash', lambda: 'f' * 64)
  assert study('nope', optim__learning_rate=0.006) == 0
  assert called() == [1, 1, 1, 1, 1, 2]  # the one rate that diverged


def test_where_no_rate_is_best_nothing_is_written(study):
  with pytest.raises(Stopped, match=r'^no rates are written: .*: every rate from .* diverges'):
    study('nope', optim__learning_rate=100.0)
  assert not (study.folder / 'rates.json').exists()


@pytest.mark.parametrize(
  'rows',
  [[], [{'step': 60, 'split': 'validation'}], [{'step': 50, 'split': 'validation', 'bpb': 2.0}]],
)
def test_a_run_without_its_last_validation_is_damaged(rows, tmp_path):
  storage.append_rows(tmp_path / 'metrics.jsonl', rows)
  run = SimpleNamespace(workdir=tmp_path, config=load(BASE, {'train.steps': 60}))
  with pytest.raises(
    storage.Damaged, match=r'metrics\.jsonl is damaged: no validation at step 60$'
  ):
    lr_grid.last_validation(run)


def test_a_run_that_fails_otherwise_is_named_and_nothing_is_written(study, capsys):
  assert study('broken') == 1
  assert (
    'failed: encoding.name=broken,train.batch=2,optim.learning_rate=0.0015: exit code 1: bad'
    in (capsys.readouterr().out)
  )
  assert not (study.folder / 'rates.json').exists()


def test_what_cannot_be_is_one_line(study, tmp_path):
  with pytest.raises(UserError, match=r'config.seed=3; allowed: --seed'):
    study('rope', seed=3)
  with pytest.raises(UserError, match=r'config.train.steps=0: without a loss to .*; allowed: 1 or'):
    study('rope', train__steps=0, train__init_from='runs/a')
  with pytest.raises(UserError, match=r'--save=\S+: what is there is no file; allowed'):
    choose_rates(tmp_path / 'study.py', tmp_path / 'out', tmp_path, {}, (tmp_path / 'train.py',))
  with pytest.raises(
    UserError,
    match=r'rates: no file .*; allowed: .* of a study with a function lines\(\), makes STUDY_rates',
  ):
    with_rates([{}], tmp_path / 'none.json')
  (tmp_path / 'none.json').write_text('{')
  with pytest.raises(UserError, match=r'none.json is damaged: .*; allowed: python scripts/lr_grid'):
    with_rates([{}], tmp_path / 'none.json')
  path = tmp_path / 'other.py'
  path.write_text(
    STUDY.format(base=str(BASE), names=('rope',))
    + "def lines():\n  return [{'optim.learning_rate': 1.0}]\n"
  )
  with pytest.raises(UserError, match=r'other.py: a line sets optim.learning_rate; allowed: lines'):
    lr_grid.lines_of(path)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('vmap_seeds', True),
    ('mesh.seeds', 2),
    ('eval.split', 'test'),
    ('eval.protocols', ('sliding',)),
    ('eval.controls', ('truncated',)),
    ('eval.documents', 3),
    ('eval.spans', 2),
    ('eval.lengths', (40,)),
    ('eval.target_context', 40),
    ('eval.examples', 7),
  ],
)
def test_what_the_grid_sets_is_not_said(study, field, value):
  words = rf'^config\.{field}=.*; allowed: without it, for the grid sets it$'
  with pytest.raises(UserError, match=words):
    study('rope', **{field.replace('.', '__'): value})


@pytest.mark.ci
def test_real_trainings_choose_and_a_sweep_reads_the_choice(tmp_path, corpus, command):
  path, file = tmp_path / 'study.py', tmp_path / 'rates.json'
  settings = {**TINY, 'data.corpus': corpus, 'eval.split': 'validation', 'eval.documents': 0}
  path.write_text(
    'from posenc_jax.config import load, product, vary, with_rates\n'
    f'def get_config():\n  return load({str(BASE)!r}, {settings!r})\n'
    "def lines():\n  return vary('encoding.name', 'alibi')\n"
    f"def sweep():\n  return product(with_rates(lines(), {str(file)!r}), vary('seed', 1))\n"
  )
  with pytest.raises(UserError, match='rates: no file'):
    sweep.plan(path, tmp_path / 'out', {})
  places = f'--config={path}', f'--out={tmp_path / "grid"}', f'--save={file}'
  code, _, err = command('scripts/lr_grid.py', *places, '--seed=3', '--jobs=2')
  assert not code, err
  saved = storage.read_json(file)
  (line,) = saved['lines'].values()
  assert saved['seed'] == 3
  assert len(line['bits']) >= 3
  (run,) = sweep.plan(path, tmp_path / 'out', {})
  assert run.config.optim.learning_rate == line['rate']
  assert run.name == f'encoding.name=alibi,optim.learning_rate={line["rate"]},seed=1'
