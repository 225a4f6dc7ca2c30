"""The tables of the board: one for each corpus of text, one of what is recalled, one of tasks."""

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable

from posenc_jax.reporting.board import lines as board_lines
from posenc_jax.reporting.board.lines import BASELINE, FAR, MARGIN, Line, multiple
from posenc_jax.reporting.layouts.differences import SMALLEST
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import UNSEEN, collect
from posenc_jax.reporting.table import Cell, RowGroup, Table
from posenc_jax.reporting.tasks import learned

PLANTED = 'planted'
ACCURACY = 'token_accuracy'
UNSTABLE = '~'
SENTENCES = (
  f'Parameters, step time and memory of a step are relative to {BASELINE}, time as the same '
  'machine took it. "At n L": difference from the own score at L, in brackets the 95 % '
  'interval over documents, those of one year or package taken as one; "window of L": that '
  f'with attention windowed at L. "{FAR} L, other text": the score at {FAR} L minus that '
  "where tokens farther back than L from the first target are another document's, the "
  'placebo, which may do harm of its own. Marks are about other seeds: * better, † worse, = '
  f'within 0.01, at L than {BASELINE}, elsewhere than what the column compares with. '
  f'"{SMALLEST}": the smallest difference from {BASELINE} that these seeds mark in four of '
  'five cases, the median over lines. Holds to: the largest length up to which no seed is '
  f'more than {MARGIN:g} bits worse than at L and the interval of the change ends below '
  f'+{MARGIN:g}; ≥: no longer one was evaluated. Verdict: by a fixed rule for each line '
  'alone, of the seeds that it has. "Fails by": the first length at which that interval lies '
  f'above +{MARGIN:g}; "with a window of L": the same two rules at the longest length, said '
  f'of lines that do not hold to it; "uses text past L": every seed gains at {FAR} L, and '
  'that gain, the difference from the placebo and that from the own score with a window of L '
  f'have intervals below 0. {UNSTABLE}: leaving out one seed would change it, or there is one '
  f'alone. Order: by bits at L, those that hold to {FAR} L first. What holds at this scale '
  'need not hold at another.'
)
HEADER = ('parameters', 'step', 'memory', 'bits at L')


def tables(
  rows: Iterable[dict], runs: Iterable[str], costs: Iterable[dict], references: Collection[str] = ()
) -> list[Table]:
  """All tables of the board. Raises UserError where no corpus has rows of `lines.PROTOCOL`.

  `references`: labels of lines that are there to compare others with.
  """
  rows, runs, costs = list(rows), list(runs), list(costs)
  corpora = board_lines.corpora(rows)
  made = [text_table(rows, runs, costs, corpus, references) for corpus in corpora]
  return made + recall_tables(rows, runs, costs) + task_tables(rows, runs)


def text_table(
  rows: list[dict],
  runs: list[str],
  costs: list[dict],
  corpus: str,
  references: Collection[str] = (),
) -> Table:
  """The board of one corpus of text."""
  notes = []
  of_corpus = board_lines.lines(rows, runs, costs, corpus, references, notes)
  L = next((line.train_length for line in of_corpus if not line.is_reference), None)
  past = sorted({length for line in of_corpus for length in line.changes})
  body, records = [], []
  for line in of_corpus:
    verdict = line.verdict
    if not board_lines.is_stable(line, rows, corpus):
      verdict = f'{UNSTABLE} {verdict}'
    body.append(list(_cells(line, past, verdict)))
    records.append(_record(line, corpus, verdict))
  smallest = _smallest_cells(of_corpus, len(past))
  header = [
    'encoding',
    'verdict',
    *HEADER,
    *(f'at {multiple(length, L)}' for length in past),
    f'window of L, at {multiple(past[-1], L)}' if past else 'window of L',
    f'{FAR} L, other text',
    'holds to',
    'seeds',
  ]
  documents = len({row['document'] for row in rows if row['corpus'] == corpus} - {None})
  caption = (
    f'{corpus}: bits per byte of the same targets in {documents} documents at every length, mean ± '
    f'standard deviation over seeds; L = {L}. {SENTENCES}'
  )
  return Table(
    f'Board, {corpus}',
    caption,
    header,
    [RowGroup('', body + smallest)],
    notes,
    is_scored=True,
    records=records,
  )


