"""A run's directory: whose it is, and that one training at a time is at work there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import jsonl_store
from posenc_jax.config import differing_keys, flat, saved_config, to_json, training_part
from posenc_jax.errors import UserError, user_errors

# in a run's directory: the hash of the learned tokenizer, if there is one
TOKENIZER = 'tokenizer.json'


@contextlib.contextmanager
def claimed(workdir: str | Path, config: ConfigDict) -> Iterator[None]:
  """`claim`, and no other training writes there until the end. Raises `UserError` where one
  does.
  """
  workdir = Path(workdir)
  refuse_another(workdir, config)  # before a lock is left there
  _make_folder(workdir)
  with user_errors(BlockingIOError), jsonl_store.file_lock(workdir / 'train.lock'):
    claim(workdir, config)
    yield


def claim(workdir: str | Path, config: ConfigDict) -> None:
  """Makes the directory this config's: writes `config.json`, or compares what decides training with
  the one there.

  Raises `UserError` naming the fields that differ. `eval` and `label` may: the file keeps what it
  was made with.
  """
  workdir = Path(workdir)
  _make_folder(workdir)
  refuse_another(workdir, config)
  if not (workdir / 'config.json').exists():
    jsonl_store.atomic_write_json(workdir / 'config.json', to_json(config))


def is_finished(workdir: str | Path, config_hash: str) -> bool:
  """Whether all that a config of this hash asks for, training and evaluation, is there."""
  path = Path(workdir) / 'finished.json'
  return path.exists() and json.loads(path.read_text())['config_hash'] == config_hash


def finish(workdir: str | Path, config_hash: str) -> None:
  jsonl_store.atomic_write_json(Path(workdir) / 'finished.json', {'config_hash': config_hash})


def _make_folder(workdir: Path) -> None:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'workdir={str(workdir)!r}: {error.strerror}; allowed: a folder, or where one can be made'
    ) from None


def refuse_another(workdir: Path, config: ConfigDict, allowed: str = 'another workdir') -> None:
  """Raises `UserError` naming the fields that differ where the directory holds the run of another
  config.
  """
  if (workdir / 'config.json').exists():
    here, there = training_part(config), training_part(saved_config(workdir))
    mine, theirs = flat(here), flat(there)
    if keys := differing_keys(here, there):
      parts = ', '.join(
        f'{key} (there {theirs.get(key)!r}, here {mine.get(key)!r})' for key in keys
      )
      raise UserError(
        f'workdir={str(workdir)!r} holds a run of another config: {parts}; allowed: {allowed}'
      )
  elif left := [name for name in ('checkpoints', 'metrics.jsonl') if (workdir / name).exists()]:
    raise UserError(
      f'workdir={str(workdir)!r} holds {left[0]} but no config.json; allowed: {allowed}'
    )


def claim_tokenizer(workdir: str | Path, sha256: str | None) -> None:
  """Writes `tokenizer.json` with the hash of the learned tokenizer (None: there is none), or
  compares it.
  """
  path = Path(workdir) / TOKENIZER
  if sha256 is not None and not path.exists():
    jsonl_store.atomic_write_json(path, {'sha256': sha256})
  check_tokenizer(workdir, sha256)


def check_tokenizer(workdir: str | Path, sha256: str | None) -> None:
  """Raises `UserError` where the run's tokens are those of another tokenizer."""
  path = Path(workdir) / TOKENIZER
  there = json.loads(path.read_text())['sha256'] if path.exists() else None
  if there != sha256:
    was, now = (
      f'the tokenizer {some[:16]}' if some else 'no learned tokenizer' for some in (there, sha256)
    )
    raise UserError(
      f'workdir={str(workdir)!r}: its run was trained with {was}, here is {now}; allowed: the same text'
    )
