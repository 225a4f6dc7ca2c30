"""LongPPL: key tokens against loops over single windows, and rows of real models."""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from test_evaluation import BASE, TINY, chosen_documents, overlaid, rows_of

from posenc_jax import config, data, storage
from posenc_jax.data.documents import Listing
from posenc_jax.errors import UserError
from posenc_jax.evaluation import (
  evaluate,
  long_ppl,
  long_ppl_evaluator,
  plan,
  preflight,
  runs,
  scoring,
  windows,
)
from posenc_jax.evaluation.model_functions import compiled
from posenc_jax.model.token_nll import token_nll
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import scored_on
from posenc_jax.training import provenance
from posenc_jax.training.checkpoints import Checkpoints


def cosine_nll(tokens_BT):
  """Nats that depend on all tokens of a window up to the scored one, 0 to 8."""
  weights_T = np.arange(1, tokens_BT.shape[1] + 1) ** 0.7
  return 4 + 4 * np.cos(np.cumsum(tokens_BT * weights_T, axis=1))


@pytest.mark.parametrize(
  ('T', 'context', 'stride'), [(40, 8, 2), (40, 8, 5), (13, 12, 4), (9, 8, 20)]
)
@pytest.mark.parametrize(('alpha', 'beta'), [(2.0, -2.0), (0.0, -6.0)])
def test_key_tokens_are_brute_force(T, context, stride, alpha, beta):
  windows_WT = np.random.default_rng(0).integers(1, 50, (6, T))
  deciding = long_ppl.deciding_nats(cosine_nll, windows_WT, context, stride, 100)
  found = long_ppl.key_tokens(*deciding, context, alpha, beta)
  expected = np.zeros(windows_WT.shape, bool)
  for n, window in enumerate(windows_WT):
    for t in range(context, T):
      start = (t - context) // stride * stride  # of the short context, context + stride at most
      full = cosine_nll(window[None, : t + 1])[0, -1]
      short = cosine_nll(window[None, start : t + 1])[0, -1]
      expected[n, t] = short - full > alpha and -full > beta
  np.testing.assert_array_equal(found, expected)
  assert not found[:, : context + stride].any()  # their short context is all there is
  assert found.any() == (context + stride < T)


LONG_PPL = {
  'eval__protocols': ('long_ppl',),
  'eval__long_ppl_context': 4,
  'eval__stride': 3,
  'eval__long_ppl_alpha': 0.01,
  'eval__long_ppl_beta': -20.0,
}


def test_rows_are_the_perplexity_of_key_tokens(make_run, capsys):
  c, workdir, model = make_run(**LONG_PPL, encoding__name='nope')
  evaluate.evaluate(c, workdir)
  nll = compiled(token_nll, c)
  texts = [windows.excerpt(text, 40) for text in chosen_documents(c).values()]
  for row in rows_of(workdir):
    assert (row['protocol'], row['stride'], row['metric']) == ('long_ppl', 3, None)
    nats = []
    for window in windows.whole_windows(texts, row['length']).astype(np.int32):
      full_T = np.asarray(nll(model, window[None])[0], np.float64)
      for t in range(4, len(window)):
        start = (t - 4) // 3 * 3
        short_T = np.asarray(nll(model, window[None, start : start + 7])[0], np.float64)
        if short_T[t - start] > full_T[t] + 0.01:
          nats.append(full_T[t])
    assert row['tokens'] == row['bytes'] == len(nats) > 0
    assert row['ppl'] == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
  assert [row['length'] for row in rows_of(workdir)] == [16, 32]
  said = f'LongPPL {row["ppl"]:.2f} over {row["tokens"]} key tokens'
  assert said in capsys.readouterr().out


