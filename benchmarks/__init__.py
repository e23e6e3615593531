"""How fast and how large, side by side with what a user would pick instead, in one run.

    make bench                       every benchmark; prints its table and writes RESULTS.md here
    python -m benchmarks.weights     one benchmark; prints its table

A benchmark is a module with `rows() -> list[Row]`, listed in `__main__.py`; `measure.py` has `Row` and what measures.
"""
