"""The text model within models of images and text: Gemma 3 of 4B, 12B and 27B (arXiv:2503.19786),
Mistral Small 3.1, Ministral 3 (arXiv:2601.08584), Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL
(arXiv:2502.13923) and Qwen3-VL (arXiv:2511.21631).
"""

QWEN2 = {'num_key_value_heads': 8, 'rms_norm_eps': 1e-5, 'rope_theta': 1e6}
QWEN2 |= {'bos_token_id': 151_643, 'eos_token_id': 151_645}
# For each `model_type`, what its text model's part of config.json leaves out where it is what
# transformers has; sizes that all published files of Qwen say are not assumed.
DEFAULTS = {
  'gemma3': {
    'model_type': 'gemma3_text',
    'vocab_size': 262_208,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'max_position_embeddings': 131_072,
    'bos_token_id': 2,
    'eos_token_id': 1,
    'pad_token_id': 0,
  },
  'mistral3': {'model_type': 'mistral', 'bos_token_id': 1, 'eos_token_id': 2},
  'qwen2_vl': QWEN2,
  'qwen2_5_vl': QWEN2,
  'qwen3_vl': {'num_key_value_heads': 32, 'head_dim': 128, 'rope_theta': 5e5},
}
BESIDE = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'quantization_config')
OF_IMAGES = ('vision_tower.', 'multi_modal_projector.', 'visual.')
# The text model that each of Qwen's is where all tokens are text: of these M-RoPE takes one number
# for all axes, and nothing is added to what the first layers give.
OF_QWEN = {'qwen2_vl': 'qwen2', 'qwen2_5_vl': 'qwen2', 'qwen3_vl': 'qwen3'}
# Fields of a text model's part, or of an older file's top, that say nothing of text.
NOT_OF_TEXT = ('architectures', 'vision_config', 'image_token_id', 'video_token_id')
NOT_OF_TEXT += ('vision_start_token_id', 'vision_end_token_id', 'vision_token_id')


def text_fields(tree: dict) -> dict:
  """The config.json of the text model alone; of another family, what is given."""
  kind = str(tree.get('model_type'))
  text, defaults = tree.get('text_config'), DEFAULTS.get(kind)
  if text is None and kind in ('qwen2_vl', 'qwen2_5_vl'):
    text = tree  # as their first files have it
  if defaults is None or not isinstance(text, dict):
    return tree
  beside = {name: tree[name] for name in BESIDE if tree.get(name) is not None}
  ties = {name: tree[name] for name in ('tie_word_embeddings',) if name in tree}
  rotary = text.get('rope_parameters')
  if isinstance(rotary, dict) and 'rope_theta' in rotary:  # as transformers 5 says it
    defaults = {name: x for name, x in defaults.items() if name != 'rope_theta'}
  fields = defaults | ties | text | beside
  return _on_text(fields, kind) if kind in OF_QWEN else fields


def _on_text(fields: dict, kind: str) -> dict:
  """The fields of the text model of one of OF_QWEN without what is of images alone."""
  fields = {name: x for name, x in fields.items() if name not in NOT_OF_TEXT}
  for name in ('rope_scaling', 'rope_parameters'):
    if isinstance(fields.get(name), dict):
      own = {key: x for key, x in fields[name].items() if not key.startswith('mrope_')}
      fields[name] = {key: 'default' if x == 'mrope' else x for key, x in own.items()}
  return fields | {'model_type': OF_QWEN[kind]}


def text_tensor(name: str) -> str | None:
  """The name of a tensor in the text model alone; None: it is of images. Older files have
  `language_model.` before the name, newer ones after its `model.`.
  """
  if name.removeprefix('model.').startswith(OF_IMAGES):
    return None
  for before, own in (('model.language_model.', 'model.'), ('language_model.', '')):
    if name.startswith(before):
      return own + name.removeprefix(before)
  return name
