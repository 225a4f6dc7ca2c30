"""Prints the page ENCODINGS.md: what every encoding does, costs and is reported to do.

  python scripts/maintenance/encoding_table.py > ENCODINGS.md

Where an encoding acts, what it costs and which backends take it is asked of its hooks; its own
parameters and what is claimed of it are words beside its formula. A test holds ENCODINGS.md to what
is printed here.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax import cli
from posenc_jax.attention import BACKENDS
from posenc_jax.attention.mask import CAUSAL
from posenc_jax.attention.request import AttentionRequest, build_request
from posenc_jax.attention.tiled.tile import ScoreTile
from posenc_jax.encodings import ENCODINGS, Encoding, make
from posenc_jax.encodings.core.composite import Composite
from posenc_jax.encodings.core.position_wrapper import PositionWrapper
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.encodings.core.rope_scaling_config import ORIGINAL, SCALINGS
from posenc_jax.encodings.core.temperature import Temperature

TITLE = """\
# Encodings

Which one to take: [README](README.md#the-answer-so-far). `pattern` gives layers different ones
([docs/encodings.md](docs/encodings.md)). The columns are explained below the tables."""
# The headings, in the order of the page; `heading_of` says which encodings stand below each.
PLAIN, INPUT, ROTATIONS, BIASES, SCORES, MOVED, TEMPERATURES, BESIDE, SEVERAL = (
  'No encoding',
  'Added at the input',
  'Rotations, projections and scales of queries and keys',
  'A bias by distance',
  'Scores from content, too',
  'Other positions for another encoding',
  'Temperatures, beside an encoding',
  'Values, outputs and softmax, beside an encoding',
  'Several encodings at once: one after another, or in different heads of a layer',
)
SCALING_TITLE = 'Scalings of `rope` and its kin, for more context'
SCALING_INTRODUCTION = """\
`--config.encoding.scaling.rope_type=NAME` with fields beside it, in training or in evaluation."""
HEADINGS = (PLAIN, INPUT, ROTATIONS, BIASES, SCORES, MOVED, TEMPERATURES, BESIDE, SEVERAL)
SCALING_COLUMNS = ('name', 'what it is', 'fields that must be said')
COLUMNS = (
  'name',
  'acts on',
  'own parameters',
  'cost',
  'backends',
  'past the training length L, as published',
  'source',
)
LEGEND = """\
**Name**: for `--config.encoding.name` and `make`; the file of its paper in `posenc_jax/encodings/`
has the formula, where it departs from released code, and its hyperparameters.

**Cost** comes on top of attention without positions. *Tokens*: it grows with tokens alone (*once*:
before the first layer); the rest grows with pairs of a query and a key. *Width*: of queries and
keys in every product. *Value width*: of values, likewise. *Bias by distance*: one number per head
and distance, added to each pair. *Queries x rows*: products of queries (keys, weights) with a
vector by distance, K multiply-adds per pair and head. *Multiply-adds*: of other products, per pair
and head; K is the width of a head. *Sums* or a *scan along keys*: from the query leftwards; *along
queries*: of those before it. *Elementwise*: arithmetic on each pair other than adding. *Rows
sorted*: all scores of a query are sorted (alpha = 1.5), or bisected in 30 passes (other alpha).

**Backends**: `dense` (the reference: all scores at once), `blockwise` (O(T) memory forward and
backward, any length, everywhere, every encoding that does not need whole rows of scores), `cudnn`
(NVIDIA, in bfloat16 or float16) and `splash` (TPU) for encodings that act neither on query-key
pairs nor on softmax and do not widen heads, `fused` (TPU) and `triton` (NVIDIA): the encoding's own
tile in kernels, O(T) memory. `ring` (`blockwise` over sequences that a mesh has cut) takes what
`blockwise` takes, and `diagonals` (for GPUs: all tiles of a diagonal at once) all of it but `path`.
A backend that cannot serve a request says why.

**Past the training length**: perplexities, best or better than at L, where the claim names no other
score; a dash: nothing that was verified."""

OTHER_NAMES = (
  ('Position Interpolation, NTK-aware RoPE', 'scaling `linear`, `ntk` of `rope`'),
  ("Su's NTK-RoPE-fixed", 'scaling `ntk_mixed` with `exponent` 1'),
  ('a part of the channels rotated, as in GPT-NeoX', '`rope`, `fraction`'),
  (
    '[LeRoPE](https://arxiv.org/abs/2607.10134): a learned factor on each frequency',
    "`grape_m` with `scale` 1 and `model.share_encoding='all'`",
  ),
  (
    'frequencies of each head, of [AdaRoPE](https://arxiv.org/abs/2607.19363) but for its'
    ' temperatures',
    '`grape_m`, `per_head`, for each head of keys',
  ),
  (
    'NoPE in some layers, full attention in some: iRoPE, [RNoPE](https://arxiv.org/abs/2501.18795),'
    ' [SWAN](https://arxiv.org/abs/2504.08719) but for its temperature',
    '`pattern`',
  ),
  (
    '[Periodic RoPE](https://arxiv.org/abs/2605.27980), or P-RoPE: windows with RoPE in some'
    ' layers, all keys without positions in the others',
    '`pattern`; `p_rope` is another method',
  ),
  (
    '[LM-Infinite](https://arxiv.org/abs/2308.16137)',
    '`rerope` under a window with first tokens'
    ' ([docs/pretrained.md](docs/pretrained.md#methods-without-training))',
  ),
  ('[DIET-REL](https://arxiv.org/abs/2104.08698)', '`t5` with one bucket per distance'),
  ('dynamic position bias: an MLP makes it of the distance', '`mlp_bias`'),
  ('learned Fourier features at the input', '`learned_fourier`'),
  ('channels rotated beside content, as in the MLA of DeepSeek', '`mla_rope`'),
  ('PaTH-FoX', '`chain` of `path` and `fox` with `bias_in_scale`'),
  ('M-RoPE, its interleaved form', '`axial_rope`, `spectrum` `split`, `interleaved`'),
  (
    'the order of [VideoRoPE](https://arxiv.org/abs/2502.05173)',
    '`axial_rope`, `spectrum` `first_slowest`',
  ),
  (
    '[multi-head RoPE](https://arxiv.org/abs/2510.23095): heads cut among coordinates',
    '`axial_rope`, `spectrum` `heads`',
  ),
  (
    '[HoPE of videos](https://arxiv.org/abs/2505.20444): that order, and no rotation by time',
    '`axial_rope`, `spectrum` `first_slowest`, with 0 for the first coordinate of every token',
  ),
  (
    '[FoPE of Intern-S1-Pro](https://arxiv.org/abs/2603.25040)',
    '`fope` with `square` True, `base` 5000000, `gain` 0.5 and `length` 262144',
  ),
  (
    'shift, jitter and rescaling of coordinates in [DINOv3](https://arxiv.org/abs/2508.10104)',
    "`cape` around `axial_rope`: `shift`, `axis_stretch` and `stretch`, `each` 'batch'",
  ),
  (
    '[RIFLEx](https://arxiv.org/abs/2502.15894)',
    'scaling `riflex` of `axial_rope`, with `scaled_axis` 0',
  ),
  (
    "x-transformers' data-dependent ALiBi; its form with gates of each row",
    '`fox` with `start` 5; `row_gates`',
  ),
  ("MPT's and BLOOM's ALiBi", '`alibi`, `exponent`'),
  ('temperatures of Llama 4 and Ministral', '`llama4_temperature` in a `chain`'),
  (
    "Qwen's LogN attention; Grok 2's `attn_temperature_len`, which multiplies behind its soft-cap",
    '`logn`, `length`, in a `chain`',
  ),
  (
    '[Entropy-ABF](https://arxiv.org/abs/2401.07004)',
    '`rope` with `base` 500000 in all layers, with `logn` in a `chain` in all but the first two:'
    ' `pattern`',
  ),
  ("TeleChat3's YaRN", 'scaling `yarn` with `attention_factor` 0.07 log(factor) + 1'),
  (
    '[Lazy Attention](https://arxiv.org/abs/2601.00919)',
    '`chain` of `rope`, `t5` with a bucket per distance, and `elastic_softmax`',
  ),
  (
    '[Randomized YaRN](https://arxiv.org/abs/2606.23687)',
    '`random_positions` around `rope` with scaling `yarn`; lengths that grow: `train.init_from`',
  ),
)
LEFT_OUT = (
  (
    '[FLOATER](https://arxiv.org/abs/2003.09229), [CLEX](https://arxiv.org/abs/2310.16450)',
    'a differential equation is solved in every forward pass',
  ),
  ('[SeqPE](https://arxiv.org/abs/2506.13277)', "two losses beside the model's are part of it"),
  (
    '[complex embeddings](https://arxiv.org/abs/1912.12333)',
    'positions are a part of the embedding of each word',
  ),
  (
    '[stochastic positional encoding](https://arxiv.org/abs/2105.08399)',
    'made for linear attention, which has no scores of pairs',
  ),
  (
    'convolutional position embedding, of [wav2vec 2.0](https://arxiv.org/abs/2006.11477)',
    'the input of a token would read 127 neighbors, half of them later ones; nothing keeps them for'
    ' a token that is generated',
  ),
  (
    'the bias by position and time of [HSTU](https://arxiv.org/abs/2402.17152)',
    'it reads when each token happened, and text does not say',
  ),
  (
    '[LookHere](https://arxiv.org/abs/2405.13985)',
    'heads that each see one direction of an image; masks here are alike for all heads',
  ),
  (
    '[NSA](https://arxiv.org/abs/2502.11089), [MoBA](https://arxiv.org/abs/2502.13189),'
    ' [InfLLM](https://arxiv.org/abs/2402.04617) and others that choose keys by content',
    'masks here are made of positions and segments',
  ),
  (
    '[differential attention](https://arxiv.org/abs/2410.05258), Canon layers, smeared embeddings,'
    ' linear or gated-delta layers beside attention',
    'parts of a model rather than positions',
  ),
  (
    "LongRoPE's search, those of [LongRoPE2](https://arxiv.org/abs/2502.20082) and"
    ' [DCIS](https://arxiv.org/abs/2412.18811), DoPE',
    'they need a search, or a calibration on texts; found factors go into scaling `longrope`',
  ),
  (
    '[DPRoPE](https://arxiv.org/abs/2410.01490)',
    'it divides each frequency by the factor or leaves it, whichever changes the histogram of its'
    ' angles less; the factors that its code prints go into scaling `longrope`',
  ),
  (
    '[MoICE](https://arxiv.org/abs/2406.19598)',
    'attention is made once for each base that a router picks',
  ),
  (
    '[CREAM](https://arxiv.org/abs/2406.07138)',
    'a relative of `pose`: three chunks, and most draws fall on the middle of the context',
  ),
  (
    '[LaMPE](https://arxiv.org/abs/2508.02308)',
    '`self_extend` with a real group size, which follows from a curve fitted to each model',
  ),
  ('[GALI](https://arxiv.org/abs/2502.02659)', 'its released code adds random noise to scores'),
  (
    "learned keys and values of a head beside those of tokens: PyTorch's `add_bias_kv`, the KV"
    ' biases of [Gu et al.](https://arxiv.org/abs/2410.10781)',
    'no hook adds keys; `sink` has a logit without a value',
  ),
  (
    'the rotary bias of [MEGA](https://arxiv.org/abs/2209.10655)',
    'a learned sum of waves of the distance, as `goat` has with `sink` False; the frequencies are'
    " RoPE's, and weights of waves products of two learned vectors",
  ),
  (
    '[paired heads](https://github.com/KellerJordan/modded-nanogpt/pull/191) of modded-nanogpt',
    'one softmax has the keys of two heads, and queries of one see those of the other: no hook adds'
    ' keys',
  ),
  (
    '[Stair PE](https://arxiv.org/abs/2410.15859)',
    'as released, groups of far positions are counted from the end of the call and move with each'
    ' token that is generated; `self_extend` counts them from the first token on',
  ),
  (
    "RoPE-ID, SWAN's temperature, AdaGroPE,"
    ' [attention alignment](https://arxiv.org/abs/2311.00684) for T5',
    'no formula of them could be verified',
  ),
)

# A prime length and a width that no product of an encoding's own has: pairs and products are told
# apart by their sizes.
H, K, S = 4, 128, 13
# Of backends that run on one platform only.
NATIVE_PLATFORM = {'cudnn': 'gpu', 'splash': 'tpu', 'fused': 'tpu', 'triton': 'gpu'}
LIKE_BLOCKWISE = ('diagonals', 'ring')  # as the legend says
SHOWN = tuple(
  name for name in BACKENDS if name not in LIKE_BLOCKWISE and not name.endswith('_interpret')
)
ENOUGH_TOKENS = 256  # for the tiles of every backend
PER_TOKEN = (
  'queries and keys',
  'values',
  'output',
  'softmax',
)  # places outside of the score matrix
ADDING = ('add', 'add_any', 'sub')
MOVING = (
  'broadcast_in_dim',
  'concatenate',
  'convert_element_type',
  'copy',
  'iota',
  'pad',
  'reshape',
  'slice',
  'squeeze',
)
# What stands for a class that says nothing of itself.
DEFAULTS = {'parameter_summary': 'none', 'reported_extrapolation': None}


def markdown() -> str:
  """The page: tables of all encodings of this repository, and what their words mean."""
  of_heading = {heading: [] for heading in HEADINGS}
  for name in BUILT_IN:
    of_heading[heading_of(name)].append(row(name))
  tables = [f'## {heading}\n\n{_table(COLUMNS, rows)}' for heading, rows in of_heading.items()]
  tables.append(
    f'## {SCALING_TITLE}\n\n{SCALING_INTRODUCTION}\n\n{_table(SCALING_COLUMNS, scalings())}'
  )
  parts = [
    TITLE,
    *tables,
    f'## What the columns mean\n\n{LEGEND}',
    f'## Known limits\n\n{limits()}',
    f'## Methods that have another name here\n\n{_table(("method", "here"), OTHER_NAMES)}',
    f'## Methods that are not here\n\n{_table(("method", "why"), LEFT_OUT)}',
  ]
  return '\n\n'.join(parts) + '\n'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [columns, ['---'] * len(columns), *rows]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


@functools.cache
def declared(name: str) -> Encoding:
  """The encoding with its defaults, its parameters as shapes alone."""
  dims = {'model_dim': H * K, 'heads': H, 'head_dim': K, 'train_length': ENOUGH_TOKENS}
  return nnx.eval_shape(lambda: make(name, **dims, rngs=nnx.Rngs(0)))


def heading_of(name: str) -> str:
  """The heading that an encoding stands below, by what it declares and acts on."""
  enc = declared(name)
  places = {*enc.acts_on()}
  for kind, heading in (
    (Composite, SEVERAL),
    (PositionWrapper, MOVED),
    (Temperature, TEMPERATURES),
  ):
    if isinstance(enc, kind):
      return heading
  if not places:
    return PLAIN
  if places == {'input'}:
    return INPUT
  stands_alone = enc.adapts_scores or enc.rotates_qk
  if places & {'values', 'output', 'softmax', 'weights'} and not stands_alone:
    return BESIDE
  if enc.adds_only_bias or (enc.has('bias') and not enc.has('score')):  # T5 has a scale of its own
    return BIASES
  return ROTATIONS if 'queries and keys' in places and not enc.has_terms else SCORES


def scalings() -> list[tuple[str, ...]]:
  """The cells of each scaling: its name, what it is by the first line of its function, fields."""
  made = []
  for name, function in SCALINGS.items():
    what = inspect.getdoc(function).split('\n')[0]
    fields = [
      f'`{p.name}`'
      for p in inspect.signature(function).parameters.values()
      if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != ORIGINAL
    ]
    made.append((f'`{name}`', what, ', '.join(fields) or 'none'))
  return made


def limits() -> str:
  """A line for each limit that encodings declare, with their names."""
  names_of = {}
  for name in BUILT_IN:
    if limit := ENCODINGS[name].limit:
      names_of.setdefault(limit, []).append(f'`{name}`')
  return '\n'.join(f'- {", ".join(names)}: {limit}.' for limit, names in names_of.items())


@functools.cache
def row(name: str) -> tuple[str, ...]:
  """The cells of an encoding with its defaults."""
  enc = declared(name)
  summary, reported = (class_attribute(type(enc), attribute) for attribute in DEFAULTS)
  cells = []

  def ask(answer, tokens: int):
    def of_request(enc, q_BTHK, x_BTD):
      state = enc.initial_state(jnp.arange(tokens)[None], 1)
      heads = enc.enter_attention(q_BTHK, q_BTHK, q_BTHK, state)
      request = build_request(*heads, enc, x=x_BTD, outer_hooks_applied=True)
      cells.append(answer(request))

    shapes = (1, tokens, H, K), (1, tokens, H * K)
    arrays = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
    jax.eval_shape(of_request, enc, *arrays)

  ask(lambda request: ', '.join(costs(request)) or 'none', S)
  ask(backends, ENOUGH_TOKENS)
  acts_on = ', '.join(enc.acts_on()) or 'nothing'
  return f'`{name}`', acts_on, summary, *cells, reported or '—', cite(enc.paper)


def class_attribute(kind: type[Encoding], attribute: str) -> str | None:
  """What a class says of itself, or a base class of it that is no encoding of its own."""
  others = {Encoding, *ENCODINGS.values()} - {kind}
  for base in kind.__mro__:
    if base in others:
      break
    if attribute in vars(base):
      return vars(base)[attribute]
  return DEFAULTS[attribute]


def cite(paper: str) -> str:
  """'Press et al. 2021, arXiv:2108.12409' as a link; several, parted by semicolons."""

  def link(source: str) -> str:
    text, _, place = source.rpartition(', ')
    place = place.replace('arXiv:', 'arxiv.org/abs/')
    return f'[{text}](https://{place})' if '/' in place else source

  return '; '.join(map(link, paper.split('; ')))


def backends(request: AttentionRequest) -> str:
  """Which backends of one device take this request, each asked on a platform where it runs."""

  def takes(name: str) -> bool:
    platform = NATIVE_PLATFORM.get(name, request.platform)
    return BACKENDS[name].refuse(dataclasses.replace(request, platform=platform)) is None

  found = [name for name in SHOWN if takes(name)]
  return 'all' if found == [*SHOWN] else ', '.join(f'`{name}`' for name in found)


@dataclasses.dataclass(frozen=True)
class RecordingTile(ScoreTile):
  """A tile that notes what `score` asks it for, and answers with zeros of that shape."""

  asked: list[str] = dataclasses.field(default_factory=list)

  def query_dot(self, q_BHTK, rows):
    self.asked.append('queries x rows')
    return jnp.zeros((1, H, S, S))

  def suffix_sum(self, x_BHTS, inclusive=True):
    self.asked.append('sums along keys')
    return x_BHTS.astype(jnp.float32)

  def scan_keys(self, step):
    self.asked.append('scan along keys')
    (shape,) = self.carry
    return step(jnp.zeros((1, H, S, *shape)))[0]

  def cond_saturated(self, bound, near, far):
    return near()


TERM_COSTS = {
  'bias': 'bias by distance',
  'relative_keys': 'queries x rows',
  'relative_queries': 'keys x rows',
  'relative_values': 'weights x rows',
}


def costs(request: AttentionRequest) -> list[str]:
  """What an encoding costs, part by part, in the words of LEGEND."""
  enc = request.enc
  parts = ['tokens, once'] if enc.has('add_to_input') else []
  if {*PER_TOKEN} & {*enc.acts_on()} or enc.needs_inputs:
    parts.append('tokens')
  if enc.qk_width > 1:
    parts.append(f'width x {enc.qk_width:g}')
  if enc.added_values:
    parts.append(f'value width x {1 + enc.added_values / K:g}')
  parts += [words for hook, words in TERM_COSTS.items() if enc.has(hook)]
  if enc.has('score'):
    parts += costs_of_score(request)
  if enc.has('normalize'):
    parts += costs_of_rows(request)
  return list(dict.fromkeys(parts))


def costs_of_score(request: AttentionRequest) -> list[str]:
  """What the free form of an encoding costs, found by tracing it on a tile that takes notes."""
  enc, tile, parts = request.enc, *recording_tile(request)
  q_BHTK, k_BGSK = request.q_BTHK.swapaxes(1, 2), request.k_BSGK.swapaxes(1, 2)
  score = lambda s: enc.score(None if enc.recomputes_scores else s, q_BHTK, k_BGSK, tile)
  multiply_adds, names = traced(score)
  parts += in_words(multiply_adds, names)
  if not multiply_adds and not {'bias by distance', 'queries x rows', 'elementwise'} & {*parts}:
    parts.append('adding')
  return parts


def costs_of_rows(request: AttentionRequest) -> list[str]:
  """What it costs to make weights of whole rows, found in the same way."""
  tile, parts = recording_tile(request)
  multiply_adds, names = traced(lambda s: request.enc.normalize(s, tile))
  if 'sort' in names:
    return ['rows sorted']
  parts += ['sums along queries'] if 'cumsum' in names else []
  return parts + in_words(multiply_adds, names)


def recording_tile(request: AttentionRequest) -> tuple[RecordingTile, list[str]]:
  """A tile of all pairs, and the list of its notes."""
  enc, index_S = request.enc, jnp.arange(S)
  index_distance_SS = index_S[:, None] - index_S[None]
  terms = enc.distance_terms(index_S)
  is_bias = any(term.ndim == 2 for term in jax.tree.leaves(terms))
  parts = ['bias by distance'] if is_bias else []
  terms = jax.tree.map(
    lambda t: jnp.zeros((1, H, S, S)) if t.ndim == 2 else jnp.moveaxis(t, 1, 0), terms
  )
  mask = CAUSAL.visible(index_distance_SS)
  distance = index_distance_SS[None]
  tile = RecordingTile(
    request.i, request.j, index_distance_SS, distance, mask, terms, None, enc.scans_keys, parts
  )
  return tile, parts


def traced(function) -> tuple[int, set[str]]:
  """`pairwise_operations` of a function of scores."""
  return pairwise_operations(jax.make_jaxpr(function)(jnp.zeros((1, H, S, S))).jaxpr)


def in_words(multiply_adds: int, names: set[str]) -> list[str]:
  """The words for these operations."""
  parts = []
  if multiply_adds:
    whole, rest = divmod(multiply_adds, K)
    by_width = multiply_adds if rest else f'{whole} K'.replace('1 K', 'K')
    parts.append(f'{by_width} multiply-adds')
  if names - {*ADDING, *MOVING, 'dot_general'}:
    parts.append('elementwise')
  return parts


def pairwise_operations(jaxpr) -> tuple[int, set[str]]:
  """The operations with a result for every pair: their multiply-adds a pair and head, and names."""
  multiply_adds, names = 0, set()
  for eqn in equations(jaxpr):
    size = eqn.outvars[0].aval.size
    if size % S**2 == 0:
      names.add(eqn.primitive.name)
      if eqn.primitive.name == 'dot_general':
        ((contracted, _), _), shape = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape
        multiply_adds += size * math.prod(shape[axis] for axis in contracted) // (H * S**2)
  return multiply_adds, names


def equations(jaxpr) -> Iterator:
  """The equations of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    values = [
      part
      for value in eqn.params.values()
      for part in (value if isinstance(value, tuple | list) else [value])
    ]
    within = [getattr(v, 'jaxpr', v) for v in values if hasattr(v, 'jaxpr') or hasattr(v, 'eqns')]
    if within:
      for inner in within:
        yield from equations(inner)
    else:
      yield eqn


def main(argv):
  cli.parse_args(argv, {}, takes_overrides=False)
  print(markdown(), end='')


if __name__ == '__main__':
  cli.main(main)
