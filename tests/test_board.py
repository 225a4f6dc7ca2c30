"""The board: each number by hand, each verdict from lines that were made for it."""

import dataclasses
import itertools
import random
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats
from synthetic import row
from test_page import browser  # noqa: F401

from posenc_jax import config, storage, sweep
from posenc_jax.errors import Stopped, UserError
from posenc_jax.inspection import parameter_counts
from posenc_jax.reporting import costs, study
from posenc_jax.reporting.board import lines, page, pareto, recall, tables
from posenc_jax.reporting.board import smallest as smallest_of
from posenc_jax.reporting.comparisons import effective_length, significance
from posenc_jax.reporting.row_files import of_runs
from posenc_jax.reporting.tasks import learned
from posenc_jax.rows import sessions
from posenc_jax.training.run_dir import claim_run_dir
from scripts import board, step_times
from scripts.maintenance import remake

ROOT = Path(__file__).parent.parent
STUDY_FILE = ROOT / 'configs' / 'studies' / 'board.py'
L, LENGTHS, DOCUMENTS, SEEDS = 8, (8, 16, 32, 64), 8, 3
# {label: (bits at L, change a doubling, change of the placebo, change under a window of L)}, of
# bits at 2 L, 4 L and so on
MODELS = {
  'rope': (1.80, 0.5, 0.5, 0.0),
  'lost': (1.78, 0.5, 0.5, 0.4),
  'flat': (1.90, 0.0, 0.0, 0.0),
  'far': (1.95, -0.05, 0.01, 0.0),
  'deaf': (1.96, -0.05, -0.05, 0.0),  # longer inputs help it, whatever they say
  'near': (1.97, -0.05, 0.01, -0.05),  # and do it no less good within a window of L
}
CORPUS = 'planted'
STUDY = """
from posenc_jax.config import load

def get_config():
  sizes = {{'model.layers': 1, 'model.model_dim': 16, 'model.heads': 2, 'model.head_dim': 8}}
  return load('{base}', sizes | {{'model.mlp_dim': 16, 'train.batch': 1, 'train.length': 16}})

def sweep():
  for seed in (0, 1):
    yield {{'seed': seed, 'encoding.name': 'nope'}}
    yield {{'seed': seed, 'encoding.name': 'rope'}}
    yield {{'seed': seed, 'encoding.name': 'rope', 'train.length': 32}}
"""


def text_rows(models=MODELS, seeds=SEEDS):
  noise, rows = random.Random(0), []
  for label, (bits, change, placebo, windowed) in models.items():
    for seed in range(seeds):
      for doublings, length in enumerate(LENGTHS):
        changes = {None: change, 'windowed': windowed} | (
          {'shuffled_far': placebo} if doublings else {}
        )
        for control, a_doubling in changes.items():
          for d in range(DOCUMENTS):
            value = bits + a_doubling * doublings + 0.1 * d + noise.gauss(0, 0.002)
            rows.append(row(label, seed, length, value, f'd{d}', control=control, corpus=CORPUS))
  return rows


def recall_rows(seeds=SEEDS, label='rope', length=64, **fields):
  fields = dict(protocol='planted', k=None, corpus=CORPUS, document='d0') | fields
  return [
    row(label, seed, length, 1 + n / 16 + seed / 10, position=n, tokens=10 + n, **fields)
    for seed in range(seeds)
    for n in (0, 1, 2, 4, 8, 16, 32)
    if n < length
  ]


def cost_rows(labels=MODELS):
  return [
    dict(
      run=f'encoding.name={label},seed={seed}',
      label=label,
      seed=seed,
      parameters=1000 + 10 * number,
      encoding_parameters=0,
      tokens=1,
      train_length=L,
      compute_dtype='float32',
      seconds_per_step=0.1 * (1 + number) + 0.001 * seed,
      temporary_bytes=1000 + 100 * number,
      onset_tokens=None if seed else 2_000_000,
    )
    for number, label in enumerate(labels)
    for seed in range(SEEDS)
  ]


def text_table(rows):
  return tables.tables(rows, [], [])[0][0]


@pytest.fixture(scope='module')
def of_corpus():
  return {line.name: line for line in lines.lines(text_rows(), (), cost_rows(), CORPUS)}


def test_the_numbers_of_a_line(of_corpus):
  def bits(seed, length, control=None, label='far'):
    wanted = (label, seed, length, control)
    some = [r for r in text_rows() if (r['label'], r['seed'], r['length'], r['control']) == wanted]
    return sum(r['nats'] for r in some) / sum(r['bytes'] for r in some) / np.log(2)

  line = of_corpus['far']
  assert line.own == pytest.approx([bits(seed, L) for seed in range(SEEDS)])
  for length in LENGTHS[1:]:
    change = statistics.fmean(bits(s, length) - bits(s, L) for s in range(SEEDS))
    assert line.changes[length].mean == pytest.approx(change)
  placebo = statistics.fmean(bits(s, 32) - bits(s, 32, 'shuffled_far') for s in range(SEEDS))
  assert line.beyond_shuffled.mean == pytest.approx(placebo)
  windowed = statistics.fmean(
    bits(s, 64, 'windowed') - bits(s, L, 'windowed') for s in range(SEEDS)
  )
  assert line.windowed.mean == pytest.approx(windowed)
  beyond = statistics.fmean(bits(s, 32) - bits(s, 32, 'windowed') for s in range(SEEDS))
  assert line.beyond_window.mean == pytest.approx(beyond)
  default = statistics.fmean(bits(s, 32) - bits(s, 32, 'windowed', 'rope') for s in range(SEEDS))
  assert line.beyond_default.mean == pytest.approx(default)
  assert line.cost == pytest.approx((1030 / 1000, 0.401 / 0.101, 1300 / 1000))


def test_verdicts_by_the_rule(of_corpus):
  assert {name: line.verdict for name, line in of_corpus.items()} == {
    'rope': 'fails by 2 L; holds with a window of L',
    'lost': 'fails by 2 L; fails with a window of L',
    'flat': 'holds to 8 L',
    'far': 'uses text past L; holds to 8 L',
    'deaf': 'holds to 8 L',
    'near': 'holds to 8 L',
  }
  # those that hold to 4 L come first, by bits at L
  assert list(of_corpus) == ['flat', 'far', 'deaf', 'near', 'lost', 'rope']


