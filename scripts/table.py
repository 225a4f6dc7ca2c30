"""Makes the tables of a folder of runs again, from their rows alone.

python scripts/table.py runs/quick
python scripts/table.py results/classic --config=configs/classic.py
"""

from posenc_jax import config, report


def main(argv):
  report.of_arguments(argv).make_tables()


if __name__ == '__main__':
  config.main(main)
