"""study.json and what `table()` and `figures()` return: data, checked and never executed."""

import errno
import os
import resource
from pathlib import Path

import pytest
from stand_ins import Study
from synthetic import needles, realistic, row, rows_of

from posenc_jax import config, storage, sweep
from posenc_jax.errors import Damaged, Stopped, UserError
from posenc_jax.reporting import report_settings, study
from posenc_jax.reporting.html import page
from posenc_jax.reporting.mpl import figures

ROOT = Path(__file__).parent.parent
KEPT = sorted(path.parent.name for path in ROOT.glob('results/*/study.json'))
SAVED = {'study': 'configs/quick.py', 'sha256': '', 'about': '', 'runs': []}
SAVED |= {'tables': [{}], 'figures': {}}


def write_study(path, source):
  path.write_text(f'def get_config(): ...\n{source}\n')
  return path


# Nothing is executed


@pytest.mark.parametrize(
  ('script', 'name'),
  [
    *(('table', name) for name in ('evil.py', '../evil.py', 'ABSOLUTE', 'configs/quick.py')),
    *((script, 'evil.py') for script in ('figures', 'html_report')),  # they read it alike
  ],
)
def test_no_script_executes_what_a_folder_of_results_names(
  script, name, command, tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  folder = tmp_path / 'results'
  folder.mkdir()
  storage.append_rows(folder / 'rows.jsonl', rows_of({'rope': {8: [1.0], 16: [2.0]}}))
  for place in (tmp_path, folder):
    write_study(place / 'evil.py', f'open({str(tmp_path / "executed")!r}, "w")')
  named = name.replace('ABSOLUTE', str(folder / 'evil.py'))
  storage.write_json(folder / 'study.json', SAVED | {'study': named})
  flags = [f'--out={tmp_path}/page.html'] if script == 'html_report' else []
  code, _, error = command(f'scripts/{script}.py', folder, *flags)
  assert not code, error
  assert not (tmp_path / 'executed').exists()


def test_study_json_holds_all_that_the_study_wanted(tmp_path):
  path = write_study(
    tmp_path / 'study.py',
    "ABOUT = ' all \\n alike '\n"
    "def table(): return [{'reference': [dict(line='x', values={8: 1.5}, source='y')]}, {}]\n"
    "def figures(): return {'one': dict(drawn_controls=['truncated'])}",
  )
  wanted = study.of_study(path, tmp_path, ['a', 'b'])
  study.save(wanted, path)
  path.unlink()
  assert study.load(tmp_path) == wanted
  assert wanted.about == 'all alike'
  assert wanted.tables[0]['reference'][0]['values'] == {'8': 1.5}
  storage.append_rows(tmp_path / 'rows.jsonl', [row('rope')])
  assert ['encoding', '8', 'source'] in [table.header for table in wanted.all_tables()]
  (tmp_path / 'study.json').unlink()
  assert study.load(tmp_path) == study.Report(tmp_path)


def test_a_study_that_was_edited_since_is_named_in_one_line(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(storage, 'REPOSITORY', tmp_path)
  path = write_study(tmp_path / 'study.py', "def table(): return dict(metric='ppl')")
  study.save(study.of_study(path, tmp_path), path)
  assert storage.read_json(tmp_path / 'study.json')['study'] == 'study.py'
  assert study.of_arguments([str(tmp_path)]).tables == [{'metric': 'ppl'}]
  assert capsys.readouterr().out == ''
  write_study(path, "def table(): return dict(metric='bpb')")
  assert study.of_arguments([str(tmp_path)]).tables == [{'metric': 'ppl'}]
  out, err = capsys.readouterr()
  (line,) = err.splitlines()
  assert out == ''
  assert 'as study.py wanted them when its sweep ran; it was edited since: --config=STUDY' in line
  report = study.of_arguments([str(tmp_path), f'--config={path}'])
  assert report.tables == [{'metric': 'bpb'}]
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('name', ['/dev/zero', '/proc/kcore', '\0', 'configs', '../' * 90])
def test_what_study_json_names_is_not_read_where_it_can_be_no_study(name, tmp_path):
  assert study.note_if_edited(study.Report(tmp_path, study=name)) == ''


# The kept results


# Studies that need the imported model to plan their runs.
OF_IMPORTED = (
  'configs/pretrained.py',
  'configs/studies/pretrained_4.py',
  'configs/studies/pretrained_passkey.py',
  'configs/studies/claims/passkey_within.py',
  'configs/studies/pretrained_long_ppl.py',
  'configs/studies/pretrained_packages.py',
  'configs/studies/pretrained_speeches.py',
)


@pytest.mark.parametrize('name', KEPT)
def test_the_kept_study_json_is_what_the_study_wants(name):
  """Where it is not, as after any edit of a study or a new field, of which all kept results have
  the default: `python scripts/maintenance/remake.py --settings`.
  """
  folder = ROOT / 'results' / name
  kept = study.load(folder)
  assert study.note_if_edited(kept) == ''
  assert study.of_study(ROOT / kept.study, folder, kept.runs).tables == kept.tables
  assert study.of_study(ROOT / kept.study, folder).figures == kept.figures
  if kept.study not in OF_IMPORTED:
    planned = sweep.plan(ROOT / kept.study, 'out', {})
    hashes = [value for run in planned for value in run.hashes.values()]
    assert kept.hashes == dict(zip(kept.runs, hashes, strict=True))


@pytest.mark.parametrize('name', KEPT)
def test_the_kept_tables_are_made_again_byte_for_byte(name, tmp_path):
  report = study.load(ROOT / 'results' / name)
  report.out = tmp_path / 'new'
  report.write_tables()
  for file in ('table.md', 'table.tex', 'table.csv'):
    assert (report.out / file).read_bytes() == (report.folder / file).read_bytes()


# What a study may return


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('def table(): pass', r'table\(\) is None; allowed: a dict of settings'),
    ('def table(): return 3', r'table\(\) is 3; allowed'),
    ("def table(): return [{}, 'x']", r"table\(\) is \[{}, 'x'\]; allowed"),
    ('table = 3', r'study\.py: table=3; allowed: a function'),
    ('def figures(): return 1 / 0', r'in figures\(\): ZeroDivisionError'),
    ('def figures(): pass', r'figures\(\) is None; allowed: {name: dict of settings}'),
    ("def figures(): return ['x']", r"figures\(\) is \['x'\]; allowed"),
    ("def table(): return {'protocols': {'last_k'}}", r"{'last_k'} is set; allowed: text"),
    ("def table(): return {'protocols': map(str, 'a')}", 'is map; allowed: text, finite numbers'),
    ("def table(): return {'metric': print}", 'is builtin_function_or_method; allowed'),
    ("def table(): return {'metric': float('nan')}", 'nan is float; allowed: text, finite'),
    ("def table(): return {(1, 2): 'x'}", r'the key \(1, 2\); allowed: text and whole'),
    ("def table(): return {'protocols': 'last_k'}", r"protocols='last_k'; allowed: one or more"),
    ("def table(): return {'protocols': []}", r'protocols=\[\]; allowed: one or more'),
    ("def table(): return {'protocols': [1]}", r'protocols=\[1\]; allowed: one or more'),
    ("def table(): return {'protocols': ['last_kk']}", r"did you mean 'last_k'\?"),
    ("def table(): return {'metric': 'pp'}", r"metric='pp'; did you mean 'ppl'\?"),
    (
      "def table(): return {'form': 'training_lengths', 'baseline': 'a'}",
      "no setting 'baseline' of training_lengths; allowed: controls, form, metric",
    ),
    ("def table(): return {'metric': ['ppl']}", r"metric=\['ppl'\]; allowed: a text"),
    ("def table(): return {'form': ['methods']}", r"form=\['methods'\]; did you mean 'methods'\?"),
    ("def table(): return {'controls': 1}", 'controls=1; allowed: True, False'),
    ("def table(): return {'baseline': 3}", 'baseline=3; allowed: a text'),
    ("def table(): return {'baseline': {}}", r'baseline={}; allowed: .* {label: baseline} of at'),
    ("def table(): return {'baseline': {'t5': 3}}", r"baseline={'t5': 3}; allowed: a text"),
    ("def table(): return {'metric': 'gradient', 'baseline': 'rope'}", 'a metric with a better'),
    (
      "def table(): return {'metric': 'induction', 'baseline': 'rope'}",
      "metric='induction' compared; allowed: a metric with a better end: bpb, ppl, exact_match, ",
    ),
    ("def table(): return {'margin': 0.1}", "no setting 'margin' of lengths"),
    ("def table(): return {'learned': 0.5}", "no setting 'learned' of lengths"),
    ("def table(): return {'form': 'method'}", r"form='method'; did you mean 'methods'\?"),
    (
      "def table(): return dict(reference=[{'line': 'x', 'values': {8: 1.0}}])",
      r'allowed: dict\(line=..., values=.*source',
    ),
    (
      "def figures(): return {'f': dict(form='heatmap')}",
      r"form='heatmap'; did you mean 'heat_map'\?",
    ),
    ("def table(): return {'reference': [{'line': 'x'}]}", r'allowed: dict\(line=..., values='),
    ("def table(): return {'reference': 'x'}", 'reference: allowed: a list of at most 1000 dicts'),
    ("def figures(): return {'f': {'length': 1}}", "no setting 'length' of lengths"),
    ("def figures(): return {'f': dict(form='positions', length=0)}", 'length=0; allowed: tokens'),
    ("def figures(): return {'f': {'references': 'a'}}", "references='a'; allowed: one or more"),
    ("def figures(): return {'f': {'protocol': None}}", 'protocol=None; allowed: a text'),
    ("def figures(): return {'../f': {}}", r"'\.\./f' names a figure; allowed: the name of a file"),
    ("def figures(): return {'/f': {}}", "'/f' names a figure"),
    ("def figures(): return {'': {}}", "'' names a figure"),
    ("def figures(): return {'.f': {}}", r"'\.f' names a figure"),
    ("def figures(): return {'f\\0': {}}", r'names a figure; allowed'),
    ("def figures(): return {'f\\n': {}}", r'names a figure; allowed'),
    ("def figures(): return {'f' * 61: {}}", r'names a figure; allowed'),
    ('def table(): return [{}] * 1000000', r'table\(\): 1000000 of them; allowed: at most 100'),
    ("def table(): return {'metric': 'x' * 999}", 'metric=.*allowed: a text of at most 200'),
    (
      "x = []\nfor _ in range(99): x = [x]\ndef table(): return {'protocols': x}",
      'allowed: at most 10 levels',
    ),
  ],
)
def test_what_cannot_work_is_one_line_before_the_first_run(source, message, tmp_path):
  path = write_study(tmp_path / 'study.py', source)
  with pytest.raises(UserError, match=message) as error:
    study.of_study(path, tmp_path)
  assert str(error.value).removeprefix('config: ').startswith(str(path))
  assert len(str(error.value)) < 600


