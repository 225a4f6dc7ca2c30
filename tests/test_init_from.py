"""Parameters that a training starts from, of a run that had another encoding or code."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from posenc_jax import config
from posenc_jax.config import BASE
from posenc_jax.encodings import ENCODINGS, Encoding, hyperparameters
from posenc_jax.encodings.core.registry import BUILT_IN, make_from_spec
from posenc_jax.errors import UserError
from posenc_jax.evaluation.runs import parameters_of
from posenc_jax.model import decoder
from posenc_jax.training import built_in
from posenc_jax.training.built_in import built_in_values
from posenc_jax.training.checkpoints import Checkpoints, leaves_by_path
from posenc_jax.training.init_from import finished_parameters, moved
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.provenance import MadeOf, claim
from posenc_jax.training.run_dir import claim_run_dir

SIZES = {'layers': 2, 'model_dim': 8, 'heads': 2, 'head_dim': 4, 'mlp_dim': 8}
SETTINGS = {f'model.{field}': size for field, size in SIZES.items()} | {'train.length': 8}
VOCAB = 5


def made(encoding, number):
  """A config with an encoding, and its model, in which every parameter is `number`."""
  c = config.load(BASE, SETTINGS | {'encoding': encoding})
  model = decoder.shapes(c, VOCAB)
  return c, jax.tree.map(lambda x: jnp.full(x.shape, number, x.dtype), model)


def finished(workdir, encoding):
  """The directory of a run that has ended, in which every parameter is 1."""
  c, model = made(encoding, 1)
  claim_run_dir(workdir, c)
  claim(workdir, MadeOf(None, code=user_code_hashes(c), built_in=built_in_values(c)), begins=True)
  with Checkpoints(workdir, max_to_keep=1) as checkpoints:
    checkpoints.save(c.train.steps, model, {'count': jnp.array(0)})
  return workdir


def started(workdir, encoding):
  """{path: whether it is of the run in `workdir`} of the encoding's parameters of a model."""
  c, model = made(encoding, 0)
  draw = lambda paths: {path: leaves_by_path(model)[path] for path in paths}
  leaves = leaves_by_path(finished_parameters(workdir, model, c, draw))
  assert all((leaf == 1).all() for path, leaf in leaves.items() if not path.startswith('enc'))
  top = 'encodings/variants/'
  return {p.removeprefix(top): bool((x == 1).all()) for p, x in leaves.items() if p.startswith(top)}


FOX, CAROPE = {'name': 'fox'}, {'name': 'carope'}
LEARNED, TUPE = {'name': 'learned'}, {'name': 'tupe'}
LOG, POWER = {'name': 'kerple_log'}, {'name': 'kerple_power'}
ROPE_FOX, ROPE_CAROPE = ({'name': 'chain', 'members': ('nope', x)} for x in ('fox', 'carope'))
KV_FOX = {'name': 'chain', 'members': ('kv_shift', 'fox')}
RANDOM_LOG, RANDOM_POWER = (
  {'name': 'random_positions', 'inner': inner, 'longest': 64}
  for inner in ('kerple_log', {'name': 'kerple_power'})
)
PATTERN = {'name': 'pattern', 'layers': ('kerple_power', 'kerple_log')}
INNER = ('inner/p', 'inner/a')
SHIFT, GATE = ('w_k', 'w_v'), ('w_f', 'b_f')


def chain(members):
  return {'name': 'chain', 'members': members}


def members(number, names):
  return tuple(f'members/{number}/{name}' for name in names)


@pytest.mark.parametrize(
  ('there', 'here', 'kept'),
  [
    (LOG, POWER, ()),
    (LOG, LOG | {'bias_in_scale': True}, ('p', 'a')),
    (FOX, CAROPE, ()),
    (LEARNED, TUPE, ()),
    (ROPE_FOX, ROPE_CAROPE, ()),
    (ROPE_FOX, {'name': 'chain', 'members': 'ssmax,fox'}, ('members/1/w_f', 'members/1/b_f')),
    (FOX, {'name': 'chain', 'members': 'rope,fox'}, ('members/1/w_f', 'members/1/b_f')),
    (RANDOM_LOG, RANDOM_POWER, ()),
    (RANDOM_LOG, RANDOM_LOG | {'longest': 32}, INNER),
    (LOG, RANDOM_LOG, INNER),
    (RANDOM_LOG, LOG, ('p', 'a')),
    (RANDOM_LOG, {'name': 'pose', 'inner': 'kerple_log', 'longest': 64}, INNER),
    (KV_FOX, chain('ssmax,kv_shift,fox'), members(1, SHIFT) + members(2, GATE)),
    (KV_FOX, chain('fox,kv_shift'), members(0, GATE) + members(1, SHIFT)),
    # two of a name: which one is meant is not known but in its own place
    (LOG, chain('kerple_log,kerple_log'), ()),
    (chain('kerple_log,kerple_log'), LOG, ()),
  ],
)
def test_a_parameter_of_another_encoding_is_new_though_its_name_and_shape_are_the_same(
  there, here, kept, tmp_path
):
  found = started(finished(tmp_path, there), here)
  assert {path for path, is_kept in found.items() if is_kept} == {f'0/encoding/{x}' for x in kept}