def test_what_documents_or_seeds_leave_open_is_not_said(of_corpus):
  """Between surely held and surely failed lies what is undecided."""
  flat = dict(of_corpus)['flat']
  change = {length: flat.changes[length] for length in LENGTHS[1:]}

  def verdict(ends, worst=(0.0,) * 3):
    changes = {
      length: change[length]._replace(interval=interval)
      for length, interval in zip(LENGTHS[1:], ends, strict=True)
    }
    values = {0: {L: 1.0} | {n: 1.0 + some for n, some in zip(LENGTHS[1:], worst, strict=True)}}
    held = effective_length.holds_to(L, values, {0: 1.0}, changes)
    held = held.length if held else L
    fails = next((n for n in LENGTHS[1:] if lines._is_above(changes[n])), None)
    return dataclasses.replace(flat, changes=changes, holds_to=held, fails_by=fails).verdict

  sure, open_, failed = (-0.01, 0.02), (-0.01, 0.03), (0.021, 0.05)
  assert verdict((sure, sure, sure)) == 'holds to 8 L'
  assert verdict((sure, sure, open_)) == 'holds to 4 L; holds with a window of L'
  assert verdict((open_, sure, sure)).startswith('holds with')
  assert verdict((sure, open_, failed)).startswith('holds to 2 L; fails by 8 L; ')
  assert verdict((sure, None, failed)).startswith('holds to 2 L; fails by 8 L; ')
  assert verdict((sure, sure, sure), (0, 0.021, 0)).startswith('holds to 2 L; holds with')
  assert verdict((sure, sure, sure), (0, 0.019, 0)) == 'holds to 8 L'


def test_a_verdict_that_hangs_on_one_seed_says_so():
  rows = text_rows({name: MODELS[name] for name in ('rope', 'flat')})
  spoiled = [
    row('flat', 0, 16, 3.0, r['document'], corpus=CORPUS)
    if (r['label'], r['seed'], r['length'], r['control']) == ('flat', 0, 16, None)
    else r
    for r in rows
  ]
  note = 'flat would be: without seed 0: holds to 8 L'
  for some, marked, notes in ((rows, [], []), (spoiled, ['flat'], [note])):
    table = text_table(some)
    found = [line[0].text for line in table.groups[0].lines if line[1].text.startswith('~')]
    assert found == marked
    assert [text for text in table.notes if text.startswith('flat would be')] == notes


def test_references_have_no_verdict():
  more = [
    row('rope, long', seed, length, 1.7, f'd{d}', train_length=32, corpus=CORPUS)
    for seed in range(SEEDS)
    for length in LENGTHS
    for d in range(DOCUMENTS)
  ]
  found = lines.lines(text_rows() + more, (), [], CORPUS)
  assert found[-1].name == 'rope, long'
  reference = found[-1]
  assert reference.verdict == 'reference'
  assert reference.mean == pytest.approx(1.7)
  assert {length: some.mean for length, some in reference.changes.items()} == pytest.approx(
    {length: 0.0 for length in LENGTHS[1:]}
  )
  assert not any(some.interval or some.mark for some in reference.changes.values())
  # at FAR times the L of the board, not its own
  of_rope = [
    r for r in text_rows() if (r['label'], r['length'], r['control']) == ('rope', 4 * L, 'windowed')
  ]
  windowed = sum(r['nats'] for r in of_rope) / sum(r['bytes'] for r in of_rope) / np.log(2)
  assert reference.beyond_default.mean == pytest.approx(1.7 - windowed)
  assert (reference.beyond_window, reference.beyond_shuffled) == (None, None)


def test_references_of_the_study_keep_their_intervals_and_windows(of_corpus):
  """They were trained at L; only the verdict, the order and the figure tell them from others."""
  found = lines.lines(text_rows(), (), cost_rows(), CORPUS, references=('flat', 'none'))
  assert [line.name for line in found if line.is_reference] == ['flat'] == [found[-1].name]
  assert found[-1].verdict == 'reference'
  assert dataclasses.replace(found[-1], is_reference=False) == of_corpus['flat']
  assert not lines.other_verdicts(found[-1], text_rows(), CORPUS, L)
  (axes,) = pareto.draw(found, CORPUS).axes
  assert {text.get_text() for text in axes.texts} == set(MODELS) - {'flat'}


def test_the_board_of_this_repository_compares_with_its_costliest_lines():
  """RoPE, wider, has the parameters of the largest model; longer, the time of the slowest."""
  configs = {c.label: c for c in (run.config for run in sweep.plan(STUDY_FILE, 'x', {}))}
  sizes = {label: parameter_counts.count(c)[0] for label, c in configs.items()}
  largest = max(size for label, size in sizes.items() if label != 'rope, wider')
  assert sizes['rope, wider'] == largest
  times = {
    row['label']: row['seconds_per_step']
    for row in storage.read_rows(ROOT / 'results' / 'board' / costs.STEP_TIMES)
  }
  longer = configs['rope, longer'].train.steps / configs['rope'].train.steps
  assert longer == pytest.approx(max(times.values()) / times['rope'], rel=0.01)


def test_marks_and_the_smallest_difference_that_is_marked(of_corpus):
  """At L against the baseline, past L against the own score; none of one seed."""
  table = text_table(text_rows())
  body = {
    line[0].text: dict(zip(table.header, line, strict=True)) for line in table.groups[0].lines
  }
  assert body['rope']['bits at L'].mark == ''
  assert body['flat']['bits at L'].mark == '†'
  assert body['lost']['bits at L'].mark == '*'
  assert body['lost']['at 2 L'].mark == '†'
  assert body['flat']['at 2 L'].mark == '='
  smallest = body['smallest shown']
  at_L = [line.at_L.smallest for line in of_corpus.values() if line.at_L]
  assert smallest['bits at L'].text == f'{statistics.median(at_L):.3f}'
  holding = [line for line in of_corpus.values() if line.holds_far and not line.is_reference]
  telling = [line.changes[2 * L] for line in holding if line.changes[2 * L].mark != '=']
  widths = [upper - lower for lower, upper in (change.interval for change in telling)]
  half = (1.959964 + 0.841621) / 1.959964 / 2  # quantiles of the normal distribution
  assert smallest['at 2 L'].text == f'{half * statistics.median(widths):.3f}'
  assert 0 < len(widths) < len(holding) < len(of_corpus)
  of_one = text_table(text_rows(seeds=1))
  assert [line[0].text for line in of_one.groups[0].lines if line[0].text not in MODELS] == []


def test_the_baseline_is_the_line_of_its_label_whatever_its_encoding_is_called():
  """A chain with KV shift, say; then a model of another training length is compared at L too."""
  rows = [r | {'encoding': 'chain'} for r in text_rows()]
  rows += [
    r | {'label': 'far, long', 'train_length': 32, 'run': f'long,seed={r["seed"]}'}
    for r in rows
    if r['label'] == 'far'
  ]
  found = {line.name: line for line in lines.lines(rows, (), [], CORPUS)}
  of_rope, of_flat = (statistics.fmean(found[name].own) for name in ('rope', 'flat'))
  assert found['flat'].at_L.mean == pytest.approx(of_flat - of_rope)
  assert found['flat'].at_L.mark == '†'
  assert found['far, long'].at_L.mark == '†'
  assert found['rope'].at_L is None


