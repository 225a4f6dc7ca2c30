"""What an encoding may tell attention about where tokens are: one class of hooks, all optional."""

import dataclasses

import jax.numpy as jnp
from flax import nnx

# and their hooks
PLACES = {'input': 'embed', 'queries and keys': 'transform', 'scores': 'score', 'values': 'value'}


class LengthError(ValueError):
  """A sequence is longer than an encoding's table of positions."""


@dataclasses.dataclass(frozen=True)
class Dims:
  """Sizes an encoding is built for: D, H, G, K and L of the project's alphabet."""

  model_dim: int
  heads: int
  kv_heads: int
  head_dim: int
  train_length: int


class Encoding(nnx.Module):
  """A position encoding: hooks at up to four places of attention, each of which defaults to
  nothing.

  Subclasses take `(dims, rngs, *, hyperparameters)`, annotated, and set `paper`, `weights`,
  `claims`. Only parameters may be arrays: hyperparameters stay Python values and tables are
  computed in the hooks. `score` and `value` see one block of the score matrix and may use nothing
  but their arguments and the module's parameters, so that any tiling gives the same answer.
  """

  paper = ''  # where the formula stands
  weights: str  # its own parameters, in the words of the README's table
  # of length extrapolation, as published and verified, and whose; None: nothing is
  claims: str | None
  relative = True  # shifting every position by one amount changes nothing
  # whether `scale` also multiplies what `score` adds, or it is added after; None: adds nothing
  bias_in_scale = None
  causal_only = False  # has no meaning without a causal mask
  max_length = None  # an int: positions end there
  reach = None  # an int: beyond it on either side, tables are what they are at that distance
  # parameters of which every layer has its own, as published; the rest is shared by all layers
  per_layer = ()
  normalizer = 'softmax'
  # once a forward, by the model: (contiguous positions [B|1, T], B, key; None: in evaluation) ->
  # [B|1, T],
  draw = None
  # or the very array it was given, which costs nothing
  # times a model's projected queries, so that logits start, and relative steps stay, alike (see T5)
  query_scale = 1.0

  def __init__(self, dims: Dims, rngs: nnx.Rngs):
    self.dims = dims

  # Per token, once a layer.
  def embed(self, x_BTD, positions_BT):
    """Place 1, the input of the first layer: x + p. Token embeddings arrive with unit variance."""
    return x_BTD

  def locate(self, x_BSD, positions_BS):
    """Coordinates of the tokens: a pytree of float32 [B|1, S, ...]; by default their positions."""
    return positions_BS.astype(jnp.float32)

  def transform(self, q_BTHK, k_BSGK, i, j):
    """Place 2, queries and keys, given their coordinates: rotations, temperatures."""
    return q_BTHK, k_BSGK

  def scale(self, head_dim: int) -> float:
    """What q . k is multiplied by; `head_dim` is the width before `transform`."""
    return head_dim**-0.5

  # Per distance, once a call.
  def tables(self, r_R):
    """What depends on the distance r = i - j alone: a pytree of [R, H|1] scalars or [R, H|1, K]
    vectors, float32.

    A table that is added to the scores has the scale folded in. Distances are int32 of either sign.
    """
    return ()

  # Per block of the score matrix.
  # place 3: (s_BHTS scaled and unmasked, q_BTHK, k_BSHK transformed, not scaled, block) -> s_BHTS
  score = None
  value = None  # place 4: (p_BHTS, block) -> o_BTHK, added to p @ v
  # (suffix sums so far, [B, H, T'] each) -> bool: keys further left have no weight at all, for any
  # query
  spent = None

  def farthest(self, tokens: int) -> int:
    """The largest distance between positions that `draw` gives so many tokens."""
    return tokens - 1

  def project(self):
    """For after a step of the optimizer: itself, parameters back in their domain. They may be
    stacked over layers.
    """
    return self

  def places(self) -> tuple[str, ...]:
    """Where this encoding acts, in the order in which a token meets it."""
    own = lambda hook: getattr(type(self), hook) is not getattr(Encoding, hook)
    return tuple(
      place for place, hook in PLACES.items() if own(hook) and getattr(self, hook) is not None
    )
