"""A whole training step in PyTorch, of the project's model and of x-transformers."""

import contextlib
import importlib.metadata
import importlib.util
import math

import torch
import torch.nn.functional as F
from torch import nn

from posenc_jax import config as configs
from posenc_jax.data import BOS, VOCAB

from .cases import BASE, Case, step_config, tokens
from .work import Unsupported, Work

ENCODINGS = ('nope', 'rope', 'alibi', 't5')
# What the peers compute is the config's in these fields, or does not depend on them; all others of
# these sections are as in configs/base.py.
SECTIONS = ('model', 'attention', 'data', 'train')
TAKEN = {
  *('model.layers', 'model.model_dim', 'model.heads', 'model.head_dim', 'model.mlp_dim'),
  *('model.unroll', 'attention.backend', 'attention.block_sizes'),
  *('train.length', 'train.batch', 'train.steps', 'train.compute_dtype'),
}
T5_BUCKETS, T5_MAX_DISTANCE, ROPE_BASE = 32, 128, 10_000.0


def along_diagonals(table_RH):
  """The bias [1, H, T, T] with entries table[i - j, h], and -inf right of the diagonal.

  Windows of a row were the fastest of several forms.
  """
  T, H = table_RH.shape
  row_HR = torch.cat((table_RH.T.flip(1), table_RH.new_full((H, T - 1), -math.inf)), dim=1)
  return row_HR.unfold(1, T, 1).flip(1)[None]


class Layer(nn.Module):
  def __init__(self, D: int, H: int, K: int, hidden: int):
    super().__init__()
    self.sizes = (H, K)
    self.attention_norm, self.mlp_norm = nn.RMSNorm(D, eps=1e-6), nn.RMSNorm(D, eps=1e-6)
    self.qkv = nn.Linear(D, 3 * H * K, bias=False)
    self.out = nn.Linear(H * K, D, bias=False)
    self.mlp_in, self.mlp_out = nn.Linear(D, hidden, bias=False), nn.Linear(hidden, D, bias=False)

  def forward(self, x, cos_sin, bias):
    B, T = x.shape[:2]
    q, k, v = self.qkv(self.attention_norm(x)).view(B, T, 3, *self.sizes).permute(2, 0, 3, 1, 4)
    if cos_sin is not None:
      q, k = rotate(q, *cos_sin), rotate(k, *cos_sin)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
    x = x + self.out(o.transpose(1, 2).reshape(B, T, -1))
    return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate='tanh'))


def rotate(x, cos, sin):
  """RoPE over the pairs (m, m + K/2)."""
  first, second = x.chunk(2, dim=-1)
  return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def t5_buckets(T: int) -> torch.Tensor:
  """T5's causal bucket of each distance 0 .. T - 1, in double precision."""
  n, exact = torch.arange(T, dtype=torch.float64), T5_BUCKETS // 2
  far = exact + (n / exact).log() / math.log(T5_MAX_DISTANCE / exact) * (T5_BUCKETS - exact) + 1e-9
  return torch.where(n < exact, n, far.clamp(max=T5_BUCKETS - 1)).long()


class GPT(nn.Module):
  """The project's decoder with its default settings: the same function of the same parameters."""

  def __init__(self, config, encoding: str, T: int):
    super().__init__()
    D, H, K = config.model_dim, config.heads, config.head_dim
    self.encoding = encoding
    self.embedding = nn.Embedding(VOCAB, D)
    self.layers = nn.ModuleList(Layer(D, H, K, config.mlp_dim) for _ in range(config.layers))
    self.norm = nn.RMSNorm(D, eps=1e-6)
    for name, p in self.named_parameters():
      if p.ndim == 2:
        nn.init.normal_(p, std=D**-0.5 if name == 'embedding.weight' else p.shape[1] ** -0.5)
    position_T1 = torch.arange(T)[:, None]
    if encoding == 'rope':
      angles_TK = position_T1 * ROPE_BASE ** (-torch.arange(0, K, 2) / K)
      cos_sin = torch.stack((angles_TK.cos(), angles_TK.sin()))
      self.register_buffer('cos_sin', cos_sin, persistent=False)
    elif encoding == 'alibi':
      slopes_H = 2.0 ** (-8 * torch.arange(1, H + 1) / H)
      self.register_buffer('bias', along_diagonals(-position_T1 * slopes_H), persistent=False)
    elif encoding == 't5':
      self.table = nn.Parameter(torch.randn(T5_BUCKETS, H) * (D * K) ** -0.5)
      self.factor = K**0.5
      self.register_buffer('bucket', t5_buckets(T), persistent=False)

  def forward(self, tokens_BT):
    table_VD = self.embedding.weight
    x = table_VD.shape[1] ** 0.5 * self.embedding(tokens_BT)
    cos_sin = self.cos_sin if self.encoding == 'rope' else None
    bias = self.bias if self.encoding == 'alibi' else None
    if self.encoding == 't5':
      bias = along_diagonals(self.factor * F.embedding(self.bucket, self.table))
    device = x.device.type
    if bias is not None and torch.is_autocast_enabled(device):  # once for all layers
      bias = bias.to(torch.get_autocast_dtype(device))
    for layer in self.layers:
      x = layer(x, cos_sin, bias)
    return F.linear(self.norm(x), table_VD)


