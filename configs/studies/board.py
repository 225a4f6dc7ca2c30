"""The board: every encoding worth choosing on text in which far context pays, and on tasks.

  python scripts/sweep.py --config=configs/studies/board.py --out=results/board --jobs=2
"""