@pytest.mark.parametrize(
  ('name', 'own'),
  [('metric', 'attention_entropy'), ('metric', 'accuracy'), ('protocol', 'induction_score')],
)
def test_a_metric_or_protocol_of_ones_own_may_have_a_name_like_one_of_these(name, own):
  wanted = {'form': 'distances'} if name == 'protocol' else {}
  assert report_settings.check_tables('x', wanted | {name: own}) == [wanted | {name: own}]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'baseline': 'ropee'}, r"baseline='ropee' is no label of the study; did you mean 'rope'\?"),
    ({'baseline': 'ro'}, 'is no label of the study'),
    ({'protocols': ['copy']}, r"protocols=\['copy'\]: no run is evaluated so; allowed: last_k, "),
    ({'baseline': {'rope': 'ro'}}, "baseline='ro' is no label of the study"),
    ({'baseline': {'rope': 'rope'}}, None),
    ({'baseline': 'rope'}, None),
    ({'baseline': 'rope, L = 128, 600 steps'}, None),
    ({'baseline': 'rope [x]'}, None),
    ({'protocols': ['copy', 'last_k']}, None),
    ({'baseline': None, 'protocols': None}, None),
  ],
)
def test_a_baseline_or_protocol_that_no_run_will_have_is_refused(settings, message, tmp_path):
  path = write_study(tmp_path / 'study.py', f'def table(): return {settings!r}')
  planned = [config.load(config.BASE, {'encoding.name': 'rope'})]
  study.of_study(path, tmp_path)  # rows may have them
  if message is None:
    study.of_study(path, tmp_path, planned=planned)
    return
  with pytest.raises(UserError, match=message):
    study.of_study(path, tmp_path, planned=planned)


