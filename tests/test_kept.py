"""Results that are kept without their runs, and studies that are run in parts."""

import dataclasses
import gzip
import json
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from stand_ins import STARTED, Study, sweep_unchecked

from posenc_jax import storage, sweep
from posenc_jax.errors import Damaged, UserError
from posenc_jax.reporting import kept, row_files, study
from posenc_jax.rows import row_schema, sessions
from posenc_jax.storage import REPOSITORY
from posenc_jax.sweep import sweeping
from posenc_jax.sweep.plan import check_runs, in_part, leave_out
from posenc_jax.training import provenance, run_dir
from scripts import keep


def study_in(folder):
  return Study(folder, ['rope', 'alibi'], (0, 1))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a study that has run, of which each test has a copy."""
  folder = tmp_path_factory.mktemp('finished')
  run = study_in(folder)
  assert swept(run, run.out) == 0
  return folder


@pytest.fixture
def run(finished, tmp_path):
  """A study whose runs are in `out`, as if they had run there."""
  run = study_in(tmp_path)
  shutil.copytree(finished / 'out', run.out)
  written = run.out / 'study.json'
  storage.write_json(written, storage.read_json(written) | {'study': str(run.path)})
  return run


def swept(run, out, **settings):
  return sweep_unchecked(run.path, out, {}, run.scripts, **settings)


def test_a_study_in_two_parts_is_the_study(run, tmp_path, capsys):
  first, second, out = (tmp_path / name for name in ('first', 'second', 'kept'))
  whole = run.out
  assert sweep_unchecked(run.path, first, {'seed': 0}, run.scripts) == 0
  assert keep.main([str(first), f'--out={out}']) == 0
  assert swept(run, second, kept=out) == 0
  assert 'and 2 that are kept' in capsys.readouterr().out
  assert {path.parent.name for path in second.glob('*/eval.jsonl')} == {
    f'encoding.name={name},seed=1' for name in ('rope', 'alibi')
  }
  assert keep.main([str(second), f'--out={out}']) == 0
  assert 'runs, 2 of them new' in capsys.readouterr().out
  assert sorted(map(repr, row_files.read(out))) == sorted(map(repr, row_files.read(whole)))
  assert (out / 'table.md').read_bytes() == (whole / 'table.md').read_bytes()

  before = (out / kept.ROWS).read_bytes()
  shutil.rmtree(second)
  assert swept(run, second, kept=out) == 0  # nothing is left to do
  assert kept.keep(whole, out) == (0, 4)  # nor to keep
  assert kept.keep(first, out) == (0, 4)  # whose study.json names two runs
  assert study.load(out).runs == study.load(whole).runs
  assert (out / kept.ROWS).read_bytes() == before


def test_folders_that_are_none_of_kept_results_are_refused(run, tmp_path):
  with pytest.raises(UserError, match='the folder of the runs themselves; allowed: another one'):
    kept.keep(run.out, f'{run.out}/../{run.out.name}/')
  for folder in (run.out, tmp_path / 'misspelt'):
    with pytest.raises(UserError, match=r'no rows\.jsonl\.gz; allowed: a folder that scripts/keep'):
      swept(run, tmp_path / 'second', kept=folder)
  out = tmp_path / 'kept'
  kept.keep(run.out, out)
  (out / study.FILE).write_text('{}')
  with pytest.raises(UserError, match='allowed: results kept again, in another folder'):
    swept(run, tmp_path / 'second', kept=out)


def test_sessions_of_runs_are_kept_with_them(run, tmp_path):
  parts, out = [tmp_path / f'x_{seed}' for seed in (0, 1)], tmp_path / 'kept'
  for seed, part in enumerate(parts):
    assert sweep_unchecked(run.path, part, {'seed': seed}, run.scripts) == 0
    for file in part.glob('*/eval.jsonl'):
      for work in (sessions.TRAINING, sessions.EVALUATION):
        sessions.add([file.parent], work, '1 x cpu')
    kept.keep(part, out)
    kept.keep(part, out)  # adds none
  rows = sessions.kept_in(out)
  assert Counter(row['run'] for row in rows) == dict.fromkeys(study.load(run.out).runs, 2)
  brought = tmp_path / 'brought'
  assert swept(run, brought, kept=out) == 0
  assert sessions.kept_in(brought) == rows


def test_sweeps_of_one_seed_each_into_one_folder_keep_all(run, tmp_path):
  whole, out = run.out, tmp_path / 'parts'
  for seed in (0, 1):
    assert sweep_unchecked(run.path, out, {'seed': seed}, run.scripts) == 0
  assert {*study.load(out).runs} == {*study.load(whole).runs}
  assert kept.keep(out, tmp_path / 'kept') == (4, 4)


def test_seeds_of_two_trainings_are_not_joined(run, tmp_path):
  out, flag = tmp_path / 'parts', {'train.matmul_precision': 'highest'}
  for overrides in (flag | {'seed': 0}, {'seed': 1}):
    assert sweep_unchecked(run.path, out, overrides, run.scripts) == 0
  with pytest.raises(UserError, match=r'--config\.train\.matmul_precision, which rows do not name'):
    kept.keep(out, tmp_path / 'kept')


def test_parts_are_joined_whichever_has_the_baseline(run, tmp_path, capsys):
  whole, out = run.out, tmp_path / 'kept'
  run.path.write_text(f"{run.path.read_text()}\ndef table(): return dict(baseline='rope')\n")
  for part in ('2/3', '1/3', '3/3'):
    folder = tmp_path / part[0]
    assert swept(run, folder, part=part) == 0
    assert sweep.print_status(run.path, folder, {}, part=part) == 0
    assert keep.main([str(folder), f'--out={out}']) == 0
  printed = capsys.readouterr().out
  assert f'{tmp_path / "1"}: 2 runs, of part 1/3\n' in printed
  assert "baseline='rope' has no rows" in printed
  assert '1 runs: 1 done' in printed
  assert sorted(map(repr, row_files.read(out))) == sorted(map(repr, row_files.read(whole)))
  assert study.load(out).runs == study.load(whole).runs


def test_a_part_has_what_its_runs_start_from(run):
  run.path.write_text(STARTED)
  first, third, d, second = runs = sweep.plan(run.path, run.out, {})
  parts = [in_part(runs, f'{n}/4') for n in (1, 2, 3, 4)]
  assert parts == [[first], [first, third], [first, third, d], [second]]
  assert in_part(runs, '') == runs


@pytest.mark.parametrize('part', ['0/2', '3/2', '1/5', '1', '1/2/3', '1/0', 'x', '-1/2', '1.0/2'])
def test_a_part_that_there_is_not_is_one_line(run, tmp_path, part):
  with pytest.raises(UserError, match=rf"^--part='{part}'; allowed: N/M such as 1/4, N from 1 to"):
    swept(run, tmp_path / 'new', part=part)
  assert not (tmp_path / 'new').exists()


def test_another_study_has_the_kept_runs_that_are_its_own(run, tmp_path):
  """In its tables, also as the baseline, and in what is kept of it."""
  out, second = tmp_path / 'kept', tmp_path / 'second'
  for folder in run.out.glob('encoding.name=rope,*'):
    storage.write_json(folder / 'encodings.json', {'sha256': {'rope': 'a'}})
  kept.keep(run.out, out)
  cost = dict(label='rope', parameters=7, encoding_parameters=0, tokens=1, train_length=8)
  cost |= dict(compute_dtype='float32', seconds_per_step=0.1, temporary_bytes=2, onset_tokens=None)
  names = [f'encoding.name={name},seed={seed}' for seed in (0, 1) for name in ('rope', 'alibi')]
  kept.costs.write(out, [cost | {'run': name, 'seed': int(name[-1])} for name in names])
  second.mkdir()
  other = Study(second, ['rope', 't5'], (0, 1))
  other.path.write_text(f"{other.path.read_text()}\ndef table():\n  return dict(baseline='rope')\n")
  # the same command again changes nothing, and without --kept neither
  for source in (out, out, ''):
    assert swept(other, other.out, kept=source) == 0
    planned = {f'encoding.name={name},seed={seed}' for name in ('rope', 't5') for seed in (0, 1)}
    assert {row['run'] for row in row_files.read(other.out)} == planned
    assert {path.parent.name for path in other.out.glob('*/eval.jsonl')} == {
      name for name in planned if 't5' in name
    }
    assert 'Differences from rope' in (other.out / 'table.md').read_text()
    assert provenance.kept_code(other.out) == {'rope': 'a'}
    of_rope = {name for name in planned if 'rope' in name}
    assert {row['run'] for row in kept.costs.read(other.out)} == of_rope
  assert keep.main([str(other.out), f'--out={tmp_path / "kept_of_other"}']) == 0
  assert (tmp_path / 'kept_of_other' / 'table.md').read_bytes() == (
    other.out / 'table.md'
  ).read_bytes()
  assert kept.keep(other.out, tmp_path / 'kept_of_other') == (0, 4)
  # a sweep of fewer lines in between, too
  text = other.path.read_text()
  other.path.write_text(text.replace("baseline='rope'", '').replace("['rope', 't5']", "['t5']"))
  assert text != other.path.read_text()
  assert swept(other, other.out) == 0
  other.path.write_text(text)
  assert swept(other, other.out) == 0
  other.path.write_text(other.path.read_text().replace("'train.steps': 60", "'train.steps': 70"))
  shutil.rmtree(other.out / 'encoding.name=t5,seed=0')
  shutil.rmtree(other.out / 'encoding.name=t5,seed=1')
  with pytest.raises(
    UserError, match=r'out: it keeps encoding\.name=rope,seed=0 of another config'
  ):
    swept(other, other.out)


def test_status_counts_kept_runs_as_done(run, tmp_path, capsys):
  out, second = tmp_path / 'kept', tmp_path / 'second'
  shutil.rmtree(run.out / 'encoding.name=rope,seed=1')
  kept.keep(run.out, out)
  second.mkdir()
  assert sweep.print_status(run.path, second, {}, kept=out) == 0
  *lines, last = capsys.readouterr().out.splitlines()
  assert [line.split()[1:] for line in lines if 'done' in line] == [['done', '60/60', 'kept']] * 3
  assert last == '4 runs: 3 done, 1 waiting'
  assert swept(run, second, kept=out) == 0
  capsys.readouterr()
  assert sweep.print_status(run.path, second, {}) == 0  # their rows are there now
  assert capsys.readouterr().out.splitlines()[-1] == '4 runs: 4 done'


def test_a_run_that_has_rows_goes_on_though_it_is_kept(run, tmp_path, monkeypatch):
  """Another machine may have rounded otherwise."""
  kept.keep(run.out, tmp_path / 'kept')
  begun, out, at_work = 'encoding.name=rope,seed=0', tmp_path / 'other', []
  shutil.copytree(run.out / begun, out / begun)
  (out / begun / kept.FINISHED).unlink()
  monkeypatch.setattr(sweeping, 'execute', lambda runs, *_: at_work.extend(runs) or {})
  assert swept(run, out, kept=tmp_path / 'kept') == 0
  assert [run.name for run in at_work] == [begun]
  assert begun not in {row['run'] for row in row_files.read(out / kept.ROWS)}


FILES_KEPT = ('study.json', 'costs.jsonl', 'sessions.jsonl', kept.ROWS)


def killed_before(patch, name):
  """Lets a process end as if it were killed when it begins to write a file of this name."""
  write = storage.atomic_write

  def killed(path, content):
    if Path(path).name == name:
      raise KeyboardInterrupt
    write(path, content)

  patch.setattr(storage, 'atomic_write', killed)


def add_costs_and_sessions(run):
  """Keeps the study's runs in a folder, with rows that their stand-ins do not write."""
  out = run.out.with_name('kept_whole')
  for file in run.out.glob('*/eval.jsonl'):
    sessions.add([file.parent], sessions.EVALUATION, '1 x cpu')
  kept.keep(run.out, out)
  cost = dict(label='rope', seed=0, parameters=7, encoding_parameters=0, tokens=1, train_length=8)
  cost |= dict(compute_dtype='float32', seconds_per_step=0.1, temporary_bytes=2, onset_tokens=None)
  kept.costs.write(out, [{'run': name, **cost} for name in study.load(out).runs])
  return out


