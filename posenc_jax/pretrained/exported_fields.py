"""The config.json of an exported run: the fields of the family whose form the run has.

They are made from the run's config and read back by `families.form_of`, which must give the run's
own form again.
"""

import contextlib

from ml_collections import ConfigDict

from posenc_jax.config import WITHOUT_START, from_json, scaling_type, scalings, to_json
from posenc_jax.encodings.core.composite import read_members
from posenc_jax.encodings.core.registry import hyperparameters
from posenc_jax.errors import UserError, shown, user_errors
from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.pretrained.config_json import bos_of
from posenc_jax.pretrained.exported_rope import (
  LONGEST,
  LONGEST_OF_LINEAR,
  ROPE_FIELDS,
  known_scaling,
  rope_fields,
  rope_of,
  rope_parameters,
  starting_at,
  with_scalings,
)
from posenc_jax.pretrained.families import form_of
from posenc_jax.pretrained.families.common_fields import GATED, UNGATED
from posenc_jax.pretrained.families.layer_kinds import KINDS
from posenc_jax.pretrained.form import Form
from posenc_jax.training import provenance

# Types of scaling of which transformers, or vLLM, reads LONGEST.
OF_LONGEST = ('linear', 'dynamic', 'yarn', 'longrope')
MISTRALS = ('mistral', 'ministral')
GEMMAS = ('gemma2', 'gemma3_text')  # those with sandwich norms
OF_WHOLE_HEADS = ('llama', 'arcee', 'gpt_neox', 'stablelm', 'gpt2', 'bloom', *GEMMAS)


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
  tokens['eos_token_id'] = source.get('eos_token_id')
  if _is_refused_by_transformers(source, config.model):
    return _as_nearest_family(config, tokens, source.get(LONGEST) or 0)
  if (differing := _difference(config, form)) is None:
    return _with_longest(config, source | own, config.train.length), form
  if (fields := _with_own_rope(config, source)) is not None:
    with contextlib.suppress(UserError):  # of a scaling that the family does not have
      form = form_of(fields, 'export')
      if _difference(config, form) is None:
        return _with_longest(config, fields | own, config.train.length), form
  try:
    return _as_nearest_family(config, tokens, source.get(LONGEST) or 0)
  except UserError:
    path, value, theirs = differing
    theirs = 'its own positions alone' if path == 'encoding' else shown(theirs)
    problem = f'{source["model_type"]}, the family of its source, has {theirs}'
    # of a run's encoding and attention an export may lay others over it
    decides = path.startswith('model.')
    allowed = 'a run that was trained with that' if decides else 'that'
    allowed += ', or a form that another family has'
    raise UserError(f'config.{path}={shown(value)}: {problem}; allowed: {allowed}') from None


def with_starts(config: ConfigDict, trained: ConfigDict) -> ConfigDict:
  """The config of a run, in which a scaling of WITHOUT_START that was laid over the one that was
  trained says where it starts, if it does not: at the length of training. One that was trained with
  led there, but for one within PoSE, which moves positions.
  """
  has_moved = trained.encoding.name == 'pose'
  own = [] if has_moved else scalings(to_json(trained.encoding))

  def said(encoding):
    is_own = encoding['scaling'] in own or scaling_type(encoding['scaling']) not in WITHOUT_START
    return encoding if is_own else starting_at(encoding, trained.train.length)

  new = config.copy_and_resolve_references()
  with new.unlocked():
    new.encoding = from_json(with_scalings(to_json(config.encoding), said))
  return new


def _is_refused_by_transformers(source: dict, model: ConfigDict) -> bool:
  """Whether transformers (5.24) refuses such a config.json, or cannot run its model."""
  kind = source['model_type']
  if kind in OF_WHOLE_HEADS and model.model_dim % model.heads:
    return True
  is_ministral = kind == 'ministral' or source.get('layer_types') is not None
  return is_ministral and kind in MISTRALS and source['sliding_window'] is None


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
  D, H, kind = config.model.model_dim, config.model.heads, fields['model_type']
  if kind in OF_WHOLE_HEADS and D % H:
    problem = f'{kind}, the family next to it, has a multiple of its {H} heads in transformers'
    allowed = 'a run that was trained with that'
    raise UserError(f'config.model.model_dim={D}: {problem}; allowed: {allowed}')
  return _with_longest(config, fields, longest), form


