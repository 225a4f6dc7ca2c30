"""The backends of `attend`: why each refuses a request, or how it runs one; and what they share.

`fused` runs the kernels of a TPU (kernels/tpu), `triton` those of a GPU (kernels/gpu).
"""
