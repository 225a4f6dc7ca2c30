"""Runs of no steps that take all parameters from another run: they say which, and save none."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import BASE, TINY, write_text_corpus

from posenc_jax import config, storage
from posenc_jax.errors import UserError
from posenc_jax.evaluation import generation
from posenc_jax.evaluation.evaluate import evaluate
from posenc_jax.evaluation.runs import load_run, parameters_of
from posenc_jax.pretrained import exporting
from posenc_jax.training import loop, run_dir, setup
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.taken_parameters import parameters_in

FEW = {'train.steps': 2, 'train.checkpoint_every': 2, 'train.max_to_keep': 1, 'optim.warmup': 0}
FEW |= {'eval.documents': 1, 'eval.protocols': ('last_k',), 'eval.controls': ()}
FEW |= {'model.mlp': 'swiglu'}  # as families have it
SCALED = {'encoding': {'name': 'rope', 'scaling': {'rope_type': 'linear', 'factor': 2}}}
CHAIN = {'encoding': {'name': 'chain', 'members': ('t5', 'logn')}}


def made(folder, corpus, start='', **changes):
  """A run that has ended; of no steps if it starts from another."""
  settings = {**TINY, **FEW, 'data.corpus': corpus} | changes
  if start:
    settings |= {'train.init_from': str(start), 'train.steps': 0}
  c = config.load(BASE, settings)
  loop.train(c, folder)
  return c


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(the folder of a trained run with T5's bias, its corpus)."""
  folder = tmp_path_factory.mktemp('trained')
  corpus = write_text_corpus(folder / 'text')
  made(folder / 'run', corpus, **{'encoding.name': 't5'})
  return folder / 'run', corpus


@pytest.fixture
def start(trained, tmp_path, monkeypatch):
  """A copy of it in the folder that tests run in; (its path, its corpus)."""
  monkeypatch.chdir(tmp_path)
  shutil.copytree(trained[0], 'start')
  return Path('start'), trained[1]


def has_arrays(run):
  return [file.name for file in Path(run, 'checkpoints').iterdir()] != ['taken.json']


def nats(run):
  return [row['nats'] for row in storage.read_rows(Path(run) / 'eval.jsonl')]


def test_a_chain_laid_over_a_run_keeps_its_parameters(start):
  """They are those of a run of no steps; refused where parameters would be new, or left over."""
  folder, corpus = start
  made('chain', corpus, folder, **CHAIN)
  laid = lambda members: load_run(folder, {'encoding.name': 'chain', 'encoding.members': members})
  tokens = np.arange(32)[None] % 7
  nats = laid('t5,logn').nats(tokens)
  np.testing.assert_array_equal(nats, load_run('chain').nats(tokens))
  assert np.abs(nats - load_run(folder).nats(tokens)).max() > 1e-4  # past the training length
  for members in ('t5,fox', 'alibi,logn'):
    with pytest.raises(UserError, match='holds model encodings/variants/0/encoding/'):
      laid(members)


def test_nothing_is_drawn_read_or_written(start, monkeypatch, capsys):
  """Also where parameters of the other run are dropped, as T5's table for RoPE in its place."""
  folder, corpus = start
  with monkeypatch.context() as patch:
    for name in ('build', 'finished_parameters', 'filled'):
      patch.setattr(setup, name, lambda *_: pytest.fail('made arrays'))
    for name, changes in (('same', {'encoding.name': 't5'}), ('other', SCALED), ('chain', CHAIN)):
      made(name, corpus, folder, **changes)
      assert not has_arrays(name)
      made(name, corpus, folder, **changes)  # it goes on, and is finished
  table = 'encodings/variants/0/encoding/table'
  assert f'start has {table}: dropped\n' in capsys.readouterr().out
  own, there = parameters_in('chain'), parameters_in(folder)
  assert own.step == parameters_in('chain', at=0).step == 0  # of which its rows say that they are
  with pytest.raises(UserError, match='no checkpoint of step 4; allowed: 0, for it makes no steps'):
    parameters_in('chain', at=4)
  for path, leaf in own.leaves.items():
    np.testing.assert_array_equal(leaf, there.leaves[path.replace('members/0/', '')])
  assert own.leaves.keys() >= {table.replace('/table', '/members/0/table')}


