"""The sentences of captions: protocol, control, seeds, training, and how much was scored."""

from collections.abc import Iterable

from posenc_jax.protocols import caption_words
from posenc_jax.rows.row_schema import DTYPE, FULL

MEANS = 'Mean ± standard deviation over {}'


def caption(*scores, drawn: str = MEANS) -> str:
  """The caption of `scores.Scores`: what was measured, how, on what, which seeds.

  `drawn` is what is shown of several seeds, which stand in the place of its '{}'.
  """
  rows = [row for group in scores for row in group.exemplar_row.values()]
  steps, train_length = (
    join_unique(row[name] for row in rows) for name in ('step', 'train_length')
  )
  metric = scores[0].metric
  seeds = sorted({seed for group in scores for seed in group.seeds})
  are_learned = any(unlearned for group in scores for unlearned in group.unlearned.values())
  return (
    f'{metric.title}; {_join_sentences(map(_protocol, scores))}. '
    f'{seed_caption(seeds, drawn, are_learned)}. '
    f'Trained for {steps} steps at length L = {train_length}; evaluated in {dtypes(rows)}. '
    f'{_join_sentences(map(_amount_scored, scores))}. '
    f'{metric.scale_caption}'
  )


def dtypes(rows: Iterable[dict]) -> str:
  """The dtypes of activations in evaluation."""
  return join_unique(row.get(DTYPE, FULL) for row in rows)


def _protocol(scores) -> str:
  rows = scores.exemplar_row.values()
  values = {name: join_unique(row[name] for row in rows) for name in ('k', 'stride', 'length')}
  return caption_words(scores.protocol, scores.control, **values)


def _amount_scored(scores) -> str:
  rows = scores.exemplar_row.values()
  corpus, split = (join_unique(row[name] for row in rows) for name in ('corpus', 'split'))
  scored = [score for score in scores.by_seed.values() if score.status == 'ok']
  counts = []
  if scores.metric.denominator:
    counts.append(f'{join_unique(f"{score.tokens:,}" for score in scored)} tokens')
  if any(score.documents for score in scored):
    counts.append(f'{join_unique(score.documents for score in scored)} documents')
  return f'{corpus}, {split} split{": " if counts else ""}{" of ".join(counts)}'


def _join_sentences(texts: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(texts))


def seed_caption(seeds: list[int], drawn: str = MEANS, are_learned: bool = False) -> str:
  """'Seed 0', or 'Mean ± standard deviation over seeds 0, 1'.

  `are_learned`: whether seeds that have not learned are left out.
  """
  if len(seeds) < 2:
    return f'Seed {join_unique(seeds)}'
  return drawn.format(f'seeds {join_unique(seeds)}' + ' that have learned' * are_learned)


def join_unique(values: Iterable[object]) -> str:
  """The different values, shorter texts first, separated by commas."""
  return ', '.join(sorted(map(str, set(values)), key=lambda text: (len(text), text)))
