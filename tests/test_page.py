"""The page holds every value of its rows, loads nothing, is the same bytes again; in a browser, its
switches work.
"""

import html
import json
import re
import shutil
import statistics
import sys
from html.parser import HTMLParser

import jax
import pytest
from flax import nnx
from plotly.offline import get_plotlyjs
from synthetic import NINE, lines_of, needles, of_documents, realistic, row, rows_of, tasks

import posenc_jax.reporting.html
from posenc_jax import config, data, storage
from posenc_jax.config import BASE
from posenc_jax.inspection import parameter_counts
from posenc_jax.model import decoder
from posenc_jax.reporting import row_files
from posenc_jax.reporting import study as studies
from posenc_jax.reporting.colors import GREY
from posenc_jax.reporting.comparisons.own_changes import finding
from posenc_jax.reporting.html import page, plots, style
from posenc_jax.reporting.html.configurations import configurations
from posenc_jax.reporting.html.gathered import Gathered, gather
from posenc_jax.reporting.metrics import LIKELIHOODS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.table_forms.lengths import lengths
from posenc_jax.rows import row_schema
from posenc_jax.storage import REPOSITORY

BITS = {
  'alibi': {8: [1.0, 2.0, 4.0], 16: [1.5, 2.0, 4.0], 32: [1.5, 2.5, 4.5]},
  'rope': {8: [3.0, 3.5, 3.0], 16: [4.0, 4.0, 5.0], 32: [6.0, 7.0, 5.0]},
  'learned': {8: [1.0, 5.0, 6.0], 16: ['beyond_table'] * 3, 32: ['beyond_table'] * 3},
}


class Parsed(HTMLParser):
  """Tables as lists of lists of text, and everything that an element refers to."""

  def __init__(self, text):
    super().__init__()
    self.tables, self.links, self.tags, self.inside = [], [], [], None
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.links += [
      (tag, value)
      for name, value in attributes
      if name in ('src', 'href', 'srcset', 'data', 'action')
    ]
    if tag == 'table':
      self.tables.append([])
    elif tag == 'tr':
      self.tables[-1].append([])
    elif tag in ('td', 'th'):
      self.tables[-1][-1].append('')
      self.inside = tag
    elif tag == 'strong':
      self.tables[-1][-1][-1] += '*'

  def handle_endtag(self, tag):
    if tag == self.inside:
      self.inside = None

  def handle_data(self, text):
    if self.inside:
      self.tables[-1][-1][-1] += text


def places(rows, runs=(), configs=None):
  return Gathered(rows, list(runs), configs or {}, [])


def rendered(rows, metric='bpb', **fields):
  return page.render(places(rows, **fields), metric)


def plot(text, name='curves'):
  """(traces, layout, config) of a plot, as plotly gets them."""
  found = re.search(rf'Plotly\.newPlot\(\s*"{name}",', text)
  decoder, at, parts = json.JSONDecoder(), found.end(), []
  for _ in range(3):
    at += len(text[at:]) - len(text[at:].lstrip(' \n,'))
    part, at = decoder.raw_decode(text, at)
    parts.append(part)
  return parts


def means(table):
  return {
    line: [
      statistics.fmean(some) if (some := table.seed_scores(line, n)) else None
      for n in table.columns
    ]
    for line in table.lines
  }


def run_folder(folder, rows, **overrides):
  """A run as train.py and eval.py leave it."""
  folder.mkdir(parents=True)
  small = {
    'model.layers': 2,
    'model.model_dim': 8,
    'model.heads': 2,
    'model.head_dim': 4,
    'model.mlp_dim': 16,
  }
  c = config.load(BASE, {**small, 'train.length': 8, **overrides})
  storage.write_json(folder / 'config.json', config.to_json(c))
  storage.append_rows(folder / 'eval.jsonl', [r | {'run': folder.name} for r in rows])
  return c


@pytest.fixture
def study(tmp_path):
  """Two seeds of ALiBi and one of RoPE with another base, each in a folder of its own."""
  for seed in (0, 1):
    rows = [row('alibi', seed, n, 2.0 + seed) for n in (8, 16)]
    run_folder(
      tmp_path / 'study' / f'alibi-{seed}', rows, **{'encoding.name': 'alibi', 'seed': seed}
    )
  rows = [row('rope', 0, n, 3.0) for n in (8, 16)]
  run_folder(tmp_path / 'study' / 'rope', rows, **{'encoding.base': 500.0})
  return tmp_path / 'study'


# What is in it


