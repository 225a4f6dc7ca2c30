"""Flags and overrides of the scripts, and how scripts end.

Flags are parsed here, and not by ml_collections.config_flags, for two reasons: the section
`encoding` is open, so `--config.encoding.buckets=64` must be taken for a field that the file does
not have; and bad input must be one line, not a traceback.
"""

import ast
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict

from posenc_jax.config.loading import OPEN, overlay, typed
from posenc_jax.errors import Stopped, UserError, disk_errors, nearest

REQUIRED = object()  # the default of a flag that must be given


def parse_args(
  argv: list[str], flags: dict[str, object], positionals: list[str] | None = None
) -> tuple[SimpleNamespace, dict[str, object]]:
  """Reads `--name=value` and `--config.a.b=value`, also with a space for the `=`.

  Args:
    argv: the arguments after the program's name.
    flags: names with defaults; `REQUIRED` where there is none. A flag has the type of its default;
      None and `REQUIRED` stand for text.
    positionals: a list that gets the words that are no flags. None: there may be none.
  Returns:
    The flags' values, and the overrides `{'a.b': value}`, each read as a Python literal or else
    kept as text.
  Raises:
    UserError: for an unknown or missing flag or a value that does not parse. SystemExit(0) for
      --help.
  """
  values, overrides, words = {}, {}, iter(argv)
  for word in words:
    if word in ('-h', '--help'):
      _print_help(flags)
      sys.exit(0)
    if positionals is not None and not word.startswith('-'):
      positionals.append(word)
      continue
    name, equals, text = word.removeprefix('--').partition('=')
    is_override = name.startswith('config.')
    if not word.startswith('--') or not (is_override or name in flags):
      known = [f'--{flag}' for flag in (*flags, 'config.FIELD')]
      raise UserError(f'{word}: no such flag; {nearest(word, known)}')
    if not equals:
      is_switch = not is_override and isinstance(flags[name], bool)
      text = 'True' if is_switch else next(words, None)
      if text is None or text.startswith('--'):
        raise UserError(f'--{name}: has no value; allowed: --{name}=VALUE')
    if is_override:
      overrides[name.removeprefix('config.')] = _literal(text)
    elif flags[name] is REQUIRED or flags[name] is None or isinstance(flags[name], str):
      values[name] = text
    else:
      values[name] = typed(name, _literal(text), flags[name])
  values = {**flags, **values}
  if missing := [f'--{name}' for name, value in values.items() if value is REQUIRED]:
    raise UserError(f'{", ".join(missing)}: must be given')
  return SimpleNamespace(**values), overrides


def _print_help(flags: dict[str, object]) -> None:
  """Prints the docstring of the script, and its flags."""
  words = [
    f'--{name}' + ('' if default is REQUIRED else f' (default {default!r})')
    for name, default in flags.items()
  ]
  print((sys.modules['__main__'].__doc__ or '').strip())
  print(f'\nflags: {", ".join(words)}, --config.FIELD=VALUE')


def encoding_of(spec: str) -> dict[str, object]:
  """The section `encoding` that 'NAME/hyper=value/section.hyper=value' says. Raises `UserError`."""
  name, *words = split_outside_brackets(spec, '/')
  for word in words:
    if '=' not in word:
      raise UserError(f'encoding {spec}: {word!r} has no value; allowed: NAME/hyper=value')
  section = ConfigDict({OPEN: {}})
  overlay(section, parse_args([f'--config.{OPEN}.{word}' for word in words], {})[1])
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


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(function: Callable[[list[str]], int | None]) -> None:
  """Runs a script's `function(argv)`, and ends the process with the code that it returns.

  `UserError` (exit code 2), `Stopped` and a full disk become one line on stderr. Ctrl-C, unless
  something else takes it, ends the process at once with exit code 130: it waits for no write.
  """
  try:
    with disk_errors():
      sys.exit(function(sys.argv[1:]))
  except (UserError, Stopped) as error:
    print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
    sys.exit(error.code)
  except KeyboardInterrupt:
    command = shlex.join(['python', *sys.argv])
    print(f'stopped; go on with the same command: {command}', file=sys.stderr, flush=True)
    os._exit(130)  # sys.exit would wait for a save in the background
