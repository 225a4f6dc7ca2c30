"""Any encoding, at random positions in order."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.encodings.core.base import Dims, LengthError, is_readable
from posenc_jax.encodings.core.bounds import check_at_least, check_between, check_one_of
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class RandomPositions(PositionWrapper):
  """T tokens stand at T different positions of 0 .. `longest` - 1, drawn uniformly, in order.

  Ruoss et al. 2023. One draw a forward for all layers, queries and keys, all examples of the batch,
  in evaluation too, as released for positions of the input; there RoPE draws anew in every layer,
  and ALiBi and the relative encoding draw distances, the same for all queries. In evaluation the
  draw is the same at every call, so that no number depends on what stands beside it. With packing,
  a document stands where it would alone: those of a row with the same length have the same
  positions. The released relative encoding reads its table of sinusoids out of range, where JAX
  clamps; this one has all distances. Around vectors by distance that do not end (`transformer_xl`)
  time grows with the square of the length times `longest`, for each tile multiplies its queries
  with those of all distances.

  With `shortest`, every draw of training has a range of its own, its end drawn log-uniformly from
  `shortest` to `longest`: a model meets gaps of every size between positions, where one range
  shows it those of about `longest` / T alone, and can be evaluated as its inner encoding, at
  positions in order. Our own form, trained from the start; E2-LLM fine-tunes so, at regular
  positions whose scale is drawn (Liu et al. 2024, arXiv:2401.06951). Evaluation draws from
  `longest`.

  With kind='floats', positions are real: T numbers drawn uniformly from 0 to `longest`, in order,
  whatever T is (random float sampling, Shimizu et al. 2026), and packed documents draw for
  themselves. The inner encoding must take floats.
  """

  paper = 'Ruoss et al. 2023, arXiv:2305.16843; Shimizu et al. 2026, arXiv:2602.14050'
  parameter_summary = "its encoding's (`rope`, or any)"
  reported_extrapolation = 'on algorithmic tasks (its authors)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'rope',
    longest: int | None = None,
    shortest: int | None = None,
    each: str = 'batch',
    kind: str = 'integers',
    eval_seed: int = 0,
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      longest: positions, or the end of their range; None: 16 times the training length.
      shortest: the shortest range that training draws, of integers at least the training length;
        None: `longest`, at every draw. An evaluation with a `longest` below it sets it to None.
      each: 'batch' for one draw a batch, 'example' for one an example in training.
      kind: 'integers' or 'floats'.
      eval_seed: what the draw of evaluation is made from, of all seeds, documents and windows of a
        length. A spread over seeds has no part of it unless `encoding.eval_seed` varies with
        `seed`; runs are evaluated at another draw by --config.encoding.eval_seed of eval.py.
    """
    super().__init__(dims, rngs, inner)
    self.longest = 16 * dims.train_length if longest is None else longest
    self.shortest = shortest
    self.each, self.kind, self.eval_seed = each, kind, eval_seed
    check_one_of(('batch', 'example'), each=each)
    check_one_of(('integers', 'floats'), kind=kind)
    check_at_least(1, longest=self.longest)
    check_between(0, 2**32 - 1, eval_seed=eval_seed)
    if kind == 'integers':
      self.check_longest(self.longest)
      self.max_length = self.longest
    elif self.position_kind == 'integers':
      raise ValueError(f"inner={inner!r} takes integers; allowed: one that takes kind='floats'")
    fewest = dims.train_length if kind == 'integers' else 1
    check_between(fewest, self.longest, shortest=shortest)

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:  # of one kind of generator, whichever is jax's default
      keys = jax.random.key(self.eval_seed, impl='threefry2x32')[None]
    elif self.each == 'example':
      keys = jax.random.split(key, batch)
      position_ids = jnp.broadcast_to(position_ids, (batch, position_ids.shape[1]))
    else:
      keys = key[None]
    is_drawn = self.shortest is not None and key is not None
    T, fewest = position_ids.shape[1], self.shortest if is_drawn else self.longest
    if T and is_readable(position_ids):
      known = np.asarray(position_ids)
      if known.min() < 0 or known.max() >= T:
        problem = f'position_ids go from {known.min()} to {known.max()} for {T} tokens'
        raise ValueError(f'{problem}; allowed: contiguous ones, 0, 1, 2, ... of each document')
    if self.kind == 'integers' and fewest < T:
      problem = f'{T} tokens, which may be one document, for {fewest} positions'
      raise LengthError(f'{type(self).__name__}: {problem}')
    ends_B1 = self._draw_ends(keys) if is_drawn else None
    document_BT = jnp.cumsum(position_ids == 0, axis=1) - 1
    draw = self._draw_floats if self.kind == 'floats' else self._draw_integers
    return draw(document_BT, position_ids, keys, ends_B1)

  def _draw_ends(self, keys):
    """The end of every draw's range, whose logarithm is uniform: int32 [B|1, 1]."""
    low, high = math.log(self.shortest), math.log(self.longest + 1)
    # of other bits than a permutation has, which splits the key in two
    draw = lambda key: jax.random.uniform(jax.random.fold_in(key, 2), minval=low, maxval=high)
    ends_B1 = jnp.exp(jax.vmap(draw)(keys))[:, None].astype(jnp.int32)
    return jnp.clip(ends_B1, self.shortest, self.longest)  # exp may round past them

  def _draw_floats(self, document_BT, position_ids, keys, ends_B1):
    """One number a token, sorted within its document: float32 [B|1, T]."""
    T = position_ids.shape[1]
    drawn_BT = jax.vmap(lambda key: jax.random.uniform(key, (T,)))(keys)
    drawn_BT *= self.longest if ends_B1 is None else ends_B1
    drawn_BT = jnp.broadcast_to(drawn_BT, position_ids.shape)
    return lax.sort((document_BT, drawn_BT), dimension=1, num_keys=2)[1]

  def _draw_integers(self, document_BT, position_ids, keys, ends_B1):
    """So many of a range as a document has tokens, sorted: int32 [B|1, T]."""
    order_BR = jax.vmap(lambda key: jax.random.permutation(key, self.longest))(keys)
    if ends_B1 is not None:  # those of the range come first, in the order they have
      order_BR = lax.sort((order_BR >= ends_B1, order_BR), dimension=1, num_keys=1)[1]
    order_BR = jnp.broadcast_to(order_BR, (position_ids.shape[0], self.longest))
    drawn_BT = jnp.take_along_axis(order_BR, position_ids, axis=1)
    return lax.sort((document_BT, drawn_BT), dimension=1, num_keys=2)[1]

  def max_sampled_distance(self, tokens: int) -> int:
    return self.longest - 1
