"""Settings of every test: CPU, strict shapes, quick compiles. They are set before jax starts."""

import atexit
import gc
import logging
import os
import runpy
import shutil
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

# What a user's shell, a hook of git or a service that runs tests may have set, and tests do not
# expect: another repository, colors and a width, and a proxy, of which jax warns.
UNEXPECTED = ('FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE', 'COLUMNS')
for name in [*os.environ]:
  if name.startswith(('GIT_', 'WANDB_')) or '_proxy' in name.lower() or name in UNEXPECTED:
    del os.environ[name]
os.environ |= {'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_CONFIG_NOSYSTEM': '1'}
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile far more than they run. jax 0.10 can write kernels to LLVM itself, in a fourth of
# the time that it takes through MLIR; later versions cannot. There short vectors save an eighth.
QUICK_COMPILES = ['--xla_backend_optimization_level=0']
if metadata.version('jaxlib').startswith('0.10.'):
  QUICK_COMPILES += [
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
  ]
else:
  QUICK_COMPILES += ['--xla_cpu_prefer_vector_width=128']
os.environ.setdefault('XLA_FLAGS', ' '.join(QUICK_COMPILES))
# A compiler allocates and frees small things all the time. This saves a tenth of its time in the
# processes that start from here: the workers of pytest-xdist, and commands.
if sys.platform == 'linux':
  os.environ.setdefault(
    'GLIBC_TUNABLES',
    'glibc.malloc.mxfast=0:glibc.malloc.hugetlb=1:glibc.malloc.top_pad=100000000:'
    'glibc.malloc.trim_threshold=1000000000:glibc.malloc.mmap_threshold=1000000000',
  )
# Tests, the workers of pytest-xdist and the commands that tests start compile many programs
# that are equal: each is compiled once a session. Set JAX_COMPILATION_CACHE_DIR to keep them for
# the next session, which then takes a third of the time.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='posenc_jax_compiled_')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
os.environ['MPLBACKEND'] = 'Agg'
# Commands that tests start have this checkout's package, too, whichever is installed.
ROOT = str(Path(__file__).parent.parent)
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (ROOT, os.environ.get('PYTHONPATH'))))
sys.path.insert(0, ROOT)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from initial_parameters import in_few_programs, in_no_program  # noqa: E402
from small_runs import SIZES, TEXT, dotted, write_text_corpus  # noqa: E402

from posenc_jax.attention.backends import fused  # noqa: E402
from posenc_jax.cli.orbax_tracebacks import silence_tracebacks  # noqa: E402
from posenc_jax.distributed import devices  # noqa: E402
from posenc_jax.encodings.core import parameters  # noqa: E402

# What jax traces are many objects and little garbage: collected less often, that takes less time.
gc.set_threshold(50_000, 50, 50)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# Before encodings take these functions. What is compiled as users do may round otherwise at another
# length.
if '--xla_backend_optimization_level=0' in os.environ['XLA_FLAGS']:
  parameters.normal = in_few_programs(parameters.normal)
  parameters.uniform = in_few_programs(parameters.uniform)
  parameters.zeros = in_no_program(parameters.zeros)