def test_the_baseline_is_the_one_of_the_length_that_most_were_trained_at():
  """Also where its other one has more seeds, comes first, and is larger."""
  of_long = [
    r | {'train_length': 2 * L, 'run': f'a,{r["run"]}'}
    for r in text_rows({'rope': MODELS['flat']}, seeds=SEEDS + 1)
  ]
  long_costs = [
    r | {'run': f'a,{r["run"]}', 'train_length': 2 * L, 'parameters': 7, 'seconds_per_step': 9.0}
    for r in cost_rows(['rope'])
  ]
  spent = long_costs + cost_rows()
  found = {line.name: line for line in lines.lines(of_long + text_rows(), (), spent, CORPUS)}
  alone = {line.name: line for line in lines.lines(text_rows(), (), cost_rows(), CORPUS)}
  for name in ('flat', 'far'):
    assert found[name].cost == alone[name].cost
    assert found[name].at_L.mean == pytest.approx(alone[name].at_L.mean)
  assert any(line.train_length == 2 * L and line.is_reference for line in found.values())


def test_without_the_baseline_no_line_stands_for_it():
  rows = [r | {'label': 'plain' if r['label'] == 'rope' else r['label']} for r in text_rows()]
  found = lines.lines(rows, (), cost_rows(), CORPUS)
  assert {line.at_L for line in found} == {None}
  assert smallest_of.smallest_marked(found) is None
  assert {line.cost for line in found} == {costs.Cost(None, None, None)}


def test_lines_of_one_label_have_costs_of_their_own():
  wide = [r | {'run': f'wide,{r["run"]}', 'step': 999} for r in text_rows()]
  cost_of_wide = [
    r | {'run': f'wide,{r["run"]}', 'parameters': 3 * r['parameters'], 'onset_tokens': 4_000_000}
    for r in cost_rows()
  ]
  spent = cost_rows() + cost_of_wide
  found = lines.lines(text_rows() + wide, (), spent, CORPUS)
  ratio = lambda a, b: a.cost.parameters / b.cost.parameters
  by_step = {label: [line for line in found if line.label == label] for label in MODELS}
  for of_label in by_step.values():
    narrow, wide_line = sorted(of_label, key=lambda line: 'step 999' in line.name)
    assert ratio(wide_line, narrow) == pytest.approx(3)


def test_a_verdict_does_not_hang_on_how_many_other_lengths_its_label_was_trained_at():
  of_long = [
    r | {'train_length': 2 * L, 'run': f'long,{r["run"]}', 'seed': r['seed'] + SEEDS}
    for r in text_rows({'flat': MODELS['flat']}, seeds=SEEDS + 2)
  ]
  rows = text_rows() + of_long
  found = {line.name: line for line in lines.lines(rows, (), (), CORPUS)}
  line = found[f'flat, train_length {L}']
  assert line.verdict == 'holds to 8 L'
  assert not lines.other_verdicts(line, rows, CORPUS, L)


def test_a_verdict_that_other_resamples_might_change_is_not_stable(monkeypatch):
  models = {name: MODELS[name] for name in ('rope', 'flat')}
  of_one = text_rows(models, seeds=1)
  alike = [r | {'seed': seed, 'run': f'{r["run"]},{seed}'} for r in of_one for seed in range(SEEDS)]

  def raised(by):
    return [
      r | {'nats': r['nats'] + by * np.log(2) * r['bytes']}
      if (r['label'], r['length'], r['control']) == ('flat', 64, None)
      else r
      for r in alike
    ]

  line_of = lambda rows: {line.name: line for line in lines.lines(rows, (), (), CORPUS)}['flat']
  low, high = line_of(alike).changes[64].interval
  for below, is_stable in ((0.005, False), (0.02, True), (-0.005, False), (-0.02, True)):
    rows = raised(lines.SLACK - high - below * (high - low))
    line = line_of(rows)
    assert line.verdict.startswith('holds to 8 L' if below > 0 else 'holds to 4 L')
    assert (not lines.other_verdicts(line, rows, CORPUS, L)) == is_stable
  rows = raised(lines.SLACK - high - 0.005 * (high - low))
  monkeypatch.setattr(lines, 'MOVED', 0.0)
  assert not lines.other_verdicts(line_of(rows), rows, CORPUS, L)


def test_intervals_are_moved_both_ways_after_one_comparison(monkeypatch):
  line = {line.name: line for line in lines.lines(text_rows(), (), (), CORPUS)}['flat']
  compare, calls = lines.compare_all, []
  monkeypatch.setattr(lines, 'compare_all', lambda *a, **kw: calls.append(a) or compare(*a, **kw))
  assert not lines.other_verdicts(line, text_rows(), CORPUS, L)
  assert len(calls) == SEEDS + 1  # without each seed, and with all of them


def test_a_line_that_sees_nothing_past_l_is_stable():
  """Its scores differ by rounding alone: no resamples could change what is equal."""
  rows = [
    r | {'nats': (2.0 - 1e-7 * (r['length'] > L)) * np.log(2) * r['bytes']} for r in text_rows()
  ]
  line = {line.name: line for line in lines.lines(rows, (), (), CORPUS)}['flat']
  assert line.changes[4 * L].interval[1] < 0
  assert line.verdict == 'holds to 8 L'
  assert not lines.other_verdicts(line, rows, CORPUS, L)


def test_runs_of_one_name_and_two_configs_stay_apart(tmp_path):
  for name, steps, factor in (('a', 600, 1), ('b', 2400, 3)):
    (tmp_path / name).mkdir()
    storage.append_rows(tmp_path / name / 'rows.jsonl', [r | {'step': steps} for r in text_rows()])
    spent = [r | {'parameters': factor * r['parameters']} for r in cost_rows()]
    storage.append_rows(tmp_path / name / 'costs.jsonl', spent)
    hashes = {r['run']: name for r in spent}
    study.write(study.Report(tmp_path / name, list(hashes), study='x.py', hashes=hashes))
  folders = [str(tmp_path / name) for name in 'ab']
  text = board.make(folders, tmp_path / 'out')[0]['BOARD.md']
  assert 'repeat a key' not in text
  of_steps = [
    re.search(rf'flat, step {steps} .*? ([+-][0-9.]+)%', text)[1] for steps in (600, 2400)
  ]
  first, second = (1 + float(percent) / 100 for percent in of_steps)
  assert second / first == pytest.approx(3, abs=0.01)
  twice = board.make([folders[0], folders[0]], tmp_path / 'out')[0]['BOARD.md']
  assert re.search(r'\| flat +\|', twice)


def test_runs_of_one_name_in_folders_without_a_study_stay_apart(tmp_path):
  rows, spent = text_rows({'rope': MODELS['rope']}), cost_rows(['rope'])
  for name, rate in (('a', 1e-3), ('b', 3e-3)):
    (tmp_path / name).mkdir()
    storage.append_rows(tmp_path / name / 'rows.jsonl', rows)
    storage.append_rows(tmp_path / name / 'costs.jsonl', spent)
    for run in {r['run'] for r in rows}:
      made = config.load(STUDY_FILE.parents[1] / 'base.py', {'optim.learning_rate': rate})
      (tmp_path / name / run).mkdir()
      storage.write_json(tmp_path / name / run / 'config.json', config.to_json(made))
  text = board.make([str(tmp_path / name) for name in 'ab'], tmp_path / 'out')[0]['BOARD.md']
  assert 'repeat a key' not in text
  assert all(f'| rope [{tmp_path / name}/encoding.name=rope]' in text for name in 'ab')


