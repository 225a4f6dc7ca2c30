"""Any encoding, at random positions in order."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.position_wrapper import Around


class RandomPositions(Around):
  """T tokens stand at T different positions of 0 .. `longest` - 1, drawn uniformly, in order (Ruoss
  et al. 2023).

  One draw a forward for all layers, queries and keys; as released, also for all examples of the
  batch and in evaluation too. There the draw is the same at every call, so that no number depends
  on what stands beside it. With packing each document has a draw of its own. The released relative
  encoding reads its table of sinusoids out of range, where JAX clamps; this one has all distances.
  """

  paper = 'Ruoss et al. 2023, arXiv:2305.16843'
  weights, claims = "its encoding's (`rope`, or any)", 'on algorithmic tasks (its authors)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    over: str | dict = 'rope',
    longest: int | None = None,
    each: str = 'batch',
  ):
    """`over`: a name, or a dict of a name and hyperparameters; `longest`: None: 16 times the
    training length.

    `each`: 'batch' for one draw a batch, 'example' for one an example in training.
    """
    super().__init__(dims, rngs, over)
    self.longest, self.each = 16 * dims.train_length if longest is None else longest, each
    if each not in ('batch', 'example'):
      raise ValueError(f'random_positions: each={each!r} must be one of batch, example')
    if self.longest < dims.train_length:
      raise ValueError(
        f'random_positions: longest={longest} must be at least the training length {dims.train_length}'
      )
    if self.max_length is not None and self.max_length < self.longest:
      raise ValueError(
        f'random_positions: over={over!r} ends at {self.max_length}, before longest={self.longest}'
      )
    self.max_length = self.longest

  def draw(self, positions_BT, batch: int, key):
    if self.each == 'example' and key is not None:
      order_BR = jax.vmap(lambda key: jax.random.permutation(key, self.longest))(
        jax.random.split(key, batch)
      )
      positions_BT = jnp.broadcast_to(positions_BT, (batch, positions_BT.shape[1]))
    else:
      order_BR = jax.random.permutation(jax.random.key(0) if key is None else key, self.longest)[
        None
      ]
    document_BT = jnp.cumsum(positions_BT == 0, axis=1) - 1
    drawn_BT = jnp.take_along_axis(
      jnp.broadcast_to(order_BR, (len(positions_BT), self.longest)), positions_BT, axis=1
    )
    return jnp.sort(document_BT * self.longest + drawn_BT, axis=1) - document_BT * self.longest

  def farthest(self, tokens: int) -> int:
    return self.longest - 1
