"""Families of pretrained models: for each, what its config.json means here.

A family is one function, from the fields of config.json to a `Form`. A field that it neither reads
nor knows to be harmless is refused by name: nothing is dropped in silence.
"""

import dataclasses
from collections.abc import Callable, Iterator

from posenc_jax.encodings.core.rope_scaling_config import read_scaling
from posenc_jax.errors import MAX_REASON, UserError, nearest, one_line, shown
from posenc_jax.pretrained import (
  cohere_families,
  gemma_families,
  glm_families,
  gpt_families,
  granite_families,
  layer_norm_families,
  llama_families,
)
from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.form import PLAIN_ATTENTION, PLAIN_MODEL, Form

FAMILIES: dict[str, Callable[[Fields], Form]] = {
  'llama': llama_families.llama,
  'mistral': llama_families.mistral,
  'ministral': llama_families.ministral,
  'ministral3': llama_families.ministral3,
  'qwen2': llama_families.qwen2,
  'qwen3': llama_families.qwen3,
  'smollm3': llama_families.smollm3,
  'olmo2': llama_families.olmo2,
  'olmo3': llama_families.olmo3,
  'exaone4': llama_families.exaone4,
  'ernie4_5': llama_families.ernie4_5,
  'helium': llama_families.helium,
  'seed_oss': llama_families.seed_oss,
  'granite': granite_families.granite,
  'granitemoehybrid': granite_families.granitemoehybrid,
  'glm': glm_families.glm,
  'glm4': glm_families.glm4,
  'gemma': gemma_families.gemma,
  'gemma2': gemma_families.gemma2,
  'gemma3_text': gemma_families.gemma3,
  'phi3': llama_families.phi3,
  'cohere': cohere_families.cohere,
  'cohere2': cohere_families.cohere2,
  'starcoder2': layer_norm_families.starcoder2,
  'stablelm': layer_norm_families.stablelm,
  'falcon': layer_norm_families.falcon,
  'gpt_neox': gpt_families.gpt_neox,
  'gpt2': gpt_families.gpt2,
  'bloom': gpt_families.bloom,
  'mpt': gpt_families.mpt,
}
EXPERTS = "experts in place of MLPs, which this program's model does not have"
GEMMA_4 = 'norms of values and a factor of the output of each layer, which no model here has'
# Families that are known and cannot be expressed here, with the reason.
OUT_OF_SCOPE = {
  't5': 'an encoder and a decoder with cross-attention; this program has decoders alone',
  'gpt_oss': "experts in place of MLPs, which this program's model does not have (its attention, a "
  'chain of rope and sink with windows in every other layer, it has)',
  'mixtral': EXPERTS,
  'llama4': EXPERTS,
  'llama4_text': EXPERTS,
  'hunyuan_v1_dense': 'norms of queries and keys behind RoPE; here they stand before it',
  'apertus': 'the activation xIELU, which has parameters of its own in each layer',
  'gemma4': GEMMA_4,
  'gemma4_text': GEMMA_4,
  'lfm2': 'convolutions in place of attention in most layers',
  'phi': 'a bias of logits, which no model here has (Phi-1, 1.5 and 2; Phi-3 is another family)',
}


def form_of(tree: dict, field: str) -> Form:
  """The form of a model by the fields of its config.json. Raises `UserError` for what is not
  covered.
  """
  kind = tree.get('model_type')
  kind = kind if isinstance(kind, str) else shown(kind)
  if kind in OUT_OF_SCOPE:
    raise UserError(f'{field}: model_type {kind!r}: {OUT_OF_SCOPE[kind]}')
  if kind not in FAMILIES:
    raise UserError(f'{field}: config.json: model_type={shown(kind)}; {nearest(kind, FAMILIES)}')
  fields = Fields(tree, field)
  try:
    form = FAMILIES[kind](fields)
  except UserError:
    raise
  except (ArithmeticError, TypeError, ValueError, KeyError, AttributeError) as error:
    reason = one_line(error, MAX_REASON)
    raise UserError(
      f'{field}: config.json is none of {kind} ({type(error).__name__}: {reason})'
    ) from None
  fields.check_all_read(kind)
  for encoding in _members(form.encoding):
    _check_scaling(encoding, form, field)
  model, attention = PLAIN_MODEL | form.model, PLAIN_ATTENTION | form.attention
  notes = tuple(fields.notes)
  return dataclasses.replace(form, model=model, attention=attention, notes=notes)


def _members(encoding: dict) -> Iterator[dict]:
  """The encoding, and all that it is made of."""
  yield encoding
  for inner in (*encoding.get('layers', ()), *encoding.get('members', ())):
    yield from _members(inner)


def _check_scaling(encoding: dict, form: Form, field: str) -> None:
  """Raises `UserError` for a field of the scaling of RoPE that its type does not have or allow."""
  fraction = encoding.get('fraction', 1.0)
  K = round(fraction * form.model['head_dim'])
  try:
    read_scaling(encoding.get('scaling'), K, encoding.get('base'), fraction, form.train_length)
  except (ArithmeticError, TypeError, ValueError) as error:
    raise UserError(f'{field}: config.json: RoPE: {one_line(error, MAX_REASON)}') from None
