"""Adds the line of an n-gram model to a study: what the nearest tokens alone are worth.

  python scripts/ngram.py --config=configs/classic.py --config.seeds=0,1,2,3,4 \\
      --workdir=runs/classic/ngram --context=5
  python scripts/table.py runs/classic

It is counted from the very batches that a run of each seed trains on, or with --whole_split from
all of the training split, and scored as the study's runs are, on the same targets. --smoothing is
witten_bell or kneser_ney (better). A minute a seed; nothing is trained.
"""

from posenc_jax import cli, config


def main(argv):
  flags, overrides = cli.parse_args(
    argv,
    {
      'config': cli.REQUIRED,
      'workdir': cli.REQUIRED,
      'context': 5,
      'smoothing': 'witten_bell',
      'whole_split': False,
    },
  )
  study = config.load(flags.config, overrides)
  config.validate(study)
  cli.check_folder(f'--workdir={flags.workdir}', flags.workdir)

  from posenc_jax.evaluation import ngram_line  # jax takes seconds to import: after the check

  ngram_line.evaluate_ngram(study, flags.workdir, flags.context, flags.smoothing, flags.whole_split)


if __name__ == '__main__':
  cli.main(main)
