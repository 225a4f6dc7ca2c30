"""The page ENCODINGS.md: the words of page.md, and the tables that are made here."""

import dataclasses
import functools
import inspect
import string
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import BACKENDS
from posenc_jax.attention.request import AttentionRequest, build_request
from posenc_jax.encodings import ENCODINGS, Encoding, make
from posenc_jax.encodings.core.composite import Composite
from posenc_jax.encodings.core.position_wrapper import PositionWrapper
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL, SCALINGS
from posenc_jax.encodings.core.temperature import Temperature

from .costs import H, K, S, costs

# The headings, in the order of the page; `heading_of` says which encodings stand below each.
PLAIN, INPUT, ROTATIONS, BIASES, SCORES, MOVED, TEMPERATURES, BESIDE, SEVERAL = (
  'No encoding',
  'Added at the input',
  'Rotations, projections and scales of queries and keys',
  'A bias by distance',
  'Scores from content, too',
  'Other positions for another encoding',
  'Temperatures, beside an encoding',
  'Values, outputs and softmax, beside an encoding',
  'Several encodings at once: one after another, or in different heads of a layer',
)
SCALING_TITLE = 'Scalings of `rope` and its kin, for more context'
SCALING_INTRODUCTION = """\
`--config.encoding.scaling.rope_type=NAME` with fields beside it, in training or in evaluation.
Fields are called as in Hugging Face transformers where a type is there, too. Where
`original_max_position_embeddings` is left out, it is L (`axial_rope` needs it). Formulas:
[posenc_jax/encodings/core/scaling/](posenc_jax/encodings/core/scaling/)."""
HEADINGS = (PLAIN, INPUT, ROTATIONS, BIASES, SCORES, MOVED, TEMPERATURES, BESIDE, SEVERAL)
SCALING_COLUMNS = ('name', 'what it is', 'fields that must be said', 'that may be, and defaults')
COLUMNS = (
  'name',
  'what it is',
  'acts on',
  'own parameters',
  'cost',
  'backends',
  'past the training length L, as published',
  'source',
)
# Of backends that run on one platform only.
NATIVE_PLATFORM = {'cudnn': 'gpu', 'splash': 'tpu', 'fused': 'tpu', 'triton': 'gpu'}
LIKE_BLOCKWISE = ('diagonals', 'ring')  # as page.md says
SHOWN = tuple(
  name for name in BACKENDS if name not in LIKE_BLOCKWISE and not name.endswith('_interpret')
)
ENOUGH_TOKENS = 256  # for the tiles of every backend
# What stands for a class that says nothing of itself.
DEFAULTS = {'parameter_summary': 'none', 'reported_extrapolation': None}


def markdown() -> str:
  """The page, of all encodings of this repository."""
  of_heading = {heading: [] for heading in HEADINGS}
  for name in BUILT_IN:
    of_heading[heading_of(name)].append(row(name))
  tables = [f'## {heading}\n\n{_table(COLUMNS, rows)}' for heading, rows in of_heading.items()]
  tables.append(
    f'## {SCALING_TITLE}\n\n{SCALING_INTRODUCTION}\n\n{_table(SCALING_COLUMNS, scalings())}'
  )
  words = string.Template(Path(__file__).with_suffix('.md').read_text(encoding='utf-8'))
  return words.substitute(
    tables='\n\n'.join(tables),
    limits=limits(),
    causal_only=_in_lines(causal_only()),
    floats=_in_lines(takers_of('floats')),
    unread=_in_lines(takers_of(None)),
  )


