"""The sentences of captions: protocol, control, seeds, training, and how much was scored."""

from collections import Counter
from collections.abc import Iterable

from posenc_jax.protocols import caption_words
from posenc_jax.reporting.metrics import SCALE
from posenc_jax.rows.row_schema import DTYPE, FULL, SOURCE

MEANS = 'Mean ± standard deviation over {}'
# What has to exceed a bound lies a little too high at L, where no other examples tell it.
CHOSEN = ' The examples scored at L also decide which have learned.'


def caption(*scores, drawn: str = MEANS, are_scores: bool = True) -> str:
  """The caption of `scores.Scores`: what was measured, how, on what, which seeds.

  Args:
    drawn: what is shown of several seeds, which stand in the place of its '{}'.
    are_scores: whether numbers are by the metric, which says what is better.
  """
  rows = [row for group in scores for row in group.exemplar_row.values()]
  metric = scores[0].metric
  seeds = sorted({seed for group in scores for seed in group.seeds})
  are_learned = any(unlearned for group in scores for unlearned in group.unlearned.values())
  return (
    f'{metric.title}; {_join_sentences(map(_protocol, scores))}. '
    f'{_seed_caption(seeds, drawn, are_learned)}.{CHOSEN * are_learned} '
    f'{_training(scores)}; evaluated in {_dtypes(rows)}. '
    f'{_join_sentences(map(_amount_scored, scores))}. '
    f'{metric.scale_caption if are_scores else SCALE.capitalize()}'
  )


def _training(scores: Iterable) -> str:
  """The beginning of a sentence on how the lines of these scores were trained: 'Trained for 600
  steps at length L = 128'. Step 0 is no training: lines of it are imported models, or have the
  parameters of other runs.
  """
  rows_of = {}
  for group in scores:
    for line, row in group.exemplar_row.items():
      rows_of.setdefault(line, []).append(row)
  every = [row for rows in rows_of.values() for row in rows]
  steps = join_unique(row['step'] for row in every if row['step'])
  train_length = join_unique(row['train_length'] for row in every)
  at_length = f'at length L = {train_length}'
  words = lambda row: 'of imported models' if SOURCE in row else 'with the parameters of other runs'
  kinds = Counter(
    kind
    for rows in rows_of.values()
    for kind in sorted({words(row) for row in rows if not row['step']})
  )
  if not kinds:
    return f'Trained for {steps} steps {at_length}'
  if not steps:
    return f'Lines {" and ".join(sorted(kinds))}, not trained here; L = {train_length}'
  others = ' and '.join(
    f'{number} line{"s" * (number > 1)} {kind}' for kind, number in sorted(kinds.items())
  )
  return f'Trained for {steps} steps {at_length}, but for {others}'


def _dtypes(rows: Iterable[dict]) -> str:
  """The dtypes of activations in evaluation."""
  return join_unique(row.get(DTYPE, FULL) for row in rows)


def _protocol(scores) -> str:
  rows = scores.exemplar_row.values()
  values = {name: join_unique(row[name] for row in rows) for name in ('k', 'stride', 'length')}
  is_likelihood = bool(scores.metric.denominator)
  return caption_words(scores.protocol, scores.control, is_likelihood, **values)


def _amount_scored(scores) -> str:
  rows = scores.exemplar_row.values()
  corpus, split = (join_unique(row[name] for row in rows) for name in ('corpus', 'split'))
  scored = [score for score in scores.by_seed.values() if score.status == 'ok']
  counts, for_all = [], ''
  if scores.metric.denominator:
    counts.append(f'{join_unique(f"{score.tokens:,}" for score in scored)} tokens')
  elif examples := examples_scored(scores):
    counts.append(examples)
    for_all = ', the same for all lines' * (len(scores.lines) > 1 and scores.has_same_tokens)
  if any(score.documents for score in scored):
    counts.append(f'{join_unique(score.documents for score in scored)} documents')
  return f'{corpus}, {split} split{": " if counts else ""}{" of ".join(counts)}{for_all}'


def examples_scored(scores) -> str:
  """'each score of 220 examples' of a task; '' where their number is not known."""
  numbers = {score.examples for score in scores.by_seed.values() if score.status == 'ok'}
  return f'each score of {join_unique(numbers)} examples' if numbers and None not in numbers else ''


def _join_sentences(texts: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(texts))


def _seed_caption(seeds: list[int], drawn: str = MEANS, are_learned: bool = False) -> str:
  """'Seed 0', or 'Mean ± standard deviation over seeds 0, 1'.

  `are_learned`: whether seeds that have not learned are left out.
  """
  if len(seeds) < 2:
    return f'Seed {join_unique(seeds)}'
  return drawn.format(f'seeds {join_unique(seeds)}' + ' that have learned' * are_learned)


def join_unique(values: Iterable[object]) -> str:
  """The different values, shorter texts first, separated by commas."""
  return ', '.join(sorted(map(str, set(values)), key=lambda text: (len(text), text)))