AXES = {'generators': 'partition', 'block': 2, 'length': 8.0}
MEAN = {  # hyperparameters of which a parameter means something else, in the same shape
  'alibi': ({'learned': True}, {'balanced': True}),
  'cayley_string': ({}, {'scale': 8.0}),
  'compact_relative': ({}, {'length_factor': 2.0}),
  'deberta': ({'span': 8}, {'span': None, 'buckets': 8}),
  'fox': ({'both_ways': True}, {'gate': 'learned'}),
  'gated_t5': ({}, {'bidirectional': True}),
  'grape_m': ({}, {'scale': 8.0}),
  'grape_m_context': ({}, {'scale': 8.0}),
  'kerple_log': ({}, {'positivity': 'softplus'}),
  'kerple_power': ({'positivity': 'softplus'}, {'positivity': 'projection'}),
  'liere': ({'generators': 'dependent', 'block': 4}, {'generators': 'partition'}),
  'mlp_bias': ({}, {'log': True}),
  'pape_ri': ({}, {'seed': 1}),
  'shaw': ({'max_distance': 3, 'max_later': 2}, {'max_distance': 2, 'max_later': 3}),
  'swin_v2': ({}, {'sizes': [4, 4]}),
  't5': ({}, {'bidirectional': True}),
  'transformer_xl': ({}, {'features': 12}),
}


def test_what_parameters_depend_on_are_hyperparameters():
  for name in ENCODINGS:
    depend_on = ENCODINGS[name].parameters_depend_on
    assert {*depend_on} <= {*hyperparameters(name)}
    assert bool(depend_on) == (name in MEAN)


@pytest.mark.parametrize(
  ('name', 'before', 'now'),
  [*((name, *said) for name, said in MEAN.items()), ('liere', AXES, {'axes': 2})],
)
def test_parameters_that_mean_something_else_are_new(name, before, now, tmp_path, capsys):
  there = {'name': name} | before
  here = there | now
  run = finished(tmp_path, there)
  assert not any(started(run, here).values())
  said = capsys.readouterr().out
  (changed,) = {*ENCODINGS[name].parameters_depend_on} & now.keys()
  assert f'{changed!r}: {here[changed]!r}' in said
  assert ': as a new model has them' in said
  assert ': dropped' in said
  as_it_was = hyperparameters(name) | there
  assert all(started(run, as_it_was).values())


@pytest.mark.parametrize(
  ('there', 'here', 'places'),
  [
    (LOG, chain('kerple_log,logn'), {'p': 'members/0/p', 'a': 'members/0/a'}),
    (RANDOM_LOG, LOG, {'inner/p': 'p', 'inner/a': 'a'}),
    (LOG, chain('kerple_log,kerple_log'), {}),
    (LOG, POWER, {}),
  ],
)
def test_parameters_of_a_run_move_with_the_encoding_that_holds_them(there, here, places):
  (before, model), (now, _) = made(there, 1), made(here, 0)
  leaves, top = leaves_by_path(model), 'encodings/variants/0/encoding'
  expected = {f'{top}/{path}': f'{top}/{place}' for path, place in places.items()}
  found = moved({path: path for path in leaves}, before.encoding, now.encoding)
  assert found == {expected.get(path, path): path for path in leaves}


def test_of_two_parameters_that_would_come_to_one_place_neither_is_lost():
  (before, model), (now, _) = made(PATTERN, 1), made(PATTERN | {'layers': 'nope,kerple_power'}, 0)
  leaves = {path: path for path in leaves_by_path(model)}
  assert moved(leaves, before.encoding, now.encoding) == leaves


def test_layers_of_a_pattern_take_the_parameters_of_their_own_encoding(tmp_path):
  run = finished(tmp_path, PATTERN)
  assert started(run, PATTERN | {'layers': 'nope,kerple_log'}) == {
    '1/encoding/p': True,
    '1/encoding/a': True,
  }
  assert all(started(run, PATTERN | {'layers': 'kerple_log,kerple_power'}).values())
  alone = finished(tmp_path / 'alone', LOG)
  assert started(alone, PATTERN) == {
    '0/encoding/p': False,
    '0/encoding/a': False,
    '1/encoding/p': True,
    '1/encoding/a': True,
  }


