"""What is measured: cases, and the groups whose repeats are interleaved."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from posenc_jax.config import encoding_of, load, overlay
from posenc_jax.data import VOCAB

BASE = Path(__file__).resolve().parents[2] / 'configs' / 'base.py'
# 'both': forward, and backward to queries, keys, values and parameters
PASSES = ('forward', 'both')
DTYPES = ('float32', 'bfloat16')
LONG = 8192  # tokens; beyond: one sequence, forward only
# that encodings in `attention` are built for: where DeBERTa clamps, as published
TRAIN_LENGTH = 512
MATRIX = 2048  # the matrix product whose speed counts as the machine's peak is of squares this wide
STEP = {
  'model.layers': 4,
  'model.model_dim': 256,
  'model.heads': 8,
  'model.head_dim': 32,
  'model.mlp_dim': 1024,
  'train.steps': 1000,
}

ATTENTION_ENCODINGS = ('nope', 'rope', 'alibi', 't5', 'transformer_xl')  # one for each kind of work
STEP_ENCODINGS = ('nope', 'rope', 'alibi', 't5')
PLAIN = 'plain'  # a method of attention beside the backends: written by hand, for nope alone

# What PyTorch is asked to do, and the encodings whose work it is.
ATTENTION_PEERS = {
  'sdpa': ('nope',),
  'sdpa_fixed': ('alibi', 'sandwich'),  # a bias [H, T, T], made before the clock starts
  # the bias spread from a learned table by distance, with the table's gradient
  'sdpa_table': ('t5', 'kerple_log'),
  'sdpa_content': ('transformer_xl', 'shaw', 'deberta'),  # q_i . r[i - j] made whole, as a bias
  'flex': ('nope',),
  'flex_alibi': ('alibi',),
  'flex_table': ('t5', 'kerple_log'),
}
STEP_PEERS = ('gpt', 'x_transformers', 'gpt_compiled', 'x_transformers_compiled')
# x K: operations a visible pair; the backward pass has 2.5 times as many
FORMULA = {'forward': 4.0, 'both': 14.0}


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of a table.

  name: unique in its group. method: a backend, PLAIN, a peer, or 'matmul'. encoding: as
    `encoding_of` reads it.
  against: the name of the case that its time is divided by. config: overrides of configs/base.py,
    of a step.
  """

  section: str
  framework: str
  name: str
  method: str
  encoding: str
  against: str
  dtype: str
  length: int
  batch: int
  passes: str = ''
  heads: int = 0
  head_dim: int = 0
  config: dict = dataclasses.field(default_factory=dict)

  @property
  def operations(self) -> float:
    """Useful ones: of the two products over visible pairs (T (T + 1) / 2 of each head), or of a
    matrix product.
    """
    if self.method == 'matmul':
      return 2.0 * MATRIX**3
    pairs = self.batch * self.heads * self.length * (self.length + 1) / 2
    return FORMULA[self.passes] * self.head_dim * pairs if self.passes else 0.0

  @property
  def expected_seconds(self) -> float:
    """What it may cost in all, roughly: only orders the groups and shares the time out over
    them.
    """
    if self.section == 'step':
      return 25.0 if self.method.endswith('compiled') else 8.0
    if self.method == 'dense' and self.length > LONG:  # refused
      return 2.0
    whole = self.method == 'dense' or self.method.startswith('sdpa_')  # it makes [T, T]
    return 2.0 + 4 * self.operations * (2 if whole else 1) / 1.5e11


@dataclasses.dataclass(frozen=True)
class Group:
  """Cases whose repeats are interleaved: one table."""

  section: str
  title: str
  cases: tuple[Case, ...]

  @property
  def expected_seconds(self) -> float:
    return sum(case.expected_seconds for case in self.cases)

  @property
  def turn(self) -> tuple:
    """Cheap groups first, very long sequences last."""
    return max(case.length for case in self.cases) > LONG, self.expected_seconds


def doing_work_of(peer: str, encodings) -> str | None:
  """The first of `encodings` whose attention `peer` computes."""
  return next((spec for spec in encodings if spec.partition('/')[0] in ATTENTION_PEERS[peer]), None)


