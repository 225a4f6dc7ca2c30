"""The command line of scripts/aot.py: what to compile, for what, and the table of it."""

import dataclasses
import functools
import itertools
import math
import re
import time
from pathlib import Path

import tabulate

from posenc_jax import cli
from posenc_jax import config as configs
from posenc_jax.errors import MAX_REASON, UserError, one_line

from . import hlo, targets

FLAGS = {
  'target': cli.REQUIRED,
  'config': '',
  'only': '',
  'attention': False,
  'encodings': 'all',
  'backends': 'auto',
  'cases': '',
  'length': 8192,
  'batch': 1,
  'heads': 8,
  'head_dim': 64,
  'dtype': 'bfloat16',
  'block_sizes': '',
  'context': 1,
  'hlo': '',
}
FLAGS_OF_STEP = 'config', 'only'
FLAGS_OF_ATTENTION = (
  *('encodings', 'backends', 'cases', 'length', 'batch', 'heads', 'head_dim', 'dtype'),
  *('block_sizes', 'context'),
)
NOTES = """\
temporary, arguments: MiB of one device. GFLOP: of matrix products; GB: read from and written to
main memory; both of one device. Bodies of loops count as often as they turn; where only the running
program knows that, by --attention as often as a row of tiles visits a tile in the mean, on a ring
of the device that visits the most in each step; in the step of a config as (n + 1) / 2 of the n
turns of the loop around. That is the mean of square tiles under a causal mask on one device; it is
too many under a window, and too few on a ring.
kernels: operations in the program; launches: how many run, loops included. roofline: the sum over
operations of what each needs at the card's peaks, for its arithmetic or its bytes, whichever is
longer; what devices exchange counts as bytes of main memory, not at the rate of their network.
Mcycles: the TPU compiler's own estimate; empty where the program has kernels, of which it has none.
Kernels of `fused` state their products and the blocks that they copy, of all tiles that the mask
lets them visit, also of those that they pass over for their segments.
≤: of a conditional the dearest branch counts in every turn, whichever runs. uncounted: calls, such
as of kernels, of which nothing says what they compute; GFLOP, GB, roofline and Mcycles are empty
then.
Nothing was run: that it compiles is proven, and not how fast it is."""
NOTES_ON_CASES = """\
yes: it compiles, forward and backward; of auto, the backend that it takes. A number: refused, for
the reason below. Nothing was run."""


@dataclasses.dataclass(frozen=True)
class Row:
  """What compiling one program showed.

  Attributes:
    status: 'yes', 'refused' (by a backend or an encoding) or 'failed' (in the compiler).
    reason: why not, in one line.
    asked: of attention, the backend, the case and the encoding that were asked for.
    served_by: of attention, the backend that takes it.
    memory: temporary bytes and bytes of arguments of one device.
    has_roofline: whether the card's peaks are known.
  """

  name: str
  status: str
  reason: str = ''
  asked: tuple[str, str, str] = ('', '', '')
  served_by: str = ''
  memory: tuple[int, int] = (0, 0)
  kernels: int = 0
  cost: hlo.Cost | None = None
  has_roofline: bool = True

  @property
  def roofline(self) -> str:
    """Milliseconds; '' where they are not known."""
    return figure(self.cost, 1e3 * self.cost.seconds) if self.has_roofline else ''


def main(argv: list[str]) -> int:
  """Compiles, prints the table, and returns 1 if the compiler failed at any program.

  Raises UserError before anything is compiled.
  """
  flags, overrides = cli.parse_args(argv, FLAGS)
  if flags.hlo:
    cli.check_folder(f'--hlo={flags.hlo}', flags.hlo)
  targets.set_environment(flags.target)
  if not flags.attention and not flags.config:
    raise UserError('--config: must be given; allowed: --config=FILE, or --attention')
  if flags.attention:
    cli.check_unused(flags, FLAGS, FLAGS_OF_STEP, 'without --attention')
  else:
    cli.check_unused(flags, FLAGS, FLAGS_OF_ATTENTION, 'with --attention')
  compile_all = attention_rows if flags.attention else step_rows
  rows, peaks = compile_all(flags, overrides)
  if flags.cases:
    print(f'\n{flags.target}\n\n{tables_of_cases(rows)}\n\n{NOTES_ON_CASES}')
  else:
    print(f'\n{flags.target}: {peaks}\n\n{table(rows)}\n\n{NOTES}')
  return 1 if any(row.status == 'failed' for row in rows) else 0


