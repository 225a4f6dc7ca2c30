"""Rotary position embedding.

`rotate_at`, `rotate` and `turn_pairs` compute it, for other encodings, too.
"""

import jax.numpy as jnp
import numpy as np

from posenc_jax import target
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_one_of
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.rope_types import OF_CALLS, read_scaling
from posenc_jax.xla_ops import exact_matmul, outer

LAYOUTS = ('half', 'interleaved')


def check_rotary(width: int, base: float, layout: str | None = None) -> None:
  """Raises ValueError for hyperparameters that no rotary encoding takes. `layout`: None where
  `ByAngles` has checked it.
  """
  if width % 2:
    raise ValueError(f'head_dim={width}; allowed: even numbers')
  check_above(1, base=base)
  check_one_of(LAYOUTS, layout=layout)


def rotate(x_BTHK, angles, layout: str, factor: float = 1.0):
  """Rotates the pairs of the first 2 M channels of x by angles in radians, [B|1, T, M] or
  [B|1, T, G, M]; the other channels stay as they are.

  The efficient form of Su et al. 2021, eq. 34, times `factor`. See `turn_pairs`.
  """
  cos, sin = (wave(angles) for wave in (jnp.cos, jnp.sin))
  if angles.ndim == 3:
    cos, sin = cos[:, :, None], sin[:, :, None]
  return turn_pairs(x_BTHK, factor * cos, factor * sin, layout)


def turn_pairs(x_BTHK, cos_BTGM, sin_BTGM, layout: str):
  """(x_a cos - x_b sin, x_b cos + x_a sin) for every pair (a, b) of the first 2 M channels of x;
  the others stay as they are.

  Cosines and sines are [B|1, T, G, M], where H / G heads in succession share a set; float32 inside
  and x's dtype outside. 'half': pairs (m, m + M), as GPT-NeoX and Llama; 'interleaved': pairs
  (2m, 2m + 1), as the paper and GPT-J. The two are one permutation of channels apart.
  """
  width, K = 2 * cos_BTGM.shape[-1], x_BTHK.shape[-1]
  if width > K:
    raise ValueError(f'{width // 2} angles for {K} channels; allowed: at most {K // 2}')
  first, rest = x_BTHK[..., :width].astype(jnp.float32), x_BTHK[..., width:]
  turn = _turn_by_products if target.platform() == 'tpu' else _turn_in_parts
  turned = turn(first, cos_BTGM, sin_BTGM, layout).astype(x_BTHK.dtype)
  return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def _turn_in_parts(x_BTHK, cos_BTGK, sin_BTGK, layout: str):
  cos, sin = (_of_heads(wave, x_BTHK.shape[2]) for wave in (cos_BTGK, sin_BTGK))
  first, second = split_pairs(x_BTHK, layout)
  return join_pairs(first * cos - second * sin, second * cos + first * sin, layout)


