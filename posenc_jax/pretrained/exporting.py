"""Writes a run's model as a folder that transformers loads, in the family whose form it has.

The fields of config.json are made from the run's config and read back by `families.form_of`: only
if that gives the run's own form again are tensors written, by the rules of that form backwards.
"""

import contextlib
import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import check_one_seed, to_json
from posenc_jax.encodings.core.registry import hyperparameters
from posenc_jax.encodings.core.rope_scaling_config import ORIGINAL
from posenc_jax.errors import UserError, imported, shown, user_errors
from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.pretrained.common_fields import GATED, UNGATED, bos_of, takes_original
from posenc_jax.pretrained.exported_tokenizers import (
  about_tokenizer,
  byte_tokenizer,
  naming_bos,
  with_bos,
)
from posenc_jax.pretrained.families import form_of
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.sources import CONFIG, INDEX, TOKENIZER, files_beside
from posenc_jax.tasks import is_task
from posenc_jax.training import provenance
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.own_tokenizer import tokenizer_path

LARGEST_FILE = 2**30  # bytes of tensors
DTYPES = {'float32': np.float32, 'bfloat16': jnp.bfloat16, 'float16': np.float16}
ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'mistral': 'MistralForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
  'qwen3': 'Qwen3ForCausalLM',
  'smollm3': 'SmolLM3ForCausalLM',
  'olmo2': 'Olmo2ForCausalLM',
  'gemma2': 'Gemma2ForCausalLM',
  'gemma3_text': 'Gemma3ForCausalLM',
  'phi3': 'Phi3ForCausalLM',
  'gpt_neox': 'GPTNeoXForCausalLM',
  'gpt2': 'GPT2LMHeadModel',
  'bloom': 'BloomForCausalLM',
  'mpt': 'MptForCausalLM',
}
LONGEST = 'max_position_embeddings'
OF_LONGEST = ('dynamic', 'yarn', 'longrope')  # of which transformers reads LONGEST
# What files say of RoPE, by older names and newer ones.
OF_ROPE = ('rope_parameters', 'rope_scaling', 'rope_theta', 'partial_rotary_factor', ORIGINAL)
OF_ROPE += ('rotary_emb_base', 'rotary_pct')
OF_TRANSFORMERS = ('linear', 'dynamic', 'yarn', 'longrope', 'llama3')  # its types of scaling


def fields_of(config: ConfigDict, vocab: int, bos: int, source: dict | None) -> tuple[dict, Form]:
  """The fields of config.json for a run, and their form.

  Args:
    vocab: rows of the token embedding.
    bos: the symbol that windows begin with.
    source: the config.json that the run was imported with, or None.
  Raises:
    UserError: no family has the form of the run; it says why.
  """
  tokens = {'vocab_size': vocab, 'bos_token_id': bos}
  if source is None:
    return _as_nearest_family(config, tokens)
  own = {} if bos == bos_of(source) else {'bos_token_id': bos}
  form = form_of(source, provenance.SOURCE_CONFIG)
  if (differing := _difference(config, form)) is None:
    return _with_longest(config, source | own, config.train.length), form
  if (fields := _with_own_rope(config, source)) is not None:
    with contextlib.suppress(UserError):  # of a scaling that the family does not have
      form = form_of(fields, 'export')
      if _difference(config, form) is None:
        return _with_longest(config, fields | own, config.train.length), form
  tokens['eos_token_id'] = source.get('eos_token_id')
  try:
    return _as_nearest_family(config, tokens, source.get(LONGEST) or 0)
  except UserError:
    path, value, theirs = differing
    theirs = 'its own positions alone' if path == 'encoding' else shown(theirs)
    problem = f'{source["model_type"]}, the family of its source, has {theirs}'
    allowed = 'that, or a form that another family has'
    raise UserError(f'config.{path}={shown(value)}: {problem}; allowed: {allowed}') from None


