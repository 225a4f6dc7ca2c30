"""KERPLE's form (its table 1): evaluation lengths down, encodings across."""

from collections.abc import Iterable

from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.comparisons.difference_tables import difference_tables
from posenc_jax.reporting.metrics import MARGIN
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.table import (
  Cell,
  RowGroup,
  Table,
  bold_sentence,
  cells,
  error_sentence,
  header,
  per_seed_tables,
  records,
)
from posenc_jax.reporting.table_forms.published import published


def columns(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  baseline: str | dict[str, str] | None = None,
  margin: float = MARGIN,
  by: str = 'protocol',
  reference: Iterable[dict] = (),
) -> list[Table]:
  """One table with a group of lines for each `by`, 'protocol' or 'corpus'; then comparisons."""
  found = collect(rows, runs, protocols, metric, by_corpus=by == 'corpus')
  found.sort(key=lambda scores: scores.corpus or '')
  compared = compare_all(found, controls, baseline, margin)
  found = [comparison.scores for comparison in compared]
  lines = list(dict.fromkeys(line for scores in found for line in scores.lines))
  groups = []
  for scores in found:
    of_lengths = zip(*cells(scores, lines), strict=True)
    names = map(Cell, header(scores))
    body = [[name, *some] for name, some in zip(names, of_lengths, strict=True)]
    groups.append(RowGroup(scores.title, body))
  table = Table(
    f'Extrapolation by {by}',
    caption(*found) + bold_sentence(found[0].metric, 'line', *found) + error_sentence(*found),
    ['length', *lines],
    groups,
    score_notes.joined(found),
    per_seed=[table for scores in found for table in per_seed_tables(scores, scores.title)],
    records=[record for scores in found for record in records(scores)],
  )
  differences = [table for comparison in compared for table in difference_tables(comparison)]
  return [table, *differences, *published(reference)]
