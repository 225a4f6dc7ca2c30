"""A measurement: rows of one protocol at one length, and how the model is asked for them."""

import dataclasses
from collections.abc import Callable, Iterator

from posenc_jax.evaluation.windows import TokenFunction
from posenc_jax.model.token_nll import token_nll


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The rows of one protocol at one length, which are measured with one compiled function.

  Attributes:
    key_fields: for each row, the fields that set it apart from other rows of the run.
    score: (token function, indices of rows) -> for each of these rows, the fields of its score.
    function: the function of the model that `score` needs: `token_nll`, one of `model_functions`
      or `attention_weights.weight_sums`.
    window: the number of tokens that attention sees, or None for what the config says.
    sink_tokens: the number of first inputs, BOS among them, that attention sees from outside of its
      window.
    metric: the metric of all rows whose `key_fields` state none; None for a likelihood.
    largest_position: a bound on the positions that its batches carry; None: they carry none.
    input_length: tokens that the model is given at a time; None: `length`.
    last: how many tokens at the end of each window `function` is asked for, where it need not make
      logits of the others; None: all.
    rows_at_a_time: how many rows one forward pass scores, which are kept soon after; None: rows are
      not measured one by one.
    same_as: the measurement whose rows have the same scores, one by one, since the model is given
      the same; None: there is none.
  """

  length: int
  key_fields: list[dict]
  score: Callable[[TokenFunction, list[int]], list[dict]]
  function: Callable = token_nll
  window: int | None = None
  sink_tokens: int = 0
  metric: str | None = None
  largest_position: int | None = None
  input_length: int | None = None
  last: int | None = None
  rows_at_a_time: int | None = None
  same_as: 'Measurement | None' = None

  def scored_in_parts(self, function: TokenFunction, indices: list[int]) -> Iterator[tuple]:
    """Yields (indices of rows, their scores) of all these rows, as soon as they are measured."""
    size = self.rows_at_a_time or len(indices)
    for start in range(0, len(indices), size):
      part = indices[start : start + size]
      yield part, self.score(function, part)

  @property
  def num_positions(self) -> int:
    """How many positions a model needs for it."""
    if self.largest_position is not None:
      return self.largest_position + 1
    return self.input_length or self.length

  @property
  def name(self) -> str:
    """The name of its line in the printed table: 'last_k', 'last_k windowed', 'non_overlapping'."""
    fields = self.key_fields[0]
    return ' '.join(filter(None, (fields['protocol'], fields['control'])))