def x_transformer(config, encoding: str, T: int) -> nn.Module:
  """A model of the same sizes in x-transformers.

  Its GELU is exact, and its T5 bias excludes fused attention.
  """
  if importlib.util.find_spec('x_transformers') is None:
    raise Unsupported("x-transformers is not installed: pip install -e '.[bench]'")
  from x_transformers import Decoder, TransformerWrapper

  encoding_options = {
    'nope': {},
    'rope': {'rotary_pos_emb': True, 'rotary_emb_dim': config.head_dim},
    'alibi': {'alibi_pos_bias': True},
    't5': {'rel_pos_bias': True},
  }
  decoder = Decoder(
    dim=config.model_dim,
    depth=config.layers,
    heads=config.heads,
    attn_dim_head=config.head_dim,
    attn_flash=encoding != 't5',
    ff_mult=config.mlp_dim / config.model_dim,
    ff_glu=False,
    ff_no_bias=True,
    use_rmsnorm=True,
    **encoding_options[encoding],
  )
  return TransformerWrapper(
    num_tokens=VOCAB, max_seq_len=T, attn_layers=decoder, use_abs_pos_emb=False, tie_embedding=True
  )


def adamw(model: nn.Module, o) -> torch.optim.AdamW:
  """The project's optimizer, but with a constant rate. Only matrices of the network decay."""
  named = list(model.named_parameters())
  matrices = [p for name, p in named if p.ndim >= 2 and name != 'table']
  others = [p for name, p in named if p.ndim < 2 or name == 'table']
  groups = [
    {'params': matrices, 'weight_decay': o.weight_decay},
    {'params': others, 'weight_decay': 0.0},
  ]
  rate = o.learning_rate / max(o.warmup, 1)
  return torch.optim.AdamW(groups, lr=rate, betas=(o.beta1, o.beta2), eps=o.epsilon, fused=True)


class Step:
  """Loss, gradients, clipping and AdamW, with BOS before the window, as in the trainer."""

  def __init__(self, model: nn.Module, config, batch_BT: torch.Tensor, autocast, compiled: bool):
    self.model, self.clip, self.autocast = model, config.optim.clip, autocast
    self.targets_BT = batch_BT.long()
    self.inputs_BT = F.pad(self.targets_BT[:, :-1], (1, 0), value=BOS)
    self.logits = torch.compile(model) if compiled else model
    self.optimizer = adamw(model, config.optim)

  def backward(self) -> torch.Tensor:
    self.model.zero_grad(set_to_none=True)
    with self.autocast():
      loss = F.cross_entropy(
        self.logits(self.inputs_BT).flatten(0, 1).float(), self.targets_BT.flatten()
      )
    loss.backward()
    return loss

  def __call__(self) -> float:
    loss = self.backward()
    if self.clip:
      nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
    self.optimizer.step()
    return loss.item()


def build(case: Case, device: str) -> Work:
  """Prepares a case. Raises `Unsupported`."""
  config, name = step_config(case), case.encoding
  if name not in ENCODINGS:
    raise Unsupported(f'{case.method} is written here for {", ".join(ENCODINGS)} only')
  defaults = configs.flat(configs.load(BASE, {}))
  for path, value in configs.flat(config).items():
    is_taken = path in TAKEN or path.partition('.')[0] not in SECTIONS
    if not is_taken and value != defaults[path]:
      allowed = f'{defaults[path]!r}, for which {case.method} is written'
      raise Unsupported(f'config.{path}={value!r}; allowed: {allowed}')
  if config.optim.name != 'adamw':
    raise Unsupported(f'config.optim.name={config.optim.name!r}; allowed: adamw')
  make = GPT if case.method.startswith('gpt') else x_transformer
  model = make(config.model, name, case.length).to(device)
  half = case.dtype == 'bfloat16'
  autocast = (lambda: torch.autocast(device, torch.bfloat16)) if half else contextlib.nullcontext
  batch_BT = torch.from_numpy(tokens(case)).to(device)
  is_compiled = case.method.endswith('_compiled')
  step = Step(model, config, batch_BT, autocast, is_compiled)
  if is_compiled:
    step()  # it is compiled now, and not while it is timed
  facts = {'parameters': sum(p.numel() for p in model.parameters())}
  if make is x_transformer:
    facts['x_transformers'] = importlib.metadata.version('x-transformers')
  return Work(step, facts)
