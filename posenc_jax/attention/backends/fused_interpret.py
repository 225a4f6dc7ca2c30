"""The kernels of `fused` in Pallas' interpreter, on any platform: to check them, not to be fast."""

from posenc_jax.attention.backends import fused
from posenc_jax.attention.request import AttentionRequest


def refuse(request: AttentionRequest) -> str | None:
  """The reason why tiles of this request cannot be computed in a kernel, or None."""
  return fused.refuse_tile(request)


def run(request: AttentionRequest):
  """o_BTHK in the dtype of v."""
  return fused.run(request, interpret=True)
