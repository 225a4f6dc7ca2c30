"""Position encodings, one file a method; `core/` has the registry and what all of them share."""

from posenc_jax.encodings.core.base import Dims, Encoding, LengthError
from posenc_jax.encodings.core.registry import (
  ENCODINGS,
  check,
  hyperparameters,
  make,
  meanings,
  register,
)

__all__ = [
  'ENCODINGS',
  'Dims',
  'Encoding',
  'LengthError',
  'check',
  'hyperparameters',
  'make',
  'meanings',
  'register',
]
