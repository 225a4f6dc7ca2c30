"""scripts/explain.py names every source of position, and is right about it."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from kinds import daily_if, representatives

from posenc_jax import config, data
from posenc_jax.config import BASE
from posenc_jax.distributed import processes
from posenc_jax.encodings import ENCODINGS, Encoding
from posenc_jax.encodings.core.base import PLACES_OF_PAIRS
from posenc_jax.errors import UserError
from posenc_jax.inspection import laws
from posenc_jax.model.decoder import build
from scripts import explain

GRID = {'data.corpus': 'task:grid/positions=grid', 'eval.protocols': 'answers'}
OF_A_GRID = {'encoding.name': 'axial_rope', 'encoding.base': '10000.0,500.0'}
OF_A_GRID |= {'model.mlp': 'swiglu'}
OF_WINDOWS = {  # what goes out as OLMo 3 says RoPE of both kinds of layers
  **{'model.mlp': 'swiglu', 'model.norm_placement': 'output', 'model.qk_norm': 'projection'},
  'encoding.name': 'pattern',
  'encoding.layers': "({'name':'axial_rope','base':(1e4,5e2),'attention_window':8},'rope')",
}
CARRIED = {
  'data.corpus': 'task:addition/reverse=True/positions=abacus',
  'eval.protocols': 'answers',
}


@pytest.fixture
def explained(capsys, monkeypatch):
  """(*flags) -> what is printed, in one line."""
  monkeypatch.setenv('COLUMNS', '300')

  def run(*flags):
    explain.main(
      [f'--config={BASE}', '--config.model.model_dim=16', '--config.model.mlp_dim=16', *flags]
    )
    return ' '.join(capsys.readouterr().out.split())

  return run


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in representatives())) for name in ENCODINGS]
)
def test_every_encoding_is_explained(explained, name):
  fields = {'encoding.name': name}
  if name in ('abacus', 'position_coupling'):  # others find or sample positions of their own
    fields |= CARRIED
  text = explained(*(f'--config.{path}={value}' for path, value in fields.items()))
  c = config.load(BASE, fields | {'model.model_dim': 16, 'model.mlp_dim': 16})
  enc = build(c, data.vocab(c.data), nnx.Rngs(0)).encodings.variants[0].encoding
  assert 'causal mask' in text
  assert enc.paper in text
  assert all(place in text for place in enc.acts_on())
  assert f'scale of q . k │ {enc.scale(32):.6g} ' in text
  assert 'dense │ yes' in text
  assert ('blockwise │ yes' in text) == (enc.normalizer != 'rows')
  acts_on_pairs = bool({*PLACES_OF_PAIRS} & {*enc.acts_on()})
  assert ('cudnn │ no: ' + type(enc).__name__ + ' acts on pairs' in text) == acts_on_pairs


@pytest.mark.parametrize('name', ['learned', 'rope'])
def test_a_model_is_described_by_its_shapes(explained, monkeypatch, name):
  """The whole of a large one may be more than a machine can hold."""
  by_part, described = explain.parameter_counts.by_part, []
  describe = lambda model: described.append(model) or by_part(model)
  monkeypatch.setattr(explain.parameter_counts, 'by_part', describe)
  text = explained(f'--config.encoding.name={name}', '--config.model.mlp=swiglu')
  (model,) = described
  assert {type(leaf) for leaf in jax.tree.leaves(model)} == {jax.ShapeDtypeStruct}
  assert f'in all {sum(leaf.size for leaf in jax.tree.leaves(model)):,}' in text
  assert ('Export: as a model of the family llama' in text) == (name == 'rope')


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('fox', 'not read, but for the order of tokens where that counts'),
    ('rope', 'as they are, real numbers'),
    ('alibi', 'as they are, integers'),
    ('pose', 'sampled, once a forward pass'),
  ],
)
def test_which_positions_are_read_is_shown(explained, name, said):
  assert f'positions │ {said}' in explained(f'--config.encoding.name={name}')


def test_known_limits_are_shown(explained):
  text = explained('--config.encoding.name=chain', '--config.encoding.members=rope,entmax')
  assert 'angles are float32: with all positions a million further' in text
  assert 'rows of scores must be whole' in text


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    (('name=alibi',), 'no, added after it'),
    (('name=shaw',), 'yes'),
    (('name=xpos',), 'declares none'),
    (('name=stick_breaking',), 'declares none'),
    (('name=chain', 'members=rope,alibi'), 'no, added after it'),
    (('name=chain', 'members=shaw,alibi'), 'Shaw: yes; ALiBi: no, added after it'),
    (('name=random_positions', 'inner=shaw'), 'yes'),
  ],
)
def test_whether_terms_are_in_the_scale_is_said_of_what_has_some(explained, fields, said):
  text = explained(*(f'--config.encoding.{field}' for field in fields))
  assert f'bias in the scale │ {said} │' in text


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({}, "no: config.model.mlp='gelu': llama, the family next to it, has 'swiglu'"),
    ({'model.mlp': 'swiglu'}, 'as a model of the family llama'),
    ({'model.mlp': 'swiglu', 'encoding.name': 'alibi'}, "no: config.encoding={'name': 'alibi'}"),
    ({'model.mlp': 'swiglu', 'encoding.name': 'tapa'}, "no: config.encoding={'name': 'tapa'}"),
    (OF_A_GRID, "no: config.encoding={'base': [10000.0, 500.0], 'name': 'axial_rope'}"),
    (OF_WINDOWS, 'no: config.encoding='),
    (CARRIED, 'no: config.data: its tokens are symbols of a task'),
    ({'data.tokenizer': 'sentencepiece', 'data.vocab': 500}, 'no: config.data: its tokens are th'),
  ],
)
def test_the_family_that_a_run_would_be_exported_as_is_said(explained, fields, said):
  text = explained(*(f'--config.{path}={value}' for path, value in fields.items()))
  assert f' Export: {said}' in text


def test_brackets_of_formulas_are_shown(explained):
  text = explained('--config.encoding.name=t5')
  assert 'B[bucket(i - j), head]' in text
  assert 'B is the parameter `table` times sqrt(K).' in text


def test_what_is_switched_on_is_named(explained):
  text = explained(
    '--config.encoding.name=deberta', '--config.encoding.p2c=False', '--config.attention.window=9'
  )
  assert 'the last 9 tokens' in text
  assert 'p2c │ False │ whether' in text
  assert 'w_k │ (16, 4, 32) │ one a layer: 4 │ 8,192' in text
  assert 'rows │ (256, 16) │ one │ 4,096' in text
  assert 'w_q' not in text


@pytest.mark.parametrize(
  ('fields', 'rows'),
  [
    ({}, ('ring │ yes', 'fused_interpret │ yes')),
    (
      {'mesh.context': 2, 'attention.block_sizes': '(12,12)'},
      ('blockwise │ yes', 'ring │ yes', 'fused_interpret │ no: a side of a tile must be a power'),
    ),
    ({'mesh.data': 4, 'train.grad_accum_steps': 8}, ('ring_interpret │ yes',)),
    (
      {'encoding.name': 'random_positions', 'encoding.inner': 't5'},
      ('dense │ yes', 'fused_interpret │ no: with explicit positions each pair looks'),
    ),
    (
      {
        'encoding.name': 't5',
        'data.corpus': 'task:addition/reverse=True/positions=coupled',
        'eval.protocols': 'answers',
      },
      ('ring │ yes', 'fused_interpret │ no: with explicit positions each pair looks'),
    ),
  ],
)
def test_backends_are_asked_for_what_the_run_asks_for(explained, fields, rows):
  """On its mesh, in its tiles, and with the positions that layers are given."""
  text = explained(*(f'--config.{path}={value}' for path, value in fields.items()))
  for row in rows:
    assert row in text, text


@pytest.mark.parametrize(
  ('platform', 'name', 'dtype', 'rows'),
  [
    ('', 'rope', 'bfloat16', ('Backends on a CPU', 'fused │ no: jax runs on cpu', 'takes dense')),
    ('cpu', 'rope', 'bfloat16', ('Backends on a CPU', 'cudnn │ no: jax runs on cpu')),
    ('gpu', 'rope', 'bfloat16', ('Backends on a GPU', 'cudnn │ yes', 'auto │ takes cudnn')),
    ('gpu', 'rope', 'float32', ('cudnn takes bfloat16 or', 'triton │ yes', 'auto │ takes dense')),
    ('gpu', 'alibi', 'bfloat16', ('fused │ no: jax runs on gpu', 'auto │ takes diagonals')),
    ('tpu', 'rope', 'bfloat16', ('splash │ yes', 'fused │ yes', 'auto │ takes splash')),
    ('tpu', 'shaw', 'bfloat16', ('Backends on a TPU', 'fused │ yes', 'auto │ takes fused')),
  ],
)
def test_backends_are_asked_for_a_platform(explained, platform, name, dtype, rows):
  """None of which but the CPU is here."""
  length = 2048 if name == 'alibi' else 256
  text = explained(
    *([f'--platform={platform}'] if platform else []),
    f'--config.encoding.name={name}',
    f'--config.train.compute_dtype={dtype}',
    f'--config.train.length={length}',
    '--config.model.head_dim=64',
  )
  for row in rows:
    assert row.lower() in text.lower(), text
  for other in {'CPU', 'GPU', 'TPU'} - {(platform or 'cpu').upper()}:
    assert f'Backends on a {other}' not in text


@pytest.mark.parametrize(
  ('fields', 'backend'),
  [((), 'dense'), (('--config.seeds=0,1,2,3', '--config.vmap_seeds=True'), 'diagonals')],
)
def test_seeds_of_one_program_count_for_auto(explained, fields, backend):
  """As they do in training: it has no room for all scores of four seeds where it has for one's."""
  sizes = ('train.batch=16', 'model.heads=4', 'train.length=1024', 'encoding.name=alibi')
  text = explained('--platform=gpu', *(f'--config.{field}' for field in sizes), *fields)
  assert f'auto │ takes {backend}' in text


