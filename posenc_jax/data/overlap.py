"""How much of one split stands word for word in another, which a model could know by heart."""

from collections.abc import Iterable

import numpy as np

LENGTHS = (16, 32, 64, 128)  # bytes, each twice the one before
FACTOR, SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)  # 64 bits: odd, without a pattern
SAMPLED = np.uint64(16)  # one of so many sequences is compared, which its bytes decide


def shared(train: Iterable[bytes], test: Iterable[bytes]) -> dict[int, float]:
  """Returns {length: share of the sequences of so many bytes of the `test` texts that some `train`
  text has}, NaN where there are none.

  Sequences begin at every byte. One in SAMPLED is compared, by hashes of which 60 bits differ: of a
  million that are compared of each, two unlike ones are taken for alike with a chance of 9 in ten
  million.
  """
  hashes = [_by_length(texts) for texts in (train, test)]
  shares = {}
  for length in LENGTHS:
    known, sought = (of_split[length] for of_split in hashes)
    shares[length] = float(np.isin(sought, known).mean()) if len(sought) else float('nan')
  return shares


def _by_length(texts: Iterable[bytes]) -> dict[int, np.ndarray]:
  """{length: hashes of the sampled sequences of so many bytes}."""
  found = {length: [np.zeros(0, np.uint64)] for length in LENGTHS}
  for text in texts:
    values, length = np.frombuffer(text, np.uint8).astype(np.uint64), 1
    while length < LENGTHS[-1]:
      first, second = values[:-length], values[length:]
      values = (first * FACTOR ^ (first >> SHIFT)) * FACTOR + second
      values ^= values >> SHIFT
      length *= 2
      if length in found:
        found[length].append(values[values % SAMPLED == 0])
  return {length: np.concatenate(hashes) for length, hashes in found.items()}
