"""Text that a trained run writes: tokens drawn one after another."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax import data, storage
from posenc_jax.config import check_one_seed, saved_config, validate
from posenc_jax.errors import UserError, shown
from posenc_jax.evaluation.runs import READ, check_corpus, restore, without_bos
from posenc_jax.model.decoder import LM, attention_options
from posenc_jax.model.kv_cache import decode, empty_cache, take_layers
from posenc_jax.pretrained.sources import read_json
from posenc_jax.rows.overrides import overrides_between
from posenc_jax.training.own_tokenizer import GENERATION, kept_tokenizer, tokenizer_path
from posenc_jax.training.provenance import SOURCE_CONFIG

MOST_TOKENS = 2**17  # of a prompt and what follows it
LEAST_TEMPERATURE = 1e-30  # of those above 0: logits divided by less overflow
PART = 512  # tokens of a prompt that are read at a time


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a token is drawn from logits.

  Attributes:
    temperature: divides logits; 0: the likeliest token is taken.
    top_k: only so many likeliest tokens are drawn; 0: all.
    top_p: only the likeliest tokens that together have this probability are drawn, after top_k.
    seed: of all draws.

  Raises UserError for what is out of range.
  """

  temperature: float = 0.8
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0

  def __post_init__(self):
    is_temperature = self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature < math.inf
    checks = {
      'temperature': (is_temperature, f'0, or at least {LEAST_TEMPERATURE}'),
      'top_k': (self.top_k >= 0, '0, for all tokens, or more'),
      'top_p': (0 < self.top_p <= 1, 'more than 0, at most 1'),
      'seed': (0 <= self.seed < 2**32, '0 to 2**32 - 1'),
    }
    for name, (holds, allowed) in checks.items():
      if not holds:
        raise UserError(f'{name}={shown(getattr(self, name))}; allowed: {allowed}')

  @property
  def arguments(self) -> tuple[jax.Array | None, float, float]:
    """(key, temperature, top_p) as `draw` takes them; the key of all draws, or None where the
    likeliest token is taken.
    """
    key = None if self.temperature == 0 else jax.random.key(self.seed)
    return key, self.temperature, self.top_p


def kept(logits_V, temperature, top_p, top_k: int):
  """Logits divided by the temperature, which is not 0; -inf where no token is drawn."""
  logits_V = logits_V / temperature
  falling_V = jnp.sort(logits_V, descending=True)
  if 0 < top_k < len(logits_V):
    logits_V = jnp.where(logits_V < falling_V[top_k - 1], -jnp.inf, logits_V)
    falling_V = jnp.where(jnp.arange(len(falling_V)) < top_k, falling_V, -jnp.inf)
  p_V = jax.nn.softmax(falling_V)
  is_needed_V = jnp.cumsum(p_V) - p_V < top_p  # what is likelier has less than top_p
  least = jnp.min(falling_V, where=is_needed_V, initial=jnp.inf)
  return jnp.where(logits_V < least, -jnp.inf, logits_V)


def draw(logits_V, is_drawn_V, top_k: int, key, temperature, top_p, number):
  """The token of this number, from logits [V]: one of those that may be drawn. Of a program, all
  but `is_drawn_V` and `top_k` may be arguments: `Sampling.arguments` and the number.
  """
  logits_V = jnp.where(is_drawn_V, logits_V, -jnp.inf)
  if key is None:
    return jnp.argmax(logits_V)
  key = jax.random.fold_in(key, number)
  return jax.random.categorical(key, kept(logits_V, temperature, top_p, top_k))


def tokens_after(
  model: LM,
  prompt_T: np.ndarray,
  count: int,
  sampling: Sampling,
  config: ConfigDict,
  is_drawn_V: np.ndarray,
) -> Iterator[int]:
  """Yields `count` tokens that follow BOS and those of the prompt, computed in float32 with matrix
  products at 'highest'.

  Args:
    config: its section `attention` says what tokens see.
    is_drawn_V: which tokens may be drawn.
  Raises:
    LengthError: prompt and tokens are more than the positions of the model.
    UserError: the model gives no finite logits.
  """
  options = attention_options(config)
  mask = {name: options[name] for name in ('window', 'chunk', 'sink_tokens', 'softcap')}

  @functools.partial(jax.jit, donate_argnames='cache')
  def step(model, layers, tokens_1T, cache, *drawn_by):
    with jax.default_matmul_precision('highest'):
      logits_11V, cache = decode(model, layers, tokens_1T, cache, last=1, **mask)
    token = draw(logits_11V[0, 0], is_drawn_V, sampling.top_k, *drawn_by)
    highest = jnp.max(logits_11V[0, 0], where=is_drawn_V, initial=-jnp.inf)  # nan if one is nan
    return token[None, None], jnp.isfinite(highest), cache

  # As arguments, and all on the model's device as what a step returns is: texts with other draws,
  # and all steps of so many tokens, are one program.
  drawn_by = sampling.arguments
  inputs_1T = np.append(model.bos, prompt_T).astype(np.int32)[None]
  cache = empty_cache(model, 1, inputs_1T.shape[1] + count - 1, part=PART, **mask)
  cache = jax.device_put(cache, model.embedding.sharding)
  model = jax.tree.map(lambda leaf: leaf, model)  # the caller's keeps its layers
  layers = take_layers(model)
  parts = np.split(inputs_1T, range(PART, inputs_1T.shape[1], PART), axis=1)
  *before, tokens_1T = jax.device_put(parts, model.embedding.sharding)
  for part_1T in before:
    *_, cache = step(model, layers, part_1T, cache, *drawn_by, 0)

  def dispatched():
    nonlocal tokens_1T, cache
    for number in range(count):
      tokens_1T, is_finite, cache = step(model, layers, tokens_1T, cache, *drawn_by, number)
      yield tokens_1T, is_finite

  # a token is read when the next step is dispatched, so that the device never waits
  ahead = itertools.pairwise(itertools.chain(dispatched(), [None]))
  for number, ((token_11, is_finite), _) in enumerate(ahead):
    if not is_finite:
      place = inputs_1T.shape[1] + number
      raise UserError(
        f'no finite logits after {place} tokens; allowed: fewer tokens, or another model'
      )
    yield int(token_11[0, 0])


