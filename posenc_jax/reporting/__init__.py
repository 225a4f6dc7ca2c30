"""Tables, figures and HTML pages, made from rows and nothing else. Imports no jax."""
