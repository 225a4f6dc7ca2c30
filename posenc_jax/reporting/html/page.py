"""The page, put together: the answer, the curves, the tables, then what is behind them."""

import os
from pathlib import Path

import jinja2
from markupsafe import Markup
from ml_collections import ConfigDict
from plotly.offline import get_plotlyjs

from posenc_jax import config, errors
from posenc_jax.errors import UserError
from posenc_jax.reporting.html import plots, style
from posenc_jax.reporting.html.extrapolation_gap import Rise, rise
from posenc_jax.reporting.html.measured import Measured, measure
from posenc_jax.reporting.html.settings import Setting, settings
from posenc_jax.reporting.html.sources import Sources

HERE = Path(__file__).parent
FAR = 1024  # distances drawn, or twice the training length where that is more
TITLE = 'Which encodings hold past the training length?'
CURVES = (
  'Lines: means over seeds; {}; shaded: up to the training length. A line ends where its '
  'encoding has no value. Click a name to hide a line or bring it back, double-click to see it alone; the lists choose '
  'which measurement is drawn, and which other one dashed beside it. What each of them measures stands below its table.'
)
FIRST = {
  'rise': 'The smallest first: what holds stands above.',
  'change': 'The highest at the longest length first.',
}
CHANCE = ' Dotted: what guessing scores, where rows say it.'
PICTURES = 'What position adds to a score, against distance, one line a head, at initialization; dotted: the training length.'
NOT_THEIR_OWN = (
  ' Rows do not tell hyperparameters: where a run has no config.json, its encoding is drawn with its defaults and the '
  'heads of configs/base.py.'
)


def render(sources: Sources, metric: str, pictures: bool) -> str:
  """The HTML of a page: the same bytes for the same sources. Raises UserError as `measure` does."""
  made = measure(sources, metric)
  rises = [rise(table) for table in made]
  plots = {}
  for table, rose in zip(made, rises, strict=True):
    plots.setdefault(table.axis, []).append((table, rose))
  found, same = settings(sources.rows, sources.configs)
  drawn, not_drawn = (
    _pictures(sources, found, max(table.lengths[-1] for table in made)) if pictures else ([], [])
  )
  loader = jinja2.FileSystemLoader(HERE)
  template = jinja2.Environment(
    loader=loader,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  ).get_template('page.html')
  return template.render(
    title=TITLE,
    css=Markup((HERE / 'page.css').read_text(encoding='utf-8')),
    library=Markup(get_plotlyjs()),
    leads=[rose if isinstance(rose, str) else rose.sentences() for (_, rose), *_ in plots.values()],
    curves=[
      _curves([table for table, _ in some], number) for number, some in enumerate(plots.values())
    ],
    studies=_studies(sources),
    tables=[_table(*both) for both in zip(made, rises, strict=True)],
    pictures=drawn,
    not_drawn=not_drawn,
    pictures_caption=PICTURES
    + NOT_THEIR_OWN * (len(sources.configs) < len({row['run'] for row in sources.rows})),
    settings=_settings(found),
    same=sorted(same.items()),
    sources=sources.notes,
  )


def write(path: str | Path, text: str) -> None:
  """Raises UserError where the file cannot be."""
  path = Path(path)
  with errors.user_errors(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def check_writable(path: str | Path) -> None:
  """Raises UserError for a place that no file can be written to, before the page is made; leaves
  nothing there.
  """
  path = Path(path)
  there = next(parent for parent in path.absolute().parents if parent.exists())
  if (
    path.is_dir() or not there.is_dir() or not os.access(path if path.exists() else there, os.W_OK)
  ):
    raise UserError(
      f'--out={path}: cannot be written; allowed: a file in a folder that you may write to'
    )


def _curves(of_axis: list[Measured], number: int) -> dict:
  """What the template shows of a plot; the first has no number in its name."""
  name = f'curves-{number}' if number else 'curves'
  behind = 'thin: each seed' if plots.is_share(of_axis) else 'bands: one standard deviation'
  caption = CURVES.format(behind) + CHANCE * any(table.chance for table in of_axis)
  return dict(div=Markup(style.to_div(plots.draw(of_axis), name)), caption=caption)


def _studies(sources: Sources) -> list[dict]:
  """The tables of all studies; their titles name the place where there are several."""
  studies = {path: some for path, some in sources.studies.items() if some}
  title = lambda path, table: f'{table.title}, {path}' if len(studies) > 1 else table.title
  return [
    dict(title=title(path, table), table=table) for path, some in studies.items() for table in some
  ]


def _table(table: Measured, found: Rise | str) -> dict:
  """What the template prints of a table."""
  every = [
    [line, seed, *(table.text_of(line, seed, length) for length in table.lengths)]
    for line in table.lines
    for seed in table.seeds
  ]
  fields = dict(table=table, every=every if len(table.seeds) > 1 else [], rise=[])
  fields['every_header'] = ['encoding', 'seed', *table.header[1:]]
  if isinstance(found, str):
    return fields | dict(no_rise=found)
  return fields | dict(
    rise_header=['encoding', f'{found.near} (L)', found.far, found.word],
    rise=[
      [line.name, table.text(line.near), table.text(line.far), found.text(line.rises)]
      for line in found.lines
    ],
    rise_caption=f'{found.word.capitalize()}: the score at {found.far:,} tokens less that at {found.near:,}, mean ± '
    f"standard deviation of the seeds' own differences. {FIRST[found.word]}",
  )


def _settings(found: list[Setting]) -> list[list[str]]:
  if not found:
    return []
  from posenc_jax.reporting.html import parameters  # it needs jax, and rows do not

  lines = []
  for setting in found:
    try:
      counts = [f'{number:,}' for number in parameters.count(setting.config)]
    except UserError as error:  # a config that another version saved has a page all the same
      counts = ['not known', str(error)]
    own = ', '.join(f'{field} = {value}' for field, value in setting.own.items())
    lines.append([setting.label, ', '.join(map(str, setting.seeds)), *counts, own])
  return lines


def _pictures(sources: Sources, found: list[Setting], longest: int) -> tuple[list[dict], list[str]]:
  """A picture for each way in which a config sets an encoding, and what could not be drawn."""
  from posenc_jax.reporting.html import profiles  # it needs jax, and rows do not

  drawn, not_drawn, wanted = [], [], {}
  for name, c in [*((setting.label, setting.config) for setting in found), *_by_default(sources)]:
    for of_layers, own in profiles.kinds(name, c):
      wanted.setdefault(profiles.setting(own), (own, []))[1].append(of_layers)
  for number, (c, names) in enumerate(wanted.values()):
    name = ', '.join(dict.fromkeys(names))
    length = max(2, min(longest, max(FAR, 2 * c.train.length)))
    try:
      picture = profiles.draw(c, length)
    except UserError as error:
      not_drawn.append(f'{name} is not drawn: {error}')
      continue
    plots = [
      dict(title=title, shows=shows, div=Markup(style.to_div(plot, f'encoding-{number}-{panel}')))
      for panel, (title, shows, plot) in enumerate(picture.panels)
    ]
    drawn.append(dict(name=name, plots=plots, notes=picture.notes))
  return drawn, not_drawn


def _by_default(sources: Sources) -> list[tuple[str, ConfigDict]]:
  """The encodings of runs without a config.json."""
  bare = {
    (row['encoding'], row['train_length']): None
    for row in sources.rows
    if row['run'] not in sources.configs
  }
  base = HERE.parents[2] / 'configs' / 'base.py'
  return [
    (name, config.load(base, {'encoding': dict(name=name), 'train.length': length}))
    for name, length in bare
  ]