def test_a_common_evaluator_finds_the_key_tokens_of_all(make_run, tmp_path):
  evaluator_config, workdir, evaluator = make_run(**LONG_PPL)
  workdir.rename(tmp_path / 'evaluator')
  named = str(tmp_path / 'evaluator')
  c, workdir, model = make_run(**LONG_PPL, encoding__name='nope', eval__long_ppl_evaluator=named)
  evaluate.evaluate(c, workdir)
  nll, evaluator_nll = compiled(token_nll, c), compiled(token_nll, evaluator_config)
  texts = [windows.excerpt(text, 40) for text in chosen_documents(c).values()]
  windows_WT = windows.whole_windows(texts, 32)
  judged = lambda tokens_BT: evaluator_nll(evaluator, tokens_BT)
  deciding = long_ppl.deciding_nats(judged, windows_WT, 4, 3, 64)
  is_key_WT = long_ppl.key_tokens(*deciding, 4, 0.01, -20.0)
  nats_WT = windows.by_position(lambda tokens_BT: nll(model, tokens_BT), windows_WT, 64)
  rows = [row for row in rows_of(workdir) if row['length'] == 32]
  assert [row['document'] for row in rows] == list(chosen_documents(c))
  for row, nats_T, is_key_T in zip(rows, nats_WT, is_key_WT, strict=True):
    assert row['tokens'] == is_key_T.sum() > 0
    assert row['nats'] == pytest.approx(nats_T[is_key_T].sum(), rel=1e-5)

  # What cannot read the text is refused; the next test is through the checks before a training.
  for overrides, words in (
    ({'eval__long_ppl_evaluator': str(tmp_path)}, 'no checkpoints there; allowed: the directory'),
    ({'data__tokenizer': 'sentencepiece', 'data__vocab': 300}, 'has 257 symbols; allowed: .* 300'),
  ):
    with pytest.raises(UserError, match=words) as error:
      long_ppl_evaluator.check_evaluator(overlaid(c, **overrides), data.opened(c.data, 'test'))
    assert str(error.value).startswith('config.eval.long_ppl_evaluator=')


def test_an_evaluator_trained_on_another_folder_judges_all_lengths(make_run, tmp_path, monkeypatch):
  _, workdir, _ = make_run(**LONG_PPL, data__corpus=str(tmp_path / 'gone'))
  workdir.rename(tmp_path / 'evaluator')
  listing = Listing('test', 9, 'another folder has other documents')
  made_of = provenance.MadeOf(None, listings=[listing])
  provenance.claim(tmp_path / 'evaluator', made_of, begins=True)
  named = str(tmp_path / 'evaluator')
  c, workdir, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=named)
  restored = []
  # as of many symbols: its short contexts are asked for what they score
  monkeypatch.setattr(long_ppl_evaluator, 'MANY_SYMBOLS', data.VOCAB)

  def restore(*args, restore=runs.restore, **options):
    restored.append(str(args[2]))
    return restore(*args, **options)

  monkeypatch.setattr(long_ppl_evaluator, 'restore', restore)
  evaluate.evaluate(c, workdir)
  assert [row['status'] for row in rows_of(workdir)] == 6 * ['ok']
  assert restored == [named]  # once for all lengths


def test_an_evaluator_reads_in_the_dtype_of_its_own_config(make_run, tmp_path, monkeypatch, capsys):
  """What it keeps, and rows, name it by that config: key tokens are the same for all."""
  asked = []

  def recorded(function, config, compiled=long_ppl_evaluator.compiled):
    asked.append(config.eval.compute_dtype)
    return compiled(function, config)

  monkeypatch.setattr(long_ppl_evaluator, 'compiled', recorded)
  _, workdir, _ = make_run(**LONG_PPL, eval__compute_dtype='bfloat16')
  named = tmp_path / 'evaluator'
  workdir.rename(named)
  c, workdir, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=str(named))
  evaluate.evaluate(c, workdir)
  said = f'{named}: finds key tokens in bfloat16, the eval.compute_dtype of its own config; '
  assert said + 'the evaluation is in float32\n' in capsys.readouterr().out
  in_half = overlaid(c, eval__compute_dtype='bfloat16')
  evaluate.evaluate(in_half, workdir)  # by what it has kept
  assert asked == ['bfloat16']
  tokens = [(row['length'], row['document'], row['tokens']) for row in rows_of(workdir)]
  assert tokens[:6] == tokens[6:]
  shutil.rmtree(named / long_ppl_evaluator.KEPT)
  (workdir / 'eval.jsonl').unlink()
  evaluate.evaluate(in_half, workdir)
  assert 'finds key tokens in' not in capsys.readouterr().out


