"""Evaluation: protocols against brute force over a stub model, then rows of a real one."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from posenc_jax import checkpoint, config, data, evals
from posenc_jax.checkpoint import Checkpoints
from posenc_jax.config import UserError
from posenc_jax.evals import measurements, protocols
from posenc_jax.model import build, token_nll

BASE = Path(__file__).parent.parent / 'configs' / 'base.py'
SIZES = (37, 16, 64, 41)  # of documents; none is a multiple of all lengths


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


@pytest.mark.parametrize('length', [1, 5, 16, 64, 100])
@pytest.mark.parametrize('batch_tokens', [1, 64, 1000])
def test_blocks_is_brute_force_at_any_batch_size(documents, length, batch_tokens):
  expected = sum(state(doc[t - t % length : t + 1]) for doc in documents for t in range(len(doc)))
  stub = Stub()
  assert protocols.blocks(stub, documents, length, batch_tokens) == (expected, sum(SIZES))
  assert {call.shape for call in stub.calls} == {(max(1, batch_tokens // length), length)}
  scored = np.concatenate(stub.windows())
  np.testing.assert_array_equal(scored, np.concatenate(documents))  # every token once, in windows of one document each
  assert all(len(set((window - 1) // 64)) == 1 for window in stub.windows())


@pytest.mark.parametrize('spans', [1, 3])
@pytest.mark.parametrize('batch_tokens', [1, 64, 1000])
def test_last_k_is_brute_force_and_scores_the_same_tokens_at_every_length(documents, spans, batch_tokens):
  k, lengths = 4, (4, 7, 16)
  targets = protocols.choose_targets(SIZES, max(lengths), spans)
  seen = []
  for length in lengths:
    stub = Stub()
    found = protocols.last_k(stub, documents, targets, length, k, batch_tokens)
    assert found == [sum(state(documents[d][end - length : t + 1]) for t in range(end - k, end)) for d, end in targets]
    assert {call.shape for call in stub.calls} == {(max(1, batch_tokens // length), length)}
    assert all(len(window) == length for window in stub.windows())
    seen.append([window[-k:].tolist() for window in stub.windows()])
  assert seen[0] == seen[1] == seen[2]
  assert len(seen[0]) == spans * len(SIZES)


@pytest.mark.parametrize('spans', [1, 2, 7])
@pytest.mark.parametrize('longest', [1, 16])
def test_targets_are_spread_evenly_over_what_has_enough_before_it(spans, longest):
  for index, size in enumerate((16, 17, 64, 1000)):
    ends = [end for d, end in protocols.choose_targets((16, 17, 64, 1000), longest, spans) if d == index]
    assert len(ends) == spans
    assert all(longest <= end <= size for end in ends)
    np.testing.assert_allclose(np.diff([2 * longest - ends[0], *ends]), (size - longest) / spans, atol=2)
    assert abs((ends[0] - longest) - (size - ends[-1])) <= 2


@pytest.mark.parametrize(('length', 'k', 'targets'), [(4, 5, [(0, 16)]), (8, 4, [(0, 7)])])
def test_last_k_refuses_what_has_too_few_tokens(documents, length, k, targets):
  with pytest.raises(ValueError, match='allowed: at'):
    protocols.last_k(Stub(), documents, targets, length, k, 64)


# A real model


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
    checkpoint.claim(workdir, c)
    with Checkpoints(workdir, keep=1) as checkpoints:
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
  c, workdir, model = run()
  evals.evaluate(c, workdir)
  rows = rows_of(workdir)
  texts = dict(measurements.choose_documents(c))
  assert list(texts) == ['a.txt', 'c.txt', 'd.txt']  # the first three of at least 32 tokens
  questions = [(r['protocol'], r['control'], r['length'], r['document']) for r in rows]
  assert len(questions) == len(set(questions)) == 2 * (1 + 3 + 3)

  nll = jax.jit(token_nll, static_argnames='window')
  for r in rows:
    window = 16 if r['control'] == 'windowed' else None
    if r['protocol'] == 'last_k':
      end = r['position'] + 8
      windows = [texts[r['document']][end - r['length'] : end]]
    else:
      starts = [(text[:40], at) for text in texts.values() for at in range(0, len(text[:40]), r['length'])]
      windows = [text[at : at + r['length']] for text, at in starts]
    scores = [np.asarray(nll(model, jnp.array(w, jnp.int32)[None], window=window)[0], np.float64) for w in windows]
    nats = np.concatenate([s[-8:] if r['protocol'] == 'last_k' else s for s in scores])
    assert r['nats'] == pytest.approx(nats.sum(), rel=1e-5)
    assert r['tokens'] == r['bytes'] == len(nats)
    assert (r['status'], r['overrides'], r['step'], r['run'], r['train_length']) == ('ok', None, 3, 'run', 16)
  by_control = {
    key: [r['nats'] for r in rows if (r['control'], r['length'], r['k']) == (*key, 8)]
    for key in [(None, 16), ('windowed', 16), (None, 32), ('windowed', 32)]
  }
  assert by_control[None, 16] == by_control['windowed', 16]
  assert by_control[None, 32] != by_control['windowed', 32]
  assert json.loads((workdir / 'finished.json').read_text()) == {'config_hash': config.config_hash(c)}

  # What is there is not measured again, and what is missing comes out the same.
  capsys.readouterr()
  whole = (workdir / 'eval.jsonl').read_bytes()
  with monkeypatch.context() as patch:
    patch.setattr(evals, 'token_nll', None)
    evals.evaluate(c, workdir)
  assert (workdir / 'eval.jsonl').read_bytes() == whole
  assert 'last_k windowed' in capsys.readouterr().out  # the table, again
  lines = whole.splitlines(keepends=True)
  (workdir / 'finished.json').unlink()
  (workdir / 'eval.jsonl').write_bytes(b''.join(lines[1::2]) + lines[0][:20])  # killed while writing
  evals.evaluate(c, workdir)
  again = (workdir / 'eval.jsonl').read_bytes()
  assert again.startswith(b''.join(lines[1::2]))
  assert sorted(again.splitlines()) == sorted(whole.splitlines())
  assert (workdir / 'finished.json').exists()


def test_beyond_a_learned_table_is_an_outcome(run, capsys):
  c, workdir, _ = run(encoding__name='learned')
  evals.evaluate(c, workdir)
  for r in rows_of(workdir):
    beyond = r['length'] > 16
    assert r['status'] == ('beyond_table' if beyond else 'ok')
    assert all((r[name] is None) == beyond for name in ('nats', 'tokens', 'bytes', 'ppl', 'bpb'))
  assert {r['control'] for r in rows_of(workdir) if r['status'] != 'ok'} == {None, 'windowed'}
  assert 'beyond_table' in capsys.readouterr().out


def test_an_unfinished_training_is_measured_but_not_called_finished(run, capsys):
  c, workdir, _ = run(step=2, eval__protocols=('blocks',), eval__lengths=(16,))
  evals.evaluate(c, workdir)
  assert {r['step'] for r in rows_of(workdir)} == {2}
  assert 'evaluating step 2; its training ends at step 3' in capsys.readouterr().out
  assert not (workdir / 'finished.json').exists()


@pytest.mark.parametrize(
  ('overrides', 'recorded'),
  [
    ({'eval.k': 4, 'eval.protocols': ('last_k',), 'eval.batch_tokens': 9, 'label': 'x', 'eval.split': 'train'}, {}),
    ({'eval.lengths': (8, 32)}, {}),
    ({'eval.lengths': (16, 64)}, {'max(eval.lengths)': 64}),
    ({'eval.documents': 2}, {'eval.documents': 2}),
    ({'eval.document_tokens': 20}, {'eval.document_tokens': 20}),
    ({'encoding.base': 5e5, 'attention.window': 8}, {'encoding.base': 5e5, 'attention.window': 8}),
  ],
)
def test_rows_say_what_evaluation_changes(overrides, recorded):
  saved = config.load(BASE, TINY)
  assert measurements.overrides(saved, overlaid(saved)) == {}
  assert measurements.overrides(saved, overlaid(saved, **overrides)) == recorded


@pytest.mark.parametrize('path', ['seed', 'train.length', 'optim.clip'])
def test_what_was_trained_in_cannot_be_changed(path):
  saved = config.load(BASE, TINY)
  with pytest.raises(UserError, match=f'config.{path}=9.*: the run was trained with'):
    measurements.overrides(saved, overlaid(saved, **{path: 9}))


def test_rows_of_another_evaluation_stand_beside_the_first(run):
  c, workdir, _ = run(eval__protocols=('last_k',), eval__lengths=(16,), eval__windowed=False)
  evals.evaluate(c, workdir)
  first = rows_of(workdir)
  other = overlaid(c, encoding__base=50.0, eval__k=4)
  evals.evaluate(other, workdir)
  rows = rows_of(workdir)
  assert rows[: len(first)] == first
  assert [r['overrides'] for r in rows[len(first) :]] == [{'encoding.base': 50.0}] * len(first)
  assert {r['k'] for r in rows[len(first) :]} == {4}
  assert json.loads((workdir / 'finished.json').read_text()) == {'config_hash': config.config_hash(other)}


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (
      {'eval.lengths': (16, 91)},
      r'config.eval.lengths=\(16, 91\): no documents .* have 91 tokens; allowed: at most 90',
    ),
    ({'eval.documents': 5}, r'config.eval.documents=5: only 4 documents .* have 32 tokens; allowed: 1 to 4, or 0'),
    ({'eval.split': 'validation'}, "no split 'validation'"),
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
    evals.evaluate(overlaid(c, **overrides), workdir)
  assert '\n' not in str(error.value)
  assert not (workdir / 'eval.jsonl').exists() or not rows_of(workdir)


def test_no_run_there(tmp_path, corpus):
  c = config.load(BASE, {**TINY, 'data.corpus': corpus})
  with pytest.raises(UserError, match=r'no config\.json'):
    evals.evaluate(c, tmp_path)
  checkpoint.claim(tmp_path, c)
  with pytest.raises(UserError, match='no checkpoint'):
    evals.evaluate(c, tmp_path)
  assert not (tmp_path / 'checkpoints').exists()
