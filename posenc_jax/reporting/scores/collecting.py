"""The scores of a table out of rows: rows of one measurement are added up, unlike rows never.

A line of a table is the mean and the standard deviation of its seeds' scores. What cannot be
compared gets a line of its own or a dash, and a note names it.
"""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable

from posenc_jax.errors import UserError
from posenc_jax.protocols import BY_DEPTH, POSITIONAL, PROTOCOLS, of_rows
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.metrics import Metric, metric_of
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.line_names import line_names
from posenc_jax.reporting.scores.score import LINE, Scores, SeedScore, scored_on
from posenc_jax.reporting.tasks import learned
from posenc_jax.rows import row_schema
from posenc_jax.tasks import is_task

MOST_SCORES = 2_000_000  # of one table: lines x seeds x columns


def no_score_of_a_length(protocols: Iterable[str]) -> UserError:
  """The error of protocols whose rows are told apart by position alone."""
  allowed = "form='distances', and the figures 'positions' and 'receptive_field'"
  problem = 'told apart by position, which makes no score of a length'
  return UserError(f'rows of {", ".join(protocols)}: {problem}; allowed: {allowed}')


def collect(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  column_of: Callable[[dict], object] = lambda row: row['length'],
  label_of: Callable[[dict], str] = lambda row: row['label'],
  group_fields: tuple[str, ...] = LINE,
  is_expected: Callable[[dict, object], bool] = lambda row, column: True,
  labels: Collection[str] = (),
) -> list[Scores]:
  """The scores of each protocol, each followed by those of its controls.

  Args:
    rows: those of other metrics say which seeds have learned a task, and of how many examples its
      scores are (`learned.mark`).
    runs: the runs that should be there, in the order of lines; other runs follow by name.
    protocols: None: all that rows have, but those told apart by position.
    controls: whether the rows of controls are taken too.
    column_of: the column of a row.
    label_of: the label of a row's line.
    group_fields: where rows of one label differ in these fields, each value gets a line.
    is_expected: whether a line (given by a row of it) is missing in a column without rows.
    labels: those of the lines that are left once all have their names and it is known which scores
      are incomplete; (): all lines.
  Raises:
    UserError: an unknown metric, or no row of these protocols and labels.
  """
  runs, rows = list(runs), learned.mark(rows)
  place_of = {id(row): place for place, row in enumerate(rows)}
  metric = metric_of(metric, rows)
  rank_of_run = {run: index for index, run in enumerate(runs)}
  # Of the runs that should be there, those evaluated by other metrics only are not missing.
  notes = score_notes.of_missing(runs, rows)
  rows = list(filter(metric.matches, rows))
  rank_of_protocol = {name: index for index, name in enumerate(PROTOCOLS)}
  present = {row['protocol'] for row in rows}
  present = sorted(present, key=lambda name: (rank_of_protocol.get(name, len(PROTOCOLS)), name))
  if protocols is None:
    wanted = [name for name in present if name not in POSITIONAL]
    if present and not wanted:
      raise no_score_of_a_length(present)
  else:
    wanted = list(protocols)
  if not set(present) & set(wanted):
    allowed = ', '.join(present) or f'a metric that rows have, not {metric.name}'
    raise UserError(f'no rows of protocols={wanted}; allowed: {allowed}')
  notes += [f'no rows of protocol {protocol}' for protocol in wanted if protocol not in present]
  is_wanted = lambda row: row['protocol'] in wanted and (controls or row['control'] is None)
  wanted_rows = list(filter(is_wanted, rows))
  key_of = {id(row): row_schema.key(row) for row in wanted_rows}
  wanted_rows.sort(key=lambda row: (rank_of_run.get(row['run'], len(runs)), key_of[id(row)]))
  groups = defaultdict(list)
  for row in wanted_rows:
    groups[wanted.index(row['protocol'])].append(row)
  if not groups:
    raise UserError(f'no rows of protocols={wanted} but those of controls; allowed: controls=True')
  asked = [row for row in rows if row['run'] in rank_of_run]
  asked = [row for row in asked if not labels or row['label'] in labels]
  found = {}
  for place, group in groups.items():
    own_notes = list(notes)
    group, number = _drop_repeated(group, key_of, own_notes), len(own_notes)
    # A line has one name under all controls.
    named_by = label_of, group_fields
    names = line_names(group, *named_by, own_notes, lambda row: place_of[id(row)])
    if labels:
      left = [row for row in group if row['label'] in labels]
      own_notes = own_notes[:number]
      line_names(left, *named_by, own_notes)
      own_notes += score_notes.of_labels(labels, left)
    by_control = defaultdict(list)
    for name, row in zip(names, group, strict=True):
      by_control[row['control'] or ''].append((name, row))
    for control, named in by_control.items():
      there = [row for _, row in named]
      corpora = {row['corpus'] for row in there}
      # A run of another corpus, such as another task, is not missing.
      of_corpora = {row['run'] for row in asked if row['corpus'] in corpora}
      what = f'rows of protocol {wanted[place]}{control and f" with control {control}"}'
      lacking = score_notes.of_missing([run for run in runs if run in of_corpora], there, what)
      found[place, control] = _aggregate(
        named, metric, own_notes + lacking, column_of, is_expected, labels
      )
  found = {key: scores for key, scores in found.items() if scores.lines}
  if not found:
    raise UserError(f'no rows of labels={list(labels)} with protocols={wanted}; allowed: others')
  return [found[key] for key in sorted(found)]


