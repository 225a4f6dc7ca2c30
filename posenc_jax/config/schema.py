"""The schema: what each field of a configuration may hold, and how fields must fit each other.

What needs jax is checked elsewhere, before anything is compiled: encodings and backends by
`model.build`, corpora by `data.corpus`.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config.serialization import leaves
from posenc_jax.errors import UserError, hint

PROTOCOLS = ('last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field')  # for text
TASK_PROTOCOL = 'answers'  # the only protocol for a task
# The protocols that are measured again under each control.
CONTROLS = {'windowed': ('last_k', 'by_position', TASK_PROTOCOL), 'shuffled_far': ('last_k',)}

# A check takes a field's value; it returns None, or, if the value is refused, what is allowed.
Check = Callable[[object], str | None]


def rule(holds: Callable[[object], bool], allowed: str) -> Check:
  return lambda value: None if holds(value) else allowed


def one_of(names: Collection[str]) -> Check:
  """Takes a name or a tuple of names; meets a misspelt one with the name that is near."""

  def check(value):
    for name in value if isinstance(value, tuple) else (value,):
      if name not in names:
        return '; '.join(filter(None, (', '.join(names), hint(name, names))))
    return None

  return check


def _same(check: Check, *names: str) -> dict[str, Check]:
  return dict.fromkeys(names, check)


def _is_seed(value: object) -> bool:
  return type(value) is int and 0 <= value < 2**32


def _are_distinct(values: tuple) -> bool:
  return len(set(values)) == len(values)


def _are_block_sizes(value: tuple) -> bool:
  return value == (0, 0) or (len(value) == 2 and min(value) > 0)


def _are_sbatch_options(options: tuple) -> bool:
  return all(isinstance(o, str) and re.fullmatch(r'[a-z][a-z-]*(=.*)?', o) for o in options)


ANYTHING = rule(lambda value: True, '')
POSITIVE = rule(lambda value: value >= 1, '1 or more')
NOT_NEGATIVE = rule(lambda value: value >= 0, '0 or more')
ZERO_IS_OFF = rule(lambda value: value >= 0, '0 (off) or more')
LESS_THAN_ONE = rule(lambda value: 0 <= value < 1, '0 or more, less than 1')
SEED = rule(_is_seed, '0 or more, less than 2**32')
SEEDS = rule(
  lambda seeds: all(map(_is_seed, seeds)) and _are_distinct(seeds),
  'whole numbers from 0 to 2**32 - 1, none twice',
)
NAMES = rule(lambda names: names and _are_distinct(names), 'one or more, none twice')
LENGTHS = rule(
  lambda lengths: lengths and min(lengths) >= 1 and _are_distinct(lengths),
  'one or more, each 1 or more tokens, none twice',
)
BLOCK_SIZES = rule(_are_block_sizes, '(query rows, key columns), each 1 or more, or (0, 0)')
SBATCH_OPTIONS = rule(
  _are_sbatch_options,
  "options of sbatch without dashes before them, such as 'qos=high', 'exclusive'",
)

# All fields of configs/base.py, section by section.
SECTIONS: dict[str, dict[str, Check]] = {
  '': {'seed': SEED, 'seeds': SEEDS, 'vmap_seeds': ANYTHING, 'label': ANYTHING},
  'encoding': {'name': rule(bool, 'a name in posenc_jax.encodings.ENCODINGS')},
  'model': {
    **_same(POSITIVE, 'layers', 'model_dim', 'heads', 'head_dim', 'mlp_dim'),
    **_same(NOT_NEGATIVE, 'kv_heads', 'unroll'),
    **_same(ANYTHING, 'qk_norm', 'tie_embeddings', 'remat'),
    'share_encoding': one_of(('paper', 'all', 'none')),
    'logit_softcap': ZERO_IS_OFF,
  },
  'attention': {
    **_same(NOT_NEGATIVE, 'window', 'chunk', 'sink_tokens'),
    'backend': ANYTHING,
    'block_sizes': BLOCK_SIZES,
  },
  'data': {
    **_same(ANYTHING, 'corpus', 'tokenizer', 'text_field', 'cache'),
    'shortest': NOT_NEGATIVE,
    'vocab': POSITIVE,
  },
  'train': {
    **_same(POSITIVE, 'length', 'batch', 'grad_accum_steps', 'log_every', 'validate_batches'),
    **_same(POSITIVE, 'checkpoint_every', 'max_to_keep'),
    **_same(NOT_NEGATIVE, 'steps', 'validate_every', 'max_nonfinite_updates'),
    **_same(ANYTHING, 'init_from', 'profile_steps'),
    'compute_dtype': one_of(('float32', 'bfloat16')),
    'matmul_precision': one_of(('default', 'high', 'highest')),
    'trackers': ANYTHING,  # `training.trackers.check` names them
  },
  'mesh': _same(POSITIVE, 'seeds', 'data', 'fsdp', 'context'),
  'optim': {
    'learning_rate': rule(lambda value: value > 0, 'more than 0'),
    'warmup': NOT_NEGATIVE,
    'final_fraction': rule(lambda value: 0 <= value <= 1, '0 to 1'),
    **_same(LESS_THAN_ONE, 'beta1', 'beta2'),
    **_same(ZERO_IS_OFF, 'weight_decay', 'clip'),
  },
  'eval': {
    **_same(POSITIVE, 'k', 'stride', 'spans', 'examples', 'batch_tokens'),
    **_same(NOT_NEGATIVE, 'documents', 'document_tokens'),
    'split': one_of(('train', 'validation', 'test')),
    'protocols': NAMES,
    'lengths': LENGTHS,
    'controls': rule(_are_distinct, 'none twice'),
  },
  'launch': {
    **_same(POSITIVE, 'nodes', 'tasks_per_node', 'cpus', 'memory_gb'),
    **_same(NOT_NEGATIVE, 'gpus', 'max_concurrent'),
    **_same(ANYTHING, 'partition', 'account', 'setup'),
    # SLURM warns a job minutes before its end
    'minutes': rule(lambda minutes: minutes >= 5, '5 or more'),
    'options': SBATCH_OPTIONS,
  },
}
FIELDS = {
  f'{section}.{name}'.removeprefix('.'): check
  for section, checks in SECTIONS.items()
  for name, check in checks.items()
}
# These depend on whether the corpus is text or a task.
TEXT_FIELDS = {
  'data.tokenizer': one_of(('bytes', 'sentencepiece')),
  'eval.protocols': one_of(PROTOCOLS),
  'eval.controls': one_of(CONTROLS),
}
TASK_FIELDS = {
  'data.tokenizer': one_of(('bytes',)),
  'eval.protocols': one_of((TASK_PROTOCOL,)),
  'eval.controls': one_of([name for name in CONTROLS if TASK_PROTOCOL in CONTROLS[name]]),
}


def validate(config: ConfigDict) -> None:
  """Raises `UserError`, which names field, value and what is allowed, for what may not be."""
  fields = dict(leaves(config))

  def refuse(path, allowed):
    raise UserError(f'config.{path}={fields[path]!r}; allowed: {allowed}')

  for path in FIELDS:
    if path not in fields:
      all_fields = 'all fields of configs/base.py (an earlier version left it out)'
      raise UserError(f'config.{path}: missing; allowed: {all_fields}')
  for path, value in fields.items():
    if isinstance(value, float) and not math.isfinite(value):
      refuse(path, 'a finite number')
  is_task = config.data.corpus.startswith(tasks.PREFIX)
  for path, check in [*FIELDS.items(), *(TASK_FIELDS if is_task else TEXT_FIELDS).items()]:
    if allowed := check(fields[path]):
      refuse(path, allowed)
  for relations in [_seeds, _sizes, _training, *([] if is_task else [_windows])]:
    for path, holds, allowed in relations(config):
      if not holds:
        refuse(path, allowed)
  if is_task:
    _check_task(config)


# Of each field that depends on others: its path, whether its value fits, and what is allowed.
Relations = Iterator[tuple[str, bool, str]]


def _seeds(config: ConfigDict) -> Relations:
  """Whether `seed`, `seeds` and what is done with several seeds go together."""
  seeds = config.seeds
  yield 'seed', not seeds or config.seed == 0, f'0, since config.seeds={seeds}'
  can_vmap = bool(seeds) or not config.vmap_seeds
  yield 'vmap_seeds', can_vmap, 'False, or with config.seeds, such as (0, 1, 2)'
  at_once = len(seeds) if config.vmap_seeds else 1
  is_divisor = at_once % config.mesh.seeds == 0
  yield 'mesh.seeds', is_divisor, f'a divisor of the seeds at once, {at_once}'


def _sizes(config: ConfigDict) -> Relations:
  """How heads, batches and sequences divide, and GPUs over the tasks of a SLURM job."""
  model, train, mesh, launch = config.model, config.train, config.mesh, config.launch
  is_divisor = model.kv_heads == 0 or model.heads % model.kv_heads == 0
  yield 'model.kv_heads', is_divisor, f'a divisor of model.heads={model.heads}, or 0'
  pieces = {
    'train.grad_accum_steps': train.grad_accum_steps,
    'mesh.data': mesh.data,
    'mesh.fsdp': mesh.fsdp,
  }
  factors = ' x '.join(f'{name}={number}' for name, number in pieces.items())
  is_multiple = train.batch % math.prod(pieces.values()) == 0
  yield 'train.batch', is_multiple, f'a multiple of {factors}'
  is_multiple = train.length % mesh.context == 0
  yield 'train.length', is_multiple, f'a multiple of mesh.context={mesh.context}'
  # jax 0.12 cannot compile a ring for seeds that are cut
  yield 'mesh.context', 1 in (mesh.seeds, mesh.context), f'1 with mesh.seeds={mesh.seeds}'
  each = launch.tasks_per_node
  fits = launch.nodes * each == 1 or launch.gpus in (0, each)
  yield 'launch.gpus', fits, f'0 or launch.tasks_per_node={each}: several tasks have a GPU each'


def _training(config: ConfigDict) -> Relations:
  """What must lie within the steps and the length of the training."""
  train, steps, warmup = config.train, config.train.steps, config.optim.warmup
  is_enough = steps > 0 or bool(train.init_from)
  yield 'train.steps', is_enough, '1 or more; 0 with train.init_from'
  remedy = f'--config.optim.warmup={steps // 10}'
  yield 'optim.warmup', warmup <= steps or not steps, f'at most train.steps={steps}: add {remedy}'
  fits = config.data.shortest <= train.length
  yield 'data.shortest', fits, f'at most train.length={train.length}'
  traced = train.profile_steps
  is_range = traced == () or (
    len(traced) == 2
    and all(type(step) is int for step in traced)
    and 1 <= traced[0] <= traced[1] <= max(1, steps)
  )
  allowed = f'(first step, last step) within 1 to train.steps={steps}, or ()'
  yield 'train.profile_steps', is_range, allowed


def _windows(config: ConfigDict) -> Relations:
  """What the protocols and controls of text need of the windows and the documents."""
  evals = config.eval
  shortest, longest = min(evals.lengths), max(evals.lengths)
  within = f'at most the shortest of eval.lengths={evals.lengths}'
  if 'last_k' in evals.protocols:
    yield 'eval.k', evals.k <= shortest, within
  if 'sliding' in evals.protocols:
    yield 'eval.stride', evals.stride <= shortest, within
  if 'receptive_field' in evals.protocols:
    yield 'eval.lengths', shortest >= 2, '2 or more tokens each for receptive_field'
  if 'by_position' in evals.protocols:
    allowed = f'{longest} or more for whole windows (by_position), or 0'
    yield 'eval.document_tokens', not 0 < evals.document_tokens < longest, allowed
  if 'shuffled_far' in evals.controls:
    yield 'eval.documents', evals.documents != 1, '2 or more for shuffled_far, or 0'


def _check_task(config: ConfigDict) -> None:
  """Raises `UserError` for a task that there is not, and for lengths that it cannot have."""
  corpus = config.data.corpus
  try:
    task = tasks.make(corpus.removeprefix(tasks.PREFIX), tuple)
  except ValueError as error:
    raise UserError(f'config.data.corpus={corpus!r}: {error}') from None
  asked = {
    'data.shortest': (config.data.shortest or task.shortest,),
    'train.length': (config.train.length,),
    'eval.lengths': config.eval.lengths,
  }
  for path, lengths in asked.items():
    for length in lengths:
      try:
        task.check_length(length)
      except ValueError as error:
        raise UserError(f'config.{path}: {corpus!r} with {error}') from None
