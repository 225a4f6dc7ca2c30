"""The benchmark: what flags ask for, how it measures and reports, and that the programs in PyTorch
compute the attention of our encodings.
"""

import importlib.machinery
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from small_models import SMALL_TOKENIZER, save

from configs import base
from posenc_jax import cli, data, storage
from posenc_jax.attention import attend
from posenc_jax.encodings import ENCODINGS, make
from posenc_jax.errors import UserError
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model.decoder import build as build_model
from posenc_jax.model.token_nll import token_nll
from posenc_jax.pretrained import exporting, importing, sources
from scripts.bench import cases, command, evaluation, jax_cases, memory, tables, worker
from scripts.bench.measure import MAX_REPEATS, MIN_REPEATS, measure, quartiles
from scripts.bench.work import Unsupported, Work, reason
from scripts.bench.workers import Workers

ROOT = Path(__file__).parent.parent
SIZES = dict(model_dim=16, heads=2, head_dim=8, train_length=16)


def attention_case(method='blockwise', encoding='nope', framework='jax', passes='both', **fields):
  sizes = dict(dtype='float32', length=64, batch=2, heads=2, head_dim=8) | fields
  name = f'{encoding} {method}'
  return cases.Case(
    'attention', framework, name, method, encoding, 'nope blockwise', passes=passes, **sizes
  )


# Flags.


@pytest.fixture
def plan(monkeypatch):
  """(*arguments, torch, tokamax, transformers=whether it is installed, tpu, gpu=whether there is
  one) -> groups, the lines of what is left out.
  """

  def make_plan(*arguments, torch=True, tokamax=False, transformers=True, tpu=False, gpu=False):
    omissions = []
    with monkeypatch.context() as patch:
      installed = {'torch': torch, 'tokamax': tokamax, 'transformers': transformers}
      find_spec = lambda name: object() if installed[name] else None
      patch.setattr(command.importlib.util, 'find_spec', find_spec)
      patch.setattr(command.devices, 'gpu_extra', lambda: 'cuda13' if gpu else None)
      patch.setattr(command.devices, 'has_tpu', lambda: tpu)
      patch.setattr(command, '_torch_has_gpu', lambda: gpu)
      return command.plan(*cli.parse_args(arguments, command.FLAGS), omissions), omissions

  return make_plan


@pytest.fixture
def imported_run(tmp_path):
  """(name of a golden model) -> the directory of a run that was imported."""

  def make_run(name='llama3_tied'):
    folder, run = save(tmp_path / f'{name}_saved', name), tmp_path / name
    (folder / 'tokenizer.json').write_bytes(SMALL_TOKENIZER)
    importing.import_model(base.get_config(), sources.open_source(str(folder)), run)
    return run

  return make_run


def names(group):
  return [case.name for case in group.cases]


def test_the_default_covers_the_lengths_and_says_what_it_leaves_out(plan):
  groups, omissions = plan()
  attention = [
    (c.length, c.passes, c.batch) for g in groups if g.section == 'attention' for c in g.cases[:1]
  ]
  short = [(T, passes, 2) for T in (512, 2048, 8192) for passes in ('forward', 'both')]
  assert attention == [*short, (16384, 'forward', 1), (32768, 'forward', 1)]
  steps = [(c.length, c.batch, c.dtype) for g in groups if g.section == 'step' for c in g.cases[:1]]
  assert steps == [(T, B, dtype) for dtype in cases.DTYPES for T, B in ((256, 16), (2048, 2))]
  assert all({case.framework for case in group.cases} == {'jax', 'torch'} for group in groups)
  for words in (
    'cudnn',
    'nope, rope, alibi, t5, transformer_xl only',
    'torch.compile',
    '16384, 32768 tokens',
  ):
    assert any(words in line for line in omissions), words
  groups, omissions = plan(torch=False)
  assert {case.framework for group in groups for case in group.cases} == {'jax'}
  assert any('torch is not installed' in line for line in omissions)


def test_pytorch_on_a_cpu_is_not_compared_with_jax_on_a_tpu(plan):
  groups, omissions = plan(tpu=True)
  assert {case.framework for group in groups for case in group.cases} == {'jax'}
  assert any('it runs on the CPU here, jax does not' in line for line in omissions)


@pytest.mark.parametrize(
  ('there', 'dtype'),
  [({}, 'float32'), ({'gpu': True}, 'bfloat16'), ({'tpu': True, 'torch': False}, 'bfloat16')],
)
def test_attention_on_a_gpu_or_tpu_is_in_bfloat16_unless_asked_for(plan, there, dtype):
  """Which cuDNN needs."""
  groups, omissions = plan('--attention', '--lengths=64', **there)
  assert {case.dtype for group in groups for case in group.cases} == {dtype}
  assert any(line.startswith('attention in bfloat16 only') for line in omissions) == bool(there)
  both = plan('--attention', '--lengths=64', '--dtypes=bfloat16,float32', **there)[0]
  assert [group.cases[0].dtype for group in both[::2]] == ['bfloat16', 'float32']
  methods = {case.method for case in groups[0].cases}
  assert {'cudnn', 'triton', 'diagonals'} <= methods or not there.get('gpu')


def test_the_peer_in_jax(plan):
  one = ('--attention', '--lengths=64', '--passes=both')
  (group,), omissions = plan(*one, tokamax=True, torch=False)
  (case,) = (case for case in group.cases if case.method == 'tokamax')
  assert (case.framework, case.name, case.encoding) == ('jax', 'jax tokamax', 'nope')
  assert case.baseline == 'nope blockwise'
  assert not any('tokamax' in line for line in omissions)
  (group,), omissions = plan(*one)
  assert 'jax tokamax' not in names(group)
  assert any('tokamax is left out, it is not installed: pip' in line for line in omissions)
  for peers, found in (('none', False), ('sdpa', False), ('tokamax', True), ('flex,tokamax', True)):
    (group,), omissions = plan(*one, f'--peers={peers}')
    assert ('jax tokamax' in names(group)) == found
    assert ('torch matmul' in names(group)) == (peers in ('sdpa', 'flex,tokamax'))
  (group,), omissions = plan(*one, '--peers=tokamax', torch=False)
  assert not any('PyTorch' in line for line in omissions)
  (group,), omissions = plan(*one, '--encodings=rope', tokamax=True)
  assert 'jax tokamax' not in names(group)


