"""Tables of rows as Markdown, one a group."""

from collections.abc import Callable
from itertools import groupby

import tabulate

from .measure import WANTED

DASH = '—'
MIB = 2**20

NOTES = {
  'attention': (
    'Attention alone: causal, inputs and cotangent random; backward is to q, k, v and all parameters of the encoding.',
    'time: median of the repeats, in brackets their lower and upper quartile. ratio: median over the repeats of this '
    "time to that of the case under 'against', in the same repeat.",
    'memory: what a call takes beyond its inputs (jax: temporaries of the compiled program; torch: growth of the '
    'resident set, with a bias that was made before).',
    'GFLOP/s: useful operations, of the two products QK and PV over visible pairs only: 4 K B H T (T + 1) / 2, times '
    '3.5 for forward and backward. of peak: their share of the faster of the two matrix products (2048 wide) that are '
    'measured between the same repeats.',
  ),
  'step': (
    "One whole step of training with the project's trainer and with PyTorch: loss, gradients, clipping, AdamW; random "
    'tokens, the same for all. Parameters and moments are float32; bfloat16 in PyTorch is torch.autocast.',
    'peak: the most memory that the process holds while it steps.',
  ),
}


def milliseconds(row: dict) -> str:
  """'12.3 [12.1, 12.9]'."""
  number = lambda x: f'{1e3 * x:.3g}' if x < 0.1 else f'{1e3 * x:,.0f}'
  return f'{number(row["median"])} [{number(row["q1"])}, {number(row["q3"])}]'


def note(row: dict) -> str:
  """What a reader has to know of this row alone."""
  if row['status'] != 'ok':
    return f'{row["status"]}: {row["reason"]}'
  return f'fewer than {WANTED} repeats' if len(row['seconds']) < WANTED else ''


def ratio(row: dict) -> str:
  if row['ratio'] is None:
    return DASH
  return f'{row["ratio"]:.2f} [{row["ratio_q1"]:.2f}, {row["ratio_q3"]:.2f}]'


def mib(name: str) -> Callable[[dict], str]:
  return lambda row: DASH if row[name] is None else f'{row[name] / MIB:,.0f}'


def _measured(text: Callable[[dict], str]) -> Callable[[dict], str]:
  return lambda row: text(row) if row['status'] == 'ok' else DASH


TIMES = {
  'time, ms': milliseconds,
  'ratio': ratio,
  'against': lambda row: row['against'] if row['ratio'] else DASH,
}
COLUMNS = {
  'attention': TIMES
  | {
    'memory, MiB': mib('temporary_bytes'),
    'GFLOP/s': lambda row: f'{row["gflops"]:,.0f}',
    'of peak': lambda row: DASH if row['of_peak'] is None else f'{row["of_peak"]:.2f}',
  },
  'step': {'tokens/s': lambda row: f'{row["tokens_per_second"]:,.0f}'}
  | TIMES
  | {'peak, MiB': mib('peak_bytes')},
}
REPEATS = {'repeats': lambda row: str(len(row['seconds']))}


def table(rows: list[dict]) -> str:
  """The table of a group's rows, and below it what the rows' notes say."""
  columns = COLUMNS[rows[0]['section']] | REPEATS
  notes = list(dict.fromkeys(filter(None, map(note, rows))))
  mark = lambda row: f'({notes.index(note(row)) + 1})' if note(row) else ''
  lines = [
    [row['name'], *(_measured(text)(row) for text in columns.values()), mark(row)] for row in rows
  ]
  align = ['left', *['left' if name == 'against' else 'right' for name in columns], 'left']
  drawn = tabulate.tabulate(
    lines, ['case', *columns, 'note'], tablefmt='pipe', disable_numparse=True, colalign=align
  )
  return '\n\n'.join([drawn] + [f'({n}) {text}' for n, text in enumerate(notes, 1)])


def head(rows: list[dict], left_out: list[str]) -> list[str]:
  """The machine, the versions, the time, and what was not asked for."""
  first = rows[0]
  versions = sorted(
    {(r['framework'], r['version'], r['device'], r['python']) for r in rows if 'version' in r}
  )
  spent = f'{first["budget_seconds"] / 60:g} minutes'
  return [
    f'{first["cpu"]}, {first["cores"]} cores, {first["memory_bytes"] / 2**30:.0f} GiB; {first["date"]}; budget {spent}',
    *(
      f'{framework} {version} on {device}, Python {python}'
      for framework, version, device, python in versions
    ),
    *left_out,
  ]


def markdown(rows: list[dict], left_out: list[str]) -> str:
  """All of bench.md."""
  parts = ['# Benchmark', '\n'.join(f'- {line}' for line in head(rows, left_out))]
  for section, of_section in groupby(rows, lambda row: row['section']):
    parts += [f'## {section.capitalize()}', '\n'.join(f'- {line}' for line in NOTES[section])]
    for title, of_group in groupby(of_section, lambda row: row['group']):
      parts += [f'### {title}', table(list(of_group))]
  return '\n\n'.join(parts) + '\n'
