"""The cases in PyTorch: what it offers for the same attention, step and evaluation."""

import math
import os

import torch
import torch.nn.functional as F

from . import torch_steps
from .cases import LARGE_MATMUL_SIZE, LARGE_MATMULS, MATMUL_SIZE, SCORED_TOKENS, Case, tokens
from .work import Unsupported, Work

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
BLOCK = 128  # queries or keys of a block of FlexAttention


def describe() -> dict:
  torch.manual_seed(0)
  # Where it has no kernel, as for a learned bias with its gradient, PyTorch would compute bfloat16
  # in float32.
  torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
  if hasattr(os, 'sched_getaffinity'):  # as many threads as jax uses
    torch.set_num_threads(len(os.sched_getaffinity(0)))
  device = f'cpu, {torch.get_num_threads()} threads'
  if DEVICE == 'cuda':
    torch.set_float32_matmul_precision('high')  # as jax multiplies on NVIDIA GPUs by default
    device = f'{torch.cuda.get_device_name(0)}, float32 products in TF32'
  return {'framework': 'torch', 'version': torch.__version__, 'platform': DEVICE, 'device': device}


def step(case: Case) -> Work:
  return torch_steps.build(case, DEVICE)


def evaluation(case: Case) -> Work:
  """The nats of the last tokens of a window, by transformers; no others have logits."""
  import transformers  # takes seconds, and no other case needs it

  model = transformers.AutoModelForCausalLM.from_pretrained(
    case.folder, dtype=getattr(torch, case.dtype), local_files_only=True
  ).eval()
  tokens_BT = torch.from_numpy(tokens(case)).long()
  inputs_BT = F.pad(tokens_BT[:, :-1], (1, 0), value=case.bos)
  scored_BT = tokens_BT[:, -SCORED_TOKENS:]
  options = {'use_cache': False, 'logits_to_keep': scored_BT.shape[1]}
  facts = {'transformers': transformers.__version__}

  @torch.inference_mode()
  def call():
    logits_BTV = model(inputs_BT, **options).logits.float()
    nats = F.cross_entropy(logits_BTV.flatten(0, 1), scored_BT.flatten(), reduction='none')
    facts['nats'] = nats.numpy()

  return Work(call, facts)


def synchronize() -> None:
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def matmul(case: Case) -> Work:
  on_cpu = DEVICE == 'cpu'
  size, times = (MATMUL_SIZE, 1) if on_cpu else (LARGE_MATMUL_SIZE, LARGE_MATMULS)
  a = torch.randn(size, size, device=DEVICE).to(getattr(torch, case.dtype))
  facts = {'temporary_bytes': None} | ({} if on_cpu else {'operations': 2.0 * times * size**3})
  return Work(lambda: ([a @ a for _ in range(times)], synchronize()), facts)


# Each of these functions takes q, k, v [B, H, T, K], then arrays that are made beforehand, then
# learned parameters. It returns o [B, H, T, K].


def sdpa(q, k, v):
  return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa_fixed(q, k, v, bias_1HTT):
  return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_1HTT)


def sdpa_fixed_causal(q, k, v, bias_1HTT):
  """PyTorch's kernel for CPUs, called without `scaled_dot_product_attention`, which refuses a bias
  with `is_causal`.
  """
  if DEVICE != 'cpu':
    raise Unsupported('a kernel for CPUs')
  kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
  return kernel(q, k, v, 0.0, True, attn_mask=bias_1HTT)[0]


def sdpa_table(q, k, v, table_RH):
  """`table_RH` has a bias for each distance 0 .. T - 1 and head."""
  return sdpa_fixed(q, k, v, torch_steps.along_diagonals(table_RH).to(q.dtype))


def sdpa_content(q, k, v, later_TT, vectors_HRK):
  """Adds q_i . vectors[i - j] / sqrt(K) to the scores. `vectors_HRK` has a vector for each head and
  distance 0 .. T - 1.
  """
  s = (q * q.shape[-1] ** -0.5) @ vectors_HRK.flip(1).to(q.dtype).transpose(1, 2)
  return sdpa_fixed(q, k, v, relative_shift(s).masked_fill_(later_TT, -math.inf))


