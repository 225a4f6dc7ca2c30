"""Which encodings may stand in one chain, and in which order."""

import itertools
import math

from posenc_jax.encodings.core.base import Encoding

MANY_KEYS = 2**30  # more than any length from which a `scaling` extends


def check_together(names: list[str], encodings: list[Encoding]) -> None:
  """Raises ValueError where members of a chain, in this order, would not do what each says."""
  with_scale = [n for n, e in enumerate(encodings) if sets_scale(e)]
  with_normalizer = [n for n, e in enumerate(encodings) if e.normalizer != 'softmax']
  for what, own in (('scale', with_scale), ('normalizer', with_normalizer)):
    if len(own) > 1:
      both = ' and '.join(names[n] for n in own)
      raise ValueError(f'{both} each have a {what} of their own; allowed: one of them')
  _check_products(names, encodings, with_scale)
  if with_scale:
    _check_scale(names, encodings, with_scale[0])
  _check_positions(names, encodings)
  _check_carried_positions(names, encodings)
  _check_widths(names, encodings)
  _check_channels(names, encodings)
  _check_heads(names, encodings)
  _check_queries(names, encodings)
  _check_hidden(names, encodings)
  _check_adapted(names, encodings)
  _check_mixed(names, encodings)


def sets_scale(enc: Encoding) -> bool:
  """Whether an encoding multiplies products of queries and keys by another factor than usual."""
  head_dim = enc.dims.head_dim
  return not math.isclose(enc.scale(head_dim), head_dim**-0.5)


