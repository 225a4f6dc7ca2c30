"""Figures and reports from rows alone: what the figure shows, and that the scripts make all again
without jax.
"""

import io
import itertools
import math
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import (
  LENGTHS,
  NINE,
  bins,
  by_position,
  needles,
  of_documents,
  realistic,
  receptive_field,
  row,
  rows_of,
  tasks,
  trained_at,
)

from posenc_jax import storage
from posenc_jax.errors import UserError
from posenc_jax.reporting.colors import GREY, TEXT_GREY, looks
from posenc_jax.reporting.mpl import axes as figure_axes
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.mpl.axes import spread_labels
from posenc_jax.reporting.mpl.differences import BLUE, IN_WORDS, ORANGE
from posenc_jax.reporting.scores.collecting import collect
from scripts import figures as figures_script

ROOT = Path(__file__).parent.parent


def curves_named(axes, names):
  """{name: its line} of the lines drawn in the axes' own coordinates, dashed ones left out."""
  lines = [line for line in axes.lines if line.get_transform() == axes.transData]
  return {
    line.get_label(): line
    for line in lines
    if line.get_label() in names and line.get_linestyle() == '-'
  }


def test_the_figure_shows_each_line_with_its_own_look_its_band_and_its_name():
  runs = [f'encoding.name={label},seed=0' for label in NINE]
  figure = figures.draw(realistic(), runs, protocol='last_k', metric='ppl')
  axes, _ = figure.axes
  scores = collect(realistic(), metric='ppl')[0]
  curves = curves_named(axes, NINE)
  assert list(curves) == list(NINE)
  found = looks({label: label for label in NINE})
  for label, curve in curves.items():
    values = {length: s for length in LENGTHS if (s := scores.seed_scores(label, length))}
    assert list(curve.get_xdata()) == list(values)
    assert list(curve.get_ydata()) == pytest.approx([statistics.fmean(s) for s in values.values()])
    assert (curve.get_color(), curve.get_marker()) == found[label]
  assert [band.get_alpha() > 0 for band in axes.collections] == [True] * len(NINE)
  (shade,) = axes.patches  # lengths of the training
  assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx(
    (axes.get_xlim()[0], 128)
  )
  assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
  assert list(axes.get_xticks()) == list(LENGTHS)
  ticks = [tick.get_text() for tick in axes.get_xticklabels()]
  assert ticks == ['L\n128', '2 L\n256', '4 L\n512', '8 L\n1024', '16 L\n2048']
  texts = [text.get_text() for text in axes.texts]
  assert {'training length', 'learned (ends at L)', *NINE} - {'learned'} <= set(texts)
  assert 'perplexity' in axes.get_ylabel()


def test_the_second_panel_shows_what_becomes_of_each_lines_own_score():
  """In bits a byte whatever the first one shows: seed by seed, from 0 at L on."""
  for metric in ('ppl', 'bpb'):
    figure = figures.draw(realistic(), metric=metric)
    _, axes = figure.axes
    scores, *_ = collect(realistic(), metric='bpb')
    curves = curves_named(axes, NINE)
    assert {*curves} == {*NINE} - {'learned'}, 'which has no score past L'
    for label, curve in curves.items():
      own, *others = (scores.seed_scores(label, n) for n in LENGTHS)
      wanted = [0, *(statistics.fmean(some) - statistics.fmean(own) for some in others)]
      assert list(curve.get_xdata()) == [1, 2, 4, 8, 16]
      assert list(curve.get_ydata()) == pytest.approx(wanted)
      name = f'{label} {wanted[-1]:+.3f}'
      assert name in [text.get_text() for text in axes.texts]
    bottom, top = axes.get_ylim()
  assert (round(bottom, 2), top) == (-0.05, 0.3)


BITS = {
  'flat': {8: [2.0, 3.0], 16: [2.001, 3.019], 64: [2.0, 3.0199]},
  'gains': {8: [2.0, 2.0], 16: [1.9, 1.9], 64: [2.0, 2.0]},
  'rises': {8: [2.0, 2.0], 16: [2.2, 2.2], 64: [4.2, 4.2]},
  'ends': {8: [2.0, 2.0], 16: ['beyond_table'] * 2, 64: ['beyond_table'] * 2},
  'fails': {8: [2.0, 2.0], 16: [2.0, 2.0], 64: [2.0, 'not_finite']},
}


@pytest.mark.parametrize(
  ('lines', 'title'),
  [
    (BITS, 'Of 5 encodings, 2 hold to 8 L within 0.02 bits per byte; 1 gains more at some length'),
    (
      ['rises', 'ends', 'fails'],
      'Of 3 encodings, none holds to 8 L within 0.02 bits per byte; none gains more at any',
    ),
    (['flat', 'rises'], 'Of 2 encodings, 1 holds to 8 L within 0.02 bits per byte'),
    (['rises'], 'rises is not shown to hold to 8 L within 0.02 bits per byte'),
    (['gains'], 'gains holds to 8 L within 0.02 bits per byte; it gains more at some length'),
    (['ends'], 'Extrapolation, last_k'),
  ],
)
def test_the_title_says_what_the_rows_say(lines, title):
  figure = figures.draw(of_documents({line: BITS[line] for line in lines}))
  assert figure.get_suptitle().replace('\n', ' ').startswith(title)


