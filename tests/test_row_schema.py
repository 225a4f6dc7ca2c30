"""Rows of anyone: every field is checked when they are read, and a fault is one line."""

import gzip
import inspect
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic import by_position, needles, realistic, row, tasks

from posenc_jax import config, storage
from posenc_jax.errors import Damaged, Stopped, UserError
from posenc_jax.evaluation import task_scoring
from posenc_jax.reporting import costs, row_files
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.rows import row_schema

ROOT = Path(__file__).parent.parent
LIKELIHOOD, MEASURED = row('rope'), row('rope', metric='exact_match', value=0.5)


@pytest.mark.parametrize('name', ['classic', 'extension', 'needle', 'tasks'])
def test_the_kept_rows_have_no_fault(name):
  assert row_files.read(ROOT / 'results' / name)


def test_rows_that_are_made_here_have_no_fault():
  made = realistic(1) + tasks(1) + needles(1) + by_position(1)
  made += [row('a', overrides={'eval.k': 2}), row('a', metric='gradient', value=1.0, position=0)]
  assert {row_schema.fault(some) for some in made} == {None}


def test_every_field_of_a_row_is_described():
  """In the comment above it."""
  source = inspect.getsource(row_schema)
  for name in row_schema.FIELDS:
    assert re.search(rf"\n  # [^\n]*\n  '{name}': ", source), name
  for name in ('SOURCE', 'TOKENIZER', 'DTYPE', 'PARAMETERS'):
    assert re.search(rf'\n  # [^\n]*\n  {name}: ', source), name


def test_a_row_has_all_fields_and_no_others():
  fields = dict.fromkeys(row_schema.KEY_FIELDS.keys() - {*row_schema.NULLABLE}, 1)
  assert list(row_schema.row(**fields, status='asked')) == [*row_schema.FIELDS]
  for wrong in ({'lengths': 1}, {'ppl': 1.0}):
    with pytest.raises(TypeError, match=f'unknown fields.*{next(iter(wrong))}'):
      row_schema.row(**fields, **wrong, status='asked')
  with pytest.raises(TypeError, match=r"missing .*'seed'"):
    row_schema.row(**{name: 1 for name in fields if name != 'seed'}, status='asked')


def test_a_score_of_tokens_that_begin_no_character_is_none():
  """Bits per byte need a byte: the rest of a character of several tokens has none."""
  fields = {name: LIKELIHOOD[name] for name in row_schema.KEY_FIELDS}
  made = row_schema.row(**fields, status='ok', nats=2.0, tokens=1, bytes=0)
  assert (made['status'], made['nats'], made['bpb']) == ('no_bytes', None, None)
  assert row_schema.fault(made) is None


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'label': ['rope']}, "label=['rope'], where a text of 1 to 200 characters must be"),
    ({'seed': -1}, 'seed=-1, where a whole number from 0'),
    ({'protocol': 'by_position'}, 'position=None, where a number for the protocol by_position'),
    ({'source': 'abc'}, "source='abc', where 64 hexadecimal digits must be"),
    ({'nats': '10'}, "nats='10', where an int or a float must be"),
    ({'nats': 10**400}, 'nats=1000'),
    ({'nats': -10.0}, 'nats=-10.0, where 0 to 709 a token must be'),
    ({'tokens': 0}, 'tokens=0, where a whole number from 1'),
    ({'tokens': -10}, 'tokens=-10, where a whole number from 1'),
    ({'bytes': 2.5}, 'bytes=2.5, where a whole number'),
    ({'metric': 'a', 'value': np.float32(0.5)}, 'value=np.float32(0.5), where an int or a float'),
    ({'metric': 'exact_match', 'value': 1.5, 'nats': None}, 'value=1.5, where a share of 0 to 1'),
    ({'status': 'fine'}, "status='fine', where one of ok"),
    ({'status': 'no_weight'}, 'nats=1.0, where null, with status=no_weight'),
  ],
)
def test_a_row_that_its_reader_would_refuse_is_not_made(change, message):
  """The error comes when the row is made, and not once tables are made of its file."""
  fields = {name: LIKELIHOOD[name] for name in row_schema.KEY_FIELDS}
  with pytest.raises(UserError) as error:
    row_schema.row(**fields | {'nats': 1.0, 'tokens': 1, 'bytes': 1} | change)
  assert str(error.value).startswith(f'row: {message}')


