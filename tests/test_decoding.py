"""Decoding with a cache gives the logits of the forward pass, under every encoding and mask."""

import dataclasses
import functools
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if, representatives, slow
from test_laws import ANGLES_THAT_ARE_READ, DIMS, VARIANTS, build, declared, inputs
from test_model import PATTERNS, VOCAB, config, tokens

from posenc_jax import attend
from posenc_jax.attention import choice
from posenc_jax.attention.tiled import schedule
from posenc_jax.encodings import ENCODINGS, LengthError, make
from posenc_jax.encodings.rope import RoPE
from posenc_jax.inspection.laws import layer
from posenc_jax.model import kv_cache
from posenc_jax.model.decoder import LM
from posenc_jax.model.kv_cache import decode, empty_cache, take_layers
from posenc_jax.storage import REPOSITORY

T = 9
step = jax.jit(decode, static_argnames=('last', 'window', 'chunk', 'sink_tokens', 'softcap'))
STATIC = ('window', 'chunk', 'sink_tokens', 'softcap', 'backend')
forward = jax.jit(lambda model, x, **options: model(x, **options), static_argnames=STATIC)


def model(encoding: str | dict, layers: int = 1, **fields) -> LM:
  """A small model whose parameters, also of the encoding, are away from their initial values."""
  c = config(model__head_dim=8, model__layers=layers, **fields)
  spec = {'name': encoding} if isinstance(encoding, str) else encoding
  made, rng = LM(c.model, spec, VOCAB, 10, nnx.Rngs(0)), np.random.default_rng(0)
  # by NumPy, which compiles nothing
  away = lambda p: jnp.asarray(np.asarray(p) + 0.2 * rng.standard_normal(p.shape), jnp.float32)
  return jax.tree.map(away, made).constrain_parameters()


def assert_decodes(made, sizes=(1,) * T, size=T, part=None, **options):
  """Checks logits of tokens that come so many at a time against those of one call. Returns how many
  slots the layers have.
  """
  T = sum(sizes)
  x_BT = tokens(B=2, T=T)
  wanted_BTV = forward(made, x_BT, backend='dense', **options)
  cache, rest = empty_cache(made, 2, size, part=part, **options), jax.tree.map(lambda x: x, made)
  layers, logits = take_layers(rest), []
  for part_BT in np.split(np.asarray(x_BT), np.cumsum(sizes)[:-1], axis=1):
    found_BTV, cache = step(rest, layers, part_BT, cache, **options)
    logits.append(found_BTV)
  np.testing.assert_allclose(np.concatenate(logits, axis=1), wanted_BTV, atol=2e-5, rtol=2e-5)
  assert int(cache.count) == T
  return [layer['k'].shape[1] for layer in cache.layers]


WINDOWED = [
  *(v for v in VARIANTS if declared(v).reads_window_alone and declared(v).relative),
  'kv_shift',
  'fire',
]


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ('rope', 'kv_shift'), 'ci')) for v in WINDOWED]
)
def test_layers_with_a_window_hold_what_it_shows(variant):
  """Far beyond the window, and beyond what layers of a pattern with a shorter one hold."""
  name, hyper = VARIANTS[variant]
  spec, sizes = {'name': name, **hyper}, (3, 1, 2, 1, 3, *[1] * 14)
  layers = (spec | {'attention_window': 2}, spec, spec | {'attention_window': 9})
  slots = assert_decodes(
    model({'name': 'pattern', 'layers': layers}, layers=3), sizes, 24, part=3, window=5
  )
  enc = declared(variant)
  assert slots == ([4, 7, 7] if enc.reads_window_alone and enc.relative else [24] * 3)


def test_an_own_encoding_gets_all_tokens_unless_it_says_otherwise():
  """Frequencies of a class from elsewhere may hang on how many keys there are."""

  class Own(RoPE):
    pass

  class Said(RoPE):
    reads_window_alone = True

  encodings = [kind(DIMS, nnx.Rngs(0)) for kind in (RoPE, Own, Said)]
  assert [kv_cache._slots(enc, {'window': 3}, 99, part=8) for enc in encodings] == [10, 99, 10]


