"""Parts of a table of weights -> the whole one, as if it had never been divided; only a few prompts are in memory."""

import heapq
import itertools
from collections.abc import Iterator
from pathlib import Path

from ddpo_lib.errors import InputError

ROWS = 10_000  # read from each part at once, and written at once


def merge(parts: list[Path], out: Path) -> int:
    """Write the rows of `parts` to `out` in the order of their prompts.

    Args:
        parts: Parquet files that `ddpo weights --shard` wrote, one of each shard.
        out: a Parquet file.

    Returns:
        The number of rows.

    Raises:
        InputError: a part that cannot be read, that is no such table, or that has a prompt of another part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(parts)
    rows, waiting, last = 0, [], None
    with pq.ParquetWriter(out, schema) as writer:
        for number, part, prompt in heapq.merge(*(_prompts(path) for path in parts), key=lambda found: found[0]):
            if last is not None and last[0] == number:
                raise InputError(f"{part}: has prompt p{number:05d}, and so has {last[1]}; give each shard once")
            last = number, part
            waiting.append(prompt.replace_schema_metadata())
            rows += len(prompt)
            if sum(map(len, waiting)) >= ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return rows


def _schema(parts: list[Path]):
    """The columns that all parts share; what pandas noted on one part's rows and losses is not true of the whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = None
    for part in parts:
        try:
            schema = pq.read_schema(part).remove_metadata()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{part}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
        first = first or schema
        if "prompt_id" not in schema.names or schema != first:
            raise InputError(f"{part}: its columns are not those of {parts[0]}; give what `ddpo weights --shard` wrote")
    return first


def _prompts(part: Path) -> Iterator[tuple[int, Path, "object"]]:
    """Each prompt of a part: its number, the part, and its rows as a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held = None
    for batch in pq.ParquetFile(part).iter_batches(ROWS):
        held = pa.concat_tables([held, pa.Table.from_batches([batch])]) if held else pa.Table.from_batches([batch])
        ids = held["prompt_id"].to_pylist()
        starts = [i for i, name in enumerate(ids) if i == 0 or name != ids[i - 1]]
        for start, end in itertools.pairwise(starts):
            yield int(ids[start][1:]), part, held.slice(start, end - start)
        held = held.slice(starts[-1])
    if held:
        yield int(held["prompt_id"][0].as_py()[1:]), part, held
