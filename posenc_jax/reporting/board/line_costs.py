"""What training the models of a line takes, relative to the baseline."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from posenc_jax.reporting import costs


class Cost(NamedTuple):
  """What training takes, as ratios to the baseline; None where it is not on disk.

  Attributes:
    parameters: their number.
    step: the seconds of one.
    memory: the temporary bytes of one, as XLA counts them.
  """

  parameters: float | None
  step: float | None
  memory: float | None


def relative_costs(
  spent: Iterable[dict], runs_of: dict[str, set[str]], base: Collection[str]
) -> dict[str, Cost]:
  """{line: its cost}, relative to that of the runs `base`; `runs_of`: the runs of each line."""
  spent = list(spent)
  fields = ('parameters', 'seconds_per_step', 'temporary_bytes')

  def medians(runs):
    some = [row for row in spent if row['run'] in runs]
    return [costs.median(row[field] for row in some) for field in fields]

  of_base = medians(base)
  return {
    line: Cost(*(a / b if a and b else None for a, b in zip(medians(runs), of_base, strict=True)))
    for line, runs in runs_of.items()
  }
