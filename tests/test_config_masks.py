"""What a config's section `attention` says holds in training, in evaluation and in generation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import logits, nll
from flax import nnx
from small_runs import BASE, MODEL

from posenc_jax import config
from posenc_jax.data import Batch
from posenc_jax.evaluation import generation
from posenc_jax.evaluation.model_functions import compiled, predictions
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

VOCAB, T = 20, 12
MASK = {'window': 3, 'chunk': 4, 'sink_tokens': 2, 'softcap': 0.2}
SEEN = 1e-3  # nats that a mask changes somewhere
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


@pytest.fixture(scope='module')
def c():
  """A config with every mask at once, each of which hides or bends something that others do not."""
  own = {f'attention.{name}': value for name, value in MASK.items()}
  return config.load(BASE, {**MODEL, 'train.length': T, 'encoding.name': 'rope', **own})


@pytest.fixture(scope='module')
def model(c):
  model = build(c, VOCAB, nnx.Rngs(0))
  model.layers.w_q[...] *= 8  # so that weights are far from equal
  return model


@pytest.fixture(scope='module')
def tokens_BT():
  return np.random.default_rng(0).integers(0, VOCAB - 1, (2, T), np.int32)


@pytest.fixture(scope='module')
def expected(model, tokens_BT):
  """Nats [B, T] under all masks; without any one of them, they are others."""
  nats_BT = nll(model, tokens_BT, **MASK)
  for name in MASK:
    without = nll(model, tokens_BT, **{key: MASK[key] for key in MASK if key != name})
    assert np.abs(without - nats_BT).max() > SEEN, name
  return nats_BT


@pytest.mark.ci
def test_training_and_validation_see_what_the_config_says(c, model, tokens_BT, expected):
  optimizer = make_optimizer(c.optim, c.train.steps)
  train_step, val_step = make_step_fns(c, optimizer)
  batch = Batch(tokens_BT)
  close(val_step(model, batch), expected.mean())
  copy = jax.tree.map(jnp.copy, model)  # a step takes what it is given for itself
  *_, metrics = train_step(copy, optimizer.init(copy), batch)
  close(metrics['loss'], expected.mean())


def test_evaluation_sees_what_the_config_says(c, model, tokens_BT, expected):
  measured = compiled(token_nll, c)
  close(measured(model, tokens_BT), expected)
  close(compiled(predictions, c)(model, tokens_BT)[1], expected)
  # a control's window does not widen the config's, and its sink tokens do not hide the config's
  close(measured(model, tokens_BT, window=5, sink_tokens=1), expected)
  narrower = measured(model, tokens_BT, window=2, sink_tokens=3)
  close(narrower, nll(model, tokens_BT, **MASK | {'window': 2, 'sink_tokens': 3}))
  assert np.abs(narrower - expected).max() > SEEN


def test_generation_sees_what_the_config_says(c, model, tokens_BT, monkeypatch):
  """The tokens of the prompt and those that are drawn later, one by one."""
  found, count = [], 4

  def draw_likeliest(logits_V, *_):
    jax.debug.callback(found.append, logits_V)
    return jnp.argmax(logits_V)

  monkeypatch.setattr(generation, 'draw', draw_likeliest)
  sampling, everything_V = generation.Sampling(0.0), np.ones(VOCAB, bool)
  drawn = list(generation.tokens_after(model, tokens_BT[0], count, sampling, c, everything_V))
  jax.effects_barrier()
  inputs_1T = np.array([[model.bos, *tokens_BT[0], *drawn[:-1]]], np.int32)
  close(np.stack(found), logits(model, inputs_1T, **MASK)[0, -count:])
