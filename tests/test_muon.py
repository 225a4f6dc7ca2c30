"""Muon moves each matrix of each layer by itself, leaves all else to Adam, and resumes exactly."""

import inspect
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from small_runs import BASE, STEPS, TINY
from test_seeds import assert_close

from posenc_jax import config, data, storage
from posenc_jax.model.decoder import build
from posenc_jax.training import loop
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.optimizer import make_optimizer

LAYERS, RATE = 3, 0.03
FIELDS = {
  **TINY,
  'encoding.name': 't5',
  'model.layers': LAYERS,
  'model.bias': 'all',
  'model.tie_embeddings': False,
  'optim.name': 'muon',
  'optim.learning_rate': RATE,
  'optim.warmup': 0,
  'optim.final_fraction': 1.0,
  'optim.clip': 0.0,
}
MATRICES = {f'layers/w_{name}' for name in ('q', 'k', 'v', 'o', 'in', 'out')}


def updates_of(gradients, **fields):
  """{path: update} of the last of several steps with these gradients, and the state after it."""
  c = config.load(BASE, FIELDS | fields)
  optimizer = make_optimizer(c.optim, STEPS, c.train.trained_parameters)
  model = build(c, data.VOCAB, nnx.Rngs(0))
  state = optimizer.init(model)
  for gradient in gradients:
    updates, state = jax.jit(optimizer.update)(gradient, state, model)
  return leaves_by_path(updates), leaves_by_path(state)


@pytest.fixture(scope='module')
def gradients():
  """Gradients of two steps: normal numbers, of another size in each layer."""
  model = build(config.load(BASE, FIELDS), data.VOCAB, nnx.Rngs(0))
  draw = np.random.default_rng(0)

  def gradient(path, leaf):
    sizes = 10.0 ** np.arange(leaf.shape[0]).reshape(-1, *[1] * (leaf.ndim - 1))
    is_layer = path[0].name == 'layers'
    return (draw.normal(size=leaf.shape) * (sizes if is_layer else 1)).astype(np.float32)

  return [jax.tree_util.tree_map_with_path(gradient, model) for _ in range(2)]


def test_nothing_of_muon_is_left_to_the_defaults_of_optax(monkeypatch):
  given, scale = {}, optax.contrib.scale_by_muon
  monkeypatch.setattr(
    optax.contrib, 'scale_by_muon', lambda **options: given.update(options) or scale(**options)
  )
  c = config.load(BASE, FIELDS)
  make_optimizer(c.optim, STEPS, c.train.trained_parameters)
  known = inspect.signature(scale).parameters
  assert given.keys() == known.keys() - {'mu_dtype', 'adaptive'}  # None and False: as AdamW


def muon_update(gradients):
  """The update of one matrix after its gradients, by the formulas in float64."""
  momentum = 0.0
  for step, gradient in enumerate(np.array(gradients, np.float64), 1):
    momentum = 0.95 * momentum + 0.05 * gradient
    # Nesterov's: the momentum after one more step of the same gradient
    x = 0.95 * momentum / (1 - 0.95 ** (step + 1)) + 0.05 * gradient / (1 - 0.95**step)
  x /= np.linalg.norm(x)
  for _ in range(5):
    square = x @ x.T
    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
  return -RATE * 0.2 * max(x.shape) ** 0.5 * x


def test_a_stack_is_updated_as_so_many_matrices(gradients):
  updates, _ = updates_of(gradients)
  given = [leaves_by_path(gradient) for gradient in gradients]
  for path in MATRICES:
    for layer in range(LAYERS):
      expected = muon_update([gradient[path][layer] for gradient in given])
      np.testing.assert_allclose(updates[path][layer], expected, atol=1e-5 * RATE)


