"""Memory of a device against the number of devices that sequences are cut over, as XLA plans it;
nothing is run.

python scripts/mesh_memory.py --length=16384 --encodings=nope,alibi,cope --shards=1,2,4,8

A table in MiB: the gradient of attention (one sequence, 8 heads of 64, float32; temporaries, inputs
and outputs), and a step of training of configs/base.py at that length with one sequence a step. On
virtual devices of the CPU.
"""

import os
from pathlib import Path

from posenc_jax import config, errors
from posenc_jax.training.optimizer import make_optimizer

BASE = Path(__file__).parent.parent / 'configs' / 'base.py'
HEADS, WIDTH = 8, 64


def main(argv):
  defaults = {
    'length': 16384,
    'encodings': 'nope,alibi,t5,transformer_xl,fox,cope,path',
    'shards': '1,2,4,8',
  }
  flags, overrides = config.parse_args(argv, defaults)
  if overrides:
    raise errors.UserError(
      f'--config.{next(iter(overrides))}: is not read; allowed: --{", --".join(defaults)}'
    )
  try:
    shards = [int(number) for number in str(flags.shards).split(',')]
    enough = min(shards) > 0
  except ValueError:
    enough = False
  if not enough or flags.length < 1:
    raise errors.UserError(
      f'--shards={flags.shards} --length={flags.length}; allowed: numbers from 1 on, with commas'
    )
  # before jax starts
  os.environ |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(max(shards))}

  from tabulate import tabulate

  rows = []
  for name in flags.encodings.split(','):
    for what, compiled in (('attention', attention), ('step', step)):
      with errors.user_errors(ValueError, NotImplementedError):
        rows.append(
          [name, what, *(f'{memory(compiled(name, flags.length, n)):.0f}' for n in shards)]
        )
      print(*rows[-1], flush=True)
  print(
    tabulate(
      rows, ['encoding', 'MiB a device', *(f'{n} shards' for n in shards)], tablefmt='github'
    )
  )


def memory(compiled) -> float:
  m = compiled.memory_analysis()
  used = (
    m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  )
  return used / 2**20


def attention(name: str, length: int, shards: int):
  import jax
  import jax.numpy as jnp
  from flax import nnx

  from posenc_jax.attention import attend
  from posenc_jax.distributed import mesh
  from posenc_jax.encodings import make

  sizes = dict(model_dim=HEADS * WIDTH, heads=HEADS, head_dim=WIDTH, train_length=length)
  enc = make(name, **sizes, rngs=nnx.Rngs(0))
  devices = mesh.make_mesh(config.load(BASE, {'mesh.context': shards}).mesh)
  along = jax.NamedSharding(devices, mesh.TOKENS)
  q = jax.ShapeDtypeStruct((1, length, HEADS, WIDTH), jnp.float32, sharding=along)
  x = jax.ShapeDtypeStruct((1, length, HEADS * WIDTH), jnp.float32, sharding=along)
  loss = lambda enc, q, k, v, x: (attend(q, k, v, enc, x=x, backend='ring') ** 2).sum()
  with jax.set_mesh(devices):
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(enc, q, q, q, x).compile()


def step(name: str, length: int, shards: int):
  import jax
  import jax.numpy as jnp
  from flax import nnx

  from posenc_jax import data
  from posenc_jax.distributed import mesh
  from posenc_jax.model.decoder import build
  from posenc_jax.training.step import make_step_fns

  fields = {'encoding.name': name, 'train.length': length, 'train.batch': 1, 'mesh.context': shards}
  c = config.load(BASE, {**fields, 'attention.backend': 'ring'})
  config.validate(c)
  devices, optimizer = mesh.make_mesh(c.mesh), make_optimizer(c.optim, c.train.steps)
  model = build(c, data.VOCAB, nnx.Rngs(0))
  state = model, optimizer.init(model)
  tokens = jax.ShapeDtypeStruct(
    (1, length), jnp.int32, sharding=jax.NamedSharding(devices, mesh.TOKENS)
  )
  with jax.set_mesh(devices):
    return (
      make_step_fns(c, optimizer)[0]
      .lower(*jax.device_put(state, mesh.parameter_shardings(devices, state)), data.Batch(tokens))
      .compile()
    )


if __name__ == '__main__':
  config.main(main)
