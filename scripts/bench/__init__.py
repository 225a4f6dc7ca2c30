"""Time and memory of attention and of the training step, beside the same work in PyTorch, in one
run.

command.py reads the flags, cases.py says what is measured, measure.py interleaves the repeats and
writes rows, report.py makes tables of them. The work is done in processes of their own (workers.py
starts them, worker.py is one) that load jax_cases.py or torch_cases.py; none of the others imports
jax or torch when it is imported.
"""
