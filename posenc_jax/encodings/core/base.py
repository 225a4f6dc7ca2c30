"""The base class of encodings: the hooks through which one acts, and what it declares of itself."""

import dataclasses
import functools
import operator
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

if TYPE_CHECKING:  # attention imports encodings
  from posenc_jax.attention.tiled.tile import ScoreTile

# Every hook, and the place where it acts on a token's way through a layer (None: none that
# `acts_on` reports, as of what prepares for other hooks, of `scale` and of a state). A wrapper
# delegates all of them, and a class that does not define a hook pays nothing for it.
HOOKS = {
  'positions_of_tokens': None,
  'sample_positions': None,
  'max_sampled_distance': None,
  'add_to_input': 'input',
  'initial_state': None,
  'enter_attention': 'queries and keys',
  'leave_attention': None,
  'leave_mlp': None,
  'coordinates': None,
  'transform_qk': 'queries and keys',
  'transform_values': 'values',
  'meet_own_values': 'output',
  'transform_output': 'output',
  'sink': 'softmax',
  'scale': None,
  'bias': 'scores',
  'relative_keys': 'scores',
  'relative_queries': 'scores',
  'relative_values': 'values of pairs',
  'tables': None,
  'score': 'scores',
  'normalize': 'weights',
  'is_exhausted': None,
}
# Hooks by which a model's layers act around attention, in their order.
AROUND_ATTENTION = ('initial_state', 'enter_attention', 'leave_attention', 'leave_mlp')
# Methods that a class may define, too, and that are no hooks.
OTHER_METHODS = ('constrain_parameters', 'of_pairs', 'elements_per_pair', 'parts')
PLACES_OF_PAIRS = ('scores', 'weights', 'values of pairs')  # inside of the score matrix
SCORE_TERMS = ('bias', 'relative_keys', 'relative_queries')  # declared terms that scores get
DISTANCE_TERMS = (*SCORE_TERMS, 'relative_values')  # all terms that depend on distance alone
# Class attributes of Encoding that are no declarations: a wrapper has its own.
NOT_DECLARED = ('paper', 'limit', 'per_layer', 'parameters_depend_on', 'switched_off', 'at_input')

# The score of a key without weight, whether a mask or an encoding takes it; finite, so that
# differences of two stay finite.
MASKED = -1e30
# A score at or below it is that of a hidden key, and exponentials are taken relative to it or more:
# so hidden keys have no weight even where a query sees no other.
LOWEST_SEEN = MASKED / 2
# The `limit` of encodings whose weights are made of whole rows of scores, and of all rows.
WHOLE_ROWS = (
  'rows of scores must be whole: on a mesh that cuts sequences each device has all keys, and the '
  'scores of all its queries at once'
)
ALL_ROWS = 'all scores must be there at once: memory grows with the square of the length'
# The `limit` of encodings whose scores read differences of coordinates.
ENDS_OF_COORDINATES = 'positions are float32: different ones from 2^24 on may count as one'


class LengthError(ValueError):
  """A sequence is longer than an encoding's table of positions."""


@dataclasses.dataclass(frozen=True)
class Dims:
  """The sizes that an encoding is built for.

  Attributes:
    model_dim: channels of the model (D).
    heads: heads of queries (H).
    kv_heads: heads of keys and values (G).
    head_dim: channels a head (K).
    train_length: training length in tokens (L).
  """

  model_dim: int
  heads: int
  kv_heads: int
  head_dim: int
  train_length: int


