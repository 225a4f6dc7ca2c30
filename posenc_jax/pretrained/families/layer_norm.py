"""StarCoder 2, StableLM and Falcon: LayerNorm and rotary positions."""

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import GATED, UNGATED, activation, rope, sizes
from posenc_jax.pretrained.families.gpt import layer_norm, linear, norms_of_layers
from posenc_jax.pretrained.families.llama import decoder_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import LAYER, Rule, joined, logits_rule, same, shared

BUFFERS = ('rotary_emb.inv_freq',)


def starcoder2(fields: Fields) -> Form:
  """StarCoder 2 (arXiv:2402.19173): MLPs without a gate, biases, a window in all layers."""
  fields.need('num_key_value_heads')
  fields.allow_only('mlp_type', 'default')
  fields.allow_only('norm_type', 'layer_norm')
  has_bias = fields.take('use_bias', True, bool)
  model = {
    **sizes(fields),
    'norm': 'layer',
    'norm_eps': fields.take('norm_epsilon', 1e-5, float),
    'mlp': activation(fields, 'hidden_act', UNGATED, 'gelu_pytorch_tanh'),
    'bias': 'all' if has_bias else 'none',
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }
  modules = {leaf: f'self_attn.{leaf}_proj' for leaf in 'qkvo'}
  modules |= {'in': 'mlp.c_fc', 'out': 'mlp.c_proj'}
  rules = [
    same('embedding', 'model.embed_tokens.weight'),
    *layer_norm('norm', 'model.norm'),
    *norms_of_layers(LAYER),
    *(rule for leaf, name in modules.items() for rule in linear(leaf, LAYER + name, has_bias)),
    *logits_rule(model),
  ]
  attention = {'window': fields.optional('sliding_window', int) or 0}
  length = fields.take('max_position_embeddings', 4096)
  return Form(model, attention, rope(fields), length, rules, BUFFERS)


def stablelm(fields: Fields) -> Form:
  """StableLM 2 and 3B (arXiv:2402.17834): gated MLPs, a quarter of each head rotates."""
  fields.need('num_key_value_heads')
  fields.allow_only('qk_layernorm', False)
  is_parallel = fields.take('use_parallel_residual', False, bool)
  model = {
    **sizes(fields),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_eps', 1e-5, float),
    'mlp': activation(fields, 'hidden_act', GATED, 'silu'),
    'bias': 'qkv' if fields.take('use_qkv_bias', False, bool) else 'none',
    'parallel_residual': is_parallel,
    'tie_embeddings': fields.take('tie_word_embeddings', False, bool),
  }
  fields.allow_only('head_dim', model['model_dim'] // model['heads'])  # transformers reads no other
  encoding = {'fraction': 0.25} | rope(fields, is_partial=True)
  rules = [
    *decoder_rules(model),
    same('norm/bias', 'model.norm.bias'),
    *(_one_norm(f'{LAYER}input_layernorm') if is_parallel else norms_of_layers(LAYER)),
  ]
  length = fields.take('max_position_embeddings', 4096)
  return Form(model, {}, encoding, length, rules, BUFFERS)


def falcon(fields: Fields) -> Form:
  """Falcon 7B (arXiv:2311.16867): attention with one head of keys and values beside the MLP, behind
  one norm.
  """
  for name, allowed in (
    ('multi_query', True),
    ('parallel_attn', True),
    ('alibi', False),
    ('bias', False),
    ('new_decoder_architecture', False),  # Falcon 40B, 180B and 11B
    ('apply_residual_connection_post_layernorm', False),
  ):
    fields.allow_only(name, allowed)
  fields.allow_only('num_ln_in_parallel_attn', None, 1)
  fields.ignore('num_kv_heads')  # of the newer architecture
  D, H = fields.take('hidden_size', 4544), fields.take('num_attention_heads', 71)
  K = D // H
  model = {
    'model_dim': D,
    'mlp_dim': fields.optional('ffn_hidden_size', int) or 4 * D,
    'layers': fields.take('num_hidden_layers', 32),
    'heads': H,
    'kv_heads': 0 if H == 1 else 1,
    'head_dim': K,
    'vocab': fields.take('vocab_size'),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_epsilon', 1e-5, float),
    'mlp': activation(fields, 'activation', UNGATED, 'gelu'),
    'parallel_residual': True,
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }
  layer = 'transformer.h.{n}.'
  qkv = tuple(f'layers/w_{x}' for x in 'qkv')
  rules = [
    same('embedding', 'transformer.word_embeddings.weight'),
    *layer_norm('norm', 'transformer.ln_f'),
    *_one_norm(f'{layer}input_layernorm'),
    joined(qkv, f'{layer}self_attention.query_key_value.weight', (D, K, K), 0),
    *linear('o', f'{layer}self_attention.dense', False),
    *linear('in', f'{layer}mlp.dense_h_to_4h', False),
    *linear('out', f'{layer}mlp.dense_4h_to_h', False),
    *logits_rule(model),
  ]
  length = fields.take('max_position_embeddings', 2048)
  return Form(model, {}, rope(fields), length, rules, BUFFERS)


def _one_norm(module: str) -> list[Rule]:
  """One norm is that before attention and that before the MLP, which stand side by side."""
  norms = ('layers/attention_norm', 'layers/mlp_norm')
  return [
    shared(tuple(f'{norm}/{leaf}' for norm in norms), f'{module}.{name}')
    for leaf, name in (('scale', 'weight'), ('bias', 'bias'))
  ]
