"""Flags and overrides of the scripts.

Flags are parsed here, and not by ml_collections.config_flags, for two reasons: the section
`encoding` is open, so `--config.encoding.buckets=64` must be taken for a field that the file does
not have; and bad input must be one line, not a traceback.
"""

import ast
import itertools
import sys
import warnings
from collections.abc import Collection, Iterable
from types import SimpleNamespace

from ml_collections import ConfigDict

from posenc_jax.config import field_help
from posenc_jax.config.checks import LARGEST, text
from posenc_jax.config.fields import FIELDS
from posenc_jax.config.overlays import OPEN, overlay, typed
from posenc_jax.config.paths import expanded
from posenc_jax.config.schema import check_tree
from posenc_jax.errors import MAX_SHOWN, UserError, closest, nearest, shown

REQUIRED = object()  # the default of a flag that must be given
# Flags and fields that may be paths: a shell leaves a '~' behind '=' as it is.
PATHS = {
  'config', 'workdir', 'out', 'kept', 'save', 'source', 'tokenizer', 'prompt_file', 'corpus',
  'beside', 'hlo', 'pretrained',
  'config.data.corpus', 'config.data.tokenizer', 'config.train.init_from',
  'config.eval.long_ppl_evaluator',
}  # fmt: skip
CONTENT = {'prompt'}  # flags that are text of any characters, not a name


def parse_args(
  argv: list[str],
  flags: dict[str, object],
  positionals: list[str] | None = None,
  lists_fields: bool = False,
  takes_overrides: bool = True,
) -> tuple[SimpleNamespace, dict[str, object]]:
  """Reads `--name=value` and `--config.a.b=value`, also with a space for the `=`.

  Args:
    argv: the arguments after the program's name.
    flags: names with defaults; `REQUIRED` where there is none. A flag has the type of its default;
      None and `REQUIRED` stand for text, which may not be empty.
    positionals: a list that gets the words that are no flags. None: there may be none.
    lists_fields: whether --help lists the fields of the config.
    takes_overrides: whether there may be `--config.a.b=value`.
  Returns:
    The flags' values, and the overrides `{'a.b': value}`, each read as a Python literal or else
    kept as text, as is a number where the field takes text. In a path, '~' is the user's folder.
  Raises:
    UserError: for an unknown or missing flag or a value that does not parse. SystemExit(0) for
      --help.
  """
  if {'-h', '--help'} & {*argv}:
    _print_help(argv, flags, lists_fields, takes_overrides)
    sys.exit(0)
  values, overrides, words = {}, {}, iter(argv)
  for word in words:
    if positionals is not None and not word.startswith('-'):
      positionals.append(checked_text('argument', word))
      continue
    name, equals, value = word.removeprefix('--').partition('=')
    is_override = takes_overrides and name.startswith('config.')
    if not word.startswith('--') or not (is_override or name in flags):
      raise UserError(f'{_plain(word)}: no such flag; {_flag_meant(name, flags, takes_overrides)}')
    if not equals:
      is_switch = not is_override and isinstance(flags[name], bool)
      value = 'True' if is_switch else next(words, None)
      if value is None or value.startswith('--'):
        raise UserError(f'--{_plain(name)}: has no value; allowed: --{_plain(name)}=VALUE')
    if name in PATHS:
      value = expanded(value)
    if is_override:
      overrides[name.removeprefix('config.')] = _override(name, value)
    elif flags[name] is REQUIRED or flags[name] is None or isinstance(flags[name], str):
      values[name] = checked_text(f'--{name}', value)
    else:
      values[name] = _number_or_switch(name, value, flags[name])
  values = {**flags, **values}
  if missing := [f'--{name}' for name, value in values.items() if value is REQUIRED]:
    raise UserError(f'{", ".join(missing)}: must be given')
  return SimpleNamespace(**values), overrides


def checked_text(name: str, value: str) -> str:
  """The value of a flag that is text. Raises `UserError` if it is empty or, of what is no content,
  cannot be printed.
  """
  is_content = name.removeprefix('--') in CONTENT
  if not is_content and (refused := text()(value)):
    raise UserError(f'{name}={shown(value)}; allowed: {refused}')
  if not (value if is_content else value.strip()):
    raise UserError(f'{name}={shown(value)}: is empty; allowed: {name}=VALUE')
  return value


def _number_or_switch(name: str, value: str, default: object) -> object:
  number = typed(f'--{name}', _literal(name, value), default)
  if abs(number) > LARGEST:
    raise UserError(f'--{name}={shown(number)}; allowed: at most {LARGEST} in size')
  return number


