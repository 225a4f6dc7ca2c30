"""Makes one HTML page of runs, with curves to switch and to point at.

python scripts/html_report.py runs/quick --out=report.html
python scripts/html_report.py results/classic runs/mine --out=report.html --metric=ppl

RUNS: folders of runs, single runs, folders of kept rows, or files of rows. --metric: bpb or ppl.
The page needs no network when it is opened. First: pip install -e '.[report]'
"""

from posenc_jax import cli
from posenc_jax.errors import not_installed, visible

EXTRA = ('plotly', 'jinja2', 'markupsafe')  # what the extra `report` installs


def main(argv):
  paths = []
  defaults = {'out': cli.REQUIRED, 'metric': 'bpb'}
  flags, _ = cli.parse_args(argv, defaults, paths, takes_overrides=False)
  try:
    from posenc_jax.reporting.html import page
  except ModuleNotFoundError as error:
    if error.name not in EXTRA:
      raise
    raise not_installed(f'--out={flags.out}', error.name, 'report') from error
  from posenc_jax.reporting.html.gathered import gather

  cli.check_file(f'--out={flags.out}', flags.out)
  gathered = gather(paths)
  page.write(flags.out, page.render(gathered, flags.metric))
  print(visible(flags.out))


if __name__ == '__main__':
  cli.main(main)
