"""Positions by the files of pretrained models: which of the fields that say a thing counts, as in
transformers.
"""

import json
import math

import numpy as np
import pytest

from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL, read_scaling
from posenc_jax.errors import UserError
from posenc_jax.pretrained import families
from scripts.maintenance.conformance.command import GOLDEN

RECORDS = json.loads((GOLDEN / 'pretrained.json').read_text())
LONGROPE = {'short_factor': [1.0, 1.2], 'long_factor': [1.0, 3.0]}


def encoding_of(name, **fields):
  """The encoding of a golden model's file with other fields; None: without the field."""
  tree = RECORDS[name]['config'] | fields
  return families.form_of({k: v for k, v in tree.items() if v is not None}, 'm').encoding


@pytest.mark.parametrize('field', ['rope_parameters', 'rope_scaling'])
def test_dynamic_scaling_starts_from_the_longest_position(field):
  """transformers reads no `original_max_position_embeddings` for it."""
  said = {'rope_type': 'dynamic', 'factor': 2.0, ORIGINAL: 8}
  fields = {'rope_parameters': None, 'rope_theta': 100.0, field: said}
  encoding = encoding_of('llama', original_max_position_embeddings=4, **fields)
  K, longest = 4, RECORDS['llama']['config']['max_position_embeddings']
  scaling = read_scaling(encoding['scaling'], K, encoding['base'], 1.0, 1)
  for length in (8, 20, longest, longest + 1, 4 * longest):
    growth = max(2.0 * length / longest - (2.0 - 1), 1.0)
    base = 100.0 * growth ** (K / (K - 2))
    expected = [base ** (-2 * m / K) for m in range(K // 2)]
    np.testing.assert_allclose(scaling(K, 100.0, length)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('rope_type', 'more'),
  [
    ('llama3', {'factor': 4.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}),
    ('yarn', {'factor': 4.0}),
    ('longrope', LONGROPE),
  ],
)
def test_the_original_length_beside_the_parameters_counts(rope_type, more):
  said = {'rope_type': rope_type, **more}
  original = lambda beside, within: encoding_of(
    'llama', rope_parameters=said | within, original_max_position_embeddings=beside
  )['scaling'][ORIGINAL]
  assert original(16, {ORIGINAL: 8}) == 16
  assert original(16, {}) == 16
  assert original(None, {ORIGINAL: 8}) == 8
  assert original(None, {}) == 32


def test_the_original_length_of_each_kind_of_layers_is_its_own():
  """Where parameters are those of a kind of layers, the field beside them is not read."""
  said = {'rope_type': 'yarn', 'factor': 4.0}
  kinds = {'sliding_attention': said | {ORIGINAL: 8}, 'full_attention': said}
  fields = {'rope_parameters': kinds, 'original_max_position_embeddings': 16}
  local, *_, whole = encoding_of('gemma3', **fields)['layers'][:6]
  assert local['scaling'][ORIGINAL] == 8
  assert whole['scaling'][ORIGINAL] == RECORDS['gemma3']['config']['max_position_embeddings']


@pytest.mark.parametrize('within', [{}, {ORIGINAL: 8}])
def test_phi3_has_an_original_length_of_its_own(within):
  """4,096 where its file does not say it beside the parameters; within them it is not read."""
  fields = {'max_position_embeddings': 8192, 'original_max_position_embeddings': None}
  said = {'rope_type': 'longrope', **LONGROPE, **within}
  scaling = encoding_of('phi3_longrope', rope_parameters=said, **fields)['scaling']
  assert scaling[ORIGINAL] == 4096
  assert scaling['factor'] == 2.0
  checked = read_scaling(scaling, 4, 1000.0, 1.0, 1)
  for length, divisors in ((4096, (1.0, 1.2)), (4097, (1.0, 3.0))):
    frequencies, factor = checked(4, 1000.0, length)
    expected = [1 / (divisor * 1000.0 ** (m / 2)) for m, divisor in enumerate(divisors)]
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)
    assert factor == pytest.approx(math.sqrt(1 + math.log(2.0) / math.log(4096)))


@pytest.mark.parametrize(
  ('types', 'windowed'),
  [
    (None, [True] * 4),
    (['sliding_attention', 'full_attention'] * 2, [True, False] * 2),
    (['full_attention'] * 4, [False] * 4),
  ],
)
def test_windows_of_ministral_are_in_the_layers_that_its_file_names(types, windowed):
  """Also where the file calls it Mistral, as for transformers."""
  encoding = encoding_of('ministral', layer_types=types)
  layers = encoding.get('layers', [encoding]) * 4
  assert ['attention_window' in layer for layer in layers[:4]] == windowed
  assert {layer.get('attention_window', 5) for layer in layers} == {5}
  if types is not None:
    assert encoding_of('ministral', model_type='mistral', layer_types=types) == encoding


@pytest.mark.parametrize('kind', ['mistral', 'ministral'])
@pytest.mark.parametrize('types', [None, ['full_attention'] * 4])
def test_ministral_without_a_width_has_no_windows(kind, types):
  tree = RECORDS['ministral']['config'] | {'model_type': kind, 'sliding_window': None}
  form = families.form_of(tree | {'layer_types': types}, 'm')
  assert (form.encoding, form.attention['window']) == ({'name': 'rope', 'base': 1e4}, 0)


@pytest.mark.parametrize(
  ('more', 'length', 'scaling'),
  [
    ({'rope_type': 'yarn', 'factor': 4.0, ORIGINAL: 8}, 8, {ORIGINAL: 8}),
    ({'type': 'yarn', 'factor': 4.0}, 32, {ORIGINAL: 32}),
    ({'rope_type': 'yarn', 'factor': 4.0, 'mscale': 1.0, 'mscale_all_dim': 0.0}, 32, {}),
    ({ORIGINAL: 8}, 8, None),
    ({'rope_type': 'yarn', 'factor': 4.0, ORIGINAL: 8, 'max_position_embeddings': 32}, 8, {}),
  ],
)
def test_the_temperature_of_ministral_3_starts_from_the_length_of_its_yarn(more, length, scaling):
  """Also of files with the fields of Devstral 2 and of the first release."""
  said = {'rope_theta': 1e3, 'llama_4_scaling_beta': 0.7} | more
  rotary, temperature = encoding_of('ministral3', rope_parameters=said)['members']
  own = {'name': 'llama4_temperature', 'length': length, 'c': 0.7, 'counts_itself': False}
  assert temperature == own
  if scaling is None:
    assert rotary == {'name': 'rope', 'base': 1e3}
  else:
    assert rotary['scaling'] | scaling == rotary['scaling']
    assert read_scaling(rotary['scaling'], 8, 1e3, 1.0, 32)(8, 1e3, 32)[1] > 1


BARE = {'sliding_attention': {'rope_type': 'default'}, 'full_attention': {'rope_type': 'default'}}
OWN = {'sliding_attention': {'rope_theta': 7.0}, 'full_attention': {'rope_theta': 9.0}}
LINEAR = {'rope_type': 'linear', 'factor': 8.0}


@pytest.mark.parametrize(
  ('fields', 'bases'),
  [
    ({}, (10_000.0, 1e6)),
    ({'rope_theta': 5.0}, (10_000.0, 5.0)),
    ({'rope_theta': 5.0, 'rope_local_base_freq': 3.0}, (3.0, 5.0)),
    ({'rope_parameters': BARE}, (10_000.0, 1e6)),
    ({'rope_parameters': BARE, 'rope_theta': 5.0}, (10_000.0, 5.0)),
    ({'rope_parameters': BARE, 'rope_local_base_freq': 3.0}, (3.0, 1e6)),
    ({'rope_parameters': BARE, 'rope_theta': 5.0, 'rope_local_base_freq': 3.0}, (3.0, 5.0)),
    ({'rope_parameters': OWN, 'rope_theta': 5.0, 'rope_local_base_freq': 3.0}, (7.0, 9.0)),
    ({'rope_parameters': {}, 'rope_theta': 5.0}, (10_000.0, 5.0)),
  ],
)
def test_bases_of_gemma_3(fields, bases):
  """In layers with a window its own, else `rope_local_base_freq`, never `rope_theta`."""
  names = ('rope_parameters', 'rope_theta', 'rope_local_base_freq')
  local, *_, whole = encoding_of('gemma3', **dict.fromkeys(names) | fields)['layers'][:6]
  assert (local['base'], whole['base']) == bases
  assert 'attention_window' in local
  assert 'attention_window' not in whole


@pytest.mark.parametrize('parameters', [None, BARE | {'full_attention': LINEAR}])
def test_the_scaling_of_gemma_3_is_of_layers_without_a_window(parameters):
  layers = encoding_of('gemma3', rope_parameters=parameters, rope_scaling=LINEAR)['layers'][:6]
  assert ['scaling' in layer for layer in layers] == [False] * 5 + [True]


@pytest.mark.parametrize('name', ['gemma3', 'olmo3'])
@pytest.mark.parametrize('parameters', [LINEAR, BARE | LINEAR, {'rope_theta': 1e4}])
def test_parameters_that_a_family_of_two_kinds_would_drop_are_refused(name, parameters):
  with pytest.raises(UserError, match=r'rope_parameters=.*; allowed: sliding_attention and full'):
    encoding_of(name, rope_parameters=parameters)


YARN = {'rope_type': 'yarn', 'factor': 4.0, ORIGINAL: 8}


@pytest.mark.parametrize(
  ('fields', 'bases'),
  [
    ({}, (500.0, 1000.0)),
    ({'rope_parameters': None}, (5e5, 5e5)),
    ({'rope_parameters': None, 'rope_theta': 500_000, 'rope_scaling': YARN}, (5e5, 5e5)),
    ({'rope_parameters': BARE | {'full_attention': YARN}}, (5e5, 5e5)),
    ({'rope_parameters': OWN, 'rope_theta': 3.0, 'rope_scaling': None}, (7.0, 9.0)),
  ],
)
def test_layers_of_olmo_3(fields, bases):
  """Three of four have a window, and of all RoPE only that of the others is scaled."""
  layers = encoding_of('olmo3', **fields)['layers'] * 2
  assert ['attention_window' in layer for layer in layers[:5]] == [True, True, True, False, True]
  assert {layer['attention_window'] for layer in layers[:3]} == {5}
  assert (layers[0]['base'], layers[3]['base']) == bases
  is_scaled = any('yarn' in str(value) for value in fields.values()) or not fields
  assert ['scaling' in layer for layer in layers[:4]] == [False] * 3 + [is_scaled]
  assert layers[3].get('scaling', YARN) == YARN


@pytest.mark.parametrize(
  ('fields', 'base', 'windowed'),
  [
    ({}, 1e4, [True, True, True, False, True]),
    ({'layer_types': None}, 1e4, [True, True, True, False, True]),
    ({'layer_types': None, 'sliding_window_pattern': 2}, 1e4, [True, False, True, False, True]),
    ({'layer_types': None, '_sliding_window_pattern': 3}, 1e4, [True, True, False, True, True]),
    ({'_sliding_window_pattern': 4}, 1e4, [True, True, True, False, True]),
    ({'rope_parameters': None, 'rope_theta': 5e4}, 5e4, [True, True, True, False, True]),
  ],
)
def test_layers_of_cohere_2_have_a_window_and_rope_or_neither(fields, base, windowed):
  layers = (encoding_of('cohere2', **fields)['layers'] * 3)[:5]
  rotary = {'name': 'rope', 'base': base, 'layout': 'interleaved', 'attention_window': 5}
  assert list(layers) == [rotary if has_window else {'name': 'nope'} for has_window in windowed]


@pytest.mark.parametrize(
  ('fields', 'windowed'),
  [
    ({}, [True, True, True, False, True]),
    ({'layer_types': None, 'sliding_window_pattern': 'LG'}, [True, False, True, False, True]),
    ({'layer_types': None, 'sliding_window_pattern': 3}, [True, True, False, True, True]),
    ({'layer_types': [*['full_attention'] * 4, 'sliding_attention']}, [False] * 4 + [True]),
  ],
)
def test_layers_of_exaone_4_have_a_window_and_rope_or_neither(fields, windowed):
  layers = (encoding_of('exaone4', **fields)['layers'] * 3)[:5]
  rotary = {'name': 'rope', 'base': 1e4, 'attention_window': 5}
  assert list(layers) == [rotary if has_window else {'name': 'nope'} for has_window in windowed]


def test_exaone_4_without_a_window_turns_in_all_layers():
  encoding = families.form_of(RECORDS['exaone4_whole']['config'], 'm').encoding
  assert (encoding['name'], encoding['scaling']['rope_type']) == ('rope', 'llama3')


@pytest.mark.parametrize(('name', 'fraction'), [('glm', 0.5), ('glm4', 0.5), ('stablelm', 0.25)])
def test_a_part_of_each_head_turns(name, fraction):
  of = lambda **fields: encoding_of(name, **fields)['fraction']
  assert of() == of(rope_parameters=None) == of(rope_parameters={'rope_theta': 1e4}) == fraction
  assert of(rope_parameters=None, partial_rotary_factor=1.0) == 1.0
  assert of(rope_parameters={'partial_rotary_factor': 1.0}) == 1.0


def test_granite_with_windows_has_one_in_three_of_four_layers_unless_its_file_says_others():
  """And the base of all layers where none has one of its own."""
  expected = encoding_of('granite_swa_plain')
  windows = [layer.get('attention_window', 0) for layer in expected['layers']]
  assert windows == [0, 5, 5, 5]  # of each four layers
  for field in ('layer_types', 'layer_rope_theta'):
    assert encoding_of('granite_swa_plain', **{field: None}) == expected


@pytest.mark.parametrize('said', ['nope', None])
def test_granite_4_turns_nothing_unless_its_file_says_so(said):
  assert encoding_of('granitemoehybrid')['name'] == 'rope'
  assert encoding_of('granitemoehybrid', position_embedding_type=said) == {'name': 'nope'}


def test_the_first_cohere_has_a_base_of_its_own():
  assert encoding_of('cohere', rope_parameters=None)['base'] == 500_000.0


@pytest.mark.parametrize('parameters', [None, BARE])
def test_a_base_that_releases_read_otherwise_with_a_window_is_refused(parameters):
  with pytest.raises(UserError, match=r'rope_theta=10000\.0; allowed: None, 500000'):
    encoding_of('olmo3', rope_parameters=parameters, rope_theta=1e4)


@pytest.mark.parametrize(
  ('more', 'factor'),
  [
    ({}, 0.1 * math.log(4) + 1),
    ({'attention_factor': 1.5}, 1.5),
    ({'mscale': 2.0}, 0.1 * math.log(4) + 1),
    ({'mscale': 2.0, 'mscale_all_dim': 1.0}, (0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1)),
  ],
)
def test_a_factor_that_transformers_does_not_read_is_none_here(more, factor):
  """As in DeepSeek-R1-0528-Qwen3-8B."""
  said = YARN | {'rope_theta': 1e3} | more
  tree = RECORDS['qwen3']['config']
  forms = [
    families.form_of(tree | {'rope_parameters': parameters}, 'm')
    for parameters in (said, said | {'attn_factor': 0.8782488562869419})
  ]
  assert forms[0].encoding == forms[1].encoding
  assert forms[0].notes == ()
  (note,) = forms[1].notes
  assert note == (
    'transformers (5.24) does not read attn_factor=0.8782488562869419 in rope_parameters: '
    f'the factor of attention is {factor:.4f} there, and here'
  )
  assert read_scaling(forms[1].encoding['scaling'], 6, 1e3, 1.0, 32)(6, 1e3, 32)[1] == factor


def test_how_a_scaling_came_to_be_does_not_count():
  said = YARN | {'rope_theta': 1e3}
  encodings = [encoding_of('llama', rope_parameters=said | x) for x in ({}, {'finetuned': True})]
  assert encodings[0] == encodings[1]


@pytest.mark.parametrize('name', ['gemma3', 'ministral3', 'glm4'])
def test_fields_of_a_scaling_are_those_of_its_type(name):
  """In layers of one kind, in a chain, and where a part of each head turns."""
  said = {'rope_type': 'yarn', 'factor': 4.0, 'short_factor': [1.0], 'llama_4_scaling_beta': 0.7}
  if name != 'ministral3':
    del said['llama_4_scaling_beta']
  parameters = BARE | {'full_attention': said} if name == 'gemma3' else said
  with pytest.raises(UserError, match=r'^m: config\.json: RoPE: scaling\.short_factor is no field'):
    encoding_of(name, rope_parameters=parameters)
