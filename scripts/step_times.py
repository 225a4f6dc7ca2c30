"""Times a training step of each line of a study, all lines in turn: the times of the board.

  python scripts/step_times.py --config=configs/studies/board.py --out=results/board

What runs log depends on what else their machine did. Here every line makes a step, then every line
the next one, so that other work meets all alike, and each round begins with another line, as its
first step may be slower. OUT/step_times.jsonl gets the median of each line, of a label and a
training length, with its quartiles and the seconds of each round, of which ratios within a round
can be taken; scripts/board.py reads it in the place of the runs' own times.

--beside: another study, whose lines `rope` are timed, too: times of the board are relative to them.
--rounds: how many steps of each line are timed, after one that is not; of an even number, two lines
  are first equally often.
"""

import collections
import time
from pathlib import Path

from posenc_jax import cli, config
from posenc_jax.errors import UserError
from posenc_jax.reporting import costs
from posenc_jax.reporting.board import lines
from posenc_jax.rows import sessions

FLAGS = {'config': cli.REQUIRED, 'out': cli.REQUIRED, 'beside': '', 'rounds': 16}


# Sections and fields that change nothing of what a step costs.
SAME_STEPS = tuple(
  f'{name}.'
  for name in (
    *('label', 'seed', 'eval', 'launch', 'data.cache'),
    *('train.steps', 'train.init_from', 'train.init_step', 'train.first_batch', 'train.log_every'),
    *('train.validate_every', 'train.validate_batches', 'train.checkpoint_every'),
    *('train.max_to_keep', 'train.keep_every', 'train.trackers', 'train.profile_steps'),
    *('optim.learning_rate', 'optim.warmup', 'optim.final_fraction', 'optim.decay'),
    'optim.decay_steps',
  )
)


def main(argv):
  flags, overrides = cli.parse_args(argv, FLAGS, lists_fields=True)
  if flags.rounds < 1:
    raise UserError(f'--rounds={flags.rounds}; allowed: 1 or more')
  cli.check_folder(f'--out={flags.out}', flags.out)
  from posenc_jax import sweep
  from scripts.bench.measure import quartiles

  planned = sweep.plan(flags.config, flags.out, overrides)
  if flags.beside:
    # nothing is written there; its runs may have names of runs that are in --out
    beside = sweep.plan(flags.beside, Path(flags.out, 'beside'), overrides)
    planned = [run for run in beside if label(run.config) == lines.ROPE] + list(planned)
  configs = {}
  for run in planned:
    (c, _), *_ = config.single_seed_runs(run.config, run.workdir)  # steps of one seed are timed
    if c.train.steps:
      if max(c.mesh.data, c.mesh.fsdp, c.mesh.context) > 1:
        raise UserError('config.mesh: steps are measured on one device; allowed: no mesh')
      line = label(c), c.train.length
      differing = config.differing_keys(configs.setdefault(line, c), c)
      if differing := [field for field in differing if not f'{field}.'.startswith(SAME_STEPS)]:
        problem = f'{line[0]} at {line[1]} tokens differs in {min(differing)}'
        raise UserError(f'--config={flags.config}: {problem}; allowed: a label for each line')
  if not configs:
    raise UserError(f'--config={flags.config}: trains nothing; allowed: a study that trains')
  times, shared_fields = measure(configs, flags.rounds), circumstances()
  rows = [
    {'label': name, 'train_length': length}
    | dict(zip(('q1', 'seconds_per_step', 'q3'), quartiles(seconds), strict=True))
    | {'seconds': seconds, 'steps': len(seconds)}
    | shared_fields
    for (name, length), seconds in times.items()
  ]
  cli.make_folder(flags.out)
  costs.write_step_times(flags.out, rows)
  for row in rows:
    q1, median, q3 = (f'{1e3 * row[name]:.1f}' for name in ('q1', 'seconds_per_step', 'q3'))
    print(f'{row["label"]}, L = {row["train_length"]}: {median} ms [{q1}, {q3}]')


def label(c) -> str:
  """The label of the rows that runs of this config write."""
  return c.label or c.encoding.name


def measure(configs: dict, rounds: int) -> dict:
  """{line: the seconds of each of its steps}, for {line: its config}, made in turn."""
  import numpy as np

  from posenc_jax import data
  from scripts.aot import programs
  from scripts.bench import jax_cases

  cli.keep_compiled_programs()
  steps = {}
  for line, c in configs.items():
    shape, symbols = (c.train.batch, c.train.length), data.vocab(c.data) - 1
    tokens_BT = np.random.default_rng(0).integers(0, symbols, shape, dtype=np.int32)
    steps[line] = jax_cases.step_of_config(c, *programs.first_batch(c, tokens_BT))
    steps[line].call()
    print(f'{line[0]}, L = {line[1]}: compiled', flush=True)
  seconds = {line: [] for line in configs}
  turns = collections.deque(steps)
  for n in range(rounds + 1):
    for line in turns:
      begin = time.perf_counter()
      steps[line].call()
      if n:
        seconds[line].append(time.perf_counter() - begin)
    turns.rotate(-1)
  return seconds


def circumstances() -> dict:
  """When steps were timed, by which code and jax, and on what."""
  import jax

  commit, is_edited = sessions.code()
  versions = {'jax': jax.__version__, 'commit': commit, 'is_edited': is_edited}
  return {'date': sessions.now(), 'processor': processor()} | versions


def processor() -> str:
  """What the machine calls the processor that jax computes on."""
  import jax

  device = jax.devices()[0]
  return sessions.processor() if device.platform == 'cpu' else device.device_kind


if __name__ == '__main__':
  cli.main(main)
