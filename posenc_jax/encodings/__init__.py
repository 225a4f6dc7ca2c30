"""Every position encoding by name. Adding one: a file in this folder and a line in ENCODINGS."""

import dataclasses
import difflib
import inspect

from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.encodings.base import Dims, Encoding, LengthError
from posenc_jax.encodings.chain import Chain
from posenc_jax.encodings.cope import CoPE
from posenc_jax.encodings.dape import DAPE
from posenc_jax.encodings.deberta import DeBERTa
from posenc_jax.encodings.fire import FIRE
from posenc_jax.encodings.fox import FoX
from posenc_jax.encodings.grape_ap import GrapeAP
from posenc_jax.encodings.hyperparameter_types import fits, in_words
from posenc_jax.encodings.kerple import KerpleLog, KerplePower
from posenc_jax.encodings.learned import Learned
from posenc_jax.encodings.llama4_temperature import Llama4Temperature
from posenc_jax.encodings.music_transformer import MusicTransformer
from posenc_jax.encodings.nope import NoPE
from posenc_jax.encodings.p_rope import PRoPE
from posenc_jax.encodings.path import PaTH
from posenc_jax.encodings.pope import PoPE
from posenc_jax.encodings.pose import PoSE
from posenc_jax.encodings.random_positions import RandomPositions
from posenc_jax.encodings.relative_projection import RelativeProjection
from posenc_jax.encodings.rerope import LeakyReRoPE, ReRoPE
from posenc_jax.encodings.rope import RoPE
from posenc_jax.encodings.sandwich import Sandwich
from posenc_jax.encodings.selective_rope import SelectiveRoPE
from posenc_jax.encodings.self_extend import SelfExtend
from posenc_jax.encodings.shape_offset import ShapeOffset
from posenc_jax.encodings.shaw import Shaw
from posenc_jax.encodings.sinusoidal import Sinusoidal
from posenc_jax.encodings.stick_breaking import StickBreaking
from posenc_jax.encodings.t5 import T5
from posenc_jax.encodings.temperature import LogN, NoPEScale, SSMax
from posenc_jax.encodings.transformer_xl import TransformerXL
from posenc_jax.encodings.tupe import TUPE
from posenc_jax.encodings.xpos import XPos

__all__ = ['ENCODINGS', 'Dims', 'Encoding', 'LengthError', 'check', 'hyperparameters', 'make', 'make_members']

ENCODINGS = {
  'nope': NoPE,
  'learned': Learned,
  'sinusoidal': Sinusoidal,
  'shaw': Shaw,
  'transformer_xl': TransformerXL,
  't5': T5,
  'deberta': DeBERTa,
  'rope': RoPE,
  'rerope': ReRoPE,
  'leaky_rerope': LeakyReRoPE,
  'self_extend': SelfExtend,
  'alibi': ALiBi,
  'kerple_log': KerpleLog,
  'sandwich': Sandwich,
  'fire': FIRE,
  'fox': FoX,
  'cope': CoPE,
  'stick_breaking': StickBreaking,
  'tupe': TUPE,
  'xpos': XPos,
  'p_rope': PRoPE,
  'kerple_power': KerplePower,
  'dape': DAPE,
  'selective_rope': SelectiveRoPE,
  'path': PaTH,
  'pope': PoPE,
  'relative_projection': RelativeProjection,
  'grape_ap': GrapeAP,
  'music_transformer': MusicTransformer,
  'chain': Chain,
  'logn': LogN,
  'ssmax': SSMax,
  'nope_scale': NoPEScale,
  'llama4_temperature': Llama4Temperature,
  'random_positions': RandomPositions,
  'shape_offset': ShapeOffset,
  'pose': PoSE,
}


def hyperparameters(name: str) -> dict[str, object]:
  """The hyperparameters of an encoding and their defaults; ValueError for an unknown name."""
  return {p.name: p.default for p in _signature(name)}


def _signature(name: str) -> list[inspect.Parameter]:
  if not isinstance(name, str) or name not in ENCODINGS:
    near = difflib.get_close_matches(str(name), ENCODINGS, cutoff=0.5) or list(ENCODINGS)
    raise ValueError(f'encoding.name={name!r} is unknown; nearest: {", ".join(near)}')
  parameters = inspect.signature(ENCODINGS[name].__init__, eval_str=True).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def check(name: str, hyper: dict[str, object]) -> None:
  """Raises ValueError, one line, for an unknown encoding or hyperparameter and for a value of a wrong type."""
  known = {p.name: p.annotation for p in _signature(name)}
  for key, value in hyper.items():
    if key not in known:
      near = difflib.get_close_matches(str(key), known, cutoff=0.5) or list(known)
      raise ValueError(f'encoding {name} has no hyperparameter {key!r}; it has: {", ".join(near) or "none"}')
    if not fits(value, known[key]):
      raise ValueError(f'{name}: {key}={value!r} must be {in_words(known[key])}')


def make(
  name: str, *, model_dim: int, heads: int, kv_heads: int | None = None, head_dim: int, train_length: int, rngs, **hyper
) -> Encoding:
  """Builds an encoding of one layer: D, H, G (H if None), K and L, and the hyperparameters of the encoding.

  Initial parameters are drawn from `rngs`. Every encoding builds without hyperparameters. Raises ValueError for an
  unknown name or hyperparameter (the nearest are listed) and for a value of a wrong type or out of range.
  """
  check(name, hyper)
  dims = Dims(model_dim, heads, heads if kv_heads is None else kv_heads, head_dim, train_length)
  for field, size in dataclasses.asdict(dims).items():
    if size < 1:
      raise ValueError(f'{field}={size} must be at least 1')
  if heads % dims.kv_heads:
    raise ValueError(f'heads={heads} must be a multiple of kv_heads={kv_heads}')
  return ENCODINGS[name](dims, rngs, **hyper)


def make_members(members, dims: Dims, rngs) -> tuple[list[str], list[Encoding]]:
  """The members of a chain: their names, and they. Raises ValueError.

  `members`: names, or dicts of a name and hyperparameters; or names in a text, with commas.
  """
  each = members.split(',') if isinstance(members, str) else members
  specs = [dict(member) if hasattr(member, 'keys') else {'name': member} for member in each]
  names = [spec.pop('name', None) for spec in specs]
  if not names or not all(isinstance(name, str) and name != 'chain' for name in names):
    raise ValueError(f'chain: members={members!r} must be names, or dicts with a name, of encodings but chain')
  if drawing := [name for name in names if getattr(ENCODINGS.get(name), 'draw', None)]:
    raise ValueError(f'chain: {drawing[0]} draws positions once for all: it goes around a chain, over=dict(...)')
  for name, hyper in zip(names, specs, strict=True):
    check(name, hyper)
  return names, [make(n, **dataclasses.asdict(dims), rngs=rngs, **h) for n, h in zip(names, specs, strict=True)]
