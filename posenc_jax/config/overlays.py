"""Overrides: fields that are set in a config, by their paths."""

from typing import Any

from ml_collections import ConfigDict

from posenc_jax.config.serialization import flat, to_json
from posenc_jax.errors import MAX_SHOWN, UserError, nearest_field, shown
from posenc_jax.storage import without_numpy

MAX_SECTIONS = 8  # dots in the path of an override
# The one section whose keys are not known here: they are the encoding's hyperparameters.
OPEN = 'encoding'
# Of a scaling of RoPE: the length that it starts from.
ORIGINAL = 'original_max_position_embeddings'
# What a layer of a pattern has that does not see the whole text.
MASKS = {'attention_window', 'attention_chunk'}
# What a layer says of its mask, beside its encoding.
OF_LAYERS = {*MASKS, 'attention_sink_tokens'}
# What an encoding of several has them in.
PARTS = {'pattern': 'layers', 'chain': 'members'}
# Hyperparameters of RoPE that `vo_rope` has, too: one that turns values as keys turn has the same.
TURNING = ('base', 'layout', 'fraction', 'scaling')
# Fields whose elements may have commas in them: lines for a shell, and options with lists.
WITH_COMMAS = ('config.launch.setup', 'config.launch.options')


def overlay(config: ConfigDict, overrides: dict[str, Any]) -> None:
  """Sets the fields of `{'dotted.path': value}` in a config, in place.

  Below `encoding` any path is taken (`encodings.make` checks hyperparameters), also
  `encoding.scaling.factor` where there is no `encoding.scaling` yet; and `{'encoding':
  dict(name=...)}` replaces the whole section, before hyperparameters are set. Another `rope_type`
  drops the fields of the one before, but for the length that both start from. In a pattern,
  `encoding.FIELD`, also another name, is set in the layers that are rope, or a chain with it, and
  see the whole text; in a chain in the members that are rope, and a field of TURNING in those that
  are vo_rope, too: to replace the whole takes `{'encoding': dict(name=...)}`. A chain put in the
  place of an encoding that is one of its members, or of a chain, keeps the hyperparameters of
  members of the same name. Raises `UserError` for an unknown path or a value of another type.
  """
  overrides = without_numpy(overrides)
  if OPEN in config:
    encoding = to_json(config[OPEN])
    overrides = _put_in_chain(encoding, _set_in_parts(encoding, overrides))
  # Sections come before what is within them. Of the whole encoding and a name alone, the later one
  # counts.
  is_within = lambda path: path.startswith(f'{OPEN}.') and path != f'{OPEN}.name'
  depth = lambda item: item[0].count('.') if is_within(item[0]) else 0
  for path, value in sorted(overrides.items(), key=depth):
    *sections, key = path.split('.')
    section = config
    is_hyperparameter = sections[:1] == [OPEN] and path != f'{OPEN}.name'
    if is_hyperparameter:
      _check_names(path, (*sections, key))
    for name in sections:
      if is_hyperparameter and isinstance(section, ConfigDict) and section.get(name) is None:
        _set(section, name, ConfigDict())
      if not isinstance(section, ConfigDict) or name not in section:
        _refuse_unknown(path, config)
      section = section[name]
    if path == OPEN:
      if not isinstance(value, dict | ConfigDict) or not isinstance(dict(value).get('name'), str):
        example = "a dict with a name, such as dict(name='rope'), or config.encoding.name"
        raise UserError(f'config.{path}={shown(value)}: allowed: {example}')
      _set(config, OPEN, _section(path, value))
    elif is_hyperparameter and isinstance(section, ConfigDict):
      if key == 'rope_type' and value not in (section.get('rope_type'), section.get('type')):
        own = [name for name in section if path.removesuffix(key) + name in overrides]
        _drop_all_but(section, [*own, ORIGINAL])
      _set(section, key, _section(path, value) if isinstance(value, dict) else value)
    elif not isinstance(section, ConfigDict) or key not in section:
      _refuse_unknown(path, config)
    else:
      section[key] = typed(f'config.{path}', value, section[key])


