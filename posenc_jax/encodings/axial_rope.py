"""Rotary position embedding in several dimensions."""

import sys

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import (
  check_at_least,
  check_between,
  check_divides,
  check_one_of,
  check_unread,
)
from posenc_jax.encodings.core.hyperparameters import has_type
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.rope_types import check_of_all_calls, read_scaling
from posenc_jax.encodings.rope import Rotary, rotate
from posenc_jax.errors import shown
from posenc_jax.xla_ops import outer

SPECTRA = ('each', 'split', 'interleaved', 'first_slowest', 'heads')


class AxialRoPE(Rotary):
  """Pair m of channels rotates by coordinate a(m) of a token's `axes` positions times w_m.

  `sections` says how many of the K/2 pairs each coordinate has, `spectrum` which ones:

  - 'each': one section after another. A section of n pairs has frequencies of its own, base^(-m/n)
    for m < n, as in vision transformers (Heo et al. 2024, whose base is 100).
  - 'split': one section after another, w_m = base^(-2m/K) as in `rope`. Where all coordinates of a
    token are equal this is `rope`. M-RoPE of Qwen2-VL (Wang et al. 2024): time, row and column.
  - 'interleaved': w_m as in 'split', and a(m) = m mod `axes` for as long as that coordinate lacks
    pairs, else the first coordinate. Qwen3-VL (Bai et al. 2025, arXiv:2511.21631; the order of its
    code).
  - 'first_slowest': w_m as in 'split'. The first coordinate has the slowest pairs; for the faster
    ones a(m) = 1 + m mod (`axes` - 1). VideoRoPE (Wei et al. 2025). The caller gives its positions:
    the time times a factor, and that plus row and plus column, counted from the middle of a frame.
  - 'heads': w_m as in 'split', and one coordinate for all pairs of a head. `sections` counts
    key/value heads, the first ones for the first coordinate; heads beyond them do not rotate.
    Multi-head RoPE (Huang et al. 2025), as in its code.

  Without positions, all coordinates of a token are its index. K is the number of channels that
  rotate, the first ones of a head by `fraction`.

  `scaling` is as for `rope`, for images or videos that are larger than those of training: with
  'each' of the section of every axis, or of `scaled_axis` alone, with the others of the one
  spectrum w. Lengths in it are positions along an axis.
  """

  paper = (
    'Heo et al. 2024, arXiv:2403.13298; Wang et al. 2024, arXiv:2409.12191; '
    'Wei et al. 2025, arXiv:2502.05173; Huang et al. 2025, arXiv:2510.23095'
  )
  takes_positions_per_head = False  # its positions are of axes
  rotates_qk = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    axes: int = 2,
    spectrum: str = 'each',
    sections: tuple = (),
    base: float | tuple = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    scaling: dict | None = None,
    scaled_axis: int | None = None,
  ):
    """Keeps the hyperparameters.

    Args:
      axes: how many positions a token has, at least 2.
      spectrum: which frequencies each coordinate has, one of SPECTRA.
      sections: pairs of channels of each coordinate, K/2 together, 0 where no pair rotates by it;
        (): evenly. Qwen2-VL has (16, 24, 24), as VideoRoPE has, Qwen3-VL (24, 20, 20). With
        spectrum='heads' key/value heads of each, at most all together; multi-head RoPE has
        (2, 3, 3).
      base: as for `rope`; with spectrum='each' also a tuple, of one for each coordinate. In
        Cosmos-Predict2 it is 10000 s^(n/(n - 2)) for the n channels of a coordinate, s 1 for time
        and 3 or 4 for rows and columns.
      layout, fraction: as for `rope`.
      scaling: a dict with `rope_type` and the fields of that type, of those that do not depend on
        the number of keys; `original_max_position_embeddings`, where it is read, has to be said.
        None: none.
      scaled_axis: with spectrum='each', the one that is scaled, counted from 0; None: all.
    """
    check_at_least(2, axes=axes)
    check_one_of(SPECTRA, spectrum=spectrum)
    is_each, has_several = spectrum == 'each', isinstance(base, tuple | list)
    is_base = lambda value: has_type(value, float) and 1 < value < sys.float_info.max
    if has_several and not (is_each and len(base) == axes and all(map(is_base, base))):
      allowed = f"a number, or with spectrum='each' {axes} numbers greater than 1"
      raise ValueError(f'base={shown(base)}; allowed: {allowed}')
    bases = tuple(map(float, base)) if has_several else (base,) * axes
    super().__init__(dims, rngs, base=bases[0], layout=layout, fraction=fraction)
    of_heads = spectrum == 'heads'
    parts, words = self.width // 2, 'pairs of channels of a head'
    if of_heads:
      parts, words = dims.kv_heads, 'key/value heads'
    if not sections:
      check_divides(parts, words, axes=axes)
    self.sections = tuple(sections) or (parts // axes,) * axes
    least = 1 if of_heads else 0
    is_whole = len(self.sections) == axes and all(
      type(n) is int and n >= least for n in self.sections
    )
    if not is_whole or sum(self.sections) > parts or (sum(self.sections) < parts and not of_heads):
      together = f'at most {parts}' if of_heads else parts
      allowed = f'{axes} whole numbers of {least} or more, {together} together'
      raise ValueError(f'sections={shown(self.sections)}; allowed: {allowed}')
    self.positions_per_token = axes
    self.order = spectrum
    found = tuple(np.bincount(self.axes_in_order(), minlength=axes).tolist())
    if found != self.sections:  # those that take turns have as many as that leaves them
      allowed = f'such as {found}, which these make with spectrum={spectrum!r}'
      raise ValueError(f'sections={self.sections}; allowed: {allowed}')
    if scaling is None or not is_each:
      check_unread("there is a scaling with spectrum='each'", scaled_axis=scaled_axis)
    check_between(0, axes - 1, scaled_axis=scaled_axis)
    if scaled_axis is not None and not self.sections[scaled_axis]:
      of_sections = f'scaled_axis={scaled_axis} of sections={self.sections}'
      raise ValueError(f'{of_sections}; allowed: one that has pairs of channels')
    # The widths that have a spectrum each, with its base, and what scales it.
    widths = [2 * n for n in self.sections] if is_each else [self.width]
    self.spans = tuple(zip(widths, bases, strict=False))
    is_scaled = lambda n, width: width > 0 and scaled_axis in (None, n)
    self.scalings = tuple(
      read_scaling(scaling if is_scaled(n, span[0]) else None, *span, fraction, None)
      for n, span in enumerate(self.spans)
    )
    for own in self.scalings:
      check_of_all_calls(own)
    if scaled_axis is not None and (factor := self.spectrum(0)[1]) != 1:
      multiplies = f'scaled_axis={scaled_axis} with an attention factor of {factor:.4g}'
      raise ValueError(f'{multiplies}, which multiplies all channels; allowed: 1')

  def axes_in_order(self) -> np.ndarray:
    """The coordinate that each pair of channels rotates by, int [K/2].

    With spectrum='heads' that of each key/value head that rotates.
    """
    axes, m = len(self.sections), np.arange(sum(self.sections))
    if self.order == 'interleaved':
      rounds, axis = np.divmod(m, axes)
      return np.where(rounds < np.take(self.sections, axis), axis, 0)
    if self.order == 'first_slowest':
      return np.where(m < sum(self.sections[1:]), 1 + m % (axes - 1), 0)
    return np.repeat(np.arange(axes), self.sections)

  def frequencies(self) -> np.ndarray:
    """Radians a position of each pair of channels, float64 [K/2]; before scaling."""
    return np.concatenate([rope_frequencies(*span) for span in self.spans])

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    """The frequencies, which are those of calls of any length, and the factor of all channels."""
    frequencies, factor = [], 1.0
    for span, scaling in zip(self.spans, self.scalings, strict=True):
      own = rope_frequencies(*span)
      if scaling is not None:
        own, factor = scaling(*span, length)
      frequencies.append(own)
    return np.concatenate(frequencies), factor

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return self._turn(q_BTHK, i), self._turn(k_BSGK, j)

  def _turn(self, x_BTHK, position_BTn):
    frequencies, factor = self.spectrum(x_BTHK.shape[1])
    frequencies = jnp.asarray(frequencies, jnp.float32)
    if self.order == 'heads':
      still = ((0, 0), (0, 0), (0, self.dims.kv_heads - sum(self.sections)))
      position_BTG = jnp.pad(position_BTn[..., self.axes_in_order()], still)  # at 0 nothing rotates
      angles = outer(position_BTG, frequencies)
    else:
      angles = position_BTn[..., self.axes_in_order()] * frequencies[None, None]
    return rotate(x_BTHK, angles, self.layout, factor)
