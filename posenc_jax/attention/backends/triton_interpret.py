"""The kernels of `triton` in Pallas' interpreter, on any platform: to check them, not for speed."""

from posenc_jax.attention.backends import triton
from posenc_jax.attention.kernels.over_batch import refuse_mesh
from posenc_jax.attention.request import AttentionRequest


def refuse(request: AttentionRequest) -> str | None:
  """The reason why no kernel can serve this request, or None."""
  return triton.refuse_tile(request) or refuse_mesh(request)


def run(request: AttentionRequest):
  """o_BTHK in the dtype of v."""
  return triton.run(request, interpret=True)
