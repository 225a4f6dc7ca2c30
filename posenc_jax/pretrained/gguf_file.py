"""Reads a GGUF file: its metadata in Hugging Face's words, its tensors under Hugging Face's names.

The library `gguf` knows the format and undoes its quantization.
"""

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from posenc_jax.encodings.core.scaling.formulas import llama3, rope_frequencies
from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL
from posenc_jax.encodings.core.scaling.yarn import default_attention_factor
from posenc_jax.errors import MAX_REASON, UserError, imported, one_line, shown
from posenc_jax.pretrained.gguf_architectures import (
  ARCHITECTURES,
  FACTORS,
  TENSORS,
  as_published,
  notes,
)
from posenc_jax.pretrained.gguf_tokenizer import special_token, tokenizer_of

# Of metadata: the bytes of a value by the number of its type, but for texts and arrays.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, ARRAY = 8, 9
MOST_VALUES = 2**22  # of an array: vocabularies of today have up to some 2^18

# What a file that is damaged leads to.
OF_DAMAGE = (ValueError, LookupError, OSError, OverflowError, TypeError, struct.error)


def open_model(
  path: Path, field: str
) -> tuple[dict, dict[str, tuple], Callable[[str], np.ndarray], bytes | None, str, dict, tuple]:
  """Returns (config, shapes, read, tokenizer, no_tokenizer, beside, notes) as in `sources.Source`.
  Raises `UserError`.
  """
  gguf = imported('gguf', field, 'pretrained')
  try:
    _check_arrays(path)
    reader = gguf.GGUFReader(path)
    metadata = {name: reader.fields[name].contents() for name in reader.fields}
    found = {tensor.name: tensor for tensor in reader.tensors}
  except OF_DAMAGE as error:
    reason = one_line(error, MAX_REASON)
    raise UserError(f'{field}: no whole GGUF file ({type(error).__name__}: {reason})') from None
  config = _config(metadata, 'output.weight' in found, field)
  architecture = ARCHITECTURES[metadata['general.architecture']]
  if (divisors := found.pop('rope_freqs.weight', None)) is not None:
    config['rope_scaling'] = _scaling_of(divisors, config, field)
  if ORIGINAL in config and {*FACTORS.values()} <= found.keys():
    factors = {
      name: [as_published(x) for x in found.pop(tensor).data.tolist()]
      for name, tensor in FACTORS.items()
    }
    config['rope_scaling'] = {'rope_type': 'longrope'} | factors
  names, translated = {}, TENSORS | architecture.tensors
  for name in found:
    _, _, rest = name.partition('.')
    number, _, rest = rest.partition('.')
    is_layer = name.startswith('blk.') and number.isdigit()
    general = f'blk.{{n}}.{rest}' if is_layer else name
    if general not in translated:
      raise UserError(f'{field}: a tensor {shown(name)} that no family uses')
    target = translated[general].format(n=number)
    if target in names:
      problem = f'{names[target]} and {name} are both {target}'
      raise UserError(f'{field}: {problem}; allowed: one of them')
    names[target] = name
  shapes = {name: tuple(map(int, found[own].shape[::-1])) for name, own in names.items()}

  def read(name):
    tensor = found[names[name]]
    try:
      x = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, ValueError) as error:
      kind = tensor.tensor_type.name
      raise UserError(f'{field}: {tensor.name} is {kind}, not readable ({error})') from None
    x = np.asarray(x, np.float32).reshape(shapes[name])
    if architecture.adds_one and name.endswith('norm.weight'):
      return x - 1
    if architecture.has_pairs and name.endswith(('q_proj.weight', 'k_proj.weight')):
      heads = config['num_attention_heads' if 'q_proj' in name else 'num_key_value_heads']
      if len(x) % (2 * heads):
        raise UserError(f'{field}: {tensor.name} has {len(x)} rows, which are no {heads} heads')
      x = _unpermuted(x, heads)
    return x

  template = metadata.get('tokenizer.chat_template')
  beside = {'chat_template.jinja': template.encode()} if isinstance(template, str) else {}
  return config, shapes, read, *tokenizer_of(metadata), beside, notes(config)


