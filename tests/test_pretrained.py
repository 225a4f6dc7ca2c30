"""Pretrained models: every family against transformers' logits, there and back, refusals."""

import dataclasses
import json
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from kinds import daily_if

from configs import base
from posenc_jax import storage, sweep
from posenc_jax.config import load_study, overlay, saved_config, to_json
from posenc_jax.data.tokenizers import TokenizerJson
from posenc_jax.errors import UserError
from posenc_jax.evaluation import preflight
from posenc_jax.evaluation.evaluate import evaluate_run
from posenc_jax.model.decoder import attention_options
from posenc_jax.pretrained import exporting, families, gguf_file, importing, sources
from posenc_jax.reporting import study
from posenc_jax.training import loop
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.run_dir import source_of
from scripts.conformance.command import GOLDEN
from scripts.conformance.pretrained import MODELS, TOKENS, weights

ROOT = Path(__file__).parent.parent
RECORDS = json.loads((GOLDEN / 'pretrained.json').read_text())
DAILY = ('llama3_tied', 'smollm3', 'gemma3', 'phi3_longrope', 'gpt_neox', 'gpt2', 'bloom')
TOKENIZER = exporting.byte_tokenizer(256)
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


def imported(folder):
  source = sources.open_source(str(folder))
  form = families.form_of(source.fields, source.name)
  config = importing.config_of(base.get_config(), source, form)
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
  again, _, _ = imported(tmp_path / 'out')
  assert again.model == config.model
  assert again.encoding == config.encoding


SAME_FAMILY = ('llama', 'llama_biases', 'llama3_tied', 'llama_yarn', 'mistral', 'qwen2', 'qwen3')
SAME_FAMILY += ('olmo2', 'gpt_neox', 'gpt_neox_serial', 'gpt2', 'bloom')


@pytest.mark.parametrize('name', SAME_FAMILY)
def test_a_run_alone_says_its_family(name, tmp_path):
  """Without the config.json that it came with, as a model that was trained here."""
  folder = save(tmp_path / 'm', name)
  config, model, source = imported(folder)
  fields, form = exporting.fields_of(config, 23, 1, None)
  assert fields['model_type'] == source.fields['model_type']
  assert form.model | {'vocab': 23} == families.form_of(source.fields, '').model
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  expected = safetensors.numpy.load_file(folder / 'model.safetensors')
  assert exporting.tensors_of(form, leaves).keys() == expected.keys()


def test_a_scaled_embedding_becomes_two_matrices(tmp_path):
  config, model, _ = imported(save(tmp_path / 'm', 'llama3_tied'))
  with config.unlocked():
    config.model.embedding_scale = 0.0
  model.embedding_scale = 12**0.5
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, None, None, tmp_path / 'out')
  _, again, _ = imported(tmp_path / 'out')
  np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=2e-5)


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
  assert '\n' not in str(error.value)


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
    ('llama', {'bos_token_id': 99}, 'names no bos_token_id'),
    ('qwen2', {'use_sliding_window': True}, 'use_sliding_window=True; allowed: False'),
    ('mpt', {'attn_config': {'alibi': False}}, 'alibi=False; allowed: True'),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx=True'),
    ('gemma2', {'attn_logit_softcapping': None}, 'attn_logit_softcapping=None; allowed: a number'),
    ('smollm3', {'no_rope_layers': [1, 2]}, '5 numbers, each 0 or 1'),
  ],
)
def test_what_is_not_covered_is_named(name, fields, message, tmp_path):
  with pytest.raises(UserError) as error:
    imported(save(tmp_path / 'm', name, fields))
  assert message in str(error.value)
  assert '\n' not in str(error.value)


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


def test_an_imported_run_is_a_run_like_any_other(tmp_path, monkeypatch):
  """It is evaluated, tuned with another encoding, and goes back to a folder of transformers."""
  folder = save(tmp_path / 'm', 'llama3_tied')
  (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
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
  evaluate_run(run, {})
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
  with pytest.raises(UserError, match=r"config\.encoding=.*'t5'"):
    exporting.export_run(tuned, tmp_path / 'tuned', tmp_path / 'out', 'float32')
  assert not (tmp_path / 'out').exists()
  exporting.export_run(saved_config(run), run, tmp_path / 'out', 'float32')
  before, after = (
    safetensors.numpy.load_file(f / 'model.safetensors') for f in (folder, tmp_path / 'out')
  )
  jax.tree.map(np.testing.assert_array_equal, after, before)
  assert (tmp_path / 'out' / 'tokenizer.json').read_bytes() == SMALL_TOKENIZER


def write_gguf(path, name='llama', **metadata):
  """A GGUF file of a golden model, in float32, with queries and keys permuted as converters do."""
  import gguf

  record = RECORDS[name]
  config = record['config']
  writer = gguf.GGUFWriter(path, 'llama')
  H = config['num_attention_heads']
  writer.add_block_count(config['num_hidden_layers'])
  writer.add_context_length(config['max_position_embeddings'])
  writer.add_embedding_length(config['hidden_size'])
  writer.add_feed_forward_length(config['intermediate_size'])
  writer.add_head_count(H)
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  writer.add_rope_freq_base(1e4)
  writer.add_vocab_size(config['vocab_size'])
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre('smollm')
  writer.add_token_list([chr(97 + n) for n in range(23)])
  writer.add_token_merges(['a b'])
  writer.add_bos_token_id(1)
  for key, value in metadata.items():
    writer.add_uint32(key, value)
  back = {long: short for short, long in gguf_file.TENSORS.items()}
  for key, shape in record['shapes'].items():
    parts = key.split('.')
    number = next((part for part in parts if part.isdigit()), None)
    x = weights(key, shape)
    if key.endswith(('q_proj.weight', 'k_proj.weight')):
      x = x.reshape(H, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    own = back[key.replace(f'.{number}.', '.{n}.')].format(n=number)
    writer.add_tensor(own, np.ascontiguousarray(x))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.mark.parametrize(
  ('name', 'runs'), [('pretrained', 14), ('studies/pretrained_4', 14), ('swap', 6)]
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
  overlay(config, {'train.length': 8192})
  storage.write_json(Path('runs/smollm2/config.json'), to_json(config))
  planned = sweep.plan(path, 'out', {})
  assert len({run.workdir for run in planned}) == runs
  for run in planned:
    preflight.check_model(run.config)
  study.of_study(path, Path('out'), planned=[run.config for run in planned])
  assert f'--config=configs/{name}.py' in load_study(path).__doc__


def test_a_gguf_file_is_the_same_model(tmp_path):
  _, expected, _ = imported(save(tmp_path / 'm', 'llama'))
  config, model, source = imported(write_gguf(tmp_path / 'm.gguf'))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert config.train.length == 32
  assert json.loads(source.tokenizer)['model']['merges'] == [['a', 'b']]


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


def test_bytes_are_tokens_of_an_exported_tokenizer():
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_buffer(exporting.byte_tokenizer(256))
  text = 'a\n  \tÄ €'
  assert tokenizer.encode(text).ids == list(text.encode())
  assert tokenizer.decode(list(text.encode())) == text
  own = TokenizerJson(exporting.byte_tokenizer(256), 'tokenizer.json')
  assert own.decode(range(256)) == bytes(range(256))  # also of what is no text
