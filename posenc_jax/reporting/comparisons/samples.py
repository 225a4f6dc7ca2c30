"""The scores of one line in one column as arrays, over seeds and over clusters of documents."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from posenc_jax.reporting.comparisons import bootstrap
from posenc_jax.reporting.metrics import Metric
from posenc_jax.reporting.scores.score import Scores, is_of_same_text
from posenc_jax.rows.clusters import clusters_of
from posenc_jax.rows.row_schema import PARAMETERS


class Sample(NamedTuple):
  """What a line scored in a column.

  Attributes:
    place: (control, line, column); among the scores of one protocol and metric no other has it.
    scores_S: the score of each seed that has learned.
    models: of each seed the run and step that trained the model. The step 0 is none: the run reads
      the parameters of another one, which rows of earlier versions do not name.
    clusters: the clusters of documents, in order; () where rows are not of single documents.
    top_SC, size_C: a score is link(top.sum / size.sum); all seeds were scored on the same tokens.
      Of more than `bootstrap.MOST` clusters several share a place.
    sizes: {(document, position): size} of what was scored.
    row: a row of the line.
    examples: of a task, the number of examples; None: it is not known, or rows are of no task.
  """

  place: tuple
  seeds: tuple[int, ...]
  models: tuple[tuple[str, int], ...]
  scores_S: np.ndarray
  clusters: tuple[str, ...]
  top_SC: np.ndarray
  size_C: np.ndarray
  sizes: dict[tuple, float]
  row: dict
  examples: int | None = None

  def of_seeds(self, seeds: list[int]) -> 'Sample':
    """The sample of some of its seeds."""
    if list(self.seeds) == seeds:
      return self
    places = [self.seeds.index(seed) for seed in seeds]
    return self._replace(
      seeds=tuple(seeds),
      models=tuple(self.models[place] for place in places),
      scores_S=self.scores_S[places],
      top_SC=self.top_SC[places],
    )

  @property
  def has_unknown_models(self) -> bool:
    """Whether a seed's parameters are those of a run that its rows do not name."""
    return any(step == 0 for _, step in self.models)

  def has_same_tokens(self, other: 'Sample') -> bool:
    """Whether both were scored on the same tokens, as far as rows say it."""
    return self.sizes == other.sizes and is_of_same_text(self.row, other.row)

  def standard_error(self, metric: Metric) -> float | None:
    """Standard error of the mean score over clusters of documents; None without two."""
    if len(self.clusters) < 2:
      return None
    return bootstrap.standard_error(self.top_SC, self.size_C[None], metric.link)


def _model(row: dict) -> tuple[str, int]:
  of = row.get(PARAMETERS, row)
  return of['run'], of['step']


def sample(scores: Scores, line: str, column, metric: Metric) -> Sample | None:
  """The sample of a line in a column by `metric`.

  None where tables show no score, or where seeds were scored on different tokens.
  """
  if not scores.seed_scores(line, column):
    return None
  scored = {seed: scores.by_seed[line, seed, column] for seed in scores.learned_seeds(line)}
  scored = {seed: score for seed, score in scored.items() if score.status == 'ok'}
  tops, sizes = [], []
  for score in scored.values():
    top = defaultdict(float)
    for row in score.rows:
      top[row['document']] += metric.sums(row)[0]
    tops.append(top)
    sizes.append(score.sizes(metric))
  if any(size != sizes[0] for size in sizes):
    return None
  corpus = scores.exemplar_row[line]['corpus']
  # which are alike is asked of all documents, also of those with nothing to score
  documents = tops[0].keys() | {name for score in scored.values() for name in score.empty}
  cluster_by_document = {None: None} | clusters_of(documents - {None}, corpus)
  clusters = sorted({cluster_by_document[document] for document in tops[0]}, key=str)
  place = {cluster: index % bootstrap.MOST for index, cluster in enumerate(clusters)}
  places = min(len(clusters), bootstrap.MOST)
  top_SC, size_C = np.zeros((len(tops), places)), np.zeros(places)
  for seed_top_C, top in zip(top_SC, tops, strict=True):
    for document, numerator in sorted(top.items(), key=str):
      seed_top_C[place[cluster_by_document[document]]] += numerator
  for (document, _), size in sizes[0].items():
    size_C[place[cluster_by_document[document]]] += size
  return Sample(
    place=(scores.control, line, column),
    seeds=tuple(scored),
    models=tuple(_model(score.rows[0]) for score in scored.values()),
    scores_S=np.array([score.value(metric) for score in scored.values()]),
    clusters=() if None in place else tuple(clusters),
    top_SC=top_SC,
    size_C=size_C,
    sizes=sizes[0],
    row=scores.exemplar_row[line],
    examples=next(iter(scored.values())).examples,
  )
