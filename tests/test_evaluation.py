"""Evaluation: protocols against brute force over a stub model, then rows of a real one."""

import contextlib
import functools
import io
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from compiled_models import unrolls
from flax import nnx
from kinds import in_ci
from small_runs import BASE, MODEL, SIZES, dotted, write_text_corpus

from posenc_jax import config, data, storage, tasks
from posenc_jax.attention import BACKENDS
from posenc_jax.data import planted, sotu
from posenc_jax.data.documents import SPLITS, Listing
from posenc_jax.encodings import ENCODINGS
from posenc_jax.errors import Stopped, UserError
from posenc_jax.evaluation import (
  evaluate,
  model_functions,
  plan,
  preflight,
  runs,
  whole_windows,
  windows,
)
from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.model.decoder import build, shapes
from posenc_jax.model.token_nll import token_nll
from posenc_jax.protocols import CONTROLS, TEXT_TASKS
from posenc_jax.reporting import row_files
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.rows import row_schema, sessions
from posenc_jax.rows.overrides import DOCUMENTS, overrides_between, overrides_of
from posenc_jax.training import provenance
from posenc_jax.training import run_dir as workdirs
from posenc_jax.training.built_in import built_in_values, check_built_in
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path


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
  found = list(windows.sliding(stub, documents, length, length, batch_tokens))
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
    numbers = [max(0, -(-(t + 1 - length) // stride)) for t in range(len(doc))]
    context = [t - n * stride for t, n in enumerate(numbers)]
    assert all(min(t, length - stride) <= before < length for t, before in enumerate(context))
    expected.append([state(doc[t - before : t + 1]) for t, before in enumerate(context)])
  same(windows.sliding(stub, documents, length, stride, batch_tokens), expected)
  assert all(len(set((window - 1) // 64)) == 1 for window in stub.windows())
  of_last = lambda tokens_BT, last=length: stub(tokens_BT)[:, length - last :]
  of_all = lambda tokens_BT, **_: stub(tokens_BT)  # as an n-gram, to which they cost nothing
  for nll in (of_last, of_all):
    same(windows.sliding(nll, documents, length, stride, batch_tokens, True), expected)
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
  targets = windows.choose_targets(SIZES, max(lengths), spans, 1)
  seen = []
  for length in lengths:
    stub = Stub()
    found = windows.last_k(
      stub, windows.target_windows(documents, targets, length), length, k, batch_tokens
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
  assert len(seen[0]) == spans * (len(SIZES) - 1) + 1  # one document has 16 tokens


@pytest.mark.parametrize('near', [1, 6, 15, 16, 20])
def test_far_tokens_are_those_of_another_document(documents, near):
  targets = windows.choose_targets(SIZES, 16, 2, 1)
  others = [2, 0, 3, 1]
  plain = list(windows.target_windows(documents, targets, 16))
  shuffled = list(windows.target_windows(documents, targets, 16, near, others))
  far = max(16 - near, 0)
  for (document, _), window, own in zip(targets, shuffled, plain, strict=True):
    np.testing.assert_array_equal(window[far:], own[far:])
    other = others[document]
    start = (SIZES[other] - far) // 2
    np.testing.assert_array_equal(window[:far], documents[other][start : start + far])
  same(windows.target_windows(documents, targets, 16, near, others), shuffled)  # no draw


def test_the_other_document_is_the_next_one_of_another_folder():
  assert windows.next_of_other_folder(['a', 'a', 'b', 'c', 'a']) == [2, 2, 3, 4, 2]


def test_by_position_scores_whole_windows_alone(documents):
  windows_WT = windows.whole_windows(documents, 16)
  assert windows_WT.shape == (2 + 1 + 4 + 2, 16)
  np.testing.assert_array_equal(windows_WT[-1], documents[3][16:32])
  expected = [[state(window[: t + 1]) for t in range(16)] for window in windows_WT]
  for batch_tokens in (1, 50):
    np.testing.assert_array_equal(windows.by_position(Stub(), windows_WT, batch_tokens), expected)
  # Documents that are shorter than the window are left out.
  assert len(windows.whole_windows(documents, 41)) == 2
  with pytest.raises(ValueError, match='no document has length=65'):
    windows.whole_windows(documents, 65)


@pytest.mark.parametrize('context', [1, 2, 5, 6, 16, 41])
def test_truncated_by_position_is_brute_force_with_half_to_all_of_the_context(documents, context):
  """Each token by itself, from the first window that reaches it."""
  windows_WT = windows.whole_windows(documents, 37)
  stride = max(1, context // 2)
  starts = [max(0, -(-(t + 1 - context) // stride) * stride) for t in range(37)]
  assert all(context - stride <= t - s < context for t, s in enumerate(starts) if t >= context)
  expected = [[state(window[s : t + 1]) for t, s in enumerate(starts)] for window in windows_WT]
  for batch_tokens in (1, 100):
    found = windows.truncated_by_position(Stub(), windows_WT, context, batch_tokens)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('stop', [1, 2, 3, 5, 16, 23, 24, 25, 1000])
def test_bins_cover_all_positions_two_an_octave(stop):
  bins = windows.log_bins(stop)
  assert [i for first, end in bins for i in range(first, end)] == list(range(stop))
  assert [first for first, _ in bins] == [
    n for n in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96) if n < stop
  ] + [n for n in (128, 192, 256, 384, 512, 768) if n < stop]


@pytest.mark.parametrize('batch_tokens', [1, 64])
def test_receptive_field_is_the_share_of_each_distance_without_bos(documents, batch_tokens):
  at_targets = list(windows.target_windows(documents, windows.choose_targets(SIZES, 5, 1, 1), 5))
  found = windows.receptive_field(Stub(), at_targets, 5, batch_tokens)
  for share_R, window in zip(found, at_targets, strict=True):
    norms = [state(window[: t + 1]) for t in (4, 3, 2, 1)]  # of inputs; input 0 is BOS
    np.testing.assert_allclose(share_R, np.array(norms) / sum(norms), rtol=1e-15)


@pytest.mark.parametrize('spans', [1, 2, 7])
@pytest.mark.parametrize('longest', [1, 16])
def test_targets_are_spread_evenly_over_what_has_enough_before_it(spans, longest):
  sizes = (16 + 7, 64, 1000)
  for index, size in enumerate(sizes):
    targets = windows.choose_targets(sizes, longest, spans, 1)
    ends = [end for d, end in targets if d == index]
    assert len(ends) == spans
    assert all(longest <= end <= size for end in ends)
    np.testing.assert_allclose(
      np.diff([2 * longest - ends[0], *ends]), (size - longest) / spans, atol=2
    )
    assert abs((ends[0] - longest) - (size - ends[-1])) <= 2


@pytest.mark.parametrize('apart', [1, 5, 64])
def test_targets_do_not_overlap_and_each_document_has_one(apart):
  sizes = range(16, 400, 7)
  targets = windows.choose_targets(sizes, 16, 8, apart)
  for index, size in enumerate(sizes):
    ends = [end for d, end in targets if d == index]
    assert len(ends) == max(1, min(8, (size - 16) // apart))
    assert all(np.diff(ends) >= apart)
    assert all(16 <= end <= size for end in ends)


@pytest.mark.parametrize('count', [1, 2, 7, 49])
def test_an_even_spread_takes_the_middle_of_equal_parts(count):
  for chosen in range(1, count + 1):
    numbers = windows.spread_evenly(count, chosen)
    for part, number in enumerate(numbers):
      assert abs(number + 0.5 - (part + 0.5) * count / chosen) <= 0.5
    mirrored = [count - 1 - number for number in reversed(numbers)]
    assert all(abs(a - b) <= 1 for a, b in zip(numbers, mirrored, strict=True))
  assert numbers == list(range(count))
  assert windows.spread_evenly(5, 1) == [2]


def test_an_excerpt_is_the_middle_of_a_document(documents):
  same([windows.excerpt(documents[0], 5)], [documents[0][16:21]])
  for tokens in (0, 37, 1000):
    same([windows.excerpt(documents[0], tokens)], [documents[0]])


@pytest.mark.parametrize(
  'refused',
  [
    lambda documents: windows.last_k(Stub(), [], 4, 5, 64),
    lambda documents: list(windows.target_windows(documents, [(0, 7)], 8)),
    # The other document has 16 tokens.
    lambda documents: list(windows.target_windows(documents, [(0, 37)], 37, 1, [1, 2, 3, 0])),
    lambda documents: list(windows.sliding(Stub(), documents, 8, 9, 64)),
    lambda documents: list(windows.sliding(Stub(), documents, 8, 0, 64)),
  ],
)
def test_what_cannot_be_scored_is_refused(documents, refused):
  with pytest.raises(ValueError, match=r'allowed: (at|1 to|2 or)'):
    refused(documents)


# Tests with a real model.


# The other protocols are measured in test_long_ppl.py and test_attention_weights.py.
PLAIN = ('last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field')
TINY = {
  **MODEL,
  'model.layers': 2,
  'train.length': 16,
  'train.steps': 3,
  'optim.warmup': 1,
  'eval.lengths': (16, 32),
  'eval.k': 8,
  'eval.target_context': 32,
  'eval.spans': 2,
  'eval.documents': 3,
  'eval.document_tokens': 40,
  'eval.batch_tokens': 64,
}


@pytest.fixture(scope='module')
def unevaluated(letters, tmp_path_factory):
  """A run that no test evaluates: (config, directory, model)."""
  return made_run(tmp_path_factory.mktemp('unevaluated') / 'run', letters, {})


def made_run(workdir, corpus, overrides, step=3):
  c = config.load(BASE, {**TINY, 'data.corpus': corpus, **overrides})
  model = build(c, data.vocab(c.data), nnx.Rngs(0))
  workdirs.claim_run_dir(workdir, c)
  with Checkpoints(workdir, max_to_keep=1) as checkpoints:
    checkpoints.save(step, model, {'count': jnp.array(step)})
  return c, workdir, model


def rows_of(workdir):
  return [json.loads(line) for line in (workdir / 'eval.jsonl').read_text().splitlines()]


def chosen_documents(c):
  """{name: tokens_T} of the documents that an evaluation takes."""
  corpus = data.opened(c.data, c.eval.split)
  return {corpus.names[i]: corpus.tokens[i] for i in plan.choose_indices(c, corpus)}


def overlaid(c, **overrides):
  other = config.from_json(config.to_json(c))
  config.overlay(other, dotted(overrides))
  return other


BINS = {16: (0, 1, 2, 3, 4, 6, 8, 12, 16), 32: (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)}


def test_an_earlier_checkpoint_is_measured_beside_the_last(letters, tmp_path, capsys):
  short = {'eval.protocols': ('last_k',), 'eval.controls': (), 'eval.lengths': (16,)}
  c, workdir, _ = made_run(tmp_path / 'run', letters, {'train.steps': 7, **short})
  later = build(c, data.VOCAB, nnx.Rngs(1))
  with Checkpoints(workdir, max_to_keep=2) as checkpoints:
    checkpoints.save(7, later, {'count': jnp.array(7)})
  evaluate.evaluate(c, workdir, at=3)
  assert not (workdir / 'finished.json').exists()  # the last step is not measured
  assert 'its training ends' not in capsys.readouterr().err  # that is not news
  evaluate.evaluate(c, workdir)
  nats = {step: [r['nats'] for r in rows_of(workdir) if r['step'] == step] for step in (3, 7)}
  alone = made_run(tmp_path / 'alone', letters, {'train.steps': 7, **short})[1]
  evaluate.evaluate(c, alone)
  assert nats[3] == [r['nats'] for r in rows_of(alone)]  # what a run that ends there has
  assert len(nats[7]) == len(nats[3])
  assert nats[7] != nats[3]
  loaded, tokens_BT = (
    [runs.load_run(workdir, step=step) for step in (3, 7)],
    np.arange(97, 105)[None],
  )
  assert [run.step for run in loaded] == [3, runs.load_run(workdir).step]
  assert len({np.asarray(run.nats(tokens_BT)).tobytes() for run in loaded}) == 2
  words = r'no checkpoint of step 4; allowed: 3, 7 \(config\.train\.m.*; after config\.vmap_seeds'
  with pytest.raises(UserError, match=words):
    evaluate.evaluate(c, workdir, at=4)
  with pytest.raises(UserError, match=words):
    runs.load_run(workdir, step=4)
  for path in (workdir / 'checkpoints' / '3').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(UserError, match='the one of step 3 is damaged; allowed: another step'):
    evaluate.evaluate(c, workdir, at=3)


@pytest.fixture(scope='module')
def evaluated(letters, tmp_path_factory):
  """A run that is evaluated by every protocol under every control.

  With its rows, what was printed, and {name: tokens_T} of the documents that are taken.
  """
  everything = {
    'eval.protocols': PLAIN,
    'eval.controls': tuple(CONTROLS),
    'eval.sink_tokens': 2,
    'eval.stride': 5,
  }
  folder = tmp_path_factory.mktemp('evaluated')
  c, workdir, model = made_run(folder / 'run', letters, everything)
  measure, precisions = evaluate.measure, set()

  def observed(*args):
    precisions.add(jax.config.jax_default_matmul_precision)
    return measure(*args)

  with (
    contextlib.redirect_stdout(io.StringIO()) as printed,
    jax.default_matmul_precision('default'),
    pytest.MonkeyPatch.context() as patch,
  ):
    patch.setattr(evaluate, 'measure', observed)
    evaluate.evaluate(c, workdir)
  assert precisions == {'highest'}
  texts = chosen_documents(c)
  assert list(texts) == ['a.txt', 'd.txt', 'e.txt']  # three of the four of at least 32 tokens
  return SimpleNamespace(
    c=c,
    workdir=workdir,
    model=model,
    rows=rows_of(workdir),
    printed=printed.getvalue(),
    texts=texts,
  )


def test_there_is_a_row_for_all_that_is_asked(evaluated):
  found = [
    (r['protocol'], r['control'], r['length'], r['stride'], r['k'], r['document'])
    for r in evaluated.rows
  ]
  asked = [
    (protocol, control, length, stride, k, document)
    for protocol, control, stride, k in (
      ('non_overlapping', None, None, None),
      ('sliding', None, 5, None),
      ('last_k', None, None, 8),
      *(('last_k', control, None, 8) for control in CONTROLS),
    )
    for length in (16, 32)
    for document in evaluated.texts
    for _ in range(2 if protocol == 'last_k' else 1)
  ]
  # A window has one input fewer without BOS.
  for protocol, control, beyond in (
    ('by_position', None, 0),
    *(('by_position', control, 0) for control in CONTROLS if control != 'shuffled_far'),
    ('receptive_field', None, 1),
  ):
    asked += [
      (protocol, control, n, None, None, None)
      for n in (16, 32)
      for at in BINS[n][:-1]
      if at < n - beyond
    ]
  assert sorted(map(str, found)) == sorted(map(str, asked))
  facts = ('status', 'overrides', 'step', 'run', 'train_length')
  assert {tuple(r[name] for name in facts) for r in evaluated.rows} == {('ok', None, 3, 'run', 16)}
  assert workdirs.is_finished(evaluated.workdir, config.config_hash(evaluated.c))
  assert 'of the gradient reaches' in evaluated.printed
  left_out = 'have 32 tokens or more; the others are left out (eval.target_context)'
  assert f'test: 4 of 5 documents (92.4 % of tokens) {left_out}\n' in evaluated.printed


def test_rows_are_what_the_model_says(evaluated):
  texts, nll = evaluated.texts, jax.jit(token_nll, static_argnames=('window', 'sink_tokens'))
  middles = {name: text[(len(text) - 40) // 2 :][:40] for name, text in texts.items()}

  def windows_of(r):
    """(tokens, the slice of them that is scored) of all windows of a row."""
    W, text = r['length'], middles.get(r['document'])
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
      end = BINS[W][BINS[W].index(r['position']) + 1]
      whole = [t[at : at + W] for t in middles.values() for at in range(0, 40 - W + 1, W)]
      if r['control'] == 'truncated' and W == 32:  # each token by itself
        starts = {t: 0 if t < 16 else (t - 8) // 8 * 8 for t in range(r['position'], end)}
        return [(t[starts[i] : i + 1], slice(-1, None)) for t in whole for i in starts]
      return [(t, slice(r['position'], end)) for t in whole]
    end = r['position'] + 8
    window = texts[r['document']][end - (16 if r['control'] == 'truncated' else W) : end]
    if r['control'] == 'shuffled_far' and W == 32:
      other = texts[{'a.txt': 'd.txt', 'd.txt': 'e.txt', 'e.txt': 'a.txt'}[r['document']]]
      at = (len(other) - 8) // 2
      window = np.concatenate([other[at : at + 8], window[8:]])
    return [(window, slice(-8, None))]

  for r in evaluated.rows:
    if r['protocol'] == 'receptive_field':
      continue
    mask = {'window': 16} if r['control'] in ('windowed', 'windowed_with_sink') else {}
    mask |= {'sink_tokens': 2} if r['control'] == 'windowed_with_sink' else {}
    nats = []
    for tokens_T, scored in windows_of(r):
      # All windows are padded to one shape, so that jit compiles once.
      padded_T = np.pad(tokens_T, (0, 32 - len(tokens_T)), constant_values=7).astype(np.int32)
      nats_T = np.asarray(nll(evaluated.model, padded_T[None], **mask)[0], np.float64)
      nats.append(nats_T[: len(tokens_T)][scored])
    assert r['nats'] == pytest.approx(np.concatenate(nats).sum(), rel=1e-5)
    assert r['tokens'] == r['bytes'] == len(np.concatenate(nats))


def test_the_receptive_field_is_where_gradients_come_from(evaluated):
  norms = model_functions.compiled(model_functions.gradient_norms, evaluated.c)
  targets = windows.choose_targets(list(map(len, evaluated.texts.values())), 32, 2, 8)
  assert len(targets) == 6
  for length in (16, 32):
    shares = []
    for document, end in targets:
      window = list(evaluated.texts.values())[document][end - length : end]
      norm_T = np.asarray(norms(evaluated.model, jnp.array(window, jnp.int32)[None])[0], np.float64)
      shares.append(norm_T[:0:-1] / norm_T[1:].sum())
    found = [
      (r['position'], r['value'])
      for r in evaluated.rows
      if (r['protocol'], r['length']) == ('receptive_field', length)
    ]
    firsts = [first for first, _ in found]
    assert [value for _, value in found] == pytest.approx(
      np.add.reduceat(np.mean(shares, axis=0), firsts), rel=1e-4
    )
    assert sum(value for _, value in found) == pytest.approx(1)


def test_rows_that_are_there_are_not_measured_again_and_missing_ones_come_out_the_same(
  evaluated, tmp_path, monkeypatch, capsys
):
  workdir = tmp_path / 'run'
  shutil.copytree(evaluated.workdir, workdir)
  whole = (workdir / 'eval.jsonl').read_bytes()
  with monkeypatch.context() as patch:
    patch.setattr(evaluate, 'compiled', lambda function, config: lambda *_, **__: 1 / 0)
    evaluate.evaluate(evaluated.c, workdir)
    renamed = shutil.copytree(workdir, tmp_path / 'renamed [b]')
    evaluate.evaluate(evaluated.c, renamed)
  assert (workdir / 'eval.jsonl').read_bytes() == whole == (renamed / 'eval.jsonl').read_bytes()
  out = capsys.readouterr().out
  assert out.count('last_k windowed ') == 2  # the table, again
  assert 'renamed [b]' in out
  lines = whole.splitlines(keepends=True)
  (workdir / 'finished.json').unlink()
  # The file of a process that was killed while it wrote a row.
  (workdir / 'eval.jsonl').write_bytes(b''.join(lines[1::2]) + lines[0][:20])
  evaluate.evaluate(evaluated.c, workdir)
  again = (workdir / 'eval.jsonl').read_bytes()
  assert again.startswith(b''.join(lines[1::2]))
  assert sorted(again.splitlines()) == sorted(whole.splitlines())
  assert (workdir / 'finished.json').exists()


WHEEL = """
import sys
import posenc_jax
from posenc_jax.config import overlay, saved_config
from posenc_jax.evaluation.evaluate import evaluate
assert posenc_jax.__file__.startswith(sys.argv[1]), posenc_jax.__file__
config = saved_config(sys.argv[2])
overlay(config, {'eval.k': 4})
evaluate(config, sys.argv[2])
"""


@pytest.mark.ci
def test_an_installed_package_evaluates_without_files_of_a_clone(make_run, tmp_path):
  _, workdir, _ = make_run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  site = tmp_path / 'site-packages'
  ignored = shutil.ignore_patterns('__pycache__')
  shutil.copytree(BASE.parents[1] / 'posenc_jax', site / 'posenc_jax', ignore=ignored)
  command = [sys.executable, '-c', WHEEL, str(site), str(workdir)]
  environment = {**os.environ, 'PYTHONPATH': str(site)}
  process = subprocess.run(
    command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert process.returncode == 0, process.stderr
  assert {(r['k'], r['status']) for r in rows_of(workdir)} == {(4, 'ok')}


@pytest.mark.parametrize(('asked', 'unrolled'), [(0, 1), (1, 1), (2, 2)])
def test_layers_are_looped_over_unless_the_config_unrolls_them(
  asked, unrolled, unevaluated, monkeypatch
):
  c, _, model = unevaluated
  before, x = model.unroll, np.random.default_rng(0).integers(97, 123, (2, 32))
  nll = model_functions.compiled(token_nll, overlaid(c, model__unroll=asked))
  assert unrolls(monkeypatch, nll, model, x) == {unrolled}
  assert model.unroll == before


def test_logits_of_the_scored_tokens_alone_are_the_same(unevaluated):
  c, _, model = unevaluated
  x = np.random.default_rng(0).integers(97, 123, (2, 32))
  nll = model_functions.compiled(token_nll, c)
  np.testing.assert_allclose(nll(model, x, last=5), nll(model, x)[:, -5:], rtol=1e-6)
  assert token_nll(model, x, last=0).shape == (len(x), 0)
  assert token_nll(model, x, last=x.shape[1] + 1).shape == x.shape
  text = str(jax.make_jaxpr(lambda m: token_nll(m, x, last=5))(model))
  assert f'2,5,{data.VOCAB}]' in text
  assert f'32,{data.VOCAB}]' not in text
  # gradients by inputs are those of one token's nats
  text = str(jax.make_jaxpr(lambda m: model_functions.gradient_norms(m, x))(model))
  assert f'2,1,{data.VOCAB}]' in text
  assert f'32,{data.VOCAB}]' not in text


def test_gradients_by_input_hold_activations_of_one_layer_at_a_time():
  """They hold the input of every layer, with 16 channels, but not the activations of its MLP."""
  fields = {**TINY, 'model.mlp_dim': 64, 'model.unroll': 1, 'attention.backend': 'blockwise'}
  temporary, x = [], jax.ShapeDtypeStruct((1, 1024), jnp.int32)
  for layers in (2, 8):
    c = config.load(BASE, fields | {'model.layers': layers})
    norms = model_functions.compiled(model_functions.gradient_norms, c)
    compiled = norms.lower(shapes(c, data.VOCAB), x).compile()
    temporary.append(compiled.memory_analysis().temp_size_in_bytes)
  a_layer = (temporary[1] - temporary[0]) / 6 / (4 * x.size)
  assert a_layer < 2 * c.model.model_dim


def test_activations_may_be_bfloat16_and_logits_are_float32(make_run):
  c, workdir, model = make_run()
  x = np.random.default_rng(0).integers(97, 123, (2, 32))
  exact = model_functions.compiled(token_nll, c)(model, x)
  half = overlaid(c, eval__compute_dtype='bfloat16')
  rounded = model_functions.compiled(token_nll, half)(model, x)
  error = np.abs(rounded - exact).max()
  assert 1e-5 < error < 0.05
  text = str(jax.make_jaxpr(model_functions.compiled(token_nll, half))(model, x))
  assert 'bf16[2,32,32]' in text  # within the MLP
  assert f'bf16[2,32,{data.VOCAB}]' not in text
  assert overrides_between(c, half) == {'eval.compute_dtype': 'bfloat16'}
  evaluate.evaluate(overlaid(half, eval__protocols=('last_k',), eval__lengths=(16,)), workdir)
  assert {row['dtype'] for row in rows_of(workdir)} == {'bfloat16'}


def test_a_restored_model_is_read_and_not_drawn(unevaluated, monkeypatch):
  c, workdir, model = unevaluated
  corpus = data.opened(c.data, 'test')
  draw = jax.random.normal

  def shapes_alone(key, *arguments):
    assert isinstance(key, jax.core.Tracer)
    return draw(key, *arguments)

  monkeypatch.setattr(jax.random, 'normal', shapes_alone)
  restored, step = runs.restore(c, corpus, workdir)
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, restored, model)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


IN_HALF = (
  {},
  {
    **{'model.kv_heads': 1, 'model.shared_kv': True, 'model.output_gate': 'elementwise'},
    **{'model.mlp': 'swiglu', 'model.norm_placement': 'sandwich', 'model.tie_embeddings': False},
  },
  {
    **{'model.bias': 'all', 'model.qk_norm': 'head', 'model.output_gate': 'headwise'},
    **{'model.lora_rank': 2, 'model.lora_matrices': ('w_q', 'w_gate')},
    **{'model.parallel_residual': True, 'model.mlp': 'geglu', 'encoding.name': 'transformer_xl'},
  },
)


@pytest.mark.parametrize('fields', [IN_HALF[0], *map(in_ci, IN_HALF[1:])])
def test_matrices_of_layers_are_held_in_bfloat16_and_score_the_same(fields, letters, tmp_path):
  """Bit for bit, whatever their numbers are; all else stays float32."""
  half = {'eval.compute_dtype': 'bfloat16', 'model.layers': 2}
  c, workdir, _ = made_run(tmp_path / 'run', letters, fields | half)
  corpus = data.without_documents(c.data, 'test')
  whole, held = (runs.restore(c, corpus, workdir, holds_half=is_held)[0] for is_held in (0, 1))
  dtypes = {path: leaf.dtype for path, leaf in leaves_by_path(held).items()}
  halves = {path for path, dtype in dtypes.items() if dtype == jnp.bfloat16}
  assert halves == {path for path in dtypes if path.startswith(('layers/w_', 'layers/lora/'))}
  tokens_BT = np.random.default_rng(0).integers(0, 256, (2, 32))
  for function in (token_nll, model_functions.predictions, model_functions.gradient_norms):
    scores = [model_functions.compiled(function, c)(model, tokens_BT) for model in (whole, held)]
    jax.tree.map(np.testing.assert_array_equal, *scores)


def test_matrices_in_float32_are_given_up_as_they_become_bfloat16(unevaluated, monkeypatch):
  c, workdir, _ = unevaluated
  half, given, alive = runs._half, [], []

  def watched(path, leaf):
    made = half(path, leaf)
    if made is not leaf:
      given.append(weakref.ref(leaf))
      alive.append(sum(ref() is not None for ref in given))
    return made

  monkeypatch.setattr(runs, '_half', watched)
  c = overlaid(c, eval__compute_dtype='bfloat16')
  runs.restore(c, data.without_documents(c.data, 'test'), workdir, holds_half=True)
  assert len(alive) > 5
  assert max(alive) == 1


def test_beyond_a_learned_table_is_an_outcome(make_run, capsys):
  c, workdir, _ = make_run(encoding__name='learned')
  evaluate.evaluate(c, workdir)
  for r in rows_of(workdir):
    beyond = r['length'] > 16
    assert r['status'] == ('beyond_table' if beyond else 'ok')
    assert all((r[name] is None) == beyond for name in ('nats', 'tokens', 'bytes', 'ppl', 'bpb'))
  assert {r['control'] for r in rows_of(workdir) if r['status'] != 'ok'} == {None, 'windowed'}
  assert 'longer than the table of positions' in capsys.readouterr().out


@pytest.mark.parametrize(
  'fields', [{'extend': 'hierarchical'}, {'extend': 'group', 'extend_to': 32}]
)
def test_a_learned_table_may_be_extended_by_an_evaluation(make_run, fields):
  """So that all lengths have scores; those that the table has are as before, where rows stay."""
  c, workdir, _ = make_run(encoding__name='learned', eval__protocols=('last_k',))
  evaluate.evaluate(c, workdir)
  evaluate.evaluate(overlaid(c, **{f'encoding__{key}': x for key, x in fields.items()}), workdir)
  rows = rows_of(workdir)
  before, after = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
  assert {r['status'] for r in after} == {'ok'}
  assert {r['overrides']['encoding.extend'] for r in after} == {fields['extend']}
  pairs = [pair for pair in zip(before, after, strict=True) if pair[0]['status'] == 'ok']
  assert {old['length'] == new['length'] for old, new in pairs} == {True}
  is_same = [old['nats'] == new['nats'] for old, new in pairs]
  assert all(is_same) if fields['extend'] == 'hierarchical' else not any(is_same)


def test_an_unfinished_training_is_measured_but_not_called_finished(make_run, capsys):
  c, workdir, _ = make_run(step=2, eval__protocols=('non_overlapping',), eval__lengths=(16,))
  evaluate.evaluate(c, workdir)
  assert {r['step'] for r in rows_of(workdir)} == {2}
  assert f'{workdir}: step 2; its training ends at step 3\n' in capsys.readouterr().err
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
    ({'eval.lengths': (16, 30), 'eval.k': 4}, {}),
    ({'eval.target_context': 64}, {'eval.target_context': 64}),
    ({'eval.documents': 2}, {'eval.documents': 2}),
    ({'eval.document_tokens': 20}, {'eval.document_tokens': 20}),
    ({'mesh.data': 2, 'launch.partition': 'gpu', 'data.cache': 'x'}, {}),
    ({'model.remat': 'layer', 'model.unroll': 1}, {}),
    ({'train.trackers': ('wandb',), 'train.profile_steps': (1, 2)}, {}),
    ({'encoding.base': 5e5, 'attention.window': 8}, {'encoding.base': 5e5, 'attention.window': 8}),
  ],
)
def test_rows_say_what_evaluation_changes(overrides, recorded):
  saved = config.load(BASE, TINY)
  assert overrides_between(saved, overlaid(saved)) == {}
  assert overrides_between(saved, overlaid(saved, **overrides)) == recorded


@pytest.mark.parametrize('path', ['seed', 'train.length', 'optim.clip'])
def test_what_was_trained_in_cannot_be_changed(path):
  saved = config.load(BASE, TINY)
  with pytest.raises(UserError, match=f'config.{path}=9.*: the run was trained with'):
    overrides_between(saved, overlaid(saved, **{path: 9}))


def test_rows_that_are_damaged_are_one_line(make_run):
  c, workdir, _ = make_run(eval__protocols=('non_overlapping',), eval__lengths=(16,))
  (workdir / 'eval.jsonl').write_text('{"torn\n{}\n')
  with pytest.raises(UserError, match=r'eval\.jsonl:1: the line is damaged: it is no JSON'):
    evaluate.evaluate(c, workdir)


def test_a_device_without_memory_is_one_line(make_run, monkeypatch):
  c, workdir, _ = make_run(eval__protocols=('non_overlapping',), eval__lengths=(16,))
  full = lambda *_, **__: jnp.zeros(2**47, jnp.uint8)
  with monkeypatch.context() as patch:
    patch.setattr(evaluate, 'compiled', lambda function, config: full)
    less = 'fewer .*batch_tokens, .* or shorter eval.lengths'
    with pytest.raises(Stopped, match=f'^1 x cpu: RESOURCE_EXHAUSTED: .* {less}'):
      evaluate.evaluate(c, workdir)
  evaluate.evaluate(c, workdir)
  assert {r['status'] for r in rows_of(workdir)} == {'ok'}


@pytest.mark.parametrize(
  ('batch_tokens', 'devices', 'said'),
  [
    (8192, 8, '8,192 tokens: 1 of 8 devices has work, of 131,072: 1'),
    (2**15, 8, '8,192 tokens: 4 of 8 devices have work, of 131,072: 1'),
    (2**19, 8, '131,072 tokens: 4 of 8 devices have work'),
    (2**20, 8, None),
    (2**20, 7, '131,072 tokens: 4 of 7 devices have work'),  # 2 of the 8 rows each
    (8192, 1, None),
  ],
)
def test_devices_without_work_are_announced(batch_tokens, devices, said, capsys):
  """At every length at which there are some."""
  lengths = {8192: None, 2**17: None, 2**18: 8192}  # the last one is given 8,192 at a time
  asked = [Measurement(T, [], None, input_length=given) for T, given in lengths.items()]
  evaluate.announce_idle(asked, batch_tokens, devices)
  enough = 2 * 7 * 2**17 if devices == 7 else 8 * 2**17
  remedy = f'--config.eval.batch_tokens={enough} has work for all'
  assert capsys.readouterr().out == (f'windows of {said}; {remedy}\n' if said else '')
  evaluate.announce_idle([], batch_tokens, devices)
  assert capsys.readouterr().out == ''


def test_what_is_advised_where_devices_have_no_work_gives_work_to_all(capsys):
  """At 384 tokens, too: eight rows of 512 are ten of those, which fill five of eight devices."""
  asked = [Measurement(length, [], None) for length in (384, 512)]
  evaluate.announce_idle(asked, 512, 8)
  (advised,) = re.findall('batch_tokens=(.*) has', capsys.readouterr().out)
  evaluate.announce_idle(asked, int(advised), 8)
  assert capsys.readouterr().out == ''


class MaskedStub(Stub):
  """A `Stub` whose numbers say what attention sees, too."""

  def __call__(self, tokens_BT, *, window, sink_tokens, last=None):
    self.asked = [*getattr(self, 'asked', []), (tokens_BT.shape[1], window, sink_tokens)]
    numbers_BT = super().__call__(tokens_BT) + (window or 0) + sink_tokens
    return numbers_BT if last is None else numbers_BT[:, -last:]


def measure_stub(corpus, workdir, overrides):
  """(what a stub was asked, rows of eval.jsonl) after its evaluation."""
  c = config.load(BASE, {**TINY, 'data.corpus': corpus, 'eval.batch_tokens': 10**4, **overrides})
  config.validate(c)
  row = functools.partial(
    row_schema.row,
    run=workdir.name,
    encoding='stub',
    label='stub',
    seed=0,
    step=3,
    corpus=c.data.corpus,
    split=c.eval.split,
    train_length=c.train.length,
  )
  stub, kept = MaskedStub(), evaluate.KeptRows(workdir)
  for measurement in plan.plan(c, data.opened(c.data, c.eval.split)):
    evaluate.measure(measurement, row, {}, stub, None, kept)
  return sorted(getattr(stub, 'asked', []), key=str), rows_of(workdir)


def test_an_evaluation_at_other_lengths_scores_the_same_targets(measured, tmp_path):
  """Its rows stand in one line with the first ones, and those that both ask for are there once."""
  fields = dict(eval__protocols=('last_k', 'receptive_field'), eval__controls=('shuffled_far',))
  _, first = measured(eval__lengths=(16, 20), **fields)
  measured(eval__lengths=(16, 32), **fields)
  _, rows = measured(eval__lengths=(30,), **fields)
  assert rows[: len(first)] == first
  targets = {}
  for r in rows:
    if r['protocol'] == 'last_k':
      targets.setdefault((r['control'], r['length']), []).append((r['document'], r['position']))
  assert len(targets) == 2 * 4
  assert len({tuple(of_length) for of_length in targets.values()}) == 1
  (tmp_path / 'eval.jsonl').unlink()
  _, at_once = measured(eval__lengths=(16, 20, 30, 32), **fields)
  assert sorted(at_once, key=row_schema.key) == sorted(rows, key=row_schema.key)


def test_of_many_symbols_windows_are_asked_for_what_they_score(measured, tmp_path, monkeypatch):
  """The first of a document scores all of its tokens. Of few symbols all protocols ask alike, so
  that one program does for all.
  """
  protocols_ = ('last_k', 'sliding', 'non_overlapping', 'by_position', 'long_ppl')
  fields = dict(eval__protocols=protocols_)
  fields |= dict(eval__stride=5, eval__long_ppl_context=9, eval__controls=('truncated',))
  stubbed, asked = MaskedStub.__call__, []

  def record(self, tokens_BT, last=None, **options):
    asked.append((tokens_BT.shape[1], last))
    return stubbed(self, tokens_BT, last=last, **options)

  monkeypatch.setattr(MaskedStub, '__call__', record)
  _, rows = measured(**fields, eval__lengths=(16, 32))
  assert {last for _, last in asked} == {None}
  asked.clear()
  monkeypatch.setattr(plan, 'MANY_SYMBOLS', data.VOCAB)
  monkeypatch.setattr(plan, 'FEW_SYMBOLS', 0)
  (tmp_path / 'eval.jsonl').unlink()
  _, again = measured(**fields, eval__lengths=(16, 32))
  # sliding, the last 8 tokens, what is truncated to 16, and short contexts of 9 to 13
  of_sliding = {(16, None), (16, 5), (32, None), (32, 5)}
  assert {*asked} == of_sliding | {(16, 8), (32, 8), (14, None), (14, 5)}
  assert again == rows


@pytest.mark.parametrize(
  ('names', 'stride', 'again'),
  [
    # what is left of each of three documents
    (('non_overlapping', 'by_position', 'sliding'), 32, 3),
    (('long_ppl', 'by_position', 'non_overlapping'), 5, 0),
  ],
)
def test_windows_that_several_protocols_score_are_read_once(
  names, stride, again, measured, tmp_path, monkeypatch
):
  fields = dict(eval__stride=stride, eval__long_ppl_context=9, eval__lengths=(32,))
  fields |= dict(eval__controls=('windowed',), eval__batch_tokens=64)
  stubbed, read = MaskedStub.__call__, []

  def record(self, tokens_BT, **options):
    read.extend((tuple(row_T), options['window']) for row_T in tokens_BT if row_T.any())
    return stubbed(self, tokens_BT, **options)

  def rows_of_all(*names):
    (tmp_path / 'eval.jsonl').unlink(missing_ok=True)
    read.clear()
    return measured(eval__protocols=names, **fields)[1]

  monkeypatch.setattr(MaskedStub, '__call__', record)
  rows, times = rows_of_all(*names), len(read)
  assert times == len({*read}) + again
  by_itself = [(rows_of_all(name), len(read)) for name in names]
  assert [row for alone, _ in by_itself for row in alone] == rows
  assert sum(number for _, number in by_itself) > times
  monkeypatch.setattr(whole_windows, 'MOST_KEPT', 0)
  assert rows_of_all(*names) == rows
  assert len(read) == sum(number for _, number in by_itself)
  # windows of large text are not held all at once
  monkeypatch.setattr(windows, 'whole_windows', lambda *_: pytest.fail('all windows at once'))
  assert rows_of_all('non_overlapping')


@pytest.mark.parametrize('error', [MemoryError, KeyboardInterrupt])
def test_targets_that_are_measured_stay_when_the_next_ones_fail(
  measured, tmp_path, monkeypatch, error
):
  fields = dict(eval__protocols=('last_k',), eval__controls=(), eval__lengths=(32,))
  fields |= {'eval__batch_tokens': 64}  # two windows at a time
  stubbed = MaskedStub.__call__

  def fail(self, tokens_BT, **options):
    if len(getattr(self, 'asked', [])) == 2:
      raise error
    return stubbed(self, tokens_BT, **options)

  with monkeypatch.context() as patched:
    patched.setattr(MaskedStub, '__call__', fail)
    with pytest.raises(error):
      measured(**fields)
  kept = rows_of(tmp_path)
  assert len(kept) == 4
  asked, rows = measured(**fields)
  assert rows[:4] == kept
  assert (len(rows), len(asked)) == (6, 1)


@pytest.mark.parametrize(
  ('seconds', 'counts'), [(0.1, [6]), (evaluate.WRITTEN_EVERY / 2, [4, 2]), (9.0, [2, 2, 2])]
)
def test_rows_of_fast_passes_are_written_together(measured, monkeypatch, seconds, counts):
  """The file is read once, and written when passes have taken a while, and at their end."""
  fields = dict(eval__protocols=('last_k',), eval__controls=(), eval__lengths=(32,))
  clock, append, read, written, reads = [0.0], storage.append_rows, storage.read_rows, [], []
  stubbed = MaskedStub.__call__

  def call(self, *args, **options):
    clock[0] += seconds
    return stubbed(self, *args, **options)

  with monkeypatch.context() as patch:
    patch.setattr(MaskedStub, '__call__', call)
    patch.setattr(evaluate.time, 'monotonic', lambda: clock[0])
    patch.setattr(storage, 'append_rows', lambda *of: written.append(len(of[1])) or append(*of))
    patch.setattr(storage, 'read_rows', lambda *of: reads.append(of[0].name) or read(*of))
    _, rows = measured(eval__batch_tokens=64, **fields)
  assert (len(rows), [count for count in written if count]) == (6, counts)
  assert reads == ['eval.jsonl']


def test_rows_of_a_write_that_failed_are_not_written_twice(tmp_path, monkeypatch):
  kept, append = evaluate.KeptRows(tmp_path), storage.append_rows

  def fail(path, rows):
    append(path, rows[:1])
    raise OSError(28, 'No space left on device')

  row = synthetic.row('rope', 0, 128, 1.0, 'a.txt')
  with monkeypatch.context() as patch:
    patch.setattr(storage, 'append_rows', fail)
    kept.add([row, row | {'document': 'b.txt'}])
    with pytest.raises(OSError, match='No space'):
      kept.write()
  kept.write()
  assert storage.read_rows(kept.path) == [row]


def test_rows_of_an_evaluation_that_is_killed_have_their_session(make_run, monkeypatch):
  c, workdir, _ = make_run(eval__protocols=('last_k',), eval__controls=())
  kept = []

  def killed(self, function, rows):
    yield from kept
    raise MemoryError

  monkeypatch.setattr(Measurement, 'scored_in_parts', killed)
  for made in ([], [([0], [{'status': 'beyond_table'}])]):
    kept.extend(made)
    with pytest.raises(MemoryError):
      evaluate.evaluate(c, workdir)
    works = [row['work'] for row in sessions.of_run(workdir)]
    assert (works, len(rows_of(workdir))) == (['evaluation'] * len(made), len(made))


def test_what_controls_leave_as_it_is_is_computed_once(measured, tmp_path):
  """Up to the training length nothing changes, and what is truncated to it is the same at every
  length; also after an interruption.
  """
  fields = dict(eval__protocols=('last_k',), eval__controls=tuple(CONTROLS))
  asked, rows = measured(eval__lengths=(16, 24, 32), **fields)
  plain = [(16, None, 0), (24, None, 0), (32, None, 0)]
  masked = [(24, 16, 0), (24, 16, 1), (32, 16, 0), (32, 16, 1)]
  # The target's 8 tokens and the 16 before them leave nothing to replace in 24.
  assert asked == sorted([*plain, *masked, (32, None, 0)], key=str)
  scores = {}
  for r in rows:
    scores.setdefault((r['control'], r['length']), []).append(r['nats'])
  assert all(scores[control, 16] == scores[None, 16] for control in CONTROLS)
  assert scores['truncated', 24] == scores['truncated', 32] == scores[None, 16]
  assert len({tuple(nats) for (_, length), nats in scores.items() if length == 32}) == 5
  lines = (tmp_path / 'eval.jsonl').read_bytes().splitlines(keepends=True)
  kept = [line for line, r in zip(lines, rows, strict=True) if r['control'] is None]
  (tmp_path / 'eval.jsonl').write_bytes(b''.join(kept))
  asked, again = measured(eval__lengths=(16, 24, 32), **fields)
  assert asked == sorted([*masked, (32, None, 0)], key=str)
  assert sorted(again, key=row_schema.key) == sorted(rows, key=row_schema.key)
  # Where the training length is not asked for, the first of the truncated ones is computed.
  (tmp_path / 'eval.jsonl').unlink()
  asked, some = measured(eval__lengths=(24, 32), **fields | {'eval__controls': ('truncated',)})
  assert asked == plain
  by_key = {row_schema.key(r): r for r in rows}
  assert all(by_key[row_schema.key(r)] == r for r in some)


def test_tokens_of_a_learned_tokenizer_are_counted_before_training(tmp_path):
  """Its documents have more bytes than tokens are asked for, and fewer tokens."""
  draw = np.random.default_rng(0)
  words = ['position', 'encoding', 'attention', 'token']
  texts = {split: [' '.join(draw.choice(words, 80))] for split in SPLITS}
  settings = {
    'data.corpus': write_text_corpus(tmp_path / 'text', texts),
    'data.cache': str(tmp_path / 'cache'),
    'data.tokenizer': 'sentencepiece',
    'data.vocab': 290,
    'eval.documents': 0,
    'eval.target_context': 500,
  }
  c = config.load(BASE, {**TINY, **settings})
  with pytest.raises(UserError, match=r'target_context=500: no documents .* have 500 tokens'):
    preflight.check_evaluation(c)
  with pytest.raises(UserError, match=r'train.length=500: the longest .* \(train\) has \d+ tokens'):
    preflight.check_training_data(overlaid(c, train__length=500))
  as_bytes = overlaid(c, data__tokenizer='bytes')
  preflight.check_evaluation(as_bytes)
  preflight.check_training_data(overlaid(as_bytes, train__length=500))


@pytest.mark.parametrize(
  ('backend', 'overrides', 'words'),
  [
    ('diagonals', {'eval.controls': ('windowed',)}, None),
    (
      'diagonals',
      {'eval.controls': ('windowed', 'windowed_with_sink')},
      'last_k windowed_with_sink of 32 tokens: backend diagonals: sink tokens from outside of a ',
    ),
    (
      'diagonals',
      {'eval.controls': ('windowed_with_sink',), 'eval.protocols': ('non_overlapping',)},
      None,
    ),
    ('auto', {'eval.controls': ('windowed_with_sink',)}, None),
    ('dense', {'eval.protocols': ('long_ppl',), 'eval.stride': 4}, 'long_ppl of 20 tokens: back'),
    ('dense', {'eval.protocols': ('sliding',), 'eval.lengths': (16, 20)}, 'sliding of 20 tokens'),
    ('dense', {'eval.protocols': ('sliding', 'last_k')}, None),
    ('dense', {'encoding.name': 'learned', 'eval.lengths': (16, 20)}, None),  # beyond its table
  ],
)
def test_what_a_backend_refuses_in_evaluation_is_refused_before_training(
  letters, monkeypatch, backend, overrides, words
):
  """Dense here takes no 20 tokens, as some take multiples of a size alone."""
  no_20 = lambda request: 'not 20' if request.q_BTHK.shape[1] == 20 else None
  monkeypatch.setitem(BACKENDS, 'dense', BACKENDS['dense']._replace(refuse=no_20))
  settings = {'data.corpus': letters, 'attention.backend': backend, **overrides}
  c = config.load(BASE, {**TINY, **settings})
  refused = contextlib.nullcontext()
  if words is not None:
    refused = pytest.raises(UserError, match=rf'^config\.attention\.backend={backend!r}: {words}')
  with refused:
    preflight.check_backend(c)


@pytest.mark.parametrize(
  ('asked', 'longest', 'draws'),
  [(PLAIN, 60, 120), ((*TEXT_TASKS,), 1800, 30), (('planted',), 60, 60)],
  ids=['plain', 'text_tasks', 'planted'],
)
def test_what_is_not_refused_before_training_can_be_measured(
  letters, monkeypatch, asked, longest, draws
):
  """Random evaluations of few documents: all that pass the checks have rows of every protocol."""
  draw, passed, corpus = random.Random(0), 0, letters
  evens = lambda tokens_BT: np.ones(tokens_BT.shape)
  if asked != PLAIN:
    texts = [planted.plant(name, b'It is the duty of every one of us. ' * 90) for name in 'abcd']
    source = data.Corpus('planted', 'test', [*'abcd'], texts)
    monkeypatch.setattr(preflight, '_corpus', lambda *_: source)
    monkeypatch.setattr(data, 'opened', lambda *_: source)
    corpus = 'planted'
  for _ in range(draws):
    settings = {
      'train.length': draw.choice((1, 2, 7, 16)),
      'eval.lengths': tuple(draw.sample(range(2, longest), 2)),
      'eval.target_context': draw.randrange(longest // 2, longest + 35),
      'eval.k': draw.randrange(1, 8),
      'eval.stride': draw.randrange(1, 8),
      'eval.spans': draw.randrange(1, 9),
      'eval.documents': draw.randrange(5),
      'eval.document_tokens': draw.choice((0, 60, 40)),
      'eval.protocols': asked,
      'eval.controls': draw.choice(((), tuple(CONTROLS))),
    }
    c = config.load(BASE, {**TINY, 'data.corpus': corpus, **settings})
    try:
      config.validate(c)
      preflight.check_evaluation(c)
    except UserError:
      continue
    passed += 1
    for measurement in plan.plan(c, data.opened(c.data, 'test')):
      function = evens
      if measurement.function is model_functions.predictions:
        function = lambda tokens_BT: (evens(tokens_BT) > 0, evens(tokens_BT))
      scores = measurement.score(function, list(range(len(measurement.key_fields))))
      keys = {json.dumps(fields) for fields in measurement.key_fields}
      assert len(keys) == len(scores)
      assert measurement.metric or all(score['tokens'] >= 1 for score in scores)
  assert passed >= draws / 6


def test_overrides_stand_in_the_rows_that_depend_on_them(make_run):
  protocols_ = ('last_k', 'non_overlapping')
  c, workdir, _ = make_run(
    eval__protocols=protocols_, eval__controls=('windowed', 'windowed_with_sink')
  )
  changes = {'eval.spans': 1, 'eval.document_tokens': 33, 'eval.sink_tokens': 3}
  changes |= {'eval.examples': 5}  # of tasks
  evaluate.evaluate(overlaid(c, **changes), workdir)
  expected = {
    ('last_k', None): {'eval.spans': 1},
    ('last_k', 'windowed'): {'eval.spans': 1},
    ('last_k', 'windowed_with_sink'): {'eval.spans': 1, 'eval.sink_tokens': 3},
    ('non_overlapping', None): {'eval.document_tokens': 33},
  }
  for r in rows_of(workdir):
    assert r['overrides'] == expected[r['protocol'], r['control']]
  changes |= {'eval.documents': 2, 'eval.target_context': 40}
  assert overrides_of(changes, 'copy', None) == {'eval.examples': 5}


def test_the_standard_error_over_documents_is_printed(make_run, capsys):
  c, workdir, _ = make_run(eval__protocols=('last_k', 'by_position'), eval__lengths=(16,))
  evaluate.evaluate(c, workdir)
  rows = [r for r in rows_of(workdir) if (r['protocol'], r['control']) == ('last_k', None)]
  bits, error, documents = evaluate.bits_a_byte(rows)
  assert documents == 3
  nats, size = (sum(r[name] for r in rows) for name in ('nats', 'bytes'))
  assert bits == pytest.approx(nats / np.log(2) / size)
  out = ' '.join(capsys.readouterr().out.split())
  assert f'last_k at 16: {bits:.3f} bits/byte, standard error {error:.3f} over 3 documents' in out
  assert f'{bits:.3f} ± {error:.3f}' in out
  assert '± standard error over documents' in out
  assert 'by_position at 16: ' in out  # its rows are not those of single documents


def test_the_standard_error_is_that_of_drawn_documents():
  """Draws 30 documents of unlike sizes many times; the rows of a document belong together."""
  draw = np.random.default_rng(0)
  scores, errors = [], []
  for _ in range(400):
    sizes = draw.integers(50, 150, 30)
    bits = sizes * (2 + 0.3 * draw.standard_normal(30))
    rows = [
      {
        'document': str(d),
        'corpus': 'texts',
        'nats': share * bits[d] * np.log(2),
        'bytes': share * sizes[d],
      }
      for d in range(30)
      for share in (0.5, 0.5)
    ]
    score, error, _ = evaluate.bits_a_byte(rows)
    scores.append(score)
    errors.append(error)
  assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.1)
  alike = [r | {'document': f'package/{r["document"]}', 'corpus': 'code'} for r in rows]
  assert evaluate.bits_a_byte(alike) == (pytest.approx(score), None, 30)


def test_the_standard_error_of_documents_of_one_size_is_that_of_their_mean():
  bits = np.array([1.0, 2.0, 6.0])
  rows = [
    {'document': str(d), 'corpus': 'texts', 'nats': 10 * each * np.log(2), 'bytes': 10}
    for d, each in enumerate(bits)
  ]
  error = np.std(bits, ddof=1) / np.sqrt(3)
  assert evaluate.bits_a_byte(rows) == (pytest.approx(3), pytest.approx(error), 3)


def test_documents_that_are_taken_as_one_are_said_and_counted_each(capsys):
  same = dict(corpus='code', protocol='last_k', status='ok', metric=None, tokens=8, bytes=8)
  same |= dict(control=None, length=8)
  rows = [same | {'document': f'p{n // 2}/{n}', 'nats': float(n // 2)} for n in range(4)]
  bits, error, _ = evaluate.bits_a_byte(rows)
  assert error == pytest.approx(bits)  # of two packages, 0 and twice the mean
  ends = f'standard error {error:.3f} over 4 documents, those of one package taken as one'
  assert evaluate.summary(rows).endswith(ends)
  evaluate.show('run', [(Measurement(8, rows, score=None), rows)])
  shown = ' '.join(capsys.readouterr().out.split())
  assert f'{bits:.3f} ± {error:.3f}' in shown
  assert shown.endswith('± standard error over documents, those of one package taken as one')


def test_which_documents_are_alike_is_asked_of_those_without_key_tokens_too():
  """Six folders are enough to count by folder, though in one of them nothing was scored."""
  same = dict(corpus='texts', protocol='long_ppl', metric=None, tokens=8, bytes=8)
  rows = [
    same | {'document': f'f{n // 2}/{n}', 'status': 'ok', 'nats': float(n // 2)} for n in range(10)
  ]
  empty = same | {'document': 'f5/a', 'status': 'no_key_tokens', 'nats': None, 'tokens': 0}
  assert evaluate.summary(rows).endswith('over 10 documents')
  assert evaluate.summary([*rows, empty]).endswith(
    'over 10 documents, those of one folder taken as one'
  )


def test_another_encoding_than_the_trained_one_is_said(make_run, capsys):
  c, workdir, _ = make_run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  evaluate.evaluate(c, workdir)
  assert 'not trained with' not in capsys.readouterr().out
  evaluate.evaluate(overlaid(c, encoding__name='rerope', encoding__window=3), workdir)
  out = ' '.join(capsys.readouterr().out.split())
  assert 'an encoding that it was not trained with: evaluated as rerope, window=3' in out
  assert 'run (evaluated as rerope, window=3)' in out
  labels = {(r['label'], r['encoding']) for r in rows_of(workdir)}
  assert labels == {('rope', 'rope'), ('rope', 'rerope')}


def test_an_own_encoding_laid_over_a_run_is_measured_anew_once_it_was_edited(
  make_run, tmp_path, monkeypatch
):
  """Its name alone would give the rows of the formula before."""
  c, workdir, _ = make_run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  study = (
    'from posenc_jax import Encoding\nclass Mine(Encoding):\n  bias_in_scale = False\n'
    '  def bias(self, r_R):\n    return -0.5 * abs(r_R)[:, None]\ndef get_config():\n  pass\n'
  )
  for slope in ('0.5', '2.5', '0.5'):
    (tmp_path / 'study.py').write_text(study.replace('0.5', slope))
    mine = config.load_study(tmp_path / 'study.py').Mine
    monkeypatch.setitem(ENCODINGS, 'mine', mine)
    evaluate.evaluate(overlaid(c, encoding__name='mine'), workdir)
  rows, field = rows_of(workdir), 'encoding.code of mine'
  scores = {r['overrides'][field]: r['nats'] for r in rows if r['document'] == rows[0]['document']}
  assert len({*scores.values()}) == len(scores) == 2
  assert len({row_schema.key(r) for r in rows}) == len(rows)
  assert not (workdir / 'encodings.json').exists()
  with_mine = overlaid(c, encoding__name='mine')
  monkeypatch.setattr(evaluate, 'saved_config', lambda workdir, *read: with_mine)
  evaluate.evaluate(with_mine, workdir)  # as if it was trained with it
  assert rows_of(workdir)[-1]['overrides'] is None


def test_rows_of_another_evaluation_stand_beside_the_first(make_run):
  c, workdir, _ = make_run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  evaluate.evaluate(c, workdir)
  first = rows_of(workdir)
  other = overlaid(c, encoding__base=50.0, eval__k=4)
  evaluate.evaluate(other, workdir)
  rows = rows_of(workdir)
  assert rows[: len(first)] == first
  assert [r['overrides'] for r in rows[len(first) :]] == [{'encoding.base': 50.0}] * len(first)
  assert {r['k'] for r in rows[len(first) :]} == {4}
  for finished in (c, other):  # one evaluation does not undo another
    assert workdirs.is_finished(workdir, config.config_hash(finished))


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (
      {'eval.lengths': (16, 33)},
      r'config.eval.lengths=\(16, 33\); allowed: at most eval.target_context=32 each',
    ),
    (
      {'eval.target_context': 91},
      'config.eval.target_context=91: no documents .* have 91 tokens; allowed: at most 90, the '
      'longest, and eval.lengths of at most that',
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
      {'eval.controls': ('shuffled_far',), 'eval.documents': 0, 'eval.target_context': 90},
      r"config.eval.controls=\('shuffled_far',\): only 1 of the documents .* have 90 tokens; "
      'allowed: without',
    ),
    ({'eval.stride': 0}, 'config.eval.stride=0; allowed: 1 or more'),
    (
      {'eval.protocols': ('sliding',), 'eval.stride': 17},
      r'config.eval.stride=17; .* shortest of eval.lengths=\(16, 32',
    ),
    (
      {'eval.k': 17, 'eval.lengths': (32,), 'eval.controls': ('truncated',)},
      'config.eval.k=17; allowed: at most train.length=16 for truncated',
    ),
    ({'eval.sink_tokens': 0}, 'config.eval.sink_tokens=0; allowed: 1 or more'),
    ({'eval.k': 17}, r'config.eval.k=17; allowed: at most the shortest of eval.lengths=\(16, 32\)'),
    (
      {'eval.protocols': ('by_position',), 'eval.document_tokens': 20},
      'config.eval.document_tokens=20; '
      r'allowed: 32 or more for windows of that length \(by_position\), or 0',
    ),
    (
      {'eval.protocols': ('receptive_field',), 'eval.k': 1, 'eval.lengths': (1, 16)},
      r'config.eval.lengths=\(1, 16\); allowed: 2 or more tokens each for receptive_field',
    ),
    ({'encoding.name': 'ropee'}, r"encoding.name='ropee'.*rope"),
    ({'encoding.bas': 3}, "no hyperparameter 'bas'"),
    ({'attention.backend': 'dens'}, "attention.backend='dens'.*dense"),
    ({'attention.backend': 'cudnn'}, 'backend cudnn: '),
    (
      {'model.mlp_dim': 8},
      r'of shape \(2, 16, 32\), but the config asks for \(2, 16, 8\); allowed: .* or the code',
    ),
  ],
)
def test_bad_input_is_one_line_and_leaves_no_row(unevaluated, overrides, words):
  c, workdir, _ = unevaluated
  with pytest.raises(UserError, match=words) as error:
    evaluate.evaluate(overlaid(c, **overrides), workdir)
  assert r'\n' not in str(error.value)
  assert not (workdir / 'eval.jsonl').exists() or not rows_of(workdir)


def test_a_run_by_a_ring_is_evaluated_on_one_device(make_run):
  """It has no mesh, and the line of the run is that of its training."""
  c, workdir, _ = make_run(attention__backend='ring')
  evaluate.evaluate(c, workdir)
  assert {(row['status'], row['overrides']) for row in rows_of(workdir)} == {('ok', None)}
  run = runs.load_run(workdir)
  assert run.model(run.inputs(b'the q'), **run.options).shape[:2] == (1, 6)


def test_a_run_that_is_loaded_leaves_the_process_as_it_is(make_run, monkeypatch):
  """Commands alone hide tracebacks of Orbax: a program that loads a run has errors of its own."""
  _, workdir, _ = make_run()
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  for logger in loggers:
    monkeypatch.setattr(logger, 'filters', [])
  for hook in ('excepthook', 'unraisablehook'):
    monkeypatch.setattr(sys, hook, getattr(sys, f'__{hook}__'))
  runs.load_run(workdir)
  assert (sys.excepthook, sys.unraisablehook) == (sys.__excepthook__, sys.__unraisablehook__)
  assert [logger.filters for logger in loggers] == [[], []]


def test_a_placebo_out_of_one_folder_is_refused(tmp_path):
  """The texts of a package are of one kind: the far text of one is no placebo for another."""
  for name in ('a/x', 'a/y', 'b/x'):
    path = tmp_path / 'test' / f'{name}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('words of a document ' * 4)
  c = config.load(BASE, {**TINY, 'data.corpus': str(tmp_path), 'eval.controls': ('shuffled_far',)})
  assert list(chosen_documents(c)) == ['a/x.txt', 'a/y.txt', 'b/x.txt']
  (tmp_path / 'test' / 'b' / 'x.txt').unlink()
  with pytest.raises(UserError, match="all of the 2 documents lie in 'a'; allowed: without shuff"):
    chosen_documents(overlaid(c, **{'eval.documents': 2}))
  others = {'eval.protocols': ('by_position', 'non_overlapping')}  # which have no such control
  for few in ({'eval.documents': 2}, {'eval.documents': 1}):
    asked = overlaid(c, **others, **few)
    config.validate(asked)
    assert len(chosen_documents(asked)) == few['eval.documents']


@pytest.mark.parametrize(
  ('own', 'is_same'), [(0, False), (8, True), pytest.param(16, True, marks=pytest.mark.ci)]
)
def test_a_model_with_a_window_of_its_own_is_windowed_already(letters, own, is_same):
  """Then it is scored once, unless its window is wider than the training length, 16."""
  asked = {'eval.protocols': ('last_k', 'by_position'), 'eval.lengths': (32,)}
  c = config.load(BASE, {**TINY, **asked, 'data.corpus': letters, 'attention.window': own})
  planned = {m.name: m for m in plan.plan(c, data.opened(c.data, 'test'))}
  for name in asked['eval.protocols']:
    assert (planned[f'{name} windowed'].same_as is planned[name]) == is_same
  wider = overlaid(c, attention__window=17)
  assert {m.same_as for m in plan.plan(wider, data.opened(c.data, 'test'))} == {None}
  nll = model_functions.compiled(token_nll, c)
  tokens_BT = np.random.default_rng(0).integers(0, 256, (1, 32), np.int32)
  given = build(c, data.VOCAB, nnx.Rngs(0)), tokens_BT
  assert np.array_equal(nll(*given), nll(*given, window=16)) == is_same


@pytest.mark.parametrize(
  ('backend', 'window'), [('dense', 3), pytest.param('blockwise', None, marks=pytest.mark.slow)]
)
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


def test_no_run_there(tmp_path, letters):
  c = config.load(BASE, {**TINY, 'data.corpus': letters})
  with pytest.raises(UserError, match=r'no config\.json'):
    evaluate.evaluate(c, tmp_path)
  workdirs.claim_run_dir(tmp_path, c)
  with pytest.raises(UserError, match='no checkpoint'):
    evaluate.evaluate(c, tmp_path)
  assert not (tmp_path / 'checkpoints').exists()


def test_a_folder_of_text_is_the_same_in_another_spelling(make_run, letters):
  c, workdir, _ = make_run(eval__lengths=(16,))
  evaluate.evaluate(c, workdir)
  before = {path: path.read_bytes() for path in workdir.glob('*.json*')}
  again = overlaid(c, data__corpus=f'{letters}/../{Path(letters).name}')
  evaluate.evaluate(again, workdir)
  assert {path: path.read_bytes() for path in workdir.glob('*.json*')} == before

  changed = provenance.MadeOf(None, listings=[Listing('test', 9, 'other documents')])
  provenance.claim(workdir, changed, begins=True)
  assert again.data.corpus != c.data.corpus
  with pytest.raises(UserError, match=r'documents in test of data\.corpus: 9 when its run began'):
    evaluate.evaluate(again, workdir)
  corpus = data.opened(again.data, 'test')
  with pytest.raises(UserError, match=r'documents in test of data\.corpus: 9 when its run began'):
    runs.check_corpus(c, again, corpus, workdir)


@pytest.mark.parametrize('corpus', ['sotu', 'task:passkey/digits=3'])
def test_a_run_of_embedded_text_that_is_another_now_is_refused(corpus, make_run, monkeypatch):
  protocols = ('answers',) if tasks.is_task(corpus) else ('last_k',)
  c, workdir, _ = make_run(data__corpus=corpus, eval__protocols=protocols, eval__controls=())
  with monkeypatch.context() as patch:
    patch.setattr(sotu, 'SHA256', '0' * 64)
    made_of = provenance.MadeOf(None, built_in=built_in_values(c))
    provenance.claim(workdir, made_of, begins=True)
  with pytest.raises(UserError, match=r"^workdir='.*': sotu was '0*' when its run began, and is "):
    evaluate.evaluate(c, workdir)
  assert not (workdir / 'eval.jsonl').exists()
  # a run of an earlier version did not keep it of a task
  of_before = {name: value for name, value in built_in_values(c).items() if name != 'sotu'}
  provenance.claim(workdir, provenance.MadeOf(None, built_in=of_before), begins=True)
  check_built_in(workdir, c)


def test_built_in_values_pass_over_a_name_that_is_none():
  odd = {'name': 'chain', 'members': ({'name': ('rope',)}, {'name': 'alibi'})}
  found = built_in_values(config.load(BASE, {'encoding': odd}))
  assert 'alibi.axes' in found
  assert 'rope.base' not in found


def test_another_folder_that_has_changed_is_measured_anew(make_run, tmp_path):
  """Rows of text that is gone would be added up with those of what is there now."""
  texts = {'test': [letter * 40 for letter in 'abc'], 'train': ['a' * 40]}
  other = Path(write_text_corpus(tmp_path / 'other', texts))
  c, workdir, _ = make_run(eval__protocols=('last_k',), eval__lengths=(16,), eval__controls=())
  c = overlaid(c, data__corpus=str(other), eval__documents=0)
  evaluate.evaluate(c, workdir)
  first = rows_of(workdir)
  (other / 'train' / 'b.txt').write_text('b')  # of another split
  evaluate.evaluate(c, workdir)
  assert rows_of(workdir) == first
  assert not (workdir / 'documents.json').exists()
  (other / 'test' / 'd.txt').write_text('d' * 50)
  evaluate.evaluate(c, workdir)
  named = [(r['overrides'][DOCUMENTS], r['document']) for r in rows_of(workdir)]
  before, now = first[0]['overrides'][DOCUMENTS], data.opened(c.data, 'test').listing.sha256[:8]
  assert {*named} == {(before, f'{x}.txt') for x in 'abc'} | {(now, f'{x}.txt') for x in 'abcd'}
  assert before != now


def test_a_model_is_compared_with_what_was_tuned_from_it_on_other_text(letters, tmp_path):
  """Both are evaluated by the same flags, which rows of each state against its own config."""
  texts = {'test': [letter * 40 for letter in 'abcdef'], 'train': ['a' * 40]}
  other, runs = write_text_corpus(tmp_path / 'other', texts), tmp_path / 'runs'
  flags = {'eval__protocols': ('last_k',), 'eval__lengths': (16,), 'eval__controls': ()}
  flags |= {'eval__documents': 6, 'eval__spans': 1, 'data__corpus': other}
  for name, corpus, own in (('first', letters, {}), ('tuned', other, dotted(flags))):
    c, workdir, _ = made_run(runs / name, corpus, {'label': name} | own)
    evaluate.evaluate(overlaid(c, **flags), workdir)
  first, tuned = (rows_of(runs / name)[0]['overrides'] for name in ('first', 'tuned'))
  assert tuned is None
  assert {'eval.documents', DOCUMENTS} <= first.keys()
  tables = make_tables(row_files.read(runs), baseline='first')
  (table,) = (some for some in tables if some.title.startswith('Differences from first'))
  (found,) = table.records
  assert (found['encoding'], found['clusters']) == ('tuned', 6)


def test_an_evaluation_refuses_other_files_in_a_folder_that_the_library_reads(make_run, tmp_path):
  """The last tenth of all rows is the test split: rows that were trained on could be in it."""
  pytest.importorskip('datasets')
  folder = tmp_path / 'set'
  folder.mkdir()
  line = json.dumps({'text': 'how quickly daft jumping zebras vex'}) + '\n'
  (folder / 'train-0.jsonl').write_text(20 * line)
  fields = {'data__corpus': f'hf:{folder}', 'data__cache': str(tmp_path / 'cache')}
  c, workdir, _ = make_run(
    **fields, eval__protocols=('last_k',), eval__lengths=(16,), eval__documents=0
  )
  made_of = provenance.MadeOf(None, listings=[data.opened(c.data, 'train').listing])
  provenance.claim(workdir, made_of, begins=True)
  evaluate.evaluate(c, workdir)
  rows = rows_of(workdir)
  (folder / 'train-1.jsonl').write_text(20 * line)
  with pytest.raises(UserError, match=r'documents in data\.corpus: 20 when its run began, 40 now'):
    evaluate.evaluate(c, workdir)
  assert rows_of(workdir) == rows


def test_the_summary_of_planted_names_is_of_those_that_come_again(capsys):
  """Not of new ones and of the text between them; and it is no score of a length."""
  row = dict(protocol='planted', control=None, status='ok', metric=None, length=64, document=None)
  row |= dict(corpus='planted', tokens=8, bytes=8)
  told = [row | dict(position=n, nats=8 * np.log(2)) for n in (1, 32)]
  others = [row | dict(position=n, nats=99.0) for n in (0, None)]
  assert evaluate.summary(told + others) == '1.000 bits/byte of recalled names'
  assert evaluate.summary(others) == 'no name comes again in its window'
  asked = evaluate.Measurement(64, told, score=None)
  evaluate.show('run', [(asked, told + others)])
  (line,) = [line for line in capsys.readouterr().out.splitlines() if 'planted' in line]
  assert '—' in line
  assert '1.000' not in line


def test_a_metric_that_is_no_task_has_a_summary():
  row = {'protocol': 'sharpness', 'status': 'ok', 'metric': 'sharpness'}
  assert evaluate.summary([row | {'value': 0.25}, row | {'value': 0.5}]) == '0.375 sharpness'


@pytest.mark.parametrize(
  ('shares', 'reach'), [((0.5, 0.48, 0.015, 0.005), 9), ((0.5, 0.4, 0.08, 0.02), 15)]
)
def test_the_reach_of_a_gradient_is_the_end_of_the_bin_where_99_per_cent_are_passed(shares, reach):
  row = {'protocol': 'receptive_field', 'status': 'ok', 'metric': 'gradient', 'length': 16}
  rows = [
    row | {'position': position, 'value': share}
    for position, share in zip((0, 1, 4, 9), shares, strict=True)
  ]
  assert evaluate.summary(rows) == f'99 % of the gradient reaches {reach} tokens back'
