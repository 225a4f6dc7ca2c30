"""Runs that go out as folders of transformers: there and back, fields, files, tokenizers."""

import hashlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from compiled_models import logits
from flax import nnx
from small_models import RECORDS, TOKENIZER, config_of, imported, save

from configs import base
from posenc_jax import storage
from posenc_jax.config import overlay, saved_config, scalings, to_json
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.errors import UserError
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model.decoder import build
from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.pretrained import exported_fields, exporting, families, importing, sources
from posenc_jax.pretrained.exported_tokenizers import (
  BOS,
  about_tokenizer,
  byte_tokenizer,
  naming_bos,
  with_bos,
)
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.run_dir import claim_run_dir
from scripts.maintenance.conformance.pretrained import MODELS, TOKENS, weights

OF_GRANITE = ('model.norm', 'q_proj', 'o_proj', 'down_proj', 'output_linear')
INEXACT = dict.fromkeys(('gemma', 'gemma3', 'gemma3_linear', 'nemotron'), ('norm',))
INEXACT |= {'gemma2': ('norm', 'q_proj'), 'gpt2': ('wpe',)}
INEXACT |= dict.fromkeys(('granite', 'granite_swa', 'granite_swa_plain'), OF_GRANITE)
INEXACT |= {'granitemoehybrid': OF_GRANITE}


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
  for key in before:
    if any(part in key for part in INEXACT.get(name, ())):
      np.testing.assert_allclose(after[key], before[key], rtol=1e-6, atol=1e-7)
    else:
      np.testing.assert_array_equal(after[key], before[key])
  again = config_of(sources.open_source(str(tmp_path / 'out')))
  assert again.model == config.model
  assert again.encoding == config.encoding


@pytest.mark.parametrize(
  ('name', 'kind'),
  [('granite', 'llama'), ('gemma', 'llama'), ('seed_oss', 'qwen2'), ('helium', 'glm')],
)
def test_a_run_alone_goes_out_in_a_family_that_equals_its_own(name, kind, tmp_path):
  """Factors of Granite and of Gemma are in the parameters then."""
  config, model, _ = imported(save(tmp_path / 'm', name))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  assert exporting.export_model(config, leaves, 1, None, TOKENIZER, tmp_path / 'out') == kind
  config, again, _ = imported(tmp_path / 'out')
  with jax.default_matmul_precision('highest'):
    np.testing.assert_allclose(logits(again, TOKENS), logits(model, TOKENS), atol=2e-5)


def test_before_its_training_a_run_is_of_the_family_that_it_starts_from(tmp_path):
  config, model, source = imported(save(tmp_path / 'm', 'gemma'))
  storage.write_json(tmp_path / 'source_config.json', source.fields)
  leaves = leaves_by_path(model)
  for start, kind in ((str(tmp_path), 'gemma'), ('', 'llama')):
    overlay(config, {'train.init_from': start})
    assert exporting.family_of(config, leaves) == kind


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


def test_numbers_that_float16_does_not_know_are_refused(tmp_path):
  """They would be infinite in the file, and NaN in what reads it."""
  config, model, source = imported(save(tmp_path / 'm', 'llama'))
  leaves = {path: np.array(leaf) for path, leaf in leaves_by_path(model).items()}
  leaves['norm/scale'][3] = -7e4
  arguments = config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out'
  message = 'model.norm.weight has a number of size 70000; allowed: --dtype=bfloat16 or'
  with pytest.raises(UserError, match=f'^{message}'):
    exporting.export_model(*arguments, 'float16')
  assert not (tmp_path / 'out').exists()
  exporting.export_model(*arguments, 'bfloat16')


def test_layers_of_one_variant_do_not_go_out_as_those_of_two(tmp_path):
  """A run whose layers with and without a window, alike but for that, share the sinks' array."""
  config, model, source = imported(save(tmp_path / 'm', 'granite_swa_plain'))
  with config.unlocked():
    for layer in config.encoding.layers:
      layer['members'][0].pop('fraction', None)
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  with pytest.raises(UserError, match='granite_swa, the family of its source, has its own'):
    exporting.export_model(config, leaves, 1, source.fields, TOKENIZER, tmp_path / 'out')


SAME_FAMILY = ('llama', 'llama_biases', 'llama3_tied', 'llama_yarn', 'mistral', 'ministral')
SAME_FAMILY += ('ministral3', 'qwen2', 'qwen3', 'smollm3', 'olmo2', 'olmo3')
SAME_FAMILY += ('exaone4', 'exaone4_whole', 'ernie4_5', 'glm', 'glm4', 'gemma2', 'gemma3')
SAME_FAMILY += ('starcoder2', 'stablelm', 'gpt_neox', 'gpt_neox_serial', 'gpt2', 'bloom')


