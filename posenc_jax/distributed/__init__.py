"""Devices and processes: the mesh of a run, and several processes that train as one."""
