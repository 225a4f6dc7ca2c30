"""LoRA: two narrow matrices beside one of a layer, which train in its place.

x W becomes x W + alpha / r (x A) B (Hu et al. 2021, arXiv:2106.09685, eq. 3), and A B is never
written out. B begins as zeros, so that a model begins as the same without LoRA.
"""

from typing import Any

import jax
from flax import nnx

from posenc_jax.encodings.core.parameters import normal, stream, zeros
from posenc_jax.xla_ops import matmul


class Lora(nnx.Module):
  """What is added to x W: alpha / r (x A) B, with A [rows, r] and B [r, columns], which are
  `nnx.LoRAParam`, so that Flax's filters find them.
  """

  def __init__(self, rows: int, columns: int, rank: int, alpha: float, rngs: nnx.Rngs):
    """`rows` and `columns` are those of W; `rank` is r."""
    self.scale = alpha / rank
    self.a = nnx.LoRAParam(normal(rngs, (rows, rank), rows**-0.5)[...])
    self.b = nnx.LoRAParam(zeros(rank, columns)[...])

  def __call__(self, x):
    low = self.scale * matmul(x, self.a[...].astype(x.dtype))
    return matmul(low, self.b[...].astype(x.dtype))


def of_matrices(matrices: dict[str, nnx.Param], config, key: jax.Array) -> nnx.Dict:
  """{name: Lora} of the matrices that `lora_matrices` names.

  Args:
    matrices: those that the layer has, by name.
    config: the section `model` of a run's config.
    key: of the layer; each A is drawn by the name of its matrix.
  Raises:
    ValueError: the layer has no such matrix, or `lora_rank` is no less than its smaller side.
  """
  found, rank = {}, config.lora_rank
  for name in config.lora_matrices if rank else ():
    if name not in matrices:
      raise ValueError(f'model.lora_matrices: no {name!r}; allowed: {", ".join(matrices)}')
    rows, columns = matrices[name].shape
    if rank >= min(rows, columns):
      allowed = f'less than {min(rows, columns)}'
      raise ValueError(f'model.lora_rank={rank}: {name} is {rows} x {columns}; allowed: {allowed}')
    rngs = stream(key, f'lora_{name}')
    found[name] = Lora(rows, columns, rank, config.lora_alpha, rngs)
  return nnx.Dict(found)


def merge(leaves: dict[str, Any], config) -> None:
  """Makes of the parameters of a model, {path: array}, those of an equal one without LoRA: each W
  becomes W + alpha / r A B. One after another, so that few are held twice.

  `config` is the section `model` of the run's config.
  """
  for name in config.lora_matrices:
    a, b = (leaves.pop(f'layers/lora/{name}/{part}') for part in 'ab')
    w = a @ b
    w *= config.lora_alpha / config.lora_rank
    w += leaves[f'layers/{name}']
    leaves[f'layers/{name}'] = w
