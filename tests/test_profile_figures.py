"""Figures of profiles and the classic curves: any encoding is drawn, and the numbers that are drawn
are those of formulas.
"""

import math
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from kinds import daily_if, representatives
from matplotlib.text import Text

from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.alibi import slopes
from posenc_jax.errors import UserError
from posenc_jax.inspection import classic_curves, profiles
from posenc_jax.reporting.mpl.classic_figures import CLASSIC
from posenc_jax.reporting.mpl.profile_figure import draw, draw_encoding
from scripts import figures

SCRIPT = Path(__file__).parent.parent / 'scripts' / 'figures.py'
SMALL = dict(heads=2, head_dim=8, train_length=24)
DISTANCES = np.arange(300)


def measured(spec, length=24, samples=16, **sizes):
  return profiles.against_distance(
    profiles.from_spec(spec, **{**SMALL, **sizes}, seed=0), length, samples, 0
  )


def lines(axes):
  return [line for line in axes.lines if line.get_transform() == axes.transData]


def test_a_title_is_text_and_no_formula():
  """The folder of a run, whose layer is drawn, may have any name."""
  enc = profiles.from_spec('alibi', **SMALL, seed=0)
  figure = draw_encoding(r'cost $\frac{1}{$', enc, 24, 16, 0)
  figure.draw_without_rendering()
  (title,) = [text for text in figure.findobj(Text) if '$' in text.get_text()]
  assert not title.get_parse_math()


HIDING = ('hard_alibi', 'screening')  # some keys in all draws


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in representatives())) for name in ENCODINGS]
)
def test_every_encoding_is_drawn(name):
  figure = draw(name, length=24, **SMALL, samples=16, seed=0)
  figure.draw_without_rendering()
  for axes in figure.axes:
    count = len(lines(axes))  # one a head out, or one for all
    assert count == 1 or (count > 0 and count % SMALL['heads'] == 0)
    for line in lines(axes):
      y = np.asarray(line.get_ydata(), float)[1:]
      # what an encoding hides is a gap, and nothing else is
      assert np.isfinite(y).all() or (name in HIDING and not np.isinf(y).any())


@pytest.mark.parametrize(
  ('name', 'note'),
  [
    ('relu', 'Its weights are no softmax: keys without weight are left out.'),
    ('softpick', 'It acts on weights too, which is not drawn.'),
    ('sink', 'It acts on softmax too, which is not drawn.'),
    ('rope', None),
  ],
)
def test_what_a_profile_does_not_show_is_said(name, note):
  profile = profiles.profile(profiles.from_spec(name, **SMALL, seed=0), 24, 64, 0)
  said = [text for text in profile.notes if 'not drawn' in text or 'no softmax' in text]
  assert said == [note] * (note is not None)
  assert all(np.isfinite(panel.mean_PH).all() for panel in profile.panels)
  assert (name == 'relu') == any('weight' in panel.y_title for panel in profile.panels)


@pytest.mark.parametrize(
  ('name', 'note'),
  [
    ('rope', 'averages over'),
    ('tupe', 'one of each'),
    ('learned', 'Positions end at 160 tokens.'),
    ('alibi', 'below -16 is not drawn'),
  ],
)
def test_far_distances_are_drawn(name, note):
  figure = draw(name, length=160, heads=4, head_dim=8, train_length=160, samples=16, seed=0)
  figure.draw_without_rendering()
  assert note in ' '.join(figure.get_supxlabel().split())
  for axes in figure.axes:
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
      '0',
      *(str(2**n) for n in range(8)),
    ]
    assert axes.get_ylim()[0] >= profiles.LOWEST
    assert (len(lines(axes)[0].get_xdata()) == 160) == (name == 'alibi')


def test_a_profile_is_drawn_as_it_is_measured():
  figure = draw('rope', length=160, **SMALL, samples=16, seed=0)
  enc = profiles.from_spec('rope', **SMALL, seed=0)
  profile = profiles.profile(enc, 160, 16, 0)
  assert [axes.get_title('left') for axes in figure.axes] == [p.title for p in profile.panels]
  for axes, panel in zip(figure.axes, profile.panels, strict=True):
    for head, line in enumerate(lines(axes)):
      assert line.get_label() == panel.labels[head] == f'head {head + 1}'
      np.testing.assert_array_equal(line.get_data(), [panel.distances_P, panel.mean_PH[:, head]])


@pytest.mark.parametrize('name', CLASSIC)
def test_the_classic_figures_are_drawn(name):
  CLASSIC[name]().draw_without_rendering()


