import inspect

import jax
import numpy as np
import pytest
from flax import nnx
from initial_parameters import in_few_programs, in_no_program

from posenc_jax.encodings.core import parameters

# As the package has them, whether conftest.py replaced them or not.
NORMAL, UNIFORM, ZEROS = map(
  inspect.unwrap, (parameters.normal, parameters.uniform, parameters.zeros)
)
SHAPES = ((), (7,), (12, 4, 8), (33, 5), (1000, 3))


@pytest.mark.skipif(
  parameters.normal is NORMAL, reason='compiled as users do, it may round otherwise'
)
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
  ('draw', 'numbers'),
  [(NORMAL, (0.02,)), (NORMAL, (3**-0.5,)), (UNIFORM, (-0.3, 0.7)), (UNIFORM, (0.0, 1.0))],
)
def test_the_start_of_a_longer_draw_is_the_draw(draw, numbers, shape):
  """Bit by bit, of each draw from a stream."""
  ours, theirs = nnx.Rngs(3), nnx.Rngs(3)
  for _ in range(2):
    found, expected = in_few_programs(draw)(ours, shape, *numbers), draw(theirs, shape, *numbers)
    assert (type(found), found.dtype) == (type(expected), expected.dtype)
    np.testing.assert_array_equal(found[...], expected[...])
  np.testing.assert_array_equal(ours.params.count[...], theirs.params.count[...])


def test_zeros_are_zeros():
  for shape in SHAPES:
    found, expected = in_no_program(ZEROS)(*shape), ZEROS(*shape)
    assert (type(found), found.dtype) == (type(expected), expected.dtype)
    np.testing.assert_array_equal(found[...], expected[...])


def test_what_is_traced_is_as_in_the_package():
  def program(normal, uniform, zeros):
    def draws():
      rngs = nnx.Rngs(0)
      return normal(rngs, (5,), 0.1)[...], uniform(rngs, (5,), 0, 1)[...], zeros(5)[...]

    return str(jax.make_jaxpr(draws)())

  ours = in_few_programs(NORMAL), in_few_programs(UNIFORM), in_no_program(ZEROS)
  assert program(*ours) == program(NORMAL, UNIFORM, ZEROS)
