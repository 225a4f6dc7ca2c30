"""Every encoding again as float64 loops over pairs, written from the formula and sharing nothing
with the library.

An oracle is a function (dims, hyper, parameters) -> Oracle; parameters are the encoding's, as NumPy
arrays.
"""

import dataclasses
import functools
import math

import numpy as np


def softplus(x):
  return math.log(1 + math.exp(x))


def gelu(x):
  return x * (1 + math.erf(x / math.sqrt(2))) / 2


def unit(x):
  return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def softmax(s_S):
  p_S = np.exp(s_S - s_S.max())
  return p_S / p_S.sum()


@dataclasses.dataclass
class Oracle:
  """A formula: score(q_i, k_j, i, j, h) of a pair, and what else differs from plain attention.

  x is the input of the layer, or what `tokens` makes of it and of the positions of a row.
  """

  score: callable
  position: callable = lambda t: 0.0  # added to the input of the layer at t
  value: callable = lambda i, j, h: 0.0  # added to v_j
  move: callable = lambda v, i, j, h: v  # what i gets of v_j
  # (v, x_i, x_j, h) -> what the token i gets of it
  convey: callable = lambda v, x_i, x_j, h: v
  leave: callable = lambda o, v, h: o  # what is left of an output where v is the token's own value
  # (q_i, k_nK, x_nD, h, seen_n) -> added to the scores of the n keys from the first that i sees to
  # i itself or a later one, where a pair needs the tokens between; i sees those of seen_n
  along: callable = lambda q, k_nK, x_nD, h, seen_n: np.zeros(len(k_nK))
  tokens: callable = lambda x_SD, position_S: x_SD
  # (q_i, k_j, x_i, x_j, n, h) -> added to a score, where i sees n keys
  pair: callable = lambda q, k, x_i, x_j, n, h: 0.0
  # where heads mix: (s_HS, i, j_S, place_S) -> new scores of all heads of a row, of keys at the
  # places place_S of the sequence
  across: callable = lambda s_HS, i, j_S, place_S: s_HS
  # where queries mix: ((i, seen, s_HS) of all queries in order, with the places that each sees,
  # and the places where documents start) -> such rows; `spread` does so with weights
  among: callable = lambda rows, starts: rows
  weights: callable = softmax  # of the scores of a row
  spread: callable = lambda rows, starts: rows
  blend: callable = lambda p_HS: p_HS  # what becomes of the weights of all heads of a row
  sink: callable = None  # (q_i, i, h) -> one score more in that row, with no value
  # what a score of q . k alone does to q and to k: (x, t, h) -> x
  turn: tuple[callable, callable] | None = None
  # what becomes of all keys, and all values: (k_SGK, x_SD, position_S, 'k' or 'v') -> k_SGK
  mix: callable = lambda k_SGK, x_SD, position_S, which: k_SGK
  heads_out_per_head: int = 1  # out of each head of q, next to each other
  bend: callable = lambda x: x  # of queries and keys, before all else: [..., K] -> [..., K]
  # (n, h, x_i) -> the factor of a query that sees n keys, then
  temper: callable = lambda n, h, x: 1.0
  # what becomes of a query of the head h that sees n keys, then: (q, n, h) -> q
  requery: callable = lambda q, n, h: q
  # whether a product of the token's own stands beside q . k, which later factors of q multiply, too
  sets_beside: bool = False


def dot(K):
  return lambda q, k, i, j, h: q @ k / math.sqrt(K)


def nope(dims, hyper, p):
  return Oracle(dot(dims.head_dim))


