"""A corpus in which several sources answered the same prompts -> the sources ranked by every measure.

If a source has one response per prompt, there is no diversity within a prompt. So a source is measured on sets of its
responses to different prompts, the same prompts for every source. The diversity that comes from the prompts is then
common to all sources; the rest shows how similar a source's responses to different prompts are.
"""

from itertools import permutations

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain
from ddpo_lib.evaluation.compare_arms import score_by_prompt
from ddpo_lib.measures.table import MEASURES
from ddpo_lib.statistics.intervals import compare, holm


def rank_sources(corpus: pd.DataFrame, reward, spaces: dict, *, size: int, confidence: float, seed: int):
    """Rank the sources of a corpus by every measure, whole and at matched length.

    Args:
        corpus: the table of `corpus.read_corpus`; only the sources that answered nearly all prompts are compared, over
            the prompts that all of them answered.
        reward: scores a prompt's responses, see `quality`.
        spaces: by name; "semantic" and "style" are required.
        size: prompts per set; a set of a source gives one value of each measure.
        confidence: of the intervals over sets.
        seed: of the sets.

    Returns:
        A mapping for JSON: `sources`, `sets`, `size`, `words` (the matched length), and by length ("whole", "matched")
        `means`, by measure and source, and `orders`, by measure: the pairs [more, less] of sources whose paired
        difference excludes zero, after Holm's correction over all pairs with the same second source. "more" is the more
        diverse source, or for quality the better one.

    Raises:
        InputError: fewer than two sources answered the prompts, or too few prompts were answered by all of them.
    """
    tables = sets_by_source(corpus, size, seed)
    sources = list(tables)
    by_set, shared = score_by_prompt(tables, reward, spaces, baseline=sources[0], to_match=sources)
    result = {"sources": sources, "sets": int(by_set["prompt_id"].nunique()), "size": size, **shared}
    for length, rows in by_set.groupby("length"):
        names = [name for name in MEASURES if rows[name].notna().any()]
        wide = [rows.pivot(index="arm", columns="prompt_id", values=name).loc[sources].to_numpy() for name in names]
        values = np.stack(wide, axis=1)
        numbers = range(len(sources))
        compared = [
            compare(values, against=[None if a == b else b for a in numbers], confidence=confidence) for b in numbers
        ]
        more = [_is_more(found.differences, names, 1 - confidence) for found in compared]
        result[length] = {
            "means": {
                name: {source: compared[0].means[s][m] for s, source in enumerate(sources)}
                for m, name in enumerate(names)
            },
            "orders": {
                name: [[sources[a], sources[b]] for a, b in permutations(numbers, 2) if more[b][a, m]]
                for m, name in enumerate(names)
            },
        }
    return plain(result)


def sets_by_source(corpus: pd.DataFrame, size: int, seed: int) -> dict[str, pd.DataFrame]:
    """Each source's responses in sets of `size` prompts; a set has the same prompts for every source.

    Only the first response of a source to a prompt is used. Prompts that do not fill a set are dropped.

    Returns:
        By source, one row per response: `prompt_id` (the set's), `prompt`, `text`.
    """
    once = corpus.drop_duplicates(["source", "prompt_id"])
    wide = once.pivot(index="prompt_id", columns="source", values="text").dropna()
    prompts = np.random.default_rng(seed).permutation(wide.index.to_numpy())
    prompts = prompts[: len(prompts) // size * size]
    if wide.shape[1] < 2 or len(prompts) < 2 * size:
        raise InputError(
            f"{wide.shape[1]} sources answered {len(wide)} prompts in common; ranking needs two sources and "
            f"{2 * size} prompts that each of them answered"
        )
    names = corpus.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"].loc[prompts].to_numpy()
    of_set = [f"set {i // size:04d}" for i in range(len(prompts))]
    return {
        str(source): pd.DataFrame({"prompt_id": of_set, "prompt": names, "text": wide.loc[prompts, source].to_numpy()})
        for source in wide.columns
    }


def _is_more(differences: dict, names: list[str], level: float) -> dict[tuple[int, int], bool]:
    """By source and measure, whether the source is the more diverse one (for quality: better); Holm over sources."""
    more = {}
    for m, name in enumerate(names):
        sign = -1 if MEASURES[name].diverse == "lower" else 1
        corrected = holm(np.array([found[m].p for found in differences.values()]))
        for (source, found), p in zip(differences.items(), corrected, strict=True):
            more[source, m] = bool(sign * found[m].mean > 0 and p < level)
    return more
