"""Writes text with a trained run: a prompt, and the tokens that the run draws after it.

  python scripts/generate.py --workdir=runs/base --prompt='My fellow citizens' --tokens=200
  python scripts/generate.py --workdir=runs/base --temperature=0
  python scripts/generate.py --workdir=runs/base --top_k=40 --top_p=0.9 --seed=1
  python scripts/generate.py --workdir=runs/rope --tokens=1000 --config.attention.window=128
  python scripts/generate.py --workdir=runs/base --step=500

The model reads its BOS and then the prompt as it stands: one that begins with BOS gets no second,
and no chat template is applied.
--prompt_file=FILE reads the prompt from a file, - from stdin. --temperature=0 takes the likeliest
token each time. --top_k and --top_p leave only the likeliest tokens to draw from. A model that was
imported, or tuned from one, writes up to its end of text, with --ignore_eos beyond it.
With --step it writes with the checkpoint of that step in the place of the last one, if the run
keeps it (config.train.max_to_keep and keep_every).
--config.FIELD=VALUE changes the run's attention or encoding, as in eval.py; --config=STUDY.py is
needed only for an encoding that the study registers. The text goes to stdout, with a mark in the
place of what would control a terminal, and the speed to stderr.
"""

import codecs
import re
import sys
import time
from pathlib import Path

from posenc_jax import cli, config
from posenc_jax.errors import UserError

LESS_MEMORY = (
  'a smaller model, whose parameters take 4 bytes each on one device; for the cache, a shorter '
  'prompt or fewer --tokens'
)
# Controls but for tabs and line breaks, surrogates, and marks that turn the direction of writing.
CONTROLS = '(?!\r\n)[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]'
FLAGS = {
  'workdir': cli.REQUIRED,
  'config': '',
  'step': -1,
  'prompt': '',
  'prompt_file': '',
  'tokens': 200,
  'temperature': 0.8,
  'top_k': 0,
  'top_p': 1.0,
  'seed': 0,
  'ignore_eos': False,
}


def main(argv):
  flags, overrides = cli.parse_args(argv, FLAGS)
  if flags.config:
    config.load_study(flags.config, needs_config=False)
  run = config.trained_config(flags.workdir, overrides)

  from posenc_jax.distributed import memory
  from posenc_jax.evaluation import generation, runs  # jax takes seconds to import: after the check

  if not flags.config:
    runs.check_registered(run, overrides)
  cli.keep_compiled_programs()
  sampling = generation.Sampling(flags.temperature, flags.top_k, flags.top_p, flags.seed)
  prompt = read_prompt(flags.prompt, flags.prompt_file)
  at = None if flags.step == -1 else flags.step
  pieces = generation.generate(
    run, flags.workdir, prompt, flags.tokens, sampling, flags.ignore_eos, at
  )
  with memory.memory_errors(LESS_MEMORY):
    write(prompt, pieces)


def read_prompt(prompt: str, file: str) -> bytes:
  if prompt and file:
    raise UserError('--prompt_file: with --prompt; allowed: one of the two')
  if file == '-':
    return sys.stdin.buffer.read()
  try:
    # Bytes of the command line that are not UTF-8 are surrogates.
    return Path(file).read_bytes() if file else prompt.encode('utf-8', 'surrogateescape')
  except OSError as error:
    raise UserError(f'--prompt_file={file!r}: {error.strerror}; allowed: a file, or -') from None


def write(prompt: bytes, pieces) -> None:
  """Prints the prompt and each piece of bytes as soon as it is there, then how fast they came. A
  character may begin in one and end in the next.
  """
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  times, text = [], decoder.decode(prompt)  # not printed yet: the first piece may be an error
  for piece in pieces:
    times.append(time.perf_counter())
    text += decoder.decode(piece)
    whole = text.removesuffix('\r')  # which is a line break if a '\n' comes next
    print(printable(whole), end='', flush=True)
    text = text[len(whole) :]
  print(printable(text + decoder.decode(b'', final=True)))
  if len(times) > 2:  # the first two compile: they have different numbers of tokens before them
    speed = (len(times) - 2) / (times[-1] - times[1])
    print(f'{len(times)} tokens, {speed:,.0f} tokens/s', file=sys.stderr)


def printable(text: str) -> str:
  """The text with a mark in the place of what would control a terminal."""
  return re.sub(CONTROLS, '\N{REPLACEMENT CHARACTER}', text)


if __name__ == '__main__':
  cli.main(main)
