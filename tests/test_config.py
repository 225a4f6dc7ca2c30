"""Configurations: what is refused, and that nothing is lost on the way to disk and back."""

import ast
import contextlib
import hashlib
import json
import os
import re
import sys

import pytest

from posenc_jax import data, other_words, storage
from posenc_jax.cli import REQUIRED, parse_args
from posenc_jax.config import (
  BASE,
  config_hash,
  decides_results,
  differing_keys,
  flat,
  from_json,
  load,
  load_study,
  notes,
  notes_of_all,
  overlay,
  product,
  serialization,
  to_json,
  trained_config,
  training_part,
  validate,
  vary,
)
from posenc_jax.config.fields import FIELDS
from posenc_jax.config.overlays import ORIGINAL
from posenc_jax.config.relations import EMBEDDED, WITHOUT_TILES
from posenc_jax.config.serialization import ADDED, HASHED_ADDED, leaves
from posenc_jax.encodings.core.registry import ENCODINGS, hyperparameters
from posenc_jax.errors import UserError
from posenc_jax.evaluation import plan
from posenc_jax.protocols import CONTROLS, PROTOCOLS, TASK_PROTOCOL
from posenc_jax.training import setup


def test_base_is_valid_and_locked():
  config = load(BASE)
  validate(config)
  with pytest.raises(AttributeError):
    config.train.stepz = 1


@pytest.mark.parametrize(
  ('path', 'value', 'expected'),
  [
    ('train.steps', 7, 7),
    ('optim.clip', 2, 2.0),
    ('eval.lengths', [16, 32], (16, 32)),
    ('eval.lengths', 128, (128,)),
    ('eval.protocols', 'last_k', ('last_k',)),
    ('eval.protocols', 'last_k, non_overlapping', ('last_k', 'non_overlapping')),
    ('eval.controls', (), ()),
    ('eval.controls', '', ()),
    ('attention.block_sizes', (8, 16), (8, 16)),
    ('launch.setup', 'export CUDA_VISIBLE_DEVICES=0,1', ('export CUDA_VISIBLE_DEVICES=0,1',)),
    ('launch.setup', '', ()),
    ('launch.options', 'exclude=a,b', ('exclude=a,b',)),
    ('encoding.name', 'alibi', 'alibi'),
    ('encoding.base', 500.0, 500.0),
  ],
)
def test_an_override_is_set_in_the_type_of_the_field(path, value, expected):
  config = load(BASE, {path: value})
  found = dict(leaves(config))[path]
  assert found == expected
  assert type(found) is type(expected)


@pytest.mark.parametrize('path', ['eval.stride', 'eval.controls', 'train.init_from'])
def test_a_config_of_an_earlier_version_is_one_line(path):
  tree, (section, name) = to_json(load(BASE)), path.split('.')
  del tree[section][name]
  with pytest.raises(
    UserError, match=rf'^config.{path}: missing; allowed: all fields of configs/base.py .*$'
  ):
    validate(from_json(tree))


def test_what_a_run_of_another_version_has_is_said_of_its_directory(tmp_path):
  tree = to_json(load(BASE))
  del tree['eval']['stride']
  tree['data']['packed'] = True  # joined for training as nothing does now
  storage.write_json(tmp_path / 'config.json', tree)
  of_run = rf"^workdir='{tmp_path}': config\.json of another version of posenc_jax: it "
  with pytest.raises(
    UserError, match=of_run + r"lacks eval\.stride, has 'data\.packed'; allowed: "
  ):
    trained_config(tmp_path, {'eval.stride': 4})


def test_an_encoding_is_replaced_whole():
  config = load(BASE, {'encoding.base': 500.0})
  overlay(config, {'encoding': {'name': 'alibi', 'learned': True}})
  assert to_json(config)['encoding'] == {'name': 'alibi', 'learned': True}


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'train.stepz': 1}, ["config.train.stepz: no such field; did you mean 'train.steps'?"]),
    ({'trian.steps': 1}, ["did you mean 'train.steps'?"]),
    ({'optim.lr': 1.0}, ["config.optim.lr: no such field; did you mean 'optim.learning_rate'?"]),
    ({'train.lr': 1.0}, ["did you mean 'optim.learning_rate'?"]),
    ({'model.hidden_size': 8}, ["did you mean 'model.model_dim'?"]),
    ({'train.weight_decay': 8}, ["did you mean 'optim.weight_decay'?"]),
    ({'data.name': 'text'}, ["did you mean 'data.corpus'?"]),
    ({'train.block_size': 8}, ["did you mean 'train.length'?"]),
    ({'attention.block_size': 8}, ["did you mean 'attention.block_sizes'?"]),
    ({'attention.causal': False}, ['no such field; allowed: attention.backend, attention.block_']),
    ({'model.dropout': 0.1}, ['no such field; no model here has dropout']),
    ({'model.droppath': 0.1}, ['no such field; allowed: model.bias, model.bos, ']),
    ({'train.bf16': True}, ['no such field; allowed: train.batch, train.checkpoint_every, ']),
    ({'steps.of.it': 1}, ['config.steps.of.it: no such field']),
    ({'train.steps.more': 1}, ['config.train.steps.more: no such field']),
    ({'train.steps': 1.5}, ['config.train.steps=1.5', 'int']),
    ({'train.steps': True}, ['config.train.steps=True', 'int']),
    ({'train.steps': 'many'}, ["config.train.steps='many'", 'int']),
    ({'eval.lengths': 12.5}, ['config.eval.lengths=12.5', 'int']),
    ({'eval.lengths': 'many'}, ["config.eval.lengths='many'", 'tuple']),
    ({'eval.lengths': (128, 'abc')}, ["config.eval.lengths='abc'", 'int']),
    ({'model.parallel_residual': 'true'}, ["config.model.parallel_residual='true'", 'bool']),
    ({'eval.controls': 3}, ['config.eval.controls=3', 'str']),
    ({'train': 3}, ['config.train=3']),
    ({'encoding': 'alibi'}, ["config.encoding='alibi'", "dict(name='rope')"]),
  ],
)
def test_a_bad_override_is_one_line_that_names_it(overrides, words):
  with pytest.raises(UserError) as error:
    load(BASE, overrides)
  assert all(word in str(error.value) for word in words)
  assert r'\n' not in str(error.value)