@pytest.mark.parametrize('name', SAME_FAMILY)
def test_a_run_alone_says_its_family(name, tmp_path):
  """Without the config.json that it came with, as a model that was trained here."""
  folder = save(tmp_path / 'm', name)
  config, model, source = imported(folder)
  with config.unlocked():
    config.model.kv_heads = config.model.kv_heads or config.model.heads  # said otherwise
  fields, form = exported_fields.fields_of(config, 23, 1, None)
  assert fields['model_type'] == source.fields['model_type']
  assert form.model | {'vocab': 23} == families.form_of(source.fields, '').model
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  expected = safetensors.numpy.load_file(folder / 'model.safetensors')
  assert dict(exporting.tensors_of(form, leaves)).keys() == expected.keys()


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


BYTES = json.loads(byte_tokenizer(256)) | {'added_tokens': [], 'post_processor': None}
BYTES['model']['vocab'].pop(BOS)  # 256 tokens, and nothing before a text


def exported_run(run, changes, rows=257):
  """(family, {file: contents}) of the export of a run with its initial parameters."""
  sizes = {'layers': 1, 'model_dim': 8, 'heads': 2, 'head_dim': 4, 'mlp_dim': 8, 'mlp': 'swiglu'}
  config = base.get_config()
  overlay(config, {f'model.{field}': x for field, x in sizes.items()} | changes)
  claim_run_dir(run, config)
  with Checkpoints(run, max_to_keep=1) as checkpoints:
    model = build(config, rows, nnx.Rngs(0))
    checkpoints.save(config.train.steps, model, {'count': np.array(0)})
  kind = exporting.export_run(config, run, run / 'out', 'float32')
  return kind, {file.name: file.read_bytes() for file in (run / 'out').iterdir()}


POSE_LINEAR = {'scaling': {'rope_type': 'linear', 'factor': 8.0}}
POSE_YARN = {'scaling': {'rope_type': 'yarn', 'factor': 8.0}}


@pytest.mark.parametrize(
  ('scaling', 'longest', 'said'),
  [
    # from which a linear scaling leads to 8 times that
    (POSE_LINEAR, None, {'max_position_embeddings': 128, 'max_sequence_length': 1024}),
    (POSE_YARN, None, {'max_position_embeddings': 1024}),
    ({'base': 1e6}, None, {'max_position_embeddings': 1024, 'rope_theta': 1e6}),
    ({'base': 1e6}, 4096, {'max_position_embeddings': 4096, 'rope_theta': 1e6}),
  ],
)
def test_a_run_of_pose_is_exported_as_the_encoding_that_it_was_tuned_for(
  scaling, longest, said, tmp_path
):
  """Which it is at evaluation; trained at the length that its positions reach, from that of its
  windows.
  """
  rope = {'name': 'rope'} | scaling
  encoding = {'name': 'pose', 'inner': rope, 'longest': longest}
  kind, files = exported_run(tmp_path / 'run', {'train.length': 128, 'encoding': encoding})
  fields = json.loads(files['config.json'])
  assert kind == 'llama'
  assert fields | said == fields
  again = changed_config(fields, {})
  assert again.train.length == max(said.values() if 'base' not in scaling else [longest or 1024])
  starts = [own['original_max_position_embeddings'] for own in scalings(to_json(again.encoding))]
  assert starts == [128] * ('scaling' in scaling)


def test_a_run_without_pose_that_starts_from_one_starts_where_it_did(tmp_path):
  """As the last row of a study, which lays over what PoSE was around."""
  rope = {'name': 'rope'} | POSE_LINEAR
  before, length = tmp_path / 'before', {'train.length': 128}
  exported_run(before, length | {'encoding': {'name': 'pose', 'inner': rope}})
  start = {'encoding': rope, 'train.steps': 0, 'train.init_from': str(before)}
  _, files = exported_run(tmp_path / 'run', length | start)
  fields = json.loads(files['config.json'])
  assert (fields['max_position_embeddings'], fields['max_sequence_length']) == (128, 1024)


@pytest.mark.parametrize(
  ('kind', 'base', 'of_trained'),
  [
    ('ntk', 500 * 4 ** (4 / 2), 128),  # a head has 4 channels
    # which starts, as yarn does, from the length of training
    ('theta_scale', 500 ** (math.log(4 * 128 / math.tau) / math.log(128 / math.tau)), 512),
  ],
)
def test_a_scaling_that_is_another_base_is_exported_as_that(kind, base, of_trained, tmp_path):
  """Laid over a run, ntk leads to `factor` times its length; trained with, to that length."""
  plain = {'name': 'rope', 'base': 500.0}
  scaled = plain | {'scaling': {'rope_type': kind, 'factor': 4.0}}
  for name, trained, longest in (('own', scaled, of_trained), ('over', plain, 512)):
    run = tmp_path / name
    exported_run(run, {'train.length': 128, 'encoding': trained})
    config = saved_config(run)
    overlay(config, {'encoding': scaled})
    assert exporting.export_run(config, run, run / 'again', 'float32') == 'llama'
    fields = json.loads((run / 'again' / 'config.json').read_text())
    assert fields['rope_theta'] == pytest.approx(base, rel=1e-13)
    assert fields['max_position_embeddings'] == longest
    assert 'rope_scaling' not in fields


