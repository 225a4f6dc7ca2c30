"""Small models of every family, as folders and GGUF files, with the weights of conformance.py."""

import json

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
  path, name='llama', pre='smollm', tensors=(), stored=(), sentencepiece=None, bos=1, **metadata
):
  """A GGUF file of a golden model, in float32, with the names of the library and, of Llama, with
  queries and keys permuted, as converters do.

  Args:
    tensors: more of them.
    stored: those that have other bytes in the file: {name: (uint8 [rows, bytes], type of GGML)}.
    sentencepiece: [(token, score, kind)] of a vocabulary that is SentencePiece's.
    bos: the token that it names; None: it names none.
  """
  import gguf

  record = RECORDS[name]
  config = record['config']
  family = config['model_type']
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
  if family == 'llama':
    writer.add_rope_dimension_count(width)
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  writer.add_rope_freq_base(config['rope_parameters']['rope_theta'])
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
    adds[float] = writer.add_float32
    adds[type(value)](key, value)
  numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
  names = gguf.get_tensor_name_map(numbers[family], config['num_hidden_layers'])
  for key, shape in record['shapes'].items():
    x = weights(key, shape)
    if family == 'llama' and key.endswith(('q_proj.weight', 'k_proj.weight')):
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