def test_a_float_of_numpy_is_a_score():
  made = row('rope', metric='exact_match', value=np.float64(0.5))
  assert made == MEASURED


def test_the_checks_know_what_evaluation_measures():
  assert {*row_schema.SHARES} <= {*task_scoring.TASK_METRICS, 'gradient', 'sink_rate'}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'label': ['rope']}, "label=['rope'], where a text of 1 to 200 characters must be"),
    ({'label': ''}, "label='', where"),
    ({'label': None}, 'label=None, where'),
    ({'label': 'x' * 10**6}, "label='xxx"),
    ({'run': 3}, 'run=3, where'),
    ({'run': 'x' * 256}, "run='xxx"),
    ({'document': {}}, 'document={}, where null or a text must be'),
    ({'protocol': '{0.__class__}'}, "protocol='{0.__class__}', where a name of letters"),
    ({'protocol': 'x y'}, "protocol='x y', where a name"),
    ({'metric': '# x'}, "metric='# x', where null or a name"),
    ({'control': '<b>'}, "control='<b>', where null or a name"),
    ({'split': 3}, 'split=3, where a name'),
    ({'seed': True}, 'seed=True, where a whole number from 0'),
    ({'seed': -1}, 'seed=-1, where a whole number'),
    ({'seed': 0.0}, 'seed=0.0, where a whole number'),
    ({'step': 10**400}, 'step=1000'),
    ({'length': 0}, 'length=0, where a whole number from 1'),
    ({'length': '8'}, "length='8', where"),
    ({'train_length': 2**60}, f'train_length={2**60}, where'),
    ({'k': -1}, 'k=-1, where null or a whole number from 1'),
    ({'position': -1}, 'position=-1, where null or'),
    ({'tokens': -10}, 'tokens=-10, where null or'),
    ({'tokens': 0}, 'tokens=0, where a whole number from 1 on must be'),
    ({'bytes': None}, 'bytes=None, where a whole number from 1 on must be'),
    ({'overrides': {}}, 'overrides={}, where'),
    ({'overrides': {'x': 'y' * 10**5}}, "overrides={'x': 'yyy"),
    ({'overrides': [1]}, 'overrides=[1], where'),
    ({'overrides': {'x': json.loads('[' * 500 + ']' * 500)}}, "overrides={'x': [[[["),
    ({'status': 'fine'}, "status='fine', where one of ok, beyond_table, not_finite, no_key"),
    ({'status': ['ok']}, "status=['ok'], where one of"),
    ({'status': 'not_finite'}, 'where null, with status=not_finite and metric=None, must be'),
    ({'nats': float('nan')}, 'nats=nan, where a finite number must be'),
    ({'nats': float('inf')}, 'nats=inf, where a finite number must be'),
    ({'nats': '10'}, "nats='10', where a finite number must be"),
    ({'nats': None}, 'nats=None, where a finite number'),
    ({'nats': -10.0}, 'nats=-10.0, where 0 to 709 a token must be'),
    ({'nats': 1e299}, 'nats=1e+299, where 0 to 709 a token'),
    ({'ppl': 5.0}, 'ppl=5.0, where 4.0'),
    ({'bpb': 2.00001}, 'bpb=2.00001, where 2.0'),
    ({'bpb': 10**400}, 'bpb=1000'),
    ({'value': 1.0}, 'value=1.0, where null, with status=ok and metric=None, must be'),
    ({'protocol': 'by_position'}, 'position=None, where a number for the protocol by_position'),
    ({'protocol': 'receptive_field'}, 'position=None, where a number for the protocol'),
    ({'note': 'x'}, "it has a field 'note', which rows do not have"),
    ({'source': 'abc'}, "source='abc', where 64 hexadecimal digits must be"),
    ({'tokenizer': 'abc'}, "tokenizer='abc', where 64 hexadecimal digits must be"),
    ({'source': None}, 'source=None, where 64 hexadecimal digits must be'),
    ({'parameters': 'rope'}, "parameters='rope', where an object with the name of a 'run' and a"),
    ({'parameters': {'run': 'a', 'step': -1}}, "parameters={'run': 'a', 'step': -1}, where"),
    ({'dtype': 'float64'}, "dtype='float64', where bfloat16 must be"),
  ],
)
def test_a_field_that_is_wrong_is_named_with_its_file_and_line(change, message, tmp_path):
  wrong = LIKELIHOOD | change
  assert row_schema.fault(wrong).startswith(message) or message in row_schema.fault(wrong)
  if 'nan' in message or 'inf,' in message:
    return  # no JSON: storage refuses it
  storage.append_rows(tmp_path / 'rows.jsonl', [row('alibi'), wrong])
  with pytest.raises(Damaged, match=r'rows\.jsonl:2: the line is damaged: ') as error:
    row_files.read(tmp_path)
  assert message in str(error.value)
  assert r'\n' not in str(error.value)
  assert len(str(error.value)) < 400


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'value': None}, 'value=None, where a finite number must be'),
    ({'value': 1.5}, 'value=1.5, where a share of 0 to 1, with metric=exact_match, must be'),
    ({'value': 10**400}, 'value=1000'),
    ({'value': True}, 'value=True, where a finite number'),
    ({'nats': 1.0}, 'nats=1.0, where null, with status=ok and metric=exact_match, must be'),
    ({'status': 'not_finite'}, 'value=0.5, where null, with status=not_finite'),
  ],
)
def test_a_value_that_does_not_fit_its_metric_is_named(change, message):
  assert message in row_schema.fault(MEASURED | change)