class Encoding(nnx.Module):
  """A position encoding. Every hook is optional; by default attention is left as it is.

  Which hook: positions added at the input, `add_to_input`; rotations and temperatures,
  `coordinates` and `transform_qk`; what depends on distance alone, `bias`, which the kernels
  `fused` and `triton` take, or `relative_*`, which `fused` takes; anything else about a pair,
  `score`, which both trace, too, and refuse for operations that they lack and, in `triton`, for
  parameters that it reads, heads that it mixes or tells apart, and `scans_keys`; weights that are
  no softmax, `normalize`.

  A subclass takes `(dims, rngs, *, hyperparameters)`, annotated, and may set `paper`,
  `parameter_summary` and `reported_extrapolation`. Only parameters may be arrays: hyperparameters
  stay Python values, and tables are computed in the hooks. `__init__` raises ValueError without the
  encoding's name: `make` puts it before the message. A hook names its class itself.
  """

  paper = ''  # where the formula stands
  # For the table of encodings, which has defaults for both: the encoding's own parameters in words,
  # and a published, verified claim with its author.
  parameter_summary: str
  reported_extrapolation: str | None
  limit: str | None = None  # what its arithmetic or its formula leaves open, in a line

  # Declarations of any encoding that differs from what is said here.

  relative = True  # attention does not change if every position is shifted by the same amount
  # Under a window, attention does not change if tokens that no query sees are left out of the call:
  # no hook reads those before a token, or how many keys there are. A class from elsewhere does not
  # inherit it: its hooks may.
  reads_window_alone = False
  causal_only = False  # the encoding has no meaning without a causal mask
  # `coordinates` or `transform_output` reads x, the layer's normalized input
  needs_inputs = False
  needs_num_visible = False  # `coordinates` reads how many keys each query sees
  # 'integers', or 'floats', which holds integers too; None: positions are not read
  position_kind: str | None = 'integers'
  positions_per_token = 1  # where it is n > 1, positions are [B|1, S, n]
  # Positions may be [B|1, S, G], too: of each head of keys, and of the queries that share it
  takes_positions_per_head = False
  # Positions come with the data, for `add_to_input` alone; `sample_positions` shifts them, but for
  # 0, which means no position and stays 0. Attention is at contiguous positions.
  takes_carried_positions = False
  # `sample_positions` moves positions that a model is given, too, for the input and for attention;
  # another encoding leaves them as they are, and a run refuses one that samples beside data with
  # positions
  moves_given_positions = False
  # Ids of the tokens that `positions_of_tokens` looks for; as bytes, of text whose tokens are bytes
  tokens_read: tuple[int, ...] | bytes = ()
  max_length: int | None = None  # the number of positions that there are
  max_relative_distance: int | None = None  # distance terms are constant from it on
  # Scores are MASKED in all heads from this distance on, either way: tiles there are not visited.
  # Such a class `hides_keys`
  hides_from: int | None = None
  # Whether `scale` multiplies the terms added to scores; None: nothing is added. An encoding with
  # such a term has to say it.
  bias_in_scale: bool | None = None
  # or 'none': `score` returns logarithms of weights; or 'rows': `normalize` makes weights
  normalizer = 'softmax'
  qk_width_factor = 1  # `transform_qk` makes queries and keys so many times as wide
  # `transform_qk` makes so many consecutive heads of each head of queries, all of which are output
  heads_out_per_head = 1
  added_value_channels = 0  # `enter_attention` makes values wider by so many channels
  query_scale = 1.0  # a model multiplies its projected queries by this; see t5.py

  # Declarations of an encoding that has a `score` or `normalize`.

  # shape per head and query of each value that `score` carries along the keys, from the query on
  # leftwards: such a class is `causal_only`
  scans_keys: tuple[tuple[int, ...], ...] = ()
  # `score` multiplies numbers of pairs at 'highest', whatever precision is set
  exact_products = False
  recomputes_scores = False  # `score` makes the products q . k itself and is given None for them
  needs_all_queries = False  # `normalize` reads the scores of other queries: T must be S

  # Declarations by which `chain`, `heads` and wrappers know which encodings go together. One that
  # is never a member of these may leave them as they are, but for `hides_keys`.

  rotates_qk = False  # `transform_qk` rotates queries and keys; only their product is relative
  # `transform_values` rotates values, and `transform_output`, where it is not switched off, back
  rotates_values = False
  multiplies_queries = False  # `transform_qk` does nothing but multiply queries by a factor
  # `transform_qk` treats some channels of keys otherwise than others: pairs that were rotated come
  # apart
  splits_channels = False
  reads_qk = False  # scores read queries or keys beside their product
  # `transform_qk` adds learned or positional parts to queries, and the formula relies on them:
  # no later member may change queries, but by one factor for all channels, and by none where the
  # class has a `score` or `applies_scale`
  reads_own_queries = False
  # q . k is not linear in the query that `transform_qk` is given or, where `recomputes_scores`, in
  # the one that `score` is given: scaling the query does not scale the score
  nonlinear_in_queries = False
  # A hook multiplies by `scale` itself, or by what undoes it: no other member may change it
  applies_scale = False
  # The size of queries means something to the encoding: `scale` may not be moved onto them
  needs_unscaled_queries = False
  # Scores are MASKED for some keys. No later `score` and no soft-cap may change such a score, or
  # the key would be seen again
  hides_keys = False
  adapts_scores = False  # `normalize` changes scores before it makes weights of them
  mixes_heads = False  # `score` or `normalize` reads scores of other heads

  # Parameters that every layer has of its own, as published; hyperparameters may leave some out.
  # All layers share the others.
  per_layer: tuple[str, ...] = ()
  # Hyperparameters that say what parameters mean, such as the unit of one: a training that starts
  # from a run in which one of them differs takes no parameters of the encoding
  parameters_depend_on: tuple[str, ...] = ()
  # hooks of the class that this instance's hyperparameters leave out
  switched_off: tuple[str, ...] = ()

  def __init_subclass__(cls, **options):
    super().__init_subclass__(**options)
    if not cls.__module__.startswith('posenc_jax.'):
      cls.reads_window_alone = vars(cls).get('reads_window_alone', False)

  def __init__(self, dims: Dims, rngs: nnx.Rngs):
    self.dims = dims

  # Once a forward pass, by the model.

  def positions_of_tokens(
    self, tokens_BT: jax.Array, position_ids: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Positions that a model reads off its tokens: (those of `add_to_input`, those of attention).

    Both are int32 [B, T]. They depend on no later token, and on none of another segment; those of
    attention are at most T - 1 apart.

    Args:
      tokens_BT: ids of the model's inputs, BOS first.
      position_ids: contiguous positions, int32 [B|1, T]; a segment begins at each 0.
    """
    raise NotImplementedError

  def sample_positions(
    self, position_ids: jax.Array, batch: int, key: jax.Array | None
  ) -> jax.Array | None:
    """Positions that a model draws for all its layers, or None: as they are.

    They are int32 or, where `position_kind` is 'floats', float32, too: [B|1, T], or [B|1, T,
    positions_per_token].

    Args:
      position_ids: contiguous positions, int32; those of the data, of either kind, where
        `takes_carried_positions` or `moves_given_positions`. Shapes are those of what is returned.
      batch: B.
      key: a jax.random key in training; None in evaluation.
    """
    return None

  def max_sampled_distance(self, tokens: int) -> int:
    """The largest distance between positions that `sample_positions` gives to so many tokens."""
    return tokens - 1

  def add_to_input(self, x_BTD: jax.Array, position_ids: jax.Array) -> jax.Array:
    """The input of the first layer, x + p. Token embeddings arrive with unit variance."""
    return x_BTD

  # By the model's layers, where an encoding carries a state of each token from one to the next.
  # What attention computes of such an encoding is plain: these hooks act before it and after it.

  def initial_state(self, position_ids: jax.Array, batch: int) -> jax.Array | None:
    """The state that the first layer gets: float32 [B, T, ...], or None: there is none.

    Args:
      position_ids: those of attention, [B|1, T].
      batch: B.
    """
    return None

  def enter_attention(
    self, q_BTHK: jax.Array, k_BTGK: jax.Array, v_BTGK: jax.Array, state: Any
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values, given the state; values are wider by `added_value_channels`."""
    return q_BTHK, k_BTGK, v_BTGK

  def leave_attention(self, o_BTHK: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """Outputs as wide as values were before `enter_attention`, and the state with the rest."""
    return o_BTHK, state

  def leave_mlp(self, y_BTD: jax.Array, state: Any) -> Any:
    """The state that the next layer gets, given the output of the MLP, before a norm behind it."""
    return state

  # Once a layer, for every token.

  def coordinates(
    self, x_BSD: jax.Array, position_ids: jax.Array, num_visible_BS: jax.Array, index_BS: jax.Array
  ) -> Any:
    """What the other hooks know of a token: a pytree of float32 [B|1, S, ...]; the positions.

    Args:
      x_BSD: the layer's normalized input, which queries, keys and values are projections of (of a
        layer whose norms stand behind its blocks, its input as it is), in the dtype of activations:
        cast it to float32 before it is added to positions, which bfloat16 rounds; or None where
        `attend` was given none.
      position_ids: int32, or float32 where they are floats: [B|1, S], or [B|1, S,
        positions_per_token], or [B|1, S, G] as `takes_positions_per_head` declares.
      num_visible_BS: how many keys each token sees as a query, itself included, under the mask and
        in its segment: int32 [B|1, S], or None unless `needs_num_visible`. Of tokens that are no
        queries a mask that is an array says nothing, and is not counted.
      index_BS: the place of each token in its segment, 0, 1, 2, ..., whatever its position: int32
        [B|1, S].
    """
    return position_ids.astype(jnp.float32)

  def of_pairs(self, coordinates: Any) -> Any:
    """The part of coordinates that scores of pairs read; tiles and rings do not carry the rest."""
    return coordinates if self.has('score') or self.has('normalize') else None

  def transform_qk(
    self, q_BTHK: jax.Array, k_BSGK: jax.Array, i: Any, j: Any
  ) -> tuple[jax.Array, jax.Array]:
    """Queries and keys, given their coordinates i and j: rotations, temperatures.

    Each is returned in the dtype that it comes in. Widths grow by `qk_width_factor`, the number of
    heads of queries by `heads_out_per_head`.
    """
    return q_BTHK, k_BSGK

  def transform_values(self, v_BSGK: jax.Array, j: Any) -> jax.Array:
    """Values of the same shape, given their coordinates j, before the weights meet them."""
    return v_BSGK

  def meet_own_values(self, o_BTHK: jax.Array, v_BTGK: jax.Array) -> jax.Array:
    """Outputs of the same shape, given the values of the queries' own tokens.

    It acts before any `transform_output`, on outputs and values as `transform_values` has turned
    them.

    Args:
      o_BTHK: the sums over keys, float32, or the dtype of v from some kernels.
      v_BTGK: of the tokens of the queries; consecutive heads of outputs share a head of values.
    """
    return o_BTHK

  def transform_output(self, o_BTHK: jax.Array, i: Any, x_BTD: jax.Array) -> jax.Array:
    """Outputs of the same shape, after the sum over keys: the inverse of a rotation, a gate.

    Args:
      o_BTHK: float32, or the dtype of v from some kernels.
      i: coordinates of the queries.
      x_BTD: the layer's normalized input at the queries, or None where `attend` was given none.
    """
    return o_BTHK

  def sink(self, q_BTHK: jax.Array, i: Any) -> jax.Array:
    """A logit that joins the denominator of softmax and nothing else: float32 [B|1, T|1, H].

      p_ij = exp(s_ij) / (exp(sink_i) + sum_l exp(s_il))

    Args:
      q_BTHK: transformed queries.
      i: their coordinates.
    """
    raise NotImplementedError

  def scale(self, head_dim: int) -> float:
    """The factor of q . k; `head_dim` is the width of a head before `transform_qk`."""
    return head_dim**-0.5

  # Once a call, by distance i - j of positions alone; the engine applies the terms, at O(T) memory,
  # and multiplies by `scale` where `bias_in_scale`.

  def bias(self, r_R: jax.Array) -> jax.Array:
    """[R, H|1]: s_ij += bias[i - j]. Floats, such as float32.

    `r_R`: distances, int32 [R], some below 0 under a causal mask, too. The terms of these must be
    finite and have finite gradients, for 0 times NaN is NaN: `jnp.sqrt(jnp.maximum(r_R, 1))`.
    """
    raise NotImplementedError

  def relative_keys(self, r_R: jax.Array) -> jax.Array:
    """[R, H|1, K]: s_ij += q_i . a[i - j]. `r_R` and what is returned: as for `bias`."""
    raise NotImplementedError

  def relative_queries(self, r_R: jax.Array) -> jax.Array:
    """[R, H|1, K]: s_ij += k_j . b[i - j]. `r_R` and what is returned: as for `bias`."""
    raise NotImplementedError

  def relative_values(self, r_R: jax.Array) -> jax.Array:
    """[R, H|1, K]: o_i += sum_j p_ij c[i - j]. `r_R` and what is returned: as for `bias`."""
    raise NotImplementedError

  def tables(self, r_R: jax.Array) -> Any:
    """A pytree of [R, H|1] and [R, H|1, channels], for a `score` that mixes them: `tile.tables` are
    numbers of each pair, [B|1, H|1, T', S'], ready to add, and vectors. `r_R`: as for `bias`.

    A vector meets queries by `tile.query_dot`, keys by `tile.reader.key_dot` and weights by
    `tile.reader.sum_by_distance`. `fused` lays out what keys read in another order, and knows it by
    the dict key 'relative_queries': it refuses a `key_dot` of others, and other uses of it.
    """
    raise NotImplementedError

  # For every tile of the score matrix.

  def score(
    self, s_BHTS: jax.Array, q_BHTK: jax.Array, k_BGSK: jax.Array, tile: 'ScoreTile'
  ) -> jax.Array:
    """The scores of a tile: float32 [B, H, T', S'].

    A score may use nothing but its arguments and the module's parameters, so that the scores of a
    part of a tile are that part of the tile's scores.

    Args:
      s_BHTS: scaled products and declared terms, not masked; None if `recomputes_scores`.
      q_BHTK, k_BGSK: transformed queries and keys, heads first.
      tile: an `attention.tiled.tile.ScoreTile`.
    """
    raise NotImplementedError

  def normalize(self, s_BHTS: jax.Array, tile: 'ScoreTile') -> jax.Array:
    """The weights of whole rows of scores: float32 [B, H, T, S], in the place of softmax.

    Scores of hidden keys are MASKED, whoever hides them; what they get here is not read. `tile` is
    a ScoreTile of all keys, and of a block of queries unless `needs_all_queries`.
    """
    raise NotImplementedError

  def is_exhausted(self, carried: tuple[jax.Array, ...]) -> jax.Array:
    """Whether all keys further left have no weight for any of the queries: one scalar bool.

    `blockwise` and `ring` ask before each tile, but never under a soft-cap; others visit them all.

    Args:
      carried: what `score` carries: a tuple of arrays [B, H, T', ...], one for each shape of
        `scans_keys`.
    """
    raise NotImplementedError

  # After a step of the optimizer.

  def constrain_parameters(self) -> Self:
    """This encoding with its parameters back in their domain. They may be stacked over layers.

    By default only the encodings that this one holds are constrained.
    """
    own = jax.tree.map(lambda leaf: leaf, self)
    for name, value in list(vars(own).items()):
      if isinstance(value, Encoding):
        setattr(own, name, value.constrain_parameters())
      elif isinstance(value, nnx.List) and any(isinstance(part, Encoding) for part in value):
        parts = [p.constrain_parameters() if isinstance(p, Encoding) else p for p in value]
        setattr(own, name, nnx.List(parts))
    return own

  # What others ask; a class may have another answer.

  def elements_per_pair(self, sequences: float, i: Any) -> float:
    """How many numbers `score` or `normalize` has of each pair in one array beside the scores, such
    as units of a hidden layer, for so many sequences whose queries have the coordinates i.
    """
    return 0

  def parts(self) -> tuple['Encoding', ...]:
    """The encodings that this one is made of, or itself."""
    return (self,)

  @property
  def adds_only_bias(self) -> bool:
    """Whether all that the encoding does is to add a bias that positions alone decide."""
    acting = {hook for hook, place in HOOKS.items() if place and self.has(hook)}
    others = ('scale', 'sample_positions', 'positions_of_tokens', *AROUND_ATTENTION)
    return acting == {'bias'} and not any(map(self.has, others)) and not self.hides_keys

  @property
  def at_input(self) -> 'Encoding':
    """The encoding whose positions `add_to_input` takes, which may be others than attention has."""
    return self

  @property
  def changes_queries(self) -> bool:
    """Whether `transform_qk` gives other queries than it is given."""
    return self.has('transform_qk')

  @property
  def has_terms(self) -> bool:
    """Whether anything depends on distance alone."""
    return any(map(self.has, (*DISTANCE_TERMS, 'tables')))

  @property
  def has_vector_tables(self) -> bool:
    """Whether a distance term is a vector by distance, which content meets in products."""
    if any(map(self.has, ('relative_keys', 'relative_queries', 'relative_values'))):
      return True
    if not self.has('tables'):
      return False
    one = jax.ShapeDtypeStruct((1,), jnp.int32)
    tables = jax.eval_shape(lambda enc, r_R: enc.tables(r_R), self, one)
    return any(leaf.ndim == 3 for leaf in jax.tree.leaves(tables))

  def has(self, hook: str) -> bool:
    """Whether the encoding defines a hook: its class does, and nothing switches it off."""
    is_defined = getattr(type(self), hook) is not getattr(Encoding, hook)
    return is_defined and hook not in self.switched_off

  def acts_on(self) -> tuple[str, ...]:
    """The places where the encoding acts, in the order in which a token meets them."""
    return tuple(dict.fromkeys(p for hook, p in HOOKS.items() if p and self.has(hook)))

  def distance_terms(self, r_R: jax.Array) -> dict[str, Any]:
    """All that depends on distance alone, by the name of its hook, with the scale multiplied in."""
    hooks = [hook for hook in (*DISTANCE_TERMS, 'tables') if self.has(hook)]
    terms = {hook: self.term_of_hook(hook, r_R) for hook in hooks}
    if self.bias_in_scale:
      scale = self.scale(self.dims.head_dim)
      terms |= {hook: terms[hook] * scale for hook in SCORE_TERMS if hook in terms}
    return terms

  def term_of_hook(self, hook: str, r_R: jax.Array) -> Any:
    """What a hook says of these distances. Raises ValueError, one line, for another shape than that
    of the hook, and for integers, of which tiles cannot add up gradients.
    """
    term, R, H, K = getattr(self, hook)(r_R), len(r_R), self.dims.heads, self.dims.head_dim
    # Tables of members that have some of the heads have so many.
    heads = {1, H} | ({part.dims.heads for part in self.parts()} if hook == 'tables' else set())
    scalars, vectors = f'[R, 1 or {H} heads]', f'[R, 1 or {H} heads, {K} channels]'
    forms = {'bias': {2: scalars}}.get(hook, {3: vectors})
    if hook == 'tables':  # a score makes of them what it likes, of any width
      forms = {2: scalars, 3: f'[R, 1 or {H} heads, channels]'}
    for leaf in jax.tree.leaves(term):
      shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
      is_of_form = len(shape) in forms and shape[0] == R and shape[1] in heads
      if not is_of_form or (forms[len(shape)] == vectors and shape[2] != K):
        problem = f'{type(self).__name__}: {hook} has shape {shape} for {R} distances'
        raise ValueError(f'{problem}; allowed: {" or ".join(forms.values())}')
      if not jnp.issubdtype(dtype, jnp.floating):
        problem = f'{type(self).__name__}: {hook} has dtype {dtype}'
        raise ValueError(f'{problem}; allowed: float32, such as r_R.astype(jnp.float32)')
    return term


# What a class, or an instance by its hyperparameters, declares; laws prove each.
DECLARED = tuple(
  name
  for name, value in vars(Encoding).items()
  if not (name.startswith('_') or name in NOT_DECLARED or callable(value))
)


def check_numbers_of_positions(position_ids) -> None:
  """Raises ValueError, one line, for positions that may have been rounded and, unless they are
  traced or lie with other processes, too, for integers of which int32 does not hold all and the
  distances between them, and for float64 of which float32 makes two tokens in a row one place.
  """
  dtype = position_ids.dtype
  is_whole = jnp.issubdtype(dtype, jnp.integer)
  if not (is_whole or (jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4)):
    raise ValueError(f'position_ids has dtype {dtype}; allowed: integers, or floats of 32 bits')
  if not (position_ids.size and is_readable(position_ids)):
    return
  known = np.asarray(position_ids)
  if is_whole:
    low, high = int(known.min()), int(known.max())
    if low < -(2**31) or high >= 2**31 or high - low >= 2**31:
      allowed = 'values of int32, less than 2^31 apart'
      raise ValueError(f'position_ids go from {low} to {high}; allowed: {allowed}')
  elif dtype.itemsize > 4 and known.ndim > 1:
    steps = np.diff(known, axis=1)
    is_step = np.abs(steps) > 16 * np.spacing(np.abs(known).max())  # and no rounding of one place
    lost = steps[is_step & (np.diff(known.astype(np.float32), axis=1) == 0)]
    if lost.size:
      problem = f'position_ids of {dtype} have a step of {lost[0]:.3g}, which float32 loses'
      allowed = 'counted from the first of each row, subtracted in float64; or float32'
      raise ValueError(f'{problem}; allowed: {allowed}')


def is_readable(array) -> bool:
  """Whether this process has all numbers of an array: it is not traced, nor cut among processes."""
  is_traced = isinstance(array, jax.core.Tracer)
  return not is_traced and getattr(array, 'is_fully_addressable', True)


def in_32_bits(position_ids, is_checked: bool = False):
  """Positions as int32 or float32, and so computed with: JAX takes the numbers that stand beside an
  array of 8 bits to 8 bits, where they wrap. Raises ValueError as `check_numbers_of_positions`,
  unless they are checked: each check of known ones copies them to the host.
  """
  if not is_checked:
    check_numbers_of_positions(position_ids)
  is_whole = jnp.issubdtype(position_ids.dtype, jnp.integer)
  return position_ids.astype(jnp.int32 if is_whole else jnp.float32)


def input_positions(x_BTD, position_ids, per_token: int = 1):
  """The positions of the tokens of an input, as `in_32_bits` has them. Raises ValueError, one line,
  for those that are none.
  """
  (B, T), shape = x_BTD.shape[:2], getattr(position_ids, 'shape', None)
  each = () if per_token == 1 else (per_token,)
  allowed = (B, T, *each), (1, T, *each)
  if shape not in allowed:
    given = 'is None' if position_ids is None else f'has shape {shape}'
    either = ' or '.join(map(str, allowed))
    raise ValueError(f'position_ids {given}; allowed: {either}, those of the tokens')
  return in_32_bits(position_ids)


def delegate_to_inner(kind: type[Encoding], own: Collection[str]) -> None:
  """Gives wrappers the hooks, declarations and parts of `self.inner`, but for their own."""

  def hook(self, *arguments, name: str):
    return getattr(self.inner, name)(*arguments)

  for name in {*HOOKS, 'parts', 'of_pairs', 'elements_per_pair'} - {*own}:
    setattr(kind, name, functools.partialmethod(hook, name=name))
  for name in {*DECLARED} - {*own}:
    setattr(kind, name, property(operator.attrgetter(f'inner.{name}')))
