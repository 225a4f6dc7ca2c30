"""What needs more than one device runs in a process of its own, on eight virtual ones of the CPU.

By hand, with the laws of every encoding on the ring, in minutes:
JAX_NUM_CPU_DEVICES=8 pytest -m 'slow or not slow' tests/eight_devices/*.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / 'eight_devices').glob('*.py'))
# All that is slow there but for what every encoding is asked.
SLOW = ('-m', 'slow', '-k', 'not test_equal_to_dense and not test_what_an_encoding_gathers')


@pytest.mark.parametrize(
  'chosen',
  [pytest.param((), marks=pytest.mark.ci), pytest.param(SLOW, marks=pytest.mark.slow)],
  ids=['ci', 'slow'],
)
def test_on_eight_devices(chosen):
  options = ['-n', '0', '-q', '-p', 'no:cacheprovider', '-o', 'faulthandler_timeout=300']
  command = [sys.executable, '-m', 'pytest', *options, *chosen, *map(str, FILES)]
  env = os.environ | {'JAX_NUM_CPU_DEVICES': '8'}
  done = subprocess.run(
    command, cwd=Path(__file__).parent.parent, env=env, capture_output=True, text=True, timeout=1600
  )
  assert done.returncode == 0, done.stdout + done.stderr