@pytest.mark.parametrize('options', [{'chunk': 4}, {'sink_tokens': 1}, {'window': None}])
def test_layers_that_show_more_than_a_window_hold_all(options):
  made = model('rope')
  options = {'window': 3} | options
  cache = jax.eval_shape(lambda: empty_cache(made, 1, 99, part=8, **options))
  assert cache.layers[0]['k'].shape[1] == 99


def test_more_than_the_slots_of_a_layer_is_refused():
  made, x_BT = model('rope'), tokens(B=1, T=6)
  cache, layers = empty_cache(made, 1, 99, part=6, window=3), take_layers(made)
  decoded = lambda **options: jax.eval_shape(lambda: decode(made, layers, x_BT, cache, **options))
  decoded(window=3)
  for options, needed in (({'window': 4}, 9), ({}, 99), ({'window': 3, 'sink_tokens': 1}, 99)):
    with pytest.raises(ValueError, match=f'layer 0: 8 slots for 6 tokens .* least {needed}'):
      decoded(**options)


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in representatives())) for v in VARIANTS]
)
def test_tokens_one_by_one_give_the_logits_of_one_call(variant):
  name, hyper = VARIANTS[variant]
  assert_decodes(model({'name': name, **hyper}))


@pytest.mark.parametrize(
  ('encoding', 'options'),
  [
    ('t5', {'chunk': 4}),
    ('cope', {'window': 3, 'sink_tokens': 2}),
    ('mta', {'window': 3}),
    ('ssmax', {'window': 3, 'sink_tokens': 2}),
    ('selective', {}),
    pytest.param('tape', {'window': 3}, marks=pytest.mark.slow),
    pytest.param('llama4_temperature', {'chunk': 4}, marks=pytest.mark.slow),
    pytest.param('rope', {'window': 3}, marks=pytest.mark.slow),
    pytest.param('logn', {'softcap': 0.7}, marks=pytest.mark.slow),
  ],
)
def test_under_masks_with_slots_left_and_in_parts_of_several_tokens(encoding, options):
  assert_decodes(model(encoding), sizes=(4, 1, 3, 1), size=T + 3, **options)


@pytest.mark.parametrize(
  'members',
  [pytest.param(m, marks=daily_if(n == 'values')) for n, m in ANGLES_THAT_ARE_READ.items()],
)
def test_angles_that_tokens_choose_know_no_empty_slot(members):
  assert_decodes(model({'name': 'chain', 'members': members}), size=T + 3)


def test_several_positions_at_the_input_and_one_at_layers():
  members = ({'name': 'position_coupling', 'levels': 2}, 'rope')
  assert_decodes(model({'name': 'chain', 'members': members}), sizes=(4, 1, 4))


@pytest.mark.parametrize('name', ['shaw', slow('cope')])
def test_parts_of_long_texts_are_read_in_tiles(name, monkeypatch):
  monkeypatch.setattr(kv_cache, 'FEW_PAIRS', 40)
  monkeypatch.setattr(choice, 'FEW_QUERIES', 2)
  monkeypatch.setattr(choice, 'DENSE_UP_TO', {'cpu': 4})
  monkeypatch.setattr(schedule, 'SIDE', 4)
  taken, blockwise = [], choice.BACKENDS['blockwise']
  run = lambda request: taken.append(request.q_BTHK.shape[1]) or blockwise.run(request)
  monkeypatch.setitem(choice.BACKENDS, 'blockwise', blockwise._replace(run=run))
  assert_decodes(model(name), sizes=(5, 3, 1), size=T + 4)
  assert taken == [5]


def test_the_memory_of_a_long_prompt_is_not_that_of_its_scores():
  """A prompt is read without whole rows of scores: for a part of 512 tokens they are 256 MiB."""
  made, slots = model('rope'), 2**15
  cache = jax.eval_shape(lambda: empty_cache(made, 1, slots))
  part_BT = jax.ShapeDtypeStruct((1, 512), jnp.int32)
  compiled = step.lower(made, take_layers(made), part_BT, cache, last=1).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 64 * 2**20


