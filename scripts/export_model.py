"""Writes a run's model as a folder that transformers, and all that builds on it, loads.

  python scripts/export_model.py --workdir=runs/smollm2 --out=exported

--dtype: float32, bfloat16 or float16. --config.encoding.FIELD=VALUE and --config.attention.FIELD
change the run first: --config.encoding.scaling.rope_type=yarn --config.encoding.scaling.factor=4.
With --step it exports the checkpoint of that step in the place of the last one, if the run keeps it
(config.train.max_to_keep and keep_every).

A run has the form of a family of models (Llama, Mistral, Ministral, Ministral 3, Phi-3, Qwen,
SmolLM3, OLMo, EXAONE, ERNIE, GLM, StarCoder 2, StableLM, GPT-NeoX, GPT-2, BLOOM, or the family that
it was imported from) or is refused with the field that no family has. A model whose embedding is
scaled gets the scale in its embedding, and a projection to logits of its own. PoSE, which acts in
training alone, is left out, and its `longest` is the length that the model is for; LoRA is added to
its matrices, W + alpha / r A B. The tokenizer says which token is BOS, and puts it before a text;
that of an imported run, or of what was tuned from one, is the source's and may not, unless a BOS
was given.

Needs `pip install -e '.[pretrained]'`.
"""

from pathlib import Path

from posenc_jax import cli, config
from posenc_jax.errors import UserError


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'workdir': cli.REQUIRED, 'out': cli.REQUIRED, 'dtype': 'float32', 'step': -1}
  )
  for name in overrides:
    if name.split('.')[0] not in ('encoding', 'attention'):
      raise UserError(f'--config.{name}: the run decides it; allowed: encoding, attention')
  cli.check_new_folder(f'--out={flags.out}', flags.out)
  run = config.trained_config(flags.workdir, overrides)

  from posenc_jax.evaluation import preflight, runs  # jax takes seconds to import
  from posenc_jax.pretrained import exporting

  runs.check_registered(run, overrides, 'one of posenc_jax, since no family has one of your own')
  runs.check_kept_hyperparameters(config.saved_config(flags.workdir), run)
  preflight.check_model(run)
  if flags.dtype not in exporting.DTYPES:
    raise UserError(f'--dtype={flags.dtype!r}; allowed: {", ".join(exporting.DTYPES)}')
  at = None if flags.step == -1 else flags.step
  family = exporting.export_run(run, Path(flags.workdir), Path(flags.out), flags.dtype, at)
  print(f'{flags.out}: a model of the family {family}, {flags.dtype}')


if __name__ == '__main__':
  cli.main(main)
