"""Every encoding by name, and building one. Adding one: a file in `encodings/` and a line here."""

import dataclasses
import importlib
import inspect
import numbers
import re
import sys
import types
from collections.abc import Iterator, MutableMapping

from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.declarations import check_declared
from posenc_jax.encodings.core.hyperparameters import (
  describe_type,
  has_type,
  is_known,
  stands_for_float,
)
from posenc_jax.encodings.core.scaling.rope_types import SCALINGS
from posenc_jax.encodings.core.user_code import keep_sources
from posenc_jax.errors import nearest, nearest_of_all, shown
from posenc_jax.storage import without_numpy

BUILT_IN = {
  'nope': 'nope.NoPE',
  'learned': 'learned.Learned',
  'sinusoidal': 'sinusoidal.Sinusoidal',
  'shaw': 'shaw.Shaw',
  'transformer_xl': 'transformer_xl.TransformerXL',
  't5': 't5.T5',
  'deberta': 'deberta.DeBERTa',
  'rope': 'rope.RoPE',
  'rerope': 'rerope.ReRoPE',
  'leaky_rerope': 'rerope.LeakyReRoPE',
  'self_extend': 'self_extend.SelfExtend',
  'streaming_rope': 'streaming_rope.StreamingRoPE',
  'alibi': 'alibi.ALiBi',
  'kerple_log': 'kerple.KerpleLog',
  'sandwich': 'sandwich.Sandwich',
  'fire': 'fire.FIRE',
  'fox': 'fox.FoX',
  'cope': 'cope.CoPE',
  'stick_breaking': 'stick_breaking.StickBreaking',
  'tupe': 'tupe.TUPE',
  'xpos': 'xpos.XPos',
  'p_rope': 'p_rope.PRoPE',
  'kerple_power': 'kerple.KerplePower',
  'dape': 'dape.DAPE',
  'selective_rope': 'selective_rope.SelectiveRoPE',
  'path': 'path.PaTH',
  'pope': 'pope.PoPE',
  'relative_projection': 'relative_projection.RelativeProjection',
  'grape_ap': 'grape_ap.GrapeAP',
  'music_transformer': 'music_transformer.MusicTransformer',
  'chain': 'core.chain.Chain',
  'heads': 'core.heads.Heads',
  'logn': 'logn.LogN',
  'ssmax': 'ssmax.SSMax',
  'drope': 'drope.DroPE',
  'nope_scale': 'nope_scale.NoPEScale',
  'llama4_temperature': 'llama4_temperature.Llama4Temperature',
  'random_positions': 'random_positions.RandomPositions',
  'shape_offset': 'shape_offset.ShapeOffset',
  'pose': 'pose.PoSE',
  'cape': 'cape.CAPE',
  'bipe': 'bipe.BiPE',
  'vo_rope': 'vo_rope.VORoPE',
  'sink': 'sink.Sink',
  'rope_pp': 'rope_pp.RoPEPP',
  'kv_shift': 'kv_shift.KVShift',
  'axial_rope': 'axial_rope.AxialRoPE',
  'softmax_plus_one': 'softmax_plus_one.SoftmaxPlusOne',
  'clipped_rope': 'clipped_rope.ClippedRoPE',
  'hope': 'hope.HoPE',
  'resonance_rope': 'resonance_rope.ResonanceRoPE',
  'fope': 'fope.FoPE',
  'scale_invariant': 'scale_invariant.ScaleInvariant',
  'nape': 'nape.NAPE',
  'asentmax_temperature': 'asentmax_temperature.AsentmaxTemperature',
  'grape_m': 'grape_m.GrapeM',
  'grape_m_context': 'grape_m.GrapeMContext',
  'grape_a': 'grape_a.GrapeA',
  'string': 'string.String',
  'dca': 'dca.DCA',
  'repo': 'repo.RePo',
  'abacus': 'abacus.Abacus',
  'position_coupling': 'position_coupling.PositionCoupling',
  'entmax': 'entmax.Entmax',
  'bam': 'bam.BAM',
  'wavelet': 'wavelet.Wavelet',
  'cable': 'cable.CABLE',
  'tapa': 'tapa.TAPA',
  'carope': 'carope.CARoPE',
  'coca': 'coca.CoCA',
  'dape_v2': 'dape_v2.DAPEV2',
  'hype_temperature': 'hype_temperature.HyPETemperature',
  'adaptive_temperature': 'adaptive_temperature.AdaptiveTemperature',
  'rope_mixed': 'rope_mixed.RoPEMixed',
  'hard_alibi': 'hard_alibi.HardALiBi',
  'mlp_bias': 'mlp_bias.MLPBias',
  'wall': 'wall.Wall',
  'mla_rope': 'mla_rope.MLARoPE',
  'key_offset': 'key_offset.KeyOffset',
  'tisa': 'tisa.TISA',
  'urpe': 'urpe.URPE',
  'diet_abs': 'diet_abs.DietAbs',
  'learned_fourier': 'learned_fourier.LearnedFourier',
  'ms_poe': 'ms_poe.MsPoE',
  'tape': 'tape.TAPE',
  'liere': 'liere.LieRE',
  'hyperbolic_rope': 'hyperbolic_rope.HyperbolicRoPE',
  'sigmoid': 'sigmoid.Sigmoid',
  'softpick': 'softpick.Softpick',
  'selective': 'selective.Selective',
  'goat': 'goat.GOAT',
  'jet_long': 'jet_long.JetLong',
  'cayley_string': 'cayley_string.CayleyString',
  'relu': 'relu.ReLU',
  'lssa': 'lssa.LSSA',
  'lssar': 'lssa.LSSAR',
  'talking_heads': 'talking_heads.TalkingHeads',
  'mta': 'mta.MTA',
  'mobius_rope': 'mobius_rope.MobiusRoPE',
  'dpe': 'dpe.DPE',
  'self_logistic': 'self_logistic.SelfLogistic',
  'xsa': 'xsa.XSA',
  'elastic_softmax': 'elastic_softmax.ElasticSoftmax',
  'cog': 'cog.Cog',
  'infoscale': 'infoscale.InfoScale',
  'cos_scale': 'cos_scale.CosScale',
  'qassmax': 'qassmax.QASSMax',
  'harope': 'harope.HARoPE',
  'golden_gate_rope': 'golden_gate_rope.GoldenGateRoPE',
  'gated_t5': 'gated_t5.GatedT5',
  'row_gates': 'row_gates.RowGates',
  'compact_relative': 'compact_relative.CompactRelative',
  'pape': 'pape.PaPE',
  'pape_ri': 'pape.PaPERI',
  'ultravico': 'ultravico.UltraViCo',
  'screening': 'screening.Screening',
  'group_bias': 'group_bias.GroupBias',
  'swin': 'swin.Swin',
  'swin_v2': 'swin.SwinV2',
  'spiral_rope': 'spiral_rope.SpiralRoPE',
  'jordan_rope': 'jordan_rope.JordanRoPE',
  'darope': 'darope.DaRoPE',
}


