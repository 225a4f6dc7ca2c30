"""Draws of initial parameters, and the bounds of trained ones."""

import zlib

import jax
import jax.numpy as jnp
from flax import nnx


def stream(key: jax.Array, name: str) -> nnx.Rngs:
  """The stream of draws of the part `name`, which depends on the key and the name alone.

  What other parts a model has, and how much they draw, does not change it: layers start from the
  same weights whatever the encoding.
  """
  return nnx.Rngs(jax.random.fold_in(key, zlib.crc32(name.encode())))


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
  """A float32 parameter drawn from N(0, std^2)."""
  return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], low: float, high: float) -> nnx.Param:
  """A float32 parameter drawn from U(low, high)."""
  return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, low, high))


def zeros(*shape: int) -> nnx.Param:
  """A float32 parameter of zeros."""
  return nnx.Param(jnp.zeros(shape, jnp.float32))


def clipped(enc: nnx.Module, **bounds: tuple[float, float]) -> nnx.Module:
  """A module of which these parameters lie within (lowest, highest); all others, such as those of a
  subclass, are as they were.
  """

  def clip(path, x):
    name = path[0].name
    return jnp.clip(x, *bounds[name]) if name in bounds else x

  return jax.tree_util.tree_map_with_path(clip, enc)
