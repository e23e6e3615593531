"""What `ddpo weights` does: a corpus -> the table of weights, which the other commands read back.

The table tells each prompt's side, so that all commands split prompts alike. A corpus is split by `corpus.side`
instead, with the same defaults for all commands.
"""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import DAMAGED_TABLE, InputError, first_line
from ddpo_lib.base.files import file_hash
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.data.divided import content_of
from ddpo_lib.data.files import folder_parts, is_parquet
from ddpo_lib.data.ids import told_apart
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.equal_weights import describe_equal
from ddpo_lib.deviation.weighting import weights as deviation_weights
from ddpo_lib.spaces.embed import COUNTED, Space, count_overlong, embed, version_of

log = logging.getLogger(__name__)

COUNTED_AT_ONCE = 1024  # texts: 70 MB of float64 in the largest space
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
    windows: bool = False,
    reddit: bool = False,
) -> pd.DataFrame:
    """The corpus with each response's side, distances and weights; with a shard "k/n", only the prompts of that part.

    Weights compare the responses to one prompt, so they do not depend on the split.
    """
    from accelerate import PartialState

    part = _parse_shard(shard)
    table = read_corpus(source, held_out=held_out, seed=split_seed, shard=part, reddit=reddit)
    groups = table["prompt_id"].astype("category").cat.codes.to_numpy()
    distances = {
        model: _distances(table["text"].tolist(), groups, model, windows, part)
        for model in dict.fromkeys((semantic, style))
    }
    table["semantic"], table["style"] = distances[semantic], distances[style]
    for name, spaces in SPACES.items():
        distances = [table[s].to_numpy() for s in spaces]
        try:
            table[f"weight_{name}"] = deviation_weights(distances, groups, scale=scale, floor=floor)
        except ValueError as error:
            raise InputError(str(error)) from None
    versions = {name: version_of(model) for name, model in (("semantic", semantic), ("style", style))}
    table.attrs["versions"] = versions
    if part:  # for `merge`, which needs each shard of one corpus once
        options = [_content(source), semantic, style, scale, floor, held_out, split_seed, windows, reddit, versions]
        options.append(code_key(weights))
        table.attrs["shard"] = {"k": part[0], "n": part[1], "of": options}
    elif held_out and not table["split"].eq("test").any():
        log.warning("%s: no prompt is held out; give another --held-out or --split-seed", source)
    if equal := describe_equal(table["weight_both"].to_numpy(), groups):
        log.warning("%s: %s", source, equal)
    PartialState().destroy_process_group()
    return table


def _distances(
    texts: list[str], groups: np.ndarray, model: str, windows: bool, part: tuple[int, int] | None
) -> np.ndarray:
    """(n,) mean distance of each text to the others of its group, in the space of a model.

    A shard of a counted space keeps no vectors. They are larger than the texts, and counting them anew costs little.
    """
    space = Space(model, windows=windows)
    if not texts:
        return np.zeros(0)
    if part and model in COUNTED and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return _counted_distances(texts, groups, COUNTED[model])
    count_overlong(texts, space)
    return mean_distance(embed(texts, space), groups)


def _counted_distances(texts: list[str], groups: np.ndarray, count: Callable) -> np.ndarray:
    """As `_distances`, a few groups at a time; the rows of a group are together."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    ends = [*starts[1:], len(texts)]
    distance, first = np.empty(len(texts)), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each piece; the sum is told below
        for end in ends:
            if end - first >= COUNTED_AT_ONCE or end == len(texts):
                pieces = range(first, end, COUNTED_AT_ONCE)
                vectors = np.concatenate([count(texts[at : min(at + COUNTED_AT_ONCE, end)]) for at in pieces])
                distance[first:end] = mean_distance(vectors, groups[first:end])
                first = end
    if alone := np.isnan(distance).sum():
        log.warning("%d of %d responses are alone in their group: distance NaN", alone, len(texts))
    return distance


def _content(source: str) -> str | list[str]:
    """What tells a corpus from others: the hashes of its files, wherever they are, or the name of a hub data set.

    A divided corpus has its hash written beside it, so that a shard need not read the other parts.
    """
    path = Path(source)
    if content := content_of(path):
        return content
    files = folder_parts(path) if path.is_dir() else [path] if path.exists() else []
    return [file_hash(file) for file in files] or source


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
    except DAMAGED_TABLE as error:
        raise InputError(f"{source}: not a Parquet file that can be read ({first_line(error)})") from None
    if set(table.index.names) & {"prompt_id", "response_id"}:  # pandas' set_index moved them there
        table = table.reset_index()
    for needed in ("prompt_id", "response_id", "prompt", "text", "score", "split", *([column] if column else [])):
        if needed not in table:
            raise InputError(f"{source}: no column `{needed}`; `ddpo weights IN {source}` writes it anew, with one")
    for name in ("score", *([column] if column else [])):
        if table[name].map(lambda value: value is None or type(value) in (int, float)).all():
            table[name] = table[name].astype(float)
        if not pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]):
            kinds = ", ".join(sorted({type(value).__name__ for value in table[name]}))
            raise InputError(f"{source}, column `{name}`: expected numbers, got {kinds}")
    _check_values(table, source, column)
    return told_apart(table, str(source))


def _check_values(table: pd.DataFrame, source: Path, column: str | None) -> None:
    """Raise InputError for a side that is neither train nor test, an infinite score, or a weight that is no weight."""
    score = table["score"].to_numpy(dtype=float, na_value=float("nan"))
    wrong = {"split": ~table["split"].isin(["train", "test"]).to_numpy(), "score": np.isinf(score)}
    if column:
        weight = table[column].to_numpy(dtype=float, na_value=float("nan"))
        wrong[column] = ~(np.isfinite(weight) & (weight >= 0))
    expected = {"split": "train or test", "score": "a finite number or none", column: "a finite number >= 0"}
    for name, rows in wrong.items():
        if rows.any():
            row = int(rows.argmax())
            raise InputError(
                f"{source}, row {row + 1}, column `{name}`: expected {expected[name]}, got {table[name].iloc[row]!r}; "
                f"`ddpo weights IN {source}` writes the table anew"
            )


def table_of_weights(source: str) -> pd.DataFrame | None:
    """The table if `ddpo weights` wrote it; None for any other source, which `corpus` reads and reports errors of."""
    import pyarrow.parquet as pq

    path = Path(source)
    if not is_parquet(path):
        return None
    try:
        columns = pq.read_schema(path).names
    except DAMAGED_TABLE:
        return None
    return read_weights(path, None) if "response_id" in columns else None
