"""Position encodings, one file a method; `core/` has the registry and what all of them share."""

from posenc_jax.encodings.core.base import Dims, Encoding, LengthError
from posenc_jax.encodings.core.registry import (
  ENCODINGS,
  check,
  hyperparameter_docs,
  hyperparameters,
  make,
  register,
)

__all__ = [
  'ENCODINGS',
  'Dims',
  'Encoding',
  'LengthError',
  'check',
  'hyperparameter_docs',
  'hyperparameters',
  'make',
  'register',
]
