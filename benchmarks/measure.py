"""Measures contenders, each in a fresh process and in turns, and writes the results as a table.

A contender is a function at the top level of a module, or a `functools.partial` of one. It prepares its input and
returns `timed(work)`, where `work` is the part that is measured.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from ddpo_lib.base.run_folder import peak_memory

HEADER = "| what | against | asked | measured | spread | met |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """A row of a benchmark's table.

    Attributes:
        what: the thing measured.
        against: what it is compared with.
        asked: the required number; "" if the row only informs.
        measured: the median over repeats.
        spread: the least and the most over repeats.
        met: whether the measured number meets the requirement; None if the row only informs.
        note: shown below the table, such as why a requirement is not met.
    """

    what: str
    against: str
    asked: str
    measured: str
    spread: str
    met: bool | None
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One run of a contender: `grown` is how far the work raised its process's peak memory, `peak`. Both in bytes."""

    seconds: float
    peak: int
    grown: int
    result: Any


def timed(work: Callable[[], Any]) -> Sample:
    """Run the part of a contender that counts."""
    before, start = peak_memory(), time.perf_counter()
    result = work()
    seconds, peak = time.perf_counter() - start, peak_memory()
    return Sample(seconds, peak, peak - before, result)


def bfloat16_works() -> bool:
    """Whether this processor multiplies in bfloat16; where it does not, rows on it are left out."""
    from torch import nn

    from ddpo_lib.base.errors import InputError
    from ddpo_lib.models.frozen_linears import check_bfloat16

    try:
        check_bfloat16(nn.Linear(1, 1).requires_grad_(False))
    except InputError:
        return False
    return True


def forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak(sample: Sample) -> int:
    """Bytes: what torch held of the GPU's memory at most, or without one the process of the machine's."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else sample.peak


def take_turns(contenders: dict[str, Callable[[], Sample]], repeats: int) -> dict[str, list[Sample]]:
    """Run every contender once, then every one again, so that other load on the machine affects all of them."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                samples[name].append(fresh.submit(contender).result())
    return samples


def median_and_spread(values: Sequence[float], form: str) -> tuple[str, str]:
    """The median, and "least to most", each written in `form`, as in "{:.2f} s"."""
    return form.format(statistics.median(values)), f"{form.format(min(values))} to {form.format(max(values))}"


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, with their notes below; what is measured again in the next row is not said again."""
    met = {True: "yes", False: "no", None: ""}
    said = ["", *(row.what for row in rows)]
    lines = []
    for r, before in zip(rows, said, strict=False):
        what = "" if r.what == before else r.what
        lines.append(f"| {what} | {r.against} | {r.asked} | {r.measured} | {r.spread} | {met[r.met]} |\n")
    notes = [f"- {note}\n" for note in dict.fromkeys(r.note for r in rows if r.note)]
    return HEADER + "".join(lines) + "\n" * bool(notes) + "".join(notes)
