"""The rows as tables in Markdown, one table for each group."""

from itertools import groupby

import tabulate

from .cases import LARGE_MATMUL_SIZE, MATMUL_SIZE, SCORED_TOKENS, TOLERANCE
from .measure import WANTED_REPEATS

MISSING = '—'
MIB = 2**20

NOTES = {
  'attention': (
    'Attention alone: causal, with random inputs and a random cotangent. The backward pass is to '
    'q, k, v and all parameters of the encoding.',
    'time: median of the repeats, with their lower and upper quartile in brackets. ratio: median '
    'over the repeats of this time divided by that of the baseline in the same repeat.',
    'memory: what a call takes beyond its inputs (jax: temporaries and results of the compiled '
    'program; torch: growth of the resident set, on a GPU of what CUDA has allocated, with a bias '
    'that was made before).',
    'GFLOP/s: useful operations, those of the two products QK and PV over visible pairs only: '
    '4 K B H T (T + 1) / 2, times 3.5 for forward and backward, where H has the heads that an '
    'encoding makes. of peak: their share of the fastest matrix product that is measured between '
    f'the same repeats, {MATMUL_SIZE} wide on a CPU and {LARGE_MATMUL_SIZE} elsewhere.',
    'torch: sdpa is scaled_dot_product_attention; with a bias (sdpa_fixed, sdpa_table, '
    'sdpa_content), where it refuses is_causal, it visits all T^2 pairs. sdpa_fixed_causal is its '
    'kernel for CPUs, called directly, which skips later keys with a bias, too. bfloat16 stays '
    'bfloat16 where PyTorch has no kernel (allow_fp16_bf16_reduction_math_sdp). flex is compiled '
    'FlexAttention, not written here for transformer_xl; the others are compiled in the rows whose '
    'names say it.',
  ),
  'step': (
    "One whole step of training with the project's trainer and with PyTorch: loss, gradients, "
    'clipping, the optimizer; random tokens, the same for all. Parameters and moments are float32; '
    'bfloat16 in PyTorch is torch.autocast.',
    'gpt and x_transformers attend by scaled_dot_product_attention (x_transformers with t5 by its '
    'own products), none by FlexAttention.',
    "of peak: what the model's matrix products use of the FLOP/s that the maker of the GPU or TPU "
    'names for this dtype (training/mfu.py): 6 operations a weight and token, and 12 a query, '
    'visible key and channel without the causal mask.',
    'peak: the most memory that the process holds while it steps.',
  ),
  'evaluation': (
    f'One window of random tokens through an imported model: the nats of its last {SCORED_TOKENS} '
    'tokens, by the function that eval.py calls for last_k and by transformers with the same '
    'weights, the exported run. In bfloat16, transformers has weights, activations and logits in '
    'it, and here activations are. transformers runs without torch.compile.',
    'ratio: over 1, transformers takes longer.',
    'apart: the mean difference of the nats of a token, without sign, over the mean nats of the '
    'baseline. It is taken before any time. A group is timed only where it is at most '
    + ', '.join(f'{x:g} ({dtype})' for dtype, x in TOLERANCE.items())
    + '.',
    'peak: the most memory that the process holds while it evaluates; before: while it imported, '
    'loaded and compiled, and evaluated once.',
  ),
}


def milliseconds(row: dict) -> str:
  """'12.3 [12.1, 12.9]'."""
  number = lambda x: f'{1e3 * x:.3g}' if x < 0.1 else f'{1e3 * x:,.0f}'
  return f'{number(row["median"])} [{number(row["q1"])}, {number(row["q3"])}]'


def ratio(row: dict) -> str:
  if row['ratio'] is None:
    return MISSING
  return f'{row["ratio"]:.2f} [{row["ratio_q1"]:.2f}, {row["ratio_q3"]:.2f}]'


def optional(value: float | None, form: str = ',.0f') -> str:
  return MISSING if value is None else format(value, form)


def mebibytes(size: int | None) -> str:
  return optional(None if size is None else size / MIB)


TIMES = {
  'time, ms': milliseconds,
  'ratio': ratio,
  'baseline': lambda row: row['baseline'] if row['ratio'] else MISSING,
}
COLUMNS = {
  'attention': TIMES
  | {
    'memory, MiB': lambda row: mebibytes(row['temporary_bytes']),
    'GFLOP/s': lambda row: f'{row["gflops"]:,.0f}',
    'of peak': lambda row: optional(row['of_peak'], '.2f'),
  },
  'step': {'tokens/s': lambda row: f'{row["tokens_per_second"]:,.0f}'}
  | TIMES
  | {'of peak': lambda row: optional(row['of_peak'], '.2f')}
  | {'peak, MiB': lambda row: mebibytes(row['peak_bytes'])},
  'evaluation': {'tokens/s': lambda row: f'{row["tokens_per_second"]:,.0f}'}
  | TIMES
  | {'nats': lambda row: f'{row["nats"]:.4f}', 'apart': lambda row: f'{row["nats_apart"]:.1g}'}
  | {'peak, MiB': lambda row: mebibytes(row['peak_bytes'])}
  | {'before': lambda row: mebibytes(row['prepare_peak_bytes'])},
}
REPEATS = {'repeats': lambda row: str(len(row['seconds']))}


def note(row: dict) -> str:
  """What a reader must know about this row alone."""
  if row['status'] != 'ok':
    return f'{row["status"]}: {row["reason"]}'
  return f'fewer than {WANTED_REPEATS} repeats' if len(row['seconds']) < WANTED_REPEATS else ''


def table(rows: list[dict]) -> str:
  """The table of one group, with numbered notes below it."""
  columns = COLUMNS[rows[0]['section']] | REPEATS
  notes = list(dict.fromkeys(filter(None, map(note, rows))))
  lines = []
  for row in rows:
    cells = [text(row) if row['status'] == 'ok' else MISSING for text in columns.values()]
    mark = f'({notes.index(note(row)) + 1})' if note(row) else ''
    lines.append([row['name'], *cells, mark])
  align = ['left', *('left' if name == 'baseline' else 'right' for name in columns), 'left']
  headers = ['case', *columns, 'note']
  text = tabulate.tabulate(lines, headers, 'pipe', disable_numparse=True, colalign=align)
  return '\n\n'.join([text, *(f'({n}) {note}' for n, note in enumerate(notes, 1))])


def head(rows: list[dict], omissions: list[str]) -> list[str]:
  """The machine, the versions, the time, and what was not measured."""
  first = rows[0]
  memory = f'{first["memory_bytes"] / 2**30:.0f} GiB'
  spent = f'{first["budget_seconds"] / 60:g} minutes'
  versions = {
    '{framework} {version} on {device}, Python {python}'.format_map(row)
    for row in rows
    if 'version' in row
  }
  return [
    f'{first["cpu"]}, {first["cores"]} cores, {memory}; {first["date"]}; budget {spent}',
    *sorted(versions),
    *sorted({f'transformers {row["transformers"]}' for row in rows if 'transformers' in row}),
    *omissions,
  ]


def markdown(rows: list[dict], omissions: list[str]) -> str:
  """All of bench.md."""
  listed = lambda lines: '\n'.join(f'- {line}' for line in lines)
  paragraphs = ['# Benchmark', listed(head(rows, omissions))]
  for section, section_rows in groupby(rows, lambda row: row['section']):
    paragraphs += [f'## {section.capitalize()}', listed(NOTES[section])]
    for title, group_rows in groupby(section_rows, lambda row: row['group']):
      paragraphs += [f'### {title}', table(list(group_rows))]
  return '\n\n'.join(paragraphs) + '\n'
