"""Any encoding, at random positions in order."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class RandomPositions(PositionWrapper):
  """T tokens stand at T different positions of 0 .. `longest` - 1, drawn uniformly, in order.

  Ruoss et al. 2023. One draw a forward for all layers, queries and keys; as released, also for all
  examples of the batch and in evaluation too. There the draw is the same at every call, so that no
  number depends on what stands beside it. With packing each document has a draw of its own. The
  released relative encoding reads its table of sinusoids out of range, where JAX clamps; this one
  has all distances.
  """

  paper = 'Ruoss et al. 2023, arXiv:2305.16843'
  parameter_summary = "its encoding's (`rope`, or any)"
  reported_extrapolation = 'on algorithmic tasks (its authors)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'rope',
    longest: int | None = None,
    each: str = 'batch',
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      longest: positions; None: 16 times the training length.
      each: 'batch' for one draw a batch, 'example' for one an example in training.
    """
    super().__init__(dims, rngs, inner)
    self.longest = 16 * dims.train_length if longest is None else longest
    self.each = each
    if each not in ('batch', 'example'):
      raise ValueError(f'each={each!r} must be one of batch, example')
    self.check_longest(self.longest)
    self.max_length = self.longest

  def sample_positions(self, position_ids, batch: int, key):
    if self.each == 'example' and key is not None:
      keys = jax.random.split(key, batch)
      order_BR = jax.vmap(lambda key: jax.random.permutation(key, self.longest))(keys)
      position_ids = jnp.broadcast_to(position_ids, (batch, position_ids.shape[1]))
    else:
      key = jax.random.key(0) if key is None else key
      order_BR = jax.random.permutation(key, self.longest)[None]
    document_BT = jnp.cumsum(position_ids == 0, axis=1) - 1
    order_BR = jnp.broadcast_to(order_BR, (len(position_ids), self.longest))
    drawn_BT = jnp.take_along_axis(order_BR, position_ids, axis=1)
    # Sorted within each document: documents are kept apart by multiples of `longest`.
    return jnp.sort(document_BT * self.longest + drawn_BT, axis=1) - document_BT * self.longest

  def max_sampled_distance(self, tokens: int) -> int:
    return self.longest - 1
