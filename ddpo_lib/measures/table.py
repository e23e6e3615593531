"""The table of measures, and one function that computes all of them for the samples of an arm."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ddpo_lib.data.words import Tokenizer
from ddpo_lib.deviation.groups import index_groups
from ddpo_lib.measures import diversity, word_measures

N = 2  # words in the n-grams of `distinct-2` and `ead-2`
SEMANTIC = "semantic"  # the space in which samples are equivalent, or effectively different


@dataclass(frozen=True)
class Measure:
    """What a column of `measure` is.

    Attributes:
        name: of the column.
        label: in words, with the unit, for an axis or a table heading.
        diverse: whether a higher or a lower value means more diverse; None for quality, which measures no diversity.
        range: the smallest and the largest possible value.
        reads: the inputs that it is computed from.
        what: an explanation in one line.
    """

    name: str
    label: str
    diverse: Literal["higher", "lower"] | None
    range: tuple[float, float]
    reads: tuple[Literal["texts", "vectors", "scores"], ...]
    what: str


def measures_of(spaces: Iterable[str]) -> dict[str, Measure]:
    """The measures of samples with vectors in these spaces, by name and in the order of the columns."""
    rows = [
        Measure(
            "quality", "quality (mean score)", None, (-math.inf, math.inf), ("scores",), "mean score of the samples"
        ),
        *(
            Measure(
                space,
                f"{space} diversity (cosine distance)",
                "higher",
                (0, 2),
                ("vectors",),
                f"mean cosine distance of the pairs of samples in the {space} space",
            )
            for space in spaces
        ),
        Measure(
            "vendi",
            "Vendi score (samples)",
            "higher",
            (1, math.inf),
            ("vectors",),
            "effective number of different samples in the semantic space, order 1; at most their number",
        ),
        Measure(
            f"distinct-{N}",
            f"distinct-{N} (share of {N}-grams)",
            "higher",
            (0, 1),
            ("texts",),
            f"distinct {N}-grams over all {N}-grams of the samples; longer texts score lower",
        ),
        Measure(
            f"ead-{N}",
            f"EAD-{N} (ratio to expected {N}-grams)",
            "higher",
            (0, math.inf),
            ("texts",),
            f"distinct {N}-grams over as many as random draws from the vocabulary would give",
        ),
        Measure(
            "self-bleu",
            "self-BLEU (0 to 1)",
            "lower",
            (0, 1),
            ("texts",),
            "mean BLEU of each sample against the others",
        ),
        Measure(
            "rouge-l",
            "ROUGE-L homogenisation (F1)",
            "lower",
            (0, 1),
            ("texts",),
            "mean F1 of the longest common subsequence of the pairs of samples",
        ),
        Measure(
            "compression",
            "compression ratio (bytes over gzip bytes)",
            "lower",
            (0, math.inf),
            ("texts",),
            "bytes of the samples over their bytes when gzip packs them together; longer texts score higher",
        ),
        Measure(
            "n-gram",
            "n-gram diversity (sum over n = 1 to 4)",
            "higher",
            (0, 4),
            ("texts",),
            "distinct over all n-grams of the samples, summed over n = 1 to 4; longer texts score lower",
        ),
        Measure(
            "distinct-k",
            "distinct-k (classes of near copies)",
            "higher",
            (1, math.inf),
            ("vectors",),
            "classes of samples that are no near copies of one another; at most their number",
        ),
        Measure(
            "utility-k",
            "utility-k (0 to 1)",
            "higher",
            (0, 1),
            ("vectors", "scores"),
            "score of the samples that repeat no earlier one, the first ones counting most",
        ),
        Measure(
            "effective",
            "effective diversity (cosine distance)",
            "higher",
            (0, 2),
            ("vectors", "scores"),
            "semantic diversity where a pair with a sample below the quality bar counts 0",
        ),
    ]
    return {row.name: row for row in rows}


MEASURES = measures_of((SEMANTIC, "style"))


def measure(
    texts: list[str],
    groups: np.ndarray,
    vectors: dict[str, np.ndarray],
    scores: np.ndarray | None = None,
    *,
    vocabulary: int,
    bar: float | None = None,
    threshold: float = diversity.NEAR_COPY,
    tokenizer: Tokenizer | None = None,
) -> pd.DataFrame:
    """Every measure of each group of samples. For matched length, pass truncated texts and their vectors.

    Args:
        texts: n samples; each measure states what a blank one counts.
        groups: (n,) integers, the prompt of each sample; within a group, rows are in the order of drawing.
        vectors: for each space (n, d), rows of any length but zero; the space "semantic" is required.
        scores: (n,) transformed upvotes, about -1 to 1. Without them the measures that read scores are left out.
        vocabulary: distinct bigrams of everything compared, `word_measures.count_vocabulary(texts of all arms, 2)`.
        bar: the lowest score that is good enough for `effective`; required with scores.
        threshold: the lowest cosine at which two samples are equivalent, for `distinct-k` and `utility-k`.
        tokenizer: of `self-bleu` and `rouge-l`, one for everything compared; None chooses by these texts.

    Returns:
        One row per group, ascending: `group` and the columns of `measures_of(vectors)`. For a group of one sample, only
        the quality is a number and the rest is NaN; a warning gives the number of such groups.

    Raises:
        TypeError: a text is not a string (names the row).
        ValueError: scores are NaN or infinite (gives their number and the first row), scores come without a bar, the
            semantic space is missing, shapes are wrong, a vector has no direction, or the vocabulary is too small.
    """
    groups = np.asarray(groups)
    if SEMANTIC not in vectors:
        raise ValueError(f'vectors: expected the space "{SEMANTIC}", got {", ".join(vectors) or "none"}')
    if scores is not None and bar is None:
        raise ValueError("bar: needed with scores, but missing")
    inverse, sizes = index_groups(groups, len(texts))
    if (sizes == 1).any():
        warnings.warn(f"{(sizes == 1).sum()} of {len(sizes)} groups have one sample: no diversity", stacklevel=2)
    found = {"group": np.unique(groups)}
    semantic = vectors[SEMANTIC]
    classes = diversity.equivalent(semantic, groups, threshold)
    if scores is not None:
        scores = diversity.finite_numbers("scores", scores, len(texts))
        found["quality"] = np.bincount(inverse, scores, len(sizes)) / sizes
        found["utility-k"] = diversity.utility_k(classes, utilities(scores), groups)[1]
        found["effective"] = diversity.effective_diversity(semantic, scores, groups, bar)[1]
    for space, of in vectors.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning above says it once
            found[space] = diversity.pairwise_distance(of, groups)[1]
    found["vendi"] = diversity.vendi(semantic, groups)[1]
    found[f"distinct-{N}"] = word_measures.distinct_n(texts, groups, N)[1]
    found[f"ead-{N}"] = word_measures.ead(texts, groups, N, vocabulary)[1]
    found["self-bleu"] = word_measures.self_bleu(texts, groups, tokenizer)[1]
    found["rouge-l"] = word_measures.rouge_l(texts, groups, tokenizer)[1]
    found["compression"] = word_measures.compression_ratio(texts, groups)[1]
    found["n-gram"] = word_measures.ngram_diversity(texts, groups)[1]
    found["distinct-k"] = diversity.distinct_k(classes, groups)[1]
    columns = [name for name in measures_of(vectors) if name in found]
    return pd.DataFrame(found)[["group", *columns]]


def utilities(scores: np.ndarray) -> np.ndarray:
    """The utilities that `utility-k` counts, from scores of about -1 to 1: (score + 1) / 2, clipped to [0, 1]."""
    return np.clip((scores + 1) / 2, 0.0, 1.0)
