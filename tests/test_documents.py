"""The Python in documents runs as it stands there, and their numbers are those of tables."""

import csv
import functools
import itertools
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from flax import nnx

from posenc_jax import cli
from posenc_jax.config import BASE, load, load_study, to_json, validate
from posenc_jax.encodings import Encoding, make
from posenc_jax.encodings.core.registry import BUILT_IN
from posenc_jax.protocols import CONTROLS, PROTOCOLS, TASK_PROTOCOL
from posenc_jax.reporting import row_files, study, table_forms
from posenc_jax.reporting.board.lines import corpora, lines
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.report_settings import VALUES
from posenc_jax.tasks import TASKS

ROOT = Path(__file__).parent.parent

# Run after each block of docs/attend.md: gradients reach the encoding in plain JAX, NNX and Linen,
# and what the others compute is what `attend` gives otherwise.
AFTER_BLOCKS = (
  'assert all(abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(gradients))',
  """
def moved(eps):
  return loss(jax.tree.map(lambda leaf: leaf + eps, parameters), q, k, v)

slope = (moved(0.05) - moved(-0.05)) / 0.1
total = sum(leaf.sum() for leaf in jax.tree.leaves(jax.grad(loss)(parameters, q, k, v)))
assert abs(slope - total) < 0.02 * abs(total), (slope, total)
""",
  """
x = jax.random.normal(jax.random.key(0), (2, 512, 256))
total = lambda layers: sum(layer(x).var() for layer in layers)
gradients = nnx.jit(nnx.grad(total))(layers)
(table,) = (g for path, g in nnx.to_flat_state(gradients) if 'encoding' in path)  # of both layers
assert abs(table[...]).max() > 1e-6
""",
  """
gradients = nnx.grad(lambda enc, blocks: run(x[:, :64], blocks, enc).var())(encoding, blocks)
assert abs(gradients['table'][...]).max() > 1e-6
""",
  """
variables = jax.jit(Model().init)(jax.random.key(1), x)
gradients = jax.jit(jax.grad(lambda variables: Model().apply(variables, x).var()))(variables)
assert abs(gradients['params']['encoding']['table']).max() > 1e-6
from flax import serialization
saved = serialization.to_bytes(variables)
jax.tree.map(
  lambda a, b: (a == b).all() or 1 / 0, serialization.from_bytes(variables, saved), variables
)
""",
  """
import numpy as np
seen = every_fourth(np.arange(512)[:, None], np.arange(512)[None])
expected, _ = attend(q, k, v, enc, window=256, mask=seen[None], return_logsumexp=True)
assert abs(o - expected).max() < 1e-5
assert lse.shape == (2, 512, 8)
""",
  """
import numpy as np
def turned(x, positions):
  x = np.asarray(x, np.float64)
  angles = np.asarray(positions)[:, None] * 10_000.0 ** (-np.arange(16) / 16)
  a, b, cos, sin = x[..., :16], x[..., 16:], np.cos(angles)[:, None], np.sin(angles)[:, None]
  return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
scores = np.einsum(
  'bthk,bshk->bhts', turned(q, 2 * np.arange(12)), turned(k, 4 * np.arange(5))
) / 32**0.5
shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
assert abs(o - np.einsum('bhts,bshk->bthk', shares, np.asarray(v, np.float64))).max() < 1e-5
""",
  """
for n, prefix in enumerate((100, 300)):
  expected = attend(q[n:][:1], k[n:][:1], v[n:][:1], enc, prefix=prefix)
  assert abs(o[n] - expected[0]).max() < 1e-5
""",
  'assert abs(jnp.concatenate(outputs, axis=1) - attend(q, k, v, enc)).max() < 1e-5',
  """
at_once = attend(*(x[:, :, 0].swapaxes(0, 1) for x in (q, k, v)), enc, window=window)
assert abs(outputs[:, :, 0].swapaxes(0, 1) - at_once).max() < 1e-5
""",
  """
later = tokens.at[:, -1].add(1)
assert abs(model(later, is_causal=False) - model(tokens, is_causal=False))[:, 0].max() > 1e-3
for _ in range(20):
  model, state, after = step(model, state, tokens, is_asked)
assert after < nats - 0.5
""",
)


def blocks_of(name: str) -> list[str]:
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / name).read_text(), re.DOTALL)
  # These need a run or a study: tests/test_scoring.py, tests/test_pretrained.py and tests below
  # have them.
  others = ('load_run', 'load_study', 'study.load')
  return [block for block in blocks if not any(word in block for word in others)]


