"""The command line of scripts/bench.py: what to measure, then the tables."""

import dataclasses
import importlib.util
import re
from pathlib import Path

from rich.console import Console

from posenc_jax import config as configs
from posenc_jax import errors
from posenc_jax.distributed import devices
from posenc_jax.errors import Stopped, UserError, nearest

from . import cases, report
from .measure import measure

FLAGS = {
  'out': 'runs/bench',
  'attention': False,
  'step': False,
  'encodings': '',
  'backends': '',
  'lengths': '512,2048,8192,16384,32768',
  'passes': 'forward,both',
  'dtypes': '',
  'batch': 2,
  'heads': 8,
  'head_dim': 64,
  'shapes': '256x16,2048x2',
  'seeds': 0,
  'peers': '',
  'against': '',
  'repeats': 0,
  'budget': 15.0,
}
OF_SHAPES = ('train.length', 'train.batch', 'train.compute_dtype')


def main(argv: list[str]) -> int:
  """Measures and reports. Returns 1 where nothing could be measured. Raises UserError before
  anything starts.
  """
  flags, overrides = configs.parse_args(argv, FLAGS)
  left_out = []
  groups = plan(flags, overrides, left_out)
  out, console = Path(flags.out), Console(highlight=False, markup=False)
  with errors.user_errors(OSError):
    out.mkdir(parents=True, exist_ok=True)
  for line in left_out:
    console.print(line, soft_wrap=True)
  number = sum(len(group.cases) for group in groups)
  console.print(
    f'{out}: {number} cases in {len(groups)} groups, about {flags.budget:g} minutes at most'
  )
  try:
    rows = measure(groups, out, 60 * flags.budget, flags.repeats, console)
  except KeyboardInterrupt:
    raise Stopped(f'stopped; {out}/rows.jsonl has the groups that were finished', 130) from None
  text = report.markdown(rows, left_out)
  (out / 'bench.md').write_text(text, encoding='utf-8')
  print(f'\n{text}\n{out}/bench.md, {out}/rows.jsonl')
  return 0 if any(row['status'] == 'ok' for row in rows) else 1


def plan(flags, overrides: dict[str, object], left_out: list[str]) -> list[cases.Group]:
  """The groups that the flags ask for; adds to `left_out` a line for what is missing without having
  been asked for.
  """
  for name in ('batch', 'heads', 'head_dim'):
    _require(getattr(flags, name) >= 1, name, flags, '1 or more')
  _require(flags.seeds != 1 and flags.seeds >= 0, 'seeds', flags, '2 or more; 0: steps of one seed')
  _require(
    not flags.seeds or (flags.step and not flags.attention and not flags.peers),
    'seeds',
    flags,
    '0, or with --step and no --peers',
  )
  _require(flags.repeats >= 0, 'repeats', flags, '0 (as time allows) or more')
  _require(flags.budget > 0, 'budget', flags, 'minutes, more than 0')
  both = flags.attention == flags.step
  specs = _encodings(flags)
  peers = [] if flags.seeds else _peers(flags, both, left_out)
  groups = []
  if flags.attention or both:
    groups += _attention(flags, specs, peers, left_out)
  if flags.step or both:
    groups += _step(flags, specs or list(cases.STEP_ENCODINGS), peers, overrides, left_out)
  elif overrides:
    raise UserError(
      f'--config.{next(iter(overrides))}: changes the config of a step; allowed: with --step'
    )
  if flags.against:
    known = {case.name for group in groups for case in group.cases}
    if flags.against not in known:
      raise UserError(f'--against={flags.against}: no such case; {nearest(flags.against, known)}')
    groups = [_against(group, flags.against) for group in groups]
  return groups


def _require(holds: bool, name: str, flags, allowed: str) -> None:
  if not holds:
    raise UserError(f'--{name}={getattr(flags, name)}; allowed: {allowed}')


def _words(text: str) -> list[str]:
  return [word.strip() for word in configs.split(text, ',') if word.strip()]


def _names(flag: str, text: str, allowed) -> list[str]:
  words = _words(text)
  for word in words:
    if word not in allowed:
      raise UserError(f'--{flag}={word}: unknown; {nearest(word, allowed)}')
  if not words or len(set(words)) < len(words):
    raise UserError(f'--{flag}={text}; allowed: one or more of {", ".join(allowed)}, none twice')
  return words


def _numbers(flag: str, text: str) -> list[int]:
  words = _words(text)
  if (
    not words
    or len(set(words)) < len(words)
    or not all(re.fullmatch('[1-9][0-9]*', word) for word in words)
  ):
    raise UserError(
      f'--{flag}={text}; allowed: whole numbers of 1 or more, with commas between them, none twice'
    )
  return [int(word) for word in words]


