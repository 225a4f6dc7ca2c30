"""Factors of the channels of queries, made of the number of keys and of the query itself."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import uniform, zeros
from posenc_jax.xla_ops import exact_matmul


class QASSMax(Encoding):
  """q_ih becomes q_ih * f(log n_i)_h * (1 + tanh(g(q_ih))), channel by channel (Qu et al. 2026).

  Query-aware scalable softmax, of TabICLv2; n_i is the number of keys that i sees. f and g are
  networks of one hidden layer with GELU: f makes of the logarithm K factors for each head, g those
  of a query of its K channels, and all heads share it. Every layer has its own. As released, the
  last layer of g starts at 0, so that the bracket is 1, and all else as torch.nn.Linear does: the
  factors f start small, of either sign, and not at 1. Released are forms with one factor for all
  channels of a head, too (`elementwise` False), and of these one without g (`gate` False); that
  without g of single channels is left out.

  TabICLv2 has it where tokens have no positions. Its code rotates before, so that a factor would
  read rotated queries and part the two channels of a pair: ('rope', 'qassmax') is that, and what a
  token sees then depends on where it stands. ('qassmax', 'rope') sees distances alone.
  """

  paper = 'Qu et al. 2026, arXiv:2602.11139'
  parameter_summary = 'two networks a layer'
  position_kind = None
  needs_num_visible = True
  per_layer = (
    *('f_in', 'f_in_bias', 'f_out', 'f_out_bias'),
    *('g_in', 'g_in_bias', 'g_out', 'g_out_bias'),
  )

  def __init__(
    self, dims: Dims, rngs, *, hidden: int = 64, elementwise: bool = True, gate: bool = True
  ):
    """Draws the networks.

    Args:
      hidden: units of each network.
      elementwise: whether every channel has a factor of its own, or a head one.
      gate: whether factors read the query; without, a head must have one: elementwise=False.
    """
    super().__init__(dims, rngs)
    check_at_least(1, hidden=hidden)
    if elementwise and not gate:  # channels of a pair would come apart behind a rotation
      raise ValueError('gate=False with elementwise=True; allowed: elementwise=False')
    self.has_gate = self.nonlinear_in_queries = self.needs_unscaled_queries = gate
    self.multiplies_queries = not gate
    width = dims.head_dim if elementwise else 1
    self.f_in, self.f_in_bias = linear(rngs, 1, hidden)
    self.f_out, self.f_out_bias = linear(rngs, hidden, dims.heads * width)
    if gate:
      self.g_in, self.g_in_bias = linear(rngs, dims.head_dim, hidden)
      self.g_out, self.g_out_bias = zeros(hidden, width), zeros(width)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return num_visible_BS.astype(jnp.float32)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    # Where a member of a chain has set several turns of a head side by side, each is a query to g.
    turns = (-1, self.dims.head_dim) if self.has_gate else (1, -1)
    q_BTHnK = q_BTHK.astype(jnp.float32).reshape(*q_BTHK.shape[:3], *turns)
    f = network(jnp.log(i)[..., None], self.f_in, self.f_in_bias, self.f_out, self.f_out_bias)
    factor = f.reshape(*i.shape, self.dims.heads, 1, -1)
    if self.has_gate:
      g = network(q_BTHnK, self.g_in, self.g_in_bias, self.g_out, self.g_out_bias)
      factor = factor * (1 + jnp.tanh(g))
    return (q_BTHnK * factor).reshape(q_BTHK.shape).astype(q_BTHK.dtype), k_BSGK


def linear(rngs, fan_in: int, fan_out: int):
  """The weights and the bias of a linear layer, drawn as torch.nn.Linear does."""
  most = fan_in**-0.5
  return uniform(rngs, (fan_in, fan_out), -most, most), uniform(rngs, (fan_out,), -most, most)


def network(x, w_in, b_in, w_out, b_out):
  """Two linear layers with an exact GELU between: [..., fan in] -> [..., fan out]."""
  lifted = lambda b: jnp.expand_dims(b[...], range(x.ndim - 1))
  u = jax.nn.gelu(exact_matmul(x, w_in[...]) + lifted(b_in), approximate=False)
  return exact_matmul(u, w_out[...]) + lifted(b_out)
