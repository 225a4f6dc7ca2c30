"""The table of effective lengths, and of LongScore where scores are accuracies."""

import statistics
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.protocols import UNLIKE_LENGTHS
from posenc_jax.reporting.captions import caption, join_unique
from posenc_jax.reporting.comparisons import bootstrap, effective_length
from posenc_jax.reporting.comparisons.compare import (
  baselines_of_lines,
  changes_from,
  no_rows,
  of_label,
)
from posenc_jax.reporting.comparisons.effective_length import EffectiveLength
from posenc_jax.reporting.metrics import DASH, METRICS, SHARE, SLACK, Metric
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
  """The settings of tables, each of scores by length followed by that of effective lengths of the
  same metric and protocols; as they are where a study names that form itself.
  """
  if any(settings.get('form') == FORM for settings in wanted):
    return wanted
  made = []
  for settings in wanted:
    made.append(settings)
    is_by_length = settings.get('form', 'lengths') == 'lengths'
    if is_by_length and settings.get('metric', 'bpb') in FOLLOWED:
      names = ['metric', 'protocols']
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
  baseline: str | dict[str, str] | None = None,
  score_to_keep: str = OF_LINE,
) -> list[Table]:
  """A table for each protocol and control that was evaluated past a training length, but for those
  whose lengths are unlike (`protocols.UNLIKE_LENGTHS`).

  `score_to_keep` is a line's own score at L or that of `baseline`, by which a line of other tokens
  is not judged; `comparisons.effective_length` says what holds. Raises UserError for a metric that
  is neither a likelihood nor an accuracy, and for a baseline without rows.
  """
  rows, made = list(rows), []
  found = collect(rows, runs, protocols, metric, controls)
  # for each, {line: the line whose score is to keep}; None: each its own
  lines_to_keep = [None] * len(found)
  if score_to_keep == OF_BASELINE:
    lines_to_keep = [baselines_of_lines(scores, baseline, of_label) for scores in found]
    if not any(lines_to_keep):
      raise no_rows(baseline, found)
  for scores, baselines in zip(found, lines_to_keep, strict=True):
    if not (scores.metric.denominator or scores.metric.is_accuracy):
      allowed = 'a likelihood or an accuracy, such as bpb, exact_match'
      raise UserError(f'table: metric={metric!r} of effective_lengths; allowed: {allowed}')
    is_kept = scores.protocol not in UNLIKE_LENGTHS
    if is_kept and scores.columns[-1] > min(scores.train_lengths):
      made.append(_table(rows, scores, baselines))
  return made


