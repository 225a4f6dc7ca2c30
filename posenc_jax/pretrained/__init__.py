"""Pretrained models of other programs: read, and made into runs of this one."""