SHARES = {
  'keeps': {8: [1.0, 0.8], 16: [0.9, 0.8], 64: [0.9, 0.7]},  # 0.8 of 0.9
  'forgets': {8: [1.0, 1.0], 16: [1.0, 1.0], 64: [0.8, 0.8]},
  'guesses': {8: [0.1, 0.1], 16: [0.1, 0.1], 64: [0.1, 0.1]},
  'fails': {8: [1.0, 1.0], 16: [1.0, 1.0], 64: [1.0, 'not_finite']},
}


def shares(lines, **more):
  """Rows of a task in which guessing scores 0.1."""
  fields = dict(protocol='copy', k=None, document=None) | more
  return [
    row(line, seed, n, **fields, **score)
    for line in lines
    for n, values in SHARES[line].items()
    for seed, value in enumerate(values)
    for score in (
      dict(metric='exact_match', **{'status' if isinstance(value, str) else 'value': value}),
      dict(metric='chance', value=0.1),
    )
  ]


@pytest.mark.parametrize(
  ('lines', 'more', 'title'),
  [
    (
      SHARES,
      {},
      'copy: of 4 encodings, 3 learn it and 1 keeps 85 % of its exact match at L up to 8 L with '
      'every seed',
    ),
    (
      ['guesses', 'fails'],
      {},
      'copy: of 2 encodings, 1 learns it and none keeps 85 % of its exact match at L',
    ),
    (['keeps'], {'train_length': 64}, 'Extrapolation, copy'),
    (['keeps'], {'train_length': 4}, 'Extrapolation, copy'),
  ],
)
def test_the_title_says_which_accuracies_are_kept(lines, more, title):
  figure = figures.draw(shares(lines, **more), protocol='copy', metric='exact_match')
  assert figure.get_suptitle().replace('\n', ' ').startswith(title)


def test_lines_that_leave_the_panel_end_with_an_arrow_where_they_leave():
  far = BITS | {'falls': {8: [2.0], 16: [1.9], 64: [0.4]}}
  _, axes = figures.draw(rows_of(far)).axes
  arrows = {line.get_marker(): line.get_data() for line in axes.lines if len(line.get_xdata()) == 1}
  drawn = {line: [float(x[0]) for x in place] for line, place in arrows.items() if line in '^v'}
  # rises: from 0.2 at 2 L to 2.2 at 8 L; falls: from -0.1 to -1.6, where the panel ends at -1
  assert drawn['^'] == pytest.approx([2 * 4**0.05, 0.3])
  assert drawn['v'] == pytest.approx([2 * 4 ** (0.9 / 1.5), -1.0])


def test_dashed_lines_that_leave_the_panel_have_an_arrow_and_stand_in_the_caption():
  windowed = {'rises': {8: [2.0], 16: [2.2], 64: [2.7]}, 'flat': {8: [2.5], 16: [2.6], 64: [2.6]}}
  plain = {line: {8: [2.0], 16: [2.0], 64: [2.0]} for line in windowed}
  rows = rows_of(plain) + rows_of(windowed, control='windowed')
  figure = figures.draw(rows)
  arrows = [line for line in figure.axes[1].lines if line.get_marker() == '^']
  # rises: from 0.2 at 2 L to 0.7 at 8 L; flat is never within the panel
  assert sorted(line.get_xdata()[0] for line in arrows) == pytest.approx([1, 2 * 4**0.2])
  assert [line.get_ydata()[0] for line in arrows] == [0.3] * 2
  note = ' '.join(figure.get_supxlabel().split())
  assert 'Dashed beyond the panel: flat +0.600, rises +0.700.' in note
  many = {f'line{n}': {8: [2.0], 16: [3.0 + n / 10]} for n in range(12)}
  rows += rows_of({line: {8: [2.0], 16: [2.0]} for line in many})
  rows += rows_of(many, control='windowed')
  note = ' '.join(figures.draw(rows).get_supxlabel().split())
  assert 'line7 +1.700, 4 more.' in note
  within = figures.draw(rows_of(plain) + rows_of(plain, control='windowed'))
  assert 'beyond the panel: ' not in within.get_supxlabel()


def test_longer_windows_that_have_fewer_starts_are_not_said_to_hold():
  bits = {'rope': {8: [2.0], 16: [2.0]}}
  figure = figures.draw(rows_of(bits, protocol='sliding', k=None), protocol='sliding')
  assert figure.get_suptitle() == 'Extrapolation, sliding'
  note = ' '.join(figure.get_supxlabel().split())
  assert 'Longer windows have fewer starts, and that alone makes them better.' in note
  assert 'have fewer starts' not in figures.draw(rows_of(bits)).get_supxlabel()


