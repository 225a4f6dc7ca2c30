"""Prepares a corpus, tokens that are not bytes included, and prints what is in it. Sets of TFDS and
Hugging Face are fetched by this command alone; all else training and evaluation prepare, too.

  python scripts/prepare_data.py                          # the corpus of configs/base.py
  python scripts/prepare_data.py --config=configs/paper/kerple.py   # that of a study
  python scripts/prepare_data.py --corpus=tfds:lambada --config.data.text_field=passage
  python scripts/prepare_data.py --config.data.tokenizer=sentencepiece
  python scripts/prepare_data.py --corpus=task:copy/symbols=8   # a task: examples and chance
  python scripts/prepare_data.py --corpus=task:addition --config.train.length=21
  python scripts/prepare_data.py --corpus=code --history --overlap

--history prints what the text before a byte is worth, from nearby to 4096 bytes back; --overlap how
much of the other splits stands in the training split word for word. Each takes less than a minute
on the embedded corpora. Of a larger corpus --history counts 32 million tokens of training text,
drawn from all of it; --overlap holds hashes of two bytes for each byte of the text.
"""

import inspect
from collections import Counter

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import cli
from posenc_jax.config import BASE, load, validate_data
from posenc_jax.data import (
  TEXT_OF_TASKS,
  TaskCorpus,
  corpus,
  ngrams_with_history,
  opened,
  overlap,
  prepare,
  text,
  tokenizer,
  verified_sha256,
)
from posenc_jax.data.documents import SPLITS, sampled
from posenc_jax.data.ngrams import NGrams
from posenc_jax.errors import UserError
from posenc_jax.tasks import chance, is_set_in_text, is_task

CONTEXT = 6  # bytes of context of the n-gram under the table of histories
MAX_TRAINING_TOKENS = 2**25  # that it counts
OF_EACH = 20  # examples of a length whose sizes are counted
LENGTHS = (4096, 8192, 16384, 32768)  # documents of at least so many tokens are counted


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'config': str(BASE), 'corpus': None, 'history': False, 'overlap': False}
  )
  if flags.corpus is not None:
    overrides['data.corpus'] = flags.corpus
  config = load(flags.config, overrides)
  validate_data(config)
  is_of_integers = config.data.tokenizer == 'integers'
  given = [name for name in ('history', 'overlap') if getattr(flags, name)]
  if given and (is_of_integers or is_task(config.data.corpus)):
    what = config.data.tokenizer if is_of_integers else config.data.corpus
    raise UserError(f'--{given[0]}: of text only; allowed: without it for {what!r}')
  if is_task(config.data.corpus):
    corpus, lengths = opened(config.data, 'train'), config.eval.lengths
    if 'eval.lengths' not in overrides:  # its default is made for text
      fits = lambda length: corpus.task.shortest <= length <= (corpus.task.longest or length)
      lengths = tuple(filter(fits, lengths)) or (corpus.task.shortest,)
    describe_task(corpus, lengths, config.data.cache)
    describe_sizes(corpus, config.train.length)
  else:
    describe_text(config.data)
    if flags.overlap:
      describe_overlap(config.data)
    if flags.history:
      describe_history(config.data)


def prepare_text(name: str, cache: str) -> None:
  """Prepares a corpus of text and prints where it lies and, of an embedded one, its hash."""
  print(f'{name}: {prepare(name, cache)}')
  if digest := verified_sha256(name):
    print(f'SHA-256 of all documents verified: {digest}')


def describe_text(data: ConfigDict) -> None:
  """Prepares a corpus of text and prints, for each split, its documents, bytes and tokens; and how
  many folders train and test share.
  """
  prepare_text(data.corpus, data.cache)
  columns = ''.join(f'{f">= {n}":>10}' for n in LENGTHS)
  learned = tokenizer(data).sha256
  is_text = data.tokenizer != 'integers'  # of which each counts as one byte, however it is spelled
  columns += f'{"tokens":>14}' if learned else ''
  columns += f'{"bytes each":>12}' if learned and is_text else ''
  print(f'\n>= N: documents of N {"tokens" if learned else "bytes"} or more')
  print(f'{"split":12}{"documents":>10}{"bytes":>14}{columns}')
  for split in SPLITS:
    found = opened(data, split)
    size, counts = found.sizes.sum(), found.counts
    cells = ''.join(f'{(counts >= n).sum():10}' for n in LENGTHS)
    if learned:
      cells += f'{counts.sum():14,}'
      cells += f'{size / counts.sum():12.3f}' if is_text else ''
    print(f'{split:12}{len(found):10}{size:14,}{cells}')
  if learned:
    print(f'\n{data.tokenizer}: {found.vocab} symbols, SHA-256 {learned}')
  train, test = (folders(data, split) for split in ('train', 'test'))
  if both := train & test:
    print(f'\n{len(both)} of {len(train | test)} top folders have documents in both train and test')


