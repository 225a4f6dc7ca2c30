"""The backends of `attend` by name, and which of them serves a request."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from posenc_jax import target
from posenc_jax.attention.backends import (
  blockwise,
  cudnn,
  dense,
  diagonals,
  fused,
  ring,
  ring_kernels,
  splash,
  triton,
)
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.errors import nearest


class Backend(NamedTuple):
  """One way to compute attention.

  Attributes:
    refuse: refuse(request) is the reason why it cannot serve a request, or None.
    run: run(request) is o_BTHK, or with it the log-sum-exp where the request wants that.
  """

  refuse: Callable
  run: Callable


def _interpreted(run: Callable) -> Callable:
  """Kernels in Pallas' interpreter, on any platform: to check them, not to be fast."""
  return functools.partial(run, interpret=True)


# The ways to compute attention, by the names that `attend` takes as `backend`.
BACKENDS = {
  'dense': Backend(dense.refuse, dense.run),
  'blockwise': Backend(blockwise.refuse, blockwise.run),
  'diagonals': Backend(diagonals.refuse, diagonals.run),
  'cudnn': Backend(cudnn.refuse, cudnn.run),
  'splash': Backend(splash.refuse, splash.run),
  'fused': Backend(fused.refuse, fused.run),
  'fused_interpret': Backend(fused.refuse_interpreted, _interpreted(fused.run)),
  'ring': Backend(ring.refuse, ring.run),
  'ring_interpret': Backend(ring.refuse_interpreted, _interpreted(ring_kernels.run)),
  'triton': Backend(triton.refuse, triton.run),
  'triton_interpret': Backend(triton.refuse_interpreted, _interpreted(triton.run)),
}

# Keys up to which `auto` takes dense, by platform. Measured on a CPU, it is up to 1.1 times as fast
# there, and blockwise is faster above; so it is on a TPU by the compiler's estimate. On a GPU tiles
# are hundreds of kernels one after another, by diagonals too, and dense is a dozen. Other platforms
# are as a CPU.
DENSE_UP_TO = {'cpu': 512, 'gpu': 1024}
# Numbers of pairs up to which it takes dense, on one device, by platform: each layer keeps those of
# all pairs for the backward pass, 256 MiB a layer. Others take it where all queries come at once.
MOST_IN_DENSE = {'gpu': 2**26}
# Queries up to which `auto` takes dense whatever the keys, as in decoding: rows of tiles would be
# this short, and tables by distance be spread once for each of their corners.
FEW_QUERIES = 16


def check_backend(backend: str, field: str = 'backend') -> None:
  """Raises ValueError, naming the nearest, for what is neither a key of BACKENDS nor 'auto'."""
  if backend != 'auto' and backend not in BACKENDS:
    raise ValueError(f'{field}={backend!r}; {nearest(backend, ["auto", *BACKENDS])}')


class Refused(NotImplementedError):
  """A backend that was named does not serve a request."""


def resolve_backend(request: AttentionRequest, backend: str) -> str:
  """The backend that serves a request: the one that is named, or for 'auto' the fastest.

  Raises `Refused` where the named one refuses, with its reason.
  """
  if backend == 'auto':
    return auto_backend(request)
  if (reason := BACKENDS[backend].refuse(request)) is not None:
    raise Refused(f'backend {backend}: {reason}')
  return backend


def auto_backend(request: AttentionRequest) -> str:
  """The backend that `auto` takes, expected to be the fastest of those that take the request."""
  # On a mesh that cuts sequences, every other backend would gather them on every device.
  if ring.refuse(request) is None and target.sequence_shards() > 1:
    return 'ring'
  # `triton` has never run on a GPU, and has to be asked for until it has.
  for name in ('cudnn', 'splash', 'fused'):
    if BACKENDS[name].refuse(request) is None:
      return name
  if blockwise.refuse(request) is not None or request.q_BTHK.shape[1] <= FEW_QUERIES:
    return 'dense'
  # Dense looks every pair up: on a CPU 1.3 to 2.2 times as slow at any length.
  looks_up = request.distances_by_index and request.enc.has_vector_tables
  if looks_up and request.platform != 'gpu':
    return 'blockwise'
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  most_keys = DENSE_UP_TO.get(request.platform, DENSE_UP_TO['cpu'])
  most_numbers = MOST_IN_DENSE.get(request.platform, dense.MOST_AT_ONCE)
  if most_keys >= S and request.max_elements_per_pair * T * S <= most_numbers:
    return 'dense'
  if request.platform == 'gpu' and diagonals.refuse(request) is None:
    return 'diagonals' if diagonals.is_expected_faster(request) else 'blockwise'
  return 'blockwise'
