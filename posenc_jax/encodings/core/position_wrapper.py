"""What changes the positions that another encoding sees, and leaves all else to it."""

import dataclasses

import jax

from posenc_jax import encodings
from posenc_jax.encodings.core.base import Dims, Encoding

DECLARED = ('relative', 'bias_in_scale', 'causal_only', 'max_length', 'reach', 'normalizer')


class Around(Encoding):
  """Acts as `over` does, at the positions that a subclass draws."""

  def __init__(self, dims: Dims, rngs, over: str | dict):
    super().__init__(dims, rngs)
    spec = {'name': over} if isinstance(over, str) else dict(over)
    self.over = encodings.make(**spec, **dataclasses.asdict(dims), rngs=rngs)
    if self.over.draw is not None:
      raise ValueError(
        f'{type(self).__name__}: over={over!r} draws positions itself; allowed: what does not'
      )
    for name in DECLARED:
      setattr(self, name, getattr(self.over, name))
    self.per_layer = tuple(f'over.{name}' for name in self.over.per_layer)

  def places(self):
    return self.over.places()

  def embed(self, x_BTD, positions_BT):
    return self.over.embed(x_BTD, positions_BT)

  def locate(self, x_BSD, positions_BS):
    return self.over.locate(x_BSD, positions_BS)

  def transform(self, q_BTHK, k_BSGK, i, j):
    return self.over.transform(q_BTHK, k_BSGK, i, j)

  def scale(self, head_dim):
    return self.over.scale(head_dim)

  def tables(self, r_R):
    return self.over.tables(r_R)

  def project(self):
    own = jax.tree.map(lambda x: x, self)
    own.over = self.over.project()
    return own

  score = property(lambda self: self.over.score)
  value = property(lambda self: self.over.value)
  spent = property(lambda self: self.over.spent)
  query_scale = property(lambda self: self.over.query_scale)
