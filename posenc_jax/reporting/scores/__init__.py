"""Scores from rows: what a score is, which rows are one line of a table, and what is missing."""
