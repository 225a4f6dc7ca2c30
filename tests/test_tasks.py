"""Tasks against solvers that read only what stands before an answer, and laws over all of them."""

import functools
import hashlib
import inspect
import itertools
import json
import re
from collections import Counter

import jax
import numpy as np
import pytest
from compiled_models import logits, nll
from flax import nnx
from small_runs import BASE, MODEL, dotted, write_text_corpus

from posenc_jax import config, data, storage, tasks
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, model_functions, predictions, task_scoring
from posenc_jax.model.decoder import build
from posenc_jax.tasks.base import SPLIT_QUARTERS
from posenc_jax.tasks.needles import DEPTHS
from posenc_jax.training import loop
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

# Variants of tasks, each with two hashes of its first examples: of tokens with their positions, and
# of choices. To add one, give it ('', '') and take the hashes that its test then prints.
DIGESTS = {
  'passkey': ('34f79e09da4a9483', 'f189635733af4a2f'),
  'mqar': ('bf5cf59e8c388869', '0292ebc699bb28cb'),
  'mqar/pairs=3/keys=4/values=5/fillers=1/power=1.0': ('ab95d5d0757b323e', '6e5780b039b67565'),
  'mqar/pairs=4/queries=1/power=1.0': ('4300b7b213aa9da3', '2e4b6ae73a4a7319'),
  'mqmtar': ('fa69318fb4a6515c', 'cad3a55b1103a84f'),
  'mqmtar/queries=2/key_symbols=3/value_symbols=1/density=0.5/alphabet=6': (
    'f7a258304be84a3e',
    '0e84293336909a5b',
  ),
  'n_back': ('fdb0959791a87732', '8cac2279fd237787'),
  'n_back/back=0': ('b3cd204eee86c2bf', 'd3bb22bc61f0c6c0'),
  'n_back/back=3/queries=2/keys=3': ('eedc12cb39062ee1', 'a03de6b6eb81a0cd'),
  'index_lookup': ('d1c5b79ea3d8053a', 'e7e4d566779d48ac'),
  'index_lookup/origin=end/places=3/symbols=5': ('d26e5e70f6d8f53d', 'c2aef5a273450c94'),
  'induction': ('10e8ef718490a1f7', 'c0b53ebb897ee70e'),
  'copy': ('89b1eb9e09f0a5b4', '124c0df4c94dc9bf'),
  'copy/symbols=2': ('fb9c80f333e14ff1', 'aca48c49a30e9bf8'),
  'copy/distinct=1/times=2': ('1adcf60a91670fdd', 'e64ecd82dfd8d4f0'),
  'copy/blanks=9': ('8b1005c7e352e4c7', '23b58029e14b6505'),
  'copy/blanks=0': ('89b1eb9e09f0a5b4', '124c0df4c94dc9bf'),
  'copy/distinct=3': ('2f79ae4d5ef9a8b6', '124c0df4c94dc9bf'),
  'copy/unique=True': ('0094b386a129dd68', '54e454b28c08dff5'),
  'copy/unique=True/symbols=12/blanks=4': ('5ad78ace3a3848a4', 'b796bc71ecefbc9d'),
  'reverse': ('afbc736c33be63f9', '124c0df4c94dc9bf'),
  'reverse/times=2': ('e179732bb5000256', 'e64ecd82dfd8d4f0'),
  'palindrome': ('181ba371b40ab749', '0d3a2e6a49a0750f'),
  'sort': ('df8e575791536111', '124c0df4c94dc9bf'),
  'sort/unique=True/symbols=12': ('2ab6f260df2838fb', 'd384ebb0795bcd1e'),
  'odds_first': ('064f75ed95ee9aee', '124c0df4c94dc9bf'),
  'odds_first/symbols=2': ('2ba11ee7c5c0fea1', 'aca48c49a30e9bf8'),
  'missing_duplicate': ('e6fda89cd96b032e', '4444991a07983c90'),
  'missing_duplicate/symbols=5': ('afe078f596f4058d', 'a0ce4b8ff33c8992'),
  'selective_copy': ('9fa8a59603d3b9e3', '8bb5644eba7eb88e'),
  'addition': ('1a021273de77d7c7', '3f633f003a40169f'),
  'addition/pad=True': ('54c2357726961bcf', '7c9a79df6eb588ec'),
  'addition/reverse=True': ('7005f1919be378e6', 'cfaa6f215a00e60e'),
  'addition/reverse=True/pad=True': ('32e1a24faae5013f', 'a486da55a0843fcc'),
  'addition/reverse=True/pad=True/hints=9': ('3e6c9d665b3cb75e', 'b9a7281a69ba4526'),
  'addition/reverse=True/positions=abacus': ('240f14a6bd187d5b', 'cfaa6f215a00e60e'),
  'addition/reverse=sum/pad=True/positions=coupled': ('02c5f6a239528648', 'a486da55a0843fcc'),
  'addition/reverse=sum/unequal=True': ('1509fef782fd2031', '4162f4c9702a15a6'),
  'addition/positions=coupled': ('fa06bf461b9f9cd5', '3f633f003a40169f'),
  'addition/unequal=True': ('c97712e5dc3bc7fb', 'db8c4fe7f07cb819'),
  'addition/unequal=True/pad=True': ('338e51aadfb8a41a', '085f75d5188bd16b'),
  'addition/unequal=True/reverse=True': ('ac6f8d7045fb1513', 'eb95dceb0a35c51d'),
  'addition/unequal=True/reverse=True/pad=True/hints=9': ('a4372e1a6f4fe86b', '891aae1cb7ae2b2a'),
  'addition/unequal=True/reverse=True/positions=abacus': ('6fdc042d75ebb4c3', 'eb95dceb0a35c51d'),
  'addition/unequal=True/pad=True/positions=coupled': ('c46bbf68d32d18be', '085f75d5188bd16b'),
  'parity': ('622c5275fcca15c2', 'b33f3da90cd4cba8'),
  'parity/scratchpad=True': ('27a9414a3fcf3e57', 'b433ea8e7b657ec0'),
  'even_pairs': ('b3039eecab434b05', 'b33f3da90cd4cba8'),
  'cycle_navigation': ('09f50634c8a2cd12', 'c2aef5a273450c94'),
  'cycle_navigation/states=3': ('130eb84c8b7c35a7', 'f9dfa58f273bf879'),
  'modular_arithmetic': ('d45d28bbf6bce0f9', 'b0c1bcbb9aa84b9a'),
  'modular_arithmetic/modulus=3': ('7dbca139586b5e99', '4b66f7612bb0ed68'),
  'flip_flop': ('e1fed75efbf77420', '0b4345f3c46f66ba'),
  'flip_flop/ignore=0.1': ('5237961fcfb624dd', '4b4f5e4174519db4'),
  'word_problem': ('2dca9ccaffb1c597', '1e426632433fd178'),
  'word_problem/group=s4/swaps=True': ('551610547bd27871', '96b4f99017e041bd'),
  'word_problem/group=a4z5': ('815b61b34da78087', '3db25749058b2722'),
  'word_problem/group=z60': ('bc89b9c7c77d41f9', '3db25749058b2722'),
  'counting': ('3637d32af2726e08', '7934ac26b7f6cea7'),
  'counting/variables=3/highest=4/passes=0.2': ('c2c0fe069188fd57', '5205ac01822ae144'),
  'mode': ('f830e4d3d8224810', '7a8c069be0438d74'),
  'mode/symbols=2': ('ff6f25d421d399d6', 'b33f3da90cd4cba8'),
  'needle': ('b1ab10daaa9da4db', 'e7e4d566779d48ac'),
  'needle/needles=3/values=2/queries=2': ('9d6e467f4a138741', 'b6ce6e954b839afe'),
  'needle/needles=4/distinct=True': ('96ad939f93c062d5', 'e7e4d566779d48ac'),
  'needle/distinct=True/depth=even': ('26ae378d146450f5', 'e7e4d566779d48ac'),
  'needle/needles=2/values=2/queries=2/distinct=True/haystack=needles': (
    '94b9421a33b18fb6',
    'aea630bd6c0e206b',
  ),
  'needle/haystack=needles/keys=4/symbols=3/key_symbols=3/value_symbols=4': (
    '1a2bd9a4122c773a',
    '5fb2d79bdc5ffa64',
  ),
  'needle/distance=24': ('6ecd908019f9bc65', 'f257648b5980cddb'),
  'needle/needles=2/distance=1/key_symbols=2': ('f416b2504085fcae', 'e7e4d566779d48ac'),
  'needle/haystack=needles/distance=12/value_symbols=2': ('e697bb8546e804e0', 'a57a5d9dc0cc3561'),
  'hops': ('bc37254e62fb2e69', '0ebf610de46f8d22'),
  'hops/hops=4/chains=1': ('a9c9ab65b8a24e83', '49d6b09d2c65ac25'),
  'variable_tracking': ('4f6b885105c71f89', 'f79736a93cd8bf57'),
  'variable_tracking/hops=2/chains=5': ('f6fc71815bec508d', '1a819fd046a95fe7'),
  'common_words': ('1c567865a81d003d', '4960b78a288cac69'),
  'common_words/common=2/common_times=5/uncommon_times=2/symbols=40': (
    'b889dfbb07910449',
    '80c20db63a591eb5',
  ),
  'frequent_words': ('3825584c84547449', '26c1f0e8d69b5eaf'),
  'frequent_words/symbols=12/alpha=1.5/asked=2': ('35918be9e494ea74', '3f9752775dbd8407'),
  'stack': ('cabc05078a79635a', 'fb98713a15d0ff30'),
  'stack/stacks=3/symbols=4/pops=0.3': ('fe38b0ce67d9051a', '1a976086f8a68b71'),
  'stack/stacks=3/repeat=0.75': ('182b3934996340a4', '2dd37415668023f3'),
  'dyck': ('015b2283a2566b6e', 'e7a9ae6a017f793e'),
  'dyck/kinds=2/depth=3': ('061492c8d00d8417', '165d231b79b5ef68'),
  'many_shot': ('a0be1e9f1bba94d7', '3406f023afa36492'),
  'many_shot/features=3/levels=5/queries=1': ('6b31c7e8bbd8faa8', 'b9684b56592c1f4b'),
  'grid': ('583a3077aba61074', 'f72656318cf74051'),
  'grid/symbols=5/queries=3/positions=grid': ('4d339d93e08b0f38', 'abce27eb754b3675'),
  'grid/symbols=12/queries=10/neighbor=right': ('6ee478ac68fa8a80', '1c649af08649cb99'),
}
VARIANTS = tuple(DIGESTS)
ALIGNED = tuple(text for text in VARIANTS if '/distance=' in text)


