"""The form of a model: what a family's config.json means here, and which tensors hold what."""

import dataclasses

from posenc_jax.pretrained.tensor_rules import Rule

# What a family has unless it says otherwise: fields of the config's sections `model`, `attention`.
PLAIN_MODEL = {
  'kv_heads': 0,
  'norm': 'rms',
  'norm_eps': 1e-6,
  'norm_placement': 'pre',
  'output_gate': 'none',
  'parallel_residual': False,
  'bias': 'none',
  'qk_norm': 'none',
  'shared_kv': False,
  'tie_embeddings': True,
  'embedding_scale': 1.0,
  'embedding_norm': False,
  'logit_softcap': 0.0,
}
PLAIN_ATTENTION = {'window': 0, 'chunk': 0, 'sink_tokens': 0, 'softcap': 0.0}


@dataclasses.dataclass(frozen=True)
class Form:
  """A model in the terms of this program.

  Attributes:
    model: fields of the config's section `model`.
    attention: fields of its section `attention`.
    encoding: the section `encoding`.
    train_length: tokens that the model was trained for.
    rules: which tensors hold which parameters.
    buffers: endings of the names of tensors that are no parameters.
    notes: what whoever imports it should know, a line each.
  """

  model: dict
  attention: dict
  encoding: dict
  train_length: int
  rules: list[Rule]
  buffers: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
