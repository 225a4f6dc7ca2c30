"""Clusters of documents: those that are alike tell a score as one, not as several.

Speeches of one year repeat each other, and files of one package or folder share its names and its
style.
"""

import re
from collections.abc import Collection, Iterable

FEWEST = 6  # clusters of an interval: fewer tell too little
YEAR, PACKAGE, FOLDER = 'year', 'package', 'folder'
KINDS = {'sotu': YEAR, 'planted': YEAR, 'code': PACKAGE}  # of corpora; of others it is FOLDER


def top_folder(name: str) -> str:
  """The folder of a document's name that all others are in; the name itself if it has none."""
  return name.partition('/')[0]


def clusters_of(documents: Collection[str], corpus: str) -> dict[str, str]:
  """{document: its cluster}: '1790' of '1790-Washington-1' where documents begin with a year,
  'mpmath' of 'mpmath/matrices' of the corpus `code`.

  In another corpus it is the top folder, too, if the documents lie in FEWEST of them or more. Where
  they lie in fewer, folders rather tell kinds of text than projects, and there would be too few
  clusters for an interval: then each document is a cluster by itself.
  """
  kind = KINDS.get(corpus, FOLDER)
  if kind == YEAR:
    years = {document: re.match(r'(\d{4})-', document, re.ASCII) for document in documents}
    return {document: year[1] if year else document for document, year in years.items()}
  found = {document: top_folder(document) for document in documents}
  folders = {folder for document, folder in found.items() if folder != document}
  if kind == FOLDER and len(folders) < FEWEST:
    return {document: document for document in documents}
  return found


def kinds_of(documents: Iterable[tuple[str, str]]) -> list[str]:
  """The kinds of clusters (YEAR, PACKAGE, FOLDER) that hold several of these (corpus, document)."""
  by_corpus = {}
  for corpus, document in documents:
    by_corpus.setdefault(corpus, set()).add(document)
  found = {
    KINDS.get(corpus, FOLDER)
    for corpus, some in by_corpus.items()
    if len({*clusters_of(some, corpus).values()}) < len(some)
  }
  return [kind for kind in (YEAR, PACKAGE, FOLDER) if kind in found]


def taken_as_one(kinds: Iterable[str]) -> str:
  """', those of one year or package taken as one', or '' where each document is a cluster."""
  words = ' or '.join(kinds)
  return words and f', those of one {words} taken as one'
