"""Attention in Pallas kernels for TPU: the tile of `attention.tiled`, one kernel a pass."""
