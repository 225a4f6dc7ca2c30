"""Prepares a corpus and says what is in it; training and evaluation build the embedded corpus by themselves.

python scripts/prepare_data.py                       # the corpus of configs/base.py
python scripts/prepare_data.py --corpus=tfds:lambada --config.data.text_field=passage
"""

from pathlib import Path

from posenc_jax.config import load, main, parse_args
from posenc_jax.data import corpus, prepare
from posenc_jax.data.corpora import SPLITS

BASE = Path(__file__).resolve().parents[1] / 'configs' / 'base.py'
LONG = (4096, 8192, 16384, 32768)  # bytes


def run(argv: list[str]) -> None:
  flags, overrides = parse_args(argv, {'config': str(BASE), 'corpus': None})
  if flags.corpus is not None:
    overrides['data.corpus'] = flags.corpus
  data = load(flags.config, overrides).data

  folder = prepare(data.corpus, data.cache)
  print(f'{data.corpus}: {folder}')
  if data.corpus == 'sotu':
    from posenc_jax.data import sotu

    print(f'SHA-256 of all documents verified: {sotu.SHA256}')
  print(f'\n{"split":12}{"documents":>10}{"bytes":>14}' + ''.join(f'{f">= {n}":>10}' for n in LONG))
  for split in SPLITS:
    sizes = corpus(data.corpus, split, data.text_field, data.cache).sizes
    print(f'{split:12}{len(sizes):10}{sizes.sum():14,}' + ''.join(f'{(sizes >= n).sum():10}' for n in LONG))


if __name__ == '__main__':
  main(run)
