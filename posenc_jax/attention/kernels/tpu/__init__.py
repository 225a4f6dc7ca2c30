"""Kernels for TPUs: one a pass, which walks over tiles of all heads."""
