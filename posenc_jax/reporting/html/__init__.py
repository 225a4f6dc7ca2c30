"""One self-contained HTML page of runs: which encodings hold past the training length, and
everything behind it.
"""