def test_an_evaluator_that_was_trained_on_is_another_one(make_run, tmp_path, monkeypatch):
  """In rows stands which one it was; its path alone would let both stand side by side."""
  evaluator_config, workdir, model = make_run(encoding__name='nope')
  workdir.rename(tmp_path / 'evaluator')
  monkeypatch.chdir(tmp_path)
  c, workdir, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=str(tmp_path / 'evaluator'))
  field, own = 'eval.long_ppl_evaluator', config.config_hash(evaluator_config)[:8]
  evaluate.evaluate(c, workdir)
  evaluate.evaluate(overlaid(c, eval__long_ppl_evaluator='./evaluator'), workdir)
  first = rows_of(workdir)
  evaluator = {'run': 'evaluator', 'step': 3, 'config': own}
  assert [row['overrides'] for row in first] == 6 * [{field: evaluator}]
  with Checkpoints(tmp_path / 'evaluator', max_to_keep=1) as checkpoints:
    checkpoints.save(4, model, {'count': jnp.array(4)})
  evaluate.evaluate(overlaid(c, eval__protocols=('long_ppl', 'non_overlapping')), workdir)
  more = rows_of(workdir)[len(first) :]
  assert {row['protocol']: row['overrides'] for row in more} == {
    'long_ppl': {field: evaluator | {'step': 4}},
    'non_overlapping': None,
  }
  other = config.to_json(overlaid(evaluator_config, seed=1))
  storage.write_json(tmp_path / 'evaluator' / 'config.json', other)
  evaluate.evaluate(c, workdir)
  assert rows_of(workdir)[-1]['overrides'][field]['config'] != own


def test_runs_of_two_training_lengths_have_key_tokens_of_one_short_context_or_are_not_compared(
  make_run, tmp_path
):
  _, workdir, _ = make_run()
  workdir.rename(tmp_path / 'evaluator')
  c, _, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=str(tmp_path / 'evaluator'))
  corpus = data.opened(c.data, 'test')

  def scored_by(**overrides):
    said = long_ppl_evaluator.evaluator_of(overlaid(c, **overrides), corpus)
    fields = {'protocol': 'long_ppl', 'k': None, 'overrides': said}
    return scored_on(synthetic.row('rope', **fields))

  assert scored_by(train__length=8) == scored_by()
  of_each = [scored_by(eval__long_ppl_context=0, train__length=n) for n in (8, 16)]
  assert len({*of_each}) == 2


def test_an_evaluator_reads_the_longest_window(make_run, tmp_path):
  _, workdir, _ = make_run(encoding__name='learned')
  workdir.rename(tmp_path / 'learned')
  c, _, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=str(tmp_path / 'learned'))
  with pytest.raises(UserError, match='its positions end at 16; allowed: a run that reads 32'):
    preflight.check_evaluation(c)


def test_an_evaluator_has_the_tokens_and_the_formulas_of_when_it_was_trained(
  make_run, tmp_path, monkeypatch
):
  """That is known before a training, not only once the trained run is evaluated."""
  _, workdir, _ = make_run()
  named = tmp_path / 'evaluator'
  workdir.rename(named)
  c, _, _ = make_run(**LONG_PPL, eval__long_ppl_evaluator=str(named))
  preflight.check_evaluation(c)
  provenance.claim(named, provenance.MadeOf('a' * 64), begins=True)
  words = f"long_ppl_evaluator='{named}': its run was trained with the tokenizer aaaaaaaaaaaaaaaa"
  with pytest.raises(UserError, match=f'^config.eval.{words}, here is no learned tokenizer; '):
    preflight.check_evaluation(c)
  monkeypatch.setattr(long_ppl_evaluator, 'user_code_hashes', lambda config: {'mine': 'b' * 64})
  provenance.claim(named, provenance.MadeOf(None, code={'mine': 'a' * 64}), begins=True)
  words = f"long_ppl_evaluator='{named}': encoding 'mine' was edited since its run began; allowed: "
  with pytest.raises(UserError, match=f'^config.eval.{words}'):
    preflight.check_evaluation(c)
  saved = storage.read_json(named / 'config.json')
  storage.write_json(named / 'config.json', saved | {'encoding': {'name': 'mine'}})
  words = f"long_ppl_evaluator='{named}': 'mine' is not registered; allowed: with --config=STUDY"
  with pytest.raises(UserError, match=f'^config.eval.{words}'):
    preflight.check_evaluation(c)


