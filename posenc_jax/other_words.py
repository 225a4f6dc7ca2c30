"""Words of papers and other libraries for fields, hyperparameters and encodings, and what each is
called here: errors name that in the place of the nearest spelling.
"""

FIELDS = {
  'd_model': 'model.model_dim',
  'grad_clip': 'optim.clip',
  'hidden_size': 'model.model_dim',
  'lr': 'optim.learning_rate',
  'max_grad_norm': 'optim.clip',
  'max_position_embeddings': 'train.length',
  'n_heads': 'model.heads',
  'n_layers': 'model.layers',
  'num_attention_heads': 'model.heads',
  'num_hidden_layers': 'model.layers',
  'num_key_value_heads': 'model.kv_heads',
  'num_layers': 'model.layers',
  'optimizer': 'optim.name',
  'seq_len': 'train.length',
  'sliding_window': 'attention.window',
}
HYPERPARAMETERS = {
  'chunk_size': 'chunk',
  'clamp_len': 'max_distance',
  'group_size': 'group',
  'local_size': 'local',
  'num_buckets': 'buckets',
  'partial_rotary_factor': 'fraction',
  'relative_attention_max_distance': 'max_distance',
  'relative_attention_num_buckets': 'buckets',
  'rope_theta': 'base',
  'rotary_base': 'base',
  'rotary_pct': 'fraction',
  'theta': 'base',
  'window_size': 'window',
}
ENCODINGS = {
  'attn_temperature_len': 'logn',
  'data_dependent_alibi': 'fox',
  'data_dependent_alibi_per_row': 'row_gates',
  'diet_rel': 't5',
  'exclusive_self_attention': 'xsa',
  'gated_relative_position_bias': 'gated_t5',
  'gru_rel_pos': 'gated_t5',
  'inkling': 'relative_projection',
  'lazy_attention': 'elastic_softmax',
  'lm_infinite': 'rerope',
  'mrope': 'axial_rope',
  'mipe': 'screening',
  'multiscreen': 'screening',
  'none': 'nope',
  'parabolic': 'pape',
  'relative': 'shaw',
  'rotary': 'rope',
  'streaming_llm': 'streaming_rope',
  'use_logn_attn': 'logn',
  'zipformer': 'compact_relative',
}
MEANT = FIELDS | HYPERPARAMETERS | ENCODINGS