@pytest.mark.parametrize('metric', LIKELIHOODS)
def test_every_curve_of_every_table_is_a_choice_and_the_first_is_shown(metric):
  rows = realistic() + rows_of(BITS, protocol='non_overlapping', k=None, train_length=128)
  made = collect(rows, protocols=['last_k', 'non_overlapping'], metric=metric)
  assert len(made) == 3
  traces, layout, _ = plot(rendered(rows, metric))
  solid, dashed, *_ = layout['updatemenus']
  lines = [trace['name'] for trace in traces[::3]]
  assert lines == made[0].lines
  assert set(lines) == set(NINE)
  for menu, shown, first in ((solid, made, 3 * len(lines) // 3), (dashed, [None, *made], 0)):
    assert len(menu['buttons']) == len(shown)
    for button, table in zip(menu['buttons'], shown, strict=True):
      data, places = button['args']
      for line, x, y, text, place in zip(
        lines, *(data[k][first:] for k in ('x', 'y', 'text')), places[first:], strict=True
      ):
        assert traces[place]['name'] == line
        if table is None or line not in table.lines:
          assert x == y == text == []
          continue
        assert x == table.columns
        assert y == means(table)[line]
        for n, label in zip(table.columns, text, strict=True):
          assert table.metric.text(table.seed_scores(line, n)) in label
          for seed in table.seeds:
            score = table.by_seed[line, seed, n]
            value = score.value(table.metric)
            why = row_schema.OUTCOMES.get(score.status, score.status)
            shown_text = why if value is None else table.metric.text([value])
            assert f'seed {seed}: {shown_text}' in label
  assert [trace['y'] for trace in traces[1::3]] == [means(made[0])[line] for line in lines]
  assert not any(trace['y'] for trace in traces[2::3])


def test_figures_and_the_page_draw_the_same_curves():
  """One failed seed, and a deviation that no logarithmic axis has a place for, among them."""
  bits = {'rope': {8: [1.0, 3.0], 16: [0.1, 4.0]}, 'alibi': {8: [2.0, 2.1], 16: [1.0, 'no_weight']}}
  (series,) = places(rows_of(bits)).series('bpb')
  axes, _ = figures.draw(rows_of(bits), metric='bpb').axes
  drawn = {line.get_label(): line for line in axes.lines if line.get_label() in bits}
  bands = dict(zip(series.curves, axes.collections, strict=True))
  for line in bits:
    trace = plots.mean_trace(series, line)
    points = [(x, y) for x, y in zip(trace['x'], trace['y'], strict=True) if y is not None]
    assert list(zip(*drawn[line].get_data(), strict=True)) == points
    corners = {tuple(corner) for corner in bands[line].get_paths()[0].vertices.tolist()}
    outline = plots.std_band(series, line)
    assert corners == set(zip(outline['x'], outline['y'], strict=True)) - {(None, None)}


def test_switches_do_not_undo_each_other():
  """No two change the same thing of a trace, and none changes what the legend does, `visible`."""
  _, layout, _ = plot(rendered(realistic()))
  changed = []
  for menu in layout['updatemenus']:
    every = {
      (name, place)
      for b in menu['buttons']
      for name in b['args'][0]
      for place in (b['args'][1:] or [[0]])[0]
    }
    assert all({*b['args'][0]} == {*menu['buttons'][0]['args'][0]} for b in menu['buttons'])
    changed.append(every)
  assert sum(map(len, changed)) == len(set.union(*changed))
  assert not any(name == 'visible' for name, _ in set.union(*changed))


def test_tables_are_printed_with_the_best_bold_and_with_every_seed():
  rows = rows_of(BITS)
  table, at_L, own, *_ = lengths(rows)
  text = rendered(rows)
  main, *compared, every = Parsed(text).tables[:4]
  assert main == [
    table.header,
    *([f'*{text}' if best else text for text, best, _ in line] for line in lines_of(table)),
  ]
  assert compared == [
    [some.header, *([field.text + field.mark for field in line] for line in lines_of(some))]
    for some in (at_L, own)
  ]
  assert ['rope', '1', '3.500', '4.000', '7.000'] in every
  beyond = 'longer than the table of positions'
  assert ['learned', '2', '6.000', beyond, beyond] in every
  assert len(every) == 1 + 9
  assert html.escape(table.caption, quote=False) in text
  assert 'longer than the table of positions: learned at 16, 32' in text


def test_a_seed_that_a_line_has_no_rows_of_has_no_line():
  parsed = Parsed(rendered(rows_of({'rope': {8: [1.0, 2.0]}, 'alibi': {8: [3.0]}})))
  (every,) = (table for table in parsed.tables if table[0][:2] == ['encoding', 'seed'])
  assert sorted(line[:2] for line in every[1:]) == [['alibi', '0'], ['rope', '0'], ['rope', '1']]


def test_the_page_opens_with_the_answer_and_the_training_length():
  text = rendered(of_documents(BITS))
  assert (
    'Of 3 encodings, none holds to 4 L within 0.02 bits per byte; none gains more at any length. '
    'Trained at 8 tokens, evaluated at up to 32, 4 times as many (last_k).'
  ) in text
  assert (
    text.index('Trained at 8')
    < text.index('id="curves"')
    < text.index('<table')
    < text.index('id="sources"')
  )
  _, layout, _ = plot(text)
  assert [shape['x1'] for shape in layout['shapes']] == [8, 8], 'shaded up to the line'
  assert 'shaded: up to the training length.' in text
  assert 'trained at 8 tokens' in [note['text'] for note in layout['annotations']]


def test_without_lengths_past_the_training_length_the_page_says_so():
  said = 'Trained at 8 tokens: nothing here was evaluated past that (last_k).'
  assert said in rendered(rows_of({'rope': {8: [1.0]}}))


def test_lines_of_several_places_are_compared_with_intervals_and_marks(tmp_path):
  """As those of one folder: rows of two, one line each, are one table."""
  bits = {'rope': {8: [2.0, 2.1], 16: [3.0, 3.11]}, 'alibi': {8: [2.2, 2.3], 16: [2.0, 2.11]}}
  for line, of_line in bits.items():
    (tmp_path / line).mkdir()
    storage.append_rows(tmp_path / line / 'rows.jsonl', of_documents({line: of_line}))
  text = page.render(gather([tmp_path / line for line in bits]), 'bpb')
  _, at_L, own, *_ = Parsed(text).tables
  assert at_L[:2] == [['encoding', '8 (L)'], ['alibi', '+0.200 [+0.200, +0.200]']]
  assert own[1:] == [['alibi', '-0.195 [-0.195, -0.195]*'], ['rope', '+1.005 [+1.005, +1.005]†']]
  assert 'bootstrap interval over documents' in text


def test_training_lengths_that_differ_are_not_measured_from():
  rows = rows_of({'rope': {8: [1.0], 16: [1.0]}}) + rows_of(
    {'alibi': {8: [1.0], 16: [1.0]}}, train_length=16
  )
  text = rendered(rows)
  assert 'Trained at 8, 16 tokens, evaluated at up to 16 (last_k).' in text
  assert 'shaded: up to the shortest training length.' in text
  shapes = [(shape['type'], shape['x1']) for shape in plot(text)[1]['shapes']]
  assert shapes == [('rect', 8), ('line', 8), ('line', 16)]


def test_a_seed_that_failed_leaves_no_flattering_mean():
  (table,) = places(rows_of({'rope': {8: [1.0, 1.0], 16: [1.0, 'not_finite']}})).series('bpb')
  assert plots.mean_trace(table, 'rope')['y'] == [1.0, None]
  assert plots.std_band(table, 'rope')['x'] == [8, 8, None]


def test_one_line_that_was_evaluated_farther_leaves_the_title_as_it_is():
  rows = of_documents(BITS) + of_documents({'alibi': {64: [1.5, 2.5, 4.5]}})
  (farther,), (series,) = (places(some).series('bpb') for some in (rows, of_documents(BITS)))
  assert finding(farther) == finding(series)
  (in_perplexity,) = places(of_documents(BITS)).series('ppl')
  assert finding(in_perplexity) == finding(series) != ''
  apart = of_documents({'alibi': {8: [1.0], 16: [1.0]}, 'rope': {8: [1.0], 32: [1.0]}})
  (series,) = places(apart).series('bpb')
  assert finding(series) == ''
  fields = dict(protocol='copy', k=None, document=None, metric='exact_match')
  shares = [row(x, 0, n, value=1.0, **fields) for x in ('alibi', 'rope', 't5') for n in (8, 16)]
  (series,) = places([*shares, row('alibi', 0, 32, value=0.1, **fields)]).series('bpb')
  assert finding(series) == 'copy: of 3 encodings, 3 keep 85 % of their exact match at L up to 2 L'


def test_a_length_between_of_one_line_alone_leaves_the_title_as_it_is():
  bits = {
    'alibi': {8: [1.0], 16: [1.0], 32: [1.0]},
    'rope': {8: [1.0], 16: [1.0], 32: [1.005]},
    't5': {8: [1.0], 16: [0.9], 32: [2.0]},
  }
  rows = of_documents(bits)
  fields = dict(protocol='copy', k=None, document=None, metric='exact_match')
  shares = [row(x, 0, n, value=1.0, **fields) for x in bits for n in (8, 16, 32)]
  more = of_documents({'alibi': {24: [0.5]}}), [row('alibi', 0, 24, value=1.0, **fields)]
  for some, one_more in zip((rows, shares), more, strict=True):
    (series,), (farther,) = (places(x).series('bpb') for x in (some, [*some, *one_more]))
    assert finding(farther) == finding(series)
    assert '2 hold' in finding(series) or '3 keep' in finding(series)


def test_what_a_study_names_as_reference_is_one_on_its_page(tmp_path):
  """It may be trained at another length: the others are measured from theirs all the same."""
  rows = of_documents(BITS) + of_documents(
    {'long': {8: [1.4], 16: [1.3], 32: [1.2]}}, train_length=32
  )
  storage.append_rows(tmp_path / 'rows.jsonl', rows)
  settings = {'protocol': 'last_k', 'references': ('long',)}
  studies.write(studies.Report(tmp_path, study='x.py', figures={'f': settings}))
  text = page.render(gather([tmp_path]), 'bpb')
  assert 'Of 3 encodings, none holds to 4 L within 0.02 bits per byte' in text
  assert 'Trained at 8 tokens, evaluated at up to 32, 4 times as many' in text
  traces, layout, _ = plot(text)
  assert {t['name'] for t in traces[1::3] if t['line']['color'] == GREY} == {'long'}
  assert [shape['x1'] for shape in layout['shapes']] == [8, 8]
  assert 'Grey: references.' in text


def test_bands_are_one_deviation_and_break_where_lines_do():
  bits = {'rope': {8: [1.0, 3.0], 16: ['not_finite'] * 2, 32: [0.1, 4.0], 64: [2.0, 2.0]}}
  (table,) = places(rows_of(bits)).series('bpb')
  drawn, spread = plots.std_band(table, 'rope'), statistics.stdev([0.1, 4.0])
  assert spread > 2.05, 'a logarithmic axis has no place for the mean less the deviation'
  assert drawn['x'] == [8, 8, None, 32, 64, 64, 32, None]
  deviation = statistics.stdev([1.0, 3.0])
  expected = [2 - deviation, 2 + deviation, 0.1, 2.0, 2.0, 2.05 + spread]
  assert [y for y in drawn['y'] if y is not None] == pytest.approx(expected)


def test_names_cannot_become_markup():
  name = '<img src=x>&"1"'
  text = rendered(rows_of({name: {8: [1.0], 16: [1.0]}}))
  assert '<img' not in text.replace(get_plotlyjs(), '')
  assert Parsed(text).tables[0][1][0] == name
  assert html.unescape(plot(text)[0][1]['name']) == name


def test_tasks_are_curves_of_accuracy_with_chance_after_those_of_likelihoods():
  share = [
    r | {'metric': {'exact_match': 'token_accuracy', 'chance': 'token_chance'}[r['metric']]}
    for r in tasks()
  ]
  harder = [
    r | {'value': 0.2} if (r['metric'], r['protocol']) == ('chance', 'sort') else r for r in tasks()
  ]
  text = rendered([*rows_of(BITS), *harder, *share], runs=['encoding.name=alibi,seed=0', 'gone'])
  assert 'trained at 8 tokens' in [note['text'] for note in plot(text)[1]['annotations']]
  traces, layout, _ = plot(text, 'curves-1')
  solid, _, seeds = layout['updatemenus']
  names = [
    f'{task}, {what}'
    for what in ('exact match', 'share of answers right')
    for task in ('copy', 'sort')
  ]
  assert [button['label'] for button in solid['buttons']] == [f'solid: {name}' for name in names]
  assert [button['label'] for button in seeds['buttons']] == ['seeds', 'no seeds'], (
    '0 has no logarithm'
  )
  assert (layout['yaxis']['type'], layout['yaxis']['title']['text']) == ('linear', 'accuracy')
  assert layout['yaxis']['range'][0] < 0 < 1 < layout['yaxis']['range'][1]
  assert [shape['x1'] for shape in layout['shapes']] == [8, 8]
  assert (traces[-1]['name'], traces[-1]['y']) == ('chance', [0.1] * 6)
  (of_sort,) = [b['args'] for b in solid['buttons'] if b['label'] == 'solid: sort, exact match']
  assert of_sort[0]['y'][-1] == [0.2] * 6
  assert of_sort[1][-1] == len(traces) - 1
  table = collect(harder, protocols=['copy'], metric='exact_match')[0]
  curves_of = {trace['name']: trace['y'] for trace in traces[1:-1:3]}
  assert curves_of == means(table)
  of_seeds = {
    trace['name']: list(zip(trace['x'], trace['y'], strict=True)) for trace in traces[0:-1:3]
  }
  value = lambda line, seed, n: table.by_seed[line, seed, n].value(table.metric)
  apart = lambda line, seed: [*((n, value(line, seed, n)) for n in table.columns), (None, None)]
  assert of_seeds == {
    line: [point for seed in range(3) for point in apart(line, seed)] for line in table.lines
  }
  assert 'Lines: means over seeds; thin: each seed;' in text
  assert '<li>missing: ' not in text
  assert text.count('<li>no rows of run gone</li>') == 5, (
    'and not of a run that measures something else'
  )
  assert 'have no place on this page' not in text


def test_a_task_with_depths_is_drawn_over_all_of_them():
  text = rendered(needles())
  found = {
    trace['name']: dict(zip(trace['x'], trace['y'], strict=True)) for trace in plot(text)[0][1::3]
  }
  of = [r['value'] for r in needles() if (r['label'], r['length']) == ('nope', 256)]
  assert found['nope'][256] == pytest.approx(statistics.fmean(of))
  assert 'Of all depths together.' in text


STUDY = """
def get_config(): ...
def table():
  published = [dict(line='theirs', values={8: 1.25}, source='A 2021')]
  return [dict(baseline=BASELINE, reference=published), dict(form='training_lengths')]
"""


@pytest.mark.parametrize('baseline', ['rope', 'gone'])
def test_the_tables_of_a_study_are_printed_as_it_wants_them(tmp_path, baseline):
  (tmp_path / 'study.py').write_text(STUDY.replace('BASELINE', repr(baseline)))
  bits = {
    'rope': {8: [3.0, 3.1, 3.2], 16: [4.0, 4.1, 4.2]},
    'alibi': {8: [1.0, 1.11, 1.22], 16: [5.0, 3.0, 4.0]},
  }
  storage.append_rows(tmp_path / 'rows.jsonl', rows_of(bits))
  cost = dict(
    parameters=1234,
    encoding_parameters=0,
    tokens=5678,
    train_length=8,
    compute_dtype='float32',
    temporary_bytes=None,
    onset_tokens=None,
  )
  runs = [f'encoding.name={name},seed={seed}' for name in bits for seed in range(3)]
  of_runs = [
    {'run': run, 'label': run[14:-7], 'seed': int(run[-1]), **cost, 'seconds_per_step': 0.5}
    for run in runs
  ]
  storage.append_rows(tmp_path / 'costs.jsonl', of_runs)
  path = tmp_path / 'study.py'
  studies.save(studies.of_study(path, tmp_path, runs), path)
  made = gather([tmp_path])
  text = page.render(made, 'bpb')
  printed = Parsed(text).tables
  if baseline == 'gone':
    assert 'the tables of' in made.notes[-1]
    assert 'gone' in made.notes[-1]
    assert 'Behind the curves' not in text
    return
  assert printed[0][1:] == [
    ['rope', '3.100 ± 0.100', '4.100 ± 0.100'],
    ['alibi', '*1.110 ± 0.110', '*4.000 ± 1.000'],
  ]
  assert ['alibi', '-1.990*'] in [line for table in printed for line in table]
  assert ['theirs', '1.25', 'A 2021'] in [line for table in printed for line in table]
  assert ['rope', '1,234', '0', '5,678', '500.0'] in [line for table in printed for line in table]
  assert 'Trained' in text
  assert '0.00123 million parameters, 0.00568 million tokens a run' in text
  assert (
    text.index('id="tables"') < text.index('Training by evaluation') < text.index('id="behind"')
  )
  (tmp_path / 'study.json').unlink()
  text = page.render(gather([tmp_path]), 'bpb')
  assert 'theirs' not in text
  assert ['rope', '1,234', '0', '5,678', '500.0'] in Parsed(text).tables[0], (
    'without a study, what runs cost'
  )


def test_lines_look_as_they_do_in_figures():
  rows = rows_of({'rope': {8: [1.0], 16: [2.0]}, 'alibi': {8: [1.0]}})
  rows += rows_of({'n-gram (5 bytes)': {8: [1.0], 16: [1.0]}}, encoding='n-gram')
  traces, layout, _ = plot(rendered(rows))
  axes = figures.draw(rows).axes[0]
  drawn = {line.get_label(): line for line in axes.lines}
  for trace in traces[1::3]:
    line = drawn[trace['name']]
    assert trace['line']['color'] == line.get_color()
    assert trace['marker']['symbol'] == style.SYMBOLS[line.get_marker()]
  assert drawn['n-gram (5 bytes)'].get_color() == GREY
  assert layout['xaxis']['ticktext'] == ['L<br>8', '2 L<br>16']


def test_lines_are_told_apart_by_color_and_symbol():
  bits = {f'line {n}': {8: [1.0]} for n in range(60)}
  traces, _, _ = plot(rendered(rows_of(bits)))
  assert len({(t['line']['color'], t['marker']['symbol']) for t in traces[1::3]}) == 60


# By itself


def test_the_page_loads_nothing_and_sends_nothing():
  text = rendered(realistic())
  parsed, own = Parsed(text), text.replace(get_plotlyjs(), '')
  assert len(text) - len(own) == len(get_plotlyjs()), 'the library is there once'
  assert own.count('<noscript>') == 1
  assert '<div role="group" aria-label="Curves of bits per byte against evaluation length' in own
  assert '<th scope="row">rope</th><td>' in own
  ids = set(re.findall(r'\bid="([^"]+)"', own))
  for _, link in parsed.links:
    assert link == 'data:,' or (link[0] == '#' and link[1:] in ids)
  assert '://' not in own
  assert '@import' not in own
  assert "default-src 'none'" in own
  assert 'connect-src' not in own
  _, _, settings_of_plot = plot(text)
  assert settings_of_plot['modeBarButtons'] == [['toImage', 'zoom2d', 'resetScale2d']], (
    'none that sends the plot'
  )


def test_the_same_page_is_made_again_byte_for_byte(study):
  first, second = (page.render(gather([study]), 'bpb') for _ in range(2))
  assert first == second


@pytest.mark.slow
def test_the_kept_study_makes_a_page_of_moderate_size():
  kept = gather([REPOSITORY / 'results' / 'classic'])
  text = page.render(kept, 'bpb')
  assert len(text.encode()) < 5.2e6
  first = next(iter(plot(text)[1]['updatemenus']))
  assert [button['label'] for button in first['buttons']] == [
    'solid: last_k',
    'solid: last_k, shuffled_far',
    'solid: last_k, windowed',
    'solid: last_k, windowed_with_sink',
  ]
  assert 'No run here has a valid config.json' in text
  assert 'results/classic has no valid config.json of any run' in text
  assert '51,940 rows of 53 runs' in text
  assert 'Trained at 128 tokens, evaluated at up to 4,096, 32 times as many (last_k).' in text


# What is behind it


def test_configs_stand_behind_rows(study):
  found, same = configurations(*(lambda s: (s.rows, s.configs))(gather([study])))
  assert [(s.label, s.seeds) for s in found] == [('alibi', [0, 1]), ('rope', [0])]
  assert found[0].own == {'encoding.name': '"alibi"'}
  assert found[1].own == {'encoding.name': '"rope"', 'encoding.base': '500.0'}
  assert same['train.length'] == '8'
  assert not {'seed', 'label', 'encoding.base', 'encoding.name'} & same.keys()
  printed = Parsed(page.render(gather([study]), 'bpb')).tables[-2:]
  parameters_of = data.VOCAB * 8 + 2 * (4 * 8 * 8 + 2 * 8 * 16 + 2 * 8) + 8
  assert [
    'rope',
    '0',
    f'{parameters_of:,}',
    '0',
    'encoding.base = 500.0, encoding.name = "rope"',
  ] in printed[0]
  assert ['train.length', '8'] in printed[1]


def test_seeds_that_start_from_others_have_one_setting(tmp_path):
  for seed in (0, 1):
    fields = {'seed': seed, 'train.init_from': f'runs/seed={seed},encoding.name=rope'}
    more = {'train.log_every': 10 + seed, 'train.checkpoint_every': 10 + seed}
    run_folder(tmp_path / f'late,seed={seed}', [row('rope', seed)], **fields, **more)
  run_folder(tmp_path / 'other', [row('rope', 2)], **{'train.init_from': 'runs/other', 'seed': 2})
  made = gather([tmp_path])
  found, _ = configurations(made.rows, made.configs)
  assert [(setting.seeds, setting.own) for setting in found] == [
    ([0, 1], {'train.init_from': '"encoding.name=rope"'}),
    ([2], {'train.init_from': '"other"'}),
  ]


@pytest.mark.parametrize('name', ['t5', 'transformer_xl'])
def test_parameters_are_those_of_the_model(name, tmp_path):
  c = run_folder(tmp_path / 'run', [row(name)], **{'encoding.name': name})
  made = decoder.build(c, data.VOCAB, nnx.Rngs(0))
  sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (made, made.encodings)]
  assert list(parameter_counts.count(c)) == sizes
  assert sizes[1] > 0


def test_a_config_that_no_model_is_made_of_has_a_page(study):
  path = study / 'rope' / 'config.json'
  storage.write_json(path, storage.read_json(path) | {'encoding': {'name': 'gone'}})
  text = page.render(gather([study]), 'bpb')
  (line,) = [line for line in Parsed(text).tables[-2] if line[0] == 'rope']
  assert line[2] == 'not known'
  assert 'gone' in line[3]


LACKING = object()


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'train': {}}, 'config.train'),
    ({'encoding': 'rope'}, ''),
    ({'model.layers': 10**9}, 'config.model.layers=1000000000; allowed: '),
    ({'train.init_from': 5}, 'config.train.init_from=5; allowed: '),
    *(({name: LACKING}, f'config.{name}') for name in ('eval', 'label', 'mesh', 'train')),
  ],
)
def test_a_config_that_is_wrong_is_left_out_and_named(study, change, words):
  path = study / 'rope' / 'config.json'
  (path.parent / 'tokenizer').mkdir()
  (path.parent / 'tokenizer' / 'tokenizer.json').touch()  # as in an import
  saved = storage.read_json(path)
  for field, value in change.items():
    *sections, name = field.split('.')
    section = saved[sections[0]] if sections else saved
    section[name] = value
    if value is LACKING:
      del section[name]
  storage.write_json(path, saved)
  made = gather([study])
  assert list(made.configs) == ['alibi-0', 'alibi-1']
  (note,) = [note for note in made.notes if note.startswith(f'{path} is left out: ')]
  assert words in note
  assert f'{study} has no valid config.json of 1 run: rope.' in made.notes


