"""A run on eight devices has the losses and checkpoints of a run on one."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from small_runs import BASE, TINY, dotted, tiny, write_text_corpus
from test_evaluation import rows_of

from posenc_jax import config, data
from posenc_jax.attention import attend
from posenc_jax.attention.backends import cudnn
from posenc_jax.attention.request import build_request
from posenc_jax.distributed import mesh, processes
from posenc_jax.encodings import ENCODINGS, make
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, long_ppl_evaluator, runs
from posenc_jax.model import token_nll as nll_module
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.rows import row_schema
from posenc_jax.training import loop, setup
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.taken_parameters import parameters_in
from scripts.aot import hlo, programs

FIELDS = {
  'train.steps': 6,
  'train.checkpoint_every': 3,
  'train.log_every': 1,
  'encoding.name': 't5',
}


@pytest.fixture(scope='module')
def run(corpus, tmp_path_factory):
  """run(start, **fields) -> (directory of a training, its losses).

  `start`: the directory of a finished run, of a copy of which the last checkpoint is removed; the
  training resumes there.
  """

  def train(start=None, **fields):
    workdir = tmp_path_factory.mktemp('runs') / 'run'
    if start:
      shutil.copytree(start, workdir)
      shutil.rmtree(workdir / 'checkpoints' / '6')
    loop.train(tiny({'data.corpus': corpus, **FIELDS}, **fields), workdir)
    return workdir, None if 'seeds' in fields else losses_of(workdir)

  return train


def losses_of(workdir):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [row['loss'] for row in rows if 'loss' in row]


@pytest.fixture(scope='module')
def on_one(run):
  return run()


@pytest.fixture(scope='module')
def on_all(run):
  return run(mesh__data=2, mesh__fsdp=2, mesh__context=2)


def test_losses_are_those_of_one_device(on_one, on_all):
  assert on_one[1][-1] < on_one[1][0] - 1
  np.testing.assert_allclose(on_all[1], on_one[1], rtol=2e-6)


SEPARATE = {'data__packing': 'separate', 'encoding__name': 'fox'}


@pytest.mark.slow
def test_documents_of_a_row_are_cut_as_tokens_are(run, tmp_path):
  texts = ['the quick brown fox'[:n] for n in (3, 19, 9, 1, 14)] * 9
  folder = write_text_corpus(tmp_path, dict.fromkeys(('train', 'validation'), texts))
  _, losses = run(**SEPARATE, data__corpus=folder)
  cuts = dict(mesh__data=2, mesh__fsdp=2, mesh__context=2)
  _, cut = run(**SEPARATE, **cuts, data__corpus=folder)
  np.testing.assert_allclose(cut, losses, rtol=2e-6)


OF_DATA = {
  'encoding__name': 'abacus',
  'data__corpus': 'task:addition/reverse=True/positions=abacus',
  'eval__protocols': ('answers',),
}


@pytest.mark.slow
@pytest.mark.parametrize('fields', [OF_DATA, {'encoding__name': 'bipe'}], ids=['data', 'tokens'])
def test_positions_of_the_data_or_of_tokens_are_cut_as_tokens_are(fields, run):
  _, losses = run(**fields)
  _, cut = run(**fields, mesh__data=2, mesh__fsdp=2, mesh__context=2)
  np.testing.assert_allclose(cut, losses, rtol=2e-6)


def test_diagonals_leave_a_batch_cut():
  """Devices add up the gradients of parameters, and send one another no tokens."""
  c = config.load(BASE, {'mesh.data': 8})
  sizes = {'batch': 8, 'length': 64, 'heads': 2, 'head_dim': 8, 'dtype': 'float32'}
  traced = programs.attention_program(mesh.make_mesh(c.mesh), 'fox', 'diagonals', sizes, (16, 16))
  text = traced.lower().compile().as_text()
  exchanged = hlo.Program(text, 1.0, 1.0).cost().collectives
  assert {kind for kind, _ in exchanged} == {'all-reduce'}
  assert max(np.prod(array.shape) for _, array in exchanged) < 8 * 64


TOKENS = 64


def exchanged_in_a_step(monkeypatch, name: str, axes: dict[str, int], **fields) -> set:
  """(kind of collective, array) of a training step in which devices share sequences.

  The losses of what would be a large vocabulary are computed in pieces of every share.
  """
  batch = 8
  monkeypatch.setattr(nll_module, 'MAX_LOGITS', TOKENS * batch * data.VOCAB // 8 // 3)
  fields = {'encoding.name': name, 'train.length': TOKENS, 'train.batch': batch} | dotted(fields)
  sizes = {f'mesh.{axis}': size for axis, size in axes.items()}
  c = config.load(BASE, {**TINY, **fields, **sizes})
  text = programs.trace_step(mesh.make_mesh(c.mesh), c).lower().compile().as_text()
  return {*hlo.Program(text, 1.0, 1.0).cost().collectives}


@pytest.mark.parametrize(
  ('name', 'axes'),
  [
    pytest.param('t5', {'context': 8}, marks=pytest.mark.slow),
    pytest.param('cope', {'data': 4, 'context': 2}, marks=pytest.mark.slow),
    pytest.param('pose', {'data': 4, 'context': 2}, marks=pytest.mark.slow),
    ('fox', {'data': 2, 'fsdp': 2, 'context': 2}),
  ],
)
def test_no_step_gathers_sequences_that_are_cut(name, axes, monkeypatch):
  """Parameters alone are gathered, along `fsdp` and `context`."""
  exchanged = exchanged_in_a_step(monkeypatch, name, axes)
  gathered = {array for kind, array in exchanged if kind in ('all-gather', 'all-to-all')}
  assert gathered
  long = {str(array) for array in gathered if TOKENS in array.shape}
  assert long == ({'f32[64,8]'} if name == 'cope' else set())  # its table of positions
  assert 'collective-permute' in {kind for kind, _ in exchanged}


def test_microbatches_leave_rows_where_they_are(monkeypatch):
  fields = {'train__batch': 16, 'train__grad_accum_steps': 2}
  exchanged = exchanged_in_a_step(monkeypatch, 'rope', {'data': 8}, **fields)
  assert {kind for kind, _ in exchanged} == {'all-reduce'}
  assert not [array for _, array in exchanged if TOKENS in array.shape]


# Whole rows of scores cannot be carried round the ring: each device gathers keys and values.
WHOLE_ROWS = (
  *('entmax', 'softpick', 'dape_v2', 'mta', 'talking_heads', 'selective', 'adaptive_temperature'),
  *('urpe', 'elastic_softmax', 'cog', 'lssar'),
)
# What others gather, numbers that are summed up along tokens: segments of each row, positions.
OF_POSITIONS = {'f32[1,64]', 's32[1,64]'}
GATHERED = {'bipe': {'s32[2,64]'}, 'hyperbolic_rope': OF_POSITIONS, 'jordan_rope': OF_POSITIONS}


@pytest.mark.slow
@pytest.mark.parametrize('name', ENCODINGS)
def test_what_an_encoding_gathers_of_sequences_that_are_cut(name, monkeypatch):
  """Each device has all parameters here, so that nothing else would be gathered."""
  monkeypatch.setattr(mesh, 'OF_PARAMETERS', ('fsdp',))
  step = functools.partial(exchanged_in_a_step, monkeypatch, name, {'data': 4, 'context': 2})
  exchanged = step()
  gathered = {
    str(array)
    for kind, array in exchanged
    if kind == 'all-gather' or (kind == 'all-to-all' and TOKENS in array.shape)
  }
  if name in WHOLE_ROWS:
    assert 'f32[2,2,64,8]' in gathered
    with pytest.raises(NotImplementedError, match=r'backend ring: .* of whole rows of scores'):
      step(attention__backend='ring')
  else:
    assert gathered == GATHERED.get(name, set())
    assert 'collective-permute' in {kind for kind, _ in exchanged}


@pytest.mark.slow
def test_nats_in_pieces_of_shares_are_those_of_one_device(monkeypatch):
  """Values and gradients; the pieces, of 2 tokens a share, do not divide a share of 5."""
  T, batch = 20, 2
  c = config.load(BASE, {**TINY, 'encoding.name': 'nope', 'mesh.context': 4})
  model = build(c, data.VOCAB, nnx.Rngs(0))
  tokens_BT = np.random.default_rng(0).integers(0, 256, (batch, T))
  value = lambda model: token_nll(model, tokens_BT).mean()
  desired = jax.jit(jax.value_and_grad(value))(model)
  monkeypatch.setattr(nll_module, 'MAX_LOGITS', 2 * batch * data.VOCAB)
  with jax.set_mesh(mesh.make_mesh(c.mesh)):
    actual = jax.jit(jax.value_and_grad(value))(model)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), actual, desired)


def test_logits_are_cut_by_what_a_device_has_of_them(monkeypatch):
  """Eight devices hold eight times as many at once, but of a batch that they cannot share."""
  T, batch = 16, 8
  c = config.load(BASE, {**TINY, 'mesh.data': 4, 'mesh.fsdp': 2, 'encoding.name': 'nope'})
  model = build(c, data.VOCAB, nnx.Rngs(0))
  tokens_BT = jnp.zeros((batch, T), int)
  sizes = []
  cut = nll_module._in_chunks
  counted = lambda x, shards, size: (sizes.append(size), cut(x, shards, size))[1]
  monkeypatch.setattr(nll_module, '_in_chunks', counted)
  trace = lambda tokens_BT: jax.eval_shape(lambda m, x: token_nll(m, x), model, tokens_BT)
  with jax.set_mesh(mesh.make_mesh(c.mesh)):
    monkeypatch.setattr(nll_module, 'MAX_LOGITS', T * data.VOCAB)
    trace(tokens_BT)
    assert sizes == []
    monkeypatch.setattr(nll_module, 'MAX_LOGITS', 4 * data.VOCAB)
    trace(tokens_BT)
    assert sizes == [4, 4]  # of hidden states and of tokens
    trace(tokens_BT[:3])
    assert sizes[2:] == [1, 1]


@pytest.mark.slow
def test_parts_of_batches_one_after_another_and_layers_computed_twice(run, on_one):
  _, losses = run(train__grad_accum_steps=2, model__remat='layer', mesh__fsdp=2)
  np.testing.assert_allclose(losses, on_one[1], rtol=2e-6)


@pytest.mark.parametrize(
  'axes',
  [
    {'mesh__seeds': 2, 'mesh__data': 2, 'mesh__fsdp': 2},
    pytest.param({'mesh__context': 2}, marks=pytest.mark.slow),
  ],
)
def test_seeds_at_once_on_devices(run, on_one, axes):
  workdir, _ = run(seeds=(1, 0), vmap_seeds=True, **axes)
  np.testing.assert_allclose(losses_of(config.seed_workdir(workdir, 0)), on_one[1], rtol=2e-6)
  other = losses_of(config.seed_workdir(workdir, 1))
  assert other[-1] < other[0] - 1
  assert other != on_one[1]


@pytest.mark.parametrize(
  'layers', [4, *(pytest.param(layers, marks=pytest.mark.slow) for layers in (2, 3))]
)
def test_muon_on_devices_moves_as_on_one(run, layers):
  """But for rounding, of which an iteration of Newton and Schulz makes more in each step. Each of
  four devices has another layer of four, each of two another of two, or all have all three.
  """
  muon = {'optim__name': 'muon', 'model__layers': layers}
  (_, losses), (_, cut) = run(**muon), run(**muon, mesh__data=2, mesh__fsdp=2, mesh__context=2)
  assert losses[-1] < losses[0] - 1
  np.testing.assert_allclose(cut, losses, rtol=1e-5)


@pytest.mark.parametrize(
  'axes',
  [
    {'data': 2, 'fsdp': 4},
    *(pytest.param(axes, marks=pytest.mark.slow) for axes in ({'data': 8}, {'fsdp': 8})),
  ],
)
def test_muon_iterates_on_a_matrix_once(axes):
  """Eight devices do an eighth of the work each, with eight layers and eight rows of a batch."""
  fields = {'encoding.name': 'nope', 'optim.name': 'muon', 'model.layers': 8, 'train.batch': 8}

  def flops(**axes):
    c = config.load(BASE, TINY | fields | {f'mesh.{axis}': size for axis, size in axes.items()})
    text = programs.trace_step(mesh.make_mesh(c.mesh), c).lower().compile().as_text()
    return hlo.Program(text, 1.0, 1.0).cost().flops

  assert flops(**axes) == flops() / 8


@pytest.mark.slow
def test_lora_is_tuned_alike_on_other_devices(run, on_one):
  lora = {'model__lora_rank': 4, 'model__lora_matrices': ('w_q', 'w_in', 'w_out')}
  lora |= {'train__trained_parameters': ('layers/lora/*',), 'train__init_from': str(on_one[0])}
  (one, losses), (cut, on_mesh) = (
    run(**lora, **axes) for axes in ({}, {'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__context': 2})
  )
  np.testing.assert_allclose(on_mesh, losses, rtol=2e-6)
  tuned, on_devices = (parameters_in(workdir).leaves for workdir in (one, cut))
  for path, x in tuned.items():
    np.testing.assert_allclose(on_devices[path], x, atol=1e-5, err_msg=path)
  assert np.any(tuned['layers/lora/w_in/b'])


def test_a_run_goes_on_upon_other_devices(run, on_one, on_all, capsys):
  """The checkpoint was written by 2 x 2 x 2 devices; 8 devices that split sequences read it."""
  _, losses = run(start=on_all[0], mesh__context=8)
  assert 'going on from step 3' in capsys.readouterr().out
  np.testing.assert_allclose(losses, on_one[1], rtol=2e-6)


@pytest.mark.parametrize('axes', [{'fsdp': 8}, {'context': 8}, {'fsdp': 2, 'context': 4}])
def test_parameters_and_state_are_cut_along_fsdp_and_context(axes, on_all):
  """They are restored that way: matrices in 8 shards, vectors replicated, all numbers equal."""
  model = build(config.load(BASE, {**TINY, **FIELDS}), data.VOCAB, nnx.Rngs(0))
  sizes = {f'mesh.{axis}': size for axis, size in axes.items()}
  devices = mesh.make_mesh(config.load(BASE, sizes).mesh)
  cut = jax.device_put(model, mesh.parameter_shardings(devices, model))
  with Checkpoints(on_all[0]) as checkpoints:
    whole, cut = (checkpoints.restore(model=tree)[0]['model'] for tree in (model, cut))
  jax.tree.map(np.testing.assert_array_equal, whole, cut)
  pieces = lambda leaf: leaf.size // leaf.addressable_shards[0].data.size
  assert pieces(cut.layers.w_in[...]) == pieces(cut.embedding[...]) == 8
  assert pieces(cut.norm.scale[...]) == 1


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_blocks_of_an_array_that_is_cut_come_to_the_host_one_by_one(axis, monkeypatch):
  """They have its bits, and no device gathers more than a block."""
  monkeypatch.setattr(processes, 'BLOCK_BYTES', 2**12)
  devices = mesh.make_mesh(config.load(BASE, {'mesh.fsdp': 8}).mesh)
  whole = np.random.default_rng(0).standard_normal((16, 24, 8)).astype(np.float32)
  whole[3, 5] *= -0.0
  cut = NamedSharding(devices, PartitionSpec(*[None] * axis, 'fsdp'))
  x = jax.device_put(whole, cut)
  assert b''.join(block.tobytes() for block in processes.blocks_on_host(x)) == whole.tobytes()
  lowered = processes._rows.lower(x, 3, number=2)
  assert lowered.compile().memory_analysis().temp_size_in_bytes <= 2 * whole[:2].nbytes


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'optim.name': 'muon'},
    pytest.param({'seeds': (0, 1), 'vmap_seeds': True}, marks=pytest.mark.slow),
    {'train.init_from': 'on_one', 'model.qk_norm': 'head'},  # of which that run has no norms
    {'train.init_from': 'on_one', 'model.lora_rank': 4, 'model.lora_matrices': ('w_q', 'w_out')}
    | {'train.trained_parameters': ('layers/lora/*',)},
  ],
)
def test_no_device_makes_a_whole_parameter_that_is_cut(
  monkeypatch, on_one, tmp_path, corpus, fields
):
  """They are traced, each device makes its shards, and the numbers are those of one device."""
  start = {'train.init_from': str(on_one[0])} if 'train.init_from' in fields else {}
  made, make = [], setup.build
  monkeypatch.setattr(setup, 'build', lambda *of: made.append(make(*of)) or made[-1])
  fields = {**TINY, 'data.corpus': corpus, **FIELDS, **fields, **start}
  prepared = lambda **axes: setup.prepare(config.load(BASE, fields | axes), tmp_path / 'run')
  in_shards, trees = setup._made_in_shards, []

  def noting(*given, **options):
    trees.append(in_shards(*given, **options))
    return trees[-1]

  with monkeypatch.context() as patched:
    patched.setattr(setup, '_made_in_shards', noting)
    cut = prepared(**{'mesh.fsdp': 2, 'mesh.context': 2})
  assert made
  if start:  # of those that the run has none is made
    assert all('norm' in path or 'lora' in path for path in trees[0])
  assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(made))
  whole = prepared()
  for state, expected in ((cut.model, whole.model), (cut.opt_state, whole.opt_state)):
    shardings = mesh.parameter_shardings(cut.mesh, state, has_seed_axis='seeds' in fields)
    same = lambda x, s: x.sharding.is_equivalent_to(s, x.ndim)
    assert all(jax.tree.leaves(jax.tree.map(same, state, shardings)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    jax.tree.map(close, state, expected)


def test_devices_that_divide_no_width_are_refused(tmp_path, corpus, monkeypatch):
  """Else every device would hold the whole model, as without them. No text is cut before."""
  fields = {**TINY, 'data.corpus': corpus, 'mesh.fsdp': 3, 'train.batch': 6}
  refused = r'^mesh\.fsdp=3: divides no axis of .* a divisor of model\.'
  with monkeypatch.context() as patched:
    patched.delattr(data.Corpus, 'batches')
    with pytest.raises(UserError, match=refused):
      setup.prepare(config.load(BASE, fields), tmp_path / 'run')
  thirds = {'model.model_dim': 24, 'model.heads': 3, 'model.mlp_dim': 48}
  assert setup.prepare(config.load(BASE, fields | thirds), tmp_path / 'run').mesh.shape['fsdp'] == 3


BOTH = 'fsdp', 'context'


@pytest.mark.parametrize(
  ('shape', 'sizes', 'axes'),
  [
    ((), (4, 1), ()),
    ((16,), (4, 1), ()),
    ((2, 8, 16), (4, 1), (None, None, BOTH)),
    ((8, 8), (4, 1), (None, BOTH)),
    ((9, 4), (4, 1), (None, BOTH)),
    ((9, 6), (4, 1), ()),
    ((12, 4), (4, 1), (BOTH,)),
    ((12, 4), (2, 2), (BOTH,)),
    ((9, 4), (1, 4), (None, BOTH)),
    ((9, 4), (4, 2), (None, 'fsdp')),  # eight divide neither
    ((9, 8), (4, 3), (None, 'fsdp')),
    ((9, 6), (4, 3), ()),
  ],
)
def test_the_longest_axis_that_can_be_is_cut(shape, sizes, axes):
  sizes = dict(zip(BOTH, sizes, strict=True))
  assert mesh.parameter_spec(shape, sizes) == jax.P(*axes)


def test_devices_that_share_a_sequence_share_the_parameters():
  """Eight devices of one long sequence each hold nearly an eighth of model and optimizer."""

  def held(context):
    fields = {'model.vocab': 2048, 'encoding.name': 'nope', 'train.batch': 1}
    c = config.load(BASE, TINY | fields | {'mesh.context': context})
    compiled = programs.trace_step(mesh.make_mesh(c.mesh), c).lower().compile()
    return compiled.memory_analysis().argument_size_in_bytes

  assert held(8) < held(1) / 7


def test_too_few_devices_are_said_before_anything_is_written(monkeypatch, tmp_path, corpus):
  monkeypatch.delattr(data.Corpus, 'batches')
  c = config.load(BASE, {**TINY, 'data.corpus': corpus, 'mesh.context': 16})
  with pytest.raises(
    UserError, match=r'^mesh.seeds=1, .* mesh.context=16: .* at most the number of devices, 8$'
  ):
    loop.train(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def memory_of_step(name: str, length: int, shards: int) -> float:
  """Mebibytes on one device of a training step whose sequences `shards` devices share."""
  fields = {'encoding.name': name, 'train.length': length, 'train.batch': 1, 'mesh.context': shards}
  c = config.load(BASE, {**fields, 'attention.backend': 'ring'})
  m = programs.trace_step(mesh.make_mesh(c.mesh), c).lower().compile().memory_analysis()
  used = m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes
  return (used - m.alias_size_in_bytes) / 2**20


@pytest.mark.slow
def test_the_memory_of_a_training_step_falls_with_the_devices_that_share_a_sequence():
  """Eight devices need less each than two; of attention alone, ring.py says how much less."""
  assert 0 < memory_of_step('nope', 1024, 8) < memory_of_step('nope', 1024, 2)


@pytest.mark.slow
def test_tables_that_layers_share_take_no_more_memory_than_those_of_one_meeting():
  """A training step; once, jax kept those of all meetings of shares, because no layer changes
  them.
  """
  assert memory_of_step('alibi', 4096, 8) < 1.25 * memory_of_step('nope', 4096, 8)


@pytest.mark.slow
def test_kernels_share_out_the_batch():
  """Four devices work on a row of the batch each: the same numbers, and nothing is gathered."""
  dims = {'model_dim': 16, 'heads': 2, 'head_dim': 8, 'train_length': 32}
  enc, q = make('t5', **dims, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (4, 24, 2, 8))
  options = {'backend': 'fused_interpret', 'block_sizes': (16, 16)}
  loss = lambda enc, q: (attend(q, q, q, enc, **options) ** 2).mean()
  run = jax.value_and_grad(loss, argnums=(0, 1))
  expected = jax.jit(run)(enc, q)
  axis_types = (jax.sharding.AxisType.Auto,) * len(mesh.AXES)
  with jax.set_mesh(jax.make_mesh((1, 2, 2, 1), mesh.AXES, axis_types=axis_types)):
    compiled = jax.jit(run).lower(enc, q).compile()
    found = compiled(enc, q)
  assert 'all-gather' not in compiled.as_text()
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
  jax.tree.map(close, found, expected)


OF_TEXT = {
  'eval__protocols': ('last_k', 'by_position', 'receptive_field', 'attention_distance'),
  'eval__documents': 0,
}


@pytest.mark.parametrize(
  'fields', [OF_TEXT, pytest.param(OF_DATA, marks=pytest.mark.slow)], ids=['text', 'data']
)
def test_an_evaluation_shares_out_the_rows_of_batches(fields, run, tmp_path, monkeypatch, capsys):
  """Batches have eight windows of 16 tokens, or four of 32, which eight devices do not divide. Each
  device has the model, or an eighth of each matrix.
  """
  trained, _ = run(**fields, eval__split='validation', eval__batch_tokens=128, eval__controls=())
  on_devices, on_all = evaluate.on_devices, runs.mesh_of_evaluation({})
  on_one, cut = (
    jax.sharding.Mesh(devices, on_all.axis_names)
    for devices in (on_all.devices[:, :1], on_all.devices.swapaxes(1, 2))
  )
  rows = []
  for devices, of_each, pieces in (
    (on_one, {(16, 8), (32, 4)}, {1}),
    (on_all, {(16, 1), (32, 1)}, {1}),
    (cut, {(16, 1), (32, 1)}, {8}),
  ):
    used, cuts, workdir = set(), set(), tmp_path / str(len(rows)) / 'run'
    shutil.copytree(trained, workdir)
    monkeypatch.setattr(runs, 'mesh_of_evaluation', lambda leaves, devices=devices: devices)
    monkeypatch.setattr(evaluate, 'on_devices', watched(on_devices, used, cuts))
    evaluate.evaluate(config.saved_config(workdir), workdir)
    assert (used, cuts) == (of_each, pieces)
    idle = 'windows of 32 tokens: 4 of 8 devices have work; --config.eval.batch_tokens=256 has'
    assert (idle in capsys.readouterr().out) == (devices is not on_one)
    rows.append({row_schema.key(row): row for row in rows_of(workdir)})
  one, *others = rows
  for other in others:
    assert one.keys() == other.keys()
    for key, row in one.items():
      assert other[key]['status'] == row['status'] == 'ok'
      scores = [[r['value'], r['nats'], r['tokens'], r['bytes']] for r in (row, other[key])]
      np.testing.assert_allclose(*np.array(scores, float), rtol=1e-6, atol=1e-6)


def test_a_run_that_finds_key_tokens_is_on_all_devices(on_one, tmp_path, monkeypatch):
  """Each has the model and a window of a batch, and the nats are those of one."""
  c = config.trained_config(on_one[0], {'eval.long_ppl_evaluator': str(on_one[0])})
  used, cuts = set(), set()
  watching = watched(long_ppl_evaluator.on_devices, used, cuts)
  monkeypatch.setattr(long_ppl_evaluator, 'on_devices', watching)
  evaluator = long_ppl_evaluator.Evaluator(c, data.opened(c.data, 'validation'))
  tokens_BT = np.random.default_rng(0).integers(0, 256, (5, 16))
  with jax.default_matmul_precision('highest'):
    found = evaluator._nll(tokens_BT, last=4)
  assert (used, cuts) == ({(16, 1)}, {1})
  expected = runs.load_run(on_one[0]).nats(tokens_BT, last=4)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('named', [3, 'cpu'])
def test_a_run_is_loaded_upon_the_default_device(named, on_one):
  chosen = jax.devices()[named] if isinstance(named, int) else named
  with jax.default_device(chosen):
    model = runs.load_run(on_one[0]).model
  expected = {jax.devices()[named] if isinstance(named, int) else jax.devices()[0]}
  assert {x.sharding.device_set == expected for x in jax.tree.leaves(model)} == {True}


def watched(on_devices, used, cuts):
  """`on_devices` that adds to `used` (tokens of a window, windows that a device is given), and to
  `cuts` of how many pieces a device has one of a matrix.
  """

  def make(function, model):
    def call(model, tokens_BT, *positions, **options):
      is_shared = isinstance(tokens_BT, jax.Array)
      rows = tokens_BT.addressable_shards[0].data if is_shared else tokens_BT
      used.add((tokens_BT.shape[1], len(rows)))
      for matrix in (model.embedding[...], model.layers.w_in[...], model.layers.w_o[...]):
        cuts.add(matrix.size // matrix.addressable_shards[0].data.size)
      return function(model, tokens_BT, *positions, **options)

    return on_devices(call, model)

  return make


@pytest.mark.parametrize('rows', [8, pytest.param(6, marks=pytest.mark.slow)])
def test_cudnn_has_the_rows_of_a_device(rows):
  """As jax computes it on a CPU: values and gradients, where devices divide the batch or not."""
  dims = {'model_dim': 16, 'heads': 2, 'kv_heads': 1, 'head_dim': 8, 'train_length': 32}
  enc = make('rope', **dims, rngs=nnx.Rngs(0))
  q = jax.random.normal(jax.random.key(0), (rows, 13, 2, 8))
  k = q[:, ::-1, :1]

  def loss(q, k):
    return (cudnn.run(build_request(q, k, k, enc), 'xla') ** 2).mean()

  run = jax.value_and_grad(loss, argnums=(0, 1))
  expected = jax.jit(run)(q, k)
  with jax.set_mesh(mesh.make_mesh(config.load(BASE, {'mesh.data': 2, 'mesh.fsdp': 2}).mesh)):
    found = jax.jit(run)(q, k)
    is_shared = 'shard_map' in str(jax.make_jaxpr(run)(q, k))
  assert is_shared == (rows == 8)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


@pytest.mark.parametrize('rows', [pytest.param(4, marks=pytest.mark.slow), 6])
def test_kernels_are_refused_within_a_shard_map(rows):
  """With a reason, whatever rows of the batch a device has; other backends serve there."""
  dims = {'model_dim': 16, 'heads': 2, 'head_dim': 8, 'train_length': 32}
  enc = make('rope', **dims, rngs=nnx.Rngs(0))
  q = jax.random.normal(jax.random.key(0), (rows, 16, 2, 8))
  devices = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  specs = {'mesh': devices, 'in_specs': jax.P('data'), 'out_specs': jax.P('data')}
  whole = lambda q, backend: attend(q, q, q, enc, backend=backend)
  shared = lambda backend: jax.shard_map(lambda q: whole(q, backend), **specs)
  for backend in ('fused_interpret', 'triton_interpret'):
    reason = f'^backend {backend}: within jax.shard_map over data kernels cannot share out the'
    with pytest.raises(NotImplementedError, match=reason):
      shared(backend)(q)
  np.testing.assert_allclose(jax.jit(shared('auto'))(q), whole(q, 'dense'), atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'backend'),
  [
    ('shaw', 'blockwise'),
    ('shaw', 'dense'),
    *(pytest.param('t5', backend, marks=pytest.mark.slow) for backend in ('auto', 'diagonals')),
    pytest.param('fox', 'blockwise', marks=pytest.mark.slow),
  ],
)
def test_devices_add_up_the_gradients_of_what_they_share(name, backend):
  """Once: on an explicit mesh that cuts batches, or heads, and within jax.shard_map. What comes out
  is cut as queries are.
  """
  rng = np.random.default_rng(0)
  dims = {'model_dim': 16, 'heads': 4, 'kv_heads': 2, 'head_dim': 8, 'train_length': 32}
  enc = make(name, **dims, rngs=nnx.Rngs(0))
  enc = jax.tree.map(lambda p: p + rng.standard_normal(p.shape).astype('f4'), enc)
  shapes = [(4, 9, heads, 8) for heads in (4, 2, 2)] + [(4, 9, 16)]
  arrays = [rng.standard_normal(shape).astype('f4') for shape in shapes]
  sizes = None if backend in ('auto', 'dense') else (4, 4)

  def run(enc, q, k, v, x):
    return attend(q, k, v, enc, x=x, backend=backend, block_sizes=sizes)

  def gradients(run, *given):
    return jax.jit(jax.grad(lambda *given: (run(*given) ** 2).sum(), range(5)))(*given)

  explicit = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Explicit,))
  auto = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  batch, heads = jax.P('data'), jax.P(None, None, 'data')
  specs = {'in_specs': (jax.P(), *[batch] * 4), 'out_specs': batch}
  found = [gradients(jax.shard_map(run, mesh=auto, **specs), enc, *arrays)]
  for of_qkv, of_x in ((batch, batch), (heads, jax.P())):
    cut = [
      jax.device_put(x, jax.NamedSharding(explicit, spec))
      for x, spec in zip(arrays, (*[of_qkv] * 3, of_x), strict=True)
    ]
    out = jax.typeof(jax.jit(run)(enc, *cut)).sharding.spec
    assert [*out] == [*of_qkv, None, None, None][:4]
    found.append(gradients(run, enc, *cut))
  expected = gradients(run, enc, *arrays)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))
  for one in found:
    jax.tree.map(close, one, expected)
