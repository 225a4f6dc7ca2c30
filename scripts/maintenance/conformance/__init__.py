"""Compares encodings with implementations of others.

`cases.py` says what is compared, `libraries.py` has references that are installed and
`repositories.py` those that are read from clones, `pretrained.py` and `exports.py` have whole
models, `command.py` computes and writes. `tensors.py` imports torch for all, where it is installed:
tests read the cases without it.
"""