@pytest.mark.parametrize(
  ('path', 'value', 'allowed'),
  [
    ('seed', -1, '0 or more'),
    ('seed', 2**32, 'less than 2**32'),
    ('encoding.name', '', 'ENCODINGS'),
    ('model.layers', 0, '1 or more'),
    ('model.heads', -4, '1 or more'),
    ('model.kv_heads', 3, 'a divisor of model.heads=4'),
    ('model.share_encoding', 'papre', "did you mean 'paper'?"),
    ('model.logit_softcap', -1.0, '0 (off) or more'),
    ('model.embedding_scale', -1.0, '0 (the root of model_dim) or more'),
    ('attention.window', -1, '0 or more'),
    ('attention.chunk', -1, '0 or more'),
    ('attention.sink_tokens', -1, '0 or more'),
    ('attention.block_sizes', (8,), '(query rows, key columns)'),
    ('attention.block_sizes', (128, 0), 'each 1 or more, or (0, 0)'),
    ('train.length', 0, '1 or more'),
    ('train.steps', 0, '1 or more; 0 with train.init_from'),
    ('train.max_to_keep', 0, '1 or more'),
    ('train.keep_every', 750, 'a multiple of train.checkpoint_every=500, or 0'),
    ('train.grad_accum_steps', 0, '1 or more'),
    ('mesh.data', 0, '1 or more'),
    ('mesh.context', -1, '1 or more'),
    ('train.compute_dtype', 'float23', "did you mean 'float32'?"),
    ('train.matmul_precision', 'hihgest', "did you mean 'highest'?"),
    ('optim.name', 'lion', 'allowed: adamw, muon'),
    ('train.first_batch', -1, '0 or more'),
    ('train.init_step', 500, '0; another with train.init_from'),
    ('optim.learning_rate', 0.0, 'more than 0'),
    ('optim.learning_rate', float('nan'), 'a finite number'),
    ('optim.warmup', 601, 'at most train.steps=600: add --config.optim.warmup=60'),
    ('seeds', (0, 0), 'none twice'),
    ('train.profile_steps', (3, 2), '(first step, last step) within 1 to train.steps=600, or ()'),
    ('train.profile_steps', (1, 2.0), '(first step, last step)'),
    ('launch.minutes', 4, '5 or more'),
    ('launch.warning_seconds', 59, '60 or more'),
    ('launch.warning_seconds', 43201, 'at most 43200, half of launch.minutes=1440'),
    ('launch.options', ('--qos=high',), 'options of sbatch without dashes'),
    ('data.shortest', 8, '0 for text'),
    ('optim.final_fraction', 1.5, '0 to 1'),
    ('optim.decay', 'liner', "did you mean 'linear'?"),
    ('optim.decay_steps', 551, 'at most the 550 steps after the warm-up; 0: all of them'),
    ('optim.encoding_multiple', 0.0, 'more than 0'),
    ('optim.epsilon', 0.0, 'more than 0'),
    ('optim.beta2', 1.0, 'less than 1'),
    ('optim.clip', -1.0, '0 (off) or more'),
    ('eval.split', 'tset', "did you mean 'test'?"),
    ('eval.protocols', ('last_kk',), "did you mean 'last_k'?"),
    ('eval.protocols', (), 'one or more'),
    ('eval.lengths', (), 'one or more'),
    ('eval.lengths', (128, 128), 'none twice'),
    ('eval.lengths', (0, 128), '1 or more tokens'),
    ('eval.k', 129, 'at most the shortest of eval.lengths'),
    ('eval.k', 0, '1 or more'),
    ('eval.spans', 0, '1 or more'),
    ('eval.documents', -1, '0 or more'),
    ('eval.batch_tokens', 0, '1 or more'),
  ],
)
def test_a_bad_value_is_one_line_with_field_value_and_what_is_allowed(path, value, allowed):
  config = load(BASE, {path: value})
  with pytest.raises(UserError) as error:
    validate(config)
  assert str(error.value).startswith(f'config.{path}=')
  assert repr(value) in str(error.value)
  assert allowed in str(error.value)
  assert r'\n' not in str(error.value)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      {'train.grad_accum_steps': 2, 'mesh.data': 3, 'mesh.fsdp': 4},
      'config.train.batch=32; allowed: a multiple of train.grad_accum_steps=2 '
      'x mesh.data=3 x mesh.fsdp=4',
    ),
    ({'mesh.context': 3}, 'config.train.length=128; allowed: a multiple of mesh.context=3'),
  ],
)
def test_what_is_cut_must_be_divisible(overrides, message):
  with pytest.raises(UserError) as error:
    validate(load(BASE, overrides))
  assert str(error.value) == message


def test_every_field_of_the_base_has_a_check():
  assert FIELDS.keys() == flat(load(BASE)).keys()


@pytest.mark.parametrize('path', [p for p, x in leaves(load(BASE)) if isinstance(x, str)])
def test_one_word_is_no_list_of_words(path):
  *sections, name = path.split('.')
  for listed in (lambda word: [word], lambda word: []):
    tree = to_json(load(BASE))
    section = tree[sections[0]] if sections else tree
    section[name] = listed(section[name])
    with pytest.raises(UserError, match=rf'^config\.{path}=\(.*\); allowed: '):
      validate(from_json(tree))


def test_every_field_of_the_base_has_a_comment():
  """Beside it or above it."""
  lines = BASE.read_text().splitlines()
  tree = ast.parse(BASE.read_text())
  fields = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
  sections = ('encoding', *(path.partition('.')[0] for path in FIELDS if '.' in path))
  for field in fields:
    around = (lines[field.lineno - 2].strip(), lines[field.value.end_lineno - 1])
    has_comment = around[0].startswith('#') or '  # ' in around[1]
    assert has_comment or field.arg in (*sections, 'name'), field.arg
  assert {path.rpartition('.')[2] for path in FIELDS} <= {field.arg for field in fields}


