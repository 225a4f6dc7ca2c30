"""Writes a run's model as a folder that transformers loads, in the family whose form it has.

Tensors are those of the run by the rules of its form backwards; `exported_fields` makes config.json
and tells the form.
"""

import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import check_one_seed, from_json, saved_config, scalings, to_json
from posenc_jax.encodings.core.registry import hyperparameters
from posenc_jax.errors import UserError, imported, user_errors
from posenc_jax.model import lora
from posenc_jax.model.decoder import shapes
from posenc_jax.pretrained.config_json import bos_of
from posenc_jax.pretrained.exported_fields import (
  embedding_scale_of,
  fields_of,
  longest_text,
  with_starts,
)
from posenc_jax.pretrained.exported_rope import (
  as_files_say,
  reach_of_base,
  starting_at,
  with_scalings,
)
from posenc_jax.pretrained.exported_tokenizers import (
  about_tokenizer,
  byte_tokenizer,
  first_token,
  integer_tokenizer,
  naming_bos,
  with_bos,
  with_longer_texts,
)
from posenc_jax.pretrained.families import FAMILIES, form_of
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.sources import CONFIG, INDEX, TOKENIZER, WHOLE, files_beside
from posenc_jax.tasks import is_task
from posenc_jax.training import provenance
from posenc_jax.training.checkpoints import check_shapes, leaves_by_path
from posenc_jax.training.own_tokenizer import ABOUT_TOKENIZER, check_same_tokenizer, tokenizer_path
from posenc_jax.training.taken_parameters import parameters_in

LARGEST_FILE = 2**30  # bytes of tensors
CHECKED = '5.24.0'  # the version of transformers that the fields were checked with
DTYPES = {'float32': np.float32, 'bfloat16': jnp.bfloat16, 'float16': np.float16}


def scale_into_embedding(config: ConfigDict, leaves: dict, to: float) -> tuple[ConfigDict, dict]:
  """An equal model with `model.embedding_scale` as `to` says, in float32 rounding.

  The output projection keeps the embedding as it was, so it becomes a parameter of its own.
  """
  of_root = config.model.model_dim**0.5
  before, after = config.model.embedding_scale or of_root, to or of_root
  if before == after:
    return config, leaves
  new = config.copy_and_resolve_references()
  with new.unlocked():
    new.model.embedding_scale = to
    new.model.tie_embeddings = False
  embedding = leaves['embedding']
  tied = {'w_logits': embedding.T} if config.model.tie_embeddings else {}
  return new, leaves | tied | {'embedding': np.float32(before / after) * embedding}


