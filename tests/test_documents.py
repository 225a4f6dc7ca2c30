"""The Python in README and GUIDE runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Run after each block of GUIDE, plain JAX, NNX and Linen: gradients reach the encoding.
AFTER_GUIDE = (
  """
def moved(eps):
  return loss(jax.tree.map(lambda leaf: leaf + eps, parameters), q, k, v)

slope = (moved(0.05) - moved(-0.05)) / 0.1
total = sum(leaf.sum() for leaf in jax.tree.leaves(gradients[0]))
assert abs(slope - total) < 0.02 * abs(total), (slope, total)
""",
  "assert abs(gradients['encoding']['table'][...]).max() > 1e-6",
  "assert abs(gradients['params']['encoding']['table'][...]).max() > 1e-6",
)


@pytest.mark.parametrize('name', ['README.md', 'GUIDE.md'])
def test_python_blocks_run(name):
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / name).read_text(), re.DOTALL)
  assert len(blocks) == 3
  if name == 'GUIDE.md':
    blocks = [block + check for block, check in zip(blocks, AFTER_GUIDE, strict=True)]
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(blocks)], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