def _with_own_rope(config: ConfigDict, source: dict) -> dict | None:
  """The config.json that a run was imported with, but for RoPE as the run has it in layers that see
  the whole text; None where these have several, or another encoding.
  """
  layers = _layers(to_json(config.encoding), config.train.length, config.model.layers)
  whole = [own for own, mask in layers if rope_of(own) is not None and not mask]
  if not whole or any(own != whole[0] for own in whole):
    return None
  fields = rope_fields(whole[0], config.train.length, source['model_type'])
  of_kinds = source.get('rope_parameters') or {}
  if 'full_attention' in of_kinds:
    fields['rope_parameters'] = of_kinds | {'full_attention': rope_parameters(fields)}
  of_rope = (*ROPE_FIELDS, LONGEST_OF_LINEAR)
  return {name: value for name, value in source.items() if name not in of_rope} | fields


def _with_longest(config: ConfigDict, fields: dict, length: int) -> dict:
  """The fields, whose longest length is no less than this one, where they have that field and no
  scaling of the run decides it.
  """
  layers = _layers(to_json(config.encoding), config.train.length, config.model.layers)
  parts = [own for layer, _ in layers for own in layer.get('members', [layer])]
  of_rope = [own['scaling'] for own in parts if own['name'] == 'rope']
  is_decided = any(said and said['rope_type'] in OF_LONGEST for said in of_rope)
  name = next((name for name in (LONGEST, 'max_seq_len') if fields.get(name)), None)  # MPT's
  if is_decided or name is None:
    return fields
  return fields | {name: max(fields[name], length)}


def embedding_scale_of(config: ConfigDict) -> float:
  """`model.embedding_scale` of the family that is next to a run."""
  layers = _layers(to_json(config.encoding), config.train.length, config.model.layers)
  kind, _ = _nearest(config, layers)
  return 0.0 if kind in GEMMAS else 1.0


def longest_text(fields: dict) -> int:
  """The length that a config.json says its model is for; 0 where it says none."""
  return max(fields.get(name) or 0 for name in (LONGEST, LONGEST_OF_LINEAR, 'max_seq_len'))


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
  if layers != _layers(to_json(ConfigDict(theirs)), form.train_length, config.model.layers):
    return 'encoding', own, theirs
  if any(rule.layers is not None for rule in form.rules):  # of parameters of some layers' encoding
    orders = (read_pattern(to_json(ConfigDict(spec)))[1] for spec in (own, theirs))
    if len({*orders}) > 1:
      return 'encoding', own, theirs
  return None


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
    return encoding | {'scaling': known_scaling(encoding['scaling'], length)}
  if encoding['name'] == 'learned':
    encoding |= {'max_length': encoding['max_length'] or length}
  if encoding['name'] == 'chain':
    members = read_members(encoding['members'])
    encoding |= {'members': [_normal(member, length) for member in members]}
  return {name: value for name, value in encoding.items() if value is not None}


def _nearest(config: ConfigDict, layers: list[tuple[dict, dict]]) -> tuple[str, dict]:
  """The family that is next to a run of these layers, and the encoding that its RoPE is told by;
  `_difference` refuses what else the run has.
  """
  m, encoding = config.model, layers[0][0]
  rotary = next((own for own, _ in layers if own['name'] == 'rope'), {'name': 'nope'})
  has_windows = any(mask.get('window') for _, mask in layers)
  if m.norm == 'layer':
    if encoding['name'] in ('learned', 'alibi'):
      return {'learned': 'gpt2', 'alibi': 'bloom'}[encoding['name']], encoding
    if m.mlp in GATED.values():
      return 'stablelm', encoding
    is_neox = m.parallel_residual or (m.bias == 'all' and m.kv_heads in (0, m.heads))
    return 'gpt_neox' if is_neox and not config.attention.window else 'starcoder2', encoding
  whole = next((own for own, mask in layers if not mask), encoding)
  if m.norm_placement == 'sandwich' and rotary.get('layout') != 'interleaved':
    return 'gemma3_text' if m.qk_norm == 'head' else 'gemma2', whole
  if m.norm_placement == 'output' and m.qk_norm == 'head':
    return 'exaone4', rotary
  if any(own['name'] == 'nope' for own, _ in layers):
    return 'smollm3', rotary
  if has_windows:
    kind = 'olmo3' if m.qk_norm == 'projection' else 'ministral'
    return kind, whole
  if rotary.get('layout') == 'interleaved':
    is_glm = m.bias == 'qkv' or rotary['fraction'] != 1
    return 'glm4' if m.norm_placement == 'sandwich' else 'glm' if is_glm else 'ernie4_5', encoding
  if m.qk_norm in ('projection', 'head'):
    return {'projection': 'olmo2', 'head': 'qwen3'}[m.qk_norm], encoding
  if encoding['name'] == 'chain' and rope_of(encoding) is not None:
    return 'ministral3', encoding
  if m.bias == 'qkv':
    return 'qwen2', encoding
  if m.bias == 'none' and encoding['name'] == 'rope' and encoding['fraction'] != 1:
    return 'phi3', encoding
  # transformers' Mistral takes a width that heads do not divide, its Llama does not.
  is_odd = m.model_dim % m.heads and m.bias == 'none'
  return 'mistral' if config.attention.window or is_odd else 'llama', encoding


