"""Rotary position embedding on values, rotated back on outputs."""

import jax.numpy as jnp

from posenc_jax.encodings.rope import Rotary, rotate_at


class VORoPE(Rotary):
  """o_i = R(-i) sum_j p_ij R(j) v_j = sum_j p_ij R(j - i) v_j: what is read says where it stood.

  R(t) rotates pair m of channels by t base^(-2m/K), as `rope` does, and scores are left alone: to
  be chained with what acts on them, ('rope', 'vo_rope'). DeepSeek-V4 has both by rotating one
  vector that is key and value, here `model.shared_kv`; there the last `fraction` of the channels
  rotates, here the first, which is a permutation of channels apart. DeepSeek-V4's layout is
  'interleaved'.
  """

  paper = 'DeepSeek-V4, in Hugging Face transformers'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.04'
  rotates_values = True

  def transform_values(self, v_BSGK, j):
    if v_BSGK.shape[-1] < self.width:
      raise ValueError(f'v has {v_BSGK.shape[-1]} channels, but {self.width} of each head rotate')
    return self._turn(v_BSGK, j)

  def transform_output(self, o_BTHK, i, x_BTD):
    return self._turn(o_BTHK, -i)

  def _turn(self, x_BTHK, position_BT):
    turned = x_BTHK[..., : self.width]
    turned = rotate_at(turned, position_BT, self.frequencies(), self.layout)
    return jnp.concatenate([turned, x_BTHK[..., self.width :]], axis=-1)
