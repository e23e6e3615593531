"""A file or a hub's data set -> prompts with their responses, in the order of its records, and what was left out.

The source is any file that `files` reads, a folder of divided parts, or a Hugging Face data set. `records` says which
forms a record may have. What cannot be understood raises InputError, which names file, row and field. `corpus` merges,
cleans and splits what is read here.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import divided
from ddpo_lib.data.files import file_records
from ddpo_lib.data.records import Prompt, Reading, Record
from ddpo_lib.data.values import kind

SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".pq", ".arrow", ".feather", ".csv", ".tsv", ".txt")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


def is_hub_name(source: str) -> bool:
    """Whether a source has the form of a hub data set, `owner/name` or `owner/name@revision`, and is no file here."""
    names_a_file = Path(source).suffix.lower() in (*SUFFIXES, *PACKED) or Path(source).exists()
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", source)) and not names_a_file


def parse_prompts(source: str | Path, reading: Reading, shard: tuple[int, int] | None) -> Iterator[Prompt]:
    """The prompts of a source, one per record, in order; prompts without text are left out.

    Args:
        source: a file or folder that `files` reads, or a hub data set.
        reading: what to keep of a record; it counts what is read and what is left out.
        shard: (k, n) gives the k-th of n parts, which a hash of the prompt's text decides; None gives all.

    Raises:
        InputError: the source cannot be read, or a record is malformed; names file, row and field.
    """
    seen: set[str] = set()  # the prompts of a table with a row per response
    for record, prompt in _read(source, reading, shard):
        if shard is not None and _part(record, prompt, shard[1]) != shard[0]:
            continue
        for count, *what in record.notes:
            count(*what)
        row_of = {prompt.text} if prompt is not None and prompt.row else set()
        reading.read["prompts"] += not row_of & seen
        seen |= row_of
        reading.read["responses"] += record.responses
        if prompt is not None:
            yield prompt


def divide(source: str | Path, folder: Path, parts: int, *, reddit: bool) -> int:
    """Read a source once, and write its records to parts, so that a shard need not read all of it.

    Args:
        source: as in `parse_prompts`.
        folder: the folder to make. As a source, it gives the prompts of the whole source, or of one shard of `parts`.
        parts: number of parts.
        reddit: as in `Reading`.

    Returns:
        The number of records.

    Raises:
        InputError: as `parse_prompts` and `divided.write_parts`.
    """
    read = _read(source, Reading(lone=True, reddit=reddit), None)
    rows = ((_part(record, prompt, parts), record.number, record.where, record.line) for record, prompt in read)
    return divided.write_parts(rows, folder, parts, {"reddit": reddit})


def _read(
    source: str | Path, reading: Reading, shard: tuple[int, int] | None
) -> Iterator[tuple[Record, Prompt | None]]:
    for number, where, line in _records(source, reading, shard):
        if not isinstance(line, dict):
            raise InputError(f"{where}: expected an object with `prompt` and `responses`, got {kind(line)}")
        record = Record(line, number, where, reading)
        yield record, record.prompt()


def _part(record: Record, prompt: Prompt | None, n: int) -> int:
    """The part, 1 to n, of a record: its prompt's text decides, or its number if it has none."""
    text = prompt.text if prompt else str(record.number)  # not its place, in which the name of the file is
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % n + 1


def _records(source: str | Path, reading: Reading, shard: tuple[int, int] | None) -> Iterator[tuple[int, str, dict]]:
    """Each record that may belong to the shard: its number, the words that say where it is, and itself."""
    if divided.is_divided(Path(source)):
        return divided.read_parts(Path(source), shard, {"reddit": reading.reddit})
    on_hub = not Path(source).exists() and is_hub_name(str(source))
    records = _hub_records(str(source)) if on_hub else file_records(Path(source))
    return ((number, where, line) for number, (where, line) in enumerate(records))


def _hub_records(source: str) -> Iterator[tuple[str, dict]]:
    """The records of a hub data set, one split after another. Needs a network, or a copy in the Hugging Face cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name, _, revision = source.partition("@")
    try:
        splits = load_dataset(name, revision=revision or None)
    except (OSError, DatasetNotFoundError) as error:
        raise InputError(
            f"{source}: cannot be read from the hub ({type(error).__name__}); without a network, give a local JSONL "
            "or Parquet file, or name no corpus to use the one in the package"
        ) from None
    for split, records in splits.items():
        for number, record in enumerate(records, 1):
            yield f"{name}, split {split}, row {number}", record