@pytest.mark.ci
def test_python_blocks_run():
  """In one process, each document with names of its own."""
  pages = ('README.md', *sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'docs').glob('*.md')))
  blocks = {page: found for page in pages if (found := blocks_of(page))}
  counts = {page: len(found) for page, found in blocks.items()}
  assert counts == {'README.md': 3, 'docs/attend.md': 11, 'docs/encodings.md': 4}
  attend = zip(blocks['docs/attend.md'], AFTER_BLOCKS, strict=True)
  blocks['docs/attend.md'] = [block + check for block, check in attend]
  run = "exec(compile({!r}, {!r}, 'exec'), {{'__name__': '__main__'}})".format
  program = '\n'.join(run('\n'.join(found), page) for page, found in blocks.items())
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.mark.ci
def test_a_figure_in_the_size_of_a_paper(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/studies.md').read_text(), re.DOTALL)
  (block,) = (block for block in blocks if 'study.load' in block)
  exec(block.replace("'results/board'", repr(str(ROOT / 'results' / 'board'))), {})
  svg = Path('extrapolation.svg').read_text()
  sizes = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups()
  assert [float(size) / 72 for size in sizes] == [6.75, 3.5]


def test_a_study_of_some_lines_of_another_has_them(monkeypatch):
  monkeypatch.chdir(ROOT)
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/studies.md').read_text(), re.DOTALL)
  (block,) = (block for block in blocks if 'sweep =' in block)
  study = {}
  exec(block, study)
  assert {run['encoding.name'] for run in study['sweep']()} == {'rope', 'alibi'}
  assert study['table']()['baseline'] == 'rope'


def anchors_of(path: Path) -> set[str]:
  """The anchors of a page's headings, as GitHub makes them."""
  text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.DOTALL | re.MULTILINE)
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def test_links_lead_somewhere():
  """Every relative link has its file, and in it the heading; links of the log stay as written."""
  links = 0
  for page in (*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('results/**/*.md')):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
      if re.match('[a-z]+:', link):
        continue
      links += 1
      file, _, anchor = link.partition('#')
      path = page.parent / file if file else page
      assert path.exists(), f'{page}: {link}'
      assert not anchor or anchor in anchors_of(path), f'{page}: {link}'
  assert links > 50


@pytest.mark.parametrize(
  ('page', 'names'),
  [
    ('docs/train.md', TASKS),
    ('docs/evaluate.md', [*PROTOCOLS, TASK_PROTOCOL, *CONTROLS]),
    ('docs/studies.md', [*VALUES, *METRICS, *table_forms.FORMS, *figures.FORMS]),
  ],
)
def test_a_page_names_all_that_there_is(page, names):
  text = re.sub(r'```.*?```', '', (ROOT / page).read_text(), flags=re.DOTALL)
  code = '\n'.join(re.findall(r'`([^`]+)`', text))
  assert [name for name in names if not re.search(rf'\b{name}\b', code)] == []


def test_a_page_names_all_encodings_that_follow_the_training_length():
  def make_all(length):
    sizes = dict(model_dim=16, heads=2, head_dim=8, train_length=length, rngs=nnx.Rngs(0))
    following = {'transformer_xl': {'features': 6}}  # only with this
    return {name: make(name, **sizes, **following.get(name, {})) for name in BUILT_IN}

  def in_words(length):
    made = nnx.eval_shape(functools.partial(make_all, length))
    return {name: repr(enc).replace(f'train_length={length}', '') for name, enc in made.items()}

  first, second = in_words(1000), in_words(2000)
  following = {name for name in BUILT_IN if first[name] != second[name]}
  page = (ROOT / 'docs' / 'pretrained.md').read_text()
  (words,) = re.findall(r'^\*\*Lengths of an encoding\*\*.*?\n\n', page, re.DOTALL | re.MULTILINE)
  named = {*re.findall(r'`(\w+)`', words)} & {*BUILT_IN}
  # `chain` has `fox`; `screening` reads the length at each call
  assert named == following - {'chain'} | {'screening'}


def test_the_members_with_hyperparameters_of_readme_are_a_chain():
  (members,) = re.findall(r'--config\.encoding\.members="(.*?)"', (ROOT / 'README.md').read_text())
  given = ['--config.encoding.name=chain', f'--config.encoding.members={members}']
  _, overrides = cli.parse_args(given, {})
  c = load(BASE, overrides)
  assert to_json(c.encoding)['members'][1]['max_distance'] == 1024


