"""GGUF files: the model, the rule of scaling and the tokenizer in one, refusals."""

import dataclasses
import json
import struct
import types

import jax
import numpy as np
import pytest
from kinds import daily_if
from small_models import RECORDS, SMALL_TOKENIZER, imported, save, write_gguf

from configs import base
from posenc_jax.config import to_json
from posenc_jax.data.tokenizer_json import BYTE_OF_CHARACTER
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.rope_types import SCALINGS
from posenc_jax.errors import UserError
from posenc_jax.model.decoder import attention_options
from posenc_jax.pretrained import (
  families,
  gguf_architectures,
  gguf_file,
  gguf_tokenizer,
  importing,
  sources,
)
from scripts.maintenance.conformance.pretrained import TOKENS

AS_THEY_ARE = ('llama', 'qwen2', 'qwen3', 'smollm3', 'olmo2', 'olmo3')
AS_THEY_ARE += ('phi3', 'phi3_window', 'phi3_longrope', 'phi4_mini')
# By the golden model: what is otherwise in it in a GGUF file, which cannot say it.
MODELS = {name: {} for name in AS_THEY_ARE}
MODELS |= {name: {'query_pre_attn_scalar': 6} for name in ('gemma2', 'gemma3', 'gemma3_linear')}
MODELS['granite'] = {'attention_bias': False, 'mlp_bias': False}


DAILY = ('llama', 'qwen2', 'phi4_mini', 'gemma3_linear')


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY, 'ci')) for name in MODELS]
)
def test_a_gguf_file_is_the_same_model(name, tmp_path):
  biases = [key for key in RECORDS[name]['shapes'] if name == 'granite' and key.endswith('bias')]
  folder = save(tmp_path / 'm', name, MODELS[name], without=biases)
  expected_config, expected, _ = imported(folder)
  config, model, source = imported(write_gguf(tmp_path / 'm.gguf', name, without=biases))
  jax.tree.map(np.testing.assert_array_equal, model, expected)
  assert config.train.length == expected_config.train.length
  for section in ('model', 'attention'):
    assert config[section] == expected_config[section]
  assert json.loads(source.tokenizer)['model']['merges'] == [['a', 'b']]


def test_every_architecture_has_a_file():
  kinds = {RECORDS[name]['config']['model_type'].removesuffix('_text') for name in MODELS}
  assert kinds == {*gguf_architectures.ARCHITECTURES, 'olmo3'}


@pytest.mark.parametrize(
  ('kind', 'layers', 'scalar'),
  [('gemma2', 26, 8), ('gemma2', 46, 6), ('gemma3', 46, 8), ('gemma3', 62, 6)],
)
def test_scores_of_the_largest_gemma_are_divided_otherwise(kind, layers, scalar):
  """As by llama.cpp, since no file says it; nor need one say Gemma 2's window and caps."""
  sizes = {'block_count': layers, 'embedding_length': 12, 'attention.head_count': 2}
  sizes |= {'attention.key_length': 8, 'feed_forward_length': 8, 'context_length': 8}
  metadata = sizes | {'vocab_size': 9, 'attention.layer_norm_rms_epsilon': 1e-6}
  if kind == 'gemma3':
    metadata |= {'attention.sliding_window': 4}
  named = {f'{kind}.{name}': value for name, value in metadata.items()}
  config = gguf_file._config({'general.architecture': kind, **named}, False, 'm')
  assert config['query_pre_attn_scalar'] == scalar
  if kind == 'gemma2':
    found = [config[f'{of}_logit_softcapping'] for of in ('attn', 'final')]
    assert [config['sliding_window'], *found] == [4096, 50.0, 30.0]


def test_granite_4_says_of_each_layer_and_of_parts_that_it_lacks(tmp_path):
  """A model with attention in all layers and no experts, as converters write it."""
  heads = RECORDS['granite']['config']['num_key_value_heads']
  layers = RECORDS['granite']['config']['num_hidden_layers']
  said = {'attention.head_count_kv': [heads] * layers, 'expert_count': 0, 'ssm.conv_kernel': 4}
  said |= {'ssm.state_size': 256, 'expert_used_count': 0, 'rope.scaling.finetuned': True}
  named = {f'granite.{key}': value for key, value in said.items()}
  without = [key for key in RECORDS['granite']['shapes'] if key.endswith('bias')]
  files = [tmp_path / 'a.gguf', tmp_path / 'b.gguf']
  write_gguf(files[0], 'granite', without=without)
  write_gguf(files[1], 'granite', without=without, **named)
  plain, found = (sources.open_source(str(file)) for file in files)
  assert (found.fields, found.shapes) == (plain.fields, plain.shapes)


