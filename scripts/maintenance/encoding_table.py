"""Prints the page ENCODINGS.md: what every encoding does, costs and is reported to do.

  python scripts/maintenance/encoding_table.py > ENCODINGS.md

Where an encoding acts, what it costs and which backends take it is asked of its hooks; its own
parameters and what is claimed of it are words beside its formula. Methods that have another name
here or are left out stand in encoding_table/page.md. A test holds ENCODINGS.md to what is printed
here.
"""

from posenc_jax import cli


def main(argv):
  cli.parse_args(argv, {}, takes_overrides=False)
  from posenc_jax.attention.backends import fused
  from scripts.maintenance.encoding_table import page

  fused.OLDEST_JAX = (0,)  # the page is the same under any jax
  print(page.markdown(), end='')


if __name__ == '__main__':
  cli.main(main)
