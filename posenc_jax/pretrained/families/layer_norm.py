"""GPT-2, GPT-NeoX, BLOOM, MPT, StarCoder 2, StableLM, Nemotron and Falcon: LayerNorm."""

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import (
  GATED,
  RELU2,
  UNGATED,
  activation,
  number_of_layers,
  rope,
  sizes,
)
from posenc_jax.pretrained.families.llama import bias_of_all, decoder_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import (
  LAYER,
  Rule,
  joined,
  joined_by_head,
  logits_rule,
  plus_one,
  same,
  scaled,
  shared,
  transposed,
  zeros,
)

POSITIONS = 'encodings/variants/0/encoding/rows'
BUFFERS = ('rotary_emb.inv_freq',)


def gpt_neox(fields: Fields) -> Form:
  """GPT-NeoX and Pythia (arXiv:2204.06745, arXiv:2304.01373): parallel residual, partial rotary."""
  fields.allow_only('attention_bias', True)
  model = sizes(fields)
  model |= {
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_eps', 1e-5, float),
    'mlp': activation(fields, 'hidden_act', UNGATED, 'gelu'),
    'bias': 'all',
    'parallel_residual': fields.take('use_parallel_residual', True, bool),
    'tie_embeddings': fields.take('tie_word_embeddings', False, bool),
  }
  base = float(fields.take('rotary_emb_base', 10_000, (int, float)))
  fraction = fields.take('rotary_pct', 0.25, float)
  # Transformers reads those two by their older names, or what `rope_parameters` has in it.
  fields.allow_only('rope_theta', None, base)
  fields.allow_only('partial_rotary_factor', None, fraction)
  encoding = {'fraction': fraction} | rope(fields, base, is_partial=True)
  rules = [
    same('embedding', 'gpt_neox.embed_in.weight'),
    *layer_norm('norm', 'gpt_neox.final_layer_norm'),
    *_block_joined_by_head('gpt_neox.layers.{n}.', 'attention', model['heads']),
    *logits_rule(model, 'embed_out.weight'),
  ]
  length = fields.take('max_position_embeddings', 2048)
  buffers = ('rotary_emb.inv_freq', 'attention.bias', 'attention.masked_bias')
  return Form(model, {}, encoding, length, rules, buffers)