def test_costs_that_cannot_be_read_are_named_where_there_is_no_study(study):
  storage.append_rows(study / 'rope' / 'timing.jsonl', [{'step': 1, 'seconds_per_step': 0.1}])
  (study / 'rope' / 'config.json').write_text('{')
  assert (
    gather([study]).notes[-1].startswith(f'{study}: the tables of costs are not there: {study}')
  )


def test_a_faded_color_is_one_that_browsers_know():
  assert style.fade('#0a0b0c', 0.5) == 'rgba(10, 11, 12, 0.5)'


def test_runs_of_one_name_in_two_places_stay_apart(tmp_path):
  for name, bits in (('a', 1.0), ('b', 2.0)):
    run_folder(
      tmp_path / name / 'rope',
      [row('rope', 0, 8, bits)],
      **{'optim.learning_rate': bits * 1e-3, 'mesh.data': int(bits)},
    )
  made = gather([tmp_path / 'a', tmp_path / 'b'])
  names = [f'{tmp_path.as_posix()}/{name}/rope' for name in 'ab']
  assert [r['run'] for r in made.rows] == list(made.configs) == names
  (table,) = made.series('bpb')
  assert sorted(curve.values for curve in table.curves.values()) == [[[1.0]], [[2.0]]]
  assert [s.own for s in configurations(made.rows, made.configs)[0]] == [
    {'optim.learning_rate': '0.001'}, {'optim.learning_rate': '0.002'},
  ]  # fmt: skip