def test_changes_of_other_key_tokens_at_each_length_are_not_drawn():
  bits = {'rope': {8: [2.0], 16: [2.0]}}
  figure = figures.draw(rows_of(bits, protocol='long_ppl', k=None), protocol='long_ppl')
  (axes,) = figure.axes
  assert list(curves_named(axes, ['rope'])['rope'].get_ydata()) == pytest.approx([2.0, 2.0])
  assert 'own score at L' not in figure.get_supxlabel()


def test_lines_of_several_training_lengths_are_compared_with_themselves():
  figure = figures.draw(trained_at())
  axes, changes = figure.axes
  assert [tick.get_text() for tick in axes.get_xticklabels()] == ['32', '64', '128', '256']
  assert [tick.get_text() for tick in changes.get_xticklabels()] == ['L', '2 L', '4 L', '8 L']
  assert figure.get_suptitle() == 'Extrapolation, last_k'
  assert 'The title goes by' not in figure.get_supxlabel()
  (shade,) = axes.patches  # what all lines have seen
  assert shade.get_x() + shade.get_width() == 32
  dotted = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ':']
  assert dotted == [32, 64, 128]
  colors = {
    line.get_color() for line in curves_named(axes, axes.get_legend_handles_labels()[1]).values()
  }
  assert colors == {look.color for look in looks({'alibi': 'alibi', 't5': 't5'}).values()}


def test_references_are_grey_and_nothing_is_found_about_them():
  """A model that was trained at 32 is compared with its score at 8, as the others are."""
  rows = of_documents({'rope': BITS['rises']})
  rows += of_documents({'long': BITS['gains']}, train_length=32)
  rows += of_documents({'n-gram (5 bytes)': BITS['flat']}, encoding='n-gram')
  names = ('rope', 'long', 'n-gram (5 bytes)')
  figure = figures.draw(rows, references=('long',))
  for axes in figure.axes:
    drawn = curves_named(axes, names)
    assert [name for name in names if drawn[name].get_color() == GREY] == ['long', names[2]]
  assert list(curves_named(figure.axes[1], ['long'])['long'].get_ydata()) == pytest.approx(
    [0, -0.1, 0]
  )
  assert figure.get_suptitle().startswith('rope is not shown to hold to 8 L')
  assert 'Grey: references.' in figure.get_supxlabel()
  (shade,) = figure.axes[0].patches
  assert shade.get_x() + shade.get_width() == 8


def test_only_lines_of_the_labels_are_drawn_where_there_are_some():
  rows = rows_of({name: BITS['flat'] for name in ('rope', 'alibi', 't5')})
  runs = [f'encoding.name={name},seed={seed}' for name in ('rope', 't5', 'x') for seed in range(3)]
  figure = figures.draw(rows, runs, labels=('t5', 'rope', 'not there'))
  for axes in figure.axes:
    assert {*curves_named(axes, ('rope', 'alibi', 't5'))} == {'rope', 't5'}
  # of runs without rows, no label is known
  assert [line for line in figure.get_supxlabel().split('\n') if 'no rows' in line] == [
    'no rows of label not there'
  ]
  with pytest.raises(
    UserError, match=r"labels=\['x'\]: no rows of these; allowed: alibi, rope, t5"
  ):
    figures.draw(rows, labels=('x',))


