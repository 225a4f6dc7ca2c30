"""Text that runs write: what is drawn, with and without the cache, and what is refused."""

import gc
import io
import shutil
import types
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import BASE, TINY

from posenc_jax import config, storage
from posenc_jax.data.tokenizers import Bytes
from posenc_jax.errors import UserError
from posenc_jax.evaluation import generation
from posenc_jax.evaluation.generation import Sampling, end_tokens, generate
from posenc_jax.evaluation.runs import load_run, without_bos
from posenc_jax.training import loop
from posenc_jax.training.run_dir import claim_run_dir
from scripts import generate as generate_script

LIKELY = [0.4, 0.3, 0.2, 0.1]  # probabilities of four tokens; BOS would be the likeliest
BUT_LAST = np.arange(5) < 4


def drawn_token(sampling, logits_V, number, is_drawn_V):
  return int(generation.draw(logits_V, is_drawn_V, sampling.top_k, *sampling.arguments, number))


@pytest.mark.parametrize(
  ('fields', 'drawn'),
  [
    ({'temperature': 0.0}, {0}),
    ({'temperature': 1.0}, {0, 1, 2, 3}),
    ({'temperature': 1.0, 'top_k': 2}, {0, 1}),
    ({'temperature': 1.0, 'top_p': 0.69}, {0, 1}),
    ({'temperature': 1.0, 'top_p': 0.71}, {0, 1, 2}),
    ({'temperature': 1.0, 'top_k': 2, 'top_p': 0.5}, {0}),  # 0.4 / 0.7 of what top_k leaves
    ({'temperature': 0.05}, {0}),
    ({'temperature': 1e-30}, {0}),
  ],
)
def test_only_the_likeliest_are_drawn(fields, drawn):
  sampling = Sampling(**fields)
  logits_V = jnp.log(jnp.array([*LIKELY, 9.0]))
  assert {drawn_token(sampling, logits_V, number, BUT_LAST) for number in range(60)} == drawn


def test_bos_and_what_the_tokenizer_lacks_are_never_drawn():
  logits_V = jnp.log(jnp.array([9.0, *LIKELY, 9.0, 9.0]))
  drawn_V = np.array([False, True, True, True, True, False, False])
  assert {drawn_token(Sampling(1.0), logits_V, n, drawn_V) for n in range(60)} == {1, 2, 3, 4}
  assert drawn_token(Sampling(0.0), logits_V, 0, drawn_V) == 1


def test_tokens_are_drawn_as_often_as_they_are_likely():
  logits_V = jnp.log(jnp.array([*LIKELY, 9.0])) / 2
  sampling = Sampling(0.5, seed=3)
  draws = [drawn_token(sampling, logits_V, number, BUT_LAST) for number in range(400)]
  shares = np.bincount(draws, minlength=4) / len(draws)
  np.testing.assert_allclose(shares, LIKELY, atol=0.08)


@pytest.fixture(scope='module')
def run(corpus, tmp_path_factory):
  """Directory and config of a run with a table of 16 positions."""
  folder = tmp_path_factory.mktemp('generation')
  own = {'data.corpus': corpus, 'encoding.name': 'learned', 'train.steps': 4}
  own |= {'model.vocab': 300}  # more than there are bytes
  c = config.load(BASE, {**TINY, **own})
  loop.train(c, folder / 'run')
  return folder / 'run', c


def text(run, prompt=b'the q', count=11, **fields):
  workdir, c = run
  return b''.join(generate(c, workdir, prompt, count, Sampling(**fields)))


