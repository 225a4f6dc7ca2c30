"""Evaluation of a trained run, past its training length."""
