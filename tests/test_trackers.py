"""Trackers, utilization and traces observe a training and change none of its results."""

import json
import sys
import tomllib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from small_runs import BASE, MODEL, dotted

from posenc_jax import config, data, storage
from posenc_jax.attention.backends import fused
from posenc_jax.errors import UserError
from posenc_jax.model import decoder
from posenc_jax.model.decoder import build
from posenc_jax.reporting import costs
from posenc_jax.training import loop, mfu, setup, trackers
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns
from scripts.aot import targets
from scripts.bench import jax_cases

TINY = {
  **MODEL,
  'train.length': 8,
  'train.batch': 2,
  'train.steps': 6,
  'train.log_every': 2,
  'train.validate_batches': 1,
  'optim.warmup': 1,
  'eval.lengths': (8,),
  'eval.target_context': 8,
  'eval.k': 4,
}


@pytest.fixture
def run(corpus, tmp_path):
  """run(name, overrides) trains a tiny run and returns its directory."""

  def train(name, overrides):
    loop.train(config.load(BASE, {**TINY, 'data.corpus': corpus, **overrides}), tmp_path / name)
    return tmp_path / name

  return train


def test_what_looks_on_changes_no_result(run, monkeypatch):
  """A trace and a tracker see all rows; the utilization is null where the peak is unknown."""
  pytest.importorskip('tensorboardX')
  seen = []
  real = trackers.TensorBoard.write
  monkeypatch.setattr(
    trackers.TensorBoard, 'write', lambda self, *row: (seen.append(row), real(self, *row))
  )
  plain = run('plain', {})
  monkeypatch.setitem(mfu.PEAKS, jax.devices()[0].device_kind, (1e15, 1e9))
  watched = run('watched', {'train.trackers': 'tensorboard', 'train.profile_steps': (2, 3)})
  assert (watched / 'metrics.jsonl').read_bytes() == (plain / 'metrics.jsonl').read_bytes()
  on_disk = [
    row for name in ('metrics', 'timing') for row in storage.read_rows(watched / f'{name}.jsonl')
  ]
  key = lambda row: json.dumps(row, sort_keys=True)
  assert sorted(key(row) for _, row in seen) == sorted(map(key, on_disk))
  assert {kind for kind, _ in seen} == {'training', 'validation', 'timing'}
  assert any(path.stat().st_size > 1000 for path in (watched / 'tensorboard').glob('events*'))
  assert list((watched / 'profile').rglob('*.xplane.pb'))
  for workdir, peak in ((plain, None), (watched, 1e9)):
    first, *rows = storage.read_rows(workdir / 'timing.jsonl')
    assert (first['peak_flops_per_second'], first['model_flops_per_step'] > 0) == (peak, True)
    for row in rows:
      reached = first['model_flops_per_step'] / row['seconds_per_step']
      assert row['mfu'] == (None if peak is None else pytest.approx(reached / peak))


def test_a_compiler_that_says_nothing_of_memory_ends_no_training(run, monkeypatch):
  monkeypatch.setattr(jax.stages.Compiled, 'memory_analysis', lambda self: None)
  workdir = run('run', {})
  assert storage.read_rows(workdir / 'timing.jsonl')[0]['temporary_bytes'] is None
  (cost,) = costs.read(workdir.parent)
  assert (cost['temporary_bytes'], cost['parameters'] > 0) == (None, True)
  program, facts = jax_cases.compile_within_memory(jax.jit(jnp.sin), jnp.ones(2))
  assert facts == {'temporary_bytes': None}
  assert program(jnp.ones(2)).shape == (2,)


def test_a_program_that_cannot_be_compiled_leaves_no_tracker_open(run, monkeypatch):
  events = []

  class Tracker:
    library = 'json'

    def __init__(self, *_):
      events.append('begun')

    def close(self):
      events.append('closed')

  def fail(self):
    raise MemoryError

  monkeypatch.setitem(trackers.TRACKERS, 'mine', Tracker)
  monkeypatch.setattr(setup.Training, 'compile', fail)
  with pytest.raises(MemoryError):
    run('run', {'train.trackers': ('mine',)})
  assert events == ['begun', 'closed']


