"""What captions say: protocol, seeds, training, tokens and documents scored."""

from collections.abc import Iterable

PROTOCOLS = {
  'last_k': 'last_k, the last {k} tokens of windows that end at the same targets at every length',
  'non_overlapping': 'non_overlapping, windows that do not overlap, so that every token is scored once',
  'sliding': 'sliding, windows {stride} tokens apart that score what the one before did not, so that every token is '
  'scored once',
  'by_position': 'by_position, every token of windows of {length} tokens, by where it stands in its window',
  'receptive_field': "receptive_field, norms of the gradient of the last token's loss with respect to the inputs of "
  'windows of {length} tokens, by their distance',
}
CONTROLS = {
  None: '',
  'windowed': '; attention windowed at the training length',
  'shuffled_far': "; tokens farther back than the training length are another document's",
}


def caption(*scores) -> str:
  """Of `scores.Scores` that one table prints: what was measured, how, on what, over which seeds."""
  rows = [row for made in scores for row in made.first.values()]
  steps, train_length = (every(row[field] for row in rows) for field in ('step', 'train_length'))
  return (
    f'{scores[0].metric.title}; {_distinct(map(_protocol, scores))}. '
    f'{of_seeds(sorted({seed for made in scores for seed in made.seeds}))}. '
    f'Trained for {steps} steps at length L = {train_length}; evaluated in float32. '
    f'{_distinct(map(_scored, scores))}. '
    f'{scores[0].metric.better}hat holds at this scale need not hold at another.'
  )


def _protocol(made) -> str:
  k, stride, length = (
    every(row[field] for row in made.first.values()) for field in ('k', 'stride', 'length')
  )
  how = PROTOCOLS.get(made.protocol, made.protocol).format(k=k, stride=stride, length=length)
  return how + CONTROLS.get(made.control, f'; {made.control}')


def _scored(made) -> str:
  corpus, split = (
    every(row[field] for row in made.first.values()) for field in ('corpus', 'split')
  )
  cells = [cell for cell in made.cells.values() if cell.status == 'ok']
  counts = (
    [f'{every(f"{cell.tokens:,}" for cell in cells)} tokens'] if made.metric.denominator else []
  )
  if any(cell.documents for cell in cells):
    counts.append(f'{every(cell.documents for cell in cells)} documents')
  return f'{corpus}, {split} split{": " if counts else ""}{" of ".join(counts)}'


def _distinct(texts: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(texts))


def of_seeds(seeds: list[int]) -> str:
  return f'{"Mean ± standard deviation over seeds" if len(seeds) > 1 else "Seed"} {every(seeds)}'


def every(values: Iterable[object]) -> str:
  """The different values, in order."""
  return ', '.join(sorted(map(str, set(values)), key=lambda text: (len(text), text)))
