"""The evaluation of an imported model beside transformers: its cases, and its export for them."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from posenc_jax import data
from posenc_jax.config import saved_config
from posenc_jax.errors import UserError, user_errors
from posenc_jax.training.provenance import source_of
from scripts import export_model

from . import cases


def groups(workdir: str, out: str, lengths, dtypes) -> list[cases.Group]:
  """The groups of the run in `workdir`, whose export is to stand in `out`. Raises `UserError` if it
  was not imported.
  """
  config = saved_config(workdir)
  if source_of(workdir) is None:
    allowed = 'the directory of a run of scripts/import_model.py, or of one that starts from such'
    raise UserError(
      f'--pretrained={workdir}: its parameters are no imported ones; allowed: {allowed}'
    )
  from posenc_jax.model import decoder  # jax takes seconds to import

  with user_errors(ValueError):
    model = decoder.shapes(config, data.vocab(config.data))
  run, exported = Path(workdir).resolve(), Path(out).resolve() / f'exported_{os.getpid()}'
  of_model = config.encoding.name, model.vocab, model.bos
  return cases.evaluation_groups(str(run), str(exported), *of_model, lengths, dtypes)


@contextlib.contextmanager
def exported(groups: list[cases.Group]) -> Iterator[None]:
  """Exports the run of these groups to where their cases in PyTorch look for it, for as long as the
  context lasts. Raises `UserError` if no family has the form of the run.
  """
  ours, theirs = groups[0].cases
  try:
    export_model.main([f'--workdir={ours.folder}', f'--out={theirs.folder}'])
    yield
  finally:
    shutil.rmtree(theirs.folder, ignore_errors=True)