class Registry(MutableMapping[str, type[Encoding]]):
  """Encodings by name: `ENCODINGS['alibi']` is a class, imported when it is first asked for.

  `ENCODINGS['mine'] = Mine` is `register('mine', Mine)`.
  """

  def __init__(self, built_in: dict[str, str]):
    self._built_in = built_in
    self._registered: dict[str, type[Encoding]] = {}

  def __getitem__(self, name: str) -> type[Encoding]:
    if name in self._registered:
      return self._registered[name]
    module, _, kind = self._built_in[name].rpartition('.')
    return getattr(importlib.import_module(f'posenc_jax.encodings.{module}'), kind)

  def __setitem__(self, name: str, kind: type[Encoding]) -> None:
    if not (isinstance(name, str) and name.isidentifier()):
      allowed = 'letters, digits and underscores, no digit first'
      raise ValueError(f'register: name={name!r}; allowed: {allowed}')
    if name in self._built_in:
      raise ValueError(f'register: {name!r} is an encoding of posenc_jax; allowed: another name')
    if not (isinstance(kind, type) and issubclass(kind, Encoding)):
      raise ValueError(f'register: {name}={kind!r}; allowed: a subclass of posenc_jax.Encoding')
    self._registered[name] = kind
    keep_sources(kind)

  def __delitem__(self, name: str) -> None:
    del self._registered[name]

  def __iter__(self) -> Iterator[str]:
    return iter({**self._built_in, **self._registered})

  def __len__(self) -> int:
    return len({**self._built_in, **self._registered})

  def __contains__(self, name: object) -> bool:
    return name in self._built_in or name in self._registered


