"""The settings of papers: every run of theirs can be built at true size, and trained in small."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if

from posenc_jax import config, data, sweep, tasks
from posenc_jax.data.corpora import FETCHED
from posenc_jax.model import decoder
from posenc_jax.model.decoder import build
from posenc_jax.reporting.study import of_study
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

PAPERS = sorted((Path(__file__).parent.parent / 'configs' / 'paper').glob('*.py'))
NAMES = [path.stem for path in PAPERS]
SMALL = {
  'model.layers': 2,
  'model.model_dim': 32,
  'model.heads': 2,
  'model.head_dim': 16,
  'model.mlp_dim': 32,
  'train.length': 24,
  'train.batch': 2,
  'optim.warmup': 1,
}
TEXT = {'data.corpus': 'sotu', 'data.text_field': 'text'}


def runs(path):
  """The config of every run of the study."""
  return [run.config for run in sweep.plan(path, 'out', {})]


def sizes(c, vocab):
  """(parameters of all, of the layers, of a matrix of the vocabulary) of a model that is never
  made.
  """
  model = decoder.shapes(c, vocab)
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  return count(model), count(model.layers), count(model.embedding)


@pytest.mark.parametrize('path', PAPERS, ids=NAMES)
def test_studies_are_whole(path, tmp_path):
  """Runs are checked as the sweep checks them, and told apart; the text says the command and what
  is not theirs.
  """
  planned = sweep.plan(path, tmp_path, {})
  assert len(planned) == len([*config.load_study(path).sweep()])
  assert len(planned) == len({run.name for run in planned})
  assert of_study(path, tmp_path).figures
  text = config.load_study(path).__doc__
  flag = f'--config=configs/paper/{path.name}'
  for words in (f'python scripts/sweep.py {flag}', 'Cost: not run here', 'As published'):
    assert words in text
  is_fetched = any(run.config.data.corpus.startswith(FETCHED) for run in planned)
  assert (f'python scripts/prepare_data.py {flag}' in text.partition('sweep.py')[0]) == is_fetched
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('path', PAPERS, ids=NAMES)
def test_what_trains_in_half_precision_is_evaluated_in_it(path):
  """In float32 an evaluation of these can take as long as the training."""
  for c in runs(path):
    assert c.eval.compute_dtype == c.train.compute_dtype


def test_lines_that_the_table_of_pose_has_are_evaluated_at_the_positions_of_the_text():
  published = config.load_study(PAPERS[NAMES.index('pose')]).PUBLISHED
  published = {line.rpartition(', ')[0] for line in published}
  lines = {c.label: c.encoding for c in study('pose')}
  assert published - lines.keys() == {'None'}
  evaluated = [lines[label].name for label in published & lines.keys()]
  assert sorted(evaluated) == ['pose', 'pose', 'rope', 'rope', 'rope']
  drawn = [encoding for encoding in lines.values() if encoding.name == 'random_positions']
  assert [(some.each, some.longest) for some in drawn] == [('example', 16384), ('example', 32768)]


@pytest.mark.parametrize(
  'path', [pytest.param(path, marks=daily_if(path.stem == 'alibi')) for path in PAPERS], ids=NAMES
)
def test_every_run_is_built_at_true_size(path):
  """All in the shapes of its own config, with the parameters of projections that these have."""
  for c in runs(path):
    m = c.model
    _, layers, matrix = sizes(c, data.VOCAB)
    matrices = 3 if m.mlp == 'swiglu' else 2
    products = 4 * m.model_dim * m.heads * m.head_dim + matrices * m.model_dim * m.mlp_dim
    norms = 2 * m.model_dim * (2 if m.norm == 'layer' else 1)
    biases = (5 * m.model_dim + m.mlp_dim) * (m.bias == 'all')
    assert layers == m.layers * (products + norms + biases)
    assert matrix == data.VOCAB * m.model_dim
    assert m.heads * m.head_dim == m.model_dim


@pytest.mark.parametrize(
  ('name', 'devices'),
  [
    ('alibi', {'mesh.data': 4}),
    ('fox', {'mesh.data': 8}),
    ('fox', {'train.grad_accum_steps': 16}),
    ('sinks', {'mesh.data': 4, 'train.grad_accum_steps': 8}),
    (
      'yarn',
      {'mesh.fsdp': 8, 'mesh.context': 8, 'train.grad_accum_steps': 8, 'model.remat': 'layer'},
    ),
  ],
)
def test_what_a_study_says_of_many_devices_is_allowed(name, devices):
  path = PAPERS[NAMES.index(name)]
  study = config.load_study(path)
  for field, value in devices.items():
    assert f'--config.{field}={value}' in study.__doc__
  for run in sweep.plan(path, 'out', devices):
    config.validate(run.config)


def study(name):
  return runs(PAPERS[NAMES.index(name)])


def test_alibi_has_the_layers_of_247_million_parameters():
  """Theirs are with adaptive embeddings of 267,735 words: widths 1024, 256, 64, each projected to
  1024.
  """
  parts = ((20_000, 1024), (40_000, 256), (267_735 - 60_000, 64))
  embeddings = sum(words * width + width * 1024 for words, width in parts)
  assert sizes(study('alibi')[0], data.VOCAB)[1] + embeddings == pytest.approx(247e6, abs=5e5)


def test_kerple_has_162_million_parameters():
  """With the vocabulary of GPT-2, padded to a multiple of 128."""
  assert sizes(study('kerple')[0], 50_304)[0] == pytest.approx(162e6, abs=5e5)


@pytest.mark.parametrize(('name', 'layers'), [('nope', 85e6), ('sinks', 59e6)])
def test_the_layers_have_the_parameters_that_the_study_says(name, layers):
  c = study(name)[0]
  assert f'{layers / 1e6:.0f} million parameters in the layers' in ' '.join(
    config.load_study(PAPERS[NAMES.index(name)]).__doc__.split()
  )
  assert sizes(c, data.VOCAB)[1] == pytest.approx(layers, abs=5e5)


def test_tasks_of_nope_are_asked_for_twice_the_symbols_in_training():
  """The largest number in training is drawn as often as the one below it."""
  most_of = {'copy': 20, 'reverse': 20, 'sort': 8, 'addition': 8}
  of_corpus = {c.data.corpus: c for c in study('nope')}
  assert len(of_corpus) == 8
  for corpus, c in of_corpus.items():
    task, name = tasks.of_corpus(corpus), corpus.removeprefix(tasks.PREFIX).partition('/')[0]
    sign, most = '+' if name == 'addition' else '>', most_of[name]

    def symbols(length, task=task, sign=sign):
      return task.show(task.example('test', 0, 0, length, length)).split().index(sign)

    assert [symbols(c.eval.lengths[0]), symbols(c.eval.lengths[-1])] == [most, 2 * most]
    assert c.eval.lengths[0] == c.train.length
    number_of = Counter(symbols(n) for n in range(task.shortest, c.train.length + 1))
    assert number_of[most] == number_of[most - 1]


@pytest.mark.parametrize('name', ['yarn', pytest.param('pi', marks=pytest.mark.slow)])
def test_llama_has_its_parameters(name):
  assert {sizes(c, 32_000)[0] for c in study(name)} == {6_738_415_616}


def test_fox_has_the_parameters_of_its_name():
  """Theirs count one of the two matrices of GPT-2's vocabulary."""
  for c in study('fox'):
    everything, _, matrix = sizes(c, 50_257)
    named = 1e6 * float(c.label.partition('(')[2].removesuffix('M)'))
    assert everything - matrix == pytest.approx(named, rel=0.01), c.label


@pytest.mark.parametrize(
  'path', [pytest.param(path, marks=daily_if(path.stem == 'fox')) for path in PAPERS], ids=NAMES
)
def test_a_step_in_small(path):
  c = config.load(path, SMALL)
  if not tasks.is_task(c.data.corpus):
    config.overlay(c, TEXT)
  config.validate(c)
  corpus = data.opened(c.data, 'train')
  batch = corpus.batches(c.train.length, c.train.batch, c.seed)[0]
  model = build(c, corpus.vocab, nnx.Rngs(c.seed))
  before = jax.tree.map(np.array, model)
  optimizer = make_optimizer(c.optim, c.train.steps)
  step, _ = make_step_fns(c, optimizer)
  model, _, metrics = step(model, optimizer.init(model), batch)
  assert abs(float(metrics['loss']) - np.log(corpus.vocab)) < 1.5
  assert float(metrics['learning_rate']) == pytest.approx(c.optim.learning_rate)
  for a, b in zip(*map(jax.tree.leaves, (before, model)), strict=True):
    assert not np.array_equal(a, b)
