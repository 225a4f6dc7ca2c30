"""SIGTERM, Ctrl-C and SIGHUP as a request that the training loop answers between two steps."""

import os
import signal
import sys
import threading

from rich.console import Console

from posenc_jax.cli.process import same_command
from posenc_jax.errors import Stopped

INSISTENT = (signal.SIGTERM, signal.SIGINT)  # a second one ends the process


class StopRequest:
  """`with StopRequest() as stop_request`: SIGTERM, Ctrl-C or SIGHUP set `stop_request.signal`.

  SIGHUP is what a process gets whose terminal is closed; where it is ignored (nohup), it stays so.
  A second SIGTERM or Ctrl-C ends the process at once. SIGHUP does not count there: a terminal may
  send it twice, and a system that shuts down sends it beside SIGTERM.

  Python runs signal handlers only between instructions of the main thread, which may be in a long
  computation: so a thread of its own watches for the second signal, through the pipe that the
  interpreter writes each signal to.
  """

  signal: int | None = None

  def __enter__(self):
    read_fd, self._write_fd = os.pipe()
    os.set_blocking(self._write_fd, False)
    numbers = [*INSISTENT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
      numbers.append(signal.SIGHUP)
    self._old_handlers = {number: signal.signal(number, self._handle) for number in numbers}
    self._old_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
    threading.Thread(target=self._watch, args=[read_fd], daemon=True).start()
    return self

  def _handle(self, number, frame):
    del frame
    self.signal = number

  def _watch(self, read_fd: int) -> None:
    received = 0
    while byte := os.read(read_fd, 1):
      number = byte[0]
      received += number in INSISTENT
      if received == 2:
        Console().show_cursor()  # a progress bar hides it
        name = signal.Signals(number).name
        print(f'{name} again: ended at once; the same command goes on', file=sys.stderr, flush=True)
        os._exit(128 + number)
    os.close(read_fd)

  def __exit__(self, *_):
    signal.set_wakeup_fd(self._old_wakeup_fd)
    for number, handler in self._old_handlers.items():
      signal.signal(number, handler)
    os.close(self._write_fd)


def stopped_by(number: int, step: int) -> Stopped:
  """The error that ends a training after signal `number`, once `step` is saved."""
  name = signal.Signals(number).name
  return Stopped(f'{name}: step {step} is saved; go on with {same_command()}', 128 + number)