@pytest.mark.parametrize('file', FILES_KEPT)
def test_a_sweep_that_was_killed_while_it_brings_rows_goes_on(run, tmp_path, monkeypatch, file):
  out, whole, other = add_costs_and_sessions(run), tmp_path / 'whole', tmp_path / 'other'
  assert swept(run, whole, kept=out) == 0
  with monkeypatch.context() as patch:
    killed_before(patch, file)
    with pytest.raises(KeyboardInterrupt):
      swept(run, other, kept=out)
  assert swept(run, other, kept=out) == 0
  for name in FILES_KEPT[1:]:
    assert storage.read_rows(other / name) == storage.read_rows(whole / name) != []


def test_two_that_keep_at_once_wait_for_each_other(run, tmp_path):
  """Else the one that writes last would lose what the other has added."""
  out, part = tmp_path / 'results', tmp_path / 'part'
  shutil.copytree(run.out, part)
  for folder in part.glob('encoding.name=rope,*'):
    shutil.rmtree(folder)
  kept.keep(part, out)
  of_part = (out / kept.ROWS).read_bytes()
  for folder in run.out.glob('encoding.name=alibi,*'):
    shutil.rmtree(folder)
  (out / kept.ROWS).unlink()
  second = threading.Thread(target=kept.keep, args=(run.out, out))
  with storage.file_lock(out / kept.LOCK):
    second.start()
    second.join(0.5)
    assert second.is_alive()
    (out / kept.ROWS).write_bytes(of_part)  # which the first writes meanwhile
  second.join(60)
  encodings = {row['encoding'] for row in row_files.read(out / kept.ROWS)}
  assert (second.is_alive(), encodings) == (False, {'rope', 'alibi'})


