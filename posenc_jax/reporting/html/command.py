"""The command line of scripts/report.py."""

from posenc_jax import config
from posenc_jax.errors import UserError
from posenc_jax.reporting.html.sources import gather

EXTRA = ('plotly', 'jinja2', 'markupsafe')  # what the extra `report` installs


def main(argv: list[str]) -> None:
  """Makes the page that `RUNS [RUNS ...] --out=FILE [--metric=NAME] [--pictures=False]` asks for.
  Raises UserError.
  """
  paths = []
  flags, overrides = config.parse_args(
    argv, {'out': config.REQUIRED, 'metric': 'bpb', 'pictures': True}, paths
  )
  if overrides:
    raise UserError(
      f'--config.{next(iter(overrides))}: changes no run; allowed: --out, --metric, --pictures'
    )
  try:
    from posenc_jax.reporting.html import page
  except ModuleNotFoundError as error:
    if error.name not in EXTRA:
      raise
    raise UserError(
      f"{error.name} is not installed; allowed: pip install -e '.[report]'"
    ) from error
  page.check_writable(flags.out)
  page.write(flags.out, page.render(gather(paths), flags.metric, flags.pictures))
  print(flags.out)
