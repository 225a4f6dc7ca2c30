"""What a tile reads in a kernel: the arrays of a request and what goes with them, by their cut."""

import jax

from posenc_jax.attention.kernels.program import TileProgram


def inputs_of(arrays: dict, ids: dict, per_row=(), carries=()) -> dict:
  """All that a tile reads, by how it is cut.

  Args:
    arrays: 'whole', the encoding; 'row', 'column' and 'diagonal', pytrees of [number, B|1, ...].
    ids: those of 'row' and 'column'.
    per_row, carries: what the backward pass reads of rows, and of the tiles of the forward pass.
  """
  return {
    'whole': arrays['whole'],
    'row': (arrays['row'], ids['row'], per_row),
    'column': (arrays['column'], ids['column']),
    'diagonal': arrays['diagonal'],
    'visit': carries,
  }


def arrays_and_ids(inputs: dict):
  """The parts of the inputs that have gradients, and the ids."""
  (row, row_ids, _), (column, column_ids) = inputs['row'], inputs['column']
  parts = {name: inputs[name] for name in ('whole', 'diagonal')}
  return {**parts, 'row': row, 'column': column}, {'row': row_ids, 'column': column_ids}


def with_leaves(tree, numbers: list[int], chosen) -> object:
  """The pytree with these leaves in the place of those with the given numbers."""
  leaves, structure = jax.tree.flatten(tree)
  for n, x in zip(numbers, chosen, strict=True):
    leaves[n] = x
  return jax.tree.unflatten(structure, leaves)


def reads_of_arrays(program: TileProgram, inputs: dict) -> list[bool]:
  """Which leaves of the arrays a program for these inputs reads."""
  of_inputs = jax.tree.unflatten(jax.tree.structure(inputs), program.reads)
  return jax.tree.leaves(arrays_and_ids(of_inputs)[0])
