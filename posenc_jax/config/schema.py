"""The schema: what each field of a configuration may hold, and how fields must fit each other.

It takes any tree, also one that a stranger's file or a mistaken study made. What needs jax is
checked elsewhere, before anything is compiled: encodings and backends by `model.build`, corpora by
`data.corpus`; for all runs of a study together, by `evaluation.preflight`.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config.serialization import leaves
from posenc_jax.errors import UserError, hint, nearest, shown

# The protocols that ask a question about what is hidden in text.
TEXT_TASKS = (
  *('text_passkey', 'text_multikey', 'text_needles', 'text_multivalue', 'text_multiquery'),
  *('text_variables', 'text_frequent_words'),
)
PROTOCOLS = (  # for text
  *('last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field'),
  *('long_ppl', 'sink_rate', 'attention_distance', 'planted', *TEXT_TASKS),
)
# The protocols that score windows which a document holds whole.
WHOLE_WINDOWS = ('by_position', 'long_ppl', 'sink_rate', 'attention_distance', 'planted')
TASK_PROTOCOL = 'answers'  # the only protocol for a task
# The protocols that are measured again under each control.
CONTROLS = {
  **dict.fromkeys(
    ('windowed', 'windowed_with_sink', 'truncated'),
    ('last_k', 'by_position', 'planted', TASK_PROTOCOL),
  ),
  'shuffled_far': ('last_k',),
}

# Bounds far above what anyone needs, so that a slip of the keyboard is no hang and no overflow.
LARGEST = 2**31 - 1  # what an int32 holds
LARGEST_FLOAT = 3.4e38  # what a float32 holds
MAX_LAYERS = 1000
MAX_CHANNELS = 2**20
MAX_TOKENS = 2**24  # of a sequence
MAX_PARAMETERS = 2**36
MAX_BLOCK = 2**16  # rows or columns of a tile
MAX_MEASURED = 100_000  # documents, targets or examples of an evaluation
MAX_NUMBERED_HEADS = 250  # rows number heads up to 999; an encoding may make several of each
MAX_LABEL = 200  # characters
MAX_TEXT = 1000  # characters
MAX_DEPTH = 10  # sections within sections

# A check takes any value; it returns None, or, if the value is refused, what is allowed.
Check = Callable[[object], str | None]


def flag(value: object) -> str | None:
  """Takes True and False."""
  return None if isinstance(value, bool) else 'True or False'


def whole(least: int, most: int = LARGEST) -> Check:
  """Takes whole numbers from `least` to `most`."""

  def check(value):
    if type(value) is not int:
      return f'a whole number, {least} or more'
    if value > most:
      return f'{least} to {most}'
    return None if value >= least else f'{least} or more'

  return check


def number(holds: Callable[[float], bool], allowed: str) -> Check:
  """Takes numbers that float32 holds and that `holds` is true of."""

  def check(value):
    if not isinstance(value, float) and whole(-LARGEST)(value):
      return 'a finite number (with a point, as 1e10, if it is large)'
    if not abs(value) <= LARGEST_FLOAT:
      return 'a finite number'
    return None if holds(value) else allowed

  return check


def text(most: int = MAX_TEXT) -> Check:
  """Takes text of one line without control characters."""

  def check(value):
    if not isinstance(value, str):
      return 'text'
    if not value.isprintable():
      return 'text without line breaks, control characters and the like'
    return None if len(value) <= most else f'at most {most} characters'

  return check


def several(element: Check, allowed: str, least: int = 0, can_repeat: bool = False) -> Check:
  """Takes tuples of `least` or more elements that `element` takes."""

  def check(value):
    if not isinstance(value, tuple) or len(value) < least or any(map(element, value)):
      return allowed
    return None if can_repeat or len(set(value)) == len(value) else allowed

  return check


def one_of(names: Collection[str]) -> Check:
  """Takes a name or a tuple of names; meets a misspelt one with the name that is near."""

  def check(value):
    for name in value if isinstance(value, tuple) else (value,):
      if not isinstance(name, str) or name not in names:
        return '; '.join(filter(None, (', '.join(names), hint(name, names))))
    return None

  return check


def _same(check: Check, *names: str) -> dict[str, Check]:
  return dict.fromkeys(names, check)


def _seed(value: object) -> str | None:
  is_seed = type(value) is int and 0 <= value < 2**32
  return None if is_seed else '0 or more, less than 2**32'


def _block_sizes(value: object) -> str | None:
  is_pair = isinstance(value, tuple) and len(value) == 2
  holds = is_pair and not any(map(whole(0, MAX_BLOCK), value)) and (value == (0, 0) or all(value))
  return None if holds else '(query rows, key columns), each 1 or more, or (0, 0)'


def _shell_line(value: object) -> str | None:
  """Takes a line that a shell executes; one that begins with # could be a directive of sbatch."""
  is_line = not text()(value) and not value.lstrip().startswith('#')
  return None if is_line else 'a line for a shell'


