"""Attention tile by tile: geometry, one tile, what is carried along keys, the passes over tiles."""
