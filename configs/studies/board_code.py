"""The board on Python source, where what comes again are identifiers.

  pip install -e '.[code]'
  python scripts/sweep.py --config=configs/studies/board_code.py --jobs=2

Everything is as in configs/studies/board.py but the text, the corpus `code`, and that each document
has two targets: documents of one package are taken as one, and the test split has eight packages.
RoPE trained at 4 L, on as many tokens a step, says what text farther back than L is worth.

Predicted before the runs: RoPE trained at 4 L is better there than RoPE at L by more than 0.1 bits
per byte. ALiBi, KERPLE and Transformer-XL are better at 4 L than at L, by 0.02 to 0.15 each, and
stay so at 32 L; T5 is at 4 L no worse than at L and breaks by 32 L; RoPE loses more than 1 bit at
4 L, and with attention windowed at L stays within 0.02 of its score at L at 32 L; p-RoPE loses less
than RoPE at 4 L. At L no encoding is more than 0.06 from RoPE but ALiBi, which is worse.

Two seeds were run; the runs fell into two states, copying within L learned or not, 1.85 or 2.10
bits at L. Predicted of the third before it was run: each of its runs is in one of those states
(below 1.90 or above 2.05 at L, but for the 4 L line), ALiBi again in the better; ALiBi gains more
than 0.04 at 4 L and uses text past L by the board's rule with any seed left out; RoPE trained at 4
L has less than 1.75 there; of Transformer-XL and T5 one in the better state gains at 4 L, one in
the worse does not.

With three seeds, half of what ALiBi and RoPE trained at 4 L were ahead of RoPE was that two of
RoPE's three runs had not learned to copy, which is luck. So these three lines have three seeds
more. Predicted before they were run: of RoPE's three one or two are below 1.90 at L, the others
above 1.95; ALiBi's are all below 1.90, and so are those of RoPE trained at 4 L; over six seeds RoPE
has 1.93 to 2.03 at L, and with its window of L, at 4 L, ALiBi is 0.18 to 0.28 better than it, RoPE
trained there 0.24 to 0.33, both marked; of ALiBi's lead over RoPE's runs that have learned to copy
0.08 to 0.15 is left.

None of RoPE's three was below 1.90 (1.911, 2.083 and 2.089), all of ALiBi's were: it may not be
luck. So T5, Transformer-XL and KERPLE get these seeds, too. Predicted before they were run: of the
nine runs two to five are below 1.90 at L; each that is gains more than 0.04 at 4 L, each above 1.95
less than 0.03; T5, Transformer-XL and KERPLE have over six seeds 1.90 to 2.03 at L each, and none
is marked better or worse than RoPE there. Four of the nine were below, one by 0.0001; the rest
held, too.

Then the other twenty lines of the board got the first three seeds. Predicted before they were run
(*copies*: below 1.95 at L):
- of the twenty runs of a seed six to fourteen copy; with all three seeds Sandwich, GRAPE-AP and
  DAPE do, NoPE, with SSMax and without, sinusoidal and learned positions with none;
- what uses text past L: each run of DAPE, GRAPE-AP, Sandwich, CoPE, DeBERTa and PaTH that copies
  is at 4 L more than 0.03 better than at L, each that does not less than 0.03;
- what stays as it is: FoX, RoPE with FoX and stick-breaking change by less than 0.02 from L to 4
  L, copying or not;
- what fails: selective RoPE, RoPE x 3 + NoPE, PoPE, sinusoidal positions and NoPE, with SSMax and
  without, lose more than 0.3 at 4 L with every seed; xPos, Shaw, FIRE and the Music Transformer
  less;
- of those that hold to 32 L on planted text DAPE, FoX, RoPE with FoX, stick-breaking and GRAPE-AP
  do here, by the verdicts of three seeds;
- by these no line but ALiBi, DAPE, GRAPE-AP and Sandwich uses text past L, and at least one of the
  last three does; none has a mean at 4 L below ALiBi's.

Cost: 99 runs of 0.8 million parameters, 5 to 24 minutes each, two at a time on two cores. Result:
results/board_code, LOG/167, 170, 198, 242, 244 and 246.
Bits per byte at L, 4 L and 32 L: DAPE, three seeds, 1.787, 1.650 and 1.724; GRAPE-AP, three seeds,
1.836, 1.703 and 1.685; ALiBi 1.847, 1.745 and 1.774; RoPE trained at 4 L 1.849, 1.678 and 4.318;
CoPE, three seeds, 1.911, 1.854 and 1.986; Transformer-XL 1.924, 1.868 and 1.913; KERPLE 1.942,
1.877 and 1.870; T5 1.999, 2.027 and 2.627; RoPE 2.001, 3.773 and 5.157, with its window 2.013 and
2.013; p-RoPE, three seeds, 2.003, 2.519 and 4.083. Seeds differ by up to 0.33 at L. What was
predicted wrong of the twenty: Sandwich does not copy, sinusoidal and learned positions and one run
of NoPE do; PoPE loses less than 0.3 at 4 L, xPos more; DAPE does not hold to 32 L with one seed;
DAPE and GRAPE-AP have less than ALiBi at 4 L. RoPE trained at 4 L is ahead by 0.335 there, a little
more than predicted.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).with_name('board.py'))
SIX_SEEDS = ('rope', 'alibi', 't5', 'transformer_xl', 'kerple_log')
LONGER = f'rope, L = {4 * BOARD.L}'
# What gains past L in some runs or in all, what fails, and what stays.
SELECTED = (
  'rope',
  'alibi',
  'dape',
  'grape_ap',
  'cope',
  't5',
  'kerple_log',
  'transformer_xl',
  'fox',
)
SELECTED += (LONGER,)
ABOUT = BOARD.ABOUT


def get_config():
  config = BOARD.get_config()
  config.data.corpus = 'code'
  config.eval.update(protocols=('last_k',), spans=2)
  return config


def sweep():
  lines = BOARD.variants(BOARD.L)
  for seed in range(6):
    for name in lines if seed < 3 else SIX_SEEDS:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}
    yield {'seed': seed, 'label': LONGER, 'encoding': lines['rope']} | BOARD.REFERENCES[LONGER]


def table():
  return dict(protocols=('last_k',), metric='bpb', baseline='rope')


def figures():
  both = dict(protocol='last_k', metric='bpb', references=(LONGER,))
  return {'extrapolation': both, 'selected': dict(labels=SELECTED, **both)}