def test_a_board_of_references_alone_is_made():
  made, lines_of = tables.tables(text_rows({'rope': MODELS['rope']}), [], [], ('rope',))
  assert made[0].groups[0].lines[0][1].text == 'reference'
  assert [line.name for line in lines_of[CORPUS]] == ['rope']


def test_lines_of_other_lengths_and_seeds_are_judged_by_what_they_have():
  """One that was evaluated farther, and one of fewer seeds, change no other line."""
  farther = [
    r | {'label': 'mine', 'run': f'mine,seed={r["seed"]}', 'length': 2 * r['length']}
    for r in text_rows({'far': MODELS['far']}, seeds=2)
    if r['length'] == LENGTHS[-1]
  ]
  mine = [
    r | {'label': 'mine', 'run': f'mine,seed={r["seed"]}'}
    for r in text_rows({'far': MODELS['far']}, seeds=2)
  ]
  alone = {line.name: line for line in lines.lines(text_rows(), (), [], CORPUS)}
  notes = []
  beside = lines.lines([*text_rows(), *mine, *farther], (), [], CORPUS, notes=notes)
  beside = {line.name: line for line in beside}
  for name, line in alone.items():
    assert beside[name].verdict == line.verdict
    assert (beside[name].longest, beside['mine'].longest) == (LENGTHS[-1], 2 * LENGTHS[-1])
  assert any('mine' in note for note in notes)
  table = text_table([*text_rows(), *mine, *farther])
  assert table.notes == [*notes, *(note.replace('{alike}', '') for note in tables.LEGEND)]
  body = {
    line[0].text: dict(zip(table.header, line, strict=True)) for line in table.groups[0].lines
  }
  assert (
    body['flat']['window of L, at 16 L'].text == '—' != body['mine']['window of L, at 16 L'].text
  )


def test_a_score_that_is_not_finite_fails():
  rows = [
    r | {'status': 'not_finite', 'nats': None, 'bpb': None, 'ppl': None}
    if (r['label'], r['seed'], r['length'], r['control']) == ('flat', 1, 32, None)
    else r
    for r in text_rows()
  ]
  found = {line.name: line for line in lines.lines(rows, (), [], CORPUS)}
  assert found['flat'].verdict.startswith('holds to 2 L; fails by 4 L')


def test_one_seed_says_that_it_is_one():
  table = text_table(text_rows(seeds=1))
  assert {line[1].text[0] for line in table.groups[0].lines} == {'~'}
  assert not any(' would be: ' in text for text in table.notes)


def test_characters_are_added_up_by_distance():
  rows = recall_rows()
  (table,) = recall.recall_tables(rows, cost_rows())
  assert table.header == [
    'encoding',
    'new',
    'to L / 2',
    'L / 2 to L',
    '1 to 2 L',
    '2 to 4 L',
    '4 to 8 L',
    'onset',
    'exact',
    'seeds',
  ]
  cells, smallest = table.groups[0].lines
  bins = ([0], [1, 2], [4], [8], [16], [32])
  for cell, least, positions in zip(cells[1:-3], smallest[1:-3], bins, strict=True):
    seeds = []
    for seed in range(SEEDS):
      some = [r for r in rows if r['seed'] == seed and r['position'] in positions]
      seeds.append(sum(r['nats'] for r in some) / sum(r['bytes'] for r in some) / np.log(2))
    assert cell.text == f'{statistics.fmean(seeds):.3f} ± {statistics.stdev(seeds):.3f}'
    assert least.text == f'{significance.smallest_between([seeds]):.3f}'
  assert [cell.text for cell in cells[-3:]] == ['2.00 M (1 of 3)', '0', '3']
  assert [cell.text for cell in smallest[-3:]] == ['—', '—', '']
  assert smallest_of.SMALLEST_BETWEEN in table.notes
  (table,) = recall.recall_tables(recall_rows(1), [])
  assert [line[0].text for line in table.groups[0].lines] == ['rope']
  assert smallest_of.SMALLEST_BETWEEN not in table.notes
  exact = [r | {'nats': r['nats'] / 8} if r['seed'] == 1 else r for r in rows]
  (table,) = recall.recall_tables(exact, [])
  cells = table.groups[0].lines[0]
  assert cells[-2].text == '1'


def test_recall_is_that_of_windows_that_most_have_and_of_seeds_that_did_not_fail():
  rows = recall_rows()
  farther = [
    r | {'label': 'mine', 'run': f'mine,seed={r["seed"]}', 'length': 128} for r in recall_rows(2)
  ]
  assert recall.recall_tables(rows + farther, []) == recall.recall_tables(rows, [])
  failed = [r | {'status': 'not_finite', 'nats': None} if r['position'] == 2 else r for r in rows]
  (table,) = recall.recall_tables(failed, [])
  cells = table.groups[0].lines[0]
  assert cells[2].text == '—' != cells[1].text


def test_recall_is_shown_in_windows_of_L_in_long_ones_and_in_these_windowed_at_L():
  """Lines stand in the order of the board."""
  rows = [
    some
    for label in ('near', 'rope', 'far')
    for some in (
      *recall_rows(label=label),
      *recall_rows(label=label, length=L),
      *recall_rows(label=label, control='windowed'),
    )
  ]
  (table,) = recall.recall_tables(rows, [], ('far', 'rope', 'near'))
  names = ['Windows of L', 'Windows of 8 L', 'Windows of 8 L, attention windowed at L']
  assert [group.name for group in table.groups] == names
  for group in table.groups:
    names = [line[0].text for line in group.lines]
    assert names == ['far', 'rope', 'near', smallest_of.SMALLEST_SHOWN]
  heads = table.header[1:-3]
  of_L, far, windowed = (group.lines[0][1:-3] for group in table.groups)
  dashes = [head for head, cell in zip(heads, of_L, strict=True) if cell.text == '—']
  assert dashes == ['1 to 2 L', '2 to 4 L', '4 to 8 L']
  assert far == windowed
  assert far[:3] == of_L[:3]
  every, _ = tables.tables([*text_rows(), *rows], [], cost_rows())
  order = [line[0].text for line in every[0].groups[0].lines]
  *recalled, _ = (line[0].text for line in every[1].groups[0].lines)
  assert recalled == [name for name in order if name in ('near', 'rope', 'far')]


