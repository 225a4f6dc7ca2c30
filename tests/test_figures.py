"""Figures and reports from rows alone: what the figure shows, and that the scripts make all again without jax."""

import itertools
import json
import random
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import LENGTHS, NINE, realistic, rows_of

from posenc_jax import figures, records, report, tables
from posenc_jax.config import UserError

ROOT = Path(__file__).parent.parent


def test_the_figure_shows_each_line_with_its_own_look_its_band_and_its_name():
  figure = figures.draw(realistic(), protocol='last_k', metric='ppl')
  (axes,) = figure.axes
  table = tables.extrapolation(realistic(), metric='ppl')[0]
  curves = [line for line in axes.lines if line.get_transform() == axes.transData]
  curves = {curve.get_label(): curve for curve in curves if curve.get_label() in NINE}
  assert list(curves) == list(NINE)
  for label, curve in curves.items():
    values = {length: s for length in LENGTHS if (s := table.scores(label, length))}
    assert list(curve.get_xdata()) == list(values)
    assert list(curve.get_ydata()) == pytest.approx([statistics.fmean(s) for s in values.values()])
  for look in ('get_color', 'get_marker'):
    assert len({getattr(curve, look)() for curve in curves.values()}) == len(NINE)
  assert [band.get_alpha() > 0 for band in axes.collections] == [True] * len(NINE)
  assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
  assert list(axes.get_xticks()) == list(LENGTHS)
  texts = [text.get_text() for text in axes.texts]
  assert {'training length', 'learned (to 128)', *NINE} - {'learned'} <= set(texts)
  assert 'perplexity' in axes.get_ylabel()


def test_the_windowed_control_is_dashed_in_the_same_colour():
  plain, both = (figures.draw(realistic(), windowed=windowed).axes[0] for windowed in (False, True))
  dashed = [line for line in both.lines if line.get_linestyle() == '--']
  assert len(both.lines) == len(plain.lines) + len(dashed)
  assert len(dashed) == len(NINE)
  assert {line.get_color() for line in dashed} == {line.get_color() for line in plain.lines} - {figures.GREY}


def test_names_are_kept_apart_in_order_and_no_further_than_needed():
  noise = random.Random(0)
  for number in (1, 2, 9, 19):
    heights = sorted(noise.random() ** 3 for _ in range(number))
    apart = figures._apart(heights, 0.05)
    assert all(b - a > 0.05 - 1e-9 for a, b in itertools.pairwise(apart))
    assert sum(apart) == pytest.approx(sum(heights))
  assert figures._apart([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]


@pytest.mark.parametrize(
  'bits', [{'rope': {8: ['odd']}}, {'rope': {8: [2.0]}}, {'rope': {8: [2.0, 30.0], 16: [2.1, 2.2]}}]
)
def test_a_figure_of_little_or_nothing_is_drawn(bits, tmp_path):
  figures.draw(rows_of(bits)).savefig(tmp_path / 'figure.png')


def test_the_scripts_make_all_again_without_jax(tmp_path):
  records.append(tmp_path / 'rows.jsonl', realistic(1))
  study = tmp_path / 'study.py'
  study.write_text(
    'def get_config(): ...\n'
    "def table(): return dict(metric='ppl', controls=False)\n"
    "def figures(): return {'one': dict(metric='bpb'), 'two': dict(windowed=True)}\n"
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
  done = subprocess.run(command, cwd=ROOT, env={'PYTHONPATH': '.'}, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert {path.name for path in tmp_path.iterdir()} >= {'table.md', 'table.tex', 'table.csv', 'one.png', 'two.png'}
  assert 'Perplexity per token' in done.stdout
  assert 'transformer_xl' in done.stdout
  assert 'windowed' not in done.stdout


def test_figures_of_nothing_says_what_there_is():
  main = runpy.run_path(str(ROOT / 'scripts' / 'figures.py'))['main']
  with pytest.raises(UserError, match=r'^no arguments; allowed: DIR.*--config=.*--encoding=NAME.*--classic.*$'):
    main([])


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ("def table(): return {'metrc': 'ppl'}", r"table\(\): no setting 'metrc'; did you mean 'metric'\?"),
    ("def table(): return {'metric': 'pp'}", r"metric='pp'; did you mean 'ppl'\?"),
    (
      "def figures(): return {'f': {'window': 1}}",
      r"figures\(\)\['f'\]: no setting 'window'; did you mean 'windowed'\?",
    ),
  ],
)
def test_a_study_that_asks_for_what_there_is_not_is_one_line(source, message, tmp_path):
  (tmp_path / 'study.py').write_text(f'def get_config(): ...\n{source}\n')
  with pytest.raises(UserError, match=message):
    report.of_study(tmp_path / 'study.py', tmp_path)


def test_a_report_remembers_its_study_and_its_runs(tmp_path):
  study = ROOT / 'configs' / 'quick.py'
  wanted = report.of_study(study, tmp_path, ['a', 'b'])
  report.save(wanted, study)
  assert json.loads((tmp_path / 'study.json').read_text())['study'] == 'configs/quick.py'
  assert report.load(tmp_path) == wanted
  assert report.of_arguments([str(tmp_path)]) == wanted
  (tmp_path / 'study.json').unlink()
  assert report.load(tmp_path) == report.Report(tmp_path)
