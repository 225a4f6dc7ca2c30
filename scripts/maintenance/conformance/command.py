"""The command line of scripts/maintenance/conformance.py: computes entries and writes them."""

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable

import numpy as np

from posenc_jax import cli
from posenc_jax.errors import UserError, nearest, not_installed

from . import exports, libraries, pretrained, repositories
from .cases import CASES, ROPE_TYPES, cotangent, parameters
from .pretrained import GOLDEN
from .tensors import numbers, torch

SMOLLM2 = 'smollm2'  # when it is asked for by name: it needs a package more, and a minute
EXPORTS = 'exports'  # all of them
REFERENCES: dict[str, Callable] = libraries.REFERENCES | repositories.REFERENCES
# Those whose gradients are kept, too.
GRADIENTS = (
  'deepseek',
  'rope_pp_ec',
  'rope_pp_eh',
  'kv_shift_rope',
  'ministral',
  'x_dynamic',
  'nape_entmax15',
  'nape_entmax_bisected',
  'nape_sparsemax',
  'tisa',
  'urpe',
  'x_sigmoid',
  'x_selective',
  'softpick',
)


def attention(name: str) -> list:
  """The output of a case's reference, [S][H * K]."""
  x, w, p = tensors(name)
  with torch.no_grad():
    return numbers(REFERENCES[name](w | {'x': x}, p, CASES[name]).numpy())


def gradients(name: str) -> dict[str, list]:
  """The gradients of the sum of output times `cotangent`: by the input x, and by each parameter."""
  x, w, p = tensors(name)
  of = {'x': x, **p}
  for leaf in of.values():
    leaf.requires_grad_(True)
  output = REFERENCES[name](w | {'x': x}, p, CASES[name])
  (output * output.new_tensor(cotangent(output.shape))).sum().backward()
  return {n: numbers(leaf.grad.numpy()) for n, leaf in of.items()}


def tensors(name: str) -> tuple:
  """The input of a case, its weights, and the parameters of its encoding, as tensors."""
  enc, weights = CASES[name].build()
  weights = {n: torch.tensor(w) for n, w in weights.items()}
  p = {n: torch.tensor(np.asarray(leaf)) for n, leaf in parameters(enc).items()}
  return weights.pop('x'), weights, p


def versions() -> str:
  """The installed libraries that references are computed with."""
  names = ('torch', 'transformers', 'x-transformers', 'entmax')
  return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in names)


def write(file: str, entries: dict) -> None:
  """Adds entries to a golden file, one a line; the last one, 'made by', has the versions that made
  each. Without entries the file stays as it is.
  """
  if not entries:
    return
  path = GOLDEN / file
  old = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
  made = old.pop('made by', {}) | dict.fromkeys(entries, versions())
  lines = [
    f'{json.dumps(name)}: {json.dumps(entry)}'
    for name, entry in ({**old, **entries, 'made by': made}).items()
  ]
  path.parent.mkdir(exist_ok=True)
  path.write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


def main(argv: list[str]) -> None:
  """Computes the entries with these names, or all of them. Raises UserError."""
  names = []
  cli.parse_args(argv, {}, names, takes_overrides=False)
  known = {*ROPE_TYPES, *CASES, *pretrained.MODELS, EXPORTS, SMOLLM2}
  for name in names:
    if name not in known:
      raise UserError(f'{name}: no such entry; {nearest(name, known)}')
  needed = ('torch', 'transformers', 'x_transformers', 'entmax')
  if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
    raise not_installed('the libraries to compare with', missing[0], 'conformance')
  wanted = known & {*names} if names else known - {SMOLLM2}
  rope_types = {n: libraries.rope_type(*case) for n, case in ROPE_TYPES.items() if n in wanted}
  write('rope_types.json', rope_types)
  write('attention.json', {n: attention(n) for n in CASES if n in wanted})
  write('gradients.json', {n: gradients(n) for n in GRADIENTS if n in wanted})
  write('pretrained.json', {n: pretrained.record(n) for n in pretrained.MODELS if n in wanted})
  if EXPORTS in wanted:
    write('exports.json', {n: exports.record(n) for n in exports.EXPORTS})
  if SMOLLM2 in wanted:
    write('smollm2.json', {SMOLLM2: pretrained.smollm2()})
