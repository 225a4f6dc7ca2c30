"""One self-contained HTML page: which encodings hold past the training length, and why."""
