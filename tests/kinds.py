"""Kinds of encodings, so that tests of every day need not meet each one everywhere."""

import functools

import pytest
from flax import nnx
from oracles import RECORDS

from posenc_jax.encodings import make


def daily_if(condition: bool, otherwise: str = 'slow') -> tuple:
  """The marks of a case: none where the suite of every day has it, else the one that is named.

  `ci`: it takes seconds, so that `.ci/run` has it and not everyone before a commit.
  """
  return () if condition else (getattr(pytest.mark, otherwise),)


def slow(*values):
  """A case that the suite `slow` alone has."""
  return pytest.param(*values, marks=pytest.mark.slow)


def in_ci(*values):
  """A case that `.ci/run` has, and not everyone before a commit."""
  return pytest.param(*values, marks=pytest.mark.ci)


@functools.cache
def representatives() -> frozenset[str]:
  """Few encodings that have among them every place to act at, and the declarations that are named
  here: by which arrays have other shapes, or other tokens and positions are seen.

  The suite of every day and `.ci/run` look closely at these; the marker `slow` has the same for
  all.
  """
  traits = {}
  for name, record in RECORDS.items():
    dims = dict(model_dim=16, heads=4, kv_heads=2, head_dim=8, train_length=16)
    build = functools.partial(make, name, **dims, **record.hyper)
    enc = nnx.eval_shape(lambda build=build: build(rngs=nnx.Rngs(0)))
    declared = (
      *(enc.causal_only, enc.needs_inputs, enc.max_length is None, enc.relative),
      *(enc.scans_keys, enc.normalizer, enc.has('sample_positions')),
      *(enc.has('positions_of_tokens'), enc.needs_all_queries, enc.hides_keys),
      *(enc.positions_per_token > 1, enc.qk_width_factor > 1),
      *(enc.heads_out_per_head > 1, enc.added_value_channels > 0),
    )
    traits[name] = {('acts on', place) for place in enc.acts_on()} | set(enumerate(declared))
  chosen, left = set(), set().union(*traits.values())
  while left:
    name = max(traits, key=lambda name: len(traits[name] & left))
    chosen.add(name)
    left -= traits[name]
  return frozenset(chosen)