@pytest.fixture(scope='module')
def texts():
  letters = np.random.default_rng(0)
  return [letters.integers(32, 127, size, np.uint8).tobytes() for size in (100, 900, 1000)]


@pytest.fixture
def make(texts):
  return lambda text: tasks.make(text, lambda: texts)


# Solvers: (words before a place, options) -> the answer that is due there, or None. No solver uses
# the code that draws examples.


def after(words, sign, answer):
  """The next word of `answer(words before sign)`, given what has been said of it after the sign."""
  if sign not in words:
    return None
  at = words.index(sign)
  want, said = answer(words[:at]), len(words) - at - 1
  return want[said] if said < len(want) else None


def chunks(words, size):
  """The words in groups of `size`; the last may have fewer."""
  return [words[i : i + size] for i in range(0, len(words), size)]


def solve_passkey(words, digits):
  return after(words, 'ASK', lambda before: before[before.index('KEY') + 1 :][:digits])


def solve_mqar(words, **_):
  asked = words[-1:]
  if asked and asked[0][0] == 'k' and asked[0] in words[:-1]:
    return words[words.index(asked[0]) + 1]
  return None


def solve_n_back(words, back, **_):
  if '?' not in words[:-1] or words[-1][0] != 'k':
    return None
  stream = words[: words.index('?')]
  given = [value for key, value in zip(stream[::2], stream[1::2], strict=True) if key == words[-1]]
  return given[-1 - back]


def solve_index_lookup(words, origin, **_):
  if not words or words[-1][0] != '@':
    return None
  place, (*symbols, _) = int(words[-1][1:]), words
  return symbols[place] if origin == 'start' else symbols[::-1][place]


def solve_induction(words, **_):
  return words[words.index(words[-1]) + 1] if words[-2:-1] == ['?'] else None


def without_blanks(words):
  return [word for word in words if word != '_']


def solve_copy(words, times=1, **_):
  return after(words, '>', lambda string: without_blanks(string) * times + ['.'])


def solve_reverse(words, times=1, **_):
  return after(words, '>', lambda string: without_blanks(string)[::-1] * times + ['.'])


def solve_sort(words, times=1, **_):
  return after(words, '>', lambda string: sorted(string) * times + ['.'])


def solve_odds_first(words, **_):
  return after(words, '>', lambda string: [*string[1::2], *string[::2], '.'])


def solve_selective_copy(words, **_):
  return after(words, '>', without_blanks)


def solve_addition(words, reverse, pad, hints, **_):
  turns_numbers = reverse is True

  def answer(before):
    at = before.index('+')
    numbers = [
      [w for w in part if not w.startswith('<')] for part in (before[:at], before[at + 1 :])
    ]
    a, b = (''.join(number[::-1] if turns_numbers else number) for number in numbers)
    digits = str(int(a) + int(b)).rjust(max(len(a), len(b)) + 1 if pad else 0, '0')
    digits = digits[::-1] if reverse else digits
    start = int(before[0][1:]) if hints else 0
    marked = [
      [f'<{start + place}', digit] if hints else [digit] for place, digit in enumerate(digits)
    ]
    return [word for pair in marked for word in pair] + ['.']

  return after(words, '=', answer)


def solve_parity(words, scratchpad):
  def answer(bits):
    parities = [str(bits[: i + 1].count('1') % 2) for i in range(len(bits))]
    return parities if scratchpad else parities[-1:]

  return after(words, '>', answer)


def solve_even_pairs(words):
  bits = ''.join(words)
  return str((bits.count('01') + bits.count('10')) % 2) if words[-1:] == ['>'] else None


def solve_mode(words, **_):
  return after(words, '>', lambda string: [Counter(string).most_common(1)[0][0]])


def solve_dyck(words, **_):
  """Strikes out what is closed next to where it was opened, again and again."""
  if words[-1:] != ['>']:
    return None
  text, before = ' '.join(words), None
  while text != before:
    text, before = re.sub(r'\((\d+) \)\1 ', '', text), text
  return ')' + text.split()[-2][1:]


def solve_cycle_navigation(words, states):
  return str((words.count('+') - words.count('-')) % states) if words[-1:] == ['>'] else None


def solve_missing_duplicate(words, **_):
  if words[-1:] != ['>']:
    return None
  gap, half = words.index('?'), (len(words) - 1) // 2
  return words[gap - half] if gap >= half else words[gap + half]


def solve_modular_arithmetic(words, modulus):
  return str(eval(' '.join(words[:-1])) % modulus) if words[-1:] == ['='] else None


def solve_flip_flop(words, **_):
  if len(words) % 2 == 0 or words[-1] != 'r':
    return None
  return next(words[i + 1] for i in range(len(words) - 3, -1, -2) if words[i] == 'w')


def solve_word_problem(words, **_):
  """Follows each point on its way through the word."""
  if words[-1:] != ['=']:
    return None
  ends = []
  for point in range(len(words[0])):
    for element in words[:-1]:
      point = ord(element[point]) - ord('a')
    ends.append('abcdefghijkl'[point])
  return ''.join(ends)


def solve_counting(words, **_):
  if not words or not words[-1].endswith('?'):
    return None
  name, count = words[-1][:-1], 0
  for word in words:
    count = 0 if word == f'{name}=0' else count + (word == f'{name}++')
  return str(count)


