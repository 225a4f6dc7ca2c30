"""Makes ENCODINGS.md: `page.md` has its words, `page.py` makes its tables, `costs.py` says there
what encodings cost.
"""