# The classes of all encodings by name, those of `register` among them.
ENCODINGS = Registry(BUILT_IN)


def register(name: str, kind: type[Encoding]) -> type[Encoding]:
  """Gives an encoding from outside this repository a name; returns the class.

  Call it where the encoding is defined: in a study file, or in a module that the study imports. A
  name that was registered before gets the new class. Raises ValueError for what is no name, no
  subclass of Encoding, or the name of one of posenc_jax's own encodings.
  """
  ENCODINGS[name] = kind
  return kind


def hyperparameters(name: str) -> dict[str, object]:
  """The hyperparameters of an encoding and their defaults; ValueError for an unknown name."""
  return {p.name: p.default for p in _signature(name)}


def hyperparameter_docs(name: str) -> dict[str, str]:
  """What the code of an encoding says of each of its hyperparameters; without those of which it
  says nothing. ValueError for an unknown name.

  It is said below 'Args:' in the docstring of `__init__`, or there as '`name`: words'.
  """
  own = hyperparameters(name)
  found = {}
  for kind in reversed(ENCODINGS[name].__mro__):
    said = inspect.getdoc(vars(kind).get('__init__')) or ''
    said = _with_values(said, sys.modules[kind.__module__])
    _, _, block = said.partition('Args:\n')
    below = re.findall(r'^  ([\w, ]+): (.*(?:\n    .*)*)', block, re.MULTILINE)
    inline = re.findall(f'({NAMES}): (.*?)(?= {NAMES}: |$)', ' '.join(said.split()))
    for names, words in below or inline:
      found |= dict.fromkeys(re.findall(r'\w+', names), ' '.join(words.split()).rstrip(';'))
  return {name: found[name] for name in own if name in found}


def _with_values(words: str, module: types.ModuleType) -> str:
  """The words, with what constants of a module list in the place of their names."""

  def values(name):
    listed = getattr(module, name[0], None)
    return ', '.join(map(repr, listed)) if isinstance(listed, tuple) else name[0]

  return re.sub(r'\b[A-Z]{4,}\b', values, words)


def _signature(name: str) -> list[inspect.Parameter]:
  """The keyword-only parameters of a class; where it takes **others, of its base class too."""
  found = {}
  for parameters in _parameters(name):
    found = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY} | found
  return list(found.values())


def _parameters(name: str) -> Iterator[list[inspect.Parameter]]:
  """Yields those of the `__init__` of a class; where it takes **others, of its base class too."""
  check_name(name)
  for kind in ENCODINGS[name].__mro__:
    if '__init__' not in vars(kind):
      continue
    names = inspect.unwrap(kind.__init__).__globals__
    found = inspect.signature(kind.__init__).parameters.values()
    parameters = [_evaluated(p, names) for p in found]
    yield parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
      break


def _evaluated(p: inspect.Parameter, names: dict[str, object]) -> inspect.Parameter:
  """The parameter with its type, where it is a hyperparameter whose annotation is a text; with the
  text, which is no type, where that has a name which only type checkers import.
  """
  if p.kind is not p.KEYWORD_ONLY or not isinstance(p.annotation, str):
    return p
  try:
    return p.replace(annotation=eval(p.annotation, names))
  except NameError:
    return p


