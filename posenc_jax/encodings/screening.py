"""Keys that are let through by thresholds, within windows that heads learn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import MASKED, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.lssa import unit
from posenc_jax.encodings.relu import LEAST
from posenc_jax.encodings.rope import rotate


class Screening(Encoding):
  """o_i = t(sum_j p_ij v_j), p_ij = max(1 - (1 - q_i . k_j) / r_h, 0)^2 m_h(i - j), not normalized.

    m_h(d) = (1 + cos(pi d / w_h)) / 2 for 0 <= d < w_h, else 0;   t(o) = tanh(|o|) o / |o|

  Screening with MiPE, of Multiscreen, Nakanishi 2026, version 3 of the paper. q, k and v have unit
  length, and q . k is not divided by sqrt(K). A key less alike than 1 - r has no weight, whatever
  the others have, and a query may let none through. The first two channels of q and k rotate by
  pi gamma / w radians a token, gamma = (1 + cos(pi w / threshold)) / 2 for w < threshold, else 0.
  w = e^a + 1 with a number a for each key/value head, and r = sigmoid(b) with one for each head;
  every layer has its own. b starts at 0, and a evenly spaced from 0 to log(threshold), at the
  latter where all heads share one. Version 1 has 1 / r = e^b + 1, which is b with the opposite
  sign. `score` returns logarithms of weights. Multiscreen's gates and scales of outputs, and that
  it has no MLPs, are parts of a model, and not here.

  There is no code of the author's. The formula was read in two implementations of others, one of
  which quotes version 3. That windows open at inference was read in a description of the paper.
  """

  paper = 'Nakanishi 2026, arXiv:2604.01178'
  parameter_summary = 'two numbers a head a layer'
  reported_extrapolation = 'perplexity stable past L (its author)'
  limit = 'angles are float32: a million positions out, what rotates is off by some 0.08'
  causal_only = True
  rotates_qk = True
  needs_unscaled_queries = True
  applies_scale = True  # there is none: what attention will divide by is multiplied in before
  nonlinear_in_queries = True
  normalizer = 'none'
  per_layer = ('a', 'b')

  def __init__(self, dims: Dims, rngs, *, threshold: float = 256.0, open_windows: bool = False):
    """Sets the windows and thresholds.

    Args:
      threshold: tokens; heads with windows of so many and more do not rotate.
      open_windows: m is 1 at all distances in heads whose window is longer than the training
        length, to be set at evaluation.
    """
    super().__init__(dims, rngs)
    check_at_least(2, head_dim=dims.head_dim)
    check_above(1, threshold=threshold)
    self.threshold, self.open_windows = threshold, open_windows
    self.layout, self.width = 'half', 2  # what chains ask of those that rotate
    starts = np.linspace(0, math.log(threshold), max(dims.kv_heads, 2), dtype=np.float32)
    self.a = nnx.Param(jnp.asarray(starts[-dims.kv_heads :]))
    self.b = nnx.Param(jnp.zeros(dims.heads, jnp.float32))

  def windows(self):
    """w: float32 [G]."""
    return jnp.exp(self.a[...]) + 1

  def turn(self, x_BTHK, position_BT):
    """x of unit length, its first channels rotated."""
    w_G = self.windows()
    gamma_G = (1 + jnp.cos(math.pi * jnp.minimum(w_G / self.threshold, 1.0))) / 2
    angles_BTG = position_BT[..., None] * (math.pi * gamma_G / w_G)[None, None]
    return rotate(unit(x_BTHK, self.dims.head_dim), angles_BTG[..., None], 'half')

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    q = math.sqrt(self.dims.head_dim) * self.turn(q_BTHK, i)
    return q.astype(q_BTHK.dtype), self.turn(k_BSGK, j).astype(k_BSGK.dtype)

  def of_pairs(self, coordinates):
    """None: positions have gone into queries and keys."""
    return

  def transform_values(self, v_BSGK, j):
    return unit(v_BSGK, v_BSGK.shape[-1]).astype(v_BSGK.dtype)

  def tables(self, r_R):
    """m: float32 [R, H]."""
    w_H = jnp.repeat(self.windows(), self.dims.heads // self.dims.kv_heads)
    share_RH = r_R.astype(jnp.float32)[:, None] / w_H[None]
    m_RH = (1 + jnp.cos(math.pi * jnp.minimum(share_RH, 1.0))) / 2
    m_RH = jnp.where(r_R[:, None] >= 0, m_RH, 0.0)
    if self.open_windows:
      m_RH = jnp.where((w_H > self.dims.train_length)[None] & (r_R >= 0)[:, None], 1.0, m_RH)
    return m_RH

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    r_1H11 = jax.nn.sigmoid(self.b[...])[None, :, None, None]
    p_BHTS = jnp.maximum(1 - (1 - s_BHTS) / r_1H11, 0.0) ** 2 * tile.tables
    is_let_through = p_BHTS > LEAST
    return jnp.where(is_let_through, jnp.log(jnp.where(is_let_through, p_BHTS, 1.0)), MASKED)

  def transform_output(self, o_BTHK, i, x_BTD):
    o_BTHK = o_BTHK.astype(jnp.float32)
    square_BTH1 = (o_BTHK * o_BTHK).sum(axis=-1, keepdims=True)
    length_BTH1 = jnp.sqrt(jnp.where(square_BTH1 > LEAST, square_BTH1, 1.0))
    return o_BTHK * jnp.where(square_BTH1 > LEAST, jnp.tanh(length_BTH1) / length_BTH1, 1.0)