def _check_carried_positions(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses what would take the positions of the data for those of the sequence."""
  taker = next((n for n, e in enumerate(encodings) if e.takes_carried_positions), None)
  if taker is None:
    return
  for n, e in enumerate(encodings):
    if n != taker and (e.has('add_to_input') or e.max_length is not None):
      both = f'{names[taker]} takes the positions of the data, and {names[n]} would, too'
      allowed = 'beside it what does not act on the input and has no table of positions'
      raise ValueError(f'{both}; allowed: {allowed}')


def _check_positions(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members that read different numbers of positions a token, but for what reads those of
  the data: it reads them at the input alone.
  """
  reads = lambda e: e.position_kind is not None and not e.takes_carried_positions
  readers = [n for n, e in enumerate(encodings) if reads(e)]
  numbers = {encodings[n].positions_per_token for n in readers}
  if len(numbers) > 1:
    said = ' and '.join(f'{names[n]} {encodings[n].positions_per_token}' for n in readers)
    raise ValueError(f'positions a token: {said}; allowed: the same number for all')


def _check_products(names: list[str], encodings: list[Encoding], with_scale: list[int]) -> None:
  """Refuses a member that makes products q . k again, in some heads at least, after others have
  changed them.
  """
  on_scores = [n for n, e in enumerate(encodings) if 'scores' in e.acts_on()]
  for n, e in enumerate(encodings):
    if _recomputes_any(e) and (with_scale or n > on_scores[0]):
      raise ValueError(
        f'{names[n]} takes q . k anew: it must act on scores first, and no member may set the scale'
      )


def _recomputes_any(enc: Encoding) -> bool:
  """Whether an encoding, or any that it is made of, makes the products q . k itself."""
  return any(part.recomputes_scores for part in enc.parts())


def _check_scale(names: list[str], encodings: list[Encoding], setter: int) -> None:
  """Refuses members to which the scale that another member sets would be unknown."""
  own, K = encodings[setter], encodings[setter].dims.head_dim
  is_moved = own.query_scale != 1
  is_new = not math.isclose(own.scale(K) * own.query_scale, K**-0.5)
  for n, e in enumerate(encodings):
    if n == setter:
      continue
    if is_new and e.applies_scale:
      problem = f'{names[setter]} sets the scale, and {names[n]} counts on 1/sqrt(K)'
    elif is_moved and e.needs_unscaled_queries:
      problem = f'{names[setter]} makes queries smaller, and {names[n]} reads their size'
    elif is_moved and e.bias_in_scale and e.has('bias'):
      problem = f'{names[setter]} moves the scale onto queries, and the bias of {names[n]} is in it'
    else:
      continue
    raise ValueError(f'{problem}; allowed: one of them')


def _check_widths(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses a member that reads heads of the usual width where another one makes them wider."""
  for n, wide in enumerate(encodings):
    if wide.qk_width_factor == 1:
      continue
    for m, e in enumerate(encodings):
      reads = m != n and (e.reads_qk or e.recomputes_scores)
      transforms = m > n and (e.rotates_qk or e.qk_width_factor != 1)
      if reads or transforms:
        raise ValueError(
          f'{names[m]} takes queries as wide as heads are, but {names[n]} makes them wider'
        )


def _check_channels(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses a member that splits channels of keys behind one that rotates or widens them."""
  for n, m in itertools.combinations(range(len(encodings)), 2):
    is_other = encodings[n].rotates_qk or encodings[n].qk_width_factor != 1
    if is_other and encodings[m].splits_channels:
      problem = f'{names[m]} splits the channels of keys, which {names[n]} rotates or makes wider'
      raise ValueError(f'{problem}; allowed: {names[m]} before {names[n]}')


def _check_heads(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members beside one that makes more heads, if they would meet heads that they lack."""
  for n, several in enumerate(encodings):
    if several.heads_out_per_head == 1:
      continue
    for m, e in enumerate(encodings):
      alone = {'input', 'queries and keys', 'values'} if m < n else {'input'}
      if m != n and not {*e.acts_on()} <= alone:
        problem = f'{names[n]} makes several heads of one, which {names[m]} is not made for'
        before = 'before it what acts on the input, on queries and keys or on values'
        raise ValueError(f'{problem}; allowed: {before}, behind it what acts on the input')


def _check_queries(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members of which one changes queries to what is no formula of another any more."""
  for n, m in itertools.permutations(range(len(encodings)), 2):
    reader, other = encodings[n], encodings[m]
    # A factor of queries is one of products that were set beside one another as channels.
    is_factor = _multiplies_alone(other) and not (reader.has('score') or reader.applies_scale)
    if reader.reads_own_queries and other.changes_queries and m > n and not is_factor:
      problem = f'{names[m]} changes queries behind {names[n]}, which has put a part into them'
      raise ValueError(f'{problem}; allowed: {names[m]} before {names[n]}')
    if reader.nonlinear_in_queries and other.nonlinear_in_queries and n < m:
      problem = f'products of {names[n]} and of {names[m]} are not proportional to their queries'
      raise ValueError(f'{problem}; allowed: one of them')
    is_in_score = _recomputes_any(reader)
    if reader.nonlinear_in_queries and (m < n or is_in_score):
      problem = f'products of {names[n]} are not proportional to them'
      if other.multiplies_queries:
        allowed = 'one of them' if is_in_score else f'{names[m]} behind {names[n]}'
        raise ValueError(f'{names[m]} multiplies queries, and {problem}; allowed: {allowed}')
      if factor := _attention_factor(other):
        multiplies = f'{names[m]} multiplies queries and keys by {factor:.4g}'
        allowed = 'an attention factor of 1, or a scaling without one'
        raise ValueError(f'{multiplies}, and {problem}; allowed: {allowed}')


def _multiplies_alone(enc: Encoding) -> bool:
  """Whether all that an encoding, and any that it is made of, does to queries is to multiply them
  by a factor.
  """
  return all(part.multiplies_queries or not part.changes_queries for part in enc.parts())


def _attention_factor(enc: Encoding) -> float | None:
  """What an encoding multiplies the queries and keys by that it rotates, in some calls at least;
  None where that is 1.
  """
  for part in enc.parts():
    if part.rotates_qk and callable(getattr(part, 'spectrum', None)):
      for length in (part.dims.train_length, MANY_KEYS):
        if (factor := part.spectrum(length)[1]) != 1:
          return factor
  return None


def _check_hidden(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members that read the scores of keys which another one has hidden, or count them."""
  for n, m in itertools.permutations(range(len(encodings)), 2):
    hiding, reader = encodings[n], encodings[m]
    if not hiding.hides_keys:
      continue
    problem = f'{names[m]} reads the scores of keys that {names[n]} hides'
    if reader.adapts_scores:
      raise ValueError(f'{problem}; allowed: one of them')
    if reader.needs_num_visible:
      problem = f'{names[m]} counts keys that a query sees, of which {names[n]} hides some'
      raise ValueError(f'{problem}; allowed: one of them')
    if reader.mixes_heads and reader.has('normalize'):
      problem = f'{names[m]} mixes weights of heads, of which {names[n]} hides keys from some'
      raise ValueError(f'{problem}; allowed: one of them')
    if reader.has('score') and m > n:
      raise ValueError(f'{problem}; allowed: {names[m]} before {names[n]}')


def _check_adapted(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses members that act on scores behind one that adapts what all have left of them."""
  for n, m in itertools.combinations(range(len(encodings)), 2):
    if encodings[n].adapts_scores and 'scores' in encodings[m].acts_on():
      problem = f'{names[n]} adapts the scores of all members, of {names[m]} behind it, too'
      raise ValueError(f'{problem}; allowed: {names[m]} before {names[n]}')


def _check_mixed(names: list[str], encodings: list[Encoding]) -> None:
  """Refuses a score that reads other heads behind one that returns logarithms of weights: a key
  without weight in one head would be among the scores of another.
  """
  for n, m in itertools.combinations(range(len(encodings)), 2):
    if encodings[n].normalizer == 'none' and encodings[m].mixes_heads and encodings[m].has('score'):
      problem = f'{names[m]} mixes scores of heads, of which {names[n]} has made weights'
      raise ValueError(f'{problem}; allowed: {names[m]} before {names[n]}')