def test_a_longer_table_than_the_run_has_is_not_said(tmp_path):
  """`n_positions` would be that of no tensor."""
  gpt2 = {'model.norm': 'layer', 'model.mlp': 'gelu', 'model.bias': 'all', 'model.mlp_dim': 32}
  gpt2 |= {'encoding.name': 'learned', 'train.length': 16}
  assert exported_run(tmp_path / 'run', gpt2)[0] == 'gpt2'
  config = saved_config(tmp_path / 'run')
  overlay(config, {'encoding.max_length': 32})
  with pytest.raises(
    UserError, match=r'shape \(16, 8\), but the config asks for \(32, 8\); allowed'
  ):
    exporting.export_run(config, tmp_path / 'run', tmp_path / 'out', 'float32')
  assert not (tmp_path / 'out').exists()


def test_an_export_names_what_harnesses_need_to_generate(tmp_path, capsys):
  """EOS and padding are BOS, which no model predicts; config.json has none, so that none ends."""
  _, files = exported_run(tmp_path / 'a', {'encoding.name': 'rope'})
  about, fields = (json.loads(files[name]) for name in ('tokenizer_config.json', 'config.json'))
  tokenizer = tokenizers.Tokenizer.from_buffer(files['tokenizer.json'])
  for kind in ('bos', 'eos', 'pad'):
    assert tokenizer.token_to_id(about[f'{kind}_token']) == 256 == fields['vocab_size'] - 1
  assert fields['eos_token_id'] is None
  assert 'BOS is' not in capsys.readouterr().out
  _, files = exported_run(tmp_path / 'b', {'encoding.name': 'rope', 'model.bos': 10})
  assert 'eos_token' not in json.loads(files['tokenizer_config.json'])
  assert 'BOS is the byte 10, which transformers cannot name; lm_eval' in capsys.readouterr().out


def test_a_run_whose_rows_were_rounded_up_has_its_bos_in_the_last_one(tmp_path):
  """As is faster on GPUs; its tokenizer has no tokens for those between."""
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps(BYTES))
  run, digest = tmp_path / 'run', hashlib.sha256(path.read_bytes()).hexdigest()
  run.mkdir()
  storage.write_json(run / 'tokenizer.json', {'sha256': digest})
  of_tokens = {'data.tokenizer': str(path), 'data.vocab': 257, 'model.vocab': 264}
  kind, files = exported_run(run, {'encoding.name': 'rope'} | of_tokens, 264)
  assert kind == 'llama'
  about, fields = (json.loads(files[name]) for name in ('tokenizer_config.json', 'config.json'))
  assert (fields['vocab_size'], fields['bos_token_id'], about['bos_token']) == (264, 263, BOS)
  source = sources.open_source(str(run / 'out'))
  importing.import_model(base.get_config(), source, tmp_path / 'again')
  assert load_run(tmp_path / 'again').inputs(b'a').tolist() == [[263, 97]]


def test_a_tokenizer_that_was_given_a_bos_is_not_said_to_lack_it(tmp_path, capsys):
  """Nor one that cuts no letter, from which it could not be read."""
  path, model = tmp_path / 'tokenizer.json', {'type': 'WordLevel', 'unk_token': '?'}
  tree = {'version': '1.0', 'model': model | {'vocab': {'A': 0, 'C': 1}}}
  path.write_text(json.dumps(tree | {'pre_tokenizer': {'type': 'WhitespaceSplit'}}))
  run, digest = tmp_path / 'run', hashlib.sha256(path.read_bytes()).hexdigest()
  run.mkdir()
  storage.write_json(run / 'tokenizer.json', {'sha256': digest})
  of_tokens = {'data.tokenizer': str(path), 'data.vocab': 3}
  _, files = exported_run(run, {'encoding.name': 'rope'} | of_tokens, 3)
  assert tokenizers.Tokenizer.from_buffer(files['tokenizer.json']).encode('C A').ids == [2, 1, 0]
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_an_export_has_the_precision_that_is_asked_for(dtype, tmp_path, command):
  exported_run(tmp_path / 'run', {'encoding.name': 'rope'})
  flags = f'--workdir={tmp_path}/run', f'--out={tmp_path}/out', f'--dtype={dtype}'
  _, out, _ = command('scripts/export_model.py', *flags)
  assert out.endswith(f'{tmp_path}/out: a model of the family llama, {dtype}\n')
  assert json.loads((tmp_path / 'out' / 'config.json').read_text())['torch_dtype'] == dtype
  exact, rounded = (
    safetensors.numpy.load_file(folder / 'model.safetensors')
    for folder in (tmp_path / 'run' / 'out', tmp_path / 'out')
  )
  assert {x.dtype for x in rounded.values()} == {jnp.dtype(dtype)}
  for name, x in exact.items():
    np.testing.assert_array_equal(rounded[name], x.astype(dtype))