def test_a_run_without_training_is_asked_in_the_dtype_of_its_evaluation(explained):
  fields = ('eval.compute_dtype=bfloat16', 'model.head_dim=64')
  flags = ['--platform=gpu', *(f'--config.{field}' for field in fields)]
  text = explained(*flags, '--config.train.steps=0', '--config.train.init_from=runs/b')
  assert 'takes 128 tokens in bfloat16' in text
  assert 'auto │ takes cudnn' in text
  text = explained(*flags)
  assert 'takes 128 tokens in float32' in text
  assert 'auto │ takes dense' in text


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_bytes_of_parameters_are_shown(explained, dtype):
  text = explained(f'--config.eval.compute_dtype={dtype}', '--config.model.mlp_dim=8192')
  (count,) = re.findall(r'in all ([\d,]+): ', text)
  count = int(count.replace(',', ''))
  assert f': {4 * count / 1e6:.1f} MB in float32' in text
  half = f', at least {2 * count / 1e6:.1f} MB as eval.py holds them in bfloat16'
  assert (half in text) == (dtype == 'bfloat16')
  assert explain.size_in_words(32_121_000_000) == '32.1 GB'


def test_platforms_that_there_are_not_are_one_line(explained):
  with pytest.raises(UserError, match=r"^--platform='gpus'; allowed: cpu, gpu, tpu$"):
    explained('--platform=gpus')