def _flag_meant(name: str, flags: dict[str, object], takes_overrides: bool) -> str:
  """The flag that an unknown one is most likely meant to be, or all flags."""
  if not takes_overrides:
    return nearest(f'--{name}', [f'--{flag}' for flag in flags])
  fields = [f'config.{field}' for field in FIELDS if name in (field, field.rpartition('.')[2])]
  if name.startswith(f'{OPEN}.'):
    fields = [f'config.{name}']
  known = [f'--{flag}' for flag in (*flags, 'config.FIELD')]
  if fields and closest(f'--{name}', known) is None:
    return f"did you mean '--{fields[0]}'?"
  return nearest(f'--{name}', known)


def _plain(word: str) -> str:
  """A word of the command line as it stands, if that is short and can be printed."""
  return word if word.isprintable() and len(word) <= MAX_SHOWN else shown(word)


def _print_help(
  argv: list[str], flags: dict[str, object], lists_fields: bool, takes_overrides: bool
) -> None:
  """Prints the docstring of the script, its flags, and the fields of the config."""
  words = [
    f'--{name}' + ('' if default is REQUIRED else f' (default {default!r})')
    for name, default in flags.items()
  ]
  words += ['--config.FIELD=VALUE'] * takes_overrides
  print((sys.modules['__main__'].__doc__ or '').strip())
  print(f'\nflags: {", ".join(words) or "none"}')
  if lists_fields:
    print(f'\n{field_help.text(_config_given(argv))}')


def _config_given(argv: list[str]) -> str | None:
  """The file that --config=FILE or --config FILE names last, or None."""
  given = [
    word.removeprefix('--config=') if '=' in word else after
    for word, after in itertools.pairwise([*argv, ''])
    if word.partition('=')[0] == '--config'
  ]
  files = [file for file in given if file and not file.startswith('-')]
  return expanded(files[-1]) if files else None


def encoding_of(spec: str) -> dict[str, object]:
  """The section `encoding` that 'NAME/hyper=value/section.hyper=value' says. Raises `UserError`."""
  name, *words = split_outside_brackets(spec, '/')
  for word in words:
    if '=' not in word:
      raise UserError(f'encoding {spec}: {word!r} has no value; allowed: NAME/hyper=value')
  section = ConfigDict({OPEN: {}})
  overlay(section, parse_args([f'--config.{OPEN}.{word}' for word in words], {})[1])
  check_tree(OPEN, section)
  return {'name': name, **section[OPEN].to_dict()}


def split_outside_brackets(text: str, separator: str) -> list[str]:
  """Splits at every separator that is outside brackets."""
  pieces, depth = [''], 0
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == separator and not depth:
      pieces.append('')
    else:
      pieces[-1] += character
  return pieces


def words_of(flag: str, text: str, allowed: str) -> list[str]:
  """The words of a flag's value. Raises `UserError` if there are none or one stands twice."""
  words = [word.strip() for word in split_outside_brackets(text, ',') if word.strip()]
  if not words or len(set(words)) < len(words):
    raise UserError(f'--{flag}={text}; allowed: {allowed}, none twice')
  return words


def names_of(flag: str, text: str, known: Collection[str]) -> list[str]:
  """The words of a flag's value, each of which is known. Raises `UserError`."""
  words = words_of(flag, text, f'one or more of {", ".join(known)}')
  check_names(flag, words, known)
  return words


def check_unused(
  flags: SimpleNamespace, defaults: dict[str, object], names: Iterable[str], allowed: str
) -> None:
  """Raises `UserError` for the first of the flags `names` that was given: beside the others they do
  nothing.
  """
  for name in names:
    if (value := getattr(flags, name)) != defaults[name]:
      raise UserError(f'--{name}={shown(value)}: does nothing here; allowed: {allowed}')


def check_names(flag: str, names: Iterable[str], known: Collection[str]) -> None:
  """Raises `UserError` for the first of the names in a flag's value that is not known."""
  for name in names:
    if name not in known:
      raise UserError(f'--{flag}={name}: unknown; {nearest(name, known)}')


def _override(name: str, text: str) -> object:
  """The value of --config.FIELD; of a field that takes text, what looks like a number is text."""
  value, check = _literal(name, text), FIELDS.get(name.removeprefix('config.'))
  return value if isinstance(value, str) or check is None or check(text) else text


def _literal(name: str, text: str) -> object:
  """The Python literal that a text is, or the text. Raises `UserError` where it is too deep."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of what is odd in a literal: '\d', or 1if
      return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError):
    return text
  except (RecursionError, MemoryError):
    allowed = 'a value that is nested less deeply'
    raise UserError(f'--{_plain(name)}={shown(text)}; allowed: {allowed}') from None
