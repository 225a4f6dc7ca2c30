"""Corpora of documents, and training batches as a pure function of seed and step. Tokens are bytes, and one more."""

from posenc_jax.data.batches import Batches
from posenc_jax.data.corpora import Corpus, corpus, prepare

VOCAB = 257  # the bytes 0..255 and BOS
BOS = 256

__all__ = ['BOS', 'VOCAB', 'Batches', 'Corpus', 'corpus', 'prepare']
