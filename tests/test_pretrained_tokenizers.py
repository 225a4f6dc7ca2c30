"""The tokenizers of pretrained models: what they put before a text, and what goes with them."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from small_models import SMALL_TOKENIZER, save, write_gguf
from small_runs import write_text_corpus

from configs import base
from posenc_jax import storage
from posenc_jax.config import config_hash, overlay, saved_config, to_json
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.errors import UserError
from posenc_jax.evaluation import generation, preflight
from posenc_jax.evaluation.evaluate import evaluate
from posenc_jax.evaluation.generation import end_tokens
from posenc_jax.evaluation.runs import load_run
from posenc_jax.pretrained import exporting, importing, sources
from posenc_jax.pretrained.exported_tokenizers import beginning_with, first_token
from posenc_jax.pretrained.gguf_tokenizer import tokenizer_of
from posenc_jax.training import loop, provenance, run_dir
from scripts import import_model

ADDED = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}
ADDED |= {'special': True}
LLAMA_LIKE = json.loads(SMALL_TOKENIZER)  # with <s> before a text
LLAMA_LIKE['model']['vocab'] |= {'<s>': 1, '</s>': 2}
LLAMA_LIKE['added_tokens'] = [
  {'id': n, 'content': token} | ADDED for n, token in ((1, '<s>'), (2, '</s>'))
]
LLAMA_LIKE['post_processor'] = beginning_with(1, '<s>')
BESIDE = {
  'tokenizer_config.json': {'tokenizer_class': 'LlamaTokenizer', 'model_max_length': 9}
  | {'bos_token': '<s>', 'eos_token': '</s>', 'add_bos_token': True, 'add_eos_token': False},
  'special_tokens_map.json': {'bos_token': {'content': '<s>'}, 'eos_token': '</s>'},
  'generation_config.json': {'bos_token_id': 1, 'eos_token_id': [2, 7]},
}


def llama_folder(folder):
  """A folder as transformers saves it, with BOS before a text."""
  save(folder, 'llama')
  (folder / 'tokenizer.json').write_text(json.dumps(LLAMA_LIKE))
  for name, tree in BESIDE.items():
    (folder / name).write_text(json.dumps(tree))
  (folder / 'chat_template.jinja').write_text('{{ messages }}')
  (folder / 'tokenizer.model').write_bytes(b'\xffpieces')
  return folder


def exported(run, out):
  """(the tokenizer, tokenizer_config.json, config.json) of the export of a run."""
  exporting.export_run(saved_config(run), run, out, 'float32')
  tokenizer = tokenizers.Tokenizer.from_file(str(out / 'tokenizer.json'))
  names = ('tokenizer_config.json', 'config.json')
  return tokenizer, *(json.loads((out / name).read_text()) for name in names)


def test_a_tokenizer_that_cannot_cut_a_letter_says_no_first_token():
  model = {'type': 'WordLevel', 'vocab': {'A': 0}, 'unk_token': '?'}
  tree = {'version': '1.0', 'model': model, 'post_processor': beginning_with(0, 'A')}
  assert first_token(json.dumps(tree).encode()) is None


@pytest.mark.parametrize(
  ('pre', 'said', 'ids'),
  [
    ('llama-bpe', {}, [1, 2]),  # llama.cpp's default for it, as the hub's tokenizer has it
    ('llama-bpe', {'tokenizer.ggml.add_bos_token': False}, [2]),
    ('smollm', {}, [2]),
    ('smollm', {'tokenizer.ggml.add_bos_token': True}, [1, 2]),
  ],
)
def test_bos_stands_before_a_text_as_a_gguf_file_says(pre, said, ids, tmp_path):
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', pre=pre, **said)))
  importing.import_model(base.get_config(), source, tmp_path / 'run')
  tokenizer, *_ = exported(tmp_path / 'run', tmp_path / 'out')
  assert tokenizer.encode('c').ids == ids


SPOKEN = (
  'position encodings and attention',
  'Grüße aus Köln, schöne Häuser über Flüssen',
  '日本語の文章です。日本語の文',
  'if x:    return  y',
)


@pytest.fixture(scope='module')
def sentencepiece_model():
  """BPE with byte fallback, and pieces of spaces alone, as Llama 2 has them."""
  import io

  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(SPOKEN * 9),
    model_writer=model,
    vocab_size=400,
    model_type='bpe',
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    byte_fallback=True,
    num_threads=1,
    minloglevel=2,
  )
  return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def vocabulary(model):
  """[(token, score, kind)] as converters write it."""
  kinds = {2: model.is_unknown, 3: model.is_control, 6: model.is_byte}
  return [
    (model.id_to_piece(n), model.get_score(n), next((k for k in kinds if kinds[k](n)), 1))
    for n in range(model.vocab_size())
  ]


@pytest.mark.parametrize(
  'text',
  [
    *SPOKEN,
    '',
    ' a',
    'a \n\n b\n',
    '      positions   of    spaces        ',
    '🙂 e\u0301 Жук, <0x0A> <unk',
    '\U0001f468\u200d\U0001f469\u200d日本\t語\r\n',
  ],
)
def test_a_vocabulary_of_sentencepiece_cuts_text_as_sentencepiece_does(text, sentencepiece_model):
  """Ids and bytes: a token ends with the character that its bytes are of, and the space before the
  text has none, unless it is a token itself, which then has the first character's.
  """
  model = sentencepiece_model
  tokens, scores, kinds = map(list, zip(*vocabulary(model), strict=True))
  metadata = {'model': 'llama', 'pre': 'default', 'tokens': tokens, 'scores': scores}
  metadata |= {'token_type': kinds, 'bos_token_id': 1, 'eos_token_id': 2}
  contents, _ = tokenizer_of({f'tokenizer.ggml.{name}': x for name, x in metadata.items()})
  tokenizer = TokenizerJson(contents, 'tokenizer.json')
  ((ids, sizes, unknown, *_),) = tokenizer.cut([text.encode()])
  expected = model.encode(text)
  assert ids.tolist() == expected
  assert sum(sizes) == len(text.encode())
  assert unknown == 0
  pieces = [1 if model.is_byte(n) else len(tokens[n].replace('▁', ' ').encode()) for n in expected]
  of_characters = list(itertools.accumulate(len(character.encode()) for character in text))
  ends = [max(end - 1, 1) for end in itertools.accumulate(pieces)]
  assert [*itertools.accumulate(map(int, sizes))] == [
    next(end for end in of_characters if end >= least) for least in ends
  ]
  own = tokenizers.Tokenizer.from_buffer(contents)
  assert own.encode(text).ids == [1, *expected]
  assert own.decode(expected) == model.decode(expected) == text


# The symbols of a small vocabulary: a space, two letters, pairs of them, and bytes of two others.
SMALL_PIECES = [('<unk>', 0.0, 2), ('<s>', 0.0, 3), ('</s>', 0.0, 3)]
SMALL_PIECES += [(f'<0x{byte:02X}>', 0.0, 6) for byte in (0x0A, 0xC3, 0xBC)]
SMALL_PIECES += [('▁', -3.0, 1), ('a', -4.0, 1), ('b', -5.0, 1), ('▁a', -1.0, 1), ('ab', -2.0, 1)]
SMALL_PIECES += [('<user>', -1000.0, 4)]


@pytest.mark.parametrize(
  ('said', 'bos', 'ids', 'of_user'),
  [
    ({}, [1], [9, 8, 9, 8, 4, 5, 3], [6, 8, 11, 6, 0]),
    ({'add_space_prefix': False}, [1], [10, 9, 8, 4, 5, 3], [8, 11, 0]),
    ({'add_bos_token': False}, [], [9, 8, 9, 8, 4, 5, 3], [6, 8, 11, 6, 0]),
  ],
)
def test_a_gguf_file_with_a_vocabulary_of_sentencepiece(said, bos, ids, of_user, tmp_path):
  """Imported, and exported again. A token of the user's is found before text is cut, and the text
  behind it begins like any other; what has no bytes among the tokens is unknown.
  """
  said = {f'tokenizer.ggml.{name}': x for name, x in said.items()}
  path = write_gguf(tmp_path / 'm.gguf', pre='default', sentencepiece=SMALL_PIECES, **said)
  importing.import_model(base.get_config(), sources.open_source(str(path)), tmp_path / 'run')
  assert load_run(tmp_path / 'run').inputs('ab abü\n'.encode()).tolist() == [[1, *ids]]
  tokenizer, *_ = exported(tmp_path / 'run', tmp_path / 'out')
  assert tokenizer.encode('ab abü\n').ids == [*bos, *ids]
  assert tokenizer.encode('b<user>?').ids == [*bos, *of_user]


def test_a_gguf_file_of_sentencepiece_that_names_no_bos_has_that_of_llama_cpp(tmp_path):
  """The same in config.json, before windows and before the text of the exported tokenizer."""
  path = write_gguf(tmp_path / 'm.gguf', pre='default', sentencepiece=SMALL_PIECES, bos=None)
  source, run = sources.open_source(str(path)), tmp_path / 'run'
  assert (source.fields['bos_token_id'], source.fields['eos_token_id']) == (1, 2)
  importing.import_model(base.get_config(), source, run)
  assert load_run(run).inputs(b'ab').tolist() == [[1, 9, 8]]
  tokenizer, _, config = exported(run, tmp_path / 'out')
  assert (tokenizer.encode('ab').ids, config['bos_token_id']) == ([1, 9, 8], 1)
  path = write_gguf(tmp_path / 'n.gguf', bos=None)
  assert sources.open_source(str(path)).fields['bos_token_id'] is None


def test_chat_template_and_ends_of_a_gguf_file(tmp_path):
  template = "{{ bos_token }}{% for m in messages %}\n{{ m['content'] }}{% endfor %}"
  said = {'eos_token_id': 2, 'eot_token_id': 4}
  said = {f'tokenizer.ggml.{name}': token for name, token in said.items()}
  path = write_gguf(tmp_path / 'm.gguf', **said, **{'tokenizer.chat_template': template})
  source, run, out = sources.open_source(str(path)), tmp_path / 'run', tmp_path / 'out'
  importing.import_model(base.get_config(), source, run)
  assert end_tokens(run, run / 'tokenizer') == {2, 4}
  _, _, config = exported(run, out)
  assert config['eos_token_id'] == [2, 4]
  assert (out / 'chat_template.jinja').read_text() == template
  one = write_gguf(tmp_path / 'n.gguf', **said | {'tokenizer.ggml.eot_token_id': 2})
  assert sources.open_source(str(one)).fields['eos_token_id'] == 2


@pytest.mark.parametrize(('bos', 'name'), [(1, '<s>'), (2, '</s>'), (4, None), (22, None)])
def test_the_bos_that_was_given_is_that_of_the_exported_tokenizer(bos, name, tmp_path):
  """A token of the text is in the template alone: named as BOS it would be cut otherwise."""
  folder, run, out = llama_folder(tmp_path / 'm'), tmp_path / 'run', tmp_path / 'out'
  small = base.get_config()
  small.model.bos = bos
  importing.import_model(small, sources.open_source(str(folder)), run)
  if bos == 22:  # the last row of the embedding, of which the tokenizer knows nothing
    with pytest.raises(UserError, match='BOS cannot be token 22 of it; allowed: one whose tokens'):
      exported(run, out)
    return
  tokenizer, about, config = exported(run, out)
  assert tokenizer.encode('ab').ids == [bos, 3, 4]
  assert config['bos_token_id'] == bos
  files = ('tokenizer.json', 'tokenizer.model', 'chat_template.jinja', *BESIDE)
  if bos == 1:
    assert all((out / file).read_bytes() == (folder / file).read_bytes() for file in files)
    return
  assert not (out / 'tokenizer.model').exists()
  assert about.get('bos_token') == name
  kept = {'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': 9, 'eos_token': '</s>'}
  assert about == kept | ({'bos_token': name} if name else {})
  special, generation = (json.loads((out / file).read_text()) for file in [*BESIDE][1:])
  assert special == {'eos_token': '</s>'} | ({'bos_token': name} if name else {})
  assert generation == {'bos_token_id': bos, 'eos_token_id': [2, 7]}


@pytest.mark.parametrize(
  ('said', 'factor', 'expected'), [(9, 1, 9), (9, 4, 128), (4096, 4, 4096), (10**30, 4, 10**30)]
)
def test_a_scaling_lets_the_texts_of_its_tokenizer_be_longer(said, factor, expected, tmp_path):
  """A source whose tokenizer stops before its model keeps that where nothing makes it longer."""
  folder, run, out = llama_folder(tmp_path / 'm'), tmp_path / 'run', tmp_path / 'out'
  about = BESIDE['tokenizer_config.json'] | {'model_max_length': said}
  (folder / 'tokenizer_config.json').write_text(json.dumps(about))
  importing.import_model(base.get_config(), sources.open_source(str(folder)), run)
  config = saved_config(run)
  yarn = {'rope_type': 'yarn', 'factor': factor, 'original_max_position_embeddings': 32}
  overlay(config, {f'encoding.scaling.{name}': x for name, x in yarn.items()})
  exporting.export_run(config, run, out, 'float32')
  expected = about | {'model_max_length': expected}
  assert json.loads((out / 'tokenizer_config.json').read_text()) == expected


def test_damaged_files_beside_a_tokenizer_are_one_line(tmp_path):
  folder = llama_folder(tmp_path / 'm')
  (folder / 'special_tokens_map.json').write_text('[]')
  small = base.get_config()
  small.model.bos = 2
  importing.import_model(small, sources.open_source(str(folder)), tmp_path / 'run')
  message = r'special_tokens_map\.json of the source is damaged: .*; allowed: the file that'
  with pytest.raises(UserError, match=message):
    exported(tmp_path / 'run', tmp_path / 'out')


def test_a_tokenizer_or_bos_that_was_given_is_in_the_hash(tmp_path):
  """Numbers hang on it, and rows of imported models name no tokenizer; without one the hash is that
  of the files.
  """
  folder, other = llama_folder(tmp_path / 'm'), tmp_path / 'other.json'
  other.write_bytes(SMALL_TOKENIZER)
  source = sources.open_source(str(folder))
  assert sources.with_given(source, None, -1) is source
  assert sources.with_given(source, source.tokenizer, 1) is source
  flags = {
    'a': [],
    'b': [f'--tokenizer={other}'],
    'c': ['--config.model.bos=2'],
    'd': [f'--tokenizer={other}', '--config.model.bos=2'],
  }
  hashes = {}
  for name, given in flags.items():
    run = tmp_path / name
    import_model.main([f'--source={folder}', f'--workdir={run}', *given])
    hashes[name] = provenance.source_of(run)
    config = saved_config(run)
    assert config.train.init_from == f'sha256:{hashes[name]}'
    assert config.label == f'm {hashes[name][:12]}'
    is_other = (run / 'tokenizer' / 'tokenizer.json').read_bytes() == SMALL_TOKENIZER
    assert is_other == (name in 'bd')
    assert (run / 'tokenizer' / 'tokenizer.model').exists() != is_other
  assert hashes['a'] == source.sha256
  assert len({*hashes.values()}) == 4


def other_import(run):
  """Another model where a run has lain: with other tokens for the same text, and other ends."""
  tree = LLAMA_LIKE | {'post_processor': None}
  tree['model'] = tree['model'] | {'vocab': {'a': 8, 'b': 9, 'c': 10, ' ': 11, '?': 7}}
  folder = llama_folder(run.parent / f'another {run.name}')
  (folder / 'tokenizer.json').write_text(json.dumps(tree))
  (folder / 'generation_config.json').unlink()
  importing.import_model(base.get_config(), sources.open_source(str(folder)), run)


def test_a_moved_import_keeps_its_tokenizer(tmp_path):
  run, moved = tmp_path / 'run', tmp_path / 'moved'
  folder = llama_folder(tmp_path / 'm')
  importing.import_model(base.get_config(), sources.open_source(str(folder)), run)
  run.rename(moved)
  other_import(run)
  assert saved_config(moved).data.tokenizer == str(moved / 'tokenizer' / 'tokenizer.json')
  assert load_run(moved).inputs(b'ab').tolist() == [[1, 3, 4]]
  assert exported(moved, tmp_path / 'out')[0].encode('ab').ids == [1, 3, 4]


@pytest.mark.parametrize(
  'seeds', [pytest.param((), marks=pytest.mark.ci), pytest.param((0, 1), marks=pytest.mark.slow)]
)
def test_what_is_tuned_from_an_import_keeps_its_tokenizer(seeds, tmp_path, monkeypatch):
  """Also what is tuned from that: whatever lies where the import lay, and from anywhere."""
  monkeypatch.chdir(tmp_path)
  folder, small = llama_folder(tmp_path / 'm'), base.get_config()
  text = write_text_corpus(tmp_path / 'text', 'abc bca ' * 40)
  overlay(small, {'data.corpus': str(text), 'train.validate_batches': 1, 'optim.warmup': 0})
  of_eval = {'lengths': (16,), 'target_context': 16, 'documents': 1, 'k': 8}
  of_eval |= {'protocols': ('last_k',), 'controls': ()}
  overlay(small, {f'eval.{field}': value for field, value in of_eval.items()})
  importing.import_model(small, sources.open_source(str(folder)), Path('run'))
  by_flags = base.get_config()
  overlay(by_flags, {'data.corpus': str(text), 'train.init_from': 'run', 'model.layers': 1})
  way = r"its tokenizer: take model, .* data\.vocab from saved_config\('run'\), as configs/swap\.py"
  with pytest.raises(UserError, match=rf"^config\.train\.init_from='run': its run was .*; .*{way}"):
    loop.train(by_flags, 'by_flags')
  tuned = saved_config('run')
  own = {'label': '', 'train.steps': 1, 'train.length': 16}
  overlay(tuned, own | {'train.init_from': 'run', 'seeds': seeds})
  loop.train(tuned, 'tuned')
  further = saved_config('tuned')
  overlay(further, {'train.init_from': 'tuned'})
  shutil.move('run', 'moved')
  runs = ['tuned,seed=0', 'tuned,seed=1'] if seeds else ['tuned']
  assert preflight.check_all([(to_json(tuned), runs)]) is None
  other_import(Path('run').absolute())
  loop.train(tuned, 'tuned')  # it goes on with its own
  (tmp_path / 'elsewhere').mkdir()
  for name in runs:
    run = tmp_path / name
    files = (*BESIDE, 'tokenizer.json', 'tokenizer.model', 'chat_template.jinja')
    for file in files:
      assert (run / 'tokenizer' / file).read_bytes() == (folder / file).read_bytes()
    for place in (tmp_path, tmp_path / 'elsewhere'):
      monkeypatch.chdir(place)
      config = saved_config(run)
      assert config.data.tokenizer == tuned.data.tokenizer  # as planned, or a sweep never ends
      assert load_run(run).inputs(b'ab').tolist() == [[1, 3, 4]]
    folders = []
    ends = lambda workdir, beside, found=folders: found.append(beside) or set()
    monkeypatch.setattr(generation, 'end_tokens', ends)
    sampling = generation.Sampling(0.0, 0, 1.0, 0)
    assert len(list(generation.generate(config, run, b'ab', 1, sampling))) == 1
    assert folders == [run / 'tokenizer']
    out = tmp_path / f'out {name}'
    assert exported(run, out)[0].encode('ab').ids == [1, 3, 4]
    assert all((out / file).read_bytes() == (folder / file).read_bytes() for file in files)
  evaluate(saved_config(tmp_path / 'tuned'), tmp_path / 'tuned')
  assert run_dir.is_finished(tmp_path / 'tuned', config_hash(tuned))
  rows = storage.read_rows(tmp_path / runs[0] / 'eval.jsonl')
  assert {(row['status'], row['overrides']) for row in rows} == {('ok', None)}
  monkeypatch.chdir(tmp_path)
  if not seeds:
    loop.train(further, 'further')
    assert load_run('further').inputs(b'ab').tolist() == [[1, 3, 4]]