@pytest.mark.parametrize('name', sorted(row_schema.FIELDS))
def test_a_field_that_is_missing_is_named(name):
  lacking = {key: value for key, value in LIKELIHOOD.items() if key != name}
  assert row_schema.fault(lacking) == f'it lacks {name}'


def test_rows_of_a_pretrained_model_say_its_hash():
  found = row('rope', source='0a' * 32)
  assert found == LIKELIHOOD | {'source': '0a' * 32}
  assert row('rope', dtype='bfloat16') == LIKELIHOOD | {'dtype': 'bfloat16'}
  assert row('rope', dtype='float32') == LIKELIHOOD
  assert row_schema.fault(found) is None


def test_a_perplexity_that_is_no_number_is_the_status_not_finite():
  found = row('rope', nats=8000.0, tokens=10, bytes=10)
  assert (found['status'], found['ppl'], found['nats']) == ('not_finite', None, None)
  assert row_schema.fault(found) is None


# Several rows


def test_one_measurement_with_two_results_is_refused_and_named(tmp_path):
  storage.append_rows(tmp_path / 'eval.jsonl', [row('rope', bits=1.0), row('rope', 1)])
  (tmp_path / 'run').mkdir()
  storage.append_rows(tmp_path / 'run' / 'eval.jsonl', [row('rope', 1), row('rope', bits=3.0)])
  message = r'run/eval\.jsonl:2: .* it measures the same as a row of .*eval\.jsonl, with another'
  with pytest.raises(Damaged, match=message):
    row_files.read(tmp_path)


def test_runs_and_their_collected_rows_count_once(tmp_path):
  rows = [row('rope', seed, bits=seed + 1.0) for seed in (0, 1)]
  storage.append_rows(tmp_path / 'rows.jsonl', rows)
  data = (tmp_path / 'rows.jsonl').read_bytes()
  (tmp_path / 'rows.jsonl.gz').write_bytes(gzip.compress(data))
  (table,) = make_tables(row_files.read(tmp_path))
  assert table.groups[0].lines[0][1].text == '1.500 ± 0.707'
  assert table.notes == [
    '2 rows repeat a key, only the first of each counts: '
    'encoding.name=rope,seed=0, encoding.name=rope,seed=1'
  ]


def test_what_a_kill_left_and_links_to_themselves_are_passed_over(tmp_path):
  storage.append_rows(tmp_path / 'rows.jsonl', [row('rope')])
  for name in ('rows.jsonl.123.new', 'rows.jsonl~', 'rows.jsonl.gz.9.new'):
    (tmp_path / name).write_text('{"torn')
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  (tmp_path / 'gone').symlink_to(tmp_path / 'nowhere')
  (tmp_path / 'itself').symlink_to(tmp_path)  # its rows.jsonl is no eval.jsonl
  assert len(row_files.read(tmp_path)) == 1


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_rows_that_are_no_file_are_one_line(make, tmp_path):
  make(tmp_path / 'rows.jsonl')
  with pytest.raises(Stopped, match=r'rows\.jsonl: (Is a directory|Invalid argument|not a reg)'):
    row_files.read(tmp_path)