def text_without_cache(run, prompt=b'the q', count=11, **fields):
  """The same with all tokens computed again for each."""
  loaded, sampling = load_run(run[0]), Sampling(**fields)
  logits = jax.jit(lambda tokens_1T: loaded.model(tokens_1T, **loaded.options))
  inputs_1T = loaded.inputs(prompt)
  length = inputs_1T.shape[1]
  tokens_1S = np.pad(inputs_1T, ((0, 0), (0, count)))  # no token sees what is right of it
  is_drawn_V = np.arange(loaded.model.vocab) < 256
  for number, place in enumerate(range(length, length + count)):
    with jax.default_matmul_precision('highest'):
      logits_V = logits(tokens_1S[:, :-1])[0, place - 1]
    tokens_1S[0, place] = drawn_token(sampling, logits_V, number, is_drawn_V)
  return bytes(tokens_1S[0, length:].tolist())


@pytest.mark.parametrize(
  'fields',
  [{'temperature': 1.0, 'seed': 5}, pytest.param({'temperature': 0.0}, marks=pytest.mark.slow)],
)
def test_a_text_is_the_same_in_parts_and_without_the_cache(run, fields, monkeypatch):
  made = text(run, **fields)
  assert len(made) == 11
  assert text_without_cache(run, **fields) == made
  monkeypatch.setattr(generation, 'PART', 2)  # BOS and five bytes come in three parts
  assert text(run, **fields) == made


def test_a_prompt_that_begins_with_bos_gets_no_second(run, monkeypatch):
  """As one that a chat template has made."""
  expected, bos = text(run, temperature=0.0), load_run(run[0]).model.bos
  encode = Bytes.encode
  monkeypatch.setattr(Bytes, 'encode', lambda self, text: np.append(bos, encode(self, text)))
  assert load_run(run[0]).inputs(b'ab').tolist() == [[bos, *b'ab']]
  assert text(run, temperature=0.0) == expected
  assert without_bos(np.array([bos, bos, 5]), bos).tolist() == [bos, 5]
  assert without_bos(np.array([], np.int32), bos).tolist() == []


def test_layers_are_held_once(run, monkeypatch):
  """One by one, and no longer in the stack that a checkpoint has."""
  stacked, restore = [], generation.restore

  def watched(*arguments, **options):
    model, step = restore(*arguments, **options)
    stacked.extend(weakref.ref(leaf) for leaf in jax.tree.leaves(model.layers))
    return model, step

  monkeypatch.setattr(generation, 'restore', watched)
  pieces = generate(run[1], run[0], b'the q', 3, Sampling())
  assert next(pieces)
  gc.collect()
  assert stacked
  assert {leaf() for leaf in stacked} == {None}


def test_logits_that_are_not_finite_are_no_text(run, monkeypatch):
  """Not the first token that may be drawn, again and again."""
  decode = generation.decode

  def spoiled(*arguments, **options):
    logits, cache = decode(*arguments, **options)
    return logits + jnp.where(cache.count > 9, jnp.nan, 0.0), cache

  monkeypatch.setattr(generation, 'decode', spoiled)
  pieces = generate(run[1], run[0], b'the q', 11, Sampling(temperature=0.0))
  assert len([next(pieces) for _ in range(4)]) == 4  # BOS, five bytes and three that were drawn
  with pytest.raises(UserError, match='no finite logits after 10 tokens'):
    next(pieces)


