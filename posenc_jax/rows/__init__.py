"""Rows of eval.jsonl: their fields, and how they state what evaluation changed. Imports no jax."""
