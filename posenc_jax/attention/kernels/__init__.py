"""Attention in Pallas kernels: what those for TPUs (`tpu`) and for GPUs (`gpu`) share."""