@pytest.mark.parametrize('name', ['labels', 'references'])
def test_a_label_of_a_figure_that_is_almost_one_of_the_study_is_refused(name):
  planned = [config.load(config.BASE, {'encoding.name': 'rope'})]
  report_settings.check_planned('x', [{name: ['rope', 'n-gram (5 bytes)']}], planned)
  with pytest.raises(UserError, match=rf"x: {name}: 'ropee' is no label .*; did you mean 'rope'\?"):
    report_settings.check_planned('x', [{name: ['ropee']}], planned)


def test_protocols_of_a_task_are_its_name(tmp_path):
  planned = [config.load(ROOT / 'configs' / 'tasks.py')]
  report_settings.check_planned('x', [{'protocol': 'mqar'}], planned)
  with pytest.raises(UserError, match=r'allowed: mqar$'):
    report_settings.check_planned('x', [{'protocol': 'last_k'}], planned)


# What study.json may hold


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'tables': None}, "the field 'tables' is NoneType, where list must be"),
    ({'tables': {}}, "'tables' is dict, where list must be"),
    ({'about': 'a' * 2001}, r'about=.*; allowed: a text of at most 2000 characters'),
    ({'overrides': 3}, r'overrides=3; allowed: a list of fields'),
    ({'overrides': [3]}, r'overrides: fields: 3; allowed: names'),
    ({'hashes': []}, r'hashes=\[\]; allowed: {run: hash}'),
    ({'hashes': {'a': 3}}, r'hashes of runs: 3; allowed: names'),
    ({'tables': [3]}, r'study\.json: tables is \[3\]'),
    ({'tables': [{'metrc': 'ppl'}]}, r"no setting 'metrc' of lengths; did you mean 'metric'\?"),
    ({'tables': [{}] * 1001}, '1001 of them; allowed: at most 100'),
    ({'figures': {'../x': {}}}, r"'\.\./x' names a figure"),
    ({'figures': {'x\0': {}}}, 'names a figure'),
    ({'figures': {'x': {'length': 10**12}}}, "no setting 'length'"),
    ({'figures': {'x': 3}}, 'figures is'),
    ({'runs': 3}, "'runs' is int, where list must be"),
    ({'runs': [['a']]}, r"runs: \['a'\]; allowed: names of 1 to 255 characters"),
    ({'runs': ['a' * 999]}, 'allowed: names of 1 to 255'),
    ({'runs': ['a'] * 100_001}, '100001 runs; allowed: at most 100000'),
    ({'study': ['x']}, "'study' is list, where str must be"),
    ({'sha256': 3}, "'sha256' is int"),
  ],
)
def test_a_study_json_that_is_wrong_is_one_line(change, message, tmp_path):
  storage.write_json(tmp_path / 'study.json', SAVED | change)
  with pytest.raises(Damaged, match=message) as error:
    study.load(tmp_path)
  assert str(error.value).startswith(str(tmp_path / 'study.json'))
  assert r'\n' not in str(error.value)
  assert len(str(error.value)) < 600