def _as_nearest_family(config: ConfigDict, tokens: dict, longest: int = 0) -> tuple[dict, Form]:
  """The fields and the form of the family that is next to a run.

  Args:
    tokens: fields about tokens.
    longest: a length that the model was trained at before.
  Raises:
    UserError: it has another form than the run.
  """
  fields = _new_fields(config) | {'eos_token_id': None} | tokens  # the family's may be no token
  form = form_of(fields, 'export')
  if differing := _difference(config, form):
    path, own, theirs = differing
    problem = f'{fields["model_type"]}, the family next to it, has {shown(theirs)}'
    raise UserError(f'config.{path}={shown(own)}: {problem}; allowed: a form that a family has')
  return _with_longest(config, fields, longest), form


def _with_own_rope(config: ConfigDict, source: dict) -> dict | None:
  """The config.json that a run was imported with, but for RoPE as the run has it in layers that see
  the whole text; None where these have several, or another encoding.
  """
  layers = _layers(to_json(config.encoding), config.train.length, config.model.layers)
  whole = [own for own, mask in layers if own['name'] == 'rope' and not mask]
  if not whole or any(own != whole[0] for own in whole):
    return None
  fields = _rope_fields(whole[0], config.train.length, source['model_type'])
  of_kinds = source.get('rope_parameters') or {}
  if 'full_attention' in of_kinds:
    said = {'rope_theta': fields.pop('rope_theta'), 'rope_type': 'default'}
    of_kinds = of_kinds | {'full_attention': said | fields.pop('rope_scaling', {})}
    return source | fields | {'rope_parameters': of_kinds}
  return {name: value for name, value in source.items() if name not in OF_ROPE} | fields


def _with_longest(config: ConfigDict, fields: dict, length: int) -> dict:
  """The fields, whose longest length is no less than this one, where they have that field and no
  scaling of the run decides it.
  """
  layers = _layers(to_json(config.encoding), config.train.length, config.model.layers)
  scalings = [own['scaling'] for own, _ in layers if own['name'] == 'rope']
  is_decided = any(said and said['rope_type'] in OF_LONGEST for said in scalings)
  if is_decided or not fields.get(LONGEST):
    return fields
  return fields | {LONGEST: max(fields[LONGEST], length)}


def _difference(config: ConfigDict, form: Form) -> tuple[str, object, object] | None:
  """The first field in which a run differs from a form: (path, the run's value, the form's)."""
  model, attention = to_json(config.model), to_json(config.attention)
  if model['kv_heads'] == model['heads']:
    model['kv_heads'] = 0  # as forms say it
  for section, own, theirs in (
    ('model', model, form.model),
    ('attention', attention, form.attention),
  ):
    for name, value in theirs.items():
      if name != 'vocab' and own[name] != value:
        return f'{section}.{name}', own[name], value
  own, theirs = to_json(config.encoding), form.encoding
  layers = _layers(own, config.train.length, config.model.layers)
  if layers == _layers(to_json(ConfigDict(theirs)), form.train_length, config.model.layers):
    return None
  return 'encoding', own, theirs


def _layers(encoding: dict, length: int, count: int) -> list[tuple[dict, dict]]:
  """(encoding, mask) of each layer of a model trained at a length, with defaults said, so that they
  can be compared.
  """
  with user_errors(ValueError):
    variants, order, masks = read_pattern(encoding)
    variants = [_normal(variant, length) for variant in variants]
  places = [n % len(order) for n in range(count)]
  return [(variants[order[place]], masks[place]) for place in places]


def _normal(encoding: dict, length: int) -> dict:
  """The encoding of a layer of a model trained at a length, with defaults said."""
  encoding = hyperparameters(encoding['name']) | encoding
  if encoding['name'] == 'rope':
    return encoding | {'scaling': _scaling(encoding['scaling'], length)}
  if encoding['name'] == 'learned':
    encoding |= {'max_length': encoding['max_length'] or length}
  return {name: value for name, value in encoding.items() if value is not None}


