"""What is measured: cases, and the groups of cases whose repeats are interleaved."""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from posenc_jax.cli import encoding_of
from posenc_jax.config import BASE, load
from posenc_jax.data import VOCAB

PASSES = ('forward', 'both')  # 'both' adds the gradients of queries, keys, values and parameters
DTYPES = ('float32', 'bfloat16')
LONG_CONTEXT = 8192  # tokens; longer sequences are measured one at a time, forward only
ATTENTION_LENGTHS = (512, 2048, 8192, 16384, 32768)
TRAIN_LENGTH = 512  # of the encodings in `attention`; DeBERTa clamps distances there, as published
MATMUL_SIZE = 2048  # rows and columns of the matrix product that gives the machine's peak speed
# On an accelerator, where calls are dear: rows and columns, and products one after another in one.
LARGE_MATMUL_SIZE, LARGE_MATMULS = 8192, 16
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

# The programs in PyTorch, and the encodings whose attention each of them computes.
ATTENTION_PEERS = {
  'sdpa': ('nope',),
  'sdpa_fixed': ('alibi', 'sandwich'),  # a bias [H, T, T] that is made before the clock starts
  'sdpa_fixed_causal': ('alibi', 'sandwich'),  # likewise; it skips what is later, on a CPU
  # a bias spread from a learned table by distance, with the table's gradient
  'sdpa_table': ('t5', 'kerple_log'),
  'sdpa_table_compiled': ('t5', 'kerple_log'),
  'sdpa_content': ('transformer_xl',),  # the bias q_i . r[i - j] as a whole array
  'sdpa_content_compiled': ('transformer_xl',),
  'flex': ('nope',),
  'flex_alibi': ('alibi',),
  'flex_table': ('t5', 'kerple_log'),
}
# Kernels of others in jax, likewise.
JAX_PEERS = {'tokamax': ('nope',)}
STEP_PEERS = ('gpt', 'x_transformers', 'gpt_compiled', 'x_transformers_compiled')