def test_a_run_that_lies_in_two_places_is_drawn_once(tmp_path):
  rows = [row('rope', 0, 8, 1.0)]
  run_folder(tmp_path / 'runs' / 'rope', rows)
  (tmp_path / 'kept').mkdir()
  storage.append_rows(tmp_path / 'kept' / 'rows.jsonl', [{**r, 'run': 'rope'} for r in rows])
  saved = config.saved_config(tmp_path / 'runs' / 'rope')
  report = studies.Report(tmp_path / 'kept', ['rope'], study='gone.py')
  report.hashes = {'rope': config.config_hash(saved)}
  studies.save(report, 'gone.py')
  made = gather([tmp_path / 'kept', tmp_path / 'runs'])
  assert (made.runs, list(made.configs)) == (['rope'], ['rope'])
  (table,) = made.series('bpb')
  assert [curve.values for curve in table.curves.values()] == [[[1.0]]]


def test_a_page_is_made_of_a_run_a_file_and_a_folder_of_rows(tmp_path, study):
  single, file = study / 'rope', study / 'alibi-0' / 'eval.jsonl'
  made = gather([single, file])
  assert list(made.configs) == ['rope', 'alibi-0']
  (tmp_path / 'rows').mkdir()
  task = row('rope', metric='accuracy', value=1.0) | {'run': 'a-task'}
  rows = [r for path in (single, file) for r in row_files.read(path)]
  storage.append_rows(tmp_path / 'rows' / 'rows.jsonl', [*rows, task])
  report = studies.Report(tmp_path / 'rows', ['alibi-0', 'rope'], study='gone.py')
  studies.save(report, 'gone.py')
  kept = gather([tmp_path / 'rows'])
  assert kept.runs == ['alibi-0', 'rope']
  assert kept.configs == {}
  assert kept.notes[0].endswith('5 rows of 3 runs.')
  assert '1 row by position or of metrics without a better end' in kept.notes[-1]
  assert list(kept.series('bpb')[0].curves) == ['alibi', 'rope']


