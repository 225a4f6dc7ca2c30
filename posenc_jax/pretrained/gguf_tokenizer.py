"""A tokenizer.json of the vocabulary in a GGUF file: of byte pairs as GPT-2 has them, or of
SentencePiece's. What a file does not say is as llama.cpp takes it.
"""

import json

from posenc_jax.data.tokenizers import SPACE
from posenc_jax.errors import shown
from posenc_jax.pretrained.exported_tokenizers import beginning_with

# How text is cut before pairs are merged, by the name that the file gives: a file says no more
# (llama.cpp, llm_tokenizer_bpe). 'smollm' and others: single digits apart, then GPT-2's rule;
# 'llama-bpe' and 'qwen2': their published pattern, which differs in how many digits stay together
# (SmolLM3's is Llama 3's, under the name 'smaug-bpe');
# 'tekken', of Mistral: words also end where small letters are followed by large ones.
GPT_2 = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True}
DIGITS_APART = [{'type': 'Digits', 'individual_digits': True}, GPT_2]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
LARGE, SMALL = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
BEFORE = r'[^\r\n\p{L}\p{N}]?'
WORDS_BY_CASE = f'{BEFORE}{LARGE}*{SMALL}+|{BEFORE}{LARGE}+{SMALL}*'


def _split(digits: str, words: str = WORDS, after_signs: str = r'\r\n') -> list[dict]:
  rest = rf' ?[^\s\p{{L}}\p{{N}}]+[{after_signs}]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  pattern = {'Regex': f'{words}|{digits}|{rest}'}
  split = {'type': 'Split', 'pattern': pattern, 'behavior': 'Isolated', 'invert': False}
  return [split, GPT_2 | {'use_regex': False}]


LLAMA_3 = ('llama-bpe', 'llama3', 'llama-v3')
QWEN_2 = ('qwen2', 'deepseek-r1-qwen')
PRE_TOKENIZERS = {
  'gpt-2': [GPT_2],
  **dict.fromkeys(('smollm', 'starcoder', 'refact'), DIGITS_APART),
  **dict.fromkeys((*LLAMA_3, 'dbrx', 'smaug-bpe'), _split(r'\p{N}{1,3}')),
  **dict.fromkeys(QWEN_2, _split(r'\p{N}')),
  'tekken': _split(r'\p{N}', WORDS_BY_CASE, r'\r\n/'),
}
# With these a word that is a token is not cut, and BOS stands before a text.
WHOLE_WORDS = (*LLAMA_3, 'tekken')
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # kinds of tokens
SPECIAL = (UNKNOWN, CONTROL, USER_DEFINED)  # they are found before text is cut


def special_token(metadata: dict, name: str) -> int | None:
  """The number of 'bos', 'eos' or 'eot' in a file."""
  is_sentencepiece = metadata.get('tokenizer.ggml.model') == 'llama'
  defaults = {'bos': 1, 'eos': 2} if is_sentencepiece else {}
  return metadata.get(f'tokenizer.ggml.{name}_token_id', defaults.get(name))


