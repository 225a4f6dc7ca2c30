"""What a training measures of itself: a trace of some steps and the peak of memory."""

import resource
import sys
from pathlib import Path

import jax


def peak_memory() -> dict[str, int | None]:
  """The most bytes held so far: by this process, and on the first device where jax counts them (not
  on CPUs).
  """
  kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
    1 if sys.platform == 'linux' else 1024
  )
  stats = jax.local_devices()[0].memory_stats() or {'peak_bytes_in_use': None}
  return {
    'peak_process_bytes': round(1024 * kilobytes),
    'peak_device_bytes': stats['peak_bytes_in_use'],
  }


class Trace:
  """`with Trace(workdir, (N, M)) as trace`: jax.profiler records steps N to M, or those of them
  that are made.
  """

  def __init__(self, workdir: Path, steps: tuple[int, ...]):
    self._folder, self._steps, self._is_on = workdir / 'profile', steps, False

  def before(self, step: int) -> None:
    if not self._is_on and self._steps and self._steps[0] <= step <= self._steps[1]:
      jax.profiler.start_trace(str(self._folder))
      self._is_on = True

  def after(self, step: int, metrics: dict) -> bool:
    """Whether the trace ended with this step: then it has waited for the device and written
    files.
    """
    if not self._is_on or step < self._steps[1]:
      return False
    jax.block_until_ready(metrics)
    self._stop()
    return True

  def _stop(self) -> None:
    if self._is_on:
      self._is_on = False
      jax.profiler.stop_trace()
      print(
        f'{self._folder}: trace of steps {self._steps[0]} to {self._steps[1]}, for TensorBoard or Perfetto'
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stop()