def solve_needle(words, key_symbols, value_symbols, **_):
  if '?' not in words:
    return None
  hidden, question = words[: words.index('?')], words[len(words) - words[::-1].index('?') :]
  key, said = question[:key_symbols], len(question) - key_symbols
  if said < 0:
    return None
  needles = [word for word in hidden if word[0] != '#']
  pairs = chunks(needles, key_symbols + value_symbols)
  values = [word for pair in pairs if [*pair[:key_symbols]] == key for word in pair[key_symbols:]]
  return values[said] if said < len(values) else None


def solve_hops(words, **_):
  if words[-2:-1] != ['?']:
    return None
  name = words[-1]
  while name.startswith('x'):
    at = next(i for i, word in enumerate(words) if word == name and words[i + 1 : i + 2] == ['='])
    name = words[at + 2]
  return name


def solve_variable_tracking(words, **_):
  if '?' not in words[:-1]:
    return None
  at = words.index('?')
  equals = [i for i in range(at) if words[i] == '=']
  value, found = words[at + 1], []
  for i in equals:  # an earlier statement sets what a later one copies
    if words[i + 1] in (value, *found):
      found.append(words[i - 1])
  said = len(words) - at - 2
  return found[said] if said < len(found) else None


def solve_palindrome(words, times=1, **_):
  return after(words, '>', lambda string: string[::-1] * times)


def solve_common_words(words, **_):
  def answer(text):
    times = Counter(text)
    return [word for word in times if times[word] == max(times.values())]

  return after(words, '>', answer)


def solve_frequent_words(words, asked, **_):
  def answer(text):
    times = Counter(word for word in text if word != '_').most_common(asked + 1)
    assert len({count for _, count in times}) == asked + 1
    return [word for word, _ in times[:asked]]

  return after(words, '>', answer)


def solve_mqmtar(words, key_symbols, value_symbols, **_):
  if '>' not in words:
    return None
  at = words.index('>')
  text, questions = words[: words.index('?')], words[words.index('?') : at]
  value_of = {
    (*text[i - key_symbols : i],): text[i + 1 : i + 1 + value_symbols]
    for i, word in enumerate(text)
    if word == ':'
  }
  assert len(value_of) == text.count(':')
  asked = chunks(questions, key_symbols + 1)
  answer = [word for _, *key in asked for word in [None, *value_of[(*key,)]]]
  said = len(words) - at - 1
  return answer[said] if said < len(answer) else None


def solve_stack(words, **_):
  if len(words) % 3 != 2 or words[-2] != 'pop':
    return None
  held = []
  for do, stack, symbol in chunks(words[:-2], 3):
    if do == 'push':
      held.append((stack, symbol))
    else:
      held.reverse()
      held.remove((stack, next(s for of, s in held if of == stack)))
      held.reverse()
  return next(symbol for stack, symbol in reversed(held) if stack == words[-1])


def solve_many_shot(words, **_):
  if '?' not in words:
    return None
  size = next(i for i, word in enumerate(words) if word in 'AB')
  asked = words[len(words) - words[::-1].index('?') :]
  if len(asked) != size:
    return None

  def label(rule, x):
    return 'A' if sum(a * int(b) for a, b in zip(rule, x, strict=True)) > 0 else 'B'

  shots = chunks(words[: words.index('?')], size + 1)
  assert all([*x] != asked for *x, _ in shots)
  rules = [rule for rule in itertools.product((-1, 0, 1), repeat=size) if any(rule)]
  agreeing = [rule for rule in rules if all(label(rule, x) == y for *x, y in shots)]
  (said,) = {label(rule, asked) for rule in agreeing}
  return said


def solve_grid(words, neighbor, **_):
  if '?' not in words or (len(words) - words.index('?')) % 2:
    return None
  rows = [row.split() for row in ' '.join(words[: words.index('?')]).split('/')]
  ((y, x),) = [
    (y, x) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == words[-1]
  ]
  return rows[y + 1][x] if neighbor == 'below' else rows[y][x + 1]


def solver(text):
  name, chosen = tasks.parse(text)
  solve, given = globals()[f'solve_{name}'], {**tasks.options(name), **chosen}
  return lambda words: solve(words, **given)


def lengths_of(task):
  return sorted({task.shortest, task.shortest + 1, max(task.shortest, min(task.longest or 90, 90))})


def identities(task, split, count, length, seed=0):
  return {task.identity(task.example(split, seed, i, length, length)) for i in range(count)}


@pytest.mark.parametrize('text', VARIANTS)
def test_an_answer_is_due_where_a_solver_of_the_prompt_says_and_is_what_it_says(make, text):
  task, solve = make(text), solver(text)
  for length in lengths_of(task):
    for index, split in enumerate(SPLIT_QUARTERS):
      example = task.example(split, 1, index, length, length)
      words = [task.token_names[token] for token in example.tokens_T]
      assert [solve(words[:t]) for t in range(len(words))] == [
        word if answer else None for word, answer in zip(words, example.answers_T, strict=True)
      ]
      assert example.answers_T[-1] or text.startswith('mqar')


@pytest.mark.parametrize('name', tasks.TASKS)
def test_the_example_of_a_docstring_is_right(name):
  doc = inspect.getdoc(tasks.TASKS[name])
  (line,) = re.findall(r'^Example: (.*)$', doc, re.MULTILINE)
  shown = line.split()
  words, answers = [word.strip('[]') for word in shown], [word.startswith('[') for word in shown]
  due = [solver(name)(words[:t]) for t in range(len(words))]
  assert due == [word if answer else None for word, answer in zip(words, answers, strict=True)]
  assert any(answers)
  assert re.search(r'^Source: \w|source are those of `copy`', doc, re.MULTILINE)


@pytest.mark.parametrize('text', VARIANTS)
def test_examples_are_as_long_as_asked(make, text):
  task = make(text)
  for length in (*range(task.shortest, task.shortest + 9), task.longest or 150):
    sizes = [len(task.example('train', 0, i, length, length).tokens_T) for i in range(12)]
    assert length - task.unit < min(sizes) <= max(sizes) <= length
  longest = min(task.shortest + 30, task.longest or 1000)
  sizes = [len(task.example('train', 0, i, task.shortest, longest).tokens_T) for i in range(300)]
  assert min(sizes) <= task.shortest + 2
  assert longest - task.unit - 2 < max(sizes) <= longest
  assert abs(np.mean(sizes) - (task.shortest + longest) / 2) < 3 + task.unit
  for length in (task.shortest - 1, *([task.longest + 1] if task.longest else [])):
    with pytest.raises(ValueError, match=f'{length} tokens; allowed: {task.shortest} '):
      task.example('train', 0, 0, length, length)


@pytest.mark.parametrize('text', VARIANTS)
def test_splits_are_disjoint_whatever_seed_and_length(make, text):
  """At the shortest lengths instances are few, so that independent draws would meet."""
  task = make(text)
  seen = {split: set() for split in SPLIT_QUARTERS}
  for split, found in seen.items():
    for seed in (0, 1):
      for length in (task.shortest, task.shortest + 1):
        found |= identities(task, split, 40, length, seed)
  assert not seen['test'] & seen['train']
  assert not seen['validation'] & (seen['train'] | seen['test'])
  assert all(len(found) > 2 for found in seen.values())


def test_no_key_of_a_training_is_in_a_test(make):
  task = make('passkey/digits=3')
  keys = [
    {tuple(task.example(split, 0, i, 50, 60).tokens_T[-3:].tolist()) for i in range(150)}
    for split in ('train', 'test')
  ]
  assert not keys[0] & keys[1]


def test_few_instances_do_meet_without_the_split():
  """The law above can fail: of 256 strings, 120 are drawn twice, and some meet."""
  task = tasks.TASKS['parity']()
  rng = np.random.default_rng(0)
  first, second = (
    {task.identity(task.draw(rng, task.shortest, 0)) for _ in range(120)} for _ in range(2)
  )
  assert first & second