# The command


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], ['no RUNS']),
    (['EMPTY'], ['no rows', 'allowed:']),
    (['nowhere'], ['nowhere: no rows']),
    (['STUDY', 'STUDY'], ['given twice']),
    (['STUDY', '--metric=bpc'], ["metric='bpc'", "did you mean 'bpb'?"]),
    (['STUDY', '--config.train.steps=3'], ['--config.train.steps', 'allowed: --metric, --out']),
    (['STUDY', '--outt=x'], ["did you mean '--out'?"]),
    (['STUDY', '--out'], ['--out: has no value', 'allowed: --out=VALUE']),
    (['STUDY', '--out=STUDY'], ['what is there is no file', 'allowed: a file']),
    (['STUDY', '--out=STUDY/rope/config.json/page.html'], ['a file is there']),
  ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, study, tmp_path, arguments, words):
  (tmp_path / 'empty').mkdir()
  filled = [
    word.replace('STUDY', str(study)).replace('EMPTY', str(tmp_path / 'empty'))
    for word in arguments
  ]
  before = sorted(tmp_path.rglob('*'))
  code, out, err = command('scripts/html_report.py', f'--out={tmp_path}/new/page.html', *filled)
  assert (code, out, err.count('\n')) == (2, '', 1)
  assert all(word in err for word in words), err
  assert sorted(tmp_path.rglob('*')) == before


