"""Shows how the memory of a device falls with the number of devices that share each sequence.

  python -m scripts.bench.mesh_memory --length=16384 --encodings=nope,alibi,cope --shards=1,2,4,8

It runs nothing: XLA plans the memory for virtual devices of the CPU. The table in MiB has two lines
for each encoding. The first is the gradient of attention with one sequence, 8 heads of 64, float32
(temporaries, inputs and outputs). The second is a training step of configs/base.py at that length
with one sequence.
"""

import os

from posenc_jax import cli, config, errors

HEADS, HEAD_DIM = 8, 64
FLAGS = {
  'length': 16384,
  'encodings': 'nope,alibi,t5,transformer_xl,fox,cope,path',
  'shards': '1,2,4,8',
}


def main(argv):
  flags, overrides = cli.parse_args(argv, FLAGS)
  if overrides:
    path = next(iter(overrides))
    raise errors.UserError(f'--config.{path}: is not read; allowed: --{", --".join(FLAGS)}')
  words = str(flags.shards).split(',')
  if flags.length < 1 or not all(word.isdecimal() and int(word) for word in words):
    raise errors.UserError(
      f'--shards={flags.shards} --length={flags.length}; allowed: numbers from 1 on, with commas'
    )
  shards = [int(word) for word in words]
  # jax reads these when it starts.
  os.environ |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(max(shards))}

  from tabulate import tabulate

  rows = []
  for name in flags.encodings.split(','):
    for label, compiled in (('attention', attention), ('step', step)):
      with errors.user_errors(ValueError, NotImplementedError):
        sizes = [f'{mebibytes(compiled(name, flags.length, n)):.0f}' for n in shards]
      rows.append([name, label, *sizes])
      print(*rows[-1], flush=True)
  headers = ['encoding', 'MiB a device', *(f'{n} shards' for n in shards)]
  print(tabulate(rows, headers, tablefmt='github'))


def mebibytes(compiled) -> float:
  """Memory of a compiled program on one device."""
  m = compiled.memory_analysis()
  used = m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes
  return (used - m.alias_size_in_bytes) / 2**20


def attention(name: str, length: int, shards: int):
  """The compiled gradient of attention with respect to all its arguments."""
  from scripts.aot import programs

  sizes = {'batch': 1, 'length': length, 'heads': HEADS, 'head_dim': HEAD_DIM, 'dtype': 'float32'}
  mesh = mesh_of(config.load(config.BASE, {'mesh.context': shards}))
  return programs.trace_attention(mesh, name, 'ring', sizes).lower().compile()


def step(name: str, length: int, shards: int):
  """The compiled training step."""
  from scripts.aot import programs

  fields = {'encoding.name': name, 'train.length': length, 'train.batch': 1, 'mesh.context': shards}
  c = config.load(config.BASE, {**fields, 'attention.backend': 'ring'})
  config.validate(c)
  return programs.trace_step(mesh_of(c), c).lower().compile()


def mesh_of(c):
  """The mesh of a config, of virtual devices."""
  from posenc_jax.distributed import mesh

  return mesh.make_mesh(c.mesh)


if __name__ == '__main__':
  cli.main(main)
