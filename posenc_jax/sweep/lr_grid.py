"""A learning rate for each line of a study, chosen by bits of the validation split.

The test split is not looked at: runs of the grid are evaluated on the validation split, and what
is compared is the last validation that their trainings have logged.
"""

import dataclasses
import math
from pathlib import Path

from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from posenc_jax import storage
from posenc_jax.cli import check_file, make_folder, wide_console
from posenc_jax.config import line_name, load, load_study
from posenc_jax.config.sweeps import RATE
from posenc_jax.errors import DIVERGED, Damaged, Stopped, UserError, shown, user_errors
from posenc_jax.protocols import TASK_PROTOCOL
from posenc_jax.rows import sessions
from posenc_jax.sweep.launching import check_launcher, execute, only_sweep
from posenc_jax.sweep.plan import PlannedRun, check_runs, plan, swept_by
from posenc_jax.tasks import of_corpus
from posenc_jax.training.run_dir import is_extended

MARGIN = 0.01  # bits: a stated rate that is no further from the best is kept
MOST_DOUBLINGS = 6  # of the stated rate, up or down


@dataclasses.dataclass
class RateCurve:
  """Bits of the validation split by learning rate, of one line.

  Attributes:
    line: what the line overrides.
    stated: the rate that its config states.
    evaluation: what its runs override besides, since not all lines are trained at one length, or
      on one task.
    bits: {rate: bits; infinity of a training that diverged}.
  """

  line: dict
  stated: float
  evaluation: dict = dataclasses.field(default_factory=dict)
  bits: dict[float, float] = dataclasses.field(default_factory=dict)

  @property
  def best(self) -> float:
    """The rate of the fewest bits; of equals the one that is nearest to the stated one."""
    far = lambda rate: abs(math.log(rate / self.stated))
    return min(self.bits, key=lambda rate: (self.bits[rate], far(rate)))

  @property
  def chosen(self) -> float:
    """The stated rate where it is within MARGIN of the best, else the best."""
    is_near = self.bits[self.stated] - self.bits[self.best] <= MARGIN
    return self.stated if is_near else self.best

  @property
  def problem(self) -> str:
    """Why there is no best rate, though MOST_DOUBLINGS were tried; '' where there is one."""
    rates = sorted(self.bits)
    if math.isinf(self.bits[self.best]):
      return f'{line_name(self.line)}: every rate from {rates[0]:g} to {rates[-1]:g} diverges'
    if self.best in (rates[0], rates[-1]):
      return f'{line_name(self.line)}: the best rate, {self.best:g}, is still the last of the grid'
    return ''

  def missing(self) -> list[float]:
    """Rates that are yet to be tried.

    These are the stated one, its half and its double, then one more by a factor of 2 as long as the
    best lies at an edge, or all diverge, up to MOST_DOUBLINGS.
    """
    if not self.bits:
      return [self.stated / 2, self.stated, self.stated * 2]
    least, most = min(self.bits), max(self.bits)
    if self.best == least or math.isinf(self.bits[self.best]):
      more = least / 2
    elif self.best == most:
      more = most * 2
    else:
      return []
    return [more] if abs(math.log2(more / self.stated)) <= MOST_DOUBLINGS else []


def choose_rates(
  path: str | Path,
  out: str | Path,
  save: str | Path,
  overrides: dict[str, object],
  scripts: tuple[Path, ...],
  seed: int = 0,
  jobs: int = 1,
  launcher: str = 'local',
) -> int:
  """Trains each line of a study at rates of a grid, prints the curves, and writes what it chooses.

  Lines are what `lines()` of the study gives, or, where it has none, its sweep without seeds. What
  is trained before is not trained again.

  Args:
    save: the file that `config.with_rates` reads: {'lines': {name: {'rate': ..., 'bits': ...}}}.
    overrides, scripts, jobs, launcher: as for `sweep`, but no override of what the grid sets.
    seed: that of all runs.
  Returns:
    The exit code: 1 if a run failed in another way than by diverging; then nothing is written.
  Raises:
    UserError: before a round of runs begins, or where SLURM does not answer, or takes no such job.
    Stopped: a line has no best rate, or Ctrl-C came.
  """
  out, console = Path(out), wide_console()
  check_launcher(launcher, jobs, scripts, out)
  for field in ('seed', 'seeds'):
    if field in overrides:
      given = f'config.{field}={shown(overrides[field])}'
      raise UserError(f'{given}; allowed: --seed, that of all runs')
  check_file(f'--save={save}', save)
  lines = lines_of(path)
  configs = [load(path, {**line, **overrides}) for line in lines]
  if not all(c.train.steps for c in configs):
    raise UserError('config.train.steps=0: without a loss to compare rates by; allowed: 1 or more')
  of_all = _of_all()
  for field, value in overrides.items():
    if field in (of_all | _of_own(configs[0])) and field != 'eval.k':  # which is read
      raise UserError(f'config.{field}={shown(value)}; allowed: without it, for the grid sets it')
  curves = [
    RateCurve(line, c.optim.learning_rate, _of_own(c))
    for line, c in zip(lines, configs, strict=True)
  ]
  overrides = {field: value for field, value in overrides.items() if field != RATE}
  overrides |= {**of_all, 'seed': seed}
  _plan(path, out, overrides, scripts, curves)  # raises UserError before anything is made
  make_folder(Path(save).parent)
  make_folder(out)
  with only_sweep(out):
    while runs := _plan(path, out, overrides, scripts, curves):
      # of an earlier call: the same training by the same code diverges again
      diverged = {run.name: DIVERGED for run, _, _ in runs if _diverges_again(run)}
      # these, too: their encodings may have been edited since
      check_runs(path, [run for run, _, _ in runs])
      to_do = [run for run, _, _ in runs if run.name not in diverged]
      failed = diverged | execute(to_do, out, jobs, launcher, console)
      broken = {name: why for name, why in failed.items() if DIVERGED not in why}
      for name, why in broken.items():
        console.print(Text(f'failed: {name}: {why} ({out / name}/log.txt)', 'red'), soft_wrap=True)
      if broken:
        return 1
      for run, curve, rate in runs:
        curve.bits[rate] = math.inf if run.name in failed else last_validation(run)
  console.print(table(curves))
  if problems := [curve.problem for curve in curves if curve.problem]:
    raise Stopped(f'no rates are written: {"; ".join(problems)}')
  chosen = {
    line_name(curve.line): {
      'rate': curve.chosen,
      'bits': {
        f'{rate:g}': bits if math.isfinite(bits) else None
        for rate, bits in sorted(curve.bits.items())
      },
    }
    for curve in curves
  }
  with user_errors(OSError):
    storage.write_json(save, {'seed': seed, 'margin': MARGIN, 'lines': chosen})
  print(f'{save}: a rate for each of {len(chosen)} lines')
  return 0