def test_all_encodings_with_every_backend(plan):
  (group,), omissions = plan('--attention', '--encodings=all', '--lengths=64', '--passes=both')
  jax_names = [
    case.name for case in group.cases if case.framework == 'jax' and case.method != 'matmul'
  ]
  wanted = {f'{name} {backend}' for name in ENCODINGS for backend in ('dense', 'blockwise')}
  assert set(jax_names) == wanted
  assert len(set(names(group))) == len(group.cases)
  peers = {case.method: case.encoding for case in group.cases if case.framework == 'torch'}
  assert peers.pop('matmul') == ''
  assert set(peers) == {x for x in cases.ATTENTION_PEERS if not x.endswith('_compiled')}
  assert all(encoding in cases.ATTENTION_PEERS[peer] for peer, encoding in peers.items())
  assert any('not written here for' in line and 'stick_breaking' in line for line in omissions)
  (line,) = (line for line in omissions if 'torch.compile' in line)
  asked = line.rpartition(' ')[2]
  assert asked == f'--peers={",".join(cases.ATTENTION_PEERS)}'
  (group,), omissions = plan('--attention', '--lengths=64', '--passes=both', asked)
  assert {'torch sdpa_table_compiled', 'torch sdpa_content_compiled'} < {*names(group)}
  assert not any('torch.compile' in line for line in omissions)


def test_what_ratios_are_to(plan):
  baseline = lambda group: {case.name: case.baseline for case in group.cases}
  (group,), _ = plan('--attention', '--encodings=nope,alibi', '--lengths=64', '--passes=both')
  assert baseline(group) == {
    'nope dense': 'nope blockwise',
    'nope blockwise': 'nope blockwise',
    'alibi dense': 'nope blockwise',
    'alibi blockwise': 'nope blockwise',
    'torch sdpa': 'nope blockwise',
    'torch sdpa_fixed': 'alibi blockwise',
    'torch sdpa_fixed_causal': 'alibi blockwise',
    'torch flex': 'nope blockwise',
    'torch flex_alibi': 'alibi blockwise',
    'jax matmul': 'jax matmul',
    'torch matmul': 'jax matmul',
  }
  (group,), _ = plan(
    '--attention', '--encodings=t5,rope', '--lengths=64', '--passes=both', '--backends=dense'
  )
  assert set(baseline(group).values()) == {'t5 dense', 'jax matmul'}
  (group,), _ = plan('--step', '--encodings=t5,rope', '--shapes=8x2', '--dtypes=float32')
  assert baseline(group)['rope'] == baseline(group)['t5'] == 't5'
  assert baseline(group)['rope gpt'] == 'rope'
  (group,), _ = plan(
    '--step', '--encodings=t5,rope', '--shapes=8x2', '--dtypes=float32', '--baseline=rope gpt'
  )
  assert set(baseline(group).values()) == {'rope gpt'}


def test_compiled_steps_are_few_unless_asked_for(plan):
  compiled = lambda groups: [
    (n, x) for n, g in enumerate(groups) for x in names(g) if x.endswith('compiled')
  ]
  groups, _ = plan('--step')
  assert compiled(groups) == [(0, 'rope gpt_compiled'), (0, 'rope x_transformers_compiled')]
  groups, _ = plan('--step', '--peers=gpt_compiled', '--encodings=rope,t5')
  assert compiled(groups) == [
    (n, f'{name} gpt_compiled') for n in range(4) for name in ('rope', 't5')
  ]


def test_hyperparameters_and_overrides_reach_the_cases(plan):
  (group,), _ = plan(
    '--step',
    '--encodings=rope/base=500',
    '--shapes=8x2',
    '--dtypes=bfloat16',
    '--config.model.layers=3',
  )
  config = cases.step_config(group.cases[0])
  assert (config.encoding.name, config.encoding.base, config.model.layers) == ('rope', 500, 3)
  assert (config.train.length, config.train.batch, config.train.compute_dtype) == (8, 2, 'bfloat16')


def test_sections_and_values_with_commas_are_hyperparameters(plan):
  specs = 'rope/scaling.rope_type=yarn/scaling.factor=4', "chain/members=('rope', 'fox')"
  (group,), _ = plan(
    '--step', f'--encodings={",".join(specs)}', '--shapes=8x2', '--dtypes=float32', '--peers=none'
  )
  assert names(group) == [*specs]
  rope, chain = (cases.step_config(case).encoding for case in group.cases)
  assert rope.scaling.to_dict() == {'rope_type': 'yarn', 'factor': 4}
  assert chain.members == ('rope', 'fox')
  (group, _), _ = plan(
    '--attention', f'--encodings={",".join(specs)}', '--lengths=64', '--backends=dense'
  )
  assert {case.encoding for case in group.cases} == {*specs, ''}


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--encodngs=nope'], ["did you mean '--encodings'?"]),
    (['--encodings=alibbi'], ["'alibbi'", 'alibi']),
    (['--encodings=rope/bas=3'], ["'bas'", 'base']),
    (['--encodings=rope/base'], ['rope/base', 'NAME/hyper=value']),
    (['--encodings=nope,nope'], ['--encodings=nope,nope', 'none twice']),
    (['--encodings=rope', '--head_dim=3'], ['head_dim', '3']),
    (['--backends=blokwise'], ['--backends=blokwise', "did you mean 'blockwise'?"]),
    (['--lengths=64,0'], ['--lengths=64,0', 'whole numbers']),
    (['--lengths=64,64'], ['--lengths=64,64', 'none twice']),
    (['--passes=backward'], ['--passes=backward']),
    (['--dtypes=float15'], ['--dtypes=float15', "did you mean 'bfloat16'?"]),
    (['--batch=0'], ['--batch=0', '1 or more']),
    (['--budget=0'], ['--budget=0']),
    (['--repeats=-1'], ['--repeats=-1']),
    (['--step', '--seeds=1'], ['--seeds=1', '2 or more']),
    (['--seeds=2'], ['--seeds=2', 'with --step']),
    (['--step', '--seeds=2', '--peers=gpt'], ['--seeds=2', 'no --peers']),
    (['--shapes=8'], ['--shapes=8', 'LENGTHxBATCH']),
    (['--attention', '--peers=gpt'], ['--peers=gpt', 'unknown']),
    (['--baseline=nope', '--attention'], ['--baseline=nope', 'no such case']),
    (['--attention', '--config.model.layers=1'], ['--config.model.layers', '--step']),
    (['--config.model.layerz=1'], ["did you mean 'model.layers'?"]),
    (['--config.train.length=8'], ['--config.train.length', '--shapes']),
    (['--config.encoding.name=rope'], ['--config.encoding.name', '--encodings']),
    (['--step', '--config.mesh.data=2'], ['--config.mesh.data', 'on one device']),
    (['--step', '--config.data.packing=True'], ['--config.data.packing', 'drawn at random']),
    (['--step', '--heads=4'], ['--heads=4: does nothing here; allowed: with --attention']),
    (['--attention', '--shapes=8x2'], ["--shapes='8x2': does nothing here; allowed: with --step"]),
    (['--attention', '--lengths=16384', '--passes=both'], ['--lengths=16384', 'at most 8192']),
  ],
)
def test_a_bad_flag_is_one_line_before_anything_starts(tmp_path, arguments, words):
  with pytest.raises(UserError) as error:
    command.main([f'--out={tmp_path / "out"}', *arguments])
  assert r'\n' not in str(error.value)
  assert all(word in str(error.value) for word in words), error.value
  assert not (tmp_path / 'out').exists()


