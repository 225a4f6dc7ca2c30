"""A static bias adapted by the scores it is added to."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.fire import FIRE
from posenc_jax.encodings.kerple import KerpleLog, KerplePower
from posenc_jax.encodings.sandwich import Sandwich

OVER = {  # encodings that add to the scores what depends on positions alone
  'alibi': ALiBi,
  'kerple_log': KerpleLog,
  'kerple_power': KerplePower,
  'sandwich': Sandwich,
  'fire': FIRE,
}


class DAPE(Encoding):
  """s = a + b + f([a; b]), a_ij = q_i . k_j / sqrt(K), b the bias of another encoding (Zheng et al.
  2024, version 1).

  f is an MLP 2H -> hidden -> H with LeakyReLU, applied to each pair over all heads: every layer has
  its own. Weights start from U(-1/sqrt(fan-in), 1/sqrt(fan-in)) as the linear layers of the
  released code do. Its bias after the last layer is left out: alike for all keys, it changes no
  softmax. The code's own FIRE has a LeakyReLU inside when it is adapted and a ReLU when not; here
  it is FIRE either way. There KERPLE's numbers are a layer's own; here, as without DAPE, all layers
  share them.
  """

  paper = 'Zheng et al. 2024, arXiv:2405.14722'
  weights, claims = 'an MLP a layer', None
  bias_in_scale = False

  def __init__(
    self, dims: Dims, rngs, *, over: str = 'alibi', hidden: int = 32, slope: float = 0.01
  ):
    """`over`: the encoding adapted, with its own defaults; `hidden`: width of the MLP; `slope`:
    below 0.
    """
    super().__init__(dims, rngs)
    if over not in OVER:
      raise ValueError(f'dape: over={over!r} must be one of {", ".join(OVER)}')
    if hidden < 1:
      raise ValueError(f'dape: hidden={hidden} must be at least 1')
    self.over, self.slope = OVER[over](dims, rngs), slope
    self.relative, self.reach = self.over.relative, self.over.reach
    self.per_layer = ('w_in', 'b_in', 'w_out', *(('over',) if self.over.per_layer else ()))
    draw = lambda fan_in, *shape: nnx.Param(
      jax.random.uniform(rngs.params(), shape, jnp.float32, -(fan_in**-0.5), fan_in**-0.5)
    )
    self.w_in, self.b_in = (
      draw(2 * dims.heads, hidden, 2 * dims.heads),
      draw(2 * dims.heads, hidden),
    )
    self.w_out = draw(hidden, dims.heads, hidden)

  def project(self):
    own = jax.tree.map(lambda x: x, self)
    own.over = self.over.project()
    return own

  def locate(self, x_BSD, positions_BS):
    return self.over.locate(x_BSD, positions_BS)

  def tables(self, r_R):
    return self.over.tables(r_R)

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    B, H, T, S = s_BHTS.shape
    b_BHTS = jnp.broadcast_to(
      self.over.score(jnp.zeros_like(s_BHTS), q_BTHK, k_BSHK, block), s_BHTS.shape
    )
    both_BCN = jnp.concatenate([s_BHTS, b_BHTS], axis=1).reshape(B, 2 * H, T * S)
    hidden_BFN = jnp.einsum('fc,bcn->bfn', self.w_in[...], both_BCN) + self.b_in[...][None, :, None]
    change_BHN = jnp.einsum(
      'hf,bfn->bhn', self.w_out[...], jax.nn.leaky_relu(hidden_BFN, self.slope)
    )
    return s_BHTS + b_BHTS + change_BHN.reshape(B, H, T, S)
