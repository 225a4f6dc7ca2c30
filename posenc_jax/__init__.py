"""Position encodings for transformers under one attention interface, trained and evaluated past the
training length.

`from posenc_jax import attend, make` is all that a model of your own needs, `score` evaluates any
model, and `load_run` gives that of a run. These names are imported when they are first used, so
that `import posenc_jax.reporting` imports no jax.
"""

import importlib

_MODULES = {
  'ENCODINGS': 'posenc_jax.encodings',
  'Encoding': 'posenc_jax.encodings',
  'attend': 'posenc_jax.attention',
  'load_run': 'posenc_jax.evaluation.runs',
  'make': 'posenc_jax.encodings',
  'register': 'posenc_jax.encodings',
  'score': 'posenc_jax.evaluation.scoring',
}
__all__ = list(_MODULES)


def __getattr__(name: str):
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
