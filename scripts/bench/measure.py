"""Runs groups of cases, their repeats interleaved, within a budget of time; writes a row a case."""

import dataclasses
import datetime
import os
import platform
import statistics
from collections import defaultdict
from pathlib import Path
from time import monotonic

from rich.console import Console

from posenc_jax import jsonl_store

from . import memory
from .cases import Case, Group, step_config
from .workers import PATIENCE, Workers

# repeats: beyond the group's share of the time, for a median with spread, enough
LEAST, WANTED, MOST = 2, 3, 15
BEAT = 0.05  # seconds that a repeat should last: shorter calls are repeated inside it


def machine() -> dict:
  """What the rows say of the machine."""
  model = platform.processor() or platform.machine()
  info = Path('/proc/cpuinfo')
  if info.exists():
    model = next(
      (x.partition(':')[2].strip() for x in info.read_text().splitlines() if 'model name' in x),
      model,
    )
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return {'cpu': model, 'cores': cores, 'memory_bytes': memory.total()}


def measure(
  groups: list[Group], out: Path, budget: float, repeats: int, console: Console, workers=Workers
) -> list[dict]:
  """Measures all groups in about `budget` seconds, appends a row a case to `out`/rows.jsonl;
  returns the rows in order.

  Groups take turns by their cost, so that what the time does not reach is the dearest.

  Args:
    repeats: of every case; 0: as many as the time allows, from LEAST to MOST, fewer of slow cases.
      Either way none begins after the budget is spent: a row says how many it has, and what is left
      out.
    workers: what makes the context that prepares and runs the cases of a group.
  """
  date = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  about = machine() | {'date': date, 'budget_seconds': budget}
  end, rows = monotonic() + budget, {}
  order = sorted(range(len(groups)), key=lambda n: groups[n].turn)
  for done, n in enumerate(order):
    group, begin = groups[n], monotonic()
    expected = sum(groups[later].expected_seconds for later in order[done:])
    share = max(0.0, end - begin) * group.expected_seconds / expected
    where = f'{done + 1} of {len(groups)}: {group.section}, {group.title}'
    with workers(out) as processes, console.status(where) as status:
      show = lambda words, where=where, status=status: status.update(f'{where}: {words}')
      run = GroupRun(group, processes, repeats, begin + share, end, show)
      run.prepare()
      run.repeat()
    rows[n] = [about | {'group': group.title} | row for row in run.rows()]
    jsonl_store.append(out / 'rows.jsonl', rows[n])
    measured = sum(row['status'] == 'ok' for row in rows[n])
    words = f'{where}: {measured} of {len(rows[n])} measured in {monotonic() - begin:.0f} s'
    console.print(words, soft_wrap=True)
  return [row for n in sorted(rows) for row in rows[n]]


class GroupRun:
  """One group: what its cases answered so far."""

  def __init__(
    self, group: Group, workers: Workers, repeats: int, share_end: float, end: float, show
  ):
    """`share_end`, `end`: when the group's share of the time and all of it are spent, on the
    monotonic clock.
    """
    self.group, self.workers, self.repeats, self.show = group, workers, repeats, show
    self.share_end, self.end = share_end, end
    self.facts: dict[str, dict] = {}
    self.reasons: dict[str, tuple[str, str]] = {}  # status and one line, of cases that have no time
    self.seconds: dict[str, dict[int, float]] = defaultdict(dict)  # of a call, by round
    self.calls: dict[str, int] = {}

  def prepare(self) -> None:
    # as groups are: the dearest last
    for case in sorted(self.group.cases, key=lambda case: case.expected_seconds):
      self.show(f'preparing {case.name}')
      promised = (self.repeats or LEAST) * sum(
        facts['warm_seconds'] for facts in self.facts.values()
      )
      if self._is_late(case, promised):
        continue
      answer = self.workers.prepare(case, self._patience())
      if 'refused' in answer:
        self.reasons[case.name] = ('refused', answer['refused'])
      else:
        self.facts[case.name] = answer['facts']

  def repeat(self) -> None:
    ready = [case for case in self.group.cases if case.name in self.facts]
    warm = {case.name: max(1e-6, self.facts[case.name]['warm_seconds']) for case in ready}
    self.calls = {name: max(1, round(BEAT / seconds)) for name, seconds in warm.items()}
    share = (self.share_end - monotonic()) / max(1, len(ready))
    wanted = {}
    for name, seconds in warm.items():
      wanted[name] = self.repeats or min(
        MOST, max(WANTED, int(share / (seconds * self.calls[name])))
      )
    for case in ready:  # a ratio needs both of its times
      if case.against in wanted:
        wanted[case.against] = max(wanted[case.against], wanted[case.name])
    for n in range(max(wanted.values(), default=0)):
      if n >= LEAST and not self.repeats and monotonic() > self.share_end:
        return
      for case in ready:
        if n >= wanted[case.name] or case.name in self.reasons or (n and monotonic() > self.end):
          continue
        if self._is_late(case):
          continue
        self.show(f'repeat {n + 1} of {case.name}')
        answer = self.workers.run(case, self.calls[case.name], self._patience())
        if 'refused' in answer:
          self.reasons[case.name] = ('refused', answer['refused'])
          continue
        self.seconds[case.name][n] = answer['seconds'] / self.calls[case.name]
        self.facts[case.name]['peak_bytes'] = answer['peak_bytes']

  def _is_late(self, case: Case, promised: float = 0.0) -> bool:
    """Whether there is no time for a case beside what is promised to others, in seconds; it is left
    out then.
    """
    if monotonic() + promised <= self.end:
      return False
    self.reasons[case.name] = ('left out', 'the time was spent; more: --budget=MINUTES')
    return True

  def _patience(self) -> float:
    return max(PATIENCE, self.end - monotonic())

  def rows(self) -> list[dict]:
    """A row a case, in the group's order."""
    rows = []
    for case in self.group.cases:
      status, reason = self.reasons.get(case.name, ('ok', ''))
      row = {
        **dataclasses.asdict(case),
        'status': status,
        'reason': reason,
        **self.facts.get(case.name, {}),
      }
      rows.append(row | (self._figures(case) if status == 'ok' else {}))
    peaks = [row['gflops'] for row in rows if row['method'] == 'matmul' and row['status'] == 'ok']
    for row in rows:
      if row['status'] == 'ok' and row['section'] == 'attention':
        row['of_peak'] = row['gflops'] / max(peaks) if peaks else None
    return rows

  def _figures(self, case: Case) -> dict:
    mine, other = self.seconds[case.name], self.seconds.get(case.against, {})
    ratios = [seconds / other[n] for n, seconds in mine.items() if n in other]
    median = statistics.median(mine.values())
    figures = {
      'seconds': list(mine.values()),
      'calls': self.calls[case.name],
      **dict(zip(('q1', 'median', 'q3'), quartiles(mine.values()), strict=True)),
      **dict(zip(('ratio_q1', 'ratio', 'ratio_q3'), quartiles(ratios), strict=True)),
    }
    if case.section == 'step':
      seeds = len(step_config(case).seeds) or 1
      return figures | {'tokens_per_second': seeds * case.batch * case.length / median}
    return figures | {'gflops': case.operations / median / 1e9}


def quartiles(values) -> tuple[float | None, float | None, float | None]:
  """Lower quartile, median, upper quartile; None without values."""
  values = list(values)
  if len(values) < 2:
    return tuple(values * 3) if values else (None, None, None)
  return tuple(statistics.quantiles(values, n=4, method='inclusive'))
