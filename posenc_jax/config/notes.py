"""What a configuration leaves at values that may not be meant; nothing of it is refused."""

from collections import Counter
from collections.abc import Iterable

from ml_collections import ConfigDict


def notes(config: ConfigDict) -> list[str]:
  """Lines on defaults that do not follow what was changed: lengths that the training length has
  outgrown, widths that the model has.
  """
  model, L, lengths = config.model, config.train.length, config.eval.lengths
  found = []
  if max(lengths) <= L:
    found.append(f'eval.lengths={lengths}: none is past train.length={L}')
  elif L not in lengths:
    found.append(f'eval.lengths={lengths}: train.length={L} itself is not measured')
  channels, width = model.heads * model.head_dim, f'model.model_dim={model.model_dim}'
  if channels != model.model_dim:
    heads = f'model.heads={model.heads} of model.head_dim={model.head_dim}'
    found.append(f'{heads} are {channels} channels, beside {width}')
  if model.mlp_dim < model.model_dim:
    found.append(f'model.mlp_dim={model.mlp_dim}: is less than {width}')
  return found


def notes_of_all(configs: Iterable[ConfigDict]) -> list[str]:
  """The notes of several runs, each once, with how many runs have it if not all do."""
  configs = list(configs)
  counts = Counter(note for config in configs for note in notes(config))
  of_some = lambda number: f' ({number} of {len(configs)} runs)' if number < len(configs) else ''
  return [f'{note}{of_some(number)}' for note, number in counts.items()]
