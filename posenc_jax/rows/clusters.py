"""Documents that are alike: they tell a score as one, not as several."""

import re

OF_YEARS = ('sotu', 'planted')  # corpora whose documents are named after years


def cluster_of(document: str, corpus: str) -> str:
  """The cluster of a document: 'mpmath' of 'mpmath/matrices' of the corpus `code`, '1790' of
  '1790-Washington-1' of those whose documents begin with a year, else the document itself.
  """
  if corpus == 'code':
    return document.partition('/')[0]
  year = re.match(r'(\d{4})-', document, re.ASCII) if corpus in OF_YEARS else None
  return year[1] if year else document