def test_an_imported_model_is_evaluated_here_and_in_transformers(plan, imported_run, tmp_path):
  run = imported_run()
  flags = f'--pretrained={run}', f'--out={tmp_path / "out"}'
  groups, omissions = plan(*flags)
  sizes = [(group.cases[0].dtype, group.cases[0].length) for group in groups]
  assert sizes == [(dtype, T) for dtype in cases.DTYPES for T in (2048, 8192)]
  assert not omissions
  (group,), _ = plan(*flags, '--lengths=16', '--dtypes=bfloat16')
  assert names(group) == ['posenc_jax', 'transformers']
  assert [case.framework for case in group.cases] == ['jax', 'torch']
  assert {case.baseline for case in group.cases} == {'posenc_jax'}
  assert {(case.vocab, case.bos, case.kind) for case in group.cases} == {(23, 1, 'evaluation')}
  ours, theirs = (Path(case.folder) for case in group.cases)
  assert (ours, theirs.parent) == (run, tmp_path / 'out')
  assert cases.tokens(group.cases[0]).max() < 23
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('arguments', 'there', 'words'),
  [
    (['--step'], {}, '--step=True: does nothing here; allowed: --out, --pretrained, --lengths'),
    (['--heads=3'], {}, '--heads=3: does nothing here'),
    (['--peers=none'], {}, "--peers='none': does nothing here"),
    (['--lengths=0'], {}, '--lengths=0; allowed: whole numbers'),
    (['--dtypes=float16'], {}, '--dtypes=float16: unknown'),
    (['--config.eval.k=3'], {}, '--config.eval.k: the run decides it'),
    (
      [],
      {'torch': False},
      r"needs torch, which is not installed; allowed: pip install -e '.\[bench",
    ),
    ([], {'transformers': False}, 'needs transformers, which is not installed'),
    (
      [],
      {'gpu': True},
      'here is a GPU or TPU; allowed: a machine without, or CUDA_VISIBLE_DEVICES=',
    ),
    ([], {'tpu': True}, 'a CPU is measured, and here is a GPU or TPU; allowed: a machine without$'),
  ],
)
def test_what_does_not_go_with_an_imported_model(plan, arguments, there, words):
  with pytest.raises(UserError, match=words):
    plan('--pretrained=run', *arguments, **there)


def test_a_run_that_was_not_imported_or_cannot_go_out(imported_run, tmp_path, monkeypatch, plan):
  with pytest.raises(UserError, match='no_run'):
    plan(f'--pretrained={tmp_path / "no_run"}')
  run = imported_run()
  find = importlib.util.find_spec
  monkeypatch.setattr(command.importlib.util, 'find_spec', lambda name: find(name) or object())

  def refuse(*arguments):
    raise UserError('config.encoding: no family has it')

  monkeypatch.setattr(exporting, 'fields_of', refuse)
  with pytest.raises(UserError, match='no family has it'):
    command.main([f'--pretrained={run}', f'--out={tmp_path / "out"}'])
  assert [*(tmp_path / 'out').iterdir()] == []
  (run / 'source.json').unlink()
  with pytest.raises(UserError, match='its parameters are no imported ones; allowed: the dir'):
    plan(f'--pretrained={run}')


# Measuring.


class FakeWorkers:
  """Cases answer from a script: {name: seconds of each round, or what refuses}; the clock goes on
  by those seconds.
  """

  script, log, clock, warm, facts = {}, [], [0.0], None, {}

  def __init__(self, out):
    self.round = dict.fromkeys(self.script, 0)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.log.append('end')

  def prepare(self, case, seconds):
    self.log.append(f'prepare {case.name}')
    answer = self.script[case.name]
    if isinstance(answer, str):
      return {'refused': answer}
    return {'facts': {'warm_seconds': self.warm or answer[0], 'version': '1'} | self.facts}

  def run(self, case, calls, seconds):
    self.log.append(case.name)
    turn = self.script[case.name][self.round[case.name]]
    self.round[case.name] += 1
    if isinstance(turn, str):
      return {'refused': turn}
    self.clock[0] += calls * turn
    return {'seconds': calls * turn, 'peak_bytes': 2**20}


@pytest.fixture
def run_fake(tmp_path, monkeypatch):
  """(script, ...) -> rows, what the workers were asked, what was said."""

  def run(script, groups=None, budget=60.0, repeats=3, warm=None):
    fake = type('Fake', (FakeWorkers,), {'script': script, 'log': [], 'clock': [0.0], 'warm': warm})
    monkeypatch.setattr('scripts.bench.measure.monotonic', lambda: fake.clock[0])
    console = Console(file=io.StringIO())
    rows = measure(
      groups or [steps('one', *script)], tmp_path, budget, repeats, console, workers=fake
    )
    return rows, fake.log, console.file.getvalue()

  return run


def steps(title, *names):
  fields = dict(dtype='float32', length=8, batch=2)
  return cases.Group(
    'step', title, tuple(cases.Case('step', 'jax', n, 'm', n, names[0], **fields) for n in names)
  )


def test_repeats_are_interleaved_and_ratios_are_of_the_same_round(run_fake, tmp_path):
  script = {'a': [1.0, 4.0, 2.0], 'b': [3.0, 4.0, 8.0], 'c': 'cannot', 'd': [1.0, 'died']}
  rows, log, said = run_fake(script)
  assert log == ['prepare a', 'prepare b', 'prepare c', 'prepare d', *'abdabdab', 'end']
  a, b, c, d = rows
  assert (a['median'], b['median'], b['seconds']) == (2.0, 4.0, [3.0, 4.0, 8.0])
  # of 3, 1, 4: not the ratio of medians
  assert (b['ratio_q1'], b['ratio'], b['ratio_q3']) == (2.0, 3.0, 3.5)
  assert (a['tokens_per_second'], a['peak_bytes']) == (8.0, 2**20)
  assert [(row['status'], row['reason']) for row in (c, d)] == [
    ('refused', 'cannot'),
    ('refused', 'died'),
  ]
  assert 'median' not in d
  assert storage.read_rows(tmp_path / 'rows.jsonl') == json.loads(json.dumps(rows))
  assert 'step, one: 2 of 4 measured' in said


