"""Scores of models without run directories: the same numbers as rows have, of any function."""

import csv
import dataclasses
import functools
import inspect
import math
import mmap
import re
import textwrap
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import nll
from small_runs import STEPS
from test_evaluation import Stub, chosen_documents, rows_of, state

from posenc_jax import config, data, heads_of_layer, score, scores_of_heads, weights_of_heads
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, runs, scoring, windows
from posenc_jax.model import decoder
from posenc_jax.model.token_nll import token_nll
from posenc_jax.reporting import row_files

BITS = 1 / np.log(2)


@pytest.fixture
def traced(monkeypatch):
  """(Precision of products, `last`) of each trace of a model's nats by `score`, and of a run's."""
  found = []

  def record(model, tokens_BT, last=None, **options):
    found.append((jax.config.jax_default_matmul_precision, last))
    return token_nll(model, tokens_BT, last=last, **options)

  scoring._nats_of_model.clear_cache()
  for module in (scoring, runs):
    monkeypatch.setattr(module, 'token_nll', record)
  return found


def test_the_example_of_the_module_works(capsys):
  example = scoring.__doc__.split('\n\n', 1)[1].split('\n\n`model`')[0]
  names = {}
  exec(textwrap.dedent(example), names)
  assert [float(x) for x in re.findall(r'[\d.]+', capsys.readouterr().out)] == [
    *(32, 32, pytest.approx(256), 8),
    *(128, 32, pytest.approx(256), 8),
  ]
  assert names['loss_T'].shape == (128,)


def test_targets_have_the_context_of_the_longest_length(documents):
  found = score(Stub(), documents, 'last_k', length=7, target_context=16, k=4, spans=2)
  targets = windows.choose_targets(list(map(len, documents)), 16, 2, 4)
  assert len(targets) == len(found.nats) > len(documents)
  for nats, tokens, (d, end) in zip(found.nats, found.tokens, targets, strict=True):
    np.testing.assert_array_equal(tokens, documents[d][end - 4 : end])
    expected = [state(documents[d][end - 7 : t + 1]) for t in range(end - 4, end)]
    np.testing.assert_array_equal(nats, expected)


def test_a_trained_run_has_the_numbers_of_its_rows(make_run):
  wanted = ('last_k', 'sliding', 'non_overlapping', 'by_position', 'long_ppl')
  settings = {'eval__long_ppl_context': 4, 'eval__stride': 3, 'eval__long_ppl_alpha': 0.01}
  settings |= {'eval__long_ppl_beta': -20.0, 'eval__controls': ()}
  c, workdir, model = make_run(**settings, eval__protocols=wanted)
  evaluate.evaluate(c, workdir)
  texts = list(chosen_documents(c).values())
  excerpts = [windows.excerpt(text, 40) for text in texts]
  given = {
    'last_k': (texts, {'k': 8, 'target_context': 32, 'spans': c.eval.spans}),
    'sliding': (excerpts, {'stride': 3}),
    'non_overlapping': (excerpts, {}),
    'by_position': (excerpts, {}),
    'long_ppl': (excerpts, {'context': 4, 'stride': 3, 'alpha': 0.01, 'beta': -20.0}),
  }
  as_run = runs.load_run(workdir).nats
  for name, (documents_of, options) in given.items():
    rows = [row for row in rows_of(workdir) if (row['protocol'], row['length']) == (name, 32)]
    for judged in (as_run, model):
      found = score(judged, documents_of, name, length=32, batch_tokens=64, **options)
      assert found.num_tokens == sum(row['tokens'] for row in rows)
      nats = sum(row['nats'] for row in rows)
      assert found.nats_a_token == pytest.approx(nats / found.num_tokens, rel=1e-6)
      assert found.bits_a_byte() == pytest.approx(nats / found.num_tokens * BITS, rel=1e-6)
  assert found.ppl == pytest.approx(rows[0]['ppl'], rel=1e-6)


class Known(runs.Run):
  """Token n has n + 1 bits."""

  def nats(self, tokens_BT):
    return np.log(2) * (1.0 + tokens_BT)