def test_a_keep_that_was_killed_goes_on(run, tmp_path, monkeypatch):
  """Before any of its files, at the first call and at a later one that adds runs."""
  first, whole, out = tmp_path / 'first', run.out, tmp_path / 'kept'
  assert sweep_unchecked(run.path, first, {'seed': 0}, run.scripts) == 0
  for folder in (first, whole):
    for file in folder.glob('*/eval.jsonl'):
      sessions.add([file.parent], sessions.EVALUATION, '1 x cpu')
  for folder, in_all in ((first, 2), (whole, 4)):
    for name in ('study.json', 'sessions.jsonl', kept.ROWS):
      with monkeypatch.context() as patch:
        killed_before(patch, name)
        with pytest.raises(KeyboardInterrupt):
          kept.keep(folder, out)
    assert kept.keep(folder, out) == (2, in_all)
  assert sorted(map(repr, row_files.read(out))) == sorted(map(repr, row_files.read(whole)))


def test_what_is_not_finished_is_not_kept(run, tmp_path, capsys):
  unfinished = run.out / 'encoding.name=rope,seed=0'
  (unfinished / 'finished.json').unlink()
  run_dir.mark_finished(unfinished, 'that of an evaluation by hand')
  of_seeds = run.out / 'encoding.name=rope'  # whose seeds have directories of their own, and rows
  of_seeds.mkdir()
  shutil.copy(unfinished / 'config.json', of_seeds)
  run_dir.mark_finished(of_seeds, 'of its seeds')
  assert kept.keep(run.out, tmp_path / 'kept') == (3, 3)
  assert (
    f'not kept, finished but not as the study asks: {unfinished.name}\n' in capsys.readouterr().out
  )
  assert unfinished.name not in {row['run'] for row in row_files.read(tmp_path / 'kept')}
  for folder in run.out.glob('*/finished.json'):
    folder.unlink()
  with pytest.raises(UserError, match='no run is finished'):
    kept.keep(run.out, tmp_path / 'kept')


