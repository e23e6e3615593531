"""What `ddpo weights` does: a corpus -> the table of weights, which the other commands read back.

The table tells each prompt's side, so that all commands split prompts alike. A corpus is split by `corpus.side`
instead, with the same defaults for all commands.
"""

import logging
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights as deviation_weights
from ddpo_lib.spaces.embed import embed, version_of

log = logging.getLogger(__name__)

SPACES = {"semantic": ["semantic"], "style": ["style"], "both": ["semantic", "style"]}


def weights(
    source: str,
    semantic: str,
    style: str,
    scale: str,
    floor: float,
    shard: str | None,
    held_out: float,
    split_seed: int,
) -> pd.DataFrame:
    """The corpus with each response's side, distances and weights; with a shard "k/n", only the prompts of that part.

    Weights compare the responses to one prompt, so they do not depend on the split.
    """
    from accelerate import PartialState

    part = _parse_shard(shard)
    table = read_corpus(source, held_out=held_out, seed=split_seed, shard=part)
    groups = table["prompt_id"].astype("category").cat.codes.to_numpy()
    for name, model in (("semantic", semantic), ("style", style)):
        table[name] = mean_distance(embed(table["text"].tolist(), model), groups) if len(table) else 0.0
    for name, spaces in SPACES.items():
        distances = [table[s].to_numpy() for s in spaces]
        try:
            table[f"weight_{name}"] = deviation_weights(distances, groups, scale=scale, floor=floor)
        except ValueError as error:
            raise InputError(str(error)) from None
    versions = {name: version_of(model) for name, model in (("semantic", semantic), ("style", style))}
    table.attrs["versions"] = versions
    if part:  # for `merge`, which needs each shard of one corpus once
        options = [source, semantic, style, scale, floor, held_out, split_seed, versions]
        table.attrs["shard"] = {"k": part[0], "n": part[1], "of": options}
    elif held_out and not table["split"].eq("test").any():
        log.warning("%s: no prompt is held out; give another --held-out or --split-seed", source)
    PartialState().destroy_process_group()
    return table


def describe_weights(out: Path, table: pd.DataFrame) -> str:
    """A sentence: how many responses and prompts a table of weights has, and how many prompts are held out."""
    held_out = table.loc[table["split"] == "test", "prompt_id"].nunique()
    return f"{out}: {len(table)} responses to {table['prompt_id'].nunique()} prompts, {held_out} of them held out"


def _parse_shard(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    k, _, n = shard.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise InputError(f"--shard {shard}: expected K/N with 1 <= K <= N, such as 2/8")
    return int(k), int(n)


def read_weights(source: Path, column: str | None) -> pd.DataFrame:
    if not source.is_file():
        raise InputError(f"{source}: no such file; `ddpo weights IN {source}` makes it")
    try:
        table = pd.read_parquet(source)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    for needed in ("prompt_id", "response_id", "prompt", "text", "score", "split", *([column] if column else [])):
        if needed not in table:
            raise InputError(f"{source}: no column `{needed}`; `ddpo weights IN {source}` writes it anew, with one")
    return table


def table_of_weights(source: str) -> pd.DataFrame | None:
    """The table if `ddpo weights` wrote it; None for any other source, which `corpus` reads and reports errors of."""
    import pyarrow.parquet as pq

    path = Path(source)
    if path.suffix != ".parquet" or not path.is_file():
        return None
    try:
        columns = pq.read_schema(path).names
    except (OSError, ValueError):
        return None
    return read_weights(path, None) if "response_id" in columns else None