def attention_groups(
  encodings, methods, peers, lengths, passes, dtypes, batch, heads, head_dim
) -> list[Group]:
  """A group a length, pass and dtype. `methods`: backends and PLAIN; `peers`: names in
  ATTENTION_PEERS.
  """
  methods = [name for name in methods if name != PLAIN or 'nope' in encodings]
  # what all else is against
  engine = next((name for name in ('blockwise', *methods) if name in methods), None)
  base = f'{"nope" if "nope" in encodings else encodings[0]} {engine}'
  groups = []
  for dtype, T, which in itertools.product(dtypes, lengths, passes):
    if T > LONG and which != 'forward':
      continue
    B = 1 if T > LONG else batch
    sizes = dict(
      section='attention',
      dtype=dtype,
      length=T,
      batch=B,
      passes=which,
      heads=heads,
      head_dim=head_dim,
    )
    cases = []
    for spec, method in itertools.product(encodings, methods):
      if method != PLAIN or spec == 'nope':
        name = f'{spec} {method}'
        against = f'nope {PLAIN}' if name == base and PLAIN in methods else base
        cases.append(
          Case(framework='jax', name=name, method=method, encoding=spec, against=against, **sizes)
        )
    for peer in peers:
      partner = doing_work_of(peer, encodings) or ''
      against = f'{partner} {engine}' if partner else base
      name = f'torch {peer}'
      cases.append(
        Case(framework='torch', name=name, method=peer, encoding=partner, against=against, **sizes)
      )
    for framework in sorted({case.framework for case in cases}):
      name = f'{framework} matmul'
      cases.append(
        Case(
          framework=framework,
          name=name,
          method='matmul',
          encoding='',
          against='jax matmul',
          **sizes,
        )
      )
    title = (
      f'{ {"forward": "forward", "both": "forward and backward"}[which] }, T {T}, B {B}, {dtype}'
    )
    groups.append(Group('attention', title, tuple(cases)))
  return groups


def step_groups(
  encodings,
  peers,
  shapes,
  dtypes,
  overrides: dict[str, object],
  compiled: str | None,
  seeds: int = 0,
) -> list[Group]:
  """A group a shape (length, batch) and dtype.

  Args:
    seeds: if any, steps of so many seeds, at once against one after another; no peer does that.
    compiled: the one encoding whose peers are compiled too, in the first group; None: all, in every
      group.

  Raises:
    UserError: overrides that the config has no field for.
  """
  groups = []
  for dtype, (T, B) in itertools.product(dtypes, shapes):
    sizes = dict(section='step', dtype=dtype, length=T, batch=B)
    cases = []
    for spec in encodings:
      config = (
        STEP | {'train.length': T, 'train.batch': B, 'train.compute_dtype': dtype} | overrides
      )
      config |= {'encoding': encoding_of(spec)}
      overlay(load(BASE, {}), config)
      base = 'nope' if 'nope' in encodings else encodings[0]
      sizes |= dict(encoding=spec, config=config)
      if seeds:
        several, in_turn = config | {'seeds': tuple(range(seeds))}, f'{spec}, {seeds} seeds in turn'
        for method, name, at_once in (
          ('in_turn', in_turn, False),
          ('at_once', f'{spec}, {seeds} at once', True),
        ):
          sizes |= dict(config=several | {'vmap_seeds': at_once})
          cases.append(Case(framework='jax', name=name, method=method, against=in_turn, **sizes))
        continue
      cases.append(Case(framework='jax', name=spec, method='trainer', against=base, **sizes))
      for peer in peers:
        if compiled is None or not peer.endswith('compiled') or (spec == compiled and not groups):
          cases.append(
            Case(framework='torch', name=f'{spec} {peer}', method=peer, against=spec, **sizes)
          )
    groups.append(Group('step', f'T {T}, batch {B}, {dtype}', tuple(cases)))
  return groups


def step_config(case: Case):
  """The whole config of a step."""
  return load(BASE, case.config)


def tokens(case: Case):
  """The same random bytes for everyone: int32 [B, T]."""
  return np.random.default_rng(0).integers(0, VOCAB - 1, (case.batch, case.length), dtype=np.int32)
