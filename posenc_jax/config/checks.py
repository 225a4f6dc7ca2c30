"""What can be said against a configuration without jax."""

import math

from ml_collections import ConfigDict

from posenc_jax.config.errors import UserError, hint
from posenc_jax.config.saving import leaves

PROTOCOLS = ('last_k', 'blocks', 'sliding', 'by_position', 'receptive_field')
CONTROLS = ('windowed', 'shuffled_far')


def validate(config: ConfigDict) -> None:
  """Checks all that can be checked without jax. Raises `UserError` naming field, value and what is allowed.

  Encodings and backends are checked by `model.build`, corpora by `data.corpus`, before anything is compiled.
  """
  at_least = {
    1: 'model.layers model.model_dim model.heads model.head_dim model.mlp_dim train.length train.batch train.log_every '
    ' train.validate_batches train.checkpoint_every train.keep train.accumulate eval.k eval.stride eval.spans '
    'eval.batch_tokens mesh.data mesh.fsdp mesh.context',
    0: 'seed model.kv_heads model.unroll attention.window train.validate_every optim.warmup eval.documents '
    'eval.document_tokens',
  }
  fields = dict(leaves(config))

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
  model, attention, train, optim, evals = (config[s] for s in ('model', 'attention', 'train', 'optim', 'eval'))

  require('seed', config.seed < 2**32, 'less than 2**32')
  require('encoding.name', config.encoding.name, 'a name in posenc_jax.encodings.ENCODINGS')
  divides = model.kv_heads == 0 or model.heads % model.kv_heads == 0
  require('model.kv_heads', divides, f'a divisor of model.heads={model.heads}, or 0')
  one_of('model.share_encoding', ('paper', 'all', 'none'))
  require('model.logit_softcap', model.logit_softcap >= 0, '0 (off) or more')
  block_ok = len(attention.block) == 2 and min(attention.block) >= 0
  require('attention.block', block_ok, '(query rows, key columns), each 0 or more')

  batches, mesh = config.mesh.data * config.mesh.fsdp, config.mesh
  by = f'a multiple of train.accumulate={train.accumulate} x mesh.data={mesh.data} x mesh.fsdp={mesh.fsdp}'
  require('train.batch', train.batch % (train.accumulate * batches) == 0, by)
  require('train.length', train.length % mesh.context == 0, f'a multiple of mesh.context={mesh.context}')
  one_of('train.compute_dtype', ('float32', 'bfloat16'))
  one_of('train.matmul_precision', ('default', 'high', 'highest'))
  require('train.steps', train.steps >= (0 if train.start_from else 1), '1 or more; 0 with train.start_from')
  require('optim.learning_rate', optim.learning_rate > 0, 'more than 0')
  require('optim.warmup', optim.warmup <= train.steps or not train.steps, f'at most train.steps={train.steps}')
  require('optim.final_fraction', 0 <= optim.final_fraction <= 1, '0 to 1')
  for beta in ('beta1', 'beta2'):
    require(f'optim.{beta}', 0 <= optim[beta] < 1, '0 or more, less than 1')
  for path in ('optim.weight_decay', 'optim.clip'):
    require(path, fields[path] >= 0, '0 (off) or more')

  one_of('eval.split', ('train', 'validation', 'test'))
  for name in evals.protocols:
    one_of('eval.protocols', PROTOCOLS, name)
  for name in evals.controls:
    one_of('eval.controls', CONTROLS, name)
  for path in ('eval.protocols', 'eval.lengths', 'eval.controls'):
    require(path, len(set(fields[path])) == len(fields[path]), 'none twice')
  for path in ('eval.protocols', 'eval.lengths'):
    require(path, fields[path], 'one or more')
  shortest, longest = min(evals.lengths), max(evals.lengths)
  within = f'at most the shortest of eval.lengths={evals.lengths}'
  require('eval.lengths', shortest >= 1, '1 or more tokens each')
  require('eval.k', evals.k <= shortest, within)
  if 'sliding' in evals.protocols:
    require('eval.stride', evals.stride <= shortest, within)
  if 'receptive_field' in evals.protocols:
    require('eval.lengths', shortest >= 2, '2 or more tokens each for receptive_field')
  if 'by_position' in evals.protocols:
    whole = not 0 < evals.document_tokens < longest
    require('eval.document_tokens', whole, f'{longest} or more for whole windows (by_position), or 0')
  if 'shuffled_far' in evals.controls:
    require('eval.documents', evals.documents != 1, '2 or more for shuffled_far, or 0')