def test_the_smallest_difference_between_lines_is_found_in_four_of_five_cases():
  """Simulated, with scipy's test of two lines; by counts, with its exact test."""
  rng = np.random.default_rng(0)
  least = significance.smallest_between([*rng.normal(7, 2, (4000, 3)), [5.0, 5.0, 5.0]])
  ours_NS, theirs_NS = rng.normal(0, 2, (2, 20_000, 3))
  found = stats.ttest_ind(ours_NS + least, theirs_NS, axis=1).pvalue < significance.ALPHA
  assert found.mean() == pytest.approx(significance.POWER, abs=0.01)
  assert significance.smallest_between([[1.0, 1.0], [2.0]]) is None
  for seeds in range(1, 12):
    ps = [stats.fisher_exact([[seeds, 0], [seeds - d, d]]).pvalue for d in range(seeds + 1)]
    marked = [d for d, p in enumerate(ps) if p < significance.ALPHA]
    assert significance.fewest_fewer(seeds) == (marked[0] if marked else None), seeds


def test_bins_of_a_length_that_is_no_power_of_two_say_what_they_hold():
  words = 'Each distance stands for all from it to its double.'
  (table,) = recall.recall_tables(recall_rows(), [])
  assert words not in table.caption
  (table,) = recall.recall_tables([r | {'train_length': 6} for r in recall_rows()], [])
  assert words in table.caption


def test_onset_is_of_the_runs_that_were_asked_for_names():
  """Runs of tasks or of other text, which have the same label, are not counted."""
  spent = cost_rows()
  spent += [cost | {'run': f'task,{cost["run"]}', 'onset_tokens': None} for cost in spent]
  (table,) = recall.recall_tables(recall_rows(), spent)
  assert table.groups[0].lines[0][-3].text == '2.00 M (1 of 3)'
  longer = [r | {'label': 'longer', 'train_length': 32} for r in recall_rows()]
  longer = [r | {'run': r['run'].replace('rope', 'longer')} for r in longer]
  spent += [cost | {'run': cost['run'].replace('rope', 'longer')} for cost in spent]
  (table,) = recall.recall_tables(recall_rows() + longer, spent)
  onsets = {line[0].text: line[-3].text for line in table.groups[0].lines}
  assert onsets == {'rope': '2.00 M (1 of 3)', 'longer': '—', smallest_of.SMALLEST_SHOWN: '—'}


def test_tasks_say_how_many_seeds_have_learned(monkeypatch):
  fields = dict(protocol='copy', k=None, document=None, corpus='task:copy')
  rows = []
  for seed, length in ((s, n) for s in range(SEEDS) for n in (8, 16)):
    share = 0.4 if seed == 0 else 1.0 if length == 8 else 0.75
    rows.append(row('t5', seed, length, metric='token_accuracy', value=share, **fields))
    rows.append(row('t5', seed, length, metric='token_chance', value=0.1, **fields))
  (table,) = tables.task_tables(rows)
  assert table.header == ['encoding', 'copy, learned', 'copy at 2 L']
  cells, guessing = ([cell.text for cell in line] for line in table.groups[0].lines)
  assert cells == ['t5', '2 of 3', '0.750 ± 0.000']
  assert guessing == ['chance', '—', '0.100']
  assert 'exceeds 0.955' in table.caption  # of 1, by 95 % of the way from 0.1
  longer = [r | {'label': 'long', 'run': f'long{r["seed"]}', 'train_length': 16} for r in rows]
  (table,) = tables.task_tables(
    rows + longer + [r | {'run': f'x{r["seed"]}', 'label': 'x'} for r in rows]
  )
  found = {line[0].text: [cell.text for cell in line[1:]] for line in table.groups[0].lines}
  assert found['long'][1] == '—'  # 16 is its own L
  assert found['t5'] == ['2 of 3', '0.750 ± 0.000']
  monkeypatch.setattr(learned, 'PART', 0.2)
  (table,) = tables.task_tables(rows)
  cells, _, smallest = ([cell.text for cell in line] for line in table.groups[0].lines)
  assert cells[1] == '3 of 3'
  least = significance.smallest_between([[0.4, 0.75, 0.75]])
  assert smallest == [smallest_of.SMALLEST_SHOWN, '—', f'{least:.3f}']
  assert smallest_of.SMALLEST_BETWEEN in table.notes
  assert smallest_of.fewest_text([8, 8, 3]) == '5 of 8'
  assert smallest_of.fewest_text([]) == '—'
  monkeypatch.undo()
  # of the parameters of one that learned another task, what they do in this one decides nothing
  other = [
    r | {'corpus': 'task:copy/blanks=3', 'run': f'other{r["seed"]}', 'label': 'other', 'step': 0}
    for r in rows
  ]
  other = [r | {'parameters': {'run': f'run{r["seed"]}', 'step': 100}} for r in other]
  low = lambda r: r['length'] == 8 and r['metric'] == 'token_accuracy'
  other = [r | {'value': 0.2} if low(r) else r for r in other]
  source = [r | {'run': f'run{r["seed"]}', 'protocol': 'sort', 'corpus': 'task:sort'} for r in rows]
  for r in source:
    r['value'] = {'token_chance': 0.5}.get(r['metric'], 1.0)
  (table,) = tables.task_tables(rows + source + other)
  found = {line[0].text: [cell.text for cell in line[1:]] for line in table.groups[0].lines}
  assert found['other'][0] == '3 of 3'
  (note,) = (note for note in table.notes if note.startswith('copy: '))
  assert 'judged in the task of their training, task:sort: other' in note
  assert '0.955 (copy); 0.975 (sort)' in table.caption
  (table,) = tables.task_tables([r for r in rows if r['length'] > 8])
  assert [cell.text for cell in table.groups[0].lines[0]][:2] == ['t5', '—']


def test_documents_are_those_of_the_board_and_of_no_other_evaluation():
  rows, more = text_rows(), {'eval.documents': 99}
  again = [r | {'overrides': more, 'document': f'more{n}'} for n, r in enumerate(rows[:20])]
  planted = [r | {'document': 'p'} for r in recall_rows(1)]
  of = lambda some: text_table(some).caption
  assert f'the same targets in {DOCUMENTS} documents' in of(rows)
  assert f'the same targets in {DOCUMENTS} documents' in of([*rows, *again, *planted])


