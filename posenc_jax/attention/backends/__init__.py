"""The backends of `attend`: why each refuses a request, or how it runs one; and what they share."""