def _check_arrays(path: Path) -> None:
  """Raises ValueError or struct.error where metadata do not fit into their file, which `gguf` would
  read value by value until no memory is left.
  """
  with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    (version,) = struct.unpack_from('<I', data, 4)
    order = '<' if version & 0xFFFF else '>'
    if data[:4] != b'GGUF' or struct.unpack_from(f'{order}I', data, 4)[0] not in (2, 3):
      return  # gguf says so
    place = 16  # behind the mark, the version and the number of tensors

    def take(number: str) -> int:
      nonlocal place
      (value,) = struct.unpack_from(order + number, data, place)
      place += struct.calcsize(order + number)
      return value

    def skip(size: int) -> None:
      nonlocal place
      place += size
      if place > len(data):
        raise ValueError(f'its metadata end at byte {place} of {len(data)}')

    for _ in range(take('Q')):
      skip(take('Q'))  # a name
      kind, count = take('I'), 1
      if kind == ARRAY:
        kind, count = take('I'), take('Q')
      if count > MOST_VALUES:
        raise ValueError(f'an array of {count} values; allowed: up to {MOST_VALUES}')
      if kind == TEXT:
        for _ in range(count):
          skip(take('Q'))
      elif kind in SIZES:
        skip(count * SIZES[kind])
      else:
        raise ValueError(f'a value of type {kind}; allowed: numbers, texts and arrays of these')


def _scaling_of(divisors, config: dict, field: str) -> dict:
  """The scaling of a tensor of divisors, one a frequency: so converters write Llama 3's rule, whose
  original length is found again. Where these are of no such rule, two equal lists of LongRoPE
  without its attention factor are the same.
  """
  if 'rope_scaling' in config or divisors.data.dtype != np.float32:
    raise UserError(
      f'{field}: rope_freqs.weight beside another scaling, or in {divisors.data.dtype}'
    )
  by_frequency = [float(x) for x in divisors.data]
  K, base, largest = 2 * len(by_frequency), config['rope_theta'], max(by_frequency)
  frequencies = rope_frequencies(K, base)
  kept = (1 / divisors.data - 1 / largest) / max(1 - 1 / largest, 1e-9)
  n = np.argmin(np.abs(kept - 0.5))  # of 1 to 4 turns in the original length, which it tells
  length = round((1 + 3 * kept[n]) * 2 * math.pi / frequencies[n])
  rule = {'factor': largest, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, ORIGINAL: length}
  if np.allclose(frequencies / llama3(K, base, 0, **rule)[0], by_frequency, rtol=1e-5):
    return {'rope_type': 'llama3', **rule}
  return {
    'rope_type': 'longrope',
    'short_factor': by_frequency,
    'long_factor': by_frequency,
    'attention_factor': 1.0,
    ORIGINAL: config['max_position_embeddings'],
  }