@pytest.mark.parametrize('text', VARIANTS)
def test_examples_are_a_pure_function_of_split_seed_and_index(make, text):
  task, again = make(text), make(text)
  length = min(task.longest or 150, 150)
  for index in (5, 0, 1_000_003):
    first, second = (t.example('train', 3, index, task.shortest, length) for t in (task, again))
    np.testing.assert_array_equal(first.tokens_T, second.tokens_T)
    np.testing.assert_array_equal(first.choices_T, second.choices_T)
  many = [
    task.example('train', seed, i, length, length).tokens_T.tobytes()
    for seed in (0, 1)
    for i in range(20)
  ]
  assert len(set(many)) > 0.8 * len(many) or 'distinct=1' in text


@pytest.mark.parametrize('text', VARIANTS)
def test_symbols_are_those_of_the_vocabulary_and_each_occurs(make, text):
  task = make(text)
  assert task.vocab == len(task.token_names) + 1 == len(set(task.token_names)) + 1
  length = min(task.longest or 150, 150)
  examples = [task.example('train', 0, i, task.shortest, length) for i in range(300)]
  seen = set(np.concatenate([example.tokens_T for example in examples]).tolist())
  assert all(example.tokens_T.dtype == example.choices_T.dtype == np.int32 for example in examples)
  assert all(example.tokens_T.shape == example.choices_T.shape for example in examples)
  if text.startswith('passkey'):
    assert seen <= set(range(task.vocab - 1))
  else:
    never = {task.blank} if text.endswith('/blanks=0') else set()
    assert seen == set(range(task.vocab - 1)) - never


@pytest.mark.parametrize('text', VARIANTS)
def test_chance_is_what_guessing_scores(make, text):
  """The guesser knows the symbols that were ever right at places of a kind, and draws evenly from
  these.
  """
  task = make(text)
  examples = [
    task.example(split, 0, i, task.shortest, task.shortest)
    for split in SPLIT_QUARTERS
    for i in range(max(120, 4 * task.vocab))
  ]
  tokens, choices = (
    np.concatenate([getattr(example, field)[example.answers_T] for example in examples])
    for field in ('tokens_T', 'choices_T')
  )
  if text == 'induction':  # all symbols but the one asked for: told by how far after it they come
    tokens = (tokens - [example.tokens_T[-2] for example in examples]) % task.symbols
  alphabets = {int(c): np.unique(tokens[choices == c]) for c in np.unique(choices)}
  assert all(len(alphabet) == c for c, alphabet in alphabets.items() if c > 1)
  rng, rounds = np.random.default_rng(0), 40
  guesses = np.empty((rounds, len(tokens)), int)
  for c, alphabet in alphabets.items():
    there = choices == c
    guesses[:, there] = rng.choice(alphabet, (rounds, there.sum())) if c > 1 else tokens[there]
  right = guesses == tokens
  ends = np.cumsum([example.answers_T.sum() for example in examples])
  exact = np.stack([part.all(1) for part in np.split(right, ends[:-1], axis=1)])
  guessing = tasks.chance(examples)
  assert guessing.symbol_nats == pytest.approx(np.log(choices).mean())
  for simulated, value in ((exact, guessing.exact_match), (right, guessing.token_accuracy)):
    assert abs(simulated.mean() - value) < 4 * np.sqrt(value / simulated.size) + 1e-6


@pytest.mark.parametrize(
  'text', ['pad=True', 'reverse=True/pad=True', 'reverse=True/pad=True/hints=9']
)
def test_a_carry_is_guessed_as_one_of_two(make, text):
  task = make(f'addition/{text}')
  example = task.example('test', 0, 0, task.shortest, task.shortest)
  assert tasks.chance([example])[0] == pytest.approx(0.1**2 / 2)
  assert (example.choices_T == 2).sum() == 1
  assert example.tokens_T[example.choices_T == 2] < 2


def test_a_sum_is_in_one_split_whatever_its_marks(make):
  task = make('addition/reverse=True/pad=True/hints=9')
  length = task.shortest
  drawn = [task.draw(np.random.default_rng(seed), length, 0) for seed in range(400)]
  sums = {}
  for example in drawn:
    digits = tuple(example.tokens_T[example.tokens_T < 13])
    sums.setdefault(digits, set()).add(task.identity(example))
  assert all(len(identities) == 1 for identities in sums.values())
  forms = {tuple(example.tokens_T) for example in drawn}
  assert len(forms) > len(sums)


def test_no_two_symbols_stand_most_often(make):
  for text, length in (('mode', 10), ('mode/symbols=2', 10), ('mode/symbols=1000', 10)):
    task = make(text)
    for index in range(40):
      string = task.example('train', 0, index, length, length).tokens_T[:-2]
      second, most = np.sort(np.bincount(string, minlength=2))[-2:]
      assert second < most


@pytest.mark.parametrize('depth', [3, 8])
def test_brackets_are_open_to_a_depth_and_asked_for_at_any_distance(make, depth):
  task = make(f'dyck/depth={depth}')
  deepest, distances = 0, Counter()
  for length in (40, 41):
    for index in range(400):
      words = task.show(task.example('train', 0, index, length, length)).split()[:-2]
      held = []
      for at, word in enumerate(words):
        if word[0] == '(':
          held.append(at)
        else:
          assert words[held.pop()][1:] == word[1:]
        deepest = max(deepest, len(held))
      assert word[0] == ')'
      distances[len(words) - 1 - held[-1]] += 1
  assert deepest == depth
  assert {*distances} == {*range(2, 39, 2)}
  assert min(distances.values()) > 8


def test_unequal_numbers_have_all_digits_that_the_tokens_allow(make):
  """Each longer number as often; which comes first is drawn; equal ones, too."""
  task = make('addition/reverse=True/pad=True/unequal=True/positions=coupled')
  counts = Counter()
  for index in range(900):
    example = task.example('train', 0, index, 19, 19)
    words = [task.token_names[token] for token in example.tokens_T]
    plus, equals, size = words.index('+'), words.index('='), len(words)
    numbers = [range(plus), range(plus + 1, equals), range(equals + 1, size - 1)]
    for places in numbers:  # lowest digits first: equal places are at equal positions
      assert example.positions_T[[*places]].tolist() == [*range(2, 2 + len(places))]
    assert max(example.positions_T) <= task.largest_position(19)
    first, second, total = map(len, numbers)
    assert (size, total) == (19, max(first, second) + 1)
    counts[first, second] += 1
  assert {*counts} == {(1, 7), (7, 1), (3, 6), (6, 3), (5, 5)}
  assert all(times > (240 if first == 5 else 110) for (first, _), times in counts.items())


@pytest.mark.parametrize(
  ('text', 'numbers', 'total', 'equals'),
  [
    ('pad=True', (3, 2), (4, 3, 2), 5),
    ('reverse=True', (2, 3), (2, 3, 4), 1),
    ('reverse=True/pad=True', (2, 3), (2, 3, 4), 1),
    ('reverse=sum', (3, 2), (2, 3, 4), 1),
    ('reverse=sum/pad=True', (3, 2), (2, 3, 4), 1),
  ],
)
def test_digits_of_one_place_are_coupled_in_whichever_order_they_stand(
  make, text, numbers, total, equals
):
  """As in Cho et al.: the position of = comes before that of the first digit of the sum."""
  task = make(f'addition/{text}/positions=coupled')
  for index in range(20):
    example = task.example('train', 0, index, 10, 10)
    if len(example.tokens_T) == 9:  # nothing is carried to a third place
      continue
    assert example.positions_T.tolist() == [*numbers, 1, *numbers, equals, *total, 0]
    words = [task.token_names[token] for token in example.tokens_T]
    of_place = dict.fromkeys(numbers, 0)
    for word, place in zip(words[:5], example.positions_T[:5], strict=True):
      if word != '+':
        of_place[place] += int(word)
    digits = dict(zip(example.positions_T[6:9].tolist(), map(int, words[6:9]), strict=True))
    assert sum(d * 10 ** (place - 2) for place, d in digits.items()) == sum(
      d * 10 ** (place - 2) for place, d in of_place.items()
    )


