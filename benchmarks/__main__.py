"""Runs every benchmark, prints its table, and writes RESULTS.md with the machine it ran on."""

import os
from pathlib import Path

from benchmarks import (
    annotation,
    bfloat16_errors,
    book_shares,
    book_size,
    decode_shares,
    maps,
    measures,
    pairs,
    sampling,
    statistics,
    step_shares,
    training,
    weights,
)
from benchmarks.measure import table

BENCHMARKS = {
    "Weights": weights.rows,
    "Pairs": pairs.rows,
    "Measures": measures.rows,
    "Statistics": statistics.rows,
    "Embedding and maps": maps.rows,
    "Annotation": annotation.rows,
    "Sampling": sampling.rows,
    "Training": training.rows,
    "Products in bfloat16": bfloat16_errors.rows,
    "Where the time of a step goes": step_shares.rows,
    "Where the time of a decoding step goes": decode_shares.rows,
    "Where the time of `make book` goes": book_shares.rows,
    "The size of the built book": book_size.rows,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    load = os.getloadavg()[0]
    sections = []
    for title, rows in BENCHMARKS.items():
        sections.append(f"## {title}\n\n{table(rows())}")
        print(sections[-1], flush=True)
    RESULTS.write_text("\n".join([heading(load), *sections]), encoding="utf-8")
    print(f"written to {RESULTS}")


def heading(load: float) -> str:
    """What `make bench` is, and machine, date, versions and commit of this run."""
    from ddpo_lib.base.run_folder import surroundings  # may import torch, which the contenders do without

    found = surroundings()
    hardware = found["hardware"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{hardware['processor']}, {hardware['cores']} cores, {memory:.0f} GB, GPU: {hardware['gpu'] or 'none'}"
    return (
        "# Benchmarks\n\nWritten by `make bench`. Each number is the median over repeats, each in a fresh process; "
        "contenders take turns. The spread is the least and the most.\n\n"
        f"- {found['made']}, commit {found['commit']}\n"
        f"- {machine}, load {load:.1f} at the start\n"
        f"- {', '.join(f'{name} {version}' for name, version in found['versions'].items())}\n"
    )


if __name__ == "__main__":
    main()