def evaluations(dtype):
  return cases.evaluation_groups('run', 'exported', 'rope', 23, 1, [8], [dtype])


@pytest.mark.parametrize(('dtype', 'allowed'), [('float32', '0.0001'), ('bfloat16', '0.02')])
def test_an_evaluation_is_timed_where_nats_are_the_same(run_fake, monkeypatch, dtype, allowed):
  nats = {'posenc_jax': np.array([1.0, 3.0]), 'transformers': np.array([1.0, 3.0])}
  prepare = FakeWorkers.prepare

  def with_nats(self, case, seconds):
    answer = prepare(self, case, seconds)
    if 'facts' in answer:
      answer['facts']['nats'] = nats[case.name]
    return answer

  monkeypatch.setattr(FakeWorkers, 'prepare', with_nats)
  script = {'posenc_jax': [1.0] * 3, 'transformers': [1.5] * 3}
  share = float(allowed)
  nats['transformers'] = nats['posenc_jax'] + 1.9 * share * np.array([1, -1])  # as much in sum
  (ours, theirs), _, _ = run_fake(script, evaluations(dtype))
  assert (ours['ratio'], theirs['ratio'], theirs['tokens_per_second']) == (1.0, 1.5, 8 / 1.5)
  assert (ours['nats'], theirs['nats'], ours['nats_apart']) == pytest.approx((2.0, 2.0, 0.0))
  assert theirs['nats_apart'] == pytest.approx(0.95 * share)
  for changed in (nats['posenc_jax'] + 2.1 * share * np.array([1, -1]), np.array([1.0, np.nan])):
    nats['transformers'] = changed
    rows, log, _ = run_fake(script, evaluations(dtype))
    assert log == ['prepare posenc_jax', 'prepare transformers', 'end']
    for row in rows:
      assert (row['status'], 'median' in row) == ('refused', False)
      assert row['reason'].startswith('transformers: nats of a token differ from those of posenc')
      assert row['reason'].endswith(f'; allowed: {allowed}')
  (ours, theirs), log, _ = run_fake(script | {'transformers': 'no such model'}, evaluations(dtype))
  assert ours['reason'] == 'not compared with transformers, which gave no nats'
  assert theirs['reason'] == 'no such model'
  assert 'posenc_jax' not in log


def test_tokens_are_those_of_all_seeds(run_fake):
  case = cases.Case(
    'step', 'jax', 'a', 'trainer', 'a', 'a', 'float32', 8, 2, config={'seeds': (0, 1, 2)}
  )
  (row,), _, _ = run_fake({'a': [2.0] * 3}, [cases.Group('step', 'one', (case,))])
  assert row['tokens_per_second'] == 3 * 16 / 2


def test_short_calls_are_repeated_inside_a_repeat_and_the_time_decides_how_many_there_are(run_fake):
  rows, _, _ = run_fake({'a': [1e-3] * MAX_REPEATS}, repeats=0)
  assert (rows[0]['calls'], len(rows[0]['seconds'])) == (50, MAX_REPEATS)
  assert rows[0]['median'] == pytest.approx(1e-3)
  # Half a minute for each would be 6 of a and 15 of b, but each of b's needs a time of a's; so
  # until a minute is over.
  rows, _, _ = run_fake({'a': [5.0] * MAX_REPEATS, 'b': [1.0] * MAX_REPEATS}, repeats=0)
  assert [len(row['seconds']) for row in rows] == [11, 10]


def test_after_its_share_a_group_has_the_least_repeats(run_fake):
  groups = [steps('first', 'a'), steps('second', 'b')]
  rows, _, _ = run_fake(
    {'a': [30.0] * MAX_REPEATS, 'b': [30.0] * MAX_REPEATS},
    groups,
    budget=100.0,
    repeats=0,
    warm=0.1,
  )
  # of 15 each, had 0.1 s been true
  assert [(row['calls'], len(row['seconds'])) for row in rows] == [(1, MIN_REPEATS)] * 2


def test_what_the_time_does_not_reach_is_the_dearest_and_a_row_says_so(run_fake):
  group = lambda name, length: cases.Group(
    'attention', name, (attention_case(encoding=name, length=length),)
  )
  groups = [group('dear', 8192), group('cheap', 64)]
  script = {'dear blockwise': [30.0] * 3, 'cheap blockwise': [30.0] * 3}
  rows, log, _ = run_fake(script, groups, budget=200.0)
  assert [(row['group'], len(row['seconds'])) for row in rows] == [('dear', 3), ('cheap', 3)]
  assert log[0] == 'prepare cheap blockwise'
  rows, log, _ = run_fake(script, groups, budget=50.0)
  assert log == ['prepare cheap blockwise', *['cheap blockwise'] * 2, 'end', 'end']
  assert [row['status'] for row in rows] == ['left out', 'ok']
  assert '--budget' in rows[0]['reason']
  # dense refuses it at once
  long = cases.Group('attention', 'long', (attention_case('dense', 'cheap', length=16384),))
  assert long.expected_seconds < groups[0].expected_seconds
  _, log, _ = run_fake(script | {'cheap dense': 'no'}, [long, groups[0]], budget=1e6, repeats=1)
  assert log == ['prepare dear blockwise', 'dear blockwise', 'end', 'prepare cheap dense', 'end']


def test_within_a_group_it_is_the_dearest_cases(run_fake):
  one = lambda method: attention_case(method, length=8192, head_dim=64)
  script = {one(method).name: [20.0] * 2 for method in ('dense', 'blockwise', 'matmul')}
  group = cases.Group('attention', 'one', tuple(map(one, ('dense', 'blockwise', 'matmul'))))
  rows, log, _ = run_fake(script, [group], budget=70.0, repeats=2)
  # two repeats of each, and dense has no time left
  assert log[:2] == ['prepare nope matmul', 'prepare nope blockwise']
  assert [row['status'] for row in rows] == ['left out', 'ok', 'ok']


def test_fraction_of_the_measured_peak(run_fake):
  one = attention_case(length=2048, heads=8, head_dim=64, passes='forward')
  products = tuple(attention_case('matmul', encoding=name) for name in ('slow', 'fast'))
  script = {one.name: [0.5], products[0].name: [2.0], products[1].name: [1.0]}
  rows, _, _ = run_fake(script, [cases.Group('attention', 'one', (one, *products))], repeats=1)
  useful = 4 * 64 * 2 * 8 * sum(range(1, 2049))  # by counting visible pairs
  assert rows[0]['gflops'] == pytest.approx(useful / 0.5 / 1e9)
  assert [row['of_peak'] for row in rows] == pytest.approx([useful / 0.5 / (2 * 2048**3), 0.5, 1.0])


