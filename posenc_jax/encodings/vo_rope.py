"""Rotary position embedding on values, turned back on outputs."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.rope_scaling import rope_frequencies
from posenc_jax.encodings.rope import check_rotary, rotate_at


class VORoPE(Encoding):
  """o_i = R(-i) sum_j p_ij R(j) v_j = sum_j p_ij R(j - i) v_j: what is read says where it stood.

  R(t) turns pair m of channels by t base^(-2m/K), as `rope` does, and scores are left alone: to be
  chained with what acts on them, ('rope', 'vo_rope'). DeepSeek-V4 has both by turning one vector
  that is key and value, here `model.shared_kv`; there the last `fraction` of the channels turns,
  here the first, which is a permutation of channels apart.
  """

  paper = 'DeepSeek-V4, in Hugging Face transformers'
  parameter_summary = 'none'
  reported_extrapolation = None
  position_kind = 'floats'
  rotates_values = True

  def __init__(
    self, dims: Dims, rngs, *, base: float = 10_000.0, layout: str = 'half', fraction: float = 1.0
  ):
    """Keeps the hyperparameters: as for `rope`; DeepSeek-V4's layout is 'interleaved'."""
    super().__init__(dims, rngs)
    self.width = round(fraction * dims.head_dim)
    if not 0 < fraction <= 1 or self.width % 2 or self.width == 0:
      raise ValueError(
        f'fraction={fraction} of head_dim={dims.head_dim} must be an even number of channels'
      )
    check_rotary(self.width, base, layout)
    self.base, self.layout = base, layout

  def transform_values(self, v_BSGK, j):
    if v_BSGK.shape[-1] < self.width:
      raise ValueError(f'v has {v_BSGK.shape[-1]} channels, but {self.width} of each head turn')
    return self._turn(v_BSGK, j)

  def transform_output(self, o_BTHK, i, x_BTD):
    return self._turn(o_BTHK, -i)

  def _turn(self, x_BTHK, position_BT):
    frequencies = rope_frequencies(self.width, self.base)
    turned = rotate_at(x_BTHK[..., : self.width], position_BT, frequencies, self.layout)
    return jnp.concatenate([turned, x_BTHK[..., self.width :]], axis=-1)
