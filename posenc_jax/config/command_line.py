"""Flags and overrides of the scripts, and how they end."""

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
  argv: list[str], flags: dict[str, object], places: list[str] | None = None
) -> tuple[SimpleNamespace, dict[str, object]]:
  """Reads `--name=value` and `--config.a.b=value` (also with a space for the `=`: then no value
  begins with `--`).

  Args:
    argv: the arguments after the program's name.
    flags: names with defaults; `REQUIRED` where there is none. The type of the default is the
      flag's; None: text.
    places: the words that are no flags are added to it; None: none are allowed.
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
      defaults = (
        f'--{k}' + ('' if v is REQUIRED else f' (default {v!r})') for k, v in flags.items()
      )
      print(
        f'{(sys.modules["__main__"].__doc__ or "").strip()}\n\nflags: {", ".join(defaults)}, --config.FIELD=VALUE'
      )
      sys.exit(0)
    if places is not None and not word.startswith('-'):
      places.append(word)
      continue
    name, equals, text = word.removeprefix('--').partition('=')
    is_override = name.startswith('config.')
    if not word.startswith('--') or not (is_override or name in flags):
      raise UserError(
        f'{word}: no such flag; {nearest(word, [f"--{f}" for f in (*flags, "config.FIELD")])}'
      )
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
  missing = [
    f'--{name}' for name, default in flags.items() if default is REQUIRED and name not in values
  ]
  if missing:
    raise UserError(f'{", ".join(missing)}: must be given')
  return SimpleNamespace(**{**flags, **values}), overrides


def encoding_of(spec: str) -> dict[str, object]:
  """{'name': NAME, hyperparameter: value} of 'NAME/hyper=value/section.hyper=value', values as in
  flags. UserError.
  """
  name, *words = split(spec, '/')
  for word in words:
    if '=' not in word:
      raise UserError(f'encoding {spec}: {word!r} has no value; allowed: NAME/hyper=value')
  section = ConfigDict({OPEN: {}})
  overlay(section, parse_args([f'--config.{OPEN}.{word}' for word in words], {})[1])
  return {'name': name, **section[OPEN].to_dict()}


def split(text: str, separator: str) -> list[str]:
  """At every separator outside brackets."""
  parts, depth = [''], 0
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == separator and not depth:
      parts.append('')
    else:
      parts[-1] += character
  return parts


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(function: Callable[[list[str]], int | None]) -> None:
  """Runs a script's `function(argv)`; `UserError` (exit code 2), `Stopped` and a full disk become
  one line on stderr.

  Ctrl-C, where nothing else takes it, ends the process at once: exit code 130, and whatever was
  being written is left.
  """
  try:
    with disk_errors():
      sys.exit(function(sys.argv[1:]))
  except (UserError, Stopped) as error:
    print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
    sys.exit(error.code)
  except KeyboardInterrupt:
    print(
      f'stopped; go on with the same command: {shlex.join(["python", *sys.argv])}',
      file=sys.stderr,
      flush=True,
    )
    os._exit(130)  # a save in the background would be waited for