@pytest.mark.parametrize('inner', ['rope', pytest.param('alibi', marks=pytest.mark.slow)])
def test_segments_and_places_go_on(inner):
  """Each text of a batch has its own, also where a part of several tokens ends in a segment."""
  read = tuple(np.unique(tokens(B=2, T=T))[::3].tolist())
  made = model({'name': 'bipe', 'inner': inner, 'separators': read}, layers=2)
  positions = made.encodings.first_layers[0].positions_of_tokens(
    tokens(B=2, T=T), jnp.arange(T)[None]
  )
  assert all((row_T[1:] > 1).any() for row_T in positions[1])
  assert (positions[0][0] != positions[0][1]).any()
  assert_decodes(made, sizes=(4, 1, 3, 1), size=T + 3)
  assert_decodes(made)


@pytest.mark.parametrize('name', [slow('irope'), slow('local_global'), 'windowed_t5'])
def test_patterns_of_layers(name):
  encoding = {'name': 'pattern', 'layers': PATTERNS[name]}
  assert_decodes(model(encoding, layers=5, model__share_encoding='none'))


@pytest.mark.parametrize(
  'flags',
  [
    {
      **{'norm_placement': 'sandwich', 'output_gate': 'headwise', 'mlp': 'swiglu'},
      **{'qk_norm': 'head', 'shared_kv': True, 'kv_heads': 2, 'tie_embeddings': False},
      'logit_softcap': 3.0,
    },
    {
      **{'parallel_residual': True, 'output_gate': 'elementwise', 'qk_norm': 'projection'},
      **{'norm': 'layer', 'embedding_norm': True},
    },
  ],
)
def test_flags_of_layers(flags):
  made = model('path', **{f'model__{name}': value for name, value in flags.items()})
  assert_decodes(made, sizes=(4, 1, 1, 3))


def test_what_reads_the_length_of_a_call_reads_the_size_of_the_cache():
  scaling = {'rope_type': 'dynamic', 'factor': 2.0, 'original_max_position_embeddings': 3}
  made = model({'name': 'rope', 'scaling': scaling})
  assert_decodes(made)
  with pytest.raises(AssertionError):
    assert_decodes(made, size=T + 3)


# As docs/attend.md lists it; nothing else does.
LISTS = {'short_factor': [1.0] * 4, 'long_factor': [4.0] * 4}
READING_THE_LENGTH = {
  'dynamic': ('rope', {'scaling': {'rope_type': 'dynamic', 'factor': 2.0}}),
  'dynamic_steps': ('rope', {'scaling': {'rope_type': 'dynamic_steps'}}),
  'dynamic_yarn': ('rope', {'scaling': {'rope_type': 'dynamic_yarn'}}),
  'longrope': ('rope', {'scaling': {'rope_type': 'longrope', 'factor': 4.0, **LISTS}}),
  'jet_long without context': ('jet_long', {'window': 3}),
}


@pytest.mark.parametrize(
  'variant',
  [
    *READING_THE_LENGTH,
    *(pytest.param(v, marks=daily_if(v in ('alibi', 'jet_long'), 'ci')) for v in ENCODINGS),
  ],
)
def test_what_else_reads_no_length_of_a_call(variant):
  """The last token gets the same with slots left in the cache, beyond the training length."""
  name, hyper = READING_THE_LENGTH.get(variant) or VARIANTS[variant]
  made = make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0), **hyper)
  enc = made if variant in READING_THE_LENGTH else build(variant)
  length, left, (_, weights, _) = DIMS.train_length - 1, 3, inputs()
  x_SD = np.random.default_rng(0).standard_normal((length + left, DIMS.model_dim)).astype('f4')

  def last(x_SD, left):
    T = None if enc.needs_all_queries else 1
    is_filled = (np.arange(len(x_SD)) >= left).astype(int)[None]
    run = functools.partial(layer, T=T, segment_ids=is_filled, backend='dense')
    return jax.jit(run)(enc, weights, x_SD[None])[:, -1]

  apart = np.abs(last(x_SD, left) - last(x_SD[left:], 0)).max()
  assert apart > 1e-3 if variant in READING_THE_LENGTH else apart < 2e-5
  assert not (enc.reads_window_alone and variant in READING_THE_LENGTH)