def test_depths_come_in_turn_and_are_where_the_example_says(make):
  for text in ('passkey', 'needle'):
    task = make(text)
    for index in range(22):
      example = task.example('test', 0, index, 400, 400)
      words = [task.token_names[token] for token in example.tokens_T]
      assert example.depth == DEPTHS[index % 11]
      if text == 'needle':
        fillers = [word[0] == '#' for word in words]
        before, fill = sum(fillers[: words.index(words[-2])]), sum(fillers)
      else:
        before, fill = words.index('KEY'), 400 - task.overhead
      assert before == round(example.depth / 100 * fill)
  assert make('needle/queries=2').example('test', 0, 0, 100, 100).depth is None


def test_as_few_examples_as_there_are_depths_have_them_all(make):
  for text in VARIANTS:
    task = make(text)
    length = min(task.longest or 150, 150)
    depths = [
      task.example('test', 0, i, length, length).depth for i in range(len(task.depths) or 1)
    ]
    assert depths == [*(task.depths or [None])]
  assert [len(make(f'needle/{option}=2').depths) for option in ('needles', 'queries')] == [11, 0]


@pytest.mark.parametrize('text', ALIGNED)
def test_the_needle_stays_at_its_distance_while_the_text_before_it_grows(make, text):
  task = make(text)
  for length in (task.shortest, task.shortest + 7, 150, 400):
    behind = []
    for index in range(40):
      example = task.example('test', 0, index, length, length)
      words = [task.token_names[token] for token in example.tokens_T]
      text_of, key = words[: words.index('?')], words[words.index('?') + 1 :][: task.key_symbols]
      pairs = [
        text_of[at : at + task.key_symbols] == key and text_of[at][0] == 'k'
        for at in range(len(text_of))
      ]
      assert np.flatnonzero(pairs).tolist() == [len(text_of) - task.distance - task.pair]
      assert example.depth is None
      behind.append(sum(word[0] == 'k' for word in text_of[len(text_of) - task.distance :]))
    if text == 'needle/distance=24':  # others are anywhere, also behind
      share = 24 / (len(text_of) - 2)
      assert np.mean(behind) == pytest.approx(3 * share, abs=3 * (3 * share / 40) ** 0.5)


def test_gaps_of_recall_are_even_or_short(make):
  """At power 0.01 the density is nearly 1 / gap, so half of all gaps lie below the square root of
  the longest.
  """
  for power, share in ((1.0, 0.25), (0.01, 0.72)):
    task = make(f'mqar/pairs=2/power={power}')
    places = [np.flatnonzero(task.example('train', 0, i, 404, 404).answers_T) for i in range(300)]
    gaps = (np.concatenate(places) - 5) // 2 + 1  # 1..200
    assert abs((gaps <= 50).mean() - share) < 0.07


def test_counts_are_even(make):
  task = make('counting/variables=3')
  counts = [int(task.example('train', 0, i, 60, 60).tokens_T[-1]) for i in range(1100)]
  assert abs(np.bincount(counts, minlength=11) - 100).max() < 45


def test_words_occur_as_often_as_said(make):
  def times(text, length):
    task = make(text)
    example = task.example('test', 0, 0, length, length)
    words = [task.token_names[token] for token in example.tokens_T]
    return Counter(words[: words.index('>')])

  assert Counter(times('common_words', 60).values()) == {6: 4, 1: 60 - 5 - 24}
  assert Counter(times('common_words/common=3/uncommon_times=2', 42).values()) == {6: 3, 2: 10}
  counts = times('frequent_words', 1004)
  assert counts['_'] >= 1000 * 6 / np.pi**2
  of_ranks = sorted((counts[word] for word in counts if word != '_'), reverse=True)
  assert of_ranks == [int(1000 * 6 / np.pi**2 / rank**2) for rank in range(2, 2 + len(of_ranks))]


def test_all_needles_have_other_values_where_these_are_distinct(make):
  task = make('needle/distinct=True/symbols=4')
  for index in range(20):
    example = task.example('test', 0, index, 40, 40)
    words = [task.token_names[token] for token in example.tokens_T]
    assert sorted(word for word in words[:-1] if word[0] == 'v') == ['v0', 'v1', 'v2', 'v3']


@pytest.mark.parametrize('options', ['', '/haystack=needles'])
def test_with_even_depth_the_needle_asked_for_stands_where_any_other_does(make, options):
  """Its number among all needles, and the text before it, are drawn evenly."""
  task = make(f'needle/depth=even{options}')
  numbers, before = [], []
  for index in range(800):
    example = task.example('test', 0, index, 64, 64)
    words = [task.token_names[token] for token in example.tokens_T]
    text, keys = words[: words.index('?')], [word for word in words[:-2] if word[0] == 'k']
    numbers.append(keys.index(words[-2]) / (len(keys) - 1))
    before.append(text.index(words[-2]) / (len(text) - 2))
  assert example.depth is None
  for found in (numbers, before):
    assert np.mean(found) == pytest.approx(0.5, abs=4 * (1 / 12 / 800) ** 0.5 + 0.01)
    assert np.histogram(found, 4, (0, 1))[0].min() > 150
    assert len({*found}) > (20 if found is before else 3)


def test_blanks_move_a_copy_away_and_change_nothing_else(make):
  """Their number is even from 0 to what is asked for, as far as the length has room."""
  task, plain = make('copy/blanks=6/symbols=16'), make('copy/symbols=16')
  counts = Counter()
  for index in range(700):
    example = task.example('train', 0, index, 40, 40)
    words = [task.token_names[token] for token in example.tokens_T]
    blanks = words.count('_')
    at = words.index('>')
    assert words[at - blanks : at] == ['_'] * blanks
    assert len(words) == 2 * (at - blanks) + blanks + 2
    without = [word for word in words if word != '_']
    tokens_T = np.array([plain.token_names.index(word) for word in without], np.int32)
    assert task.identity(example) == tokens_T.tobytes()
    counts[blanks] += 1
  assert {*counts} == {*range(7)}
  assert min(counts.values()) > 60
  assert max(task.example('train', 0, i, 9, 9).tokens_T.size for i in range(50)) <= 9
  none = make('copy/blanks=0/symbols=16').example('test', 0, 3, 40, 40)
  assert np.array_equal(none.tokens_T, plain.example('test', 0, 3, 40, 40).tokens_T)


@pytest.mark.parametrize('name', ['copy', 'reverse', 'palindrome', 'sort', 'odds_first'])
def test_unique_strings_have_no_symbol_twice_and_all_where_they_are_longest(make, name):
  task = make(f'{name}/unique=True/symbols=7')
  for length in (task.shortest, task.longest):
    for index in range(30):
      words = task.show(task.example('test', 0, index, length, length)).split()
      string = words[: words.index('>')]
      assert len({*string}) == len(string)
  assert {*string} == {*'abcdefg'}
  with pytest.raises(ValueError, match=f'tokens; allowed: {task.shortest} to {task.longest}'):
    task.example('test', 0, 0, length, length + 1)


def test_every_task_has_a_variant():
  assert {text.split('/')[0] for text in VARIANTS} == {*tasks.TASKS}