def test_the_share_of_the_peak_that_a_step_uses(run_fake, monkeypatch):
  """The maker's, of jax's case; a step in PyTorch has as many operations."""
  fields = dict(dtype='bfloat16', length=8, batch=2)
  ours, theirs = (
    cases.Case('step', framework, name, name, 'rope', 'ours', **fields)
    for framework, name in (('jax', 'ours'), ('torch', 'theirs'))
  )
  group = cases.Group('step', 'one', (ours, theirs))
  script = {'ours': [0.5] * 3, 'theirs': [2.0] * 3}
  monkeypatch.setattr(FakeWorkers, 'facts', {'operations': 3e12, 'device_flops': 12e12})
  rows, _, _ = run_fake(script, [group])
  assert [row['of_peak'] for row in rows] == [0.5, 0.125]
  about = ABOUT | {'device': 'GPU', 'python': '3.11'}
  text = tables.markdown([row | about for row in rows], [])
  assert '| 0.50 |' in ' '.join(text.split())
  monkeypatch.setattr(FakeWorkers, 'facts', {'operations': 3e12, 'device_flops': None})
  rows, _, _ = run_fake(script, [group])
  assert [row['of_peak'] for row in rows] == [None, None]


@pytest.mark.parametrize(
  ('dtype', 'kind', 'peak'),
  [
    ('bfloat16', 'NVIDIA H200', 989.4e12),
    ('float32', 'NVIDIA H200', 494.7e12),
    ('bfloat16', 'cpu', None),
  ],
)
def test_a_step_tells_its_operations_and_what_the_device_can_do(
  plan, monkeypatch, dtype, kind, peak
):
  (case,) = step_case(plan, '--encodings=rope', '--peers=none', dtype=dtype)
  monkeypatch.setattr(jax, 'devices', lambda: [SimpleNamespace(device_kind=kind, platform='gpu')])
  monkeypatch.setattr(
    jax_cases, 'compile_within_memory', lambda jitted, *arguments: (None, {'temporary_bytes': 0})
  )
  facts = jax_cases.step(case).facts
  # 16 wide, 2 layers of 4 * 16^2 and 2 * 16 * 32 weights, logits; attention of 40 tokens
  weights = 2 * (4 * 16**2 + 2 * 16 * 32) + 16 * data.VOCAB
  assert facts['operations'] == 3 * 40 * (6 * weights + 2 * 12 * 16 * 40)
  assert facts['device_flops'] == peak


