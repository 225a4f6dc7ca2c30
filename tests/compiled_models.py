"""Models as tests call them: compiled as a whole. Op by op, each op is a program of its own."""

from collections.abc import Callable

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


def unrolls(monkeypatch, function: Callable, *arguments) -> set[int]:
  """How many layers a loop over them has in each round; the function is traced here first."""
  found, scan = set(), jax.lax.scan

  def recorded(*of, **options):
    if 'unroll' in options:  # loops over other things do not say it
      found.add(options['unroll'])
    return scan(*of, **options)

  with monkeypatch.context() as patch:
    patch.setattr(jax.lax, 'scan', recorded)
    jax.eval_shape(function, *arguments)
  return found
