"""A scale for models without positions."""

import math

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.parameters import clipped
from posenc_jax.encodings.core.temperature import Temperature


class NoPEScale(Temperature):
  """s_ij = scale_h q_i . k_j / sqrt(K), for models without positions past their training length.

  Wang et al. 2024. One number (UniformScale), applied to a model trained with `nope` at evaluation:
  in training it would only make logits larger at the start. Or, `learned`, one a head a layer, kept
  at 1 and above (HeadScale): the paper trains these alone, in a trained model, for 200 steps; here
  they train with all the rest.
  """

  paper = 'Wang et al. 2024, arXiv:2404.12224'
  parameter_summary = 'none, or a number a head a layer'
  position_kind = None
  per_layer = ('scales',)

  def __init__(self, dims: Dims, rngs, *, scale: float = 1.2, learned: bool = False):
    """`scale`: the factor, or where factors start; the best depends on the length. `learned`:
    whether each head learns one.
    """
    super().__init__(dims, rngs)
    if scale <= 0 or (learned and scale < 1):
      least = 'at least 1, as learned factors are kept' if learned else 'greater than 0'
      raise ValueError(f'scale={scale}; allowed: {least}')
    self.constant, self.learned = scale, learned
    if learned:
      self.scales = nnx.Param(jnp.full(dims.heads, scale, jnp.float32))

  def factor(self, i):
    if self.learned:
      return self.scales[...][None, None]
    return jnp.full((1, 1, 1), self.constant, jnp.float32)

  def constrain_parameters(self):
    return clipped(super().constrain_parameters(), scales=(1.0, math.inf))
