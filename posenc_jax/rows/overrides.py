"""What an evaluation changes in the config of a run, as its rows state it."""

from ml_collections import ConfigDict

from posenc_jax.config import CHECKPOINT_FIELDS, decides_results, differing_keys, flat
from posenc_jax.errors import UserError
from posenc_jax.protocols import fields_without_effect

TRAINED = ('seed', 'train', 'optim')  # sections of the config that evaluation cannot change
# Fields that rows state by themselves, and fields that change no number.
IN_ROWS = (
  *('label', 'data.corpus', 'eval.split', 'eval.k', 'eval.stride', 'eval.protocols'),
  *('eval.lengths', 'eval.sink_rate_tokens'),
)
HARMLESS = ('eval.controls', 'eval.batch_tokens', 'model.unroll', 'model.remat')
# What rows state wherever there is one, whether or not it was changed: the start of the hash of a
# text (`data.documents.Listing`) that the run was not trained on, and which run found the
# key tokens of LongPPL, with the short context where `eval.long_ppl_context` is 0. Any other one is
# stated like a changed field, so that one which the run's own config has is in no row.
DOCUMENTS, EVALUATOR = 'data.documents', 'eval.long_ppl_evaluator'


def overrides_between(saved: ConfigDict, config: ConfigDict) -> dict[str, object]:
  """Returns {field: value} of what evaluation changes in the run's saved config and rows would not
  show otherwise.

  Raises `UserError` for a field that decided the training.
  """
  before, after = flat(saved), flat(config)
  deciding = [
    key
    for key in differing_keys(saved, config)
    if decides_results(key) and key not in CHECKPOINT_FIELDS
  ]
  changed = {key: after.get(key) for key in deciding}
  for key, value in changed.items():
    if key.partition('.')[0] in TRAINED:
      raise UserError(
        f'config.{key}={value!r}: the run was trained with {before.get(key)!r}; allowed: that'
      )
  return {key: value for key, value in changed.items() if key not in IN_ROWS + HARMLESS}


def overrides_of(
  changed: dict[str, object], protocol: str, control: str | None
) -> dict[str, object] | None:
  """The part of `overrides_between` that rows of this protocol and control depend on; or None."""
  without_effect = fields_without_effect(protocol, control)
  return {key: value for key, value in changed.items() if key not in without_effect} or None
