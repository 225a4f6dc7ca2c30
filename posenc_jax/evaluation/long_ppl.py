"""Which tokens of windows are the key tokens of LongPPL: pure functions, as in `windows`."""

import numpy as np

from posenc_jax.evaluation.windows import TokenFunction, by_position, sliding


class NotFinite(ValueError):
  """Nats are no numbers, or infinite. No key token of LongPPL would be found among them, and the
  score would pass for one of the others alone.
  """


def check_finite(nats_WT: np.ndarray, whose: str) -> None:
  """Raises NotFinite for nats of whole windows, or of their short contexts, that are not finite."""
  if count := np.count_nonzero(~np.isfinite(nats_WT).all(axis=1)):
    raise NotFinite(f'nats of {whose} are not finite in {count} of {len(nats_WT)} windows')


def deciding_nats(
  nll: TokenFunction,
  windows_WT: np.ndarray,
  context: int,
  stride: int,
  batch_tokens: int,
  full_WT: np.ndarray | None = None,
  takes_last: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the nats by which a model decides on key tokens of windows: (of each token given all
  before it in its window, given the last `context` to `context + stride - 1` of them), each [W, T].

  Args:
    nll: (tokens_BT) -> nats_BT, of the model that decides.
    context: tokens of the short context, less than T. Its windows begin with BOS, as all do.
    stride: tokens that share the start of their short context; a quarter of `context` in the paper
      that `key_tokens` names.
    full_WT: the first of the two, where they are known.
    takes_last: as for `sliding`.
  Raises:
    NotFinite: nats are no numbers.
  """
  length = min(context + stride, windows_WT.shape[1])
  if full_WT is None:
    full_WT = by_position(nll, windows_WT, batch_tokens)
  asked = nll, windows_WT, length, min(stride, length), batch_tokens, takes_last
  short_WT = np.stack(list(sliding(*asked)))
  for nats_WT in (full_WT, short_WT):
    check_finite(nats_WT, 'the model that decides on key tokens')
  return full_WT, short_WT


def key_tokens(
  full_WT: np.ndarray, short_WT: np.ndarray, context: int, alpha: float, beta: float
) -> np.ndarray:
  """Returns which tokens of windows are key tokens of LongPPL, bool [W, T]: those for which far
  context matters (Fang et al. 2024, arXiv:2410.23771; as in the authors' code, longppl.py, which
  has the signs of the parameters, and where of the short contexts the first alone begins with BOS).

  A token is one if its log-likelihood given all tokens before it in its window is more than `beta`,
  and that is more than `alpha` better than given a short context alone. The first `context` tokens
  of a window never are; nor are the `stride` after them, whose short context is all there is.

  Args:
    full_WT, short_WT: from `deciding_nats`, with the same `context`.
    alpha, beta: in nats; 2 and -2 in the paper.
  """
  is_key_WT = (short_WT - full_WT > alpha) & (-full_WT > beta)
  is_key_WT[:, :context] = False
  return is_key_WT
