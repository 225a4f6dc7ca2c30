"""Adding an encoding costs a file and a line: a toy encoding that is registered here trains,
evaluates and stands in a table.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from posenc_jax import config, encodings
from posenc_jax.attention import BACKENDS, attend
from posenc_jax.encodings import Encoding
from posenc_jax.evaluation import evaluate
from posenc_jax.reporting.layouts import make_tables
from posenc_jax.reporting.rows import read
from posenc_jax.training import loop

BASE = Path(__file__).parent.parent / 'configs' / 'base.py'


class SquareRoot(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - rate_h sqrt|i - j|, with a learned rate a head."""

  paper = 'invented for this test'
  bias_in_scale = False

  def __init__(self, dims, rngs, *, rate: float = 0.5):
    super().__init__(dims, rngs)
    self.rates = nnx.Param(jnp.full(dims.heads, rate))

  def bias(self, r_R):
    return -jnp.multiply.outer(jnp.sqrt(jnp.abs(r_R).astype(jnp.float32)), self.rates[...])


@pytest.fixture
def registered(monkeypatch):
  monkeypatch.setitem(encodings.ENCODINGS, 'square_root', SquareRoot)


def test_through_every_backend(registered):
  enc = encodings.make(
    'square_root', model_dim=16, heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0), rate=0.3
  )
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 11, 2, 8)), jnp.float32) for _ in range(3))
  i, j = np.arange(11)[:, None], np.arange(11)[None]
  s = np.einsum('bthk,bshk->bhts', q, k) / np.sqrt(8) - 0.3 * np.sqrt(np.abs(i - j))
  p = np.where(j <= i, np.exp(s), 0)
  desired = np.einsum('bhts,bshk->bthk', p / p.sum(-1, keepdims=True), v)
  gradients = {}
  for backend in BACKENDS:
    if backend in ('cudnn', 'splash', 'fused', 'triton', 'ring', 'ring_interpret'):
      reasons = r'acts on pairs|needs a mesh|need a TPU|need an NVIDIA GPU'
      with pytest.raises(NotImplementedError, match=reasons):
        attend(q, k, v, enc, backend=backend)
      continue
    run = lambda enc, backend=backend: attend(q, k, v, enc, backend=backend, block_sizes=(4, 4))
    np.testing.assert_allclose(jax.jit(run)(enc), desired, atol=1e-5)
    gradients[backend] = jax.jit(jax.grad(lambda enc, run=run: (run(enc) ** 2).sum()))(enc).rates[
      ...
    ]
  np.testing.assert_allclose(gradients['blockwise'], gradients['dense'], rtol=1e-4)


def test_a_term_must_say_whether_it_is_in_the_scale(monkeypatch):
  monkeypatch.setitem(
    encodings.ENCODINGS, 'undecided', type('Undecided', (SquareRoot,), {'bias_in_scale': None})
  )
  with pytest.raises(ValueError, match='undecided: defines bias without bias_in_scale; allowed'):
    encodings.make(
      'undecided', model_dim=16, heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0)
    )


@pytest.mark.slow
def test_through_trainer_evaluation_and_table(registered, tmp_path):
  for split in ('train', 'validation', 'test'):
    (tmp_path / 'corpus' / split).mkdir(parents=True)
    (tmp_path / 'corpus' / split / 'text.txt').write_text(
      'the quick brown fox jumps over the lazy dog; ' * 20
    )
  settings = {
    'encoding': {'name': 'square_root', 'rate': 0.2},
    'data.corpus': str(tmp_path / 'corpus'),
    'model.layers': 1,
    'model.model_dim': 16,
    'model.heads': 2,
    'model.head_dim': 8,
    'model.mlp_dim': 32,
    'train.length': 16,
    'train.batch': 4,
    'train.steps': 4,
    'train.validate_batches': 1,
    'optim.warmup': 1,
    'eval.documents': 0,
    'eval.lengths': (16, 32),
    'eval.target_context': 32,
    'eval.k': 8,
  }
  run = config.load(BASE, settings)
  loop.train(run, tmp_path / 'runs' / 'one')
  evaluate.evaluate(run, tmp_path / 'runs' / 'one')
  table = make_tables(read(tmp_path / 'runs'), ['one'], metric='bpb', protocols=('last_k',))[0]
  assert [[field.text for field in line[:1]] + [len(line)] for line in table.groups[0].lines] == [
    ['square_root', 3]
  ]
  assert [(r['status'], r['tokens']) for r in table.records] == [('ok', 4 * 8)] * 2