def known(*symbols):
  """A stand-in for a run, with a tokenizer of these symbols, of which 'ab' joins two."""
  library = pytest.importorskip('tokenizers')
  of_symbol = {symbol: number for number, symbol in enumerate(symbols)}
  made = library.Tokenizer(library.models.BPE(of_symbol, [('a', 'b')]))
  tokenizer = TokenizerJson(made.to_str().encode(), '')
  return Known(types.SimpleNamespace(vocab=tokenizer.vocab), 0, None, tokenizer, {})


def test_a_run_cuts_text_by_its_own_tokenizer():
  model = known('a', 'b', 'ab')
  asked = {
    'last_k': {'length': 3, 'k': 2},
    'sliding': {'length': 2, 'stride': 1},
    'non_overlapping': {'length': 2},
    'by_position': {'length': 3},
    'long_ppl': {'length': 3, 'context': 1, 'alpha': -1.0, 'beta': -9.0},
  }
  for protocol, settings in asked.items():
    for given in (model, model.nats):
      found = score(given, [b'abba', b'bbab'], protocol, **settings)
      first, bits, size = (1, 8, 5) if protocol in ('last_k', 'long_ppl') else (0, 13, 8)
      assert [x.tolist() for x in found.tokens] == [[2, 1, 0][first:], [1, 1, 2][first:]]
      assert [x.tolist() for x in found.bytes] == [[2, 1, 1][first:], [1, 1, 2][first:]]
      assert found.bits_a_byte() == pytest.approx(bits / size)
  of_tokens = score(model, [np.array([2, 1, 0])], 'non_overlapping', length=2)
  assert of_tokens.bits_a_byte([1, 1, 2]) == pytest.approx(6 / 4)
  expected = score(model, [b'abba'], 'non_overlapping', length=2)
  with mmap.mmap(-1, 4) as file:
    file.write(b'abba')
    for other in (bytearray(b'abba'), memoryview(b'abba'), file):
      found = score(model, [other], 'non_overlapping', length=2)
      assert found.bits_a_byte() == expected.bits_a_byte()
  with pytest.raises(ValueError, match='bytes_V=None; allowed: bytes of each symbol, or documents'):
    of_tokens.bits_a_byte()
  # spaces, too, which nothing cuts words at here
  with pytest.raises(UserError, match=r'66\.67% of the text is unknown to it, such as '):
    score(model, [b'ab  ', b'abxxxxxx'], 'non_overlapping', length=2)
  of_bytes = dataclasses.replace(model, tokenizer=data.BYTES)
  assert score(of_bytes, [b'\0\1'], 'non_overlapping', length=2).bits_a_byte() == pytest.approx(1.5)
  of_task = dataclasses.replace(model, tokenizer=None)
  with pytest.raises(ValueError, match=r'^a document of .*; allowed: integers \[T\]$'):
    score(of_task, [b'\0\1'], 'non_overlapping', length=2)


def test_key_tokens_are_found_by_a_run_with_the_same_tokenizer():
  """Another one would read the tokens as other words, and find others in silence."""
  model, other = known('a', 'b', 'ab'), known('b', 'a', 'ab')
  of_bytes = dataclasses.replace(model, tokenizer=data.BYTES)
  asked = {'length': 3, 'context': 1, 'alpha': -1.0, 'beta': -9.0}
  by = lambda judged, evaluator, text: score(
    judged, [text], 'long_ppl', evaluator=evaluator, **asked
  )
  tokens_T, function = np.array([2, 1, 0]), lambda tokens_BT: model.nats(tokens_BT)
  for judged, evaluator, text in (
    (model, model.nats, b'abba'),
    (model, known('a', 'b', 'ab'), b'abba'),
    (function, of_bytes, b'\0\1\2'),
    (function, other, tokens_T),  # whose they are, who asks knows
    (model, function, b'abba'),
  ):
    assert by(judged, evaluator, text).num_tokens == 2
  of_task = dataclasses.replace(model, tokenizer=None)
  for judged, evaluator, text in (
    (model, other, b'abba'),
    (model.nats, other.nats, tokens_T),
    (model, of_bytes, tokens_T),
    (function, model, b'\0\1\2'),
    (of_bytes, of_task, b'\0\1\2'),
  ):
    with pytest.raises(ValueError, match=r'^evaluator: its tokenizer is .*; allowed: a run with'):
      by(judged, evaluator, text)


