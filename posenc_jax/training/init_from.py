"""Parameters that a training starts from: those of the run that `train.init_from` names."""

import itertools
from pathlib import Path

import jax
from ml_collections import ConfigDict

from posenc_jax.config import flat, to_json
from posenc_jax.distributed import processes
from posenc_jax.encodings import ENCODINGS, hyperparameters
from posenc_jax.encodings.core.composite import read_members
from posenc_jax.errors import UserError, shown
from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.own_encodings import own_code
from posenc_jax.training.provenance import kept_code
from posenc_jax.training.run_dir import STARTS_FROM, check_finished, finished_config

# Fields of a model's sections that change no number but for rounding.
NO_NUMBER = ('model.remat', 'model.unroll', 'attention.backend', 'attention.block_sizes')


def taken_from(workdir: str | Path) -> str:
  """The way out where a config has another model or tokens than the run that it starts from."""
  fields = 'model, attention, encoding, data.tokenizer and data.vocab'
  return f'take {fields} from saved_config({str(workdir)!r}), as configs/swap.py does'


def finished_parameters(workdir: str | Path, model, config: ConfigDict):
  """`model`, which is of `config`, with the final parameters of the run in `workdir`, whose config
  may differ: a line says in which fields that make another model, and whether an encoding of one's
  own was edited since.

  Parameters that only one of them has, as with another encoding or another flag of the model, are
  left as `model` has them, or dropped; a line says which. So are those of an encoding in the place
  of another that has the same names and shapes. An encoding that becomes a member of a chain keeps
  its own. Raises `UserError` where no training has ended there, or the model has other sizes.
  """
  saved_run = finished_config(workdir)
  with Checkpoints(workdir) as checkpoints:
    saved, step = checkpoints.restore_as_saved('model')
  check_finished(workdir, saved_run, step)  # the last one may be damaged
  here, there = map(_of_model, (config, saved_run))
  code_here, code_there = own_code(config), kept_code(workdir)
  here |= {f'code of {name}': code_here[name][:8] for name in code_here if name in code_there}
  there |= {f'code of {name}': code_there[name][:8] for name in code_there}
  differing = [key for key in here if here[key] != there.get(key) and key not in NO_NUMBER]
  if differing:
    said = [f'{key}={shown(there.get(key))} (here {shown(here[key])})' for key in differing]
    print(f'{workdir} has {", ".join(said)}')
  of_before = {path: _encoding_of(path, saved_run.encoding) for path in saved}
  saved, of_before = (
    _as_member(leaves, saved_run.encoding, config.encoding) for leaves in (saved, of_before)
  )
  leaves = leaves_by_path(model)
  kept = {
    path
    for path in leaves.keys() & saved.keys()
    if leaves[path].shape == saved[path].shape
    and of_before[path] == _encoding_of(path, config.encoding)
  }
  for path in sorted((leaves.keys() & saved.keys()) - kept):
    if not path.startswith('encodings/'):
      held = f'it holds {path} of shape {saved[path].shape}'
      raise UserError(
        f'{STARTS_FROM}={str(workdir)!r}: {held}, but the config asks for '
        f'{leaves[path].shape}; allowed: a model of the same sizes: {taken_from(workdir)}'
      )
  if new := sorted(leaves.keys() - kept):
    print(f'{workdir} has no {", ".join(new)}: as a new model has them')
  if gone := sorted(saved.keys() - kept):
    print(f'{workdir} has {", ".join(gone)}: dropped')
  shardings = {path: leaves[path].sharding for path in kept}
  restored = processes.device_put_global({path: saved[path] for path in kept}, shardings)
  return jax.tree.unflatten(jax.tree.structure(model), (leaves | restored).values())


def _of_model(config: ConfigDict) -> dict[str, object]:
  """{field: value} of what makes a model, with its encoding as one field.

  The training length is what lengths of an encoding that are left out are.
  """
  tree = to_json(config)
  fields = flat({'model': tree['model'], 'attention': tree['attention']})
  return fields | {'train.length': config.train.length, 'encoding': tree['encoding']}


def _encoding_of(path: str, encoding: ConfigDict) -> str | None:
  """The name of the encoding that holds a parameter of a model, such as that of a chain's member at
  encodings/variants/0/encoding/members/1/w; None: no encoding does.
  """
  steps = path.split('/')
  if steps[0] != 'encodings':
    return None
  spec = read_pattern(to_json(encoding))[0][int(steps[2])]
  for step, number in itertools.pairwise(steps[4:]):
    defaults = hyperparameters(spec['name']) if spec['name'] in ENCODINGS else {}
    held = (defaults | spec).get(step)
    if step == 'members' and held is not None:
      spec = read_members(held)[int(number)]
    elif step == 'inner' and isinstance(held, str | dict):
      spec = {'name': held} if isinstance(held, str) else held
  return spec['name']


def _as_member(saved: dict, there: ConfigDict, here: ConfigDict) -> dict:
  """The parameters of a run, with those of its encoding where the chain `here` has them, if one of
  its members is of the same name.
  """
  members = read_members(here.members) if here.name == 'chain' and 'members' in here else []
  names = [member['name'] for member in members]
  if names.count(there.name) != 1:
    return saved
  own, member = '/encoding/', f'/encoding/members/{names.index(there.name)}/'
  return {path.replace(own, member): leaf for path, leaf in saved.items()}
