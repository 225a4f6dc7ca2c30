"""The numbers behind the pictures, read off the encodings themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import config, errors
from posenc_jax.attention import attend
from posenc_jax.attention.tiled.tile import MASKED
from posenc_jax.encodings import Encoding, make
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.errors import UserError

BATCH = 16  # samples at once


def build(spec: str, heads: int, head_dim: int, train_length: int, seed: int) -> Encoding:
  """The encoding of 'NAME/hyper=value/section.hyper=value', D = H K. Raises UserError."""
  sizes = dict(
    model_dim=heads * head_dim, heads=heads, head_dim=head_dim, train_length=train_length
  )
  with errors.user_errors(ValueError, TypeError):
    return make(**config.encoding_of(spec), **sizes, rngs=nnx.Rngs(seed))


class Watched:
  """An encoding that remembers the scores it was last asked for."""

  def __init__(self, enc: Encoding):
    self.enc = enc

  def __getattr__(self, name):
    return getattr(self.enc, name)

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    self.seen = s_BHTS if self.enc.score is None else self.enc.score(s_BHTS, q_BTHK, k_BSHK, block)
    return self.seen


def scores(enc: Encoding, q_BTHK, k_BSHK, x_BSD):
  """The scores [B, H, T, S] that `attend` takes the softmax of, float32; NaN where the encoding
  hides a key.
  """
  watched = Watched(enc)
  attend(q_BTHK, k_BSHK, jnp.zeros_like(k_BSHK), watched, x=x_BSD, backend='dense')
  return jnp.where(watched.seen > MASKED / 2, watched.seen, jnp.nan)


def excess(enc: Encoding, w_q, w_k, query_B1D, keys_BSD, x_BSD):
  """Scores of the last query minus the scaled products of q and k without position, by distance:
  [B, S, H].

  Queries and keys are projections [D, H, K] of tokens that the encoding may change at the input; x
  are the tokens that encodings which read content read.
  """
  place_1S = jnp.arange(keys_BSD.shape[1])[None]
  project = lambda x, w: jnp.einsum('btd,dhk->bthk', x, w)
  products = lambda q, k: enc.scale(q.shape[-1]) * jnp.einsum('bthk,bshk->bhts', q, k)
  w_q = enc.query_scale * w_q
  q, k = (
    project(enc.embed(query_B1D, place_1S[:, -1:]), w_q),
    project(enc.embed(keys_BSD, place_1S), w_k),
  )
  plain_BHTS = products(project(query_B1D, w_q), project(keys_BSD, w_k))
  return (scores(enc, q, k, enc.embed(x_BSD, place_1S)) - plain_BHTS)[:, :, 0, ::-1].swapaxes(1, 2)


def against_distance(enc: Encoding, length: int, samples: int, seed: int) -> dict[str, tuple]:
  """What position adds to a score at the distances 0 .. length - 1, per head: {what: (mean [R, H],
  spread or None)}.

  {'bias': ...} exactly, where content changes nothing. Else means and standard deviations over
  random tokens of unit variance and one random projection a head: {'unrelated': a key is any token,
  'alike': it is the query's token, through the query's projection}, or {'any': ...} where that
  makes no difference. Raises UserError for a length beyond a table.
  """
  if length < 2 or (enc.max_length or length) < length:
    raise UserError(f'--length={length}; allowed: 2 to {enc.max_length or "any"}')
  if samples < 1 or seed < 0:
    raise UserError(f'--samples={samples} --seed={seed}; allowed: 1 or more, 0 or more')
  D, H, K = enc.dims.model_dim, enc.dims.heads, enc.dims.head_dim
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  w_q, w_k = normal(D, H, K) * D**-0.5, normal(D, H, K) * D**-0.5
  measure = jax.jit(functools.partial(excess, enc))
  zeros = np.zeros((BATCH, length, D), np.float32)
  drawn = {'unrelated': [], 'alike': []}
  bias_RH = np.asarray(measure(w_q, w_k, zeros[:, :1], zeros, zeros)[0])
  for _ in range(-(-samples // BATCH)):
    query, keys, x = normal(BATCH, 1, D), normal(BATCH, length, D), normal(BATCH, length, D)
    drawn['unrelated'].append(np.asarray(measure(w_q, w_k, query, keys, x), np.float64))
    if np.allclose(drawn['unrelated'][0], bias_RH, rtol=1e-5, atol=1e-4, equal_nan=True):
      return {'bias': (bias_RH, None)}
    drawn['alike'].append(
      np.asarray(measure(w_q, w_q, query, np.broadcast_to(query, keys.shape), x), np.float64)
    )
  joined = {what: np.concatenate(some)[:samples] for what, some in drawn.items()}
  if np.allclose(joined['unrelated'], joined['alike'], rtol=1e-5, atol=1e-4, equal_nan=True):
    joined = {'any': joined['unrelated']}
  return {what: (some.mean(axis=0), some.std(axis=0)) for what, some in joined.items()}


def wavelengths(width: int, base: float) -> np.ndarray:
  """Tokens a turn, of every pair of channels of a sinusoid: [width / 2]."""
  return 2 * np.pi * base ** (2 * np.arange(width // 2) / width)


def sinusoid_products(distances_R, width: int, base: float) -> np.ndarray:
  """P[t + r] . P[t] over its value at r = 0, of the sinusoid itself: the mean of cos(r f) over
  frequencies.
  """
  first = 100
  rows, row = (
    sinusoid(np.asarray(t), width, base=base) for t in (first + np.asarray(distances_R), first)
  )
  return np.asarray(rows @ row) / (width / 2)


def rope_decay(distances_R, width: int, base: float = 10_000.0) -> tuple[np.ndarray, np.ndarray]:
  """RoFormer's bound, mean over m = 1 .. K/2 of |S_m|, S_m = sum_(l < m) e^(i r f_l), and the
  expected score q . R k.

  Both over the score of a query with itself, for q = k of unit variance. The bound is that of Abel
  summation for q = k = 1, where the largest step of the products is 2; the expectation is the mean
  of cos(r f).
  """
  enc = make('rope', model_dim=width, heads=1, head_dim=width, train_length=1, rngs=None, base=base)
  sums = np.cumsum(np.exp(1j * np.multiply.outer(distances_R, enc.frequencies())), axis=-1)
  ones = jnp.ones((1, len(distances_R), 1, width))
  q, k = enc.transform(
    ones, ones, jnp.asarray(distances_R, jnp.float32)[None], jnp.zeros((1, len(distances_R)))
  )
  return np.abs(sums).mean(axis=-1), np.asarray((q * k).mean(axis=-1)[0, :, 0])


def t5_buckets(distances_R, **hyper) -> np.ndarray:
  """The bucket of every distance i - j, as the encoding's own table is read."""
  enc = make('t5', model_dim=1, heads=1, head_dim=1, train_length=1, rngs=nnx.Rngs(0), **hyper)
  enc.bias = nnx.Param(jnp.arange(len(enc.bias[...]), dtype=jnp.float32)[:, None])
  return np.asarray(enc.tables(jnp.asarray(distances_R)))[:, 0].astype(int)
