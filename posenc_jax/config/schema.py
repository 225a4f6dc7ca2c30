"""What can be said against a configuration without jax."""

import math
import re

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config.serialization import leaves
from posenc_jax.errors import UserError, hint

PROTOCOLS = ('last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field')
ANSWERS = 'answers'  # the protocol of a task
CONTROLS = ('windowed', 'shuffled_far')


def validate(config: ConfigDict) -> None:
  """Checks all that can be checked without jax. Raises `UserError` naming field, value and what is
  allowed.

  Encodings and backends are checked by `model.build`, corpora by `data.corpus`, trackers by
  `training.trackers.check`, before anything is compiled.
  """
  at_least = {
    5: 'launch.minutes',  # SLURM warns a job minutes before its end
    1: 'model.layers model.model_dim model.heads model.head_dim model.mlp_dim train.length train.batch train.log_every '
    ' train.validate_batches train.checkpoint_every train.max_to_keep train.grad_accum_steps eval.k eval.stride eval.spans '
    'eval.batch_tokens eval.examples data.vocab launch.nodes launch.tasks_per_node launch.cpus launch.memory_gb '
    'mesh.seeds mesh.data mesh.fsdp mesh.context',
    0: 'seed model.kv_heads model.unroll attention.window train.validate_every optim.warmup eval.documents '
    'train.max_nonfinite_updates eval.document_tokens data.shortest launch.gpus launch.max_concurrent',
  }
  fields = dict(leaves(config))
  for path in ' '.join(
    (
      *at_least.values(),
      'seeds vmap_seeds train.init_from eval.protocols eval.lengths eval.controls',
    )
  ).split():
    if path not in fields:
      raise UserError(
        f'config.{path}: missing; allowed: all fields of configs/base.py (an earlier version left it out)'
      )

  def require(path, holds, allowed):
    if not holds:
      raise UserError(f'config.{path}={fields[path]!r}; allowed: {allowed}')

  def one_of(path, names, value=None):
    value = fields[path] if value is None else value
    require(path, value in names, f'{", ".join(names)}; {hint(value, names)}'.removesuffix('; '))

  for bound, paths in at_least.items():
    for path in paths.split():
      require(path, fields[path] >= bound, f'{bound} or more')
  for path, value in fields.items():
    require(path, not isinstance(value, float) or math.isfinite(value), 'a finite number')
  model, attention, train, optim, evals = (
    config[s] for s in ('model', 'attention', 'train', 'optim', 'eval')
  )

  is_seed = lambda seed: type(seed) is int and 0 <= seed < 2**32
  require('seed', is_seed(config.seed), 'less than 2**32')
  distinct = len(set(config.seeds)) == len(config.seeds) and all(map(is_seed, config.seeds))
  require('seeds', distinct, 'whole numbers from 0 to 2**32 - 1, none twice')
  require('seed', not config.seeds or config.seed == 0, f'0, since config.seeds={config.seeds}')
  together = len(config.seeds) if config.vmap_seeds else 1
  require(
    'vmap_seeds',
    config.seeds or not config.vmap_seeds,
    'False, or with config.seeds, such as (0, 1, 2)',
  )
  require(
    'mesh.seeds', together % config.mesh.seeds == 0, f'a divisor of the seeds at once, {together}'
  )
  require('encoding.name', config.encoding.name, 'a name in posenc_jax.encodings.ENCODINGS')
  divides = model.kv_heads == 0 or model.heads % model.kv_heads == 0
  require('model.kv_heads', divides, f'a divisor of model.heads={model.heads}, or 0')
  one_of('model.share_encoding', ('paper', 'all', 'none'))
  require('model.logit_softcap', model.logit_softcap >= 0, '0 (off) or more')
  block_ok = attention.block_sizes == (0, 0) or (
    len(attention.block_sizes) == 2 and min(attention.block_sizes) > 0
  )
  require('attention.block_sizes', block_ok, '(query rows, key columns), each 1 or more, or (0, 0)')

  batches, mesh = config.mesh.data * config.mesh.fsdp, config.mesh
  by = f'a multiple of train.grad_accum_steps={train.grad_accum_steps} x mesh.data={mesh.data} x mesh.fsdp={mesh.fsdp}'
  require('train.batch', train.batch % (train.grad_accum_steps * batches) == 0, by)
  require(
    'train.length', train.length % mesh.context == 0, f'a multiple of mesh.context={mesh.context}'
  )
  # jax 0.12 cannot compile a ring for seeds that are cut
  apart = mesh.seeds == 1 or mesh.context == 1
  require('mesh.context', apart, f'1 with mesh.seeds={mesh.seeds}')
  one_of('train.compute_dtype', ('float32', 'bfloat16'))
  one_of('train.matmul_precision', ('default', 'high', 'highest'))
  require(
    'train.steps', train.steps >= (0 if train.init_from else 1), '1 or more; 0 with train.init_from'
  )
  require('optim.learning_rate', optim.learning_rate > 0, 'more than 0')
  require(
    'optim.warmup',
    optim.warmup <= train.steps or not train.steps,
    f'at most train.steps={train.steps}',
  )
  require('optim.final_fraction', 0 <= optim.final_fraction <= 1, '0 to 1')
  for beta in ('beta1', 'beta2'):
    require(f'optim.{beta}', 0 <= optim[beta] < 1, '0 or more, less than 1')
  for path in ('optim.weight_decay', 'optim.clip'):
    require(path, fields[path] >= 0, '0 (off) or more')

  n, m = train.profile_steps if len(train.profile_steps) == 2 else (1, 1)
  is_range = (
    len(train.profile_steps) in (0, 2)
    and type(n) is type(m) is int
    and 1 <= n <= m <= max(1, train.steps)
  )
  require(
    'train.profile_steps',
    is_range,
    f'(first step, last step) within 1 to train.steps={train.steps}, or ()',
  )
  asked = config.launch
  one_each = asked.nodes * asked.tasks_per_node == 1 or asked.gpus in (0, asked.tasks_per_node)
  require(
    'launch.gpus',
    one_each,
    f'0 or launch.tasks_per_node={asked.tasks_per_node}: several tasks have a GPU each',
  )
  for option in config.launch.options:
    named = isinstance(option, str) and re.fullmatch(r'[a-z][a-z-]*(=.*)?', option)
    require(
      'launch.options',
      named,
      "options of sbatch without dashes before them, such as 'qos=high', 'exclusive'",
    )

  one_of('eval.split', ('train', 'validation', 'test'))
  is_task = config.data.corpus.startswith(tasks.PREFIX)
  for name in evals.protocols:
    one_of('eval.protocols', (ANSWERS,) if is_task else PROTOCOLS, name)
  for name in evals.controls:
    one_of('eval.controls', ('windowed',) if is_task else CONTROLS, name)
  one_of('data.tokenizer', ('bytes',) if is_task else ('bytes', 'sentencepiece'))
  require(
    'data.shortest', config.data.shortest <= train.length, f'at most train.length={train.length}'
  )
  if is_task:
    _check_task(config)
  for path in ('eval.protocols', 'eval.lengths', 'eval.controls'):
    require(path, len(set(fields[path])) == len(fields[path]), 'none twice')
  for path in ('eval.protocols', 'eval.lengths'):
    require(path, fields[path], 'one or more')
  shortest, longest = min(evals.lengths), max(evals.lengths)
  within = f'at most the shortest of eval.lengths={evals.lengths}'
  require('eval.lengths', shortest >= 1, '1 or more tokens each')
  if 'last_k' in evals.protocols:
    require('eval.k', evals.k <= shortest, within)
  if 'sliding' in evals.protocols:
    require('eval.stride', evals.stride <= shortest, within)
  if 'receptive_field' in evals.protocols:
    require('eval.lengths', shortest >= 2, '2 or more tokens each for receptive_field')
  if 'by_position' in evals.protocols:
    whole = not 0 < evals.document_tokens < longest
    require(
      'eval.document_tokens', whole, f'{longest} or more for whole windows (by_position), or 0'
    )
  if 'shuffled_far' in evals.controls:
    require('eval.documents', evals.documents != 1, '2 or more for shuffled_far, or 0')


def _check_task(config: ConfigDict) -> None:
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