def test_times_that_were_measured_in_turn_stand_for_those_of_runs(tmp_path):
  times = {('rope', L): 0.2, ('lost', L): 0.3}
  measured = [
    {'label': label, 'train_length': length, 'seconds_per_step': seconds}
    for (label, length), seconds in times.items()
  ]
  rope, spent = ('rope', L), cost_rows()
  of_runs = costs.with_relative_steps(spent, tmp_path, rope)
  assert {row['seconds_per_step'] for row in of_runs if row['seed'] == 1} >= {1.0}
  costs.write_step_times(tmp_path, measured)
  in_turn = costs.with_relative_steps(spent, tmp_path, rope)
  found = {r['label']: r['seconds_per_step'] for r in in_turn}
  assert found.pop('lost') == pytest.approx(1.5)
  assert found == {'rope': 1.0} | {name: None for name in MODELS if name not in ('rope', 'lost')}
  # Times of two folders are each relative to their own baseline; without one there is none.
  assert not [
    r for r in costs.with_relative_steps(spent, tmp_path, ('rope', 2 * L)) if r['seconds_per_step']
  ]
  mine = [row | {'label': 'mine', 'run': 'mine'} for row in spent[:1]]
  assert costs.with_relative_steps(mine, tmp_path / 'other', rope)[0]['seconds_per_step'] is None
  # The baseline may have been timed beside a study that does not train it.
  beside = [measured[0], measured[1] | {'label': 'mine'}]
  costs.write_step_times(tmp_path, beside)
  (of_mine,) = costs.with_relative_steps(mine, tmp_path, rope)
  assert of_mine['seconds_per_step'] == pytest.approx(1.5)
  runs_of = {label: {r['run'] for r in in_turn if r['label'] == label} for label in MODELS}
  found = costs.relative_costs(in_turn, runs_of, runs_of['rope'])
  assert (found['lost'].step, found['flat'].step) == (pytest.approx(1.5), None)
  for wrong in (-1, 'x', None):
    costs.write_step_times(tmp_path, [measured[0] | {'seconds_per_step': wrong}])
    with pytest.raises(UserError, match='seconds_per_step='):
      costs.with_relative_steps(spent, tmp_path, rope)


def test_memory_is_relative_to_the_baseline_of_its_own_folder(tmp_path):
  """Another folder may be of another machine, where the same step takes other memory."""
  rope, here = ('rope', L), cost_rows()
  there = [
    row | {'run': f'there/{row["run"]}', 'temporary_bytes': 3 * row['temporary_bytes']}
    for row in here
  ]
  alone = [row | {'run': 'alone', 'label': 'alone'} for row in there[:1]]
  of_all = [
    row for rows in (here, there, alone) for row in costs.with_relative_steps(rows, tmp_path, rope)
  ]
  runs_of = {'flat': {row['run'] for row in (*here, *there) if row['label'] == 'flat'}}
  runs_of['alone'] = {'alone'}
  base = {row['run'] for row in (*here, *there) if row['label'] == 'rope'}
  found = costs.relative_costs(of_all, runs_of, base)
  assert found['flat'].memory == pytest.approx(1200 / 1000)
  assert found['alone'].memory is None
  unknown = [row | {'temporary_bytes': None} for row in here]
  of_unknown = costs.with_relative_steps(unknown, tmp_path, rope)
  assert {row['temporary_bytes'] for row in of_unknown} == {None}


@pytest.mark.ci
def test_the_command_times_each_line_once(tmp_path, monkeypatch):
  monkeypatch.setattr(step_times.cli, 'keep_compiled_programs', lambda: None)
  study = tmp_path / 'study.py'
  study.write_text(STUDY.format(base=config.BASE))
  step_times.main([f'--config={study}', f'--out={tmp_path / "out"}', '--rounds=2'])
  rows = storage.read_rows(tmp_path / 'out' / costs.STEP_TIMES)
  assert [(row['label'], row['train_length'], row['steps']) for row in rows] == [
    ('nope', 16, 2),
    ('rope', 16, 2),
    ('rope', 32, 2),
  ]
  for timed in rows:
    assert (len(timed['seconds']), timed['jax']) == (2, jax.__version__)
    assert 0 < timed['q1'] <= timed['seconds_per_step'] <= timed['q3']
    assert timed['seconds_per_step'] == pytest.approx(np.mean(timed['seconds']))  # of two
    assert timed['date'] <= sessions.now()
    assert (timed['commit'], timed['is_edited']) == sessions.code()
  mine = tmp_path / 'mine.py'
  mine.write_text(
    f'from posenc_jax.config import load_study, vary\n'
    f'get_config = load_study({str(study)!r}).get_config\n'
    f"sweep = lambda: vary('encoding.name', 'alibi') + [\n"
    "  {'encoding.name': 'alibi', 'train.steps': 99, 'optim.decay_steps': 9, 'eval.k': 9}]\n"
  )
  beside = [f'--config={mine}', f'--beside={study}', f'--out={tmp_path / "out"}', '--rounds=1']
  of_one_name = tmp_path / 'out' / 'seed=0,encoding.name=rope'  # of mine, say, and one beside
  claim_run_dir(of_one_name, config.load(study, {'seed': 7}))
  step_times.main(beside)
  rows = storage.read_rows(tmp_path / 'out' / costs.STEP_TIMES)
  assert [(row['label'], row['train_length']) for row in rows] == [
    ('rope', 16),
    ('rope', 32),
    ('alibi', 16),
  ]
  wider = tmp_path / 'wider.py'
  wider.write_text(mine.read_text().replace("'eval.k'", "'model.mlp_dim'"))
  with pytest.raises(UserError, match=r'alibi at 16 tokens differs in model\.mlp_dim; allowed'):
    step_times.main([f'--config={wider}', f'--out={tmp_path / "out"}'])
  with pytest.raises(UserError, match='--rounds=0; allowed'):
    step_times.main([f'--config={study}', f'--out={tmp_path / "out"}', '--rounds=0'])
  cut = ['--config.mesh.data=2', '--config.train.batch=2']
  with pytest.raises(UserError, match=r'config\.mesh: steps are measured on one device'):
    step_times.main([f'--config={study}', f'--out={tmp_path / "cut"}', *cut])


@pytest.mark.parametrize('number', [2, 3])
def test_no_line_is_first_in_more_rounds_than_others(number, monkeypatch):
  """Steps of equal cost, the first of each round slower, have equal times."""
  made, clock = [], [0.0]

  def step_of_config(c, batch, largest_position):
    def call():
      made.append(c.encoding.name)
      timed = len(made) - number  # each line compiles first
      clock[0] += 2.0 if timed % number == 1 else 1.0

    return SimpleNamespace(call=call)

  monkeypatch.setattr('scripts.bench.jax_cases.step_of_config', step_of_config)
  monkeypatch.setattr(step_times.time, 'perf_counter', lambda: clock[0])
  monkeypatch.setattr(step_times.cli, 'keep_compiled_programs', lambda: None)
  names = ['rope', 'nope', 'alibi'][:number]
  configs = {(name, 16): config.load(config.BASE, {'encoding.name': name}) for name in names}
  seconds = step_times.measure(configs, step_times.FLAGS['rounds'])
  of_base, *others = (statistics.median(of_line) for of_line in seconds.values())
  assert [other / of_base for other in others] == [1.0] * (number - 1)
  rounds = [made[n : n + number] for n in range(0, len(made), number)]
  assert all(sorted(one) == sorted(names) for one in rounds)