def folders(data: ConfigDict, split: str) -> set[str]:
  """The top folders that documents of a split lie in, before any are joined."""
  documents = corpus(data.corpus, split, data.text_field, data.cache)
  found = enumerate(documents.names)
  return {folder for n, name in found if (folder := documents.folder(n)) != name}


def describe_overlap(data: ConfigDict) -> None:
  """Prints how much of the other splits the training split has word for word."""
  train, *others = (text(data, split).documents for split in SPLITS)
  columns = ''.join(f'{f"{length} bytes":>12}' for length in overlap.LENGTHS)
  print(
    '\nshare of the sequences of so many bytes that the training split has, too; where symbols are '
    f'few,\nit has short ones by chance:\n{"":12}{columns}'
  )
  for split, documents in zip(SPLITS[1:], others, strict=True):
    shares = overlap.shared(train, documents).values()
    print(f'{split:12}{"".join(f"{share:12.4f}" for share in shares)}')


def describe_history(data: ConfigDict) -> None:
  """Prints what the last bytes before a byte are worth to an n-gram model, by their number."""
  train, validation, test = (text(data, split) for split in SPLITS)
  model = NGrams(sampled(train.tokens, MAX_TRAINING_TOKENS), CONTEXT, train.vocab)
  bits = ngrams_with_history.bits_by_width(model, validation.tokens, test.tokens)
  if not bits:
    least = ngrams_with_history.SPAN + ngrams_with_history.CACHE_CONTEXT
    print(f'\nno history: no document of the test split has {least} bytes')
    return
  if not ngrams_with_history.reaches(validation.tokens, max(bits)):
    print(
      '\nthe weight of the counts is that which is best on the test split itself: no document of '
      'the validation split is long enough'
    )
  print(
    f'\nbits a byte of the test split: an n-gram of {CONTEXT} bytes of context, from the training '
    f'split,\nand the counts of as many bytes before each as `history` says\n\n'
    f'{"history":12}{"bits":>8}{"gain":>8}'
  )
  for width, value in bits.items():
    print(f'{width or "none":<12}{value:8.3f}{bits[0] - value:8.3f}')


def describe_task(corpus: TaskCorpus, lengths: tuple[int, ...], cache: str) -> None:
  """Prints a task's description, the text that it is set in, if any, three of its shortest examples
  with the positions that they carry, and what guessing scores at each length.
  """
  task = corpus.task
  longest = f'to {task.longest}' if task.longest else 'or more'
  print(f'{corpus.name}: {inspect.getdoc(task)}\n')
  if is_set_in_text(corpus.name):
    print('Its text:')
    prepare_text(TEXT_OF_TASKS, cache)
    print()
  print(f'{corpus.vocab} symbols with BOS; examples of {task.shortest} {longest} tokens')
  print('(shorter ones do not fit, or are too few for splits that share none)')
  for example in corpus.examples(3, task.shortest):
    print(f'  {task.show(example)}')
    if example.positions_T is not None:
      print(f'    at {" ".join(map(str, example.positions_T.tolist()))}')
  columns = ('length', 'tokens', 'answers', 'chance of exact match', 'of an answer', 'in nats')
  print('\n{:8}{:>8}{:>9}{:>23}{:>14}{:>9}'.format(*columns))
  for length in lengths:
    examples = corpus.examples(200, length)
    tokens = np.mean([len(example.tokens_T) for example in examples])
    answers = np.mean([example.answers_T.sum() for example in examples])
    guessing = '{:23.3g}{:14.3g}{:9.3g}'.format(*chance(examples))
    print(f'{length:<8}{tokens:8.1f}{answers:9.1f}{guessing}')


def describe_sizes(corpus: TaskCorpus, train_length: int) -> None:
  """Prints how often a training has examples of each of the largest sizes, which several lengths
  may share: so the largest can be rare.
  """
  lengths = range(corpus.shortest, min(train_length, corpus.task.longest or train_length) + 1)
  if corpus.task.unit == 1 or not lengths:
    return
  last = lengths[-3 * corpus.task.unit :]
  sizes = Counter(
    len(example.tokens_T) for length in last for example in corpus.examples(OF_EACH, length)
  )
  print(
    f'\ntraining on lengths drawn evenly from {lengths[0]} to {lengths[-1]} tokens '
    f'(train.length={train_length}):'
  )
  for size in sorted(sizes, reverse=True):
    if size >= last[0]:  # smaller ones are also those of lengths that were not looked at
      share = sizes[size] / OF_EACH / len(lengths)
      print(f'{share:8.1%} of the examples have {size} tokens')


if __name__ == '__main__':
  cli.main(main)