def test_a_token_is_read_while_the_next_is_computed(run, monkeypatch):
  jit, steps = jax.jit, []

  def counted(function, **options):
    compiled = jit(function, **options)
    return lambda *arguments: steps.append(arguments[-1]) or compiled(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(generation.jax, 'jit', counted)
    pieces = generate(run[1], run[0], b'the q', 4, Sampling())
    counts = [len(steps) for _ in pieces]
  assert counts == [2, 3, 4, 4]
  assert steps == [0, 1, 2, 3]


def test_texts_with_other_draws_are_one_program_and_so_are_all_steps(run, monkeypatch):
  """Where the prompt is empty, a step reads a token each time."""
  jit, steps, programs = jax.jit, [], set()

  def watched(function, **options):
    step = jit(function, **options)
    steps.append(step)

    def call(*arguments):
      programs.add(step.lower(*arguments).as_text())
      return step(*arguments)

    return call

  with monkeypatch.context() as patch:
    patch.setattr(generation.jax, 'jit', watched)
    text(run, b'', 3, temperature=1.0)
    text(run, b'', 3, temperature=0.5, top_p=0.9, seed=7)
  assert [step._cache_size() for step in steps] == [1, 1]
  assert len(programs) == 1


def test_products_are_exact_whatever_the_process_has_set(run, monkeypatch):
  decode, seen = generation.decode, []

  def observed(*arguments, **options):
    seen.append(jax.config.jax_default_matmul_precision)
    return decode(*arguments, **options)

  monkeypatch.setattr(generation, 'decode', observed)
  with jax.default_matmul_precision('default'):
    text(run, count=1)
  assert set(seen) == {'highest'}


@pytest.mark.parametrize('script', ['scripts/generate.py', 'eval.py'])
def test_a_pattern_of_layers_is_no_unknown_encoding(script, tmp_path, command):
  section = {'name': 'pattern', 'layers': ('rope',)}
  claim_run_dir(tmp_path, config.load(BASE, {**TINY, 'encoding': section}))
  code, _, err = command(script, f'--workdir={tmp_path}')
  assert (code, err.count('\n')) == (2, 1)
  assert 'no checkpoint; allowed: the directory of a run' in err


@pytest.mark.parametrize(
  ('eos', 'ignore_eos', 'made'),
  [(None, False, b'a b'), (32, False, b'a'), ([5, 32], False, b'a'), (32, True, b'a b')],
)
def test_a_text_ends_where_its_model_ends_texts(run, eos, ignore_eos, made, monkeypatch):
  """BOS is drawn where it is that token, as in GPT-2 and Qwen."""
  seen = []

  def tokens(*arguments):
    seen.append(arguments[5])
    return iter(b'a b')

  monkeypatch.setattr(generation, 'tokens_after', tokens)
  monkeypatch.setattr(
    generation, 'end_tokens', lambda workdir, _: end_tokens(workdir.parent, workdir)
  )
  storage.write_json(run[0].parent / 'source_config.json', {'eos_token_id': eos})
  c = config.from_json(config.to_json(run[1]))
  config.overlay(c, {'model.bos': 32})
  assert b''.join(generate(c, run[0], b'', 3, Sampling(), ignore_eos=ignore_eos)) == made
  assert seen[0][32] == (made == b'a')
  assert seen[0].sum() == (256 if made == b'a' else 255)


def test_tokens_that_end_a_text_may_stand_beside_the_tokenizer_alone(tmp_path):
  """As <|end|> of Phi-3."""
  generation_config = tmp_path / 'generation_config.json'
  generation_config.write_text('{"eos_token_id": [32007, 32000]}')
  assert end_tokens(tmp_path, tmp_path) == set(), 'of a run that comes from no such model'
  storage.write_json(tmp_path / 'source_config.json', {'eos_token_id': 32000})
  assert end_tokens(tmp_path, tmp_path) == {32000, 32007}
  assert end_tokens(tmp_path, tmp_path / 'none') == {32000}
  generation_config.write_text('{')
  with pytest.raises(UserError, match=r'^workdir=.*: generation_config.json is damaged'):
    end_tokens(tmp_path, tmp_path)


def test_a_run_writes_where_its_corpus_is_gone(run, corpus):
  corpus = Path(corpus)
  corpus.rename(corpus.with_name('moved'))
  try:
    assert len(text(run)) == 11
    assert load_run(run[0]).inputs(b'a').tolist() == [[299, 97]]
  finally:
    corpus.with_name('moved').rename(corpus)


def test_a_run_that_was_trained_by_another_backend_writes(run, tmp_path):
  """Fields of that backend are then without effect, which is no fault of a run that is trained."""
  shutil.copytree(run[0], tmp_path / 'run')
  tiled = config.from_json(config.to_json(run[1]))
  config.overlay(tiled, {'attention.backend': 'blockwise', 'attention.block_sizes': (64, 64)})
  storage.write_json(tmp_path / 'run' / 'config.json', config.to_json(tiled))
  config.overlay(tiled, {'attention.backend': 'dense'})
  assert text((tmp_path / 'run', tiled)) == text(run)


def test_a_prompt_can_be_a_file(run, tmp_path, command, monkeypatch):
  (tmp_path / 'prompt').write_bytes(b'the q')
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'the q')))
  flags = f'--workdir={run[0]}', '--tokens=3', '--temperature=0'
  outs = [
    command('scripts/generate.py', *flags, prompt)[1]
    for prompt in ('--prompt=the q', f'--prompt_file={tmp_path / "prompt"}', '--prompt_file=-')
  ]
  assert len({*outs}) == 1
  assert outs[0].startswith('the q')


