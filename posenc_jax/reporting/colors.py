"""The color and marker of each encoding, the same in every figure and on the HTML page."""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

# No two are nearer than 0.1 in OKLab, for readers with protanopia or deuteranopia neither.
COLORS = (
  '#2222cc', '#dd5511', '#005500', '#1a1a1a', '#77cc00', '#00aaff',
  '#550077', '#aa1155', '#ff55cc', '#ff99aa', '#006699', '#6655ff',
)  # fmt: skip
MARKERS = 'osDXv^Pphd<>'  # as matplotlib names them
GREY = '#7f7f7f'  # of what is no encoding: reference lines, chance
TEXT_GREY = '#666666'  # of captions and notes: GREY is too light to be read in small letters

# The n-th name has the n-th look, so that names of one line below differ in color: what stands
# together in studies stands in one line, or in columns of its own. New names go to the end, or
# nowhere: a name that is not here has a look too.
KNOWN = (
  'rope', 'alibi', 't5', 'nope', 'learned', 'sinusoidal',
  'shaw', 'transformer_xl', 'deberta', 'fire', 'kerple_log', 'fox',

  'shape_offset', 'rerope', 'self_extend', 'dape', 'p_rope', 'cope',
  'sandwich', 'kerple_power', 'path', 'stick_breaking', 'drope', 'tupe',

  'music_transformer', 'pope', 'fope', 'dca', 'leaky_rerope', 'xpos',
  'hope', 'grape_a', 'random_positions', 'resonance_rope', 'position_coupling', 'abacus',

  'relative_projection', 'clipped_rope', 'rope_pp', 'string', 'grape_m', 'grape_m_context',
  'grape_ap', 'selective_rope', 'repo', 'vo_rope', 'nape', 'scale_invariant',

  'chain', 'heads', 'logn', 'axial_rope', 'asentmax_temperature', 'nope_scale',
  'llama4_temperature', 'kv_shift', 'ssmax', 'sink', 'softmax_plus_one', 'pose',

  'bam', 'cable', 'dape_v2', 'tapa', 'wavelet', 'carope', 'coca',
)  # fmt: skip
LOOKS = len(COLORS) * len(MARKERS)


class Look(NamedTuple):
  color: str  # '#rrggbb'
  marker: str  # one of MARKERS


def looks(labels: Mapping[str, str]) -> dict[str, Look]:
  """The look of each line.

  A line has the look of its label: an encoding's name, unless its study says otherwise. Where
  several would have one look, as lines of one label do, the others keep its color and have other
  markers. A label that is not in KNOWN has a color that no other label here has, as long as there
  is one. The order of the lines changes nothing.

  Args:
    labels: {line: its label}.
  """
  taken, found, number_of = set(), {}, {}
  for label in sorted({*labels.values()}, key=lambda label: (label not in KNOWN, label)):
    colors = {number % len(COLORS) for number in number_of.values()}
    number_of[label] = _number(label) if label in KNOWN else _of_free_color(_number(label), colors)
  # A line that is named as its label comes first: it keeps the look that it has elsewhere.
  for line in sorted(labels, key=lambda line: (line != labels[line], line)):
    number = _first_free(number_of[labels[line]], taken)
    taken.add(number)
    color = number % len(COLORS)
    # One marker further in each line of KNOWN: every pair of color and marker occurs once.
    marker = (color + number // len(COLORS)) % len(MARKERS)
    found[line] = Look(COLORS[color], MARKERS[marker])
  return {line: found[line] for line in labels}


def _number(name: str) -> int:
  """The number of a name's look, which no other name has any part in."""
  if name in KNOWN:
    return KNOWN.index(name)
  return zlib.crc32(name.encode()) % LOOKS


def _of_free_color(number: int, taken: set[int]) -> int:
  """The number, or the next one whose color is none of these; the number where all are taken."""
  following = ((number + step) % LOOKS for step in range(len(COLORS)))
  return next((other for other in following if other % len(COLORS) not in taken), number)


def _first_free(number: int, taken: set[int]) -> int:
  """The number, or the next that is free: of the same color, then of the colors after it."""
  for step in range(LOOKS):
    other = (number + len(COLORS) * step + step // len(MARKERS)) % LOOKS
    if other not in taken:
      return other
  return number  # more lines than looks