def _sbatch_option(value: object) -> str | None:
  """Takes an option that sets none of RESERVED_OPTIONS; sbatch takes beginnings of names, too."""
  holds = not text()(value) and re.fullmatch(r'[a-z][a-z-]*(=.*)?', value)
  if holds and (name := value.partition('=')[0]) != 'gpus':  # a whole name, though a beginning
    holds = not any(reserved.startswith(name) for reserved in RESERVED_OPTIONS)
  return None if holds else 'an option of sbatch'


# Options of sbatch that the fields of `launch` and the launcher set, and those with which the
# script of a job, or what sbatch prints, would be another one. `wckey` may be set: the one that
# submitit writes means nothing, and some clusters need another.
RESERVED_OPTIONS = (
  *('account', 'array', 'cpus-per-task', 'dependency', 'error', 'gpus-per-node', 'job-name', 'mem'),
  *('mem-per-cpu', 'mem-per-gpu', 'no-requeue', 'nodes', 'ntasks', 'ntasks-per-node', 'open-mode'),
  *('output', 'partition', 'requeue', 'signal', 'time'),
  *('chdir', 'help', 'input', 'parsable', 'quiet', 'test-only', 'usage', 'version', 'wait', 'wrap'),
)


def _tokenizer(value: object) -> str | None:
  """Takes a tokenizer by name, or a path that ends in .json."""
  if isinstance(value, str) and value.endswith('.json'):
    return None
  refused = one_of(('bytes', 'sentencepiece'))(value)
  return refused and f'the path of a tokenizer.json, {refused}'


def _encoding_name(value: object) -> str | None:
  return None if value and not text()(value) else 'a name in posenc_jax.encodings.ENCODINGS'


POSITIVE, NOT_NEGATIVE, CHANNELS = whole(1), whole(0), whole(1, MAX_CHANNELS)
ZERO_IS_OFF = number(lambda value: value >= 0, '0 (off) or more')
LESS_THAN_ONE = number(lambda value: 0 <= value < 1, '0 or more, less than 1')
SEEDS = several(_seed, 'whole numbers from 0 to 2**32 - 1, none twice')
NAMES = several(text(), 'one or more names, none twice', least=1)
CONTROL_NAMES = several(text(), 'none, or names, none twice')
LENGTHS = several(
  whole(1, MAX_TOKENS),
  f'one or more, each 1 or more tokens (at most {MAX_TOKENS}), none twice',
  least=1,
)
TRACED_STEPS = several(whole(1), '(first step, last step), or ()', can_repeat=True)
SHELL_LINES = several(
  _shell_line,
  "lines of text that do not begin with #, such as ('module load cuda',), or ()",
  can_repeat=True,
)
SBATCH_OPTIONS = several(
  _sbatch_option,
  "options of sbatch without dashes before them, such as 'qos=high', 'exclusive'; none that "
  'config.launch or the launcher sets otherwise',
  can_repeat=True,
)