def test_quartiles():
  assert quartiles([]) == (None, None, None)
  assert quartiles([2.0]) == (2.0, 2.0, 2.0)
  assert quartiles([1.0, 5.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)


def test_memory_is_counted_and_refused():
  grown = memory.growth(lambda: np.ones(2**25))
  assert grown is None or 0.9 * 2**28 < grown < 1.2 * 2**28
  assert memory.excess(1) is None
  assert memory.excess(memory.total()).startswith('needs ')


@pytest.mark.parametrize('is_counted', [True, False])
def test_a_warm_call_is_timed_also_where_memory_is_not_counted(monkeypatch, is_counted):
  """The first call may compile, and the time of a warm one says how many fit into a repeat."""
  monkeypatch.setattr(memory, 'reset_peak', lambda: is_counted)
  monkeypatch.setattr(memory, 'peak', lambda: 7)
  seconds = [30.0, 0.1]
  monkeypatch.setattr(worker, 'seconds_of_calls', lambda work, calls: seconds.pop(0))
  facts = worker.warm_up(Work(lambda: None, {'bias_bytes': 5}), measure_memory=True)
  assert facts == {'temporary_bytes': 5 if is_counted else None, 'warm_seconds': 0.1}


def test_reasons_are_one_line():
  assert reason(Unsupported('why\nmore')) == 'why more'
  assert reason(RuntimeError('\n out of memory \n at 0x0')) == 'RuntimeError: out of memory at 0x0'
  assert reason(ValueError()) == 'ValueError'


# Reports.


TABLE = """\
# Benchmark

- Chip, 2 cores, 4 GiB; 2026-01-02; budget 15 minutes
- jax 1.2 on cpu, Python 3.11
- without peers

## Step

{notes}

### one

| case   |   tokens/s |        time, ms |             ratio | baseline   |   of peak |   peak, MiB |   repeats | note   |
|:-------|-----------:|----------------:|------------------:|:-----------|----------:|------------:|----------:|:-------|
| a      |      1,024 | 12.3 [12, 99.9] | 1.00 [1.00, 1.00] | a          |      0.40 |       1,024 |         2 | (1)    |
| b      |        512 |             100 |                 — | —          |         — |           — |         3 |        |
| c      |          — |               — |                 — | —          |         — |           — |         — | (2)    |

(1) fewer than 3 repeats

(2) refused: no such thing
"""  # noqa: E501


ABOUT = dict(cpu='Chip', cores=2, memory_bytes=2**32, date='2026-01-02', budget_seconds=900.0)


def test_table_of_rows():
  about = ABOUT | dict(
    section='step', group='one', framework='jax', version='1.2', device='cpu', python='3.11'
  )
  row = lambda name, **fields: (
    about | dict(name=name, method='m', baseline='a', status='ok', reason='') | fields
  )
  times = dict(q1=0.012, median=0.01234, q3=0.0999, ratio_q1=1.0, ratio=1.0, ratio_q3=1.0)
  none = dict(q1=0.1, median=0.1, q3=0.1004, ratio_q1=None, ratio=None, ratio_q3=None)
  rows = [
    row('a', seconds=[0.1, 0.2], tokens_per_second=1024.4, of_peak=0.4, peak_bytes=2**30, **times),
    row('b', seconds=[0.1] * 3, tokens_per_second=512.0, of_peak=None, peak_bytes=None, **none),
    row('c') | dict(status='refused', reason='no such thing'),
  ]
  notes = '\n'.join(f'- {line}' for line in tables.NOTES['step'])
  wanted = TABLE.format(notes=notes).replace('|             100 |', '|  100 [100, 100] |')
  assert tables.markdown(rows, ['without peers']) == wanted


# Real work.


@pytest.mark.slow
def test_from_the_command_line_to_rows_and_table(tmp_path):
  flags = (
    '--out=out --encodings=nope,learned --lengths=64 --passes=both --peers=none --batch=1 '
    '--heads=2 --head_dim=8 --repeats=2 --backends=blockwise,cudnn --shapes=8x2 --dtypes=float32 '
    '--config.model.model_dim=16 --config.model.layers=1 --config.model.heads=2 '
    '--config.model.head_dim=8'
  )
  done = subprocess.run(
    [sys.executable, ROOT / 'scripts' / 'bench.py', *flags.split()],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stderr
  out = tmp_path / 'out'
  rows = {row['name']: row for row in storage.read_rows(out / 'rows.jsonl')}
  ok = {name for name, row in rows.items() if row['status'] == 'ok'}
  assert ok == {'nope blockwise', 'jax matmul', 'nope', 'learned'}
  assert 'input of the model' in rows['learned blockwise']['reason']
  assert 'cudnn' in rows['nope cudnn']['reason'].lower()
  assert all(len(rows[name]['seconds']) == 2 and rows[name]['median'] > 0 for name in ok)
  assert rows['nope blockwise']['temporary_bytes'] > 0
  assert rows['learned']['parameters'] == rows['nope']['parameters'] + 8 * 16
  text = (out / 'bench.md').read_text()
  assert all(f'| {name} ' in text for name in rows)
  assert text in done.stdout


def test_all_cases_in_jax_share_a_process_on_a_tpu(tmp_path, monkeypatch):
  """A TPU belongs to one process."""
  started = []

  class Alive:
    def __init__(self, framework, log):
      started.append(framework)
      self.process = SimpleNamespace(poll=lambda: None)

  monkeypatch.setattr('scripts.bench.workers.Worker', Alive)
  several = (*steps('one', 'a', 'b').cases, attention_case(), attention_case('dense'))
  for on_tpu, number in ((True, 1), (False, 4)):
    monkeypatch.setattr('posenc_jax.distributed.devices.has_tpu', lambda on_tpu=on_tpu: on_tpu)
    started.clear()
    workers = Workers(tmp_path)
    for case in several:
      workers.worker_for(case)
    assert started == ['jax'] * number


def test_the_peak_of_an_accelerator_is_of_large_products_in_one_call(monkeypatch, run_fake):
  """A call is dear there. Rows have the speed of all of them."""
  monkeypatch.setattr(jax_cases, 'LARGE_MATMUL_SIZE', 64)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  work = jax_cases.matmul(attention_case('matmul'))
  assert work.facts['operations'] == 2 * 16 * 64**3
  assert np.isfinite(work.call()).all()
  monkeypatch.setattr(FakeWorkers, 'facts', work.facts)
  group = cases.Group('attention', 'one', (attention_case('matmul'),))
  rows, _, _ = run_fake({'nope matmul': [1.0] * 3}, [group])
  assert rows[0]['gflops'] == pytest.approx(2 * 16 * 64**3 / 1e9)


def test_a_worker_that_dies_is_started_again(tmp_path):
  with Workers(tmp_path) as workers:
    case = attention_case(passes='forward')
    assert 'facts' in workers.prepare(case, 60.0)
    process = workers.worker_for(case).process  # asked again, it could be one started anew
    process.kill()
    process.wait()
    assert workers.run(case, 2, 60.0)['seconds'] > 0
    assert workers.prepare(attention_case('no_such_backend'), 60.0)['refused'].startswith(
      'ValueError: '
    )
    slow = workers.run(case, 10**9, 1.0)
    assert slow == {'refused': 'no answer within 1 s'}
    processes = [worker.process for worker in workers.workers.values()]
  assert all(process.poll() is not None for process in processes)


def test_attention_of_more_heads_than_there_are_of_queries():
  """RoPE++ makes two of each; the products of all count."""
  works = [jax_cases.attention(attention_case(encoding=name)) for name in ('rope', 'rope_pp')]
  (o, _), (more, gradients) = (work.call() for work in works)
  assert (o.shape, more.shape) == ((2, 64, 2, 8), (2, 64, 4, 8))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
  one = 14 * 8 * 2 * 2 * sum(range(1, 65))  # by counting visible pairs
  assert [work.facts['operations'] for work in works] == [one, 2 * one]


def evaluation_cases(plan, run, out, *flags):
  (group,), _ = plan(f'--pretrained={run}', f'--out={out}', '--lengths=24', *flags)
  return group


@pytest.mark.parametrize('dtype', cases.DTYPES)
def test_an_evaluation_is_that_of_the_run(plan, imported_run, monkeypatch, tmp_path, dtype):
  monkeypatch.setattr(jax_cases, 'SCORED_TOKENS', 9)
  run = imported_run()
  case = evaluation_cases(plan, run, tmp_path, f'--dtypes={dtype}').cases[0]
  work = jax_cases.evaluation(case)
  work.call()
  wanted = load_run(run, {'eval.compute_dtype': dtype}).nats(cases.tokens(case))[0, -9:]
  # bfloat16 rounds as the program happens to be compiled
  atol = 1e-5 if dtype == 'float32' else 0.05
  np.testing.assert_allclose(work.facts['nats'], wanted, atol=atol)
  assert work.facts['temporary_bytes'] > 0


# The peers.


def test_the_peer_in_jax_computes_causal_attention(monkeypatch):
  """It stands for a library that is not installed here: jax has a function of that form."""
  case = attention_case('tokamax', length=32)
  assert {case.method} == {*cases.JAX_PEERS}
  if importlib.util.find_spec('tokamax') is None:
    with pytest.raises(Unsupported, match=r'^not installed: pip install tokamax$'):
      jax_cases.attention(case)
  library = ModuleType('tokamax')
  library.__spec__ = importlib.machinery.ModuleSpec('tokamax', None)
  library.dot_product_attention = jax.nn.dot_product_attention
  monkeypatch.setitem(sys.modules, 'tokamax', library)
  call = lambda case: jax.tree.leaves(jax_cases.attention(case).call())
  mine = call(attention_case('dense', length=32))
  # '': it is asked for beside encodings that it does not compute
  for theirs in (case, attention_case('tokamax', encoding='', length=32)):
    for a, b in zip(mine, call(theirs), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip('torch')


@pytest.mark.filterwarnings('ignore')  # flex_attention warns that it is not compiled
@pytest.mark.parametrize(
  ('method', 'encoding'),
  [(method, name) for method, names in cases.ATTENTION_PEERS.items() for name in names],
)
def test_a_peer_of_attention_does_the_work_of_our_encoding(torch, monkeypatch, method, encoding):
  from scripts.bench import torch_cases

  monkeypatch.setattr(torch, 'compile', lambda function, **_: function)
  has_vectors = method.startswith('sdpa_content')
  T, H, K = 32, 2, 8
  enc = make(encoding, **SIZES, rngs=nnx.Rngs(0))
  if has_vectors:  # q_i . (k_j + r[i - j])
    enc.u[...], enc.v[...] = 0 * enc.u[...], 0 * enc.v[...]
  q, k, v, cotangent = (jax_cases.normal(seed, 2, T, H, K, dtype='float32') for seed in range(4))
  unscale = K**-0.5 / enc.scale(K)  # T5 has no scale of its own
  wanted, pull = jax.vjp(
    lambda enc, q, k, v: attend(unscale * q, k, v, enc, backend='dense'), enc, q, k, v
  )
  d_enc, *d_inputs = pull(cotangent)

  function, made, learned = torch_cases.peer(method, T, H, K, torch.float32)
  hook = 'tables' if has_vectors else 'bias'
  tables, pull_tables = jax.vjp(lambda enc: enc.distance_terms(jnp.arange(T)).get(hook), enc)
  if method.startswith('sdpa_fixed') and encoding != 'alibi':  # whose bias it is that is made
    made = (torch_cases.torch_steps.along_diagonals(torch.tensor(np.asarray(tables))),)
  if learned:
    values = jnp.moveaxis(tables, 0, 1) / enc.scale(K) if has_vectors else tables
    assert learned[0].shape == values.shape
    learned = (torch.tensor(np.asarray(values)),)
  turned = lambda x: torch.tensor(np.asarray(x).swapaxes(1, 2))
  inputs = [turned(x) for x in (q, k, v)]
  wants_gradients = method.startswith('sdpa')
  for x in (*inputs, *learned):
    x.requires_grad_(wants_gradients)
  o = function(*inputs, *made, *learned)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)
  close(o.detach().numpy().swapaxes(1, 2), wanted)
  if wants_gradients:
    gradients = [g.numpy() for g in torch.autograd.grad(o, (*inputs, *learned), turned(cotangent))]
    for mine, other in zip(gradients, d_inputs, strict=False):
      close(mine.swapaxes(1, 2), other)
    if learned:
      assert np.any(gradients[3])
      mine = gradients[3].swapaxes(0, 1) / enc.scale(K) if has_vectors else gradients[3]
      for a, b in zip(
        jax.tree.leaves(pull_tables(jnp.asarray(mine))), jax.tree.leaves(d_enc), strict=True
      ):
        if np.any(a):  # Transformer-XL's u and v are not in its table
          close(a, b)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('T', [256, 500])
def test_blocks_of_the_causal_mask(torch, T):
  from torch.nn.attention.flex_attention import create_block_mask

  from scripts.bench import torch_cases

  mine = torch_cases.causal_blocks(T)
  wanted = create_block_mask(lambda b, h, i, j: i >= j, None, None, T, T, device=torch_cases.DEVICE)
  assert mine.shape == wanted.shape
  assert mine.to_dense().equal(wanted.to_dense())
  if T % 128:
    return  # there PyTorch counts the last row of blocks as masked
  for name in ('kv_num_blocks', 'full_kv_num_blocks', 'q_num_blocks', 'full_q_num_blocks'):
    assert getattr(mine, name).equal(getattr(wanted, name)), name


def step_case(plan, *arguments, dtype='float32'):
  model = dict(model_dim=16, layers=2, heads=2, head_dim=8, mlp_dim=32)
  sizes = [f'--config.model.{name}={value}' for name, value in model.items()]
  (group,), _ = plan('--step', '--shapes=40x3', f'--dtypes={dtype}', *sizes, *arguments)
  return group.cases


@pytest.mark.slow
def test_steps_of_seeds_by_vmap_do_the_work_of_steps_one_after_another(plan):
  sequential, vmap = step_case(plan, '--encodings=rope', '--seeds=2')
  assert {sequential.baseline, vmap.baseline} == {sequential.name}
  works = [jax_cases.step(case) for case in (sequential, vmap)]
  for _ in range(3):
    first, second = (work.call() for work in works)
    assert first == pytest.approx(second, rel=1e-5)


def test_memory_of_a_call_has_its_results():
  grow = jax.jit(lambda x: jnp.zeros((100, 1000)) + x)
  _, facts = jax_cases.compile_within_memory(grow, jnp.ones(()))
  assert facts['temporary_bytes'] >= 400_000


def test_parameters_that_do_not_train_have_no_moments(plan, monkeypatch):
  made, make_optimizer = [], jax_cases.make_optimizer
  monkeypatch.setattr(jax_cases, 'make_optimizer', lambda *a: made.append(a) or make_optimizer(*a))
  (case,) = step_case(
    plan, '--encodings=t5', '--peers=none', '--config.train.trained_parameters=encodings/*'
  )
  config = cases.step_config(case)
  config.seeds = (0, 1)
  jax_cases.step_of_config(config, data.Batch(cases.tokens(case)))
  assert made[0][2] == ('encodings/*',)
  assert config.seeds == (0, 1)  # the caller's stay


@pytest.mark.parametrize('encoding', ['nope', 'rope', 'alibi', 't5'])
def test_the_minimal_gpt_is_our_model(torch, plan, encoding):
  from scripts.bench import torch_steps

  ours, theirs = step_case(plan, '--peers=gpt', f'--encodings={encoding}')
  config, tokens_BT = cases.step_config(ours), cases.tokens(ours)
  model = build_model(config, data.VOCAB, nnx.Rngs(0))
  step = torch_steps.build(theirs, 'cpu').call

  def copies(model):
    """Our parameters, or their gradients, by the names that they have in PyTorch."""
    layers = model.layers
    named = {'embedding.weight': model.embedding, 'norm.weight': model.norm.scale}
    if encoding == 't5':
      named['table'] = model.encodings.variants[0].encoding.table
    named = {name: np.asarray(p[...]) for name, p in named.items()}
    for n in range(config.model.layers):
      at = lambda p, n=n: np.asarray(p[...][n]).T
      named[f'layers.{n}.qkv.weight'] = np.concatenate(
        [at(p) for p in (layers.w_q, layers.w_k, layers.w_v)]
      )
      for name, p in dict(out=layers.w_o, mlp_in=layers.w_in, mlp_out=layers.w_out).items():
        named[f'layers.{n}.{name}.weight'] = at(p)
      for name in ('attention_norm', 'mlp_norm'):
        named[f'layers.{n}.{name}.weight'] = at(getattr(layers, name).scale)
    return named

  step.model.load_state_dict({name: torch.tensor(value) for name, value in copies(model).items()})
  loss, gradients = jax.value_and_grad(lambda model: token_nll(model, tokens_BT).mean())(model)
  assert step.backward().item() == pytest.approx(float(loss), rel=1e-5)
  mine = {name: p.grad.numpy() for name, p in step.model.named_parameters()}
  for name, wanted in copies(gradients).items():
    np.testing.assert_allclose(mine[name], wanted, atol=1e-6, rtol=1e-3, err_msg=name)
  assert sum(p.numel() for p in step.model.parameters()) == sum(
    leaf.size for leaf in jax.tree.leaves(model)
  )


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('encoding', ['nope', 'rope', 'alibi', 't5'])
def test_x_transformers_is_causal_has_the_encoding_and_learns(torch, plan, encoding):
  pytest.importorskip('x_transformers')
  from scripts.bench import torch_steps

  arguments = [
    '--peers=x_transformers',
    f'--encodings={encoding}',
    '--config.model.layers=1',
    '--config.optim.warmup=1',
  ]
  _, case = step_case(plan, *arguments)
  work = torch_steps.build(case, 'cpu')
  with torch.no_grad():
    tokens_BT = torch.from_numpy(cases.tokens(case)).long()
    logits_BTV = work.call.model(tokens_BT)
    changed = lambda new_BT: (work.call.model(new_BT) - logits_BTV).abs().amax(dim=(0, 2)) > 1e-4
    later_T = changed(torch.cat((tokens_BT[:, :-1], tokens_BT[:, -1:] + 1), dim=1))
    assert later_T.tolist() == [False] * 39 + [True]
    # Without an encoding a layer sees a set of tokens: two that change places are the same to a
    # third.
    assert bool(changed(tokens_BT[:, [*range(37), 38, 37, 39]])[-1]) == (encoding != 'nope')
  losses = [work.call() for _ in range(10)]
  assert losses[-1] < losses[0] - 0.2


def test_steps_are_compiled_before_they_are_timed(torch, plan, monkeypatch):
  from scripts.bench import torch_steps

  called = []

  def compile(model):
    return lambda *arguments: called.append(model) or model(*arguments)

  monkeypatch.setattr(torch, 'compile', compile)
  for peer, calls in (('gpt', 0), ('gpt_compiled', 1)):
    torch_steps.build(step_case(plan, f'--peers={peer}', '--encodings=nope')[1], 'cpu')
    assert len(called) == calls


def test_on_a_gpu_pytorch_multiplies_as_jax_does(torch, monkeypatch):
  from scripts.bench import torch_cases

  asked = []
  monkeypatch.setattr(torch_cases, 'DEVICE', 'cuda')
  monkeypatch.setattr(torch, 'set_float32_matmul_precision', asked.append)
  monkeypatch.setattr(torch.cuda, 'get_device_name', lambda number: 'H100')
  assert torch_cases.describe()['device'] == 'H100, float32 products in TF32'
  assert asked == ['high']


def test_bfloat16_stays_bfloat16_where_pytorch_has_no_kernel(torch):
  """A learned bias with its gradient."""
  from scripts.bench import torch_cases

  torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)  # as it is at first
  torch_cases.describe()
  assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_the_kernel_for_cpus_is_refused_elsewhere(torch, monkeypatch):
  from scripts.bench import torch_cases

  monkeypatch.setattr(torch_cases, 'DEVICE', 'cuda')
  with pytest.raises(Unsupported, match=r'^a kernel for CPUs$'):
    torch_cases.sdpa_fixed_causal(*[None] * 4)


def test_peers_refuse_what_they_are_not_written_for(torch, plan):
  from scripts.bench import torch_steps

  for arguments, words in (
    (('--encodings=shaw',), 'nope, rope, alibi, t5'),
    (('--config.model.qk_norm=head',), "config.model.qk_norm='head'; allowed: 'none', for which"),
    (('--config.model.mlp=swiglu',), 'config.model.mlp='),
    (('--config.attention.softcap=9.0',), 'config.attention.softcap=9.0; allowed: 0.0'),
    (('--config.train.grad_accum_steps=3',), 'config.train.grad_accum_steps=3; allowed: 1'),
    (('--config.data.tokenizer=sentencepiece',), 'config.data.tokenizer='),
    (('--config.optim.name=muon',), "config.optim.name='muon'; allowed: adamw"),
  ):
    case = step_case(plan, '--peers=gpt', *arguments)[1]
    with pytest.raises(Unsupported, match=words):
      torch_steps.build(case, 'cpu')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['llama3_tied', 'gemma2', 'gpt2'])
