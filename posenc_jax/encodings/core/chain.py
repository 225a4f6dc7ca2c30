"""Several encodings, one after another."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax import encodings
from posenc_jax.encodings.core.base import PLACES, Dims, Encoding

# take q . k again: scores given to them are lost
FRESH = ('path', 'xpos', 'rerope', 'leaky_rerope', 'self_extend')
# turn queries and keys by their positions
TURNING = ('rope', 'p_rope', 'pope', 'selective_rope', *FRESH[1:])
# rows meet queries in `score`
READING = ('cope', 'deberta', 'music_transformer', 'path', 'shaw', 'transformer_xl')
# make queries and keys wider than heads are
WIDENING = ('pope', 'tupe', 'rerope', 'leaky_rerope', 'self_extend')


class Chain(Encoding):
  """The encodings `members` act one after another: on the input, then queries and keys, then
  scores; values add up.

  A member sees scores as those before it left them, and queries and keys as all have turned them:
    with `rope`, rows of
  `cope` or `shaw` meet turned queries, which depend on absolute positions. `bias_in_scale`: 'mixed'
  if members differ.
  """

  weights, claims = "its members' (`rope`, then `fox`, or any)", None

  def __init__(self, dims: Dims, rngs, *, members: tuple | str = ('rope', 'fox')):
    """`members`: names, or dicts of a name and hyperparameters, ({'name': 'rope', 'base': 5e5},
    'fox'); 'rope,fox'.
    """
    super().__init__(dims, rngs)
    names, each = encodings.make_members(members, dims, rngs)
    scales = [n for n, e in enumerate(each) if e.scale(dims.head_dim) != dims.head_dim**-0.5]
    normalizers = [n for n, e in enumerate(each) if e.normalizer != 'softmax']
    for what, own in (('scale', scales), ('normalizer', normalizers)):
      if len(own) > 1:
        raise ValueError(
          f'chain: {" and ".join(names[n] for n in own)} each have a {what} of their own: one may'
        )
    self.scoring = tuple(n for n, e in enumerate(each) if e.score is not None)
    if late := [
      names[n] for n in self.scoring if names[n] in FRESH and (scales or n > self.scoring[0])
    ]:
      raise ValueError(
        f'chain: {late[0]} takes q . k anew: it must act on scores first, and none set the scale'
      )
    for n in [n for n, name in enumerate(names) if name in WIDENING]:
      if lost := {*names[:n], *names[n + 1 :]} & {*READING, *FRESH} | {*names[n + 1 :]} & {
        *TURNING,
        *WIDENING,
      }:
        raise ValueError(
          f'chain: {min(lost)} takes queries as wide as heads are, but {names[n]} makes them wider'
        )
    self.members, self.scales = nnx.List(each), scales[0] if scales else 0
    self.normalizer = each[normalizers[0]].normalizer if normalizers else 'softmax'
    self.paper = '; '.join(dict.fromkeys(e.paper for e in each if e.paper))
    self.relative = all(e.relative for e in each) and not (
      set(names) & set(TURNING) and set(names) & set(READING)
    )
    self.causal_only = any(e.causal_only for e in each)
    self.max_length = min((e.max_length for e in each if e.max_length is not None), default=None)
    ends = [
      e.reach
      for e in each
      if jax.tree.leaves(jax.eval_shape(e.tables, jax.ShapeDtypeStruct((1,), jnp.int32)))
    ]
    self.reach = None if None in ends else max(ends, default=None)
    kinds = {e.bias_in_scale for e in each} - {None}
    self.bias_in_scale = 'mixed' if len(kinds) > 1 else next(iter(kinds), None)
    self.per_layer = tuple(
      f'members.{n}.{name}' for n, e in enumerate(each) for name in e.per_layer
    )

  def places(self):
    return tuple(place for place in PLACES if any(place in e.places() for e in self.members))

  def embed(self, x_BTD, positions_BT):
    for e in self.members:
      x_BTD = e.embed(x_BTD, positions_BT)
    return x_BTD

  def locate(self, x_BSD, positions_BS):
    return tuple(e.locate(x_BSD, positions_BS) for e in self.members)

  def transform(self, q_BTHK, k_BSGK, i, j):
    for n, e in enumerate(self.members):
      q_BTHK, k_BSGK = e.transform(q_BTHK, k_BSGK, i[n], j[n])
    return q_BTHK, k_BSGK

  def scale(self, head_dim):
    return self.members[self.scales].scale(head_dim)

  def tables(self, r_R):
    return tuple(e.tables(r_R) for e in self.members)

  def project(self):
    own = jax.tree.map(lambda x: x, self)
    own.members = nnx.List([e.project() for e in self.members])
    return own

  query_scale = property(lambda self: math.prod(e.query_scale for e in self.members))
  # What the engine asks for: a hook, or None where no member has it.
  score = property(lambda self: self._score if self.scoring else None)
  value = property(
    lambda self: self._value if any(e.value is not None for e in self.members) else None
  )
  spent = property(
    lambda self: self._spent if any(self.members[n].spent for n in self.scoring[-1:]) else None
  )

  # suffix sums are one list for all, in the order in which they are asked for
  def _part(self, block, n: int):
    return dataclasses.replace(block, i=block.i[n], j=block.j[n], tables=block.tables[n])

  def _score(self, s_BHTS, q_BTHK, k_BSHK, block):
    for n in self.scoring:
      s_BHTS = self.members[n].score(s_BHTS, q_BTHK, k_BSHK, self._part(block, n))
    return s_BHTS

  def _value(self, p_BHTS, block):
    return sum(
      e.value(p_BHTS, self._part(block, n))
      for n, e in enumerate(self.members)
      if e.value is not None
    )

  # of the last score, which asks for one sum: another after it could give weight again
  def _spent(self, sums):
    return self.members[self.scoring[-1]].spent(sums[-1:])
