"""Rotary position embedding on values, rotated back on outputs."""

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.scaling.rope_types import check_of_all_calls
from posenc_jax.encodings.rope import ScaledRotary, rotate_at


class VORoPE(ScaledRotary):
  """o_i = R(-i) sum_j p_ij R(j) v_j = sum_j p_ij R(j - i) v_j: each value is rotated by j - i.

  R(t) rotates pair m of channels by t base^(-2m/K), as `rope` does. Scores do not change, so it is
  chained with an encoding that acts on them: ('rope', 'vo_rope'). Harik and Jayasiri rotate values
  so beside keys (RoPER); Su 2025 names it VO-RoPE. In DeepSeek-V4 one vector is both key and value
  (`model.shared_kv`), and rotating it does both. There the last `fraction` of the channels rotates,
  here the first, which differs by a permutation of channels; the layout of DeepSeek-V4 is
  'interleaved'.

  Without `back` o_i = sum_j p_ij R(j) v_j, as `rotary_value` of RoFormer makes it in Hugging Face
  transformers and in axlearn: outputs depend on absolute positions. It is the control that shows
  what turning back is worth.

  `scaling` is as for `rope`, without its attention factor, which is of scores. Laid over a chain
  with `rope`, it and the other hyperparameters are set in both members.
  """

  paper = 'Harik and Jayasiri, research.labml.ai/RoPER.html; Su 2025, kexue.fm/archives/10862'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.04'
  rotates_values = True

  def __init__(self, dims: Dims, rngs, *, back: bool = True, scaling: dict | None = None, **rotary):
    """Keeps the hyperparameters.

    Args:
      back: outputs turn back by the positions of queries.
      scaling: as for `rope`, of the types that do not depend on the number of keys; None: none.
    """
    super().__init__(dims, rngs, scaling=scaling, **rotary)
    check_of_all_calls(self.scaling)
    self.relative, self.limit = back, type(self).limit if back else None
    self.switched_off = () if back else ('transform_output',)

  def transform_values(self, v_BSGK, j):
    if v_BSGK.shape[-1] < self.width:
      problem = f'{type(self).__name__}: v has {v_BSGK.shape[-1]} channels'
      raise ValueError(f'{problem}, but {self.width} of each head rotate')
    return self._turn(v_BSGK, j)

  def transform_output(self, o_BTHK, i, x_BTD):
    return self._turn(o_BTHK, -i) if self.has('transform_output') else o_BTHK

  def _turn(self, x_BTHK, position_BT):
    frequencies, _ = self.spectrum(self.dims.train_length)  # of a call of any length
    return rotate_at(x_BTHK, position_BT, frequencies, self.layout)