def test_what_transformers_takes_another_tokenizer_for_is_said(tmp_path, capsys):
  assert exported_run(tmp_path / 'a', {'encoding.name': 'rope'})[0] == 'llama'
  assert 'AutoTokenizer' not in capsys.readouterr().out
  assert exported_run(tmp_path / 'b', {'encoding.name': 'rope', 'model.bias': 'qkv'})[0] == 'qwen2'
  assert 'load the tokenizer with PreTrainedTokenizerFast' in capsys.readouterr().out


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
    ('qwen3', {'fraction': 0.5}, r'fraction=0\.5; allowed: a run that was trained with 1'),
    ('llama', {'fraction': 0.5}, {'model_type': 'phi3', 'partial_rotary_factor': 0.5}),
    ('llama', {'scaling': {'rope_type': 'ntk_mixed', 'factor': 2.0}}, "='ntk_mixed': transformers"),
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
      exported_fields.fields_of(config, 23, 1, None)
  else:
    fields, _ = exported_fields.fields_of(config, 23, 1, None)
    assert {key: fields[key] for key in said} == said
    assert fields['eos_token_id'] is None
    assert 'rope_theta' not in fields or name != 'gpt_neox'


def changed_config(fields, changes):
  """The config of an imported run, with other values in it."""
  source = sources.Source('m', fields, {}, None, None, '0' * 64)
  config = importing.config_of(base.get_config(), source, families.form_of(fields, 'm'))
  overlay(config, changes)
  return config


PLAIN_LLAMA = RECORDS['llama']['config'] | {'rope_parameters': None}


@pytest.mark.parametrize('source', [None, PLAIN_LLAMA])
def test_a_linear_scaling_that_was_trained_with_starts_where_it_did(source):
  """Tuned at four times the length, as PI is: the file says where it starts, and the length that it
  leads to. vLLM serves the factor times the former, where that is the lesser.
  """
  said = {'encoding.scaling.rope_type': 'linear', 'encoding.scaling.factor': 4}
  tuned = {'train.length': 64, 'train.steps': 5, 'optim.warmup': 0}
  config = changed_config(PLAIN_LLAMA, said | tuned)
  fields, _ = exported_fields.fields_of(config, 23, 1, source)
  assert (fields['max_position_embeddings'], fields['max_sequence_length']) == (16, 64)
  again = changed_config(fields, {})
  assert again.train.length == 64
  assert again.encoding.scaling.original_max_position_embeddings == 16


def test_a_linear_scaling_that_was_laid_over_starts_at_the_length_of_training(tmp_path, command):
  of_train = {'train.length': 128, 'train.steps': 5, 'optim.warmup': 0}
  exported_run(tmp_path / 'run', {'encoding.name': 'rope'} | of_train)
  flags = f'--workdir={tmp_path}/run', f'--out={tmp_path}/out'
  scaling = '--config.encoding.scaling.'
  flags += f'{scaling}rope_type=linear', f'{scaling}factor=4'
  *_, error = command('scripts/export_model.py', *flags)
  assert 'linear by 4 from 128, made for 512 tokens' in error
  again = config_of(sources.open_source(str(tmp_path / 'out')))
  assert again.encoding.scaling.original_max_position_embeddings == 128
  assert again.train.length == 512


@pytest.mark.parametrize('script', ['export_model', 'generate'])
def test_a_step_without_a_checkpoint_is_refused(script, tmp_path, command):
  changes = {'encoding.name': 'rope', 'train.steps': 5, 'optim.warmup': 0}
  exported_run(tmp_path / 'run', changes)
  flags = f'--workdir={tmp_path}/run', *([f'--out={tmp_path}/out'] * (script == 'export_model'))
  code, _, error = command(f'scripts/{script}.py', *flags, '--step=3')
  assert code
  assert 'no checkpoint of step 3; allowed: 5 (config.train.max_to_keep and keep_every' in error


@pytest.mark.parametrize('trained', [False, True])
def test_a_linear_scaling_of_a_run_of_no_steps_starts_where_the_one_before_it_ends(
  trained, tmp_path
):
  """A study lays it over an import; one that was trained with, too, leads to that length."""
  linear = {'name': 'rope', 'scaling': {'rope_type': 'linear', 'factor': 4}}
  before, length = tmp_path / 'before', {'train.length': 128}
  exported_run(before, length | {'encoding': linear if trained else {'name': 'rope'}})
  start = {'encoding': linear, 'train.steps': 0, 'train.init_from': str(before)}
  _, files = exported_run(tmp_path / 'run', length | start)
  fields = json.loads(files['config.json'])
  lengths = fields['max_position_embeddings'], fields['max_sequence_length']
  assert lengths == ((32, 128) if trained else (128, 512))
  if not trained:  # whatever length the run itself names
    exported_run(tmp_path / 'long', start | {'train.length': 512})
    again = config_of(sources.open_source(str(tmp_path / 'long' / 'out')))
    assert again.encoding.scaling.original_max_position_embeddings == 128