def test_cudnn_that_trains_evaluates_too():
  """A run that is trained may be evaluated by another backend, or write text."""
  config = load(BASE, {'attention.backend': 'cudnn'})
  validate(config, is_trained=True)
  with pytest.raises(
    UserError, match=r"^config\.eval\.compute_dtype='float32'; allowed: 'bfloat16'"
  ):
    validate(config)
  validate(load(BASE, {'attention.backend': 'cudnn', 'eval.compute_dtype': 'bfloat16'}))


@pytest.mark.parametrize(
  ('overrides', 'path'),
  [
    *(
      ({'attention.backend': name, 'eval.compute_dtype': 'bfloat16'}, 'attention.block_sizes')
      for name in WITHOUT_TILES
    ),
    *(({'data.corpus': name}, 'data.text_field') for name in (*EMBEDDED, 'task:copy')),
    ({'attention.window': 0}, 'attention.sink_tokens'),
    ({'encoding': {'name': 'pattern', 'layers': ('rope', 'nope')}}, 'attention.sink_tokens'),
  ],
)
def test_a_field_without_effect_is_its_default_in_a_training(overrides, path):
  other, has_effect = {
    'attention.block_sizes': ((8, 16), {}),
    'data.text_field': ('article', {'data.corpus': 'texts'}),
    'attention.sink_tokens': (4, {'attention.window': 64}),
  }[path]
  if overrides.get('data.corpus') == 'task:copy':
    overrides = {'data.corpus': 'task:copy', 'eval.protocols': ('answers',), 'eval.controls': ()}
  validate(load(BASE, overrides))
  config = load(BASE, overrides | {path: other})
  validate(config, is_trained=True)
  with pytest.raises(UserError, match=rf'^config\.{path}=.* with '):
    validate(config)
  validate(load(BASE, {path: other} | has_effect))


def test_first_tokens_are_seen_from_outside_of_any_window_or_chunk():
  layers = ({'name': 'rope', 'attention_window': 8}, 'nope')
  for own in ({'encoding': {'name': 'pattern', 'layers': layers}}, {'attention.chunk': 64}):
    validate(load(BASE, own | {'attention.sink_tokens': 4}))


def test_fewer_steps_than_the_warm_up_are_one_line_that_says_what_to_add():
  with pytest.raises(UserError) as error:
    validate(load(BASE, {'train.steps': 20}))
  remedy = 'add --config.optim.warmup=2'
  assert str(error.value) == f'config.optim.warmup=50; allowed: at most train.steps=20: {remedy}'
  validate(load(BASE, {'train.steps': 20, 'optim.warmup': 2}))


def test_the_base_names_every_protocol_and_control():
  text = BASE.read_text()
  assert [n for n in (*PROTOCOLS, TASK_PROTOCOL, *CONTROLS) if f"'{n}'" not in text] == []


def test_every_protocol_is_planned_under_its_controls():
  W = 1024
  settings = {'eval.lengths': (W,), 'eval.k': 8, 'train.length': 8, 'eval.target_context': W}
  config = load(BASE, settings)
  config.eval.documents = 2
  config.eval.controls = tuple(CONTROLS)
  text = b'<characters> ' * 100
  corpus = data.Corpus('letters', 'test', ['a', 'b'], [text, text])
  planner = plan.Planner(config, corpus)
  for name, protocol in PROTOCOLS.items():
    controls = {m.key_fields[0]['control'] for m in planner.measurements(name, W)}
    assert controls == {None, *protocol.controls}


def test_every_bound_is_reached():
  for path in ('train.steps', 'optim.warmup'):
    validate(load(BASE, {'train.steps': 1, 'optim.warmup': 1, path: 1}))
  validate(load(BASE, {'eval.k': 128, 'seed': 2**32 - 1, 'model.kv_heads': 2}))


@pytest.mark.parametrize(
  ('name', 'text', 'words'),
  [
    ('missing.py', None, ['no file', "did you mean '"]),
    ('study.py', 'x = 1', ['no get_config()']),
    ('study.txt', 'x = 1', ['not a Python file']),
  ],
)
def test_what_is_no_study(tmp_path, name, text, words):
  (tmp_path / 'missng.py').write_text('')
  if text is not None:
    (tmp_path / name).write_text(text)
  with pytest.raises(UserError) as error:
    load(tmp_path / name)
  assert all(word in str(error.value) for word in words)


def test_a_config_that_is_not_in_this_folder_says_where_it_was_looked_for(tmp_path, monkeypatch):
  (tmp_path / 'config').mkdir()
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as error:
    load('configs/base.py')
  looked = f"{str(tmp_path)!r} has no folder 'configs'"
  no_file = "config: no file 'configs/base.py'"
  assert str(error.value) == f"{no_file}; {looked}; did you mean 'config'?"
  with pytest.raises(UserError, match=r"config' has no Python file 'base.py'; allowed: a path"):
    load('config/base.py')


def test_a_study_that_gives_out_one_object_is_not_changed_by_overrides(tmp_path):
  study = tmp_path / 'study.py'
  study.write_text(
    'from posenc_jax.config import load\n'
    f'CONFIG = load({str(BASE)!r}, {{}})\n'
    'get_config = lambda: CONFIG\n'
  )
  module = load_study(study)
  assert load(module, {'train.steps': 9, 'encoding.base': 5.0}).train.steps == 9
  assert differing_keys(load(module), load(BASE, {})) == []


def test_a_study_edited_within_a_second_is_read_anew(tmp_path, monkeypatch):
  """And not from bytecode that Python keeps, which goes by the second and the size."""
  monkeypatch.setattr(sys, 'dont_write_bytecode', False)
  study = tmp_path / 'study.py'
  for steps in (8, 9):
    study.write_text(
      f'from posenc_jax.config import load\n'
      f'get_config = lambda: load({str(BASE)!r}, {{"train.steps": {steps}}})\n'
    )
    os.utime(study, (10**9, 10**9))
    assert load(study).train.steps == steps


