"""What a compiled program does, read from the text of its optimized HLO.

XLA's own cost analysis counts the body of a loop once. Here it counts as often as the loop turns.
Where the text does not tell that (the tiles that a row of tiles visits), it counts as often as the
caller says, or as (n + 1) / 2 of the n turns of the loop around it: the mean of square tiles under
a causal mask without a window. Of the branches of a conditional, of which one runs, each figure is
the largest.
"""

import collections
import dataclasses
import functools
import math
import operator
import re
from typing import NamedTuple

import numpy as np

BITS = {
  'pred': 8,
  **{f'{kind}{bits}': int(bits) for kind in 'su' for bits in ('4', '8', '16', '32', '64')},
  **{'bf16': 16, 'f16': 16, 'f32': 32, 'f64': 64},
}
ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?')
COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$')
NAME = re.compile(r'%([\w.\-]+)')
# What a kernel says of itself.
STATED_FLOPS, STATED_BYTES = (rf'"?{name}"?:\s*"?(\d+)' for name in ('flops', 'bytes_accessed'))
# What takes no time of its own, beside the ends of what was started.
FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id'),
  *('replica-id', 'opt-barrier', 'async-update'),
}
COLLECTIVES = ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute', 'reduce-scatter')


class Array(NamedTuple):
  """An array of a program: its type, its shape, and whether it lies in the device's main memory."""

  dtype: str
  shape: tuple[int, ...]
  in_main_memory: bool

  @property
  def bytes(self) -> float:
    """Its size where it lies in main memory, else 0."""
    return math.prod(self.shape) * BITS[self.dtype] / 8 if self.in_main_memory else 0

  def __str__(self):
    return f'{self.dtype}[{",".join(map(str, self.shape))}]'