def test_no_key_tokens_is_an_outcome(make_run, capsys):
  """At the length of the short context there is not even that."""
  changed = {'eval__long_ppl_alpha': 100.0, 'eval__long_ppl_context': 16}
  c, workdir, _ = make_run(
    **LONG_PPL | changed | {'eval__protocols': ('long_ppl', 'non_overlapping')}
  )
  evaluate.evaluate(c, workdir)
  (row,) = (row for row in rows_of(workdir) if row['protocol'] == 'long_ppl')
  assert (row['length'], row['status'], row['tokens']) == (32, 'no_key_tokens', None)
  out = capsys.readouterr().out
  assert 'long_ppl at 32: no token is better by far for the whole context' in out
  assert [line.split()[3::2] for line in out.splitlines() if '│ long_ppl' in line] == [['—', '—']]


def test_nats_that_are_no_numbers_are_not_taken_for_no_key_tokens(letters):
  c = overlaid(config.load(BASE, {**TINY, 'data.corpus': letters}), **LONG_PPL)
  (measurement, *_) = plan.plan(c, data.opened(c.data, 'test'))
  nan = lambda tokens_BT: np.full(tokens_BT.shape, np.nan)
  assert measurement.score(nan, [0]) == [{'status': 'not_finite'}]
  measurement = plan.plan(c, data.opened(c.data, 'test'))[-1]
  assert measurement.score(nan_in_short_contexts, [0]) == [{'status': 'not_finite'}]


def nan_in_short_contexts(tokens_BT):
  return np.where(tokens_BT.shape[1] < 10, np.nan, cosine_nll(tokens_BT))


@pytest.fixture
def judged_by(make_run, tmp_path, monkeypatch):
  """A function (nll, overrides) -> (config, directory) of a run whose evaluator has these
  likelihoods.
  """
  _, workdir, _ = make_run()
  workdir.rename(tmp_path / 'evaluator')
  named = str(tmp_path / 'evaluator')

  def make(nll, **overrides):
    monkeypatch.setattr(long_ppl_evaluator, 'restore', lambda *_, **__: (None, 0))
    monkeypatch.setattr(long_ppl_evaluator, 'on_devices', lambda *_: nll)
    return make_run(**LONG_PPL | overrides, eval__long_ppl_evaluator=named)[:2]

  return make


def test_nats_of_an_evaluator_that_are_no_numbers_are_not_left_out(judged_by):
  """Nor are they kept: the next model is not scored by them."""
  words = (
    r"long_ppl_evaluator='.*evaluator': nats of the model that decides on key tokens are not finite"
  )
  for _ in range(2):
    c, workdir = judged_by(lambda tokens_BT: np.full(tokens_BT.shape, np.nan))
    with pytest.raises(UserError, match=words):
      evaluate.evaluate(c, workdir)
    shutil.rmtree(workdir)


def test_documents_are_scored_alike_however_many_at_a_time(judged_by, tmp_path):
  """Also where some are scored or judged already, and by their own windows: one that is not finite
  leaves the others as they are.
  """
  c, workdir = judged_by(cosine_nll)
  evaluate.evaluate(c, workdir)
  read = lambda: [{k: row[k] for k in row if k != 'crc'} for row in rows_of(workdir)]
  wanted = read()
  whole = overlaid(c, eval__batch_tokens=1000)
  for kept in (0, 1, 3):
    storage.rewrite_rows(workdir / 'eval.jsonl', wanted[:kept])
    evaluate.evaluate(whole, workdir)
    close = lambda row: row | {'nats': None, 'ppl': None, 'bpb': None}
    key = lambda row: (row['length'], row['document'])
    found = sorted(read(), key=key)
    assert list(map(close, found)) == list(map(close, sorted(wanted, key=key)))
    for row, other in zip(found, sorted(wanted, key=key), strict=True):
      assert row['nats'] == pytest.approx(other['nats'], rel=1e-5)
    for path in [*(tmp_path / 'evaluator' / long_ppl_evaluator.KEPT).glob('*.npy')][:kept]:
      path.unlink()
  (measurement,) = plan.plan(overlaid(whole, eval__lengths=(32,)), data.opened(c.data, 'test'))
  (bad, *_), texts = measurement.key_fields, chosen_documents(c)
  first_T = windows.whole_windows([windows.excerpt(texts[bad['document']], 40)], 32)[0]
  is_first = lambda tokens_BT: (tokens_BT == first_T).all(axis=1, keepdims=True)
  nan = lambda tokens_BT: np.where(is_first(tokens_BT), np.nan, cosine_nll(tokens_BT))
  statuses = [row.get('status', 'ok') for row in measurement.score(nan, [0, 1])]
  assert statuses == ['not_finite', 'ok']