def test_a_study_changes_some_fields_of_a_base(tmp_path):
  study = tmp_path / 'study.py'
  lines = [
    'from posenc_jax.config import load',
    f'get_config = lambda: load({str(BASE)!r}, {{"train.steps": 9}})',
  ]
  study.write_text('\n'.join(lines))
  config = load(study, {'seed': 3})
  assert differing_keys(config, load(BASE)) == ['seed', 'train.steps']
  assert (config.train.steps, config.seed) == (9, 3)


def test_a_study_imports_what_lies_beside_it(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'path', [*sys.path])
  (tmp_path / 'lies_beside.py').write_text('STEPS = 9')
  (tmp_path / 'ast.py').write_text('raise RuntimeError')  # takes the place of no other module
  study = tmp_path / 'study.py'
  lines = [
    'import ast',
    'from lies_beside import STEPS',
    'from posenc_jax.config import load',
    f'get_config = lambda: load({str(BASE)!r}, {{"train.steps": STEPS}})',
  ]
  study.write_text('\n'.join(lines))
  monkeypatch.chdir(tmp_path)
  for path in (study, 'study.py', study):
    assert load(path).train.steps == 9
  assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
  'overrides',
  [{}, {'encoding': {'name': 'x', 'members': ({'name': 'a'}, {'name': 'b', 'c': None})}}],
)
def test_json_and_back(overrides):
  config = load(BASE, overrides)
  tree = json.loads(json.dumps(to_json(config)))
  back = from_json(tree)
  assert to_json(back) == tree
  assert differing_keys(config, back) == differing_keys(config, tree) == []
  assert back.is_locked
  assert back.eval.lengths == config.eval.lengths
  assert config_hash(back) == config_hash(config)


def test_differences_are_named_and_hashed():
  base = load(BASE)
  fields = flat(base)
  assert len(fields) == len(dict(leaves(base)))
  hashes, changes_nothing = {config_hash(base)}, 0
  for path, value in leaves(base):
    other = {
      bool: lambda v: not v,
      str: lambda v: v + '.',
      tuple: lambda v: v[::-1] + v[:1] or ('x',),
    }
    changed = load(BASE, {path: other[type(value)](value) if type(value) in other else value + 1})
    assert differing_keys(base, changed) == [path]
    section, silent = (
      path.partition('.')[0],
      ('data.cache', 'train.trackers', 'train.profile_steps'),
    )
    is_silent = section in ('launch', 'mesh') or path in silent
    trains = section not in ('eval', 'label') and not is_silent
    changes_nothing += is_silent
    assert decides_results(path) != is_silent
    assert (training_part(changed) != training_part(base)) == trains
    hashes.add(config_hash(changed))
  assert len(hashes) == 1 + len(fields) - changes_nothing


def test_the_hash_does_not_say_where_folders_lie():
  """Nor that a seed starts from its own of several."""
  sources = ('runs/a', '/moved/a', 'a,seed=3', 'runs/b')
  runs = [load(BASE, {'seed': 3, 'train.init_from': source}) for source in sources]
  assert [config_hash(run) == config_hash(runs[0]) for run in runs] == [True, True, True, False]


def test_what_earlier_versions_finished_keeps_its_hash():
  tree = {
    'seed': 0,
    'label': 'x',
    'mesh': {'data': 1, 'seeds': 1},
    'eval': {'k': 4},
    'launch': {'nodes': 1},
  }
  tree['train'] = {'steps': 3, 'trackers': []}
  assert config_hash(from_json(tree)) == 'eee57b9722e82541'
  tree = to_json(load(BASE))
  del tree['optim']['name']
  assert config_hash(from_json(tree)) == config_hash(load(BASE))


def test_a_hash_makes_one_tree_of_the_config(monkeypatch):
  config, trees, to_json = load(BASE), [], serialization.to_json
  monkeypatch.setattr(serialization, 'to_json', lambda tree: trees.append(tree) or to_json(tree))
  config_hash(config)
  assert sum(tree is config for tree in trees) == 1


def test_a_field_that_came_since_is_one_that_runs_of_before_may_lack():
  """Else they could neither be evaluated nor go on, and no hash that was kept would hold."""
  fields = sorted(path for path, _ in leaves(load(BASE)) if path not in ADDED)
  digest = hashlib.sha256('\n'.join(fields).encode()).hexdigest()
  assert digest == '7d91da37767549da5b685f0279d911cd4bda501a961d0d468de55709e7ff52b5', (
    'a new field stands in ADDED'
  )
  assert {*ADDED, *HASHED_ADDED} <= {path for path, _ in leaves(load(BASE))}


def test_differing_keys_sees_fields_of_one_side_and_types():
  assert differing_keys({'a': {'b': 1, 'c': None}}, {'a': {'b': 1.0, 'd': 2}}) == [
    'a.b',
    'a.c',
    'a.d',
  ]


def test_flags():
  flags = {'config': REQUIRED, 'out': None, 'jobs': 1, 'force': False}
  argv = ['--config=c.py', '--config.train.steps', '7', '--config.eval.lengths=16,32', '--force']
  values, overrides = parse_args(
    [*argv, '--config.encoding.name=alibi', '--config.label=a=b'], flags
  )
  assert vars(values) == {'config': 'c.py', 'out': None, 'jobs': 1, 'force': True}
  assert overrides == {
    'train.steps': 7,
    'eval.lengths': (16, 32),
    'encoding.name': 'alibi',
    'label': 'a=b',
  }
  positionals = []
  assert parse_args(['a', *argv, 'b'], flags, positionals) == parse_args(argv, flags)
  assert positionals == ['a', 'b']
  with pytest.raises(UserError, match='-x: no such flag'):
    parse_args(['a', '-x', *argv], flags, positionals)


def test_what_looks_like_a_number_is_text_where_the_field_takes_text():
  texts = {'launch.account': '12345', 'label': '2.50', 'data.corpus': '2024'}
  argv = [f'--config.{field}={text}' for field, text in texts.items()]
  argv += ['--config.train.steps=60', "--config.launch.partition='7'"]
  overrides = parse_args(argv, {})[1]
  assert overrides == {**texts, 'train.steps': 60, 'launch.partition': '7'}
  load(BASE, overrides)