def tensors_of(form: Form, leaves: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
  """(name of a tensor in the file, float32 array), by the rules of the form backwards: made when it
  is asked for.
  """
  for rule in form.rules:
    for place, number in enumerate(rule.numbers(form.model['layers'])):
      parts = [leaves[leaf] if number is None else leaves[leaf][place] for leaf in rule.leaves]
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
    x = np.ascontiguousarray(x, np.float32)
    if dtype == 'float16' and (most := np.abs(x).max(initial=0)) > np.finfo(np.float16).max:
      allowed = '--dtype=bfloat16 or float32, for float16 ends at 65504'
      raise UserError(f'{name} has a number of size {most:g}; allowed: {allowed}')
    x = x.astype(DTYPES[dtype], copy=False)
    if arrays and sum(x.nbytes for x in (x, *arrays.values())) > largest:
      write(arrays)
      arrays = {}
    arrays[name] = x
  write(arrays)
  if len(files) == 1:
    part(0).rename(folder / WHOLE)
    return
  where = {}
  for n, sizes in enumerate(files):
    file = f'model-{n + 1:05}-of-{len(files):05}.safetensors'
    part(n).rename(folder / file)
    where |= dict.fromkeys(sizes, file)
  total = sum(size for sizes in files for size in sizes.values())
  index = {'metadata': {'total_size': total}, 'weight_map': where}
  storage.atomic_write(folder / INDEX, json.dumps(index, indent=2, sort_keys=True))


def export_run(
  config: ConfigDict, workdir: Path, out: Path, dtype: str, at: int | None = None
) -> str:
  """Exports the last checkpoint of a run, or the one `at` a step; returns the name of the family.

  Raises `UserError` as `export_model` does, and where there is no checkpoint, several seeds are in
  one, a parameter has another shape than the config says, or tokens are learned ones.
  """
  field = f'workdir={str(workdir)!r}'
  config = _as_evaluated(with_starts(config, _trained_config(workdir)))
  check_one_seed(field, config, workdir)
  _check_tokens(field, config)
  if (held := parameters_in(workdir, at=at)) is None:
    raise UserError(f'{field}: no checkpoint; allowed: the directory of a run that has one')
  leaves = held.leaves
  # Which parameters a family has is checked later; a table may be of another length than is said.
  wanted = leaves_by_path(shapes(config, len(leaves['embedding'])))
  both = wanted.keys() & leaves
  found, asked = ({path: some[path] for path in both} for some in (leaves, wanted))
  check_shapes(f'{field}: step {held.step}', 'model', found, asked)
  if held.step < config.train.steps and at is None:
    print(f'{workdir}: step {held.step}; its training ends at step {config.train.steps}')
  lora.merge(leaves, config.model)
  if rank := config.model.lora_rank:
    sum_of = f'W + {config.model.lora_alpha / rank:g} A B'
    print(f'{workdir}: LoRA is added to {", ".join(config.model.lora_matrices)}: {sum_of}')
  tokenizer = None
  if config.data.tokenizer == 'integers':
    tokenizer = integer_tokenizer(config.data.vocab)
  if config.data.tokenizer.endswith('.json'):
    path = tokenizer_path(workdir, config.data)
    with user_errors(OSError):
      tokenizer = path.read_bytes()
    check_same_tokenizer(workdir, hashlib.sha256(tokenizer).hexdigest())
  beside = {}
  if (source := _source_of(workdir)) is not None:
    beside = files_beside(tokenizer_path(workdir, config.data).parent)
  bos = _bos(config, leaves)
  goes_as_it_is = tokenizer is not None and bos == bos_of(source or {})
  if tokenizer is not None and not goes_as_it_is:
    tokenizer = with_bos(tokenizer, bos)
    beside = naming_bos(beside, tokenizer, bos)
  kind = export_model(config, leaves, bos, source, tokenizer, out, dtype, beside)
  if source is not None and kind != (own := source['model_type']):
    window, before = config.attention.window, form_of(source, provenance.SOURCE_CONFIG).attention
    why = f', by attention.window={window}' if window != before['window'] else ''
    print(f'{workdir}: it leaves in the family {kind}, not in {own}, that of its source{why}')
  about = beside.get(ABOUT_TOKENIZER[0])
  if config.train.steps and goes_as_it_is and first_token(tokenizer, about) != bos:
    problem = f'it was tuned on windows that begin with token {bos}'
    print(f"{workdir}: {problem}, which its source's tokenizer puts before no text")
  if kind == 'qwen2' and (source or {}).get('model_type') != kind:
    problem = "of this family AutoTokenizer of transformers (5.24) cuts by Qwen's rules"
    print(f'{workdir}: {problem}; load the tokenizer with PreTrainedTokenizerFast')
  if config.data.tokenizer == 'bytes' and bos < 256:
    problem = f'BOS is the byte {bos}, which transformers cannot name'
    print(f'{workdir}: {problem}; lm_eval needs prefix_token_id={bos}, and cannot generate')
  if kind == 'mpt':
    exponent = (hyperparameters('alibi') | to_json(config.encoding))['exponent']
    if exponent != 8:
      print(f'{workdir}: alibi_bias_max={exponent:g}, which transformers (5.24) reads as 8')
  return kind


def family_of(config: ConfigDict, leaves: dict) -> str:
  """The family that a run of this config would be exported as once it is trained. Raises
  `UserError` where it would be refused.

  Args:
    leaves: {path: parameter, or its shape and dtype}.
  """
  config = _as_evaluated(config)
  _check_tokens('config.data', config)
  source = _source_of(Path(config.train.init_from)) if config.train.init_from else None
  bos, kinds = _bos(config, leaves), []

  def plan(leaves):
    lora.merge(leaves, config.model)
    kinds.append(_planned(config, leaves, bos, source)[0]['model_type'])

  jax.eval_shape(plan, leaves)  # numbers do not matter
  return kinds[0]


def _trained_config(workdir: Path) -> ConfigDict:
  """The config that the parameters of a run were trained with: its own or, where it takes no step,
  that of the run that it starts from, if that is still there.
  """
  read = 'train.steps', 'train.init_from', 'train.length', 'encoding.name'
  config = saved_config(workdir, *read)
  start = config.train.init_from
  if config.train.steps or not start or not storage.exists(Path(start) / 'config.json'):
    return config
  return _trained_config(Path(start))


def _check_tokens(field: str, config: ConfigDict) -> None:
  """Raises `UserError` where tokens are learned ones, or those of a task."""
  if is_task(config.data.corpus):
    raise UserError(f'{field}: its tokens are symbols of a task; allowed: a model of text')
  if config.data.tokenizer == 'sentencepiece':
    allowed = "'bytes', 'integers' or a tokenizer.json"
    raise UserError(f'{field}: its tokens are those of sentencepiece; allowed: {allowed}')


def _source_of(workdir: Path) -> dict | None:
  path = workdir / provenance.SOURCE_CONFIG
  return storage.read_json(path) if storage.exists(path) else None


def _bos(config: ConfigDict, leaves: dict) -> int:
  return config.model.bos if config.model.bos >= 0 else len(leaves['embedding']) - 1


def _as_evaluated(config: ConfigDict) -> ConfigDict:
  """The run as files can say it: without PoSE around its encoding, which moves positions in
  training alone, but trained at the length that they reach; a scaling that is another base as that.
  """
  encoding, length = to_json(config.encoding), config.train.length
  longest = length
  if encoding['name'] == 'pose':
    pose = hyperparameters('pose') | encoding
    inner, longest = pose['inner'], pose['longest'] or 8 * length
    inner = {'name': inner} if isinstance(inner, str) else inner
    encoding = with_scalings(inner, lambda rope: starting_at(rope, length))
  reached = [reach_of_base(scaling, length) for scaling in scalings(encoding)]
  encoding = with_scalings(encoding, lambda rope: as_files_say(rope, config.model.head_dim, length))
  new = config.copy_and_resolve_references()
  with new.unlocked():
    new.encoding = from_json(encoding)
    new.train.length = max([longest, *reached])
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
    bos, source: see `exported_fields.fields_of`.
    tokenizer: contents of tokenizer.json, or None for bytes as tokens.
    dtype: of the tensors, one of DTYPES.
    beside: files that the source had beside it, see `sources.BESIDE`.
    largest: bytes of tensors in a file.
  Raises:
    UserError: no family has the form, a parameter is not in it or larger than a number of `dtype`,
      or `out` is not empty.
  """
  if storage.exists(out) and any(out.iterdir()):
    raise UserError(f'--out={str(out)!r} is not empty; allowed: a new directory')
  fields, form, leaves = _planned(config, leaves, bos, source)
  kind = fields['model_type']
  _, architecture = FAMILIES[kind]  # for a run that was not imported, and one of a GGUF file
  architectures = fields.get('architectures') or [architecture]
  fields = fields | {'architectures': architectures, 'torch_dtype': dtype}
  fields.setdefault('transformers_version', CHECKED)  # else it warns of a pattern of Mistral's
  for name in ('dtype', 'auto_map'):  # the latter names code that stands beside the source
    fields.pop(name, None)
  tokenizer = byte_tokenizer(bos) if tokenizer is None else tokenizer
  if longest_text(fields) > longest_text(source or {}):
    beside = with_longer_texts(beside, longest_text(fields))
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


def _planned(
  config: ConfigDict, leaves: dict, bos: int, source: dict | None
) -> tuple[dict, Form, dict]:
  """(config.json, form, {path: parameter} that it has) of an export. Raises `UserError` where no
  family has the form, or a parameter is not in it.
  """
  own = None if source is None else form_of(source, provenance.SOURCE_CONFIG).model
  if own is None:
    config, leaves = scale_into_embedding(config, leaves, embedding_scale_of(config))
  elif own['embedding_scale'] != config.model.embedding_scale:
    config, leaves = scale_into_embedding(config, leaves, 1.0)
  fields, form = fields_of(config, len(leaves['embedding']), bos, source)
  if differing := leaves.keys() ^ {leaf for rule in form.rules for leaf in rule.leaves}:
    problem = f'{min(differing)} is only in one of run and family {fields["model_type"]}'
    allowed = 'an encoding with the parameters that the run has'
    raise UserError(f'{problem}; allowed: {allowed}')
  return fields, form, leaves
