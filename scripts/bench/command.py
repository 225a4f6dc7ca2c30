"""The command line of scripts/bench.py: reads what to measure, measures it, writes the tables."""

import contextlib
import dataclasses
import importlib.util
import re
from pathlib import Path

from rich.console import Console

from posenc_jax import cli, errors
from posenc_jax.distributed import devices
from posenc_jax.errors import Stopped, UserError, nearest

from . import cases, evaluation, tables
from .measure import measure

FLAGS = {
  'out': 'runs/bench',
  'attention': False,
  'step': False,
  'pretrained': '',
  'encodings': '',
  'backends': '',
  'lengths': '',
  'passes': 'forward,both',
  'dtypes': '',
  'batch': 2,
  'heads': 8,
  'head_dim': 64,
  'shapes': '256x16,2048x2',
  'seeds': 0,
  'peers': '',
  'baseline': '',
  'repeats': 0,
  'budget': 15.0,
}
FLAGS_OF_ATTENTION = 'backends', 'lengths', 'passes', 'batch', 'heads', 'head_dim'
FLAGS_OF_STEP = ('shapes',)
FLAGS_OF_EVALUATION = ('out', 'pretrained', 'lengths', 'dtypes', 'repeats', 'budget')
FIELDS_OF_FLAGS = ('train.length', 'train.batch', 'train.compute_dtype', 'encoding')


def main(argv: list[str]) -> int:
  """Measures and writes tables. Returns 1 if nothing could be measured. Raises UserError before
  anything starts.
  """
  flags, overrides = cli.parse_args(argv, FLAGS)
  cli.check_folder(f'--out={flags.out}', flags.out)
  omissions = []
  groups = plan(flags, overrides, omissions)
  out, console = Path(flags.out), Console(highlight=False, markup=False)
  cli.make_folder(out)
  for line in omissions:
    console.print(line, soft_wrap=True)
  number = sum(len(group.cases) for group in groups)
  console.print(
    f'{out}: {number} cases in {len(groups)} groups, about {flags.budget:g} minutes at most'
  )
  try:
    with evaluation.exported(groups) if flags.pretrained else contextlib.nullcontext():
      rows = measure(groups, out, 60 * flags.budget, flags.repeats, console)
  except KeyboardInterrupt:
    raise Stopped(f'stopped; {out}/rows.jsonl has the groups that were finished', 130) from None
  text = tables.markdown(rows, omissions)
  (out / 'bench.md').write_text(text, encoding='utf-8')
  print(f'\n{text}\n{out}/bench.md, {out}/rows.jsonl')
  return 0 if any(row['status'] == 'ok' for row in rows) else 1


def plan(flags, overrides: dict[str, object], omissions: list[str]) -> list[cases.Group]:
  """The groups that the flags ask for.

  Adds a line to `omissions` for everything that is left out although no flag excludes it.
  """
  for name in ('batch', 'heads', 'head_dim'):
    _require(getattr(flags, name) >= 1, name, flags, '1 or more')
  _require(flags.seeds != 1 and flags.seeds >= 0, 'seeds', flags, '2 or more; 0: steps of one seed')
  seeds_fit = not flags.seeds or (flags.step and not flags.attention and not flags.peers)
  _require(seeds_fit, 'seeds', flags, '0, or with --step and no --peers')
  _require(flags.repeats >= 0, 'repeats', flags, '0 (as time allows) or more')
  _require(flags.budget > 0, 'budget', flags, 'minutes, more than 0')
  if flags.pretrained:
    return _evaluation(flags, overrides)
  has_attention = flags.attention or not flags.step
  has_step = flags.step or not flags.attention
  if overrides and not has_step:
    path = next(iter(overrides))
    raise UserError(f'--config.{path}: changes the config of a step; allowed: with --step')
  if not has_step:
    cli.check_unused(flags, FLAGS, FLAGS_OF_STEP, 'with --step')
  if not has_attention:
    cli.check_unused(flags, FLAGS, FLAGS_OF_ATTENTION, 'with --attention')
  specs = _encodings(flags)
  peers = [] if flags.seeds else _peers(flags, has_attention, has_step, omissions)
  groups = []
  if has_attention:
    groups += _attention(flags, specs, peers, omissions)
    if not groups:
      allowed = f'a length of at most {cases.LONG_CONTEXT}, or --passes with forward'
      raise UserError(f'--lengths={flags.lengths} --passes={flags.passes}; allowed: {allowed}')
  if has_step:
    groups += _step(flags, specs or list(cases.STEP_ENCODINGS), peers, overrides, omissions)
  return _with_baseline(groups, flags.baseline) if flags.baseline else groups


def _require(holds: bool, name: str, flags, allowed: str) -> None:
  if not holds:
    raise UserError(f'--{name}={getattr(flags, name)}; allowed: {allowed}')


