"""Position encodings for transformers under one attention interface, trained and evaluated past the
training length.

`from posenc_jax import attend, make` is all that a model of your own needs, `score` evaluates any
model, and `load_run` gives that of a run. These names are imported when they are first used, so
that `import posenc_jax.reporting` imports no jax.
"""

import importlib
import typing

__version__ = '0.1.0'

_MODULES = {
  'BACKENDS': 'posenc_jax.attention',
  'Dims': 'posenc_jax.encodings',
  'ENCODINGS': 'posenc_jax.encodings',
  'Encoding': 'posenc_jax.encodings',
  'LengthError': 'posenc_jax.encodings',
  'StackedEncoding': 'posenc_jax.model.layer_sharing',
  'WeightsOnly': 'posenc_jax.encodings.core.weights_only',
  'attend': 'posenc_jax.attention.attend',
  'attention_fn': 'posenc_jax.attention.flax_attention',
  'check_laws': 'posenc_jax.inspection.laws',
  'contiguous_positions': 'posenc_jax.attention.positions',
  'load_run': 'posenc_jax.evaluation.runs',
  'make': 'posenc_jax.encodings',
  'register': 'posenc_jax.encodings',
  'score': 'posenc_jax.evaluation.scoring',
  'heads_of_layer': 'posenc_jax.inspection.attention_weights',
  'scores_of_heads': 'posenc_jax.inspection.attention_weights',
  'weights_of_heads': 'posenc_jax.inspection.attention_weights',
}
__all__ = list(_MODULES)

if typing.TYPE_CHECKING:  # the same names, for those who read types and run nothing
  from posenc_jax.attention import BACKENDS as BACKENDS
  from posenc_jax.attention.attend import attend as attend
  from posenc_jax.attention.flax_attention import attention_fn as attention_fn
  from posenc_jax.attention.positions import contiguous_positions as contiguous_positions
  from posenc_jax.encodings import ENCODINGS as ENCODINGS
  from posenc_jax.encodings import Dims as Dims
  from posenc_jax.encodings import Encoding as Encoding
  from posenc_jax.encodings import LengthError as LengthError
  from posenc_jax.encodings import make as make
  from posenc_jax.encodings import register as register
  from posenc_jax.encodings.core.weights_only import WeightsOnly as WeightsOnly
  from posenc_jax.evaluation.runs import load_run as load_run
  from posenc_jax.evaluation.scoring import score as score
  from posenc_jax.inspection.attention_weights import heads_of_layer as heads_of_layer
  from posenc_jax.inspection.attention_weights import scores_of_heads as scores_of_heads
  from posenc_jax.inspection.attention_weights import weights_of_heads as weights_of_heads
  from posenc_jax.inspection.laws import check_laws as check_laws
  from posenc_jax.model.layer_sharing import StackedEncoding as StackedEncoding
else:  # hidden from type checkers, to whom every name would exist, a misspelt one too

  def __getattr__(name: str):
    if name not in _MODULES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
      return getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
      if error.name is None or error.name.partition('.')[0] == __name__:
        raise
      problem = f'posenc_jax.{name} needs {error.name}: install posenc_jax without --no-deps'
      # No AttributeError: `from posenc_jax import name` would drop its message.
      raise ModuleNotFoundError(problem, name=error.name) from error


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
