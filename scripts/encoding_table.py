"""The table of encodings in README.md: from the registry, what each does and what each backend says
to it.

Where an encoding acts, what it costs and which backends take it is asked of its hooks; its own
parameters and what is claimed of it are words beside its formula. A test holds README.md to
`markdown()`.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import BACKENDS
from posenc_jax.attention.request import Call, prepare
from posenc_jax.attention.tiled.tile import Block, visible
from posenc_jax.encodings import ENCODINGS, Encoding, make

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
Cost comes on top of attention without positions. *Tokens*: it grows with tokens alone (*once*: before the first layer);
the rest grows with pairs of a query and a key. *Width*: of queries and keys in every product. *Bias by distance*: a
number a head and distance, added to each pair. *Queries x rows*: products of queries (keys, weights) with a vector by
distance, K multiply-adds a pair and head. *Multiply-adds*: of other products, a pair and head; K is the width of a
head. *Sums* or a *walk along keys*: from the query leftwards. *Elementwise*: arithmetic on each pair other than adding.
Claims are perplexities, best or better than at L, where they name no other score; a dash: nothing that was verified."""

# A prime length and a width that no product of an encoding's own has: pairs and products are told
# by their sizes.
H, K, S = 4, 40, 13
AT_HOME = {'cudnn': 'gpu'}  # backends of one platform
# that takes what blockwise takes
ON_ONE_DEVICE = tuple(name for name in BACKENDS if name != 'ring')
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
EXAMPLES = {
  'weights': "weights = 'a table a layer', or 'none'",
  'claims': "claims = 'to 2 L (its authors)', or None",
}


def markdown() -> str:
  """The table and what its words mean."""
  rows = [COLUMNS, ['---'] * len(COLUMNS), *map(row, ENCODINGS)]
  table = '\n'.join(f'| {" | ".join(cells)} |' for cells in rows)
  return f'{table}\n\n{LEGEND}\n'


def row(name: str) -> tuple[str, ...]:
  """The cells of an encoding with its defaults. Raises ValueError where its class does not say
  enough.
  """
  enc = make(name, model_dim=H * K, heads=H, head_dim=K, train_length=S, rngs=nnx.Rngs(0))
  weights, claims = (said(type(enc), attribute) for attribute in EXAMPLES)
  cells = []

  def ask(q_BTHK, x_BTD):
    call = prepare(q_BTHK, q_BTHK, q_BTHK, enc, x_BTD, None, True, None, None, None, None)
    cells.extend([', '.join(costs(call)) or 'none', backends(call)])

  jax.eval_shape(
    ask, *(jax.ShapeDtypeStruct((1, S, *width), jnp.bfloat16) for width in ((H, K), (H * K,)))
  )
  return (
    f'`{name}`',
    ', '.join(enc.places()) or 'nothing',
    weights,
    *cells,
    claims or '—',
    cite(enc.paper),
  )


def said(kind: type[Encoding], attribute: str) -> str | None:
  """What a class says of itself; or a base of it that is not an encoding too. Raises ValueError
  where none does.
  """
  others = {Encoding, *ENCODINGS.values()} - {kind}
  for base in kind.__mro__:
    if base in others:
      break
    if attribute in vars(base):
      return vars(base)[attribute]
  raise ValueError(
    f'{kind.__name__}: `{attribute}` is missing beside `paper`, for README.md: {EXAMPLES[attribute]}'
  )


def cite(paper: str) -> str:
  """'Press et al. 2021, arXiv:2108.12409' as a link; several, parted by semicolons."""

  def link(source: str) -> str:
    text, _, place = source.rpartition(', ')
    place = place.replace('arXiv:', 'arxiv.org/abs/')
    return f'[{text}](https://{place})' if '/' in place else source

  return '; '.join(map(link, paper.split('; ')))


def backends(call: Call) -> str:
  """Which backends of one device take this call, each asked where it is at home."""
  at_home = lambda name: (
    dataclasses.replace(call, platform=AT_HOME[name]) if name in AT_HOME else call
  )
  takes = [name for name in ON_ONE_DEVICE if BACKENDS[name].refuse(at_home(name)) is None]
  return 'all' if takes == [*ON_ONE_DEVICE] else ', '.join(f'`{name}`' for name in takes)


