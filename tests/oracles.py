"""Every encoding again as float64 loops over pairs, written from the formula and sharing nothing with the library.

An oracle is a function (dims, hyper, parameters) -> Oracle; parameters are the encoding's, as NumPy arrays.
"""

import dataclasses
import math

import numpy as np


def softmax(s_S):
  p_S = np.exp(s_S - s_S.max())
  return p_S / p_S.sum()


@dataclasses.dataclass
class Oracle:
  """What a formula says: score(q_i, k_j, i, j, h), and what is added to the input at i and to the value v_j.

  Where a pair needs the tokens between: along(q_i, k_nK, x_nD, h) is added to the scores of the n keys that i sees, in
  order; the last is i itself. x is the input of the layer.
  """

  score: callable
  position: callable = lambda t: 0.0  # added to the input of the layer
  value: callable = lambda i, j, h: 0.0  # added to v_j
  along: callable = lambda q, k_nK, x_nD, h: 0.0
  weights: callable = softmax  # of the scores of a row


def dot(K):
  return lambda q, k, i, j, h: q @ k / math.sqrt(K)


def nope(dims, hyper, p):
  return Oracle(dot(dims.head_dim))


def learned(dims, hyper, p):
  return Oracle(dot(dims.head_dim), position=lambda t: math.sqrt(dims.model_dim) * p['rows'][t])


def wave(t, D, layout='interleaved', base=10_000.0):
  half = D // 2
  out = np.zeros(D)
  for m in range(half):
    angle = t * (base ** (-m / (half - 1)) if layout == 'tensor2tensor' else base ** (-2 * m / D))
    where = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, half + m)
    out[where[0]], out[where[1]] = math.sin(angle), math.cos(angle)
  return out


def sinusoidal(dims, hyper, p):
  return Oracle(dot(dims.head_dim), position=lambda t: wave(t, dims.model_dim, **hyper))


def shaw(dims, hyper, p):
  clip, values = hyper.get('clip', 16), hyper.get('values', True)
  index = lambda i, j: int(min(max(j - i, -clip), clip)) + clip
  return Oracle(
    lambda q, k, i, j, h: q @ (k + p['keys'][index(i, j)]) / math.sqrt(dims.head_dim),
    value=lambda i, j, h: p['values'][index(i, j)] if values else 0.0,
  )


def transformer_xl(dims, hyper, p):
  most = hyper.get('clamp_length') or math.inf

  def score(q, k, i, j, h):
    r = wave(max(-most, min(i - j, most)), dims.model_dim, 'concatenated') @ p['w_r'][:, h]
    return ((q + p['u'][h]) @ k + (q + p['v'][h]) @ r) / math.sqrt(dims.head_dim)

  return Oracle(score)


def t5(dims, hyper, p):
  buckets, most = hyper.get('buckets', 32), hyper.get('max_distance', 128)

  def bucket(i, j):
    side, base = buckets, 0
    n = max(i - j, 0)
    if hyper.get('bidirectional', False):
      side, n = buckets // 2, abs(i - j)
      base = side if j > i else 0
    e = side // 2
    # The small excess keeps exact powers on the upper side of the floor; tests compare with published bucket starts.
    big = n if n < e else min(e + math.floor(math.log(n / e) / math.log(most / e) * (side - e) + 1e-9), side - 1)
    return base + big

  return Oracle(lambda q, k, i, j, h: q @ k + math.sqrt(dims.head_dim) * p['bias'][bucket(i, j), h])


def deberta(dims, hyper, p):
  span = hyper.get('span') or dims.train_length
  c2p, p2c = hyper.get('c2p', True), hyper.get('p2c', True)

  def score(q, k, i, j, h):
    row = math.sqrt(dims.model_dim) * p['rows'][min(max(i - j + span, 0), 2 * span - 1)]
    s = q @ k
    s += q @ (row @ p['w_k'][:, h]) if c2p else 0
    s += k @ (row @ p['w_q'][:, h]) if p2c else 0
    return s / math.sqrt((1 + c2p + p2c) * dims.head_dim)

  return Oracle(score)