def collect_windows(
  rows: Iterable[dict],
  runs: Iterable[str],
  protocol: str,
  metric: str,
  length: int | None,
  column_of: Callable[[dict], object],
  labels: Collection[str] = (),
  controls: bool = True,
) -> tuple[list[Scores], int]:
  """The scores of windows of `length` tokens, None: of the longest that most runs have, of several
  such lengths the largest; and that length. A note of the first scores names what has other windows
  alone.

  `rows` are of this protocol; all else is as for `collect`.
  """
  rows, longest = list(rows), {}
  shown = [row for row in rows if row['label'] in labels] if labels else rows
  for row in shown:
    longest[row['run']] = max(row['length'], longest.get(row['run'], 0))
  if length is None or not shown:  # without any, `collect` raises the error
    number_of = Counter(longest.values())
    length = max(number_of, key=lambda some: (number_of[some], some), default=0)
  kept = [row for row in shown if row['length'] == length]
  lacking = longest.keys() - {row['run'] for row in kept}
  found = collect(
    [row for row in rows if row['length'] == length],
    [run for run in runs if run not in lacking],
    [protocol],
    metric,
    controls,
    column_of=column_of,
    labels=labels,
  )
  there = {row['label'] for row in kept}
  names = {
    row['label'] if row['label'] not in there else f'{row["label"]} seed {row["seed"]}'
    for row in shown
    if row['run'] in lacking
  }
  if names:
    found[0].notes.append(f'no {protocol} in windows of {length} tokens: {join_unique(names)}')
  return found, length


def check_depths(what: str, protocol: str, others: Collection[str] = ()) -> None:
  """Raises `UserError` where the positions of a protocol's rows are no depths of what is asked for:
  several things are asked for, or positions are something else.

  Args:
    what: what is made of the rows, a 'table' or a 'figure'.
    others: further protocols that are allowed.
  """
  if protocol not in others and not of_rows(protocol).is_by_depth:
    allowed = ', '.join([*others, *BY_DEPTH])
    raise UserError(
      f'{what}: protocol={protocol!r} has no one depth; allowed: {allowed}, or a task with a depth'
    )


