"""`ddpo weights`, and what divides a large corpus for it and joins its shards."""

from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.base.unfinished import write_whole
from ddpo_lib.cli.options import HELD_OUT, IS_MAIN, SPLIT_SEED, HeldOut, SplitSeed


def weights(
    source: Annotated[str, typer.Argument(metavar="IN", help="Corpus: a file, a folder or a hub data set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="Table to write: one row per response.")],
    semantic: Annotated[str, typer.Option(help="Model of the semantic space.")] = "minilm",
    style: Annotated[str, typer.Option(help="Model of the style space.")] = "stylometric",
    scale: Annotated[str, typer.Option(help='"minmax" as released, or "ratio".')] = "minmax",
    floor: Annotated[float, typer.Option(help="Least weight of a response, 0 to 1.")] = 0.0,
    shard: Annotated[str | None, typer.Option(metavar="K/N", help="Only the K-th of N parts of the prompts.")] = None,
    windows: Annotated[bool, typer.Option("--windows", help="Embed long texts in windows, not cut.")] = False,
    reddit: Annotated[bool, typer.Option("--reddit", help="Clean texts of Reddit in any form of file.")] = False,
    held_out: HeldOut = HELD_OUT,
    split_seed: SplitSeed = SPLIT_SEED,
) -> None:
    """Measure how far each response is from the others to its prompt, derive its weight, and hold out some prompts."""
    from ddpo_lib.deviation import weight_shards, weights_table

    table = weights_table.weights(source, semantic, style, scale, floor, shard, held_out, split_seed, windows, reddit)
    if IS_MAIN:
        options = {"row_group_size": weight_shards.GROUP} if shard else {}
        write_whole(out, lambda aside: table.to_parquet(aside, **options))
        typer.echo(weights_table.describe_weights(out, table))


def divide(
    source: Annotated[str, typer.Argument(metavar="IN", help="Corpus: a file, a folder or a hub data set.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to make; a corpus for `ddpo weights`.")],
    parts: Annotated[int, typer.Option(help="Number of parts: the N of `ddpo weights --shard K/N`.")] = 64,
    reddit: Annotated[bool, typer.Option("--reddit", help="As for `ddpo weights`, which needs the same.")] = False,
) -> None:
    """Read a large corpus once and write it in parts, so that each shard of weights reads its own part only."""
    from ddpo_lib.data import formats

    typer.echo(f"{out}: {formats.divide(source, out, parts, reddit=reddit)} records in {parts} parts")


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="Table to write, as `ddpo weights` writes it.")],
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="Tables that `ddpo weights --shard` wrote.")],
) -> None:
    """Join the shards of a table of weights, without loading a whole shard into memory."""
    from ddpo_lib.deviation import weight_shards

    rows = write_whole(out, lambda aside: weight_shards.merge(parts, aside))
    typer.echo(f"{out}: {rows} responses from {len(parts)} shards")
