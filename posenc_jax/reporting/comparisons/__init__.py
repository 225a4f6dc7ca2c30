"""What lines are compared with, in numbers, and what other documents and other seeds would do."""