class Instruction(NamedTuple):
  """A line of HLO: NAME = ARRAYS OPCODE(OPERANDS), ATTRIBUTES."""

  name: str
  arrays: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  def called(self, *roles: str) -> list[str]:
    """The computations that it calls in these roles, such as 'body'."""
    found = []
    for role in roles:
      if match := re.search(rf'\b{role}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})', self.attributes):
        found += [match[1]] if match[1] else NAME.findall(match[2])
    return found

  def numbers(self, attribute: str) -> tuple[int, ...]:
    """The numbers of an attribute such as lhs_contracting_dims={1,2}."""
    match = re.search(rf'\b{attribute}=\{{([\d,]*)\}}', self.attributes)
    return tuple(map(int, match[1].split(','))) if match and match[1] else ()


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program does on one device.

  Attributes:
    flops: those of matrix products, two a multiplication and addition.
    bytes: read from and written to main memory.
    seconds: the sum over operations of the time that their arithmetic or their bytes need at the
      card's peaks, whichever is longer.
    launches: operations that run one after another.
    cycles: the compiler's own estimate (TPU), or 0.
    uncounted: custom calls of which nothing says what they compute, with how often each runs.
    untimed: those that the compiler's estimate leaves out, with how often each runs.
    collectives: (name, array) that devices exchange, with how often.
    is_bound: whether the figures are those of the dearest branches of conditionals, where others
      are cheaper.
  """

  flops: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  launches: float = 0.0
  cycles: float = 0.0
  uncounted: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  untimed: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  collectives: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  is_bound: bool = False

  def __add__(self, other):
    return Cost(*map(operator.add, self._figures, other._figures), self.is_bound or other.is_bound)

  def __or__(self, other):
    """The larger one of each figure."""
    larger = lambda a, b: a | b if isinstance(a, collections.Counter) else max(a, b)
    figures = [*map(larger, self._figures, other._figures)]
    is_bound = self.is_bound or other.is_bound or self._figures != other._figures
    return Cost(*figures, is_bound)

  @property
  def _figures(self) -> list:
    return [getattr(self, field.name) for field in dataclasses.fields(self)][:-1]

  def times(self, turns: float):
    """The cost of so many turns."""
    counters = (
      collections.Counter({key: turns * n for key, n in counter.items()})
      for counter in (self.uncounted, self.untimed, self.collectives)
    )
    numbers = self.flops, self.bytes, self.seconds, self.launches, self.cycles
    return Cost(*(turns * number for number in numbers), *counters, self.is_bound)


class Program:
  """A compiled program: its computations, each a list of instructions, and their cost."""

  def __init__(
    self,
    text: str,
    flops_per_second: float,
    bytes_per_second: float,
    unknown_turns: float | None = None,
  ):
    """Reads a program.

    Args:
      text: of `jax.stages.Compiled.as_text`.
      flops_per_second, bytes_per_second: the card's peaks.
      unknown_turns: how often loops turn in the mean of which the text does not tell it; None: in
        one that turns n times, (n + 1) / 2 times.
    """
    self._peaks, self._unknown_turns = (flops_per_second, bytes_per_second), unknown_turns
    self._computations, self._entry = _parse(text)
    self._by_name = {
      name: {i.name: i for i in instructions} for name, instructions in self._computations.items()
    }
    self._cost = functools.cache(self._cost_of_computation)

  @property
  def kernels(self) -> int:
    """How many operations the text has, each counted once."""
    return sum(
      not is_free(i)
      for name in self._running()
      for i in self._computations[name]
      if i.opcode not in ('while', 'conditional', 'call')
    )

  def cost(self) -> Cost:
    """The cost of one run."""
    return self._cost(self._entry, 1.0)

  def _running(self) -> set[str]:
    """The computations that run as a list of operations: not those inside of a fusion."""
    found, left = set(), [self._entry]
    while left:
      name = left.pop()
      if name not in found:
        found.add(name)
        for i in self._computations[name]:
          left += _callees(i)
    return found

  def _cost_of_computation(self, name: str, turns_around: float) -> Cost:
    """The cost of a computation inside of a loop that turns so often."""
    costs = (self._cost_of(i, self._by_name[name], turns_around) for i in self._computations[name])
    return sum(costs, Cost())

  def _cost_of(self, i: Instruction, scope: dict, turns_around: float) -> Cost:
    if is_free(i):
      return Cost()
    if i.opcode == 'while':
      turns = self._turns(i, scope)
      if turns is None:
        turns = self._unknown_turns or (turns_around + 1) / 2
      (body,) = i.called('body')
      return self._cost(body, float(turns)).times(turns)
    if i.opcode == 'conditional':
      return functools.reduce(operator.or_, (self._cost(n, turns_around) for n in _callees(i)))
    if i.opcode in ('call', 'async-start'):
      return sum((self._cost(n, turns_around) for n in _callees(i)), Cost())
    return self._cost_of_operation(i, scope)

  def _turns(self, loop: Instruction, scope: dict) -> int | None:
    """How often a loop turns; None: that is known only when the program runs.

    XLA says it, or the loop ends where its count, from 0, reaches a constant.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
      return int(known[1])
    (condition,) = loop.called('condition')
    inside = self._by_name[condition]
    root = next(i for i in inside.values() if i.is_root)
    if root.opcode not in ('compare', 'fusion'):
      return None
    for name in root.operands:
      bound = inside[name]
      if bound.opcode == 'get-tuple-element':
        index = int(re.search(r'index=(\d+)', bound.attributes)[1])
        bound = self._passed(scope[loop.operands[0]], index, scope)
        if index == 0:  # the count itself
          continue
      if bound.opcode == 'constant' and bound.arrays[0].shape == ():
        return int(re.match(r'\d+', bound.attributes)[0])
    return None

  @staticmethod
  def _passed(start: Instruction, index: int, scope: dict) -> Instruction:
    """What a loop is given as element `index` of its tuple."""
    return scope[start.operands[index]] if start.opcode == 'tuple' else start

  def _cost_of_operation(self, i: Instruction, scope: dict) -> Cost:
    flops, size = self._flops(i, scope), self._bytes(i, scope)
    cycles = re.search(r'"estimated_cycles":"(\d+)"', i.attributes)
    uncounted, untimed = collections.Counter(), collections.Counter()
    if i.opcode == 'custom-call' and flops != 0:
      target = re.search(r'custom_call_target="([^"]*)"', i.attributes)[1]
      if flops is None:
        uncounted[target] += 1
      if cycles is None:
        untimed[target] += 1
    flops = flops or 0.0
    collectives = collections.Counter()
    if i.opcode in COLLECTIVES:
      collectives[i.opcode, max(i.arrays, key=lambda a: math.prod(a.shape))] += 1
    elif i.opcode == 'fusion':  # XLA for TPUs puts some collectives inside
      collectives = self._collectives_inside(i)
    seconds = max(flops / self._peaks[0], size / self._peaks[1])
    estimate = float(cycles[1]) if cycles else 0.0
    return Cost(flops, size, seconds, 1.0, estimate, uncounted, untimed, collectives)

  def _collectives_inside(self, i: Instruction) -> collections.Counter:
    found = collections.Counter()
    for name in i.called('calls'):
      for inner in self._computations[name]:
        if inner.opcode in COLLECTIVES:
          found[inner.opcode, inner.arrays[0]] += 1
        elif inner.opcode == 'fusion':
          found += self._collectives_inside(inner)
    return found

  def _flops(self, i: Instruction, scope: dict) -> float | None:
    """The operations of matrix products in an instruction; None: nothing says how many."""
    if i.opcode == 'fusion':
      total = 0.0
      for name in i.called('calls'):
        for inner in self._computations[name]:
          total += self._flops(inner, self._by_name[name]) or 0.0
      return total
    if i.opcode == 'dot':
      left = scope[i.operands[0]].arrays[0].shape
      contracted = math.prod(left[axis] for axis in i.numbers('lhs_contracting_dims'))
      return 2.0 * math.prod(i.arrays[0].shape) * contracted
    if i.opcode == 'convolution':
      left, right = (scope[name].arrays[0].shape for name in i.operands[:2])
      return convolution_flops(i.attributes, left, right, i.arrays[0].shape)
    if i.opcode == 'custom-call':
      return self._flops_of_custom_call(i, scope)
    return 0.0

  def _flops_of_custom_call(self, i: Instruction, scope: dict) -> float | None:
    if stated := re.search(STATED_FLOPS, i.attributes):
      return float(stated[1])
    contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
    if '__cublas' in i.attributes and contracted:
      left = scope[i.operands[0]].arrays[0].shape
      axes = map(int, re.findall(r'\d+', contracted[1]))
      return 2.0 * math.prod(i.arrays[0].shape) * math.prod(left[axis] for axis in axes)
    has_work = any(math.prod(a.shape) > 1 for a in i.arrays)
    is_bookkeeping = re.search(
      r'custom_call_target="(Sharding|AllocateBuffer|ConcatBitcast|Async.*|.*Indices.*)"',
      i.attributes,
    )
    return None if has_work and not is_bookkeeping else 0.0

  def _bytes(self, i: Instruction, scope: dict) -> float:
    """What an instruction reads and writes of main memory; of a slice, the slice alone."""
    operands = [scope[name].arrays for name in i.operands if name in scope]
    written = sum(a.bytes for a in i.arrays)
    if i.opcode == 'custom-call' and (stated := re.search(STATED_BYTES, i.attributes)):
      return float(stated[1])  # a kernel may read an operand often
    if i.opcode == 'custom-call' and '__cublas' in i.attributes:
      written = i.arrays[0].bytes  # the others are scratch, of which nobody knows what is used
    if i.opcode in ('dynamic-slice', 'slice', 'gather'):
      return written + i.arrays[0]._replace(in_main_memory=operands[0][0].in_main_memory).bytes
    if i.opcode == 'dynamic-update-slice':
      part = operands[1][0]
      return part.bytes + part._replace(in_main_memory=i.arrays[0].in_main_memory).bytes
    if i.opcode != 'fusion':
      return written + sum(a.bytes for arrays in operands for a in arrays)
    (inside,) = i.called('calls')
    return self._read_inside(inside, operands) + self._written_inside(inside, i, written)

  def _read_inside(self, computation: str, operands: list[tuple[Array, ...]]) -> float:
    """What a fusion reads of its operands: of those that it only cuts slices from, the slices."""
    sizes = (sum(a.bytes for a in arrays) for arrays in operands)
    return sum(self._read_of(computation, n, size) for n, size in enumerate(sizes))

  def _read_of(self, computation: str, number: int, whole: float) -> float:
    """What a fusion reads of its operand of this number, of so many bytes."""
    instructions = self._computations[computation]
    is_it = lambda i: i.opcode == 'parameter' and re.match(r'\d+', i.attributes)[0] == str(number)
    name = next((i.name for i in instructions if is_it(i)), None)
    uses = ((i, place) for i in instructions for place, x in enumerate(i.operands) if x == name)
    return min(whole, sum(self._read_by(i, place, whole) for i, place in uses))

  def _read_by(self, i: Instruction, place: int, whole: float) -> float:
    """What an instruction of a fusion reads of its operand number `place`, of so many bytes."""
    size = math.prod(i.arrays[0].shape) * BITS[i.arrays[0].dtype] / 8
    if i.opcode in ('dynamic-slice', 'slice', 'gather') and place == 0:
      return size
    if i.opcode == 'dynamic-update-slice' and place == 0:
      return 0.0  # it is updated in place
    if i.opcode == 'fusion' and whole:
      (inside,) = i.called('calls')
      return self._read_of(inside, place, whole)
    return whole

  def _written_inside(self, computation: str, i: Instruction, written: float) -> float:
    """What a fusion writes; of an array that it updates in place, the part alone."""
    scope = self._by_name[computation]
    (root,) = (inner for inner in self._computations[computation] if inner.is_root)
    roots = [scope[name] for name in root.operands] if root.opcode == 'tuple' else [root]
    for inner in roots:
      while inner.opcode in ('bitcast', 'copy', 'convert'):
        inner = scope[inner.operands[0]]
      if inner.opcode == 'dynamic-update-slice':
        part = scope[inner.operands[1]].arrays[0]
        whole = inner.arrays[0]._replace(in_main_memory=True).bytes
        if written >= whole:
          written += part._replace(in_main_memory=True).bytes - whole
    return written


