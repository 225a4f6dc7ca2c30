"""Kazemnejad's form: tasks down, encodings across, then mean ranks over tasks."""

import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.captions import dtypes, join_unique, seed_caption, training
from posenc_jax.reporting.metrics import Metric
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import UNSEEN, Scores
from posenc_jax.reporting.table import Cell, RowGroup, Table, bold_sentence, records

FEWEST_TASKS = 5  # of ranks: over fewer, one training that failed decides them


def ranks(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'exact_match',
) -> list[Table]:
  """Mean score beyond the training length by task and encoding; mean (reciprocal) ranks over tasks.

  Kazemnejad et al. 2023, figure 2. A task is a protocol on a corpus. Rank 1 is best, ties share the
  mean of their ranks. Ranks are of all seeds, those that have not learned a task among them, or an
  encoding that fails a task would lose nothing; only tasks count that every encoding has a score
  of. There are no ranks over fewer than FEWEST_TASKS.
  """
  found = collect(rows, runs, protocols, metric, controls=False, by_corpus=True)
  metric = found[0].metric
  if metric.best is None:
    raise UserError(f'table: metric={metric.name!r} of ranks; allowed: one with a better end')
  lines = list(dict.fromkeys(line for scores in found for line in scores.lines))
  notes = score_notes.joined(found)
  body, per_seed, ranks_of = [], [], {}
  protocols = [scores.protocol for scores in found]
  for scores in found:
    task = scores.protocol if protocols.count(scores.protocol) == 1 else scores.title
    by_seed = [_beyond(scores, line) for line in lines]
    values = [
      [value for seed, value in means.items() if seed not in scores.unlearned[line]]
      for line, means in zip(lines, by_seed, strict=True)
    ]
    texts = zip(map(metric.text, values), metric.bests(values), strict=True)
    body.append([Cell(task), *(Cell(text, is_best) for text, is_best in texts)])
    for seed in scores.seeds:
      texts = [metric.text([means[seed]] if seed in means else []) for means in by_seed]
      per_seed.append([task, str(seed), *texts])
    if without := [line for line, means in zip(lines, by_seed, strict=True) if not means]:
      notes.append(f'{task} is left out of the ranks: no score of {", ".join(without)}')
    else:
      ranks_of[task] = _ranks([statistics.fmean(some.values()) for some in by_seed], metric)
  seeds = sorted({seed for scores in found for seed in scores.seeds})
  groups, title, ranking = [RowGroup('', body)], 'Scores by task', ''
  over_tasks = f'over {len(ranks_of)} tasks'
  if len(ranks_of) >= FEWEST_TASKS:
    judged = ', of all seeds, those that have not learned a task among them,' * _some_fail(found)
    title, ranking = 'Ranks over tasks', f'Ranks{judged} {over_tasks}, 1 is best. '
    groups.append(RowGroup(over_tasks, _mean_ranks(list(ranks_of.values()))))
  else:
    notes.append(f'no ranks {over_tasks}: they need {FEWEST_TASKS} or more')
  return [
    Table(
      f'{title}, {metric.title.lower()}',
      _caption(found, seeds, ranking),
      ['task', *lines],
      groups,
      notes,
      per_seed=[('Every seed:', ['task', 'seed', *lines], per_seed)] if len(seeds) > 1 else [],
      records=[record for scores in found for record in records(scores)],
    )
  ]


def _caption(found: list[Scores], seeds: list[int], ranking: str) -> str:
  metric = found[0].metric
  rows = [row for scores in found for row in scores.exemplar_row.values()]
  corpus = join_unique(row['corpus'] for row in rows)
  are_several = any(len(scores.train_lengths) > 1 for scores in found)
  beyond = 'beyond all training lengths of a task' if are_several else 'beyond the training length'
  return (
    f'{metric.title}, mean over the lengths {beyond}. '
    f'{seed_caption(seeds, are_learned=_some_fail(found))}. '
    f'{training(found, f" on {corpus}")}; evaluated in {dtypes(rows)}. '
    f'{ranking}{metric.scale_caption}{bold_sentence(metric, "line")}'
  )


def _some_fail(found: list[Scores]) -> bool:
  """Whether a seed has not learned one of the tasks."""
  return any(seeds for scores in found for seeds in scores.unlearned.values())


def _beyond(scores: Scores, line: str) -> dict[int, float]:
  """{seed: mean score over the lengths beyond the training length}, if it has all; of lines with
  several training lengths beyond the largest, so that all are asked the same.

  {} if any seed failed at one of the lengths.
  """
  if line not in scores.exemplar_row:
    return {}
  beyond = [length for length in scores.columns if length > scores.train_lengths[-1]]
  means = {}
  for seed in scores.seeds if beyond else ():
    found = [scores.by_seed[line, seed, length] for length in beyond]
    if any(score.status not in ('ok', *UNSEEN) for score in found):
      return {}
    values = [score.value(scores.metric) for score in found]
    if None not in values:
      means[seed] = statistics.fmean(values)
  return means


def _ranks(values: list[float], metric: Metric) -> list[float]:
  """1 for the best; ties share the mean of their ranks."""
  from scipy import stats  # takes half a second, and most tables have no ranks

  return stats.rankdata(values if metric.best is min else [-value for value in values]).tolist()


def _mean_ranks(ranks_of_tasks: list[list[float]]) -> list[list[Cell]]:
  """The lines 'mean rank' and 'mean reciprocal rank', the best of each bold."""
  by_line = list(zip(*ranks_of_tasks, strict=True))
  mean = [statistics.fmean(line_ranks) for line_ranks in by_line]
  reciprocal = [statistics.fmean(1 / rank for rank in line_ranks) for line_ranks in by_line]
  return [
    [Cell('mean rank'), *(Cell(f'{value:.2f}', value == min(mean)) for value in mean)],
    [
      Cell('mean reciprocal rank'),
      *(Cell(f'{value:.2f}', value == max(reciprocal)) for value in reciprocal),
    ],
  ]
