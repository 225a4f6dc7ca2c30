"""The form of PI and YaRN (its table 1): methods of context extension down, windows across."""

from collections.abc import Iterable

from posenc_jax.reporting.comparisons.compare import METHOD, STUDY_LABEL, compare_all
from posenc_jax.reporting.comparisons.difference_tables import difference_tables
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import SCORED
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores, kinds_of
from posenc_jax.reporting.table_forms.published import published
from posenc_jax.rows.row_schema import is_of_model, overrides_text

PLAIN = 'as trained'  # the method of lines whose model evaluation did not change


def methods(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  baseline: str | dict[str, str] | None = None,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """A group of lines for each training (its length and steps), one line a method.

  A line is a label and what evaluation overrode in its model. Seeds are compared each with itself,
  since the methods of a seed are of one trained model, or start from one. `baseline` is a label, or
  a line as 'every seed' names it: 'rope, L = 128, 600 steps', with or without 'as trained'.
  """
  rows = list(rows)
  if any(_method(row) for row in rows):  # or else a line is a label and nothing more
    rows = [_with_method(row) for row in rows]
  found = collect(rows, runs, protocols, metric, label_of=_label, group_fields=SCORED)
  made = []
  for comparison in compare_all(found, controls, baseline, _names, is_paired=True):
    scores = comparison.scores
    groups, kinds = {}, kinds_of(scores)
    line_cells = cells(scores, kinds)
    for line, some in zip(scores.lines, line_cells, strict=True):
      training = _training(scores.exemplar_row[line])
      group = groups.setdefault(training, RowGroup(training, []))
      group.lines.append([Cell(line.replace(f', {training}', '')), *some])
    body = list(groups.values())
    made.append(from_scores(scores, kinds, 'Context extension', 'method', body))
    made += difference_tables(comparison)
  return made + published(reference)


def _training(row: dict) -> str:
  return f'L = {row["train_length"]}, {row["step"]} steps'


def _label(row: dict) -> str:
  return f'{row["label"]}, {_training(row)}'


def _names(row: dict) -> tuple[str, ...]:
  """What a study may call the line of a row."""
  names = _label(row), row['label']
  return *names, *(name.replace(f', {PLAIN}', '') for name in names)


def _method(row: dict) -> str:
  """What evaluation overrode in the model: 'scaling.factor=4, scaling.rope_type=yarn', or ''."""
  overrides = row['overrides'] or {}
  return overrides_text({key: value for key, value in overrides.items() if is_of_model(key)})


def _with_method(row: dict) -> dict:
  """The row with its method in its label, and no longer in its overrides."""
  others = {key: value for key, value in (row['overrides'] or {}).items() if not is_of_model(key)}
  label = f'{row["label"]}, {_method(row) or PLAIN}'
  changed = {'label': label, 'overrides': others or None}
  return row | changed | {METHOD: _method(row), STUDY_LABEL: row['label']}