@pytest.mark.parametrize(('base', 'is_said'), [(10_000.0, True), (1_000_000.0, False)])
def test_a_window_that_no_gguf_file_says_is_said(base, is_said):
  """Mistral 7B v0.1 has one; v0.2 and v0.3, of the same sizes, have none and another base."""
  notes = gguf_architectures.notes(
    gguf_architectures.MISTRAL_V01 | {'rope_theta': base, 'vocab_size': 32000}
  )
  assert [note[:60] for note in notes] == [
    'such a file does not say the window of 4,096 tokens that Mis'
  ] * is_said


def test_phi3_without_a_word_of_windows_and_longer_lengths_has_neither():
  sizes = {'block_count': 2, 'embedding_length': 12, 'attention.head_count': 2, 'vocab_size': 9}
  sizes |= {'feed_forward_length': 8, 'context_length': 8, 'attention.layer_norm_rms_epsilon': 1e-6}
  named = {f'phi3.{name}': value for name, value in sizes.items()}
  config = gguf_file._config({'general.architecture': 'phi3', **named}, False, 'm')
  assert (config['sliding_window'], config['original_max_position_embeddings']) == (None, 8)


@pytest.mark.parametrize(
  ('name', 'said', 'message'),
  [
    ('phi3', {'rope.scaling.attn_factor': 1.5}, 'attn_factor, where its lengths give 1$'),
    *(
      ('phi3', {'rope.scaling.original_context_length': said}, f'h={said!r}; allowed: 2 or more$')
      for said in (0, 1, 'x')
    ),
    ('granite', {'rope.scaling.finetuned': False}, 'finetuned=False are not understood'),
    ('olmo2', {'attention.sliding_window': 4}, 'lack olmo2.attention.sliding_window_pattern'),
    ('gemma3', {'final_logit_softcapping': 30.0}, 'softcapping=30.0 are not understood'),
    ('granite', {'expert_count': 8}, 'none of granite: expert_count, of experts in place of MLPs'),
    ('granite', {'attention.head_count_kv': [2, 0, 2]}, r'_kv=\[2, 0, 2\]; allowed: 1 or'),
    (
      'olmo2',
      {'rope.scaling.type': 'yarn', 'rope.scaling.factor': 8.0, 'rope.scaling.attn_factor': 1.5},
      r'attn_factor=1.5; allowed: 1.20794, which its factor gives$',
    ),
  ],
)
def test_metadata_of_one_architecture_that_are_not_covered(name, said, message, tmp_path):
  named = {f'{name}.{key}': value for key, value in said.items()}
  path = write_gguf(tmp_path / 'm.gguf', name, **named)
  with pytest.raises(UserError, match=message):
    sources.open_source(str(path))


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


@pytest.mark.parametrize(
  ('said', 'scaling'),
  [
    (
      {'type': 'yarn', 'factor': 4.0, 'original_context_length': 8},
      {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 8},
    ),
    (
      {'type': 'yarn', 'factor': 4.0, 'yarn_ext_factor': 1.0, 'yarn_attn_factor': 0.875}
      | {'original_context_length': 8, 'yarn_beta_fast': 16.0, 'yarn_beta_slow': 2.0},
      {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 8}
      | {'beta_fast': 16.0, 'beta_slow': 2.0},
    ),
    (
      {'type': 'yarn', 'factor': 4.0, 'original_context_length': 0},
      {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32},
    ),
    (
      {'type': 'linear', 'factor': 4.0},
      {'rope_type': 'linear', 'factor': 4.0, 'original_max_position_embeddings': 8},
    ),
    (
      {'type': 'yarn', 'factor': 8.0, 'original_context_length': 4, 'attn_factor': 1.20794416},
      {'rope_type': 'yarn', 'factor': 8.0, 'original_max_position_embeddings': 4},
    ),
    ({'type': 'none'}, None),
  ],
)
def test_metadata_of_a_scaling_of_a_gguf_file_are_those_of_a_folder(said, scaling, tmp_path):
  """All that converters write of RoPE. What transformers does not read, a line says."""
  metadata = {f'llama.rope.scaling.{name}': value for name, value in said.items()}
  config, _, source = imported(write_gguf(tmp_path / 'm.gguf', **metadata))
  assert to_json(config.encoding).get('scaling') == scaling
  form = families.form_of(source.fields, source.name)
  assert (form.train_length, form.encoding.get('fraction', 1.0)) == (32, 1.0)
  notes = [note for note in form.notes if 'does not read attn_factor=0.875' in note]
  assert [*form.notes] == notes
  assert len(notes) == ('yarn_attn_factor' in said)


