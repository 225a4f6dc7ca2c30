"""Every position encoding by name. Adding one: a file in this folder, and its import and a line
here.
"""

from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.encodings.cope import CoPE
from posenc_jax.encodings.core.chain import Chain
from posenc_jax.encodings.dape import DAPE
from posenc_jax.encodings.deberta import DeBERTa
from posenc_jax.encodings.fire import FIRE
from posenc_jax.encodings.fox import FoX
from posenc_jax.encodings.grape_ap import GrapeAP
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