NAMES = r'`\w+`(?:, `\w+`)*'  # of hyperparameters, in a docstring of one paragraph
MAX_INTEGER = 2**24  # tokens, buckets and the like: more than a table can have
SEEDS, MAX_SEED = ('seed', 'eval_seed'), 2**32 - 1  # a run's own seed is bounded so, too
# What a mask is called here and elsewhere, and which it is: no encoding's, but the call's.
MASKS = {
  **dict.fromkeys(('window', 'window_size', 'sliding_window', 'attention_window'), 'window'),
  **dict.fromkeys(('chunk', 'chunk_size', 'attention_chunk', 'attention_chunk_size'), 'chunk'),
  **dict.fromkeys(('sink_tokens', 'attention_sink_tokens', 'num_sinks'), 'sink_tokens'),
}
# What stands beside hyperparameters in a config, and methods of its sections: no hyperparameter of
# such a name could be set there.
OF_CONFIGS = frozenset(
  (
    *('name', 'allow_dotted_keys', 'convert_dict', 'copy_and_resolve_references'),
    *('eq_as_configdict', 'get', 'get_oneway_ref', 'get_ref', 'get_type', 'ignore_type'),
    *('is_locked', 'is_type_safe', 'items', 'iteritems', 'iterkeys', 'itervalues', 'keys', 'lock'),
    *('to_dict', 'to_json', 'to_json_best_effort', 'to_yaml', 'unlock', 'unlocked', 'update'),
    *('update_from_flattened_dict', 'values'),
  )
)


def check_name(name: str, field: str = 'name') -> None:
  """Raises ValueError, one line, for an unknown encoding, which stands in this field."""
  if isinstance(name, str) and name in ENCODINGS:
    return
  meant = nearest(name, ENCODINGS)
  if isinstance(name, str) and name in SCALINGS:
    meant = f'did you mean rope, with scaling.rope_type={name!r}?'
  raise ValueError(f'{field}={name!r}: no such encoding; {meant}')


def check(name: str, hyper: dict[str, object]) -> dict[str, object]:
  """The hyperparameters, with floats for integers that stand for them: jax's integers are int32.

  Raises ValueError, one line, for an unknown encoding or hyperparameter or a wrong type.
  """
  _check_parameters(name)
  known = {p.name: p.annotation for p in _signature(name)}
  checked = {}
  for key, value in hyper.items():
    if key not in known:
      allowed = nearest_of_all(key, known)
      if (mask := MASKS.get(key)) and mask not in known:
        allowed += f'; a mask is attention.{mask}, and attention_{mask} in a layer of a pattern'
      raise ValueError(f'encoding {name} has no hyperparameter {shown(key)}; {allowed}')
    if not has_type(value, known[key]):
      raise ValueError(f'{name}: {key}={shown(value)}; allowed: {describe_type(known[key])}')
    is_float = stands_for_float(value, known[key])
    most_whole = MAX_SEED if key in SEEDS else MAX_INTEGER
    most = sys.float_info.max if is_float else most_whole
    if isinstance(value, numbers.Integral) and abs(value) > most:
      raise ValueError(f'{name}: {key}={shown(value)}; allowed: at most {most} in size')
    checked[key] = float(value) if is_float else value
  return checked


def _check_parameters(name: str) -> None:
  """Raises ValueError, one line, for a class with a hyperparameter that nothing could set."""
  own = next(_parameters(name))  # a base class may have some that its subclasses set
  by_place = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
  for p in by_place[3:]:  # behind self, dims and rngs
    allowed = f'(self, dims, rngs, *, {p.name}: float = 1.0)'
    raise ValueError(f'{name}: hyperparameter {p.name} stands before *; allowed: {allowed}')
  for p in _signature(name):
    if p.name in OF_CONFIGS:
      problem = f'hyperparameter {p.name} has a name that configs have for themselves'
      raise ValueError(f'{name}: {problem}; allowed: another')
    if p.default is p.empty or p.annotation is p.empty:
      lacks = 'default' if p.default is p.empty else 'type'
      allowed = f'such as {p.name}: float = 1.0'
      raise ValueError(f'{name}: hyperparameter {p.name} has no {lacks}; allowed: one, {allowed}')
    if not is_known(p.annotation):
      problem = f'hyperparameter {p.name} is of type {p.annotation}'
      allowed = 'int, float, bool, str, tuple, dict, None, or several with |'
      raise ValueError(f'{name}: {problem}; allowed: {allowed}')