@dataclasses.dataclass(frozen=True)
class Watched(Block):
  """A block that notes what it is asked for, and answers with as many zeros."""

  asked: list[str]

  def query_dot(self, q_BTHK, rows):
    self.asked.append('queries x rows')
    return jnp.zeros((1, H, S, S))

  def key_dot(self, k_BSHK, rows):
    self.asked.append('keys x rows')
    return jnp.zeros((1, H, S, S))

  def sum_by_distance(self, p_BHTS, rows):
    self.asked.append('weights x rows')
    return jnp.zeros((1, S, H, K))

  def suffix_sum(self, x_BHTS, inclusive=True):
    self.asked.append('sums along keys')
    return x_BHTS.astype(jnp.float32)

  def fold(self, shape, step):
    self.asked.append('walk along keys')
    return step(jnp.zeros(shape))[0]

  def unless(self, reached, near, far):
    return near()


def costs(call: Call) -> list[str]:
  """What an encoding costs, part by part, in the words of LEGEND."""
  enc, index_S = call.enc, jnp.arange(S)
  order_SS = index_S[:, None] - index_S[None]
  parts = ['tokens, once'] if 'input' in enc.places() else []
  if 'queries and keys' in enc.places() or reads_content(enc):
    parts.append('tokens')
  if (times := call.q_BTHK.shape[-1] / K) > 1:
    parts.append(f'width x {times:g}')
  tables = enc.tables(index_S)
  if any(table.ndim == 2 for table in jax.tree.leaves(tables)):
    parts.append('bias by distance')

  tables = jax.tree.map(
    lambda t: jnp.zeros((1, H, S, S)) if t.ndim == 2 else jnp.moveaxis(t, 1, 0), tables
  )
  mask = visible(order_SS, True, None)[None]
  block = Watched(call.i, call.j, order_SS, order_SS[None], mask, tables, None, None, parts)
  pairs = jnp.zeros((1, H, S, S))
  if enc.score is not None:
    score = lambda s_BHTS: enc.score(s_BHTS, call.q_BTHK, call.k_BSGK, block)
    multiply_adds, names = pairwise(jax.make_jaxpr(score)(pairs).jaxpr)
    if multiply_adds:
      by_width = (
        f'{multiply_adds // K} K'.replace('1 K', 'K') if multiply_adds % K == 0 else multiply_adds
      )
      parts.append(f'{by_width} multiply-adds')
    if names - {*ADDING, *MOVING, 'dot_general'}:
      parts.append('elementwise')
    elif not multiply_adds and not {'bias by distance', 'queries x rows', 'keys x rows'} & {*parts}:
      parts.append('adding')
  if enc.value is not None:
    jax.eval_shape(lambda p_BHTS: enc.value(p_BHTS, block), pairs)
  return parts


def reads_content(enc: Encoding) -> bool:
  """Whether coordinates depend on the tokens' content."""
  shapes = jax.ShapeDtypeStruct((1, S, H * K), jnp.float32), jax.ShapeDtypeStruct((1, S), jnp.int32)
  jaxpr = jax.make_jaxpr(enc.locate)(*shapes).jaxpr
  return any(jaxpr.invars[0] is v for eqn in jaxpr.eqns for v in eqn.invars)


def pairwise(jaxpr) -> tuple[int, set[str]]:
  """Of operations that give something for every pair: multiply-adds of products a pair and head,
  and names of all.
  """
  multiply_adds, names = 0, set()
  for eqn in leaves(jaxpr):
    size = eqn.outvars[0].aval.size
    if size % S**2 == 0:
      names.add(eqn.primitive.name)
      if eqn.primitive.name == 'dot_general':
        ((contracted, _), _), shape = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape
        multiply_adds += size * math.prod(shape[axis] for axis in contracted) // (H * S**2)
  return multiply_adds, names


def leaves(jaxpr) -> Iterator:
  """The equations of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    within = [
      p
      for value in eqn.params.values()
      for p in (value if isinstance(value, tuple | list) else [value])
    ]
    within = [getattr(p, 'jaxpr', p) for p in within if hasattr(p, 'jaxpr') or hasattr(p, 'eqns')]
    yield from (inner for each in within for inner in leaves(each)) if within else [eqn]
