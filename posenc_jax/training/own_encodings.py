"""Encodings of the user's own in a run: it keeps a hash of their code, so that a formula that was
edited since does not go on with parameters of the one before, or stand among its seeds.
"""

from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.core.own_code import code_hash
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.errors import UserError
from posenc_jax.model.layer_pattern import encoding_names
from posenc_jax.training.provenance import OWN_ENCODINGS, kept_code


def claim_own_encodings(workdir: str | Path, config: ConfigDict, begins: bool) -> None:
  """Writes the hashes of the code of the run's own encodings where it begins, else compares them.

  Raises `UserError` where one was edited since the run began.
  """
  if not begins:
    return check_own_encodings(workdir, config)
  hashes = own_code(config)
  if hashes:
    storage.write_json(Path(workdir) / OWN_ENCODINGS, {'sha256': hashes})


def check_own_encodings(workdir: str | Path, config: ConfigDict) -> None:
  """Raises `UserError` where the code of an encoding of one's own is not that of when the run in
  `workdir` began. Runs that have no hashes, of an earlier version, are taken as they are.
  """
  there = kept_code(workdir)
  for name, sha256 in own_code(config).items() if there else ():
    if there.get(name, sha256) != sha256:
      problem = f'encoding {name!r} was edited since its run began'
      same = f'without {OWN_ENCODINGS} there, if its numbers are the same'
      allowed = f'its code of then, another workdir, or {same}'
      raise UserError(f'workdir={str(workdir)!r}: {problem}; allowed: {allowed}')


def code_laid_over(saved: ConfigDict, config: ConfigDict) -> dict[str, str]:
  """{field: start of a hash} of encodings of the user's own that an evaluation lays over a run that
  was trained without them: for `overrides` of its rows, where the name alone would let an edited
  formula pass for the one before.
  """
  trained = encoding_names(saved.encoding)
  hashes = own_code(config)
  return {f'encoding.code of {name}': hashes[name][:8] for name in hashes if name not in trained}


def own_code(config: ConfigDict) -> dict[str, str]:
  """{name: hash} of the encodings of a config that are not posenc_jax's."""
  own = {*encoding_names(config.encoding)} - BUILT_IN.keys()
  hashes = {name: code_hash(ENCODINGS[name]) for name in sorted(own) if name in ENCODINGS}
  return {name: sha256 for name, sha256 in hashes.items() if sha256}
