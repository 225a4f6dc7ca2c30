"""The table of what is recalled of planted names, by how far back they stand."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from posenc_jax.protocols import PLANTED, WINDOWED
from posenc_jax.reporting.board import lines as board_lines
from posenc_jax.reporting.board.smallest import (
  SMALLEST_BETWEEN,
  SMALLEST_SHOWN,
  fewest_text,
  smallest_line,
  smallest_text,
)
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import UNSEEN, Scores
from posenc_jax.reporting.series import multiple_of
from posenc_jax.reporting.table import Cell, RowGroup, Table

# Bits a character, of the 5.95 of a name that is not known: fewer than a model can reach that finds
# where the name stood before by one letter alone (LOG/136).
EXACT_BITS = 0.3
ONSET_FORM = '{:.2f} M'  # of millions of tokens
# Which windows the groups of recall are of.
GROUPS = (
  'Windows of L are those of training, of lines trained at L; longer ones show what is recalled '
  'past L, but where they break an encoding nothing, not even from within L; with attention '
  'windowed at the training length of each model they show what it recalls then.'
)


def recall_tables(rows: list[dict], costs: list[dict], order: Sequence[str] = ()) -> list[Table]:
  """The table of bits a character of planted names by distance in training lengths, in a list; []
  of rows without any.

  A group of windows of L, one of those that most runs were evaluated with at the longest, and one
  of these with attention windowed at L. `order`: names of lines, which stand so; others follow.
  """
  # without those of the text between names
  rows = [row for row in rows if row['protocol'] == PLANTED and row['position'] is not None]
  plain = [row for row in rows if row['control'] is None]
  if not plain:
    return []
  longest = {}
  for row in plain:
    longest[row['run']] = max(row['length'], longest.get(row['run'], 0))
  window = statistics.mode(longest.values())
  L = board_lines.usual_length(plain)
  far = f'Windows of {multiple_of(window, L)}'
  wanted = {'Windows of L': (L, None), far: (window, None)}
  if window > L:
    wanted[f'{far}, attention windowed at L'] = (window, WINDOWED)
  found = {}
  for name, which in wanted.items():
    if some := [row for row in rows if (row['length'], row['control']) == which]:
      (found[name],) = collect(some, (), [PLANTED], column_of=lambda row: row['position'])
  bins = defaultdict(list)
  for position in sorted({place for scores in found.values() for place in scores.columns}):
    bins[_bin(position, L)].append(position)
  rank = {name: place for place, name in enumerate(order)}
  groups = []
  for name, scores in found.items():
    lines = sorted(scores.lines, key=lambda line: rank.get(line, len(rank)))
    groups.append(RowGroup(name, _body(scores, lines, bins, costs, L)))
  names = [_bin_name(name) for name in sorted(bins)]
  caption = (
    'Bits a character of planted names that only an earlier place in the window decides, by the '
    f'distance to it, mean ± standard deviation over seeds; L = {L}. {GROUPS} Not to know one '
    'costs 5.95 bits; "new": those that nothing decides. Onset: millions of tokens of training '
    'after which validation within L first fell below half of that, the median of the seeds in '
    f'which it did, of lines trained at L. Exact: how many seeds have at most {EXACT_BITS:g} bits '
    'for names within L / 2.'
  )
  if L & (L - 1):  # rows tell distances by powers of two
    caption += ' Each distance stands for all from it to its double.'
  header = ['encoding', *names, 'onset', 'exact', 'seeds']
  notes = score_notes.joined(found)
  if any(group.lines[-1][0].text == SMALLEST_SHOWN for group in groups):
    notes = [SMALLEST_BETWEEN, *notes]
  return [Table('Recall of planted names', caption, header, groups, notes)]


def _body(
  scores: Scores, lines: list[str], bins: dict[int, list[int]], costs: list[dict], L: int
) -> list[list[Cell]]:
  """A line of cells for each line of scores, and one with the smallest differences."""
  recalled = {
    line: {number: _recalled(scores, line, bins[number]) for number in sorted(bins)}
    for line in lines
  }
  # models of another training length were asked for names in other windows while they trained
  of_L = [line for line in lines if scores.exemplar_row[line]['train_length'] == L]
  onsets = {
    line: [cost['onset_tokens'] for cost in costs if cost['run'] in scores.runs_of[line]]
    for line in of_L
  }
  body = [_cells(scores, line, recalled[line], onsets.get(line, [])) for line in lines]
  smallest = [
    smallest_text(
      [of_line[number] for of_line in recalled.values() if of_line[number]], scores.metric.form
    )
    for number in sorted(bins)
  ]
  smallest.append(DASH)  # the column of onsets has medians, of the seeds that have one
  seeds = [len(of_line[1]) for of_line in recalled.values() if of_line.get(1)]
  smallest.append(fewest_text(seeds))
  return body + smallest_line([*smallest, ''])


def _cells(
  scores: Scores, line: str, values: dict[int, list[float] | None], onsets: list[int | None]
) -> list[Cell]:
  """The cells of one line: `values`: {bin: what each seed recalls}, `onsets`: of each run."""
  texts = [DASH if some is None else scores.metric.text(some) for some in values.values()]
  near = values.get(1)
  exact = DASH if not near else str(sum(value <= EXACT_BITS for value in near))
  return [*map(Cell, (line, *texts, _onset(onsets), exact, str(len(scores.seeds_of(line)))))]


def _onset(found: list[int | None]) -> str:
  """When the runs of a line began to recall."""
  known = [tokens for tokens in found if tokens is not None]
  if not known:
    return DASH
  count = f' ({len(known)} of {len(found)})' if len(known) < len(found) else ''
  return ONSET_FORM.format(statistics.median(known) / 1e6) + count


def _bin(position: int, L: int) -> int:
  """0: new; 1: within L / 2; 2: L / 2 to L; 3: L to 2 L; and so on by doubling."""
  return position and (2 * position // L).bit_length() + 1


def _bin_name(number: int) -> str:
  if number < 3:
    return ('new', 'to L / 2', 'L / 2 to L')[number]
  return f'{2 ** (number - 3)} to {2 ** (number - 2)} L'


def _recalled(scores: Scores, line: str, positions: list[int]) -> list[float] | None:
  """The score of these positions together, of each seed; None where one failed at one of them."""
  values = []
  for seed in scores.seeds_of(line):
    found = [scores.by_seed[line, seed, place] for place in positions if place in scores.columns]
    if any(score.status not in ('ok', *UNSEEN) for score in found):
      return None
    found = [score for score in found if score.status == 'ok']
    if found:
      nats, size = sum(some.nats for some in found), sum(some.bytes for some in found)
      values.append(scores.metric.score(nats, size))
  return values
