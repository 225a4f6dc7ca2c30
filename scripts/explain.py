"""Says what a configuration does with positions, before any training.

  python scripts/explain.py --config=configs/base.py --config.encoding.name=deberta

Every source of position in the model, where each acts, its parameters, its scale, the backends that
take it, and which of them `auto` is; and whether the trained run could be exported, as a model of
which family. All encodings side by side: ENCODINGS.md.

--platform: cpu, gpu or tpu; the backends are asked as there, whether there is one here or not.
Without it, or where jax runs on that here, they are asked for the device that is here.

--check: in the place of all that, computes whether each encoding of the config keeps the laws that
all keep: attention in tiles, in a kernel, packed, with a cache and at shifted positions is the
same, and reads no later token. For one of your own, which no test knows: `--config=my_study.py
--config.encoding.name=NAME --check`. It takes a minute; the exit code is 1 where a law fails. With
--bidirectional the laws are asked without a causal mask, as of an encoder.
"""

import inspect
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc_jax import cli, config, data, encodings, tasks
from posenc_jax.attention import BACKENDS, auto_backend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.positions import positions_of_model
from posenc_jax.attention.request import build_request
from posenc_jax.distributed import mesh as meshes
from posenc_jax.distributed.processes import check_one_host
from posenc_jax.encodings.core.base import SCORE_TERMS
from posenc_jax.encodings.core.composite import Composite, read_members
from posenc_jax.encodings.core.position_wrapper import PositionWrapper
from posenc_jax.encodings.dape import AdaptedBias
from posenc_jax.errors import UserError, user_errors
from posenc_jax.evaluation import preflight, runs
from posenc_jax.inspection import parameter_counts
from posenc_jax.inspection.laws import check_laws
from posenc_jax.model.decoder import LM, attention_options, build, shapes
from posenc_jax.model.layer_pattern import PATTERN, LayerPattern, combine_masks, read_pattern
from posenc_jax.model.layer_sharing import StackedEncoding
from posenc_jax.pretrained import exporting
from posenc_jax.training import multi_seed
from posenc_jax.training.checkpoints import leaves_by_path

PLATFORMS = ('cpu', 'gpu', 'tpu')


def main(argv: list[str]) -> int | None:
  known = {'config': cli.REQUIRED, 'platform': '', 'check': False, 'bidirectional': False}
  flags, overrides = cli.parse_args(argv, known)
  if flags.platform not in ('', *PLATFORMS):
    allowed = ', '.join(PLATFORMS)
    raise UserError(f'--platform={flags.platform!r}; allowed: {allowed}')
  if flags.check:
    cli.check_unused(flags, known, ('platform',), 'without --check')
  else:
    cli.check_unused(flags, known, ('bidirectional',), 'with --check')
  c = config.load(flags.config, overrides)
  config.validate(c)
  check_one_host()
  preflight.check_model(c)
  with user_errors(ValueError):
    vocab = data.vocab(c.data)
    model = shapes(c, vocab)
    # Of the parameters these alone are drawn: there may be no room for all.
    pattern = jax.jit(lambda: build(c, vocab, nnx.Rngs(0)).encodings)()
  console = Console(highlight=False, markup=False)  # formulas have brackets
  if flags.check:
    return check(c, pattern, console, is_causal=not flags.bidirectional)
  for note in config.notes(c):
    console.print(note, soft_wrap=True)
  explain(c, model, pattern, console, flags.platform or jax.default_backend())


def check(c, pattern: LayerPattern, console: Console, is_causal: bool) -> int:
  """Prints the verdict of each law on each encoding of a model; the exit code of the command."""
  specs = read_pattern(dict(c.encoding))[0]
  failed = False
  for spec, variant in zip(specs, pattern.variants, strict=True):
    console.print(f'Encoding {spec["name"]}')
    with user_errors(ValueError):
      verdicts = check_laws(variant.layer(0), is_causal=is_causal)
    for verdict in verdicts:
      console.print(str(verdict), soft_wrap=True)
    failed |= any(verdict.holds is False for verdict in verdicts)
  return int(failed)


