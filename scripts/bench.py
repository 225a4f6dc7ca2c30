"""Times attention, the training step and evaluation in jax, and the same work in PyTorch.

  python scripts/bench.py --out=runs/bench
  python scripts/bench.py --attention --lengths=2048,8192 \\
    --encodings=nope,alibi,shaw/max_distance=64 --dtypes=bfloat16
  python scripts/bench.py --step --shapes=256x16 --encodings=rope --config.model.layers=8
  python scripts/bench.py --step --shapes=64x16 --seeds=4 --config.model.model_dim=64
  python scripts/bench.py --pretrained=runs/smollm2 --lengths=2048,8192 --dtypes=float32,bfloat16

It ends within --budget minutes and prints its tables, which also go to OUT/bench.md. OUT/rows.jsonl
has every repeat. Without --attention or --step it measures both. PyTorch's side needs torch,
x-transformers and, for --pretrained, transformers: pip install -e '.[bench]'

--pretrained: the directory of a run of import_model.py, on a CPU. It measures the forward pass that
  evaluation makes of it, beside transformers on the same weights, which the command exports (to
  OUT, and removes again). No time is printed unless both give the same nats. With it there may be
  --out, --lengths (by default 2048,8192), --dtypes, --repeats and --budget alone.

--encodings: names, with hyperparameters as in NAME/field=value (put a value with commas in
  brackets), or all.
--backends: the backends of attention.
--lengths: of attention, by default 512,2048,8192,16384,32768, or of evaluation.
--passes: forward, both (forward and backward).
--batch, --heads, --head_dim: the sizes of attention. Beyond 8192 tokens it measures one sequence,
  forward only.
--shapes: LENGTHxBATCH of the training step. --config.FIELD changes the config of the step.
--seeds: with --step, trains this many seeds in one program (vmap) and one after another
  (sequential).
--peers: names of programs in PyTorch, tokamax (in jax), or none. By default those that do the work
  of an encoding that is measured.
--baseline: the case that every time is divided by.
--repeats: of every case. 0: as many as the time allows, 2 to 15.
"""

from posenc_jax import cli


def main(argv):
  from scripts.bench import command

  return command.main(argv)


if __name__ == '__main__':
  cli.main(main)