def step_rows(flags, overrides: dict) -> tuple[list[Row], targets.Peaks]:
  """The rows of a config's training step: of each run if it is a study, else one."""
  from . import programs

  study = configs.load_study(Path(flags.config))
  runs = {Path(flags.config).stem: {}}
  if hasattr(study, 'sweep'):
    # what a run starts from changes nothing in its program
    starts = 'train.init_from', 'train.init_step'
    fields = [{k: v for k, v in run.items() if k not in starts} for run in study.sweep()]
    runs = {configs.line_name(run): run for run in fields}
  if not any(flags.only in name for name in runs):
    raise UserError(f'--only={flags.only}: no such run; allowed: a part of {", ".join(runs)}')
  chosen = {
    name: configs.load(flags.config, run | overrides)
    for name, run in runs.items()
    if flags.only in name
  }
  chosen = {name: c for name, c in chosen.items() if c.train.steps}
  if not chosen:
    raise UserError(f'--config={flags.config}: trains nothing; allowed: a study that trains')
  for c in chosen.values():
    configs.validate(c)
  rows, peaks = [], None
  for name, c in chosen.items():
    mesh = make_mesh(flags.target, c.mesh)
    kind, precision = mesh.devices.flat[0].device_kind, c.train.matmul_precision
    peaks = targets.peaks(kind, c.train.compute_dtype, precision)
    trace = functools.partial(programs.trace_step, mesh, c)
    rows.append(compiled(name, trace, peaks, flags))
  return rows, peaks


def attention_rows(flags, overrides: dict) -> tuple[list[Row], targets.Peaks]:
  """The rows of attention: each encoding by each backend, in each case."""
  if overrides:
    path = next(iter(overrides))
    raise UserError(f'--config.{path}: changes the config of a step; allowed: without --attention')
  for name in ('length', 'batch', 'heads', 'head_dim', 'context'):
    if getattr(flags, name) < 1:
      raise UserError(f'--{name}={getattr(flags, name)}; allowed: 1 or more')
  if flags.dtype not in ('bfloat16', 'float32'):
    raise UserError(f'--dtype={flags.dtype}; allowed: bfloat16, float32')
  block_sizes = None
  if flags.block_sizes:
    if not re.fullmatch('[1-9][0-9]{0,4},[1-9][0-9]{0,4}', flags.block_sizes):
      raise UserError(f'--block_sizes={flags.block_sizes}; allowed: QUERIES,KEYS')
    block_sizes = tuple(map(int, flags.block_sizes.split(',')))

  from posenc_jax.attention import BACKENDS
  from posenc_jax.encodings import ENCODINGS

  from . import programs
  from .cases import CASES

  specs = list(ENCODINGS)
  if flags.encodings != 'all':
    specs = cli.words_of('encodings', flags.encodings, 'all, or one or more encodings')
  cli.check_names('encodings', (spec.partition('/')[0] for spec in specs), ENCODINGS)
  backends = cli.names_of('backends', flags.backends, ['auto', *BACKENDS])
  cases = cli.names_of('cases', flags.cases or 'causal', ['all', *CASES])
  cases = [*CASES] if 'all' in cases else cases
  base = configs.load(configs.BASE)
  base.mesh.context = flags.context
  mesh = make_mesh(flags.target, base.mesh)
  peaks = targets.peaks(mesh.devices.flat[0].device_kind, flags.dtype, 'default')
  sizes = {name: getattr(flags, name) for name in ('batch', 'length', 'heads', 'head_dim', 'dtype')}
  rows = []
  for backend, spec, case in itertools.product(backends, specs, cases):
    trace = functools.partial(
      programs.attention_program, mesh, spec, backend, sizes, block_sizes, CASES[case]
    )
    name = f'{spec} {backend}{f" {case}" if flags.cases else ""}'
    row = compiled(name, trace, peaks, flags)
    rows.append(dataclasses.replace(row, asked=(backend, case, spec)))
  return rows, peaks


def make_mesh(target: str, sizes):
  """The mesh of a config on a target. Raises UserError where it fits no part of its topology."""
  from posenc_jax.distributed import mesh as meshes

  number = sizes.seeds * sizes.data * sizes.fsdp * sizes.context
  devices = targets.devices(target, number)
  try:
    return meshes.make_mesh(sizes, devices)
  except (AssertionError, ValueError, NotImplementedError) as error:
    allowed = 'as many devices as a box of them has'
    raise UserError(
      f'--target={target}: a mesh of {number} fits no part of its topology; allowed: {allowed}'
    ) from error


def compiled(name: str, trace, peaks: targets.Peaks, flags) -> Row:
  """Traces and compiles one program, and says on a line how that went."""
  start = time.perf_counter()
  try:
    traced = trace()
  except (NotImplementedError, ValueError) as error:
    row = Row(name, 'refused', reason(error))
  except Exception as error:  # what is traced may go wrong in any way
    row = Row(name, 'failed', reason(error))
  else:
    row = compiled_row(name, traced, peaks, flags)
    row = dataclasses.replace(row, served_by=getattr(traced, 'backend', ''))
  how = f'{row.status}: {row.reason}'
  if row.cost is not None:
    how = f'compiles, {row.memory[0] / 2**20:,.0f} MiB'
    how += f', {row.roofline} ms at the roofline' if row.roofline else ''
  print(f'{name}: {how} ({time.perf_counter() - start:.0f} s)', flush=True)
  return row