def _set_in_parts(encoding: object, overrides: dict[str, object]) -> dict[str, object]:
  """The overrides, where the encoding is a pattern or a chain with its fields set in its parts.

  Those are the layers with RoPE that see all tokens, and the members that are RoPE; and for fields
  of TURNING those that are `vo_rope`, too. Overrides stay as they are where they give a whole
  `encoding`, the parts, or as its name `pattern` or the one that it has; and where there is no such
  part.
  """
  name = encoding.get('name') if isinstance(encoding, dict) else None
  of_name = PARTS.get(str(name))
  if of_name is None:
    return overrides
  own = {path: value for path, value in overrides.items() if path.startswith(f'{OPEN}.')}
  is_other = own.get(f'{OPEN}.name') in (name, 'pattern')
  is_new = OPEN in overrides or f'{OPEN}.{of_name}' in own or is_other
  parts = _specs(encoding.get(of_name))
  if not own or is_new or parts is None:
    return overrides
  is_of_mask = lambda path: name == 'pattern' and path.removeprefix(f'{OPEN}.') in OF_LAYERS
  mask = {path.removeprefix(f'{OPEN}.'): x for path, x in own.items() if is_of_mask(path)}
  fields = {path: x for path, x in own.items() if not is_of_mask(path)}
  turning = {path: x for path, x in fields.items() if path.split('.')[1] in TURNING}
  has_rope = [_has('rope', part) for part in parts]
  turns_values = [bool(turning) and _has('vo_rope', part) for part in parts]
  if not any(has_rope) and not (any(turns_values) and turning == own):
    return overrides
  for n, part in enumerate(parts):
    if has_rope[n] or turns_values[n]:
      section = ConfigDict({OPEN: {field: x for field, x in part.items() if not is_of_mask(field)}})
      overlay(section, fields if has_rope[n] else turning)
      before = {field: x for field, x in part.items() if is_of_mask(field)}
      parts[n] = to_json(section)[OPEN] | before | (mask if has_rope[n] else {})
  others = {path: value for path, value in overrides.items() if path not in own}
  return others | {OPEN: {'name': name, of_name: tuple(parts)}}


def _has(name: str, part: object) -> bool:
  """Whether the encoding of a layer or a member is of that name or a chain with it, and sees all
  tokens.
  """
  if not isinstance(part, dict) or any(part.get(field) is not None for field in MASKS):
    return False
  is_chain = part.get('name') == 'chain'
  return part.get('name') == name or (
    is_chain and any(_has(name, member) for member in _specs(part.get('members')) or ())
  )


def takes_mask(encoding: dict) -> bool:
  """Whether a field of a mask that is laid over a pattern is set in one of its layers."""
  return any(_has('rope', layer) for layer in _specs(encoding.get('layers')) or ())


def _put_in_chain(encoding: object, overrides: dict[str, object]) -> dict[str, object]:
  """The overrides, where they put a chain in the place of an encoding with hyperparameters, or of a
  chain whose members have some: each of its members has those of the one before of its name, beside
  what it says itself.

  Overrides stay as they are where no member has those of another, and where more than one could.
  """
  of_name, path = f'{OPEN}.name', f'{OPEN}.members'
  members = _specs(overrides.get(path))
  is_chain = overrides.get(of_name) == 'chain' and OPEN not in overrides
  if not is_chain or not isinstance(encoding, dict) or members is None:
    return overrides
  of_chain = encoding.get('name') == 'chain'
  before = (_specs(encoding.get('members')) or []) if of_chain else [encoding]
  names_before, names = ([_name(spec) for spec in specs] for specs in (before, members))
  kept = {
    own: spec
    for own, spec in zip(names_before, before, strict=True)
    if own is not None and spec.keys() - {'name'}
    if names_before.count(own) == names.count(own) == 1
  }
  if not kept:
    return overrides
  members = [
    spec if own is None else kept.get(own, {}) | spec
    for own, spec in zip(names, members, strict=True)
  ]
  others = {key: value for key, value in overrides.items() if key not in (of_name, path)}
  return others | {OPEN: {'name': 'chain', 'members': tuple(members)}}


