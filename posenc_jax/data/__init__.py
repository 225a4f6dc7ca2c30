"""Corpora of documents and tasks, and training batches as a pure function of seed and step."""

from posenc_jax.data.batches import Batch, Batches
from posenc_jax.data.corpora import Corpus, corpus, prepare, source, vocab
from posenc_jax.data.task_corpus import TaskBatches, TaskCorpus, fill_up
from posenc_jax.data.tokenizers import BYTES

VOCAB = BYTES.vocab  # of text in bytes: the bytes 0..255 and BOS
BOS = VOCAB - 1

__all__ = [
  'BOS',
  'BYTES',
  'VOCAB',
  'Batch',
  'Batches',
  'Corpus',
  'TaskBatches',
  'TaskCorpus',
  'corpus',
  'fill_up',
  'prepare',
  'source',
  'vocab',
]
