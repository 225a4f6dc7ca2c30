"""Several encodings, each for some of the heads."""

import dataclasses
import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import MASKED, SCORE_TERMS, Dims, Encoding
from posenc_jax.encodings.core.composite import Composite, check_nothing_around, read_members
from posenc_jax.encodings.core.registry import make_from_spec
from posenc_jax.errors import shown

# Hooks that act before heads are apart, in words.
OF_ALL_HEADS = {
  'positions_of_tokens': 'reads positions off tokens',
  'sample_positions': 'samples positions',
  'add_to_input': 'is added',
}


class Heads(Composite):
  """The encodings `members` act beside one another, each on heads of its own.

  The first member has the first heads. A member is built for as many heads as it has: slopes of
  `alibi` are those of a layer of so many. Members have the same scale, `query_scale`, normalizer,
  width of queries, number of heads out for each head in and number of positions a token, and none
  acts on the input or around attention, samples positions, reads them off tokens or carries sums
  along keys.
  """

  parameter_summary = "its members' (`rope`, or any)"

  def __init__(self, dims: Dims, rngs, *, members: tuple | str = ('rope',)):
    """Builds the members.

    Args:
      members: names, or dicts of a name, hyperparameters and `heads`, how many the member has:
        ({'name': 'rope', 'heads': 4}, {'name': 'nope', 'heads': 2}); or names in a text. Those that
        do not say share what is left evenly. Heads that share keys and values stay together.
    """
    specs = read_members(members)
    counts = _count_heads(specs, dims)
    group = dims.heads // dims.kv_heads
    encodings = [
      make_from_spec(spec, dataclasses.replace(dims, heads=n, kv_heads=n // group), rngs)
      for spec, n in zip(specs, counts, strict=True)
    ]
    _check_members([spec['name'] for spec in specs], encodings)
    super().__init__(dims, rngs, encodings)
    ends = [sum(counts[: n + 1]) for n in range(len(counts))]
    self.ranges = tuple((end - n, end) for end, n in zip(ends, counts, strict=True))
    self.reads_qk = any(e.reads_qk or e.recomputes_scores for e in encodings)
    hidden = [e.hides_from for e in encodings]
    self.hides_from = None if None in hidden else max(hidden)
    for name in ('normalizer', 'query_scale', 'qk_width_factor', 'heads_out_per_head'):
      setattr(self, name, getattr(encodings[0], name))

  def _cut(self, x, axis: int) -> list:
    """The parts of an array that the members have, by their heads or their key and value heads."""
    starts = [start * x.shape[axis] // self.dims.heads for start, _ in self.ranges[1:]]
    return jnp.split(x, starts, axis=axis)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """What each member makes of a token; positions of each head are cut as the heads are."""
    if not self.takes_positions_per_head or position_ids.ndim == 2:
      return super().coordinates(x_BSD, position_ids, num_visible_BS, index_BS)
    parts = zip(self.members, self._cut(position_ids, 2), strict=True)
    return tuple(e.coordinates(x_BSD, own_ids, num_visible_BS, index_BS) for e, own_ids in parts)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    parts = zip(self.members, self._cut(q_BTHK, 2), self._cut(k_BSGK, 2), i, j, strict=True)
    queries, keys = zip(*(e.transform_qk(*part) for e, *part in parts), strict=True)
    return jnp.concatenate(queries, axis=2), jnp.concatenate(keys, axis=2)

  def transform_values(self, v_BSGK, j):
    parts = zip(self.members, self._cut(v_BSGK, 2), j, strict=True)
    return jnp.concatenate([e.transform_values(*part) for e, *part in parts], axis=2)

  def meet_own_values(self, o_BTHK, v_BTGK):
    parts = zip(self.members, self._cut(o_BTHK, 2), self._cut(v_BTGK, 2), strict=True)
    return jnp.concatenate([e.meet_own_values(*part) for e, *part in parts], axis=2)

  def transform_output(self, o_BTHK, i, x_BTD):
    parts = zip(self.members, self._cut(o_BTHK, 2), i, strict=True)
    return jnp.concatenate([e.transform_output(*part, x_BTD) for e, *part in parts], axis=2)

  def sink(self, q_BTHK, i):
    sinks = []
    for e, q, own_i in zip(self.members, self._cut(q_BTHK, 2), i, strict=True):
      sink = e.sink(q, own_i) if e.has('sink') else jnp.full((1, 1, 1), MASKED, jnp.float32)
      sinks.append(jnp.broadcast_to(sink, q.shape[:3]))
    return jnp.concatenate(sinks, axis=2)

  def scale(self, head_dim):
    return self.members[0].scale(head_dim)

  def _combined(self, hook: str, r_R):
    """A term of all heads: zeros for those of members without it, [R, H] or [R, H, K]."""
    terms = []
    for e in self.members:
      shape = (
        (len(r_R), e.dims.heads) if hook == 'bias' else (len(r_R), e.dims.heads, e.dims.head_dim)
      )
      term = e.term_of_hook(hook, r_R) if e.has(hook) else jnp.zeros((1, *shape[1:]), jnp.float32)
      if e.bias_in_scale and not self.bias_in_scale and hook in SCORE_TERMS:
        term = term * self.scale(self.dims.head_dim)
      terms.append(jnp.broadcast_to(term, shape))
    return jnp.concatenate(terms, axis=1)

  def tables(self, r_R):
    """The tables of each member, by its hook `tables`."""
    of_member = lambda e: {'tables': e.term_of_hook('tables', r_R)} if e.has('tables') else {}
    return tuple(map(of_member, self.members))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    parts = zip(self._cut(s_BHTS, 1), self._cut(q_BHTK, 1), self._cut(k_BGSK, 1), strict=True)
    scores = []
    for n, (e, (s, q, k)) in enumerate(zip(self.members, parts, strict=True)):
      if e.has('score'):
        s = e.score(None if e.recomputes_scores else s, q, k, self._tile_of_member(tile, n))
      scores.append(s)
    return jnp.concatenate(scores, axis=1)

  def normalize(self, s_BHTS, tile):
    parts = enumerate(zip(self.members, self._cut(s_BHTS, 1), strict=True))
    weights = [e.normalize(s, self._tile_of_member(tile, n)) for n, (e, s) in parts]
    return jnp.concatenate(weights, axis=1)


def _count_heads(specs: list[dict], dims: Dims) -> list[int]:
  """How many heads each member has, taken out of the specs. Raises ValueError."""
  counts = [spec.pop('heads', None) for spec in specs]
  given = shown(tuple(counts))
  if any(type(n) is not int for n in counts if n is not None):
    raise ValueError(f'members have heads {given}; allowed: whole numbers')
  open_members = counts.count(None)
  left = dims.heads - sum(n for n in counts if n is not None)
  group = dims.heads // dims.kv_heads
  if open_members and left % open_members == 0:
    counts = [left // open_members if n is None else n for n in counts]
  if None in counts or sum(counts) != dims.heads or any(n < 1 or n % group for n in counts):
    allowed = f'{dims.heads} together' + (f', multiples of {group}, which share keys' * (group > 1))
    problem = f'{len(counts)} members have heads {given} (None: an equal share)'
    raise ValueError(f'{problem}; allowed: {allowed}')
  return counts


def _check_members(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members that cannot stand beside one another. Raises ValueError."""
  check_nothing_around(names, encodings)
  for name, e in zip(names, encodings, strict=True):
    places_all = e.has('positions_of_tokens') or (
      e.has('sample_positions') and not e.takes_carried_positions
    )
    for hook, words in OF_ALL_HEADS.items():
      if e.has(hook):
        around = "it goes around `heads`, inner=dict(name='heads', ...)"
        allowed = around if places_all else 'a chain of it and `heads`'
        raise ValueError(f'{name} {words} for all heads; allowed: {allowed}')
    if e.scans_keys:
      raise ValueError(f'{name} carries sums along keys; allowed: encodings that do not')
  facts = {
    'scale': [e.scale(e.dims.head_dim) for e in encodings],
    'query_scale': [e.query_scale for e in encodings],
    'normalizer': [e.normalizer for e in encodings],
    'qk_width_factor': [e.qk_width_factor for e in encodings],
    'heads_out_per_head': [e.heads_out_per_head for e in encodings],
    'positions_per_token': [e.positions_per_token for e in encodings if e.position_kind],
  }
  is_same = lambda a, b: a == b if isinstance(a, str) else math.isclose(a, b)
  for fact, values in facts.items():
    if not all(is_same(values[0], value) for value in values):
      said = ', '.join(map(str, values))
      raise ValueError(f'members have {fact} {said}; allowed: the same for all')