def _cells(line: Line, past: list[int], verdict: str):
  yield Cell(line.name)
  yield Cell(verdict)
  yield Cell(DASH if line.cost.parameters is None else f'{line.cost.parameters - 1:+.1%}')
  for ratio in (line.cost.step, line.cost.memory):
    yield Cell(DASH if ratio is None else f'{ratio:.2f}')
  spread = f' ± {statistics.stdev(line.own):.3f}' if len(line.own) > 1 else ''
  mark = line.at_L.mark if line.at_L else ''
  yield Cell(DASH if line.mean is None else f'{line.mean:.3f}{spread}', mark=mark)
  for length in past:
    yield _difference(line.changes.get(length))
  # The head of the column names the longest length of all lines.
  yield _difference(line.windowed if past and line.longest == past[-1] else None)
  yield _difference(line.placebo)
  if line.holds_to is None or line.is_reference:
    yield Cell(DASH)
  else:
    at_least = '≥ ' if line.is_longest else ''
    yield Cell(f'{at_least}{multiple(line.holds_to, line.train_length)}')
  yield Cell(str(len(line.seeds)))


def _smallest_cells(of_corpus: list[Line], num_lengths: int) -> list[list[Cell]]:
  """The line with the smallest difference from the baseline that seeds mark, if they mark any.

  Past L single lines are tested with a few degrees of freedom each: a median says little there.
  """
  known = [line.at_L.smallest for line in of_corpus if line.at_L and line.at_L.smallest is not None]
  if not known:
    return []
  at_L = f'{statistics.median(known):.3f}'
  texts = [SMALLEST, '', *[DASH] * 3, at_L, *[DASH] * (num_lengths + 2), '', '']
  return [[*map(Cell, texts)]]


def _difference(difference) -> Cell:
  if difference is None:
    return Cell(DASH)
  text = f'{difference.mean:+.3f}'
  if difference.interval is not None:
    text += ' [{:+.3f}, {:+.3f}]'.format(*difference.interval)
  return Cell(text, mark=difference.mark)


def _record(line: Line, corpus: str, verdict: str) -> dict:
  record = {'board': corpus, 'encoding': line.name, 'seeds': len(line.seeds)}
  record |= {f'relative_{name}': value for name, value in line.cost._asdict().items()}
  record |= {'bits_at_L': line.mean, 'train_length': line.train_length}
  record |= {f'change_at_{length}': some.mean for length, some in line.changes.items()}
  if line.holds_to is not None:
    record |= {'holds_to': line.holds_to, 'fails_by': line.fails_by}
  return record | {'verdict': verdict}


