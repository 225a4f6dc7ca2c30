"""Primitives that the hook `score` of an encoding may not need in kernels, forward or backward, and
what an encoding does that needs one.
"""

# Mosaic and Triton have no rules for these, or rules for a few cases.
UNSUPPORTED_PRIMITIVES = {
  'gather': 'looks numbers up by an index',
  'scan': 'goes through chunks of keys',
  'sort': 'sorts',
  'top_k': 'sorts',
  'rev': 'reverses arrays',
  'reduce_prod': 'multiplies the numbers of an axis',
  'cumsum': 'sums along keys',
  **dict.fromkeys(('cumlogsumexp', 'cummax', 'cummin', 'cumprod'), 'goes along keys'),
  **dict.fromkeys(('dynamic_slice', 'dynamic_update_slice'), 'takes parts of arrays'),
  **dict.fromkeys(('scatter', 'scatter-add', 'scatter-mul'), 'writes by an index'),
  **dict.fromkeys(('scatter-max', 'scatter-min'), 'writes by an index'),
  **dict.fromkeys(('bessel_i0e', 'bessel_i1e', 'digamma', 'erfc', 'igamma'), 'applies a function'),
  **dict.fromkeys(('igammac', 'lgamma', 'polygamma', 'zeta'), 'applies a function'),
}
UNSUPPORTED_IN_MOSAIC = UNSUPPORTED_PRIMITIVES | {
  **dict.fromkeys(('acos', 'acosh', 'asin', 'asinh', 'atan', 'atanh'), 'applies a function'),
  **dict.fromkeys(('cbrt', 'cosh', 'expm1', 'sinh'), 'applies a function'),
}
UNSUPPORTED_IN_TRITON = UNSUPPORTED_PRIMITIVES | {
  'concatenate': 'joins arrays',
  'erf': 'applies a function',
  'reduce_and': 'asks whether all are true',
  'reduce_or': 'asks whether any is true',
  'reduce_precision': 'rounds',
  'round': 'rounds',
  'split': 'takes parts of arrays',
}
