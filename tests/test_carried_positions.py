"""Positions that come with the data: from a task to batches, training, stops and evaluation."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import nll
from flax import nnx
from kinds import daily_if
from small_runs import BASE, TINY_TASK, dotted

from posenc_jax import config, data, storage, tasks
from posenc_jax.encodings import make
from posenc_jax.encodings.learned import Learned
from posenc_jax.errors import Stopped, UserError
from posenc_jax.evaluation import evaluate, model_functions, predictions, preflight, runs
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import loop
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import accumulate, make_step_fns

ABACUS = 'task:addition/reverse=True/pad=True/positions=abacus'
COUPLED = 'task:addition/reverse=True/pad=True/positions=coupled'
TINY = {
  **TINY_TASK,
  'encoding.name': 'abacus',
  'data.corpus': ABACUS,
  'train.length': 16,
  'eval.lengths': (13, 22),
  'eval.examples': 10,
  'eval.controls': (),
}


def tiny(**fields):
  return config.load(BASE, TINY | dotted(fields))


def model_of(c, vocab=14):
  return build(c, vocab, nnx.Rngs(0))


class Places(tasks.Task):
  """Says again what it was told; positions as `kind` and `per_token` say."""

  token_names, shortest = 'abcd', 4

  def __init__(self, kind, per_token):
    self.carried_positions = tasks.CarriedPositions(kind, per_token)

  def draw(self, rng, length, index):
    word = rng.integers(4, size=length // 2)
    place = np.tile(np.arange(len(word)), 2) + 1
    if self.carried_positions.kind == 'floats':
      place = (place / 4).astype(np.float32)
    if self.carried_positions.per_token == 2:
      place = np.stack([place, np.repeat([1, 2], len(word))], axis=1)
    choices = np.repeat([0, 4], len(word)).astype(np.int32)
    return tasks.Example(np.tile(word, 2).astype(np.int32), choices, positions_T=place)

  def largest_position(self, length):
    return max(length // 2, 2)


@pytest.fixture
def places(monkeypatch):
  """The tasks `floats` and `levels`: real positions, and two whole ones a token."""
  monkeypatch.setitem(tasks.TASKS, 'floats', lambda: Places('floats', 1))
  monkeypatch.setitem(tasks.TASKS, 'levels', lambda: Places('integers', 2))


def by_a_loop(words, kind, reverse):
  """The positions of the words of an addition, one after another."""
  numbers = [[]]
  for word in words:
    if word in '+=.':
      numbers.append([])
    else:
      numbers[-1].append(word)
  found = []
  for number, sign in zip(numbers, '+=.', strict=False):
    for index in range(len(number)):
      place = index if reverse else len(number) - 1 - index
      found.append(1 + index if kind == 'abacus' else 2 + place)
    if kind == 'abacus' or sign == '.':
      found.append(0)
    elif sign == '+' or reverse:
      found.append(1)
    else:
      found.append(2 + len(numbers[2]))
  return found


@pytest.mark.parametrize('kind', ['abacus', 'coupled'])
@pytest.mark.parametrize('reverse', [True, False])
@pytest.mark.parametrize('pad', [True, False])
@pytest.mark.parametrize('unequal', [True, False])
def test_positions_of_an_addition_are_those_of_a_loop_over_its_words(kind, reverse, pad, unequal):
  text = f'addition/reverse={reverse}/pad={pad}/unequal={unequal}'
  task, plain = tasks.make(f'{text}/positions={kind}', tuple), tasks.make(text, tuple)
  largest = 0
  for index in range(300 if unequal else 30):
    example = task.example('train', 1, index, task.shortest, 25)
    words = [task.token_names[token] for token in example.tokens_T]
    assert example.positions_T.tolist() == by_a_loop(words, kind, reverse)
    assert example.positions_T.dtype == np.int32
    largest = max(largest, example.positions_T.max())
    same = plain.example('train', 1, index, task.shortest, 25)
    assert same.positions_T is None
    np.testing.assert_array_equal(example.tokens_T, same.tokens_T)
  # a carry over all digits that the shorter number lacks is rare
  assert 0 <= task.largest_position(25) - largest <= (unequal and not pad)


def test_positions_and_hints_are_two_ways_to_say_one_thing():
  with pytest.raises(ValueError, match="positions='abacus'; allowed: contiguous, with hints"):
    tasks.make('addition/reverse=True/pad=True/hints=9/positions=abacus', tuple)
  with pytest.raises(ValueError, match="'abacu'; allowed: contiguous, abacus, coupled"):
    tasks.make('addition/positions=abacu', tuple)


@pytest.mark.parametrize(
  ('text', 'length', 'shape', 'largest'),
  [(ABACUS, 16, (), 5), ('task:grid/symbols=6/queries=2/positions=grid', 40, (2,), 17)],
)
def test_batches_hold_the_positions_of_their_examples_and_zeros(text, length, shape, largest):
  corpus = data.opened(tiny(data__corpus=text).data, 'train')
  batch = corpus.batches(length, 4, seed=3)[2]
  for row in range(4):
    example = corpus.task.example('train', 3, 8 + row, corpus.shortest, length)
    filled = np.zeros((length, *shape), np.int32)
    filled[: len(example.positions_T)] = example.positions_T
    np.testing.assert_array_equal(batch.position_ids[row], filled)
  assert corpus.largest_position(length) == largest
  plain = data.opened(tiny(data__corpus=text.partition('/')[0]).data, 'train')
  assert plain.batches(length, 4, seed=3)[2].position_ids is None
  assert plain.largest_position(length) is None


@pytest.mark.parametrize(('text', 'shape'), [('floats', ()), ('levels', (2,))])
@pytest.mark.usefixtures('places')
def test_positions_keep_their_kind_and_their_number(text, shape):
  corpus = data.opened(tiny(data__corpus=f'task:{text}').data, 'train')
  batch = corpus.batches(8, 3, seed=0)[0]
  assert batch.position_ids.shape == (3, 8, *shape)
  assert (batch.position_ids.dtype == np.float32) == (text == 'floats')


@pytest.mark.parametrize(
  'name', ['learned', 'rope', 't5', 'nope', 'abacus', pytest.param('fire', marks=pytest.mark.slow)]
)
def test_tokens_at_1_2_3_are_tokens_without_positions(name):
  """BOS stands at 0, and each token as an input at its own position."""
  model, tokens_BT = model_of(tiny(encoding__name=name)), jnp.arange(24).reshape(2, 12) % 13
  carried = jnp.broadcast_to(1 + jnp.arange(12), (2, 12))
  run = jax.jit(
    lambda positions: token_nll(
      model, tokens_BT, token_positions=positions, max_position_distance=12
    )
  )
  np.testing.assert_allclose(run(carried), run(None), atol=1e-5)
  if name != 'nope':  # it takes them, and reads none
    assert np.abs(run(carried // 2) - run(None)).max() > 1e-4


def test_a_token_has_its_own_position_and_the_last_one_counts_for_nothing():
  model, tokens_BT = model_of(tiny(encoding__name='learned')), jnp.arange(12).reshape(1, 12)
  positions = np.array([[3, 3, 0, 5, 1, 1, 2, 7, 7, 9, 15, 4]])
  at = np.array([[0, 3, 3, 0, 5, 1, 1, 2, 7, 7, 9, 15]])
  given = nll(model, tokens_BT, token_positions=positions)
  np.testing.assert_array_equal(given, nll(model, tokens_BT, position_ids=at))


def test_a_packed_row_carries_positions_across_its_segments():
  """They are those of the inputs, whatever the segments: nothing is counted anew."""
  model, tokens_BT = model_of(tiny(encoding__name='rope')), jnp.arange(12).reshape(1, 12)
  segments = jnp.array([[0] * 5 + [1] * 7])
  at = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
  carried = np.append(at[:, 1:], [[0]], axis=1)
  run = lambda **options: nll(model, tokens_BT, segment_ids=segments, **options)
  np.testing.assert_allclose(run(token_positions=carried), run(), atol=1e-5)


def test_hooks_are_given_positions_in_32_bits(monkeypatch):
  model, given = model_of(tiny(encoding__name='learned')), []
  monkeypatch.setattr(Learned, 'add_to_input', lambda _, x, ids: given.append(ids.dtype) or x)
  model(jnp.ones((1, 4), int), position_ids=jnp.ones((1, 4), jnp.uint8))
  assert given == [jnp.int32]


@pytest.mark.parametrize('levels', [1, 2])
def test_coupling_is_a_sum_over_levels(levels):
  """Against a loop over tokens; positions outside of a table give NaN."""
  sizes = dict(model_dim=6, heads=2, head_dim=4, train_length=9)
  enc = make('position_coupling', **sizes, rngs=nnx.Rngs(0), levels=levels)
  rng = np.random.default_rng(0)
  x_BTD = rng.standard_normal((2, 5, 6)).astype(np.float32)
  positions = rng.integers(9, size=(2, 5) if levels == 1 else (2, 5, levels))
  expected = x_BTD.astype(np.float64)
  for b, t in np.ndindex(2, 5):
    for level, position in enumerate(np.atleast_1d(positions[b, t])):
      expected[b, t] += np.sqrt(6) * np.asarray(enc.rows[...])[level, position]
  np.testing.assert_allclose(enc.add_to_input(x_BTD, positions), expected, atol=1e-6)
  assert np.isnan(enc.add_to_input(x_BTD, positions + 9)).all()


def test_levels_without_positions_are_moved_from_those_of_the_sequence():
  """In training, as if they were given: the same ones on each level."""
  m = model_of(tiny(encoding={'name': 'position_coupling', 'levels': 2, 'max_length': 16}))
  tokens_BT, key = jnp.arange(24).reshape(2, 12) % 13, jax.random.key(1)
  in_order = jnp.repeat(jnp.arange(12)[None, :, None], 2, axis=2)
  run = jax.jit(lambda **given: m(tokens_BT, **given))
  np.testing.assert_array_equal(run(key=key), run(key=key, position_ids=in_order))
  assert np.abs(run(key=key) - run()).max() > 1e-3


GIVEN = np.array([[0, 1, 2, 0, 1, 2, 3, 0], [0, 2, 3, 1, 2, 3, 4, 0]])


def draws_of(name, **hyper):
  """int [n, 2, 8] or [n, 2, 8, levels]: the positions GIVEN as 300 training steps move them."""
  sizes = dict(model_dim=6, heads=2, head_dim=4, train_length=16)
  enc = make(name, **sizes, rngs=nnx.Rngs(0), **hyper)
  given = GIVEN if enc.positions_per_token == 1 else np.stack([GIVEN, GIVEN[::-1]], axis=2)
  assert enc.sample_positions(given, 2, None) is None, 'none in evaluation'
  draw = jax.jit(lambda key: enc.sample_positions(given, 2, key))
  return given, np.stack([draw(jax.random.key(n)) for n in range(300)])


def test_abacus_moves_all_digits_of_a_batch_by_one_offset():
  given, draws = draws_of('abacus', max_k=4)
  offsets = (draws - given)[:, given > 0]
  assert np.all(draws[:, given == 0] == 0)
  assert np.all(offsets == offsets[:, :1])
  counts = np.bincount(offsets[:, 0], minlength=5)
  assert len(counts) == 5
  assert np.abs(counts / 300 - 1 / 5).max() < 5 * np.sqrt(0.2 * 0.8 / 300)


@pytest.mark.parametrize('levels', [1, 2])
def test_coupling_starts_each_example_and_level_anywhere_in_the_table(levels):
  given, draws = draws_of('position_coupling', max_length=9, levels=levels)
  assert np.all(draws[:, given == 0] == 0)
  given, draws = given.reshape(2, 8, levels), draws.reshape(300, 2, 8, levels)
  starts = np.zeros((300, 2, levels), int)
  for row, level in np.ndindex(2, levels):
    there = given[row, :, level] > 0
    moved = draws[:, row, there, level] - given[row, there, level]
    assert np.all(moved == moved[:, :1])
    starts[:, row, level] = moved[:, 0]
    most = 8 - given[row, :, level].max()
    counts = np.bincount(starts[:, row, level], minlength=most + 1)
    assert len(counts) == most + 1
    assert np.abs(counts / 300 - 1 / (most + 1)).max() < 5 * np.sqrt(1 / (most + 1) / 300)
  each = starts.reshape(300, -1)
  assert all(np.any(each[:, 0] != other) for other in each[:, 1:].T), 'each for itself'


def test_a_model_is_moved_in_training_alone():
  c = tiny(encoding__max_k=4)
  model, batch = model_of(c), data.opened(c.data, 'train').batches(16, 4, seed=0)[0]
  run = lambda key: nll(model, batch.tokens_BT, token_positions=batch.position_ids, key=key)
  keys = [jax.random.key(n) for n in range(8)]
  assert any(np.abs(run(key) - run(keys[0])).max() > 1e-4 for key in keys[1:])
  at = np.pad(batch.position_ids[:, :-1], ((0, 0), (1, 0)))
  np.testing.assert_array_equal(run(None), nll(model, batch.tokens_BT, position_ids=at))


@pytest.mark.parametrize(
  ('taker', 'other'),
  [
    pytest.param(
      taker, other, marks=daily_if(other == 'rope' or (taker, other) == ('abacus', 't5'))
    )
    for taker in ('abacus', 'position_coupling', {'name': 'position_coupling', 'levels': 2})
    for other in ('rope', 'fire', 't5', 'kv_shift')
  ],
)
def test_beside_positions_of_the_data_others_are_at_those_of_the_sequence(taker, other):
  """As McLeish et al. have Abacus beside RoPE or FIRE: rows at the input, and the model of the
  other encoding from there on.
  """
  both = model_of(tiny(encoding={'name': 'chain', 'members': (taker, other)}))
  alone = model_of(tiny(encoding__name=other))
  table, own = both.encodings.variants[0].encoding.members
  one = alone.encodings.variants[0]
  one.encoding = jax.tree.unflatten(jax.tree.structure(one.encoding), jax.tree.leaves(own))
  for name in ('embedding', 'norm', 'layers'):
    setattr(alone, name, getattr(both, name))
  tokens_BT = jnp.arange(24).reshape(2, 12) % 13
  carried = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3], [1, 2, 1, 0, 4, 3, 2, 1, 0, 5, 0, 7]])
  if table.positions_per_token > 1:
    carried = np.stack([carried, carried[::-1]], axis=2)
  added_BTD = table.add_to_input(jnp.zeros((2, 12, 16)), carried)
  run = jax.jit(lambda m, **given: m(tokens_BT, **given))
  expected = run(alone, added_BTD=added_BTD)
  np.testing.assert_allclose(run(both, position_ids=carried), expected, atol=1e-5)
  assert np.abs(run(both, position_ids=1 + carried) - expected).max() > 1e-3


def test_positions_of_the_data_beside_heads_and_in_a_table_shorter_than_the_sequence():
  """Only they must fit into it: 16 tokens at positions to 5, moved by up to 3."""
  mixed = {'name': 'heads', 'members': ('rope', 'nope')}
  members = ({'name': 'abacus', 'max_length': 9, 'max_k': 3}, mixed)
  c = tiny(encoding={'name': 'chain', 'members': members})
  preflight.check_model(c)
  corpus = data.opened(c.data, 'train')
  model, batch = model_of(c, corpus.vocab), corpus.batches(16, 4, seed=0)[0]
  run = lambda key: nll(model, batch.tokens_BT, token_positions=batch.position_ids, key=key)
  moved = [run(jax.random.key(n)) for n in range(4)]
  assert np.isfinite(moved).all()
  assert any(np.abs(each - run(None)).max() > 1e-4 for each in moved)
  members = ({'name': 'abacus', 'max_length': 9, 'max_k': 4}, 'rope')
  c = tiny(encoding={'name': 'chain', 'members': members})
  with pytest.raises(UserError, match=r'positions reach 9, but those of Chain end at 9'):
    preflight.check_model(c)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    (
      {'data__corpus': 'task:addition'},
      "corpus='task:addition': carries no positions, which Abacus is made for; allowed: one that",
    ),
    ({'encoding__name': 'random_positions'}, 'positions, and RandomPositions samples its own;'),
    ({'encoding__name': 'pose'}, 'carries positions, and PoSE samples its own; allowed: one with'),
    ({'data__corpus': 'task:floats'}, '1 a token, floats; allowed: 1, integers, for Abacus'),
    ({'data__corpus': 'task:levels'}, '2 a token, integers; allowed: 1, integers, for Abacus'),
    (
      {'encoding__name': 'position_coupling', 'encoding__levels': 2},
      '1 a token, integers; allowed: 2, integers, for PositionCoupling',
    ),
    (
      {'encoding__max_length': 9, 'encoding__max_k': 4},
      'train.length=16: positions reach 9, but those of Abacus end at 9; allowed: less than that',
    ),
    (
      {'encoding__name': 'learned', 'encoding__max_length': 5},
      'positions reach 5, but those of Learned end at 5',
    ),
  ],
)
@pytest.mark.usefixtures('places')
def test_what_does_not_go_together_is_one_line_before_anything_is_made(fields, words, tmp_path):
  for act in (preflight.check_model, lambda c: loop.train(c, tmp_path / 'run')):
    with pytest.raises(UserError) as error:
      act(tiny(**fields))
    assert words in str(error.value)
    assert r'\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('name', 'corpus'),
  [
    ('learned', COUPLED),
    ('sinusoidal', 'task:floats'),
    ('position_coupling', COUPLED),
    pytest.param('rope', ABACUS, marks=pytest.mark.slow),
    pytest.param('t5', COUPLED, marks=pytest.mark.slow),
    pytest.param('nope', 'task:levels', marks=pytest.mark.slow),
  ],
)
@pytest.mark.usefixtures('places')
def test_encodings_take_positions_of_their_kind(name, corpus):
  """A step and a validation, with gradients; positions need no room but their own."""
  c = tiny(encoding__name=name, data__corpus=corpus, train__length=22)
  preflight.check_model(c)
  opened = data.opened(c.data, 'train')
  tx, model = make_optimizer(c.optim, 6), model_of(c, opened.vocab)
  train, val = make_step_fns(c, tx, opened.largest_position(22))
  batch = opened.batches(22, 4, seed=0)[0]
  before = np.asarray(val(model, batch))
  model, _, metrics = train(model, tx.init(model), batch)
  assert np.isfinite([before, metrics['loss'], metrics['grad_norm']]).all()


@pytest.mark.usefixtures('places')
def test_microbatches_carry_the_positions_of_their_rows():
  corpus = data.opened(tiny(data__corpus='task:levels').data, 'train')
  batch = corpus.batches(8, 6, seed=0)[0]
  weight = np.random.default_rng(0).standard_normal((1, 8, 2)).astype(np.float32)

  def loss(scale, batch, key):
    per_token = (batch.position_ids * weight).sum(-1) * scale * batch.tokens_BT
    return jnp.average(per_token, weights=batch.scored_BT)

  grads = [
    accumulate(jax.value_and_grad(loss), 2.0, batch, jax.random.key(0), parts) for parts in (1, 3)
  ]
  np.testing.assert_allclose(*grads, rtol=1e-5)


def test_each_microbatch_draws_for_itself():
  batch = data.Batch(jnp.zeros((4, 2), jnp.int32))
  draw = lambda model, batch, key: jax.random.uniform(key)
  mean = accumulate(draw, None, batch, jax.random.key(0), 2)
  alone = [draw(None, None, jax.random.fold_in(jax.random.key(0), n)) for n in range(2)]
  assert alone[0] != alone[1]
  assert mean == pytest.approx(np.mean(alone))


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('unbroken') / 'run'
  loop.train(tiny(), workdir)
  evaluate.evaluate(tiny(), workdir)
  return workdir


@pytest.mark.ci
def test_a_stopped_run_goes_on_to_the_same_numbers(unbroken, tmp_path, monkeypatch):
  """Bit for bit: batches, positions and offsets are drawn by seed and step."""
  read = data.TaskBatches.__getitem__

  def read_and_stop(self, n):
    if n == 3 and self._length == 16 and self._corpus.split == 'train':
      os.kill(os.getpid(), signal.SIGTERM)
    return read(self, n)

  with monkeypatch.context() as patch:
    patch.setattr(data.TaskBatches, '__getitem__', read_and_stop)
    with pytest.raises(Stopped, match='step 4 is saved'):
      loop.train(tiny(), tmp_path)
  loop.train(tiny(), tmp_path)
  evaluate.evaluate(tiny(), tmp_path)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == (unbroken / 'metrics.jsonl').read_bytes()
  value = lambda folder: [row['value'] for row in storage.read_rows(folder / 'eval.jsonl')]
  assert value(tmp_path) == value(unbroken)


@pytest.mark.slow
def test_positions_change_what_is_learned(unbroken, tmp_path):
  loop.train(tiny(data__corpus=COUPLED), tmp_path)
  assert (tmp_path / 'metrics.jsonl').read_bytes() != (unbroken / 'metrics.jsonl').read_bytes()


@pytest.mark.slow
def test_seeds_at_once_are_each_by_itself(unbroken, tmp_path):
  loop.train(tiny(seeds=(1, 0), vmap_seeds=True), tmp_path / 'run')
  rows, wanted = (
    storage.read_rows(folder / 'metrics.jsonl')
    for folder in (config.seed_workdir(tmp_path / 'run', 0), unbroken)
  )
  losses, wanted = ([row['loss'] for row in each if 'loss' in row] for each in (rows, wanted))
  np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def test_evaluation_sees_each_answer_at_its_position(unbroken):
  """The share of right answers and their nats, by single forward passes over BOS and the tokens
  before each.
  """
  c = tiny()
  corpus = data.opened(c.data, 'test')
  model, _ = runs.restore(c, corpus, unbroken)
  rows = [row for row in storage.read_rows(unbroken / 'eval.jsonl') if row['length'] == 13]
  run = jax.jit(lambda inputs, positions: model(inputs, position_ids=positions))
  right, nats = [], []
  for example in corpus.examples(10, 13):
    inputs, positions = np.zeros((2, 1, 14), np.int32)
    inputs[0, : 1 + len(example.tokens_T)] = [13, *example.tokens_T]
    positions[0, : 1 + len(example.tokens_T)] = [0, *example.positions_T]
    for t in np.flatnonzero(example.answers_T):
      seen = np.arange(14) <= t
      logits = run(inputs * seen, positions * seen)
      right.append(int(logits[0, t].argmax()) == example.tokens_T[t])
      nats.append(-jax.nn.log_softmax(logits[0, t])[example.tokens_T[t]])
  (accuracy,) = [row['value'] for row in rows if row['metric'] == 'token_accuracy']
  assert accuracy == pytest.approx(np.mean(right))
  (mean_nats,) = [row['value'] for row in rows if row['metric'] == 'symbol_nats']
  assert mean_nats == pytest.approx(np.mean(nats), rel=1e-5)


def test_evaluation_in_other_batches_gives_the_same():
  c = tiny(encoding__name='t5')
  corpus = data.opened(c.data, 'test')
  model, predict = model_of(c), model_functions.compiled(model_functions.predictions, c)
  found = []
  for batch_tokens in (1, 10**6):
    one = lambda tokens, positions: predict(model, tokens, positions, max_position_distance=5)
    found.append(list(predictions.predict_answers(one, corpus.examples(6, 13), 13, batch_tokens)))
  for one, other in zip(*found, strict=True):
    np.testing.assert_allclose(one.nats_A, other.nats_A, rtol=1e-4)


def test_positions_and_not_tokens_must_fit_into_a_table(tmp_path):
  """19 tokens of 5 digits have positions to 6, and 22 of 6 digits to 7."""
  c = tiny(encoding__name='learned', encoding__max_length=7, eval__lengths=(19, 22))
  loop.train(c, tmp_path)
  evaluate.evaluate(c, tmp_path)
  rows = storage.read_rows(tmp_path / 'eval.jsonl')
  assert {(row['length'], row['status']) for row in rows} == {(19, 'ok'), (22, 'beyond_table')}
  assert all(np.isfinite(row['value']) for row in rows if row['status'] == 'ok')