def explain(c, model: LM, pattern: LayerPattern, console: Console, platform: str) -> None:
  """Prints the tables for a run's config, its model, which may be shapes, and the encodings of that
  with their parameters; `platform` is one of PLATFORMS.
  """
  specs = [dict(spec) for spec in read_pattern(dict(c.encoding))[0]]
  names = [spec.pop('name') for spec in specs]
  variants = list(zip(names, pattern.variants, specs, strict=True))
  console.print(sources_of_position(c, variants))
  if c.encoding.name == PATTERN:
    console.print(period_of_layers(c, pattern, names))
  for number, (name, variant, hyper) in enumerate(variants):
    title = f'Encoding {name}' + (f' ({number + 1})' if c.encoding.name == PATTERN else '')
    of_variant = [
      mask for of, mask in zip(pattern.order, pattern.masks, strict=True) if of == number
    ]
    masks = []
    for mask in of_variant:
      combined = combine_masks(mask_of_config(c), mask)
      masks += [combined] if combined not in masks else []
    explain_encoding(c, title, name, variant, hyper, masks, console, platform)
  parts = parameter_counts.by_part(model)
  of_parts = ', '.join(f'{part} {number:,}' for part, number in parts.items())
  in_all = f'in all {sum(parts.values()):,}: {bytes_of_parameters(c, model)}'
  console.print(f'Parameters: {of_parts}; {in_all}', soft_wrap=True)
  console.print(f'Export: {how_it_goes_out(c, model)}', soft_wrap=True)


def bytes_of_parameters(c, model: LM) -> str:
  """What the parameters of a model take: in float32, and as eval.py holds them."""
  leaves = leaves_by_path(model)
  size = 4 * sum(leaf.size for leaf in leaves.values())
  said = f'{size_in_words(size)} in float32'
  if c.eval.compute_dtype == 'bfloat16':
    size -= 2 * sum(leaf.size for path, leaf in leaves.items() if runs.may_be_half(path))
    said += f', at least {size_in_words(size)} as eval.py holds them in bfloat16'
  return said


def size_in_words(size: int) -> str:
  """'1.5 MB', '32.1 GB'."""
  return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'


def how_it_goes_out(c, model: LM) -> str:
  """The family of transformers that the run would be exported as, or why it would not be."""
  try:
    return f'as a model of the family {exporting.family_of(c, leaves_by_path(model))}'
  except UserError as error:
    return f'no: {error}'


def sources_of_position(c, variants: list) -> Table:
  """The causal mask, BOS, a window and the encodings: where each acts and what it says."""
  table = Table(
    'source of position',
    'acts on',
    'what it says',
    title='Sources of position',
    title_justify='left',
  )
  table.add_row('causal mask', 'scores', 'a token sees itself and the tokens before it')
  table.add_row('BOS', 'input', 'marks where a window begins')
  if c.attention.window:
    seen = f'a token sees the last {c.attention.window} tokens, itself included'
    table.add_row('window', 'scores', seen)
  if c.attention.chunk:
    seen = f'a token sees its own chunk of {c.attention.chunk} tokens only'
    table.add_row('chunk', 'scores', seen)
  if c.attention.sink_tokens:
    seen = f'the first {c.attention.sink_tokens} tokens are seen from everywhere to their right'
    table.add_row('sink tokens', 'scores', seen)
  for name, variant, _ in variants:
    doc = inspect.cleandoc(type(variant.encoding).__doc__ or 'its class has no docstring')
    acts_on = ', '.join(variant.encoding.acts_on()) or 'nothing'
    table.add_row(name, acts_on, doc.partition('\n\n')[0].replace('\n', ' '))
  return table


def period_of_layers(c, pattern: LayerPattern, names: list[str]) -> Table:
  """Which layers have which encoding and mask."""
  period = len(pattern.order)
  table = Table(
    'layers', 'encoding', 'mask', title=f'Pattern of {period} layers', title_justify='left'
  )
  for n, (variant, mask) in enumerate(zip(pattern.order, pattern.masks, strict=True)):
    layers = ', '.join(map(str, range(n + 1, c.model.layers + 1, period)))
    combined = combine_masks(mask_of_config(c), mask)
    table.add_row(layers, f'{names[variant]} ({variant + 1})', in_words(combined) or 'all')
  return table


