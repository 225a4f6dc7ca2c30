"""Scores of tasks: what guessing gives, which seeds have learned, which tables they want."""