def test_the_flags_of_a_larger_model_are_a_config():
  (row,) = re.findall(r'\| train a larger model.*', (ROOT / 'docs' / 'train.md').read_text())
  _, overrides = cli.parse_args(re.findall(r'--config\.\S+=[^\s`]+', row), {})
  c = load(BASE, overrides)
  validate(c)
  assert (c.model.layers, c.train.length, c.eval.lengths) == (12, 1024, (1024, 2048, 4096))


def test_pages_count_the_methods_of_studies():
  counted = {}
  for name in ('pretrained', 'studies/pretrained_passkey', 'studies/pretrained_long_ppl'):
    counted[name] = len({*load_study(ROOT / 'configs' / f'{name}.py').METHODS} - {'none'})
  words = {20: 'twenty', 19: 'nineteen', 8: 'eight', 6: 'six'}
  pretrained, passkey, long_ppl = (words[count] for count in counted.values())
  pages = ('README.md', 'docs/pretrained.md', 'results/FINDINGS.md')
  readme, page, findings = (' '.join((ROOT / name).read_text().split()) for name in pages)
  assert f'compares {pretrained} methods' in page
  assert f'asks {passkey} of them for a pass key' in page
  assert f'scores {long_ppl} on the tokens' in page
  # Pages of results count the runs that were planned when these were kept.
  runs_of = lambda name: len(study.load(ROOT / 'results' / name).runs)
  methods = words[runs_of('pretrained') - 1]
  assert all(f'{methods} methods' in text for text in (readme, findings))
  lines, at_4 = runs_of('pretrained_4'), 7
  assert (ROOT / 'results' / 'README.md').read_text().count(f'{at_4} of {lines} lines') == 2
  table = (ROOT / 'results' / 'pretrained_4' / 'table.md').read_text()
  assert f'no rows of {lines - at_4} of {lines} runs' in table


@functools.cache
def built_in() -> dict[str, Encoding]:
  """Encodings by name, as they are by default, without the numbers in them."""
  sizes = dict(model_dim=64, heads=2, head_dim=32, train_length=16)
  build = lambda name: nnx.eval_shape(lambda: make(name, **sizes, rngs=nnx.Rngs(0)))
  return {name: build(name) for name in BUILT_IN if name not in ('chain', 'heads')}


@pytest.mark.parametrize(
  ('words', 'belongs'),
  [
    (r'x = enc.add_to_input\(x, position_ids\)` \((.*?)\);', lambda e: e.has('add_to_input')),
    (
      r'- (random_positions, .*?): call `enc.sample_positions',
      lambda e: e.has('sample_positions') and not e.takes_carried_positions,
    ),
    (r'- (abacus and .*?), also in a chain: the same call', lambda e: e.takes_carried_positions),
    (r'- (bipe): take both kinds of positions', lambda e: e.has('positions_of_tokens')),
    (r'from layer to layer \((.*?)\): `state', lambda e: e.has('initial_state')),
    (r'queries, too, of (.*?) \(`enc.needs_all_queries', lambda e: e.needs_all_queries),
    (
      r'back into their domain \((.*?)\): `enc',
      lambda e: type(e).constrain_parameters is not Encoding.constrain_parameters,
    ),
  ],
)
def test_lists_of_what_a_model_has_to_do_are_complete(words, belongs):
  """A list is what encodings do by default; chains and heads do what their members do."""
  (listed,) = re.findall(words, words_of('docs/attend.md'))
  names = {name for name, enc in built_in().items() if belongs(enc)}
  short = {'kerple_log': 'kerple', 'kerple_power': 'kerple'}
  listed = {*re.split(', | and ', listed.lower())}
  assert listed == {short.get(name, name) for name in names}


def tables_of(text: str) -> list[dict]:
  """Every table of a Markdown text: {first cell of a line: {head of a column: cell}}."""
  tables, lines = [], [line.strip().strip('|') for line in text.splitlines()]
  for line, below in itertools.pairwise(lines):
    cells = [cell.strip() for cell in line.split('|')]
    if re.fullmatch('[-:| ]+', below) and '-' in below and '|' in line:
      heads, found = cells, {}
      tables.append(found)
    elif tables and not re.fullmatch('[-:| ]*', line) and len(cells) == len(heads):
      found[cells[0]] = dict(zip(heads[1:], cells[1:], strict=True))
  return tables