def explain_encoding(
  c,
  title: str,
  name: str,
  variant: StackedEncoding,
  hyper: dict,
  masks: list[dict],
  console: Console,
  platform: str,
) -> None:
  """Prints what an encoding declares, its parameters, and backends by the masks of its layers."""
  enc, K = variant.encoding, c.model.head_dim
  facts = {
    'source': enc.paper,
    'scale of q . k': f'{enc.scale(K):.6g} (1/sqrt(K) is {K**-0.5:.6g})',
    'bias in the scale': how_terms_are_scaled(enc),
    'factor on the queries': f'{enc.query_scale:.6g}',
    'positions end at': 'never' if enc.max_length is None else f'{enc.max_length} tokens',
    'relative': 'yes' if enc.relative else 'no: depends on absolute positions',
    'positions': how_positions_come(enc),
    'without a causal mask': who_refuses_both_sides(enc),
    'known limit': enc.limit or 'none',
  }
  table = Table(show_header=False, title=title, title_justify='left')
  for fact in facts.items():
    table.add_row(*fact)
  console.print(table)

  hyperparameters = Table(
    'hyperparameter', 'value', 'what it is', title='Its hyperparameters', title_justify='left'
  )
  for row in hyperparameter_rows(name, hyper):
    hyperparameters.add_row(*map(Text, row))
  if hyperparameters.row_count:
    console.print(hyperparameters)

  parameters = Table(
    'parameter', 'shape', 'sets', 'numbers', title='Its parameters', title_justify='left'
  )
  for path, leaf in jax.tree_util.tree_leaves_with_path(enc):
    is_stacked = variant.is_stacked(path)
    parameters.add_row(
      jax.tree_util.keystr(path[:-1], simple=True, separator='.'),
      str(leaf.shape[1:] if is_stacked else leaf.shape),
      f'one a layer: {variant.num_layers}' if is_stacked else 'one',
      f'{leaf.size:,}',
    )
  parameters.add_row('all', '', '', f'{sum(p.size for p in jax.tree.leaves(enc)):,}')
  console.print(parameters)

  takes = f'takes {c.train.length} tokens in {compute_dtype(c)}'
  columns = [', '.join(filter(None, (takes, in_words(mask)))) for mask in masks]
  title = f'Backends on a {platform.upper()}'
  backends = Table('backend', *columns, title=title, title_justify='left')
  asked = [ask_backends(c, variant.layer(0), Mask(**mask), platform) for mask in masks]
  for name in BACKENDS:
    reasons = (reasons[name] for reasons, _ in asked)
    backends.add_row(name, *('yes' if reason is None else f'no: {reason}' for reason in reasons))
  backends.add_row('auto', *(f'takes {name}' for _, name in asked))
  console.print(backends)


def hyperparameter_rows(name: str, hyper: dict) -> Iterator[tuple[str, str, str]]:
  """(name, value, what it is) of each hyperparameter of an encoding, and of those of the encodings
  that it holds.
  """
  said = encodings.hyperparameter_docs(name)
  holds_others = issubclass(encodings.ENCODINGS[name], (Composite, PositionWrapper, AdaptedBias))
  for field, value in (encodings.hyperparameters(name) | hyper).items():
    members = {'members': value, 'inner': value and [value]}.get(field) if holds_others else None
    held = read_members(members) if members else []
    names = ', '.join(member['name'] for member in held)
    yield field, names or repr(value), said.get(field, '')
    for member in held:
      of = member.pop('name')
      for own, *others in hyperparameter_rows(of, member):
        yield f'{of}: {own}', *others


def how_terms_are_scaled(enc: encodings.Encoding) -> str:
  """Whether the scale of q . k multiplies terms by distance, too, in words."""
  said = {True: 'yes', False: 'no, added after it'}
  members = [part for part in enc.parts() if any(map(part.has, SCORE_TERMS))]
  kinds = {part.bias_in_scale for part in members}
  if len(kinds) < 2:
    return said[kinds.pop()] if kinds else 'declares none'
  return '; '.join(f'{type(part).__name__}: {said[part.bias_in_scale]}' for part in members)


def how_positions_come(enc: encodings.Encoding) -> str:
  """Where an encoding's positions come from, in words."""
  if enc.position_kind is None:
    return 'not read, but for the order of tokens where that counts'
  if enc.takes_carried_positions:
    return 'at the input those of the data, moved by a random amount in training'
  if enc.has('positions_of_tokens'):
    return 'read off tokens, others at the input than at layers'
  if enc.has('sample_positions'):
    return 'sampled, once a forward pass for all layers'
  return f'as they are, {"real numbers" if enc.position_kind == "floats" else "integers"}'