def test_a_training_draws_no_parameters_where_all_are_those_of_its_start(start, monkeypatch):
  folder, corpus = start
  changes = {'data.corpus': corpus, 'encoding.name': 't5', 'train.init_from': str(folder)}
  c = config.load(BASE, {**TINY, **FEW, **changes})
  monkeypatch.setattr(setup, 'build', lambda *_: pytest.fail('drew parameters'))
  found = leaves_by_path(setup.prepare(c, Path('run')).model)
  there = parameters_in(folder).leaves
  assert found.keys() == there.keys()
  for path, leaf in there.items():
    np.testing.assert_array_equal(found[path], leaf)


@pytest.mark.ci
def test_scores_are_those_of_saved_arrays(start, monkeypatch):
  """Scores of eval.py, text, parameters and exports, in a chain of runs, too."""
  folder, corpus = start
  made('taken', corpus, folder, **SCALED)
  made('further', corpus, 'taken', **SCALED)
  with monkeypatch.context() as patch:
    patch.setattr(setup, 'all_taken', lambda *_: None)  # as runs of before had them
    c = made('saved', corpus, folder, **SCALED)
  assert (has_arrays('taken'), has_arrays('further'), has_arrays('saved')) == (False, False, True)
  found = []
  for name in ('saved', 'taken', 'further'):
    c = config.saved_config(name)
    evaluate(c, name)
    assert run_dir.is_finished(name, config.config_hash(c))
    texts = generation.generate(c, Path(name), b'the', 4, generation.Sampling(0.0, 0, 1.0, 0))
    exporting.export_run(c, Path(name), Path(f'{name} out'), 'float32')
    weights = Path(f'{name} out', 'model.safetensors').read_bytes()
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(load_run(name).model)]
    found.append((nats(name), b''.join(texts), weights, leaves))
    (row, *_) = storage.read_rows(Path(name) / 'eval.jsonl')
    assert (row['step'], row['parameters']) == (0, {'run': 'start', 'step': 2})
  assert found[0] == found[1] == found[2]
  assert len(found[0][0]) > 1


def test_rows_name_the_run_and_step_that_the_parameters_are_of(start):
  """Also where another run lies by now where the config says, of other parameters."""
  folder, corpus = start
  c = made('run', corpus, folder, **SCALED)
  for name in ('start', 'run'):
    shutil.copytree(name, Path('archive', name))
  made('start', corpus, **{'encoding.name': 't5', 'train.steps': 4})
  evaluate(c, 'archive/run')
  rows = storage.read_rows(Path('archive', 'run', 'eval.jsonl'))
  assert [row['parameters'] for row in rows] == [{'run': 'start', 'step': 2}] * len(rows) != []


def test_a_run_of_new_parameters_needs_none_of_those_before(start):
  """Its rows name the last run that is known."""
  folder, corpus = start
  made('middle', corpus, folder, **SCALED)
  c = made('run', corpus, 'middle', **{'encoding.name': 'fox'})
  shutil.rmtree(folder)
  evaluate(c, 'run')
  rows = storage.read_rows(Path('run', 'eval.jsonl'))
  assert [row['parameters'] for row in rows] == [{'run': 'middle', 'step': 0}] * len(rows) != []


def test_new_parameters_are_saved(start):
  folder, corpus = start
  made('run', corpus, folder, **{'encoding.name': 'fox'})
  assert has_arrays('run')


@pytest.mark.ci
def test_a_run_is_extended_from_what_it_takes(start):
  """As one that begins with these steps; once it has checkpoints of its own, the other may go."""
  folder, corpus = start
  made('run', corpus, folder, **SCALED)
  settings = {**TINY, **FEW, 'data.corpus': corpus, **SCALED, 'train.init_from': str(folder)}
  extended = config.load(BASE, settings)
  loop.train(extended, 'run')
  loop.train(extended, 'at_once')
  read = lambda run: Path(run, 'metrics.jsonl').read_text()
  assert read('run') == read('at_once') != ''
  assert parameters_in('run').step == 2
  shutil.rmtree(folder)
  loop.train(extended, 'run')
  evaluate(extended, 'run')
  assert len(nats('run')) > 1