def test_a_library_that_is_not_there_is_named(command, study, tmp_path, monkeypatch):
  monkeypatch.delattr(posenc_jax.reporting.html, 'page')
  monkeypatch.delitem(sys.modules, 'posenc_jax.reporting.html.page')
  monkeypatch.setitem(sys.modules, 'jinja2', None)
  code, _, err = command('scripts/html_report.py', study, f'--out={tmp_path}/page.html')
  assert (code, err.count('\n')) == (2, 1)
  assert "jinja2 is not installed; allowed: after pip install -e '.[report]'" in err


def test_the_script_writes_the_page(command, study, tmp_path):
  path = tmp_path / 'new' / 'page.html'
  code, out, _ = command('scripts/html_report.py', '--out', path, study, '--metric', 'ppl')
  assert (code, out.strip()) == (None, str(path))
  assert path.read_text(encoding='utf-8') == page.render(gather([study]), 'ppl')


# In a browser


@pytest.fixture(scope='module')
def browser():
  """Chromium: the system's, or else the one that playwright has installed."""
  from playwright.sync_api import sync_playwright  # pip install -e '.[browser]'

  with sync_playwright() as running:
    started = running.chromium.launch(
      executable_path=shutil.which('chromium'), args=['--no-sandbox']
    )
    yield started
    started.close()