def _numbers(flag: str, text: str) -> list[int]:
  allowed = 'whole numbers of 1 or more, of at most 7 digits, with commas between them'
  words = cli.words_of(flag, text, allowed)
  if not all(re.fullmatch('[1-9][0-9]{0,6}', word) for word in words):
    raise UserError(f'--{flag}={text}; allowed: {allowed}, none twice')
  return [int(word) for word in words]


def _lengths(flags) -> list[int]:
  if flags.lengths:
    return _numbers('lengths', flags.lengths)
  return list(cases.EVALUATION_LENGTHS if flags.pretrained else cases.ATTENTION_LENGTHS)


def _shapes(text: str) -> list[tuple[int, int]]:
  """(length, batch) of each shape of a training step."""
  allowed = 'LENGTHxBATCH, with commas between them, of at most 7 digits each'
  words = cli.words_of('shapes', text, allowed)
  if not all(re.fullmatch('[1-9][0-9]{0,6}x[1-9][0-9]{0,6}', word) for word in words):
    raise UserError(f'--shapes={text}; allowed: {allowed}')
  return [tuple(map(int, word.split('x'))) for word in words]


def _encodings(flags) -> list[str]:
  """The names with their hyperparameters, each of which can be built; [] if none are given."""
  if not flags.encodings:
    return []
  import jax  # takes a second to import, so the other flags are checked before
  from flax import nnx

  from posenc_jax.encodings import ENCODINGS, make

  specs = list(ENCODINGS)
  if flags.encodings != 'all':
    specs = cli.words_of('encodings', flags.encodings, 'all, or one or more encodings')
  sizes = {
    'model_dim': flags.heads * flags.head_dim,
    'heads': flags.heads,
    'head_dim': flags.head_dim,
    'train_length': cases.TRAIN_LENGTH,
  }
  for spec in specs:
    with errors.user_errors(ValueError, TypeError):
      hyper = cli.encoding_of(spec)
      jax.eval_shape(lambda hyper=hyper: make(**hyper, **sizes, rngs=nnx.Rngs(0)))
  return specs


def _peers(flags, has_attention: bool, has_step: bool, omissions: list[str]) -> list[str] | None:
  """The names of the peers in PyTorch that the flags ask for. None: those that fit."""
  if flags.peers == 'none':
    return []
  wanted = None
  if flags.peers:
    of_attention = [*cases.ATTENTION_PEERS, *cases.JAX_PEERS] if has_attention else ()
    of_step = cases.STEP_PEERS if has_step else ()
    wanted = cli.names_of('peers', flags.peers, [*of_attention, *of_step, 'none'])
    if cases.JAX_PEERS.keys() >= {*wanted}:
      return []
  if importlib.util.find_spec('torch') is None:
    omissions.append(
      "the peers in PyTorch are left out, torch is not installed: pip install -e '.[bench]'"
    )
    return []
  if (devices.has_tpu() or devices.gpu_extra()) and not _torch_has_gpu():
    omissions.append('the peers in PyTorch are left out, it runs on the CPU here, jax does not')
    return []
  return wanted


def _jax_peers(flags, specs: list[str], omissions: list[str]) -> list[str]:
  """The peers of attention in jax that the flags ask for, or that fit and are installed."""
  if flags.peers:
    wanted = cli.words_of('peers', flags.peers, 'names of peers')
    return [name for name in cases.JAX_PEERS if name in wanted]
  fit = [name for name in cases.JAX_PEERS if cases.encoding_of_peer(name, specs)]
  absent = [name for name in fit if importlib.util.find_spec(name) is None]
  omissions += [f'the peer {x} is left out, it is not installed: pip install {x}' for x in absent]
  return [name for name in fit if name not in absent]


def _torch_has_gpu() -> bool:
  import torch  # takes seconds to import, and only an accelerator asks for it

  return torch.cuda.is_available()