TEMPERATURE = {'name': 'llama4_temperature', 'length': 8, 'c': 0.7, 'counts_itself': False}
OLDER = {'rope_parameters': None, 'rope_theta': 9.0, 'rope_local_base_freq': 7.0}
LINEAR = {'rope_type': 'linear', 'factor': 2.0}
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
      {
        'rope_scaling': {'rope_type': 'linear', 'factor': 2},
        'max_position_embeddings': 64,  # so that it starts from 32 again
      },
    ),
    (
      'llama',
      {'max_sequence_length': 64, 'rope_parameters': None, 'rope_scaling': LINEAR},
      YARN | {'encoding.scaling.factor': 8, 'train.length': 32},
      {'rope_scaling': SCALED | {'factor': 8}, 'max_position_embeddings': 256},
    ),
    (
      'gemma3',
      OLDER | {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}},
      {'encoding.scaling.factor': 16},
      {'rope_scaling': {'rope_type': 'linear', 'factor': 16}, 'max_position_embeddings': 64},
    ),
    (
      'llama',
      {'max_sequence_length': 64, 'rope_parameters': None, 'rope_scaling': LINEAR},
      {'encoding.scaling.factor': 8},
      {
        'rope_scaling': {'rope_type': 'linear', 'factor': 8},
        'max_position_embeddings': 32,
        'max_sequence_length': 256,
      },
    ),
    (
      'olmo3',
      {},
      YARN,
      {
        'rope_parameters': {
          'full_attention': {'rope_theta': 1e3} | SCALED,
          'sliding_attention': {'rope_theta': 500.0, 'rope_type': 'default'},
        },
        'max_position_embeddings': 128,
      },
    ),
    (
      'olmo3',
      {'rope_parameters': None, 'rope_theta': 5e5},
      YARN,
      {'rope_scaling': SCALED, 'rope_theta': 5e5},
    ),
    (
      'olmo3',
      {'rope_parameters': None, 'rope_theta': 5e5},
      {'encoding.base': 7.0},  # which the file has to say in newer words
      {
        'rope_parameters': {
          'full_attention': {'rope_theta': 7.0, 'rope_type': 'default'},
          'sliding_attention': {'rope_theta': 5e5, 'rope_type': 'default'},
        }
      },
    ),
    (
      'ministral3',
      {},
      {'encoding.scaling.factor': 16},
      {
        'rope_parameters': {'rope_type': 'yarn', 'factor': 16, 'rope_theta': 1e3}
        | {'original_max_position_embeddings': 8, 'llama_4_scaling_beta': 0.7},
        'max_position_embeddings': 128,
      },
    ),
    (
      'ministral3',
      {},
      {'encoding': {'name': 'chain', 'members': ({'name': 'rope', 'base': 1e3}, TEMPERATURE)}},
      {
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e3}
        | {'original_max_position_embeddings': 8, 'llama_4_scaling_beta': 0.7},
        'max_position_embeddings': 32,
      },
    ),
    (
      'cohere',
      {},
      {'encoding.scaling.factor': 16},
      {
        'rope_scaling': {'rope_type': 'yarn', 'factor': 16, 'original_max_position_embeddings': 8},
        'rope_theta': 1e3,
        'max_position_embeddings': 128,
      },
    ),
    ('glm4', {}, {'encoding.fraction': 1.0}, {'partial_rotary_factor': 1.0}),
    ('stablelm', {}, YARN, {'rope_scaling': SCALED, 'partial_rotary_factor': 0.25}),
    ('nemotron', {}, YARN, {'rope_scaling': SCALED, 'partial_rotary_factor': 0.5}),
    ('granite', {}, YARN, {'rope_scaling': SCALED, 'embedding_multiplier': 3.0}),
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
  trained = changed_config(source, {})
  config = exported_fields.with_starts(changed_config(source, changes), trained)
  fields, form = exported_fields.fields_of(config, 23, 1, source)
  assert fields | said == fields
  is_linear = fields.get('rope_scaling', {}).get('rope_type') == 'linear'
  # vLLM multiplies what Gemma 3's file says by no factor
  assert ('max_sequence_length' in fields) == (is_linear and name != 'gemma3')
  assert fields['model_type'] == source['model_type']
  again = changed_config(fields, {}).encoding
  layers = lambda encoding: exported_fields._layers(to_json(encoding), config.train.length, 4)
  assert layers(config.encoding) == layers(again)
  assert families.form_of(fields, 'm').encoding == form.encoding