@pytest.mark.parametrize(
  ('task', 'said'),
  [
    ('copy/symbols=5', None),
    ('copy/symbols=5/times=2', None),
    ('copy/symbols=8', 'copy, of 11 symbols'),
    ('reverse/symbols=5', 'reverse, of 8 symbols'),
  ],
)
def test_key_tokens_of_a_task_are_found_by_a_run_of_the_same_task(task, said):
  """Another one would read its symbols as others, and find others in silence."""

  def of_task(text):
    c = config.load(config.BASE, {'data.corpus': f'task:{text}'})
    return Known(types.SimpleNamespace(vocab=data.vocab(c.data)), 0, c, None, {})

  asked = {'length': 3, 'context': 1, 'alpha': -1.0, 'beta': -9.0, 'evaluator': of_task(task)}
  found = lambda: score(of_task('copy/symbols=5'), [np.array([2, 1, 0])], 'long_ppl', **asked)
  if said is None:
    assert found().num_tokens == 2
    return
  allowed = 'allowed: a run of the task of the model, copy, of 8 symbols$'
  with pytest.raises(ValueError, match=f'^evaluator: its task is {said}; {allowed}'):
    found()


PAGE = (Path(__file__).parent.parent / 'docs' / 'evaluate.md').read_text()


def test_the_example_of_the_documents_takes_a_run_apart(make_run):
  c, workdir, model = make_run(model__layers=2, attention__window=8)
  block, _ = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
  exec(block.replace('runs/a', str(workdir)), found := {})
  text = b'My fellow citizens'
  assert found['inputs'].tolist() == [[256, *text]]
  np.testing.assert_array_equal(found['logits'], model(found['inputs'], window=8))
  assert found['nats'].shape == (1, len(text))
  nats = nll(model, np.frombuffer(text, np.uint8)[None], window=8)
  np.testing.assert_allclose(found['run'].nats(found['inputs'][:, 1:]), nats, rtol=1e-6)
  length = len(text)
  assert found['weights'].shape == (2, 1, c.model.heads, length, length)
  np.testing.assert_allclose(found['weights'].sum(-1), 1, rtol=1e-5)
  assert not found['weights'][..., 12, :4].any(), 'the window of the run'
  (labels,) = re.findall(r'`(\[\(run\.tokenizer.*?)`', PAGE)
  pieces, losses = zip(*eval(labels, found), strict=True)
  assert b''.join(pieces) == text
  np.testing.assert_array_equal(losses, found['nats'][0])


def test_the_examples_of_rows_make_tables(make_run, command, tmp_path):
  """A score out of rows is that of the table; a metric of one's own gets a table."""
  protocols = {'eval__protocols': ('last_k',), 'eval__controls': ()}
  c, workdir, _ = make_run(step=STEPS, **protocols)
  evaluate.evaluate(c, workdir)
  (reading,) = re.findall(r"`(rows = read\('runs/a'\))`", PAGE)
  exec(reading.replace('runs/a', str(workdir)), found := {'read': row_files.read, 'math': math})
  (score_of_rows,) = re.findall(r"`(sum\(r\['nats'\].*?)`", PAGE)
  found['rows'] = [row for row in found['rows'] if row['length'] == 32]
  assert len(found['rows']) > 1
  _, recipe = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
  exec(recipe.replace('runs/a', str(workdir)), own := {})
  study = tmp_path / 'my_study.py'
  wanted = [{}, {'metric': 'induction_weight'}]
  study.write_text(f'def get_config(): ...\ndef table(): return {wanted}')
  out = tmp_path / 'out'
  code, _, error = command('scripts/table.py', tmp_path, f'--config={study}', f'--out={out}')
  assert not code, error
  with (out / 'table.csv').open() as file:
    records = [record for record in csv.DictReader(file) if record['status']]
  (bpb,) = (r['bpb'] for r in records if r['length'] == '32')
  assert eval(score_of_rows, found) == pytest.approx(float(bpb), rel=1e-12)
  (record,) = (r for r in records if r['metric'] == 'induction_weight')
  assert (record['protocol'], record['length']) == ('repeats', '128')
  assert float(record['value']) == float(own['of_heads'].max()) > 0
  assert 'induction_weight' in (out / 'table.md').read_text()
  rows = rows_of(workdir)
  evaluate.evaluate(c, workdir)
  assert rows_of(workdir) == rows


