"""The text model within Gemma 3's models of images and text: 4B, 12B and 27B (arXiv:2503.19786)."""

# What its part of config.json leaves out where it is what transformers has.
DEFAULTS = {
  'vocab_size': 262_208,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'max_position_embeddings': 131_072,
  'bos_token_id': 2,
  'eos_token_id': 1,
  'pad_token_id': 0,
}
BESIDE = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'quantization_config')
OF_IMAGES = ('vision_tower.', 'multi_modal_projector.')


def text_fields(tree: dict) -> dict:
  """The config.json of the text model alone; of another family, what is given."""
  text = tree.get('text_config')
  if tree.get('model_type') != 'gemma3' or not isinstance(text, dict):
    return tree
  beside = {name: tree[name] for name in BESIDE if tree.get(name) is not None}
  return DEFAULTS | text | beside | {'model_type': 'gemma3_text'}


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