def test_an_evaluator_reads_a_text_once_for_all_models(judged_by, tmp_path):
  """Its nats decide, so that other thresholds need no more of it; other contexts do."""
  calls = []

  def nll(tokens_BT):
    calls.append(tokens_BT.shape)
    return cosine_nll(tokens_BT)

  def tokens(**overrides):
    calls.clear()
    c, workdir = judged_by(nll, **overrides)
    evaluate.evaluate(c, workdir)
    found = [row['tokens'] for row in rows_of(workdir)]
    shutil.rmtree(workdir)
    return found

  first = tokens()
  assert calls
  assert (tokens(encoding__name='nope'), calls) == (first, [])
  assert tokens(eval__long_ppl_alpha=2.0) < first
  assert not calls
  tokens(eval__stride=2)
  assert calls
  for path in (tmp_path / 'evaluator' / long_ppl_evaluator.KEPT).glob('*.npy'):
    path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(UserError, match=r'npy is damaged; allowed: the folder without it$'):
    tokens()


def test_an_evaluator_whose_folder_is_read_only_keeps_nothing(judged_by, monkeypatch):
  c, workdir = judged_by(cosine_nll)
  monkeypatch.setattr(storage, 'is_writable', lambda folder: pathlib.Path(folder) == workdir)
  evaluate.evaluate(c, workdir)
  assert {row['status'] for row in rows_of(workdir)} == {'ok'}
  assert not (workdir.parent / 'evaluator' / long_ppl_evaluator.KEPT).exists()