def is_free(i: Instruction) -> bool:
  """Whether an instruction takes no time of its own."""
  return i.opcode in FREE or i.opcode.endswith('-done')


def _callees(i: Instruction) -> list[str]:
  """The computations that an instruction runs as lists of operations."""
  if i.opcode == 'while':
    return i.called('body')
  if i.opcode == 'conditional':
    return i.called('true_computation', 'false_computation', 'branch_computations')
  if i.opcode == 'call':
    return i.called('to_apply', 'called_computations')
  if i.opcode == 'async-start':
    return i.called('calls', 'called_computation')
  return []


def convolution_flops(attributes: str, left, right, out) -> float:
  """Operations of a convolution, as which XLA for TPUs writes products of matrices.

  Batches are spatial axes there, in which all but a few products meet zeros that dilation put
  between numbers: those are not counted.
  """
  of_left, of_right, of_out = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', attributes).groups()
  window = re.search(r'window=\{([^}]*)\}', attributes)
  options = dict(re.findall(r'(\w+)=([\w\-]+)', window[1])) if window else {}
  groups = re.search(r'batch_group_count=(\d+)', attributes)
  products = out[of_out.index('f')] * right[of_right.index('i')]
  products *= left[of_left.index('b')] // (int(groups[1]) if groups else 1)
  spatial = sorted(label for label in of_out if label.isdigit())
  for n, label in enumerate(spatial):
    option = lambda name, usual, n=n: options[name].split('x')[n] if name in options else usual
    products *= _meetings(
      sizes=tuple(
        shape[labels.index(label)]
        for shape, labels in ((left, of_left), (right, of_right), (out, of_out))
      ),
      stride=int(option('stride', '1')),
      low=int(option('pad', '0_0').split('_')[0]),
      left_dilation=int(option('lhs_dilate', '1')),
      right_dilation=int(option('rhs_dilate', '1')),
    )
  return 2.0 * products