def titled(folder: str) -> dict[str, dict]:
  """{title: table} of the tables of a folder of results, which are made from its rows."""
  text = (ROOT / 'results' / folder / 'table.md').read_text()
  parts = re.split('^## (.*)$', text, flags=re.MULTILINE)
  return {title: tables_of(part)[0] for title, part in zip(parts[1::2], parts[2::2], strict=True)}


def made_of_rows(name: str) -> str:
  """The pages that a command makes from the rows of a study."""
  pages = [ROOT / 'results' / name / 'table.md']
  pages += [ROOT / 'results' / 'BOARD.md'] * (name == 'board')
  return '\n'.join(page.read_text() for page in pages)


def words_of(*names: str) -> str:
  """What several documents say, without line ends and marks of bold type."""
  return ' '.join(' '.join((ROOT / name).read_text().replace('**', '').split()) for name in names)


@pytest.mark.parametrize('name', ['README.md', 'results/FINDINGS.md'])
def test_lines_of_the_board(name):
  """The table is a part of that in results/BOARD.md, and sentences count what is there."""
  text, page = ((ROOT / file).read_text() for file in (name, 'results/BOARD.md'))
  (shown,) = (table for table in tables_of(text) if 'transformer_xl' in table)
  board = tables_of(page)[0]
  assert len(shown) >= 8
  for line, cells in shown.items():
    assert cells == {head: board[line][head] for head in cells}
  trained = [
    cells for cells in board.values() if cells['seeds'] and cells['verdict'] != 'reference'
  ]
  assert f'{len(trained)} encodings' in words_of(name)
  (documents, *_) = re.findall('in ([0-9]+) documents', page)
  assert f'95 % bootstrap intervals over {documents} documents' in words_of('results/FINDINGS.md')


def test_the_list_of_results_has_their_numbers():
  """Every folder has a line, and what that says stands in the tables of its folder."""
  results = ROOT / 'results'
  (listed,) = tables_of((results / 'README.md').read_text())
  names = [re.match(r'\[(\w+)\]', study)[1] for study in listed]
  assert sorted(names) == sorted(path.parent.name for path in results.glob('*/study.json'))
  for name, cells in zip(names, listed.values(), strict=True):
    text = made_of_rows(name)
    numbers = re.findall(r'-?\d+\.\d+', cells['answer'])
    assert len(numbers) > 1
    assert [number for number in numbers if not re.search(rf'(?<!\d){number}(?!\d)', text)] == []
    config = re.search(r'--config=([\w./]+)', cells['made by'])[1]
    assert config == study.load(results / name).study


NUMBER = r'[-+]?\d+\.\d+'
STUDIES_OF_SECTIONS = {
  ('README.md', 'A model that needs more context'): ['pretrained', 'pretrained_4', 'passkey'],
  ('README.md', 'A model that you train'): [
    'board',
    'board_code',
    'board_extended',
    'alibi_slopes',
    'budget_extended',
    'budget_longer',
    'classic',
    'code_extended',
    'rates',
    'speeches_kv_shift',
  ],
  ('results/FINDINGS.md', 'A model that needs more context'): [
    'pretrained',
    'pretrained_4',
    'passkey',
    'pretrained_long_ppl',
  ],
  ('results/FINDINGS.md', 'At 2 L and 4 L'): [
    'pretrained',
    'pretrained_4',
    'pretrained_speeches',
    'pretrained_packages',
  ],
  ('results/FINDINGS.md', 'Finding far text'): ['passkey', 'passkey_within', 'pretrained_long_ppl'],
  ('results/FINDINGS.md', 'A model that you train'): ['board'],
  ('results/FINDINGS.md', 'Best at L'): ['board', 'scale_budget', 'budget_extended'],
  ('results/FINDINGS.md', 'Stable past L'): [
    'board',
    'board_extended',
    'pretrained',
    'scale_budget',
    'selective',
    'window_sinks',
    'hybrid',
    'darope',
    'drope_recovery',
    'code_budget',
    'random_gaps',
    'random_ranges',
    'random_text',
  ],
  ('results/FINDINGS.md', 'Using text past L'): ['board', 'inside', 'equal_time', 'rates'],
  ('results/FINDINGS.md', 'Extending RoPE'): [
    'board_extended',
    'budget_extended',
    'budget_tuned',
    'extension',
    'rates',
  ],
  ('results/FINDINGS.md', 'More training'): [
    'scale_budget',
    'budget_longer',
    'budget_ranges',
    'inside_budget',
  ],
  ('results/FINDINGS.md', 'Wider models'): ['scale_width', 'width_rate'],
  ('results/FINDINGS.md', 'Python source'): [
    'alibi_slopes',
    'code_extended',
    'code_budget',
    'board_code',
    'mobius',
  ],
  ('results/FINDINGS.md', 'Speeches'): ['classic', 'speeches_kv_shift', 'wavelengths'],
  ('results/FINDINGS.md', 'Tasks'): [
    'board_tasks',
    'distances',
    'grid',
    'needle_places',
    'nope',
    'tasks',
    'temperatures',
    'needle_temperatures',
    'random_copying',
    'random_positions',
    'ranges_copying',
    'ranges_needle',
  ],
}


