"""The protocols and controls of evaluation: what each reads, and what captions say of it.

A protocol says how tokens are scored, a control what is changed past the training length L to see
whether far context is used. Every list of them is made from the tables here; what is printed stands
in the order of protocols here, or of the study that names them, and of controls by name.
`evaluation.plan` measures them.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ml_collections import ConfigDict

# What is read of a corpus.
EXCERPTS = 'excerpts'  # windows out of `document_tokens` of each document
TARGETS = 'targets'  # the tokens up to `spans` places in each document
PROMPTS = 'prompts'  # a question about what is hidden in each document, at `spans` depths
EXAMPLES = 'examples'  # those of a task
# The fields that choose it, among those that only some rows depend on.
_CHOSEN_BY = {
  EXCERPTS: ('eval.documents', 'eval.target_context', 'eval.document_tokens'),
  TARGETS: ('eval.documents', 'eval.target_context', 'eval.spans'),
  PROMPTS: ('eval.documents', 'eval.target_context', 'eval.spans'),
  EXAMPLES: ('eval.examples',),
}
# Those whose choice rows of single documents name: the documents, places and sizes are theirs.
SHOWN_BY_DOCUMENTS = {f for reads, own in _CHOSEN_BY.items() if reads != EXAMPLES for f in own}


class Control(NamedTuple):
  """What is changed past the training length.

  Attributes:
    words: what captions say behind the protocol.
    fields: fields of the config that change its numbers and not those of every other: where one is
      overridden, rows of the others stay as they are.
  """

  words: str
  fields: tuple[str, ...] = ()


WINDOWED, WITH_SINK, TRUNCATED = 'windowed', 'windowed_with_sink', 'truncated'
SHUFFLED_FAR = 'shuffled_far'
CONTROLS = {
  # Attention is limited to L tokens in each layer, so what lies farther back acts through layers.
  WINDOWED: Control('; attention windowed at the training length'),
  # The same, but the first `eval.sink_tokens` inputs, BOS among them, are seen from everywhere, in
  # layers with a shorter window of their own, too.
  WITH_SINK: Control(
    '; attention windowed at the training length, but for the first inputs (BOS, ...), which stay '
    'visible',
    fields=('eval.sink_tokens',),
  ),
  # The input itself is limited, so nothing farther back acts. Windows of a task are counted from
  # the end of an example.
  TRUNCATED: Control(
    '; inputs truncated to the training length L: windows of L tokens that lie L / 2 apart, so '
    'that a token past L has L / 2 to L tokens before it'
  ),
  # So the last scored token has nearly k more of its own document than the first.
  SHUFFLED_FAR: Control(
    '; tokens more than the training length before the first scored one are of another document'
  ),
}
_MASKED_OR_CUT = (WINDOWED, WITH_SINK, TRUNCATED)


class Protocol(NamedTuple):
  """How tokens are scored.

  Attributes:
    words: what captions say of it; {k}, {stride} and {length} are those of rows.
    reads: what it reads of the corpus.
    controls: those that it is measured again under.
    truncated_words: what captions say of it under the control TRUNCATED, where that has a form of
      its own.
    bytes_words: what captions of likelihoods say of its bytes, where those are of answers alone.
    fields: fields of the config that change its numbers and not those of every other: where one is
      overridden, rows of the others stay as they are.
    is_by_position: whether its rows are told apart by position, and are no score of a length.
    is_by_depth: whether the `position` of its rows, where they have one, is the share of the text
      that stands before all that is asked for.
    has_same_targets: whether it scores the same tokens at every length.
    has_fewer_starts: whether longer windows have fewer starts, near which tokens have little before
      them: that alone makes their scores better.
    chooses_tokens: whether a model may choose the tokens that it is scored on: their number may
      differ.
    own_remark: a sentence on what a difference from the own score at L means, with a space before
      it.
  """

  words: str
  reads: str
  controls: tuple[str, ...] = ()
  truncated_words: str = ''
  bytes_words: str = ''
  fields: tuple[str, ...] = ()
  is_by_position: bool = False
  is_by_depth: bool = False
  has_same_targets: bool = False
  has_fewer_starts: bool = False
  chooses_tokens: bool = False
  own_remark: str = ''


_BYTES_OF_LIST = '; bytes are those of the list'
_FEWER_STARTS = ' Longer windows have fewer starts, and that alone makes them better.'
# Of text.
PROTOCOLS = {
  'last_k': Protocol(
    'last_k, the last {k} tokens of windows that end at the same targets at every length',
    TARGETS,
    (*_MASKED_OR_CUT, SHUFFLED_FAR),
    '; inputs truncated to their last L tokens, L being the training length, which is last_k at L '
    'again',
    has_same_targets=True,
    own_remark=' Targets are the same at every length, so this is also the difference from the '
    'same model that is given the last L tokens alone: what is better uses more text than the '
    'L - k to L tokens that a target has there.',
  ),
  'non_overlapping': Protocol(
    'non_overlapping, windows that do not overlap, so that every token is scored once',
    EXCERPTS,
    has_fewer_starts=True,
    own_remark=_FEWER_STARTS,
  ),
  'sliding': Protocol(
    'sliding, windows {stride} tokens apart that score what the one before did not, so that every '
    'token is scored once',
    EXCERPTS,
    has_fewer_starts=True,
    own_remark=_FEWER_STARTS,
  ),
  'by_position': Protocol(
    'by_position, every token of windows of {length} tokens, by where it stands in its window',
    EXCERPTS,
    _MASKED_OR_CUT,
    is_by_position=True,
  ),
  'receptive_field': Protocol(
    "receptive_field, norms of the gradient of the last token's loss with respect to the inputs of "
    'windows of {length} tokens, by their distance',
    TARGETS,
    is_by_position=True,
  ),
  'long_ppl': Protocol(
    'long_ppl, the key tokens of windows of that length: those that the model itself, or one '
    'evaluator for all, predicts far better from the whole window than from a short context',
    EXCERPTS,
    fields=(
      *('eval.long_ppl_context', 'eval.long_ppl_alpha', 'eval.long_ppl_beta'),
      'eval.long_ppl_evaluator',
    ),
    chooses_tokens=True,
  ),
  'sink_rate': Protocol(
    'sink_rate, the share of windows and heads whose mean weight on the first token (BOS) is more '
    'than eval.sink_rate_epsilon',
    EXCERPTS,
    fields=('eval.sink_rate_epsilon',),
  ),
  'attention_distance': Protocol(
    'attention_distance, tokens from a query to its keys but BOS, the mean by weight, over heads',
    EXCERPTS,
  ),
  'planted': Protocol(
    'planted, the last eight characters of invented names in windows of {length} tokens, by the '
    'distance in bytes to where the name stood before (0: it is new; not to know one costs 5.95 '
    'bits)',
    EXCERPTS,
    _MASKED_OR_CUT,
    is_by_position=True,
  ),
  'text_passkey': Protocol(
    'text_passkey, a key of five digits hidden in text at several depths and asked for in words',
    PROMPTS,
    bytes_words='; bytes are its digits (to guess one costs 3.32 bits)',
    is_by_depth=True,
  ),
  'text_multikey': Protocol(
    'text_multikey, the code of one of four names hidden in text',
    PROMPTS,
    bytes_words='; bytes are its digits',
    is_by_depth=True,
  ),
  'text_needles': Protocol(
    'text_needles, the code of one name in a text that is codes of names',
    PROMPTS,
    bytes_words='; bytes are its digits',
    is_by_depth=True,
  ),
  'text_multivalue': Protocol(
    'text_multivalue, the four codes of a name hidden in text, in their order',
    PROMPTS,
    bytes_words=_BYTES_OF_LIST,
  ),
  'text_multiquery': Protocol(
    'text_multiquery, the codes of four names hidden in text', PROMPTS, bytes_words=_BYTES_OF_LIST
  ),
  'text_variables': Protocol(
    'text_variables, the five names that stand for a number, each set to the one before it',
    PROMPTS,
    bytes_words=_BYTES_OF_LIST,
  ),
  'text_frequent_words': Protocol(
    'text_frequent_words, the three most frequent words of a text that is words in no order',
    PROMPTS,
    bytes_words=_BYTES_OF_LIST,
  ),
}
TASK_PROTOCOL = 'answers'  # the only protocol for a task; in rows stands the task's name
TASK = Protocol('{protocol}', EXAMPLES, _MASKED_OR_CUT, is_by_depth=True)


def _names(holds: Callable[[Protocol], bool]) -> tuple[str, ...]:
  return tuple(name for name, protocol in PROTOCOLS.items() if holds(protocol))


TEXT_TASKS = _names(lambda protocol: protocol.reads == PROMPTS)
OF_EXCERPTS = _names(lambda protocol: protocol.reads == EXCERPTS)
PLANTED = 'planted'  # its rows have no position where they are of text between names
POSITIONAL = _names(lambda protocol: protocol.is_by_position)
BY_DEPTH = _names(lambda protocol: protocol.is_by_depth)
SAME_TARGETS = _names(lambda protocol: protocol.has_same_targets)
CHOSEN_BY_MODEL = _names(lambda protocol: protocol.chooses_tokens)
FEWER_STARTS = _names(lambda protocol: protocol.has_fewer_starts)
# Their scores at two lengths differ by more than what a model makes of the length, so that these do
# not say how far it holds.
UNLIKE_LENGTHS = (*CHOSEN_BY_MODEL, *FEWER_STARTS)


def is_asked(control: str, protocols: Iterable[str], controls: Iterable[str]) -> bool:
  """Whether a control is among those asked for, and one of these protocols of text has it."""
  return control in controls and any(control in PROTOCOLS[name].controls for name in protocols)


def short_context(config: ConfigDict) -> int:
  """How many tokens before it a token of long_ppl has at least in its short context."""
  return config.eval.long_ppl_context or config.train.length


def of_rows(name: str) -> Protocol:
  """The protocol of rows that name this one: what is none of text is a task."""
  return PROTOCOLS.get(name, TASK)


def caption_words(protocol: str, control: str | None, is_likelihood: bool, **values: object) -> str:
  """What captions say of rows of a protocol under a control; `values`: its k, stride and length."""
  asked = of_rows(protocol)
  words = asked.words.format(protocol=protocol, **values) + asked.bytes_words * is_likelihood
  if control is None:
    return words
  if control == TRUNCATED and asked.truncated_words:
    return words + asked.truncated_words
  return words + (CONTROLS[control].words if control in CONTROLS else f'; {control}')


def fields_without_effect(protocol: str, control: str | None) -> set[str]:
  """The fields of the config that change numbers in some rows, but not in those of this protocol
  under this control.
  """
  asked = of_rows(protocol)
  own = {*_CHOSEN_BY[asked.reads], *asked.fields}
  own |= set() if control is None else {*CONTROLS[control].fields}
  known = (*PROTOCOLS.values(), *CONTROLS.values())
  every = itertools.chain(*_CHOSEN_BY.values(), *(some.fields for some in known))
  return {*every} - own
