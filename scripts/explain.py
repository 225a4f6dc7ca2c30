"""Says what a configuration does with positions, before any training.

  python scripts/explain.py --config=configs/base.py --config.encoding.name=deberta

Every source of position in the model, where each acts, its parameters, its scale and the backends
that take it. Or all encodings side by side, as README.md has them:

  python scripts/explain.py --map
"""

import inspect
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table

from posenc_jax import config, data, encodings, errors
from posenc_jax.attention import BACKENDS
from posenc_jax.attention.request import prepare
from posenc_jax.model.decoder import LM, build
from posenc_jax.model.layer_pattern import PATTERN, specs
from posenc_jax.model.layer_sharing import Layered
from scripts import encoding_table


def main(argv: list[str]) -> None:
  flags, overrides = config.parse_args(argv, {'config': None, 'map': False})
  if flags.map == bool(flags.config) or (flags.map and overrides):
    raise errors.UserError('--config=FILE or --map: one of them must be given')
  if flags.map:
    print(encoding_table.markdown(), end='')
    return
  c = config.load(flags.config, overrides)
  config.validate(c)
  with errors.user_errors(ValueError):
    model = build(c, data.vocab(c.data), nnx.Rngs(0))
  explain(c, model, Console(highlight=False, markup=False))  # formulas have brackets


def explain(c, model: LM, console: Console) -> None:
  """Prints the tables for a run's config and its model."""
  sources = Table(
    'source of position',
    'acts on',
    'what it says',
    title='Sources of position',
    title_justify='left',
  )
  sources.add_row('causal mask', 'scores', 'a token sees itself and the tokens before it')
  sources.add_row('BOS', 'input', 'marks where a window begins')
  if c.attention.window:
    sources.add_row(
      'window', 'scores', f'a token sees the last {c.attention.window} tokens, itself included'
    )
  scheme = model.encodings
  kinds = [kind.encoding for kind in scheme.kinds]
  hypers = [dict(spec) for spec in specs(dict(c.encoding))[0]]
  names = [hyper.pop('name') for hyper in hypers]
  for name, enc in zip(names, kinds, strict=True):
    what = inspect.cleandoc(type(enc).__doc__).partition('\n\n')[0].replace('\n', ' ')
    sources.add_row(name, ', '.join(enc.places()) or 'nothing', what)
  console.print(sources)

  if c.encoding.name == PATTERN:
    period = Table(
      'layers',
      'encoding',
      'window',
      title=f'Pattern of {len(scheme.order)} layers',
      title_justify='left',
    )
    for n, (kind, window) in enumerate(zip(scheme.order, scheme.windows, strict=True)):
      here = range(n + 1, c.model.layers + 1, len(scheme.order))
      period.add_row(', '.join(map(str, here)), f'{names[kind]} ({kind + 1})', str(window or 'all'))
    console.print(period)
  for number, (name, kind) in enumerate(zip(names, scheme.kinds, strict=True), 1):
    title = f'Encoding {name}' + (f' ({number})' if c.encoding.name == PATTERN else '')
    here = [own for of, own in zip(scheme.order, scheme.windows, strict=True) if of == number - 1]
    windows = dict.fromkeys(
      min(filter(None, (own, c.attention.window)), default=None) for own in here
    )
    explain_encoding(
      c, title, kind, encodings.hyperparameters(name) | hypers[number - 1], windows, console
    )
  own, total = (sum(p.size for p in jax.tree.leaves(tree)) for tree in (kinds, model))
  console.print(f'Parameters of encodings: {own:,} of {total:,}')


def explain_encoding(
  c, title: str, kind: Layered, hyper: dict, windows: Iterable[int | None], console: Console
):
  """Prints what one encoding declares, its parameters and the backends that take it with each
  window of its layers.
  """
  enc, layers, K = kind.encoding, kind.layers, c.model.head_dim
  facts = Table(show_header=False, title=title, title_justify='left')
  for name, value in (
    ('source', enc.paper),
    ('hyperparameters', ', '.join(f'{k}={v!r}' for k, v in hyper.items()) or 'none'),
    ('scale of q . k', f'{enc.scale(K):.6g} (1/sqrt(K) is {K**-0.5:.6g})'),
    (
      'bias in the scale',
      {
        None: 'adds no bias',
        True: 'yes',
        False: 'no, added after it',
        'mixed': 'as each member says',
      }[enc.bias_in_scale],
    ),
    ('factor on the queries', f'{enc.query_scale:.6g}'),
    ('positions end at', 'never' if enc.max_length is None else f'{enc.max_length} tokens'),
    ('relative', 'yes' if enc.relative else 'no: depends on absolute positions'),
    ('positions', 'as they are' if enc.draw is None else 'drawn, once a forward for all layers'),
  ):
    facts.add_row(name, value)
  console.print(facts)

  parameters = Table(
    'parameter', 'shape', 'sets', 'numbers', title='Its parameters', title_justify='left'
  )
  for path, leaf in jax.tree_util.tree_flatten_with_path(enc)[0]:
    own = kind.is_own(path)
    shape = leaf.shape[1:] if own else leaf.shape
    parameters.add_row(
      jax.tree_util.keystr(path[:-1], simple=True, separator='.'),
      str(shape),
      f'one a layer: {layers}' if own else 'one',
      f'{leaf.size:,}',
    )
  parameters.add_row('all', '', '', f'{sum(p.size for p in jax.tree.leaves(enc)):,}')
  console.print(parameters)

  takes = f'takes {c.train.length} tokens in {c.train.compute_dtype}'
  asked = [takes + (f', window {window}' if window else '') for window in windows]
  backends = Table('backend', *asked, title='Backends', title_justify='left')
  reasons = [refusals(c, kind.layer(0), window) for window in windows]
  for name in BACKENDS:
    backends.add_row(name, *('yes' if of[name] is None else f'no: {of[name]}' for of in reasons))
  console.print(backends)


def refusals(c, enc, window: int | None) -> dict[str, str | None]:
  """Each backend's reason to refuse a layer of this config with that window, None where it takes
  it.
  """
  m, (B, T) = c.model, (1, min(c.train.length, enc.max_length or c.train.length))
  shape = lambda heads: jax.ShapeDtypeStruct(
    (B, T, heads, m.head_dim), jnp.dtype(c.train.compute_dtype)
  )
  reasons = {}

  def ask(q, k, v, x):
    call = prepare(q, k, v, enc, x, None, True, window, None, None, None)
    reasons.update((name, backend.refuse(call)) for name, backend in BACKENDS.items())

  kv_heads = m.kv_heads or m.heads
  x = jax.ShapeDtypeStruct((B, T, m.model_dim), jnp.dtype(c.train.compute_dtype))
  jax.eval_shape(ask, shape(m.heads), shape(kv_heads), shape(kv_heads), x)
  return reasons


if __name__ == '__main__':
  config.main(main)