class Shown:
  """A page as it is opened, and all that it asked for or complained of."""

  def __init__(self, browser, path, width=1200):
    self.page = browser.new_page(viewport={'width': width, 'height': 900})
    self.requests, self.complaints = [], []
    self.page.on('request', lambda request: self.requests.append(request.url))
    self.page.on('console', lambda message: self.complaints.append(message.text))
    self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
    self.page.goto(path.as_uri())
    self.page.wait_for_selector('#curves .scatterlayer .js-line')

  def strokes(self, dashed=False):
    """Colors of the lines that are drawn, of the dashed or of the others."""
    # transitions, and the time within which a second click would be a double one
    self.page.wait_for_timeout(500)
    script = """lines => lines.filter(l => l.getTotalLength() > 0 && l.style.strokeWidth != '0px')
      .map(l => [getComputedStyle(l).stroke, l.style.strokeDasharray != ''])"""
    drawn = self.page.eval_on_selector_all('#curves .scatterlayer .js-line', script)
    return [color for color, has_dashes in drawn if has_dashes == dashed]

  def heights(self):
    return self.page.evaluate(
      "document.getElementById('curves').data.filter((_, i) => i % 3 == 1).map(t => t.y)"
    )

  def legend(self, name, clicks=1):
    self.page.locator('#curves .traces', has_text=re.compile(f'^{name}$')).locator(
      '.legendtoggle'
    ).click(click_count=clicks)

  def choose(self, menu, label):
    self.page.locator('#curves .updatemenu-header').nth(menu).click()
    self.page.locator(
      '#curves .updatemenu-dropdown-button', has_text=re.compile(f'^{label}$')
    ).click()

  def press(self, label):
    self.page.locator('#curves .updatemenu-button', has_text=re.compile(f'^{label}$')).click()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'page.html'
  page.write(
    path,
    rendered(realistic() + rows_of(BITS, protocol='non_overlapping', k=None, train_length=128)),
  )
  return path


