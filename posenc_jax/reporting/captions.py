"""The sentences of captions: protocol, control, seeds, training, and how much was scored."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from posenc_jax.protocols import caption_words
from posenc_jax.reporting.metrics import SCALE
from posenc_jax.rows.row_schema import DTYPE, FULL, SOURCE

MEANS = 'Mean ± standard deviation over {}'
# How names of corpora begin that are no folders; those of Hugging Face may be.
NO_FOLDERS = ('task:', 'tfds:')
# What has to exceed a bound lies a little too high at L, where no other examples tell it.
CHOSEN = ' The examples scored at L also decide which have learned{}.'
BUT_FOR = ', but for lines that are judged in another task'


def caption(scores, drawn: str = MEANS, are_scores: bool = True) -> str:
  """The caption of a `Scores`: what was measured, how, on what, which seeds.

  Args:
    drawn: what is shown of several seeds, which stand in the place of its '{}'.
    are_scores: whether numbers are by the metric, which says what is better.
  """
  rows = scores.exemplar_row.values()
  seeds, are_learned = join_unique(scores.seeds), any(scores.unlearned.values())
  shown = f'Seed {seeds}'
  if len(scores.seeds) > 1:
    shown = drawn.format(f'seeds {seeds}' + ' that have learned' * are_learned)
  chosen = ''
  if are_learned and len(elsewhere := scores.judged_elsewhere) < len(scores.lines):
    chosen = CHOSEN.format(BUT_FOR * bool(elsewhere))
  return (
    f'{scores.metric.title}; {_protocol(scores)}. {shown}.{chosen} '
    f'{_training(rows)}; evaluated in {join_unique(row.get(DTYPE, FULL) for row in rows)}. '
    f'{_amount_scored(scores)}. '
    f'{scores.metric.scale_caption if are_scores else SCALE.capitalize()}'
  )


def _training(rows: Collection[dict]) -> str:
  """The beginning of a sentence on how lines, each given by a row, were trained: 'Trained for 600
  steps at length L = 128'. Step 0 is no training: lines of it are imported models, or have the
  parameters of other runs.
  """
  steps = join_unique(row['step'] for row in rows if row['step'])
  train_length = join_unique(row['train_length'] for row in rows)
  at_length = f'at length L = {train_length}'
  words = lambda row: 'of imported models' if SOURCE in row else 'with the parameters of other runs'
  kinds = Counter(words(row) for row in rows if not row['step'])
  if not kinds:
    return f'Trained for {steps} steps {at_length}'
  if not steps:
    return f'Lines {" and ".join(sorted(kinds))}, not trained here; L = {train_length}'
  others = ' and '.join(
    f'{number} line{"s" * (number > 1)} {kind}' for kind, number in sorted(kinds.items())
  )
  return f'Trained for {steps} steps {at_length}, but for {others}'


def _protocol(scores) -> str:
  rows = scores.exemplar_row.values()
  values = {name: join_unique(row[name] for row in rows) for name in ('k', 'stride', 'length')}
  is_likelihood = bool(scores.metric.denominator)
  return caption_words(scores.protocol, scores.control, is_likelihood, **values)


def _amount_scored(scores) -> str:
  rows = scores.exemplar_row.values()
  corpus = join_unique(corpus_names(row['corpus'] for row in rows).values())
  split = join_unique(row['split'] for row in rows)
  scored = [score for score in scores.by_seed.values() if score.status == 'ok']
  counts, for_all = [], ''
  if scores.metric.denominator:
    counts.append(f'{join_unique(f"{score.tokens:,}" for score in scored)} tokens')
  elif examples := examples_scored(scores):
    counts.append(examples)
    for_all = ', the same for all lines' * (len(scores.lines) > 1 and len(scores.by_tokens) == 1)
  if any(score.documents for score in scored):
    counts.append(f'{join_unique(score.documents for score in scored)} documents')
  return f'{corpus}, {split} split{": " if counts else ""}{" of ".join(counts)}{for_all}'


def corpus_names(corpora: Iterable[str]) -> dict[str, str]:
  """{corpus: its name for readers}; all are whole where last parts of folders are the same."""
  names = {corpus: _corpus(corpus) for corpus in {*corpora}}
  return names if len({*names.values()}) == len(names) else {corpus: corpus for corpus in names}


def _corpus(name: str) -> str:
  """The name of a corpus; of a folder the last part alone, as the others are of one machine."""
  prefix = 'hf:' * name.startswith('hf:')
  path = name.removeprefix('hf:')
  is_folder = path.startswith(('/', '.', '~')) if prefix else not path.startswith(NO_FOLDERS)
  return prefix + (Path(path).name or path) if is_folder else name


def examples_scored(scores) -> str:
  """'each score of 220 examples' of a task; '' where their number is not known."""
  numbers = {score.examples for score in scores.by_seed.values() if score.status == 'ok'}
  return f'each score of {join_unique(numbers)} examples' if numbers and None not in numbers else ''


def join_unique(values: Iterable[object]) -> str:
  """The different values, shorter texts first, separated by commas."""
  return ', '.join(sorted(map(str, set(values)), key=lambda text: (len(text), text)))
