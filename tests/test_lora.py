"""LoRA: its formula, its start, what trains beside it, its runs, and exports without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import logits
from flax import nnx
from kinds import daily_if
from small_models import TOKENIZER, imported, save
from small_runs import BASE, TINY
from test_decoding import assert_decodes
from test_evaluation import rows_of
from test_exporting import exported_run
from test_model import VOCAB, config, model, tokens

from posenc_jax import data
from posenc_jax.config import load, overlay, saved_config, to_json, trained_config, validate
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, preflight
from posenc_jax.inspection import parameter_counts
from posenc_jax.model.decoder import LM, build, shapes
from posenc_jax.model.lora import merge
from posenc_jax.model.token_nll import token_nll
from posenc_jax.pretrained import exporting
from posenc_jax.training import loop
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.init_from import check_lora
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.taken_parameters import parameters_in
from scripts.maintenance.conformance.pretrained import TOKENS

RANK, ALPHA = 3, 4.5
ALL = ('w_q', 'w_k', 'w_v', 'w_o', 'w_output_gate', 'w_in', 'w_gate', 'w_out')
EVERYWHERE = {
  'model__layers': 2,
  'model__mlp': 'swiglu',
  'model__output_gate': 'elementwise',
  'model__bias': 'all',
  'model__kv_heads': 2,
}


def lora(matrices, rank=RANK, separator='__'):
  fields = {'lora_rank': rank, 'lora_alpha': ALPHA, 'lora_matrices': tuple(matrices)}
  return {f'model{separator}{name}': value for name, value in fields.items()}


def away(made: LM) -> LM:
  """The model with parameters of LoRA away from their initial values."""
  rng = np.random.default_rng(0)

  def drawn(path, x):
    is_lora = '.lora' in jax.tree_util.keystr(path)
    return jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype) if is_lora else x

  return jax.tree_util.tree_map_with_path(drawn, made)


def without(made: LM, plain: LM) -> LM:
  """`plain` with the parameters of `made`, whose LoRA is written into its matrices."""
  leaves = {path: np.float64(x) for path, x in leaves_by_path(made).items()}
  for name in ALL:
    if f'layers/lora/{name}/a' in leaves:
      a, b = (leaves[f'layers/lora/{name}/{part}'] for part in 'ab')
      leaves[f'layers/{name}'] += ALPHA / RANK * np.einsum('nir,nro->nio', a, b)
  found = [jnp.asarray(leaves[path], jnp.float32) for path in leaves_by_path(plain)]
  return jax.tree.unflatten(jax.tree.structure(plain), found)


def test_values_and_gradients_are_those_of_matrices_that_hold_the_product():
  """Gradients of A and B follow by the chain rule from those of W + alpha / r A B."""
  made = away(model(**EVERYWHERE, **lora(ALL)))
  merged, x = without(made, model(**EVERYWHERE)), tokens()
  loss = jax.jit(jax.value_and_grad(lambda m: token_nll(m, x).mean()))
  (nats, found), (expected_nats, expected) = loss(made), loss(merged)
  np.testing.assert_allclose(nats, expected_nats, rtol=1e-5)
  leaves, found, of_w = (leaves_by_path(tree) for tree in (made, found, expected))
  for name in ALL:
    a, b = (leaves[f'layers/lora/{name}/{part}'] for part in 'ab')
    g = ALPHA / RANK * of_w[f'layers/{name}']
    by_rule = {'a': jnp.einsum('nio,nro->nir', g, b), 'b': jnp.einsum('nir,nio->nro', a, g)}
    for part, gradient in by_rule.items():
      assert np.abs(gradient).max() > 1e-4
      np.testing.assert_allclose(
        found[f'layers/lora/{name}/{part}'], gradient, atol=1e-6, rtol=1e-3
      )
  for path, gradient in of_w.items():
    np.testing.assert_allclose(found[path], gradient, atol=1e-6, rtol=1e-3, err_msg=path)


def test_it_begins_as_the_model_without():
  """No other parameter is drawn otherwise; each A has draws and a scale of its own."""
  plain, made = model(**EVERYWHERE), model(**EVERYWHERE, **lora(ALL))
  np.testing.assert_array_equal(logits(made, tokens()), logits(plain, tokens()))
  before, after = leaves_by_path(plain), leaves_by_path(made)
  new = after.keys() - before.keys()
  assert new == {f'layers/lora/{name}/{part}' for name in ALL for part in 'ab'}
  for path, x in before.items():
    np.testing.assert_array_equal(after[path], x, path)
  for path in new:
    assert np.any(after[path]) == path.endswith('/a')
  a_of = lambda made, name: made.layers.lora[name].a[...]
  assert not np.array_equal(a_of(made, 'w_q')[0], a_of(made, 'w_q')[1])
  assert not np.array_equal(a_of(made, 'w_q'), a_of(made, 'w_in'))
  few = model(**EVERYWHERE, **lora(['w_q']))
  np.testing.assert_array_equal(a_of(few, 'w_q'), a_of(made, 'w_q'))
  wide = build(config(**lora(['w_out'], 12), model__mlp_dim=400), VOCAB, nnx.Rngs(0))
  assert float(jnp.std(a_of(wide, 'w_out'))) == pytest.approx(400**-0.5, rel=0.05)


def test_a_cache_sees_it():
  made = away(model(**EVERYWHERE, **lora(ALL)))
  plain = logits(model(**EVERYWHERE), tokens())
  assert np.abs(logits(made, tokens()) - plain).max() > 0.01
  assert_decodes(made, sizes=(4, 1, 3))


def test_its_parameters_are_a_part_of_their_own():
  plain, made = (parameter_counts.by_part(model(**more)) for more in ({}, lora(['w_q', 'w_out'])))
  assert made == plain | {'LoRA': 3 * RANK * ((16 + 24) + (24 + 16))}


def test_flax_finds_them_by_their_kind():
  made = model(**lora(['w_q', 'w_out']))
  found = nnx.state(made, nnx.LoRAParam)
  assert sorted(leaves_by_path(found)) == [
    path for path in sorted(leaves_by_path(made)) if path.startswith('layers/lora/')
  ]
  assert len(leaves_by_path(found)) == 4


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'model.lora_rank': 2}, 'config.model.lora_rank=2; allowed: 0 with model.lora_matrices=()'),
    ({'model.lora_matrices': ('w_q',)}, 'allowed: () with model.lora_rank=0'),
    (
      {'model.lora_alpha': 8.0},
      'config.model.lora_alpha=8.0; allowed: 16.0 with model.lora_rank=0',
    ),
    ({'model.lora_alpha': 0.0}, 'allowed: more than 0'),
    (
      lora(['w_q'], separator='.'),
      "config.train.trained_parameters=(); allowed: patterns, such as ('layers/lora/*',), with "
      'model.lora_rank=3',
    ),
  ],
)
def test_fields_without_effect_and_a_base_that_trains_are_refused(changes, said):
  with pytest.raises(UserError) as error:
    validate(load(BASE, changes))
  assert said in str(error.value)
  no_steps = {'train.steps': 0, 'train.init_from': 'runs/a'}
  validate(load(BASE, lora(['w_q'], separator='.') | no_steps))


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (lora(['w_q', 'w_r'], separator='.'), "model.lora_matrices: no 'w_r'; allowed: w_q, w_k, w_v,"),
    (lora(['w_gate'], separator='.'), "no 'w_gate'; allowed: w_q, w_k, w_v, w_o, w_in, w_out"),
    (lora(['w_v'], separator='.') | {'model.shared_kv': True}, "no 'w_v'"),
    (lora(['w_in', 'w_q'], 16, '.'), 'model.lora_rank=16: w_in is 16 x 32; allowed: less than 16'),
  ],
)
def test_matrices_that_a_layer_lacks_and_too_large_a_rank_are_refused(changes, said):
  with pytest.raises(UserError) as error:
    preflight.check_model(load(BASE, TINY | changes))
  assert said in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('pattern', 'name'),
  [
    ('embedding', 'w_q'),
    ('layers/lora/*/a', 'w_q'),  # whose gradient is zero as long as B is
    ('layers/lora/w_q/*', 'w_v'),
    ('layers/lora/*/b', None),
  ],
)
def test_lora_that_begins_as_zeros_and_does_not_train_is_refused(pattern, name):
  fields = TINY | lora(['w_q', 'w_v'], separator='.')
  c = load(BASE, fields | {'train.trained_parameters': (pattern,)})
  says = (
    f'config.train.trained_parameters={(pattern,)}: layers/lora/{name}/b begins as zeros and '
    "would not train; allowed: 'layers/lora/*' besides, with model.lora_rank=3"
  )
  assert preflight.check_all([(to_json(c), [])]) == (name and (0, says))


@pytest.mark.parametrize('optimizer', ['adamw', pytest.param('muon', marks=pytest.mark.slow)])
def test_a_run_is_tuned_by_it_alone_and_another_goes_on_from_there(
  optimizer, corpus, tmp_path, capsys
):
  """The base stays bit for bit and has no moments; the run is evaluated; one of another rank, or
  without, is not taken for it.
  """
  short = {'train.steps': 3, 'train.checkpoint_every': 3, 'optim.warmup': 1, 'eval.controls': ()}
  short |= {'eval.protocols': ('last_k',), 'optim.weight_decay': 0.1, 'optim.name': optimizer}
  short |= {'eval.split': 'validation', 'eval.documents': 1}
  fields = {**TINY, 'data.corpus': corpus, **short}
  tuned = lora(['w_q', 'w_out'], separator='.') | {'train.trained_parameters': ('layers/lora/*',)}

  def run(name, start='', **more):
    c = load(BASE, fields | {'train.init_from': str(start)} | more)
    loop.train(c, tmp_path / name)
    return c, parameters_in(tmp_path / name).leaves

  _, base = run('base')
  capsys.readouterr()
  c, once = run('once', tmp_path / 'base', **tuned)
  new = sorted(once.keys() - base.keys())
  assert len(new) == 4
  assert f'has no {", ".join(new)}: as a new model has them' in capsys.readouterr().out
  for path, x in base.items():
    np.testing.assert_array_equal(once[path], x, path)
  start = leaves_by_path(build(c, data.VOCAB, nnx.Rngs(c.seed)))
  assert not any(np.array_equal(once[path], start[path]) for path in new)
  with Checkpoints(tmp_path / 'once') as checkpoints:
    state, *_ = checkpoints.as_saved('opt_state')
  moments = [path for path in state if 'mu' in path.split('/')]
  assert len(moments) == len(new)
  assert len([path for path in state if 'nu' in path.split('/')]) == 4 * (optimizer == 'adamw')

  _, taken = run('taken', tmp_path / 'once', **tuned, **{'train.steps': 0})
  assert 'has no' not in capsys.readouterr().out
  scores = []
  for name in ('base', 'once', 'taken'):
    evaluate.evaluate(trained_config(tmp_path / name, {}), tmp_path / name)
    scores.append([row['nats'] for row in rows_of(tmp_path / name)])
  assert scores[1] == scores[2] != scores[0]
  jax.tree.map(np.testing.assert_array_equal, taken, once)
  with pytest.raises(UserError, match=r'layers/lora/w_out/a of shape \(1, 32, 3\), but the config'):
    run('other', tmp_path / 'once', **tuned | {'model.lora_rank': 2})
  fixed = {'train.trained_parameters': ('embedding',)}
  for start in ('once', 'to come'):
    check_lora(load(BASE, fields | tuned | fixed | {'train.init_from': str(tmp_path / start)}))
  with pytest.raises(UserError, match='layers/lora/w_q/b begins as zeros and would not train'):
    run('fixed', tmp_path / 'base', **tuned | fixed)
  run('dropped', tmp_path / 'once', **{'train.steps': 0})
  assert f'{tmp_path / "once"} has {", ".join(new)}: dropped' in capsys.readouterr().out


def test_its_matrices_decay_as_others_do():
  c = load(BASE, TINY | lora(['w_q'], separator='.') | {'optim.weight_decay': 0.5})
  made, patterns = away(build(c, data.VOCAB, nnx.Rngs(0))), ('layers/lora/*',)
  optimizer = make_optimizer(c.optim, c.train.steps, patterns)
  zero = jax.tree.map(jnp.zeros_like, made)
  updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(made), made)
  leaves = leaves_by_path(made)
  for path, update in leaves_by_path(updates).items():
    of_lora = path.startswith('layers/lora/')
    wanted = -0.03 / 2 * 0.5 * leaves[path] if of_lora else np.zeros(update.shape)
    np.testing.assert_allclose(update, wanted, rtol=1e-5)


# Outputs first, inputs first, one tensor for queries, keys and values or for both of an MLP, by
# heads, factors in parameters.
FAMILIES = ('llama3_tied', 'gpt2', 'gpt_neox', 'phi3', 'gemma', 'granite')


@pytest.mark.parametrize(
  'name', [pytest.param(x, marks=daily_if(x in FAMILIES[:3], 'ci')) for x in FAMILIES]
)
def test_an_export_has_it_in_its_matrices(name, tmp_path):
  """The logits are those of the run, and no other tensor is changed."""
  c, plain, source = imported(save(tmp_path / 'm', name))
  has_gate = plain.layers.w_gate is not None
  names = [x for x in ALL if x != 'w_output_gate' and (has_gate or x != 'w_gate')]
  overlay(c, lora(names, 2, '.'))
  made = away(build(c, len(plain.embedding), nnx.Rngs(0)))
  found = leaves_by_path(made) | leaves_by_path(plain)
  made = jax.tree.unflatten(jax.tree.structure(made), found.values())
  leaves = {path: np.asarray(x) for path, x in found.items()}
  merge(leaves, c.model)
  assert leaves.keys() == leaves_by_path(plain).keys()
  assert all(x.dtype == np.float32 for x in leaves.values())
  exporting.export_model(c, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out')
  _, again, _ = imported(tmp_path / 'out')
  expected = logits(made, TOKENS)
  assert np.abs(expected - logits(plain, TOKENS)).max() > 0.01
  np.testing.assert_allclose(logits(again, TOKENS), expected, atol=1e-5 * np.abs(expected).max())


def test_a_run_that_has_it_goes_out_merged_and_says_so(tmp_path, capsys):
  changes = {'encoding.name': 'rope', **lora(['w_q', 'w_out'], 2, '.')}
  changes |= {'train.trained_parameters': ('layers/lora/*',)}
  kind, files = exported_run(tmp_path / 'a', changes)
  assert 'LoRA is added to w_q, w_out: W + 2.25 A B\n' in capsys.readouterr().out
  _, plain = exported_run(tmp_path / 'b', {'encoding.name': 'rope'})
  assert kind == 'llama'
  assert files == plain  # B begins as zeros
  c, _ = (saved_config(tmp_path / 'a'), capsys.readouterr())
  made = shapes(c, 257)
  assert exporting.family_of(c, leaves_by_path(made)) == 'llama'
