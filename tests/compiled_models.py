"""Models as tests call them: compiled as a whole. Op by op, each op is a program of its own."""

import jax

from posenc_jax.model.token_nll import token_nll

STATIC = (
  'window',
  'softcap',
  'chunk',
  'sink_tokens',
  'backend',
  'block_sizes',
  'dtype',
  'max_position_distance',
)
nll = jax.jit(token_nll, static_argnames=STATIC)
logits = jax.jit(lambda m, x, **options: m(x, **options), static_argnames=STATIC)
