"""Model FLOPs utilization (MFU): which share of a device's FLOP/s a training uses."""

from ml_collections import ConfigDict

from posenc_jax.model.layer_pattern import combine_masks
from posenc_jax.training.checkpoints import leaves_by_path
from posenc_jax.training.optimizer import trained_mask

# Dense FLOP/s of matrix products with float32 sums, from the makers' data sheets, by jax's
# `device_kind`: of bfloat16, and of float32 as jax multiplies it by default on that device
# (TensorFloat-32 on NVIDIA, one bfloat16 pass on TPUs). jax knows two names of each TPU v5. A chip
# of TPU7x is two devices (docs.cloud.google.com/tpu/docs/tpu7x: 2307 TFLOP/s a chip).
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
  'TPU v5e': (197e12, 197e12),
  'TPU v5': (459e12, 459e12),
  'TPU v5p': (459e12, 459e12),
  'TPU v6 lite': (918e12, 918e12),
  'TPU7x': (1153.5e12, 1153.5e12),
}


def peak_flops(device_kind: str, compute_dtype: str, matmul_precision: str) -> float | None:
  """FLOP/s that one device can reach; None for unknown devices and higher float32 precisions."""
  if device_kind not in PEAKS:
    return None
  bfloat16, float32 = PEAKS[device_kind]
  if compute_dtype == 'bfloat16':
    return bfloat16
  return float32 if matmul_precision == 'default' else None


def model_flops(config: ConfigDict, model, num_seeds: int = 1) -> int:
  """FLOPs that a training step of one seed needs, however it is computed.

  These are 6 a weight and token, and 12 a query, visible key and channel, as PaLM counts them
  (Chowdhery et al. 2022, appendix B), so that the utilization compares with what others report. Of
  a weight that does not train they are 4, for its own gradient is not computed; where the first
  layers do not train, neither are those of their inputs, and these are too many. They count the
  network's matrix products alone: without the halving by the causal mask, as if a row of several
  documents were one, without anything that is computed twice, and without the encoding, whose cost
  lowers the utilization.

  Args:
    config: the config of the run.
    model: the `LM` that it trains, or its shapes.
    num_seeds: how many models `model` holds, along a first axis of every array.
  """
  c, leaves, masks = config.train, leaves_by_path(model), model.encodings.masks
  trains = leaves_by_path(trained_mask(model, c.trained_parameters))
  logits = 'embedding' if model.tied else 'w_logits'
  matrices = [logits, *(path for path in leaves if path.startswith(('layers/w_', 'layers/lora/')))]
  of_weights = sum((6 if trains[path] else 4) * leaves[path].size for path in matrices)
  output_dim = leaves['layers/w_o'].shape[-2]  # channels of all heads
  flops_per_token = of_weights // num_seeds
  for layer in range(config.model.layers):
    mask = combine_masks(config.attention, masks[layer % len(masks)])
    near_keys = min(mask.get(name, c.length) for name in ('window', 'chunk'))
    visible_keys = min(near_keys + mask.get('sink_tokens', 0), c.length)
    flops_per_token += 12 * output_dim * visible_keys
  return c.batch * c.length * flops_per_token