def _table(rows: list[dict], scores: Scores, baselines: dict[str, str] | None) -> Table:
  chance, is_accuracy = chance_scores(rows, scores), scores.metric.is_accuracy
  past = [n for n in scores.columns if is_accuracy and n > min(scores.train_lengths)]
  lines, records, notes, lacks_L = [], [], [], False
  metric = scores.metric if is_accuracy else METRICS['bpb']
  named = {'metric': metric.name} | ({'share': SHARE} if is_accuracy else {'margin': SLACK})
  judged = None if baselines is None else _judged(scores, baselines, notes)
  changes = {} if is_accuracy else changes_from(scores, judged)
  for line in scores.lines:
    L = scores.exemplar_row[line]['train_length']
    known = effective_length.values_of_seeds(scores, line, scores.metric)
    reference = line if judged is None else judged.get(line)
    lengths, worst = {}, None
    if reference:
      of_other = None if judged is None else reference
      lengths = effective_length.of_seeds(scores, line, chance.get(L), of_other)
      if is_accuracy:
        worst = effective_length.summary(lengths)
      else:
        to_keep = effective_length.scores_at_L(scores, reference, METRICS['bpb'])
        of_line = effective_length.values_of_seeds(scores, line, METRICS['bpb'])
        of_line = {seed: of_line[seed] for seed in lengths}
        worst = effective_length.holds_to(L, of_line, to_keep, changes.get(line, {}))
    if reference and (without := known.keys() - lengths.keys()):
      notes.append(
        f'not judged, as {reference} has no score at L of these: {line} seed {join_unique(without)}'
      )
    lacks_L |= worst is None and any(values.get(L) is None for values in known.values())
    cells = [scores.label(line), _text(worst), _text(worst, L)]
    if len(scores.seeds) > 1:
      cells.append(', '.join(map(_text, lengths.values())) or DASH)
    lines.append([Cell(text) for text in cells])
    record = record_keys(scores, FORM) | named | {'encoding': line, 'train_length': L}
    if judged is not None:
      record |= {'baseline': reference or ''}
    records += [
      record | {'seed': seed} | _record(found) for seed, found in [('', worst), *lengths.items()]
    ]
    if past:
      long_scores = {s: effective_length.long_scores(v, L) for s, v in known.items()}
      lines[-1] += _long_score_cells(scores.metric, long_scores, past)
      keys = record_keys(scores, 'long_scores') | named
      records += [
        keys | {'encoding': line, 'seed': seed, 'length': length, 'long_score': value}
        for seed, by_length in long_scores.items()
        for length, value in by_length.items()
      ]
  header = ['encoding', 'effective length', 'in L', *['each seed'] * (len(scores.seeds) > 1)]
  return Table(
    f'Effective length, {scores.title}',
    caption(scores, drawn='Of {}', are_scores=False) + _sentences(scores, judged, lacks_L),
    header + [f'LongScore at {n}' for n in past] + ['mean'] * bool(past),
    [RowGroup('', lines)],
    [*scores.notes, *notes],
    records=records,
  )


def _judged(scores: Scores, baselines: dict[str, str], notes: list[str]) -> dict[str, str]:
  """{line: the line whose score it is to keep} of those that score the same tokens; the others go
  into a note.
  """
  kind_of = {line: number for number, lines in enumerate(scores.by_tokens) for line in lines}
  is_judged = lambda line: line in baselines and kind_of[line] == kind_of[baselines[line]]
  if others := [line for line in scores.lines if not is_judged(line)]:
    whose = ' and '.join(dict.fromkeys(baselines.values())) or 'the baseline'
    notes.append(f'not judged, as {whose} has no score of their tokens: {"; ".join(others)}')
  return {line: baselines[line] for line in scores.lines if is_judged(line)}


def _record(found: EffectiveLength | None) -> dict:
  return {} if found is None else {'effective_length': found.length, 'is_longest': found.is_longest}


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


def _sentences(scores: Scores, judged: dict[str, str] | None, lacks_L: bool) -> str:
  """What the caption says of lengths; `lacks_L`: a line has a dash for want of a score at L."""
  whose, kept_by = 'the own score at L', 'without a score at L, or ' * lacks_L
  if judged is not None:
    names = ' or '.join(dict.fromkeys(judged.values())) or 'the baseline'
    whose = f'the score at L of {names}'
    kept_by += 'where it is not so at L itself, or '
  begins = (
    ' Effective length: the largest evaluated length in tokens up to which, at every length, '
  )
  ends = ' ≥: it holds to the longest that was evaluated.'
  if scores.metric.is_accuracy:
    means = ', mean ± standard deviation over seeds' * (len(scores.seeds) > 1)
    return (
      f'{begins}the score of every seed is at least {SHARE:g} of {whose}; a dash {kept_by}where '
      f'guessing would hold, too.{ends} LongScore{means}: (score - Base) / Base, Base the mean '
      'score up to L.'
    )
  each = ' Each seed: by its scores alone.' * (len(scores.seeds) > 1)
  return (
    f'{begins}no seed is more than {SLACK:g} bits a byte worse than {whose}, and the '
    f'{bootstrap.LEVEL:.0%} interval over documents of the change ends at +{SLACK:g} or below; a '
    f'dash {kept_by}where no interval past L says whether it is.{ends}{each}'
  ).replace('%', ' %')
