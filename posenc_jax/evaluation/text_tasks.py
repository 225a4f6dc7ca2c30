"""What any model of text can be asked in its own tokens, without training: sentences are hidden in
natural text, and a question about them follows with its answer.

The pass key is that of Mohtashami and Jaggi 2023 (arXiv:2305.16300), the other tasks are those of
RULER (Hsieh et al. 2024, arXiv:2404.06654) in other words. There a model writes and is searched for
the answers; here it is given the beginning of its reply, and is right if its likeliest tokens are
the answer, in the order in which the question asks for it. So a task is harder here.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from posenc_jax.data.tokenizer_json import MOST_UNKNOWN
from posenc_jax.data.tokenizers import BYTES, Bytes
from posenc_jax.errors import UserError

DIGITS = 5  # of a key, a code and a value
HIDDEN = 4  # sentences that are hidden where there are several
ASSIGNMENTS = 5  # of text_variables: RULER's four hops
LEAST_TEXT = 8  # tokens of text that a window has at least
# Of each prompt: the likelihood of its answer, and whether the answer is given.
PROMPT_METRICS = (None, 'exact_match')
# How often the words of text_frequent_words occur in a block, and how many occur once.
FREQUENT = (32, 16, 8)
RARE = 8

Draw = Callable[[], float]  # uniform in [0, 1); all chance comes from it
Encode = Callable[[bytes], np.ndarray]


class Prompt(NamedTuple):
  """What is hidden in a text, and what is asked.

  Attributes:
    hidden: the sentences.
    question: it ends where the answer begins, but for a space.
    in_order: whether the sentences stand in their order; see `window`.
    filler: what the sentences are hidden in, piece by piece without end; None: in the document.
  """

  hidden: tuple[str, ...]
  question: str
  answer: str
  in_order: bool = False
  filler: Iterator[str] | None = None


def passkey(draw: Draw) -> Prompt:
  key = number(draw)
  hidden = f' The pass key is {key}. Remember it: {key} is the pass key. '
  return Prompt((hidden,), ' What is the pass key? The pass key is', key)


def multikey(draw: Draw) -> Prompt:
  """One code is asked for, three others are in the way."""
  names, codes = distinct(draw, word, HIDDEN), distinct(draw, number, HIDDEN)
  return _code_of_one(names[0], codes[0], tuple(map(_code, names, codes)))


def needles(draw: Draw) -> Prompt:
  """All text is sentences like the one that is asked for."""
  name, code = word(draw), number(draw)
  names = (other for _ in itertools.count() if (other := word(draw)) != name)
  others = (_code(other, number(draw)).lstrip() for other in names)
  return _code_of_one(name, code, (_code(name, code),), others)


def _code(name: str, code: str) -> str:
  return f' The code of {name} is {code}. '


def _code_of_one(name: str, code: str, hidden: tuple[str, ...], filler=None) -> Prompt:
  question = f' What is the code of {name}? The code of {name} is'
  return Prompt(hidden, question, code, filler=filler)


def multivalue(draw: Draw) -> Prompt:
  """A name has several codes, all of which are asked for."""
  name, codes = word(draw), distinct(draw, number, HIDDEN)
  hidden = tuple(f' One of the codes of {name} is {code}. ' for code in codes)
  question = f' Which codes does {name} have, in the order of the text? They are'
  return Prompt(hidden, question, ', '.join(codes), in_order=True)


def multiquery(draw: Draw) -> Prompt:
  """The codes of several names are asked for."""
  names, codes = distinct(draw, word, HIDDEN), distinct(draw, number, HIDDEN)
  asked = f'{", ".join(names[:-1])} and {names[-1]}'
  question = f' What are the codes of {asked}, in this order? They are'
  return Prompt(tuple(map(_code, names, codes)), question, ', '.join(codes))


def variables(draw: Draw) -> Prompt:
  """Each variable is set to the one before it."""
  names, value = distinct(draw, word, ASSIGNMENTS), number(draw)
  hidden = tuple(
    f' Let {name} be {before}. ' for before, name in itertools.pairwise((value, *names))
  )
  question = f' Which names stand for {value}, in the order of the text? They are'
  return Prompt(hidden, question, ', '.join(names), in_order=True)


def frequent_words(draw: Draw) -> Prompt:
  """All text is words; three are frequent, in steps of two."""
  frequent = distinct(draw, word, len(FREQUENT))

  def block() -> str:
    words = [name for name, count in zip(frequent, FREQUENT, strict=True) for _ in range(count)]
    words += distinct(draw, word, RARE, without=frequent)
    return ' '.join(sorted(words, key=lambda _: draw())) + ' '

  question = ' Which three words are the most frequent, the most frequent first? They are'
  return Prompt((), question, ', '.join(frequent), filler=(block() for _ in itertools.count()))


# {protocol: draw -> Prompt}
QUESTIONS = {
  'text_passkey': passkey,
  'text_multikey': multikey,
  'text_needles': needles,
  'text_multivalue': multivalue,
  'text_multiquery': multiquery,
  'text_variables': variables,
  'text_frequent_words': frequent_words,
}


def prompt_of(task: str, seed: str) -> Prompt:
  """The prompt of a name in QUESTIONS that depends on the seed alone."""
  # A file's name may have bytes that are no text. Otherwise this is the seed as it is.
  seed = seed.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')
  # `random` is the only method whose numbers stay the same over versions.
  return QUESTIONS[task](random.Random(seed).random)


def number(draw: Draw) -> str:
  return ''.join(str(int(10 * draw())) for _ in range(DIGITS))


def word(draw: Draw) -> str:
  """A made-up word of three syllables."""
  letters = ('bdfgklmnprstvz', 'aeiou') * 3
  return ''.join(some[int(len(some) * draw())] for some in letters)


def distinct(
  draw: Draw, make: Callable[[Draw], str], count: int, without: tuple[str, ...] = ()
) -> tuple[str, ...]:
  """`count` different things that `make` draws, none of them in `without`."""
  found = dict.fromkeys(without)
  while len(found) < count + len(without):
    found[make(draw)] = None
  return tuple(found)[len(without) :]


class _Tokens(NamedTuple):
  """The tokens of a prompt.

  Attributes:
    scored: how many of the last tokens of `asked` are the answer.
    filler: the pieces of the prompt's filler, or None.
    least: the tokens of the shortest window that holds the prompt and enough text.
  """

  hidden: list[np.ndarray]
  asked: np.ndarray
  scored: int
  filler: Iterator[str] | None
  least: int


def _tokens(encode: Encode, prompt: Prompt) -> _Tokens:
  """The answer is what a question with its answer and one with a space in its place do not have in
  common at their beginning: a tokenizer may join the space and the first letters.
  """
  hidden = [encode(sentence.encode()) for sentence in prompt.hidden]
  asked, unanswered = (encode(f'{prompt.question} {end}'.encode()) for end in (prompt.answer, ''))
  shorter = min(len(asked), len(unanswered))
  differ = np.flatnonzero(asked[:shorter] != unanswered[:shorter])
  common = differ[0] if len(differ) else shorter
  text, filler = LEAST_TEXT, None
  if prompt.filler is not None:
    first = next(prompt.filler)
    text, filler = len(encode(first.encode())), itertools.chain([first], prompt.filler)
  least = sum(map(len, hidden)) + len(asked) + text
  return _Tokens(hidden, asked, len(asked) - int(common), filler, least)


def sizes(encode: Encode, prompt: Prompt) -> tuple[int, int]:
  """Returns (tokens of the shortest window that holds the prompt and enough text, tokens of the
  answer).
  """
  tokens = _tokens(encode, prompt)
  return tokens.least, tokens.scored


def check_known(task: str, prompts: list[Prompt], scored: int, tokenizer: Bytes) -> None:
  """Raises `UserError` where a tokenizer does not know the words of the prompts of a task, or an
  answer becomes no token: then nothing is asked, or nothing is scored.

  `scored`: the tokens of the shortest answer.
  """
  texts = [
    text.encode()
    for prompt in prompts
    for text in (*prompt.hidden, f'{prompt.question} {prompt.answer}')
  ]
  unknown = sum(cut.unknown for cut in tokenizer.cut(texts)) / sum(map(len, texts))
  if unknown > MOST_UNKNOWN or not scored:
    what = f'{unknown:.2%} of what it says' if unknown > MOST_UNKNOWN else 'its answer'
    problem, allowed = f'{what} is unknown to the tokenizer', f'without {task}'
    raise UserError(f'config.eval.protocols: {task}: {problem}; allowed: {allowed}')


def window(
  encode: Encode, text_T: np.ndarray, length: int, depth: float, prompt: Prompt
) -> tuple[np.ndarray, int]:
  """Hides the sentences of a prompt in text and asks the question.

  N sentences stand 1 / N of the text apart: the first at the depth, those that would stand behind
  the end at its beginning. Sentences in order stand one in each of N equal parts of the text, at
  the depth in its part. Where tokens are bytes, none stands within a character.

  Args:
    text_T: tokens, of which the middle ones are taken; with a filler, none.
    depth: the share of the text that stands before the first sentence, 0 to less than 1; of
      sentences in order, the share of its part, 0 to 1.
  Returns:
    (`length` tokens, how many of the last of them are the answer).
  Raises:
    ValueError: `length` is less than the shortest of `sizes`.
  """
  hidden, asked, scored, filler, least = _tokens(encode, prompt)
  if length < least:
    raise ValueError(f'length={length}; allowed: {least} or more')
  need = length - sum(map(len, hidden)) - len(asked)
  if filler is None:
    start = (len(text_T) - need) // 2
    around_T = text_T[start : start + need]
  else:
    around_T = _filled(encode, filler, need)
  if prompt.in_order:
    shares = [(n + depth) / len(hidden) for n in range(len(hidden))]
  else:
    shares = [(depth + n / len(hidden)) % 1 for n in range(len(hidden))]
  places = [round(share * need) for share in shares]
  if encode == BYTES.encode:
    places = [_at_character(around_T, place) for place in places]
  parts, before = [], 0
  for place, sentence_T in sorted(zip(places, hidden, strict=True), key=lambda pair: pair[0]):
    parts += [around_T[before:place], sentence_T]
    before = place
  parts += [around_T[before:], asked]
  return np.concatenate(parts).astype(np.int32), scored


def _at_character(bytes_T: np.ndarray, place: int) -> int:
  """The place, or the next one at which no character of UTF-8 goes on."""
  while place < len(bytes_T) and 0x80 <= bytes_T[place] < 0xC0:
    place += 1
  return place


def _filled(encode: Encode, pieces: Iterator[str], tokens: int) -> np.ndarray:
  """The last `tokens` tokens of whole pieces."""
  text, size = '', tokens
  while True:
    while len(text) < size:
      text += next(pieces)
    text_T = encode(text.encode())
    if len(text_T) >= tokens:
      return text_T[len(text_T) - tokens :]
    size = 2 * len(text)
