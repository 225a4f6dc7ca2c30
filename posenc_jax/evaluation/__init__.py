"""Evaluation of a trained run, also past its training length. Rows are described in row_schema."""
