"""The short form of scripts/maintenance/damage.py: some files damaged, and what comes of each."""

import subprocess
import sys

import pytest

from posenc_jax.errors import UserError
from posenc_jax.storage import REPOSITORY
from scripts.maintenance import damage


def test_how_many_trials_there_can_be(tmp_path, monkeypatch):
  """A number below 0 is refused before a run is trained; of more than there are all are tried."""
  tried = []
  for name in ('respect_permissions', 'results', 'print_counts'):
    monkeypatch.setattr(damage, name, lambda *_: None)
  monkeypatch.setattr(
    damage, 'make_runs', lambda *runs: [run.mkdir(parents=True) for run in runs[:2]]
  )
  monkeypatch.setattr(damage, 'trial', lambda *which: tried.append(which[:3]) or ('equal', ''))
  with pytest.raises(UserError, match='--trials=-1; allowed: 0 or more'):
    damage.main([f'--out={tmp_path / "out"}', '--trials=-1'])
  assert not (tmp_path / 'out').exists()
  damage.main([f'--out={tmp_path / "out"}', '--trials=1000'])
  assert len({*tried}) == len(tried) == 4 * len(damage.kinds_for(tmp_path))


@pytest.mark.slow  # a run is trained for one damage; tests of what is read have the others
def test_no_damage_ends_in_a_traceback_or_in_a_silent_loss(tmp_path):
  script = [sys.executable, str(REPOSITORY / 'scripts' / 'maintenance' / 'damage.py')]
  command = [*script, f'--out={tmp_path / "out"}', '--trials=1', '--seed=7']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  lines = [line.split() for line in done.stdout.splitlines()]
  start = next(i for i, line in enumerate(lines) if line[:2] == ['damage', 'tried'])
  outcomes = lines[start][2:]
  # Which of these occur in one trial depends on how checkpoints name their files.
  assert {*outcomes} <= {'equal', 'refused', 'said'}
  counts = [list(map(int, line[-len(outcomes) - 1 :])) for line in lines[start + 1 :]]
  assert sum(tried for tried, *_ in counts) == 1
  assert all(tried == sum(of_outcomes) for tried, *of_outcomes in counts)
