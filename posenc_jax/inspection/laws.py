"""Laws that every encoding keeps, and their check for a single one, such as a user's own.

No formula is needed. Attention is computed in two ways that must agree: at once and in tiles,
packed and alone, one token at a time and all together, here and with all positions shifted.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.attention import attend
from posenc_jax.attention.choice import Refused
from posenc_jax.attention.positions import positions_in_order
from posenc_jax.encodings import Encoding
from posenc_jax.errors import nearest, shown, with_place

BATCH, TOKENS = 2, 37  # in tiles of 16 the last ones are ragged
FEWEST = 8  # tokens that hold three documents
TILES = (16, 16), (5, 12)
SHIFT = 29  # of all positions
# Of the largest entry, or of 1: as much as inputs that are off by a last bit move some gradients.
TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2  # the same in bfloat16, or, where sharp scores magnify rounding, what so many
ROUNDINGS, HALF_ROUNDING = 4, 2**-8  # roundings of this size make of it
SHARPNESS = 2.0  # of queries in bfloat16, for scores nearer to those of trained models
# What `check_laws` asks of an encoding, by the names that it takes as `laws`.
LAWS = {
  'tiles': 'blockwise, in tiles, gives what dense gives, with all gradients',
  'kernel': 'the TPU kernel, interpreted, gives what dense gives, with all gradients',
  'packing': 'documents of a packed row get what each gets alone',
  'decoding': 'tokens that come one by one, with a cache, get what one call gives',
  'causality': 'under a causal mask no later token is read',
  'shift': 'a shift of all positions changes nothing',
  'bfloat16': 'in bfloat16 outputs are near those in float32',
  'finite': 'outputs and gradients are finite: causal, bidirectional, with a window, packed, at '
  'given positions',
}


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What was found of a law.

  Attributes:
    law: a key of LAWS.
    holds: None where the law does not apply.
    reason: why it does not apply, or where it fails, and by how much.
  """

  law: str
  holds: bool | None
  reason: str = ''

  def __str__(self) -> str:
    found = {True: 'holds', False: 'FAILS', None: 'does not apply'}[self.holds]
    reason = f'; {self.reason}' if self.reason else ''
    return f'{found:14}  {self.law}: {LAWS[self.law]}{reason}'


def check_laws(
  enc: Encoding,
  tolerance: float = TOLERANCE,
  laws: Iterable[str] = tuple(LAWS),
  is_causal: bool = True,
) -> list[Verdict]:
  """The verdict of each law on an encoding, as `make` returns it: `print(*check_laws(enc),
  sep='\\n')`.

  Inputs are random, of 37 tokens (fewer where positions end before that), and parameters are moved
  by random amounts, so that none is 0; `enc` is not changed. What holds for them may fail for
  others, what fails fails.

  Args:
    tolerance: of differences, relative to the largest entry, or to 1 where that is smaller.
    laws: which keys of LAWS are checked.
    is_causal: False for an encoding of encoders: nothing is asked under a causal mask. Else what is
      not `causal_only` is asked with one and, of some laws, without one.
  Raises:
    ValueError: no encoding, or one with fewer than 8 positions; or no such law; or an encoding that
      is `causal_only` without a causal mask.
  """
  if not isinstance(enc, Encoding):
    raise ValueError(f'enc={shown(enc)}; allowed: an encoding, such as posenc_jax.make returns')
  if (enc.max_length or FEWEST) < FEWEST:
    raise ValueError(f'positions end at {enc.max_length}; allowed: at least {FEWEST}')
  if enc.causal_only and not is_causal:
    allowed = f'True, for {type(enc).__name__} is defined for causal attention only'
    raise ValueError(f'is_causal=False; allowed: {allowed}')
  laws = tuple(laws)
  for law in laws:
    if law not in LAWS:
      raise ValueError(f'laws: {shown(law)}; {nearest(law, LAWS)}')
  with jax.default_matmul_precision('highest'):
    check = _Check(enc, tolerance, is_causal)
    return [_verdict(check, law) for law in laws]