@pytest.mark.parametrize('hashes', [None, [1]])
def test_a_damaged_mark_of_a_finished_run_is_named(hashes, run, tmp_path):
  path = run.out / 'encoding.name=rope,seed=0' / 'finished.json'
  path.write_text('{')
  if hashes:
    storage.write_json(path, {'config_hashes': hashes})
  with pytest.raises(Damaged, match=f'^{path} is damaged: .*; allowed: the same sweep again'):
    kept.keep(run.out, tmp_path / 'kept')


def add_ngram(run):
  """Adds the directory of an n-gram to those of a study's runs, with one row; returns it."""
  ngram = run.out / 'ngram,seed=0'
  shutil.copytree(run.out / 'encoding.name=rope,seed=0', ngram)
  (ngram / 'config.json').unlink()
  (row,) = storage.read_rows(ngram / 'eval.jsonl')
  storage.rewrite_rows(ngram / 'eval.jsonl', [row | {'run': ngram.name, 'encoding': 'n-gram'}])
  return ngram


def test_an_ngram_beside_the_runs_is_kept_and_not_counted(run, tmp_path):
  ngram = add_ngram(run)
  assert kept.keep(run.out, tmp_path / 'kept') == (4, 4)
  assert ngram.name in {row['run'] for row in row_files.read(tmp_path / 'kept')}
  (ngram / 'finished.json').unlink()
  assert kept.keep(run.out, tmp_path / 'other') == (4, 4)
  assert ngram.name not in {row['run'] for row in row_files.read(tmp_path / 'other')}