def test_laws_are_of_no_platform(explained):
  with pytest.raises(UserError, match=r"^--platform='tpu': does nothing here; allowed: without"):
    explained('--check', '--platform=tpu')


@pytest.mark.parametrize(
  ('fields', 'reason'),
  [
    (
      GRID | {'encoding.name': 'rope'},
      "='task:grid/positions=grid': carries 2 a token, integers; allowed: 1, floats, for RoPE",
    ),
    # with as many heads of keys as positions a token, which could be each head's
    (GRID | {'encoding.name': 'rope', 'model.heads': 2}, 'carries 2 a token, integers; allowed: 1'),
    ({'encoding.name': 'abacus'}, 'carries no positions, which Abacus is made for; allowed: one'),
    (
      {'encoding.name': 'learned', 'encoding.max_length': 64},
      'config.train.length=128: positions of learned end at 64; allowed: at most that',
    ),
  ],
)
def test_what_training_refuses_is_refused(explained, fields, reason):
  with pytest.raises(UserError, match=reason):
    explained(*(f'--config.{path}={value}' for path, value in fields.items()))


@pytest.mark.parametrize(
  ('bias', 'reason'),
  [
    (lambda self, r_R: r_R * 1.0, r'^Own: bias has shape \(256,\) for 256 distances; allowed: '),
    (lambda self, r_R: jnp.ones(5) * jnp.ones(4), r'^mul got .*: \(5,\), .* \(.*test_explain.py:'),
    (lambda self, r_R: jnp.add('text', r_R), r'^Error interpreting .* \(.*test_explain.py:'),
  ],
)
def test_a_hook_of_ones_own_that_ends_with_an_error_is_one_line(
  explained, monkeypatch, bias, reason
):
  own = type('Own', (Encoding,), {'bias': bias, 'bias_in_scale': False})
  monkeypatch.setitem(ENCODINGS, 'own', own)
  with pytest.raises(UserError, match=reason):
    explained('--config.encoding.name=own')