def test_products_are_exact_whatever_the_process_has_set(make_run, monkeypatch, traced):
  _, workdir, model = make_run()
  run, seen = runs.load_run(workdir), []

  def observe(*_, **__):
    seen.append(jax.config.jax_default_matmul_precision)
    return jnp.zeros((1, 8))

  monkeypatch.setattr(runs, 'token_nll', observe)
  tokens_BT = np.arange(8)[None]
  with jax.default_matmul_precision('default'):
    run.nats(tokens_BT)
    run.observe(tokens_BT, observe)
    score(model, [tokens_BT[0]], 'by_position', length=8, batch_tokens=8)
    assert jax.config.jax_default_matmul_precision == 'default'
  assert min(len(seen), len(traced)) > 0
  assert {*seen, *(precision for precision, _ in traced)} == {'highest'}


def test_a_model_is_compiled_once_for_all_calls(make_run, traced):
  _, _, model = make_run()
  documents_of, other = [bytes(range(97, 121))], jax.tree.map(lambda leaf: 2 * leaf, model)
  asked = {'length': 24, 'attention': {'window': 5}}
  of_model, of_other = (score(x, documents_of, 'by_position', **asked) for x in (model, other))
  assert len(traced) == 1
  assert of_model.nats_a_token != of_other.nats_a_token
  evaluated = {'length': 24, 'context': 6, 'evaluator': model}
  for _ in range(2):
    score(Stub(), documents_of, 'long_ppl', **evaluated)
  assert len(traced) == 3, 'without the window: the whole, and short contexts'


