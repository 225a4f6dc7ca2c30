"""The one primitive of evaluation: negative log-likelihoods of single tokens, in nats."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax import target
from posenc_jax.distributed.mesh import devices_of_batch, seeds_of_device
from posenc_jax.model.decoder import LM

BITS = 1 / math.log(2)  # bits in a nat
MAX_LOGITS = 2**26  # numbers on a device; 256 MiB of float32


def token_logits(model: LM, tokens_BT, *, last: int | None = None, **options):
  """Logits [B, T, V] of every token given those before it in its window, or [B, last, V]: see
  `token_nll`.
  """
  return model.logits(last_tokens(token_hidden(model, tokens_BT, **options), last))


def last_tokens(x_BT, last: int | None):
  """What x [B, T, ...] has of so many tokens at the end; None: of all."""
  return x_BT if last is None else x_BT[:, max(x_BT.shape[1] - last, 0) :]


def token_hidden(model: LM, tokens_BT, *, token_positions=None, token_segments=None, **options):
  """What `LM.hidden` returns, with the inputs and options of `token_nll`."""
  tokens_BT = jnp.asarray(tokens_BT, jnp.int32)  # bytes have no room for BOS
  inputs_BT = _after_bos(tokens_BT, model.bos, token_segments)
  if token_positions is not None:
    options['position_ids'] = _after_bos(token_positions, 0, token_segments)
  if token_segments is not None:
    options['segment_ids'] = token_segments
  return model.hidden(inputs_BT, **options)


def _after_bos(x_BT, of_bos, segments_BT=None):
  """What goes with the inputs, of what goes with the tokens: BOS first, without the last token, in
  each segment.
  """
  of_each = [(0, 0)] * (x_BT.ndim - 2)
  inputs_BT = jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0), *of_each), constant_values=of_bos)
  if segments_BT is None:
    return inputs_BT
  begins_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
  return jnp.where(jnp.expand_dims(begins_BT, tuple(range(2, x_BT.ndim))), of_bos, inputs_BT)


def nats_of_logits(logits_BTV, tokens_BT):
  """Negative log-likelihood in nats of tokens, given the logits of each: float32 [B, T]."""
  target_BT = jnp.take_along_axis(logits_BTV, tokens_BT[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def token_nll(model: LM, tokens_BT, *, last: int | None = None, **options):
  """Negative log-likelihood in nats of every token given those before it in its window.

  Each window begins with an implicit BOS, `model.bos`: all T tokens are scored, and the last has
  BOS and T - 1 tokens before it. With `token_segments`, one begins each segment, too: a row has the
  nats of its segments by themselves. With `segment_ids`, which are those of the inputs, BOS stands
  before the window only: the first token of a later segment is predicted from the token before it.

  Logits are computed in chunks where a device would hold more than MAX_LOGITS numbers, in the
  backward pass, too.

  Args:
    last: how many tokens at the end of each window are scored, no others having logits; None: all.
    options: keyword arguments of `LM.hidden`; `position_ids` are those of the inputs, BOS first.
      In their place, `token_positions`: the position of each token, [B, T] or [B, T, n], which it
      has as an input; BOS has 0. `token_segments`: the segment of each token, integers [B, T].
  Returns:
    float32 [B, T], or [B, last].
  """
  hidden_BTD = last_tokens(token_hidden(model, tokens_BT, **options), last)
  tokens_BT = last_tokens(tokens_BT, last)
  B, T = tokens_BT.shape
  # Each chunk has an equal part of every device's tokens, so that no device needs others' tokens.
  shards = target.sequence_shards() if T % target.sequence_shards() == 0 else 1
  rows = B // devices_of_batch() if B % devices_of_batch() == 0 else B
  rows *= seeds_of_device()  # those of a device
  if rows * (T // shards) * model.vocab <= MAX_LOGITS:
    return nats_of_logits(model.logits(hidden_BTD), tokens_BT)
  size = max(1, MAX_LOGITS // (rows * model.vocab))

  @jax.checkpoint
  def nats_of_chunk(chunk):
    return nats_of_logits(model.logits(chunk[0]), chunk[1])

  chunks = [_in_chunks(x, shards, size) for x in (hidden_BTD, tokens_BT)]
  nats_NBC = lax.map(nats_of_chunk, chunks)
  nats_BSX = jnp.moveaxis(nats_NBC.reshape(-1, B, shards, size), 0, 2).reshape(B, shards, -1)
  return nats_BSX[:, :, : T // shards].reshape(B, T)


def _in_chunks(x_BT, shards: int, size: int):
  """Cuts [B, T, ...] into [N, B, shards * size, ...]: `size` of each shard, padded with zeros."""
  B, T, *rest = x_BT.shape
  x_BSX = x_BT.reshape(B, shards, T // shards, *rest)
  number = -(-x_BSX.shape[2] // size)
  padding = ((0, 0), (0, 0), (0, -x_BSX.shape[2] % size), *[(0, 0)] * len(rest))
  cut = jnp.pad(x_BSX, padding).reshape(B, shards, number, size, *rest)
  return jnp.moveaxis(cut, 2, 0).reshape(number, B, shards * size, *rest)
