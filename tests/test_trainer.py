"""A training learns, repeats itself bit for bit, resumes where it was stopped, survives damage."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from compiled_models import nll, unrolls
from flax import nnx
from kinds import daily_if
from small_runs import BASE, STEPS, TINY, dotted, write_text_corpus

from posenc_jax import config, data, storage
from posenc_jax.encodings.kerple import KerpleLog
from posenc_jax.errors import Stopped, UserError
from posenc_jax.evaluation import evaluate, preflight
from posenc_jax.model.decoder import build
from posenc_jax.training import loop, run_dir, setup
from posenc_jax.training import optimizer as optimizers
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.init_from import filled
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns
from posenc_jax.training.taken_parameters import parameters_in


@pytest.fixture(scope='module')
def tiny(corpus):
  return config.load(BASE, {**TINY, 'data.corpus': corpus})


@pytest.fixture(scope='module')
def measured():
  """Numbers of the batches whose bytes `unbroken` has counted."""
  return []


@pytest.fixture(scope='module')
def unbroken(tiny, tmp_path_factory, measured):
  """The directory of a run that nothing interrupted."""
  workdir, count = tmp_path_factory.mktemp('runs') / 'unbroken', data.Batches.bytes_per_token
  with pytest.MonkeyPatch.context() as patch:
    listed = lambda self, n: (measured.append(n), count(self, n))[1]
    patch.setattr(data.Batches, 'bytes_per_token', listed)
    loop.train(tiny, workdir)
  return workdir


def metrics(workdir):
  return (workdir / 'metrics.jsonl').read_bytes()


def parameters(workdir, tiny):
  held = parameters_in(workdir)
  assert held.step == tiny.train.steps
  return filled(build(tiny, data.VOCAB, nnx.Rngs(7)), held.leaves)


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns_and_logs(unbroken, tiny, measured):
  rows = [json.loads(line) for line in metrics(unbroken).splitlines()]
  losses = [(row['step'], row['loss']) for row in rows if 'loss' in row]
  assert [step for step, _ in losses] == [1, 3, 6, 9, 12]
  # a step is logged after the next one is dispatched, and validation reads batches 0 and 1
  assert sorted(measured) == sorted([0, 2, 5, 8, 11] + 3 * [0, 1])
  assert losses[-1][1] < losses[0][1] - 1.0
  assert [row['step'] for row in rows if 'split' in row] == [4, 8, 12]
  assert [row['step'] for row in rows] == sorted(row['step'] for row in rows)
  for row in rows:
    if 'loss' in row:
      assert row['bpb'] == pytest.approx(row['loss'] / np.log(2))
      assert row['grad_norm'] > 0
  compiled, *timed = [
    json.loads(line) for line in (unbroken / 'timing.jsonl').read_text().splitlines()
  ]
  assert compiled['compile_seconds'] > 0
  assert compiled['parameters'] == sum(
    leaf.size for leaf in jax.tree.leaves(parameters(unbroken, tiny))
  )
  assert compiled['encoding_parameters'] == 0  # RoPE's
  assert all(row['tokens_per_second'] > 0 and row['peak_process_bytes'] > 2**20 for row in timed)


def test_a_validation_weighs_each_batch_by_the_tokens_that_count_in_it():
  """Batches of a task differ in them."""
  batches = [data.Batch(np.zeros((1, 4)), np.arange(4)[None] < count) for count in (1, 3)]
  of_task = type('TaskBatches', (list,), {'bytes_per_token': data.TaskBatches.bytes_per_token})
  training = SimpleNamespace(
    config=config.load(BASE, {'train.validate_batches': 2}),
    val_batches=of_task(batches),
    val_batch=lambda n: batches[n]._replace(scored_BT=(batches[n].scored_BT,)),
    put_val_batch=lambda batch: batch,
    val_step=lambda model, batch: [float(mask_BT.sum()) for mask_BT in batch.scored_BT],
    seed_runs=[None],
  )
  (found,) = loop._validate(training, None)
  assert found == {'bpb': pytest.approx((1 * 1 + 3 * 3) / 4 / np.log(2))}


BUSY = """
import hashlib, signal, time
from posenc_jax.training.stop_signal import StopRequest, stopped_by
with StopRequest() as stop_request:
  print(flush=True)
  while not stop_request.signal:
    time.sleep(0.01)
  error = stopped_by(stop_request.signal, 3)
  print(error, error.code, flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # minutes of C, as a long step may be
"""


@pytest.mark.parametrize(
  'numbers', [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)]
)
def test_the_first_signal_asks_and_the_second_ends_at_once(numbers):
  pipe = subprocess.PIPE
  command = [sys.executable, '-c', BUSY, '--a=b c']
  with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
    process.stdout.readline()
    process.send_signal(numbers[0])
    first = process.stdout.readline()
    process.send_signal(numbers[1])
    _, error = process.communicate(timeout=20)
  command = "go on with the same command: python -c '--a=b c'"
  assert first == f'{numbers[0].name}: step 3 is saved; {command} {128 + numbers[0]}\n'
  assert process.returncode == 128 + numbers[1]
  assert error == f'{numbers[1].name} again: ended at once; the same command goes on\n'


def test_documents_that_are_too_short_are_said_to_be_left_out(tiny, corpus, tmp_path, capsys):
  texts = shutil.copytree(corpus, tmp_path / 'texts')
  for number in range(3):
    (texts / 'train' / f'{number}.txt').write_text('x' * 15)
  (texts / 'validation' / 'short.txt').write_text('y')
  for packing in ('none', 'concatenated', 'separate'):
    changes = {**TINY, 'data.corpus': str(texts), 'data.packing': packing, 'train.steps': 2}
    loop.train(config.load(BASE, changes), tmp_path / packing)
    printed = capsys.readouterr().out
    for said in (
      'train: 1 of 4 documents (95.2 % of tokens) have 16 tokens or more; the others are left out',
      'validation: 1 of 2 documents (99.9 % of tokens) have 16 tokens or more; the others are',
    ):
      assert (said in printed) == (packing == 'none')
    # of 900 tokens; of 945 that are joined, and of 951, in every phase
    windows = {'none': 57, 'separate': 60, 'concatenated': 61}[packing]
    epochs = f'2 steps of 4 are {8 / windows:.2f} epochs'
    assert f'train: {windows} windows of 16 tokens an epoch; {epochs}\n' in printed
    assert 'some count more than once' not in printed
    assert 'nothing stands between documents' not in printed
  assert data.opened(tiny.data, 'train').left_out(16) is None


def test_documents_that_are_joined_with_nothing_between_are_said_to_be(tmp_path, capsys):
  """Their windows show no place at which one ends."""
  texts = {split: ('3 1 2 ' * 9, '0 4 ' * 9) for split in ('train', 'validation')}
  settings = {'data.corpus': write_text_corpus(tmp_path / 'texts', texts), 'train.steps': 1}
  settings |= {'data.tokenizer': 'integers', 'data.vocab': 5, 'data.packing': 'concatenated'}
  settings |= {'data.cache': str(tmp_path / 'cache'), 'optim.warmup': 0}
  loop.train(config.load(BASE, TINY | settings), tmp_path / 'run')
  said = 'train: nothing stands between documents: of an empty line the tokenizer makes no token\n'
  assert capsys.readouterr().out.count(said) == 1


SEPARATE = {'data.packing': 'separate', 'train.max_to_keep': 1}


@pytest.fixture(scope='module')
def short_texts(tmp_path_factory):
  """A folder of documents of which none fills a window."""
  draw = np.random.default_rng(0)
  texts = [bytes(draw.integers(97, 101, n, np.uint8)) for n in draw.integers(1, 15, 90)]
  splits = {'train': texts, 'validation': texts[:40]}
  return write_text_corpus(tmp_path_factory.mktemp('short'), splits)


@pytest.fixture(scope='module')
def apart(short_texts, tmp_path_factory):
  """The directory of a run on them, kept apart."""
  workdir = tmp_path_factory.mktemp('runs') / 'apart'
  loop.train(config.load(BASE, {**TINY, **SEPARATE, 'data.corpus': short_texts}), workdir)
  return workdir


def losses_by_themselves(model, batch):
  """The mean nats of the tokens of a batch, each document in a batch of its own."""
  alone = [nll(model, part_T[None]) for row in batch.documents() for part_T in row]
  assert len(alone) > len(batch.tokens_BT)
  return np.concatenate(alone, axis=1).mean()


@pytest.mark.parametrize(
  ('name', 'microbatches'),
  [
    ('learned', 2),
    *(
      pytest.param(*case, marks=pytest.mark.ci) for case in (('learned', 1), ('fox', 1), ('fox', 2))
    ),
  ],
)
def test_a_row_of_documents_that_are_apart_has_the_nats_of_each(name, microbatches, short_texts):
  """BOS stands before each; so it is in microbatches and in validation."""
  changes = {**TINY, **SEPARATE, 'data.corpus': short_texts, 'encoding.name': name}
  c = config.load(BASE, changes | {'train.grad_accum_steps': microbatches})
  corpus = data.opened(c.data, 'train')
  batch = corpus.batches(16, 4, seed=0)[0]
  model = build(c, data.VOCAB, nnx.Rngs(0))
  alone = losses_by_themselves(model, batch)
  optimizer = make_optimizer(c.optim, c.train.steps)
  train_step, val_step = make_step_fns(c, optimizer)
  assert val_step(model, batch) == pytest.approx(alone, abs=1e-5)
  *_, found = train_step(model, optimizer.init(model), batch)
  assert found['loss'] == pytest.approx(alone, abs=1e-5)


def test_validation_in_pieces_weighs_them_by_what_they_score(tiny):
  """Also where a piece scores nothing, as it may of names to recall."""
  c = tiny.copy_and_resolve_references()
  batch = data.opened(c.data, 'train').batches(16, 4, seed=0)[0]
  scored_BT = np.random.default_rng(0).random((4, 16)) < [[0.9], [0], [0.1], [0]]
  model, found = build(c, data.VOCAB, nnx.Rngs(0)), []
  for microbatches in (1, 2):
    c.train.grad_accum_steps = microbatches
    _, val_step = make_step_fns(c, make_optimizer(c.optim, c.train.steps))
    found.append([val_step(model, batch._replace(scored_BT=each)) for each in (None, scored_BT)])
    at_once = val_step(model, batch._replace(scored_BT=(None, scored_BT)))
    assert list(at_once) == found[-1]  # bit for bit
    memory = jax.make_jaxpr(val_step)(model, batch)
    assert ('f32[4,16,257]' in str(memory)) == (microbatches == 1)
  np.testing.assert_allclose(*found, rtol=1e-6)


def test_validation_loops_over_layers_that_training_unrolls(tiny, monkeypatch):
  c = tiny.copy_and_resolve_references()
  c.model.layers = 2
  batch = data.opened(c.data, 'train').batches(16, 4, seed=0)[0]
  model, optimizer = build(c, data.VOCAB, nnx.Rngs(0)), make_optimizer(c.optim, c.train.steps)
  train_step, val_step = make_step_fns(c, optimizer)
  assert unrolls(monkeypatch, val_step, model, batch) == {1}
  assert unrolls(monkeypatch, train_step, model, optimizer.init(model), batch) == {2}
  assert model.unroll == 2


@pytest.mark.ci
def test_documents_that_are_apart_are_validated_each_by_itself(apart, short_texts):
  rows = [json.loads(line) for line in metrics(apart).splitlines()]
  training = setup.prepare(
    config.load(BASE, {**TINY, **SEPARATE, 'data.corpus': short_texts}), apart
  )
  with setup.restored(training):
    batches = [training.val_batches[n] for n in range(2)]
    nats = np.mean([losses_by_themselves(training.model, batch) for batch in batches])
  assert rows[-1]['bpb'] == pytest.approx(nats / np.log(2), rel=1e-5)


def test_what_cannot_keep_documents_apart_is_said_before_the_run(short_texts, tmp_path):
  changes = {**TINY, **SEPARATE, 'data.corpus': short_texts}
  short = {'encoding.name': 'learned', 'encoding.max_length': 9}
  with pytest.raises(UserError, match=r'train.length=16: a document may fill a row, but positions'):
    loop.train(config.load(BASE, changes | short), tmp_path / 'run')
  with pytest.raises(UserError, match=r"packing='separate'; allowed: 'none' or 'concatenated' wi"):
    loop.train(config.load(BASE, changes | {'attention.backend': 'cudnn'}), tmp_path / 'run')
  with pytest.raises(UserError, match="packing='apart'; allowed: none, concatenated, separate"):
    loop.train(config.load(BASE, changes | {'data.packing': 'apart'}), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_finished_run_is_left_alone(unbroken, tiny, tmp_path, capsys):
  shutil.copytree(unbroken, tmp_path / 'run')
  changes = {'data.corpus': tiny.data.corpus, 'eval.k': 4, 'label': 'mine'}
  loop.train(config.load(BASE, {**TINY, **changes}), tmp_path / 'run')
  printed = capsys.readouterr().out
  assert f'training is finished ({STEPS} steps)' in printed
  kept = 'eval.k, label as the run was begun; give others to eval.py'
  assert f'{tmp_path / "run"}: {kept}\n' in printed
  for name in ('config.json', 'metrics.jsonl', 'timing.jsonl'):
    assert (tmp_path / 'run' / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_run_starts_from_the_parameters_of_another(unbroken, tiny, tmp_path, capsys):
  """It takes the parameters alone: steps and optimizer start anew. With 0 steps it ends at once."""
  changes = {
    'data.corpus': tiny.data.corpus,
    'train.init_from': str(unbroken),
    'encoding.name': 'rerope',
  }
  as_it_starts = config.load(BASE, {**TINY, **changes, 'train.steps': 0, 'optim.warmup': 9})
  config.validate(as_it_starts)
  loop.train(as_it_starts, tmp_path / 'zero')
  assert 'training is finished (0 steps)' in capsys.readouterr().out
  loop.train(as_it_starts, tmp_path / 'zero')
  zero, trained = parameters(tmp_path / 'zero', as_it_starts), parameters(unbroken, tiny)
  assert_same(jax.tree.leaves(zero), jax.tree.leaves(trained))

  on = config.load(
    BASE,
    {**TINY, **changes, 'encoding.name': 'rope', 'train.length': 32, 'train.init_from': 'zero'},
  )
  on.train.init_from = str(tmp_path / 'zero')
  loop.train(on, tmp_path / 'on')
  assert f'zero has train.length={tiny.train.length} (here 32), enc' in capsys.readouterr().out
  rows = [json.loads(line) for line in metrics(tmp_path / 'on').splitlines()]
  losses = [row['loss'] for row in rows if 'loss' in row]
  scratch = [
    row['loss'] for row in map(json.loads, metrics(unbroken).splitlines()) if 'loss' in row
  ]
  assert rows[0]['step'] == 1
  assert losses[0] < scratch[0] - 1.0
  assert rows[0]['learning_rate'] == pytest.approx(0.03 / 2)


@pytest.mark.parametrize(
  'form', ['now', *(pytest.param(form, marks=pytest.mark.ci) for form in ('arrays', 'moments'))]
)
def test_a_run_of_no_steps_needs_no_text_and_keeps_no_moments(
  form, unbroken, tiny, tmp_path, monkeypatch
):
  """Its text is that of the evaluation alone, and it is extended as any other run is."""
  test_only = write_text_corpus(tmp_path / 'texts', {'test': [b'What is read. ' * 9]})
  changes = {'data.corpus': str(test_only), 'train.init_from': str(unbroken), 'train.steps': 0}
  c = config.load(BASE, {**TINY, **changes, 'eval.documents': 1})
  assert preflight.check_all([(config.to_json(c), [])]) is None
  loop.train(c, tmp_path / 'zero')
  evaluate.evaluate(c, tmp_path / 'zero')
  assert [file.name for file in (tmp_path / 'zero' / 'checkpoints').iterdir()] == ['taken.json']

  changes |= {'data.corpus': tiny.data.corpus, 'eval.split': 'validation', 'eval.documents': 1}
  of_each = []
  for name in dict.fromkeys(('now', form)):
    c = config.load(BASE, {**TINY, **changes})
    if name != 'now':  # as runs of no steps were saved once
      monkeypatch.setattr(setup, 'all_taken', lambda *_: None)
    if name == 'moments':  # and before that
      monkeypatch.setattr(setup, 'NO_OPTIMIZER', make_optimizer(c.optim, 0))
    loop.train(c, tmp_path / name)
    if name == 'arrays':
      with Checkpoints(tmp_path / name) as checkpoints:
        assert checkpoints.as_saved('opt_state')[:2] == ({'count': 0}, 0)
    evaluate.evaluate(c, tmp_path / name)
    loop.train(config.load(BASE, {**TINY, **changes, 'train.steps': 4}), tmp_path / name)
    with Checkpoints(tmp_path / name) as checkpoints:
      saved, step, _ = checkpoints.as_saved('opt_state')
      assert (len(saved) > 2, step) == (True, 4)
    rows = storage.read_rows(tmp_path / name / 'eval.jsonl')
    of_each.append((metrics(tmp_path / name), [row['nats'] for row in rows]))
  assert all(of_each[0])
  assert of_each[0] == of_each[-1]


def test_a_run_starts_from_a_model_with_another_encoding_or_other_flags(
  unbroken, tiny, tmp_path, capsys
):
  """What is new is initialized, what is gone is dropped, and both are said."""

  def start(folder, source, **changes):
    settings = {'data.corpus': tiny.data.corpus, 'train.init_from': str(source), **TINY, **changes}
    c = config.load(BASE, settings | {'train.steps': 0, 'optim.warmup': 9})
    loop.train(c, tmp_path / folder)
    return parameters(tmp_path / folder, c), build(c, data.VOCAB, nnx.Rngs(c.seed))

  flags = {'encoding.name': 't5', 'model.qk_norm': 'head'}
  rich, new = start('rich', unbroken, **flags)
  trained, table = parameters(unbroken, tiny), 'encodings/variants/0/encoding/table'
  said = capsys.readouterr().out
  names = f'{table}, layers/k_norm/scale, layers/q_norm/scale'
  assert f'{unbroken} has no {names}: as a new model' in said
  encodings = "encoding={'name': 'rope'} (here {'name': 't5'})"
  assert f"{unbroken} has model.qk_norm='none' (here 'head'), {encodings}\n" in said
  assert_same([rich.layers.w_q[...]], [trained.layers.w_q[...]])
  of_table = lambda model: model.encodings.variants[0].encoding.table[...]
  assert_same([of_table(rich)], [of_table(new)])

  chain = {'encoding': {'name': 'chain', 'members': ('rope', 't5')}, 'model.qk_norm': 'head'}
  beside, _ = start('beside', tmp_path / 'rich', **chain, **{'model.unroll': 1})
  said = capsys.readouterr().out
  assert 'dropped' not in said
  assert 'unroll' not in said
  assert_same([beside.encodings.variants[0].encoding.members[1].table[...]], [of_table(rich)])

  back, _ = start('back', tmp_path / 'rich', **{'encoding.name': 'nope'})
  assert f'{tmp_path / "rich"} has {table}, layers/k_norm/scale, layers/q_norm/scale: dropped' in (
    capsys.readouterr().out
  )
  assert_same(jax.tree.leaves(back.layers), jax.tree.leaves(trained.layers))


def test_a_run_reads_on_where_the_one_that_it_starts_from_ended(
  unbroken, tiny, tmp_path, monkeypatch, capsys
):
  """An interrupted one, too; what is logged is of the batches that were read."""
  changes = {'data.corpus': tiny.data.corpus, 'train.init_from': str(unbroken)}
  on = config.load(BASE, {**TINY, **changes, 'train.first_batch': STEPS})
  read, measured = [], []

  def listing(numbers, of_batches):
    def listed(self, number):
      if self._corpus.split == 'train':
        numbers.append(number)
      return of_batches(self, number)

    return listed

  for method, numbers in (('__getitem__', read), ('bytes_per_token', measured)):
    monkeypatch.setattr(data.Batches, method, listing(numbers, getattr(data.Batches, method)))
  loop.train(on, tmp_path / 'on')
  epochs = f'{2 * STEPS * 4 / 58:.2f} epochs'  # an epoch has 58 windows, a batch 4
  said = f'; {STEPS} steps of 4 from batch {STEPS} on end after {epochs}\n'
  assert said in capsys.readouterr().out
  of_shapes, *of_steps = read
  assert of_shapes == 0
  assert of_steps == list(range(STEPS, 2 * STEPS))
  assert measured == [STEPS + step - 1 for step in (1, 3, 6, 9, 12)]
  rows = metrics(tmp_path / 'on')
  shutil.rmtree(tmp_path / 'on' / 'checkpoints' / str(STEPS))
  read.clear()
  loop.train(on, tmp_path / 'on')
  assert 'going on from step 8' in capsys.readouterr().out
  assert read[1:] == list(range(STEPS + 8, 2 * STEPS))
  assert metrics(tmp_path / 'on') == rows


def test_a_run_goes_on_without_what_it_started_from(unbroken, tiny, tmp_path, capsys):
  shutil.copytree(unbroken, tmp_path / 'source')
  changes = {'data.corpus': tiny.data.corpus, 'train.init_from': str(tmp_path / 'source')}
  on = config.load(BASE, {**TINY, **changes})
  loop.train(on, tmp_path / 'on')
  rows = metrics(tmp_path / 'on')
  shutil.rmtree(tmp_path / 'source')
  shutil.rmtree(tmp_path / 'on' / 'checkpoints' / str(STEPS))
  loop.train(on, tmp_path / 'on')
  assert 'going on from step 8' in capsys.readouterr().out
  assert metrics(tmp_path / 'on') == rows


def test_what_a_run_cannot_start_from_is_one_line_and_nothing_is_written(unbroken, tiny, tmp_path):
  half = tmp_path / 'half'
  run_dir.claim_run_dir(half, tiny)
  with Checkpoints(half, max_to_keep=1) as checkpoints:
    checkpoints.save(3, build(tiny, data.VOCAB, nnx.Rngs(0)), {'count': jnp.array(3)})
  run_dir.claim_run_dir(tmp_path / 'none', tiny)
  for start, changes, words in (
    (
      tmp_path / 'nowhere',
      {},
      'no config.json there; allowed: the directory of a run that train.py finished',
    ),
    (tmp_path / 'none', {}, f'its training is at step 0 of {STEPS}; allowed'),
    (half, {}, f'its training is at step 3 of {STEPS}; allowed'),
    (
      unbroken,
      {'model.mlp_dim': 8},
      r'asks for \(1, 16, 8\); allowed: a model of the same sizes: take model, .* from saved_',
    ),
  ):
    changes = {'data.corpus': tiny.data.corpus, 'train.init_from': str(start), **changes}
    with pytest.raises(UserError, match=words) as error:
      loop.train(config.load(BASE, {**TINY, **changes}), tmp_path / 'run')
    assert r'\n' not in str(error.value)
    assert str(start) in str(error.value)
    assert not (tmp_path / 'run').exists()


def test_another_config_is_refused_and_nothing_touched(unbroken, tiny):
  before = {path: path.stat().st_mtime_ns for path in unbroken.rglob('*')}
  other = config.load(
    BASE, {**TINY, 'data.corpus': tiny.data.corpus, 'seed': 1, 'encoding.base': 50.0}
  )
  with pytest.raises(UserError, match='another config') as error:
    loop.train(other, unbroken)
  assert 'seed (there 0, here 1)' in str(error.value)
  assert 'encoding.base (there None, here 50.0)' in str(error.value)
  assert before == {path: path.stat().st_mtime_ns for path in unbroken.rglob('*')}


def test_a_folder_with_a_run_but_no_config_is_refused(tiny, tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('')
  with pytest.raises(UserError, match=r'holds metrics.jsonl but no config.json'):
    run_dir.claim_run_dir(tmp_path, tiny)
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='allowed: a folder'):
    run_dir.claim_run_dir(tmp_path / 'file', tiny)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tiny, tmp_path):
  other = config.load(
    BASE, {**TINY, 'data.corpus': tiny.data.corpus, 'optim.warmup': 0, 'train.checkpoint_every': 1}
  )
  interruption = jnp.array(np.nan)
  real = optimizers.learning_rate
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      optimizers,
      'learning_rate',
      lambda o, n, step: jnp.where(step < 4, real(o, n, step), interruption),
    )
    with pytest.raises(Stopped, match=r'step 4: learning_rate is nan') as error:
      loop.train(other, tmp_path)
  assert error.value.code == 1
  with Checkpoints(tmp_path) as checkpoints:
    state, step = checkpoints.restore(model=build(tiny, data.VOCAB, nnx.Rngs(7)))
  assert step == 3
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  assert b'NaN' not in metrics(tmp_path)


def test_a_device_without_memory_is_one_line_and_the_run_goes_on(unbroken, tiny, tmp_path):
  made = setup.Training.compile

  def compile_for_nine_steps(training):
    made(training)
    step, turns = training.train_step, iter(range(9))

    def train_step(*state_and_batch):
      if next(turns, None) is None:
        jnp.zeros(2**47, jnp.uint8)
      return step(*state_and_batch)

    train_step.memory_analysis = step.memory_analysis
    training.train_step = train_step

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup.Training, 'compile', compile_for_nine_steps)
    with pytest.raises(
      Stopped, match=r'^1 x cpu: RESOURCE_EXHAUSTED: Out of .*mesh.fsdp.*trained_param.*grad_accum'
    ) as error:
      loop.train(tiny, tmp_path / 'run')
  assert (error.value.code, str(error.value).count('\n')) == (1, 0)
  assert isinstance(error.value.__cause__, jax.errors.JaxRuntimeError)
  loop.train(tiny, tmp_path / 'run')
  assert metrics(tmp_path / 'run') == metrics(unbroken)


def flip(data_file):
  content = bytearray(data_file.read_bytes())
  content[len(content) // 2] ^= 0xFF
  data_file.write_bytes(content)


def damage_arrays(folder):
  for path in (folder / 'model').rglob('*'):
    if path.is_file() and path.parent.name == 'd':
      flip(path)


DAMAGE = {
  'arrays': damage_arrays,
  'metadata cut': lambda folder: os.truncate(folder / 'opt_state' / '_METADATA', 20),
  'manifest empty': lambda folder: os.truncate(folder / 'model' / 'manifest.ocdbt', 0),
  'model gone': lambda folder: shutil.rmtree(folder / 'model'),
  'checksums flipped': lambda folder: flip(folder / 'checksums' / 'metadata'),
}
DAILY_DAMAGE = ('arrays', 'model gone')

COUNT = {'count': np.array(0)}


def noise(seed):
  return {'w': jax.random.normal(jax.random.key(seed), (64, 64)), 'b': jnp.zeros(3)}


def test_checkpoints_at_multiples_are_kept_beside_the_last(tmp_path):
  for steps in ((2, 4, 6), (8, 10)):  # as after a stop
    with Checkpoints(tmp_path, max_to_keep=1, keep_every=4) as checkpoints:
      for step in steps:
        checkpoints.save(step, noise(step), {'count': jnp.array(step)})
  kept = sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir())
  assert kept == [4, 8, 10]
  with Checkpoints(tmp_path) as reader:
    assert reader.latest == 10


def test_orbax_is_given_nothing_that_it_calls_deprecated(tmp_path, monkeypatch):
  given = []

  def noting(kind, docs):
    deprecated = re.findall(r'^ *(\w+):\s+deprecated', docs, re.MULTILINE)

    def make(*arguments, **options):
      given.extend(name for name in deprecated if name in options)
      return kind(*arguments, **options)

    return make

  monkeypatch.setattr(ocp.CheckpointManager, 'item_metadata', None)
  for kind in (ocp.CheckpointManager, ocp.CheckpointManagerOptions):
    docs = f'{kind.__doc__}\n{kind.__init__.__doc__}'
    monkeypatch.setattr(ocp, kind.__name__, noting(kind, docs))
  with Checkpoints(tmp_path, max_to_keep=1, keep_every=4) as checkpoints:
    checkpoints.save(1, noise(1), COUNT)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.restore(model=noise(0))
    checkpoints.as_saved('model')
  assert given == []


unraisable = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@unraisable
@pytest.mark.usefixtures('orbax_cleans_up')
@pytest.mark.parametrize(
  'damage', [pytest.param(name, marks=daily_if(name in DAILY_DAMAGE)) for name in DAMAGE]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, capsys, damage):
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, noise(step), {'count': jnp.array(step)})
  trees = {'model': noise(0), 'opt_state': {'count': jnp.array(0)}}
  DAMAGE[damage](tmp_path / 'checkpoints' / '3')
  with Checkpoints(tmp_path) as reader:
    assert reader.restore(**trees)[1] == 2
  assert (tmp_path / 'checkpoints' / '3').exists()  # a reader changes nothing
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    restored, step = checkpoints.restore(**trees)
    assert step == 2
    assert_same(restored, {'model': noise(2), 'opt_state': {'count': jnp.array(2)}})
    checkpoints.save(3, noise(3), {'count': jnp.array(3)})  # the way is free
  assert 'the checkpoint of step 3 is damaged' in capsys.readouterr().err
  assert (tmp_path / 'checkpoints' / '3.damaged').exists()
  with Checkpoints(tmp_path) as reader:
    assert reader.restore(**trees)[1] == 3
  DAMAGE[damage](tmp_path / 'checkpoints' / '3')  # once more
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    assert checkpoints.restore(**trees)[1] == 2
  assert (tmp_path / 'checkpoints' / '3.damaged2').exists()


@unraisable
@pytest.mark.usefixtures('orbax_cleans_up')
@pytest.mark.parametrize(
  ('steps', 'allowed'),
  [
    ((1, 2), 'remove the folder'),
    ((0,), 'import the model anew, if it was imported; else remove the folder'),
  ],
)
def test_all_checkpoints_damaged_are_an_error_that_removes_nothing(steps, allowed, tmp_path):
  folders = [tmp_path / 'checkpoints' / str(step) for step in steps]
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    for step in steps:
      checkpoints.save(step, noise(step), COUNT)
  for folder in folders:
    damage_arrays(folder)
  named = ', '.join(map(str, reversed(steps)))
  says = rf'every checkpoint is damaged \(step {named}\); allowed: {allowed}, and eval'
  with (
    Checkpoints(tmp_path, max_to_keep=2) as checkpoints,
    pytest.raises(UserError, match=says) as error,
  ):
    checkpoints.restore(model=noise(0))
  assert 'would have kept' not in str(error.value)
  assert all(folder.exists() for folder in folders)


@pytest.mark.parametrize('error', [MemoryError(), OSError(errno.EMFILE, 'Too many open files')])
def test_a_system_that_is_short_of_something_is_not_called_damage(tmp_path, monkeypatch, error):
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    checkpoints.save(1, noise(1), COUNT)
  with monkeypatch.context() as patch, Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    patch.setattr(checkpoints, '_read', Mock(side_effect=error))
    with pytest.raises(type(error)):
      checkpoints.restore(model=noise(0))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore(model=noise(0))[1] == 1


def test_a_checkpoint_that_a_training_removes_meanwhile_is_not_called_damage(tmp_path, capsys):
  with Checkpoints(tmp_path, max_to_keep=1) as training:
    training.save(1, noise(1), COUNT)
    training.close()
    with Checkpoints(tmp_path) as reader:
      assert reader.latest == 1
      with Checkpoints(tmp_path, max_to_keep=1) as on:
        on.save(2, noise(2), COUNT)
      restored, step = reader.restore(model=noise(0))
      assert (step, reader.latest) == (2, 2)
  assert_same(restored['model'], noise(2))
  assert 'damaged' not in capsys.readouterr().err


def test_a_wrong_shape_is_not_called_damage(tmp_path):
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    checkpoints.save(1, noise(1), COUNT)
    checkpoints.close()
  with Checkpoints(tmp_path) as checkpoints:
    for other, words in (
      ({'w': jnp.zeros(3)}, r'b of shape \(3,\)'),
      ({**noise(0), 'c': jnp.zeros(2)}, 'c of shape None'),
    ):
      with pytest.raises(UserError, match=words):
        checkpoints.restore(model=other)


def test_what_is_saved_may_be_donated_at_once(tmp_path):
  overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
  model = {'w': jax.random.normal(jax.random.key(0), (1024, 512))}
  wanted = jax.tree.map(lambda x: np.array(x), model)
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    checkpoints.save(1, model, COUNT)
    for _ in range(5):
      model = overwrite(model)
  with Checkpoints(tmp_path) as reader:
    assert_same(reader.restore(model=model)[0]['model'], wanted)


@pytest.mark.parametrize('decay', ['cosine', 'linear'])
@pytest.mark.parametrize(
  ('warmup', 'decay_steps', 'steps'),
  [(0, 0, 10), (1, 0, 10), (4, 0, 10), (10, 0, 10), (2, 3, 10), (0, 10, 10), (4, 1, 10)],
)
def test_the_learning_rate_rises_stays_and_falls(warmup, decay_steps, steps, decay):
  optim = {'warmup': warmup, 'decay_steps': decay_steps, 'decay': decay}
  optim |= {'learning_rate': 0.5, 'final_fraction': 0.1}
  o = config.load(BASE, {f'optim.{name}': value for name, value in optim.items()}).optim
  rates = [float(optimizers.learning_rate(o, steps, step)) for step in range(1, steps + 1)]
  falling = decay_steps or steps - warmup
  for step, rate in enumerate(rates, 1):
    if step <= warmup:
      expected = step / warmup
    elif step <= steps - falling:
      expected = 1.0
    else:
      part = (step - (steps - falling)) / falling
      left = 1 - part if decay == 'linear' else (1 + np.cos(np.pi * part)) / 2
      expected = 0.1 + 0.9 * left
    assert rate == pytest.approx(0.5 * expected, rel=1e-5)
  assert max(rates) <= 0.5


def test_parameters_of_the_encoding_take_steps_of_a_size_of_their_own():
  other = config.load(BASE, {**TINY, 'encoding.name': 't5', 'optim.clip': 0.0})
  model = build(other, data.VOCAB, nnx.Rngs(0))
  grads = jax.tree.map(jnp.ones_like, model)

  def updates_at(multiple):
    with other.unlocked():
      other.optim.encoding_multiple = multiple
    optimizer = make_optimizer(other.optim, STEPS)
    return leaves_by_path(optimizer.update(grads, optimizer.init(model), model)[0])

  plain, scaled = updates_at(1.0), updates_at(0.25)
  tables = {path for path in plain if path.startswith('encodings/')}
  assert tables
  assert tables != set(plain)
  for path, update in plain.items():
    np.testing.assert_array_equal(scaled[path], update * (0.25 if path in tables else 1))


NETWORK = {'w_q', 'w_k', 'w_v', 'w_o', 'w_in', 'w_out'}


@pytest.mark.parametrize(
  ('patterns', 'matrices'),
  [((), {'embedding', 'w_logits', *NETWORK}), (('encodings/*', 'layers/*'), NETWORK)],
)
def test_weight_decay_acts_on_the_matrices_of_the_network_that_train_alone(patterns, matrices):
  overrides = {
    'encoding.name': 't5',
    'model.qk_norm': 'head',
    'model.tie_embeddings': False,
    'optim.weight_decay': 0.5,
    'train.trained_parameters': patterns,
  }
  other = config.load(BASE, {**TINY, **overrides})
  model = build(other, data.VOCAB, nnx.Rngs(0))
  optimizer = make_optimizer(other.optim, STEPS, patterns)
  zero = jax.tree.map(jnp.zeros_like, model)
  updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(model), model)
  rate = float(optimizers.learning_rate(other.optim, STEPS, 1))
  decayed = set()
  for (path, w), update in zip(
    jax.tree_util.tree_leaves_with_path(model), jax.tree.leaves(updates), strict=True
  ):
    if np.any(update):
      np.testing.assert_allclose(update, -rate * 0.5 * w, rtol=1e-5)
      decayed.add(path[-2].name)
  assert decayed == matrices


def test_gradients_of_what_does_not_train_do_not_count_in_the_clip():
  patterns = ('encodings/*',)
  batch = data.Batch(jnp.arange(64).reshape(4, 16))

  def moments(clip):
    fields = {'encoding.name': 't5', 'optim.clip': clip, 'train.trained_parameters': patterns}
    partial = config.load(BASE, {**TINY, **fields})
    optimizer = make_optimizer(partial.optim, STEPS, patterns)
    model = build(partial, data.VOCAB, nnx.Rngs(0))
    state = make_step_fns(partial, optimizer)[0](model, optimizer.init(model), batch)[1]
    found = [leaf for path, leaf in leaves_by_path(state).items() if 'mu' in path.split('/')]
    return jnp.concatenate([leaf.ravel() for leaf in found]), partial.optim

  free, o = moments(0.0)
  norm = float(jnp.linalg.norm(free)) / (1 - o.beta1)  # of the gradient of the table alone
  clipped, _ = moments(norm / 2)
  np.testing.assert_allclose(clipped, free / 2, rtol=1e-5)


def test_parameters_that_do_not_train_stay_and_have_no_state(tiny, tmp_path):
  patterns = ('encodings/*', 'layers/w_[qk]')
  overrides = {'train.trained_parameters': patterns, 'encoding.name': 't5', 'train.steps': 2}
  overrides |= {'optim.weight_decay': 0.1, 'optim.warmup': 1, 'train.checkpoint_every': 1}
  partial = config.load(BASE, {**TINY, **overrides, 'data.corpus': tiny.data.corpus})
  start = leaves_by_path(build(partial, data.VOCAB, nnx.Rngs(partial.seed)))
  loop.train(partial, tmp_path / 'run')
  with Checkpoints(tmp_path / 'run') as checkpoints:
    model, *_ = checkpoints.as_saved('model')
    state, *_ = checkpoints.as_saved('opt_state')
  moved = {path for path in model if not np.array_equal(model[path], start[path])}
  assert moved == {'encodings/variants/0/encoding/table', 'layers/w_q', 'layers/w_k'}
  moments = [path for path in state if 'mu' in path.split('/')]
  assert len(moments) == len(moved)
  loop.train(partial, tmp_path / 'run')  # it is finished, and can be restored


def test_a_pattern_that_fits_no_parameter_is_named(tiny):
  wrong = config.load(BASE, {**TINY, 'train.trained_parameters': ('encodings/*', 'layers/w_r')})
  with pytest.raises(UserError, match=r"trained_parameters=.*'encodings/\*' fits no parameter"):
    preflight.check_model(wrong)
  wrong = config.load(BASE, {**TINY, 'train.trained_parameters': ('w_r',), 'encoding.name': 't5'})
  with pytest.raises(UserError, match='fits no parameter; allowed: ') as error:
    preflight.check_model(wrong)
  allowed = str(error.value).rpartition('allowed: ')[2].split(', ')
  assert 'encodings/*' in allowed
  right = config.load(BASE, {**TINY, 'encoding.name': 't5'})
  for pattern in allowed:
    config.overlay(right, {'train.trained_parameters': (pattern,)})
    preflight.check_model(right)
  runs = [(config.to_json(run), []) for run in (config.load(BASE, TINY), wrong)]
  number, reason = preflight.check_all(runs)  # each setting is checked, not the first alone
  assert (number, 'fits no parameter' in str(reason)) == (1, True)


class Two(NamedTuple):
  vector: jax.Array
  matrix: jax.Array


def test_a_step_ends_in_the_domain_of_the_encoding(monkeypatch):
  """A step with projection equals the step without it, followed by the projection."""
  other = config.load(
    BASE, {**TINY, 'encoding.name': 'kerple_log', 'optim.learning_rate': 2.0, 'optim.warmup': 1}
  )
  optimizer = make_optimizer(other.optim, STEPS)

  def after_a_step():
    model = build(other, data.VOCAB, nnx.Rngs(1))
    return make_step_fns(other, optimizer)[0](
      model, optimizer.init(model), data.Batch(jnp.arange(64).reshape(4, 16))
    )[0]

  projected = after_a_step()
  monkeypatch.setattr(KerpleLog, 'constrain_parameters', lambda self: self)
  free = after_a_step()
  assert any(np.any(leaf < 0) for leaf in jax.tree.leaves(free.encodings))
  free.encodings = jax.tree.map(lambda leaf: jnp.maximum(leaf, 0.01), free.encodings)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), projected, free)


def test_updates_are_those_of_adamw():
  fields = {'beta1': 0.8, 'beta2': 0.7, 'epsilon': 0.1, 'weight_decay': 0.5, 'clip': 0.0}
  fields |= {'learning_rate': 0.25, 'warmup': 0, 'final_fraction': 1.0}
  o = config.load(BASE, {f'optim.{name}': value for name, value in fields.items()}).optim
  draw = np.random.default_rng(0)
  model, *gradients = (Two(draw.normal(size=3), draw.normal(size=(2, 3))) for _ in range(3))
  as_float32 = lambda tree: jax.tree.map(np.float32, tree)
  optimizer = make_optimizer(o, STEPS)
  state, update = optimizer.init(as_float32(model)), jax.jit(optimizer.update)
  mean = square = Two(0.0, 0.0)
  for step, gradient in enumerate(gradients, 1):
    updates, state = update(as_float32(gradient), state, as_float32(model))
    mean = jax.tree.map(lambda m, g: 0.8 * m + 0.2 * g, mean, gradient)
    square = jax.tree.map(lambda v, g: 0.7 * v + 0.3 * g**2, square, gradient)
    for found, m, v, w in zip(updates, mean, square, model, strict=True):
      direction = m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.7**step)) + 0.1)
      decay = 0.5 * w if w.ndim == 2 else 0.0
      np.testing.assert_allclose(found, -0.25 * (direction + decay), rtol=1e-5)


@pytest.mark.parametrize('clip', [0.0, 0.5, 100.0])
def test_gradients_are_clipped_by_their_global_norm(clip):
  o = config.load(BASE, {'optim.clip': clip}).optim
  gradients = Two(jnp.array([3.0, 0.0]), jnp.array([[4.0]]))
  _, state = make_optimizer(o, 10).update(
    gradients, make_optimizer(o, 10).init(gradients), gradients
  )
  norm = float(optax.tree.norm(state[1].mu)) / (1 - o.beta1)
  assert norm == pytest.approx(min(5.0, clip or 5.0), rel=1e-5)


def test_steps_multiply_at_the_precision_of_the_config(corpus, tmp_path):
  """Whatever the precision of the process that asks for them."""
  c = config.load(BASE, {**TINY, 'data.corpus': corpus, 'train.matmul_precision': 'high'})
  training = setup.prepare(c, tmp_path / 'run')
  for step in (training.train_step, training.val_step):
    assert set(re.findall(r'precision = \[([A-Z, ]+)\]', step.as_text())) == {'HIGH, HIGH'}


def test_bfloat16_computes_in_it_and_keeps_parameters_in_float32(tiny):
  half = config.load(BASE, {**TINY, 'train.compute_dtype': 'bfloat16'})
  model = build(half, data.VOCAB, nnx.Rngs(0))
  optimizer = make_optimizer(half.optim, STEPS)
  opt_state = optimizer.init(model)
  batch = data.Batch(jax.ShapeDtypeStruct((4, 16), jnp.int32))
  step_fn, nats_fn = make_step_fns(half, optimizer)
  for old, new in zip(
    jax.tree.leaves((model, opt_state)),
    jax.tree.leaves(step_fn.eval_shape(model, opt_state, batch)[:2]),
    strict=True,
  ):
    assert old.dtype == new.dtype
  validation = nats_fn.lower(model, batch).as_text()
  assert 'bf16' in validation
  logits = f'x{data.VOCAB}x'
  assert f'{logits}f32' in validation
  assert f'{logits}bf16' not in validation
  full = make_step_fns(tiny, optimizer)[1]
  assert 'bf16' not in full.lower(model, batch).as_text()


def test_processes_agree_on_their_program_before_they_compute(tiny, tmp_path, monkeypatch):
  """Also on the mesh, which changes no result, and on formulas, which are in no config."""
  asked = []

  def agree(values):
    asked.append(values)
    raise UserError('asked')

  monkeypatch.setattr(setup, 'is_multiprocess', lambda: True)
  monkeypatch.setattr(setup, 'check_alike', agree)
  monkeypatch.setattr(setup, 'build', lambda *_: pytest.fail('a model was made'))

  def differing(edit=None, **fields):
    """What a process with other fields has otherwise than one of `tiny`."""
    asked.clear()
    for changed in ({}, dotted(fields)):
      c = config.from_json(config.to_json(tiny))
      config.overlay(c, changed)
      with pytest.raises(UserError, match=r'^asked$'):
        setup.prepare(c, tmp_path / 'run')
    one, other = asked
    return [name for name in one if one[name] != other[name]]

  assert differing() == []
  same = {'launch__nodes': 3, 'train__trackers': ('tensorboard',), 'data__cache': str(tmp_path)}
  assert differing(**same) == []
  assert differing(mesh__data=2) == ['config']
  monkeypatch.setattr(setup, 'single_seed_runs', lambda c, folder: [(tiny, folder)])
  assert differing(mesh__seeds=2) == ['config']
  assert differing(train__init_from=str(tmp_path), encoding={'name': 'rope'}) == ['config']
  monkeypatch.setattr(setup, 'user_code_hashes', lambda c: {c.encoding.name: c.label})
  assert differing(label='edited') == ['config', 'the code of encodings of your own']