def test_of_seeds_in_one_program_the_step_of_one_is_timed(tmp_path, monkeypatch):
  timed = []
  measure = lambda configs, rounds: {line: timed.append(c) or [1.0] for line, c in configs.items()}
  monkeypatch.setattr(step_times, 'measure', measure)
  study = tmp_path / 'study.py'
  study.write_text(STUDY.format(base=config.BASE))
  seeds = ['--config.seeds=(0, 1)', '--config.vmap_seeds=True', '--config.mesh.seeds=2']
  step_times.main([f'--config={study}', f'--out={tmp_path / "out"}', *seeds])
  assert [(c.seeds, c.vmap_seeds, c.mesh.seeds) for c in timed] == [((), False, 1)] * 3


@pytest.mark.parametrize('platform', ['gpu', 'cpu'])
def test_times_are_of_the_processor_that_made_the_steps(platform, monkeypatch):
  device = SimpleNamespace(platform=platform, device_kind='NVIDIA H200')
  monkeypatch.setattr(jax, 'devices', lambda: [device])
  monkeypatch.setattr(sessions, 'processor', lambda: 'a CPU')
  assert step_times.processor() == {'gpu': 'NVIDIA H200', 'cpu': 'a CPU'}[platform]


@pytest.mark.slow
def test_steps_whose_data_carry_positions_are_timed(tmp_path, monkeypatch):
  monkeypatch.setattr(step_times.cli, 'keep_compiled_programs', lambda: None)
  addition = ROOT / 'configs' / 'addition.py'
  smaller = ['--config.seed=0', '--config.train.batch=2', '--config.model.model_dim=16']
  step_times.main([f'--config={addition}', f'--out={tmp_path}', '--rounds=1', *smaller])
  rows = storage.read_rows(tmp_path / costs.STEP_TIMES)
  assert [row['label'] for row in rows] == ['position_coupling', 'abacus', 'rope', 'nope']


@pytest.mark.parametrize('study', ['extension', 'studies/claims/pose'])
def test_runs_that_start_from_others_are_timed(study, tmp_path, monkeypatch):
  timed = []
  measure = lambda configs, rounds: {line: timed.append(line) or [1.0] for line in configs}
  monkeypatch.setattr(step_times, 'measure', measure)
  file = ROOT / 'configs' / f'{study}.py'
  step_times.main([f'--config={file}', f'--out={tmp_path}'])
  assert len(timed) > 1


@pytest.fixture
def folder(tmp_path):
  rows = text_rows({**MODELS, '<b>': MODELS['flat']}) + recall_rows()
  storage.append_rows(tmp_path / 'rows.jsonl', rows)
  storage.append_rows(tmp_path / 'costs.jsonl', cost_rows())
  return tmp_path


@pytest.mark.ci
def test_the_command_writes_the_same_bytes_again(folder, capsys):
  for name in ('a', 'b'):
    board.main([str(folder), f'--out={folder / name}'])
  names = {file.name for file in (folder / 'a').iterdir()}
  assert names == {'BOARD.md', 'board.html', 'board-pareto.png', 'board-pareto.pdf'}
  for name in names:
    first, second = ((folder / out / name).read_bytes() for out in ('a', 'b'))
    # but for the command that made it
    assert first == second.replace(f'--out={folder}/b'.encode(), f'--out={folder}/a'.encode())
  text = (folder / 'a' / 'board.html').read_text()
  assert '<th scope="row" class="text">&lt;b&gt;</th><td' in text
  assert '{{' not in text
  # of text, and of recall: they stay below the lines that are sorted
  assert text.count('<tr class="summary">') == 2
  assert '<th scope="col" class="text"><button>verdict</button></th>' in text
  made = (folder / 'a' / 'BOARD.md').read_text()
  assert all('by which code the runs were made is not on record' in some for some in (made, text))
  assert len(re.findall(r'^\| far ', made, re.MULTILINE)) == 1
  assert 'uses text past L; holds to 8 L' in made
  assert f'`python scripts/board.py {folder} --out={folder / "a"}`' in made
  assert made.index('| far ') < made.index('- holds to: the largest length')
  assert text.index('<p class="caption">') < text.index('<td') < text.index('<li>holds to: ')


def test_the_board_names_its_folders_its_studies_and_the_runs_without_rows(folder):
  other = folder / 'other place'
  more = [r | {'run': f'more,{r["run"]}', 'label': 'more'} for r in recall_rows(1)]
  other.mkdir()
  storage.append_rows(other / 'rows.jsonl', more)
  for place, runs in ((folder, ['gone,seed=0']), (other, [more[0]['run']])):
    study.write(study.Report(place, runs, study='configs/quick.py', about='All alike.'))
  folders = [str(folder), str(other)]
  texts, _ = board.make(folders, folder.parent)
  made, page_text = texts['BOARD.md'], texts['board.html']
  command = f"python scripts/board.py {folder} '{other}'"
  assert f'Made by `{command}` from' in made
  assert f'[{folder}]({folder.name}), [{other}]({folder.name}/other%20place)' in made
  assert made.count('configs/quick.py](') == made.count('All alike.') == 1
  assert f'{command} runs/mine --out=runs/board' in made
  assert 'studies: configs/quick.py.' in page_text
  assert '- no rows of run gone,seed=0\n' in made


def test_L_of_times_is_that_of_text_beside_more_runs_of_tasks(folder):
  tasks, out = folder / 'tasks', folder / 'out'
  tasks.mkdir()
  fields = dict(protocol='answers', corpus='task:copy', train_length=2 * L)
  of_tasks = [row('rope', seed, 2 * L, 1.0, 'd0', **fields) for seed in range(100, 130)]
  storage.append_rows(tasks / 'rows.jsonl', of_tasks)
  made = {}
  for folders in ([str(folder)], [str(folder), str(tasks)]):
    texts, figure = board.make(folders, out)
    made[len(folders)] = re.findall(r'^\| far .*', texts['BOARD.md'], re.MULTILINE)[0], figure
  assert made[2][0] == made[1][0]
  assert made[2][1] is not None


def test_without_times_of_steps_no_picture_is_shown(tmp_path):
  storage.append_rows(tmp_path / 'rows.jsonl', text_rows())
  board.main([str(tmp_path), f'--out={tmp_path / "out"}'])
  assert {file.name for file in (tmp_path / 'out').iterdir()} == {'BOARD.md', 'board.html'}
  assert '![' not in (tmp_path / 'out' / 'BOARD.md').read_text()
  assert '<img' not in (tmp_path / 'out' / 'board.html').read_text()