def test_a_part_of_the_channels_turns_as_a_gguf_file_says():
  metadata = {'general.architecture': 'llama', 'llama.rope.dimension_count': 2}
  sizes = ('embedding_length', 'feed_forward_length', 'block_count', 'attention.head_count')
  metadata |= {f'llama.{name}': 8 for name in (*sizes, 'attention.key_length', 'context_length')}
  metadata |= {'llama.attention.layer_norm_rms_epsilon': 1e-5, 'llama.vocab_size': 9}
  assert gguf_file._config(metadata, False, 'm')['partial_rotary_factor'] == 0.25


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
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', pre='viking')))
  with pytest.raises(UserError, match=r"tokenizer is 'gpt2', 'viking', and not.*--tokenizer=FI"):
    importing.import_model(base.get_config(), source, tmp_path / 'run')
  source = dataclasses.replace(source, tokenizer=SMALL_TOKENIZER)
  assert importing.import_model(base.get_config(), source, tmp_path / 'run').model.vocab == 23


@pytest.mark.parametrize(
  ('pre', 'text', 'pieces'),
  [
    ('smollm', "I'M 1234", ['I', "'", 'M', ' ', '1', '2', '3', '4']),
    ('gpt-2', "I'M 1234", ['I', "'", 'M', ' 1234']),
    ('refact', "I'M 1234", ['I', "'", 'M', ' ', '1', '2', '3', '4']),
    ('llama-bpe', "I'M 1234\n\n x.\n", ['I', "'M", ' ', '123', '4', '\n\n', ' x', '.\n']),
    ('smaug-bpe', "I'M 1234\n\n x.\n", ['I', "'M", ' ', '123', '4', '\n\n', ' x', '.\n']),
    ('tekken', "I'M aBc 12./\n x", ['I', "'M", ' a', 'Bc', ' ', '1', '2', './\n', ' x']),
    ('qwen2', "I'M 1234\n\n x.\n", ['I', "'M", ' ', *'1234', '\n\n', ' x', '.\n']),
  ],
)
def test_text_is_cut_as_the_name_in_a_gguf_file_says(pre, text, pieces):
  import tokenizers

  characters = list(BYTE_OF_CHARACTER)
  metadata = {'model': 'gpt2', 'pre': pre, 'tokens': [*characters, 'ab'], 'merges': []}
  contents, _ = gguf_tokenizer.tokenizer_of({f'tokenizer.ggml.{k}': v for k, v in metadata.items()})
  tokenizer = tokenizers.Tokenizer.from_buffer(contents)
  spans = [span for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
  assert [text[slice(*span)] for span in spans] == pieces
  assert len(tokenizer.encode('e\u0301').ids) == (2 if pre == 'qwen2' else 3)  # an e and an accent
  assert (256 in tokenizer.encode('ab').ids) == (
    pre in ('llama-bpe', 'tekken')
  )  # a word that no pair makes


def half(block, start):
  return float(block[start : start + 2].view('<f2')[0])


def nibbles(x):
  return [*(x & 15), *(x >> 4)]


def q4_k(block):
  """Eight groups of 32, each with a scale and a minimum of 6 bits, packed into 12 bytes."""
  s, out = [int(x) for x in block[4:16]], []
  for n in range(8):
    scale, least = s[n] & 63, s[n % 4 + 4] & 63
    if n >= 4:
      scale, least = (s[n + 4] & 15) | (s[n - 4] >> 6 << 4), (s[n + 4] >> 4) | (s[n] >> 6 << 4)
    four = block[16:].reshape(4, 32)[n // 2] >> 4 * (n % 2) & 15
    out += [half(block, 0) * scale * int(q) - half(block, 2) * least for q in four]
  return out


def q6_k(block):
  """Low four bits, high two, then a scale of 8 bits for each 16."""
  low, high, scales = block[:128].reshape(2, 2, 32), block[128:192].reshape(2, 32), block[192:208]
  out = []
  for n in range(256):
    part, quarter, place = n // 128, n % 128 // 32, n % 32
    q = low[part, quarter % 2, place] >> 4 * (quarter // 2) & 15
    q = int(q) | int(high[part, place] >> 2 * quarter & 3) << 4
    out.append(half(block, 208) * int(scales[n // 16].view('i1')) * (q - 32))
  return out


# The numbers of a block, by the layout of its bytes: (how many, bytes, their decoding, where a
# half-precision number stands).
BLOCKS = {
  'BF16': (1, 2, lambda b: (b.view('<u2').astype('<u4') << 16).view('<f4'), ()),
  'F16': (1, 2, lambda b: [half(b, 0)], (0,)),
  'Q8_0': (32, 34, lambda b: half(b, 0) * b[2:].view('i1').astype(float), (0,)),
  'Q4_0': (32, 18, lambda b: [half(b, 0) * (int(q) - 8) for q in nibbles(b[2:])], (0,)),
  'Q4_1': (32, 20, lambda b: [half(b, 0) * int(q) + half(b, 2) for q in nibbles(b[4:])], (0, 2)),
  'Q4_K': (256, 144, q4_k, (0, 2)),
  'Q6_K': (256, 210, q6_k, (208,)),
}


@pytest.mark.parametrize('kind', BLOCKS)
def test_every_kind_of_number_is_read(tmp_path, kind):
  """Three rows of two blocks of random bytes."""
  import gguf

  size, width, decode, halves = BLOCKS[kind]
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (3, 2, width), np.uint8)
  for start in halves or (0,):
    numbers = rng.uniform(-2, 2, (3, 2)).astype('<f2' if halves else '<f4')
    blocks[..., start : start + 2] = numbers[..., None].view(np.uint8)[..., -2:]
  expected = [np.concatenate([decode(block) for block in row]) for row in blocks]
  stored = {'output.weight': (blocks.reshape(3, -1), gguf.GGMLQuantizationType[kind])}
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', stored=stored)))
  found = source.read('lm_head.weight')
  assert found.shape == source.shapes['lm_head.weight'] == (3, 2 * size)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('parts', [0, 1])
def test_words_of_publishers_and_tools_in_a_gguf_file_change_nothing(parts, tmp_path):
  """Where llama.cpp has merged the parts of a file, it leaves words of them, and a count of 0."""
  said = {'mradermacher.convert_type': 'hf', 'llama.rope.scaling.finetuned': True}
  said |= {'split.no': 0, 'split.count': parts, 'split.tensors.count': 30}
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', **said)))
  assert source.fields == sources.open_source(str(write_gguf(tmp_path / 'n.gguf'))).fields


def test_gguf_files_that_are_not_covered(tmp_path):
  path = write_gguf(tmp_path / 'm.gguf', **{'llama.expert_count': 8})
  with pytest.raises(UserError, match='expert_count=8 are not understood'):
    sources.open_source(str(path))
  yarn = {'type': 'yarn', 'factor': 4.0, 'yarn_ext_factor': 0.5}
  path = write_gguf(tmp_path / 'y.gguf', **{f'llama.rope.scaling.{k}': v for k, v in yarn.items()})
  with pytest.raises(UserError, match=r'llama.rope.scaling.yarn_ext_factor=0.5 are not understood'):
    sources.open_source(str(path))
  path = write_gguf(tmp_path / 'part.gguf', **{'split.no': 0, 'split.count': 2})
  with pytest.raises(UserError, match=r'a part of 2; allowed: one file, as `llama-gguf-split --me'):
    sources.open_source(str(path))
  path = write_gguf(tmp_path / 'n.gguf')
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(UserError, match='no whole GGUF file'):
    sources.open_source(str(path))
  (tmp_path / 'o.gguf').write_bytes(b'GGUF' + struct.pack('<IQQ', 3, 2**60, 2**60))
  with pytest.raises(UserError, match='no whole GGUF file'):
    sources.open_source(str(tmp_path / 'o.gguf'))
  path = write_gguf(
    tmp_path / 'p.gguf', tensors={'blk.0.ffn_gate_inp.weight': np.zeros((2, 2), 'f')}
  )
  with pytest.raises(
    UserError, match=r"a tensor 'blk\.0\.ffn_gate_inp\.weight' that no family uses"
  ):
    sources.open_source(str(path))
  path = write_gguf(
    tmp_path / 'q.gguf', tensors={'blk.0.post_attention_norm.weight': np.zeros(12, 'f')}
  )
  with pytest.raises(UserError, match=r'ffn_norm\.weight and \S+_attention_norm\.weight are both'):
    sources.open_source(str(path))
  lacking = {'general.architecture': 'llama', 'llama.attention.head_count': 4}
  with pytest.raises(UserError, match=r'm: its metadata lack llama\.embedding_length'):
    gguf_file._config(lacking, False, 'm')


@pytest.mark.parametrize(
  ('values', 'reason'),
  [
    ((8, 2**40), rf'an array of {2**40} values'),  # of texts
    ((4, 2**20), r'its metadata end at byte \d+ of \d+'),  # of numbers
    ((9, 1), r'a value of type 9'),  # of arrays
  ],
)
def test_an_array_longer_than_its_gguf_file_is_refused_at_once(values, reason, tmp_path):
  """The library reads value by value, also behind the end of a file."""
  path, key = write_gguf(tmp_path / 'm.gguf'), b'tokenizer.ggml.tokens'
  contents = bytearray(path.read_bytes())
  place = contents.index(key) + len(key)
  assert struct.unpack_from('<II', contents, place) == (gguf_file.ARRAY, gguf_file.TEXT)
  struct.pack_into('<IQ', contents, place + 4, *values)
  path.write_bytes(contents)
  with pytest.raises(UserError, match=rf'no whole GGUF file .*{reason}'):
    sources.open_source(str(path))


def test_a_kind_of_number_that_is_not_readable_is_one_line(tmp_path, monkeypatch):
  import gguf

  def dequantize(data, kind):
    raise NotImplementedError('no such kind')

  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf')))
  monkeypatch.setattr(gguf.quants, 'dequantize', dequantize)
  with pytest.raises(UserError, match=r'output\.weight is F32, not readable \(no such kind\)'):
    source.read('lm_head.weight')


@pytest.mark.parametrize('heads', [0, -1, [4, 4], '4'])
def test_a_gguf_file_has_sizes(heads):
  metadata = {'general.architecture': 'llama', 'llama.attention.head_count': heads}
  with pytest.raises(UserError, match=r'm: metadata llama\.attention\.head_count=.* 1 or more'):
    gguf_file._config(metadata, False, 'm')


def test_numbers_of_a_gguf_file_are_finite():
  metadata = {'general.architecture': 'llama', 'llama.attention.head_count': 2}
  sizes = ('embedding_length', 'feed_forward_length', 'block_count')
  metadata |= {f'llama.{name}': 8 for name in sizes}
  metadata['llama.attention.layer_norm_rms_epsilon'] = float('nan')
  with pytest.raises(UserError, match='layer_norm_rms_epsilon=nan; allowed: a finite number'):
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
    ('', {'model': 'llama'}, 'its tokenizer has no tokens or no scores'),
    ('', {'model': 'llama', 'scores': [0.0]}, 'its tokenizer has 2 tokens and 1 scores of them'),
    (
      '',
      {'model': 'llama', 'scores': [0.0, 0.0], 'precompiled_charsmap': [1]},
      'its tokenizer changes text by precompiled_charsmap',
    ),
    (
      '',
      {'model': 't5'},
      "its tokenizer is 't5', 'smollm', and not 'llama', and not 'gpt2' with "
      + ' or '.join(gguf_tokenizer.PRE_TOKENIZERS),
    ),
  ],
)
def test_a_broken_tokenizer_of_a_gguf_file_is_none(lacking, said, why):
  metadata = {'model': 'gpt2', 'pre': 'smollm', 'tokens': ['a', 'b'], 'merges': []} | said
  metadata.pop(lacking, None)
  found = gguf_tokenizer.tokenizer_of({f'tokenizer.ggml.{k}': v for k, v in metadata.items()})
  assert found == (None, why)