def test_backends_are_asked_with_the_window_of_each_layer(explained, monkeypatch):
  refuse = lambda call: f'a window of {call.mask.window}'
  monkeypatch.setitem(explain.BACKENDS, 'dense', SimpleNamespace(refuse=refuse))
  layers = (
    "({'name': 'rope', 'attention_window': 8}, {'name': 'rope', 'attention_window': 64}, 'nope')"
  )
  pattern = ('--config.encoding.name=pattern', f'--config.encoding.layers={layers}')
  text = explained(*pattern)
  assert 'tokens in float32, window 8 ┃ takes 128 tokens in float32, window 64' in text
  assert 'dense │ no: a window of 8 │ no: a window of 64' in text
  assert 'dense │ no: a window of None' in text
  text = explained(*pattern, '--config.attention.window=16')
  assert 'dense │ no: a window of 8 │ no: a window of 16' in text
  assert 'dense │ no: a window of 16 │' in text
  assert 'window 64' not in text


def test_laws_are_checked_of_each_encoding_of_a_config(monkeypatch, capsys):
  """The laws themselves are tests of test_extension.py and test_laws.py."""
  asked = []

  def check_laws(enc, is_causal):
    asked.append((type(enc).__name__, is_causal))
    found = [laws.Verdict('tiles', True), laws.Verdict('shift', None, 'it declares so')]
    return [*found, *([laws.Verdict('finite', False, 'output is nan')] * (len(asked) == 2))]

  monkeypatch.setattr(explain, 'check_laws', check_laws)
  flags = [f'--config={BASE}', '--config.model.model_dim=16', '--config.model.mlp_dim=16']
  assert explain.main([*flags, '--config.encoding.name=alibi', '--check']) == 0
  text = capsys.readouterr().out
  assert re.search(r'^Encoding alibi\nholds +tiles: .*\ndoes not apply +shift: .*; it decl', text)
  assert 'Sources of position' not in text
  pattern = ['--config.encoding.name=pattern', '--config.encoding.layers=rope,nope']
  assert explain.main([*flags, *pattern, '--check']) == 1
  assert re.search(r'^FAILS +finite: .*; output is nan$', capsys.readouterr().out, re.MULTILINE)
  assert asked == [('ALiBi', True), ('RoPE', True), ('NoPE', True)]
  assert explain.main([*flags, '--config.encoding.name=rope', '--check', '--bidirectional']) == 0
  assert asked[3:] == [('RoPE', False)]


def test_laws_of_both_sides_are_asked_with_check_and_refused_where_there_are_none(explained):
  with pytest.raises(UserError, match=r'^--bidirectional=True: does nothing here; allowed: with -'):
    explained('--bidirectional')
  with pytest.raises(UserError, match=r'^is_causal=False; allowed: True, for CoPE is defined for '):
    explained('--check', '--bidirectional', '--config.encoding.name=cope')


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    (('name=alibi',), 'served'),
    (('name=fox',), 'refused, by FoX'),
    (('name=fox', 'both_ways=True'), 'served'),
    (('name=chain', 'members=rope,fox'), 'refused, by FoX'),
  ],
)
def test_who_refuses_a_call_without_a_causal_mask_is_shown(explained, fields, said):
  text = explained(*(f'--config.encoding.{field}' for field in fields))
  assert f'without a causal mask │ {said} ' in text


def test_a_host_of_a_slice_of_several_is_told_to_use_one_chip(explained, monkeypatch):
  several = SimpleNamespace(get_process_count=lambda: 2)
  monkeypatch.setattr(processes, '_slice_of_hosts', lambda: several)
  with pytest.raises(UserError, match=r'^a TPU slice of 2 hosts; allowed: one chip, with TPU_'):
    explained()


def test_a_narrow_mlp_is_noted_before_the_tables(explained):
  wide = 'model.heads=4 of model.head_dim=32 are 128 channels, beside model.model_dim=16'
  narrow = 'model.mlp_dim=8: is less than model.model_dim=16'
  assert explained('--config.model.mlp_dim=8').startswith(f'{wide} {narrow} ')
