"""What encodings cost, asked of their hooks by tracing them."""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from posenc_jax.attention.kernels.program import open_jaxpr
from posenc_jax.attention.mask import CAUSAL
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.tile import ScoreTile

# A prime length and a width over which no product of an encoding's own sums: pairs and products are
# told apart by their sizes.
H, K, S = 4, 128, 13
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
  """What an encoding costs, part by part, in the words of page.md."""
  enc = request.enc
  parts = ['tokens, once'] if enc.has('add_to_input') else []
  if {*PER_TOKEN} & {*enc.acts_on()} or enc.needs_inputs:
    parts.append('tokens')
  if enc.qk_width_factor > 1:
    parts.append(f'width x {enc.qk_width_factor:g}')
  if enc.added_value_channels:
    parts.append(f'value width x {1 + enc.added_value_channels / K:g}')
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
  multiply_adds, contracted, names = traced(score)
  parts += in_words(multiply_adds, contracted, names)
  if not multiply_adds and not {'bias by distance', 'queries x rows', 'elementwise'} & {*parts}:
    parts.append('adding')
  return parts


def costs_of_rows(request: AttentionRequest) -> list[str]:
  """What it costs to make weights of whole rows, found in the same way."""
  tile, parts = recording_tile(request)
  multiply_adds, contracted, names = traced(lambda s: request.enc.normalize(s, tile))
  if 'sort' in names:
    return ['rows sorted']
  parts += ['sums along queries'] if 'cumsum' in names else []
  return parts + in_words(multiply_adds, contracted, names)


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


def traced(function) -> tuple[int, set[int], set[str]]:
  """`pairwise_operations` of a function of scores."""
  return pairwise_operations(open_jaxpr(jax.make_jaxpr(function)(jnp.zeros((1, H, S, S)))))


def in_words(multiply_adds: int, contracted: set[int], names: set[str]) -> list[str]:
  """The words for these operations; of products over channels alone multiply-adds are told in K."""
  parts = []
  if multiply_adds:
    n = multiply_adds // K
    of_channels = 'K' if n == 1 else f'{n} K'
    number = of_channels if contracted <= {K, K // 2} else multiply_adds
    parts.append(f'{number} multiply-adds')
  if names - {*ADDING, *MOVING, 'dot_general'}:
    parts.append('elementwise')
  return parts


def pairwise_operations(jaxpr) -> tuple[int, set[int], set[str]]:
  """The operations with a result for every pair: their multiply-adds a pair and head, over how many
  numbers their products sum, and names.
  """
  multiply_adds, sums, names = 0, set(), set()
  for eqn in equations(jaxpr):
    size = eqn.outvars[0].aval.size
    if size % S**2 == 0:
      names.add(eqn.primitive.name)
      if eqn.primitive.name == 'dot_general':
        ((contracted, _), _), shape = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape
        sums.add(math.prod(shape[axis] for axis in contracted))
        multiply_adds += size * math.prod(shape[axis] for axis in contracted) // (H * S**2)
  return multiply_adds, sums, names


def equations(jaxpr) -> Iterator:
  """The equations of a jaxpr and of those within it, of a choice of platform the default."""
  platforms = [eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive.name == 'platform_index']
  for eqn in jaxpr.eqns:
    values = [
      part
      for value in eqn.params.values()
      for part in (value if isinstance(value, tuple | list) else [value])
    ]
    within = [getattr(v, 'jaxpr', v) for v in values if hasattr(v, 'jaxpr') or hasattr(v, 'eqns')]
    if eqn.invars and eqn.invars[0] in platforms:
      within = within[-1:]
    if within:
      for inner in within:
        yield from equations(inner)
    else:
      yield eqn
