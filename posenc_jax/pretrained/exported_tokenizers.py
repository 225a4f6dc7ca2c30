"""The files by which transformers cuts text as a run does, with the run's BOS before it."""

import json

from posenc_jax.data.tokenizers import BYTE_OF_CHARACTER
from posenc_jax.errors import UserError
from posenc_jax.pretrained.common_fields import first

BOS = '<|begin_of_window|>'  # what exported tokenizers call the run's own


def about_tokenizer(tokenizer: bytes, fields: dict) -> dict:
  """A tokenizer_config.json that says which of the added tokens BOS, EOS and padding are."""
  added = json.loads(tokenizer).get('added_tokens') or []
  names = {token['id']: token['content'] for token in added}
  numbers = {kind: first(fields.get(f'{kind}_token_id')) for kind in ('bos', 'eos', 'pad')}
  about = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False}
  known = {kind: n for kind, n in numbers.items() if type(n) is int and n in names}
  return about | {f'{kind}_token': names[n] for kind, n in known.items()}


def with_bos(contents: bytes, bos: int) -> bytes:
  """A tokenizer.json with the BOS of a run, which comes after all its tokens."""
  import tokenizers

  tree = json.loads(contents)
  tree['added_tokens'] = [*(tree.get('added_tokens') or []), _added(bos)]
  tree['post_processor'] = beginning_with(bos, BOS)
  contents = json.dumps(tree, ensure_ascii=False).encode()
  if tokenizers.Tokenizer.from_buffer(contents).token_to_id(BOS) != bos:
    allowed = 'one whose tokens are numbered without gaps, for a model without further symbols'
    raise UserError(f'config.data.tokenizer: BOS cannot be token {bos} of it; allowed: {allowed}')
  return contents


def _added(bos: int) -> dict:
  flags = dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False)
  return {'id': bos, 'content': BOS, 'special': True, **flags}


def beginning_with(bos: int, token: str) -> dict:
  """The post-processor that puts BOS, which is `token`, before a text, as windows here have it."""
  begin = {'SpecialToken': {'id': token, 'type_id': 0}}
  one, two = ({'Sequence': {'id': name, 'type_id': n}} for n, name in enumerate('AB'))
  special = {token: {'id': token, 'ids': [bos], 'tokens': [token]}}
  template = {'single': [begin, one], 'pair': [begin, one, two], 'special_tokens': special}
  return {'type': 'TemplateProcessing', **template}


def byte_tokenizer(bos: int) -> bytes:
  """A tokenizer.json in which every byte is a token, with its value as its number, and BOS."""
  level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
  tree = {
    'version': '1.0',
    'added_tokens': [_added(bos)],
    'pre_tokenizer': level,
    'post_processor': beginning_with(bos, BOS),
    'decoder': level,
    'model': {'type': 'BPE', 'vocab': BYTE_OF_CHARACTER | {BOS: bos}, 'merges': []},
  }
  return json.dumps(tree).encode()
