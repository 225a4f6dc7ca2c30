"""The configs behind the rows: what is the same in all of them, and what differs."""

import dataclasses
import json

from ml_collections import ConfigDict

from posenc_jax import config

# runs of one label that differ in no other field that decides results are of one setting
APART = ('seed', 'label')


@dataclasses.dataclass
class Setting:
  """Runs whose configs are equal but for seeds.

  Attributes:
    label, seeds, runs: as rows have them.
    config: of the first of the runs.
    own: {field: value as text} of what is not the same in all settings; a field that a setting
      lacks is not in it.
  """

  label: str
  seeds: list[int]
  runs: list[str]
  config: ConfigDict
  own: dict[str, str]


def settings(
  rows: list[dict], configs: dict[str, ConfigDict]
) -> tuple[list[Setting], dict[str, str]]:
  """Those of the runs that have both, in the order of rows; and {field: value as text} of what all
  have the same.
  """
  labels = {row['run']: row['label'] for row in rows if row['run'] in configs}
  groups, fields = {}, {}
  for run, label in labels.items():
    deciding = {
      field: v for field, v in config.flat(configs[run]).items() if config.decides_results(field)
    }
    flat = {field: json.dumps(v) for field, v in deciding.items() if field not in APART}
    groups.setdefault((label, tuple(sorted(flat.items()))), []).append(run)
    fields.update(dict.fromkeys(flat))
  every = [dict(flat) for _, flat in groups]
  same = {
    field: every[0].get(field) for field in fields if len({flat.get(field) for flat in every}) == 1
  }
  found = []
  for (label, flat), runs in groups.items():
    own = {field: value for field, value in flat if field not in same}
    found.append(
      Setting(label, sorted({configs[run].seed for run in runs}), runs, configs[runs[0]], own)
    )
  return found, same
