"""An encoding's profile: what position adds to an attention score, against distance, in numbers.

Every number is read off the encoding itself. What is returned holds numpy arrays and text, for
renderers that know nothing of jax.
"""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import cli, errors
from posenc_jax.attention.positions import positions_in_order
from posenc_jax.encodings import Encoding, make
from posenc_jax.errors import UserError
from posenc_jax.inspection.recorder import recorded_scores

BATCH = 16  # samples that are measured at once
LOWEST = -16.0  # scores below are not drawn: e^-16 is 1e-7
LONG = 128  # distances up to which every one is a point
PER_OCTAVE = 12  # points that a noisy curve is drawn at
ADDED = 'score minus the score without position'
OF_WEIGHTS = 'log weight minus score without position'
NOT_DRAWN = ('softmax', 'weights', 'values', 'values of pairs', 'output')  # what else may change
TITLES = {
  'bias': ('Bias', 'added to a score'),
  'any': ('Any key', ADDED),
  'unrelated': ('Key unrelated to the query', ADDED),
  'alike': ('Key with the content of the query', ADDED),
}


@dataclasses.dataclass(frozen=True)
class Panel:
  """Curves of one plot against distance, one of each head, or one of all if they are equal.

  Attributes:
    y_title: title of the axis of scores.
    distances_P: the distances, or the middles of groups of far distances.
    spread_PH: standard deviations, or None of an exact bias.
  """

  title: str
  y_title: str
  distances_P: np.ndarray
  labels: list[str]
  mean_PH: np.ndarray
  spread_PH: np.ndarray | None

  @property
  def lowest(self) -> float:
    """The lowest score of all that there is to draw, bands too; infinite if there is nothing. Means
    are NaN of hidden keys.
    """
    spread_PH = 0 if self.spread_PH is None else self.spread_PH
    return float(np.nanmin(self.mean_PH - spread_PH, initial=np.inf))


@dataclasses.dataclass(frozen=True)
class Profile:
  """The panels of one encoding, and what a reader must know about them."""

  panels: list[Panel]
  notes: list[str]


def from_spec(spec: str, heads: int, head_dim: int, train_length: int, seed: int) -> Encoding:
  """The encoding of 'NAME/hyper=value/section.hyper=value', D = H K. Raises UserError."""
  encoding = cli.encoding_of(spec)
  sizes = dict(model_dim=heads * head_dim, heads=heads, head_dim=head_dim)
  with errors.user_errors(ValueError, TypeError):
    return make(**encoding, **sizes, train_length=train_length, rngs=nnx.Rngs(seed))


def profile(
  enc: Encoding, length: int, samples: int, seed: int, state: str | None = None
) -> Profile:
  """The profile at the distances 0 .. length - 1. Raises UserError as `against_distance` does.

  `state`: where its parameters are from, in words; None: from the seed.
  """
  curves = against_distance(enc, length, samples, seed)
  is_exact = 'bias' in curves
  H, K = enc.dims.heads, enc.dims.head_dim
  state = state or f'At initialization, seed {seed}'
  notes = [f'{enc.paper}. {state}; {H} heads of {K} channels.']
  if not is_exact:
    notes.append(
      f'Lines: mean over {samples} draws of tokens of unit variance. Bands: one standard deviation.'
    )
  if enc.max_length:
    notes.append(f'Positions end at {enc.max_length:,} tokens.')
  is_thinned = length >= LONG and not (is_exact and enc.relative)
  if is_thinned:
    how = 'averages over' if enc.relative else 'one of each'
    notes.append(f'Far distances: {how} 1/{PER_OCTAVE} octave.')
  if not enc.relative:
    notes.append(f'It depends on absolute positions too: here the query stands at {length - 1:,}.')
  if others := [place for place in NOT_DRAWN if place in enc.acts_on()]:
    notes.append(f'It acts on {" and ".join(others)} too, which is not drawn.')
  if enc.normalizer == 'none':
    notes.append('Its weights are no softmax: keys without weight are left out.')
  if enc.has('positions_of_tokens'):
    notes.append('It reads positions off tokens: here, at the input too, they are 0, 1, 2, ...')
  panels = []
  for kind, (mean_RH, spread_RH) in curves.items():
    distances_R = np.arange(length)
    if is_thinned:
      distances_R, mean_RH = thin(mean_RH, enc.relative)
      spread_RH = None if spread_RH is None else thin(spread_RH, enc.relative)[1]
    labels = [f'head {head + 1}' for head in range(mean_RH.shape[1])]
    if np.array_equal(mean_RH, np.broadcast_to(mean_RH[:, :1], mean_RH.shape), equal_nan=True):
      labels, mean_RH = ['every head'], mean_RH[:, :1]
      spread_RH = None if spread_RH is None else spread_RH[:, :1]
    title, y_title = TITLES[kind]
    if y_title == ADDED and enc.normalizer == 'none':
      y_title = OF_WEIGHTS
    panels.append(Panel(title, y_title, distances_R, labels, mean_RH, spread_RH))
  if any(panel.lowest < LOWEST for panel in panels):
    notes.append(f'What is below {LOWEST:g} is not drawn.')
  return Profile(panels, notes)