def make(
  name: str,
  *,
  model_dim: int,
  heads: int,
  kv_heads: int | None = None,
  head_dim: int,
  train_length: int,
  rngs: nnx.Rngs,
  **hyper,
) -> Encoding:
  """Builds the encoding of one layer.

  Args:
    name: a key of ENCODINGS.
    model_dim, heads, kv_heads, head_dim: D, H, G (None: H) and K.
    train_length: L, the tokens that the model is or was trained on, not those of a call. Tables,
      spans, windows and chunks are sized by it where a hyperparameter does not say otherwise
      (learned, deberta, self_extend, dca, streaming_rope, logn, drope and others), and so is the
      length from which `scaling` of RoPE extends. Published numbers of tokens stay as they are
      whatever L is: t5's `max_distance` (128), gated_t5's `max_distance` (128), with buckets tupe's
      `max_distance` (128) and deberta's `max_distance` (512), shaw's `max_distance` (16),
      relative_projection's `max_distance` (1,024), fire's `threshold` (512), screening's
      `threshold` (256), xpos's `scale_base` (512), cope's `positions` (64), abacus's `max_length`
      (1,024) and abacus's `max_k` (99), llama4_temperature's `length` (8,192), hype_temperature's
      `a` (362), scale_invariant's `tau` (10), string's `local` (128 at most), self_extend's `group`
      (8), dpe's `groups` (32 at most), self_logistic's `capacity` (33), streaming_rope's
      `sink_tokens` (4), learned_fourier's `gamma` (10), cape's `shift` (5), mta's `query_width` (6)
      and mta's `key_width` (11), wavelet's `scales` (8, of 1 to 128 tokens), and of windows of
      grids swin's `sizes` (7 each) and swin_v2's `sizes` (8 each).
    rngs: `flax.nnx.Rngs`, which initial parameters are drawn from.
    **hyper: hyperparameters of the encoding; every encoding builds without.
  Raises:
    ValueError: one line, for an unknown name or hyperparameter (with the nearest known one), a
      value of a wrong type or out of range.
  """
  dims = Dims(model_dim, heads, heads if kv_heads is None else kv_heads, head_dim, train_length)
  return make_from_spec({'name': name, **hyper}, dims, rngs)


def make_from_spec(spec: str | dict, dims: Dims, rngs: nnx.Rngs) -> Encoding:
  """Builds an encoding as `make` does, from its name, or a dict of that and hyperparameters."""
  hyper = {'name': spec} if isinstance(spec, str) else without_numpy(spec)
  name = hyper.pop('name', None)
  hyper = check(name, hyper)
  dims = Dims(**without_numpy(dataclasses.asdict(dims)))
  for field, size in dataclasses.asdict(dims).items():
    if not isinstance(size, numbers.Integral) or size < 1:
      raise ValueError(f'{field}={shown(size)}; allowed: a whole number of at least 1')
  if dims.heads % dims.kv_heads:
    raise ValueError(f'heads={dims.heads}; allowed: multiples of kv_heads={dims.kv_heads}')
  if not isinstance(rngs, nnx.Rngs):
    raise ValueError(f'rngs={shown(rngs)}; allowed: flax.nnx.Rngs, such as nnx.Rngs(0)')
  try:
    enc = ENCODINGS[name](dims, rngs, **hyper)
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error
  check_declared(enc, name)
  return enc