def _new_fields(config: ConfigDict) -> dict:
  """Fields of config.json, by the family that is next to the run."""
  m = config.model
  layers = _layers(to_json(config.encoding), config.train.length, m.layers)
  kind, encoding = _nearest(config, layers)
  windows = [mask.get('window') for _, mask in layers]
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
    **rope_fields(encoding, config.train.length, kind),
  }
  if kind == 'gpt_neox':
    fields |= {'layer_norm_eps': m.norm_eps, 'use_parallel_residual': m.parallel_residual}
    return fields | {'hidden_act': _activation(m.mlp, UNGATED)}
  fields |= {'num_key_value_heads': m.kv_heads or m.heads, 'head_dim': m.head_dim}
  if kind == 'starcoder2':
    fields |= {'norm_epsilon': m.norm_eps, 'sliding_window': config.attention.window or None}
    return fields | {'hidden_act': _activation(m.mlp, UNGATED), 'use_bias': m.bias == 'all'}
  is_gemma = kind in GEMMAS
  fields['hidden_activation' if is_gemma else 'hidden_act'] = _activation(m.mlp, GATED)
  if kind == 'stablelm':
    fields |= {'layer_norm_eps': m.norm_eps, 'use_parallel_residual': m.parallel_residual}
    return fields | {'use_qkv_bias': m.bias == 'qkv'}
  fields['rms_norm_eps'] = m.norm_eps
  if kind in ('glm', 'glm4', 'smollm3', 'phi3'):  # of which a smaller model has no such token
    fields['pad_token_id'] = None
  if kind in ('glm', 'glm4'):
    fields['attention_bias'] = m.bias == 'qkv'
  if kind == 'llama':
    fields |= {'attention_bias': m.bias == 'all', 'mlp_bias': m.bias == 'all'}
  if kind in ('mistral', 'phi3'):
    fields['sliding_window'] = config.attention.window or None
  if is_gemma:  # scores are divided by the root of head_dim
    fields['query_pre_attn_scalar'] = m.head_dim
  if kind == 'gemma2':
    softcaps = {'attn': config.attention.softcap, 'final': m.logit_softcap}
    fields |= {f'{of}_logit_softcapping': softcap or None for of, softcap in softcaps.items()}
  if kind in ('olmo3', 'ministral', 'exaone4', *GEMMAS):
    # Gemma's file needs a number, also where no layer has a window
    without = config.train.length if is_gemma else None
    fields['sliding_window'] = next(filter(None, windows), without)
    fields['layer_types'] = [KINDS[not window] for window in windows]
  # of whose RoPE transformers 4 reads the fields above, and 5 these; of layers with a window the
  # former knows Gemma 3's base, and nothing else
  if kind in ('olmo3', 'gemma3_text'):
    local = next((own for own, mask in layers if mask), encoding)
    of_kinds = (rope_fields(own, config.train.length, kind) for own in (local, encoding))
    fields['rope_parameters'] = dict(zip(KINDS, map(rope_parameters, of_kinds), strict=True))
    if is_gemma:
      fields['rope_local_base_freq'] = fields['rope_parameters'][KINDS[0]]['rope_theta']
  if kind == 'smollm3':
    fields['no_rope_layers'] = [int(own['name'] == 'rope') for own, _ in layers]
  return fields


def _activation(mlp: str, names: dict[str, str]) -> str:
  """The first name that transformers has for an activation; where it has none, the first of all,
  so that `_difference` refuses it.
  """
  return next((name for name, own in names.items() if own == mlp), next(iter(names)))