EVALUATION_LENGTHS = (2048, 8192)
SCORED_TOKENS = 1024  # at the end of a window; only these have logits, as in the protocol last_k
# How far apart the nats of a token may be from the baseline's in the mean, as a share of its nats.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 2e-2}
# Operations for each visible pair and channel. The backward pass has 2.5 times as many as the
# forward pass.
OPERATIONS = {'forward': 4.0, 'both': 14.0}


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of a table.

  Attributes:
    name: unique in its group.
    method: a backend, a peer, 'matmul', or for a step in jax 'trainer'; of an evaluation its name.
    encoding: a name with hyperparameters, as `encoding_of` reads it.
    baseline: the name of the case that its time is divided by.
    config: overrides of configs/base.py, for a step.
    folder: the model of an evaluation: a run directory, or for PyTorch its export.
    vocab, bos: of that model, the number of symbols and the one that windows begin with.
  """

  section: str
  framework: str
  name: str
  method: str
  encoding: str
  baseline: str
  dtype: str
  length: int
  batch: int
  passes: str = ''
  heads: int = 0
  head_dim: int = 0
  config: dict = dataclasses.field(default_factory=dict)
  folder: str = ''
  vocab: int = VOCAB - 1
  bos: int = VOCAB - 1

  @property
  def kind(self) -> str:
    """The function of `jax_cases` and `torch_cases` that prepares it."""
    return 'matmul' if self.method == 'matmul' else self.section

  @property
  def operations(self) -> float:
    """Floating-point operations of the products QK and PV over visible pairs, or of a matmul.

    Of an encoding that makes more heads, `facts` of the work has those of all.
    """
    if self.method == 'matmul':
      return 2.0 * MATMUL_SIZE**3  # on a CPU; elsewhere it is a fact of the work
    if self.section != 'attention':
      return 0.0
    pairs = self.batch * self.heads * self.length * (self.length + 1) / 2
    return OPERATIONS[self.passes] * self.head_dim * pairs

  @property
  def expected_seconds(self) -> float:
    """A rough cost of the whole case, which orders the groups and divides the time among them. The
    more heads that some encodings make are not known here.
    """
    if self.section == 'step':
      return 25.0 if self.method.endswith('compiled') else 8.0
    if self.section == 'evaluation':
      return 2.0 + self.length / 400
    if self.method == 'dense' and self.length > LONG_CONTEXT:  # refused for lack of memory
      return 2.0
    materializes_scores = self.method == 'dense' or self.method.startswith('sdpa_')
    return 2.0 + 4 * self.operations * (2 if materializes_scores else 1) / 1.5e11


@dataclasses.dataclass(frozen=True)
class Group:
  """Cases whose repeats are interleaved. Each group becomes a table."""

  section: str
  title: str
  cases: tuple[Case, ...]

  @property
  def expected_seconds(self) -> float:
    return sum(case.expected_seconds for case in self.cases)

  @property
  def cost_order(self) -> tuple[bool, float]:
    """A key that sorts cheap groups first and very long sequences last."""
    return max(case.length for case in self.cases) > LONG_CONTEXT, self.expected_seconds


def encoding_of_peer(peer: str, encodings) -> str:
  """The first of `encodings` whose attention `peer` computes, or ''."""
  computed = (ATTENTION_PEERS | JAX_PEERS)[peer]
  return next((spec for spec in encodings if spec.partition('/')[0] in computed), '')


def attention_groups(
  encodings, methods, peers, lengths, passes, dtypes, batch: int, heads: int, head_dim: int
) -> list[Group]:
  """One group for each dtype, length and pass.

  `methods` are backends, `peers` names in ATTENTION_PEERS and JAX_PEERS.
  """
  # The baseline of all other cases is this encoding with this backend.
  backend = next((name for name in ('blockwise', *methods) if name in methods), None)
  base = f'{"nope" if "nope" in encodings else encodings[0]} {backend}'
  groups = []
  for dtype, T, direction in itertools.product(dtypes, lengths, passes):
    if T > LONG_CONTEXT and direction != 'forward':
      continue
    B = 1 if T > LONG_CONTEXT else batch
    sizes = {'dtype': dtype, 'length': T, 'batch': B, 'heads': heads, 'head_dim': head_dim}
    new_case = functools.partial(Case, 'attention', passes=direction, **sizes)
    cases = [
      new_case('jax', f'{spec} {method}', method, spec, base)
      for spec, method in itertools.product(encodings, methods)
    ]
    for peer in peers:
      spec = encoding_of_peer(peer, encodings)
      framework = 'jax' if peer in JAX_PEERS else 'torch'
      baseline = f'{spec} {backend}' if spec else base
      cases.append(new_case(framework, f'{framework} {peer}', peer, spec, baseline))
    for framework in sorted({case.framework for case in cases}):
      cases.append(new_case(framework, f'{framework} matmul', 'matmul', '', 'jax matmul'))
    direction = 'forward and backward' if direction == 'both' else direction
    groups.append(Group('attention', f'{direction}, T {T}, B {B}, {dtype}', tuple(cases)))
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
  """One group for each dtype and shape (length, batch).

  Args:
    compiled: the one encoding whose peers are also compiled, in the first group; None: the peers of
      every encoding, in every group.
    seeds: if not 0, the steps of this many seeds by vmap and one after another, without peers.

  Raises:
    UserError: an override of a field that the config does not have.
  """
  base = 'nope' if 'nope' in encodings else encodings[0]
  groups = []
  for dtype, (T, B) in itertools.product(dtypes, shapes):
    new_case = functools.partial(Case, 'step', dtype=dtype, length=T, batch=B)
    shape = {'train.length': T, 'train.batch': B, 'train.compute_dtype': dtype}
    cases = []
    for spec in encodings:
      config = STEP | shape | overrides | {'encoding': encoding_of(spec)}
      load(BASE, config)
      if seeds:
        sequential = f'{spec}, {seeds} seeds sequential'
        for name, vmap in ((sequential, False), (f'{spec}, {seeds} seeds vmap', True)):
          of_seeds = config | {'seeds': tuple(range(seeds)), 'vmap_seeds': vmap}
          cases.append(new_case('jax', name, 'trainer', spec, sequential, config=of_seeds))
        continue
      cases.append(new_case('jax', spec, 'trainer', spec, base, config=config))
      for peer in peers:
        if compiled is None or not peer.endswith('compiled') or (spec == compiled and not groups):
          cases.append(new_case('torch', f'{spec} {peer}', peer, spec, spec, config=config))
    groups.append(Group('step', f'T {T}, batch {B}, {dtype}', tuple(cases)))
  return groups


def evaluation_groups(
  run: str, exported: str, encoding: str, vocab: int, bos: int, lengths, dtypes
) -> list[Group]:
  """One group for each dtype and length: a window of an imported model here and in transformers.

  `run` and `exported` are the folders of the model, the others as in `Case`.
  """
  groups = []
  for dtype, T in itertools.product(dtypes, lengths):
    shared = {'encoding': encoding, 'baseline': 'posenc_jax', 'dtype': dtype, 'length': T}
    new_case = functools.partial(Case, 'evaluation', batch=1, vocab=vocab, bos=bos, **shared)
    ours = new_case('jax', 'posenc_jax', 'posenc_jax', folder=run)
    theirs = new_case('torch', 'transformers', 'transformers', folder=exported)
    groups.append(Group('evaluation', f'{Path(run).name}, T {T}, {dtype}', (ours, theirs)))
  return groups


def step_config(case: Case):
  """The whole config of a step."""
  return load(BASE, case.config)


def tokens(case: Case):
  """Random symbols, int32 [B, T], the same in every framework; bytes but for an evaluation."""
  return np.random.default_rng(0).integers(0, case.vocab, (case.batch, case.length), dtype=np.int32)