# What few changes touch, or takes long: `.ci/run` has these files, not everyone before a commit.
OF_CI = {
  f'test_{name}.py'
  for name in (
    *('aot', 'attention_weights', 'bench', 'blind_rules', 'board', 'carried_positions'),
    *('carried_state', 'config_masks', 'conformance', 'decoding', 'dense', 'diagonals'),
    *('exporting', 'extension', 'flax_attention', 'fused', 'generation', 'gguf_file', 'grid'),
    *('init_from', 'kept', 'logsumexp', 'long_ppl', 'lora', 'lr_grid', 'masks', 'muon', 'padding'),
    *('page', 'paper_configs', 'pattern', 'planted', 'precision', 'profile_figures'),
    *('report_settings', 'resume', 'rope_scaling', 'scoring'),
    *('seeds', 'sessions', 'slurm', 'sweep', 'taken_parameters', 'text_tasks', 'token_positions'),
    *('trackers', 'triton'),
  )
}
# But these, of every case or of one, so that what is grossly broken there shows before a commit.
DAILY_OF_CI = {
  *('test_verdicts_by_the_rule', 'test_layers_and_gradients[softpick]', 'test_rope_types'),
  *('test_blocks_under_masks[nope-packed_prefix]', 'test_diagonals_equal_dense[shaw-window]'),
  *('test_study_json_holds_all_that_the_study_wanted', 'test_type_is_its_formula'),
  *('test_patterns_of_layers[windowed_t5]', 'test_what_is_no_pattern_and_no_draw'),
  *('test_it_begins_as_the_model_without', 'test_a_model_reads_its_inputs_bos_first'),
  *('test_distances_of_letters_are_those_of_a_loop', 'test_a_sentence_says_when_and_by_what'),
  'test_a_mask_that_is_an_array_equals_the_oracle[nope]',
  'test_a_rotation_of_the_page_is_rope_where_content_moves_nothing',
  'test_a_gguf_file_is_the_same_model',
  'test_a_run_of_before_fields_were_added_goes_on_and_is_evaluated_as_ever',
  'test_directions_of_an_update_have_steps_of_a_size_and_elements_that_of_adamw',
  'test_every_run_is_trained_and_evaluated_and_reported_once',
  'test_interpreted_kernels_equal_dense[stick_breaking-causal]',
  'test_interpreted_kernels_equal_dense[t5-bidirectional]',
  'test_parameters_of_a_run_move_with_the_encoding_that_holds_them',
  'test_random_positions_are_different_and_in_order',
  'test_rows_are_those_of_each_document_and_depth',
  'test_scores_that_divide_by_norms_of_queries_and_keys[blockwise-tile0]',
  'test_the_log_sum_exp_is_that_of_the_oracle[dense-sink-softcap]',
}
# Single tests that take seconds each, of files whose other tests are those of every day.
LONG = {
  'test_a_helper_beside_a_study_is_no_script_of_the_same_name',
  'test_a_run_of_no_steps_needs_no_text_and_keeps_no_moments',
  'test_a_run_on_integers_scores_and_writes_them',
  'test_a_training_that_ends_says_how_it_is_evaluated_but_not_in_a_sweep',
  'test_all_checkpoints_damaged_are_an_error_that_removes_nothing',
  'test_alibi_of_two_axes_is_that_of_croma',
  'test_an_import_needs_no_accelerator',
  'test_bfloat16_far_out_is_as_near_to_float32_as_its_rounding',
  'test_cayley_string_starts_as_rope_in_its_own_basis',
  'test_controls_of_a_task_are_what_the_model_says_of_single_examples',
  'test_documents_that_are_joined_with_nothing_between_are_said_to_be',
  'test_documents_that_are_too_short_are_said_to_be_left_out',
  'test_gradient_of_blockwise_attention_is_linear_in_memory',
  'test_gradients_by_input_hold_activations_of_one_layer_at_a_time',
  'test_harope_starts_as_rope_in_channels_of_its_own',
  'test_heads_of_members_are_those_of_layers_of_their_own',
  'test_intervals_of_all_lines_are_as_wide_as_the_largest_difference_needs',
  'test_jordan_rope_is_the_published_form_of_queries_and_keys',
  'test_lines_of_a_folder_take_little_memory',
  'test_matrices_of_layers_are_held_in_bfloat16_and_score_the_same',
  'test_no_flipped_bit_of_a_row_is_overlooked',
  'test_other_resamples_would_hardly_move_an_interval',
  'test_over_epochs_the_cuts_of_one_long_document_take_every_phase',
  'test_pape_ri_is_alike_in_all_directions',
  'test_prepare_data_says_how_often_a_training_has_the_largest_sizes',
  'test_processes_that_build_at_once_agree',
  'test_the_standard_library_is_no_code_of_an_encoding_where_python_names_it_by_a_link',
  'test_very_many_notes_leave_room_for_the_curves',
  'test_what_has_no_second_derivative_says_so',
  'test_who_does_not_find_the_others_says_so_in_one_line',
}
OTHER_MARKERS = ('slow', 'gpu', 'tpu', 'browser', 'slurm', 'aot', 'fused')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  for item in items:
    if DAILY_OF_CI & {item.name, item.originalname}:
      continue
    is_of_ci = item.path.name in OF_CI or item.originalname in LONG
    if is_of_ci and not any(map(item.get_closest_marker, OTHER_MARKERS)):
      item.add_marker('ci')


