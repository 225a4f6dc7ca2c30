"""The files by which transformers cuts text as a run does, with the run's BOS before it, and which
token a model's own files put there.
"""

import json
from collections.abc import Mapping

from posenc_jax.data.tokenizer_json import BYTE_OF_CHARACTER
from posenc_jax.errors import UserError
from posenc_jax.pretrained.config_json import first
from posenc_jax.training.own_tokenizer import ABOUT_TOKENIZER, GENERATION, PIECES

BOS = '<|begin_of_window|>'  # what exported tokenizers call the run's own
# Fields that say which token BOS is, and whether transformers makes the template anew.
OF_BOS = ('bos_token', 'bos_token_id', 'add_bos_token', 'add_eos_token')
# Those that take their place; the class is the one that takes the template as it is, and makes
# add_prefix_space False where it is not said (transformers 4).
NAMES_OF_BOS = {
  'tokenizer_config.json': ('tokenizer_class', 'bos_token', 'add_prefix_space'),
  'special_tokens_map.json': ('bos_token',),
  GENERATION: ('bos_token_id',),
}


def about_tokenizer(tokenizer: bytes, fields: dict) -> dict:
  """A tokenizer_config.json that says which of the added tokens BOS, EOS and padding are. Where no
  field names an EOS, it is BOS, and so is padding: lm_eval and others need both to generate, and
  nothing ends by it, for no model has learned to predict BOS.
  """
  tree = json.loads(tokenizer)
  names = {token['id']: token['content'] for token in tree.get('added_tokens') or []}
  numbers = {kind: first(fields.get(f'{kind}_token_id')) for kind in ('bos', 'eos', 'pad')}
  about = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False}
  if (tree.get('pre_tokenizer') or {}).get('add_prefix_space'):
    about['add_prefix_space'] = True  # else transformers 4 makes it False
  if numbers['eos'] is None:
    numbers['eos'] = numbers['bos']
    numbers['pad'] = numbers['bos'] if numbers['pad'] is None else numbers['pad']
  known = {kind: n for kind, n in numbers.items() if type(n) is int and n in names}
  return about | {f'{kind}_token': names[n] for kind, n in known.items()}


def naming_bos(beside: Mapping[str, bytes], tokenizer: bytes, bos: int) -> dict[str, bytes]:
  """The files beside a source's tokenizer.json, naming the BOS of the exported `tokenizer` where it
  is an added token. Another stands in the template alone: text would be cut otherwise once it is
  named. Without SentencePiece's, which has another BOS. Raises `UserError` for a file that is
  damaged.
  """
  own = about_tokenizer(tokenizer, {'bos_token_id': bos}) | {'bos_token_id': bos}
  files = {name: contents for name, contents in beside.items() if name != PIECES}
  for name, fields in NAMES_OF_BOS.items():
    if name in beside:
      said = {k: x for k, x in _read(beside, name).items() if k not in OF_BOS}
      files[name] = _written(said | {field: own[field] for field in fields if field in own})
  return files


def with_longer_texts(beside: Mapping[str, bytes], length: int) -> dict[str, bytes]:
  """The files beside a source's tokenizer.json, of which the first lets texts have this length.
  Raises `UserError` where it is damaged.
  """
  name = ABOUT_TOKENIZER[0]
  said = _read(beside, name) if name in beside else {}
  longest = said.get('model_max_length')
  if type(longest) not in (int, float) or longest >= length:
    return dict(beside)
  return {**beside, name: _written(said | {'model_max_length': length})}


def _read(beside: Mapping[str, bytes], name: str) -> dict:
  try:
    return dict(json.loads(beside[name]).items())
  except (ValueError, RecursionError, AttributeError) as error:
    allowed = 'the file that transformers saved'
    raise UserError(f'{name} of the source is damaged: {error}; allowed: {allowed}') from None


def _written(said: dict) -> bytes:
  return json.dumps(said, indent=2, ensure_ascii=False).encode()


