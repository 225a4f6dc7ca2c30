"""Makes the figures of a folder of runs again, from their rows alone; or pictures of the encodings
themselves.

python scripts/figures.py runs/quick
python scripts/figures.py results/classic --config=configs/classic.py
python scripts/figures.py --encoding=rope/base=500000 --out=runs/pictures
python scripts/figures.py --classic --out=runs/pictures

--encoding: any, with hyperparameters as in NAME/hyper=value: what position adds to a score, against
distance, one line a head, at initialization. --classic: the sinusoid, RoPE's long-term decay, ALiBi
and KERPLE, T5's buckets.
"""

from posenc_jax import config, errors
from posenc_jax.reporting import study


def main(argv):
  if not argv:
    pictures = '--encoding=NAME --out=DIR; --classic --out=DIR'
    raise errors.UserError(
      f'no arguments; allowed: DIR, such as runs/quick, and --config=STUDY; {pictures}'
    )
  if argv[0].startswith('-') and not argv[0].startswith('--config'):
    from posenc_jax.reporting.mpl import command  # it needs jax, and rows do not

    return command.main(argv)
  study.of_arguments(argv).make_figures()


if __name__ == '__main__':
  config.main(main)