def test_where_the_last_buckets_of_t5_start_stands_below_their_figure():
  note = ' '.join(CLASSIC['t5_buckets']().get_supxlabel().split())
  for is_bidirectional, words in ((False, 'causal at {} for 128'), (True, 'a side starts at {}.')):
    bucket_R = classic_curves.t5_buckets(np.arange(129), bidirectional=is_bidirectional)
    assert words.format(np.argmax(bucket_R == bucket_R[-1])) in note


@pytest.mark.ci
def test_the_command_draws_the_classic_figures_from_any_folder(tmp_path):
  subprocess.run([sys.executable, SCRIPT, '--classic', '--out=figures'], cwd=tmp_path, check=True)
  assert {path.stem for path in (tmp_path / 'figures').iterdir()} == CLASSIC.keys()


def test_a_bias_by_distance_is_the_encodings_own_table():
  (bias_RH, spread), names = measured('alibi', heads=6)['bias'], list(measured('alibi'))
  assert names == ['bias']
  assert spread is None
  np.testing.assert_allclose(bias_RH, -np.multiply.outer(np.arange(24), slopes(6)), rtol=1e-6)
  for name in ('t5', 'kerple_log', 'kerple_power', 'sandwich'):
    enc = profiles.from_spec(name, **SMALL, seed=0)
    table_RH = np.broadcast_to(enc.bias(jnp.arange(24)), (24, 2))
    np.testing.assert_allclose(measured(name)['bias'][0], table_RH, rtol=1e-6, atol=1e-6)
  assert not measured('nope')['bias'][0].any()


def test_what_content_changes_comes_with_its_spread():
  """RoPE of one pair: nothing on average for unrelated keys; |q|^2 (cos r - 1) / sqrt(K) for the
  query's own.
  """
  curves = measured('rope', samples=256, head_dim=2)
  mean_RH, spread_RH = curves['unrelated']
  assert np.all(np.abs(mean_RH) <= 5 * spread_RH / math.sqrt(256) + 1e-6)
  assert spread_RH[1:].min() > 0.01
  fall_R1 = np.cos(np.arange(24))[:, None] - 1
  mean_RH, spread_RH = curves['alike']
  np.testing.assert_allclose(mean_RH, fall_R1 * (mean_RH[3] / fall_R1[3])[None], atol=1e-5)
  assert np.all(mean_RH[3] / fall_R1[3] > 0.2)
  np.testing.assert_allclose(
    spread_RH, np.abs(fall_R1 * (spread_RH[3] / fall_R1[3])[None]), atol=1e-5
  )


def test_keys_that_make_no_difference_are_drawn_once():
  assert list(measured('shaw')) == list(measured('fox')) == ['any']
  assert list(measured('cope')) == list(measured('fox/gate=fixed')) == ['bias'], (
    'tables of zeros, gates without data'
  )
  assert list(measured('sinusoidal')) == ['unrelated', 'alike']


def test_hyperparameters_reach_the_encoding():
  assert profiles.from_spec('rope/base=500.0/layout=interleaved', **SMALL, seed=0).base == 500
  enc = profiles.from_spec('rope/scaling.rope_type=linear/scaling.factor=4.0', **SMALL, seed=0)
  np.testing.assert_allclose(enc.spectrum(24)[0], enc.frequencies() / 4)
  few, many = (measured(f't5/buckets={n}')['bias'][0] for n in (4, 32))
  assert np.array_equal(few[23], few[16])
  assert not np.array_equal(many[23], many[16])


def test_sinusoid_products_are_sums_of_cosines():
  waves = classic_curves.wavelengths(64, 1000.0)
  assert (waves[0], waves[16]) == pytest.approx((2 * math.pi, 2 * math.pi * math.sqrt(1000)))
  cosines_R = np.cos(2 * math.pi * np.divide.outer(DISTANCES, waves)).mean(axis=1)
  np.testing.assert_allclose(
    classic_curves.sinusoid_products(DISTANCES, 64, 1000.0), cosines_R, atol=1e-4
  )