def with_bos(contents: bytes, bos: int) -> bytes:
  """A tokenizer.json that puts the BOS of a run before a text: a token of its own, or one more,
  after all of them and, in a run whose `model.vocab` was rounded up, after tokens that no text has.
  """
  import tokenizers

  tree = json.loads(contents)
  tokenizer = tokenizers.Tokenizer.from_buffer(contents)
  token = tokenizer.id_to_token(bos)
  if token is None:
    token = BOS
    # The library numbers new tokens in their order, from the number of those that it has.
    numbers = range(tokenizer.get_vocab_size(), bos)
    unused = [_added(n, f'<|unused_{n}|>') for n in numbers if tokenizer.id_to_token(n) is None]
    tree['added_tokens'] = [*(tree.get('added_tokens') or []), *unused, _added(bos, BOS)]
  tree['post_processor'] = beginning_with(bos, token)
  contents = json.dumps(tree, ensure_ascii=False).encode()
  if tokenizers.Tokenizer.from_buffer(contents).token_to_id(token) != bos:
    allowed = 'one whose tokens are numbered without gaps'
    raise UserError(f'config.data.tokenizer: BOS cannot be token {bos} of it; allowed: {allowed}')
  return contents


def first_token(contents: bytes, about: bytes | None = None) -> int | None:
  """The token that a tokenizer.json puts before a text; where it puts none, the one that
  transformers would by `about`, the tokenizer_config.json beside it; None where neither says one.
  """
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_buffer(contents)
  try:
    text = tokenizer.encode('a')
  except Exception:  # the library raises nothing more special; only a hint hangs on it
    return None
  is_special = text.special_tokens_mask
  if is_special[:1] == [1] and 0 in is_special:  # else it may stand behind a text that is empty
    return text.ids[0]
  try:
    said = json.loads(about or b'{}')
    token = said['bos_token'] if said.get('add_bos_token') is True else None
    return tokenizer.token_to_id(token['content'] if isinstance(token, dict) else token)
  except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
    return None  # no such file as transformers writes: only a hint hangs on it


def _added(number: int, token: str) -> dict:
  flags = dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False)
  return {'id': number, 'content': token, 'special': True, **flags}


def beginning_with(bos: int, token: str) -> dict:
  """The post-processor that puts BOS, which is `token`, before a text, as windows here have it."""
  begin = {'SpecialToken': {'id': token, 'type_id': 0}}
  one, two = ({'Sequence': {'id': name, 'type_id': n}} for n, name in enumerate('AB'))
  special = {token: {'id': token, 'ids': [bos], 'tokens': [token]}}
  template = {'single': [begin, one], 'pair': [begin, one, two], 'special_tokens': special}
  return {'type': 'TemplateProcessing', **template}


def integer_tokenizer(count: int) -> bytes:
  """A tokenizer.json in which the numbers below `count` are tokens, and which cuts nothing else."""
  tree = {
    'version': '1.0',
    'added_tokens': [],
    'pre_tokenizer': {'type': 'WhitespaceSplit'},
    # an unknown token that is not there: the library refuses what it does not know
    'model': {'type': 'WordLevel', 'vocab': {str(n): n for n in range(count)}, 'unk_token': '?'},
  }
  return json.dumps(tree).encode()


def byte_tokenizer(bos: int) -> bytes:
  """A tokenizer.json in which every byte is a token, with its value as its number, and BOS, a token
  of its own or a byte.
  """
  names = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}
  token = names.get(bos, BOS)
  level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
  tree = {
    'version': '1.0',
    'added_tokens': [] if bos in names else [_added(bos, BOS)],
    'pre_tokenizer': level,
    'post_processor': beginning_with(bos, token),
    'decoder': level,
    'model': {'type': 'BPE', 'vocab': BYTE_OF_CHARACTER | {token: bos}, 'merges': []},
  }
  return json.dumps(tree).encode()
