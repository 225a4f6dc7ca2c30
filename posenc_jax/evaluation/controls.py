"""What a control changes in what the model is given, and which measurements give it the same."""

import dataclasses
from typing import NamedTuple

from ml_collections import ConfigDict

from posenc_jax.evaluation.measurement import Measurement
from posenc_jax.protocols import TRUNCATED, WINDOWED, WITH_SINK


class Inputs(NamedTuple):
  """What the model is given at a length, under a control.

  Attributes:
    length: tokens at a time; fewer than those of the window where a control truncates it.
    window, sink_tokens: as `Measurement` has them.
  """

  length: int
  window: int | None = None
  sink_tokens: int = 0

  @property
  def fields(self) -> dict:
    """The fields of a `Measurement` that say so."""
    return {'input_length': self.length, 'window': self.window, 'sink_tokens': self.sink_tokens}


def inputs_under(control: str | None, length: int, config: ConfigDict) -> Inputs:
  """The inputs of windows of `length` tokens; up to the training length all controls leave them as
  they are, and `windowed` does so where the model has a window of at most that.
  """
  train_length, own = config.train.length, config.attention.window
  if length <= train_length:
    return Inputs(length)
  if control == TRUNCATED:
    return Inputs(train_length)
  if control == WINDOWED and not 0 < own <= train_length:
    return Inputs(length, window=train_length)
  if control == WITH_SINK:
    return Inputs(length, window=train_length, sink_tokens=config.eval.sink_tokens)
  return Inputs(length)


class Originals:
  """Finds measurements that give the model the same inputs as an earlier one, which alone is
  computed.
  """

  def __init__(self):
    self._first = {}

  def refer(self, measurement: Measurement, *inputs: object) -> Measurement:
    """The measurement, with `same_as` if an earlier one gave the model these inputs."""
    first = self._first.setdefault(inputs, measurement)
    return measurement if first is measurement else dataclasses.replace(measurement, same_as=first)
