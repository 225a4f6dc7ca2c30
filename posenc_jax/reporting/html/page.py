"""The page, put together: the answer, the curves, the tables, then what is behind them."""

from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from posenc_jax import errors, storage
from posenc_jax.errors import UserError, disk_errors
from posenc_jax.reporting.comparisons.compare import Comparison, compare_all
from posenc_jax.reporting.comparisons.difference_tables import difference_tables
from posenc_jax.reporting.comparisons.own_changes import finding, train_lengths_of
from posenc_jax.reporting.html import plots, style
from posenc_jax.reporting.html.configurations import Configuration, configurations
from posenc_jax.reporting.html.gathered import Gathered
from posenc_jax.reporting.series import Series, references_of
from posenc_jax.reporting.table_forms.lengths import extrapolation_table

HERE = Path(__file__).parent
TITLE = 'Which encodings hold past the training length?'
CURVES = (
  'Lines: means over seeds; {}; shaded: up to the {}. A line ends where its '
  'encoding has no value. Click a name to hide a line or bring it back, double-click to see it '
  'alone; the lists choose which measurement is drawn, and which other one dashed beside it. What '
  'each of them measures stands below its table.'
)
DOTTED_LINES = ' Dotted: what guessing scores, where rows say it.'
GREY_LINES = ' Grey: references.'


def render(gathered: Gathered, metric: str) -> str:
  """The HTML of a page: the same bytes for the same gathered. Raises UserError as `Gathered.series`
  does.
  """
  shown = gathered.series(metric)
  labels = gathered.references
  of_axis, of_metric = {}, {}
  for series in shown:
    of_axis.setdefault(plots.axis_title(series), []).append(series)
    of_metric.setdefault(series.scores.metric, []).append(series.scores)
  leads = [_lead(series, labels) for series, *_ in of_axis.values()]
  compared = [comparison for found in of_metric.values() for comparison in compare_all(found)]
  found, same = configurations(gathered.rows, gathered.configs)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: errors.visible(value) if type(value) is str else value,
  )
  return environment.get_template('page.html').render(
    title=TITLE,
    css=Markup((HERE / 'page.css').read_text(encoding='utf-8')),
    library=Markup(get_plotlyjs()),
    leads=leads,
    curves=[_curves(some, labels, number) for number, some in enumerate(of_axis.values())],
    studies=_study_tables(gathered),
    tables=[_tables(gathered, *both) for both in zip(shown, compared, strict=True)],
    configurations=_configurations(found),
    same=sorted(same.items()),
    sources=gathered.notes,
  )


def write(path: str | Path, text: str) -> None:
  """Writes the page, whole or not at all. Raises Stopped where the disk takes no file."""
  path = Path(path)
  with disk_errors(remedy=''):
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.atomic_write(path, text)


def _lead(series: Series, labels: set[str]) -> str:
  """What a reader wants to know first: the title of the figure of these scores, then of which
  lengths that is.
  """
  grey = references_of(series, labels)
  lengths, longest = train_lengths_of(series, grey), series.scores.columns[-1]
  trained = f'Trained at {", ".join(f"{length:,}" for length in lengths)} tokens'
  if longest <= lengths[0]:
    return f'{trained}: nothing here was evaluated past that ({series.name}).'
  times = f', {longest / lengths[0]:g} times as many' if len(lengths) == 1 else ''
  numbers = f'{trained}, evaluated at up to {longest:,}{times} ({series.name}).'
  found = finding(series, grey)
  return f'{found}. {numbers}' if found else numbers


def _curves(shown: list[Series], labels: set[str], number: int) -> dict:
  """A plot and its caption; the first plot has no number in its name."""
  shows_seeds = shown[0].scores.metric.shows_seeds
  spread = 'thin: each seed' if shows_seeds else 'bands: one standard deviation'
  has_several = len(plots.train_lengths_of_all(shown, labels)) > 1
  seen = 'shortest training length' if has_several else 'training length'
  caption = CURVES.format(spread, seen)
  if any(series.chance for series in shown):
    caption += DOTTED_LINES
  if any(references_of(series, labels) for series in shown):
    caption += GREY_LINES
  name = f'curves-{number}' if number else 'curves'
  y, x = plots.axis_title(shown[0]), shown[0].x_title
  label = f'Curves of {y} against {x}, one an encoding; the tables below have every number'
  div = Markup(style.to_div(plots.draw(shown, labels), name))
  return dict(div=div, label=label, caption=caption)


def _study_tables(gathered: Gathered) -> list[dict]:
  """The tables of all studies; their titles name the place where there are several."""
  studies = {place: tables for place, tables in gathered.studies.items() if tables}
  made = []
  for place, tables in studies.items():
    suffix = f', {place}' if len(studies) > 1 else ''
    made += [dict(title=table.title + suffix, table=table) for table in tables]
  return made


def _tables(gathered: Gathered, series: Series, comparison: Comparison) -> dict:
  """The scores of a series by length, its differences, and its seeds."""
  scores, metric = series.scores, series.scores.metric
  has_depths = any(row['position'] is not None for row in scores.exemplar_row.values())
  depths = ' Of all depths together.' if has_depths and not metric.denominator else ''
  table = extrapolation_table(gathered.rows, scores, depths)
  fields = dict(table=table, per_seed=[], per_seed_header=['encoding', 'seed', *table.header[1:]])
  fields['differences'] = difference_tables(comparison)
  if len(scores.seeds) > 1:
    fields['per_seed'] = [
      [curve.label, seed, *(plots.seed_text(metric, value) for value in curve.by_seed[seed])]
      for line, curve in series.curves.items()
      for seed in series.scores.seeds_of(line)
    ]
  return fields


def _configurations(found: list[Configuration]) -> list[list[str]]:
  """The lines of the table of configurations."""
  if not found:
    return []
  from posenc_jax.inspection import parameter_counts  # it needs jax, and rows do not

  lines = []
  for one in found:
    try:
      counts = [f'{number:,}' for number in parameter_counts.count(one.config)]
    except UserError as error:  # a config that another version saved has a page all the same
      counts = ['not known', str(error)]
    own = ', '.join(f'{field} = {value}' for field, value in one.own.items())
    lines.append([one.label, ', '.join(map(str, one.seeds)), *counts, own])
  return lines
