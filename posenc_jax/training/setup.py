"""Prepares a training: data, mesh, model and step functions, then the state that it starts from."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.stages import Compiled, Lowered
from ml_collections import ConfigDict

from posenc_jax import data, storage
from posenc_jax.config import check_laid_over, flat, saved_config, single_seed_runs
from posenc_jax.distributed import mesh as meshes
from posenc_jax.distributed.processes import (
  check_alike,
  check_shared,
  device_put_global,
  is_multiprocess,
  primary_context,
  run_on_primary,
)
from posenc_jax.encodings import LengthError
from posenc_jax.errors import UserError, user_errors
from posenc_jax.model.decoder import build, shapes
from posenc_jax.model.fits_data import check_fits_data
from posenc_jax.rows import sessions
from posenc_jax.training import multi_seed, own_tokenizer, provenance, run_dir
from posenc_jax.training.built_in import built_in_values, check_built_in
from posenc_jax.training.checkpoints import Checkpoints, latest_step, leaves_by_path
from posenc_jax.training.init_from import (
  all_taken,
  check_lora,
  filled,
  finished_parameters,
  taken_from,
)
from posenc_jax.training.optimizer import NO_OPTIMIZER, check_trained_parameters, make_optimizer
from posenc_jax.training.own_encodings import user_code_hashes
from posenc_jax.training.step import make_step_fns
from posenc_jax.training.taken_parameters import Parameters, parameters_in

# Fields in which processes of one training may differ.
OF_EACH_PROCESS = ('launch.', 'data.cache', 'train.trackers')


@dataclasses.dataclass
class Training:
  """What the loop needs. With seeds in one program, arrays of the state have a first axis
  [seeds].
  """

  config: ConfigDict
  workdir: Path  # it holds the checkpoints of all seeds
  seed_runs: list[tuple[ConfigDict, Path]]  # config and directory of each seed
  corpus: data.Corpus | data.TaskCorpus  # its training split
  val_corpus: data.Corpus | data.TaskCorpus  # its validation split
  train_batches: list[data.Batches | data.TaskBatches]  # of each seed
  val_batches: data.Batches | data.TaskBatches | None  # the same for all seeds
  mesh: Mesh
  model: nnx.Module
  opt_state: tuple
  source: str | None = None  # SHA-256 of the pretrained model that parameters come from
  # As `init_from.all_taken` gives them; then `model` has shapes alone.
  taken: tuple[Parameters, dict[str, str]] | None = None
  # That of the latest checkpoint; where there is one, model and opt_state may be shapes until
  # `restored` fills them.
  start_step: int = 0
  train_step: Lowered | Compiled | None = None
  val_step: Lowered | Compiled | None = None

  def compile(self) -> None:
    self.train_step, self.val_step = self.train_step.compile(), self.val_step.compile()

  @property
  def seed_dirs(self) -> list[Path]:
    """The directory of each seed; of a run without `seeds`, its own."""
    return [folder for _, folder in self.seed_runs]

  def train_iter(self) -> Iterator[tuple[int, list[data.Batch]]]:
    """Yields each step after `start_step` with the batch of every seed, on the host."""
    for step in range(self.start_step + 1, self.config.train.steps + 1):
      number = self.batch_number(step)
      yield step, [batches[number] for batches in self.train_batches]

  def batch_number(self, step: int) -> int:
    """The index in `train_batches` of what a step reads; steps count from 1."""
    return self.config.train.first_batch + step - 1

  def put_train_batch(self, seed_batches: list[data.Batch]) -> data.Batch:
    spec = meshes.SEED_TOKENS if self.config.seeds else meshes.TOKENS
    batch = multi_seed.stack(seed_batches, self.config.seeds)
    return device_put_global(batch, NamedSharding(self.mesh, spec))

  def val_batch(self, number: int) -> data.Batch:
    """A batch of validation, with a tuple of masks: of what counts, and of what an earlier place in
    the same window decides, where a corpus knows that.
    """
    batch = self.val_batches[number]
    recalled = self.val_corpus.recalled(batch)
    more = () if recalled is None else (recalled,)
    return batch._replace(scored_BT=(batch.scored_BT, *more))

  def put_val_batch(self, batch: data.Batch) -> data.Batch:
    return device_put_global(batch, NamedSharding(self.mesh, meshes.TOKENS))


def prepare(config: ConfigDict, workdir: Path) -> Training:
  """Makes data, model and lowered step functions; nothing is written or compiled. A run of no steps
  has neither batches nor step functions, nor an optimizer with moments; where it takes all of its
  parameters from the run that it starts from, these are not read. None is drawn where all come from
  that run, or `restored` reads them from a checkpoint: a device may have no room for both.

  Raises UserError where the config cannot be trained, or another of several processes has another
  config, code, text or tokenizer.
  """
  c = config.train
  seed_runs = single_seed_runs(config, workdir)
  has_taken = run_on_primary(run_dir.takes_parameters, workdir)
  saved_step = latest_step(workdir)
  begins = saved_step is None and not has_taken
  tokenizer = None
  if c.init_from or config.data.tokenizer == 'sentencepiece':
    first, folder = seed_runs[0]  # once it has begun, the run that it started from may be gone
    before = first.train.init_from if begins else folder
    tokenizer = own_tokenizer.kept_tokenizer(before, config.data)
  # A run of no steps reads no text, and its corpus may have none but that of its evaluation.
  open_split = data.opened if c.steps else data.without_documents
  splits = 'train', 'validation'
  corpus, val_corpus = (open_split(config.data, split, tokenizer) for split in splits)
  configs = [config, *(run for run, _ in seed_runs)]
  _check_processes(configs, corpus, val_corpus)  # before they compute anything together

  with user_errors(ValueError):
    mesh = meshes.make_mesh(config.mesh)
    as_shapes = shapes(seed_runs[0][0], corpus.vocab)
    if config.mesh.fsdp > 1:
      meshes.check_cut(as_shapes, mesh.shape)
    check_fits_data(config, as_shapes, corpus)
  check_trained_parameters(config, as_shapes)
  check_lora(seed_runs[0][0])
  source, taken = None, None
  if c.init_from and begins:
    _check_start(seed_runs, corpus.tokenizer_sha256)
    source = provenance.source_of(seed_runs[0][0].train.init_from)
    if not c.steps and not config.seeds:
      taken = all_taken(c.init_from, as_shapes, config)
  train_batches, val_batches = [], None
  if c.steps:  # text is cut into tokens here, which may take long: after what is refused above
    # A batch is a pure function of seed and number: to resume, no iterator has to be restored.
    train_batches = [corpus.batches(c.length, c.batch, run.seed) for run, _ in seed_runs]
    val_batches = val_corpus.batches(c.length, c.batch, seed=0)
  optimizer = NO_OPTIMIZER
  if c.steps:
    optimizer = make_optimizer(config.optim, c.steps, c.trained_parameters)
  held = parameters_in(workdir, as_shapes=not c.steps) if has_taken else None
  if taken or (held and not c.steps):
    model, opt_state = as_shapes, ()
  elif saved_step and 0 not in run_on_primary(run_dir.checkpoint_steps, workdir):
    # that of step 0, which is read where later ones are damaged, has no optimizer's state
    model, opt_state = _state_as_shapes(mesh, [as_shapes] * len(seed_runs), optimizer, config.seeds)
  else:
    if c.init_from and begins:
      placed = _placed(mesh, as_shapes)
      models = [
        finished_parameters(
          run.train.init_from, placed, run, functools.partial(_parameters, mesh, run, corpus.vocab)
        )
        for run, _ in seed_runs
      ]
    else:
      models = [_model(mesh, run, corpus.vocab) for run, _ in seed_runs]
    if held:  # it is to be trained now
      models = [filled(models[0], held.leaves)]
    model, opt_state = _state(mesh, models, optimizer, config.seeds)

  training = Training(
    config,
    workdir,
    seed_runs,
    corpus,
    val_corpus,
    train_batches,
    val_batches,
    mesh,
    model,
    opt_state,
    source,
    taken,
    saved_step or 0,
  )
  if not c.steps:
    return training
  train_step, val_step = make_step_fns(config, optimizer, corpus.largest_position(c.length))
  some_batch = [batches[0] for batches in train_batches]
  with (
    user_errors(LengthError, NotImplementedError),
    jax.set_mesh(mesh),
    jax.default_matmul_precision(c.matmul_precision),
  ):
    batch = training.put_train_batch(some_batch)
    training.train_step = train_step.lower(model, opt_state, batch)
    training.val_step = val_step.lower(model, training.put_val_batch(training.val_batch(0)))
  return training


def _check_start(seed_runs: list[tuple[ConfigDict, Path]], tokenizer_sha256: str | None) -> None:
  """Raises UserError where a run that one of the seeds starts from reads text otherwise, or where
  one of no steps lays over it what evaluation would not.
  """
  for run, _ in seed_runs:
    start = run.train.init_from
    if not storage.exists(Path(start) / 'config.json'):  # refused later: there is no run
      continue
    if not run.train.steps:
      read = 'attention.sink_tokens', 'encoding.name', 'train.length'
      check_laid_over(saved_config(start, *read), run)
    allowed = f'its tokenizer: {taken_from(start)}'
    own_tokenizer.check_same_tokenizer(start, tokenizer_sha256, run_dir.STARTS_FROM, allowed)


def _check_processes(configs: list[ConfigDict], *corpora) -> None:
  """Raises UserError where processes would not run one program, or not on the same data."""
  if not is_multiprocess():
    return
  listings = [corpus.listing for corpus in corpora]
  check_alike(
    {
      'config': [
        sorted(field for field in flat(c).items() if not field[0].startswith(OF_EACH_PROCESS))
        for c in configs
      ],
      'the code of posenc_jax': sessions.package_hash(),
      'the code of encodings of your own': user_code_hashes(configs[0]),
      'the tokenizer of config.data': corpora[0].tokenizer_sha256,
      'the text of config.data.corpus': [listing and listing.sha256 for listing in listings],
    }
  )


def _model(mesh: Mesh, run: ConfigDict, vocab: int) -> nnx.Module:
  """The model that a run begins with: on one device, or cut over those of a mesh."""
  make = lambda: build(run, vocab, nnx.Rngs(run.seed))
  with user_errors(ValueError):
    return _made_in_shards(mesh, make) if meshes.cuts_parameters(mesh) else make()


def _parameters(mesh: Mesh, run: ConfigDict, vocab: int, paths: Collection[str]) -> dict:
  """{path: parameter} of these paths in what `_model` gives. Devices that share the model make no
  others: all of them may have no room beside those that are taken from a run.
  """

  def make():
    leaves = leaves_by_path(build(run, vocab, nnx.Rngs(run.seed)))
    return {path: leaves[path] for path in paths}

  with user_errors(ValueError):
    return _made_in_shards(mesh, make) if meshes.cuts_parameters(mesh) else make()


def _placed(mesh: Mesh, as_shapes: nnx.Module) -> nnx.Module:
  """The shapes of a model with the shardings of what `_model` gives."""
  if meshes.cuts_parameters(mesh):
    return _with_shardings(as_shapes, meshes.parameter_shardings(mesh, as_shapes))
  one = SingleDeviceSharding(jax.local_devices()[0])
  return _with_shardings(as_shapes, jax.tree.map(lambda x: one, as_shapes))


def _with_shardings(shapes, shardings):
  """A tree of shapes with a sharding for each."""
  placed = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  return jax.tree.map(placed, shapes, shardings)


def _state(mesh: Mesh, models: list, optimizer, seeds: tuple[int, ...]) -> tuple:
  """The model of all seeds and its optimizer's state, on the devices of the mesh."""
  make = _new_state(optimizer, seeds)
  if meshes.cuts_parameters(mesh):
    return _made_in_shards(mesh, make, models, has_seed_axis=bool(seeds))
  state = make(models)
  shardings = meshes.parameter_shardings(mesh, state, has_seed_axis=bool(seeds))
  return device_put_global(state, shardings)