@pytest.mark.parametrize('text', VARIANTS)
def test_examples_stay_the_same(make, text):
  """An edit of a task, or a new Python or NumPy, that changes its examples makes its runs
  incomparable with earlier ones; other choices change the chance that is printed, and no example.
  """
  task = make(text)
  said, choices = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
  for index in range(3):
    example = task.example('train', 1, index, task.shortest, min(task.longest or 150, 150))
    said.update(example.tokens_T.astype('<i4').tobytes())
    if example.positions_T is not None:
      said.update(example.positions_T.astype('<i4').tobytes())
    choices.update(example.choices_T.astype('<i4').tobytes())
  assert (said.hexdigest(), choices.hexdigest()) == DIGESTS[text]


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('copi', "no task 'copi'; did you mean 'copy'?"),
    ('copy/symbol=3', "no option 'symbol'; did you mean 'symbols'?"),
    ('copy/x=3', "no option 'x'; allowed: blanks, distinct, symbols, times"),
    ('copy/blanks=-1', 'blanks=-1; allowed: 0 or more'),
    ('copy/blanks=2.5', 'blanks=2.5; allowed: a whole number, 0 or more'),
    ('copy/blanks=True', 'blanks=True; allowed: a whole number, 0 or more'),
    ('mqar/pairs=4.0', 'pairs=4.0; allowed: a whole number, 2 or more'),
    ('mqar/pairs=-200000', 'pairs=-200000; allowed: at most 100000 in size'),
    ('mqar/pairs=200000', 'pairs=200000; allowed: at most 100000 in size'),
    ('parity/bits=3', "no option 'bits'; allowed: scratchpad"),
    ('parity/scratchpad=1', 'scratchpad=1; allowed: True, False'),
    ('even_pairs/bits=3', "no option 'bits'; allowed: no options"),
    ('mode/symbols=1001', 'symbols=1001; allowed: 2 to 1000'),
    ('dyck/depth=2', 'depth=2; allowed: 3 or more'),
    ('dyck/kinds=1', 'kinds=1; allowed: 2 or more'),
    ('copy/symbols', "'symbols' in 'copy/symbols'; allowed: NAME/option=value"),
    ('copy/symbols=3/symbols=4', 'each option once'),
    ('copy/symbols=1', 'symbols=1; allowed: 2 or more'),
    ('copy/symbols=x', "symbols='x'; allowed: a whole number, 2 or more"),
    (f'copy/symbols={"x" * 900}', "xxx'; allowed: at most 40 characters"),
    ('copy/distinct=27', 'distinct=27; allowed: 0 to symbols=26'),
    ('copy/symbols=4/distinct=1', 'symbols=4; allowed: 26 or more'),
    ('copy/unique=1', 'unique=1; allowed: True, False'),
    ('copy/unique=True/symbols=5', 'symbols=5; allowed: 6 or more'),
    ('copy/unique=True/distinct=3', 'distinct=3; allowed: 0 with unique=True'),
    ('mqar/keys=3', 'keys=3; allowed: 8 or more'),
    ('mqar/queries=9', 'queries=9; allowed: 0 to pairs=8'),
    ('mqar/power=0', 'power=0; allowed: more than 0'),
    ('addition/hints=8', 'hints=8; allowed: 0, or with'),
    ('addition/pad=1', 'pad=1; allowed: True, False'),
    ('addition/reverse=1', 'reverse=1; allowed: True, False, sum'),
    ('addition/reverse=answer', "reverse='answer'; allowed: True, False, sum"),
    ('addition/reverse=sum/pad=True/hints=9', 'hints=9; allowed: 0, or with reverse=True and'),
    ('flip_flop/ignore=1.0', 'ignore=1.0; allowed: 0 or more, less than 1'),
    ('counting/passes=2', 'passes=2; allowed: 0 to 1'),
    ('needle/queries=5', 'queries=5; allowed: 1 to needles=4'),
    ('hops/variables=5', 'variables=5; allowed: 6 or more'),
    ('selective_copy/items=1', 'items=1; allowed: 2 or more'),
    ('passkey/style=sentences', "task passkey has no option 'style'"),
    ('needle/haystack=hay', "haystack='hay'; allowed: fillers, needles"),
    ('needle/fillers=0', 'fillers=0; allowed: 1 or more'),
    ('needle/haystack=needles/fillers=4', "fillers=4; allowed: 16, or with haystack='fillers'"),
    ('needle/distance=-1', 'distance=-1; allowed: 0 or more'),
    ('needle/distance=9/queries=2', 'distance=9; allowed: with queries=1 and values=1'),
    ('needle/haystack=needles/distance=9', 'distance=9; allowed: a multiple of 2, the tokens of'),
    ('needle/depth=any', "depth='any'; allowed: in_turn, even"),
    ('needle/depth=even/queries=2', "depth='even'; allowed: in_turn"),
    ('needle/depth=even/distance=9', "depth='even'; allowed: in_turn"),
    ('needle/distinct=1', 'distinct=1; allowed: True, False'),
    ('needle/distinct=True/symbols=3', 'symbols=3; allowed: 4 or more'),
    (
      'needle/needles=100000/keys=100000/values=100000/distinct=True',
      'symbols=16; allowed: 10000000000 or',
    ),
    ('needle/distinct=True/needles=10/symbols=2/value_symbols=3', 'symbols=2; allowed: 3 or more'),
    ('needle/haystack=needles/keys=4', 'keys=4; allowed: 5 or more'),
    ('needle/needles=9/keys=2/key_symbols=3', 'keys=2; allowed: 3 or more'),
    ('needle/key_symbols=40', 'key_symbols=40; allowed: codes of keys=16 that number at most'),
    ('needle/value_symbols=0', 'value_symbols=0; allowed: 1 or more'),
    ('variable_tracking/chains=9', 'variables=16; allowed: 45 or more'),
    ('variable_tracking/chains=3/values=2', 'values=2; allowed: 3 or more'),
    ('mqmtar/density=0', 'density=0; allowed: 0.01 to 1.0'),
    ('mqmtar/alphabet=256/key_symbols=7', 'key_symbols=7; allowed: codes of alphabet=256'),
    ('common_words/common_times=1', 'common_times=1; allowed: 2 or more'),
    ('common_words/symbols=4', 'symbols=4; allowed: 5 or more'),
    ('frequent_words/alpha=1', 'alpha=1; allowed: 1.1 to 4.0'),
    ('frequent_words/symbols=3', 'symbols=3; allowed: 4 or more'),
    ('stack/pops=1', 'pops=1; allowed: 0.01 to 0.99'),
    ('stack/repeat=1', 'repeat=1; allowed: 0 to 0.99'),
    ('stack/stacks=0', 'stacks=0; allowed: 1 or more'),
    ('grid/queries=0', 'queries=0; allowed: 1 or more'),
    ('grid/symbols=5', 'symbols=5; allowed: 6 or more'),
    ('grid/neighbor=left', "neighbor='left'; allowed: below, right"),
    ('grid/positions=rows', "positions='rows'; allowed: contiguous, grid"),
    ('many_shot/features=7', 'features=7; allowed: 2 to 6'),
    ('many_shot/levels=9', 'levels=9; allowed: at most 4096 inputs'),
    ('many_shot/features=3/levels=2', 'queries=4; allowed: at most 2 for 8 inputs, levels **'),
  ],
)
def test_bad_options_are_one_line(make, text, words):
  with pytest.raises(ValueError, match=re.escape(words)) as error:
    make(text)
  assert r'\n' not in str(error.value)


def test_an_input_is_shown_also_where_there_are_few(make):
  """One time in 256, all four would be held out."""
  task = make('many_shot/features=2/levels=2/queries=1')
  for index in range(600):
    task.example('train', 0, index, task.shortest, task.shortest)


def test_text_too_short_for_a_passkey_is_one_line(make):
  with pytest.raises(
    ValueError, match=r'2000 tokens; allowed: at most 1012, by the longest document'
  ):
    make('passkey').example('train', 0, 0, 2000, 2000)


# How a task is scored


class Guesser:
  """A model that is right where (token + place) % `wrong` is not 0. It remembers the shapes of its
  calls.
  """

  def __init__(self, wrong):
    self.wrong, self.shapes = wrong, set()

  def __call__(self, tokens_BT, window=None):
    self.shapes.add(tokens_BT.shape)
    right_BT = (tokens_BT + np.arange(tokens_BT.shape[1]) + (window or 0)) % self.wrong != 0
    return right_BT, np.where(right_BT, 0.5, 2.0)


