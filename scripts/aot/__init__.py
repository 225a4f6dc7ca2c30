"""Compiles the training step and attention for TPUs and GPUs that are not there, and says what they
take.

`command.py` reads the flags and prints the table, `targets.py` knows the cards, `programs.py` says
what is compiled, `cases.py` with which masks and shapes, `hlo.py` reads compiled programs. All but
`programs.py` import jax in functions only: what jax reads when it starts is set before.
"""