@pytest.mark.parametrize('name', ['größe 中文', 'e\u0301', 'a\nb', 'a\x1b[31m', '-rf'])
def test_runs_have_any_name(name, tmp_path):
  (tmp_path / name).mkdir()
  storage.append_rows(tmp_path / name / 'eval.jsonl', [row('rope', run=name)])
  (read,) = row_files.read(tmp_path)
  assert read['run'].isprintable() or name == 'e\u0301'
  (tmp_path / name / 'eval.jsonl').write_text('x\n')
  with pytest.raises(UserError, match='damaged'):
    row_files.read(tmp_path)


# Costs


COST = {'run': 'a', 'label': 'rope', 'seed': 0, 'parameters': 1, 'encoding_parameters': None}
COST |= {'tokens': 1, 'train_length': 8, 'compute_dtype': 'float32', 'seconds_per_step': 0.5}
COST |= {'temporary_bytes': 1000, 'onset_tokens': None}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'label': ['x']}, r"label=\['x'\], where a text"),
    ({'parameters': -1}, 'parameters=-1, where null or a whole number'),
    ({'tokens': 10**400}, 'tokens=1000'),
    ({'train_length': '8'}, "train_length='8', where a whole number"),
    ({'compute_dtype': '<b>'}, "compute_dtype='<b>', where one of float32, bfloat16"),
    ({'seconds_per_step': -1.0}, 'seconds_per_step=-1.0, where null or a number from 0'),
    ({'more': 1}, 'its fields are run, label, .*more, where run'),
  ],
)
def test_a_row_of_costs_that_is_wrong_is_named(change, message, tmp_path):
  storage.append_rows(tmp_path / 'costs.jsonl', [COST, COST | change])
  with pytest.raises(Damaged, match=rf'costs\.jsonl:2: the line is damaged: {message}'):
    costs.read(tmp_path)


@pytest.mark.parametrize(
  ('timing', 'message'),
  [
    ({'step': 2, 'seconds_per_step': 'fast'}, "seconds_per_step='fast', where a number"),
    ({'step': None, 'seconds_per_step': 1.0}, 'step=None, where a whole number'),
    ({'seconds_per_step': 1.0}, 'step=None, where a whole number'),
    ({'step': 2, 'seconds_per_step': None}, 'seconds_per_step=None, where a number from 0 on'),
    ({'step': 0, 'parameters': [1]}, r'parameters=\[1\], where null or a whole number'),
  ],
)
def test_a_row_of_timing_that_is_wrong_is_named(timing, message, tmp_path):
  (tmp_path / 'run').mkdir()
  c = config.load(config.BASE)
  storage.write_json(tmp_path / 'run' / 'config.json', config.to_json(c))
  storage.append_rows(tmp_path / 'run' / 'timing.jsonl', [timing])
  with pytest.raises(Damaged, match=rf'run/timing\.jsonl:1: the line is damaged: {message}'):
    costs.read(tmp_path)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    ('train', None), ('train', [1]), ('train.steps', 'x'), ('train.length', -1),
    ('train.steps', 10**300), ('seed', {}), ('label', [3]), ('encoding', {}), ('encoding.name', 3),
    ('train.compute_dtype', ['float32']), ('train.batch', 1.5), ('train.batch', None),
  ],
)  # fmt: skip
def test_a_config_that_costs_cannot_be_read_of_is_named(path, value, tmp_path):
  tree = config.to_json(config.load(config.BASE))
  *sections, name = path.split('.')
  (tree[sections[0]] if sections else tree)[name] = value
  (tmp_path / 'run').mkdir()
  storage.write_json(tmp_path / 'run' / 'config.json', tree)
  storage.append_rows(tmp_path / 'run' / 'timing.jsonl', [{'step': 1, 'seconds_per_step': 1.0}])
  with pytest.raises(Damaged, match=re.escape('run/config.json is damaged: ')) as error:
    costs.read(tmp_path)
  assert r'\n' not in str(error.value)