def task_corpus(text, texts=(), split='test'):
  task = tasks.make(text, lambda: texts)
  return data.TaskCorpus(f'task:{text}', split, text.split('/')[0], task, task.shortest)


def plan_of(text, texts=(), **overrides):
  settings = {
    'data.corpus': f'task:{text}',
    'eval.protocols': ('answers',),
    'train.length': 40,
    **dotted(overrides),
  }
  c = config.load(BASE, settings)
  config.validate(c)
  return task_scoring.plan(c, task_corpus(text, texts))


def asked(measurements, predict):
  """{(control, length, position, metric): value} of all rows, each asked for alone, as after an
  interruption.
  """
  found = {}
  for m in measurements:
    for i, fields in enumerate(m.key_fields):
      (score,) = m.score(lambda tokens_BT, m=m: predict(tokens_BT, m.window), [i])
      key = tuple(fields[name] for name in ('control', 'length', 'position', 'metric'))
      found[key] = score['value']
  return found


@pytest.mark.parametrize('batch_tokens', [1, 200, 10**6])
def test_rows_of_a_task_are_what_a_loop_over_examples_counts(batch_tokens):
  guesser = Guesser(7)
  settings = {'eval__lengths': (80, 20), 'eval__examples': 30, 'eval__controls': ('windowed',)}
  plan = plan_of('copy/symbols=9', eval__batch_tokens=batch_tokens, **settings)
  found = asked(plan, guesser)
  assert guesser.shapes == {(max(1, batch_tokens // n), n) for n in (20, 80)}
  assert [m.name for m in plan] == ['copy', 'copy windowed'] * 2
  for control, length in ((None, 20), (None, 80), ('windowed', 20), ('windowed', 80)):
    window = 40 if control and length > 40 else 0
    exact, exact_without_end, right, nats = [], [], [], []
    for i in range(30):
      example = tasks.make('copy/symbols=9', tuple).example('test', 0, i, length, length)
      places = [t for t in range(length) if example.choices_T[t]]
      marks = [bool((example.tokens_T[t] + t + window) % 7) for t in places]
      exact.append(all(marks))
      exact_without_end.append(all(marks[:-1]))
      right += marks
      nats += [0.5 if mark else 2.0 for mark in marks]
    values = {
      metric: found[control, length, None, metric]
      for metric in task_scoring.metrics(tasks.make('copy', tuple))
    }
    assert values == pytest.approx(
      {
        'exact_match': np.mean(exact),
        'exact_match_without_end': np.mean(exact_without_end),
        'token_accuracy': np.mean(right),
        'symbol_nats': np.mean(nats),
        'chance': 9.0 ** -(length / 2 - 1),
        'token_chance': ((length / 2 - 1) / 9 + 1) / (length / 2),
        'nats_chance': np.log(9) * (length / 2 - 1) / (length / 2),
      }
    )


def test_a_passkey_is_scored_by_depth_and_by_likelihood(texts):
  found = asked(
    plan_of('passkey', texts, eval__lengths=(50,), eval__examples=22, eval__controls=()), Guesser(3)
  )
  assert {key[2] for key in found} == set(DEPTHS)
  assert {key[3] for key in found} == {
    'exact_match',
    'token_accuracy',
    'symbol_nats',
    'chance',
    'token_chance',
    'nats_chance',
  }
  for depth in DEPTHS:
    accuracy = found[None, 50, depth, 'token_accuracy']
    nats = found[None, 50, depth, 'symbol_nats']
    assert nats == pytest.approx(0.5 * accuracy + 2.0 * (1 - accuracy))
    assert found[None, 50, depth, 'chance'] == pytest.approx(1e-5)
  assert 0 < np.mean([found[None, 50, depth, 'token_accuracy'] for depth in DEPTHS]) < 1


@pytest.mark.parametrize('text', ['copy/symbols=2', 'flip_flop/ignore=0.4', 'mqar', 'addition'])
def test_greedy_decoding_gives_all_answers_if_and_only_if_each_is_right_in_one_pass(text):
  """A solver that errs on one prefix in ten; its decoding goes on from its own words."""
  corpus, solve = task_corpus(text), solver(text)
  symbols, length = corpus.task.token_names, corpus.task.shortest + 4

  def says(words):
    noise = hashlib.sha256(' '.join(words).encode()).digest()
    return symbols[noise[1] % len(symbols)] if noise[0] < 26 else solve(words)

  def predict(tokens_BT):
    words_BT = [[symbols[token] for token in tokens_T] for tokens_T in tokens_BT]
    right_BT = [[says(words[:t]) == words[t] for t in range(len(words))] for words in words_BT]
    return np.array(right_BT), np.zeros(tokens_BT.shape)

  def decodes(example):
    words = [symbols[token] for token in example.tokens_T]
    said = words.copy()
    for t in np.flatnonzero(example.answers_T):
      said[t] = says(said[:t])
    return said == words

  examples = corpus.examples(40, length)
  passed = [
    bool(prediction.right_A.all())
    for prediction in predictions.predict_answers(predict, examples, length, 200)
  ]
  assert passed == [decodes(example) for example in examples]
  assert 3 < sum(passed) < 37


TINY = {
  **MODEL,
  'train.length': 24,
  'train.batch': 4,
  'train.steps': 3,
  'train.validate_batches': 1,
  'optim.warmup': 1,
  'data.corpus': 'task:needle/needles=2',
  'eval.protocols': ('answers',),
  'eval.lengths': (20, 32),
  'eval.examples': 22,
}


TASK_CONTROLS = ('windowed', 'windowed_with_sink', 'truncated')


@pytest.fixture(scope='module')
def tiny():
  return config.load(BASE, TINY)


def test_predictions_are_what_the_model_says_after_each_prefix(tiny):
  model = build(tiny, 6, nnx.Rngs(0))
  tokens_BT = np.random.default_rng(0).integers(0, 5, (3, 9)).astype(np.int32)
  right_BT, nats_BT = model_functions.compiled(model_functions.predictions, tiny)(model, tokens_BT)
  for t in (0, 8):
    inputs_BT = np.concatenate([np.full((3, 1), 5, np.int32), tokens_BT[:, :t]], axis=1)
    logits_BV = logits(model, inputs_BT)[:, -1]
    np.testing.assert_array_equal(right_BT[:, t], logits_BV.argmax(-1) == tokens_BT[:, t])
    expected = -jax.nn.log_softmax(logits_BV)[np.arange(3), tokens_BT[:, t]]
    np.testing.assert_allclose(nats_BT[:, t], expected, rtol=1e-5)
  assert right_BT.shape == nats_BT.shape == (3, 9)


class PrefixModel:
  """Nats that are a hash of all that stands before and at a token in its window."""

  def __call__(self, tokens_BT, positions=None):
    if positions is None:
      positions = np.zeros(tokens_BT.shape, np.int32)
    both = zip(tokens_BT, positions, strict=True)
    return np.ones(tokens_BT.shape, bool), np.array([self.nats(*pair) for pair in both])

  def nats(self, tokens_T, positions_T):
    value, found = 1, []
    for token, position in zip(tokens_T.tolist(), positions_T.tolist(), strict=True):
      value = (value * 31 + 7 * token + position) % 10007
      found.append(value / 64)
    return found


@pytest.mark.parametrize('text', ['copy/symbols=9', 'needle', 'mqar', 'addition/positions=coupled'])
@pytest.mark.parametrize('length', [1, 7, 10, 300])
def test_examples_longer_than_the_window_are_scored_token_by_token(text, length):
  """Windows end at the example's end and every length // 2 tokens before it."""
  corpus, model = task_corpus(text), PrefixModel()
  examples = corpus.examples(6, corpus.task.shortest + 30)
  stride = max(1, length // 2)
  for batch_tokens in (1, 50):
    found = list(predictions.predict_answers(model, examples, length, batch_tokens))
    for example, prediction in zip(examples, found, strict=True):
      total, expected = len(example.tokens_T), []
      positions_T = example.positions_T
      if positions_T is None:
        positions_T = np.zeros(total, np.int32)
      for t in np.flatnonzero(example.choices_T):
        start = max(0, total - (total - 1 - t) // stride * stride - length)
        assert min(t, length - stride) <= t - start < length
        window = slice(start, t + 1)
        expected.append(model.nats(example.tokens_T[window], positions_T[window])[-1])
      np.testing.assert_array_equal(prediction.nats_A, expected)
  if examples[0].choices_T[-1]:
    last = predictions.windows_of(examples[0], length)[-1]
    np.testing.assert_array_equal(last.tokens_T, examples[0].tokens_T[-length:])


def test_controls_of_a_task_are_what_the_model_says_of_single_examples(tiny):
  """At 32 tokens of a model for 24, and at 20 tokens as without a control."""
  c = config.load(BASE, {**TINY, 'eval.controls': TASK_CONTROLS, 'eval.sink_tokens': 3})
  corpus = data.opened(c.data, 'test')
  model = build(c, corpus.vocab, nnx.Rngs(0))
  predict = model_functions.compiled(model_functions.predictions, c)
  planned = {(m.key_fields[0]['control'], m.length): m for m in task_scoring.plan(c, corpus)}
  masks = {
    None: {},
    'windowed': {'window': 24},
    'windowed_with_sink': {'window': 24, 'sink_tokens': 3},
    'truncated': {},
  }
  examples = corpus.examples(4, 32)
  answer = len(examples[0].tokens_T) - 1
  nats = {}
  for control, mask in masks.items():
    assert planned[control, 20].same_as is (planned[None, 20] if control else None)
    m = planned[control, 32]
    assert (m.window, m.sink_tokens) == (mask.get('window'), mask.get('sink_tokens', 0))
    own = functools.partial(predict, model, window=m.window, sink_tokens=m.sink_tokens)
    found = [p.nats_A for p in predictions.predict_answers(own, examples, m.input_length, 100)]
    for example, nats_A in zip(examples, found, strict=True):
      cut = example.tokens_T[-24:] if control == 'truncated' else example.tokens_T
      expected = nll(model, cut[None], **mask)[0, -1]
      np.testing.assert_allclose(nats_A, [expected], rtol=1e-5)
      assert np.flatnonzero(example.choices_T).tolist() == [answer]
    nats[control] = np.concatenate(found)
  assert len({tuple(some.round(4)) for some in nats.values()}) == 4


def test_the_loss_counts_answers_alone(tiny):
  corpus = data.opened(tiny.data, 'train')
  batch = corpus.batches(24, 4, seed=0)[0]
  model, nats = (
    build(tiny, corpus.vocab, nnx.Rngs(0)),
    make_step_fns(tiny, make_optimizer(tiny.optim, 3))[1],
  )
  everything = np.asarray(nll(model, batch.tokens_BT))
  scored = everything[batch.scored_BT]
  assert len(scored) == 4
  assert float(nats(model, batch)) == pytest.approx(scored.mean(), rel=1e-6)
  assert float(nats(model, data.Batch(batch.tokens_BT))) == pytest.approx(
    everything.mean(), rel=1e-6
  )
  assert scored.mean() != pytest.approx(everything.mean(), rel=1e-3)


def test_a_run_of_a_task_leaves_rows_and_goes_on_where_it_was_stopped(tiny, tmp_path, capsys):
  loop.train(tiny, tmp_path)
  assert 'bits/answer' in capsys.readouterr().out
  evaluate.evaluate(tiny, tmp_path)
  assert 'needle at 32: ' in capsys.readouterr().out
  lines = (tmp_path / 'eval.jsonl').read_bytes().splitlines(keepends=True)
  rows = [json.loads(line) for line in lines]
  assert len(rows) == 2 * 2 * 11 * 6  # lengths, with and without window, depths, metrics
  assert {(r['protocol'], r['corpus'], r['status']) for r in rows} == {
    ('needle', 'task:needle/needles=2', 'ok')
  }
  assert {r['tokens'] for r in rows} == {2}
  assert {r['value'] for r in rows if r['metric'] == 'chance'} == {1 / 16}
  (tmp_path / 'eval.jsonl').write_bytes(b''.join(lines[::3]) + lines[1][:30])
  evaluate.evaluate(tiny, tmp_path)
  assert sorted((tmp_path / 'eval.jsonl').read_bytes().splitlines(keepends=True)) == sorted(lines)

  more = config.from_json(config.to_json(tiny))
  config.overlay(more, {'eval.lengths': (40,), 'eval.controls': ()})
  evaluate.evaluate(more, tmp_path)
  assert {
    json.loads(line)['overrides'] for line in (tmp_path / 'eval.jsonl').read_text().splitlines()
  } == {None}

  # A needle farther away than the training was long is for evaluation alone.
  config.overlay(more, {'data.corpus': 'task:needle/needles=2/distance=28'})
  with pytest.raises(UserError, match="distance=28' with 24 tokens; allowed: 35 or more"):
    config.validate(more)
  evaluate.evaluate(more, tmp_path)
  last = json.loads((tmp_path / 'eval.jsonl').read_text().splitlines()[-1])
  assert (last['corpus'], last['position'], last['overrides']) == (more.data.corpus, None, None)

  config.overlay(more, {'data.corpus': 'task:needle/symbols=15'})
  with pytest.raises(
    UserError, match=r"symbols=15': has 49 symbols; allowed: what has 50, as 'task:needle"
  ):
    evaluate.evaluate(more, tmp_path)


def test_tokens_of_a_run_are_those_of_its_tokenizer(tiny, tmp_path):
  """Bits a byte: of the same rows whatever a token is; and another tokenizer is refused, by
  name.
  """
  rng, words = np.random.default_rng(0), ['position', 'encoding', 'attention', 'token']
  texts = {
    split: [' '.join(rng.choice(words, 80)) for _ in range(count)]
    for split, count in (('train', 5), ('validation', 1), ('test', 1))
  }
  settings = {
    **{path: value for path, value in TINY.items() if not path.startswith(('eval', 'data'))},
    'data.corpus': write_text_corpus(tmp_path / 'text', texts),
    'data.cache': str(tmp_path / 'cache'),
    'data.tokenizer': 'sentencepiece',
    'data.vocab': 290,
    'eval.protocols': ('non_overlapping',),
    'eval.lengths': (32,),
    'eval.target_context': 32,
    'eval.documents': 1,
    'eval.document_tokens': 0,
    'eval.k': 8,
  }
  c, run = config.load(BASE, settings), tmp_path / 'run'
  loop.train(c, run)
  evaluate.evaluate(c, run)
  (row,) = [json.loads(line) for line in (run / 'eval.jsonl').read_text().splitlines()]
  text = (tmp_path / 'text' / 'test' / 'a.txt').read_bytes()
  assert (row['bytes'], row['tokens']) == (len(text), len(data.opened(c.data, 'test').tokens[0]))
  assert row['tokens'] < row['bytes'] / 2
  assert row['tokenizer'] == storage.read_json(run / 'tokenizer.json')['sha256']
  assert row['bpb'] == pytest.approx(row['nats'] / len(text) / np.log(2))
  logged = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  per_token = data.opened(c.data, 'train').batches(24, 4, 0).bytes_per_token(0)
  assert logged[0]['bpb'] == pytest.approx(logged[0]['loss'] / np.log(2) / per_token)
  (tmp_path / 'text' / 'train' / 'f.txt').write_text('and more')
  with pytest.raises(UserError, match=r'documents in train .* 5 when its run began, 6 now'):
    loop.train(c, run)
  (run / 'documents.json').unlink()  # as of a run from before it was written
  (run / 'tokenizer.model').unlink()
  for act in (loop.train, evaluate.evaluate):
    with pytest.raises(UserError, match='its run was trained with the tokenizer') as error:
      act(c, run)
    assert r'\n' not in str(error.value)