def test_ropes_bound_is_the_papers_and_holds():
  bound_R, expected_R = classic_curves.rope_decay(DISTANCES, 64)
  frequencies = 10_000.0 ** (-2 * np.arange(32) / 64)
  np.testing.assert_allclose(
    expected_R, np.cos(np.multiply.outer(DISTANCES, frequencies)).mean(axis=1), atol=1e-4
  )
  assert np.all(bound_R >= np.abs(expected_R))
  assert bound_R[0] == pytest.approx(33 / 2)
  sums = [abs(sum(np.exp(7j * f) for f in frequencies[:m])) for m in range(1, 33)]
  assert bound_R[7] == pytest.approx(np.mean(sums))
  assert any(np.diff(expected_R) > 0), 'no monotone decay'


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--encoding=ropee'], r"name='ropee': no such encoding; did you mean 'rope'"),
    (['--encoding=rope/bas=3'], r"encoding rope has no hyperparameter 'bas'; did you mean 'base'"),
    (['--encoding=rope/base'], r"'base' has no value; allowed: NAME/hyper=value"),
    (['--encoding=rope/base=much'], r"rope: base='much'; allowed: a finite number"),
    (['--encoding=rope/name=alibi'], r'encoding\.name: no such field'),
    (['--encoding=learned', '--length=600'], r'--length=600; allowed: 2 to 512'),
    (['--encoding=rope', '--samples=0'], r'--samples=0; allowed: 1 to 16384'),
    (['--encoding=rope', '--seed=-1'], r'--seed=-1; allowed: 0 to 2147483647'),
    (['--encoding=rope', '--heads=x'], r"heads='x'"),
    (['--encoding=rope', '--config.encoding.base=3'], r'hyperparameters stand in --encoding'),
    (['--encoding=rope', '--classic'], 'one of them must be given'),
    (['--classic', '--length=9'], r'--length: does not go with --classic'),
    (['--workdir=runs/a', '--heads=9'], r'--heads: does not go with --workdir'),
    (['--encoding=rope', '--layer=1'], r'--layer: does not go with --encoding'),
    (['--classic', '--config=study.py'], r'--config: does not go with --classic'),
    (['--clasic'], r"--clasic: no such flag; did you mean '--classic'\?"),
  ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    figures.main([*flags, f'--out={tmp_path}/out'])
  assert r'\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_what_a_run_has_learned_is_drawn(make_run, tmp_path):
  _, workdir, model = make_run(encoding__name='t5', model__layers=2)
  figures.main([f'--workdir={workdir}', '--layer=1', f'--out={tmp_path}/out', '--length=16'])
  pictures = sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert pictures == ['run-layer-1.pdf', 'run-layer-1.png']
  figure = figures.draw_layer(str(workdir), 1, {}, length=16, samples=16, seed=7)
  enc = model.encodings.variants[0].layer(1)
  bias_RH = enc.distance_terms(jnp.arange(16))['bias']
  (axes,) = figure.axes
  for line, bias_R in zip(lines(axes), np.asarray(bias_RH).T, strict=True):
    np.testing.assert_allclose(line.get_ydata(), bias_R, atol=1e-6)
  said = ' '.join(figure.get_supxlabel().split())
  assert 'As trained, step 3; ' in said
  assert 'seed 7' not in said
  with pytest.raises(UserError, match=r'^--layer=2; allowed: 0 to 1'):
    figures.main([f'--workdir={workdir}', '--layer=2', f'--out={tmp_path}/other'])


def test_a_layer_of_a_pattern_is_drawn_as_evaluation_has_it(make_run):
  layers = ({'name': 'alibi'}, {'name': 'nope'})
  _, workdir, _ = make_run(encoding={'name': 'pattern', 'layers': layers}, model__layers=2)
  drawn = lambda layer, **changed: figures.draw_layer(
    str(workdir), layer, changed, length=16, samples=16, seed=0
  )
  assert 'nope, layer 1 of run' in drawn(1).get_suptitle()
  first = drawn(0)
  assert 'alibi, layer 0 of run' in first.get_suptitle()


def test_the_script_writes_a_picture(tmp_path, capsys, monkeypatch):
  figures.main(
    [
      '--encoding=alibi/learned=True',
      f'--out={tmp_path}/new/out',
      '--length=16',
      '--heads=3',
      '--head_dim=4',
    ]
  )
  paper, picture = sorted((tmp_path / 'new' / 'out').iterdir())
  assert (paper.name, picture.name) == ('alibi_learned=True.pdf', 'alibi_learned=True.png')
  assert picture.read_bytes().startswith(b'\x89PNG')
  assert paper.read_bytes().startswith(b'%PDF')
  assert capsys.readouterr().out.split() == [str(picture), str(paper)]
  with pytest.raises(UserError, match='--out: must be given'):
    figures.main(['--classic'])
  study = tmp_path / 'study.py'
  study.write_text(
    'from posenc_jax import register\nfrom posenc_jax.encodings.alibi import ALiBi\n'
    'register("own_alibi", ALiBi)\n'
  )
  monkeypatch.setitem(ENCODINGS, 'own_alibi', ENCODINGS['nope'])  # is forgotten after the test
  figures.main(
    ['--encoding=own_alibi', f'--config={study}', f'--out={picture.parent}', '--length=16']
  )
  assert ENCODINGS['own_alibi'] is ENCODINGS['alibi']
  assert (picture.parent / 'own_alibi.png').exists()
  for out in (picture, picture / 'below'):
    with pytest.raises(
      UserError, match=f'^--out={re.escape(str(out))}: a file is there; allowed: a folder'
    ):
      figures.main(['--encoding=alibi', f'--out={out}', '--length=16', '--heads=3', '--head_dim=4'])