@functools.cache
def _meetings(sizes, stride: int, low: int, left_dilation: int, right_dilation: int) -> int:
  """How many pairs (output, tap) of one spatial axis meet a number that is no padding."""
  inputs, taps, outputs = sizes
  found = 0
  for tap in range(taps):
    places = np.arange(outputs) * stride + tap * right_dilation - low
    inside = (places >= 0) & (places <= (inputs - 1) * left_dilation)
    found += int((inside & (places % left_dilation == 0)).sum())
  return found


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """The instructions of every computation, and the name of the one that a program starts with."""
  computations, entry, current = {}, None, None
  # what a kernel says of itself goes over several lines, in the midst of an instruction
  for line in re.sub(r'\n(?="|}})', '', text).splitlines():
    if current is None:
      if match := COMPUTATION.match(line):
        current = computations.setdefault(match[2], [])
        entry = match[2] if match[1] else entry
    elif line.startswith('}'):
      current = None
    elif ' = ' in line:
      current.append(_instruction(line.strip()))
  for name, instructions in computations.items():
    scope = {i.name: i for i in instructions}
    computations[name] = [_as_not_started(i, scope) for i in instructions]
  return computations, entry


def _as_not_started(i: Instruction, scope: dict) -> Instruction:
  """'X-start' as X: without its operands among the results, where they stand first, or for copies
  second.
  """
  kind = i.opcode.removesuffix('-start')
  if kind in (i.opcode, 'async'):
    return i
  given = sum(len(scope[name].arrays) for name in i.operands)
  results = i.arrays[:1] if kind == 'copy' else i.arrays[given:] or i.arrays
  return i._replace(opcode=kind, arrays=results)


