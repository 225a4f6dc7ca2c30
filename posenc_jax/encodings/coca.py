"""Rotary embedding of queries and keys that point in one direction."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.rope import RoPE, rotate_at, split_pairs


class CoCA(RoPE):
  """s_ij = sum_m |q_im|^2 tau_jm cos((i - j) f_m) / sqrt(K), tau_jm = relu((k_a + k_b) / 2).

  Collinear constrained attention, Zhu et al. 2023, eq. 17, with f_m = base^(-2m/K) of `rope`: the
  key of a pair m = (a, b) of channels is the query times tau, so that RoPE rotates the two apart
  from an angle of 0. This is the paper's strict form. Its released code is the slack one, which
  rotates tau by the position of the key and is not relative; most of the paper's numbers are of
  that one, which is better at finding passkeys. The halves of k are averaged as there. What is
  rotated here is |q_m|^2 and tau, each as the first channel of a pair. With `fraction` the products
  of the other channels are added as without an encoding.
  """

  paper = 'Zhu et al. 2023, arXiv:2309.08646'
  reported_extrapolation = (
    'with dynamic NTK: 20.18 at L, 20.32 at 2 L; RoPE 19.66, 22.30 (its authors)'
  )
  needs_unscaled_queries = True
  nonlinear_in_queries = True

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    S = k_BSGK.shape[1]
    (q_a, q_b), (k_a, k_b) = self._pairs(q_BTHK), self._pairs(k_BSGK)
    q = self._turn_from_zero(q_a**2 + q_b**2, i, S).astype(q_BTHK.dtype)
    k = self._turn_from_zero(jax.nn.relu((k_a + k_b) / 2), j, S).astype(k_BSGK.dtype)
    return tuple(
      jnp.concatenate([turned, x[..., self.width :]], axis=-1)
      for turned, x in ((q, q_BTHK), (k, k_BSGK))
    )

  def _pairs(self, x_BTHK):
    """The first and the second channels of all pairs, float32 [B, T, H, K/2] each."""
    return split_pairs(x_BTHK[..., : self.width].astype(jnp.float32), self.layout)

  def _turn_from_zero(self, size_BTHM, position_BT, length: int):
    """Pairs (size, 0) as at these positions of a call of `length` keys, in halves."""
    frequencies, factor = self.spectrum(length)
    pairs = jnp.concatenate([size_BTHM, jnp.zeros_like(size_BTHM)], axis=-1)
    return rotate_at(pairs, position_BT, frequencies, 'half', factor)
