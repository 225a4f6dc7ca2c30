"""The numbers of the classic figures: the sinusoid, RoPE's long-term decay, T5's buckets.

They are read off the encodings themselves.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings import make
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.encodings.t5 import buckets_of


def wavelengths(width: int, base: float) -> np.ndarray:
  """Tokens a turn of every pair of channels of a sinusoid: [width / 2]."""
  return 2 * np.pi * base ** (2 * np.arange(width // 2) / width)


def sinusoid_products(distances_R, width: int, base: float) -> np.ndarray:
  """P[t + r] . P[t] over its value at r = 0: the mean of cos(r f) over frequencies f."""
  first = 100
  rows_RD = sinusoid(first + np.asarray(distances_R), width, base=base)
  row_D = sinusoid(np.asarray(first), width, base=base)
  return np.asarray(rows_RD @ row_D) / (width / 2)


def rope_decay(distances_R, width: int) -> tuple[np.ndarray, np.ndarray]:
  """RoFormer's bound, mean over m = 1 .. K/2 of |S_m|, S_m = sum_(l < m) e^(i r f_l), and the
  expected score q . R k.

  Both are over the score of a query with itself, for q = k of unit variance. The bound is that of
  Abel summation for q = k = 1, where the largest step of the products is 2; the expectation is the
  mean of cos(r f).
  """
  sizes = dict(model_dim=width, heads=1, head_dim=width, train_length=1)
  enc = make('rope', **sizes, rngs=nnx.Rngs(0))
  sums = np.cumsum(np.exp(1j * np.multiply.outer(distances_R, enc.frequencies())), axis=-1)
  ones = jnp.ones((1, len(distances_R), 1, width))
  i, j = jnp.asarray(distances_R, jnp.float32)[None], jnp.zeros((1, len(distances_R)))
  q, k = enc.transform_qk(ones, ones, i, j)
  return np.abs(sums).mean(axis=-1), np.asarray((q * k).mean(axis=-1)[0, :, 0])


def t5_buckets(distances_R, **hyper) -> np.ndarray:
  """The bucket of every distance i - j, as T5 has it."""
  enc = make('t5', model_dim=1, heads=1, head_dim=1, train_length=1, rngs=nnx.Rngs(0), **hyper)
  row = buckets_of(jnp.asarray(distances_R), enc.side, enc.max_distance, enc.bidirectional)
  return np.asarray(row)
