"""What a run takes from posenc_jax without a word in its config: defaults of hyperparameters and
embedded text. It keeps their values (`provenance`), so that a version in which one is another does
not go on with its parameters, or score them, as if they were of that.
"""

from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import data, tasks
from posenc_jax.config import to_json
from posenc_jax.encodings import hyperparameters
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.errors import UserError, shown
from posenc_jax.model.layer_pattern import HOLDERS, encoding_names
from posenc_jax.training.provenance import BUILT_IN_VALUES, kept_code, kept_values


def built_in_values(config: ConfigDict) -> dict[str, object]:
  """{'rope.base': 10000.0} of hyperparameters of posenc_jax's encodings that a config leaves out,
  and {'sotu': SHA-256} of embedded text.
  """
  found = {}
  for spec in _specs(to_json(config.encoding)):
    # a name that is none, such as a list, is refused where the encoding is built
    if isinstance(name := spec.get('name'), str) and name in BUILT_IN:
      left_out = hyperparameters(name).keys() - spec.keys()
      found |= {f'{name}.{key}': to_json(hyperparameters(name)[key]) for key in sorted(left_out)}
  corpus = config.data.corpus
  corpus = data.TEXT_OF_TASKS if tasks.is_set_in_text(corpus) else corpus
  return found | ({corpus: sha256} if (sha256 := data.verified_sha256(corpus)) else {})


def _specs(part: object) -> Iterator[dict]:
  """The section `encoding`, and all within it that name an encoding, as dicts."""
  if isinstance(part, dict):
    yield part
    # as also by default: `dape` holds `alibi`
    name = part.get('name')
    is_known = isinstance(name, str) and name in BUILT_IN
    held = (hyperparameters(name) if is_known else {}) | part
    is_whole = lambda holder: holder == 'name' and ',' not in str(name)
    parts = [held[holder] for holder in HOLDERS if holder in held and not is_whole(holder)]
  elif isinstance(part, str):
    parts = [{'name': name} for name in part.split(',')]
  else:
    parts = part if isinstance(part, list | tuple) else []
  for inner in parts:
    yield from _specs(inner)


def check_built_in(
  workdir: str | Path, config: ConfigDict, field: str = 'workdir', instead: str = 'another workdir'
) -> None:
  """Raises `UserError` where a value that `config` leaves to posenc_jax is not that of when the run
  in `workdir` began, or where an encoding that it names was the user's own then and is posenc_jax's
  now.

  Args:
    field: names the run in the error.
    instead: the way out for those who mean the version of now.
  """
  at = f'{field}={str(workdir)!r}'
  for name in BUILT_IN.keys() & kept_code(workdir) & set(encoding_names(config.encoding)):
    problem = f"encoding {name!r} was your own when its run began, and is posenc_jax's now"
    allowed = 'the version of posenc_jax of then, or its code by another name in another run'
    raise UserError(f'{at}: {problem}; allowed: {allowed}')
  if not (there := kept_values(workdir)):
    return
  for name, value in built_in_values(config).items():
    if there.get(name, value) != value:
      problem = f'{name} was {shown(there[name])} when its run began, and is {shown(value)} now'
      same = f'without {BUILT_IN_VALUES} there, if its numbers are the same'
      allowed = f'the version of posenc_jax of then, {instead}, or {same}'
      raise UserError(f'{at}: {problem}; allowed: {allowed}')
