"""Public names of `ddpo_lib.measures.diversity` and `ddpo_lib.measures.word_measures`."""

from ddpo_lib.measures.diversity import (
    NEAR_COPY,
    distinct_k,
    effective_diversity,
    equivalent,
    pairwise_distance,
    utility_k,
    vendi,
)
from ddpo_lib.measures.word_measures import (
    compression_ratio,
    count_vocabulary,
    distinct_n,
    ead,
    matched_length,
    ngram_diversity,
    rouge_l,
    self_bleu,
    truncate,
)

__all__ = [
    "NEAR_COPY",
    "compression_ratio",
    "count_vocabulary",
    "distinct_k",
    "distinct_n",
    "ead",
    "effective_diversity",
    "equivalent",
    "matched_length",
    "ngram_diversity",
    "pairwise_distance",
    "rouge_l",
    "self_bleu",
    "truncate",
    "utility_k",
    "vendi",
]