def _new_fields(config: ConfigDict) -> dict:
  """Fields of config.json, by the family that is next to the run."""
  m, encoding = config.model, to_json(config.encoding)
  layers = _layers(encoding, config.train.length, m.layers)
  rotates = [own['name'] == 'rope' for own, _ in layers]
  if m.norm == 'rms' and any(own['name'] == 'nope' for own, _ in layers):
    kind = 'smollm3'  # of rope in all layers that have one; `_difference` refuses others
    encoding = next((own for own, _ in layers if own['name'] == 'rope'), {'name': 'nope'})
  elif m.norm == 'rms':
    kind = {'projection': 'olmo2', 'head': 'qwen3'}.get(m.qk_norm)
    kind = kind or (
      'qwen2' if m.bias == 'qkv' else 'mistral' if config.attention.window else 'llama'
    )
  else:
    kind = {'learned': 'gpt2', 'alibi': 'bloom'}.get(encoding['name'], 'gpt_neox')
  fields = {'model_type': kind, 'tie_word_embeddings': m.tie_embeddings}
  if kind == 'gpt2':
    return fields | {
      'n_embd': m.model_dim,
      'n_inner': m.mlp_dim,
      'n_layer': m.layers,
      'n_head': m.heads,
      'n_positions': encoding.get('max_length') or config.train.length,
      'layer_norm_epsilon': m.norm_eps,
      'activation_function': _activation(m.mlp, UNGATED),
    }
  if kind == 'bloom':
    sizes = {'hidden_size': m.model_dim, 'n_layer': m.layers, 'n_head': m.heads}
    return fields | sizes | {'layer_norm_epsilon': m.norm_eps}
  fields |= {
    'hidden_size': m.model_dim,
    'intermediate_size': m.mlp_dim,
    'num_hidden_layers': m.layers,
    'num_attention_heads': m.heads,
    LONGEST: config.train.length,
    **_rope_fields(encoding, config.train.length, kind),
  }
  if kind == 'gpt_neox':
    fields |= {'layer_norm_eps': m.norm_eps, 'use_parallel_residual': m.parallel_residual}
    return fields | {'hidden_act': _activation(m.mlp, UNGATED)}
  fields |= {
    'num_key_value_heads': m.kv_heads or m.heads,
    'head_dim': m.head_dim,
    'rms_norm_eps': m.norm_eps,
    'hidden_act': _activation(m.mlp, GATED),
  }
  if kind == 'llama':
    fields |= {'attention_bias': m.bias == 'all', 'mlp_bias': m.bias == 'all'}
  if kind == 'mistral':
    fields['sliding_window'] = config.attention.window
  if kind == 'smollm3':  # whose own padding is a token that a smaller model does not have
    fields |= {'no_rope_layers': [int(turns) for turns in rotates], 'pad_token_id': None}
  return fields


def _activation(mlp: str, names: dict[str, str]) -> str:
  """The first name that transformers has for an activation; where it has none, the first of all,
  so that `_difference` refuses it.
  """
  return next((name for name, own in names.items() if own == mlp), next(iter(names)))


def _scaling(scaling: dict | None, length: int) -> dict | None:
  """The scaling of RoPE by its newer name, with its original length, which is the training length
  unless it is said.
  """
  if scaling is None:
    return None
  fields = {name: x for name, x in scaling.items() if x is not None}
  kind = fields.pop('type', None)
  kind = fields.setdefault('rope_type', kind)
  if kind == 'default':
    return None
  return ({ORIGINAL: length} if takes_original(kind) else {}) | fields


def _rope_fields(encoding: dict, length: int, kind: str) -> dict:
  """The fields of RoPE in a family. Raises `UserError` for what transformers would read otherwise,
  or not at all.
  """
  rope = hyperparameters('rope') | encoding
  if kind == 'gpt_neox':
    fields = {'rotary_emb_base': float(rope['base']), 'rotary_pct': float(rope['fraction'])}
  else:
    fields = {'rope_theta': float(rope['base'])}
  if rope['fraction'] != 1 and kind == 'phi3':
    fields['partial_rotary_factor'] = rope['fraction']
  elif rope['fraction'] != 1 and kind != 'gpt_neox':
    allowed = '1, since of the families with this form GPT-NeoX alone rotates a part'
    raise UserError(f'config.encoding.fraction={rope["fraction"]}; allowed: {allowed}')
  if (scaling := _scaling(rope['scaling'], length)) is not None:
    kind = scaling['rope_type']
    if kind not in OF_TRANSFORMERS:
      field = f'config.encoding.scaling.rope_type={shown(kind)}'
      raise UserError(f'{field}: transformers has none; allowed: {", ".join(OF_TRANSFORMERS)}')
    fields['rope_scaling'] = scaling
    if kind == 'dynamic':  # of which transformers takes this for the length before
      fields[LONGEST] = scaling[ORIGINAL]
    if kind in ('yarn', 'longrope') and 'factor' in scaling:
      # transformers 4 takes the factor from these two, whatever `factor` says
      fields[LONGEST] = round(scaling['factor'] * scaling[ORIGINAL])
    if kind == 'longrope':
      fields[ORIGINAL] = scaling[ORIGINAL]
  return fields


