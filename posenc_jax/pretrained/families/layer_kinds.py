"""Layers of several kinds in one model: some with a window, the others without."""

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import rope

KINDS = ('sliding_attention', 'full_attention')


def rope_of_kinds(fields: Fields, *bases: float) -> tuple[dict, dict]:
  """The encodings of both kinds of layers, each with parameters of its own; `bases`: the defaults
  of the family, by which transformers rotates, too, where parameters are of no kind of layers.
  """
  parameters = fields.optional('rope_parameters', dict) or None
  if parameters and parameters.keys() != {*KINDS}:
    if any(parameters != {'rope_type': 'default', 'rope_theta': base} for base in bases):
      own = f'{" and ".join(KINDS)}, each with its own'
      defaults = ' and '.join(f'{base:.0f}' for base in bases)
      what = 'transformers (5.24) drops others, and rotates by its default rope_theta'
      raise fields.refused('rope_parameters', f'{own}: {what}, {defaults}')
    parameters = dict.fromkeys(KINDS, parameters)
  local, whole = (
    rope(fields, base, of=kind, parameters=parameters)
    for base, kind in zip(bases, KINDS, strict=True)
  )
  return local, whole


def period_of_windows(fields: Fields, default: int) -> int:
  """Each how many-th layer has no window, by two names of one field."""
  names = ('sliding_window_pattern', '_sliding_window_pattern')
  periods = [fields.optional(name, int, least=1) for name in names]
  return next((period for period in periods if period is not None), default)


def by_kind(fields: Fields, layers: int, local: dict, whole: dict, period: int) -> dict:
  """The encoding of all layers: `local` and a window, or `whole`, which each `period`-th has where
  the file does not say the kind of each.
  """
  local = {**local, 'attention_window': fields.take('sliding_window', 4096, null=False, least=1)}
  kinds = kinds_of_layers(fields, [KINDS[(n + 1) % period == 0] for n in range(layers)])
  return pattern([whole if kind == 'full_attention' else local for kind in kinds])


def kinds_of_layers(fields: Fields, default: list[str]) -> list[str]:
  """The kind of each layer; `default` where the file does not say it."""
  kinds = fields.take('layer_types', default, list)
  if len(kinds) != len(default) or {*kinds} - {*KINDS}:
    raise fields.refused('layer_types', f'{len(default)} of full_attention and sliding_attention')
  return kinds


def pattern(layers: list[dict]) -> dict:
  """The encoding of all layers: one, or the shortest pattern that repeats."""
  for period in range(1, len(layers) + 1):
    if all(layer == layers[n % period] for n, layer in enumerate(layers)):
      break
  if period == 1 and 'attention_window' not in layers[0]:
    return layers[0]
  return {'name': 'pattern', 'layers': tuple(layers[:period])}