def lines_of(path: str | Path) -> list[dict]:
  """The lines of a study, each once and without a seed. Raises UserError."""
  study = load_study(path)
  swept = study.lines() if hasattr(study, 'lines') else swept_by(study, path)
  lines = {}
  for overrides in swept:
    line = {field: value for field, value in overrides.items() if field not in ('seed', 'seeds')}
    for field in (RATE, 'train.init_from'):
      if field in line:
        raise UserError(
          f'config: {path}: a line sets {field}; allowed: lines without, by a function lines()'
        )
    lines[line_name(line)] = line
  return list(lines.values())


def _of_own(config: ConfigDict) -> dict[str, object]:
  """Overrides of a run: it is evaluated at its training length alone, and of a task once at each
  depth.
  """
  length, task = config.train.length, of_corpus(config.data.corpus)
  return {
    'eval.protocols': (TASK_PROTOCOL if task else 'last_k',),
    'eval.lengths': (length,),
    'eval.target_context': length,
    'eval.k': min(length, config.eval.k),
    'eval.examples': max(1, len(task.depths)) if task else 1,
  }


def _of_all() -> dict[str, object]:
  """Overrides of all runs: no more evaluation than a finished run must have, and not of the test
  split.
  """
  return {
    'seeds': (),
    'vmap_seeds': False,
    'mesh.seeds': 1,
    'eval.split': 'validation',
    'eval.controls': (),
    'eval.documents': 1,
    'eval.spans': 1,
  }


def _plan(path, out, overrides, scripts, curves) -> list[tuple[PlannedRun, RateCurve, float]]:
  """The runs that are yet to be made, each with its curve and its rate.

  Their names do not say how they are evaluated, so that they are the same beside lines of other
  lengths.
  """
  planned, wanted = [], [(curve, rate) for curve in curves for rate in curve.missing()]
  for evaluation in {repr(curve.evaluation): curve.evaluation for curve, _ in wanted}.values():
    alike = [(curve, rate) for curve, rate in wanted if curve.evaluation == evaluation]
    swept = [{**curve.line, RATE: rate} for curve, rate in alike]
    runs = plan(path, out, overrides | evaluation, scripts, swept)
    planned += [(run, *pair) for run, pair in zip(runs, alike, strict=True)]
  for run, _, _ in planned:
    if is_extended(run.workdir, run.config):
      raise UserError(f'--out={out}: {run.name} is of fewer steps; allowed: another --out')
  return planned


def _diverges_again(run: PlannedRun) -> bool:
  """Whether its training has diverged, as far as is known by the code and the packages of now."""
  return DIVERGED in run.last_log_line() and not sessions.change(run.workdir, sessions.TRAINING)


def last_validation(run: PlannedRun) -> float:
  """Bits a byte of the validation split (of a task: an answer) at a run's last step.

  Raises Damaged where metrics.jsonl does not say.
  """
  file = run.workdir / 'metrics.jsonl'
  of_validation = [row for row in storage.read_rows(file) if row.get('split') == 'validation']
  bits = [row.get('bpb') for row in of_validation if row.get('step') == run.config.train.steps]
  if not bits or not isinstance(bits[-1], float) or not math.isfinite(bits[-1]):
    raise Damaged(f'{file} is damaged: no validation at step {run.config.train.steps}')
  return bits[-1]


def table(curves: list[RateCurve]) -> Table:
  """Bits by line and rate, the fewest of a line with a star, and what was chosen."""
  rates = sorted({rate for curve in curves for rate in curve.bits})
  made = Table(
    title=f'Bits by learning rate, validation split; *: fewest; kept: within {MARGIN:g} of them',
    title_justify='left',
    box=None,
    pad_edge=False,
  )
  for name in ('line', *(f'{rate:g}' for rate in rates), 'chosen'):
    made.add_column(name, overflow='fold')
  for curve in curves:
    cells = [_cell(curve, rate) for rate in rates]
    word = 'kept' if curve.chosen == curve.stated else 'changed'
    made.add_row(Text(line_name(curve.line)), *cells, f'{curve.chosen:g} ({word})')
  return made


def _cell(curve: RateCurve, rate: float) -> str:
  if rate not in curve.bits:
    return ''
  if math.isinf(curve.bits[rate]):
    return 'diverged'
  return f'{curve.bits[rate]:.4f}' + ('*' if rate == curve.best else '')
