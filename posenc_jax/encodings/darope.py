"""Rotary embedding whose slow pairs stand at places that tokens choose."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import exact_matmul

EPS = 1e-6  # of L: how near to 0 and L the position comes whose logit is taken


class DaRoPE(ByAngles):
  """RoPE whose pairs of fewer than one turn in L tokens rotate by c f in the place of i f.

  c_ih = L sigmoid(w_h x_i + alpha_h logit((i + 1/2) / L)) is a place from 0 to L that a token
  chooses, one a head, for queries and keys; f < 2 pi / L is the frequency and x the layer's
  normalized input. Levy et al. 2026, eqs. 2 and 4 to 6: data-aware RoPE. The pairs that do turn are
  those of `rope`. Where the others stand still it is `hope`; w = 0 and alpha = 1 make it `rope` up
  to L. Past L the logit stays at that of L (1 - 1e-6), as in the paper's program: no place lies
  beyond L.

  No released code was found. That x is normalized, that there is one c a key/value head where there
  are fewer, which channels make a pair, and that weights are drawn from a normal distribution is
  ours: the paper does not say. Its language models have the base 500,000, and it drew w with the
  same deviation in models of 124 million to a billion parameters.
  """

  paper = 'Levy et al. 2026, arXiv:2609.34556'
  parameter_summary = 'a projection and a number for each head, a layer'
  reported_extrapolation = (
    'perplexity 17.2 to 17.5 at L, 19 at 2 to 4 L, as `hope`; RoPE over 450 (its authors, 1B)'
  )
  limit = 'past L the logit of the position jumps, once, to one that no position within L has'
  needs_inputs = True
  relative = False
  position_kind = 'floats'
  per_layer = ('w', 'alpha')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 500_000.0,
    layout: str = 'half',
    length: int | None = None,
    std: float = 0.1,
  ):
    """Draws w and sets alpha to 0.5.

    Args:
      base: as for `rope`.
      layout: as for `rope`.
      length: L in tokens; None: the training length.
      std: w starts at N(0, std^2).
    """
    super().__init__(dims, rngs, layout=layout)
    check_rotary(dims.head_dim, base)
    self.base = base
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length)
    check_above(0, std=std)
    if self.turns().all():
      allowed = 'such that a pair turns less than once in it'
      raise ValueError(f'base={base} with length={self.length}; allowed: {allowed}')
    self.w = normal(rngs, (dims.model_dim, dims.kv_heads), std)
    self.alpha = nnx.Param(jnp.full(dims.kv_heads, 0.5, jnp.float32))

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [K/2], fastest first."""
    return rope_frequencies(self.dims.head_dim, self.base)

  def turns(self) -> np.ndarray:
    """Which pairs turn once or more in L tokens: bool [K/2]."""
    return self.frequencies() >= 2 * math.pi / self.length

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    position_BSG = position_ids.astype(jnp.float32)[..., None]
    chosen_BSG = exact_matmul(x_BSD.astype(jnp.float32), self.w[...])
    prior_BSG = self.alpha[None, None] * self._logit(position_BSG)
    place_BSG = self.length * jax.nn.sigmoid(chosen_BSG + prior_BSG)
    turns_M = self.turns()[None, None, None]
    at_BSGM = jnp.where(turns_M, position_BSG[..., None], place_BSG[..., None])
    return at_BSGM * jnp.asarray(self.frequencies(), jnp.float32)[None, None, None]

  def _logit(self, position):
    """The logit of (i + 1/2) / L, whose two sides are clipped each for itself: 1 - 1e-6 is no
    float32.
    """
    clip = lambda n: jnp.log(jnp.clip(n, EPS * self.length, (1 - EPS) * self.length))
    return clip(position + 0.5) - clip(self.length - position - 0.5)
