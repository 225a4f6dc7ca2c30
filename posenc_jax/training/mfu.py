"""Model FLOPs utilization (MFU): which share of a device's FLOP/s a training uses."""

# Dense FLOP/s of matrix products with float32 sums, from the makers' data sheets, by jax's
# `device_kind`: of bfloat16, and of float32 as jax multiplies it by default on that device
# (TensorFloat-32 on NVIDIA, one bfloat16 pass on TPUs).
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
  """FLOP/s that one device can reach; None for unknown devices and higher float32 precisions."""
  if device_kind not in PEAKS:
    return None
  bfloat16, float32 = PEAKS[device_kind]
  if compute_dtype == 'bfloat16':
    return bfloat16
  return float32 if matmul_precision == 'default' else None


def model_flops(
  config, vocab: int, masks: tuple[dict, ...] = ({},), heads_per_query: int = 1
) -> int:
  """FLOPs that a training step needs, however it is computed.

  These are 6 a weight and token, and 12 a query, visible key and channel, as PaLM counts them
  (Chowdhery et al. 2022, appendix B), so that the utilization compares with what others report.
  They count the network's matrix products alone: without the halving by the causal mask, without
  anything that is computed twice, and without the encoding, whose cost lowers the utilization.

  Args:
    config: the config of the run.
    vocab: number of symbols that the corpus has.
    masks: what each layer in a period of a layer pattern says of its window and chunk, in tokens.
    heads_per_query: how many heads the encoding makes of each head of queries.
  """
  m, c = config.model, config.train
  query_dim = m.heads * m.head_dim
  kv_dim = (m.kv_heads or m.heads) * m.head_dim
  mlp_matrices = 2 if m.mlp in ('gelu', 'gelu_exact') else 3
  heads_out = m.heads * heads_per_query
  output_dim = heads_out * m.head_dim
  gates = {'none': 0, 'elementwise': output_dim, 'headwise': heads_out}[m.output_gate]
  matrices = (
    query_dim + output_dim + (1 if m.shared_kv else 2) * kv_dim + gates + mlp_matrices * m.mlp_dim
  )
  layer_weights = m.model_dim * matrices
  weights = m.layers * layer_weights + m.model_dim * (m.vocab or vocab)
  flops_per_token = 6 * weights
  for layer in range(m.layers):
    limits = [c.length, config.attention.window, config.attention.chunk]
    limits += [masks[layer % len(masks)].get(name) for name in ('window', 'chunk')]
    visible_keys = min(limit for limit in limits if limit)
    flops_per_token += 12 * output_dim * visible_keys
  return c.batch * c.length * flops_per_token