def learned(dims, hyper, p):
  tables, T, extend = p['rows'], hyper.get('extend_to'), hyper.get('extend')
  tables = tables if tables.ndim == 3 else [tables]

  def row(rows, t):
    L = len(rows)
    if extend == 'repeat':
      return rows[t % L]
    if extend == 'group':
      return rows[t // math.ceil(T / L)]
    if extend == 'interpolate':
      place = t * (L - 1) / (T - 1)
      n = min(int(place), L - 2)
      return rows[n] + (place - n) * (rows[n + 1] - rows[n])
    if extend == 'hierarchical':
      u = (rows - 0.4 * rows[0]) / 0.6
      return 0.4 * u[t // L] + 0.6 * u[t % L]
    return rows[t]

  def position(t):
    return math.sqrt(dims.model_dim) * sum(map(row, tables, np.atleast_1d(t)))

  return Oracle(dot(dims.head_dim), position=position)


def position_coupling(dims, hyper, p):
  def position(t):
    levels = np.atleast_1d(t)
    return sum(math.sqrt(dims.model_dim) * p['rows'][n][c] for n, c in enumerate(levels))

  return Oracle(dot(dims.head_dim), position=position)


@functools.lru_cache(maxsize=1000)
def wave(t, D, layout='interleaved', base=10_000.0):
  half = D // 2
  out = np.zeros(D)
  for m in range(half):
    angle = t * (base ** (-m / (half - 1)) if layout == 'tensor2tensor' else base ** (-2 * m / D))
    where = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, half + m)
    out[where[0]], out[where[1]] = math.sin(angle), math.cos(angle)
  out.flags.writeable = False
  return out


def learned_fourier(dims, hyper, p):
  def position(t):
    each = zip(np.atleast_1d(t), np.atleast_2d(p['frequencies']), strict=True)
    angles = sum(own * w for own, w in each)
    waves = np.concatenate([np.cos(angles), np.sin(angles)]) / math.sqrt(2 * len(angles))
    units = [gelu(u) for u in waves @ p['w_in'] + p['b_in']]
    return units @ p['w_out'] + p['b_out']

  return Oracle(dot(dims.head_dim), position=position)


def sinusoidal(dims, hyper, p):
  waves = {name: hyper[name] for name in ('layout', 'base') if name in hyper}
  factor = math.sqrt(dims.model_dim) * p['c'] if 'c' in p else 1.0
  width = dims.model_dim // hyper.get('axes', 1)
  of_axes = lambda t: np.concatenate([wave(own, width, **waves) for own in np.atleast_1d(t)])
  return Oracle(dot(dims.head_dim), position=lambda t: factor * of_axes(t))


def shaw(dims, hyper, p):
  most, values, both = (
    hyper.get('max_distance', 16),
    hyper.get('value_rows', True),
    hyper.get('key_query', False),
  )
  later = hyper.get('max_later', most)

  def row(table, i, j):
    if hyper.get('beyond') == 'zero' and not -most <= j - i <= later:
      return np.zeros(dims.head_dim)
    return table[int(min(max(j - i, -most), later)) + most]

  return Oracle(
    lambda q, k, i, j, h: (
      (q @ k + (q + both * k) @ row(p['keys'], i, j)) / math.sqrt(dims.head_dim)
    ),
    value=lambda i, j, h: row(p['values'], i, j) if values else 0.0,
  )


def gamma_density(x, mean, deviation):
  shape, rate = (mean / deviation) ** 2, mean / deviation**2
  if x == 0:
    return 0.0
  logarithm = shape * math.log(rate) + (shape - 1) * math.log(x) - rate * x - math.lgamma(shape)
  return math.exp(logarithm)


@functools.lru_cache(maxsize=1000)
def enformer_features(r, number, length):
  n = number // 6
  share = [m / (n - 1) if n > 1 else 0 for m in range(n)]
  means = [length / n + s * (length - length / n) for s in share]
  density = lambda x, m: gamma_density(x, means[m], length / (2 * n))
  largest = max(density(x, m) for x in range(length) for m in range(n))
  each = [2 ** (-abs(r) / 2 ** (3 + s * (math.log2(length) - 3))) for s in share]
  each += [1.0 if abs(r) < 2 ** (m + 1) - 1 else 0.0 for m in range(n)]
  each += [(density(abs(r), m) + 1e-8) / (largest + 1e-8) for m in range(n)]
  return np.array(each + [np.sign(r) * x for x in each])


def transformer_xl(dims, hyper, p):
  most = hyper.get('max_distance') or math.inf

  def features(r):
    if hyper.get('features'):
      return enformer_features(r, hyper['features'], hyper.get('length') or dims.train_length)
    return wave(r, dims.model_dim, 'half')

  def score(q, k, i, j, h):
    r = features(max(-most, min(i - j, most))) @ p['w_r'][:, h]
    return ((q + p['u'][h]) @ k + (q + p['v'][h]) @ r) / math.sqrt(dims.head_dim)

  return Oracle(score)


def t5_bucket(hyper):
  """(i, j) -> the bucket."""
  buckets, most = hyper.get('buckets', 32), hyper.get('max_distance', 128)

  def bucket(i, j):
    side, base = buckets, 0
    n = max(i - j, 0)
    if hyper.get('bidirectional', False):
      side, n = buckets // 2, abs(i - j)
      base = side if j > i else 0
    e = side // 2
    # The small excess keeps exact powers on the upper side of the floor; tests compare with
    # published bucket starts.
    big = (
      n
      if n < e
      else min(e + math.floor(math.log(n / e) / math.log(most / e) * (side - e) + 1e-9), side - 1)
    )
    return base + big

  return bucket


def t5(dims, hyper, p):
  bucket = t5_bucket(hyper)
  return Oracle(
    lambda q, k, i, j, h: q @ k + math.sqrt(dims.head_dim) * p['table'][bucket(i, j), h]
  )


def gated_t5(dims, hyper, p):
  bucket, width = t5_bucket(hyper), dims.model_dim // dims.heads

  def pair(q, k, x_i, x_j, n, h):
    y = x_i[h * width : (h + 1) * width] @ p['w_g'] + p['b_g']
    a, b = sigmoid(sum(y[:4])), sigmoid(sum(y[4:]))
    gate = a * (b * p['c'][h] - 1) + 2
    return gate * p['table'][bucket(int(x_i[-1]), int(x_j[-1])), h]

  return Oracle(dot(dims.head_dim), pair=pair, tokens=with_position)


def deberta(dims, hyper, p):
  buckets, most = hyper.get('buckets', 0), hyper.get('max_distance', 512)
  span = buckets or hyper.get('span') or dims.train_length
  c2p, p2c = hyper.get('c2p', True), hyper.get('p2c', True)

  def bucket(r):
    mid = buckets // 2
    if not buckets or abs(r) <= mid:
      return r
    # The small excess keeps exact powers below the ceiling.
    steps = math.log(abs(r) / mid) / math.log((most - 1) / mid) * (mid - 1)
    return int(math.copysign(math.ceil(steps - 1e-9) + mid, r))

  def score(q, k, i, j, h):
    row = math.sqrt(dims.model_dim) * p['rows'][min(max(bucket(i - j) + span, 0), 2 * span - 1)]
    s = q @ k
    s += q @ (row @ p['w_k'][:, h]) if c2p else 0
    s += k @ (row @ p['w_q'][:, h]) if p2c else 0
    return s / math.sqrt((1 + c2p + p2c) * dims.head_dim)

  return Oracle(score)


@functools.lru_cache(maxsize=1000)
def rotation_matrix(t, K, width, layout, base):
  """RoPE as the paper writes it (eq. 15): a block-diagonal matrix of 2 x 2 rotations."""
  matrix = np.eye(K)
  for m in range(width // 2):
    a, b = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, m + width // 2)
    angle = t * base ** (-2 * m / width)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
  matrix.flags.writeable = False
  return matrix


def turn_of(dims, hyper):
  """The matrix of RoPE at a position."""
  K = dims.head_dim
  width, layout = round(hyper.get('fraction', 1.0) * K), hyper.get('layout', 'half')
  return lambda t: rotation_matrix(t, K, width, layout, hyper.get('base', 10_000.0))


def of_turned(dims, turned):
  """Scores of queries and keys that turned(x, t, h) has changed."""
  score = lambda q, k, i, j, h: turned(q, i, h) @ turned(k, j, h) / math.sqrt(dims.head_dim)
  return Oracle(score, turn=(turned, turned))


def rope(dims, hyper, p):
  turn = turn_of(dims, hyper)
  return of_turned(dims, lambda x, t, h: turn(t) @ x)


def ms_poe(dims, hyper, p):
  least, greatest = hyper.get('least_ratio', 1.2), hyper.get('greatest_ratio', 1.8)
  order = hyper.get('order', range(dims.heads))
  turn, ratio = turn_of(dims, hyper), lambda h: least + (greatest - least) * order[h] / dims.heads
  return of_turned(dims, lambda x, t, h: turn(t / ratio(h)) @ x)


def tape_steps(dims, hyper, p):
  """What TAPE makes of the states z [G, K/2] of a token: at its start, of mean states [H, K/2]
  that its heads attend to, of the output of the MLP.
  """
  K, H, G = dims.head_dim, dims.heads, dims.kv_heads

  def start(t):
    row = [np.exp(1j * t * hyper.get('base', 10_000.0) ** (-2 * m / K)) for m in range(K // 2)]
    return np.array([row] * G)

  def attended(z_GM, mean_HM):
    out = z_GM.copy()
    for h in range(H):
      out[h // (H // G)] += H * p['c'][h] * mean_HM[h]
    return out

  def through_mlp(z_GM, y_D):
    out, logits = z_GM.copy(), y_D @ p['w_y']
    for w, logit in enumerate(logits):
      mixed = sum(p['w_up'][g, w] * z_GM[g] for g in range(G))
      for g in range(G):
        out[g] += p['w_down'][w, g] * logit * sigmoid(logit) * mixed
    return out

  return start, attended, through_mlp


def turned_score(q, k, z_i, z_j, layout):
  """The product of q and k of which pairs are multiplied by complex numbers [K/2] each."""
  K = len(q)
  apart = (slice(0, K, 2), slice(1, K, 2)) if layout == 'interleaved' else np.split(np.arange(K), 2)
  pairs = lambda x: x[apart[0]] + 1j * x[apart[1]]
  return (pairs(q) * z_i * np.conj(pairs(k) * z_j)).sum().real / math.sqrt(K)


def tape(dims, hyper, p):
  """Behind a layer of which every token sees itself alone, and whose MLP has x as its output."""
  start, attended, through_mlp = tape_steps(dims, hyper, p)
  group = dims.heads // dims.kv_heads

  def tokens(x_SD, position_S):
    states = np.empty(len(x_SD), object)
    for n, (x, t) in enumerate(zip(x_SD, position_S, strict=True)):
      z_GM = start(t)
      states[n] = through_mlp(attended(z_GM, np.repeat(z_GM, group, axis=0)), x)
    return states

  def pair(q, k, z_i, z_j, n, h):
    return turned_score(q, k, z_i[h // group], z_j[h // group], hyper.get('layout', 'half'))

  return Oracle(lambda q, k, i, j, h: 0.0, pair=pair, tokens=tokens)


def rope_pp(dims, hyper, p):
  """Heads in turns the real and the imaginary part."""
  K, base, layout = dims.head_dim, hyper.get('base', 10_000.0), hyper.get('layout', 'half')

  def score(q, k, i, j, h):
    s = 0
    for m in range(K // 2):
      a, b = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, m + K // 2)
      product = complex(q[a], q[b]) * complex(k[a], -k[b])
      s += product * np.exp(1j * (i - j) * base ** (-2 * m / K))
    return (s.imag if h % 2 else s.real) / math.sqrt(K)

  return Oracle(score, heads_out_per_head=2)


def kv_shift(dims, hyper, p):
  def mix(y_SGK, x_SD, position_S, which):
    out = np.zeros_like(y_SGK)
    for t, g in np.ndindex(*y_SGK.shape[:2]):
      if hyper.get('gate') == 'learned':
        a, own = p[f'w_{which}'][:, g]
      else:
        a = sigmoid(x_SD[t] @ p[f'w_{which}'][:, g])
        own = 1 - a
      out[t, g] = own * y_SGK[t, g]
      if t > 0 and position_S[t] > position_S[t - 1]:  # else a document begins
        out[t, g] += a * y_SGK[t - 1, g]
    return out

  return Oracle(dot(dims.head_dim), mix=mix)


def key_offset(dims, hyper, p):
  first = dims.head_dim - round(hyper.get('fraction', 0.5) * dims.head_dim)

  def mix(y_SGK, x_SD, position_S, which):
    out = y_SGK.copy()
    for t in range(1, len(y_SGK)):
      if which == 'k' and position_S[t] > position_S[t - 1]:  # else a document begins
        out[t, :, first:] = y_SGK[t - 1, :, first:]
    return out

  return Oracle(dot(dims.head_dim), mix=mix)


def axial_rope(dims, hyper, p):
  K, base, axes = dims.head_dim, hyper.get('base', 10_000.0), hyper.get('axes', 2)
  bases = base if isinstance(base, tuple) else [base] * axes
  R, spectrum = round(hyper.get('fraction', 1.0) * K), hyper.get('spectrum', 'each')
  parts = dims.kv_heads if spectrum == 'heads' else R // 2
  sections = hyper.get('sections') or [parts // axes] * axes
  axis_of_pair = [axis for axis, n in enumerate(sections) for _ in range(n)]
  if spectrum == 'interleaved':  # all pairs are the first axis' until others take theirs
    axis_of_pair = [0] * (R // 2)
    for axis in range(1, axes):
      for m in range(axis, axes * sections[axis], axes):
        axis_of_pair[m] = axis
  if spectrum == 'first_slowest':  # row, column, row, ..., and at last time
    turns = [1 + m % (axes - 1) for m in range(R // 2 - sections[0])]
    axis_of_pair = turns + [0] * sections[0]

  def frequency(m, axis):
    at, of = (m - sum(sections[:axis]), sections[axis]) if spectrum == 'each' else (m, R // 2)
    scaling = hyper.get('scaling', {}) if hyper.get('scaled_axis', axis) == axis else {}
    kind, factor = scaling.get('rope_type'), scaling.get('factor')
    if kind == 'riflex' and at == scaling['k'] - 1:
      return 1.8 * math.pi / scaling['test_length']
    own = bases[axis] * factor ** (of / (of - 1)) if kind == 'ntk' else bases[axis]
    return own ** (-at / of) / (factor if kind == 'linear' else 1)

  def score(q, k, i, j, h):
    s = q[R:] @ k[R:]
    own_axes = axis_of_pair
    if spectrum == 'heads':  # one for all pairs, of the key/value head; None: they stand still
      g = h // (dims.heads // dims.kv_heads)
      own_axes = [axis_of_pair[g] if g < len(axis_of_pair) else None] * (R // 2)
    for m, axis in enumerate(own_axes):
      a, b = (2 * m, 2 * m + 1) if hyper.get('layout') == 'interleaved' else (m, m + R // 2)
      if axis is None:
        s += q[a] * k[a] + q[b] * k[b]
        continue
      turned = complex(q[a], q[b]) * np.exp(1j * (i[axis] - j[axis]) * frequency(m, axis))
      s += (turned * complex(k[a], -k[b])).real
    return s / math.sqrt(K)

  return Oracle(score)


def vo_rope(dims, hyper, p):
  turn = turn_of(dims, hyper)
  to = lambda i, j: j - i if hyper.get('back', True) else j
  return Oracle(dot(dims.head_dim), move=lambda v, i, j, h: turn(to(i, j)) @ v)


def mla_rope(dims, hyper, p):
  K, base, layout = dims.head_dim, hyper.get('base', 10_000.0), hyper.get('layout', 'interleaved')
  width = round(hyper.get('fraction', 0.5) * K)
  turn = lambda t: rotation_matrix(t, width, width, layout, base)

  def pair(q, k, x_i, x_j, n, h):
    query = turn(x_i[-1]) @ (x_i[:-1] @ p['w_q'][:, h])
    key = turn(x_j[-1]) @ (x_j[:-1] @ p['w_k'][:, 0])
    return query @ key / math.sqrt(K + width)

  content = lambda q, k, i, j, h: q @ k / math.sqrt(K + width)
  return Oracle(content, pair=pair, tokens=with_position, sets_beside=True)


def with_frequencies(dims, hyper, f):
  """RoPE whose pair m of channels turns by f(m, h) radians a position in the head h."""
  width = round(hyper.get('fraction', 1.0) * dims.head_dim)

  def turned(x, t, h):
    out = np.array(x, float)
    for m in range(width // 2):
      a, b = (2 * m, 2 * m + 1) if hyper.get('layout') == 'interleaved' else (m, m + width // 2)
      z = complex(x[a], x[b]) * np.exp(1j * t * f(m, h))
      out[a], out[b] = z.real, z.imag
    return out

  return of_turned(dims, turned)


def clipped_rope(dims, hyper, p):
  K, n = dims.head_dim, hyper['clipped']

  def f(m, h):
    place = m - (K // 2 - n)
    if place < 0:
      taper = 1
    elif hyper.get('hard'):
      taper = 0
    else:
      taper = 0.5 * (1 + math.cos(math.pi * place / (n - 1)))
    return taper * 10_000 ** (-2 * m / K)

  return with_frequencies(dims, hyper, f)


def hope(dims, hyper, p):
  def f(m, h):
    own = hyper.get('base', 10_000) ** (-2 * m / dims.head_dim)
    return own if 2 * math.pi / own <= hyper.get('length', dims.train_length) else 0

  return with_frequencies(dims, hyper, f)


def resonance_rope(dims, hyper, p):
  wavelength = lambda m: 2 * math.pi * hyper.get('base', 10_000) ** (2 * m / dims.head_dim)
  return with_frequencies(dims, hyper, lambda m, h: 2 * math.pi / round(wavelength(m)))


def mobius_rope(dims, hyper, p):
  width, N = (
    round(hyper.get('fraction', 1.0) * dims.head_dim),
    hyper.get('length', dims.train_length),
  )
  quarter = dims.heads // dims.kv_heads * max(1, dims.kv_heads // 4)

  def f(m, h):
    if h < hyper.get('mobius_heads', quarter):
      return math.pi * (2 * m + 1) / N
    return hyper.get('base', 10_000) ** (-2 * m / width)

  return with_frequencies(dims, hyper, f)


def fope(dims, hyper, p):
  K, H, G = dims.head_dim, dims.heads, dims.kv_heads
  L = hyper.get('length', dims.train_length)
  f = [hyper.get('base', 10_000) ** (-2 * m / K) for m in range(K // 2)]
  f = [w for w in f if w * L >= 2 * math.pi]
  mixed = len(f) if hyper.get('square') else min(len(f), K // 4)
  shared = not hyper.get('per_head', True)
  fans = len(f) + mixed if shared else (len(f) + G) * mixed
  spread = hyper.get('gain', 0.3) * math.sqrt(2 / fans)
  sets = 1 if shared else G
  draws = np.random.default_rng(hyper.get('seed', 0)).standard_normal((2, sets, len(f), mixed))
  step = math.ceil(len(f) / mixed)

  def wave(which, t, g, m):
    if m >= mixed:
      return 0.0 if which and hyper.get('still') else 1.0
    own = (math.cos, math.sin)[which]
    return sum(
      (spread * draws[which, 0 if shared else g, n, m] + (n == m * step)) * own(t * w)
      for n, w in enumerate(f)
    )

  def turned(x, t, g):
    c, s = ([wave(which, t, g, m) for m in range(K // 2)] for which in (0, 1))
    pairs = [(x[m], x[m + K // 2], c[m], s[m]) for m in range(K // 2)]
    return np.array(
      [a * c - b * s for a, b, c, s in pairs] + [b * c + a * s for a, b, c, s in pairs]
    )

  of = lambda h: h // (H // G)
  return Oracle(lambda q, k, i, j, h: turned(q, i, of(h)) @ turned(k, j, of(h)) / math.sqrt(K))


def sink(dims, hyper, p):
  return Oracle(dot(dims.head_dim), sink=lambda q, i, h: p['logits'][h])


def xsa(dims, hyper, p):
  of_head = [math.tanh(s) for s in p['strengths']] if hyper.get('learned') else [1.0] * dims.heads
  leave = lambda o, v, h: o - of_head[h] * (o @ v) / (v @ v) * v
  return Oracle(dot(dims.head_dim), leave=leave)


def softmax_plus_one(dims, hyper, p):
  return Oracle(
    dot(dims.head_dim), weights=lambda s_S: np.exp(s_S) / (1 + sum(math.exp(s) for s in s_S))
  )


def sigmoid_attention(dims, hyper, p):
  start = -math.log(dims.train_length) if hyper.get('bias') is None else hyper['bias']
  b_H = p['offsets'] if hyper.get('learned') else [start] * dims.heads
  return Oracle(
    lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + b_H[h],
    weights=lambda s_S: np.array([sigmoid(s) for s in s_S]),
  )


def relu_attention(dims, hyper, p):
  alpha, length = hyper.get('alpha', 1.0), hyper.get('length')
  return Oracle(
    dot(dims.head_dim),
    weights=lambda s_S: np.array([max(s, 0.0) / (length or len(s_S)) ** alpha for s in s_S]),
  )


def screening(dims, hyper, p):
  K, group, most = dims.head_dim, dims.heads // dims.kv_heads, hyper.get('threshold', 256.0)
  w_H = [math.exp(p['a'][h // group]) + 1 for h in range(dims.heads)]

  def turned(x, t, h):
    w = w_H[h]
    gamma = (math.cos(math.pi * w / most) + 1) / 2 if w < most else 0.0
    z = complex(x[0], x[1]) * np.exp(1j * math.pi * t * gamma / w)
    return np.array([z.real, z.imag, *x[2:]])

  def across(s_HS, i, j_S, place_S):
    logs_HS = np.full(s_HS.shape, -np.inf)
    for h, n in np.ndindex(*s_HS.shape):
      w, d = w_H[h], i - j_S[n]
      m = (math.cos(math.pi * d / w) + 1) / 2 if 0 <= d < w else 0.0
      if hyper.get('open_windows') and w > dims.train_length:
        m = 1.0
      p_ij = max(1 - (1 - s_HS[h, n]) / sigmoid(p['b'][h]), 0.0) ** 2 * m
      logs_HS[h, n] = math.log(p_ij) if p_ij else -np.inf
    return logs_HS

  def leave(o, v, h):
    length = math.sqrt(o @ o)
    return math.tanh(length) * o / length if length else o

  return Oracle(
    lambda q, k, i, j, h: turned(q, i, h) @ turned(k, j, h) / math.sqrt(K),
    move=lambda v, i, j, h: unit(v),
    across=across,
    weights=np.exp,
    leave=leave,
    bend=unit,
    temper=lambda n, h, x: math.sqrt(K),
    turn=(turned, turned),
  )


def softplus_share(s_S):
  positive_S = np.array([softplus(s) for s in s_S])
  return positive_S / positive_S.sum()


def cos_scale(dims, hyper, p):
  K, scale = dims.head_dim, hyper.get('scale', 128.0)
  return Oracle(dot(K), bend=unit, temper=lambda n, h, x: scale * math.sqrt(K))


def lssa(dims, hyper, p):
  K = dims.head_dim
  return Oracle(
    dot(K),
    bend=unit,
    temper=lambda n, h, x: math.sqrt(K) * math.log(K) * math.log(n),
    weights=softplus_share,
  )


def lssar(dims, hyper, p):
  def weights(s_S):
    n = len(s_S)
    parts = [max(n * a - (n > 3), 0.0) ** hyper.get('power', 15) for a in softplus_share(s_S)]
    return np.array(parts) / sum(parts)

  return dataclasses.replace(lssa(dims, hyper, p), weights=weights)


def softpick(dims, hyper, p):
  def weights(s_S):
    m = max(s_S)
    parts = [math.exp(s - m) - math.exp(-m) for s in s_S]
    total = sum(abs(part) for part in parts) + 1e-8
    return np.array([max(part, 0.0) / total for part in parts])

  return Oracle(dot(dims.head_dim), weights=weights)


def elastic_softmax(dims, hyper, p):
  relaxed = lambda h, p_S: [max(w + p['tau'][h] / len(p_S), 0.0) for w in p_S]
  return Oracle(
    dot(dims.head_dim), blend=lambda p_HS: np.array([relaxed(h, p_S) for h, p_S in enumerate(p_HS)])
  )


def cog(dims, hyper, p):
  return Oracle(dot(dims.head_dim), weights=lambda s_S: np.sign(s_S) * softmax(np.abs(s_S)))


def talking_heads(dims, hyper, p):
  def mixed(name):
    if name not in p:
      return lambda x_HS: x_HS
    return lambda x_HS: np.stack(
      [sum(p[name][g, h] * x_HS[g] for g in range(dims.heads)) for h in range(dims.heads)]
    )

  across = lambda s_HS, i, j_S, place_S: mixed('of_scores')(s_HS)
  return Oracle(dot(dims.head_dim), across=across, blend=mixed('of_weights'))


def mta(dims, hyper, p):
  def convolved(kernels_HQC, rows, starts):
    scores = {i: dict(zip(seen, s_HS.T, strict=True)) for i, seen, s_HS in rows}
    _, width, neighbors = kernels_HQC.shape
    new = []
    for i, seen, s_HS in rows:
      new.append((i, seen, np.zeros_like(s_HS)))
      first = max(start for start in starts if start <= i)  # of the document of i
      for a in range(min(width, i - first + 1)):
        for b in range(neighbors):
          for n, j in enumerate(seen):
            other_H = scores.get(i - a, {}).get(j + b - neighbors // 2, 0.0)
            new[-1][2][:, n] += kernels_HQC[:, a, b] * other_H
    return new

  among = functools.partial(convolved, p['kernels'])
  if 'kernels_of_weights' not in p:
    return Oracle(dot(dims.head_dim), among=among)
  spread = functools.partial(convolved, p['kernels_of_weights'])
  return Oracle(dot(dims.head_dim), among=among, spread=spread)


def selective(dims, hyper, p):
  def among(rows, starts):
    new, taken = [], {}
    for i, seen, s_HS in rows:
      new.append((i, seen, s_HS - np.array([taken.get(s, 0.0) for s in seen])))
      for s, score in zip(seen, s_HS[0], strict=True):
        if s != i and s not in starts:
          taken[s] = taken.get(s, 0.0) + max(score, 0.0)
    return new

  return Oracle(dot(dims.head_dim), among=among)


def entmax(dims, hyper, p):
  """The threshold by bisection, far beyond what float32 knows."""
  alpha = hyper.get('alpha', 1.5)

  def weights(s_S):
    z_S = [(alpha - 1) * s for s in s_S]
    powers = lambda tau: [max(z - tau, 0.0) ** (1 / (alpha - 1)) for z in z_S]
    low, high = max(z_S) - 1, max(z_S)
    for _ in range(100):
      middle = (low + high) / 2
      low, high = (middle, high) if sum(powers(middle)) > 1 else (low, middle)
    return np.array(powers(low))

  return Oracle(dot(dims.head_dim), weights=weights)


def at_distance(dims, hyper, seen):
  """RoPE as if token i were at seen(i, j) and token j at 0."""
  turn, score = turn_of(dims, hyper), dot(dims.head_dim)
  return Oracle(lambda q, k, i, j, h: score(turn(seen(i, j)) @ q, k, i, j, h))


def rerope(dims, hyper, p):
  return at_distance(dims, hyper, lambda i, j: min(i - j, hyper['window']))


def leaky_rerope(dims, hyper, p):
  w, leak = hyper['window'], hyper.get('leak', 16)
  return at_distance(dims, hyper, lambda i, j: i - j if i - j < w else w + (i - j - w) / leak)


def self_extend(dims, hyper, p):
  w, group = hyper['window'], hyper.get('group', 8)
  far = lambda i, j: i // group - j // group + w - w // group
  return at_distance(dims, hyper, lambda i, j: i - j if i - j < w else far(i, j))


def dpe(dims, hyper, p):
  K, w = dims.head_dim, hyper['window']
  width, sizes = (
    round(hyper.get('fraction', 1.0) * K),
    hyper.get('groups', (2, 8, 2, 8, 32, 32, 32, 4)),
  )

  def score(q, k, i, j, h):
    s = q[width:] @ k[width:]
    for m in range(width // 2):
      n = sizes[m * len(sizes) // (width // 2)]
      seen = i - j if i - j < w else i // n - j // n + w - w / n
      z = complex(q[m], q[m + width // 2]) * complex(k[m], -k[m + width // 2])
      s += (z * np.exp(1j * seen * hyper.get('base', 10_000.0) ** (-2 * m / width))).real
    return s / math.sqrt(K)

  return Oracle(score)


def self_logistic(dims, hyper, p):
  w, capacity, rate = hyper['window'], hyper.get('capacity', 33), hyper.get('rate', 0.02)

  @functools.cache
  def group(t):
    n = end = 0
    while True:
      end += min(math.floor(capacity / (1 + (capacity - 1) * math.exp(-rate * n))), capacity - 1)
      if t < end:
        return n
      n += 1

  return at_distance(dims, hyper, lambda i, j: i - j if i - j < w else w + group(i - w) - group(j))


def jet_long(dims, hyper, p):
  """What a pair is read at depends on how many tokens there are, so each token knows it."""

  def seen(token_i, token_j):
    (i, group), (j, _) = token_i, token_j
    return i - j if i - j < hyper['window'] else i // group - j // group

  def tokens(x_SD, position_S):
    group = max(1, math.ceil(hyper.get('context', len(x_SD)) / hyper['length']))
    known = np.empty(len(x_SD), object)
    known[:] = [(t, group) for t in position_S]
    return known

  at_groups = at_distance(dims, hyper, seen)
  pair = lambda q, k, x_i, x_j, n, h: at_groups.score(q, k, x_i, x_j, h)
  return Oracle(lambda q, k, i, j, h: 0.0, tokens=tokens, pair=pair)


def streaming_rope(dims, hyper, p):
  w, sinks = hyper['window'], hyper['sink_tokens']
  far = lambda i, j: min(i, w + sinks - 1) - j
  return at_distance(dims, hyper, lambda i, j: i - j if i - j < w else far(i, j))


def string(dims, hyper, p):
  w, local = hyper['window'], hyper['local']
  o = at_distance(dims, hyper, lambda i, j: i - j if i - j < w else i - j - w + local)
  factor = hyper.get('attention_factor', 1) ** 2
  return Oracle(lambda *pair: factor * o.score(*pair))


def dca(dims, hyper, p):
  c = hyper['chunk'] - hyper['local']

  def seen(i, j):
    chunks = i // c - j // c
    if chunks <= 0:
      return math.nan if chunks else i % c - j % c
    return min(i % c + c if chunks == 1 else 2 * c - 1, hyper['chunk']) - j % c

  return at_distance(dims, hyper, seen)


def alibi(dims, hyper, p):
  H, most, factor = dims.heads, hyper.get('exponent', 8), hyper.get('factor', 1)
  power = 2 ** int(math.log2(H))
  fixed = [2 ** (-most * h / power) for h in range(1, power + 1)]
  fixed += [2 ** (-most * h / (2 * power)) for h in range(1, 2 * power, 2)][: H - power]
  if hyper.get('balanced'):
    fixed = [(1 if h < H // 2 else -1) * 2.0 ** -(h % (H // 2) + 1) for h in range(H)]
  learned = lambda h: math.copysign(math.exp(p['log_slopes'][h]), fixed[h])
  slope = [learned(h) for h in range(H)] if hyper.get('learned') else fixed
  last = max(H - 1, 1)  # of heads from 0 on
  divisor = lambda h: factor ** (h / last) if hyper.get('spread') else factor
  bias = lambda r, h: -slope[h] * r / divisor(h)
  distance = lambda i, j: math.dist(np.atleast_1d(i), np.atleast_1d(j))
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(distance(i, j), h))


def kerple_log(dims, hyper, p):
  positive = softplus if hyper.get('positivity') == 'softplus' else lambda x: x
  scale = 1 / math.sqrt(dims.head_dim) if hyper.get('bias_in_scale') else 1
  bias = lambda r, h: -scale * positive(p['p'][h]) * math.log(1 + positive(p['a'][h]) * r)
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(abs(i - j), h))


def kerple_power(dims, hyper, p):
  free = hyper.get('positivity') == 'softplus'

  def bias(r, h):
    exponent = 2 * sigmoid(p['p'][h]) if free else p['p'][h]
    return -(softplus(p['a'][h]) if free else p['a'][h]) * r**exponent

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(abs(i - j), h))


def sandwich(dims, hyper, p):
  d = hyper.get('width', 128)

  def bias(r, h):
    return (sum(math.cos(r / 10_000 ** (2 * m / d)) for m in range(1, d // 2 + 1)) - d / 2) / (
      8 * (h + 1) / dims.heads
    )

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(i - j, h))


def fire(dims, hyper, p):
  psi = lambda x: math.log(abs(p['c'] * x) + 1)

  def bias(i, j, h):
    x = psi(i - j) / (psi(max(abs(hyper.get('threshold', 512) * p['mu']), i)) + 1e-6)
    units = zip(p['w_in'], p['b_in'], p['w_out'][:, h], strict=True)
    return sum(max(w * x + b, 0) * out for w, b, out in units)

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(i, j, h))


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


def fox(dims, hyper, p):
  gate, H = hyper.get('gate', 'data'), dims.heads
  scale = 1 / math.sqrt(dims.head_dim) if hyper.get('bias_in_scale') else 1

  def forget(x, h):
    if gate == 'fixed':
      shortest, longest = hyper.get('shortest', 2), hyper.get('longest', dims.train_length)
      return math.exp(-1 / (shortest * (longest / shortest) ** (h % H / (H - 1))))
    return sigmoid((x @ p['w_f'][:, h] if gate == 'data' else 0) + p['b_f'][h])

  def along(q, k_nK, x_nD, h, seen_n):
    gates = [forget(x, h) for x in x_nD]
    return np.array([scale * math.log(math.prod(gates[j + 1 :])) for j in range(len(gates))])

  # Of both ways: the place of a token, and the logarithms of its gates and of those before it.

  def sums(x_SD, position_S):
    logs = [[math.log(forget(x, h)) for h in range(2 * H)] for x in x_SD]
    return np.concatenate([np.arange(len(logs))[:, None], np.cumsum(logs, axis=0)], axis=1)

  def pair(q, k, x_i, x_j, n, h):
    is_earlier = x_j[0] <= x_i[0]
    between = (x_i - x_j)[1 + h] if is_earlier else (x_j - x_i)[1 + H + h]
    return scale * between

  if hyper.get('both_ways'):
    return Oracle(dot(dims.head_dim), tokens=sums, pair=pair)
  return Oracle(dot(dims.head_dim), along=along)


def cope(dims, hyper, p):
  e = p['rows'] / (math.sqrt(dims.head_dim) if hyper.get('bias_in_scale') else 1)

  def along(q, k_nK, x_nD, h, seen_n):
    gates = seen_n * [sigmoid(q @ k / math.sqrt(dims.head_dim)) for k in k_nK]
    bias = []
    for j in range(len(gates)):
      count = min(sum(gates[j:]), hyper.get('positions', 64) - 1)
      low, high = math.floor(count), math.ceil(count)
      w = count - low
      bias.append((1 - w) * q @ e[low] + w * q @ e[high])
    return np.array(bias)

  return Oracle(dot(dims.head_dim), along=along)


def stick_breaking(dims, hyper, p):
  skipped = 0 if hyper.get('attend_current') else 1  # the token itself

  def weights(z_S):
    b = [sigmoid(z) for z in z_S[: len(z_S) - skipped]]
    broken = [b[j] * math.prod(1 - b[l] for l in range(j + 1, len(b))) for j in range(len(b))]
    return np.array(broken + [0.0] * skipped)

  return Oracle(dot(dims.head_dim), weights=weights)


def p_rope(dims, hyper, p):
  K, base = dims.head_dim, hyper.get('base', 10_000.0)
  turning = math.floor(hyper.get('p', 0.75) * K / 2)
  f = lambda m, h: base ** (-2 * m / K) if m < turning else 0.0
  return with_frequencies(dims, hyper, f)


def xpos(dims, hyper, p):
  K, gamma, layout = dims.head_dim, hyper.get('gamma', 0.4), hyper.get('layout', 'interleaved')

  def score(q, k, i, j, h):
    s = 0.0
    for m in range(K // 2):
      a, b = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, m + K // 2)
      angle = (i - j) * hyper.get('base', 10_000.0) ** (-2 * m / K)
      turned = (q[a] * k[a] + q[b] * k[b]) * math.cos(angle) + (
        q[a] * k[b] - q[b] * k[a]
      ) * math.sin(angle)
      s += ((2 * m / K + gamma) / (1 + gamma)) ** ((i - j) / hyper.get('scale_base', 512)) * turned
    return s / math.sqrt(K)

  return Oracle(score)


def hyperbolic_rope(dims, hyper, p):
  K, damping = dims.head_dim, hyper.get('damping', 1.1)

  def score(q, k, i, j, h):
    s = 0.0
    for m in range(K // 2):
      (q_a, q_b), (k_a, k_b) = q[2 * m : 2 * m + 2], k[2 * m : 2 * m + 2]
      angle = (i - j) * hyper.get('base', 10_000.0) ** (-2 * m / K)
      boosted = (q_a * k_a + q_b * k_b) * math.cosh(angle)
      boosted += (q_a * k_b + q_b * k_a) * math.sinh(angle)
      s += math.exp(-(i - j) * damping) * boosted
    return s / math.sqrt(K)

  return Oracle(score)


def jordan_rope(dims, hyper, p):
  K, L, group = dims.head_dim, dims.train_length, dims.heads // dims.kv_heads
  tau = lambda t: t / (1 + abs(t) / L) if hyper.get('bounded', True) else t

  def matrix(i, j, m, g):
    angle = (i - j) * hyper.get('base', 10_000.0) ** (-2 * m / K)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = 0.1 * math.tanh(p['b'][g, m]) * (tau(i) - tau(j))
    decay = math.exp(-(softplus(p['a'][g, m]) + 1e-4) * (i - j))
    return decay * np.block([[turn, shear * turn], [0 * turn, turn]])

  def score(q, k, i, j, h):
    blocks = [(m, slice(4 * m, 4 * m + 4)) for m in range(K // 4)]
    return sum(q[c] @ matrix(i, j, m, h // group) @ k[c] for m, c in blocks) / math.sqrt(K)

  return Oracle(score)


def pope(dims, hyper, p):
  K = dims.head_dim
  f = [hyper.get('base', 10_000.0) ** (-n / K) for n in range(K)]

  def polar(x, angle):
    sizes = [softplus(x[n]) for n in range(K)]
    waves = math.cos, math.sin
    return np.array([sizes[n] * wave(angle(n)) for wave in waves for n in range(K)])

  turn_q = lambda q, t, h: polar(q, lambda n: t * f[n] - p['phases'][h, n])
  turn_k = lambda k, t, h: polar(k, lambda n: t * f[n])
  # by the difference of positions, which may be far out
  score = lambda q, k, i, j, h: turn_q(q, i - j, h) @ turn_k(k, 0, h) / math.sqrt(K)
  return Oracle(score, turn=(turn_q, turn_k))


def music_transformer(dims, hyper, p):
  most, clip = hyper.get('max_distance', dims.train_length), hyper.get('beyond') == 'clip'

  def score(q, k, i, j, h):
    is_row = clip or 0 <= i - j < most
    vector = p['rows'][min(max(i - j, 0), most - 1), h] if is_row else 0 * k
    return q @ (k + vector) / math.sqrt(dims.head_dim)

  return Oracle(score)


def with_position(x_SD, position_S):
  return np.concatenate([x_SD, np.array(position_S, float).reshape(len(x_SD), -1)], axis=1)


def relative_projection(dims, hyper, p):
  length, c, most = hyper.get('length'), hyper.get('c', 0.1), hyper.get('max_distance', 1024)

  def along(q, k_nK, x_nD, h, seen_n):
    i = x_nD[-1, -1]
    t = 1 + c * math.log(max((i + 1) / length, 1)) if length else 1.0
    r = x_nD[-1, :-1] @ p['w_r'][:, h]
    distances = [int(i - j) for j in x_nD[:, -1]]
    bias = [r @ p['bank'][d] if 0 <= d < most else 0.0 for d in distances]
    return np.array(
      [t * (q @ k / math.sqrt(dims.head_dim) + b) for k, b in zip(k_nK, bias, strict=True)]
    )

  return Oracle(lambda q, k, i, j, h: 0.0, along=along, tokens=with_position)


def grape_ap(dims, hyper, p):
  P = hyper.get('width', 8)
  slope = [2 ** (-8 * (h + 1) / dims.heads) for h in range(dims.heads)]  # a power of two

  def along(q, k_nK, x_nD, h, seen_n):
    own = x_nD[-1, :-1] @ p['w_p'][:, h]
    edges = []
    for x in x_nD:
      other = x[:-1] @ p['w_p'][:, h]
      other = rotation_matrix(-x[-1], P, P, 'half', 1.0) @ (
        other / math.sqrt((other**2).mean() + 2**-23)
      )
      edges.append(slope[h] * math.log(sigmoid(own @ other / P)))
    edges = seen_n * edges
    return np.array([sum(edges[j + 1 :]) for j in range(len(edges))])

  return Oracle(dot(dims.head_dim), along=along, tokens=with_position)


def pape(dims, hyper, p):
  def pair(q, k, x_i, x_j, n, h):
    x, t_i, t_j = x_i[: dims.model_dim], x_i[dims.model_dim :], x_j[dims.model_dim :]
    total = 0.0
    for m in range(hyper.get('parabolas', 50)):
      d = t_i @ p['w_p'][:, h, m] - t_j @ p['w_p'][:, h, m]
      total += x @ p['w_b'][:, h, m] * d - softplus(x @ p['w_a'][:, h, m]) * d**2
    return total / math.sqrt(dims.head_dim)

  return Oracle(dot(dims.head_dim), pair=pair, tokens=with_position)


def pape_ri(dims, hyper, p):
  most = 1 / math.sqrt(hyper.get('axes', 1))
  c_H = np.random.default_rng(hyper.get('seed', 0)).uniform(-most, most, dims.heads)

  def pair(q, k, x_i, x_j, n, h):
    x, t_i, t_j = x_i[: dims.model_dim], x_i[dims.model_dim :], x_j[dims.model_dim :]
    a = softplus(x @ p['w_a'][:, h])
    return -a * ((c_H[h] * (t_i - t_j)) ** 2).sum() / math.sqrt(dims.head_dim)

  return Oracle(dot(dims.head_dim), pair=pair, tokens=with_position)


def group_bias(dims, hyper, p):
  of_last = lambda i, j: 'b' if np.atleast_1d(i)[-1] == np.atleast_1d(j)[-1] else 'c'
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + p[of_last(i, j)][h])


def by_axis(i, j, sizes):
  """(i, j, W) of each position of a token."""
  return zip(np.atleast_1d(i), np.atleast_1d(j), sizes, strict=True)


def swin(dims, hyper, p):
  def bias(i, j, h):
    each = by_axis(i, j, hyper.get('sizes', (7, 7)))
    return p['table'][(*(min(max(a - b, 1 - n), n - 1) + n - 1 for a, b, n in each), h)]

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(i, j, h))


def swin_v2(dims, hyper, p):
  def bias(i, j, h):
    each = by_axis(i, j, hyper.get('sizes', (8, 8)))
    u = [np.sign(a - b) * math.log2(1 + abs(8 * (a - b) / (n - 1))) / 3 for a, b, n in each]
    units = [max(x, 0.0) for x in u @ p['w_in'] + p['b_in']]
    return 16 * sigmoid(units @ p['w_out'][:, h])

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(i, j, h))


def compact_relative(dims, hyper, p):
  d, factor = hyper.get('width', 48), hyper.get('length_factor', 1.0)

  def wave(x):
    c = math.sqrt(d)
    y = c * np.sign(x) * (math.log(abs(x) + c) - math.log(c))
    z = math.atan(y / (factor * d / (2 * math.pi)))
    e = np.zeros(d)
    for n in range(d // 2):
      e[2 * n], e[2 * n + 1] = math.cos((n + 1) * z), math.sin((n + 1) * z)
    e[-1] = 1.0
    return e

  def pair(q, k, x_i, x_j, n, h):
    own = x_i[:-1] @ p['w_p'][:, h] + p['b_p'][h]
    return own @ (wave(x_j[-1] - x_i[-1]) @ p['w_e'][:, h])

  return Oracle(dot(dims.head_dim), pair=pair, tokens=with_position)


def row_gates(dims, hyper, p):
  factor, width = hyper.get('factor', 1.0), hyper.get('width', 8)

  def along(q, k_nK, x_nD, h, seen_n):
    a = x_nD[-1] @ p['w_a'][:, h]
    logs = [math.log(sigmoid(a @ (x @ p['w_n'][:, h]) / math.sqrt(width))) for x in x_nD[:-1]]
    logs = seen_n * [*logs, 0.0]
    return np.array([factor * sum(logs[j:]) for j in range(len(logs))])

  return Oracle(dot(dims.head_dim), along=along)


def tupe(dims, hyper, p):
  K, group, buckets = dims.head_dim, dims.heads // dims.kv_heads, hyper.get('buckets', 0)
  sides = {
    'buckets': buckets,
    'max_distance': hyper.get('max_distance', 128),
    'bidirectional': True,
  }

  def place(t):
    row = p['rows'][t]
    row = (row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + 1e-5)
    return row * p['gain'] + p['offset'] if hyper.get('affine') else row

  def score(q, k, i, j, h):
    query = place(i) @ p['u_q'][:, h] + (p['b_q'][h] if hyper.get('affine') else 0)
    s = (q @ k + query @ (place(j) @ p['u_k'][:, h // group])) / math.sqrt(2 * K)
    return s + (t5(dims, sides, p).score(0 * q, k, i, j, h) / math.sqrt(K) if buckets else 0)

  return Oracle(score, sets_beside=True)


def with_bias(dims, hyper, p):
  """(a_HS, i, j_S) -> the scores and, below them, the bias of the encoding that is adapted."""
  inner = {n: value for n, value in p.items() if n.startswith('inner.')}
  bias = inner_oracle(dims, hyper, inner, 'alibi').score
  nothing = np.zeros(dims.head_dim)

  def both(a_HS, i, j_S):
    b_HS = np.array([[bias(nothing, nothing, i, j, h) for j in j_S] for h in range(dims.heads)])
    return np.concatenate([a_HS, b_HS])

  return both


def leaky(x, slope):
  return np.where(x > 0, x, slope * x)


def dape(dims, hyper, p):
  both, slope = with_bias(dims, hyper, p), hyper.get('negative_slope', 0.01)

  def across(a_HS, i, j_S, place_S):
    new = []
    for pair in both(a_HS, i, j_S).T:
      a, b = pair[: dims.heads], pair[dims.heads :]
      new.append(a + b + p['w_out'] @ leaky(p['w_in'] @ pair + p['b_in'], slope))
    return np.stack(new, 1)

  return Oracle(dot(dims.head_dim), across=across)


def dape_v2(dims, hyper, p):
  both, slope = with_bias(dims, hyper, p), hyper.get('negative_slope', 0.01)

  def across(a_HS, i, j_S, place_S):
    pairs = dict(zip(place_S, both(a_HS, i, j_S).T, strict=True))  # of the keys that i sees
    hidden = {}
    for place in {*place_S} | {place + 1 for place in place_S}:
      near = [pairs.get(place + n - 1, np.zeros(2 * dims.heads)) for n in range(3)]
      hidden[place] = leaky(
        sum(w @ x for w, x in zip(p['w_in'], near, strict=True)) + p['b_in'], slope
      )
    new = []
    for place in place_S:
      near = [hidden.get(place + n - 1, np.zeros(len(p['b_in']))) for n in range(3)]
      a, b = pairs[place][: dims.heads], pairs[place][dims.heads :]
      new.append(a + b + sum(w @ x for w, x in zip(p['w_out'], near, strict=True)))
    return np.stack(new, 1)

  return Oracle(dot(dims.head_dim), across=across)


def selective_rope(dims, hyper, p):
  H, G, K = dims.heads, dims.kv_heads, dims.head_dim

  def angles(x_SD, position_S):
    unit = np.stack(
      [
        np.concatenate([part / math.sqrt(part @ part + 1e-6) for part in np.split(x, H)])
        for x in x_SD
      ]
    )
    total, out = np.zeros((G, K // 2)), []
    for t in range(len(unit)):
      f = np.zeros((G, K // 2))
      for n in range(min(4, t + 1)):
        if n and position_S[t - n] >= position_S[t - n + 1]:
          break  # of another document
        f += p['conv'][n] * np.einsum('d,dr,rgm->gm', unit[t - n], p['w_1'], p['w_2'])
      f += np.exp(p['c']) if hyper.get('bias') else 0
      if hyper.get('gate'):
        f *= np.array([[sigmoid(unit[t] @ p['w_g'][:, g] + p['b_g'][g])] for g in range(G)])
      total = total + f * hyper.get('base', 500_000.0) ** (-2 * np.arange(K // 2) / K)
      out.append(total)
    return np.stack(out)

  return turned_by_group(dims, angles, hyper)


def path(dims, hyper, p):
  H, G, K = dims.heads, dims.kv_heads, dims.head_dim

  def householders(x_SD, position_S):
    out = np.zeros((len(x_SD), G, K, K))
    for t, g in np.ndindex(len(x_SD), G):
      z = np.zeros(K)
      for n in range(min(3, t + 1)):
        if n and position_S[t - n] >= position_S[t - n + 1]:
          break  # of another document
        x = x_SD[t - n] @ p['w_1'] if hyper.get('rank', 32) else x_SD[t - n]
        z += p['conv'][n, g] * (x @ p['w_2'][:, g])
      w = z / (1 + np.exp(-z))
      w /= math.sqrt(w @ w + 1e-6)
      beta = 2 * sigmoid(x_SD[t] @ p['u'][:, g] + p['b'][g])
      out[t, g] = np.eye(K) - beta * np.outer(w, w)
    return out

  def along(q, k_nK, h_nGKK, h, seen_n):
    g, product, s = h // (H // G), np.eye(K), []
    for k, householder in zip(k_nK[::-1], h_nGKK[::-1, g], strict=True):
      s.append(k @ product @ q / math.sqrt(K))
      product = householder @ product
    return np.array(s[::-1])

  return Oracle(lambda q, k, i, j, h: 0.0, along=along, tokens=householders)


def wall(dims, hyper, p):
  def along(q, k_nK, x_nD, h, seen_n):
    left, s = np.ones(dims.head_dim), []
    for k, x in zip(k_nK[::-1], x_nD[::-1], strict=True):
      s.append((q * k * left).sum() / math.sqrt(dims.head_dim))
      log_gate = -np.log(1 + np.exp(-(x @ p['w_g'][:, h] + p['b_g'][h])))
      if bound := hyper.get('bound'):
        log_gate = bound * (np.exp(log_gate / bound) - 1)
      left = left * np.exp(log_gate)
    return np.array(s[::-1])

  return Oracle(lambda q, k, i, j, h: 0.0, along=along)


def turned_by_group(dims, angles, hyper):
  """Scores of q and k turned by the angles of their tokens: tokens -> [S, G, K/2]. With turn_values
  what a token gets of a value has turned by the difference of their angles.
  """
  H, G, K = dims.heads, dims.kv_heads, dims.head_dim
  half = hyper.get('layout', 'half') == 'half'
  pairs = lambda x: (x[: K // 2], x[K // 2 :]) if half else (x[::2], x[1::2])
  turn = lambda x, a_M: (pairs(x)[0] + 1j * pairs(x)[1]) * np.exp(1j * a_M)

  def pair(q, k, a_GM, b_GM, n, h):
    g = h // (H // G)
    return (turn(q, a_GM[g]) * turn(k, b_GM[g]).conj()).real.sum() / math.sqrt(K)

  def convey(v, a_GM, b_GM, h):
    g = h // (H // G)
    z = turn(v, b_GM[g] - a_GM[g])
    return np.concatenate([z.real, z.imag]) if half else np.stack([z.real, z.imag], 1).ravel()

  zero = lambda q, k, i, j, h: 0.0
  turns_values = {'convey': convey} if hyper.get('turn_values') else {}
  return Oracle(zero, pair=pair, tokens=angles, **turns_values)


def bam(dims, hyper, p):
  """The prior of a key at the place j - i, of mean mu; with SSMax all of a score is multiplied."""

  def prior(i, j, h):
    theta = p['theta'][h] if hyper.get('learned_mean') else 0.0
    mu = math.exp(theta) - math.exp(-theta)
    return -math.exp(p['log_size'][h]) * (abs(j - i - mu) + 1e-5) ** p['exponent'][h]

  def score(q, k, i, j, h):
    return q @ k / math.sqrt(dims.head_dim) + prior(i, j, h)

  def pair(q, k, x_i, x_j, n, h):
    return p['factor'][h] * math.log(n) * score(q, k, x_i[-1], x_j[-1], h)

  if hyper.get('ssmax'):
    return Oracle(lambda q, k, i, j, h: 0.0, pair=pair, tokens=with_position)
  return Oracle(score)


def wavelet(dims, hyper, p):
  K, scales = dims.head_dim, hyper.get('scales', 8)

  def ricker(r):
    out = []
    for n in range(scales):
      for b in range(K // scales):
        u = (r - b) / 2 ** (hyper.get('first', 0) + n)
        out.append((1 - u**2) * math.exp(-(u**2) / 2))
    return np.array(out)

  return Oracle(lambda q, k, i, j, h: q @ (k + ricker(i - j)) / math.sqrt(K))


def cable(dims, hyper, p):
  def along(q, k_nK, x_nD, h, seen_n):
    steps = [max(x @ p['w_c'][:, h], 0) for x in x_nD]
    weighted = hyper.get('weighted', True)
    g = softplus(x_nD[-1] @ p['w_s'][:, h]) if weighted else 1
    return np.array([-g * sum(steps[j + 1 :]) for j in range(len(steps))])

  return Oracle(dot(dims.head_dim), along=along)


def tapa(dims, hyper, p):
  K = dims.head_dim
  n = round(hyper.get('fraction', 0.5) * K)

  def score(q, k, i, j, h):
    phase = abs(i - j) ** hyper.get('alpha', 0.1) * (q[n:] @ k[n:]) / math.sqrt(K - n)
    return q[:n] @ k[:n] / math.sqrt(n) * math.cos(2 * math.pi * phase)

  return Oracle(score)


def carope(dims, hyper, p):
  G, M = dims.kv_heads, dims.head_dim // 2

  def angles(x_SD, position_S):
    steps = np.empty((len(x_SD), G, M))
    for t, g, m in np.ndindex(*steps.shape):
      steps[t, g, m] = (1 + softplus(x_SD[t] @ p['w_f'][:, g] + p['b_f'][g])) ** -m
    return np.stack([steps[: t + 1].sum(axis=0) for t in range(len(x_SD))])

  return turned_by_group(dims, angles, hyper)


def coca(dims, hyper, p):
  K, base = dims.head_dim, hyper.get('base', 10_000.0)
  width = round(hyper.get('fraction', 1.0) * K)

  def turned(x, t, size):
    """Each pair of channels as its size at the angle of the position t."""
    out = list(x[width:])
    for m in range(width // 2):
      both = (2 * m, 2 * m + 1) if hyper.get('layout') == 'interleaved' else (m, m + width // 2)
      angle = t * base ** (-2 * m / width)
      out += [size(x[list(both)]) * wave(angle) for wave in (math.cos, math.sin)]
    return np.array(out)

  turn_q = lambda q, t, h: turned(q, t, lambda pair: pair @ pair)
  turn_k = lambda k, t, h: turned(k, t, lambda pair: max(sum(pair) / 2, 0))
  # by the difference of positions, which may be far out
  score = lambda q, k, i, j, h: turn_q(q, i - j, h) @ turn_k(k, 0, h) / math.sqrt(K)
  return Oracle(score, turn=(turn_q, turn_k))


def grape_frequencies(dims, hyper, p, scale):
  f_GM = np.exp(p['log_f'] / hyper.get('scale', scale))
  return np.broadcast_to(f_GM, (dims.kv_heads, dims.head_dim // 2))


def grape_m(dims, hyper, p):
  f_GM = grape_frequencies(dims, hyper, p, 16)
  angles = lambda x_SD, position_S: np.stack([t * f_GM for t in position_S])
  return turned_by_group(dims, angles, hyper)


def grape_m_context(dims, hyper, p):
  f_GM = grape_frequencies(dims, hyper, p, 1)

  def angles(x_SD, position_S):
    steps = [sigmoid((x @ p['u'] + p['b'][0]) / 16) for x in x_SD]
    return np.stack([sum(steps[:t]) * f_GM for t in range(len(steps))])

  return turned_by_group(dims, angles, hyper)


def repo(dims, hyper, p):
  f_M = hyper.get('base', 500_000) ** (-2 * np.arange(dims.head_dim // 2) / dims.head_dim)

  def angles(x_SD, position_S):
    out = []
    for x in x_SD:
      gate, content = x @ p['w_g'], x @ p['w_c']
      z_G = (gate / (1 + np.exp(-gate)) * content) @ p['w_z']
      out.append(np.outer(z_G, f_M))
    return np.stack(out)

  return turned_by_group(dims, angles, hyper)


def darope(dims, hyper, p):
  f_M = hyper.get('base', 500_000) ** (-2 * np.arange(dims.head_dim // 2) / dims.head_dim)
  L = hyper.get('length', dims.train_length)

  def angles(x_SD, position_S):
    out = np.zeros((len(x_SD), dims.kv_heads, len(f_M)))
    for t, g, m in np.ndindex(out.shape):
      place = min(max((position_S[t] + 0.5) / L, 1e-6), 1 - 1e-6)
      prior = p['alpha'][g] * math.log(place / (1 - place))
      chosen = L * sigmoid(x_SD[t] @ p['w'][:, g] + prior)
      is_slow = 2 * math.pi / f_M[m] > L
      out[t, g, m] = (chosen if is_slow else position_S[t]) * f_M[m]
    return out

  return turned_by_group(dims, angles, hyper)


def grape_a(dims, hyper, p):
  K, H, which = dims.head_dim, dims.heads, hyper.get('gate', 'query_key')
  gate = lambda v, x: softplus(v @ x / (math.sqrt(v @ v) * math.sqrt(K)))

  def score(q, k, i, j, h):
    rate = (gate(p['v'][h], q) if 'query' in which else 0) + (
      gate(p['u'][h], k) if 'key' in which else 0
    )
    slope = 2 ** (-8 * (h + 1) / H)  # a power of two
    return q @ k / math.sqrt(K) - abs(i - j) * softplus(p['omega'][h]) * slope * rate

  return Oracle(score)


def scale_invariant(dims, hyper, p):
  def score(q, k, i, j, h):
    a = math.sqrt(2 * math.log(abs(i - j) / hyper.get('tau', 10) + 1) + 1)
    return a * (q @ k) / math.sqrt(dims.head_dim) - a**2 + 1

  return Oracle(score)


def ultravico(dims, hyper, p):
  alpha, window = hyper.get('alpha', 0.9), hyper.get('window', dims.train_length // 2)

  def weakened(i, seen, s_HS):
    far_S = [abs(i - s) > window for s in seen]
    of_head = lambda s_S: [
      alpha * s if far and s > 0 else s for s, far in zip(s_S, far_S, strict=True)
    ]
    return i, seen, np.array([of_head(s_S) for s_S in s_HS])

  return Oracle(dot(dims.head_dim), among=lambda rows, starts: [weakened(*row) for row in rows])


def nape(dims, hyper, p):
  n = hyper.get('alibi_heads', dims.heads // 2)
  slope = lambda h: 1 / (h + 1) if h < n else 0
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) - slope(h) * abs(i - j))


def hard_alibi(dims, hyper, p):
  windows = dict(enumerate(hyper.get('windows', range(1, dims.heads // 2 + 1))))
  is_seen = lambda i, j, h: abs(i - j) < windows.get(h, math.inf)
  return Oracle(
    lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) if is_seen(i, j, h) else -math.inf
  )


def mlp_bias(dims, hyper, p):
  def activated(x, n):
    if hyper.get('norm'):
      x = (x - x.mean()) / math.sqrt(x.var() + 1e-5) * p['gains'][n]
      x = x + p['offsets'][n - 1] if n else x
    return x / (1 + np.exp(-x))

  def bias(r, h):
    u = math.copysign(math.log(1 + abs(r)), r) if hyper.get('log') else r
    x = activated(p['w_in'] * u + p['b_in'], 0)
    for n in range(hyper.get('depth', 2) - 1):
      x = activated(x @ p['w_hidden'][n] + p['b_hidden'][n], n + 1)
    return x @ p['w_out'][:, h]

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(i - j, h))


def tisa(dims, hyper, p):
  def bias(r, h):
    terms = zip(*(p[n][:, h] for n in ('amplitudes', 'sharpness', 'offsets')), strict=True)
    return sum(a * math.exp(-abs(b) * (r - c) ** 2) for a, b, c in terms)

  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(j - i, h))


def urpe(dims, hyper, p):
  most = hyper.get('max_distance', dims.train_length - 1)
  factor = lambda i, j, h: p['factors'][int(min(max(i - j, -most), most)) + most, h]
  return Oracle(dot(dims.head_dim), move=lambda v, i, j, h: factor(i, j, h) * v)


def diet_abs(dims, hyper, p):
  group = dims.heads // dims.kv_heads
  position = lambda i, j, h: p['queries'][i, h] @ p['keys'][j, h // group]
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + position(i, j, h))


def asentmax_temperature(dims, hyper, p):
  delta, gamma, bias = hyper.get('delta', 1), hyper.get('gamma', 2), hyper.get('bias')

  def factor(n, h, x):
    b, g = (x @ p[f'w_{w}'][:, h] + (p[f'b_{w}'][h] if bias else 0) for w in 'bg')
    return delta + softplus(b) * math.log(n + 1) ** (gamma * math.tanh(g))

  return tempered(dims, factor)


def tempered(dims, factor):
  return Oracle(dot(dims.head_dim), temper=factor)


def logn(dims, hyper, p):
  L = hyper.get('length', dims.train_length)
  return tempered(dims, lambda n, h, x: max(hyper.get('floor', 1.0), math.log(n, L)))


def infoscale(dims, hyper, p):
  part = lambda n: 1 - n ** (-2 / hyper.get('width', dims.head_dim))
  L, floor = hyper.get('length', dims.train_length), hyper.get('floor', 1.0)
  return tempered(dims, lambda n, h, x: max(floor, math.sqrt(part(n) / part(L))))


def qassmax(dims, hyper, p):
  width = dims.head_dim if hyper.get('elementwise', True) else 1

  def network(name, x):
    units = [gelu(u) for u in x @ p[f'{name}_in'] + p[f'{name}_in_bias']]
    return units @ p[f'{name}_out'] + p[f'{name}_out_bias']

  def requery(q, n, h):
    own = slice(h * width, (h + 1) * width)
    gate = 1 + np.tanh(network('g', q)) if hyper.get('gate', True) else 1.0
    return q * network('f', np.array([math.log(n)]))[own] * gate

  return Oracle(dot(dims.head_dim), requery=requery)


def drope(dims, hyper, p):
  L = hyper.get('length', dims.train_length)
  return tempered(dims, lambda n, h, x: 1 + hyper.get('c', 0.412) * max(0, math.log(n / L)))


def ssmax(dims, hyper, p):
  return tempered(
    dims, lambda n, h, x: p['s'][h] * math.log(n) + (p['b'][h] if hyper.get('bias') else 0)
  )


def nope_scale(dims, hyper, p):
  return tempered(
    dims, lambda n, h, x: p['scales'][h] if hyper.get('learned') else hyper.get('scale', 1.2)
  )


def llama4_temperature(dims, hyper, p):
  def factor(n, h, x):
    counted = n if hyper.get('counts_itself', True) else n - 1
    return 1 + hyper.get('c', 0.1) * math.log(1 + counted // hyper.get('length', 8192))

  return tempered(dims, factor)


def hype_temperature(dims, hyper, p):
  a = hyper.get('a', 362)
  return tempered(dims, lambda n, h, x: math.log(n - 1 + a, a))


def adaptive_temperature(dims, hyper, p):
  def weights(s_S):
    p_S = softmax(s_S)
    entropy = -sum(p * math.log(p) for p in p_S)
    fit = -0.037 * entropy**4 + 0.481 * entropy**3 - 2.3 * entropy**2 + 4.917 * entropy - 1.791
    return softmax(max(fit, 1) * s_S if entropy > 0.5 else s_S)

  return Oracle(dot(dims.head_dim), weights=weights)


def rope_mixed(dims, hyper, p):
  of_place = lambda place: sum(x * f for x, f in zip(place, p['frequencies'], strict=True))
  angles = lambda x_SD, position_S: np.stack([of_place(place) for place in position_S])
  return turned_by_group(dims, angles, hyper)


def golden_gate_rope(dims, hyper, p):
  G, M, axes = dims.kv_heads, dims.head_dim // 2, hyper.get('axes', 2)
  low, high = hyper.get('slowest', 0.03), hyper.get('fastest', 3.0)
  still = round(hyper.get('still', 0) * M)

  def quantile(share):
    below, above = -9.0, 9.0
    for _ in range(60):
      middle = (below + above) / 2
      is_below = (1 + math.erf(middle / math.sqrt(2))) / 2 < share
      below, above = (middle, above) if is_below else (below, middle)
    return below

  def direction(n):
    if axes == 2:
      angle = n * math.pi / ((1 + math.sqrt(5)) / 2)
      return np.array([math.cos(angle), math.sin(angle)])
    (ratio,) = [x.real for x in np.roots([1, *[0] * (axes - 1), -1, -1]) if x.real > 1]
    point = np.array([quantile((n + 1) / ratio ** (axis + 1) % 1) for axis in range(axes)])
    return point / math.sqrt(point @ point)

  def wave(g, m):
    if m < still:
      return np.zeros(axes)
    share = (m - still) / max(M - still - 1, 1)
    return low ** (1 - share) * high**share * direction(g * M + m)

  waves_GMn = np.array([[wave(g, m) for m in range(M)] for g in range(G)])
  angles = lambda x_SD, position_S: np.stack([waves_GMn @ np.array(t) for t in position_S])
  return turned_by_group(dims, angles, hyper)


def spiral_rope(dims, hyper, p):
  K, base = dims.head_dim, hyper.get('base', 10_000.0)
  D = hyper.get('directions') or (2 if K % 16 else 4)

  def wave(m):
    direction, place = divmod(m, K // (2 * D))
    own = [n for n in range(K // 4) if n // 2 % (D // 2) == direction % (D // 2)]
    angle, f = math.pi * direction / D, hyper.get('scale', 1.0) * base ** (-4 * own[place] / K)
    return f * math.cos(angle), f * math.sin(angle)

  waves_GMn = np.array([[wave(m) for m in range(K // 2)]] * dims.kv_heads)
  angles = lambda x_SD, position_S: np.stack([waves_GMn @ np.array(t) for t in position_S])
  return turned_by_group(dims, angles, hyper)


def harope(dims, hyper, p):
  K, group, axes = dims.head_dim, dims.heads // dims.kv_heads, hyper.get('axes', 1)
  n = K // 2 // axes

  def exponential(entries):
    a = np.zeros((K, K))
    a[np.triu_indices(K, 1)] = entries
    angles, u = np.linalg.eigh(-1j * (a - a.T))
    return (u * np.exp(1j * angles) @ u.conj().T).real

  def matrix(g):
    u, v = (exponential(entries[g]) for entries in p['entries'])
    return u @ np.diag([softplus(s) + 1e-6 for s in p['sigma'][g]]) @ v.T

  m_GKK = [matrix(g) for g in range(dims.kv_heads)]

  def turned(z, t):
    out = np.zeros(K)
    for m in range(K // 2):
      angle = np.atleast_1d(t)[m // n] * hyper.get('base', 10_000) ** (-(m % n) / n)
      pair = complex(z[m], z[m + K // 2]) * np.exp(1j * angle)
      out[m], out[m + K // 2] = pair.real, pair.imag
    return out

  turn_q = lambda q, t, h: turned(m_GKK[h // group] @ q, t)
  turn_k = lambda k, t, h: turned(np.linalg.solve(m_GKK[h // group].T, k), t)
  # by the difference of positions, which may be far out
  score = lambda q, k, i, j, h: (
    turn_q(q, np.subtract(i, j), h) @ turn_k(k, np.zeros(axes), h) / math.sqrt(K)
  )
  return Oracle(score, turn=(turn_q, turn_k))


def cayley_string(dims, hyper, p):
  K, group, axes = dims.head_dim, dims.heads // dims.kv_heads, hyper.get('axes', 1)
  f_GM = np.exp(p['log_f'] / hyper.get('scale', 16))

  def basis(g):
    s, entries = np.zeros((K, K)), iter(p['entries'][g])
    for c in range(K):
      for d in range(c + 1, K):
        s[c, d] = next(entries)
        s[d, c] = -s[c, d]
    return (np.eye(K) - s) @ np.linalg.inv(np.eye(K) + s)

  p_GKK = [basis(g) for g in range(dims.kv_heads)]

  def turned(x, t, h):
    g, out = h // group, np.zeros(K)
    z = p_GKK[g] @ x
    for m in range(K // 2):
      angle = np.atleast_1d(t)[m // (K // 2 // axes)] * f_GM[g, m]
      out[m] = math.cos(angle) * z[m] - math.sin(angle) * z[m + K // 2]
      out[m + K // 2] = math.sin(angle) * z[m] + math.cos(angle) * z[m + K // 2]
    return out

  return of_turned(dims, turned)


def liere(dims, hyper, p):
  K, group = dims.head_dim, dims.heads // dims.kv_heads
  block, axes = hyper.get('block', K), hyper.get('axes', 1)
  kind, length = hyper.get('generators', 'free'), hyper.get('length', dims.train_length)
  turns = {}

  def generator(a, g, n):
    matrix, angles = np.zeros((block, block)), iter(p['angles'][a if kind == 'free' else 0, g, n])
    for c in range(block):
      for d in range(c + 1, block):
        matrix[c, d] = next(angles)
        matrix[d, c] = -matrix[c, d]
    if kind == 'dependent':
      return matrix * p['thetas'][a, n]
    return matrix * (n % axes == a) if kind == 'partition' else matrix

  def rotation(t, g):
    """Block by block, from the eigenvectors of -i A: those of a Hermitian matrix."""
    if (t, g) not in turns:
      whole = np.zeros((K, K))
      for n in range(K // block):
        matrix = sum(x * generator(a, g, n) for a, x in enumerate(t)) / length
        w, u = np.linalg.eigh(-1j * matrix)
        at = slice(n * block, (n + 1) * block)
        whole[at, at] = (u * np.exp(1j * w) @ u.conj().T).real
      turns[t, g] = whole
    return turns[t, g]

  def turn(x, t, h):
    return rotation(tuple(np.atleast_1d(t).tolist()), h // group) @ x

  score = lambda q, k, i, j, h: turn(q, i, h) @ turn(k, j, h) / math.sqrt(K)
  return Oracle(score)


def goat(dims, hyper, p):
  base, length = hyper.get('base', 10_000.0), hyper.get('length', dims.train_length)
  group, has_sink = dims.heads // dims.kv_heads, hyper.get('sink', True)
  frequencies = lambda name: [
    base ** (-r / max(hyper.get(name, 4) - 1, 1)) for r in range(hyper.get(name, 4))
  ]

  def place(j, g):
    angles = [w * j for w in frequencies('sink_waves')]
    features = [f(angle) for f in (math.cos, math.sin) for angle in angles]
    features += [j / length, math.log(1 + max(j, 0)) / math.log(1 + length)]
    units = [y / (1 + math.exp(-y)) for y in np.array(features) @ p['w_in'] + p['b_in']]
    return p['gains'][g] * (units @ p['w_out']) + p['first'][g] * (j == 0)

  def score(q, k, i, j, h):
    g = h // group
    s = q @ k / math.sqrt(dims.head_dim)
    for r, w in enumerate(frequencies('waves')):
      s += p['cosines'][r, g] * math.cos(w * (i - j)) + p['sines'][r, g] * math.sin(w * (i - j))
    if has_sink:
      s += place(j, g) - softplus(p['slopes'][g]) * (i - j)
    return s

  return Oracle(score)


def inner_oracle(dims, hyper, p, default):
  """The formula of the encoding that another one holds."""
  inner = hyper.get('inner', default)
  own = {'name': inner} if isinstance(inner, str) else dict(inner)
  parameters = {name.removeprefix('inner.'): value for name, value in p.items()}
  return RECORDS[own.pop('name')].oracle(dims, own, parameters)


def random_positions(dims, hyper, p):
  return inner_oracle(dims, hyper, p, 'rope')


def shape_offset(dims, hyper, p):
  return inner_oracle(dims, hyper, p, 'sinusoidal')


def pose(dims, hyper, p):
  return inner_oracle(dims, hyper, p, 'rope')


def cape(dims, hyper, p):
  return inner_oracle(dims, hyper, p, 'sinusoidal')


def bipe(dims, hyper, p):
  inner = inner_oracle(dims, hyper, p, 'rope')
  factor = hyper.get('bias_factor', 96.0 if hyper.get('inner') == 'alibi' else 1.0)
  product = dot(dims.head_dim)

  def score(q, k, i, j, h):
    s = inner.score(q, k, i, j, h)
    return s if factor == 1 else (1 - factor) * product(q, k, i, j, h) + factor * s

  rows, root = p['rows'], math.sqrt(dims.model_dim)
  return Oracle(score, position=lambda t: root * rows[t] if t < len(rows) - 1 else 0.0)


def bilevel_positions(tokens_T, begins_T, separators):
  """(place in its segment, segments before it in its document) of each token, int [T].

  begins_T says where documents begin.
  """
  places, segments = [], []
  place = segment = 0
  for token, begins in zip(tokens_T, begins_T, strict=True):
    if begins:
      place = segment = 0
    places.append(place)
    segments.append(segment)
    place += 1
    if token in separators:
      place, segment = 0, segment + 1
  return places, segments


def chain(dims, hyper, p):
  """Members that change q and k, one after another, and then members that add to their product; of
  those that read the scores, the first.
  """
  parts = []
  for n, member in enumerate(hyper.get('members', ('rope', 'fox'))):
    own = {'name': member} if isinstance(member, str) else dict(member)
    start = f'members.{n}.'
    of_member = {
      name.removeprefix(start): value for name, value in p.items() if name.startswith(start)
    }
    parts.append(RECORDS[own.pop('name')].oracle(dims, own, of_member))

  def query(q, x, n, h):
    """q of a token that sees n keys, as all members leave it."""
    for m, part in enumerate(parts):
      own_h = h if part.heads_out_per_head > 1 else h // several
      q = part.requery(part.temper(n, own_h, x[m]) * part.bend(q), n, own_h)
      q = part.turn[0](q, x[-1], h) if part.turn else q
    return q

  def key(k, x, h):
    for part in parts:
      k = part.bend(k)
      k = part.turn[1](k, x[-1], h) if part.turn else k
    return k

  def move(v, i, j, h):
    for part in parts:
      v = part.move(v, i, j, h)
    return v

  def mix(y_SGK, x_SD, position_S, which):
    for part in parts:
      y_SGK = part.mix(y_SGK, x_SD, position_S, which)
    return y_SGK

  sinks = [part.sink for part in parts if part.sink]
  several = math.prod(part.heads_out_per_head for part in parts)

  def along(q, k_nK, x_nD, h, seen_n):
    q = query(q, x_nD[-1], seen_n.sum(), h)
    k_nK = np.stack([key(k, x, h) for k, x in zip(k_nK, x_nD, strict=True)])
    of_part = lambda n: np.stack(list(x_nD[:, n]))
    return sum(part.along(q, k_nK, of_part(n), h, seen_n) for n, part in enumerate(parts))

  def pair(q, k, x_i, x_j, n, h):
    q, k = query(q, x_i, n, h), key(k, x_j, h)
    s = product = q @ k / math.sqrt(dims.head_dim)
    for m, part in enumerate(parts):
      behind = range(m + 1, len(parts)) if part.sets_beside else ()
      factor = math.prod(parts[b].temper(n, h, x_i[b]) for b in behind)
      if not part.turn:
        s += factor * part.score(q / factor, k, x_i[-1], x_j[-1], h) - product
      s += factor * part.pair(q / factor, k, x_i[m], x_j[m], n, h)
    return s

  def across(s_HS, i, j_S, place_S):
    for part in parts:
      s_HS = part.across(s_HS, i, j_S, place_S)
    return s_HS

  def among(rows, starts):
    for part in parts:
      rows = part.among(rows, starts)
    return rows

  def tokens(x_SD, position_S):
    """What each member makes of a token, and its position."""
    out = np.empty((len(x_SD), len(parts) + 1), object)
    for n, part in enumerate(parts):
      out[:, n] = list(part.tokens(x_SD, position_S))
    for row, position in zip(out, position_S, strict=True):
      row[-1] = position
    return out

  def convey(v, x_i, x_j, h):
    for m, part in enumerate(parts):
      v = part.convey(v, x_i[m], x_j[m], h)
    return v

  def leave(o, v, h):
    for part in parts:
      o = part.leave(o, v, h)
    return o

  return Oracle(
    lambda q, k, i, j, h: 0.0,
    position=lambda t: sum(part.position(t) for part in parts),
    value=lambda i, j, h: sum(part.value(i, j, h) for part in parts),
    move=move,
    mix=mix,
    weights=next((part.weights for part in parts if part.weights is not softmax), softmax),
    blend=lambda p_HS: functools.reduce(lambda p, part: part.blend(p), parts, p_HS),
    heads_out_per_head=several,
    across=across,
    among=among,
    convey=convey,
    leave=leave,
    sink=sinks[0] if sinks else None,
    along=along,
    pair=pair,
    tokens=tokens,
  )


def split_heads(dims, hyper):
  """Name, hyperparameters, sizes and first head of each member; heads are shared evenly."""
  specs = [{'name': m} if isinstance(m, str) else dict(m) for m in hyper.get('members', ('rope',))]
  counts = [spec.pop('heads', dims.heads // len(specs)) for spec in specs]
  for n, spec in enumerate(specs):
    group = dims.heads // dims.kv_heads
    sizes = dataclasses.replace(dims, heads=counts[n], kv_heads=counts[n] // group)
    yield spec.pop('name'), spec, sizes, sum(counts[:n])


def heads(dims, hyper, p):
  """Each head as its member says."""
  of_head = []
  for n, (name, own, sizes, first) in enumerate(split_heads(dims, hyper)):
    start = f'members.{n}.'
    mine = {key.removeprefix(start): value for key, value in p.items() if key.startswith(start)}
    part = RECORDS[name].oracle(sizes, own, mine)
    of_head += [(part, h) for h in range(sizes.heads)]
    assert len(of_head) == first + sizes.heads

  def along(q, k_nK, x_nD, h, seen_n):
    part, own_h = of_head[h // several]
    h //= several
    return part.along(q, k_nK, np.stack(list(x_nD[:, h])), own_h, seen_n)

  def pair(q, k, x_i, x_j, n, h):
    part, own_h = of_head[h // several]
    return part.pair(q, k, x_i[h // several], x_j[h // several], n, own_h)

  def tokens(x_SD, position_S):
    out = np.empty((len(x_SD), len(of_head)), object)
    for h, (part, _) in enumerate(of_head):
      out[:, h] = list(part.tokens(x_SD, position_S))
    return out

  def sink(q, i, h):
    part, own_h = of_head[h // several]
    return part.sink(q, i, own_h) if part.sink else -math.inf

  several = of_head[0][0].heads_out_per_head

  def each(hook):
    def call(*arguments):
      part, own_h = of_head[arguments[-1] // several]
      return getattr(part, hook)(*arguments[:-1], own_h * several + arguments[-1] % several)

    return call

  def temper(n, h, x):
    part, own_h = of_head[h // several]
    return part.temper(n, own_h, x[h // several])

  def convey(v, x_i, x_j, h):
    part, own_h = of_head[h // several]
    return part.convey(v, x_i[h // several], x_j[h // several], own_h)

  return Oracle(
    each('score'),
    value=each('value'),
    move=each('move'),
    leave=each('leave'),
    temper=temper,
    convey=convey,
    along=along,
    pair=pair,
    tokens=tokens,
    sink=sink,
    heads_out_per_head=several,
  )


def none(d, h):
  return 0, 0


@dataclasses.dataclass
class Record:
  """All that the tests know of an encoding.

  Attributes:
    oracle: the formula.
    parameters: (dims, hyperparameters) -> how many numbers all layers share, and how many each
      layer has of its own.
    hyper: hyperparameters that the laws take in the place of the defaults, where the defaults do
      nothing within eleven tokens.
    variants: {suffix: hyperparameters} of further cases for the laws.
  """

  oracle: callable
  parameters: callable = none
  hyper: dict = dataclasses.field(default_factory=dict)
  variants: dict[str, dict] = dataclasses.field(default_factory=dict)


def count_members(d, h):
  """The parameters of a chain: those of its members."""
  shared = own = 0
  for member in h.get('members', ('rope', 'fox')):
    spec = {'name': member} if isinstance(member, str) else dict(member)
    of_all, of_each = RECORDS[spec.pop('name')].parameters(d, spec)
    shared, own = shared + of_all, own + of_each
  return shared, own


def count_heads(d, h):
  """The parameters of a mixture: those of its members, each for its own heads."""
  each = [RECORDS[name].parameters(sizes, own) for name, own, sizes, _ in split_heads(d, h)]
  return tuple(map(sum, zip(*each, strict=True)))


def count_inner(default):
  """The parameters of a wrapper: those of the encoding inside."""

  def count(d, h):
    inner = h.get('inner', default)
    spec = {'name': inner} if isinstance(inner, str) else dict(inner)
    return RECORDS[spec.pop('name')].parameters(d, spec)

  return count


def count_dape(d, h):
  hidden = h.get('hidden', 32)
  shared, own = count_inner('alibi')(d, h)
  return shared, own + 2 * d.heads * hidden + hidden + hidden * d.heads


def count_dape_v2(d, h):
  shared, own = count_inner('alibi')(d, h)
  hidden = h.get('hidden', 32)
  return shared, own + 3 * 2 * d.heads * hidden + hidden + 3 * hidden * d.heads


def count_shaw(d, h):
  tables, most = 2 if h.get('value_rows', True) else 1, h.get('max_distance', 16)
  return 0, tables * (most + 1 + h.get('max_later', most)) * d.head_dim


def count_deberta(d, h):
  projections = h.get('c2p', True) + h.get('p2c', True)
  table = 2 * (h.get('buckets') or h.get('span') or d.train_length) * d.model_dim
  return table, projections * d.model_dim * d.heads * d.head_dim


def count_transformer_xl(d, h):
  return 2 * d.heads * d.head_dim, h.get('features', d.model_dim) * d.heads * d.head_dim


def count_tupe(d, h):
  count = d.train_length * d.model_dim + d.model_dim * (d.heads + d.kv_heads) * d.head_dim
  count += 2 * d.model_dim + d.heads * d.head_dim if h.get('affine') else 0
  return count + h.get('buckets', 0) * d.heads, 0


def count_fire(d, h):
  hidden = h.get('hidden', 32)
  return 0, 2 + 2 * hidden + hidden * d.heads


def count_mlp_bias(d, h):
  hidden, more = h.get('hidden', d.model_dim // 4), h.get('depth', 2) - 1
  norms = (1 + 2 * more) * hidden if h.get('norm') else 0
  return 2 * hidden + more * (hidden + 1) * hidden + hidden * d.heads + norms, 0


def count_diet_abs(d, h):
  rows = h.get('max_length', d.train_length) * (d.heads + d.kv_heads)
  return rows * h.get('rank', d.head_dim), 0


def count_learned_fourier(d, h):
  waves, hidden = h.get('waves', 64), h.get('hidden', 32)
  return h.get('axes', 1) * waves + (2 * waves + 1) * hidden + (hidden + 1) * d.model_dim, 0


def count_fox(d, h):
  gates = 2 * d.heads if h.get('both_ways') else d.heads
  return 0, {'data': d.model_dim + 1, 'learned': 1, 'fixed': 0}[h.get('gate', 'data')] * gates


def count_selective_rope(d, h):
  D, G, half, rank = d.model_dim, d.kv_heads, d.head_dim // 2, h.get('rank', 16)
  count = D * rank + rank * G * half + 4 * G * half
  return 0, count + (G * half if h.get('bias') else 0) + ((D + 1) * G if h.get('gate') else 0)


def count_grape_m(d, h):
  return 0, (d.kv_heads if h.get('per_head') else 1) * d.head_dim // 2


def count_grape_a(d, h):
  vectors = 2 if h.get('gate', 'query_key') == 'query_key' else 1
  return 0, d.heads * (1 + vectors * d.head_dim)


def count_repo(d, h):
  hidden = h.get('hidden', max(d.model_dim // 8, 1))
  return 0, hidden * (2 * d.model_dim + d.kv_heads)


def count_path(d, h):
  D, G, K, rank = d.model_dim, d.kv_heads, d.head_dim, h.get('rank', 32)
  projection = D * rank + rank * G * K if rank else D * G * K
  return 0, projection + 3 * G * K + (D + 1) * G


def count_tape(d, h):
  hidden = h.get('hidden', 4 * d.heads)
  return 0, d.heads + hidden * (d.model_dim + 2 * d.kv_heads)


def count_relative_projection(d, h):
  rank = h.get('rank', 16)
  return 0, d.model_dim * d.heads * rank + h.get('max_distance', 1024) * rank


def count_liere(d, h):
  block, axes, kind = h.get('block', d.head_dim), h.get('axes', 1), h.get('generators', 'free')
  blocks = d.head_dim // block
  thetas = axes * blocks if kind == 'dependent' else 0
  own = axes if kind == 'free' else 1
  return 0, own * d.kv_heads * blocks * block * (block - 1) // 2 + thetas


def count_goat(d, h):
  of_sink = 3 * d.kv_heads + 4 * (2 * h.get('sink_waves', 4) + 4) if h.get('sink', True) else 0
  return 0, 2 * h.get('waves', 4) * d.kv_heads + of_sink


def count_qassmax(d, h):
  F, width = h.get('hidden', 64), d.head_dim if h.get('elementwise', True) else 1
  of_query = (d.head_dim + 1) * F + (F + 1) * width if h.get('gate', True) else 0
  return 0, 2 * F + (F + 1) * d.heads * width + of_query


RECORDS = {
  'nope': Record(nope),
  'learned': Record(
    learned,
    lambda d, h: (h.get('axes', 1) * h.get('max_length', d.train_length) * d.model_dim, 0),
    variants={
      'long': {'max_length': 64},
      'repeat': {'max_length': 4, 'extend': 'repeat'},
      'group': {'max_length': 9, 'extend': 'group', 'extend_to': 40},
      'interpolate': {'max_length': 9, 'extend': 'interpolate', 'extend_to': 40},
      'hierarchical': {'max_length': 7, 'extend': 'hierarchical'},
      'axes': {'axes': 2, 'max_length': 90},
      'repeat_axes': {'axes': 3, 'max_length': 4, 'extend': 'repeat'},
      'group_axes': {'axes': 2, 'max_length': 9, 'extend': 'group', 'extend_to': 40},
      'interpolate_axes': {'axes': 2, 'max_length': 9, 'extend': 'interpolate', 'extend_to': 40},
      'hierarchical_axes': {'axes': 2, 'max_length': 7, 'extend': 'hierarchical'},
    },
  ),
  'sinusoidal': Record(
    sinusoidal,
    lambda d, h: (1 if h.get('learned_scale') else 0, 0),
    variants={
      'learned': {'learned_scale': True, 'layout': 'half'},
      'half': {'layout': 'half', 'base': 100.0},
      'tensor2tensor': {'layout': 'tensor2tensor'},
      'axes': {'axes': 2, 'layout': 'half'},
    },
  ),
  'shaw': Record(
    shaw,
    count_shaw,
    variants={
      'clipped': {'max_distance': 3},
      'keys': {'max_distance': 3, 'value_rows': False},
      'key_query': {'max_distance': 3, 'value_rows': False, 'key_query': True},
      'uneven': {'max_distance': 5, 'max_later': 2},
      'zero': {'max_distance': 2, 'max_later': 4, 'beyond': 'zero'},
      'earlier': {'max_distance': 3, 'max_later': 0, 'beyond': 'zero', 'key_query': True},
    },
  ),
  'transformer_xl': Record(
    transformer_xl,
    count_transformer_xl,
    variants={
      'clamped': {'max_distance': 4},
      'features': {'features': 18, 'length': 16},
      'clamped_features': {'features': 12, 'max_distance': 6},
    },
  ),
  't5': Record(
    t5,
    lambda d, h: (h.get('buckets', 32) * d.heads, 0),
    variants={
      'small': {'buckets': 8, 'max_distance': 9},
      'bidirectional': {'buckets': 8, 'max_distance': 9, 'bidirectional': True},
    },
  ),
  'deberta': Record(
    deberta,
    count_deberta,
    variants={
      'clamped': {'span': 4},
      'c2p': {'span': 4, 'p2c': False},
      'p2c': {'span': 4, 'c2p': False},
      'buckets': {'buckets': 6, 'max_distance': 9},
    },
  ),
  'rope': Record(
    rope,
    variants={'interleaved': {'layout': 'interleaved', 'base': 50.0}, 'partial': {'fraction': 0.5}},
  ),
  'rerope': Record(rerope, hyper={'window': 4}),
  'leaky_rerope': Record(leaky_rerope, hyper={'window': 3, 'leak': 2.5}),
  'streaming_rope': Record(streaming_rope, hyper={'window': 4, 'sink_tokens': 2}),
  'self_extend': Record(
    self_extend,
    hyper={'window': 4, 'group': 3},
    variants={'partial': {'window': 5, 'group': 2, 'fraction': 0.5, 'base': 50.0}},
  ),
  'alibi': Record(
    alibi,
    lambda d, h: (d.heads if h.get('learned') else 0, 0),
    variants={
      'learned': {'learned': True},
      'steep': {'exponent': 16.0},
      'interpolated': {'factor': 3.0},
      'spread': {'factor': 3.0, 'spread': True},
      'balanced': {'balanced': True},
      'plane': {'axes': 2, 'learned': True, 'factor': 3.0},
    },
  ),
  'kerple_log': Record(
    kerple_log,
    lambda d, h: (2 * d.heads, 0),
    variants={'softplus': {'positivity': 'softplus'}, 'in_scale': {'bias_in_scale': True}},
  ),
  'sandwich': Record(sandwich, variants={'narrow': {'width': 6}}),
  'fire': Record(
    fire,
    count_fire,
    hyper={'threshold': 4.0},  # below the threshold only distances count
    variants={'small': {'threshold': 8.0, 'hidden': 5}},
  ),
  'fox': Record(
    fox,
    count_fox,
    variants={
      'remembering': {'start': 5.0},
      'learned': {'gate': 'learned'},
      'in_scale': {'bias_in_scale': True},
      'fixed': {'gate': 'fixed', 'shortest': 1.0, 'longest': 9.0},
      'both_ways': {'both_ways': True},
      'both_learned': {'gate': 'learned', 'both_ways': True},
      'both_fixed': {'gate': 'fixed', 'both_ways': True, 'bias_in_scale': True},
    },
  ),
  'cope': Record(
    cope,
    lambda d, h: (0, h.get('positions', 64) * d.head_dim),
    variants={'few': {'positions': 3}, 'in_scale': {'positions': 5, 'bias_in_scale': True}},
  ),
  'stick_breaking': Record(stick_breaking, variants={'current': {'attend_current': True}}),
  'tupe': Record(
    tupe, count_tupe, variants={'affine': {'affine': True}, 'r': {'buckets': 8, 'max_distance': 9}}
  ),
  'xpos': Record(
    xpos, variants={'fast': {'scale_base': 24.0, 'layout': 'half', 'base': 50.0, 'gamma': 0.2}}
  ),
  'hyperbolic_rope': Record(hyperbolic_rope, variants={'steep': {'base': 20.0, 'damping': 1.6}}),
  'jordan_rope': Record(
    jordan_rope,
    lambda d, h: (0, 2 * d.kv_heads * d.head_dim // 4),
    hyper={'start': 0.1},  # from the default on, decays are next to nothing
    variants={'relative': {'start': 1.0, 'bounded': False, 'base': 50.0}},
  ),
  'p_rope': Record(p_rope, variants={'half': {'p': 0.5, 'layout': 'interleaved', 'base': 50.0}}),
  'kerple_power': Record(
    kerple_power, lambda d, h: (2 * d.heads, 0), variants={'softplus': {'positivity': 'softplus'}}
  ),
  'dape': Record(
    dape,
    count_dape,
    variants={
      'in_scale': {'inner': {'name': 'kerple_log', 'bias_in_scale': True}},
      'kerple': {'inner': 'kerple_power', 'hidden': 6, 'negative_slope': 0.3},
      'fire': {'inner': 'fire', 'hidden': 8},
    },
  ),
  'selective_rope': Record(
    selective_rope,
    count_selective_rope,
    variants={
      'bias': {'bias': True, 'base': 50.0, 'rank': 3},
      'gate': {'gate': True},
      'values': {'base': 50.0, 'turn_values': True},
    },
  ),
  'path': Record(path, count_path, variants={'linear': {'rank': 0}}),
  'wall': Record(
    wall,
    lambda d, h: (0, (d.model_dim + 1) * d.heads * d.head_dim),
    hyper={'start': 0.0},  # at the default no more than 1/250 is forgotten within eleven tokens
    variants={'forgetting': {'start': -5.0}, 'bounded': {'start': -1.0, 'bound': 0.86}},
  ),
  'pope': Record(
    pope,
    lambda d, h: (d.heads * d.head_dim, 0),
    variants={'uniform': {'phases': 'uniform', 'base': 50.0}},
  ),
  'relative_projection': Record(
    relative_projection,
    count_relative_projection,
    variants={'short': {'rank': 3, 'max_distance': 5}, 'growing': {'length': 4, 'c': 0.5}},
  ),
  'grape_ap': Record(
    grape_ap,
    lambda d, h: (0, d.model_dim * d.heads * h.get('width', 8)),
    variants={'wide': {'width': 12}},
  ),
  'music_transformer': Record(
    music_transformer,
    lambda d, h: (0, h.get('max_distance', d.train_length) * d.heads * d.head_dim),
    variants={'short': {'max_distance': 4}, 'clipped': {'max_distance': 4, 'beyond': 'clip'}},
  ),
  'chain': Record(
    chain,
    count_members,
    variants={
      'cope_rope': {'members': ('cope', {'name': 'rope', 'base': 50.0})},
      'ssmax_alibi': {'members': ('ssmax', 'alibi')},
      'shaw_alibi': {'members': ({'name': 'shaw', 'max_distance': 3}, 'alibi')},
      'cope_alibi': {'members': ('cope', 'alibi')},  # a term behind a score
      'fox_shaw': {'members': ('fox', {'name': 'shaw', 'max_distance': 3})},
      'path_fox': {'members': ('path', {'name': 'fox', 'bias_in_scale': True})},
      'wall_fox_sink': {'members': ({'name': 'wall', 'start': 0.0}, 'fox', 'sink')},
      'rope_sink': {'members': ('rope', 'sink')},
      'rope_vo_rope': {'members': ('rope', {'name': 'vo_rope', 'base': 50.0})},
      'xsa_rope_vo_rope': {'members': ('xsa', 'rope', {'name': 'vo_rope', 'base': 50.0})},
      'xsa_kv_shift': {'members': ({'name': 'xsa', 'learned': True}, 'kv_shift')},
      'kv_shift_rope': {'members': ('kv_shift', 'rope')},
      'ssmax_rope_pp': {'members': ('ssmax', 'rope_pp')},
      'kv_shift_rope_pp': {'members': ('kv_shift', 'rope_pp')},
      'abacus_rope': {'members': ('abacus', 'rope')},
      'grape_m_alibi': {'members': ('grape_m', 'alibi')},
      'asentmax_rope': {'members': ({'name': 'rope', 'base': 50.0}, 'asentmax_temperature')},
      'alibi_entmax': {'members': ('alibi', {'name': 'entmax', 'alpha': 1.25})},
      'cope_hard_alibi': {'members': ('cope', 'hard_alibi')},
      'ssmax_mla_rope': {'members': ('ssmax', 'mla_rope')},
      'key_offset_rope': {'members': ('key_offset', {'name': 'rope', 'fraction': 0.5})},
      't5_urpe': {'members': ({'name': 't5', 'buckets': 8, 'max_distance': 9}, 'urpe')},
      'alibi_sigmoid': {'members': ('alibi', 'sigmoid')},
      'alibi_selective': {'members': ('alibi', 'selective')},
      'balanced_sigmoid': {'members': ({'name': 'alibi', 'balanced': True}, 'sigmoid')},
      'cos_scale_rope': {
        'members': ({'name': 'cos_scale', 'scale': 6.0}, 'rope', {'name': 'infoscale', 'length': 4})
      },
      'qassmax_rope': {'members': ('qassmax', 'rope')},
      'rope_qassmax': {'members': ('rope', {'name': 'qassmax', 'hidden': 5})},
      'lssa_rope': {'members': ('lssa', 'rope')},
      'alibi_lssa': {'members': ('alibi', 'lssa')},
      'lssar_rope': {'members': ({'name': 'lssar', 'power': 3.0}, 'rope')},
      'alibi_talking_heads': {'members': ('alibi', 'talking_heads')},
      'alibi_mta': {'members': ('alibi', 'mta')},
      'rope_relu': {'members': ('rope', 'relu')},
      'alibi_elastic_softmax': {'members': ('alibi', 'elastic_softmax')},
      'rope_cog': {'members': ('rope', 'cog')},
      'alibi_ultravico': {'members': ('alibi', {'name': 'ultravico', 'window': 2, 'alpha': 0.3})},
    },
  ),
  'heads': Record(
    heads,
    count_heads,
    hyper={'members': ('nope', 'alibi')},
    variants={
      'rope_fox': {'members': ({'name': 'rope', 'heads': 2}, 'fox')},
      'shaw_xpos': {'members': ({'name': 'shaw', 'max_distance': 3}, 'xpos')},
      'ssmax_fire': {'members': ('ssmax', {'name': 'fire', 'threshold': 4.0})},
      'alibi_shaw': {'members': ('alibi', {'name': 'shaw', 'max_distance': 3})},
      'grape_asentmax': {'members': ('grape_m_context', 'asentmax_temperature')},
      'rope_hope': {'members': ('rope', {'name': 'hope', 'length': 700})},
      'xsa_sink': {'members': ('xsa', {'name': 'chain', 'members': ('vo_rope', 'sink')})},
      'rope_pps': {'members': ('rope_pp', {'name': 'rope_pp', 'base': 50.0})},
      'sink_chain': {'members': ('sink', {'name': 'chain', 'members': ('vo_rope', 'rope')})},
    },
  ),
  'logn': Record(
    logn,
    hyper={'length': 4},  # the factor is 1 up to it
    variants={'ratio': {'floor': 0.0}},
  ),
  'infoscale': Record(
    infoscale,
    hyper={'length': 4},  # as of logn
    variants={'no_floor': {'floor': 0.0}, 'all_heads': {'length': 4, 'width': 32}},
  ),
  'qassmax': Record(
    qassmax,
    count_qassmax,
    variants={
      'of_heads': {'elementwise': False, 'hidden': 5},
      'without_gate': {'elementwise': False, 'gate': False},
    },
  ),
  'drope': Record(drope, hyper={'length': 4}),
  'ssmax': Record(
    ssmax,
    lambda d, h: (0, (2 if h.get('bias') else 1) * d.heads),
    variants={'bias': {'bias': True}},
  ),
  'nope_scale': Record(
    nope_scale,
    lambda d, h: (0, d.heads if h.get('learned') else 0),
    variants={'learned': {'scale': 2.0, 'learned': True}},
  ),
  'llama4_temperature': Record(
    llama4_temperature,
    hyper={'length': 3, 'c': 2.0},
    variants={'ministral': {'length': 3, 'c': 2.0, 'counts_itself': False}},
  ),
  'random_positions': Record(
    random_positions,
    count_inner('rope'),
    variants={'t5': {'inner': {'name': 't5', 'buckets': 8, 'max_distance': 9}}},
  ),
  'shape_offset': Record(shape_offset, count_inner('sinusoidal')),
  'pose': Record(pose, count_inner('rope')),
  'cape': Record(
    cape,
    count_inner('sinusoidal'),
    variants={'pope': {'inner': 'pope'}, 'axes': {'inner': 'axial_rope'}},
  ),
  'bipe': Record(
    bipe,
    lambda d, h: (
      h.get('places', d.train_length) * d.model_dim + count_inner('rope')(d, h)[0],
      count_inner('rope')(d, h)[1],
    ),
    variants={
      'alibi': {'inner': 'alibi'},
      'slow': {'inner': {'name': 'alibi', 'learned': True}, 'bias_factor': 2.0, 'places': 3},
      't5': {'inner': {'name': 't5', 'buckets': 8, 'max_distance': 9}},
    },
  ),
  'vo_rope': Record(
    vo_rope,
    variants={
      'interleaved': {'layout': 'interleaved', 'base': 50.0},
      'partial': {'fraction': 0.5},
      'turned': {'back': False},
    },
  ),
  'rope_pp': Record(rope_pp, variants={'interleaved': {'layout': 'interleaved', 'base': 50.0}}),
  'kv_shift': Record(
    kv_shift,
    lambda d, h: (0, 2 * (2 if h.get('gate') == 'learned' else d.model_dim) * d.kv_heads),
    variants={'learned': {'gate': 'learned'}},
  ),
  'axial_rope': Record(
    axial_rope,
    variants={
      'split': {'spectrum': 'split', 'layout': 'interleaved', 'base': 50.0},
      'sections': {'sections': (1, 3)},
      'uneven': {'axes': 3, 'sections': (2, 1, 1), 'spectrum': 'split'},
      'interleaved': {'sections': (3, 1), 'spectrum': 'interleaved'},
      'first_slowest': {'axes': 3, 'sections': (1, 2, 1), 'spectrum': 'first_slowest'},
      'heads': {'spectrum': 'heads', 'layout': 'interleaved', 'base': 50.0},
      'bases': {'axes': 3, 'sections': (1, 2, 1), 'base': (50.0, 30, 5.5)},
      'of_one': {'axes': 3, 'sections': (0, 4, 0)},
      'of_one_larger': {'sections': (0, 4), 'scaling': {'rope_type': 'ntk', 'factor': 4.0}},
      'partial': {
        'sections': (2, 1),
        'spectrum': 'interleaved',
        'fraction': 0.75,
        'scaling': {'rope_type': 'ntk', 'factor': 4.0},
      },
      'larger': {'base': 50.0, 'scaling': {'rope_type': 'ntk', 'factor': 4.0}},
      'larger_together': {'spectrum': 'split', 'scaling': {'rope_type': 'linear', 'factor': 4.0}},
      'longer': {
        'sections': (3, 1),
        'scaling': {'rope_type': 'riflex', 'k': 2, 'test_length': 20},
        'scaled_axis': 0,
      },
    },
  ),
  'sink': Record(sink, lambda d, h: (0, d.heads)),
  'xsa': Record(
    xsa,
    lambda d, h: (0, d.heads if h.get('learned') else 0),
    variants={'learned': {'learned': True}},
  ),
  'softmax_plus_one': Record(softmax_plus_one),
  'sigmoid': Record(
    sigmoid_attention,
    lambda d, h: (0, d.heads if h.get('learned') else 0),
    variants={'half': {'bias': 0.0}, 'learned': {'bias': -1.0, 'learned': True}},
  ),
  'softpick': Record(softpick),
  'elastic_softmax': Record(elastic_softmax, lambda d, h: (0, d.heads)),
  'cog': Record(cog),
  'selective': Record(selective),
  'entmax': Record(entmax, variants={'bisected': {'alpha': 1.2}, 'sparse': {'alpha': 2.0}}),
  'clipped_rope': Record(
    clipped_rope, hyper={'clipped': 3}, variants={'hard': {'clipped': 2, 'hard': True}}
  ),
  'hope': Record(hope, variants={'long': {'length': 700}}),
  'resonance_rope': Record(resonance_rope, variants={'fast': {'base': 50.0}}),
  'mobius_rope': Record(
    mobius_rope,
    variants={
      'all': {'mobius_heads': 4, 'length': 30},
      'partial': {'mobius_heads': 2, 'fraction': 0.5, 'layout': 'interleaved', 'base': 50.0},
    },
  ),
  'fope': Record(
    fope,
    variants={
      'fast': {'base': 50.0, 'gain': 0.6, 'seed': 3},
      'long': {'length': 700},
      'square': {'base': 50.0, 'square': True, 'still': True},
      'shared': {'gain': 0.5, 'per_head': False},
    },
  ),
  'scale_invariant': Record(scale_invariant, variants={'near': {'tau': 0.5}}),
  'nape': Record(nape, variants={'three': {'alibi_heads': 3}}),
  'asentmax_temperature': Record(
    asentmax_temperature,
    lambda d, h: (0, 2 * d.heads * (d.model_dim + bool(h.get('bias')))),
    variants={'bias': {'delta': 0.5, 'gamma': 1.0, 'bias': True}},
  ),
  'grape_m': Record(
    grape_m,
    count_grape_m,
    variants={
      'per_head': {'per_head': True, 'base': 50.0, 'scale': 2.0},
      'values': {'per_head': True, 'turn_values': True},
    },
  ),
  'grape_m_context': Record(
    grape_m_context,
    lambda d, h: (0, count_grape_m(d, h)[1] + d.model_dim + 1),
    variants={'per_head': {'per_head': True, 'base': 50.0}, 'values': {'turn_values': True}},
  ),
  'grape_a': Record(
    grape_a, count_grape_a, variants={gate: {'gate': gate} for gate in ('query', 'key')}
  ),
  'string': Record(
    string,
    hyper={'window': 5, 'local': 2},
    variants={'factor': {'window': 4, 'local': 0, 'attention_factor': 1.3, 'base': 50.0}},
  ),
  'dca': Record(
    dca, hyper={'chunk': 5, 'local': 2}, variants={'whole': {'chunk': 4, 'local': 0, 'base': 50.0}}
  ),
  'darope': Record(
    darope,
    lambda d, h: (0, d.kv_heads * (d.model_dim + 1)),
    variants={
      'slow': {'base': 1e9, 'length': 4},
      'interleaved': {'base': 50.0, 'layout': 'interleaved', 'length': 7},
    },
  ),
  'repo': Record(repo, count_repo, variants={'wide': {'base': 50.0, 'hidden': 3}}),
  'abacus': Record(learned, lambda d, h: (h.get('max_length', 1024) * d.model_dim, 0)),
  'bam': Record(
    bam,
    lambda d, h: (0, (2 + h.get('ssmax', False) + h.get('learned_mean', False)) * d.heads),
    variants={
      'ssmax': {'ssmax': True},
      'mean': {'learned_mean': True},
      'both': {'ssmax': True, 'learned_mean': True},
    },
  ),
  'wavelet': Record(wavelet, variants={'few': {'scales': 2}, 'late': {'scales': 4, 'first': 3}}),
  'cable': Record(
    cable,
    lambda d, h: (0, (2 if h.get('weighted', True) else 1) * d.model_dim * d.heads),
    variants={'nw': {'weighted': False}},
  ),
  'tapa': Record(tapa, variants={'square': {'alpha': 0.5, 'fraction': 0.25}}),
  'carope': Record(
    carope,
    lambda d, h: (0, (d.model_dim + 1) * d.kv_heads),
    variants={
      'interleaved': {'base': 50.0, 'layout': 'interleaved'},
      'values': {'layout': 'interleaved', 'turn_values': True},
    },
  ),
  'coca': Record(
    coca,
    variants={'interleaved': {'layout': 'interleaved', 'base': 50.0}, 'partial': {'fraction': 0.5}},
  ),
  'dape_v2': Record(
    dape_v2,
    count_dape_v2,
    variants={
      'kerple': {'inner': 'kerple_power', 'hidden': 6, 'negative_slope': 0.3},
      'fire': {'inner': 'fire', 'hidden': 8},
    },
  ),
  'hype_temperature': Record(hype_temperature, hyper={'a': 3.0}, variants={'steep': {'a': 1.5}}),
  'adaptive_temperature': Record(adaptive_temperature),
  'rope_mixed': Record(
    rope_mixed,
    lambda d, h: (0, h.get('axes', 2) * d.kv_heads * d.head_dim // 2),
    variants={'slow': {'base': 100.0}, 'values': {'turn_values': True}, 'space': {'axes': 3}},
  ),
  'mla_rope': Record(
    mla_rope,
    lambda d, h: (0, d.model_dim * (d.heads + 1) * round(h.get('fraction', 0.5) * d.head_dim)),
    variants={'narrow': {'fraction': 0.25, 'layout': 'half', 'base': 50.0}},
  ),
  'ms_poe': Record(
    ms_poe,
    variants={
      'ordered': {'greatest_ratio': 4.0, 'order': (2, 0, 3, 1)},
      'partial': {'least_ratio': 0.5, 'fraction': 0.5, 'base': 50.0},
    },
  ),
  'tape': Record(
    tape,
    count_tape,
    variants={'interleaved': {'layout': 'interleaved', 'base': 50.0}, 'narrow': {'hidden': 3}},
  ),
  'key_offset': Record(key_offset, variants={'few': {'fraction': 0.25}}),
  'position_coupling': Record(
    position_coupling,
    lambda d, h: (h.get('levels', 1) * h.get('max_length', d.train_length) * d.model_dim, 0),
  ),
  'hard_alibi': Record(
    hard_alibi, variants={'all': {'windows': (4, 2, 7, 1)}, 'first': {'windows': (3,)}}
  ),
  'mlp_bias': Record(
    mlp_bias,
    count_mlp_bias,
    variants={
      'log': {'log': True},
      'deep': {'depth': 3, 'hidden': 5},
      'shallow': {'depth': 1},
      'norm': {'norm': True, 'depth': 3, 'hidden': 5},
      'norm_shallow': {'norm': True, 'depth': 1, 'hidden': 5},
    },
  ),
  'tisa': Record(
    tisa, lambda d, h: (0, 3 * h.get('kernels', 5) * d.heads), variants={'one': {'kernels': 1}}
  ),
  'urpe': Record(
    urpe,
    lambda d, h: ((2 * h.get('max_distance', d.train_length - 1) + 1) * d.heads, 0),
    variants={'clipped': {'max_distance': 3}},
  ),
  'diet_abs': Record(
    diet_abs,
    count_diet_abs,
    variants={'wide': {'rank': 16, 'max_length': 64}, 'narrow': {'rank': 3}},
  ),
  'learned_fourier': Record(
    learned_fourier,
    count_learned_fourier,
    variants={
      'small': {'waves': 3, 'hidden': 5, 'gamma': 2.0},
      'axes': {'axes': 2, 'waves': 3, 'hidden': 5},
    },
  ),
  'liere': Record(
    liere,
    count_liere,
    variants={
      'plane': {'axes': 2, 'block': 4, 'length': 9.0},
      'pairs': {'axes': 2, 'block': 2, 'length': 40.0},
      'dependent': {'axes': 2, 'block': 4, 'generators': 'dependent', 'length': 40.0},
      'partition': {'axes': 2, 'block': 4, 'generators': 'partition', 'length': 40.0},
    },
  ),
  'goat': Record(
    goat,
    count_goat,
    variants={
      'few': {'waves': 1, 'sink_waves': 2, 'base': 50.0, 'length': 9},
      'relative': {'sink': False},
      'recent': {'waves': 0, 'sink_waves': 8},
    },
  ),
  'dpe': Record(
    dpe,
    hyper={'window': 4, 'groups': (3, 2, 1)},
    variants={
      'many': {'window': 4},
      'partial': {'window': 3, 'groups': (4, 2), 'fraction': 0.5, 'base': 50.0},
    },
  ),
  'self_logistic': Record(
    self_logistic,
    hyper={'window': 3, 'capacity': 4, 'rate': 0.6},
    variants={
      'slow': {'window': 4, 'rate': 0.2},
      'pairs': {'window': 4, 'capacity': 3, 'rate': 5.0},
    },
  ),
  'jet_long': Record(
    jet_long,
    hyper={'window': 4, 'length': 3000, 'context': 9000},
    variants={
      'of_call': {'window': 3, 'length': 4},
      'partial': {'window': 5, 'length': 6, 'context': 12, 'fraction': 0.5, 'base': 50.0},
    },
  ),
  'cayley_string': Record(
    cayley_string,
    lambda d, h: (0, d.kv_heads * d.head_dim**2 // 2),
    variants={'plane': {'axes': 2, 'base': 100.0}, 'bare': {'base': 50.0, 'scale': 1.0}},
  ),
  # at the default, products of two digits, rows are nearly one key
  'cos_scale': Record(cos_scale, hyper={'scale': 6.0}, variants={'flat': {'scale': 1.5}}),
  'lssa': Record(lssa),
  'golden_gate_rope': Record(
    golden_gate_rope,
    variants={
      'space': {'axes': 3, 'slowest': 0.2, 'layout': 'interleaved'},
      'still': {'still': 0.3, 'slowest': 0.1, 'fastest': 1.0},
    },
  ),
  'harope': Record(
    harope,
    lambda d, h: (0, d.kv_heads * d.head_dim**2),
    variants={'plane': {'axes': 2, 'base': 100.0}, 'fast': {'base': 50.0}},
  ),
  'lssar': Record(lssar, variants={'mild': {'power': 3.0}, 'linear': {'power': 1.0}}),
  'talking_heads': Record(
    talking_heads,
    lambda d, h: (0, (h.get('scores', True) + h.get('weights', True)) * d.heads**2),
    variants={'scores': {'weights': False}, 'weights': {'scores': False}},
  ),
  'mta': Record(
    mta,
    lambda d, h: (
      0,
      (1 + h.get('weights', False)) * d.heads * h.get('query_width', 6) * h.get('key_width', 11),
    ),
    variants={
      'narrow': {'query_width': 2, 'key_width': 3},
      'of_weights': {'query_width': 4, 'key_width': 3, 'weights': True},
    },
  ),
  'gated_t5': Record(
    gated_t5,
    lambda d, h: (h.get('buckets', 32) * d.heads, 8 * (d.model_dim // d.heads + 1) + d.heads),
    variants={'bidirectional': {'buckets': 8, 'max_distance': 9, 'bidirectional': True}},
  ),
  'row_gates': Record(
    row_gates,
    lambda d, h: (0, 2 * d.model_dim * d.heads * h.get('width', 8)),
    variants={'narrow': {'width': 3, 'factor': 0.4}},
  ),
  'compact_relative': Record(
    compact_relative,
    lambda d, h: (0, d.heads * h.get('query_width', 4) * (d.model_dim + 1 + h.get('width', 48))),
    variants={'small': {'width': 6, 'query_width': 3, 'length_factor': 2.0}},
  ),
  'pape': Record(
    pape,
    lambda d, h: (0, d.heads * h.get('parabolas', 50) * (h.get('axes', 1) + 2 * d.model_dim)),
    hyper={'parabolas': 2},  # of 50 no key but the query's own would have weight
    variants={'plane': {'parabolas': 3, 'axes': 2}},
  ),
  'pape_ri': Record(
    pape_ri, lambda d, h: (0, d.model_dim * d.heads), variants={'plane': {'axes': 2, 'seed': 1}}
  ),
  'group_bias': Record(group_bias, lambda d, h: (0, 2 * d.heads), variants={'alone': {'axes': 1}}),
  'swin': Record(
    swin,
    lambda d, h: (0, d.heads * math.prod(2 * n - 1 for n in h.get('sizes', (7, 7)))),
    variants={'row': {'sizes': (5,)}, 'video': {'sizes': (3, 1, 9)}},
  ),
  'swin_v2': Record(
    swin_v2,
    lambda d, h: (0, h.get('hidden', 512) * (len(h.get('sizes', (8, 8))) + 1 + d.heads)),
    hyper={'hidden': 6},  # of 512 that tests move away from 0 no bias would differ from 0 or 16
    variants={'video': {'hidden': 3, 'sizes': (3, 2, 9)}},
  ),
  'spiral_rope': Record(
    spiral_rope, variants={'fast': {'base': 10.0, 'scale': 1.5, 'layout': 'interleaved'}}
  ),
  'ultravico': Record(
    ultravico, hyper={'window': 3, 'alpha': 0.3}, variants={'none': {'window': 0, 'alpha': 0.0}}
  ),
  'screening': Record(
    screening,
    lambda d, h: (0, d.heads + d.kv_heads),
    variants={'low': {'threshold': 12.0}, 'open': {'threshold': 2000.0, 'open_windows': True}},
  ),
  'relu': Record(relu_attention, variants={'root': {'alpha': 0.5}, 'fixed': {'length': 5}}),
}


def attention_layer(oracle, weights, x_BSD, positions_BS, mask_BTS, softcap=None, with_lse=False):
  """One layer of attention, float64 [B, T, heads, K]: input + position, projections to q, k and v,
  weights by pairs; `heads` are H times `heads_out_per_head`.

  weights: q [D, H, K], k and v [D, G, K]; the queries are the last T of the S tokens. A query that
  sees no key gets 0. If `with_lse`, the last channel is the log of the sum of exp(score).
  """
  (B, S, _), (_, T, _) = x_BSD.shape, mask_BTS.shape
  _, H, K = weights['q'].shape
  group = H // weights['k'].shape[1]
  several = oracle.heads_out_per_head
  H, group = H * several, group * several
  o_BTHK = np.zeros((B, T, H, K))
  lse_BTH = np.full((B, T, H), -np.inf)
  is_of_values = all(
    getattr(oracle, name) is getattr(Oracle, name) for name in ('value', 'move', 'convey')
  )
  for b in range(B):
    position = np.broadcast_to(positions_BS, (B, *positions_BS.shape[1:]))[b].tolist()
    y_SD = np.stack([x_BSD[b, s] + oracle.position(position[s]) for s in range(S)])
    token_Sn = oracle.tokens(y_SD, position)
    starts = {s for s in range(S) if s == 0 or position[s] <= position[s - 1]}
    rows = []
    q_SHK, k_SGK, v_SGK = (np.einsum('sd,dhk->shk', y_SD, weights[n]) for n in 'qkv')
    k_SGK, v_SGK = (
      oracle.mix(y, y_SD, position, n) for n, y in zip('kv', (k_SGK, v_SGK), strict=True)
    )
    q_SHK, k_SGK = oracle.bend(q_SHK), oracle.bend(k_SGK)
    for t in range(T):
      i = S - T + t
      seen = [s for s in range(S) if mask_BTS[b, t, s]]
      s_HS = np.zeros((H, len(seen)))
      for h in range(H if seen else 0):
        q = oracle.temper(len(seen), h, token_Sn[i]) * q_SHK[i, h // several]
        q = oracle.requery(q, len(seen), h)
        k_SK = k_SGK[:, h // group]
        s_HS[h] = [
          oracle.score(q, k_SK[s], position[i], position[s], h)
          + oracle.pair(q, k_SK[s], token_Sn[i], token_Sn[s], len(seen), h)
          for s in seen
        ]
        if seen and oracle.along is not Oracle.along:
          between = np.arange(seen[0], max(i, seen[-1]) + 1)
          is_seen = np.isin(between, seen)
          s_HS[h] += oracle.along(q, k_SK[between], token_Sn[between], h, is_seen)[is_seen]
      if seen:
        s_HS = oracle.across(s_HS, position[i], [position[s] for s in seen], seen)
      rows.append((i, seen, s_HS))
    weighted = []
    for t, (i, seen, s_HS) in enumerate(oracle.among(rows, starts)):
      if not seen:
        weighted.append((i, seen, s_HS))
        continue
      if softcap:
        s_HS = softcap * np.tanh(s_HS / softcap)
      p_HS = np.zeros_like(s_HS)
      for h in range(H):
        s_S = s_HS[h]
        if oracle.sink:
          s_S = np.append(s_S, oracle.sink(q_SHK[i, h // several], position[i], h))
        if s_S.max() != -math.inf:  # else the encoding hides what the mask shows
          p_HS[h] = oracle.weights(s_S)[: len(seen)]
        if with_lse:
          lse_BTH[b, t, h] = np.log(np.exp(s_S).sum())
      weighted.append((i, seen, oracle.blend(p_HS)))
    for t, (i, seen, p_HS) in enumerate(oracle.spread(weighted, starts)):
      for h, p_S in enumerate(p_HS):
        if is_of_values:
          o_BTHK[b, t, h] = p_S @ v_SGK[seen, h // group]
        else:
          for p, s in zip(p_S, seen, strict=True):
            v = oracle.move(v_SGK[s, h // group], position[i], position[s], h)
            v = oracle.convey(v, token_Sn[i], token_Sn[s], h)
            o_BTHK[b, t, h] += p * (v + oracle.value(position[i], position[s], h))
        o_BTHK[b, t, h] = oracle.leave(o_BTHK[b, t, h], v_SGK[i, h // group], h)
  return np.concatenate([o_BTHK, lse_BTH[..., None]], axis=3) if with_lse else o_BTHK
