"""LongPPL: perplexity over the tokens for which far context matters (Fang et al. 2024,
arXiv:2410.23771; as in the authors' code, longppl.py, which has the signs of the parameters).
"""

import numpy as np

from posenc_jax.evaluation import windows
from posenc_jax.evaluation.windows import TokenFunction


def key_tokens(
  nll: TokenFunction,
  windows_NT: np.ndarray,
  context: int,
  stride: int,
  alpha: float,
  beta: float,
  batch_tokens: int,
) -> np.ndarray:
  """Returns which tokens of windows are key tokens, bool [N, T].

  A token is one if its log-likelihood given all tokens before it in its window is more than `beta`,
  and that is more than `alpha` better than given the last `context` to `context + stride - 1` of
  them. The first `context` tokens of a window never are; nor are the `stride` after them, whose
  short context is all there is.

  Args:
    nll: (tokens_BT) -> nats_BT, of the model that decides.
    context: tokens of the short context, less than T. Its windows begin with BOS, as all do.
    stride: tokens that share the start of their short context; a quarter of `context` in the paper.
    alpha, beta: in nats; 2 and -2 in the paper.
  """
  T = windows_NT.shape[1]
  full_NT = windows.by_position(nll, windows_NT, batch_tokens)
  length = min(context + stride, T)
  short = windows.sliding(nll, windows_NT, length, min(stride, length), batch_tokens)
  is_key_NT = (np.stack(list(short)) - full_NT > alpha) & (-full_NT > beta)
  is_key_NT[:, :context] = False
  return is_key_NT
