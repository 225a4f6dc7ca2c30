"""Every field of a configuration, and what it may hold by itself."""

import re

from posenc_jax.config.checks import (
  MAX_BLOCK,
  MAX_CHANNELS,
  MAX_LABEL,
  MAX_LAYERS,
  MAX_MEASURED,
  MAX_TOKENS,
  Check,
  each,
  flag,
  number,
  one_of,
  several,
  text,
  whole,
)
from posenc_jax.protocols import CONTROLS, PROTOCOLS, TASK, TASK_PROTOCOL


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
  'account', 'array', 'cpus-per-task', 'dependency', 'error', 'gpus-per-node', 'job-name', 'mem',
  'mem-per-cpu', 'mem-per-gpu', 'no-requeue', 'nodes', 'ntasks', 'ntasks-per-node', 'open-mode',
  'output', 'partition', 'requeue', 'signal', 'time',
  'chdir', 'help', 'input', 'parsable', 'quiet', 'test-only', 'usage', 'version', 'wait', 'wrap',
)  # fmt: skip


def _tokenizer(value: object) -> str | None:
  """Takes a tokenizer by name, or a path that ends in .json."""
  if isinstance(value, str) and value.endswith('.json'):
    return None
  refused = one_of(('bytes', 'sentencepiece', 'integers'))(value)
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
    'mlp': one_of(('gelu', 'gelu_exact', 'relu2', 'geglu', 'swiglu')),
    'norm': one_of(('rms', 'layer')),
    'norm_placement': one_of(('pre', 'post', 'output', 'sandwich')),
    'output_gate': one_of(('none', 'elementwise', 'headwise')),
    'bias': one_of(('none', 'qkv', 'all')),
    'qk_norm': one_of(('none', 'head', 'projection')),
    'norm_eps': number(lambda value: 0 < value < 1, 'more than 0, less than 1'),
    'embedding_scale': number(lambda value: value >= 0, '0 (the root of model_dim) or more'),
    'vocab': whole(0, MAX_CHANNELS),
    'bos': whole(-1, MAX_CHANNELS),
    **_same(flag, 'shared_kv', 'tie_embeddings', 'parallel_residual', 'embedding_norm'),
    'share_encoding': one_of(('paper', 'all', 'none')),
    'logit_softcap': ZERO_IS_OFF,
    'remat': one_of(('none', 'products', 'attention', 'layer')),
    'lora_rank': whole(0, MAX_CHANNELS),
    'lora_alpha': number(lambda value: value > 0, 'more than 0'),
    # the layer knows which it has
    'lora_matrices': several(text(), "names of matrices, none twice, such as ('w_q', 'w_v')"),
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
    'vocab': whole(0, MAX_CHANNELS),
    'packing': one_of(('none', 'concatenated', 'separate')),
  },
  'train': {
    'length': whole(1, MAX_TOKENS),
    **_same(POSITIVE, 'batch', 'grad_accum_steps', 'log_every', 'validate_batches'),
    **_same(POSITIVE, 'checkpoint_every', 'max_to_keep'),
    **_same(NOT_NEGATIVE, 'steps', 'validate_every', 'max_nonfinite_updates', 'keep_every'),
    'init_from': text(),
    'init_step': NOT_NEGATIVE,
    'first_batch': NOT_NEGATIVE,
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
    'name': one_of(('adamw', 'muon')),
    'learning_rate': number(lambda value: value > 0, 'more than 0'),
    'warmup': NOT_NEGATIVE,
    'decay': one_of(('cosine', 'linear')),
    'decay_steps': NOT_NEGATIVE,
    'final_fraction': number(lambda value: 0 <= value <= 1, '0 to 1'),
    **_same(LESS_THAN_ONE, 'beta1', 'beta2'),
    **_same(number(lambda value: value > 0, 'more than 0'), 'epsilon', 'encoding_multiple'),
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
    'minutes': whole(5),
    'warning_seconds': whole(60, 65535),  # which sbatch takes; it may warn a minute too early
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
  'data.shortest': lambda value: '0 for text' if value else None,
  'eval.protocols': each(one_of(PROTOCOLS)),
  'eval.controls': each(one_of(CONTROLS)),
}
TASK_FIELDS = {
  'data.tokenizer': one_of(('bytes',)),
  'data.packing': lambda value: None if value == 'none' else "'none' for a task",
  'eval.protocols': lambda value: (
    each(one_of((TASK_PROTOCOL,)))(value) and f'{TASK_PROTOCOL}, for data.corpus is a task'
  ),
  'eval.controls': each(one_of(TASK.controls)),
}
