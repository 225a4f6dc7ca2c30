"""Checks that a backend equals `dense`, values and gradients, the cases of kernels, and tracing for
devices that are not there.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from oracles import RECORDS
from test_laws import (
  DIMS,
  MODES,
  OF_MASKS,
  VARIANTS,
  S,
  build,
  close,
  cotangent_of,
  inputs,
  is_wanted,
  layer,
)

from posenc_jax.attention import attend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.encodings import ENCODINGS, Dims, Encoding, make

OTHERS = ('window', 'packed', 'softcap', 'sink_tokens', 'chunk')
# Beside OF_MASKS, what reads keys to the right in a way of its own.
OF_BOTH_SIDES = ('deberta', 'transformer_xl', 'fox_both_ways')


def on(platform: str | None = None, kind: str = 'any', manual: str = '', **axes: int):
  """Within it, programs are traced for a mesh of {axis: size} that is not there, else for one
  device; of no platform, for that of this machine. The axis `manual` is as in jax.shard_map.
  """
  axes = axes or {'one': 1}
  types = tuple(AxisType.Manual if name == manual else AxisType.Auto for name in axes)
  device = platform and AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
  mesh = AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=types, abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)


def with_all_gradients(name: str, backend: str, T: int, K: int, sharding=None, **options):
  """Attention of two heads in bfloat16 with all gradients, as a function, and its arguments, as
  shapes: for a program that is not run.
  """
  H = 2
  sizes = {'model_dim': H * K, 'heads': H, 'head_dim': K, 'train_length': T}
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  enc = jax.eval_shape(lambda: make(name, **sizes, rngs=nnx.Rngs(0), **RECORDS[name].hyper))
  q, x = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((1, T, H, K), (1, T, H * K)))

  def loss(enc, q, k, v, x):
    out = attend(q, k, v, enc, x=x, backend=backend, outer_hooks_applied=True, **options)
    return sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(out))

  function = jax.value_and_grad(loss, argnums=range(5))
  return function, jax.tree.map(shape, (enc, q, q, q, x))


def check_lowers(
  monkeypatch, platform: str, kind: str, name: str, backend: str, K: int, **axes: int
):
  """Lowers kernels, forward and backward, for devices that are not there, by Pallas alone: it knows
  which operations they may have, and needs no compiler of the device. No sum of theirs is by atomic
  operations, whose order changes from run to run.
  """
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  function, arguments = with_all_gradients(name, backend, 512, K)
  target, call = ('cuda', 'triton') if platform == 'gpu' else (platform, 'tpu_custom_call')
  with on(platform, kind, **axes):
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=(target,)).as_text()
  assert text.count(call) >= 3
  assert 'atomic' not in str(traced.jaxpr)


def answer_of(ask, *shapes: tuple[int, ...], dtype=jnp.bfloat16):
  """What a function says of arrays of these shapes while it is traced."""
  answers = []
  arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  jax.eval_shape(lambda *arrays: answers.append(ask(*arrays)), *arrays)
  return answers[0]


def mode_of(name: str, kernels: list[str]) -> str:
  """A mask for each encoding beside the causal one, in turn; no cap where one is refused."""
  mode, kind = OTHERS[kernels.index(name) % len(OTHERS)], ENCODINGS[name]
  has_no_cap = kind.normalizer != 'softmax' or kind.hides_keys
  return 'window' if mode == 'softcap' and has_no_cap else mode


def cases_of(kernels: list[str]) -> list[tuple[str, str]]:
  """(encoding, mode): each causally and under another mask; keys to the right, of every kind of
  hook.
  """
  ahead = [(name, mode) for name in OF_MASKS for mode in ('bidirectional', 'prefix')]
  return [
    *((name, mode) for name in kernels for mode in ('causal', mode_of(name, kernels))),
    *(case for case in ahead if case[0] in kernels and is_wanted(*case)),
    *((v, 'bidirectional') for v in OF_BOTH_SIDES if VARIANTS[v][0] in kernels),
  ]


def with_gradient_by(function):
  """A function that returns what it gets, and whose gradient goes through another one."""
  same = jax.custom_vjp(lambda x: x)
  same.defvjp(lambda x: (x, x), lambda x, d: (d * function(x),))
  return same


class Bent(Encoding):
  """Scores through a function."""

  def __init__(self, bend):
    super().__init__(Dims(16, 4, 4, 8, 64), nnx.Rngs(0))
    self.bend = bend

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return self.bend(s_BHTS)


def gradients(function, weight, *arguments):
  """Gradients, by all arguments, of what a function returns times a weight; and what it returns."""

  def loss(*arguments):
    out = function(*arguments)
    return (out * weight).sum(), out

  return jax.jit(jax.grad(loss, argnums=range(len(arguments)), has_aux=True))(*arguments)


def gradients_of_layer(enc, mode: str, backend: str, block_sizes=None):
  """`gradients` of a layer with 11 keys, by parameters, weights and inputs."""
  x, weights, _ = inputs()
  cotangent = cotangent_of(enc)[:, : MODES[mode].get('T', S)]
  run = lambda *args: layer(*args, backend=backend, block_sizes=block_sizes, **MODES[mode])
  return gradients(run, cotangent, enc, weights, x)


def check_equal_to_dense(backend: str, name: str, mode: str, block_sizes: tuple[int, int]):
  """Output and all gradients, with two heads for each of keys."""
  enc = build(name)
  found = gradients_of_layer(enc, mode, backend, block_sizes)
  jax.tree.map(close, found, gradients_of_layer(enc, mode, 'dense'))


def check_equal(
  backend: str, enc, tokens: int, block_sizes=None, dtype='float32', compare=close, **options
):
  """Compares output and all gradients, of two rows of random numbers in a dtype, with those that
  `dense` makes of the same numbers in float32.
  """
  rng, d = np.random.default_rng(0), enc.dims
  heads = d.heads, d.kv_heads, d.kv_heads, d.heads
  *qkv, weight = (rng.standard_normal((2, tokens, H, d.head_dim)).astype('f4') for H in heads)
  x = rng.standard_normal((2, tokens, d.model_dim)).astype('f4')
  rounded = [jnp.asarray(x, dtype) for x in qkv]

  def by(backend, block_sizes, *qkv):
    given = {'x': x, 'backend': backend, 'block_sizes': block_sizes, **options}
    run = lambda enc, *qkv: attend(*qkv, enc, **given).astype(jnp.float32)
    return gradients(run, weight, enc, *qkv)

  in_float32 = (x.astype(jnp.float32) for x in rounded)
  jax.tree.map(compare, by(backend, block_sizes, *rounded), by('dense', None, *in_float32))


def within(tolerance: float):
  """A comparison with float32, relative to the largest number."""

  def compare(found, expected):
    assert found.dtype in (jnp.bfloat16, jnp.float32)
    found = found.astype(jnp.float32)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())

  return compare


def check_constant_tiles(backend: str, name: str, tokens: int, is_causal: bool = True):
  """Output and all gradients, in tiles of 2 x 2 over some of which tables are constant."""
  enc, mask = build(name), Mask(is_causal=is_causal)
  q, k = (jnp.ones((2, tokens, H, DIMS.head_dim)) for H in (DIMS.heads, DIMS.kv_heads))
  request = build_request(q, k, k, enc, mask=mask, block_sizes=(2, 2))
  assert TileSchedule.of_request(request).grid.has_constant_tiles
  check_equal(backend, enc, tokens, (2, 2), is_causal=is_causal)


def check_on_a_gpu(backend: str, enc, tokens: int, dtype='float32', **options):
  """`check_equal`, where each product is rounded to tf32 at most."""
  compare = within(1e-2 if dtype == 'float32' else 3e-2)
  check_equal(backend, enc, tokens, dtype=dtype, compare=compare, **options)