@pytest.mark.parametrize('start', [0, 4])
def test_tensorboard_is_told_which_steps_come_again(start, tmp_path):
  """That is step 1, too, of a run that ended before it had a checkpoint."""
  pytest.importorskip('tensorboardX')
  from tensorboardX.proto.event_pb2 import Event, SessionLog

  trackers.TensorBoard(tmp_path, start, {}).close()
  (path,) = (tmp_path / 'tensorboard').iterdir()
  data, events = path.read_bytes(), []
  while data:  # records: their length in 8 bytes and its checksum in 4, then they and theirs
    end = 12 + int.from_bytes(data[:8], 'little')
    events.append(Event.FromString(data[12:end]))
    data = data[end + 4 :]
  assert [e.step for e in events if e.session_log.status == SessionLog.START] == [start + 1]


@pytest.mark.parametrize(
  'overrides',
  [
    pytest.param({'model.mlp': 'swiglu'}, marks=pytest.mark.slow),
    {'model.output_gate': 'elementwise', 'encoding.name': 'rope_pp', 'model.shared_kv': True},
    pytest.param({}, marks=pytest.mark.slow),
    {'model.lora_rank': 64, 'model.lora_matrices': ('w_q', 'w_k', 'w_in', 'w_out')},
    {'model.kv_heads': 1, 'model.tie_embeddings': False, 'train.length': 64}
    | {'model.mlp': 'gelu_exact', 'model.vocab': 512},
  ],
)
def test_model_flops_are_what_xla_counts_but_for_elementwise_work(overrides):
  """Dense attention multiplies what the mask hides, too; elementwise work is a few percent."""
  sizes = {
    'model.layers': 2,
    'model.unroll': 2,  # XLA counts the body of a loop once
    'model.model_dim': 128,
    'model.heads': 2,
    'model.head_dim': 64,
    'model.mlp_dim': 256,
  }
  more = {
    'train.length': 32,
    'train.batch': 2,
    'encoding.name': 'nope',
    'attention.backend': 'dense',
  }
  c = config.load(BASE, {**sizes, **more, **overrides})
  model, optimizer = build(c, data.VOCAB, nnx.Rngs(0)), make_optimizer(c.optim, 10)
  nats = make_step_fns(c, optimizer)[1]
  tokens_BT = jnp.zeros((c.train.batch, c.train.length), jnp.int32)
  gradient = jax.jit(jax.grad(lambda model: nats(model, data.Batch(tokens_BT))))
  counted = gradient.lower(model).compile().cost_analysis()['flops']
  assert 1 <= counted / mfu.model_flops(c, model) <= 1.06


def test_weights_that_do_not_train_need_no_gradient_of_their_own():
  c = config.load(BASE, {'train.length': 100, 'train.batch': 1, 'encoding.name': 't5'})
  model = decoder.shapes(c, 10)
  sizes = {path: leaf.size for path, leaf in leaves_by_path(model).items()}
  matrices = sum(n for path, n in sizes.items() if path.startswith('layers/w_'))

  def flops(*patterns):
    config.overlay(c, {'train.trained_parameters': patterns})
    return mfu.model_flops(c, model)

  assert flops() - flops('encodings/*') == 2 * 100 * (matrices + sizes['embedding'])
  assert flops() - flops('layers/w_*') == 2 * 100 * sizes['embedding']
  assert flops('layers/w_q', 'encodings/*') - flops('encodings/*') == 2 * 100 * sizes['layers/w_q']


