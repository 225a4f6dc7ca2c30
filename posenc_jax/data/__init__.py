"""Corpora and tasks, and training batches that are a pure function of seed and step."""

from posenc_jax.data.batches import Batch, Batches
from posenc_jax.data.corpora import (
  TEXT_OF_TASKS,
  Corpus,
  corpus,
  opened,
  prepare,
  text,
  tokenizer,
  verified_sha256,
  vocab,
  without_documents,
)
from posenc_jax.data.task_corpus import TaskBatches, TaskCorpus, pad_examples
from posenc_jax.data.tokenizers import BYTES

VOCAB = BYTES.vocab  # the symbols of text in bytes: the bytes 0 to 255 and BOS
BOS = VOCAB - 1

__all__ = [
  'BOS',
  'BYTES',
  'TEXT_OF_TASKS',
  'VOCAB',
  'Batch',
  'Batches',
  'Corpus',
  'TaskBatches',
  'TaskCorpus',
  'corpus',
  'opened',
  'pad_examples',
  'prepare',
  'text',
  'tokenizer',
  'verified_sha256',
  'vocab',
  'without_documents',
]
