"""Prepares a corpus and prints what is in it. Training and evaluation build the embedded corpus by
themselves.

  python scripts/prepare_data.py                          # the corpus of configs/base.py
  python scripts/prepare_data.py --corpus=tfds:lambada --config.data.text_field=passage
  python scripts/prepare_data.py --config.data.tokenizer=sentencepiece
  python scripts/prepare_data.py --corpus=task:copy/symbols=8   # a task: examples and chance
"""

import inspect
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from posenc_jax.config import load, main, parse_args, validate_data
from posenc_jax.data import TaskCorpus, prepare, source
from posenc_jax.data.corpora import SPLITS
from posenc_jax.tasks import PREFIX, chance

BASE = Path(__file__).resolve().parents[1] / 'configs' / 'base.py'
MIN_BYTES = (4096, 8192, 16384, 32768)  # documents of at least so many bytes are counted


def run(argv: list[str]) -> None:
  flags, overrides = parse_args(argv, {'config': str(BASE), 'corpus': None})
  if flags.corpus is not None:
    overrides['data.corpus'] = flags.corpus
  config = load(flags.config, overrides)
  validate_data(config)
  if config.data.corpus.startswith(PREFIX):
    describe_task(source(config.data, 'train'), config.eval.lengths)
  else:
    describe_text(config.data)


def describe_text(data: ConfigDict) -> None:
  """Prepares a corpus of text and prints, for each split, its documents, bytes and tokens."""
  folder = prepare(data.corpus, data.cache)
  print(f'{data.corpus}: {folder}')
  if data.corpus == 'sotu':
    from posenc_jax.data import sotu

    print(f'SHA-256 of all documents verified: {sotu.SHA256}')
  columns = ''.join(f'{f">= {n}":>10}' for n in MIN_BYTES)
  print(f'\n{"split":12}{"documents":>10}{"bytes":>14}{columns}')
  for split in SPLITS:
    corpus = source(data, split)
    sizes = corpus.sizes
    counts = ''.join(f'{(sizes >= n).sum():10}' for n in MIN_BYTES)
    print(f'{split:12}{len(sizes):10}{sizes.sum():14,}{counts}')
  if corpus.sha256:
    tokens = corpus.counts.sum()
    print(f'\n{data.tokenizer}: {corpus.vocab} symbols, SHA-256 {corpus.sha256}')
    print(f'{split}: {tokens:,} tokens of {corpus.sizes.sum() / tokens:.3f} bytes')


def describe_task(corpus: TaskCorpus, lengths: tuple[int, ...]) -> None:
  """Prints a task's description, three of its shortest examples with the positions that they
  carry, and what guessing scores at each length.
  """
  task = corpus.task
  longest = f'to {task.longest}' if task.longest else 'or more'
  print(f'{corpus.name}: {inspect.getdoc(task)}\n')
  print(f'{corpus.vocab} symbols with BOS; examples of {task.shortest} {longest} tokens')
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


if __name__ == '__main__':
  main(run)
