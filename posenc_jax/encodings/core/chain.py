"""Several encodings, one after another."""

import functools
import itertools
import math
import operator

import jax.numpy as jnp

from posenc_jax.encodings.core.base import SCORE_TERMS, Dims, Encoding
from posenc_jax.encodings.core.chain_checks import check_together, sets_scale
from posenc_jax.encodings.core.composite import Composite, check_nothing_around, read_members
from posenc_jax.encodings.core.registry import make_from_spec


class Chain(Composite):
  """The encodings `members` act one after another: on the input, on queries and keys, on scores.

  A member sees the scores as those before it left them, and queries and keys as all members
  transformed them: behind `rope`, the rows of `cope` or `shaw` meet rotated queries, which depend
  on absolute positions. Values pass the members in their order, outputs in the opposite order.
  Sinks of several members all join the denominator. Vectors that members add to values of pairs are
  summed; beside `vo_rope` these depend on absolute positions. Terms by distance of the members up
  to the first one with a `score` are summed and declared as the chain's own; those of later members
  are added inside the chain's `score`, in their turn. Beside `t5`, which moves the scale onto
  queries, products of keys and a vector by distance (`shaw` with `key_query`) are not scaled.
  Beside a member that takes the positions of the data, such as `abacus`, attention and all others
  have those of the sequence.

  ValueError is raised for

  - two members with a scale of their own (`t5`, `deberta`, `tupe`, `mla_rope`), or two that replace
    softmax, or one of these and a sink; beside `t5` a member that reads the size of queries, or
    whose bias is in the scale; beside the other three one that itself multiplies by 1/sqrt(K);
  - a member that makes q . k itself (`path`, `xpos`, `rerope`) behind one that acts on scores, or
    beside one that sets the scale;
  - a member that changes queries behind `transformer_xl`, `tupe`, `diet_abs` or `mla_rope`, which
    add parts of their own to queries; but a temperature behind `tupe` or `mla_rope` multiplies the
    whole product;
  - a temperature, or a rotation with an attention factor, before `coca`, `pope`, `lssa`,
    `cos_scale`, `qassmax` or `screening` or beside `tapa`, whose products are not proportional to
    the query; and two of these seven;
  - `key_offset` behind a member that rotates keys or makes them wider; beside a member that makes
    queries and keys wider one that reads them or makes q . k itself, and behind it one that rotates
    them or makes them wider again;
  - a member on scores behind `dape_v2`, `selective` or `mta`, which adapt the scores of all
    members; behind `hard_alibi`, which hides keys, one with a `score`, and beside it one that
    adapts scores, mixes weights of heads (`talking_heads`) or counts visible keys; behind `sigmoid`
    and its like, which return logarithms of weights, one that mixes scores of heads (`dape`);
  - beside `rope_pp`, which makes two heads of one: before it any member but those on the input, on
    queries and keys or on values, behind it any but those on the input;
  - members that take different numbers of positions a token; beside one that takes the positions of
    the data any that acts on the input or has a table of positions; members that sample positions
    or read them off tokens (they wrap a chain), or that act around attention (`tape`).
  """

  parameter_summary = "its members' (`rope`, then `fox`, or any)"

  def __init__(self, dims: Dims, rngs, *, members: tuple | str = ('rope', 'fox')):
    """Builds the members.

    Args:
      members: names, or dicts of a name and hyperparameters, ({'name': 'rope', 'base': 5e5},
        'fox'); or names in a text, 'rope,fox'.
    """
    names, encodings = _make_members(members, dims, rngs)
    super().__init__(dims, rngs, encodings)
    # Members with a `score`. The terms of the `summed` members up to the first of them are the
    # chain's own; `score` adds those of later ones.
    self.scoring = tuple(n for n, e in enumerate(encodings) if e.has('score'))
    self.summed = self.scoring[0] + 1 if self.scoring else len(encodings)
    check_together(names, encodings)
    self.scale_member = next((n for n, e in enumerate(encodings) if sets_scale(e)), 0)
    self.reads_qk = any(e.reads_qk for e in encodings)
    # No member behind one that hides keys has a `score`: they stay hidden.
    hidden = [e.hides_from for e in encodings if e.hides_from is not None]
    self.hides_from = min(hidden, default=None)
    if _is_absolute_together(encodings):
      self.relative = False
    self.takes_carried_positions = any(e.takes_carried_positions for e in encodings)
    self.recomputes_scores = any(e.recomputes_scores for e in encodings)
    self.qk_width_factor = math.prod(e.qk_width_factor for e in encodings)
    self.heads_out_per_head = math.prod(e.heads_out_per_head for e in encodings)
    self.scans_keys = tuple(shape for e in encodings for shape in e.scans_keys)
    self.normalizer = next(
      (e.normalizer for e in encodings if e.normalizer != 'softmax'), 'softmax'
    )
    self.query_scale = math.prod(e.query_scale for e in encodings)

  def has(self, hook: str) -> bool:
    if hook in SCORE_TERMS:
      return any(e.has(hook) for e in self.members[: self.summed])
    if hook == 'tables':
      return bool(self.scoring) or any(e.has(hook) for e in self.members)
    if hook == 'is_exhausted':  # a member behind it could give weight to keys further left again
      on_scores = [e for e in self.members if 'scores' in e.acts_on()]
      return bool(on_scores) and on_scores[-1].has(hook)
    return super().has(hook)

  @property
  def at_input(self) -> Encoding:
    return next((e for e in self.members if e.takes_carried_positions), self)

  def sample_positions(self, position_ids, batch: int, key):
    (member,) = [e for e in self.members if e.has('sample_positions')]
    return member.sample_positions(position_ids, batch, key)

  def max_sampled_distance(self, tokens: int) -> int:
    return max(e.max_sampled_distance(tokens) for e in self.members)

  def add_to_input(self, x_BTD, position_ids):
    for e in self.members:
      x_BTD = e.add_to_input(x_BTD, position_ids)
    return x_BTD

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    for n, e in enumerate(self.members):
      q_BTHK, k_BSGK = e.transform_qk(q_BTHK, k_BSGK, i[n], j[n])
    return q_BTHK, k_BSGK

  def transform_values(self, v_BSGK, j):
    for n, e in enumerate(self.members):
      v_BSGK = e.transform_values(v_BSGK, j[n])
    return v_BSGK

  def meet_own_values(self, o_BTHK, v_BTGK):
    for e in reversed(self.members):
      o_BTHK = e.meet_own_values(o_BTHK, v_BTGK)
    return o_BTHK

  def transform_output(self, o_BTHK, i, x_BTD):
    for n, e in reversed(list(enumerate(self.members))):
      o_BTHK = e.transform_output(o_BTHK, i[n], x_BTD)
    return o_BTHK

  def sink(self, q_BTHK, i):
    sinks = [e.sink(q_BTHK, i[n]) for n, e in enumerate(self.members) if e.has('sink')]
    return functools.reduce(jnp.logaddexp, sinks)

  def scale(self, head_dim):
    return self.members[self.scale_member].scale(head_dim)

  def _combined(self, hook: str, r_R):
    """The sum of a term over members; the engine multiplies by the scale if all are inside it."""
    is_of_score = hook in SCORE_TERMS
    members = self.members[: self.summed] if is_of_score else self.members
    inside = self.bias_in_scale or not is_of_score
    term = (
      (lambda e: e.term_of_hook(hook, r_R))
      if inside
      else (lambda e: self._scaled_term(e, hook, r_R))
    )
    return functools.reduce(operator.add, [term(e) for e in members if e.has(hook)])

  def _scaled_term(self, member: Encoding, hook: str, r_R):
    """A term with the chain's scale multiplied in, if the member's terms are inside the scale."""
    term = member.term_of_hook(hook, r_R)
    return term * self.scale(self.dims.head_dim) if member.bias_in_scale else term

  def tables(self, r_R):
    """For each member, the terms that `score` adds in its turn and the member's own tables."""
    each = []
    for n, e in enumerate(self.members):
      later = [hook for hook in SCORE_TERMS if n >= self.summed and e.has(hook)]
      terms = {hook: self._scaled_term(e, hook, r_R) for hook in later}
      each.append(terms | ({'tables': e.term_of_hook('tables', r_R)} if e.has('tables') else {}))
    return tuple(each)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    for n in range(self.summed - 1, len(self.members)):
      member, part = self.members[n], self._tile_of_member(tile, n)
      s_BHTS = part.add_score_terms(s_BHTS, q_BHTK, k_BGSK)
      if member.has('score'):
        s_BHTS = member.score(s_BHTS, q_BHTK, k_BGSK, part)
    return s_BHTS

  def normalize(self, s_BHTS, tile):
    (n,) = [n for n, e in enumerate(self.members) if e.has('normalize')]
    return self.members[n].normalize(s_BHTS, self._tile_of_member(tile, n))

  def is_exhausted(self, carried):
    last = self.members[self.scoring[-1]]
    return last.is_exhausted(carried[-len(last.scans_keys) :])