def test_an_old_study_json_says_what_to_do_and_config_is_enough(tmp_path):
  path = write_study(tmp_path / 'study.py', "def table(): return {'metric': 'ppl'}")
  storage.write_json(tmp_path / 'study.json', {'study': str(path), 'runs': ['a']})
  lacks, without_it = "lacks the field 'sha256'; allowed: ", 'the folder without that file'
  with pytest.raises(Damaged, match=f'{lacks}{without_it}'):
    study.load(tmp_path)
  with pytest.raises(Damaged, match=f'{lacks}--config=STUDY, or {without_it}'):
    study.of_arguments([str(tmp_path)])
  assert study.load(tmp_path, path).runs == ['a']
  storage.write_json(tmp_path / 'study.json', {'study': str(path)})
  with pytest.raises(Damaged, match=f"lacks the field 'runs'; allowed: {without_it}"):
    study.of_arguments([str(tmp_path), f'--config={path}'])


def test_a_figure_of_too_much_is_refused_before_it_is_drawn():
  many = [row(f'label{n}') for n in range(201)]
  with pytest.raises(UserError, match='figure: 201 lines; allowed: at most 200'):
    figures.draw(many)
  deep = needles(1, lines=('rope',), lengths=(64,), depths=range(9999))
  with pytest.raises(UserError, match='1 panels of 1 x 9999 cells; allowed: 1200 square inches'):
    figures.draw(deep, form='heat_map')