def _state_as_shapes(mesh: Mesh, models: list, optimizer, seeds: tuple[int, ...]) -> tuple:
  """What `_state` gives, as shapes with shardings, of models that are shapes."""
  shapes = jax.eval_shape(_new_state(optimizer, seeds), models)
  return _with_shardings(shapes, meshes.parameter_shardings(mesh, shapes, bool(seeds)))


def _new_state(optimizer, seeds: tuple[int, ...]) -> Callable[[list], tuple]:
  """The function from the models of all seeds to them as one and its optimizer's state."""
  return lambda models: multi_seed.stack([(m, optimizer.init(m)) for m in models], seeds)


def _made_in_shards(mesh: Mesh, make: Callable, *given, has_seed_axis: bool = False):
  """make(*given), a tree of parameters, where each device makes its own shards alone: a whole one
  may be more than it can hold. What is given is donated, but for seeds, which are stacked.
  """
  shapes = jax.eval_shape(make, *given)
  shardings = meshes.parameter_shardings(mesh, shapes, has_seed_axis)
  donated = () if has_seed_axis else range(len(given))
  return jax.jit(make, out_shardings=shardings, donate_argnums=donated)(*given)


@contextlib.contextmanager
def restored(
  training: Training, of_all_seeds: tuple[ConfigDict, str | Path] | None = None
) -> Iterator[Checkpoints]:
  """Locks the directories of a training, restores its last checkpoint, and yields the checkpoints.

  Args:
    of_all_seeds: (config, directory) of the run of all seeds, which gets more steps when this one,
      of a single seed, does; None: there is none.
  Raises:
    UserError: a directory holds another run, or its checkpoints cannot be used.
  """
  config, workdir = training.config, training.workdir
  if config.seeds:  # before anything is claimed
    check = multi_seed.check_no_single_seed_checkpoints
    run_on_primary(check, training.seed_dirs, latest_step(workdir) or 0)
  listings = training.corpus.listing, training.val_corpus.listing
  with contextlib.ExitStack() as stack:
    stack.enter_context(primary_context(run_dir.locked_run_dir(workdir, config)))
    check_shared(workdir)
    if config.seeds:
      for seed_config, folder in training.seed_runs:
        stack.enter_context(primary_context(run_dir.locked_run_dir(folder, seed_config)))
    kept = config.train.max_to_keep, config.train.keep_every
    checkpoints = stack.enter_context(Checkpoints(workdir, *kept))
    has_taken = run_on_primary(run_dir.takes_parameters, workdir)
    begins = checkpoints.latest is None and not has_taken
    if begins and training.start_step:
      again = 'the same command again, which trains from the start'
      raise UserError(f'{workdir}: its checkpoints were removed meanwhile; allowed: {again}')
    learned = getattr(training.corpus, 'tokenizer', data.BYTES).learned
    for run, folder in training.seed_runs:
      made_of = provenance.MadeOf(
        training.corpus.tokenizer_sha256,
        learned,
        listings,
        user_code_hashes(run),
        training.source,
        run.train.init_from,
        built_in_values(run),
      )
      if not begins:
        run_on_primary(check_built_in, folder, run)
      run_on_primary(provenance.claim, folder, made_of, begins)
    if not has_taken:
      state, training.start_step = checkpoints.restore(
        model=training.model, opt_state=training.opt_state
      )
      training.model, training.opt_state = state['model'], state['opt_state']
    # last: what is refused above stays as it was, and finished
    extended = [(config, workdir), *training.seed_runs, *filter(None, [of_all_seeds])]
    for run, folder in extended:
      run_on_primary(run_dir.extend, folder, run)
    yield checkpoints