def thin(values_RH: np.ndarray, average: bool) -> tuple[np.ndarray, np.ndarray]:
  """(distances, values) of every near distance, and of PER_OCTAVE an octave where they are more.

  A group of far distances is shown by its mean or, if not `average`, by the value in its middle:
  the mean of values that are unlike from one distance to the next would look like a decay.
  """
  length = len(values_RH)
  edges = np.unique(np.round(2 ** np.arange(0, np.log2(length), 1 / PER_OCTAVE)).astype(int))
  edges = np.concatenate([[0], edges[edges < length]])
  sizes = np.diff(np.append(edges, length))
  if not average:
    return edges + sizes // 2, values_RH[edges + sizes // 2]
  return edges + (sizes - 1) / 2, np.add.reduceat(values_RH, edges, axis=0) / sizes[:, None]


def against_distance(enc: Encoding, length: int, samples: int, seed: int) -> dict[str, tuple]:
  """What position adds to a score at the distances 0 .. length - 1, for each head.

  Args:
    length: tokens of the sequence whose last one is the query.
    samples: how many sequences of random tokens are drawn.
    seed: of these and of the projections.
  Returns:
    {kind of key: (mean [R, H], standard deviation [R, H] or None)}. {'bias': ...}, exactly, where
    content changes nothing. Else over random tokens of unit variance and one random projection a
    head: 'unrelated', a key is any token; 'alike', it is the query's token through the query's
    projection, which heads of queries share where they share keys; or 'any' where that makes no
    difference. Keys without weight are left out; NaN where all of them are.
  Raises:
    UserError: a length beyond a table.
  """
  if length < 2 or (enc.max_length or length) < length:
    raise UserError(f'--length={length}; allowed: 2 to {enc.max_length or "any"}')
  D, H, G, K = enc.dims.model_dim, enc.dims.heads, enc.dims.kv_heads, enc.dims.head_dim
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.standard_normal(shape, np.float32)

  def is_close(values, others):
    return np.allclose(values, others, rtol=1e-5, atol=1e-4, equal_nan=True)

  w_q, w_k = normal(D, H, K) * D**-0.5, normal(D, G, K) * D**-0.5
  w_shared = w_q[:, :: H // G]
  w_same = np.repeat(w_shared, H // G, axis=1)
  measure = jax.jit(functools.partial(_added_by_position, enc))
  zeros = np.zeros((BATCH, length, D), np.float32)
  bias_RH = np.asarray(measure(w_q, w_k, zeros[:, :1], zeros, zeros)[0])
  drawn = {'unrelated': [], 'alike': []}
  for _ in range(-(-samples // BATCH)):
    query, keys, x = normal(BATCH, 1, D), normal(BATCH, length, D), normal(BATCH, length, D)
    drawn['unrelated'].append(np.asarray(measure(w_q, w_k, query, keys, x), np.float64))
    if is_close(drawn['unrelated'][0], bias_RH):
      return {'bias': (bias_RH, None)}
    alike = np.broadcast_to(query, keys.shape)
    drawn['alike'].append(np.asarray(measure(w_same, w_shared, query, alike, x), np.float64))
  joined = {kind: np.concatenate(batches)[:samples] for kind, batches in drawn.items()}
  if is_close(joined['unrelated'], joined['alike']):
    joined = {'any': joined['unrelated']}
  return {kind: _mean_and_spread(values) for kind, values in joined.items()}


def _mean_and_spread(values_NRH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', RuntimeWarning)  # of distances at which all are hidden
    return np.nanmean(values_NRH, axis=0), np.nanstd(values_NRH, axis=0)


def _added_by_position(enc: Encoding, w_q, w_k, query_B1D, keys_BSD, x_BSD):
  """Scores of the last query less those without position, by distance: [B, S, H].

  Queries and keys are projections [D, H, K] and [D, G, K] of tokens that the encoding may change at
  the input; x are the tokens that encodings which read content read.
  """
  positions_1S = positions_in_order(enc.at_input, keys_BSD.shape[1])
  w_q = enc.query_scale * w_q
  q = _project(enc.add_to_input(query_B1D, positions_1S[:, -1:]), w_q)
  k = _project(enc.add_to_input(keys_BSD, positions_1S), w_k)
  at_all = jnp.broadcast_to(q, (*k.shape[:2], *q.shape[2:]))
  at_all, k, _ = enc.enter_attention(at_all, k, k, enc.initial_state(positions_1S, len(k)))
  q = at_all[:, -1:]
  scores_BHTS = recorded_scores(enc, q, k, x=enc.add_to_input(x_BSD, positions_1S))
  q, k = _project(query_B1D, w_q), _project(keys_BSD, w_k)
  k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
  plain_BHTS = enc.scale(q.shape[-1]) * jnp.einsum('bthk,bshk->bhts', q, k)
  plain_BHTS = jnp.repeat(plain_BHTS, enc.heads_out_per_head, axis=1)
  return (scores_BHTS - plain_BHTS)[:, :, 0, ::-1].swapaxes(1, 2)


def _project(x_BTD, w_DHK):
  return jnp.einsum('btd,dhk->bthk', x_BTD, w_DHK)
