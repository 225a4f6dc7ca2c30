"""Positions on two levels: in a segment of text, and of segments."""

import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.encodings.core.base import Dims, Encoding, input_positions
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.hyperparameters import has_type
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.position_wrapper import PositionWrapper
from posenc_jax.encodings.core.registry import MAX_INTEGER
from posenc_jax.encodings.learned import rows_at
from posenc_jax.errors import shown
from posenc_jax.xla_ops import add_rounded_once


class BiPE(PositionWrapper):
  """x_t = E[token_t] + P[place_t], P learned; attention is `inner` at the positions segment_t.

  He et al. 2024. A segment ends with a separator, such as a full stop. place_t is the number of
  tokens before t in its segment, segment_t the number of segments before that one in its document;
  BOS has place 0 in segment 0. P has `places` rows, drawn as those of `learned`. As in the released
  code the last row is zero, and so is P for all places beyond it. inner='rope' is BiPE-RoPE;
  inner='alibi' is BiPE-ALiBi, whose slopes the released code multiplies by 96 (`bias_factor`); in a
  chain it is dict(name='alibi', factor=1/96). The code's factor log(segment_t + 1) / log L of
  queries, which its configs switch off, is left out.

  Separators by default are full stops and newlines, as in the paper. The released code has tokens
  of Llama's, 869 and 13: a full stop behind a space, and a newline. A full stop behind a word is
  29889 and ends nothing there.
  """

  paper = 'He et al. 2024, arXiv:2401.16421'
  parameter_summary = "a row a place, and its encoding's (`rope`, or any)"
  reported_extrapolation = 'superior on many tasks (its authors)'
  relative = False
  position_kind = 'integers'
  takes_positions_per_head = False
  moves_alone = False

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'rope',
    separators: tuple | None = None,
    places: int | None = None,
    bias_factor: float | None = None,
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      separators: ids of the tokens that end a segment; None: 46 and 10, the bytes '.' and newline.
      places: rows of P, the zero one included; the training length if None. With 1, the zero one
        alone, nothing is added: for all encodings but one of a pattern of layers.
      bias_factor: the inner encoding's bias by distance is multiplied by it; None: 96 for `alibi`,
        1 for others, in which an `alibi` needs `factor` 1/96, or another than 1.
    """
    super().__init__(dims, rngs, inner)
    if self.inner.has('add_to_input'):
      raise ValueError(f'inner={inner!r} acts on the input; allowed: one that acts in attention')
    is_id = lambda token: has_type(token, int) and 0 <= token <= MAX_INTEGER
    if separators is not None and not (separators and all(map(is_id, separators))):
      allowed = f'ids of tokens, from 0 to {MAX_INTEGER}, at least one'
      raise ValueError(f'separators={shown(separators)}; allowed: {allowed}')
    self.tokens_read = b'.\n' if separators is None else tuple(separators)
    self.places = dims.train_length if places is None else places
    check_at_least(1, places=self.places)
    check_above(0, bias_factor=bias_factor)
    # Beside tables, a part of the bias may be among them; a hidden key must stay hidden.
    is_whole = self.inner.has('bias') and not self.inner.has('tables')
    if bias_factor not in (None, 1) and (not is_whole or self.inner.hides_keys):
      allowed = 'None, unless inner has a bias by distance that can be multiplied as a whole'
      raise ValueError(f'bias_factor={bias_factor} for inner={inner!r}; allowed: {allowed}')
    is_alibi = isinstance(self.inner, ALiBi)
    parts = [e for e in self.inner.parts() if isinstance(e, ALiBi)]
    if bias_factor is None and not is_alibi and any(e.factor == 1 for e in parts):
      published = "{'name': 'alibi', 'factor': 0.0104166667}"
      allowed = f'{published} in its place, which has the published slopes; or bias_factor=1'
      problem = f'inner={inner!r} has alibi, whose slopes BiPE-ALiBi multiplies by 96'
      raise ValueError(f'{problem}; allowed: {allowed}')
    of_published = 96.0 if is_alibi else 1.0
    self.bias_factor = of_published if bias_factor is None else bias_factor
    self.rows = normal(rngs, (self.places, dims.model_dim), dims.model_dim**-0.5)

  def parts(self) -> tuple[Encoding, ...]:
    return self, *self.inner.parts()

  def has(self, hook: str) -> bool:
    return self.places > 1 if hook == 'add_to_input' else super().has(hook)

  def positions_of_tokens(self, tokens_BT, position_ids):
    index_1T, is_first = jnp.arange(tokens_BT.shape[1])[None], position_ids == 0
    ends_BT = jnp.isin(tokens_BT, jnp.array(tuple(self.tokens_read)))
    begins_BT = is_first | jnp.roll(ends_BT, 1, axis=1)
    count_BT = jnp.cumsum(begins_BT, axis=1)
    return _since(begins_BT, index_1T), _since(is_first, count_BT)

  def add_to_input(self, x_BTD, position_ids):
    position_ids = input_positions(x_BTD, position_ids)
    last = self.places - 1
    p_BTD = self.dims.model_dim**0.5 * rows_at(self.rows[...], jnp.minimum(position_ids, last))
    # What stands in the last row counts for nothing: the release makes it the row of padding.
    return add_rounded_once(x_BTD, jnp.where((position_ids < last)[..., None], p_BTD, 0.0))

  def bias(self, r_R):
    return self.bias_factor * self.inner.bias(r_R)


def _since(marks_BT, rising_BT):
  """How far numbers of at least 0 that rise along tokens have risen since the last mark."""
  return rising_BT - lax.cummax(jnp.where(marks_BT, rising_BT, 0), axis=1)