def _attention(
  flags, specs: list[str], peers: list[str] | None, omissions: list[str]
) -> list[cases.Group]:
  from posenc_jax.attention import BACKENDS

  methods = list(BACKENDS)
  if flags.backends:
    methods = cli.names_of('backends', flags.backends, methods)
  else:
    methods.remove('ring')  # it needs several devices
    methods = [name for name in methods if not name.endswith('_interpret')]  # those are to check
    if not devices.has_tpu():
      methods = [name for name in methods if name not in ('splash', 'fused')]
      omissions.append('the backends splash and fused are left out, they need a TPU')
    if not devices.gpu_extra():
      methods = [name for name in methods if name not in ('cudnn', 'triton', 'diagonals')]
      omissions.append('the backends cudnn, triton and diagonals are left out, they are for GPUs')
  if not specs:
    specs = list(cases.ATTENTION_ENCODINGS)
    omissions.append(
      f'attention of {", ".join(specs)} only; '
      'of every encoding: --attention --encodings=all --budget=90'
    )
  if peers is None:
    fit = [name for name in cases.ATTENTION_PEERS if cases.encoding_of_peer(name, specs)]
    compiled = [name for name in fit if name.endswith('_compiled')]
    peers = [name for name in fit if name not in compiled]
    if compiled:
      omissions.append(
        'peers of attention by torch.compile, but for FlexAttention, are left out; with them: '
        f'--attention --peers={",".join(fit)}'
      )
    without_peer = [
      spec
      for spec in specs
      if not any(cases.encoding_of_peer(name, [spec]) for name in cases.ATTENTION_PEERS)
    ]
    if without_peer and peers:
      omissions.append(f'attention in PyTorch is not written here for {", ".join(without_peer)}')
  peers = [name for name in peers if name in cases.ATTENTION_PEERS]
  peers += _jax_peers(flags, specs, omissions)
  dtypes = flags.dtypes or 'float32'
  if not flags.dtypes and (devices.has_tpu() or devices.gpu_extra()):
    dtypes = 'bfloat16'  # as models are trained there; cudnn takes no float32
    omissions.append('attention in bfloat16 only; in both: --attention --dtypes=float32,bfloat16')
  passes = cli.names_of('passes', flags.passes, cases.PASSES)
  lengths = _lengths(flags)
  forward_only = [str(T) for T in lengths if T > cases.LONG_CONTEXT and 'both' in passes]
  if forward_only:
    omissions.append(f'attention at {", ".join(forward_only)} tokens is forward only')
  return cases.attention_groups(
    specs,
    methods,
    peers,
    lengths,
    passes,
    cli.names_of('dtypes', dtypes, cases.DTYPES),
    flags.batch,
    flags.heads,
    flags.head_dim,
  )


def _step(
  flags,
  specs: list[str],
  peers: list[str] | None,
  overrides: dict[str, object],
  omissions: list[str],
) -> list[cases.Group]:
  for path in overrides:
    if path in FIELDS_OF_FLAGS or path.startswith('encoding.'):
      raise UserError(
        f'--config.{path}: is set by the benchmark; allowed: --shapes, --dtypes, --encodings'
      )
    if path.partition('.')[0] == 'mesh':
      raise UserError(f'--config.{path}: steps are measured on one device; allowed: no mesh')
    if path in ('data.corpus', 'data.packing'):
      raise UserError(
        f'--config.{path}: steps are measured on bytes drawn at random; allowed: none'
      )
  shapes = _shapes(flags.shapes)
  compiled = None
  if peers is None:
    peers, compiled = cases.STEP_PEERS, 'rope' if 'rope' in specs else specs[0]
    omissions.append(
      'steps by torch.compile, half a minute of compilation each, are left out but for '
      f'{compiled} in the first table; all of them: --step --peers={",".join(cases.STEP_PEERS)}'
    )
  peers = [name for name in cases.STEP_PEERS if name in peers]
  dtypes = cli.names_of('dtypes', flags.dtypes or 'float32,bfloat16', cases.DTYPES)
  return cases.step_groups(specs, peers, shapes, dtypes, overrides, compiled, flags.seeds)


def _evaluation(flags, overrides: dict[str, object]) -> list[cases.Group]:
  others = [name for name in FLAGS if name not in FLAGS_OF_EVALUATION]
  allowed = ', '.join(f'--{flag}' for flag in FLAGS_OF_EVALUATION)
  cli.check_unused(flags, FLAGS, others, allowed)
  for path in overrides:
    raise UserError(f'--config.{path}: the run decides it; allowed: none, with --pretrained')
  dtypes = cli.names_of('dtypes', flags.dtypes or 'float32,bfloat16', cases.DTYPES)
  for library in ('torch', 'transformers'):
    if importlib.util.find_spec(library) is None:
      raise UserError(
        f'--pretrained={flags.pretrained}: needs {library}, which is not installed; '
        "allowed: pip install -e '.[bench,pretrained]'"
      )
  has_gpu = devices.gpu_extra()
  if devices.has_tpu() or has_gpu:
    hidden = ', or CUDA_VISIBLE_DEVICES= before the command' if has_gpu else ''
    raise UserError(
      f'--pretrained={flags.pretrained}: a CPU is measured, and here is a GPU or TPU; '
      f'allowed: a machine without{hidden}'
    )
  return evaluation.groups(flags.pretrained, flags.out, _lengths(flags), dtypes)


def _with_baseline(groups: list[cases.Group], name: str) -> list[cases.Group]:
  """The groups with all ratios to the case `name`, where a group has it."""
  known = {case.name for group in groups for case in group.cases}
  if name not in known:
    raise UserError(f'--baseline={name}: no such case; {nearest(name, known)}')
  changed = []
  for group in groups:
    if name in {case.name for case in group.cases}:
      of_group = tuple(dataclasses.replace(case, baseline=name) for case in group.cases)
      group = dataclasses.replace(group, cases=of_group)
    changed.append(group)
  return changed
