"""SIGTERM and Ctrl-C as a request that the training loop answers between two steps."""

import os
import shlex
import signal
import sys
import threading

from rich.console import Console

from posenc_jax.errors import Stopped


class StopRequest:
  """`with StopRequest() as stop`: SIGTERM or Ctrl-C set `stop.signal`; a second one ends the
  process at once.

  Python's handlers wait until a step, or whatever else the main thread computes, is over: a thread
  sees the second one.
  """

  signal = None

  def __enter__(self):
    seen, self._told = os.pipe()
    os.set_blocking(self._told, False)
    self._before = {
      number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)
    }
    self._fd_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
    threading.Thread(target=self._watch, args=[seen], daemon=True).start()
    return self

  def _request(self, number, frame):
    del frame
    self.signal = number

  def _watch(self, seen: int) -> None:
    asked = 0
    while byte := os.read(seen, 1):
      asked += byte[0] in self._before
      if asked == 2:
        Console().show_cursor()  # a progress bar hides it
        print(
          f'{signal.Signals(byte[0]).name} again: ended at once; the same command goes on',
          file=sys.stderr,
          flush=True,
        )
        os._exit(128 + byte[0])
    os.close(seen)

  def __exit__(self, *_):
    signal.set_wakeup_fd(self._fd_before)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    os.close(self._told)

  def error(self, step: int) -> Stopped:
    command = shlex.join(['python', *sys.argv])
    name = signal.Signals(self.signal).name
    return Stopped(
      f'{name}: step {step} is saved; go on with the same command: {command}', 128 + self.signal
    )