def _aggregate(
  named_rows: list[tuple[str, dict]],
  metric: Metric,
  notes: list[str],
  column_of: Callable,
  is_expected: Callable,
  labels: Collection[str],
) -> Scores:
  """The scores of (line, row) of one protocol and control, of these labels alone where there are
  some; `notes` and its own are its notes.
  """
  groups, rows_of = defaultdict(list), defaultdict(list)
  for line, row in named_rows:
    groups[line, row['seed'], column_of(row)].append(row)
    rows_of[line].append(row)
  known = {line: learned.known_seeds(some) for line, some in rows_of.items()}
  _, first = named_rows[0]
  scores = Scores(
    protocol=first['protocol'],
    control=first['control'],
    metric=metric,
    columns=sorted({column for _, _, column in groups}),
    seeds=sorted({seed for _, seed, _ in groups}),
    by_seed={},
    exemplar_row={line: some[0] for line, some in rows_of.items()},
    runs_of={line: {row['run'] for row in some} for line, some in rows_of.items()},
    unlearned={
      line: {seed: some for seed, some in by_seed.items() if not some.is_learned}
      for line, by_seed in known.items()
    },
    notes=notes,
  )
  sizes = len(scores.lines), len(scores.seeds), len(scores.columns)
  if math.prod(sizes) > MOST_SCORES:
    raise UserError(
      f'{scores.title}: {" x ".join(map(str, sizes))} lines, seeds and columns; '
      f'allowed: at most {MOST_SCORES} scores'
    )
  for place in itertools.product(scores.lines, scores.seeds, scores.columns):
    scores.by_seed[place] = _seed_score(groups[place])
  _mark_incomplete(scores)
  if labels:
    scores = _of_labels(scores, labels)
  notes += score_notes.of_statuses(scores, is_expected)
  number_of = {line: len(scores.seeds_of(line)) for line in scores.lines}
  notes += learned.note({line: known[line] for line in scores.lines}, number_of)
  of_tasks = [line for line in scores.lines if is_task(scores.exemplar_row[line]['corpus'])]
  notes += learned.note_of_unknown(of_tasks, known)
  return scores


def _of_labels(scores: Scores, labels: Collection[str]) -> Scores:
  """The scores of the lines of these labels, with the seeds and columns that they have."""
  lines = [line for line, row in scores.exemplar_row.items() if row['label'] in labels]
  of_lines = lambda by_line: {line: by_line[line] for line in lines}
  present = [
    place
    for place, score in scores.by_seed.items()
    if place[0] in lines and score.status != 'missing'
  ]
  seeds, columns = (sorted({place[i] for place in present}) for i in (1, 2))
  return dataclasses.replace(
    scores,
    columns=columns,
    seeds=seeds,
    by_seed={p: scores.by_seed[p] for p in itertools.product(lines, seeds, columns)},
    exemplar_row=of_lines(scores.exemplar_row),
    runs_of=of_lines(scores.runs_of),
    unlearned=of_lines(scores.unlearned),
  )


def _mark_incomplete(scores: Scores) -> None:
  """A score of fewer tokens than another seed or line scored on the same is not shown, unless their
  tokenizers are others: they may be with imported models of several sources.
  """
  scored = {
    line: (scored_on(row), row.get(row_schema.SOURCE), row.get(row_schema.TOKENIZER))
    for line, row in scores.exemplar_row.items()
  }
  whole = defaultdict(int)
  for (line, _, column), score in scores.by_seed.items():
    whole[scored[line], column] = max(whole[scored[line], column], score.amount)
  for place, score in scores.by_seed.items():
    line, _, column = place
    if score.status == 'ok' and score.amount < whole[scored[line], column]:
      scores.by_seed[place] = SeedScore('incomplete')


def _drop_repeated(rows: list[dict], key_of: dict[int, str], notes: list[str]) -> list[dict]:
  """The rows without those whose key, {id of a row: key}, an earlier one has."""
  first, repeated = {}, []
  for row in rows:
    if first.setdefault(key_of[id(row)], row) is not row:
      repeated.append(row['run'])
  if repeated:
    notes.append(
      f'{len(repeated)} rows repeat a key, only the first of each counts: {join_unique(repeated)}'
    )
  return list(first.values())


def _seed_score(rows: list[dict]) -> SeedScore:
  if not rows:
    return SeedScore('missing')
  scored = row_schema.without_empty(rows)
  failures = [row['status'] for row in scored if row['status'] != 'ok']
  if failures:
    return SeedScore(failures[0])
  empty = {row['document'] for row in rows if row['status'] != 'ok'} - {None}
  return SeedScore('ok', tuple(scored), tuple(empty))
