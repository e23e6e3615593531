"""Shards of a table of weights -> the whole table, as without shards. Only a few prompts are in memory at once."""

import heapq
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from ddpo_lib.base.errors import InputError

ROWS = 10_000  # rows that are read from all parts at once, and written at once


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, shards = None, {}
    for part in parts:
        try:
            schema = pq.read_schema(part)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{part}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
        shard = json.loads((schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}")).get("shard")
        if shard is None:
            raise InputError(f"{part}: is no shard; give a file that `ddpo weights --shard` wrote")
        first = first or (schema.remove_metadata(), shard)
        same = schema.remove_metadata() == first[0] and (shard["n"], shard["of"]) == (first[1]["n"], first[1]["of"])
        if not same:
            raise InputError(f"{part}: is of another corpus, number of shards or options than {parts[0]}; leave it out")
        if shard["k"] in shards:
            raise InputError(f"{part}: is shard {shard['k']}/{shard['n']}, and so is {shards[shard['k']]}; give one")
        shards[shard["k"]] = part
    missing = [str(k) for k in range(1, first[1]["n"] + 1) if k not in shards]
    if missing:
        raise InputError(f"of {first[1]['n']} shards these are missing: {', '.join(missing)}; give them too")
    return first[0]


def _prompts(part: Path, at_once: int) -> Iterator[tuple[int, "object"]]:
    """Each prompt of a part: its number and its rows as a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held = None
    for batch in pq.ParquetFile(part).iter_batches(at_once):
        held = pa.concat_tables([held, pa.Table.from_batches([batch])]) if held else pa.Table.from_batches([batch])
        ids = held["prompt_id"].to_pylist()
        starts = [i for i, name in enumerate(ids) if i == 0 or name != ids[i - 1]]
        for start, end in itertools.pairwise(starts):
            yield int(ids[start][1:]), held.slice(start, end - start)
        held = held.slice(starts[-1])
    if held:
        yield int(held["prompt_id"][0].as_py()[1:]), held