def recall_tables(rows: list[dict], runs: list[str], costs: list[dict]) -> list[Table]:
  """The table of bits a character of planted names by distance in training lengths, in a list; []
  of rows without any.

  Of windows, those that most runs were evaluated with at the longest.
  """
  rows = [row for row in rows if row['protocol'] == PLANTED and row['control'] is None]
  if not rows:
    return []
  longest = {}
  for row in rows:
    longest[row['run']] = max(row['length'], longest.get(row['run'], 0))
  window = statistics.mode(longest.values())
  rows = [row for row in rows if row['length'] == window]
  (scores,) = collect(rows, (), [PLANTED], column_of=lambda row: row['position'])
  L = statistics.mode(row['train_length'] for row in rows)
  bins = defaultdict(list)
  for position in scores.columns:
    bins[_bin(position, L)].append(position)
  onset = defaultdict(list)
  for cost in costs:
    onset[cost['label']].append(cost['onset_tokens'])
  body = []
  for line in scores.lines:
    cells = [_recalled(scores, line, bins[name]) for name in sorted(bins)]
    found = onset[scores.exemplar_row[line]['label']]
    known = [tokens for tokens in found if tokens is not None]
    text = DASH if not known else f'{statistics.median(known) / 1e6:.2f} M'
    if known and len(known) < len(found):
      text += f' ({len(known)} of {len(found)})'
    seeds = str(len(scores.seeds_of(line)))
    body.append([Cell(line), *map(Cell, cells), Cell(text), Cell(seeds)])
  names = [_bin_name(name, L) for name in sorted(bins)]
  caption = (
    'Bits a character of planted names that only an earlier place in the window of '
    f'{window} tokens decides, by the distance to it, mean ± standard deviation over seeds; L = '
    f'{L}. Not to know one costs 5.95 bits; "new": those that nothing decides. Onset: millions of '
    'tokens of training after which validation within L first fell below half of that, the median '
    'of the seeds in which it did.'
  )
  header = ['encoding', *names, 'onset', 'seeds']
  return [Table('Recall of planted names', caption, header, [RowGroup('', body)], scores.notes)]


def _bin(position: int, L: int) -> int:
  """0: new; 1: within L / 2; 2: L / 2 to L; 3: L to 2 L; and so on by doubling."""
  if position == 0:
    return 0
  number = 1
  while position >= L / 2 * 2 ** (number - 1):
    number += 1
  return number


def _bin_name(number: int, L: int) -> str:
  if number < 2:
    return ('new', 'to L / 2')[number]
  ends = (L / 2 * 2 ** (number - 2) / L, L / 2 * 2 ** (number - 1) / L)
  return 'L / 2 to L' if number == 2 else f'{ends[0]:g} to {ends[1]:g} L'


def _recalled(scores, line: str, positions: list[int]) -> str:
  """The score of these positions together; a dash where a seed failed at one of them."""
  values = []
  for seed in scores.seeds_of(line):
    found = [scores.by_seed[line, seed, position] for position in positions]
    if any(score.status not in ('ok', *UNSEEN) for score in found):
      return DASH
    found = [score for score in found if score.status == 'ok']
    if found:
      nats, size = sum(some.nats for some in found), sum(some.bytes for some in found)
      values.append(scores.metric.score(nats, size))
  return scores.metric.text(values)


def task_tables(rows: list[dict], runs: list[str]) -> list[Table]:
  """The table of tasks, in a list; [] of rows without any."""
  rows = learned.mark(rows)
  tasks = sorted({row['protocol'] for row in rows if row['metric'] == ACCURACY})
  if not tasks:
    return []
  cells, names = defaultdict(dict), []
  for task in tasks:
    of_task = [row for row in rows if row['protocol'] == task and row['control'] is None]
    for scores in collect(of_task, (), [task], ACCURACY):
      L = statistics.mode(row['train_length'] for row in scores.exemplar_row.values())
      names.append(f'{task}, learned')
      for line in scores.lines:
        seeds, failed = len(scores.seeds_of(line)), len(scores.unlearned[line])
        cells[line][f'{task}, learned'] = f'{seeds - failed} of {seeds}'
      for length in (length for length in scores.columns if length > L):
        names.append(f'{task} at {multiple(length, L)}')
        for line in scores.lines:
          cells[line][names[-1]] = scores.metric.text(scores.seed_scores(line, length))
  body = [
    [Cell(line), *(Cell(of_line.get(name, DASH)) for name in names)]
    for line, of_line in cells.items()
  ]
  caption = (
    'Tasks: how many seeds have learned one at L, and the share of answers right past it, mean ± '
    'standard deviation over those that have.'
  )
  return [Table('Tasks', caption, ['encoding', *names], [RowGroup('', body)])]
