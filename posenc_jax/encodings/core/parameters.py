"""Draws of initial parameters."""

import jax
import jax.numpy as jnp
from flax import nnx


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
  """A float32 parameter drawn from N(0, std^2)."""
  return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], low: float, high: float) -> nnx.Param:
  """A float32 parameter drawn from U(low, high)."""
  return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, low, high))


def zeros(*shape: int) -> nnx.Param:
  """A float32 parameter of zeros."""
  return nnx.Param(jnp.zeros(shape, jnp.float32))
