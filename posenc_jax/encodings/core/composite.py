"""What encodings that are made of others have in common."""

import dataclasses

from flax import nnx

from posenc_jax.encodings.core.base import AROUND_ATTENTION, Dims, Encoding
from posenc_jax.errors import shown

# What is declared where any member declares it.
ANY_MEMBERS = (
  'causal_only',
  'needs_inputs',
  'needs_num_visible',
  'needs_all_queries',
  'exact_products',
  'rotates_qk',
  'rotates_values',
  'multiplies_queries',
  'splits_channels',
  'reads_own_queries',
  'nonlinear_in_queries',
  'hides_keys',
  'adapts_scores',
  'mixes_heads',
  'applies_scale',
  'needs_unscaled_queries',
)


class Composite(Encoding):
  """Holds the encodings `members`, has their hooks and declares what follows from theirs."""

  def __init__(self, dims: Dims, rngs, encodings: list[Encoding]):
    super().__init__(dims, rngs)
    self.members = nnx.List(encodings)
    self.paper = '; '.join(dict.fromkeys(e.paper for e in encodings if e.paper))
    self.limit = '; '.join(dict.fromkeys(e.limit for e in encodings if e.limit)) or None
    for name in ANY_MEMBERS:
      setattr(self, name, any(getattr(e, name) for e in encodings))
    self.relative = all(e.relative for e in encodings)
    self.reads_window_alone = all(e.reads_window_alone for e in encodings)
    self.max_length = min((e.max_length for e in encodings if e.max_length), default=None)
    ends = [e.max_relative_distance for e in encodings if e.has_terms]
    self.max_relative_distance = None if None in ends else max(ends, default=None)
    readers = [e for e in encodings if e.position_kind is not None]
    kinds = {e.position_kind for e in readers}
    self.position_kind = 'integers' if 'integers' in kinds else next(iter(kinds), None)
    at_layers = [e for e in readers if not e.takes_carried_positions]
    self.positions_per_token = next((e.positions_per_token for e in at_layers), 1)
    self.takes_positions_per_head = bool(readers) and all(
      e.takes_positions_per_head for e in readers
    )
    scaled = {e.bias_in_scale for e in encodings} - {None}
    self.bias_in_scale = all(scaled) if scaled else None
    if len(scaled) > 1:  # the terms of some are multiplied by it here, also those of queries
      self.applies_scale = True
      self.needs_unscaled_queries |= any(
        e.bias_in_scale and e.has('relative_keys') for e in encodings
      )
    self.per_layer = tuple(
      f'members.{n}.{name}' for n, e in enumerate(encodings) for name in e.per_layer
    )

  @property
  def changes_queries(self) -> bool:
    return any(e.changes_queries for e in self.members)

  @property
  def has_terms(self) -> bool:
    return any(e.has_terms for e in self.members)

  @property
  def has_vector_tables(self) -> bool:
    return any(e.has_vector_tables for e in self.members)

  def parts(self) -> tuple[Encoding, ...]:
    return tuple(part for e in self.members for part in e.parts())

  def has(self, hook: str) -> bool:
    return any(e.has(hook) for e in self.members)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return tuple(e.coordinates(x_BSD, position_ids, num_visible_BS, index_BS) for e in self.members)

  def of_pairs(self, coordinates):
    return tuple(e.of_pairs(own) for e, own in zip(self.members, coordinates, strict=True))

  def elements_per_pair(self, sequences, i):
    return max(e.elements_per_pair(sequences, own) for e, own in zip(self.members, i, strict=True))

  def bias(self, r_R):
    return self._combined('bias', r_R)

  def relative_keys(self, r_R):
    return self._combined('relative_keys', r_R)

  def relative_queries(self, r_R):
    return self._combined('relative_queries', r_R)

  def relative_values(self, r_R):
    return self._combined('relative_values', r_R)

  def _combined(self, hook: str, r_R):
    """What the members' terms of a hook come to."""
    raise NotImplementedError

  def _tile_of_member(self, tile, n: int):
    """The tile as a member sees it. All members share the carry: they ask for it in their order."""
    terms = tile.tables[n] if self.has('tables') else {}
    return dataclasses.replace(tile, i=tile.i[n], j=tile.j[n], terms=terms)


def check_nothing_around(names: list[str], encodings: list[Encoding]) -> None:
  """Raises ValueError for a member that acts around attention, as one does that carries a state
  from layer to layer: that is before all members act, whatever their order.
  """
  for name, e in zip(names, encodings, strict=True):
    if any(map(e.has, AROUND_ATTENTION)):
      allowed = 'it alone, or in a pattern of layers'
      raise ValueError(f'{name} acts around attention; allowed: {allowed}')


def read_members(members, others_than: str = '') -> list[dict]:
  """The specs of members, each a dict with a name and more.

  Args:
    members: names, or dicts with a name; or names in a text, 'rope,fox'.
    others_than: the name of an encoding that no member may be.

  Raises ValueError.
  """
  specs = members.split(',') if isinstance(members, str) else list(members)
  specs = [dict(spec) if hasattr(spec, 'keys') else {'name': spec} for spec in specs]
  names = [spec.get('name') for spec in specs]
  if not names or not all(isinstance(name, str) and name != others_than for name in names):
    but = f' but {others_than}' if others_than else ''
    allowed = f'names, or dicts with a name, of encodings{but}'
    raise ValueError(f'members={shown(members)}; allowed: {allowed}')
  return specs