def relative_shift(s):
  """Transformer-XL's shift of s [..., T, T]: from distances T - 1 .. 0 to keys 0 .. T - 1. Entries
  right of the diagonal are arbitrary.
  """
  T = s.shape[-1]
  return F.pad(s, (1, 0)).view(*s.shape[:-2], T + 1, T)[..., 1:, :]


def flex(score_mod, T: int):
  """Compiled flex_attention without the blocks above the diagonal. `score_mod` takes the learned
  parameters first.
  """
  from torch.nn.attention.flex_attention import flex_attention

  block_mask = causal_blocks(T)
  compiled = torch.compile(flex_attention, dynamic=False)

  def function(q, k, v, *learned):
    with_learned = score_mod and (lambda s, b, h, i, j: score_mod(*learned, s, h, i, j))
    return compiled(q, k, v, score_mod=with_learned, block_mask=block_mask)

  return function


def causal_blocks(T: int):
  """The result of create_block_mask for the causal mask, without an array [T, T]: masked blocks on
  the diagonal, full blocks below it.
  """
  from torch.nn.attention.flex_attention import BlockMask

  index_N = torch.arange(-(-T // BLOCK), dtype=torch.int32, device=DEVICE)
  below_NN = torch.where(index_N < index_N[:, None], index_N, 0)
  diagonal_NN = torch.where(index_N == 0, index_N[:, None], 0)  # only the first of each row is read
  blocks = (torch.ones_like(index_N), diagonal_NN, index_N, below_NN)
  causal = lambda b, h, i, j: i >= j
  return BlockMask.from_kv_blocks(
    *(x[None, None] for x in blocks), BLOCK, causal, seq_lengths=(T, T)
  )


def peer(method: str, T: int, H: int, K: int, dtype: torch.dtype):
  """A function of those above, its arrays made beforehand, and its learned parameters."""
  slopes_H = 2.0 ** (-8 * torch.arange(1, H + 1, device=DEVICE) / H)
  normal = lambda *shape: torch.randn(*shape, device=DEVICE)
  if method.endswith('_compiled'):
    function, *arrays = peer(method.removesuffix('_compiled'), T, H, K, dtype)
    return torch.compile(function, dynamic=False), *arrays
  if method.startswith('sdpa_fixed'):  # ALiBi's bias, for a number of heads that is a power of two
    table_RH = -torch.arange(T, device=DEVICE)[:, None] * slopes_H
    function = sdpa_fixed if method == 'sdpa_fixed' else sdpa_fixed_causal
    return function, (torch_steps.along_diagonals(table_RH).to(dtype),), ()
  if method == 'sdpa_table':
    return sdpa_table, (), (normal(T, H),)
  if method == 'sdpa_content':
    later_TT = torch.ones(T, T, dtype=torch.bool, device=DEVICE).triu(1)
    return sdpa_content, (later_TT,), (normal(H, T, K),)
  if method == 'flex_alibi':
    return flex(lambda s, h, i, j: s - slopes_H[h] * (i - j), T), (), ()
  if method == 'flex_table':
    add_bias = lambda table_RH, s, h, i, j: s + table_RH[(i - j).clamp(min=0), h]
    return flex(add_bias, T), (), (normal(T, H),)
  return (sdpa if method == 'sdpa' else flex(None, T)), (), ()


def attention(case: Case) -> Work:
  dtype, T = getattr(torch, case.dtype), case.length
  shape = (case.batch, case.heads, T, case.head_dim)
  q, k, v, cotangent = (torch.randn(*shape, device=DEVICE).to(dtype) for _ in range(4))
  function, fixed, learned = peer(case.method, T, case.heads, case.head_dim, dtype)
  differentiated = (q, k, v, *learned)

  def forward():
    with torch.no_grad():
      function(q, k, v, *fixed, *learned)
    synchronize()

  def both():
    o = function(q, k, v, *fixed, *learned)
    torch.autograd.grad(o, differentiated, cotangent)
    synchronize()

  for x in differentiated:
    x.requires_grad_(case.passes == 'both')
  call = forward if case.passes == 'forward' else both
  bias_bytes = sum(x.nbytes for x in fixed)
  if DEVICE == 'cpu':
    return Work(call, {'bias_bytes': bias_bytes})
  call()
  torch.cuda.reset_peak_memory_stats()
  before = torch.cuda.memory_allocated()
  call()
  growth = torch.cuda.max_memory_allocated() - before
  return Work(call, {'temporary_bytes': growth + bias_bytes})