def test_a_sweep_brings_the_ngram_that_its_study_has_kept(run, tmp_path):
  """It is in no plan; in another study's folder it may be of other text."""
  ngram = add_ngram(run)
  kept.keep(run.out, tmp_path / 'kept')
  assert swept(run, tmp_path / 'again', kept=tmp_path / 'kept') == 0
  assert ngram.name in {row['run'] for row in row_files.read(tmp_path / 'again')}
  before = (tmp_path / 'again' / 'table.md').read_bytes()
  assert swept(run, tmp_path / 'again', kept=tmp_path / 'kept') == 0
  assert (tmp_path / 'again' / 'table.md').read_bytes() == before
  other = run.path.with_name('other.py')
  shutil.copy(run.path, other)
  assert sweep_unchecked(other, tmp_path / 'of_other', {}, run.scripts, kept=tmp_path / 'kept') == 0
  assert ngram.name not in {row['run'] for row in row_files.read(tmp_path / 'of_other')}


def test_a_later_evaluation_of_a_kept_run_brings_its_session(run, tmp_path):
  name = 'encoding.name=rope,seed=0'
  sessions.add([run.out / name], sessions.EVALUATION, 'cpu', sessions.now())
  kept.keep(run.out, tmp_path / 'kept')
  before = sessions.kept_in(tmp_path / 'kept')
  sessions.add([run.out / name], sessions.EVALUATION, 'gpu', sessions.now())
  kept.keep(run.out, tmp_path / 'kept')
  after = sessions.kept_in(tmp_path / 'kept')
  assert after[: len(before)] == before
  assert [(row['run'], row['device']) for row in after[len(before) :]] == [(name, 'gpu')]


def give_another_result(workdir):
  (row,) = storage.read_rows(workdir / 'eval.jsonl')
  same = ('run', 'encoding', 'label', 'seed', 'step', 'train_length', 'corpus', 'split')
  same += ('protocol', 'length', 'k', 'document', 'tokens', 'bytes')
  another = row_schema.row(**{name: row[name] for name in same}, nats=12.0)
  storage.rewrite_rows(workdir / 'eval.jsonl', [another])


def test_parts_whose_runs_start_from_one_are_joined_though_machines_round_differently(
  run, tmp_path, capsys
):
  run.path.write_text(f'{STARTED}\ndef figures(): return {{}}\n')
  first, third, fourth, _ = (planned.name for planned in sweep.plan(run.path, run.out, {}))
  out = tmp_path / 'kept'
  for part, is_other_machine in (('2/4', False), ('3/4', True)):
    folder = tmp_path / part[0]
    assert swept(run, folder, part=part) == 0
    if is_other_machine:
      give_another_result(folder / first)
    assert kept.keep(folder, out)[0] == (1 if is_other_machine else 2)
  assert f'not kept, {out} has another result: {first}\n' in capsys.readouterr().out
  rows = {row['run']: row['nats'] for row in row_files.read(out)}
  assert rows.keys() == {first, third, fourth}
  assert 12.0 not in rows.values()

  give_another_result(tmp_path / '3' / fourth)  # from which no run starts
  with pytest.raises(UserError, match='keeps another result of label=d'):
    kept.keep(tmp_path / '3', out)


