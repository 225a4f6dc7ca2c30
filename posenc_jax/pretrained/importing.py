"""Makes a run directory of a pretrained model: a config, a checkpoint and its tokenizer."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import from_json, to_json, validate
from posenc_jax.config.serialization import OWN_TOKENIZER
from posenc_jax.data.tokenizer_json import TokenizerJson
from posenc_jax.errors import MAX_REASON, UserError, one_line, shown, user_errors
from posenc_jax.model import decoder
from posenc_jax.pretrained.config_json import bos_of
from posenc_jax.pretrained.exported_tokenizers import first_token
from posenc_jax.pretrained.families import form_of
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.sources import Source
from posenc_jax.pretrained.tensor_rules import Rule
from posenc_jax.training import provenance
from posenc_jax.training.built_in import built_in_values
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.optimizer import NO_OPTIMIZER, leaves_by_path
from posenc_jax.training.own_tokenizer import ABOUT_TOKENIZER


def check_tokens(
  bos: int, tokenizer: bytes | None, field: str, fields: dict, form: Form, no_tokenizer: str
) -> None:
  """Raises `UserError` where a model has no tokenizer, or no token that windows begin with.

  Args:
    bos: the token that was given for it; negative: none.
    tokenizer: the tokenizer.json that was given for it.
    field: what the message begins with.
    fields: those of its config.json.
    no_tokenizer: why it has no tokenizer; '': it has one.
  """
  if no_tokenizer and tokenizer is None:
    raise UserError(f'{field}: {no_tokenizer}; allowed: with --tokenizer=FILE')
  _bos(bos, field, fields, form)


def _bos(given: int, field: str, fields: dict, form: Form) -> int:
  bos, V = given if given >= 0 else bos_of(fields), form.model['vocab']
  if type(bos) is not int:
    problem = 'config.json names no bos_token_id or eos_token_id, which windows could begin with'
    raise UserError(f'{field}: {problem}; allowed: with --config.model.bos=NUMBER')
  if not 0 <= bos < V:
    problem = f'model.bos={bos}' if given >= 0 else f'config.json: windows begin with token {bos}'
    raise UserError(f'{field}: {problem}; allowed: --config.model.bos=NUMBER, 0 to {V - 1}')
  return bos


def config_of(base: ConfigDict, source: Source, form: Form) -> ConfigDict:
  """The config of a run that has this model, and was trained no step further.

  `train.init_from` holds the hash of the source, and the label its beginning, so that rows say what
  was measured.
  """
  tree = to_json(base)
  bos = _bos(base.model.bos, source.name, source.fields, form)
  tree['model'] |= {'unroll': 1, 'bos': bos, **form.model}
  tree['attention'] |= form.attention
  tree['encoding'] = to_json(ConfigDict(form.encoding))
  tree['label'] = f'{source.name} {source.sha256[:12]}'[-200:]
  tree['train'] |= {'length': form.train_length, 'steps': 0, 'batch': 1}
  tree['train']['init_from'] = f'sha256:{source.sha256}'
  return from_json(tree)


def build_model(config: ConfigDict, source: Source, form: Form) -> decoder.LM:
  """The model with the parameters of the source, float32.

  Raises `UserError` for a parameter that no tensor fills, a tensor that nothing reads, and a shape
  that is not the model's.
  """
  with user_errors(ValueError):
    model = decoder.shapes(config, form.model['vocab'])
  wanted = leaves_by_path(model)
  filled = {}
  unread = {name for name in source.shapes if not name.endswith(form.buffers or '\0')}
  for rule in form.rules:
    numbers = rule.numbers(config.model.layers)
    parts = [_parameters(rule, number, source, unread) for number in numbers]
    for leaf, arrays in zip(rule.leaves, zip(*parts, strict=True), strict=True):
      if len(sizes := {array.shape: None for array in arrays}) > 1:
        layers = f'{leaf} has shapes {" and ".join(map(str, sizes))} in its layers'
        raise UserError(f'{source.name}: {layers}; allowed: one for all')
      x = np.stack(arrays) if rule.is_of_layers else arrays[0]
      if leaf not in wanted:
        raise UserError(f'{source.name}: {rule.tensors[0]} holds {leaf}, which this model lacks')
      if x.shape != wanted[leaf].shape:
        shapes = f'{x.shape}, and not {wanted[leaf].shape}'
        raise UserError(f'{source.name}: {leaf} has shape {shapes}, as its config.json says')
      filled[leaf] = x
  if lost := sorted(wanted.keys() - filled.keys()):
    raise UserError(f'{source.name}: no tensor fills {lost[0]}')
  if config.model.tie_embeddings:
    _check_tied(source, filled['embedding'], unread)
  if unread:
    raise UserError(f'{source.name}: nothing reads the tensor {min(unread)}')
  # one after another, so that the host has not all of them twice
  leaves = [jnp.asarray(filled.pop(path)) for path in wanted]
  return jax.tree.unflatten(jax.tree.structure(model), leaves)


def _parameters(rule: Rule, number: int | None, source: Source, unread: set) -> tuple:
  tensors = []
  for name in rule.tensors:
    name = name.format(n=number)
    if name not in source.shapes:
      short = name.removeprefix('transformer.')  # a base model alone was saved
      if short == name or short not in source.shapes:
        raise UserError(f'{source.name}: the tensor {name} is missing')
      name = short
    unread.discard(name)
    tensors.append(source.read(name))
  try:
    return rule.to_leaves(*tensors)
  except ValueError as error:
    shapes = f'{name} of shape {tensors[-1].shape} is not of the sizes in its config.json'
    raise UserError(f'{source.name}: {shapes} ({one_line(error, MAX_REASON)})') from None


def _check_tied(source: Source, embedding, unread: set) -> None:
  """Takes a copy of the token embedding that is stored as the output projection, too."""
  for name in ('lm_head.weight', 'embed_out.weight'):
    if name in unread:
      if not np.array_equal(source.read(name), embedding):
        problem = f'{name} is not the token embedding, though config.json ties the two'
        allowed = 'with "tie_word_embeddings": false in it, by which both count'
        raise UserError(f'{source.name}: {problem}; allowed: {allowed}')
      unread.discard(name)


def check_new(workdir: Path) -> None:
  """Raises `UserError` where a directory is not empty."""
  if storage.exists(workdir) and any(workdir.iterdir()):
    raise UserError(f'--workdir={str(workdir)!r} is not empty; allowed: a new directory')


def import_model(base: ConfigDict, source: Source, workdir: Path) -> ConfigDict:
  """Writes the run directory in one step; returns its config.

  Raises `UserError` as `build_model` and `families.form_of` do, and where there is no tokenizer or
  the directory is not empty.
  """
  check_new(workdir)
  form = form_of(source.fields, source.name)
  no_tokenizer = source.no_tokenizer * (source.tokenizer is None)
  check_tokens(base.model.bos, None, source.name, source.fields, form, no_tokenizer)
  config = config_of(base, source, form)
  path = workdir / OWN_TOKENIZER
  tokenizer = TokenizerJson(source.tokenizer, str(path))
  for note in (*form.notes, *source.notes, *_other_bos(base, config, source)):
    print(f'{source.name}: {note}')
  contents = source.tokenizer
  if tokenizer.vocab - 1 > config.model.vocab:
    contents = _without_added(source.name, contents, config.model.vocab)
    tokenizer = TokenizerJson(contents, str(path))
  if tokenizer.vocab - 1 > config.model.vocab:  # its last symbol is a BOS, which is not used
    rows = f'{config.model.vocab} rows of the token embedding'
    raise UserError(f'{source.name}: its tokenizer has {tokenizer.vocab - 1} symbols, for {rows}')
  config.data.tokenizer, config.data.vocab = str(path), tokenizer.vocab
  validate(config)
  model = build_model(config, source, form)
  with storage.new_folder(workdir) as unfinished:
    (unfinished / path.parent.name).mkdir()
    for name, of_file in {path.name: contents, **source.beside}.items():
      storage.atomic_write(unfinished / path.parent.name / name, of_file)
    values = built_in_values(config)
    made_of = provenance.MadeOf(tokenizer.sha256, source=source.sha256, built_in=values)
    provenance.claim(unfinished, made_of, begins=True)
    storage.write_json(unfinished / provenance.SOURCE_CONFIG, source.fields)
    with Checkpoints(unfinished, 1) as checkpoints:
      checkpoints.save(0, model, NO_OPTIMIZER.init(model))
    storage.write_json(unfinished / 'config.json', to_json(config))
  return config


def _other_bos(base: ConfigDict, config: ConfigDict, source: Source) -> Iterator[str]:
  """A line where the model's tokenizer puts another token before a text than windows here begin
  with, which are its fields' unless one is given.
  """
  own = first_token(source.tokenizer, source.beside.get(ABOUT_TOKENIZER[0]))
  if base.model.bos < 0 and own is not None and own != config.model.bos:
    said = f'windows begin with token {config.model.bos}, its BOS or end of text by its config'
    yield f'{said}; its tokenizer puts {own} before a text: --config.model.bos={own} takes that'


def _without_added(name: str, contents: bytes, vocab: int) -> bytes:
  """A tokenizer.json without the added tokens that have no row of `vocab` in the token embedding,
  such as the place of an image in a model of text.
  """
  tree = json.loads(contents)
  added = tree.get('added_tokens', [])
  tree['added_tokens'] = [token for token in added if token['id'] < vocab]
  gone = [shown(token['content']) for token in added if token['id'] >= vocab]
  if gone:
    print(f'{name}: the token embedding has no row for {", ".join(gone)}: no tokens here')
  return json.dumps(tree, ensure_ascii=False).encode()