@pytest.mark.parametrize('name', ['alibi', 'rope'])
def test_attention_of_a_model_takes_positions_and_lists(make_run, name):
  """Positions two apart give the same by tiles: ALiBi needs to know how far they reach."""
  _, _, model = make_run(encoding__name=name)
  texts, spread = [bytes(range(97, 121))], 2 * np.arange(24)[None]
  attention = {'position_ids': spread, 'block_sizes': [8, 8], 'backend': 'blockwise'}
  found = score(model, texts, 'by_position', length=24, attention=attention)
  whole = score(model, texts, 'by_position', length=24, attention={'position_ids': spread})
  plain = score(model, texts, 'by_position', length=24)
  assert found.nats_a_token == pytest.approx(whole.nats_a_token, rel=1e-5)
  assert found.nats_a_token != pytest.approx(plain.nats_a_token, rel=1e-5)
  with pytest.raises(
    ValueError, match=r'^position_ids go from 0 to 23000000000; allowed: values of int32'
  ):
    score(model, texts, 'by_position', length=24, attention={'position_ids': spread * 10**9 // 2})


def test_what_layers_of_a_run_have(make_run):
  """Scores, heads and biases of a layer are those that its weights are made of."""
  _, workdir, _ = make_run(model__layers=2, encoding__name='alibi')
  run = runs.load_run(workdir)
  tokens = run.inputs(b'My fellow citizens')[:, 1:]
  weights, scores = (run.observe(tokens, f) for f in (weights_of_heads, scores_of_heads))
  T = tokens.shape[1]
  seen = jnp.where(np.tri(T, dtype=bool), scores, -jnp.inf)
  np.testing.assert_allclose(jax.nn.softmax(seen, axis=-1), weights, atol=1e-6)
  q, k, _ = run.observe(tokens, heads_of_layer)
  enc = run.model.encodings.variants[0].layer(1)
  bias_RH = enc.distance_terms(jnp.arange(T))['bias']
  products = jnp.einsum('bthk,bshk->bhts', q[1], jnp.repeat(k[1], q.shape[3] // k.shape[3], axis=2))
  expected = products * enc.scale(q.shape[-1])
  distance_TS = np.arange(T)[:, None] - np.arange(T)[None]
  expected += jnp.moveaxis(bias_RH[np.maximum(distance_TS, 0)], -1, 0)[None]
  below = np.tri(T, dtype=bool)
  np.testing.assert_allclose(scores[1][..., below], expected[..., below], atol=1e-5)
  entropy = run.observe(tokens, lambda *a: jax.scipy.special.entr(weights_of_heads(*a)).sum(-1))
  np.testing.assert_allclose(entropy, jax.scipy.special.entr(weights).sum(-1), atol=1e-5)


def test_of_many_symbols_tokens_that_are_not_scored_have_no_logits(make_run, traced, monkeypatch):
  _, workdir, model = make_run()
  run = runs.load_run(workdir)
  texts = [bytes(range(32, 80)), bytes(range(60, 97))]
  asked = {
    'last_k': ({'k': 6}, [6]),
    'sliding': ({'stride': 5}, [None, 5]),
    'non_overlapping': ({}, [None]),
    'by_position': ({}, [None]),
    'long_ppl': ({'context': 8, 'stride': 3, 'alpha': -9.0, 'beta': -99.0}, [None, None, 3]),
  }
  for protocol, (settings, lasts) in asked.items():
    found = score(lambda tokens_BT: run.nats(tokens_BT), texts, protocol, length=16, **settings)
    with monkeypatch.context() as patched:
      patched.setattr(scoring, 'MANY_SYMBOLS', model.vocab)
      for judged in (model, run, run.nats):
        run.__dict__.pop('_token_nll', None)  # what it has compiled
        scoring._nats_of_model.clear_cache()
        traced.clear()
        again = score(judged, texts, protocol, length=16, **settings)
        assert [last for _, last in traced] == lasts
        assert again.num_tokens == found.num_tokens > 0
        both = (np.concatenate(each.nats) for each in (again, found))
        np.testing.assert_allclose(*both, rtol=1e-5)


def test_a_head_of_a_run_can_be_taken_out(make_run):
  c, workdir, _ = make_run()
  run = runs.load_run(workdir)
  tokens = run.inputs(b'My fellow citizens')[:, 1:]
  before, K = run.nats(tokens), c.model.head_dim
  w = run.model.layers.w_o
  w[...] = w[...].at[0, K : 2 * K].set(0)
  assert abs(run.nats(tokens) - before).max() > 1e-6


@pytest.mark.parametrize('encoding', ['abacus', 'rope'])
def test_a_run_of_a_task_in_python(make_run, encoding):
  """Examples are those that it is scored on, with the positions that they carry."""
  kind = 'abacus' if encoding == 'abacus' else 'contiguous'
  corpus = f'task:addition/reverse=True/pad=True/positions={kind}'
  protocols = dict(eval__protocols=('answers',), eval__controls=())
  c, workdir, model = make_run(data__corpus=corpus, encoding__name=encoding, **protocols)
  run = runs.load_run(workdir)
  batch = run.examples(3, 32)
  assert (batch.position_ids is None) == (encoding == 'rope')
  found = run.nats(batch.tokens_BT, batch.position_ids)
  options = {} if batch.position_ids is None else {'token_positions': batch.position_ids}
  np.testing.assert_allclose(found, nll(model, batch.tokens_BT, **options), rtol=1e-5)
  weights = run.observe(batch.tokens_BT, weights_of_heads, batch.position_ids)
  assert weights.shape == (c.model.layers, 3, c.model.heads, 32, 32)
  with pytest.raises(UserError, match=r'^inputs: the run is of .task:addition'):
    run.inputs(b'1+1')
  if encoding == 'abacus':
    for function in (run.nats, lambda tokens: score(run, tokens, 'non_overlapping', length=32)):
      with pytest.raises(UserError, match=r'^positions=None: the run is of .*; allowed: those'):
        function(batch.tokens_BT)


@pytest.mark.parametrize('first', [-50, -8, -3, 5])
def test_positions_of_a_run_may_lie_on_both_sides_of_bos(make_run, first):
  _, workdir, model = make_run(encoding__name='alibi')
  tokens_BT = np.random.default_rng(0).integers(0, 256, (2, 8))
  positions_BT = np.tile(first + np.arange(8), (2, 1))
  found = runs.load_run(workdir).nats(tokens_BT, positions_BT)
  expected = nll(model, tokens_BT, token_positions=positions_BT, max_position_distance=64)
  assert np.isfinite(expected).all()
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_observed_is_compiled_once(make_run):
  corpus = 'task:addition/reverse=True/pad=True/positions=abacus'
  options = dict(encoding__name='abacus', eval__protocols=('answers',), eval__controls=())
  _, workdir, _ = make_run(data__corpus=corpus, **options)
  run, traces = runs.load_run(workdir), []

  def count(layer, x_BTD, enc, options):
    traces.append(1)
    return x_BTD.sum()

  batch = run.examples(4, 32)
  run.observe(batch.tokens_BT[:2], count, batch.position_ids[:2])
  once = len(traces)
  run.observe(batch.tokens_BT[2:], count, np.minimum(batch.position_ids[2:], 1))
  assert 0 < once == len(traces)


def test_a_run_of_text_has_no_examples(make_run):
  _, workdir, _ = make_run()
  with pytest.raises(UserError, match=r"^examples: the run is of '.*'; allowed: one of a task"):
    runs.load_run(workdir).examples(2, 8)


def test_a_run_in_python_takes_what_evaluation_changes(make_run):
  c, workdir, model = make_run()
  yarn = {'encoding.scaling.rope_type': 'yarn', 'encoding.scaling.factor': 4}
  tokens_BT = np.arange(97, 121)[None]
  extended = runs.load_run(workdir, yarn | {'attention.window': 9})
  config.overlay(c, yarn)
  other = decoder.shapes(c, 257)
  other = jax.tree.unflatten(jax.tree.structure(other), jax.tree.leaves(model))
  expected = nll(other, jnp.asarray(tokens_BT), window=9)
  np.testing.assert_allclose(extended.nats(tokens_BT), expected, rtol=1e-5)
  assert abs(runs.load_run(workdir).nats(tokens_BT) - expected).max() > 1e-3
  with pytest.raises(UserError, match=r'config\.train\.length=9: the run was trained with'):
    runs.load_run(workdir, {'train.length': 9})


def test_the_dtype_of_a_model_is_not_chosen(make_run):
  _, _, model = make_run()
  with pytest.raises(ValueError, match="attention: dtype='bfloat16'; allowed: none"):
    score(model, [b'abcdef'], 'last_k', length=4, attention={'dtype': 'bfloat16'})


def test_attention_of_a_model_is_limited_as_said(make_run):
  _, _, model = make_run()
  documents_of = [bytes(range(97, 121))] * 2
  found = score(model, documents_of, 'by_position', length=24, attention={'window': 3})
  tokens_BT = jnp.asarray([list(documents_of[0])])
  np.testing.assert_allclose(found.nats[0], nll(model, tokens_BT, window=3)[0], rtol=1e-5)
  assert found.nats[0][-1] != score(model, documents_of, 'by_position', length=24).nats[0][-1]


def test_an_evaluator_finds_key_tokens_and_none_is_no_number(documents):
  nothing = score(Stub(), documents, 'long_ppl', length=16, context=8, alpha=1e9)
  assert (nothing.num_tokens, str(nothing.ppl), str(nothing.bits_a_byte())) == (0, 'nan', 'nan')
  # The evaluator finds tokens likely if and only if the window is long.
  other = lambda tokens_BT: np.where(tokens_BT.shape[1] == 16, 0.5, 5.0) * np.ones(tokens_BT.shape)
  found = score(Stub(), documents, 'long_ppl', length=16, context=8, evaluator=other)
  assert [tokens.tolist() for tokens in found.tokens] == [
    window[8:].tolist() for window in windows.whole_windows(documents, 16)
  ]


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'protocol': 'lask_k'}, "protocol='lask_k'; did you mean 'last_k'"),
    ({'target_context': 17}, 'target_context=17; allowed: length=7 to 16, the shortest document'),
    ({'target_context': 0}, 'target_context=0; allowed: length=7 to 16, the shortest document'),
    ({'k': 0}, 'k=0; allowed: 1 or more'),
    ({'spans': 0}, 'spans=0; allowed: 1 or more'),
    ({'documents': []}, 'documents=0; allowed: 1 or more'),
    ({'k': 8}, 'k=8; allowed: at most length=7'),
    ({'attention': {'window': 3}}, 'allowed: None, unless the model is an LM'),
    ({'protocol': 'long_ppl', 'context': 7}, 'context=7; allowed: 1 to less than length=7'),
    ({'protocol': 'long_ppl', 'context': 4, 'stride': 0}, 'stride=0; allowed: 1 or more'),
    ({'documents': ['text']}, r'a document of shape \(\), <U4; allowed: integers \[T\], or bytes'),
  ],
)
def test_what_cannot_be_scored_is_one_line(documents, arguments, words):
  call = {'documents': documents, 'length': 7} | arguments
  with pytest.raises(ValueError, match=words) as error:
    score(Stub(), **call)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('cut', [np.s_[:, 1:], np.s_[:, :, None], np.s_[:, 0], np.s_[:1]])
