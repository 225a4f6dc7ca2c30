"""Measures time and memory of attention, the training step and the evaluation of an imported model,
beside the same work in PyTorch.

`command.py` reads the flags, `cases.py` says what is measured, `measure.py` interleaves the repeats
and writes rows, `tables.py` makes tables of them, `evaluation.py` exports the model that PyTorch
evaluates. Worker processes do the work (`workers.py` starts them, `worker.py` runs in them) and
load `jax_cases.py` or `torch_cases.py`. The other modules import neither jax nor torch.
"""
