"""The families by their `model_type`, and the form of a model by its config.json.

A family is one function, from the fields of config.json to a `Form`. A field that it neither reads
nor knows to be harmless is refused by name: nothing is dropped in silence.
"""

import dataclasses
from collections.abc import Callable, Iterator

from posenc_jax.encodings.core.scaling.rope_types import read_scaling
from posenc_jax.errors import MAX_REASON, UserError, one_line, shown
from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families import cohere, gemma, glm, granite, layer_norm, llama
from posenc_jax.pretrained.form import PLAIN_ATTENTION, PLAIN_MODEL, Form

# By model_type: the function of the family, and the class of transformers that runs its models.
FAMILIES: dict[str, tuple[Callable[[Fields], Form], str]] = {
  'llama': (llama.llama, 'LlamaForCausalLM'),
  'mistral': (llama.mistral, 'MistralForCausalLM'),
  'ministral': (llama.ministral, 'MinistralForCausalLM'),
  'ministral3': (llama.ministral3, 'Ministral3ForCausalLM'),
  'qwen2': (llama.qwen2, 'Qwen2ForCausalLM'),
  'qwen3': (llama.qwen3, 'Qwen3ForCausalLM'),
  'smollm3': (llama.smollm3, 'SmolLM3ForCausalLM'),
  'olmo2': (llama.olmo2, 'Olmo2ForCausalLM'),
  'olmo3': (llama.olmo3, 'Olmo3ForCausalLM'),
  # the classes of OlmPool come with its files, and not with transformers
  'olmo3_preorder': (llama.olmpool, 'Olmo3PreorderForCausalLM'),
  'olmo3_preorder_headwise_qknorm': (llama.olmpool, 'Olmo3PreorderHeadwiseQKNormForCausalLM'),
  'olmo3_preorder_no_qk': (llama.olmpool, 'Olmo3PreorderNoQKForCausalLM'),
  'olmo2_headwise_qknorm': (llama.olmpool, 'Olmo2HeadwiseQKNormForCausalLM'),
  'llama3_qknorm': (llama.olmpool, 'Llama3QKNormForCausalLM'),
  'llama3_reordered': (llama.olmpool, 'Llama3ReorderedForCausalLM'),
  'exaone4': (llama.exaone4, 'Exaone4ForCausalLM'),
  'ernie4_5': (llama.ernie4_5, 'Ernie4_5ForCausalLM'),
  'helium': (llama.helium, 'HeliumForCausalLM'),
  'seed_oss': (llama.seed_oss, 'SeedOssForCausalLM'),
  'arcee': (llama.arcee, 'ArceeForCausalLM'),
  'granite': (granite.granite, 'GraniteForCausalLM'),
  'granite_swa': (granite.granite_swa, 'GraniteSWAForCausalLM'),
  'granitemoehybrid': (granite.granitemoehybrid, 'GraniteMoeHybridForCausalLM'),
  'glm': (glm.glm, 'GlmForCausalLM'),
  'glm4': (glm.glm4, 'Glm4ForCausalLM'),
  'gemma': (gemma.gemma, 'GemmaForCausalLM'),
  'gemma2': (gemma.gemma2, 'Gemma2ForCausalLM'),
  'gemma3_text': (gemma.gemma3, 'Gemma3ForCausalLM'),
  'phi3': (llama.phi3, 'Phi3ForCausalLM'),
  'cohere': (cohere.cohere, 'CohereForCausalLM'),
  'cohere2': (cohere.cohere2, 'Cohere2ForCausalLM'),
  'starcoder2': (layer_norm.starcoder2, 'Starcoder2ForCausalLM'),
  'stablelm': (layer_norm.stablelm, 'StableLmForCausalLM'),
  'nemotron': (layer_norm.nemotron, 'NemotronForCausalLM'),
  'falcon': (layer_norm.falcon, 'FalconForCausalLM'),
  'gpt_neox': (layer_norm.gpt_neox, 'GPTNeoXForCausalLM'),
  'gpt2': (layer_norm.gpt2, 'GPT2LMHeadModel'),
  'bloom': (layer_norm.bloom, 'BloomForCausalLM'),
  'mpt': (layer_norm.mpt, 'MptForCausalLM'),
}
EXPERTS = "experts in place of MLPs, which this program's model does not have"
GEMMA_4 = 'norms of values and a factor of the output of each layer, which no model here has'
MUSE_GLIMMER = 'norms with two epsilons, where a model here has one for all'
# Families that are known and cannot be expressed here, with the reason.
OUT_OF_SCOPE = {
  't5': 'an encoder and a decoder with cross-attention; this program has decoders alone',
  'gpt_oss': f'{EXPERTS} (its attention, a chain of rope and sink with windows in every other '
  'layer, it has)',
  'mixtral': EXPERTS,
  'llama4': EXPERTS,
  'llama4_text': EXPERTS,
  'hunyuan_v1_dense': 'norms of queries and keys behind RoPE; here they stand before it',
  'apertus': 'the activation xIELU, which has parameters of its own in each layer',
  'muse_glimmer': MUSE_GLIMMER,
  'muse_glimmer_text': MUSE_GLIMMER,
  'nanochat': 'norms without scales, and RoPE that turns the other way, which no form here has',
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
  if kind not in FAMILIES:
    if reason := OUT_OF_SCOPE.get(kind, EXPERTS if kind.endswith('moe') else ''):
      raise UserError(f'{field}: model_type {kind!r}: {reason}')
    # Software writes model_type, so an unknown one is another family and no typo: all are listed,
    # and none is suggested.
    allowed = ', '.join(FAMILIES)
    raise UserError(f'{field}: config.json: model_type={shown(kind)}; allowed: {allowed}')
  read, _ = FAMILIES[kind]
  fields = Fields(tree, field)
  try:
    form = read(fields)
  except UserError:
    raise
  except (ArithmeticError, TypeError, ValueError, KeyError, AttributeError) as error:
    reason = one_line(error, MAX_REASON)
    raise UserError(
      f'{field}: config.json is none of {kind} ({type(error).__name__}: {reason})'
    ) from None
  fields.check_all_read(kind)
  for encoding in _members(form.encoding):
    _check_part(encoding, form, field)
    _check_scaling(encoding, form, field)
  model, attention = PLAIN_MODEL | form.model, PLAIN_ATTENTION | form.attention
  notes = tuple(fields.notes)
  return dataclasses.replace(form, model=model, attention=attention, notes=notes)


def _members(encoding: dict) -> Iterator[dict]:
  """The encoding, and all that it is made of."""
  yield encoding
  for inner in (*encoding.get('layers', ()), *encoding.get('members', ())):
    yield from _members(inner)


def _check_part(encoding: dict, form: Form, field: str) -> None:
  """Raises `UserError` where RoPE rotates no part of the channels, or another number of them here
  than in transformers, which rounds down.
  """
  fraction, K = encoding.get('fraction', 1.0), form.model['head_dim']
  if not 0 < fraction <= 1:
    problem = f'{field}: config.json: RoPE of {fraction:g} of the channels'
    raise UserError(f'{problem}; allowed: more than 0, at most 1')
  if (here := round(fraction * K)) != (there := int(fraction * K)):
    problem = f'RoPE of {fraction:g} of {K} channels rotates {there} in transformers'
    raise UserError(f'{field}: {problem}, and {here} here; allowed: a part of whole channels')


def _check_scaling(encoding: dict, form: Form, field: str) -> None:
  """Raises `UserError` for a field of the scaling of RoPE that its type does not have or allow."""
  fraction = encoding.get('fraction', 1.0)
  K = round(fraction * form.model['head_dim'])
  try:
    read_scaling(encoding.get('scaling'), K, encoding.get('base'), fraction, form.train_length)
  except (ArithmeticError, TypeError, ValueError) as error:
    raise UserError(f'{field}: config.json: RoPE: {one_line(error, MAX_REASON)}') from None