def _turn_by_products(x_BTHK, cos_BTGK, sin_BTGK, layout: str):
  """The same numbers: products with 0, 1 and -1 are exact.

  By them a TPU moves channels in a fraction of the time that it takes to cut pairs apart and to
  join them.
  """
  H, K = x_BTHK.shape[2:]
  pair = np.arange(K // 2)
  first, second = (2 * pair, 2 * pair + 1) if layout == 'interleaved' else (pair, pair + K // 2)
  to_both_MK, to_other_KK = np.zeros((K // 2, K), np.float32), np.zeros((K, K), np.float32)
  to_both_MK[pair, first] = to_both_MK[pair, second] = to_other_KK[first, second] = 1
  to_other_KK[second, first] = -1
  cos, sin = (_of_heads(exact_matmul(w, to_both_MK), H) for w in (cos_BTGK, sin_BTGK))
  return x_BTHK * cos + exact_matmul(x_BTHK, to_other_KK) * sin


def _of_heads(wave_BTGM, heads: int):
  """What heads that share a set have each: [B|1, T, H|1, M]."""
  sets = wave_BTGM.shape[2]
  return jnp.repeat(wave_BTGM, heads // sets, axis=2) if sets > 1 else wave_BTGM


def split_pairs(x_BTHK, layout: str):
  """The first and the second channels of all pairs of x: [B, T, H, K/2] each.

  `layout`: 'half' or 'interleaved'.
  """
  if layout == 'interleaved':
    return x_BTHK[..., ::2], x_BTHK[..., 1::2]
  return jnp.split(x_BTHK, 2, axis=-1)


def join_pairs(first_BTHM, second_BTHM, layout: str):
  """The channels [B, T, H, 2 M] of which `split_pairs` makes these two."""
  both = first_BTHM, second_BTHM
  if layout == 'interleaved':
    return jnp.stack(both, axis=-1).reshape(*first_BTHM.shape[:-1], -1)
  return jnp.concatenate(both, axis=-1)


def rotate_at(x_BTHK, position_BT, frequencies, layout: str, factor: float = 1.0):
  """`rotate` by position, [B|1, T] or [B|1, T, G], times frequency, [M] in radians a position."""
  angles_BTK = outer(position_BT, jnp.asarray(frequencies, jnp.float32))
  return rotate(x_BTHK, angles_BTK, layout, factor)


class Rotary(Encoding):
  """The hyperparameters and frequencies of encodings that rotate pairs of the first channels of
  each head by position * frequency.
  """

  limit = 'angles are float32: with all positions a million further, outputs move by some 0.01'
  position_kind = 'floats'
  takes_positions_per_head = True

  def __init__(
    self, dims: Dims, rngs, *, base: float = 10_000.0, layout: str = 'half', fraction: float = 1.0
  ):
    """Keeps the hyperparameters.

    Args:
      base: frequencies are base^(-2m/K) radians a token, K the number of channels that rotate; so
        wavelengths go from 2 pi to 2 pi base^(1 - 2/K) tokens.
      layout: which channels make a pair; 'half': (m, m + K/2), as in Llama, 'interleaved':
        (2m, 2m + 1), as in the paper.
      fraction: the share of channels that rotate.
    """
    super().__init__(dims, rngs)
    self.width = round(fraction * dims.head_dim) if 0 < fraction <= 1 else 0
    if self.width % 2 or self.width == 0:
      allowed = 'an even number of channels, from 2 to head_dim'
      raise ValueError(f'fraction={fraction} of head_dim={dims.head_dim}; allowed: {allowed}')
    check_rotary(self.width, base, layout)
    self.base, self.layout, self.fraction = base, layout, fraction

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [width / 2], fastest first; before scaling."""
    return rope_frequencies(self.width, self.base)


class ScaledRotary(Rotary):
  """A rotary encoding whose frequencies may be scaled."""

  def __init__(self, dims: Dims, rngs, *, scaling: dict | None = None, **rotary):
    """`scaling`: a dict with `rope_type` and the fields of that type; None: none."""
    super().__init__(dims, rngs, **rotary)
    self.scaling = read_scaling(scaling, self.width, self.base, self.fraction, dims.train_length)
    if self.scaling is not None and self.scaling.rope_type in OF_CALLS:
      self.reads_window_alone = False

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    """The frequencies of a call of `length` keys, and the factor of rotated channels."""
    if self.scaling is None:
      return self.frequencies(), 1.0
    return self.scaling(self.width, self.base, length)


class ByAngles(Encoding):
  """An encoding whose coordinates are angles: pairs of channels of q and k rotate by them.

  With `turn_values` those of values rotate, too, and outputs back by the angles of the queries:
  o_i = R(-a_i) sum_j p_ij R(a_j) v_j (arXiv:2606.24975, accumulated rotation of values).
  """

  rotates_qk = True

  def __init__(self, dims: Dims, rngs, *, layout: str = 'half', turn_values: bool = False):
    """`layout`: as for `rope`. `turn_values`: values are rotated, too, and outputs turned back."""
    super().__init__(dims, rngs)
    check_one_of(LAYOUTS, layout=layout)
    self.layout, self.rotates_values = layout, turn_values
    self.switched_off = () if turn_values else ('transform_values', 'transform_output')

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles in radians: float32 [B|1, S, G|1, K/2].

    As for `Encoding.coordinates`: x_BSD has the dtype of activations, and is to be float32 before
    it is added to position_ids, int32 or float32.
    """
    raise NotImplementedError

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    if 2 * i.shape[-1] != K:
      problem = f'{type(self).__name__}: coordinates has {i.shape[-1]} angles'
      raise ValueError(f'{problem}; allowed: {K // 2}, one for each pair of channels')
    return rotate(q_BTHK, i, self.layout), rotate(k_BSGK, j, self.layout)

  def transform_values(self, v_BSGK, j):
    if self.rotates_values and v_BSGK.shape[-1] != self.dims.head_dim:
      problem = f'{type(self).__name__}: v has {v_BSGK.shape[-1]} channels'
      raise ValueError(f'{problem}; allowed: {self.dims.head_dim}, for all of them rotate')
    return rotate(v_BSGK, j, self.layout) if self.rotates_values else v_BSGK

  def transform_output(self, o_BTHK, i, x_BTD):
    return rotate(o_BTHK, -i, self.layout) if self.rotates_values else o_BTHK


class RoPE(ScaledRotary):
  """Pair m of channels of q and k rotates by position * base^(-2m/K): q . k depends on i - j.

  Su et al. 2021, eqs. 14, 15 and 34. `fraction` < 1 rotates only the first fraction * K channels,
  the whole spectrum squeezed into them (GPT-J, GPT-NeoX). `scaling` extends the context, in
  training or of a trained run: a dict in the form of Hugging Face's `rope_scaling`,
  --config.encoding.scaling.rope_type=yarn --config.encoding.scaling.factor=4 (see
  core/scaling/rope_types.py). Types that depend on the length take the number of keys of the call:
  T last queries of S keys see what they see among S queries, and all keys rotate by the frequencies
  of this call, none by those of a shorter one before.

  Angles are float32, which is coarse far out: with every position shifted by 10^4, 10^5 and 10^6,
  outputs over tokens of unit variance move by up to 4e-4, 2e-3 and 1e-2 (heads of 64 channels).
  """

  paper = 'Su et al. 2021, arXiv:2104.09864'
  reported_extrapolation = (
    'best at L + 100 to 800 (Press et al. 2021); 32 L by YaRN, fine-tuned (Peng et al. 2023)'
  )
  rotates_qk = True
  reads_window_alone = True

  def turn(self, x_BTHK, position_BT, length: int):
    """x, rotated as at these positions of a call of `length` keys."""
    frequencies, factor = self.spectrum(length)
    if len(frequencies) != self.width // 2:
      problem = f'{type(self).__name__}: spectrum has {len(frequencies)} frequencies'
      raise ValueError(f'{problem}; allowed: {self.width // 2}, one for each pair that rotates')
    return rotate_at(x_BTHK, position_BT, frequencies, self.layout, factor)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    S = k_BSGK.shape[1]
    return self.turn(q_BTHK, i, S), self.turn(k_BSGK, j, S)
