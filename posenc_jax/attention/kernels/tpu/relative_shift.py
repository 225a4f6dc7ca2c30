"""The shift along diagonals inside a kernel, as rotations of rows.

Element (t, s) of a tile of T' queries and S' keys reads place T' - 1 - t + s of the T' + S' numbers
of its row: what depends on distance, the farthest first. A TPU rotates rows by an amount that
grows from row to row at once, where a reshape, as `xla_ops.relative_shift` has it, would move each
number to another register. It has no rotation by an amount that falls; so the adjoint rotates rows
within a register by 1, 2 and 4 where they need it, and then each register by what is left. T' is a
power of 2.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

SUBLANES = 8  # rows of a register


def _rotate(x, by: int):
  """x with its last axis rotated to the right."""
  width = x.shape[-1]
  return pltpu.roll(x, by % width, x.ndim - 1) if by % width else x


def _relative_shift(x_TR, columns: int):
  axis = x_TR.ndim - 1
  shifted = pltpu.roll(x_TR, columns + 1, axis, stride=1, stride_axis=axis - 1)
  return shifted[..., :columns]


def _relative_shift_transpose(x_TS):
  *lead, rows, _ = x_TS.shape
  x = jnp.concatenate([x_TS, jnp.zeros((*lead, rows, rows), x_TS.dtype)], axis=-1)
  left = rows - 1 - lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 2)
  group = min(rows, SUBLANES)
  step = 1
  while step < group:
    x = jnp.where(left & step != 0, _rotate(x, step), x)
    step *= 2
  groups = [
    _rotate(x[..., first : first + group, :], rows - group - first)
    for first in range(0, rows, group)
  ]
  return jnp.concatenate(groups, axis=-2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relative_shift(x_TR, columns: int):
  """out[..., t, s] = x[..., t, T' - 1 - t + s]: [..., T', T' + S'] to [..., T', S']."""
  return _relative_shift(x_TR, columns)


@jax.custom_vjp
def relative_shift_transpose(x_TS):
  """The adjoint of `relative_shift`: [..., T', T' + S'] with x at its places, zeros elsewhere."""
  return _relative_shift_transpose(x_TS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(x_R, rows: int):
  """out[..., t, s] = x[..., T' - 1 - t + s]: [..., T' + S'] to [..., T', S']."""
  *lead, size = x_R.shape
  return _relative_shift(jnp.broadcast_to(x_R[..., None, :], (*lead, rows, size)), size - rows)


def _sum_of_diagonals(x_TS):
  """The adjoint of `spread`. By halves: a row that is T'/2 further up is rotated by T'/2 more."""
  *lead, rows, _ = x_TS.shape
  x = jnp.concatenate([x_TS, jnp.zeros((*lead, rows, rows), x_TS.dtype)], axis=-1)
  while rows > 1:
    rows //= 2
    x = _rotate(x[..., :rows, :], rows) + x[..., rows:, :]
  return x[..., 0, :]


relative_shift.defvjp(
  lambda x, columns: (_relative_shift(x, columns), None),
  lambda columns, _, d: (relative_shift_transpose(d),),
)
relative_shift_transpose.defvjp(
  lambda x: (_relative_shift_transpose(x), None),
  lambda _, d: (_relative_shift(d, d.shape[-1] - d.shape[-2]),),
)
spread.defvjp(lambda x, rows: (spread(x, rows), None), lambda rows, _, d: (_sum_of_diagonals(d),))
