"""What references share: torch, weights of modules, projections and attention."""

from .cases import S

try:
  import torch
except ModuleNotFoundError:  # the cases can be read without it
  torch = None


def causal_mask():
  return torch.full((S, S), -1e30).triu(1)[None, None]


def linear(module, *weights):
  """Sets the weights of a Linear to matrices [D, ...] side by side, and its bias to zero.

  They stay tensors, so that gradients reach the matrices.
  """
  del module.weight
  module.weight = torch.cat([w.reshape(w.shape[0], -1) for w in weights], dim=1).T
  if module.bias is not None:
    module.bias.data.zero_()


def identity(module, width: int | None = None):
  """Sets the weights of a Linear to the identity of its own size, or of another one."""
  linear(module, torch.eye(module.weight.shape[0] if width is None else width))


def by_head(*weights):
  """Joins q, k, v [D, H, K] into the fused projection [D, H, 3, K] of GPT-NeoX and BLOOM."""
  return torch.stack(weights, dim=2)


def project(w, name):
  """Queries, keys or values, [1, H, S, K]."""
  return torch.einsum('sd,dnk->nsk', w['x'], w[name])[None]


def causal_scores(q, k):
  """Scaled products [1, H, S, S] of queries and keys, with the causal mask."""
  return q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5 + causal_mask()


def weighted_values(scores, v):
  return joined_heads(scores.softmax(dim=-1) @ v)


def joined_heads(o):
  """Outputs of heads [1, H, S, K] beside one another, [S, H * K]."""
  return o[0].swapaxes(0, 1).reshape(S, -1)


def turned_halves(x, cos, sin):
  """x turned by cosines and sines of all K channels, in halves."""
  first, second = x.chunk(2, dim=-1)
  return x * cos + torch.cat([-second, first], dim=-1) * sin


def attention_turned(w, cos, sin):
  """Attention of queries and keys turned by the same waves."""
  q, k = (turned_halves(project(w, n), cos, sin) for n in 'qk')
  return weighted_values(causal_scores(q, k), project(w, 'v'))


def attend_with_lse(q, k, v, mask=0.0):
  """Attention of queries over keys [1, H, ., K], and the log-sum-exp of the scores."""
  scores = q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5 + mask
  return scores.softmax(dim=-1) @ v, scores.logsumexp(dim=-1)


def numbers(x) -> list:
  """Nested lists of numbers with nine significant digits, as many as single precision needs."""
  return [numbers(y) for y in x] if x.ndim else float(f'{x:.9g}')
