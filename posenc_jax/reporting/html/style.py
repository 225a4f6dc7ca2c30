"""The look of the plots of the page, and how they become HTML."""

import html

import plotly.graph_objects as go

from posenc_jax.errors import visible

# {marker of `colors.MARKERS`: plotly's name of it}
SYMBOLS = {
  'o': 'circle', 's': 'square', 'D': 'diamond', 'X': 'x', 'v': 'triangle-down',
  '^': 'triangle-up', 'P': 'cross', 'p': 'pentagon', 'h': 'hexagon', 'd': 'diamond-tall',
  '<': 'triangle-left', '>': 'triangle-right',
}  # fmt: skip
INK, MUTED, RULE = '#222222', '#6a6a6a', '#e6e6e6'
SHADE = 'rgba(0, 0, 0, 0.045)'  # of lengths up to the training length
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
AXIS = dict(
  showline=True,
  linecolor=MUTED,
  ticks='outside',
  tickcolor=MUTED,
  zeroline=False,
  automargin=True,
  title_font_size=13,
  title_standoff=8,
)


def figure(height: int, **layout) -> go.Figure:
  """An empty plot, dark on white. A finger that drags it scrolls the page."""
  made = go.Figure(layout=dict(template='none', height=height, dragmode=False, showlegend=False))
  made.update_layout(
    font=dict(family=FONT, size=13, color=INK),
    hoverlabel=dict(
      bgcolor='white', bordercolor=MUTED, font=dict(color=INK, size=12), align='left'
    ),
    margin=dict(l=8, r=12, t=8, b=8),
  )
  made.update_xaxes(AXIS | dict(showgrid=False))
  made.update_yaxes(AXIS | dict(gridcolor=RULE))
  return made.update_layout(layout)


def text(words: object) -> str:
  """Words as plotly shows them: it reads tags."""
  return html.escape(visible(str(words)), quote=False)


def fade(color: str, opacity: float) -> str:
  """A color '#rrggbb' with an opacity."""
  red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
  return f'rgba({red}, {green}, {blue}, {opacity:g})'


def to_div(made: go.Figure, name: str) -> str:
  """The element `name` and the script that fills it; the page holds the library once."""
  # The buttons by name: plotly's own choice has one that sends the plot to a server.
  buttons = [['toImage', 'zoom2d', 'resetScale2d']]
  return made.to_html(
    config=dict(responsive=True, displaylogo=False, modeBarButtons=buttons),
    include_plotlyjs=False,
    full_html=False,
    div_id=name,
    default_height=f'{made.layout.height}px',
  )