def test_every_section_of_findings_has_its_studies():
  titles = re.findall(r'^##+ (.*)$', (ROOT / 'results' / 'FINDINGS.md').read_text(), re.MULTILINE)
  listed = [title for name, title in STUDIES_OF_SECTIONS if name == 'results/FINDINGS.md']
  assert titles == [*listed, 'Not known']


def intervals_of(text: str) -> list[tuple[float, ...]]:
  """Every `change [lower, upper]`."""
  found = re.findall(rf'({NUMBER}) \[({NUMBER}), ({NUMBER})\]', text)
  return [tuple(map(float, numbers)) for numbers in found]


@pytest.mark.parametrize(('name', 'title'), list(STUDIES_OF_SECTIONS))
def test_every_number_of_a_section_is_that_of_a_study(name, title):
  """Numbers of two decimals or more stand in the tables of the studies that the section is about,
  and an interval stands there beside its change, which sentences may turn around: 0.1 better is
  -0.1.

  Of intervals all three numbers must stand together. Of a number alone this sees that no table has
  it: nearly every number below 0.2 stands somewhere, and half of those from 1 to 3, so that a wrong
  one may pass.
  """
  (section,) = re.findall(
    rf'^##+ {re.escape(title)}$(.*?)(?=^##|\Z)', (ROOT / name).read_text(), re.DOTALL | re.MULTILINE
  )
  section = ' '.join(section.replace('**', '').split())
  pages = '\n'.join(map(made_of_rows, STUDIES_OF_SECTIONS[name, title]))
  numbers = re.findall(r'(?<![\d.])\d+\.\d{2,}', section)
  known = set(re.findall(r'\d+\.\d+', pages))
  assert len(numbers) > 4
  assert [number for number in numbers if number not in known] == []
  known = set(intervals_of(pages))
  turned = {(-change, -upper, -lower) for change, lower, upper in known}
  assert [found for found in intervals_of(section) if found not in known | turned] == []


def test_which_lines_a_window_breaks():
  """The page lists the lines of which a seed loses more than 0.02 bits past L, by how many do."""
  lost = defaultdict(dict)
  with open(ROOT / 'results' / 'board' / 'table.csv') as file:
    for row in csv.DictReader(file):
      is_score = row['bpb'] and not row['compared_with'] and not row['metric']
      if is_score and (row['protocol'], row['control']) == ('last_k', 'windowed'):
        lost[row['encoding'], row['seed']][int(row['length'])] = float(row['bpb'])
  is_broken = defaultdict(list)
  for (line, _), bits in lost.items():
    if 128 in bits and len(bits) > 1:
      is_broken[line].append(max(bits.values()) - bits[128] > 0.02)
  groups = re.search(
    r'A window breaks many other encodings\W+(.*?) with every seed, (.*?) with one of three, '
    r'(.*?) with two of five \([^)]*\), and (.*?) with one of five: these lose more than 0.02 bits',
    words_of('results/FINDINGS.md'),
  ).groups()
  listed = [re.split(', | and ', re.sub(r' \([^)]*\)', '', group)) for group in groups]
  labels = {'NoPE with SSMax': 'nope+ssmax', 'Music Transformer': 'music_transformer'}
  of_each = {'every': set(), '1 of 3': set(), '2 of 5': set(), '1 of 5': set()}
  for line, of_seeds in is_broken.items():
    if any(of_seeds):
      share = 'every' if all(of_seeds) else f'{sum(of_seeds)} of {len(of_seeds)}'
      of_each[share].add(line)
  assert [{labels.get(name, name.lower()) for name in names} for names in listed] == [
    *of_each.values()
  ]


def test_a_number_of_the_classic_encodings():
  windowed = titled('classic')['Differences from their own score at L, last_k, windowed']
  words = words_of('results/FINDINGS.md')
  (found,) = re.findall(r'RoPE with a window of L ([0-9.]+) \[', words)
  assert windowed['rope']['4096'].startswith(f'+{found} ')