def _make_members(members, dims: Dims, rngs) -> tuple[list[str], list[Encoding]]:
  """The names of the members, and the members. Raises ValueError."""
  specs = read_members(members, others_than='chain')
  names = [spec['name'] for spec in specs]
  encodings = [make_from_spec(spec, dims, rngs) for spec in specs]
  check_nothing_around(names, encodings)
  for name, e in zip(names, encodings, strict=True):
    around = 'it goes around a chain, inner=dict(...)'
    if e.has('sample_positions') and not e.takes_carried_positions:
      raise ValueError(f'{name} samples positions for all: {around}')
    if e.has('positions_of_tokens'):
      raise ValueError(f'{name} reads positions off tokens for all: {around}')
  return names, encodings


def _is_absolute_together(encodings: list[Encoding]) -> bool:
  """Whether a member rotates queries and keys, or values, by positions, and another one makes of
  them what depends on more than how far two tokens are rotated from one another.

  What a member rotates for itself it has declared: heads may have some that rotate and some that
  read.
  """
  for n, m in itertools.permutations(range(len(encodings)), 2):
    first, other = encodings[n], encodings[m]
    is_behind = n < m
    if _turns_by_positions(first, 'rotates_qk'):
      is_nonlinear = is_behind and other.nonlinear_in_queries
      if other.reads_qk or is_nonlinear or (is_behind and _turn_apart(first, other, 'rotates_qk')):
        return True
    if _turns_by_positions(first, 'rotates_values'):
      is_added = other.has('relative_values')
      if is_added or (is_behind and _turn_apart(first, other, 'rotates_values')):
        return True
  return False


def _turns_by_positions(enc: Encoding, rotates: str) -> bool:
  """Whether an encoding, or any that it is made of, rotates by positions: some by tokens."""
  return any(getattr(e, rotates) and e.position_kind is not None for e in enc.parts())


def _turn_apart(first: Encoding, second: Encoding, rotates: str) -> bool:
  """Whether two encodings rotate other pairs of channels: then their order is not all the same."""
  if not (getattr(first, rotates) and getattr(second, rotates)):
    return False
  parts = (*first.parts(), *second.parts())
  pairs = {_turned_pairs(e) for e in parts if getattr(e, rotates)}
  return len(pairs) > 1 or None in pairs


def _turned_pairs(enc: Encoding) -> tuple | None:
  """(layout, width) of the channels that an encoding rotates, None where it does not say."""
  layout = getattr(enc, 'layout', None)
  if layout == 'half' or enc.nonlinear_in_queries:  # those of `coca` come out in halves
    return 'half', getattr(enc, 'width', enc.dims.head_dim)
  return (layout, None) if layout else None  # neighbors are neighbors in any width