def scale_into_embedding(config: ConfigDict, leaves: dict) -> tuple[ConfigDict, dict]:
  """An equal model whose token embedding is multiplied by nothing, in float32 rounding.

  The output projection keeps the embedding as it was, so it becomes a parameter of its own.
  """
  scale = config.model.embedding_scale or config.model.model_dim**0.5
  if scale == 1:
    return config, leaves
  new = config.copy_and_resolve_references()
  with new.unlocked():
    new.model.embedding_scale = 1.0
    new.model.tie_embeddings = False
  embedding = leaves['embedding']
  tied = {'w_logits': embedding.T} if config.model.tie_embeddings else {}
  return new, leaves | tied | {'embedding': np.float32(scale) * embedding}


def tensors_of(form: Form, leaves: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
  """(name of a tensor in the file, float32 array), by the rules of the form backwards: made when it
  is asked for.
  """
  for rule in form.rules:
    for number in range(form.model['layers']) if rule.is_of_layers else [None]:
      parts = [leaves[leaf] if number is None else leaves[leaf][number] for leaf in rule.leaves]
      names = [name.format(n=number) for name in rule.tensors]
      yield from zip(names, rule.to_tensors(*parts), strict=True)


def _write_tensors(
  folder: Path, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, largest: int
) -> None:
  """Writes model.safetensors or, where that had more than `largest` bytes, several files and their
  index; what goes into one of them lies in memory, and no more.
  """
  of_numpy = imported('safetensors.numpy', '--out', 'pretrained')
  files = []  # the size of each tensor in each file, by name
  part = lambda n: folder / f'part{n}'

  def write(arrays):
    storage.atomic_write(part(len(files)), of_numpy.save(arrays, {'format': 'pt'}))
    files.append({name: x.nbytes for name, x in arrays.items()})

  arrays = {}
  for name, x in tensors:
    x = np.ascontiguousarray(x, np.float32).astype(DTYPES[dtype], copy=False)
    if arrays and sum(x.nbytes for x in (x, *arrays.values())) > largest:
      write(arrays)
      arrays = {}
    arrays[name] = x
  write(arrays)
  if len(files) == 1:
    part(0).rename(folder / 'model.safetensors')
    return
  where = {}
  for n, sizes in enumerate(files):
    file = f'model-{n + 1:05}-of-{len(files):05}.safetensors'
    part(n).rename(folder / file)
    where |= dict.fromkeys(sizes, file)
  total = sum(size for sizes in files for size in sizes.values())
  index = {'metadata': {'total_size': total}, 'weight_map': where}
  storage.atomic_write(folder / INDEX, json.dumps(index, indent=2, sort_keys=True))


def export_run(config: ConfigDict, workdir: Path, out: Path, dtype: str) -> str:
  """Exports the last checkpoint of a run; returns the name of the family.

  Raises `UserError` as `export_model` does, and where there is no checkpoint, several seeds are in
  one, or tokens are other than bytes and those of a tokenizer.json.
  """
  field, config = f'workdir={str(workdir)!r}', _as_evaluated(config)
  check_one_seed(field, config, workdir)
  if is_task(config.data.corpus):
    raise UserError(f'{field}: its tokens are symbols of a task; allowed: a model of text')
  with Checkpoints(workdir) as checkpoints:
    leaves, step = checkpoints.restore_as_saved('model')
    if checkpoints.latest is None:
      raise UserError(f'{field}: no checkpoint; allowed: the directory of a run that has one')
  if step < config.train.steps:
    print(f'{workdir}: step {step}; its training ends at step {config.train.steps}')
  tokenizer = None
  if config.data.tokenizer.endswith('.json'):
    path = tokenizer_path(workdir, config.data)
    with user_errors(OSError):
      tokenizer = path.read_bytes()
    provenance.check_same_tokenizer(workdir, hashlib.sha256(tokenizer).hexdigest())
  elif config.data.tokenizer != 'bytes':
    problem = f'its tokens are those of {config.data.tokenizer}'
    raise UserError(f"{field}: {problem}; allowed: 'bytes', or a tokenizer.json")
  source, beside = None, {}
  if storage.exists(workdir / provenance.SOURCE_CONFIG):
    source = storage.read_json(workdir / provenance.SOURCE_CONFIG)
    beside = files_beside(tokenizer_path(workdir, config.data).parent)
  bos = config.model.bos if config.model.bos >= 0 else len(leaves['embedding']) - 1
  if tokenizer is not None and bos != bos_of(source or {}):
    tokenizer = with_bos(tokenizer, bos)
    beside = naming_bos(beside, tokenizer, bos)
  kind = export_model(config, leaves, bos, source, tokenizer, out, dtype, beside)
  if kind == 'mpt':
    exponent = _normal(to_json(config.encoding), config.train.length)['exponent']
    if exponent != 8:
      print(f'{workdir}: alibi_bias_max={exponent:g}, which transformers (5.24) reads as 8')
  return kind


def _as_evaluated(config: ConfigDict) -> ConfigDict:
  """The run without PoSE around its encoding, which moves positions in training alone."""
  encoding = to_json(config.encoding)
  if encoding['name'] != 'pose':
    return config
  inner = (hyperparameters('pose') | encoding)['inner']
  new = config.copy_and_resolve_references()
  with new.unlocked():
    new.encoding = ConfigDict({'name': inner} if isinstance(inner, str) else inner)
  return new


def export_model(
  config: ConfigDict,
  leaves: dict[str, np.ndarray],
  bos: int,
  source: dict | None,
  tokenizer: bytes | None,
  out: Path,
  dtype: str = 'float32',
  beside: Mapping[str, bytes] = types.MappingProxyType({}),
  largest: int = LARGEST_FILE,
) -> str:
  """Writes config.json, tensors and tokenizer.json; returns the name of the family.

  Args:
    leaves: {path: parameter} of the run's checkpoint.
    bos, source: see `fields_of`.
    tokenizer: contents of tokenizer.json, or None for bytes as tokens.
    dtype: of the tensors, one of DTYPES.
    beside: files that the source had beside it, see `sources.BESIDE`.
    largest: bytes of tensors in a file.
  Raises:
    UserError: no family has the form, a parameter is not in it, or `out` is not empty.
  """
  if storage.exists(out) and any(out.iterdir()):
    raise UserError(f'--out={str(out)!r} is not empty; allowed: a new directory')
  if source is None or config.model.embedding_scale not in (0.0, 1.0):
    config, leaves = scale_into_embedding(config, leaves)
  fields, form = fields_of(config, len(leaves['embedding']), bos, source)
  kind = fields['model_type']
  if differing := leaves.keys() ^ {leaf for rule in form.rules for leaf in rule.leaves}:
    allowed = 'an encoding with the parameters that the run has'
    raise UserError(f'{min(differing)} is only in one of run and family {kind}; allowed: {allowed}')
  architectures = fields.get('architectures') or [ARCHITECTURES[kind]]  # a GGUF file has none
  fields = fields | {'architectures': architectures, 'torch_dtype': dtype}
  fields.pop('dtype', None)
  tokenizer = byte_tokenizer(bos) if tokenizer is None else tokenizer
  files = {
    'tokenizer_config.json': json.dumps(about_tokenizer(tokenizer, fields)).encode(),
    **beside,
    TOKENIZER: tokenizer,
    CONFIG: json.dumps(fields, indent=2, sort_keys=True).encode(),
  }
  with storage.new_folder(out) as unfinished:
    _write_tensors(unfinished, tensors_of(form, leaves), dtype, largest)
    for name, contents in files.items():
      storage.atomic_write(unfinished / name, contents)
  return kind
