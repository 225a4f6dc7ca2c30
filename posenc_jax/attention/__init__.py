"""The one door to attention: every encoding through every backend."""

import difflib

from posenc_jax.attention.backends import blockwise, cudnn, dense, ring
from posenc_jax.attention.request import prepare

__all__ = ['BACKENDS', 'attend', 'check_backend']

# Each is a module with refuse(call) -> reason | None and run(call) -> o_BTHK.
BACKENDS = {'dense': dense, 'blockwise': blockwise, 'cudnn': cudnn, 'ring': ring}

# keys: measured on a CPU, dense is up to 1.1 times as fast there, and blockwise above
DENSE_UP_TO = 512


def attend(
  q_BTHK,
  k_BSGK,
  v_BSGK,
  enc,
  x=None,
  positions=None,
  causal=True,
  window=None,
  segments=None,
  backend='auto',
  block=None,
  *,
  max_distance=None,
):
  """Attention under a position encoding: o [B, T, H, K] in the dtype of v.

  The queries are the last T of the S keys (T = 1 decodes); x, positions and segments are given for
  all S keys.

  Args:
    q_BTHK, k_BSGK, v_BSGK: H is a multiple of G.
    enc: an encoding of `posenc_jax.encodings`.
    x: the layer's normalized input [B, S, D], for encodings that read content.
    positions: int [B|1, S]; None: 0, 1, 2, ... within each segment.
    causal: whether keys to the right are hidden.
    window: how many tokens a query sees, itself included, counted by index (on either side if not
      causal); None: all.
    segments: int [B|1, S]; queries see keys of their own segment only (packing).
    backend: a key of BACKENDS, or 'auto' for the fastest that accepts.
    block: (query rows, key columns) of a block of `blockwise` and `ring`; None: their choice.
      Scalar tables take S x key columns numbers where one divides the other, and up to the smaller
      of the two times more where not.
    max_distance: with explicit positions under tracing, the largest |i - j|: the length of
      per-distance tables. A larger distance gives NaN.

  Raises:
    NotImplementedError: the named backend refuses, with its reason.
    ValueError: an argument is out of range; LengthError: positions beyond a learned table.
  """
  check_backend(backend)
  call = prepare(
    q_BTHK, k_BSGK, v_BSGK, enc, x, positions, causal, window, segments, block, max_distance
  )
  if backend == 'auto':
    backend = _fastest(call)
  elif (reason := BACKENDS[backend].refuse(call)) is not None:
    raise NotImplementedError(f'backend {backend}: {reason}')
  return BACKENDS[backend].run(call).astype(v_BSGK.dtype)


def check_backend(backend: str) -> None:
  """Raises ValueError, naming the nearest, for what is neither a key of BACKENDS nor 'auto'."""
  if backend != 'auto' and backend not in BACKENDS:
    near = difflib.get_close_matches(str(backend), BACKENDS, cutoff=0.5) or list(BACKENDS)
    raise ValueError(
      f'attention.backend={backend!r} is unknown; nearest: {", ".join(near)} (or auto)'
    )


def _fastest(call) -> str:
  # all others would gather the sequence on every device
  if ring.refuse(call) is None and ring.shares() > 1:
    return 'ring'
  if cudnn.refuse(call) is None:
    return 'cudnn'
  # dense looks every pair up: 1.3 to 2.2 times as slow at any length
  if call.contiguous and call.has_vectors:
    return 'blockwise'
  return 'dense' if call.k_BSGK.shape[1] <= DENSE_UP_TO else 'blockwise'
