"""The config.json of published models, each field as its publisher wrote it (but for lists of files
and of generation), is understood whole, and read as the model it is.
"""

import pytest

from posenc_jax.pretrained.families import form_of

LLAMA3 = {
  'rope_type': 'llama3',
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}
LLAMA = {
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'hidden_act': 'silu',
  'initializer_range': 0.02,
  'mlp_bias': False,
  'model_type': 'llama',
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-5,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.45.0.dev0',
  'use_cache': True,
}
QWEN2 = {
  'architectures': ['Qwen2ForCausalLM'],
  'attention_dropout': 0.0,
  'bos_token_id': 151643,
  'eos_token_id': 151643,
  'hidden_act': 'silu',
  'initializer_range': 0.02,
  'model_type': 'qwen2',
  'rms_norm_eps': 1e-6,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.40.1',
  'use_cache': True,
  'use_sliding_window': False,
}
PYTHIA = {
  'architectures': ['GPTNeoXForCausalLM'],
  'bos_token_id': 0,
  'eos_token_id': 0,
  'hidden_act': 'gelu',
  'initializer_range': 0.02,
  'layer_norm_eps': 1e-5,
  'max_position_embeddings': 2048,
  'model_type': 'gpt_neox',
  'rotary_emb_base': 10000,
  'rotary_pct': 0.25,
  'tie_word_embeddings': False,
  'torch_dtype': 'float16',
  'transformers_version': '4.24.0',
  'use_cache': True,
  'use_parallel_residual': True,
  'vocab_size': 50304,
}
# What a model is by it: the tokens it was trained for, whether the output projection is the token
# embedding, the names of its encodings, the base of RoPE (a base of each, where there are several),
# the window (of all layers), and the share of the channels that turn.
PUBLISHED = {
  'Llama-3.2-1B': (
    LLAMA
    | {'bos_token_id': 128000, 'eos_token_id': 128001, 'head_dim': 64, 'hidden_size': 2048}
    | {'intermediate_size': 8192, 'max_position_embeddings': 131072, 'num_attention_heads': 32}
    | {'num_hidden_layers': 16, 'num_key_value_heads': 8, 'rope_theta': 500000.0}
    | {'rope_scaling': LLAMA3 | {'factor': 32.0}, 'tie_word_embeddings': True}
    | {'vocab_size': 128256},
    dict(length=131072, ties=True, bases=[500000.0]),
  ),
  'Llama-2-7b': (
    LLAMA
    | {'_name_or_path': 'meta-llama/Llama-2-7b-hf', 'bos_token_id': 1, 'eos_token_id': 2}
    | {'hidden_size': 4096, 'intermediate_size': 11008, 'max_position_embeddings': 4096}
    | {'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 32}
    | {'rope_scaling': None, 'tie_word_embeddings': False, 'vocab_size': 32000},
    dict(length=4096, ties=False, bases=[10000.0]),
  ),
  'vicuna-7b-v1.5-16k': (
    {'architectures': ['LlamaForCausalLM'], 'bos_token_id': 1, 'eos_token_id': 2}
    | {'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02}
    | {'intermediate_size': 11008, 'max_position_embeddings': 4096, 'max_sequence_length': 16384}
    | {'model_type': 'llama', 'num_attention_heads': 32, 'num_hidden_layers': 32}
    | {'num_key_value_heads': 32, 'pad_token_id': 0, 'pretraining_tp': 1, 'rms_norm_eps': 1e-5}
    | {'rope_scaling': {'factor': 4.0, 'type': 'linear'}, 'tie_word_embeddings': False}
    | {'torch_dtype': 'float16', 'use_cache': True, 'vocab_size': 32000},
    dict(length=16384, ties=False, bases=[10000.0]),
  ),
  'SmolLM2-135M': (
    LLAMA
    | {'bos_token_id': 0, 'eos_token_id': 0, 'hidden_size': 576, 'intermediate_size': 1536}
    | {'is_llama_config': True, 'max_position_embeddings': 8192, 'num_attention_heads': 9}
    | {'num_hidden_layers': 30, 'num_key_value_heads': 3, 'rope_interleaved': False}
    | {'rope_scaling': None, 'rope_theta': 100000, 'tie_word_embeddings': True}
    | {'vocab_size': 49152},
    dict(length=8192, ties=True, bases=[100000.0]),
  ),
  'Mistral-7B-v0.1': (
    {'architectures': ['MistralForCausalLM'], 'bos_token_id': 1, 'eos_token_id': 2}
    | {'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02}
    | {'intermediate_size': 14336, 'max_position_embeddings': 32768, 'model_type': 'mistral'}
    | {'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8}
    | {'rms_norm_eps': 1e-5, 'rope_theta': 10000.0, 'sliding_window': 4096}
    | {'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'use_cache': True}
    | {'vocab_size': 32000},
    dict(length=32768, ties=False, bases=[10000.0], window=4096),
  ),
  'Mistral-7B-v0.3': (
    {'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 1}
    | {'eos_token_id': 2, 'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02}
    | {'intermediate_size': 14336, 'max_position_embeddings': 32768, 'model_type': 'mistral'}
    | {'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8}
    | {'rms_norm_eps': 1e-5, 'rope_theta': 1000000.0, 'sliding_window': None}
    | {'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'use_cache': True}
    | {'vocab_size': 32768},
    dict(length=32768, ties=False, bases=[1000000.0]),
  ),
  'Qwen2.5-0.5B': (
    QWEN2
    | {'hidden_size': 896, 'intermediate_size': 4864, 'max_position_embeddings': 32768}
    | {'max_window_layers': 24, 'num_attention_heads': 14, 'num_hidden_layers': 24}
    | {'num_key_value_heads': 2, 'rope_theta': 1000000.0, 'sliding_window': 32768}
    | {'tie_word_embeddings': True, 'use_mrope': False, 'vocab_size': 151936},
    dict(length=32768, ties=True, bases=[1000000.0]),
  ),
  'DeepSeek-R1-Distill-Qwen-7B': (
    QWEN2
    | {'bos_token_id': 151643, 'hidden_size': 3584, 'intermediate_size': 18944}
    | {'max_position_embeddings': 131072, 'max_window_layers': 28, 'num_attention_heads': 28}
    | {'num_hidden_layers': 28, 'num_key_value_heads': 4, 'rope_theta': 10000}
    | {'sliding_window': 4096, 'tie_word_embeddings': False, 'use_mrope': False}
    | {'vocab_size': 152064},
    dict(length=131072, ties=False, bases=[10000.0]),
  ),
  'Qwen3-0.6B': (
    QWEN2
    | {'architectures': ['Qwen3ForCausalLM'], 'attention_bias': False, 'eos_token_id': 151645}
    | {'head_dim': 128, 'hidden_size': 1024, 'intermediate_size': 3072, 'model_type': 'qwen3'}
    | {'max_position_embeddings': 40960, 'max_window_layers': 28, 'num_attention_heads': 16}
    | {'num_hidden_layers': 28, 'num_key_value_heads': 8, 'rope_scaling': None}
    | {'rope_theta': 1000000, 'sliding_window': None, 'tie_word_embeddings': True}
    | {'vocab_size': 151936},
    dict(length=40960, ties=True, bases=[1000000.0]),
  ),
  'OLMo-2-0425-1B': (
    {'architectures': ['Olmo2ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0}
    | {'eos_token_id': 100257, 'hidden_act': 'silu', 'hidden_size': 2048}
    | {'initializer_range': 0.02, 'intermediate_size': 8192, 'max_position_embeddings': 4096}
    | {'model_type': 'olmo2', 'num_attention_heads': 16, 'num_hidden_layers': 16}
    | {'num_key_value_heads': 16, 'pad_token_id': 100277, 'rms_norm_eps': 1e-6}
    | {'rope_scaling': None, 'rope_theta': 500000, 'tie_word_embeddings': False}
    | {'torch_dtype': 'float32', 'use_cache': False, 'vocab_size': 100352},
    dict(length=4096, ties=False, bases=[500000.0]),
  ),
  'gemma-2-2b': (
    {'architectures': ['Gemma2ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0}
    | {'attn_logit_softcapping': 50.0, 'bos_token_id': 2, 'cache_implementation': 'hybrid'}
    | {'eos_token_id': 1, 'final_logit_softcapping': 30.0, 'head_dim': 256}
    | {'hidden_act': 'gelu_pytorch_tanh', 'hidden_activation': 'gelu_pytorch_tanh'}
    | {'hidden_size': 2304, 'initializer_range': 0.02, 'intermediate_size': 9216}
    | {'max_position_embeddings': 8192, 'model_type': 'gemma2', 'num_attention_heads': 8}
    | {'num_hidden_layers': 26, 'num_key_value_heads': 4, 'pad_token_id': 0}
    | {'query_pre_attn_scalar': 256, 'rms_norm_eps': 1e-6, 'rope_theta': 10000.0}
    | {'sliding_window': 4096, 'torch_dtype': 'float32', 'use_cache': True}
    | {'vocab_size': 256000},
    dict(length=8192, ties=True, bases=[10000.0, 10000.0], name='pattern'),
  ),
  'gemma-3-1b-pt': (
    {'architectures': ['Gemma3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0}
    | {'attn_logit_softcapping': None, 'bos_token_id': 2, 'cache_implementation': 'hybrid'}
    | {'eos_token_id': 1, 'final_logit_softcapping': None, 'head_dim': 256}
    | {'hidden_activation': 'gelu_pytorch_tanh', 'hidden_size': 1152}
    | {'initializer_range': 0.02, 'intermediate_size': 6912, 'max_position_embeddings': 32768}
    | {'model_type': 'gemma3_text', 'num_attention_heads': 4, 'num_hidden_layers': 26}
    | {'num_key_value_heads': 1, 'pad_token_id': 0, 'query_pre_attn_scalar': 256}
    | {'rms_norm_eps': 1e-6, 'rope_local_base_freq': 10000, 'rope_scaling': None}
    | {'rope_theta': 1000000, 'sliding_window': 512, 'sliding_window_pattern': 6}
    | {'torch_dtype': 'bfloat16', 'use_cache': True, 'vocab_size': 262144},
    dict(length=32768, ties=True, bases=[10000.0, 1000000.0], name='pattern'),
  ),
  'pythia-160m': (
    PYTHIA
    | {'hidden_size': 768, 'intermediate_size': 3072, 'num_attention_heads': 12}
    | {'num_hidden_layers': 12},
    dict(length=2048, ties=False, bases=[10000.0], fraction=0.25),
  ),
  'gpt2': (
    {'activation_function': 'gelu_new', 'architectures': ['GPT2LMHeadModel'], 'attn_pdrop': 0.1}
    | {'bos_token_id': 50256, 'embd_pdrop': 0.1, 'eos_token_id': 50256, 'model_type': 'gpt2'}
    | {'initializer_range': 0.02, 'layer_norm_epsilon': 1e-5, 'n_ctx': 1024, 'n_embd': 768}
    | {'n_head': 12, 'n_layer': 12, 'n_positions': 1024, 'resid_pdrop': 0.1}
    | {'summary_activation': None, 'summary_first_dropout': 0.1, 'vocab_size': 50257}
    | {'summary_proj_to_labels': True, 'summary_type': 'cls_index', 'summary_use_proj': True}
    | {'task_specific_params': {'text-generation': {'do_sample': True, 'max_length': 50}}},
    dict(length=1024, ties=True, bases=[], name='learned'),
  ),
  'bloom-560m': (
    {'apply_residual_connection_post_layernorm': False, 'attention_dropout': 0.0}
    | {'architectures': ['BloomForCausalLM'], 'attention_softmax_in_fp32': True}
    | {'bias_dropout_fusion': True, 'bos_token_id': 1, 'eos_token_id': 2, 'hidden_dropout': 0.0}
    | {'initializer_range': 0.02, 'layer_norm_epsilon': 1e-5, 'masked_softmax_fusion': True}
    | {'model_type': 'bloom', 'n_embed': 1024, 'n_inner': None, 'n_layer': 24}
    | {'num_attention_heads': 16, 'offset_alibi': 100, 'pad_token_id': 3, 'pretraining_tp': 1}
    | {'seq_length': 2048, 'skip_bias_add': True, 'skip_bias_add_qkv': False}
    | {'unk_token_id': 0, 'use_cache': True, 'vocab_size': 250880, 'slow_but_exact': False},
    dict(length=2048, ties=True, bases=[], name='alibi'),
  ),
  'falcon-7b': (
    {'alibi': False, 'apply_residual_connection_post_layernorm': False}
    | {'architectures': ['FalconForCausalLM'], 'attention_dropout': 0.0, 'bias': False}
    | {'bos_token_id': 11, 'eos_token_id': 11, 'hidden_dropout': 0.0, 'hidden_size': 4544}
    | {'initializer_range': 0.02, 'layer_norm_epsilon': 1e-5, 'model_type': 'falcon'}
    | {'multi_query': True, 'new_decoder_architecture': False, 'num_attention_heads': 71}
    | {'num_hidden_layers': 32, 'parallel_attn': True, 'torch_dtype': 'bfloat16'}
    | {'transformers_version': '4.27.4', 'use_cache': True, 'vocab_size': 65024},
    dict(length=2048, ties=True, bases=[10000.0]),
  ),
  'starcoder2-3b': (
    {'architectures': ['Starcoder2ForCausalLM'], 'attention_dropout': 0.1, 'bos_token_id': 0}
    | {'residual_dropout': 0.1, 'embedding_dropout': 0.1, 'eos_token_id': 0}
    | {'hidden_act': 'gelu_pytorch_tanh', 'hidden_size': 3072, 'initializer_range': 0.018042}
    | {'intermediate_size': 12288, 'max_position_embeddings': 16384, 'mlp_type': 'default'}
    | {'model_type': 'starcoder2', 'norm_epsilon': 1e-5, 'norm_type': 'layer_norm'}
    | {'num_attention_heads': 24, 'num_hidden_layers': 30, 'num_key_value_heads': 2}
    | {'rope_theta': 999999.4420358813, 'sliding_window': 4096, 'use_bias': True}
    | {'torch_dtype': 'bfloat16', 'use_cache': True, 'vocab_size': 49152},
    dict(length=16384, ties=True, bases=[999999.4420358813], window=4096),
  ),
  'c4ai-command-r-v01': (
    {'architectures': ['CohereForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0}
    | {'bos_token_id': 5, 'eos_token_id': 255001, 'hidden_act': 'silu', 'hidden_size': 8192}
    | {'initializer_range': 0.02, 'intermediate_size': 22528, 'layer_norm_eps': 1e-5}
    | {'logit_scale': 0.0625, 'max_position_embeddings': 8192, 'model_max_length': 131072}
    | {'model_type': 'cohere', 'num_attention_heads': 64, 'num_hidden_layers': 40}
    | {'num_key_value_heads': 64, 'pad_token_id': 0, 'rope_theta': 8000000.0}
    | {'torch_dtype': 'float16', 'use_cache': True, 'vocab_size': 256000},
    dict(length=131072, ties=True, bases=[8000000.0]),
  ),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_config_is_read_as_the_model_it_is(name):
  config, expected = PUBLISHED[name]
  form = form_of(config, name)
  layers = form.encoding.get('layers', (form.encoding,))
  kinds = {str(layer): layer for layer in layers}.values()
  assert form.train_length == expected['length']
  assert form.model['tie_embeddings'] == expected['ties']
  assert form.encoding['name'] == expected.get('name', 'rope')
  assert sorted(kind['base'] for kind in kinds if 'base' in kind) == expected['bases']
  assert form.attention['window'] == expected.get('window', 0)
  assert {kind.get('fraction', 1.0) for kind in kinds} == {expected.get('fraction', 1.0)}
  widths = [config[field] for field in ('hidden_size', 'n_embd', 'n_embed') if field in config]
  assert [form.model['model_dim']] == widths