# Writing


def test_a_flag_names_the_line_that_others_are_compared_with(tmp_path):
  scores = {8: [1.0, 1.1], 16: [1.2, 1.3]}
  storage.append_rows(tmp_path / 'rows.jsonl', rows_of({'alibi': scores, 'nope': scores}))
  flags = [str(tmp_path), '--baseline=alibi']
  lines = lambda report: [note for table in report.all_tables() for note in table.notes]
  report = study.of_arguments(flags[:1], of_tables=True)
  assert any('no baseline is named' in line for line in lines(report))
  report = study.of_arguments(flags, of_tables=True)
  assert not any('no baseline is named' in line for line in lines(report))
  assert 'alibi' in report.all_tables()[1].title
  report = study.of_arguments([str(tmp_path), '--baseline=alib'], of_tables=True)
  with pytest.raises(UserError, match=r"baseline='alib' has no rows; did you mean 'alibi'\?"):
    report.all_tables()
  of_own = {'form': 'effective_lengths'}  # each line keeps its own score
  of_baseline = of_own | {'score_to_keep': 'baseline', 'baseline': 'nope'}
  others = [{'form': 'training_lengths'}, {'metric': 'sink_rate'}, of_own]
  study.write(
    study.Report(tmp_path, study='a.py', tables=[*others, {'metric': 'ppl'}, of_baseline])
  )
  tables = study.of_arguments(flags, of_tables=True).tables
  assert tables[:-2] == others
  assert tables[-2:] == [
    {'metric': 'ppl', 'baseline': 'alibi'},
    of_baseline | {'baseline': 'alibi'},
  ]
  study.write(study.Report(tmp_path, study='a.py', tables=others))
  with pytest.raises(UserError, match='--baseline=alibi: no table here compares lines'):
    study.of_arguments(flags, of_tables=True)
  with pytest.raises(UserError, match='--baseline=alibi: no such flag'):
    study.of_arguments(flags)


@pytest.mark.parametrize('with_text', [False, True])
def test_the_default_tables_of_tasks_have_the_baseline_of_the_flag(with_text, tmp_path):
  metrics = ('exact_match', 'token_accuracy', 'symbol_nats')
  rows = [
    row(label, length=length, protocol='copy', k=None, document=None, metric=metric, value=value)
    for label in ('alibi', 'nope')
    for length in (8, 16)
    for metric, value in zip(metrics, (0.25, 0.5, 1.0), strict=True)
  ]
  scores = {8: [1.0, 1.1], 16: [1.2, 1.3]}
  rows += rows_of({'alibi': scores, 'nope': scores}) if with_text else []
  storage.append_rows(tmp_path / 'rows.jsonl', rows)
  report = study.of_arguments([str(tmp_path), '--baseline=alibi'], of_tables=True)
  of_tasks = {'metric': 'exact_match', 'protocols': ['copy'], 'baseline': 'alibi'}
  of_text = [{'baseline': 'alibi'}] if with_text else []
  assert report.tables == [*of_text, of_tasks]
  made = {table.title for table in report.all_tables()}
  for name in ('exact match', 'share of answers right', 'nats per answer'):
    assert f'Differences from alibi up to L, copy, {name}' in made


