"""A sweep: the runs of a study, each with a directory and processes of its own; then its report.

Imports no jax: a run that crashes stops no other, and a process can be given what must be set
before it starts.
"""

from posenc_jax.sweep.plan import plan, run_name
from posenc_jax.sweep.sweeping import print_status, sweep

__all__ = ['plan', 'print_status', 'run_name', 'sweep']
