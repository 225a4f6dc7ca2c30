"""How much of what a device can compute a training uses: model FLOPs utilization (MFU)."""

# Dense FLOP/s of matrix products with float32 sums, from the makers' data sheets, by jax's
# `device_kind`: of bfloat16, and of float32 as jax multiplies it by default there (TensorFloat-32
# on NVIDIA, one bfloat16 pass on TPUs).
PEAKS = {
  'NVIDIA A100-SXM4-40GB': (312e12, 156e12),
  'NVIDIA A100-SXM4-80GB': (312e12, 156e12),
  'NVIDIA A100-PCIE-40GB': (312e12, 156e12),
  'NVIDIA A100 80GB PCIe': (312e12, 156e12),
  'NVIDIA H100 80GB HBM3': (989.4e12, 494.7e12),
  'NVIDIA H100 PCIe': (756e12, 378e12),
  'NVIDIA H200': (989.4e12, 494.7e12),
  'TPU v4': (275e12, 275e12),
  'TPU v5 lite': (197e12, 197e12),
  'TPU v5': (459e12, 459e12),
  'TPU v6 lite': (918e12, 918e12),
}


def peak_flops(device_kind: str, compute_dtype: str, matmul_precision: str) -> float | None:
  """FLOP/s that one device can reach; None where it is not known: of other devices, of float32 at
  other precisions.
  """
  if device_kind not in PEAKS:
    return None
  bfloat16, float32 = PEAKS[device_kind]
  if compute_dtype == 'bfloat16':
    return bfloat16
  return float32 if matmul_precision == 'default' else None


def model_flops(config, vocab: int, windows: tuple[int | None, ...] = (None,)) -> int:
  """FLOPs that a training step needs, whatever computes it: 6 a weight and token, 12 a query,
  visible key and channel.

  As PaLM counts (Chowdhery et al. 2022, appendix B), so that it compares with what others report:
  matrix products of the network alone, a causal mask not taken off, nothing computed twice, and
  nothing of the encoding: what that costs lowers the utilization.

  Args:
    config: of the run.
    vocab: symbols.
    windows: of the layers of a period of a pattern, in tokens; None: all.
  """
  m, length, tokens = config.model, config.train.length, config.train.batch * config.train.length
  query, kv = m.heads * m.head_dim, (m.kv_heads or m.heads) * m.head_dim
  weights = m.layers * m.model_dim * (2 * query + 2 * kv + 2 * m.mlp_dim) + m.model_dim * vocab
  keys = (
    min(window for window in (length, config.attention.window, windows[n % len(windows)]) if window)
    for n in range(m.layers)
  )
  return tokens * (6 * weights + sum(12 * query * visible for visible in keys))
