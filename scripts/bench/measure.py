"""Runs groups of cases within a budget of time, with interleaved repeats, and writes their rows."""

import dataclasses
import datetime
import os
import statistics
from collections import defaultdict
from pathlib import Path
from time import monotonic

import numpy as np
from rich.console import Console

from posenc_jax import storage
from posenc_jax.rows import sessions

from . import memory
from .cases import TOLERANCE, Case, Group, step_config
from .workers import MIN_TIMEOUT, Workers

MIN_REPEATS = 2  # also made when the group's share of the time is spent
WANTED_REPEATS = 3  # for a median with quartiles
MAX_REPEATS = 15
MIN_REPEAT_SECONDS = 0.05  # a repeat makes as many calls as this takes


def machine() -> dict:
  """The fields of a row that describe the machine."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return {'cpu': sessions.processor(), 'cores': cores, 'memory_bytes': memory.total()}


def measure(
  groups: list[Group], out: Path, budget: float, repeats: int, console: Console, workers=Workers
) -> list[dict]:
  """Measures all groups in about `budget` seconds, appends the rows to `out`/rows.jsonl and returns
  them in order.

  Cheap groups come first, so that the most expensive are left out when the time is spent.

  Args:
    repeats: of every case. 0: as many as the time allows, from MIN_REPEATS to MAX_REPEATS, fewer of
      slow cases. No repeat begins after the budget is spent. A row says how many there were.
    workers: makes the context that prepares and runs the cases of a group.
  """
  date = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  shared_fields = machine() | {'date': date, 'budget_seconds': budget}
  end = monotonic() + budget
  rows = {}
  order = sorted(range(len(groups)), key=lambda n: groups[n].cost_order)
  for done, n in enumerate(order):
    group, begin = groups[n], monotonic()
    expected = sum(groups[later].expected_seconds for later in order[done:])
    share = max(0.0, end - begin) * group.expected_seconds / expected
    title = f'{done + 1} of {len(groups)}: {group.section}, {group.title}'
    with workers(out) as processes, console.status(title) as status:
      run = GroupRun(group, processes, repeats, begin + share, end, title, status)
      run.prepare()
      run.compare_nats()
      run.repeat()
    rows[n] = [shared_fields | {'group': group.title} | row for row in run.rows()]
    storage.append_rows(out / 'rows.jsonl', rows[n])
    measured = sum(row['status'] == 'ok' for row in rows[n])
    seconds = monotonic() - begin
    console.print(
      f'{title}: {measured} of {len(rows[n])} measured in {seconds:.0f} s', soft_wrap=True
    )
  return [row for n in sorted(rows) for row in rows[n]]


class GroupRun:
  """Measures one group and keeps what its cases answered."""

  def __init__(
    self, group: Group, workers, repeats: int, share_end: float, end: float, title, status
  ):
    """`share_end` and `end` are times of the monotonic clock: when the group's share of the budget
    is spent, and when all of it is.
    """
    self.group, self.workers, self.repeats = group, workers, repeats
    self.share_end, self.end = share_end, end
    self.title, self.status = title, status
    self.facts: dict[str, dict] = {}  # of cases that are prepared
    self.failures: dict[str, tuple[str, str]] = {}  # (status, reason) of cases that have no time
    self.seconds: dict[str, dict[int, float]] = defaultdict(dict)  # of one call, by repeat
    self.calls: dict[str, int] = {}  # in each repeat

  def prepare(self) -> None:
    """Prepares the cheap cases first, and the others if the time lasts for their repeats."""
    for case in sorted(self.group.cases, key=lambda case: case.expected_seconds):
      self.status.update(f'{self.title}: preparing {case.name}')
      of_all_prepared = sum(facts['warm_seconds'] for facts in self.facts.values())
      if self._is_too_late(case, (self.repeats or MIN_REPEATS) * of_all_prepared):
        continue
      answer = self.workers.prepare(case, self._timeout())
      if 'refused' in answer:
        self.failures[case.name] = ('refused', answer['refused'])
      else:
        self.facts[case.name] = answer['facts']

  def compare_nats(self) -> None:
    """Refuses all cases of an evaluation unless they have the same nats as their baseline."""
    if self.group.section != 'evaluation':
      return
    nats = {name: facts.pop('nats') for name, facts in self.facts.items()}
    if missing := [case.name for case in self.group.cases if case.name not in nats]:
      reason = f'not compared with {missing[0]}, which gave no nats'
      self.failures |= dict.fromkeys(nats, ('refused', reason))
      return
    for case in self.group.cases:
      own_T, wanted_T = nats[case.name], nats[case.baseline]
      apart = float(np.abs(own_T - wanted_T).mean() / wanted_T.mean())
      if apart <= TOLERANCE[case.dtype]:
        self.facts[case.name] |= {'nats': float(own_T.mean()), 'nats_apart': apart}
      else:  # also of NaN, which no row can hold
        problem = f'nats of a token differ from those of {case.baseline} by {apart:.2g} of these'
        reason = f'{case.name}: {problem} in the mean; allowed: {TOLERANCE[case.dtype]:g}'
        self.failures |= dict.fromkeys(nats, ('refused', reason))

  def repeat(self) -> None:
    """Runs all prepared cases in turn, as often as the group's share of the time allows."""
    ready = [case for case in self.group.cases if case.name in self.facts]
    wanted = self._wanted_repeats(ready)
    for n in range(max(wanted.values(), default=0)):
      if n >= MIN_REPEATS and not self.repeats and monotonic() > self.share_end:
        return
      for case in ready:
        if n < wanted[case.name] and case.name not in self.failures:
          self._run(case, n)

  def _wanted_repeats(self, ready: list[Case]) -> dict[str, int]:
    """The number of repeats of each case; sets the number of calls in one of them."""
    share = (self.share_end - monotonic()) / max(1, len(ready))
    wanted = {}
    for case in ready:
      seconds = max(1e-6, self.facts[case.name]['warm_seconds'])
      self.calls[case.name] = max(1, round(MIN_REPEAT_SECONDS / seconds))
      in_share = int(share / (seconds * self.calls[case.name]))
      wanted[case.name] = self.repeats or min(MAX_REPEATS, max(WANTED_REPEATS, in_share))
    for case in ready:  # a ratio needs the time of the baseline in the same repeat
      if case.baseline in wanted:
        wanted[case.baseline] = max(wanted[case.baseline], wanted[case.name])
    return wanted

  def _run(self, case: Case, n: int) -> None:
    """Repeat number `n` of a case, unless the budget is spent."""
    if (n and monotonic() > self.end) or self._is_too_late(case):
      return
    self.status.update(f'{self.title}: repeat {n + 1} of {case.name}')
    answer = self.workers.run(case, self.calls[case.name], self._timeout())
    if 'refused' in answer:
      self.failures[case.name] = ('refused', answer['refused'])
      return
    self.seconds[case.name][n] = answer['seconds'] / self.calls[case.name]
    self.facts[case.name]['peak_bytes'] = answer['peak_bytes']

  def _is_too_late(self, case: Case, reserved: float = 0.0) -> bool:
    """Leaves the case out, and returns True, if less than the `reserved` seconds remain."""
    if monotonic() + reserved <= self.end:
      return False
    self.failures[case.name] = ('left out', 'the time was spent; more: --budget=MINUTES')
    return True

  def _timeout(self) -> float:
    return max(MIN_TIMEOUT, self.end - monotonic())

  def rows(self) -> list[dict]:
    """One row for each case, in the group's order."""
    rows = []
    for case in self.group.cases:
      status, reason = self.failures.get(case.name, ('ok', ''))
      row = dataclasses.asdict(case) | {'status': status, 'reason': reason}
      row |= self.facts.get(case.name, {})
      rows.append(row | (self._statistics(case) if status == 'ok' else {}))
    measured = [row for row in rows if row['status'] == 'ok']
    peaks = [row['gflops'] for row in measured if row['method'] == 'matmul']
    # The same step in PyTorch has as many operations, on the same device.
    of_steps = {row['encoding']: row for row in measured if row.get('device_flops')}
    for row in measured:
      row['of_peak'] = None
      if row['section'] == 'attention':
        row['of_peak'] = row['gflops'] / max(peaks) if peaks else None
      elif row['encoding'] in of_steps:
        step = of_steps[row['encoding']]
        row['of_peak'] = step['operations'] / row['median'] / step['device_flops']
    return rows

  def _statistics(self, case: Case) -> dict:
    """Times, ratios and speed of a case that was measured."""
    seconds = self.seconds[case.name]
    of_baseline = self.seconds.get(case.baseline, {})
    ratios = [seconds[n] / of_baseline[n] for n in seconds if n in of_baseline]
    row = {
      'seconds': list(seconds.values()),
      'calls': self.calls[case.name],
      **dict(zip(('q1', 'median', 'q3'), quartiles(seconds.values()), strict=True)),
      **dict(zip(('ratio_q1', 'ratio', 'ratio_q3'), quartiles(ratios), strict=True)),
    }
    if case.section != 'attention':
      seeds = (len(step_config(case).seeds) or 1) if case.section == 'step' else 1
      return row | {'tokens_per_second': seeds * case.batch * case.length / row['median']}
    operations = self.facts[case.name].get('operations', case.operations)
    return row | {'gflops': operations / row['median'] / 1e9}


def quartiles(values) -> tuple[float | None, float | None, float | None]:
  """Lower quartile, median, upper quartile; None without values."""
  values = list(values)
  if len(values) < 2:
    return tuple(values * 3) if values else (None, None, None)
  return tuple(statistics.quantiles(values, n=4, method='inclusive'))
