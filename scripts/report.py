"""Makes one HTML page of runs, with curves to switch and to point at; it needs no network when it
is opened.

python scripts/report.py runs/quick --out=report.html
python scripts/report.py results/classic runs/mine --out=report.html --metric=ppl --pictures=False

RUNS: folders of runs, single runs, folders of kept rows, or files of rows. --metric: bpb or ppl.
--pictures: of what the encodings say about distance, as they start. First: pip install -e
'.[report]'
"""

from posenc_jax import config
from posenc_jax.reporting.html import command


def main(argv):
  command.main(argv)


if __name__ == '__main__':
  config.main(main)