def test_rows_too_many_for_one_file_are_refused_before_anything_is_written(
  run, tmp_path, monkeypatch
):
  out = tmp_path / 'kept'
  monkeypatch.setattr(storage, 'MAX_BYTES', 100)
  with pytest.raises(UserError, match='more than 100 bytes; allowed: fewer runs in one folder'):
    kept.keep(run.out, out)
  assert [file.name for file in out.iterdir()] == [kept.LOCK]


def test_rows_of_runs_that_none_starts_from_are_not_compared(run):
  folders = [planned.workdir for planned in sweep.plan(run.path, run.out, {})]
  of_no_start = [{'run': folder.name} for folder in folders]  # no rows that have a key
  assert kept._starts_with_other_results(folders, of_no_start, of_no_start) == set()


def test_another_result_of_a_kept_run_is_refused(run, tmp_path):
  kept.keep(run.out, tmp_path / 'kept')
  give_another_result(run.out / 'encoding.name=rope,seed=0')
  with pytest.raises(UserError, match='keeps another result of encoding'):
    kept.keep(run.out, tmp_path / 'kept')


def test_another_default_is_refused(run, tmp_path):
  """By keep.py, of runs whose configs do not say it, and kept for a sweep beside them."""
  out, first = tmp_path / 'kept', tmp_path / 'first'
  shutil.copytree(run.out, first)
  shutil.rmtree(first / 'encoding.name=rope,seed=1')
  for folder, base in ((first, 5.0), (run.out, 10_000.0)):
    for path in folder.glob('encoding.name=rope,*'):
      storage.write_json(path / 'built_in.json', {'values': {'rope.base': base}})
  kept.keep(first, out)
  assert provenance.kept_values(out)['rope.base'] == 5.0
  with pytest.raises(UserError, match=r'rope\.base is 10000\.0, and 5\.0 in other runs that are'):
    kept.keep(run.out, out)


def test_another_code_of_an_own_encoding_is_refused(run, tmp_path):
  """By keep.py, and by a sweep beside what is kept, before it trains any."""
  out, first = tmp_path / 'kept', tmp_path / 'first'
  shutil.copytree(run.out, first)
  shutil.rmtree(first / 'encoding.name=rope,seed=1')
  for name, sha256 in (('first', 'a'), ('out', 'b')):
    for folder in (tmp_path / name).glob('encoding.name=rope,*'):
      storage.write_json(folder / 'encodings.json', {'sha256': {'rope': sha256}})
  kept.keep(first, out)
  before = {path: path.read_bytes() for path in out.iterdir()}
  with pytest.raises(UserError, match=r"encoding 'rope' has another code than in other runs that"):
    kept.keep(run.out, out)
  assert {path: path.read_bytes() for path in out.iterdir()} == before
  with (
    mock.patch.object(sweeping, 'check_runs', side_effect=UserError('checked')) as check,
    pytest.raises(UserError, match='checked'),
  ):
    sweep.sweep(run.path, tmp_path / 'second', {'seed': 1}, run.scripts, kept=out)
  (study_file, planned, folder), _ = check.call_args
  ended = subprocess.CompletedProcess([], 0, 'null', '')
  with mock.patch.object(subprocess, 'run', return_value=ended) as process:
    check_runs(run.path, sweep.plan(run.path, run.out, {}))
    assert json.loads(process.call_args.kwargs['input'])['finished'] == [0, 1]  # those of rope
    check_runs(study_file, planned, folder)
  asked = json.loads(process.call_args.kwargs['input'])
  ((_, folders),) = asked['runs']
  assert (provenance.kept_code(folders[-1]), asked['finished']) == ({'rope': 'a'}, [])


