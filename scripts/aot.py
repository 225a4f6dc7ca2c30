"""Compiles the training step or attention for a TPU or GPU that is not there: what does it take?

  python scripts/aot.py --target=tpu:v5e:2x2 --config=configs/base.py --config.mesh.context=4
  python scripts/aot.py --target=tpu:v6e:2x2 --attention --encodings=alibi,shaw/max_distance=64 \\
    --backends=blockwise --length=8192
  python scripts/aot.py --target=tpu:v5e:2x2 --attention --encodings=nope,t5 --backends=fused \\
    --cases=all --length=1024
  python scripts/aot.py --target=cuda:h100 --config=configs/paper/alibi.py

It needs no accelerator, but its compiler: pip install -e '.[aot-tpu]' or '.[aot-cuda]'. Of a study,
the steps of all runs are compiled. Nothing is run. It ends with 1 if the compiler failed at
anything; that a backend refuses an encoding or a case is no failure.

--target: tpu:TOPOLOGY (v5e:2x2, v5e:4x4, v6e:2x2, v4:2x2x1, v5p:2x2x1, ...) or cuda:h100. There
  cudnn takes heads up to 128 wide, not 256 as on the card itself: jax asks the GPU that is here.
--only: of a study, the runs whose name has this text; one of configs/paper/alibi.py is
  encoding.name=alibi,train.batch=144,train.length=512
--attention: attention forward and backward in place of the step of a config, of --encodings (names
  with hyperparameters as in NAME/field=value, or all) by --backends, in --batch, --length, --heads,
  --head_dim and --dtype; --block_sizes=QUERIES,KEYS of tiles; --context: devices that share a
  sequence.
--cases: of --attention, which masks, ids and shapes: all, or names such as window,packed,ragged
  (scripts/aot/cases.py has them). The table then says whether each compiles, or why not.
--hlo: a folder for the text of the compiled programs.
"""

from posenc_jax import cli


def main(argv):
  from scripts.aot import command

  return command.main(argv)


if __name__ == '__main__':
  cli.main(main)
