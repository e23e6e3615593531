"""Shards of a table of weights -> the whole table, as without shards. Only a few prompts are in memory at once."""

import heapq
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ddpo_lib.base.errors import DAMAGED_TABLE, InputError, first_line

MOST = 1_000_000  # shards
ROWS = 65_536  # rows that are read from all parts at once, and written at once
GROUP = 4000  # rows of a shard that a reader must hold: about 2 MB; smaller groups need more memory for their places


def merge(parts: list[Path], out: Path) -> int:
    """Write the rows of `parts` to `out` in the order of their prompts.

    Args:
        parts: Parquet files that `ddpo weights --shard` wrote, one for each shard.
        out: the Parquet file to write.

    Returns:
        The number of rows.

    Raises:
        InputError: a part that cannot be read or is not a shard, a part of another corpus or with other options than
            the first, or a shard that is given twice or is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(parts)
    rows, waiting = 0, []
    at_once = max(1, ROWS // len(parts))
    streams = (_prompts(path, at_once) for path in parts)
    with pq.ParquetWriter(out, schema) as writer:
        for _, prompt in heapq.merge(*streams, key=lambda found: found[0]):
            waiting.append(prompt.replace_schema_metadata())
            rows += len(prompt)
            if sum(map(len, waiting)) >= ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return rows


def _schema(parts: list[Path]):
    """The columns of all parts, after a check that the parts are all the shards of one table.

    What pandas noted about one part's rows and drops is left out, since it is not true of the whole table.
    """
    import pyarrow.parquet as pq

    first, shards = None, {}
    for part in parts:
        try:
            schema = pq.read_schema(part)
        except DAMAGED_TABLE as error:
            raise InputError(f"{part}: not a Parquet file that can be read ({first_line(error)})") from None
        k, n, of = _shard(schema, part)
        first = first or (schema.remove_metadata(), n, of)
        if (schema.remove_metadata(), n, of) != first:
            raise InputError(f"{part}: is of another corpus, number of shards or options than {parts[0]}; leave it out")
        if k in shards:
            raise InputError(f"{part}: is shard {k}/{n}, and so is {shards[k]}; give one")
        shards[k] = part
    missing = [str(k) for k in range(1, first[1] + 1) if k not in shards]
    if missing:
        raise InputError(f"of {first[1]} shards these are missing: {', '.join(missing)}; give them too")
    return first[0]


def _shard(schema, part: Path) -> tuple[int, int, list]:
    """The number of a shard, how many there are, and the options that they have in common."""
    try:
        shard = json.loads((schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}"))["shard"]
        k, n, of = shard["k"], shard["n"], shard["of"]
    except (ValueError, KeyError, TypeError, RecursionError):
        k = n = of = None
    whole = type(k) is int and type(n) is int and 1 <= k <= n <= MOST and "prompt_id" in schema.names
    if not whole:
        raise InputError(f"{part}: is no shard; give a file that `ddpo weights --shard` wrote")
    return k, n, of


def _prompts(part: Path, at_once: int) -> Iterator[tuple[int, "object"]]:
    """Each prompt of a part: its number and its rows as a table.

    Raises:
        InputError: the part is damaged.
    """
    import pyarrow as pa

    held = None
    for batch in _batches(part, at_once):
        held = pa.concat_tables([held, batch]) if held else batch
        ids = held["prompt_id"].to_pylist()
        starts = [i for i, name in enumerate(ids) if i == 0 or name != ids[i - 1]]
        for start, end in itertools.pairwise(starts):
            yield _number(ids[start], part), held.slice(start, end - start)
        held = held.slice(starts[-1])
    if held:
        yield _number(held["prompt_id"][0].as_py(), part), held


def _batches(part: Path, at_once: int) -> Iterator["object"]:
    """The rows of a part as tables, none of them empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(part)
        for group in range(file.num_row_groups):  # given all groups, the reader would hold more and more of them
            for batch in file.iter_batches(at_once, row_groups=[group]):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
    except DAMAGED_TABLE as error:
        raise InputError(f"{part}: cannot be read to its end ({first_line(error)}); compute this shard again") from None


def _number(prompt_id, part: Path) -> int:
    if not re.fullmatch(r"p\d{1,18}", str(prompt_id)):
        raise InputError(f"{part}: {prompt_id!r} is no prompt id that `ddpo weights --shard` writes")
    return int(prompt_id[1:])
