"""Attention under a position encoding: every encoding through every backend."""

from posenc_jax.attention.attend import attend
from posenc_jax.attention.choice import BACKENDS, Backend, check_backend, chosen, fastest
from posenc_jax.attention.request import OUTPUT

__all__ = ['BACKENDS', 'OUTPUT', 'Backend', 'attend', 'check_backend', 'chosen', 'fastest']
