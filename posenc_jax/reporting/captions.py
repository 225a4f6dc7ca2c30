"""The sentences of captions: protocol, control, seeds, training, and how much was scored."""

from collections.abc import Iterable

from posenc_jax.evaluation.row_schema import DTYPE, FULL

MEANS = 'Mean ± standard deviation over {}'
WORDS_OF_PROTOCOLS = {
  'last_k': 'last_k, the last {k} tokens of windows that end at the same targets at every length',
  'non_overlapping': 'non_overlapping, windows that do not overlap, so that every token is scored '
  'once',
  'sliding': 'sliding, windows {stride} tokens apart that score what the one before did not, so '
  'that every token is scored once',
  'by_position': 'by_position, every token of windows of {length} tokens, by where it stands in '
  'its window',
  'receptive_field': "receptive_field, norms of the gradient of the last token's loss with respect "
  'to the inputs of windows of {length} tokens, by their distance',
  'long_ppl': 'long_ppl, the key tokens of windows of that length: those that the model itself, or '
  'one evaluator for all, predicts far better from the whole window than from a short context',
  'sink_rate': 'sink_rate, the share of windows and heads whose mean weight on the first token '
  '(BOS) is more than eval.sink_rate_epsilon',
  'attention_distance': 'attention_distance, tokens from a query to its keys, the mean by weight, '
  'over heads',
  'planted': 'planted, the last eight characters of invented names in windows of {length} tokens, '
  'by the distance in bytes to where the name stood before (0: it is new; not to know one costs '
  '5.95 bits)',
  'text_passkey': 'text_passkey, a key of five digits hidden in text at several depths and asked '
  'for in words; bytes are its digits (to guess one costs 3.32 bits)',
  'text_multikey': 'text_multikey, the code of one of four names hidden in text; bytes are its '
  'digits',
  'text_needles': 'text_needles, the code of one name in a text that is codes of names; bytes are '
  'its digits',
  'text_multivalue': 'text_multivalue, the four codes of a name hidden in text, in their order; '
  'bytes are those of the list',
  'text_multiquery': 'text_multiquery, the codes of four names hidden in text; bytes are those of '
  'the list',
  'text_variables': 'text_variables, the five names that stand for a number, each set to the one '
  'before it; bytes are those of the list',
  'text_frequent_words': 'text_frequent_words, the three most frequent words of a text that is '
  'words in no order; bytes are those of the list',
}
WORDS_OF_CONTROLS = {
  None: '',
  'windowed': '; attention windowed at the training length',
  'windowed_with_sink': '; attention windowed at the training length, but for the first inputs '
  '(BOS, ...), which stay visible',
  'truncated': '; inputs truncated to the training length L: windows of L tokens that lie L / 2 '
  'apart, so that a token past L has L / 2 to L tokens before it',
  'shuffled_far': "; tokens farther back than the training length are another document's",
}


# What a control is, where a protocol has it in a form of its own.
CONTROLS_OF_PROTOCOLS = {
  (
    'last_k',
    'truncated',
  ): '; inputs truncated to their last L tokens, L being the training length, '
  'which is last_k at L again'
}


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
  protocol = scores.protocol  # of a task: its name, and no more
  if protocol in WORDS_OF_PROTOCOLS:
    protocol = WORDS_OF_PROTOCOLS[protocol].format(**values)
  control = WORDS_OF_CONTROLS.get(scores.control, f'; {scores.control}')
  return protocol + CONTROLS_OF_PROTOCOLS.get((scores.protocol, scores.control), control)


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