def tokenizer_of(metadata: dict) -> tuple[bytes | None, str]:
  """(a tokenizer.json of the vocabulary in the file or None, why there is none)."""
  said = {name.removeprefix('tokenizer.ggml.'): x for name, x in metadata.items()}
  kind, pre = said.get('model'), said.get('pre')
  if kind is None:
    return None, 'no tokenizer in it'
  if kind != 'llama' and (kind != 'gpt2' or pre not in PRE_TOKENIZERS):
    known = ' or '.join(PRE_TOKENIZERS)
    allowed = f"'llama', and not 'gpt2' with {known}"
    return None, f'its tokenizer is {shown(kind)}, {shown(pre)}, and not {allowed}'
  tokens, needed = said.get('tokens'), 'scores' if kind == 'llama' else 'merges'
  if tokens is None or needed not in said:
    return None, f'its tokenizer has no tokens or no {needed}'
  kinds = said.get('token_type', [1] * len(tokens))
  if len(kinds) != len(tokens):
    return None, f'its tokenizer has {len(tokens)} tokens and {len(kinds)} kinds of them'
  if kind == 'gpt2':
    has_bos, parts = pre in WHOLE_WORDS, _byte_level(pre, said['merges'])
  else:
    if len(said['scores']) != len(tokens):
      counts = f'{len(tokens)} tokens and {len(said["scores"])} scores of them'
      return None, f'its tokenizer has {counts}'
    if changed := [x for x in ('precompiled_charsmap', 'remove_extra_whitespaces') if said.get(x)]:
      return None, f'its tokenizer changes text by {changed[0]}'
    has_bos, parts = True, _sentencepiece(said, tokens, kinds)
  bos = special_token(metadata, 'bos')
  has_bos = said.get('add_bos_token', has_bos) and bos is not None and bos < len(tokens)
  special = [
    {'id': n, 'content': token, 'single_word': False, 'lstrip': False, 'rstrip': False}
    | {'normalized': False, 'special': True}
    for n, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
    if kind in SPECIAL
  ]
  normalizer, pre_tokenizer, decoder, model = parts
  tree = {
    'version': '1.0',
    'added_tokens': special,
    'normalizer': normalizer,
    'pre_tokenizer': pre_tokenizer,
    'post_processor': beginning_with(bos, tokens[bos]) if has_bos else None,
    'decoder': decoder,
    'model': {
      'type': 'BPE',
      'dropout': None,
      'unk_token': None,
      'continuing_subword_prefix': None,
      'end_of_word_suffix': None,
      'fuse_unk': False,
      'byte_fallback': False,
      'ignore_merges': False,
      'vocab': {token: n for n, token in enumerate(tokens)},
      **model,
    },
  }
  return json.dumps(tree, ensure_ascii=False).encode(), ''


def _byte_level(pre: str, merges: list[str]) -> tuple:
  """(normalizer, pre-tokenizer, decoder, fields of the model) of pairs of bytes."""
  decoder = {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True}
  model = {'ignore_merges': pre in WHOLE_WORDS, 'merges': [merge.split(' ') for merge in merges]}
  pre_tokenizer = {'type': 'Sequence', 'pretokenizers': PRE_TOKENIZERS[pre]}
  return {'type': 'NFC'} if pre in QWEN_2 else None, pre_tokenizer, decoder, model


def _sentencepiece(said: dict, tokens: list[str], kinds: list[int]) -> tuple:
  """(normalizer, no pre-tokenizer, decoder, fields of the model) of SentencePiece's pairs.

  Text is one piece with SPACE for each space, and one before it, also behind special tokens; what
  is no token becomes those of its bytes.
  """
  spaces = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': SPACE}
  back = {'type': 'Replace', 'pattern': {'String': SPACE}, 'content': ' '}
  normalizers, decoders = [spaces], [back, {'type': 'ByteFallback'}, {'type': 'Fuse'}]
  if said.get('add_space_prefix', True):
    normalizers.insert(0, {'type': 'Prepend', 'prepend': SPACE})
    decoders.append({'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0})
  unknown = [token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN]
  model = {
    'unk_token': next(iter(unknown), None),
    'fuse_unk': True,
    'byte_fallback': True,
    'merges': _merges(tokens, said['scores'], kinds),
  }
  sequence = lambda kind, members: {'type': 'Sequence', kind: members}
  return sequence('normalizers', normalizers), None, sequence('decoders', decoders), model


def _merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
  """Every pair of tokens that is a token, that with the best score first. SentencePiece merges no
  others, and takes pairs of the same score from the left, whatever they are; here those with a
  longer left part are first, as they come from the left.
  """
  merged = {
    token: score
    for token, score, kind in zip(tokens, scores, kinds, strict=True)
    if kind not in (*SPECIAL, BYTE)
  }
  return [
    (token[:n], token[n:])
    for token in sorted(merged, key=lambda token: -merged[token])
    for n in range(len(token) - 1, 0, -1)
    if token[:n] in merged and token[n:] in merged
  ]
