"""Looks of lines: one for each name, for good, and told apart by readers of every kind."""

import itertools
import random

import numpy as np
import pytest

from configs import addition, classic, needle, tasks
from configs.paper import kerple
from configs.studies import board
from posenc_jax.encodings import ENCODINGS
from posenc_jax.reporting.colors import COLORS, GREY, KNOWN, LOOKS, MARKERS, TEXT_GREY, looks
from posenc_jax.reporting.html.style import SYMBOLS
from posenc_jax.reporting.mpl.differences import IN_WORDS

# What stands together in studies of this repository and of papers.
STUDIES = {
  'classic': classic.ENCODINGS,
  'needle': needle.ENCODINGS,
  'tasks': tasks.ENCODINGS,
  'addition': [entry['encoding.name'] for entry in addition.sweep()],
  'kerple': kerple.ENCODINGS,
  'board': board.SELECTED,
} | {
  name: names.split()
  for name, names in {
    'relative biases': 't5 alibi kerple_log kerple_power sandwich fire dape rope',
    'forgetting': 'fox stick_breaking path cope selective_rope rope alibi nope',
    'forms of rope': 'rope xpos p_rope hope fope drope nope pope',
    'extensions of rope': 'rope rerope leaky_rerope self_extend dca resonance_rope',
    'positions that move': 'random_positions shape_offset sinusoidal learned alibi',
    'shifts of position': 'abacus position_coupling fire nope rope',
  }.items()
}
# How cones that lack one kind see linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHTS = {
  'usual': np.eye(3),
  'protanopia': np.array([
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ]),
  'deuteranopia': np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ]),
}  # fmt: skip
# Two that readers took for near twins, '#999933' and '#c9b450', are 0.108 apart for usual eyes.
APART = {'usual': 0.15, 'protanopia': 0.1, 'deuteranopia': 0.1}


def linear_rgb(color):
  """The light of '#rrggbb', 0 to 1."""
  rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
  return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(color, sight):
  """L, a, b of '#rrggbb' (Ottosson 2020)."""
  linear = np.clip(SIGHTS[sight] @ linear_rgb(color), 0, 1)
  cones = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ]) @ linear  # fmt: skip
  return np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
  ]) @ np.cbrt(cones)  # fmt: skip


def distance(a, b, sight):
  return np.linalg.norm(oklab(a, sight) - oklab(b, sight))


def of_names(names):
  return looks({name: name for name in names})


def test_the_measure_of_distance_is_what_it_is_said_to_be():
  assert oklab('#ffffff', 'usual') == pytest.approx([1, 0, 0], abs=1e-3)
  assert oklab('#ff0000', 'usual') == pytest.approx([0.628, 0.2249, 0.1258], abs=1e-3)
  assert (
    distance('#cc6677', '#44aa99', 'deuteranopia') < 0.06 < distance('#cc6677', '#44aa99', 'usual')
  )


def nearest(colors, sight):
  """The two colors that are hardest to tell apart, and their distance."""
  return min((distance(a, b, sight), a, b) for a, b in itertools.combinations(colors, 2))


@pytest.mark.parametrize('sight', SIGHTS)
@pytest.mark.parametrize('study', STUDIES)
def test_what_stands_together_has_colors_far_apart(study, sight):
  colors = [look.color for look in of_names(STUDIES[study]).values()]
  assert nearest(colors, sight)[0] > APART[sight], nearest(colors, sight)


@pytest.mark.parametrize('sight', SIGHTS)
def test_no_two_colors_are_near_and_none_is_the_grey_of_references(sight):
  assert nearest((*COLORS, GREY), sight)[0] > APART[sight], nearest((*COLORS, GREY), sight)


def test_colors_are_seen_on_white():
  for color in COLORS:
    assert np.linalg.norm(oklab(color, 'usual') - oklab('#ffffff', 'usual')) > 0.2, color


@pytest.mark.parametrize('color', [TEXT_GREY, *IN_WORDS.values()])
def test_small_letters_have_the_contrast_to_white_that_wcag_wants(color):
  luminance = np.dot([0.2126, 0.7152, 0.0722], linear_rgb(color))
  assert 1.05 / (luminance + 0.05) >= 4.5


def test_every_encoding_has_a_look_of_its_own_whoever_else_is_there():
  assert {*KNOWN} <= {*ENCODINGS}
  assert len({*of_names(KNOWN).values()}) == len(KNOWN) == len({*KNOWN})
  alone = {name: of_names([name])[name] for name in KNOWN}
  assert of_names(KNOWN) == alone
  shuffled = [*KNOWN, 'mine', 'yours']
  random.Random(0).shuffle(shuffled)
  assert {name: look for name, look in of_names(shuffled).items() if name in alone} == alone
  assert of_names(['mine']) == {'mine': ('#aa1155', 'o')}, 'in every process the same'


def test_the_order_of_lines_changes_nothing():
  labels = {f'rope, {n} steps': 'rope' for n in range(5)} | {
    f'line {n}': f'line {n}' for n in range(60)
  }
  labels['rope'] = 'rope'
  backward = dict(reversed(labels.items()))
  assert looks(labels) == looks(backward)
  assert list(looks(backward)) == list(backward)


def test_lines_of_one_label_share_its_color_and_differ_in_marker():
  found = looks({f'rope, L = {n}': 'rope' for n in range(12)} | {'rope': 'rope', 'alibi': 'alibi'})
  assert (found['rope'], found['alibi']) == (
    *of_names(['rope']).values(),
    *of_names(['alibi']).values(),
  )
  of_rope = [look for line, look in found.items() if line != 'alibi']
  assert len({*of_rope}) == len(of_rope)
  assert [look.color for look in of_rope].count(found['rope'].color) == len(MARKERS)


def test_labels_of_a_study_differ_in_color_as_long_as_there_are_colors():
  for known in (0, 1, 5):
    names = [*KNOWN[:known], *(f'line {n}' for n in range(len(COLORS) - known))]
    found = of_names(names)
    assert len({look.color for look in found.values()}) == len(COLORS)
    assert {name: found[name] for name in KNOWN[:known]} == of_names(KNOWN[:known])


def test_any_number_of_lines_has_looks():
  assert len({*of_names([f'line {n}' for n in range(LOOKS)]).values()}) == LOOKS
  assert len(of_names([f'line {n}' for n in range(2 * LOOKS)])) == 2 * LOOKS


def test_both_renderers_know_every_marker():
  from matplotlib.markers import MarkerStyle

  assert len({*MARKERS}) == len(MARKERS) == len({*SYMBOLS.values()})
  assert [*SYMBOLS] == [*MARKERS]
  assert all(MarkerStyle(marker).is_filled() for marker in MARKERS)
