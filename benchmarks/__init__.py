"""Speed and memory, compared with the usual alternatives, in one run.

    make bench                       every benchmark; prints its table and writes RESULTS.md here
    python -m benchmarks.weights     one benchmark; prints its table
    python -m benchmarks.gpu         an 8B model on one GPU; writes results/gpu/speed.json and speed.md
    python -m benchmarks.study       arms, seeds and temperatures of the embedded model on one GPU; writes results/gpu

A benchmark is a module with `rows() -> list[Row]`, listed in `__main__.py`; `measure.py` defines `Row` and the
measurement.
"""
