"""Kazemnejad's form: tasks down, encodings across, beyond the training length; then mean ranks over
tasks.
"""

import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.captions import every, of_seeds
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import Scores, collect, notes_of
from posenc_jax.reporting.significance import ranks as ranked
from posenc_jax.reporting.table import Block, Field, Table, bold, records


def ranks(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'exact_match',
) -> list[Table]:
  """Mean over lengths beyond the training length of each task and encoding; mean and mean
  reciprocal ranks over tasks.

  Kazemnejad et al. 2023, figure 2. A task is a protocol on a corpus. Rank 1 is best, ties share the
  mean of their ranks, and only tasks count that every encoding has a score of.
  """
  found = collect(rows, runs, protocols, metric, controls=False, by_corpus=True)
  metric = found[0].metric
  if metric.best is None:
    raise UserError(f'table: metric={metric.name!r} of ranks; allowed: one with a better end')
  lines = list(dict.fromkeys(line for scores in found for line in scores.lines))
  notes = notes_of(found)
  body, each, of_tasks = [], [], {}
  protocol_of = [scores.protocol for scores in found]
  for scores in found:
    task = scores.protocol if protocol_of.count(scores.protocol) == 1 else scores.title
    by_line = {line: _beyond(scores, line) if line in scores.lines else {} for line in lines}
    values = [list(by_seed.values()) for by_seed in by_line.values()]
    texts = zip(map(metric.text, values), metric.bests(values), strict=True)
    body.append([Field(task), *(Field(text, best) for text, best in texts)])
    each += [
      [task, str(seed), *(metric.text([s[seed]] if seed in s else []) for s in by_line.values())]
      for seed in scores.seeds
    ]
    if without := [line for line, value in zip(lines, values, strict=True) if not value]:
      notes.append(f'{task} is left out of the ranks: no score of {", ".join(without)}')
    else:
      of_tasks[task] = ranked([statistics.fmean(value) for value in values], metric.best)
  seeds = sorted({seed for scores in found for seed in scores.seeds})
  first = [row for scores in found for row in scores.first.values()]
  steps, train_length, corpus = (
    every(row[field] for row in first) for field in ('step', 'train_length', 'corpus')
  )
  caption = (
    f'{metric.title}, mean over the lengths beyond the training length. {of_seeds(seeds)}. Trained for {steps} steps '
    f'at length L = {train_length} on {corpus}; evaluated in float32. Ranks over {len(of_tasks)} tasks, 1 is best. '
    f'{metric.better}hat holds at this scale need not hold at another.{bold(metric, "line")}'
  )
  blocks = [Block('', body), Block(f'over {len(of_tasks)} tasks', _over_tasks(of_tasks, lines))]
  every_line = [('Every seed:', ['task', 'seed', *lines], each)] if len(seeds) > 1 else []
  of_records = [record for scores in found for record in records(scores)]
  title = f'Ranks over tasks, {metric.title.lower()}'
  return [
    Table(title, caption, ['task', *lines], blocks, notes, every=every_line, records=of_records)
  ]


def _beyond(scores: Scores, line: str) -> dict[int, float]:
  """{seed: mean over lengths beyond the training length}; of seeds that have all of them, {} if one
  has an outcome.
  """
  beyond = [length for length in scores.columns if length > scores.first[line]['train_length']]
  if not beyond or not all(scores.of(line, length) for length in beyond):
    return {}
  cells = {seed: [scores.cells[line, seed, length] for length in beyond] for seed in scores.seeds}
  return {
    seed: statistics.fmean(score for cell in some for score in cell.scores(scores.metric))
    for seed, some in cells.items()
    if all(cell.status == 'ok' for cell in some)
  }


def _over_tasks(of_tasks: dict[str, list[float]], lines: list[str]) -> list[list[Field]]:
  if not of_tasks:
    return [[Field('mean rank'), *(Field(DASH) for _ in lines)]]
  by_line = list(zip(*of_tasks.values(), strict=True))
  mean = [statistics.fmean(some) for some in by_line]
  reciprocal = [statistics.fmean(1 / rank for rank in some) for some in by_line]
  return [
    [Field('mean rank'), *(Field(f'{value:.2f}', value == min(mean)) for value in mean)],
    [
      Field('mean reciprocal rank'),
      *(Field(f'{value:.2f}', value == max(reciprocal)) for value in reciprocal),
    ],
  ]