def _name(spec: object) -> str | None:
  name = spec.get('name') if isinstance(spec, dict) else None
  return name if isinstance(name, str) else None


def _specs(parts: object) -> list | None:
  """The layers or members of an encoding, of which each name alone becomes a dict: 'a,b' are two.
  None for what lists none.
  """
  parts = parts.split(',') if isinstance(parts, str) else parts
  if not isinstance(parts, list | tuple):
    return None
  return [{'name': part} if isinstance(part, str) else part for part in parts]


def _drop_all_but(section: ConfigDict, names: list[str]) -> None:
  with section.unlocked():
    for name in set(section) - set(names):
      del section[name]


def _check_names(path: str, names: tuple[str, ...]) -> None:
  """Raises `UserError` where names of a path, or below it, cannot be those of hyperparameters."""
  for name in names:
    if not _is_name(name) or path.count('.') > MAX_SECTIONS:
      letters = 'letters, digits and underscores, no digit first'
      allowed = f'{letters}, and at most {MAX_SECTIONS} dots'
      if hasattr(ConfigDict, str(name)):
        allowed = 'a name that configs do not have for themselves'
      where = f'a field named {shown(name)} in {shown(path)}'
      raise UserError(f'config: {where}; allowed: {allowed}')


def _is_name(name: object) -> bool:
  """Whether a hyperparameter may have this name; those of ConfigDict's methods are taken."""
  return isinstance(name, str) and name.isidentifier() and not hasattr(ConfigDict, name)


def _section(path: str, tree: dict | ConfigDict) -> ConfigDict:
  """The section that a dict describes."""
  _check_names(path, tuple(tree.keys()))
  section = ConfigDict()
  for name, value in tree.items():
    is_section = isinstance(value, dict | ConfigDict)
    section[name] = _section(f'{path}.{name}', value) if is_section else value
  return section


def _set(section: ConfigDict, key: str, value: object) -> None:
  """Sets a key whatever type its value had: `encodings.make` says which types it takes."""
  with section.unlocked():
    if key in section:
      del section[key]
    section[key] = value


def _refuse_unknown(path: str, config: ConfigDict) -> None:
  shown_path = path if path.isprintable() and len(path) <= MAX_SHOWN else shown(path)
  raise UserError(f'config.{shown_path}: no such field; {nearest_field(path, flat(config))}')


def typed(name: str, value: object, old: object) -> object:
  """`value` in the type of the value that it replaces; `name` is for the message.

  An int may stand for a float; and for a tuple a list, a single element, or, if the elements are
  words, 'one,two'; a comma in one of WITH_COMMAS divides nothing. Raises `UserError` for any other
  type.
  """
  if isinstance(old, float) and type(value) is int and abs(value) < 2**1000:
    return float(value)
  if isinstance(old, tuple) and isinstance(value, str) and isinstance((*old, '')[0], str):
    words = [value] if name in WITH_COMMAS else value.split(',')
    return tuple(word.strip() for word in words if word.strip())
  if isinstance(old, tuple) and isinstance(value, int | float):
    value = (value,)
  if isinstance(old, tuple) and isinstance(value, tuple | list):
    return tuple(typed(name, v, old[0]) for v in value) if old else tuple(value)
  if type(value) is not type(old):
    like = f'like {old!r}'
    if isinstance(old, ConfigDict):
      like = f'fields below it, such as {next(iter(old))}'
    kind = type(old).__name__
    raise UserError(f'{name}={shown(value)}: is {type(value).__name__}; allowed: {kind}, {like}')
  return value
