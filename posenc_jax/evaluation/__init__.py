"""Evaluation of a trained run, also past its training length."""
