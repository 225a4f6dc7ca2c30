"""Profiles a training: a trace of chosen steps, and the peak of memory."""

import contextlib
import resource
import sys
from pathlib import Path

import jax


def peak_memory() -> dict[str, int | None]:
  """The most bytes held so far, by this process and on its first device (None on CPUs)."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux, bytes on macOS
  stats = jax.local_devices()[0].memory_stats() or {'peak_bytes_in_use': None}
  return {
    'peak_process_bytes': 1024 * peak if sys.platform == 'linux' else peak,
    'peak_device_bytes': stats['peak_bytes_in_use'],
  }


class Profiler(contextlib.AbstractContextManager):
  """`with Profiler(workdir, (N, M)) as profiler`: jax.profiler traces the steps from N to M.

  `profile_steps` is () to trace nothing. A training that ends before M ends the trace.
  """

  def __init__(self, workdir: Path, profile_steps: tuple[int, ...]):
    self._folder = workdir / 'profile'
    self._steps = profile_steps
    self._is_tracing = False
    self._first = self._last = 0  # of the steps that were traced

  def before_step(self, step: int) -> None:
    if not self._is_tracing and self._steps and self._steps[0] <= step <= self._steps[1]:
      jax.profiler.start_trace(str(self._folder))
      self._is_tracing, self._first = True, step
    self._last = step

  def after_step(self, step: int, metrics: dict) -> bool:
    """Ends the trace after its last step; True if so: it has waited for the device then."""
    if not self._is_tracing or step < self._steps[1]:
      return False
    jax.block_until_ready(metrics)
    self._stop()
    return True

  def _stop(self) -> None:
    if self._is_tracing:
      self._is_tracing = False
      jax.profiler.stop_trace()
      steps = f'steps {self._first} to {self._last}'
      print(f'{self._folder}: trace of {steps}, for TensorBoard or Perfetto')

  def __exit__(self, *_):
    self._stop()
