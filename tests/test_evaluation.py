"""Evaluation: protocols against brute force over a stub model, then rows of a real one."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from posenc_jax import config, data, storage
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, model_functions, plan, protocols, row_schema
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import run_dir as workdirs
from posenc_jax.training.checkpoints import Checkpoints

BASE = Path(__file__).parent.parent / 'configs' / 'base.py'
SIZES = (37, 16, 64, 41)  # of documents; none is a multiple of all lengths
# Each protocol as (nll, documents, length, batch_tokens) -> arrays of nats of tokens.
PROTOCOLS = {
  'non_overlapping': lambda nll, documents, length, size: protocols.sliding(
    nll, documents, length, length, size
  ),
  'sliding': lambda nll, documents, length, size: protocols.sliding(
    nll, documents, length, max(1, length // 3), size
  ),
  'last_k': lambda nll, documents, length, size: protocols.last_k(
    nll,
    protocols.target_windows(
      documents, protocols.choose_targets(list(map(len, documents)), length, 2), length
    ),
    length,
    min(4, length),
    size,
  ),
  'by_position': lambda nll, documents, length, size: protocols.by_position(
    nll, protocols.whole_windows(documents, length), size
  ),
}


def state(prefix):
  """A number of everything before and at a token, so that no other context gives the same."""
  value = 1
  for token in prefix:
    value = (value * 31 + int(token)) % 10007
  return value / 64  # exact in floating point, and so are sums of a few thousand


class Stub:
  """A causal model in loops that says NaN of padding: a leak of it into a score shows."""

  def __init__(self):
    self.calls = []

  def __call__(self, tokens_BT):
    self.calls.append(tokens_BT)
    nats_BT = np.full(tokens_BT.shape, np.nan, np.float32)
    for b, row in enumerate(tokens_BT):
      for t in range(len(row)):
        if row[t] > 0:
          nats_BT[b, t] = state(row[: t + 1])
    return nats_BT

  def windows(self):
    return [row[row > 0] for tokens_BT in self.calls for row in tokens_BT if row.any()]


@pytest.fixture
def documents():
  """No token is 0, which pads; the tokens of document d are d * 64 + 1 and up, none twice."""
  return [np.arange(size) + 64 * d + 1 for d, size in enumerate(SIZES)]


def same(found, expected):
  """Lists of arrays that are equal bit for bit."""
  found, expected = list(found), list(expected)
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b, strict=False)


@pytest.mark.parametrize('length', [1, 5, 16, 64, 100])
@pytest.mark.parametrize('batch_tokens', [1, 64, 1000])
def test_non_overlapping_is_brute_force_at_any_batch_size(documents, length, batch_tokens):
  stub = Stub()
  found = list(protocols.sliding(stub, documents, length, length, batch_tokens))
  same(found, [[state(doc[t - t % length : t + 1]) for t in range(len(doc))] for doc in documents])
  assert {call.shape for call in stub.calls} == {(max(1, batch_tokens // length), length)}
  scored = np.concatenate(stub.windows())
  # Every token is scored once, in windows of one document each.
  np.testing.assert_array_equal(scored, np.concatenate(documents))
  assert all(len(set((window - 1) // 64)) == 1 for window in stub.windows())


@pytest.mark.parametrize(
  ('length', 'stride'), [(5, 1), (5, 2), (5, 4), (16, 1), (16, 5), (16, 16), (30, 29), (100, 7)]
)
@pytest.mark.parametrize('batch_tokens', [1, 100])
def test_sliding_scores_every_token_once_with_the_context_that_is_said(
  documents, length, stride, batch_tokens
):
  """Window n ends at length + n stride; a token belongs to the first window that reaches it."""
  stub = Stub()
  expected = []
  for doc in documents:
    windows = [max(0, -(-(t + 1 - length) // stride)) for t in range(len(doc))]
    context = [t - n * stride for t, n in enumerate(windows)]
    assert all(min(t, length - stride) <= before < length for t, before in enumerate(context))
    expected.append([state(doc[t - before : t + 1]) for t, before in enumerate(context)])
  same(protocols.sliding(stub, documents, length, stride, batch_tokens), expected)
  assert all(len(set((window - 1) // 64)) == 1 for window in stub.windows())
  if stride == 1:  # all the context that fits
    same(
      expected,
      [[state(doc[max(0, t + 1 - length) : t + 1]) for t in range(len(doc))] for doc in documents],
    )


@pytest.mark.parametrize('spans', [1, 3])
@pytest.mark.parametrize('batch_tokens', [1, 64, 1000])
def test_last_k_is_brute_force_and_scores_the_same_tokens_at_every_length(
  documents, spans, batch_tokens
):
  k, lengths = 4, (4, 7, 16)
  targets = protocols.choose_targets(SIZES, max(lengths), spans)
  seen = []
  for length in lengths:
    stub = Stub()
    found = protocols.last_k(
      stub, protocols.target_windows(documents, targets, length), length, k, batch_tokens
    )
    same(
      found,
      [
        [state(documents[d][end - length : t + 1]) for t in range(end - k, end)]
        for d, end in targets
      ],
    )
    assert {call.shape for call in stub.calls} == {(max(1, batch_tokens // length), length)}
    assert all(len(window) == length for window in stub.windows())
    seen.append([window[-k:].tolist() for window in stub.windows()])
  assert seen[0] == seen[1] == seen[2]
  assert len(seen[0]) == spans * len(SIZES)


@pytest.mark.parametrize('near', [1, 6, 15, 16, 20])
def test_far_tokens_are_those_of_the_next_document(documents, near):
  targets = protocols.choose_targets(SIZES, 16, 2)
  plain = list(protocols.target_windows(documents, targets, 16))
  windows = list(protocols.target_windows(documents, targets, 16, near))
  far = max(16 - near, 0)
  for (document, _), window, own in zip(targets, windows, plain, strict=True):
    np.testing.assert_array_equal(window[far:], own[far:])
    other = (document + 1) % len(SIZES)
    start = (SIZES[other] - far) // 2
    np.testing.assert_array_equal(window[:far], documents[other][start : start + far])
  same(protocols.target_windows(documents, targets, 16, near), windows)  # no draw


def test_by_position_scores_whole_windows_alone(documents):
  windows_NT = protocols.whole_windows(documents, 16)
  assert windows_NT.shape == (2 + 1 + 4 + 2, 16)
  np.testing.assert_array_equal(windows_NT[-1], documents[3][16:32])
  expected = [[state(window[: t + 1]) for t in range(16)] for window in windows_NT]
  for batch_tokens in (1, 50):
    np.testing.assert_array_equal(protocols.by_position(Stub(), windows_NT, batch_tokens), expected)
  # Documents that are shorter than the window are left out.
  assert len(protocols.whole_windows(documents, 41)) == 2
  with pytest.raises(ValueError, match='no document has length=65'):
    protocols.whole_windows(documents, 65)


@pytest.mark.parametrize('stop', [1, 2, 3, 5, 16, 23, 24, 25, 1000])
def test_bins_cover_all_positions_two_an_octave(stop):
  bins = protocols.log_bins(stop)
  assert [i for first, end in bins for i in range(first, end)] == list(range(stop))
  assert [first for first, _ in bins] == [
    n for n in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96) if n < stop
  ] + [n for n in (128, 192, 256, 384, 512, 768) if n < stop]


@pytest.mark.parametrize('batch_tokens', [1, 64])
def test_receptive_field_is_the_share_of_each_distance_without_bos(documents, batch_tokens):
  windows = list(protocols.target_windows(documents, protocols.choose_targets(SIZES, 5, 1), 5))
  found = protocols.receptive_field(Stub(), windows, 5, batch_tokens)
  for share_R, window in zip(found, windows, strict=True):
    norms = [state(window[: t + 1]) for t in (4, 3, 2, 1)]  # of inputs; input 0 is BOS
    np.testing.assert_allclose(share_R, np.array(norms) / sum(norms), rtol=1e-15)


@pytest.mark.parametrize('name', PROTOCOLS)
@pytest.mark.parametrize('length', [1, 4, 16])
def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(documents, name, length):
  uniform = lambda tokens_BT: np.full(tokens_BT.shape, np.log(256), np.float32)
  nats = np.concatenate(
    [np.ravel(part) for part in PROTOCOLS[name](uniform, documents, length, 50)]
  )
  assert np.exp(nats.sum() / nats.size) == pytest.approx(256, rel=1e-6)


@pytest.mark.parametrize('name', PROTOCOLS)
def test_batch_size_and_order_of_documents_change_no_number(documents, name):
  expected = list(PROTOCOLS[name](Stub(), documents, 7, 7))
  for batch_tokens in (1, 14, 100, 10_000):
    same(PROTOCOLS[name](Stub(), documents, 7, batch_tokens), expected)
  turned = list(PROTOCOLS[name](Stub(), documents[::-1], 7, 100))
  assert sorted(np.concatenate(turned)) == sorted(np.concatenate(expected))


@pytest.mark.parametrize('spans', [1, 2, 7])
@pytest.mark.parametrize('longest', [1, 16])
def test_targets_are_spread_evenly_over_what_has_enough_before_it(spans, longest):
  for index, size in enumerate((16, 17, 64, 1000)):
    ends = [
      end for d, end in protocols.choose_targets((16, 17, 64, 1000), longest, spans) if d == index
    ]
    assert len(ends) == spans
    assert all(longest <= end <= size for end in ends)
    np.testing.assert_allclose(
      np.diff([2 * longest - ends[0], *ends]), (size - longest) / spans, atol=2
    )
    assert abs((ends[0] - longest) - (size - ends[-1])) <= 2


@pytest.mark.parametrize(
  'refused',
  [
    lambda documents: protocols.last_k(Stub(), [], 4, 5, 64),
    lambda documents: list(protocols.target_windows(documents, [(0, 7)], 8)),
    # The next document has 16 tokens.
    lambda documents: list(protocols.target_windows(documents, [(0, 37)], 37, near=1)),
    lambda documents: list(protocols.target_windows(documents[:1], [(0, 16)], 8, near=1)),
    lambda documents: list(protocols.sliding(Stub(), documents, 8, 9, 64)),
    lambda documents: list(protocols.sliding(Stub(), documents, 8, 0, 64)),
  ],
)
def test_what_cannot_be_scored_is_refused(documents, refused):
  with pytest.raises(ValueError, match=r'allowed: (at|1 to|2 or)'):
    refused(documents)


# Tests with a real model.


# The other protocols are measured in test_long_ppl.py and test_attention_weights.py.
PLAIN = ('last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field')
TINY = {
  'model.layers': 2,
  'model.model_dim': 16,
  'model.heads': 2,
  'model.head_dim': 8,
  'model.mlp_dim': 32,
  'train.length': 16,
  'train.steps': 3,
  'optim.warmup': 1,
  'eval.lengths': (16, 32),
  'eval.k': 8,
  'eval.documents': 3,
  'eval.document_tokens': 40,
  'eval.batch_tokens': 64,
}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus') / 'test'
  folder.mkdir()
  letters = np.random.default_rng(0)
  for name, size in (('a', 90), ('b', 20), ('c', 33), ('d', 50), ('e', 70)):
    (folder / f'{name}.txt').write_bytes(letters.integers(97, 123, size, np.uint8).tobytes())
  return str(folder.parent)


@pytest.fixture
def run(corpus, tmp_path):
  """The directory of a run as a training leaves it, and (overrides) -> config."""

  def make(step=3, **overrides):
    overrides = {path.replace('__', '.'): value for path, value in overrides.items()}
    c = config.load(BASE, {**TINY, 'data.corpus': corpus, **overrides})
    workdir = tmp_path / 'run'
    model = build(c, data.VOCAB, nnx.Rngs(0))
    workdirs.claim_run_dir(workdir, c)
    with Checkpoints(workdir, max_to_keep=1) as checkpoints:
      checkpoints.save(step, model, {'count': jnp.array(step)})
    return c, workdir, model

  return make


def rows_of(workdir):
  return [json.loads(line) for line in (workdir / 'eval.jsonl').read_text().splitlines()]


def overlaid(c, **overrides):
  other = config.from_json(config.to_json(c))
  config.overlay(other, {path.replace('__', '.'): value for path, value in overrides.items()})
  return other


def test_rows_are_what_the_model_says(run, monkeypatch, capsys):
  everything = {'eval.protocols': PLAIN, 'eval.controls': tuple(config.CONTROLS), 'eval.stride': 5}
  c, workdir, model = run(**everything)
  evaluate.evaluate(c, workdir)
  rows = rows_of(workdir)
  texts = dict(plan.choose_documents(c, data.source(c.data, c.eval.split)))
  assert list(texts) == ['a.txt', 'c.txt', 'd.txt']  # the first three of at least 32 tokens
  bins = {16: (0, 1, 2, 3, 4, 6, 8, 12, 16), 32: (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)}
  found = [
    (r['protocol'], r['control'], r['length'], r['stride'], r['k'], r['document']) for r in rows
  ]
  asked = [
    (protocol, control, length, stride, k, document)
    for protocol, control, stride, k in (
      ('non_overlapping', None, None, None),
      ('sliding', None, 5, None),
      ('last_k', None, None, 8),
      ('last_k', 'windowed', None, 8),
      ('last_k', 'shuffled_far', None, 8),
    )
    for length in (16, 32)
    for document in texts
  ]
  # A window has one input fewer without BOS.
  for protocol, control, beyond in (
    ('by_position', None, 0),
    ('by_position', 'windowed', 0),
    ('receptive_field', None, 1),
  ):
    asked += [
      (protocol, control, n, None, None, None)
      for n in (16, 32)
      for at in bins[n][:-1]
      if at < n - beyond
    ]
  assert sorted(map(str, found)) == sorted(map(str, asked))

  nll = jax.jit(token_nll, static_argnames='window')
  norms = model_functions.compiled(model_functions.gradient_norms, c)

  def windows(r):
    """(tokens, the slice of them that is scored) of all windows of a row."""
    W, text = r['length'], texts.get(r['document'], np.array([]))[:40]
    if r['protocol'] == 'non_overlapping':
      return [(text[at : at + W], slice(None)) for at in range(0, len(text), W)]
    if r['protocol'] == 'sliding':
      firsts = range(0, len(text), 5)
      return [
        (text[at : at + W], slice(W - 5 if at else 0, None))
        for at in firsts
        if at == 0 or at + W - 5 < len(text)
      ]
    if r['protocol'] == 'by_position':
      end = bins[W][bins[W].index(r['position']) + 1]
      firsts = range(0, 40 - W + 1, W)
      return [
        (t[:40][at : at + W], slice(r['position'], end))
        for t in texts.values()
        for at in firsts
        if at + W <= len(t)
      ]
    end = r['position'] + 8
    window = texts[r['document']][end - W : end]
    if r['control'] == 'shuffled_far' and W == 32:
      other = texts[{'a.txt': 'c.txt', 'c.txt': 'd.txt', 'd.txt': 'a.txt'}[r['document']]]
      at = (len(other) - 8) // 2
      window = np.concatenate([other[at : at + 8], window[8:]])
    return [(window, slice(-8, None))]

  for r in rows:
    assert (r['status'], r['overrides'], r['step'], r['run'], r['train_length']) == (
      'ok',
      None,
      3,
      'run',
      16,
    )
    if r['protocol'] == 'receptive_field':
      continue
    window = 16 if r['control'] == 'windowed' else None
    nats = []
    for tokens_T, scored in windows(r):
      # All windows are padded to one shape, so that jit compiles once.
      tokens_BT = np.pad(tokens_T, (0, 32 - len(tokens_T)), constant_values=7).astype(np.int32)[
        None
      ]
      nats.append(
        np.asarray(nll(model, tokens_BT, window=window)[0], np.float64)[: len(tokens_T)][scored]
      )
    assert r['nats'] == pytest.approx(np.concatenate(nats).sum(), rel=1e-5)
    assert r['tokens'] == r['bytes'] == len(np.concatenate(nats))
  for length in (16, 32):
    shares = []
    for document, end in protocols.choose_targets(list(map(len, texts.values())), 32, 1):
      window = list(texts.values())[document][end - length : end]
      norm_T = np.asarray(norms(model, jnp.array(window, jnp.int32)[None])[0], np.float64)
      shares.append(norm_T[:0:-1] / norm_T[1:].sum())
    found = [
      (r['position'], r['value'])
      for r in rows
      if (r['protocol'], r['length']) == ('receptive_field', length)
    ]
    firsts = [first for first, _ in found]
    assert [value for _, value in found] == pytest.approx(
      np.add.reduceat(np.mean(shares, axis=0), firsts), rel=1e-4
    )
    assert sum(value for _, value in found) == pytest.approx(1)
  by_control = {
    key: [r['nats'] for r in rows if (r['control'], r['length'], r['k']) == (*key, 8)]
    for key in [(control, length) for control in (None, *config.CONTROLS) for length in (16, 32)]
  }
  assert by_control[None, 16] == by_control['windowed', 16] == by_control['shuffled_far', 16]
  assert by_control[None, 32] != by_control['windowed', 32]
  assert by_control[None, 32] != by_control['shuffled_far', 32] != by_control['windowed', 32]
  assert storage.read_json(workdir / 'finished.json') == {'config_hash': config.config_hash(c)}
  assert 'of the gradient reaches' in capsys.readouterr().out

  # Rows that are there are not measured again, and missing rows come out the same.
  whole = (workdir / 'eval.jsonl').read_bytes()
  with monkeypatch.context() as patch:
    patch.setattr(evaluate, 'compiled', lambda function, config: lambda *_, **__: 1 / 0)
    evaluate.evaluate(c, workdir)
  assert (workdir / 'eval.jsonl').read_bytes() == whole
  assert 'last_k windowed' in capsys.readouterr().out  # the table, again
  lines = whole.splitlines(keepends=True)
  (workdir / 'finished.json').unlink()
  # The file of a process that was killed while it wrote a row.
  (workdir / 'eval.jsonl').write_bytes(b''.join(lines[1::2]) + lines[0][:20])
  evaluate.evaluate(c, workdir)
  again = (workdir / 'eval.jsonl').read_bytes()
  assert again.startswith(b''.join(lines[1::2]))
  assert sorted(again.splitlines()) == sorted(whole.splitlines())
  assert (workdir / 'finished.json').exists()


def test_the_row_schema_describes_every_field():
  described = re.findall(r'^  (\w+)  ', row_schema.__doc__, re.MULTILINE)
  assert described == [*row_schema.KEY, *row_schema.VALUES]
  fields = dict.fromkeys(set(row_schema.KEY) - set(row_schema.NULLABLE), 1)
  assert list(row_schema.row(**fields, status='asked')) == described
  for wrong in ({'lengths': 1}, {'ppl': 1.0}):
    with pytest.raises(TypeError, match=f'unknown fields.*{next(iter(wrong))}'):
      row_schema.row(**fields, **wrong, status='asked')
  with pytest.raises(TypeError, match=r"missing .*'seed'"):
    row_schema.row(**{name: 1 for name in fields if name != 'seed'}, status='asked')


WHEEL = """
import sys
import posenc_jax
from posenc_jax.evaluation.evaluate import evaluate_run
assert posenc_jax.__file__.startswith(sys.argv[1]), posenc_jax.__file__
evaluate_run(sys.argv[2], {'eval.k': 4})
"""


def test_an_installed_package_evaluates_without_files_of_a_clone(run, tmp_path):
  _, workdir, _ = run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  site = tmp_path / 'site-packages'
  ignored = shutil.ignore_patterns('__pycache__')
  shutil.copytree(BASE.parents[1] / 'posenc_jax', site / 'posenc_jax', ignore=ignored)
  command = [sys.executable, '-c', WHEEL, str(site), str(workdir)]
  environment = {**os.environ, 'PYTHONPATH': str(site)}
  process = subprocess.run(
    command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert process.returncode == 0, process.stderr
  assert [(r['k'], r['status']) for r in rows_of(workdir)] == [(4, 'ok')] * 3


def test_beyond_a_learned_table_is_an_outcome(run, capsys):
  c, workdir, _ = run(encoding__name='learned')
  evaluate.evaluate(c, workdir)
  for r in rows_of(workdir):
    beyond = r['length'] > 16
    assert r['status'] == ('beyond_table' if beyond else 'ok')
    assert all((r[name] is None) == beyond for name in ('nats', 'tokens', 'bytes', 'ppl', 'bpb'))
  assert {r['control'] for r in rows_of(workdir) if r['status'] != 'ok'} == {None, 'windowed'}
  assert 'beyond_table' in capsys.readouterr().out


def test_an_unfinished_training_is_measured_but_not_called_finished(run, capsys):
  c, workdir, _ = run(step=2, eval__protocols=('non_overlapping',), eval__lengths=(16,))
  evaluate.evaluate(c, workdir)
  assert {r['step'] for r in rows_of(workdir)} == {2}
  assert 'evaluating step 2; its training ends at step 3' in capsys.readouterr().out
  assert not (workdir / 'finished.json').exists()


@pytest.mark.parametrize(
  ('overrides', 'recorded'),
  [
    (
      {
        'eval.k': 4,
        'eval.protocols': ('last_k',),
        'eval.batch_tokens': 9,
        'label': 'x',
        'eval.split': 'train',
      },
      {},
    ),
    ({'eval.stride': 7, 'eval.controls': ()}, {}),
    ({'eval.lengths': (8, 32)}, {}),
    ({'eval.lengths': (16, 64)}, {'max(eval.lengths)': 64}),
    ({'eval.documents': 2}, {'eval.documents': 2}),
    ({'eval.document_tokens': 20}, {'eval.document_tokens': 20}),
    ({'mesh.data': 2, 'launch.partition': 'gpu', 'data.cache': 'x'}, {}),
    ({'train.trackers': ('wandb',), 'train.profile_steps': (1, 2)}, {}),
    ({'encoding.base': 5e5, 'attention.window': 8}, {'encoding.base': 5e5, 'attention.window': 8}),
  ],
)
def test_rows_say_what_evaluation_changes(overrides, recorded):
  saved = config.load(BASE, TINY)
  assert plan.overrides(saved, overlaid(saved)) == {}
  assert plan.overrides(saved, overlaid(saved, **overrides)) == recorded


@pytest.mark.parametrize('path', ['seed', 'train.length', 'optim.clip'])
def test_what_was_trained_in_cannot_be_changed(path):
  saved = config.load(BASE, TINY)
  with pytest.raises(UserError, match=f'config.{path}=9.*: the run was trained with'):
    plan.overrides(saved, overlaid(saved, **{path: 9}))


def test_rows_that_are_damaged_are_one_line(run):
  c, workdir, _ = run(eval__protocols=('non_overlapping',), eval__lengths=(16,))
  (workdir / 'eval.jsonl').write_text('{"torn\n{}\n')
  with pytest.raises(UserError, match=r'eval\.jsonl:1: the line is damaged: it is no JSON'):
    evaluate.evaluate(c, workdir)


def test_rows_of_another_evaluation_stand_beside_the_first(run):
  c, workdir, _ = run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  evaluate.evaluate(c, workdir)
  first = rows_of(workdir)
  other = overlaid(c, encoding__base=50.0, eval__k=4)
  evaluate.evaluate(other, workdir)
  rows = rows_of(workdir)
  assert rows[: len(first)] == first
  assert [r['overrides'] for r in rows[len(first) :]] == [{'encoding.base': 50.0}] * len(first)
  assert {r['k'] for r in rows[len(first) :]} == {4}
  assert storage.read_json(workdir / 'finished.json') == {'config_hash': config.config_hash(other)}


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (
      {'eval.lengths': (16, 91)},
      r'config.eval.lengths=\(16, 91\): no documents .* have 91 tokens; allowed: at most 90',
    ),
    (
      {'eval.documents': 5},
      r'config.eval.documents=5: only 4 documents .* have 32 tokens; allowed: 1 to 4, or 0',
    ),
    ({'eval.split': 'validation'}, "no split 'validation'"),
    ({'eval.protocols': ('slidng',)}, "config.eval.protocols=.*'slidng'.*did you mean 'sliding'"),
    ({'eval.controls': ('window',)}, "config.eval.controls=.*'window'.*did you mean 'windowed'"),
    ({'eval.controls': ('windowed',) * 2}, 'config.eval.controls=.*none twice'),
    (
      {'eval.controls': ('shuffled_far',), 'eval.documents': 1},
      'config.eval.documents=1; allowed: 2 or more for',
    ),
    (
      {'eval.controls': ('shuffled_far',), 'eval.documents': 0, 'eval.lengths': (16, 90)},
      r"config.eval.controls=\('shuffled_far',\): only 1 of the documents .* have 90 tokens; "
      'allowed: without',
    ),
    ({'eval.stride': 0}, 'config.eval.stride=0; allowed: 1 or more'),
    (
      {'eval.protocols': ('sliding',), 'eval.stride': 17},
      r'config.eval.stride=17; .* shortest of eval.lengths=\(16, 32',
    ),
    ({'eval.k': 17}, r'config.eval.k=17; allowed: at most the shortest of eval.lengths=\(16, 32\)'),
    (
      {'eval.protocols': ('by_position',), 'eval.document_tokens': 20},
      'config.eval.document_tokens=20; '
      r'allowed: 32 or more for whole windows \(by_position\), or 0',
    ),
    (
      {'eval.protocols': ('receptive_field',), 'eval.k': 1, 'eval.lengths': (1, 16)},
      r'config.eval.lengths=\(1, 16\); allowed: 2 or more tokens each for receptive_field',
    ),
    ({'encoding.name': 'ropee'}, r"encoding.name='ropee'.*rope"),
    ({'encoding.bas': 3}, "no hyperparameter 'bas'"),
    ({'attention.backend': 'dens'}, "attention.backend='dens'.*dense"),
    ({'attention.backend': 'cudnn'}, 'backend cudnn: '),
    ({'model.mlp_dim': 8}, r'of shape \(2, 16, 32\), but the config asks for \(2, 16, 8\)'),
  ],
)
def test_bad_input_is_one_line_and_leaves_no_row(run, overrides, words):
  c, workdir, _ = run()
  with pytest.raises(UserError, match=words) as error:
    evaluate.evaluate(overlaid(c, **overrides), workdir)
  assert '\n' not in str(error.value)
  assert not (workdir / 'eval.jsonl').exists() or not rows_of(workdir)


@pytest.mark.parametrize(('backend', 'window'), [('dense', 3), ('blockwise', None)])
def test_gradients_by_input_are_those_of_the_embedding_table(backend, window):
  """Where all tokens differ, each row of the table's gradient belongs to one input."""
  overrides = {
    'attention.backend': backend,
    'attention.block_sizes': (4, 4),
    'model.tie_embeddings': False,
  }
  c = config.load(BASE, {**TINY, **overrides})
  model = build(c, data.VOCAB, nnx.Rngs(0))
  tokens_BT = jnp.asarray(np.random.default_rng(0).permutation(256)[:22].reshape(2, 11), jnp.int32)
  nll = model_functions.compiled(token_nll, c)
  norms = model_functions.compiled(model_functions.gradient_norms, c)
  last = lambda model, tokens_T: nll(model, tokens_T[None], window=window)[0, -1]
  table_BVD = jax.jit(jax.vmap(lambda tokens_T: jax.grad(last)(model, tokens_T).embedding[...]))(
    tokens_BT
  )
  norms_BT = norms(model, tokens_BT, window=window)
  for norms_T, table_VD, tokens_T in zip(
    norms_BT, np.asarray(table_BVD), tokens_BT.tolist(), strict=True
  ):
    inputs = [256, *tokens_T[:-1]]  # BOS
    expected_T = np.linalg.norm(table_VD[inputs], axis=1) / TINY['model.model_dim'] ** 0.5
    np.testing.assert_allclose(norms_T, expected_T, rtol=1e-4, atol=1e-9)
    reached = 5 if window else 11  # two layers of three tokens
    assert np.all(expected_T[-reached:] > 0)
    assert not np.any(expected_T[:-reached])


def test_no_run_there(tmp_path, corpus):
  c = config.load(BASE, {**TINY, 'data.corpus': corpus})
  with pytest.raises(UserError, match=r'no config\.json'):
    evaluate.evaluate(c, tmp_path)
  workdirs.claim_run_dir(tmp_path, c)
  with pytest.raises(UserError, match='no checkpoint'):
    evaluate.evaluate(c, tmp_path)
  assert not (tmp_path / 'checkpoints').exists()