def test_a_field_that_was_a_flag_can_be_written_into_the_study(run, tmp_path, capsys):
  out, flag = tmp_path / 'parts', {'train.matmul_precision': 'highest'}
  assert sweep_unchecked(run.path, out, flag, run.scripts, part='1/2') == 0
  assert 'config.train.matmul_precision as a flag: keep.py joins no' in capsys.readouterr().out
  with pytest.raises(UserError, match=r'--config\.train\.matmul_precision, which rows do not name'):
    kept.keep(out, tmp_path / 'kept')
  with pytest.raises(UserError, match=r'run of another config: train\.matmul_precision'):
    swept(run, out)
  text = run.path.read_text()
  run.path.write_text(
    text.replace("'train.steps'", "'train.matmul_precision': 'highest', 'train.steps'")
  )
  assert swept(run, out) == 0
  assert kept.keep(out, tmp_path / 'kept') == (4, 4)


def test_other_studies_and_other_numbers_are_refused(run, tmp_path):
  out = tmp_path / 'kept'
  kept.keep(run.out, out)
  allowed = 'launch, mesh, data.cache, train.trackers, train.profile_steps, seed, seeds'
  for field in ('train.steps', 'eval.batch_tokens'):
    with pytest.raises(UserError, match=rf'^config\.{field} beside --kept; allowed: {allowed}$'):
      sweep.sweep(run.path, run.out, {field: 1}, run.scripts, kept=out)
  other = tmp_path / 'other'
  for overrides in ({'eval.k': 4, 'seed': 0}, {'seed': 0}):  # the rows of the first stay there
    sweep_unchecked(run.path, other, overrides, run.scripts)
  with pytest.raises(UserError, match=r'its sweep ran with --config\.eval\.k, which rows do not'):
    kept.keep(other, tmp_path / 'kept_of_other')
  assert not (tmp_path / 'kept_of_other').exists()
  text = run.path.read_text()
  run.path.write_text(f'{text}\n# edited')  # which changes no config
  assert swept(run, tmp_path / 'again', kept=out) == 0
  run.path.write_text(text.replace("'train.steps': 60", "'train.steps': 70"))
  with pytest.raises(UserError, match=r'it keeps encoding\.name=rope,seed=0 of another config'):
    swept(run, run.out, kept=out)
  report = study.load(run.out)
  for name in report.runs:
    run_dir.mark_finished(run.out / name, 'edited')
  study.write(dataclasses.replace(report, hashes=dict.fromkeys(report.runs, 'edited')))
  with pytest.raises(UserError, match=r'it keeps encoding\.name=rope,seed=0 of another config'):
    kept.keep(run.out, out)
  study.write(dataclasses.replace(report, study='other.py', hashes={'a': 'b'}))
  with pytest.raises(UserError, match='no run is finished'):
    kept.keep(run.out, out)
  study.write(dataclasses.replace(report, study='other.py'))
  with pytest.raises(UserError, match=r'kept of .*study\.py; allowed: results of one study'):
    kept.keep(run.out, out)
  study.write(dataclasses.replace(report, hashes={}))
  with pytest.raises(UserError, match=r'has no hashes of configs; allowed: after the same sweep'):
    kept.keep(run.out, out)
  assert gzip.decompress((out / kept.ROWS).read_bytes()).count(b'\n') == 4


def test_a_run_that_others_start_from_is_run_again(run, tmp_path):
  run.path.write_text(STARTED)
  runs = sweep.plan(run.path, run.out, {})
  first, third, fourth, second = (run.name for run in runs)
  assert [run.name for run in leave_out(runs, {first, second})] == [first, third, fourth]
  assert [run.name for run in leave_out(runs, {first, third, second})] == [first, third, fourth]
  assert leave_out(runs, {first, second, third, fourth}) == []


@pytest.mark.parametrize(
  ('argv', 'reason'),
  [
    ([], '--out: must be given'),
    (['a', 'b', '--out=c'], 'allowed: DIR, such as'),
    (['nowhere', '--out=c'], 'is no folder'),
    (['configs', '--out=c'], 'no study.json; allowed: a folder where a sweep ran'),
  ],
)
def test_wrong_arguments_get_one_line(argv, reason, command, monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  code, _, error = command('scripts/keep.py', *argv)
  assert (code, error.count('\n')) == (2, 1)
  assert reason in error