def test_a_tilde_is_the_users_folder_in_paths_alone(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  argv = ['--workdir=~/x', '--prompt=~/x', '--config.data.corpus', '~/texts', '--config.label=~/x']
  values, overrides = parse_args(argv, {'workdir': REQUIRED, 'prompt': ''})
  assert vars(values) == {'workdir': '/home/me/x', 'prompt': '~/x'}
  assert overrides == {'data.corpus': '/home/me/texts', 'label': '~/x'}
  flags = dict.fromkeys(('beside', 'hlo'), '')
  assert set(vars(parse_args(['--beside=~/x', '--hlo=~/x'], flags)[0]).values()) == {'/home/me/x'}
  with pytest.raises(UserError, match="'~nobody-at-all/x': there is no such user"):
    parse_args(['--workdir=~nobody-at-all/x'], {'workdir': REQUIRED})


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    ([], ['--config: must be given']),
    (['--config=c.py', '--wrokdir=x'], ['--wrokdir=x: no such flag', "did you mean '--workdir'?"]),
    (['--config=c.py', 'x'], ['x: no such flag']),
    (['--config'], ['--config: has no value']),
    (['--config=c.py', '--config.train.steps'], ['--config.train.steps: has no value']),
    (
      ['--config=c.py', '--workdir', '--jobs=2'],
      ['--workdir: has no value; allowed: --workdir=VALUE'],
    ),
    (['--config=c.py', '--config.label', '--jobs=2'], ['--config.label: has no value']),
    (['--config=c.py', '--jobs=many'], ["jobs='many'", 'int']),
  ],
)
def test_bad_flags(argv, words):
  with pytest.raises(UserError) as error:
    parse_args(argv, {'config': REQUIRED, 'workdir': None, 'jobs': 1})
  assert all(word in str(error.value) for word in words)


def test_sweeps():
  seeds, names = vary('seed', 0, 1), vary('encoding.name', 'a', 'b', 'c')
  assert product(seeds, names)[:2] == [
    {'seed': 0, 'encoding.name': 'a'},
    {'seed': 0, 'encoding.name': 'b'},
  ]
  assert len(product(seeds, names, vary('label', 'x'))) == 6
  with pytest.raises(UserError, match='seed set by two'):
    product(seeds, seeds)


def test_a_whole_encoding_and_a_name_are_not_swept_together():
  with pytest.raises(UserError, match=r'^sweep: encoding and encoding\.name; allowed: one of them'):
    product(vary('encoding.name', 'rope'), vary('encoding', {'name': 't5'}))


def test_a_section_is_set_before_its_fields_whatever_their_order():
  whole = vary('encoding', {'name': 'rope'}, {'name': 'p_rope', 'p': 0.5})
  bases = vary('encoding.base', 1e4, 5e5)
  for sweep in (product(whole, bases), product(bases, whole)):
    encodings = [load(BASE, overrides).encoding.to_dict() for overrides in sweep]
    assert sorted((e['name'], e['base']) for e in encodings) == [
      *(('p_rope', base) for base in (1e4, 5e5)),
      *(('rope', base) for base in (1e4, 5e5)),
    ]


def test_a_section_within_the_encoding_is_set_before_its_fields_whatever_their_order():
  whole = {'encoding.scaling': {'rope_type': 'linear', 'factor': 4}}
  for overrides in (whole | {'encoding.scaling.factor': 8}, {'encoding.scaling.factor': 8} | whole):
    scaling = load(BASE, overrides).encoding.scaling
    assert scaling.to_dict() == {'rope_type': 'linear', 'factor': 8}