def _in_lines(names: list[str]) -> str:
  return textwrap.fill(', '.join(names), 100, break_on_hyphens=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [columns, ['---'] * len(columns), *rows]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


@functools.cache
def declared(name: str) -> Encoding:
  """The encoding with its defaults, its parameters as shapes alone."""
  dims = {'model_dim': H * K, 'heads': H, 'head_dim': K, 'train_length': ENOUGH_TOKENS}
  return nnx.eval_shape(lambda: make(name, **dims, rngs=nnx.Rngs(0)))


def heading_of(name: str) -> str:
  """The heading that an encoding stands below, by what it declares and acts on."""
  enc = declared(name)
  places = {*enc.acts_on()}
  for kind, heading in (
    (Composite, SEVERAL),
    (PositionWrapper, MOVED),
    (Temperature, TEMPERATURES),
  ):
    if isinstance(enc, kind):
      return heading
  if not places:
    return PLAIN
  if places == {'input'}:
    return INPUT
  stands_alone = enc.adapts_scores or enc.rotates_qk
  if places & {'values', 'output', 'softmax', 'weights'} and not stands_alone:
    return BESIDE
  if enc.adds_only_bias or (enc.has('bias') and not enc.has('score')):  # T5 has a scale of its own
    return BIASES
  return ROTATIONS if 'queries and keys' in places and not enc.has_terms else SCORES


def scalings() -> list[tuple[str, ...]]:
  """The cells of each scaling: its name, what it is by the first line of its function, fields."""
  made = []
  for name, function in SCALINGS.items():
    what = inspect.getdoc(function).split('\n')[0]
    must, may = [], []
    for p in inspect.signature(function).parameters.values():
      if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != ORIGINAL:
        must.append(f'`{p.name}`')
      elif p.kind is p.KEYWORD_ONLY:
        is_said = p.default not in (p.empty, None)
        may.append(f'`{p.name}`{f" {p.default}" if is_said else ""}')
    made.append((f'`{name}`', what, ', '.join(must) or 'none', ', '.join(may) or 'none'))
  return made


def limits() -> str:
  """A line for each limit that encodings declare, with their names."""
  names_of = {}
  for name in BUILT_IN:
    if limit := ENCODINGS[name].limit:
      names_of.setdefault(limit, []).append(f'`{name}`')
  return '\n'.join(f'- {", ".join(names)}: {limit}.' for limit, names in names_of.items())


def causal_only() -> list[str]:
  """The encodings that by default take no call without a causal mask, but those of members."""
  encodings = ((name, declared(name)) for name in BUILT_IN)
  return [f'`{n}`' for n, enc in encodings if enc.causal_only and not isinstance(enc, Composite)]


def takers_of(position_kind: str | None) -> list[str]:
  """The encodings that by default take such positions, but those of members."""
  encodings = ((name, declared(name)) for name in BUILT_IN)
  takes = lambda enc: enc.position_kind == position_kind and not isinstance(enc, Composite)
  return [f'`{n}`' for n, enc in encodings if takes(enc)]


@functools.cache
def row(name: str) -> tuple[str, ...]:
  """The cells of an encoding with its defaults."""
  enc = declared(name)
  summary, reported = (class_attribute(type(enc), attribute) for attribute in DEFAULTS)
  cells = []

  def ask(answer, tokens: int):
    def of_request(enc, q_BTHK, x_BTD):
      state = enc.initial_state(jnp.arange(tokens)[None], 1)
      heads = enc.enter_attention(q_BTHK, q_BTHK, q_BTHK, state)
      request = build_request(*heads, enc, x=x_BTD, outer_hooks_applied=True)
      cells.append(answer(request))

    shapes = (1, tokens, H, K), (1, tokens, H * K)
    arrays = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
    jax.eval_shape(of_request, enc, *arrays)

  ask(lambda request: ', '.join(costs(request)) or 'none', S)
  ask(backends, ENOUGH_TOKENS)
  acts_on = ', '.join(enc.acts_on()) or 'nothing'
  link = f'[`{name}`]({type(enc).__module__.replace(".", "/")}.py)'
  described = what_it_is(type(enc)), acts_on, summary
  return link, *described, *cells, reported or '—', cite(enc.paper)


def what_it_is(kind: type[Encoding]) -> str:
  """The first line of the file of a class, or of the class where the file has several encodings."""
  file = sys.modules[kind.__module__]
  has_several = sum(ENCODINGS[name].__module__ == kind.__module__ for name in BUILT_IN) > 1
  line = inspect.getdoc(kind if has_several else file).splitlines()[0]
  return line.removesuffix('.').replace('|', r'\|')


def class_attribute(kind: type[Encoding], attribute: str) -> str | None:
  """What a class says of itself, or a base class of it that is no encoding of its own."""
  others = {Encoding, *ENCODINGS.values()} - {kind}
  for base in kind.__mro__:
    if base in others:
      break
    if attribute in vars(base):
      return vars(base)[attribute]
  return DEFAULTS[attribute]


def cite(paper: str) -> str:
  """'Press et al. 2021, arXiv:2108.12409' as a link; several, parted by semicolons."""

  def link(source: str) -> str:
    text, _, place = source.rpartition(', ')
    place = place.replace('arXiv:', 'arxiv.org/abs/')
    return f'[{text}](https://{place})' if '/' in place else source

  return '; '.join(map(link, paper.split('; ')))


def backends(request: AttentionRequest) -> str:
  """Which backends of one device take this request, each asked on a platform where it runs."""

  def takes(name: str) -> bool:
    platform = NATIVE_PLATFORM.get(name, request.platform)
    return BACKENDS[name].refuse(dataclasses.replace(request, platform=platform)) is None

  found = [name for name in SHOWN if takes(name)]
  return 'all' if found == [*SHOWN] else ', '.join(f'`{name}`' for name in found)
