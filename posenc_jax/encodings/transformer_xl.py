"""Relative sinusoids with global content and position biases."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_unread
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.xla_ops import add_rounded_once

EPSILON = 1e-8  # beside densities of Enformer's features


class TransformerXL(Encoding):
  """s_ij = [(q_i + u) . k_j + (q_i + v) . W_R R_(i-j)] / sqrt(K), R the sinusoid.

  Dai et al. 2019, section 3.3. u and v stand in the place of a whole projected query (no W_q on
  them) and are shared by all layers; W_R is each layer's. u is added to the queries, so that one
  product has both content terms; `score` exchanges it for v. (Declared as relative keys and a bias
  by distance, (v - u) . W_R R, attention takes 1.07 of the time.) As in the released code, R is
  [sin | cos] and u, v start from N(0, 0.02^2); W_R is a projection and starts at fan-in scale like
  every other.

  With `features` R is what Enformer has of a distance r = i - j (Avsec et al. 2021, for DNA): n =
  features/6 functions of |r| of each of three kinds, and all of them again times sign(r).

    2^(-|r|/h)          half-lives h from 8 to L, evenly in log2; with L < 8 they fall
    1 where |r| < w     w = 2^m - 1, m = 1 .. n
    g(|r|) / max g      densities of gamma distributions with means from L/n to L, evenly, and
                        standard deviation L/(2 n), plus 1e-8; the largest of all, up to L - 1

  There u and v are added behind the factor 1/sqrt(K), so that they are those here divided by
  sqrt(K), and each layer has its own (`model.share_encoding='none'`); r is j - i. Under a causal
  mask the half with signs repeats the other one, but at r = 0, where it is 0.
  """

  paper = 'Dai et al. 2019, arXiv:1901.02860; Avsec et al. 2021, doi.org/10.1038/s41592-021-01252-x'
  parameter_summary = 'a projection a layer, two biases'
  bias_in_scale = True
  applies_scale = True
  needs_unscaled_queries = True
  reads_qk = True
  reads_own_queries = True
  per_layer = ('w_r',)
  parameters_depend_on = ('features',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_distance: int | None = None,
    features: int | None = None,
    length: int | None = None,
  ):
    """Draws the projection and the biases.

    Args:
      max_distance: greater distances count as this one (clamp_len in the released code); None:
        they do not.
      features: how many numbers of a distance W_R reads, Enformer's, which has 192; None: D, the
        sinusoid.
      length: L of these features; None: the training length.
    """
    super().__init__(dims, rngs)
    check_at_least(1, max_distance=max_distance)
    self.max_distance = self.max_relative_distance = max_distance
    self.features, self.length = features, length
    read = dims.model_dim
    if features is None:
      check_unread('there are `features`', length=length)
    else:
      if features < 6 or features % 6:
        raise ValueError(f'features={features}; allowed: multiples of 6')
      check_at_least(2, length=length)
      read, self.length = features, length or dims.train_length
      check_at_least(2, train_length=self.length)
    self.w_r = normal(rngs, (read, dims.heads, dims.head_dim), read**-0.5)
    self.u = normal(rngs, (dims.heads, dims.head_dim), 0.02)
    self.v = normal(rngs, (dims.heads, dims.head_dim), 0.02)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return add_rounded_once(q_BTHK, self.u[...][None, None]), k_BSGK

  def tables(self, r_R):
    if self.max_distance is not None:
      r_R = jnp.clip(r_R, -self.max_distance, self.max_distance)
    if self.features is None:
      features_RF = sinusoid(r_R, self.dims.model_dim, layout='half')
    else:
      features_RF = enformer_features(r_R, self.features, self.length)
    return jnp.einsum('rf,fhk->rhk', features_RF, self.w_r[...]) * self.scale(self.dims.head_dim)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    v_minus_u_HK = self.v[...] - self.u[...]
    with_v_BHTK = add_rounded_once(q_BHTK, v_minus_u_HK[None, :, None])
    return s_BHTS + tile.query_dot(with_v_BHTK, tile.tables)


def enformer_features(r_R, features: int, length: int):
  """The functions of distances that `TransformerXL` has with `features`: float32 [R, features]."""
  n, r_R1 = features // 6, jnp.abs(r_R).astype(jnp.float32)[:, None]
  half_lives_1N = jnp.asarray(2.0 ** np.linspace(3, np.log2(length), n), jnp.float32)[None]
  m_N = np.arange(1, n + 1)
  # Distances are below 2^31: wider windows have them all.
  widths_1N = jnp.asarray(2.0 ** np.minimum(m_N, 32) - 1, jnp.float32)[None]
  gamma_RN = _gamma_densities(jnp, r_R1, n, length)
  # The largest at whole distances stands beside a mode, which is the mean - variance / mean.
  mode_N = length / n * (m_N - 1 / (4 * m_N))
  beside_2N = np.clip(np.floor(mode_N) + np.arange(2)[:, None], 1, length - 1)
  largest = _gamma_densities(np, beside_2N, n, length).max()
  of_size_RN = [
    jnp.exp2(-r_R1 / half_lives_1N),
    (r_R1 < widths_1N).astype(jnp.float32),
    (gamma_RN + EPSILON) / float(largest + EPSILON),
  ]
  of_size_RF = jnp.concatenate(of_size_RN, axis=1)
  sign_R1 = jnp.sign(r_R).astype(jnp.float32)[:, None]
  return jnp.concatenate([of_size_RF, sign_R1 * of_size_RF], axis=1)


def _gamma_densities(np_or_jnp, r_R1, n: int, length: int):
  """At distances, those of all or of each, [R, 1 or n], by NumPy or JAX: [R, n] in their dtype."""
  means_N = np.linspace(length / n, length, n)
  shapes_N = (means_N * 2 * n / length) ** 2
  # The logarithm of a density is (shape - 1) log(1 + z) - shape z + c, z = r / mean - 1: no large
  # numbers cancel.
  c_N = [shape * (math.log(shape) - 1) - math.lgamma(shape) for shape in shapes_N]
  mean, shape, c = (
    np_or_jnp.asarray(x_N, r_R1.dtype)[None] for x_N in (means_N, shapes_N, c_N - np.log(means_N))
  )
  z_RN = (r_R1 - mean) / mean
  return np_or_jnp.exp((shape - 1) * np_or_jnp.log1p(z_RN) - shape * z_RN + c)