def test_a_cache_beyond_a_table_is_refused():
  with pytest.raises(LengthError, match='11 positions, but those of Learned end at 10'):
    empty_cache(model('learned'), 1, 11)


def test_logits_are_those_of_the_last_tokens_and_no_parameter_is_copied():
  """A step neither cuts layers out of their stack nor turns the embedding."""
  made = model('rope', layers=3)
  shapes = [leaf.shape for leaf in jax.tree.leaves(made.layers)]
  cache, layers, x_BT = empty_cache(made, 2, T), take_layers(made), tokens(B=2, T=4)
  wanted_BTV, _ = step(made, layers, x_BT, cache)
  found_BTV, _ = step(made, layers, x_BT, cache, last=1)
  none_BTV, _ = step(made, layers, x_BT, cache, last=0)
  assert none_BTV.shape == (2, 0, VOCAB)
  np.testing.assert_allclose(found_BTV, wanted_BTV[:, -1:], rtol=1e-6, atol=1e-6)
  text = str(jax.make_jaxpr(decode)(made, layers, x_BT, cache))
  assert 'transpose[permutation=(1, 0)]' not in text
  for shape in shapes:
    cut = f'f32[{",".join(map(str, shape[1:]))}] = squeeze'
    assert cut not in text


def test_layers_are_taken_out_of_a_stack_one_parameter_after_another():
  made = model('rope', layers=3)
  expected = [jax.tree.map(lambda leaf, n=n: leaf[n], made.layers) for n in range(3)]
  stacked = [weakref.ref(leaf) for leaf in jax.tree.leaves(made.layers)]
  held, flatten = [], jax.tree.flatten

  class Watched(list):
    def pop(self):
      held.append(sum(leaf() is not None for leaf in stacked))
      return super().pop()

  def watched(tree):
    leaves, structure = flatten(tree)
    return Watched(leaves), structure

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(kv_cache.jax.tree, 'flatten', watched)
    layers = take_layers(made)
  assert held == [len(stacked), *range(len(stacked), 1, -1)]  # one is cut while others wait
  jax.tree.map(np.testing.assert_array_equal, list(layers), expected)


@pytest.mark.ci
def test_the_cache_that_is_written_in_place_serves_what_the_page_says():
  """The block of docs/attend.md with each encoding that it can be asked of, after 12 tokens."""
  page = (REPOSITORY / 'docs' / 'attend.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  (block,) = (block for block in blocks if 'slots, window' in block)
  names = {'__name__': 'page'}
  exec(block[: block.index('\nq, k, v = ')], names)
  slots, window, step = (names[name] for name in ('slots', 'window', 'step'))
  q, k, v = jax.random.normal(jax.random.key(0), (3, 12, 2, 1, 8, 8))
  before = jnp.zeros((2, 2, slots + 1, 8, 8))
  before = before.at[:, :, :11].set(jnp.stack([k, v])[:, :11, :, 0].swapaxes(1, 2))
  at_once = [x[:, :, 0].swapaxes(0, 1) for x in (q, k, v)]
  others, served = set(), []
  for name in ENCODINGS:
    enc = make(name, model_dim=64, heads=8, head_dim=8, train_length=16, rngs=nnx.Rngs(0))
    names['enc'] = enc
    try:
      _, o = jax.jit(lambda token: step(before, token))((11, q[11], k[11], v[11]))
    except ValueError:  # it reads more than positions, or is no encoding of a call alone
      continue
    expected = attend(*at_once, enc, window=window)[:, -1:]
    served.append(name)
    if not abs(o - expected).max() < 1e-5:
      others.add(name)
  assert {'stick_breaking', 'xsa', 'rope', 't5', 'rerope', 'sandwich'} <= {*served} - others
  (said,) = re.findall(r'and so neither\s+(.*?), nor\s+what reads how long', page, re.DOTALL)
  assert {name for name in others if re.search(rf'\b{name}\b', said)} == others - {'jet_long'}
  assert 'jet_long without `context`' in ' '.join(page.split())  # of what reads how long a call is