def test_the_study_on_the_page_is_one_that_can_be_swept(command, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  (source,) = re.findall(
    r'```python\n(.*?)```', (ROOT / 'results' / 'BOARD.md').read_text(), re.DOTALL
  )
  (tmp_path / 'my_study.py').write_text(source)
  study_file = tmp_path / 'my_study.py'
  _, out, error = command(
    'scripts/sweep.py', f'--config={study_file}', f'--out={tmp_path}', '--status'
  )
  assert error == ''
  assert [f'seed={seed},label=mine' in out for seed in range(4)] == [True] * 3 + [False]


def test_what_figures_of_the_study_name_as_references_are_references_here(folder):
  report = study.Report(
    folder, study='x.py', figures={'f': {'protocol': 'last_k', 'references': ('flat',)}}
  )
  study.write(report)
  texts, _ = board.make([str(folder)], folder)
  (line,) = re.findall(r'^\| flat .*', texts['BOARD.md'], re.MULTILINE)
  assert line.split('|')[2].strip() == 'reference'


@pytest.mark.ci
def test_the_board_of_this_repository_names_the_rows_that_are_kept():
  (sha256,) = re.findall(r'SHA-256 (\w+)', (ROOT / 'results' / 'BOARD.md').read_text())
  rows = [row for folder in remake.BOARD for row in of_runs(ROOT / folder)]
  assert page.sha256(rows) == sha256


def test_one_command_makes_all_results_again():
  """It names what makes each file of results/ that is made of rows."""
  commands = remake.commands()
  assert commands[-1] == ('scripts/board.py', *remake.BOARD)
  of_folders = {f'results/{path.parent.name}' for path in ROOT.glob('results/*/rows.jsonl.gz')}
  for script in ('scripts/table.py', 'scripts/figures.py'):
    assert {folder for name, *folders in commands if name == script for folder in folders} == (
      of_folders
    )


def test_settings_of_kept_results_are_written_as_the_study_wants_them_now(tmp_path):
  """Tables, figures and hashes; the runs stay, and so does what is not edited, to the byte."""
  for name in ('nope', 'pretrained_4'):
    folder = tmp_path / name
    folder.mkdir()
    kept = storage.read_json(ROOT / 'results' / name / study.FILE)
    stale = kept | {'sha256': '0' * 64, 'tables': [], 'figures': {}}
    stale['hashes'] = dict.fromkeys(kept['hashes'], 'x') if name == 'nope' else kept['hashes']
    storage.write_json(folder / study.FILE, stale)
    remake.renew_settings(folder)
    new = (folder / study.FILE).read_bytes()
    assert new == (ROOT / 'results' / name / study.FILE).read_bytes()


def test_remaking_stops_at_a_command_that_fails(monkeypatch):
  commands = remake.commands()
  started, codes = [], {commands[1]: 3}

  def run(command, **options):
    started.append(tuple(command[1:]))
    return SimpleNamespace(returncode=codes.get(started[-1], 0))

  monkeypatch.setattr(remake.subprocess, 'run', run)
  with pytest.raises(Stopped, match=f'^{re.escape(" ".join(commands[1]))}: exit status 3; see'):
    remake.main([])
  assert started == commands[:2]
  codes.clear()
  remake.main([])
  assert started[2:] == commands


@pytest.mark.filterwarnings('ignore:Creating legend with loc="best" can be slow')  # by the clock
def test_the_board_of_this_repository_is_made_of_its_rows(monkeypatch):
  """The same bytes from the rows that are kept, by the command that it names."""
  monkeypatch.chdir(ROOT)
  texts, _ = board.make(list(remake.BOARD), Path('results'))
  for name, text in texts.items():
    assert (Path('results') / name).read_text() == text


@pytest.mark.browser
def test_heads_sort_one_way_then_the_other_and_then_as_it_was(browser, folder):  # noqa: F811
  board.main([str(folder), f'--out={folder}'])
  page_ = browser.new_page()
  page_.goto((folder / 'board.html').as_uri())
  head = page_.locator('table').first.locator('th', has_text='holds to')
  column = head.evaluate('head => head.cellIndex') + 1
  cells = page_.locator('table').first.locator(f'tbody tr:not(.summary) td:nth-child({column})')
  before = cells.all_text_contents()
  head.locator('button').focus()
  for order, ends in (('ascending', ('L', '≥ 8 L')), ('descending', ('≥ 8 L', 'L'))):
    page_.keyboard.press('Enter')
    assert head.get_attribute('aria-sort') == order
    found = cells.all_text_contents()
    assert (found[0], found[-1]) == ends
  page_.keyboard.press('Enter')
  assert head.get_attribute('aria-sort') is None
  assert cells.all_text_contents() == before
  # counts of seeds are sorted by their share, and dashes stand last
  shares = ['0 of 4', '10 of 30', '2 of 3', '1 of 1', '—']
  sort = 'texts => texts.sort((a, b) => compare(a, b, true, 1))'
  assert page_.evaluate(sort, sorted(shares)) == shares
  page_.close()


def test_what_is_outlined_is_best_for_its_cost(of_corpus):
  figure = pareto.draw(of_corpus.values(), CORPUS)
  (axes,) = figure.axes
  bold = {text.get_text() for text in axes.texts if text.get_fontweight() == 'bold'}
  assert bold == {'rope', 'lost'}  # cheapest, and best at L
  smallest = smallest_of.smallest_marked(of_corpus.values())
  found = f'by the means\nthese seeds find a difference from rope of {smallest:.3f} in four of five'
  assert found in axes.get_title()
  alone = [dataclasses.replace(line, at_L=None) for line in of_corpus.values()]
  assert pareto.draw(alone, CORPUS).axes[0].get_title().endswith('cheaper, by the means')


def test_a_label_with_dollars_is_no_formula_in_the_figure(of_corpus):
  labels = ('cost $1, $2', r'$\frac{1}{$')
  renamed = [
    dataclasses.replace(line, name=label, label=label)
    for line, label in zip(of_corpus.values(), labels, strict=False)
  ]
  figure = pareto.draw(renamed, 'a $ b $')
  texts = [text for text in figure.findobj(Text) if '$' in text.get_text()]
  assert {*labels} <= {text.get_text() for text in texts}
  assert not any(text.get_parse_math() for text in texts)


def test_labels_of_near_points_do_not_cover_each_other(of_corpus):
  crowd = [
    dataclasses.replace(
      of_corpus['flat'],
      name=f'encoding {n}',
      own=(1.9 + n % 3 / 1000,),
      cost=costs.Cost(1.0, 1 + n // 3 / 40, 1.0),
    )
    for n in range(12)
  ]
  figure = pareto.draw([*of_corpus.values(), *crowd], CORPUS)
  (axes,) = figure.axes
  boxes = [Text.get_window_extent(text) for text in axes.texts]
  assert len(boxes) == len(crowd) + len(MODELS)
  assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize('argv', [[], ['--out=x'], ['results', '--config.seed=1']])
def test_wrong_arguments_are_refused(argv):
  with pytest.raises(UserError, match='allowed: '):
    board.main(argv)


def test_a_folder_without_text_is_refused(tmp_path):
  storage.append_rows(tmp_path / 'rows.jsonl', recall_rows())
  with pytest.raises(UserError, match='no rows of last_k'):
    board.main([str(tmp_path)])


def test_the_hash_does_not_depend_on_the_order():
  rows = text_rows()
  assert page.sha256(rows) == page.sha256(rows[::-1]) != page.sha256(rows[1:])
