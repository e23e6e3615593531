"""A run whose artifacts are kept -> its cheap artifacts made again beside it, and where the two differ.

An artifact is made again from the kept artifacts that it reads, so each is tested alone. Those that train or sample are
not among them: rounding that differs between two machines leads to other texts there. Numbers are equal if they differ
by at most `RELATIVE` of the larger one or by at most `ABSOLUTE`; all else must be the same. Embeddings come from the
cache if it has them.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ddpo_lib.base.errors import DAMAGED_TABLE, first_line
from ddpo_lib.base.run_folder import Run

RELATIVE, ABSOLUTE = 1e-5, 1e-6  # float32 sums that threads divide in another way differ by less
LIMIT = 30.0  # seconds that a cheap artifact took at most
EXACT = (  # what neither trains nor samples
    *("corpus", "vectors", "pairs", "quality", "findings", "maps", "ranking"),
    *("evaluation", "sharpness", "fronts", "online", "worlds", "world-online", "world-rewards"),
    *("domains", "domain-checks", "programs"),
)
NUMBER = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")
SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Difference:
    """The first place where two files differ, and what each of them has there; "nothing" if it lacks the place."""

    file: str
    field: str
    kept: str
    made: str


@dataclass(frozen=True)
class Verified:
    """What became of one artifact.

    Attributes:
        name: of the artifact.
        passed: None if it was not made again; else whether it is equal and of this code.
        said: a sentence.
        differences: of each file that differs, the first.
    """

    name: str
    passed: bool | None
    said: str
    differences: tuple[Difference, ...] = ()


def verify(run: Run, limit: float = LIMIT) -> Iterator[Verified]:
    """Make the cheap artifacts of a run again, in temporary folders, and compare. Missing artifacts are left out.

    Args:
        run: its artifacts are read, and none is changed.
        limit: seconds; an artifact that took longer is not made again.
    """
    for name, step in run.steps.items():
        manifest = run.manifest(name)
        if not manifest or not (name in EXACT or name.startswith("chapter-")):
            continue
        if not run.is_fresh(name):
            yield Verified(name, False, "out of date: other code, settings or data made it; `ddpo doctor` says which")
        elif manifest["seconds"] > limit:
            yield Verified(name, None, f"not made again: it took {manifest['seconds']:.0f} s")
        elif gone := [needed for needed in step.inputs if not run.is_fresh(needed)]:
            yield Verified(name, None, f"not made again: it reads {gone[0]}, which is missing or out of date")
        else:
            yield _make_again(run, name)


def _make_again(run: Run, name: str) -> Verified:
    with TemporaryDirectory() as folder:
        try:
            run.steps[name].make(Path(folder), run)
        except Exception as error:  # of any library: what it reads may be damaged, and the others are to be verified
            return Verified(name, False, f"cannot be made again: {first_line(error)}")
        unknown = () if (run.folder / "sft" / "trained").is_dir() else ("seen",)  # a kept run has no weights
        found = tuple(differences(run.folder / name, Path(folder), unknown))
    if not found:
        return Verified(name, True, "equal")
    others = len(found) - 1
    more = "" if not others else "; 1 more file differs" if others == 1 else f"; {others} more files differ"
    one = found[0]
    said = f"differs in {one.file}, {one.field}: {one.kept} is kept, {one.made} is made again{more}"
    return Verified(name, False, said, found)


def differences(kept: Path, made: Path, without: tuple[str, ...] = ()) -> Iterator[Difference]:
    """Of each file of an artifact that differs in two folders, the first difference. The manifests do not count, nor do
    the fields of JSON files that `without` names."""
    folders = (kept, made)
    names = {str(f.relative_to(top)) for top in folders for f in top.rglob("*") if f.is_file()} - {"manifest.json"}
    for name in sorted(names):
        one, other = (top / name for top in folders)
        if not (one.is_file() and other.is_file()):
            there = ["a file" if file.is_file() else "nothing" for file in (one, other)]
            yield Difference(name, "the file", *there)
        elif one.read_bytes() != other.read_bytes():
            contents = [_less(_content(file), without) for file in (one, other)]
            for field, *values in islice(compare(*contents), 1):
                yield Difference(name, field or "the whole", *values)


def compare(kept, made, field: str = "") -> Iterator[tuple[str, str, str]]:
    """The places where two values differ: the place, as in `arms.dpo[0]`, and both values there as text.

    Args:
        kept, made: numbers, texts, bytes, arrays, or mappings and lists of such values.
        field: the place of the two.
    """
    if isinstance(kept, dict) and isinstance(made, dict):
        for name in [*kept, *(name for name in made if name not in kept)]:
            place = f"{field}.{name}" if field else str(name)
            if name in kept and name in made:
                yield from compare(kept[name], made[name], place)
            else:
                yield place, *(_shown(values[name]) if name in values else "nothing" for values in (kept, made))
    elif isinstance(kept, np.ndarray) and isinstance(made, np.ndarray):
        yield from _compare_arrays(kept, made, field)
    elif isinstance(kept, list) and isinstance(made, list):
        if len(kept) != len(made):
            yield f"{field}, the length", str(len(kept)), str(len(made))
        for place, (one, other) in enumerate(zip(kept, made, strict=False)):
            yield from compare(one, other, f"{field}[{place}]")
    elif isinstance(kept, str) and isinstance(made, str):
        yield from _compare_texts(kept, made, field)
    elif not _are_close(kept, made):
        yield field, _shown(kept), _shown(made)


def _compare_arrays(kept: np.ndarray, made: np.ndarray, field: str) -> Iterator[tuple[str, str, str]]:
    if kept.shape != made.shape:
        yield f"{field}, the shape", str(kept.shape), str(made.shape)
    elif not all(np.issubdtype(array.dtype, np.number) for array in (kept, made)):
        yield from compare(kept.tolist(), made.tolist(), field)
    else:
        close = np.isclose(kept, made, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        for place in zip(*np.nonzero(~close), strict=True):
            at = ", ".join(str(index) for index in place)
            yield f"{field}[{at}]", str(kept[place]), str(made[place])


def _compare_texts(kept: str, made: str, field: str) -> Iterator[tuple[str, str, str]]:
    """Numbers with decimals are compared as numbers."""
    if kept == made:
        return
    ours, theirs = NUMBER.findall(kept), NUMBER.findall(made)
    if NUMBER.split(kept) == NUMBER.split(made):
        for one, other in zip(ours, theirs, strict=True):
            if not _are_close(float(one), float(other)):
                yield field, one, other
        return
    first = next((i for i, (a, b) in enumerate(zip(kept, made, strict=False)) if a != b), min(len(kept), len(made)))
    begin = max(0, first - SHOWN // 3)
    yield field, *(_shown(text[begin : begin + SHOWN]) for text in (kept, made))


def _are_close(kept, made) -> bool:
    numbers = not any(isinstance(value, bool) or not isinstance(value, int | float) for value in (kept, made))
    if not numbers:
        return type(kept) is type(made) and kept == made
    return math.isclose(kept, made, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (math.isnan(kept) and math.isnan(made))


def _shown(value) -> str:
    text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


# A file's content


def _content(file: Path):
    """What is compared of a file, as `compare` accepts it; the bytes if it is of another kind."""
    read = {
        ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
        ".parquet": _table,
        ".npy": lambda file: np.load(file),
        ".npz": _arrays,
        ".ipynb": _outputs,
    }
    try:
        return read.get(file.suffix, Path.read_bytes)(file)
    except DAMAGED_TABLE as error:
        return f"{file.name} cannot be read: {first_line(error)}"


def _less(content, without: tuple[str, ...]):
    """A content less some fields, if it is a mapping."""
    return {name: content[name] for name in content if name not in without} if isinstance(content, dict) else content


def _table(file: Path) -> dict:
    import pandas as pd

    table = pd.read_parquet(file)
    return {"columns": list(table), **{str(name): table[name].to_numpy() for name in table}, "attrs": dict(table.attrs)}


def _arrays(file: Path) -> dict:
    with np.load(file) as arrays:
        return dict(arrays)


def _outputs(file: Path) -> dict:
    """What the cells of an executed notebook show: text and figures, without counters and times."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    shown = {}
    for number, cell in enumerate(cells):
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data") or {output.get("name", "text"): output.get("text", "")}
            for kind, content in data.items():
                joined = "".join(content) if isinstance(content, list) else content
                shown[f"cell {number}, output {place}, {kind}"] = joined
    return shown
