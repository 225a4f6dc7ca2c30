"""Families of pretrained models, a function each: what its config.json means here.

`registry.py` lists them; `common_fields.py` and `layer_kinds.py` read what many of them say alike.
"""

from posenc_jax.pretrained.families.registry import FAMILIES, form_of

__all__ = ['FAMILIES', 'form_of']
