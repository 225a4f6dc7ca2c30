"""Parameters that a training starts from: those of the run that `train.init_from` names."""

import contextlib
import fnmatch
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import flat, saved_config, to_json
from posenc_jax.distributed import processes
from posenc_jax.encodings import ENCODINGS, hyperparameters
from posenc_jax.encodings.core.composite import read_members
from posenc_jax.errors import UserError, shown
from posenc_jax.model.layer_pattern import encoding_names, read_pattern
from posenc_jax.training.built_in import built_in_values
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.provenance import kept_code, kept_values
from posenc_jax.training.run_dir import STARTS_FROM, check_finished, finished_config
from posenc_jax.training.taken_parameters import Parameters, parameters_in

# Fields of a model's sections that change no number but for rounding.
NO_NUMBER = ('model.remat', 'model.unroll', 'attention.backend', 'attention.block_sizes')


def taken_from(workdir: str | Path) -> str:
  """The way out where a config has another model or tokens than the run that it starts from."""
  fields = 'model, attention, encoding, data.tokenizer and data.vocab'
  return f'take {fields} from saved_config({str(workdir)!r}), as configs/swap.py does'


def check_lora(config: ConfigDict) -> None:
  """Raises `UserError` where LoRA would add nothing from the first step to the last: its B begins
  as zeros and does not train. One that the run has from the run that it starts from may stay.
  """
  c, rank = config.train, config.model.lora_rank
  if not (rank and c.steps):
    return
  taken = ()
  if c.init_from:
    if not storage.exists(Path(c.init_from) / 'config.json'):
      return  # a sweep makes it before this run begins, or it is gone since
    taken = saved_config(c.init_from, 'model.lora_matrices').model.lora_matrices
  for name in config.model.lora_matrices:
    path = f'layers/lora/{name}/b'
    trains = any(fnmatch.fnmatchcase(path, pattern) for pattern in c.trained_parameters)
    if not (trains or name in taken):
      problem = f'{c.trained_parameters}: {path} begins as zeros and would not train'
      allowed = f"'layers/lora/*' besides, with model.lora_rank={rank}"
      raise UserError(f'config.train.trained_parameters={problem}; allowed: {allowed}')


def finished_parameters(workdir: str | Path, model, config: ConfigDict, draw: Callable):
  """The model of `config` with the final parameters of the run in `workdir`, or with those of the
  step that `config` names. The config of that run may differ: a line says in which fields that make
  another model, and whether an encoding of one's own was edited since.

  Parameters that only one of them has, as with another encoding or another flag of the model, are
  as `draw` makes them, or dropped; a line says which. So are those of an encoding in the place
  of another that has the same names and shapes, or of one in which a hyperparameter differs that
  `parameters_depend_on` names. An encoding that moves, as into a chain, a pattern of layers or
  another encoding, keeps its own where it is the only one of its name before and after.

  Args:
    model: what has the shapes and shardings of its parameters.
    draw: paths -> {path: new parameter} of these; called where the model has some that the run has
      not.
  Raises:
    UserError: no training has ended there, or the model has other sizes.
  """
  saved_run, held = _start(workdir, config)
  leaves = leaves_by_path(model)
  paths, lines = _paths(workdir, held.leaves, saved_run, leaves, config)
  print(*lines, sep='\n', end='\n' * bool(lines))
  if new := leaves.keys() - paths.keys():
    model = jax.tree.unflatten(jax.tree.structure(model), (leaves | draw(new)).values())
  return filled(model, {path: held.leaves[there] for path, there in paths.items()})


def filled(model, arrays: dict[str, np.ndarray]):
  """The model with these parameters, {path: array on the host}, in the place of its own."""
  leaves = leaves_by_path(model)
  shardings = {path: leaves[path].sharding for path in arrays}
  put = processes.device_put_global(arrays, shardings)
  return jax.tree.unflatten(jax.tree.structure(model), (leaves | put).values())


def moved(leaves: dict, before: ConfigDict, here: ConfigDict) -> dict:
  """{path: parameter} of a run as a model has them that has another encoding around or beside those
  of the run, as in a chain: each with the encoding that holds it, where that is the only one of its
  name before and here. As they are, where two would come to one place.

  Args:
    leaves: those of the run.
    before, here: sections `encoding`, of the run and of the model.
  """
  parts_before, parts_here = _parts(before), _parts(here)
  found = {_place(path, parts_before, parts_here): leaf for path, leaf in leaves.items()}
  return found if len(found) == len(leaves) else leaves


def all_taken(
  workdir: str | Path, shapes, config: ConfigDict
) -> tuple[Parameters, dict[str, str]] | None:
  """(parameters of the run in `workdir`, as shapes; {path in the model: path there}) where a model
  of these shapes, which is of `config`, takes all of its own from there; else None, and nothing is
  said.

  Lines say what differs as those of `finished_parameters`, and it raises as that does.
  """
  saved_run, held = _start(workdir, config, as_shapes=True)
  leaves = leaves_by_path(shapes)
  paths, lines = _paths(workdir, held.leaves, saved_run, leaves, config)
  if leaves.keys() - paths.keys():
    return None
  print(*lines, sep='\n', end='\n' * bool(lines))
  return held, paths


def _start(
  workdir: str | Path, config: ConfigDict, as_shapes: bool = False
) -> tuple[ConfigDict, Parameters]:
  """(config of the run in `workdir`, the parameters that a run of `config` starts from)."""
  at = config.train.init_step
  saved_run = finished_config(workdir, at)
  held = parameters_in(workdir, as_shapes, at or None)
  if not at:
    check_finished(workdir, saved_run, held and held.step)  # the last one may be damaged
  return saved_run, held