@pytest.mark.parametrize(
  ('prompt', 'expected'),
  [
    ('a\n\tb\r\n', b'a\n\tb\r\n'),
    ('日\u3000本 \u200d', '日\u3000本 \u200d'.encode()),
    (' ', b' '),
    ('a\udce6', b'a\xe6'),
    ('a' * 2000, b'a' * 2000),
  ],
)
def test_a_prompt_is_text_of_any_characters(prompt, expected, run, command, monkeypatch):
  given = []
  monkeypatch.setattr(
    generation, 'generate', lambda run, folder, text, *_: given.append(text) or []
  )
  code, _, err = command('scripts/generate.py', f'--workdir={run[0]}', f'--prompt={prompt}')
  assert (code, err, given) == (None, '', [expected])


def test_seeds_and_prompts_count(run):
  texts = {text(run, count=8, temperature=1.0, seed=seed) for seed in (1, 2)}
  assert len(texts | {text(run, b'', 8, temperature=1.0, seed=1)}) == 3


def test_the_script_prints_prompt_and_text(run, command):
  flags = f'--workdir={run[0]}', '--prompt=the q', '--tokens=11', '--temperature=0'
  code, out, err = command('scripts/generate.py', *flags)
  made = text(run, temperature=0.0).decode('utf-8', 'replace')
  assert (code, out) == (None, f'the q{generate_script.printable(made)}\n')
  assert err.startswith('11 tokens, ')


def test_only_what_controls_a_terminal_is_replaced(capsys):
  """A character or a line break may begin in the prompt, or in one piece, and end in the next."""
  kept = '\ufeff日\u3000本\xa0\u200d\u200c 🙂\U0001fae9\r\n\t'
  data = kept.encode()
  for place in range(len(data)):
    generate_script.write(data[:place], (data[n : n + 1] for n in range(place, len(data))))
    assert capsys.readouterr().out == f'{kept}\n'
  generate_script.write(b'a\r', [b'b\x1b', '\x85\u202e\u2069\x7f'.encode(), b'\xe6', b'\r'])
  assert capsys.readouterr().out == f'a\ufffdb{7 * chr(0xFFFD)}\n'


def test_what_is_said_of_a_run_is_no_part_of_its_text(run, command, tmp_path):
  unfinished = tmp_path / 'unfinished'
  shutil.copytree(run[0], unfinished)
  longer = config.from_json(config.to_json(run[1]))
  longer.train.steps = 9
  storage.write_json(unfinished / 'config.json', config.to_json(longer))
  flags = '--prompt=the q', '--tokens=2', '--temperature=0'
  _, expected, _ = command('scripts/generate.py', f'--workdir={run[0]}', *flags)
  code, out, err = command('scripts/generate.py', f'--workdir={unfinished}', *flags)
  assert (code, out) == (None, expected)
  assert err == f'{unfinished}: step 4; its training ends at step 9\n'