def test_a_document_without_key_tokens_adds_nothing(judged_by, capsys):
  is_whole_and_odd = lambda tokens_BT: (tokens_BT.shape[1] == 32) & (tokens_BT[:, :1] % 2 == 1)
  keyless = lambda tokens_BT: np.where(is_whole_and_odd(tokens_BT), 50.0, cosine_nll(tokens_BT))
  c, workdir = judged_by(keyless, eval__lengths=(32,))
  names = [name for name, text in chosen_documents(c).items() if text[(len(text) - 40) // 2] % 2]
  evaluate.evaluate(c, workdir)
  rows = rows_of(workdir)
  empty = [row['document'] for row in rows if row['status'] == 'no_key_tokens']
  assert empty == names
  assert len(empty) == 1 < len(rows)
  (scores,) = collect(rows)
  (score,) = scores.by_seed.values()
  others = [row for row in rows if row['status'] == 'ok']
  assert score.status == 'ok'
  assert (score.nats, score.documents) == (sum(row['nats'] for row in others), len(others))
  tokens = sum(row['tokens'] for row in others)
  ppl = np.exp(score.nats / tokens)
  assert f'LongPPL {ppl:.2f} over {tokens} key tokens' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('model', 'evaluator', 'words'),
  [
    ('half', None, 'of the model are not finite in 1 of 2 windows'),
    ('half', 'fine', 'of the model are not finite in 1 of 2 windows'),
    ('fine', 'half', 'of the model that decides on key tokens are not finite in 1 of 2 windows'),
    ('short', None, 'of the model that decides on key tokens are not finite in 2 of 2 windows'),
  ],
)
def test_scores_of_long_ppl_leave_out_no_window(model, evaluator, words):
  half = lambda tokens_BT: np.where(tokens_BT[:, :1] == 1, np.nan, cosine_nll(tokens_BT))
  of_name = {'half': half, 'fine': cosine_nll, 'short': nan_in_short_contexts, None: None}
  documents = [np.full(32, 1), np.full(32, 2)]
  settings = {'length': 32, 'context': 4, 'stride': 3, 'evaluator': of_name[evaluator]}
  with pytest.raises(ValueError, match=words):
    scoring.score(of_name[model], documents, 'long_ppl', **settings)


def test_a_model_that_is_its_own_evaluator_reads_each_whole_window_once(letters):
  c = overlaid(config.load(BASE, {**TINY, 'data.corpus': letters}), **LONG_PPL)
  measurement = plan.plan(c, data.opened(c.data, 'test'))[-1]
  calls, texts = [], [windows.excerpt(text, 40) for text in chosen_documents(c).values()]

  def nll(tokens_BT):
    calls.append(tokens_BT.shape)
    return cosine_nll(tokens_BT)

  (found,) = measurement.score(nll, [0])
  assert calls.count((2, 32)) == -(-len(windows.whole_windows(texts, 32)) // 2)
  calls.clear()
  settings = {'context': 4, 'stride': 3, 'alpha': 0.01, 'beta': -20.0}
  result = scoring.score(nll, texts, 'long_ppl', length=32, batch_tokens=64, **settings)
  assert calls.count((2, 32)) == -(-len(windows.whole_windows(texts, 32)) // 2)
  assert (result.num_tokens, result.ppl) == (
    found['tokens'],
    pytest.approx(np.exp(found['nats'] / found['tokens'])),
  )


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'eval__long_ppl_context': 32}, r'eval.lengths=\(16, 32\); allowed: one more than the short'),
    ({'eval__long_ppl_context': 29}, 'allowed: one more than .* the stride of long_ppl, 32 tokens'),
    ({'eval__long_ppl_alpha': 0.0}, 'eval.long_ppl_alpha=0.0; allowed: more than 0 nats'),
    ({'eval__long_ppl_beta': 2.0}, 'eval.long_ppl_beta=2.0; allowed: 0 or less nats'),
    ({'eval__document_tokens': 20}, 'allowed: 32 or more for windows of that length .long_ppl.'),
  ],
)
def test_bad_settings_are_one_line(overrides, words):
  c = config.load(BASE, TINY)
  with pytest.raises(UserError, match=words):
    config.validate(overlaid(c, **LONG_PPL | overrides))


def test_the_short_context_is_the_training_length_where_none_is_said(letters):
  def measured(context):
    c = overlaid(
      config.load(BASE, {**TINY, 'data.corpus': letters}),
      **LONG_PPL | {'eval__long_ppl_context': context},
    )
    measurements = plan.plan(c, data.opened(c.data, 'test'))
    return {found.length: found.score(cosine_nll, [0]) for found in measurements}

  assert measured(0) == measured(TINY['train.length'])
  assert measured(0)[32] != measured(8)[32]


def test_lengths_that_the_short_context_reaches_have_no_rows(letters):
  """Up to context and stride, 16 tokens, a short context is all that there is before a token."""

  def lengths(context, *asked):
    fields = {'eval__long_ppl_context': context, 'eval__lengths': asked}
    c = overlaid(config.load(BASE, {**TINY, 'data.corpus': letters}), **LONG_PPL | fields)
    return [found.length for found in plan.plan(c, data.opened(c.data, 'test'))]

  assert lengths(13, 12, 14, 16, 32) == [32]
  assert lengths(13, 16, 17, 32) == [17, 32]
  assert lengths(0, 19, 20, 32) == [20, 32]  # of the training length, 16


def test_the_short_context_moves_on_by_a_quarter_where_no_stride_is_said():
  documents = list(np.random.default_rng(0).integers(1, 50, (6, 40)))
  keys = lambda **settings: [
    tokens_T.tolist()
    for tokens_T in scoring.score(cosine_nll, documents, 'long_ppl', length=40, **settings).tokens
  ]
  assert keys(context=8) == keys(context=8, stride=2)
  assert keys(context=8) not in (keys(context=8, stride=1), keys(context=8, stride=3))
  assert keys(context=3) == keys(context=3, stride=1)
