"""Encodings of the user's own in a run: it keeps a hash of their code (`provenance`), so that a
formula that was edited since does not go on with parameters of the one before, or stand among its
seeds.
"""

from ml_collections import ConfigDict

from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.encodings.core.user_code import code_hash
from posenc_jax.model.layer_pattern import encoding_names


def code_laid_over(saved: ConfigDict, config: ConfigDict) -> dict[str, str]:
  """{field: start of a hash} of encodings of the user's own that an evaluation lays over a run that
  was trained without them: for `overrides` of its rows, where the name alone would let an edited
  formula pass for the one before.
  """
  trained = encoding_names(saved.encoding)
  hashes = user_code_hashes(config)
  laid_over = {name: sha256 for name, sha256 in hashes.items() if sha256 and name not in trained}
  return {f'encoding.code of {name}': sha256[:8] for name, sha256 in laid_over.items()}


def user_code_hashes(config: ConfigDict) -> dict[str, str | None]:
  """{name: hash} of the encodings of a config that are not posenc_jax's; None of one that no file
  has: it was defined at a prompt.
  """
  own = {*encoding_names(config.encoding)} - BUILT_IN.keys()
  return {name: code_hash(ENCODINGS[name]) for name in sorted(own) if name in ENCODINGS}
