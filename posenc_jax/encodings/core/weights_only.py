"""The attention weights of an encoding, whatever it does to values and outputs."""

from posenc_jax.encodings.core.base import Encoding, delegate_to_inner

LEFT_OUT = ('transform_values', 'meet_own_values', 'transform_output', 'relative_values')


class WeightsOnly(Encoding):
  """An encoding with the attention weights of `inner`, which leaves values and outputs alone."""

  def __init__(self, inner: Encoding):
    self.inner, self.dims = inner, inner.dims

  def has(self, hook: str) -> bool:
    return hook not in LEFT_OUT and self.inner.has(hook)


delegate_to_inner(WeightsOnly, LEFT_OUT)