def test_the_script_prints_the_prompt_of_a_text_that_ends_at_once(run, command, monkeypatch):
  monkeypatch.setattr(generation, 'generate', lambda *arguments: iter(()))
  code, out, err = command('scripts/generate.py', f'--workdir={run[0]}', '--prompt=the q')
  assert (code, out, err) == (None, 'the q\n', '')


def test_a_device_without_memory_is_one_line(run, command, monkeypatch):
  def full(*arguments):
    yield b'a'
    jnp.zeros(2**47, jnp.uint8)

  monkeypatch.setattr(generation, 'generate', full)
  code, out, err = command('scripts/generate.py', f'--workdir={run[0]}', '--prompt=the q')
  assert (code, out, err.count('\n')) == (1, 'the qa', 1)
  assert err.startswith('generate.py: 1 x cpu: RESOURCE_EXHAUSTED: ')
  assert '; for the cache, a shorter prompt or fewer --tokens' in err


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (
      ['--tokens=17'],
      'tokens=17: with a prompt of 0 tokens; positions end at 16; allowed: 1 to 16',
    ),
    (['--prompt=the quick brown fox'], '; allowed: a prompt of less than 16 tokens'),
    (['--tokens=0'], 'tokens=0; allowed: 1 to 131072'),
    (['--temperature=1e-38'], 'temperature=1e-38; allowed: 0, or at least 1e-30'),
    (['--temperature=-1'], 'temperature=-1.0; allowed: 0, or at least 1e-30'),
    (['--top_p=0'], 'top_p=0.0; allowed: more than 0, at most 1'),
    (['--top_k=-1'], 'top_k=-1; allowed: 0, for all tokens, or more'),
    (['--seed=-1'], 'seed=-1; allowed: 0 to 2**32 - 1'),
    (['--prompt='], "--prompt=''"),
    (['--prompt_file=no/file'], "--prompt_file='no/file': No such file or directory; allowed:"),
    (['--prompt=a', '--prompt_file=-'], '--prompt_file: with --prompt; allowed: one of the two'),
    (['--wrokdir=x'], "did you mean '--workdir'?"),
    (['--config.train.length=8'], 'config.train.length=8: the run was trained with 16'),
    (['--config.encoding.name=rope'], 'holds model'),
    (
      ['--config.encoding.name=ropes'],
      "encoding.name='ropes': no such encoding; did you mean 'rope'?",
    ),
  ],
)
def test_bad_input_is_one_line(run, command, flags, words):
  code, out, err = command('scripts/generate.py', f'--workdir={run[0]}', *flags)
  assert (code, out, err.count('\n')) == (2, '', 1)
  assert err.startswith('generate.py: ')
  assert words in err


@pytest.mark.parametrize(
  ('max_length', 'why'),
  [
    (None, 'texts have at most 131072'),
    (2**20, 'texts have at most 131072'),
    (2**17, 'positions end at 131072'),
    (1000, 'positions end at 1000'),
  ],
)
def test_what_ends_a_text_is_said(max_length, why):
  model, end = types.SimpleNamespace(max_length=max_length), int(why.split()[-1])
  generation._check_length(model, 8, end - 8)
  with pytest.raises(UserError) as error:
    generation._check_length(model, 8, end - 7)
  said = f'tokens={end - 7}: with a prompt of 8 tokens; {why}; allowed: 1 to {end - 8}'
  assert str(error.value) == said


def test_several_seeds_and_tasks_are_refused(run, tmp_path):
  several = config.from_json(config.to_json(run[1]))
  config.overlay(several, {'seeds': (1, 2)})
  with pytest.raises(UserError, match=r'seeds 1, 2; allowed: .* such as \S+run,seed=1$'):
    text((run[0], several))
  task = config.load(BASE, {**TINY, 'data.corpus': 'task:copy', 'eval.protocols': ('answers',)})
  claim_run_dir(tmp_path, task)
  with pytest.raises(UserError, match='the run writes no text; allowed: one that was trained on'):
    text((tmp_path, task))
