"""The table of effective lengths, and of LongScore where scores are accuracies."""

import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.captions import caption, join_unique
from posenc_jax.reporting.comparisons import effective_length
from posenc_jax.reporting.comparisons.compare import line_of_baseline, no_rows
from posenc_jax.reporting.comparisons.effective_length import EffectiveLength
from posenc_jax.reporting.metrics import DASH, MARGIN, SHARE, Metric
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.table import Cell, RowGroup, Table, record_keys
from posenc_jax.reporting.tasks.chance import chance_scores

FORM = 'effective_lengths'
# The tables of scores by length that are followed by one of effective lengths.
FOLLOWED = ('bpb', 'ppl', 'exact_match')
# Whose score at L a line must keep to hold (the setting `score_to_keep`).
OF_LINE, OF_BASELINE = 'own', 'baseline'


def after_lengths(wanted: list[dict]) -> list[dict]:
  """The settings of tables, each of scores by length followed by that of effective lengths with the
  same settings; as they are where a study names that form itself.
  """
  if any(settings.get('form') == FORM for settings in wanted):
    return wanted
  made = []
  for settings in wanted:
    made.append(settings)
    is_by_length = settings.get('form', 'lengths') == 'lengths'
    if is_by_length and settings.get('metric', 'bpb') in FOLLOWED:
      names = ['metric', 'protocols', 'margin', 'learned']
      if settings.get('score_to_keep', OF_LINE) == OF_BASELINE:
        names += ['baseline', 'score_to_keep']
      made.append({'form': FORM, **{k: settings[k] for k in names if k in settings}})
  return made


def effective_lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = False,
  margin: float = MARGIN,
  share: float = SHARE,
  baseline: str | None = None,
  score_to_keep: str = OF_LINE,
) -> list[Table]:
  """A table for each protocol and control that was evaluated past a training length.

  `margin` (bits a byte) and `share` say what holds, and `score_to_keep` beside what: a line's own
  score at L or that of `baseline`; see `comparisons.effective_length`. Raises UserError for a
  metric that is neither a likelihood nor an accuracy, and for a baseline without rows.
  """
  rows, made = list(rows), []
  found = collect(rows, runs, protocols, metric, controls)
  kept = [None] * len(found)  # for each, the line whose score is to keep; None: each its own
  if score_to_keep == OF_BASELINE:
    kept = [line_of_baseline(scores, baseline) for scores in found]
    if not any(kept):
      raise no_rows(baseline, found)
  for scores, line in zip(found, kept, strict=True):
    if not (scores.metric.denominator or scores.metric.is_accuracy):
      allowed = 'a likelihood or an accuracy, such as bpb, exact_match'
      raise UserError(f'table: metric={metric!r} of effective_lengths; allowed: {allowed}')
    if scores.columns[-1] > min(scores.train_lengths):
      made.append(_table(rows, scores, margin, share, line))
  return made


def _table(
  rows: list[dict], scores: Scores, margin: float, share: float, baseline: str | None
) -> Table:
  chance, is_accuracy = chance_scores(rows, scores), scores.metric.is_accuracy
  past = [n for n in scores.columns if is_accuracy and n > min(scores.train_lengths)]
  lines, records, unjudged = [], [], []
  keys = record_keys(scores) | ({'share': share} if is_accuracy else {'margin': margin})
  if baseline:
    keys |= {'baseline': baseline}
  for line in scores.lines:
    L = scores.exemplar_row[line]['train_length']
    lengths = effective_length.of_seeds(scores, line, margin, share, chance.get(L), baseline)
    worst = effective_length.summary(lengths)
    known = effective_length.values_of_seeds(scores, line, scores.metric)
    if without := known.keys() - lengths.keys():
      unjudged.append(f'{line} seed {join_unique(without)}')
    cells = [scores.label(line), _text(worst), _text(worst, L)]
    if len(scores.seeds) > 1:
      cells.append(', '.join(map(_text, lengths.values())) or DASH)
    lines.append([Cell(text) for text in cells])
    for seed, found in lengths.items():
      record = keys | {'encoding': line, 'seed': seed, 'train_length': L}
      if found is not None:
        record |= {'effective_length': found.length, 'is_longest': found.is_longest}
      records.append(record)
    if past:
      long_scores = {s: effective_length.long_scores(v, L) for s, v in known.items()}
      lines[-1] += _long_score_cells(scores.metric, long_scores, past)
      records += [
        keys | {'encoding': line, 'seed': seed, 'length': length, 'long_score': value}
        for seed, by_length in long_scores.items()
        for length, value in by_length.items()
      ]
  notes = list(scores.notes)
  if unjudged:
    whose = baseline or 'the baseline'
    notes.append(f'not judged, as {whose} has no score at L of these: {"; ".join(unjudged)}')
  header = ['encoding', 'effective length', 'in L', *['each seed'] * (len(scores.seeds) > 1)]
  return Table(
    f'Effective length, {scores.title}',
    caption(scores, drawn='Of {}', are_scores=False) + _sentences(scores, margin, share, baseline),
    header + [f'LongScore at {n}' for n in past] + ['mean'] * bool(past),
    [RowGroup('', lines)],
    notes,
    records=records,
  )


def _text(found: EffectiveLength | None, unit: int = 1) -> str:
  return DASH if found is None else found.text(unit)


def _long_score_cells(
  metric: Metric, long_scores: dict[int, dict[int, float]], past: list[int]
) -> list[Cell]:
  """LongScore at each length, and its mean over them; a dash where a seed has none."""
  columns = [[by_length.get(length) for by_length in long_scores.values()] for length in past]
  means = [
    None if None in values else statistics.fmean(values) for values in zip(*columns, strict=True)
  ]
  text = metric.signed_text
  return [Cell(text([] if None in values else values)) for values in (*columns, means)]


def _sentences(scores: Scores, margin: float, share: float, baseline: str | None) -> str:
  whose, dash = 'the own score at L', 'a dash where '
  if baseline is not None:
    whose = f'the score at L of {baseline or "the baseline"}'
    dash = 'a dash where it is not so at L itself, or '
  if scores.metric.is_accuracy:
    means = ', mean ± standard deviation over seeds' * (len(scores.seeds) > 1)
    what = (
      f'at least {share:g} of {whose}; {dash}guessing would hold, too. '
      f'LongScore{means}: (score - Base) / Base, Base the mean score up to L'
    )
  else:
    what = f'at most {margin:g} bits a byte worse than {whose}'
    what += '' if baseline is None else '; a dash where it is not so at L itself'
  return (
    ' Effective length, of the worst seed: the largest evaluated length in tokens at which the '
    f'score, as at all lengths between, is {what}; ≥: it holds to the longest that was evaluated.'
  )