def test_lines_that_are_not_drawn_are_compared_with_and_judged_by():
  past = {'rope': 3, 'a': 2.2, 'b': 2.4}
  bits = {name: {8: [2.0, 2.1], 16: [x, x + 0.1]} for name, x in past.items()}
  rows = [
    r | {'document': name}
    for name in 'xyz'
    for control in (None, 'windowed')
    for r in rows_of(bits, control=control)
  ]
  every = figures.draw(rows, form='differences', baseline='rope')
  some = figures.draw(rows, form='differences', baseline='rope', labels=('a', 'b', 'c'))
  names = lambda figure: [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
  assert (names(every), names(some)) == (['rope', 'b', 'a'], ['b', 'a'])
  assert '"rope" where it attends to a window of L' in some.get_supxlabel()
  assert some.get_supxlabel().endswith('no rows of label c')
  few = [r for r in rows if (r['label'], r['document']) not in {('a', 'z'), ('b', 'z')}]
  figure = figures.draw(few, labels=('a', 'b'))
  assert 'incomplete: a; b' in figure.get_supxlabel()
  assert 'rope' not in figure.get_supxlabel()


def test_controls_are_drawn_in_dashes_of_their_own_in_the_color_of_their_line():
  rows = realistic()
  with_sink = [r | dict(control='windowed_with_sink') for r in rows if r['control'] == 'windowed']
  draw = lambda *names: figures.draw(rows + with_sink, drawn_controls=names)
  plain, both = draw().axes[1], draw('windowed', 'windowed_with_sink')
  dashed = [line for line in both.axes[1].lines if line.get_linestyle() in ('--', '-.')]
  assert len(both.axes[1].lines) == len(plain.lines) + len(dashed)
  drawn = curves_named(both.axes[1], NINE)
  dashes = {
    (line.get_label(), line.get_linestyle()): line for line in dashed if len(line.get_xdata()) > 1
  }
  named = {*drawn} & ({*NINE} - {'learned'})
  assert {*dashes} == {*itertools.product(named, ('--', '-.'))}
  assert all(line.get_color() == drawn[name].get_color() for (name, _), line in dashes.items())
  note = ' '.join(both.get_supxlabel().split())
  assert 'Dashed: attention windowed at the training length. Dash-dotted: attention ' in note
  assert 'which stay visible.' in note
  assert 'Dashed' not in draw().get_supxlabel()
  assert 'Dashed: attention windowed at the training length, but' in ' '.join(
    draw('windowed_with_sink').get_supxlabel().split()
  )


@pytest.mark.parametrize(('at_16', 'pieces'), [([2.1, 'not_finite'], 2), ([], 1)])
def test_a_line_has_a_gap_where_a_seed_failed_and_goes_past_what_nobody_asked_for(at_16, pieces):
  bits = {8: [2.0, 2.1], 16: at_16, 32: [2.2, 2.3], 64: [2.1, 2.2]}
  rows = rows_of({'rope': bits, 'alibi': {n: [2.0, 2.0] for n in bits}})
  for axes, unit in zip(figures.draw(rows).axes, (1, 8), strict=True):
    rope = curves_named(axes, ['rope'])['rope']
    points = {unit * x: y for x, y in zip(*rope.get_data(), strict=True)}
    assert [*points] == [8, *([16] if at_16 else []), 32, 64]
    assert [x for x, y in points.items() if math.isnan(y)] == ([16] if at_16 else [])
    assert sorted(len(band.get_paths()) for band in axes.collections) == [1, pieces]


@pytest.mark.parametrize('kind', ['png', 'pdf'])
def test_the_same_figure_is_the_same_bytes(kind, tmp_path):
  made = []
  for name in ('first', 'second'):
    figures.save(figures.draw(rows_of(BITS)), tmp_path / name)
    made.append((tmp_path / f'{name}.{kind}').read_bytes())
  assert made[0] == made[1]
  assert b'CreationDate' not in made[0]


def test_a_point_between_two_gaps_has_a_marker():
  bits = {n: [2.0] for n in range(8, 40)} | {9: ['not_finite'], 11: ['not_finite']}
  left, _ = figures.draw(rows_of({'rope': bits})).axes
  rope = curves_named(left, ['rope'])['rope']
  assert {x for x in rope.get_xdata()[rope.get_markevery()]} >= {8, 10}
  assert len(rope.get_markevery()) < 20


def test_names_are_kept_apart_in_order_and_no_further_than_needed():
  noise = random.Random(0)
  for number in (1, 2, 9, 19):
    heights = sorted(noise.random() ** 3 for _ in range(number))
    moved = spread_labels(heights, 0.05)
    assert all(b - a > 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights))
  assert spread_labels([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]


@pytest.mark.parametrize(
  'bits',
  [{'rope': {8: ['no_weight']}}, {'rope': {8: [2.0]}}, {'rope': {8: [2.0, 30.0], 16: [2.1, 2.2]}}],
)
def test_a_figure_of_little_or_nothing_is_drawn(bits, tmp_path):
  figures.draw(rows_of(bits)).savefig(tmp_path / 'figure.png', dpi=40)


def curves_of(axes):
  """{name: (xs, ys)} of the lines drawn in the axes' own coordinates, and those that are dashed."""
  lines = [
    line
    for line in axes.lines
    if line.get_transform() == axes.transData and len(line.get_xdata()) > 2
  ]
  points = lambda line: (list(line.get_xdata()), list(line.get_ydata()))
  return {line.get_label(): points(line) for line in lines if line.get_linestyle() == '-'}, [
    points(line) for line in lines if line.get_linestyle() == '--'
  ]


@pytest.mark.parametrize('values', [(0.0, 0.0), (0.0, 0.2)])
def test_a_share_of_0_has_a_place_on_its_axis(values, tmp_path):
  of_heads = {'protocol': 'sink_rate', 'metric': 'sink_rate', 'document': None, 'k': None}
  pairs = zip(('rope', 'sigmoid'), values, strict=True)
  rows = [row(label, value=value, **of_heads) for label, value in pairs]
  figure = figures.draw(rows, protocol='sink_rate', metric='sink_rate')
  figure.savefig(tmp_path / 'figure.png', dpi=40)
  (axes,) = figure.axes
  assert (axes.get_yscale(), axes.get_ylim()) == ('linear', (-0.02, 1.04))


@pytest.mark.parametrize(('least', 'scale'), [(0.0, 'linear'), (0.5, 'log')])
def test_a_score_of_0_has_a_place_on_its_axis(least, scale, tmp_path):
  """Mean distances of attention may be 0, and so may an own metric."""
  of_heads = {'protocol': 'attention_distance', 'metric': 'attention_distance', 'document': None}
  rows = [
    row(label, value=value, k=None, **of_heads) for label, value in (('a', least), ('b', 9.0))
  ]
  figure = figures.draw(rows, protocol='attention_distance', metric='attention_distance')
  figure.savefig(tmp_path / 'figure.png', dpi=40)
  assert figure.axes[0].get_yscale() == scale


def test_accuracy_has_a_linear_axis_from_0_to_1_and_chance_is_dotted():
  (axes,) = figures.draw(tasks(), protocol='copy', metric='exact_match').axes
  assert (axes.get_yscale(), axes.get_ylim()) == ('linear', (-0.02, 1.04))
  drawn = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == ':']
  assert [0.1] * 6 in drawn
  assert list(axes.get_xticks()) == [4, 8, 12, 16, 24, 32]
  (axes,) = figures.draw(
    [r for r in tasks() if r['metric'] != 'chance'], protocol='copy', metric='exact_match'
  ).axes
  assert [0.1] * 6 not in [list(line.get_ydata()) for line in axes.lines]


