"""The forms of tables that papers print. A study's `table()` names one and its settings."""

from collections.abc import Iterable

from posenc_jax.reporting.table import Table
from posenc_jax.reporting.table_forms.distances import distances
from posenc_jax.reporting.table_forms.effective_lengths import effective_lengths
from posenc_jax.reporting.table_forms.lengths import lengths
from posenc_jax.reporting.table_forms.methods import methods
from posenc_jax.reporting.table_forms.training_lengths import training_lengths
from posenc_jax.reporting.tasks.learned import mark

FORMS = {
  'lengths': lengths,  # encodings x evaluation lengths
  'distances': distances,  # encodings x distances, of planted names
  'training_lengths': training_lengths,  # ALiBi: training x evaluation length
  'methods': methods,  # PI, YaRN: methods of context extension x evaluation window
  'effective_lengths': effective_lengths,  # encodings: how far each holds; LongScore
}


def make_tables(
  rows: Iterable[dict], runs: Iterable[str] = (), form: str = 'lengths', **settings
) -> list[Table]:
  """The tables of a form (FORMS); `settings` are its own, as `report_settings` has checked them.
  Raises UserError for what rows do not have.
  """
  return FORMS[form](mark(rows), runs, **settings)
