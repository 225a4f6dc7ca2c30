"""Position encodings, one file a paper; `core/` has what they share, the registry among it."""

from posenc_jax.encodings.core.base import Dims, Encoding, LengthError
from posenc_jax.encodings.core.registry import ENCODINGS, check, hyperparameters, make, register

__all__ = [
  'ENCODINGS',
  'Dims',
  'Encoding',
  'LengthError',
  'check',
  'hyperparameters',
  'make',
  'register',
]