def layer(
  enc: Encoding,
  weights: dict,
  x_BSD,
  *,
  T: int | None = None,
  position_ids=None,
  segment_ids=None,
  cast=lambda array: array,
  **options,
):
  """The outputs of attention in a first layer, with all that a model does around `attend`.

  Args:
    weights: those of the projections, by 'q', 'k' and 'v': [D, heads, K].
    x_BSD: the input, before `add_to_input`.
    T: how many of the last tokens are queries; None: all.
    position_ids: [B|1, S]; a token that has several positions gets multiples of it.
    cast: is applied to queries, keys, values and the layer's input.
    options: further arguments of `attend`.
  """
  segment_ids = None if segment_ids is None else jnp.asarray(segment_ids)
  position_ids = positions_of(enc, position_ids)
  S = x_BSD.shape[1]
  in_order = positions_in_order(enc.at_input, S, segment_ids)
  positions = in_order if position_ids is None else position_ids
  y_BSD = enc.add_to_input(x_BSD, positions)
  q, k, v = (jnp.einsum('bsd,dhk->bshk', y_BSD, weights[n]) for n in 'qkv')
  at_layers = None if enc.takes_carried_positions else position_ids
  ids = {'position_ids': at_layers, 'segment_ids': segment_ids}
  state = enc.initial_state(positions, len(x_BSD))
  if state is not None:  # behind a layer in which every token attends to itself alone
    _, _, own = enc.enter_attention(q, k, v, state)
    _, state = enc.leave_attention(jnp.repeat(own, q.shape[2] // k.shape[2], axis=2), state)
    state = enc.leave_mlp(y_BSD, state)
  q, k, v = map(cast, enc.enter_attention(q, k, v, state))
  T = S if T is None else T
  x = cast(y_BSD)
  o = attend(q[:, S - T :], k, v, enc, x=x, outer_hooks_applied=True, **ids, **options)
  return enc.leave_attention(o, None if state is None else state[:, S - T :])[0]


def positions_of(enc: Encoding, position_ids):
  """Positions [B|1, S] as the encoding takes them: of several a token, multiples."""
  n = enc.positions_per_token
  if n == 1 or position_ids is None or position_ids.ndim == 3:
    return position_ids
  return jnp.stack([(axis + 1) * position_ids for axis in range(n)], axis=-1)


class _Broken(Exception):
  """A law does not hold."""


class _NotApplicable(Exception):
  """A law says nothing of this encoding."""


def _verdict(check: '_Check', law: str) -> Verdict:
  try:
    getattr(check, law)()
  except _Broken as broken:
    return Verdict(law, False, str(broken))
  except (_NotApplicable, Refused) as reason:
    return Verdict(law, None, str(reason))
  # attention refuses it, or jax an operation of a hook; or a hook is not there
  except (ValueError, TypeError, NotImplementedError) as error:
    said = str(error).partition('\n')[0] or type(error).__name__
    return Verdict(law, False, with_place(error, said))
  return Verdict(law, True)


class _Check:
  """An encoding with inputs; each law is a method, which raises where that does not hold."""

  def __init__(self, enc: Encoding, tolerance: float, is_causal: bool):
    self.rng, self.tolerance, self.is_causal = np.random.default_rng(0), tolerance, is_causal
    self.plain = 'causal' if is_causal else 'bidirectional'
    self.sides = [is_causal] if enc.causal_only else [*dict.fromkeys((is_causal, False))]
    self._computed = {}  # what several laws ask for
    self.enc = jax.tree.map(self._moved, enc).constrain_parameters()
    self.S = min(TOKENS, enc.max_length or TOKENS)
    d = enc.dims
    self.x_BSD = self._normal(BATCH, self.S, d.model_dim)
    heads = {'q': d.heads, 'k': d.kv_heads, 'v': d.kv_heads}
    draw = lambda heads: d.model_dim**-0.5 * self._normal(d.model_dim, heads, d.head_dim)
    self.weights = {name: draw(number) for name, number in heads.items()}

  def tiles(self) -> None:
    for block_sizes, mask in zip(TILES, (self.plain, 'packed'), strict=True):
      self._compare_with_dense('blockwise', block_sizes, mask)
    if self.is_causal and not self.enc.causal_only:
      self._compare_with_dense('blockwise', TILES[0], 'bidirectional')

  def kernel(self) -> None:
    self._compare_with_dense('fused_interpret', TILES[0], self.plain)

  def packing(self) -> None:
    documents = [(b, row == n) for b, row in enumerate(self._segments) for n in np.unique(row)]
    alone_DSD = np.zeros((len(documents), *self.x_BSD.shape[1:]), np.float32)
    lengths = np.array([here.sum() for _, here in documents])
    for n, (b, here) in enumerate(documents):  # on the left
      alone_DSD[n, : lengths[n]] = self.x_BSD[b, here]
    is_padding = np.arange(self.S) >= lengths[:, None]
    for is_causal in self.sides:
      run = functools.partial(self._layer, is_causal=is_causal)
      packed_BSHK = run(self.x_BSD, segment_ids=self._segments)
      # Under a causal mask no query sees what follows, and rows are one segment.
      alone_DSHK = run(alone_DSD, segment_ids=None if is_causal else is_padding.astype(int))
      where = '' if is_causal else ', bidirectional'
      for (b, here), length, own_SHK in zip(documents, lengths, alone_DSHK, strict=True):
        packed_SHK, own_SHK = packed_BSHK[b, here], own_SHK[:length]
        self._compare({'output': packed_SHK}, {'output': own_SHK}, where=where)

  def decoding(self) -> None:
    self._need_causal()
    S = self.S
    x_SD = self.x_BSD[0]
    padded = np.concatenate([self._normal(S - 1, x_SD.shape[1]), x_SD])
    caches_SSD = np.stack([padded[t : t + S] for t in range(S)])  # what is left over, on the left
    is_filled = np.arange(S)[:, None] + np.arange(S)[None] >= S - 1
    T = S if self.enc.needs_all_queries else 1
    last_STHK = self._layer(caches_SSD, T=T, segment_ids=is_filled.astype(int))
    whole_SHK = self._layer(x_SD[None])[0]
    self._compare({'output': last_STHK[:, -1]}, {'output': whole_SHK})

  def causality(self) -> None:
    self._need_causal()
    t = self.S // 2

    @jax.jit
    def before(enc, x_BSD, later_BSD):
      first = lambda x: layer(enc, self.weights, x, backend='dense')[:, :t]
      others = jnp.concatenate([x_BSD[:, :t], later_BSD[:, t:]], axis=1)
      weigh = lambda x: (self._cotangent(first(x)) * first(x)).sum()
      return first(x_BSD), first(others), jax.grad(weigh)(x_BSD)[:, t:]

    here, there, gradient = before(self.enc, self.x_BSD, self._normal(*self.x_BSD.shape))
    zeros = np.zeros_like(gradient)
    self._compare({'gradient by later tokens': gradient}, {'gradient by later tokens': zeros})
    self._compare({'output': there}, {'output': here})

  def shift(self) -> None:
    if not self.enc.relative:
      raise _NotApplicable('it declares relative = False')
    shift = min(SHIFT, (self.enc.max_length or np.inf) - self.S)
    if shift < 1:
      raise _NotApplicable(f'its {self.enc.max_length} positions leave no room')
    options = dict(max_position_distance=self.S - 1)
    index = np.arange(self.S, dtype=np.int32)[None]
    for is_causal in self.sides:
      options['is_causal'] = is_causal
      there, here = (self._layer(self.x_BSD, position_ids=index + n, **options) for n in (shift, 0))
      where = '' if is_causal else ', bidirectional'
      allowed = '; allowed: relative = False in the class, if it means absolute positions'
      self._compare({'output': there}, {'output': here}, where=where + allowed)

  def bfloat16(self) -> None:
    """What an encoding makes of queries and keys is rounded again, which sharp scores magnify: as
    much as they do an error of that size in the inputs.
    """
    half = lambda array: array.astype(jnp.bfloat16)
    weights = self.weights | {'q': SHARPNESS * self.weights['q']}
    options = dict(weights=weights, is_causal=self.is_causal)
    run = lambda cast: self._layer(self.x_BSD, cast=cast, **options).astype(jnp.float32)
    exactly = lambda array: half(array).astype(jnp.float32)
    off = lambda array: exactly(array) * (1 + HALF_ROUNDING * self.rng.choice([-1, 1], array.shape))
    single = run(exactly)
    magnified = np.abs(run(off) - single).max() / max(1.0, np.abs(single).max())
    tolerance = max(HALF_TOLERANCE, ROUNDINGS * magnified)
    self._compare({'output': run(half)}, {'output': single}, tolerance)

  def finite(self) -> None:
    masks = [self.plain, 'window', 'packed']
    if not self.enc.causal_only:
      masks.append('bidirectional')
    elif self.enc.has_terms:  # read at distances below 0, too, where positions are given
      masks.append('given positions')
    for mask in masks:
      for part, values in self._gradients('dense', None, mask).items():
        if not np.isfinite(values).all():
          raise _Broken(f'{part} is {values[~np.isfinite(values)][0]}, {mask}')

  @property
  def _segments(self) -> np.ndarray:
    index, S = np.arange(self.S), self.S
    return np.stack([index >= S // 5, (index >= S // 2).astype(int) + (index >= S - 1)]).astype(int)

  def _need_causal(self) -> None:
    if not self.is_causal:
      raise _NotApplicable('it is asked of causal attention')

  def _masks(self) -> dict[str, dict]:
    index = np.arange(self.S, dtype=np.int32)[None]
    given = {'position_ids': index, 'max_position_distance': self.S - 1}
    masks = {'window': {'window': 3}, 'packed': {'segment_ids': self._segments}}
    masks |= {'given positions': given}
    masks = {name: mask | {'is_causal': self.is_causal} for name, mask in masks.items()}
    return masks | {'causal': {}, 'bidirectional': {'is_causal': False}}

  def _compare_with_dense(self, backend: str, block_sizes: tuple[int, int], mask: str) -> None:
    found = self._gradients(backend, block_sizes, mask)
    where = f', {mask}, in tiles of {block_sizes[0]} x {block_sizes[1]}'
    self._compare(found, self._gradients('dense', None, mask), where=where)

  def _gradients(self, backend: str, block_sizes, mask: str) -> dict[str, np.ndarray]:
    """The output, and the gradient of a weighted sum of it by everything, by name."""
    if (backend, block_sizes, mask) not in self._computed:
      self._computed[backend, block_sizes, mask] = self._compute(backend, block_sizes, mask)
    return self._computed[backend, block_sizes, mask]

  def _compute(self, backend: str, block_sizes, mask: str) -> dict[str, np.ndarray]:
    def loss(enc, weights, x_BSD):
      options = dict(backend=backend, block_sizes=block_sizes, **self._masks()[mask])
      out = layer(enc, weights, x_BSD, **options)
      return (self._cotangent(out) * out).sum(), out

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    made = jax.device_get(run(self.enc, self.weights, self.x_BSD))
    (of_enc, of_weights, of_x), out = made
    parts = {'output': out, 'gradient by tokens': of_x}
    parts |= {f'gradient by the projection of {n}': g for n, g in of_weights.items()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_enc):
      name = jax.tree_util.keystr(path[:-1], simple=True, separator='.')
      parts[f'gradient by {name}'] = leaf
    return parts

  def _layer(self, x_BSD, weights: dict | None = None, **options) -> np.ndarray:
    """`layer` on dense, as a program in which no dtype stands for a wider one, as XLA has it on a
    CPU where it joins operations.
    """
    run = functools.partial(layer, backend='dense', **options)
    run = jax.jit(run, compiler_options={'xla_allow_excess_precision': False})
    return jax.device_get(run(self.enc, weights or self.weights, x_BSD))

  def _compare(self, found: dict, expected: dict, tolerance: float | None = None, where='') -> None:
    """Raises _Broken for the first part that differs, at its largest difference."""
    for part, values in expected.items():
      is_nan = np.isnan(found[part]) & np.isnan(values)  # another law says so
      apart = np.where(is_nan, 0.0, np.abs(np.asarray(found[part], np.float64) - values))
      size = max(1.0, np.abs(values[np.isfinite(values)]).max(initial=0))
      if apart.max() <= (tolerance or self.tolerance) * size:
        continue
      token = np.unravel_index(np.argmax(apart), apart.shape)[-3:]  # token, head, channel
      of_token = f' of token {token[0]}' if part == 'output' else ''
      raise _Broken(f'{part}{of_token} differs by {apart.max():.2g} of {size:.2g}{where}')

  def _moved(self, parameter):
    """A parameter away from its initial value, and so from 0."""
    by = 0.4 if parameter.ndim < 2 else 0.4 / max(1.0, parameter.shape[0] / 16) ** 0.5
    return jnp.asarray(np.asarray(parameter) + by * self._normal(*parameter.shape), jnp.float32)

  def _normal(self, *shape: int) -> np.ndarray:
    return self.rng.standard_normal(shape).astype(np.float32)

  def _cotangent(self, out) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(out.shape).astype(np.float32)
