"""What llama.cpp's converters write of each architecture into a GGUF file: names of tensors, and
metadata that others do not have.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL
from posenc_jax.errors import shown
from posenc_jax.pretrained.families.layer_kinds import KINDS
from posenc_jax.pretrained.tensor_rules import LAYER

# How the names of tensors translate; {n}: the layer.
TENSORS = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
  'blk.{n}.attn_norm.weight': f'{LAYER}input_layernorm.weight',
  'blk.{n}.ffn_norm.weight': f'{LAYER}post_attention_layernorm.weight',
  'blk.{n}.post_attention_norm.weight': f'{LAYER}post_attention_layernorm.weight',
  'blk.{n}.post_ffw_norm.weight': f'{LAYER}post_feedforward_layernorm.weight',
  **{
    f'blk.{{n}}.attn_{short}.{kind}': f'{LAYER}self_attn.{long}_proj.{kind}'
    for short, long in (('q', 'q'), ('k', 'k'), ('v', 'v'), ('output', 'o'))
    for kind in ('weight', 'bias')
  },
  'blk.{n}.attn_q_norm.weight': f'{LAYER}self_attn.q_norm.weight',
  'blk.{n}.attn_k_norm.weight': f'{LAYER}self_attn.k_norm.weight',
  **{
    f'blk.{{n}}.ffn_{part}.weight': f'{LAYER}mlp.{part}_proj.weight'
    for part in ('gate', 'up', 'down')
  },
}


def _granite(config: dict, take: Callable) -> dict:
  """Granite 3, and models of Granite 4 that have attention in all layers and no experts: their
  files have numbers of parts that they lack.
  """
  for key in ('expert_count', 'expert_used_count'):
    if take(key, 0):
      raise ValueError(f'{key}, of experts in place of MLPs')
  for key in ('conv_kernel', 'state_size', 'group_count', 'inner_size', 'time_step_rank'):
    take(f'ssm.{key}', 0)
  names = {
    'attention_multiplier': 'attention.scale',
    'embedding_multiplier': 'embedding_scale',
    'residual_multiplier': 'residual_scale',
    'logits_scaling': 'logit_scale',
  }
  return config | {name: as_published(take(key)) for name, key in names.items()}


def _gemma2(config: dict, take: Callable) -> dict:
  caps = {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0}
  config |= {name: as_published(take(name, usual)) for name, usual in caps.items()}
  return _gemma(config, take('attention.sliding_window', 4096), layers_of_27b=46)


def _gemma3(config: dict, take: Callable) -> dict:
  config |= {'model_type': 'gemma3_text'}
  config |= {'rope_local_base_freq': float(take('rope.freq_base_swa', 10_000.0))}
  return _gemma(config, take('attention.sliding_window'), layers_of_27b=62)


def _gemma(config: dict, window: int, layers_of_27b: int) -> dict:
  """A file does not say by what scores are divided; llama.cpp knows the one size in which that is
  not head_dim by its layers.
  """
  scalar = config['head_dim']
  if config['num_hidden_layers'] == layers_of_27b:
    scalar = config['hidden_size'] // config['num_attention_heads']
  return config | {'sliding_window': window, 'query_pre_attn_scalar': scalar}


def _olmo(config: dict, take: Callable) -> dict:
  """OLMo 2 and, where some layers have a window, OLMo 3; in those RoPE is not scaled."""
  if not (window := take('attention.sliding_window', 0)):
    return config
  base, scaling = config.pop('rope_theta'), config.pop('rope_scaling', {})
  of_local = {'rope_theta': float(take('rope.freq_base_swa', base)), 'rope_type': 'default'}
  of_whole = {'rope_theta': base, 'rope_type': 'default'} | scaling
  is_local = take('attention.sliding_window_pattern')
  return config | {
    'model_type': 'olmo3',
    'sliding_window': window,
    'layer_types': [KINDS[not has_window] for has_window in is_local],
    'rope_parameters': dict(zip(KINDS, (of_local, of_whole), strict=True)),
  }


def _phi3(config: dict, take: Callable) -> dict:
  """The factor of attention is that which the two lengths give; a window of 0 is none."""
  length = config['max_position_embeddings']
  original = take('rope.scaling.original_context_length', length)
  if type(original) is not int or original < 2:  # what lengths give is divided by its logarithm
    raise ValueError(f'rope.scaling.original_context_length={shown(original)}; allowed: 2 or more')
  factor = math.sqrt(1 + math.log(max(length / original, 1)) / math.log(original))
  if not math.isclose(take('rope.scaling.attn_factor', factor), factor, rel_tol=1e-5):
    raise ValueError(f'rope.scaling.attn_factor, where its lengths give {factor:g}')
  window = take('attention.sliding_window', 0) or None
  return config | {'sliding_window': window, ORIGINAL: original}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What the files of an architecture have that those of others have not, as llama.cpp converts
  them.

  Attributes:
    has_pairs: whether rows of queries and keys that turn together stand side by side.
    adds_one: whether 1 was added to norms.
    tensors: names that translate otherwise here.
    finish: (config of what all have, metadata by name and default) -> its config.
  """

  has_pairs: bool = False
  adds_one: bool = False
  tensors: dict[str, str] = dataclasses.field(default_factory=dict)
  finish: Callable[[dict, Callable], dict] = lambda config, take: config


BEFORE_MLP = {'blk.{n}.ffn_norm.weight': f'{LAYER}pre_feedforward_layernorm.weight'}
JOINED = {
  'blk.{n}.attn_qkv.weight': f'{LAYER}self_attn.qkv_proj.weight',
  'blk.{n}.ffn_up.weight': f'{LAYER}mlp.gate_up_proj.weight',
}
# Its later versions have another base.
MISTRAL_V01 = {
  'model_type': 'llama',
  'num_hidden_layers': 32,
  'intermediate_size': 14336,
  'max_position_embeddings': 32768,
  'rope_theta': 10_000.0,
}
FACTORS = {f'{of}_factor': f'rope_factors_{of}.weight' for of in ('short', 'long')}  # Phi-3's
ARCHITECTURES = {
  'llama': Architecture(has_pairs=True),
  'qwen2': Architecture(),
  'qwen3': Architecture(),
  'smollm3': Architecture(has_pairs=True),  # each fourth layer without positions, as by default
  'olmo2': Architecture(finish=_olmo),
  'phi3': Architecture(tensors=JOINED, finish=_phi3),
  'granite': Architecture(has_pairs=True, finish=_granite),
  'gemma2': Architecture(adds_one=True, tensors=BEFORE_MLP, finish=_gemma2),
  'gemma3': Architecture(adds_one=True, tensors=BEFORE_MLP, finish=_gemma3),
}


def notes(config: dict) -> tuple[str, ...]:
  """Lines for whoever imports the model: converters write no window of the architecture `llama`,
  and of the models that are converted to it, those of Mistral's first 7B have one.
  """
  if MISTRAL_V01.items() <= config.items():
    what = 'such a file does not say the window of 4,096 tokens that Mistral 7B v0.1 has'
    return (f'{what}: without it here, as in llama.cpp; its folder of safetensors says it',)
  return ()


def as_published(value: int | float) -> int | float:
  """The number of a config.json whose nearest in float32 is this one of the file."""
  return float(str(np.float32(value))) if isinstance(value, float) else value
