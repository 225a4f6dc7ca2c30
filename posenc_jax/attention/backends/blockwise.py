"""Attention block by block: O(T) memory forward and backward, for every encoding, at any length
(see `walks`).
"""

import functools

import jax

from posenc_jax.attention.request import Call
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.schedule import Part, Plan, cut, join, like, zeros


def refuse(call: Call) -> str | None:
  """Takes everything."""
  del call


def run(call: Call):
  """o_BTHK in float32."""
  plan = Plan.of(call)
  floats, ints = cut(plan, call)
  floats['tables'] = Part.all(plan).tables(call.enc)
  return join(_attention(plan, floats, ints))[:, : plan.grid.T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(plan: Plan, floats, ints):
  return _forward(plan, floats, ints)[0]


def _forward(plan: Plan, floats, ints):
  finish = functools.partial(passes.normalized, floats['enc'])
  o, lse = passes.forward(Part.all(plan), floats, floats['tables'], ints, finish=finish)
  return o, (floats, ints, o, lse)


def _backward(plan: Plan, residuals, do):
  floats, ints, o, lse = residuals
  per_row = passes.cotangents(floats['enc'], o, do, lse)
  totals = zeros((floats['enc'], floats['columns'], floats['tables']))
  totals, d_rows, _ = passes.backward(
    Part.all(plan), floats, floats['tables'], ints, per_row, totals
  )
  gradients = dict(zip(('enc', 'columns', 'tables'), totals, strict=True), rows=d_rows)
  return like(gradients, floats), None


_attention.defvjp(_forward, _backward)
