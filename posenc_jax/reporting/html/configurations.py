"""The configs behind the rows: what is the same in all of them, and what differs."""

import dataclasses
import json
from collections import defaultdict
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import config
from posenc_jax.reporting.row_files import START, UNLIKE_SEEDS, without_draws, without_seed

# Runs of one label that differ only in these fields are of one configuration.
IGNORED = (*UNLIKE_SEEDS, 'label')


@dataclasses.dataclass
class Configuration:
  """Runs of one label whose configs are equal but for their seeds.

  Attributes:
    config: the config of the first of the runs.
    own: {field: value as text} of the fields that are not the same in all configurations and that
      this one has.
  """

  label: str
  seeds: list[int]
  config: ConfigDict
  own: dict[str, str]


def configurations(
  rows: list[dict], configs: dict[str, ConfigDict]
) -> tuple[list[Configuration], dict[str, str]]:
  """The configurations of the runs that have rows and a config, in the order of rows.

  Returns:
    The configurations, and {field: value as text} of the fields that are the same in all.
  """
  labels = {row['run']: row['label'] for row in rows if row['run'] in configs}
  runs_of = defaultdict(list)
  for run, label in labels.items():
    fields = tuple(sorted(_fields_of_configuration(configs[run]).items()))
    runs_of[label, fields].append(run)
  values = defaultdict(list)
  for _, fields in runs_of:
    for field, value in fields:
      values[field].append(value)
  same = {
    field: some[0]
    for field, some in values.items()
    if len(some) == len(runs_of) and len(set(some)) == 1
  }
  found = []
  for (label, fields), runs in runs_of.items():
    own = {field: value for field, value in fields if field not in same}
    seeds = sorted({configs[run].seed for run in runs})
    found.append(Configuration(label, seeds, configs[runs[0]], own))
  return found, same


def _fields_of_configuration(c: ConfigDict) -> dict[str, str]:
  """{field: value as text} of the fields that decide what a run's results are, but for its seed."""
  fields = without_draws(config.flat(c))
  if start := fields.get(START):
    fields[START] = without_seed(Path(str(start)).name)
  return {
    field: json.dumps(value)
    for field, value in fields.items()
    if config.decides_results(field) and field not in IGNORED
  }
