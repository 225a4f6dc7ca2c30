"""Reads a config.json field by field; what nobody has read and nobody knows is refused by name."""

from posenc_jax.errors import UserError, shown

# `bos_of` reads these, and no form does.
OF_TOKENS = {'bos_token_id', 'eos_token_id'}
# Fields that no number of an evaluation depends on.
HARMLESS = {
  '_name_or_path', 'architectures', 'auto_map', 'dtype', 'torch_dtype',
  'transformers_version', 'model_type', '_attn_implementation', 'use_cache',
  'initializer_range', 'init_device', 'gradient_checkpointing', 'is_decoder',
  'pad_token_id', 'unk_token_id', 'sep_token_id', 'cls_token_id',
  'tokenizer_class', 'attention_dropout', 'hidden_dropout', 'classifier_dropout',
  'resid_pdrop', 'embd_pdrop', 'attn_pdrop', 'emb_pdrop', 'summary_type', 'summary_use_proj',
  'summary_activation', 'summary_proj_to_labels', 'summary_first_dropout', 'return_dict',
  'output_hidden_states', 'output_attentions', 'torchscript', 'id2label', 'label2id',
  'problem_type', 'task_specific_params', 'transformers.js_config', 'is_llama_config',
  'n_ctx', 'cache_implementation', 'chunk_size_feed_forward', 'tie_encoder_decoder',
  'pretraining_tp', 'max_window_layers', 'slow_but_exact', 'reorder_and_upcast_attn',
  'attention_softmax_in_fp32', 'masked_softmax_fusion', 'offset_alibi', 'seq_length',
  'bias_dropout_fusion', 'attn_impl', 'attention_probs_dropout_prob', 'hidden_dropout_prob',
  'output_past', 'n_special', 'predict_special_tokens', '_num_labels', 'num_labels',
  'init_config', 'tokenizer_name', 'finetuning_task', '_attn_implementation_autoset',
  'residual_dropout', 'embedding_dropout',
  'unsloth_version', 'unsloth_fixed', 'use_flash_attn',
  'name_or_path', '_commit_hash', 'attn_implementation', 'experts_implementation',
  # of how a text is generated, which transformers takes off, too
  'max_length', 'min_length', 'do_sample', 'early_stopping', 'num_beams', 'temperature', 'top_k',
  'top_p', 'typical_p', 'repetition_penalty', 'length_penalty', 'no_repeat_ngram_size',
  'encoder_no_repeat_ngram_size', 'bad_words_ids', 'num_return_sequences', 'output_scores',
  'return_dict_in_generate', 'forced_bos_token_id', 'forced_eos_token_id',
  'remove_invalid_values', 'exponential_decay_length_penalty', 'suppress_tokens',
  'begin_suppress_tokens', 'epsilon_cutoff', 'eta_cutoff', 'encoder_repetition_penalty',
  'num_assistant_tokens', 'num_assistant_tokens_schedule', 'assistant_confidence_threshold',
  'assistant_lookbehind', 'target_lookbehind', 'num_beam_groups', 'diversity_penalty',
}  # fmt: skip


class Fields:
  """The fields of a config.json, or of a part of it; it knows which ones have been read, and has
  `notes` on them.

  Args:
    tree: the fields.
    field: what messages begin with.
    prefix: what stands before the names of fields in messages: '', or `PART.`.
  """

  def __init__(self, tree: dict, field: str, prefix: str = ''):
    self._tree, self._field, self._before = tree, field, f'{field}: config.json: {prefix}'
    self._read = HARMLESS | OF_TOKENS
    self.notes = []
    self.allow_only('quantization_config', None)
    self.allow_only('is_encoder_decoder', False)
    self.allow_only('use_sliding_window', False)

  def take(
    self, name: str, default=None, kind: type | tuple = int, null: bool = True, least: int = 0
  ):
    """The value of a field, or the default of its family where it is left out.

    `null`: whether null is that default, too; otherwise it is refused. `least`: of numbers.
    """
    self._read.add(name)
    if not null and self.is_null(name):
      raise self.refused(name, 'a number, or the field left out')
    value = self._tree.get(name)
    if value is None:
      if default is None:
        raise self.refused(name, f'{kind.__name__}, which this family needs')
      return default
    if kind is float and type(value) is int:
      value = float(value)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    is_less = type(value) in (int, float) and value < least
    if type(value) not in kinds or is_less:
      allowed = ' or '.join(k.__name__ for k in kinds)
      raise self.refused(name, f'{allowed}, {least} or more' if is_less else allowed)
    return value

  def optional(self, name: str, kind: type | tuple, least: int = 0):
    """The value of a field, or None. `least`: of numbers."""
    self._read.add(name)
    is_said = self._tree.get(name) is not None
    return self.take(name, kind=kind, least=least) if is_said else None

  def is_null(self, name: str) -> bool:
    """Whether the file says null in a field."""
    self._read.add(name)
    return name in self._tree and self._tree[name] is None

  def part(self, name: str) -> 'Fields':
    """The fields in the value of a field; none where it is left out."""
    return Fields(self.take(name, {}, dict), self._field, f'{name}.')

  def need(self, *names: str):
    """Refuses a file that lacks one of these fields: transformers has a default for it that this
    program does not assume.
    """
    for name in names:
      if name not in self._tree:
        raise UserError(f'{self._field}: config.json has no {name}, which this family needs')

  def allow_only(self, name: str, *allowed):
    """Reads a field that may be absent; if it is there, it must be one of these values."""
    self._read.add(name)
    if name in self._tree and self._tree[name] not in allowed:
      raise self.refused(name, ', '.join(map(repr, allowed)))

  def ignore(self, *names: str):
    """Reads fields that have no meaning in this form of the family, whatever they say."""
    self._read.update(names)

  def note(self, text: str):
    """Keeps a line for whoever imports the model, once."""
    if text not in self.notes:
      self.notes.append(text)

  def refused(self, name: str, allowed: str) -> UserError:
    value = shown(self._tree.get(name))
    return UserError(f'{self._before}{name}={value}; allowed: {allowed}')

  def check_all_read(self, model_type: str) -> None:
    """Raises `UserError` for a field that nobody has read."""
    if left := sorted(self._tree.keys() - self._read):
      problem = f'{left[0]}={shown(self._tree[left[0]])} is not understood for {model_type}'
      raise UserError(f'{self._before}{problem}')


def bos_of(tree: dict) -> object:
  """The token that windows begin with by a config.json: its BOS, else its end of text."""
  bos = first(tree.get('bos_token_id'))
  return first(tree.get('eos_token_id')) if bos is None else bos


def first(token: object) -> object:
  """The first of several tokens, or the one."""
  return token[0] if isinstance(token, list) and token else token