@pytest.mark.browser
def test_the_legend_takes_a_line_away_and_brings_it_back(browser, made):
  shown = Shown(browser, made)
  every = shown.strokes()
  assert len(every) == len(NINE) - 1, 'learned has one point, and no line'
  (color,) = {
    t['line']['color']
    for t in plot(made.read_text())[0]
    if t['name'] == 'rope' and 'color' in t['line']
  }
  rope = 'rgb({}, {}, {})'.format(*bytes.fromhex(color[1:]))
  shown.legend('rope')
  assert sorted(shown.strokes()) == sorted(color for color in every if color != rope)
  shown.choose(0, 'solid: non_overlapping')
  assert len(shown.strokes()) == 1, 'alibi: learned has a point, and what is hidden stays hidden'
  shown.legend('rope')
  assert rope in shown.strokes()
  shown.choose(0, 'solid: last_k')
  shown.legend('rope', clicks=2)
  assert shown.strokes() == [rope], 'alone'
  assert shown.complaints == []


@pytest.mark.browser
def test_measurement_axis_and_bands_are_switched(browser, made):
  shown = Shown(browser, made)
  first = shown.heights()
  shown.choose(0, 'solid: last_k, windowed')
  assert shown.heights() != first
  shown.choose(0, 'solid: last_k')
  assert shown.heights() == first
  assert shown.strokes(dashed=True) == []
  shown.choose(1, 'dashed: last_k, windowed')
  assert sorted(shown.strokes(dashed=True)) == sorted(shown.strokes())
  axis = lambda: shown.page.evaluate("document.getElementById('curves')._fullLayout.yaxis.type")
  assert axis() == 'log'
  shown.press('linear axis')
  assert axis() == 'linear'
  fills = lambda: shown.page.locator('#curves .scatterlayer .js-fill').evaluate_all(
    "fills => fills.filter(f => f.getAttribute('d') && getComputedStyle(f).fillOpacity > 0).length"
  )
  assert fills() == len(NINE)
  shown.press('no bands')
  shown.page.wait_for_timeout(300)
  assert fills() == 0
  assert shown.complaints == []


@pytest.mark.browser
def test_tasks_are_switched(browser, tmp_path):
  path = tmp_path / 'page.html'
  page.write(path, rendered([*tasks(), *(r | {'value': 0.3} for r in tasks(names=['third']))]))
  shown = Shown(browser, path)
  assert len(shown.strokes()) == 3 * (1 + 3), 'means and seeds'
  shown.press('no seeds')
  assert len(shown.strokes()) == 3
  chance = lambda: shown.page.evaluate("document.getElementById('curves').data.at(-1).y[0]")
  assert chance() == 0.1
  shown.choose(0, 'solid: third, exact match')
  assert chance() == 0.3
  assert shown.heights() == [[0.3] * 6] * 3
  shown.choose(1, 'dashed: sort, exact match')
  assert len(shown.strokes(dashed=True)) == 3 + 1, 'and chance, which is dotted'
  shown.legend('chance')
  assert len(shown.strokes(dashed=True)) == 3
  shown.press('seeds')
  assert len(shown.strokes()) == 3 * (1 + 3)
  assert shown.complaints == []


@pytest.mark.browser
def test_pointing_at_a_line_shows_every_seed(browser, made):
  shown = Shown(browser, made)
  box = shown.page.locator('#curves .scatterlayer .points path').first.bounding_box()
  shown.page.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
  label = shown.page.locator('#curves .hoverlayer .hovertext')
  label.wait_for()
  assert re.search(
    r'128 tokens\d\.\d{3} ± \d\.\d{3}seed 0: \d\.\d{3}seed 1: \d\.\d{3}seed 2', label.text_content()
  )


@pytest.mark.browser
@pytest.mark.parametrize('width', [1200, 375])
def test_the_page_fits_and_asks_for_nothing_but_itself(browser, made, width):
  shown = Shown(browser, made, width)
  shown.page.wait_for_timeout(500)
  assert shown.page.evaluate('document.documentElement.scrollWidth') == width
  plots = shown.page.locator('.plotly-graph-div')
  assert plots.count()
  for i in range(plots.count()):
    box = plots.nth(i).locator('.main-svg').first.bounding_box()
    assert box['x'] >= 0
    assert box['x'] + box['width'] <= width
  assert shown.requests == [made.as_uri()]
  assert shown.complaints == []
