"""Prepares a corpus and says what is in it; training and evaluation build the embedded corpus by
themselves.

python scripts/prepare_data.py # the corpus of configs/base.py python scripts/prepare_data.py
--corpus=tfds:lambada --config.data.text_field=passage python scripts/prepare_data.py
--config.data.tokenizer=sentencepiece python scripts/prepare_data.py --corpus=task:copy/symbols=8 #
examples of a task, and what guessing scores
"""

import inspect
from pathlib import Path

import numpy as np

from posenc_jax.config import load, main, parse_args
from posenc_jax.data import TaskCorpus, prepare, source
from posenc_jax.data.corpora import SPLITS
from posenc_jax.tasks import PREFIX, chance

BASE = Path(__file__).resolve().parents[1] / 'configs' / 'base.py'
LONG = (4096, 8192, 16384, 32768)  # bytes


def run(argv: list[str]) -> None:
  flags, overrides = parse_args(argv, {'config': str(BASE), 'corpus': None})
  if flags.corpus is not None:
    overrides['data.corpus'] = flags.corpus
  config = load(flags.config, overrides)
  data = config.data
  if data.corpus.startswith(PREFIX):
    describe(source(data, 'train'), config.eval.lengths)
    return

  folder = prepare(data.corpus, data.cache)
  print(f'{data.corpus}: {folder}')
  if data.corpus == 'sotu':
    from posenc_jax.data import sotu

    print(f'SHA-256 of all documents verified: {sotu.SHA256}')
  print(f'\n{"split":12}{"documents":>10}{"bytes":>14}' + ''.join(f'{f">= {n}":>10}' for n in LONG))
  for split in SPLITS:
    corpus = source(data, split)
    sizes = corpus.sizes
    print(
      f'{split:12}{len(sizes):10}{sizes.sum():14,}'
      + ''.join(f'{(sizes >= n).sum():10}' for n in LONG)
    )
  if corpus.sha256:
    tokens = corpus.counts.sum()
    print(f'\n{data.tokenizer}: {corpus.vocab} symbols, SHA-256 {corpus.sha256}')
    print(f'{split}: {tokens:,} tokens of {corpus.sizes.sum() / tokens:.3f} bytes')


def describe(corpus: TaskCorpus, lengths: tuple[int, ...]) -> None:
  """Prints what a task is, three of its shortest examples, and its chance levels by length."""
  task = corpus.task
  print(f'{corpus.name}: {inspect.getdoc(task)}\n\nsource: {task.source}')
  longest = f'to {task.longest}' if task.longest else 'or more'
  print(f'{corpus.vocab} symbols with BOS; examples of {task.shortest} {longest} tokens')
  for example in corpus.examples(3, task.shortest):
    print(f'  {task.show(example)}')
  print(
    f'\n{"length":8}{"tokens":>8}{"answers":>9}{"chance of exact match":>23}{"of an answer":>14}'
  )
  for length in lengths:
    examples = corpus.examples(200, length)
    tokens, answers = np.mean(
      [(len(example.tokens_T), example.answers_T.sum()) for example in examples], axis=0
    )
    exact, one = chance(examples)
    print(f'{length:<8}{tokens:8.1f}{answers:9.1f}{exact:23.3g}{one:14.3g}')


if __name__ == '__main__':
  main(run)
