"""Public names of `ddpo_lib.measures.diversity`, `word_measures` and `lengths`."""

from ddpo_lib.measures.diversity import (
    NEAR_COPY,
    distinct_k,
    effective_diversity,
    equivalent,
    pairwise_distance,
    utility_k,
    vendi,
)
from ddpo_lib.measures.lengths import matched_length, truncate
from ddpo_lib.measures.word_measures import (
    compression_ratio,
    count_vocabulary,
    distinct_n,
    ead,
    ngram_diversity,
    rouge_l,
    self_bleu,
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