def test_another_rope_type_has_none_of_the_fields_of_the_one_before():
  llama = {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
  llama |= {'original_max_position_embeddings': 8192}
  section = {'name': 'rope', 'base': 5e5, 'scaling': llama}
  yarn = {'encoding.scaling.factor': 4, 'encoding.scaling.rope_type': 'yarn'}
  c = load(BASE, {'encoding': section} | yarn)
  kept = {'original_max_position_embeddings': 8192}
  assert c.encoding.to_dict() == section | {'scaling': {'rope_type': 'yarn', 'factor': 4} | kept}
  c = load(BASE, {'encoding': section})
  overlay(c, {'encoding.scaling.rope_type': 'llama3', 'encoding.scaling.factor': 4})
  assert c.encoding.to_dict() == section | {'scaling': llama | {'factor': 4}}


LLAMA_3_2 = {'rope_type': 'llama3', 'factor': 32.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
LLAMA_3_2 |= {'original_max_position_embeddings': 8192}
# As of Gemma 3 4B, which is imported with the length that its scaling starts from.
LINEAR = {'rope_type': 'linear', 'factor': 8.0, 'original_max_position_embeddings': 16_384}


def scaled_run(workdir, scaling, length):
  """The directory of a run with this scaling, as far as its config is read."""
  encoding = {'name': 'pattern', 'layers': ({'name': 'rope', 'scaling': scaling}, 'nope')}
  workdir.mkdir()
  c = load(BASE, {'encoding': encoding, 'train.length': length})
  storage.write_json(workdir / 'config.json', to_json(c))
  return workdir


@pytest.mark.parametrize(
  ('scaling', 'length', 'more', 'said'),
  [
    (
      LLAMA_3_2,
      131_072,
      {'rope_type': 'yarn', 'factor': 64},
      'yarn by 64 from 8,192, made for 524,288 tokens, in the place of llama3 by 32 from 8,192; '
      'trained at 131,072',
    ),
    (
      LLAMA_3_2,
      131_072,
      {'rope_type': 'ntk', 'factor': 2, 'original_max_position_embeddings': 8192},
      'ntk by 2 from 8,192, made for 16,384 tokens, in the place of llama3 by 32 from 8,192; '
      'trained at 131,072',
    ),
    (
      None,
      128,
      {'rope_type': 'linear', 'factor': 4},
      'linear by 4 from 128, made for 512 tokens; trained at 128',
    ),
    (
      LINEAR,
      131_072,
      {'factor': 16},
      'linear by 16 from 16,384, made for 262,144 tokens, in the place of linear by 8 from 16,384; '
      'trained at 131,072',
    ),
    (
      {'rope_type': 'linear', 'factor': 4},  # the same type starts from where it did
      128,
      {'factor': 8},
      'linear by 8 from 128, made for 1,024 tokens, in the place of linear by 4 from 128; '
      'trained at 128',
    ),
    (
      {'rope_type': 'linear', 'factor': 4},
      128,
      {'rope_type': 'yarn', 'factor': 8, 'original_max_position_embeddings': 128},
      'yarn by 8 from 128, made for 1,024 tokens, in the place of linear by 4 from 128; '
      'trained at 128',
    ),
    (None, 128, {'rope_type': 'dynamic', 'factor': 1.5}, 'dynamic by 1.5 from 128; trained at 128'),
    (
      None,
      128,
      {'rope_type': 'linear', 'factor': 0.5},  # which the encoding will refuse
      'linear by 0.5 from 128, made for 64 tokens; trained at 128',
    ),
    (None, 128, {'rope_type': 'power', 'exponent': 0.5}, 'power; trained at 128'),
  ],
)
def test_a_scaling_that_is_laid_over_a_run_is_said(scaling, length, more, said, tmp_path, capsys):
  run = scaled_run(tmp_path / 'run', scaling, length)
  trained_config(run, {f'encoding.scaling.{field}': value for field, value in more.items()})
  assert capsys.readouterr() == ('', f'{run}: {said}\n')
  trained_config(run, {'eval.k': 4})
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize(
  'kind',
  [
    *('yarn', 'yarn_paper', 'yarn_log', 'linear', 'ntk', 'ntk_mixed', 'mrrope_uni', 'mrrope_pro'),
    *('alpha_rope', 'theta_scale'),
  ],
)
def test_a_scaling_that_shortens_a_model_is_refused(kind, tmp_path):
  run = scaled_run(tmp_path / 'run', LLAMA_3_2, 131_072)
  words = f'{kind} by 4 from 8,192 is made for 32,768 tokens, and the run was trained at 131,072; '
  words += 'allowed: a factor of the length that is wanted / 8,192, 16 or more'
  with pytest.raises(UserError, match=words):
    trained_config(run, {'encoding.scaling.rope_type': kind, 'encoding.scaling.factor': 4})


def test_in_the_place_of_a_linear_scaling_none_starts_from_the_length_of_training(tmp_path):
  run = scaled_run(tmp_path / 'run', LINEAR, 131_072)
  words = 'yarn by 2 from 16,384 is made for 32,768 tokens, and the run was trained at 131,072; '
  words += 'allowed: a factor of the length that is wanted / 16,384, 8 or more'
  by_2 = {'encoding.scaling.rope_type': 'yarn', 'encoding.scaling.factor': 2}
  with pytest.raises(UserError, match=words):
    trained_config(run, by_2)
  unknown = {'rope_type': 'linear', 'factor': 8.0}
  run = scaled_run(tmp_path / 'unknown', unknown, 131_072)
  words = 'scaling: yarn would take the place of linear, whose start is not known; '
  words += 'allowed: with scaling.original_max_position_embeddings, the length that linear starts'
  with pytest.raises(UserError, match=words):
    trained_config(run, by_2)
  words = r"allowed: RoPE without one, by --config\.encoding=\"\{'name':'rope','base':X}"
  with pytest.raises(UserError, match=words):
    trained_config(run, {'encoding.scaling.rope_type': 'default'})


@pytest.mark.parametrize(
  ('scaling', 'more', 'words'),
  [
    (LLAMA_3_2, {'rope_type': 'yarn', 'factor': 4}, 'yarn by 4 from 8,192 is made for 32,768 tok'),
    (LLAMA_3_2, {'rope_type': 'yarn', 'factor': 16}, None),
    (LLAMA_3_2, {'rope_type': 'yarn', 'factor': 4, ORIGINAL: 16_384}, None),
    (LLAMA_3_2, {'rope_type': 'linear', 'factor': 4, ORIGINAL: None}, None),
    ({'rope_type': 'linear', 'factor': 8.0}, {'rope_type': 'yarn'}, 'yarn would take the place of'),
    ({'rope_type': 'linear', 'factor': 8.0}, {'rope_type': 'yarn', ORIGINAL: 16_384}, None),
    (LINEAR, {}, None),
  ],
)
def test_a_run_of_no_steps_has_no_scaling_that_evaluation_refuses(scaling, more, words, tmp_path):
  """One of some steps may be tuned to it."""
  start = scaled_run(tmp_path / 'start', scaling, 131_072)
  c = storage.read_json(start / 'config.json')
  c = from_json(c | {'train': c['train'] | {'steps': 0, 'init_from': str(start), 'length': 64}})
  overlay(c, {f'encoding.scaling.{field}': value for field, value in more.items()})
  refused = contextlib.nullcontext()
  if words is not None:
    refused = pytest.raises(UserError, match=f'^config.encoding.scaling: {words}')
  with refused:
    setup._check_start([(c, tmp_path / 'run')], None)
  overlay(c, {'train.steps': 1})
  setup._check_start([(c, tmp_path / 'run')], None)


def test_layers_with_a_window_are_not_shown_first_tokens_past_it(tmp_path):
  local, whole = {'name': 'rope', 'attention_window': 4}, {'name': 'rope', 'base': 1e6}
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': (local, whole)}})
  storage.write_json(tmp_path / 'config.json', to_json(c))
  streaming = {'encoding.name': 'streaming_rope', 'encoding.window': 60}
  words = 'layers with a window of their own would see first tokens past it; allowed: '
  words += '--config.encoding.attention_window=N --config.encoding.attention_sink_tokens=4, which'
  with pytest.raises(UserError, match=words):
    trained_config(tmp_path, streaming | {'attention.window': 60, 'attention.sink_tokens': 4})
  overlay(c, {'encoding': {'name': 'pattern', 'layers': (local, 'alibi')}})
  (tmp_path / 'alibi').mkdir()
  storage.write_json(tmp_path / 'alibi' / 'config.json', to_json(c))
  with pytest.raises(UserError, match=r'would see first tokens past it; allowed: 0$'):
    trained_config(tmp_path / 'alibi', {'attention.sink_tokens': 4})
  own = {'attention_window': 60, 'attention_sink_tokens': 4}
  c = trained_config(tmp_path, streaming | {f'encoding.{name}': x for name, x in own.items()})
  changed = whole | own | {'name': 'streaming_rope', 'window': 60}
  assert to_json(c.encoding)['layers'] == [local, changed]
  sink = {'name': 'sink'}
  chains = [
    {'name': 'chain', 'members': (layer, sink)} | more
    for layer, more in (({'name': 'rope'}, {'attention_window': 4}), (whole, {}))
  ]
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': chains}})
  overlay(c, streaming | {f'encoding.{name}': x for name, x in own.items()})
  streamed = whole | {'name': 'streaming_rope', 'window': 60}
  assert to_json(c.encoding)['layers'][1] == {'name': 'chain', 'members': [streamed, sink]} | own
  shown = {'encoding': {'name': 'pattern', 'layers': (local, whole)}, 'attention.sink_tokens': 4}
  storage.write_json(tmp_path / 'config.json', to_json(load(BASE, shown)))
  trained_config(tmp_path, {'attention.sink_tokens': 4})  # as it was trained
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': ('rope', 'nope')}})
  storage.write_json(tmp_path / 'config.json', to_json(c))
  assert trained_config(tmp_path, {'attention.sink_tokens': 4}).attention.sink_tokens == 4


FOX = {'name': 'fox', 'start': 5.0}


@pytest.mark.parametrize(
  ('members', 'fox'), [('rope,fox', {'name': 'fox'}), (('rope', FOX), FOX), (['rope', FOX], FOX)]
)
def test_a_chain_keeps_the_hyperparameters_of_the_encoding_that_it_takes_in(members, fox):
  own = {'name': 'rope', 'base': 5e5, 'scaling': {'rope_type': 'linear', 'factor': 2}}
  chain = {'encoding.name': 'chain', 'encoding.members': members}
  c = load(BASE, {'encoding': own})
  overlay(c, chain)
  assert c.encoding.to_dict() == {'name': 'chain', 'members': (own, fox)}
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': (own, 'nope')}})
  overlay(c, chain)
  chained = {'name': 'chain', 'members': [own, fox]}
  assert to_json(c.encoding)['layers'] == [chained, {'name': 'nope'}]
  c = load(BASE, chain)  # without hyperparameters that it could lose
  assert c.encoding.members == members


def test_fields_of_a_chain_are_set_in_its_members_that_are_rope():
  temperature = {'name': 'llama4_temperature', 'c': 0.5}
  c = load(BASE, {'encoding': {'name': 'chain', 'members': ('rope', temperature)}})
  overlay(c, {'encoding.base': 7.0, 'train.length': 64})
  assert c.encoding.members == ({'name': 'rope', 'base': 7.0}, temperature)
  assert c.train.length == 64
  overlay(c, {'encoding.name': 'self_extend', 'encoding.window': 9})
  assert c.encoding.members == ({'name': 'self_extend', 'base': 7.0, 'window': 9}, temperature)
  for members in ('nope', 'rope,sink'):  # said anew
    c = load(BASE, {'encoding': {'name': 'chain', 'members': 'rope,fox'}})
    overlay(c, {'encoding.name': 'chain', 'encoding.members': members})
    assert c.encoding.to_dict() == {'name': 'chain', 'members': members}


@pytest.mark.parametrize('members', ['rope,vo_rope,fox', 'alibi,vo_rope'])
def test_values_turn_as_keys_after_fields_are_set(members):
  """And a field that `vo_rope` lacks is set in rope alone, or stays to be refused."""
  turned = {'base': 7.0, 'scaling': {'rope_type': 'yarn'}}
  own = lambda name: {'name': name} | (turned if name in ('rope', 'vo_rope') else {})
  chain, changed = (
    {'name': 'chain', 'members': list(map(f, members.split(',')))} for f in (str, own)
  )
  fields = {'encoding.base': 7.0, 'encoding.scaling.rope_type': 'yarn'}
  for before, after in (
    (chain, changed),
    (
      {'name': 'pattern', 'layers': [chain, 'rope']},
      {'name': 'pattern', 'layers': [changed, own('rope')]},
    ),
  ):
    c = load(BASE, {'encoding': before})
    overlay(c, fields)
    assert to_json(c.encoding) == after
  c = load(BASE, {'encoding': chain})
  overlay(c, {'encoding.base': 7.0, 'encoding.window': 9})
  if 'rope' in members.split(','):
    rope, vo_rope, _ = c.encoding.members
    assert (rope['window'], rope['base'], vo_rope) == (9, 7.0, {'name': 'vo_rope', 'base': 7.0})
  else:
    assert to_json(c.encoding) == chain | {'base': 7.0, 'window': 9}


@pytest.mark.parametrize('field', ['base', 'attention_window'])
def test_fields_of_no_part_stay_to_be_refused(field):
  for encoding in ({'name': 'chain', 'members': 't5,fox'}, {'name': 'pattern', 'layers': 'nope'}):
    c = load(BASE, {'encoding': encoding})
    overlay(c, {f'encoding.{field}': 7})
    assert to_json(c.encoding) == encoding | {field: 7}


def test_fields_of_a_pattern_are_set_in_its_chains_that_have_rope():
  """A layer keeps its sink tokens, and a chain in the place of a chain what members say."""
  rope, shift = {'name': 'rope', 'base': 5e5}, {'name': 'kv_shift'}
  chain = lambda *members, **more: {'name': 'chain', 'members': [*members], **more}
  layers = (chain(shift, rope, attention_sink_tokens=4), chain(shift, {'name': 'nope'}), rope)
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': layers}})
  overlay(c, {'encoding.base': 7.0})
  moved = chain(shift, {'name': 'rope', 'base': 7.0}, attention_sink_tokens=4)
  assert to_json(c.encoding)['layers'] == [moved, layers[1], {'name': 'rope', 'base': 7.0}]
  overlay(c, {'encoding.name': 'chain', 'encoding.members': 'rope,logn'})
  moved['members'] = [{'name': 'rope', 'base': 7.0}, {'name': 'logn'}]
  own = {'name': 'chain', 'members': moved['members']}
  assert to_json(c.encoding)['layers'] == [moved, layers[1], own]
  c = load(BASE, {'encoding': chain(shift, rope)})
  overlay(c, {'encoding.name': 'chain', 'encoding.members': 'rope,logn'})
  assert to_json(c.encoding) == chain(rope, {'name': 'logn'})
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': (rope | {'attention_window': None},)}})
  overlay(c, {'encoding.base': 7.0})  # None is no window
  assert c.encoding.layers[0]['base'] == 7.0


def test_hyperparameters_of_no_member_of_a_chain_stay_to_be_refused():
  own = {'name': 'rope', 'base': 5e5}
  for members in ('fox,sink', 'rope,rope', 5):
    c = load(BASE, {'encoding': own})
    overlay(c, {'encoding.name': 'chain', 'encoding.members': members})
    assert c.encoding.to_dict() == {'name': 'chain', 'base': 5e5, 'members': members}
  overlay(c, {'encoding': own})
  overlay(c, {'encoding.name': 'chain', 'encoding.members': ['fox', {'name': 'rope', 'base': 7.0}]})
  assert c.encoding.members[1] == {'name': 'rope', 'base': 7.0}


def test_fields_of_a_pattern_are_set_in_its_layers_that_are_rope_and_see_the_whole_text():
  windowed = {'name': 'rope', 'attention_window': 8}
  layers = ('rope', {'name': 'rope', 'base': 5.0}, windowed, 'nope')
  c = load(BASE, {'encoding': {'name': 'pattern', 'layers': layers}})
  overlay(c, {'encoding.name': 'self_extend', 'encoding.window': 9, 'train.length': 64})
  extended = {'name': 'self_extend', 'window': 9}
  assert c.encoding.layers == (extended, extended | {'base': 5.0}, windowed, {'name': 'nope'})
  assert c.train.length == 64
  named = load(BASE, {'encoding': {'name': 'pattern', 'layers': 'rope,nope'}, 'encoding.base': 7.0})
  assert named.encoding.to_dict() == {'name': 'pattern', 'layers': 'rope,nope', 'base': 7.0}
  overlay(named, {'encoding': {'name': 'pattern', 'layers': 'rope,nope'}})
  overlay(named, {'encoding.base': 7.0})
  assert named.encoding.layers == ({'name': 'rope', 'base': 7.0}, {'name': 'nope'})
  for taken in ({'encoding.layers': 'nope'}, {'encoding': {'name': 'alibi'}}):
    overlay(named, taken)
    overlay(named, {'encoding.base': 9.0})  # no layer takes it
    assert named.encoding.base == 9.0


@pytest.mark.parametrize(
  ('name', 'plain'),
  [
    ('texts/', 'texts'),
    ('./a//b/', 'a/b'),
    ('a/../b', 'a/../b'),
    ('sotu', 'sotu'),
    ('./sotu', './sotu'),
    ('hf:a/', 'hf:a/'),
  ],
)
def test_a_folder_of_text_has_one_name(name, plain):
  """But for what else another name could mean."""
  assert load(BASE, {'data.corpus': name}).data.corpus == plain


# What is noted, and not refused


@pytest.mark.parametrize(
  ('changes', 'found'),
  [
    ({}, []),
    ({'train.length': 1024}, []),
    (
      {'train.length': 4096},
      ['eval.lengths=(128, 256, 512, 1024, 2048): none is past train.length=4096'],
    ),
    (
      {'train.length': 1000},
      ['eval.lengths=(128, 256, 512, 1024, 2048): train.length=1000 itself is not measured'],
    ),
    (
      {'model.model_dim': 768, 'model.heads': 12},
      [
        'model.heads=12 of model.head_dim=32 are 384 channels, beside model.model_dim=768',
        'model.mlp_dim=512: is less than model.model_dim=768',
      ],
    ),
    ({'model.model_dim': 768, 'model.heads': 24, 'model.mlp_dim': 768}, []),
  ],
)
def test_defaults_that_do_not_follow_what_was_changed_are_noted(changes, found):
  config = load(BASE, changes)
  validate(config)
  assert notes(config) == found
  assert notes_of_all([config] * 2) == found
  assert notes_of_all([config, load(BASE)]) == [f'{note} (1 of 2 runs)' for note in found]


def test_what_others_call_otherwise_is_there():
  """Under the word that an error names, and not under the other, too."""
  hyper = {key for name in ENCODINGS for key in hyperparameters(name)}
  for words, names in (
    (other_words.FIELDS, {*flat(load(BASE, {}))}),
    (other_words.HYPERPARAMETERS, hyper),
    (other_words.ENCODINGS, {*ENCODINGS}),
    (other_words.PROTOCOLS, {*PROTOCOLS}),
  ):
    assert {*words.values()} <= names
    assert not {*words} & names
    assert all(word == word.lower() for word in words)
  apart = (other_words.FIELDS, other_words.HYPERPARAMETERS, other_words.ENCODINGS)
  assert len(other_words.MEANT) == sum(map(len, (*apart, other_words.PROTOCOLS)))


def test_what_stands_elsewhere_is_said():
  fields = {*flat(load(BASE, {}))} | {'encoding.name'}
  of_encodings = {f'encoding.{key}' for name in ENCODINGS for key in hyperparameters(name)}
  for word, said in other_words.ELSEWHERE.items():
    with pytest.raises(UserError, match=re.escape(f'config.model.{word}: no such field; {said}')):
      load(BASE, {f'model.{word}': 1})
    named = {*re.findall(r'\w+\.\w+', said)}
    assert named <= fields | of_encodings | {'encoding.layers'}
    assert {*re.findall(r"name='(\w+)'", said)} <= {*ENCODINGS, 'pattern'}
