"""Attention in Triton kernels, for NVIDIA GPUs: what the backend `triton` is made of."""