def compiled_row(name: str, traced, peaks: targets.Peaks, flags) -> Row:
  """The row of a program that was traced."""
  try:
    program = traced.lower().compile()
  except Exception as error:  # each compiler has its own
    return Row(name, 'failed', reason(error))
  text, memory = program.as_text(), program.memory_analysis()
  if flags.hlo:
    folder = Path(flags.hlo)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{re.sub("[^A-Za-z0-9_,=.-]", "_", name)}.txt').write_text(text, encoding='utf-8')
  read = hlo.Program(text, *peaks, getattr(traced, 'unknown_turns', None))
  sizes = memory.temp_size_in_bytes, memory.argument_size_in_bytes
  has_roofline = math.isfinite(peaks.flops)
  return Row(
    name, 'yes', memory=sizes, kernels=read.kernels, cost=read.cost(), has_roofline=has_roofline
  )


def reason(error: Exception) -> str:
  """The reason that an error gives, in one line; where memory is short, how much it needs."""
  out_of_memory = r'temporaries \(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)'
  if used := re.search(out_of_memory, one_line(error)):
    return f'out of memory: temporaries take {used[1]}, there are {used[2]}'
  return one_line(error, MAX_REASON) or type(error).__name__


def table(rows: list[Row]) -> str:
  """The rows in Markdown."""
  headers = ['program', 'compiles', 'temporary', 'arguments', 'GFLOP', 'GB', 'kernels', 'launches']
  headers += ['roofline, ms', 'Mcycles', 'exchanged']
  lines = []
  for row in rows:
    if row.cost is None:
      lines.append([row.name, f'{row.status}: {row.reason}', *[''] * (len(headers) - 2)])
      continue
    cost, (temporary, arguments) = row.cost, row.memory
    lines.append(
      [
        row.name,
        'yes',
        f'{temporary / 2**20:,.0f}',
        f'{arguments / 2**20:,.0f}',
        figure(cost, cost.flops / 1e9),
        figure(cost, cost.bytes / 1e9),
        f'{row.kernels:,}',
        f'{"≤ " * cost.is_bound}{cost.launches:,.0f}',
        row.roofline,
        figure(cost, cost.cycles / 1e6) if cost.cycles and not cost.untimed else '',
        exchanged(cost),
      ]
    )
  align = ['left', 'left', *['right'] * 8, 'left']
  return tabulate.tabulate(lines, headers, 'pipe', disable_numparse=True, colalign=align)


def tables_of_cases(rows: list[Row]) -> str:
  """A table in Markdown for each backend: does each encoding compile in each case?

  Reasons are numbered, and stand below. Encodings or cases, of which there are more, are rows.
  """
  row_of = {row.asked: row for row in rows}
  backends, cases, specs = ([*dict.fromkeys(names)] for names in zip(*row_of, strict=True))
  numbers = {}

  def cell(row: Row) -> str:
    if row.status == 'yes':
      return row.served_by if row.asked[0] == 'auto' else 'yes'
    number = numbers.setdefault((row.status, row.reason), len(numbers) + 1)
    return f'{number}' if row.status == 'refused' else f'failed: {number}'

  texts = []
  for backend in backends:
    lines = [[case, *(cell(row_of[backend, case, spec]) for spec in specs)] for case in cases]
    lines = [[backend, *specs], *lines]
    if len(specs) > len(cases):
      lines = [*zip(*lines, strict=True)]
    texts.append(tabulate.tabulate(lines[1:], lines[0], 'pipe', disable_numparse=True))
  reasons = [f'{number}. {status}: {why}' for (status, why), number in numbers.items()]
  return '\n\n'.join([*texts, '\n'.join(reasons)]).rstrip()


def figure(cost: hlo.Cost, number: float) -> str:
  """A figure of a program; '' where it leaves out calls of which nothing says what they compute."""
  if cost.uncounted:
    return ''
  return f'{"≤ " * cost.is_bound}{number:,.3g}'


def exchanged(cost: hlo.Cost) -> str:
  """How many collectives of each kind there are, with the largest array that each exchanges.

  '4 all-gather (f32[8,2048,128])', and custom calls of which nothing says what they compute.
  """
  kinds = {}
  for (kind, array), times in cost.collectives.items():
    number, largest = kinds.get(kind, (0, array))
    kinds[kind] = number + times, max(array, largest, key=lambda a: math.prod(a.shape))
  parts = [f'{number:g} {kind} ({largest})' for kind, (number, largest) in kinds.items()]
  parts += [f'uncounted: {number:g} {name}' for name, number in cost.uncounted.most_common()]
  return ', '.join(parts)