def who_refuses_both_sides(enc: encodings.Encoding) -> str:
  """Whether an encoding serves without a causal mask, in words."""
  if not enc.causal_only:
    return 'served'
  names = [type(part).__name__ for part in enc.parts() if part.causal_only]
  refuse = ', '.join(dict.fromkeys(names)) or type(enc).__name__
  return f'refused, by {refuse}'


def compute_dtype(c) -> str:
  """The dtype of activations: of the training or, where a run has none, of its evaluation."""
  return c.train.compute_dtype if c.train.steps else c.eval.compute_dtype


def mask_of_config(c) -> dict[str, int]:
  """Window, chunk and sink tokens of a config, as `combine_masks` takes them."""
  return {name: c.attention[name] for name in ('window', 'chunk', 'sink_tokens')}


def in_words(mask: dict[str, int]) -> str:
  """'window 8, sink tokens 4'."""
  return ', '.join(f'{name.replace("_", " ")} {tokens}' for name, tokens in mask.items())


def ask_backends(c, enc, mask: Mask, platform: str) -> tuple[dict[str, str | None], str]:
  """Returns each backend's reason to refuse a layer of this config with that mask (None: it takes
  it), and the backend that `auto` takes.

  They are asked on the mesh of the config and on that platform, whether there are as many devices
  of it here or not.
  """
  m, T = c.model, c.train.length
  B = c.train.batch // c.train.grad_accum_steps
  dtype = jnp.dtype(compute_dtype(c))
  options = {name: attention_options(c)[name] for name in ('softcap', 'block_sizes')}
  reasons, taken = {}, []

  def ask(q, k, v, x):
    given = options | positions(c, enc, B, T)
    if c.data.packing == 'separate':
      given['segment_ids'] = jnp.zeros((B, T), int)
    q, k, v = enc.enter_attention(q, k, v, enc.initial_state(jnp.arange(T)[None], B))
    request = build_request(q, k, v, enc, x=x, mask=mask, outer_hooks_applied=True, **given)
    reasons.update((name, backend.refuse(request)) for name, backend in BACKENDS.items())
    taken.append(auto_backend(request))

  shape = lambda heads: jax.ShapeDtypeStruct((B, T, heads, m.head_dim), dtype)
  kv_heads = m.kv_heads or m.heads
  x = jax.ShapeDtypeStruct((B, T, m.model_dim), dtype)
  sizes = tuple(c.mesh[axis] for axis in meshes.AXES)
  device = None  # the one that is here
  if platform != jax.default_backend():
    device = AbstractDevice(device_kind=f'a {platform.upper()}', num_cores=1, platform=platform)
  types = (AxisType.Auto,) * len(sizes)
  mesh = AbstractMesh(sizes, meshes.AXES, axis_types=types, abstract_device=device)
  arrays = shape(m.heads), shape(kv_heads), shape(kv_heads), x
  if c.vmap_seeds:  # all in one program, which has room for fewer numbers of each
    ask = multi_seed.vmap_seeds(ask)
    arrays = [jax.ShapeDtypeStruct((len(c.seeds), *a.shape), a.dtype) for a in arrays]
  # of a hook of the user's own with a wrong shape or dtype
  with jax.sharding.use_abstract_mesh(mesh), user_errors(ValueError, TypeError):
    jax.eval_shape(ask, *arrays)
  return reasons, taken[0]


def positions(c, enc, B: int, T: int) -> dict:
  """The positions that a layer of a run is given, as `attend` takes them; {}: contiguous ones."""
  if enc.takes_carried_positions:
    return {}
  if tasks.is_task(c.data.corpus):
    corpus = data.opened(c.data, 'train')
    if (carried := corpus.carried_positions) is not None:
      shape = (B, T) if carried.per_token == 1 else (B, T, carried.per_token)
      position_ids = jnp.zeros(shape, int if carried.kind == 'integers' else float)
      largest = corpus.largest_position(c.train.length)
      return {'position_ids': position_ids, 'max_position_distance': largest}
  return positions_of_model(enc, jnp.zeros((B, T), int), jax.random.key(0))[1]


if __name__ == '__main__':
  cli.main(main)
