"""The backends of `attend`: modules with refuse(request) and run(request)."""
