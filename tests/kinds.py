"""Kinds of encodings, so that tests of every day need not meet each one everywhere."""

import functools

import pytest
from flax import nnx
from oracles import RECORDS

from posenc_jax.encodings import make


def daily_if(condition: bool) -> tuple:
  """The marks of a case: none where the suite of every day has it, else `slow`."""
  return () if condition else (pytest.mark.slow,)


@functools.cache
def first_of_each_kind() -> frozenset[str]:
  """The first encoding of each kind: no two of them act in the same places and need the same.

  The suite of every day looks closely at these; the marker `slow` has the same for all.
  """
  first = {}
  for name, record in RECORDS.items():
    dims = dict(model_dim=16, heads=4, kv_heads=2, head_dim=8, train_length=16)
    enc = make(name, **dims, rngs=nnx.Rngs(0), **record.hyper)
    kind = (
      *(enc.acts_on(), enc.causal_only, enc.needs_inputs, enc.max_length is None),
      *(enc.scans_keys, enc.normalizer, enc.has('sample_positions')),
    )
    first.setdefault(kind, name)
  return frozenset(first.values())