# All fields of configs/base.py, section by section.
SECTIONS: dict[str, dict[str, Check]] = {
  '': {'seed': _seed, 'seeds': SEEDS, 'vmap_seeds': flag, 'label': text(MAX_LABEL)},
  'encoding': {'name': _encoding_name},
  'model': {
    **_same(CHANNELS, 'model_dim', 'heads', 'head_dim', 'mlp_dim'),
    'layers': whole(1, MAX_LAYERS),
    'kv_heads': whole(0, MAX_CHANNELS),
    'unroll': whole(0, MAX_LAYERS),
    'mlp': one_of(('gelu', 'gelu_exact', 'geglu', 'swiglu')),
    'norm': one_of(('rms', 'layer')),
    'norm_placement': one_of(('pre', 'post', 'output', 'sandwich')),
    'output_gate': one_of(('none', 'elementwise', 'headwise')),
    'bias': one_of(('none', 'qkv', 'all')),
    'qk_norm': one_of(('none', 'head', 'projection')),
    'norm_eps': number(lambda value: 0 < value < 1, 'more than 0, less than 1'),
    'embedding_scale': ZERO_IS_OFF,
    'vocab': whole(0, MAX_CHANNELS),
    'bos': whole(-1, MAX_CHANNELS),
    **_same(flag, 'shared_kv', 'tie_embeddings', 'parallel_residual', 'embedding_norm'),
    'share_encoding': one_of(('paper', 'all', 'none')),
    'logit_softcap': ZERO_IS_OFF,
    'remat': one_of(('none', 'products', 'attention', 'layer')),
  },
  'attention': {
    **_same(NOT_NEGATIVE, 'window', 'chunk', 'sink_tokens'),
    'backend': text(),
    'softcap': ZERO_IS_OFF,
    'block_sizes': _block_sizes,
  },
  'data': {
    **_same(text(), 'corpus', 'tokenizer', 'text_field', 'cache'),
    'shortest': whole(0, MAX_TOKENS),
    'vocab': CHANNELS,
    'packed': flag,
  },
  'train': {
    'length': whole(1, MAX_TOKENS),
    **_same(POSITIVE, 'batch', 'grad_accum_steps', 'log_every', 'validate_batches'),
    **_same(POSITIVE, 'checkpoint_every', 'max_to_keep'),
    **_same(NOT_NEGATIVE, 'steps', 'validate_every', 'max_nonfinite_updates'),
    'init_from': text(),
    'profile_steps': TRACED_STEPS,
    'trained_parameters': several(
      text(), "patterns of paths, none twice, such as ('encodings/*',)"
    ),
    'compute_dtype': one_of(('float32', 'bfloat16')),
    'matmul_precision': one_of(('default', 'high', 'highest')),
    # `training.trackers.check` names them
    'trackers': several(text(), 'names of trackers, none twice, or ()'),
  },
  'mesh': _same(POSITIVE, 'seeds', 'data', 'fsdp', 'context'),
  'optim': {
    'learning_rate': number(lambda value: value > 0, 'more than 0'),
    'warmup': NOT_NEGATIVE,
    'final_fraction': number(lambda value: 0 <= value <= 1, '0 to 1'),
    **_same(LESS_THAN_ONE, 'beta1', 'beta2'),
    **_same(ZERO_IS_OFF, 'weight_decay', 'clip'),
  },
  'eval': {
    **_same(POSITIVE, 'k', 'stride', 'batch_tokens', 'sink_tokens'),
    'target_context': whole(1, MAX_TOKENS),
    **_same(whole(1, MAX_MEASURED), 'spans', 'examples'),
    'documents': whole(0, MAX_MEASURED),
    'document_tokens': NOT_NEGATIVE,
    'long_ppl_context': whole(0, MAX_TOKENS),
    'long_ppl_alpha': number(lambda value: value > 0, 'more than 0 nats'),
    'long_ppl_beta': number(lambda value: value <= 0, '0 or less nats'),
    'long_ppl_evaluator': text(),
    'compute_dtype': one_of(('float32', 'bfloat16')),
    'sink_rate_tokens': whole(2, MAX_TOKENS),
    'sink_rate_epsilon': number(lambda value: 0 < value < 1, 'more than 0, less than 1'),
    'split': one_of(('train', 'validation', 'test')),
    'protocols': NAMES,
    'lengths': LENGTHS,
    'controls': CONTROL_NAMES,
  },
  'launch': {
    **_same(POSITIVE, 'nodes', 'tasks_per_node', 'cpus', 'memory_gb'),
    **_same(NOT_NEGATIVE, 'gpus', 'max_concurrent'),
    **_same(text(), 'partition', 'account'),
    'setup': SHELL_LINES,
    'minutes': whole(5),  # SLURM warns a job minutes before its end
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
  'data.tokenizer': _tokenizer,
  'eval.protocols': one_of(PROTOCOLS),
  'eval.controls': one_of(CONTROLS),
}
TASK_FIELDS = {
  'data.tokenizer': one_of(('bytes',)),
  'data.packed': lambda value: 'False for a task' if value else None,
  'eval.protocols': one_of((TASK_PROTOCOL,)),
  'eval.controls': one_of([name for name in CONTROLS if TASK_PROTOCOL in CONTROLS[name]]),
}


def validate(config: ConfigDict, is_trained: bool = False) -> None:
  """Raises `UserError`, which names field, value and what is allowed, for what may not be.

  A run that is trained may be evaluated on a task that has no examples of its training length.
  """
  fields = _known_fields(config)
  _check_values(fields, FIELDS)
  task = _task(config)
  _check_values(fields, TEXT_FIELDS if task is None else TASK_FIELDS)
  for relations in [_seeds, _sizes, _training, *([_windows] if task is None else [])]:
    for path, holds, allowed in relations(config):
      if not holds:
        _refuse(path, fields[path], allowed)
  if task is not None:
    _check_lengths(config, task, is_trained)


def validate_data(config: ConfigDict) -> None:
  """Raises `UserError` for what may not be in `data`, and for lengths of the evaluation.

  It is for those who only look at a corpus: the other fields may be meant for another one.
  """
  fields = _known_fields(config)
  checked = [path for path in FIELDS if path.startswith('data.')]
  _check_values(fields, {path: FIELDS[path] for path in (*checked, 'eval.lengths')})
  by_corpus = TEXT_FIELDS if _task(config) is None else TASK_FIELDS
  _check_values(fields, {'data.tokenizer': by_corpus['data.tokenizer']})


def _known_fields(config: ConfigDict) -> dict[str, object]:
  """{'dotted.path': value}. Raises `UserError` for fields that base.py lacks or alone has."""
  _check_sections(config)
  fields = dict(leaves(config))
  for path in fields:
    if path not in FIELDS and not path.startswith('encoding.'):
      raise UserError(f'config.{path}: no such field; {nearest(path, FIELDS)}')
  for path in FIELDS:
    if path not in fields:
      all_fields = 'all fields of configs/base.py (an earlier version left it out)'
      raise UserError(f'config.{path}: missing; allowed: {all_fields}')
  return fields


def _check_values(fields: dict[str, object], checks: dict[str, Check]) -> None:
  for path, check in checks.items():
    if allowed := check(fields[path]):
      _refuse(path, fields[path], allowed)


def _refuse(path: str, value: object, allowed: str) -> None:
  raise UserError(f'config.{path}={shown(value)}; allowed: {allowed}')


def _check_sections(config: ConfigDict) -> None:
  """Raises `UserError` where a section is none, or the encoding's hyperparameters are no tree."""
  for name in SECTIONS:
    if name and name in config and not isinstance(config[name], Mapping | ConfigDict):
      example = next(iter(SECTIONS[name]))
      raise UserError(
        f'config.{name}={shown(config[name])}; allowed: a section, with {name}.{example} and others'
      )
  for name, value in config.items():
    check_tree(str(name), value)


def check_tree(path: str, value: object, depth: int = MAX_DEPTH) -> None:
  """Raises `UserError` for what cannot be written to config.json and read back."""
  if isinstance(value, Mapping | ConfigDict | tuple | list):
    if depth == 0:
      raise UserError(f'config.{path}: nested more than {MAX_DEPTH} deep; allowed: less')
    if isinstance(value, Mapping | ConfigDict):
      for key, element in value.items():
        if text()(key) or not key:
          raise UserError(f'config.{path}: has a field {shown(key)}; allowed: names')
        check_tree(f'{path}.{key}', element, depth - 1)
      return
    for element in value:
      check_tree(path, element, depth - 1)
  elif allowed := _leaf(value):
    raise UserError(f'config.{path}={shown(value)}; allowed: {allowed}')


def _leaf(value: object) -> str | None:
  """Takes what may be a value in a config.json."""
  if isinstance(value, str):
    return text()(value)
  if isinstance(value, float):
    return None if math.isfinite(value) else 'a finite number'
  if isinstance(value, bool) or value is None:
    return None
  if not isinstance(value, int):
    return 'numbers, text, True, False, None, and tuples and dicts of these'
  return None if abs(value) <= 2**32 else f'at most {2**32} in size; more with a point, as 1e10'


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
  most = LARGEST // train.length
  yield 'train.batch', train.batch <= most, f'at most {most} with train.length={train.length}'
  widest = max(model.mlp_dim, model.heads * model.head_dim)
  fits = not model.parallel_residual or model.norm_placement == 'pre'
  yield 'model.norm_placement', fits, "'pre' with model.parallel_residual"
  fits = model.layers * model.model_dim * widest <= MAX_PARAMETERS
  yield 'model.model_dim', fits, f'a model whose matrices have at most {MAX_PARAMETERS} numbers'
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
  is_range = traced == () or (len(traced) == 2 and traced[0] <= traced[1] <= max(1, steps))
  allowed = f'(first step, last step) within 1 to train.steps={steps}, or ()'
  yield 'train.profile_steps', is_range, allowed


def _windows(config: ConfigDict) -> Relations:
  """What the protocols and controls of text need of the windows and the documents."""
  evals = config.eval
  shortest, longest = min(evals.lengths), max(evals.lengths)
  each = f'at most eval.target_context={evals.target_context} each'
  yield 'eval.lengths', longest <= evals.target_context, each
  within = f'at most the shortest of eval.lengths={evals.lengths}'
  if 'last_k' in evals.protocols:
    yield 'eval.k', evals.k <= shortest, within
    if 'truncated' in evals.controls:
      length = config.train.length
      yield 'eval.k', evals.k <= length, f'at most train.length={length} for truncated'
  if 'sliding' in evals.protocols:
    yield 'eval.stride', evals.stride <= shortest, within
  if 'receptive_field' in evals.protocols:
    yield 'eval.lengths', shortest >= 2, '2 or more tokens each for receptive_field'
  if whole_windows := [name for name in evals.protocols if name in WHOLE_WINDOWS]:
    allowed = f'{longest} or more for whole windows ({", ".join(whole_windows)}), or 0'
    yield 'eval.document_tokens', not 0 < evals.document_tokens < longest, allowed
  if 'long_ppl' in evals.protocols:
    context = evals.long_ppl_context or config.train.length
    allowed = f'one more than the short context of long_ppl, {context} tokens'
    yield 'eval.lengths', longest > context, allowed
  if 'sink_rate' in evals.protocols:
    allowed = f'at most the longest of eval.lengths={evals.lengths}'
    yield 'eval.sink_rate_tokens', evals.sink_rate_tokens <= longest, allowed
  if 'attention_distance' in evals.protocols:
    fits = config.model.heads <= MAX_NUMBERED_HEADS
    yield 'model.heads', fits, f'at most {MAX_NUMBERED_HEADS} for attention_distance'
  if asked := [name for name in evals.protocols if name in TEXT_TASKS]:
    # rows are told apart by their depth in whole per cent
    yield 'eval.spans', evals.spans <= 50, f'1 to 50 depths for {", ".join(asked)}'
  if 'planted' in evals.protocols:
    has_names = config.data.corpus == 'planted' and config.data.tokenizer == 'bytes'
    allowed = "without planted, or with data.corpus='planted' and data.tokenizer='bytes'"
    yield 'eval.protocols', has_names, allowed
    # Two documents may have names that begin alike.
    yield 'data.packed', not config.data.packed, 'False with the protocol planted'
  if 'shuffled_far' in evals.controls:
    yield 'eval.documents', evals.documents != 1, '2 or more for shuffled_far, or 0'


def _task(config: ConfigDict) -> tasks.Task | None:
  """The task that the corpus is, or None for text. Raises `UserError` for one that there is not."""
  corpus = config.data.corpus
  if not corpus.startswith(tasks.PREFIX):
    return None
  try:
    return tasks.make(corpus.removeprefix(tasks.PREFIX), tuple)
  except ValueError as error:
    raise UserError(f'config.data.corpus={corpus!r}: {error}') from None


def _check_lengths(config: ConfigDict, task: tasks.Task, is_trained: bool) -> None:
  """Raises `UserError` for lengths that the task cannot have, and for too many tokens."""
  asked = {'eval.lengths': config.eval.lengths}
  if not is_trained:
    shortest = config.data.shortest or task.shortest
    asked = {'data.shortest': (shortest,), 'train.length': (config.train.length,)} | asked
  for path, lengths in asked.items():
    for length in lengths:
      try:
        task.check_length(length)
      except ValueError as error:
        raise UserError(f'config.{path}: {config.data.corpus!r} with {error}') from None
  most = LARGEST // max(config.eval.lengths)
  if config.eval.examples > most:
    allowed = f'1 to {most} with eval.lengths={config.eval.lengths}'
    raise UserError(f'config.eval.examples={config.eval.examples}; allowed: {allowed}')