def test_windows_of_the_run_and_of_layers_limit_the_keys():
  c = config.load(BASE, {'train.length': 100, 'model.layers': 3, 'train.batch': 1})
  per_key = 12 * 100 * c.model.heads * c.model.head_dim

  def flops(**fields):
    config.overlay(c, dotted(fields))
    return mfu.model_flops(c, decoder.shapes(c, 10))

  whole = flops(encoding__name='nope')
  layers = ('nope', {'name': 'nope', 'attention_window': 30})
  assert whole - flops(encoding__name='pattern', encoding__layers=layers) == per_key * 70
  assert whole - flops(attention__window=40) == per_key * (60 + 70 + 60)
  assert whole - flops(attention__sink_tokens=4) == per_key * (56 + 66 + 56)
  layers = ('nope', {'name': 'nope', 'attention_window': 30, 'attention_sink_tokens': 8})
  assert whole - flops(encoding__layers=layers) == per_key * (56 + 62 + 56)
  layers = ('nope', {'name': 'nope', 'attention_chunk': 98})
  assert whole - flops(encoding__layers=layers, attention__window=0) == 0  # sinks lie within L


@pytest.mark.parametrize(
  ('kind', 'dtype', 'precision', 'peak'),
  [
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 'default', 989.4e12),
    ('NVIDIA H100 80GB HBM3', 'float32', 'default', 494.7e12),
    ('NVIDIA H100 80GB HBM3', 'float32', 'highest', None),
    ('cpu', 'bfloat16', 'default', None),
  ],
)
def test_peaks_are_of_known_devices_alone(kind, dtype, precision, peak):
  assert mfu.peak_flops(kind, dtype, precision) == peak


def test_peaks_of_tpus_are_known_by_all_their_names():
  assert mfu.PEAKS.keys() >= {*fused.HAVE_HALF}
  for name, other in (('TPU v5', 'TPU v5p'), ('TPU v5 lite', 'TPU v5e')):
    assert mfu.PEAKS[name] == mfu.PEAKS[other]
    assert targets.BANDWIDTHS[name] == targets.BANDWIDTHS[other]


def test_a_library_that_is_missing_is_one_line_before_anything_is_written(
  run, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(
    UserError,
    match=r"config.train.trackers=\('wandb',\): wandb is not installed; allowed: after pip",
  ):
    run('run', {'train.trackers': 'wandb'})
  assert not (tmp_path / 'run').exists()
  for overrides, words in (
    (
      {'train.trackers': 'tensorbord'},
      r"d'; did you mean 'tensorboard'\?; allowed: tensorboard, wandb$",
    ),
    (
      {'train.profile_steps': (3, 2)},
      r'config.train.profile_steps=\(3, 2\); allowed: \(first step, last step\) within 1 to',
    ),
    ({'train.profile_steps': (1, 7)}, 'within 1 to train.steps=6'),
    ({'train.profile_steps': (2,)}, 'first step, last step'),
  ):
    with pytest.raises(UserError, match=words):
      run('run', overrides)
  assert not (tmp_path / 'run').exists()


def test_the_extra_for_trackers_installs_the_library_of_each():
  project = tomllib.loads((BASE.parents[1] / 'pyproject.toml').read_text())['project']
  installed = {
    requirement.partition('>=')[0] for requirement in project['optional-dependencies']['logging']
  }
  assert {tracker.library for tracker in trackers.TRACKERS.values()} == installed


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # wandb itself warns
def test_wandb_works_offline_and_is_one_line_where_it_cannot_begin(run, tmp_path, monkeypatch):
  wandb = pytest.importorskip('wandb')
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.delenv('NETRC', raising=False)
  with pytest.raises(
    UserError, match=r"config.train.trackers: 'wandb': .*; allowed: .*WANDB_MODE=offline"
  ):
    run('online', {'train.trackers': 'wandb'})
  monkeypatch.setenv('WANDB_MODE', 'offline')
  wandb.teardown()  # it keeps what it read of the environment
  workdir = run('offline', {'train.trackers': ('wandb',)})
  assert any(path.stat().st_size > 1000 for path in workdir.rglob('run-*.wandb'))
  assert len((workdir / 'wandb_id.txt').read_text()) == 16
  folders = [tmp_path / name for name in ('seed=1', 'seed=2')]
  for folder in folders:
    folder.mkdir()
  for tracker in [trackers.WandB(folder, 0, {}) for folder in folders]:  # at once
    tracker.close()
  assert all(any(folder.rglob('run-*.wandb')) for folder in folders)
