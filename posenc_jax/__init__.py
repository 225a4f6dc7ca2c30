"""Position encodings for transformers under one attention interface, trained and evaluated past the
training length.
"""