def test_directions_of_an_update_have_steps_of_a_size_and_elements_that_of_adamw(gradients):
  updates, _ = updates_of(gradients)
  for path in MATRICES:
    sizes = np.linalg.svd(updates[path], compute_uv=False)
    usual = RATE * 0.2 * max(updates[path].shape[-2:]) ** 0.5
    assert 0.6 * usual < sizes.min() <= sizes.max() < 1.3 * usual
    elements = np.sqrt(np.mean(np.square(updates[path]), axis=(1, 2)))
    np.testing.assert_allclose(elements, 0.2 * RATE, rtol=0.15)


@pytest.mark.parametrize('multiple', [1.0, 0.25])
def test_all_but_the_matrices_of_the_layers_moves_as_with_adamw(gradients, multiple):
  """An encoding's parameters too, and token embedding and output matrix."""
  fields = {'optim.encoding_multiple': multiple, 'optim.weight_decay': 0.1}
  muon, _ = updates_of(gradients, **fields)
  adam, _ = updates_of(gradients, **fields, **{'optim.name': 'adamw'})
  alike = {path for path in adam if np.array_equal(muon[path], adam[path])}
  assert alike == adam.keys() - MATRICES
  assert {'embedding', 'w_logits', 'encodings/variants/0/encoding/table', 'layers/b_q'} <= alike


def test_weight_decay_is_that_of_adamw(gradients):
  decay, model = 0.1, leaves_by_path(build(config.load(BASE, FIELDS), data.VOCAB, nnx.Rngs(0)))
  plain, _ = updates_of(gradients)
  decayed, _ = updates_of(gradients, **{'optim.weight_decay': decay})
  for path in MATRICES:
    expected = plain[path] - RATE * decay * model[path]
    np.testing.assert_allclose(decayed[path], expected, rtol=1e-4, atol=1e-7)


def test_a_matrix_has_one_moment_and_what_does_not_train_has_none(gradients):
  _, state = updates_of(gradients)
  moments = lambda path, state: [found for found in state if found.endswith(f'/{path}')]
  assert all(len(moments(path, state)) == 1 for path in MATRICES)
  assert len(moments('embedding', state)) == 2
  patterns = 'encodings/*', 'layers/w_[qk]'
  _, partial = updates_of(gradients, **{'train.trained_parameters': patterns})
  held = {path for path in partial if {'mu', 'nu'} & {*path.split('/')}}
  assert len(held) == 2 + 2  # of the table both, of each of two matrices one


@pytest.mark.ci
def test_seeds_in_one_program_in_microbatches_go_on_with_the_same_bits(corpus, tmp_path, capsys):
  more = {'data.corpus': corpus, 'train.grad_accum_steps': 2, 'optim.clip': 1.0}
  make = lambda **seeds: config.load(BASE, {**FIELDS, **more, **seeds})
  c, whole, cut = make(seeds=(3, 0), vmap_seeds=True), tmp_path / 'whole', tmp_path / 'cut'
  loop.train(c, whole)
  of_seeds = lambda folder: [config.seed_workdir(folder, seed) for seed in c.seeds]
  for folder, copy in zip((whole, *of_seeds(whole)), (cut, *of_seeds(cut)), strict=True):
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / 'checkpoints' / str(STEPS))
  capsys.readouterr()
  loop.train(c, cut)
  assert 'going on from step 8' in capsys.readouterr().out
  saved = [saved_state(folder) for folder in (whole, cut)]
  jax.tree.map(np.testing.assert_array_equal, *saved)
  assert {f'1/inner_states/muon/inner_state/0/mu/{path}' for path in MATRICES} <= {*saved[0][1]}

  loop.train(make(seed=0), tmp_path / 'alone')
  assert_close(config.seed_workdir(whole, 0), tmp_path / 'alone')
  rows = storage.read_rows(tmp_path / 'alone' / 'metrics.jsonl')
  losses = [row['loss'] for row in rows if 'loss' in row]
  assert losses[-1] < losses[0] - 1


def saved_state(folder):
  """Parameters and state of the optimizer of a run's last checkpoint, {path: array} each."""
  with Checkpoints(folder) as checkpoints:
    return [checkpoints.as_saved(name)[0] for name in ('model', 'opt_state')]