def test_each_seed_of_an_accuracy_is_a_thin_line_and_there_is_no_band():
  rows = [r for r in tasks() if (r['label'], r['seed'], r['length']) != ('t5', 1, 32)]
  (axes,) = figures.draw(rows, protocol='copy', metric='exact_match').axes
  assert not axes.collections
  thin = {
    tuple(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_linewidth() == 0.9
  }
  of = lambda label, seed: [
    r for r in rows if (r['label'], r['seed'], r['metric']) == (label, seed, 'exact_match')
  ]
  points = lambda label, seed: tuple(
    (r['length'], r['value']) for r in of(label, seed) if r['protocol'] == 'copy'
  )
  assert thin == {points(label, seed) for label in ('nope', 't5', 'alibi') for seed in range(3)}
  assert 'thin: each seed' in axes.figure.get_supxlabel()
  (axes,) = figures.draw(tasks(1), protocol='copy', metric='exact_match').axes
  assert 'each seed' not in axes.figure.get_supxlabel()


def test_loss_by_position_is_drawn_at_the_middle_of_bins_and_the_control_is_dashed():
  rows = by_position() + by_position(length=64)  # the longest windows are drawn
  (axes,) = figures.draw(rows, form='positions', metric='bpb').axes
  curves, dashed = curves_of(axes)
  assert (len(curves), len(dashed)) == (3, 3)
  firsts = bins(1024)
  ends = [*firsts[1:], 1024]
  xs, ys = curves['rope']
  assert xs == pytest.approx(
    [math.sqrt((first + 1) * end) for first, end in zip(firsts, ends, strict=True)]
  )
  plain = [r for r in rows if (r['label'], r['length'], r['control']) == ('rope', 1024, None)]
  of = lambda first: [r['bpb'] for r in plain if r['position'] == first]
  assert ys == pytest.approx([statistics.fmean(of(first)) for first in firsts])
  (axes,) = figures.draw(rows, form='positions', metric='bpb', length=64, drawn_controls=()).axes
  curves, dashed = curves_of(axes)
  assert (len(curves['rope'][0]), dashed) == (len(bins(64)), [])


def test_the_receptive_field_is_a_sum_of_shares_and_names_the_tokens_with_99_per_cent():
  (axes,) = figures.draw(receptive_field(), form='receptive_field').axes
  curves = [
    line
    for line in axes.lines
    if line.get_transform() == axes.transData and len(line.get_xdata()) > 2
  ]
  assert [list(line.get_xdata()) for line in curves] == [[*bins(511)[1:], 511]] * 2
  for rank, line in zip((1, 0), curves, strict=True):  # alibi, rope
    decays = [80 - 60 * rank - seed for seed in range(2)]
    # of a geometric series
    share = lambda n, decay: (1 - math.exp(-n / decay)) / (1 - math.exp(-511 / decay))
    wanted = [statistics.fmean(share(n, decay) for decay in decays) for n in line.get_xdata()]
    assert list(line.get_ydata()) == pytest.approx(wanted)
  texts = [text.get_text() for text in axes.texts]
  assert {'rope (384)', 'alibi (96)'} <= set(texts)


def test_the_heat_map_has_a_panel_a_line_with_depth_down_and_length_across():
  rows = [r for r in needles() if (r['label'], r['length'], r['position']) != ('alibi', 512, 50)]
  figure = figures.draw(rows, form='heat_map')
  panels = {axes.get_title('left'): axes for axes in figure.axes}
  assert set(panels) == {'rope', 'alibi', 'nope', 't5'}
  values = [
    r['value'] for r in rows if (r['label'], r['length'], r['position']) == ('nope', 256, 20)
  ]
  grid = panels['nope'].images[0].get_array()
  assert grid.shape == (11, 4)
  assert len(values) == 2
  assert grid[2, 2] == min(values), 'the worst seed'
  assert [tick.get_text() for tick in panels['rope'].get_yticklabels()][::5] == [
    '0 %',
    '50 %',
    '100 %',
  ]
  ticks = [tick.get_text() for tick in panels['rope'].get_xticklabels()]
  assert ticks == ['0.5 L\n64', 'L\n128', '2 L\n256', '4 L\n512']
  assert [text.get_text() for text in panels['alibi'].texts].count('—') == 1
  assert 'missing: alibi at 512 (depth 50 %)' in figure.get_supxlabel()


def test_panels_of_a_heat_map_share_their_colors():
  rows = [
    row(label, 0, 16, bits, protocol='text_passkey', position=50, control=None, k=None)
    for label, bits in (('rope', 9.0), ('alibi', 1.5))
  ]
  figure = figures.draw(rows, form='heat_map', metric='bpb')  # the one protocol with depths
  ends = {axes.images[0].get_clim() for axes in figure.axes}
  assert len(ends) == 1
  assert ends.pop()[1] == max(axes.images[0].get_array().max() for axes in figure.axes)


@pytest.mark.parametrize(
  ('rows', 'settings', 'message'),
  [
    (tasks(), dict(form='heat_map', protocol='copy'), r"protocol='copy' have no position"),
    (realistic(), dict(form='heat_map'), r'protocol=None; allowed: none of these rows has a depth'),
    (
      needles() + [r | {'protocol': 'passkey'} for r in needles()],
      dict(form='heat_map'),
      r'protocol=None; allowed: needle, passkey',
    ),
    (
      [r | {'protocol': 'text_variables'} for r in needles()],
      dict(form='heat_map'),
      r'protocol=None; allowed: none of these rows has a depth',
    ),
    *(
      (
        realistic(),
        dict(form=form) | length,
        f'no rows of {protocol}; allowed: a study with {protocol} in eval.protocols',
      )
      for form, protocol in (('positions', 'by_position'), ('receptive_field', 'receptive_field'))
      for length in ({}, {'length': 1024})
    ),
    (by_position(), dict(form='positions', length=77), r'no rows of 77 tokens; allowed: 1024'),
    (
      realistic(),
      dict(protocol='sliding'),
      r"^no rows of protocols=\['sliding'\]; allowed: last_k",
    ),
    (realistic(), dict(metric='bbp'), r"^metric='bbp'; did you mean 'bpb'\?"),
  ],
)
def test_a_figure_of_what_there_is_not_is_one_line(rows, settings, message):
  with pytest.raises(UserError, match=message):
    figures.draw(rows, **settings)


@pytest.mark.parametrize('form', figures.FORMS)
def test_every_form_is_drawn_whole_of_one_seed_and_of_a_run_that_lacks_rows(form, tmp_path):
  rows, settings = {
    'lengths': (realistic(1), {}),
    'positions': (by_position(1), {'length': 1024}),
    'receptive_field': (receptive_field(1), {}),
    'heat_map': (needles(1), {}),
    'differences': (realistic(1), {}),
  }[form]
  for some in (rows, rows[:-3]):
    figures.draw(some, form=form, **settings).savefig(tmp_path / 'figure.png', dpi=40)


def of_methods(bits, control=None):
  """Rows of {label: {length: bits}} of eight documents, a little noise in each."""
  noise = random.Random(0)
  return [
    row(label, 0, length, value + 0.1 * d + noise.gauss(0, 0.001), f'd{d}', control=control)
    for label, by_length in bits.items()
    for length, value in by_length.items()
    for d in range(8)
  ]


def test_a_point_is_the_difference_from_the_truncated_baseline():
  bits = {'rope': {8: 1.0, 16: 3.0}, 'yarn': {8: 1.0, 16: 0.9}, 'logn': {8: 1.0, 16: 1.0}}
  rows = of_methods(bits) + of_methods({'rope': {16: 1.0}}, 'truncated')
  figure = figures.draw(rows, form='differences')
  (axes,) = figure.axes
  points = [line for line in axes.lines if line.get_marker() == 'o']
  means = [line.get_xdata()[0] for line in points]
  assert means == pytest.approx([2.0, 0.0, -0.1], abs=0.002)  # the best is on top
  assert [label.get_text() for label in axes.get_yticklabels()] == ['rope', 'logn', 'yarn']
  colors = [ORANGE, GREY, BLUE]
  assert [point.get_color() for point in points] == colors
  assert [text.get_color() for text in axes.texts] == [IN_WORDS[color] for color in colors]
  assert figure._supxlabel.get_color() == TEXT_GREY
  assert axes.get_title('left').startswith(
    'At 2 L, 1 of 3 lines are better, each by its own 95 % interval; yarn by the most, 0.1'
  )
  note = ' '.join(figure.get_supxlabel().split())
  assert 'from the line "rope" where it is given the last L tokens alone (L = 8)' in note
  short = [
    r | {'label': 'short', 'run': f'short {r["run"]}', 'train_length': 4}
    for r in of_methods({'logn': {8: 1.0, 16: 1.0}})
  ]
  figure = figures.draw(rows + short, form='differences', baseline='rope')
  assert '(L = 8)' in figure.get_supxlabel()  # of the baseline, not of the shortest line
  assert figure.axes[0].get_title('left').startswith('At 2 L')
  of_four = of_methods({'rope': {4: 1.0, 16: 3.0}, 'logn': {4: 1.0, 16: 1.0}})
  of_four += of_methods({'rope': {16: 1.0}}, 'truncated')
  both = rows + [
    r | {'label': f'short {r["label"]}', 'run': f'short {r["run"]}', 'train_length': 4}
    for r in of_four
  ]
  figure = figures.draw(both, form='differences')
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == 'yarn'
  note = ' '.join(figure.get_supxlabel().split())
  assert 'not drawn, compared with short rope: short logn' in note
  figure = figures.draw(both, form='differences', labels=['short logn'])
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ['short logn']
  assert 'not drawn' not in figure.get_supxlabel()
  worse = of_methods({'rope': {8: 1.0, 16: 3.0}}) + of_methods({'rope': {16: 1.0}}, 'truncated')
  title = figures.draw(worse, form='differences').axes[0].get_title('left')
  assert title == 'At 2 L, none of 1 lines is better by its own 95 % interval'
  with pytest.raises(UserError, match='length=8 has no differences; allowed: 16'):
    figures.draw(rows, form='differences', length=8)
  farther = rows + of_methods({'yarn': {32: 1.0}, 'rope': {32: 1.0}})
  farther += of_methods({'rope': {32: 1.0}}, 'truncated')
  with pytest.raises(UserError, match=r'length=32 has no differences; allowed: 16$'):
    figures.draw(farther, form='differences', length=32, labels=['logn'])
  with pytest.raises(UserError, match=r"labels=\['t5'\] have no differences; allowed: .*yarn"):
    figures.draw(rows + of_methods({'t5': {8: 1.0}}), form='differences', labels=['t5'])
  with pytest.raises(UserError, match='allowed: rows of that control'):
    figures.draw(of_methods(bits), form='differences')


@pytest.mark.parametrize(
  ('far', 'ticks'),
  [
    (0.004, [-0.001, 0, 0.001, 0.002, 0.005]),
    (0.04, [0, 0.01, 0.02]),
    (3.0, [-0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
  ],
)
def test_the_axis_of_differences_names_round_numbers_that_do_not_overlap(far, ticks):
  bits = {'rope': {8: 1.0, 16: 1 + far}, 'yarn': {8: 1.0, 16: 1 - far / 30}}
  rows = of_methods(bits) + of_methods({'rope': {16: 1.0}}, 'truncated')
  figure = figures.draw(rows, form='differences')
  (axes,) = figure.axes
  figure.savefig(io.BytesIO(), dpi=40)
  assert list(axes.get_xticks()) == ticks
  boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
  assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_without_intervals_the_figure_says_so():
  bits = {'rope': {8: 1.0, 16: 3.0}, 'yarn': {8: 1.0, 16: 0.9}}
  rows = of_methods(bits) + of_methods({'rope': {16: 1.0}}, 'truncated')
  few = [row for row in rows if row['document'] < 'd4']
  figure = figures.draw(few, form='differences')
  assert figure.axes[0].get_title('left').startswith('At 2 L, yarn is lowest of 2 lines; too few')
  note = ' '.join(figure.get_supxlabel().split())
  assert 'No intervals: they need rows of the same 6 or more single documents.' in note
  assert 'Bars' not in figure.get_supxlabel()


def test_a_cell_is_the_worst_seed_and_the_title_says_how_many_find_all():
  fields = dict(protocol='needle', k=None, document=None, metric='exact_match')
  found = {0: (0.999, 1.0, 1.0), 50: (1.0, 1.0, 0.4), 100: (1.0, 1.0, 1.0)}
  rows = [
    row(label, seed, 16, position=depth, value=1.0 if label == 'nope' else value, **fields)
    for label in ('rope', 'nope')
    for depth, values in found.items()
    for seed, value in enumerate(values)
  ]
  figure = figures.draw(rows, form='heat_map')
  nope, rope = figure.axes
  assert rope.images[0].get_array().ravel().tolist() == [0.999, 0.4, 1.0]
  texts = [text.get_text() for text in rope.texts]
  assert [text for text in texts if len(text) < 9] == ['0.99', '0.40', '1']
  assert '1 of 3 seeds right in every cell' in texts
  assert '3 of 3 seeds right in every cell' in [text.get_text() for text in nope.texts]
  assert 'Cells: the worst of seeds 0, 1, 2' in figure.get_supxlabel()
  assert 'Mean' not in figure.get_supxlabel()


def test_nothing_of_a_heat_map_overlaps():
  figure = figures.draw(needles(), form='heat_map')
  figure.savefig(io.BytesIO(), dpi=40)
  for panel in figure.axes:
    labels = [*panel.texts, *panel.get_xticklabels(), panel.title, panel._left_title]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_heat_map_of_depths_that_only_some_lengths_have_is_drawn():
  rows = needles(1, lines=('rope',), lengths=(64,), depths=(0, 50))
  rows += needles(1, lines=('rope',), lengths=(128,), depths=(100,))
  panel = figures.draw(rows, form='heat_map').axes[0]
  assert [text.get_text() for text in panel.texts].count('—') == 3


@pytest.mark.parametrize('train_length', [1, 2**40])
def test_a_training_length_beyond_the_axis_pushes_nothing_away(train_length, tmp_path):
  rows = [row('rope', length=n, train_length=train_length) for n in (8, 16)]
  figure = figures.draw(rows)
  figure.savefig(tmp_path / 'figure.png', dpi=20)  # matplotlib warns of axes without room
  assert 'training length' not in [text.get_text() for text in figure.axes[0].texts]
  assert len(figure.axes[0].patches) == (train_length > 8)


@pytest.mark.parametrize('train_length', [1, 8, 126, 127])
def test_the_name_of_the_training_length_reaches_no_name_of_a_line(train_length):
  lines = 'abcdefghi'
  rows = [row | {'train_length': train_length} for row in receptive_field(1, lines[:1], 128)]
  rows = [row | {'run': line, 'label': line} for line in lines for row in rows]
  figure = figures.draw(rows, form='receptive_field')
  figure.draw_without_rendering()  # which places all that has a place
  (name,) = [text for text in figure.axes[0].texts if text.get_text() == 'training length']
  others = [text for text in figure.axes[0].texts if text.get_text().endswith(')')]
  assert len(others) == len(lines)
  assert not any(name.get_window_extent().overlaps(other.get_window_extent()) for other in others)


def test_very_many_notes_leave_room_for_the_curves(tmp_path):
  value_of = lambda n: 'no_weight' if n % 2 else 2.0
  rows = rows_of({f'a long name of line {n}': {8: [2.0], 16: [value_of(n)]} for n in range(160)})
  figure = figures.draw(rows)
  figure.savefig(tmp_path / 'figure.png', dpi=20)
  assert figure.get_supxlabel().endswith('\n... and more, which stands below the table.')


def test_the_scripts_make_all_again_without_jax(tmp_path):
  storage.append_rows(tmp_path / 'rows.jsonl', realistic(1))
  study = tmp_path / 'study.py'
  study.write_text(
    'def get_config(): ...\n'
    'def table():\n'
    "  return [dict(metric='ppl', controls=False), dict(form='training_lengths', metric='ppl')]\n"
    'def figures():\n'
    "  return {'one': dict(metric='bpb'), 'two': dict(form='lengths', drawn_controls=())}\n"
  )
  code = """
import runpy, sys
arguments = sys.argv[1:]
for script in ('table', 'figures'):
  sys.argv = [script, *arguments]
  try:
    runpy.run_path(f'scripts/{script}.py', run_name='__main__')
  except SystemExit as end:
    assert not end.code, end.code
assert not {'jax', 'flax', 'orbax'} & sys.modules.keys()
"""
  command = [sys.executable, '-W', 'error', '-c', code, tmp_path, f'--config={study}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert {path.name for path in tmp_path.iterdir()} >= {
    'table.md',
    'table.tex',
    'table.csv',
    *('one.png', 'one.pdf', 'two.png', 'two.pdf'),
  }
  assert 'Perplexity per token' in done.stdout
  assert '…' not in done.stdout
  assert 'transformer_xl' in done.stdout
  assert 'last_k, windowed' not in done.stdout


def test_a_folder_may_stand_behind_flags(tmp_path):
  storage.append_rows(tmp_path / 'rows.jsonl', realistic(1))
  figures_script.main([f'--out={tmp_path / "out"}', str(tmp_path)])
  assert (tmp_path / 'out' / 'extrapolation.pdf').exists()


def test_figures_of_nothing_says_what_there_is():
  with pytest.raises(
    UserError, match=r'^no arguments; allowed: DIR.*--config=.*--encoding=NAME.*--classic.*$'
  ):
    figures_script.main([])


def test_nothing_of_reporting_imports_jax():
  """Neither at import time nor through another module of the package."""
  code = """
import pkgutil, sys
import posenc_jax.reporting as reporting
for module in pkgutil.walk_packages(reporting.__path__, 'posenc_jax.reporting.'):
  __import__(module.name)
assert not {'jax', 'flax', 'optax', 'orbax'} & sys.modules.keys()
"""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_characters_that_the_font_lacks_are_those_of_another_that_is_there(monkeypatch):
  import matplotlib as mpl

  monkeypatch.setattr(figure_axes, 'EAST_ASIAN', ('No Such Font', 'DejaVu Serif'))
  with figure_axes.as_text():
    assert mpl.rcParams['font.family'] == ['sans-serif', 'DejaVu Serif']
