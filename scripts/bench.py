"""Times attention and the training step in jax, and beside them the same work in PyTorch, in one
run.

  python scripts/bench.py --out=runs/bench python scripts/bench.py --attention --lengths=2048,8192
  --encodings=nope,alibi,shaw/clip=64 --dtypes=bfloat16 python scripts/bench.py --step
  --shapes=256x16 --encodings=rope --config.model.layers=8 python scripts/bench.py --step
  --shapes=64x16 --seeds=4 --config.model.model_dim=64

It ends in --budget minutes with tables on screen and in OUT/bench.md; OUT/rows.jsonl has every
repeat. Without --attention or --step it does both. The peers need torch and x-transformers: pip
install -e '.[bench]'

--encodings: names, with hyperparameters as in NAME/field=value (commas of a value: in brackets), or
all. --backends: of attention; plain is blockwise attention without an encoding and with a backward
written by hand. --passes: forward, both (with backward). --batch, --heads, --head_dim: of
attention; beyond 8192 tokens it is one sequence, forward only. --shapes: of the step, LENGTHxBATCH;
--config.FIELD changes its config. --seeds: with --step, steps of so many seeds of it, in one
program (at once) against one after another (in turn). --peers: names, or none; by default those
that do the work of an encoding asked for. --against: the case that ratios are to. --repeats: of
every case; 0: as time allows, 2 to 15.
"""

from bench import command

from posenc_jax import config


def main(argv):
  return command.main(argv)


if __name__ == '__main__':
  config.main(main)