@pytest.mark.ci
def test_the_other_run_must_be_as_it_was(start, tmp_path, monkeypatch):
  folder, corpus = start
  c = made('run', corpus, folder, **SCALED)
  evaluate(c, 'run')
  expected = storage.read_rows(Path('run', 'eval.jsonl'))

  def refused(words):
    for ask in (
      lambda: evaluate(c, 'run'),
      lambda: loop.train(c, 'run'),
      lambda: load_run('run'),
      lambda: exporting.export_run(c, Path('run'), Path('out'), 'float32'),
    ):
      with pytest.raises(UserError, match=words) as error:
        ask()
      assert '\n' not in str(error.value)

  where = "workdir='run': its parameters are those of start, which "
  as_then = '; allowed: that run as it was then'
  Path('start').rename('away')
  refused(f'{where}is gone{as_then}')
  more = {'encoding.name': 't5', 'train.steps': 4}
  made('start', corpus, **more)
  refused(rf'{where}has others now \(step 4, step 2 then\){as_then}')
  shutil.rmtree('start')
  made('start', corpus, **more | {'train.steps': 2, 'seed': 5})  # another of as many steps
  refused(rf'{where}has others now \(step 2, step 2 then\){as_then}')
  shutil.rmtree('start')
  Path('away').rename('start')
  evaluate(c, 'run')
  (tmp_path / 'moved').mkdir()
  for name in ('start', 'run'):
    Path(name).rename(tmp_path / 'moved' / name)
  monkeypatch.chdir('/')
  moved = tmp_path / 'moved' / 'run'
  (moved / 'eval.jsonl').unlink()
  evaluate(c, moved)
  assert storage.read_rows(moved / 'eval.jsonl') == expected  # whose parameters they are, too


def test_damage_is_named(start):
  folder, corpus = start
  c = made('run', corpus, folder, **SCALED)
  path = Path('run', run_dir.TAKEN)
  whole = path.read_text()
  path.write_text(whole.replace('"step":2', '"step":3').replace('"step": 2', '"step": 3'))
  with pytest.raises(UserError, match=r'taken\.json is damaged: its check differs'):
    evaluate(c, 'run')
  said = {name: value for name, value in json.loads(whole).items() if name != 'crc'}
  storage.write_json(path, said | {'paths': dict.fromkeys(said['paths'], 'nowhere')})
  with pytest.raises(UserError, match=r'taken\.json is damaged: paths=nowhere; allowed: '):
    evaluate(c, 'run')
  path.write_text(whole)
  data = next(file for file in Path('start/checkpoints/2/model').rglob('d/*') if file.is_file())
  data.write_bytes(bytes(len(data.read_bytes())))
  with pytest.raises(UserError, match=r'start/checkpoints: every checkpoint is damaged'):
    evaluate(c, 'run')


def test_scores_without_what_they_are_of_begin_no_run(start):
  folder, corpus = start
  c = made('run', corpus, folder, **SCALED)
  evaluate(c, 'run')
  shutil.rmtree('run/checkpoints')
  with pytest.raises(UserError, match='its checkpoints are gone, but eval'):
    loop.train(c, 'run')


def test_a_run_starts_from_any_checkpoint_of_another(trained, tmp_path, monkeypatch):
  """Of no steps or some; also of one that did not finish. Text and exports are of any, too."""
  monkeypatch.chdir(tmp_path)
  corpus, rope = trained[1], {'encoding.name': 'rope'}
  made('long', corpus, **rope, **{'train.steps': 4, 'train.keep_every': 2})
  at_2 = {**rope, 'train.init_step': 2}
  made('taken', corpus, 'long', **at_2)
  going_on = {**TINY, **FEW, **at_2, 'data.corpus': corpus, 'train.init_from': 'long'}
  begun = leaves_by_path(setup.prepare(config.load(BASE, going_on), Path('run')).model)
  there, last = (parameters_in('long', at=step).leaves for step in (2, 4))
  for path, leaf in parameters_in('taken').leaves.items():
    np.testing.assert_array_equal(leaf, there[path])
    np.testing.assert_array_equal(begun[path], leaf)
  assert (there['embedding'] != last['embedding']).any()
  assert parameters_of(Path('taken')) == {'run': 'long', 'step': 2}
  text = lambda run, at: generation.generate(
    config.saved_config(run), run, b'the', 4, generation.Sampling(0.0, 0, 1.0, 0), at=at
  )
  assert [*text('long', 2)] == [*text('taken', None)]
  for run, at in (('long', 2), ('taken', None)):
    exporting.export_run(config.saved_config(run), Path(run), Path(f'{run} out'), 'float32', at)
  weights = [Path(f'{run} out', 'model.safetensors').read_bytes() for run in ('long', 'taken')]
  assert weights[0] == weights[1]
  shutil.rmtree('long/checkpoints/4')
  made('further', corpus, 'long', **at_2)
  words = r'init_step=3: long has no checkpoint of that step; allowed: 0, for its last one, 2$'
  with pytest.raises(UserError, match=words):
    made('none', corpus, 'long', **rope, **{'train.init_step': 3})
  shutil.rmtree('long/checkpoints/2')
  with pytest.raises(UserError, match=r'long, which has others now \(no checkpoint, step 2 then\)'):
    parameters_in('taken')
