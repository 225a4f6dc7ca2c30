"""Tiny runs of one's own and tuned ones, exported, and their logits by transformers.

Parameters are a function of their paths, as tensors of `pretrained.py` are of their names.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import base
from posenc_jax.config import overlay
from posenc_jax.model import decoder
from posenc_jax.pretrained import exporting, families, importing, sources
from posenc_jax.training.checkpoints import leaves_by_path

from .pretrained import GOLDEN, TOKENS, weights
from .tensors import torch

BOS = 1
VOCAB = 23
LENGTH = 32
OWN = {
  'train.length': LENGTH,
  'model.layers': 3,
  'model.model_dim': 12,
  'model.heads': 3,
  'model.head_dim': 4,
  'model.mlp_dim': 20,
  'model.mlp': 'swiglu',
  'model.unroll': 1,  # quick to compile
}
WIDE = {'model.model_dim': 24, 'model.head_dim': 8}
ONE_KV = {'model.kv_heads': 1}
OUTPUT_NORMS = {'model.norm_placement': 'output'}
GEMMA = {'model.norm_placement': 'sandwich', 'model.mlp': 'geglu'}
LAYER_NORM = {'model.norm': 'layer', 'model.bias': 'all', 'model.mlp': 'gelu'}
ROPE = {'name': 'rope', 'base': 500.0}
WINDOW = ROPE | {'attention_window': 5}
YARN = {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 8}
YARN_ROPE = ROPE | {'scaling': YARN}
LLAMA3 = {'rope_type': 'llama3', 'factor': 4.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
LLAMA3 |= {'original_max_position_embeddings': 8}
LONGROPE = {'rope_type': 'longrope', 'factor': 4.0, 'original_max_position_embeddings': 8}
LONGROPE |= {'short_factor': (1.0, 1.2), 'long_factor': (1.0, 3.0)}
DYNAMIC = {'rope_type': 'dynamic', 'factor': 2.0, 'original_max_position_embeddings': 8}
LINEAR = {'rope_type': 'linear', 'factor': 4.0}
NEIGHBORS = ROPE | {'layout': 'interleaved'}
TEMPERATURE = {'name': 'llama4_temperature', 'length': 8, 'c': 0.7, 'counts_itself': False}


def layers(*encodings: dict | str) -> dict:
  """The encoding of layers that take turns."""
  return {'encoding': {'name': 'pattern', 'layers': encodings}}


def rope(**more) -> dict:
  """RoPE with other fields, as the encoding of all layers."""
  return {'encoding': ROPE | more}


# By the run: the fields in which it differs from OWN.
RUNS = {
  'llama': ONE_KV,
  'llama_tied': {'model.embedding_scale': 1.0, 'model.norm_eps': 1e-3, 'model.mlp': 'geglu'},
  'llama_biases': {'model.bias': 'all'},
  'llama_linear': rope(scaling=LINEAR),
  'llama_yarn': {'encoding': YARN_ROPE},
  'llama_llama3': rope(scaling=LLAMA3),
  'llama_of_dynamic': rope(scaling=DYNAMIC),
  'llama_longrope': rope(scaling=LONGROPE),
  'mistral': {'attention.window': 5, 'model.head_dim': 6},
  'ministral': layers(WINDOW, ROPE),
  'ministral3': {'encoding': {'name': 'chain', 'members': (YARN_ROPE, TEMPERATURE)}},
  'qwen2': ONE_KV | {'model.bias': 'qkv'},
  'qwen3': ONE_KV | {'model.qk_norm': 'head', 'model.head_dim': 6},
  'phi3': rope(fraction=0.5) | {'attention.window': 5},
  'phi3_longrope': WIDE | rope(fraction=0.5, scaling=LONGROPE),
  'smollm3': layers(ROPE, 'nope'),
  'smollm3_nope': {'encoding': {'name': 'nope'}},
  'olmo2': OUTPUT_NORMS | {'model.qk_norm': 'projection'},
  'olmo3': OUTPUT_NORMS | {'model.qk_norm': 'projection'} | layers(WINDOW, WINDOW, YARN_ROPE),
  'exaone4': OUTPUT_NORMS | {'model.qk_norm': 'head'} | layers(WINDOW, 'nope'),
  'exaone4_whole': OUTPUT_NORMS | ONE_KV | {'model.qk_norm': 'head'},
  'ernie4_5': {'encoding': NEIGHBORS},
  'glm': {'model.bias': 'qkv', 'encoding': NEIGHBORS | {'fraction': 0.5}},
  'glm4': {'model.norm_placement': 'sandwich', 'encoding': NEIGHBORS | {'fraction': 0.5}},
  'gemma2': GEMMA | {'attention.softcap': 2.0, 'model.logit_softcap': 3.0} | layers(WINDOW, ROPE),
  'gemma2_plain': GEMMA | {'model.head_dim': 6} | layers(ROPE, WINDOW, WINDOW),
  'gemma3': GEMMA | ONE_KV | {'model.qk_norm': 'head'} | layers(WINDOW, WINDOW, YARN_ROPE),
  'gemma3_bases': GEMMA
  | {'model.qk_norm': 'head', 'model.head_dim': 6, 'model.mlp': 'swiglu'}
  | layers(WINDOW, ROPE | {'base': 9e4}),
  'gemma3_whole': GEMMA | {'model.qk_norm': 'head', 'encoding': ROPE},
  'stablelm': WIDE | rope(fraction=0.25) | {'model.norm': 'layer', 'model.bias': 'qkv'},
  'starcoder2': LAYER_NORM | ONE_KV | {'attention.window': 5},
  'starcoder2_plain': LAYER_NORM | {'model.bias': 'none'},
  'gpt_neox': LAYER_NORM | WIDE | rope(fraction=0.25) | {'model.parallel_residual': True},
  'gpt_neox_serial': LAYER_NORM | {'model.mlp': 'gelu_exact'},
  'gpt2': LAYER_NORM | {'encoding': {'name': 'learned'}},
  'bloom': LAYER_NORM
  | {'encoding': {'name': 'alibi'}, 'model.mlp_dim': 48, 'model.embedding_norm': True},
}
# By the run: the golden model that it was imported from, and what was changed in it.
SCALED = {f'encoding.scaling.{name}': value for name, value in YARN.items()}
TUNED = {
  'tuned_gemma': ('gemma', SCALED),
  'tuned_gemma2': ('gemma2', {}),
  'tuned_gemma3': ('gemma3', SCALED),
  'tuned_granite': ('granite', SCALED),
  'tuned_glm4': ('glm4', {'encoding.fraction': 1.0}),
}
EXPORTS = (*RUNS, *TUNED)


def run(name: str) -> tuple[ConfigDict, dict | None]:
  """The config of a run, and the config.json that it was imported with or None."""
  if name in RUNS:
    config = base.get_config()
    overlay(config, OWN | RUNS[name])
    return config, None
  golden, changes = TUNED[name]
  fields = json.loads((GOLDEN / 'pretrained.json').read_text(encoding='utf-8'))[golden]['config']
  source = sources.Source('golden', fields, {}, None, None, '0' * 64)
  config = importing.config_of(base.get_config(), source, families.form_of(fields, golden))
  overlay(config, changes)
  return config, fields


def parameters(config: ConfigDict) -> dict[str, np.ndarray]:
  """{path: parameter} of a run."""
  shapes = leaves_by_path(decoder.shapes(config, VOCAB))
  return {path: weights(path, leaf.shape) for path, leaf in shapes.items()}


def export(name: str, folder: Path) -> tuple[dict, dict]:
  """Exports a run into a new folder; returns its config.json and {tensor: shape}."""
  from safetensors.numpy import load_file

  config, source = run(name)
  exporting.export_model(config, parameters(config), BOS, source, None, folder)
  tensors = load_file(folder / sources.WHOLE)
  fields = json.loads((folder / sources.CONFIG).read_text(encoding='utf-8'))
  return fields, {key: list(tensor.shape) for key, tensor in tensors.items()}


def digest(shapes: dict) -> str:
  """The hash of tensors' names and shapes that is kept."""
  return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]


def record(name: str) -> dict:
  """What tests keep of an export: its 'config', the hash of its 'shapes', and 'logits' behind each
  of the texts of TOKENS. Raises ValueError where transformers finds a tensor too few or too many.
  """
  import transformers

  with tempfile.TemporaryDirectory() as parent:
    folder = Path(parent) / 'export'
    config, shapes = export(name, folder)
    options = {'attn_implementation': 'eager', 'dtype': torch.float32, 'output_loading_info': True}
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
  if wrong := {kind: names for kind, names in loading.items() if names}:
    raise ValueError(f'{name}: {wrong}')
  with torch.no_grad():
    last = model.eval()(torch.from_numpy(TOKENS)).logits[:, -1].numpy()
  logits = [[float(f'{x:.7g}') for x in row] for row in last]
  return {'config': config, 'shapes': digest(shapes), 'logits': logits}