def rotation_matrix(t, K, width, layout, base):
  """RoPE as the paper writes it (eq. 15): a block-diagonal matrix of 2 x 2 rotations."""
  matrix = np.eye(K)
  for m in range(width // 2):
    a, b = (2 * m, 2 * m + 1) if layout == 'interleaved' else (m, m + width // 2)
    angle = t * base ** (-2 * m / width)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
  return matrix


def rope(dims, hyper, p):
  K = dims.head_dim
  turn = lambda t: rotation_matrix(
    t, K, round(hyper.get('fraction', 1.0) * K), hyper.get('layout', 'half'), hyper.get('base', 10_000.0)
  )
  return Oracle(lambda q, k, i, j, h: (turn(i) @ q) @ (turn(j) @ k) / math.sqrt(K))


def alibi(dims, hyper, p):
  H = dims.heads
  power = 2 ** int(math.log2(H))
  fixed = [2 ** (-8 * h / power) for h in range(1, power + 1)]
  fixed += [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power, 2)][: H - power]
  slope = p['slopes'] if hyper.get('learned', False) else fixed
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) - slope[h] * abs(i - j))


def kerple_log(dims, hyper, p):
  positive = (lambda x: math.log(1 + math.exp(x))) if hyper.get('positivity') == 'softplus' else (lambda x: x)
  bias = lambda r, h: -positive(p['p'][h]) * math.log(1 + positive(p['a'][h]) * r)
  return Oracle(lambda q, k, i, j, h: q @ k / math.sqrt(dims.head_dim) + bias(abs(i - j), h))


def sandwich(dims, hyper, p):
  d = hyper.get('width', 128)

  def bias(r, h):
    return (sum(math.cos(r / 10_000 ** (2 * m / d)) for m in range(1, d // 2 + 1)) - d / 2) / (8 * (h + 1) / dims.heads)

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
  def along(q, k_nK, x_nD, h):
    gates = [sigmoid(x @ p['w_f'][:, h] + p['b_f'][h]) for x in x_nD]
    return np.array([math.log(math.prod(gates[j + 1 :])) for j in range(len(gates))])

  return Oracle(dot(dims.head_dim), along=along)


def cope(dims, hyper, p):
  e = p['rows']

  def along(q, k_nK, x_nD, h):
    gates = [sigmoid(q @ k / math.sqrt(dims.head_dim)) for k in k_nK]
    bias = []
    for j in range(len(gates)):
      count = min(sum(gates[j:]), hyper.get('positions', 64) - 1)
      low, high = math.floor(count), math.ceil(count)
      w = count - low
      bias.append((1 - w) * q @ e[low] + w * q @ e[high])
    return np.array(bias)

  return Oracle(dot(dims.head_dim), along=along)


def stick_breaking(dims, hyper, p):
  def weights(z_S):
    b = [sigmoid(z) for z in z_S[:-1]]
    return np.array([b[j] * math.prod(1 - b[l] for l in range(j + 1, len(b))) for j in range(len(b))] + [0.0])

  return Oracle(dot(dims.head_dim), weights=weights)


ORACLES = {
  f.__name__: f
  for f in (
    *(nope, learned, sinusoidal, shaw, transformer_xl, t5, deberta, rope, alibi),
    *(kerple_log, sandwich, fire, fox, cope, stick_breaking),
  )
}


def attention_layer(oracle, weights, x_BSD, positions_BS, mask_BTS):
  """One layer of attention, float64 [B, T, H, K]: input + position, projections to q, k and v, weights by pairs.

  weights: w_q [D, H, K], w_k and w_v [D, G, K]; the queries are the last T of the S tokens.
  """
  (B, S, _), (_, T, _) = x_BSD.shape, mask_BTS.shape
  _, H, K = weights['q'].shape
  group = H // weights['k'].shape[1]
  o_BTHK = np.zeros((B, T, H, K))
  for b in range(B):
    position = [int(t) for t in positions_BS[b]]
    y_SD = np.stack([x_BSD[b, s] + oracle.position(position[s]) for s in range(S)])
    q_SHK, k_SGK, v_SGK = (np.einsum('sd,dhk->shk', y_SD, weights[n]) for n in 'qkv')
    for t in range(T):
      i = S - T + t
      for h in range(H):
        seen = [s for s in range(S) if mask_BTS[b, t, s]]
        s_S = np.array([oracle.score(q_SHK[i, h], k_SGK[s, h // group], position[i], position[s], h) for s in seen])
        s_S += oracle.along(q_SHK[i, h], k_SGK[seen, h // group], y_SD[seen], h)
        for p, s in zip(oracle.weights(s_S), seen, strict=True):
          o_BTHK[b, t, h] += p * (v_SGK[s, h // group] + oracle.value(position[i], position[s], h))
  return o_BTHK
