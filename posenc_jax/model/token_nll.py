"""The one primitive of evaluation: negative log-likelihoods of single tokens, in nats."""

import math

import jax
import jax.numpy as jnp

from posenc_jax.model.decoder import LM

BITS = 1 / math.log(2)  # bits in a nat


def token_logits(model: LM, tokens_BT, *, token_positions=None, **options):
  """Logits [B, T, V] of every token given those before it in its window: see `token_nll`.

  With `observe` among the options, what `LM.__call__` returns.
  """
  bos = model.embedding.shape[0] - 1
  inputs_BT = _after_bos(tokens_BT, bos)
  if token_positions is not None:
    options['position_ids'] = _after_bos(token_positions, 0)
  return model(inputs_BT, **options)


def _after_bos(x_BT, of_bos):
  """What goes with the inputs, of what goes with the tokens: BOS first, without the last token."""
  padding = ((0, 0), (1, 0), *[(0, 0)] * (x_BT.ndim - 2))
  return jnp.pad(x_BT[:, :-1], padding, constant_values=of_bos)


def nats_of_logits(logits_BTV, tokens_BT):
  """Negative log-likelihood in nats of tokens, given the logits of each: float32 [B, T]."""
  target_BT = jnp.take_along_axis(logits_BTV, tokens_BT[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def token_nll(model: LM, tokens_BT, *, token_positions=None, **options):
  """Negative log-likelihood in nats of every token given those before it in its window.

  Each window begins with an implicit BOS, the last symbol of the vocabulary: all T tokens are
  scored, and the last has BOS and T - 1 tokens before it. With `segment_ids`, BOS stands before the
  window only: the first token of a later segment is predicted from the token before it.

  Args:
    token_positions: the position of each token, [B, T] or [B, T, n], which it has as an input; BOS
      has 0. None: as `LM.__call__` has it.
    options: keyword arguments of `LM.__call__`; `position_ids` are those of the inputs, BOS first.
  Returns:
    float32 [B, T].
  """
  logits_BTV = token_logits(model, tokens_BT, token_positions=token_positions, **options)
  return nats_of_logits(logits_BTV, tokens_BT)
