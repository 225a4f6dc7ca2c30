"""The kernels of `fused` in Pallas' interpreter, on any platform: to check them, not to be fast."""

from posenc_jax.attention.backends import fused
from posenc_jax.attention.kernels.over_batch import refuse_mesh
from posenc_jax.attention.request import AttentionRequest


def refuse(request: AttentionRequest) -> str | None:
  """The reason why no kernel can serve this request, or None."""
  return fused.refuse_tile(request) or refuse_mesh(request)


def run(request: AttentionRequest):
  """o_BTHK in the dtype of v."""
  return fused.run(request, interpret=True)