def test_what_is_dropped_is_said_and_what_has_moved_is_not(tmp_path, capsys):
  started(finished(tmp_path, KV_FOX), FOX)
  said = capsys.readouterr().out
  assert f'{tmp_path} has encodings/variants/0/encoding/members/0/w_k, ' in said
  assert 'members/1' not in said


class Holding(Encoding):
  """Has an inner encoding that no hyperparameter names."""

  bias_in_scale = False

  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    self.inner = make_from_spec('kerple_log', dims, rngs)
    self.members = nnx.List([make_from_spec('kerple_power', dims, rngs)])

  def bias(self, r_R):
    return self.inner.bias(r_R) + self.members[0].bias(r_R)


class Worded(Holding):
  """Has hyperparameters of the names by which other encodings hold encodings."""

  def __init__(self, dims, rngs, *, members: int = 4, inner: dict | None = None):
    super().__init__(dims, rngs)


@pytest.mark.parametrize('inner', [None, {'scale': 2}])
def test_hyperparameters_that_hold_no_encoding_are_no_encodings(inner, tmp_path, monkeypatch):
  monkeypatch.setitem(ENCODINGS, 'worded', Worded)
  spec = {'name': 'worded', 'inner': inner}
  assert [*started(finished(tmp_path, spec), spec).values()] == [True] * 4


def test_an_own_encoding_keeps_parameters_of_what_it_holds(tmp_path, monkeypatch):
  monkeypatch.setitem(ENCODINGS, 'holding', Holding)
  run = finished(tmp_path, {'name': 'holding'})
  assert [*started(run, {'name': 'holding'}).values()] == [True] * 4


STUDY = """from posenc_jax import register
from posenc_jax.encodings.kerple import KerpleLog
class Mine(KerpleLog):
  def kernel(self, distance_R1, p_1H, a_1H):
    return 2 * super().kernel(distance_R1, p_1H, a_1H)
register('mine', Mine)
def get_config():
  pass
"""


def test_a_start_from_a_run_whose_own_encoding_was_edited_says_so(
  tmp_path, request, capsys, monkeypatch
):
  study = tmp_path / 'study.py'
  study.write_text(STUDY)
  request.addfinalizer(lambda: ENCODINGS.pop('mine', None))
  config.load_study(study)
  run = finished(tmp_path / 'run', {'name': 'mine'})
  assert all(started(run, {'name': 'mine'}).values())
  assert 'code' not in capsys.readouterr().out
  study.write_text(STUDY.replace('2 *', '3 *'))
  config.load_study(study)
  assert all(started(run, {'name': 'mine'}).values())
  said = capsys.readouterr().out
  assert said.startswith(f"{run} has code of mine='")
  assert said.count(' (here ') == 1
  with monkeypatch.context() as patch:  # as if a later version had one of that name
    patch.setitem(BUILT_IN, 'mine', 'kerple.KerpleLog')
    with pytest.raises(
      UserError, match="'mine' was your own when its run began, and is posenc_jax"
    ):
      built_in.check_built_in(run, made({'name': 'mine'}, 0)[0])
    built_in.check_built_in(run, made({'name': 'rope'}, 0)[0])
    started(run, {'name': 'mine'})
  assert re.match(f"{run} has code of mine='.*' \\(here None\\)", capsys.readouterr().out)
  ENCODINGS.pop('mine')
  started(run, {'name': 'nope'})  # where the study is not known that registers it


def test_a_start_from_a_run_of_another_default_says_so(tmp_path, capsys, monkeypatch):
  run = finished(tmp_path, {'name': 'rope', 'fraction': 0.5})
  began = hyperparameters('rope')
  monkeypatch.setattr(built_in, 'hyperparameters', lambda name: began | {'base': 5.0})
  started(run, {'name': 'rope', 'fraction': 0.5})
  assert capsys.readouterr().out == f'{run} has rope.base=10000.0 (here 5.0)\n'
  started(run, {'name': 'rope', 'fraction': 0.5, 'base': 5.0})
  assert 'rope.base' not in capsys.readouterr().out


def test_rows_of_a_run_without_training_say_whose_parameters_it_has(tmp_path):
  """Through all runs of step 0, to the one that trained them."""
  first = finished(tmp_path / 'first', FOX)
  steps = config.saved_config(first).train.steps
  of_trained = {'run': 'first', 'step': steps}
  c = config.load(BASE, SETTINGS | {'train.init_from': str(first), 'train.steps': 0})
  claim_run_dir(tmp_path / 'second', c)
  assert parameters_of(first) is None
  assert parameters_of(tmp_path / 'second') == of_trained
  for number, (start, steps, expected) in enumerate(
    (('second', 0, of_trained), ('second', 1, None), ('gone', 0, None))
  ):
    c.train.update(init_from=str(tmp_path / start), steps=steps)
    claim_run_dir(tmp_path / f'other{number}', c)
    assert parameters_of(tmp_path / f'other{number}') == expected