def _unpermuted(x, heads: int):
  """Rows back from pairs (2m, 2m + 1) to pairs (m, m + K/2) of each head's channels."""
  rows, columns = x.shape
  return x.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(metadata: dict, has_output: bool, field: str) -> dict:
  """What config.json would say. Raises `UserError` for metadata that is not understood."""
  kind = metadata.get('general.architecture')
  if kind not in ARCHITECTURES:
    allowed = ', '.join(ARCHITECTURES)
    raise UserError(f'{field}: a GGUF of architecture {shown(kind)}; allowed: {allowed}')
  # What stands beside is about the file, and some publishers have words of their own for that.
  left = {name: x for name, x in metadata.items() if name.startswith((f'{kind}.', 'split.'))}
  if kind != 'granite' or left.get(f'{kind}.rope.scaling.finetuned'):  # whose layers then turn
    left.pop(f'{kind}.rope.scaling.finetuned', None)  # else llama.cpp computes nothing by it
  if (parts := left.pop('split.count', 0)) in (0, 1):  # 0: llama.cpp has merged several
    left.pop('split.no', None)
    left.pop('split.tensors.count', None)
  else:
    allowed = 'one file, as `llama-gguf-split --merge` makes'
    raise UserError(f'{field}: a part of {shown(parts)}; allowed: {allowed}')

  def take(name, default=None):
    value = left.pop(f'{kind}.{name}', default)
    if value is None:
      raise UserError(f'{field}: its metadata lack {kind}.{name}')
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(f'{field}: metadata {kind}.{name}={value}; allowed: a finite number')
    return value

  def take_size(name, default=None):
    value = take(name, default)
    if type(value) is not int or value < 1:
      raise UserError(f'{field}: metadata {kind}.{name}={shown(value)}; allowed: 1 or more')
    return value

  def take_kv_heads():
    by_layer = left.get(name := f'{kind}.attention.head_count_kv')
    if isinstance(by_layer, list) and len(set(by_layer)) == 1:
      left[name] = by_layer[0]
    return take_size('attention.head_count_kv', heads)

  heads, width = take_size('attention.head_count'), take_size('embedding_length')
  config = {
    'model_type': kind,
    'hidden_size': width,
    'intermediate_size': take_size('feed_forward_length'),
    'num_hidden_layers': take_size('block_count'),
    'num_attention_heads': heads,
    'num_key_value_heads': take_kv_heads(),
    'head_dim': take_size('attention.key_length', width // heads),
    'rms_norm_eps': as_published(take('attention.layer_norm_rms_epsilon')),
    'max_position_embeddings': take_size('context_length'),
    'rope_theta': float(take('rope.freq_base', 10000.0)),
    'tie_word_embeddings': not has_output,
    'vocab_size': take_size('vocab_size', len(metadata.get('tokenizer.ggml.tokens', ()))),
    'bos_token_id': special_token(metadata, 'bos'),
    'eos_token_id': _ends(metadata),
  }
  take('attention.value_length', config['head_dim'])
  if take('rope.dimension_count', config['head_dim']) != config['head_dim']:
    config['partial_rotary_factor'] = metadata[f'{kind}.rope.dimension_count'] / config['head_dim']
  scaling = take('rope.scaling.type', 'none')
  if scaling != 'none':
    config['rope_scaling'] = {'rope_type': scaling, 'factor': float(take('rope.scaling.factor'))}
    # 0 says nothing, as in llama.cpp
    if original := left.pop(f'{kind}.rope.scaling.original_context_length', 0):
      config['rope_scaling'][ORIGINAL] = original
  if scaling == 'yarn':
    if left.get(extrapolated := f'{kind}.rope.scaling.yarn_ext_factor') == 1:  # as YaRN has it
      del left[extrapolated]
    for name in ('attn_factor', 'beta_fast', 'beta_slow'):
      if (value := left.pop(f'{kind}.rope.scaling.yarn_{name}', None)) is not None:
        config['rope_scaling'][name] = value
    usual = default_attention_factor(config['rope_scaling']['factor'])
    written = take('rope.scaling.attn_factor', usual)  # as some converters do
    if not math.isclose(written, usual, rel_tol=1e-5):
      allowed = f'{usual:g}, which its factor gives'
      raise UserError(
        f'{field}: metadata {kind}.rope.scaling.attn_factor={written}; allowed: {allowed}'
      )
  try:
    config = ARCHITECTURES[kind].finish(config, take)
  except UserError:
    raise
  except (ArithmeticError, TypeError, ValueError) as error:
    reason = one_line(error, MAX_REASON)
    raise UserError(f'{field}: metadata that are none of {kind}: {reason}') from None
  if left:
    raise UserError(f'{field}: metadata {min(left)}={shown(left[min(left)])} are not understood')
  return config


def _ends(metadata: dict) -> int | list[int] | None:
  """The end of a text, and that of a turn, where it is another."""
  ends = [special_token(metadata, name) for name in ('eos', 'eot')]
  ends = [*dict.fromkeys(token for token in ends if token is not None)]
  return ends if len(ends) > 1 else next(iter(ends), None)