@pytest.fixture(scope='session', autouse=True)
def kernels_of_any_jax():
  """Tests ask for kernels for TPUs under any jax: those that compile none leave it to others."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fused, 'OLDEST_JAX', (0,))
    yield


@pytest.fixture
def command(monkeypatch, capsys):
  """(script, *arguments) -> (exit code, stdout, stderr); in this process, for jax takes seconds to
  start.
  """
  monkeypatch.setattr(devices, 'enable_compilation_cache', lambda folder: None)

  def run(script, *arguments):
    monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
      runpy.run_path(os.path.join(ROOT, script), run_name='__main__')
    return end.value.code, *capsys.readouterr()

  return run


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  """A folder of text to train and validate on."""
  texts = dict.fromkeys(('train', 'validation'), (TEXT,))
  return write_text_corpus(tmp_path_factory.mktemp('corpus'), texts)


@pytest.fixture(scope='module')
def letters(tmp_path_factory):
  """A folder of random letters to evaluate on."""
  draw = np.random.default_rng(0)
  texts = [draw.integers(97, 123, size, np.uint8).tobytes() for size in (90, 20, 33, 50, 70)]
  return write_text_corpus(tmp_path_factory.mktemp('letters'), {'test': texts})


@pytest.fixture
def documents():
  """No token is 0, which pads; the tokens of document d are d * 64 + 1 and up, none twice."""
  return [np.arange(size) + 64 * d + 1 for d, size in enumerate(SIZES)]


# What the next ones import takes seconds, and few tests need it.


@pytest.fixture
def make_run(letters, tmp_path):
  """make_run(step, a__b=value) -> (config, directory, model) of a run as a training leaves it."""
  from test_evaluation import made_run

  return lambda step=3, **fields: made_run(tmp_path / 'run', letters, dotted(fields), step)


@pytest.fixture
def measured(letters, tmp_path):
  """measured(a__b=value) -> (what a stub was asked, rows of eval.jsonl after its evaluation)."""
  from test_evaluation import measure_stub

  return lambda **fields: measure_stub(letters, tmp_path, dotted(fields))


@pytest.fixture(scope='module')
def libtpu():
  """What libtpu reads when it starts, for as long as the tests of a module take."""
  from scripts.aot import targets

  if reason := targets.missing('tpu'):
    pytest.skip(reason)
  with pytest.MonkeyPatch.context() as patch:
    for name, value in targets.ENVIRONMENT.items():
      patch.setenv(name, value)
    yield


@pytest.fixture
def orbax_is_silent(monkeypatch):
  """Hides, as commands do, what Orbax logs of errors that it raises as well."""
  for name in ('absl', 'asyncio'):
    monkeypatch.setattr(logging.getLogger(name), 'filters', [])
  for hook in ('excepthook', 'unraisablehook'):
    monkeypatch.setattr(sys, hook, getattr(sys, hook))
  silence_tracebacks()


@pytest.fixture
def orbax_cleans_up():
  """Collects the coroutines that Orbax leaves behind after failed reads and writes, so that they do
  not warn in the middle of another test.
  """
  yield
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    gc.collect()
