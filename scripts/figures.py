"""Makes the figures of a folder of runs again, from their rows alone.

python scripts/figures.py runs/quick
python scripts/figures.py results/classic --config=configs/classic.py
"""

from posenc_jax import config, report


def main(argv):
  report.of_arguments(argv).make_figures()


if __name__ == '__main__':
  config.main(main)
