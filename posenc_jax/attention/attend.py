"""The one door to attention: a call is checked, completed and given to a backend that serves it.

choice.py: which backend serves, and when which is faster. tiled/passes.py: why memory is O(T).
xla_ops.py of the package: why tiles are fast on a CPU.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from posenc_jax.attention.arguments import check_arrays
from posenc_jax.attention.choice import BACKENDS, check_backend, resolve_backend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request, known_max_position_distance
from posenc_jax.encodings import Encoding
from posenc_jax.encodings.core.base import LOWEST_SEEN
from posenc_jax.xla_ops import vary, varying_axes

Array = jax.Array | np.ndarray  # what attention takes; it returns those of jax


@overload
def attend(
  q_BTHK: Array,
  k_BSGK: Array,
  v_BSGK: Array,
  enc: Encoding,
  *,
  x: Array | None = None,
  position_ids: Array | None = None,
  segment_ids: Array | None = None,
  is_causal: bool = True,
  window: int | None = None,
  chunk: int | None = None,
  sink_tokens: int = 0,
  prefix: int = 0,
  mask: Callable | Array | None = None,
  mask_ids: Array | None = None,
  bias: Array | None = None,
  softcap: float | None = None,
  backend: str = 'auto',
  block_sizes: tuple[int, int] | None = None,
  max_position_distance: int | None = None,
  outer_hooks_applied: bool = False,
  return_logsumexp: Literal[False] = False,
) -> jax.Array: ...


@overload
def attend(
  q_BTHK: Array,
  k_BSGK: Array,
  v_BSGK: Array,
  enc: Encoding,
  *,
  x: Array | None = None,
  position_ids: Array | None = None,
  segment_ids: Array | None = None,
  is_causal: bool = True,
  window: int | None = None,
  chunk: int | None = None,
  sink_tokens: int = 0,
  prefix: int = 0,
  mask: Callable | Array | None = None,
  mask_ids: Array | None = None,
  bias: Array | None = None,
  softcap: float | None = None,
  backend: str = 'auto',
  block_sizes: tuple[int, int] | None = None,
  max_position_distance: int | None = None,
  outer_hooks_applied: bool = False,
  return_logsumexp: Literal[True],
) -> tuple[jax.Array, jax.Array]: ...


@overload
def attend(
  q_BTHK: Array,
  k_BSGK: Array,
  v_BSGK: Array,
  enc: Encoding,
  *,
  x: Array | None = None,
  position_ids: Array | None = None,
  segment_ids: Array | None = None,
  is_causal: bool = True,
  window: int | None = None,
  chunk: int | None = None,
  sink_tokens: int = 0,
  prefix: int = 0,
  mask: Callable | Array | None = None,
  mask_ids: Array | None = None,
  bias: Array | None = None,
  softcap: float | None = None,
  backend: str = 'auto',
  block_sizes: tuple[int, int] | None = None,
  max_position_distance: int | None = None,
  outer_hooks_applied: bool = False,
  return_logsumexp: bool,
) -> jax.Array | tuple[jax.Array, jax.Array]: ...


def attend(
  q_BTHK: Array,
  k_BSGK: Array,
  v_BSGK: Array,
  enc: Encoding,
  *,
  x: Array | None = None,
  position_ids: Array | None = None,
  segment_ids: Array | None = None,
  is_causal: bool = True,
  window: int | None = None,
  chunk: int | None = None,
  sink_tokens: int = 0,
  prefix: int = 0,
  mask: Callable | Array | None = None,
  mask_ids: Array | None = None,
  bias: Array | None = None,
  softcap: float | None = None,
  backend: str = 'auto',
  block_sizes: tuple[int, int] | None = None,
  max_position_distance: int | None = None,
  outer_hooks_applied: bool = False,
  return_logsumexp: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
  """Attention under a position encoding: returns o [B, T, H, width of v] in the dtype of v. Where
  `enc.heads_out_per_head` is n > 1 (RoPE++), o has n H heads. This is causal attention with RoPE:

    sizes = dict(model_dim=256, heads=8, head_dim=32, train_length=512)
    o = jax.jit(attend)(q, k, v, make('rope', **sizes, rngs=nnx.Rngs(0)))

  Options are keywords: `jax.jit(functools.partial(attend, window=256))`.

  Sizes are B sequences, T queries, S keys, H heads, G heads of keys and values, K channels a head,
  D channels of the model; `B|1` is B, or 1 for all sequences alike. The queries are the last T of
  the S keys (T = 1 decodes), all S of them where the encoding `needs_all_queries`; x, position_ids
  and segment_ids are given for all S keys.

  Call it under `jax.jit`, with every argument static that is neither an array nor the encoding:
  outside, each call compiles its loops anew. Sums are float32, whatever the dtype of the arrays.
  Products of float32 have the precision of `jax.default_matmul_precision` around the call, in their
  gradients, too, and on accelerators fewer digits by default; those of an encoding whose errors
  would grow with the distance or with the number of keys have all digits at any precision.
  There is no forward-mode differentiation, and no second derivative but by `dense`. The factor of
  q . k is `enc.scale(K)`, 1 / sqrt(K) of most encodings: for another one, multiply queries by that
  factor / enc.scale(K), unless `enc.needs_unscaled_queries` or `enc.nonlinear_in_queries`; of what
  is added to scores, only products with queries (`relative_keys`) change their size with these.

  What an encoding does outside attention is the caller's: `add_to_input` at the first layer;
  `sample_positions` or `positions_of_tokens`, and `initial_state`, once a forward pass; in every
  layer `query_scale` on projected queries, `enter_attention` before the call, `leave_attention`
  behind it and `leave_mlp` behind the MLP; `constrain_parameters` after a step of the optimizer.

  Args:
    q_BTHK, k_BSGK, v_BSGK: queries, keys and values; H is a multiple of G. Values may be wider or
      narrower than keys.
    enc: an encoding from `posenc_jax.make`.
    x: the layer's normalized input [B, S, D], for encodings that read content.
    position_ids: integers [B|1, S]; floats of 32 bits, or [B|1, S, n], or [B|1, S, G] for each head
      of keys and values, where the encoding declares that it takes them (`position_kind`,
      `positions_per_token`, `takes_positions_per_head`); None: 0, 1, 2, ... within each segment,
      which takes less time and memory than the same numbers given, and more kernels serve.
      Integers of any dtype, but values that int32 does not hold, or 2^31 or more apart, are
      refused; not as arguments of a compiled function, where they wrap. Floats of 64 bits become
      float32: where two tokens in a row would no longer differ, as of times in seconds since 1970,
      they are refused, where jax has not rounded them before.
      They are data: no gradient reaches them. Coordinates are float32, in which whole numbers are
      exact up to 2^24. Where `position_kind` is None, they are not read, and nothing says so: such
      an encoding knows the order of tokens at most.
    segment_ids: integers [B|1, S]; a run of equal ids is a segment, and queries see the keys of
      their own segment only (packing).
    is_causal: whether keys to the right are hidden: by index, whatever positions are. By position:
      is_causal=False with mask=lambda i, j, a, b: b <= a and positions as `mask_ids`; what is
      `causal_only` refuses that, so sort its tokens by position before.
    window: how many tokens a query sees, itself included, counted by index; None: all. Without a
      causal mask it sees window - 1 tokens on either side: a span of 128 tokens around a query, 64
      on either side, as released encoders count it, is a window of 65.
    chunk: how many tokens a chunk has, counted by index from the start of each segment; a query
      sees its own chunk only (Llama 4); None: all.
    sink_tokens: so many tokens at the start of each segment are visible whatever `window` and
      `chunk` are (StreamingLLM).
    prefix: the first `prefix` tokens of each segment are visible to all its queries, also to
      earlier ones, within the window and the chunk (prefix LM).
    mask: a further condition, the same for all heads: a key is seen if this and every argument
      above allow it, `is_causal`, which holds unless told otherwise, among them. Either a function,
      mask(i, j) -> bool, elementwise: i [B|1, T, 1] and j [B|1, 1, S] are the indices of queries
      and keys, int32, counted from the start of their segment; what it reads of tokens beside
      that, `mask_ids` gives. Backends with tiles give it those of a tile, and leave no tile out for
      it; it may read no traced array.
      Under jax.jit it is static: one that is defined anew for each call is compiled anew with each.
      Or an array, bool [B|1, T, S], True where a query sees a key, which `dense` alone takes: on a
      mesh that cuts sequences, each device then has all keys. A query that sees no key gets 0.
      It hides keys, and nothing else: kv_shift, key_offset, path and selective_rope read the token
      before, hidden or not; the latter two, fox, cable, wall, carope and grape_m_context sum over
      all tokens between a key and its query; cope, stick_breaking, grape_ap and row_gates sum over
      visible ones. docs/attend.md has all ("What a mask does not hide").
      Encodings that count visible keys (`needs_num_visible`; not relu with a `length` or
      with alpha=0) take an array alone. None: no such mask.
    mask_ids: integers [B|1, S], one a token, where masks differ from sequence to sequence: `mask`
      is then a function of four, mask(i, j, a, b), a [B|1, T, 1] those of queries and b [B|1, 1, S]
      those of keys. None: of two.
    bias: floats [B|1, heads of o|1, T|1, S|1], which are added to scores behind what the encoding
      and `softcap` do to them, before weights are made of them. -inf hides a key, which encodings
      that count visible keys still count. It has a gradient. `dense` alone takes it, as a `mask`
      that is an array.
    softcap: c: scores s become c tanh(s / c), all that the encoding does to them included, before
      the mask and softmax (Gemma 2); a sink stays as it is, and keys that a `score` hides (MASKED
      or -inf) stay hidden. None: scores as they are.
    backend: a key of BACKENDS, or 'auto' for the fastest that accepts. Memory is O(T), beside a
      `mask` and a `bias` that are arrays, but for encodings that need all queries; in `dense` on a
      mesh that cuts sequences; and under a gradient, in `diagonals` and `fused`, for each value
      that an encoding carries along the keys (`scans_keys`): T x S / (keys of a tile) numbers a
      head and sequence.
    block_sizes: (queries, keys) of a tile of `blockwise`, `diagonals` (two equal ones), `fused`,
      `triton` and `ring`; None: their choice. `cudnn` and `splash` refuse them, and `dense` has no
      tiles. Memory of a bias by distance, in `blockwise`, `diagonals`, `triton` and `ring`: S x
      (the longer side of a tile) numbers a head where one side divides the other, else up to (the
      shorter side) times that; S + T in the place of S without a causal mask; without sink tokens,
      each of these is at most the window or the chunk and two tiles.
      Memory of scores in `diagonals`: T x (keys of a tile) numbers a head and sequence.
    max_position_distance: with explicit positions under tracing, the largest difference of two
      positions, which is the length of per-distance tables; None for tables that end by themselves
      (`max_relative_distance`). A distance beyond the tables gives NaN. Where terms are vectors
      (shaw, transformer_xl), each tile multiplies its queries with those of all distances of the
      tables: time grows with T x S x (that length), divided by the keys of a tile.
    outer_hooks_applied: says that the caller has applied all of `add_to_input`, `initial_state`,
      `enter_attention`, `leave_attention`, `leave_mlp`, `sample_positions` and
      `positions_of_tokens` that the encoding has; without it, an encoding that has one is refused,
      since attention alone would lose it. Of `query_scale` and `constrain_parameters` nothing is
      asked.
    return_logsumexp: returns (o, lse), lse float32 [B, T, heads of o]: the logarithm of the sum of
      exp(score) over the keys that a query sees, of the scores as softmax sees them, a sink
      included; -inf where it sees none. Both have gradients. From o and lse of two disjoint parts a
      and b of the keys follow those of both, also for a query that sees no key of either:

        lse = jnp.logaddexp(lse_a, lse_b)
        most = jnp.where(lse > -jnp.inf, lse, 0.0)[..., None]
        o = jnp.exp(lse_a[..., None] - most) * o_a + jnp.exp(lse_b[..., None] - most) * o_b

      More parts are merged one after another. This does not hold where a score depends on which
      other keys are seen, nor with a sink, which each part would count. `cudnn`, `splash` and
      `ring` refuse it: on a mesh that cuts sequences, `auto` gathers all keys on each device.

  Raises:
    NotImplementedError: the named backend refuses, with its reason.
    ValueError: a shape is wrong or an argument out of range. LengthError: positions beyond a table.
  """
  check_backend(backend)
  is_array = isinstance(mask, jax.Array | np.ndarray)
  array_mask_BTS, function = (mask, None) if is_array else (None, mask)
  others = dict(x=x, position_ids=position_ids, segment_ids=segment_ids)
  others |= dict(mask_ids=mask_ids, array_mask_BTS=array_mask_BTS, bias_BHTS=bias)
  arrays = q_BTHK, k_BSGK, v_BSGK, enc, others
  check_arrays(q_BTHK, k_BSGK, v_BSGK, enc, **others)
  if max_position_distance is None:  # as a mesh or a jax.shard_map is met, constants are traced
    max_position_distance = known_max_position_distance(enc, position_ids)
  attention = functools.partial(
    _attend,
    backend=backend,
    mask=Mask(is_causal, window, chunk, sink_tokens, prefix, function),
    softcap=softcap,
    block_sizes=block_sizes,
    max_position_distance=max_position_distance,
    outer_hooks_applied=outer_hooks_applied,
    wants_lse=return_logsumexp,
  )
  sharding = jax.typeof(q_BTHK).sharding
  if explicit := sharding.mesh.explicit_axes:  # those of a mesh from jax.make_mesh, by default
    # The compiler cuts what is in between; what comes out is cut as queries are.
    out_sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:3]))
    out_sharding = (out_sharding, out_sharding) if return_logsumexp else out_sharding
    attention = jax.sharding.auto_axes(attention, axes=explicit, out_sharding=out_sharding)
  return attention(*arrays)


def _attend(q_BTHK, k_BSGK, v_BSGK, enc, others: dict, *, backend: str, **options):
  arrays = q_BTHK, k_BSGK, v_BSGK, enc, others
  # In a jax.shard_map gradients of what all devices share are summed where it begins to differ.
  q_BTHK, k_BSGK, v_BSGK, enc, others = vary(arrays, varying_axes(arrays))
  # Terms of parameters in half precision would be added up in it, and so would their gradients.
  enc = jax.tree.map(_in_float32, enc)
  request = build_request(q_BTHK, k_BSGK, v_BSGK, enc, **others, **options)
  i, x = request.i, others['x']
  # Tiles and rings would carry what no pair reads, and add up gradients of 0.
  request = dataclasses.replace(request, i=enc.of_pairs(i), j=enc.of_pairs(request.j))
  o_BTHK = BACKENDS[resolve_backend(request, backend)].run(request)
  if request.wants_lse:
    o_BTHK, lse_BTH = o_BTHK
  o_BTHK = enc.meet_own_values(o_BTHK, request.v_BSGK[:, request.offset :])
  x_BTD = None if x is None else x[:, request.offset :]
  o_BTHK = enc.transform_output(o_BTHK, i, x_BTD).astype(v_BSGK.dtype)
  if request.wants_lse:
    return o_BTHK, jnp.where(lse_BTH > LOWEST_SEEN, lse_BTH, -jnp.inf)
  return o_BTHK


def _in_float32(p):
  return p.astype(jnp.float32) if jnp.issubdtype(p.dtype, jnp.floating) else p
