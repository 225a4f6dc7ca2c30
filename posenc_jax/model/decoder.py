"""A bare pre-norm decoder language model. Every extra is a named flag that is off."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax import encodings
from posenc_jax.attention import attend, check_backend
from posenc_jax.attention.request import contiguous_positions
from posenc_jax.distributed import mesh
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.model.layer_pattern import Pattern
from posenc_jax.xla_ops import matmul


def rms_norm(x, scale):
  """x / rms(x) * scale over the last axis, in float32 inside."""
  x32 = x.astype(jnp.float32)
  y = x32 * lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + 1e-6)
  return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def _ones(n: int) -> nnx.Param:
  return nnx.Param(jnp.ones(n, jnp.float32))


class Layer(nnx.Module):
  """Attention and MLP, each behind an RMSNorm and added to the residual stream."""

  def __init__(self, config, rngs: nnx.Rngs):
    D, K, F = config.model_dim, config.head_dim, config.mlp_dim
    H, G = config.heads, config.kv_heads or config.heads
    self.sizes = H, G, K
    self.attention_norm, self.mlp_norm = _ones(D), _ones(D)
    self.w_q = normal(rngs, (D, H * K), D**-0.5)
    self.w_k = normal(rngs, (D, G * K), D**-0.5)
    self.w_v = normal(rngs, (D, G * K), D**-0.5)
    self.w_o = normal(rngs, (H * K, D), (H * K) ** -0.5)
    self.w_in = normal(rngs, (D, F), D**-0.5)
    self.w_out = normal(rngs, (F, D), F**-0.5)
    self.qk_norm = config.qk_norm
    if config.qk_norm:
      self.q_norm, self.k_norm = _ones(K), _ones(K)

  def __call__(self, x_BTD, enc, **where):
    """x [B, T, D] -> [B, T, D]; `where` is passed to `attend`."""
    H, G, K = self.sizes
    linear = lambda x, w: matmul(x, w[...].astype(x.dtype))
    heads = lambda y, n: y.reshape(*y.shape[:2], n, K)
    y_BTD = rms_norm(x_BTD, self.attention_norm[...])
    q_BTHK, k_BTGK, v_BTGK = (
      heads(linear(y_BTD, w), n) for w, n in ((self.w_q, H), (self.w_k, G), (self.w_v, G))
    )
    if self.qk_norm:
      q_BTHK, k_BTGK = rms_norm(q_BTHK, self.q_norm[...]), rms_norm(k_BTGK, self.k_norm[...])
    if enc.query_scale != 1:
      q_BTHK *= enc.query_scale
    o_BTHK = attend(q_BTHK, k_BTGK, v_BTGK, enc, x=y_BTD, **where)
    x_BTD += linear(o_BTHK.reshape(*o_BTHK.shape[:2], H * K), self.w_o)
    y_BTD = rms_norm(x_BTD, self.mlp_norm[...])
    return x_BTD + linear(jax.nn.gelu(linear(y_BTD, self.w_in)), self.w_out)


class LM(nnx.Module):
  """Tokens to logits. The parameters of the layers are stacked: [N, ...] each."""

  def __init__(self, config, encoding: dict, vocab: int, train_length: int, rngs: nnx.Rngs):
    """`config` is the section `model` of a run's config, `encoding` a name and hyperparameters."""
    D, N = config.model_dim, config.layers
    self.unroll, self.logit_softcap, self.remat = (
      config.unroll or N,
      config.logit_softcap,
      config.remat,
    )
    make = functools.partial(
      encodings.make,
      model_dim=D,
      heads=config.heads,
      kv_heads=config.kv_heads or None,
      head_dim=config.head_dim,
      train_length=train_length,
      rngs=rngs,
    )
    self.embedding = normal(rngs, (vocab, D), D**-0.5)
    self.encodings = Pattern(make, encoding, N, config.share_encoding)
    layers = [Layer(config, rngs) for _ in range(N)]
    self.layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    self.norm = _ones(D)
    self.tied = config.tie_embeddings
    if not self.tied:
      self.w_logits = normal(rngs, (D, vocab), D**-0.5)

  @property
  def max_length(self) -> int | None:
    """Tokens after which positions end (a learned table), or None."""
    return min(
      (enc.max_length for enc in self.encodings.first if enc.max_length is not None), default=None
    )

  def project(self):
    """The same model with the encodings' parameters back in their domain: for after a step of the
    optimizer.
    """
    model = jax.tree.map(lambda leaf: leaf, self)
    for kind in model.encodings.kinds:
      kind.encoding = kind.encoding.project()
    return model

  def __call__(
    self,
    tokens_BT,
    *,
    positions=None,
    segments=None,
    window=None,
    max_distance=None,
    key=None,
    added_BTD=None,
    dtype='float32',
    **how,
  ):
    """Logits [B, T, V], float32, of the token after each of tokens_BT.

    Args:
      positions, segments, window, max_distance: as for `attend`; positions None: contiguous, or as
        an encoding draws them. A layer of a pattern sees the smaller of its window and this one.
      key: for encodings that draw positions in training, once a call for all layers; None: as they
        do in evaluation.
      added_BTD: added to the token embeddings: their gradient is that of zeros here.
      dtype: of activations.
      **how: backend, block as for `attend`.

    Raises:
      LengthError: contiguous positions go beyond a learned table.
    """
    B, T = tokens_BT.shape
    table_VD, scheme = self.embedding[...], self.encodings
    x_BTD = mesh.constrain_tokens((table_VD.shape[1] ** 0.5 * table_VD[tokens_BT]).astype(dtype))
    if added_BTD is not None:
      x_BTD += added_BTD.astype(dtype)
    where = []  # of each kind of encoding
    for enc in scheme.first:
      if (
        positions is None and segments is None and enc.max_length is not None and enc.max_length < T
      ):
        raise encodings.LengthError(
          f'{T} positions, but the table of {type(enc).__name__} ends at {enc.max_length}'
        )
      own = {'positions': positions, 'segments': segments, 'max_distance': max_distance}
      contiguous = contiguous_positions(T, segments)
      if (
        positions is None
        and enc.draw is not None
        and (drawn := enc.draw(contiguous, B, key)) is not contiguous
      ):
        own |= {'positions': drawn, 'max_distance': enc.farthest(T)}
      x_BTD = enc.embed(x_BTD, contiguous if own['positions'] is None else own['positions'])
      where.append(own)

    def some_layers(x_BTD, parameters):
      layers, own = parameters
      for n, (kind, enc, seen) in enumerate(scheme.encodings(own, len(jax.tree.leaves(layers)[0]))):
        layer = jax.tree.map(lambda leaf, n=n: leaf[n], layers)
        seen = min((tokens for tokens in (seen, window) if tokens), default=None)
        one = functools.partial(Layer.__call__, window=seen, **where[kind], **how)
        x_BTD = mesh.constrain_tokens(
          (jax.checkpoint(one) if self.remat else one)(layer, x_BTD, enc)
        )
      return x_BTD, None

    periods, rest = scheme.periods(self.layers)
    x_BTD, _ = lax.scan(some_layers, x_BTD, periods, unroll=-(-self.unroll // len(scheme.order)))
    x_BTD, _ = some_layers(x_BTD, rest)
    w_DV = table_VD.T if self.tied else self.w_logits[...]
    logits_BTV = matmul(rms_norm(x_BTD, self.norm[...]), w_DV.astype(dtype)).astype(jnp.float32)
    if self.logit_softcap:
      logits_BTV = self.logit_softcap * jnp.tanh(logits_BTV / self.logit_softcap)
    return logits_BTV


def build(config, vocab: int, rngs: nnx.Rngs) -> LM:
  """The model of a run's config. ValueError with one line for what cannot be built, before any
  compile.
  """
  c = config.model
  if c.kv_heads and c.heads % c.kv_heads:
    raise ValueError(f'model.kv_heads={c.kv_heads} must divide model.heads={c.heads}')
  check_backend(config.attention.backend)
  return LM(c, dict(config.encoding), vocab, config.train.length, rngs)


def attention_options(config) -> dict:
  """The section `attention` of a run's config as keyword arguments of `LM.__call__`, `token_nll`
  and `attend`.
  """
  a = config.attention
  return {
    'backend': a.backend,
    'window': a.window or None,
    'block': tuple(a.block_sizes) if all(a.block_sizes) else None,
  }
