"""A corpus and its vectors -> what deviation is in it, as JSON values: correlations, zeros, agreement, reliability."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.evaluation.by_prompt import generator_of, interval_columns, rows_by_prompt
from ddpo_lib.evaluation.reliability import needed, split_half
from ddpo_lib.evaluation.within_prompts import agreement, correlate_within, rank_by_source
from ddpo_lib.evaluation.zero_weights import effective_share, scaled_weights, zero_share
from ddpo_lib.pairs.rules import draw_rows

SOURCES = 12  # more sources than this are taken for names of persons, not kinds of writers


def collect_findings(
    table: pd.DataFrame,
    vectors: Mapping[str, np.ndarray],
    *,
    gap: float = 5,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """Correlations, zeros, agreement, reliability and ranks of sources of one corpus, as JSON values.

    Args:
        table: of `corpus.read_corpus`; a prompt with a single response is left out.
        vectors: (n, d) for each space, one row per row of `table`.
        gap: as in `pairs.make_pairs`.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the other draws.

    Returns:
        - `prompts responses scored words`, three counts and the median length in words
        - `correlations`: rows `x y given prompts rho rho_low rho_high`, within prompts: of words with score; of
          deviation in each space with words and with score; and, with words held fixed, with score and between spaces.
        - `agreement`: the rows of `agreement`, over winners drawn by the rule of training pairs.
        - `effective_share`: for each space, by scale of the weights.
        - `zero_share`: the rows of `zero_share` for each space and each pair of spaces, with `spaces`.
        - `reliability`: the rows of `split_half` for each `space`, with `needed` for 0.7.
        - `sources`: for each `space` and `source` its `prompts place` and interval by deviation; empty if the corpus
          has one source, or more than 12.

        A value is None if the corpus does not determine it, or if no number of responses is enough.
    """
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    several = (table.groupby("prompt_id")["prompt_id"].transform("size") >= 2).to_numpy()
    table, vectors = table[several], {name: space[several] for name, space in vectors.items()}
    groups = np.unique(table["prompt_id"], return_inverse=True)[1]
    scores = table["score"].to_numpy(dtype=np.float64)
    words = np.array([len(text.split()) for text in table["text"]])
    distances = {name: mean_distance(space, groups) for name, space in vectors.items()}
    sizes = _sizes_to_look_at(groups)

    source = table["source"].to_numpy()
    measured = pd.DataFrame({"prompt_id": groups, "score": scores, "words": words, "source": source, **distances})
    sources = list(distances) if 2 <= measured["source"].nunique() <= SOURCES else []
    pairs = [("words", "score"), *((space, y) for space in vectors for y in ("words", "score"))]
    correlations = [(x, y, None) for x, y in pairs]
    correlations += [(x, y, "words") for x, y in [*pairs[2::2], *combinations(vectors, 2)]]
    prompts = list(rows_by_prompt(groups, scores, *vectors.values()))
    winners = [rows[draw_rows(scores[rows], gap, generator_of(seed, group))[0]] for group, rows in prompts]
    result = {
        "prompts": len(prompts),
        "responses": len(table),
        "scored": int(np.isfinite(scores).sum()),
        "words": np.median(words) if len(words) else None,
        "correlations": [
            {"x": x, "y": y, "given": given, "prompts": rho.prompts if rho else 0} | interval_columns("rho", rho)
            for x, y, given in correlations
            for rho in [correlate_within(measured, x, y, given=given, confidence=confidence)]
        ],
        "agreement": _rows(agreement(distances, groups, np.concatenate([[], *winners]).astype(int), **settings)),
        "effective_share": {
            space: {scale: effective_share(weight) for scale, weight in scaled_weights(distance, groups).items()}
            for space, distance in distances.items()
        },
        "zero_share": [
            {"spaces": list(spaces)} | row
            for spaces in [*combinations(vectors, 1), *combinations(vectors, 2)]
            for row in _rows(
                zero_share([vectors[s] for s in spaces], groups, sizes, scores=scores, gap=gap, **settings)
            )
        ],
        "reliability": [
            {"space": name} | row | needed(row)
            for name, space in vectors.items()
            for row in _rows(split_half(space, groups, [n for n in sizes if n >= 4], **settings))
        ],
        "sources": [
            {"space": space, "source": source, "prompts": place.prompts, **interval_columns("place", place)}
            for space in sources
            for source, place in rank_by_source(measured, space, confidence=confidence)
        ],
    }
    return plain(result)


def _sizes_to_look_at(groups: np.ndarray) -> list[int]:
    """2, 4, 8 and so on up to the size of the largest prompt, and the median size."""
    if not len(groups):
        return []
    sizes = np.unique(groups, return_counts=True)[1]
    return sorted({2**k for k in range(1, int(sizes.max()).bit_length())} | {int(np.median(sizes))})


def _rows(frame: pd.DataFrame) -> list[dict]:
    return frame.to_dict("records")
