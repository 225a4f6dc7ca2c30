"""The colors of lines, in figures and on the HTML page."""

# Paul Tol's 'muted' scheme, made for color-blind readers.
COLORS = (
  '#332288', '#cc6677', '#117733', '#88ccee', '#882255',
  '#c9b450', '#44aa99', '#aa4499', '#999933', '#555555',
)  # fmt: skip
GREY = '#777777'