def _instruction(line: str) -> Instruction:
  name, _, rest = line.partition(' = ')
  kind, rest = _split_type(rest)
  opcode, _, rest = rest.partition('(')
  operands, attributes = _split_brackets(rest)
  if opcode in ('parameter', 'constant'):
    attributes = operands + ', ' + attributes
    operands = ''
  return Instruction(
    name=name.removeprefix('ROOT ').removeprefix('%'),
    arrays=tuple(_arrays(kind)),
    opcode=opcode.strip(),
    operands=tuple(NAME.findall(operands)),
    attributes=attributes,
    is_root=name.startswith('ROOT '),
  )


def _arrays(kind: str):
  for match in ARRAY.finditer(kind):
    if match[1] in BITS:
      shape = tuple(int(n) for n in match[2].split(',') if n)
      yield Array(match[1], shape, 'S(' not in (match[3] or ''))


def _split_type(text: str) -> tuple[str, str]:
  """The type that a text begins with, and what follows."""
  if not text.startswith('('):
    kind, _, rest = text.partition(' ')
    return kind, rest
  inside, rest = _split_brackets(text[1:])
  return inside, rest.strip()


def _split_brackets(text: str) -> tuple[str, str]:
  """What stands before the bracket that closes one which is open, and what stands after it."""
  depth = 1
  for match in re.finditer(r'[()]', text):
    depth += 1 if match[0] == '(' else -1
    if depth == 0:
      return text[: match.start()], text[match.end() :]
  return text, ''
