"""The ring with its kernels in Pallas' interpreter, on any platform: to check them."""

from posenc_jax.attention.backends import ring, ring_kernels
from posenc_jax.attention.kernels.over_batch import refuse_mesh
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.target import SEQUENCE_AXIS


def refuse(request: AttentionRequest) -> str | None:
  """The reason why kernels cannot go round a ring with this request, or None."""
  own = ring.refuse(request) or ring_kernels.refuse_shards(request)
  return own or refuse_mesh(request, (SEQUENCE_AXIS,))


def run(request: AttentionRequest):
  """o_BTHK in float32."""
  return ring_kernels.run(request, interpret=True)
