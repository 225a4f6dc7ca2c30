"""Small models of every family, as folders and GGUF files, with the weights of conformance.py."""

import json
import math

import numpy as np
import safetensors.numpy

from configs import base
from posenc_jax.pretrained import families, importing, sources
from posenc_jax.pretrained.exported_tokenizers import byte_tokenizer
from scripts.maintenance.conformance.command import GOLDEN
from scripts.maintenance.conformance.pretrained import weights

RECORDS = json.loads((GOLDEN / 'pretrained.json').read_text())
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


ORIGINAL = 'original_max_position_embeddings'
PAIRS = ('llama', 'smollm3', 'granite')  # architectures whose converter permutes queries and keys


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


def write_gguf(
  path,
  name='llama',
  pre='smollm',
  tensors=(),
  stored=(),
  without=(),
  sentencepiece=None,
  bos=1,
  **metadata,
):
  """A GGUF file of a golden model, in float32, with the names of the library, as converters write
  it: Llama's queries and keys permuted, Gemma's norms with 1 added.

  Args:
    tensors: more of them.
    stored: those that have other bytes in the file: {name: (uint8 [rows, bytes], type of GGML)}.
    without: those of the model that it lacks.
    sentencepiece: [(token, score, kind)] of a vocabulary that is SentencePiece's.
    bos: the token that it names; None: it names none.
  """
  import gguf

  record = RECORDS[name]
  config = record['config']
  renamed = {'gemma3_text': 'gemma3', 'olmo3': 'olmo2'}
  family = renamed.get(config['model_type'], config['model_type'])
  writer = gguf.GGUFWriter(path, family)
  heads = {'q': config['num_attention_heads'], 'k': config['num_key_value_heads']}
  writer.add_block_count(config['num_hidden_layers'])
  writer.add_context_length(config['max_position_embeddings'])
  writer.add_embedding_length(config['hidden_size'])
  writer.add_feed_forward_length(config['intermediate_size'])
  writer.add_head_count(heads['q'])
  writer.add_head_count_kv(heads['k'])
  width = config.get('head_dim', config['hidden_size'] // heads['q'])
  writer.add_key_length(width)
  writer.add_value_length(width)
  if family in PAIRS:
    writer.add_rope_dimension_count(width)
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  rope = config['rope_parameters']
  if 'sliding_attention' in rope:
    writer.add_rope_freq_base_swa(rope['sliding_attention']['rope_theta'])
    rope = rope['full_attention']
  if config['model_type'] == 'olmo3':
    pattern = [kind == 'sliding_attention' for kind in config['layer_types']]
    writer.add_sliding_window_pattern(pattern)
  if family == 'phi3':
    writer.add_rope_dimension_count(int(rope['partial_rotary_factor'] * width))
    writer.add_rope_scaling_orig_ctx_len(config[ORIGINAL])
  if rope['rope_type'] in ('linear', 'yarn'):
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope['rope_type']))
    writer.add_rope_scaling_factor(rope['factor'])
  if rope['rope_type'] == 'yarn':
    writer.add_rope_scaling_orig_ctx_len(rope[ORIGINAL])
  if rope['rope_type'] == 'longrope':
    writer.add_rope_scaling_attn_factors(
      math.sqrt(
        1
        + math.log(config['max_position_embeddings'] / config[ORIGINAL])
        / math.log(config[ORIGINAL])
      )
    )
    for of in ('long', 'short'):
      writer.add_tensor(f'rope_factors_{of}.weight', np.float32(rope[f'{of}_factor']))
  writer.add_rope_freq_base(rope['rope_theta'])
  if family == 'phi3' or config['model_type'] in ('gemma2', 'gemma3_text', 'olmo3'):
    writer.add_sliding_window(config['sliding_window'] or 0)
  if family == 'gemma2':
    writer.add_attn_logit_softcapping(config['attn_logit_softcapping'])
    writer.add_final_logit_softcapping(config['final_logit_softcapping'])
  if family == 'granite':
    writer.add_attention_scale(config['attention_multiplier'])
    writer.add_embedding_scale(config['embedding_multiplier'])
    writer.add_residual_scale(config['residual_multiplier'])
    writer.add_logit_scale(config['logits_scaling'])
  writer.add_vocab_size(config['vocab_size'])
  writer.add_tokenizer_model('gpt2' if sentencepiece is None else 'llama')
  writer.add_tokenizer_pre(pre)
  if sentencepiece is None:
    writer.add_token_list([*(chr(97 + n) for n in range(22)), 'ab'])
    writer.add_token_merges(['a b'])
  else:
    tokens, scores, kinds = map(list, zip(*sentencepiece, strict=True))
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
  if bos is not None:
    writer.add_bos_token_id(bos)
  for key, value in metadata.items():
    adds = {bool: writer.add_bool, str: writer.add_string, int: writer.add_uint32}
    adds |= {float: writer.add_float32, list: writer.add_array}
    adds[type(value)](key, value)
  numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
  names = gguf.get_tensor_name_map(numbers[family], config['num_hidden_layers'])
  for key in record['shapes'].keys() - {*without}:
    x = weights(key, record['shapes'][key])
    if family.startswith('gemma') and key.endswith('norm.weight'):
      x = x + 1
    if family in PAIRS and key.endswith(('q_proj.weight', 'k_proj.weight')):
      H = heads[key.split('.')[-2][0]]
      x = x.reshape(H, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    own = names.get_name(key, ('.weight', '.bias'))
    if own not in dict(stored):
      writer.add_tensor(own, np.ascontiguousarray(x))
  for key, x in dict(tensors).items():
    writer.add_tensor(key, x)
  for key, (blocks, kind) in dict(stored).items():
    writer.add_tensor(key, blocks, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path