def refuse_writes(monkeypatch, folder):
  opened = open

  def refuse(path, mode='r', *rest, **settings):
    if str(path).startswith(str(folder)) and 'w' in mode:
      raise OSError(errno.EROFS, 'Read-only file system', str(path))
    return opened(path, mode, *rest, **settings)

  monkeypatch.setattr('builtins.open', refuse)


def test_a_folder_that_cannot_be_written_shows_its_tables_and_ends_with_a_line(
  tmp_path, monkeypatch, capsys
):
  kept, out = tmp_path / 'kept', tmp_path / 'new' / 'out'
  kept.mkdir()
  storage.append_rows(kept / 'rows.jsonl', realistic(1))
  refuse_writes(monkeypatch, kept)
  with pytest.raises(Stopped, match=r'kept/table\.md: Read-only file system; .*--out=DIR') as error:
    study.of_arguments([str(kept)]).write_tables()
  assert error.value.code == 1
  assert 'transformer_xl' in capsys.readouterr().out
  with pytest.raises(Stopped, match=r'kept/extrapolation\.png: Read-only file system'):
    study.of_arguments([str(kept)]).write_figures()
  report = study.of_arguments([str(kept), f'--out={out}'])
  report.write_tables()
  report.write_figures()
  assert {path.name for path in out.iterdir()} == {
    *('table.md', 'table.tex', 'table.csv', 'extrapolation.png', 'extrapolation.pdf')
  }
  assert [path.name for path in kept.iterdir()] == ['rows.jsonl']


@pytest.mark.parametrize('size', [10, 100, 700, 1500, 9000])
def test_on_a_full_disk_every_file_is_whole_or_the_one_before(size, tmp_path, capsys):
  storage.append_rows(tmp_path / 'rows.jsonl', rows_of({'rope': {8: [1.0]}}))
  cost = {'run': 'a', 'label': 'rope', 'seed': 0, 'parameters': 1, 'encoding_parameters': 0}
  cost |= {'tokens': 1, 'train_length': 8, 'compute_dtype': 'float32', 'seconds_per_step': None}
  cost |= {'temporary_bytes': None, 'onset_tokens': None}
  storage.append_rows(tmp_path / 'costs.jsonl', [cost])
  report = study.load(tmp_path)

  def write():
    failed = report.write_all_possible()
    try:
      page.write(tmp_path / 'page.html', 'x' * 2000)
    except Stopped as error:
      failed['page'] = str(error)
    return failed

  assert write() == {}
  whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  made = whole.keys() - {'rows.jsonl', 'costs.jsonl'}
  for name in made:
    (tmp_path / name).write_text('the one before')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    failed = write()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert failed
  assert all('File too large' in why for why in failed.values()), failed
  after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  assert after.keys() == whole.keys()
  for name, content in after.items():
    assert content in (whole[name], b'the one before')
    assert len(content) <= max(size, 14) or name == 'rows.jsonl' or name == 'costs.jsonl'


def test_a_run_that_may_not_be_read_is_one_line_and_not_damaged(tmp_path, monkeypatch):
  for name in ('open', 'locked'):
    (tmp_path / name).mkdir()
    storage.append_rows(tmp_path / name / 'eval.jsonl', [row('rope', run=name)])
  stat = os.stat

  def refuse(path, **settings):
    if str(path).startswith(str(tmp_path / 'locked' / 'e')):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return stat(path, **settings)

  monkeypatch.setattr(os, 'stat', refuse)
  with pytest.raises(Stopped, match=r'locked/eval\.jsonl: Permission denied') as error:
    study.Report(tmp_path).all_tables()
  assert 'damaged' not in str(error.value)


# A sweep


def test_a_sweep_refuses_what_cannot_work_before_anything_is_written(tmp_path):
  run = Study(tmp_path, ['rope'])
  run.path.write_text(f"{run.path.read_text()}\ndef table(): return dict(baseline='roep')\n")
  with pytest.raises(UserError, match=r"baseline='roep' is no label .*; did you mean 'rope'\?"):
    run()
  assert not run.out.exists()