def test_transformers_gives_the_same_nats(torch, plan, imported_run, monkeypatch, tmp_path, name):
  pytest.importorskip('transformers')
  from scripts.bench import torch_cases

  for module in (jax_cases, torch_cases):
    monkeypatch.setattr(module, 'SCORED_TOKENS', 9)
  group = evaluation_cases(plan, imported_run(name), tmp_path / 'out', '--dtypes=float32')
  ours, theirs = group.cases
  with evaluation.exported([group]):
    works = jax_cases.evaluation(ours), torch_cases.evaluation(theirs)
  assert not Path(theirs.folder).exists()
  for work in works:
    work.call()
  mine, others = (work.facts['nats'] for work in works)
  assert mine.shape == (9,)
  np.testing.assert_allclose(mine, others, atol=2e-5)


@pytest.mark.slow
def test_an_imported_model_from_the_command_line(torch, imported_run, tmp_path, capsys):
  pytest.importorskip('transformers')
  out = tmp_path / 'out'
  flags = ['--lengths=16', '--repeats=2', f'--out={out}']
  assert command.main([f'--pretrained={imported_run()}', *flags]) == 0
  rows = storage.read_rows(out / 'rows.jsonl')
  assert [row['name'] for row in rows] == ['posenc_jax', 'transformers'] * 2
  assert {row['status'] for row in rows} == {'ok'}
  assert all(len(row['seconds']) == 2 and row['nats_apart'] < 0.02 for row in rows)
  assert all(row['peak_bytes'] and row['prepare_peak_bytes'] for row in rows)
  assert sorted(path.name for path in out.glob('*.*')) == [
    'bench.md',
    'jax.log',
    'rows.jsonl',
    'torch.log',
  ]
  assert not [*out.glob('exported*')]
  text = (out / 'bench.md').read_text()
  assert text in capsys.readouterr().out
  assert f'transformers {rows[1]["transformers"]}' in text
  assert 'at most 0.0001 (float32), 0.02 (bfloat16)' in text


def test_pytorch_in_a_worker(torch, tmp_path):
  with Workers(tmp_path) as workers:
    case = attention_case('sdpa_table', 't5', 'torch')
    facts = workers.prepare(case, 120.0)['facts']
    assert facts['version'] == torch.__version__
    assert facts['temporary_bytes'] is None or facts['temporary_bytes'] >= 0
    assert workers.run(case, 2, 60.0)['seconds'] > 0