def number(cell: str) -> str:
  return cell.strip('*').split(' ')[0]


BY_DEPTH = 'Scores by depth in 16384 tokens, text_passkey'  # the title of a table of passkey
METHODS = {
  'as it is': 'none',
  'Jet-Long': 'jet_long',
  'Self-Extend': 'self_extend',
  'StreamingLLM': 'streaming',
  'sliding window alone': 'window',
  'dual chunk attention': 'dca',
  'YaRN': 'yarn',
  'MrRoPE, progressive': 'mrrope_pro',
  'MrRoPE, uniform': 'mrrope_uni',
  'NTK-YaRN': 'ntk_yarn',
  'ReRoPE': 'rerope',
  'NTK-aware scaling': 'ntk',
}


def table_of_methods(name: str) -> dict:
  """The table of a page of the methods that read past the length of a pretrained model."""
  (shown,) = (table for table in tables_of((ROOT / name).read_text()) if 'YaRN' in table)
  assert len(shown) > 8
  return shown


def score_of(method: str, folder: str, title: str, suffix: str, length: str) -> str:
  """A dash where the method was not asked."""
  scores, label = titled(folder)[title], METHODS[method] + suffix
  return number(scores[label][length]) if label in scores else '—'


def test_the_methods_of_readme_have_the_numbers_of_their_lines():
  columns = {
    'bits at L': ('pretrained', 'Extrapolation, last_k', ', 2 L', '8192 (L)'),
    'at 2 L': ('pretrained', 'Extrapolation, last_k', ', 2 L', '16384'),
    'at 4 L': ('pretrained_4', 'Extrapolation, last_k', ', 4 L', '32768'),
    'pass key 12,300 tokens back': ('passkey', BY_DEPTH, '', '25'),
  }
  for method, cells in table_of_methods('README.md').items():
    assert cells == {head: score_of(method, *where) for head, where in columns.items()}


def test_the_methods_of_findings_have_the_numbers_of_their_lines():
  columns = {
    'at 2 L': ('pretrained', 'Extrapolation, last_k', ', 2 L', '16384'),
    'at 4 L': ('pretrained_4', 'Extrapolation, last_k', ', 4 L', '32768'),
    'far key': ('passkey', BY_DEPTH, '', '25'),
    'near key': ('passkey', BY_DEPTH, '', '75'),
    'LongPPL': ('pretrained_long_ppl', 'Extrapolation, long_ppl', '', '16384'),
  }
  differences = titled('pretrained_4')['Differences from streaming, 4 L truncated to L, last_k']
  shares = titled('passkey')[f'{BY_DEPTH}, exact match']
  for method, cells in table_of_methods('results/FINDINGS.md').items():
    right, difference = cells.pop('keys right'), cells.pop('difference')
    assert cells == {head: score_of(method, *where) for head, where in columns.items()}
    label = f'{METHODS[method]}, 4 L'
    assert difference == (differences[label]['32768'] if label in differences else '—')
    share = shares.get(METHODS[method])
    of_twelve = share and round(6 * sum(float(number(cell)) for cell in share.values()))
    assert right == ('—' if share is None else str(of_twelve))


def test_sentences_on_the_pretrained_model():
  """Sentences of results/FINDINGS.md on what is shown say what results/pretrained has."""
  text, tables = words_of('results/FINDINGS.md'), titled('pretrained')
  scores = tables['Extrapolation, last_k']['none, 2 L']
  (found,) = re.findall(r'breaks down, from ([\d.]+) bits per byte at L to ([\d.]+) at 2 L', text)
  assert found == (number(scores['8192 (L)']), number(scores['16384']))
  changes = tables['Differences from none, 2 L truncated to L, last_k']
  (found,) = re.findall(r'Jet-Long, the lowest, changes by ([^]]+\])', text)
  assert found == changes['jet_long, 2 L']['16384']
  intervals = {line: intervals_of(cells['16384'])[0] for line, cells in changes.items()}
  assert all(upper > 0 for _, _, upper in intervals.values())
  upper_ends = {
    method: intervals[f'{METHODS[method]}, 2 L'][2]
    for method in table_of_methods('results/FINDINGS.md')
  }
  assert 'within 0.02 of the plain model given the last L tokens, ReRoPE within 0.021' in text
  assert upper_ends.pop('ReRoPE') == 0.021
  assert max(upper_ends.values()) <= 0.02
  losing = {
    "Llama 3's rule": 'llama3',
    'NTK-RoPE-mixed': 'ntk_mixed',
    'AlphaRoPE': 'alpha_rope',
    'a base of 500,000': 'abf',
    'PI': 'linear',
    'NTK-aware scaling': 'ntk',
    'windows without sinks': 'window',
    'with sinks at their true positions': 'window_sink',
  }
  (listed,) = re.findall(r"(Llama 3's rule, [^.]*) are shown to lose", text)
  assert re.split(', and | or |, ', listed) == [*losing]
  assert all(intervals[f'{line}, 2 L'][1] > 0 for line in losing.values())


