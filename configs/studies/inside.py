"""Where nine encodings of the board look, and what of their bits is text.

  python scripts/sweep.py --config=configs/studies/inside.py --jobs=2

A byte of the board's text is a byte of speeches, or of a name, and a name that is new costs 5.95
bits a character whatever the encoding: 12 % of the bytes that are scored can be known by nobody.
FoX, of which no seed recalls a name, so stands 0.060 bits behind RoPE at L, and what names cost it
is about as much. Here text is scored by itself, at L, at 8 L and at 8 L with attention windowed at
L; and models are looked into: loss by place, the gradient of the loss by distance, the weight on
the first token, and the mean distance of attention, in windows of L and of 8 L. The models are the
board's, trained anew.

Predicted before the runs:
  of text alone FoX is no more than 0.02 bits behind RoPE at L, with each seed;
  nor is far text what others gain by: at 8 L the text alone of ALiBi, KERPLE and Transformer-XL is
  less than 0.04 better than that with attention windowed at L;
  by place in windows of 8 L, FoX is within 0.03 from the 48th byte on; RoPE in the bin from 192 is
  0.5 above that from 96;
  of the gradient by distance in windows of 8 L, more than 0.3 lies beyond L with RoPE and T5, less
  than 0.01 with FoX, from 0.02 to 0.2 with ALiBi;
  the sink rate is highest with T5, whose first token a window takes away, and 0 with FoX;
  from L to 8 L the mean distance of attention grows by less than a fifth with FoX, at most to the
  double with ALiBi, and to three times with RoPE and T5.

Cost: 18 runs of 0.8 million parameters, 6 to 15 minutes each, two at a time on two cores. Result:
results/inside, LOG/192, LOG/193. Bits per byte of text alone at L: FoX 1.876, DAPE 1.928,
Transformer-XL 1.930, PaTH 1.932, RoPE 1.935, p-RoPE 1.946, KERPLE 1.968, T5 1.976, ALiBi 2.072; at
8 L ALiBi 2.023, KERPLE 1.911, Transformer-XL 1.872, and with attention windowed at L 2.023, 1.910
and 1.871.
"""

from pathlib import Path

from posenc_jax.config import load_study, product, vary

BOARD = load_study(Path(__file__).with_name('board.py'))
L = BOARD.L
INSIDE = ('by_position', 'receptive_field', 'sink_rate', 'attention_distance')


def get_config():
  config = BOARD.get_config()
  lengths = (L, 8 * L)
  config.eval.update(protocols=('planted', *INSIDE), lengths=lengths, controls=('windowed',))
  return config


def sweep():
  lines = BOARD.variants(L)
  selected = [{'label': name, 'encoding': lines[name]} for name in BOARD.SELECTED]
  return product(vary('seed', 0, 1), selected)


def table():
  return [
    *(dict(form='distances', length=length) for length in (L, 8 * L)),
    dict(protocols=('sink_rate',), metric='sink_rate'),
    dict(protocols=('attention_distance',), metric='attention_distance'),
  ]


def figures():
  drawn = {}
  for length, name in ((L, 'L'), (8 * L, '8L')):
    drawn[f'positions_{name}'] = dict(form='positions', metric='bpb', length=length)
    drawn[f'receptive_field_{name}'] = dict(form='receptive_field', length=length)
  return drawn
