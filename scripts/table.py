"""Makes the tables of a folder of runs again, from their rows alone.

python scripts/table.py runs/quick
python scripts/table.py results/classic --config=configs/classic.py
python scripts/table.py results/classic --out=runs/classic_again
python scripts/table.py runs --baseline=alibi

The folder's study.json says which: what `table()` of the study gave when its sweep ran, a form of
posenc_jax.reporting.table_forms.FORMS and its settings, such as dict(form='methods', metric='ppl'),
or a list of these. --config: a study whose `table()` says it instead; it is executed, and nothing
else is. --baseline: the line that others are compared with, in the place of what these say. --out:
the folder to write to, where DIR is not to be written.
"""

from posenc_jax import cli
from posenc_jax.reporting import study


def main(argv):
  study.of_arguments(argv, of_tables=True).write_tables()


if __name__ == '__main__':
  cli.main(main)