def gpt2(fields: Fields) -> Form:
  """GPT-2 (Radford et al. 2019): learned positions, inputs first in matrices."""
  fields.allow_only('scale_attn_weights', True)
  fields.allow_only('scale_attn_by_inverse_layer_idx', False)
  fields.allow_only('add_cross_attention', False)
  D, H = fields.take('n_embd', 768), fields.take('n_head', 12)
  length = fields.take('n_positions', 1024)
  model = _usual(fields, D, H) | {
    'mlp_dim': fields.take('n_inner', 4 * D, least=1),
    'layers': number_of_layers(fields, 'n_layer', 12),
    'mlp': activation(fields, 'activation_function', UNGATED, 'gelu_new'),
    'bias': 'all',
  }
  layer = 'transformer.h.{n}.'
  positions = scaled(same(POSITIONS, 'transformer.wpe.weight'), D**-0.5)  # read times sqrt(D)
  rules = [
    same('embedding', 'transformer.wte.weight'),
    positions,
    *layer_norm('norm', 'transformer.ln_f'),
    *layer_norm('layers/attention_norm', f'{layer}ln_1'),
    *layer_norm('layers/mlp_norm', f'{layer}ln_2'),
    *(
      joined(tuple(f'layers/{kind}_{x}' for x in 'qkv'), f'{layer}attn.c_attn.{name}', (D,) * 3, -1)
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *(
      same(f'layers/{kind}_{leaf}', f'{layer}{module}.{name}')
      for leaf, module in (('o', 'attn.c_proj'), ('in', 'mlp.c_fc'), ('out', 'mlp.c_proj'))
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *logits_rule(model),
  ]
  encoding = {'name': 'learned', 'max_length': length}  # whatever a tuned run's length is
  return Form(model, {}, encoding, length, rules, ('attn.bias', 'attn.masked_bias'))


def bloom(fields: Fields) -> Form:
  """BLOOM (arXiv:2211.05100): ALiBi, a norm behind the token embedding."""
  fields.allow_only('apply_residual_connection_post_layernorm', False)
  fields.allow_only('n_inner', None)
  fields.allow_only('skip_bias_add', True)
  fields.allow_only('skip_bias_add_qkv', False)
  D = fields.take('n_embed', fields.take('hidden_size', 64), least=1)
  H = fields.take('num_attention_heads', fields.take('n_head', 8), least=1)
  is_newer = fields.optional('num_hidden_layers', int) is not None
  of_layers = 'num_hidden_layers' if is_newer else 'n_layer'
  model = _usual(fields, D, H) | {
    'mlp_dim': 4 * D,
    'layers': number_of_layers(fields, of_layers, 2),
    'mlp': 'gelu',
    'bias': 'all',
    'embedding_norm': True,
  }
  rules = [
    same('embedding', 'transformer.word_embeddings.weight'),
    *layer_norm('embedding_norm', 'transformer.word_embeddings_layernorm'),
    *layer_norm('norm', 'transformer.ln_f'),
    *_block_joined_by_head('transformer.h.{n}.', 'self_attention', H),
    *logits_rule(model),
  ]
  return Form(model, {}, {'name': 'alibi'}, 2048, rules)


def mpt(fields: Fields) -> Form:
  """MPT (MosaicML 2023): ALiBi, no biases. `alibi_bias_max` counts, as in MosaicML's code, of which
  transformers (5.24) reads nothing: it has 8 there.
  """
  for name, allowed in (
    ('no_bias', (True,)),
    ('learned_pos_emb', (True, False)),  # with alibi there is none
    ('logit_scale', (None,)),
    ('embedding_fraction', (1.0, 1)),
    ('norm_type', ('low_precision_layernorm',)),
    ('verbose', (0,)),
  ):
    fields.allow_only(name, *allowed)
  attention = fields.part('attn_config')
  for name, allowed in (
    ('alibi', (True,)),
    ('attn_type', ('multihead_attention',)),
    ('clip_qkv', (None,)),
    ('softmax_scale', (None,)),
    ('prefix_lm', (False,)),
    ('qk_ln', (False,)),
    ('attn_uses_sequence_id', (False,)),
  ):
    attention.allow_only(name, *allowed)
  exponent = attention.take('alibi_bias_max', 8.0, float)
  attention.check_all_read('mpt')
  D, H = fields.take('d_model', 2048), fields.take('n_heads', 16)
  N = number_of_layers(fields, 'n_layers', 24)
  model = _usual(fields, D, H, 50368) | {
    'mlp_dim': fields.take('expansion_ratio', 4) * D,
    'layers': N,
    'mlp': 'gelu_exact',
  }
  layer = 'transformer.blocks.{n}.'
  qkv = tuple(f'layers/w_{x}' for x in 'qkv')
  rules = [
    same('embedding', 'transformer.wte.weight'),
    same('norm/scale', 'transformer.norm_f.weight'),
    zeros('norm/bias', D),
    same('layers/attention_norm/scale', f'{layer}norm_1.weight'),
    zeros('layers/attention_norm/bias', N, D),
    same('layers/mlp_norm/scale', f'{layer}norm_2.weight'),
    zeros('layers/mlp_norm/bias', N, D),
    joined(qkv, f'{layer}attn.Wqkv.weight', (D,) * 3, 0),
    transposed('layers/w_o', f'{layer}attn.out_proj.weight'),
    transposed('layers/w_in', f'{layer}ffn.up_proj.weight'),
    transposed('layers/w_out', f'{layer}ffn.down_proj.weight'),
    *logits_rule(model),
  ]
  encoding = {'name': 'alibi', 'exponent': exponent}
  return Form(model, {}, encoding, fields.take('max_seq_len', 2048), rules)


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
  attention = {'window': fields.optional('sliding_window', int, least=1) or 0}
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


def nemotron(fields: Fields) -> Form:
  """Nemotron-3 8B, Nemotron-4 and Minitron (arXiv:2402.16819, arXiv:2407.14679): a squared ReLU,
  norms whose tensors are their scales less 1, half of each head rotates.
  """
  model = {
    **sizes(fields),
    'norm': 'layer',
    'norm_eps': fields.take('norm_eps', 1e-5, float),
    'mlp': activation(fields, 'hidden_act', RELU2, 'relu2'),
    'bias': bias_of_all(fields),
    'tie_embeddings': fields.take('tie_word_embeddings', False, bool),
  }
  has_bias = model['bias'] == 'all'
  modules = {leaf: f'self_attn.{leaf}_proj' for leaf in 'qkvo'}
  modules |= {'in': 'mlp.up_proj', 'out': 'mlp.down_proj'}
  norms = {'norm': 'model.norm', 'layers/attention_norm': f'{LAYER}input_layernorm'}
  norms |= {'layers/mlp_norm': f'{LAYER}post_attention_layernorm'}
  rules = [
    same('embedding', 'model.embed_tokens.weight'),
    *(plus_one(f'{own}/scale', f'{module}.weight') for own, module in norms.items()),
    *(same(f'{own}/bias', f'{module}.bias') for own, module in norms.items()),
    *(rule for leaf, name in modules.items() for rule in linear(leaf, LAYER + name, has_bias)),
    *logits_rule(model),
  ]
  encoding = {'fraction': 0.5} | rope(fields, is_partial=True)
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
  model = _usual(fields, D, H) | {
    'mlp_dim': fields.take('ffn_hidden_size', 4 * D, least=1),
    'layers': number_of_layers(fields, default=32),
    'kv_heads': 0 if H == 1 else 1,
    'mlp': activation(fields, 'activation', UNGATED, 'gelu'),
    'parallel_residual': True,
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


def _usual(fields: Fields, D: int, H: int, vocab: int | None = None) -> dict:
  """What GPT-2, BLOOM, MPT and Falcon have alike, of D channels and H heads."""
  return {
    'model_dim': D,
    'heads': H,
    'head_dim': D // H,
    'vocab': fields.take('vocab_size', vocab),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_epsilon', 1e-5, float),
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }


def _one_norm(module: str) -> list[Rule]:
  """One norm is that before attention and that before the MLP, which stand side by side."""
  norms = ('layers/attention_norm', 'layers/mlp_norm')
  return [
    shared(tuple(f'{norm}/{leaf}' for norm in norms), f'{module}.{name}')
    for leaf, name in (('scale', 'weight'), ('bias', 'bias'))
  ]


def layer_norm(leaf: str, module: str) -> list[Rule]:
  """A LayerNorm: its scale and its bias."""
  return [same(f'{leaf}/scale', f'{module}.weight'), same(f'{leaf}/bias', f'{module}.bias')]


def norms_of_layers(layer: str) -> list[Rule]:
  """A norm before attention and one before the MLP."""
  return [
    *layer_norm('layers/attention_norm', f'{layer}input_layernorm'),
    *layer_norm('layers/mlp_norm', f'{layer}post_attention_layernorm'),
  ]


def _block_joined_by_head(layer: str, attention: str, heads: int) -> list[Rule]:
  """A layer whose matrix for queries, keys and values has those of each head side by side."""
  return [
    *norms_of_layers(layer),
    *(
      joined_by_head(
        tuple(f'layers/{kind}_{x}' for x in 'qkv'),
        f'{layer}{attention}.query_key_value.{name}',
        heads,
      )
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *linear('o', f'{layer}{attention}.dense'),
    *linear('in', f'{layer}mlp.dense_h_to_4h'),
    *linear('out', f'{layer}mlp.dense_4h_to_h'),
  ]


def linear(leaf: str, module: str, has_bias: bool = True) -> list[Rule]:
  """A matrix with outputs first, and its bias if it has one."""
  matrix = transposed(f'layers/w_{leaf}', f'{module}.weight')
  return [matrix, *([same(f'layers/b_{leaf}', f'{module}.bias')] if has_bias else [])]
