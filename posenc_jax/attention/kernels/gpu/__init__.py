"""Kernels for NVIDIA GPUs, through Triton: programs side by side, with one head each."""