def _paths(
  workdir: str | Path, there: dict, saved_run: ConfigDict, leaves: dict, config: ConfigDict
) -> tuple[dict[str, str], list[str]]:
  """({path of a parameter of a model: its path in the run in `workdir`} of all that it takes from
  there, lines that say what differs).

  Args:
    there: {path: what has the shape of a parameter} of the run, of which `saved_run` is the config.
    leaves: likewise of the model, of which `config` is the config.
  Raises:
    UserError: the model has other sizes.
  """
  here, before = map(_of_model, (config, saved_run))
  code_here, code_before = user_code_hashes(config), kept_code(workdir)
  # None of an encoding of one's own whose name is posenc_jax's now
  named = [name for name in code_before if name in encoding_names(config.encoding)]
  here |= {f'code of {name}': (code_here.get(name) or '')[:8] or None for name in named}
  before |= {f'code of {name}': code_before[name][:8] for name in named}
  values_before = kept_values(workdir)
  of_both = built_in_values(config).items() if values_before else ()
  here |= {name: value for name, value in of_both if name in values_before}
  before |= values_before
  lines = []
  differing = [key for key in here if here[key] != before.get(key) and key not in NO_NUMBER]
  if differing:
    said = [f'{key}={shown(before.get(key))} (here {shown(here[key])})' for key in differing]
    lines.append(f'{workdir} has {", ".join(said)}')
  parts_before, parts_here = _parts(saved_run.encoding), _parts(config.encoding)
  kind_before = {path: parts_before.get(_holder(path, parts_before)) for path in there}
  kind_here = {path: parts_here.get(_holder(path, parts_here)) for path in leaves}
  places = {path: _place(path, parts_before, parts_here) for path in there}
  # where two come to one place, the one whose encoding stands there
  is_known = lambda path: kind_before[path] == kind_here.get(places[path])
  saved = {places[path]: path for path in sorted(there, key=is_known)}
  kept = {
    path
    for path in leaves.keys() & saved.keys()
    if leaves[path].shape == there[saved[path]].shape
    and kind_before[saved[path]] == kind_here[path]
  }
  for path in sorted((leaves.keys() & saved.keys()) - kept):
    if not path.startswith('encodings/'):
      held = f'it holds {path} of shape {there[saved[path]].shape}'
      raise UserError(
        f'{STARTS_FROM}={str(workdir)!r}: {held}, but the config asks for '
        f'{leaves[path].shape}; allowed: a model of the same sizes: {taken_from(workdir)}'
      )
  if new := sorted(leaves.keys() - kept):
    lines.append(f'{workdir} has no {", ".join(new)}: as a new model has them')
  if gone := sorted(there.keys() - {saved[path] for path in kept}):
    lines.append(f'{workdir} has {", ".join(gone)}: dropped')
  return {path: saved[path] for path in leaves if path in kept}, lines


def _of_model(config: ConfigDict) -> dict[str, object]:
  """{field: value} of what makes a model, with its encoding as one field.

  The training length is what lengths of an encoding that are left out are.
  """
  tree = to_json(config)
  fields = flat({'model': tree['model'], 'attention': tree['attention']})
  return fields | {'train.length': config.train.length, 'encoding': tree['encoding']}


def _parts(encoding: ConfigDict) -> dict[str, tuple]:
  """{path: kind} of all encodings that a model has, such as that of a chain's member at
  encodings/variants/0/encoding/members/1.

  A kind is a name and the values of the hyperparameters that its parameters depend on.
  """
  variants = read_pattern(to_json(encoding))[0]
  walked = (_walk(f'encodings/variants/{n}/encoding', spec) for n, spec in enumerate(variants))
  return dict(itertools.chain.from_iterable(walked))


def _walk(path: str, spec: dict) -> Iterator[tuple[str, tuple]]:
  """(path, kind) of an encoding and of those that it holds."""
  name, held, read = spec['name'], spec, ()
  if name in ENCODINGS:
    held, read = hyperparameters(name) | spec, ENCODINGS[name].parameters_depend_on
  # as JSON: a default may be a tuple, which a config that says it has as a list
  yield path, (name, *(to_json({'': held.get(hyperparameter)})[''] for hyperparameter in read))
  parts = {}
  with contextlib.suppress(TypeError, ValueError):  # of an encoding of one's own, other things
    parts = {f'members/{n}': part for n, part in enumerate(read_members(held.get('members')))}
  if 'inner' in held:
    inner = held['inner']
    parts['inner'] = {'name': inner} if isinstance(inner, str) else inner
  for step, part in parts.items():
    if isinstance(part, dict) and isinstance(part.get('name'), str):
      yield from _walk(f'{path}/{step}', part)


def _holder(path: str, parts: dict[str, tuple]) -> str | None:
  """The path of the encoding that holds a parameter; None: none does."""
  return max((part for part in parts if path.startswith(f'{part}/')), key=len, default=None)


def _place(path: str, before: dict[str, tuple], here: dict[str, tuple]) -> str:
  """Where a parameter of a run stands in a model: with the encoding that holds it, where both have
  one of that kind alone, else in the same place.
  """
  holder = _holder(path, before)
  kind = before.get(holder)
  if holder is None or here.get(holder) == kind:
    return path
  places = [part for part in here if here[part] == kind]
  if len(places) != 1 or [*before.values()].count(kind) != 1:
    return path
  return places[0] + path.removeprefix(holder)