def _encodings(flags) -> list[str]:
  """Names with their hyperparameters, each built in the abstract; none: the sections' own
  choice.
  """
  if not flags.encodings:
    return []
  import jax  # takes a second to import: after what can be checked without
  from flax import nnx

  from posenc_jax.encodings import ENCODINGS, make

  specs = list(ENCODINGS) if flags.encodings == 'all' else _words(flags.encodings)
  sizes = dict(model_dim=flags.heads * flags.head_dim, heads=flags.heads, head_dim=flags.head_dim)
  for spec in specs:
    with errors.user_errors(ValueError, TypeError):
      hyper = configs.encoding_of(spec)
      jax.eval_shape(
        lambda hyper=hyper: make(
          **hyper, **sizes, train_length=cases.TRAIN_LENGTH, rngs=nnx.Rngs(0)
        )
      )
  if not specs or len(set(specs)) < len(specs):
    raise UserError(f'--encodings={flags.encodings}; allowed: one or more, none twice, or all')
  return specs


def _peers(flags, both: bool, left_out: list[str]) -> list[str] | None:
  """Names of peers that are asked for; None: those that fit."""
  if flags.peers == 'none':
    return []
  allowed = [
    *(cases.ATTENTION_PEERS if flags.attention or both else ()),
    *(cases.STEP_PEERS if flags.step or both else ()),
  ]
  wanted = _names('peers', flags.peers, [*allowed, 'none']) if flags.peers else None
  if importlib.util.find_spec('torch') is None:
    left_out.append(
      "the peers in PyTorch are left out, torch is not installed: pip install -e '.[bench]'"
    )
    return []
  return wanted


def _attention(
  flags, specs: list[str], peers: list[str] | None, left_out: list[str]
) -> list[cases.Group]:
  from posenc_jax.attention import BACKENDS

  if flags.backends:
    methods = _names('backends', flags.backends, [*BACKENDS, cases.PLAIN])
  else:
    here = {'cudnn': bool(devices.gpu_extra()), 'ring': False}  # a case has one device
    methods = [name for name in (*BACKENDS, cases.PLAIN) if here.get(name, True)]
    if 'cudnn' not in methods:
      left_out.append('the backend cudnn is left out, it needs an NVIDIA GPU')
  if not specs:
    specs = list(cases.ATTENTION_ENCODINGS)
    left_out.append(
      f'attention of {", ".join(specs)} only; of every encoding: --attention --encodings=all --budget=90'
    )
  if peers is None:
    peers = [name for name in cases.ATTENTION_PEERS if cases.doing_work_of(name, specs)]
    alone = [
      spec
      for spec in specs
      if not any(cases.doing_work_of(name, [spec]) for name in cases.ATTENTION_PEERS)
    ]
    if alone and peers:
      left_out.append(f'attention in PyTorch is not written here for {", ".join(alone)}')
  passes = _names('passes', flags.passes, cases.PASSES)
  lengths = _numbers('lengths', flags.lengths)
  beyond = [str(T) for T in lengths if T > cases.LONG and 'both' in passes]
  if beyond:
    left_out.append(f'attention at {", ".join(beyond)} tokens is forward only')
  return cases.attention_groups(
    specs,
    methods,
    [name for name in peers if name in cases.ATTENTION_PEERS],
    lengths,
    passes,
    _names('dtypes', flags.dtypes or 'float32', cases.DTYPES),
    flags.batch,
    flags.heads,
    flags.head_dim,
  )


def _step(
  flags,
  specs: list[str],
  peers: list[str] | None,
  overrides: dict[str, object],
  left_out: list[str],
) -> list[cases.Group]:
  for path in overrides:
    if path in OF_SHAPES or path.partition('.')[0] == 'encoding':
      raise UserError(
        f'--config.{path}: is set by the bench; allowed: --shapes, --dtypes, --encodings'
      )
  shapes = []
  for word in _words(flags.shapes) or ['']:
    if not re.fullmatch('[1-9][0-9]*x[1-9][0-9]*', word):
      raise UserError(f'--shapes={flags.shapes}; allowed: LENGTHxBATCH, with commas between them')
    shapes.append(tuple(map(int, word.split('x'))))
  compiled = None
  if peers is None:
    peers, compiled = cases.STEP_PEERS, 'rope' if 'rope' in specs else specs[0]
    left_out.append(
      f'steps by torch.compile, half a minute of compilation each, are left out but for {compiled} in the first table; '
      f'all of them: --step --peers={",".join(cases.STEP_PEERS)}'
    )
  peers = [name for name in cases.STEP_PEERS if name in peers]
  dtypes = _names('dtypes', flags.dtypes or 'float32,bfloat16', cases.DTYPES)
  return cases.step_groups(specs, peers, shapes, dtypes, overrides, compiled, flags.seeds)


def _against(group: cases.Group, name: str) -> cases.Group:
  """With every ratio to one case, where the group has it."""
  if name not in {case.name for case in group.cases}:
    return group
  return dataclasses.replace(
    group, cases=tuple(dataclasses.replace(case, against=name) for case in group.cases)
  )
