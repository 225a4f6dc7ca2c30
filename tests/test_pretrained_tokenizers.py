"""The tokenizers of pretrained models: what they put before a text, and what goes with them."""

import json

import pytest
import tokenizers
from test_pretrained import write_gguf

from configs import base
from posenc_jax.config import saved_config
from posenc_jax.evaluation.generation import end_tokens
from posenc_jax.pretrained import exporting, importing, sources


def exported(run, out):
  """(the tokenizer, tokenizer_config.json, config.json) of the export of a run."""
  exporting.export_run(saved_config(run), run, out, 'float32')
  tokenizer = tokenizers.Tokenizer.from_file(str(out / 'tokenizer.json'))
  names = ('tokenizer_config.json', 'config.json')
  return tokenizer, *(json.loads((out / name).read_text()) for name in names)


@pytest.mark.parametrize(
  ('pre', 'said', 'ids'),
  [
    ('llama-bpe', {}, [1, 2]),  # llama.cpp's default for it, as the hub's tokenizer has it
    ('llama-bpe', {'tokenizer.ggml.add_bos_token': False}, [2]),
    ('smollm', {}, [2]),
    ('smollm', {'tokenizer.ggml.add_bos_token': True}, [1, 2]),
  ],
)
def test_bos_stands_before_a_text_as_a_gguf_file_says(pre, said, ids, tmp_path):
  source = sources.open_source(str(write_gguf(tmp_path / 'm.gguf', pre=pre, **said)))
  importing.import_model(base.get_config(), source, tmp_path / 'run')
  tokenizer, *_ = exported(tmp_path / 'run', tmp_path / 'out')
  assert tokenizer.encode('c').ids == ids


def test_chat_template_and_ends_of_a_gguf_file(tmp_path):
  template = "{{ bos_token }}{% for m in messages %}\n{{ m['content'] }}{% endfor %}"
  said = {'eos_token_id': 2, 'eot_token_id': 4}
  said = {f'tokenizer.ggml.{name}': token for name, token in said.items()}
  path = write_gguf(tmp_path / 'm.gguf', **said, **{'tokenizer.chat_template': template})
  source, run, out = sources.open_source(str(path)), tmp_path / 'run', tmp_path / 'out'
  importing.import_model(base.get_config(), source, run)
  assert end_tokens(run, run / 'tokenizer') == {2, 4}
  _, _, config = exported(run, out)
  assert config['eos_token_id'] == [2, 4]
  assert (out / 'chat_template.jinja').read_text() == template
  one = write_gguf(tmp_path / 'n.gguf', **said | {'tokenizer.ggml.eot_token_id': 2})
  assert sources.open_source(str(one)).fields['eos_token_id'] == 2