def test_a_function_has_a_number_for_each_token(documents, cut):
  """Without a BOS there is none of the first one, and all others would stand one too early."""
  cuts = lambda tokens_BT: 1.0 * tokens_BT[cut]
  words = r'^nats of shape \(.*\) for tokens of shape \(\d+, \d\); allowed: one for each token'
  for model, protocol, settings in (
    (cuts, 'last_k', {'k': 4}),
    (cuts, 'by_position', {}),
    (Stub(), 'long_ppl', {'context': 4, 'evaluator': cuts}),
  ):
    with pytest.raises(ValueError, match=words):
      score(model, documents, protocol, length=7, batch_tokens=21, **settings)


@pytest.mark.parametrize('token', [-100, -1, 257])
def test_tokens_that_are_no_symbols_are_not_scored(make_run, token):
  """JAX would read the last one, or count from it."""
  _, workdir, model = make_run()
  run, tokens_T = runs.load_run(workdir), np.append(np.arange(97, 108), token)
  assert run.model.vocab == 257
  by = functools.partial(score, protocol='by_position', length=12)
  evaluated = dict(protocol='long_ppl', length=12, context=4, evaluator=model)
  for refused in (
    *(lambda judged=judged: by(judged, [tokens_T]) for judged in (model, run, run.nats)),
    lambda: score(lambda tokens: np.ones(tokens.shape), [tokens_T], **evaluated),
    lambda: score(model, [tokens_T[::-1]], length=4, k=2),  # all is looked at before
    lambda: run.nats(jnp.asarray(tokens_T)[None]),
    lambda: run.observe(tokens_T[None], weights_of_heads),
    lambda: run.model(tokens_T[None]),
  ):
    with pytest.raises(ValueError, match=f'^token {token}; allowed: symbols, from 0 to 256$'):
      refused()
  assert jax.eval_shape(run.model, jnp.asarray(tokens_T)[None]).shape == (1, 12, 257)
  run.tokenizer = types.SimpleNamespace(lengths=np.ones(100, int))
  with pytest.raises(ValueError, match=r'^token 107; allowed: symbols, from 0 to 99$'):
    by(run, [tokens_T[:-1]])


def test_settings_of_a_protocol_are_those_of_its_function(documents):
  with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
    score(Stub(), documents, 'last_k', length=7, stride=3)
  for function in scoring.SCORERS.values():
    first = list(inspect.signature(function).parameters)[:5]
    assert first == ['nll', 'texts', 'length', 'batch_tokens', 'takes_last']
