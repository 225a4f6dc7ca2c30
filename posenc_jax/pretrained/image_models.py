"""The text model within models of images and text: Gemma 3 of 4B, 12B and 27B (arXiv:2503.19786),
Mistral Small 3.1 and Ministral 3 (arXiv:2601.08584).
"""

# For each `model_type`, what its text model's part of config.json leaves out where it is what
# transformers has.
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
}
BESIDE = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'quantization_config')
OF_IMAGES = ('vision_tower.', 'multi_modal_projector.')


def text_fields(tree: dict) -> dict:
  """The config.json of the text model alone; of another family, what is given."""
  text, defaults = tree.get('text_config'), DEFAULTS.get(str(tree.get('model_type')))
  if defaults is None or not isinstance(text, dict):
    return tree
  beside = {name: tree[name] for name in BESIDE if tree.get(name) is not None}
  ties = {name: tree[name] for name in ('tie_word_embeddings',) if name in tree}
  return defaults | ties | text | beside


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
