"""Attention under a position encoding: one function, and backends that serve it."""

from posenc_jax.attention.attend import attend
from posenc_jax.attention.choice import BACKENDS, auto_backend, check_backend, resolve_backend
from posenc_jax.attention.request import CHECKPOINT_NAME

__all__ = [
  'BACKENDS',
  'CHECKPOINT_NAME',
  'attend',
  'auto_backend',
  'check_backend',
  'resolve_backend',
]