@pytest.mark.parametrize('kind', ['mistral', 'ministral'])
def test_a_ministral_without_windows_goes_out_in_a_family_that_runs(kind):
  """transformers (5.24) makes the mask of its windows all the same, and raises."""
  more = {'model_type': kind, 'sliding_window': None, 'layer_types': ['full_attention'] * 4}
  source = RECORDS['ministral']['config'] | more
  fields, _ = exported_fields.fields_of(changed_config(source, {}), 23, 1, source)
  assert (fields['model_type'], fields['eos_token_id']) == ('llama', 2)


@pytest.mark.parametrize(
  ('name', 'more', 'changes'),
  [
    ('gemma2', {}, YARN),  # one scaling for all layers
    ('ministral', {}, YARN),
    ('llama3_qknorm', {}, YARN),
    ('ministral3', {}, YARN),  # which starts from the length of the temperature
    ('gemma3', {}, {'encoding.name': 'self_extend', 'encoding.window': 8}),
    ('phi3', {'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}}, YARN),
  ],
)
def test_positions_that_the_family_of_a_source_cannot_say(name, more, changes):
  source = RECORDS[name]['config'] | more
  kind = source['model_type']
  match = rf'^config\.encoding=.*: {kind}, the family of its source, has its own positions alone;'
  with pytest.raises(UserError, match=match):
    exported_fields.fields_of(changed_config(source, changes), 23, 1, source)


@pytest.mark.parametrize(
  ('changes', 'allowed'),
  [
    ({'model.mlp': 'relu'}, 'a run that was trained with that, or a form that another family has'),
    ({'attention.softcap': 3.0}, 'that, or a form that another family has'),
  ],
)
def test_what_an_export_may_lay_over_a_run_is_told_apart(changes, allowed):
  source = RECORDS['llama']['config']
  ((path, value),) = changes.items()
  message = (
    rf'^config\.{path}={value!r}: llama, the family of its source, has .*; allowed: {allowed}$'
  )
  with pytest.raises(UserError, match=message):
    exported_fields.fields_of(changed_config(source, changes), 23, 1, source)


@pytest.mark.parametrize(
  ('name', 'length', 'changes', 'longest'),
  [
    ('llama', 64, {}, 64),  # tuned at a longer length
    ('llama', 16, {}, 32),
    ('llama3_tied', 64, {}, 64),
    ('llama', 16, {'attention.window': 8}, 32),  # another family
    ('llama', 64, {'attention.window': 8}, 64),
    ('llama', 16, {'encoding': {'name': 'nope'}}, 32),
    ('llama', 64, {'encoding': {'name': 'rope', 'scaling': LINEAR}}, 32),  # which leads to 64
    ('llama_yarn', 64, {}, 32),  # of which transformers 4 takes the factor
    ('llama_yarn', 16, {'attention.window': 8}, 32),
    ('ministral', 64, {}, 64),
    ('ministral3', 64, {}, 32),
    ('ministral3', 64, {'encoding.scaling': None}, 64),
    ('olmo3', 64, {}, 32),
    ('granite_swa', 64, {}, 32),  # of RoPE in chains
    ('olmo3', 64, {'encoding.scaling': None}, 64),
    ('gpt_neox', 64, {}, 64),
    ('gpt2', 64, {'encoding': {'name': 'learned', 'max_length': 32}}, None),
    ('mpt', 4096, {}, 4096),
    ('mpt', 64, {}, 2048),
  ],
)
def test_the_longest_length_of_an_export_is_that_of_the_run_or_its_source(
  name, length, changes, longest
):
  source = RECORDS[name]['config']
  config = changed_config(source, {'train.length': length, **changes})
  fields, again = exported_fields.fields_of(config, 23, 1, source)
  name_of_longest = 'max_seq_len' if name == 'mpt' else 'max_position_embeddings'
  assert fields.get(name_of_longest) == longest
  assert families.form_of(fields, 'm').encoding == again.encoding


@pytest.mark.parametrize(
  ('fields', 'fraction'),
  [
    ({}, 0.25),  # the family's default
    ({'rotary_pct': 1.0}, 1.0),
    ({'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 1.0}}, 1.0),
    ({'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}}, 0.5),
    # as transformers reads it
    ({'rotary_pct': 0.5, 'rope_parameters': {'partial_rotary_factor': 1.0}}, 1.0),
    ({'rotary_pct': 0.5, 'partial_rotary_factor': 0.5}, 0.5),
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
  fields, form = exported_fields.fields_of(config, 23, 1, None)
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
    exported_fields.fields_of(config, 23, 1, None)


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
  fields, _ = exported_fields.fields_of(config, 23, 1, None)
  assert fields | said == fields


def test_a_width_that_is_no_multiple_of_heads_is_none_of_llama(tmp_path):
  """transformers (5.24) refuses it there, and not of Mistral, which equals it without a window."""
  sizes = {'model_dim': 14, 'heads': 3, 'head_dim': 4, 'mlp_dim': 20, 'layers': 2, 'bos': 1}
  sizes |= {'norm': 'rms', 'mlp': 'swiglu', 'embedding_scale': 1.0, 'vocab': 23}
  config = base.get_config()
  overlay(config, {f'model.{name}': x for name, x in sizes.items()} | {'encoding.name': 'rope'})
  fields, form = exported_fields.fields_of(config, 23, 1, None)
  assert (fields['model_type'], fields['sliding_window']) == ('mistral', None)
  assert form.attention['window'] == 0
  model = build(config, 23, nnx.Rngs(0))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 1, None, TOKENIZER, tmp_path / 'out')
  _, again, _ = imported(tmp_path / 'out')
  np.testing.assert_allclose(logits(again, TOKENS), logits(model, TOKENS), atol=1e-6)
  source = fields | {'model_type': 'llama'}  # as transformers 4 wrote it
  del source['sliding_window']
  fields, _ = exported_fields.fields_of(changed_config(source, {}), 23, 1, source)
  assert fields['model_type'] == 'mistral'
  for changes, kind in (
    ({'model.bias': 'all'}, 'llama'),
    ({'model.norm_placement': 'sandwich', 'model.embedding_scale': 0.0}, 'gemma2'),
    ({'model.qk_norm': 'head'}, 'gemma3_text'),
    (
      {'model.norm': 'layer', 'model.mlp': 'gelu', 'model.bias': 'all', 'model.qk_norm': 'none'}
      | {'model.norm_placement': 'pre', 'model.embedding_scale': 1.0},
      'gpt_neox',
    ),
  ):
    overlay(config, {'model.bias': 'none'} | changes)
    match = rf'model_dim=14: {kind}, the family next to it, has a multiple of its 3 heads'
    match += ' in transformers; allowed: a run that was trained with that$'
    with pytest.raises(UserError, match=match):
      exported_fields.fields_of(config, 23, 1, None)


@pytest.mark.parametrize('window', [0, 4])
def test_a_run_that_rotates_a_part_is_phi_3(window, tmp_path):
  """The export names no token for padding: Phi-3's default one is beyond a small vocabulary."""
  config, *_ = imported(save(tmp_path / 'm', 'llama3_tied'))
  encoding = {'name': 'rope', 'base': 123.0, 'fraction': 0.34}
  overlay(config, {'encoding': encoding, 'attention.window': window})
  model = build(config, 23, nnx.Rngs(0))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  assert exporting.export_model(config, leaves, 1, None, TOKENIZER, tmp_path / 'out') == 'phi3'
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert (said['sliding_window'], said['pad_token_id']) == (window or None, None)
  own, again, _ = imported(tmp_path / 'out')
  assert own.encoding.to_dict() | encoding == own.encoding.to_dict()
  assert own.attention.window == window
  jax.tree.map(np.testing.assert_array_equal, again, model)
  overlay(config, {'encoding.scaling': {'rope_type': 'yarn', 'factor': 4.0}})
  with pytest.raises(UserError, match='allowed: longrope'):
    exported_fields.fields_of(config, 23, 1, None)


def test_what_vllm_needs_is_said(tmp_path):
  """A GGUF file names no architecture; transformers gives every family's model this name."""
  for name in MODELS:
    fields = RECORDS[name]['config']
    _, architecture = families.FAMILIES[fields['model_type']]
    assert fields['architectures'] == [architecture]
  config, model, source = imported(save(tmp_path / 'm', 'llama'))
  nameless = {key: value for key, value in source.fields.items() if key != 'architectures'}
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  exporting.export_model(config, leaves, 5, nameless, TOKENIZER, tmp_path / 'out')
  said = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert said['architectures'] == ['LlamaForCausalLM']
  assert said['bos_token_id'] == 5  # the run's own, which its windows begin with


def test_an_export_says_the_version_of_transformers_that_its_fields_are_of(tmp_path):
  """Without one, transformers takes a large vocabulary for one of Mistral's damaged tokenizers."""
  config, model, source = imported(save(tmp_path / 'm', 'llama', {'transformers_version': '4.9.0'}))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  for name, fields, version in (('own', None, '5.24.0'), ('source', source.fields, '4.9.0')):
    exporting.export_model(config, leaves, 1, fields, TOKENIZER, tmp_path / name)
    said = json.loads((tmp_path / name / 'config.json').read_text())
    assert said['transformers_version'] == version


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
  config, model, source = imported(save(tmp_path / 'o', 'cohere2'))
  leaves = {path: np.asarray(leaf) for path, leaf in leaves_by_path(model).items()}
  tuned = leaves | {'layers/mlp_norm/scale': leaves['layers/mlp_norm/scale'] + 1}
  with pytest.raises(
    UserError, match='layers/attention_norm/scale and layers/mlp_norm/scale differ'
  ):
    exporting.export_model(config, tuned, 1, source.fields, TOKENIZER, tmp_path / 'out')


def test_what_no_family_has_is_refused(tmp_path):
  c = base.get_config()
  c.model.embedding_scale = 1.0
  with pytest.raises(UserError, match=r"config\.model\.mlp='gelu': llama, .* has 'swiglu'"):
    exported_fields.fields_of(c, 257, 256, None)
  c.model.mlp = 'swiglu'
  for members in ('rope,fox', 'rope', 'rope,llama4_temperature'):
    for flags in ({'norm': 'layer'}, {'norm': 'rms', 'qk_norm': 'projection'}):
      flags = {f'model.{name}': value for name, value in flags.items()}
      overlay(c, {'encoding': {'name': 'chain', 'members': members}} | flags)
      with pytest.raises(UserError, match='the family next to it, has'):
        exported_fields.fields_of(c, 257, 256, None)
  windows = [{'name': 'rope', 'attention_window': n} for n in (4, 5)]
  gemma = {'model.norm_placement': 'sandwich', 'model.embedding_scale': 0.0, 'model.norm': 'rms'}
  for changes in (
    {'encoding': {'name': 'pattern', 'layers': ('rope', 'nope')}},
    {'encoding': {'name': 'pattern', 'layers': tuple(windows)}},
    {'encoding': {'name': 'alibi'}},
    {'model.bias': 'qkv'},
    {'attention.window': 4},
    {'model.qk_norm': 'head', 'attention.softcap': 3.0},
    {'model.qk_norm': 'projection'},
  ):
    own = base.get_config()
    overlay(own, {'model.mlp': 'geglu'} | gemma | changes)
    with pytest.raises(UserError, match=r'gemma.*, the family next to it, has'):
      exported_fields.fields_of(own, 257, 256, None)
  config, _, _ = imported(save(tmp_path / 'm', 'llama'))
  with config.unlocked():
    config.encoding = {'name': 'fox'}
  with pytest.raises(UserError, match=r"config\.encoding=.*'fox'.*llama"):
    exported_fields.fields_of(config, 23, 1, None)


def test_an_exported_tokenizer_has_the_bos_of_the_run():
  for bos in (300, 256):  # the former behind numbers of no token
    contents = with_bos(json.dumps(BYTES).encode(), bos)
    tokenizer = tokenizers.Tokenizer.from_buffer(contents)
    assert tokenizer.encode('a').ids == [bos, 97]
    assert tokenizer.get_vocab_size() == bos + 1
    assert TokenizerJson(contents, '').encode(b'a').tolist() == [97]
  model = BYTES['model'] | {'vocab': BYTES['model']['vocab'] | {'ab': 258}}
  for bos in (259, 300):  # behind a gap the library numbers otherwise
    with pytest.raises(UserError, match=f'BOS cannot be token {bos} of it; allowed: one whose'):
      with_bos(json.dumps(BYTES | {'model': model}).encode(), bos)
  about = about_tokenizer(contents, {'bos_token_id': 256, 'eos_token_id': [256, 3]})
  assert about['bos_token'] == about['eos_token'] == BOS
  assert 'pad_token' not in about
  about = about_tokenizer(byte_tokenizer(256), {'bos_token_id': 256, 'pad_token_id': 9})
  assert (about['eos_token'], 'pad_token' in about) == (BOS, False)


def test_the_space_before_a_text_is_said_beside_a_tokenizer():
  """Unless it is, transformers 4 makes ByteLevel anew without it."""
  level = BYTES['pre_tokenizer']
  for pre, said in ((None, None), (level, None), (level | {'add_prefix_space': True}, True)):
    contents = json.dumps(BYTES | {'pre_tokenizer': pre}).encode()
    assert about_tokenizer(contents, {}).get('add_prefix_space') is said
    (beside,) = naming_bos({'tokenizer_config.json': b'{}'}, contents, 256).values()
    assert json.loads(beside).get('add_prefix_space') is said


def test_bytes_are_tokens_of_an_exported_tokenizer():
  tokenizer = tokenizers.Tokenizer.from_buffer(byte_tokenizer(256))
  text = 'a\n  \tÄ €'
  assert tokenizer.encode(text, add_special_tokens=False).ids == list(text.encode())
  assert tokenizer.encode('a').ids == [256, 97]  # as windows here begin
  assert tokenizer.decode(list(text.encode())) == text
  own = TokenizerJson(byte_tokenizer(256), 'tokenizer.json')
  assert own.decode(range(256)) == bytes(range(256))  # also of what is no text


def test_a_byte_may_be_the_bos_of_an_exported_tokenizer():
  contents = byte_tokenizer(10)
  tokenizer = tokenizers.Tokenizer.from_buffer(contents)
  assert tokenizer.encode('a\nb').ids == [10, 97, 10, 98]
  assert tokenizer.decode([97, 10, 98]) == 'a\nb'
  assert TokenizerJson(contents, '').decode([97, 10, 98]) == b'a\nb'
