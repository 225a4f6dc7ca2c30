"""What the flags of scripts/figures.py ask for."""

import functools
import re
from pathlib import Path

from posenc_jax import config
from posenc_jax.errors import UserError
from posenc_jax.reporting.mpl.classic import CLASSIC
from posenc_jax.reporting.mpl.profiles import draw

SIZES = {'length': 512, 'heads': 8, 'head_dim': 64, 'train_length': 512, 'samples': 256, 'seed': 0}


def main(argv: list[str]) -> None:
  """Draws what the flags ask for into the folder OUT. Raises UserError."""
  flags, overrides = config.parse_args(
    argv, {'encoding': '', 'classic': False, 'out': config.REQUIRED, **SIZES}
  )
  sizes = {name: getattr(flags, name) for name in SIZES}
  if overrides:
    raise UserError(
      f'--config.{next(iter(overrides))}: hyperparameters stand in --encoding=NAME/hyper=value'
    )
  if bool(flags.encoding) == flags.classic:
    raise UserError('--encoding=NAME or --classic: one of them must be given')
  if flags.classic and sizes != SIZES:
    raise UserError(
      f'--{next(n for n in SIZES if sizes[n] != SIZES[n])}: goes with --encoding only'
    )
  if flags.encoding:
    made = {
      re.sub(r'[^\w.=-]+', '_', flags.encoding): functools.partial(draw, flags.encoding, **sizes)
    }
  else:
    made = CLASSIC
  for name, function in made.items():
    figure, path = function(), Path(flags.out) / f'{name}.png'
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
      raise UserError(
        f'--out={flags.out}: a file is there; allowed: a folder, which need not exist'
      ) from None
    figure.savefig(path, dpi=200)
    print(path)
