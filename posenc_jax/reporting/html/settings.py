"""The configs behind the rows: what is the same in all of them, and what differs."""

import dataclasses
import json
from collections import defaultdict

from ml_collections import ConfigDict

from posenc_jax import config

# Runs of one label that differ only in these fields have one setting.
IGNORED = ('seed', 'label')


@dataclasses.dataclass
class Setting:
  """Runs of one label whose configs are equal but for their seeds.

  Attributes:
    config: the config of the first of the runs.
    own: {field: value as text} of the fields that are not the same in all settings and that this
      one has.
  """

  label: str
  seeds: list[int]
  config: ConfigDict
  own: dict[str, str]


def settings(
  rows: list[dict], configs: dict[str, ConfigDict]
) -> tuple[list[Setting], dict[str, str]]:
  """The settings of the runs that have rows and a config, in the order of rows.

  Returns:
    The settings, and {field: value as text} of the fields that are the same in all.
  """
  labels = {row['run']: row['label'] for row in rows if row['run'] in configs}
  runs_of = defaultdict(list)
  for run, label in labels.items():
    fields = tuple(sorted(_deciding_fields(configs[run]).items()))
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
    found.append(Setting(label, seeds, configs[runs[0]], own))
  return found, same


def _deciding_fields(c: ConfigDict) -> dict[str, str]:
  """{field: value as text} of the fields that decide what a run's results are."""
  return {
    field: json.dumps(value)
    for field, value in config.flat(c).items()
    if config.decides_results(field) and field not in IGNORED
  }