def test_the_list_of_results_names_every_study():
  studies, text = ROOT / 'configs' / 'studies', (ROOT / LIST).read_text()
  names = [path.relative_to(studies).as_posix() for path in sorted(studies.rglob('*.py'))]
  assert len(names) > 20
  missing = [n for n in names if f'`{n}`' not in text and f'configs/studies/{n}' not in text]
  assert missing == []


README, FINDINGS, LIST = 'README.md', 'results/FINDINGS.md', 'results/README.md'
# (study, line, its verdict by the board's rules, a page, its words that rest on that verdict).
VERDICTS = [
  *[
    ('board_code', 'alibi', 'uses text past L; holds to 32 L', page, words)
    for page, words in (
      (README, '| ALiBi | 0.268 [0.117, 0.363], marked | 6 | 32 L |'),
      (FINDINGS, 'ALiBi uses text past L and holds to 32 L, whichever seed is left out'),
      (LIST, 'ALiBi uses text past L and holds to 32 L (1.847'),
    )
  ],
  *[
    ('board_code', line, verdict, page, words)
    for line, verdict, in_readme, in_findings, in_list in (
      (
        *('grape_ap', 'uses text past L; holds to 32 L'),
        *(
          '| GRAPE-AP | 0.310 [0.151, 0.414], marked | 3 | 32 L |',
          'and so does GRAPE-AP',
          'uses text past L and holds to 32 L, too',
        ),
      ),
      (
        *('dape', 'uses text past L; holds to 8 L; holds with a window of L'),
        *(
          '| DAPE | 0.363 [0.210, 0.487], marked | 3 | 8 L |',
          'so that it holds to 8 L',
          'DAPE to 8 L (1.787',
        ),
      ),
    )
    for page, words in ((README, in_readme), (FINDINGS, in_findings), (LIST, in_list))
  ],
  *[
    ('code_budget', 'alibi', 'uses text past L; holds to 32 L', page, words)
    for page, words in (
      (FINDINGS, 'ALiBi still uses text past L and holds to 32 L, and'),
      (LIST, 'ALiBi still uses text past L and holds to 32 L (1.623'),
    )
  ],
  *[
    ('board_code', line, verdict, FINDINGS, "four of KERPLE's, three of")
    for line, verdict in (
      ('kerple_log', 'holds to 4 L'),
      ('t5', 'fails by 8 L'),
      ('transformer_xl', 'holds to 4 L; holds with a window of L'),
    )
  ],
  *[
    ('board_code', 'rope', 'fails by 2 L', page, words)
    for page, words in (
      (FINDINGS, 'RoPE fails by 2 L as before; with a window of L it changes by +0.012'),
      (LIST, 'RoPE fails by 2 L (2.001, 3.773, 5.157); with its window it has 2.013'),
    )
  ],
  (
    *('board_code', 'p_rope', 'fails by 2 L; fails with a window of L'),
    *(FINDINGS, 'p-RoPE fails with its window (+0.066'),
  ),
  *[
    ('board_extended', line, verdict, README, words)
    for line, verdict, words in (
      ('streaming', 'holds to 32 L', 'StreamingLLM | 0.010 [0.005, 0.013] | 5 | 32 L |'),
      (
        *('dca', 'uses text past L; holds to 4 L; fails by 32 L'),
        'dual chunk attention | 0.093 [0.021, 0.168], marked | 5 | 4 L |',
      ),
    )
  ],
  *[
    ('board_extended', line, verdict, FINDINGS, '*use text past L*, narrowly, and Self-Extend')
    for line, verdict in (
      ('dca', 'uses text past L; holds to 4 L; fails by 32 L'),
      ('rerope', 'uses text past L; holds to 8 L; fails by 32 L; holds with a window of L'),
      ('self_extend, 4 L', 'holds to 4 L; fails by 8 L; holds with a window of L'),
      ('self_extend, 32 L', 'holds to 4 L; holds with a window of L'),
    )
  ],
  *[
    ('budget_extended', line, f'uses text past L; {verdict}', FINDINGS, 'all three meet it')
    for line, verdict in (
      ('dca', 'holds to 8 L; holds with a window of L'),
      ('rerope', 'holds to 8 L; holds with a window of L'),
      ('self_extend, 4 L', 'holds to 4 L; fails by 8 L; holds with a window of L'),
      ('self_extend, 32 L', 'holds to 8 L; holds with a window of L'),
    )
  ],
  *[
    (
      *('scale_budget', line, f'uses text past L; {verdict}', FINDINGS),
      'all four distance-based encodings tried gain from text past L',
    )
    for line, verdict in (
      ('alibi', 'holds to 8 L; fails with a window of L'),
      ('kerple_log', 'holds to 32 L'),
      ('t5', 'holds to 32 L'),
      ('transformer_xl', 'holds to 32 L'),
    )
  ],
  (
    *('scale_budget', 't5', 'uses text past L; holds to 32 L'),
    *(LIST, 'T5, which failed by 8 L, holds to 32 L (2.266'),
  ),
  (
    *('scale_budget', 't5', 'uses text past L; holds to 32 L'),
    *(README, "T5's bias | 0.311 [0.190, 0.439] | 2 | 32 L |"),
  ),
  *[
    ('scale_budget', 'alibi', 'uses text past L; holds to 8 L; fails with a window of L', *where)
    for where in (
      (README, '| ALiBi | 0.303 [0.168, 0.447], marked | 2 | 8 L |'),
      (FINDINGS, 'ALiBi then holds to 8 L only'),
      (FINDINGS, 'With four times the training it breaks ALiBi with both seeds'),
    )
  ],
  *[
    ('scale_width', line, verdict, FINDINGS, words)
    for line, verdict, words in (
      ('t5', 'fails by 4 L', 'T5 and p-RoPE fail by 4 L'),
      ('p_rope', 'fails by 4 L', 'T5 and p-RoPE fail by 4 L'),
      ('transformer_xl', 'uses text past L; holds to 32 L', 'Transformer-XL holds to 32 L'),
      ('alibi', 'uses text past L; holds to 32 L', 'ALiBi and FoX hold to 32 L'),
      ('fox', 'holds to 32 L', 'ALiBi and FoX hold to 32 L'),
      ('nope', 'fails by 2 L; fails with a window of L', 'and NoPE fails'),
    )
  ],
  *[
    ('width_rate', line, verdict, FINDINGS, words)
    for line, verdict, words in (
      ('t5', 'fails by 4 L', 'At 4 L it loses 0.102 [0.038, 0.170] with half the rate'),
      (
        *('t5, rate x 2', 'holds to 2 L; fails by 8 L; fails with a window of L'),
        "with the board's it is not shown to (-0.015 [-0.078, +0.049])",
      ),
      (
        *('rope', 'fails by 2 L; holds with a window of L'),
        'With half of it RoPE holds with its window',
      ),
      ('rope, rate x 2', 'fails by 2 L', 'it loses 0.061 with one seed'),
    )
  ],
  *[
    (
      'rates',
      line,
      'fails by 2 L; holds with a window of L',
      LIST,
      'RoPE fails and its window holds',
    )
    for line in ('rope', 'rope, rate x 0.5', 'rope, rate x 2')
  ],
  (
    *('selective', 'rope, selective', 'holds to 32 L'),
    *(LIST, 'Past L RoPE with it holds, at 2.538 at 32 L'),
  ),
]


@functools.cache
def verdicts_of(name: str) -> dict[str, str]:
  """{label: the verdict that a board of the study would give it}."""
  folder = ROOT / 'results' / name
  rows, runs = row_files.of_runs(folder), study.load(folder).runs
  return {line.label: line.verdict for line in lines(rows, runs, (), corpora(rows)[0])}


@pytest.mark.ci
@pytest.mark.parametrize('name', sorted({name for name, *_ in VERDICTS}))
def test_what_pages_say_of_how_far_lines_hold_are_the_verdicts_of_a_board(name):
  """In studies that have no board of their own: each verdict as a whole, and the words of a page
  that rest on it.
  """
  of_study = [rest for study_name, *rest in VERDICTS if study_name == name]
  stated = {line: verdict for line, verdict, _, _ in of_study}
  assert {line: verdicts_of(name)[line] for line in stated} == stated
  assert [words for _, _, page, words in of_study if words not in words_of(page)] == []