def generate(
  config: ConfigDict,
  workdir: str | Path,
  prompt: bytes,
  count: int,
  sampling: Sampling,
  ignore_eos: bool = False,
  at: int | None = None,
) -> Iterator[bytes]:
  """Yields the bytes of each of `count` tokens that the run in `workdir` writes after a prompt, or
  of fewer where the text ends: at a token by which the pretrained model that the run comes from
  ends texts. BOS is drawn only if it is such a token.

  Keys and values are kept from token to token, and queries where the encoding needs all. Encodings
  that read how long a call is, or sample positions, get the length of prompt and text together.
  Attention is by the backend `dense`, and of long prompts by the fastest, whatever
  `attention.backend` names.

  Args:
    config: the run's saved config, perhaps with another `attention` or `encoding`.
    ignore_eos: whether text goes on where it could end.
    at: the step of the checkpoint to write with in the place of the last one.
  Raises:
    UserError: there is no trained run, it was not trained on text, or prompt and text are longer
      than MOST_TOKENS, or than the positions of the model go.
  """
  validate(config, is_trained=True)
  workdir = Path(workdir)
  if not 1 <= count <= MOST_TOKENS:
    raise UserError(f'tokens={count}; allowed: 1 to {MOST_TOKENS}')
  check_one_seed(f'workdir={str(workdir)!r}', config, workdir)
  saved = saved_config(workdir, *READ)
  overrides_between(saved, config)  # raises UserError for what decided the training
  kept = kept_tokenizer(workdir, config.data)
  corpus = data.without_documents(config.data, config.eval.split, kept)
  if isinstance(corpus, data.TaskCorpus):
    field = f'config.data.corpus={config.data.corpus!r}'
    raise UserError(f'{field}: the run writes no text; allowed: one that was trained on text')
  check_corpus(saved, config, corpus, workdir)
  model, _ = restore(config, corpus, workdir, at=at)
  prompt_T = without_bos(corpus.tokenizer.encode(prompt), model.bos)
  _check_length(model, len(prompt_T), count)
  ends = () if ignore_eos else end_tokens(workdir, tokenizer_path(workdir, config.data).parent)
  is_drawn_V = np.arange(model.vocab) < corpus.tokenizer.vocab - 1  # its BOS is no symbol of text
  is_drawn_V[model.bos] &= model.bos in ends
  tokens = tokens_after(model, prompt_T, count, sampling, config, is_drawn_V)
  del model  # who draws tokens holds its layers one by one
  for token in tokens:
    if token in ends:
      return
    yield corpus.tokenizer.decode([token])


def end_tokens(workdir: Path, beside: Path) -> set[int]:
  """The tokens that end a text, as config.json and generation_config.json of the pretrained model
  say that the run comes from; none where it comes from none. Raises `UserError` for a damaged file.

  `beside`: the folder of its tokenizer, which holds the second file if there is one.
  """
  path = workdir / SOURCE_CONFIG
  if not storage.exists(path):
    return set()
  trees = [storage.read_json(path)]
  if storage.exists(second := beside / GENERATION):
    trees.append(read_json(second, f'workdir={str(workdir)!r}'))
  said = [tree.get('eos_token_id') for tree in trees]
  return {token for ids in said for token in np.ravel(ids).tolist() if type(token) is int}


def _check_length(model: LM, prompt: int, count: int) -> None:
  """Raises UserError where a prompt of so many tokens and what follows are too long together."""
  end = min(model.max_length or MOST_TOKENS, MOST_TOKENS)
  room = end - prompt  # BOS takes a position, and the last token none
  if count > room:
    allowed = f'1 to {room}' if room > 0 else f'a prompt of less than {end} tokens'
    why = f'positions end at {end}' if end == model.max_length else f'texts have at most {end}'
    raise UserError(f'tokens={count}: with a prompt of {prompt} tokens; {why}; allowed: {allowed}')
